//! Offline seeding: a volume at a point as a portable set of files, and such a set taken over elsewhere.

use crate::{
    arguments::{Caller, check_flags, sized, text_into},
    failure::{Failure, Outcome},
    guard::guard,
    handle::{get, kind, put},
    job::{Work, cdp_job, report, start},
    resync::{Watch, cdp_watch},
    status::{CDP_ERR_EXISTS, cdp_status},
    storage::{How, cdp_storage, directory},
    store::cdp_store,
    types::{cdp_point, cdp_uuid},
    volume::cdp_volume,
};
use cdp_core::{
    ExportOptions, Exported, ImportSeedOptions, ImportedSeed, SeedSet, SeqTime,
    io::Storage,
    seed::SeedState,
    units::{Seq, TimeNs},
};
use std::{ffi::c_char, mem::size_of, ops::ControlFlow, sync::Arc};

/// A seed set that is open for reading.
pub struct cdp_seed {
    _private: [u8; 0],
}
kind!(cdp_seed, 20, "seed set", Arc<SeedSet>);

/// Only what was written after since_seq is exported.
pub const CDP_EXPORT_SINCE: u32 = 1 << 0;
/// Data is stored as it is, and not packed where that gains.
pub const CDP_EXPORT_PLAIN: u32 = 1 << 1;

/// How a volume is exported. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_export_options {
    /// sizeof(cdp_export_options).
    pub struct_size: u32,
    /// CDP_EXPORT_SINCE, CDP_EXPORT_PLAIN.
    pub flags: u32,
    /// With CDP_EXPORT_SINCE: the state that the set goes on from; else 0.
    pub since_seq: u64,
    /// Most bytes of a data file, 4 MiB to 512 GiB. 0: 256 MiB.
    pub file_bytes_max: u64,
}
sized!(cdp_export_options, 24);

/// Everything is there; without it a later export of the same states to the same place goes on.
pub const CDP_EXPORT_COMPLETE: u32 = 1 << 0;
/// Some of the data files, or all, were there from an earlier run.
pub const CDP_EXPORT_RESUMED: u32 = 1 << 1;

/// What an export has written, earlier runs included.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_export_report {
    /// sizeof(cdp_export_report).
    pub struct_size: u32,
    /// CDP_EXPORT_COMPLETE, CDP_EXPORT_RESUMED.
    pub flags: u32,
    /// Identity of the set.
    pub set: cdp_uuid,
    /// Bytes of data read from the store by this run.
    pub data_bytes: u64,
    /// Data files that are whole.
    pub files: u64,
    /// Bytes of them.
    pub stored_bytes: u64,
}
sized!(cdp_export_report, 48);

impl From<&Exported> for cdp_export_report {
    fn from(done: &Exported) -> Self {
        let complete = if done.complete { CDP_EXPORT_COMPLETE } else { 0 };
        let resumed = if done.resumed { CDP_EXPORT_RESUMED } else { 0 };
        Self {
            struct_size: 0,
            flags: complete | resumed,
            set: done.about.set.into(),
            data_bytes: done.data_bytes,
            files: done.files as u64,
            stored_bytes: done.stored_bytes,
        }
    }
}

fn export_options(caller: Caller, options: *const cdp_export_options) -> Outcome<ExportOptions> {
    let given = caller.options_or_default(options)?;
    check_flags(given.flags, CDP_EXPORT_SINCE | CDP_EXPORT_PLAIN)?;
    let since = given.flags & CDP_EXPORT_SINCE != 0;
    if !since && given.since_seq != 0 {
        return Err(Failure::argument("since_seq is for CDP_EXPORT_SINCE"));
    }
    let usual = ExportOptions::default();
    Ok(ExportOptions {
        since: since.then(|| Seq::new(given.since_seq)),
        file_bytes_max: if given.file_bytes_max == 0 { usual.file_bytes_max } else { given.file_bytes_max },
        compress: given.flags & CDP_EXPORT_PLAIN == 0,
    })
}

