//! What a capture costs production: the time of single calls of a tap at a given rate, beside a plain copy of the same bytes at the
//! same rate by the same threads, before and after.

use super::{
    Bench, Measured, OWN_STORE, Ready,
    tapped::{MemoryDisk, Tapped},
};
use crate::{
    error::{Context, Error, Result},
    paced::{Pace, Paced, pace},
    random::{Content, Random},
};
use std::{
    hint::black_box,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Memory that the plain copies go to, of all producers together, as large as the pool of a tap.
const COPY_BYTES: usize = 64 << 20;
/// Copies before the first measurement: as many as can be.
const WARM_UP_PER_SECOND: u32 = 10_000_000;
const WARM_UP_TIME: Duration = Duration::from_millis(300);
/// Longest wait for a tap to be whole after the measurement.
const PATIENCE: Duration = Duration::from_secs(60);

/// Captures of `BYTES` bytes at random by `PRODUCERS` threads, `RATE` a second in all; the figure is the 99th percentile.
pub fn paced<const PRODUCERS: usize, const BYTES: usize, const RATE: u32>(
    bench: &mut Bench<'_>,
) -> Result<Ready> {
    let load = Pace { producers: PRODUCERS, per_second: RATE, time: bench.sizes.probe_time };
    let seed = bench.seed ^ bench.round;
    let tapped = Tapped::start(bench.new_storage(OWN_STORE)?, bench.disk_bytes())?;
    let disk = MemoryDisk::new(bench.disk_bytes());
    let memory: Vec<_> = (0..PRODUCERS).map(|_| Mutex::new(vec![1_u8; COPY_BYTES / PRODUCERS])).collect();
    // Once over it all, so that the copies before find the caches as those after the captures do.
    copies(Pace { per_second: WARM_UP_PER_SECOND, time: WARM_UP_TIME, ..load }, BYTES, seed, &disk, &memory)?;
    let how = "a plain copy of the same bytes to memory, at the same rate by the same number of threads, after the same write to a disk in memory, without a store beside it; of both, what ran while the host had slowed the processor is left out: where a piece of arithmetic before or behind took more than three times its median (slowed_share; p99_us is of all)";
    Ready::between(
        how,
        move || copies(load, BYTES, seed, &disk, &memory),
        move || {
            let measured = captures(&tapped, load, BYTES, seed)?;
            tapped.wait_until_whole(PATIENCE)?;
            tapped.finish(seed)?;
            Ok(measured)
        },
    )
}

fn captures(tapped: &Tapped, load: Pace, bytes: usize, seed: u64) -> Result<Measured> {
    let slots = tapped.disk.bytes() / (bytes * load.producers) as u64;
    let paced = pace(load, |stream| {
        let mut content = Content::new(seed, stream, bytes)?;
        let mut random = Random::new(seed, stream);
        Ok(move |_| {
            // A part of the disk for each: two writes of one block at the same time would be a fault of the host.
            let slot = stream * slots + random.below(slots);
            tapped.write(slot * bytes as u64, content.next())
        })
    })?;
    let stats = tapped.tap.stats();
    let all = (stats.whole + stats.marked).max(1) as f64;
    Ok(figure(&paced).with("marked_share", stats.marked as f64 / all).with("gaps", stats.gaps as f64))
}

/// Copies at the same pace, each behind a write to the disk, so that both find in the cache what a host's write has left there.
fn copies(
    load: Pace,
    bytes: usize,
    seed: u64,
    disk: &MemoryDisk,
    memory: &[Mutex<Vec<u8>>],
) -> Result<Measured> {
    let slots = disk.bytes() / (bytes * load.producers) as u64;
    let paced = pace(load, |stream| {
        let mut content = Content::new(seed, stream, bytes)?;
        let mut random = Random::new(seed, stream);
        // Behind a lock that nobody else takes, as the least that memory shared by threads costs.
        let memory = usize::try_from(stream).ok().and_then(|stream| memory.get(stream));
        let memory = memory.ok_or_else(|| Error::Usage("a producer without memory".to_owned()))?;
        let mut at = 0;
        Ok(move |_| {
            let data = content.next();
            let slot = stream * slots + random.below(slots);
            disk.write(slot * bytes as u64, data).when("write to the disk in memory")?;
            let started = Instant::now();
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            at = if at + 2 * bytes > memory.len() { 0 } else { at + bytes };
            memory[at..at + bytes].copy_from_slice(data);
            black_box(&mut memory);
            Ok(started.elapsed())
        })
    })?;
    Ok(figure(&paced))
}

/// The 99th percentile while the processor ran at its speed, with those of all captures and the rate that was reached.
fn figure(paced: &Paced) -> Measured {
    let p99 = paced.at_speed.microseconds(990).unwrap_or(f64::INFINITY);
    Measured::of_time(p99)
        .with_latencies(&paced.latencies)
        .with("p99_at_speed_us", p99)
        .with("slowed_share", paced.slowed_share())
        .with("writes_per_s", paced.latencies.len() as f64 / paced.seconds.max(1e-9))
}
