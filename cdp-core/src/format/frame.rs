//! A frame: the unit of commit. Head page, payload, tail.
//!
//! The payload comes right after the head page, so that the place of a write is known the moment it enters the frame. The
//! stream of records begins in the head page and goes on in the tail.
//!
//! ```text
//!   0 magic "CDPF"   4 crc over head and tail   8 store   16 segment extent   24 segment uuid   32 offset in the segment
//!  40 frame number   48 base seq (last one before the frame)   56 last seq   64 covered to   72 durable frame
//!  80 lineage   88 owner epoch   96 manifest records durable   104 crc of the frame before   108 payload pages
//! 112 tail pages   116 records   120 bytes of the record stream   124 flags (0)   128 record stream
//! ```
//! *durable frame*: every frame with a lower number was synced before this frame was issued. The payload is covered by the
//! digests in the records; what lies between them is zero.

use super::{
    Malformed, PAGE_BYTES, PAGE_LEN, all_zero,
    digest::{DigestKey, crc_around},
    record::{DESCRIPTOR_LEN, Record, RecordKind},
    take_counter,
};
use crate::{
    limits::FRAME_BYTES_MAX,
    units::{ExtentId, FrameNo, Lineage, OwnerEpoch, SECTOR_BYTES, Seq, TimeNs, len_u64, to_len},
};
use bytes::{Buf, BufMut};

const MAGIC: u32 = u32::from_le_bytes(*b"CDPF");
const CRC_AT: usize = 4;
/// Length of the fixed fields of a frame header, bytes.
pub const FRAME_FIELDS_LEN: usize = 128;
/// Bytes of the record stream that fit the head page.
pub const STREAM_IN_HEAD: usize = PAGE_LEN - FRAME_FIELDS_LEN;

/// The fixed fields of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Short identity of the store.
    pub store: u64,
    /// The segment it lies in.
    pub segment: ExtentId,
    /// Short identity of that segment.
    pub segment_uuid: u64,
    /// Its offset in the segment, bytes.
    pub offset: u64,
    /// Its number.
    pub frame: FrameNo,
    /// The last seq before it.
    pub base_seq: Seq,
    /// The last seq that it completes, or the base seq.
    pub last_seq: Seq,
    /// The clock of the group when it was sealed.
    pub covered_to: TimeNs,
    /// Frames below this number were durable before it was issued.
    pub durable_frame: FrameNo,
    /// Its lineage.
    pub lineage: Lineage,
    /// Its owner.
    pub owner_epoch: OwnerEpoch,
    /// Number of manifest records that were durable before it was issued.
    pub manifest_records: u64,
    /// Checksum of the frame before it in the segment; that of the segment header page counts as the zeroth.
    pub previous_crc: u32,
    /// Length of the payload, pages.
    pub payload_pages: u32,
    /// Length of the tail, pages.
    pub tail_pages: u32,
    /// Number of records.
    pub records: u32,
    /// Length of the record stream, bytes.
    pub stream_bytes: u32,
}

impl FrameHeader {
    /// Length of the frame on the storage, bytes.
    pub fn bytes(&self) -> u64 {
        PAGE_BYTES * (1 + u64::from(self.payload_pages) + u64::from(self.tail_pages))
    }

    /// Offset of the tail within the frame, bytes.
    pub fn tail_offset(&self) -> u64 {
        PAGE_BYTES * (1 + u64::from(self.payload_pages))
    }

    /// First sector of the payload, counted from the start of the segment.
    pub fn payload_at(&self) -> u64 {
        (self.offset + PAGE_BYTES) / SECTOR_BYTES
    }

