//! A store that fails under its tap: production sees nothing of it, events say what happened, and when the store is back the volume
//! becomes equal to its source again.

use crate::{
    healing::check_exact_points,
    source::{BLOCK, Random, Source, block, newest, wait_whole},
};
use cdp_core::{
    CreateOptions, GapReason, OpenOptions, SourceState, Store, Tap, TapOptions,
    event::EventKind,
    io::{DirectoryOptions, DirectoryStorage, Extent, MemoryStorage, Storage, StorageLock},
    units::ExtentId,
};
use parking_lot::{Condvar, Mutex};
use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

const BLOCKS: usize = 1024;

/// What a storage does from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// Works.
    Well,
    /// Fails so many writes with EIO, then works.
    FailWrites(u32),
    /// Fails so many syncs with EIO, then works.
    FailSyncs(u32),
    /// Fails everything that would change something.
    Broken,
    /// Has no space for anything new.
    Full,
    /// Syncs do not return.
    Hangs,
}

struct Moody {
    mood: Mutex<Mood>,
    changed: Condvar,
    /// Syncs that did not return yet.
    hanging: AtomicU64,
}

impl Moody {
    fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
        self.changed.notify_all();
    }

    fn count_down(&self, at: fn(u32) -> Mood, left: u32, mood: &mut Mood) -> io::Result<()> {
        *mood = if left > 1 { at(left - 1) } else { Mood::Well };
        Err(broken())
    }

    fn may_write(&self) -> io::Result<()> {
        let mut mood = self.mood.lock();
        match *mood {
            Mood::FailWrites(left) => self.count_down(Mood::FailWrites, left, &mut mood),
            Mood::Broken => Err(broken()),
            _ => Ok(()),
        }
    }

    fn may_sync(&self) -> io::Result<()> {
        let mut mood = self.mood.lock();
        self.hanging.fetch_add(1, SeqCst);
        while *mood == Mood::Hangs {
            self.changed.wait(&mut mood);
        }
        self.hanging.fetch_sub(1, SeqCst);
        match *mood {
            Mood::FailSyncs(left) => self.count_down(Mood::FailSyncs, left, &mut mood),
            Mood::Broken => Err(broken()),
            _ => Ok(()),
        }
    }

    fn may_grow(&self) -> io::Result<()> {
        match *self.mood.lock() {
            Mood::Broken => Err(broken()),
            Mood::Full => Err(ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("the storage is broken, as the test wants")
}

/// A storage in memory with a mood.
struct MoodyStorage {
    inner: MemoryStorage,
    moody: Arc<Moody>,
}

struct MoodyExtent {
    inner: Arc<dyn Extent>,
    moody: Arc<Moody>,
}

impl MoodyStorage {
    fn new() -> (Arc<Self>, Arc<Moody>) {
        let moody =
            Moody { mood: Mutex::new(Mood::Well), changed: Condvar::new(), hanging: AtomicU64::new(0) };
        let moody = Arc::new(moody);
        (Arc::new(Self { inner: MemoryStorage::new(), moody: moody.clone() }), moody)
    }

    fn wrap(&self, inner: Arc<dyn Extent>) -> Arc<dyn Extent> {
        Arc::new(MoodyExtent { inner, moody: self.moody.clone() })
    }
}

impl Storage for MoodyStorage {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        self.moody.may_grow()?;
        self.inner.create(id, bytes).map(|extent| self.wrap(extent))
    }

    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        self.inner.open(id).map(|extent| self.wrap(extent))
    }

    fn list(&self) -> io::Result<Vec<ExtentId>> {
        self.inner.list()
    }

    fn remove(&self, id: ExtentId) -> io::Result<()> {
        self.inner.remove(id)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.moody.may_sync()?;
        self.inner.sync_names()
    }

    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.inner.lock_owner()
    }

    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        self.inner.lease()
    }

    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.inner.lock_out_readers()
    }
}

impl Extent for MoodyExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.moody.may_write()?;
        if offset + data.len() as u64 > self.inner.size()? {
            self.moody.may_grow()?;
        }
        self.inner.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.moody.may_sync()?;
        self.inner.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.moody.may_write()?;
        self.inner.set_size(bytes)
    }
}

/// A production disk of one writer with a tap on a store of small segments.
struct Production {
    store: Store,
    source: Arc<Source>,
    tap: Tap,
    /// The block of each write; versions count from 1.
    writes: Vec<usize>,
    random: Random,
    events: Vec<EventKind>,
}

