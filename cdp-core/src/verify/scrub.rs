//! Scrubbing: every byte of the store is checked, and payload that rotted is written anew where a source still has it.
//!
//! The index holds a keyed digest of each version. What a source has now at the place of a damaged version is that version if it has the
//! digest, whole or in those of its sectors that were not overwritten since; then the same bytes go to the same place, and every point that needs them is exact again. Nothing else changes: a crash in the middle
//! leaves what was damaged damaged. Where no source has the content the damage stays, and every read of it says so.
//!
//! Invariant *same bytes*: only bytes with the digest of the version are written, and only where that version lies.
//! Invariant *held view*: the runs that name a place are held until it was written, so that its segment does not go meanwhile.

use super::{Check, CheckReport, check};
use crate::{
    error::{Damage, Error, Result},
    group::Shared,
    index::{Content, Entry, Scan},
    io::AlignedBuf,
    restore::Progress,
    resync::SourceReader,
    sabotage::Switch,
    store::Inner,
    units::{BLOCK_BYTES, BLOCK_LEN, ExtentId, SECTOR_BYTES, SECTOR_LEN, VolumeId, to_len},
};
use std::{
    collections::{BTreeMap, BTreeSet},
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
pub(crate) struct Healthy {
    pub volume: VolumeId,
    pub bytes: u64,
    pub source: Arc<dyn SourceReader>,
}

/// Checks everything, and writes anew what is damaged and a source has.
pub(crate) fn scrub(
    inner: &Inner,
    sources: &[Healthy],
    progress: &mut dyn FnMut(Progress),
    cancelled: &dyn Fn() -> bool,
) -> Result<Option<ScrubReport>> {
    let Some(CheckReport { damaged, tail_frames, tail_bytes }) = check(inner, true, progress, cancelled)?
    else {
        return Ok(None);
    };
    let mut report = ScrubReport { found: damaged, tail_frames, tail_bytes, ..ScrubReport::default() };
    let ranges = payload_ranges(inner, &report.found);
    if ranges.is_empty() || sources.is_empty() {
        report.left.clone_from(&report.found);
        return Ok(Some(report));
    }
    let view = inner.group.view();
    let mut versions: Vec<Entry> = Vec::new();
    for run in &view.runs {
        collect(Scan::new(vec![run.clone()]), &ranges, &mut versions)?;
    }
    versions.sort_unstable_by_key(place_of);
    versions.dedup_by_key(|entry| place_of(entry));
    let mut written = BTreeSet::new();
    for version in &versions {
        match mend(&inner.group.shared, version, sources)? {
            Mended::Sound => {}
            Mended::Repaired(bytes) => {
                written.insert(place_of(version).0);
                report.versions_repaired += 1;
                report.bytes_repaired += bytes;
            }
            Mended::Lost => report.versions_lost += 1,
        }
    }
    for extent in &written {
        let failed = |error| Error::io("sync", inner.group.shared.storage.describe(*extent), error);
        inner.group.shared.handle(*extent)?.sync().map_err(failed)?;
    }
    // What was written is read again, from the storage.
    let again = look_again(inner, &written)?;
    let others = report.found.iter().filter(|damage| !written.contains(&damage.extent));
    report.left = others.cloned().chain(again).collect();
    report.left.sort_by_key(|damage| (damage.extent, damage.offset, damage.length));
    drop(view);
    if !written.is_empty() {
        inner.group.forgive(&written);
    }
    Ok(Some(report))
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
            check.segment(segment)?;
            check.superseded(segment, &live)?;
        }
        if let Some(segment) = state.compacted.get(extent) {
            check.compacted(segment)?;
        }
    }
    let pieces = |run: &crate::index::RunMeta| run.pieces.iter().any(|piece| extents.contains(&piece.extent));
    for run in state.runs.into_values().filter(pieces) {
        check.run(&Arc::new(inner.group.shared.open_run(run)))?;
    }
    Ok(check.report.damaged)
}
