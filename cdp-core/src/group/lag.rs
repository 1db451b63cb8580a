//! How far what is durable lies behind what was written: the recovery point objective at this moment.
//!
//! A captured write carries the time that its host gave it, and hosts may date writes by a clock of their own. So a time is believed only
//! when it lies between the last moment at which the pool was seen empty and now; otherwise that moment is taken, which makes the age of the
//! write too large and never too small. Nothing here adds a look at the clock, or anything else, to the path of a write.

use super::Group;
use crate::units::{TimeNs, len_u64};
use std::sync::atomic::{AtomicU64, Ordering};

/// Nothing is on its way.
const NONE: u64 = u64::MAX;

/// When a write arrived: the time that it was given, and a moment by the clock of the host before which it cannot have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    given: TimeNs,
    /// 0: it is not known.
    floor: TimeNs,
}

impl Arrival {
    /// When it arrived, as far as that can be told at `now`.
    fn at(self, now: TimeNs) -> TimeNs {
        if (self.floor..=now).contains(&self.given) {
            return self.given;
        }
        if self.floor == TimeNs::ZERO { now } else { self.floor.min(now) }
    }
}

/// When what is not durable yet arrived.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// Of what is on its way into the journal, changed under the turn; none: nothing is.
    taking: AtomicU64,
    taking_floor: AtomicU64,
    /// By the clock of the host: whatever was captured before this has left the pool. 0: it is not known yet.
    drained: AtomicU64,
}

impl Default for Arrivals {
    fn default() -> Self {
        let word = AtomicU64::new;
        Self { taking: word(NONE), taking_floor: word(0), drained: word(0) }
    }
}

impl Arrivals {
    /// A write that is in the pool, or has just left it.
    pub fn of(&self, given: TimeNs) -> Arrival {
        Arrival { given, floor: TimeNs::new(self.drained.load(Ordering::Relaxed)) }
    }

    /// Something is about to enter the journal.
    pub fn take(&self, arrival: Arrival) {
        self.taking_floor.store(arrival.floor.get(), Ordering::Relaxed);
        self.taking.store(arrival.given.get(), Ordering::Relaxed);
    }

    /// It has entered, or stays where it is noted otherwise.
    pub fn taken(&self) {
        self.taking.store(NONE, Ordering::Relaxed);
    }

    /// When that arrived which is entering the journal now.
    pub fn of_taking(&self, now: TimeNs) -> Option<TimeNs> {
        let given = self.taking.load(Ordering::Relaxed);
        let floor = TimeNs::new(self.taking_floor.load(Ordering::Relaxed));
        (given != NONE).then(|| Arrival { given: TimeNs::new(given), floor }.at(now))
    }
}

/// How far what is durable lies behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Bytes that were captured and are not durable yet.
    pub bytes: u64,
    /// Age of the oldest write that was captured and is not durable yet, nanoseconds: what a crash at this moment would lose. At most too
    /// large, where writes are dated by another clock than that of the store.
    pub age_ns: u64,
}

impl Group {
    /// Notes that nothing waits in the pool, or between it and the journal, when that is so. `now` was looked at before this call.
    pub fn note_drained(&self, now: TimeNs) {
        let idle = self.capture().is_none_or(|capture| capture.pool.is_idle());
        if idle && self.arrivals.taking.load(Ordering::Relaxed) == NONE && self.held_back().is_none() {
            self.arrivals.drained.store(now.get(), Ordering::Relaxed);
        }
    }

    /// How far what is durable lies behind at this moment.
    pub fn lag(&self) -> Lag {
        let (mut bytes, mut given, mut known) = (0, Vec::new(), Vec::new());
        if let Some(capture) = self.capture() {
            bytes += capture.pool.statistics().bytes_waiting;
            // While a drain is at work, what it takes over is the oldest.
            if let Some(mut consumer) = capture.pool.consumer()
                && let Some(oldest) = consumer.peek()
            {
                // Of a producer that is at it only now nothing is known.
                given.push(self.arrivals.of(oldest.map_or(TimeNs::ZERO, |write| write.time)));
            }
        }
        if let Some((time, held)) = self.held_back() {
            bytes += held;
            given.push(self.arrivals.of(time));
        }
        {
            let waiting = self.waiting.lock();
            bytes += waiting.bytes();
            given.extend(waiting.since());
        }
        {
            let commit = self.commit.lock();
            for frame in commit.frames() {
                bytes += len_u64(frame.bytes().len());
                known.push(frame.captured_at);
            }
        }
        {
            let append = self.append.lock();
            if let Some(open) = append.open.as_ref().filter(|open| !open.is_empty()) {
                bytes += open.payload_bytes();
                known.push(append.oldest_at);
            }
        }
        // Last: what was looked at so far is not younger than this.
        let now = self.shared.clock.now();
        let arrived = given.into_iter().map(|arrival| arrival.at(now));
        let oldest = arrived.chain(self.arrivals.of_taking(now)).chain(known).min();
        Lag { bytes, age_ns: oldest.map_or(0, |oldest| now.get().saturating_sub(oldest.get())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a time is believed when it can be true, and otherwise the age is too large rather than too small. Method: times around both
    /// ends, and before anything is known.
    #[test]
    fn only_times_that_can_be_true_are_believed() {
        let arrivals = Arrivals::default();
        let at = TimeNs::new;
        assert_eq!(arrivals.of(at(70)).at(at(100)), at(70), "nothing is known against it");
        assert_eq!(arrivals.of(at(170)).at(at(100)), at(100));
        arrivals.drained.store(50, Ordering::Relaxed);
        for (given, arrived) in [(49, 50), (50, 50), (70, 70), (100, 100), (101, 50), (0, 50)] {
            assert_eq!(arrivals.of(at(given)).at(at(100)), at(arrived), "{given}");
        }
        assert_eq!(arrivals.of(at(60)).at(at(40)), at(40), "a clock that was set back");
        assert_eq!(arrivals.of_taking(at(100)), None);
        arrivals.take(arrivals.of(at(60)));
        arrivals.drained.store(90, Ordering::Relaxed);
        assert_eq!(arrivals.of_taking(at(100)), Some(at(60)), "it arrived before the pool was empty");
        arrivals.taken();
        assert_eq!(arrivals.of_taking(at(100)), None);
    }
}
