//! What jobs there are: how each begins, and what it has done.

use crate::{
    arguments::check_flags,
    guard::{guard, guard_status},
    handle::{get, put, remove},
    job::{Work, cdp_job, held, job, other_kind},
    restore::cdp_restore,
    resync::{
        CDP_CHECK_DEEP, cdp_resync_options, cdp_resync_report, cdp_verify_report, options_of, text_cut,
        verify_options,
    },
    retention::cdp_retention_report,
    snapshot::{ExtentRow, cdp_extent_iter},
    source::{cdp_source, host_source},
    status::{CDP_END, CDP_OK, cdp_status},
    store::cdp_store,
    tap::cdp_tap,
    types::cdp_extent,
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
        let out = caller.out_handle("job_out", job_out);
        let source = host_source(caller, source)?;
        let out = out?;
        let held = get(store)?;
        let options = options_of(caller, options)?;
        let volume = caller.text_optional("volume", volume)?;
        let work = held.store.resync_job(volume, source, &options)?;
        out.put(job(Work::Resync(work), held.family())?);
        Ok(())
    })
}

/// As cdp_tap_resync, as a job, whose result is cdp_job_resync_report. Closed early, it leaves what is left to the tap.
/// [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_resync_start(
    tap: *mut cdp_tap,
    options: *const cdp_resync_options,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("job_out", job_out)?;
        let held = get(tap)?;
        let options = options_of(caller, options)?;
        let work = held.tap.resync_job(&options)?;
        out.put(job(Work::TapResync(work), held.family())?);
        Ok(())
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
        let held = held(job)?;
        let out = caller.sized_out(report_out)?;
        let report = match &held.lock()?.work {
            Work::Resync(job) => job.report(),
            Work::TapResync(job) => job.report(),
            _ => return Err(other_kind("resync")),
        };
        out.put(&(&report).into());
        Ok(())
    })
}

/// As cdp_verify, as a job, whose result is cdp_job_verify_report and cdp_job_verify_extents. Closed or cancelled before everything was compared it repairs
/// nothing. [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_verify_start(
    store: *mut cdp_store,
    volume: *const c_char,
    source: *const cdp_source,
    flags: u32,
    bytes_per_second_max: u64,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("job_out", job_out);
        let source = host_source(caller, source)?;
        let out = out?;
        let held = get(store)?;
        let options = verify_options(flags, bytes_per_second_max)?;
        let volume = caller.text_optional("volume", volume)?;
        let work = held.store.verify_job(volume, source, &options)?;
        out.put(job(Work::Verify(Box::new(work)), held.family())?);
        Ok(())
    })
}

/// What a verification has found so far. Before everything was compared, what is different is so at first sight.
/// CDP_ERR_INVALID_ARGUMENT for a job of another kind. [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_verify_report(
    job: *const cdp_job,
    report_out: *mut cdp_verify_report,
) -> cdp_status {
    guard(|caller| {
        let held = held(job)?;
        let out = caller.sized_out(report_out)?;
        let Work::Verify(job) = &held.lock()?.work else { return Err(other_kind("verification")) };
        out.put(&(&job.report()).into());
        Ok(())
    })
}

/// Lists the ranges that a verification has found to differ so far: ascending, merged. Close the list with cdp_extent_iter_close.
/// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_verify_extents(
    job: *const cdp_job,
    iter_out: *mut *mut cdp_extent_iter,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("iter_out", iter_out)?;
        let held = held(job)?;
        let found = match &held.lock()?.work {
            Work::Verify(job) => job.report().extents,
            _ => return Err(other_kind("verification")),
        };
        let extents = found.iter().map(|range| cdp_extent { offset: range.offset, len: range.bytes });
        out.put(put(ExtentRow::listed(extents.collect()), Some(held.family()))?);
        Ok(())
    })
}

/// As cdp_store_check, as a job that counts bytes of structures, whose result is cdp_job_damage_at. What the store lets go of meanwhile is no damage.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_check_start(
    store: *const cdp_store,
    flags: u32,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("job_out", job_out)?;
        let held = get(store)?;
        check_flags(flags, CDP_CHECK_DEEP)?;
        let work = held.store.check_job(flags & CDP_CHECK_DEEP != 0)?;
        out.put(job(Work::Check(work), held.family())?);
        Ok(())
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
        let held = held(job)?;
        let text = caller.bytes_mut("buf", buf.cast::<c_void>(), len)?;
        let running = held.lock()?;
        let damaged = match &running.work {
            Work::Check(job) => &job.report().damaged,
            Work::Scrub(job) => &job.report().left,
            _ => return Err(other_kind("check and no scrub")),
        };
        let Some(damage) = damaged.get(index) else { return Ok(CDP_END) };
        text_cut(text, &damage.to_string());
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
        let out = caller.out_handle("job_out", job_out)?;
        let held = get(store)?;
        let work = held.store.retention_job(held.time_or_now(now_ns))?;
        out.put(job(Work::Retention(work), held.family())?);
        Ok(())
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
        let held = held(job)?;
        let out = caller.sized_out(report_out)?;
        let report = match &held.lock()?.work {
            Work::Retention(job) => job.report(),
            _ => return Err(other_kind("run of retention")),
        };
        let Some(report) = report else { return Ok(CDP_END) };
        out.put(&(&report).into());
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
