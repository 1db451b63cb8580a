//! The planner: a pure function from a history, a policy and a time to what stays and what goes.
//!
//! # Rules
//! What windows decide about are *states*, at the time of their write, and *bookmarks*, at their own time. A point stays while
//! a state or bookmark on it stays, while it is pinned, and from the beginning of the full range on.
//! - *Full range.* It begins at the last state at or before `now` less the end of the first window, if that keeps all; or
//!   at the first state that no window has decided, if that is older. A first window with slots or `none` has age 0 for its
//!   beginning. The newest state always stays, and states after `now` do.
//! - *Slots.* A slot is decided when its end has reached the age at which its window begins, and no sooner than the window
//!   before has decided all of it. It keeps the first `per_slot` bookmarks by order of preference, the newest first; kinds that
//!   `prefer` does not name are not preferred. When they are fewer, it keeps the last state written in it as well: one
//!   state, and none more when it is one that a chosen bookmark names. A bookmark is in the slot of its own time, also in
//!   one without a write, which has no state to keep. Seq 0 was never written.
//! - *Cascade.* A slot chooses its last state among the states that the window before keeps, and those that bookmarks of
//!   this slot name which the window before keeps, when they were written in this slot too. So a daily slot finds a state where
//!   slots of hours kept bookmarks only. A point that is there only because of a bookmark that is elsewhere or that the window
//!   before did not keep, of a pin, or as the edge of the full range, is no candidate ([`Standing::Guest`]).
//! - *Bookmarks.* A window that has decided the time of a bookmark keeps it when it keeps all, when its slot chose it, when
//!   it passes the filter, or when it is locked. A locked bookmark takes its place in slots like others.
//! - *Bounds.* At the age of the end of the last window or `max_age`, and before the horizon, goes what is not locked or pinned,
//!   also from slots that are not decided. The beginning of the full range by the first window gives way to the horizon only.
//!   Seq 0 goes when the first write behind it does. An expired bookmark goes, and with it the point that it alone kept.
//! - *Base.* The state at the oldest point is what the points before would have left: no rule is needed for it.
//!
//! # Invariants
//! - *Any time*: with nothing written in between, and also with writes, bookmarks and runs in any order, the outcome at a time
//!   depends on what was written and set until then, not on when runs happened. A choice looks at ages and expiries as of the time at which
//!   the slot was decided. A change of locks, of the policy, of the horizon, and a bookmark set at an older point or deleted, counts from the next run on.
//! - *Idempotent*: a plan of what a plan left is the same plan.
//! - *Once*: a slot that was decided takes no other state later, when a bookmark that it preferred is deleted ([`History::planned_at`]).
//! - *Bounded*: work and memory follow the number of bookmarks, of points kept singly, and of slots with a write that were
//!   not decided before; never the number of slots or states.

mod cascade;
mod edges;
mod history;
mod outcome;

pub use history::{FullRange, History, Kept, Pin, Standing};
pub use outcome::{DropReason, DroppedBookmark, Plan, Retained, Why};

use super::{Keep, Policy};
use crate::{
    Result, SeqTime,
    units::{Seq, TimeNs},
};
use cascade::{Cascade, Item, State};
use edges::Edges;
use std::{cmp::Reverse, collections::BTreeMap};