    /// Writes the header into the frame's head page. Payload and stream are in place already. Returns the checksum.
    pub fn encode_into(&self, frame: &mut [u8]) -> u32 {
        assert_eq!(len_u64(frame.len()), self.bytes(), "a frame is as long as it says");
        let mut fields = Vec::with_capacity(FRAME_FIELDS_LEN);
        fields.put_u32_le(MAGIC);
        fields.put_u32_le(0);
        fields.put_u64_le(self.store);
        fields.put_u64_le(self.segment.get());
        fields.put_u64_le(self.segment_uuid);
        fields.put_u64_le(self.offset);
        fields.put_u64_le(self.frame.get());
        fields.put_u64_le(self.base_seq.get());
        fields.put_u64_le(self.last_seq.get());
        fields.put_u64_le(self.covered_to.get());
        fields.put_u64_le(self.durable_frame.get());
        fields.put_u64_le(self.lineage.get());
        fields.put_u64_le(self.owner_epoch.get());
        fields.put_u64_le(self.manifest_records);
        fields.put_u32_le(self.previous_crc);
        fields.put_u32_le(self.payload_pages);
        fields.put_u32_le(self.tail_pages);
        fields.put_u32_le(self.records);
        fields.put_u32_le(self.stream_bytes);
        fields.put_u32_le(0);
        assert_eq!(fields.len(), FRAME_FIELDS_LEN);
        frame[..FRAME_FIELDS_LEN].copy_from_slice(&fields);
        let tail = to_len(self.tail_offset());
        let crc = crc_of(&frame[..PAGE_LEN], &frame[tail..]);
        frame[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads the fixed fields from a head page, before the checksum can be verified: lengths are within their limits,
    /// everything else is unverified until [`Frame::parse`].
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn peek(head: &[u8]) -> Result<Self, Malformed> {
        let mut input = head;
        if head.len() < PAGE_LEN || input.try_get_u32_le()? != MAGIC {
            return Err(Malformed("frame: no magic"));
        }
        input.advance(4);
        let header = Self {
            store: input.try_get_u64_le()?,
            segment: ExtentId::new(take_counter(&mut input)?),
            segment_uuid: input.try_get_u64_le()?,
            offset: input.try_get_u64_le()?,
            frame: FrameNo::new(take_counter(&mut input)?),
            base_seq: Seq::new(take_counter(&mut input)?),
            last_seq: Seq::new(take_counter(&mut input)?),
            covered_to: TimeNs::new(input.try_get_u64_le()?),
            durable_frame: FrameNo::new(take_counter(&mut input)?),
            lineage: Lineage::new(take_counter(&mut input)?),
            owner_epoch: OwnerEpoch::new(take_counter(&mut input)?),
            manifest_records: take_counter(&mut input)?,
            previous_crc: input.try_get_u32_le()?,
            payload_pages: input.try_get_u32_le()?,
            tail_pages: input.try_get_u32_le()?,
            records: input.try_get_u32_le()?,
            stream_bytes: input.try_get_u32_le()?,
        };
        let flags = input.try_get_u32_le()?;
        let stream_room = STREAM_IN_HEAD as u64 + u64::from(header.tail_pages) * PAGE_BYTES;
        if header.bytes() > len_u64(FRAME_BYTES_MAX) || u64::from(header.stream_bytes) > stream_room {
            return Err(Malformed("frame: longer than the limit"));
        }
        if flags != 0 || header.last_seq < header.base_seq {
            return Err(Malformed("frame: impossible fields"));
        }
        Ok(header)
    }
}

fn crc_of(head: &[u8], tail: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc_around(head, CRC_AT));
    hasher.update(tail);
    hasher.finalize()
}

/// Checks that the records follow each other: each seq is the next one, but for intervals, which may leap; the parts of a write are
/// unbroken and of one seq, nothing refers to a seq to come, and payload ascends without overlap.
fn check_row(header: &FrameHeader, records: &[Record]) -> Result<(), Malformed> {
    let mut last_seq = header.base_seq;
    let mut payload_end = 0;
    let mut inside_write = None;
    let mut seq_of_write = None;
    for record in records {
        if u64::from(record.payload_sector) < payload_end {
            return Err(Malformed("frame: payload out of order"));
        }
        payload_end = u64::from(record.payload_sector) + record.stored_sectors();
        if record.takes_seq() {
            // The beginning of a write may lie in an earlier frame; of an interval, parts may carry seqs that it leaps over.
            let in_order = match (record.first, seq_of_write) {
                (true, _) if record.kind == RecordKind::Interval => record.seq > last_seq,
                (true, _) => record.seq == last_seq.next(),
                (false, None) => record.seq > last_seq,
                (false, Some((seq, true))) => record.seq > last_seq && record.seq <= seq,
                (false, Some((seq, false))) => record.seq == seq,
            };
            let ends_elsewhere =
                record.last && seq_of_write.is_some_and(|(seq, _)| !record.first && seq != record.seq);
            if !in_order || ends_elsewhere || inside_write == Some(record.first) {
                return Err(Malformed("frame: seqs out of order"));
            }
            if record.first {
                seq_of_write = Some((record.seq, record.kind == RecordKind::Interval));
            }
            inside_write = Some(!record.last);
            if record.last {
                last_seq = record.seq;
            }
        } else if record.seq > last_seq || (record.kind == RecordKind::Meta && record.seq != last_seq) {
            return Err(Malformed("frame: a seq that is still to come"));
        }
    }
    if last_seq == header.last_seq { Ok(()) } else { Err(Malformed("frame: another last seq")) }
}

/// A verified frame: its header and records. The payload is verified by [`Frame::payload_damage`].
#[derive(Clone, Debug)]
pub struct Frame {
    /// The fixed fields.
    pub header: FrameHeader,
    /// The checksum, which the next frame repeats.
    pub crc: u32,
    /// The records in order.
    pub records: Vec<Record>,
}

/// Where a frame is expected to lie.
#[derive(Clone, Copy, Debug)]
pub struct FramePlace {
    /// Short identity of the store.
    pub store: u64,
    /// The segment.
    pub segment: ExtentId,
    /// Short identity of the segment.
    pub segment_uuid: u64,
    /// Offset in the segment, bytes.
    pub offset: u64,
}

impl Frame {
    /// Verifies a frame of which the head page and the tail are given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(head: &[u8], tail: &[u8], place: FramePlace) -> Result<Self, Malformed> {
        let header = FrameHeader::peek(head)?;
        if len_u64(tail.len()) != u64::from(header.tail_pages) * PAGE_BYTES || head.len() != PAGE_LEN {
            return Err(Malformed("frame: tail of another length"));
        }
        // The place first: it costs nothing, and a scan tries every page of a segment.
        let found = (header.store, header.segment, header.segment_uuid, header.offset);
        if found != (place.store, place.segment, place.segment_uuid, place.offset) {
            return Err(Malformed("frame: of another store or place"));
        }
        let crc = u32::from_le_bytes(head[CRC_AT..CRC_AT + 4].try_into().expect("four bytes"));
        if crc != crc_of(head, tail) {
            return Err(Malformed("frame: checksum"));
        }
        let mut stream = head[FRAME_FIELDS_LEN..].to_vec();
        stream.extend_from_slice(tail);
        let (used, rest) = stream.split_at(to_len(u64::from(header.stream_bytes)));
        if !all_zero(rest) {
            return Err(Malformed("frame: bytes behind the records"));
        }
        let payload_sectors = u64::from(header.payload_pages) * (PAGE_BYTES / SECTOR_BYTES);
        let mut input = used;
        let mut records = Vec::with_capacity(used.len() / DESCRIPTOR_LEN);
        while !input.is_empty() {
            records.push(Record::decode(&mut input, header.base_seq, payload_sectors)?);
        }
        if records.len() != to_len(u64::from(header.records)) {
            return Err(Malformed("frame: another number of records"));
        }
        check_row(&header, &records)?;
        Ok(Self { header, crc, records })
    }

