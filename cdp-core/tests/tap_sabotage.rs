//! The tests of the simulation of taps: each deliberate defect must be found within a bounded number of seeds, and the same seeds must pass
//! without it.

#![allow(clippy::print_stdout, reason = "which seed found what")]

use cdp_core::{
    sabotage::{Sabotage, Switch, TAP_SWITCHES},
    testing::tap_world::{
        directed::{across_a_link, crashes_with_log, ends_with_differences, writes_around_reads},
        run::{run, run_seed},
    },
};
use std::ops::Range;

/// A kind of test that can find a defect, and the seeds among which it must.
type Finder = (fn(u64, Sabotage) -> Result<(), String>, Range<u64>);

fn in_simulation(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    run_seed(seed, sabotage).map(|_| ()).map_err(|failure| failure.to_string())
}

fn around_reads(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    run(&writes_around_reads(seed, sabotage)).map(|_| ()).map_err(|failure| failure.to_string())
}

fn with_ends(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    run(&ends_with_differences(seed, sabotage)).map(|_| ()).map_err(|failure| failure.to_string())
}

fn with_log(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    run(&crashes_with_log(seed, sabotage)).map(|_| ()).map_err(|failure| failure.to_string())
}

fn across(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    run(&across_a_link(seed, sabotage)).map(|_| ()).map_err(|failure| failure.to_string())
}

fn finder_of(switch: Switch) -> Finder {
    match switch {
        Switch::SeqAfterRead | Switch::CloseGapUndrained => (around_reads, 0..60),
        Switch::DigestsBeforeToken => (across, 0..300),
        Switch::StoreMapBeforeDrain | Switch::KeepMapOfWritten | Switch::BelieveAnyMap => (with_ends, 0..60),
        Switch::LetGoBeforeSource
        | Switch::LetGoBeforeDurable
        | Switch::EvictBeforeMapPage
        | Switch::SubmitBeforeLogSync
        | Switch::LogOffNotRecorded => (with_log, 0..60),
        _ => (in_simulation, 0..300),
    }
}

fn is_found(switches: &[Switch]) {
    for switch in switches {
        let sabotage = Sabotage::default().with(*switch);
        let (run, mut seeds) = finder_of(*switch);
        let found = seeds.find(|seed| run(*seed, sabotage).is_err());
        let Some(seed) = found else { panic!("{switch:?} was not found with any seed") };
        if let Err(failure) = run(seed, Sabotage::default()) {
            panic!("seed {seed} fails without {switch:?} too: {failure}");
        }
        println!("{switch:?}: seed {seed}");
    }
}

/// Goal: the tests are sharp. Method: every switch, in halves so that they run beside each other; panics are an answer here.
#[test]
fn every_deliberate_defect_of_a_tap_is_found_first_half() {
    is_found(&TAP_SWITCHES[..TAP_SWITCHES.len() / 2]);
}

/// As the first half.
#[test]
fn every_deliberate_defect_of_a_tap_is_found_second_half() {
    is_found(&TAP_SWITCHES[TAP_SWITCHES.len() / 2..]);
}
