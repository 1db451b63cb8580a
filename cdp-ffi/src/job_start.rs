//! What jobs there are: how each begins, and what it has done.

use crate::{
    arguments::check_flags,
    guard::{guard, guard_status},
    handle::{get, remove},
    job::{Work, ask, cdp_job, job, report, start},
    restore::cdp_restore,
    resync::{CDP_CHECK_DEEP, cdp_resync_options, cdp_resync_report, options_of, text_cut},
    retention::cdp_retention_report,
    source::{cdp_source, host_source},
    status::{CDP_END, CDP_OK, cdp_status},
    store::cdp_store,
    tap::cdp_tap,
};
use std::ffi::{c_char, c_void};

/// As cdp_resync, as a job, whose result is cdp_job_resync_report. From this call until the job has ended the volume takes no inline writes and no tap.
/// Threads of options.readers live as long as the job. [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_resync_start(
    store: *mut cdp_store,
    volume: *const c_char,
    source: *const cdp_source,
    options: *const cdp_resync_options,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        let source = host_source(caller, source);
        start(caller, store, job_out, |held| {
            let (source, options) = (source?, options_of(caller, options)?);
            let volume = caller.text_optional("volume", volume)?;
            Ok(Work::Resync(held.store.resync_job(volume, source, &options)?))
        })
    })
}

/// As cdp_tap_resync, as a job, whose result is cdp_job_resync_report. Closed early, it leaves what is left to the tap. Threads of options.readers live as long as the job.
/// [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_resync_start(
    tap: *mut cdp_tap,
    options: *const cdp_resync_options,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        start(caller, tap, job_out, |held| {
            Ok(Work::TapResync(held.tap.resync_job(&options_of(caller, options)?)?))
        })
    })
}

/// What a resync has done so far. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
/// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_resync_report(
    job: *const cdp_job,
    report_out: *mut cdp_resync_report,
) -> cdp_status {
    guard(|caller| {
        report(caller, job, report_out, "resync", |running| match &running.work {
            Work::Resync(job) => Some((&job.report()).into()),
            Work::TapResync(job) => Some((&job.report()).into()),
            _ => None,
        })
    })
}

/// As cdp_store_check, as a job that counts bytes of structures, whose result is cdp_job_damage_at. What the store lets go of meanwhile is no damage. cdp_job_limit_rate bounds its
/// speed.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_check_start(
    store: *const cdp_store,
    flags: u32,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        start(caller, store, job_out, |held| {
            check_flags(flags, CDP_CHECK_DEEP)?;
            Ok(Work::Check(held.store.check_job(flags & CDP_CHECK_DEEP != 0)?))
        })
    })
}

/// Describes the damage at a place, counted from 0, that a check has found so far, or that a scrub has left: a text for people of at most len bytes with its
/// NUL, which may be NULL with 0. CDP_END past the last. Places are in their final order when the job is done.
/// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_damage_at(
    job: *const cdp_job,
    index: usize,
    buf: *mut c_char,
    len: usize,
) -> cdp_status {
    guard_status(|caller| {
        get(job)?;
        let text = caller.bytes_mut("buf", buf.cast::<c_void>(), len)?;
        let (found, _) = ask(job, "check and no scrub", |running| {
            let damaged = match &running.work {
                Work::Check(job) => &job.report().damaged,
                Work::Scrub(job) => &job.report().left,
                _ => return None,
            };
            Some(damaged.get(index).map(ToString::to_string))
        })?;
        let Some(damage) = found else { return Ok(CDP_END) };
        text_cut(text, &damage);
        Ok(CDP_OK)
    })
}

/// As cdp_retention_run, as a job, whose result is cdp_job_retention_report. Its first step makes the plan durable; between steps nothing is held, and what is
/// not done is done by a later run. Its bytes are those that are freed, and how many there will be is not known.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_start(
    store: *mut cdp_store,
    now_ns: u64,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        start(caller, store, job_out, |held| {
            Ok(Work::Retention(held.store.retention_job(held.time_or_now(now_ns))?))
        })
    })
}

/// What a run of retention does; CDP_END before its first step, when it has not been planned yet. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
/// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_retention_report(
    job: *const cdp_job,
    report_out: *mut cdp_retention_report,
) -> cdp_status {
    guard_status(|caller| {
        get(job)?;
        let out = caller.sized_out(report_out)?;
        let (planned, _) = ask(job, "run of retention", |running| match &running.work {
            Work::Retention(job) => Some(job.report()),
            _ => None,
        })?;
        let Some(planned) = planned else { return Ok(CDP_END) };
        out.put(&(&planned).into());
        Ok(CDP_OK)
    })
}

/// Turns a restore into a job, for hosts that step all long work alike; it goes on where it stands. The restore's handle is taken over and its variable set to
/// NULL; on failure it stays as it is. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_restore_into_job(
    restore: *mut *mut cdp_restore,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("job_out", job_out)?;
        let variable = caller.variable(restore)?;
        let held = get(variable.cast_const())?;
        out.put(job(Work::Restore(held.object()), held.family())?);
        remove(variable.cast_const())?;
        caller.out("restore", restore)?.put(std::ptr::null_mut());
        Ok(())
    })
}
