//! The work for taps: taking over what was captured, and resync by the schedule of the store.
//!
//! A schedule belongs to the open store and is not recorded: what it spares is the production of this host.

use super::Store;
use crate::{
    error::{Error, Result},
    event::EventKind,
    resync::{Resync, ResyncSchedule, SOURCE, Step, Throttle, Waiting},
    units::TimeNs,
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// The schedule in force, and how fast its resyncs go.
#[derive(Debug, Default)]
pub(crate) struct Resyncing {
    schedule: ResyncSchedule,
    throttle: Throttle,
}

impl Store {
    /// Sets when the taps of this store resync by themselves, which first and how fast, from now on.
    ///
    /// # Errors
    /// `InvalidArgument` for a field that cannot be meant.
    pub fn set_resync_schedule(&self, schedule: ResyncSchedule) -> Result<()> {
        schedule.validate()?;
        *self.inner.resyncing.lock() = Resyncing { schedule, throttle: Throttle::default() };
        Ok(())
    }

    /// Says how long an I/O of production took just now, for a schedule with
    /// [`latency_max`](ResyncSchedule::latency_max). A sample now and then is enough.
    pub fn note_production_latency(&self, latency: Duration) {
        let now = self.inner.group.shared.clock.now();
        self.inner.resyncing.lock().throttle.note_latency(now, latency);
    }

    /// Takes over what was captured and does one piece of resync for each tap. Returns whether there was anything to do.
    ///
    /// # Errors
    /// The first failure; the others went on, and a later step tries again.
    pub(super) fn step_taps(&self) -> Result<bool> {
        let drained = self.drain_taps();
        let resynced = self.step_resyncs();
        Ok(drained? | resynced?)
    }

    /// Takes over what was captured, and makes room for it if need be.
    pub(super) fn drain_taps(&self) -> Result<bool> {
        let group = self.owner()?;
        match self.with_room(|| group.drain_complete()) {
            // No room can be made: what waits is marked instead.
            Err(Error::OverBound { .. }) => group.drain_complete(),
            drained => drained,
        }
    }

    /// One piece of resync for each tap that may go on, as a thread of the runner does it.
    pub(crate) fn step_resyncs(&self) -> Result<bool> {
        let group = self.owner()?;
        let Some(capture) = group.capture() else { return Ok(false) };
        let (mut busy, mut outcome) = (false, Ok(()));
        let resyncs = self.inner.resyncs.lock().clone();
        let admitted = self.admitted(&resyncs, group.shared.clock.now());
        for (resync, admission) in resyncs.into_iter().zip(admitted) {
            let (stepped, compared) = {
                let mut resync = resync.lock();
                let before = resync.counts.bytes_compared;
                let stepped = match admission {
                    Admission::Waits => resync.rest(group).map(|()| Step::Idle),
                    Admission::Goes | Admission::GoesByItself => resync.step(group, &capture),
                };
                if let Err(error) = &stepped {
                    self.say_of_source(&resync, error);
                }
                (stepped, resync.counts.bytes_compared - before)
            };
            if admission == Admission::Goes && compared > 0 {
                let Resyncing { schedule, throttle } = &mut *self.inner.resyncing.lock();
                throttle.spend(schedule, group.shared.clock.now(), compared);
            }
            match stepped {
                Ok(step) => busy |= step != Step::Idle,
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome.map(|()| busy)
    }

    /// What each resync may do now. The lock of the schedule is never held together with that of a resync.
    fn admitted(&self, resyncs: &[Arc<Mutex<Resync>>], now: TimeNs) -> Vec<Admission> {
        let mut admitted = vec![Admission::GoesByItself; resyncs.len()];
        let mut differing = Vec::new();
        for (place, resync) in resyncs.iter().enumerate() {
            let mut resync = resync.lock();
            if let Some((since, has_begun)) = resync.waits(now)
                && !resync.is_asked_for
            {
                differing.push((place, resync.tap().volume(), since, has_begun));
            }
        }
        if differing.is_empty() {
            return admitted;
        }
        let catalog = self.inner.group.catalog.read();
        let name = |volume| catalog.volume(volume).map_or("", |info| info.name.as_str());
        let waiting: Vec<Waiting<'_>> = differing
            .iter()
            .map(|(_, volume, since, has_begun)| Waiting {
                volume: name(*volume),
                since: *since,
                has_begun: *has_begun,
            })
            .collect();
        let Resyncing { schedule, throttle } = &mut *self.inner.resyncing.lock();
        differing.iter().for_each(|(place, ..)| admitted[*place] = Admission::Waits);
        if throttle.is_open(now) {
            for place in schedule.admitted(now, &waiting) {
                admitted[differing[place].0] = Admission::Goes;
            }
        }
        admitted
    }

    fn say_of_source(&self, resync: &Resync, error: &Error) {
        let group = &self.inner.group;
        if matches!(error, Error::Io { target, .. } if target == SOURCE) {
            let volume = resync.tap().volume();
            let name = group.catalog.read().volume(volume).map(|info| info.name.clone());
            let kind = EventKind::SourceFailed { volume: name.unwrap_or_default(), error: error.to_string() };
            group.events.push(group.shared.clock.now(), kind);
        }
    }
}

/// What a resync may do in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// Nothing but what has to be done in any case.
    Waits,
    /// A piece, by the schedule.
    Goes,
    /// A piece: nothing is known to differ, or who asked for it sees to its speed.
    GoesByItself,
}
