//! Keys and entries of the version index.
//!
//! An entry is one version of one **cell** of a volume. A cell at level 0 is a block of 4 KiB; a cell at level `n` is an
//! aligned run of `16^n` blocks, which only zero ranges and discards use. Payload is indexed block by block, so that every
//! lookup is one binary search; ranges are cut into at most `2 * 15` cells a level, so that a discard of a whole disk is a
//! handful of entries.
//!
//! Order of keys: volume, first block, level descending (the widest first), seq descending (the newest first). It is the
//! pre-order walk of the tree of cells, so that one pass in key order meets every range before the blocks inside it.

use crate::units::{Block, ExtentId, SECTORS_PER_BLOCK, Seq, VolumeId};
use std::cmp::Reverse;

/// Levels of cells: 0 to 7, that is up to `16^7` blocks (1 TiB) a cell.
pub const CELL_LEVELS: u8 = 8;

/// A mask that covers all sectors of a block.
pub const MASK_FULL: u8 = 0xFF;

/// A cell: `16^level` blocks from `block`, which is a multiple of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// First block.
    pub block: Block,
    /// Level, below [`CELL_LEVELS`].
    pub level: u8,
}

impl Cell {
    /// Blocks in a cell of this level.
    pub const fn blocks_at(level: u8) -> u64 {
        1 << (4 * level as u32)
    }

    /// The cell of `level` that contains `block`.
    pub const fn containing(block: Block, level: u8) -> Self {
        let blocks = Self::blocks_at(level);
        Self { block: Block::new(block.get() / blocks * blocks), level }
    }
}

/// Position of an entry in the order of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Volume.
    pub volume: VolumeId,
    /// First block of the cell.
    pub block: Block,
    /// Level of the cell, widest first.
    pub level: Reverse<u8>,
    /// Version, newest first.
    pub seq: Reverse<Seq>,
}

impl Key {
    /// The key of a version of a cell.
    pub const fn new(volume: VolumeId, cell: Cell, seq: Seq) -> Self {
        Self { volume, block: cell.block, level: Reverse(cell.level), seq: Reverse(seq) }
    }

    /// The cell.
    pub const fn cell(&self) -> Cell {
        Cell { block: self.block, level: self.level.0 }
    }

    /// The version.
    pub const fn seq(&self) -> Seq {
        self.seq.0
    }
}

/// Where the content of a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Stored in a segment: the sectors of the mask, one after the other, from `sector` (counted from the start of the
    /// extent in units of 512 bytes).
    Data {
        /// The segment.
        segment: ExtentId,
        /// First sector within it; below 2^17.
        sector: u32,
        /// Keyed digest of the stored sectors; never 0.
        digest: u64,
    },
    /// Reads as zeroes: written so.
    Zero,
    /// Reads as zeroes: discarded.
    Discarded,
}

/// One version of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Volume, cell and version.
    pub key: Key,
    /// The sectors of the block that this version covers: one unbroken run of set bits, bit 0 the first sector.
    /// [`MASK_FULL`] at levels above 0.
    pub mask: u8,
    /// Where the content is.
    pub content: Content,
}

/// The mask of the sectors `from..to` (0 to 8) of a block.
pub fn mask_of(from: u64, to: u64) -> u8 {
    assert!(from < to && to <= SECTORS_PER_BLOCK, "a mask covers at least one sector of a block");
    let ones = 0xFFu8 >> (SECTORS_PER_BLOCK - (to - from));
    ones << from
}
