//! A store that captures beside a production disk in memory: what the scenarios of taps share.
//!
//! The disk lies in memory so that what is measured is the tap and the store, and not the disk that production would wait for anyway.

use super::Bench;
use crate::{
    error::{Context, Error, Result},
    pages::Pages,
    random::Random,
};
use cdp_core::{
    CreateOptions, OpenOptions, Runner, SourceReader, SourceState, Store, Tap, TapOptions,
    io::Storage,
    units::{BLOCK_BYTES, BLOCK_LEN},
};
use std::{
    hint::black_box,
    io,
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

/// Bytes of the disk that lie under one lock.
const PART_BYTES: usize = 1 << 20;
/// Blocks that are compared at the end.
const COMPARED: u64 = 1000;

/// A disk in memory, all zeroes at first.
pub struct MemoryDisk {
    parts: Vec<RwLock<Vec<u8>>>,
}

impl MemoryDisk {
    /// A disk of `bytes` bytes, a multiple of 1 MiB.
    pub fn new(bytes: u64) -> Self {
        let parts = bytes / PART_BYTES as u64;
        let part = || {
            // Written once, so that no write of a measurement waits for the first touch of its memory; memory that is asked for as zeroes
            // would not be.
            let mut memory = black_box(vec![1; PART_BYTES]);
            memory.fill(0);
            RwLock::new(memory)
        };
        Self { parts: (0..parts).map(|_| part()).collect() }
    }

    /// Its size, bytes.
    pub fn bytes(&self) -> u64 {
        (self.parts.len() * PART_BYTES) as u64
    }

    /// Writes `data`, which does not cross a multiple of 1 MiB.
    ///
    /// # Errors
    /// `InvalidInput` past the end.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (part, from) = self.part(offset)?;
        let mut part = part.write().unwrap_or_else(PoisonError::into_inner);
        part.get_mut(from..from + data.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(data);
        Ok(())
    }

    fn part(&self, offset: u64) -> io::Result<(&RwLock<Vec<u8>>, usize)> {
        let beyond = || io::Error::from(io::ErrorKind::InvalidInput);
        let part = usize::try_from(offset / PART_BYTES as u64).map_err(|_| beyond())?;
        let from = usize::try_from(offset % PART_BYTES as u64).map_err(|_| beyond())?;
        Ok((self.parts.get(part).ok_or_else(beyond)?, from))
    }
}

impl SourceReader for MemoryDisk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let (part, from) = self.part(at)?;
            let part = part.read().unwrap_or_else(PoisonError::into_inner);
            let length = rest.len().min(PART_BYTES - from);
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&part[from..from + length]);
            (at, rest) = (at + length as u64, later);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A store with a tap at work.
pub struct Tapped {
    /// The store.
    pub store: Store,
    /// The tap.
    pub tap: Tap,
    /// The production disk.
    pub disk: Arc<MemoryDisk>,
    runner: Runner,
}

impl Tapped {
    /// Makes a store on `storage` that captures from a new disk of `bytes` bytes.
    ///
    /// # Errors
    /// `Engine`.
    pub fn start(storage: Arc<dyn Storage>, bytes: u64) -> Result<Self> {
        let create = CreateOptions { volume: "disk".into(), bytes };
        let store = Store::create(storage, &create, OpenOptions::default()).when("create a store")?;
        let runner = store.start_runner().when("start its threads")?;
        let disk = Arc::new(MemoryDisk::new(bytes));
        let options = TapOptions { source: SourceState::Equal, ..TapOptions::default() };
        let tap = store.tap("disk", disk.clone(), options).when("tap a volume")?;
        Ok(Self { store, tap, disk, runner })
    }

    /// Writes to the disk and captures it, as a host does; returns how long the capture took.
    ///
    /// # Errors
    /// `Io`, `Engine`.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<Duration> {
        self.disk.write(offset, data).when("write to the disk in memory")?;
        let started = Instant::now();
        self.tap.capture(offset, data).when("capture")?;
        Ok(started.elapsed())
    }

    /// Waits until nothing is missing and everything is durable; returns how long that took.
    ///
    /// # Errors
    /// `Engine`; `Usage` when it takes longer than `patience`.
    pub fn wait_until_whole(&self, patience: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let stats = self.tap.stats();
            if self.tap.is_whole() && stats.pool_bytes == 0 && stats.dirty_bytes == 0 {
                self.store.flush().when("flush")?;
                return Ok(started.elapsed());
            }
            if started.elapsed() > patience {
                let text = format!("a tap was not whole again after {} s: {stats:?}", patience.as_secs());
                return Err(Error::Usage(text));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Compares some blocks of the newest state with the disk, and closes everything.
    ///
    /// # Errors
    /// `Engine`; `Usage` when a block differs: that is a defect of the engine.
    pub fn finish(self, seed: u64) -> Result<()> {
        let volume = self.store.volume(None).when("find its volume")?;
        let mut random = Random::new(seed, 77);
        let mut stored = Pages::ordinary(BLOCK_LEN)?;
        let mut real = Pages::ordinary(BLOCK_LEN)?;
        for _ in 0..COMPARED {
            let offset = random.below(volume.bytes() / BLOCK_BYTES) * BLOCK_BYTES;
            volume.read(offset, &mut stored).when("read the newest state")?;
            self.disk.read_at(offset, &mut real).when("read the disk in memory")?;
            if stored[..] != real[..] {
                let text =
                    format!("the store differs from the disk at byte {offset}: a defect of the engine");
                return Err(Error::Usage(text));
            }
        }
        self.tap.detach().when("end a tap")?;
        drop(self.runner);
        drop(volume);
        self.store.close().when("close")
    }
}

impl Bench<'_> {
    /// Bytes of the disk in memory of this profile.
    pub fn disk_bytes(&self) -> u64 {
        (self.sizes.volume_bytes / 2).next_multiple_of(PART_BYTES as u64)
    }
}
