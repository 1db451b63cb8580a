//! Raw probes: what the device gives without the engine, and the copy-on-write reference.
//!
//! All go past the page cache and use the workers of [`crate::drive`]. Sequential writes go to new files whose space was allocated
//! and never written, as the engine's own do, and count the `fdatasync` at the end. Reads and random writes use one file that was
//! written once in full, so that no read is answered from an unwritten extent. On a raw device they have places instead of files.

use crate::{
    device::Device,
    direct::DirectFile,
    drive::{Limits, drive},
    error::Result,
    pages::Pages,
    profile::Sizes,
    random::{Content, Random, block_offset},
    scratch::Scratch,
};
use cdp_core::units::{BLOCK_BYTES, BLOCK_LEN};
use serde::{Deserialize, Serialize};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Bytes of a sequential request.
pub const SEQUENTIAL_BYTES: usize = 1 << 20;
/// Requests in flight of sequential probes.
pub const SEQUENTIAL_DEPTH: usize = 4;
/// Requests in flight of random probes.
pub const RANDOM_DEPTH: usize = 32;
/// Bytes between two syncs of the synced probe.
pub const SYNCED_BYTES: usize = 256 << 10;

/// Reads among ten requests of a mix.
pub const MIXED_READS_IN_TEN: u64 = 7;

const WRITTEN_FILE: &str = "probe-written";
const FRESH_FILES: &str = "probe-fresh";

/// A raw limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// 1 MiB sequential writes, 4 in flight, to newly allocated space, synced at the end.
    SequentialWrite,
    /// 1 MiB sequential reads, 4 in flight.
    SequentialRead,
    /// 4 KiB random reads, 32 in flight.
    RandomRead,
    /// 4 KiB random writes in place, 32 in flight, synced at the end.
    RandomWrite,
    /// 256 KiB sequential writes, one in flight, each synced.
    SyncedWrite,
    /// 1 MiB sequential reads from one file, each written to another, 4 in flight, synced at the end.
    Copy,
    /// For each 4 KiB write: read the old block, append it to a log, write the new one in place; 32 in flight, synced at the end.
    CopyOnWrite,
    /// 4 KiB random reads, one in flight.
    SingleRead,
    /// 4 KiB at random, seven reads to three writes in place, 32 in flight, synced at the end.
    Mixed,
    /// A fixed computation in one thread.
    Computation,
    /// None: what is measured is a count that no load on the machine changes.
    Count,
    /// What the scenario itself measures as its reference; the row says how.
    Own,
}

/// What a probe found: how many requests and bytes in how many seconds.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Requests.
    pub operations: u64,
    /// Bytes, counted once where a request moves them several times.
    pub bytes: u64,
    /// Seconds.
    pub seconds: f64,
}

impl Probe {
    /// How it is done, for the report.
    pub fn method(self) -> &'static str {
        match self {
            Self::SequentialWrite => {
                "1 MiB sequential O_DIRECT writes, 4 threads, fallocated and unwritten file, fdatasync counted"
            }
            Self::SequentialRead => "1 MiB sequential O_DIRECT reads, 4 threads, file written before",
            Self::RandomRead => "4 KiB random O_DIRECT reads, 32 threads, file written before",
            Self::RandomWrite => {
                "4 KiB random O_DIRECT writes, 32 threads, file written before, fdatasync counted"
            }
            Self::SyncedWrite => {
                "256 KiB sequential O_DIRECT writes, each with fdatasync, 1 thread, fallocated and unwritten file"
            }
            Self::Copy => {
                "1 MiB O_DIRECT read of a written file and write to a fallocated one, 4 threads, fdatasync counted"
            }
            Self::CopyOnWrite => {
                "4 KiB random: read old, append old to a log, write new in place; O_DIRECT, 32 threads, fdatasync of both counted"
            }
            Self::SingleRead => "4 KiB random O_DIRECT reads, 1 thread, file written before",
            Self::Mixed => {
                "4 KiB random O_DIRECT, seven reads to three writes in place, 32 threads, file written before, fdatasync counted"
            }
            Self::Count => "none: a count of bytes, which does not depend on what else the machine does",
            Self::Own => "the scenario's own reference, named in its row",
            Self::Computation => "a fixed loop of xorshift64* in one thread, million rounds a second",
        }
    }
}

