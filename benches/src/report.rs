//! What a run leaves: rows on a terminal, and one JSON document.
//!
//! Schema `cdp-bench-run`, version [`SCHEMA_VERSION`]: raised whenever a field changes its meaning or goes, or one comes that a reader
//! cannot do without. Version 2 added latencies, curves, series and commands; documents of version 1 are read, without them.

use crate::{
    curve::{At, CurvePoint, Series},
    environment::{FileSystem, Machine},
    error::{Error, Result, on_path},
    histogram::Histogram,
    metric::{Bound, Unit, Verdict, judge, short},
    probe::Probe,
    profile::{Profile, Sizes},
    window::Attempt,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::Path,
};

/// Version of the schema.
pub const SCHEMA_VERSION: u32 = 2;
/// Name of the schema.
pub const SCHEMA: &str = "cdp-bench-run";

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of the harness.
    pub harness_version: String,
    /// Whether it was built with optimisation.
    pub optimised: bool,
    /// When it began, UTC.
    pub started: String,
    /// How long it took, seconds.
    pub seconds: f64,
    /// The machine.
    pub machine: Machine,
    /// The file system.
    pub file_system: FileSystem,
    /// What it was called with.
    pub options: Options,
    /// How each raw probe was done.
    pub probes: BTreeMap<String, String>,
    /// The figures.
    pub rows: Vec<Row>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

/// What a run was called with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// The profile.
    pub profile: Profile,
    /// Its sizes.
    pub sizes: Sizes,
    /// The scenarios that were asked for; empty: all.
    pub only: Vec<String>,
    /// Seed of all random numbers.
    pub seed: u64,
    /// The block trace that was replayed.
    #[serde(default)]
    pub trace: Option<String>,
    /// The raw device that was measured in place of the directory.
    #[serde(default)]
    pub device: Option<String>,
}

/// A scenario that was left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// One figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Name of the scenario.
    pub name: String,
    /// What it measures.
    pub title: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// The raw probe around it.
    pub probe: Probe,
    /// Unit of the probe.
    pub probe_unit: Unit,
    /// The probe before.
    pub before: f64,
    /// The probe after.
    pub after: f64,
    /// The value as a ratio to the mean of the probes, where they have one unit.
    pub ratio: Option<f64>,
    /// How far the probes lie apart, as a fraction of their mean; absent when one found nothing.
    pub spread: Option<f64>,
    /// Whether the probes agree within ten per cent.
    pub stable: bool,
    /// Share of the processors' time that others used while it was measured, 0 to 1.
    pub others: f64,
    /// What it is to reach.
    pub aim: Option<Bound>,
    /// What it is to reach at the least.
    pub floor: Option<Bound>,
    /// How it stands.
    pub verdict: Verdict,
    /// All tries, in order.
    pub attempts: Vec<Attempt>,
    /// Where it lies on which plots.
    #[serde(default)]
    pub curves: Vec<CurvePoint>,
    /// What else was found.
    #[serde(flatten)]
    pub findings: Findings,
}

/// What a measurement found beside its figure.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    /// More figures; their names end in their units.
    #[serde(default)]
    pub details: BTreeMap<String, f64>,
    /// Time of each operation.
    #[serde(default)]
    pub latencies: Option<Histogram>,
    /// The same of the probe before, where the probe is the scenario's own.
    #[serde(default)]
    pub reference_latencies: Option<Histogram>,
    /// How the probe was done, where it is the scenario's own.
    #[serde(default)]
    pub reference: Option<String>,
    /// Figures over time or over steps.
    #[serde(default)]
    pub series: Vec<Series>,
    /// Commands of other programs that were measured, as a shell would take them.
    #[serde(default)]
    pub commands: Vec<String>,
}

impl Report {
    /// Reads the document of a run.
    ///
    /// # Errors
    /// `Io` when the file cannot be read; `Usage` when it is no run, or one of a newer version.
    pub fn read(path: &Path) -> Result<Self> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Head {
            schema: String,
            schema_version: u32,
        }
        let text = fs::read_to_string(path).map_err(|error| on_path("read", path, error))?;
        let refused = |why: &dyn std::fmt::Display| {
            Error::Usage(format!("{} is no run of cdp-bench: {why}", path.display()))
        };
        let head: Head = serde_json::from_str(&text).map_err(|error| refused(&error))?;
        if head.schema != SCHEMA {
            return Err(refused(&format!("its schema is '{}' and not '{SCHEMA}'", head.schema)));
        }
        if head.schema_version > SCHEMA_VERSION {
            let text = format!(
                "{} has version {} of the schema, and this program knows {SCHEMA_VERSION}: use the newer one that wrote it",
                path.display(),
                head.schema_version
            );
            return Err(Error::Usage(text));
        }
        serde_json::from_str(&text).map_err(|error| refused(&error))
    }
}

