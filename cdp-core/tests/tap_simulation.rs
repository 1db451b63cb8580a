//! Random histories of taps beside their production disks, against the order of writes (see `cdp_core::testing::tap_world`). A failing
//! seed prints itself and the command that repeats it.

use cdp_core::{
    sabotage::Sabotage,
    testing::tap_world::{
        TapCoverage,
        directed::{across_a_link, crashes_with_log, ends_with_differences, writes_around_reads},
        run::{run, run_seed, run_seeds},
    },
};
use std::fmt::Display;

/// Seeds that failed once: each stands for a defect that was mended.
const REGRESSIONS: [u64; 9] = [3, 14, 17, 34, 54, 220, 573, 576, 618];
/// Seeds of one part, of which there are two.
const PART: u64 = 200;

fn passed<T>(outcome: Result<T, impl Display>) -> T {
    outcome.unwrap_or_else(|failure| panic!("{failure}"))
}

#[allow(clippy::print_stdout, reason = "what the histories reached")]
fn part(index: u64) {
    let coverage: TapCoverage = passed(run_seeds(index * PART..(index + 1) * PART, Sabotage::default()));
    // A change that makes histories empty must not look like success.
    let TapCoverage { whole, marked, gaps, points, bookmarks, interleaved, downs, attached, .. } = coverage;
    let often = [whole, marked, points, attached];
    assert!(often.iter().all(|count| *count > 2 * PART), "writes, points and taps occur: {coverage:?}");
    let rare = [gaps, bookmarks, interleaved, downs, coverage.downs_in_calls, coverage.detached];
    assert!(rare.iter().all(|count| *count > PART / 4), "every kind of trouble occurs: {coverage:?}");
    let seldom = [
        coverage.downs_in_recovery,
        coverage.failed_reads,
        coverage.failed_calls,
        coverage.attached_equal,
        coverage.attached_with_log,
        coverage.overlapped,
        coverage.stalled,
        coverage.bypassed,
    ];
    assert!(seldom.iter().all(|count| *count > PART / 20), "every kind of fault occurs: {coverage:?}");
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

/// Goal: whatever is written around a read of the source wins over what was read. Method: few blocks, resync that runs alone.
#[test]
fn writes_around_reads_win() {
    (0..60).for_each(|seed| {
        passed(run(&writes_around_reads(seed, Sabotage::default())));
    });
}

/// Goal: the same where sources lie across a link and answer digests, regions before blocks before bytes, with writes between any two. Method: other random histories, and
/// few blocks with writes around each exchange.
#[test]
fn sources_across_a_link_keep_the_promise() {
    let mut coverage = TapCoverage::default();
    for seed in 1000..1150 {
        coverage += passed(run(&across_a_link(seed, Sabotage::default())));
    }
    let TapCoverage { gaps, interleaved, failed_reads, downs, .. } = coverage;
    assert!(gaps > 50 && interleaved > 50 && failed_reads > 10 && downs > 50, "{coverage:?}");
    for seed in 0..60 {
        let mut history = writes_around_reads(seed, Sabotage::default());
        history.world.far = true;
        passed(run(&history));
    }
}

/// Goal: what differs at the end of a tap is what the next one begins with, whatever lies between. Method: every way to end and to begin.
#[test]
fn differences_outlive_their_tap() {
    let mut coverage = TapCoverage::default();
    for seed in 0..60 {
        coverage += passed(run(&ends_with_differences(seed, Sabotage::default())));
    }
    let TapCoverage { attached_with_map, maps_harmed, stalled, .. } = coverage;
    assert!(attached_with_map > 60 && maps_harmed > 20 && stalled > 60, "{coverage:?}");
}

/// Goal: after a power cut the activity log names whatever either side has lost, and not much more. Method: small logs, and cuts in each call.
#[test]
fn an_activity_log_names_what_a_crash_takes_back() {
    let mut coverage = TapCoverage::default();
    for seed in 0..40 {
        coverage += passed(run(&crashes_with_log(seed, Sabotage::default())));
    }
    let TapCoverage { attached_with_log, begun, bypassed, .. } = coverage;
    assert!(attached_with_log > 20 && begun > 700 && bypassed > 20, "{coverage:?}");
}

/// Goal: what was mended stays so. Method: the seeds that failed.
#[test]
fn seeds_that_failed_once_pass() {
    REGRESSIONS.iter().for_each(|seed| {
        passed(run_seed(*seed, Sabotage::default()));
    });
}
