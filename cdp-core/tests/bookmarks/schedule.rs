//! Bookmarks by schedule: one a slot, when something was written, and none for slots that have passed.

use crate::{
    production::Production,
    source::{BLOCK, Source, options},
};
use cdp_core::{
    BookmarkKind, BookmarkSchedule, Budget, Coalescing, CreateOptions, Error, OpenOptions, SourceState,
    Store, TapOptions,
    event::EventKind,
    io::{ManualClock, MemoryStorage, Storage},
    units::{Seq, TimeNs},
};
use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

const BYTES: usize = 16 * BLOCK;
const HOUR: u64 = 3_600_000_000_000;
/// 2026-01-31T12:00:00Z
const NOON: u64 = 1_769_860_800_000_000_000;

struct Fixture {
    clock: Arc<ManualClock>,
    storage: Arc<dyn Storage>,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(TimeNs::new(NOON + 7)));
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let create = CreateOptions { volume: "disk".into(), bytes: BYTES as u64 };
        let open = OpenOptions { clock: clock.clone(), ..options() };
        let store = Store::create(storage.clone(), &create, open).unwrap();
        store.set_bookmark_schedule(Some(BookmarkSchedule::every(HOUR, "hourly-"))).unwrap();
        Self { clock, storage, store }
    }

    fn write(&self) {
        self.store.volume(None).unwrap().write(0, &[1; BLOCK]).unwrap();
    }

    /// Goes to so many hours and nanoseconds after noon, and does all that is due.
    fn at(&self, hours: u64, ns: u64) {
        self.clock.set(TimeNs::new(NOON + hours * HOUR + ns));
        for _ in 0..20 {
            self.store.step(Budget::default()).unwrap();
        }
    }

    fn names(&self) -> Vec<String> {
        self.store.bookmarks().into_iter().map(|bookmark| bookmark.name).collect()
    }
}

/// Goal: a bookmark in each slot in which something was written since the last one; none for slots that have passed, nor twice in one, also
/// after reopening and after the clock was set back. Method: a clock by hand.
#[test]
fn each_slot_has_one_bookmark_when_something_was_written() {
    let mut fixture = Fixture::new();
    fixture.at(0, 5);
    fixture.write();
    fixture.at(0, HOUR - 1);
    assert!(fixture.names().is_empty(), "the slot in which the schedule was set has begun before");
    fixture.at(1, 0);
    assert_eq!(fixture.names(), ["hourly-20260131T130000Z"]);
    fixture.write();
    fixture.at(1, 5);
    assert_eq!(fixture.names().len(), 1, "one a slot");
    // Two slots pass without a chance.
    fixture.at(4, 9);
    assert_eq!(fixture.names(), ["hourly-20260131T130000Z", "hourly-20260131T160000Z"]);
    let last = fixture.store.bookmark("hourly-20260131T160000Z").unwrap();
    assert_eq!((last.seq, last.time), (Seq::new(2), TimeNs::new(NOON + 4 * HOUR + 9)));
    fixture.at(5, 0);
    assert_eq!(fixture.names().len(), 2, "nothing was written");
    fixture.write();
    fixture.at(5, 1);
    assert_eq!(fixture.names().len(), 2, "the slot was dealt with");
    fixture.at(6, 0);
    assert_eq!(fixture.names().len(), 3);

    // Set back: nothing comes twice, and it goes on.
    fixture.write();
    fixture.at(4, 0);
    fixture.at(5, 0);
    fixture.write();
    assert_eq!(fixture.names().len(), 4, "that of 17:00, which had been idle: {:?}", fixture.names());
    fixture.at(6, 2);
    assert_eq!(fixture.names().len(), 4, "that of 18:00 is there: {:?}", fixture.names());
    fixture.at(7, 2);
    assert_eq!(fixture.names().len(), 5);

    // Reopened, it goes on only when it is set again, and knows the last bookmark.
    let open = OpenOptions { clock: fixture.clock.clone(), ..options() };
    drop(fixture.store);
    fixture.store = Store::open(fixture.storage.clone(), open).unwrap();
    fixture.write();
    fixture.at(8, 0);
    assert_eq!(fixture.names().len(), 5);
    assert!(fixture.store.bookmark_schedule().is_none());
    fixture.store.set_bookmark_schedule(Some(BookmarkSchedule::every(HOUR, "hourly-"))).unwrap();
    fixture.at(9, 0);
    assert_eq!(fixture.names().len(), 6);
    fixture.store.set_bookmark_schedule(Some(BookmarkSchedule::every(HOUR, "hourly-"))).unwrap();
    fixture.at(10, 0);
    assert_eq!(fixture.names().len(), 6, "nothing was written since the last of its bookmarks");
    fixture.write();
    fixture.store.set_bookmark_schedule(None).unwrap();
    fixture.at(11, 0);
    assert_eq!(fixture.names().len(), 6);
}