/// Decides what stays at `now`. What is older than `horizon` goes as by age, but for locked bookmarks and pins: so space is made;
/// `TimeNs::ZERO` when there is enough.
///
/// # Errors
/// Those of `history`, and `InvalidArgument` for a policy that is not valid.
pub fn plan(
    history: &impl History,
    policy: &Policy,
    now: TimeNs,
    pins: &[Pin],
    horizon: TimeNs,
) -> Result<Plan> {
    policy.validate()?;
    let cascade = Cascade::new(policy, now, history.planned_at(), horizon);
    let mut items = Vec::with_capacity(history.bookmarks().len());
    for bookmark in history.bookmarks() {
        let time = time_of(history, bookmark.seq)?;
        items.push(Item::new(bookmark, time.map(|time| SeqTime { seq: bookmark.seq, time })));
    }
    let states = cascade.decide(history, &mut items)?;
    let full = full_range(history, policy, &cascade.edges, &states, now, horizon)?;
    let retained = retained(history, &cascade.edges, &full, &states, &items, pins)?;

    let mut kept_bookmarks = Vec::new();
    let mut dropped_bookmarks = Vec::new();
    for item in &items {
        let name = item.bookmark.name.clone();
        match item.dropped {
            None => kept_bookmarks.push(name),
            Some(why) => dropped_bookmarks.push(DroppedBookmark { name, why }),
        }
    }
    kept_bookmarks.sort_unstable();
    dropped_bookmarks.sort_by(|a, b| a.name.cmp(&b.name));
    let next_due = next_due(history, policy, &cascade.edges, now, (&full, &retained, &items))?;
    Ok(Plan { now, full, retained, kept_bookmarks, dropped_bookmarks, next_due })
}

/// The time of a point that is still there.
fn time_of(history: &impl History, seq: Seq) -> Result<Option<TimeNs>> {
    if seq >= history.full_range().from.seq {
        return history.time_of(seq);
    }
    let kept = history.kept();
    let at = kept.binary_search_by_key(&seq, |kept| kept.point.seq);
    Ok(at.ok().and_then(|at| kept.get(at)).map(|kept| kept.point.time))
}

fn full_range(
    history: &impl History,
    policy: &Policy,
    edges: &Edges<'_>,
    states: &[State],
    now: TimeNs,
    horizon: TimeNs,
) -> Result<FullRange> {
    let was = history.full_range();
    let mut from = first_from(history, edges.undecided_from().max(edges.young_from()))?;
    if let Some(edge) = edge_of_first_window(policy, now) {
        from = from.min(last_before_edge(history, edge)?);
    }
    from = from.max(first_from(history, horizon.get())?);
    let was_guest = from == was.from && was.standing == Standing::Guest;
    let decided = from.time.get() < edges.undecided_from();
    // A slot may have chosen it just now under the name of a bookmark.
    let chosen = states.binary_search_by_key(&from.seq, |state| state.point.seq).is_ok();
    let guest = !chosen && (decided || was_guest);
    let standing = if guest { Standing::Guest } else { Standing::State };
    Ok(FullRange { from, standing })
}

/// `now` less the end of the first window, when that keeps all; the inner `None` before the epoch.
#[expect(clippy::option_option, reason = "no such window and an edge before all times are two things")]
fn edge_of_first_window(policy: &Policy, now: TimeNs) -> Option<Option<TimeNs>> {
    let first = policy.windows.first().filter(|window| window.keep == Keep::All)?;
    Some(now.get().checked_sub(first.to).map(TimeNs::new))
}

/// The last state at or before an edge; the first state there is when all are later.
fn last_before_edge(history: &impl History, edge: Option<TimeNs>) -> Result<SeqTime> {
    let last = match edge {
        Some(edge) => history.last_at_or_before(edge)?,
        None => None,
    };
    Ok(last.unwrap_or(history.full_range().from))
}

/// The first state at or after an instant, with seq 0 when no write lies before it; the newest when there is none.
fn first_from(history: &impl History, instant: u64) -> Result<SeqTime> {
    let before = match instant.checked_sub(1) {
        Some(before) => history.last_at_or_before(TimeNs::new(before))?,
        None => None,
    };
    match before {
        None => Ok(history.full_range().from),
        Some(point) if point.seq == Seq::ZERO => Ok(point),
        Some(point) => Ok(history.next_after(point.seq)?.unwrap_or(history.newest())),
    }
}

