//! Retention where a mount owns the store, and on a file system that is full to its last byte.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::command::program;
use crate::support::files::{SetAtEnd, allocated_below};
use crate::support::machine::{LoopDevice, Mount, MountedFileSystem};
use crate::support::policy::{DAY, Filter, HOUR, Keep, Mark, Policy, State, Window};
use crate::support::times::{format_time, now};
use crate::support::{Lab, Random, Scene, Shape, cdp, scaled};

const DISK_BYTES: u64 = 8 << 20;

/// Days of mixed writes up to the machine's own time, from which a mount counts ages, with a bookmark each night.
fn live(lab: &mut Lab, random: &mut Random, days: u64, writes: usize) -> u64 {
    let mut shape = Shape::mixed(DISK_BYTES, writes);
    shape.bookmark_percent = 0;
    let mut trace = shape.generate(random);
    let (start, step) = (now() - days * DAY, days * DAY / writes as u64);
    (0..).zip(&mut trace.lines).for_each(|(number, line)| line.time = start + number * step);
    lab.replay(&trace);
    for day in 0..days {
        let mark = lab.mark(&format!("nightly-{day}"), "app", random.between(1, lab.oracle.newest()));
        lab.bookmark(Mark { app: Some("postgresql"), ..mark });
    }
    start + days * DAY
}

/// Goal: an image at a point that is held open reads the same bytes before, during and after the runs that drop the
/// point, and what the mount shows afterwards is what is left.
/// Method: points of all fates opened under a mount and read in a loop by a thread of each; runs through the owner's
/// socket, a day apart, while the live volume is written.
#[test]
#[ignore = "needs root and FUSE"]
fn a_point_held_open_reads_the_same_across_runs() {
    held_open_across_runs("a_point_held_open_reads_the_same_across_runs", Duration::from_millis(300));
}

/// Goal and method: as above, with readers that never pause: a run must come to its end beside them.
#[test]
#[ignore = "needs root and FUSE"]
fn a_run_ends_beside_readers_that_never_pause() {
    held_open_across_runs("a_run_ends_beside_readers_that_never_pause", Duration::ZERO);
}

fn held_open_across_runs(name: &str, pause: Duration) {
    let mut random = Random::for_test(name);
    let mut lab = Lab::new(&[("disk", DISK_BYTES)], Policy::default());
    let now = live(&mut lab, &mut random, 6, 3000);
    let mount = Mount::start(&lab.store, &lab.path("mount"));
    let states: Vec<State> = lab.oracle.seqs().map(|(seq, time)| State { seq, time }).collect();
    let kept = Policy::reference().keeps(&states, &lab.marks, now);
    let dropped = lab.others(&kept.seqs);
    let mut held: BTreeSet<u64> = Lab::some(&mut random, &dropped, 4);
    held.extend(Lab::some(&mut random, &kept.seqs, 2));
    let files: Vec<(u64, File)> = held
        .iter()
        .map(|seq| (*seq, File::open(mount.point("disk", &format!("seq:{seq}"))).unwrap()))
        .collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = files
            .iter()
            .map(|(seq, file)| {
                let image = lab.oracle.image("disk", *seq);
                let done = &done;
                scope.spawn(move || {
                    let mut passes = 0;
                    loop {
                        let last = done.load(Ordering::Relaxed);
                        let compared = image.compare(At { file, offset: 0 });
                        assert_eq!(compared, Ok(()), "seq {seq} held open, pass {passes}");
                        passes += 1;
                        thread::sleep(pause);
                        if last {
                            return passes;
                        }
                    }
                })
            })
            .collect();
        let ends = SetAtEnd(&done);
        lab.set(Policy::reference());
        lab.run(now);
        assert_planned_beside(&lab, now, &held);
        for day in 1..scaled(3, 20) as u64 {
            lab.run(now + day * DAY);
            assert_planned_beside(&lab, now + day * DAY, &held);
        }
        drop(ends);
        let passes: Vec<usize> = readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
        println!("passes: {passes:?}");
    });
    let kept = lab.kept(now + (scaled(3, 20) as u64 - 1) * DAY);
    drop(files);
    let end = now + (scaled(3, 20) as u64 - 1) * DAY;
    lab.run(end);
    lab.assert_planned(end);
    for seq in &held {
        let open = mount.point("disk", &format!("seq:{seq}")).exists();
        assert_eq!(open, kept.seqs.contains(seq), "seq {seq} under the mount");
    }
    lab.assert_open(&Lab::some(&mut random, &kept.seqs, 4));
    mount.terminate();
    lab.assert_sound();
    lab.run(end);
    lab.assert_small(&lab.assert_planned(end));
}

