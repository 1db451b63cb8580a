//! Holding production still while a bookmark takes its place.
//!
//! The placement runs in a thread of its own, so that the caller's thread can thaw production whatever the store does. Invariants:
//! - *thawed*: every call of [`Quiesce::freeze`] is followed by one of [`Quiesce::thaw`], also after an error or a panic;
//! - *bounded*: from the return of `freeze` production waits for the timeout at most, by the monotonic clock of the machine;
//! - *inside*: a placement counts only if it passed the [`Gate`] before the thaw. The gate is passed once, under the lock in which the
//!   bookmark takes its place in the row of seqs, or it is shut, before the thaw: never both.

use crate::{Error, Result};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Production that can be held still: a file system, a database, a virtual machine.
///
/// Both calls come from the thread that asks for the bookmark, with no lock of the library held.
pub trait Quiesce {
    /// Brings production to the state that the bookmark vouches for and holds it there. When this returns, every write that it has
    /// acknowledged was written to its volume or handed to its tap.
    ///
    /// # Errors
    /// Whatever keeps it from that; no bookmark is set then, and `thaw` is called nevertheless.
    fn freeze(&self) -> Result<()>;

    /// Lets production go on. Called once after each call of `freeze`, also when that failed or panicked. It does not wait for writes to
    /// the store: these may have to wait for the bookmark.
    fn thaw(&self);
}

const FROZEN: u8 = 0;
const PLACED: u8 = 1;
const EXPIRED: u8 = 2;

/// Whether the bookmark was placed while production was frozen.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU8);

impl Gate {
    /// Passes the gate, once: production is frozen at this moment.
    ///
    /// # Errors
    /// `NotPlaced` when it was shut before.
    pub fn pass(&self) -> Result<()> {
        let passed = self.0.compare_exchange(FROZEN, PLACED, Ordering::AcqRel, Ordering::Acquire);
        passed
            .map(|_| ())
            .map_err(|_| Error::NotPlaced("production could not be held until it had its place".into()))
    }

