//! Seqs and times: which segment and frame hold a seq or a time.
//!
//! Times do not decrease with seqs, so both are found by bisection over segments, then over the frame table of one segment, then
//! among the records of one frame, which hold the times to the nanosecond.

use super::{Frozen, Group};
use crate::{
    error::{Damage, Error, Result, SeqTime},
    format::{
        Malformed, PAGE_BYTES, PAGE_LEN, Uuid,
        frame::{Frame, FrameHeader, FramePlace},
        frame_table::{ENTRIES_PER_PAGE, FrameEntry, TablePlace, decode_page},
        manifest::SealedSegment,
        record::Record,
    },
    io::{AlignedBuf, BatchRead},
    units::{ExtentId, Seq, TimeNs, len_u64, to_len},
};
use std::sync::Arc;

/// So much of the end of a frame is read along with its head: nearly every tail lies in it.
const TAIL_READ_LEN: usize = 16 << 10;

/// Where the frame table of a segment is.
#[derive(Clone)]
enum Table {
    Stored { extent: ExtentId, offset: u64, frames: u32 },
    Memory(Arc<[FrameEntry]>),
}

/// A segment in the row of seqs.
#[derive(Clone)]
pub(crate) struct SegmentLine {
    pub extent: ExtentId,
    pub uuid: Uuid,
    pub base_seq: Seq,
    pub last_seq: Seq,
    pub first_time: TimeNs,
    table: Table,
}

impl SegmentLine {
    pub fn sealed(sealed: &SealedSegment, uuid: Uuid) -> Self {
        let table =
            Table::Stored { extent: sealed.table_extent, offset: sealed.table_offset, frames: sealed.frames };
        Self {
            extent: sealed.extent,
            uuid,
            base_seq: sealed.base_seq,
            last_seq: sealed.last_seq,
            first_time: sealed.first_time,
            table,
        }
    }

    fn of_frames(extent: ExtentId, uuid: Uuid, base_seq: Seq, frames: &[FrameEntry]) -> Self {
        Self {
            extent,
            uuid,
            base_seq,
            last_seq: frames.last().map_or(base_seq, |entry| entry.last_seq),
            first_time: frames.iter().find(|f| f.timed_records > 0).map_or(TimeNs::ZERO, |f| f.first_time),
            table: Table::Memory(frames.into()),
        }
    }

    pub fn of_frozen(frozen: &Frozen) -> Self {
        Self::of_frames(frozen.extent, frozen.uuid, frozen.base_seq, &frozen.frames)
    }
}

impl Group {
    pub(super) fn add_line(&self, line: SegmentLine) {
        let mut lines = self.lines.write();
        let mut next: Vec<SegmentLine> = lines.to_vec();
        next.push(line);
        *lines = Arc::new(next);
    }

    /// Takes segments out of the row of seqs: they are gone.
    pub(super) fn remove_lines(&self, gone: impl Fn(&SegmentLine) -> bool) {
        let mut lines = self.lines.write();
        *lines = Arc::new(lines.iter().filter(|line| !gone(line)).cloned().collect());
    }

    /// All segments that complete at least one seq, in the order of seqs.
    pub(super) fn lines_of_seqs(&self) -> Vec<SegmentLine> {
        let mut append = self.append.lock();
        self.seal_open(&mut append);
        // Taken in this order a segment that is being sealed meanwhile may show twice, never not at all.
        let current =
            append.current.as_ref().map(|c| SegmentLine::of_frames(c.extent, c.uuid, c.base_seq, &c.frames));
        let frozen: Vec<SegmentLine> = self.frozen.lock().iter().map(SegmentLine::of_frozen).collect();
        drop(append);
        let mut lines: Vec<SegmentLine> =
            self.lines.read().iter().cloned().chain(frozen).chain(current).collect();
        lines.retain(|line| line.last_seq > line.base_seq);
        lines.sort_by_key(|line| (line.base_seq, line.extent));
        lines.dedup_by_key(|line| line.extent);
        lines
    }

    /// The last state of the full range at or before `time`; seq 0 when that is before the first write.
    pub fn seq_at(&self, time: TimeNs) -> Result<SeqTime> {
        let from = self.outline().full.from;
        let found = self.seq_in_lines(time)?;
        Ok(if found.seq < from.seq { from } else { found })
    }

