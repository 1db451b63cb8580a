//! Memory of a process that protects a volume of 1 TiB: a tap with its dirty map, the pool, tables in memory and the cache of index pages.
//!
//! It is another process, this program again with a hidden command, so that nothing of the harness is in the figure. It captures at random
//! over the whole volume, first as much as the store can take, then more, so that the dirty map is used too.

use super::{Bench, Measured, OWN_STORE, Ready};
use crate::{
    curve::Series,
    environment::{Meter, memory_now, memory_peak},
    error::{Context, Error, Result, on_path},
    paced::{Pace, pace},
    pages::Pages,
    probe::Rate,
    random::{Random, block_offset},
};
use cdp_core::{
    CreateOptions, OpenOptions, SourceReader, SourceState, Store, TapOptions,
    io::{DirectoryOptions, DirectoryStorage},
    units::{BLOCK_BYTES, BLOCK_LEN},
};
use std::{
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Size of the volume, bytes.
const VOLUME_BYTES: u64 = 1 << 40;
/// Writes a second of the two halves.
const PER_SECOND: [u32; 2] = [20_000, 400_000];
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Name of the peak among the lines of the process.
const PEAK: &str = "peak";

/// The figure is the peak.
pub fn tebibyte(bench: &mut Bench<'_>) -> Result<Ready> {
    let path = bench.path(OWN_STORE)?;
    let milliseconds = bench.sizes.measure_time.as_millis().to_string();
    let seed = (bench.seed ^ bench.round).to_string();
    Ready::new(move || {
        let program = std::env::current_exe().when("find this program")?;
        let mut command = Command::new(program);
        command.arg("measure-memory").arg(&path).arg(seed).arg(milliseconds).stdin(Stdio::null());
        let started = Instant::now();
        let output = command.output().when("start a process that is measured")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Usage(format!("the process that is measured failed: {said}")));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let (mut points, mut peak) = (Vec::new(), None);
        for line in text.lines() {
            match line.split_once(' ') {
                Some((PEAK, bytes)) => peak = bytes.parse::<u64>().ok(),
                Some((seconds, bytes)) => {
                    let point = seconds.parse::<f64>().ok().zip(bytes.parse::<f64>().ok());
                    points.extend(point.map(|(seconds, bytes)| (seconds, bytes / f64::from(1 << 20))));
                }
                None => {}
            }
        }
        let peak =
            peak.ok_or_else(|| Error::Skip("the system does not say how much memory is in use".into()))?;
        let rate = Rate { operations: 1, bytes: peak, seconds: started.elapsed().as_secs_f64() };
        let series = Series::new("Memory of a process that protects 1 TiB", "s", "MiB", points);
        Ok(Measured::new(rate).with_series(series))
    })
}

/// A disk whose blocks hold their own offsets, so that it takes no memory.
struct Computed;

impl Computed {
    fn fill(offset: u64, data: &mut [u8]) {
        for (at, word) in (offset..).step_by(8).zip(data.chunks_exact_mut(8)) {
            word.copy_from_slice(&(at | 1).to_le_bytes());
        }
    }
}

impl SourceReader for Computed {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        Self::fill(offset, buf);
        Ok(())
    }
}

/// The process: captures, and prints lines of seconds and bytes, at last the peak.
///
/// # Errors
/// Those of the store.
pub fn measure_memory(path: &Path, seed: u64, time: Duration) -> Result<()> {
    let storage = DirectoryStorage::create(path, DirectoryOptions::default());
    let storage = storage.map_err(|error| on_path("create a store in", path, error))?;
    let create = CreateOptions { volume: "disk".into(), bytes: VOLUME_BYTES };
    let store = Store::create(Arc::new(storage), &create, OpenOptions::default()).when("create a store")?;
    let runner = store.start_runner().when("start its threads")?;
    let options = TapOptions { source: SourceState::Equal, ..TapOptions::default() };
    let tap = store.tap("disk", Arc::new(Computed), options).when("tap a volume")?;
    let over = AtomicBool::new(false);
    let meter = Meter::start();
    let looks = thread::scope(|scope| {
        let looking = scope.spawn(|| look(&over));
        let outcome = PER_SECOND.iter().try_for_each(|per_second| {
            let load = Pace { producers: 1, per_second: *per_second, time: time / 2 };
            pace(load, |stream| {
                let mut random = Random::new(seed, stream);
                let mut block = Pages::ordinary(BLOCK_LEN)?;
                let tap = &tap;
                Ok(move |_| {
                    let offset = block_offset(&mut random, VOLUME_BYTES / BLOCK_BYTES * BLOCK_BYTES);
                    Computed::fill(offset, &mut block);
                    tap.capture(offset, &block).when("capture")?;
                    Ok(Duration::ZERO)
                })
            })
            .map(drop)
        });
        over.store(true, Ordering::Relaxed);
        outcome.map(|()| looking.join().unwrap_or_default())
    })?;
    meter.stop();
    let mut out = io::stdout().lock();
    for (seconds, bytes) in looks {
        writeln!(out, "{seconds:.3} {bytes}").when("print")?;
    }
    if let Some(peak) = memory_peak() {
        writeln!(out, "{PEAK} {peak}").when("print")?;
    }
    tap.detach().when("end a tap")?;
    drop(runner);
    store.close().when("close")
}

fn look(over: &AtomicBool) -> Vec<(f64, u64)> {
    let started = Instant::now();
    let mut looks = Vec::new();
    while !over.load(Ordering::Relaxed) {
        looks.extend(memory_now().map(|bytes| (started.elapsed().as_secs_f64(), bytes)));
        thread::sleep(LOOK_EVERY);
    }
    looks
}
