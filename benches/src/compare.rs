//! Two runs beside each other: what got better, what got worse, and what is only noise. Pure.
//!
//! Where a figure has a ratio to its probes, ratios are compared: they say what the engine does with what the device gives, on
//! whatever machine. Times and rates without a ratio are compared as they are. What a change has to exceed:
//!
//! - half of the spread of the probes of each window: so far may each ratio be off;
//! - half of the scatter of the steady tries of a window, where it was tried several times;
//! - for figures without a ratio, what the probes themselves changed from one run to the other: then the machine did;
//! - in any case [`RATE_NOISE_MIN`], or [`TIME_NOISE_MIN`] for times, which are slowest cases and high percentiles.
//!
//! A change beyond that is *unsure*, never a gain or a loss, where a window stayed unstable or others used more than [`OTHERS_MAX`] of the
//! processors: a probe waits for the device, and what is measured between two of them may wait for a core.

use crate::{
    metric::{Unit, Verdict, short},
    report::{Report, Row},
    window::Attempt,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::{self, Write},
};

/// Name of the schema of a comparison.
pub const SCHEMA: &str = "cdp-bench-compare";
/// Version of the schema of a comparison.
pub const SCHEMA_VERSION: u32 = 1;
/// Smallest change of a rate that is not noise, as a fraction.
pub const RATE_NOISE_MIN: f64 = 0.03;
/// Smallest change of a time that is not noise, as a fraction.
pub const TIME_NOISE_MIN: f64 = 0.10;

/// Largest share of the processors that others use on a machine that is quiet; kernel threads that serve the run count as others.
pub const OTHERS_MAX: f64 = 0.25;

/// Two runs beside each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// [`SCHEMA`].
    pub schema: String,
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When the first run began, UTC.
    pub first_started: String,
    /// When the second run began, UTC.
    pub second_started: String,
    /// What is not the same about machines, file systems, options and builds, in words.
    pub differences: Vec<String>,
    /// The figures that both have, in the order of the second.
    pub rows: Vec<Compared>,
    /// Names that only the first has.
    pub only_first: Vec<String>,
    /// Names that only the second has.
    pub only_second: Vec<String>,
}

/// One figure of both runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compared {
    /// Name of the scenario.
    pub name: String,
    /// Whether ratios to the probes are compared; else values.
    pub by_ratio: bool,
    /// Unit of the values.
    pub unit: Unit,
    /// The figure of the first run.
    pub first: f64,
    /// The figure of the second run.
    pub second: f64,
    /// How much better the second is, as a fraction of the first; negative: worse.
    pub gain: f64,
    /// What a change has to exceed, as a fraction.
    pub noise: f64,
    /// What that means.
    pub change: Change,
    /// How the first stands against its aim.
    pub first_verdict: Verdict,
    /// How the second stands against its aim.
    pub second_verdict: Verdict,
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Better beyond noise.
    Better,
    /// Worse beyond noise.
    Worse,
    /// Within noise.
    Same,
    /// Beyond noise, but a window stayed unstable, or others used the processors.
    Unsure,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::Same => "same",
            Self::Unsure => "unsure",
        })
    }
}

/// Compares two runs.
pub fn compare(first: &Report, second: &Report) -> Comparison {
    let has = |report: &Report, name: &str| report.rows.iter().any(|row| row.name == name);
    let only = |one: &Report, other: &Report| {
        let names = one.rows.iter().map(|row| row.name.clone());
        names.filter(|name| !has(other, name)).collect()
    };
    let pair = |new: &Row| {
        let old = first.rows.iter().find(|old| old.name == new.name)?;
        Some(compare_rows(old, new))
    };
    Comparison {
        schema: SCHEMA.into(),
        schema_version: SCHEMA_VERSION,
        first_started: first.started.clone(),
        second_started: second.started.clone(),
        differences: differences(first, second),
        rows: second.rows.iter().filter_map(pair).collect(),
        only_first: only(first, second),
        only_second: only(second, first),
    }
}

