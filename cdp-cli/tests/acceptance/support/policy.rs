//! Retention as the contract words it: policies, and a slow planner that says what must be left.
//!
//! [`Policy::keeps`] goes through every state and every bookmark, window by window, and shares no code with the
//! engine. Where the contract leaves a case open the planner says so in a comment, and the tests stay away from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
pub const HOUR: u64 = 3600 * SECOND;
pub const DAY: u64 = 24 * HOUR;

/// A policy file, durations in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub stop: bool,
    pub max_age: Option<u64>,
    pub max_bytes: Option<u64>,
    pub windows: Vec<Window>,
}

#[derive(Clone, Debug)]
pub struct Window {
    pub to: u64,
    pub keep: Keep,
    pub bookmarks: Filter,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    All,
    None,
    Every { every: u64, per_slot: usize, prefer: Vec<&'static str> },
}

/// Which bookmarks a window keeps beside what it keeps anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    None,
    All,
    /// All that are given must match; `names` is a prefix and a `*`.
    Matching {
        kinds: Vec<&'static str>,
        types: Vec<&'static str>,
        prefix: Option<&'static str>,
    },
}

/// A state that could be opened if nothing were ever dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub seq: u64,
    pub time: u64,
}

/// A bookmark, with its own time.
#[derive(Clone, Debug)]
pub struct Mark {
    pub name: String,
    pub kind: &'static str,
    pub app: Option<&'static str>,
    pub seq: u64,
    pub time: u64,
    pub locked: bool,
    pub expires: Option<u64>,
}

/// What must be left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Every seq that can be opened.
    pub seqs: BTreeSet<u64>,
    pub bookmarks: BTreeSet<String>,
    /// The first state of the full window, if the first window keeps all.
    pub full_from: Option<u64>,
}

impl Policy {
    /// The policy that the contract prints, without its bound by space.
    pub fn reference() -> Self {
        let every = Keep::Every { every: 4 * HOUR, per_slot: 1, prefer: vec!["app", "fs", "user"] };
        let nightly =
            Filter::Matching { kinds: vec!["app"], types: vec!["postgresql"], prefix: Some("nightly-") };
        Self {
            stop: false,
            max_age: Some(28 * DAY),
            max_bytes: None,
            windows: vec![
                Window { to: DAY, keep: Keep::All, bookmarks: Filter::None },
                Window { to: 2 * DAY, keep: every, bookmarks: Filter::All },
                Window { to: 28 * DAY, keep: Keep::None, bookmarks: nightly },
            ],
        }
    }

    pub fn toml(&self) -> String {
        let mut text = format!("on_shortage = \"{}\"\n", if self.stop { "stop" } else { "prune" });
        if let Some(age) = self.max_age {
            writeln!(text, "max_age = \"{}\"", duration(age)).expect("a string grows");
        }
        if let Some(bytes) = self.max_bytes {
            writeln!(text, "max_bytes = \"{bytes}\"").expect("a string grows");
        }
        for window in &self.windows {
            let keep = match &window.keep {
                Keep::All => "\"all\"".to_owned(),
                Keep::None => "\"none\"".to_owned(),
                Keep::Every { every, per_slot, prefer } => {
                    format!(
                        "{{ every = \"{}\", per_slot = {per_slot}, prefer = {prefer:?} }}",
                        duration(*every)
                    )
                }
            };
            writeln!(text, "\n[[window]]\nto = \"{}\"\nkeep = {keep}", duration(window.to))
                .expect("a string grows");
            match &window.bookmarks {
                Filter::None => {}
                Filter::All => text.push_str("bookmarks = \"all\"\n"),
                Filter::Matching { kinds, types, prefix } => {
                    let mut parts = Vec::new();
                    if !kinds.is_empty() {
                        parts.push(format!("kinds = {kinds:?}"));
                    }
                    if !types.is_empty() {
                        parts.push(format!("types = {types:?}"));
                    }
                    if let Some(prefix) = prefix {
                        parts.push(format!("names = \"{prefix}*\""));
                    }
                    writeln!(text, "bookmarks = {{ {} }}", parts.join(", ")).expect("a string grows");
                }
            }
        }
        text
    }

