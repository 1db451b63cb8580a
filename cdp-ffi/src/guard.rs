//! The guard around every exported function: no panic gets out, failures are noted for the thread, calls from callbacks that must not
//! call are refused.

use crate::{
    arguments::Caller,
    callback,
    failure::{Failure, Outcome, note},
    status::{CDP_ERR_BUSY, CDP_ERR_PANIC, CDP_OK, cdp_status},
};
use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    /// Whether this thread is inside of the guard, where a panic is a status and nothing is to be written to stderr.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Threads of the library are named so; their panics are caught there and told as events or answers.
const THREAD_PREFIX: &str = "cdp-";

/// The panic hook of Rust writes to stderr. Inside of the guard, and in threads of the library, that is kept back; any other panic goes to the
/// hook that was there before.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let own = std::thread::current().name().is_some_and(|name| name.starts_with(THREAD_PREFIX));
            if !own && !GUARDED.try_with(Cell::get).unwrap_or(false) {
                before(info);
            }
        }));
    });
}

/// Runs the body of an exported function that only succeeds or fails.
pub fn guard(body: impl FnOnce(Caller) -> Outcome) -> cdp_status {
    guard_status(|caller| body(caller).map(|()| CDP_OK))
}

/// Runs the body of an exported function that has more than one good status.
pub fn guard_status(body: impl FnOnce(Caller) -> Outcome<cdp_status>) -> cdp_status {
    if callback::calls_are_forbidden() {
        return note(Failure::new(CDP_ERR_BUSY, "this callback must not call the library"));
    }
    caught(|| body(Caller::of_exported())).unwrap_or_else(note)
}

/// Turns a panic into a failure, without a word on stderr.
pub fn caught<T>(body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    keep_quiet();
    let outer = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    GUARDED.set(outer);
    outcome.unwrap_or_else(|panic| {
        Err(Failure::new(CDP_ERR_PANIC, format!("a defect in the library: {}", text_of(&*panic))))
    })
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it says nothing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        handle::{get, kind, put, remove},
        status::CDP_ERR_POISONED,
    };

    struct Thing;
    kind!(Thing, 102, "thing", u32);

    /// Goal: a panic becomes a status and poisons what the call held, and nothing else. Method: panic with one of two handles in use.
    #[test]
    fn a_panic_is_a_status_and_poisons_the_family() {
        let (held, other) = (put::<Thing>(1, None).unwrap(), put::<Thing>(2, None).unwrap());
        let status = guard(|_| {
            let _held = get(held)?;
            panic!("deliberate {}", 7);
        });
        assert_eq!(status, CDP_ERR_PANIC);
        // SAFETY: the text stays until the next failure of this thread.
        let text = unsafe { std::ffi::CStr::from_ptr(crate::failure::last_message()) };
        assert!(text.to_str().unwrap().ends_with("deliberate 7"), "{text:?}");
        assert_eq!(guard(|_| get(held).map(|_| ())), CDP_ERR_POISONED);
        assert_eq!(guard(|_| get(other).map(|_| ())), CDP_OK);
        // What is poisoned can be closed.
        assert_eq!(guard(|_| remove(held).map(|_| ())), CDP_OK);
        assert_eq!(guard(|_| remove(other).map(|_| ())), CDP_OK);
    }

    /// Goal: a callback that must not call is answered and not obeyed. Method: a call from inside of one.
    #[test]
    fn a_forbidden_call_is_refused() {
        assert_eq!(callback::without_calls(|| guard(|_| Ok(()))), CDP_ERR_BUSY);
        assert_eq!(guard(|_| Ok(())), CDP_OK);
    }
}
