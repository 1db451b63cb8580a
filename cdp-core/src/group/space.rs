//! The bound by space: what the store takes up, and what may still be taken.
//!
//! A store with a bound never exceeds it. Below the bound lies a *margin*: writes stop before it, metadata near its end, and thinning
//! may use all of it, so that there is always room to make room. Segments of a bounded store are a thirty-second of the bound, so that
//! little of it is taken by what is made ready.
//!
//! Apart from the bound, a store whose policy can drop anything keeps a *reserve*: an extent without content, which is given up when the
//! storage itself is full.

use super::{CurrentSegment, Group};
use crate::{
    error::{Error, Result},
    format::{PAGE_BYTES, manifest::Edit},
    limits::{RESERVE_BYTES_MIN, SEGMENT_BYTES_MIN, SEGMENT_BYTES_USUAL_MIN, SEGMENT_CUT_BYTES_MIN},
    manifest::{ManifestLog, ManifestState},
    retention::{OnShortage, Policy},
    units::{ExtentId, TimeNs},
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The reserve takes up at most one part in so many of the store.
const RESERVE_SHARE: u64 = 16;

/// A segment that spans much time ends when it is one part in so many of the store.
const CUT_SHARE: u64 = 64;

/// What room is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Payload.
    Data,
    /// Records without payload.
    Metadata,
    /// Saving what would be lost, and making room.
    Rescue,
}

/// The bound of a group.
pub(crate) struct Space {
    /// Bytes; the greatest number when there is no bound.
    bound: AtomicU64,
    /// Whether history may be dropped to keep to it.
    prunes: AtomicBool,
    /// Whether no room could be made although history may be dropped.
    stopped: AtomicBool,
    /// Whether there should be a reserve: a policy that drops nothing has no use for one.
    reserves: AtomicBool,
    /// Time that a segment may span once it is large enough, nanoseconds.
    slice: AtomicU64,
    /// Bytes of extents that wait for their readers before they go.
    pub(super) doomed: AtomicU64,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            bound: AtomicU64::new(u64::MAX),
            prunes: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            reserves: AtomicBool::new(false),
            slice: AtomicU64::new(u64::MAX),
            doomed: AtomicU64::new(0),
        }
    }
}

impl Group {
    /// Takes from a policy the bound by space, whether history may be dropped to keep to it, and whether there is a use for a reserve.
    pub fn set_bound(&self, policy: &Policy) {
        self.space.bound.store(policy.max_bytes.unwrap_or(u64::MAX), Ordering::Release);
        self.space.prunes.store(policy.on_shortage == OnShortage::Prune, Ordering::Release);
        self.space.stopped.store(false, Ordering::Release);
        self.space.reserves.store(!policy.keeps_everything(), Ordering::Release);
        self.space.slice.store(policy.slice_ns().unwrap_or(u64::MAX), Ordering::Release);
    }

    /// The bound by space.
    pub fn bound(&self) -> Option<u64> {
        Some(self.space.bound.load(Ordering::Acquire)).filter(|bound| *bound != u64::MAX)
    }

    /// Whether history may be dropped to keep to the bound.
    pub fn prunes(&self) -> bool {
        self.space.prunes.load(Ordering::Acquire)
    }

    /// Notes whether making room had any success.
    pub fn note_room(&self, made: bool) {
        self.space.stopped.store(!made, Ordering::Release);
    }

    /// Whether the bound stands, and what would exceed it has to be refused.
    pub(super) fn is_stopped(&self) -> bool {
        !self.prunes() || self.space.stopped.load(Ordering::Acquire)
    }

    /// Space of the largest segment, bytes.
    pub(super) fn segment_bytes_max(&self) -> u64 {
        let whole = self.shared.tuning.segment_bytes;
        self.bound().map_or(whole, |bound| whole.min(share_of(bound, 32)))
    }

