//! Scrubbing: every byte of the store is checked, and payload that rotted is written anew where a source still has it.
//!
//! The index holds a keyed digest of each version. What a source has now at the place of a damaged version is that version if it has the
//! digest, whole or in those of its sectors that were not overwritten since; then the same bytes go to the same place, and every point that needs them is exact again. Nothing else changes: a crash in the middle
//! leaves what was damaged damaged. Where no source has the content the damage stays, and every read of it says so.
//!
//! Invariant *same bytes*: only bytes with the digest of the version are written, and only where that version lies.
//! Invariant *held view*: the runs that name a place are held until it was written, so that its segment does not go meanwhile.

use super::{Check, CheckJob, CheckReport};
use crate::{
    error::{Damage, Error, Result},
    group::Shared,
    index::{Content, Entry, Scan, View},
    io::AlignedBuf,
    job::{self, Job, JobStep},
    restore::Progress,
    resync::SourceReader,
    sabotage::Switch,
    store::{Inner, Pace, Store},
    units::{BLOCK_BYTES, BLOCK_LEN, ExtentId, SECTOR_BYTES, SECTOR_LEN, VolumeId, to_len},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Range,
    sync::Arc,
};

/// Versions that are mended in one go; what is left is found by the next.
const VERSIONS_MAX: usize = 1 << 18;
/// Bytes of a page of the storage: what is written at a time.
const PAGE_BYTES: u64 = crate::format::PAGE_BYTES;

/// What a scrub found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// What was damaged when it began.
    pub found: Vec<Damage>,
    /// What is damaged now.
    pub left: Vec<Damage>,
    /// Versions of blocks that were written anew.
    pub versions_repaired: u64,
    /// Bytes of them.
    pub bytes_repaired: u64,
    /// Versions of blocks that are damaged and whose content no source has.
    pub versions_lost: u64,
    /// Frames of the tail that were cut off when the store was opened.
    pub tail_frames: u64,
    /// Bytes of the tail that were cut off when the store was opened.
    pub tail_bytes: u64,
}

/// A source of a volume, and how many bytes of it there are.
struct Healthy {
    pub volume: VolumeId,
    pub bytes: u64,
    pub source: Arc<dyn SourceReader>,
}

impl Store {
    /// Verifies every structure and every payload, and writes payload that is damaged anew where a source still has it: the content of a
    /// version is known by its keyed 64-bit digest, so that what is written is what was there. All points that need it are exact again. What no source
    /// has stays damaged, and every read of it says so. `sources`: volumes by name and what they protect, which is only read and may be
    /// written meanwhile; without any this is a deep [`Store::check`]. Structures (frames, tables, index pages) are not repaired. `None` when
    /// `cancelled` ended the check before it: nothing was repaired then. `progress` counts structures.
    ///
    /// # Errors
    /// `NotFound` for a volume; `ReadOnly`; those that keep it from looking or writing. Damage is in the report.
    pub fn scrub(
        &self,
        sources: &[(&str, Arc<dyn SourceReader>)],
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<ScrubReport>> {
        let mut job = self.scrub_job(sources)?;
        if let Phase::Checking(check) = &mut job.phase
            && !check.run(progress, cancelled)?
        {
            return Ok(None);
        }
        job::run(&mut job, &mut |_| {}, &|| false)?;
        Ok(Some(job.report().clone()))
    }

    /// As [`Store::scrub`], in steps.
    ///
    /// # Errors
    /// `NotFound` for a volume; `ReadOnly`.
    pub fn scrub_job(&self, sources: &[(&str, Arc<dyn SourceReader>)]) -> Result<ScrubJob> {
        self.owner()?.settle_for_reading()?;
        let healthy = |(name, source): &(&str, Arc<dyn SourceReader>)| {
            let info = self.volume(Some(name))?.info();
            Ok(Healthy { volume: info.id, bytes: info.bytes, source: source.clone() })
        };
        Ok(ScrubJob {
            store: self.clone(),
            sources: sources.iter().map(healthy).collect::<Result<Vec<_>>>()?,
            report: ScrubReport::default(),
            written: BTreeSet::new(),
            bytes: 0,
            pace: Pace::new(None),
            mended: 0,
            phase: Phase::Checking(Box::new(self.check_job(true)?)),
        })
    }
}

/// A scrub under way: see [`Store::scrub`]. Dropped, it leaves what it has mended mended.
pub struct ScrubJob {
    store: Store,
    sources: Vec<Healthy>,
    report: ScrubReport,
    /// Extents that something was written to.
    written: BTreeSet<ExtentId>,
    /// Bytes that were looked at.
    bytes: u64,
    pace: Pace,
    /// Bytes of damaged versions that were looked at, and of sources.
    mended: u64,
    phase: Phase,
}

enum Phase {
    Checking(Box<CheckJob>),
    /// What is damaged is looked up: the runs that are left, and what was met so far. The view holds what it names.
    Finding {
        view: Arc<View>,
        next: usize,
        ranges: Ranges,
        versions: Vec<Entry>,
    },
    /// The versions that are left, the next one last.
    Mending {
        #[expect(dead_code, reason = "held, so that no segment goes that it names")]
        view: Arc<View>,
        versions: Vec<Entry>,
    },
    Ended,
}

impl ScrubJob {
    /// Holds it to so many bytes of the store a second from now on; `None`, as it begins: no bound. What was mended is read once more without one.
    pub fn limit_rate(&mut self, bytes_per_second_max: Option<u64>) {
        if let Phase::Checking(check) = &mut self.phase {
            check.limit_rate(bytes_per_second_max);
        }
        self.pace = Pace::new(bytes_per_second_max);
        self.pace.begin_at(self.mended);
    }

