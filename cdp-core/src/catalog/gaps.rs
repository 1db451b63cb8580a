//! Gaps: stretches of a volume's timeline that were not captured whole.
//!
//! A gap takes a seq when it opens and one when it closes. The states from the opening seq up to, not including, the closing one cannot
//! be opened; the closing seq is exact again. At most one gap of a volume is open, the last one.
//! Invariant *superset*: the row is bounded by [`GAPS_MAX`]; beyond it the two closed gaps that lie closest become one, which says less
//! of the timeline is exact, never more.

use crate::{
    error::{Error, Result, SeqTime},
    limits::GAPS_MAX,
    units::Seq,
};
use std::{fmt, str::FromStr};

/// Why a range of the timeline is not exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The volume was not yet equal to its source: the first synchronisation.
    Initial,
    /// Writes came faster than the store could take them.
    Overload,
    /// The store could not write.
    StoreFailure,
    /// A write was begun and its producer did not come back in time.
    Stalled,
    /// Writes overlapped in flight, so their order on the source is unknown.
    Overlap,
    /// The host asked for it.
    Host,
    /// The process ended without a clean close.
    Unclean,
    /// The bound by space was reached and nothing may be dropped.
    Shortage,
}

impl GapReason {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::Initial,
        Self::Overload,
        Self::StoreFailure,
        Self::Stalled,
        Self::Overlap,
        Self::Host,
        Self::Unclean,
        Self::Shortage,
    ];

    /// The spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Overload => "overload",
            Self::StoreFailure => "store-failure",
            Self::Stalled => "stalled",
            Self::Overlap => "overlap",
            Self::Host => "host",
            Self::Unclean => "unclean",
            Self::Shortage => "shortage",
        }
    }

    /// Its number on disk.
    pub const fn code(self) -> u8 {
        match self {
            Self::Initial => 1,
            Self::Overload => 2,
            Self::StoreFailure => 3,
            Self::Stalled => 4,
            Self::Overlap => 5,
            Self::Host => 6,
            Self::Unclean => 7,
            Self::Shortage => 8,
        }
    }

    /// The reason of a number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for GapReason {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|reason| reason.as_str() == text);
        known.ok_or_else(|| Error::InvalidArgument(format!("'{text:.32}' is not the reason of a gap")))
    }
}

/// One gap of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapSpan {
    /// The seq that opened it: the first state that cannot be opened.
    pub opened: SeqTime,
    /// The seq that closed it: the first state that can be opened again; `None` while it is open.
    pub closed: Option<SeqTime>,
    /// Why.
    pub reason: GapReason,
}

impl GapSpan {
    /// Whether a state lies in it.
    pub fn contains(&self, seq: Seq) -> bool {
        self.opened.seq <= seq && self.closed.is_none_or(|closed| seq < closed.seq)
    }
}

/// The gaps of one volume, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps(Vec<GapSpan>);

impl Gaps {
    /// The gaps in order.
    pub fn iter(&self) -> impl Iterator<Item = &GapSpan> {
        self.0.iter()
    }

    /// The gap that is open.
    pub fn open(&self) -> Option<&GapSpan> {
        self.0.last().filter(|gap| gap.closed.is_none())
    }

    /// The gap in which a state lies.
    pub fn containing(&self, seq: Seq) -> Option<&GapSpan> {
        let after = self.0.partition_point(|gap| gap.opened.seq <= seq);
        self.0[..after].last().filter(|gap| gap.contains(seq))
    }

    /// A gap opens. Told twice, or inside of one that is there, it changes nothing.
    pub(super) fn opened(&mut self, at: SeqTime, reason: GapReason) {
        let known = self.0.last().is_some_and(|last| at.seq <= last.opened.seq || last.contains(at.seq));
        if !known {
            self.0.push(GapSpan { opened: at, closed: None, reason });
            self.coarsen();
        }
    }

