//! Offline seeding: a volume goes to another store as a set of files, and after it only what changed.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Random, Scene, cdp, command::cdp_command, files};

const BLOCK: usize = 4096;

fn is_full() -> bool {
    std::env::var("CDP_TEST_SCALE").is_ok_and(|scale| scale == "full")
}

#[track_caller]
fn number(document: &Value, key: &str) -> u64 {
    document[key].as_u64().unwrap_or_else(|| panic!("{key} of {document}"))
}

/// A store whose one volume was imported from an image of which every fourth megabyte is a hole.
fn original(name: &str, bytes: u64) -> (Scene, PathBuf, Random) {
    let mut random = Random::for_test(name);
    let scene = Scene::without_store(&[("disk", bytes)]);
    let image = scene.path("source.img");
    let file = File::create(&image).unwrap();
    file.set_len(bytes).unwrap();
    let mut chunk = vec![0; 1 << 20];
    for index in (0..bytes.div_ceil(1 << 20)).filter(|index| index % 4 != 2) {
        // Half of the rest packs well.
        let packs = random.below(2) == 0;
        for (at, word) in chunk.chunks_exact_mut(8).enumerate() {
            let value = if packs { at as u64 / 64 + 1 } else { random.next() | 1 };
            word.copy_from_slice(&value.to_le_bytes());
        }
        let len = usize::try_from((bytes - (index << 20)).min(1 << 20)).unwrap();
        file.write_all_at(&chunk[..len], index << 20).unwrap();
    }
    cdp!("create", scene.store, "--import", image).succeeds();
    (scene, image, random)
}

/// Changes blocks of the image, some of them to zeroes, and lets the store follow. Returns the bytes of them.
fn go_on(scene: &Scene, image: &Path, random: &mut Random, count: u64) -> u64 {
    let file = OpenOptions::new().write(true).open(image).unwrap();
    let blocks = fs::metadata(image).unwrap().len() / BLOCK as u64;
    let mut changed: Vec<u64> = (0..count).map(|_| random.below(blocks)).collect();
    changed.sort_unstable();
    changed.dedup();
    for block in &changed {
        let value = if random.below(5) == 0 { 0 } else { random.next() | 1 };
        file.write_all_at(&value.to_le_bytes().repeat(BLOCK / 8), block * BLOCK as u64).unwrap();
    }
    drop(file);
    cdp!("resync", scene.store, "--source", image).succeeds();
    changed.len() as u64 * BLOCK as u64
}

fn newest(store: &Path) -> u64 {
    number(&cdp!("points", store, "--json").succeeds().json()["newest"], "seq")
}

#[track_caller]
fn assert_is(scene: &Scene, store: &Path, volume: &str, image: &Path) {
    let newest = scene.path("newest.img");
    cdp!("restore", store, "--volume", volume, "--at", "latest", "--to", newest).succeeds();
    assert_eq!(files::first_difference(&newest, image), None, "the newest state of {volume}");
    fs::remove_file(newest).unwrap();
}

/// Goal: a volume goes elsewhere as files, then only what changed goes, as the next set or by a resync against a file; points that are mixtures are never shown; what
/// does not fit is refused and changes nothing. Method: a whole set, two that follow, in the wrong order, twice, after a write.
#[test]
fn a_volume_goes_elsewhere_and_then_only_what_changed() {
    let (scene, image, mut random) = original("a_volume_goes_elsewhere", 24 << 20);
    let far = scene.path("far");
    let sets: Vec<PathBuf> = ["whole", "second", "third"].map(|name| scene.path(name)).to_vec();
    let exported = cdp!("export", scene.store, "--at", "latest", "--to", sets[0], "--json").succeeds().json();
    assert_eq!((number(&exported, "bytes"), &exported["since_seq"]), (24 << 20, &Value::Null));
    let stored = number(&exported, "stored_bytes");
    assert!(
        stored < number(&exported, "data_bytes") && number(&exported, "data_bytes") <= 18 << 20,
        "{exported}"
    );
    let imported = cdp!("import", far, sets[0], "--verify", "--json").succeeds().json();
    assert_eq!((number(&imported, "origin_seq"), &imported["resumed"]), (1, &Value::Bool(false)));
    assert_is(&scene, &far, "disk", &image);
    // The next one, once the original has gone on, with nothing but what was written.
    let first = newest(&scene.store);
    let changed = go_on(&scene, &image, &mut random, 200);
    let second = newest(&scene.store);
    let middle = scene.path("middle.img");
    fs::copy(&image, &middle).unwrap();
    let since = format!("seq:{first}");
    let export = |at: &str, since: &str, to: &Path| {
        cdp!("export", scene.store, "--at", at, "--since", since, "--to", to, "--json")
    };
    let exported = export("latest", &since, &sets[1]).succeeds().json();
    assert!(
        number(&exported, "data_bytes") <= changed
            && number(&exported, "stored_bytes") < changed * 11 / 10 + 8192
    );
    go_on(&scene, &image, &mut random, 100);
    export("latest", &format!("seq:{second}"), &sets[2]).succeeds();
    let before = newest(&far);
    cdp!("import", far, sets[2]).exits(1).says("is not in that state: it is in the state of seq:1;");
    cdp!("import", far, sets[0], "--volume", "elsewhere").succeeds();
    assert_is(&scene, &far, "elsewhere", &scene_image_at(&scene, &since));
    assert!(newest(&far) >= before);
    let imported = cdp!("import", far, sets[1], "--json").succeeds().json();
    assert!(
        number(&imported, "bytes_compared") <= changed * 2
            && number(&imported, "bytes_transferred") <= changed
    );
    assert_is(&scene, &far, "disk", &middle);
    cdp!("import", far, sets[1]).succeeds().says("had ended");
    cdp!("import", far, sets[2]).succeeds();
    assert_is(&scene, &far, "disk", &image);
    // Another way on: the volume is a seed for a resync with the source itself.
    let differs = go_on(&scene, &image, &mut random, 50);
    let resynced = cdp!("resync", far, "--volume", "disk", "--source", image, "--json").succeeds().json();
    assert!(number(&resynced, "bytes_transferred") <= differs, "{resynced}");
    cdp!("import", far, sets[2]).exits(1).says("it was imported or compared from something else");
    cdp!("import", scene.path("new"), sets[1]).exits(1).says("import a whole set first");
    assert!(!scene.path("new").exists());
    cdp!("check", far, "--deep").succeeds();
}

