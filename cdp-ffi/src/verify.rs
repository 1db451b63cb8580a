//! Verification: a volume compared with its source byte by byte, at once or as a job, which can be taken up again after a crash.

use crate::{
    arguments::{Caller, check_flags, check_reserved, sized},
    failure::{Failure, Outcome},
    guard::{guard, guard_status},
    handle::{Held, get},
    job::{Work, ask, cdp_job, report, run, start},
    resync::{Watch, cdp_watch},
    snapshot::{ExtentRow, cdp_extent_iter},
    source::{cdp_source, host_source},
    status::{CDP_END, CDP_OK, cdp_status},
    store::{StoreObject, cdp_store},
    types::cdp_extent,
};
use cdp_core::{SourceReader, VerifyCursor, VerifyJob, VerifyOptions, VerifyReport};
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
    sync::Arc,
};

/// The store takes over what differs or cannot be read.
pub const CDP_VERIFY_REPAIR: u32 = 1 << 0;
/// Keyed 64-bit digests are compared instead of bytes, where the source has cdp_source.digests: each side reads its own bytes, and digests cross the link, and what is mended.
pub const CDP_VERIFY_DIGESTS: u32 = 1 << 1;

/// Most bytes of a cursor.
pub const CDP_VERIFY_CURSOR_BYTES_MAX: usize = 8 << 20;

/// How a verification goes. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_verify_options {
    /// sizeof(cdp_verify_options).
    pub struct_size: u32,
    /// CDP_VERIFY_REPAIR, CDP_VERIFY_DIGESTS.
    pub flags: u32,
    /// Threads that read the source ahead, until the call or the job has ended. 0: none is started.
    pub readers: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes of the source that are compared in a second at most. 0: no bound.
    pub bytes_per_second_max: u64,
    /// Where an earlier verification of the same volume had come to, as cdp_job_verify_cursor gave it: what that has compared is not compared again. Borrowed for
    /// the call. NULL: from the beginning.
    pub cursor: *const c_void,
    /// Its length, bytes.
    pub cursor_len: usize,
}
sized!(cdp_verify_options, 40);

/// It was compared to the end.
pub const CDP_VERIFY_COMPLETE: u32 = 1 << 0;
/// There were differences, and the store was made equal to the source everywhere.
pub const CDP_VERIFY_REPAIRED: u32 = 1 << 1;

/// What a verification has found.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_verify_report {
    /// sizeof(cdp_verify_report).
    pub struct_size: u32,
    /// CDP_VERIFY_COMPLETE, CDP_VERIFY_REPAIRED.
    pub flags: u32,
    /// Bytes that this one compared, those in holes of the source included.
    pub bytes_compared: u64,
    /// Bytes that differ, in whole blocks but for the last.
    pub bytes_different: u64,
    /// What of them the store could not read.
    pub bytes_damaged: u64,
    /// Bytes that changed all the time: nothing is known of them.
    pub bytes_unsettled: u64,
    /// How many ranges of differences there are; it may be more than were stored.
    pub extents_count: u64,
    /// Bytes read from the source; what was compared by digests is not among them.
    pub source_bytes_read: u64,
    /// Bytes of payload read from the store.
    pub store_bytes_read: u64,
    /// Bytes of digests that a source across a link has answered, 8 each.
    pub digest_bytes: u64,
    /// Regions of it, and parts of regions, whose digests were equal when they were first looked at.
    pub regions_equal: u64,
    /// Those whose digests differed then.
    pub regions_different: u64,
}
sized!(cdp_verify_report, 64);

impl From<&VerifyReport> for cdp_verify_report {
    fn from(found: &VerifyReport) -> Self {
        let complete = if found.complete { CDP_VERIFY_COMPLETE } else { 0 };
        let repaired = if found.repaired { CDP_VERIFY_REPAIRED } else { 0 };
        Self {
            struct_size: 0,
            flags: complete | repaired,
            bytes_compared: found.bytes_compared,
            bytes_different: found.bytes_different,
            bytes_damaged: found.bytes_damaged,
            bytes_unsettled: found.bytes_unsettled,
            extents_count: found.extents.len() as u64,
            source_bytes_read: found.source_bytes_read,
            store_bytes_read: found.store_bytes_read,
            digest_bytes: found.digests.digest_bytes,
            regions_equal: found.digests.regions_equal,
            regions_different: found.digests.regions_different,
        }
    }
}

fn options_of(
    caller: Caller,
    options: *const cdp_verify_options,
) -> Outcome<(VerifyOptions, Option<VerifyCursor>)> {
    let given = caller.options_or_default(options)?;
    check_flags(given.flags, CDP_VERIFY_REPAIR | CDP_VERIFY_DIGESTS)?;
    check_reserved(given.reserved)?;
    let options = VerifyOptions {
        repair: given.flags & CDP_VERIFY_REPAIR != 0,
        readers: given.readers as usize,
        bytes_per_second_max: Some(given.bytes_per_second_max).filter(|rate| *rate != 0),
        digests: given.flags & CDP_VERIFY_DIGESTS != 0,
    };
    if given.cursor.is_null() && given.cursor_len == 0 {
        return Ok((options, None));
    }
    if given.cursor_len > CDP_VERIFY_CURSOR_BYTES_MAX {
        return Err(Failure::argument(format!("a cursor has at most {CDP_VERIFY_CURSOR_BYTES_MAX} bytes")));
    }
    let bytes = caller.bytes("cursor", given.cursor, given.cursor_len)?;
    let text = str::from_utf8(bytes).map_err(|_| Failure::argument("this is no cursor of a verification"))?;
    Ok((options, Some(VerifyCursor::from_text(text)?)))
}

