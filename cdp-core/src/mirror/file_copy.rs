//! A copy in a raw file or on a block device.
//!
//! Whole blocks go past the page cache where the file system can do that. The last block of a file whose size is no multiple of 4 KiB goes through the page
//! cache, always, so that the two ways never meet.

use super::copy::{ExtentCopy, MirrorCopy};
use crate::{
    dirty_map::ByteRange,
    io::{IO_ALIGN, raw_extent},
    units::{len_u64, to_len},
};
use rustix::fs::{FallocateFlags, SeekFrom};
use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A raw file or block device as a copy.
#[derive(Debug)]
pub struct FileCopy {
    path: PathBuf,
    body: ExtentCopy,
    file: File,
    is_file: bool,
    bytes: AtomicU64,
}

impl FileCopy {
    /// Opens a file or device that exists.
    ///
    /// # Errors
    /// `InvalidInput` for anything else, and those of the file system.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let found = std::fs::metadata(path)?;
        if !found.is_file() && !found.file_type().is_block_device() {
            let text = "a copy must be a regular file or a block device";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Self::over(path, File::options().read(true).write(true).open(path)?)
    }

    /// Makes a sparse file of zeroes, durably.
    ///
    /// # Errors
    /// `AlreadyExists`, and those of the file system. A file that was made is removed again.
    pub fn create(path: impl AsRef<Path>, bytes: u64) -> io::Result<Self> {
        let path = path.as_ref();
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        let made = || {
            file.set_len(bytes)?;
            file.sync_all()?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
            Self::over(path, file)
        };
        made().inspect_err(|_| {
            // The first failure is the one to report.
            let _ = std::fs::remove_file(path);
        })
    }

    fn over(path: &Path, file: File) -> io::Result<Self> {
        let is_file = file.metadata()?.is_file();
        let bytes = AtomicU64::new(size_of(&file)?);
        let body = ExtentCopy::new(raw_extent(File::options().read(true).write(true).open(path)?)?);
        Ok(Self { path: path.to_owned(), body, file, is_file, bytes })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Where the last block begins that is not whole; the size where all are.
    fn tail_at(&self) -> u64 {
        let bytes = self.bytes.load(Ordering::SeqCst);
        bytes - bytes % len_u64(IO_ALIGN)
    }

    /// Cuts `len` bytes from `offset` into what lies in whole blocks and what lies in the tail.
    fn cut(&self, offset: u64, len: usize) -> usize {
        to_len(self.tail_at().saturating_sub(offset).min(len_u64(len)))
    }
}

fn size_of(file: &File) -> io::Result<u64> {
    Ok(rustix::fs::seek(file, SeekFrom::End(0))?)
}

impl MirrorCopy for FileCopy {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (body, tail) = buf.split_at_mut(self.cut(offset, buf.len()));
        if !body.is_empty() {
            self.body.read_at(offset, body)?;
        }
        if tail.is_empty() { Ok(()) } else { self.file.read_exact_at(tail, offset + len_u64(body.len())) }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (body, tail) = data.split_at(self.cut(offset, data.len()));
        if !body.is_empty() {
            self.body.write_at(offset, body)?;
        }
        if tail.is_empty() { Ok(()) } else { self.file.write_all_at(tail, offset + len_u64(body.len())) }
    }

    fn write_zeroes(&self, range: ByteRange) -> io::Result<()> {
        let align = len_u64(IO_ALIGN);
        let end = range.end().min(self.tail_at()) / align * align;
        let start = range.offset.next_multiple_of(align);
        if start < end {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if rustix::fs::fallocate(&self.file, hole, start, end - start).is_ok() {
                let zeroes = [0; IO_ALIGN];
                self.write_at(range.offset, &zeroes[..to_len(start - range.offset)])?;
                return self.write_at(end, &zeroes[..to_len(range.end() - end)]);
            }
        }
        let zeroes = vec![0; to_len(range.bytes.min(1 << 20))];
        let mut at = range.offset;
        while at < range.end() {
            let len = (range.end() - at).min(len_u64(zeroes.len()));
            self.write_at(at, &zeroes[..to_len(len)])?;
            at += len;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        // Never repeated: a second one would report pages as written that were given up.
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn size(&self) -> io::Result<u64> {
        size_of(&self.file)
    }

    fn set_size(&self, bytes: u64) -> io::Result<bool> {
        let old = self.size()?;
        if !self.is_file {
            if old < bytes {
                let text = format!("the device has {old} bytes and needs {bytes}");
                return Err(io::Error::new(io::ErrorKind::StorageFull, text));
            }
            return Ok(false);
        }
        // What lies behind the old size must not come to light again.
        self.file.set_len(bytes)?;
        self.file.sync_all()?;
        self.bytes.store(bytes, Ordering::SeqCst);
        Ok(true)
    }

    fn is_zero(&self) -> io::Result<bool> {
        if !self.is_file {
            return Ok(false);
        }
        match rustix::fs::seek(&self.file, SeekFrom::Data(0)) {
            Ok(_) => Ok(false),
            Err(rustix::io::Errno::NXIO) => Ok(true),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn change_stamp(&self) -> io::Result<Option<u64>> {
        let found = self.metadata()?;
        let nanoseconds = found.mtime().wrapping_mul(1_000_000_000).wrapping_add(found.mtime_nsec());
        Ok(self.is_file.then_some(nanoseconds.cast_unsigned()))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        let found = self.metadata().ok()?;
        Some(if self.is_file { (found.dev(), found.ino()) } else { (u64::MAX, found.rdev()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every sector of a file can be written, also in a last block that is not whole, and the size stays. Method: a file of 3 blocks and 3
    /// sectors; writes and zeroes across each edge.
    #[test]
    fn a_last_block_that_is_not_whole_is_written_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy");
        let bytes = 3 * 4096 + 3 * 512;
        let copy = FileCopy::create(&path, bytes).unwrap();
        assert!(copy.is_zero().unwrap() && FileCopy::create(&path, bytes).is_err());
        let mut model = vec![0u8; to_len(bytes)];
        for (offset, len, byte) in
            [(0, 512, 1), (3584, 9216, 2), (11776, 2048, 3), (12288, 1536, 4), (13312, 512, 5)]
        {
            copy.write_at(offset, &vec![byte; len]).unwrap();
            model[to_len(offset)..to_len(offset) + len].fill(byte);
        }
        copy.write_zeroes(ByteRange::new(3584, 9216)).unwrap();
        model[3584..12800].fill(0);
        copy.sync().unwrap();
        let mut read = vec![9; model.len()];
        copy.read_at(0, &mut read).unwrap();
        assert_eq!(read, model);
        assert_eq!(std::fs::read(&path).unwrap(), model);
        assert!(!copy.is_zero().unwrap());
        copy.set_size(4096).unwrap();
        assert!(copy.set_size(2 * 4096).unwrap() && copy.size().unwrap() == 8192);
    }
}
