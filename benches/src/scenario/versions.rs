//! Points and lookups against the size of the history: 1 M, 10 M and 100 M versions.
//!
//! A payload of that many blocks would not fit on the disks that this is run on. So almost all versions are zeroes, which take an entry
//! in the journal and in the index, as any other, but no payload: runs, merges, tables of times and opening are those of a real history
//! of that length. One in [`DATA_EVERY`] has data. Each size has a store of its own, which is made once in a run.

use super::{Bench, Measured, Ready, open_read_only};
use crate::{
    drive::{Limits, drive},
    environment::memory_now,
    error::{Context, Error, Result},
    pages::Pages,
    random::{Content, Random, block_offset},
    statistics::Latencies,
};
use cdp_core::{
    CreateOptions, OpenOptions, Point, Store,
    units::{BLOCK_BYTES, BLOCK_LEN, Seq, TimeNs},
};
use std::time::{Duration, Instant};

/// Name of the directory of the stores.
const STORES: &str = "versions";
/// Bytes of the volume: as many blocks as the smallest history has versions, so that nearly every block is found.
const VOLUME_BYTES: u64 = 4 << 30;
/// One version of so many has data.
const DATA_EVERY: u64 = 256;
/// Bytes at the beginning of a block with data that are not all zero.
const STAMP_BYTES: usize = 16;
/// Versions of a million, in the smallest profile a thousand.
const MILLION: u64 = 1_000_000;
/// Most operations of a measurement.
const OPERATIONS_MAX: usize = 20_000;
/// Most times that are looked for.
const TIMES_MAX: usize = 200;
/// Time that a store is given to merge.
const PATIENCE: Duration = Duration::from_secs(60);

/// The figure is the 99th percentile of opening the point of a number and reading a block. Finding the number of a time is a detail: it looks
/// through one frame, and a frame of zeroes holds a hundred times the records that a frame of data has.
pub fn open<const MILLIONS: u64>(bench: &mut Bench<'_>) -> Result<Ready> {
    let (name, versions) = history::<MILLIONS>(bench)?;
    let store = open_read_only(&bench.path(&name)?)?;
    let (time, seed) = (bench.sizes.probe_time, bench.seed ^ bench.round);
    let mut opening = Opening::new(&store, seed)?;
    let warm = Instant::now();
    while warm.elapsed() < time / 2 {
        opening.once()?;
    }
    Ready::new(move || {
        let started = Instant::now();
        let mut samples = Vec::new();
        while samples.len() < OPERATIONS_MAX && started.elapsed() < time {
            samples.push(opening.once()?);
        }
        let mut found = Vec::new();
        while found.len() < TIMES_MAX && started.elapsed() < time * 2 {
            found.push(opening.find_time()?);
        }
        let found = Latencies::of(found);
        let p99 = found.microseconds(990).unwrap_or(f64::INFINITY);
        Ok(figure(samples, &store, versions)?.with("find_time_p99_us", p99))
    })
}

/// The figure is the 99th percentile of reading a random block at one point, almost all of which are zeroes: what finding them costs.
pub fn lookup<const MILLIONS: u64>(bench: &mut Bench<'_>) -> Result<Ready> {
    let (name, versions) = history::<MILLIONS>(bench)?;
    let store = open_read_only(&bench.path(&name)?)?;
    let time = bench.sizes.probe_time;
    let (from, to) = ends(&store)?;
    let middle = Point::Time(TimeNs::new(u64::midpoint(from, to)));
    let seq = store.resolve(&middle).when("resolve a time")?.seq;
    let snapshot = super::read::snapshot(&store, seq)?;
    let mut random = Random::new(bench.seed ^ bench.round, 0);
    let mut buffer = Pages::ordinary(BLOCK_LEN)?;
    let mut find = move || {
        let offset = block_offset(&mut random, VOLUME_BYTES);
        let started = Instant::now();
        snapshot.read(offset, &mut buffer).when("read at a point")?;
        Ok((started.elapsed(), buffer.iter().take(STAMP_BYTES).any(|byte| *byte != 0)))
    };
    let warm = Instant::now();
    while warm.elapsed() < time {
        find()?;
    }
    Ready::new(move || {
        let started = Instant::now();
        let (mut samples, mut data) = (Vec::new(), 0u64);
        while samples.len() < 50 * OPERATIONS_MAX && started.elapsed() < time {
            let (sample, is_data) = find()?;
            samples.push(sample);
            data += u64::from(is_data);
        }
        let share = data as f64 / samples.len().max(1) as f64;
        Ok(figure(samples, &store, versions)?.with("data_share", share))
    })
}

