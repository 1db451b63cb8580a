//! Taps: capture beside a production disk.

use crate::{
    arguments::{check_flags, check_reserved, sized},
    callback::check_outside,
    failure::{Failure, Outcome},
    guard::guard,
    handle::{get, kind, put},
    snapshot::{ExtentRow, cdp_extent_iter},
    source::{cdp_source, host_source},
    status::cdp_status,
    store::cdp_store,
    types::{cdp_extent, cdp_iovec, cdp_uuid},
};
use cdp_core::{
    ActivityLog, Captured, GapReason, SourceState, Tap, TapOptions, capture::Mode, dirty_map::ByteRange,
    format::Uuid, units::TimeNs,
};
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
};

/// A tap on a volume.
pub struct cdp_tap {
    _private: [u8; 0],
}
kind!(cdp_tap, 5, "tap", TapObject);

/// A tap, and the clock that dates what comes without a time.
pub struct TapObject {
    /// The tap.
    pub tap: Tap,
    /// Its store.
    pub store: std::sync::Arc<crate::handle::Member<crate::store::StoreObject>>,
}

/// Nothing is known beyond what the store recorded: the source was not changed since the last tap ended, or since the store went down. Where it has a
/// stamp that says otherwise, everything is compared.
pub const CDP_SOURCE_AS_RECORDED: u32 = 0;
/// The source and the newest state of the volume are equal, for instance both are new. Not believed after an unclean end.
pub const CDP_SOURCE_EQUAL: u32 = 1;
/// Besides what the store recorded, the ranges given may differ and nothing else.
pub const CDP_SOURCE_DIFFERS: u32 = 2;
/// Anything may differ: the source was changed while no tap watched it.
pub const CDP_SOURCE_UNKNOWN: u32 = 3;

/// Every write is begun with cdp_tap_begin, and an unclean end costs a comparison of what was being written and not of the whole source.
pub const CDP_TAP_ACTIVITY_LOG: u32 = 1 << 0;

/// How a tap is set up. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_tap_options {
    /// sizeof(cdp_tap_options).
    pub struct_size: u32,
    /// CDP_TAP_*.
    pub flags: u32,
    /// What is known of the source, CDP_SOURCE_*.
    pub source_state: u32,
    /// Frames of 1 MiB of the pool, which all taps of a store share; the first tap decides. 0: 64.
    pub pool_frames: u32,
    /// Bytes that a bit of the dirty map stands for, a power of two from 4 KiB to 1 MiB. 0: by the size of the volume.
    pub granularity: u64,
    /// For CDP_SOURCE_DIFFERS: ranges that may differ, in any order. Borrowed for the call.
    pub ranges: *const cdp_extent,
    /// How many.
    pub ranges_count: usize,
    /// With an activity log: most regions that are active at a time. 0: 944.
    pub log_regions_max: u32,
    /// 0.
    pub reserved: u32,
    /// With an activity log: bytes of a region. 0: 4 MiB.
    pub log_region_bytes: u64,
}
sized!(cdp_tap_options, 56);

/// The write was captured whole and becomes a write of the timeline.
pub const CDP_CAPTURED_WHOLE: u32 = 1;
/// The blocks of the write were marked; they are copied from the source later, and the timeline has a gap until then.
pub const CDP_CAPTURED_MARKED: u32 = 2;

/// The host says so, for instance because a write failed.
pub const CDP_GAP_HOST: u32 = 6;
/// Writes overlapped in flight, so their order on the source is unknown.
pub const CDP_GAP_OVERLAP: u32 = 5;

/// Writes are captured whole.
pub const CDP_TAP_MODE_DATA: u32 = 0;
/// Writes only mark their blocks; what differs is copied from the source meanwhile.
pub const CDP_TAP_MODE_BITMAP: u32 = 1;
/// Writes are captured whole while the last dirty blocks are copied.
pub const CDP_TAP_MODE_RESYNC: u32 = 2;

