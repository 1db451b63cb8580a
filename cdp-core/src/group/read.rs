//! Reading a volume at a seq: from the open frame, from frames on their way, from segments.
//!
//! Every byte that comes from the storage is verified by its digest before it is handed out. A mismatch is looked up once more with
//! the index as it is now (the version may have moved meanwhile) before it is reported as damage.

use super::Group;
use crate::{
    error::{Error, Result},
    format::PAGE_LEN,
    index::{MASK_FULL, Piece},
    io::AlignedBuf,
    sabotage::Switch,
    units::{
        BLOCK_LEN, Block, ExtentId, SECTOR_BYTES, SECTOR_LEN, SECTORS_PER_BLOCK, Sector, SectorRange, Seq,
        VolumeId, len_u64, to_len,
    },
};

/// Longest single read from the storage, bytes.
const READ_LEN_MAX: usize = 1 << 20;
/// Gap between two pieces that is read along rather than skipped, sectors.
const READ_GAP_SECTORS: u64 = 64;
/// Times that a read is resolved anew after a mismatch.
const ATTEMPTS: usize = 3;

/// A stored version that a read needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    segment: ExtentId,
    sector: u64,
    block: Block,
    take: u8,
    mask: u8,
    digest: u64,
    seq: Seq,
}

impl Wanted {
    fn sectors(&self) -> u64 {
        u64::from(self.mask.count_ones())
    }
}

/// A part of the caller's buffer: the range that it stands for.
struct Target<'a> {
    range: SectorRange,
    out: &'a mut [u8],
}

impl Target<'_> {
    fn zero(&mut self, start: Sector, sectors: u64) {
        let from = start.get().max(self.range.start.get());
        let to = (start.get() + sectors).min(self.range.end().get());
        if from < to {
            let first = self.range.start.get();
            self.out[to_len((from - first) * SECTOR_BYTES)..to_len((to - first) * SECTOR_BYTES)].fill(0);
        }
    }

    /// Copies the sectors of `take` out of the stored sectors of a version.
    fn copy(&mut self, wanted: &Wanted, stored: &[u8]) {
        let block = wanted.block.first_sector().get();
        let (start, end) = (self.range.start.get(), self.range.end().get());
        if wanted.take == MASK_FULL && block >= start && block + SECTORS_PER_BLOCK <= end {
            let to = to_len((block - start) * SECTOR_BYTES);
            self.out[to..to + BLOCK_LEN].copy_from_slice(stored);
            return;
        }
        let first_stored = u64::from(wanted.mask.trailing_zeros());
        for bit in 0..SECTORS_PER_BLOCK {
            let sector = block + bit;
            let wanted_here = wanted.take & (1 << bit) != 0;
            if !wanted_here || sector < start || sector >= end {
                continue;
            }
            let from = to_len((bit - first_stored) * SECTOR_BYTES);
            let to = to_len((sector - start) * SECTOR_BYTES);
            self.out[to..to + SECTOR_LEN].copy_from_slice(&stored[from..from + SECTOR_LEN]);
        }
    }
}

impl Group {
    /// Fills `out` with the content of `range` at `seq`. Ranges are checked by the caller.
    pub fn read_range(&self, volume: VolumeId, range: SectorRange, seq: Seq, out: &mut [u8]) -> Result<()> {
        assert_eq!(len_u64(out.len()), range.bytes(), "the buffer is as long as the range");
        let seq = if self.shared.sabotage.on(Switch::VisibilityOffByOne) { seq.next() } else { seq };
        let mut target = Target { range, out };
        let mut before = self.resolve(volume, range, seq, &mut target)?;
        for _ in 1..ATTEMPTS {
            match self.fetch(&before, &mut target) {
                Err(Error::Damaged(damage)) => {
                    let now = self.resolve(volume, range, seq, &mut target)?;
                    if now == before {
                        return Err(Error::Damaged(damage));
                    }
                    before = now;
                }
                outcome => return outcome,
            }
        }
        self.fetch(&before, &mut target)
    }

