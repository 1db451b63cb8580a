//! Verify: the newest state of a volume compared with its source, byte by byte, while both may change; and the store mended where asked.
//!
//! A block that differs at first sight is looked at again later, until what was captured meanwhile has been taken over. It counts as
//! different only when it stays so on both sides for a while; one that never comes to rest is said to be unsettled. Without a tap nothing
//! is on its way, and the second look decides. What the store cannot read counts as different, and as damaged.
//! Invariant *one direction*: the source is only read.

use super::{
    Store,
    resync_run::{Pace, ResyncRun},
    verify_cursor::{VerifyCursor, VerifyResume},
    verify_look::{Again, Found, LOOK_EVERY, Ranges, Verify, as_bytes, total},
};
use crate::{
    capture::tap::TapState,
    catalog::{GapReason, SourceStamp, VolumeInfo},
    dirty_map::ByteRange,
    error::{Error, Result},
    group::How,
    job::{self, Job, JobStep},
    limits::RESYNC_RUNS_MAX,
    restore::Progress,
    resync::{DigestCounts, ReadAhead, Request, Resync, ResyncCounts, SOURCE, SourceReader},
    units::Seq,
};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often the host of a blocking call is told how far it is.
const KEEP_EVERY: Duration = Duration::from_secs(2);

/// How a verification goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Whether the store takes over what differs.
    pub repair: bool,
    /// Threads that read the source ahead, started for the time of the call; 0: none is started.
    pub readers: usize,
    /// Bytes of the source that are compared in a second at most.
    pub bytes_per_second_max: Option<u64>,
    /// Whether keyed 64-bit digests are compared instead of bytes where the source lies across a link and answers them ([`SourceReader::digests`]). Each side then
    /// reads its own bytes, and only digests cross the link, and what is mended.
    pub digests: bool,
}

