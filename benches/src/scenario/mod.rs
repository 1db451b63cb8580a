//! The scenarios: what is measured, between which probes, and what it is to reach.
//!
//! A scenario prepares outside of its window and returns a closure that measures inside of it. One that cannot be measured here
//! fails with [`Skip`](crate::error::Error::Skip) and the reason; the run goes on without it.

mod bookmark;
mod capture;
mod export;
mod history;
mod ingest;
mod memory;
mod mirror;
mod mixed;
mod overload;
mod points;
mod read;
mod reopen;
mod replay;
mod restore;
mod resync;
mod staircase;
mod table;
mod tapped;
mod thinning;
mod versions;
mod yardstick;

pub use history::History;
pub use memory::measure_memory;
pub use reopen::write_until_killed;
pub use table::SCENARIOS;

use crate::{
    curve::Series,
    device::Device,
    error::{Context, Error, Result, on_path},
    probe::Rate,
    profile::{Profile, Sizes},
    report::{Findings, Meaning},
    scratch::Scratch,
    statistics::Latencies,
};
use cdp_core::{
    OpenOptions, Store,
    io::{DirectoryOptions, DirectoryStorage, Storage},
};
use std::{path::PathBuf, sync::Arc};

/// Store that a scenario may make; it is removed when its window is over.
pub const OWN_STORE: &str = "store";
/// File that a scenario may make; it is removed when its window is over.
pub const OWN_FILE: &str = "target";

/// Name of the scenario that replays a block trace.
pub const TRACE: &str = "trace";

/// What scenarios share.
pub struct Bench<'a> {
    /// Where everything lies.
    pub scratch: &'a Scratch,
    /// The raw device on which probes and stores lie instead, where the user named one.
    pub device: Option<&'a Device>,
    /// How much of everything.
    pub sizes: Sizes,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Times that a scenario was prepared; part of each seed, so that a repetition is not answered by caches.
    pub round: u64,
    /// A block trace to be replayed.
    pub trace: Option<PathBuf>,
    /// The store with a history, once it was needed.
    pub history: Option<History>,
}

/// What was measured.
#[derive(Clone)]
pub struct Measured {
    /// The figure.
    pub rate: Rate,
    /// What else was found.
    pub findings: Findings,
}

impl Measured {
    /// A figure without details.
    pub fn new(rate: Rate) -> Self {
        Self { rate, findings: Findings::default() }
    }

    /// A figure of the time of one operation, in seconds.
    pub fn of_time(microseconds: f64) -> Self {
        Self::new(Rate { operations: 1, bytes: 0, seconds: microseconds / 1e6 })
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.findings.details.insert(name.to_owned(), value);
        self
    }

    /// Adds the usual percentiles and the distribution.
    #[must_use]
    pub fn with_latencies(mut self, latencies: &Latencies) -> Self {
        for (name, per_mille) in [("p50_us", 500), ("p99_us", 990), ("p999_us", 999), ("max_us", 1000)] {
            if let Some(value) = latencies.microseconds(per_mille) {
                self = self.with(name, value);
            }
        }
        self.findings.latencies = Some(latencies.histogram());
        self
    }

    /// Adds a series.
    #[must_use]
    pub fn with_series(mut self, series: Series) -> Self {
        self.findings.series.push(series);
        self
    }

    /// Adds the commands of other programs.
    #[must_use]
    pub fn with_commands(mut self, commands: Vec<String>) -> Self {
        self.findings.commands = commands;
        self
    }
}

/// A measurement that is ready to run.
pub struct Ready {
    /// Runs it.
    pub measure: Box<dyn FnOnce() -> Result<Measured>>,
    /// The scenario's own probe, where the device is not what it is to be held against ([`crate::probe::Probe::Own`]).
    pub reference: Option<Reference>,
}

/// A probe that a scenario brings along: it is run before and after the measurement.
pub struct Reference {
    /// How it is done, for the report.
    pub how: String,
    /// Runs it.
    pub measure: Box<dyn FnMut() -> Result<Measured>>,
}

impl Ready {
    /// A measurement between raw probes.
    #[expect(clippy::unnecessary_wraps, reason = "the last expression of every scenario")]
    pub fn new(measure: impl FnOnce() -> Result<Measured> + 'static) -> Result<Self> {
        Ok(Self { measure: Box::new(measure), reference: None })
    }

    /// A measurement between two runs of a probe of its own.
    #[expect(clippy::unnecessary_wraps, reason = "the last expression of every scenario")]
    pub fn between(
        how: &str,
        reference: impl FnMut() -> Result<Measured> + 'static,
        measure: impl FnOnce() -> Result<Measured> + 'static,
    ) -> Result<Self> {
        let reference = Reference { how: how.to_owned(), measure: Box::new(reference) };
        Ok(Self { measure: Box::new(measure), reference: Some(reference) })
    }
}

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What its figure means.
    pub meaning: Meaning,
    /// The least thorough profile that it is part of.
    pub since: Profile,
    /// Prepares it.
    pub prepare: fn(&mut Bench<'_>) -> Result<Ready>,
}

impl Bench<'_> {
    /// A storage for a new store.
    fn new_storage(&self, name: &str) -> Result<Arc<dyn Storage>> {
        if let Some(device) = self.device.filter(|_| name == OWN_STORE) {
            return device.new_storage();
        }
        let path = self.path(name)?;
        let made = DirectoryStorage::create(&path, DirectoryOptions::default());
        made.map(|storage| Arc::new(storage) as Arc<dyn Storage>)
            .map_err(|error| on_path("create a store in", &path, error))
    }

    /// A path in the directory of the run, for what cannot lie on a raw device.
    fn path(&self, name: &str) -> Result<PathBuf> {
        match self.device {
            None => Ok(self.scratch.join(name)),
            Some(_) => {
                Err(Error::Skip("it needs files beside its store: measure it in a directory".to_owned()))
            }
        }
    }

    /// Opens the store with a history, for reading.
    fn open_history(&self) -> Result<Store> {
        open_read_only(&self.path(history::STORE)?)
    }
}

/// Opens a store for reading.
fn open_read_only(path: &std::path::Path) -> Result<Store> {
    let storage = DirectoryStorage::open_read_only(path, DirectoryOptions::default());
    let storage = storage.map_err(|error| on_path("open", path, error))?;
    Store::open_read_only(Arc::new(storage), OpenOptions::default()).when("open the store for reading")
}