    /// Checks the payload against the digests, and the gaps between for zero. Returns the damaged ranges, in sectors of the
    /// payload: `(first, sectors)`.
    pub fn payload_damage(&self, payload: &[u8], key: DigestKey) -> Vec<(u64, u64)> {
        let mut damaged = Vec::new();
        let mut next = 0u64;
        let total = len_u64(payload.len()) / SECTOR_BYTES;
        let sectors = |from: u64, count: u64| {
            payload
                .get(to_len(from * SECTOR_BYTES)..to_len((from + count) * SECTOR_BYTES))
                .unwrap_or_default()
        };
        let gap = |from: u64, to: u64, damaged: &mut Vec<(u64, u64)>| {
            if to > from && !all_zero(sectors(from, to - from)) {
                damaged.push((from, to - from));
            }
        };
        for record in &self.records {
            let parts: Vec<(u64, u64, u64)> = match record.kind {
                RecordKind::Meta => record
                    .digests
                    .iter()
                    .map(|digest| (u64::from(record.payload_sector), record.range.sectors, *digest))
                    .collect(),
                _ => record.stored_parts().map(|p| (p.payload_sector, p.sectors, p.digest)).collect(),
            };
            for (first, count, digest) in parts {
                gap(next, first, &mut damaged);
                let bytes = sectors(first, count);
                if bytes.is_empty() || key.digest(bytes) != digest {
                    damaged.push((first, count));
                }
                next = first + count;
            }
        }
        gap(next, total, &mut damaged);
        damaged
    }
}

/// The record stream of a frame under construction, laid into head page and tail.
pub fn place_stream(stream: &[u8], frame: &mut [u8], tail_offset: usize) {
    let in_head = stream.len().min(STREAM_IN_HEAD);
    frame[FRAME_FIELDS_LEN..FRAME_FIELDS_LEN + in_head].copy_from_slice(&stream[..in_head]);
    frame[FRAME_FIELDS_LEN + in_head..PAGE_LEN].fill(0);
    let tail = &mut frame[tail_offset..];
    let rest = &stream[in_head..];
    tail[..rest.len()].copy_from_slice(rest);
    tail[rest.len()..].fill(0);
}

/// Pages of tail that a record stream of this length needs.
pub fn tail_pages(stream_len: usize) -> usize {
    stream_len.saturating_sub(STREAM_IN_HEAD).div_ceil(PAGE_LEN)
}
