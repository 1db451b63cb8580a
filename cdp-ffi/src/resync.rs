//! Resync with a source, and the check of a store: long calls that tell how far they are and can be ended early.

use crate::{
    arguments::{Caller, check_flags, sized},
    callback::without_ends,
    failure::{Failure, Outcome},
    guard::guard,
    handle::get,
    source::{cdp_source, host_source},
    status::cdp_status,
    store::cdp_store,
    tap::cdp_tap,
};
use cdp_core::{Progress, ResyncMode, ResyncOptions, ResyncReport, units::TimeNs};
use std::{
    cell::Cell,
    ffi::{c_char, c_void},
    mem::size_of,
    time::Duration,
};

/// Told how far a long call is. The function is called from the thread of the call, may call the library, and ends the call early by a
/// value other than 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_watch {
    /// sizeof(cdp_watch).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Passed to the function; borrowed for the call.
    pub userdata: *mut c_void,
    /// Required.
    pub progress: Option<unsafe extern "C" fn(userdata: *mut c_void, done: u64, total: u64) -> i32>,
}
sized!(cdp_watch, 24);

/// The watch of a call.
pub(crate) struct Watch {
    function: Option<unsafe extern "C" fn(*mut c_void, u64, u64) -> i32>,
    userdata: *mut c_void,
    ended: Cell<bool>,
}

impl Watch {
    pub fn of(caller: Caller, watch: *const cdp_watch) -> Outcome<Self> {
        let given = caller.options_or_default(watch)?;
        check_flags(given.flags, 0)?;
        if !watch.is_null() && given.progress.is_none() {
            return Err(Failure::argument("cdp_watch.progress is NULL"));
        }
        Ok(Self { function: given.progress, userdata: given.userdata, ended: Cell::new(false) })
    }

    pub fn tell(&self, progress: Progress) {
        if let Some(function) = self.function.filter(|_| !self.ended.get()) {
            // SAFETY: a function of the host with its own userdata, which lives as long as the call.
            let answered = without_ends(|| unsafe { function(self.userdata, progress.done, progress.total) });
            self.ended.set(answered != 0);
        }
    }

    pub fn is_ended(&self) -> bool {
        self.ended.get()
    }
}

/// The source, and the digests in the index of the store.
pub const CDP_RESYNC_DIGEST: u32 = 0;
/// Every byte of both sides.
pub const CDP_RESYNC_FULL: u32 = 1;
/// What the recorded map of differences names.
pub const CDP_RESYNC_MAP: u32 = 2;
/// Nothing, as long as source and volume are as they were when they were last known to be equal.
pub const CDP_RESYNC_QUICK: u32 = 3;

/// The caller vouches that the source was not changed since the last run.
pub const CDP_RESYNC_SOURCE_UNCHANGED: u32 = 1 << 0;

/// How a resync goes. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_resync_options {
    /// sizeof(cdp_resync_options).
    pub struct_size: u32,
    /// CDP_RESYNC_SOURCE_UNCHANGED.
    pub flags: u32,
    /// What it looks at: CDP_RESYNC_DIGEST, _FULL, _MAP or _QUICK.
    pub mode: u32,
    /// Threads that read the source ahead, for the time of the call or of the job, that of a tap too. 0: none is started.
    pub readers: u32,
    /// Bytes of the source that are compared in a second at most. 0: no bound.
    pub bytes_per_second_max: u64,
    /// When it happens, nanoseconds, for a host that dates its writes by another clock than that of the store. 0: now. Not for a tap.
    pub time_ns: u64,
    /// Most work that a crash makes a later run repeat, nanoseconds of time. 0: a second. Not for a tap.
    pub checkpoint_ns: u64,
}
sized!(cdp_resync_options, 24);

/// The run went on where another had ended.
pub const CDP_RESYNC_RESUMED: u32 = 1 << 0;
/// It looked at more than was asked for, because what was asked for was not possible.
pub const CDP_RESYNC_FELL_BACK: u32 = 1 << 1;

/// What a resync has done.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_resync_report {
    /// sizeof(cdp_resync_report).
    pub struct_size: u32,
    /// CDP_RESYNC_RESUMED, CDP_RESYNC_FELL_BACK.
    pub flags: u32,
    /// What it has looked at: CDP_RESYNC_DIGEST, _FULL, _MAP or _QUICK.
    pub mode: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes that are still to be compared: 0 unless it was ended early.
    pub bytes_left: u64,
    /// Bytes compared, those in holes of the source included.
    pub bytes_compared: u64,
    /// Bytes that differed and were taken over, in whole blocks.
    pub bytes_different: u64,
    /// What of them was data and not zeroes.
    pub bytes_transferred: u64,
    /// Bytes read from the source; where that lies across a link and answers digests, what came over as bytes of blocks.
    pub source_bytes_read: u64,
    /// Bytes of payload read from the store.
    pub store_bytes_read: u64,
    /// Bytes of digests that a source across a link has answered, 8 each.
    pub digest_bytes: u64,
    /// Regions of it, and parts of regions, whose digests were equal.
    pub regions_equal: u64,
    /// Those whose digests differed.
    pub regions_different: u64,
    /// What of bytes_different the store could not read.
    pub bytes_damaged: u64,
    /// Times that it had to begin again with what was under way: the source failed, or the store had no room.
    pub setbacks: u64,
}
sized!(cdp_resync_report, 64);

fn mode_of(code: u32) -> Outcome<ResyncMode> {
    match code {
        CDP_RESYNC_DIGEST => Ok(ResyncMode::Digest),
        CDP_RESYNC_FULL => Ok(ResyncMode::Full),
        CDP_RESYNC_MAP => Ok(ResyncMode::Map),
        CDP_RESYNC_QUICK => Ok(ResyncMode::Quick),
        other => Err(Failure::argument(format!("{other} is not a mode of resync"))),
    }
}