fn figure(samples: Vec<Duration>, store: &Store, versions: u64) -> Result<Measured> {
    let latencies = Latencies::of(samples);
    let stats = store.stats().when("count")?;
    let p99 = latencies.microseconds(990).unwrap_or(f64::INFINITY);
    Ok(Measured::of_time(p99)
        .with_latencies(&latencies)
        .with("versions", versions as f64)
        .with("runs", stats.runs as f64)
        .with("stored_mib", stats.stored_bytes as f64 / f64::from(1 << 20))
        .with("memory_mib", memory_now().unwrap_or_default() as f64 / f64::from(1 << 20)))
}

/// Opens points anywhere in the history.
struct Opening {
    store: Store,
    from: u64,
    to: u64,
    newest: Seq,
    random: Random,
    buffer: Pages,
}

impl Opening {
    fn new(store: &Store, seed: u64) -> Result<Self> {
        let (from, to) = ends(store)?;
        let newest = store.timeline().when("look at the timeline")?.newest.seq;
        let buffer = Pages::ordinary(BLOCK_LEN)?;
        Ok(Self { store: store.clone(), from, to, newest, random: Random::new(seed, 1), buffer })
    }

    fn once(&mut self) -> Result<Duration> {
        let seq = Seq::new(1 + self.random.below(self.newest.get()));
        let offset = block_offset(&mut self.random, VOLUME_BYTES);
        let started = Instant::now();
        let snapshot = super::read::snapshot(&self.store, seq)?;
        snapshot.read(offset, &mut self.buffer).when("read at a point")?;
        Ok(started.elapsed())
    }

    fn find_time(&mut self) -> Result<Duration> {
        let time = TimeNs::new(self.from + self.random.below(self.to - self.from + 1));
        let started = Instant::now();
        self.store.resolve(&Point::Time(time)).when("resolve a time")?;
        Ok(started.elapsed())
    }
}

/// The times of the first write and of the newest point. The oldest point is the empty volume, which may be of any age.
fn ends(store: &Store) -> Result<(u64, u64)> {
    let newest = store.timeline().when("look at the timeline")?.newest;
    let first = store.resolve(&Point::Seq(Seq::new(1))).when("find the first write")?;
    Ok((first.time.get(), newest.time.get()))
}

/// The store with a history of so many million versions; builds it when it is needed first.
fn history<const MILLIONS: u64>(bench: &Bench<'_>) -> Result<(String, u64)> {
    let unit = if bench.sizes.overwrites < MILLION / 4 { 1000 } else { MILLION };
    let (name, versions) = (format!("{STORES}-{MILLIONS}"), MILLIONS * unit);
    if !bench.path(&name)?.is_dir() {
        build(bench, &name, versions)?;
        bench.scratch.settle()?;
    }
    Ok((name, versions))
}

fn build(bench: &Bench<'_>, name: &str, versions: u64) -> Result<()> {
    let create = CreateOptions { volume: "disk".into(), bytes: VOLUME_BYTES };
    let store = Store::create(bench.new_storage(name)?, &create, OpenOptions::default());
    let store = store.when("create a store")?;
    let runner = store.start_runner().when("start its threads")?;
    let volume = store.volume(None).when("find its volume")?;
    let limits = Limits { time: bench.sizes.build_time, operations: versions };
    let written = drive(1, limits, |stream| {
        let mut content = Content::new(bench.seed, stream, BLOCK_LEN)?;
        let mut random = Random::new(bench.seed, stream);
        let volume = volume.clone();
        Ok(move |operation| {
            let offset = block_offset(&mut random, VOLUME_BYTES);
            let written = if operation % DATA_EVERY == 0 {
                volume.write(offset, content.next())
            } else {
                volume.write_zeroes(offset, BLOCK_BYTES, None)
            };
            written.when("write a version").map(drop)
        })
    })?;
    volume.flush().when("flush")?;
    if written.operations < versions {
        drop((volume, runner));
        bench.scratch.remove(name)?;
        let text = format!(
            "only {} of {versions} versions could be written within {} s",
            written.operations,
            bench.sizes.build_time.as_secs()
        );
        return Err(Error::Skip(text));
    }
    super::history::wait_for_merges(&store, PATIENCE)?;
    drop((volume, runner));
    store.close().when("close")
}
