//! Scrub: what rotted in a store is found, written anew where a source still has it, and stays refused where none has.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use crate::support::times::START;
use crate::support::trace::Line;
use crate::support::{Op, Random, Scene, Trace, cdp, files, index, scaled};

const DISK_BYTES: u64 = 4 << 20;
const BLOCK: u64 = 4096;
const BLOCKS: u64 = DISK_BYTES / BLOCK;

/// Each block written by one line after the other, some of them twice: whole blocks, each with content of its own.
fn history(random: &mut Random) -> Trace {
    let mut trace = Trace::default();
    for (line, block) in (0..BLOCKS).chain((0..BLOCKS / 4).map(|_| random.below(BLOCKS))).enumerate() {
        trace.write(START + line as u64 * 1_000_000, "disk", block * BLOCK, BLOCK);
    }
    trace
}

/// The block that a line of it writes.
fn block_of(line: &Line) -> u64 {
    match line.op {
        Op::Write { offset, .. } => offset / BLOCK,
        _ => panic!("the history has writes only"),
    }
}

/// What a line of a trace fills a block with.
fn content(block: u64, line: u64) -> Vec<u8> {
    let words = (0..BLOCK / 16).flat_map(|at| [block * BLOCK + at * 16, line]);
    words.flat_map(u64::to_le_bytes).collect()
}

/// Changes a byte of the content that a line wrote to a block, wherever the store has it.
#[track_caller]
fn rot(store: &Path, block: u64, line: u64, at: usize) {
    let wanted = content(block, line);
    for file in files::regular_files(store) {
        let path = store.join(file);
        let bytes = fs::read(&path).expect("read a file of the store");
        let found = bytes.chunks(512).position(|sector| *sector == wanted[..512]);
        if let Some(sector) = found
            && bytes[sector * 512..].starts_with(&wanted)
        {
            let place = sector * 512 + at;
            let file = OpenOptions::new().write(true).open(&path).expect("open a file of the store");
            file.write_all_at(&[bytes[place] ^ 0x10], place as u64).expect("damage it");
            return;
        }
    }
    panic!("block {block} of line {line} is nowhere in the store");
}

fn scrub(scene: &Scene, source: Option<&Path>, exit: i32) -> Value {
    let ran = match source {
        Some(source) => cdp!("scrub", scene.store, "--source", source, "--json"),
        None => cdp!("scrub", scene.store, "--json"),
    };
    ran.exits(exit).json()
}

fn count(report: &Value, key: &str) -> usize {
    report[key].as_array().unwrap_or_else(|| panic!("{key} of {report}")).len()
}