/// The points before the full range that stay, each with the first reason that holds.
fn retained(
    history: &impl History,
    edges: &Edges<'_>,
    full: &FullRange,
    states: &[State],
    items: &[Item<'_>],
    pins: &[Pin],
) -> Result<Vec<Retained>> {
    let mut found: BTreeMap<SeqTime, (Standing, Option<usize>, Why)> = BTreeMap::new();
    for State { point, .. } in states {
        let why = if point.time.get() < edges.undecided_from() { Why::SlotLast } else { Why::All };
        found.insert(*point, (Standing::State, edges.window_of(point.time), why));
    }
    // The reason that stays the same as long as the bookmark does comes first.
    let mut named: Vec<_> = items.iter().filter(|item| item.dropped.is_none()).collect();
    named.sort_by_key(|item| {
        let bookmark = item.bookmark;
        (!item.passes, !bookmark.locked, Reverse(bookmark.time), bookmark.name.as_str())
    });
    for item in named {
        let Some(point) = item.state else { continue };
        let name = item.bookmark.name.clone();
        let why = match (item.passes, item.bookmark.locked) {
            (true, _) => Why::Bookmark(name),
            (false, true) => Why::LockedBookmark(name),
            (false, false) => Why::SlotBookmark(name),
        };
        found.entry(point).or_insert((Standing::Guest, edges.window_of(item.bookmark.time), why));
    }
    for pin in pins {
        let point = pin.point;
        if point.seq < full.from.seq && time_of(history, point.seq)?.is_some() {
            let pinned = (Standing::Guest, edges.window_of(point.time), Why::Pin(pin.holder.clone()));
            found.entry(point).or_insert(pinned);
        }
    }
    let before = found.into_iter().take_while(|(point, _)| point.seq < full.from.seq);
    before
        .map(|(point, (standing, window, why))| {
            Ok(Retained { point, until: until(history, point.seq)?, standing, window, why })
        })
        .collect()
}

fn until(history: &impl History, seq: Seq) -> Result<TimeNs> {
    let kept = history.kept();
    if let Ok(at) = kept.binary_search_by_key(&seq, |kept| kept.point.seq) {
        return Ok(kept.get(at).map_or(TimeNs::ZERO, |kept| kept.until));
    }
    // Something follows it: it lies before the full range.
    Ok(history.until(seq)?.unwrap_or(history.newest().time))
}

/// The first time at which anything of the outcome can be another.
fn next_due(
    history: &impl History,
    policy: &Policy,
    edges: &Edges<'_>,
    now: TimeNs,
    (full, retained, items): (&FullRange, &[Retained], &[Item<'_>]),
) -> Result<Option<TimeNs>> {
    let mut due: Option<u64> = None;
    let mut at = |time: Option<u64>| {
        due = due.into_iter().chain(time.filter(|time| *time > now.get())).min();
    };
    let end = policy.windows.last().map(|window| window.to);
    let mut decided = |time: TimeNs| {
        at(edges.next_due(time));
        for age in [edges.age_max(), end].into_iter().flatten() {
            at(time.get().checked_add(age));
        }
    };
    for one in retained {
        decided(one.point.time);
    }
    for item in items.iter().filter(|item| item.dropped.is_none()) {
        decided(item.bookmark.time);
    }
    decided(full.from.time);
    let undecided = first_from(history, edges.undecided_from().max(edges.young_from()))?.max(full.from);
    decided(undecided.time);
    if undecided.seq == Seq::ZERO
        && let Some(first) = history.next_after(undecided.seq)?
    {
        decided(first.time);
    }
    for item in items.iter().filter(|item| item.dropped.is_none()) {
        at(item.bookmark.expires.map(TimeNs::get));
    }
    if let Some(edge) = edge_of_first_window(policy, now)
        && let Some(next) = history.next_after(last_before_edge(history, edge)?.max(full.from).seq)?
        && let Some(first) = policy.windows.first()
    {
        at(next.time.get().checked_add(first.to));
    }
    Ok(due.map(TimeNs::new))
}
