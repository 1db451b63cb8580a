//! A storage that is a directory of files, one for each extent, named `{id:016x}.cdp`.
//!
//! Nothing but extents lies in the directory: a copy of an idle store is a store. Anything else that is found there is
//! left alone. Invariants:
//! - *direct*: files are read and written past the page cache (`O_DIRECT`) unless the options or the file system say
//!   otherwise. A file system may refuse when the flag is set or at the first transfer (`EINVAL`); that file and all
//!   that are opened later are then buffered.
//! - *allocated*: a created file has its space (`fallocate`, else zeroes are written and synced), or it is not there.
//! - *locks*: `flock`, on file descriptions of their own, so that two storages in one process exclude each other too
//!   and nothing outlives the process. The owner locks the directory, which exists before the first extent; a lease
//!   is a shared lock on the file of extent 0, which every store has and never replaces (`NotFound` where it is
//!   missing). On network file systems the
//!   owner's lock may hold for one host only; the owner epoch in the superblock covers the rest.
//!
//! Fails with the errno of the operating system, `InvalidInput` for requests that are not aligned, and
//! `PermissionDenied` for any change through a storage that was opened read-only.

use super::{AlignedBuf, Extent, IO_ALIGN, Storage, StorageLock, aligned, sparse::past_the_end};
use crate::{
    limits::TRANSFER_STALLS_MAX,
    units::{ExtentId, len_u64, to_len},
};
use rustix::{
    fs::{AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags},
    io::{Errno, retry_on_intr},
};
use std::{
    fs::{DirBuilder, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileExt, MetadataExt},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Permissions of new directories and files: the store holds everything that was ever on the disk.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const SUFFIX: &[u8] = b".cdp";
const ID_DIGITS: usize = 16;
/// The extent whose file carries the leases.
const LEASE_EXTENT: ExtentId = ExtentId::ZERO;
/// Bytes written at a time where space can only be allocated by writing.
const ZEROES_BYTES: usize = 1 << 20;

/// How a directory is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// Go through the page cache even where the file system could do without.
    pub buffered: bool,
}

/// Extents as files of a directory.
#[derive(Debug)]
pub struct DirectoryStorage {
    directory: OwnedFd,
    read_only: bool,
    direct: Arc<AtomicBool>,
}