/// What a verification has found.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyReport {
    /// Bytes compared, those in holes of the source included.
    pub bytes_compared: u64,
    /// Bytes that differ, in whole blocks but for the last.
    pub bytes_different: u64,
    /// What of them the store could not read.
    pub bytes_damaged: u64,
    /// Bytes that changed all the time, or that the tap knows to differ and resync did not come to: nothing is known of them.
    pub bytes_unsettled: u64,
    /// Where the differences are: ascending, merged.
    pub extents: Vec<ByteRange>,
    /// There were differences, and the store was made equal to the source everywhere.
    pub repaired: bool,
    /// It was compared to the end.
    pub complete: bool,
    /// Bytes read from the source; what was compared by digests is not among them.
    pub source_bytes_read: u64,
    /// Digests of a source across a link, those of the first look counted by regions.
    pub digests: DigestCounts,
    /// Bytes of payload read from the store.
    pub store_bytes_read: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Store {
    /// Compares the newest state of a volume (`None`: the first one) with `source` byte by byte, in address order, while writes to both may go
    /// on through a tap. With `repair` the store takes over what differs or cannot be read: through the volume's tap where it has one
    /// (then `source` is that of the tap), else as [`Store::resync_from`] does, with a gap from the first to the last block. The source is never
    /// written. `cancelled` ends it early, and then nothing is repaired.
    ///
    /// # Errors
    /// `NotFound`; `Io` from either side; with `repair` those of [`Store::resync_from`]. Differences and damage are no errors: they are in the
    /// report.
    pub fn verify_from(
        &self,
        volume: Option<&str>,
        source: Arc<dyn SourceReader>,
        options: &VerifyOptions,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<VerifyReport> {
        let mut job = self.verify_job(volume, source, options)?;
        job::run(&mut job, progress, cancelled)?;
        job.end()
    }

    /// As [`Store::verify_from`], and goes on where an earlier one ended: what that has compared and found equal is not compared again. The
    /// report counts what this one compared; its differences are those of both.
    ///
    /// # Errors
    /// As [`Store::verify_from`]; `InvalidArgument` for a cursor of another store or volume; those of `resume.keep`.
    pub fn verify_resumable(
        &self,
        volume: Option<&str>,
        source: Arc<dyn SourceReader>,
        options: &VerifyOptions,
        resume: VerifyResume<'_>,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<VerifyReport> {
        let mut job = self.verify_job(volume, source, options)?;
        resume.from.map_or(Ok(()), |from| job.resume(from))?;
        let mut kept = Instant::now();
        loop {
            let is_cancelled = cancelled();
            if is_cancelled || kept.elapsed() >= KEEP_EVERY {
                job.cursor().map_or(Ok(()), |cursor| (resume.keep)(&cursor))?;
                kept = Instant::now();
            }
            if is_cancelled || !job::run_step(&mut job, progress)? {
                return job.end();
            }
        }
    }

    /// As [`Store::verify_from`], in steps.
    ///
    /// # Errors
    /// `NotFound`; those of the source as `Io`.
    pub fn verify_job(
        &self,
        volume: Option<&str>,
        source: Arc<dyn SourceReader>,
        options: &VerifyOptions,
    ) -> Result<VerifyJob> {
        let started = Instant::now();
        let info = Arc::new(self.volume(volume)?.info());
        let group = &self.inner.group;
        group.settle_for_reading()?;
        let stamp = source.stamp().map_err(|error| Error::io("look at", SOURCE, error))?;
        let newest = group.tip().0;
        let ahead = ReadAhead::start(source.clone(), options.readers)
            .map_err(|error| Error::io("start", "the threads of a verification", error))?;
        Ok(VerifyJob {
            verify: Verify {
                store: self.clone(),
                info,
                by_digests: options.digests && ahead.has_digests(),
                ahead,
                found: Found::default(),
            },
            source,
            at_begin: (newest, stamp),
            repairs: options.repair,
            pace: Pace::new(options.bytes_per_second_max),
            phase: Phase::Looking { asked: 0, compared: 0, requests: VecDeque::new() },
            compared_all: None,
            unsettled: Vec::new(),
            complete: false,
            repaired: false,
            started,
        })
    }

    /// Begins to take over what differs, through the tap of the volume or as a resync of its own.
    fn repair(
        &self,
        info: &Arc<VolumeInfo>,
        source: &Arc<dyn SourceReader>,
        extents: &[ByteRange],
        (newest, stamp): (Seq, Option<SourceStamp>),
    ) -> Result<Repair> {
        let group = self.owner()?;
        let Some((capture, tap)) =
            group.capture().and_then(|capture| Some((capture.clone(), capture.tap(info.id)?)))
        else {
            return Ok(Repair::Alone(Box::new(self.resync_found(info, source, (extents, newest, stamp))?)));
        };
        let resyncs = self.inner.resyncs.lock().clone();
        let own = resyncs.into_iter().find(|resync| Arc::ptr_eq(resync.lock().tap(), &tap));
        let Some(own) = own else {
            return Err(Error::Exists { what: "tap of volume", name: info.name.clone() });
        };
        {
            let mut own = own.lock();
            (own.how, own.is_asked_for) = (How::Bytes, true);
        }
        let repair = TapRepair { store: self.clone(), tap: tap.clone(), own: own.clone(), failures: 0 };
        let now = group.shared.clock.now();
        for extent in extents {
            tap.mark(*extent, now, GapReason::Host, &capture.wishes, || capture.pool.boundary());
        }
        // The activity log does not know of what is set directly.
        let log = own.lock().log().cloned();
        log.map_or(Ok(()), |log| log.checkpoint(group))?;
        Ok(Repair::Tapped(repair))
    }
}

/// What takes over what was found to differ.
enum Repair {
    Alone(Box<ResyncRun>),
    Tapped(TapRepair),
}

/// A repair through the tap of the volume; dropped, it leaves the rest to the tap.
struct TapRepair {
    store: Store,
    tap: Arc<TapState>,
    own: Arc<Mutex<Resync>>,
    failures: usize,
}

impl TapRepair {
    fn is_whole(&self) -> bool {
        !self.tap.gap_is_open() && self.tap.wished().is_none() && self.tap.map().is_empty()
    }

    fn step(&mut self) -> Result<JobStep> {
        if self.is_whole() || self.tap.is_ended() {
            return Ok(JobStep::Done);
        }
        match self.store.step_taps() {
            Ok(true) => Ok(JobStep::More),
            Ok(false) => Ok(JobStep::Wait(LOOK_EVERY / 10)),
            Err(error) => {
                self.failures += 1;
                if self.failures > RESYNC_RUNS_MAX { Err(error) } else { Ok(JobStep::More) }
            }
        }
    }
}

impl Drop for TapRepair {
    fn drop(&mut self) {
        let mut own = self.own.lock();
        (own.how, own.is_asked_for) = (How::Digests, false);
    }
}

/// A verification under way. Dropped, it ends where it stands; a repair that had begun is left to the tap, or to a later resync.
pub struct VerifyJob {
    verify: Verify,
    source: Arc<dyn SourceReader>,
    /// The newest seq when it began, and the stamp of the source.
    at_begin: (Seq, Option<SourceStamp>),
    repairs: bool,
    pace: Pace,
    phase: Phase,
    /// That everything was compared once, and what differed at first sight.
    compared_all: Option<VerifyCursor>,
    unsettled: Ranges,
    complete: bool,
    repaired: bool,
    started: Instant,
}

/// How far a verification is.
enum Phase {
    /// Everything is compared once.
    Looking {
        asked: u64,
        compared: u64,
        requests: VecDeque<(ByteRange, Request)>,
    },
    /// What differed is looked at until it does no more, or has come to rest.
    Again(Again),
    /// What differs is taken over.
    Repairing(Repair),
    Ended,
}

impl VerifyJob {
    /// Goes on where an earlier one of the same volume ended. Called before the first step.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another store or volume, and after the first step.
    pub fn resume(&mut self, cursor: VerifyCursor) -> Result<()> {
        let Phase::Looking { asked: asked @ 0, compared, .. } = &mut self.phase else {
            return Err(Error::InvalidArgument(
                "a verification goes on from a cursor before its first step".into(),
            ));
        };
        let Verify { store, info, found, .. } = &mut self.verify;
        let (next, [different, damaged]) = cursor.of(store.inner.group.shared.store, info)?;
        (*asked, *compared) = (next, next);
        (found.different, found.damaged) = (different, damaged);
        self.pace.begin_at(next);
        Ok(())
    }

    /// How far it is, for a later one to go on from; `None` when it has ended or mends what differs, and when more differs than a cursor can
    /// name.
    pub fn cursor(&self) -> Option<VerifyCursor> {
        match &self.phase {
            Phase::Looking { compared, .. } => self.verify.cursor(*compared),
            Phase::Again(_) => self.compared_all.clone(),
            Phase::Repairing(_) | Phase::Ended => None,
        }
    }

    /// What it has found so far: before all was compared, what is different is so at first sight.
    pub fn report(&self) -> VerifyReport {
        let found = &self.verify.found;
        let repairing = match &self.phase {
            Phase::Repairing(Repair::Alone(run)) => run.outcome().0,
            _ => ResyncCounts::default(),
        };
        VerifyReport {
            bytes_compared: found.bytes_compared,
            bytes_different: total(&found.different),
            bytes_damaged: total(&found.damaged),
            bytes_unsettled: total(&self.unsettled),
            extents: found.different.iter().map(as_bytes).collect(),
            repaired: self.repaired,
            complete: self.complete,
            source_bytes_read: found.source_bytes_read + repairing.source_bytes_read,
            digests: found.digests,
            store_bytes_read: found.store_bytes_read + repairing.store_bytes_read,
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }

    /// Ends it where it stands, unless it has ended, and says what it has found.
    ///
    /// # Errors
    /// Those of ending a repair.
    pub fn end(&mut self) -> Result<VerifyReport> {
        // What has not come to rest yet is unsettled.
        let suspects = match &mut self.phase {
            Phase::Looking { .. } => Some(self.verify.suspects().suspects),
            Phase::Again(again) => Some(std::mem::take(&mut again.suspects)),
            Phase::Repairing(_) | Phase::Ended => None,
        };
        if let Some(suspects) = suspects {
            self.unsettled = self.verify.conclude(suspects);
        }
        self.end_repair()?;
        Ok(self.report())
    }

    fn end_repair(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Repairing(Repair::Alone(mut run)) => {
                run.end()?;
                let (counts, left) = run.outcome();
                self.verify.found.source_bytes_read += counts.source_bytes_read;
                self.verify.found.store_bytes_read += counts.store_bytes_read;
                self.repaired = left == 0;
            }
            Phase::Repairing(Repair::Tapped(repair)) => self.repaired = repair.is_whole(),
            _ => {}
        }
        Ok(())
    }

    fn try_step(&mut self) -> Result<JobStep> {
        match &mut self.phase {
            Phase::Looking { asked, compared, requests } => {
                if let Some(wait) = self.pace.wait(*compared) {
                    return Ok(JobStep::Wait(wait));
                }
                match self.verify.look_on(asked, requests)? {
                    Some(end) => *compared = end,
                    None => {
                        self.compared_all = self.verify.cursor(self.verify.info.bytes);
                        self.phase = Phase::Again(self.verify.suspects());
                    }
                }
                Ok(JobStep::More)
            }
            Phase::Again(again) => match self.verify.look_again(again)? {
                JobStep::Done => {
                    let suspects = std::mem::take(&mut again.suspects);
                    self.unsettled = self.verify.conclude(suspects);
                    self.complete = true;
                    let extents: Vec<ByteRange> = self.verify.found.different.iter().map(as_bytes).collect();
                    if !self.repairs || extents.is_empty() {
                        self.phase = Phase::Ended;
                        return Ok(JobStep::Done);
                    }
                    let Verify { store, info, .. } = &self.verify;
                    let repair = store.repair(info, &self.source, &extents, self.at_begin)?;
                    self.phase = Phase::Repairing(repair);
                    Ok(JobStep::More)
                }
                stepped => Ok(stepped),
            },
            Phase::Repairing(repair) => {
                let stepped = match repair {
                    Repair::Alone(run) => run.step()?,
                    Repair::Tapped(repair) => repair.step()?,
                };
                if stepped == JobStep::Done {
                    self.end_repair()?;
                }
                Ok(stepped)
            }
            Phase::Ended => Ok(JobStep::Done),
        }
    }
}

impl Job for VerifyJob {
    fn step(&mut self) -> Result<JobStep> {
        let outcome = self.try_step();
        if outcome.is_err() {
            self.phase = Phase::Ended;
        }
        outcome
    }

    fn progress(&self) -> Progress {
        match &self.phase {
            Phase::Looking { compared, .. } => Progress { done: *compared, total: self.verify.info.bytes },
            _ => Progress { done: self.verify.found.bytes_compared, total: self.verify.info.bytes },
        }
    }
}
