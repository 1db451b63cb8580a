//! What stays for how long: the policy of a store.
//!
//! A policy is a list of windows by age, an optional bound by age and one by space. Windows follow each other: each
//! reaches from the end of the one before it (the first from age 0) to its own `to`, excluding it.
//!
//! Invariants of a valid policy ([`Policy::validate`]; the readers return no other):
//! - *ascending*: each window ends after the one before it;
//! - *reachable*: `max_age` lies past the beginning of every window, and leaves a first window that keeps all its full length;
//! - *bounded*: at most [`POLICY_WINDOWS_MAX`] windows, [`POLICY_PER_SLOT_MAX`] points a slot.
//!
//! A refusal is `InvalidArgument`: the field, what is wrong with it, and what is allowed.

use super::NamePattern;
use crate::{
    BookmarkKind, Error, Result,
    limits::{APP_TYPE_BYTES_MAX, POLICY_PER_SLOT_MAX, POLICY_TYPES_MAX, POLICY_WINDOWS_MAX, SEGMENT_BYTES},
    text::{format_duration, format_size},
};

/// Least bound by space: what stays allocated in any case, two segments.
pub(super) const BOUND_BYTES_MIN: u64 = 2 * SEGMENT_BYTES;

/// What stays for how long. The default keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Windows in ascending order of age. None: everything stays, within the bounds below.
    pub windows: Vec<Window>,
    /// Age in nanoseconds from which on a point goes, whatever the windows say.
    pub max_age: Option<u64>,
    /// Bytes that the store may take up.
    pub max_bytes: Option<u64>,
    /// What to do when `max_bytes` is reached.
    pub on_shortage: OnShortage,
}

/// What to do when the bound by space is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnShortage {
    /// Drop the oldest history.
    #[default]
    Prune,
    /// Refuse writes; drop nothing.
    Stop,
}

/// The rule for points of one span of ages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Age in nanoseconds at which the window ends; it does not include it.
    pub to: u64,
    /// Which states stay.
    pub keep: Keep,
    /// Which bookmarks stay in addition.
    pub bookmarks: BookmarkFilter,
}

/// Shortest slice, nanoseconds.
const SLICE_NS_MIN: u64 = 1_000_000_000;

/// Which states stay within a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All of them.
    All,
    /// Some in each slot of time.
    Every(Slots),
    /// None.
    None,
}

/// Slots of time, [k x interval, (k + 1) x interval) from the Unix epoch, and what stays in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Length of a slot, nanoseconds.
    pub interval: u64,
    /// Points that stay in a slot: the newest bookmarks in the order of `prefer`, then the last state written in it.
    pub per_slot: u32,
    /// Kinds of bookmarks that are taken before the last state, the most wanted first.
    pub prefer: Vec<BookmarkKind>,
}

/// Which bookmarks a window keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BookmarkFilter {
    /// None, apart from those that `keep` chooses.
    None,
    /// All.
    All,
    /// Those that pass.
    Only(BookmarkSelection),
}

/// Conditions on a bookmark; it passes when it meets each one that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BookmarkSelection {
    /// Kinds that pass.
    pub kinds: Option<Vec<BookmarkKind>>,
    /// Application types that pass.
    pub types: Option<Vec<String>>,
    /// Pattern that the name fits.
    pub names: Option<NamePattern>,
}

impl BookmarkFilter {
    /// Whether a bookmark of this kind, application type and name passes.
    pub fn passes(&self, kind: BookmarkKind, app: Option<&str>, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(only) => {
                only.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
                    && only
                        .types
                        .as_ref()
                        .is_none_or(|types| app.is_some_and(|app| types.iter().any(|one| one == app)))
                    && only.names.as_ref().is_none_or(|names| names.matches(name))
            }
        }
    }
}

impl Policy {
    /// Whether nothing ever goes.
    pub fn keeps_everything(&self) -> bool {
        self.windows.is_empty() && self.max_age.is_none() && self.max_bytes.is_none()
    }

    /// By how much time history loses fidelity at once, about, nanoseconds: what is written within so much of it may as well be kept
    /// together. At least a second: to begin a segment takes several syncs. `None` when age takes nothing.
    pub(crate) fn slice_ns(&self) -> Option<u64> {
        let sparse = self.windows.first().and_then(|window| match &window.keep {
            Keep::Every(slots) => Some(slots.interval),
            Keep::All | Keep::None => None,
        });
        let reach = self.windows.first().map(|window| window.to).or(self.max_age);
        sparse.or_else(|| reach.map(|reach| reach / 24)).map(|slice| slice.max(SLICE_NS_MIN))
    }

