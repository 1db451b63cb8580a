//! What only a directory of files can do: other things beside the extents, file systems of all kinds, other processes.

use super::*;
use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

const BLOCK: u64 = len_u64(IO_ALIGN);
const ONE: ExtentId = ExtentId::new(1);

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

/// A file system mounted for one test; unmounted when dropped.
struct Mounted {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mounted {
    /// `None`, after saying why, where mounting is not possible here.
    fn new(file_system: &str, options: &str) -> Option<Self> {
        Self::with_source(file_system, options, Path::new("none"), tempfile::tempdir().unwrap())
    }

    /// A new ext4 of 16 MiB on a loop device.
    fn new_ext4() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        match Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&image).status() {
            Ok(status) if status.success() => Self::with_source("ext4", "loop", &image, directory),
            result => {
                println!("skipped: cannot make an ext4 here ({result:?})");
                None
            }
        }
    }

    fn with_source(
        file_system: &str,
        options: &str,
        source: &Path,
        directory: tempfile::TempDir,
    ) -> Option<Self> {
        let path = directory.path().join("mounted");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", file_system, "-o", options]).arg(source).arg(&path).stderr(Stdio::null());
        match mount.status() {
            Ok(status) if status.success() => Some(Self { path, _directory: directory }),
            result => {
                println!("skipped: cannot mount {file_system} here ({result:?})");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

/// Writes and reads 1 MiB and returns what `is_direct` says then.
fn try_out(path: &Path, options: DirectoryOptions) -> bool {
    let storage = DirectoryStorage::create(path, options).unwrap();
    let extent = storage.create(ONE, 2 << 20).unwrap();
    let mut data = AlignedBuf::new(1 << 20).unwrap();
    data.fill(0x5a);
    extent.write_at(BLOCK, &data).unwrap();
    extent.sync().unwrap();
    let mut read = AlignedBuf::new(1 << 20).unwrap();
    storage.open(ONE).unwrap().read_at(BLOCK, &mut read).unwrap();
    assert!(read[..] == data[..]);
    storage.is_direct()
}

/// Goal: a store is made in a new or empty directory and nowhere else. Method: each kind of target.
#[test]
fn a_store_is_made_only_in_a_new_or_empty_directory() {
    let root = tempfile::tempdir().unwrap();
    let create = |path: PathBuf| DirectoryStorage::create(path, DirectoryOptions::default());
    create(root.path().join("new")).unwrap();
    create(root.path().join("new")).unwrap().create(ONE, BLOCK).unwrap();
    assert_eq!(kind(create(root.path().join("new"))), Some(io::ErrorKind::DirectoryNotEmpty));
    fs::create_dir_all(root.path().join("formatted/lost+found")).unwrap();
    create(root.path().join("formatted")).unwrap();
    fs::write(root.path().join("file"), b"").unwrap();
    assert_eq!(kind(create(root.path().join("file"))), Some(io::ErrorKind::NotADirectory));
    assert_eq!(kind(create(root.path().join("missing/new"))), Some(io::ErrorKind::NotFound));
    let open = |name: &str| DirectoryStorage::open(root.path().join(name), DirectoryOptions::default());
    assert_eq!(kind(open("missing")), Some(io::ErrorKind::NotFound));
    assert_eq!(kind(open("file")), Some(io::ErrorKind::NotADirectory));
}

/// Goal: only regular files of the right name are extents, whatever else lies about. Method: one of each other thing.
#[test]
fn anything_that_is_not_an_extent_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let storage = DirectoryStorage::open(root.path(), DirectoryOptions::default()).unwrap();
    storage.create(ExtentId::new(0x1f), BLOCK).unwrap();
    assert_eq!(storage.describe(ExtentId::new(0x1f)), "000000000000001f.cdp");
    for name in
        ["notes.txt", "1f.cdp", "000000000000001F.cdp", "000000000000001f.cdp~", "00000000000000001f.cdp"]
    {
        fs::write(root.path().join(name), b"text").unwrap();
    }
    fs::create_dir(root.path().join("0000000000000002.cdp")).unwrap();
    symlink("nowhere", root.path().join("0000000000000003.cdp")).unwrap();
    symlink("000000000000001f.cdp", root.path().join("0000000000000004.cdp")).unwrap();
    let fifo = Command::new("mkfifo").arg(root.path().join("0000000000000005.cdp")).status().unwrap();
    assert!(fifo.success());
    assert_eq!(storage.list().unwrap(), [4, 0x1f].map(ExtentId::new));
    let linked = storage.open(ExtentId::new(4)).unwrap();
    assert_eq!(linked.size().unwrap(), BLOCK);
    assert!(storage.open(ExtentId::new(2)).is_err() && storage.open(ExtentId::new(3)).is_err());
    assert_eq!(kind(storage.open(ExtentId::new(5))), Some(io::ErrorKind::InvalidInput));
    let read_only = DirectoryStorage::open_read_only(root.path(), DirectoryOptions::default()).unwrap();
    assert_eq!(kind(read_only.open(ExtentId::new(5))), Some(io::ErrorKind::InvalidInput), "nor does it wait");
}

/// Goal: a directory can be reached through a symbolic link, and goes on being used when it is renamed.
#[test]
fn a_storage_follows_its_directory_and_not_its_path() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir(path("real")).unwrap();
    symlink("real", path("link")).unwrap();
    let storage = DirectoryStorage::create(path("link"), DirectoryOptions::default()).unwrap();
    fs::rename(path("real"), path("moved")).unwrap();
    storage.create(ONE, BLOCK).unwrap();
    storage.sync_names().unwrap();
    assert!(path("moved/0000000000000001.cdp").exists());
}

/// Goal: a read-only opener reads, syncs and takes leases, and can change nothing. Method: every call that changes.
#[test]
fn a_read_only_opener_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let writer = DirectoryStorage::open(root.path(), DirectoryOptions::default()).unwrap();
    writer.create(ExtentId::ZERO, BLOCK).unwrap();
    let storage = DirectoryStorage::open_read_only(root.path(), DirectoryOptions::default()).unwrap();
    let extent = storage.open(ExtentId::ZERO).unwrap();
    let mut buf = AlignedBuf::new(IO_ALIGN).unwrap();
    extent.read_at(0, &mut buf).unwrap();
    extent.sync().unwrap();
    storage.sync_names().unwrap();
    let denied = Some(io::ErrorKind::PermissionDenied);
    assert_eq!(kind(extent.write_at(0, &buf)), denied);
    assert_eq!(kind(extent.set_size(0)), denied);
    assert_eq!(kind(storage.create(ONE, BLOCK)), denied);
    assert_eq!(kind(storage.remove(ExtentId::ZERO)), denied);
    assert_eq!(kind(storage.lock_owner()), denied);
    assert_eq!(kind(storage.lock_out_readers()), denied);
    let lease = storage.lease().unwrap();
    assert!(writer.lock_out_readers().unwrap().is_none());
    drop(lease);
    assert!(writer.lock_out_readers().unwrap().is_some());
}

