//! What a plan says.

use super::{FullRange, Kept, Standing};
use crate::{SeqTime, retention::Policy, text::format_duration, units::TimeNs};
use std::fmt;

/// What stays and what goes.
///
/// To carry it out: keep every point from `full.from` on and the points of `retained`, drop all other points and the bookmarks
/// of `dropped_bookmarks`, and remember what [`super::History`] asks for: `now`, `full` and [`Plan::kept`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The time it was made for.
    pub now: TimeNs,
    /// The range in which every point stays.
    pub full: FullRange,
    /// The points before it that stay, ascending by seq.
    pub retained: Vec<Retained>,
    /// The names of the bookmarks that stay, ascending.
    pub kept_bookmarks: Vec<String>,
    /// The bookmarks that go, ascending by name.
    pub dropped_bookmarks: Vec<DroppedBookmark>,
    /// When to plan again if nothing is written and nothing is changed: plans for times from `now` to before it keep and drop the
    /// same. `None`: nothing will ever change by itself.
    pub next_due: Option<TimeNs>,
}

/// A point before the full range that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The point.
    pub point: SeqTime,
    /// The time of the write that followed it: the point stands for all times before that.
    pub until: TimeNs,
    /// What it is to the windows to come.
    pub standing: Standing,
    /// The window whose rule it stays by, counted from 0 ([`Policy::window_name`]); `None` when it is older than the last one,
    /// or when there are no windows.
    pub window: Option<usize>,
    /// Why it stays.
    pub why: Why,
}

/// Why a point before the full range stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is the last state that was written in its slot, among those that the window before kept.
    SlotLast,
    /// All states stay there: the window keeps all, its slot is not decided yet, or there are no windows.
    All,
    /// A bookmark names it that passes the filter of its window, or that is in a window or slot where all stay.
    Bookmark(String),
    /// A bookmark names it that its slot prefers.
    SlotBookmark(String),
    /// A locked bookmark names it.
    LockedBookmark(String),
    /// Something reads it.
    Pin(String),
}

/// A bookmark that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedBookmark {
    /// Its name.
    pub name: String,
    /// Why it goes.
    pub why: DropReason,
}

/// Why a bookmark goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its own time to expire has come.
    Expired,
    /// It is older than `max_age` or the last window allows.
    Age,
    /// The window, counted from 0, neither prefers it in its slot nor lets it pass.
    Window(usize),
    /// It lies before the horizon that the space allows.
    Space,
}

impl Plan {
    /// The points before the full range as the next plan wants to see them.
    pub fn kept(&self) -> Vec<Kept> {
        let one = |one: &Retained| Kept { point: one.point, until: one.until, standing: one.standing };
        self.retained.iter().map(one).collect()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotLast => f.write_str("last state of its slot"),
            Self::All => f.write_str("all states stay"),
            Self::Bookmark(name) => write!(f, "bookmark {name}"),
            Self::SlotBookmark(name) => write!(f, "bookmark {name}, preferred in its slot"),
            Self::LockedBookmark(name) => write!(f, "locked bookmark {name}"),
            Self::Pin(holder) => write!(f, "in use: {holder}"),
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("expired"),
            Self::Age => f.write_str("too old"),
            Self::Window(index) => write!(f, "not kept by window {}", index + 1),
            Self::Space => f.write_str("space"),
        }
    }
}

/// An age as policies tend to be written: in hours up to two days.
fn format_age(nanoseconds: u64) -> String {
    const HOUR: u64 = 3_600_000_000_000;
    match nanoseconds {
        0 => "0".to_owned(),
        1..=172_800_000_000_000 if nanoseconds.is_multiple_of(HOUR) => format!("{}h", nanoseconds / HOUR),
        _ => format_duration(nanoseconds),
    }
}

impl Policy {
    /// The name of a window, counted from 0: its ages, such as `24h-48h`. Past the last one, and for `None`, `older`, or `all`
    /// when there are no windows.
    pub fn window_name(&self, window: Option<usize>) -> String {
        match window.and_then(|index| self.windows.get(index)) {
            Some(found) => {
                let from = self.window_from(window.unwrap_or_default());
                format!("{}-{}", format_age(from), format_age(found.to))
            }
            None if self.windows.is_empty() => "all".to_owned(),
            None => "older".to_owned(),
        }
    }

    /// The age at which a window begins, nanoseconds.
    pub(in crate::retention) fn window_from(&self, index: usize) -> u64 {
        index.checked_sub(1).and_then(|before| self.windows.get(before)).map_or(0, |before| before.to)
    }
}
