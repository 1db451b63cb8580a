//! Index entries as plain words: the one form that memory, pages and merges share.
//!
//! ```text
//! cell   volume:16 | first block:44 | 7 - level:3, in the low 4 bits
//! age    !seq: ascends from the newest version to the oldest
//! place  sector within the segment:17 << 10 | mask:8 << 2 | kind:2
//! ```
//! Invariants. *order*: ascending (cell, age) is the order of the index: volume, block, level descending, seq descending.
//! *canonical*: one version has one packed form, so that equal versions are equal words and have equal hashes; a zero or
//! discarded version has sector, segment and digest 0. Words that break it are refused by [`PackedEntry::check`]; nothing
//! else here fails.

use crate::{limits::VOLUME_BYTES_MAX, units::BLOCK_BYTES};
use std::cmp::Ordering;

/// Highest level of a cell.
pub const LEVEL_MAX: u8 = 7;
/// Bits of a block number: volumes end below it.
pub const BLOCK_BITS: u32 = 44;
/// First block number that no volume can have.
pub const BLOCK_END: u64 = 1 << BLOCK_BITS;
/// Seqs and extent numbers of an index lie below it, so that a base and a relative value never overflow.
pub const NUMBER_END: u64 = 1 << 63;
/// Bits of the first sector within a segment.
pub const SECTOR_BITS: u32 = 17;
/// Kind of a version that is stored in a segment.
pub const KIND_DATA: u8 = 0;
/// Kind of a version that was written as zeroes.
pub const KIND_ZERO: u8 = 1;
/// Kind of a version that was discarded.
pub const KIND_DISCARDED: u8 = 2;

const _: () = assert!(VOLUME_BYTES_MAX / BLOCK_BYTES <= BLOCK_END);

/// Place of an entry in the order of the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PackedKey {
    /// Volume, block and level.
    pub cell: u64,
    /// Bitwise complement of the seq.
    pub age: u64,
}

impl PackedKey {
    /// After every valid key.
    pub const END: Self = Self { cell: u64::MAX, age: u64::MAX };

    /// The key of a version; `block` is below [`BLOCK_END`] and `level` at most [`LEVEL_MAX`].
    pub const fn new(volume: u16, block: u64, level: u8, seq: u64) -> Self {
        debug_assert!(block < BLOCK_END && level <= LEVEL_MAX);
        Self { cell: (volume as u64) << 48 | block << 4 | (LEVEL_MAX - level) as u64, age: !seq }
    }

    /// Before every key of `block`, which may be [`BLOCK_END`], and after every key of the blocks before it.
    pub const fn before(volume: u16, block: u64) -> Self {
        debug_assert!(block <= BLOCK_END);
        match block {
            BLOCK_END => Self { cell: (volume as u64) << 48 | 0xFFFF_FFFF_FFFF, age: u64::MAX },
            _ => Self { cell: (volume as u64) << 48 | block << 4, age: 0 },
        }
    }

    /// Volume.
    pub const fn volume(self) -> u16 {
        let [low, high, ..] = (self.cell >> 48).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// First block of the cell.
    pub const fn block(self) -> u64 {
        self.cell >> 4 & (BLOCK_END - 1)
    }

    /// Level of the cell.
    pub const fn level(self) -> u8 {
        LEVEL_MAX - (self.cell & 7).to_le_bytes()[0]
    }

    /// Version.
    pub const fn seq(self) -> u64 {
        !self.age
    }

    /// Both words as one number of the same order.
    const fn wide(self) -> u128 {
        (self.cell as u128) << 64 | self.age as u128
    }

    /// Blocks of the cell.
    pub const fn blocks(self) -> u64 {
        1 << (4 * self.level() as u32)
    }

    /// First block after the cell.
    pub const fn block_end(self) -> u64 {
        self.block() + self.blocks()
    }

    /// Whether the words make sense: an aligned cell below the end of the largest volume, and a seq below [`NUMBER_END`].
    pub const fn is_valid(self) -> bool {
        self.cell & 8 == 0
            && self.block().is_multiple_of(self.blocks())
            && self.block_end() <= BLOCK_END
            && self.seq() < NUMBER_END
    }
}

impl PartialOrd for PackedKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
    // One comparison of 128 bits has no branch; two of 64 bits have.
    fn lt(&self, other: &Self) -> bool {
        self.wide() < other.wide()
    }
    fn le(&self, other: &Self) -> bool {
        self.wide() <= other.wide()
    }
    fn gt(&self, other: &Self) -> bool {
        self.wide() > other.wide()
    }
    fn ge(&self, other: &Self) -> bool {
        self.wide() >= other.wide()
    }
}

impl Ord for PackedKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.wide().cmp(&other.wide())
    }
}

/// What a version is and where its content is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PackedContent {
    /// Number of the extent of the segment.
    pub segment: u64,
    /// Keyed digest of the stored sectors.
    pub digest: u64,
    /// Sector, mask and kind.
    pub place: u32,
}

impl PackedContent {
    /// Content that is stored.
    pub const fn data(segment: u64, sector: u32, mask: u8, digest: u64) -> Self {
        Self { segment, digest, place: sector << 10 | (mask as u32) << 2 | KIND_DATA as u32 }
    }

    /// Content that is not: [`KIND_ZERO`] or [`KIND_DISCARDED`].
    pub const fn empty(kind: u8, mask: u8) -> Self {
        Self { segment: 0, digest: 0, place: (mask as u32) << 2 | kind as u32 }
    }

