//! Several volumes in one store: names, listing, shared numbering, and points before a volume existed.

use crate::support::{Op, Random, Scene, Shape, Trace, cdp, times::START, times::time_in};

/// Goal: names as the contract allows, and no others. Method: edges of length and alphabet.
#[test]
fn volume_names_follow_the_contract() {
    let scene = Scene::new(&[("disk", 1 << 20)]);
    let longest = "n".repeat(128);
    for name in ["a", "A.b_c-9", "..x", longest.as_str()] {
        cdp!("volume", "add", scene.store, name, "--size", "64K").succeeds();
    }
    let too_long = "n".repeat(129);
    for name in ["", "a/b", "a b", "ü", "a:b", "a\nb", too_long.as_str()] {
        cdp!("volume", "add", scene.store, name, "--size", "64K").exits_with_one_of(&[1, 2]);
    }
    cdp!("volume", "add", scene.store, "disk", "--size", "64K").exits(1);
    let points = scene.points();
    let names: Vec<_> =
        points["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["disk", "a", "A.b_c-9", "..x", longest.as_str()], "in the order of their making");
}

/// Goal: `volume list` names every volume with its size. Method: both outputs.
#[test]
fn volumes_are_listed() {
    let scene = Scene::new(&[("disk", 1 << 20), ("logs", 5 << 20)]);
    let text = cdp!("volume", "list", scene.store).succeeds().stdout;
    assert!(text.contains("disk") && text.contains("logs"), "the list is: {text}");
    let json = cdp!("volume", "list", scene.store, "--json").succeeds().json();
    let listed = json.as_array().or_else(|| json["volumes"].as_array()).expect("a list of volumes");
    let pairs: Vec<_> =
        listed.iter().map(|v| (v["name"].as_str().unwrap(), v["size"].as_u64().unwrap())).collect();
    assert_eq!(pairs, [("disk", 1 << 20), ("logs", 5 << 20)]);
}

/// Goal: all volumes share one numbering, and each point is one cut of all of them.
/// Method: a random trace over three volumes of odd sizes; every volume at random seqs against the oracle.
#[test]
fn every_seq_is_one_cut_of_all_volumes() {
    let mut random = Random::for_test("every_seq_is_one_cut_of_all_volumes");
    let volumes = [("disk", 2 << 20), ("logs", (1 << 20) + 512), ("tiny", 1536)];
    let mut scene = Scene::new(&volumes);
    let mut shape = Shape::mixed(0, 400);
    shape.volumes = volumes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
    scene.replay(&shape.generate(&mut random));
    for _ in 0..15 {
        let seq = random.between(0, scene.oracle.newest());
        for (name, _) in volumes {
            scene.assert_restores(&format!("seq:{seq}"), name, seq);
        }
    }
}

/// Goal: without `--volume` the first volume is meant. Method: different writes on two; restore without naming one.
#[test]
fn the_first_volume_is_the_default() {
    let mut scene = Scene::new(&[("first", 64 << 10), ("second", 128 << 10)]);
    let mut trace = Trace::default();
    trace.write(START, "first", 0, 4096);
    trace.write(START, "second", 4096, 4096);
    scene.replay(&trace);
    let target = scene.path("image");
    cdp!("restore", scene.store, "--at", "latest", "--to", target).succeeds();
    scene.oracle.image("first", 2).assert_equals_file(&target, "default volume");
    cdp!("restore", scene.store, "--at", "latest", "--to", target, "--volume", "third", "--force").exits(1);
}

/// Goal: a volume exists from the seq at which it was added, and takes none itself.
/// Method: add one between two traces; the points on both sides of its making.
#[test]
fn a_point_before_the_volume_existed_exits_with_4() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    let mut trace = Trace::default();
    for number in 0..10 {
        trace.write(START + number * 1000, "disk", number * 512, 512);
    }
    scene.replay(&trace);
    cdp!("volume", "add", scene.store, "late", "--size", "64K").succeeds();
    scene.oracle.add_volume("late", 64 << 10);
    assert_eq!(scene.newest(), 10, "adding a volume took a seq");
    let mut trace = Trace::default();
    trace.write(START + 20_000, "late", 0, 1024);
    trace.push(START + 20_000, "late", Op::Zero { offset: 0, length: 512 });
    scene.replay(&trace);
    scene.assert_unavailable("seq:9", "late").says("10");
    scene.assert_unavailable("seq:0", "late");
    scene.assert_unavailable("time:2026-01-01T00:00:00.000005Z", "late");
    scene.assert_restores("seq:10", "late", 10);
    scene.assert_restores("seq:11", "late", 11);
    scene.assert_restores("seq:9", "disk", 9);
}

/// Goal: changes of metadata do not move the clock: a trace older than the store's making is accepted, once.
/// Method: bookmarks and volumes first, then a trace of the year 2001; then one that starts before its end.
#[test]
fn the_first_write_sets_the_clock() {
    let mut scene = Scene::new(&[("disk", 64 << 10), ("more", 64 << 10)]);
    cdp!("bookmark", "add", scene.store, "empty").succeeds();
    let old = 978_307_200_000_000_000;
    let mut trace = Trace::default();
    trace.write(old, "disk", 0, 512);
    trace.write(old + 5, "more", 0, 512);
    scene.replay(&trace);
    assert_eq!(time_in(&scene.points()["newest"]["time"]), old + 5);
    cdp!("volume", "add", scene.store, "later", "--size", "64K").succeeds();
    cdp!("bookmark", "add", scene.store, "after").succeeds();
    let mut next = Trace::default();
    next.write(old + 5, "disk", 512, 512);
    scene.replay(&next);
}
