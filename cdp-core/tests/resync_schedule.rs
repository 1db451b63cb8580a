//! Resync by a schedule: hours, delay, order, how many at once, how fast; and what is asked for goes by itself.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    CreateOptions, Hours, OpenOptions, ResyncMode, ResyncOptions, ResyncSchedule, SourceReader, SourceState,
    Store, Tap, TapOptions,
    capture::Mode,
    io::{ManualClock, MemoryStorage},
    units::TimeNs,
};
use std::{
    io,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

const BYTES: u64 = 16 << 20;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
/// Midnight.
const START: u64 = 20_454 * 24 * HOUR;

struct Disk(Mutex<Vec<u8>>);

impl Disk {
    fn new(fill: u8) -> Arc<Self> {
        Arc::new(Self(Mutex::new(vec![fill; BYTES as usize])))
    }
}

impl SourceReader for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(&self.0.lock().unwrap()[offset as usize..][..buf.len()]);
        Ok(())
    }
}

/// A store of three volumes, each with a tap whose source is unknown.
struct Lab {
    clock: Arc<ManualClock>,
    store: Store,
    taps: Vec<Tap>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn lab(schedule: ResyncSchedule) -> Lab {
    let clock = Arc::new(ManualClock::new(TimeNs::new(START)));
    let create = CreateOptions { volume: NAMES[0].into(), bytes: BYTES };
    let options = OpenOptions { clock: clock.clone(), ..OpenOptions::default() };
    let store = Store::create(Arc::new(MemoryStorage::new()), &create, options).unwrap();
    store.set_resync_schedule(schedule).unwrap();
    let mut taps = Vec::new();
    for (name, fill) in NAMES.into_iter().zip(1..) {
        if name != NAMES[0] {
            store.add_volume(name, BYTES).unwrap();
        }
        let options = TapOptions { source: SourceState::Unknown, ..TapOptions::default() };
        taps.push(store.tap(name, Disk::new(fill), options).unwrap());
    }
    Lab { clock, store, taps }
}

impl Lab {
    /// Steps for a while of the store's clock, a hundred times a second.
    fn run(&self, seconds: u64) {
        for _ in 0..seconds * 100 {
            for _ in 0..8 {
                self.store.step(Default::default()).unwrap();
            }
            let now = self.now() + SECOND / 100;
            self.clock.set(TimeNs::new(now));
        }
    }

    fn now(&self) -> u64 {
        cdp_core::io::Clock::now(&*self.clock).get()
    }

    fn compared(&self) -> Vec<u64> {
        self.taps.iter().map(|tap| tap.stats().resync.bytes_compared).collect()
    }

    fn whole(&self) -> Vec<bool> {
        self.taps.iter().map(|tap| tap.stats().mode == Mode::Data && tap.stats().dirty_bytes == 0).collect()
    }

    fn assert_equal(&self) {
        for (name, fill) in NAMES.into_iter().zip(1_u8..) {
            let volume = self.store.volume(Some(name)).unwrap();
            let mut image = vec![0; BYTES as usize];
            volume.read(0, &mut image).unwrap();
            assert!(image.iter().all(|byte| *byte == fill), "volume {name}");
        }
    }
}

/// Goal: outside of its hours nothing is compared, in them everything is, also when writes came meanwhile. Method: a manual clock over midnight
/// to two in the morning, with writes before.
#[test]
fn resync_keeps_to_its_hours() {
    let hours = vec![Hours { from: Duration::from_secs(2 * 3600), to: Duration::from_secs(3 * 3600) }];
    let lab = lab(ResyncSchedule { hours, ..Default::default() });
    lab.run(2);
    lab.taps[1].capture(4096, &[2; 8192]).unwrap();
    lab.run(2);
    assert_eq!(lab.compared(), [0, 0, 0]);
    lab.clock.set(TimeNs::new(START + 2 * HOUR));
    lab.run(4);
    assert_eq!(lab.whole(), [true; 3]);
    lab.assert_equal();
}

/// Goal: not more volumes at once than allowed, the named one first, and each after its delay. Method: one at once, the last volume first, a
/// delay of five seconds; how far each is after each step.
#[test]
fn volumes_come_one_after_the_other_in_order() {
    let schedule = ResyncSchedule {
        delay: Duration::from_secs(5),
        volumes_at_once: NonZeroUsize::new(1),
        first: vec!["c".into()],
        bytes_per_second_max: Some(4 << 20),
        ..Default::default()
    };
    let lab = lab(schedule);
    lab.run(4);
    assert_eq!(lab.compared(), [0, 0, 0], "before the delay");
    let mut order = Vec::new();
    for _ in 0..60 {
        let before = lab.compared();
        lab.run(1);
        let after = lab.compared();
        order.extend((0..3).filter(|volume| after[*volume] > before[*volume]));
    }
    order.dedup();
    assert_eq!(order, [2, 0, 1]);
    assert_eq!(lab.whole(), [true; 3]);
    lab.assert_equal();
}

/// Goal: all volumes together keep to the bound, what is left is estimated, and what somebody asks for goes by itself. Method: two megabytes a second for
/// five seconds; then one volume is asked for.
#[test]
fn the_speed_is_bounded_and_a_request_is_not() {
    let lab = lab(ResyncSchedule { bytes_per_second_max: Some(2 << 20), ..Default::default() });
    lab.run(5);
    let sum: u64 = lab.compared().iter().sum();
    assert!((8 << 20..=13 << 20).contains(&sum), "{sum} in five seconds, for 10 MiB");
    let left = lab.taps[0].stats().resync_left.expect("it is under way");
    assert!((Duration::from_secs(1)..Duration::from_secs(60)).contains(&left), "{left:?}");
    let options = ResyncOptions { mode: ResyncMode::Digest, ..ResyncOptions::default() };
    let before = lab.now();
    lab.taps[2].resync(&options, &mut |_| {}, &|| false).unwrap();
    assert_eq!((lab.now(), lab.whole()[2]), (before, true), "no time passed");
    lab.run(40);
    assert_eq!(lab.whole(), [true; 3]);
    lab.assert_equal();
}

/// Goal: resync becomes slow while production suffers, and fast again when it does not. Method: latencies that the host says, and what is compared in as much time.
#[test]
fn resync_gives_way_to_production() {
    let lab = lab(ResyncSchedule { latency_max: Some(Duration::from_millis(2)), ..Default::default() });
    let suffers = |ticks: u64| {
        for _ in 0..ticks {
            lab.store.note_production_latency(Duration::from_millis(40));
            lab.clock.set(TimeNs::new(lab.now() + SECOND / 10));
            for _ in 0..8 {
                lab.store.step(Default::default()).unwrap();
            }
        }
        lab.compared().iter().sum::<u64>()
    };
    let first = suffers(50);
    let slow = suffers(40) - first;
    assert!(
        (1 << 20..=6 << 20).contains(&slow),
        "{slow} bytes in four seconds of slow production, for 4 MiB"
    );
    let before: u64 = lab.compared().iter().sum();
    assert!(before < 3 * BYTES, "there is something left");
    lab.run(4);
    let fast = lab.compared().iter().sum::<u64>() - before;
    assert!(fast > slow, "{fast} bytes in four seconds of production that is well");
    lab.run(30);
    assert_eq!(lab.whole(), [true; 3]);
    lab.assert_equal();
}
