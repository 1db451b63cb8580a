//! Points, times and differences on a thinned timeline; granularities, imports and taps in its past.

use std::collections::BTreeSet;

use crate::support::policy::{DAY, Filter, HOUR, Keep, Policy, SECOND, State, Window};
use crate::support::times::{START, format_time};
use crate::support::{Lab, Op, Random, Scene, Trace, cdp};

const DISK_BYTES: u64 = 256 << 10;

/// An hour in full, then the last state of each hour.
fn hourly() -> Policy {
    let keep = Keep::Every { every: HOUR, per_slot: 1, prefer: vec!["app", "fs", "user"] };
    Policy {
        windows: vec![
            Window { to: HOUR, keep: Keep::All, bookmarks: Filter::None },
            Window { to: 10 * DAY, keep, bookmarks: Filter::All },
        ],
        ..Policy::default()
    }
}

/// Goal: a retained point stands for every time from its own up to that of the write that followed it, whoever
/// wrote that; all other times are refused with points that open on both sides.
/// Method: two volumes, equal times around a retained point, each nanosecond that matters.
#[test]
fn a_retained_point_stands_until_the_next_write() {
    let mut lab = Lab::new(&[("disk", DISK_BYTES), ("logs", DISK_BYTES)], hourly());
    let mut trace = Trace::default();
    let minute = 60 * SECOND;
    // Hour 0 ends with seq 3, followed within the next hour by a write of the other volume.
    trace.write(START + 10 * minute, "disk", 0, 4096);
    trace.write(START + 20 * minute, "disk", 4096, 4096);
    trace.write(START + 30 * minute, "disk", 0, 8192);
    trace.write(START + 65 * minute, "logs", 0, 4096);
    // Hour 1 ends with seqs 5 to 7 at one time, followed at once.
    for offset in [0, 512, 1024] {
        trace.write(START + 119 * minute, "disk", offset, 4096);
    }
    trace.write(START + 119 * minute + 1, "logs", 512, 512);
    // Hour 3 has one write, hour 2 none.
    trace.write(START + 200 * minute, "disk", 0, 512);
    trace.push(START + 210 * minute, "disk", Op::Bookmark("later".to_owned()));
    for number in 0..10 {
        trace.write(START + (600 + number) * minute, "disk", 8192, 512);
    }
    lab.replay(&trace);
    let now = START + 610 * minute;
    lab.run(now);
    let kept = lab.assert_planned(now);
    assert_eq!(kept.seqs, BTreeSet::from_iter([3, 8, 9].into_iter().chain(10..=19)));
    let time = |at: u64| format!("time:{}", format_time(at));
    for volume in ["disk", "logs"] {
        for (seq, from, to) in [(3, 30, 65), (9, 200, 600)] {
            for at in [START + from * minute, START + (from + 1) * minute, START + to * minute - 1] {
                lab.assert_restores(&time(at), volume, seq);
            }
        }
        lab.assert_restores(&time(START + 119 * minute + 1), volume, 8);
        lab.assert_restores(&time(START + 200 * minute - 1), volume, 8);
        lab.assert_restores(&time(START + 600 * minute), volume, 10);
        lab.assert_restores("oldest", volume, 3);
        lab.assert_restores("bookmark-latest", volume, 9);
        lab.assert_restores(&format!("bookmark-before:{}", format_time(START + 211 * minute)), volume, 9);
        for at in [START, START + 30 * minute - 1, START + 65 * minute, START + 119 * minute] {
            let ran = lab.assert_unavailable(&time(at), volume);
            assert!(ran.stderr.contains("seq:3") || ran.stderr.contains("seq:8"), "{}", ran.described());
        }
        lab.assert_unavailable(&format!("bookmark-before:{}", format_time(START + 200 * minute)), volume);
    }
    lab.assert_unavailable("seq:0", "disk");
    for (from, to) in [(3, 8), (8, 9), (3, 9), (9, 10), (3, 19), (9, 19)] {
        lab.assert_difference("disk", from, to);
        lab.assert_difference("logs", from, to);
    }
    cdp!("diff", lab.store, "--from", "seq:4", "--to", "latest").exits(4);
    cdp!("diff", lab.store, "--from", "seq:3", "--to", "seq:7").exits(4);
    cdp!("bookmark", "add", lab.store, "too-late", "--at", "seq:5").exits(4);
    cdp!("bookmark", "add", lab.store, "in-time", "--at", "seq:8").succeeds();
    lab.assert_sound();
}

