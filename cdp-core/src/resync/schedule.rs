//! When taps resync by themselves, which first, and how fast. Pure: time and figures come from outside.

use crate::{
    error::{Error, Result},
    units::TimeNs,
};
use std::{num::NonZeroUsize, time::Duration};

const DAY_NS: u64 = 86_400_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Slowest that a resync is made for the sake of production, bytes a second.
const SLOWEST: u64 = 1 << 20;
/// How fast one that follows production begins, bytes a second.
const FIRST: u64 = 16 << 20;
/// Fastest that one which follows production becomes without a bound of its own, bytes a second.
const FASTEST: u64 = 4 << 30;
/// How often the speed follows the latency of production.
const ADAPT_EVERY_NS: u64 = 100_000_000;
/// How old a measurement may be that it follows.
const LATE_NS: u64 = SECOND_NS;
/// How often it grows for the time that has passed since it last did.
const GROWTHS_MAX: u64 = 20;
/// A clock that stands further before a moment to come than this was set back.
const AHEAD_MAX_NS: u64 = 60 * SECOND_NS;

/// A part of each day, in UTC: from `from` after midnight until before `to`; past midnight when `to` is not later than `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Begin, after midnight; less than a day.
    pub from: Duration,
    /// End, after midnight; at most a day.
    pub to: Duration,
}

impl Hours {
    fn contains(self, now: TimeNs) -> bool {
        let at = Duration::from_nanos(now.get() % DAY_NS);
        if self.from < self.to { self.from <= at && at < self.to } else { self.from <= at || at < self.to }
    }
}

/// When the taps of a store resync by themselves. The default: at once, all of them, as fast as they can. It belongs to the open store and is
/// not recorded. What is asked for with [`Tap::resync`](crate::Tap::resync) goes by its own options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResyncSchedule {
    /// How long a volume differs from its source before its resync begins: a source that comes and goes is not read for nothing.
    pub delay: Duration,
    /// The parts of the day in which they go on; empty: all day. Outside of them writes are marked in the dirty map.
    pub hours: Vec<Hours>,
    /// How many volumes resync at the same time; `None`: all.
    pub volumes_at_once: Option<NonZeroUsize>,
    /// Volumes that come first, by name, the most urgent one first; the others follow in the order in which they began to differ.
    pub first: Vec<String>,
    /// Bytes of all sources together that are compared in a second at most.
    pub bytes_per_second_max: Option<u64>,
    /// Latency of production that resync may not drive it beyond: the host says what it measures
    /// ([`Store::note_production_latency`](crate::Store::note_production_latency)), and resync becomes slower and faster by it.
    pub latency_max: Option<Duration>,
}

impl ResyncSchedule {
    /// Holds the schedule against what its fields may be.
    ///
    /// # Errors
    /// `InvalidArgument` with the field and the reason.
    pub fn validate(&self) -> Result<()> {
        let day = Duration::from_nanos(DAY_NS);
        let refuse = |text: &str| Err(Error::InvalidArgument(format!("resync schedule: {text}")));
        if self.hours.iter().any(|hours| hours.from >= day || hours.to > day) {
            return refuse("hours: a day has 24 hours");
        }
        if self.hours.iter().any(|hours| hours.from == hours.to) {
            return refuse("hours: a part of the day that ends where it begins; leave hours out for all day");
        }
        if self.bytes_per_second_max == Some(0) {
            return refuse("bytes_per_second_max: 0 would never end; suspend the taps instead");
        }
        if self.latency_max == Some(Duration::ZERO) {
            return refuse("latency_max: no production has a latency of 0");
        }
        Ok(())
    }

    /// Which of the volumes that differ may go on now, by their places in the list.
    pub(crate) fn admitted(&self, now: TimeNs, waiting: &[Waiting<'_>]) -> Vec<usize> {
        if !self.hours.is_empty() && !self.hours.iter().any(|hours| hours.contains(now)) {
            return Vec::new();
        }
        let delay = u64::try_from(self.delay.as_nanos()).unwrap_or(u64::MAX);
        let is_due = |one: &Waiting<'_>| one.has_begun || now.get().saturating_sub(one.since.get()) >= delay;
        let mut due: Vec<usize> = (0..waiting.len()).filter(|place| is_due(&waiting[*place])).collect();
        let rank = |name: &str| self.first.iter().position(|first| first == name).unwrap_or(self.first.len());
        // Who has begun goes on before another one of the same urgency.
        due.sort_by_key(|place| {
            let one = &waiting[*place];
            (rank(one.volume), !one.has_begun, one.since, *place)
        });
        due.truncate(self.volumes_at_once.map_or(usize::MAX, NonZeroUsize::get));
        due
    }
}

/// A volume that differs from its source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting<'a> {
    pub volume: &'a str,
    /// Since when.
    pub since: TimeNs,
    /// Its resync has begun.
    pub has_begun: bool,
}