fn compare_rows(old: &Row, new: &Row) -> Compared {
    // A figure that changed its unit or its probe is another figure: its value is all that there is.
    let alike = old.probe == new.probe && old.unit == new.unit;
    let ratios = old.ratio.zip(new.ratio).filter(|_| alike);
    let (first, second) = ratios.unwrap_or((old.value, new.value));
    let by_ratio = ratios.is_some();
    let change = relative(first, second);
    let gain = if new.more_is_better { change } else { -change };
    let least = if new.more_is_better { RATE_NOISE_MIN } else { TIME_NOISE_MIN };
    let machine = if by_ratio || !alike { 0.0 } else { relative(old.raw(), new.raw()).abs() };
    let noise = (uncertainty(old) + uncertainty(new) + machine).max(least);
    let change = match gain {
        _ if !gain.is_finite() || !noise.is_finite() => Change::Unsure,
        _ if gain.abs() <= noise => Change::Same,
        _ if !(alike && is_quiet(old) && is_quiet(new)) => Change::Unsure,
        _ if gain > 0.0 => Change::Better,
        _ => Change::Worse,
    };
    // What JSON cannot say counts as nothing.
    let known = |figure: f64| if figure.is_finite() { figure } else { 0.0 };
    Compared {
        name: new.name.clone(),
        by_ratio,
        unit: new.unit,
        first,
        second,
        gain: known(gain),
        noise: known(noise),
        change,
        first_verdict: old.verdict,
        second_verdict: new.verdict,
    }
}

fn is_quiet(row: &Row) -> bool {
    row.stable && row.others <= OTHERS_MAX
}

fn relative(from: f64, to: f64) -> f64 {
    (to - from) / from
}

/// How far the figure of a row may be off, as a fraction of it.
fn uncertainty(row: &Row) -> f64 {
    let probes = row.spread.unwrap_or(f64::INFINITY) / 2.0;
    let figure = |attempt: &Attempt| if row.ratio.is_some() { attempt.ratio() } else { attempt.value };
    let steady = row.attempts.iter().filter(|attempt| attempt.is_stable()).map(figure);
    let (low, high) =
        steady.fold((f64::INFINITY, 0.0_f64), |(low, high), figure: f64| (low.min(figure), high.max(figure)));
    let scatter = if high > 0.0 && low.is_finite() { (high - low) / (high + low) } else { 0.0 };
    probes.max(scatter)
}

/// What is not the same about two runs, in words.
fn differences(first: &Report, second: &Report) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |what: &str, one: String, other: String| {
        if one != other {
            found.push(format!("{what}: {one} | {other}"));
        }
    };
    let (one, other) = (&first.machine, &second.machine);
    look("processor", one.processor.clone(), other.processor.clone());
    look("processors", one.processors.to_string(), other.processors.to_string());
    let memory = |bytes: u64| format!("{} MiB", bytes >> 20);
    look("memory", memory(one.memory_bytes), memory(other.memory_bytes));
    look("system", one.system.clone(), other.system.clone());
    let (one, other) = (&first.file_system, &second.file_system);
    look("file system", one.kind.clone(), other.kind.clone());
    look("device", one.device.clone(), other.device.clone());
    look("mount options", one.options.clone(), other.options.clone());
    let (one, other) = (&first.options, &second.options);
    look("profile", one.profile.to_string(), other.profile.to_string());
    if one.profile == other.profile && one.sizes != other.sizes {
        look("sizes of the profile", "those of the first".into(), "others".into());
    }
    let raw = |device: &Option<String>| device.clone().unwrap_or_else(|| "none".to_owned());
    look("raw device", raw(&one.device), raw(&other.device));
    look("seed", one.seed.to_string(), other.seed.to_string());
    look("harness", first.harness_version.clone(), second.harness_version.clone());
    let built = |optimised: bool| if optimised { "optimised" } else { "NOT optimised" }.to_owned();
    look("build", built(first.optimised), built(second.optimised));
    found
}

impl Comparison {
    /// How many figures changed in this way.
    pub fn count(&self, change: Change) -> usize {
        self.rows.iter().filter(|row| row.change == change).count()
    }

