//! Runs mirrored histories: one, many seeds, and a failing one again and again until nothing can be left out of it.

use super::{
    MirrorCoverage, MirrorWorld,
    op::{MirrorHistory, MirrorOp, generate},
};
use crate::{
    sabotage::Sabotage,
    testing::simulate::{Failure, guarded},
};
use std::ops::Range;

/// A history that failed. Its display names the seed and the command that repeats it.
pub type MirrorFailure = Failure<MirrorOp>;

/// Runs the history of one seed.
///
/// # Errors
/// When the set does something that it must not, or panics.
pub fn run_seed(seed: u64, sabotage: Sabotage) -> Result<MirrorCoverage, Box<MirrorFailure>> {
    let mut history = generate(seed);
    history.world.sabotage = sabotage;
    run(&history)
}

/// Runs the histories of many seeds, up to the first that fails.
///
/// # Errors
/// As [`run_seed`].
pub fn run_seeds(seeds: Range<u64>, sabotage: Sabotage) -> Result<MirrorCoverage, Box<MirrorFailure>> {
    let mut total = MirrorCoverage::default();
    for seed in seeds {
        total += run_seed(seed, sabotage)?;
    }
    Ok(total)
}

/// Runs a history.
///
/// # Errors
/// As [`run_seed`].
pub fn run(history: &MirrorHistory) -> Result<MirrorCoverage, Box<MirrorFailure>> {
    let mut done = 0;
    let outcome = guarded(|| {
        let mut world = MirrorWorld::new(history.world)?;
        for op in &history.ops {
            world.step(op)?;
            done += 1;
        }
        world.finish()?;
        Ok(world.coverage())
    });
    outcome.map_err(|cause| {
        let ops = history.ops.iter().take(done + 1).copied().collect();
        let seed = history.world.seed;
        let repeat = format!("--mirror {seed}..{} --shrink", seed + 1);
        Box::new(Failure { seed, step: done, ops, cause, repeat })
    })
}

/// Leaves steps out of a failing history as long as it still fails. Returns the short history and its failure; `None` when it does not fail.
pub fn shrink(history: &MirrorHistory) -> Option<(MirrorHistory, Box<MirrorFailure>)> {
    let mut failure = run(history).err()?;
    let mut short = MirrorHistory { ops: failure.ops.clone(), ..history.clone() };
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
