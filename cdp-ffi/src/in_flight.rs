//! Writes that the host announces before it submits them to the source.

use crate::{
    arguments::Caller,
    callback::without_ends,
    failure::{Failure, Outcome},
    guard::guard,
    handle::{get, kind, put},
    status::{CDP_END, cdp_status},
    tap::{cdp_tap, outcome_code},
};
use cdp_core::{InFlight, Written, limits::WRITE_BYTES_MAX, units::TimeNs};
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

fn written(kind: u32, data: &[u8]) -> Outcome<Written<'_>> {
    Ok(match kind {
        CDP_WRITTEN_DATA => Written::Data(data),
        _ if !data.is_empty() => return Err(Failure::argument("data are for CDP_WRITTEN_DATA")),
        CDP_WRITTEN_ZEROES => Written::Zeroes,
        CDP_WRITTEN_DISCARD => Written::Discard,
        CDP_WRITTEN_FAILED => Written::Failed,
        other => return Err(Failure::argument(format!("{other} is not a way in which a write ends"))),
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
        let written = written(kind, caller.bytes("buf", buf, len)?)?;
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

/// Does one write to the source with the tap around it, for hosts that wait where they are until it is complete: as cdp_tap_begin, then write,
/// then cdp_in_flight_end, without a handle between them, which is cheaper. kind is CDP_WRITTEN_DATA, with buf of len bytes, at most 16 MiB,
/// or CDP_WRITTEN_ZEROES or CDP_WRITTEN_DISCARD, with buf NULL and a len of any size. write puts it on the source and returns 0; or CDP_END when
/// nothing has changed and nothing will, and nothing is captured; or a negative errno, and the range is marked, as it is by any other answer.
/// answer_out, which may be NULL, receives what it returned. Unless the status is CDP_OK it was not called, and nothing was submitted. write may
/// call the library, but not close the store or the tap. [any thread, several at once; without an activity log it waits for write alone]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_tap_write_through(
    tap: *mut cdp_tap,
    offset: u64,
    len: u64,
    kind: u32,
    buf: *const c_void,
    write: Option<unsafe extern "C" fn(userdata: *mut c_void) -> i32>,
    userdata: *mut c_void,
    answer_out: *mut i32,
    outcome_out: *mut u32,
) -> cdp_status {
    guard(|caller| {
        let answer_out = caller.out_optional("answer_out", answer_out)?;
        let out = caller.out_optional("outcome_out", outcome_out)?;
        let write = write.ok_or_else(|| Failure::argument("write is NULL"))?;
        let data_len = match kind {
            CDP_WRITTEN_DATA if len > WRITE_BYTES_MAX => {
                return Err(Failure::argument(format!("{len} bytes of data, at most {WRITE_BYTES_MAX}")));
            }
            CDP_WRITTEN_FAILED => return Err(Failure::argument("a write that was not made has not failed")),
            CDP_WRITTEN_DATA => usize::try_from(len).map_err(|_| Failure::argument("len is too large"))?,
            _ if buf.is_null() => 0,
            _ => return Err(Failure::argument("data are for CDP_WRITTEN_DATA")),
        };
        let written = written(kind, caller.bytes("buf", buf, data_len)?)?;
        let held = get(tap)?;
        let token = held.tap.capture_within(offset, len)?;
        // SAFETY: a callback of the host, with what it gave for it.
        let answered = without_ends(|| unsafe { write(userdata) });
        let captured = match answered {
            CDP_END => {
                token.cancel();
                None
            }
            0 => Some(token.end(written, None)?),
            _ => Some(token.end(Written::Failed, None)?),
        };
        answer_out.put(answered);
        if let Some(captured) = captured {
            out.put(outcome_code(captured));
        }
        Ok(())
    })
}
