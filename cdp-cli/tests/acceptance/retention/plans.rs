//! What stays and what goes, for the reference policy and for many others, against the slow planner.

use std::collections::BTreeSet;

use crate::support::policy::{DAY, Filter, HOUR, Keep, Mark, Policy, SECOND, Window};
use crate::support::times::START;
use crate::support::{Lab, Op, Random, Trace};

const KINDS: [&str; 3] = ["app", "fs", "user"];
const DISK_BYTES: u64 = 256 << 10;

/// Lines at steps from none to half a day, some with bookmarks between them.
fn trace(random: &mut Random, lines: usize, start: u64, tag: &str) -> Trace {
    let mut trace = Trace::default();
    let mut time = start;
    for number in 0..lines {
        time += match random.below(10) {
            0 => 0,
            1..=3 => random.below(60 * SECOND),
            4..=8 => random.below(4 * HOUR),
            _ => random.below(12 * HOUR),
        };
        let offset = random.below(DISK_BYTES / 512 - 16) * 512;
        match random.below(20) {
            0 => trace.push(time, "disk", Op::Zero { offset, length: 8192 }),
            1 => trace.push(time, "disk", Op::Discard { offset, length: 4096 }),
            2 | 3 => {
                // At its write or later, but never in a slot without a write: that has a test of its own.
                let last = trace.lines.last().map_or(start, |line| line.time);
                let later = number == 0 || random.percent(50);
                time = if later { time } else { last };
                trace.push(time, "disk", Op::Bookmark(format!("nightly-line-{tag}-{number}")));
                if later {
                    trace.write(time, "disk", offset, 512);
                }
            }
            _ => trace.write(time, "disk", offset, random.sectors_log_uniform(8192)),
        }
    }
    trace
}

/// Bookmarks by command on some of the seqs after `after`.
fn bookmarks(lab: &mut Lab, random: &mut Random, after: u64, tag: &str) {
    for number in 0..random.below(6) {
        let newest = lab.oracle.newest();
        if newest == after {
            return;
        }
        let kind = KINDS[crate::support::index(random.below(3))];
        let prefix = if random.percent(50) { "nightly" } else { "other" };
        let mark = lab.mark(&format!("{prefix}-{tag}-{number}"), kind, random.between(after + 1, newest));
        let app = (kind == "app").then_some(if random.percent(60) { "postgresql" } else { "mysql" });
        lab.bookmark(Mark { app, locked: random.percent(12), ..mark });
    }
}

/// A history of one write a step, with stamps, from `START`.
fn steady(lab: &mut Lab, writes: u64, step: u64) {
    let mut trace = Trace::default();
    for number in 0..writes {
        trace.write(START + number * step, "disk", number % 16 * 4096, 4096);
    }
    lab.replay(&trace);
}

/// Goal: also a store that is smaller than the segments it makes ready gives back what nobody needs. Method: the same blocks again and
/// again over three days, in one replay, and a run; what is allocated against what the points that stay need.
#[test]
fn a_small_store_gives_its_space_back() {
    let policy = Policy { windows: Policy::reference().windows[..1].to_vec(), ..Policy::reference() };
    let mut lab = Lab::new(&[("disk", 2 << 20)], policy);
    let mut trace = Trace::default();
    for number in 0..600 {
        trace.write(START + number * DAY / 200, "disk", number % 32 * 65536, 65536);
    }
    lab.replay(&trace);
    let now = START + 3 * DAY;
    let before = crate::support::files::allocated_below(&lab.store);
    let said = lab.run(now)["bytes_freed"].as_u64().expect("a number");
    let kept = lab.assert_planned(now);
    let after = crate::support::files::allocated_below(&lab.store);
    println!("{before} bytes, said to be freed {said}, now {after}");
    lab.assert_small(&kept);
    assert!(said.abs_diff(before - after) <= before / 20, "{before}, {said}, {after}");
}

/// Goal: the edges are where the contract puts them, to the nanosecond. Method: the reference policy on hourly
/// writes, run with `now` one nanosecond before and at each kind of edge, each in a copy of one store.
#[test]
fn edges_of_windows_and_slots_are_exact() {
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], Policy::reference());
    steady(&mut lab, 31 * 24, HOUR);
    for day in [1, 2, 3, 5, 9, 28, 29] {
        let mark = lab.mark(&format!("nightly-{day}"), "app", day * 24 + 3);
        lab.bookmark(Mark { app: Some("postgresql"), ..mark });
    }
    let end = START + 31 * DAY;
    let (original, copy) = (lab.store.clone(), lab.path("copy"));
    // The edge of the full window, of a slot, of the sparse window, of all (the bookmark of day 3, hour 2).
    for edge in [end, end + 4 * HOUR, end + 2 * HOUR, START + 31 * DAY + 2 * HOUR] {
        for now in [edge - 1, edge, edge + 1] {
            crate::support::files::copy_directory(&original, &copy);
            lab.scene.store.clone_from(&copy);
            lab.run(now);
            let kept = lab.assert_planned(now);
            assert!(kept.seqs.len() < 60, "hardly anything was thinned: {:?}", kept.seqs);
            std::fs::remove_dir_all(&copy).expect("remove the copy");
        }
    }
}

/// Goal: `retention set` alone drops nothing, and a run under a policy without windows and bounds drops nothing.
/// Method: every seq after `set` with the harshest policy, and after a run with the empty one.
#[test]
fn only_a_run_drops_and_only_by_a_rule() {
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], Policy::default());
    steady(&mut lab, 40, DAY);
    let all: BTreeSet<u64> = (1..=40).collect();
    lab.run(START + 1000 * DAY);
    assert_eq!(lab.openable(), all);
    let window = Window { to: DAY, keep: Keep::None, bookmarks: Filter::None };
    lab.set(Policy { windows: vec![window], ..Policy::default() });
    assert_eq!(lab.openable(), all);
    lab.assert_open(&all);
    lab.run(START + 1000 * DAY);
    assert_eq!(lab.openable(), BTreeSet::from([40]), "the newest state stays, and nothing else");
    lab.assert_open(&[40]);
    lab.assert_sound();
}