/// A verification as a job.
pub(crate) struct Verification {
    pub job: VerifyJob,
    /// Where it stood when it was cancelled.
    at_cancel: Option<VerifyCursor>,
}

impl Verification {
    /// Ends it where it stands.
    pub fn end(&mut self) -> Outcome {
        self.at_cancel = self.job.cursor();
        self.job.end()?;
        Ok(())
    }
}

fn begin(
    caller: Caller,
    held: &Held<StoreObject>,
    volume: *const c_char,
    source: Arc<dyn SourceReader>,
    options: *const cdp_verify_options,
) -> Outcome<VerifyJob> {
    let (options, cursor) = options_of(caller, options)?;
    let mut work = held.store.verify_job(caller.text_optional("volume", volume)?, source, &options)?;
    cursor.map_or(Ok(()), |cursor| work.resume(cursor))?;
    Ok(work)
}

/// Compares the newest state of a volume (NULL: the first one) with a source byte by byte, or with CDP_VERIFY_DIGESTS by digests, while writes to both may go on through a tap. The source
/// is never written. Differences and damage are no failures: they are in the report. The first extents_count of the ranges that differ are
/// stored in extents_out, which may be NULL with 0. options and watch may be NULL; ended early by the watch, nothing is repaired.
/// CDP_ERR_INVALID_ARGUMENT for a cursor of another store or volume. [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_verify(
    store: *mut cdp_store,
    volume: *const c_char,
    source: *const cdp_source,
    options: *const cdp_verify_options,
    watch: *const cdp_watch,
    extents_out: *mut cdp_extent,
    extents_count: usize,
    report_out: *mut cdp_verify_report,
) -> cdp_status {
    guard(|caller| {
        let source = host_source(caller, source)?;
        let held = get(store)?;
        let out = caller.sized_out(report_out)?;
        let extents = caller.items_out("extents_out", extents_out, extents_count)?;
        let watch = Watch::of(caller, watch)?;
        let mut work = begin(caller, &held, volume, source, options)?;
        run(&mut work, &watch)?;
        let found = work.end()?;
        for (index, range) in found.extents.iter().enumerate().take(extents.len()) {
            extents.put(index, cdp_extent { offset: range.offset, len: range.bytes });
        }
        out.put(&(&found).into());
        Ok(())
    })
}

/// As cdp_verify, as a job, whose result is cdp_job_verify_report and cdp_job_verify_extents, and whose place cdp_job_verify_cursor tells. Closed or cancelled
/// before everything was compared it repairs nothing. [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_verify_start(
    store: *mut cdp_store,
    volume: *const c_char,
    source: *const cdp_source,
    options: *const cdp_verify_options,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        let source = host_source(caller, source);
        start(caller, store, job_out, |held| {
            let job = begin(caller, held, volume, source?, options)?;
            Ok(Work::Verify(Box::new(Verification { job, at_cancel: None })))
        })
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
        report(caller, job, report_out, "verification", |running| match &running.work {
            Work::Verify(verification) => Some((&verification.job.report()).into()),
            _ => None,
        })
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
        let (found, family) = ask(job, "verification", |running| match &running.work {
            Work::Verify(verification) => Some(verification.job.report().extents),
            _ => None,
        })?;
        out.put(ExtentRow::handle(&found, &family)?);
        Ok(())
    })
}

/// Where a verification has come to, as bytes for the host to keep where a crash leaves them whole: cdp_verify_options.cursor of a later one goes on there, also in
/// another process. Ask now and then, between steps, and once more before a job that is not done is closed, also after it was cancelled. len_out is the size that is needed, at most
/// CDP_VERIFY_CURSOR_BYTES_MAX, also with CDP_ERR_BUFFER_TOO_SMALL, when the buffer is untouched; buf may be NULL with len 0. CDP_END, and everything untouched, when
/// there is none: everything was compared, the job has failed or repairs what differs, or more than 65536 ranges differ, and what was kept before stays good.
/// CDP_ERR_INVALID_ARGUMENT for a job of another kind. [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_verify_cursor(
    job: *const cdp_job,
    buf: *mut c_void,
    len: usize,
    len_out: *mut usize,
) -> cdp_status {
    guard_status(|caller| {
        let (cursor, _) = ask(job, "verification", |running| match &running.work {
            Work::Verify(one) => Some(one.job.cursor().or_else(|| one.at_cancel.clone())),
            _ => None,
        })?;
        caller.out("len_out", len_out)?;
        let Some(cursor) = cursor else { return Ok(CDP_END) };
        caller.fill(cursor.to_text().as_bytes(), buf, len, len_out)?;
        Ok(CDP_OK)
    })
}
