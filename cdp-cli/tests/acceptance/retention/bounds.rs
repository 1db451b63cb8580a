//! Bounds by space, alone and with one by time; what happens when they are met and nothing may go.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::files::{SetAtEnd, allocated_below};
use crate::support::policy::{DAY, Filter, HOUR, Keep, Mark, Policy, SECOND, Window};
use crate::support::times::START;
use crate::support::{Lab, Ran, Random, Trace, cdp, index, scaled};

const DISK_BYTES: u64 = 16 << 20;
const BOUND: u64 = 160 << 20;

/// Writes of 4 to 64 KiB anywhere, so many bytes in all.
fn flood(random: &mut Random, bytes: u64, start: u64, step: u64) -> Trace {
    let (mut trace, mut written, mut time) = (Trace::default(), 0, start);
    while written < bytes {
        let length = random.between(1, 16) * 4096;
        let offset = random.below((DISK_BYTES - length) / 4096 + 1) * 4096;
        trace.write(time, "disk", offset, length);
        (written, time) = (written + length, time + step);
    }
    trace
}

/// Allocated bytes of a directory whose files come and go.
fn allocated_now(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|facts| facts.blocks() * 512).sum()
}

/// Does something while another thread measures the store; returns the most that it ever took.
fn most_allocated<T>(store: &Path, act: impl FnOnce() -> T) -> (T, u64) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(allocated_now(store));
                thread::sleep(Duration::from_micros(500));
            }
            most
        });
        let ends = SetAtEnd(&done);
        let result = act();
        drop(ends);
        (result, watcher.join().expect("the watcher"))
    })
}

/// Replays as far as the store takes it; the oracle follows.
fn replay_some(lab: &mut Lab, trace: &Trace) -> Ran {
    let file = lab.path("flood.csv");
    trace.save(&file);
    let ran = cdp!("replay", lab.store, file, "--fill", "stamp", "--json");
    let taken = lab.newest() - lab.oracle.newest();
    lab.oracle.replay(&trace.split_after_counted(taken).0, None);
    ran
}

/// Goal: a store never exceeds its bound by space, at full speed, and what is left is right.
/// Method: three to four times the bound in several replays, with and without windows; a thread that looks at the
/// allocated blocks all the time; then every statement of `points` about the rest.
#[test]
fn a_bound_by_space_is_never_exceeded() {
    let mut random = Random::for_test("a_bound_by_space_is_never_exceeded");
    let window = Window { to: 365 * DAY, keep: Keep::All, bookmarks: Filter::None };
    for windows in [vec![], vec![window]] {
        let policy = Policy { max_bytes: Some(BOUND), windows, ..Policy::default() };
        let mut lab = Lab::new(&[("disk", DISK_BYTES)], policy);
        let mut start = START;
        for _ in 0..scaled(3, 20) {
            let trace = flood(&mut random, 150 << 20, start, SECOND);
            start = trace.lines.last().expect("a line").time;
            let store = lab.store.clone();
            let (_, most) = most_allocated(&store, || lab.replay(&trace));
            println!("at most {most} of {BOUND}, at the end {}", allocated_below(&lab.store));
            assert!(most <= BOUND, "{most} bytes were allocated, {BOUND} are allowed");
        }
        let (_, most) = most_allocated(&lab.store, || lab.run(start + SECOND));
        assert!(most <= BOUND, "{most} bytes were allocated during a run, {BOUND} are allowed");
        let open = lab.openable();
        let (oldest, newest) = (*open.first().expect("a point"), lab.oracle.newest());
        // Half of the bound is much less than what an unbounded store would have, and more than the disk.
        let left: u64 = open.iter().map(|seq| lab.oracle.bytes_of(*seq)).sum();
        println!("{} seqs with {left} bytes are left of {newest}", open.len());
        assert!(left * 4 >= BOUND, "only {left} bytes of history are left under a bound of {BOUND}");
        lab.assert_open(&[oldest, oldest + 1, newest]);
        lab.assert_open(&Lab::some(&mut random, &open, scaled(6, 60)));
        lab.assert_refused(&[1, oldest / 2, oldest - 1], &open);
        lab.assert_sound();
    }
}