/// Goal: bit rot is found, repaired from a source that has the content, and all points are exact again; what only older states had stays
/// damaged, and comes back from a source that is such a state. Method: bytes changed in blocks of the newest state, and in blocks that
/// were overwritten since; a scrub without a source, with the newest image, and with an older one.
#[test]
fn a_scrub_repairs_what_a_source_has() {
    let mut random = Random::for_test("a_scrub_repairs_what_a_source_has");
    let mut scene = Scene::new(&[("disk", DISK_BYTES)]);
    let trace = history(&mut random);
    scene.replay(&trace);
    let newest = scene.oracle.newest();
    let blocks: Vec<u64> = trace.lines.iter().map(block_of).collect();
    let writer = |block: u64, upto: u64| {
        let lines = blocks.iter().zip(1_u64..).filter(|(of, line)| **of == block && *line <= upto);
        lines.map(|(_, line)| line).last()
    };
    let (image, older) = (scene.path("newest.img"), scene.path("older.img"));
    cdp!("restore", scene.store, "--at", "latest", "--to", image).succeeds();
    cdp!("restore", scene.store, "--at", format!("seq:{BLOCKS}"), "--to", older).succeeds();
    assert_eq!(count(&scrub(&scene, Some(&image), 0), "found"), 0);

    let overwritten: Vec<u64> =
        (0..BLOCKS).filter(|block| writer(*block, newest) > writer(*block, BLOCKS)).collect();
    let (mut now, mut then) = (Vec::new(), Vec::new());
    for _ in 0..scaled(6, 60) {
        let block = random.below(BLOCKS);
        if !now.contains(&block) {
            now.push(block);
            rot(&scene.store, block, writer(block, newest).expect("written"), 1 + index(random.below(4000)));
        }
        let block = overwritten[index(random.below(overwritten.len() as u64))];
        if !then.contains(&block) {
            then.push(block);
            rot(&scene.store, block, writer(block, BLOCKS).expect("written"), 1 + index(random.below(4000)));
        }
    }
    cdp!("restore", scene.store, "--at", "latest", "--to", scene.path("refused.img")).exits(3);
    let found = scrub(&scene, None, 3);
    assert_eq!(found["versions_repaired"], 0);
    assert_eq!(found["damaged"], found["found"]);
    // Held to a rate they find the same.
    assert_eq!(cdp!("scrub", scene.store, "--rate", "64M", "--json").exits(3).json(), found);
    let checked = cdp!("check", scene.store, "--deep", "--rate", "64M", "--json").exits(3).json();
    assert_eq!(checked["damaged"], found["found"]);

    let repaired = scrub(&scene, Some(&image), 3);
    assert_eq!(repaired["versions_repaired"], now.len(), "{repaired}");
    assert_eq!(repaired["bytes_repaired"], now.len() as u64 * BLOCK);
    assert_eq!(repaired["versions_lost"], then.len(), "{repaired}");
    assert!(count(&repaired, "damaged") > 0);
    scene.assert_restores("latest", "disk", newest);
    cdp!("restore", scene.store, "--at", format!("seq:{BLOCKS}"), "--to", scene.path("refused.img")).exits(3);

    let rest = scrub(&scene, Some(&older), 0);
    assert_eq!(
        (&rest["versions_repaired"], count(&rest, "damaged")),
        (&Value::from(then.len()), 0),
        "{rest}"
    );
    scene.assert_sound();
    for seq in [1, BLOCKS / 2, BLOCKS, BLOCKS + 7, newest - 1, newest] {
        scene.assert_restores(&format!("seq:{seq}"), "disk", seq);
    }
}

/// Goal: a store is repaired from a mirror set of the same volume, also when one of its copies is gone. Method: the trace of the store
/// written to a set of two copies; a damaged store; one copy offline.
#[test]
fn a_mirror_set_is_a_source() {
    let mut random = Random::for_test("a_mirror_set_is_a_source");
    let mut scene = Scene::new(&[("disk", DISK_BYTES)]);
    let trace = history(&mut random);
    scene.replay(&trace);
    let (set, file) = (scene.path("set"), scene.path("set.csv"));
    trace.save(&file);
    cdp!("mirror", "create", set, "--size", DISK_BYTES.to_string(), scene.path("a.img"), scene.path("b.img"))
        .succeeds();
    cdp!("mirror", "write", set, file, "--fill", "stamp").succeeds();
    cdp!("mirror", "offline", set, "0").succeeds();
    let last = block_of(trace.lines.last().expect("a line"));
    rot(&scene.store, last, scene.oracle.newest(), 1234);
    let repaired = scrub(&scene, Some(&set), 0);
    assert_eq!(repaired["versions_repaired"], 1, "{repaired}");
    scene.assert_sound();
    scene.assert_restores("latest", "disk", scene.oracle.newest());
    let verified = cdp!("verify", scene.store, "--source", set, "--json").succeeds().json();
    assert_eq!(verified["bytes_different"], 0);
}

/// Goal: a source or volume that does not fit is refused with what to do. Method: an image of another size, none, a volume and a store that are not there.
#[test]
fn a_scrub_is_refused_with_a_reason() {
    let mut scene = Scene::new(&[("disk", DISK_BYTES)]);
    scene.replay(&history(&mut Random::for_test("a_scrub_is_refused_with_a_reason")));
    let small = scene.path("small.img");
    fs::write(&small, vec![0; 8192]).expect("write an image");
    cdp!("scrub", scene.store, "--source", small).exits(1).says("volume resize");
    cdp!("scrub", scene.store, "--source", scene.path("missing.img")).exits(1).says("missing.img");
    cdp!("scrub", scene.store, "--volume", "other").exits(1).says("other");
    cdp!("scrub", scene.path("nowhere")).exits(1);
    cdp!("scrub", scene.store).succeeds();
}
