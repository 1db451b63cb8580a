//! Percentiles, and how far two figures lie apart. Pure.

use crate::histogram::Histogram;
use std::time::Duration;

/// Latencies of single operations, sorted, nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// Takes samples in any order.
    pub fn new(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// From durations; those beyond 584 years count as that.
    pub fn of(samples: impl IntoIterator<Item = Duration>) -> Self {
        let nanoseconds = |sample: Duration| u64::try_from(sample.as_nanos()).unwrap_or(u64::MAX);
        Self::new(samples.into_iter().map(nanoseconds).collect())
    }

    /// The smallest sample that at least `per_mille` thousandths of all samples do not exceed (nearest rank), in microseconds;
    /// `None` without samples.
    pub fn microseconds(&self, per_mille: usize) -> Option<f64> {
        let rank = (self.0.len() * per_mille.min(1000)).div_ceil(1000).max(1);
        self.0.get(rank - 1).map(|sample| *sample as f64 / 1e3)
    }

    /// Their distribution.
    pub fn histogram(&self) -> Histogram {
        Histogram::of_sorted(&self.0)
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// How far two figures lie apart, as a fraction of their mean; infinite when either is not a positive number.
pub fn spread(one: f64, other: f64) -> f64 {
    if one.is_finite() && other.is_finite() && one > 0.0 && other > 0.0 {
        (one - other).abs() / mean(one, other)
    } else {
        f64::INFINITY
    }
}

/// The mean of two figures.
pub fn mean(one: f64, other: f64) -> f64 {
    f64::midpoint(one, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: percentiles are those of the nearest-rank definition, also at the ends and for few samples.
    /// Method: 1 to 1000 us in reverse order; one sample; none.
    #[test]
    fn percentiles_are_nearest_ranks() {
        let many = Latencies::of((1..=1000).rev().map(Duration::from_micros));
        let at = |per_mille| many.microseconds(per_mille).unwrap();
        assert_eq!((at(0), at(1), at(500), at(990), at(1000)), (1.0, 1.0, 500.0, 990.0, 1000.0));
        assert_eq!(at(5000), 1000.0, "beyond the end is the end");
        let few = Latencies::new(vec![3000, 1000]);
        assert_eq!((few.microseconds(500), few.microseconds(501)), (Some(1.0), Some(3.0)));
        assert_eq!(Latencies::new(vec![2500]).microseconds(990), Some(2.5));
        assert_eq!(Latencies::default().microseconds(500), None);
        assert_eq!(many.len(), 1000);
    }

    /// Goal: the spread is symmetric and relative to the mean, and figures that are no rates never look equal.
    /// Method: known pairs.
    #[test]
    fn spread_is_relative_to_the_mean() {
        assert_eq!(spread(100.0, 100.0), 0.0);
        assert!((spread(95.0, 105.0) - 0.1).abs() < 1e-12);
        assert_eq!(spread(95.0, 105.0), spread(105.0, 95.0));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(spread(bad, bad), f64::INFINITY);
            assert_eq!(spread(bad, 1.0), f64::INFINITY);
        }
    }
}
