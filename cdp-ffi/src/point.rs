//! Points: what names a moment becomes a seq. Everything else takes a seq.

use crate::{
    failure::Failure,
    guard::guard,
    handle::get,
    status::{CDP_ERR_NOT_FOUND, cdp_status},
    store::cdp_store,
    types::cdp_point,
};
use cdp_core::{Point, units::TimeNs};
use std::ffi::c_char;

/// The point that a text names: latest, oldest, seq:N, time:T, bookmark:NAME, bookmark-latest, bookmark-latest:KIND, bookmark-before:T or bookmark-before:T:KIND, where T is
/// like 2026-01-31T12:00:00.5Z and KIND app, fs, user or system. A time names the last state at or before it. CDP_ERR_POINT_EXPIRED when it
/// cannot be opened; cdp_last_error_nearest tells the nearest points that can. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_resolve(
    store: *const cdp_store,
    text: *const c_char,
    point_out: *mut cdp_point,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.out("point_out", point_out)?;
        let point: Point = caller.text("text", text)?.parse()?;
        out.put(held.store.resolve(&point)?.into());
        Ok(())
    })
}

/// The last state at or before a time. As cdp_resolve with time:T. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_resolve_time(
    store: *const cdp_store,
    time_ns: u64,
    point_out: *mut cdp_point,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.out("point_out", point_out)?;
        out.put(held.store.resolve(&Point::Time(TimeNs::new(time_ns)))?.into());
        Ok(())
    })
}

/// The newest state that is exact for every volume of the store: no gap, nothing lost, and a point where writes are coalesced.
/// CDP_ERR_NOT_FOUND when there is none. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_resolve_newest_exact(
    store: *const cdp_store,
    point_out: *mut cdp_point,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.out("point_out", point_out)?;
        let missing = || Failure::new(CDP_ERR_NOT_FOUND, "no state is exact for all volumes");
        out.put(held.store.newest_exact_point(&[])?.ok_or_else(missing)?.into());
        Ok(())
    })
}