    /// What it has found and done. What was found is known when the check is done, and what is left when everything is.
    pub fn report(&self) -> &ScrubReport {
        &self.report
    }

    /// Whether the check is done, so that what was found is known.
    pub fn is_checked(&self) -> bool {
        !matches!(self.phase, Phase::Checking(_))
    }

    fn checked(&mut self, report: CheckReport) -> Result<JobStep> {
        let CheckReport { damaged, tail_frames, tail_bytes } = report;
        self.report = ScrubReport { found: damaged, tail_frames, tail_bytes, ..ScrubReport::default() };
        self.report.left.clone_from(&self.report.found);
        let ranges = payload_ranges(&self.store.inner, &self.report.found);
        if ranges.is_empty() || self.sources.is_empty() {
            self.phase = Phase::Ended;
            return Ok(JobStep::Done);
        }
        let view = self.store.inner.group.view();
        self.phase = Phase::Finding { view, next: 0, ranges, versions: Vec::new() };
        Ok(JobStep::More)
    }

    /// Makes durable what was written, and reads it again from the storage.
    fn finish(&mut self) -> Result<JobStep> {
        let inner = &self.store.inner;
        for extent in &self.written {
            let failed = |error| Error::io("sync", inner.group.shared.storage.describe(*extent), error);
            inner.group.shared.handle(*extent)?.sync().map_err(failed)?;
        }
        let again = look_again(inner, &self.written)?;
        let others = self.report.found.iter().filter(|damage| !self.written.contains(&damage.extent));
        let mut left: Vec<Damage> = others.cloned().chain(again).collect();
        left.sort_by_key(|damage| (damage.extent, damage.offset, damage.length));
        self.report.left = left;
        self.phase = Phase::Ended;
        if !self.written.is_empty() {
            self.store.inner.group.forgive(&self.written);
        }
        Ok(JobStep::Done)
    }

    fn try_step(&mut self) -> Result<JobStep> {
        match &mut self.phase {
            Phase::Checking(check) => {
                let stepped = check.step()?;
                if stepped != JobStep::Done {
                    return Ok(stepped);
                }
                self.bytes = check.progress().total;
                let report = check.report().clone();
                self.checked(report)
            }
            Phase::Finding { view, next, ranges, versions } => {
                if let Some(run) = view.runs.get(*next) {
                    collect(Scan::new(vec![run.clone()]), ranges, versions)?;
                    *next += 1;
                    return Ok(JobStep::More);
                }
                let mut versions = mem::take(versions);
                versions.sort_unstable_by_key(place_of);
                versions.dedup_by_key(|entry| place_of(entry));
                versions.reverse();
                self.phase = Phase::Mending { view: view.clone(), versions };
                Ok(JobStep::More)
            }
            Phase::Mending { view: _, versions } => {
                if let Some(wait) = self.pace.wait(self.mended).filter(|_| !versions.is_empty()) {
                    return Ok(JobStep::Wait(wait));
                }
                let Some(version) = versions.pop() else { return self.finish() };
                self.mended += 2 * BLOCK_BYTES;
                match mend(&self.store.inner.group.shared, &version, &self.sources)? {
                    Mended::Sound => {}
                    Mended::Repaired(bytes) => {
                        self.written.insert(place_of(&version).0);
                        self.report.versions_repaired += 1;
                        self.report.bytes_repaired += bytes;
                    }
                    Mended::Lost => self.report.versions_lost += 1,
                }
                Ok(JobStep::More)
            }
            Phase::Ended => Ok(JobStep::Done),
        }
    }
}

impl Job for ScrubJob {
    fn step(&mut self) -> Result<JobStep> {
        let outcome = self.try_step();
        if outcome.is_err() {
            self.phase = Phase::Ended;
        }
        outcome
    }

