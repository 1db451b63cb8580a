//! Random histories on a disk that crashes and fails, against the model (see `cdp_core::testing`). A failing seed prints itself and
//! the command that repeats it.

use cdp_core::{
    sabotage::Sabotage,
    testing::{
        commit_order, directed, interleaved, rot, scrubbed,
        simulate::{Failure, run, run_seed, run_seeds},
        world::Coverage,
    },
};
use std::{fmt::Display, ops::Range};

/// Seeds that failed once: each stands for a defect that was mended.
const REGRESSIONS: [u64; 12] = [5, 24, 33, 73, 87, 121, 143, 220, 257, 1386, 1478, 1894];
/// Seeds of one part, of which there are four.
const PART: u64 = 200;

fn passed<T>(outcome: Result<T, impl Display>) -> T {
    outcome.unwrap_or_else(|failure| panic!("{failure}"))
}

fn part(index: u64) {
    let coverage = passed(run_seeds(index * PART..(index + 1) * PART, Sabotage::default()));
    // A change that makes histories empty must not look like success.
    let Coverage {
        seqs,
        downs,
        downs_in_calls,
        downs_in_recovery,
        tails_cut,
        rewinds,
        faults,
        no_space,
        runs,
        coalescings,
        ..
    } = coverage;
    assert!(seqs > 20 * PART && downs > 2 * PART, "writes and crashes occur: {coverage:?}");
    let rare = [downs_in_calls, downs_in_recovery, tails_cut, rewinds, faults, no_space, runs, coalescings];
    assert!(rare.iter().all(|count| *count > PART / 10), "every kind of trouble occurs: {coverage:?}");
}

/// Goal: after any crash the store is an exact prefix with everything that was acknowledged, and every point of it reads back.
/// Method: a part of the seeds.
#[test]
fn random_histories_keep_the_promise_part_0() {
    part(0);
}

/// As part 0.
#[test]
fn random_histories_keep_the_promise_part_1() {
    part(1);
}

/// As part 0.
#[test]
fn random_histories_keep_the_promise_part_2() {
    part(2);
}

/// As part 0.
#[test]
fn random_histories_keep_the_promise_part_3() {
    part(3);
}

/// Goal: what was mended stays so. Method: the seeds that failed.
#[test]
fn seeds_that_failed_once_pass() {
    REGRESSIONS.iter().for_each(|seed| {
        passed(run_seed(*seed, Sabotage::default()));
    });
}

fn directed(history: directed::Directed, seeds: Range<u64>) {
    seeds.for_each(|seed| {
        passed(run(&history(seed, Sabotage::default())));
    });
}

/// Goal: each point has the size that it had, and what was cut off reads as zeroes when it is there again. Method: sizes back and forth over what
/// was written, with crashes in the calls of a resize and behind it.
#[test]
fn a_size_belongs_to_its_points_after_any_crash() {
    directed(directed::sizes_back_and_forth, 0..100);
    // And random histories that resize, beyond those of the parts.
    (4 * PART..4 * PART + 400).filter(|seed| seed % 8 == 5).for_each(|seed| {
        passed(run_seed(seed, Sabotage::default()));
    });
}

/// Goal: frames of a lineage that was cut never come back. Method: holes between unsynced frames, a full disk at recovery, new
/// writes, another crash.
#[test]
fn frames_behind_a_hole_never_come_back() {
    directed(directed::holes_in_the_row, 0..150);
}

/// Goal: a write of several frames is there as a whole or not at all. Method: crashes between its frames.
#[test]
fn a_write_of_several_frames_is_whole_or_absent() {
    directed(directed::torn_large_writes, 0..60);
}

/// Goal: a coalesced interval of several frames is there as a whole or not at all. Method: a crash in one storage call after the other.
#[test]
fn an_interval_of_several_frames_is_whole_or_absent() {
    directed(directed::torn_intervals, 0..2 * directed::TORN_INTERVALS_CALLS);
}

/// Goal: no read returns a state in which a part of an interval is missing. Method: the head of one frame after the other is damaged.
#[test]
fn an_interval_that_lost_a_frame_is_refused() {
    let frames: u64 = (0..4).map(|seed| passed(rot::run_intervals(seed, Sabotage::default()))).sum();
    assert!(frames > 40, "only {frames} frames were damaged");
}

/// Goal: frames in memory survive the failure of their segment. Method: failing writes and syncs, and a crash soon after.
#[test]
fn frames_move_away_from_a_segment_that_failed() {
    directed(directed::frames_that_move, 0..200);
}

/// Goal: durable means synced, whatever overtakes what. Method: answers to writes and syncs in random order.
#[test]
fn frames_become_durable_in_order() {
    for seed in 0..300 {
        let outcome = commit_order::run_seed(seed, Sabotage::default());
        outcome.unwrap_or_else(|cause| panic!("seed {seed}: {cause}"));
    }
}

/// Goal: damage is refused or reported, never returned. Method: flipped bits, lost, swapped and shortened pages and extents in
/// stores with random histories.
#[test]
fn damage_anywhere_is_refused_or_reported() {
    let places: u64 = (0..150).map(|seed| passed(rot::run_seed(seed, Sabotage::default()))).sum();
    assert!(places > 2000, "only {places} places were damaged");
}

/// Goal: a reader sees a whole state while the owner works. Method: steps of the owner between any two calls of the reader.
#[test]
fn a_reader_beside_a_busy_owner_sees_a_whole_state() {
    for seed in 0..250 {
        passed::<()>(interleaved::run_seed(seed, Sabotage::default()));
    }
}

/// Goal: whoever reads of a failure can repeat it. Method: the text of one.
#[test]
fn a_failure_names_its_seed_and_the_command_that_repeats_it() {
    let sabotage = Sabotage::default().with(cdp_core::sabotage::Switch::VisibilityOffByOne);
    let failure: Box<Failure> = run_seeds(0..50, sabotage).expect_err("this defect is found");
    let text = failure.to_string();
    assert!(text.contains(&format!("seed {} failed at step", failure.seed)), "{text}");
    assert!(text.contains(&format!("simulate -- --seed {}", failure.seed)), "{text}");
}

/// Goal: a scrub mends what a source has, and nothing else. Method: flipped bits in versions of random histories, thinned and not; without sources,
/// with the image of one state, with those of all; power cuts in the middle.
#[test]
fn a_scrub_mends_what_a_source_has() {
    let mut all = scrubbed::Scrubbed::default();
    for seed in 0..120 {
        let met = passed(scrubbed::run_seed(seed, Sabotage::default()));
        all.flips += met.flips;
        all.refused += met.refused;
        all.repaired += met.repaired;
        all.lost += met.lost;
    }
    println!("{all:?}");
    assert!(all.flips > 150 && all.refused > 100, "{all:?}");
    assert!(all.repaired > 100 && all.lost < all.repaired, "{all:?}");
}
