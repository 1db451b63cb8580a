//! What time it is: the host's clock behind a trait, so that tests and replays supply their own.

use crate::units::TimeNs;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// A source of time in nanoseconds since the Unix epoch, UTC. It may step back; the group keeps its own times
/// non-decreasing.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> TimeNs;

    /// Nanoseconds of a clock that nobody sets, from any beginning; `None` where there is none. When the time departs from it by more than
    /// an hour, history is not dropped by age any more until that is confirmed.
    fn monotonic_ns(&self) -> Option<u64> {
        None
    }
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> TimeNs {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TimeNs::new(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }

    fn monotonic_ns(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).ok()
    }
}

/// A clock that stands still until it is set.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows `time`.
    pub fn new(time: TimeNs) -> Self {
        Self(AtomicU64::new(time.get()))
    }

    /// Sets the time, forwards or back.
    pub fn set(&self, time: TimeNs) {
        self.0.store(time.get(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> TimeNs {
        TimeNs::new(self.0.load(Ordering::SeqCst))
    }
}
