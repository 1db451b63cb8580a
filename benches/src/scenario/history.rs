//! The store with a history that reads, points, restores and reopening are measured on.
//!
//! Its volume is written once in address order, which ends at the point `ordered`; then blocks are overwritten at random, with the
//! point `scattered` after half of them. Every block has data at each of the three points, so that no read is answered with zeroes.

use super::Bench;
use crate::{
    drive::{Limits, drive},
    error::{Context, Error, Result},
    random::{Content, Random, block_offset},
};
use cdp_core::{
    CreateOptions, OpenOptions, Store, Volume,
    units::{BLOCK_LEN, Seq, TimeNs},
};
use std::time::Duration;

/// Name of its directory.
pub const STORE: &str = "history";
/// Bytes of the writes that fill the volume.
const FILL_BYTES: usize = 64 << 10;

/// Longest wait for merges.
const MERGE_PATIENCE: Duration = Duration::from_secs(15);

/// Its points.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// After the volume was filled.
    pub ordered: Seq,
    /// After half of the overwrites.
    pub scattered: Seq,
    /// The end.
    pub newest: Seq,
    /// Time of `ordered`.
    pub from: TimeNs,
    /// Time of `newest`.
    pub to: TimeNs,
    /// Versions of blocks that were overwritten at random.
    pub overwrites: u64,
}

impl Bench<'_> {
    /// The history; builds it when it is needed first.
    pub fn history(&mut self) -> Result<History> {
        if let Some(history) = self.history {
            return Ok(history);
        }
        let history = build(self)?;
        self.scratch.settle()?;
        self.history = Some(history);
        Ok(history)
    }
}

fn build(bench: &Bench<'_>) -> Result<History> {
    let sizes = &bench.sizes;
    let create = CreateOptions { volume: "disk".into(), bytes: sizes.volume_bytes };
    let store = Store::create(bench.new_storage(STORE)?, &create, OpenOptions::default());
    let store = store.when("create a store")?;
    let runner = store.start_runner().when("start its threads")?;
    let volume = store.volume(None).when("find its volume")?;
    let fill = sizes.volume_bytes / FILL_BYTES as u64;
    let filled = drive(1, Limits { time: sizes.build_time, operations: fill }, |stream| {
        let mut content = Content::new(bench.seed, stream, FILL_BYTES)?;
        let volume = &volume;
        Ok(move |operation| {
            let offset = operation * FILL_BYTES as u64;
            volume.write(offset, content.next()).when("fill the volume").map(drop)
        })
    })?;
    if filled.operations < fill {
        let text = format!(
            "the volume of {} MiB could not be filled within {} s: this device is too slow for the profile",
            sizes.volume_bytes >> 20,
            sizes.build_time.as_secs()
        );
        return Err(Error::Usage(text));
    }
    let ordered = volume.flush().when("flush")?;
    let half = sizes.overwrites / 2;
    let first = overwrite(bench, &volume, 1, half)?;
    let scattered = volume.flush().when("flush")?;
    let second = overwrite(bench, &volume, 2, half)?;
    let newest = volume.flush().when("flush")?;
    wait_for_merges(&store, MERGE_PATIENCE)?;
    drop(runner);
    let time = |seq| {
        store.resolve(&cdp_core::Point::Seq(seq)).when("find the time of a point").map(|point| point.time)
    };
    let (from, to) = (time(ordered)?, time(newest)?);
    store.close().when("close")?;
    let overwrites = first + second;
    Ok(History { ordered, scattered, newest, from, to, overwrites })
}

fn overwrite(bench: &Bench<'_>, volume: &Volume, stream: u64, writes: u64) -> Result<u64> {
    let limits = Limits { time: bench.sizes.build_time, operations: writes };
    let driven = drive(1, limits, |_| {
        let mut content = Content::new(bench.seed, stream, BLOCK_LEN)?;
        let mut random = Random::new(bench.seed, stream);
        Ok(move |_| {
            let offset = block_offset(&mut random, volume.bytes());
            volume.write(offset, content.next()).when("overwrite the volume").map(drop)
        })
    })?;
    Ok(driven.operations)
}

/// Waits until the number of index runs rests, as in a store that has not just been written in a few seconds.
pub fn wait_for_merges(store: &Store, patience: Duration) -> Result<()> {
    let started = std::time::Instant::now();
    let mut before = None;
    while started.elapsed() < patience {
        let runs = store.stats().when("count")?.runs;
        if before == Some(runs) {
            break;
        }
        before = Some(runs);
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}
