//! Who works beside production and waits for the disk holds up no write.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use cdp_core::{
    CreateOptions, NewBookmark, OpenOptions, Result, Stepped, Store,
    io::{ManualClock, MemoryStorage},
    retention::Policy,
    testing::hooked::{HookedStorage, Valve},
    units::TimeNs,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
    time::Duration,
};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 256;
/// Two segments of a store as small as this one.
const SEGMENT_WRITES: u64 = 2000;
const WRITES: u64 = 6000;
const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_767_225_600 * SECOND;
/// Far more than a write into memory takes on a slow machine.
const TOO_LONG: Duration = Duration::from_secs(30);

/// Holds up one thread at one of its calls of the storage.
#[derive(Default)]
struct Hold {
    thread: parking_lot::Mutex<Option<ThreadId>>,
    /// Calls that it makes before.
    passes: AtomicU64,
    valve: Valve,
}

impl Hold {
    fn meet(&self) {
        if *self.thread.lock() == Some(thread::current().id())
            && self.passes.fetch_sub(1, Ordering::SeqCst) == 0
        {
            self.valve.pass();
        }
    }
}

/// A store with a history of several segments, of which a policy drops the most, and what goes on in it.
struct Fixture {
    store: Store,
    clock: Arc<ManualClock>,
    hold: Arc<Hold>,
    written: AtomicU64,
}

impl Fixture {
    fn new(policy: &str) -> Self {
        let hold = Arc::new(Hold::default());
        let hooked = hold.clone();
        let storage = HookedStorage::over(Arc::new(MemoryStorage::new()), move |_| {
            hooked.meet();
            Ok(())
        });
        let clock = Arc::new(ManualClock::new(TimeNs::new(START)));
        let options = OpenOptions {
            clock: clock.clone(),
            segment_bytes: 8 << 20,
            run_fanout: 2,
            ..OpenOptions::default()
        };
        let create = CreateOptions { volume: "disk".into(), bytes: BLOCKS * BLOCK as u64 };
        let store = Store::create(storage, &create, options).unwrap();
        store.set_policy(&Policy::from_toml(policy).unwrap()).unwrap();
        let fixture = Self { store, clock, hold, written: AtomicU64::new(0) };
        // The last segment has more in it than the first window keeps, and room.
        for _ in 0..WRITES / SEGMENT_WRITES {
            (0..SEGMENT_WRITES).for_each(|_| fixture.write().unwrap());
            fixture.work_off();
        }
        (0..SEGMENT_WRITES / 4).for_each(|_| fixture.write().unwrap());
        fixture
    }

    /// Does what a runner would have done.
    fn work_off(&self) {
        self.store.flush().unwrap();
        while self.store.step(Default::default()).unwrap() == Stepped::More {}
    }

    fn write(&self) -> Result<()> {
        let count = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        self.clock.set(TimeNs::new(START + count * SECOND / 20));
        let block = count.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
        let data = count.to_le_bytes().repeat(BLOCK / 8);
        self.store.volume(None)?.write(block % BLOCKS * BLOCK as u64, &data).map(drop)
    }
}

/// Work beside production, and what comes before it.
struct Work {
    name: &'static str,
    policy: &'static str,
    before: fn(&Fixture),
    work: fn(&Store),
}

const KEEP_ALL: &str = "[[window]]\nto = \"1h\"\nkeep = \"all\"\n";
const KEEP_TEN_SECONDS: &str =
    "[[window]]\nto = \"10s\"\nkeep = \"all\"\n\n[[window]]\nto = \"1h\"\nkeep = { every = \"1m\" }\n";

/// Holds the work up at its `n`-th call of the storage and writes meanwhile. Returns whether it makes so many calls.
fn hold_up(Work { name, policy, before, work }: &Work, n: u64) -> bool {
    let fixture = Fixture::new(policy);
    before(&fixture);
    let hold = fixture.hold.clone();
    hold.passes.store(n, Ordering::SeqCst);
    hold.valve.set(true);
    let (begun, beginning) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            *fixture.hold.thread.lock() = Some(thread::current().id());
            begun.send(()).unwrap();
            work(&fixture.store);
            *fixture.hold.thread.lock() = None;
            ended.send(()).unwrap();
        });
        beginning.recv().unwrap();
        let held = loop {
            if hold.valve.waiting() > 0 {
                break true;
            }
            if end.recv_timeout(Duration::from_micros(200)).is_ok() {
                break false;
            }
        };
        let (wrote, writes) = mpsc::channel();
        let production = &fixture;
        scope.spawn(move || {
            for _ in 0..3 {
                production.write().unwrap();
            }
            let _ = wrote.send(());
        });
        let waited = writes.recv_timeout(TOO_LONG).is_err();
        hold.valve.set(false);
        // Threads are joined before the test fails, so that it does not hang.
        assert!(!waited, "a write waited for {name}, which waited for its call {n} of the storage");
        held
    })
}

fn assert_holds_up_nobody(work: &Work) {
    let calls = (0..10_000).find(|n| !hold_up(work, *n)).unwrap();
    let name = work.name;
    println!("{name}: held up at each of its {calls} calls of the storage");
    assert!(calls > 1, "{name} makes {calls} calls");
}

/// Goal: a run of retention that waits for the disk holds up no write. Method: it is held up at each of its calls of the storage in turn, and
/// writes are made meanwhile.
#[test]
fn no_write_waits_for_a_run_of_retention() {
    let run = |store: &Store| {
        let report = store.run_retention(store.newest().time).unwrap();
        assert!(report.bytes_freed > 4 << 20, "{report:?}");
    };
    let (name, policy) = ("a run of retention", KEEP_TEN_SECONDS);
    assert_holds_up_nobody(&Work { name, policy, before: Fixture::work_off, work: run });
}

/// Goal: as before, for a flush and a bookmark. Method: as before.
#[test]
fn no_write_waits_for_a_flush_or_a_bookmark() {
    let bookmark = |store: &Store| {
        store.add_bookmark(&NewBookmark::named("b")).unwrap();
        store.flush().unwrap();
    };
    let (name, policy) = ("a bookmark", KEEP_ALL);
    assert_holds_up_nobody(&Work { name, policy, before: Fixture::work_off, work: bookmark });
}

/// Goal: as before, for background work. Method: as before.
#[test]
fn no_write_waits_for_background_work() {
    let end_of_segment = |fixture: &Fixture| (0..SEGMENT_WRITES / 2).for_each(|_| fixture.write().unwrap());
    let steps = |store: &Store| {
        store.flush().unwrap();
        while store.step(Default::default()).unwrap() == Stepped::More {}
    };
    let (name, policy) = ("background work", KEEP_ALL);
    assert_holds_up_nobody(&Work { name, policy, before: end_of_segment, work: steps });
}
