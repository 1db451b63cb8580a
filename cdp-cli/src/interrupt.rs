//! Ctrl-C and SIGTERM as a flag that long work looks at, so that it can clean up behind itself.

use crate::exit::{Failure, Outcome};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Set once the user wants the command to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over the signals; the process no longer ends by itself when one arrives.
    ///
    /// # Errors
    /// `Failed` when the operating system refuses.
    pub fn register() -> Outcome<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))
                .map_err(|source| Failure::new(format!("take over signal {signal}: {source}")))?;
        }
        Ok(interrupt)
    }

    /// Sets the flag, as a signal would.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the command should end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error when the command should end.
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn check(&self) -> io::Result<()> {
        if self.is_set() { Err(io::Error::other("interrupted")) } else { Ok(()) }
    }
}
