//! The long history: 200,000 writes, about 8 GB over 4 GiB, in bounded memory.

use crate::support::times::format_time;
use crate::support::{Random, Scene, Shape, cdp};

/// No process of the tool may be larger.
const RESIDENT_MOST_KIB: u64 = 256 << 10;

/// Goal: any point of a long history restores byte for byte, and no process takes 256 MiB.
/// Method: a log-uniform trace of 512 B to 256 KiB; fifty random seqs and times; the kernel's high-water marks.
#[test]
#[ignore = "takes many minutes and 20 GB of disk; run by .ci/nightly"]
fn two_hundred_thousand_writes_restore_at_random_points() {
    let mut random = Random::for_test("two_hundred_thousand_writes_restore_at_random_points");
    let bytes = 4 << 30;
    let mut scene = Scene::new(&[("disk", bytes)]);
    let mut shape = Shape::mixed(bytes, 200_000);
    shape.write_most = 256 << 10;
    (shape.zero_percent, shape.discard_percent, shape.flush_percent, shape.bookmark_percent) = (0, 0, 0, 0);
    let trace = shape.generate(&mut random);
    let file = scene.path("trace.csv");
    trace.save(&file);
    println!("{} bytes in {} writes", trace.written_bytes(), trace.counted());
    let replay = cdp!("replay", scene.store, file, "--fill", "stamp", "--json").succeeds();
    println!("replay: {} KiB, {}", replay.peak_resident_kib, replay.stdout.trim());
    assert!(replay.peak_resident_kib < RESIDENT_MOST_KIB, "replay took {} KiB", replay.peak_resident_kib);
    scene.oracle.replay(&trace, None);
    drop(trace);
    let newest = scene.oracle.newest();
    assert_eq!(scene.newest(), newest);
    let target = scene.path("restored.img");
    let mut largest = 0;
    for round in 0..50 {
        let mut seq = random.between(0, newest);
        let mut point = format!("seq:{seq}");
        if round % 2 == 1 {
            let time = scene.oracle.time_of(random.between(1, newest)) + random.below(2);
            let time = time.min(scene.oracle.time_of(newest));
            (seq, point) = (scene.oracle.seq_at(time), format!("time:{}", format_time(time)));
        }
        let ran = cdp!("restore", scene.store, "--at", point, "--to", target, "--force").succeeds();
        scene.oracle.image("disk", seq).assert_equals_file(&target, &point);
        largest = largest.max(ran.peak_resident_kib);
        assert!(ran.peak_resident_kib < RESIDENT_MOST_KIB, "restore took {} KiB", ran.peak_resident_kib);
    }
    println!("restores: at most {largest} KiB");
    std::fs::remove_file(&target).unwrap();
    for ran in [
        cdp!("check", scene.store, "--deep", "--json").succeeds(),
        cdp!("points", scene.store, "--json").succeeds(),
        cdp!("stat", scene.store, "--json").succeeds(),
        cdp!("diff", scene.store, "--from", "seq:0", "--to", "latest", "--json").succeeds(),
    ] {
        println!("{}: {} KiB", ran.line, ran.peak_resident_kib);
        assert!(ran.peak_resident_kib < RESIDENT_MOST_KIB, "{} took {} KiB", ran.line, ran.peak_resident_kib);
    }
}
