//! The windows, one after the other: which states and bookmarks each keeps of what the one before it kept.

use super::{
    Standing,
    edges::{Edges, slot_start},
    history::History,
    outcome::DropReason,
};
use crate::{
    Bookmark, Error, Result, SeqTime,
    retention::{Keep, Policy, Slots, Window},
    units::{Seq, TimeNs},
};
use std::cmp::Reverse;

/// A state that windows may choose.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub point: SeqTime,
    /// Whether no run has looked at it: else the windows that had decided its time by then have kept it.
    fresh: bool,
}

/// A bookmark on its way through the windows.
pub(super) struct Item<'a> {
    pub bookmark: &'a Bookmark,
    /// The state it names, if that is still there.
    pub state: Option<SeqTime>,
    /// Why it goes.
    pub dropped: Option<DropReason>,
    /// Whether it would stay by the filter of the last window that decided it, or because that or no window drops anything.
    pub passes: bool,
}

/// What the windows decide at one time.
pub(super) struct Cascade<'a> {
    policy: &'a Policy,
    now: TimeNs,
    horizon: TimeNs,
    pub edges: Edges<'a>,
    /// The edges of the run before.
    before: Option<Edges<'a>>,
}

impl<'a> Cascade<'a> {
    pub fn new(policy: &'a Policy, now: TimeNs, planned_at: Option<TimeNs>, horizon: TimeNs) -> Self {
        let edges = Edges::new(policy, now);
        let before = planned_at.map(|planned_at| Edges::new(policy, planned_at));
        Self { policy, now, horizon, edges, before }
    }

    /// The first instant that a window had not decided in an earlier run.
    fn decided_before(&self, window: usize) -> u64 {
        self.before.as_ref().map_or(0, |edges| edges.decided(window))
    }

