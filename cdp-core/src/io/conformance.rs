//! The contract of a storage, tried on every implementation.

use super::{
    AlignedBuf, DirectoryOptions, DirectoryStorage, Extent, FlatOptions, FlatStorage, IO_ALIGN,
    MemoryStorage, Storage, simulated::SimulatedStorage,
};
use crate::{
    mirror::{ExtentCopy, FileCopy},
    units::{ExtentId, len_u64},
};
use std::{io::ErrorKind, sync::Arc, thread, time::Duration};

const BLOCK: u64 = len_u64(IO_ALIGN);
const ZERO: ExtentId = ExtentId::ZERO;
const ONE: ExtentId = ExtentId::new(1);

struct Subject {
    name: &'static str,
    storage: Arc<dyn Storage>,
    /// The same storage as another opener sees it.
    other: Arc<dyn Storage>,
    _directory: Option<tempfile::TempDir>,
}

fn directory_subject(name: &'static str, options: DirectoryOptions) -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let storage = Arc::new(DirectoryStorage::create(directory.path().join("store"), options).unwrap());
    let other = Arc::new(DirectoryStorage::open(directory.path().join("store"), options).unwrap());
    Subject { name, storage, other, _directory: Some(directory) }
}

/// On an extent in memory, in slots so small that requests are cut; the other opener has the same handle, as there is one process.
fn flat_subject() -> Subject {
    let device = Arc::new(ExtentCopy::new(MemoryStorage::new().create(ZERO, 4 << 20).unwrap()));
    FlatStorage::format(&*device, FlatOptions { slot_bytes: 2 * BLOCK }).unwrap();
    let storage = FlatStorage::open(device).unwrap();
    Subject { name: "flat", storage: Arc::new(storage.clone()), other: Arc::new(storage), _directory: None }
}

fn flat_file_subject() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    drop(FileCopy::create(&path, 16 << 20).unwrap());
    FlatStorage::format_file(&path, FlatOptions { slot_bytes: 4 * BLOCK }).unwrap();
    let storage = FlatStorage::open_file(&path).unwrap();
    let again = FlatStorage::open_file(&path).err().map(|error| error.kind());
    assert_eq!(again, Some(ErrorKind::WouldBlock), "one opener at a time");
    let other = Arc::new(storage.clone());
    Subject { name: "flat file", storage: Arc::new(storage), other, _directory: Some(directory) }
}

/// Runs `test` on a fresh storage of each kind.
fn for_each_storage(test: impl Fn(&Subject)) {
    let memory = MemoryStorage::new();
    let simulated = SimulatedStorage::new(1);
    let subjects = [
        Subject {
            name: "memory",
            storage: Arc::new(memory.clone()),
            other: Arc::new(memory),
            _directory: None,
        },
        Subject {
            name: "simulated",
            storage: Arc::new(simulated.clone()),
            other: Arc::new(simulated),
            _directory: None,
        },
        flat_subject(),
        flat_file_subject(),
        directory_subject("directory", DirectoryOptions::default()),
        directory_subject("buffered directory", DirectoryOptions { buffered: true }),
    ];
    for subject in subjects {
        println!("storage: {}", subject.name);
        test(&subject);
    }
}

/// `blocks` blocks, each byte telling the block and `salt`.
fn pattern(blocks: usize, salt: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::new(blocks * IO_ALIGN).unwrap();
    for (block, bytes) in (1u8..).zip(buf.chunks_mut(IO_ALIGN)) {
        bytes.fill(block.wrapping_mul(31) ^ salt);
    }
    buf
}

