//! What the planner asks about a history.
//!
//! A history has a *full range*, in which every point is still there, and before it points that were kept singly. There may be
//! 10^9 points in the full range, so the planner jumps from one to the next it needs; it never walks them all.
//!
//! Two things have to be remembered from one run to the next, so that the outcome does not depend on when runs happen: the
//! `now` of the last run ([`History::planned_at`]), and the [`Standing`] of each point that was kept singly.

use crate::{
    Bookmark, Result, SeqTime,
    units::{Seq, TimeNs},
};

/// What a point that was kept is to the windows to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// A state in its own right: slots may choose it as the last state written in them.
    State,
    /// It is there only for a bookmark, a pin, or as the edge of the full range, and goes with that. No slot chooses it.
    Guest,
}

/// The range in which every point is still there, up to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullRange {
    /// Its first point.
    pub from: SeqTime,
    /// What the first point is to the windows; all behind it are states. [`Standing::State`] in a history that was never thinned.
    pub standing: Standing,
}

/// A point before the full range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The point.
    pub point: SeqTime,
    /// The time of the write that followed it, kept or not: the point stands for all times before that.
    pub until: TimeNs,
    /// What it is to the windows.
    pub standing: Standing,
}

/// A point that must not go while something reads it: an open snapshot, a clone, a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The point. One that is no longer there pins nothing.
    pub point: SeqTime,
    /// What holds it, for people: `snapshot NAME`.
    pub holder: String,
}

/// A history as the planner sees it. Times of points do not decrease with their seqs.
///
/// Queries take points of the full range only, but for [`History::bookmarks`] and [`History::kept`].
pub trait History {
    /// The newest point.
    fn newest(&self) -> SeqTime;

    /// The range in which every point is there.
    fn full_range(&self) -> FullRange;

    /// The points before the full range, ascending by seq.
    fn kept(&self) -> &[Kept];

    /// The bookmarks, in any order.
    fn bookmarks(&self) -> &[Bookmark];

    /// The greatest `now` of the plans that were carried out under this very policy; `None` before the first one and after a
    /// change of the policy.
    fn planned_at(&self) -> Option<TimeNs>;

    /// The newest point of the full range with a time at or before `time`; `None` when all are later.
    ///
    /// # Errors
    /// `Io` or `Damaged` when the times cannot be read.
    fn last_at_or_before(&self, time: TimeNs) -> Result<Option<SeqTime>>;

    /// The first point of the full range with a seq greater than `seq`, or `None`.
    ///
    /// # Errors
    /// `Io` or `Damaged` when the times cannot be read.
    fn next_after(&self, seq: Seq) -> Result<Option<SeqTime>>;

    /// The time of a point of the full range; `None` when it is not a point.
    ///
    /// # Errors
    /// `Io` or `Damaged` when the times cannot be read.
    fn time_of(&self, seq: Seq) -> Result<Option<TimeNs>>;

    /// The time of the write that followed a point of the full range, which need not have made a point; `None` for the newest.
    ///
    /// # Errors
    /// `Io` or `Damaged` when the times cannot be read.
    fn until(&self, seq: Seq) -> Result<Option<TimeNs>>;
}