impl Row {
    /// Judges a window. `attempts[chosen]` is the try that counts.
    pub fn new(meaning: &Meaning, attempts: Vec<Attempt>, chosen: usize, findings: Findings) -> Self {
        let attempt = attempts[chosen];
        Self {
            name: meaning.name.to_owned(),
            title: meaning.title.to_owned(),
            value: attempt.value,
            unit: meaning.unit,
            more_is_better: meaning.unit.more_is_better(),
            probe: meaning.probe,
            probe_unit: meaning.probe_unit,
            before: attempt.before,
            after: attempt.after,
            ratio: meaning.has_ratio().then(|| attempt.ratio()),
            spread: Some(attempt.spread()).filter(|spread| spread.is_finite()),
            stable: attempt.is_stable(),
            others: attempt.others,
            aim: meaning.aim,
            floor: meaning.floor,
            verdict: judge(&attempt, meaning.aim, meaning.floor),
            attempts,
            curves: meaning.curves.iter().map(CurvePoint::from).collect(),
            findings,
        }
    }

    /// The mean of the probes.
    pub fn raw(&self) -> f64 {
        f64::midpoint(self.before, self.after)
    }
}

/// What a scenario's figure means.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// Name of the scenario.
    pub name: &'static str,
    /// What it measures.
    pub title: &'static str,
    /// Unit of the value.
    pub unit: Unit,
    /// The raw probe around it.
    pub probe: Probe,
    /// Unit of the probe.
    pub probe_unit: Unit,
    /// What it is to reach.
    pub aim: Option<Bound>,
    /// What it is to reach at the least.
    pub floor: Option<Bound>,
    /// Where it lies on which plots.
    pub curves: &'static [At],
}

impl Meaning {
    /// Whether value and probe can be divided: they have one unit, and the probe is one of what is measured.
    pub fn has_ratio(&self) -> bool {
        self.unit == self.probe_unit && !matches!(self.probe, Probe::Computation | Probe::Count)
    }
}

/// Writes the line above the rows.
///
/// # Errors
/// Those of the output.
pub fn write_head(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:<28} {:>16} {:>9} {:>9} {:>6}  {:<17} {:<14} {:<11} {:<9} {:>6}",
        "scenario", "value", "raw", "raw after", "ratio", "aim", "floor", "verdict", "window", "others"
    )
}

/// Writes a row.
///
/// # Errors
/// Those of the output.
pub fn write_row(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    let bound = |bound: Option<Bound>| bound.map_or_else(|| "-".to_owned(), |bound| bound.to_string());
    writeln!(
        out,
        "{:<28} {:>10} {:<5} {:>9} {:>9} {:>6}  {:<17} {:<14} {:<11} {:<9} {:>4.0} %",
        row.name,
        short(row.value),
        row.unit,
        short(row.before),
        short(row.after),
        row.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        bound(row.aim),
        bound(row.floor),
        row.verdict,
        if row.stable { "stable" } else { "UNSTABLE" },
        row.others * 100.0,
    )
}

#[cfg(test)]
pub mod fixture {
    //! A run without rows, for tests.

    use super::*;

