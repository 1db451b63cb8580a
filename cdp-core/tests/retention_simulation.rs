//! Random histories with retention on a disk that crashes and fails, against the model (see `cdp_core::testing::thinned`), and all
//! crashes of short ones.

use cdp_core::{
    sabotage::Sabotage,
    testing::{
        check::Thoroughness, directed::Directed, exhaustive::Exhaustive, interleaved, rot, scaled,
        simulate::run, thinned, world::Coverage,
    },
};
use std::{fmt::Display, ops::Range};

/// Seeds of one part, of which there are two.
const PART: u64 = 150;

fn passed<T>(outcome: Result<T, impl Display>) -> T {
    outcome.unwrap_or_else(|failure| panic!("{failure}"))
}

fn part(index: u64) {
    let mut met = Coverage::default();
    for seed in index * PART..(index + 1) * PART {
        met += passed(thinned::run_seed(seed, Sabotage::default()));
    }
    // A change that leaves nothing to thin must not look like success.
    let often = [
        met.plans,
        met.points_dropped,
        met.rounds,
        met.versions_dropped,
        met.segments_dropped,
        met.compacted,
    ];
    assert!(often.iter().all(|count| *count > PART / 2), "thinning occurs: {met:?}");
    let rare = [
        met.bookmarks_dropped,
        met.retentions_cut,
        met.plans_again,
        met.readers_behind,
        met.downs_in_recovery,
    ];
    assert!(rare.iter().all(|count| *count > PART / 10), "every kind of trouble occurs: {met:?}");
}

/// Goal: whatever is thinned and whenever it is cut short, each point that stays reads back, and each that goes is refused. Method: a
/// part of the seeds.
#[test]
fn thinned_histories_keep_the_promise_part_0() {
    part(0);
}

/// As part 0.
#[test]
fn thinned_histories_keep_the_promise_part_1() {
    part(1);
}

fn exhaustive() -> Exhaustive {
    Exhaustive {
        before: thinned::before_letters(),
        alphabet: thinned::alphabet(),
        length_max: 2,
        recovery_length_max: 1,
        subset_units_max: scaled(1, 2),
        random_crashes: scaled(0, 1),
        volume_sectors: 40,
        segment_bytes: 64 << 10,
        thoroughness: Thoroughness::EverySeq,
        sabotage: Sabotage::default(),
    }
}

/// Goal: no crash in any call of a run of retention breaks the promise, nor one in the recovery after it, and the same plan leads on.
/// Method: all pairs of steps, for every other first one.
#[test]
fn every_crash_in_a_run_of_retention_recovers_even_letters() {
    let counts = passed(exhaustive().run(0, 2));
    assert!(counts.disks > 20 * counts.histories && counts.recovery_crashes > counts.histories, "{counts:?}");
}

/// As for the even letters.
#[test]
fn every_crash_in_a_run_of_retention_recovers_odd_letters() {
    let counts = passed(exhaustive().run(1, 2));
    assert!(counts.disks > 20 * counts.histories && counts.recovery_crashes > counts.histories, "{counts:?}");
}

fn directed(history: Directed, seeds: Range<u64>) -> Coverage {
    let mut met = Coverage::default();
    seeds.for_each(|seed| met += passed(run(&history(seed, Sabotage::default()))));
    met
}

/// Goal: a run that meets a failing or a full storage leaves the store right, and a later run completes. Method: one call after the
/// other of each kind fails.
#[test]
fn a_run_that_failed_is_completed_by_a_later_one() {
    let met = directed(thinned::faults_in_a_run, 0..thinned::FAULT_SEEDS);
    // A full storage is answered by the reserve, so that few runs fail.
    assert!(met.retentions_cut > 0, "{met:?}");
    assert!(met.plans >= thinned::FAULT_SEEDS && met.segments_dropped > thinned::FAULT_SEEDS, "{met:?}");
}

/// Goal: a plan of which nobody knows whether it is durable is neither relied upon nor forgotten. Method: its record and the manifest in its
/// place fail; then bookmarks at older points, and a crash.
#[test]
fn a_plan_in_doubt_takes_no_bookmark_with_it() {
    let met = directed(thinned::plans_in_doubt, 0..100);
    assert!(met.retentions_cut > 20, "{met:?}");
}

/// Goal: a segment goes only when nothing in it is needed. Method: the full range ends right before a write of several segments.
#[test]
fn the_parts_of_a_large_write_behind_the_edge_stay() {
    let met = directed(thinned::edge_at_a_large_write, 0..20);
    assert!(met.points_dropped > 0, "{met:?}");
}

/// Goal: a reader sees a whole state while the owner thins. Method: steps of the owner between any two calls of the reader.
#[test]
fn a_reader_beside_a_thinning_owner_sees_a_whole_state() {
    for seed in 0..120 {
        passed::<()>(interleaved::run_thinned(seed, Sabotage::default()));
    }
}

/// Goal: damage of what was moved is refused, never returned. Method: flipped bits in compacted segments.
#[test]
fn damage_of_a_compacted_segment_is_refused() {
    let mut met = rot::Met::default();
    for seed in 0..60 {
        let more = passed(rot::run_compacted(seed, Sabotage::default()));
        met = rot::Met { places: met.places + more.places, refused: met.refused + more.refused };
    }
    assert!(met.places > 60 && met.refused > 20, "{met:?}");
}
