//! kill -9 of the mounting process while a client writes and fsyncs.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::support::machine::Mount;
use crate::support::times::now;
use crate::support::{Op, Random, Scene, Trace, cdp, scaled};

const DISK_BYTES: u64 = 64 << 20;

/// What the client did in one life of the mount.
#[derive(Default)]
struct Acts {
    /// Every write that was submitted, in order; the last may have failed.
    submitted: Trace,
    /// How many of them a returned fsync covers.
    acknowledged: u64,
}

/// Writes at random until the disk fails; each write holds the stamps of its number, and is one request.
fn client(disk: &File, acts: &Mutex<Acts>, mut log: File, mut random: Random) {
    for number in 1_u64.. {
        let length = random.sectors_log_uniform(64 << 10);
        let offset = random.below((DISK_BYTES - length) / 512 + 1) * 512;
        let mut data = vec![0; crate::support::index(length)];
        for (position, chunk) in (offset..).step_by(16).zip(data.chunks_exact_mut(16)) {
            chunk[..8].copy_from_slice(&position.to_le_bytes());
            chunk[8..].copy_from_slice(&number.to_le_bytes());
        }
        acts.lock().unwrap().submitted.push(now(), "disk", Op::Write { offset, length });
        if disk.write_all_at(&data, offset).is_err() {
            return;
        }
        if random.percent(20) {
            if disk.sync_all().is_err() {
                return;
            }
            acts.lock().unwrap().acknowledged = number;
            writeln!(log, "acknowledged {number}").unwrap();
        }
    }
}

/// Goal: kill -9 loses nothing whose fsync returned, and what is found is an exact prefix of what was submitted.
/// Method: kill at random; the number of recovered seqs says how long the prefix is; the newest and random older
/// points are compared with the oracle; a deep check; the next mount, timed, shows the same; and so on in one store.
#[test]
#[ignore = "needs root and FUSE"]
fn kill_loses_nothing_that_was_acknowledged() {
    let mut random = Random::for_test("kill_loses_nothing_that_was_acknowledged");
    let mut scene = Scene::new(&[("disk", DISK_BYTES)]);
    let mut slowest = Duration::ZERO;
    for round in 1..=scaled(10, 100) {
        let mount = Mount::start(&scene.store, &scene.path("mount"));
        slowest = slowest.max(mount.open_time);
        let before = scene.oracle.newest();
        let disk = File::options().read(true).write(true).open(mount.disk("disk")).unwrap();
        let live = scene.oracle.image("disk", before).compare(&disk);
        assert_eq!(live, Ok(()), "round {round}: the live volume after reopening at seq {before}");
        let acts = Mutex::new(Acts::default());
        let log = File::create(scene.path("acknowledged.log")).unwrap();
        let client_random = Random::new(random.next());
        let open_time = mount.open_time;
        thread::scope(|scope| {
            scope.spawn(|| client(&disk, &acts, log, client_random));
            thread::sleep(Duration::from_millis(random.between(5, 700)));
            mount.kill();
        });
        drop(disk);
        let acts = acts.into_inner().unwrap();
        let newest = scene.newest();
        let (recovered, submitted) = (newest - before, acts.submitted.counted());
        println!(
            "round {round}: opened in {open_time:?}; {submitted} writes, {} acknowledged, {recovered} recovered",
            acts.acknowledged
        );
        assert!(recovered >= acts.acknowledged, "round {round}: acknowledged writes are lost");
        assert!(recovered <= submitted, "round {round}: more seqs than writes");
        let (done, _) = acts.submitted.split_after_counted(recovered);
        scene.oracle.replay(&done, None);
        scene.assert_restores("latest", "disk", newest);
        for _ in 0..2 {
            let seq = random.between(0, newest);
            scene.assert_restores(&format!("seq:{seq}"), "disk", seq);
        }
        scene.assert_sound();
    }
    println!("slowest open: {slowest:?}");
    let stat = cdp!("stat", scene.store, "--json").succeeds().stdout;
    println!("{stat}");
}

/// Goal: a bookmark that was returned is there after kill -9, and names its state. Method: bookmarks beside a
/// writing client; then kill; each returned bookmark restores to a prefix that lies between what was acknowledged
/// before it and what was submitted after it.
#[test]
#[ignore = "needs root and FUSE"]
fn kill_loses_no_bookmark_that_was_returned() {
    let mut random = Random::for_test("kill_loses_no_bookmark_that_was_returned");
    let mut scene = Scene::new(&[("disk", DISK_BYTES)]);
    for round in 0..scaled(3, 20) {
        let mount = Mount::start(&scene.store, &scene.path("mount"));
        let before = scene.oracle.newest();
        let disk = File::options().read(true).write(true).open(mount.disk("disk")).unwrap();
        let acts = Mutex::new(Acts::default());
        let log = File::create(scene.path("acknowledged.log")).unwrap();
        let client_random = Random::new(random.next());
        let mut returned = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| client(&disk, &acts, log, client_random));
            for number in 0..random.between(1, 6) {
                let name = format!("life-{round}-{number}");
                let low = acts.lock().unwrap().acknowledged;
                cdp!("bookmark", "add", scene.store, name).succeeds();
                let high = acts.lock().unwrap().submitted.counted();
                returned.push((name, before + low, before + high));
            }
            mount.kill();
        });
        drop(disk);
        let acts = acts.into_inner().unwrap();
        let newest = scene.newest();
        scene.oracle.replay(&acts.submitted.split_after_counted(newest - before).0, None);
        let points = scene.points();
        let bookmarks = points["bookmarks"].as_array().unwrap();
        for (name, low, high) in returned {
            let found = bookmarks.iter().find(|bookmark| bookmark["name"] == *name);
            let seq = found.unwrap_or_else(|| panic!("`{name}` is lost"))["seq"].as_u64().unwrap();
            assert!((low..=high).contains(&seq), "`{name}` names {seq}, not in {low}..={high}");
            scene.assert_restores(&format!("bookmark:{name}"), "disk", seq);
        }
        scene.assert_sound();
    }
    assert!(fs::metadata(&scene.store).unwrap().is_dir());
}