    pub fn report() -> Report {
        let profile = Profile::Smoke;
        Report {
            schema: SCHEMA.into(),
            schema_version: SCHEMA_VERSION,
            harness_version: "0".into(),
            optimised: true,
            started: "2026-01-01T00:00:00Z".into(),
            seconds: 1.0,
            machine: Machine::look(),
            file_system: FileSystem::of(Path::new("/")),
            options: Options {
                profile,
                sizes: profile.sizes(),
                only: Vec::new(),
                seed: 1,
                trace: None,
                device: None,
            },
            probes: BTreeMap::new(),
            rows: Vec::new(),
            skipped: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::Plot;

    const MEANING: Meaning = Meaning {
        name: "one",
        title: "One",
        unit: Unit::PerSecond,
        probe: Probe::RandomRead,
        probe_unit: Unit::PerSecond,
        aim: Some(Bound::RatioAtLeast(0.8)),
        floor: Some(Bound::RatioAtLeast(0.6)),
        curves: &[At { plot: Plot::IngestDepth, line: "a line", x: 4.0 }],
    };

    fn attempt(before: f64, value: f64, after: f64) -> Attempt {
        Attempt { before, value, after, others: 0.25 }
    }

    /// Goal: a row shows the try that counts, its own probes and its verdict, and keeps the others.
    /// Method: two tries, the second counts; the text of the row.
    #[test]
    fn a_row_shows_the_try_that_counts() {
        let attempts = vec![attempt(100.0, 99.0, 200.0), attempt(100.0, 70.0, 100.0)];
        let row = Row::new(&MEANING, attempts, 1, Findings::default());
        assert_eq!((row.ratio, row.stable, row.verdict), (Some(0.7), true, Verdict::Floor));
        assert_eq!(row.attempts.len(), 2);
        let mut text = Vec::new();
        write_head(&mut text).unwrap();
        write_row(&mut text, &row).unwrap();
        let text = String::from_utf8(text).unwrap();
        for part in ["floor only", "0.70", "stable", "25 %", ">= 0.80 raw"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    /// Goal: an unstable row says so, a value in another unit than its probe has no ratio, a probe that found nothing does not
    /// make the document unreadable, and what was found comes back.
    /// Method: such a row, through JSON and back.
    #[test]
    fn rows_survive_json() {
        let meaning = Meaning { unit: Unit::Microseconds, aim: None, floor: None, ..MEANING };
        let findings = Findings {
            details: BTreeMap::from([("p50_us".into(), 2.0)]),
            latencies: Some(Histogram::of_sorted(&[1000, 2000])),
            series: vec![Series::new("s", "x", "y", vec![(1.0, 2.0), (f64::NAN, 1.0)])],
            commands: vec!["true".into()],
            ..Findings::default()
        };
        let row = Row::new(&meaning, vec![attempt(0.0, 5.0, 200.0)], 0, findings);
        assert_eq!((row.ratio, row.spread, row.stable, row.verdict), (None, None, false, Verdict::NoAim));
        let text = serde_json::to_string(&row).unwrap();
        let read: Row = serde_json::from_str(&text).unwrap();
        let found = &read.findings;
        assert_eq!((read.value, read.probe, found.details["p50_us"]), (5.0, Probe::RandomRead, 2.0));
        assert_eq!((found.latencies.as_ref().unwrap().count(), found.series[0].points.len()), (2, 1));
        assert_eq!((read.curves[0].plot, read.curves[0].x), (Plot::IngestDepth, 4.0));
    }

    /// Goal: documents of version 1 are read; newer ones, other documents and rubbish are refused with what to do.
    /// Method: a run as version 1 wrote it, with single parts changed.
    #[test]
    fn old_runs_are_read_and_newer_ones_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        let read = |value: &serde_json::Value| {
            fs::write(&path, value.to_string()).unwrap();
            Report::read(&path)
        };
        let mut report = fixture::report();
        report.rows.push(Row::new(&MEANING, vec![attempt(1.0, 2.0, 1.0)], 0, Findings::default()));
        let mut value = serde_json::to_value(&report).unwrap();
        value["schema_version"] = 1.into();
        value["options"].as_object_mut().unwrap().remove("trace");
        let row = value["rows"][0].as_object_mut().unwrap();
        for new in ["curves", "latencies", "reference_latencies", "reference", "series", "commands"] {
            assert!(row.remove(new).is_some(), "{new}");
        }
        assert_eq!(read(&value).unwrap().rows[0].value, 2.0);
        value["schema_version"] = (SCHEMA_VERSION + 1).into();
        let said = read(&value).unwrap_err().to_string();
        assert!(said.contains("use the newer one"), "{said}");
        value["schema"] = "else".into();
        assert!(read(&value).unwrap_err().to_string().contains("schema is 'else'"));
        assert!(matches!(read(&serde_json::Value::Null), Err(Error::Usage(_))));
        assert!(matches!(Report::read(&directory.path().join("absent")), Err(Error::Io { .. })));
    }
}
