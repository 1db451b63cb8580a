//! Random histories of taps beside their production disks, against the order of writes (see `cdp_core::testing::tap_world`). A failing
//! seed prints itself and the command that repeats it.

use cdp_core::{
    sabotage::Sabotage,
    testing::tap_world::{
        TapCoverage,
        run::{run_seed, run_seeds},
    },
};
use std::fmt::Display;

/// Seeds that failed once: each stands for a defect that was mended.
const REGRESSIONS: [u64; 0] = [];
/// Seeds of one part, of which there are two.
const PART: u64 = 200;

fn passed<T>(outcome: Result<T, impl Display>) -> T {
    outcome.unwrap_or_else(|failure| panic!("{failure}"))
}

#[allow(clippy::print_stdout, reason = "what the histories reached")]
fn part(index: u64) {
    let coverage: TapCoverage = passed(run_seeds(index * PART..(index + 1) * PART, Sabotage::default()));
    println!("{coverage:?}");
}

/// Goal: what a tap calls exact is exact, what differs is claimed, and every gap closes, whatever fails. Method: a part of the seeds.
#[test]
fn taps_keep_the_promise_part_0() {
    part(0);
}

/// As part 0.
#[test]
fn taps_keep_the_promise_part_1() {
    part(1);
}

/// Goal: what was mended stays so. Method: the seeds that failed.
#[test]
fn seeds_that_failed_once_pass() {
    REGRESSIONS.iter().for_each(|seed| {
        passed(run_seed(*seed, Sabotage::default()));
    });
}
