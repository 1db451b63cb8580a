//! Reopening after kill -9: a child process writes to a store and is killed, and opening the store is timed.
//!
//! The child is this program again, with a hidden command. It prints a line after each flush; the parent kills it some time after
//! enough was written, at a moment that the seed decides. Only processes started here are killed.

use super::{Bench, Measured, OWN_STORE, Ready};
use crate::{
    curve::Series,
    error::{Context, Error, Result, on_path},
    random::{Content, Random, block_offset},
    statistics::Latencies,
};
use cdp_core::{
    CreateOptions, OpenOptions, Store,
    io::{DirectoryOptions, DirectoryStorage},
    units::BLOCK_LEN,
};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Bytes between two flushes of the child.
const FLUSH_BYTES: u64 = 16 << 20;
/// Longest time between the last flush that was waited for and the kill, microseconds.
const KILL_DELAY_US: u64 = 100_000;
/// Volume of the small store, bytes.
const VOLUME_BYTES: u64 = 1 << 30;

pub fn small(bench: &mut Bench<'_>) -> Result<Ready> {
    let create = CreateOptions { volume: "disk".into(), bytes: VOLUME_BYTES };
    let store = Store::create(bench.new_storage(OWN_STORE)?, &create, OpenOptions::default());
    store.and_then(Store::close).when("create a store")?;
    // Each kill adds to the store: it is small for the first one only, so there is one.
    prepare(bench, OWN_STORE, 1)
}

pub fn large(bench: &mut Bench<'_>) -> Result<Ready> {
    bench.history()?;
    prepare(bench, super::history::STORE, bench.sizes.kills)
}

fn prepare(bench: &Bench<'_>, store: &str, kills: usize) -> Result<Ready> {
    let path = bench.path(store)?;
    let mut random = Random::new(bench.seed ^ bench.round, 0);
    let flushes = usize::try_from(bench.sizes.kill_bytes / FLUSH_BYTES).unwrap_or(usize::MAX);
    Ready::new(move || {
        let (mut times, mut tail_bytes, mut stored, mut points) = (Vec::new(), 0, 0.0, Vec::new());
        for _ in 0..kills {
            write_and_kill(&path, flushes, &mut random)?;
            let found = reopen(&path)?;
            times.push(found.time);
            tail_bytes += found.tail_bytes;
            stored = found.stored_bytes as f64 / f64::from(1 << 20);
            points.push((stored, found.time.as_secs_f64() * 1e3));
        }
        let latencies = Latencies::of(times);
        let worst = latencies.microseconds(1000).unwrap_or(f64::INFINITY);
        Ok(Measured::of_time(worst)
            .with_latencies(&latencies)
            .with("tail_bytes", tail_bytes as f64)
            .with("stored_mib", stored)
            .with_series(Series::new(
                "Opening after kill -9 as the history grows",
                "MiB stored",
                "ms",
                points,
            )))
    })
}

/// What opening found.
struct Reopened {
    time: Duration,
    tail_bytes: u64,
    stored_bytes: u64,
}

/// Opens a store, times it, closes it.
fn reopen(path: &Path) -> Result<Reopened> {
    let storage = storage(path)?;
    let started = Instant::now();
    let store = Store::open(storage, OpenOptions::default()).when("open the store after a kill")?;
    let time = started.elapsed();
    let tail_bytes = store.recovery().tail_bytes;
    let stored_bytes = store.stats().when("count")?.stored_bytes;
    store.close().when("close")?;
    Ok(Reopened { time, tail_bytes, stored_bytes })
}

fn storage(path: &Path) -> Result<Arc<DirectoryStorage>> {
    let opened = DirectoryStorage::open(path, DirectoryOptions::default());
    opened.map(Arc::new).map_err(|error| on_path("open", path, error))
}

/// `wanted`: flushes that are waited for before the kill.
fn write_and_kill(path: &Path, wanted: usize, random: &mut Random) -> Result<()> {
    let program = std::env::current_exe().when("find this program")?;
    let mut command = Command::new(program);
    command.arg("write-until-killed").arg(path).arg(random.next().to_string());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().when("start a writer")?;
    let mut child = KillOnDrop(child);
    let output = child.0.stdout.take().map(BufReader::new);
    let flushes = output.into_iter().flat_map(BufRead::lines).take_while(|line| line.is_ok());
    if flushes.take(wanted).count() < wanted {
        let status = child.0.wait().when("wait for the writer")?;
        return Err(Error::Usage(format!("the writer that was to be killed ended by itself: {status}")));
    }
    thread::sleep(Duration::from_micros(random.below(KILL_DELAY_US)));
    child.0.kill().when("kill the writer")?;
    child.0.wait().when("wait for the writer").map(drop)
}

/// The child ends with the parent's interest in it, also when the parent fails.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The child: writes 4 KiB at random and flushes now and then, until it is killed or nobody reads its lines.
///
/// # Errors
/// Those of the store.
pub fn write_until_killed(path: &Path, seed: u64) -> Result<()> {
    let store = Store::open(storage(path)?, OpenOptions::default()).when("open the store to write")?;
    let _runner = store.start_runner().when("start its threads")?;
    let volume = store.volume(None).when("find its volume")?;
    let mut random = Random::new(seed, 0);
    let mut content = Content::new(seed, 0, BLOCK_LEN)?;
    let mut out = std::io::stdout().lock();
    loop {
        for _ in 0..FLUSH_BYTES / BLOCK_LEN as u64 {
            volume.write(block_offset(&mut random, volume.bytes()), content.next()).when("write")?;
        }
        let seq = volume.flush().when("flush")?;
        if writeln!(out, "{seq}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
}