/// Goal: with both bounds the first that is met decides. Method: one store that meets its age long before its
/// space, one the other way round; the first is left with what the planner says, the second with less.
#[test]
fn of_two_bounds_the_first_that_is_met_decides() {
    let mut random = Random::for_test("of_two_bounds_the_first_that_is_met_decides");
    for (bytes, step, space_first) in [(30 << 20, HOUR / 2, false), (400 << 20, SECOND, true)] {
        let policy = Policy { max_bytes: Some(BOUND), ..Policy::reference() };
        let mut lab = Lab::new(&[("disk", DISK_BYTES)], policy);
        let trace = flood(&mut random, bytes, START, step);
        let store = lab.store.clone();
        let (_, most) = most_allocated(&store, || lab.replay(&trace));
        let now = trace.lines.last().expect("a line").time + 1;
        lab.run(now);
        assert!(most.max(allocated_below(&lab.store)) <= BOUND, "{most} of {BOUND}");
        if space_first {
            let (kept, open) = (lab.kept(now), lab.openable());
            assert!(open.is_subset(&kept.seqs), "more is left than the windows keep");
            assert!(open.len() < kept.seqs.len(), "space was never met");
            let oldest = open.first().expect("a point");
            assert!(kept.seqs.range(oldest..).all(|seq| open.contains(seq)), "not the oldest went first");
            lab.assert_open(&Lab::some(&mut random, &open, 5));
        } else {
            let kept = lab.assert_planned(now);
            lab.assert_open(&Lab::some(&mut random, &kept.seqs, 5));
        }
        lab.assert_sound();
    }
}

/// Goal: `on_shortage = "stop"` refuses writes with a clear error and the line, drops nothing, and goes on when the
/// bound is raised. Method: a flood until it is refused; every kind of point; a higher bound; the rest.
#[test]
fn stop_refuses_writes_and_drops_nothing() {
    let mut random = Random::for_test("stop_refuses_writes_and_drops_nothing");
    let policy = Policy { stop: true, max_bytes: Some(BOUND), ..Policy::default() };
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], policy.clone());
    let trace = flood(&mut random, 250 << 20, START, SECOND);
    let store = lab.store.clone();
    let (ran, most) = most_allocated(&store, || replay_some(&mut lab, &trace));
    let ran = ran.exits(1);
    assert!(most <= BOUND, "{most} of {BOUND}");
    let newest = lab.oracle.newest();
    assert!(ran.stderr.contains(&format!("line {}", newest + 1)), "seq {newest}:\n{}", ran.described());
    assert!(ran.stderr.contains("max_bytes"), "no word about the bound:\n{}", ran.described());
    let (_, rest) = trace.split_after_counted(newest);
    replay_some(&mut lab, &rest).exits(1);
    lab.run(START + 1000 * DAY);
    let open = lab.openable();
    assert_eq!(open.len() as u64, lab.oracle.newest(), "something was dropped");
    let newest = lab.oracle.newest();
    lab.assert_open(&[1, 2, newest / 2, newest]);
    lab.assert_restores("oldest", "disk", 0);
    cdp!("bookmark", "add", lab.store, "still", "--at", "seq:1").succeeds();
    cdp!("bookmark", "delete", lab.store, "still").succeeds();
    lab.assert_sound();
    lab.set(Policy { max_bytes: Some(3 * BOUND), ..policy });
    let (_, rest) = trace.split_after_counted(newest);
    lab.replay(&rest);
    assert_eq!(lab.openable().len() as u64, trace.counted());
    lab.assert_open(&[1, newest, newest + 1, trace.counted()]);
    lab.assert_sound();
}

/// Goal: under `stop` a tap never fails the source: it goes to its dirty map, nothing is dropped, and it is whole
/// again when the bound is raised. Method: a flood through a tap that does not wait; the source against the trace.
#[test]
fn stop_sends_a_tap_to_its_dirty_map() {
    let mut random = Random::for_test("stop_sends_a_tap_to_its_dirty_map");
    let policy = Policy { stop: true, max_bytes: Some(BOUND), ..Policy::default() };
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], policy.clone());
    let trace = flood(&mut random, 250 << 20, START, SECOND);
    let (file, source) = (lab.path("tap.csv"), lab.path("source.img"));
    trace.save(&file);
    let store = lab.store.clone();
    let tap = || cdp!("replay", store, file, "--tap", "--source", source, "--no-wait", "--json");
    let (ran, most) = most_allocated(&store, tap);
    let ran = ran.succeeds().json();
    assert_eq!(ran["gaps"], 1, "{ran}");
    assert!(most <= BOUND, "{most} of {BOUND}");
    lab.oracle.replay(&trace, None);
    let image = lab.oracle.image("disk", trace.counted());
    image.assert_equals_file(&source, "the source of a tap whose store stopped");
    let points = lab.points();
    let exact = &points["exact"][0];
    let last = exact["to_seq"].as_u64().expect("a number");
    assert_eq!(exact["from_seq"], 0, "something was dropped: {points}");
    assert!(last > 1000 && last < trace.counted(), "{points}");
    let gap = &points["gaps"][0];
    assert_eq!((&gap["from_seq"], &gap["reason"]), (&(last + 1).into(), &"shortage".into()), "{points}");
    for seq in [0, 1, last / 2, last] {
        lab.assert_restores(&format!("seq:{seq}"), "disk", seq);
    }

    lab.set(Policy { max_bytes: Some(3 * BOUND), ..policy });
    let mut more = Trace::default();
    let end = trace.lines.last().expect("a line").time + SECOND;
    (0..8).for_each(|number| more.write(end + number * SECOND, "disk", number * 65536, 65536));
    more.save(&file);
    cdp!("replay", lab.store, file, "--tap", "--source", source).succeeds();
    let restored = lab.path("restored.img");
    cdp!("restore", lab.store, "--at", "latest", "--to", restored).succeeds();
    assert_eq!(crate::support::files::first_difference(&restored, &source), None, "it is not whole again");
    for seq in [1, last] {
        lab.assert_restores(&format!("seq:{seq}"), "disk", seq);
    }
    lab.assert_sound();
}

