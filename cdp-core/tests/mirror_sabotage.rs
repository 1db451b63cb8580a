//! The tests of the simulation of mirror sets: each deliberate defect must be found within a bounded number of seeds, and the same seeds must
//! pass without it.

#![allow(clippy::print_stdout, reason = "which seed found what")]

use cdp_core::{
    sabotage::{MIRROR_SWITCHES, Sabotage, Switch},
    testing::mirror_world::{op::BESIDE, run::run_seed},
};

/// Seeds among which each defect must be found.
const SEEDS: u64 = 600;

fn is_found(switches: &[Switch]) {
    for switch in switches {
        let sabotage = Sabotage::default().with(*switch);
        // Some are only there where copies are written beside each other.
        let beside = [Switch::ReadBehind, Switch::FlushWithoutMarks, Switch::RepairBehind].contains(switch);
        let first = if beside { BESIDE } else { 0 };
        let found = (first..first + SEEDS).find_map(|seed| run_seed(seed, sabotage).err());
        let Some(failure) = found else { panic!("{switch:?} was not found with any seed") };
        if let Err(failure) = run_seed(failure.seed, Sabotage::default()) {
            panic!("seed {} fails without {switch:?} too: {failure}", failure.seed);
        }
        println!("{switch:?}: seed {}: {}", failure.seed, failure.cause);
    }
}

/// Goal: the tests are sharp. Method: every switch, in halves so that they run beside each other; panics are an answer here.
#[test]
fn every_deliberate_defect_of_a_mirror_set_is_found_first_half() {
    is_found(&MIRROR_SWITCHES[..MIRROR_SWITCHES.len() / 2]);
}

/// As the first half.
#[test]
fn every_deliberate_defect_of_a_mirror_set_is_found_second_half() {
    is_found(&MIRROR_SWITCHES[MIRROR_SWITCHES.len() / 2..]);
}