    fn seq_in_lines(&self, time: TimeNs) -> Result<SeqTime> {
        let lines = self.lines_of_seqs();
        let count = lines.partition_point(|line| line.first_time <= time);
        let Some(line) = count.checked_sub(1).map(|index| &lines[index]) else {
            return Ok(SeqTime { seq: Seq::ZERO, time: TimeNs::ZERO });
        };
        let timed: Vec<FrameEntry> = self
            .frame_entries(line)?
            .iter()
            .filter(|entry| entry.last_seq > entry.base_seq)
            .copied()
            .collect();
        // The frame that completes a write of several parts knows the time of its last part only, which is the same.
        let count = timed.partition_point(|entry| entry.first_time <= time);
        let Some(entry) = count.checked_sub(1).map(|index| &timed[index]) else {
            return self.state_before(line.base_seq);
        };
        let frame = self.load_frame(line, entry)?;
        let found = completed(&frame).filter(|record| record.time <= time).last();
        found.map_or_else(
            || self.state_before(entry.base_seq),
            |record| Ok(SeqTime { seq: record.seq, time: record.time }),
        )
    }

    fn state_before(&self, seq: Seq) -> Result<SeqTime> {
        let from = self.outline().full.from;
        if seq < from.seq {
            return Ok(from);
        }
        Ok(SeqTime { seq, time: self.time_of_seq(seq)? })
    }

    /// The time of the write that made this state; that of seq 0 is 0.
    pub fn time_of_seq(&self, seq: Seq) -> Result<TimeNs> {
        if let Some(time) = self.outline().time_of(seq).or((seq == Seq::ZERO).then_some(TimeNs::ZERO)) {
            return Ok(time);
        }
        let lines = self.lines_of_seqs();
        let unknown = || {
            let view = self.view();
            let lost = view.lost.iter().find(|lost| lost.from_seq <= seq && seq <= lost.to_seq);
            lost.map_or_else(
                || Error::InvalidArgument(format!("there is no seq {seq}")),
                |lost| Error::Damaged(Box::new(lost.damage.clone())),
            )
        };
        let at = lines.partition_point(|line| line.last_seq < seq);
        let line = lines.get(at).filter(|line| line.base_seq < seq).ok_or_else(unknown)?;
        let entries = self.frame_entries(line)?;
        let entry =
            entries.iter().find(|entry| entry.base_seq < seq && seq <= entry.last_seq).ok_or_else(unknown)?;
        let frame = self.load_frame(line, entry)?;
        let time = completed(&frame).find(|record| record.seq == seq).map(|record| record.time);
        time.ok_or_else(unknown)
    }

    pub(super) fn frame_entries(&self, line: &SegmentLine) -> Result<Arc<[FrameEntry]>> {
        match &line.table {
            Table::Memory(entries) => Ok(entries.clone()),
            Table::Stored { extent, offset, frames } => {
                self.tables.get_or_insert_with(&(*extent, *offset), || {
                    let seqs = (line.base_seq, line.last_seq);
                    Ok(self.shared.read_frame_table(*extent, *offset, *frames, seqs)?.into())
                })
            }
        }
    }

    pub(super) fn load_frame(&self, line: &SegmentLine, entry: &FrameEntry) -> Result<Frame> {
        let in_memory = self.flight.read().get(&(line.extent, entry.offset / 512)).cloned();
        let place = FramePlace {
            store: self.shared.store.short(),
            segment: line.extent,
            segment_uuid: line.uuid.short(),
            offset: entry.offset,
        };
        let damage = |error: Malformed| {
            self.shared.damage(
                line.extent,
                entry.offset,
                entry.bytes,
                (entry.base_seq.next(), entry.last_seq),
                error.0,
            )
        };
        if let Some(frame) = in_memory {
            let (head, rest) = frame.bytes().split_at(PAGE_LEN);
            let tail = to_len(frame.header.tail_offset()) - PAGE_LEN;
            return Frame::parse(head, &rest[tail..], place).map_err(damage);
        }
        // The records lie in the head page and the tail; the payload in between is not looked at.
        let ends = self.read_ends(line.extent, entry)?;
        let (head, end) = ends[..ends_len(entry)].split_at(PAGE_LEN);
        let header = FrameHeader::peek(head).map_err(damage)?;
        if header.bytes() != entry.bytes {
            return Err(damage(Malformed("frame: of another length than its table says")));
        }
        let tail_len = to_len(entry.bytes - header.tail_offset());
        if let Some(before) = end.len().checked_sub(tail_len) {
            return Frame::parse(head, &end[before..], place).map_err(damage);
        }
        let tail = self.shared.read_extent(line.extent, entry.offset + header.tail_offset(), tail_len)?;
        Frame::parse(head, &tail[..tail_len], place).map_err(damage)
    }

