//! Replay through a tap, and replay with a granularity: what the timeline says is exact is exact, the rest is refused.

use std::fs;

use serde_json::Value;

use crate::support::times::{START, format_time, time_in};
use crate::support::{Random, Scene, Shape, Trace, cdp, files, scaled};

/// Lines at times that all differ, so that a time names one state whatever seqs a tap gives.
fn trace(random: &mut Random, bytes: u64, lines: usize, start: u64) -> Trace {
    let mut shape = Shape::mixed(bytes, lines);
    (shape.bookmark_percent, shape.flush_percent, shape.same_time_percent, shape.start) = (0, 0, 0, start);
    let mut trace = shape.generate(random);
    for (index, line) in (0..).zip(&mut trace.lines) {
        line.time = start + index * 1_000_000;
    }
    trace
}

fn replay_tap(scene: &Scene, trace: &Trace, options: &[&str]) -> Value {
    let file = scene.path("trace.csv");
    trace.save(&file);
    let mut arguments: Vec<std::ffi::OsString> =
        vec!["replay".into(), scene.store.clone().into(), file.into()];
    arguments.extend(["--tap", "--json", "--source"].map(Into::into));
    arguments.push(scene.path("source.img").into());
    arguments.extend(options.iter().map(Into::into));
    crate::support::command::run_cdp(&arguments).succeeds().json()
}

/// Every time of the trace: inside an exact range it restores to what the trace says, inside a gap it is refused with exit 4.
fn assert_times(scene: &Scene, trace: &Trace, random: &mut Random, count: usize) -> (usize, usize) {
    let points = scene.points();
    let ranges = |key: &str| -> Vec<(u64, u64)> {
        let ranges = points[key].as_array().unwrap().iter();
        ranges.map(|range| (time_in(&range["from_time"]), time_in(&range["to_time"]))).collect()
    };
    let (exact, gaps) = (ranges("exact"), ranges("gaps"));
    let mut counts = (0, 0);
    for _ in 0..count {
        let line = &trace.lines[usize::try_from(random.below(trace.lines.len() as u64)).unwrap()];
        let point = format!("time:{}", format_time(line.time));
        if exact.iter().any(|(from, to)| (*from..=*to).contains(&line.time)) {
            scene.assert_restores(&point, "disk", scene.oracle.seq_at(line.time));
            counts.0 += 1;
        } else if gaps.iter().any(|(from, to)| (*from..=*to).contains(&line.time)) {
            scene.assert_unavailable(&point, "disk");
            counts.1 += 1;
        }
    }
    counts
}

fn assert_source_is_restored(scene: &Scene) {
    let newest = scene.path("newest.img");
    cdp!("restore", scene.store, "--at", "latest", "--to", newest).succeeds();
    let difference = files::first_difference(&newest, &scene.path("source.img"));
    assert_eq!(difference, None, "the newest state is not the source");
    fs::remove_file(newest).unwrap();
}

/// Goal: a tap that keeps up loses nothing: no gap, every line a point, and the source holds what the trace says. Method: three replays
/// onto one source, points by time.
#[test]
fn a_tap_that_keeps_up_has_every_line() {
    let mut random = Random::for_test("a_tap_that_keeps_up_has_every_line");
    let bytes = 16 << 20;
    let mut scene = Scene::new(&[("disk", bytes)]);
    let first = trace(&mut random, bytes, 400, START);
    let report = replay_tap(&scene, &first, &[]);
    assert_eq!((&report["writes"], &report["gaps"]), (&400.into(), &0.into()), "{report}");
    assert_eq!((&report["first_seq"], &report["last_seq"]), (&1.into(), &400.into()), "{report}");
    scene.oracle.replay(&first, None);
    assert_source_is_restored(&scene);
    let (exact, refused) = assert_times(&scene, &first, &mut random, scaled(12, 100));
    assert!(exact > 0 && refused == 0);
    scene.oracle.image("disk", 400).assert_equals_file(&scene.path("source.img"), "the source");
    scene.assert_restores("seq:123", "disk", 123);
    let stat = cdp!("stat", scene.store, "--json").succeeds().json();
    assert_eq!(stat["volumes"][0]["mode"], "data", "{stat}");
    assert_eq!(stat["volumes"][0]["dirty_bytes"], 0, "{stat}");
    scene.assert_sound();
}

