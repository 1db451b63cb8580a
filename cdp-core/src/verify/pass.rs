//! A check of a whole store, in steps: what there is to look at is listed when it begins, and looked at piece by piece.
//!
//! Invariant *no false alarm*: the store goes on meanwhile, and what is merged or thinned away is gone then. What of such a structure is missing is
//! no damage, as long as the manifest has let go of it by the time it was looked at.

use super::{Check, CheckReport, pages_of};
use crate::{
    error::Result,
    format::{
        compacted::{CHUNK_LEN, CompactedSegment},
        frame_table::FrameEntry,
        manifest::RunId,
    },
    index::RunMeta,
    job::{Job, JobStep},
    manifest::{ManifestState, SegmentState},
    restore::Progress,
    store::{Pace, Store},
    units::{ExtentId, len_u64},
};
use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    sync::Arc,
};

/// Frames that are looked at in a step.
const FRAMES_A_STEP: usize = 4;
/// Chunks of a compacted segment that are looked at in a step.
const CHUNKS_A_STEP: usize = 64;

/// A structure that is to be looked at.
enum Item {
    /// Superblock, manifest, and what is known to be lost.
    Top,
    Segment(Box<SegmentState>),
    /// The frames of a segment from a place in its table on, and where the one before ended.
    Frames(Box<SegmentState>, Arc<Vec<FrameEntry>>, usize, u64),
    Compacted(CompactedSegment),
    /// The payload of a compacted segment from a chunk on, with the checksums of all.
    Chunks(CompactedSegment, Arc<Vec<u32>>, usize),
    Map(ExtentId),
    Reserve(ExtentId, u64),
    Run(Box<RunMeta>),
}

impl Item {
    /// How much there is to look at, bytes; about.
    fn bytes(&self, deep: bool) -> u64 {
        match self {
            Self::Segment(segment) => segment.sealed.as_ref().map_or(1, |sealed| sealed.frames_end.max(1)),
            Self::Frames(_, entries, from, _) => entries[*from..].iter().map(|entry| entry.bytes).sum(),
            Self::Compacted(segment) if deep => segment.bytes,
            Self::Reserve(_, bytes) if deep => *bytes,
            Self::Chunks(segment, _, from) => segment.table_at().saturating_sub(len_u64(from * CHUNK_LEN)),
            Self::Run(run) => len_u64(pages_of(run).count()) * super::PAGE_BYTES,
            Self::Compacted(_) => 2 * super::PAGE_BYTES,
            Self::Top | Self::Map(_) | Self::Reserve(..) => 1,
        }
    }

    /// Whether the store still has it.
    fn is_there(&self, store: &Store) -> bool {
        let group = &store.inner.group;
        let has = |has: &dyn Fn(&ManifestState) -> bool| has(group.manifest.lock().state());
        match self {
            Self::Top => true,
            Self::Segment(segment) | Self::Frames(segment, ..) => has(&|state| {
                let extent = segment.named.extent;
                state.segments.get(&extent).is_some_and(|now| now.named == segment.named)
            }),
            Self::Compacted(segment) | Self::Chunks(segment, ..) => {
                has(&|state| state.compacted.contains_key(&segment.extent))
            }
            Self::Map(extent) => group.catalog.read().map_extents().any(|map| map == *extent),
            Self::Reserve(extent, _) => {
                has(&|state| state.reserve.is_some_and(|(reserve, _)| reserve == *extent))
            }
            Self::Run(run) => has(&|state| RunId::of(run).is_none_or(|id| state.runs.contains_key(&id))),
        }
    }
}

/// A check of a store under way: see [`Store::check`]. Dropped, it has changed nothing.
pub struct CheckJob {
    store: Store,
    deep: bool,
    report: CheckReport,
    left: VecDeque<Item>,
    /// Pages of runs that were in use when it began.
    live: BTreeSet<(ExtentId, u64)>,
    structures: (u64, u64),
    bytes: (u64, u64),
    pace: Pace,
    complete: bool,
}

impl Store {
    /// As [`Store::check`], in steps.
    ///
    /// # Errors
    /// None yet: those that keep it from looking are met by a step.
    pub fn check_job(&self, deep: bool) -> Result<CheckJob> {
        let inner = &self.inner;
        let mut report = CheckReport {
            damaged: inner.recovery.damage.clone(),
            tail_frames: inner.recovery.tail_frames,
            tail_bytes: inner.recovery.tail_bytes,
        };
        let state = inner.group.manifest.lock().state().clone();
        report.damaged.extend(state.lost.iter().map(|lost| lost.damage.clone()));
        let live = state.runs.values().flat_map(pages_of).collect();
        let structures = len_u64(state.segments.len() + state.compacted.len() + state.runs.len());
        let mut left = VecDeque::from([Item::Top]);
        left.extend(state.segments.into_values().map(|segment| Item::Segment(Box::new(segment))));
        left.extend(state.compacted.into_values().map(Item::Compacted));
        left.extend(inner.group.catalog.read().map_extents().map(Item::Map));
        left.extend(state.reserve.map(|(extent, bytes)| Item::Reserve(extent, bytes)));
        left.extend(state.runs.into_values().map(|run| Item::Run(Box::new(run))));
        let bytes = left.iter().map(|item| item.bytes(deep)).sum();
        Ok(CheckJob {
            store: self.clone(),
            deep,
            report,
            left,
            live,
            structures: (0, structures),
            bytes: (0, bytes),
            pace: Pace::new(None),
            complete: false,
        })
    }