/// Figures of a tap.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_tap_stats {
    /// sizeof(cdp_tap_stats).
    pub struct_size: u32,
    /// How writes are taken now, CDP_TAP_MODE_*.
    pub mode: u32,
    /// The volume is captured whole and no gap is open or about to be: 1, else 0.
    pub is_whole: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes that are known to differ from the source.
    pub dirty_bytes: u64,
    /// Writes captured whole.
    pub whole: u64,
    /// Writes that only marked.
    pub marked: u64,
    /// Gaps opened.
    pub gaps: u64,
    /// Captured bytes that wait in the pool, of all taps of the store.
    pub pool_bytes: u64,
    /// Frames of 1 MiB of the pool.
    pub pool_frames: u64,
    /// How many of them are free.
    pub pool_frames_free: u64,
    /// Bytes captured and not durable yet, of all volumes of the store.
    pub lag_bytes: u64,
    /// Age of the oldest such write, nanoseconds.
    pub lag_ns: u64,
    /// Bytes that resync has compared.
    pub resync_bytes_compared: u64,
    /// Bytes of data that it has taken over.
    pub resync_bytes_transferred: u64,
    /// How long a resync that is under way takes at the speed that it had so far, nanoseconds. UINT64_MAX: none is, or nothing is known yet.
    pub resync_left_ns: u64,
}
sized!(cdp_tap_stats, 104);

fn ranges_of(items: &[cdp_extent]) -> Vec<ByteRange> {
    items.iter().map(|extent| ByteRange::new(extent.offset, extent.len)).collect()
}

fn reason_of(code: u32) -> Outcome<GapReason> {
    let known = u8::try_from(code).ok().and_then(GapReason::from_code);
    let allowed = known.filter(|reason| matches!(reason, GapReason::Host | GapReason::Overlap));
    allowed.ok_or_else(|| {
        Failure::argument(format!("{code} is not a reason of a host: CDP_GAP_HOST or _OVERLAP"))
    })
}

/// Begins to capture a volume (NULL: the first one) beside its source. Durable when this returns: an unclean end from now on until the tap ends
/// is known to have left the store behind the source. While the two differ a gap is open on the timeline, which resync closes: that is work of
/// the runner or of cdp_store_step. source is copied; options may be NULL. CDP_ERR_EXISTS when the volume has a tap.
/// On failure nothing is captured. [any thread; waits for the storage, and for the source with an activity log]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_open(
    store: *mut cdp_store,
    volume: *const c_char,
    source: *const cdp_source,
    options: *const cdp_tap_options,
    tap_out: *mut *mut cdp_tap,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("tap_out", tap_out);
        let source = host_source(caller, source)?;
        let out = out?;
        let held = get(store)?;
        let given = caller.options_or_default(options)?;
        check_flags(given.flags, CDP_TAP_ACTIVITY_LOG)?;
        check_reserved(given.reserved)?;
        let ranges = caller.items("ranges", given.ranges, given.ranges_count)?;
        let state = match given.source_state {
            CDP_SOURCE_DIFFERS => SourceState::Differs(ranges_of(ranges)),
            _ if !ranges.is_empty() => return Err(Failure::argument("ranges are for CDP_SOURCE_DIFFERS")),
            CDP_SOURCE_AS_RECORDED => SourceState::AsRecorded,
            CDP_SOURCE_EQUAL => SourceState::Equal,
            CDP_SOURCE_UNKNOWN => SourceState::Unknown,
            other => return Err(Failure::argument(format!("{other} is not a state of a source"))),
        };
        let mut tap = TapOptions { source: state, ..TapOptions::default() };
        if given.pool_frames != 0 {
            tap.pool_frames = given.pool_frames as usize;
        }
        tap.granularity = Some(given.granularity).filter(|bytes| *bytes != 0);
        if given.flags & CDP_TAP_ACTIVITY_LOG != 0 {
            let mut log = ActivityLog::default();
            if given.log_regions_max != 0 {
                log.regions_active_max = given.log_regions_max as usize;
            }
            if given.log_region_bytes != 0 {
                log.region_bytes = given.log_region_bytes;
            }
            tap.activity_log = Some(log);
        } else if given.log_regions_max != 0 || given.log_region_bytes != 0 {
            return Err(Failure::argument(
                "log_regions_max and log_region_bytes are for CDP_TAP_ACTIVITY_LOG",
            ));
        }
        let volume = match caller.text_optional("volume", volume)? {
            Some(name) => name.to_owned(),
            None => held.store.volume(None)?.name().to_owned(),
        };
        let tap = held.store.tap(&volume, source, tap)?;
        out.put(put(TapObject { tap, store: held.object() }, Some(held.family()))?);
        Ok(())
    })
}

