//! A staircase of change rates, as vendors of storage publish it: a burst of so many megabytes within a second, then idle until all is
//! durable, then the next and larger one. At each step: processor time, bytes stored, lag, and how long the store took to be level.

use super::{Bench, Measured, OWN_STORE, Ready, tapped::Tapped};
use crate::{
    curve::Series,
    environment::own_time,
    error::{Context, Result},
    paced::{Pace, pace},
    random::{Content, Random},
};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// Megabytes of the bursts.
const STEPS: [u32; 7] = [1, 10, 50, 100, 150, 200, 250];
/// Length of a burst, and of the rest after it.
const BURST: Duration = Duration::from_secs(1);
/// Bytes of a write.
const WRITE_BYTES: usize = 16 << 10;
/// Bytes of a megabyte.
const MEGABYTE: u64 = 1_000_000;
/// Longest wait until a burst is durable.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a step found.
struct Step {
    megabytes: f64,
    processor_ms: f64,
    stored_mib: f64,
    lag_ms: f64,
    level_ms: f64,
    marked: u64,
}

/// The figure is the largest lag of the highest step.
pub fn run(bench: &mut Bench<'_>) -> Result<Ready> {
    let tapped = Tapped::start(bench.new_storage(OWN_STORE)?, bench.disk_bytes())?;
    let seed = bench.seed ^ bench.round;
    let most = bench.sizes.sequential_bytes / 4;
    Ready::new(move || {
        let steps = STEPS.iter().filter(|step| u64::from(**step) * MEGABYTE <= most);
        let steps: Vec<Step> = steps.map(|step| climb(&tapped, *step, seed)).collect::<Result<_>>()?;
        tapped.finish(seed)?;
        let worst = steps.last().map_or(f64::INFINITY, |step| step.lag_ms);
        let marked: u64 = steps.iter().map(|step| step.marked).sum();
        let mut measured = Measured::of_time(worst * 1e3).with("marked", marked as f64);
        let of = |pick: fn(&Step) -> f64| steps.iter().map(|step| (step.megabytes, pick(step))).collect();
        let x = "MB a burst of one second";
        for (name, y, points) in [
            ("Staircase: processor time", "ms a step", of(|step| step.processor_ms)),
            ("Staircase: stored", "MiB a step", of(|step| step.stored_mib)),
            ("Staircase: largest lag", "ms", of(|step| step.lag_ms)),
            ("Staircase: time from the end of the burst until level", "ms", of(|step| step.level_ms)),
        ] {
            measured = measured.with_series(Series::new(name, x, y, points));
        }
        Ok(measured)
    })
}

fn climb(tapped: &Tapped, megabytes: u32, seed: u64) -> Result<Step> {
    let before = tapped.store.stats().when("count")?;
    let marked = tapped.tap.stats().marked;
    let processor = own_time();
    let slots = tapped.store.volume(None).when("find its volume")?.bytes() / WRITE_BYTES as u64;
    let writes = u64::from(megabytes) * MEGABYTE / WRITE_BYTES as u64;
    let load = Pace { producers: 1, per_second: u32::try_from(writes).unwrap_or(u32::MAX), time: BURST };
    let (over, lag_ns) = (AtomicBool::new(false), AtomicU64::new(0));
    let level = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                lag_ns.fetch_max(tapped.tap.stats().lag.age_ns, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        let level = (|| {
            pace(load, |stream| {
                let mut content = Content::new(seed ^ u64::from(megabytes), stream, WRITE_BYTES)?;
                let mut random = Random::new(seed ^ u64::from(megabytes), stream);
                Ok(move |_| tapped.write(random.below(slots) * WRITE_BYTES as u64, content.next()))
            })?;
            tapped.wait_until_whole(PATIENCE)
        })();
        over.store(true, Ordering::Relaxed);
        level
    })?;
    thread::sleep(BURST.saturating_sub(level));
    let after = tapped.store.stats().when("count")?;
    Ok(Step {
        megabytes: f64::from(megabytes),
        processor_ms: own_time().saturating_sub(processor).as_secs_f64() * 1e3,
        stored_mib: after.written_bytes.saturating_sub(before.written_bytes) as f64 / f64::from(1 << 20),
        lag_ms: lag_ns.into_inner() as f64 / 1e6,
        level_ms: level.as_secs_f64() * 1e3,
        marked: tapped.tap.stats().marked - marked,
    })
}
