//! The digests of the newest state, to be compared with those of a source across a link ([`crate::resync`]).
//!
//! By digests they come from the index, and only blocks that were last written in parts are read; by bytes all payload is read, and so verified. A block that
//! cannot be read has none, and so differs from everything. Invariant *one state*: index and payload are looked at under one seq.

use super::{
    Group,
    compare::{How, Known, known_of},
};
use crate::{
    error::{Error, Result},
    index::Piece,
    resync::digest_of_block,
    units::{
        BLOCK_BYTES, BLOCK_LEN, Block, SECTOR_BYTES, Sector, SectorRange, Seq, VolumeId, len_u64, to_len,
    },
};
use std::ops::Range;

/// The digests of some blocks in their order.
#[derive(Debug, Default)]
pub(crate) struct BlockDigests {
    /// 0 for zeroes, `None` for what cannot be read.
    pub blocks: Vec<Option<u64>>,
    /// Bytes of payload that were read.
    pub store_bytes_read: u64,
}

/// Whose digests are taken.
#[derive(Clone, Copy)]
struct Of {
    volume: VolumeId,
    seq: Seq,
    how: How,
}

impl Group {
    /// The digests of the newest state of the blocks that a range touches, which ends with a block or with the volume.
    ///
    /// # Errors
    /// `Io` from the storage. Damage is no error: it is in the answer.
    pub fn digests(&self, volume: VolumeId, range: Range<u64>, how: How) -> Result<BlockDigests> {
        let mut found = BlockDigests::default();
        self.digests_of_part(Of { volume, seq: self.visible_seq(), how }, range, &mut found)?;
        Ok(found)
    }

    /// Adds those of a range of bytes, in halves where the index cannot tell all of it.
    fn digests_of_part(&self, of: Of, range: Range<u64>, found: &mut BlockDigests) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let (first, blocks) = blocks_of(&range);
        let mut pieces = Vec::new();
        match self.view().resolve(of.volume, first, blocks, of.seq, &mut pieces) {
            Ok(()) => {}
            Err(Error::Damaged(_)) if blocks == 1 => {
                found.blocks.push(None);
                return Ok(());
            }
            Err(Error::Damaged(_)) => {
                let middle = range.start + blocks / 2 * BLOCK_BYTES;
                self.digests_of_part(of, range.start..middle, found)?;
                return self.digests_of_part(of, middle..range.end, found);
            }
            Err(error) => return Err(error),
        }
        match of.how {
            How::Digests => self.digests_known(of, &range, &pieces, found),
            How::Bytes => {
                let stored = known_of(&pieces, first, to_len(blocks)).into_iter().map(stored_bytes).sum();
                self.digests_stored(of, range, stored, found)
            }
        }
    }

    fn digests_known(
        &self,
        of: Of,
        range: &Range<u64>,
        pieces: &[Piece],
        found: &mut BlockDigests,
    ) -> Result<()> {
        let (first, blocks) = blocks_of(range);
        for (index, known) in known_of(pieces, first, to_len(blocks)).into_iter().enumerate() {
            let start = range.start + len_u64(index) * BLOCK_BYTES;
            let block = start..(start + BLOCK_BYTES).min(range.end);
            match known {
                Known::Zeroes => found.blocks.push(Some(0)),
                Known::Digest(digest) if block.end - block.start == BLOCK_BYTES => {
                    found.blocks.push(Some(digest));
                }
                // What of the last block lies on the volume has a digest of its own.
                Known::Digest(_) | Known::Parts(_) => {
                    self.digests_stored(of, block, stored_bytes(known), found)?;
                }
            }
        }
        Ok(())
    }

    /// Adds the digests of what the store reads in a range, which has so many bytes of payload; block by block where it is damaged.
    fn digests_stored(
        &self,
        of: Of,
        range: Range<u64>,
        stored_bytes: u64,
        found: &mut BlockDigests,
    ) -> Result<()> {
        let mut read = vec![0; to_len(range.end - range.start)];
        let start = Sector::new(range.start / SECTOR_BYTES);
        let sectors = SectorRange { start, sectors: len_u64(read.len()) / SECTOR_BYTES };
        match self.read_range(of.volume, sectors, of.seq, &mut read) {
            Ok(()) => {}
            Err(Error::Damaged(_)) if range.end - range.start <= BLOCK_BYTES => {
                found.blocks.push(None);
                return Ok(());
            }
            Err(Error::Damaged(_)) => {
                let middle = range.start + blocks_of(&range).1 / 2 * BLOCK_BYTES;
                self.digests_stored(of, range.start..middle, stored_bytes / 2, found)?;
                return self.digests_stored(of, middle..range.end, stored_bytes / 2, found);
            }
            Err(error) => return Err(error),
        }
        found.store_bytes_read += stored_bytes;
        let key = self.shared.key;
        found.blocks.extend(read.chunks(BLOCK_LEN).map(|block| Some(digest_of_block(key, block))));
        Ok(())
    }
}

/// The first block of a range that begins with one, and how many it touches.
fn blocks_of(range: &Range<u64>) -> (Block, u64) {
    (Block::new(range.start / BLOCK_BYTES), (range.end - range.start).div_ceil(BLOCK_BYTES))
}

/// Bytes of payload of a block.
fn stored_bytes(known: Known) -> u64 {
    match known {
        Known::Zeroes => 0,
        Known::Digest(_) => BLOCK_BYTES,
        Known::Parts(bytes) => bytes,
    }
}