    /// The head page of a frame and behind it, read at the same time, the last pages of it; all of a short one.
    fn read_ends(&self, extent: ExtentId, entry: &FrameEntry) -> Result<AlignedBuf> {
        let len = ends_len(entry);
        if len_u64(len) == entry.bytes {
            return self.shared.read_extent(extent, entry.offset, len);
        }
        let failed = |error| Error::io("read", self.shared.storage.describe(extent), error);
        let mut buffer = AlignedBuf::new(len).map_err(failed)?;
        let (head, end) = buffer[..len].split_at_mut(PAGE_LEN);
        let end_offset = entry.offset + entry.bytes - len_u64(end.len());
        let handle = self
            .shared
            .handle(extent)
            .map_err(|error| self.shared.missing(extent, entry.offset, len, error))?;
        let mut reads = [
            BatchRead { extent: &*handle, offset: entry.offset, buf: head },
            BatchRead { extent: &*handle, offset: end_offset, buf: end },
        ];
        for outcome in self.batches.read(&mut reads) {
            outcome.map_err(|error| self.shared.failed_read(extent, entry.offset, len, error))?;
        }
        Ok(buffer)
    }
}

/// How much of a frame [`Group::read_ends`] reads.
fn ends_len(entry: &FrameEntry) -> usize {
    to_len(entry.bytes).min(PAGE_LEN + TAIL_READ_LEN)
}

/// The records of a frame that complete a seq.
pub(super) fn completed(frame: &Frame) -> impl Iterator<Item = &Record> {
    frame.records.iter().filter(|record| record.takes_seq() && record.last)
}

impl super::Shared {
    /// Reads part of an extent into a fresh buffer.
    pub fn read_extent(&self, extent: ExtentId, offset: u64, len: usize) -> Result<AlignedBuf> {
        let failed = |error| Error::io("read", self.storage.describe(extent), error);
        let mut buffer = AlignedBuf::new(len).map_err(failed)?;
        self.read_into(extent, offset, &mut buffer[..len.next_multiple_of(PAGE_LEN)])?;
        Ok(buffer)
    }

    /// Fills whole pages of an aligned buffer from an extent.
    pub fn read_into(&self, extent: ExtentId, offset: u64, out: &mut [u8]) -> Result<()> {
        let len = out.len();
        let handle = self.handle(extent).map_err(|error| self.missing(extent, offset, len, error))?;
        handle.read_at(offset, out).map_err(|error| self.failed_read(extent, offset, len, error))
    }

    /// What it says of the store that an extent could not be opened: one that is gone is damage.
    fn missing(&self, extent: ExtentId, offset: u64, len: usize, error: Error) -> Error {
        match error {
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                self.damage(extent, offset, len_u64(len), (Seq::ZERO, Seq::MAX), "is missing")
            }
            other => other,
        }
    }

    /// What it says of the store that a read failed: an extent that is too short is damage.
    fn failed_read(&self, extent: ExtentId, offset: u64, len: usize, error: std::io::Error) -> Error {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            self.damage(extent, offset, len_u64(len), (Seq::ZERO, Seq::MAX), "ends before it should")
        } else {
            Error::io("read", self.storage.describe(extent), error)
        }
    }

    /// A damage error.
    pub fn damage(&self, extent: ExtentId, offset: u64, length: u64, seqs: (Seq, Seq), what: &str) -> Error {
        Error::Damaged(Box::new(Damage {
            extent,
            file: self.storage.describe(extent),
            offset,
            length,
            from_seq: seqs.0,
            to_seq: seqs.1,
            what: what.to_owned(),
        }))
    }

    /// Reads the frame table of a sealed segment.
    pub fn read_frame_table(
        &self,
        extent: ExtentId,
        offset: u64,
        frames: u32,
        seqs: (Seq, Seq),
    ) -> Result<Vec<FrameEntry>> {
        let frames = to_len(u64::from(frames));
        let pages = frames.div_ceil(ENTRIES_PER_PAGE);
        let bytes = self.read_extent(extent, offset, pages * PAGE_LEN)?;
        let mut entries = Vec::with_capacity(frames);
        for (index, page) in bytes[..pages * PAGE_LEN].chunks_exact(PAGE_LEN).enumerate() {
            let offset = offset + len_u64(index) * PAGE_BYTES;
            let place = TablePlace { store: self.store.short(), extent, offset };
            let decoded = decode_page(page, place);
            entries.extend(decoded.map_err(|error| self.damage(extent, offset, PAGE_BYTES, seqs, error.0))?);
        }
        if entries.len() != frames {
            return Err(self.damage(
                extent,
                offset,
                len_u64(pages * PAGE_LEN),
                seqs,
                "frame table: another number of frames",
            ));
        }
        Ok(entries)
    }
}