impl DirectoryStorage {
    /// Makes the directory, or takes an empty one.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, `NotFound` where its parent is missing, and those of the file system. A directory that was
    /// made is removed again.
    pub fn create(path: impl AsRef<Path>, options: DirectoryOptions) -> io::Result<Self> {
        let path = path.as_ref();
        match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Ok(()) => {
                let made = Self::at(path, options, false).and_then(|storage| {
                    sync_directory(&open_directory(&storage.directory, "..")?).map(|()| storage)
                });
                if made.is_err() {
                    // The first failure is the one to report.
                    let _ = std::fs::remove_dir(path);
                }
                made
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let storage = Self::at(path, options, false)?;
                storage.check_empty()?;
                Ok(storage)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a directory for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, and those of the file system.
    pub fn open(path: impl AsRef<Path>, options: DirectoryOptions) -> io::Result<Self> {
        Self::at(path.as_ref(), options, false)
    }

    /// Opens a directory for reading only; it may lie on a file system that is mounted so.
    ///
    /// # Errors
    /// As [`DirectoryStorage::open`].
    pub fn open_read_only(path: impl AsRef<Path>, options: DirectoryOptions) -> io::Result<Self> {
        Self::at(path.as_ref(), options, true)
    }

    /// Whether files are read and written past the page cache, as far as the file system has shown.
    pub fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    fn at(path: &Path, options: DirectoryOptions, read_only: bool) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
        Ok(Self { directory, read_only, direct: Arc::new(AtomicBool::new(!options.buffered)) })
    }

    fn check_empty(&self) -> io::Result<()> {
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            // The root of a new file system has one of these.
            if !matches!(entry.file_name().to_bytes(), b"." | b".." | b"lost+found") {
                let text = format!("the directory is not empty: it contains {:?}", entry.file_name());
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, text));
            }
        }
        Ok(())
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only { Err(opened_read_only()) } else { Ok(()) }
    }

    /// Opens the file of an extent, buffered. Never waits, whatever lies under the name.
    fn open_file(&self, id: ExtentId, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = retry_on_intr(|| rustix::fs::openat(&self.directory, file_name(id), flags, FILE_MODE))?;
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an extent must be a regular file"));
        }
        Ok(file)
    }

    fn extent(&self, file: File) -> io::Result<DirectoryExtent> {
        let extent = DirectoryExtent { file, read_only: self.read_only, direct: Arc::clone(&self.direct) };
        if self.is_direct() {
            // Set after opening, because some file systems create the file first and refuse the flag then.
            match rustix::fs::fcntl_setfl(&extent.file, OFlags::DIRECT) {
                Ok(()) => {}
                Err(Errno::INVAL) => extent.set_buffered()?,
                Err(error) => return Err(error.into()),
            }
        } else {
            rustix::fs::fcntl_setfl(&extent.file, OFlags::empty())?;
        }
        Ok(extent)
    }

    fn is_regular(&self, entry: &rustix::fs::DirEntry) -> io::Result<bool> {
        match entry.file_type() {
            FileType::RegularFile => Ok(true),
            FileType::Unknown | FileType::Symlink => {
                match rustix::fs::statat(&self.directory, entry.file_name(), AtFlags::empty()) {
                    Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
                    Err(Errno::NOENT | Errno::LOOP) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
            _ => Ok(false),
        }
    }
}

impl Storage for DirectoryStorage {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        self.check_writable()?;
        aligned::check_size(bytes)?;
        let file = self.open_file(id, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        let made = self.extent(file).and_then(|extent| extent.allocate(bytes).map(|()| extent));
        match made {
            Ok(extent) => Ok(Arc::new(extent)),
            Err(error) => {
                // The first failure is the one to report; a file that stays is an orphan for the next open.
                let _ = rustix::fs::unlinkat(&self.directory, file_name(id), AtFlags::empty());
                Err(error)
            }
        }
    }

    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        let flags = if self.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        Ok(Arc::new(self.extent(self.open_file(id, flags)?)?))
    }

    fn list(&self) -> io::Result<Vec<ExtentId>> {
        let mut ids = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            if let Some(id) = parse_file_name(entry.file_name().to_bytes())
                && self.is_regular(&entry)?
            {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn remove(&self, id: ExtentId) -> io::Result<()> {
        self.check_writable()?;
        Ok(rustix::fs::unlinkat(&self.directory, file_name(id), AtFlags::empty())?)
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_directory(&self.directory)
    }

    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.check_writable()?;
        let lock = open_directory(&self.directory, ".")?;
        FileLock::take(lock, FlockOperation::NonBlockingLockExclusive)
    }

    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        let lock = self.open_file(LEASE_EXTENT, OFlags::RDONLY)?;
        FileLock::take(lock.into(), FlockOperation::LockShared)
    }

    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.check_writable()?;
        let lock = self.open_file(LEASE_EXTENT, OFlags::RDWR)?;
        match FileLock::take(lock.into(), FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn describe(&self, id: ExtentId) -> String {
        file_name(id)
    }
}

#[derive(Debug)]
struct DirectoryExtent {
    file: File,
    read_only: bool,
    direct: Arc<AtomicBool>,
}

impl DirectoryExtent {
    fn check_writable(&self) -> io::Result<()> {
        if self.read_only { Err(opened_read_only()) } else { Ok(()) }
    }

    /// Goes over to the page cache, for this file and all that the storage opens from now on.
    fn set_buffered(&self) -> io::Result<()> {
        self.direct.store(false, Ordering::Relaxed);
        Ok(rustix::fs::fcntl_setfl(&self.file, OFlags::empty())?)
    }

    /// Calls `step` with the bytes done so far and the offset of the rest until `len` bytes are done, and returns how
    /// many are; fewer only when the file makes no more progress.
    ///
    /// A part of a unit does not count: the rest of it could not be asked for under direct I/O, so that the unit is
    /// transferred again as a whole.
    fn transfer(
        &self,
        offset: u64,
        len: usize,
        mut step: impl FnMut(usize, u64) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let (mut done, mut stalls, mut refused) = (0, 0, false);
        while done < len && stalls < TRANSFER_STALLS_MAX {
            match step(done, offset + len_u64(done)) {
                Ok(0) => break,
                Ok(moved) if moved < IO_ALIGN => stalls += 1,
                Ok(moved) => {
                    done += moved - moved % IO_ALIGN;
                    stalls = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Once in any case: another thread may have met the refusal first and cleared the flag meanwhile.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) && !refused => {
                    refused = true;
                    self.set_buffered()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_fully(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let len = buf.len();
        let done = self.transfer(offset, len, |done, at| self.file.read_at(&mut buf[done..], at))?;
        if done == len {
            return Ok(());
        }
        let size = self.size()?;
        if offset + len_u64(len) > size {
            return Err(past_the_end(offset, len, size));
        }
        Err(io::Error::other(format!("the read stopped after {done} of {len} bytes at {offset}")))
    }

    fn write_fully(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let done = self.transfer(offset, data.len(), |done, at| self.file.write_at(&data[done..], at))?;
        if done == data.len() {
            return Ok(());
        }
        let text = format!("the write stopped after {done} of {} bytes at {offset}", data.len());
        Err(io::Error::new(io::ErrorKind::WriteZero, text))
    }

    /// Gives the empty file its size and its space.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.allocate_by_writing(bytes),
            Err(error) => Err(error.into()),
        }
    }

    fn allocate_by_writing(&self, bytes: u64) -> io::Result<()> {
        let zeroes = AlignedBuf::new(ZEROES_BYTES)?;
        let mut offset = 0;
        while offset < bytes {
            let left = (bytes - offset).next_multiple_of(len_u64(IO_ALIGN));
            let part = left.min(len_u64(zeroes.len()));
            self.write_fully(offset, &zeroes[..to_len(part)])?;
            offset += part;
        }
        self.set_size(bytes)?;
        // Behind a cache the lack of space shows only here.
        self.sync()
    }
}

impl Extent for DirectoryExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        aligned::check(offset, buf)?;
        self.read_fully(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        aligned::check(offset, data)?;
        self.write_fully(offset, data)
    }

    /// Also covers a change of size: without it the data could not be read.
    fn sync(&self) -> io::Result<()> {
        // Never repeated, not even after EINTR: a second one would report pages as written that were given up.
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        aligned::check_size(bytes)?;
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&self.file, bytes))?)
    }

    fn allocated(&self) -> io::Result<u64> {
        // The unit of st_blocks, whatever the block size of the file system.
        Ok(self.file.metadata()?.blocks() * 512)
    }

    fn file(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

/// A file or device that is no extent of a storage, read and written as one: past the page cache where that can be done.
pub(crate) fn raw_extent(file: File) -> io::Result<Arc<dyn Extent>> {
    let extent = DirectoryExtent { file, read_only: false, direct: Arc::new(AtomicBool::new(true)) };
    match rustix::fs::fcntl_setfl(&extent.file, OFlags::DIRECT) {
        Ok(()) => {}
        Err(Errno::INVAL) => extent.set_buffered()?,
        Err(error) => return Err(error.into()),
    }
    Ok(Arc::new(extent))
}

/// An `flock` on a file description of its own.
#[derive(Debug)]
struct FileLock(OwnedFd);

impl FileLock {
    fn take(file: OwnedFd, operation: FlockOperation) -> io::Result<Box<dyn StorageLock>> {
        retry_on_intr(|| rustix::fs::flock(&file, operation))?;
        Ok(Box::new(Self(file)))
    }
}

impl StorageLock for FileLock {}

impl Drop for FileLock {
    fn drop(&mut self) {
        // A child that was forked and has not yet called exec holds the description open; closing would not unlock.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

fn opened_read_only() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the storage was opened read-only")
}

fn open_directory(base: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(retry_on_intr(|| rustix::fs::openat(base, name, flags, Mode::empty()))?)
}

fn sync_directory(directory: &OwnedFd) -> io::Result<()> {
    match rustix::fs::fsync(directory) {
        // File systems that cannot sync a directory say so in this way; their names are durable by other means or never.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn file_name(id: ExtentId) -> String {
    format!("{:016x}.cdp", id.get())
}

fn parse_file_name(name: &[u8]) -> Option<ExtentId> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() != ID_DIGITS || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let id = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some(ExtentId::new(id))
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
