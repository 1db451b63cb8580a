//! The life of a segment: made ready, named, filled, frozen, sealed.
//!
//! Order of writes: created, allocated, header written, file and names synced, *then* named in the manifest, and only then it takes
//! frames. Sealed: footer (frame table and index run) written and synced, *then* the manifest says so; cutting the file to
//! its length comes last and may be lost.

use super::{CurrentSegment, Group, SegmentLine, append::note_frame, space::Purpose};
use crate::{
    error::{Error, Result},
    format::{
        PAGE_BYTES, PAGE_LEN, Uuid,
        frame_table::{ENTRIES_PER_PAGE, FrameEntry, TablePlace, encode_page},
        manifest::{Counters, Edit, NamedSegment, SealedSegment},
        meta::MetaRecord,
        segment::SegmentHeader,
    },
    index::{MemTable, Run, RunMeta, RunWriter, View},
    io::{AlignedBuf, Extent},
    limits::SEGMENT_BYTES_LEAST,
    manifest::{ManifestLog, next_extent},
    sabotage::Switch,
    units::{ExtentId, FrameNo, Seq, TimeNs, len_u64},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Frozen segments that may wait to be sealed; beyond it the appender seals one itself.
const FROZEN_MAX: usize = 2;

/// A segment that is named in the manifest and has no frames yet.
pub(crate) struct PreparedSegment {
    extent: ExtentId,
    bytes: u64,
    cut_bytes: u64,
    uuid: Uuid,
    header_crc: u32,
    unnamed: Option<Edit>,
}

/// A segment that takes no more frames and has no footer yet.
#[derive(Clone)]
pub(crate) struct Frozen {
    pub extent: ExtentId,
    pub uuid: Uuid,
    pub base_seq: Seq,
    pub first_frame: FrameNo,
    pub frames_end: u64,
    pub memtable: Arc<MemTable>,
    pub frames: Vec<FrameEntry>,
    pub metas: Vec<(FrameNo, MetaRecord)>,
    pub source_bytes: u64,
    pub covered_to: TimeNs,
    /// Its file must not be written any more: the footer goes to an extent of its own.
    pub sidecar: bool,
}

impl Frozen {
    pub fn from_current(current: CurrentSegment) -> Self {
        Self {
            extent: current.extent,
            uuid: current.uuid,
            base_seq: current.base_seq,
            first_frame: current.first_frame,
            frames_end: current.offset,
            memtable: current.memtable,
            frames: current.frames,
            metas: current.metas,
            source_bytes: current.source_bytes,
            covered_to: current.covered_to,
            sidecar: false,
        }
    }

    pub fn next_frame(&self) -> FrameNo {
        self.frames.last().map_or(self.first_frame, |entry| entry.frame.next())
    }

    pub fn last_seq(&self) -> Seq {
        self.frames.last().map_or(self.base_seq, |entry| entry.last_seq)
    }
}

impl CurrentSegment {
    fn new(prepared: &PreparedSegment, base_seq: Seq, first_frame: FrameNo, covered_to: TimeNs) -> Self {
        Self {
            extent: prepared.extent,
            bytes: prepared.bytes,
            cut_bytes: prepared.cut_bytes,
            first_time: TimeNs::ZERO,
            uuid: prepared.uuid,
            base_seq,
            first_frame,
            offset: PAGE_BYTES,
            previous_crc: prepared.header_crc,
            memtable: Arc::new(MemTable::new()),
            frames: Vec::new(),
            metas: Vec::new(),
            source_bytes: 0,
            covered_to,
        }
    }

    pub fn take_frame(&mut self, entry: &FrameEntry, covered_to: TimeNs) {
        note_frame(self, entry, covered_to);
    }
}

/// A random identity.
pub(crate) fn random_uuid() -> Result<Uuid> {
    let mut uuid = [0; 16];
    getrandom::fill(&mut uuid)
        .map_err(|error| Error::io("draw", "random bytes", std::io::Error::other(error.to_string())))?;
    Ok(Uuid(uuid))
}

impl Group {
    /// Makes the next segment ready, so that rolling over does not wait for it.
    pub fn prepare_next_segment(&self) -> Result<()> {
        if self.ready.lock().is_some() {
            return Ok(());
        }
        let prepared = self.prepare_segment(Purpose::Data, 0)?;
        let mut ready = self.ready.lock();
        if ready.is_none() {
            *ready = Some(prepared);
            return Ok(());
        }
        drop(ready);
        self.discard_prepared(prepared)
    }

    /// Whether a segment is ready for the next roll-over.
    pub fn has_ready_segment(&self) -> bool {
        self.ready.lock().is_some()
    }

    /// Whether a segment waits to be sealed.
    pub fn has_frozen_segment(&self) -> bool {
        !self.frozen.lock().is_empty()
    }

    /// Waits until the current segment ends, for a runner's thread.
    pub fn wait_for_end_of_segment(&self, timeout: Duration) {
        let mut frozen = self.frozen.lock();
        self.segment_ended.wait_for(&mut frozen, timeout);
    }

    /// Bytes left in the current segment; `None` without one.
    pub fn room_in_segment(&self) -> Option<(u64, u64)> {
        self.append
            .lock()
            .current
            .as_ref()
            .map(|current| (current.bytes.saturating_sub(current.offset), current.bytes))
    }

    /// `needed`: bytes that are to be put into it, which may be more than its size.
    fn prepare_segment(&self, purpose: Purpose, needed: u64) -> Result<PreparedSegment> {
        let mut manifest = self.manifest.lock();
        let manifest = manifest.log()?;
        let (mut bytes, cut_bytes) = (self.next_segment_bytes(manifest), self.cut_bytes(manifest));
        self.check_bound(manifest, bytes.max(needed), purpose)?;
        let extent = manifest.allocate_extent();
        let storage = &self.shared.storage;
        let failed = |operation, error| Error::io(operation, storage.describe(extent), error);
        let uuid = random_uuid()?;
        let header = SegmentHeader {
            group: 0,
            store: self.shared.store,
            segment: uuid,
            extent,
            lineage: self.lineage,
            owner_epoch: self.shared.owner_epoch,
            manifest_records: manifest.durable_records(),
        };
        let handle = loop {
            match storage.create(extent, bytes).map_err(|error| failed("create", error)) {
                // A storage that is nearly full may have room for a small one.
                Err(Error::NoSpace) if bytes > SEGMENT_BYTES_LEAST => {
                    bytes = (bytes / 4).max(SEGMENT_BYTES_LEAST) / PAGE_BYTES * PAGE_BYTES;
                }
                outcome => break outcome?,
            }
        };
        let written = (|| {
            let mut page = AlignedBuf::new(PAGE_LEN).map_err(|error| failed("allocate", error))?;
            page.copy_from_slice(&header.encode());
            handle.write_at(0, &page).map_err(|error| failed("write", error))?;
            handle.sync().map_err(|error| failed("sync", error))?;
            storage.sync_names().map_err(|error| failed("sync names of", error))?;
            Ok(crc_of_header(&page))
        })();
        let header_crc = written.inspect_err(|_| {
            // Not named, so nobody looks for it; an open removes it if this fails.
            let _ = storage.remove(extent);
        })?;
        let mut prepared = PreparedSegment { extent, bytes, cut_bytes, uuid, header_crc, unnamed: None };
        let edit = Edit::SegmentNamed(NamedSegment { extent, uuid, group: 0, lineage: self.lineage, bytes });
        if self.shared.sabotage.on(Switch::UseUnnamedSegment) {
            prepared.unnamed = Some(edit);
        } else {
            // When this fails the record may be there all the same, so the extent stays: the next open knows what it is.
            self.append_edits(manifest, &[edit])?;
        }
        self.shared.handles.insert(extent, handle);
        self.totals.written_bytes.fetch_add(PAGE_BYTES, Ordering::Relaxed);
        Ok(prepared)
    }

    /// Appends manifest edits and notes how far the manifest is durable.
    pub(super) fn append_edits(&self, manifest: &mut ManifestLog, edits: &[Edit]) -> Result<()> {
        manifest.append(edits)?;
        self.manifest_records.store(manifest.durable_records(), Ordering::Release);
        Ok(())
    }

    fn discard_prepared(&self, prepared: PreparedSegment) -> Result<()> {
        let mut manifest = self.manifest.lock();
        let manifest = manifest.log()?;
        if prepared.unnamed.is_none() {
            self.append_edits(manifest, &[Edit::SegmentDropped(prepared.extent)])?;
        }
        self.remove_extents(&[prepared.extent]);
        Ok(())
    }

    /// Removes extents that the manifest no longer names; what readers keep from being removed is left for later.
    pub(super) fn remove_extents(&self, extents: &[ExtentId]) {
        let storage = &self.shared.storage;
        match storage.lock_out_readers() {
            Ok(Some(_guard)) => {
                for extent in extents {
                    self.shared.handles.remove(extent);
                    // An extent that cannot be removed is an orphan, which the next open removes.
                    let _ = storage.remove(*extent);
                }
            }
            _ => self.maintenance_later(extents),
        }
    }

    /// Takes the next segment into use. Called with the turn held.
    pub(super) fn roll_segment(&self, purpose: Purpose, needed: u64) -> Result<()> {
        while self.frozen.lock().len() >= FROZEN_MAX {
            let frame = self.frozen.lock().front().map(Frozen::next_frame);
            self.commit_until(|commit| frame <= Some(commit.durable_frame()))?;
            self.seal_oldest_frozen()?;
        }
        if needed > self.segment_bytes_max() {
            let mut manifest = self.manifest.lock();
            self.check_bound(manifest.log()?, needed, purpose)?;
        }
        let ready = self.ready.lock().take();
        let prepared = match ready {
            Some(prepared) => prepared,
            None => self.prepare_segment(purpose, needed)?,
        };
        self.start_segment(prepared)
    }

    /// Ends the current segment and starts with a prepared one.
    fn start_segment(&self, prepared: PreparedSegment) -> Result<()> {
        let mut append = self.append.lock();
        self.freeze_current(&mut append);
        let current = CurrentSegment::new(&prepared, append.last_seq, append.next_frame, append.covered_to);
        let memtable = current.memtable.clone();
        append.current = Some(current);
        self.publish(|view| {
            let mut tables = view.memtables.clone();
            tables.insert(0, memtable);
            *view = View::new(tables, view.runs.clone(), view.lost.clone());
        });
        drop(append);
        if let Some(edit) = prepared.unnamed {
            let mut manifest = self.manifest.lock();
            self.append_edits(manifest.log()?, &[edit])?;
        }
        Ok(())
    }

    /// Starts a segment for frames that come back from a failed one. The caller has frozen the current segment.
    pub(super) fn fresh_segment(
        &self,
        base_seq: Seq,
        first_frame: FrameNo,
        covered_to: TimeNs,
    ) -> Result<CurrentSegment> {
        let ready = self.ready.lock().take();
        let prepared = match ready {
            Some(prepared) => prepared,
            None => self.prepare_segment(Purpose::Rescue, 0)?,
        };
        Ok(CurrentSegment::new(&prepared, base_seq, first_frame, covered_to))
    }

    /// Seals the oldest frozen segment if all of its frames are durable. Returns whether it did. The manifest is free while the footer is
    /// written: whoever needs the next segment does not wait for the last one.
    pub fn seal_oldest_frozen(&self) -> Result<bool> {
        let _one = self.sealing.lock();
        let Some(frozen) = self.frozen.lock().front().cloned() else { return Ok(false) };
        if frozen.next_frame() > self.commit.lock().durable_frame() {
            return Ok(false);
        }
        match self.seal(&frozen) {
            Err(Error::Io { .. }) if !frozen.sidecar => {
                // The file failed us: the footer goes to an extent of its own.
                let elsewhere = Frozen { sidecar: true, ..frozen };
                if let Some(front) = self.frozen.lock().front_mut() {
                    front.sidecar = true;
                }
                self.seal(&elsewhere)?;
            }
            outcome => outcome?,
        }
        self.frozen.lock().pop_front();
        // The store has grown by a segment. Sealing does not depend on it, and the next one tries again.
        let _ = self.adapt_reserve(self.manifest.lock().log()?);
        Ok(true)
    }

    fn seal(&self, frozen: &Frozen) -> Result<()> {
        let mut edits: Vec<Edit> = frozen.metas.iter().map(|(_, meta)| Edit::Catalog(meta.clone())).collect();
        if frozen.frames.is_empty() {
            edits.push(Edit::SegmentDropped(frozen.extent));
            self.append_edits(self.manifest.lock().log()?, &edits)?;
            self.replace_in_view(&frozen.memtable, None);
            self.remove_extents(&[frozen.extent]);
            return Ok(());
        }
        let extents = self.manifest.lock().log()?.extents();
        let footer = self.write_footer(&extents, frozen)?;
        let sealed = SealedSegment {
            extent: frozen.extent,
            frames_end: frozen.frames_end,
            extent_bytes: if footer.extent == frozen.extent { footer.end } else { 0 },
            first_frame: frozen.first_frame,
            next_frame: frozen.next_frame(),
            base_seq: frozen.base_seq,
            last_seq: frozen.last_seq(),
            first_time: frozen
                .frames
                .iter()
                .find(|f| f.timed_records > 0)
                .map_or(TimeNs::ZERO, |f| f.first_time),
            last_time: frozen
                .frames
                .iter()
                .rev()
                .find(|f| f.timed_records > 0)
                .map_or(TimeNs::ZERO, |f| f.last_time),
            covered_to: frozen.covered_to,
            table_extent: footer.extent,
            table_offset: footer.table_offset,
            frames: u32::try_from(frozen.frames.len()).expect("a segment holds few frames"),
            source_bytes: frozen.source_bytes,
        };
        let run = footer.run.map(Box::new);
        let line = SegmentLine::sealed(&sealed, frozen.uuid);
        edits.push(Edit::SegmentSealed(Box::new(sealed), run.clone()));
        let mut manifest = self.manifest.lock();
        let manifest = manifest.log()?;
        let counters = manifest.state().counters;
        edits.push(Edit::Counters(Counters {
            source_bytes: counters.source_bytes.saturating_add(frozen.source_bytes),
            written_bytes: counters
                .written_bytes
                .saturating_add(self.totals.written_bytes.swap(0, Ordering::Relaxed)),
        }));
        self.append_edits(manifest, &edits)?;
        let opened = run.map(|run| Arc::new(self.shared.open_run(*run)));
        self.replace_in_view(&frozen.memtable, opened);
        self.add_line(line);
        if footer.extent == frozen.extent {
            // Only saves space: an open repeats it when it was lost.
            let _ = footer.handle.set_size(footer.end);
        }
        Ok(())
    }

    /// Takes a memtable out of the view, and puts the run that holds its entries in its place.
    fn replace_in_view(&self, memtable: &Arc<MemTable>, run: Option<Arc<Run>>) {
        self.publish(|view| {
            let tables = view.memtables.iter().filter(|table| !Arc::ptr_eq(table, memtable)).cloned();
            let runs = view.runs.iter().cloned().chain(run);
            *view = View::new(tables.collect(), runs.collect(), view.lost.clone());
        });
    }

    fn write_footer(&self, extents: &AtomicU64, frozen: &Frozen) -> Result<Footer> {
        let storage = &self.shared.storage;
        let (extent, handle, table_offset) = if frozen.sidecar {
            let extent = next_extent(extents);
            let handle = storage
                .create(extent, PAGE_BYTES)
                .map_err(|error| Error::io("create", storage.describe(extent), error))?;
            (extent, handle, 0)
        } else {
            (frozen.extent, self.shared.handle(frozen.extent)?, frozen.frames_end)
        };
        let written = self.fill_footer(extents, frozen, extent, &handle, table_offset);
        if written.is_err() && frozen.sidecar {
            let _ = storage.remove(extent);
        }
        let (end, run) = written?;
        Ok(Footer { extent, handle, table_offset, end, run })
    }

    fn fill_footer(
        &self,
        extents: &AtomicU64,
        frozen: &Frozen,
        extent: ExtentId,
        handle: &Arc<dyn Extent>,
        table_offset: u64,
    ) -> Result<(u64, Option<RunMeta>)> {
        let name = || self.shared.storage.describe(extent);
        let failed = |error| Error::io("write", name(), error);
        let pages = frozen.frames.chunks(ENTRIES_PER_PAGE).count();
        let mut table = AlignedBuf::new(pages * PAGE_LEN).map_err(failed)?;
        for (index, entries) in frozen.frames.chunks(ENTRIES_PER_PAGE).enumerate() {
            let offset = table_offset + len_u64(index) * PAGE_BYTES;
            let place = TablePlace { store: self.shared.store.short(), extent, offset };
            table[index * PAGE_LEN..(index + 1) * PAGE_LEN].copy_from_slice(&encode_page(entries, place));
        }
        let table_bytes = len_u64(pages * PAGE_LEN);
        handle.write_at(table_offset, &table[..pages * PAGE_LEN]).map_err(failed)?;
        let mut end = table_offset + table_bytes;
        let run = if frozen.memtable.is_empty() {
            None
        } else {
            let mut first = Some((extent, handle.clone(), end));
            let storage = self.shared.storage.clone();
            let mut writer = RunWriter::new(
                self.shared.store.short(),
                0,
                Box::new(move || match first.take() {
                    Some(place) => Ok(place),
                    None => {
                        let id = next_extent(extents);
                        let extent = storage
                            .create(id, PAGE_BYTES)
                            .map_err(|error| Error::io("create", storage.describe(id), error))?;
                        Ok((id, extent, 0))
                    }
                }),
            );
            frozen.memtable.for_each(|entry| writer.push(entry))?;
            let run = writer.finish()?;
            for piece in run.pieces.iter().filter(|piece| piece.extent == extent) {
                end = piece.offset + u64::from(piece.pages) * PAGE_BYTES;
            }
            Some(run)
        };
        self.totals.written_bytes.fetch_add(end - table_offset, Ordering::Relaxed);
        if !self.shared.sabotage.on(Switch::SkipFooterSync) {
            handle.sync().map_err(|error| Error::io("sync", name(), error))?;
            for piece in run.iter().flat_map(|run| &run.pieces).filter(|piece| piece.extent != extent) {
                let handle = self.shared.handle(piece.extent)?;
                handle.sync().map_err(|error| Error::io("sync", name(), error))?;
            }
            self.shared.storage.sync_names().map_err(|error| Error::io("sync names of", name(), error))?;
        }
        Ok((end, run))
    }

    /// Ends the group for good: everything durable and sealed, nothing prepared left.
    pub fn finish(&self) -> Result<()> {
        {
            let turn = self.take_turn();
            self.drain_captured(&turn)?;
            self.settle(&turn, true)?;
        }
        self.flush()?;
        let _turn = self.turn.lock();
        {
            let mut append = self.append.lock();
            self.freeze_current(&mut append);
        }
        self.commit_until(|commit| commit.in_flight() == 0)?;
        while !self.frozen.lock().is_empty() {
            self.seal_oldest_frozen()?;
        }
        if let Some(prepared) = self.ready.lock().take() {
            self.discard_prepared(prepared)?;
        }
        self.finish_maintenance();
        self.poison("it was closed");
        let covered_to = self.append.lock().covered_to;
        let mut manifest = self.manifest.lock();
        let manifest = manifest.log()?;
        let mut position = manifest.state().position;
        if covered_to > position.covered_to {
            position.covered_to = covered_to;
            manifest.append(&[Edit::Position(position)])?;
        }
        manifest.close()
    }

    /// Seals every segment with states before a seq, so that all of them are in index runs. Writes go on meanwhile.
    pub fn seal_all_below(&self, seq: Seq) -> Result<()> {
        let reaches_below = |current: &CurrentSegment| current.base_seq < seq;
        if self.append.lock().current.as_ref().is_some_and(reaches_below) {
            // So that the next write does not have to. It tries, too, when this fails.
            let _ = self.prepare_next_segment();
            let _turn = self.turn.lock();
            let mut append = self.append.lock();
            if append.current.as_ref().is_some_and(reaches_below) {
                self.freeze_current(&mut append);
            }
        }
        loop {
            let oldest =
                self.frozen.lock().front().filter(|frozen| frozen.base_seq < seq).map(Frozen::next_frame);
            let Some(frame) = oldest else { return Ok(()) };
            self.wait_durable(frame)?;
            self.seal_oldest_frozen()?;
        }
    }
}

struct Footer {
    extent: ExtentId,
    handle: Arc<dyn Extent>,
    table_offset: u64,
    end: u64,
    run: Option<RunMeta>,
}

fn crc_of_header(page: &[u8]) -> u32 {
    u32::from_le_bytes(page[8..12].try_into().expect("four bytes"))
}