/// Goal: what was captured, and what waits for the end of its interval, was written. Method: a tap, and coalescing by barrier.
#[test]
fn writes_on_their_way_count() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    store.set_coalescing(Coalescing::PerBarrier).unwrap();
    fixture.write();
    fixture.at(1, 0);
    assert_eq!(fixture.names().len(), 1);
    let source = Source::new(BYTES);
    store.add_volume("b", BYTES as u64).unwrap();
    let tapped = TapOptions { source: SourceState::Equal, pool_frames: 4, ..TapOptions::default() };
    let tap = store.tap("b", source.clone(), tapped).unwrap();
    source.write(0, &[2; BLOCK]);
    fixture.clock.set(TimeNs::new(NOON + 2 * HOUR));
    tap.capture(0, &[2; BLOCK]).unwrap();
    store.step(Budget::default()).unwrap();
    assert_eq!(fixture.names().len(), 2);
    assert_eq!(store.bookmarks()[1].seq, Seq::new(2));
    fixture.at(3, 0);
    assert_eq!(fixture.names().len(), 2);
    tap.detach().unwrap();
}

/// Goal: all of the schedule is in its bookmarks, production is frozen once for each and not when there is nothing to say, and a failure is
/// told once and leaves the slot without. Method: production that refuses at first.
#[test]
fn a_schedule_may_freeze_production() {
    let fixture = Fixture::new();
    let production = Arc::new(Production::default());
    let schedule = BookmarkSchedule {
        kind: BookmarkKind::Application,
        app: Some("postgresql".into()),
        keep_for_ns: Some(24 * HOUR),
        quiesce: Some((production.clone(), Duration::from_secs(600))),
        ..BookmarkSchedule::every(HOUR, "pg-")
    };
    fixture.store.set_bookmark_schedule(Some(schedule)).unwrap();
    fixture.at(1, 0);
    production.assert_thawed(0);
    fixture.write();
    production.refuses.store(true, Ordering::SeqCst);
    fixture.clock.set(TimeNs::new(NOON + 2 * HOUR));
    let failed = fixture.store.step(Budget::default());
    assert!(matches!(failed, Err(Error::InvalidArgument(_))), "{failed:?}");
    let (events, _) = fixture.store.take_events();
    assert!(
        events
            .iter()
            .any(|event| matches!(&event.kind, EventKind::BookmarkMissed(text) if text.contains("busy")))
    );
    fixture.at(2, 1);
    production.assert_thawed(1);
    production.refuses.store(false, Ordering::SeqCst);
    fixture.at(3, 0);
    production.assert_thawed(2);
    let [set] = &fixture.store.bookmarks()[..] else { panic!("{:?}", fixture.names()) };
    assert_eq!(set.name, "pg-20260131T150000Z");
    assert_eq!((set.kind, set.app.as_deref()), (BookmarkKind::Application, Some("postgresql")));
    assert_eq!(set.expires, Some(TimeNs::new(NOON + 27 * HOUR)));
    // A callback that panics does not end the schedule.
    fixture.write();
    production.panics.store(true, Ordering::SeqCst);
    fixture.clock.set(TimeNs::new(NOON + 4 * HOUR));
    let step = || fixture.store.step(Budget::default());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(step)).is_err());
    production.panics.store(false, Ordering::SeqCst);
    fixture.at(5, 0);
    production.assert_thawed(4);
    assert_eq!(fixture.names().len(), 2);
    let bad = BookmarkSchedule::every(0, "x");
    assert!(matches!(fixture.store.set_bookmark_schedule(Some(bad)), Err(Error::InvalidArgument(_))));
}

/// Goal: the runner sets them too. Method: a slot of 10 ms, the clock of the system and a writer, until a few are there.
#[test]
fn the_runner_keeps_the_schedule() {
    let store = crate::source::store(BYTES);
    let _runner = store.start_runner().unwrap();
    store.set_bookmark_schedule(Some(BookmarkSchedule::every(10_000_000, "often-"))).unwrap();
    let started = Instant::now();
    while store.bookmarks().len() < 5 {
        assert!(started.elapsed() < Duration::from_secs(120), "no bookmarks");
        store.volume(None).unwrap().write(0, &[3; 512]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    let mut seqs: Vec<Seq> = store.bookmarks().iter().map(|bookmark| bookmark.seq).collect();
    let count = seqs.len();
    seqs.dedup();
    assert_eq!(seqs.len(), count, "each names a state of its own");
}
