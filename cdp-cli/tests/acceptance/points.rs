//! What a point means: seqs, times and the edges of what can be recovered.

use crate::support::times::{START, format_time, time_in};
use crate::support::{Random, Scene, Shape, Trace};

/// Goal: every seq can be opened, byte for byte. Method: all seqs of a short history of every kind of line.
#[test]
fn every_seq_of_a_short_history_restores_exactly() {
    let mut random = Random::for_test("every_seq_of_a_short_history_restores_exactly");
    let mut scene = Scene::new(&[("disk", 256 << 10)]);
    let trace = Shape::mixed(256 << 10, 60).generate(&mut random);
    scene.replay(&trace);
    for seq in 0..=scene.oracle.newest() {
        scene.assert_restores(&format!("seq:{seq}"), "disk", seq);
    }
}

/// Goal: random seqs and times of a longer history over several replays restore exactly.
/// Method: 2,000 lines over 64 MiB in four replays; thirty seqs and thirty times, the times of writes and between.
#[test]
fn random_points_of_a_longer_history_restore_exactly() {
    let mut random = Random::for_test("random_points_of_a_longer_history_restore_exactly");
    let bytes = 64 << 20;
    let mut scene = Scene::new(&[("disk", bytes)]);
    let mut start = START;
    for _ in 0..4 {
        let mut shape = Shape::mixed(bytes, 500);
        shape.write_most = 256 << 10;
        shape.bookmark_percent = 0;
        shape.start = start;
        let trace = shape.generate(&mut random);
        start = trace.lines.last().unwrap().time;
        scene.replay(&trace);
    }
    let newest = scene.oracle.newest();
    for _ in 0..crate::support::scaled(30, 300) {
        let seq = random.between(0, newest);
        scene.assert_restores(&format!("seq:{seq}"), "disk", seq);
        let written = scene.oracle.time_of(random.between(1, newest));
        let time = (written + random.below(3) - 1).clamp(START, scene.oracle.time_of(newest));
        let seq = scene.oracle.seq_at(time);
        scene.assert_restores(&format!("time:{}", format_time(time)), "disk", seq);
    }
    scene.assert_restores("latest", "disk", newest);
    scene.assert_restores("oldest", "disk", 0);
    scene.assert_sound();
}

/// Goal: `time:T` is the largest seq with a time at or before T, to the nanosecond, with equal times and any number
/// of decimals. Method: a history whose times are equal, one nanosecond apart and hours apart; around each of them.
#[test]
fn a_time_names_the_last_write_at_or_before_it() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    let hour = 3_600_000_000_000;
    let times =
        [START, START, START, START + 1, START + 2, START + 2, START + hour, START + hour + 500_000_000];
    let mut trace = Trace::default();
    for (number, time) in (0..).zip(times) {
        trace.write(time, "disk", number * 512, 1024);
    }
    scene.replay(&trace);
    let last = times[times.len() - 1];
    for time in times {
        for near in [time - 1, time, time + 1] {
            if near < last {
                scene.assert_restores(
                    &format!("time:{}", format_time(near)),
                    "disk",
                    scene.oracle.seq_at(near),
                );
            }
        }
    }
    scene.assert_restores("time:2025-06-01T12:00:00Z", "disk", 0);
    scene.assert_restores("time:2026-01-01T00:00:00Z", "disk", 3);
    scene.assert_restores("time:2026-01-01T00:59:59.9Z", "disk", 6);
    scene.assert_restores("time:2026-01-01T01:00:00.0Z", "disk", 7);
    scene.assert_restores("time:2026-01-01T01:00:00.5Z", "disk", 8);
}

/// Goal: a time up to `covered_to` gives the newest state, one after it is in the future.
/// Method: the instant that `points` names, one nanosecond later, and the far future.
#[test]
fn a_time_after_covered_to_exits_with_4() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    let mut trace = Trace::default();
    trace.write(START, "disk", 0, 512);
    trace.write(START + 7, "disk", 512, 512);
    scene.replay(&trace);
    let covered = time_in(&scene.points()["covered_to"]);
    assert!(covered >= START + 7, "covered_to lies before the newest write");
    scene.assert_restores(&format!("time:{}", format_time(covered)), "disk", 2);
    scene.assert_unavailable(&format!("time:{}", format_time(covered + 1)), "disk").says("seq:2");
    scene.assert_unavailable("time:2200-01-01T00:00:00Z", "disk");
}

/// Goal: points that no one wrote are refused with the nearest exact ones. Method: the future, an unknown bookmark,
/// a bookmark of a kind that has none.
#[test]
fn points_that_do_not_exist_exit_with_4() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    let mut trace = Trace::default();
    for number in 0..37 {
        trace.write(START + number, "disk", 0, 512);
    }
    scene.replay(&trace);
    scene.assert_unavailable("seq:38", "disk").says("37");
    scene.assert_unavailable("seq:18446744073709551615", "disk").says("37");
    scene.assert_unavailable("bookmark:unknown", "disk").says("unknown");
    scene.assert_unavailable("bookmark-latest", "disk");
    scene.assert_unavailable("bookmark-latest:app", "disk");
    scene.assert_unavailable("bookmark-before:2026-06-01T00:00:00Z", "disk");
}

/// Goal: a store without any write has exactly the state of zeroes. Method: seq 0, latest and oldest; seq 1 not.
#[test]
fn an_empty_store_has_the_state_of_zeroes() {
    let scene = Scene::new(&[("disk", 64 << 10)]);
    for point in ["seq:0", "latest", "oldest"] {
        scene.assert_restores(point, "disk", 0);
    }
    scene.assert_unavailable("seq:1", "disk");
    assert_eq!(scene.points()["newest"]["seq"], 0);
}