    /// Holds the policy against the invariants of this module.
    ///
    /// # Errors
    /// `InvalidArgument` with the field and the reason.
    pub fn validate(&self) -> Result<()> {
        if self.windows.len() > POLICY_WINDOWS_MAX {
            let windows = self.windows.len();
            return Err(refuse(
                "window",
                &format!("there are {windows}; at most {POLICY_WINDOWS_MAX} are allowed"),
            ));
        }
        let mut from = 0;
        for (index, window) in self.windows.iter().enumerate() {
            let field = |name: &str| format!("window {}, {name}", index + 1);
            if window.to <= from {
                let (to, from) = (format_duration(window.to), format_duration(from));
                return Err(refuse(
                    &field("to"),
                    &format!(
                        "{to} does not lie after {from}, where the window begins; list windows from young to old"
                    ),
                ));
            }
            window.validate(&field)?;
            from = window.to;
        }
        self.validate_bounds()
    }

    fn validate_bounds(&self) -> Result<()> {
        if let Some(max_age) = self.max_age {
            let shown = format_duration(max_age);
            if max_age == 0 {
                return Err(refuse("max_age", "is zero; nothing could stay"));
            }
            if let [.., before_last, _] = &self.windows[..]
                && max_age <= before_last.to
            {
                let begins = format_duration(before_last.to);
                return Err(refuse(
                    "max_age",
                    &format!(
                        "{shown} ends before the last window begins ({begins}); raise it or drop the window"
                    ),
                ));
            }
            if let [Window { to, keep: Keep::All, .. }, ..] = &self.windows[..]
                && max_age < *to
            {
                let to = format_duration(*to);
                return Err(refuse(
                    "max_age",
                    &format!(
                        "{shown} is less than window 1 promises to keep in full ({to}); raise it or shorten the window"
                    ),
                ));
            }
        }
        if let Some(max_bytes) = self.max_bytes
            && max_bytes < BOUND_BYTES_MIN
        {
            let (shown, least) = (format_size(max_bytes), format_size(BOUND_BYTES_MIN));
            return Err(refuse(
                "max_bytes",
                &format!("{shown} is less than what must stay in any case ({least})"),
            ));
        }
        Ok(())
    }
}

impl Window {
    fn validate(&self, field: &impl Fn(&str) -> String) -> Result<()> {
        if let Keep::Every(slots) = &self.keep {
            if slots.interval == 0 {
                return Err(refuse(&field("keep.every"), "the interval is zero; write it like 4h"));
            }
            if slots.per_slot == 0 || slots.per_slot > POLICY_PER_SLOT_MAX {
                let given = slots.per_slot;
                return Err(refuse(
                    &field("keep.per_slot"),
                    &format!("is {given}; 1 to {POLICY_PER_SLOT_MAX} are allowed"),
                ));
            }
            no_duplicates(&slots.prefer, &field("keep.prefer"))?;
        }
        if let BookmarkFilter::Only(only) = &self.bookmarks {
            only.validate(field)?;
        }
        Ok(())
    }
}

impl BookmarkSelection {
    fn validate(&self, field: &impl Fn(&str) -> String) -> Result<()> {
        if self == &Self::default() {
            return Err(refuse(&field("bookmarks"), "has no condition; write \"all\" to keep all bookmarks"));
        }
        if let Some(kinds) = &self.kinds {
            if kinds.is_empty() {
                return Err(refuse(&field("bookmarks.kinds"), "is empty; leave it out to accept every kind"));
            }
            no_duplicates(kinds, &field("bookmarks.kinds"))?;
        }
        if let Some(types) = &self.types {
            if types.is_empty() || types.len() > POLICY_TYPES_MAX {
                let given = types.len();
                return Err(refuse(
                    &field("bookmarks.types"),
                    &format!("lists {given} types; 1 to {POLICY_TYPES_MAX} are allowed"),
                ));
            }
            if types.iter().any(|one| one.is_empty() || one.len() > APP_TYPE_BYTES_MAX) {
                return Err(refuse(
                    &field("bookmarks.types"),
                    &format!("an application type has 1 to {APP_TYPE_BYTES_MAX} bytes"),
                ));
            }
        }
        Ok(())
    }
}

fn no_duplicates(kinds: &[BookmarkKind], field: &str) -> Result<()> {
    match kinds.iter().enumerate().find(|(index, kind)| kinds[..*index].contains(kind)) {
        Some((_, kind)) => Err(refuse(field, &format!("names {kind} twice"))),
        None => Ok(()),
    }
}

