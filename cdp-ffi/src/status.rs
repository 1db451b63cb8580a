//! Status codes with their names and errnos, and what is known of a thread's last failed call. Codes are never renumbered.

use crate::{arguments::Caller, failure, types::cdp_point};
use std::ffi::{CStr, c_char};

/// Outcome of a call: 0 is success, 1 is success with nothing more to come, negative is an error.
pub type cdp_status = i32;

/// Success.
pub const CDP_OK: cdp_status = 0;
/// Success, and there is nothing more: the end of a list, nothing to do, a job that is done.
pub const CDP_END: cdp_status = 1;
/// An argument is outside of what is allowed; also NULL where that is not said to be allowed, and a handle that is none.
pub const CDP_ERR_INVALID_ARGUMENT: cdp_status = -1;
/// Offset or length is not a multiple of 512.
pub const CDP_ERR_UNALIGNED: cdp_status = -2;
/// The range reaches past the end of the volume.
pub const CDP_ERR_OUT_OF_RANGE: cdp_status = -3;
/// The buffer is too small; the size that is needed was reported.
pub const CDP_ERR_BUFFER_TOO_SMALL: cdp_status = -4;
/// Not available in this version or for this store.
pub const CDP_ERR_UNSUPPORTED: cdp_status = -5;
/// Memory could not be reserved, or there are too many handles.
pub const CDP_ERR_NO_MEMORY: cdp_status = -6;
/// A time lies before the newest write of the store.
pub const CDP_ERR_TIME_BACKWARDS: cdp_status = -7;
/// The storage or the source failed; cdp_last_error_errno tells more.
pub const CDP_ERR_IO: cdp_status = -10;
/// Bytes on the storage are not what was written.
pub const CDP_ERR_CORRUPT: cdp_status = -11;
/// The store has a format that this version does not know.
pub const CDP_ERR_FORMAT_VERSION: cdp_status = -12;
/// There is no space left for the journal. Nothing that was acknowledged is lost; try again when there is space.
pub const CDP_ERR_JOURNAL_FULL: cdp_status = -13;
/// An earlier failure makes it unsafe to go on: close the store and open it again.
pub const CDP_ERR_POISONED: cdp_status = -14;
/// The retention policy bounds the space of the store, and nothing more may be dropped.
pub const CDP_ERR_OVER_BOUND: cdp_status = -15;
/// A newer owner has taken over the store.
pub const CDP_ERR_FENCED: cdp_status = -16;
/// There is no such thing.
pub const CDP_ERR_NOT_FOUND: cdp_status = -20;
/// There is such a thing already.
pub const CDP_ERR_EXISTS: cdp_status = -21;
/// The bookmark is locked.
pub const CDP_ERR_LOCKED: cdp_status = -22;
/// The store was opened read-only.
pub const CDP_ERR_READ_ONLY: cdp_status = -23;
/// Another owner has the store, or the call is not allowed in a callback.
pub const CDP_ERR_BUSY: cdp_status = -24;
/// The handle, or the store that it belongs to, was closed.
pub const CDP_ERR_CLOSED: cdp_status = -25;
/// The bookmark found no place under the conditions asked for; nothing was recorded, and it may be tried again.
pub const CDP_ERR_NOT_PLACED: cdp_status = -26;
/// A source that nobody captures from was changed while it was compared.
pub const CDP_ERR_SOURCE_CHANGED: cdp_status = -27;
/// A mirror set has fewer copies than a write needs to be acknowledged.
pub const CDP_ERR_TOO_FEW_COPIES: cdp_status = -28;
/// The point cannot be opened: it was never written, was thinned away, or lies in a gap; cdp_last_error_nearest tells the nearest.
pub const CDP_ERR_POINT_EXPIRED: cdp_status = -30;
/// A dirty map is none, or is of something else: take everything for dirty.
pub const CDP_ERR_MAP_REFUSED: cdp_status = -33;
/// A mirror set or one of its copies cannot be used as it is; the message says why and what to do.
pub const CDP_ERR_MIRROR_REFUSED: cdp_status = -34;
/// A seed set does not fit the volume that was to take it over; the message says why and what to do. Nothing was changed.
pub const CDP_ERR_SEED_REFUSED: cdp_status = -35;
/// A defect in this library; the store is poisoned.
pub const CDP_ERR_PANIC: cdp_status = -90;

