//! Restore: targets, refusals, sparse files.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::times::START;
use crate::support::{Scene, Trace, cdp, files};

fn scene_with_three_states() -> Scene {
    let mut scene = Scene::new(&[("disk", 8 << 20)]);
    let mut trace = Trace::default();
    trace.write(START, "disk", 0, 64 << 10);
    trace.write(START + 1, "disk", 4 << 20, 64 << 10);
    trace.write(START + 2, "disk", 32 << 10, 4096);
    scene.replay(&trace);
    scene
}

/// Goal: an existing file is never lost by mistake. Method: restore onto it without a word; content and facts remain.
#[test]
fn an_existing_target_is_refused() {
    let scene = scene_with_three_states();
    let target = scene.path("image");
    fs::write(&target, "precious").unwrap();
    cdp!("restore", scene.store, "--at", "latest", "--to", target).exits(1);
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

/// Goal: `--force` replaces whatever was there. Method: a longer and a shorter file before.
#[test]
fn force_replaces_the_target() {
    let scene = scene_with_three_states();
    let target = scene.path("image");
    for old_length in [100, 9 << 20] {
        fs::write(&target, vec![0xEE; old_length]).unwrap();
        cdp!("restore", scene.store, "--at", "seq:2", "--to", target, "--force").succeeds();
        scene.oracle.image("disk", 2).assert_equals_file(&target, "--force");
    }
}

/// Goal: `--onto` makes the same file equal by writing only what differs. Method: from another state, with stray bytes
/// in what must be zero; the inode stays, and nothing is written when it is already equal.
#[test]
fn onto_writes_only_what_differs() {
    let scene = scene_with_three_states();
    let target = scene.path("image");
    cdp!("restore", scene.store, "--at", "seq:3", "--to", target).succeeds();
    let inode = fs::metadata(&target).unwrap().ino();
    let file = fs::OpenOptions::new().write(true).open(&target).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"stray", 6 << 20).unwrap();
    drop(file);
    for seq in [1, 2, 3, 0] {
        cdp!("restore", scene.store, "--at", format!("seq:{seq}"), "--to", target, "--onto").succeeds();
        scene.oracle.image("disk", seq).assert_equals_file(&target, "--onto");
        assert_eq!(fs::metadata(&target).unwrap().ino(), inode, "--onto replaced the file");
    }
    let modified = fs::metadata(&target).unwrap().modified().unwrap();
    cdp!("restore", scene.store, "--at", "seq:0", "--to", target, "--onto").succeeds();
    assert_eq!(
        fs::metadata(&target).unwrap().modified().unwrap(),
        modified,
        "equal content was written again"
    );
}

/// Goal: a restored image is sparse. Method: 128 KiB of data in 4 GiB; its length is whole, its allocation is not.
#[test]
fn a_restored_image_is_sparse() {
    let mut scene = Scene::new(&[("disk", 2 << 30)]);
    let mut trace = Trace::default();
    trace.write(START, "disk", 1 << 30, 64 << 10);
    trace.write(START, "disk", (3 << 29) + 512, 64 << 10);
    trace.push(START, "disk", crate::support::Op::Zero { offset: 0, length: 1 << 29 });
    scene.replay(&trace);
    let target = scene.path("image");
    cdp!("restore", scene.store, "--at", "latest", "--to", target).succeeds();
    assert_eq!(fs::metadata(&target).unwrap().len(), 2 << 30);
    let allocated = files::allocated_bytes(&target);
    assert!(allocated <= 1 << 20, "{allocated} bytes allocated for 128 KiB of data");
    scene.oracle.image("disk", 3).assert_equals_file(&target, "sparse");
}

/// Goal: a target that cannot be made is a clear failure. Method: a missing directory, and a directory as target.
#[test]
fn an_impossible_target_exits_with_1() {
    let scene = scene_with_three_states();
    cdp!("restore", scene.store, "--at", "latest", "--to", scene.path("missing/image")).exits(1);
    cdp!("restore", scene.store, "--at", "latest", "--to", scene.root()).exits(1);
    cdp!("restore", scene.store, "--at", "latest", "--to", scene.root(), "--force").exits(1);
    assert!(scene.store.exists());
}

/// Goal: a refused point does not cost the file that was there, not even with `--force` or `--onto`.
/// Method: a point in the future over an existing file.
#[test]
fn a_refused_point_leaves_an_existing_target_alone() {
    let scene = scene_with_three_states();
    let target = scene.path("image");
    fs::write(&target, "precious").unwrap();
    for option in ["--force", "--onto"] {
        cdp!("restore", scene.store, "--at", "seq:99", "--to", target, option).exits(4);
        assert_eq!(fs::read(&target).unwrap(), b"precious", "{option}");
    }
}