    /// Writes it as a table: what got worse first, then what got better, then the rest.
    ///
    /// # Errors
    /// Those of the output.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "first:  {}\nsecond: {}", self.first_started, self.second_started)?;
        for difference in &self.differences {
            writeln!(out, "not the same: {difference}")?;
        }
        writeln!(
            out,
            "\n{:<30} {:<5} {:>9} {:>9} {:>8} {:>7}  {:<8} aim",
            "scenario", "by", "first", "second", "gain", "noise", "change"
        )?;
        for wanted in [Change::Worse, Change::Better, Change::Unsure, Change::Same] {
            for row in self.rows.iter().filter(|row| row.change == wanted) {
                write_row(out, row)?;
            }
        }
        for (names, which) in [(&self.only_first, "first"), (&self.only_second, "second")] {
            if !names.is_empty() {
                writeln!(out, "only in the {which}: {}", names.join(", "))?;
            }
        }
        writeln!(
            out,
            "\n{} worse, {} better, {} the same within noise, {} unsure",
            self.count(Change::Worse),
            self.count(Change::Better),
            self.count(Change::Same),
            self.count(Change::Unsure),
        )?;
        writeln!(
            out,
            "gain: positive is better. noise: half of the spread of the probes and tries of both windows, at least 3 % for rates \
             and 10 % for times.\nunsure: beyond noise, but the probes of a window differ by more than 10 %, or others used more than a \
             quarter of the processors."
        )
    }
}

