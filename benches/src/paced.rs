//! Workers that begin each operation when it is due, so that a load has a rate; only the operation itself is timed.
//!
//! An operation that is late is begun at once, and those after it stay due when they were: what a stall delays is caught up with, as
//! a host would. The wait between two operations spins when it is short: a sleep would end tens of microseconds late.

use crate::{error::Result, statistics::Latencies};
use std::{
    hint::spin_loop,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// The shortest wait that is slept and not spun.
const SLEEP_MIN: Duration = Duration::from_micros(200);

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Threads.
    pub producers: usize,
    /// Operations a second, of all of them together.
    pub per_second: u32,
    /// How long.
    pub time: Duration,
}

/// What was done.
pub struct Paced {
    /// Time of each operation.
    pub latencies: Latencies,
    /// Seconds from the first to the last.
    pub seconds: f64,
}

/// Runs `producers` workers and waits for them. `worker` makes one, before the clock starts; it is called with the number of each of its
/// own operations and returns how long that took.
///
/// # Errors
/// The first failure of a worker; the others go on to their end.
pub fn pace<W>(pace: Pace, mut worker: impl FnMut(u64) -> Result<W>) -> Result<Paced>
where
    W: FnMut(u64) -> Result<Duration> + Send,
{
    let workers = (0u64..).take(pace.producers).map(&mut worker).collect::<Result<Vec<W>>>()?;
    let producers = u32::try_from(pace.producers).unwrap_or(u32::MAX);
    let interval = Duration::from_secs(1) * producers / pace.per_second.max(1);
    let start = Barrier::new(pace.producers + 1);
    let (started, outcomes) = thread::scope(|scope| {
        let handles: Vec<_> = workers
            .into_iter()
            .map(|mut step| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    work(&mut step, interval, pace.time)
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
    let seconds = started.elapsed().as_secs_f64();
    let mut samples = Vec::new();
    for outcome in outcomes {
        samples.append(&mut outcome?);
    }
    Ok(Paced { latencies: Latencies::new(samples), seconds })
}

fn work(
    step: &mut impl FnMut(u64) -> Result<Duration>,
    interval: Duration,
    time: Duration,
) -> Result<Vec<u64>> {
    let mut samples = Vec::new();
    let started = Instant::now();
    let mut due = started;
    for operation in 0.. {
        wait_until(due);
        if due.duration_since(started) >= time || started.elapsed() >= time * 2 {
            break;
        }
        due += interval;
        samples.push(u64::try_from(step(operation)?.as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(samples)
}

fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > SLEEP_MIN { thread::sleep(left - SLEEP_MIN / 2) } else { spin_loop() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the rate is kept in all, whatever the number of producers, and each operation is timed by itself.
    /// Method: a tenth of a second of operations that say a fixed time, by one and by two producers.
    #[test]
    fn the_rate_is_that_of_all_producers() {
        for producers in [1, 2] {
            let load = Pace { producers, per_second: 1000, time: Duration::from_millis(100) };
            let paced = pace(load, |_| Ok(|_| Ok(Duration::from_nanos(2500)))).unwrap();
            let count = paced.latencies.len();
            // A busy machine may end it early, never late in number.
            assert!((2..=100).contains(&count), "{count}");
            assert_eq!(paced.latencies.microseconds(1000), Some(2.5));
            assert!(paced.seconds >= 0.05);
        }
    }

    /// Goal: a failure comes back.
    /// Method: the third operation fails.
    #[test]
    fn a_failure_comes_back() {
        let load = Pace { producers: 1, per_second: 100_000, time: Duration::from_secs(9) };
        let fail = |number| {
            if number == 2 { Err(crate::error::Error::Usage("two".into())) } else { Ok(Duration::ZERO) }
        };
        assert!(pace(load, |_| Ok(fail)).is_err());
    }
}
