//! A tap whose store gets far less than production writes: what captures cost meanwhile, and how long it takes to be whole again.

use super::{Bench, Measured, OWN_STORE, Ready, tapped::Tapped};
use crate::{
    curve::Series,
    environment::memory_now,
    error::{Context, Result},
    paced::{Pace, Paced, pace},
    random::{Content, Random},
};
use cdp_core::{
    io::ThrottledStorage,
    units::{BLOCK_BYTES, BLOCK_LEN},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Writes a second of production.
const PER_SECOND: u32 = 20_000;
/// Bytes a second that the store may write: half of what production does.
const STORE_BYTES_PER_SECOND: u64 = PER_SECOND as u64 * BLOCK_BYTES / 2;
/// How often the state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait until the tap is whole.
const PATIENCE: Duration = Duration::from_secs(240);

struct Overloaded {
    paced: Paced,
    heal: Duration,
    dirty_bytes: u64,
    pool_bytes: u64,
    marked: u64,
    gaps: u64,
    series: Vec<Series>,
}

/// The figure is the 99.9th percentile of a capture while the store cannot keep up and the processor runs at its speed.
pub fn capture(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, |found| {
        let p999 = found.paced.at_speed.microseconds(999).unwrap_or(f64::INFINITY);
        Measured::of_time(p999)
    })
}

/// The figure is the time from the end of the overload until nothing is missing any more and all is durable.
pub fn heal(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, |found| Measured::of_time(found.heal.as_secs_f64() * 1e6))
}

fn prepare(bench: &mut Bench<'_>, figure: fn(&Overloaded) -> Measured) -> Result<Ready> {
    let storage = Arc::new(ThrottledStorage::new(bench.new_storage(OWN_STORE)?, STORE_BYTES_PER_SECOND));
    // Small enough that the time to heal is that of what differs and not of the size of the disk.
    let tapped = Tapped::start(storage, bench.disk_bytes() / 4)?;
    let (time, seed) = (bench.sizes.measure_time, bench.seed ^ bench.round);
    Ready::new(move || {
        let found = overload(&tapped, time, seed)?;
        tapped.finish(seed)?;
        let waiting = found.dirty_bytes + found.pool_bytes;
        let least = waiting as f64 / STORE_BYTES_PER_SECOND as f64;
        let mut measured = figure(&found)
            .with_latencies(&found.paced.latencies)
            .with("slowed_share", found.paced.slowed_share())
            .with("heal_ms", found.heal.as_secs_f64() * 1e3)
            .with("heal_least_possible_ms", least * 1e3)
            .with("dirty_mib_at_end", found.dirty_bytes as f64 / f64::from(1 << 20))
            .with("marked", found.marked as f64)
            .with("gaps", found.gaps as f64);
        for series in found.series {
            measured = measured.with_series(series);
        }
        Ok(measured)
    })
}

fn overload(tapped: &Tapped, time: Duration, seed: u64) -> Result<Overloaded> {
    let bytes = tapped.store.volume(None).when("find its volume")?.bytes();
    let load = Pace { producers: 1, per_second: PER_SECOND, time };
    let over = AtomicBool::new(false);
    let (outcome, looks) = thread::scope(|scope| {
        let looking = scope.spawn(|| look(tapped, &over));
        let outcome = (|| {
            let paced = pace(load, |stream| {
                let mut content = Content::new(seed, stream, BLOCK_LEN)?;
                let mut random = Random::new(seed, stream);
                Ok(move |_| tapped.write(random.below(bytes / BLOCK_BYTES) * BLOCK_BYTES, content.next()))
            })?;
            let stats = tapped.tap.stats();
            let heal = tapped.wait_until_whole(PATIENCE)?;
            Ok((paced, stats, heal))
        })();
        over.store(true, Ordering::Relaxed);
        (outcome, looking.join().unwrap_or_default())
    });
    let (paced, stats, heal) = outcome?;
    let of = |pick: fn(&Look) -> f64| looks.iter().map(|look| (look.seconds, pick(look))).collect();
    Ok(Overloaded {
        paced,
        heal,
        dirty_bytes: stats.dirty_bytes,
        pool_bytes: stats.pool_bytes,
        marked: stats.marked,
        gaps: tapped.tap.stats().gaps,
        series: vec![
            Series::new(
                "Overload and self-healing: blocks that differ",
                "s",
                "MiB",
                of(|look| look.dirty_mib),
            ),
            Series::new("Overload and self-healing: lag", "s", "ms", of(|look| look.lag_ms)),
            Series::new(
                "Overload and self-healing: memory of all, with the disk in memory",
                "s",
                "MiB",
                of(|look| look.memory_mib),
            ),
        ],
    })
}

/// The state at a moment.
struct Look {
    seconds: f64,
    dirty_mib: f64,
    lag_ms: f64,
    memory_mib: f64,
}

fn look(tapped: &Tapped, over: &AtomicBool) -> Vec<Look> {
    let started = Instant::now();
    let mut looks = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let stats = tapped.tap.stats();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        looks.push(Look {
            seconds: started.elapsed().as_secs_f64(),
            dirty_mib: mib(stats.dirty_bytes),
            lag_ms: stats.lag.age_ns as f64 / 1e6,
            memory_mib: mib(memory_now().unwrap_or_default()),
        });
        thread::sleep(LOOK_EVERY);
    }
    looks
}
