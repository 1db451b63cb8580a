//! A write made ready for the journal outside of any lock: digests taken, zero blocks found, cut into parts.
//!
//! Invariant *parts*: each part fits one frame, parts are cut at block boundaries, and a write of one part has no marks other
//! than first and last.

use crate::{
    format::{
        all_zero,
        digest::DigestKey,
        record::{Digests, Record, RecordKind, block_parts, blocks_touched},
    },
    index::cells_of,
    limits::FRAME_PAYLOAD_BYTES_MAX,
    units::{SECTOR_BYTES, SECTORS_PER_BLOCK, Sector, SectorRange, Seq, TimeNs, VolumeId, to_len},
};

/// Sectors of a range that one zero or discard record covers at most (1 TiB).
const RANGE_SECTORS_MAX: u64 = 1 << 31;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// Stores payload.
    Data,
    /// Writes zeroes.
    Zero,
    /// Discards.
    Discard,
    /// Takes a seq for staged writes to come.
    Stage,
}

/// A write that is ready for the journal.
pub struct PreparedWrite<'a> {
    kind: WriteKind,
    volume: VolumeId,
    range: SectorRange,
    data: &'a [u8],
    digests: Digests,
}

/// The first part of the writes of an interval; `time` is that of the first of them.
pub fn interval_part() -> Part<'static> {
    let record = Record {
        kind: RecordKind::Interval,
        first: true,
        last: false,
        staged: false,
        continues: false,
        volume: VolumeId::ZERO,
        range: SectorRange { start: Sector::ZERO, sectors: 0 },
        time: TimeNs::ZERO,
        seq: Seq::ZERO,
        payload_sector: 0,
        digests: Digests::new(),
    };
    Part { record, data: &[], stored_sectors: 0, lead_sectors: 0 }
}

/// One part of a write: what goes into one frame.
pub struct Part<'a> {
    /// The record, without seq, time and payload place, which the frame gives it.
    pub record: Record,
    /// The bytes of its range, for data.
    pub data: &'a [u8],
    /// Sectors of payload that it stores.
    pub stored_sectors: u64,
    /// Sectors of the leading partial block that it stores, for alignment.
    pub lead_sectors: u64,
}

impl<'a> PreparedWrite<'a> {
    /// Makes a data write ready: takes the digest of each block and finds the zero ones. Data that is all zeroes becomes a
    /// write of zeroes.
    pub fn data(volume: VolumeId, range: SectorRange, data: &'a [u8], key: DigestKey) -> Self {
        assert_eq!(data.len(), to_len(range.bytes()), "data is as long as its range");
        let mut at = 0;
        let digests: Digests = block_parts(range)
            .map(|part| {
                let bytes = &data[at..at + to_len(part.bytes())];
                at += bytes.len();
                if all_zero(bytes) { 0 } else { key.digest(bytes) }
            })
            .collect();
        Self::digested(volume, range, data, digests)
    }

    /// Makes a write of data ready whose digests are known: one for each block that it touches, 0 for zeroes.
    pub fn digested(volume: VolumeId, range: SectorRange, data: &'a [u8], digests: Digests) -> Self {
        assert_eq!(data.len(), to_len(range.bytes()), "data is as long as its range");
        assert_eq!(digests.len(), block_parts(range).count(), "a digest for each block");
        if digests.iter().all(|digest| *digest == 0) {
            return Self::range(volume, range, WriteKind::Zero);
        }
        Self { kind: WriteKind::Data, volume, range, data, digests }
    }

    /// Makes a write of zeroes or a discard ready.
    pub fn range(volume: VolumeId, range: SectorRange, kind: WriteKind) -> Self {
        Self { kind, volume, range, data: &[], digests: Digests::new() }
    }

    /// Takes a seq and writes nothing.
    pub fn stage(volume: VolumeId) -> Self {
        Self::range(volume, SectorRange { start: Sector::ZERO, sectors: 0 }, WriteKind::Stage)
    }

