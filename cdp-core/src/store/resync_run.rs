//! One run of a resync without a tap of the host, in steps; and what holds work to a rate.
//!
//! Invariant *taken off*: a run is a tap on its volume, which is taken off when the run ends, in whatever way: to its end, by a failure,
//! or by being dropped. What is left is recorded with it.

use super::{
    Store, TapOptions,
    resync::ResyncOptions,
    tap::{Attach, Attached, Decided, Keeps},
};
use crate::{
    catalog::{StampRecord, VolumeInfo},
    dirty_map::DirtyMap,
    error::{Error, Result},
    group::Known,
    job::{Job, JobStep},
    restore::Progress,
    resync::{ResyncCounts, SourceReader, Step},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Pause while nothing can be done.
pub(super) const IDLE: Duration = Duration::from_millis(2);
/// Longest pause for the rate in one go, so that a cancellation is seen.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Times that a run is broken off and begun again before its error is returned.
pub(super) const SETBACKS_MAX: u64 = 3;

/// One run, from the moment at which its tap is on.
pub(super) struct ResyncRun {
    store: Store,
    info: Arc<VolumeInfo>,
    options: ResyncOptions,
    stamp: Option<StampRecord>,
    /// `None`: it has ended.
    attached: Option<Attached>,
    total: u64,
    pace: Pace,
    checkpoint: Instant,
    counts: ResyncCounts,
    left: u64,
}

impl ResyncRun {
    /// Puts the tap to work; `decide` as for [`Store::attach`], and `stamp` is recorded at the end.
    pub fn begin(
        store: &Store,
        info: &Arc<VolumeInfo>,
        source: &Arc<dyn SourceReader>,
        options: &ResyncOptions,
        decide: impl Fn(&DirtyMap, Known) -> Result<Decided>,
        stamp: Option<StampRecord>,
    ) -> Result<Self> {
        let group = store.owner()?;
        let time = options.time.unwrap_or_else(|| group.shared.clock.now());
        let tap = TapOptions::default();
        let attach = Attach { options: &tap, keeps: Keeps::Cursor, readers: options.readers, time };
        let attached = store.attach(info, source, &attach, decide)?;
        let total = dirty_bytes(info, attached.state.map());
        Ok(Self {
            store: store.clone(),
            info: info.clone(),
            options: *options,
            stamp,
            attached: Some(attached),
            total,
            pace: Pace::new(options.bytes_per_second_max),
            checkpoint: Instant::now(),
            counts: ResyncCounts::default(),
            left: total,
        })
    }

    /// Figures, and the bytes that are left.
    pub fn outcome(&self) -> (ResyncCounts, u64) {
        match &self.attached {
            Some(attached) => (attached.resync.counts, dirty_bytes(&self.info, attached.state.map())),
            None => (self.counts, self.left),
        }
    }

    /// Ends it where it stands, unless it has ended.
    pub fn end(&mut self) -> Result<()> {
        let Some(attached) = self.attached.take() else { return Ok(()) };
        let Attached { capture, state, mut resync, .. } = attached;
        let group = self.store.owner()?;
        let ended = self.store.end_tap_of(&capture, &state, Some(&mut resync), self.stamp);
        if ended.is_err() {
            // Nobody else can end it. What is recorded, "differs" with the map as of its last checkpoint, holds.
            group.abandon_tap(&capture, &state);
        }
        (self.counts, self.left) = (resync.counts, dirty_bytes(&self.info, state.map()));
        ended
    }

    fn try_step(&mut self) -> Result<JobStep> {
        let group = self.store.owner()?;
        let Some(Attached { capture, state, log, resync }) = &mut self.attached else {
            return Ok(JobStep::Done);
        };
        if let Some(wait) = self.pace.wait(resync.counts.bytes_compared) {
            return Ok(JobStep::Wait(wait));
        }
        let stepped = match self.store.with_room(|| resync.step(group, capture)) {
            Ok(Step::Closed) => return Ok(JobStep::Done),
            Ok(Step::More) => JobStep::More,
            Ok(Step::Idle) => {
                self.store.drain_taps()?;
                JobStep::Wait(IDLE)
            }
            Err(Error::SourceChanged) => {
                state.map().set_all();
                return Err(Error::SourceChanged);
            }
            Err(error) if resync.counts.setbacks >= SETBACKS_MAX => return Err(error),
            Err(_) => JobStep::More,
        };
        if state.is_ended() {
            return Err(Error::Poisoned("the store was closed".into()));
        }
        if self.checkpoint.elapsed() >= self.options.checkpoint_every {
            if let Some(log) = log {
                // Bits turn clean, and durably so, only behind what was taken over.
                group.flush_appended()?;
                resync.settle(group);
                log.checkpoint(group)?;
            }
            self.checkpoint = Instant::now();
        }
        Ok(stepped)
    }
}

impl Job for ResyncRun {
    fn step(&mut self) -> Result<JobStep> {
        match self.try_step() {
            Ok(JobStep::Done) => self.end().map(|()| JobStep::Done),
            Ok(stepped) => Ok(stepped),
            Err(error) => {
                // The failure of the run says more than that of its end.
                let _ = self.end();
                Err(error)
            }
        }
    }

    fn progress(&self) -> Progress {
        let (counts, left) = self.outcome();
        let whole = self.attached.is_none() && left == 0;
        let done = if whole { self.total } else { counts.bytes_compared.min(self.total) };
        Progress { done, total: self.total }
    }
}

impl Drop for ResyncRun {
    fn drop(&mut self) {
        // What could not be recorded is what a crash leaves as well.
        let _ = self.end();
    }
}

pub(super) fn dirty_bytes(info: &VolumeInfo, map: &DirtyMap) -> u64 {
    map.weight().saturating_mul(map.shape().granularity().bytes()).min(info.bytes)
}

/// Holds work to a rate.
pub(crate) struct Pace {
    bytes_per_second_max: Option<u64>,
    since: Instant,
    from: u64,
}

impl Pace {
    pub fn new(bytes_per_second_max: Option<u64>) -> Self {
        Self {
            bytes_per_second_max: bytes_per_second_max.map(|rate| rate.max(1)),
            since: Instant::now(),
            from: 0,
        }
    }

    /// So much is done before it begins.
    pub fn begin_at(&mut self, done: u64) {
        (self.since, self.from) = (Instant::now(), done);
    }

    /// How long it takes until `done` bytes are due; `None`: they are.
    pub fn wait(&mut self, done: u64) -> Option<Duration> {
        let rate = self.bytes_per_second_max?;
        let micros = u128::from(done.saturating_sub(self.from)) * 1_000_000 / u128::from(rate);
        let due = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let left = due.saturating_sub(self.since.elapsed());
        if !left.is_zero() {
            return Some(left.min(PAUSE_MAX));
        }
        // What was not used up to now is not made up for later.
        if self.since.elapsed() > due + PAUSE_MAX {
            (self.since, self.from) = (Instant::now(), done);
        }
        None
    }
}