    /// The states that stay in their own right, ascending, and the verdict on each bookmark. In the full range only those states
    /// are listed that the first window to choose has chosen.
    pub fn decide(&self, history: &impl History, items: &mut [Item<'_>]) -> Result<Vec<State>> {
        items.sort_by_key(|item| (item.bookmark.time, item.bookmark.seq));
        let mut states = self.candidates(history)?;
        for (index, window) in self.policy.windows.iter().enumerate() {
            match &window.keep {
                Keep::All => self.pass_all(index, items),
                Keep::None => {
                    let edge = self.edges.decided(index);
                    let before = self.decided_before(index);
                    states.retain(|state| {
                        let time = state.point.time.get();
                        time >= edge || (!state.fresh && time < before)
                    });
                    for item in items.iter_mut().filter(|item| item.bookmark.time.get() < edge) {
                        item.judge(index, window, false);
                    }
                }
                Keep::Every(slots) => states = self.decide_slots(index, window, slots, &states, items),
            }
        }
        let stays = |time: TimeNs| time.get() >= self.edges.young_from() && time >= self.horizon;
        states.retain(|state| stays(state.point.time));
        for item in items {
            self.bounds(item);
        }
        Ok(states)
    }

    /// The states that the first window to choose has to look at: those that were kept singly, and of the full range the last one
    /// of each slot. What is too old is left out: it cannot stay, and is never the last of a slot that has younger states.
    fn candidates(&self, history: &impl History) -> Result<Vec<State>> {
        let own = history.kept().iter().filter(|kept| kept.standing == Standing::State);
        let mut states: Vec<_> = own.map(|kept| State { point: kept.point, fresh: false }).collect();
        let Some(window) = self.edges.first_choosing() else { return Ok(states) };
        let full = history.full_range();
        let decided_before = full.from.time.get() < self.decided_before(window);
        if let Keep::Every(slots) = &self.policy.windows[window].keep {
            let kept_singly = states.len();
            let mut end = self.edges.decided(window);
            while let Some(last) = end.checked_sub(1) {
                let Some(point) = history.last_at_or_before(TimeNs::new(last))? else { break };
                let fresh = point != full.from || !decided_before;
                let bounded = point.time.get() < self.edges.young_from() || point.time < self.horizon;
                // Seq 0 was never written.
                if bounded || point.seq == Seq::ZERO {
                    break;
                }
                if point == full.from && full.standing == Standing::Guest {
                    break;
                }
                states.push(State { point, fresh });
                let next = slot_start(point.time.get(), slots.interval);
                if next >= end {
                    let text = "the history changed while retention was planned; try again";
                    return Err(Error::InvalidArgument(text.into()));
                }
                end = next;
            }
            states[kept_singly..].reverse();
        } else if decided_before && full.standing == Standing::State {
            states.push(State { point: full.from, fresh: false });
        }
        Ok(states)
    }

    fn pass_all(&self, index: usize, items: &mut [Item<'_>]) {
        let edge = self.edges.decided(index);
        for item in items.iter_mut().filter(|item| item.bookmark.time.get() < edge && item.dropped.is_none())
        {
            item.passes = true;
        }
    }

    /// Decides the slots before the edge of a window; what lies behind it stays as it is.
    fn decide_slots(
        &self,
        index: usize,
        window: &Window,
        slots: &Slots,
        states: &[State],
        items: &mut [Item<'_>],
    ) -> Vec<State> {
        let edge = self.edges.decided(index);
        let (decided, undecided) = states.split_at(states.partition_point(|s| s.point.time.get() < edge));
        let decided_items = items.partition_point(|item| item.bookmark.time.get() < edge);
        let (mut states, mut items) = (decided, &mut items[..decided_items]);
        let mut kept = Vec::new();
        loop {
            let first_state = states.first().map(|state| state.point.time);
            let first_item = items.first().map(|item| item.bookmark.time);
            let Some(first) = first_state.into_iter().chain(first_item).min() else { break };
            let start = slot_start(first.get(), slots.interval);
            // It ends at or before the edge, which is a multiple of the interval.
            let end = start.saturating_add(slots.interval);
            let (here, rest) = states.split_at(states.partition_point(|s| s.point.time.get() < end));
            let split = items.partition_point(|item| item.bookmark.time.get() < end);
            let (items_here, items_rest) = items.split_at_mut(split);
            self.decide_slot(index, window, slots, (start, end), here, items_here, &mut kept);
            (states, items) = (rest, items_rest);
        }
        kept.extend_from_slice(undecided);
        kept
    }

    #[expect(clippy::too_many_arguments, reason = "one slot, its contents and its rule")]
    fn decide_slot(
        &self,
        index: usize,
        window: &Window,
        slots: &Slots,
        (start, end): (u64, u64),
        states: &[State],
        items: &mut [Item<'_>],
        kept: &mut Vec<State>,
    ) {
        // Bounds by age and expiry are part of the choice only as they were when the slot was decided: that does not depend on
        // when somebody looks.
        let due = self.edges.due(index, end).unwrap_or(u64::MAX);
        let there = |item: &Item<'_>| {
            let bookmark = item.bookmark;
            item.dropped.is_none()
                && (bookmark.locked
                    || self.edges.is_young_at(bookmark.time, due)
                        && bookmark.expires.is_none_or(|expires| expires.get() > due))
        };
        let preference = |item: &Item<'_>| slots.prefer.iter().position(|kind| *kind == item.bookmark.kind);
        let mut chosen: Vec<usize> =
            (0..items.len()).filter(|at| there(&items[*at]) && preference(&items[*at]).is_some()).collect();
        chosen.sort_by_key(|at| {
            let item = &items[*at];
            (preference(item), Reverse((item.bookmark.time, item.bookmark.seq)), item.bookmark.name.as_str())
        });
        chosen.truncate(usize::try_from(slots.per_slot).unwrap_or(usize::MAX));
        let full = u32::try_from(chosen.len()).is_ok_and(|chosen| chosen >= slots.per_slot);

        if end <= self.decided_before(index) && !states.iter().any(|state| state.fresh) {
            kept.extend_from_slice(states);
        } else if !full {
            let own = states.iter().copied().filter(|state| self.edges.is_young_at(state.point.time, due));
            let named = items.iter().filter(|item| there(item)).filter_map(|item| item.state);
            let written_here = |point: &SeqTime| (start..end).contains(&point.time.get());
            let named = named.filter(written_here).map(|point| State { point, fresh: true });
            let last = own.chain(named).filter(|state| state.point.seq != Seq::ZERO);
            kept.extend(last.max_by_key(|state| (state.point, !state.fresh)));
        }
        for (at, item) in items.iter_mut().enumerate() {
            item.judge(index, window, chosen.contains(&at));
        }
    }

    /// The bounds that spare nothing but locked bookmarks.
    fn bounds(&self, item: &mut Item<'_>) {
        let bookmark = item.bookmark;
        let bound = if bookmark.expires.is_some_and(|expires| expires <= self.now) {
            DropReason::Expired
        } else if bookmark.time.get() < self.edges.young_from() {
            DropReason::Age
        } else if bookmark.time < self.horizon {
            DropReason::Space
        } else {
            return;
        };
        if bookmark.locked {
            item.passes = false;
        } else {
            // What a window drops anyway does not go for space.
            let by_window = item.dropped.filter(|_| bound == DropReason::Space);
            item.dropped = by_window.or(Some(bound));
        }
    }
}

impl<'a> Item<'a> {
    pub fn new(bookmark: &'a Bookmark, state: Option<SeqTime>) -> Self {
        Self { bookmark, state, dropped: None, passes: true }
    }

    /// Applies the rule of a window that has decided it.
    fn judge(&mut self, index: usize, window: &Window, chosen: bool) {
        if self.dropped.is_some() {
            return;
        }
        let bookmark = self.bookmark;
        self.passes = window.bookmarks.passes(bookmark.kind, bookmark.app.as_deref(), &bookmark.name);
        if !self.passes && !chosen && !bookmark.locked {
            self.dropped = Some(DropReason::Window(index));
        }
    }
}
