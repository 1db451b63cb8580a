//! Write records: the stream of descriptors inside a frame.
//!
//! ```text
//!   0 kind   1 flags   2 volume   4 sectors   8 first sector   16 time   24 seq - base seq of the frame   28 payload sector
//!  32 [staged: explicit seq]  [data: one digest per block touched, 0 = all zeroes and not stored]  [meta: one digest]
//! ```
//! The payload of a data record is the row of its blocks' stored parts, the zero ones left out. The parts of one write
//! carry the same seq; the first and the last are marked. A staged record (import, later resync and copies) carries a seq
//! that was taken earlier by a record of its own.
//!
//! The writes of an interval that were coalesced are one write whose parts have ranges of their own. Its first part is an interval
//! record: it carries the time of the first write, and its seq, that of the last one, leaps over those of the others.

use super::Malformed;
use crate::{
    index::{Content, Entry, Key, MASK_FULL, mask_of},
    limits::VOLUME_BYTES_MAX,
    units::{ExtentId, SECTOR_BYTES, SECTORS_PER_BLOCK, Sector, SectorRange, Seq, TimeNs, VolumeId},
};
use bytes::{Buf, BufMut};
use smallvec::SmallVec;

/// Length of a descriptor without its words, bytes.
pub const DESCRIPTOR_LEN: usize = 32;
/// First sector that no volume can have.
const VOLUME_SECTORS_MAX: u64 = VOLUME_BYTES_MAX / SECTOR_BYTES;
const FLAG_FIRST: u8 = 1;
const FLAG_LAST: u8 = 2;
const FLAG_STAGED: u8 = 4;
const FLAG_CONTINUES: u8 = 8;

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Writes payload.
    Data,
    /// Writes zeroes over a range.
    Zero,
    /// Discards a range; it reads as zeroes.
    Discard,
    /// Carries a metadata record as payload; takes no seq.
    Meta,
    /// Takes a seq and writes nothing: for staged records (an import, a resync), or for the opening or closing of a gap.
    Stage,
    /// Begins the writes of an interval that were coalesced into one.
    Interval,
}

impl RecordKind {
    const fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Zero => 2,
            Self::Discard => 3,
            Self::Meta => 4,
            Self::Stage => 5,
            Self::Interval => 6,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Data,
            2 => Self::Zero,
            3 => Self::Discard,
            4 => Self::Meta,
            5 => Self::Stage,
            6 => Self::Interval,
            _ => return None,
        })
    }
}

/// The digests of a record. Most writes are one block, whose digest needs no memory of its own.
pub type Digests = SmallVec<[u64; 2]>;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it does.
    pub kind: RecordKind,
    /// Whether it is the first part of its write.
    pub first: bool,
    /// Whether it is the last part of its write.
    pub last: bool,
    /// Whether its seq was taken earlier.
    pub staged: bool,
    /// Whether its interval goes on behind it, so that its state is no point. In a last part only.
    pub continues: bool,
    /// The volume; 0 for metadata.
    pub volume: VolumeId,
    /// The range; for metadata the length of the payload.
    pub range: SectorRange,
    /// Its time.
    pub time: TimeNs,
    /// Its seq; for metadata the last seq before it.
    pub seq: Seq,
    /// First sector of its payload in the payload of the frame.
    pub payload_sector: u32,
    /// Digests, one per block touched (0: zero and not stored), or one for metadata.
    pub digests: Digests,
}

impl Record {
    /// Whether the record (with its first and last part) takes a seq of the running order.
    pub fn takes_seq(&self) -> bool {
        self.kind != RecordKind::Meta && !self.staged
    }

    /// Appends the record; `base` is the base seq of its frame.
    pub fn encode(&self, base: Seq, out: &mut Vec<u8>) {
        let flags = if self.first { FLAG_FIRST } else { 0 }
            | if self.last { FLAG_LAST } else { 0 }
            | if self.staged { FLAG_STAGED } else { 0 }
            | if self.continues { FLAG_CONTINUES } else { 0 };
        let relative = if self.staged { 0 } else { self.seq.get() - base.get() };
        // As a whole: to grow the stream field by field costs more than the fields.
        let mut descriptor = [0; DESCRIPTOR_LEN];
        let mut rest = &mut descriptor[..];
        rest.put_u8(self.kind.code());
        rest.put_u8(flags);
        rest.put_u16_le(self.volume.get());
        rest.put_u32_le(u32::try_from(self.range.sectors).expect("records are cut to 2^31 sectors"));
        rest.put_u64_le(self.range.start.get());
        rest.put_u64_le(self.time.get());
        rest.put_u32_le(u32::try_from(relative).expect("a frame holds fewer than 2^32 records"));
        rest.put_u32_le(self.payload_sector);
        out.put_slice(&descriptor);
        if self.staged {
            out.put_u64_le(self.seq.get());
        }
        self.digests.iter().for_each(|digest| out.put_u64_le(*digest));
    }

