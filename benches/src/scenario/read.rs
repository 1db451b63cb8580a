//! Reads of a store with a history, random and sequential, with the same number of requests in flight as the raw probes.

use super::{Bench, Measured, Ready, open_read_only};
use crate::{
    drive::{Driven, Limits, drive},
    error::{Context, Result},
    pages::Pages,
    probe::{RANDOM_DEPTH, Rate, SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH},
    random::{Random, block_offset},
};
use cdp_core::{
    Snapshot, Store,
    units::{BLOCK_BYTES, BLOCK_LEN, Seq},
};
use std::time::Duration;

/// Reads after each open where they are cold.
const COLD_READS: u64 = 4000;

pub fn random_at_point_warm(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.scattered;
    random_warm(bench, seq)
}

pub fn random_newest_warm(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.newest;
    random_warm(bench, seq)
}

pub fn random_at_point_cold(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.scattered;
    let path = bench.path(super::history::STORE)?;
    let (opens, seed) = (bench.sizes.cold_opens, bench.seed ^ bench.round);
    Ready::new(move || {
        let (mut operations, mut seconds, mut worst) = (0, 0.0, 0.0_f64);
        for open in (0u64..).take(opens) {
            let snapshot = snapshot(&open_read_only(&path)?, seq)?;
            let limits = Limits { time: Duration::from_secs(5), operations: COLD_READS };
            let driven = random_reads(&snapshot, limits, seed.wrapping_add(open << 32))?;
            seconds += driven.started.elapsed().as_secs_f64();
            operations += driven.operations;
            worst = worst.max(driven.latencies.microseconds(1000).unwrap_or_default());
        }
        Ok(Measured::new(Rate { operations, bytes: operations * BLOCK_BYTES, seconds }).with("max_us", worst))
    })
}

fn random_warm(bench: &mut Bench<'_>, seq: Seq) -> Result<Ready> {
    let snapshot = snapshot(&bench.open_history()?, seq)?;
    let (time, seed) = (bench.sizes.probe_time, bench.seed ^ bench.round);
    // Brings the index into memory: every leaf of it is met many times.
    random_reads(&snapshot, Limits { time, operations: u64::MAX >> 1 }, !seed)?;
    Ready::new(move || {
        let driven = random_reads(&snapshot, Limits { time, operations: u64::MAX >> 1 }, seed)?;
        let seconds = driven.started.elapsed().as_secs_f64();
        let bytes = driven.operations * BLOCK_BYTES;
        Ok(Measured::new(Rate { operations: driven.operations, bytes, seconds })
            .with_latencies(&driven.latencies))
    })
}

fn random_reads(snapshot: &Snapshot, limits: Limits, seed: u64) -> Result<Driven> {
    drive(RANDOM_DEPTH, limits, |stream| {
        let mut buffer = Pages::ordinary(BLOCK_LEN)?;
        let mut random = Random::new(seed, stream);
        Ok(move |_| {
            let offset = block_offset(&mut random, snapshot.bytes());
            snapshot.read(offset, &mut buffer).when("read at a point")
        })
    })
}

pub fn sequential_ordered(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.ordered;
    sequential(bench, seq, SEQUENTIAL_BYTES as u64)
}

pub fn sequential_scattered(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.scattered;
    sequential(bench, seq, BLOCK_BYTES)
}

pub fn sequential_newest(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.newest;
    sequential(bench, seq, BLOCK_BYTES)
}

/// `counted_bytes`: how many bytes count as one operation.
fn sequential(bench: &mut Bench<'_>, seq: Seq, counted_bytes: u64) -> Result<Ready> {
    let snapshot = snapshot(&bench.open_history()?, seq)?;
    let limits = Limits {
        time: bench.sizes.measure_time,
        operations: bench.sizes.volume_bytes / SEQUENTIAL_BYTES as u64,
    };
    Ready::new(move || {
        let driven = drive(SEQUENTIAL_DEPTH, limits, |_| {
            let mut buffer = Pages::ordinary(SEQUENTIAL_BYTES)?;
            let snapshot = &snapshot;
            Ok(move |operation| {
                let offset = operation * SEQUENTIAL_BYTES as u64;
                snapshot.read(offset, &mut buffer).when("read at a point")
            })
        })?;
        let seconds = driven.started.elapsed().as_secs_f64();
        let bytes = driven.operations * SEQUENTIAL_BYTES as u64;
        Ok(Measured::new(Rate { operations: bytes / counted_bytes, bytes, seconds })
            .with_latencies(&driven.latencies))
    })
}

/// The only volume of a store at a point.
pub fn snapshot(store: &Store, seq: Seq) -> Result<Snapshot> {
    store.volume(None).and_then(|volume| volume.snapshot(seq)).when("open a point")
}
