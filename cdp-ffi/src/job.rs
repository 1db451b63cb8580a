//! Jobs: long work that the host steps at its own pace, in its own thread.

use crate::{
    arguments::{Caller, Sized32, sized},
    failure::{Failure, Outcome},
    guard::{guard, guard_status},
    handle::{Family, Held, Kind, Member, get, kind, put},
    restore,
    resync::Watch,
    status::{CDP_END, CDP_ERR_BUSY, CDP_OK, cdp_status},
    verify::Verification,
};
use cdp_core::{
    ExportJob, ImportSeedJob, Job, JobStep, Progress, ResyncJob, RetentionJob, ScrubJob, TapResyncJob,
    verify::CheckJob,
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    mem::size_of,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// What a piece counts at least in a budget, so that work whose bytes are not known ends a step too.
const PIECE_BYTES: u64 = 1 << 20;
/// Longest sleep in one go, so that a watch that ends a call is seen.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Long work under way.
pub struct cdp_job {
    _private: [u8; 0],
}
kind!(cdp_job, 19, "job", JobObject);

/// The job was cancelled, by cdp_job_cancel.
pub const CDP_JOB_CANCELLED: u32 = 1 << 0;
/// Everything is done.
pub const CDP_JOB_DONE: u32 = 1 << 1;

/// How far a job is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_job_progress {
    /// sizeof(cdp_job_progress).
    pub struct_size: u32,
    /// CDP_JOB_*.
    pub flags: u32,
    /// Bytes that are done: of the volume, of the store for a check and a scrub, freed for retention.
    pub bytes_done: u64,
    /// Bytes in all; it may change while the job runs. 0: not known.
    pub bytes_total: u64,
    /// Nothing can be done for so long, nanoseconds, for a bound on its speed or until something comes to rest: step it again then. 0: at once.
    pub wait_ns: u64,
    /// How long what is left takes at the speed that the job has had, nanoseconds. UINT64_MAX: not known.
    pub left_ns: u64,
}
sized!(cdp_job_progress, 40);

/// The work of a job.
pub(crate) enum Work {
    Resync(ResyncJob),
    TapResync(TapResyncJob),
    Verify(Box<Verification>),
    Check(CheckJob),
    Scrub(ScrubJob),
    Retention(RetentionJob),
    Import(ImportSeedJob),
    Export(ExportJob<'static>),
    Restore(Arc<Member<Mutex<restore::Job>>>),
}

impl Work {
    /// That of the core; `None`: a restore.
    fn of_core(&mut self) -> Option<&mut dyn Job> {
        match self {
            Self::Resync(job) => Some(job),
            Self::TapResync(job) => Some(job),
            Self::Verify(verification) => Some(&mut verification.job),
            Self::Check(job) => Some(job),
            Self::Scrub(job) => Some(job),
            Self::Retention(job) => Some(job),
            Self::Import(job) => Some(job),
            Self::Export(job) => Some(job),
            Self::Restore(_) => None,
        }
    }

    fn progress(&mut self) -> Progress {
        if let Some(job) = self.of_core() {
            return job.progress();
        }
        let Self::Restore(restore) = self else { return Progress { done: 0, total: 0 } };
        let progress = restore.lock().progress();
        Progress { done: progress.bytes_done, total: progress.bytes_total }
    }

    /// Does one piece.
    fn step(&mut self) -> Outcome<JobStep> {
        if let Self::Restore(restore) = self {
            let stepped = restore.try_lock().ok_or_else(busy)?.step(1)?;
            return Ok(if stepped == CDP_END { JobStep::Done } else { JobStep::More });
        }
        Ok(self.of_core().map_or(Ok(JobStep::Done), |job| job.step())?)
    }

