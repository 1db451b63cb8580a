//! How much may stay dead: copying survivors costs writes, and space that nobody is short of is worth none.

/// How much may stay dead, for each hundred bytes that are alive. Each round rewrites index runs, so that a few large ones cost less than
/// many small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeadLimits {
    /// Nothing is copied up to here.
    pub begin_percent: u64,
    /// Who begins goes on down to here.
    pub end_percent: u64,
}

/// Who thins, and so what it is worth to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Somebody asked for it: little stays dead, however much space there is.
    Run,
    /// Background work: what stays dead follows the space budget.
    Background,
    /// Space is short: what is copied to free the rest would cost more writes than it gives room.
    Short,
}

/// What a run leaves dead.
const AFTER_RUN: DeadLimits = DeadLimits { begin_percent: 18, end_percent: 12 };
/// What background work leaves dead where there is no bound, and so no knowing how much space is plenty.
const UNBOUND: DeadLimits = DeadLimits { begin_percent: 25, end_percent: 16 };
/// What stays dead when space is short.
const SHORT: DeadLimits = DeadLimits { begin_percent: 15, end_percent: 15 };
/// Below this part of the bound, in thousandths, there is plenty: what is dead as a whole goes, and nothing is copied.
const PLENTY: u64 = 500;
/// What background work leaves dead where plenty ends.
const AT_PLENTY_PERCENT: u64 = 100;

impl Effort {
    /// The limits, where the store takes up `fill` thousandths of what it may; `None` when it has no bound.
    pub const fn dead_limits(self, fill: Option<u64>) -> DeadLimits {
        match (self, fill) {
            (Self::Run, _) => AFTER_RUN,
            (Self::Short, _) => SHORT,
            (Self::Background, None) => UNBOUND,
            (Self::Background, Some(fill)) => by_budget(fill),
        }
    }
}

/// From [`AT_PLENTY_PERCENT`] where plenty ends straight down to [`SHORT`] at the bound.
const fn by_budget(fill: u64) -> DeadLimits {
    if fill < PLENTY {
        return DeadLimits { begin_percent: u64::MAX, end_percent: u64::MAX };
    }
    let left = 1000_u64.saturating_sub(fill);
    let begin = SHORT.begin_percent + (AT_PLENTY_PERCENT - SHORT.begin_percent) * left / (1000 - PLENTY);
    DeadLimits {
        begin_percent: begin,
        end_percent: if begin == SHORT.begin_percent { begin } else { begin / 3 * 2 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: nothing is copied while there is plenty, and more the nearer the bound is. Method: every fill, and beyond the bound.
    #[test]
    fn less_stays_dead_the_nearer_the_bound_is() {
        let limits: Vec<DeadLimits> =
            (0..1100).map(|fill| Effort::Background.dead_limits(Some(fill))).collect();
        assert!(limits[..500].iter().all(|limits| limits.begin_percent == u64::MAX));
        assert_eq!(limits[500].begin_percent, 100);
        assert!(limits.is_sorted_by(|a, b| a.begin_percent >= b.begin_percent));
        assert!(limits.iter().all(|limits| limits.end_percent <= limits.begin_percent));
        assert!(limits[1000..].iter().all(|limits| *limits == SHORT));
        let steps = limits[500..].windows(2).map(|pair| pair[0].begin_percent - pair[1].begin_percent);
        assert!(steps.max() == Some(1), "it falls little by little");
    }

    /// Goal: who asks for a run gets one, whatever the bound; a store without a bound is kept within what its policy promises. Method: the
    /// limits of each effort at both ends.
    #[test]
    fn only_background_work_follows_the_budget() {
        for fill in [None, Some(0), Some(1000)] {
            assert_eq!(Effort::Run.dead_limits(fill), AFTER_RUN);
            assert_eq!(Effort::Short.dead_limits(fill), SHORT);
        }
        assert_eq!(Effort::Background.dead_limits(None), UNBOUND);
    }
}
