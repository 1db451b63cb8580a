//! Readers never write to the store, and a copy of an idle store is a store.

use std::thread;
use std::time::Duration;

use crate::support::command::cdp_command;
use crate::support::times::START;
use crate::support::{Random, Scene, Shape, Trace, cdp, files};

fn scene_with_history(random: &mut Random) -> Scene {
    let mut scene = Scene::new(&[("disk", 4 << 20), ("logs", 1 << 20)]);
    let mut shape = Shape::mixed(0, 300);
    shape.volumes = vec![("disk".to_owned(), 4 << 20), ("logs".to_owned(), 1 << 20)];
    scene.replay(&shape.generate(random));
    cdp!("bookmark", "add", scene.store, "kept").succeeds();
    scene
}

#[track_caller]
fn assert_readers_change_nothing(scene: &Scene) {
    let before = files::states(&scene.store);
    let store = &scene.store;
    cdp!("points", store, "--json").succeeds();
    cdp!("points", store).succeeds();
    cdp!("restore", store, "--at", "latest", "--to", scene.path("reader.img"), "--force").succeeds();
    cdp!("restore", store, "--at", "seq:999999999", "--to", scene.path("none.img")).exits(4);
    cdp!("diff", store, "--from", "oldest", "--to", "latest").succeeds();
    cdp!("check", store).succeeds();
    cdp!("check", store, "--deep", "--json").succeeds();
    cdp!("stat", store).succeeds();
    cdp!("bookmark", "list", store).succeeds();
    cdp!("volume", "list", store).succeeds();
    assert_eq!(files::states(store), before, "a reader changed the store");
}

/// Goal: readers leave every file of a cleanly closed store as it was. Method: names, lengths, modification times,
/// inodes and contents before and after each reading command.
#[test]
fn readers_do_not_write_to_an_idle_store() {
    let mut random = Random::for_test("readers_do_not_write_to_an_idle_store");
    assert_readers_change_nothing(&scene_with_history(&mut random));
}

/// Goal: the recovery that a reader needs after a crash is done in memory. Method: kill a replay, then as above.
#[test]
fn readers_do_not_write_to_a_crashed_store() {
    let mut random = Random::for_test("readers_do_not_write_to_a_crashed_store");
    let mut scene = scene_with_history(&mut random);
    let mut shape = Shape::mixed(4 << 20, 20_000);
    (shape.bookmark_percent, shape.start) = (0, scene.oracle.time_of(scene.oracle.newest()));
    let trace = shape.generate(&mut random);
    let file = scene.path("long.csv");
    trace.save(&file);
    let mut command = cdp_command();
    let mut child =
        command.arg("replay").arg(&scene.store).arg(&file).args(["--fill", "stamp"]).spawn().unwrap();
    thread::sleep(Duration::from_millis(random.between(20, 150)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_readers_change_nothing(&scene);
    scene.oracle.replay(&trace, None);
    let newest = scene.newest();
    scene.assert_restores("latest", "disk", newest);
}

/// Goal: a reader needs no right to write. Method: the same commands on a store whose files and directory are
/// read-only; as root this shows only that no command minds.
#[test]
fn readers_work_on_a_read_only_store() {
    use std::os::unix::fs::PermissionsExt;
    let mut random = Random::for_test("readers_work_on_a_read_only_store");
    let scene = scene_with_history(&mut random);
    let set = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let paths = files::regular_files(&scene.store);
    for path in &paths {
        set(&scene.store.join(path), 0o444);
    }
    set(&scene.store, 0o555);
    assert_readers_change_nothing(&scene);
    set(&scene.store, 0o755);
}

/// Goal: a store is regular files only, and a copy of an idle one is a store of its own.
/// Method: `cp`, write different things to both, compare each with its own history.
#[test]
fn a_copy_of_an_idle_store_is_a_store() {
    let mut random = Random::for_test("a_copy_of_an_idle_store_is_a_store");
    let mut scene = scene_with_history(&mut random);
    let copy = scene.path("copy");
    files::copy_directory(&scene.store, &copy);
    let newest = scene.oracle.newest();
    let start = scene.oracle.time_of(newest);
    let mut trace = Trace::default();
    trace.write(start, "disk", 0, 8192);
    scene.replay(&trace);
    scene.assert_restores("latest", "disk", newest + 1);
    let original = std::mem::replace(&mut scene.store, copy);
    scene.assert_restores("latest", "disk", newest);
    scene.assert_restores("bookmark:kept", "logs", newest);
    let mut other = Trace::default();
    other.write(start + 3, "disk", 4096, 8192);
    let file = scene.path("other.csv");
    other.save(&file);
    cdp!("replay", scene.store, file, "--fill", "stamp").succeeds();
    scene.assert_sound();
    scene.store = original;
    scene.assert_sound();
    scene.assert_restores("latest", "disk", newest + 1);
}

/// Goal: reading is possible while another process owns the store. Method: `points` and `restore` during a long
/// replay; what they show is an exact state of the trace.
#[test]
fn readers_work_beside_an_owner() {
    let mut random = Random::for_test("readers_work_beside_an_owner");
    let mut scene = Scene::new(&[("disk", 4 << 20)]);
    let mut shape = Shape::mixed(4 << 20, 40_000);
    (shape.bookmark_percent, shape.start) = (0, START);
    let trace = shape.generate(&mut random);
    let file = scene.path("long.csv");
    trace.save(&file);
    let mut command = cdp_command();
    command
        .arg("replay")
        .arg(&scene.store)
        .arg(&file)
        .args(["--fill", "stamp"])
        .stdout(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    scene.oracle.replay(&trace, None);
    let mut seen = 0;
    while child.try_wait().unwrap().is_none() {
        let newest = scene.newest();
        assert!(newest >= seen, "the newest seq went back from {seen} to {newest}");
        seen = newest;
        let seq = random.between(0, newest);
        scene.assert_restores(&format!("seq:{seq}"), "disk", seq);
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(scene.newest(), scene.oracle.newest());
    scene.assert_sound();
}