    /// Verifies every structure of the store; with `deep` every payload too. `progress` counts structures.
    ///
    /// # Errors
    /// Those that keep it from looking; damage is in the report.
    pub fn check(&self, deep: bool, progress: &mut dyn FnMut(Progress)) -> Result<CheckReport> {
        let mut job = self.check_job(deep)?;
        job.run(progress, &|| false)?;
        Ok(job.into_report())
    }
}

impl CheckJob {
    /// Holds it to so many bytes of the store a second from now on; `None`, as it begins: no bound.
    pub fn limit_rate(&mut self, bytes_per_second_max: Option<u64>) {
        self.pace = Pace::new(bytes_per_second_max);
        self.pace.begin_at(self.bytes.0);
    }

    /// What it has found so far, ascending once it is done.
    pub fn report(&self) -> &CheckReport {
        &self.report
    }

    /// What it has found.
    pub fn into_report(self) -> CheckReport {
        self.report
    }

    /// Structures that were looked at, and how many there are.
    pub fn structures(&self) -> Progress {
        Progress { done: self.structures.0, total: self.structures.1 }
    }

    /// Steps it to its end, or until it is cancelled; returns whether it came to the end.
    pub(super) fn run(
        &mut self,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<bool> {
        loop {
            let before = self.structures;
            let stepped = self.step()?;
            if self.structures != before {
                progress(self.structures());
            }
            match stepped {
                JobStep::Done => return Ok(true),
                JobStep::Wait(time) => std::thread::sleep(time),
                JobStep::More => {}
            }
            if self.structures != before && cancelled() {
                return Ok(false);
            }
        }
    }

    /// Looks at one structure, or a part of it; returns what is left of it.
    fn look(&self, check: &mut Check<'_>, item: &Item) -> Result<Option<Item>> {
        match item {
            Item::Top => check.top()?,
            Item::Segment(segment) => {
                let entries = check.segment(segment)?;
                check.superseded(segment, &self.live)?;
                if !entries.is_empty() {
                    return Ok(Some(Item::Frames(segment.clone(), Arc::new(entries), 0, super::PAGE_BYTES)));
                }
            }
            Item::Frames(segment, entries, from, end) => {
                let Some(sealed) = &segment.sealed else { return Ok(None) };
                let (mut next, mut end) = (*from, *end);
                for entry in entries[*from..].iter().take(FRAMES_A_STEP) {
                    check.frame_of(sealed, segment.named.uuid.short(), entry, end)?;
                    (next, end) = (next + 1, entry.offset + entry.bytes);
                }
                if next < entries.len() {
                    return Ok(Some(Item::Frames(segment.clone(), entries.clone(), next, end)));
                }
            }
            Item::Compacted(segment) => {
                let checksums = check.compacted(segment)?;
                if !checksums.is_empty() {
                    return Ok(Some(Item::Chunks(*segment, Arc::new(checksums), 0)));
                }
            }
            Item::Chunks(segment, checksums, from) => {
                let next = checksums.len().min(from + CHUNKS_A_STEP);
                check.chunks(segment, *from, &checksums[*from..next])?;
                if next < checksums.len() {
                    return Ok(Some(Item::Chunks(*segment, checksums.clone(), next)));
                }
            }
            Item::Map(extent) => check.map(*extent)?,
            Item::Reserve(extent, bytes) => check.reserve(*extent, *bytes)?,
            Item::Run(run) => {
                let run = RunMeta::clone(run);
                check.run(&Arc::new(self.store.inner.group.shared.open_run(run)))?;
            }
        }
        Ok(None)
    }
}

impl Job for CheckJob {
    fn step(&mut self) -> Result<JobStep> {
        if let Some(wait) = self.pace.wait(self.bytes.0).filter(|_| !self.left.is_empty()) {
            return Ok(JobStep::Wait(wait));
        }
        let Some(item) = self.left.pop_front() else {
            if !mem::replace(&mut self.complete, true) {
                let damaged = &mut self.report.damaged;
                damaged.sort_by_key(|damage| (damage.extent, damage.offset, damage.length));
                damaged.dedup_by_key(|damage| (damage.extent, damage.offset, damage.length));
            }
            return Ok(JobStep::Done);
        };
        let report = mem::take(&mut self.report);
        let before = report.damaged.len();
        let store = self.store.clone();
        let mut check = Check { shared: &store.inner.group.shared, deep: self.deep, report };
        let outcome = self.look(&mut check, &item);
        self.report = check.report;
        let is_suspect = outcome.is_err() || self.report.damaged.len() > before;
        let rest = match outcome {
            // It was let go of while it was looked at.
            _ if is_suspect && !item.is_there(&self.store) => {
                self.report.damaged.truncate(before);
                None
            }
            Ok(rest) => rest,
            Err(error) => {
                self.left.clear();
                self.complete = true;
                return Err(error);
            }
        };
        let counts = matches!(
            item,
            Item::Segment(_) | Item::Frames(..) | Item::Compacted(_) | Item::Chunks(..) | Item::Run(_)
        );
        let (before, behind) = (item.bytes(self.deep), rest.as_ref().map_or(0, |rest| rest.bytes(self.deep)));
        self.bytes.0 += before - behind.min(before);
        match rest {
            Some(rest) => self.left.push_front(rest),
            None => self.structures.0 += u64::from(counts),
        }
        Ok(JobStep::More)
    }

    fn progress(&self) -> Progress {
        Progress { done: self.bytes.0.min(self.bytes.1), total: self.bytes.1 }
    }
}
