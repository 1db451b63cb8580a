//! Types that cannot be mixed up: sequence numbers, times, sectors, blocks, ids.
//!
//! Each wraps an integer with a meaning. Arithmetic that can leave the range is checked; where a type offers an
//! operator it cannot overflow within the bounds of [`crate::limits`].

use std::fmt;

/// Bytes of a sector, the smallest unit of a write and the unit of offsets and lengths on a volume.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes of a block, the unit of the index and of digests.
pub const BLOCK_BYTES: u64 = 4096;
/// Sectors of a block.
pub const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / SECTOR_BYTES;
/// [`BLOCK_BYTES`] as a length in memory.
pub const BLOCK_LEN: usize = 4096;
/// [`SECTOR_BYTES`] as a length in memory.
pub const SECTOR_LEN: usize = 512;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Smallest value.
            pub const ZERO: Self = Self(0);
            /// Largest value.
            pub const MAX: Self = Self(<$inner>::MAX);

            /// Wraps a raw value.
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The raw value.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The value `steps` further on, or `None` past the end of the type.
            pub const fn checked_add(self, steps: $inner) -> Option<Self> {
                match self.0.checked_add(steps) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The next value.
            ///
            /// # Panics
            /// At the end of the type, which no store can reach.
            pub const fn next(self) -> Self {
                match self.0.checked_add(1) {
                    Some(value) => Self(value),
                    None => panic!("unit overflow"),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

unit!(
    /// Names a state: the one after the write that took this number. Seq 0 is before the first write.
    Seq(u64)
);
unit!(
    /// Nanoseconds since the Unix epoch, UTC, from the clock of the source.
    TimeNs(u64)
);
unit!(
    /// A volume within its store; never reused.
    VolumeId(u16)
);
unit!(
    /// A sector of a volume, counted in units of [`SECTOR_BYTES`].
    Sector(u64)
);
unit!(
    /// A block of a volume, counted in units of [`BLOCK_BYTES`].
    Block(u64)
);
unit!(
    /// A numbered extent of the host's storage (a file, a slot of a device); never reused within a store.
    ExtentId(u64)
);
unit!(
    /// Position of a frame in the unbroken row of frames of a group.
    FrameNo(u64)
);
unit!(
    /// An unbroken line of history; each unclean open starts a new one.
    Lineage(u64)
);
unit!(
    /// Raised at each open for writing; what an older owner writes is ignored.
    OwnerEpoch(u64)
);

impl Sector {
    /// The block that contains this sector.
    pub const fn block(self) -> Block {
        Block(self.0 / SECTORS_PER_BLOCK)
    }

    /// Position within its block, 0 to 7.
    pub const fn within_block(self) -> u64 {
        self.0 % SECTORS_PER_BLOCK
    }
}

impl Block {
    /// First sector of this block.
    pub const fn first_sector(self) -> Sector {
        Sector(self.0 * SECTORS_PER_BLOCK)
    }
}

/// A run of sectors of one volume: `start` and a length in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SectorRange {
    /// First sector.
    pub start: Sector,
    /// Length in sectors.
    pub sectors: u64,
}

impl SectorRange {
    /// First sector after the range.
    pub const fn end(self) -> Sector {
        Sector(self.start.0 + self.sectors)
    }

    /// Length in bytes.
    pub const fn bytes(self) -> u64 {
        self.sectors * SECTOR_BYTES
    }
}

/// Length of a buffer as a number of bytes; buffers never exceed the address space.
pub(crate) const fn len_u64(len: usize) -> u64 {
    len as u64
}

/// A count that is known to fit the address space, as a length in memory.
///
/// # Panics
/// When the value does not fit, which is a defect of the caller: values from outside are checked against
/// [`crate::limits`] before.
pub(crate) fn to_len(value: u64) -> usize {
    usize::try_from(value).expect("length was checked against the limits")
}
