//! Writes that the host announces before it submits them to the source.

use crate::{
    arguments::Caller,
    failure::{Failure, Outcome},
    guard::guard,
    handle::{get, kind, put},
    status::cdp_status,
    tap::{cdp_tap, outcome_code},
};
use cdp_core::{InFlight, Written, units::TimeNs};
use parking_lot::Mutex;
use std::ffi::c_void;

/// A write between its submission to the source and its end.
pub struct cdp_in_flight {
    _private: [u8; 0],
}
kind!(cdp_in_flight, 6, "write in flight", Mutex<Option<InFlight>>);

/// The write has put this data on the source.
pub const CDP_WRITTEN_DATA: u32 = 1;
/// The write has put zeroes on the source.
pub const CDP_WRITTEN_ZEROES: u32 = 2;
/// The range was discarded and reads as zeroes.
pub const CDP_WRITTEN_DISCARD: u32 = 3;
/// The write failed: the range may hold anything, and is copied from the source later.
pub const CDP_WRITTEN_FAILED: u32 = 4;

/// To be called before a write is submitted to the source, with its range: multiples of 512, of any length. The write is handed over with
/// cdp_in_flight_end when it is complete and before it is acknowledged. Writes of one range that overlap in flight are marked, because their
/// order on the source is unknown. Without an activity log it does not wait; with one it returns when the log names the range, and on
/// failure the write must not be submitted. [any thread, several at once]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_begin(
    tap: *mut cdp_tap,
    offset: u64,
    len: u64,
    in_flight_out: *mut *mut cdp_in_flight,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("in_flight_out", in_flight_out)?;
        let held = get(tap)?;
        let token = held.tap.capture_begin(offset, len)?;
        out.put(put(Mutex::new(Some(token)), Some(held.family()))?);
        Ok(())
    })
}

fn take(caller: Caller, in_flight: *mut *mut cdp_in_flight) -> Outcome<Option<InFlight>> {
    let Some(held) = caller.close(in_flight)? else { return Ok(None) };
    Ok(held.lock().take())
}

/// Hands over a write that was begun: the order of these calls is the order of writes. kind is CDP_WRITTEN_*; buf and len are the data, as
/// long as the range that was begun and at most 16 MiB, for CDP_WRITTEN_DATA, and NULL and 0 otherwise. time_ns 0 is now. The handle is used up
/// and the variable NULL afterwards, whatever the status; on failure the range was marked. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_in_flight_end(
    in_flight: *mut *mut cdp_in_flight,
    kind: u32,
    buf: *const c_void,
    len: usize,
    time_ns: u64,
    outcome_out: *mut u32,
) -> cdp_status {
    guard(|caller| {
        // Dropped by any failure below, it marks its range.
        let token = take(caller, in_flight)?;
        let out = caller.out_optional("outcome_out", outcome_out)?;
        let data = caller.bytes("buf", buf, len)?;
        let written = match kind {
            CDP_WRITTEN_DATA => Written::Data(data),
            _ if !data.is_empty() => return Err(Failure::argument("data are for CDP_WRITTEN_DATA")),
            CDP_WRITTEN_ZEROES => Written::Zeroes,
            CDP_WRITTEN_DISCARD => Written::Discard,
            CDP_WRITTEN_FAILED => Written::Failed,
            other => return Err(Failure::argument(format!("{other} is not a way in which a write ends"))),
        };
        let token = token.ok_or_else(|| Failure::argument("there is no write to end"))?;
        out.put(outcome_code(token.end(written, Some(time_ns).filter(|time| *time != 0).map(TimeNs::new))?));
        Ok(())
    })
}

/// Says that a write that was begun was not submitted and will not be, and sets the variable to NULL, which it may be already.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_in_flight_cancel(in_flight: *mut *mut cdp_in_flight) -> cdp_status {
    guard(|caller| {
        if let Some(token) = take(caller, in_flight)? {
            token.cancel();
        }
        Ok(())
    })
}