fn small_segments() -> OpenOptions {
    OpenOptions { segment_bytes: 2 << 20, ..OpenOptions::default() }
}

impl Production {
    fn new(storage: Arc<dyn Storage>) -> Self {
        let create = CreateOptions { volume: "disk".into(), bytes: (BLOCKS * BLOCK) as u64 };
        let store = Store::create(storage, &create, small_segments()).unwrap();
        let source = Source::new(BLOCKS * BLOCK);
        let options = TapOptions { source: SourceState::Equal, pool_frames: 4, ..TapOptions::default() };
        let tap = store.tap("disk", source.clone(), options).unwrap();
        Self { store, source, tap, writes: Vec::new(), random: Random(7), events: Vec::new() }
    }

    /// Production writes a block. It never fails, whatever the store does.
    fn write(&mut self) {
        let index = self.random.below(BLOCKS);
        self.writes.push(index);
        let data = block(index, self.writes.len() as u64);
        self.source.write(index * BLOCK, &data);
        self.tap.capture((index * BLOCK) as u64, &data).unwrap();
    }

    fn write_many(&mut self, count: usize) {
        for number in 0..count {
            self.write();
            if number % 64 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    /// Writes until an event of this kind is told; a store that never tells it fails the test.
    #[track_caller]
    fn write_until(&mut self, told: fn(&EventKind) -> bool) {
        for _ in 0..60_000 {
            self.write();
            self.take_events();
            if self.events.iter().any(told) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("it was not told: {:?}", self.events);
    }

    fn take_events(&mut self) {
        self.events.extend(self.store.take_events().0.into_iter().map(|event| event.kind));
    }

    /// The store is back: the tap heals while production goes on, and everything is as it must be.
    #[track_caller]
    fn heals(&mut self) {
        self.write_many(20);
        wait_whole(&self.tap);
        self.write_many(20);
        wait_whole(&self.tap);
        self.store.flush().unwrap();
        assert!(newest(&self.store, "disk") == self.source.image());
        check_exact_points(&self.store, &self.writes, BLOCKS);
        let report = self.store.check(true, &mut |_| {}).unwrap();
        assert!(report.damaged.is_empty(), "{:?}", report.damaged);
        self.take_events();
    }

    fn gaps(&self, reason: GapReason) -> usize {
        let gaps = self.store.timeline().unwrap().gaps;
        gaps.iter().filter(|gap| gap.reason == reason.to_string()).count()
    }

    fn has(&self, told: fn(&EventKind) -> bool) -> bool {
        self.events.iter().any(told)
    }

    /// A clean end, and everything is still there.
    fn ends(self, storage: Arc<dyn Storage>, runner: cdp_core::Runner) {
        let Self { store, source, tap, writes, .. } = self;
        tap.detach().unwrap();
        drop(runner);
        store.close().unwrap();
        let store = Store::open(storage, small_segments()).unwrap();
        assert!(store.recovery().clean);
        assert!(newest(&store, "disk") == source.image());
        check_exact_points(&store, &writes, BLOCKS);
    }
}

fn store_failed(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StoreFailed(_))
}

fn store_recovered(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StoreRecovered)
}

/// Goal: a write or a sync that fails once is repaired behind the back of the tap; only where it keeps the drain from its next segment, a
/// gap is told, and closes. Method: each of them, in the middle of a stream.
#[test]
fn one_failure_is_repaired() {
    for mood in [Mood::FailWrites(1), Mood::FailSyncs(1), Mood::FailWrites(3), Mood::FailSyncs(3)] {
        let (storage, moody) = MoodyStorage::new();
        let mut production = Production::new(storage.clone());
        let runner = production.store.start_runner().unwrap();
        production.write_many(200);
        moody.set(mood);
        production.write_many(200);
        while *moody.mood.lock() != Mood::Well {
            // It may be the flush itself that meets the failure.
            let _ = production.store.flush();
            production.write();
        }
        production.heals();
        let gaps = production.store.timeline().unwrap().gaps.len();
        match production.has(store_failed) {
            true => assert!(production.has(store_recovered), "{mood:?}: {:?}", production.events),
            false => assert_eq!(gaps, 0, "{mood:?}: {:?}", production.events),
        }
        production.ends(storage, runner);
    }
}

/// Goal: a store that cannot write for a long time is told once, production goes on, and when it is back the volume heals by itself, twice.
/// Method: everything fails until the tap has said so and the pool is long exhausted.
#[test]
fn a_broken_store_comes_back() {
    let (storage, moody) = MoodyStorage::new();
    let mut production = Production::new(storage.clone());
    let runner = production.store.start_runner().unwrap();
    production.write_many(100);
    for round in 1..=2 {
        production.events.clear();
        moody.set(Mood::Broken);
        production.write_until(store_failed);
        production.write_many(2000);
        assert!(!production.tap.is_whole());
        moody.set(Mood::Well);
        production.write_until(store_recovered);
        production.heals();
        assert!(production.store.timeline().unwrap().gaps.len() >= round);
        assert!(production.has(|kind| matches!(kind, EventKind::GapOpened { .. })));
        assert!(production.has(|kind| matches!(kind, EventKind::GapClosed { .. })));
    }
    production.ends(storage, runner);
}

/// Goal: the same for a host that steps the store itself: failures come back from its steps, captures never fail. Method: no runner.
#[test]
fn a_stepping_host_sees_the_failure_and_heals() {
    let (storage, moody) = MoodyStorage::new();
    let mut production = Production::new(storage);
    production.write_many(50);
    production.store.flush().unwrap();
    moody.set(Mood::Broken);
    production.write_many(3000);
    assert!((0..20).any(|_| production.store.step(Default::default()).is_err()));
    assert!(production.store.flush().is_err());
    production.take_events();
    moody.set(Mood::Well);
    while !production.tap.is_whole() {
        production.store.step(Default::default()).unwrap();
    }
    production.store.flush().unwrap();
    assert!(newest(&production.store, "disk") == production.source.image());
    check_exact_points(&production.store, &production.writes, BLOCKS);
}

/// Goal: a full storage opens a gap and nothing else; with space again the volume heals. Method: nothing new can be made until the tap has said so.
#[test]
fn a_full_store_goes_on_when_there_is_space() {
    let (storage, moody) = MoodyStorage::new();
    let mut production = Production::new(storage.clone());
    let runner = production.store.start_runner().unwrap();
    production.write_many(100);
    moody.set(Mood::Full);
    production.write_until(store_failed);
    assert!(production.has(|kind| matches!(kind, EventKind::StoreFailed(text) if text.contains("no space"))));
    production.write_many(2000);
    moody.set(Mood::Well);
    production.write_until(store_recovered);
    production.heals();
    assert!(production.gaps(GapReason::StoreFailure) + production.gaps(GapReason::Overload) > 0);
    production.ends(storage, runner);
}

/// Goal: a sync that hangs holds up nobody who writes; what no longer fits is marked, and healed when the sync returns. Method: syncs that
/// return only when they are told to, while thousands of captures, each of which must return, go on.
#[test]
fn a_sync_that_hangs_holds_up_no_capture() {
    let (storage, moody) = MoodyStorage::new();
    let mut production = Production::new(storage.clone());
    let runner = production.store.start_runner().unwrap();
    production.write_many(100);
    moody.set(Mood::Hangs);
    while moody.hanging.load(SeqCst) == 0 {
        production.write_many(10);
    }
    while production.tap.stats().marked == 0 {
        production.write_many(500);
    }
    assert!(moody.hanging.load(SeqCst) > 0);
    moody.set(Mood::Well);
    production.heals();
    assert!(!production.has(store_failed), "{:?}", production.events);
    assert!(production.gaps(GapReason::Overload) > 0);
    production.ends(storage, runner);
}

/// Moves every file of a directory to another.
fn move_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Goal: a directory that is renamed away and back, and one whose files are taken out and put back, under a tap at work: production sees
/// nothing, and the store heals. Method: real files; segments are small, so that new ones are needed meanwhile.
#[test]
fn a_directory_disappears_and_returns() {
    let base = tempfile::tempdir().unwrap();
    let (home, away) = (base.path().join("store"), base.path().join("away"));
    let open = |path: &Path| DirectoryStorage::open(path, DirectoryOptions::default()).unwrap();
    let storage = DirectoryStorage::create(&home, DirectoryOptions::default()).unwrap();
    let mut production = Production::new(Arc::new(storage));
    let runner = production.store.start_runner().unwrap();
    production.write_many(300);
    fs::rename(&home, &away).unwrap();
    production.write_many(2000);
    fs::rename(&away, &home).unwrap();
    production.heals();
    fs::create_dir(&away).unwrap();
    move_files(&home, &away);
    production.write_many(2000);
    move_files(&away, &home);
    production.heals();
    let writes = production.writes.len();
    production.ends(Arc::new(open(&home)), runner);
    assert!(writes > 4000);
}
