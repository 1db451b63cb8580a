//! Requests of the kernel.

use super::{
    BACKGROUND_MAX, WRITE_BYTES_MAX,
    disk::{Blank, LiveDisk, read_snapshot},
    errno,
    handles::{Handle, Handles},
    lookup::{Names, seq_name},
    node::Node,
};
use cdp_core::{Store, units::VolumeId};
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, OFlags};
use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Names and sizes are looked up each time: points come and go, and `latest` moves.
const NEVER: Duration = Duration::ZERO;
/// Attributes of fixed nodes and of states do not change.
const ATTRIBUTES_KEPT: Duration = Duration::from_secs(1);
/// Longest name that is reported, bytes.
const NAME_BYTES_MAX: u32 = 255;

/// A store that answers the kernel.
pub struct StoreFilesystem {
    names: Names,
    /// The directory of the store, to report the space that is left.
    store_path: PathBuf,
    disks: Mutex<HashMap<VolumeId, Arc<LiveDisk>>>,
    handles: Handles,
}

impl StoreFilesystem {
    /// The file system of a store that lies at `store_path`.
    pub fn new(store: Store, store_path: &Path) -> Self {
        Self {
            names: Names::new(store),
            store_path: store_path.to_owned(),
            disks: Mutex::default(),
            handles: Handles::default(),
        }
    }

    /// The live disk of a volume; one for all that have it open, because they share its locks.
    fn live_disk(&self, id: VolumeId) -> Result<Arc<LiveDisk>, Errno> {
        let mut disks = self.disks.lock();
        if let Some(disk) = disks.get(&id) {
            return Ok(Arc::clone(disk));
        }
        let disk = Arc::new(LiveDisk::new(self.names.volume(id)?));
        disks.insert(id, Arc::clone(&disk));
        Ok(disk)
    }

    fn open_node(&self, node: Node, flags: OpenFlags) -> Result<(FileHandle, FopenFlags), Errno> {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        match node {
            Node::Disk(volume) => {
                let handle = self.handles.insert(Handle::Disk(self.live_disk(volume)?, writes))?;
                Ok((handle, FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES))
            }
            Node::PointDisk(..) if writes => Err(Errno::EROFS),
            Node::PointDisk(volume, seq) => {
                let snapshot = self.names.volume(volume)?.snapshot(seq).map_err(|error| errno::of(&error))?;
                let handle = self.handles.insert(Handle::Point(snapshot))?;
                // The node names one state, which never changes: the kernel may keep what it has read.
                Ok((handle, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH))
            }
            _ => Err(Errno::EISDIR),
        }
    }