/// Goal: locks exclude other processes, end with their guard, and leave no file. Method: ask flock(1) from outside.
#[test]
fn locks_hold_against_other_processes_and_leave_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let storage = DirectoryStorage::open(root.path(), DirectoryOptions::default()).unwrap();
    storage.create(ExtentId::ZERO, BLOCK).unwrap();
    let elsewhere = |mode: &str, name: &str| {
        let status =
            Command::new("flock").args(["-n", mode]).arg(root.path().join(name)).arg("true").status();
        status.map(|status| status.success())
    };
    let superblock = "0000000000000000.cdp";
    let Ok(free) = elsewhere("-x", ".") else {
        println!("skipped: there is no flock command");
        return;
    };
    assert!(free);
    let (owner, lease) = (storage.lock_owner().unwrap(), storage.lease().unwrap());
    assert!(!elsewhere("-s", ".").unwrap());
    assert!(elsewhere("-s", superblock).unwrap() && !elsewhere("-x", superblock).unwrap());
    drop((owner, lease));
    assert!(elsewhere("-x", ".").unwrap() && elsewhere("-x", superblock).unwrap());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

/// Goal: a transfer that direct I/O refuses (EINVAL) goes on through the cache. Method: below the check of alignment,
/// read at an odd offset, which no file system does directly.
#[test]
fn a_refused_direct_transfer_goes_on_buffered() {
    let root = tempfile::tempdir().unwrap();
    let storage = DirectoryStorage::open(root.path(), DirectoryOptions::default()).unwrap();
    let file = storage.open_file(ONE, OFlags::RDWR | OFlags::CREATE).unwrap();
    let extent = storage.extent(file).unwrap();
    extent.allocate(4 * BLOCK).unwrap();
    let was_direct = storage.is_direct();
    let mut buf = AlignedBuf::new(IO_ALIGN).unwrap();
    buf.fill(1);
    extent.write_fully(7, &buf).unwrap();
    extent.read_fully(7, &mut buf).unwrap();
    assert!(buf.iter().all(|&byte| byte == 1));
    let direct = rustix::fs::fcntl_getfl(&extent.file).unwrap().contains(OFlags::DIRECT);
    if was_direct && direct {
        println!("skipped: this file system reads directly at any offset");
        return;
    }
    assert!(!direct && !storage.is_direct());
    let later = storage.extent(storage.open_file(ONE, OFlags::RDWR).unwrap()).unwrap();
    assert!(!rustix::fs::fcntl_getfl(&later.file).unwrap().contains(OFlags::DIRECT));
}

