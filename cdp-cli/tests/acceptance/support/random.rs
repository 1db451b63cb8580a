//! Repeatable randomness: splitmix64, seeded by `CDP_TEST_SEED` or the clock; the seed is printed.

use std::time::{SystemTime, UNIX_EPOCH};

/// A stream of pseudo-random numbers.
#[derive(Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of one test; prints the seed, which `cargo test` shows when the test fails.
    pub fn for_test(name: &str) -> Self {
        let seed = match std::env::var("CDP_TEST_SEED") {
            Ok(text) => text.parse().expect("CDP_TEST_SEED is a number"),
            Err(_) => {
                let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock after 1970");
                u64::from(clock.subsec_nanos()) ^ (clock.as_secs() << 20)
            }
        };
        println!("{name}: CDP_TEST_SEED={seed}");
        Self::new(seed)
    }

    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `[0, bound)`; the small bias of the remainder does not matter here.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no number");
        self.next() % bound
    }

    /// A number in `[low, high]`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// A multiple of 512 in `[512, most]` with a uniform logarithm.
    pub fn sectors_log_uniform(&mut self, most: u64) -> u64 {
        let doublings = (most / 512).ilog2();
        if doublings == 0 {
            return 512;
        }
        let low = 1_u64 << self.below(u64::from(doublings));
        512 * (low + self.below(low + 1))
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
