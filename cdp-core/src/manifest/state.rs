//! What the manifest says: the fold of its edits.
//!
//! Invariant *round trip*: applying [`ManifestState::snapshot`] to an empty state gives the same state. An edit that does
//! not fit (a segment sealed that was never named) is malformed: the manifest is damaged or foreign.

use crate::{
    catalog::Catalog,
    format::{
        Malformed,
        compacted::CompactedSegment,
        manifest::{Counters, Edit, LineageCut, NamedSegment, Position, RunId, SealedSegment},
        meta::MetaRecord,
        outline::OutlineFull,
    },
    index::{LostRange, RunMeta},
    limits::MANIFEST_RECORD_BYTES_MAX,
    retention::{Outline, OutlinePoint},
    units::ExtentId,
};
use std::collections::BTreeMap;

/// A segment as the manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentState {
    /// Its identity.
    pub named: NamedSegment,
    /// Where its frames end when it was given up.
    pub cut: Option<u64>,
    /// What is in it, once it is complete.
    pub sealed: Option<SealedSegment>,
}

/// The state that the manifest describes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestState {
    /// Segments by extent; extents are numbered in the order in which segments are used.
    pub segments: BTreeMap<ExtentId, SegmentState>,
    /// Segments of payload that outlived others.
    pub compacted: BTreeMap<ExtentId, CompactedSegment>,
    /// What is left of the timeline.
    pub outline: Outline,
    /// The extent that is given up when the storage is full, and its size in bytes. It may be gone already.
    pub reserve: Option<(ExtentId, u64)>,
    /// Index runs.
    pub runs: BTreeMap<RunId, RunMeta>,
    /// Volumes, bookmarks, policy, up to the end of the sealed segments.
    pub catalog: Catalog,
    /// Lineages that ended.
    pub lineages: Vec<LineageCut>,
    /// Frames lost to damage.
    pub lost: Vec<LostRange>,
    /// Totals.
    pub counters: Counters,
    /// Extents from here on were never used.
    pub next_extent: ExtentId,
    /// Where the group stands at the end of the sealed segments.
    pub position: Position,
}