    /// What is left at `now` of these states (ascending by seq) and bookmarks. Bounds by space are not part of it.
    ///
    /// Seq 0 has no time: it belongs to a full window that reaches back before the first write, and is otherwise
    /// neither listed nor expected (see [`Kept::seqs`] and the comparison in `Lab`).
    pub fn keeps(&self, states: &[State], marks: &[Mark], now: u64) -> Kept {
        let newest = states.last().expect("a state").seq;
        let mut left = Left {
            states: states.iter().copied().filter(|state| state.seq > 0).collect(),
            marks: marks.iter().collect(),
        };
        let written = left.states.clone();
        let mut from = 0;
        for window in &self.windows {
            match &window.keep {
                Keep::All => {}
                Keep::None => {
                    left.states.retain(|state| age(state.time, now) < from);
                    left.marks.retain(|mark| age(mark.time, now) < from || window.bookmarks.matches(mark));
                }
                Keep::Every { every, per_slot, prefer } => {
                    let slots = Slots { every: *every, per_slot: *per_slot, prefer, from };
                    slots.thin(&mut left, &written, &window.bookmarks, now);
                }
            }
            from = window.to;
        }
        for limit in self.max_age.into_iter().chain(self.windows.last().map(|window| window.to)) {
            left.states.retain(|state| age(state.time, now) < limit);
            left.marks.retain(|mark| age(mark.time, now) < limit);
        }
        left.marks.retain(|mark| mark.expires.is_none_or(|expires| now < expires));

        let full_from = self.windows.first().filter(|window| window.keep == Keep::All).map(|window| {
            let before = written.iter().filter(|state| age(state.time, now) >= window.to);
            before.map(|state| state.seq).max().unwrap_or(0)
        });
        let mut names: BTreeSet<_> = left.marks.iter().map(|mark| mark.name.clone()).collect();
        names.extend(marks.iter().filter(|mark| mark.locked).map(|mark| mark.name.clone()));
        let mut seqs: BTreeSet<u64> = left.states.iter().map(|state| state.seq).collect();
        seqs.extend(marks.iter().filter(|mark| names.contains(&mark.name)).map(|mark| mark.seq));
        seqs.insert(newest);
        if let Some(first) = full_from {
            seqs.extend(states.iter().map(|state| state.seq).filter(|seq| *seq >= first));
        }
        Kept { seqs, bookmarks: names, full_from }
    }
}

/// What the windows up to here keep.
struct Left<'a> {
    states: Vec<State>,
    marks: Vec<&'a Mark>,
}

struct Slots<'a> {
    every: u64,
    per_slot: usize,
    prefer: &'a [&'static str],
    /// The age at which the younger window ends.
    from: u64,
}

impl Slots<'_> {
    /// Decides every slot whose end has left the younger window.
    fn thin(&self, left: &mut Left<'_>, written: &[State], filter: &Filter, now: u64) {
        let slot = |time: u64| time / self.every;
        let decided = |slot: u64| (slot + 1) * self.every + self.from <= now;
        let mut slots: BTreeMap<u64, (Vec<State>, Vec<&Mark>)> = BTreeMap::new();
        for state in &left.states {
            slots.entry(slot(state.time)).or_default().0.push(*state);
        }
        for mark in &left.marks {
            slots.entry(slot(mark.time)).or_default().1.push(mark);
        }
        let (mut states, mut names) = (BTreeSet::new(), BTreeSet::new());
        for (number, (inside, mut candidates)) in slots {
            if !decided(number) {
                states.extend(inside.iter().map(|state| state.seq));
                names.extend(candidates.iter().map(|mark| mark.name.clone()));
                continue;
            }
            names.extend(candidates.iter().filter(|mark| filter.matches(mark)).map(|mark| mark.name.clone()));
            if !written.iter().any(|state| slot(state.time) == number) {
                continue;
            }
            let rank = |mark: &&Mark| self.prefer.iter().position(|kind| *kind == mark.kind);
            candidates.retain(|mark| rank(mark).is_some());
            candidates.sort_by_key(|mark| (rank(mark), std::cmp::Reverse((mark.time, mark.seq))));
            candidates.truncate(self.per_slot);
            if candidates.len() < self.per_slot {
                states.extend(inside.last().map(|state| state.seq));
            }
            names.extend(candidates.iter().map(|mark| mark.name.clone()));
        }
        left.states.retain(|state| states.contains(&state.seq));
        left.marks.retain(|mark| names.contains(&mark.name));
    }
}