/// Goal: bookmarks that are gone are not found by any spelling, and those that are left are.
/// Method: bookmarks of three kinds over days under the reference policy; `bookmark-latest` and `-before` by kind.
#[test]
fn bookmarks_that_are_gone_are_not_selected() {
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], Policy::reference());
    let mut trace = Trace::default();
    for hour in 0..24 * 10 {
        trace.write(START + hour * HOUR, "disk", hour % 60 * 4096, 4096);
    }
    lab.replay(&trace);
    for day in 0..9 {
        let nightly = lab.mark(&format!("nightly-{day}"), "app", day * 24 + 2);
        lab.bookmark(crate::support::policy::Mark { app: Some("postgresql"), ..nightly });
        lab.bookmark(lab.mark(&format!("fs-{day}"), "fs", day * 24 + 12));
    }
    let now = START + 11 * DAY + HOUR;
    lab.run(now);
    lab.assert_planned(now);
    // The sparse window begins on day 9; no bookmark of a file system is left, each nightly one is.
    lab.assert_restores("bookmark-latest", "disk", 8 * 24 + 2);
    lab.assert_restores("bookmark-latest:app", "disk", 8 * 24 + 2);
    lab.assert_unavailable("bookmark-latest:fs", "disk");
    for day in 1..9 {
        let time = format_time(START + day * DAY);
        let seq = (day - 1) * 24 + 2;
        lab.assert_restores(&format!("bookmark-before:{time}"), "disk", seq);
        lab.assert_restores(&format!("bookmark-before:{time}:app"), "disk", seq);
        lab.assert_unavailable(&format!("bookmark-before:{time}:fs"), "disk");
    }
}

/// Goal: where only the last state of an interval is a point, slots and windows choose among those.
/// Method: a replay with a granularity of ten minutes, one without; the planner over the points there are.
#[test]
fn points_of_a_granularity_are_thinned() {
    let mut random = Random::for_test("points_of_a_granularity_are_thinned");
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], hourly());
    let (minute, interval) = (60 * SECOND, 600 * SECOND);
    let mut trace = Trace::default();
    for _ in 0..400 {
        let time = trace.lines.last().map_or(START, |line| line.time) + random.below(6 * minute);
        trace.write(time, "disk", random.below(60) * 4096, 4096);
    }
    let file = lab.path("coarse.csv");
    trace.save(&file);
    cdp!("replay", lab.store, file, "--granularity", "10m").succeeds();
    lab.oracle.replay(&trace, None);
    let times: Vec<u64> = trace.lines.iter().map(|line| line.time).collect();
    let last =
        |index: usize| times.get(index + 1).is_none_or(|next| next / interval != times[index] / interval);
    let points = |lab: &Lab| -> Vec<State> {
        let states = lab.oracle.seqs().map(|(seq, time)| State { seq, time });
        states.filter(|state| state.seq > 400 || last(crate::support::index(state.seq) - 1)).collect()
    };
    let mut fine = Trace::default();
    let end = times[399];
    for number in 1..=120 {
        fine.write(end + number * minute, "disk", random.below(60) * 4096, 8192);
    }
    lab.replay(&fine);
    for now in [end + 121 * minute, end + 150 * minute, end + 400 * minute] {
        lab.run(now);
        let mut kept = lab.policy.keeps(&points(&lab), &lab.marks, now);
        kept.seqs.remove(&0);
        for seq in 1..=520 {
            if kept.seqs.contains(&seq) {
                lab.assert_restores(&format!("seq:{seq}"), "disk", seq);
            } else if seq % 3 == 0 || seq > 390 {
                lab.assert_unavailable(&format!("seq:{seq}"), "disk");
            }
        }
    }
    lab.assert_sound();
}

/// Goal: an import is one state like another: it stays while the policy says so, its content as the base for longer.
/// Method: an imported image, older than everything; it becomes the base, then is gone as a point.
#[test]
fn an_import_is_thinned_like_a_write() {
    let scene = Scene::without_store(&[("disk", DISK_BYTES)]);
    let (image, mut import) = (scene.path("image.raw"), Trace::default());
    import.write(START, "disk", 0, DISK_BYTES);
    let mut lab = {
        let mut scene = scene;
        scene.oracle.replay(&import, None);
        let mut bytes = vec![0; crate::support::index(DISK_BYTES)];
        scene.oracle.image("disk", 1).content(0, &mut bytes);
        std::fs::write(&image, bytes).expect("save the image");
        let size = DISK_BYTES.to_string();
        let time = format_time(START);
        cdp!("create", scene.store, "--size", size, "--import", image, "--time", time).succeeds();
        Lab::over(scene, Policy { max_age: Some(5 * DAY), ..hourly() })
    };
    lab.run(START + HOUR / 2);
    lab.assert_open(&[1]);
    let mut trace = Trace::default();
    for number in 1..48 {
        trace.write(START + number * 2 * HOUR + 1, "disk", number % 60 * 4096, 4096);
    }
    lab.replay(&trace);
    for now in [START + 4 * DAY, START + 5 * DAY - 1, START + 5 * DAY, START + 7 * DAY] {
        lab.run(now);
        let kept = lab.assert_planned(now);
        assert_eq!(kept.seqs.contains(&1), now < START + 5 * DAY);
        lab.assert_open(&kept.seqs);
        lab.assert_refused(&lab.others(&kept.seqs), &kept.seqs);
        lab.assert_unavailable("seq:0", "disk");
    }
    lab.assert_sound();
}
