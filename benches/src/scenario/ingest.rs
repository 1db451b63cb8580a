//! Ingest: writes into a new store with the bundled runner, as a host would make them.
//!
//! Counted from the first write until the last flush has returned. Sealing and merging that is left then is not in the figure; how
//! long the store took to close is among the details.

use super::{Bench, Measured, OWN_STORE, Ready};
use crate::{
    drive::{Limits, drive},
    environment::memory_peak,
    error::{Context, Error, Result},
    probe::Rate,
    random::{Content, Random, block_offset},
};
use cdp_core::{
    CreateOptions, OpenOptions, Store,
    io::{Clock, SystemClock},
    retention::{BookmarkFilter, Keep, Policy, Window},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

/// Volume that random writes go to, bytes.
const VOLUME_BYTES: u64 = 4 << 30;
/// Part of it that is overwritten again and again where history is thinned meanwhile, bytes.
const HOT_BYTES: u64 = 256 << 20;
/// What stays in full where history is thinned meanwhile, nanoseconds.
const KEPT_NS: u64 = 500_000_000;

#[derive(Clone, Copy)]
struct Load {
    write_bytes: usize,
    in_order: bool,
    producers: usize,
    flush_every: Option<u64>,
    /// Part of the volume that random writes go to, bytes.
    region_bytes: u64,
    /// Whether retention runs all the time meanwhile.
    thin: bool,
}

const RANDOM_4K: Load = Load {
    write_bytes: 4 << 10,
    in_order: false,
    producers: 1,
    flush_every: None,
    region_bytes: VOLUME_BYTES,
    thin: false,
};

/// The same writes as [`thinned_4k`], without retention: what that is to be compared with.
pub fn hot_4k(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, Load { region_bytes: HOT_BYTES, ..RANDOM_4K })
}

pub fn thinned_4k(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, Load { region_bytes: HOT_BYTES, thin: true, ..RANDOM_4K })
}

pub fn random_4k(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, RANDOM_4K)
}

pub fn random_4k_producers(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, Load { producers: 4, ..RANDOM_4K })
}

pub fn random_4k_flushed(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, Load { flush_every: Some(64), ..RANDOM_4K })
}

pub fn sequential_64k(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, Load { write_bytes: 64 << 10, in_order: true, ..RANDOM_4K })
}

pub fn sequential_1m(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, Load { write_bytes: 1 << 20, in_order: true, ..RANDOM_4K })
}

fn prepare(bench: &mut Bench<'_>, load: Load) -> Result<Ready> {
    let create = CreateOptions { volume: "disk".into(), bytes: VOLUME_BYTES };
    let store = Store::create(bench.new_storage(OWN_STORE)?, &create, OpenOptions::default());
    let store = store.when("create a store")?;
    let limits = Limits {
        time: bench.sizes.measure_time,
        operations: bench.sizes.sequential_bytes / load.write_bytes as u64,
    };
    let seed = bench.seed ^ bench.round;
    Ok(Box::new(move || ingest(store, load, limits, seed)))
}

fn ingest(store: Store, load: Load, limits: Limits, seed: u64) -> Result<Measured> {
    let runner = store.start_runner().when("start its threads")?;
    let volume = store.volume(None).when("find its volume")?;
    let write_bytes = load.write_bytes as u64;
    let thinner = load.thin.then(|| Thinner::start(&store)).transpose()?;
    let driven = drive(load.producers, limits, |stream| {
        let mut content = Content::new(seed, stream, load.write_bytes)?;
        let mut random = Random::new(seed, stream);
        let volume = volume.clone();
        Ok(move |operation: u64| {
            let offset = if load.in_order {
                operation * write_bytes % VOLUME_BYTES
            } else {
                block_offset(&mut random, load.region_bytes)
            };
            volume.write(offset, content.next()).when("write")?;
            if load.flush_every.is_some_and(|every| operation % every == every - 1) {
                volume.flush().when("flush")?;
            }
            Ok(())
        })
    })?;
    volume.flush().when("flush")?;
    let seconds = driven.started.elapsed().as_secs_f64();
    let thinned = thinner.map(Thinner::finish).transpose()?;
    let peak = memory_peak();
    let stats = store.stats().when("count")?;
    let closing = Instant::now();
    drop(runner);
    store.close().when("close")?;
    let bytes = driven.operations * write_bytes;
    let mut measured = Measured::new(Rate { operations: driven.operations, bytes, seconds })
        .with_latencies(&driven.latencies)
        .with("foreground_bytes_per_source_byte", stats.written_bytes as f64 / bytes.max(1) as f64)
        .with("close_ms", closing.elapsed().as_secs_f64() * 1e3);
    if let Some(peak) = peak {
        measured = measured.with("memory_peak_mib", peak as f64 / f64::from(1 << 20));
    }
    if let Some(runs) = thinned {
        measured = measured.with("retention_runs", runs as f64);
    }
    Ok(measured)
}

/// A thread that carries out a policy again and again.
struct Thinner {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Thinner {
    fn start(store: &Store) -> Result<Self> {
        let window = Window { to: KEPT_NS, keep: Keep::All, bookmarks: BookmarkFilter::None };
        let policy = Policy { windows: vec![window], ..Policy::default() };
        store.set_policy(&policy).when("set a policy")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (store, stopped) = (store.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut runs = 0;
            while !stopped.load(Ordering::Relaxed) {
                store.run_retention(SystemClock.now()).when("carry out a policy")?;
                runs += 1;
            }
            Ok(runs)
        });
        Ok(Self { stop, thread })
    }

    /// The number of runs.
    fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::Usage("the thread that thins panicked".into()))?
    }
}