    /// Ends it where it stands, durably where that means something.
    fn end(&mut self) -> Outcome {
        match self {
            Self::Resync(job) => drop(job.end()?),
            Self::Verify(verification) => verification.end()?,
            Self::Import(job) => drop(job.end()?),
            _ => {}
        }
        Ok(())
    }
}

/// What goes on under the lock of a job.
pub(crate) struct Running {
    pub work: Work,
    failed: bool,
    ended: u32,
    /// How long its steps took together.
    worked: Duration,
}

/// A job.
pub struct JobObject {
    cancelled: AtomicBool,
    running: Mutex<Running>,
}

/// Makes a job.
pub(crate) fn job(work: Work, family: &Arc<Family>) -> Outcome<*mut cdp_job> {
    let running = Running { work, failed: false, ended: 0, worked: Duration::ZERO };
    put(JobObject { cancelled: AtomicBool::new(false), running: Mutex::new(running) }, Some(family))
}

fn busy() -> Failure {
    Failure::new(CDP_ERR_BUSY, "another call is at this job")
}

impl JobObject {
    fn lock(&self) -> Outcome<MutexGuard<'_, Running>> {
        self.running.try_lock().ok_or_else(busy)
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Does pieces until the budget is spent; returns the status and how long there is nothing to do.
    fn step(&self, running: &mut Running, budget_bytes: u64) -> Outcome<(cdp_status, Duration)> {
        if running.failed {
            return Err(Failure::argument("this job has failed; close it and begin another one"));
        }
        let mut spent = 0_u64;
        while running.ended == 0 {
            if self.is_cancelled() {
                running.work.end()?;
                running.ended = CDP_JOB_CANCELLED;
                break;
            }
            let before = running.work.progress().done;
            match running.work.step()? {
                JobStep::Done => running.ended = CDP_JOB_DONE,
                JobStep::Wait(time) => return Ok((CDP_OK, time)),
                JobStep::More => {
                    let done = running.work.progress().done.saturating_sub(before);
                    spent = spent.saturating_add(done.max(PIECE_BYTES));
                    if spent >= budget_bytes && !self.is_cancelled() {
                        return Ok((CDP_OK, Duration::ZERO));
                    }
                }
            }
        }
        Ok((CDP_END, Duration::ZERO))
    }
}

impl Running {
    /// Whether everything is done.
    pub fn is_done(&self) -> bool {
        self.ended == CDP_JOB_DONE
    }

    fn progress(&mut self, wait: Duration) -> cdp_job_progress {
        let Progress { done, total } = self.work.progress();
        let left = u128::from(total.saturating_sub(done)) * self.worked.as_nanos();
        let left_ns = match (self.ended, done, total) {
            (1.., ..) => Some(0),
            (_, 0, _) | (.., 0) => None,
            _ => u64::try_from(left / u128::from(done)).ok(),
        };
        cdp_job_progress {
            struct_size: 0,
            flags: self.ended,
            bytes_done: done,
            bytes_total: total,
            wait_ns: u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX),
            left_ns: left_ns.unwrap_or(u64::MAX),
        }
    }
}

/// Steps work of the core to its end in this call; returns whether it came to the end, or false when the watch ended it.
pub(crate) fn run(job: &mut dyn Job, watch: &Watch) -> Outcome<bool> {
    while !watch.is_ended() {
        match job.step()? {
            JobStep::Done => {
                watch.tell(job.progress());
                return Ok(true);
            }
            JobStep::Wait(time) => std::thread::sleep(time.min(SLEEP_MAX)),
            JobStep::More => watch.tell(job.progress()),
        }
    }
    Ok(false)
}

/// Begins a job on what a handle stands for. What the caller lends for it is taken over before.
pub(crate) fn start<K: Kind>(
    caller: Caller,
    of: *const K,
    job_out: *mut *mut cdp_job,
    begin: impl FnOnce(&Held<K::Object>) -> Outcome<Work>,
) -> Outcome {
    let out = caller.out_handle("job_out", job_out)?;
    let held = get(of)?;
    out.put(job(begin(&held)?, held.family())?);
    Ok(())
}

