//! How long it takes until a bookmark is durable, on an idle store and beside writes.

use super::{Bench, Measured, OWN_STORE, Ready};
use crate::{
    error::{Context, Result},
    paced::{Pace, pace},
    random::{Content, Random, block_offset},
    statistics::Latencies,
};
use cdp_core::{CreateOptions, NewBookmark, OpenOptions, Store, Volume, units::BLOCK_LEN};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Bookmarks that are set.
const BOOKMARKS: u32 = 120;
/// Volume, bytes.
const VOLUME_BYTES: u64 = 1 << 30;
/// Writes a second beside it.
const BUSY_PER_SECOND: u32 = 10_000;

/// Nothing else is written; the figure is the median.
pub fn idle(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, false, 500)
}

/// Beside 4 KiB writes at 40 MB a second; the figure is the 95th percentile.
pub fn busy(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, true, 950)
}

fn prepare(bench: &mut Bench<'_>, busy: bool, per_mille: usize) -> Result<Ready> {
    let create = CreateOptions { volume: "disk".into(), bytes: VOLUME_BYTES };
    let store = Store::create(bench.new_storage(OWN_STORE)?, &create, OpenOptions::default());
    let store = store.when("create a store")?;
    let (time, seed) = (bench.sizes.probe_time, bench.seed ^ bench.round);
    Ready::new(move || {
        let runner = store.start_runner().when("start its threads")?;
        let volume = store.volume(None).when("find its volume")?;
        let samples = thread::scope(|scope| {
            let writing = busy.then(|| scope.spawn(|| write(&volume, time, seed)));
            let samples = set(&store, &volume, time, seed);
            if let Some(writing) = writing {
                writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            samples
        })?;
        let latencies = Latencies::of(samples);
        drop((volume, runner));
        store.close().when("close")?;
        let figure = latencies.microseconds(per_mille).unwrap_or(f64::INFINITY);
        Ok(Measured::of_time(figure).with_latencies(&latencies).with("bookmarks", latencies.len() as f64))
    })
}

/// Sets bookmarks evenly over a time, each behind a write that it is to cover.
fn set(store: &Store, volume: &Volume, time: Duration, seed: u64) -> Result<Vec<Duration>> {
    let mut content = Content::new(seed, 9, BLOCK_LEN)?;
    let started = Instant::now();
    let mut samples = Vec::new();
    for number in 0..BOOKMARKS {
        let due = started + time * number / BOOKMARKS;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if started.elapsed() > time {
            break;
        }
        volume.write(0, content.next()).when("write")?;
        let begun = Instant::now();
        store.add_bookmark(&NewBookmark::named(format!("mark-{number}"))).when("set a bookmark")?;
        samples.push(begun.elapsed());
    }
    Ok(samples)
}

fn write(volume: &Volume, time: Duration, seed: u64) -> Result<()> {
    let load = Pace { producers: 1, per_second: BUSY_PER_SECOND, time };
    pace(load, |stream| {
        let mut content = Content::new(seed, stream, BLOCK_LEN)?;
        let mut random = Random::new(seed, stream);
        Ok(move |_| {
            let started = Instant::now();
            volume.write(block_offset(&mut random, VOLUME_BYTES), content.next()).when("write")?;
            Ok(started.elapsed())
        })
    })
    .map(drop)
}
