//! What a volume holds at one point: which stamp each sector has, kept as ranges, so that its size does not matter.
//!
//! Invariant *ranges*: they do not overlap, none is empty, and none has the stamp of zeroes.

use super::stamp::Stamp;
use std::collections::BTreeMap;

/// Sectors that one write gave one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First sector.
    pub start: u64,
    /// First sector after it.
    pub end: u64,
    /// Their content.
    pub stamp: Stamp,
}

/// The content of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    ranges: BTreeMap<u64, (u64, Stamp)>,
}

impl Image {
    /// Overwrites a range.
    pub fn put(&mut self, piece: Piece) {
        let Piece { start, end, stamp } = piece;
        if start >= end {
            return;
        }
        if let Some((&before, &(before_end, before_stamp))) = self.ranges.range(..start).next_back()
            && before_end > start
        {
            self.ranges.insert(before, (start, before_stamp));
            if before_end > end {
                self.ranges.insert(end, (before_end, before_stamp));
            }
        }
        let covered: Vec<u64> = self.ranges.range(start..end).map(|(&at, _)| at).collect();
        for at in covered {
            if let Some((old_end, old_stamp)) = self.ranges.remove(&at)
                && old_end > end
            {
                self.ranges.insert(end, (old_end, old_stamp));
            }
        }
        if stamp != Stamp::ZERO {
            self.ranges.insert(start, (end, stamp));
        }
    }

    /// The pieces that make up `start..end`, without a hole, zeroes included.
    pub fn pieces(&self, start: u64, end: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = start;
        let before =
            self.ranges.range(..start).next_back().filter(|(_, (before_end, _))| *before_end > start);
        for (&from, &(to, stamp)) in before.into_iter().chain(self.ranges.range(start..end)) {
            let (from, to) = (from.max(start), to.min(end));
            if from > at {
                pieces.push(Piece { start: at, end: from, stamp: Stamp::ZERO });
            }
            pieces.push(Piece { start: from, end: to, stamp });
            at = to;
        }
        if at < end {
            pieces.push(Piece { start: at, end, stamp: Stamp::ZERO });
        }
        pieces
    }

    /// Sectors at which the content changes.
    pub fn edges(&self) -> Vec<u64> {
        self.ranges.iter().flat_map(|(&start, &(end, _))| [start, end]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::simulated::SimRng;

    /// Goal: an image is what the writes made of it. Method: random overlapping writes against an array of sectors.
    #[test]
    fn an_image_equals_an_array_of_sectors() {
        for seed in 0..50 {
            let mut rng = SimRng::new(seed);
            let (mut image, mut array, mut stamp) = (Image::default(), [Stamp::ZERO; 64], Stamp::ZERO);
            for _ in 0..40 {
                stamp = stamp.next();
                let start = rng.below(64);
                let end = start + 1 + rng.below(64 - start);
                let content = if rng.chance(0.3) { Stamp::ZERO } else { stamp };
                image.put(Piece { start, end, stamp: content });
                for sector in start..end {
                    array[usize::try_from(sector).unwrap()] = content;
                }
                let (from, to) = (rng.below(32), 32 + rng.below(33));
                let pieces = image.pieces(from, to);
                let flat: Vec<Stamp> =
                    pieces.iter().flat_map(|piece| (piece.start..piece.end).map(|_| piece.stamp)).collect();
                let expected = &array[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
                assert_eq!(flat, expected, "seed {seed}");
            }
        }
    }
}
