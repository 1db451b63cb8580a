//! The source of randomness of simulations: splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
//! generators", OOPSLA 2014). The same seed gives the same numbers on every machine and in every version.

/// A seeded sequence of numbers, for tests only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimRng(u64);

impl SimRng {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, nearly uniform.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of a product of two u64 is a u64")
    }

    /// True with probability `probability`.
    pub fn chance(&mut self, probability: f64) -> bool {
        // 53 bits fill the mantissa exactly.
        let unit = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        unit < probability
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[crate::units::to_len(self.below(crate::units::len_u64(choices.len())))]
    }

    /// A generator of its own, which goes on independently of this one.
    pub fn split(&mut self) -> Self {
        Self(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: seeds in bug reports stay valid. Method: the published first values of splitmix64 for seed 0.
    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut rng = SimRng::new(0);
        let first = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        assert_eq!(first, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }

    /// Goal: bounds and probabilities hold. Method: the extremes, and every value of a small range.
    #[test]
    fn numbers_stay_below_the_bound_and_chances_are_kept() {
        let mut rng = SimRng::new(7);
        let mut seen = [false; 3];
        for _ in 0..200 {
            assert_eq!(rng.below(1), 0);
            assert!(!rng.chance(0.0) && rng.chance(1.0));
            seen[usize::try_from(rng.below(3)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