/// The files of the probes.
pub struct Probes<'a> {
    scratch: &'a Scratch,
    device: Option<&'a Device>,
    sizes: Sizes,
    seed: u64,
    written: DirectFile,
    fresh: u64,
    runs: u64,
}

impl<'a> Probes<'a> {
    /// Makes and writes the file that is read.
    ///
    /// # Errors
    /// `Usage` where there is no direct I/O; `Io`.
    pub fn new(scratch: &'a Scratch, device: Option<&'a Device>, sizes: Sizes, seed: u64) -> Result<Self> {
        let written = match device {
            Some(device) => device.written()?,
            None => DirectFile::create(&scratch.join(WRITTEN_FILE), sizes.file_bytes)?,
        };
        let limits = Limits { time: sizes.build_time, operations: chunks(sizes.file_bytes) };
        let driven = drive(SEQUENTIAL_DEPTH, limits, |stream| {
            let mut content = Content::new(seed, stream, SEQUENTIAL_BYTES)?;
            let written = &written;
            Ok(move |chunk| written.write(chunk * SEQUENTIAL_BYTES as u64, content.next()))
        })?;
        written.sync()?;
        let mut sizes = sizes;
        // On a device so slow that the time ran out, the probes keep to what was written.
        sizes.file_bytes = sizes
            .file_bytes
            .min(driven.operations.saturating_sub(SEQUENTIAL_DEPTH as u64).max(1) * SEQUENTIAL_BYTES as u64);
        Ok(Self { scratch, device, sizes, seed, written, fresh: 0, runs: 0 })
    }

    /// Measures once.
    ///
    /// # Errors
    /// `Io`.
    pub fn run(&mut self, probe: Probe) -> Result<Rate> {
        // Other offsets each time, so that no cache on the way knows them.
        self.runs += 1;
        match probe {
            Probe::SequentialWrite => {
                self.write_fresh(SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH, self.sizes.sequential_bytes, false)
            }
            Probe::SyncedWrite => self.write_fresh(SYNCED_BYTES, 1, self.sizes.sequential_bytes / 4, true),
            Probe::SequentialRead => self.read(SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH, true),
            Probe::RandomRead => self.read(BLOCK_LEN, RANDOM_DEPTH, false),
            Probe::SingleRead => self.read(BLOCK_LEN, 1, false),
            Probe::RandomWrite => self.write_in_place(),
            Probe::Mixed => self.mixed(),
            Probe::Copy => self.copy(),
            Probe::CopyOnWrite => self.copy_on_write(),
            Probe::Count => Ok(Rate { operations: 1, bytes: 1, seconds: 1.0 }),
            // A scenario that names no reference of its own has a defect; the loop is at least a figure of the machine.
            Probe::Computation | Probe::Own => Ok(compute()),
        }
    }

    /// Removes the files that probes made since the last call.
    ///
    /// # Errors
    /// `Io`.
    pub fn clean(&mut self) -> Result<()> {
        for number in 0..std::mem::take(&mut self.fresh) {
            self.scratch.remove(&format!("{FRESH_FILES}-{number}"))?;
        }
        Ok(())
    }

    fn fresh_file(&mut self, bytes: u64) -> Result<DirectFile> {
        if let Some(device) = self.device {
            return device.fresh();
        }
        let file = DirectFile::create(&self.scratch.join(&format!("{FRESH_FILES}-{}", self.fresh)), bytes);
        self.fresh += 1;
        file
    }

    fn limits(&self, operations: u64) -> Limits {
        Limits { time: self.sizes.probe_time, operations }
    }

    fn write_fresh(&mut self, request: usize, depth: usize, bytes: u64, synced: bool) -> Result<Rate> {
        let file = self.fresh_file(bytes)?;
        let request_bytes = request as u64;
        let driven = drive(depth, self.limits(bytes / request_bytes), |stream| {
            let mut content = Content::new(self.seed, stream, request)?;
            let file = &file;
            Ok(move |operation| {
                file.write(operation * request_bytes, content.next())?;
                if synced { file.sync() } else { Ok(()) }
            })
        })?;
        file.sync()?;
        Ok(rate(driven.operations, request_bytes, driven.started))
    }