/// Goal: every file system can be used, directly where it allows. Method: write and read on what can be had here; ramfs
/// refuses O_DIRECT when it is set.
#[test]
fn file_systems_without_direct_io_are_used_buffered() {
    let root = tempfile::tempdir().unwrap();
    assert!(!try_out(&root.path().join("forced"), DirectoryOptions { buffered: true }));
    println!(
        "direct on {:?}: {}",
        root.path(),
        try_out(&root.path().join("default"), DirectoryOptions::default())
    );
    if let Ok(shared_memory) = tempfile::tempdir_in("/dev/shm") {
        let direct = try_out(&shared_memory.path().join("store"), DirectoryOptions::default());
        println!("direct on /dev/shm: {direct}");
    } else {
        println!("skipped: no /dev/shm");
    }
    if let Some(mounted) = Mounted::new("ramfs", "mode=0700") {
        assert!(!try_out(&mounted.path.join("store"), DirectoryOptions::default()));
    }
}

/// Goal: where space cannot be reserved it is written, exactly as much as asked for. Method: call that way directly.
#[test]
fn space_that_cannot_be_reserved_is_written() {
    let root = tempfile::tempdir().unwrap();
    let storage = DirectoryStorage::open(root.path(), DirectoryOptions::default()).unwrap();
    for (id, bytes) in [(1, 3 * 1024 * 1024 + 2 * BLOCK), (2, 100), (3, 1 << 20)] {
        let file = storage.open_file(ExtentId::new(id), OFlags::RDWR | OFlags::CREATE).unwrap();
        let extent = storage.extent(file).unwrap();
        extent.allocate_by_writing(bytes).unwrap();
        assert_eq!(extent.size().unwrap(), bytes);
        assert!(extent.allocated().unwrap() >= bytes, "{} of {bytes}", extent.allocated().unwrap());
    }
}

/// Goal: on a full file system a creation fails whole and leaves nothing, what was created can be written to its end,
/// growth says that there is no space, and all goes on when there is. Method: fill small file systems.
#[test]
fn a_full_file_system_refuses_and_recovers() {
    for mounted in [Mounted::new("tmpfs", "size=8m,mode=0700"), Mounted::new_ext4()].into_iter().flatten() {
        let storage =
            DirectoryStorage::create(mounted.path.join("store"), DirectoryOptions::default()).unwrap();
        let data = AlignedBuf::new(1 << 20).unwrap();
        let mut extents = Vec::new();
        let refused = loop {
            match storage.create(ExtentId::new(len_u64(extents.len())), 1 << 20) {
                Ok(extent) => extents.push(extent),
                Err(error) => break error,
            }
            assert!(extents.len() < 100);
        };
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(storage.list().unwrap().len(), extents.len(), "a failed creation leaves nothing behind");
        // The way without a reservation runs out after a part is written.
        let file = storage.open_file(ExtentId::new(200), OFlags::RDWR | OFlags::CREATE).unwrap();
        let by_writing = storage.extent(file).unwrap().allocate_by_writing(2 << 20);
        assert_eq!(kind(by_writing), Some(io::ErrorKind::StorageFull));
        for extent in &extents {
            extent.write_at(0, &data).unwrap();
            extent.sync().unwrap();
        }
        assert_eq!(kind(extents[0].write_at(1 << 20, &data)), Some(io::ErrorKind::StorageFull));
        extents[0].set_size(1 << 20).unwrap();
        storage.remove(ExtentId::new(200)).unwrap();
        storage.remove(ExtentId::new(1)).unwrap();
        drop(extents.swap_remove(1));
        storage.create(ExtentId::new(300), 1 << 20).unwrap().write_at(0, &data).unwrap();
    }
}

/// Goal: many threads and handles do not disturb each other's fallback. Method: some force it while others read.
#[test]
fn the_fallback_is_safe_among_threads() {
    let root = tempfile::tempdir().unwrap();
    let storage = DirectoryStorage::open(root.path(), DirectoryOptions::default()).unwrap();
    let file = storage.open_file(ONE, OFlags::RDWR | OFlags::CREATE).unwrap();
    let extent = storage.extent(file).unwrap();
    let mut data = AlignedBuf::new(4 * IO_ALIGN).unwrap();
    data.fill(3);
    extent.write_at(0, &data).unwrap();
    std::thread::scope(|scope| {
        for skew in [0, 1, 0, 513] {
            let extent = &extent;
            scope.spawn(move || {
                let mut buf = AlignedBuf::new(IO_ALIGN).unwrap();
                for _ in 0..100 {
                    buf.fill(0);
                    extent.read_fully(BLOCK + skew, &mut buf).unwrap();
                    assert!(buf.iter().all(|&byte| byte == 3));
                }
            });
        }
    });
}
