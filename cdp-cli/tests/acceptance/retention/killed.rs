//! Runs that are killed, and readers of what a run drops.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::command::{cdp_command, program, wait_within};
use crate::support::files::{allocated_below, copy_directory};
use crate::support::policy::{DAY, HOUR, Mark, Policy};
use crate::support::times::{START, format_time};
use crate::support::{Lab, Random, Shape, Trace, cdp, scaled};

const DISK_BYTES: u64 = 8 << 20;

/// Ten days of writes on 8 MiB, with bookmarks.
fn history(random: &mut Random, writes: usize) -> (Lab, u64) {
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], Policy::reference());
    let mut shape = Shape::mixed(DISK_BYTES, writes);
    (shape.zero_percent, shape.discard_percent, shape.bookmark_percent) = (1, 1, 1);
    let mut trace = shape.generate(random);
    let step = 10 * DAY / writes as u64;
    (0..).zip(&mut trace.lines).for_each(|(number, line)| line.time = START + number * step);
    lab.replay(&trace);
    for day in 0..9 {
        let seq = random.between(1, lab.oracle.newest());
        let mark = lab.mark(&format!("nightly-{day}"), "app", seq);
        lab.bookmark(Mark { app: Some("postgresql"), locked: day == 4, ..mark });
    }
    (lab, START + 10 * DAY)
}

fn run_command(lab: &Lab, now: u64) -> Command {
    let mut command = cdp_command();
    command.args(["retention", "run"]).arg(&lab.store).args(["--now", &format_time(now)]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Goal: a run that is killed at any moment leaves a sound store with all that must stay, and a later run brings it
/// to the plan and to its size. Method: copies of one store; a kill at random within the time that a run takes;
/// points, restores and a deep check; half of the stores are written to before the next run.
#[test]
fn a_killed_run_loses_nothing_and_a_later_one_completes() {
    let mut random = Random::for_test("a_killed_run_loses_nothing_and_a_later_one_completes");
    let (mut lab, now) = history(&mut random, 6000);
    let (original, copy) = (lab.store.clone(), lab.path("copy"));
    copy_directory(&original, &copy);
    lab.scene.store.clone_from(&copy);
    let started = Instant::now();
    lab.run(now);
    let whole = started.elapsed();
    let kept = lab.assert_planned(now);
    lab.assert_small(&kept);
    let all: BTreeSet<u64> = lab.oracle.seqs().map(|(seq, _)| seq).collect();
    let (mut kills, mut early, mut late) = (0, 0, 0);
    for round in 0..scaled(20, 200) {
        fs::remove_dir_all(&copy).expect("remove the copy");
        copy_directory(&original, &copy);
        // Some of the stores are killed in two runs, the second of which finds what the first left.
        for _ in 0..random.between(1, 2) {
            let mut child = run_command(&lab, now).spawn().expect("start a run");
            thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
            child.kill().expect("kill the run");
            kills += usize::from(!child.wait().expect("reap the run").success());
            let open = lab.openable();
            assert!(
                open.is_superset(&kept.seqs),
                "round {round}: {:?} are lost",
                kept.seqs.difference(&open)
            );
            (early, late) = (early + usize::from(open == all), late + usize::from(open == kept.seqs));
            lab.assert_open(&Lab::some(&mut random, &open, 2));
            lab.assert_refused(&Lab::some(&mut random, &lab.others(&open), 1), &open);
            lab.assert_sound();
        }
        let before = allocated_below(&lab.store);
        println!("round {round}: {before} bytes before the next run: {}", lab.run(now));
        lab.assert_planned(now);
        lab.assert_open(&Lab::some(&mut random, &kept.seqs, 2));
        lab.assert_small(&kept);
        lab.assert_sound();
    }
    println!("{kills} kills within {whole:?}: {early} before and {late} after the timeline changed");
    assert!(kills > 0, "no run was killed in its middle");
}

/// Goal: a reader that began before a run reads what it began with, to its end; the run's space comes back later.
/// Method: `restore` of a point that the run drops, stopped in its middle by SIGSTOP; the run; SIGCONT.
#[test]
fn a_reader_keeps_its_point_across_a_run() {
    let mut random = Random::for_test("a_reader_keeps_its_point_across_a_run");
    let (mut lab, now) = history(&mut random, 4000);
    let (original, copy) = (lab.store.clone(), lab.path("copy"));
    let kept = lab.kept(now);
    let dropped = lab.others(&kept.seqs);
    let mut begun = 0;
    for round in 0..scaled(8, 60) {
        let _ = fs::remove_dir_all(&copy);
        copy_directory(&original, &copy);
        lab.scene.store.clone_from(&copy);
        let seq = *Lab::some(&mut random, &dropped, 1).first().expect("a dropped seq");
        let target = lab.path("held.img");
        let mut command = cdp_command();
        command.arg("restore").arg(&lab.store).args(["--at", &format!("seq:{seq}"), "--to"]).arg(&target);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start a restore");
        thread::sleep(Duration::from_micros(random.between(500, 30_000)));
        program!("kill", "-STOP", child.id().to_string());
        lab.run(now);
        lab.assert_planned(now);
        program!("kill", "-CONT", child.id().to_string());
        let (status, _) = wait_within(&mut child, Duration::from_secs(120), "restore");
        // One that had not begun to read when the run dropped its point is refused as any other.
        match status.code() {
            Some(0) => lab.oracle.image("disk", seq).assert_equals_file(&target, "a point held across a run"),
            Some(4) => assert!(!target.exists(), "round {round}: a refused restore left a target"),
            other => panic!("round {round}: the restore ended with {other:?}"),
        }
        begun += usize::from(status.success());
        let _ = fs::remove_file(&target);
        lab.assert_sound();
        lab.run(now);
        lab.assert_small(&lab.assert_planned(now));
    }
    println!("{begun} restores were not refused");
    assert!(begun > 0, "no restore had begun before its run");
}

/// Goal: a run beside a replay in another process does no harm to either. Method: runs during a long replay, through
/// its socket; afterwards all that is listed restores.
#[test]
fn runs_beside_a_writing_process() {
    let mut random = Random::for_test("runs_beside_a_writing_process");
    let (mut lab, now) = history(&mut random, 2000);
    let mut trace = Trace::default();
    for number in 0..12_000_u64 {
        trace.write(now + number * (DAY / 4000), "disk", random.below(2000) * 4096, 4096);
    }
    let file = lab.path("long.csv");
    trace.save(&file);
    let mut command = cdp_command();
    command.arg("replay").arg(&lab.store).arg(&file).args(["--fill", "stamp"]).stdout(Stdio::null());
    let mut child = command.spawn().expect("start a replay");
    let mut runs = 0;
    while child.try_wait().expect("look at the replay").is_none() {
        let time = format_time(now + (runs % 4) * HOUR);
        cdp!("retention", "run", lab.store, "--now", time).succeeds();
        runs += 1;
    }
    assert!(child.wait().expect("reap").success(), "the replay failed beside {runs} runs");
    lab.oracle.replay(&trace, None);
    lab.take_marks();
    println!("{runs} runs, {} bytes", allocated_below(&lab.store));
    assert_eq!(lab.newest(), lab.oracle.newest());
    let open = lab.openable();
    lab.assert_open(&Lab::some(&mut random, &open, 6));
    let end = now + 3 * DAY;
    lab.run(end);
    let kept = lab.assert_planned(end);
    lab.assert_open(&Lab::some(&mut random, &kept.seqs, 10));
    lab.assert_small(&kept);
    lab.assert_sound();
}
