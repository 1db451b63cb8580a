//! Import: one seq for the whole image, holes skipped, nothing before it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::times::{START, format_time, time_in};
use crate::support::{Random, Scene, Trace, cdp, files};

/// A sparse image with random data at a few places, zeroes that are written out, and an odd end.
fn make_image(scene: &Scene, name: &str, bytes: u64, random: &mut Random) -> PathBuf {
    let path = scene.path(name);
    let file = File::create(&path).unwrap();
    file.set_len(bytes).unwrap();
    for place in 0..8 {
        let mut data = vec![0; 64 << 10];
        random.fill(&mut data);
        let offset = place * (bytes / 8) / 512 * 512;
        let length = data.len().min(crate::support::index(bytes - offset));
        file.write_all_at(&data[..length], offset).unwrap();
    }
    let zeroes = vec![0; 128 << 10];
    file.write_all_at(&zeroes, bytes / 16 / 512 * 512).unwrap();
    path
}

#[track_caller]
fn assert_same(left: &Path, right: &Path, what: &str) {
    assert_eq!(
        files::first_difference(left, right),
        None,
        "{what}: {} and {}",
        left.display(),
        right.display()
    );
}

/// Goal: a store made with `--import` holds the image as its first seq, at the time given, and nothing before.
/// Method: restore it; seq 0 exits 4; then writes go on from seq 2.
#[test]
fn an_import_is_the_first_seq() {
    let mut random = Random::for_test("an_import_is_the_first_seq");
    let mut scene = Scene::without_store(&[("disk", 32 << 20)]);
    let image = make_image(&scene, "source.img", 32 << 20, &mut random);
    let time = format_time(START);
    cdp!("create", scene.store, "--size", "32M", "--import", image, "--time", time).succeeds();
    let points = scene.points();
    assert_eq!(points["newest"]["seq"], 1);
    assert_eq!(time_in(&points["newest"]["time"]), START);
    assert_eq!(points["oldest"]["seq"], 1);
    let target = scene.path("restored.img");
    for point in ["latest", "oldest", "seq:1", "time:2026-01-01T00:00:00Z"] {
        cdp!("restore", scene.store, "--at", point, "--to", target, "--force").succeeds();
        assert_same(&image, &target, point);
    }
    scene.assert_unavailable("seq:0", "disk").says("1");
    scene.assert_unavailable("time:2025-12-31T23:59:59.999999999Z", "disk");
    scene.oracle.skip_seq();
    let mut trace = Trace::default();
    trace.write(START + 1, "disk", 0, 32 << 10);
    let report = scene.replay(&trace);
    assert_eq!(report["first_seq"], 2);
    cdp!("restore", scene.store, "--at", "seq:2", "--to", target, "--force").succeeds();
    let file = File::options().write(true).open(&image).unwrap();
    let mut stamped = vec![0; 32 << 10];
    scene.oracle.image("disk", 2).content(0, &mut stamped);
    file.write_all_at(&stamped, 0).unwrap();
    assert_same(&image, &target, "the write over the import");
    scene.assert_sound();
}

/// Goal: holes and zeroes cost nothing. Method: 8 GiB with half a MiB of data; the store stays small.
#[test]
fn holes_are_not_stored() {
    let mut random = Random::for_test("holes_are_not_stored");
    let scene = Scene::without_store(&[("disk", 2 << 30)]);
    let image = make_image(&scene, "source.img", 2 << 30, &mut random);
    cdp!("create", scene.store, "--size", "2G", "--import", image).succeeds();
    let stored = files::allocated_below(&scene.store);
    assert!(stored < 512 << 20, "the store takes {stored} bytes for half a MiB of data");
    let target = scene.path("restored.img");
    cdp!("restore", scene.store, "--at", "latest", "--to", target).succeeds();
    assert_same(&image, &target, "sparse import");
    let allocated = files::allocated_bytes(&target);
    assert!(allocated <= 2 << 20, "the restored image takes {allocated} bytes for half a MiB of data");
}

/// Goal: a volume can be added with an image: one seq, and earlier points of that volume exit 4, of others not.
/// Method: writes before and after.
#[test]
fn a_volume_is_added_with_an_image() {
    let mut random = Random::for_test("a_volume_is_added_with_an_image");
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    let mut trace = Trace::default();
    trace.write(START, "disk", 0, 512);
    trace.write(START + 1, "disk", 512, 512);
    scene.replay(&trace);
    let bytes = (5 << 20) + 512;
    let image = make_image(&scene, "source.img", bytes, &mut random);
    cdp!("volume", "add", scene.store, "seeded", "--size", bytes.to_string(), "--import", image).succeeds();
    assert_eq!(scene.newest(), 3);
    let target = scene.path("restored.img");
    cdp!("restore", scene.store, "--at", "seq:3", "--to", target, "--volume", "seeded").succeeds();
    assert_same(&image, &target, "added volume");
    scene.assert_unavailable("seq:2", "seeded").says("3");
    scene.assert_restores("seq:2", "disk", 2);
    scene.assert_sound();
}

/// Goal: an image that does not fit, or is not there, makes no store. Method: too large, and missing.
#[test]
fn an_impossible_import_leaves_nothing() {
    let mut random = Random::for_test("an_impossible_import_leaves_nothing");
    let scene = Scene::without_store(&[("disk", 1 << 20)]);
    let image = make_image(&scene, "source.img", 2 << 20, &mut random);
    cdp!("create", scene.store, "--size", "1M", "--import", image).exits_with_one_of(&[1, 2]);
    assert!(!scene.store.exists(), "a refused create left something behind");
    cdp!("create", scene.store, "--size", "1M", "--import", scene.path("missing.img")).exits(1);
    assert!(!scene.store.exists(), "a refused create left something behind");
}

/// Goal: an image smaller than the volume is followed by zeroes. Method: 1 MiB and 512 bytes into 4 MiB.
#[test]
fn a_smaller_image_is_followed_by_zeroes() {
    let mut random = Random::for_test("a_smaller_image_is_followed_by_zeroes");
    let scene = Scene::without_store(&[("disk", 4 << 20)]);
    let image = make_image(&scene, "source.img", (1 << 20) + 512, &mut random);
    cdp!("create", scene.store, "--size", "4M", "--import", image).succeeds();
    let target = scene.path("restored.img");
    cdp!("restore", scene.store, "--at", "latest", "--to", target).succeeds();
    File::options().write(true).open(&image).unwrap().set_len(4 << 20).unwrap();
    assert_same(&image, &target, "padded import");
}
