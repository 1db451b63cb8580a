//! Comparing content with the newest state: by the digests of the index, so that the payload of the store is not read, or byte by byte.
//!
//! By digests, only blocks that were last written in parts are read. What cannot be read, because the index or the payload is damaged, counts
//! as different: whoever has the content can give it back. Invariant *one state*: index and payload are looked at under one seq.

use super::Group;
use crate::{
    error::{Error, Result},
    format::all_zero,
    index::{MASK_FULL, Piece},
    resync::digest_of_block,
    units::{
        BLOCK_BYTES, BLOCK_LEN, Block, SECTOR_BYTES, SECTORS_PER_BLOCK, Sector, SectorRange, Seq, VolumeId,
        len_u64, to_len,
    },
};
use std::ops::Range;

/// How content is compared with the newest state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By the keyed 64-bit digests of the index.
    Digests,
    /// Byte by byte: the payload is read.
    Bytes,
}

/// Content that stands for blocks of a volume.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    /// These bytes.
    Data(&'a [u8]),
    /// These bytes, with the digests of their blocks as frames have them: 0 for zeroes.
    Digested(&'a [u8], &'a [u64]),
    /// So many zeroes.
    Zeroes(u64),
}

impl<'a> Content<'a> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Data(data) | Self::Digested(data, _) => len_u64(data.len()),
            Self::Zeroes(bytes) => *bytes,
        }
    }

    /// The bytes, unless it is zeroes.
    pub fn data(&self) -> Option<&'a [u8]> {
        match self {
            Self::Data(data) | Self::Digested(data, _) => Some(data),
            Self::Zeroes(_) => None,
        }
    }

    /// The digests of the blocks of a range of bytes in it, if they are known.
    pub fn digests(&self, range: &Range<u64>) -> Option<&'a [u64]> {
        let Self::Digested(_, digests) = *self else { return None };
        digests.get(to_len(range.start / BLOCK_BYTES)..to_len(range.end.div_ceil(BLOCK_BYTES)))
    }

    /// The part of it that stands for a range of bytes in it.
    fn part(&self, range: &Range<u64>) -> Self {
        match self.data() {
            Some(data) => Self::Data(&data[to_len(range.start)..to_len(range.end)]),
            None => Self::Zeroes(range.end - range.start),
        }
    }
}

/// What a comparison has found. Ranges are bytes within the content, of whole blocks but for the last; ascending, merged.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// What differs.
    pub different: Vec<Range<u64>>,
    /// What of it differs because the store cannot read it.
    pub damaged: Vec<Range<u64>>,
    /// Bytes of payload that were read.
    pub store_bytes_read: u64,
}

impl Comparison {
    fn differs(&mut self, range: Range<u64>) {
        push_merged(&mut self.different, range);
    }

    fn is_damaged(&mut self, range: Range<u64>) {
        push_merged(&mut self.damaged, range.clone());
        self.differs(range);
    }
}

/// Adds a range behind others, as part of the last one where they touch.
pub(crate) fn push_merged(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// What is to be compared: the place of the content, and the state that it is compared with.
#[derive(Clone, Copy)]
struct Against {
    volume: VolumeId,
    first_block: u64,
    seq: Seq,
    how: How,
}

/// What the newest version of a block is known to be, by the index.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing that can be compared as a whole; so many bytes of payload.
    Parts(u64),
    Zeroes,
    Digest(u64),
}

/// What is known of `count` blocks from `first` on, of which these are the pieces.
pub(super) fn known_of(pieces: &[Piece], first: Block, count: usize) -> Vec<Known> {
    let mut known = vec![Known::Zeroes; count];
    for piece in pieces {
        if let Piece::Data { block, take, mask, digest, .. } = *piece {
            let slot = &mut known[to_len(block.get() - first.get())];
            *slot = match *slot {
                _ if take == MASK_FULL && mask == MASK_FULL => Known::Digest(digest),
                Known::Parts(bytes) => Known::Parts(bytes + sectors_bytes(mask)),
                _ => Known::Parts(sectors_bytes(mask)),
            };
        }
    }
    known
}

impl Group {
    /// Compares `content`, which stands for the blocks from `first_block` on, with the newest state. By digests, a difference is missed only
    /// when two contents have the same keyed 64-bit digest.
    ///
    /// # Errors
    /// `Io` from the storage. Damage is no error: it is in the answer.
    pub fn compare(
        &self,
        volume: VolumeId,
        first_block: u64,
        content: Content<'_>,
        how: How,
    ) -> Result<Comparison> {
        let against = Against { volume, first_block, seq: self.visible_seq(), how };
        let mut found = Comparison::default();
        self.compare_part(against, content, 0..content.bytes(), &mut found)?;
        Ok(found)
    }

    /// Compares a range of the content, in halves where the index cannot tell all of it.
    fn compare_part(
        &self,
        against: Against,
        content: Content<'_>,
        range: Range<u64>,
        found: &mut Comparison,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let blocks = (range.end - range.start).div_ceil(BLOCK_BYTES);
        let first = against.first_block + range.start / BLOCK_BYTES;
        let mut pieces = Vec::new();
        match self.view().resolve(against.volume, Block::new(first), blocks, against.seq, &mut pieces) {
            Ok(()) => {}
            Err(Error::Damaged(_)) if blocks == 1 => {
                found.is_damaged(range);
                return Ok(());
            }
            Err(Error::Damaged(_)) => {
                let middle = range.start + blocks / 2 * BLOCK_BYTES;
                self.compare_part(against, content, range.start..middle, found)?;
                return self.compare_part(against, content, middle..range.end, found);
            }
            Err(error) => return Err(error),
        }
        match (content, against.how) {
            (Content::Zeroes(_), _) => self.compare_zeroes(against, content, &range, &pieces, found),
            (_, How::Digests) => self.compare_digests(against, content, &range, &pieces, found),
            (_, How::Bytes) => self.compare_bytes(against, content, &range, &pieces, found),
        }
    }

