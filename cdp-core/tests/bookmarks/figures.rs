//! Figures: how far the store lies behind right now, and what writes look like.

use crate::source::{BLOCK, Source, options};
use cdp_core::{
    Budget, Coalescing, CreateOptions, OpenOptions, SourceState, Store, Tap, TapOptions,
    io::{ManualClock, MemoryStorage},
    testing::hooked::HookedStorage,
    units::TimeNs,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

const BYTES: usize = 1024 * BLOCK;
const SECOND: u64 = 1_000_000_000;
/// Somewhere in 2026.
const START: u64 = 1_770_000_000 * SECOND;

struct Fixture {
    clock: Arc<ManualClock>,
    failing: Arc<AtomicBool>,
    store: Store,
    tap: Tap,
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(TimeNs::new(START)));
        let failing = Arc::new(AtomicBool::new(false));
        let hooked = failing.clone();
        let storage = HookedStorage::over(Arc::new(MemoryStorage::new()), move |changes| {
            let fails = changes && hooked.load(Ordering::SeqCst);
            if fails { Err(io::Error::other("it fails")) } else { Ok(()) }
        });
        let create = CreateOptions { volume: "disk".into(), bytes: BYTES as u64 };
        let open = OpenOptions { clock: clock.clone(), ..options() };
        let store = Store::create(storage, &create, open).unwrap();
        store.add_volume("tapped", BYTES as u64).unwrap();
        let tapped = TapOptions { source: SourceState::Equal, pool_frames: 4, ..TapOptions::default() };
        let tap = store.tap("tapped", Source::new(BYTES), tapped).unwrap();
        while store.step(Budget::default()).unwrap() == cdp_core::Stepped::More {}
        Self { clock, failing, store, tap }
    }

    fn at(&self, seconds: u64) {
        self.clock.set(TimeNs::new(START + seconds * SECOND));
    }

    /// Age in whole seconds, and bytes.
    fn lag(&self) -> (u64, u64) {
        let lag = self.store.stats().unwrap().lag;
        assert_eq!(self.tap.stats().lag, lag);
        (lag.age_ns / SECOND, lag.bytes)
    }
}

/// Goal: the lag is that of the oldest write that is not durable, wherever it is on its way. Method: writes at known times in the pool, in the
/// open frame, waiting for the end of an interval, and kept by a store that fails; a flush ends it.
#[test]
fn the_lag_is_that_of_the_oldest_write_that_is_not_durable() {
    let fixture = Fixture::new();
    assert_eq!(fixture.lag(), (0, 0));
    fixture.at(10);
    fixture.tap.capture(0, &[1; BLOCK]).unwrap();
    fixture.at(12);
    fixture.tap.capture(0, &[2; BLOCK]).unwrap();
    fixture.at(15);
    assert_eq!(fixture.lag(), (5, 2 * BLOCK as u64), "in the pool");
    let pool = fixture.store.stats().unwrap().pool.unwrap();
    assert_eq!((pool.bytes, pool.frames), (2 * BLOCK as u64, 4));
    assert!(pool.frames_free < 4);
    // An inline write takes its place behind them: all three are in the open frame.
    fixture.store.volume(None).unwrap().write(0, &[3; BLOCK]).unwrap();
    fixture.at(16);
    assert_eq!(fixture.lag(), (6, 3 * BLOCK as u64), "in the open frame");
    fixture.store.flush().unwrap();
    assert_eq!(fixture.lag(), (0, 0), "durable");

    fixture.store.set_coalescing(Coalescing::IntervalNs(3600 * SECOND)).unwrap();
    fixture.at(20);
    fixture.tap.capture(0, &[1; BLOCK]).unwrap();
    fixture.at(21);
    // The drain takes it out of the pool; then time passes in which the pool is seen empty.
    for _ in 0..3 {
        fixture.store.step(Budget::default()).unwrap();
    }
    fixture.at(29);
    fixture.store.step(Budget::default()).unwrap();
    fixture.at(30);
    assert_eq!(fixture.store.stats().unwrap().pool.unwrap().bytes, 0);
    assert_eq!(fixture.lag(), (10, BLOCK as u64), "it waits for the end of its interval");
    fixture.store.set_coalescing(Coalescing::PerWrite).unwrap();
    assert_eq!(fixture.lag(), (0, 0));

    fixture.at(40);
    fixture.tap.capture(0, &[1; BLOCK]).unwrap();
    fixture.failing.store(true, Ordering::SeqCst);
    for seconds in 41..50 {
        fixture.at(seconds);
        let _ = fixture.store.step(Budget::default());
        let _ = fixture.store.flush();
    }
    assert_eq!(fixture.lag().0, 9, "the store fails");
    fixture.failing.store(false, Ordering::SeqCst);
    fixture.store.flush().unwrap();
    assert_eq!(fixture.lag().0, 0);
}

