//! All short histories with a crash at every changing call (see `cdp_core::testing::exhaustive`).

use cdp_core::{
    sabotage::Sabotage,
    testing::{
        check::Thoroughness,
        exhaustive::{
            Exhaustive, coalesced_alphabet, coalesced_from_the_beginning, large_alphabet, small_alphabet,
        },
        scaled,
    },
};

fn small() -> Exhaustive {
    Exhaustive {
        before: Vec::new(),
        alphabet: small_alphabet(),
        length_max: 3,
        recovery_length_max: 1,
        subset_units_max: scaled(3, 4),
        random_crashes: scaled(1, 4),
        volume_sectors: 40,
        segment_bytes: 3 << 19,
        thoroughness: Thoroughness::Everything,
        sabotage: Sabotage::default(),
    }
}

/// As `small`, but a segment has hardly room for a frame, so that nearly every write begins a new one.
fn large() -> Exhaustive {
    Exhaustive {
        alphabet: large_alphabet(),
        length_max: 2,
        recovery_length_max: 0,
        subset_units_max: 1,
        random_crashes: 1,
        volume_sectors: 4096,
        segment_bytes: 64 << 10,
        thoroughness: Thoroughness::EverySeq,
        ..small()
    }
}

/// As `large`, with coalesced writes; an interval may be larger than a frame.
fn coalesced() -> Exhaustive {
    Exhaustive {
        before: coalesced_from_the_beginning(),
        alphabet: coalesced_alphabet(),
        segment_bytes: 1 << 20,
        random_crashes: 1,
        ..large()
    }
}

fn run(exhaustive: &Exhaustive, part: usize, parts: usize) {
    let counts = exhaustive.run(part, parts).unwrap_or_else(|failure| panic!("{failure}"));
    // Every history crashes at least once after it and once in a call.
    assert!(counts.disks > 2 * counts.histories, "{counts:?}");
}

/// Goal: no crash at any call of any short history breaks the promise. Method: all of them, for every other first letter.
#[test]
fn every_crash_of_a_short_history_recovers_even_letters() {
    run(&small(), 0, 2);
}

/// As for the even letters.
#[test]
fn every_crash_of_a_short_history_recovers_odd_letters() {
    run(&small(), 1, 2);
}

/// Goal: the same for volumes, imports, writes of several frames, sealing and merging. Method: pairs of these, for every other
/// first letter.
#[test]
fn every_crash_of_a_pair_of_large_steps_recovers_even_letters() {
    run(&large(), 0, 2);
}

/// As for the even letters.
#[test]
fn every_crash_of_a_pair_of_large_steps_recovers_odd_letters() {
    run(&large(), 1, 2);
}

/// Goal: the same for coalesced writes. Method: pairs of steps behind a first interval.
#[test]
fn every_crash_of_a_pair_of_coalesced_steps_recovers() {
    run(&coalesced(), 0, 1);
}
