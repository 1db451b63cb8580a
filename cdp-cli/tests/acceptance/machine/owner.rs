//! A mount as the owner of a store, and other processes that work through it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::command::program;
use crate::support::machine::Mount;
use crate::support::times::{format_time, now};
use crate::support::{Oracle, Scene, Trace, cdp, files, index};

fn open(path: &Path) -> File {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

/// A store of one volume `disk`, mounted.
fn mounted(bytes: u64) -> (Scene, Mount) {
    let scene = Scene::new(&[("disk", bytes)]);
    let mount = Mount::start(&scene.store, &scene.path("mount"));
    (scene, mount)
}

fn newest(scene: &Scene) -> u64 {
    scene.newest()
}

/// Goal: the live volume is a file of its size that keeps what is written. Method: aligned and unaligned writes
/// against a copy in memory; each is one seq; afterwards the store holds the same.
#[test]
#[ignore = "needs root and FUSE"]
fn the_live_volume_keeps_what_is_written() {
    let (scene, mount) = mounted(4 << 20);
    let path = mount.disk("disk");
    assert_eq!(fs::metadata(&path).unwrap().len(), 4 << 20);
    let disk = open(&path);
    let mut model = vec![0_u8; 4 << 20];
    let ranges =
        [(0, 4096), (512, 512), (1, 1), (4095, 2), (1_000_003, 70_001), ((4 << 20) - 1, 1), (8192, 131_072)];
    for (number, (offset, length)) in (1_u8..).zip(ranges) {
        let data = vec![number; length];
        disk.write_all_at(&data, offset as u64).unwrap();
        model[offset..offset + length].copy_from_slice(&data);
        let mut found = vec![0; 4 << 20];
        disk.read_exact_at(&mut found, 0).unwrap();
        assert!(found == model, "after write {number} at {offset}+{length}");
        disk.sync_all().unwrap();
        assert_eq!(newest(&scene), u64::from(number), "each write is one seq, also an unaligned one");
    }
    drop(disk);
    mount.terminate();
    let target = scene.path("image");
    cdp!("restore", scene.store, "--at", "latest", "--to", target).succeeds();
    assert!(fs::read(&target).unwrap() == model, "the restored image differs");
    scene.assert_sound();
}

/// Goal: punching a hole is a discard of one seq, zeroing a range reads back as zeroes, and the size is fixed.
/// Method: `fallocate` and `truncate` on the live file; writes past the end.
#[test]
#[ignore = "needs root and FUSE"]
fn holes_are_discards_and_the_size_is_fixed() {
    let (scene, mount) = mounted(1 << 20);
    let path = mount.disk("disk");
    let disk = open(&path);
    disk.write_all_at(&[7; 65536], 0).unwrap();
    disk.sync_all().unwrap();
    let before = newest(&scene);
    program!("fallocate", "--punch-hole", "--offset", "8192", "--length", "16384", path).succeeds();
    disk.sync_all().unwrap();
    assert_eq!(newest(&scene), before + 1, "a hole is one seq");
    let mut found = vec![1; 65536];
    disk.read_exact_at(&mut found, 0).unwrap();
    assert!(found[8192..24576].iter().all(|byte| *byte == 0), "the hole does not read as zeroes");
    assert!(
        found[..8192].iter().chain(&found[24576..]).all(|byte| *byte == 7),
        "the hole took its neighbours"
    );
    assert!(disk.set_len(2 << 20).is_err() && disk.set_len(4096).is_err(), "the size could be changed");
    assert!(disk.write_all_at(&[1; 512], 1 << 20).is_err(), "a write past the end succeeded");
    assert!(disk.write_all_at(&[1; 1024], (1 << 20) - 512).is_err(), "a write over the end succeeded whole");
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
    assert!(fs::remove_file(&path).is_err(), "the live volume could be removed");
    assert!(File::create(path.with_file_name("new")).is_err(), "a file could be made beside the live volume");
    drop(disk);
    mount.unmount();
    scene.assert_sound();
}

/// Goal: `points/POINT/disk` is the image at that point, any spelling, read-only, the same bytes as `restore`.
/// Method: bookmarks between writes; seqs, times and bookmarks under `points/` while writes go on.
#[test]
#[ignore = "needs root and FUSE"]
fn points_are_files_with_the_bytes_of_restore() {
    let (scene, mount) = mounted(1 << 20);
    let disk = open(&mount.disk("disk"));
    let mut instants = Vec::new();
    for number in 1..=12_u64 {
        disk.write_all_at(&[u8::try_from(number).unwrap(); 4096], number * 8192).unwrap();
        instants.push(now());
        if number % 4 == 0 {
            cdp!("bookmark", "add", scene.store, format!("after-{number}"), "--kind", "fs").succeeds();
        }
    }
    disk.sync_all().unwrap();
    let listed: Vec<_> = fs::read_dir(mount.directory.join("disk/points"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["bookmark:after-4", "bookmark:after-8", "bookmark:after-12"] {
        assert!(listed.iter().any(|entry| entry == name), "`{name}` is not in {listed:?}");
    }
    let mut points = vec!["latest".to_owned(), "oldest".to_owned(), "bookmark-latest:fs".to_owned()];
    points.extend([0, 1, 5, 12].map(|seq| format!("seq:{seq}")));
    points.extend([0, 3, 10].map(|number| format!("time:{}", format_time(instants[number]))));
    points.push("bookmark:after-8".to_owned());
    let target = scene.path("image");
    for point in points {
        cdp!("restore", scene.store, "--at", point, "--to", target, "--force").succeeds();
        let image = mount.point("disk", &point);
        assert_eq!(fs::metadata(&image).unwrap().len(), 1 << 20, "{point}");
        assert_eq!(files::first_difference(&image, &target), None, "{point}: points/ and restore");
    }
    let mut expected = vec![0; 1 << 20];
    for number in 1..=5_usize {
        expected[number * 8192..number * 8192 + 4096].fill(u8::try_from(number).unwrap());
    }
    let image = mount.point("disk", "seq:5");
    assert!(fs::read(&image).unwrap() == expected, "seq:5");
    let mut held = File::open(&image).unwrap();
    disk.write_all_at(&[0xFF; 4096], 8192).unwrap();
    disk.sync_all().unwrap();
    let mut again = Vec::new();
    held.read_to_end(&mut again).unwrap();
    assert!(again == expected, "an open point changed with the live volume");
    assert!(File::options().write(true).open(&image).is_err(), "a point could be opened for writing");
    for point in ["seq:9999", "bookmark:none", "nonsense", "time:2200-01-01T00:00:00Z"] {
        let error = fs::metadata(mount.point("disk", point)).expect_err(point);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{point}");
    }
    drop((disk, held));
    mount.terminate();
}

/// Goal: every command works while a mount owns the store, and what it changes is there at once and afterwards.
/// Method: replay, bookmarks, a new volume and all readers through the owner; the oracle for the content.
#[test]
#[ignore = "needs root and FUSE"]
fn commands_work_through_the_owner() {
    let (mut scene, mount) = mounted(4 << 20);
    let start = now();
    let mut trace = Trace::default();
    for number in 0..200 {
        trace.write(start + number, "disk", number * 8192, 8192);
    }
    scene.replay(&trace);
    let mut live = vec![0; 4 << 20];
    open(&mount.disk("disk")).read_exact_at(&mut live, 0).unwrap();
    let mut expected = vec![0; 4 << 20];
    scene.oracle.image("disk", 200).content(0, &mut expected);
    assert!(live == expected, "the live volume does not show the replay");
    let store = &scene.store;
    cdp!("bookmark", "add", store, "one", "--kind", "app", "--lock").succeeds();
    cdp!("bookmark", "add", store, "one").exits(1);
    cdp!("bookmark", "delete", store, "one").exits(1);
    cdp!("bookmark", "unlock", store, "one").succeeds();
    cdp!("bookmark", "add", store, "two", "--at", "seq:50").succeeds();
    cdp!("bookmark", "lock", store, "two").succeeds();
    cdp!("bookmark", "delete", store, "one").succeeds();
    assert_eq!(scene.points()["bookmarks"].as_array().unwrap().len(), 1);
    scene.assert_restores("bookmark:two", "disk", 50);
    scene.assert_restores("seq:123", "disk", 123);
    let diff = cdp!("diff", store, "--from", "seq:10", "--to", "seq:12", "--json").succeeds().json();
    assert_eq!(diff["extents"], serde_json::json!([{"offset": 81_920, "length": 16_384}]));
    cdp!("check", store, "--deep").succeeds();
    cdp!("stat", store, "--json").succeeds();
    cdp!("volume", "list", store).succeeds();
    cdp!("volume", "add", store, "second", "--size", "1M").succeeds();
    let second = open(&mount.disk("second"));
    second.write_all_at(&[9; 4096], 4096).unwrap();
    second.sync_all().unwrap();
    drop(second);
    assert_eq!(scene.newest(), 201);
    let mut bad = Trace::default();
    bad.write(start + 1, "disk", 0, 512);
    let file = scene.path("bad.csv");
    bad.save(&file);
    cdp!("replay", scene.store, file).exits(1);
    cdp!("create", scene.store, "--size", "1M").exits(1);
    mount.unmount();
    scene.assert_sound();
    assert_eq!(scene.newest(), 201);
    scene.assert_restores("seq:200", "disk", 200);
    assert_eq!(scene.points()["bookmarks"][0]["name"], "two");
}

/// Goal: a store has one owner. Method: a second mount exits 1 and does not disturb the first.
#[test]
#[ignore = "needs root and FUSE"]
fn a_second_owner_is_refused() {
    let (scene, mount) = mounted(1 << 20);
    let other = scene.path("other");
    fs::create_dir(&other).unwrap();
    cdp!("mount", scene.store, other).exits(1);
    let disk = open(&mount.disk("disk"));
    disk.write_all_at(&[3; 512], 0).unwrap();
    disk.sync_all().unwrap();
    drop(disk);
    mount.terminate();
    assert_eq!(scene.newest(), 1);
}

/// Goal: a mount that cannot be is a clear failure. Method: a missing directory, a file, a missing store.
#[test]
#[ignore = "needs root and FUSE"]
fn an_impossible_mount_exits_with_1() {
    let scene = Scene::new(&[("disk", 1 << 20)]);
    let (file, empty) = (scene.path("file"), scene.path("empty"));
    fs::write(&file, "text").unwrap();
    fs::create_dir(&empty).unwrap();
    cdp!("mount", scene.store, file).exits(1);
    cdp!("mount", scene.store, scene.path("missing")).exits(1);
    cdp!("mount", scene.path("no-store"), empty).exits(1);
    scene.assert_sound();
}

/// Goal: several clients at once get what they wrote, and each point is one cut. Method: four threads, each with its
/// own region and counter, fsyncing; every block names its thread and number; the live volume, a restore and the
/// counters agree.
#[test]
#[ignore = "needs root and FUSE"]
fn several_clients_write_at_once() {
    const REGION: u64 = 1 << 20;
    const WRITES: u64 = 400;
    let (scene, mount) = mounted(4 * REGION);
    let path = mount.disk("disk");
    std::thread::scope(|scope| {
        for client in 0..4_u64 {
            let path = &path;
            scope.spawn(move || {
                let disk = open(path);
                for number in 1..=WRITES {
                    let block = [client.to_le_bytes(), number.to_le_bytes()].concat().repeat(256);
                    disk.write_all_at(&block, client * REGION + number % 256 * 4096).unwrap();
                    if number % 16 == 0 {
                        disk.sync_all().unwrap();
                    }
                }
            });
        }
    });
    mount.terminate();
    assert_eq!(scene.newest(), 4 * WRITES);
    let target = scene.path("image");
    cdp!("restore", scene.store, "--at", "latest", "--to", target).succeeds();
    let image = fs::read(&target).unwrap();
    for client in 0..4_u64 {
        for number in WRITES - 255..=WRITES {
            let at = index(client * REGION + number % 256 * 4096);
            let block = [client.to_le_bytes(), number.to_le_bytes()].concat().repeat(256);
            assert!(image[at..at + 4096] == block, "client {client}, write {number}");
        }
    }
    scene.assert_sound();
}

/// Goal: large requests of a client arrive whole. Method: one 8 MiB write call, however the kernel splits it; each
/// seq of it is a prefix of the data.
#[test]
#[ignore = "needs root and FUSE"]
fn large_writes_arrive_whole() {
    let (scene, mount) = mounted(16 << 20);
    let mut data = vec![0; 8 << 20];
    let mut oracle = Oracle::new(&[("disk", 16 << 20)]);
    let mut trace = Trace::default();
    trace.write(now(), "disk", 0, 8 << 20);
    oracle.replay(&trace, None);
    oracle.image("disk", 1).content(0, &mut data);
    let disk = open(&mount.disk("disk"));
    disk.write_all_at(&data, 0).unwrap();
    disk.sync_all().unwrap();
    drop(disk);
    let target = scene.path("image");
    cdp!("restore", scene.store, "--at", "latest", "--to", target).succeeds();
    oracle.image("disk", 1).assert_equals_file(&target, "one large write");
    mount.terminate();
}
