//! Failures on their way to C: a status, a message for people, the errno where there was one. Each thread keeps its last one.

use crate::{status::*, types::cdp_point};
use cdp_core::{Error, SeqTime};
use std::{
    cell::RefCell,
    ffi::{CString, c_char},
    io,
};

/// Result of everything inside of the guard.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a call failed.
#[derive(Debug)]
pub struct Failure {
    pub status: cdp_status,
    pub message: String,
    /// That of the operating system or the host; 0: none.
    pub errno: i32,
    /// The nearest points, when a point cannot be opened.
    pub nearest: Option<(cdp_point, cdp_point)>,
}

impl Failure {
    pub fn new(status: cdp_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), errno: 0, nearest: None }
    }

    /// The call is wrong.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(CDP_ERR_INVALID_ARGUMENT, message)
    }

    /// A failure of the operating system outside of the core.
    pub fn io(what: &str, error: &io::Error) -> Self {
        let status = match error.kind() {
            io::ErrorKind::NotFound => CDP_ERR_NOT_FOUND,
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => CDP_ERR_EXISTS,
            io::ErrorKind::OutOfMemory => CDP_ERR_NO_MEMORY,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CDP_ERR_JOURNAL_FULL,
            _ => CDP_ERR_IO,
        };
        let errno = error.raw_os_error().unwrap_or(0);
        Self { status, message: format!("{what}: {error}"), errno, nearest: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (mut errno, mut nearest) = (0, None);
        let status = match &error {
            Error::OutOfRange { .. } => CDP_ERR_OUT_OF_RANGE,
            Error::Unaligned { .. } => CDP_ERR_UNALIGNED,
            Error::InvalidArgument(_) => CDP_ERR_INVALID_ARGUMENT,
            Error::SeedRefused(_) => CDP_ERR_SEED_REFUSED,
            Error::NotFound { .. } => CDP_ERR_NOT_FOUND,
            Error::Exists { .. } => CDP_ERR_EXISTS,
            Error::BookmarkLocked(_) => CDP_ERR_LOCKED,
            Error::NotPlaced(_) => CDP_ERR_NOT_PLACED,
            Error::PointUnavailable(point) => {
                let none = cdp_point { seq: 0, time_ns: u64::MAX };
                let side = |side: Option<SeqTime>| side.map_or(none, cdp_point::from);
                nearest = Some((side(point.before), side(point.after)));
                CDP_ERR_POINT_EXPIRED
            }
            Error::TimeBackwards { .. } => CDP_ERR_TIME_BACKWARDS,
            Error::Owned => CDP_ERR_BUSY,
            Error::ReadOnly => CDP_ERR_READ_ONLY,
            Error::NoSpace => CDP_ERR_JOURNAL_FULL,
            Error::OverBound { .. } => CDP_ERR_OVER_BOUND,
            Error::Poisoned(_) => CDP_ERR_POISONED,
            Error::Fenced => CDP_ERR_FENCED,
            Error::Damaged(_) => CDP_ERR_CORRUPT,
            Error::UnsupportedFormat(_) => CDP_ERR_FORMAT_VERSION,
            Error::MapRefused(_) => CDP_ERR_MAP_REFUSED,
            Error::SourceChanged => CDP_ERR_SOURCE_CHANGED,
            Error::TooFewCopies { .. } => CDP_ERR_TOO_FEW_COPIES,
            Error::MirrorRefused(_) => CDP_ERR_MIRROR_REFUSED,
            Error::Io { source, .. } => {
                errno = source.raw_os_error().unwrap_or(0);
                if source.kind() == io::ErrorKind::OutOfMemory { CDP_ERR_NO_MEMORY } else { CDP_ERR_IO }
            }
            // The core may learn of new errors before this crate does; a test of this file says so.
            _ => CDP_ERR_UNSUPPORTED,
        };
        Self { status, message, errno, nearest }
    }
}

/// The last failure of a thread.
#[derive(Default)]
struct Last {
    message: CString,
    errno: i32,
    nearest: Option<(cdp_point, cdp_point)>,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// Notes the failure of a call of this thread.
pub fn note(failure: Failure) -> cdp_status {
    let Failure { status, message, errno, nearest } = failure;
    let message = CString::new(message.replace('\0', "?")).unwrap_or_default();
    // While a thread ends its notes are gone; the status says enough then.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Last { message, errno, nearest });
    status
}

pub fn last_message() -> *const c_char {
    LAST.try_with(|last| last.borrow().message.as_ptr()).unwrap_or(c"".as_ptr())
}

pub fn last_errno() -> i32 {
    LAST.try_with(|last| last.borrow().errno).unwrap_or(0)
}

pub fn last_nearest() -> Option<(cdp_point, cdp_point)> {
    LAST.try_with(|last| last.borrow().nearest).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    /// Goal: every error of the core has a status of its own choosing. Method: the variants as the source of the core lists them must all be
    /// named in the mapping above.
    #[test]
    fn every_error_of_the_core_is_mapped() {
        let core = include_str!("../../cdp-core/src/error.rs");
        let body = core.split("pub enum Error {").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap();
        let variants: Vec<&str> = body
            .lines()
            .filter(|line| {
                line.starts_with("    ") && line.as_bytes().get(4).is_some_and(u8::is_ascii_uppercase)
            })
            .map(|line| line.trim_start().split(|c: char| !c.is_alphanumeric()).next().unwrap())
            .collect();
        assert!(variants.len() >= 20, "{variants:?}");
        let own = include_str!("failure.rs");
        for variant in variants {
            let named = [" ", "(", ","].iter().any(|end| own.contains(&format!("Error::{variant}{end}")));
            assert!(named, "Error::{variant} has no status");
        }
    }

    /// Goal: a thread sees its own last failure, with the errno of the system. Method: note one here and look from another thread.
    #[test]
    fn failures_are_noted_per_thread() {
        let error = io::Error::from_raw_os_error(28);
        let failure = Failure::from(Error::Io { operation: "write", target: "x".into(), source: error });
        assert_eq!(note(failure), CDP_ERR_IO);
        // SAFETY: the text stays until the next failure of this thread.
        let text = unsafe { CStr::from_ptr(last_message()) }.to_str().unwrap();
        assert!(text.starts_with("write x"), "{text}");
        assert_eq!(last_errno(), 28);
        std::thread::spawn(|| assert_eq!(last_errno(), 0)).join().unwrap();
    }
}
