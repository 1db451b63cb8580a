//! What a figure means: its unit, what it is held against, and whether it is good enough. Pure.

use crate::{probe::Rate, window::Attempt};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A unit of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// 2^20 bytes a second.
    MebibytesPerSecond,
    /// Requests, blocks or entries a second.
    PerSecond,
    /// Microseconds for one operation.
    Microseconds,
    /// Milliseconds for one operation.
    Milliseconds,
    /// 2^20 bytes.
    Mebibytes,
    /// Bytes for one byte, the operations of the rate.
    Times,
    /// Bytes for each of what is counted, the operations of the rate.
    BytesEach,
}

impl Unit {
    /// A rate in this unit.
    pub fn of(self, rate: Rate) -> f64 {
        match self {
            Self::MebibytesPerSecond => rate.bytes as f64 / f64::from(1 << 20) / rate.seconds,
            Self::PerSecond => rate.operations as f64 / rate.seconds,
            Self::Microseconds => rate.seconds / rate.operations as f64 * 1e6,
            Self::Milliseconds => rate.seconds / rate.operations as f64 * 1e3,
            Self::Mebibytes => rate.bytes as f64 / f64::from(1 << 20),
            Self::Times | Self::BytesEach => rate.bytes as f64 / rate.operations as f64,
        }
    }

    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::MebibytesPerSecond | Self::PerSecond)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MebibytesPerSecond => "MiB/s",
            Self::PerSecond => "/s",
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::Times => "x",
            Self::BytesEach => "B",
        })
    }
}

/// A bound that a figure is to keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The ratio to the raw probes is at least this.
    RatioAtLeast(f64),
    /// The value is at least this.
    AtLeast(f64),
    /// The value is at most this.
    AtMost(f64),
    /// The value, milliseconds, is at most a fixed time and the time to read so many MiB at the rate of the probes, MiB/s.
    AtMostWithScan {
        /// The fixed time, milliseconds.
        milliseconds: f64,
        /// What may be read, MiB.
        mebibytes: f64,
    },
}

impl Bound {
    /// Whether a try keeps it.
    pub fn is_kept(self, attempt: &Attempt) -> bool {
        match self {
            Self::RatioAtLeast(bound) => attempt.ratio() >= bound,
            Self::AtLeast(bound) => attempt.value >= bound,
            Self::AtMost(bound) => attempt.value <= bound,
            Self::AtMostWithScan { milliseconds, mebibytes } => {
                attempt.value <= milliseconds + 1e3 * mebibytes / attempt.raw()
            }
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::RatioAtLeast(bound) => format!(">= {bound:.2} raw"),
            Self::AtLeast(bound) => format!(">= {}", short(*bound)),
            Self::AtMost(bound) => format!("<= {}", short(*bound)),
            Self::AtMostWithScan { milliseconds, mebibytes } => {
                format!("<= {milliseconds:.0} + {mebibytes:.0} MiB")
            }
        };
        f.pad(&text)
    }
}

/// How a figure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The aim is met.
    Met,
    /// The aim is not met, the floor is.
    Floor,
    /// Neither is met.
    Missed,
    /// There is no aim.
    NoAim,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Met => "met",
            Self::Floor => "floor only",
            Self::Missed => "MISSED",
            Self::NoAim => "no aim",
        })
    }
}

/// Judges a try by an aim, and by a floor where the aim is missed.
pub fn judge(attempt: &Attempt, aim: Option<Bound>, floor: Option<Bound>) -> Verdict {
    let kept = |bound: Bound| bound.is_kept(attempt);
    match (aim.map(kept), floor.map(kept)) {
        (None, None) => Verdict::NoAim,
        (Some(true), _) | (None, Some(true)) => Verdict::Met,
        (Some(false), Some(true)) => Verdict::Floor,
        (Some(false), _) | (None, Some(false)) => Verdict::Missed,
    }
}

/// A figure with about four digits.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e7 => format!("{:.1} M", value / 1e6),
        size if size >= 1e4 => format!("{:.1} K", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(value: f64, raw: f64) -> Attempt {
        Attempt { before: raw, value, after: raw, others: 0.0 }
    }

    /// Goal: each unit of a rate is what it says.
    /// Method: 8 requests of 1 MiB in 2 seconds.
    #[test]
    fn rates_convert_to_every_unit() {
        let rate = Rate { operations: 8, bytes: 8 << 20, seconds: 2.0 };
        let values = [Unit::MebibytesPerSecond, Unit::PerSecond, Unit::Microseconds, Unit::Milliseconds]
            .map(|unit| unit.of(rate));
        assert_eq!(values, [4.0, 4.0, 250_000.0, 250.0]);
        assert_eq!([Unit::Mebibytes, Unit::Times].map(|unit| unit.of(rate)), [8.0, f64::from(1 << 20)]);
    }

    /// Goal: each kind of bound holds at the bound and fails just past it.
    /// Method: both sides of each; a scan of 128 MiB at 256 MiB/s is allowed 500 ms more.
    #[test]
    fn bounds_hold_at_the_bound_and_not_past_it() {
        let scan = Bound::AtMostWithScan { milliseconds: 500.0, mebibytes: 128.0 };
        for (bound, good, bad) in [
            (Bound::RatioAtLeast(0.5), 128.0, 127.9),
            (Bound::AtLeast(7.0), 7.0, 6.99),
            (Bound::AtMost(7.0), 7.0, 7.01),
            (scan, 1000.0, 1000.1),
        ] {
            assert!(bound.is_kept(&attempt(good, 256.0)), "{bound} at {good}");
            assert!(!bound.is_kept(&attempt(bad, 256.0)), "{bound} at {bad}");
        }
    }

    /// Goal: the verdict names the better of aim and floor that is met.
    /// Method: all combinations.
    #[test]
    fn verdicts_prefer_the_aim() {
        let bounds = (Some(Bound::AtLeast(10.0)), Some(Bound::AtLeast(5.0)));
        let verdict = |value, (aim, floor)| judge(&attempt(value, 1.0), aim, floor);
        assert_eq!(verdict(10.0, bounds), Verdict::Met);
        assert_eq!(verdict(7.0, bounds), Verdict::Floor);
        assert_eq!(verdict(4.0, bounds), Verdict::Missed);
        assert_eq!(verdict(4.0, (None, None)), Verdict::NoAim);
        assert_eq!(verdict(7.0, (bounds.0, None)), Verdict::Missed);
        assert_eq!(verdict(7.0, (None, bounds.1)), Verdict::Met);
        assert_eq!(verdict(4.0, (None, bounds.1)), Verdict::Missed);
    }
}
