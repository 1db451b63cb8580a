//! Resync, verify and resize: the newest state becomes the source, and what the documents say of it is so.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Random, Scene, cdp, files};

const BLOCK: usize = 4096;

fn is_full() -> bool {
    std::env::var("CDP_TEST_SCALE").is_ok_and(|scale| scale == "full")
}

/// A store whose one volume was imported from a random image of this size, the image, and a generator.
fn imported(name: &str, bytes: u64) -> (Scene, PathBuf, Random) {
    let mut random = Random::for_test(name);
    let scene = Scene::without_store(&[("disk", bytes)]);
    let image = scene.path("source.img");
    let file = File::create(&image).unwrap();
    file.set_len(bytes).unwrap();
    let mut chunk = vec![0; 1 << 20];
    // Every eighth megabyte is a hole.
    for index in (0..bytes.div_ceil(1 << 20)).filter(|index| index % 8 != 5) {
        let offset = index << 20;
        let len = usize::try_from((bytes - offset).min(1 << 20)).unwrap();
        for word in chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&(random.next() | 1).to_le_bytes());
        }
        file.write_all_at(&chunk[..len], offset).unwrap();
    }
    drop(file);
    cdp!("create", scene.store, "--import", image).succeeds();
    (scene, image, random)
}

/// Overwrites so many different blocks of a file, and says how many bytes that were.
fn change(path: &Path, random: &mut Random, blocks: u64, count: u64) -> u64 {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let mut changed: Vec<u64> = (0..count).map(|_| random.below(blocks)).collect();
    changed.sort_unstable();
    changed.dedup();
    for block in &changed {
        let data: Vec<u8> = (random.next() | 1).to_le_bytes().repeat(BLOCK / 8);
        file.write_all_at(&data, block * BLOCK as u64).unwrap();
    }
    changed.len() as u64 * BLOCK as u64
}

fn resync(scene: &Scene, source: &Path, mode: &str) -> Value {
    cdp!("resync", scene.store, "--source", source, "--mode", mode, "--json").succeeds().json()
}

#[track_caller]
fn number(document: &Value, key: &str) -> u64 {
    document[key].as_u64().unwrap_or_else(|| panic!("{key} of {document}"))
}

#[track_caller]
fn assert_newest_is(scene: &Scene, source: &Path) {
    let newest = scene.path("newest.img");
    cdp!("restore", scene.store, "--at", "latest", "--to", newest).succeeds();
    assert_eq!(files::first_difference(&newest, source), None, "the newest state is not the source");
    fs::remove_file(newest).unwrap();
}

/// Goal: blocks that were changed behind the store's back are found by digests, the source is read once, the payload of the store not at all,
/// only what differs is taken over, the points before stay, and those in between are refused. Method: 1 % of the blocks of an image; in the long
/// form one of 4 GiB.
#[test]
fn a_resync_takes_over_only_what_differs() {
    let bytes: u64 = if is_full() { 4 << 30 } else { 96 << 20 };
    let (scene, source, mut random) = imported("a_resync_takes_over_only_what_differs", bytes);
    let before = scene.path("before.img");
    cdp!("restore", scene.store, "--at", "latest", "--to", before).succeeds();
    let data_bytes = fs::metadata(&source).unwrap().blocks() * 512;
    let blocks = bytes / BLOCK as u64;
    let changed = change(&source, &mut random, blocks, blocks / 100);
    let document = resync(&scene, &source, "digest");
    assert_eq!(document["mode"], "digest");
    assert_eq!(number(&document, "bytes_compared"), bytes, "{document}");
    assert_eq!(number(&document, "bytes_different"), changed, "{document}");
    assert!(number(&document, "bytes_transferred") <= changed + changed / 50, "{document}");
    let read = number(&document, "source_bytes_read");
    // Once, without the holes that are left.
    assert!(read <= bytes && read + (9 << 20) >= data_bytes, "{document}");
    assert_eq!(number(&document, "store_bytes_read"), 0, "{document}");
    assert_newest_is(&scene, &source);
    let points = scene.points();
    let gap = &points["gaps"][0];
    assert_eq!((number(gap, "from_seq"), points["gaps"].as_array().unwrap().len()), (2, 1), "{points}");
    for seq in number(gap, "from_seq")..=number(gap, "to_seq") {
        scene.assert_unavailable(&format!("seq:{seq}"), "disk");
    }
    assert!(points["bookmarks"].as_array().unwrap().iter().any(|bookmark| bookmark["kind"] == "system"));
    let old = scene.path("old.img");
    cdp!("restore", scene.store, "--at", "seq:1", "--to", old).succeeds();
    assert_eq!(files::first_difference(&old, &before), None, "the point before the resync");
    // Equal now: nothing more happens, and nothing is read where that is known.
    let newest = scene.newest();
    for (mode, reads) in [("digest", true), ("map", false), ("quick", false)] {
        let document = resync(&scene, &source, mode);
        assert_eq!((document["mode"].as_str(), number(&document, "bytes_different")), (Some(mode), 0));
        assert_eq!(number(&document, "source_bytes_read") > 0, reads, "{document}");
        assert_eq!(scene.newest(), newest, "{document}");
    }
    let document = resync(&scene, &source, "full");
    assert!(
        number(&document, "store_bytes_read") > 0 && number(&document, "bytes_different") == 0,
        "{document}"
    );
    scene.assert_sound();
}