    /// Zeroes are compared by the index alone, but for blocks in parts: it never holds a whole block of zeroes as data.
    fn compare_zeroes(
        &self,
        against: Against,
        content: Content<'_>,
        range: &Range<u64>,
        pieces: &[Piece],
        found: &mut Comparison,
    ) -> Result<()> {
        let mut compared = None;
        for piece in pieces {
            let Piece::Data { block, take, mask, .. } = *piece else { continue };
            if compared == Some(block) {
                continue;
            }
            compared = Some(block);
            let at = self.range_of_block(against, block, range);
            if take == MASK_FULL && mask == MASK_FULL {
                found.differs(at);
            } else {
                self.compare_stored(against, content, at, sectors_bytes(mask), found)?;
            }
        }
        Ok(())
    }

    fn compare_digests(
        &self,
        against: Against,
        content: Content<'_>,
        range: &Range<u64>,
        pieces: &[Piece],
        found: &mut Comparison,
    ) -> Result<()> {
        let part = &content.data().unwrap_or_default()[to_len(range.start)..to_len(range.end)];
        let digests = content.digests(range);
        let digest_of = |index: usize, block: &[u8]| match digests {
            Some(digests) => digests[index],
            None => digest_of_block(self.shared.key, block),
        };
        let first = against.first_block + range.start / BLOCK_BYTES;
        let known = known_of(pieces, Block::new(first), part.len().div_ceil(BLOCK_LEN));
        let mut parts: Option<(Range<u64>, u64)> = None;
        for (index, (block, known)) in part.chunks(BLOCK_LEN).zip(known).enumerate() {
            let start = range.start + len_u64(index * BLOCK_LEN);
            let at = start..start + len_u64(block.len());
            if let Known::Parts(bytes) = known {
                // Neighbours are read together.
                let (run, all) = parts.take().unwrap_or((at.start..at.start, 0));
                parts = Some((run.start..at.end, all + bytes));
                continue;
            }
            if let Some((run, bytes)) = parts.take() {
                self.compare_stored(against, content, run, bytes, found)?;
            }
            let equal = match known {
                Known::Digest(digest) => block.len() == BLOCK_LEN && digest_of(index, block) == digest,
                Known::Zeroes | Known::Parts(_) => {
                    digests.map_or_else(|| all_zero(block), |digests| digests[index] == 0)
                }
            };
            if !equal {
                found.differs(at);
            }
        }
        match parts {
            Some((run, bytes)) => self.compare_stored(against, content, run, bytes, found),
            None => Ok(()),
        }
    }

    fn compare_bytes(
        &self,
        against: Against,
        content: Content<'_>,
        range: &Range<u64>,
        pieces: &[Piece],
        found: &mut Comparison,
    ) -> Result<()> {
        let stored: u64 = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Data { mask, .. } => sectors_bytes(*mask),
                Piece::Zero { .. } => 0,
            })
            .sum();
        self.compare_stored(against, content, range.clone(), stored, found)
    }

    /// Compares a range of the content with what the store reads there, which has so many bytes of payload; block by block where it is damaged.
    fn compare_stored(
        &self,
        against: Against,
        content: Content<'_>,
        range: Range<u64>,
        stored_bytes: u64,
        found: &mut Comparison,
    ) -> Result<()> {
        let mut read = vec![0; to_len(range.end - range.start)];
        let start = Sector::new(against.first_block * SECTORS_PER_BLOCK + range.start / SECTOR_BYTES);
        let sectors = SectorRange { start, sectors: len_u64(read.len()) / SECTOR_BYTES };
        match self.read_range(against.volume, sectors, against.seq, &mut read) {
            Ok(()) => {}
            Err(Error::Damaged(_)) if range.end - range.start <= BLOCK_BYTES => {
                found.is_damaged(range);
                return Ok(());
            }
            Err(Error::Damaged(_)) => {
                let blocks = (range.end - range.start).div_ceil(BLOCK_BYTES);
                let middle = range.start + blocks / 2 * BLOCK_BYTES;
                self.compare_stored(against, content, range.start..middle, stored_bytes / 2, found)?;
                return self.compare_stored(against, content, middle..range.end, stored_bytes / 2, found);
            }
            Err(error) => return Err(error),
        }
        found.store_bytes_read += stored_bytes;
        let own = content.part(&range).data();
        if own == Some(&read[..]) {
            return Ok(());
        }
        for (index, block) in read.chunks(BLOCK_LEN).enumerate() {
            let at = index * BLOCK_LEN..index * BLOCK_LEN + block.len();
            let equal = own.map_or_else(|| all_zero(block), |own| own[at.clone()] == *block);
            if !equal {
                found.differs(range.start + len_u64(at.start)..range.start + len_u64(at.end));
            }
        }
        Ok(())
    }

    /// Where a block lies in the content, cut at the end of what is looked at.
    fn range_of_block(&self, against: Against, block: Block, range: &Range<u64>) -> Range<u64> {
        let start = (block.get() - against.first_block) * BLOCK_BYTES;
        start..(start + BLOCK_BYTES).min(range.end)
    }
}

fn sectors_bytes(mask: u8) -> u64 {
    u64::from(mask.count_ones()) * SECTOR_BYTES
}
