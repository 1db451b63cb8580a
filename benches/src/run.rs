//! A run: scenario after scenario, each in its window.

use crate::{
    device::Device,
    environment::{FileSystem, Machine, Meter},
    error::{Context, Error, Result},
    metric::Unit,
    probe::Probes,
    profile::{Profile, Sizes},
    report::{
        Findings, Meaning, Options, Report, Row, SCHEMA, SCHEMA_VERSION, Skipped, write_head, write_row,
    },
    scenario::{Bench, Measured, OWN_FILE, OWN_STORE, Reference, SCENARIOS, Scenario, TRACE},
    scratch::Scratch,
    window::{Attempt, run_window},
};
use cdp_core::{
    io::{Clock, SystemClock},
    text::format_time,
};
use indicatif::ProgressBar;
use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// What a run is to do.
pub struct Plan<'a> {
    /// How thoroughly.
    pub profile: Profile,
    /// Where.
    pub directory: &'a Path,
    /// A raw device to measure instead, and whether what it holds may be lost.
    pub device: Option<(&'a Path, bool)>,
    /// Names of scenarios; empty: all of the profile.
    pub only: &'a [String],
    /// A block trace to be replayed.
    pub trace: Option<&'a Path>,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Runs, writes a row for each scenario as it ends, and returns everything.
///
/// # Errors
/// `Usage` where the directory does not suit; `Io`; `Engine`. What was measured until then has been written.
pub fn run(plan: &Plan<'_>, out: &mut dyn Write) -> Result<Report> {
    let started = Instant::now();
    let sizes = plan.profile.sizes();
    let mut report = blank(plan, sizes);
    let device = plan.device.map(|(path, overwrite)| Device::open(path, overwrite, sizes)).transpose()?;
    let device = device.as_ref();
    report.options.device = device.map(Device::describe);
    let scratch = Scratch::new(plan.directory, if device.is_some() { 0 } else { sizes.disk_bytes })?;
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(200));
    progress.set_message("writing the file of the raw probes");
    let mut probes = Probes::new(&scratch, device, sizes, plan.seed)?;
    let mut bench = Bench {
        scratch: &scratch,
        device,
        sizes,
        seed: plan.seed,
        round: 0,
        trace: plan.trace.map(Path::to_owned),
        history: None,
    };
    progress.suspend(|| write_head(out)).when("write the report")?;
    let mut left = chosen(plan).count();
    let measuring = Instant::now();
    let mut tries = 0;
    for scenario in chosen(plan) {
        left -= 1;
        let name = scenario.meaning.name;
        let mut skip = |reason: String| report.skipped.push(Skipped { name: name.to_owned(), reason });
        if started.elapsed() > sizes.end {
            skip("the time of the profile is over".to_owned());
            continue;
        }
        // A repetition must not cost a scenario that is still to come its only try.
        let may_repeat = |tries_here: usize| {
            let each = measuring.elapsed() / u32::try_from(tries + tries_here).unwrap_or(u32::MAX).max(1);
            let needed = each * u32::try_from(left + 1).unwrap_or(u32::MAX);
            started.elapsed() < sizes.repeat_until && started.elapsed() + needed < sizes.end
        };
        let row = match measure(scenario, &mut bench, &mut probes, &progress, &may_repeat) {
            Ok(row) => row,
            Err(Error::Skip(reason)) => {
                clear(&mut bench, &mut probes)?;
                skip(reason);
                continue;
            }
            Err(error) => return Err(error),
        };
        tries += row.attempts.len();
        progress.suspend(|| write_row(out, &row)).when("write the report")?;
        report.rows.push(row);
    }
    progress.finish_and_clear();
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// The scenarios of these names, in their own order; without names all of the profile, and the trace where there is one.
fn chosen<'a>(plan: &'a Plan<'_>) -> impl Iterator<Item = &'static Scenario> + 'a {
    SCENARIOS.iter().filter(|scenario| {
        let named = |name: &String| name == scenario.meaning.name;
        if plan.only.is_empty() {
            scenario.since <= plan.profile && (scenario.meaning.name != TRACE || plan.trace.is_some())
        } else {
            plan.only.iter().any(named)
        }
    })
}

/// Removes what a window has made.
fn clear(bench: &mut Bench<'_>, probes: &mut Probes<'_>) -> Result<()> {
    probes.clean()?;
    bench.scratch.remove(OWN_STORE)?;
    bench.scratch.remove(OWN_FILE)
}

