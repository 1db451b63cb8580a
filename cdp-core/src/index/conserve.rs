//! The law that thinning must keep: what is visible at each kept point is the same before and after.
//!
//! Kept points cut the row of seqs into *classes* (see [`Classes`]). The newest version of a sector within a class is what the class
//! adds to the image at its point; the images at all points are the same exactly if each class adds the same. So one sum for each class
//! is enough: over the sectors that a version shows first in its class, of a hash of (volume, sector, seq, content). Beyond the newest
//! kept point every version is in a class of its own, and the sum is over all of them.
//!
//! The hash of a sector is linear in its number, with factors that stand for the version, so that ranges of any length count in closed
//! form. This module decides nothing, and shares no decision with [`super::thin`], which does: it is the other half of the proof.

use super::thin::{Class, Classes};
use crate::{
    format::packed::{PackedEntry, PackedKey},
    units::SECTORS_PER_BLOCK,
};
use std::sync::Arc;

/// A range cell that contains the place of the walk, and the newest of its versions in each class.
struct Range {
    key: PackedKey,
    /// Class, seq and kind, by descending class.
    newest: Vec<(Class, u64, u8)>,
}

/// Sums over what is visible, taken in one pass in the order of the index.
pub struct VisibleSums {
    classes: Arc<Classes>,
    sums: Vec<u64>,
    beyond: u64,
    ranges: Vec<Range>,
    /// The class of the last seq, with its first and last seq.
    last: (Class, u64, u64),
    /// The block, and the sectors of it that the class has shown.
    block: u64,
    class: Class,
    shown: u8,
}

/// For each mask, the sum of the positions of its bits.
const POSITIONS: [u8; 256] = {
    let mut sums = [0; 256];
    let mut mask = 1;
    while mask < 256 {
        let lowest = mask & (mask ^ (mask - 1));
        sums[mask] = sums[mask ^ lowest] + lowest.trailing_zeros().to_le_bytes()[0];
        mask += 1;
    }
    sums
};

/// Sectors, as the hash sees them: how many, and the sum of their numbers.
#[derive(Clone, Copy)]
struct Sectors {
    count: u64,
    numbers: u64,
}

impl Sectors {
    /// The sectors of a range of blocks.
    fn of_blocks(from: u64, to: u64) -> Self {
        let (from, to) = (from * SECTORS_PER_BLOCK, to * SECTORS_PER_BLOCK);
        // Exact before it is cut to 64 bits.
        let numbers = (u128::from(from) + u128::from(to) - 1) * u128::from(to - from) / 2;
        Self { count: to - from, numbers: halves(numbers).0 }
    }

    /// Some sectors of a block.
    fn of_mask(block: u64, mask: u8) -> Self {
        let count = u64::from(mask.count_ones());
        let positions = u64::from(POSITIONS[usize::from(mask)]);
        Self { count, numbers: (block * SECTORS_PER_BLOCK).wrapping_mul(count).wrapping_add(positions) }
    }

    /// The sum over the sectors of `a x sector + b`.
    const fn sum(self, (a, b): (u64, u64)) -> u64 {
        a.wrapping_mul(self.numbers).wrapping_add(b.wrapping_mul(self.count))
    }
}

impl VisibleSums {
    /// Nothing seen yet.
    pub fn new(classes: Arc<Classes>) -> Self {
        let sums = vec![0; classes.points()];
        Self {
            classes,
            sums,
            beyond: 0,
            ranges: Vec::new(),
            last: (Class::NONE, 1, 0),
            block: u64::MAX,
            class: Class::NONE,
            shown: 0,
        }
    }

    /// Takes the next version, in the order of the index; each once.
    pub fn take(&mut self, entry: &PackedEntry) {
        let seq = entry.key.seq();
        if seq < self.last.1 || seq > self.last.2 {
            let class = self.classes.class_of(seq);
            let (first, last) = self.classes.span(class);
            self.last = (class, first, last);
        }
        let class = self.last.0;
        if class == Class::BEYOND {
            // Where the content lies does not matter, and it is not moved there.
            self.beyond = self.beyond.wrapping_add(entry.hash());
            return;
        }
        while self.ranges.last().is_some_and(|range| !contains(range.key, entry.key)) {
            self.ranges.pop();
        }
        if entry.key.level() == 0 { self.take_block(entry, class) } else { self.take_range(entry, class) }
    }

