//! Resync of a volume with a tap on request, while writes go on: the engine is that of the tap, which somebody asked for and steps.

use super::{
    ResyncMode, ResyncOptions, ResyncReport, Tap,
    resync_run::{IDLE, Pace, SETBACKS_MAX, dirty_bytes},
};
use crate::{
    catalog::GapReason,
    dirty_map::ByteRange,
    error::{Error, Result},
    group::How,
    job::{self, Job, JobStep},
    restore::Progress,
    resync::ResyncCounts,
};
use std::time::Instant;

/// A resync of a volume with a tap, under way. Dropped, it leaves what is left to the tap, which goes on by itself.
pub struct TapResyncJob {
    tap: Tap,
    mode: ResyncMode,
    before: ResyncCounts,
    total: u64,
    pace: Pace,
    started: Instant,
    ended: bool,
}

impl Tap {
    /// Compares the volume with its source while writes go on, and takes over what differs: as [`Store::resync_from`](super::Store::resync_from), for a volume with a
    /// tap, whose own source is read. A gap is open until it is done. `Map` compares what the tap knows to differ; `Quick` does
    /// nothing. The runner's or the stepping host's work is done in this thread too.
    ///
    /// # Errors
    /// `InvalidArgument` after [`Tap::detach`]; `Io` when a thread cannot be started, and those of the source; those of appending. The tap goes on by itself then.
    pub fn resync(
        &self,
        options: &ResyncOptions,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ResyncReport> {
        let mut job = self.resync_job(options)?;
        job::run(&mut job, progress, cancelled)?;
        Ok(job.report())
    }

    /// As [`Tap::resync`], in steps.
    ///
    /// # Errors
    /// `InvalidArgument` after [`Tap::detach`]; `Io` when a thread cannot be started; with an activity log those of the storage.
    pub fn resync_job(&self, options: &ResyncOptions) -> Result<TapResyncJob> {
        let started = Instant::now();
        self.check_attached()?;
        let total = self.state.map().shape().bytes();
        if options.readers > 0 {
            let started = self.resync.lock().set_readers(options.readers);
            started.map_err(|error| Error::io("start", "the threads of a resync", error))?;
        }
        if matches!(options.mode, ResyncMode::Full | ResyncMode::Digest) {
            self.resync.lock().how = if options.mode == ResyncMode::Full { How::Bytes } else { How::Digests };
            self.mark_extents(&[ByteRange::new(0, total)], GapReason::Host)?;
        }
        let before = {
            let mut resync = self.resync.lock();
            resync.is_asked_for = true;
            resync.counts
        };
        let pace = Pace::new(options.bytes_per_second_max);
        Ok(TapResyncJob { tap: self.clone(), mode: options.mode, before, total, pace, started, ended: false })
    }
}

impl TapResyncJob {
    /// What it has done so far.
    pub fn report(&self) -> ResyncReport {
        ResyncReport {
            mode: self.mode,
            fallback: None,
            resumed: false,
            bytes_left: dirty_bytes(&self.tap.info, self.tap.state.map()),
            counts: self.counts(),
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }

    fn counts(&self) -> ResyncCounts {
        self.tap.resync.lock().counts.since(self.before)
    }

    fn end(&mut self) {
        if !self.ended {
            let mut resync = self.tap.resync.lock();
            (resync.how, resync.is_asked_for) = (How::Digests, false);
            // Without threads nothing is started that could fail.
            let _ = resync.set_readers(0);
            self.ended = true;
        }
    }

    fn try_step(&mut self) -> Result<JobStep> {
        if self.ended || self.mode == ResyncMode::Quick || self.tap.is_whole() {
            return Ok(JobStep::Done);
        }
        self.tap.check_attached()?;
        let compared = self.counts().bytes_compared;
        if let Some(wait) = self.pace.wait(compared) {
            return Ok(JobStep::Wait(wait));
        }
        match self.tap.store.step_taps() {
            Ok(true) => Ok(JobStep::More),
            Err(error) if self.counts().setbacks > SETBACKS_MAX => Err(error),
            Ok(false) | Err(_) => Ok(JobStep::Wait(IDLE)),
        }
    }
}

impl Job for TapResyncJob {
    fn step(&mut self) -> Result<JobStep> {
        let outcome = self.try_step();
        if !matches!(outcome, Ok(JobStep::More | JobStep::Wait(_))) {
            self.end();
        }
        outcome
    }

    fn progress(&self) -> Progress {
        let done = if self.ended { self.total } else { self.counts().bytes_compared.min(self.total) };
        Progress { done, total: self.total }
    }
}

impl Drop for TapResyncJob {
    fn drop(&mut self) {
        self.end();
    }
}

impl ResyncCounts {
    /// What came since.
    fn since(self, before: Self) -> Self {
        Self {
            bytes_compared: self.bytes_compared - before.bytes_compared,
            source_bytes_read: self.source_bytes_read - before.source_bytes_read,
            digests: self.digests.since(before.digests),
            store_bytes_read: self.store_bytes_read - before.store_bytes_read,
            bytes_different: self.bytes_different - before.bytes_different,
            bytes_transferred: self.bytes_transferred - before.bytes_transferred,
            bytes_damaged: self.bytes_damaged - before.bytes_damaged,
            setbacks: self.setbacks - before.setbacks,
        }
    }
}
