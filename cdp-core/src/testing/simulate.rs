//! Runs histories: one seed, many seeds, and a failing one again and again until nothing can be left out of it.

use super::{
    generate::{History, generate},
    mismatch::Mismatch,
    op::Op,
    world::{Coverage, World},
};
use crate::sabotage::Sabotage;
use std::{
    any::Any,
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Steps shown in front of the one that failed.
const STEPS_SHOWN: usize = 12;

/// What went wrong in a history.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The store and the model differ.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The library panicked.
    #[error("panic: {0}")]
    Panic(String),
}

/// A history that failed. Its display names the seed and the command that repeats it.
#[derive(Debug)]
pub struct Failure<O = Op> {
    /// The seed.
    pub seed: u64,
    /// The index of the step that failed; the number of steps when it failed at the end.
    pub step: usize,
    /// The steps up to there.
    pub ops: Vec<O>,
    /// What went wrong.
    pub cause: Cause,
    /// Arguments of the example `simulate` that run it again.
    pub repeat: String,
}

impl<O: fmt::Debug> fmt::Display for Failure<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} failed at step {}: {}", self.seed, self.step, self.cause)?;
        writeln!(
            f,
            "repeat with: cargo run --release -p cdp-core --features testing --example simulate -- {}",
            self.repeat
        )?;
        let from = self.ops.len().saturating_sub(STEPS_SHOWN);
        for (index, op) in self.ops.iter().enumerate().skip(from) {
            writeln!(f, "  step {index}: {op:?}")?;
        }
        Ok(())
    }
}

impl<O: fmt::Debug> std::error::Error for Failure<O> {}

/// Runs the history of one seed.
///
/// # Errors
/// When the store does something that the model does not allow, or panics.
pub fn run_seed(seed: u64, sabotage: Sabotage) -> Result<Coverage, Box<Failure>> {
    let mut history = generate(seed);
    history.world.sabotage = sabotage;
    run(&history)
}

/// Runs the histories of many seeds, up to the first that fails.
///
/// # Errors
/// As [`run_seed`].
pub fn run_seeds(seeds: Range<u64>, sabotage: Sabotage) -> Result<Coverage, Box<Failure>> {
    let mut total = Coverage::default();
    for seed in seeds {
        total += run_seed(seed, sabotage)?;
    }
    Ok(total)
}

/// Runs a history.
///
/// # Errors
/// As [`run_seed`].
pub fn run(history: &History) -> Result<Coverage, Box<Failure>> {
    let mut done = 0;
    let outcome = guarded(|| {
        let mut world = World::new(history.world.clone())?;
        for op in &history.ops {
            world.step(op)?;
            done += 1;
        }
        world.finish()?;
        Ok(world.coverage())
    });
    outcome.map_err(|cause| {
        let ops = history.ops.iter().take(done + 1).cloned().collect();
        Box::new(Failure { seed: history.world.seed, step: done, ops, cause, repeat: history.repeat.clone() })
    })
}

/// Runs something and turns a panic into a failure.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, Mismatch>) -> Result<T, Cause> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => Ok(outcome?),
        Err(panic) => Err(Cause::Panic(panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a text").to_owned()
}

/// Leaves steps out of a failing history as long as it still fails. Returns the short history and its failure; `None` when it does
/// not fail.
pub fn shrink(history: &History) -> Option<(History, Box<Failure>)> {
    let mut failure = run(history).err()?;
    let mut short = History { ops: failure.ops.clone(), ..history.clone() };
    let mut length = short.ops.len().div_ceil(2);
    while length > 0 {
        let mut from = 0;
        while from < short.ops.len() {
            let mut shorter = short.clone();
            let to = (from + length).min(shorter.ops.len());
            shorter.ops.drain(from..to);
            match run(&shorter) {
                Err(still) => {
                    short = shorter;
                    failure = still;
                }
                Ok(_) => from += length,
            }
        }
        length /= 2;
    }
    Some((short, failure))
}
