//! Taking writes into the journal.
//!
//! A write gets its seq on entering the open frame, before it is acknowledged, and reads see it from then on. Its entries are in
//! the memtable before its seq becomes visible, so a reader never sees a part of it.
//! Invariant *all or nothing*: everything that can fail or wait (space in a segment, buffers, frames in flight) is reserved before
//! the first part enters.

use super::{CurrentSegment, Group, space::Purpose};
use crate::{
    capture::Coalescing,
    error::{Error, Result, SeqTime},
    format::{
        PAGE_BYTES,
        frame_table::FrameEntry,
        meta::MetaRecord,
        record::{Record, RecordKind},
    },
    index::{Content, Entry, Key, MASK_FULL, cells_of},
    io::Clock,
    journal::{FrameContext, OpenFrame, Part, PreparedWrite},
    limits::{FRAME_BYTES_MAX, FRAMES_IN_FLIGHT_MAX, SEGMENT_ENTRIES_MAX},
    sabotage::{Sabotage, Switch},
    units::{FrameNo, Seq, TimeNs, VolumeId, len_u64},
};
use parking_lot::MutexGuard;
use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

/// When a write happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// Now, by the clock of the host.
    Now,
    /// At a time that the caller knows, not before the newest write.
    At(TimeNs),
    /// At the time at which it was captured, or with the newest write when that is later: clocks of several threads may cross.
    Captured(TimeNs),
}

/// Proof that the turn is held.
pub(super) struct Turn<'a>(#[allow(dead_code, reason = "held, not looked at")] MutexGuard<'a, ()>);

/// How a record takes its seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeqRule {
    /// The next one.
    Next,
    /// One that was taken before.
    Staged(Seq),
}

impl Group {
    /// Appends a write under a seq that [`Group::take_stage`] took.
    pub fn append_staged(&self, write: &PreparedWrite<'_>, seq: Seq) -> Result<()> {
        self.append_as(write, Stamp::Now, SeqRule::Staged(seq)).map(|_| ())
    }

    /// Takes one seq for staged writes to come.
    pub fn take_stage(&self, volume: VolumeId, stamp: Stamp) -> Result<Seq> {
        self.append_as(&PreparedWrite::stage(volume), stamp, SeqRule::Next)
    }

    /// A seq for staged writes to come: `last`, which was taken before, when nothing was written since; else one that is taken now.
    pub fn stage_again(&self, volume: VolumeId, last: Option<Seq>, stamp: Stamp) -> Result<Seq> {
        let turn = self.take_turn();
        self.drain_captured(&turn)?;
        self.settle(&turn, true)?;
        if let Some(last) = last.filter(|last| *last == self.append.lock().last_seq) {
            return Ok(last);
        }
        self.append_in_turn(&turn, &PreparedWrite::stage(volume), stamp, SeqRule::Next)
    }

    fn append_as(&self, write: &PreparedWrite<'_>, stamp: Stamp, rule: SeqRule) -> Result<Seq> {
        let turn = self.take_turn();
        if rule == SeqRule::Next || !self.shared.sabotage.on(Switch::CloseGapUndrained) {
            self.drain_captured(&turn)?;
        }
        self.append_in_turn(&turn, write, stamp, rule)
    }

