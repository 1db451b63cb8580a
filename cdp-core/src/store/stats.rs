//! Figures of a store.

use super::Store;
use crate::{
    capture::{Mode, WriteCounts, pool::Pool},
    catalog::{TapRecord, VolumeInfo},
    error::{Result, SeqTime},
    group::Lag,
    index::PieceMeta,
    manifest::ManifestState,
    units::len_u64,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// How a volume is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    /// The store is the disk: reads and writes go through it.
    Inline,
    /// A tap captures writes whole.
    Data,
    /// A tap marks dirty blocks, and resync copies them.
    Bitmap,
    /// A tap captures writes whole while the last dirty blocks are copied.
    Resync,
}

impl CaptureMode {
    /// The spelling: `inline`, `data`, `bitmap` or `resync`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Data => "data",
            Self::Bitmap => "bitmap",
            Self::Resync => "resync",
        }
    }
}

/// How full the pool of the taps is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Captured bytes that wait in it.
    pub bytes: u64,
    /// Frames of 1 MiB that it has.
    pub frames: u64,
    /// Frames that are free.
    pub frames_free: u64,
}

impl PoolUse {
    pub(super) fn of(pool: &Pool) -> Self {
        let statistics = pool.statistics();
        Self {
            bytes: statistics.bytes_waiting,
            frames: len_u64(statistics.frames),
            frames_free: len_u64(statistics.frames_free),
        }
    }
}

/// Figures of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    /// Its name.
    pub name: String,
    /// How it is captured.
    pub mode: CaptureMode,
    /// Bytes captured that are not durable yet.
    pub lag_bytes: u64,
    /// Age of the oldest write that is not durable yet, nanoseconds.
    pub lag_ns: u64,
    /// Bytes that are known to differ from the source.
    pub dirty_bytes: u64,
    /// What its writes look like.
    pub writes: WriteCounts,
}

/// Figures of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that the store takes up on its storage.
    pub stored_bytes: u64,
    /// Bytes that the source wrote over the life of the store.
    pub source_bytes: u64,
    /// Bytes written to the storage on their behalf: frames, index, and what merging and thinning copied.
    pub written_bytes: u64,
    /// Bytes of the frames written since the store was opened: what the writes themselves cost, before index and sealing.
    pub frame_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Index runs.
    pub runs: u64,
    /// Bytes of the index runs.
    pub index_bytes: u64,
    /// Versions of blocks in the index.
    pub versions: u64,
    /// Points that can be opened: seqs of the exact range, and bookmarks.
    pub points: u64,
    /// From here on every state can be opened, gaps aside.
    pub horizon: SeqTime,
    /// How far what is durable lies behind: the recovery point objective at this moment.
    pub lag: Lag,
    /// The pool of the taps; `None` before the first tap.
    pub pool: Option<PoolUse>,
    /// Bytes of data that waited for the end of an interval since the store was opened.
    pub coalesced_bytes: u64,
    /// Bytes of data that were left of them; see [`Stats::coalescing_ratio`].
    pub coalesced_stored_bytes: u64,
    /// The volumes.
    pub volumes: Vec<VolumeStats>,
}

impl Stats {
    /// Bytes that coalescing took in for each byte that it let through; 1 without coalescing.
    #[expect(clippy::cast_precision_loss, reason = "ratios are read with three digits")]
    pub fn coalescing_ratio(&self) -> f64 {
        match self.coalesced_stored_bytes {
            0 => 1.0,
            stored => self.coalesced_bytes as f64 / stored as f64,
        }
    }
}

impl Store {
    /// Figures of the store.
    ///
    /// # Errors
    /// `Io`.
    pub fn stats(&self) -> Result<Stats> {
        let group = &self.inner.group;
        let view = group.view();
        let in_memory: usize = view.memtables.iter().map(|table| table.len()).sum();
        let in_runs: u64 = view.runs.iter().map(|run| run.meta().entries).sum();
        let (counters, segments) = {
            let manifest = group.manifest.lock();
            let state: &ManifestState = manifest.state();
            (state.counters, state.segments.len() + state.compacted.len())
        };
        let outline = group.outline();
        let kept = len_u64(outline.kept().count());
        let unsealed = group.unsealed_source_bytes();
        let newest = self.newest().seq;
        let lag = group.lag();
        let Lag { bytes: lag_bytes, age_ns: lag_ns } = lag;
        let volumes = self.volumes();
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Stats {
            stored_bytes: self.stored_bytes()?,
            source_bytes: counters.source_bytes.saturating_add(unsealed),
            written_bytes: counters.written_bytes.saturating_add(total(&group.totals.written_bytes)),
            frame_bytes: total(&group.totals.frame_bytes),
            segments: len_u64(segments),
            runs: len_u64(view.runs.len()),
            index_bytes: view.runs.iter().flat_map(|run| &run.meta().pieces).map(PieceMeta::bytes).sum(),
            versions: in_runs + len_u64(in_memory),
            points: newest.get().saturating_sub(outline.full.from.seq.get()) + 1 + kept,
            horizon: outline.full.from,
            lag,
            pool: group.capture().map(|capture| PoolUse::of(&capture.pool)),
            coalesced_bytes: total(&group.totals.coalesced_bytes),
            coalesced_stored_bytes: total(&group.totals.coalesced_stored_bytes),
            volumes: volumes
                .into_iter()
                .map(|volume| {
                    let (mode, dirty_bytes) = self.capture_of(&volume);
                    let writes = group.figures(volume.id).counts();
                    VolumeStats { name: volume.name, mode, lag_bytes, lag_ns, dirty_bytes, writes }
                })
                .collect(),
        })
    }

    /// How a volume is captured, and what of it is known to differ from its source, bytes. Beside an owner the record tells.
    fn capture_of(&self, volume: &VolumeInfo) -> (CaptureMode, u64) {
        let group = &self.inner.group;
        if let Some(tap) = group.capture().and_then(|capture| capture.tap(volume.id)) {
            let map = tap.map();
            let dirty = map.weight().saturating_mul(map.shape().granularity().bytes()).min(volume.bytes);
            let mode = match tap.mode() {
                Mode::Data => CaptureMode::Data,
                Mode::Bitmap => CaptureMode::Bitmap,
                Mode::Resync => CaptureMode::Resync,
            };
            return (mode, dirty);
        }
        match group.catalog.read().tap(volume.id) {
            None => (CaptureMode::Inline, 0),
            Some(TapRecord::Equal) => (CaptureMode::Data, 0),
            Some(TapRecord::Attached | TapRecord::Differs) => (CaptureMode::Bitmap, volume.bytes),
        }
    }
}
