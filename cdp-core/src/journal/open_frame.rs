//! The open frame: collects records until it is sealed, and the sealed frame that waits for its write and sync.
//!
//! The place of every payload is known as soon as it enters (it follows the head page), so index entries made then stay true.
//! Whole blocks are placed at 4 KiB boundaries, so that a later read of one touches one page of the storage.
//! Invariant *bounded*: a record enters only if head, payload and tail then still fit [`FRAME_BYTES_MAX`].

use super::prepared::Part;
use crate::{
    format::{
        PAGE_LEN,
        frame::{FrameHeader, place_stream, tail_pages},
        frame_table::FrameEntry,
        record::{DESCRIPTOR_LEN, Record, RecordKind},
    },
    io::AlignedBuf,
    limits::{FRAME_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX},
    units::{
        ExtentId, FrameNo, Lineage, OwnerEpoch, SECTOR_BYTES, SECTOR_LEN, SECTORS_PER_BLOCK, Seq, TimeNs,
        len_u64, to_len,
    },
};

/// What surrounds a frame: identities and positions that do not depend on its records.
#[derive(Clone, Copy, Debug)]
pub struct FrameContext {
    /// Short identity of the store.
    pub store: u64,
    /// The segment.
    pub segment: ExtentId,
    /// Short identity of the segment.
    pub segment_uuid: u64,
    /// Offset in the segment, bytes.
    pub offset: u64,
    /// Number of the frame.
    pub frame: FrameNo,
    /// Lineage.
    pub lineage: Lineage,
    /// Owner.
    pub owner_epoch: OwnerEpoch,
    /// Checksum of the frame before it.
    pub previous_crc: u32,
}

/// A frame that takes records.
pub struct OpenFrame {
    context: FrameContext,
    base_seq: Seq,
    last_seq: Seq,
    buffer: AlignedBuf,
    payload_sectors: u64,
    stream: Vec<u8>,
    records: u32,
    timed_records: u32,
    first_time: TimeNs,
    last_time: TimeNs,
}

/// A frame that is complete and waits to become durable.
pub struct SealedFrame {
    /// Its header.
    pub header: FrameHeader,
    /// Its line in the frame table.
    pub entry: FrameEntry,
    /// When its first record was captured, by the clock of the host.
    pub captured_at: TimeNs,
    bytes: AlignedBuf,
}

impl OpenFrame {
    /// An empty frame. `buffer` holds at least [`FRAME_BYTES_MAX`] bytes.
    pub fn new(context: FrameContext, base_seq: Seq, buffer: AlignedBuf) -> Self {
        assert!(buffer.len() >= FRAME_BYTES_MAX);
        Self {
            context,
            base_seq,
            last_seq: base_seq,
            buffer,
            payload_sectors: 0,
            stream: Vec::with_capacity(16 << 10),
            records: 0,
            timed_records: 0,
            first_time: TimeNs::ZERO,
            last_time: TimeNs::ZERO,
        }
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Its number.
    pub fn frame(&self) -> FrameNo {
        self.context.frame
    }

    /// The segment it will be written to.
    pub fn segment(&self) -> ExtentId {
        self.context.segment
    }

    /// Bytes of payload in it.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_sectors * SECTOR_BYTES
    }

    /// First sector of its payload in the segment.
    pub fn payload_at(&self) -> u64 {
        (self.context.offset + PAGE_LEN as u64) / SECTOR_BYTES
    }

    fn padding_for(&self, part_lead: u64, whole_blocks: bool) -> u64 {
        if whole_blocks {
            (SECTORS_PER_BLOCK - (self.payload_sectors + part_lead) % SECTORS_PER_BLOCK) % SECTORS_PER_BLOCK
        } else {
            0
        }
    }

    /// Whether a part fits.
    pub fn fits(&self, part: &Part<'_>) -> bool {
        self.fits_record(part.stored_sectors + SECTORS_PER_BLOCK, part.record.digests.len())
            || (self.is_empty() && to_len(part.stored_sectors * SECTOR_BYTES) <= FRAME_PAYLOAD_BYTES_MAX)
    }

