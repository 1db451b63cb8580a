//! The scenarios: what is measured, between which probes, and what it is to reach.
//!
//! A scenario prepares outside of its window and returns a closure that measures inside of it. Aims are those of the design; floors
//! are what the first slice of the engine has to reach at the least.

mod history;
mod ingest;
mod points;
mod read;
mod reopen;
mod restore;
mod resync;

pub use history::History;
pub use reopen::write_until_killed;

use crate::{
    error::{Context, Result, on_path},
    metric::{Bound, Unit},
    probe::{Probe, Rate},
    profile::Sizes,
    report::Meaning,
    scratch::Scratch,
    statistics::Latencies,
};
use cdp_core::{
    OpenOptions, Store,
    io::{DirectoryOptions, DirectoryStorage},
};
use std::{collections::BTreeMap, sync::Arc};

/// Store that a scenario may make; it is removed when its window is over.
pub const OWN_STORE: &str = "store";
/// File that a scenario may make; it is removed when its window is over.
pub const OWN_FILE: &str = "target";

/// What scenarios share.
pub struct Bench<'a> {
    /// Where everything lies.
    pub scratch: &'a Scratch,
    /// How much of everything.
    pub sizes: Sizes,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Times that a scenario was prepared; part of each seed, so that a repetition is not answered by caches.
    pub round: u64,
    /// The store with a history, once it was needed.
    pub history: Option<History>,
}

/// What was measured.
pub struct Measured {
    /// The figure.
    pub rate: Rate,
    /// More figures.
    pub details: BTreeMap<String, f64>,
}

impl Measured {
    /// A figure without details.
    pub fn new(rate: Rate) -> Self {
        Self { rate, details: BTreeMap::new() }
    }

    /// A figure of the time of one operation, in seconds.
    pub fn of_time(microseconds: f64) -> Self {
        Self::new(Rate { operations: 1, bytes: 0, seconds: microseconds / 1e6 })
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.details.insert(name.to_owned(), value);
        self
    }

    /// Adds the usual percentiles.
    #[must_use]
    pub fn with_latencies(mut self, latencies: &Latencies) -> Self {
        for (name, per_mille) in [("p50_us", 500), ("p99_us", 990), ("p999_us", 999), ("max_us", 1000)] {
            if let Some(value) = latencies.microseconds(per_mille) {
                self = self.with(name, value);
            }
        }
        self
    }
}

/// A measurement that is ready to run.
pub type Ready = Box<dyn FnOnce() -> Result<Measured>>;

