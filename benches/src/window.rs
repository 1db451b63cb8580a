//! A window: a measurement between two raw probes of the same kind.
//!
//! The figure of a window is the ratio of the measured value to the mean of its two probes. A window whose probes lie more than
//! [`SPREAD_MAX`] apart tells of the machine and not of the engine: it is repeated, and when no repetition is steady, the one whose
//! probes lay closest is reported as unstable. Windows are never averaged.

use crate::{
    error::Result,
    statistics::{mean, spread},
};
use serde::{Deserialize, Serialize};

/// Largest difference of the two probes of a steady window, as a fraction of their mean.
pub const SPREAD_MAX: f64 = 0.10;

/// One try.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Raw probe before.
    pub before: f64,
    /// The measurement.
    pub value: f64,
    /// Raw probe after.
    pub after: f64,
    /// Share of the processors' time that others used meanwhile, 0 to 1.
    pub others: f64,
}

impl Attempt {
    /// The mean of the probes.
    pub fn raw(&self) -> f64 {
        mean(self.before, self.after)
    }

    /// The value as a ratio to the probes.
    pub fn ratio(&self) -> f64 {
        self.value / self.raw()
    }

    /// How far the probes lie apart, as a fraction of their mean.
    pub fn spread(&self) -> f64 {
        spread(self.before, self.after)
    }

    /// Whether the probes agree.
    pub fn is_stable(&self) -> bool {
        self.spread() <= SPREAD_MAX
    }
}

/// The tries of a window and what came with the one that counts.
#[derive(Clone, Debug)]
pub struct Window<T> {
    /// All tries, in order.
    pub attempts: Vec<Attempt>,
    /// Which one counts.
    pub chosen: usize,
    /// What came with it.
    pub extra: T,
}

impl<T> Window<T> {
    /// The try that counts.
    pub fn attempt(&self) -> Attempt {
        self.attempts[self.chosen]
    }
}

/// Tries until a try is stable, `again` says no, or `attempts_max` are made. At least one is made. `again` gets the number of
/// tries so far.
///
/// # Errors
/// The first of a try.
pub fn run_window<T>(
    attempts_max: usize,
    mut again: impl FnMut(usize) -> bool,
    mut attempt: impl FnMut() -> Result<(Attempt, T)>,
) -> Result<Window<T>> {
    let (first, extra) = attempt()?;
    let mut window = Window { attempts: vec![first], chosen: 0, extra };
    while !window.attempt().is_stable()
        && window.attempts.len() < attempts_max
        && again(window.attempts.len())
    {
        let (next, extra) = attempt()?;
        window.attempts.push(next);
        if next.spread() < window.attempt().spread() {
            window.chosen = window.attempts.len() - 1;
            window.extra = extra;
        }
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn attempt(before: f64, value: f64, after: f64) -> Attempt {
        Attempt { before, value, after, others: 0.0 }
    }

    fn run(tries: &[(f64, f64)], attempts_max: usize) -> Window<usize> {
        let mut next = 0;
        run_window(
            attempts_max,
            |_| true,
            || {
                let (before, after) = tries[next];
                next += 1;
                Ok((attempt(before, 50.0, after), next - 1))
            },
        )
        .unwrap()
    }

    /// Goal: the ratio is to the mean of both probes.
    /// Method: probes of 90 and 110, a value of 80.
    #[test]
    fn the_ratio_is_to_the_mean_of_the_probes() {
        let attempt = attempt(90.0, 80.0, 110.0);
        assert_eq!((attempt.raw(), attempt.ratio()), (100.0, 0.8));
        assert!((attempt.spread() - 0.2).abs() < 1e-12 && !attempt.is_stable());
    }

    /// Goal: ten per cent is still stable and anything more is not.
    /// Method: probes on both sides of the bound.
    #[test]
    fn ten_per_cent_is_the_bound() {
        assert!(attempt(95.0, 1.0, 104.99).is_stable());
        assert!(!attempt(95.0, 1.0, 105.2).is_stable());
        assert!(!attempt(0.0, 1.0, 0.0).is_stable(), "a probe that found nothing proves nothing");
    }

    /// Goal: a stable window is not repeated; an unstable one is, until it is stable, and that one counts.
    /// Method: scripts of probes.
    #[test]
    fn windows_are_repeated_until_the_probes_agree() {
        let steady = run(&[(100.0, 101.0)], 5);
        assert_eq!((steady.attempts.len(), steady.chosen), (1, 0));
        let later = run(&[(100.0, 150.0), (100.0, 120.0), (100.0, 99.0), (1.0, 1.0)], 5);
        assert_eq!((later.attempts.len(), later.chosen, later.extra), (3, 2, 2));
        assert!(later.attempt().is_stable());
    }

    /// Goal: a window that never becomes stable ends, keeps every try, and reports the one whose probes lay closest.
    /// Method: three bad tries, the second the least bad.
    #[test]
    fn a_window_that_stays_unstable_reports_its_steadiest_try() {
        let window = run(&[(100.0, 200.0), (100.0, 130.0), (100.0, 160.0)], 3);
        assert_eq!((window.attempts.len(), window.chosen, window.extra), (3, 1, 1));
        assert!(!window.attempt().is_stable());
        assert_eq!(window.attempt().after, 130.0, "the probes of different tries are never mixed");
    }

    /// Goal: the caller can forbid repeating, and a failure ends the window.
    /// Method: refuse at once; fail in the second try.
    #[test]
    fn repeating_ends_when_the_time_is_over_or_a_try_fails() {
        let bad = attempt(1.0, 1.0, 2.0);
        assert_eq!(run_window(9, |_| false, || Ok((bad, ()))).unwrap().attempts.len(), 1);
        let mut tries = 0;
        let outcome = run_window(
            9,
            |_| true,
            || {
                tries += 1;
                if tries == 2 { Err(Error::Usage("no".into())) } else { Ok((bad, ())) }
            },
        );
        assert!(outcome.is_err());
    }
}
