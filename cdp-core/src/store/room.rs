//! Keeping to the bound by space, and thinning in the background.
//!
//! Whoever meets the bound makes room: first what the policy drops anyway goes, then the oldest history, a larger piece each time, until
//! the store is an eighth below where writes stop. Ages count from the newest write then, not from the clock, so that a host whose clock is
//! ahead loses nothing by it.

use super::Store;
use crate::{
    error::{Error, Result},
    event::EventKind,
    group::Effort,
    limits::MAKE_ROOM_MAX,
    retention::Policy,
    units::{Seq, TimeNs},
};
use parking_lot::Mutex;

/// Longest and shortest time between two plans that are made in the background, nanoseconds.
const SLICE_NS: (u64, u64) = (60_000_000_000, 3_600_000_000_000);
/// Pause after room was made ahead of the writes and little came of it, nanoseconds.
const ROOM_AGAIN_NS: u64 = 10_000_000_000;
/// Most steps in which history is dropped for one call.
pub(super) const STEPS_MAX: u32 = 64;
/// By how much the clock of the host may depart from the monotonic one before the background stops dropping history by age.
const CLOCK_DEPARTS_NS: u64 = 3_600_000_000_000;

/// Background retention of a store.
#[derive(Default)]
pub(crate) struct Background {
    /// One who makes room at a time.
    making_room: Mutex<()>,
    /// One who plans, or puts a plan into force, at a time: a plan walks over the outline that it is made from.
    pub(super) planning: Mutex<()>,
    state: Mutex<BackgroundState>,
}

#[derive(Default)]
struct BackgroundState {
    due: TimeNs,
    /// When room is made again ahead of the writes, after it did not help.
    room_due: TimeNs,
    /// The clock and the monotonic clock when they were last compared.
    clocks: Option<(u64, u64)>,
    /// The clock departed, and nobody has confirmed it.
    departed: bool,
}

impl Store {
    /// Takes the bound from the policy in force.
    pub(super) fn apply_bound(&self) -> Result<()> {
        self.inner.group.set_bound(&self.policy()?);
        self.inner.background.state.lock().due = TimeNs::ZERO;
        Ok(())
    }

    /// Does something that may meet the bound; makes room and tries again when it does.
    pub(crate) fn with_room<T>(&self, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut outcome = work();
        for _ in 0..MAKE_ROOM_MAX {
            match &outcome {
                Err(Error::OverBound { .. }) if self.inner.group.prunes() => self.make_room()?,
                _ => break,
            }
            outcome = work();
        }
        outcome
    }

    /// Drops history until there is room below the bound.
    ///
    /// # Errors
    /// `OverBound` when nothing more may be dropped; those of planning and thinning.
    fn make_room(&self) -> Result<()> {
        let group = self.owner()?;
        let Some(bound) = group.bound() else { return Ok(()) };
        let used_before = group.used_bytes();
        let _one = self.inner.background.making_room.lock();
        if group.used_bytes() < used_before {
            // Somebody else made room meanwhile.
            return Ok(());
        }
        let policy = self.policy()?;
        let target = (bound - group.margin()) / 8 * 7;
        self.prune_to(&policy, target)?;
        let used = group.used_bytes();
        let made = used <= bound - group.margin();
        group.note_room(made);
        if made { Ok(()) } else { Err(Error::OverBound { used, bound }) }
    }

    /// Drops history, the oldest first, until the store takes up at most `target` bytes or there is nothing left to drop.
    pub(super) fn prune_to(&self, policy: &Policy, target: u64) -> Result<()> {
        let group = self.owner()?;
        let now = self.time_of_pruning();
        let mut horizon = TimeNs::ZERO;
        for step in 0..STEPS_MAX {
            self.retain(policy, now, horizon, Effort::Short)?;
            let used = group.used_bytes();
            if used <= target {
                break;
            }
            let Some(next) = self.next_horizon(horizon, used - target, step)? else { break };
            horizon = next;
        }
        Ok(())
    }

    /// The time that ages are counted from when history is dropped for want of room.
    pub(super) fn time_of_pruning(&self) -> TimeNs {
        let planned = self.inner.group.outline().planned.map_or(TimeNs::ZERO, |(at, _)| at);
        planned.max(self.newest().time)
    }

