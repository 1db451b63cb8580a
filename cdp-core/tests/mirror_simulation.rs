//! Random histories of mirror sets on simulated disks (see `cdp_core::testing::mirror_world`). A failing seed prints itself and the command that
//! repeats it.

#![allow(clippy::print_stdout, reason = "what the histories reached")]

use cdp_core::{
    sabotage::Sabotage,
    testing::mirror_world::{
        MirrorCoverage,
        op::{BESIDE, generate},
        run::{MirrorFailure, run_seed, run_seeds, shrink},
    },
};

/// Seeds that failed once: each stands for a defect that was mended, of the engine or of the simulation.
const REGRESSIONS: [u64; 16] = [6, 17, 27, 75, 87, 95, 370, 398, 419, 451, 654, 1659, 1911, 2028, 2502, 4918];
/// The same of copies that are written beside each other; beyond [`BESIDE`].
const REGRESSIONS_BESIDE: [u64; 5] = [194, 380, 2461, 3440, 8227];
/// Seeds of one part, of which there are two.
const PART: u64 = 100;
/// Seeds of one part, of which there are two, of copies that are written beside each other.
const PART_BESIDE: u64 = 50;

/// How often the parts are as long with `CDP_TEST_SCALE=full`.
const FULL: u64 = 50;

fn scale() -> u64 {
    if std::env::var("CDP_TEST_SCALE").is_ok_and(|scale| scale == "full") { FULL } else { 1 }
}

fn explain(failure: &MirrorFailure) -> ! {
    match shrink(&generate(failure.seed)) {
        Some((short, again)) => {
            panic!("{failure}\nas short as it can be, {:?}, {:?}:\n{again}", short.world, short.ops)
        }
        None => panic!("{failure}"),
    }
}

fn part(index: u64) {
    let length = PART * scale();
    let seeds = index * length..(index + 1) * length;
    println!("seeds {seeds:?}");
    let coverage = run_seeds(seeds, Sabotage::default()).unwrap_or_else(|failure| explain(&failure));
    // A change that makes histories empty must not look like success.
    println!("{coverage:?}");
    let MirrorCoverage { acknowledged, claimed, downs, repaired, online, offline, .. } = coverage;
    let often = [acknowledged, claimed, downs, repaired, online, offline];
    assert!(often.iter().all(|count| *count > length / 2), "writes, crashes and repairs occur: {coverage:?}");
    let rare = [
        coverage.downs_in_calls,
        coverage.downs_in_recovery,
        coverage.failed,
        coverage.poisoned,
        coverage.resized,
        coverage.joined,
        coverage.unacknowledged,
    ];
    assert!(rare.iter().all(|count| *count > length / 10), "every kind of trouble occurs: {coverage:?}");
    let seldom = [
        coverage.set_back,
        coverage.split_brains,
        coverage.refused,
        coverage.harmed,
        coverage.rotten,
        coverage.mended,
    ];
    assert!(seldom.iter().all(|count| *count > 0), "every kind of fault occurs: {coverage:?}");
}

fn part_beside(index: u64) {
    let length = PART_BESIDE * scale();
    let seeds = BESIDE + index * length..BESIDE + (index + 1) * length;
    println!("seeds {seeds:?}");
    let coverage = run_seeds(seeds, Sabotage::default()).unwrap_or_else(|failure| explain(&failure));
    println!("{coverage:?}");
    let MirrorCoverage { acknowledged, claimed, downs, repaired, behind, .. } = coverage;
    let often = [acknowledged, claimed, downs, repaired, behind];
    assert!(
        often.iter().all(|count| *count > length),
        "writes, crashes, repairs and slow copies occur: {coverage:?}"
    );
}

/// Goal: what a copy may lack is claimed, reads give what was acknowledged, flushed writes survive, and split brains are reported, whatever fails.
/// Method: a part of the seeds.
#[test]
fn mirror_sets_keep_the_promise_part_0() {
    part(0);
}

/// As part 0.
#[test]
fn mirror_sets_keep_the_promise_part_1() {
    part(1);
}

/// Goal: the same when copies are written beside each other, in any order, and fall behind: what is flushed survives, whichever copy had it, and reads give what was acknowledged.
/// Method: other seeds, whose copies are written in an order that the seed decides.
#[test]
fn copies_beside_each_other_keep_the_promise_part_0() {
    part_beside(0);
}

/// As part 0.
#[test]
fn copies_beside_each_other_keep_the_promise_part_1() {
    part_beside(1);
}

/// Goal: a history depends on its seed alone, so that a failure can be repeated. Method: run some twice.
#[test]
fn a_seed_gives_the_same_history_again() {
    for seed in (0..10).flat_map(|seed| [seed, BESIDE + seed]) {
        assert_eq!(
            run_seed(seed, Sabotage::default()).unwrap(),
            run_seed(seed, Sabotage::default()).unwrap()
        );
    }
}

/// Goal: what was mended stays so. Method: the seeds that failed.
#[test]
fn seeds_that_failed_once_pass() {
    for seed in REGRESSIONS.into_iter().chain(REGRESSIONS_BESIDE.map(|seed| BESIDE + seed)) {
        run_seed(seed, Sabotage::default()).unwrap_or_else(|failure| explain(&failure));
    }
}