    fn progress(&self) -> Progress {
        match &self.phase {
            Phase::Checking(check) => check.progress(),
            _ => Progress { done: self.bytes, total: self.bytes },
        }
    }
}

/// Damaged bytes of payload by extent, ascending and merged.
type Ranges = BTreeMap<ExtentId, Vec<Range<u64>>>;

/// What of the damage lies in segments, so that it may be payload.
fn payload_ranges(inner: &Inner, damaged: &[Damage]) -> Ranges {
    let state = inner.group.manifest.lock().state().clone();
    let holds_payload =
        |extent: &ExtentId| state.segments.contains_key(extent) || state.compacted.contains_key(extent);
    let mut ranges = Ranges::new();
    for damage in damaged.iter().filter(|damage| holds_payload(&damage.extent)) {
        let range = damage.offset..damage.offset.saturating_add(damage.length);
        let of_extent = ranges.entry(damage.extent).or_default();
        match of_extent.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => of_extent.push(range),
        }
    }
    ranges
}

/// Where the content of a version lies: extent and first byte.
fn place_of(entry: &Entry) -> (ExtentId, u64) {
    match entry.content {
        Content::Data { segment, sector, .. } => (segment, u64::from(sector) * SECTOR_BYTES),
        Content::Zero | Content::Discarded => (ExtentId::new(0), 0),
    }
}

