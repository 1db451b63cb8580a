//! Workers: a number of threads that each keep one operation in flight, which is how a queue depth is made here.
//!
//! Probes and measurements use the same workers, so that what the threads themselves cost is on both sides of a ratio. Invariant
//! *bounded*: no more operations than the limit are begun, and none after the time is over.

use crate::{error::Result, statistics::Latencies};
use std::{
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this time.
    pub time: Duration,
    /// After this many operations.
    pub operations: u64,
}

/// What the workers did.
pub struct Driven {
    /// When they began.
    pub started: Instant,
    /// Operations that were completed.
    pub operations: u64,
    /// Time of each operation.
    pub latencies: Latencies,
}

/// Runs `depth` workers at once and waits for them. `worker` makes one, before the clock starts; it is then called with the number
/// of each operation that it is to do. Numbers ascend from 0, each is given out once.
///
/// # Errors
/// The first failure of a worker; the others stop.
pub fn drive<W>(depth: usize, limits: Limits, mut worker: impl FnMut(u64) -> Result<W>) -> Result<Driven>
where
    W: FnMut(u64) -> Result<()> + Send,
{
    let workers = (0u64..).take(depth).map(&mut worker).collect::<Result<Vec<W>>>()?;
    let next = AtomicU64::new(0);
    let start = Barrier::new(depth + 1);
    let (started, outcomes) = thread::scope(|scope| {
        let handles: Vec<_> = workers
            .into_iter()
            .map(|mut step| {
                let (next, start) = (&next, &start);
                scope.spawn(move || {
                    start.wait();
                    let outcome = work(&mut step, next, limits);
                    if outcome.is_err() {
                        next.store(limits.operations, Ordering::Relaxed);
                    }
                    outcome
                })
            })
            .collect();
        start.wait();
        let started = Instant::now();
        let join = |handle: thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (started, handles.into_iter().map(join).collect::<Vec<Result<Vec<u64>>>>())
    });
    let mut samples = Vec::new();
    for outcome in outcomes {
        samples.append(&mut outcome?);
    }
    let operations = u64::try_from(samples.len()).unwrap_or(u64::MAX);
    Ok(Driven { started, operations, latencies: Latencies::new(samples) })
}

fn work(step: &mut impl FnMut(u64) -> Result<()>, next: &AtomicU64, limits: Limits) -> Result<Vec<u64>> {
    let mut samples = Vec::new();
    let started = Instant::now();
    let mut before = started;
    // The end of one operation is the beginning of the next: one look at the clock for each.
    while before.duration_since(started) < limits.time {
        let operation = next.fetch_add(1, Ordering::Relaxed);
        if operation >= limits.operations {
            break;
        }
        step(operation)?;
        let now = Instant::now();
        samples.push(u64::try_from(now.duration_since(before).as_nanos()).unwrap_or(u64::MAX));
        before = now;
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::{collections::HashSet, sync::Mutex};

    const LONG: Duration = Duration::from_secs(600);

    /// Goal: each number is given out once, none beyond the limit, and all are counted.
    /// Method: four workers note what they get.
    #[test]
    fn every_operation_is_done_once() {
        let seen = Mutex::new(HashSet::new());
        let limits = Limits { time: LONG, operations: 1000 };
        let step = |operation| {
            assert!(seen.lock().unwrap().insert(operation));
            Ok(())
        };
        let driven = drive(4, limits, |_| Ok(step)).unwrap();
        assert_eq!((driven.operations, driven.latencies.len()), (1000, 1000));
        assert_eq!(*seen.lock().unwrap(), (0..1000).collect());
    }

    /// Goal: a failing worker ends the others and its failure is what comes back.
    /// Method: the tenth operation fails, of a number that would never end.
    #[test]
    fn a_failure_ends_all_workers() {
        let limits = Limits { time: LONG, operations: u64::MAX >> 1 };
        let step = |operation| if operation == 10 { Err(Error::Usage("ten".into())) } else { Ok(()) };
        let outcome = drive(3, limits, |_| Ok(step));
        assert!(matches!(outcome, Err(Error::Usage(text)) if text == "ten"));
    }

    /// Goal: no operation begins after the time is over.
    /// Method: no time at all.
    #[test]
    fn no_time_means_no_operation() {
        let limits = Limits { time: Duration::ZERO, operations: 10 };
        assert_eq!(drive(2, limits, |_| Ok(|_| Ok(()))).unwrap().operations, 0);
    }
}