/// The place of a set: a path or a storage.
fn place(
    caller: Caller,
    path: *const c_char,
    storage: *mut cdp_storage,
    open: impl FnOnce(&str) -> Outcome<Arc<dyn Storage>>,
) -> Outcome<Arc<dyn Storage>> {
    match (caller.text_optional("path", path)?, storage.is_null()) {
        (Some(path), true) => open(path),
        (None, false) => Ok(Arc::clone(&*get(storage)?)),
        _ => Err(Failure::argument("give a path or a storage, and not both")),
    }
}

/// A directory that is new or empty, or that holds what an earlier run has written.
fn directory_to_fill(path: &str) -> Outcome<Arc<dyn Storage>> {
    match directory(path, How::Create, 0) {
        Err(failure) if failure.status == CDP_ERR_EXISTS => {
            let storage = directory(path, How::Open, 0)?;
            let held = storage.list().map_err(|error| Failure::io(path, &error))?;
            if held.is_empty() {
                return Err(Failure::new(CDP_ERR_EXISTS, format!("{path} is not empty, and holds no set")));
            }
            Ok(storage)
        }
        made => made,
    }
}

/// Writes the volume as it was at a seq as a seed set: its data without zeroes, or what was written since another state. It goes to a directory that is new
/// or empty, or to a storage of its own with path NULL; or to where an earlier run for the same states was ended, which then goes on behind its last whole
/// data file. The set is whole and durable with CDP_EXPORT_COMPLETE. The store may be open for reading only. options and watch may be NULL; ended early by the
/// watch it succeeds without CDP_EXPORT_COMPLETE. CDP_ERR_POINT_EXPIRED for a state that cannot be opened; CDP_ERR_EXISTS when something else is there,
/// CDP_ERR_BUSY while another export writes there. [any thread; waits for the storage of both]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_export(
    volume: *const cdp_volume,
    seq: u64,
    path: *const c_char,
    storage: *mut cdp_storage,
    options: *const cdp_export_options,
    watch: *const cdp_watch,
    report_out: *mut cdp_export_report,
) -> cdp_status {
    guard(|caller| {
        let held = get(volume)?;
        let out = caller.sized_out(report_out)?;
        let options = export_options(caller, options)?;
        let watch = Watch::of(caller, watch)?;
        let to = place(caller, path, storage, directory_to_fill)?;
        let mut job = held.export_job(Seq::new(seq), to, &options)?;
        crate::job::run(&mut job, &watch)?;
        out.put(&(&job.exported()).into());
        Ok(())
    })
}

/// As cdp_volume_export, as a job, whose result is cdp_job_export_report. [any thread; waits for the storage of both]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_export_start(
    volume: *const cdp_volume,
    seq: u64,
    path: *const c_char,
    storage: *mut cdp_storage,
    options: *const cdp_export_options,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        start(caller, volume, job_out, |held| {
            let options = export_options(caller, options)?;
            let to = place(caller, path, storage, directory_to_fill)?;
            Ok(Work::Export(held.export_job(Seq::new(seq), to, &options)?))
        })
    })
}

/// What an export has written so far. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
/// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_export_report(
    job: *const cdp_job,
    report_out: *mut cdp_export_report,
) -> cdp_status {
    guard(|caller| {
        report(caller, job, report_out, "export", |running| match &running.work {
            Work::Export(job) => Some((&job.exported()).into()),
            _ => None,
        })
    })
}

/// Opens a set that is complete, in a directory or with path NULL in a storage, for reading. CDP_ERR_NOT_FOUND when there is none, or its
/// export was not finished; CDP_ERR_CORRUPT when what describes it is damaged. Close it with cdp_seed_close. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_seed_open(
    path: *const c_char,
    storage: *mut cdp_storage,
    seed_out: *mut *mut cdp_seed,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("seed_out", seed_out)?;
        let from = place(caller, path, storage, |path| directory(path, How::ReadOnly, 0))?;
        out.put(put(Arc::new(SeedSet::open(from)?), None)?);
        Ok(())
    })
}

