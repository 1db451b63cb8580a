//! The tests of the tests of retention: each deliberate defect must be found within a bounded number of seeds, and the same seeds must
//! pass without it.

use cdp_core::{
    sabotage::{RETENTION_SWITCHES, Sabotage, Switch},
    testing::thinned,
};

/// Seeds among which each defect must be found.
const SEEDS: u64 = 150;

fn fails(seed: u64, sabotage: Sabotage) -> bool {
    thinned::run_seed(seed, sabotage).is_err()
}

fn is_found(sabotage: Sabotage, name: &str) {
    let found = (0..SEEDS).find(|seed| fails(*seed, sabotage));
    let Some(seed) = found else { panic!("{name} was not found with any seed") };
    assert!(!fails(seed, Sabotage::default()), "seed {seed} fails without {name} too");
}

/// Goal: the tests are sharp. Method: every switch; panics are an answer here.
#[test]
fn every_deliberate_defect_of_retention_is_found() {
    for switch in RETENTION_SWITCHES {
        is_found(Sabotage::default().with(switch), &format!("{switch:?}"));
    }
}

/// Goal: what the proof of thinning would find is also found without it. Method: both defects together.
#[test]
fn a_needed_version_that_goes_is_found_without_the_proof() {
    let sabotage = Sabotage::default().with(Switch::ThinNeeded).with(Switch::SkipConservation);
    is_found(sabotage, "ThinNeeded without its proof");
}

/// Goal: the proof itself finds that a needed version goes. Method: what the run of retention says.
#[test]
fn the_proof_of_thinning_refuses_to_drop_a_needed_version() {
    let sabotage = Sabotage::default().with(Switch::ThinNeeded);
    let failures = (0..SEEDS).filter_map(|seed| thinned::run_seed(seed, sabotage).err());
    let text = failures.map(|failure| failure.to_string()).next().expect("it is found");
    assert!(text.contains("what is visible at a kept point is not what it was"), "{text}");
}