impl ManifestState {
    /// Applies one edit.
    ///
    /// # Errors
    /// When the edit does not fit the state.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), Malformed> {
        match edit {
            Edit::SegmentNamed(named) => {
                self.use_extent(named.extent);
                let state = SegmentState { named: *named, cut: None, sealed: None };
                if self.segments.insert(named.extent, state).is_some() {
                    return Err(Malformed("manifest: segment named twice"));
                }
            }
            Edit::SegmentCut { extent, frames_end } => self.segment_mut(*extent)?.cut = Some(*frames_end),
            Edit::SegmentSealed(sealed, run) => {
                self.use_extent(sealed.table_extent);
                self.segment_mut(sealed.extent)?.sealed = Some((**sealed).clone());
                if let Some(run) = run {
                    self.add_run(run)?;
                }
                self.position.last_seq = self.position.last_seq.max(sealed.last_seq);
                self.position.next_frame = self.position.next_frame.max(sealed.next_frame);
                self.position.newest_time = self.position.newest_time.max(sealed.last_time);
                self.position.covered_to = self.position.covered_to.max(sealed.covered_to);
            }
            Edit::SegmentDropped(extent) => {
                self.segments.remove(extent).ok_or(Malformed("manifest: unknown segment dropped"))?;
            }
            Edit::RunsReplaced { removed, added } => {
                self.remove_runs(removed)?;
                self.add_run(added)?;
            }
            Edit::RunsRemoved(removed) => self.remove_runs(removed)?,
            Edit::CompactedAdded(segment) => {
                self.use_extent(segment.extent);
                if self.compacted.insert(segment.extent, *segment).is_some() {
                    return Err(Malformed("manifest: compacted segment added twice"));
                }
            }
            Edit::CompactedDropped(extent) => {
                self.compacted
                    .remove(extent)
                    .ok_or(Malformed("manifest: unknown compacted segment dropped"))?;
            }
            Edit::Reserve(reserve) => {
                if let Some((extent, _)) = reserve {
                    self.use_extent(*extent);
                }
                self.reserve = *reserve;
            }
            Edit::OutlineKept(points) => self.outline.keep(points),
            Edit::OutlineDropped(seqs) => self.outline.drop_points(seqs),
            Edit::OutlineFull(OutlineFull { full, planned }) => self.outline.set_full(*full, *planned),
            Edit::RunKept(run) => self.add_run(run)?,
            Edit::Catalog(record) => {
                self.catalog.check(record)?;
                self.catalog.apply(record);
                if let MetaRecord::TapSet { map: Some(map), .. } = record {
                    self.use_extent(map.extent);
                }
            }
            Edit::LineageCut(cut) => self.lineages.push(*cut),
            Edit::Lost(lost) => self.lost.push(lost.clone()),
            Edit::Counters(counters) => self.counters = *counters,
            Edit::NextExtent(extent) => self.next_extent = self.next_extent.max(*extent),
            Edit::Position(position) => self.position = *position,
        }
        Ok(())
    }

    /// Edits that make this state from an empty one.
    pub fn snapshot(&self) -> Vec<Edit> {
        let mut edits = vec![Edit::NextExtent(self.next_extent), Edit::Counters(self.counters)];
        edits.extend(self.catalog.records().map(Edit::Catalog));
        edits.extend(self.lineages.iter().copied().map(Edit::LineageCut));
        edits.extend(self.lost.iter().cloned().map(Edit::Lost));
        for (extent, segment) in &self.segments {
            edits.push(Edit::SegmentNamed(segment.named));
            if let Some(frames_end) = segment.cut {
                edits.push(Edit::SegmentCut { extent: *extent, frames_end });
            }
            if let Some(sealed) = &segment.sealed {
                edits.push(Edit::SegmentSealed(Box::new(sealed.clone()), None));
            }
        }
        edits.extend(self.compacted.values().copied().map(Edit::CompactedAdded));
        edits.extend(self.runs.values().cloned().map(|run| Edit::RunKept(Box::new(run))));
        edits.extend(self.reserve.map(|reserve| Edit::Reserve(Some(reserve))));
        if self.outline != Outline::default() {
            edits.push(Edit::OutlineFull(OutlineFull {
                full: self.outline.full,
                planned: self.outline.planned,
            }));
        }
        // After the full range: to set it takes away what was kept within it.
        edits.extend(keep_edits(self.outline.kept().cloned().collect()));
        edits.push(Edit::Position(self.position));
        edits
    }

    /// Every extent that the state refers to, besides superblock and manifest.
    pub fn extents(&self) -> impl Iterator<Item = ExtentId> + '_ {
        let tables = self.segments.values().filter_map(|s| s.sealed.as_ref()).map(|s| s.table_extent);
        let pieces = self.runs.values().flat_map(|run| run.pieces.iter().map(|piece| piece.extent));
        self.segments
            .keys()
            .copied()
            .chain(tables)
            .chain(pieces)
            .chain(self.compacted.keys().copied())
            .chain(self.reserve.map(|(extent, _)| extent))
            .chain(self.catalog.map_extents())
    }

    fn remove_runs(&mut self, removed: &[RunId]) -> Result<(), Malformed> {
        for run in removed {
            self.runs.remove(run).ok_or(Malformed("manifest: unknown run replaced"))?;
        }
        Ok(())
    }

    fn segment_mut(&mut self, extent: ExtentId) -> Result<&mut SegmentState, Malformed> {
        self.segments.get_mut(&extent).ok_or(Malformed("manifest: edit of an unknown segment"))
    }

    fn add_run(&mut self, run: &RunMeta) -> Result<(), Malformed> {
        let id = RunId::of(run).ok_or(Malformed("manifest: run without pieces"))?;
        for piece in &run.pieces {
            self.use_extent(piece.extent);
        }
        if self.runs.insert(id, run.clone()).is_some() {
            return Err(Malformed("manifest: run added twice"));
        }
        Ok(())
    }

    fn use_extent(&mut self, extent: ExtentId) {
        self.next_extent = self.next_extent.max(extent.checked_add(1).unwrap_or(extent));
    }
}

/// Edits that keep these points, each within the size of a record.
pub fn keep_edits(points: Vec<OutlinePoint>) -> impl Iterator<Item = Edit> {
    let bytes_max = MANIFEST_RECORD_BYTES_MAX / 4;
    let mut groups: Vec<Vec<OutlinePoint>> = Vec::new();
    let mut bytes = usize::MAX;
    for point in points {
        let len = 32 + point.window.len() + point.why.len();
        bytes = bytes.saturating_add(len);
        if bytes > bytes_max {
            groups.push(Vec::new());
            bytes = len;
        }
        groups.last_mut().expect("there is a group").push(point);
    }
    groups.into_iter().map(Edit::OutlineKept)
}
