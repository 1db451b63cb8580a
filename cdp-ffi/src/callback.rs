//! Callbacks of the host: their errors as `io::Error`, calls that they must not make, and the release of what they use.

use crate::{
    failure::{Failure, Outcome},
    status::CDP_ERR_BUSY,
    types::cdp_free_userdata,
};
use std::{cell::Cell, ffi::c_void, io};

thread_local! {
    /// Callbacks of this thread that must not call the library, one inside of the other.
    static FORBIDDEN: Cell<u32> = const { Cell::new(0) };
    /// Callbacks of this thread that may call the library, but not end what called them.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Runs a callback that may call the library, but not close the store or stop the runner, which would wait for this very call.
pub fn without_ends<T>(callback: impl FnOnce() -> T) -> T {
    INSIDE.set(INSIDE.get() + 1);
    let answer = callback();
    INSIDE.set(INSIDE.get() - 1);
    answer
}

/// Refuses to end a store or runner from inside of such a callback.
pub fn check_outside() -> Outcome {
    match INSIDE.get() {
        0 => Ok(()),
        _ => Err(Failure::new(CDP_ERR_BUSY, "a callback must not end what called it")),
    }
}

/// Runs a callback that must not call the library.
pub fn without_calls<T>(callback: impl FnOnce() -> T) -> T {
    FORBIDDEN.set(FORBIDDEN.get() + 1);
    let answer = callback();
    FORBIDDEN.set(FORBIDDEN.get() - 1);
    answer
}

/// Whether the thread is in such a callback.
pub fn calls_are_forbidden() -> bool {
    FORBIDDEN.try_with(Cell::get).unwrap_or(0) > 0
}

/// The answer of a callback: 0, or a negative errno. Anything else is a mistake of the host and becomes EIO.
pub fn answer(answered: i32) -> io::Result<()> {
    const EIO: i32 = 5;
    match answered {
        0 => Ok(()),
        errno if errno < 0 => Err(io::Error::from_raw_os_error(errno.checked_neg().unwrap_or(EIO))),
        _ => Err(io::Error::from_raw_os_error(EIO)),
    }
}

/// What the callbacks of the host use: handed back exactly once, when nothing calls them any more.
#[derive(Debug)]
pub struct Userdata {
    pointer: *mut c_void,
    free: cdp_free_userdata,
}

// SAFETY: the header obliges the host: what it hands over may be used from any thread, as its callbacks are.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

impl Userdata {
    pub fn new(pointer: *mut c_void, free: cdp_free_userdata) -> Self {
        Self { pointer, free }
    }

    pub fn get(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for Userdata {
    fn drop(&mut self) {
        if let Some(free) = self.free.take() {
            // SAFETY: the host gave this function for this pointer, and it is called once.
            without_calls(|| unsafe { free(self.pointer) });
        }
    }
}