    fn resolve(
        &self,
        volume: VolumeId,
        range: SectorRange,
        seq: Seq,
        target: &mut Target<'_>,
    ) -> Result<Vec<Wanted>> {
        let first = range.start.block();
        let last = Sector::new(range.end().get() - 1).block();
        let mut pieces = Vec::new();
        self.view().resolve(volume, first, last.get() - first.get() + 1, seq, &mut pieces)?;
        let mut wanted = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece {
                Piece::Zero { start, sectors } => target.zero(start, sectors),
                Piece::Data { block, take, mask, segment, sector, digest, seq } => {
                    wanted.push(Wanted {
                        segment,
                        sector: u64::from(sector),
                        block,
                        take,
                        mask,
                        digest,
                        seq,
                    });
                }
            }
        }
        wanted.sort_unstable_by_key(|w| (w.segment, w.sector));
        Ok(wanted)
    }

    fn fetch(&self, wanted: &[Wanted], target: &mut Target<'_>) -> Result<()> {
        // What is still in memory is not on the storage yet: it must never lie within a range that is read from there.
        let mut on_storage = Vec::with_capacity(wanted.len());
        let mut scratch = [0u8; PAGE_LEN];
        for version in wanted {
            let stored = &mut scratch[..to_len(version.sectors() * SECTOR_BYTES)];
            if self.read_from_memory(version.segment, version.sector, stored) {
                self.deliver(version, stored, target)?;
            } else {
                on_storage.push(*version);
            }
        }
        let mut rest = &on_storage[..];
        while !rest.is_empty() {
            let (group, others) = rest.split_at(self.contiguous(rest));
            self.read_group(group, target)?;
            rest = others;
        }
        Ok(())
    }

    /// How many of the wanted versions are read in one go.
    fn contiguous(&self, wanted: &[Wanted]) -> usize {
        let first = wanted[0];
        let start = first.sector / SECTORS_PER_BLOCK * SECTORS_PER_BLOCK;
        let mut end = first.sector + first.sectors();
        let mut count = 1;
        for next in &wanted[1..] {
            let next_end = end.max(next.sector + next.sectors());
            let length = to_len((next_end - start) * SECTOR_BYTES).next_multiple_of(PAGE_LEN);
            if next.segment != first.segment || next.sector > end + READ_GAP_SECTORS || length > READ_LEN_MAX
            {
                break;
            }
            end = next_end;
            count += 1;
        }
        count
    }

    fn read_group(&self, wanted: &[Wanted], target: &mut Target<'_>) -> Result<()> {
        let segment = wanted[0].segment;
        let start = wanted[0].sector * SECTOR_BYTES / len_u64(PAGE_LEN) * len_u64(PAGE_LEN);
        let end = wanted.iter().map(|w| (w.sector + w.sectors()) * SECTOR_BYTES).max().unwrap_or(start);
        let len = to_len(end - start).next_multiple_of(PAGE_LEN);
        let mut buffer = self.take_read_buffer(len)?;
        let read = self.shared.handle(segment).and_then(|handle| {
            handle.read_at(start, &mut buffer[..len]).map_err(|error| {
                if error.kind() == std::io::ErrorKind::UnexpectedEof {
                    let seqs = (wanted[0].seq, wanted[0].seq);
                    self.shared.damage(
                        segment,
                        start,
                        len_u64(len),
                        seqs,
                        "the segment ends before its payload",
                    )
                } else {
                    Error::io("read", self.shared.storage.describe(segment), error)
                }
            })
        });
        let read = read.map_err(|error| match error {
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => self.shared.damage(
                segment,
                start,
                len_u64(len),
                (wanted[0].seq, wanted[0].seq),
                "the segment is missing",
            ),
            other => other,
        });
        let outcome = read.and_then(|()| {
            wanted.iter().try_for_each(|w| {
                let from = to_len(w.sector * SECTOR_BYTES - start);
                self.deliver(w, &buffer[from..from + to_len(w.sectors() * SECTOR_BYTES)], target)
            })
        });
        self.return_read_buffer(buffer);
        outcome
    }

    fn deliver(&self, wanted: &Wanted, stored: &[u8], target: &mut Target<'_>) -> Result<()> {
        let trusted = self.shared.sabotage.on(Switch::SkipDigestCheck);
        if !trusted && self.shared.key.digest(stored) != wanted.digest {
            let (offset, length) = (wanted.sector * SECTOR_BYTES, len_u64(stored.len()));
            let what = format!("payload of block {}", wanted.block);
            return Err(self.shared.damage(wanted.segment, offset, length, (wanted.seq, wanted.seq), &what));
        }
        target.copy(wanted, stored);
        Ok(())
    }

    /// Copies payload that is still in memory: in the open frame or in a frame on its way.
    fn read_from_memory(&self, segment: ExtentId, sector: u64, out: &mut [u8]) -> bool {
        {
            let flight = self.flight.read();
            let near = flight.range(..=(segment, sector)).next_back().map(|(_, frame)| frame.clone());
            drop(flight);
            if near.is_some_and(|frame| frame.header.segment == segment && frame.read(sector, out)) {
                return true;
            }
        }
        let append = self.append.lock();
        if append.open.as_ref().is_some_and(|open| open.read(segment, sector, out)) {
            return true;
        }
        // It may have been sealed between the two looks.
        let flight = self.flight.read();
        let near = flight.range(..=(segment, sector)).next_back().map(|(_, frame)| frame.clone());
        near.is_some_and(|frame| frame.header.segment == segment && frame.read(sector, out))
    }

    fn take_read_buffer(&self, len: usize) -> Result<AlignedBuf> {
        let pooled = self.read_pool.lock().pop();
        match pooled.filter(|buffer| buffer.len() >= len) {
            Some(buffer) => Ok(buffer),
            None => {
                AlignedBuf::new(len.max(READ_LEN_MAX)).map_err(|error| Error::io("allocate", "a read", error))
            }
        }
    }

    fn return_read_buffer(&self, buffer: AlignedBuf) {
        let mut pool = self.read_pool.lock();
        if pool.len() < 16 {
            pool.push(buffer);
        }
    }
}