/// Asserts the plan; a point that is held open may stay on the timeline until it is let go.
#[track_caller]
fn assert_planned_beside(lab: &Lab, now: u64, held: &BTreeSet<u64>) {
    let (mut kept, open) = (lab.kept(now).seqs, lab.openable());
    kept.remove(&0);
    let strange: Vec<_> = open.symmetric_difference(&kept).filter(|seq| !held.contains(seq)).collect();
    assert!(strange.is_empty() && open.is_superset(&kept), "{strange:?} are missing or too many");
}

/// Reads a file by position, so that many can share it.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl std::io::Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        Ok(length)
    }
}

/// Fills a file system to its last byte with a file.
fn fill(directory: &Path) {
    use std::io::Write;
    let mut file = File::create(directory.join("ballast")).unwrap();
    for size in [1 << 20, 4096, 512, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    let _ = file.sync_all();
}

/// Goal: a run frees space on a disk that is full to its last byte, and writing goes on, with the other file still
/// there. Method: a store with ten days of history on a small ext4; another file takes the rest; a run; writes.
#[test]
#[ignore = "needs root and loop devices"]
fn a_run_on_an_idle_store_frees_space_on_a_full_disk() {
    frees_space_on_a_full_disk("a_run_on_an_idle_store_frees_space_on_a_full_disk", false);
}

/// Goal and method: as above, with a mount that owns the store while the disk fills and the run goes through it.
#[test]
#[ignore = "needs root, FUSE and loop devices"]
fn a_run_through_an_owner_frees_space_on_a_full_disk() {
    frees_space_on_a_full_disk("a_run_through_an_owner_frees_space_on_a_full_disk", true);
}

fn frees_space_on_a_full_disk(name: &str, owned: bool) {
    let mut random = Random::for_test(name);
    let mut scene = Scene::without_store(&[("disk", DISK_BYTES)]);
    let backing = scene.path("backing.img");
    File::create(&backing).unwrap().set_len(900 << 20).unwrap();
    program!("mkfs.ext4", "-q", "-F", "-m", "0", backing).succeeds();
    let device = LoopDevice::attach(&backing, &[]);
    let small = MountedFileSystem::mount(&device.device, &scene.path("small"), "defaults");
    scene.store = small.directory.join("store");
    cdp!("create", scene.store, "--size", DISK_BYTES.to_string()).succeeds();
    // A policy that is recorded long before it drops anything, so that a mount does not thin by itself.
    let every = Keep::Every { every: 4 * HOUR, per_slot: 1, prefer: vec!["app"] };
    let policy = Policy {
        windows: vec![
            Window { to: 12 * DAY, keep: Keep::All, bookmarks: Filter::None },
            Window { to: 40 * DAY, keep: every, bookmarks: Filter::None },
        ],
        ..Policy::default()
    };
    let mut lab = Lab::over(scene, policy);
    let end = live(&mut lab, &mut random, 10, 20_000);
    let now = end + 12 * DAY;
    let mount = owned.then(|| Mount::start(&lab.store, &lab.path("mount")));
    let before = allocated_below(&lab.store);
    fill(&small.directory);
    let time = format_time(now);
    let ran = cdp!("retention", "run", lab.store, "--now", time, "--json").succeeds();
    let kept = lab.assert_planned(now);
    println!("from {before} to {}: {}", allocated_below(&lab.store), ran.stdout.trim());
    lab.assert_open(&Lab::some(&mut random, &kept.seqs, 5));
    if let Some(mount) = mount {
        mount.terminate();
    }
    let after = allocated_below(&lab.store);
    assert!(after * 2 < before, "a run on a full disk left {after} of {before} bytes");
    let mut shape = Shape::mixed(DISK_BYTES, 2000);
    (shape.bookmark_percent, shape.start) = (0, end);
    lab.replay(&shape.generate(&mut random));
    lab.assert_restores("latest", "disk", lab.oracle.newest());
    lab.assert_sound();
    assert!(fs::metadata(small.directory.join("ballast")).unwrap().len() > 100 << 20);
    small.unmount();
}