    /// What it does, where, and with which data.
    pub fn content(&self) -> (VolumeId, SectorRange, WriteKind, &'a [u8]) {
        (self.volume, self.range, self.kind, self.data)
    }

    /// Bytes of payload that the write stores: those of its blocks that are not zeroes.
    pub fn stored_bytes(&self) -> u64 {
        let parts = block_parts(self.range).zip(&self.digests);
        parts.filter(|(_, digest)| **digest != 0).map(|(part, _)| part.bytes()).sum()
    }

    /// Most bytes of payload that the write can need.
    pub fn stored_bytes_max(&self) -> u64 {
        if self.kind == WriteKind::Data { self.range.bytes() } else { 0 }
    }

    /// Its volume.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Bytes that the source wrote.
    pub fn source_bytes(&self) -> u64 {
        match self.kind {
            WriteKind::Data | WriteKind::Zero => self.range.bytes(),
            WriteKind::Discard | WriteKind::Stage => 0,
        }
    }

    /// Most index entries that the write can need.
    pub fn entries_max(&self) -> usize {
        match self.kind {
            WriteKind::Data => to_len(blocks_touched(self.range)),
            WriteKind::Zero | WriteKind::Discard => cells_of(self.range).count(),
            WriteKind::Stage => 0,
        }
    }

    /// Whether the write fits one frame.
    pub fn is_single(&self) -> bool {
        match self.kind {
            WriteKind::Data => to_len(self.range.bytes()) <= FRAME_PAYLOAD_BYTES_MAX,
            _ => self.range.sectors <= RANGE_SECTORS_MAX,
        }
    }

    /// The parts in order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let step = match self.kind {
            WriteKind::Data => FRAME_PAYLOAD_BYTES_MAX as u64 / SECTOR_BYTES,
            _ => RANGE_SECTORS_MAX,
        };
        let (start, end) = (self.range.start.get(), self.range.end().get());
        let mut at = start;
        let mut begun = false;
        std::iter::from_fn(move || {
            if at >= end && begun {
                return None;
            }
            begun = true;
            // Cut at a block boundary of the volume, so that no block's digest spans two parts.
            let stop =
                if end - at <= step { end } else { (at + step) / SECTORS_PER_BLOCK * SECTORS_PER_BLOCK };
            let part = self.part(at, stop);
            at = stop;
            Some(part)
        })
    }

    fn part(&self, at: u64, stop: u64) -> Part<'_> {
        let (start, end) = (self.range.start.get(), self.range.end().get());
        let range = SectorRange { start: Sector::new(at), sectors: stop - at };
        let (kind, digests, data) = match self.kind {
            WriteKind::Data => {
                let first_block = self.range.start.block().get();
                let from = to_len(range.start.block().get() - first_block);
                let digests = self.digests[from..from + to_len(blocks_touched(range))].into();
                let bytes = to_len((at - start) * SECTOR_BYTES)..to_len((stop - start) * SECTOR_BYTES);
                (RecordKind::Data, digests, &self.data[bytes])
            }
            WriteKind::Zero => (RecordKind::Zero, Digests::new(), &[][..]),
            WriteKind::Discard => (RecordKind::Discard, Digests::new(), &[][..]),
            WriteKind::Stage => (RecordKind::Stage, Digests::new(), &[][..]),
        };
        let record = Record {
            kind,
            first: at == start,
            last: stop == end,
            staged: false,
            continues: false,
            volume: self.volume,
            range,
            time: TimeNs::ZERO,
            seq: Seq::ZERO,
            payload_sector: 0,
            digests,
        };
        let mut stored_sectors = 0;
        let mut lead_sectors = 0;
        for (index, (part, digest)) in block_parts(range).zip(&record.digests).enumerate() {
            if *digest != 0 {
                stored_sectors += part.sectors;
                if index == 0 && part.sectors < SECTORS_PER_BLOCK && range.sectors > part.sectors {
                    lead_sectors = part.sectors;
                }
            }
        }
        Part { record, data, stored_sectors, lead_sectors }
    }
}