/// Asks the work of a job for something. `None`: it is of another kind than is wanted.
pub(crate) fn ask<T>(
    job: *const cdp_job,
    wanted: &str,
    question: impl FnOnce(&mut Running) -> Option<T>,
) -> Outcome<(T, Arc<Family>)> {
    let held = get(job)?;
    let answer = question(&mut *held.lock()?);
    let other_kind = || Failure::argument(format!("this job is no {wanted}"));
    Ok((answer.ok_or_else(other_kind)?, held.family().clone()))
}

/// The same, stored in a struct of the caller.
pub(crate) fn report<R: Sized32>(
    caller: Caller,
    job: *const cdp_job,
    report_out: *mut R,
    wanted: &str,
    question: impl FnOnce(&mut Running) -> Option<R>,
) -> Outcome {
    get(job)?;
    let out = caller.sized_out(report_out)?;
    out.put(&ask(job, wanted, question)?.0);
    Ok(())
}

/// Does about budget_bytes more of the work (0: one piece, of about 1 MiB or one structure of the store), in this thread and in no other. CDP_OK: there is
/// more, after progress_out->wait_ns; CDP_END: everything is done, or the job was cancelled, and a further step does nothing. A step never sleeps. One that
/// fails ends the job, and what was done stays: begin another one, which goes on there; only a restore may be stepped again. progress_out may be NULL.
/// [one thread at a time, CDP_ERR_BUSY for others; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_step(
    job: *mut cdp_job,
    budget_bytes: u64,
    progress_out: *mut cdp_job_progress,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(job)?;
        let out = caller.sized_out_optional(progress_out)?;
        let mut running = held.lock()?;
        let began = Instant::now();
        let outcome = held.step(&mut running, budget_bytes.max(1));
        running.worked += began.elapsed();
        let (status, wait) = match outcome {
            Ok(stepped) => stepped,
            Err(failure) => {
                running.failed = !matches!(running.work, Work::Restore(_));
                return Err(failure);
            }
        };
        if let Some(out) = out {
            out.put(&running.progress(wait));
        }
        Ok(status)
    })
}

/// How far the job is, without doing anything. [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_progress_get(
    job: *const cdp_job,
    progress_out: *mut cdp_job_progress,
) -> cdp_status {
    guard(|caller| {
        let held = get(job)?;
        let out = caller.sized_out(progress_out)?;
        out.put(&held.lock()?.progress(Duration::ZERO));
        Ok(())
    })
}

/// Holds a check or a scrub to so many bytes of the store a second from now on; 0, as each begins: no bound. What it has to wait is progress_out->wait_ns of a step. What a scrub
/// has mended is read once more without the bound. CDP_ERR_INVALID_ARGUMENT for a job of another kind: those have their bound in their options, where they have one.
/// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_limit_rate(job: *mut cdp_job, bytes_per_second_max: u64) -> cdp_status {
    guard(|_| {
        let rate = Some(bytes_per_second_max).filter(|rate| *rate != 0);
        ask(job, "check and no scrub", |running| {
            match &mut running.work {
                Work::Check(job) => job.limit_rate(rate),
                Work::Scrub(job) => job.limit_rate(rate),
                _ => return None,
            }
            Some(())
        })
        .map(|_| ())
    })
}

/// Says that the job is to end: a step that is under way ends behind the piece that it is at, and it, or the next one, returns CDP_END with
/// CDP_JOB_CANCELLED. What was done until then stays and is made durable, and its result can be asked for.
/// [any thread, also while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_cancel(job: *mut cdp_job) -> cdp_status {
    guard(|_| {
        get(job)?.cancelled.store(true, Ordering::SeqCst);
        Ok(())
    })
}

/// Gives up the job and sets the variable to NULL, which it may be already. Before CDP_END it cancels it, at any moment; a step that is under way on
/// another thread ends behind the piece that it is at. The store is consistent, and what was done stays. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_close(job: *mut *mut cdp_job) -> cdp_status {
    guard(|caller| {
        if let Some(held) = caller.close(job)? {
            held.cancelled.store(true, Ordering::SeqCst);
        }
        Ok(())
    })
}
