//! The timeline: everything that can be recovered, as it stands at one moment.

use crate::{
    arguments::{sized, text_into},
    guard::{guard, guard_status},
    handle::{get, kind, put},
    status::{CDP_END, CDP_OK, cdp_status},
    store::cdp_store,
    types::cdp_point,
};
use cdp_core::{Timeline, store::Granularity};
use std::{ffi::c_char, mem::size_of};

/// Everything that can be recovered, as it stood when it was opened.
pub struct cdp_timeline {
    _private: [u8; 0],
}
kind!(cdp_timeline, 8, "timeline", Timeline);

/// Ends of the timeline.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_timeline_info {
    /// sizeof(cdp_timeline_info).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// The oldest point.
    pub oldest: cdp_point,
    /// The newest point.
    pub newest: cdp_point,
    /// Up to here it is known that nothing else was written.
    pub covered_to_ns: u64,
    /// Ranges in which every state can be opened.
    pub exact_ranges: u64,
    /// Ranges that are not exact.
    pub gaps: u64,
    /// Single points that stay where others were thinned away.
    pub retained: u64,
}
sized!(cdp_timeline_info, 72);

/// Every write of the range is a point.
pub const CDP_RANGE_WRITES: u32 = 0;
/// The last state of each interval of interval_ns is a point.
pub const CDP_RANGE_INTERVALS: u32 = 1;
/// The state at each flush and bookmark is a point.
pub const CDP_RANGE_BARRIERS: u32 = 2;

/// A range of the timeline of one volume, both ends included.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_range {
    /// sizeof(cdp_range).
    pub struct_size: u32,
    /// Of an exact range: how finely it was recorded, CDP_RANGE_*.
    pub granularity: u32,
    /// First point of it.
    pub from: cdp_point,
    /// Last point of it.
    pub to: cdp_point,
    /// For CDP_RANGE_INTERVALS.
    pub interval_ns: u64,
    /// The volume, NUL-terminated.
    pub volume: [c_char; 136],
    /// Of a gap: why, such as "overload", NUL-terminated.
    pub reason: [c_char; 32],
}
sized!(cdp_range, 216);

/// Takes down the timeline of this moment. Close it with cdp_timeline_close. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_timeline_open(
    store: *const cdp_store,
    timeline_out: *mut *mut cdp_timeline,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("timeline_out", timeline_out)?;
        let held = get(store)?;
        out.put(put(held.store.timeline()?, Some(held.family()))?);
        Ok(())
    })
}

/// Ends and numbers of the timeline. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_timeline_info_get(
    timeline: *const cdp_timeline,
    info_out: *mut cdp_timeline_info,
) -> cdp_status {
    guard(|caller| {
        let timeline = get(timeline)?;
        let out = caller.sized_out(info_out)?;
        out.put(&cdp_timeline_info {
            struct_size: 0,
            flags: 0,
            oldest: timeline.oldest.into(),
            newest: timeline.newest.into(),
            covered_to_ns: timeline.covered_to.get(),
            exact_ranges: timeline.exact.len() as u64,
            gaps: timeline.gaps.len() as u64,
            retained: timeline.retained.len() as u64,
        });
        Ok(())
    })
}

/// The exact range at a place, counted from 0; CDP_END past the last. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_timeline_exact_at(
    timeline: *const cdp_timeline,
    index: usize,
    range_out: *mut cdp_range,
) -> cdp_status {
    guard_status(|caller| {
        let timeline = get(timeline)?;
        let out = caller.sized_out(range_out)?;
        let Some(range) = timeline.exact.get(index) else { return Ok(CDP_END) };
        let (granularity, interval_ns) = match range.granularity {
            Granularity::Write => (CDP_RANGE_WRITES, 0),
            Granularity::IntervalNs(length) => (CDP_RANGE_INTERVALS, length),
            Granularity::Barrier => (CDP_RANGE_BARRIERS, 0),
        };
        out.put(&cdp_range {
            struct_size: 0,
            granularity,
            from: range.from.into(),
            to: range.to.into(),
            interval_ns,
            volume: text_into(&range.volume),
            reason: text_into(""),
        });
        Ok(CDP_OK)
    })
}

/// The gap at a place, counted from 0; CDP_END past the last. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_timeline_gap_at(
    timeline: *const cdp_timeline,
    index: usize,
    range_out: *mut cdp_range,
) -> cdp_status {
    guard_status(|caller| {
        let timeline = get(timeline)?;
        let out = caller.sized_out(range_out)?;
        let Some(gap) = timeline.gaps.get(index) else { return Ok(CDP_END) };
        out.put(&cdp_range {
            struct_size: 0,
            granularity: CDP_RANGE_WRITES,
            from: gap.from.into(),
            to: gap.to.into(),
            interval_ns: 0,
            volume: text_into(&gap.volume),
            reason: text_into(&gap.reason),
        });
        Ok(CDP_OK)
    })
}

/// The single point at a place that retention has kept, counted from 0; CDP_END past the last. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_timeline_retained_at(
    timeline: *const cdp_timeline,
    index: usize,
    point_out: *mut cdp_point,
) -> cdp_status {
    guard_status(|caller| {
        let timeline = get(timeline)?;
        let out = caller.out("point_out", point_out)?;
        let Some(retained) = timeline.retained.get(index) else { return Ok(CDP_END) };
        out.put(retained.point.into());
        Ok(CDP_OK)
    })
}

/// Gives up the timeline and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_timeline_close(timeline: *mut *mut cdp_timeline) -> cdp_status {
    guard(|caller| caller.close(timeline).map(|_| ()))
}