/// Goal: a store that is too slow leaves a gap that is declared and refused, and the newest state is the source in the end; what was
/// exact before stays so. Method: a throttled replay of far more than the pool holds, points by time on both sides.
#[test]
fn an_overload_is_a_gap_and_heals() {
    let mut random = Random::for_test("an_overload_is_a_gap_and_heals");
    let bytes = 48 << 20;
    let mut scene = Scene::new(&[("disk", bytes)]);
    let mut shape = Shape::mixed(bytes, 9000);
    (shape.bookmark_percent, shape.flush_percent, shape.zero_percent, shape.discard_percent) = (0, 0, 1, 1);
    shape.write_most = 256 << 10;
    let mut heavy = shape.generate(&mut random);
    for (index, line) in (0..).zip(&mut heavy.lines) {
        line.time = START + index * 1_000_000;
    }
    let report = replay_tap(&scene, &heavy, &["--throttle", "16M"]);
    scene.oracle.replay(&heavy, None);
    let points = scene.points();
    let gaps = points["gaps"].as_array().unwrap();
    assert!(!gaps.is_empty() && report["gaps"] == gaps.len() as u64, "{report} {points}");
    assert!(gaps.iter().all(|gap| gap["volume"] == "disk" && gap["reason"] == "overload"), "{points}");
    assert_source_is_restored(&scene);
    let (exact, refused) = assert_times(&scene, &heavy, &mut random, scaled(40, 200));
    assert!(exact > 0 && refused > 0, "{exact} exact, {refused} refused: {points}");
    for gap in gaps {
        for key in ["from_seq", "to_seq"] {
            let ran = scene.assert_unavailable(&format!("seq:{}", gap[key]), "disk");
            assert!(ran.stderr.contains("before") && ran.stderr.contains("after"), "{}", ran.described());
        }
        let fuzzy = scene.path("fuzzy.img");
        let point = format!("seq:{}", gap["from_seq"]);
        cdp!("restore", scene.store, "--at", point, "--to", fuzzy, "--fuzzy").succeeds();
        fs::remove_file(fuzzy).unwrap();
    }
    let kinds = points["bookmarks"].as_array().unwrap();
    assert!(kinds.iter().any(|bookmark| bookmark["kind"] == "system"), "{points}");
    scene.assert_sound();
}

/// Goal: a tap that is taken off while blocks differ says so, stays refused, and heals at the next one. Method: `--no-wait` under overload,
/// then an empty trace.
#[test]
fn what_was_left_behind_is_copied_by_the_next_tap() {
    let mut random = Random::for_test("what_was_left_behind_is_copied_by_the_next_tap");
    let bytes = 48 << 20;
    let mut scene = Scene::new(&[("disk", bytes)]);
    let mut shape = Shape::mixed(bytes, 6000);
    (shape.bookmark_percent, shape.flush_percent, shape.zero_percent, shape.discard_percent) = (0, 0, 0, 0);
    shape.write_most = 256 << 10;
    let heavy = shape.generate(&mut random);
    replay_tap(&scene, &heavy, &["--throttle", "8M", "--no-wait"]);
    let stat = cdp!("stat", scene.store, "--json").succeeds().json();
    assert_eq!(stat["volumes"][0]["mode"], "bitmap", "{stat}");
    assert!(stat["volumes"][0]["dirty_bytes"].as_u64().unwrap() > 0, "{stat}");
    scene.assert_unavailable("latest", "disk");
    let report = replay_tap(&scene, &Trace::default(), &[]);
    assert_eq!(report["writes"], 0, "{report}");
    assert_source_is_restored(&scene);
    scene.oracle.replay(&heavy, None);
    let last = scene.oracle.newest();
    scene.oracle.image("disk", last).assert_equals_file(&scene.path("source.img"), "the source");
    scene.assert_sound();
}

/// Goal: the options of the resync hold the comparison back that makes the volume whole, and it becomes whole. Method: a source of 8 MiB that may
/// have changed, at 4 MiB a second and behind a delay; the time that the replay takes.
#[test]
fn the_options_of_the_resync_hold_it_back() {
    let mut random = Random::for_test("the_options_of_the_resync_hold_it_back");
    let bytes = 8 << 20;
    let scene = Scene::new(&[("disk", bytes)]);
    replay_tap(&scene, &trace(&mut random, bytes, 50, START), &[]);
    let began = std::time::Instant::now();
    let options = ["--resync-rate", "4M", "--resync-delay", "1s", "--resync-latency", "1h"];
    replay_tap(&scene, &Trace::default(), &options);
    assert!(began.elapsed().as_millis() > 2500, "{:?}", began.elapsed());
    assert_source_is_restored(&scene);
    let file = scene.path("trace.csv");
    cdp!("replay", scene.store, file, "--resync-rate", "4M").exits(2);
    scene.assert_sound();
}