/// Ends the tap: what was captured becomes durable, and what differs from the source is recorded. The caller has stopped writing to the source,
/// and the source has made its writes durable. On failure it may be called again. [any thread; CDP_ERR_BUSY from a callback; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_detach(tap: *mut cdp_tap) -> cdp_status {
    guard(|_| {
        check_outside()?;
        Ok(get(tap)?.tap.clone().detach()?)
    })
}

/// Ends the tap as cdp_tap_detach does, gives up the handle and sets the variable to NULL, which it may be already. The handle is gone whatever
/// the status; a tap whose end failed is ended by cdp_store_close. [any thread; CDP_ERR_BUSY from a callback, and nothing is closed; waits for
/// the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_close(tap: *mut *mut cdp_tap) -> cdp_status {
    guard(|caller| {
        check_outside()?;
        let Some(held) = caller.close(tap)? else { return Ok(()) };
        if held.tap.is_attached() {
            held.tap.clone().detach()?;
        }
        Ok(())
    })
}

pub(crate) fn outcome_code(captured: Captured) -> u32 {
    match captured {
        Captured::Whole => CDP_CAPTURED_WHOLE,
        Captured::Marked => CDP_CAPTURED_MARKED,
    }
}

impl TapObject {
    pub(crate) fn time(&self, time_ns: u64) -> TimeNs {
        self.store.time_or_now(time_ns)
    }
}

/// Takes one write of 512 bytes to 16 MiB that has completed on the source: call it before the write is acknowledged to the application. The
/// order of calls is the order of writes. offset and len are multiples of 512; time_ns 0 is now. outcome_out, which may be NULL, is
/// CDP_CAPTURED_*. It never waits, allocates or calls the storage, and it cannot fail on the store's account; when it fails the call was wrong
/// and nothing was captured. The buffer is borrowed for the call. [any thread, several at once; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_capture(
    tap: *mut cdp_tap,
    offset: u64,
    buf: *const c_void,
    len: usize,
    time_ns: u64,
    outcome_out: *mut u32,
) -> cdp_status {
    guard(|caller| {
        let held = get(tap)?;
        let out = caller.out_optional("outcome_out", outcome_out)?;
        let data = caller.bytes("buf", buf, len)?;
        let captured = match time_ns {
            0 => held.tap.capture(offset, data)?,
            time => held.tap.capture_at(offset, data, TimeNs::new(time))?,
        };
        out.put(outcome_code(captured));
        Ok(())
    })
}

/// As cdp_tap_capture, from at most 1024 buffers, which together are one write. It allocates.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_capturev(
    tap: *mut cdp_tap,
    offset: u64,
    iov: *const cdp_iovec,
    iov_count: usize,
    time_ns: u64,
    outcome_out: *mut u32,
) -> cdp_status {
    guard(|caller| {
        let held = get(tap)?;
        let out = caller.out_optional("outcome_out", outcome_out)?;
        let parts = caller.parts(iov, iov_count)?;
        out.put(outcome_code(held.tap.capture_vectored(offset, &parts, held.time(time_ns))?));
        Ok(())
    })
}

/// As cdp_tap_capture, for zeroes that were written over a range of any length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_capture_zeroes(
    tap: *mut cdp_tap,
    offset: u64,
    len: u64,
    time_ns: u64,
    outcome_out: *mut u32,
) -> cdp_status {
    guard(|caller| {
        let held = get(tap)?;
        let out = caller.out_optional("outcome_out", outcome_out)?;
        out.put(outcome_code(held.tap.write_zeroes(offset, len, held.time(time_ns))?));
        Ok(())
    })
}

/// As cdp_tap_capture, for a discard of a range of any length that reads as zeroes from then on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_capture_discard(
    tap: *mut cdp_tap,
    offset: u64,
    len: u64,
    time_ns: u64,
    outcome_out: *mut u32,
) -> cdp_status {
    guard(|caller| {
        let held = get(tap)?;
        let out = caller.out_optional("outcome_out", outcome_out)?;
        out.put(outcome_code(held.tap.discard(offset, len, held.time(time_ns))?));
        Ok(())
    })
}

/// Says that a range of the source may have changed without being captured, for instance by a write that failed; reason is CDP_GAP_HOST or
/// CDP_GAP_OVERLAP. It is copied from the source later, and the timeline has a gap until then. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_mark(tap: *mut cdp_tap, offset: u64, len: u64, reason: u32) -> cdp_status {
    guard(|_| Ok(get(tap)?.tap.mark(offset, len, reason_of(reason)?)?))
}

