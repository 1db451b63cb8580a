//! Seeded random numbers, and content for writes.
//!
//! The generator is xorshift64* (Vigna, An experimental exploration of Marsaglia's xorshift generators, 2016): good enough for
//! offsets and far cheaper than the calls that are measured. Invariants of content: *not zero*, *not compressible* (it comes from
//! the generator), *each block differs* from every other that the same [`Content`] has given out (a counter and the seed are
//! written into each).

use cdp_core::units::{BLOCK_BYTES, BLOCK_LEN};

use crate::{error::Result, pages::Pages};

/// Random bytes that a source cycles through: more than a core's own caches hold, because what a host writes was not
/// just computed by the core that captures it.
const POOL_BYTES: usize = 8 << 20;

/// A generator of random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator for a stream of a seed; streams of one seed are independent.
    pub fn new(seed: u64, stream: u64) -> Self {
        // One round of splitmix64, so that neighbouring seeds do not give similar sequences; never zero.
        let mut mixed = seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is not zero. The bias of the remainder is far below anything that could be measured.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Content for writes of one size.
pub struct Content {
    pool: Pages,
    write_bytes: usize,
    at: usize,
    stamp: u64,
    seed: u64,
}

impl Content {
    /// Content for writes of `write_bytes` bytes, a multiple of 4 KiB.
    ///
    /// # Errors
    /// When memory cannot be had.
    pub fn new(seed: u64, stream: u64, write_bytes: usize) -> Result<Self> {
        Self::within(Pages::ordinary, seed, stream, write_bytes)
    }

    /// The same in memory of this kind.
    ///
    /// # Errors
    /// When memory cannot be had.
    pub fn within(
        kind: fn(usize) -> Result<Pages>,
        seed: u64,
        stream: u64,
        write_bytes: usize,
    ) -> Result<Self> {
        let mut pool = kind(POOL_BYTES.max(write_bytes).next_multiple_of(write_bytes))?;
        let mut random = Random::new(seed, stream);
        for word in pool.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        Ok(Self { pool, write_bytes, at: 0, stamp: stream << 48, seed })
    }

    /// The bytes of the next write, aligned to 4 KiB.
    pub fn next(&mut self) -> &[u8] {
        let from = self.at;
        self.at = if from + 2 * self.write_bytes > self.pool.len() { 0 } else { from + self.write_bytes };
        let data = &mut self.pool[from..from + self.write_bytes];
        for block in data.chunks_exact_mut(BLOCK_LEN) {
            self.stamp += 1;
            block[..8].copy_from_slice(&self.stamp.to_le_bytes());
            block[8..16].copy_from_slice(&self.seed.to_le_bytes());
        }
        data
    }
}

/// A random byte offset of a block within `bytes`.
pub fn block_offset(random: &mut Random, bytes: u64) -> u64 {
    random.below(bytes / BLOCK_BYTES) * BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Goal: content is never zero, differs between writes, streams and rounds of the pool, and does not compress to nothing.
    /// Method: more blocks than the pool holds; all their heads are distinct, and the bytes of one block use most values.
    #[test]
    fn blocks_differ_and_are_not_zero() {
        let mut heads = HashSet::new();
        for stream in 0..2 {
            let mut content = Content::new(7, stream, 64 << 10).unwrap();
            for _ in 0..2 * POOL_BYTES / (64 << 10) {
                for block in content.next().chunks_exact(BLOCK_LEN) {
                    assert!(heads.insert(block[..16].to_vec()), "a block came twice");
                    assert!(block.iter().collect::<HashSet<_>>().len() > 200, "a block is too regular");
                }
            }
        }
        assert_eq!(heads.len(), 4 * POOL_BYTES / BLOCK_LEN);
    }

    /// Goal: the same seed gives the same offsets, other streams give others, and all lie on blocks within the bounds.
    /// Method: compare sequences of a thousand.
    #[test]
    fn offsets_are_reproducible_and_within_bounds() {
        let draw = |stream| {
            let mut random = Random::new(1, stream);
            (0..1000).map(|_| block_offset(&mut random, 1 << 20)).collect::<Vec<_>>()
        };
        assert_eq!(draw(0), draw(0));
        assert_ne!(draw(0), draw(1));
        assert!(draw(0).iter().all(|at| at % BLOCK_BYTES == 0 && *at < 1 << 20));
        assert!(draw(0).iter().collect::<HashSet<_>>().len() > 200, "offsets spread over all 256 blocks");
    }
}
