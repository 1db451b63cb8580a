//! What retention has left of a timeline, as the model knows it, and what must hold of any plan.
//!
//! The planner is tested by itself against a slow one; here it is enough that what it promised is what the store then shows, and that no
//! plan breaks the promises that can be told without it ([`broken_promise`]).

use crate::{
    bookmark::Bookmark,
    error::SeqTime,
    retention::{DropReason, FullRange, Keep, Kept, Outline, Plan, Policy, Standing},
    units::{Seq, TimeNs, len_u64},
};

/// The states that are left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// All states are there from here on.
    pub full: FullRange,
    /// Those that are there before it, ascending.
    pub kept: Vec<Kept>,
}

impl Default for Remains {
    fn default() -> Self {
        Self::of(&Outline::default())
    }
}

impl Remains {
    /// As a store shows it.
    pub fn of(outline: &Outline) -> Self {
        Self { full: outline.full, kept: outline.kept_for_plan() }
    }

    /// As a plan promises it.
    pub fn promised(plan: &Plan) -> Self {
        Self { full: plan.full, kept: plan.kept() }
    }

    /// Whether a state is there.
    pub fn contains(&self, seq: Seq) -> bool {
        seq >= self.full.from.seq || self.is_single(seq)
    }

    /// Whether a state was chosen to stay, so that it is a point however writes were coalesced.
    pub fn is_chosen(&self, seq: Seq) -> bool {
        self.is_single(seq) || (*self != Self::default() && seq == self.full.from.seq)
    }

    fn is_single(&self, seq: Seq) -> bool {
        self.kept.iter().any(|kept| kept.point.seq == seq)
    }

    /// The oldest state that is there.
    pub fn oldest(&self) -> Seq {
        self.kept.first().map_or(self.full.from.seq, |kept| kept.point.seq)
    }

    /// The states nearest to one that is not there, of those from `from` on.
    pub fn around(&self, seq: Seq, from: Seq) -> (Option<Seq>, Option<Seq>) {
        let singles = || self.kept.iter().map(|kept| kept.point.seq).filter(|kept| *kept >= from);
        let before = singles().rfind(|kept| *kept < seq);
        let after = singles().find(|kept| *kept > seq).unwrap_or(self.full.from.seq.max(from));
        (before, Some(after))
    }
}

/// What a plan is made of, apart from the policy.
pub struct Before<'a> {
    /// The states that are there.
    pub remains: &'a Remains,
    /// The first at which any volume exists.
    pub oldest: Seq,
    /// The newest of them.
    pub newest: SeqTime,
    /// All bookmarks.
    pub bookmarks: &'a [Bookmark],
    /// States that are being read.
    pub pinned: &'a [Seq],
    /// Times of the writes, the one of seq 1 first.
    pub times: &'a [TimeNs],
}

/// The first promise that a plan does not keep.
pub fn broken_promise(plan: &Plan, policy: &Policy, before: &Before<'_>) -> Option<String> {
    let after = Remains::promised(plan);
    let now = plan.now;
    let is_there = |seq: Seq| after.contains(seq);
    if !is_there(before.newest.seq) {
        return Some(format!("the newest state stays: {:?}", before.newest));
    }
    if let Some(kept) = after.kept.iter().find(|kept| !before.remains.contains(kept.point.seq)) {
        return Some(format!("what is gone stays gone: {kept:?}"));
    }
    if after.full.from.seq < before.remains.full.from.seq {
        return Some(format!("the full range begins at or after {:?}", before.remains.full));
    }
    if let Some(seq) = before.pinned.iter().find(|seq| !is_there(**seq)) {
        return Some(format!("seq {seq} is being read and stays"));
    }
    for bookmark in before.bookmarks {
        let dropped = plan.dropped_bookmarks.iter().find(|dropped| dropped.name == bookmark.name);
        let expired = bookmark.expires.is_some_and(|expires| expires <= now);
        let rightly = match dropped {
            None => (!expired || bookmark.locked) && is_there(bookmark.seq),
            Some(dropped) => !bookmark.locked && (dropped.why == DropReason::Expired) == expired,
        };
        if !rightly {
            return Some(format!("what becomes of {bookmark:?} ({dropped:?})"));
        }
    }
    let own = |kept: &&Kept| kept.standing == Standing::State;
    let gone = before.remains.kept.iter().filter(own).find(|kept| !is_there(kept.point.seq));
    if let Some(gone) = gone.filter(|_| policy.keeps_everything()) {
        return Some(format!("no policy takes away {gone:?}"));
    }
    // A first window that keeps all: of the full range every state from the last one at or before its edge on.
    let edge = policy.windows.first().filter(|window| window.keep == Keep::All).map(|window| window.to);
    let edge = match edge {
        Some(to) => now.get().checked_sub(to),
        None if policy.windows.is_empty() && policy.max_age.is_none() => None,
        None => return None,
    };
    let edge = edge.map_or(0, |edge| before.times.partition_point(|time| time.get() <= edge));
    let needed = Seq::new(len_u64(edge)).max(before.remains.full.from.seq).max(before.oldest);
    (after.full.from.seq > needed).then(|| format!("all states from seq {needed} on lie in the first window"))
}