/// How fast resync goes, all volumes together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throttle {
    /// Nothing is compared before.
    not_before: TimeNs,
    /// What production allows, bytes a second; 0: nothing was measured yet.
    allowed: u64,
    /// Latency of production, nanoseconds, averaged, and when it was last measured.
    latency_ns: u64,
    measured_at: Option<TimeNs>,
    adapted_at: TimeNs,
}

impl Throttle {
    /// Whether anything may be compared now.
    pub fn is_open(&mut self, now: TimeNs) -> bool {
        if self.not_before.get().saturating_sub(now.get()) > AHEAD_MAX_NS {
            self.not_before = now;
        }
        now >= self.not_before
    }

    /// Takes note of what production measures.
    pub fn note_latency(&mut self, now: TimeNs, latency: Duration) {
        let latency = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency_ns =
            if self.latency_ns == 0 { latency } else { self.latency_ns - self.latency_ns / 8 + latency / 8 };
        self.measured_at = Some(now);
    }

    /// Takes note of bytes that were compared.
    pub fn spend(&mut self, schedule: &ResyncSchedule, now: TimeNs, bytes: u64) {
        let Some(rate) = self.rate(schedule, now) else { return };
        let cost = u128::from(bytes) * u128::from(SECOND_NS) / u128::from(rate.max(1));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX).min(AHEAD_MAX_NS);
        self.not_before = TimeNs::new(self.not_before.max(now).get().saturating_add(cost));
    }

    /// Bytes a second; `None`: no bound. Halved while production is slower than it may be, and a tenth more each time that it is not.
    fn rate(&mut self, schedule: &ResyncSchedule, now: TimeNs) -> Option<u64> {
        let most = schedule.bytes_per_second_max;
        let Some(latency_max) = schedule.latency_max else { return most };
        let ceiling = most.unwrap_or(FASTEST);
        if self.allowed == 0 {
            (self.allowed, self.adapted_at) = (ceiling.min(FIRST), now);
        }
        let times = now.get().abs_diff(self.adapted_at.get()) / ADAPT_EVERY_NS;
        if times > 0 {
            self.adapted_at = now;
            // Without a measurement of late nobody is there to be slowed.
            let is_late = |at: TimeNs| now.get().abs_diff(at.get()) <= LATE_NS;
            if self.measured_at.is_some_and(is_late) && u128::from(self.latency_ns) > latency_max.as_nanos() {
                self.allowed /= 2;
            } else {
                (0..times.min(GROWTHS_MAX)).for_each(|_| self.allowed += self.allowed / 10 + SLOWEST);
            }
        }
        self.allowed = self.allowed.clamp(SLOWEST.min(ceiling), ceiling);
        Some(self.allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(hours: u64) -> TimeNs {
        TimeNs::new(400 * DAY_NS + hours * 3600 * SECOND_NS)
    }

    fn waiting(volume: &str, since: u64, has_begun: bool) -> Waiting<'_> {
        Waiting { volume, since: at(since), has_begun }
    }

    /// Goal: a part of the day is what it says, also over midnight. Method: each hour of a day.
    #[test]
    fn hours_are_parts_of_the_day_also_over_midnight() {
        let allowed = |from: u32, to: u32| {
            let schedule = ResyncSchedule {
                hours: vec![Hours { from: HOUR * from, to: HOUR * to }],
                ..Default::default()
            };
            schedule.validate().unwrap();
            (0..24)
                .filter(|hour| !schedule.admitted(at(*hour), &[waiting("a", 0, true)]).is_empty())
                .collect::<Vec<_>>()
        };
        assert_eq!(allowed(1, 5), [1, 2, 3, 4]);
        assert_eq!(allowed(22, 2), [0, 1, 22, 23]);
        assert_eq!(allowed(20, 24), [20, 21, 22, 23]);
    }

    /// Goal: urgency, then who has begun, then who waits longest; not more than allowed; none before its delay. Method: small lists.
    #[test]
    fn volumes_are_admitted_in_order() {
        let all =
            [waiting("a", 3, false), waiting("b", 1, false), waiting("c", 2, true), waiting("d", 4, false)];
        let schedule = ResyncSchedule { first: vec!["d".into()], ..Default::default() };
        assert_eq!(schedule.admitted(at(10), &all), [3, 2, 1, 0]);
        let two = ResyncSchedule { volumes_at_once: NonZeroUsize::new(2), ..schedule.clone() };
        assert_eq!(two.admitted(at(10), &all), [3, 2]);
        let late = ResyncSchedule { delay: HOUR * 2, ..schedule };
        assert_eq!(late.admitted(at(2), &all), [2], "one has begun, the others differ for less");
        assert_eq!(late.admitted(at(3), &all), [2, 1]);
    }

    /// Goal: the bound on bytes holds over any time, and a clock that is set back stops nothing for long. Method: pieces as soon as they are
    /// allowed; the clock set back by a year.
    #[test]
    fn a_bound_on_bytes_is_kept() {
        let schedule = ResyncSchedule { bytes_per_second_max: Some(10 << 20), ..Default::default() };
        let (mut throttle, mut compared) = (Throttle::default(), 0_u64);
        for tick in 0..10_000_u64 {
            let now = TimeNs::new(at(0).get() + tick * 1_000_000);
            if throttle.is_open(now) {
                throttle.spend(&schedule, now, 1 << 20);
                compared += 1 << 20;
            }
        }
        assert!((95 << 20..=101 << 20).contains(&compared), "{compared} in ten seconds");
        assert!(throttle.is_open(TimeNs::new(SECOND_NS)), "set back");
    }

    /// Goal: resync gives way to production and comes back. Method: latencies above and below what is allowed, the speed after each.
    #[test]
    fn the_speed_follows_the_latency_of_production() {
        let schedule = ResyncSchedule {
            latency_max: Some(Duration::from_millis(2)),
            bytes_per_second_max: Some(1 << 30),
            ..Default::default()
        };
        let mut throttle = Throttle::default();
        let mut now = at(1).get();
        let mut run = |throttle: &mut Throttle, latency: Option<u64>, ticks: u64| {
            for _ in 0..ticks {
                now += ADAPT_EVERY_NS;
                let at = TimeNs::new(now);
                latency.into_iter().for_each(|ms| throttle.note_latency(at, Duration::from_millis(ms)));
                throttle.rate(&schedule, TimeNs::new(now));
            }
            throttle.rate(&schedule, TimeNs::new(now)).unwrap()
        };
        assert!(run(&mut throttle, Some(1), 5) < 64 << 20, "it begins slowly");
        assert_eq!(run(&mut throttle, Some(1), 100), 1 << 30);
        assert_eq!(run(&mut throttle, Some(50), 60), SLOWEST);
        assert_eq!(run(&mut throttle, None, 120), 1 << 30, "nobody is there");
        assert!(run(&mut throttle, Some(50), 3) < 1 << 29);
        assert_eq!(run(&mut throttle, Some(1), 200), 1 << 30);
    }

    /// Goal: a schedule that cannot be meant is refused with its field. Method: one of each kind.
    #[test]
    fn schedules_that_cannot_be_meant_are_refused() {
        let hours = |from, to| ResyncSchedule { hours: vec![Hours { from, to }], ..Default::default() };
        for (schedule, field) in [
            (hours(HOUR * 24, HOUR), "hours"),
            (hours(HOUR, HOUR * 25), "hours"),
            (hours(HOUR, HOUR), "hours"),
            (ResyncSchedule { bytes_per_second_max: Some(0), ..Default::default() }, "bytes_per_second_max"),
            (ResyncSchedule { latency_max: Some(Duration::ZERO), ..Default::default() }, "latency_max"),
        ] {
            let refused = schedule.validate().expect_err(field).to_string();
            assert!(refused.contains(field), "{refused}");
        }
    }
}