    fn read(&self, request: usize, depth: usize, in_order: bool) -> Result<Rate> {
        let request_bytes = request as u64;
        let (file, bytes) = (&self.written, self.sizes.file_bytes);
        let operations = if in_order { bytes / request_bytes } else { u64::MAX >> 1 };
        let driven = drive(depth, self.limits(operations), |stream| {
            let mut buffer = Pages::ordinary(request)?;
            let mut random = Random::new(self.seed ^ self.runs, stream);
            Ok(move |operation| {
                let offset =
                    if in_order { operation * request_bytes } else { block_offset(&mut random, bytes) };
                file.read(offset, &mut buffer)
            })
        })?;
        Ok(rate(driven.operations, request_bytes, driven.started))
    }

    fn write_in_place(&self) -> Result<Rate> {
        let (file, bytes) = (&self.written, self.sizes.file_bytes);
        let driven = drive(RANDOM_DEPTH, self.limits(u64::MAX >> 1), |stream| {
            let mut content = Content::new(self.seed, stream, BLOCK_LEN)?;
            let mut random = Random::new(self.seed ^ self.runs, stream);
            Ok(move |_| file.write(block_offset(&mut random, bytes), content.next()))
        })?;
        file.sync()?;
        Ok(rate(driven.operations, BLOCK_BYTES, driven.started))
    }

    fn mixed(&self) -> Result<Rate> {
        let (file, bytes) = (&self.written, self.sizes.file_bytes);
        let driven = drive(RANDOM_DEPTH, self.limits(u64::MAX >> 1), |stream| {
            let mut content = Content::new(self.seed, stream, BLOCK_LEN)?;
            let mut random = Random::new(self.seed ^ self.runs, stream);
            let mut buffer = Pages::ordinary(BLOCK_LEN)?;
            Ok(move |_| {
                let offset = block_offset(&mut random, bytes);
                if random.below(10) < MIXED_READS_IN_TEN {
                    file.read(offset, &mut buffer)
                } else {
                    file.write(offset, content.next())
                }
            })
        })?;
        file.sync()?;
        Ok(rate(driven.operations, BLOCK_BYTES, driven.started))
    }

    fn copy(&mut self) -> Result<Rate> {
        let bytes = self.sizes.file_bytes;
        let target = self.fresh_file(bytes)?;
        let source = &self.written;
        let driven = drive(SEQUENTIAL_DEPTH, self.limits(chunks(bytes)), |_| {
            let mut buffer = Pages::ordinary(SEQUENTIAL_BYTES)?;
            let target = &target;
            Ok(move |chunk| {
                source.read(chunk * SEQUENTIAL_BYTES as u64, &mut buffer)?;
                target.write(chunk * SEQUENTIAL_BYTES as u64, &buffer)
            })
        })?;
        target.sync()?;
        Ok(rate(driven.operations, SEQUENTIAL_BYTES as u64, driven.started))
    }

    fn copy_on_write(&mut self) -> Result<Rate> {
        let log_bytes = self.sizes.sequential_bytes / 2;
        let log = self.fresh_file(log_bytes)?;
        let log_end = AtomicU64::new(0);
        let (file, bytes) = (&self.written, self.sizes.file_bytes);
        let driven = drive(RANDOM_DEPTH, self.limits(log_bytes / BLOCK_BYTES), |stream| {
            let mut content = Content::new(self.seed, stream, BLOCK_LEN)?;
            let mut random = Random::new(self.seed ^ self.runs, stream);
            let mut old = Pages::ordinary(BLOCK_LEN)?;
            let (log, log_end) = (&log, &log_end);
            Ok(move |_| {
                let offset = block_offset(&mut random, bytes);
                file.read(offset, &mut old)?;
                log.write(log_end.fetch_add(BLOCK_BYTES, Ordering::Relaxed), &old)?;
                file.write(offset, content.next())
            })
        })?;
        log.sync()?;
        file.sync()?;
        Ok(rate(driven.operations, BLOCK_BYTES, driven.started))
    }
}

/// Requests of sequential probes in so many bytes.
fn chunks(bytes: u64) -> u64 {
    bytes / SEQUENTIAL_BYTES as u64
}

fn rate(operations: u64, request_bytes: u64, started: Instant) -> Rate {
    let seconds = started.elapsed().as_secs_f64().max(1e-9);
    Rate { operations, bytes: operations * request_bytes, seconds }
}

/// Rounds of the computation, about a tenth of a second.
const ROUNDS: u64 = 50_000_000;

fn compute() -> Rate {
    let started = Instant::now();
    let mut random = Random::new(1, 1);
    let sum = (0..ROUNDS).fold(0, |sum: u64, _| sum ^ random.next());
    std::hint::black_box(sum);
    rate(ROUNDS, 0, started)
}