/// Goal: a locked bookmark survives a bound by space, and its point restores; others of its age go.
/// Method: bookmarks on early seqs, then a flood of several times the bound; unlock, and the next one takes it.
#[test]
fn a_locked_bookmark_survives_a_bound_by_space() {
    let mut random = Random::for_test("a_locked_bookmark_survives_a_bound_by_space");
    let policy = Policy { max_bytes: Some(BOUND), ..Policy::default() };
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], policy);
    lab.replay(&flood(&mut random, 10 << 20, START, SECOND));
    let locked = Mark { locked: true, ..lab.mark("locked", "user", 100) };
    lab.bookmark(locked);
    lab.bookmark(lab.mark("plain", "app", 90));
    for round in 1..=2 {
        let start = lab.oracle.time_of(lab.oracle.newest());
        let store = lab.store.clone();
        let trace = flood(&mut random, 300 << 20, start, SECOND);
        let (_, most) = most_allocated(&store, || lab.replay(&trace));
        assert!(most <= BOUND, "round {round}: {most} of {BOUND}");
        let names = lab.bookmark_names();
        if round == 1 {
            assert_eq!(names, BTreeSet::from(["locked".to_owned()]));
            lab.assert_restores("bookmark:locked", "disk", 100);
            lab.assert_restores("seq:100", "disk", 100);
            lab.assert_unavailable("bookmark:plain", "disk");
            lab.assert_refused(&[90, 99, 101], &lab.openable());
            lab.assert_sound();
            cdp!("bookmark", "delete", lab.store, "locked").exits(1);
            cdp!("bookmark", "unlock", lab.store, "locked").succeeds();
        } else {
            assert_eq!(names, BTreeSet::new(), "an unlocked bookmark goes like any other");
            lab.assert_unavailable("seq:100", "disk");
        }
        lab.marks.iter_mut().for_each(|mark| mark.locked = false);
    }
    lab.assert_sound();
}

/// Goal: when locks and base alone fill the bound, `prune` behaves as `stop`: writes are refused, and no locked
/// bookmark is lost; once they are let go, writing goes on. Method: a locked bookmark after each rewrite of the disk.
#[test]
fn locks_that_fill_the_bound_stop_writing() {
    let mut random = Random::for_test("locks_that_fill_the_bound_stop_writing");
    let policy = Policy { max_bytes: Some(BOUND), ..Policy::default() };
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], policy);
    let mut locked = Vec::new();
    for round in 0..20 {
        let start = lab.oracle.seqs().last().map_or(START, |(_, time)| time);
        let mut trace = Trace::default();
        (0..DISK_BYTES >> 16).for_each(|part| trace.write(start + part, "disk", part << 16, 1 << 16));
        let ran = replay_some(&mut lab, &trace).exits_with_one_of(&[0, 1]);
        assert!(allocated_below(&lab.store) <= BOUND);
        if ran.code == 1 {
            println!("refused in round {round}: {}", ran.stderr.trim());
            assert!(ran.stderr.contains("line "), "{}", ran.described());
            break;
        }
        let mark = Mark { locked: true, ..lab.mark(&format!("lock-{round}"), "user", lab.oracle.newest()) };
        locked.push((mark.name.clone(), mark.seq));
        lab.bookmark(mark);
    }
    assert!((4..15).contains(&locked.len()), "{} rewrites of {DISK_BYTES} went into {BOUND}", locked.len());
    for (name, seq) in &locked {
        lab.assert_restores(&format!("bookmark:{name}"), "disk", *seq);
    }
    lab.assert_restores("latest", "disk", lab.oracle.newest());
    lab.assert_sound();
    for (name, _) in &locked[..index(locked.len() as u64 / 2)] {
        cdp!("bookmark", "unlock", lab.store, name).succeeds();
        cdp!("bookmark", "delete", lab.store, name).succeeds();
        lab.marks.retain(|mark| mark.name != *name);
    }
    let start = lab.oracle.time_of(lab.oracle.newest());
    let trace = flood(&mut random, DISK_BYTES, start, SECOND);
    lab.replay(&trace);
    assert!(allocated_below(&lab.store) <= BOUND);
    for (name, seq) in &locked[locked.len() / 2..] {
        lab.assert_restores(&format!("bookmark:{name}"), "disk", *seq);
    }
    lab.assert_restores("latest", "disk", lab.oracle.newest());
    lab.assert_sound();
}