/// Goal: with `max_age` only, whatever has that age goes, and nothing younger. Method: daily writes; each edge.
#[test]
fn a_bound_by_time_alone_drops_at_its_age() {
    let policy = Policy { max_age: Some(10 * DAY), ..Policy::default() };
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], policy);
    steady(&mut lab, 30, DAY);
    for now in
        [START + 29 * DAY, START + 30 * DAY - 1, START + 30 * DAY, START + 33 * DAY + 1, START + 90 * DAY]
    {
        lab.run(now);
        let kept = lab.assert_planned(now);
        lab.assert_open(&kept.seqs);
        lab.assert_refused(&lab.others(&kept.seqs), &kept.seqs);
    }
    lab.assert_sound();
}

/// Goal: a locked bookmark survives age and expiry until it is unlocked; an expiring one goes at its time, also
/// inside the full window; deleting is at once. Method: each kind, and the runs after each change.
#[test]
fn locks_and_expiry_decide_about_bookmarks() {
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], Policy::reference());
    steady(&mut lab, 60 * 24, HOUR);
    let end = START + 60 * DAY;
    let locked = Mark { locked: true, ..lab.mark("locked", "user", 50) };
    let both =
        Mark { locked: true, expires: Some(START + 5 * DAY), ..lab.mark("locked-expired", "user", 100) };
    let nightly = Mark { app: Some("postgresql"), ..lab.mark("nightly-1", "app", 50 * 24) };
    let nightly_gone = Mark { expires: Some(end), name: "nightly-2".into(), ..nightly.clone() };
    let nightly_later = Mark { expires: Some(end + 1), name: "nightly-3".into(), ..nightly.clone() };
    let recent = Mark { expires: Some(end - HOUR), ..lab.mark("recent", "fs", 60 * 24 - 3) };
    for mark in [locked, both, nightly, nightly_gone, nightly_later, recent] {
        lab.bookmark(mark);
    }
    lab.run(end);
    let kept = lab.assert_planned(end);
    let names: Vec<_> = kept.bookmarks.iter().map(String::as_str).collect();
    assert_eq!(names, ["locked", "locked-expired", "nightly-1", "nightly-3"]);
    lab.assert_restores("bookmark:locked", "disk", 50);
    lab.assert_restores("bookmark:locked-expired", "disk", 100);
    lab.assert_restores(&format!("seq:{}", 60 * 24 - 3), "disk", 60 * 24 - 3);

    cdp_bookmark(&lab, "unlock", "locked");
    lab.marks.iter_mut().find(|mark| mark.name == "locked").expect("there").locked = false;
    assert!(lab.bookmark_names().contains("locked"), "unlocking drops nothing by itself");
    lab.run(end);
    lab.assert_planned(end);
    crate::support::cdp!("bookmark", "delete", lab.store, "locked-expired").exits(1);
    cdp_bookmark(&lab, "unlock", "locked-expired");
    cdp_bookmark(&lab, "delete", "locked-expired");
    lab.assert_unavailable("bookmark:locked-expired", "disk");
    lab.marks.retain(|mark| mark.name != "locked-expired");
    lab.run(end);
    lab.assert_planned(end);
    lab.assert_refused(&[50, 100], &lab.openable());
    lab.assert_sound();
}

fn cdp_bookmark(lab: &Lab, verb: &str, name: &str) {
    crate::support::cdp!("bookmark", verb, lab.store, name).succeeds();
}

/// Goal: several volumes have one timeline: what one of them writes makes points for all, and each restores.
/// Method: three volumes written in turns, the last of them added when points are already gone.
#[test]
fn volumes_of_a_group_are_thinned_together() {
    let mut random = Random::for_test("volumes_of_a_group_are_thinned_together");
    let mut lab = Lab::new(&[("disk", DISK_BYTES), ("logs", 128 << 10)], Policy::reference());
    let mut start = START;
    for round in 0..4 {
        let mut lines = trace(&mut random, 40, start, &round.to_string());
        if round == 2 {
            crate::support::cdp!("volume", "add", lab.store, "late", "--size", "131072").succeeds();
            lab.oracle.add_volume("late", 128 << 10);
        }
        let names = lab.volume_names();
        for line in &mut lines.lines {
            let volume = &names[crate::support::index(random.below(names.len() as u64))];
            line.volume.clone_from(volume);
            if let Op::Write { offset, .. } | Op::Zero { offset, .. } | Op::Discard { offset, .. } =
                &mut line.op
            {
                *offset %= 96 << 10;
            }
        }
        start = lines.lines.last().expect("a line").time;
        let before = lab.oracle.newest();
        lab.replay(&lines);
        bookmarks(&mut lab, &mut random, before, &format!("r{round}"));
        lab.run(start);
        lab.assert_planned(start);
    }
    let kept = lab.assert_planned(start);
    // Whether a volume can be opened before it existed is another matter.
    let late = lab.oracle.first_seq_of("late");
    for seq in &kept.seqs {
        let volumes = if *seq < late { 2 } else { 3 };
        for volume in &lab.volume_names()[..volumes] {
            lab.assert_restores(&format!("seq:{seq}"), volume, *seq);
        }
    }
    lab.assert_refused(&lab.others(&kept.seqs), &kept.seqs);
    lab.assert_sound();
}