/// The set goes on from an older state, and is taken over only by a volume in that state.
pub const CDP_SEED_SINCE: u32 = 1 << 0;

/// What a set holds.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_seed_info {
    /// sizeof(cdp_seed_info).
    pub struct_size: u32,
    /// CDP_SEED_SINCE.
    pub flags: u32,
    /// Identity of the set.
    pub set: cdp_uuid,
    /// Identity of the store that it comes from.
    pub store: cdp_uuid,
    /// The state that it leads to, as the store that it comes from counts.
    pub at: cdp_point,
    /// Size of the volume then, bytes.
    pub bytes: u64,
    /// With CDP_SEED_SINCE: the state that it goes on from; else zero.
    pub since: cdp_point,
    /// Size of the volume then, bytes.
    pub since_bytes: u64,
    /// Bytes of its data files.
    pub stored_bytes: u64,
    /// Name of the volume, NUL-terminated.
    pub volume: [c_char; 136],
}
sized!(cdp_seed_info, 232);

fn point_of(state: &SeedState) -> cdp_point {
    SeqTime { seq: state.seq, time: state.time }.into()
}

/// What the set holds. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_seed_info_get(
    seed: *const cdp_seed,
    info_out: *mut cdp_seed_info,
) -> cdp_status {
    guard(|caller| {
        let held = get(seed)?;
        let out = caller.sized_out(info_out)?;
        let about = held.about();
        out.put(&cdp_seed_info {
            struct_size: 0,
            flags: if about.since.is_some() { CDP_SEED_SINCE } else { 0 },
            set: about.set.into(),
            store: about.store.into(),
            at: point_of(&about.at),
            bytes: about.at.bytes,
            since: about.since.as_ref().map_or_else(cdp_point::default, point_of),
            since_bytes: about.since.map_or(0, |since| since.bytes),
            stored_bytes: held.stored_bytes(),
            volume: text_into(&about.name),
        });
        Ok(())
    })
}

/// Reads every byte of the set and compares it with its digests: CDP_ERR_CORRUPT for the first that is not what was written. watch may be NULL; ended early
/// by it the call succeeds, and only what was read until then is known to be right. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_seed_verify(seed: *const cdp_seed, watch: *const cdp_watch) -> cdp_status {
    guard(|caller| {
        let held = get(seed)?;
        let watch = Watch::of(caller, watch)?;
        Ok(held.verify(&mut |progress| {
            watch.tell(progress);
            if watch.is_ended() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?)
    })
}

/// Gives up the set and sets the variable to NULL, which it may be already; an import of it goes on. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_seed_close(seed: *mut *mut cdp_seed) -> cdp_status {
    guard(|caller| caller.close(seed).map(|_| ()))
}

/// How a set is taken over. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_import_options {
    /// sizeof(cdp_import_options).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Bytes of the volume that are compared in a second at most. 0: no bound.
    pub bytes_per_second_max: u64,
    /// When it happens, for a host that dates its writes itself. 0: now.
    pub time_ns: u64,
}
sized!(cdp_import_options, 24);

/// It went on where another run had ended, or the volume was in that state already.
pub const CDP_IMPORT_RESUMED: u32 = 1 << 0;

/// What an import of a set has done.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_import_report {
    /// sizeof(cdp_import_report).
    pub struct_size: u32,
    /// CDP_IMPORT_RESUMED.
    pub flags: u32,
    /// Bytes that are still to be taken over: 0 unless it was ended early.
    pub bytes_left: u64,
    /// Bytes compared.
    pub bytes_compared: u64,
    /// Bytes that differed and were taken over, in whole blocks.
    pub bytes_different: u64,
    /// What of them was data and not zeroes.
    pub bytes_transferred: u64,
    /// The volume, NUL-terminated.
    pub volume: [c_char; 136],
}
sized!(cdp_import_report, 176);

