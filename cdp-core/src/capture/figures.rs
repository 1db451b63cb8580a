//! What the writes of a volume look like: counted in the write path, with relaxed atomics and nothing else.
//!
//! Counters are read one after the other while writes go on, so that they need not fit each other to the last write.

use std::sync::atomic::{AtomicU64, Ordering};

/// Classes of sizes: 512 bytes and less, 1 KiB, and so on by powers of two up to 16 MiB, with all that is longer.
pub const SIZE_CLASSES: usize = 16;
/// Power of two of the first class.
const FIRST_POWER: u32 = 9;

/// The class of a size in bytes: the first one that it fits into.
const fn class_of(bytes: u64) -> usize {
    let power = bytes.saturating_sub(1).checked_ilog2();
    let above = match power {
        Some(power) => (power + 1).saturating_sub(FIRST_POWER) as usize,
        None => 0,
    };
    if above < SIZE_CLASSES { above } else { SIZE_CLASSES - 1 }
}

/// Counts of the writes of one volume, on lines of the cache of their own.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct WriteFigures {
    sizes: [AtomicU64; SIZE_CLASSES],
    bytes: AtomicU64,
    sequential: AtomicU64,
    /// Where the last write ended.
    end: AtomicU64,
}

impl WriteFigures {
    /// Counts one write. Writes of several threads at once may each be taken for the successor of the same one.
    #[inline]
    pub(crate) fn note(&self, offset: u64, bytes: u64) {
        self.sizes[class_of(bytes)].fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.end.load(Ordering::Relaxed) == offset {
            self.sequential.fetch_add(1, Ordering::Relaxed);
        }
        self.end.store(offset.wrapping_add(bytes), Ordering::Relaxed);
    }

    /// The counts as they are now.
    pub(crate) fn counts(&self) -> WriteCounts {
        let sizes = self.sizes.each_ref().map(|count| count.load(Ordering::Relaxed));
        WriteCounts {
            writes: sizes.iter().sum(),
            bytes: self.bytes.load(Ordering::Relaxed),
            sequential: self.sequential.load(Ordering::Relaxed),
            sizes,
        }
    }
}

/// What the writes of a volume looked like since the store was opened. Discards are not counted, zeroes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Writes.
    pub writes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Writes that began where the one before on the same volume had ended; the first one counts if it begins at 0.
    pub sequential: u64,
    /// Writes by size; see [`WriteCounts::classes`].
    pub sizes: [u64; SIZE_CLASSES],
}

impl WriteCounts {
    /// The classes of sizes that occurred: the largest size of each in bytes, and the writes in it. The last class, 16 MiB, also holds
    /// what is longer.
    pub fn classes(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let bytes = (FIRST_POWER..).map(|power| 1_u64 << power);
        bytes.zip(self.sizes).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each size is counted in the smallest class that holds it. Method: each power of two and a sector on either side.
    #[test]
    fn sizes_fall_into_the_smallest_class_that_holds_them() {
        for (class, power) in (FIRST_POWER..FIRST_POWER + 16).enumerate() {
            let bytes = 1_u64 << power;
            assert_eq!(class_of(bytes), class, "{bytes}");
            assert_eq!(class_of(bytes - 1), class, "{bytes} less one");
            assert_eq!(class_of(bytes + 512), (class + 1).min(SIZE_CLASSES - 1), "{bytes} and a sector");
        }
        assert_eq!((class_of(0), class_of(1), class_of(u64::MAX)), (0, 0, SIZE_CLASSES - 1));
    }

    /// Goal: sequential is what begins where the one before ended. Method: a row of writes counted by hand.
    #[test]
    fn sequential_writes_are_counted() {
        let figures = WriteFigures::default();
        for (offset, bytes) in [(0, 4096), (4096, 512), (4608, 8192), (0, 512), (512, 1 << 24), (512, 512)] {
            figures.note(offset, bytes);
        }
        let counts = figures.counts();
        assert_eq!((counts.writes, counts.sequential), (6, 4));
        assert_eq!(counts.bytes, 4096 + 512 + 8192 + 512 + (1 << 24) + 512);
        let classes: Vec<_> = counts.classes().collect();
        assert_eq!(classes, [(512, 3), (4096, 1), (8192, 1), (1 << 24, 1)]);
        // The end of the address space is no place to panic.
        figures.note(u64::MAX - 511, 1024);
    }
}
