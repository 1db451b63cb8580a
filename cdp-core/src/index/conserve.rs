//! The law that thinning must keep: what is visible at each kept point is the same before and after.
//!
//! Kept points cut the row of seqs into *classes* (see [`Classes`]). The newest version of a sector within a class is what the class
//! adds to the image at its point; the images at all points are the same exactly if each class adds the same. So one sum for each class
//! is enough: over the sectors that a version shows first in its class, of a hash of (volume, sector, seq, content). Beyond the newest
//! kept point every version is in a class of its own, and the sum is over all of them.
//!
//! Ranges of zeroes count by sector too, in closed form: their hash is linear in the number of the sector. This module decides nothing,
//! and shares nothing with [`super::thin`], which does: it is the other half of the proof.

use super::thin::{Class, Classes};
use crate::{
    format::packed::{PackedEntry, PackedKey},
    units::{SECTORS_PER_BLOCK, to_len},
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
    block: u64,
    shown: [Class; 8],
}

impl VisibleSums {
    /// Nothing seen yet.
    pub fn new(classes: Arc<Classes>) -> Self {
        let sums = vec![0; classes.points()];
        Self { classes, sums, beyond: 0, ranges: Vec::new(), block: u64::MAX, shown: [Class::NONE; 8] }
    }

    /// Takes the next version, in the order of the index; each once.
    pub fn take(&mut self, entry: &PackedEntry) {
        let class = self.classes.class_of(entry.key.seq());
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
        let sectors = (key.block() * 8, key.block_end() * 8);
        self.add(class, zero_sum(key.volume(), key.seq(), kind, sectors));
        if let Some((seq, kind)) = over {
            self.sub(class, zero_sum(key.volume(), seq, kind, sectors));
        }
        if let Some(range) = self.ranges.last_mut() {
            range.newest.push((class, key.seq(), kind));
        }
    }

    fn take_block(&mut self, entry: &PackedEntry, class: Class) {
        let (key, content) = (entry.key, entry.content);
        if key.cell != self.block {
            self.block = key.cell;
            self.shown = [Class::NONE; 8];
        }
        let over = self.newest_over(class);
        for bit in 0..SECTORS_PER_BLOCK {
            let is_covered = content.mask() >> bit & 1 == 1;
            if !is_covered || std::mem::replace(&mut self.shown[to_len(bit)], class) == class {
                continue;
            }
            let sector = key.block() * 8 + bit;
            let at = (sector, sector + 1);
            match over {
                Some((seq, _)) if seq >= key.seq() => continue,
                Some((seq, kind)) => self.sub(class, zero_sum(key.volume(), seq, kind, at)),
                None => {}
            }
            let shown = if content.is_data() {
                data_hash(key.volume(), sector, key.seq(), content.digest, content.mask())
            } else {
                zero_sum(key.volume(), key.seq(), content.kind(), at)
            };
            self.add(class, shown);
        }
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

/// The sum over the sectors `from..to` of the hash of zeroes: `a x sector + b`, where a and b stand for the version.
fn zero_sum(volume: u16, seq: u64, kind: u8, (from, to): (u64, u64)) -> u64 {
    let version = u64::from(volume) << 2 | u64::from(kind);
    let (a, b) = (mix(seq, version) | 1, mix(version ^ 0x5851_F42D_4C95_7F2D, seq));
    let count = u128::from(to - from);
    // The sum of the numbers of the sectors; exact before it is cut to 64 bits.
    let numbers = (u128::from(from) + u128::from(to) - 1) * count / 2;
    a.wrapping_mul(halves(numbers).0).wrapping_add(b.wrapping_mul(to - from))
}

/// The low and the high 64 bits.
const fn halves(wide: u128) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = wide.to_le_bytes();
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]))
}

fn data_hash(volume: u16, sector: u64, seq: u64, digest: u64, mask: u8) -> u64 {
    mix(mix(sector << 16 | u64::from(volume), seq), mix(digest, u64::from(mask)))
}

const fn mix(left: u64, right: u64) -> u64 {
    let product = (left ^ 0x9E37_79B9_7F4A_7C15) as u128 * (right ^ 0xD6E8_FEB8_6659_FD93) as u128;
    let (low, high) = halves(product);
    let folded = low ^ high;
    (folded ^ folded >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}