/// Goal: a source that was changed while nothing watched it is compared, and only what differs is stored. Method: change the source by hand
/// between two replays.
#[test]
fn a_source_that_was_changed_is_compared() {
    let mut random = Random::for_test("a_source_that_was_changed_is_compared");
    let bytes = 8 << 20;
    let scene = Scene::new(&[("disk", bytes)]);
    let first = trace(&mut random, bytes, 100, START);
    replay_tap(&scene, &first, &[]);
    let source = scene.path("source.img");
    let mut image = fs::read(&source).unwrap();
    image[5 << 20..(5 << 20) + 100].fill(0xa5);
    fs::write(&source, &image).unwrap();
    let second = trace(&mut random, bytes, 50, START + 1_000_000_000);
    let before = files::allocated_below(&scene.store);
    replay_tap(&scene, &second, &[]);
    assert_source_is_restored(&scene);
    let grown = files::allocated_below(&scene.store).saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes for a small change");
    scene.assert_sound();
}

/// Goal: wrong usage is refused before anything happens. Method: each case.
#[test]
fn a_tap_without_a_fitting_source_is_refused() {
    let scene = Scene::new(&[("disk", 1 << 20), ("other", 1 << 20)]);
    let file = scene.path("trace.csv");
    let mut two = Trace::default();
    two.write(START, "disk", 0, 512);
    two.write(START + 1, "other", 0, 512);
    two.save(&file);
    let source = scene.path("source.img");
    cdp!("replay", scene.store, file, "--tap").exits(2);
    cdp!("replay", scene.store, file, "--source", source).exits(2);
    cdp!("replay", scene.store, file, "--throttle", "1M").exits(2);
    fs::write(&source, vec![0; 4096]).unwrap();
    cdp!("replay", scene.store, file, "--tap", "--source", source).exits(1).says("4096");
    fs::remove_file(&source).unwrap();
    cdp!("replay", scene.store, file, "--tap", "--source", source).exits(1).says("line 2");
    let newest = scene.path("newest.img");
    cdp!("restore", scene.store, "--at", "latest", "--to", newest).succeeds();
    assert_eq!(files::first_difference(&newest, &source), None, "the line before the bad one stays");
}

/// Goal: with a granularity every line takes a seq, the last state of each interval is a point and exact, and every other seq and time is
/// refused. Method: every seq of a trace, and times between them, with a bookmark in the middle of an interval.
#[test]
fn with_a_granularity_the_last_state_of_each_interval_is_a_point() {
    let mut random = Random::for_test("with_a_granularity_the_last_state_of_each_interval_is_a_point");
    let bytes = 1 << 20;
    let mut scene = Scene::new(&[("disk", bytes)]);
    let mut lines = trace(&mut random, bytes, 60, START);
    for (index, line) in (0..).zip(&mut lines.lines) {
        line.time = START + index * 7_000_000;
    }
    let file = scene.path("trace.csv");
    lines.save(&file);
    let report = cdp!("replay", scene.store, file, "--granularity", "50ms", "--json").succeeds().json();
    assert_eq!((&report["first_seq"], &report["last_seq"]), (&1.into(), &60.into()), "{report}");
    scene.oracle.replay(&lines, None);
    let times: Vec<u64> = lines.lines.iter().map(|line| line.time).collect();
    let interval = |seq: usize| times[seq - 1] / 50_000_000;
    for seq in 1..=60 {
        let time = times[seq - 1] + 3_000_000;
        let (by_seq, by_time) = (format!("seq:{seq}"), format!("time:{}", format_time(time)));
        if seq == 60 || interval(seq) != interval(seq + 1) {
            scene.assert_restores(&by_seq, "disk", seq as u64);
            if seq < 60 {
                scene.assert_restores(&by_time, "disk", seq as u64);
            }
        } else {
            scene.assert_unavailable(&by_seq, "disk");
            scene.assert_unavailable(&by_time, "disk");
        }
    }
    let exact = &scene.points()["exact"];
    assert_eq!(exact[0]["granularity"], "write", "{exact}");
    assert_eq!(exact[1]["granularity"], "50ms", "{exact}");
    // What is replayed without one is kept write by write again.
    let mut after = Trace::default();
    for step in 0..5 {
        after.write(times[59] + 1 + step, "disk", step * 4096, 4096);
    }
    scene.replay(&after);
    (60..=65).for_each(|seq| scene.assert_restores(&format!("seq:{seq}"), "disk", seq));
    scene.assert_sound();
}
