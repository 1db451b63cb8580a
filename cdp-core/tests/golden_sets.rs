//! Golden sets: mirror sets and seed sets as an earlier version of the library wrote them are opened and used by this one.
//!
//! `tests/golden-sets/mirror-vN` holds sets with their copies, `seed-vN` seed sets, each with `expected.json`. What was released is never changed or removed; a new
//! format version adds its own, with `cargo test -p cdp-core --test golden_sets -- --ignored golden_sets_are_made`.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    CreateOptions, ExportOptions, ImportSeedOptions, OpenOptions, SeedSet, Store,
    dirty_map::{Granularity, MapFileOptions},
    format::digest::DigestKey,
    io::{DirectoryOptions, DirectoryStorage, Storage},
    mirror::{
        AckPolicy, CreateMirror, ExtentCopy, MirrorCopy, MirrorOptions, MirrorSet, NewCopy, RepairOptions,
        record,
    },
    units::{ExtentId, Seq},
};
use serde_json::{Value, json};
use std::{
    fs, io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

const VERSION: u32 = 1;
const BYTES: usize = 192 << 10;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden-sets")
}

fn go_on<T>(_: T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn digest_of(image: &[u8]) -> String {
    format!("{:016x}", DigestKey(0).digest(image))
}

fn storage(path: &Path) -> Arc<DirectoryStorage> {
    let opened = if path.exists() {
        DirectoryStorage::open(path, DirectoryOptions::default())
    } else {
        DirectoryStorage::create(path, DirectoryOptions::default())
    };
    Arc::new(opened.unwrap())
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy_tree(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Copies of the sets of a kind, each in a directory of its own, with what is expected of them.
fn sets(of: &Path, kind: &str) -> Vec<(String, tempfile::TempDir, Value)> {
    let mut found: Vec<PathBuf> = fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(kind));
    found.sort();
    assert!(!found.is_empty(), "there are sets of {kind} in {}", of.display());
    let copy = |path: PathBuf| {
        let to = tempfile::tempdir().unwrap();
        copy_tree(&path, to.path());
        let expected = serde_json::from_slice(&fs::read(path.join("expected.json")).unwrap()).unwrap();
        (path.display().to_string(), to, expected)
    };
    found.into_iter().map(copy).collect()
}

// Mirror sets.

fn options() -> MirrorOptions {
    let map = MapFileOptions { ring_records: 2, region_bytes: 16 << 10, ..MapFileOptions::default() };
    MirrorOptions { map, ..MirrorOptions::default() }
}

fn copy_of(copies: &dyn Storage, number: u32) -> io::Result<Arc<dyn MirrorCopy>> {
    let extent = copies.open(ExtentId::new(u64::from(number) + 1))?;
    Ok(Arc::new(ExtentCopy::new(extent)))
}

/// A set of three copies, of which the last was away for some writes; closed, or dropped in the middle of some more.
fn make_mirror(at: &Path, closed: bool) {
    fs::create_dir_all(at).unwrap();
    let copies = storage(&at.join("copies"));
    (1..=3).for_each(|id| drop(copies.create(ExtentId::new(id), BYTES as u64).unwrap()));
    let new =
        |number| NewCopy { locator: format!("copy {number}"), copy: copy_of(&*copies, number).unwrap() };
    let create = CreateMirror {
        bytes: BYTES as u64,
        granularity: Granularity::MIN,
        ack: AckPolicy::Quorum,
        options: options(),
    };
    let set = MirrorSet::create(storage(&at.join("set")), create, (0..3).map(new).collect()).unwrap();
    set.repair(RepairOptions::default(), &mut go_on).unwrap();
    let mut image = vec![0; BYTES];
    let mut write = |at: usize, len: usize, byte: u8| {
        set.write(at as u64, &vec![byte; len]).unwrap();
        image[at..at + len].fill(byte);
    };
    write(0, 64 << 10, 1);
    write(100 << 10, 512, 2);
    set.offline(2).unwrap();
    write(8192, 4096, 3);
    write(150 << 10, 1024, 4);
    set.flush().unwrap();
    if closed {
        set.close().unwrap();
    } else {
        write(40 << 10, 4096, 5);
    }
    drop(set);
    let standing = json!(if closed { ["clean", "clean", "offline"] } else { ["clean", "dirty", "offline"] });
    let missed = if closed { 2 } else { 3 };
    let expected = json!({ "bytes": BYTES, "digest": digest_of(&image), "standing": standing, "missed_blocks_min": missed });
    fs::write(at.join("expected.json"), serde_json::to_vec_pretty(&expected).unwrap()).unwrap();
}

fn verify_mirrors(of: &Path) {
    for (name, directory, expected) in sets(of, "mirror") {
        let copies = storage(&directory.path().join("copies"));
        let mut opener = |record: &record::CopyRecord| copy_of(&*copies, record.number);
        let meta = storage(&directory.path().join("set"));
        let looked = MirrorSet::examine(&*meta, options(), &mut opener).unwrap();
        let set = MirrorSet::open(meta, options(), &mut opener).unwrap();
        let status = set.status();
        for status in [&looked, &status] {
            let standing: Vec<&str> = status.copies.iter().map(|copy| copy.standing.name()).collect();
            assert_eq!(json!(standing), expected["standing"], "{name}");
            assert!(status.copies.iter().enumerate().all(|(at, copy)| copy.locator == format!("copy {at}")));
        }
        // After a crash the regions of its log: three of four blocks.
        let missed = status.copies[2].dirty_bytes / 4096;
        assert!(
            (expected["missed_blocks_min"].as_u64().unwrap()..=12).contains(&missed),
            "{name}: {missed} blocks"
        );
        let mut image = vec![0; set.bytes() as usize];
        set.read(0, &mut image).unwrap();
        assert_eq!(digest_of(&image), expected["digest"].as_str().unwrap(), "{name}");
        // It goes on: the copy comes back, everything is equal, and a later open agrees.
        assert_eq!(set.online(2, None).unwrap().rule, "moved-on", "{name}");
        let repaired = set.repair(RepairOptions::default(), &mut go_on).unwrap();
        assert_eq!(repaired.bytes_left, 0, "{name}");
        set.write(4096, &[9; 512]).unwrap();
        set.close().unwrap();
        drop(set);
        image[4096..4096 + 512].fill(9);
        let set = MirrorSet::open(storage(&directory.path().join("set")), options(), &mut opener).unwrap();
        assert!(set.status().copies.iter().all(|copy| copy.standing.name() == "clean"), "{name}");
        for number in 0..3 {
            let mut held = vec![0; BYTES];
            copy_of(&*copies, number).unwrap().read_at(0, &mut held).unwrap();
            assert!(held == image, "{name}: copy {number}");
        }
    }
}

// Seed sets.

fn store_options() -> OpenOptions {
    OpenOptions { segment_bytes: 4 << 20, ..OpenOptions::default() }
}

/// A whole set, and one that goes on from it at another size.
fn make_seeds(at: &Path) {
    fs::create_dir_all(at).unwrap();
    let memory = Arc::new(cdp_core::io::MemoryStorage::default());
    let create = CreateOptions { volume: "disk".into(), bytes: BYTES as u64 };
    let store = Store::create(memory, &create, store_options()).unwrap();
    let volume = store.volume(None).unwrap();
    let mut image = vec![0; BYTES];
    let mut number = 1u64;
    let mut write = |image: &mut [u8], at: usize, len: usize, packs: bool| {
        let mut data = vec![7; len];
        for word in data.chunks_exact_mut(8).filter(|_| !packs) {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&number.to_le_bytes());
        }
        volume.write(at as u64, &data).unwrap();
        image[at..at + len].copy_from_slice(&data);
    };
    write(&mut image, 0, 20 << 10, true);
    write(&mut image, 64 << 10, 12 << 10, false);
    write(&mut image, BYTES - 512, 512, false);
    let first = (store.newest().seq, digest_of(&image));
    write(&mut image, 4096, 8192, false);
    volume.write_zeroes(64 << 10, 4096, None).unwrap();
    image[64 << 10..68 << 10].fill(0);
    store.resize_volume("disk", (BYTES + 4608) as u64).unwrap();
    image.resize(BYTES + 4608, 0);
    let second = (store.newest().seq, digest_of(&image));
    let export = |name: &str, at_seq: Seq, since: Option<Seq>| {
        let options = ExportOptions { since, ..ExportOptions::default() };
        store.volume(None).unwrap().export(at_seq, &*storage(&at.join(name)), &options, &mut go_on).unwrap();
    };
    export("whole", first.0, None);
    export("onwards", second.0, Some(first.0));
    let expected = json!({ "whole": [first.0.get(), first.1], "onwards": [second.0.get(), second.1] });
    fs::write(at.join("expected.json"), serde_json::to_vec_pretty(&expected).unwrap()).unwrap();
}

fn verify_seeds(of: &Path) {
    for (name, directory, expected) in sets(of, "seed") {
        let memory = Arc::new(cdp_core::io::MemoryStorage::default());
        let create = CreateOptions { volume: "other".into(), bytes: 4096 };
        let store = Store::create(memory, &create, store_options()).unwrap();
        for part in ["whole", "onwards"] {
            let path = directory.path().join(part);
            let set = DirectoryStorage::open_read_only(path, DirectoryOptions::default()).unwrap();
            let set = Arc::new(SeedSet::open(Arc::new(set)).unwrap());
            set.verify(&mut go_on).unwrap();
            assert_eq!(json!(set.about().at.seq.get()), expected[part][0], "{name}");
            store.import_seed(&set, None, &ImportSeedOptions::default(), &mut |_| {}, &|| false).unwrap();
            let volume = store.volume(Some("disk")).unwrap();
            let mut image = vec![0; volume.bytes() as usize];
            volume.read(0, &mut image).unwrap();
            assert_eq!(digest_of(&image), expected[part][1].as_str().unwrap(), "{name}: {part}");
        }
    }
}

fn make(of: &Path) {
    for (name, closed) in
        [(format!("mirror-v{VERSION}"), true), (format!("mirror-v{VERSION}-unclean"), false)]
    {
        assert!(!of.join(&name).exists(), "{name} is there, and is never changed");
        make_mirror(&of.join(name), closed);
    }
    let seeds = of.join(format!("seed-v{VERSION}"));
    assert!(!seeds.exists(), "{} is there, and is never changed", seeds.display());
    make_seeds(&seeds);
}

/// Goal: what a released version wrote is opened, gives back what it held and goes on. Method: the sets in the source tree, in copies.
#[test]
fn golden_sets_are_read_as_they_were_written_and_go_on() {
    verify_mirrors(&directory());
    verify_seeds(&directory());
}

/// Goal: the maker makes sets that keep what it expects of them. Method: make them in a temporary directory and verify them like the others.
#[test]
fn new_golden_sets_keep_what_is_expected_of_them() {
    let directory = tempfile::tempdir().unwrap();
    make(directory.path());
    verify_mirrors(directory.path());
    verify_seeds(directory.path());
}

/// Makes the golden sets of the format version in force; fails where there are some.
#[test]
#[ignore = "adds files to the source tree"]
fn golden_sets_are_made() {
    make(&directory());
}