    /// Shuts the gate, unless it was passed.
    fn shut(&self) {
        let _ = self.0.compare_exchange(FROZEN, EXPIRED, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Freezes production, lets `place` run for at most `timeout`, and thaws; then, when the placement succeeded, runs `finish`.
///
/// Returns when `place` has ended, which may be long after the thaw.
///
/// # Errors
/// Those of `freeze`, `place` and `finish`; `Io` when no thread can be started, in which case nothing was frozen.
///
/// # Panics
/// A panic of a callback or of the placement goes on here, after the thaw.
pub(crate) fn while_frozen<T: Send, U>(
    quiesce: &dyn Quiesce,
    timeout: Duration,
    place: impl FnOnce(&Gate) -> Result<T> + Send,
    finish: impl FnOnce(T) -> Result<U>,
) -> Result<U> {
    let gate = Gate::default();
    let (go, start) = mpsc::channel::<()>();
    let (ended, end) = mpsc::channel::<()>();
    let gate = &gate;
    let (held, thawed, placed) = thread::scope(|scope| {
        let work = move || {
            // Its end is heard even when it panics.
            let _ended = ended;
            match start.recv() {
                Ok(()) => place(gate),
                Err(_) => Err(Error::NotPlaced("production was not frozen".into())),
            }
        };
        // Before the freeze: starting a thread takes time, and may fail.
        let worker = thread::Builder::new().name("cdp-bookmark".into()).spawn_scoped(scope, work);
        let worker = worker.map_err(|error| Error::io("start", "a thread", error))?;
        let held = catch_unwind(AssertUnwindSafe(|| {
            quiesce.freeze()?;
            // It fails only when the worker is gone, and then there is nothing to wait for.
            let _ = go.send(());
            let _ = end.recv_timeout(timeout);
            Ok(())
        }));
        gate.shut();
        let thawed = catch_unwind(AssertUnwindSafe(|| quiesce.thaw()));
        drop(go);
        Ok::<_, Error>((held, thawed, worker.join()))
    })?;
    let outcome = match passed_on(held) {
        Err(error) => Err(error),
        Ok(()) => passed_on(placed).and_then(finish),
    };
    match thawed {
        Ok(()) => outcome,
        Err(panic) => resume_unwind(panic),
    }
}

/// The result of a thread or callback; its panic goes on.
fn passed_on<T>(outcome: Result<Result<T>, Box<dyn Any + Send>>) -> Result<T> {
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Counts its calls and does as told.
    #[derive(Default)]
    struct Production {
        frozen: AtomicUsize,
        thawed: AtomicUsize,
        fails: bool,
        panics: bool,
        thaw_panics: bool,
    }

    impl Quiesce for Production {
        fn freeze(&self) -> Result<()> {
            self.frozen.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics, "freeze panics");
            if self.fails { Err(Error::InvalidArgument("busy".into())) } else { Ok(()) }
        }

        fn thaw(&self) {
            self.thawed.fetch_add(1, Ordering::SeqCst);
            assert!(!self.thaw_panics, "thaw panics");
        }
    }

    impl Production {
        #[track_caller]
        fn assert_thawed_once(&self) {
            let calls = (self.frozen.load(Ordering::SeqCst), self.thawed.load(Ordering::SeqCst));
            assert_eq!(calls, (1, 1), "calls of freeze and thaw");
        }
    }

    const LONG: Duration = Duration::from_secs(600);

    /// Goal: a placement in time counts, and production is thawed before the rest. Method: look at the counter from both parts.
    #[test]
    fn production_is_thawed_before_what_comes_after_the_placement() {
        let production = Production::default();
        let thawed = || production.thawed.load(Ordering::SeqCst);
        let place = |gate: &Gate| gate.pass().map(|()| production.thawed.load(Ordering::SeqCst));
        let seen = while_frozen(&production, LONG, place, |at_place| Ok((at_place, thawed())));
        assert_eq!(seen.unwrap(), (0, 1));
        production.assert_thawed_once();
    }

    /// Goal: a placement that comes too late does not count. Method: one that waits until production was thawed.
    #[test]
    fn a_late_placement_is_refused() {
        let production = Production::default();
        let place = |gate: &Gate| {
            while production.thawed.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            gate.pass()
        };
        let outcome = while_frozen(&production, Duration::ZERO, place, |()| -> Result<()> {
            panic!("it was not placed");
        });
        assert!(matches!(outcome, Err(Error::NotPlaced(_))), "{outcome:?}");
        production.assert_thawed_once();
    }

    /// Goal: whatever fails or panics, production is thawed once and the failure is told. Method: each of them.
    #[test]
    fn production_is_thawed_whatever_fails() {
        let failing = Production { fails: true, ..Production::default() };
        let outcome = while_frozen(&failing, LONG, |_| -> Result<()> { panic!("not asked") }, Ok);
        assert!(matches!(outcome, Err(Error::InvalidArgument(_))), "{outcome:?}");
        failing.assert_thawed_once();

        let store = Production::default();
        let outcome = while_frozen(&store, LONG, |_| Err::<(), _>(Error::NoSpace), Ok);
        assert!(matches!(outcome, Err(Error::NoSpace)), "{outcome:?}");
        store.assert_thawed_once();

        let panicking = Production { panics: true, ..Production::default() };
        let call = || while_frozen(&panicking, LONG, Gate::pass, Ok);
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        panicking.assert_thawed_once();

        let ours = Production::default();
        let call = || while_frozen(&ours, LONG, |_| -> Result<()> { panic!("placement panics") }, Ok);
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        ours.assert_thawed_once();

        let finished = AtomicUsize::new(0);
        let rude = Production { thaw_panics: true, ..Production::default() };
        let finish = |()| {
            finished.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let call = || while_frozen(&rude, LONG, Gate::pass, finish);
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        rude.assert_thawed_once();
        assert_eq!(finished.load(Ordering::SeqCst), 1, "what was placed becomes durable all the same");
    }
}
