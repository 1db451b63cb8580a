//! `diff` against the oracle: everything that changed is named, and nothing that was not written.

use serde_json::Value;

use crate::support::oracle::merged;
use crate::support::{Random, Scene, Shape, cdp};

fn extents(report: &Value) -> Vec<(u64, u64)> {
    let list = report["extents"].as_array().expect("extents is a list").iter();
    let number = |extent: &Value, name: &str| extent[name].as_u64().expect("a number");
    list.map(|extent| (number(extent, "offset"), number(extent, "offset") + number(extent, "length")))
        .collect()
}

/// Whether every range of `inner` lies inside one of the merged ranges `outer`.
fn covers(outer: &[(u64, u64)], inner: &[(u64, u64)]) -> bool {
    let inside = |range: &(u64, u64)| outer.iter().any(|whole| whole.0 <= range.0 && range.1 <= whole.1);
    inner.iter().all(inside)
}

/// Goal: ranges are ascending and merged, cover all that differs, and lie in what was written, rounded out to 4 KiB.
/// Method: random pairs of points of a random history over two volumes, one not a multiple of 4 KiB.
#[test]
fn diff_names_what_was_written_between_two_points() {
    let mut random = Random::for_test("diff_names_what_was_written_between_two_points");
    let volumes = [("disk", (3 << 20) + 1536), ("logs", 1 << 20)];
    let mut scene = Scene::new(&volumes);
    let mut shape = Shape::mixed(0, 300);
    shape.volumes = volumes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
    shape.write_most = 16 << 10;
    scene.replay(&shape.generate(&mut random));
    let newest = scene.oracle.newest();
    for round in 0..40 {
        let to = random.between(0, newest);
        // Short distances find wrong edges, long ones find wrong merging.
        let from = if round % 2 == 0 { to - random.below(to.min(5) + 1) } else { random.between(0, to) };
        for (volume, bytes) in volumes {
            let (low, high) = (format!("seq:{from}"), format!("seq:{to}"));
            let ran = cdp!("diff", scene.store, "--from", low, "--to", high, "--volume", volume, "--json")
                .succeeds();
            let report = ran.json();
            let found = extents(&report);
            assert_eq!((report["from_seq"].as_u64(), report["to_seq"].as_u64()), (Some(from), Some(to)));
            assert_eq!(
                report["bytes"].as_u64().unwrap(),
                found.iter().map(|(start, end)| end - start).sum::<u64>()
            );
            assert!(
                found.iter().all(|(start, end)| start < end && *end <= bytes),
                "impossible extents: {report}"
            );
            assert_eq!(merged(found.clone()), found, "not ascending and merged: {report}");
            let differing = scene.oracle.image(volume, from).differing(&scene.oracle.image(volume, to));
            assert!(
                covers(&found, &differing),
                "{volume} ({from}, {to}]: {differing:?} differ, reported: {found:?}"
            );
            let written = scene.oracle.touched(volume, from, to, 4096);
            assert!(
                covers(&written, &found),
                "{volume} ({from}, {to}]: written {written:?}, reported: {found:?}"
            );
        }
    }
}

/// Goal: equal points have no difference; points in the wrong order or missing are refused. Method: the exit codes.
#[test]
fn diff_of_equal_and_impossible_points() {
    let mut random = Random::for_test("diff_of_equal_and_impossible_points");
    let mut scene = Scene::new(&[("disk", 1 << 20)]);
    let mut shape = Shape::mixed(1 << 20, 50);
    shape.bookmark_percent = 0;
    scene.replay(&shape.generate(&mut random));
    let report = cdp!("diff", scene.store, "--from", "seq:7", "--to", "seq:7", "--json").succeeds().json();
    assert_eq!(report, serde_json::json!({"from_seq": 7, "to_seq": 7, "bytes": 0, "extents": []}));
    cdp!("diff", scene.store, "--from", "seq:7", "--to", "seq:3").exits_with_one_of(&[1, 2]);
    cdp!("diff", scene.store, "--from", "seq:0", "--to", "seq:1000").exits(4);
    cdp!("diff", scene.store, "--from", "bookmark:none", "--to", "latest").exits(4);
    cdp!("diff", scene.store, "--from", "oldest", "--to", "latest", "--volume", "none").exits(1);
}

/// Goal: a consumer that copies the reported extents gets the newer image. Method: apply them to a restored image.
#[test]
fn applying_the_extents_of_a_diff_gives_the_newer_image() {
    use std::os::unix::fs::FileExt;
    let mut random = Random::for_test("applying_the_extents_of_a_diff_gives_the_newer_image");
    let mut scene = Scene::new(&[("disk", 2 << 20)]);
    scene.replay(&Shape::mixed(2 << 20, 200).generate(&mut random));
    let newest = scene.oracle.newest();
    let (old, new) = (scene.path("old.img"), scene.path("new.img"));
    for _ in 0..10 {
        let to = random.between(0, newest);
        let from = random.between(0, to);
        let (low, high) = (format!("seq:{from}"), format!("seq:{to}"));
        cdp!("restore", scene.store, "--at", low, "--to", old, "--force").succeeds();
        cdp!("restore", scene.store, "--at", high, "--to", new, "--force").succeeds();
        let report = cdp!("diff", scene.store, "--from", low, "--to", high, "--json").succeeds().json();
        let source = std::fs::File::open(&new).unwrap();
        let target = std::fs::OpenOptions::new().write(true).open(&old).unwrap();
        for (start, end) in extents(&report) {
            let mut bytes = vec![0; crate::support::index(end - start)];
            source.read_exact_at(&mut bytes, start).unwrap();
            target.write_all_at(&bytes, start).unwrap();
        }
        scene.oracle.image("disk", to).assert_equals_file(&old, &format!("seq {from} with the diff to {to}"));
    }
}
