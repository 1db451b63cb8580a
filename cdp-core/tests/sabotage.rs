//! The tests of the tests: each deliberate defect must be found by at least one kind of test within a bounded number of seeds, and
//! the same seeds must pass without it.

use cdp_core::{
    sabotage::{SWITCHES, Sabotage, Switch},
    testing::{
        commit_order, directed, rot, scrubbed,
        simulate::{run, run_seed},
    },
};
use std::ops::Range;

/// A kind of test that can find a defect, and the seeds among which it must.
type Finder = (fn(u64, Sabotage) -> bool, Range<u64>);

fn fails_in_simulation(seed: u64, sabotage: Sabotage) -> bool {
    run_seed(seed, sabotage).is_err()
}

fn fails_with_damage(seed: u64, sabotage: Sabotage) -> bool {
    rot::run_seed(seed, sabotage).is_err()
}

fn fails_with_scrubbing(seed: u64, sabotage: Sabotage) -> bool {
    scrubbed::run_seed(seed, sabotage).is_err()
}

fn fails_with_large_writes(seed: u64, sabotage: Sabotage) -> bool {
    run(&directed::torn_large_writes(seed, sabotage)).is_err()
}

fn fails_with_sizes(seed: u64, sabotage: Sabotage) -> bool {
    run(&directed::sizes_back_and_forth(seed, sabotage)).is_err()
}

fn fails_with_intervals(seed: u64, sabotage: Sabotage) -> bool {
    run(&directed::torn_intervals(seed, sabotage)).is_err()
}

fn fails_out_of_order(seed: u64, sabotage: Sabotage) -> bool {
    commit_order::run_seed(seed, sabotage).is_err()
}

/// What finds a defect. A new switch does not compile without an entry.
fn finder_of(switch: Switch) -> Finder {
    match switch {
        Switch::SkipManifestSync
        | Switch::AcknowledgeBeforeSync
        | Switch::VisibilityOffByOne
        | Switch::DropZeroRanges
        | Switch::MergeDropsEntry
        | Switch::SkipFooterSync => (fails_in_simulation, 0..50),
        Switch::UseUnnamedSegment | Switch::TrustTailPayload => (fails_in_simulation, 0..300),
        Switch::SkipDigestCheck => (fails_with_damage, 0..20),
        Switch::TruncateOnAnyBadFrame => (fails_with_damage, 0..100),
        Switch::RepairUnchecked => (fails_with_scrubbing, 0..40),
        Switch::KeepIncompleteWrite => (fails_with_large_writes, 0..60),
        Switch::KeepWhatWasCut => (fails_with_sizes, 0..8),
        Switch::KeepCutInterval => (fails_with_intervals, 0..32),
        Switch::PointWithinInterval => (fails_in_simulation, 0..50),
        Switch::DurableAcrossHoles => (fails_out_of_order, 0..20),
        Switch::CleanOlderVersion
        | Switch::CleanPartialBlock
        | Switch::MergeOverwrites
        | Switch::EvictBeforeMapPage
        | Switch::SubmitBeforeLogSync
        | Switch::LogOffNotRecorded
        | Switch::ResizeWritesBeforeRead
        | Switch::ReplaySkipsGap
        | Switch::NeedReplayClearedEarly => unreachable!("found by the tests of the dirty map"),
        Switch::SettleBeforeDurable
        | Switch::DecideFromTwoLooks
        | Switch::SeqAfterRead
        | Switch::DigestsBeforeToken
        | Switch::GapAtNewest
        | Switch::CloseGapUndrained
        | Switch::MarkWithoutLadder
        | Switch::BelieveUncleanEnd
        | Switch::BookmarkUndrained
        | Switch::SkipPartialBlock
        | Switch::StoreMapBeforeDrain
        | Switch::KeepMapOfWritten
        | Switch::BelieveAnyMap
        | Switch::CaptureOverlapped
        | Switch::LetGoBeforeSource
        | Switch::LetGoBeforeDurable => unreachable!("found by the simulation of taps"),
        Switch::ThinNeeded
        | Switch::SkipConservation
        | Switch::SkipCompactedSync
        | Switch::UnlinkBeforeEdit
        | Switch::IgnorePins
        | Switch::ThinBeforePlan
        | Switch::MoveBeside
        | Switch::ExpireLocked
        | Switch::ForgetNeighbour => unreachable!("found by the simulation of retention"),
        Switch::RotateLate
        | Switch::EqualIdsClean
        | Switch::MarkAfterAcknowledge
        | Switch::LogAfterData
        | Switch::CleanBeforeCopyDurable
        | Switch::ReadDirtyCopy
        | Switch::LeaveUnreadable
        | Switch::ReadBehind
        | Switch::FlushWithoutMarks
        | Switch::RepairBehind => unreachable!("found by the simulation of mirror sets"),
    }
}

fn is_found(switches: &[Switch]) {
    for switch in switches {
        let (fails, mut seeds) = finder_of(*switch);
        let found = seeds.find(|seed| fails(*seed, Sabotage::default().with(*switch)));
        let Some(seed) = found else { panic!("{switch:?} was not found with any seed") };
        assert!(!fails(seed, Sabotage::default()), "seed {seed} fails without {switch:?} too");
    }
}

/// Goal: the tests are sharp. Method: every switch, in halves so that they run beside each other; panics are an answer here.
#[test]
fn every_deliberate_defect_is_found_first_half() {
    is_found(&SWITCHES[..SWITCHES.len() / 2]);
}

/// As the first half.
#[test]
fn every_deliberate_defect_is_found_second_half() {
    is_found(&SWITCHES[SWITCHES.len() / 2..]);
}