fn write_row(out: &mut dyn Write, row: &Compared) -> io::Result<()> {
    let figure = |value: f64| if row.by_ratio { format!("{value:.2}") } else { short(value) };
    let by = if row.by_ratio { "ratio".to_owned() } else { row.unit.to_string() };
    let aim = if row.first_verdict == row.second_verdict {
        row.second_verdict.to_string()
    } else {
        format!("{} -> {}", row.first_verdict, row.second_verdict)
    };
    writeln!(
        out,
        "{:<30} {:<5} {:>9} {:>9} {:>6.1} % {:>5.1} %  {:<8} {aim}",
        row.name,
        by,
        figure(row.first),
        figure(row.second),
        row.gain * 100.0,
        row.noise * 100.0,
        row.change,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metric::Bound,
        probe::Probe,
        report::{Findings, Meaning, fixture},
    };

    const RATIO: Meaning = Meaning {
        name: "rate",
        title: "A rate",
        unit: Unit::MebibytesPerSecond,
        probe: Probe::SequentialWrite,
        probe_unit: Unit::MebibytesPerSecond,
        aim: Some(Bound::RatioAtLeast(0.8)),
        floor: None,
        curves: &[],
    };
    const TIME: Meaning = Meaning {
        name: "time",
        unit: Unit::Microseconds,
        probe: Probe::Computation,
        probe_unit: Unit::PerSecond,
        aim: None,
        ..RATIO
    };

    fn row(meaning: &Meaning, tries: &[(f64, f64, f64)]) -> Row {
        let attempts = tries
            .iter()
            .map(|&(before, value, after)| Attempt { before, value, after, others: 0.0 })
            .collect();
        Row::new(meaning, attempts, tries.len() - 1, Findings::default())
    }

    fn change(meaning: &Meaning, old: &[(f64, f64, f64)], new: &[(f64, f64, f64)]) -> Change {
        compare_rows(&row(meaning, old), &row(meaning, new)).change
    }

    /// Goal: ratios decide and not values, so that a faster device is no gain; beyond the spread of the probes it is one.
    /// Method: twice the device and twice the value; then ratios of 0.8 and 0.9 with steady and with shaky probes.
    #[test]
    fn ratios_are_compared_beyond_the_spread_of_the_probes() {
        let old = [(100.0, 80.0, 100.0)];
        assert_eq!(change(&RATIO, &old, &[(200.0, 160.0, 200.0)]), Change::Same);
        assert_eq!(change(&RATIO, &old, &[(100.0, 90.0, 100.0)]), Change::Better);
        assert_eq!(change(&RATIO, &old, &[(100.0, 70.0, 100.0)]), Change::Worse);
        assert_eq!(change(&RATIO, &old, &[(100.0, 82.0, 100.0)]), Change::Same, "less than three per cent");
        let shaky = [(96.0, 80.0, 104.0)];
        assert_eq!(change(&RATIO, &shaky, &[(96.0, 84.0, 104.0)]), Change::Same, "within both spreads");
    }

    /// Goal: a window that stayed unstable proves neither gain nor loss.
    /// Method: a loss of half, with probes that lie a fifth apart; with a probe that found nothing.
    #[test]
    fn unstable_windows_prove_nothing() {
        let old = [(100.0, 80.0, 100.0)];
        assert_eq!(change(&RATIO, &old, &[(90.0, 40.0, 110.0)]), Change::Unsure);
        assert_eq!(change(&RATIO, &old, &[(0.0, 40.0, 100.0)]), Change::Unsure);
    }

    /// Goal: a loss on a machine whose processors others used is no loss of the engine, and one of another probe compares nothing.
    /// Method: half the figure with others at work, at the bound and beyond it; then between other probes.
    #[test]
    fn busy_machines_prove_nothing() {
        let old = row(&RATIO, &[(100.0, 80.0, 100.0)]);
        let mut new = row(&RATIO, &[(100.0, 40.0, 100.0)]);
        new.others = OTHERS_MAX;
        assert_eq!(compare_rows(&old, &new).change, Change::Worse);
        new.others = OTHERS_MAX + 0.01;
        assert_eq!(compare_rows(&old, &new).change, Change::Unsure);
        let other = Meaning { probe: Probe::Copy, ..RATIO };
        let found = compare_rows(&old, &row(&other, &[(900.0, 40.0, 900.0)]));
        assert_eq!((found.change, found.by_ratio, found.noise), (Change::Unsure, false, RATE_NOISE_MIN));
    }

    /// Goal: the scatter of steady tries counts as noise.
    /// Method: two steady tries with ratios of 0.6 and 0.8, against 0.75.
    #[test]
    fn tries_that_scatter_are_noise() {
        let scattered = [(100.0, 60.0, 100.0), (100.0, 80.0, 100.0)];
        assert_eq!(change(&RATIO, &scattered, &[(100.0, 70.0, 100.0)]), Change::Same);
        assert_eq!(change(&RATIO, &scattered[1..], &[(100.0, 70.0, 100.0)]), Change::Worse);
    }

    /// Goal: of times less is better; what the processor itself changed is noise.
    /// Method: half the time on the same and on a machine of twice the speed.
    #[test]
    fn times_are_compared_as_they_are() {
        let old = [(100.0, 10.0, 100.0)];
        assert_eq!(change(&TIME, &old, &[(100.0, 5.0, 100.0)]), Change::Better);
        assert_eq!(change(&TIME, &old, &[(100.0, 12.0, 100.0)]), Change::Worse);
        assert_eq!(change(&TIME, &old, &[(100.0, 10.9, 100.0)]), Change::Same);
        assert_eq!(change(&TIME, &old, &[(200.0, 5.0, 200.0)]), Change::Same, "the machine is faster");
    }

    /// Goal: other machines and options are said, names of one run only are listed, and the text shows all of it.
    /// Method: two documents that differ in a processor, a seed and a scenario.
    #[test]
    fn what_is_not_the_same_is_said() {
        let (mut first, mut second) = (fixture::report(), fixture::report());
        first.rows = vec![row(&RATIO, &[(100.0, 80.0, 100.0)]), row(&TIME, &[(100.0, 10.0, 100.0)])];
        second.rows = vec![row(&RATIO, &[(100.0, 70.0, 100.0)])];
        assert!(compare(&first, &first).differences.is_empty());
        second.machine.processor = "another".into();
        second.options.seed += 1;
        let found = compare(&first, &second);
        assert_eq!((found.differences.len(), found.only_first.as_slice()), (2, &["time".to_owned()][..]));
        assert_eq!((found.count(Change::Worse), found.count(Change::Better)), (1, 0));
        let mut text = Vec::new();
        found.write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for part in ["WORSE", "another", "only in the first: time", "met -> MISSED", "1 worse, 0 better"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