pub(crate) fn options_of(caller: Caller, options: *const cdp_resync_options) -> Outcome<ResyncOptions> {
    let given = caller.options_or_default(options)?;
    check_flags(given.flags, CDP_RESYNC_SOURCE_UNCHANGED)?;
    Ok(ResyncOptions {
        mode: mode_of(given.mode)?,
        readers: given.readers as usize,
        bytes_per_second_max: Some(given.bytes_per_second_max).filter(|rate| *rate != 0),
        source_is_unchanged: given.flags & CDP_RESYNC_SOURCE_UNCHANGED != 0,
        time: Some(given.time_ns).filter(|time| *time != 0).map(TimeNs::new),
        checkpoint_every: match given.checkpoint_ns {
            0 => ResyncOptions::default().checkpoint_every,
            pause => Duration::from_nanos(pause),
        },
    })
}

impl From<&ResyncReport> for cdp_resync_report {
    fn from(report: &ResyncReport) -> Self {
        let resumed = if report.resumed { CDP_RESYNC_RESUMED } else { 0 };
        let fell_back = if report.fallback.is_some() { CDP_RESYNC_FELL_BACK } else { 0 };
        Self {
            struct_size: 0,
            flags: resumed | fell_back,
            mode: match report.mode {
                ResyncMode::Digest => CDP_RESYNC_DIGEST,
                ResyncMode::Full => CDP_RESYNC_FULL,
                ResyncMode::Map => CDP_RESYNC_MAP,
                ResyncMode::Quick => CDP_RESYNC_QUICK,
            },
            reserved: 0,
            bytes_left: report.bytes_left,
            bytes_compared: report.counts.bytes_compared,
            bytes_different: report.counts.bytes_different,
            bytes_transferred: report.counts.bytes_transferred,
            source_bytes_read: report.counts.source_bytes_read,
            store_bytes_read: report.counts.store_bytes_read,
            digest_bytes: report.counts.digests.digest_bytes,
            regions_equal: report.counts.digests.regions_equal,
            regions_different: report.counts.digests.regions_different,
            bytes_damaged: report.counts.bytes_damaged,
            setbacks: report.counts.setbacks,
        }
    }
}

/// Makes the newest state of a volume (NULL: the first one) equal to a source that nobody captures from and nobody changes meanwhile. What differs
/// is appended; points before stay. Durable when this returns. options, watch and report_out may be NULL. Ended early by the watch it
/// succeeds with bytes_left, and a later call goes on there; so it does after a failure. [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_resync(
    store: *mut cdp_store,
    volume: *const c_char,
    source: *const cdp_source,
    options: *const cdp_resync_options,
    watch: *const cdp_watch,
    report_out: *mut cdp_resync_report,
) -> cdp_status {
    guard(|caller| {
        let source = host_source(caller, source)?;
        let held = get(store)?;
        let out = caller.sized_out_optional(report_out)?;
        let options = options_of(caller, options)?;
        let watch = Watch::of(caller, watch)?;
        let volume = caller.text_optional("volume", volume)?;
        let mut tell = |progress| watch.tell(progress);
        let report = held.store.resync_from(volume, source, &options, &mut tell, &|| watch.is_ended())?;
        if let Some(out) = out {
            out.put(&(&report).into());
        }
        Ok(())
    })
}

/// As cdp_resync for a volume with a tap, whose own source is read, while writes go on. The thread does the work of the runner meanwhile.
/// [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_resync(
    tap: *mut cdp_tap,
    options: *const cdp_resync_options,
    watch: *const cdp_watch,
    report_out: *mut cdp_resync_report,
) -> cdp_status {
    guard(|caller| {
        let held = get(tap)?;
        let out = caller.sized_out_optional(report_out)?;
        let options = options_of(caller, options)?;
        let watch = Watch::of(caller, watch)?;
        let mut tell = |progress| watch.tell(progress);
        let report = held.tap.resync(&options, &mut tell, &|| watch.is_ended())?;
        if let Some(out) = out {
            out.put(&(&report).into());
        }
        Ok(())
    })
}

/// Text for people into a buffer of the caller, with its NUL; what does not fit is cut at a character.
pub(crate) fn text_cut(to: &mut [u8], text: &str) {
    let Some(room) = to.len().checked_sub(1) else { return };
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    to[..end].copy_from_slice(&text.as_bytes()[..end]);
    to[end] = 0;
}

/// Every payload is read too.
pub const CDP_CHECK_DEEP: u32 = 1 << 0;

/// Verifies every structure of the store. Damage is no failure: damage_count_out is the number of places, and the first of them is described in
/// buf, a text for people of at most len bytes with its NUL, which may be NULL with 0. The watch is told structures, not bytes, cannot end the
/// check, and may be NULL. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_check(
    store: *const cdp_store,
    flags: u32,
    watch: *const cdp_watch,
    damage_count_out: *mut u64,
    buf: *mut c_char,
    len: usize,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        check_flags(flags, CDP_CHECK_DEEP)?;
        let out = caller.out("damage_count_out", damage_count_out)?;
        let text = caller.bytes_mut("buf", buf.cast::<c_void>(), len)?;
        let watch = Watch::of(caller, watch)?;
        let report = held.store.check(flags & CDP_CHECK_DEEP != 0, &mut |progress| watch.tell(progress))?;
        let first = report.damaged.first().map(ToString::to_string).unwrap_or_default();
        text_cut(text, &first);
        out.put(report.damaged.len() as u64);
        Ok(())
    })
}
