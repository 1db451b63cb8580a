//! Long work that its caller steps: a piece at a time, in the caller's own thread, at the caller's pace.
//!
//! A job is made by a call that begins it (such as [`Store::resync_job`](crate::Store::resync_job)), stepped until it says that it is done, and may be dropped
//! at any moment: what was done stays, and the store is consistent. It starts no thread, and a step never sleeps: where it has to wait, for a bound on its speed or
//! for something to come to rest, it says for how long, and the caller decides what to do meanwhile. The blocking calls of the same names are
//! these jobs, stepped to their end.
//!
//! Invariant *one failure*: a step that fails ends its job; what may be tried again is a new job, which goes on where the work stands.

use crate::{error::Result, restore::Progress};
use std::time::Duration;

/// Longest sleep of [`run`] in one go, so that a cancellation is seen.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// What a step of a job did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStep {
    /// A piece was done, and there is more to do at once.
    More,
    /// Nothing can be done for so long.
    Wait(Duration),
    /// Everything is done; a further step does nothing and says so again.
    Done,
}

/// Long work that its caller steps.
pub trait Job: Send {
    /// Does one piece, of about 1 MiB or one structure of the store.
    ///
    /// # Errors
    /// Those of the work. The job has ended then, and what was done stays.
    fn step(&mut self) -> Result<JobStep>;

    /// How far it is, bytes. The total may change while it runs; 0: it is not known.
    fn progress(&self) -> Progress;
}

/// Steps a job to its end, sleeping where it waits. Returns whether it came to the end: false when `cancelled` said so first.
///
/// # Errors
/// Those of the job, which has ended then.
pub fn run(
    job: &mut dyn Job,
    progress: &mut dyn FnMut(Progress),
    cancelled: &dyn Fn() -> bool,
) -> Result<bool> {
    loop {
        if cancelled() {
            return Ok(false);
        }
        if !run_step(job, progress)? {
            return Ok(true);
        }
    }
}

/// One step, with its sleep where it waits. Returns whether there is more to do.
pub(crate) fn run_step(job: &mut dyn Job, progress: &mut dyn FnMut(Progress)) -> Result<bool> {
    let step = job.step()?;
    match step {
        JobStep::Wait(time) => std::thread::sleep(time.min(SLEEP_MAX)),
        JobStep::More | JobStep::Done => progress(job.progress()),
    }
    Ok(step != JobStep::Done)
}