    fn take_range(&mut self, entry: &PackedEntry, class: Class) {
        let (key, kind) = (entry.key, entry.content.kind());
        let over = self.newest_over(class);
        if self.ranges.last().is_none_or(|range| range.key.cell != key.cell) {
            self.ranges.push(Range { key, newest: Vec::new() });
        }
        if over.is_some_and(|(seq, _)| seq >= key.seq()) {
            return;
        }
        let sectors = Sectors::of_blocks(key.block(), key.block_end());
        self.add(class, sectors.sum(zeroes(key.volume(), key.seq(), kind)));
        if let Some((seq, kind)) = over {
            self.sub(class, sectors.sum(zeroes(key.volume(), seq, kind)));
        }
        if let Some(range) = self.ranges.last_mut() {
            range.newest.push((class, key.seq(), kind));
        }
    }

    fn take_block(&mut self, entry: &PackedEntry, class: Class) {
        let (key, content) = (entry.key, entry.content);
        if key.cell != self.block || class != self.class {
            (self.block, self.class, self.shown) = (key.cell, class, 0);
        }
        let shows = content.mask() & !self.shown;
        self.shown |= content.mask();
        if shows == 0 {
            return;
        }
        let sectors = Sectors::of_mask(key.block(), shows);
        match self.newest_over(class) {
            Some((seq, _)) if seq >= key.seq() => return,
            Some((seq, kind)) => self.sub(class, sectors.sum(zeroes(key.volume(), seq, kind))),
            None => {}
        }
        let version = if content.is_data() {
            data(key.volume(), key.seq(), content.digest, content.mask())
        } else {
            zeroes(key.volume(), key.seq(), content.kind())
        };
        self.add(class, sectors.sum(version));
    }

    /// The newest version of this class among the ranges around the place of the walk: seq and kind.
    fn newest_over(&self, class: Class) -> Option<(u64, u8)> {
        let of_class = self.ranges.iter().filter_map(|range| {
            let at = range.newest.binary_search_by(|(other, ..)| class.cmp(other)).ok()?;
            Some((range.newest[at].1, range.newest[at].2))
        });
        of_class.max()
    }

    fn add(&mut self, class: Class, sum: u64) {
        if let Some(total) = self.sums.get_mut(class.index()) {
            *total = total.wrapping_add(sum);
        }
    }

    fn sub(&mut self, class: Class, sum: u64) {
        self.add(class, sum.wrapping_neg());
    }

    /// Whether the same is visible at every kept point, and beyond.
    pub fn agrees(&self, other: &Self) -> bool {
        self.sums == other.sums && self.beyond == other.beyond
    }
}

/// Whether a range cell contains the cell of a key.
fn contains(range: PackedKey, key: PackedKey) -> bool {
    range.volume() == key.volume()
        && range.block() <= key.block()
        && key.block() < range.block_end()
        && range.level() >= key.level()
}

/// The factors of a version of zeroes.
const fn zeroes(volume: u16, seq: u64, kind: u8) -> (u64, u64) {
    let version = (volume as u64) << 2 | kind as u64;
    (mix(seq, version) | 1, mix(version ^ 0x5851_F42D_4C95_7F2D, seq))
}

/// The factors of a version that is stored.
const fn data(volume: u16, seq: u64, digest: u64, mask: u8) -> (u64, u64) {
    let version = mix(digest, seq << 8 | mask as u64);
    (mix(version, volume as u64) | 1, mix(seq, version))
}

/// The low and the high 64 bits.
const fn halves(wide: u128) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = wide.to_le_bytes();
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]))
}

const fn mix(left: u64, right: u64) -> u64 {
    let product = (left ^ 0x9E37_79B9_7F4A_7C15) as u128 * (right ^ 0xD6E8_FEB8_6659_FD93) as u128;
    let (low, high) = halves(product);
    let folded = low ^ high;
    (folded ^ folded >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}
