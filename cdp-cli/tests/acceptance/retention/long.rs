//! Forty days of a mixed workload under the reference policy.

use std::collections::BTreeSet;

use crate::support::policy::{DAY, HOUR, Kept, Mark, Policy};
use crate::support::times::{START, format_time, time_in};
use crate::support::{Lab, Op, Random, Trace, cdp, scaled};

const DISK_BYTES: u64 = 32 << 20;
const DAYS: u64 = 40;
const BLOCK: u64 = 4096;

/// The workload, hour by hour: a hot spot, a log that goes round, and uniform writes over everything; some zeroes
/// and discards; two bookmarks a day by lines.
struct Workload {
    random: Random,
    log: u64,
}

impl Workload {
    fn hour(&mut self, hour: u64) -> Trace {
        const HOT_BLOCKS: u64 = 64;
        const LOG: (u64, u64) = (1 << 20, 9 << 20);
        let random = &mut self.random;
        let mut times: Vec<u64> = (0..30).map(|_| START + hour * HOUR + random.below(HOUR)).collect();
        times.sort_unstable();
        let mut trace = Trace::default();
        for (number, time) in times.into_iter().enumerate() {
            let uniform = |random: &mut Random, most: u64| {
                let length = random.between(1, most) * BLOCK;
                (random.below((DISK_BYTES - length) / BLOCK + 1) * BLOCK, length)
            };
            match number % 30 {
                0 if hour % 12 == 7 => trace.push(time, "disk", Op::Bookmark(format!("line-{hour}"))),
                1 if hour.is_multiple_of(4) => {
                    let (offset, length) = uniform(random, 32);
                    trace.push(time, "disk", Op::Zero { offset, length });
                }
                2 if hour % 4 == 2 => {
                    let (offset, length) = uniform(random, 32);
                    trace.push(time, "disk", Op::Discard { offset, length });
                }
                0..=12 => trace.write(time, "disk", random.below(HOT_BLOCKS) * BLOCK, BLOCK),
                13..=20 => {
                    trace.write(time, "disk", LOG.0 + self.log, 4 * BLOCK);
                    self.log = (self.log + 4 * BLOCK) % (LOG.1 - LOG.0);
                }
                _ => {
                    let (offset, length) = uniform(random, 8);
                    trace.write(time, "disk", offset, length);
                }
            }
        }
        trace
    }
}

/// The bookmarks of one hour: each day one that the last window wants, and others that lack something it asks for.
fn bookmarks(lab: &mut Lab, random: &mut Random, hour: u64, seqs: (u64, u64)) {
    let day = hour / 24;
    let (name, kind, app) = match hour % 24 {
        2 => (format!("nightly-{day}"), "app", Some("postgresql")),
        9 if day.is_multiple_of(3) => (format!("nightly-other-{day}"), "app", Some("mysql")),
        10 if day % 3 == 1 => (format!("weekly-{day}"), "app", Some("postgresql")),
        11 if day.is_multiple_of(2) => (format!("nightly-fs-{day}"), "fs", None),
        15 if day.is_multiple_of(4) => (format!("short-{day}"), "user", None),
        20 if day % 10 == 1 => (format!("locked-{day}"), "user", None),
        _ => return,
    };
    let mark = lab.mark(&name, kind, random.between(seqs.0, seqs.1));
    let lives = match hour % 24 {
        2 if day % 7 == 3 => Some(10 * DAY),
        15 => Some(9 * HOUR),
        _ => None,
    };
    let expires = lives.map(|lives| mark.time + lives);
    let locked = hour % 24 == 20 || (hour % 24 == 2 && day % 13 == 4);
    lab.bookmark(Mark { app, locked, expires, ..mark });
}

/// Lives through the forty days in replays of so many hours, with a run after each, or only one at the end.
fn live(random: &mut Random, replay_hours: u64, runs: bool) -> (Lab, u64) {
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], Policy::reference());
    let mut workload = Workload { random: Random::new(random.next()), log: 0 };
    for first in (0..DAYS * 24).step_by(crate::support::index(replay_hours)) {
        let (mut trace, mut hours) = (Trace::default(), Vec::new());
        for hour in first..(first + replay_hours).min(DAYS * 24) {
            let before = lab.oracle.newest() + trace.counted();
            trace.lines.extend(workload.hour(hour).lines);
            hours.push((hour, (before + 1, lab.oracle.newest() + trace.counted())));
        }
        lab.replay(&trace);
        for (hour, seqs) in hours {
            bookmarks(&mut lab, random, hour, seqs);
        }
        if runs {
            lab.run(START + (first + replay_hours) * HOUR);
        }
    }
    (lab, START + DAYS * DAY)
}