    /// The right to append: one holder at a time, who may wait for I/O.
    pub(super) fn take_turn(&self) -> Turn<'_> {
        Turn(self.turn.lock())
    }

    pub(super) fn append_in_turn(
        &self,
        turn: &Turn<'_>,
        write: &PreparedWrite<'_>,
        stamp: Stamp,
        rule: SeqRule,
    ) -> Result<Seq> {
        self.check_writable()?;
        if let Some(seq) = self.coalesce(turn, write, stamp, rule)? {
            return Ok(seq);
        }
        if let Some(seq) = self.append_to_open(write, stamp, rule)? {
            return Ok(seq);
        }
        let time = time_of(self.append.lock().newest_time, stamp, rule, &*self.shared.clock)?;
        self.reserve(write)?;
        let parts_fit = write.is_single();
        let mut seq = Seq::ZERO;
        for part in write.parts() {
            // A write of several parts begins a frame of its own, so that recovery can cut it off as a whole.
            let fresh = !parts_fit && part.record.first;
            let mut append = self
                .open_frame(|open| (open.is_empty() || !fresh) && open.fits(&part))
                .inspect_err(|error| self.poison(&format!("a write was cut short: {error}")))?;
            seq = match rule {
                SeqRule::Next => append.last_seq.next(),
                SeqRule::Staged(seq) => seq,
            };
            let last = part.record.last;
            self.push_part(&mut append, part, seq, time, rule);
            if last {
                self.publish_seq(&mut append, seq, time, rule);
            }
        }
        self.totals.source_bytes.fetch_add(write.source_bytes(), Ordering::Relaxed);
        Ok(seq)
    }

    pub(super) fn push_part(
        &self,
        append: &mut super::Append,
        mut part: Part<'_>,
        seq: Seq,
        time: TimeNs,
        rule: SeqRule,
    ) {
        part.record.staged = matches!(rule, SeqRule::Staged(_));
        let source_bytes = match part.record.kind {
            RecordKind::Data | RecordKind::Zero => part.record.range.bytes(),
            _ => 0,
        };
        let open = append.open.as_mut().expect("a frame was opened for the part");
        if open.is_empty() {
            append.opened_at = self.shared.clock.now();
            append.oldest_at = append.opened_at;
        }
        if let Some(arrived) = self.arrivals.of_taking(append.opened_at) {
            append.oldest_at = append.oldest_at.min(arrived);
        }
        let (record, payload_at) = open.push(part, seq, time);
        let current = append.current.as_mut().expect("an open frame has a segment");
        current.source_bytes += source_bytes;
        let inserted = match (record.kind, record.digests.len()) {
            // One block, without a list of one.
            (RecordKind::Data, 1) => {
                let entry = record.data_entries(current.extent, payload_at).next();
                current.memtable.insert(entry.as_slice())
            }
            _ => {
                let entries = entries_of(&record, current.extent, payload_at, self.shared.sabotage);
                current.memtable.insert(&entries)
            }
        };
        inserted.expect("the entries of a new write are valid and new");
    }

    /// The usual case, under one lock: the write fits the open frame and its segment. `None` when it does not.
    fn append_to_open(&self, write: &PreparedWrite<'_>, stamp: Stamp, rule: SeqRule) -> Result<Option<Seq>> {
        if !write.is_single() {
            return Ok(None);
        }
        let mut append = self.append.lock();
        let part = write.parts().next().expect("a write has a part");
        let open = append.open.as_ref().is_some_and(|open| open.fits(&part));
        let room = open
            && append
                .current
                .as_ref()
                .is_some_and(|current| self.has_room(current, 0, 0, write.entries_max()));
        if !room {
            return Ok(None);
        }
        let time = time_of(append.newest_time, stamp, rule, &*self.shared.clock)?;
        let seq = match rule {
            SeqRule::Next => append.last_seq.next(),
            SeqRule::Staged(seq) => seq,
        };
        self.push_part(&mut append, part, seq, time, rule);
        self.publish_seq(&mut append, seq, time, rule);
        self.totals.source_bytes.fetch_add(write.source_bytes(), Ordering::Relaxed);
        Ok(Some(seq))
    }

    /// A write is complete: reads see it from now on.
    pub(super) fn publish_seq(&self, append: &mut super::Append, seq: Seq, time: TimeNs, rule: SeqRule) {
        if rule == SeqRule::Next {
            append.last_seq = seq;
            append.newest_time = time;
            append.covered_to = append.covered_to.max(time);
            self.visible_seq.store(seq.get(), Ordering::Release);
        }
    }

    /// Whether a segment has room for the open frame and `frames` more frames with `bytes` bytes in all and `entries` entries.
    fn has_room(&self, current: &CurrentSegment, frames: usize, bytes: u64, entries: usize) -> bool {
        let count = current.memtable.len() + entries;
        let footer = footer_bytes_max(count, current.frames.len() + frames + 1);
        let needed = current.offset + len_u64(FRAME_BYTES_MAX) + bytes + footer;
        count <= SEGMENT_ENTRIES_MAX && needed <= current.bytes
    }

    /// Appends a metadata record and makes it durable. `make` is called with the turn held, so what it has checked stays true;
    /// it gets the newest seq and its time.
    pub fn append_meta(
        &self,
        make: impl FnOnce(Seq, TimeNs) -> Result<Vec<MetaRecord>>,
        covered: Option<TimeNs>,
    ) -> Result<()> {
        let frame = self.place_meta(make, covered, || Ok(()))?;
        self.make_durable(frame)
    }

    /// Waits, working, until a frame that [`Group::place_meta`] returned is durable.
    pub fn make_durable(&self, frame: FrameNo) -> Result<()> {
        self.make_durable_below(frame.next())
    }

    /// Waits, working, until every frame below this one is durable.
    pub(super) fn make_durable_below(&self, frame: FrameNo) -> Result<()> {
        self.seal_below(frame);
        self.wait_durable(frame)
    }

    /// Appends metadata records to one frame, which is returned; not yet durable. `admit` has the last word: what it refuses leaves
    /// nothing behind.
    pub fn place_meta(
        &self,
        make: impl FnOnce(Seq, TimeNs) -> Result<Vec<MetaRecord>>,
        covered: Option<TimeNs>,
        admit: impl FnOnce() -> Result<()>,
    ) -> Result<FrameNo> {
        let turn = self.take_turn();
        if !self.shared.sabotage.on(Switch::BookmarkUndrained) {
            self.drain_captured(&turn)?;
        }
        self.settle(&turn, true)?;
        let (seq, newest) = {
            let append = self.append.lock();
            (append.last_seq, append.newest_time)
        };
        self.append_together(&turn, &make(seq, newest)?, covered, admit)
    }

    /// Takes over what was captured and makes room, so that a bookmark to come finds its place at once.
    pub fn make_way(&self) -> Result<()> {
        let turn = self.take_turn();
        self.check_writable()?;
        self.drain_captured(&turn)?;
        self.reserve_room(Purpose::Metadata, 2, 2 * len_u64(FRAME_BYTES_MAX), 0)
    }

    /// Appends metadata records to one frame, so that after a crash there are all of them or none; returns the frame. Not yet durable.
    /// `admit` is asked when nothing can fail any more, under the lock in which their place is taken. There is at least one record.
    pub(super) fn append_together(
        &self,
        _turn: &Turn<'_>,
        records: &[MetaRecord],
        covered: Option<TimeNs>,
        admit: impl FnOnce() -> Result<()>,
    ) -> Result<FrameNo> {
        self.check_writable()?;
        self.reserve_room(Purpose::Metadata, 2, 2 * len_u64(FRAME_BYTES_MAX), 0)?;
        let bodies: Vec<Vec<u8>> = records.iter().map(encoded).collect();
        let lens: Vec<usize> = bodies.iter().map(Vec::len).collect();
        let mut append = self.open_frame(|open| open.is_empty() || open.fits_metas(&lens))?;
        admit()?;
        if let Some(time) = covered {
            append.covered_to = append.covered_to.max(time);
        }
        let newest = append.newest_time;
        let mut frame = append.next_frame;
        for (record, body) in records.iter().zip(&bodies) {
            frame = self.push_meta(&mut append, record, body, newest);
        }
        drop(append);
        let mut catalog = self.catalog.write();
        records.iter().for_each(|record| catalog.apply(record));
        Ok(frame)
    }

    /// Appends metadata records to one frame, which is returned. Not yet durable.
    pub(super) fn append_records(
        &self,
        turn: &Turn<'_>,
        records: Vec<MetaRecord>,
        covered: Option<TimeNs>,
    ) -> Result<FrameNo> {
        self.append_together(turn, &records, covered, || Ok(()))
    }

    /// Takes one seq for a change of the timeline, and appends the records that say which: in one frame, so that after a crash there is
    /// all of it or nothing. `make` gets the seq and its time; the length of its records does not depend on them. Not yet durable.
    pub(super) fn append_marked(
        &self,
        turn: &Turn<'_>,
        volume: VolumeId,
        time: TimeNs,
        make: impl Fn(SeqTime) -> Vec<MetaRecord>,
    ) -> Result<(SeqTime, FrameNo)> {
        self.append_with(turn, &PreparedWrite::stage(volume), time, make)
    }

    /// As [`Group::append_marked`]; the seq is that of `write`, which has no payload.
    pub(super) fn append_with(
        &self,
        turn: &Turn<'_>,
        write: &PreparedWrite<'_>,
        time: TimeNs,
        make: impl Fn(SeqTime) -> Vec<MetaRecord>,
    ) -> Result<(SeqTime, FrameNo)> {
        self.check_writable()?;
        self.settle(turn, true)?;
        let lens: Vec<usize> =
            make(SeqTime { seq: Seq::ZERO, time }).iter().map(|record| encoded(record).len()).collect();
        self.reserve_room(Purpose::Metadata, 2, 2 * len_u64(FRAME_BYTES_MAX), write.entries_max())?;
        let parts: Vec<Part<'_>> = write.parts().collect();
        let mut append = self.open_frame(|open| {
            open.is_empty() || (parts.len() == 1 && open.fits(&parts[0]) && open.fits_metas(&lens))
        })?;
        let at = SeqTime { seq: append.last_seq.next(), time: append.newest_time.max(time) };
        let records = make(at);
        // The catalog knows before the seq can be seen, so no reader opens it as exact.
        records.iter().for_each(|record| self.catalog.write().apply(record));
        for part in parts {
            self.push_part(&mut append, part, at.seq, at.time, SeqRule::Next);
        }
        self.publish_seq(&mut append, at.seq, at.time, SeqRule::Next);
        let mut frame = FrameNo::ZERO;
        for record in &records {
            frame = self.push_meta(&mut append, record, &encoded(record), at.time);
        }
        Ok((at, frame))
    }

    /// Appends a metadata record to the open frame, which has room for it.
    fn push_meta(
        &self,
        append: &mut super::Append,
        record: &MetaRecord,
        body: &[u8],
        time: TimeNs,
    ) -> FrameNo {
        let open = append.open.as_mut().expect("a frame was opened for the record");
        if open.is_empty() {
            append.opened_at = self.shared.clock.now();
            append.oldest_at = append.opened_at;
        }
        let open = append.open.as_mut().expect("a frame was opened for the record");
        open.push_meta(body, time, |bytes| self.shared.key.digest(bytes));
        let frame = open.frame();
        let current = append.current.as_mut().expect("an open frame has a segment");
        current.metas.push((frame, record.clone()));
        frame
    }

    /// Says that nothing else was written up to `time`: the timeline covers it. What was captured before goes into the journal first, so
    /// that no frame says so that comes before it; if it cannot, the timeline stays as it is.
    pub fn cover(&self, time: TimeNs) {
        let turn = self.take_turn();
        if self.drain_captured(&turn).is_ok() {
            let mut append = self.append.lock();
            append.covered_to = append.covered_to.max(time);
        }
    }

    /// Makes everything appended so far durable; returns the seq up to which.
    pub fn flush(&self) -> Result<Seq> {
        let coalescing = self.coalescing();
        if self.capture().is_some() || coalescing != Coalescing::PerWrite {
            let turn = self.take_turn();
            self.drain_captured(&turn)?;
            self.settle(&turn, coalescing == Coalescing::PerBarrier)?;
        }
        self.flush_appended()
    }

    /// Makes durable what is in the journal, and leaves alone what was captured and not appended.
    pub fn flush_appended(&self) -> Result<Seq> {
        let (frame, seq) = {
            let mut append = self.append.lock();
            self.seal_open(&mut append);
            (append.next_frame, append.last_seq)
        };
        self.wait_durable(frame)?;
        Ok(seq)
    }

    fn reserve(&self, write: &PreparedWrite<'_>) -> Result<()> {
        let bytes = write.stored_bytes_max();
        let frames = usize::try_from(bytes / (1 << 20)).unwrap_or(usize::MAX).saturating_add(2);
        let overhead = len_u64(frames * (FRAME_BYTES_MAX - crate::limits::FRAME_PAYLOAD_BYTES_MAX));
        self.reserve_room(Purpose::Data, frames, bytes + overhead, write.entries_max())
    }

    /// Makes sure that `frames` more frames with `bytes` bytes in all and `entries` index entries can be taken without waiting.
    pub(super) fn reserve_room(
        &self,
        purpose: Purpose,
        frames: usize,
        bytes: u64,
        entries: usize,
    ) -> Result<()> {
        self.commit_until(|commit| commit.in_flight() + frames <= FRAMES_IN_FLIGHT_MAX)?;
        let fits = {
            let append = self.append.lock();
            append.current.as_ref().is_some_and(|current| {
                self.has_room(current, frames, bytes, entries) && !self.is_ripe(current, append.newest_time)
            })
        };
        if fits { Ok(()) } else { self.roll_segment(purpose, bytes) }
    }

    /// Makes sure that there is an open frame of which `suits` holds, sealing the one before if need be. The lock is handed on, since a
    /// flush may seal the frame as soon as it is free.
    pub(super) fn open_frame(
        &self,
        suits: impl Fn(&OpenFrame) -> bool,
    ) -> Result<MutexGuard<'_, super::Append>> {
        let mut append = self.append.lock();
        if append.open.as_ref().is_some_and(&suits) {
            return Ok(append);
        }
        let buffer = self.take_frame_buffer()?;
        self.seal_open(&mut append);
        let (frame, base_seq) = (append.next_frame, append.last_seq);
        let current = append.current.as_ref().expect("room was reserved in a segment");
        let context = FrameContext {
            store: self.shared.store.short(),
            segment: current.extent,
            segment_uuid: current.uuid.short(),
            offset: current.offset,
            frame,
            lineage: self.lineage,
            owner_epoch: self.shared.owner_epoch,
            previous_crc: current.previous_crc,
        };
        append.open = Some(OpenFrame::new(context, base_seq, buffer));
        Ok(append)
    }

    /// Seals the open frame when it has records, and queues it.
    pub(super) fn seal_open(&self, append: &mut super::Append) {
        if let Some(open) = append.open.take_if(|open| !open.is_empty()) {
            self.seal_frame(append, open);
        }
    }

    fn seal_frame(&self, append: &mut super::Append, open: OpenFrame) {
        let durable = FrameNo::new(self.durable_frame.load(Ordering::Acquire));
        let mut sealed = open.seal(append.covered_to, durable, self.manifest_records.load(Ordering::Acquire));
        sealed.captured_at = append.oldest_at;
        append.next_frame = sealed.header.frame.next();
        let covered_to = append.covered_to;
        let current = append.current.as_mut().expect("an open frame has a segment");
        note_frame(current, &sealed.entry, covered_to);
        let sealed = Arc::new(sealed);
        self.flight.write().insert((sealed.header.segment, sealed.first_sector()), sealed.clone());
        self.commit.lock().push(sealed);
        self.commit_changed.notify_all();
    }

    /// Appends an empty frame when the last one has nobody who vouches for it, and makes it durable: what came before it is then
    /// known to have been durable, so that damage to it is never taken for a torn tail.
    ///
    /// `clock`: also when only the clock of the group has moved since the last frame.
    pub fn vouch(&self, clock: bool) -> Result<()> {
        let frame = {
            let _turn = self.turn.lock();
            self.check_writable()?;
            let vouched = {
                let append = self.append.lock();
                let last = append.current.as_ref().and_then(|current| current.frames.last());
                let told = append
                    .current
                    .as_ref()
                    .is_some_and(|c| !c.frames.is_empty() && c.covered_to >= append.covered_to);
                let unused = append.open.as_ref().is_none_or(OpenFrame::is_empty);
                let empty =
                    |entry: &FrameEntry| entry.last_seq == entry.base_seq && entry.bytes == PAGE_BYTES;
                let nothing_in_doubt = last.is_none_or(empty);
                !unused || (nothing_in_doubt && (told || !clock))
            };
            if vouched {
                return Ok(());
            }
            self.reserve_room(Purpose::Metadata, 1, len_u64(FRAME_BYTES_MAX), 0)?;
            let mut append = self.open_frame(|_| true)?;
            let frame = append.next_frame;
            if let Some(open) = append.open.take() {
                self.seal_frame(&mut append, open);
            }
            frame
        };
        self.wait_durable(frame.next())
    }

    /// All that was appended so far is durable once every frame below this one is.
    pub fn appended_below(&self) -> FrameNo {
        let append = self.append.lock();
        let open = append.open.as_ref().filter(|open| !open.is_empty());
        open.map_or(append.next_frame, |open| open.frame().next())
    }

    /// Seals the open frame if it is below `frame`.
    pub(super) fn seal_below(&self, frame: FrameNo) {
        let mut append = self.append.lock();
        if append.open.as_ref().is_some_and(|open| open.frame() < frame) {
            self.seal_open(&mut append);
        }
    }

    /// Seals the open frame when it is older than `age_ns`.
    pub fn seal_aged(&self, age_ns: u64) {
        let now = self.shared.clock.now();
        self.note_drained(now);
        let mut append = self.append.lock();
        let aged = now.get().abs_diff(append.opened_at.get()) >= age_ns;
        if aged && append.open.as_ref().is_some_and(|open| !open.is_empty()) {
            self.seal_open(&mut append);
        }
    }

    /// Ends the current segment: its frames are queued, its memtable waits to be sealed. Called with the turn held.
    pub(super) fn freeze_current(&self, append: &mut super::Append) {
        self.seal_open(append);
        if let Some(open) = mem::take(&mut append.open) {
            drop(open);
        }
        if let Some(current) = append.current.take() {
            self.frozen.lock().push_back(super::Frozen::from_current(current));
            self.segment_ended.notify_all();
        }
    }
}

