//! Saving what is in memory when a segment fails.
//!
//! A failed write or sync is never retried on the same file: the kernel may have dropped the pages and called them clean. All
//! frames that are not durable move to a new segment. Before the first of them is written there, the manifest says where
//! the frames of the failed segment end, so that what may yet be found behind that point is never taken for history.

use super::{Frozen, Group, append::entries_of};
use crate::{
    error::Result,
    format::{
        PAGE_LEN,
        frame::{Frame, FramePlace},
        manifest::Edit,
    },
    index::{Key, View},
    journal::{FrameContext, SealedFrame},
    units::{ExtentId, FrameNo, to_len},
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

impl Group {
    /// Moves all frames that are not durable to a new segment. Called with the turn held.
    ///
    /// # Errors
    /// When there is no new segment to be had or the manifest cannot be written; everything stays as it was, in memory, and the
    /// next call tries again.
    pub(super) fn relocate(&self) -> Result<()> {
        {
            let mut commit = self.commit.lock();
            while !commit.is_quiet() {
                self.commit_changed.wait_for(&mut commit, Duration::from_millis(100));
            }
            if !commit.is_failed() {
                return Ok(());
            }
        }
        {
            let mut append = self.append.lock();
            self.seal_open(&mut append);
        }
        let frames: Vec<Arc<SealedFrame>> = self.commit.lock().frames().cloned().collect();
        let Some(first) = frames.first().cloned() else {
            self.commit.lock().take_back();
            return Ok(());
        };
        let mut ends: BTreeMap<ExtentId, u64> = BTreeMap::new();
        for frame in &frames {
            ends.entry(frame.header.segment).or_insert(frame.header.offset);
        }
        let fresh = self.fresh_segment(first.header.base_seq, first.header.frame, first.header.covered_to)?;
        {
            let edits: Vec<Edit> = ends
                .iter()
                .map(|(extent, frames_end)| Edit::SegmentCut { extent: *extent, frames_end: *frames_end })
                .collect();
            let mut manifest = self.manifest.lock();
            self.append_edits(manifest.log()?, &edits)?;
        }
        self.move_frames(fresh, &frames, &ends)
            .inspect_err(|error| self.poison(&format!("frames were not saved: {error}")))
    }

    fn move_frames(
        &self,
        mut fresh: super::CurrentSegment,
        frames: &[Arc<SealedFrame>],
        ends: &BTreeMap<ExtentId, u64>,
    ) -> Result<()> {
        let mut moved = Vec::with_capacity(frames.len());
        let mut gone: HashSet<Key> = HashSet::new();
        for frame in frames {
            let context = FrameContext {
                store: self.shared.store.short(),
                segment: fresh.extent,
                segment_uuid: fresh.uuid.short(),
                offset: fresh.offset,
                frame: frame.header.frame,
                lineage: frame.header.lineage,
                owner_epoch: self.shared.owner_epoch,
                previous_crc: fresh.previous_crc,
            };
            let relocated = frame.relocate(context, self.take_frame_buffer()?);
            for record in &parse(&relocated).records {
                let entries =
                    entries_of(record, fresh.extent, relocated.header.payload_at(), self.shared.sabotage);
                gone.extend(entries.iter().map(|entry| entry.key));
                fresh.memtable.insert(&entries)?;
                if matches!(
                    record.kind,
                    crate::format::record::RecordKind::Data | crate::format::record::RecordKind::Zero
                ) {
                    fresh.source_bytes += record.range.bytes();
                }
            }
            fresh.take_frame(&relocated.entry, relocated.header.covered_to);
            moved.push(Arc::new(relocated));
        }
        let first_moved = frames[0].header.frame;
        let mut append = self.append.lock();
        self.freeze_current(&mut append);
        let mut frozen = self.frozen.lock();
        let mut trimmed = Vec::new();
        for segment in frozen.iter_mut() {
            if let Some(end) = ends.get(&segment.extent) {
                let old = segment.memtable.clone();
                trim(segment, *end, first_moved, &gone, &mut fresh.metas);
                trimmed.push((old, segment.memtable.clone()));
            }
        }
        drop(frozen);
        // The new places first, then the frames: a reader finds a version in one of the two at any time.
        let memtable = fresh.memtable.clone();
        {
            let mut flight = self.flight.write();
            for frame in &moved {
                flight.insert((frame.header.segment, frame.first_sector()), frame.clone());
            }
        }
        self.publish(|view| {
            let mut tables = view.memtables.clone();
            for (old, new) in trimmed {
                for table in tables.iter_mut().filter(|table| Arc::ptr_eq(table, &old)) {
                    *table = new.clone();
                }
            }
            tables.insert(0, memtable);
            *view = View::new(tables, view.runs.clone(), view.lost.clone());
        });
        append.current = Some(fresh);
        let mut commit = self.commit.lock();
        commit.take_back();
        moved.into_iter().for_each(|frame| commit.push(frame));
        drop(commit);
        let mut flight = self.flight.write();
        for frame in frames {
            flight.remove(&(frame.header.segment, frame.first_sector()));
        }
        drop(flight);
        self.commit_changed.notify_all();
        Ok(())
    }
}

/// Takes the frames from `end` on out of a failed segment.
fn trim(
    segment: &mut Frozen,
    end: u64,
    first_moved: FrameNo,
    gone: &HashSet<Key>,
    metas: &mut Vec<(FrameNo, crate::format::meta::MetaRecord)>,
) {
    segment.memtable = Arc::new(segment.memtable.without(gone));
    segment.frames.retain(|entry| entry.frame < first_moved);
    segment.frames_end = end;
    segment.sidecar = true;
    segment.covered_to = segment.covered_to.min(metas_clock(segment));
    let (kept, moved) =
        std::mem::take(&mut segment.metas).into_iter().partition(|(frame, _)| *frame < first_moved);
    segment.metas = kept;
    metas.extend::<Vec<_>>(moved);
}

/// The clock of a trimmed segment is not known frame by frame; that of its last write is safe.
fn metas_clock(segment: &Frozen) -> crate::units::TimeNs {
    segment.frames.iter().map(|entry| entry.last_time).max().unwrap_or_default()
}

fn parse(frame: &SealedFrame) -> Frame {
    let bytes = frame.bytes();
    let place = FramePlace {
        store: frame.header.store,
        segment: frame.header.segment,
        segment_uuid: frame.header.segment_uuid,
        offset: frame.header.offset,
    };
    Frame::parse(&bytes[..PAGE_LEN], &bytes[to_len(frame.header.tail_offset())..], place)
        .expect("a frame that was sealed here is well formed")
}
