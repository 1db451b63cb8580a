//! Ingest: writes into a new store with the bundled runner, as a host would make them.
//!
//! Counted from the first write until the last flush has returned. Sealing and merging that is left then is not in the figure; how
//! long the store took to close is among the details.

use super::{Bench, Measured, OWN_FILE, OWN_STORE, Ready};
use crate::{
    drive::{Limits, drive},
    environment::{device_bytes_written, memory_peak},
    error::{Context, Error, Result, on_path},
    probe::Rate,
    random::{Content, Random},
};
use cdp_core::{
    CreateOptions, OpenOptions, Store,
    io::{Clock, DirectoryOptions, DirectoryStorage, Storage, SystemClock},
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
/// What stays in full where written bytes are counted while history is thinned, nanoseconds.
const KEPT_NS: u64 = 500_000_000;

#[derive(Clone, Copy)]
struct Load {
    write_bytes: usize,
    in_order: bool,
    producers: usize,
    flush_every: Option<u64>,
    /// Part of the volume that random writes go to, bytes.
    region_bytes: u64,
    /// What stays in full while retention runs all the time, nanoseconds; `None`: there is no retention.
    kept_ns: Option<u64>,
}

const RANDOM_4K: Load = Load {
    write_bytes: 4 << 10,
    in_order: false,
    producers: 1,
    flush_every: None,
    region_bytes: VOLUME_BYTES,
    kept_ns: None,
};

pub fn hot_4k(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, Load { region_bytes: HOT_BYTES, ..RANDOM_4K })
}

/// Between two ingests of the same writes without retention. All that is older than so many milliseconds is thinned away.
pub fn thinned_4k<const KEPT_MS: u64>(bench: &mut Bench<'_>) -> Result<Ready> {
    let plain = Load { region_bytes: HOT_BYTES, ..RANDOM_4K };
    let (limits, seed) = (limits(bench, plain), bench.seed ^ bench.round);
    let (path, mut number) = (bench.path(OWN_FILE)?, 0);
    std::fs::create_dir(&path).map_err(|error| on_path("create", &path, error))?;
    let reference = move || {
        number += 1;
        let path = path.join(number.to_string());
        let storage = DirectoryStorage::create(&path, DirectoryOptions::default());
        let storage = storage.map_err(|error| on_path("create a store in", &path, error))?;
        ingest(create(Arc::new(storage))?, plain, limits, seed)
    };
    let thinned = Load { kept_ns: Some(KEPT_MS * 1_000_000), ..plain };
    let store = create(bench.new_storage(OWN_STORE)?)?;
    let how = "the same writes to a new store without retention";
    Ready::between(how, reference, move || ingest(store, thinned, limits, seed))
}

/// The figure is how many bytes reached the device for each byte of the source, of the writes themselves.
pub fn written_foreground(bench: &mut Bench<'_>) -> Result<Ready> {
    counted(bench, RANDOM_4K, "foreground_bytes_per_source_byte")
}

/// The figure is the same of everything: index, sealing, merging, and what thinning copies.
pub fn written_thinned(bench: &mut Bench<'_>) -> Result<Ready> {
    let load = Load { region_bytes: HOT_BYTES, kept_ns: Some(KEPT_NS), ..RANDOM_4K };
    counted(bench, load, "device_bytes_per_source_byte")
}

fn counted(bench: &mut Bench<'_>, load: Load, detail: &'static str) -> Result<Ready> {
    let ready = prepare(bench, load)?;
    Ready::new(move || {
        let mut measured = (ready.measure)()?;
        let share = measured.findings.details.get(detail).copied();
        let share = share.ok_or_else(|| Error::Skip("the system does not say what was written".into()))?;
        // Bytes for each byte, in parts of a million.
        let millionths = (share * 1e6).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small ratio, not negative"
        )]
        let bytes = millionths as u64;
        measured.rate = Rate { operations: 1_000_000, bytes, seconds: measured.rate.seconds };
        Ok(measured)
    })
}

/// Writes of so many KiB at random by so many producers.
pub fn matrix<const KIB: usize, const PRODUCERS: usize>(bench: &mut Bench<'_>) -> Result<Ready> {
    prepare(bench, Load { write_bytes: KIB << 10, producers: PRODUCERS, ..RANDOM_4K })
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
    let store = create(bench.new_storage(OWN_STORE)?)?;
    let (limits, seed) = (limits(bench, load), bench.seed ^ bench.round);
    Ready::new(move || ingest(store, load, limits, seed))
}

fn create(storage: Arc<dyn Storage>) -> Result<Store> {
    let create = CreateOptions { volume: "disk".into(), bytes: VOLUME_BYTES };
    Store::create(storage, &create, OpenOptions::default()).when("create a store")
}

fn limits(bench: &Bench<'_>, load: Load) -> Limits {
    Limits {
        time: bench.sizes.measure_time,
        operations: bench.sizes.sequential_bytes / load.write_bytes as u64,
    }
}

fn ingest(store: Store, load: Load, limits: Limits, seed: u64) -> Result<Measured> {
    let runner = store.start_runner().when("start its threads")?;
    let volume = store.volume(None).when("find its volume")?;
    let write_bytes = load.write_bytes as u64;
    let written_before = device_bytes_written();
    let thinner = load.kept_ns.map(|kept_ns| Thinner::start(&store, kept_ns)).transpose()?;
    let driven = drive(load.producers, limits, |stream| {
        let mut content = Content::new(seed, stream, load.write_bytes)?;
        let mut random = Random::new(seed, stream);
        let volume = volume.clone();
        Ok(move |operation: u64| {
            let offset = if load.in_order {
                operation * write_bytes % VOLUME_BYTES
            } else {
                random.below(load.region_bytes / write_bytes) * write_bytes
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
        .with("foreground_bytes_per_source_byte", stats.frame_bytes as f64 / bytes.max(1) as f64)
        .with("written_bytes_per_source_byte", stats.written_bytes as f64 / bytes.max(1) as f64)
        .with("close_ms", closing.elapsed().as_secs_f64() * 1e3);
    if let Some((before, after)) = written_before.zip(device_bytes_written()) {
        let written = after.saturating_sub(before) as f64;
        measured = measured.with("device_bytes_per_source_byte", written / bytes.max(1) as f64);
    }
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
    fn start(store: &Store, kept_ns: u64) -> Result<Self> {
        let window = Window { to: kept_ns, keep: Keep::All, bookmarks: BookmarkFilter::None };
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