    fn fallocate_disk(disk: &LiveDisk, offset: u64, length: u64, mode: FallocateFlags) -> Result<(), Errno> {
        let end = offset.checked_add(length).ok_or(Errno::EFBIG)?;
        let past_end = end > disk.volume().bytes();
        let keeps_size = mode.contains(FallocateFlags::KEEP_SIZE);
        match mode.difference(FallocateFlags::KEEP_SIZE) {
            FallocateFlags::PUNCH_HOLE => disk.blank(offset, length, Blank::Discarded),
            FallocateFlags::ZERO_RANGE if past_end && !keeps_size => Err(Errno::ENOSPC),
            FallocateFlags::ZERO_RANGE => disk.blank(offset, length, Blank::Zeroes),
            // Space need not be set aside: it is there, or a write says so.
            mode if mode.is_empty() && (keeps_size || !past_end) => Ok(()),
            mode if mode.is_empty() => Err(Errno::ENOSPC),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn sync(&self, handle: FileHandle) -> Result<(), Errno> {
        match self.handles.get(handle)? {
            Handle::Disk(disk, _) => disk.flush(),
            Handle::Point(_) | Handle::Directory(_) => Ok(()),
        }
    }
}

fn node_of(number: INodeNo) -> Result<Node, Errno> {
    Node::of(number.0).ok_or(Errno::ENOENT)
}

fn attributes_kept(node: Node) -> Duration {
    // The size of a live disk may be changed by its owner.
    if matches!(node, Node::Disk(_)) { NEVER } else { ATTRIBUTES_KEPT }
}

fn empty(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn opened(reply: ReplyOpen, result: Result<(FileHandle, FopenFlags), Errno>) {
    match result {
        Ok((handle, flags)) => reply.opened(handle, flags),
        Err(errno) => reply.error(errno),
    }
}

/// File flags that ask for each write to be durable before it returns.
fn is_synchronous(flags: OpenFlags) -> bool {
    // Flags are bits; their sign means nothing.
    let flags = OFlags::from_bits_retain(flags.0.cast_unsigned());
    flags.intersects(OFlags::SYNC | OFlags::DSYNC)
}

impl Filesystem for StoreFilesystem {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Refused only by kernels that have not got them, and nothing depends on any of these.
        for wanted in [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_PARALLEL_DIROPS] {
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        config
            .set_max_write(WRITE_BYTES_MAX)
            .map_err(|_| io::Error::other("the kernel refuses the size of writes"))?;
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = node_of(parent).and_then(|parent| self.names.lookup(parent, name));
        match found.and_then(|node| Ok((node, self.names.attributes(node)?))) {
            Ok((node, attributes)) => {
                reply.entry_with_ttls(&attributes_kept(node), &NEVER, &attributes, Generation(0));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match node_of(number).and_then(|node| Ok((node, self.names.attributes(node)?))) {
            Ok((node, attributes)) => reply.attr(&attributes_kept(node), &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = node_of(number).and_then(|node| {
            let attributes = self.names.attributes(node)?;
            if matches!(node, Node::Point(..) | Node::PointDisk(..) | Node::PointLink(..)) {
                return Err(Errno::EROFS);
            }
            let same = size.is_none_or(|size| size == attributes.size)
                && mode.is_none_or(|mode| mode & 0o7777 == u32::from(attributes.perm))
                && uid.is_none_or(|uid| uid == attributes.uid)
                && gid.is_none_or(|gid| gid == attributes.gid);
            // Times are those of the writes, whatever a client sets them to.
            if same { Ok((node, attributes)) } else { Err(Errno::EPERM) }
        });
        match changed {
            Ok((node, attributes)) => reply.attr(&attributes_kept(node), &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        match node_of(number) {
            Ok(Node::PointLink(_, seq)) => reply.data(seq_name(seq).as_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        opened(reply, node_of(number).and_then(|node| self.open_node(node, flags)));
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut reply = Some(reply);
        let mut send = |data: &[u8]| {
            if let Some(reply) = reply.take() {
                reply.data(data);
            }
        };
        let result = self.handles.get(handle).and_then(|handle| match handle {
            Handle::Disk(disk, _) => disk.read(offset, size, &mut send),
            Handle::Point(snapshot) => read_snapshot(&snapshot, offset, size, &mut send),
            Handle::Directory(_) => Err(Errno::EISDIR),
        });
        if let (Err(errno), Some(reply)) = (result, reply) {
            reply.error(errno);
        }
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.handles.get(handle).and_then(|handle| match handle {
            Handle::Disk(disk, true) => {
                let written = disk.write(offset, data)?;
                if is_synchronous(flags) {
                    disk.flush()?;
                }
                u32::try_from(written).map_err(|_| Errno::EINVAL)
            }
            Handle::Disk(_, false) => Err(Errno::EBADF),
            Handle::Point(_) | Handle::Directory(_) => Err(Errno::EROFS),
        });
        match written {
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let result = match self.handles.get(handle) {
            Ok(Handle::Disk(disk, true)) => disk.flush(),
            Ok(_) => Ok(()),
            Err(errno) => Err(errno),
        };
        empty(reply, result);
    }

    fn fsync(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.sync(handle));
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.handles.remove(handle);
        reply.ok();
    }

    fn fallocate(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let result = self.handles.get(handle).and_then(|handle| match handle {
            Handle::Disk(disk, true) => Self::fallocate_disk(&disk, offset, length, mode),
            Handle::Disk(_, false) => Err(Errno::EBADF),
            Handle::Point(_) | Handle::Directory(_) => Err(Errno::EROFS),
        });
        empty(reply, result);
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let entries = node_of(number).and_then(|node| self.names.entries(node));
        let handle = entries.and_then(|entries| self.handles.insert(Handle::Directory(Arc::new(entries))));
        opened(reply, handle.map(|handle| (handle, FopenFlags::empty())));
    }

    fn readdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Ok(Handle::Directory(entries)) = self.handles.get(handle) else {
            return reply.error(Errno::ENOTDIR);
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, entry) in (offset + 1..).zip(entries.iter().skip(skip)) {
            // What has no number cannot be looked up either; it is left out.
            let Some(number) = entry.node.number() else { continue };
            if reply.add(INodeNo(number), next, entry.kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.handles.remove(handle);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        const BLOCK_BYTES: u32 = 4096;
        let block = u64::from(BLOCK_BYTES);
        let volumes = self.names.store().volumes();
        let blocks =
            volumes.iter().fold(0_u64, |sum, volume| sum.saturating_add(volume.bytes.div_ceil(block)));
        // What is free is what the store can still grow by.
        let free = rustix::fs::statvfs(&self.store_path)
            .map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize) / block);
        let files = u64::try_from(volumes.len()).unwrap_or(u64::MAX);
        reply.statfs(
            blocks.saturating_add(free),
            free,
            free,
            files,
            0,
            BLOCK_BYTES,
            NAME_BYTES_MAX,
            BLOCK_BYTES,
        );
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }
}