    /// Takes one record off the front. `payload_sectors` bounds its payload.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(input: &mut &[u8], base: Seq, payload_sectors: u64) -> Result<Self, Malformed> {
        let kind = RecordKind::from_code(input.try_get_u8()?).ok_or(Malformed("record: unknown kind"))?;
        let flags = input.try_get_u8()?;
        if flags & !(FLAG_FIRST | FLAG_LAST | FLAG_STAGED | FLAG_CONTINUES) != 0 {
            return Err(Malformed("record: unknown flags"));
        }
        let staged = flags & FLAG_STAGED != 0;
        let volume = VolumeId::new(input.try_get_u16_le()?);
        let sectors = u64::from(input.try_get_u32_le()?);
        let start = Sector::new(input.try_get_u64_le()?);
        let time = TimeNs::new(input.try_get_u64_le()?);
        let relative = u64::from(input.try_get_u32_le()?);
        let payload_sector = input.try_get_u32_le()?;
        // Records of a volume that is not known yet (an import) are taken; those that no volume can hold are not.
        if start.checked_add(sectors).is_none_or(|end| end.get() > VOLUME_SECTORS_MAX) {
            return Err(Malformed("record: range past the end of any volume"));
        }
        let range = SectorRange { start, sectors };
        let seq = if staged {
            Seq::new(input.try_get_u64_le()?)
        } else {
            base.checked_add(relative).ok_or(Malformed("record: seq overflows"))?
        };
        let marked = flags & (FLAG_FIRST | FLAG_LAST) == FLAG_FIRST | FLAG_LAST;
        match kind {
            RecordKind::Stage if sectors != 0 || start != Sector::ZERO || staged || !marked => {
                return Err(Malformed("record: a stage with a range or flags"));
            }
            RecordKind::Meta if start != Sector::ZERO || volume != VolumeId::ZERO || staged || !marked => {
                return Err(Malformed("record: metadata with a place or flags"));
            }
            RecordKind::Interval
                if sectors != 0
                    || start != Sector::ZERO
                    || volume != VolumeId::ZERO
                    || staged
                    || flags & (FLAG_FIRST | FLAG_LAST) != FLAG_FIRST =>
            {
                return Err(Malformed("record: an interval with a place or flags"));
            }
            _ if flags & FLAG_CONTINUES != 0
                && (staged || kind == RecordKind::Meta || flags & FLAG_LAST == 0) =>
            {
                return Err(Malformed("record: something goes on behind it that cannot"));
            }
            RecordKind::Stage | RecordKind::Interval => {}
            _ if sectors == 0 => return Err(Malformed("record: empty range")),
            _ if staged && relative != 0 => return Err(Malformed("record: two seqs")),
            _ => {}
        }
        let words = match kind {
            RecordKind::Data => blocks_touched(range),
            RecordKind::Meta => 1,
            _ => 0,
        };
        if input.remaining() as u64 / 8 < words {
            return Err(Malformed("record: more digests than bytes"));
        }
        let digests = (0..words).map(|_| input.get_u64_le()).collect();
        let record = Self {
            kind,
            first: flags & FLAG_FIRST != 0,
            last: flags & FLAG_LAST != 0,
            staged,
            continues: flags & FLAG_CONTINUES != 0,
            volume,
            range,
            time,
            seq,
            payload_sector,
            digests,
        };
        if u64::from(payload_sector) + record.stored_sectors() > payload_sectors {
            return Err(Malformed("record: payload outside of the frame"));
        }
        Ok(record)
    }

    /// Sectors of payload that the record stores.
    pub fn stored_sectors(&self) -> u64 {
        match self.kind {
            RecordKind::Meta => self.range.sectors,
            RecordKind::Data => self.stored_parts().map(|part| part.sectors).sum(),
            _ => 0,
        }
    }

    /// The stored parts of a data record, block by block.
    pub fn stored_parts(&self) -> impl Iterator<Item = StoredPart> + '_ {
        let mut next = u64::from(self.payload_sector);
        block_parts(self.range).zip(&self.digests).filter(|(_, digest)| **digest != 0).map(
            move |(part, digest)| {
                let payload_sector = next;
                next += part.sectors;
                StoredPart { start: part.start, sectors: part.sectors, payload_sector, digest: *digest }
            },
        )
    }

    /// The index entries of a data record whose frame's payload starts at `payload_at` sectors into `segment`. Ranges of
    /// zeroes and discards are the caller's, who cuts them into cells.
    pub fn data_entries(&self, segment: ExtentId, payload_at: u64) -> impl Iterator<Item = Entry> + '_ {
        let mut next = payload_at + u64::from(self.payload_sector);
        block_parts(self.range).zip(&self.digests).map(move |(part, digest)| {
            let from = part.start.within_block();
            let mask = if part.sectors == SECTORS_PER_BLOCK {
                MASK_FULL
            } else {
                mask_of(from, from + part.sectors)
            };
            let cell = crate::index::Cell { block: part.start.block(), level: 0 };
            let content = if *digest == 0 {
                Content::Zero
            } else {
                let sector = u32::try_from(next).expect("segments are smaller than 2^32 sectors");
                next += part.sectors;
                Content::Data { segment, sector, digest: *digest }
            };
            Entry { key: Key::new(self.volume, cell, self.seq), mask, content }
        })
    }
}

/// A stored part of a data record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// First sector on the volume.
    pub start: Sector,
    /// Length, sectors; within one block.
    pub sectors: u64,
    /// First sector in the payload of the frame.
    pub payload_sector: u64,
    /// Its digest.
    pub digest: u64,
}

/// Number of blocks that a range touches.
pub fn blocks_touched(range: SectorRange) -> u64 {
    if range.sectors == 0 {
        return 0;
    }
    let last = Sector::new(range.end().get() - 1);
    last.block().get() - range.start.block().get() + 1
}

/// Cuts a range at block boundaries.
pub fn block_parts(range: SectorRange) -> impl Iterator<Item = SectorRange> {
    let mut at = range.start.get();
    let end = range.end().get();
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let stop = ((at / SECTORS_PER_BLOCK + 1) * SECTORS_PER_BLOCK).min(end);
        let part = SectorRange { start: Sector::new(at), sectors: stop - at };
        at = stop;
        Some(part)
    })
}
