//! When a window decides: pure arithmetic on instants.
//!
//! The *decided edge* of a window is the first instant that it has not decided yet. A window with slots decides those that end
//! at or before `now` less the age at which it begins; the others decide each instant when it reaches that age. No window
//! decides what a window before it has not decided: so edges never rise from one window to the next, and they never fall as
//! `now` grows. Instants are nanoseconds since the epoch; all arithmetic saturates at both ends of `u64`, and what would lie
//! past its end never comes.

use crate::{
    retention::{Keep, Policy},
    units::TimeNs,
};

/// The edges of a policy at one time.
pub(super) struct Edges<'a> {
    policy: &'a Policy,
    now: u64,
    decided: Vec<u64>,
}

impl<'a> Edges<'a> {
    pub fn new(policy: &'a Policy, now: TimeNs) -> Self {
        let now = now.get();
        let mut decided = Vec::with_capacity(policy.windows.len());
        let mut before = u64::MAX;
        for (index, window) in policy.windows.iter().enumerate() {
            before = match (now.checked_sub(policy.window_from(index)), &window.keep) {
                (None, _) => 0,
                (Some(reached), Keep::Every(slots)) => slot_start(reached.min(before), slots.interval),
                (Some(reached), _) => reached.saturating_add(1).min(before),
            };
            decided.push(before);
        }
        Self { policy, now, decided }
    }

    /// The first instant that a window has not decided; 0 past the last one.
    pub fn decided(&self, window: usize) -> u64 {
        self.decided.get(window).copied().unwrap_or(0)
    }

    /// How many windows have decided an instant. They are the first ones.
    pub fn windows_decided(&self, time: TimeNs) -> usize {
        self.decided.partition_point(|edge| time.get() < *edge)
    }

    /// The first window that does not keep everything.
    pub fn first_choosing(&self) -> Option<usize> {
        self.policy.windows.iter().position(|window| window.keep != Keep::All)
    }

    /// The first instant at which no window has decided that anything may go.
    pub fn undecided_from(&self) -> u64 {
        self.first_choosing().map_or(0, |window| self.decided(window))
    }

    /// The age at which everything goes: the end of the last window, or `max_age`.
    pub fn age_max(&self) -> Option<u64> {
        let end = self.policy.windows.last().map(|window| window.to);
        end.into_iter().chain(self.policy.max_age).min()
    }

    /// The first instant that is not too old.
    pub fn young_from(&self) -> u64 {
        let oldest = self.age_max().and_then(|age| self.now.checked_sub(age));
        oldest.map_or(0, |oldest| oldest.saturating_add(1))
    }

    /// The window by whose rule an instant stays: the last that decided it, else the first. `None` past the last window.
    pub fn window_of(&self, time: TimeNs) -> Option<usize> {
        let last = self.policy.windows.last()?;
        let past = self.now.checked_sub(time.get()).is_some_and(|age| age >= last.to);
        (!past).then(|| self.windows_decided(time).saturating_sub(1))
    }

    /// The first `now` at which a window has decided all instants before `end`; `None` when it never will.
    pub fn due(&self, window: usize, end: u64) -> Option<u64> {
        let (mut end, mut due) = (end, 0);
        for index in (0..=window).rev() {
            let reached = match &self.policy.windows.get(index)?.keep {
                Keep::Every(slots) => {
                    end = end.checked_next_multiple_of(slots.interval)?;
                    end
                }
                Keep::All | Keep::None => end.saturating_sub(1),
            };
            due = due.max(reached.checked_add(self.policy.window_from(index))?);
        }
        Some(due)
    }

    /// The first `now` at which another window has decided an instant.
    pub fn next_due(&self, time: TimeNs) -> Option<u64> {
        self.due(self.windows_decided(time), time.get().checked_add(1)?)
    }

    /// Whether something of this time is not too old at `now`.
    pub fn is_young_at(&self, time: TimeNs, now: u64) -> bool {
        self.age_max().is_none_or(|age| now.saturating_sub(time.get()) < age)
    }
}

/// Start of the slot that an instant lies in.
pub(super) fn slot_start(time: u64, interval: u64) -> u64 {
    time - time % interval
}
