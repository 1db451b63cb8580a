//! `cdp-bench`: measures the engine on a file system that the user names, against what its device gives without the engine.
//!
//! Every figure is taken between two raw probes of the same kind ([`window`]) and held against an aim ([`scenario`]). What a run
//! makes lies in one directory of its own and is removed at the end ([`scratch`]).

mod compare;
mod curve;
mod device;
mod direct;
mod drive;
mod environment;
mod error;
mod histogram;
mod html;
mod markdown;
mod metric;
mod paced;
mod pages;
mod probe;
mod profile;
mod random;
mod report;
mod run;
mod scenario;
mod scratch;
mod statistics;
mod window;

use crate::{
    error::{Context, Error, Result, on_path},
    profile::Profile,
    report::{Report, write_row},
    scenario::SCENARIOS,
};
use clap::{ArgGroup, Parser, Subcommand};
use std::{
    fs::{self, File},
    io::{Write, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Measures cdp-core against the raw device: every figure between two raw probes, as a ratio to them.
#[derive(Parser)]
#[command(name = "cdp-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Exit status of a comparison that found a loss, where the caller asked for it.
const STATUS_WORSE: u8 = 5;

#[derive(Subcommand)]
enum Command {
    /// Measure, and print one row for each scenario.
    Run {
        /// How thoroughly: quick takes under five minutes, standard under thirty.
        #[arg(long, value_enum, default_value = "quick")]
        profile: Profile,
        /// A directory on the file system to be measured, with 10 GiB of free space.
        #[arg(long)]
        dir: PathBuf,
        /// A block device to measure without a file system, probes and stores alike: 6 GiB or more, all that it holds is lost. What needs files
        /// beside its store is left out.
        #[arg(long)]
        device: Option<PathBuf>,
        /// Measure on a device that is not empty.
        #[arg(long, requires = "device")]
        overwrite: bool,
        /// Only these scenarios, with commas between them; see `list`.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// A block trace to be replayed as one more scenario: csv or msr, by its ending or its lines.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Write everything that was found to this file, as JSON; `compare` and `report` read it.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Seed of all random numbers.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Name the scenarios, what they measure and what they are to reach.
    List,
    /// Say what got better and what got worse from one run to another, beyond noise.
    Compare {
        /// The document of the first run.
        first: PathBuf,
        /// The document of the second run.
        second: PathBuf,
        /// Print the comparison as JSON.
        #[arg(long)]
        json: bool,
        /// End with status 5 when a figure got worse beyond noise.
        #[arg(long)]
        fail_on_worse: bool,
    },
    /// Make a page with plots from a run, or put its table into a document.
    #[command(group = ArgGroup::new("what").required(true).multiple(true))]
    Report {
        /// The document of the run.
        run: PathBuf,
        /// The page: one file, which opens without a network.
        #[arg(long, group = "what")]
        html: Option<PathBuf>,
        /// A document in Markdown; the table replaces what lies between its lines `<!-- cdp-bench: begin -->` and
        /// `<!-- cdp-bench: end -->`.
        #[arg(long, group = "what")]
        markdown: Option<PathBuf>,
        /// Earlier runs whose figures the table in Markdown shows beside those of this one, with commas between them.
        #[arg(long, value_delimiter = ',', requires = "markdown")]
        earlier: Vec<PathBuf>,
        /// A directory for the plots, each a picture (SVG); the table in Markdown then shows them.
        #[arg(long, group = "what")]
        plots: Option<PathBuf>,
    },
    /// Write to a store until this process is killed; a part of the reopening scenarios.
    #[command(hide = true)]
    WriteUntilKilled {
        /// The store.
        store: PathBuf,
        /// Seed of all random numbers.
        seed: u64,
    },
    /// Protect 1 TiB and print how much memory is in use; a part of the scenario of memory.
    #[command(hide = true)]
    MeasureMemory {
        /// The store, which is made.
        store: PathBuf,
        /// Seed of all random numbers.
        seed: u64,
        /// How long.
        milliseconds: u64,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { profile, dir, device, overwrite, only, trace, json, seed } => {
            let (trace, device) = (trace.as_deref(), device.as_deref().map(|path| (path, overwrite)));
            let plan = run::Plan { profile, directory: &dir, device, only: &only, trace, seed };
            start(&plan, json.as_deref())
        }
        Command::Compare { first, second, json, fail_on_worse } => {
            match compare_runs(&first, &second, json) {
                Ok(worse) if worse > 0 && fail_on_worse => return ExitCode::from(STATUS_WORSE),
                outcome => outcome.map(drop),
            }
        }
        Command::Report { run, html, markdown, earlier, plots } => {
            show(&run, html.as_deref(), (markdown.as_deref(), &earlier), plots.as_deref())
        }
        Command::List => list(),
        Command::MeasureMemory { store, seed, milliseconds } => {
            scenario::measure_memory(&store, seed, Duration::from_millis(milliseconds))
        }
        Command::WriteUntilKilled { store, seed } => scenario::write_until_killed(&store, seed),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell when this fails.
            let _ = writeln!(stderr(), "cdp-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes what was asked for about a run.
fn show(
    run: &Path,
    html: Option<&Path>,
    (markdown, earlier): (Option<&Path>, &[PathBuf]),
    plots: Option<&Path>,
) -> Result<()> {
    let report = Report::read(run)?;
    let write =
        |path: &Path, text: String| fs::write(path, text).map_err(|error| on_path("write", path, error));
    if let Some(path) = html {
        write(path, html::page(&report))?;
    }
    let mut shown = Vec::new();
    if let Some(directory) = plots {
        fs::create_dir_all(directory).map_err(|error| on_path("make", directory, error))?;
        let base = markdown.and_then(Path::parent).unwrap_or(Path::new(""));
        for (name, title, picture) in html::pictures(&report) {
            let path = directory.join(name);
            write(&path, picture)?;
            shown.push((title, path.strip_prefix(base).unwrap_or(&path).display().to_string()));
        }
    }
    if let Some(path) = markdown {
        let document = fs::read_to_string(path).map_err(|error| on_path("read", path, error))?;
        let earlier: Vec<Report> = earlier.iter().map(|path| Report::read(path)).collect::<Result<_>>()?;
        write(path, markdown::fill(&document, &report, &earlier, &shown)?)?;
    }
    Ok(())
}

/// Prints how two runs compare, and returns how many figures got worse.
fn compare_runs(first: &Path, second: &Path, json: bool) -> Result<usize> {
    let found = compare::compare(&Report::read(first)?, &Report::read(second)?);
    let mut out = stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(&found).map_err(std::io::Error::from);
        let text = text.when("write the comparison as JSON")?;
        writeln!(out, "{text}").when("write the comparison")?;
    } else {
        found.write(&mut out).when("write the comparison")?;
    }
    Ok(found.count(compare::Change::Worse))
}

fn start(plan: &run::Plan<'_>, json: Option<&Path>) -> Result<()> {
    let unknown = |name: &&String| !SCENARIOS.iter().any(|scenario| scenario.meaning.name == *name);
    if let Some(name) = plan.only.iter().find(unknown) {
        let text = format!("there is no scenario '{name}': `cdp-bench list` names them all");
        return Err(Error::Usage(text));
    }
    if plan.trace.is_none() && plan.only.iter().any(|name| name == scenario::TRACE) {
        return Err(Error::Usage("the scenario 'trace' needs one: --trace FILE".into()));
    }
    // Before minutes are spent: the file is to be writable. What it holds stays until there is something better.
    if let Some(path) = json {
        let opened = File::options().append(true).create(true).open(path);
        opened.map_err(|error| on_path("write", path, error))?;
    }
    let mut out = stdout().lock();
    write_machine(&mut out, plan)?;
    let report = run::run(plan, &mut out)?;
    write_end(&mut out, &report)?;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report).map_err(std::io::Error::from);
        let text = text.when("write the report as JSON")?;
        fs::write(path, text + "\n").map_err(|error| on_path("write", path, error))?;
    }
    Ok(())
}

fn write_machine(out: &mut dyn Write, plan: &run::Plan<'_>) -> Result<()> {
    let machine = environment::Machine::look();
    let file_system = environment::FileSystem::of(plan.directory);
    let optimised = if cfg!(debug_assertions) { ", NOT OPTIMISED: figures say nothing" } else { "" };
    writeln!(
        out,
        "cdp-bench {}{optimised}, profile {}, seed {}\n{} x {}, {} MiB of memory, {}, load {}\n{} on {} ({})\n",
        env!("CARGO_PKG_VERSION"),
        plan.profile,
        plan.seed,
        machine.processors,
        machine.processor,
        machine.memory_bytes >> 20,
        machine.system,
        machine.load_at_start,
        file_system.kind,
        file_system.device,
        file_system.options,
    )
    .when("write the report")?;
    plan.device.map_or(Ok(()), |(path, _)| {
        writeln!(out, "measured on {} instead, without a file system\n", path.display())
            .when("write the report")
    })
}

fn write_end(out: &mut dyn Write, report: &Report) -> Result<()> {
    let unstable: Vec<_> = report.rows.iter().filter(|row| !row.stable).collect();
    let write = |out: &mut dyn Write| -> std::io::Result<()> {
        for skipped in &report.skipped {
            writeln!(out, "{:<28} skipped: {}", skipped.name, skipped.reason)?;
        }
        writeln!(out, "\n{:.0} s, load now {}", report.seconds, environment::load())?;
        writeln!(
            out,
            "raw: the probe before and after, in the unit of the value or, for times, of the aim. others: share of the processors that others used."
        )?;
        if !unstable.is_empty() {
            writeln!(
                out,
                "{} of {} windows stayed unstable: their probes differ by more than 10 %, so their figures say little. Repeat on a quiet machine:",
                unstable.len(),
                report.rows.len()
            )?;
            for row in unstable {
                write_row(out, row)?;
            }
        }
        Ok(())
    };
    write(out).when("write the report")
}

fn list() -> Result<()> {
    let mut out = stdout().lock();
    for scenario in SCENARIOS {
        let meaning = &scenario.meaning;
        let bound =
            |bound: Option<metric::Bound>| bound.map_or_else(|| "-".into(), |bound| bound.to_string());
        writeln!(
            out,
            "{:<28} {}\n{:<28}   {}; aim {}, floor {}\n{:<28}   between: {}",
            meaning.name,
            meaning.title,
            "",
            meaning.unit,
            bound(meaning.aim),
            bound(meaning.floor),
            "",
            meaning.probe.method(),
        )
        .when("write the list")?;
    }
    Ok(())
}
