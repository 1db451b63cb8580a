//! The store through its public interface, on memory and on a directory: directed histories.

#![allow(clippy::unwrap_used)]

use cdp_core::{
    BookmarkKind, CreateOptions, Error, NewBookmark, OpenOptions, Point, RestoreState, RestoreTarget,
    SharedTarget, Stepped, Store,
    io::{DirectoryOptions, DirectoryStorage, ManualClock, MemoryStorage, Storage},
    units::{Seq, TimeNs},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

fn options() -> OpenOptions {
    OpenOptions { segment_bytes: 256 << 10, run_fanout: 2, ..OpenOptions::default() }
}

fn create(storage: &Arc<dyn Storage>, bytes: u64) -> Store {
    Store::create(storage.clone(), &CreateOptions { volume: "disk".into(), bytes }, options()).unwrap()
}

fn pattern(tag: u64, len: usize) -> Vec<u8> {
    (0..len as u64 / 8).flat_map(|i| (tag * 1_000_003 + i).to_le_bytes()).collect()
}

fn drain(store: &Store) {
    while store.step(Default::default()).unwrap() == Stepped::More {}
}

fn verify(store: &Store, images: &[Vec<u8>]) {
    let volume = store.volume(None).unwrap();
    let mut out = vec![0u8; images[0].len()];
    for (seq, image) in images.iter().enumerate() {
        volume.snapshot(Seq::new(seq as u64)).unwrap().read(0, &mut out).unwrap();
        assert!(out == *image, "seq {seq}");
    }
    volume.read(0, &mut out).unwrap();
    assert!(out == *images.last().unwrap());
}

fn history(storage: Arc<dyn Storage>) {
    let bytes = 1 << 20;
    let store = create(&storage, bytes);
    let volume = store.volume(None).unwrap();
    let mut image = vec![0u8; usize::try_from(bytes).unwrap()];
    let mut images = vec![image.clone()];
    let mut state = 7u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for i in 1..=120u64 {
        let len = (1 + random(64)) * 512;
        let offset = random((bytes - len) / 512) * 512;
        let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
        let seq = match i % 7 {
            0 => {
                image[range].fill(0);
                volume.discard(offset, len, None).unwrap()
            }
            3 => {
                image[range].fill(0);
                volume.write_zeroes(offset, len, None).unwrap()
            }
            _ => {
                let data = pattern(i, range.len());
                image[range].copy_from_slice(&data);
                volume.write(offset, &data).unwrap()
            }
        };
        assert_eq!(seq, Seq::new(i));
        images.push(image.clone());
        if i % 20 == 0 {
            drain(&store);
        }
    }
    verify(&store, &images);
    store.flush().unwrap();
    drain(&store);
    verify(&store, &images);
    store.clone().close().unwrap();
    drop((store, volume));
    let store = Store::open(storage.clone(), options()).unwrap();
    assert!(store.recovery().clean);
    drain(&store);
    verify(&store, &images);
    assert_eq!(store.check(true, &mut |_| {}).unwrap().damaged, vec![]);
    drop(store);
    let store = Store::open(storage.clone(), options()).unwrap();
    assert!(!store.recovery().clean);
    verify(&store, &images);
    let reader = Store::open_read_only(storage.clone(), options()).unwrap();
    verify(&reader, &images);
    assert!(matches!(Store::open(storage, options()), Err(Error::Owned)));
}

/// Goal: every seq of a history gives back the image of that moment, before and after sealing, merging and reopening. Method: writes
/// of many sizes over a small volume against whole images kept in memory.
#[test]
fn every_seq_gives_its_own_image_in_memory() {
    history(Arc::new(MemoryStorage::new()));
}

/// Goal: the same on real files. Method: the same history in a directory.
#[test]
fn every_seq_gives_its_own_image_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    history(Arc::new(
        DirectoryStorage::create(dir.path().join("store"), DirectoryOptions::default()).unwrap(),
    ));
}