/// A scenario.
pub struct Scenario {
    /// What its figure means.
    pub meaning: Meaning,
    /// Prepares it.
    pub prepare: fn(&mut Bench<'_>) -> Result<Ready>,
}

const MIBS: Unit = Unit::MebibytesPerSecond;
const RATE: Unit = Unit::PerSecond;

const fn at_least(ratio: f64) -> Option<Bound> {
    Some(Bound::RatioAtLeast(ratio))
}

const fn scenario(
    name: &'static str,
    title: &'static str,
    (unit, probe, probe_unit): (Unit, Probe, Unit),
    (aim, floor): (Option<Bound>, Option<Bound>),
    prepare: fn(&mut Bench<'_>) -> Result<Ready>,
) -> Scenario {
    Scenario { meaning: Meaning { name, title, unit, probe, probe_unit, aim, floor }, prepare }
}

/// All scenarios, in the order in which they run: those that need the most space first, those that change the shared history last.
pub const SCENARIOS: &[Scenario] = &[
    scenario(
        "ingest-4k-random",
        "4 KiB random writes by one producer, flush at the end counted",
        (MIBS, Probe::SequentialWrite, MIBS),
        (at_least(0.80), at_least(0.50)),
        ingest::random_4k,
    ),
    scenario(
        "ingest-4k-random-cow",
        "the same against the copy-on-write reference",
        (RATE, Probe::CopyOnWrite, RATE),
        (at_least(10.0), at_least(6.0)),
        ingest::random_4k,
    ),
    scenario(
        "ingest-4k-random-rw",
        "the same against raw random writes in place",
        (RATE, Probe::RandomWrite, RATE),
        (at_least(4.0), None),
        ingest::random_4k,
    ),
    scenario(
        "ingest-4k-producers",
        "4 KiB random writes by four producers",
        (MIBS, Probe::SequentialWrite, MIBS),
        (None, None),
        ingest::random_4k_producers,
    ),
    scenario(
        "ingest-64k-sequential",
        "64 KiB sequential writes by one producer",
        (MIBS, Probe::SequentialWrite, MIBS),
        (at_least(0.90), None),
        ingest::sequential_64k,
    ),
    scenario(
        "ingest-1m-sequential",
        "1 MiB sequential writes by one producer",
        (MIBS, Probe::SequentialWrite, MIBS),
        (at_least(0.90), None),
        ingest::sequential_1m,
    ),
    scenario(
        "ingest-4k-flush-64",
        "4 KiB random writes, a flush after every 64, against 256 KiB writes each synced",
        (MIBS, Probe::SyncedWrite, MIBS),
        (None, None),
        ingest::random_4k_flushed,
    ),
    scenario(
        "ingest-4k-hot",
        "4 KiB random writes to 256 MiB, to be compared with the next",
        (MIBS, Probe::SequentialWrite, MIBS),
        (None, None),
        ingest::hot_4k,
    ),
    scenario(
        "ingest-4k-thinned",
        "the same while history older than half a second is thinned away all the time",
        (MIBS, Probe::SequentialWrite, MIBS),
        (None, None),
        ingest::thinned_4k,
    ),
    scenario(
        "read-4k-point-warm",
        "4 KiB random reads at a point amid the history, 32 in flight, index in memory",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.80), at_least(0.60)),
        read::random_at_point_warm,
    ),
    scenario(
        "read-4k-point-cold",
        "the first 4,000 of them after each of several opens",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.45), None),
        read::random_at_point_cold,
    ),
    scenario(
        "read-4k-newest-warm",
        "4 KiB random reads of the newest state, 32 in flight, index in memory",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.80), at_least(0.60)),
        read::random_newest_warm,
    ),
    scenario(
        "read-seq-ordered",
        "1 MiB sequential reads, 4 in flight, at a point that was written in order",
        (MIBS, Probe::SequentialRead, MIBS),
        (at_least(0.80), None),
        read::sequential_ordered,
    ),
    scenario(
        "read-seq-scattered",
        "the same amid random overwrites, in 4 KiB blocks against raw random reads",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.80), None),
        read::sequential_scattered,
    ),
    scenario(
        "read-seq-newest",
        "the same of the newest state",
        (RATE, Probe::RandomRead, RATE),
        (None, None),
        read::sequential_newest,
    ),
    scenario(
        "point-open-warm",
        "resolve a time, open the point, read its first 4 KiB; 99 of 100 are done within",
        (Unit::Microseconds, Probe::SingleRead, Unit::Microseconds),
        (Some(Bound::AtMost(1000.0)), Some(Bound::AtMost(10_000.0))),
        points::open_warm,
    ),
    scenario(
        "point-open-cold",
        "the same, the first after opening the store; the slowest",
        (Unit::Microseconds, Probe::SingleRead, Unit::Microseconds),
        (Some(Bound::AtMost(10_000.0)), None),
        points::open_cold,
    ),
    scenario(
        "changed-blocks",
        "list the blocks changed between two points; index entries between them a second",
        (RATE, Probe::Computation, RATE),
        (Some(Bound::AtLeast(8e6)), None),
        points::changed,
    ),
    scenario(
        "restore-ordered",
        "restore a point that was written in order to a file, sync counted",
        (MIBS, Probe::Copy, MIBS),
        (at_least(0.85), None),
        restore::ordered,
    ),
    scenario(
        "restore-scattered",
        "restore a point amid random overwrites, in 4 KiB blocks against raw random reads",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.80), None),
        restore::scattered,
    ),
    scenario(
        "resync-digest-equal",
        "compare a source with an equal volume by digests, as ratio to reading it",
        (MIBS, Probe::SequentialRead, MIBS),
        (at_least(0.85), None),
        resync::equal,
    ),
    scenario(
        "reopen-small",
        "open a store of 256 MiB after kill -9 of its writer; the slowest",
        (Unit::Milliseconds, Probe::SequentialRead, MIBS),
        (Some(Bound::AtMostWithScan { milliseconds: 500.0, mebibytes: 128.0 }), None),
        reopen::small,
    ),
    scenario(
        "reopen-large",
        "the same with the whole history in the store",
        (Unit::Milliseconds, Probe::SequentialRead, MIBS),
        (Some(Bound::AtMostWithScan { milliseconds: 500.0, mebibytes: 128.0 }), None),
        reopen::large,
    ),
];

impl Bench<'_> {
    /// A storage for a new store.
    fn new_storage(&self, name: &str) -> Result<Arc<DirectoryStorage>> {
        let path = self.scratch.join(name);
        let made = DirectoryStorage::create(&path, DirectoryOptions::default());
        made.map(Arc::new).map_err(|error| on_path("create a store in", &path, error))
    }

    /// Opens the store with a history, for reading.
    fn open_history(&self) -> Result<Store> {
        open_read_only(&self.scratch.join(history::STORE))
    }
}

/// Opens a store for reading.
fn open_read_only(path: &std::path::Path) -> Result<Store> {
    let storage = DirectoryStorage::open_read_only(path, DirectoryOptions::default());
    let storage = storage.map_err(|error| on_path("open", path, error))?;
    Store::open_read_only(Arc::new(storage), OpenOptions::default()).when("open the store for reading")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Goal: scenarios can be told apart and named on a command line, and every aim can be computed from what is measured.
    /// Method: look at the table.
    #[test]
    fn the_table_of_scenarios_is_sound() {
        let names: HashSet<_> = SCENARIOS.iter().map(|scenario| scenario.meaning.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for Scenario { meaning, .. } in SCENARIOS {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(meaning.name.chars().all(plain), "{}", meaning.name);
            for bound in [meaning.aim, meaning.floor].into_iter().flatten() {
                match bound {
                    Bound::RatioAtLeast(_) => assert!(meaning.has_ratio(), "{}", meaning.name),
                    Bound::AtLeast(_) => assert!(meaning.unit.more_is_better(), "{}", meaning.name),
                    Bound::AtMost(_) => assert!(!meaning.unit.more_is_better(), "{}", meaning.name),
                    Bound::AtMostWithScan { .. } => {
                        assert_eq!((meaning.unit, meaning.probe_unit), (Unit::Milliseconds, MIBS));
                    }
                }
            }
        }
    }
}