/// As cdp_tap_mark for many ranges of any alignment: what the host's own tracking of changed blocks says. With an activity log it is durable when
/// this returns, and waits for the storage. On failure of the storage all is marked and may not be durable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_mark_extents(
    tap: *mut cdp_tap,
    extents: *const cdp_extent,
    count: usize,
    reason: u32,
) -> cdp_status {
    guard(|caller| {
        let ranges = ranges_of(caller.items("extents", extents, count)?);
        Ok(get(tap)?.tap.mark_extents(&ranges, reason_of(reason)?)?)
    })
}

/// Stops capturing whole: writes only mark until cdp_tap_resume. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_suspend(tap: *mut cdp_tap) -> cdp_status {
    guard(|_| {
        get(tap)?.tap.suspend();
        Ok(())
    })
}

/// Lets resync bring a suspended tap back. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_resume(tap: *mut cdp_tap) -> cdp_status {
    guard(|_| {
        get(tap)?.tap.resume();
        Ok(())
    })
}

/// Figures of the tap. [any thread; waits for a piece of resync that is under way]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_stats_get(tap: *const cdp_tap, stats_out: *mut cdp_tap_stats) -> cdp_status {
    guard(|caller| {
        let held = get(tap)?;
        let out = caller.sized_out(stats_out)?;
        let stats = held.tap.stats();
        let mode = match stats.mode {
            Mode::Data => CDP_TAP_MODE_DATA,
            Mode::Bitmap => CDP_TAP_MODE_BITMAP,
            Mode::Resync => CDP_TAP_MODE_RESYNC,
        };
        out.put(&cdp_tap_stats {
            struct_size: 0,
            mode,
            is_whole: u32::from(held.tap.is_whole()),
            reserved: 0,
            dirty_bytes: stats.dirty_bytes,
            whole: stats.whole,
            marked: stats.marked,
            gaps: stats.gaps,
            pool_bytes: stats.pool_bytes,
            pool_frames: stats.pool.frames,
            pool_frames_free: stats.pool.frames_free,
            lag_bytes: stats.lag.bytes,
            lag_ns: stats.lag.age_ns,
            resync_bytes_compared: stats.resync.bytes_compared,
            resync_bytes_transferred: stats.resync.bytes_transferred,
            resync_left_ns: stats
                .resync_left
                .map_or(u64::MAX, |left| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)),
        });
        Ok(())
    })
}

/// What is known to differ from the source at this moment: ascending, merged. Close it with cdp_extent_iter_close.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_dirty_extents(
    tap: *const cdp_tap,
    iter_out: *mut *mut cdp_extent_iter,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("iter_out", iter_out)?;
        let held = get(tap)?;
        out.put(ExtentRow::handle(&held.tap.dirty_extents(), held.family())?);
        Ok(())
    })
}

fn uuid_of(uuid: cdp_uuid) -> Uuid {
    Uuid(uuid.bytes)
}

/// The dirty map as bytes for a peer, under a device and a generation that the caller names. len_out is the size that is needed, also with
/// CDP_ERR_BUFFER_TOO_SMALL, when the content of the buffer is undefined; buf may be NULL with len 0. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_dirty_map_get(
    tap: *const cdp_tap,
    device: cdp_uuid,
    generation: u64,
    buf: *mut c_void,
    len: usize,
    len_out: *mut usize,
) -> cdp_status {
    guard(|caller| caller.fill(&get(tap)?.tap.dirty_map(uuid_of(device), generation), buf, len, len_out))
}

/// Marks what a dirty map in the form of cdp_tap_dirty_map_get says may differ. CDP_ERR_MAP_REFUSED when the bytes are no map, or one of another
/// device, generation or size: nothing was marked then, and everything must be taken for dirty. [any thread; waits for the storage with
/// an activity log]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_mark_map(
    tap: *mut cdp_tap,
    buf: *const c_void,
    len: usize,
    device: cdp_uuid,
    generation: u64,
    reason: u32,
) -> cdp_status {
    guard(|caller| {
        let bytes = caller.bytes("buf", buf, len)?;
        Ok(get(tap)?.tap.mark_map(bytes, uuid_of(device), generation, reason_of(reason)?)?)
    })
}