    /// Space of the next segment, bytes. Where history is dropped, segments grow with the store, so that its reserve has room for what is
    /// alive in one; where the reserve had to be given up, a small one leaves the rest of it to thinning.
    pub(super) fn next_segment_bytes(&self, log: &ManifestLog) -> u64 {
        let most = self.segment_bytes_max();
        if !self.space.reserves.load(Ordering::Acquire) {
            return most;
        }
        match log.state().reserve {
            None => most.min(SEGMENT_BYTES_MIN),
            Some(_) => most.min(share_of(self.used(log), RESERVE_SHARE).max(SEGMENT_BYTES_USUAL_MIN)),
        }
    }

    /// Bytes from which on a segment that spans too much time is at its end. What keeps all of a segment is its youngest write, so one that
    /// holds days would keep them for days too long; and a store that takes up little has few of them to lose in.
    pub(super) fn cut_bytes(&self, log: &ManifestLog) -> u64 {
        (self.used(log) / CUT_SHARE).max(SEGMENT_CUT_BYTES_MIN.min(self.segment_bytes_max() / 4))
    }

    /// Whether a segment is at its end, though there is room in it.
    pub(super) fn is_ripe(&self, current: &CurrentSegment, newest: TimeNs) -> bool {
        let span = newest.get().saturating_sub(current.first_time.get());
        current.offset >= current.cut_bytes && span >= self.space.slice.load(Ordering::Acquire)
    }

    /// The part of the bound that writes leave alone.
    pub fn margin(&self) -> u64 {
        self.bound().map_or(0, |bound| bound / 8)
    }

    /// How much of what writes may take is taken up, in thousandths; `None` without a bound.
    pub fn fill(&self) -> Option<u64> {
        let may_take = u128::from(self.bound()? - self.margin()).max(1);
        Some(u64::try_from(u128::from(self.used_bytes()) * 1000 / may_take).unwrap_or(u64::MAX))
    }

    /// What the store takes up: every extent, those that are about to go included.
    pub fn used_bytes(&self) -> u64 {
        let manifest = self.manifest.lock();
        match &*manifest {
            super::Manifest::Owner(log) => self.used(log),
            super::Manifest::Reader(state) => self.used_of(state),
        }
    }

    fn used(&self, log: &ManifestLog) -> u64 {
        // A manifest that is rolled over stands beside the new one for a moment.
        self.used_of(log.state()) + 2 * self.size_of(log.extent(), 0)
    }

    fn used_of(&self, state: &ManifestState) -> u64 {
        let mut used = self.space.doomed.load(Ordering::Acquire) + 4 * 4096;
        for (extent, segment) in &state.segments {
            used += match &segment.sealed {
                Some(sealed) if sealed.extent_bytes > 0 => sealed.extent_bytes,
                Some(sealed) => self.size_of(*extent, sealed.frames_end),
                // A write that is longer than a segment makes it longer.
                _ => self.size_of(*extent, segment.named.bytes),
            };
        }
        let own = |run: &crate::index::RunMeta| -> u64 {
            let pieces = run.pieces.iter().filter(|piece| !state.segments.contains_key(&piece.extent));
            pieces.map(|piece| piece.offset + piece.bytes()).sum()
        };
        used += state.runs.values().map(own).sum::<u64>();
        used += state.compacted.values().map(|segment| segment.bytes).sum::<u64>();
        used + state.reserve.map_or(0, |(_, bytes)| bytes)
    }

    fn size_of(&self, extent: ExtentId, at_least: u64) -> u64 {
        self.shared
            .handle(extent)
            .and_then(|handle| handle.size().map_err(|_| Error::NoSpace))
            .unwrap_or(0)
            .max(at_least)
    }

    /// Refuses what would exceed the bound.
    ///
    /// # Errors
    /// `OverBound`.
    pub(super) fn check_bound(&self, log: &ManifestLog, bytes: u64, purpose: Purpose) -> Result<()> {
        let Some(bound) = self.bound() else { return Ok(()) };
        let left_alone = match purpose {
            Purpose::Data => self.margin(),
            Purpose::Metadata => self.margin() / 4,
            Purpose::Rescue => return Ok(()),
        };
        let used = self.used(log);
        if used.saturating_add(bytes) > bound - left_alone {
            return Err(Error::OverBound { used, bound });
        }
        Ok(())
    }

