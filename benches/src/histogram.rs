//! Latencies in few numbers: counts in buckets whose width grows with the value, eight for each doubling. Pure.
//!
//! A bucket is known by its lower end, so that a reader needs nothing but the list; it spans at most an eighth of that.

use serde::{Deserialize, Serialize};

/// Bits of a value that a bucket keeps below the highest one.
const KEPT_BITS: u32 = 3;

/// Counts of latencies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower end of each bucket that is not empty, nanoseconds, and how many samples lie in it; ascending.
    pub buckets_ns: Vec<(u64, u64)>,
}

impl Histogram {
    /// Of samples that ascend, nanoseconds.
    pub fn of_sorted(samples: &[u64]) -> Self {
        let mut buckets_ns: Vec<(u64, u64)> = Vec::new();
        for sample in samples {
            let low = lower_end(*sample);
            match buckets_ns.last_mut() {
                Some((last, count)) if *last == low => *count += 1,
                _ => buckets_ns.push((low, 1)),
            }
        }
        Self { buckets_ns }
    }

    /// How many samples there are.
    pub fn count(&self) -> u64 {
        self.buckets_ns.iter().map(|(_, count)| *count).fold(0, u64::saturating_add)
    }

    /// The end of the bucket that `per_mille` thousandths of the samples reach, nanoseconds; `None` without samples.
    pub fn quantile_ns(&self, per_mille: u64) -> Option<u64> {
        let wanted = self.count().saturating_mul(per_mille.min(1000)).div_ceil(1000).max(1);
        let mut seen = 0u64;
        let reached = |(_, count): &&(u64, u64)| {
            seen = seen.saturating_add(*count);
            seen >= wanted
        };
        self.buckets_ns.iter().find(reached).map(|(low, _)| upper_end(*low))
    }
}

/// The lower end of the bucket of a value.
pub fn lower_end(value: u64) -> u64 {
    let bits = u64::BITS - value.leading_zeros();
    let dropped = bits.saturating_sub(KEPT_BITS + 1);
    value >> dropped << dropped
}

/// The upper end, not part of it, of the bucket that begins at `low`.
pub fn upper_end(low: u64) -> u64 {
    let bits = u64::BITS - low.leading_zeros();
    low.saturating_add(1 << bits.saturating_sub(KEPT_BITS + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: buckets are exact for small values, no wider than an eighth of their lower end, and touch each other.
    /// Method: walk from each bucket to the next, up to the largest value.
    #[test]
    fn buckets_touch_and_are_narrow() {
        let (mut low, mut buckets) = (0u64, 0);
        while upper_end(low) < u64::MAX {
            let next = upper_end(low);
            assert_eq!((lower_end(low), lower_end(next - 1), lower_end(next)), (low, low, next));
            assert!(low < 16 || (next - low) * 8 <= low, "{low}");
            (low, buckets) = (next, buckets + 1);
        }
        assert!(buckets < 500);
        assert_eq!(lower_end(u64::MAX), low);
    }

    /// Goal: nothing is lost, and quantiles lie at most a bucket above those of the samples.
    /// Method: 1 to 10,000; compare with what is known; no samples.
    #[test]
    fn quantiles_are_a_bucket_off_at_most() {
        let samples: Vec<u64> = (1..=10_000).collect();
        let histogram = Histogram::of_sorted(&samples);
        assert_eq!(histogram.count(), 10_000);
        for (per_mille, exact) in [(1, 10), (500, 5000), (990, 9900), (1000, 10_000)] {
            let found = histogram.quantile_ns(per_mille).unwrap();
            assert!(found > exact && found <= exact + exact / 8 + 1, "{per_mille}: {found}");
        }
        assert_eq!(Histogram::default().quantile_ns(500), None);
    }
}