    fn fits_record(&self, sectors: u64, words: usize) -> bool {
        let payload = to_len((self.payload_sectors + sectors) * SECTOR_BYTES);
        let stream = self.stream.len() + DESCRIPTOR_LEN + 8 * (words + 1);
        payload <= FRAME_PAYLOAD_BYTES_MAX
            && PAGE_LEN * (1 + payload.div_ceil(PAGE_LEN) + tail_pages(stream)) <= FRAME_BYTES_MAX
    }

    /// Appends one part of a write. Returns the record as it stands in the frame, and the first sector of the frame's payload in
    /// the segment, for the index.
    ///
    /// # Panics
    /// When it does not fit, which the caller has checked.
    pub fn push(&mut self, part: Part<'_>, seq: Seq, time: TimeNs) -> (Record, u64) {
        assert!(self.fits(&part), "the caller checked that the part fits");
        let mut record = part.record;
        let whole_blocks = part.stored_sectors >= SECTORS_PER_BLOCK;
        let padding = self.padding_for(part.lead_sectors, whole_blocks);
        self.zero_payload(padding);
        record.seq = seq;
        record.time = time;
        record.payload_sector = u32::try_from(self.payload_sectors).expect("frames are small");
        if record.kind == RecordKind::Data {
            self.copy_payload(&record, part.data);
        }
        self.finish_record(&record);
        (record, self.payload_at())
    }

    /// Whether a metadata record of `len` bytes fits.
    pub fn fits_meta(&self, len: usize) -> bool {
        self.fits_record(len_u64(len.div_ceil(SECTOR_LEN)), 1)
    }

    /// Whether a record without payload and then metadata records of these lengths fit.
    pub fn fits_metas(&self, lens: &[usize]) -> bool {
        let sectors: u64 = lens.iter().map(|len| len_u64(len.div_ceil(SECTOR_LEN))).sum();
        self.fits_record(sectors, (DESCRIPTOR_LEN / 8 + 2) * (lens.len() + 1))
    }

    /// Appends a metadata record of which `digest_of` gives the digest over whole sectors.
    ///
    /// # Panics
    /// When it does not fit, which the caller has checked.
    pub fn push_meta(&mut self, body: &[u8], time: TimeNs, digest_of: impl FnOnce(&[u8]) -> u64) {
        assert!(self.fits_meta(body.len()), "the caller checked that the record fits");
        let sectors = len_u64(body.len().div_ceil(SECTOR_LEN));
        let start = PAGE_LEN + to_len(self.payload_sectors * SECTOR_BYTES);
        let payload_sector = u32::try_from(self.payload_sectors).expect("frames are small");
        self.zero_payload(sectors);
        self.buffer[start..start + body.len()].copy_from_slice(body);
        let digest = digest_of(&self.buffer[start..start + to_len(sectors * SECTOR_BYTES)]);
        let record = Record {
            kind: RecordKind::Meta,
            first: true,
            last: true,
            staged: false,
            continues: false,
            volume: crate::units::VolumeId::ZERO,
            range: crate::units::SectorRange { start: crate::units::Sector::ZERO, sectors },
            time,
            seq: self.last_seq,
            payload_sector,
            digests: [digest].into_iter().collect(),
        };
        self.finish_record(&record);
    }

    fn zero_payload(&mut self, sectors: u64) {
        let start = PAGE_LEN + to_len(self.payload_sectors * SECTOR_BYTES);
        self.buffer[start..start + to_len(sectors * SECTOR_BYTES)].fill(0);
        self.payload_sectors += sectors;
    }

    fn copy_payload(&mut self, record: &Record, data: &[u8]) {
        let first = record.range.start.get();
        let mut next = PAGE_LEN + to_len(self.payload_sectors * SECTOR_BYTES);
        for part in record.stored_parts() {
            let from = to_len((part.start.get() - first) * SECTOR_BYTES);
            let len = to_len(part.sectors * SECTOR_BYTES);
            self.buffer[next..next + len].copy_from_slice(&data[from..from + len]);
            next += len;
            self.payload_sectors += part.sectors;
        }
    }