fn scene_image_at(scene: &Scene, point: &str) -> PathBuf {
    let path = scene.path("at.img");
    cdp!("restore", scene.store, "--at", point, "--to", path, "--force").succeeds();
    path
}

/// Goal: wrong use and harmed sets end with their exit codes, nothing that is not a set is touched, and an import that met the harm goes on when it is mended. Method: bits flipped
/// all over the files, each with a new import; directories of something else; points that cannot be opened.
#[test]
fn harmed_sets_and_wrong_places_are_refused() {
    let (scene, image, mut random) = original("harmed_sets", 6 << 20);
    let set = scene.path("set");
    cdp!("export", scene.store, "--at", "latest", "--to", scene.store).exits(1);
    scene.assert_sound();
    let other = scene.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes.txt"), b"mine").unwrap();
    cdp!("export", scene.store, "--at", "latest", "--to", other).exits(1).says("not empty");
    cdp!("export", scene.store, "--at", "seq:99", "--to", set).exits(4);
    cdp!("export", scene.store, "--at", "latest", "--to", set, "--file-size", "1M")
        .exits(1)
        .says("data files");
    cdp!("import", scene.path("far"), other).exits(1).says("does not exist");
    cdp!("export", scene.store, "--at", "latest", "--to", set).succeeds();
    cdp!("export", scene.store, "--at", "latest", "--to", set, "--no-compress").succeeds();
    cdp!("export", scene.store, "--at", "seq:0", "--to", set).exits_with_one_of(&[1, 4]);
    let mut imports = (0..).map(|number| scene.path(&format!("far-{number}")));
    let mut names: Vec<PathBuf> = fs::read_dir(&set).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    // The plan is not read any more.
    for path in names.iter().skip(1) {
        for _ in 0..if is_full() { 100 } else { 4 } {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            let at = random.below(file.metadata().unwrap().len());
            let (mut byte, bit) = ([0], random.below(8));
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
            // A new one each time: one that goes on does not read again what it has taken over.
            let far = imports.next().unwrap();
            cdp!("import", far, set, "--verify").exits(3);
            cdp!("import", far, set).exits(3);
            file.write_all_at(&byte, at).unwrap();
            drop(file);
            cdp!("import", far, set).succeeds();
            assert_is(&scene, &far, "disk", &image);
        }
    }
}

/// Starts a command and kills it after some milliseconds. Returns whether it had not ended by itself.
fn killed(arguments: &[&Path], options: &[&str], after: Duration) -> bool {
    let mut child = cdp_command();
    child.args(arguments).args(options).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

/// Goal: an export and an import that are killed at any moment go on where they were, repeat no more than one file or a few seconds of work, and end with the very volume.
/// Method: kill -9 at random moments, again and again; the figures of the last run.
#[test]
fn killed_exports_and_imports_go_on() {
    let bytes: u64 = if is_full() { 2 << 30 } else { 96 << 20 };
    let (scene, image, mut random) = original("killed_exports_and_imports", bytes);
    let (set, far) = (scene.path("set"), scene.path("far"));
    let rounds = if is_full() { 50 } else { 5 };
    let (command, at) =
        (Path::new("export"), ["--at", "latest", "--file-size", "4M", "--to", set.to_str().unwrap()]);
    let mut kills = 0;
    for _ in 0..rounds {
        let after = Duration::from_millis(20 + random.below(150));
        kills += u64::from(killed(&[command, &scene.store], &at, after));
    }
    let exported = cdp!("export", scene.store, "--at", "latest", "--file-size", "4M", "--to", set, "--json");
    let exported = exported.succeeds().json();
    assert!(kills > 0 && exported["resumed"] == true, "{kills} kills: {exported}");
    let rate = if is_full() { "100M" } else { "24M" };
    // A store is made first, so that no kill falls into that.
    cdp!("create", far, "--size", bytes.to_string(), "--volume", "disk").succeeds();
    let mut kills = 0;
    for _ in 0..rounds {
        let after = Duration::from_millis(900 + random.below(900));
        kills += u64::from(killed(&[Path::new("import"), &far, &set], &["--rate", rate], after));
        cdp!("check", far).succeeds();
    }
    let imported = cdp!("import", far, set, "--json").succeeds().json();
    assert!(kills > 0 && imported["resumed"] == true, "{kills} kills: {imported}");
    // What the last run compared, and not what all of them did: it began far behind the beginning.
    assert!(number(&imported, "bytes_compared") < bytes * 9 / 10, "{imported}");
    assert_is(&scene, &far, "disk", &image);
    assert_eq!(number(&cdp!("import", far, set, "--json").succeeds().json(), "bytes_compared"), 0);
}
