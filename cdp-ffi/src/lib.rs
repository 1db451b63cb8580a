//! The C interface of `cdp-core`: the beginning of it. `include/cdp.h` is generated from this crate and checked for drift.
//!
//! Here are the version of the library and its status codes with their names and their mapping to errno. Codes are never renumbered.

// Exporting a function under its own name is what this crate is for; nothing here dereferences a pointer.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

/// Outcome of a call: 0 is success, negative is an error.
#[allow(non_camel_case_types)]
pub type cdp_status = i32;

/// Major version of the library.
pub const CDP_VERSION_MAJOR: u32 = 0;
/// Minor version of the library.
pub const CDP_VERSION_MINOR: u32 = 1;
/// Patch version of the library.
pub const CDP_VERSION_PATCH: u32 = 0;
/// Version of the binary interface.
pub const CDP_ABI_VERSION: u32 = 1;

/// Success.
pub const CDP_OK: cdp_status = 0;
/// An argument is outside of what is allowed.
pub const CDP_ERR_INVALID_ARGUMENT: cdp_status = -1;
/// Offset or length is not a multiple of 512.
pub const CDP_ERR_UNALIGNED: cdp_status = -2;
/// The range reaches past the end of the volume.
pub const CDP_ERR_OUT_OF_RANGE: cdp_status = -3;
/// Not available in this version or for this store.
pub const CDP_ERR_UNSUPPORTED: cdp_status = -5;
/// The storage failed.
pub const CDP_ERR_IO: cdp_status = -10;
/// Bytes on the storage are not what was written.
pub const CDP_ERR_CORRUPT: cdp_status = -11;
/// The store has a format that this version does not know.
pub const CDP_ERR_FORMAT_VERSION: cdp_status = -12;
/// There is no space left for the journal.
pub const CDP_ERR_JOURNAL_FULL: cdp_status = -13;
/// An earlier failure makes it unsafe to go on.
pub const CDP_ERR_POISONED: cdp_status = -14;
/// There is no such thing.
pub const CDP_ERR_NOT_FOUND: cdp_status = -20;
/// There is such a thing already.
pub const CDP_ERR_EXISTS: cdp_status = -21;
/// The bookmark is locked.
pub const CDP_ERR_LOCKED: cdp_status = -22;
/// The store was opened read-only.
pub const CDP_ERR_READ_ONLY: cdp_status = -23;
/// Another owner has the store.
pub const CDP_ERR_BUSY: cdp_status = -24;
/// The point cannot be opened.
pub const CDP_ERR_POINT_EXPIRED: cdp_status = -30;
/// A defect in this library.
pub const CDP_ERR_PANIC: cdp_status = -90;

/// Name and errno of every code.
const STATUSES: &[(cdp_status, &CStr, i32)] = &[
    (CDP_OK, c"CDP_OK", 0),
    (CDP_ERR_INVALID_ARGUMENT, c"CDP_ERR_INVALID_ARGUMENT", 22),
    (CDP_ERR_UNALIGNED, c"CDP_ERR_UNALIGNED", 22),
    (CDP_ERR_OUT_OF_RANGE, c"CDP_ERR_OUT_OF_RANGE", 28),
    (CDP_ERR_UNSUPPORTED, c"CDP_ERR_UNSUPPORTED", 95),
    (CDP_ERR_IO, c"CDP_ERR_IO", 5),
    (CDP_ERR_CORRUPT, c"CDP_ERR_CORRUPT", 5),
    (CDP_ERR_FORMAT_VERSION, c"CDP_ERR_FORMAT_VERSION", 22),
    (CDP_ERR_JOURNAL_FULL, c"CDP_ERR_JOURNAL_FULL", 28),
    (CDP_ERR_POISONED, c"CDP_ERR_POISONED", 5),
    (CDP_ERR_NOT_FOUND, c"CDP_ERR_NOT_FOUND", 2),
    (CDP_ERR_EXISTS, c"CDP_ERR_EXISTS", 17),
    (CDP_ERR_LOCKED, c"CDP_ERR_LOCKED", 1),
    (CDP_ERR_READ_ONLY, c"CDP_ERR_READ_ONLY", 30),
    (CDP_ERR_BUSY, c"CDP_ERR_BUSY", 16),
    (CDP_ERR_POINT_EXPIRED, c"CDP_ERR_POINT_EXPIRED", 61),
    (CDP_ERR_PANIC, c"CDP_ERR_PANIC", 5),
];

/// Version of the library as one number: major * 1000000 + minor * 1000 + patch.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_version_number() -> u32 {
    CDP_VERSION_MAJOR * 1_000_000 + CDP_VERSION_MINOR * 1000 + CDP_VERSION_PATCH
}

/// Version of the library as text, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn cdp_version_string() -> *const c_char {
    const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a version has no NUL inside"),
    };
    TEXT.as_ptr()
}

/// Version of the binary interface.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_abi_version() -> u32 {
    CDP_ABI_VERSION
}

/// Stable name of a status code, such as "CDP_ERR_IO"; "CDP_ERR_UNKNOWN" for a code that is none.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_status_name(status: cdp_status) -> *const c_char {
    STATUSES
        .iter()
        .find(|(code, ..)| *code == status)
        .map_or(c"CDP_ERR_UNKNOWN", |(_, name, _)| *name)
        .as_ptr()
}

/// A positive errno with which a host can complete an I/O, 0 for success.
#[unsafe(no_mangle)]
pub extern "C" fn cdp_status_errno(status: cdp_status) -> i32 {
    const EIO: i32 = 5;
    STATUSES.iter().find(|(code, ..)| *code == status).map_or(EIO, |(_, _, errno)| *errno)
}
