//! The size of a volume and the granularity of its map; bytes to blocks and back.
//!
//! Invariants: *outward* - a range of bytes becomes every block that it touches; *inward* - only the blocks that it covers
//! whole, where the last block of a volume ends with the volume. All arithmetic is exact up to [`VOLUME_BYTES_MAX`].

use crate::{
    Error, Result,
    limits::VOLUME_BYTES_MAX,
    units::{BLOCK_BYTES, SECTOR_BYTES},
};
use std::ops::Range;

/// A range of bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Length, bytes.
    pub bytes: u64,
}

impl ByteRange {
    /// The range of `bytes` bytes at `offset`.
    pub const fn new(offset: u64, bytes: u64) -> Self {
        Self { offset, bytes }
    }

    /// First byte after the range; the end of the type for a range that reaches beyond it.
    pub const fn end(self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }
}

/// Bytes that one bit of a map stands for: a power of two from 4 KiB to 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Granularity {
    shift: u32,
}

/// Most blocks of a map for which [`Granularity::for_size`] stays fine: 32 MiB of bits.
const BLOCKS_PREFERRED_MAX: u64 = 1 << 28;

impl Granularity {
    /// The finest: 4 KiB.
    pub const MIN: Self = Self { shift: BLOCK_BYTES.ilog2() };
    /// The coarsest: 1 MiB.
    pub const MAX: Self = Self { shift: 20 };

    /// The granularity of `bytes` bytes.
    ///
    /// # Errors
    /// `InvalidArgument` for anything but a power of two from 4 KiB to 1 MiB.
    pub fn new(bytes: u64) -> Result<Self> {
        let granularity = Self { shift: bytes.checked_ilog2().unwrap_or(0) };
        if !bytes.is_power_of_two() || granularity < Self::MIN || granularity > Self::MAX {
            let text = format!("granularity {bytes} must be a power of two from 4096 to 1048576 bytes");
            return Err(Error::InvalidArgument(text));
        }
        Ok(granularity)
    }

    /// The finest granularity at which the map of a volume of `bytes` bytes takes at most 32 MiB, else the coarsest.
    pub fn for_size(bytes: u64) -> Self {
        let mut granularity = Self::MIN;
        while granularity < Self::MAX && bytes.div_ceil(granularity.bytes()) > BLOCKS_PREFERRED_MAX {
            granularity.shift += 1;
        }
        granularity
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }
}

/// Size of a volume and granularity of its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    bytes: u64,
    granularity: Granularity,
    /// Bytes of a block less one.
    within: u64,
}

impl Shape {
    /// The shape of the map of a volume of `bytes` bytes.
    ///
    /// # Errors
    /// `InvalidArgument` when `bytes` is zero, no multiple of 512 or more than [`VOLUME_BYTES_MAX`].
    pub fn new(bytes: u64, granularity: Granularity) -> Result<Self> {
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) || bytes > VOLUME_BYTES_MAX {
            let text =
                format!("volume size {bytes} must be a multiple of 512 from 512 to {VOLUME_BYTES_MAX} bytes");
            return Err(Error::InvalidArgument(text));
        }
        Ok(Self { bytes, granularity, within: granularity.bytes() - 1 })
    }

    /// Size of the volume, bytes.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// Bytes of a block.
    pub const fn granularity(self) -> Granularity {
        self.granularity
    }

    /// Number of blocks; the last one may be partial.
    pub const fn blocks(self) -> u64 {
        self.bytes.div_ceil(self.granularity.bytes())
    }

    /// The blocks that a range touches; what lies past the end of the volume has none.
    pub const fn outward(self, range: ByteRange) -> Range<u64> {
        let end = if range.end() < self.bytes { range.end() } else { self.bytes };
        if range.bytes == 0 || range.offset >= end {
            return 0..0;
        }
        range.offset >> self.granularity.shift..((end - 1) >> self.granularity.shift) + 1
    }

    /// The block in which a range lies, if it begins in the volume and is in one.
    #[inline(always)]
    pub(super) const fn single(self, range: ByteRange) -> Option<u64> {
        let after = self.within - (range.offset & self.within);
        if range.bytes.wrapping_sub(1) <= after && range.offset < self.bytes {
            Some(range.offset >> self.granularity.shift)
        } else {
            None
        }
    }

    /// The blocks that a range covers whole.
    pub const fn inward(self, range: ByteRange) -> Range<u64> {
        let end =
            if range.end() >= self.bytes { self.blocks() } else { range.end() >> self.granularity.shift };
        let start = range.offset.div_ceil(self.granularity.bytes());
        if range.bytes == 0 || start >= end { 0..0 } else { start..end }
    }

    /// The bytes of a row of blocks, which ends with the volume.
    pub fn bytes_of(self, blocks: Range<u64>) -> ByteRange {
        let offset = (blocks.start << self.granularity.shift).min(self.bytes);
        let end = (blocks.end << self.granularity.shift).min(self.bytes);
        ByteRange { offset, bytes: end.saturating_sub(offset) }
    }

    /// Checks that a range lies within the volume.
    ///
    /// # Errors
    /// `OutOfRange`.
    pub fn check(self, range: ByteRange) -> Result<()> {
        match range.offset.checked_add(range.bytes) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => {
                Err(Error::OutOfRange { offset: range.offset, length: range.bytes, volume_bytes: self.bytes })
            }
        }
    }
}