/// Goal: times and bookmarks resolve as the contract says. Method: writes at chosen times, equal ones among them.
#[test]
fn times_and_bookmarks_resolve_to_seqs() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = Arc::new(ManualClock::new(TimeNs::new(5_000)));
    let open = OpenOptions { clock: clock.clone(), ..options() };
    let create = CreateOptions { volume: "disk".into(), bytes: 1 << 20 };
    let store = Store::create(storage, &create, open).unwrap();
    let volume = store.volume(None).unwrap();
    let at = |time: u64| store.resolve(&Point::Time(TimeNs::new(time))).map(|point| point.seq.get());
    assert!(matches!(at(1), Err(Error::PointUnavailable(_))));
    for (seq, time) in [(1, 100), (2, 200), (3, 200), (4, 300)] {
        let written = volume.write_at_time(seq * 4096, &pattern(seq, 4096), TimeNs::new(time)).unwrap();
        assert_eq!(written.get(), seq);
    }
    assert_eq!(at(99).unwrap(), 0);
    assert_eq!(at(100).unwrap(), 1);
    assert_eq!(at(199).unwrap(), 1);
    assert_eq!(at(200).unwrap(), 3);
    assert_eq!(at(300).unwrap(), 4);
    assert!(matches!(at(301), Err(Error::PointUnavailable(_))));
    assert!(matches!(
        volume.write_at_time(0, &pattern(9, 512), TimeNs::new(299)),
        Err(Error::TimeBackwards { .. })
    ));
    let bookmark = store.add_bookmark(&NewBookmark::named("one")).unwrap();
    assert_eq!((bookmark.seq.get(), bookmark.time.get()), (4, 5_000));
    assert!(matches!(store.add_bookmark(&NewBookmark::named("one")), Err(Error::Exists { .. })));
    let early = NewBookmark {
        kind: BookmarkKind::Application,
        at: Some(Point::Time(TimeNs::new(250))),
        ..NewBookmark::named("two")
    };
    assert_eq!(store.add_bookmark(&early).unwrap().seq.get(), 3);
    let latest = |kind| store.resolve(&Point::BookmarkLatest(kind)).unwrap().seq.get();
    assert_eq!((latest(None), latest(Some(BookmarkKind::Application))), (4, 3));
    store.lock_bookmark("two", true).unwrap();
    assert!(matches!(store.delete_bookmark("two"), Err(Error::BookmarkLocked(_))));
    store.lock_bookmark("two", false).unwrap();
    store.delete_bookmark("two").unwrap();
    assert!(matches!(store.delete_bookmark("two"), Err(Error::NotFound { .. })));
}

/// Goal: a reader beside an owner may open any time up to the owner's heartbeat, and an idle store keeps no frame in doubt. Method: write,
/// beat, move the clock and beat again without a write; open read-only each time.
#[test]
fn a_reader_sees_the_clock_of_a_living_owner() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let clock = Arc::new(ManualClock::new(TimeNs::new(1_000)));
    let open = OpenOptions { clock: clock.clone(), ..options() };
    let create = CreateOptions { volume: "disk".into(), bytes: 1 << 20 };
    let owner = Store::create(storage.clone(), &create, open).unwrap();
    let volume = owner.volume(None).unwrap();
    volume.write(0, &pattern(1, 4096)).unwrap();
    for now in [2_000, 3_000] {
        clock.set(TimeNs::new(now));
        owner.heartbeat().unwrap();
        let reader = Store::open_read_only(storage.clone(), options()).unwrap();
        let at = |time| reader.resolve(&Point::Time(TimeNs::new(time))).map(|point| point.seq.get());
        assert_eq!(at(now).unwrap(), 1);
        assert!(matches!(at(now + 1), Err(Error::PointUnavailable(_))));
        assert_eq!(reader.recovery().tail_frames, 0);
    }
}

/// A target that keeps the image, and checks that it is told everything once and in order.
struct Kept {
    image: Vec<u8>,
    next: u64,
}