    /// The gap that `opened` opened closes. Told twice it changes nothing.
    pub(super) fn closed(&mut self, opened: Seq, at: SeqTime) {
        if let Some(last) = self.0.last_mut()
            && last.opened.seq == opened
            && last.closed.is_none()
        {
            last.closed = Some(at);
        }
    }

    fn coarsen(&mut self) {
        if self.0.len() <= GAPS_MAX {
            return;
        }
        let between = |pair: &[GapSpan]| {
            let end = pair[0].closed.map_or(Seq::MAX, |closed| closed.seq);
            pair[1].opened.seq.get().saturating_sub(end.get())
        };
        // The last one is open and stays as it is.
        let closed = &self.0[..self.0.len() - 1];
        let closest = closed.windows(2).enumerate().min_by_key(|(_, pair)| between(pair));
        if let Some((index, _)) = closest {
            let later = self.0.remove(index + 1);
            self.0[index].closed = later.closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::TimeNs;

    fn at(seq: u64) -> SeqTime {
        SeqTime { seq: Seq::new(seq), time: TimeNs::new(seq * 10) }
    }

    fn gaps(spans: &[(u64, u64)]) -> Gaps {
        let mut gaps = Gaps::default();
        for (opened, closed) in spans {
            gaps.opened(at(*opened), GapReason::Overload);
            gaps.closed(Seq::new(*opened), at(*closed));
        }
        gaps
    }

    /// Goal: a gap holds its opening seq and not its closing one. Method: every seq around two gaps.
    #[test]
    fn a_gap_ends_before_the_seq_that_closes_it() {
        let gaps = gaps(&[(3, 5), (8, 9)]);
        let inside: Vec<u64> = (0..12).filter(|seq| gaps.containing(Seq::new(*seq)).is_some()).collect();
        assert_eq!(inside, [3, 4, 8]);
        assert!(gaps.open().is_none());
    }

    /// Goal: records may be applied twice, as recovery does. Method: the same row again on top.
    #[test]
    fn told_twice_changes_nothing() {
        let mut twice = gaps(&[(3, 5), (8, 9)]);
        twice.opened(at(12), GapReason::Host);
        let once = twice.clone();
        for (opened, closed) in [(3, Some(5)), (8, Some(9)), (12, None)] {
            twice.opened(at(opened), GapReason::Host);
            if let Some(closed) = closed {
                twice.closed(Seq::new(opened), at(closed));
            }
        }
        assert_eq!(twice, once);
        assert_eq!(twice.open().map(|gap| gap.opened), Some(at(12)));
    }

    /// Goal: the row stays bounded and never says that more is exact. Method: the limit, and many past it, with one pair close together.
    #[test]
    fn beyond_the_limit_gaps_become_one_and_cover_more() {
        let limit = u64::try_from(GAPS_MAX).unwrap();
        let spans: Vec<(u64, u64)> = (0..limit + 200)
            .map(|i| (i * 10 + u64::from(i == 7), i * 10 + 3 + 6 * u64::from(i == 6)))
            .collect();
        let at_limit = gaps(&spans[..GAPS_MAX]);
        assert_eq!(at_limit.iter().count(), GAPS_MAX);
        let one_more = gaps(&spans[..=GAPS_MAX]);
        assert_eq!(one_more.iter().count(), GAPS_MAX);
        assert!(one_more.containing(Seq::new(70)).is_some(), "the closest two became one");
        let many = gaps(&spans);
        assert_eq!(many.iter().count(), GAPS_MAX);
        for (opened, closed) in spans {
            assert!((opened..closed).all(|seq| many.containing(Seq::new(seq)).is_some()));
        }
    }

    /// Goal: reasons read back from their spelling and number.
    #[test]
    fn reasons_read_back() {
        for reason in GapReason::ALL {
            assert_eq!(reason.to_string().parse::<GapReason>().unwrap(), reason);
            assert_eq!(GapReason::from_code(reason.code()), Some(reason));
        }
        assert!(GapReason::from_code(0).is_none() && GapReason::from_code(9).is_none());
        assert!("Overload".parse::<GapReason>().is_err());
    }
}
