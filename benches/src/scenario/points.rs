//! Opening points, and listing what changed between two.

use super::{Bench, History, Measured, Ready, open_read_only};
use crate::{
    error::{Context, Result},
    pages::Pages,
    probe::Rate,
    random::Random,
    statistics::Latencies,
};
use cdp_core::{Point, Store, units::BLOCK_LEN, units::TimeNs};
use std::time::{Duration, Instant};

/// Most opens of a warm measurement.
const OPENS_MAX: usize = 5000;
/// Fewest passes over a list of changed blocks.
const PASSES: u64 = 3;

pub fn open_warm(bench: &mut Bench<'_>) -> Result<Ready> {
    let history = bench.history()?;
    let store = bench.open_history()?;
    let time = bench.sizes.probe_time;
    let mut random = Random::new(bench.seed ^ bench.round, 0);
    // Brings the tables of times and the top of the index into memory.
    open_points(&store, history, &mut random, time / 2)?;
    Ready::new(move || {
        let latencies = open_points(&store, history, &mut random, time)?;
        let p99 = latencies.microseconds(990).unwrap_or(f64::INFINITY);
        Ok(Measured::of_time(p99).with_latencies(&latencies).with("opens", latencies.len() as f64))
    })
}

pub fn open_cold(bench: &mut Bench<'_>) -> Result<Ready> {
    let history = bench.history()?;
    let path = bench.path(super::history::STORE)?;
    let opens = bench.sizes.cold_opens;
    let mut random = Random::new(bench.seed ^ bench.round, 0);
    Ready::new(move || {
        let mut samples = Vec::new();
        for _ in 0..opens {
            samples.push(open_point(&open_read_only(&path)?, history, &mut random)?);
        }
        let latencies = Latencies::of(samples);
        let worst = latencies.microseconds(1000).unwrap_or(f64::INFINITY);
        Ok(Measured::of_time(worst).with_latencies(&latencies).with("opens", latencies.len() as f64))
    })
}

fn open_points(store: &Store, history: History, random: &mut Random, time: Duration) -> Result<Latencies> {
    let started = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < OPENS_MAX && started.elapsed() < time {
        samples.push(open_point(store, history, random)?);
    }
    Ok(Latencies::of(samples))
}

/// Opens the point of a random time, and reads its first block.
fn open_point(store: &Store, history: History, random: &mut Random) -> Result<Duration> {
    let (from, to) = (history.from.get(), history.to.get());
    let time = Point::Time(TimeNs::new(from + random.below(to - from + 1)));
    let mut buffer = Pages::ordinary(BLOCK_LEN)?;
    let started = Instant::now();
    let seq = store.resolve(&time).when("resolve a time")?.seq;
    let snapshot = super::read::snapshot(store, seq)?;
    snapshot.read(0, &mut buffer).when("read at a point")?;
    Ok(started.elapsed())
}

pub fn changed(bench: &mut Bench<'_>) -> Result<Ready> {
    let history = bench.history()?;
    let store = bench.open_history()?;
    let time = bench.sizes.probe_time;
    Ready::new(move || {
        let volume = store.volume(None).when("find its volume")?;
        let (mut extents, mut bytes, mut passes) = (0u64, 0u64, 0u64);
        let started = Instant::now();
        while passes < PASSES || started.elapsed() < time {
            let changed = volume.changed(history.ordered, history.newest);
            for extent in changed.when("list changed blocks")? {
                bytes += extent.when("list changed blocks")?.length;
                extents += 1;
            }
            passes += 1;
        }
        let rate = Rate {
            operations: passes * history.overwrites,
            bytes: 0,
            seconds: started.elapsed().as_secs_f64(),
        };
        Ok(Measured::new(rate)
            .with("extents", (extents / passes) as f64)
            .with("changed_mib", (bytes / passes) as f64 / f64::from(1 << 20)))
    })
}

/// The figure is how many bytes of index runs a version takes. A store that was closed has none in memory.
pub fn index_per_version(bench: &mut Bench<'_>) -> Result<Ready> {
    bench.history()?;
    let store = bench.open_history()?;
    Ready::new(move || {
        let started = Instant::now();
        let stats = store.stats().when("count")?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Measured::new(Rate { operations: stats.versions, bytes: stats.index_bytes, seconds })
            .with("runs", stats.runs as f64))
    })
}