    /// Makes the reserve as large as it should be; without room for it there is none.
    pub fn keep_reserve(&self) -> Result<()> {
        let mut manifest = self.manifest.lock();
        match self.adapt_reserve(manifest.log()?) {
            Err(Error::NoSpace | Error::OverBound { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    /// Makes the reserve as large as what the store takes up asks for, in its place in the manifest.
    pub(super) fn adapt_reserve(&self, manifest: &mut ManifestLog) -> Result<()> {
        let wanted = self.space.reserves.load(Ordering::Acquire);
        let size = if wanted { self.reserve_bytes(manifest) } else { 0 };
        let now = manifest.state().reserve;
        let has = now.map_or(0, |(_, bytes)| bytes);
        if has >= size / 4 * 3 && (has > 0) == (size > 0) && has <= 2 * size {
            return Ok(());
        }
        let storage = &self.shared.storage;
        let mut edits = Vec::new();
        let mut made = None;
        if size > 0 {
            self.check_bound(manifest, size, Purpose::Metadata)?;
            let extent = manifest.allocate_extent();
            let failed = |error| Error::io("create", storage.describe(extent), error);
            let created = storage.create(extent, size).and_then(|handle| handle.sync());
            created.inspect_err(|_| drop(storage.remove(extent))).map_err(failed)?;
            storage.sync_names().map_err(|error| Error::io("sync names of", "the store", error))?;
            made = Some(extent);
        }
        edits.push(Edit::Reserve(made.map(|extent| (extent, size))));
        self.append_edits(manifest, &edits)?;
        self.totals.taken_bytes.fetch_add(size, Ordering::Relaxed);
        if let Some((old, bytes)) = now {
            self.remove_extents(&[old]);
            self.totals.freed_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What has to be at hand to make room on a full storage: two segments, one for survivors and one for what is written meanwhile, the
    /// index that is rewritten, and a manifest.
    fn reserve_bytes(&self, log: &ManifestLog) -> u64 {
        let (used, state) = (self.used(log), log.state());
        let index: u64 = state.runs.values().map(crate::index::RunMeta::bytes).sum();
        let sealed = state.segments.values().filter_map(|segment| segment.sealed.as_ref());
        let sizes = sealed.map(|sealed| sealed.extent_bytes.max(sealed.frames_end));
        let largest = sizes.chain(state.compacted.values().map(|segment| segment.bytes)).max().unwrap_or(0);
        let manifest = 2 * self.size_of(log.extent(), 0);
        let needed = 2 * largest + index + manifest.max(RESERVE_BYTES_MIN);
        // A small store would be half reserve.
        let most = (used / RESERVE_SHARE).max(RESERVE_BYTES_MIN.min(2 * self.shared.tuning.segment_bytes));
        needed.min(most) / PAGE_BYTES * PAGE_BYTES
    }

    /// Gives the reserve up; whether there was one. The name goes first: a manifest may name a reserve that is not there.
    pub fn give_up_reserve(&self) -> Result<bool> {
        let mut manifest = self.manifest.lock();
        let manifest = manifest.log()?;
        let Some((extent, bytes)) = manifest.state().reserve else { return Ok(false) };
        let storage = &self.shared.storage;
        let _ = storage.remove(extent);
        storage.sync_names().map_err(|error| Error::io("sync names of", "the store", error))?;
        self.append_edits(manifest, &[Edit::Reserve(None)])?;
        self.totals.freed_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(true)
    }
}

/// A segment that is one part in `parts` of `bytes`.
fn share_of(bytes: u64, parts: u64) -> u64 {
    (bytes / parts).max(SEGMENT_BYTES_MIN) / PAGE_BYTES * PAGE_BYTES
}