impl RestoreTarget for Kept {
    fn write(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        assert_eq!(offset, self.next);
        self.next += data.len() as u64;
        self.image[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> std::io::Result<()> {
        assert_eq!(offset, self.next);
        self.next += length;
        Ok(())
    }
}

/// A target of several threads that keeps the image, and how often each block was told.
struct Shared {
    image: Mutex<Vec<u8>>,
    told: Mutex<BTreeMap<u64, u64>>,
}

impl Shared {
    fn tell(&self, offset: u64, length: u64) {
        assert!(self.told.lock().unwrap().insert(offset, length).is_none());
    }
}

impl SharedTarget for Shared {
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.tell(offset, data.len() as u64);
        self.image.lock().unwrap()[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn zero(&self, offset: u64, length: u64) -> std::io::Result<()> {
        self.tell(offset, length);
        Ok(())
    }
}

/// Goal: a restore gives the image, in order and whole, however many threads read ahead, or whole and each byte once when the threads write
/// themselves; a damaged one ends with an error. Method: a volume of some chunks with holes between them, restored with several numbers of
/// readers, at once and in parts, then with a segment cut away.
#[test]
fn a_restore_is_in_order_whatever_reads_ahead() {
    let storage = MemoryStorage::new();
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let bytes = (24 << 20) + 512;
    let store = create(&shared, bytes);
    let volume = store.volume(None).unwrap();
    let mut image = vec![0u8; usize::try_from(bytes).unwrap()];
    for (tag, offset) in [(1, 0), (2, 3 << 20), (3, (5 << 20) - 4096), (4, 17 << 20), (5, bytes - 512)] {
        let len = usize::try_from((bytes - offset).min(700 << 10)).unwrap();
        let data = pattern(tag, len);
        image[usize::try_from(offset).unwrap()..][..len].copy_from_slice(&data);
        volume.write(offset, &data).unwrap();
    }
    store.flush().unwrap();
    let restore = |readers| {
        let mut target = Kept { image: vec![0; image.len()], next: 0 };
        let snapshot = volume.snapshot(Seq::new(5)).unwrap();
        snapshot.restore(readers, &mut target, &mut |_| {}).map(|_| (target.image, target.next))
    };
    let in_parts = |readers, part| {
        let mut target = Kept { image: vec![0; image.len()], next: 0 };
        let (snapshot, mut state) = (volume.snapshot(Seq::new(5)).unwrap(), RestoreState::default());
        while state.next < bytes {
            snapshot.restore_part(readers, part, &mut state, &mut target)?;
            assert_eq!(state.next, target.next);
        }
        assert_eq!(state.restored.data_bytes + state.restored.zero_bytes, bytes);
        Ok((target.image, target.next))
    };
    for readers in [0, 1, 3, 16] {
        for (restored, end) in [
            restore(readers).unwrap(),
            in_parts(readers, 1).unwrap(),
            in_parts(readers, 5 << 20).unwrap(),
            in_parts(readers, u64::MAX).unwrap(),
        ] {
            assert!(restored == image && end == bytes, "{readers} readers");
        }
    }
    let restore_shared = |threads| {
        let target = Shared { image: Mutex::new(vec![0; image.len()]), told: Mutex::default() };
        let snapshot = volume.snapshot(Seq::new(5)).unwrap();
        let mut last = 0;
        let restored = snapshot.restore_shared(threads, &target, &mut |progress| last = progress.done)?;
        let ends = target.told.into_inner().unwrap().into_iter().fold(0, |end, (offset, length)| {
            assert_eq!(offset, end);
            end + length
        });
        assert_eq!([ends, last, restored.data_bytes + restored.zero_bytes], [bytes; 3]);
        Ok::<_, Error>(target.image.into_inner().unwrap())
    };
    for threads in [0, 1, 3, 16] {
        assert!(restore_shared(threads).unwrap() == image, "{threads} threads");
    }
    for extent in storage.list().unwrap().into_iter().skip(2) {
        storage.open(extent).unwrap().set_size(8192).unwrap();
    }
    for readers in [0, 5] {
        assert!(matches!(restore(readers), Err(Error::Damaged(_))));
        assert!(matches!(restore_shared(readers), Err(Error::Damaged(_))));
        assert!(matches!(in_parts(readers, 1 << 20), Err(Error::Damaged(_))));
    }
}