/// Name and errno of every code.
const STATUSES: &[(cdp_status, &CStr, i32)] = &[
    (CDP_OK, c"CDP_OK", 0),
    (CDP_END, c"CDP_END", 0),
    (CDP_ERR_INVALID_ARGUMENT, c"CDP_ERR_INVALID_ARGUMENT", 22),
    (CDP_ERR_UNALIGNED, c"CDP_ERR_UNALIGNED", 22),
    (CDP_ERR_OUT_OF_RANGE, c"CDP_ERR_OUT_OF_RANGE", 28),
    (CDP_ERR_BUFFER_TOO_SMALL, c"CDP_ERR_BUFFER_TOO_SMALL", 34),
    (CDP_ERR_UNSUPPORTED, c"CDP_ERR_UNSUPPORTED", 95),
    (CDP_ERR_NO_MEMORY, c"CDP_ERR_NO_MEMORY", 12),
    (CDP_ERR_TIME_BACKWARDS, c"CDP_ERR_TIME_BACKWARDS", 22),
    (CDP_ERR_IO, c"CDP_ERR_IO", 5),
    (CDP_ERR_CORRUPT, c"CDP_ERR_CORRUPT", 5),
    (CDP_ERR_FORMAT_VERSION, c"CDP_ERR_FORMAT_VERSION", 22),
    (CDP_ERR_JOURNAL_FULL, c"CDP_ERR_JOURNAL_FULL", 28),
    (CDP_ERR_POISONED, c"CDP_ERR_POISONED", 5),
    (CDP_ERR_OVER_BOUND, c"CDP_ERR_OVER_BOUND", 28),
    (CDP_ERR_FENCED, c"CDP_ERR_FENCED", 116),
    (CDP_ERR_NOT_FOUND, c"CDP_ERR_NOT_FOUND", 2),
    (CDP_ERR_EXISTS, c"CDP_ERR_EXISTS", 17),
    (CDP_ERR_LOCKED, c"CDP_ERR_LOCKED", 1),
    (CDP_ERR_READ_ONLY, c"CDP_ERR_READ_ONLY", 30),
    (CDP_ERR_BUSY, c"CDP_ERR_BUSY", 16),
    (CDP_ERR_CLOSED, c"CDP_ERR_CLOSED", 9),
    (CDP_ERR_NOT_PLACED, c"CDP_ERR_NOT_PLACED", 11),
    (CDP_ERR_SOURCE_CHANGED, c"CDP_ERR_SOURCE_CHANGED", 11),
    (CDP_ERR_TOO_FEW_COPIES, c"CDP_ERR_TOO_FEW_COPIES", 5),
    (CDP_ERR_POINT_EXPIRED, c"CDP_ERR_POINT_EXPIRED", 61),
    (CDP_ERR_MAP_REFUSED, c"CDP_ERR_MAP_REFUSED", 22),
    (CDP_ERR_MIRROR_REFUSED, c"CDP_ERR_MIRROR_REFUSED", 5),
    (CDP_ERR_SEED_REFUSED, c"CDP_ERR_SEED_REFUSED", 22),
    (CDP_ERR_PANIC, c"CDP_ERR_PANIC", 5),
];

/// Stable name of a status code, such as "CDP_ERR_IO"; "CDP_ERR_UNKNOWN" for a code that is none. The text lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_status_name(status: cdp_status) -> *const c_char {
    STATUSES
        .iter()
        .find(|(code, ..)| *code == status)
        .map_or(c"CDP_ERR_UNKNOWN", |(_, name, _)| *name)
        .as_ptr()
}

/// A positive errno with which a host can complete an I/O, 0 for success. Numbers are those of Linux.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_status_errno(status: cdp_status) -> i32 {
    const EIO: i32 = 5;
    STATUSES.iter().find(|(code, ..)| *code == status).map_or(EIO, |(_, _, errno)| *errno)
}

/// What the last failed call of this thread said, for people; "" before the first. Borrowed until this thread's next call that fails; a
/// call that succeeds leaves it.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_last_error_message() -> *const c_char {
    failure::last_message()
}

/// The errno of the operating system or of a callback of the host that the last failed call of this thread met; 0 when there was none.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_last_error_errno() -> i32 {
    failure::last_errno()
}

/// After CDP_ERR_POINT_EXPIRED: the nearest points on both sides that can be opened. Either output may be NULL. A side without a point has
/// the time UINT64_MAX. Returns CDP_ERR_NOT_FOUND, which is not noted as the thread's last failure, when the last failed call was another.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_last_error_nearest(
    before_out: *mut cdp_point,
    after_out: *mut cdp_point,
) -> cdp_status {
    let Some((before, after)) = failure::last_nearest() else { return CDP_ERR_NOT_FOUND };
    let caller = Caller::of_exported();
    let outs = (caller.out_optional("before_out", before_out), caller.out_optional("after_out", after_out));
    let (Ok(before_to), Ok(after_to)) = outs else { return CDP_ERR_INVALID_ARGUMENT };
    before_to.put(before);
    after_to.put(after);
    CDP_OK
}
