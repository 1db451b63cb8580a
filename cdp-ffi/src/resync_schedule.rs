//! When taps resync by themselves, which first, and how fast.

use crate::{
    arguments::{check_flags, sized},
    failure::Failure,
    guard::guard,
    handle::get,
    status::cdp_status,
    store::cdp_store,
};
use cdp_core::{Hours, ResyncSchedule};
use std::{ffi::c_char, mem::size_of, num::NonZeroUsize, time::Duration};

/// Most parts of the day, and most names, of a schedule.
const ITEMS_MAX: usize = cdp_core::limits::VOLUMES_MAX;

/// A part of each day, in UTC; past midnight when to_ns is not later than from_ns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_hours {
    /// Begin, nanoseconds after midnight; less than a day.
    pub from_ns: u64,
    /// End, nanoseconds after midnight; at most a day, and another moment than from_ns.
    pub to_ns: u64,
}

/// When the taps of a store resync by themselves. All zero but for the size: at once, all of them, as fast as they can.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_resync_schedule {
    /// sizeof(cdp_resync_schedule).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// How long a volume differs from its source before its resync begins, nanoseconds.
    pub delay_ns: u64,
    /// The parts of the day in which they go on; outside of them writes are marked. NULL with 0: all day. Borrowed for the call.
    pub hours: *const cdp_hours,
    /// How many.
    pub hours_count: usize,
    /// Names of volumes that come first, the most urgent one first. NULL with 0: none. Borrowed for the call.
    pub first: *const *const c_char,
    /// How many.
    pub first_count: usize,
    /// Bytes of all sources together that are compared in a second at most. 0: no bound.
    pub bytes_per_second_max: u64,
    /// Latency of production that resync may not drive it beyond, nanoseconds: the host says what it measures (cdp_store_note_latency). 0: none.
    pub latency_max_ns: u64,
    /// How many volumes resync at the same time. 0: all.
    pub volumes_at_once: u32,
    /// 0.
    pub reserved: u32,
}
sized!(cdp_resync_schedule, 72);

/// Sets when the taps of the store resync by themselves, which first and how fast, from now on; NULL is the default of everything. It belongs to the open
/// store and is not recorded. Resyncs that are asked for (cdp_tap_resync, cdp_tap_resync_start) go by their own options. CDP_ERR_INVALID_ARGUMENT for what
/// cannot be meant, and the schedule stays as it was. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_set_resync_schedule(
    store: *mut cdp_store,
    schedule: *const cdp_resync_schedule,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let given = caller.options_or_default(schedule)?;
        check_flags(given.flags, 0)?;
        crate::arguments::check_reserved(given.reserved)?;
        if given.hours_count > ITEMS_MAX || given.first_count > ITEMS_MAX {
            return Err(Failure::argument(format!("at most {ITEMS_MAX} parts of the day, and names")));
        }
        let hours = caller.items("hours", given.hours, given.hours_count)?.iter();
        let hours = hours.map(|part| Hours {
            from: Duration::from_nanos(part.from_ns),
            to: Duration::from_nanos(part.to_ns),
        });
        let first = caller.items("first", given.first, given.first_count)?.iter();
        let first = first.map(|name| caller.text("first", *name).map(str::to_owned));
        let schedule = ResyncSchedule {
            delay: Duration::from_nanos(given.delay_ns),
            hours: hours.collect(),
            volumes_at_once: NonZeroUsize::new(given.volumes_at_once as usize),
            first: first.collect::<Result<_, _>>()?,
            bytes_per_second_max: Some(given.bytes_per_second_max).filter(|rate| *rate != 0),
            latency_max: Some(given.latency_max_ns).filter(|latency| *latency != 0).map(Duration::from_nanos),
        };
        Ok(held.store.set_resync_schedule(schedule)?)
    })
}

/// Says how long an I/O of production took just now, nanoseconds, for a schedule with latency_max_ns. A sample now and then is enough, and makes resync
/// slower or faster. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_note_latency(store: *mut cdp_store, latency_ns: u64) -> cdp_status {
    guard(|_| {
        get(store)?.store.note_production_latency(Duration::from_nanos(latency_ns));
        Ok(())
    })
}
