//! What is left of a timeline: the full range, and the points before it that were kept singly.
//!
//! Invariant *apart*: kept points lie before the full range. A store that was never thinned has a full range from seq 0 on.

use super::{FullRange, Kept, Plan, Policy, Standing};
use crate::{
    error::SeqTime,
    limits::{OUTLINE_WHY_BYTES_MAX, OUTLINE_WINDOW_BYTES_MAX},
    units::{Seq, TimeNs},
};
use std::collections::BTreeMap;

/// A point that was kept where others were thinned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlinePoint {
    /// The point.
    pub point: SeqTime,
    /// The time of the write that followed it: the point stands for all times before that.
    pub until: TimeNs,
    /// What it is to later plans.
    pub standing: Standing,
    /// Name of the window that keeps it.
    pub window: String,
    /// Why it is kept.
    pub why: String,
}

/// What is left of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The range in which every point is there.
    pub full: FullRange,
    /// The `now` of the last plan, and the digest of the policy that it was made under.
    pub planned: Option<(TimeNs, u64)>,
    kept: BTreeMap<Seq, OutlinePoint>,
}

/// Where a time lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePlace {
    /// In the full range.
    Full,
    /// A kept point stands for it.
    Kept(SeqTime),
    /// What was the state then is gone; it would have this seq or a later one.
    Gone(Seq),
}

impl Default for Outline {
    fn default() -> Self {
        let from = SeqTime { seq: Seq::ZERO, time: TimeNs::ZERO };
        Self { full: FullRange { from, standing: Standing::State }, planned: None, kept: BTreeMap::new() }
    }
}

impl Outline {
    /// The points before the full range, ascending.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = &OutlinePoint> {
        self.kept.values()
    }

    /// The same as the planner wants to see them.
    pub fn kept_for_plan(&self) -> Vec<Kept> {
        let one = |one: &OutlinePoint| Kept { point: one.point, until: one.until, standing: one.standing };
        self.kept().map(one).collect()
    }

    /// Whether anything was ever thinned.
    pub fn is_whole(&self) -> bool {
        self.kept.is_empty() && self.full.from.seq == Seq::ZERO
    }

    /// Whether a state is there, as far as thinning goes.
    pub fn contains(&self, seq: Seq) -> bool {
        seq >= self.full.from.seq || self.kept.contains_key(&seq)
    }

    /// The time of a kept point, or of the first of the full range.
    pub fn time_of(&self, seq: Seq) -> Option<TimeNs> {
        if seq == self.full.from.seq && !self.is_whole() {
            return Some(self.full.from.time);
        }
        self.kept.get(&seq).map(|kept| kept.point.time)
    }

    /// The oldest state that is there.
    pub fn oldest(&self) -> SeqTime {
        self.kept.values().next().map_or(self.full.from, |kept| kept.point)
    }

    /// Where a time lies.
    pub fn place_of(&self, time: TimeNs) -> TimePlace {
        if time >= self.full.from.time {
            return TimePlace::Full;
        }
        // Times do not decrease with seqs.
        match self.kept.values().rev().find(|kept| kept.point.time <= time) {
            Some(kept) if time < kept.until => TimePlace::Kept(kept.point),
            Some(kept) => TimePlace::Gone(kept.point.seq.next()),
            None => TimePlace::Gone(Seq::ZERO),
        }
    }

    /// The states that are there nearest to one that is not: before and after it.
    pub fn around(&self, seq: Seq) -> (Option<SeqTime>, Option<SeqTime>) {
        let before = self.kept.range(..seq).next_back().map(|(_, kept)| kept.point);
        let after = self.kept.range(seq..).next().map_or(self.full.from, |(_, kept)| kept.point);
        (before, Some(after))
    }

    /// Adds points, or replaces what is said of them.
    pub fn keep(&mut self, points: &[OutlinePoint]) {
        self.kept.extend(points.iter().map(|point| (point.point.seq, point.clone())));
    }

    /// Takes points out.
    pub fn drop_points(&mut self, seqs: &[Seq]) {
        seqs.iter().for_each(|seq| drop(self.kept.remove(seq)));
    }

    /// Sets the full range; what was kept within it needs no record of its own.
    pub fn set_full(&mut self, full: FullRange, planned: Option<(TimeNs, u64)>) {
        self.full = full;
        self.planned = planned;
        drop(self.kept.split_off(&full.from.seq));
    }

    /// The outline that a plan leaves.
    pub fn after(plan: &Plan, policy: &Policy, policy_digest: u64) -> Self {
        let mut kept = BTreeMap::new();
        for one in &plan.retained {
            let point = OutlinePoint {
                point: one.point,
                until: one.until,
                standing: one.standing,
                window: cut(policy.window_name(one.window), OUTLINE_WINDOW_BYTES_MAX),
                why: cut(one.why.to_string(), OUTLINE_WHY_BYTES_MAX),
            };
            kept.insert(one.point.seq, point);
        }
        Self { full: plan.full, planned: Some((plan.now, policy_digest)), kept }
    }

    /// What must be kept anew, and dropped, to get from this outline to another.
    pub fn difference(&self, to: &Self) -> (Vec<OutlinePoint>, Vec<Seq>) {
        let kept = to.kept.values().filter(|point| self.kept.get(&point.point.seq) != Some(point)).cloned();
        let dropped = self.kept.keys().filter(|seq| !to.kept.contains_key(seq)).copied();
        (kept.collect(), dropped.collect())
    }
}