fn read(extent: &dyn Extent, offset: u64, blocks: usize) -> AlignedBuf {
    // Not zero before: a read that does not fill the buffer must show.
    let mut buf = pattern(blocks, 0xa5);
    extent.read_at(offset, &mut buf).unwrap();
    buf
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Goal: what was written is read, by any handle and opener. Method: overlapping writes, read whole and in parts.
#[test]
fn written_bytes_are_read_back_by_every_handle() {
    for_each_storage(|subject| {
        let extent = subject.storage.create(ONE, 8 * BLOCK).unwrap();
        let (first, second) = (pattern(4, 1), pattern(2, 2));
        extent.write_at(2 * BLOCK, &first).unwrap();
        extent.write_at(3 * BLOCK, &second).unwrap();
        extent.sync().unwrap();
        subject.storage.sync_names().unwrap();
        for storage in [&subject.storage, &subject.other] {
            let extent = storage.open(ONE).unwrap();
            let whole = read(&*extent, 0, 8);
            assert!(is_zero(&whole[..2 * IO_ALIGN]) && is_zero(&whole[6 * IO_ALIGN..]));
            assert_eq!(whole[2 * IO_ALIGN..3 * IO_ALIGN], first[..IO_ALIGN]);
            assert_eq!(whole[3 * IO_ALIGN..5 * IO_ALIGN], second[..]);
            assert_eq!(whole[5 * IO_ALIGN..6 * IO_ALIGN], first[3 * IO_ALIGN..]);
            assert_eq!(read(&*extent, 4 * BLOCK, 1)[..], second[IO_ALIGN..]);
        }
    });
}

/// Goal: created and never written space reads as zeroes, has its size and is really allocated.
/// Method: create, ask, read; also an extent of no bytes.
#[test]
fn a_new_extent_reads_as_zeroes_and_has_its_space() {
    for_each_storage(|subject| {
        let extent = subject.storage.create(ONE, 64 * BLOCK).unwrap();
        assert_eq!(extent.size().unwrap(), 64 * BLOCK);
        assert!(extent.allocated().unwrap() >= 64 * BLOCK);
        assert!(is_zero(&read(&*extent, 0, 64)));
        let empty = subject.storage.create(ExtentId::new(2), 0).unwrap();
        assert_eq!((empty.size().unwrap(), empty.allocated().unwrap()), (0, 0));
    });
}

/// Goal: a write past the end grows the extent, the gap reads as zeroes. Method: write far behind the end.
#[test]
fn a_write_past_the_end_grows_the_extent() {
    for_each_storage(|subject| {
        let extent = subject.storage.create(ONE, BLOCK).unwrap();
        let data = pattern(2, 3);
        extent.write_at(9 * BLOCK, &data).unwrap();
        assert_eq!(extent.size().unwrap(), 11 * BLOCK);
        let whole = read(&*extent, 0, 11);
        assert!(is_zero(&whole[..9 * IO_ALIGN]));
        assert_eq!(whole[9 * IO_ALIGN..], data[..]);
        extent.write_at(20 * BLOCK, &[]).unwrap();
        assert_eq!(extent.size().unwrap(), 11 * BLOCK, "an empty write changes nothing");
    });
}

/// Goal: a cut frees the space, and bytes that come back are zeroes. Method: cut and extend, also inside a block.
#[test]
fn a_cut_frees_space_and_forgets_the_bytes() {
    for_each_storage(|subject| {
        let extent = subject.storage.create(ONE, 64 * BLOCK).unwrap();
        extent.write_at(0, &pattern(64, 4)).unwrap();
        extent.sync().unwrap();
        let before = extent.allocated().unwrap();
        extent.set_size(BLOCK).unwrap();
        assert_eq!(extent.size().unwrap(), BLOCK);
        assert!(extent.allocated().unwrap() + 60 * BLOCK <= before);
        extent.set_size(64 * BLOCK).unwrap();
        let whole = read(&*extent, 0, 64);
        assert_eq!(whole[..IO_ALIGN], pattern(1, 4)[..]);
        assert!(is_zero(&whole[IO_ALIGN..]));
        extent.set_size(100).unwrap();
        extent.set_size(BLOCK).unwrap();
        let block = read(&*extent, 0, 1);
        assert_eq!(block[..100], pattern(1, 4)[..100]);
        assert!(is_zero(&block[100..]));
    });
}

/// Goal: the list is complete and in order of id, also beyond 2^63. Method: create in another order, remove one.
#[test]
fn the_list_is_in_order_of_id() {
    for_each_storage(|subject| {
        let ids = [u64::MAX, 0x10, 2, 0xabc_def0_1234, 0].map(ExtentId::new);
        for id in ids {
            subject.storage.create(id, BLOCK).unwrap();
        }
        subject.storage.remove(ExtentId::new(2)).unwrap();
        let expected = [0, 0x10, 0xabc_def0_1234, u64::MAX].map(ExtentId::new);
        assert_eq!(subject.storage.list().unwrap(), expected);
        assert_eq!(subject.other.list().unwrap(), expected);
    });
}

/// Goal: an open handle outlives its name, and the name can be used anew without mixing the two up.
/// Method: remove, use the handle, create the same id again.
#[test]
fn an_open_handle_outlives_its_name() {
    for_each_storage(|subject| {
        let old = subject.storage.create(ONE, BLOCK).unwrap();
        old.write_at(0, &pattern(1, 5)).unwrap();
        subject.storage.remove(ONE).unwrap();
        let missing = subject.storage.open(ONE).err().map(|error| error.kind());
        assert_eq!(missing, Some(ErrorKind::NotFound));
        let new = subject.storage.create(ONE, BLOCK).unwrap();
        old.write_at(BLOCK, &pattern(1, 6)).unwrap();
        old.sync().unwrap();
        assert_eq!(read(&*old, 0, 1)[..], pattern(1, 5)[..]);
        assert_eq!(read(&*old, BLOCK, 1)[..], pattern(1, 6)[..]);
        assert!(is_zero(&read(&*new, 0, 1)));
        assert_eq!(new.size().unwrap(), BLOCK);
    });
}

/// Goal: names are neither created twice nor removed twice, and the extent that is there stays.
#[test]
fn a_name_is_created_once_and_removed_once() {
    for_each_storage(|subject| {
        subject.storage.create(ONE, BLOCK).unwrap().write_at(0, &pattern(1, 7)).unwrap();
        let twice = subject.storage.create(ONE, 2 * BLOCK).err().map(|error| error.kind());
        assert_eq!(twice, Some(ErrorKind::AlreadyExists));
        assert_eq!(read(&*subject.storage.open(ONE).unwrap(), 0, 1)[..], pattern(1, 7)[..]);
        subject.storage.remove(ONE).unwrap();
        assert_eq!(subject.storage.remove(ONE).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

/// Goal: a read that reaches past the end fails whole. Method: across the end, behind it, and with an end inside a block.
#[test]
fn a_read_past_the_end_is_an_unexpected_end() {
    for_each_storage(|subject| {
        let extent = subject.storage.create(ONE, 2 * BLOCK).unwrap();
        let mut buf = AlignedBuf::new(3 * IO_ALIGN).unwrap();
        let mut try_read = |offset, blocks: usize| {
            extent.read_at(offset, &mut buf[..blocks * IO_ALIGN]).map_err(|error| error.kind())
        };
        for (offset, blocks) in [(0, 3), (BLOCK, 2), (2 * BLOCK, 1), (1 << 40, 1)] {
            assert_eq!(
                try_read(offset, blocks),
                Err(ErrorKind::UnexpectedEof),
                "{blocks} blocks at {offset}"
            );
        }
        extent.set_size(BLOCK + 700).unwrap();
        for (offset, blocks) in [(0, 2), (0, 3), (BLOCK, 1)] {
            assert_eq!(
                try_read(offset, blocks),
                Err(ErrorKind::UnexpectedEof),
                "{blocks} blocks at {offset}"
            );
        }
        assert_eq!(try_read(0, 1), Ok(()));
    });
}

/// Goal: unaligned requests and offsets out of range are refused and change nothing.
/// Method: offset, length and address each off by 512, and the largest offsets.
#[test]
fn unaligned_and_out_of_range_requests_are_refused() {
    for_each_storage(|subject| {
        let extent = subject.storage.create(ONE, 2 * BLOCK).unwrap();
        let mut buf = pattern(2, 8);
        let whole = 0..IO_ALIGN;
        let cases = [(512, whole.clone()), (0, 0..512), (0, 512..512 + IO_ALIGN), (u64::MAX - 4095, whole)];
        for (offset, range) in cases {
            let written = extent.write_at(offset, &buf[range.clone()]).map_err(|error| error.kind());
            assert_eq!(written, Err(ErrorKind::InvalidInput), "{offset} {range:?}");
            let done = extent.read_at(offset, &mut buf[range.clone()]).map_err(|error| error.kind());
            assert_eq!(done, Err(ErrorKind::InvalidInput), "{offset} {range:?}");
        }
        assert_eq!(extent.set_size(u64::MAX).unwrap_err().kind(), ErrorKind::InvalidInput);
        let huge = subject.storage.create(ZERO, u64::MAX).err().map(|error| error.kind());
        assert_eq!(huge, Some(ErrorKind::InvalidInput));
        assert_eq!(subject.storage.list().unwrap(), [ONE]);
        assert!(is_zero(&read(&*extent, 0, 2)));
    });
}

/// Goal: there is one owner at a time. Method: try from both openers, release, try again.
#[test]
fn there_is_one_owner_at_a_time() {
    for_each_storage(|subject| {
        let refused = |storage: &dyn Storage| storage.lock_owner().err().map(|error| error.kind());
        let owner = subject.storage.lock_owner().unwrap();
        assert_eq!(refused(&*subject.storage), Some(ErrorKind::WouldBlock));
        // Extents that come and go do not loosen the lock.
        subject.storage.create(ZERO, BLOCK).unwrap();
        assert_eq!(refused(&*subject.other), Some(ErrorKind::WouldBlock));
        drop(owner);
        let owner = subject.other.lock_owner().unwrap();
        assert_eq!(refused(&*subject.storage), Some(ErrorKind::WouldBlock));
        drop(owner);
    });
}

/// Goal: leases are shared, hold removal off, and do not touch the owner's lock; readers wait while they are locked out.
/// Method: take them in every order; a thread must not get its lease before the lock ends.
#[test]
fn leases_and_removal_exclude_each_other() {
    for_each_storage(|subject| {
        subject.storage.create(ZERO, BLOCK).unwrap();
        let owner = subject.storage.lock_owner().unwrap();
        let (first, second) = (subject.other.lease().unwrap(), subject.storage.lease().unwrap());
        assert!(subject.storage.lock_out_readers().unwrap().is_none());
        drop(first);
        assert!(subject.storage.lock_out_readers().unwrap().is_none(), "one lease is enough");
        drop(second);
        let readers_out = subject.storage.lock_out_readers().unwrap();
        assert!(readers_out.is_some());
        assert!(subject.other.lock_out_readers().unwrap().is_none());
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = Arc::clone(&subject.other);
        let waiting = thread::spawn(move || {
            let lease = reader.lease().unwrap();
            sender.send(()).unwrap();
            drop(lease);
        });
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "the reader did not wait");
        drop(readers_out);
        receiver.recv_timeout(Duration::from_secs(30)).expect("the reader gets its lease");
        waiting.join().unwrap();
        drop(owner);
    });
}

/// Goal: threads may write, read and sync one extent at once. Method: each thread owns every fourth block.
#[test]
fn threads_use_one_extent_at_once() {
    for_each_storage(|subject| {
        let extent = subject.storage.create(ONE, 64 * BLOCK).unwrap();
        thread::scope(|scope| {
            for (thread, salt) in (0..4u64).zip(40u8..) {
                let extent = &extent;
                scope.spawn(move || {
                    for block in (thread..64).step_by(4) {
                        extent.write_at(block * BLOCK, &pattern(1, salt)).unwrap();
                        assert_eq!(read(&**extent, block * BLOCK, 1)[..], pattern(1, salt)[..]);
                    }
                    extent.sync().unwrap();
                });
            }
        });
        for (block, salt) in (0..64u64).zip((40u8..44).cycle()) {
            assert_eq!(read(&*extent, block * BLOCK, 1)[..], pattern(1, salt)[..]);
        }
    });
}
