//! When bookmarks are set by themselves.

use super::{BookmarkKind, NewBookmark, Quiesce};
use crate::{
    error::{Error, Result},
    text::format_time,
    units::TimeNs,
};
use std::{fmt, sync::Arc, time::Duration};

/// Shortest interval of a schedule, nanoseconds.
pub(crate) const EVERY_NS_MIN: u64 = 1_000_000;

/// The longest that follows a prefix.
const STAMP_LONGEST: &str = "20260131T120000.000000001Z";

/// Bookmarks at regular times.
///
/// Time is cut into slots of `every_ns`, aligned to the epoch. At the first chance in each slot a bookmark of the newest state is set, named
/// after the slot, unless nothing was written since the last one of this schedule. A slot that passes without a chance stays without.
#[derive(Clone)]
pub struct BookmarkSchedule {
    /// Length of a slot, nanoseconds; at least a millisecond.
    pub every_ns: u64,
    /// What the bookmarks vouch for.
    pub kind: BookmarkKind,
    /// The application, for kind application.
    pub app: Option<String>,
    /// What their names begin with; the start of the slot follows, as in `hourly-20260131T120000Z`.
    pub prefix: String,
    /// How long after they are set they may go by themselves, nanoseconds; `None`: they stay.
    pub keep_for_ns: Option<u64>,
    /// What is frozen while one takes its place, and for how long at most. Without it nobody vouches for more than a crash-consistent cut.
    pub quiesce: Option<(Arc<dyn Quiesce + Send + Sync>, Duration)>,
}

impl BookmarkSchedule {
    /// User bookmarks every so often, which stay.
    pub fn every(every_ns: u64, prefix: impl Into<String>) -> Self {
        Self {
            every_ns,
            kind: BookmarkKind::User,
            app: None,
            prefix: prefix.into(),
            keep_for_ns: None,
            quiesce: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.every_ns < EVERY_NS_MIN {
            return Err(Error::InvalidArgument(format!(
                "bookmarks are set every {EVERY_NS_MIN} ns at most, not every {} ns",
                self.every_ns
            )));
        }
        // With the longest name, so that none fails later.
        let name = format!("{}{STAMP_LONGEST}", self.prefix);
        NewBookmark { name, ..self.new_bookmark(0, TimeNs::ZERO) }.validate()
    }

    /// The slot of a time.
    pub(crate) fn slot_of(&self, time: TimeNs) -> u64 {
        time.get() / self.every_ns
    }

    /// The bookmark of a slot, set at `now`.
    pub(crate) fn new_bookmark(&self, slot: u64, now: TimeNs) -> NewBookmark {
        let start = TimeNs::new(slot.saturating_mul(self.every_ns));
        let digits = format_time(start).replace([':', '-'], "");
        NewBookmark {
            kind: self.kind,
            app: self.app.clone(),
            expires: self.keep_for_ns.map(|keep| TimeNs::new(now.get().saturating_add(keep))),
            ..NewBookmark::named(format!("{}{digits}", self.prefix))
        }
    }

    /// Whether a bookmark of this name may come from this schedule.
    pub(crate) fn made(&self, name: &str) -> bool {
        let stamp = name.strip_prefix(self.prefix.as_str());
        stamp.is_some_and(|stamp| {
            let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            stamp.len() >= 16
                && stamp.as_bytes()[8] == b'T'
                && stamp.ends_with('Z')
                && stamp.bytes().enumerate().all(|(at, byte)| at == 8 || at == stamp.len() - 1 || plain(byte))
        })
    }
}

impl fmt::Debug for BookmarkSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BookmarkSchedule")
            .field("every_ns", &self.every_ns)
            .field("kind", &self.kind)
            .field("app", &self.app)
            .field("prefix", &self.prefix)
            .field("keep_for_ns", &self.keep_for_ns)
            .field("freezes_for", &self.quiesce.as_ref().map(|(_, timeout)| timeout))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::NAME_BYTES_MAX;

    /// Goal: every name that a schedule can make is one, is told from others, and is its slot's alone. Method: lengths of slots and times of
    /// all sizes.
    #[test]
    fn names_are_valid_and_tell_slots_apart() {
        for every in [EVERY_NS_MIN, 10_000_000, 1_000_000_000, 3_600_000_000_000, u64::MAX / 2, u64::MAX] {
            let schedule = BookmarkSchedule::every(every, "hourly-");
            schedule.validate().unwrap();
            let name = |slot| schedule.new_bookmark(slot, TimeNs::ZERO).name;
            let last = schedule.slot_of(TimeNs::MAX);
            for slot in
                [0, 1, 1_790_000_000_000_000_000 / every, last].into_iter().filter(|slot| *slot <= last)
            {
                assert!(
                    crate::bookmark::is_name(&name(slot)) && schedule.made(&name(slot)),
                    "{}",
                    name(slot)
                );
                assert!(slot == last || name(slot) != name(slot + 1));
            }
        }
        let schedule = BookmarkSchedule::every(1_000_000_000, "p");
        for other in
            ["p", "px", "q20260131T120000Z", "p20260131T120000", "p2026013-T120000Z", "p20260131120000Z"]
        {
            assert!(!schedule.made(other), "{other}");
        }
        let at = |seconds: u64| schedule.new_bookmark(seconds, TimeNs::ZERO).name;
        assert_eq!(at(1_769_860_800), "p20260131T120000Z");
    }

    /// Goal: a schedule that could fail later is refused at once. Method: each bound and one past it.
    #[test]
    fn schedules_that_cannot_work_are_refused() {
        let longest = "p".repeat(NAME_BYTES_MAX - STAMP_LONGEST.len());
        assert!(BookmarkSchedule::every(EVERY_NS_MIN, longest.clone()).validate().is_ok());
        assert!(BookmarkSchedule::every(EVERY_NS_MIN - 1, "p").validate().is_err());
        assert!(BookmarkSchedule::every(EVERY_NS_MIN, longest + "p").validate().is_err());
        assert!(BookmarkSchedule::every(EVERY_NS_MIN, "a b").validate().is_err());
        let system = BookmarkSchedule { kind: BookmarkKind::System, ..BookmarkSchedule::every(1 << 40, "p") };
        assert!(system.validate().is_err());
    }
}
