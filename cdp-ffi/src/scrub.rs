//! Scrub: every byte of the store is checked, and payload that rotted is written anew where a source still has it.

use crate::{
    arguments::{Caller, sized},
    failure::{Failure, Outcome},
    guard::{guard, guard_status},
    handle::{Held, get},
    job::{Work, ask, cdp_job, start},
    mirror::cdp_mirror,
    resync::{Watch, cdp_watch},
    source::{cdp_source, host_source},
    status::{CDP_END, CDP_OK, cdp_status},
    store::{StoreObject, cdp_store},
};
use cdp_core::{ScrubJob, ScrubReport, SourceReader};
use std::{ffi::c_char, mem::size_of, sync::Arc};

/// Most sources of a scrub.
const SOURCES_MAX: usize = cdp_core::limits::VOLUMES_MAX;

/// What still has the content of a volume: a source of the host, or a mirror set. One of the two is given and the other is NULL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_scrub_source {
    /// The volume that it is the content of; NULL: the first one.
    pub volume: *const c_char,
    /// A source of the host; the struct is copied. It is only read, and may be written meanwhile.
    pub source: *const cdp_source,
    /// A mirror set: whatever copy holds a range is read. It stays the caller's, and in use until the scrub has ended.
    pub mirror: *mut cdp_mirror,
}

/// It came to its end.
pub const CDP_SCRUB_COMPLETE: u32 = 1 << 0;

/// What a scrub has found and done.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_scrub_report {
    /// sizeof(cdp_scrub_report).
    pub struct_size: u32,
    /// CDP_SCRUB_COMPLETE.
    pub flags: u32,
    /// Places that were damaged when it began.
    pub damage_found: u64,
    /// Places that are damaged now.
    pub damage_left: u64,
    /// Versions of blocks that were written anew.
    pub versions_repaired: u64,
    /// Bytes of them.
    pub bytes_repaired: u64,
    /// Versions of blocks that are damaged and whose content no source has.
    pub versions_lost: u64,
    /// Frames of the tail that were cut off when the store was opened.
    pub tail_frames: u64,
    /// Bytes of the tail that were cut off.
    pub tail_bytes: u64,
}
sized!(cdp_scrub_report, 64);

fn report_of(report: &ScrubReport, complete: bool) -> cdp_scrub_report {
    cdp_scrub_report {
        struct_size: 0,
        flags: if complete { CDP_SCRUB_COMPLETE } else { 0 },
        damage_found: report.found.len() as u64,
        damage_left: report.left.len() as u64,
        versions_repaired: report.versions_repaired,
        bytes_repaired: report.bytes_repaired,
        versions_lost: report.versions_lost,
        tail_frames: report.tail_frames,
        tail_bytes: report.tail_bytes,
    }
}

type Reader = Arc<dyn SourceReader>;

fn reader_of(caller: Caller, given: &cdp_scrub_source) -> Outcome<Reader> {
    match (given.source.is_null(), given.mirror.is_null()) {
        (false, true) => Ok(host_source(caller, given.source)?),
        (true, false) => {
            let set = Arc::clone(&*get(given.mirror)?);
            Ok(set)
        }
        (true, true) => Err(Failure::argument("cdp_scrub_source: give a source or a mirror set")),
        (false, false) => {
            // What the source uses is handed back all the same.
            host_source(caller, given.source)?;
            Err(Failure::argument("cdp_scrub_source: give a source or a mirror set, and not both"))
        }
    }
}

/// All sources, each taken over before anything else is looked at.
fn readers(
    caller: Caller,
    sources: *const cdp_scrub_source,
    count: usize,
) -> Outcome<Vec<(Option<String>, Reader)>> {
    if count > SOURCES_MAX {
        return Err(Failure::argument(format!("{count} sources of a scrub: at most {SOURCES_MAX}")));
    }
    let given = caller.items("sources", sources, count)?;
    let taken: Vec<Outcome<Reader>> = given.iter().map(|one| reader_of(caller, one)).collect();
    let named = given.iter().zip(taken).map(|(one, reader)| {
        let reader = reader?;
        Ok((caller.text_optional("volume", one.volume)?.map(str::to_owned), reader))
    });
    named.collect()
}

fn begin(held: &Held<StoreObject>, readers: Vec<(Option<String>, Reader)>) -> Outcome<ScrubJob> {
    let named = readers.into_iter().map(|(name, reader)| {
        let name = match name {
            Some(name) => name,
            None => held.store.volume(None)?.name().to_owned(),
        };
        Ok((name, reader))
    });
    let named = named.collect::<Outcome<Vec<(String, Reader)>>>()?;
    let by_name: Vec<(&str, Reader)> =
        named.iter().map(|(name, reader)| (name.as_str(), reader.clone())).collect();
    Ok(held.store.scrub_job(&by_name)?)
}

/// Verifies every structure and every payload of the store, and writes payload that is damaged anew where one of the sources still has it: what is written has
/// the digest of what was there, and every point that needs it is exact again. What no source has stays damaged, and reads of it say so. Without sources
/// (NULL with 0) this is a deep cdp_store_check. Structures are not repaired. Damage is no failure: it is in the report. watch may be NULL, and is told bytes
/// of the store; ended early by it before the check is done, nothing is repaired. What the sources lend is handed back by the end of the call.
/// [any thread; waits for the storage and the sources]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_scrub(
    store: *mut cdp_store,
    sources: *const cdp_scrub_source,
    sources_count: usize,
    watch: *const cdp_watch,
    report_out: *mut cdp_scrub_report,
) -> cdp_status {
    guard(|caller| {
        let readers = readers(caller, sources, sources_count)?;
        let held = get(store)?;
        let out = caller.sized_out(report_out)?;
        let watch = Watch::of(caller, watch)?;
        let mut job = begin(&held, readers)?;
        let complete = crate::job::run(&mut job, &watch)?;
        out.put(&report_of(job.report(), complete));
        Ok(())
    })
}

/// As cdp_store_scrub, as a job, whose result is cdp_job_scrub_report and cdp_job_damage_at. cdp_job_limit_rate bounds its speed. What the sources lend
/// is handed back when the job is closed.
/// [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_scrub_start(
    store: *mut cdp_store,
    sources: *const cdp_scrub_source,
    sources_count: usize,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        let readers = readers(caller, sources, sources_count);
        start(caller, store, job_out, |held| Ok(Work::Scrub(begin(held, readers?)?)))
    })
}

/// What a scrub has found and done so far; CDP_END before its check is done, when nothing is known yet. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
/// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_scrub_report(
    job: *const cdp_job,
    report_out: *mut cdp_scrub_report,
) -> cdp_status {
    guard_status(|caller| {
        get(job)?;
        let out = caller.sized_out(report_out)?;
        let (found, _) = ask(job, "scrub", |running| match &running.work {
            Work::Scrub(job) => Some(job.is_checked().then(|| report_of(job.report(), running.is_done()))),
            _ => None,
        })?;
        let Some(found) = found else { return Ok(CDP_END) };
        out.put(&found);
        Ok(CDP_OK)
    })
}