impl Filter {
    fn matches(&self, mark: &Mark) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Matching { kinds, types, prefix } => {
                (kinds.is_empty() || kinds.contains(&mark.kind))
                    && (types.is_empty() || mark.app.is_some_and(|app| types.contains(&app)))
                    && prefix.is_none_or(|prefix| mark.name.starts_with(prefix))
            }
        }
    }
}

fn age(time: u64, now: u64) -> u64 {
    now.saturating_sub(time)
}

/// A duration as a policy spells it.
fn duration(nanoseconds: u64) -> String {
    let units = [("d", DAY), ("h", HOUR), ("m", HOUR / 60), ("s", SECOND), ("ms", SECOND / 1000)];
    let (unit, size) =
        units.into_iter().find(|(_, size)| nanoseconds.is_multiple_of(*size)).expect("whole ms");
    format!("{}{unit}", nanoseconds / size)
}

/// Goal: the planner reads the contract as its own examples do. Method: the reference policy over four days of
/// hourly writes with a bookmark of each kind; the expected seqs counted by hand.
#[test]
fn the_planner_keeps_what_the_reference_policy_says() {
    let start = super::times::START;
    let states: Vec<State> = (1..=96).map(|seq| State { seq, time: start + (seq - 1) * HOUR }).collect();
    let mark = |name: &str, kind, app, seq: u64| Mark {
        name: name.to_owned(),
        kind,
        app,
        seq,
        time: start + (seq - 1) * HOUR,
        locked: false,
        expires: None,
    };
    let mut marks = vec![
        mark("nightly-1", "app", Some("postgresql"), 3),
        mark("nightly-x", "app", Some("mysql"), 4),
        mark("other", "app", Some("postgresql"), 5),
        mark("locked", "user", None, 6),
        // In the slot of hours 52 to 56, which hold seqs 53 to 56.
        mark("user", "user", None, 55),
        mark("fs", "fs", None, 54),
        mark("recent", "user", None, 80),
    ];
    marks[3].locked = true;
    // Full from hour 72, which is seq 73; sparse from hour 48, whose slots end with seqs 52, 56, 60, 64, 68, 72.
    let kept = Policy::reference().keeps(&states, &marks, start + 96 * HOUR);
    let mut expected = BTreeSet::from([3, 6, 52, 54, 55, 60, 64, 68, 72]);
    expected.extend(73..=96);
    assert_eq!(kept.seqs, expected);
    assert_eq!(kept.full_from, Some(73));
    let names: Vec<_> = kept.bookmarks.iter().map(String::as_str).collect();
    assert_eq!(names, ["fs", "locked", "nightly-1", "recent", "user"]);
    // One nanosecond earlier: the full window starts a write earlier, and the slot of seq 72 is not decided.
    let kept = Policy::reference().keeps(&states, &marks, start + 96 * HOUR - 1);
    expected.extend([69, 70, 71]);
    assert_eq!(kept.seqs, expected);
    assert_eq!(kept.full_from, Some(72));
}