/// The versions that lie where something is damaged. A run that is damaged itself is read as far as it goes.
fn collect(scan: Result<Scan>, ranges: &Ranges, versions: &mut Vec<Entry>) -> Result<()> {
    let read_on = |outcome| match outcome {
        Err(Error::Damaged(_)) => Ok(None),
        outcome => outcome,
    };
    let mut scan = match scan {
        Ok(scan) => scan,
        Err(Error::Damaged(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    while let Some(met) = read_on(scan.advance())? {
        let Some(of_extent) = ranges.get(&ExtentId::new(met.entry.content.segment)) else { continue };
        if !met.entry.content.is_data() || versions.len() >= VERSIONS_MAX {
            continue;
        }
        let start = u64::from(met.entry.content.sector()) * SECTOR_BYTES;
        let end = start + u64::from(met.entry.content.mask().count_ones()) * SECTOR_BYTES;
        let behind = of_extent.partition_point(|range| range.end <= start);
        if of_extent.get(behind).is_some_and(|range| range.start < end) {
            versions.push(crate::index::unpack(&met.entry));
        }
    }
    Ok(())
}

enum Mended {
    /// It is what was written: something beside it is damaged.
    Sound,
    /// So many bytes were written anew.
    Repaired(u64),
    /// It is damaged, and no source has it.
    Lost,
}

/// Writes a version anew if it is damaged and a source has it.
fn mend(shared: &Shared, version: &Entry, sources: &[Healthy]) -> Result<Mended> {
    let Content::Data { segment, sector, digest } = version.content else { return Ok(Mended::Sound) };
    let length = u64::from(version.mask.count_ones()) * SECTOR_BYTES;
    let at = u64::from(sector) * SECTOR_BYTES;
    let first = at / PAGE_BYTES * PAGE_BYTES;
    let inside = to_len(at - first)..to_len(at - first + length);
    let len = inside.end.next_multiple_of(to_len(PAGE_BYTES));
    let mut pages = match shared.read_extent(segment, first, len) {
        Ok(pages) => pages,
        // Pages that cannot be read can be written when nothing else lies on them.
        Err(_) if inside == (0..len) => {
            AlignedBuf::new(len).map_err(|error| Error::io("allocate", "a buffer for a repair", error))?
        }
        Err(Error::Damaged(_) | Error::Io { .. }) => return Ok(Mended::Lost),
        Err(error) => return Err(error),
    };
    if shared.key.digest(&pages[inside.clone()]) == digest {
        return Ok(Mended::Sound);
    }
    let Some(content) = content_of(shared, version, digest, &pages[inside.clone()], sources) else {
        return Ok(Mended::Lost);
    };
    pages[inside].copy_from_slice(&content);
    let written = shared.handle(segment)?.write_at(first, &pages[..len]);
    written.map_err(|error| Error::io("write", shared.storage.describe(segment), error))?;
    Ok(Mended::Repaired(length))
}

/// The content of a version, put together from what is stored and what a source has now. A source that cannot be read has nothing.
fn content_of(
    shared: &Shared,
    version: &Entry,
    digest: u64,
    stored: &[u8],
    sources: &[Healthy],
) -> Option<Vec<u8>> {
    let offset = version.key.cell().block.get() * BLOCK_BYTES;
    let wanted = |index: &usize| version.mask & (1 << index) != 0;
    sources.iter().filter(|healthy| healthy.volume == version.key.volume).find_map(|healthy| {
        let there = to_len(healthy.bytes.checked_sub(offset)?.min(BLOCK_BYTES));
        let mut block = AlignedBuf::new(BLOCK_LEN).ok()?;
        block[..BLOCK_LEN].fill(0);
        healthy.source.read_at(offset, &mut block[..there]).ok()?;
        let sectors = (0..BLOCK_LEN / SECTOR_LEN).filter(wanted);
        let content: Vec<u8> =
            sectors.flat_map(|index| block[index * SECTOR_LEN..][..SECTOR_LEN].iter().copied()).collect();
        if shared.sabotage.on(Switch::RepairUnchecked) {
            return Some(content);
        }
        put_together(stored, &content, |bytes| shared.key.digest(bytes) == digest)
    })
}

/// The mixture of sectors of both that is the version: sectors of a version that were overwritten since are nowhere but in the store, and may be
/// sound there. At most 256 mixtures are tried, which a digest of 64 bits bears.
fn put_together(stored: &[u8], source: &[u8], is_it: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let sectors = stored.chunks(SECTOR_LEN).zip(source.chunks(SECTOR_LEN)).enumerate();
    let differing: Vec<usize> = sectors.filter(|(_, (a, b))| a != b).map(|(index, _)| index).collect();
    // All of them first: that is what damage of a block which was not written since looks like.
    (1..1_usize << differing.len()).rev().find_map(|choice| {
        let mut mixture = stored.to_vec();
        let chosen = differing.iter().enumerate().filter(|(place, _)| choice & (1 << place) != 0);
        for (_, index) in chosen {
            let range = index * SECTOR_LEN..(index + 1) * SECTOR_LEN;
            mixture[range.clone()].copy_from_slice(&source[range]);
        }
        is_it(&mixture).then_some(mixture)
    })
}

/// What is damaged in some segments now.
fn look_again(inner: &Inner, extents: &BTreeSet<ExtentId>) -> Result<Vec<Damage>> {
    let state = inner.group.manifest.lock().state().clone();
    let mut check = Check { shared: &inner.group.shared, deep: true, report: CheckReport::default() };
    let live = state.runs.values().flat_map(super::pages_of).collect();
    for extent in extents {
        if let Some(segment) = state.segments.get(extent) {
            let mut end = PAGE_BYTES;
            for entry in check.segment(segment)? {
                if let Some(sealed) = &segment.sealed {
                    check.frame_of(sealed, segment.named.uuid.short(), &entry, end)?;
                }
                end = entry.offset + entry.bytes;
            }
            check.superseded(segment, &live)?;
        }
        if let Some(segment) = state.compacted.get(extent) {
            let checksums = check.compacted(segment)?;
            check.chunks(segment, 0, &checksums)?;
        }
    }
    let pieces = |run: &crate::index::RunMeta| run.pieces.iter().any(|piece| extents.contains(&piece.extent));
    for run in state.runs.into_values().filter(pieces) {
        check.run(&Arc::new(inner.group.shared.open_run(run)))?;
    }
    Ok(check.report.damaged)
}