    fn finish_record(&mut self, record: &Record) {
        record.encode(self.base_seq, &mut self.stream);
        self.records += 1;
        if record.takes_seq() {
            if self.timed_records == 0 {
                self.first_time = record.time;
            }
            self.timed_records += 1;
            self.last_time = record.time;
            if record.last {
                self.last_seq = record.seq;
            }
        }
    }

    /// Copies payload out of the open frame: `sectors` sectors from `sector` of the segment. `false` when they are not in it.
    pub fn read(&self, segment: ExtentId, sector: u64, out: &mut [u8]) -> bool {
        let start = self.payload_at();
        let sectors = len_u64(out.len()) / SECTOR_BYTES;
        if segment != self.context.segment
            || sector < start
            || sector + sectors > start + self.payload_sectors
        {
            return false;
        }
        let from = PAGE_LEN + to_len((sector - start) * SECTOR_BYTES);
        out.copy_from_slice(&self.buffer[from..from + out.len()]);
        true
    }

    /// Completes the frame.
    pub fn seal(mut self, covered_to: TimeNs, durable_frame: FrameNo, manifest_records: u64) -> SealedFrame {
        let payload_len = to_len(self.payload_sectors * SECTOR_BYTES);
        let payload_pages = payload_len.div_ceil(PAGE_LEN);
        let tail_offset = PAGE_LEN * (1 + payload_pages);
        self.buffer[PAGE_LEN + payload_len..tail_offset].fill(0);
        let tail_pages = tail_pages(self.stream.len());
        let header = FrameHeader {
            store: self.context.store,
            segment: self.context.segment,
            segment_uuid: self.context.segment_uuid,
            offset: self.context.offset,
            frame: self.context.frame,
            base_seq: self.base_seq,
            last_seq: self.last_seq,
            covered_to,
            durable_frame,
            lineage: self.context.lineage,
            owner_epoch: self.context.owner_epoch,
            manifest_records,
            previous_crc: self.context.previous_crc,
            payload_pages: u32::try_from(payload_pages).expect("frames are small"),
            tail_pages: u32::try_from(tail_pages).expect("frames are small"),
            records: self.records,
            stream_bytes: u32::try_from(self.stream.len()).expect("frames are small"),
        };
        let len = to_len(header.bytes());
        let frame = &mut self.buffer[..len];
        place_stream(&self.stream, frame, tail_offset);
        let crc = header.encode_into(frame);
        let entry = FrameEntry {
            offset: header.offset,
            bytes: header.bytes(),
            frame: header.frame,
            base_seq: header.base_seq,
            last_seq: header.last_seq,
            first_time: self.first_time,
            last_time: self.last_time,
            crc,
            timed_records: self.timed_records,
        };
        SealedFrame { header, entry, captured_at: TimeNs::ZERO, bytes: self.buffer }
    }
}

impl SealedFrame {
    /// The bytes to be written at the frame's offset.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..to_len(self.header.bytes())]
    }

    /// First sector of the frame in its segment.
    pub fn first_sector(&self) -> u64 {
        self.header.offset / SECTOR_BYTES
    }

    /// Copies sectors out of the frame; `false` when they are not in it.
    pub fn read(&self, sector: u64, out: &mut [u8]) -> bool {
        let bytes = self.bytes();
        let from = sector.checked_sub(self.first_sector()).map(|sectors| to_len(sectors * SECTOR_BYTES));
        match from.and_then(|from| bytes.get(from..from + out.len())) {
            Some(found) => {
                out.copy_from_slice(found);
                true
            }
            None => false,
        }
    }

    /// Puts the frame at another place: into another segment after the first one failed.
    pub fn relocate(&self, context: FrameContext, mut buffer: AlignedBuf) -> Self {
        let header = FrameHeader {
            segment: context.segment,
            segment_uuid: context.segment_uuid,
            offset: context.offset,
            previous_crc: context.previous_crc,
            ..self.header.clone()
        };
        let len = self.bytes().len();
        buffer[..len].copy_from_slice(self.bytes());
        let crc = header.encode_into(&mut buffer[..len]);
        let entry = FrameEntry { offset: context.offset, crc, ..self.entry };
        Self { header, entry, captured_at: self.captured_at, bytes: buffer }
    }
}
