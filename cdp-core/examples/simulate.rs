//! Runs the simulation over a range of seeds, or one seed again.
//!
//! ```text
//! simulate --seeds 0..100000           runs them all, and names those that fail
//! simulate --seed 42 [--shrink]        runs one; --shrink leaves out the steps that do not matter
//! simulate --directed NAME 0..1000     runs histories aimed at one thing
//! simulate --rot 0..1000               damages the stores of these seeds in many places
//! simulate --rot-intervals 0..100      damages frames of coalesced intervals
//! simulate --reader 0..1000            runs a reader beside an owner at work
//! simulate --thinned 0..1000 [--shrink]  runs histories with retention; --shrink leaves out the steps that do not matter
//! simulate --thinned-reader 0..1000     runs a reader beside an owner that thins its history
//! simulate --rot-compacted 0..100      damages compacted segments
//! simulate --scrub 0..100              damages versions and scrubs the store with sources
//! simulate --tap 0..1000 [--shrink]    runs taps and their sources; --shrink leaves out the steps that do not matter
//! simulate --mirror 0..1000 [--shrink]  runs mirror sets; --shrink leaves out the steps that do not matter
//! simulate --tap-reads 0..1000         writes to few blocks around each read of a source
//! simulate --tap-far 0..1000           taps whose sources lie across a link
//! simulate --tap-ends 0..1000          taps that end while blocks differ, and begin again
//! simulate --tap-log 0..1000           activity logs and power cuts
//! ```
//! Exit 0 when nothing failed, 1 when a seed failed, 2 for wrong usage.

use cdp_core::{
    sabotage::Sabotage,
    testing::{
        directed::DIRECTED,
        generate::generate,
        interleaved, mirror_world, rot, scrubbed,
        simulate::{Failure, run, run_seed, shrink},
        tap_world::{
            self,
            directed::{across_a_link, crashes_with_log, ends_with_differences, writes_around_reads},
        },
        thinned,
        world::Coverage,
    },
};
use std::{
    fmt::{Debug, Display},
    io::Write,
    ops::{AddAssign, Range},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Failures after which a run gives up.
const FAILURES_MAX: u64 = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["--seeds", range] => parse_range(range).map(|seeds| run_range(seeds, &simulated)),
        ["--rot", range] => parse_range(range).map(|seeds| run_range(seeds, &damage)),
        ["--rot-intervals", range] => parse_range(range).map(|seeds| run_range(seeds, &damage_of_intervals)),
        ["--reader", range] => parse_range(range).map(|seeds| run_range(seeds, &beside_an_owner)),
        ["--thinned-reader", range] => parse_range(range).map(|seeds| run_range(seeds, &beside_a_thinning_owner)),
        ["--scrub", range] => parse_range(range).map(|seeds| run_range(seeds, &scrubbing)),
        ["--rot-compacted", range] => parse_range(range).map(|seeds| run_range(seeds, &damage_of_compacted)),
        ["--directed", name, range] => parse_range(range).and_then(|seeds| run_directed(name, seeds)),
        ["--seed", seed] => parse_seed(seed).map(|seed| run_range(seed..seed + 1, &simulated)),
        ["--thinned", range] => parse_range(range).map(|seeds| run_thinned(seeds, false)),
        ["--thinned", range, "--shrink"] => parse_range(range).map(|seeds| run_thinned(seeds, true)),
        ["--tap", range] => parse_range(range).map(|seeds| run_tap(seeds, false)),
        ["--tap", range, "--shrink"] => parse_range(range).map(|seeds| run_tap(seeds, true)),
        ["--mirror", range] => parse_range(range).map(|seeds| run_mirror(seeds, false)),
        ["--mirror", range, "--shrink"] => parse_range(range).map(|seeds| run_mirror(seeds, true)),
        ["--tap-reads", range] => parse_range(range).map(|seeds| run_tap_of(writes_around_reads, seeds)),
        ["--tap-far", range] => parse_range(range).map(|seeds| run_tap_of(across_a_link, seeds)),
        ["--tap-ends", range] => parse_range(range).map(|seeds| run_tap_of(ends_with_differences, seeds)),
        ["--tap-log", range] => parse_range(range).map(|seeds| run_tap_of(crashes_with_log, seeds)),
        ["--seed", seed, "--shrink"] => parse_seed(seed).map(run_short),
        _ => {
            Err("give --seeds A..B, --seed N [--shrink], --directed NAME A..B, --rot A..B, --rot-intervals A..B, \
                 --rot-compacted A..B, --scrub A..B, --reader A..B, --thinned A..B [--shrink], --thinned-reader A..B, --tap A..B [--shrink], --mirror A..B [--shrink], --tap-reads A..B, --tap-far A..B, --tap-ends A..B or --tap-log A..B"
                .to_owned())
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(text) => {
            say(&text);
            ExitCode::from(2)
        }
    }
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("'{text}' is not a range of seeds such as 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from < to => Ok(from..to),
        _ => Err(wrong()),
    }
}

