//! Comparing blocks with the newest state by their digests, so that the data of the store is not read.

use super::Group;
use crate::{
    error::Result,
    format::all_zero,
    index::{MASK_FULL, Piece},
    units::{BLOCK_LEN, Block, VolumeId, len_u64, to_len},
};
use std::ops::Range;

/// What the newest version of a block is known to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing that can be compared as a whole.
    Parts,
    Zeroes,
    Digest(u64),
}

impl Group {
    /// The parts of `data`, which stands for the blocks from `first` on, that may differ from the newest state: byte ranges within `data`
    /// of whole blocks, but for the last. Blocks that were written in parts always count as different. A difference is missed only
    /// when two contents have the same keyed 64-bit digest.
    ///
    /// # Errors
    /// `Damaged`, `Io` from the index.
    pub fn differing(&self, volume: VolumeId, first: u64, data: &[u8]) -> Result<Vec<Range<usize>>> {
        let blocks = data.len().div_ceil(BLOCK_LEN);
        let mut pieces = Vec::new();
        let view = self.view();
        view.resolve(volume, Block::new(first), len_u64(blocks), self.visible_seq(), &mut pieces)?;
        let mut known = vec![Known::Zeroes; blocks];
        for piece in pieces {
            if let Piece::Data { block, take, mask, digest, .. } = piece {
                let whole = take == MASK_FULL && mask == MASK_FULL;
                known[to_len(block.get() - first)] = if whole { Known::Digest(digest) } else { Known::Parts };
            }
        }
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (index, (block, known)) in data.chunks(BLOCK_LEN).zip(known).enumerate() {
            let equal = match known {
                Known::Parts => false,
                Known::Zeroes => all_zero(block),
                Known::Digest(digest) => {
                    block.len() == BLOCK_LEN && !all_zero(block) && self.shared.key.digest(block) == digest
                }
            };
            let at = index * BLOCK_LEN..index * BLOCK_LEN + block.len();
            match runs.last_mut() {
                _ if equal => {}
                Some(last) if last.end == at.start => last.end = at.end,
                _ => runs.push(at),
            }
        }
        Ok(runs)
    }
}