/// Everything that must hold after the last run.
fn assert_all(lab: &Lab, random: &mut Random, now: u64) {
    let kept = lab.assert_planned(now);
    let full = kept.full_from.expect("a full window");
    let inside: BTreeSet<u64> = kept.seqs.range(full..).copied().collect();
    let sparse: BTreeSet<u64> = kept.seqs.range(..full).copied().collect();
    println!("{} seqs: {} in full, {} others", lab.oracle.newest(), inside.len(), sparse.len());
    assert!(inside.len() > 500 && (25..80).contains(&sparse.len()), "not the history that was meant");
    lab.assert_open(&sparse);
    lab.assert_open([full, full + 1, lab.oracle.newest()].iter());
    lab.assert_open(&Lab::some(random, &inside, scaled(12, 100_000)));
    let dropped = lab.others(&kept.seqs);
    lab.assert_refused([full - 1].iter().filter(|seq| dropped.contains(seq)), &kept.seqs);
    lab.assert_refused(&Lab::some(random, &dropped, scaled(40, 1000)), &kept.seqs);
    lab.assert_every_refused(&dropped, &kept.seqs);
    lab.assert_small(&kept);
    let stat = cdp!("stat", lab.store, "--json").succeeds().json();
    println!("{stat}");
    let amplification = stat["write_amplification"].as_f64().expect("a number");
    assert!((1.0..=1.55).contains(&amplification), "{stat}");
    assert_eq!(time_in(&lab.preview(now)["horizon"]), lab.oracle.time_of(full), "the horizon");
    lab.assert_sound();
    assert_times(lab, &kept, random, scaled(20, 400));
    assert_differences(lab, &kept, random, scaled(10, 100));
}

/// A retained point stands for all times from its own up to that of the write after it; others are refused.
fn assert_times(lab: &Lab, kept: &Kept, random: &mut Random, count: usize) {
    let sparse: BTreeSet<u64> = kept.seqs.iter().copied().filter(|seq| Some(*seq) < kept.full_from).collect();
    for seq in Lab::some(random, &sparse, count) {
        let (time, next) = (lab.oracle.time_of(seq), lab.oracle.time_of(seq + 1));
        for at in [time, time + random.below(next - time), next - 1] {
            lab.assert_restores(&format!("time:{}", format_time(at)), "disk", seq);
        }
        for (at, instead) in [(next, seq + 1), (time - 1, seq - 1)] {
            if !kept.seqs.contains(&instead) {
                lab.assert_unavailable(&format!("time:{}", format_time(at)), "disk");
            }
        }
    }
}

/// What `diff` says between two points that are left covers what differs, and names nothing that was not written.
fn assert_differences(lab: &Lab, kept: &Kept, random: &mut Random, count: usize) {
    for _ in 0..count {
        let two: Vec<u64> =
            (0..2).map(|_| *Lab::some(random, &kept.seqs, 1).first().expect("a point")).collect();
        let (from, to) = (two[0].min(two[1]), two[0].max(two[1]));
        lab.assert_difference("disk", from, to);
    }
}

/// Goal: after forty days and one run, what is left is what the reference policy says, restores, and is small.
/// Method: daily replays, bookmarks of all kinds, one run at the end; the planner, the oracle, allocated blocks.
#[test]
fn one_run_after_forty_days_leaves_what_the_policy_says() {
    let mut random = Random::for_test("one_run_after_forty_days_leaves_what_the_policy_says");
    let (lab, now) = live(&mut random, 24, false);
    let before: BTreeSet<u64> = lab.openable();
    assert_eq!(before.len() as u64, lab.oracle.newest(), "a store without a run keeps everything");
    let states = crate::support::files::states(&lab.store);
    let preview = lab.preview(now);
    assert_eq!(crate::support::files::states(&lab.store), states, "a preview changed the store");
    let (kept, allocated) = (lab.kept(now), crate::support::files::allocated_below(&lab.store));
    let ran = lab.run(now);
    let freed = allocated - crate::support::files::allocated_below(&lab.store);
    println!("preview {preview}\nrun {ran}\nfreed {freed} of {allocated}");
    for key in ["drop_points", "keep_points", "horizon"] {
        assert_eq!(preview[key], ran[key], "{key}: preview and run");
    }
    let names = |report: &serde_json::Value| -> BTreeSet<String> {
        let list = report["expiring_bookmarks"].as_array().expect("a list").iter();
        list.map(|name| name.as_str().expect("a name").to_owned()).collect()
    };
    let gone: BTreeSet<String> = lab.marks.iter().map(|mark| mark.name.clone()).collect();
    let gone: BTreeSet<String> = gone.difference(&kept.bookmarks).cloned().collect();
    assert_eq!(names(&preview), gone, "the bookmarks that the preview names");
    assert_eq!(names(&ran), gone, "the bookmarks that the run names");
    assert_eq!(preview["keep_points"], kept.seqs.len(), "the points that stay");
    // Seq 0 goes too, and is a point.
    assert_eq!(preview["drop_points"], before.len() + 1 - kept.seqs.len(), "the points that go");
    // A preview cannot know how the survivors of partly freed files pack together, nor the indexes that a run writes: a tenth of the
    // store's size is what it may be off by. A run has counted, all but the index that it sealed first and the manifest.
    for (what, report, parts) in [("preview", &preview, 10), ("run", &ran, 200)] {
        let said = report["bytes_freed"].as_u64().expect("a number");
        assert!(said.abs_diff(freed) <= allocated / parts, "{what} says {said}, freed were {freed}");
    }
    assert_all(&lab, &mut random, now);
    let again = lab.run(now);
    // It may free a little more: what the first has sealed and written counts as well now.
    assert_eq!(again["drop_points"], 0, "a second run: {again}");
    lab.assert_planned(now);
}

/// Goal: runs on the way leave the same as one at the end, and what they write is bounded.
/// Method: the same life with a run every six hours (every hour in the long form).
#[test]
fn runs_on_the_way_leave_what_the_policy_says() {
    let mut random = Random::for_test("runs_on_the_way_leave_what_the_policy_says");
    let hours = if scaled(0, 1) == 1 { 1 } else { 6 };
    let (lab, now) = live(&mut random, hours, true);
    assert_all(&lab, &mut random, now);
}