fn parse_seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is not a seed"))
}

/// Prints a line; a closed pipe is no reason to stop.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn run_range<C, F>(seeds: Range<u64>, run: &Run<'_, C, F>) -> bool
where
    C: Default + AddAssign + Copy + Debug + Send,
    F: Display,
{
    let next = AtomicU64::new(seeds.start);
    let failures = AtomicU64::new(0);
    let total = Mutex::new(C::default());
    let work = || {
        let mut own = C::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failures.load(Ordering::Relaxed) >= FAILURES_MAX {
                break;
            }
            match run(seed) {
                Ok(coverage) => own += coverage,
                Err(failure) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    say(&failure.to_string());
                }
            }
        }
        if let Ok(mut total) = total.lock() {
            *total += own;
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let total = total.lock().map(|total| *total).unwrap_or_default();
    say(&format!("{total:#?}"));
    say(&format!("{} seeds failed", failures.load(Ordering::Relaxed)));
    failures.load(Ordering::Relaxed) == 0
}

/// Runs the seed of one kind of test.
type Run<'a, C, F> = dyn Fn(u64) -> Result<C, Box<F>> + Sync + 'a;

fn simulated(seed: u64) -> Result<Coverage, Box<Failure>> {
    run_seed(seed, Sabotage::default())
}

fn run_thinned(seeds: Range<u64>, short: bool) -> bool {
    run_range(seeds, &|seed| {
        let outcome = thinned::run_seed(seed, Sabotage::default());
        if !short || outcome.is_ok() {
            return outcome;
        }
        match shrink(&thinned::generate(seed)) {
            Some((history, failure)) => {
                say(&format!("the world: {:#?}", history.world));
                Err(failure)
            }
            None => outcome,
        }
    })
}

fn run_tap_of(history: fn(u64, Sabotage) -> tap_world::generate::TapHistory, seeds: Range<u64>) -> bool {
    run_range(seeds, &|seed| tap_world::run::run(&history(seed, Sabotage::default())))
}

fn run_tap(seeds: Range<u64>, short: bool) -> bool {
    run_range(seeds, &|seed| {
        let outcome = tap_world::run::run_seed(seed, Sabotage::default());
        if !short || outcome.is_ok() {
            return outcome;
        }
        match tap_world::run::shrink(&tap_world::generate::generate(seed)) {
            Some((history, failure)) => {
                say(&format!("the world: {:#?}", history.world));
                Err(failure)
            }
            None => outcome,
        }
    })
}

fn run_mirror(seeds: Range<u64>, short: bool) -> bool {
    run_range(seeds, &|seed| {
        let outcome = mirror_world::run::run_seed(seed, Sabotage::default());
        if !short || outcome.is_ok() {
            return outcome;
        }
        match mirror_world::run::shrink(&mirror_world::op::generate(seed)) {
            Some((history, failure)) => {
                say(&format!("the world: {:#?}", history.world));
                Err(failure)
            }
            None => outcome,
        }
    })
}

fn damage(seed: u64) -> Result<Coverage, Box<Failure>> {
    rot::run_seed(seed, Sabotage::default()).map(|_| Coverage::default())
}

fn damage_of_intervals(seed: u64) -> Result<Coverage, Box<Failure>> {
    rot::run_intervals(seed, Sabotage::default()).map(|_| Coverage::default())
}

fn beside_an_owner(seed: u64) -> Result<Coverage, Box<Failure>> {
    interleaved::run_seed(seed, Sabotage::default()).map(|()| Coverage::default())
}

fn damage_of_compacted(seed: u64) -> Result<Coverage, Box<Failure>> {
    rot::run_compacted(seed, Sabotage::default()).map(|_| Coverage::default())
}

fn scrubbing(seed: u64) -> Result<Coverage, Box<Failure>> {
    scrubbed::run_seed(seed, Sabotage::default()).map(|_| Coverage::default())
}

fn beside_a_thinning_owner(seed: u64) -> Result<Coverage, Box<Failure>> {
    interleaved::run_thinned(seed, Sabotage::default()).map(|()| Coverage::default())
}

fn run_directed(name: &str, seeds: Range<u64>) -> Result<bool, String> {
    let names = DIRECTED.map(|(name, _)| name).join(", ");
    let (_, history) = DIRECTED
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| format!("'{name}' is none of {names}"))?;
    Ok(run_range(seeds, &|seed| run(&history(seed, Sabotage::default()))))
}

fn run_short(seed: u64) -> bool {
    match shrink(&generate(seed)) {
        Some((history, failure)) => {
            say(&format!("{failure}\nthe world: {:#?}", history.world));
            false
        }
        None => true,
    }
}
