//! Each edge on its own, the reference policy, and how much work a plan is.

use super::memory::{Memory, at, bookmark};
use cdp_core::{
    Bookmark, BookmarkKind, Result, SeqTime,
    retention::{
        BookmarkFilter, DropReason, FullRange, History, Keep, Kept, Pin, Plan, Policy, Slots, Standing, Why,
        Window, plan,
    },
    units::{Seq, TimeNs},
};
use std::{cell::Cell, collections::BTreeSet};

const HOUR: u64 = 3_600_000_000_000;
const DAY: u64 = 24 * HOUR;

const REFERENCE: &str = r#"
max_age   = "28d"
max_bytes = "200G"

[[window]]
to = "24h"
keep = "all"

[[window]]
to = "48h"
keep = { every = "4h", per_slot = 1, prefer = ["app", "fs", "user"] }
bookmarks = "all"

[[window]]
to = "28d"
keep = "none"
bookmarks = { kinds = ["app"], types = ["postgresql"], names = "nightly-*" }
"#;

fn all(to: u64) -> Window {
    Window { to, keep: Keep::All, bookmarks: BookmarkFilter::None }
}

fn none(to: u64, bookmarks: BookmarkFilter) -> Window {
    Window { to, keep: Keep::None, bookmarks }
}

fn every(to: u64, interval: u64, per_slot: u32, prefer: &[BookmarkKind]) -> Window {
    let keep = Keep::Every(Slots { interval, per_slot, prefer: prefer.to_vec() });
    Window { to, keep, bookmarks: BookmarkFilter::None }
}

fn windows(windows: &[Window]) -> Policy {
    Policy { windows: windows.to_vec(), ..Policy::default() }
}

fn user(name: &str, seq: u64, time: u64) -> Bookmark {
    bookmark(name, BookmarkKind::User, seq, time)
}

/// The seqs that stay of a history that was not thinned before.
fn stays(memory: &Memory, policy: &Policy, now: u64) -> Vec<u64> {
    memory.clone().run(policy, now).into_iter().collect()
}