impl From<&ImportedSeed> for cdp_import_report {
    fn from(done: &ImportedSeed) -> Self {
        Self {
            struct_size: 0,
            flags: if done.resumed { CDP_IMPORT_RESUMED } else { 0 },
            bytes_left: done.bytes_left,
            bytes_compared: done.counts.bytes_compared,
            bytes_different: done.counts.bytes_different,
            bytes_transferred: done.counts.bytes_transferred,
            volume: text_into(&done.volume),
        }
    }
}

fn import_options(caller: Caller, options: *const cdp_import_options) -> Outcome<ImportSeedOptions> {
    let given = caller.options_or_default(options)?;
    check_flags(given.flags, 0)?;
    Ok(ImportSeedOptions {
        bytes_per_second_max: Some(given.bytes_per_second_max).filter(|rate| *rate != 0),
        time: Some(given.time_ns).filter(|time| *time != 0).map(TimeNs::new),
        ..ImportSeedOptions::default()
    })
}

/// Makes a volume equal to the state that the set leads to. volume is its name here; NULL: the name in the set. A whole set becomes a new volume, or one of the
/// same size that holds nothing but zeroes; one with CDP_SEED_SINCE is taken by a volume that an import has brought to just that state and that was not written
/// since. A gap is open until everything is there; durable when this returns. options, watch and report_out may be NULL; ended early by the watch it succeeds
/// with bytes_left, and a later call for the same set goes on there. CDP_ERR_SEED_REFUSED when the set does not fit, and nothing was changed;
/// CDP_ERR_CORRUPT when bytes of the set are not what was written: what came before stays. [any thread; waits for the storage of both]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_seed_import(
    store: *mut cdp_store,
    seed: *const cdp_seed,
    volume: *const c_char,
    options: *const cdp_import_options,
    watch: *const cdp_watch,
    report_out: *mut cdp_import_report,
) -> cdp_status {
    guard(|caller| {
        let (held, set) = (get(store)?, get(seed)?);
        let out = caller.sized_out_optional(report_out)?;
        let options = import_options(caller, options)?;
        let watch = Watch::of(caller, watch)?;
        let volume = caller.text_optional("volume", volume)?;
        let mut tell = |progress| watch.tell(progress);
        let done = held.store.import_seed(&set, volume, &options, &mut tell, &|| watch.is_ended())?;
        if let Some(out) = out {
            out.put(&(&done).into());
        }
        Ok(())
    })
}

/// As cdp_seed_import, as a job, whose result is cdp_job_import_report. The set may be closed meanwhile. From this call until the job has ended the volume takes
/// no inline writes and no tap. [any thread; waits for the storage of both]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_seed_import_start(
    store: *mut cdp_store,
    seed: *const cdp_seed,
    volume: *const c_char,
    options: *const cdp_import_options,
    job_out: *mut *mut cdp_job,
) -> cdp_status {
    guard(|caller| {
        start(caller, store, job_out, |held| {
            let (set, options) = (get(seed)?, import_options(caller, options)?);
            let volume = caller.text_optional("volume", volume)?;
            Ok(Work::Import(held.store.import_seed_job(&set, volume, &options)?))
        })
    })
}

/// What an import of a set has done so far. CDP_ERR_INVALID_ARGUMENT for a job of another kind.
/// [one thread at a time, CDP_ERR_BUSY while another one steps; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_job_import_report(
    job: *const cdp_job,
    report_out: *mut cdp_import_report,
) -> cdp_status {
    guard(|caller| {
        report(caller, job, report_out, "import", |running| match &running.work {
            Work::Import(job) => Some((&job.imported()).into()),
            _ => None,
        })
    })
}
