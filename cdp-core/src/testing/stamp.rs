//! Content that names itself: whoever reads it knows which write it came from and where it belongs.
//!
//! Every 16 bytes of a written sector hold two little-endian u64: `volume tag (16 bits) << 48 | byte offset / 16`, then the
//! [`Stamp`] of the write. So a read that returns the right version of the wrong place, a torn mixture of two versions, or
//! the version of a state that was given up is told apart from what should be there, and is named.

use crate::units::SECTOR_LEN;
use std::fmt;

/// Bytes of one self-describing unit.
const UNIT_LEN: usize = 16;
const TAG_SHIFT: u32 = 48;
/// Above this a stamp is not one: no test makes so many writes.
const STAMP_MAX: Stamp = Stamp(1 << 40);

/// Names a write for good: unlike a seq, which a write after a crash may take again, a stamp is never given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// Zeroes: never written, or written as zeroes, or discarded.
    pub const ZERO: Self = Self(0);

    /// The next stamp.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ZERO { f.write_str("zeroes") } else { write!(f, "write #{}", self.0) }
    }
}

/// Names a volume in its content; unique over all volumes that a model ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeTag(u16);

impl VolumeTag {
    /// The tag number `value`.
    pub const fn new(value: u16) -> Self {
        Self(value)
    }
}

/// What a sector turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The content of one write, at its place; or zeroes.
    Stamp(Stamp),
    /// The content of a write that belongs to another place.
    Misplaced {
        /// The volume it belongs to.
        tag: VolumeTag,
        /// The byte offset it belongs to.
        offset: u64,
        /// The write.
        stamp: Stamp,
    },
    /// Parts of several writes in one sector.
    Mixed(Stamp, Stamp),
    /// Nothing that was ever written.
    Garbage,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stamp(stamp) => write!(f, "{stamp}"),
            Self::Misplaced { tag, offset, stamp } => {
                write!(f, "{stamp} of volume tag {} offset {offset}", tag.0)
            }
            Self::Mixed(one, other) => write!(f, "a mixture of {one} and {other}"),
            Self::Garbage => f.write_str("bytes that nobody wrote"),
        }
    }
}

fn unit(tag: VolumeTag, offset: u64, stamp: Stamp) -> [u8; UNIT_LEN] {
    let mut unit = [0; UNIT_LEN];
    let place = (u64::from(tag.0) << TAG_SHIFT) | (offset / 16);
    unit[..8].copy_from_slice(&place.to_le_bytes());
    unit[8..].copy_from_slice(&stamp.0.to_le_bytes());
    unit
}

/// Fills `out`, which lies at byte `offset` of a volume, with the content of a write.
pub fn fill(tag: VolumeTag, offset: u64, stamp: Stamp, out: &mut [u8]) {
    if stamp == Stamp::ZERO {
        out.fill(0);
        return;
    }
    for (chunk, at) in out.chunks_exact_mut(UNIT_LEN).zip((offset..).step_by(UNIT_LEN)) {
        chunk.copy_from_slice(&unit(tag, at, stamp));
    }
}

/// Finds the first sector of `data`, which lies at byte `offset` of a volume, that does not hold the content of `stamp`.
pub fn first_difference(tag: VolumeTag, offset: u64, stamp: Stamp, data: &[u8]) -> Option<(u64, Found)> {
    let mut expected = [0; SECTOR_LEN];
    for (sector, at) in data.chunks_exact(SECTOR_LEN).zip((offset..).step_by(SECTOR_LEN)) {
        fill(tag, at, stamp, &mut expected);
        if sector != expected {
            return Some((at, inspect(tag, at, sector)));
        }
    }
    None
}

/// Says what one sector, which lies at byte `offset` of a volume, holds.
pub fn inspect(tag: VolumeTag, offset: u64, sector: &[u8]) -> Found {
    let mut first = None;
    for (chunk, at) in sector.chunks_exact(UNIT_LEN).zip((offset..).step_by(UNIT_LEN)) {
        let found = inspect_unit(tag, at, chunk);
        match (first, found) {
            (None, _) => first = Some(found),
            (Some(Found::Stamp(one)), Found::Stamp(other)) if one != other => {
                return Found::Mixed(one, other);
            }
            (Some(Found::Stamp(_)), Found::Stamp(_))
            | (Some(Found::Misplaced { .. }), Found::Misplaced { .. }) => {}
            _ => return Found::Garbage,
        }
    }
    first.unwrap_or(Found::Garbage)
}

fn inspect_unit(tag: VolumeTag, offset: u64, chunk: &[u8]) -> Found {
    let word = |range: std::ops::Range<usize>| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&chunk[range]);
        u64::from_le_bytes(bytes)
    };
    let (place, stamp) = (word(0..8), Stamp(word(8..16)));
    let found_tag = VolumeTag(u16::try_from(place >> TAG_SHIFT).unwrap_or(u16::MAX));
    let found_offset = (place & ((1 << TAG_SHIFT) - 1)) * 16;
    if place == 0 && stamp == Stamp::ZERO {
        Found::Stamp(Stamp::ZERO)
    } else if stamp == Stamp::ZERO || stamp > STAMP_MAX {
        Found::Garbage
    } else if found_tag == tag && found_offset == offset {
        Found::Stamp(stamp)
    } else {
        Found::Misplaced { tag: found_tag, offset: found_offset, stamp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::SECTOR_BYTES;

    /// Goal: a wrong sector is found and named. Method: one of each kind of wrongness in otherwise right data.
    #[test]
    fn the_first_wrong_sector_is_found_and_named() {
        let (tag, stamp) = (VolumeTag(3), Stamp(7));
        let mut data = vec![0; 4 * SECTOR_LEN];
        fill(tag, 8192, stamp, &mut data);
        assert_eq!(first_difference(tag, 8192, stamp, &data), None);
        let second = 8192 + SECTOR_BYTES;
        let case = |change: &dyn Fn(&mut [u8])| {
            let mut changed = data.clone();
            change(&mut changed[SECTOR_LEN..2 * SECTOR_LEN]);
            first_difference(tag, 8192, stamp, &changed)
        };
        let stale = case(&|sector| fill(tag, second, Stamp(6), sector));
        assert_eq!(stale, Some((second, Found::Stamp(Stamp(6)))));
        let torn = case(&|sector| fill(tag, second, Stamp(6), &mut sector[..256]));
        assert_eq!(torn, Some((second, Found::Mixed(Stamp(6), stamp))));
        let elsewhere = case(&|sector| fill(tag, 0, stamp, sector));
        assert_eq!(elsewhere, Some((second, Found::Misplaced { tag, offset: 0, stamp })));
        assert_eq!(case(&|sector| sector.fill(0)), Some((second, Found::Stamp(Stamp::ZERO))));
        assert_eq!(case(&|sector| sector[100] ^= 1), Some((second, Found::Garbage)));
    }
}