fn encoded(record: &MetaRecord) -> Vec<u8> {
    let mut body = Vec::new();
    record.encode(&mut body);
    body
}

/// The time of a write: the clock's, or the one given, which may not lie before the newest write.
pub(super) fn time_of(newest: TimeNs, stamp: Stamp, rule: SeqRule, clock: &dyn Clock) -> Result<TimeNs> {
    match stamp {
        Stamp::At(given) if given < newest && rule == SeqRule::Next => {
            Err(Error::TimeBackwards { given, newest })
        }
        Stamp::At(given) => Ok(given),
        Stamp::Captured(time) => Ok(time.max(newest)),
        Stamp::Now => Ok(clock.now().max(newest)),
    }
}

/// Enters a sealed frame into the books of its segment.
pub(super) fn note_frame(current: &mut CurrentSegment, entry: &FrameEntry, covered_to: TimeNs) {
    current.offset = entry.offset + entry.bytes;
    current.previous_crc = entry.crc;
    current.covered_to = covered_to;
    if current.first_time == TimeNs::ZERO {
        current.first_time = entry.first_time;
    }
    current.frames.push(*entry);
}

/// Upper bound of the footer of a segment with that many entries and frames, for the usual few volumes a segment.
fn footer_bytes_max(entries: usize, frames: usize) -> u64 {
    len_u64(entries * 25 + frames * 60 + (64 << 10))
}

/// The index entries of a record whose frame's payload starts at `payload_at`.
pub(crate) fn entries_of(
    record: &Record,
    segment: crate::units::ExtentId,
    payload_at: u64,
    sabotage: Sabotage,
) -> Vec<Entry> {
    match record.kind {
        RecordKind::Data => record.data_entries(segment, payload_at).collect(),
        RecordKind::Zero | RecordKind::Discard if sabotage.on(Switch::DropZeroRanges) => Vec::new(),
        RecordKind::Zero | RecordKind::Discard => {
            let content = if record.kind == RecordKind::Zero { Content::Zero } else { Content::Discarded };
            cells_of(record.range)
                .map(|(cell, mask)| {
                    let mask = if cell.level == 0 { mask } else { MASK_FULL };
                    Entry { key: Key::new(record.volume, cell, record.seq), mask, content }
                })
                .collect()
        }
        RecordKind::Meta | RecordKind::Stage | RecordKind::Interval => Vec::new(),
    }
}