pub(super) fn refuse(field: &str, reason: &str) -> Error {
    Error::InvalidArgument(format!("policy: {field}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    fn window(to: u64) -> Window {
        Window { to, keep: Keep::All, bookmarks: BookmarkFilter::None }
    }

    fn slots(interval: u64, per_slot: u32) -> Policy {
        let keep = Keep::Every(Slots { interval, per_slot, prefer: vec![] });
        Policy {
            windows: vec![Window { to: HOUR, keep, bookmarks: BookmarkFilter::None }],
            ..Policy::default()
        }
    }

    fn only(only: BookmarkSelection) -> Policy {
        let bookmarks = BookmarkFilter::Only(only);
        Policy { windows: vec![Window { to: HOUR, keep: Keep::None, bookmarks }], ..Policy::default() }
    }

    fn refused(policy: &Policy, field: &str) {
        let message = policy.validate().expect_err(field).to_string();
        assert!(message.contains(field), "{field}: {message}");
    }

    /// Goal: each bound holds on both sides. Method: a policy at each bound and one past it.
    #[test]
    fn bounds_of_a_policy_hold_on_both_sides() {
        let windows = |count: u64| Policy { windows: (1..=count).map(window).collect(), ..Policy::default() };
        let most = u64::try_from(POLICY_WINDOWS_MAX).unwrap();
        windows(most).validate().unwrap();
        refused(&windows(most + 1), "window");

        slots(1, 1).validate().unwrap();
        refused(&slots(0, 1), "every");
        refused(&slots(1, 0), "per_slot");
        slots(1, POLICY_PER_SLOT_MAX).validate().unwrap();
        refused(&slots(1, POLICY_PER_SLOT_MAX + 1), "per_slot");

        Policy { max_bytes: Some(BOUND_BYTES_MIN), ..Policy::default() }.validate().unwrap();
        refused(&Policy { max_bytes: Some(BOUND_BYTES_MIN - 1), ..Policy::default() }, "max_bytes");

        let types = |count: usize, bytes: usize| {
            only(BookmarkSelection {
                types: Some(vec!["t".repeat(bytes); count]),
                ..BookmarkSelection::default()
            })
        };
        types(POLICY_TYPES_MAX, APP_TYPE_BYTES_MAX).validate().unwrap();
        refused(&types(POLICY_TYPES_MAX + 1, 1), "types");
        refused(&types(1, APP_TYPE_BYTES_MAX + 1), "types");
        refused(&types(1, 0), "types");
        refused(&types(0, 1), "types");
    }

    /// Goal: windows that do not ascend, and an age that cuts off a promise, are refused by name. Method: a table.
    #[test]
    fn contradictions_are_refused_by_field() {
        let with = |windows: &[u64], max_age: Option<u64>| Policy {
            windows: windows.iter().copied().map(window).collect(),
            max_age,
            ..Policy::default()
        };
        with(&[HOUR, 2 * HOUR], Some(HOUR + 1)).validate().unwrap();
        with(&[HOUR], Some(HOUR)).validate().unwrap();
        with(&[], Some(1)).validate().unwrap();
        refused(&with(&[0], None), "window 1, to");
        refused(&with(&[HOUR, HOUR], None), "window 2, to");
        refused(&with(&[HOUR, HOUR - 1], None), "window 2, to");
        refused(&with(&[HOUR, 2 * HOUR], Some(HOUR)), "max_age");
        refused(&with(&[HOUR], Some(HOUR - 1)), "max_age");
        refused(&with(&[], Some(0)), "max_age");
        refused(&only(BookmarkSelection::default()), "bookmarks");
        let twice = Some(vec![BookmarkKind::User, BookmarkKind::User]);
        refused(&only(BookmarkSelection { kinds: twice, ..BookmarkSelection::default() }), "kinds");
    }

    /// Goal: a selection passes what meets all of its conditions. Method: one bookmark that fails each in turn.
    #[test]
    fn a_selection_wants_every_condition_met() {
        let filter = BookmarkFilter::Only(BookmarkSelection {
            kinds: Some(vec![BookmarkKind::Application]),
            types: Some(vec!["postgresql".to_owned()]),
            names: Some(NamePattern::new("nightly-*").unwrap()),
        });
        let app = BookmarkKind::Application;
        assert!(filter.passes(app, Some("postgresql"), "nightly-1"));
        assert!(!filter.passes(BookmarkKind::User, Some("postgresql"), "nightly-1"));
        assert!(!filter.passes(app, Some("mysql"), "nightly-1"));
        assert!(!filter.passes(app, None, "nightly-1"));
        assert!(!filter.passes(app, Some("postgresql"), "hourly-1"));
        assert!(BookmarkFilter::All.passes(app, None, "x") && !BookmarkFilter::None.passes(app, None, "x"));
    }
}