/// Goal: verify says exactly what differs with exit 5, mends the store and not the source with --repair, and then there is nothing. Method:
/// changed blocks on both sides.
#[test]
fn verify_finds_and_mends_differences() {
    let bytes: u64 = 16 << 20;
    let (scene, source, mut random) = imported("verify_finds_and_mends_differences", bytes);
    let clean = cdp!("verify", scene.store, "--source", source, "--json").succeeds().json();
    assert_eq!((number(&clean, "bytes_compared"), number(&clean, "bytes_different")), (bytes, 0));
    assert_eq!((&clean["extents"], &clean["repaired"]), (&Value::Array(Vec::new()), &Value::Bool(false)));
    let changed = change(&source, &mut random, bytes / BLOCK as u64, 40);
    let seq = scene.newest();
    let modified = fs::metadata(&source).unwrap().modified().unwrap();
    let found = cdp!("verify", scene.store, "--source", source, "--json").exits(5).json();
    assert_eq!(number(&found, "bytes_different"), changed, "{found}");
    let listed: u64 =
        found["extents"].as_array().unwrap().iter().map(|extent| number(extent, "length")).sum();
    assert_eq!((listed, &found["repaired"]), (changed, &Value::Bool(false)));
    assert_eq!(scene.newest(), seq, "verify changed the store");
    let mended = cdp!("verify", scene.store, "--source", source, "--repair", "--json").succeeds().json();
    assert_eq!((&mended["repaired"], &mended["extents"]), (&Value::Bool(true), &found["extents"]));
    assert_newest_is(&scene, &source);
    cdp!("verify", scene.store, "--source", source).succeeds();
    assert_eq!(fs::metadata(&source).unwrap().modified().unwrap(), modified, "the source was written");
    // An inline write leaves the source, which quick must not believe to be equal any more.
    let file = scene.path("trace.csv");
    fs::write(&file, "4000000000000000000,disk,8192,4096\n").unwrap();
    cdp!("replay", scene.store, file).succeeds();
    let document = resync(&scene, &source, "quick");
    assert_eq!(document["mode"], "digest", "{document}");
    assert_newest_is(&scene, &source);
}

/// Goal: payload that the store cannot read is reported as damage, mended from the source, and points that only it could show stay damaged.
/// Method: overwrite a part of the largest segment of an imported store.
#[test]
fn verify_mends_damage_from_the_source() {
    let (scene, source, _) = imported("verify_mends_damage_from_the_source", 8 << 20);
    let largest = fs::read_dir(&scene.store).unwrap().map(|entry| entry.unwrap().path());
    let largest = largest
        .filter(|path| path.is_file())
        .max_by_key(|path| fs::metadata(path).unwrap().blocks())
        .unwrap();
    let file = OpenOptions::new().write(true).open(largest).unwrap();
    file.write_all_at(&[0x5a; 3 * BLOCK], 2 << 20).unwrap();
    drop(file);
    let found = cdp!("verify", scene.store, "--source", source, "--json").exits(3).json();
    let damaged = number(&found, "bytes_damaged");
    assert!(damaged > 0 && number(&found, "bytes_different") == damaged, "{found}");
    let mended = cdp!("verify", scene.store, "--source", source, "--repair", "--json").succeeds().json();
    assert_eq!((&mended["repaired"], number(&mended, "bytes_damaged")), (&Value::Bool(true), damaged));
    assert_newest_is(&scene, &source);
    cdp!("verify", scene.store, "--source", source).succeeds();
    let target = scene.path("damaged.img");
    cdp!("restore", scene.store, "--at", "seq:1", "--to", target).exits(3);
}