fn why(plan: &Plan) -> Vec<(u64, Why)> {
    plan.retained.iter().map(|one| (one.point.seq.get(), one.why.clone())).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Goal: nothing goes by itself. Method: the empty policy at the end of all times.
#[test]
fn without_windows_and_bounds_everything_stays() {
    let memory = Memory::of(&[5, 5, 7]).with(user("b", 2, 6));
    let plan = memory.plan(&Policy::default(), u64::MAX);
    assert_eq!(plan.full, FullRange { from: at(0, 0), standing: Standing::State });
    assert_eq!((plan.retained.len(), plan.dropped_bookmarks.len(), plan.next_due), (0, 0, None));
}

/// Goal: `max_age` drops at age >= it, and not before. Method: times on both sides of the bound.
#[test]
fn max_age_drops_at_that_age() {
    let memory = Memory::of(&[100, 101, 102]);
    let policy = Policy { max_age: Some(50), ..Policy::default() };
    assert_eq!(stays(&memory, &policy, 149), [0, 1, 2, 3], "no write has reached the age");
    assert_eq!(stays(&memory, &policy, 150), [2, 3]);
    assert_eq!(stays(&memory, &policy, 151), [3]);
    assert_eq!(stays(&memory, &policy, u64::MAX), [3], "the newest state always stays");
    assert_eq!(memory.plan(&policy, 149).next_due, Some(TimeNs::new(150)));

    let marked = memory.with(user("free", 1, 100)).with(Bookmark { locked: true, ..user("locked", 1, 100) });
    let plan = marked.plan(&policy, 150);
    assert_eq!(why(&plan), [(1, Why::LockedBookmark("locked".to_owned()))]);
    assert_eq!(plan.dropped_bookmarks.len(), 1);
    assert_eq!(
        (plan.dropped_bookmarks[0].name.as_str(), plan.dropped_bookmarks[0].why),
        ("free", DropReason::Age)
    );
}

/// Goal: the full range starts at the last state at or before its edge. Method: an edge between, at and after states, and equal times.
#[test]
fn the_full_range_starts_at_the_last_state_before_its_edge() {
    let memory = Memory::of(&[100, 110, 110, 120]);
    let policy = windows(&[all(50)]);
    assert_eq!(stays(&memory, &policy, 149), [0, 1, 2, 3, 4], "the edge lies before all writes");
    assert_eq!(stays(&memory, &policy, 150), [1, 2, 3, 4], "at the edge: in effect there");
    assert_eq!(stays(&memory, &policy, 159), [1, 2, 3, 4], "the state in effect at the edge");
    assert_eq!(stays(&memory, &policy, 160), [3, 4], "of equal times the last is in effect");
    assert_eq!(stays(&memory, &policy, 170), [4]);
    assert_eq!(stays(&memory, &policy, 1000), [4]);
    assert_eq!(stays(&memory, &policy, 10), [0, 1, 2, 3, 4], "states after now stay");
}

/// Goal: slots hold [k x every, (k + 1) x every), and are decided when their end has left the younger window. Method: writes on both
/// sides of the edges of slots, and times around the one at which a slot is decided.
#[test]
fn slots_are_decided_when_their_end_has_left_the_younger_window() {
    // Slots of ten: 100, 109 | 110, 119 | 120.
    let memory = Memory::of(&[100, 109, 110, 119, 120]);
    let policy = windows(&[all(5), every(1000, 10, 1, &[])]);
    assert_eq!(stays(&memory, &policy, 114), [0, 1, 2, 3, 4, 5], "the first slot ends at age 4");
    assert_eq!(stays(&memory, &policy, 115), [2, 3, 4, 5], "at age 5 it is decided");
    assert_eq!(stays(&memory, &policy, 124), [2, 3, 4, 5]);
    assert_eq!(stays(&memory, &policy, 125), [2, 4, 5]);
    assert_eq!(
        memory.plan(&policy, 115).next_due,
        Some(TimeNs::new(124)),
        "a later state is in effect at the edge"
    );
    let plan = memory.plan(&policy, 125);
    assert_eq!(why(&plan), [(2, Why::SlotLast), (4, Why::SlotLast)]);
    assert_eq!(policy.window_name(plan.retained[0].window), "5ns-1us");
    assert_eq!((plan.retained[0].until, plan.retained[1].until), (TimeNs::new(110), TimeNs::new(120)));
}

/// Goal: nothing overflows at the ends of all times. Method: slots and ages as long as times can be.
#[test]
fn the_ends_of_time_are_like_other_times() {
    let memory = Memory::of(&[0, 1, u64::MAX - 1, u64::MAX, u64::MAX]);
    for interval in [1, 2, 1 << 63, u64::MAX] {
        for to in [1, 2, u64::MAX - 1] {
            let policy = windows(&[every(to, interval, 1, &[]), all(u64::MAX)]);
            for now in [0, 1, u64::MAX - 1, u64::MAX] {
                assert!(stays(&memory, &policy, now).contains(&5));
            }
        }
    }
    let policy = windows(&[every(u64::MAX, 2, 1, &[])]);
    assert_eq!(stays(&memory, &policy, u64::MAX), [2, 3, 4, 5], "the last slot never ends");
}

/// Goal: a slot keeps the newest bookmarks by order of preference, topped up with its last state. Method: one slot with bookmarks of each kind.
#[test]
fn a_slot_prefers_bookmarks_in_order() {
    use BookmarkKind::{Application, FileSystem};
    let memory = Memory::of(&[1, 2, 3, 4, 5, 100])
        .with(bookmark("app1", Application, 1, 1))
        .with(bookmark("app2", Application, 2, 2))
        .with(bookmark("fs", FileSystem, 3, 3))
        .with(user("user", 4, 4));
    let kept = |per_slot: u32, prefer: &[BookmarkKind]| {
        let policy = windows(&[all(10), every(1000, 10, per_slot, prefer)]);
        let mut memory = memory.clone();
        let seqs: Vec<u64> = memory.run(&policy, 100).into_iter().filter(|seq| *seq < 5).collect();
        (seqs, memory.names().into_iter().collect::<Vec<_>>().join(" "))
    };
    let named = |seqs: &[u64], names: &str| (seqs.to_vec(), names.to_owned());
    assert_eq!(kept(1, &[Application, FileSystem]), named(&[2], "app2"));
    assert_eq!(kept(2, &[Application, FileSystem]), named(&[1, 2], "app1 app2"));
    assert_eq!(kept(3, &[Application, FileSystem]), named(&[1, 2, 3], "app1 app2 fs"));
    assert_eq!(kept(2, &[FileSystem, Application]), named(&[2, 3], "app2 fs"));
    assert_eq!(kept(1, &[]), named(&[], ""), "kinds that are not named are not preferred");
}

/// Goal: the state in effect at the edge of the full range stays whatever its slot chose, and goes when the edge passes. Method: a slot
/// that prefers a bookmark to it.
#[test]
fn the_first_state_of_the_full_range_is_no_choice_of_its_slot() {
    let policy = windows(&[all(10), every(1000, 10, 1, &[BookmarkKind::User]), every(2000, 100, 1, &[])]);
    let mut memory = Memory::of(&[1, 5]).with(user("b", 1, 2));
    assert_eq!(memory.run(&policy, 50), BTreeSet::from([1, 2]), "2 is the newest");
    memory.write(60);
    assert_eq!(memory.run(&policy, 65), BTreeSet::from([1, 2, 3]), "2 is in effect at 55");
    memory.write(75);
    assert_eq!(memory.run(&policy, 80), BTreeSet::from([1, 3, 4]));
    assert_eq!(memory.run(&policy, 1100), BTreeSet::from([4]), "the long slot chooses 4, the last of all");
}

/// Goal: a state that is named by a chosen bookmark counts once. Method: a bookmark at the last state, with room for two.
#[test]
fn a_state_that_a_chosen_bookmark_names_counts_once() {
    let policy = windows(&[all(10), every(1000, 10, 2, &[BookmarkKind::User])]);
    let memory = Memory::of(&[1, 2, 100, 101]).with(user("b", 2, 3));
    assert_eq!(stays(&memory, &policy, 120), [2, 4]);
    // Two bookmarks at one state are two bookmarks.
    let memory = Memory::of(&[1, 2, 3, 100, 101]).with(user("b", 2, 2)).with(user("c", 2, 2));
    let plan = memory.plan(&policy, 120);
    assert_eq!(plan.kept_bookmarks, ["b", "c"]);
    assert_eq!(why(&plan), [(2, Why::SlotBookmark("b".to_owned()))]);
}

/// Goal: a bookmark has the age of its own time and the slot of its own time. Method: one that was set long after its state was written.
#[test]
fn a_bookmark_is_as_old_as_itself() {
    let policy = windows(&[all(10), every(100, 10, 1, &[BookmarkKind::User])]);
    // State 1 is written at 5; the bookmark is set at 47, in a slot without a write; state 2 comes at 60.
    let memory = Memory::of(&[5, 60, 61]).with(user("b", 1, 47));
    let mut later = memory.clone();
    assert_eq!(later.run(&policy, 110), BTreeSet::from([1, 3]), "state 1 is too old, its bookmark is not");
    assert_eq!(later.names(), names(&["b"]));
    assert_eq!(later.plan(&policy, 110).retained[0].standing, Standing::Guest);
    assert_eq!(later.plan(&policy, 110).next_due, Some(TimeNs::new(147)));
    assert_eq!(later.run(&policy, 146), BTreeSet::from([1, 3]));
    assert_eq!(later.run(&policy, 147), BTreeSet::from([3]), "its own age is 100");
    assert_eq!(later.names(), names(&[]));
}

/// Goal: a window chooses only among what the window before it keeps. Method: slots of hours that prefer a bookmark to the last
/// state, then a day that has no preference.
#[test]
fn a_window_chooses_among_what_the_one_before_keeps() {
    let policy = windows(&[all(10), every(200, 10, 1, &[BookmarkKind::User]), every(1000, 100, 1, &[])]);
    // Slot 0: states 1 and 2, a bookmark at 1. Slot 10: a bookmark that no write precedes there.
    let memory = Memory::of(&[1, 5, 500, 501]).with(user("b", 1, 1)).with(user("c", 2, 15));
    let mut hours = memory.clone();
    assert_eq!(hours.run(&policy, 100), BTreeSet::from([1, 2, 3, 4]));
    let plan = memory.plan(&policy, 600);
    assert!(plan.kept_bookmarks.is_empty());
    // Both bookmarks and their states are of the slot of a hundred; 2 is the last of the states kept.
    assert_eq!(why(&plan), [(2, Why::SlotLast)]);
    assert_eq!(hours.run(&policy, 600), memory.clone().run(&policy, 600));

    // A bookmark that the window before did not let pass takes its state with it.
    let narrow =
        windows(&[all(10), none(200, BookmarkFilter::None), every(1000, 100, 1, &[BookmarkKind::User])]);
    assert_eq!(stays(&memory, &narrow, 600), [4]);
    let wide =
        windows(&[all(10), none(200, BookmarkFilter::All), every(1000, 100, 1, &[BookmarkKind::User])]);
    assert_eq!(stays(&memory, &wide, 600), [2, 4]);
}

/// Goal: what stays only for a pin, or a bookmark of another slot, is not chosen by a later window. Method: such a state, then a window
/// with long slots that would take it.
#[test]
fn a_guest_is_not_chosen_as_a_last_state() {
    let policy = windows(&[all(10), every(100, 10, 1, &[]), every(1000, 200, 1, &[])]);
    let mut memory = Memory::of(&[1, 5, 950, 951]);
    let pin = Pin { point: at(1, 1), holder: "snapshot s".to_owned() };
    // In the slot of ten, 2 is the last; 1 is pinned.
    let plan = memory.plan_with(&policy, 60, std::slice::from_ref(&pin), 0);
    memory.carry_out(&plan);
    assert_eq!(memory.there(), BTreeSet::from([1, 2, 3, 4]));
    let plan = memory.plan_with(&policy, 960, std::slice::from_ref(&pin), 2);
    assert_eq!(why(&plan), [(1, Why::Pin("snapshot s".to_owned())), (2, Why::SlotLast)]);
    // When 2 goes for space, the long slot does not fall back on 1.
    let plan = memory.plan_with(&policy, 970, &[pin], 6);
    memory.carry_out(&plan);
    assert_eq!(memory.there(), BTreeSet::from([1, 4]));
    assert_eq!(memory.run(&policy, 971), BTreeSet::from([4]), "nothing pins 1 any more");
}

/// Goal: a newest state that no window wanted can still be chosen under the name of a bookmark. Method: a first window that keeps bookmarks only,
/// and runs before and after the slot behind it is decided.
#[test]
fn a_newest_state_is_chosen_when_its_slot_is_decided() {
    let policy = windows(&[none(10, BookmarkFilter::All), every(1000, 10, 1, &[])]);
    let mut memory = Memory::of(&[5]).with(user("b", 1, 7));
    let plan = memory.plan(&policy, 15);
    assert_eq!(plan.full, FullRange { from: at(1, 5), standing: Standing::Guest });
    memory.carry_out(&plan);
    let plan = memory.plan(&policy, 20);
    assert_eq!(plan.full, FullRange { from: at(1, 5), standing: Standing::State }, "the slot ends at age 10");
    memory.carry_out(&plan);
    memory.write(30);
    assert_eq!(memory.run(&policy, 30), BTreeSet::from([1, 2]));
    assert_eq!(memory.names(), names(&[]));
}

/// Goal: expiry drops an unlocked bookmark at its time, and the choice of its slot stands. Method: on both sides of the time, locked and not.
#[test]
fn an_expired_bookmark_goes_unless_it_is_locked() {
    let policy = windows(&[all(10), every(1000, 10, 1, &[BookmarkKind::User])]);
    for locked in [false, true] {
        let expiring = Bookmark { locked, expires: Some(TimeNs::new(70)), ..user("b", 1, 1) };
        let memory = Memory::of(&[1, 5, 50, 51]).with(expiring);
        assert_eq!(stays(&memory, &policy, 69), [1, 3, 4]);
        let after: &[u64] = if locked { &[1, 4] } else { &[4] };
        assert_eq!(stays(&memory, &policy, 70), after, "the slot had chosen at 20");
        let mut early = memory.clone();
        early.run(&policy, 30);
        assert_eq!(early.run(&policy, 70), memory.clone().run(&policy, 70));
        // One that expires before its slot is decided does not count.
        let mut soon = memory;
        soon.bookmarks[0].expires = Some(TimeNs::new(20));
        soon.bookmarks[0].locked = false;
        assert_eq!(stays(&soon, &policy, 70), [2, 4]);
    }
}

/// Goal: a bookmark that was chosen and is deleted leaves its slot without a point; nothing that was dropped comes back.
/// Method: delete it after a run.
#[test]
fn a_decided_slot_takes_no_other_state() {
    let policy = windows(&[all(10), every(1000, 10, 1, &[BookmarkKind::User])]);
    let mut memory = Memory::of(&[1, 5, 50, 51]).with(user("b", 1, 1));
    assert_eq!(memory.run(&policy, 70), BTreeSet::from([1, 4]));
    memory.bookmarks.clear();
    assert_eq!(memory.run(&policy, 70), BTreeSet::from([4]));
}

/// Goal: space is made like age, up to the newest state, but for what is locked or pinned. Method: horizons through the full range.
#[test]
fn a_horizon_drops_what_is_older() {
    let memory = Memory::of(&[1, 5, 50, 51])
        .with(Bookmark { locked: true, ..user("locked", 1, 1) })
        .with(user("free", 2, 5))
        .with(user("young", 2, 40));
    let pins = [Pin { point: at(2, 5), holder: "snapshot s".to_owned() }];
    let policy = windows(&[all(1000)]);
    let left = |horizon: u64, pins: &[Pin]| {
        let mut memory = memory.clone();
        let plan = memory.plan_with(&policy, 60, pins, horizon);
        memory.carry_out(&plan);
        (memory.there().into_iter().collect::<Vec<_>>(), memory.names())
    };
    assert_eq!(left(1, &[]), (vec![0, 1, 2, 3, 4], names(&["free", "locked", "young"])));
    assert_eq!(left(2, &[]).0, [1, 2, 3, 4]);
    assert_eq!(left(6, &[]), (vec![1, 2, 3, 4], names(&["locked", "young"])));
    assert_eq!(left(41, &[]), (vec![1, 3, 4], names(&["locked"])));
    assert_eq!(left(51, &pins), (vec![1, 2, 4], names(&["locked"])));
    assert_eq!(left(u64::MAX, &[]), (vec![1, 4], names(&["locked"])));
}

/// Goal: the reference policy over forty days, run every hour and run once, keeps what its sentences promise. Method: a write every ten minutes, an
/// application bookmark each night, user bookmarks during the day.
#[test]
fn the_reference_policy_over_forty_days() {
    let policy = Policy::from_toml(REFERENCE).unwrap();
    let start = 19_000 * DAY;
    let (mut hourly, mut once) = (Memory::new(), Memory::new());
    for hour in 0..40 * 24 {
        let time = start + hour * HOUR;
        for memory in [&mut hourly, &mut once] {
            for write in 0..6 {
                memory.write(time + write * HOUR / 6);
            }
            let seq = memory.newest_seq();
            let end = time + HOUR - 1;
            if hour % 24 == 2 {
                let nightly =
                    bookmark(&format!("nightly-{}", hour / 24), BookmarkKind::Application, seq, end);
                memory.bookmarks.push(Bookmark { app: Some("postgresql".to_owned()), ..nightly });
            } else if hour % 5 == 0 {
                memory.bookmarks.push(user(&format!("user-{hour}"), seq, end));
            }
        }
        hourly.run(&policy, time + HOUR);
    }
    let now = start + 40 * DAY;
    let plan = once.plan(&policy, now);
    once.carry_out(&plan);
    assert_eq!(hourly.there(), once.there());
    assert_eq!(hourly.names(), once.names());
    assert_eq!(hourly.plan(&policy, now), once.plan(&policy, now), "each reason and window too");

    assert_eq!(plan.full.from, at((39 * 24 * 6) + 1, now - 24 * HOUR), "the state at the edge");
    let label = |one: &cdp_core::retention::Retained| policy.window_name(one.window);
    let slots: Vec<_> = plan.retained.iter().filter(|one| label(one) == "24h-48h").collect();
    let weeks: Vec<_> = plan.retained.iter().filter(|one| label(one) == "48h-28d").collect();
    assert_eq!(slots.len() + weeks.len(), plan.retained.len());
    // Six slots of four hours; each has one of these bookmarks, or its last state.
    let in_slot = |k: u64| {
        slots.iter().filter(move |one| (now - one.point.time.get() - 1 - DAY) / (4 * HOUR) == k).count()
    };
    assert!((0..6).all(|k| in_slot(k) >= 1), "{slots:#?}");
    // A bookmark at the last nanosecond of its hour is 28 days old one hour less one after it.
    assert_eq!(weeks.len(), 26, "{weeks:#?}");
    assert!(weeks.iter().all(|one| one.why.to_string().starts_with("bookmark nightly-")));
}

/// A history of 10^9 writes, one each 7 us, that counts how often it is asked.
struct Vast {
    queries: Cell<u64>,
}

impl Vast {
    const WRITES: u64 = 1_000_000_000;
    const START: u64 = 1_700_000_000_000_000_000;
    const STEP: u64 = 7_000;

    fn point(seq: u64) -> SeqTime {
        if seq == 0 { at(0, 0) } else { at(seq, Self::START + seq * Self::STEP) }
    }

    fn count(&self) {
        self.queries.set(self.queries.get() + 1);
    }
}

impl History for Vast {
    fn newest(&self) -> SeqTime {
        Self::point(Self::WRITES)
    }

    fn full_range(&self) -> FullRange {
        FullRange { from: at(0, 0), standing: Standing::State }
    }

    fn kept(&self) -> &[Kept] {
        &[]
    }

    fn bookmarks(&self) -> &[Bookmark] {
        &[]
    }

    fn planned_at(&self) -> Option<TimeNs> {
        None
    }

    fn last_at_or_before(&self, time: TimeNs) -> Result<Option<SeqTime>> {
        self.count();
        let steps = time.get().saturating_sub(Self::START) / Self::STEP;
        Ok(Some(Self::point(steps.min(Self::WRITES))))
    }

    fn next_after(&self, seq: Seq) -> Result<Option<SeqTime>> {
        self.count();
        Ok((seq.get() < Self::WRITES).then(|| Self::point(seq.get() + 1)))
    }

    fn time_of(&self, seq: Seq) -> Result<Option<TimeNs>> {
        self.count();
        Ok((seq.get() <= Self::WRITES).then(|| Self::point(seq.get()).time))
    }

    fn until(&self, seq: Seq) -> Result<Option<TimeNs>> {
        Ok(self.next_after(seq)?.map(|next| next.time))
    }
}

/// Goal: *bounded*: a plan asks about slots with a write, not about slots or states. Method: 10^9 states, and slots of 1 ns.
#[test]
fn a_plan_jumps_over_states_and_slots() {
    // Two hours of history; the slots of a minute are some hundred, those of a nanosecond 10^13.
    let vast = Vast { queries: Cell::new(0) };
    let now = TimeNs::new(Vast::point(Vast::WRITES).time.get());
    let minutes = windows(&[all(HOUR), every(DAY, HOUR / 60, 1, &[])]);
    let found = plan(&vast, &minutes, now, &[], TimeNs::ZERO).unwrap();
    // There are 57 minutes before the last hour; the state of the last one is the first of the full range.
    assert_eq!(found.retained.len(), 56);
    assert!(vast.queries.get() < 200, "{}", vast.queries.get());

    vast.queries.set(0);
    let last_micros = windows(&[all(HOUR), every(HOUR + 70_000, 1, 1, &[]), every(28 * DAY, DAY, 1, &[])]);
    let horizon = TimeNs::new(now.get() - HOUR - 70_000);
    let found = plan(&vast, &last_micros, now, &[], horizon).unwrap();
    assert!(found.retained.len() <= 10);
    assert!(vast.queries.get() < 60, "{}", vast.queries.get());
}