    /// The time before which history goes next, after `horizon`, when about so many bytes are to be freed; `None` when only the newest state
    /// is left to go.
    pub(super) fn next_horizon(&self, horizon: TimeNs, bytes: u64, step: u32) -> Result<Option<TimeNs>> {
        let group = &self.inner.group;
        let outline = group.outline();
        // What is kept from before the horizon is locked or in use.
        let kept = outline.kept().map(|kept| kept.point.time).filter(|time| *time >= horizon);
        let kept: Vec<TimeNs> = kept.collect();
        if !kept.is_empty() {
            // Points that were kept singly go first: a quarter of them each time.
            return Ok(Some(after(kept[(kept.len() - 1) / 4])));
        }
        let from = outline.full.from;
        let newest = self.newest();
        if from.seq >= newest.seq {
            return Ok(None);
        }
        // Then the full range, by what it is estimated to hold; more each time, since what is dropped may still be needed later on.
        let share = u128::from(bytes) << step.min(16);
        let total = u128::from(group.used_bytes().max(1));
        let seqs = u128::from(newest.seq.get() - from.seq.get());
        let skip = u64::try_from((seqs * share / total).max(1)).unwrap_or(u64::MAX);
        let seq = Seq::new(from.seq.get().saturating_add(skip).min(newest.seq.get()));
        let time = self.with_time_behind(seq)?;
        Ok(Some(time.max(after(from.time)).max(after(horizon))))
    }

    /// The time of a state, or of one behind it when its own is not known.
    fn with_time_behind(&self, seq: Seq) -> Result<TimeNs> {
        match self.with_time(seq) {
            Ok(point) => Ok(point.time),
            Err(_) => Ok(self.newest().time),
        }
    }

    /// What is due of retention by the clock of the store: a plan each slice of time, which later calls of [`Store::step`] carry out, and room
    /// made ahead of the writes when the store comes near its bound. The bundled runner does this by itself; a host that steps calls it now
    /// and then. Returns whether a plan was made.
    ///
    /// # Errors
    /// As [`Store::run_retention`]; what failed is tried again by a later call.
    pub fn step_retention(&self) -> Result<bool> {
        let group = self.owner()?;
        let now = group.shared.clock.now();
        if let Some(bound) = group.bound().filter(|_| group.prunes()) {
            // Ahead of the writes, so that they need not wait.
            let nearly = (bound - group.margin()) / 16 * 15;
            if group.used_bytes() > nearly && now >= self.inner.background.state.lock().room_due {
                let outcome = self.make_room();
                if group.used_bytes() > nearly {
                    self.inner.background.state.lock().room_due =
                        TimeNs::new(now.get().saturating_add(ROOM_AGAIN_NS));
                }
                return outcome.map(|()| true);
            }
        }
        if now < self.inner.background.state.lock().due {
            return Ok(false);
        }
        let policy = self.policy()?;
        if policy.keeps_everything() {
            self.inner.background.state.lock().due = TimeNs::MAX;
            return Ok(false);
        }
        let slice = policy
            .windows
            .first()
            .map_or(SLICE_NS.1, |window| (window.to / 24).clamp(SLICE_NS.0, SLICE_NS.1));
        self.inner.background.state.lock().due = TimeNs::new(now.get().saturating_add(slice));
        if self.clock_departed(now) {
            return Ok(false);
        }
        let outcome = self.retain(&policy, now, TimeNs::ZERO, Effort::Background);
        if let Err(error) = &outcome {
            group.events.push(now, EventKind::RetentionFailed(error.to_string()));
        }
        outcome?;
        group.keep_reserve()?;
        Ok(true)
    }

    /// Says that the clock of the host is right although it departed from the monotonic one: history is dropped by age again.
    pub fn confirm_clock(&self) {
        let mut state = self.inner.background.state.lock();
        state.departed = false;
        state.clocks = None;
        state.due = TimeNs::ZERO;
    }

    /// Whether the clock has departed from the monotonic one since they were first compared.
    fn clock_departed(&self, now: TimeNs) -> bool {
        let group = &self.inner.group;
        let Some(monotonic) = group.shared.clock.monotonic_ns() else { return false };
        let mut state = self.inner.background.state.lock();
        let (clock, since) = *state.clocks.get_or_insert((now.get(), monotonic));
        let expected = clock.saturating_add(monotonic.saturating_sub(since));
        let departs = expected.abs_diff(now.get()) > CLOCK_DEPARTS_NS;
        if departs && !state.departed {
            state.departed = true;
            group.events.push(now, EventKind::ClockDeparted);
        }
        state.departed
    }
}

/// The next nanosecond.
const fn after(time: TimeNs) -> TimeNs {
    TimeNs::new(time.get().saturating_add(1))
}
