//! Bookmarks by schedule: set by [`Store::step`] and by the runner alike.
//!
//! A schedule belongs to the open store and is not recorded: what it freezes lives in the process of the host, and a tool that opens the store
//! for a moment must not vouch for an application that it cannot freeze. What it has set is recorded, and a slot that has its bookmark
//! does not get another one after reopening.
//! Invariant *once*: each slot is tried once, by one thread; a failure does not freeze production again in the same slot.

use super::Store;
use crate::{
    bookmark::BookmarkSchedule,
    error::{Error, Result},
    event::EventKind,
    units::{Seq, TimeNs},
};

/// The schedule of a store, and how far it is.
#[derive(Debug, Default)]
pub(crate) struct Scheduled {
    schedule: Option<BookmarkSchedule>,
    /// The last slot that was dealt with.
    slot: u64,
    /// The state that the last bookmark of the schedule names.
    seq: Seq,
    /// Whether a thread is at it.
    busy: bool,
    /// Which schedule this is; one that was replaced meanwhile leaves no trace here.
    generation: u64,
}

impl Scheduled {
    /// Takes the slot that is due, if one is.
    fn take_due(&mut self, now: TimeNs) -> Option<Due> {
        let schedule = self.schedule.as_ref().filter(|_| !self.busy)?;
        let slot = schedule.slot_of(now);
        let is_due = slot > self.slot;
        // Also backwards: a clock that was set back does not stop the schedule for longer than a slot.
        self.slot = slot;
        self.busy = is_due;
        let due = Due { schedule: schedule.clone(), slot, now, seq: self.seq, generation: self.generation };
        is_due.then_some(due)
    }
}

/// A slot that is due.
struct Due {
    schedule: BookmarkSchedule,
    slot: u64,
    now: TimeNs,
    seq: Seq,
    generation: u64,
}

/// Lets the next slot be tried, also after a panic of a callback.
struct Turn<'a> {
    store: &'a Store,
    generation: u64,
    /// The state that is named now.
    seq: Seq,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut scheduled = self.store.inner.scheduled.lock();
        if scheduled.generation == self.generation {
            scheduled.busy = false;
            scheduled.seq = self.seq;
        }
    }
}

impl Store {
    /// Sets bookmarks at regular times from now on, or no more. The first one comes in the next slot. [`Store::step`] and the runner set them;
    /// the schedule ends with this open store, so a host that wants it sets it each time it opens the store.
    ///
    /// # Errors
    /// `InvalidArgument` for a schedule that cannot work; `ReadOnly`.
    pub fn set_bookmark_schedule(&self, schedule: Option<BookmarkSchedule>) -> Result<()> {
        let group = self.owner()?;
        schedule.as_ref().map(BookmarkSchedule::validate).transpose()?;
        let (mut slot, mut seq) = (0, Seq::ZERO);
        if let Some(schedule) = &schedule {
            slot = schedule.slot_of(group.shared.clock.now());
            let catalog = group.catalog.read();
            let made = catalog.bookmarks().filter(|bookmark| schedule.made(&bookmark.name));
            seq = made.map(|bookmark| bookmark.seq).max().unwrap_or_default();
        }
        let mut scheduled = self.inner.scheduled.lock();
        let generation = scheduled.generation + 1;
        *scheduled = Scheduled { schedule, slot, seq, busy: false, generation };
        Ok(())
    }

    /// The schedule in force.
    pub fn bookmark_schedule(&self) -> Option<BookmarkSchedule> {
        self.inner.scheduled.lock().schedule.clone()
    }

    /// Sets the bookmark that is due, if one is. Returns whether one was set.
    ///
    /// # Errors
    /// Those of setting it; the slot stays without.
    pub(super) fn step_schedule(&self) -> Result<bool> {
        let now = self.owner()?.shared.clock.now();
        let Some(due) = self.inner.scheduled.lock().take_due(now) else { return Ok(false) };
        let mut turn = Turn { store: self, generation: due.generation, seq: due.seq };
        let outcome = self.set_scheduled(&due);
        match &outcome {
            Ok(set) => turn.seq = set.unwrap_or(due.seq),
            Err(error) => {
                let kind = EventKind::BookmarkMissed(error.to_string());
                self.inner.group.events.push(now, kind);
            }
        }
        Ok(outcome?.is_some())
    }

    /// Sets the bookmark of a slot, unless nothing was written or it is there. Returns the state that it names.
    fn set_scheduled(&self, due: &Due) -> Result<Option<Seq>> {
        let group = self.owner()?;
        // What was captured, or waits for the end of its interval, was written.
        group.make_way()?;
        group.settle_for_reading()?;
        if self.newest().seq == due.seq {
            return Ok(None);
        }
        let new = due.schedule.new_bookmark(due.slot, due.now);
        let set = match &due.schedule.quiesce {
            None => self.add_bookmark(&new),
            Some((quiesce, timeout)) => self.add_bookmark_quiesced(&new, &**quiesce, *timeout),
        };
        match set {
            Ok(bookmark) => Ok(Some(bookmark.seq)),
            // The slot had its bookmark before the store was opened again, or the clock was set back.
            Err(Error::Exists { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