/// Goal: a host that dates its writes by another clock gets an age that is too large rather than too small, and no nonsense. Method: writes
/// of long ago and of the far future, after a step that saw the pool empty.
#[test]
fn writes_of_another_clock_are_as_old_as_they_can_be() {
    let fixture = Fixture::new();
    for time in [1, START - 1, u64::MAX / 2] {
        fixture.at(100);
        fixture.store.step(Budget::default()).unwrap();
        fixture.at(102);
        fixture.tap.capture_at(0, &[1; BLOCK], TimeNs::new(time)).unwrap();
        fixture.at(107);
        assert_eq!(fixture.lag().0, 7, "time {time}");
        fixture.store.flush().unwrap();
        assert_eq!(fixture.lag().0, 0);
    }
}

/// Goal: sizes, bytes and sequence of writes are counted for each volume, inline and tapped, and nothing is lost among threads. Method: known
/// writes; then threads whose counts must add up.
#[test]
fn writes_are_counted_by_size_and_sequence() {
    let fixture = Fixture::new();
    let inline = fixture.store.volume(None).unwrap();
    for (offset, bytes) in [(0, 512), (512, 512), (1024, 4096), (0, 8192), (8192, 1 << 20)] {
        inline.write(offset, &vec![1; bytes]).unwrap();
    }
    inline.write_zeroes(0, 4096, None).unwrap();
    inline.discard(4096, 4096, None).unwrap();
    assert!(inline.write(1, &[1; 512]).is_err());
    let counts = |name: &str| {
        let stats = fixture.store.stats().unwrap();
        stats.volumes.iter().find(|volume| volume.name == name).unwrap().writes
    };
    let disk = counts("disk");
    assert_eq!((disk.writes, disk.sequential), (6, 4));
    assert_eq!(disk.bytes, 512 + 512 + 4096 + 8192 + (1 << 20) + 4096);
    let classes: Vec<_> = disk.classes().collect();
    assert_eq!(classes, [(512, 2), (4096, 2), (8192, 1), (1 << 20, 1)]);
    assert_eq!(counts("tapped").writes, 0);

    fixture.tap.suspend();
    thread::scope(|scope| {
        for writer in 0..4_u64 {
            let tap = &fixture.tap;
            scope.spawn(move || {
                for step in 0..500_u64 {
                    let data = vec![1; 512 << (writer * 2)];
                    tap.capture((step % 8) * 64 * 512, &data).unwrap();
                }
            });
        }
    });
    let tapped = counts("tapped");
    assert_eq!(tapped, fixture.tap.stats().writes);
    assert_eq!(tapped.writes, 2000, "whether they are captured whole or marked");
    let classes: Vec<_> = tapped.classes().collect();
    assert_eq!(classes, [(512, 500), (2048, 500), (8192, 500), (32768, 500)]);
    assert_eq!(counts("disk"), disk);
}

/// Goal: the ratio says what coalescing saves. Method: one block overwritten four times in an interval, with and without.
#[test]
fn the_coalescing_ratio_is_what_is_saved() {
    let fixture = Fixture::new();
    let write = || {
        for fill in 1..=4 {
            fixture.store.volume(None).unwrap().write(0, &[fill; BLOCK]).unwrap();
        }
    };
    write();
    let is_ratio = |ratio: f64| (fixture.store.stats().unwrap().coalescing_ratio() - ratio).abs() < 1e-9;
    assert!(is_ratio(1.0));
    fixture.store.set_coalescing(Coalescing::PerBarrier).unwrap();
    write();
    assert!(is_ratio(1.0), "it is known at the end of the interval");
    fixture.store.flush().unwrap();
    assert!(is_ratio(4.0));
}