fn cut(mut text: String, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(seq: u64, time: u64, until: u64) -> OutlinePoint {
        OutlinePoint {
            point: SeqTime { seq: Seq::new(seq), time: TimeNs::new(time) },
            until: TimeNs::new(until),
            standing: Standing::State,
            window: "24h-48h".into(),
            why: "last state of its slot".into(),
        }
    }

    fn full(seq: u64, time: u64) -> FullRange {
        FullRange { from: SeqTime { seq: Seq::new(seq), time: TimeNs::new(time) }, standing: Standing::State }
    }

    /// Goal: a time belongs to the kept point whose state it had, or to none. Method: an outline by hand, each edge.
    #[test]
    fn a_kept_point_stands_for_the_times_up_to_the_next_write() {
        let mut outline = Outline::default();
        assert!(outline.is_whole() && outline.contains(Seq::ZERO));
        outline.keep(&[point(10, 100, 110), point(20, 200, 200)]);
        outline.set_full(full(30, 300), None);
        let seq = |time| match outline.place_of(TimeNs::new(time)) {
            TimePlace::Kept(found) => Ok(found.seq.get()),
            TimePlace::Gone(near) => Err(near.get()),
            TimePlace::Full => Ok(u64::MAX),
        };
        assert_eq!([99, 100, 109, 110, 199].map(seq), [Err(0), Ok(10), Ok(10), Err(11), Err(11)]);
        assert_eq!([200, 299, 300].map(seq), [Err(21), Err(21), Ok(u64::MAX)]);
        assert!(!outline.contains(Seq::new(11)) && outline.contains(Seq::new(20)));
        let seqs = |(before, after): (Option<SeqTime>, Option<SeqTime>)| {
            (before.map(|p| p.seq.get()), after.map(|p| p.seq.get()))
        };
        assert_eq!(seqs(outline.around(Seq::new(5))), (None, Some(10)));
        assert_eq!(seqs(outline.around(Seq::new(15))), (Some(10), Some(20)));
        assert_eq!(seqs(outline.around(Seq::new(25))), (Some(20), Some(30)));
    }

    /// Goal: the difference leads from one outline to the other. Method: two that share a point, and one that changed.
    #[test]
    fn a_difference_leads_to_the_other_outline() {
        let mut from = Outline::default();
        from.keep(&[point(1, 1, 2), point(2, 5, 6), point(3, 7, 8)]);
        from.set_full(full(9, 90), None);
        let mut to = Outline::default();
        to.keep(&[point(2, 5, 6), OutlinePoint { why: "locked".into(), ..point(3, 7, 8) }, point(4, 40, 41)]);
        to.set_full(full(9, 90), None);
        let (kept, dropped) = from.difference(&to);
        assert_eq!((kept.len(), dropped.len()), (2, 1));
        from.keep(&kept);
        from.drop_points(&dropped);
        assert_eq!(from, to);
    }
}