fn measure(
    scenario: &Scenario,
    bench: &mut Bench<'_>,
    probes: &mut Probes<'_>,
    progress: &ProgressBar,
    may_repeat: &dyn Fn(usize) -> bool,
) -> Result<Row> {
    let meaning = &scenario.meaning;
    let attempts_max = bench.sizes.attempts;
    progress.set_message(meaning.name);
    let again = |tries: usize| {
        progress.set_message(format!("{}, try {} of {attempts_max}", meaning.name, tries + 1));
        may_repeat(tries)
    };
    let window = run_window(attempts_max, again, || {
        bench.round += 1;
        let ready = (scenario.prepare)(bench)?;
        let mut reference = ready.reference;
        bench.scratch.settle()?;
        let (before, before_found) = probe(meaning, reference.as_mut(), probes)?;
        let meter = Meter::start();
        let measured = (ready.measure)()?;
        let used = meter.stop();
        let (after, _) = probe(meaning, reference.as_mut(), probes)?;
        // Only now: freeing space is work for the device too.
        clear(bench, probes)?;
        let value = meaning.unit.of(measured.rate);
        let attempt = Attempt { before, value, after, others: used.others };
        let mut findings = findings(measured, used.own, meaning.unit);
        findings.reference = reference.map(|reference| reference.how);
        findings.reference_latencies = before_found.latencies;
        if findings.reference_latencies.is_some() {
            let is_same = |name: &str| name.ends_with("_us") || name == "slowed_share";
            let copied = before_found.details.iter().filter(|(name, _)| is_same(name));
            let copied: Vec<_> = copied.map(|(name, value)| (format!("copy_{name}"), *value)).collect();
            findings.details.extend(copied);
        }
        Ok((attempt, findings))
    })?;
    let chosen = window.chosen;
    Ok(Row::new(meaning, window.attempts, chosen, window.extra))
}

/// Runs the probe of a scenario once.
fn probe(
    meaning: &Meaning,
    reference: Option<&mut Reference>,
    probes: &mut Probes<'_>,
) -> Result<(f64, Findings)> {
    let (rate, findings) = match reference {
        Some(reference) => {
            let measured = (reference.measure)()?;
            (measured.rate, measured.findings)
        }
        None => (probes.run(meaning.probe)?, Findings::default()),
    };
    Ok((meaning.probe_unit.of(rate), findings))
}

fn findings(measured: Measured, processor: Duration, unit: Unit) -> Findings {
    let rate = measured.rate;
    let mut findings = measured.findings;
    let details = &mut findings.details;
    details.insert("seconds".into(), rate.seconds);
    // A ratio of two counts is no work that was done in this time.
    if rate.operations > 1 && rate.seconds > 0.0 && !matches!(unit, Unit::Times | Unit::BytesEach) {
        details.insert("operations".into(), rate.operations as f64);
        details.insert("mib_per_s".into(), rate.bytes as f64 / f64::from(1 << 20) / rate.seconds);
        let each = processor.as_secs_f64() * 1e6 / rate.operations as f64;
        details.insert("processor_us_per_operation".into(), each);
    }
    // What JSON cannot say is not known.
    details.retain(|_, value| value.is_finite());
    findings
}

fn blank(plan: &Plan<'_>, sizes: Sizes) -> Report {
    let kinds: BTreeMap<String, String> = chosen(plan)
        .map(|scenario| scenario.meaning.probe)
        .filter_map(|probe| {
            let name = serde_json::to_value(probe).ok()?;
            Some((name.as_str()?.to_owned(), probe.method().to_owned()))
        })
        .collect();
    Report {
        schema: SCHEMA.into(),
        schema_version: SCHEMA_VERSION,
        harness_version: env!("CARGO_PKG_VERSION").into(),
        optimised: !cfg!(debug_assertions),
        started: format_time(SystemClock.now()),
        seconds: 0.0,
        machine: Machine::look(),
        file_system: FileSystem::of(plan.directory),
        options: Options {
            profile: plan.profile,
            sizes,
            only: plan.only.to_vec(),
            seed: plan.seed,
            trace: plan.trace.map(|path| path.display().to_string()),
            device: None,
        },
        probes: kinds,
        rows: Vec::new(),
        skipped: Vec::new(),
    }
}
