//! Cuts a range of sectors into cells: partly covered blocks at the edges, and between them the widest aligned cells.
//!
//! At most two edge blocks, and for each level but the widest at most `2 * 15` cells, in place of two of the widest: a range
//! within the largest volume gives at most [`CELLS_OF_RANGE_MAX`] cells. They come in the order of the index. Nothing fails.

use super::{CELL_LEVELS, Cell, MASK_FULL, mask_of};
use crate::{
    limits::VOLUME_BYTES_MAX,
    units::{BLOCK_BYTES, Block, SECTORS_PER_BLOCK, SectorRange, to_len},
};
use std::iter::FusedIterator;

/// Most cells of one range.
pub const CELLS_OF_RANGE_MAX: usize = 30 * (CELL_LEVELS as usize - 1)
    + (VOLUME_BYTES_MAX / BLOCK_BYTES / Cell::blocks_at(CELL_LEVELS - 1)) as usize;

/// The cells of a range; see [`cells_of`].
#[derive(Clone, Debug)]
pub struct CellsOf {
    next: u64,
    end: u64,
}

/// The cells that cover exactly `range`, each with the sectors of it that are covered: [`MASK_FULL`] but for single blocks.
pub const fn cells_of(range: SectorRange) -> CellsOf {
    CellsOf { next: range.start.get(), end: range.start.get().saturating_add(range.sectors) }
}

impl Iterator for CellsOf {
    type Item = (Cell, u8);

    fn next(&mut self) -> Option<(Cell, u8)> {
        if self.next >= self.end {
            return None;
        }
        let block = self.next / SECTORS_PER_BLOCK;
        let (from, left) = (self.next % SECTORS_PER_BLOCK, self.end - self.next);
        if from != 0 || left < SECTORS_PER_BLOCK {
            let to = (from + left).min(SECTORS_PER_BLOCK);
            self.next += to - from;
            return Some((Cell { block: Block::new(block), level: 0 }, mask_of(from, to)));
        }
        let mut level = 0;
        while level + 1 < CELL_LEVELS
            && block.is_multiple_of(Cell::blocks_at(level + 1))
            && left / SECTORS_PER_BLOCK >= Cell::blocks_at(level + 1)
        {
            level += 1;
        }
        self.next += Cell::blocks_at(level) * SECTORS_PER_BLOCK;
        Some((Cell { block: Block::new(block), level }, MASK_FULL))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let blocks = (self.end.saturating_sub(self.next)).div_ceil(SECTORS_PER_BLOCK);
        (usize::from(blocks > 0), Some(to_len(blocks.min(1 << 31)).saturating_add(2)))
    }
}

impl FusedIterator for CellsOf {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Sector;

    fn cut(start: u64, sectors: u64) -> Vec<(Cell, u8)> {
        cells_of(SectorRange { start: Sector::new(start), sectors }).collect()
    }

    /// Goal: the cells cover exactly the range, once, in the order of the index. Method: every range of up to 600 sectors
    /// near two awkward places, painted sector by sector.
    #[test]
    fn cells_cover_a_range_exactly_and_ascend() {
        for base in [0u64, 16 * 8 - 5, 256 * 8 - 131] {
            for start in base..base + 9 {
                for sectors in 0..600u64 {
                    let mut painted = start;
                    let mut last = None;
                    for (cell, mask) in cut(start, sectors) {
                        assert!(last < Some(cell.block), "ascends");
                        last = Some(cell.block);
                        assert!(cell.block.get().is_multiple_of(Cell::blocks_at(cell.level)));
                        assert!(cell.level == 0 || mask == MASK_FULL);
                        let first = cell.block.get() * 8 + u64::from(mask.trailing_zeros());
                        assert_eq!(first, painted);
                        painted += if cell.level == 0 {
                            u64::from(mask.count_ones())
                        } else {
                            Cell::blocks_at(cell.level) * 8
                        };
                    }
                    assert_eq!(painted, start + sectors);
                }
            }
        }
    }

    /// Goal: the count is bounded. Method: the worst case, the largest volume but for one sector at each end, and one that
    /// is aligned and so is all of the widest cells.
    #[test]
    fn the_largest_range_gives_the_stated_number_of_cells() {
        let sectors = VOLUME_BYTES_MAX / 512;
        assert_eq!(cut(0, sectors).len(), 1 << 16);
        let worst = cut(1, sectors - 2);
        assert_eq!(worst.len(), CELLS_OF_RANGE_MAX);
    }
}