    /// Kind.
    pub const fn kind(self) -> u8 {
        self.place.to_le_bytes()[0] & 3
    }

    /// Whether it is stored.
    pub const fn is_data(self) -> bool {
        self.kind() == KIND_DATA
    }

    /// Sectors of the block that the version covers.
    pub const fn mask(self) -> u8 {
        (self.place >> 2).to_le_bytes()[0]
    }

    /// First sector within the segment.
    pub const fn sector(self) -> u32 {
        self.place >> 10
    }
}

/// One version of one cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PackedEntry {
    /// Volume, cell and version.
    pub key: PackedKey,
    /// What and where.
    pub content: PackedContent,
}

impl PackedEntry {
    /// Whether the words are the canonical form of a version.
    ///
    /// # Errors
    /// What is wrong with them.
    pub const fn check(&self) -> Result<(), &'static str> {
        let (content, mask) = (self.content, self.content.mask());
        if !self.key.is_valid() {
            return Err("entry with an impossible cell or seq");
        }
        // Adding the lowest bit to an unbroken run of bits carries out of all of it.
        if mask == 0 || mask.wrapping_add(mask & mask.wrapping_neg()) & mask != 0 {
            return Err("entry with an impossible mask");
        }
        if content.is_data() {
            if content.digest == 0
                || self.key.level() != 0
                || content.place >> 10 >> SECTOR_BITS != 0
                || content.segment >= NUMBER_END
            {
                return Err("entry with an impossible place");
            }
        } else if content.kind() > KIND_DISCARDED
            || content.sector() != 0
            || content.segment != 0
            || content.digest != 0
        {
            return Err("entry of an impossible kind");
        }
        if self.key.level() > 0 && mask != 0xFF {
            return Err("range entry with a mask");
        }
        Ok(())
    }

    /// A 64-bit hash of every word. The wrapping sum over a set of entries is the same in any order, so that a merge can
    /// prove that it lost, made up and changed nothing. Not for hostile input.
    pub const fn hash(&self) -> u64 {
        let key = fold(self.key.cell ^ 0x9E37_79B9_7F4A_7C15, self.key.age ^ 0xD6E8_FEB8_6659_FD93);
        let body =
            fold(self.content.segment ^ 0xA076_1D64_78BD_642F, self.content.digest ^ 0xE703_7ED1_A0B4_28DB);
        fold(key ^ 0x8EBC_6AF0_9C88_C6E3, body ^ (self.content.place as u64) << 19 ^ 0x5899_65CC_7537_4CC3)
    }
}

/// Both halves of a product, mixed: the step of the wyhash family.
const fn fold(left: u64, right: u64) -> u64 {
    let product = (left as u128 * right as u128).to_le_bytes();
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = product;
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ u64::from_le_bytes([i, j, k, l, m, n, o, p])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: packed keys sort as the settled order says. Method: every pair of a small cube of keys against tuples.
    #[test]
    fn packed_keys_sort_by_volume_block_wide_level_and_newest_version() {
        let mut keys = Vec::new();
        for volume in [0u16, 1, u16::MAX] {
            for block in [0u64, 1, 16, 256, BLOCK_END - 1] {
                for level in 0..=LEVEL_MAX {
                    for seq in [0u64, 1, 1 << 40, NUMBER_END - 1] {
                        let key = PackedKey::new(volume, block, level, seq);
                        assert_eq!(
                            (key.volume(), key.block(), key.level(), key.seq()),
                            (volume, block, level, seq)
                        );
                        keys.push((key, (volume, block, LEVEL_MAX - level, u64::MAX - seq)));
                    }
                }
            }
        }
        for (left, plain_left) in &keys {
            for (right, plain_right) in &keys {
                assert_eq!(left.cmp(right), plain_left.cmp(plain_right));
                assert_eq!(left < right, plain_left < plain_right);
                assert_eq!(left >= right, plain_left >= plain_right);
            }
        }
    }

    /// Goal: exactly the unbroken masks pass. Method: all 256 masks against a bit-by-bit count of runs.
    #[test]
    fn only_unbroken_masks_are_accepted() {
        for mask in 0..=255u8 {
            let runs = (0..8)
                .filter(|bit| mask >> bit & 1 == 1 && (*bit == 0 || mask >> (bit - 1) & 1 == 0))
                .count();
            let entry =
                PackedEntry { key: PackedKey::new(1, 5, 0, 9), content: PackedContent::data(1, 2, mask, 3) };
            assert_eq!(entry.check().is_ok(), runs == 1, "mask {mask:#010b}");
        }
    }

    /// Goal: the hash sees every bit of every word. Method: flip each bit of an entry.
    #[test]
    fn the_hash_changes_with_every_bit_of_an_entry() {
        let entry = PackedEntry {
            key: PackedKey::new(1, 77, 0, 1234),
            content: PackedContent::data(9, 55, 0x3C, 777),
        };
        for bit in 0..288 {
            let mut other = entry;
            match bit / 64 {
                0 => other.key.cell ^= 1 << (bit % 64),
                1 => other.key.age ^= 1 << (bit % 64),
                2 => other.content.segment ^= 1 << (bit % 64),
                3 => other.content.digest ^= 1 << (bit % 64),
                _ => other.content.place ^= 1 << (bit % 32),
            }
            assert_ne!(entry.hash(), other.hash(), "bit {bit}");
        }
    }
}
