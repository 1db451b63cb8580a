//! Workers that begin each operation when it is due, so that a load has a rate; only the operation itself is timed.
//!
//! An operation that is late is begun at once, and those after it stay due when they were: what a stall delays is caught up with, as
//! a host would. The wait between two operations spins when it is short: a sleep would end tens of microseconds late.
//!
//! Before each operation a fixed piece of arithmetic, which touches no memory, is timed as well. On a virtual machine whose host gives
//! the processor to others, it takes ten times as long for tens of milliseconds at a time, and whatever runs then does too. Operations
//! next to such a piece are counted apart, by a sign that does not depend on how long they took themselves.

use crate::{error::Result, statistics::Latencies};
use std::{
    hint::{black_box, spin_loop},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// The shortest wait that is slept and not spun.
const SLEEP_MIN: Duration = Duration::from_micros(200);

/// Rounds of the piece of arithmetic: a tenth of a microsecond or two.
const ARITHMETIC_ROUNDS: u64 = 100;
/// How many times its median the piece of arithmetic takes when the processor was slowed.
const SLOWED_TIMES: u64 = 3;

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
    /// Those of them that ran while the processor was at its speed.
    pub at_speed: Latencies,
    /// Seconds from the first to the last.
    pub seconds: f64,
}

impl Paced {
    /// Share of the operations that ran while the processor was slowed, 0 to 1.
    pub fn slowed_share(&self) -> f64 {
        1.0 - self.at_speed.len() as f64 / self.latencies.len().max(1) as f64
    }
}

/// An operation, nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The piece of arithmetic before it.
    arithmetic: u64,
    operation: u64,
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
        (started, handles.into_iter().map(join).collect::<Vec<Result<Vec<Sample>>>>())
    });
    let seconds = started.elapsed().as_secs_f64();
    let (mut all, mut at_speed) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        let samples = outcome?;
        all.extend(samples.iter().map(|sample| sample.operation));
        at_speed.extend(operations_at_speed(&samples));
    }
    Ok(Paced { latencies: Latencies::new(all), at_speed: Latencies::new(at_speed), seconds })
}

fn work(
    step: &mut impl FnMut(u64) -> Result<Duration>,
    interval: Duration,
    time: Duration,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let started = Instant::now();
    let mut due = started;
    for operation in 0.. {
        wait_until(due);
        if due.duration_since(started) >= time || started.elapsed() >= time * 2 {
            break;
        }
        due += interval;
        let arithmetic = nanoseconds(time_arithmetic());
        samples.push(Sample { arithmetic, operation: nanoseconds(step(operation)?) });
    }
    Ok(samples)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn time_arithmetic() -> Duration {
    let started = Instant::now();
    // Each round needs the one before, so that nothing runs side by side.
    let product =
        (0..ARITHMETIC_ROUNDS).fold(1, |product: u64, round| black_box(product).wrapping_mul(round | 1));
    black_box(product);
    started.elapsed()
}

/// The operations of a worker, in their order, whose pieces of arithmetic before and behind took about as long as usual.
fn operations_at_speed(samples: &[Sample]) -> impl Iterator<Item = u64> {
    let mut usual: Vec<u64> = samples.iter().map(|sample| sample.arithmetic).collect();
    usual.sort_unstable();
    let bound = usual.get(usual.len() / 2).map_or(0, |median| median.saturating_mul(SLOWED_TIMES));
    let is_slowed = move |sample: &Sample| sample.arithmetic > bound;
    samples.iter().enumerate().filter_map(move |(at, sample)| {
        let slowed = is_slowed(sample) || samples.get(at + 1).is_some_and(is_slowed);
        (!slowed).then_some(sample.operation)
    })
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

    /// Goal: what is counted apart is told by the arithmetic next to it and never by its own time.
    /// Method: a slow operation at full speed; a quick one and a slow one while the processor is slowed, which begins behind the one before.
    #[test]
    fn operations_are_left_out_by_the_arithmetic_beside_them() {
        let sample = |(arithmetic, operation)| Sample { arithmetic, operation };
        let samples =
            [(100, 1), (110, 9000), (100, 3), (1000, 4), (900, 5000), (120, 6), (300, 7)].map(sample);
        assert_eq!(operations_at_speed(&samples).collect::<Vec<_>>(), [1, 9000, 6, 7]);
        assert_eq!(operations_at_speed(&[]).count(), 0);
        let paced = Paced {
            latencies: Latencies::new(vec![1, 2, 3, 4]),
            at_speed: Latencies::new(vec![1, 2, 3]),
            seconds: 1.0,
        };
        assert_eq!(paced.slowed_share(), 0.25);
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