/// Goal: a source of another size is refused with what to do about it, and after a resize it is taken; each point has the size that it had, and what was cut off
/// reads as zeroes. Method: shrink and grow around restores.
#[test]
fn a_volume_is_resized_with_its_history() {
    let bytes: u64 = 4 << 20;
    let (scene, source, mut random) = imported("a_volume_is_resized_with_its_history", bytes);
    let smaller = bytes / 2 + 512;
    let copy = scene.path("smaller.img");
    fs::copy(&source, &copy).unwrap();
    let file = OpenOptions::new().write(true).open(&copy).unwrap();
    file.set_len(smaller).unwrap();
    cdp!("resync", scene.store, "--source", copy).exits(1).says("volume resize");
    cdp!("verify", scene.store, "--source", copy).exits(1).says("volume resize");
    let size = |expected: u64| {
        let resized =
            cdp!("volume", "resize", scene.store, "disk", expected.to_string(), "--json").succeeds().json();
        assert_eq!((resized["name"].as_str(), number(&resized, "size")), (Some("disk"), expected));
    };
    size(smaller);
    assert_eq!(number(&resync(&scene, &copy, "digest"), "bytes_different"), 0);
    assert_newest_is(&scene, &copy);
    size(bytes);
    file.set_len(bytes).unwrap();
    assert_newest_is(&scene, &copy);
    change(&copy, &mut random, bytes / BLOCK as u64, 5);
    resync(&scene, &copy, "digest");
    for (seq, expected, whole) in [(1, bytes, &source), (2, smaller, &source)] {
        let target = scene.path("sized.img");
        cdp!("restore", scene.store, "--at", format!("seq:{seq}"), "--to", target).succeeds();
        assert_eq!(fs::metadata(&target).unwrap().len(), expected, "seq {seq}");
        let (found, all) = (fs::read(&target).unwrap(), fs::read(whole).unwrap());
        assert!(found == all[..usize::try_from(expected).unwrap()], "seq {seq}");
        fs::remove_file(target).unwrap();
    }
    cdp!("volume", "resize", scene.store, "other", "1M").exits(1);
    cdp!("volume", "resize", scene.store, "disk", "1000").exits(2);
    assert_eq!(number(&scene.points()["volumes"][0], "size"), bytes);
    scene.assert_sound();
}

/// Goal: a resync that is killed at any moment leaves a sound store whose points before it are all there, and the next run goes on and ends with the
/// newest state equal to the source. Method: kill -9 at random moments, again and again on one store, then to the end.
#[test]
fn a_killed_resync_goes_on() {
    let bytes: u64 = if is_full() { 512 << 20 } else { 48 << 20 };
    let (scene, source, mut random) = imported("a_killed_resync_goes_on", bytes);
    let before = scene.path("before.img");
    cdp!("restore", scene.store, "--at", "seq:1", "--to", before).succeeds();
    let blocks = bytes / BLOCK as u64;
    let rounds = if is_full() { 30 } else { 4 };
    for round in 0..rounds {
        if round % 2 == 0 {
            change(&source, &mut random, blocks, blocks / 50);
        }
        let mut killed = std::process::Command::new(env!("CARGO_BIN_EXE_cdp"))
            .arg("resync")
            .arg(&scene.store)
            .args(["--rate", "20M", "--source"])
            .arg(&source)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100 + random.below(1900)));
        killed.kill().unwrap();
        killed.wait().unwrap();
        scene.assert_sound();
        let old = scene.path("old.img");
        cdp!("restore", scene.store, "--at", "seq:1", "--to", old).succeeds();
        assert_eq!(files::first_difference(&old, &before), None, "the point before, in round {round}");
        fs::remove_file(old).unwrap();
    }
    let document = resync(&scene, &source, "digest");
    assert_newest_is(&scene, &source);
    let points = scene.points();
    let open = points["gaps"].as_array().unwrap().iter().any(|gap| gap["to_seq"] == points["newest"]["seq"]);
    assert!(!open, "a gap is open after {document}: {points}");
    assert_eq!(number(&resync(&scene, &source, "full"), "bytes_different"), 0);
}
