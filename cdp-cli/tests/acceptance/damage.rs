//! Damaged stores: one flipped bit anywhere, and files that are cut, missing, empty, foreign or rubbish.
//!
//! For each damage two things must hold. `check --deep` exits 3 and names the file and a range with the damaged byte.
//! Every restore gives the right bytes, or exits 3 or 1 and leaves no target. What a file holds after its last byte
//! that is not zero, rounded up to 4 KiB, is allocation and not a structure: there only the second must hold.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use crate::support::times::START;
use crate::support::{Ran, Random, Scene, Shape, cdp, files, index, scaled};

/// A sound store, and what it restores to at some points.
struct Victim {
    scene: Scene,
    /// Point, volume and the image that must come back.
    points: Vec<(String, &'static str, PathBuf)>,
}

/// One place in one file.
struct Place {
    file: PathBuf,
    offset: u64,
    live: bool,
}

/// Several sealed segments, sessions, volumes and bookmarks, so that every structure of a store is there.
fn victim(random: &mut Random) -> Victim {
    let volumes = [("disk", 8 << 20), ("logs", 1 << 20)];
    let mut scene = Scene::new(&volumes);
    let mut start = START;
    for session in 0..4 {
        let mut shape = Shape::mixed(0, if session < 2 { 1800 } else { 100 });
        shape.volumes = volumes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        (shape.write_most, shape.bookmark_percent, shape.start) = (256 << 10, 0, start);
        let trace = shape.generate(random);
        start = trace.lines.last().unwrap().time;
        scene.replay(&trace);
        cdp!("bookmark", "add", scene.store, format!("session-{session}"), "--kind", "app").succeeds();
    }
    let newest = scene.oracle.newest();
    let mut points: Vec<_> = [(0, "bookmark:session-0"), (1, "bookmark:session-1"), (2, "latest")]
        .map(|(_, point)| (point.to_owned(), "disk"))
        .into();
    points.extend((0..8).map(|_| (format!("seq:{}", random.between(1, newest)), "disk")));
    points.extend((0..2).map(|_| (format!("seq:{}", random.between(1, newest)), "logs")));
    let points = points.into_iter().enumerate().map(|(number, (point, volume))| {
        let golden = scene.path(&format!("golden-{number}.img"));
        cdp!("restore", scene.store, "--at", point, "--to", golden, "--volume", volume).succeeds();
        (point, volume, golden)
    });
    let points: Vec<_> = points.collect();
    for (point, volume, golden) in &points {
        if let Some(seq) = point.strip_prefix("seq:") {
            scene.oracle.image(volume, seq.parse().unwrap()).assert_equals_file(golden, point);
        }
    }
    scene.assert_sound();
    Victim { scene, points }
}

/// The end of what a file holds, see the head of this module.
fn live_end(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("read the file");
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    end.next_multiple_of(4096).min(bytes.len()) as u64
}

/// Places to damage: every file equally often; in each its head, its live tail and anywhere.
fn places(store: &Path, count: usize, random: &mut Random) -> Vec<Place> {
    let facts = |path: PathBuf| {
        let full = store.join(&path);
        let bytes = fs::metadata(&full).expect("file facts").len();
        (path, bytes, live_end(&full))
    };
    let all: Vec<_> = files::regular_files(store).into_iter().map(facts).filter(|file| file.1 > 0).collect();
    let place = |number: usize| {
        let (file, bytes, live_end) = &all[number % all.len()];
        let offset = match random.below(10) {
            0..3 => random.below((*bytes).min(8 << 10)),
            3..6 => (*live_end).max(1) - 1 - random.below((*live_end).clamp(1, 64 << 10)),
            6 => random.below(*bytes),
            _ => random.below((*live_end).max(1)),
        };
        Place { file: file.clone(), offset, live: offset < *live_end }
    };
    (0..count).map(place).collect()
}

/// Whether a report names the file with a range around the offset.
fn names(report: &Value, place: &Place) -> bool {
    let name = place.file.file_name().expect("a name").to_string_lossy().into_owned();
    let damaged = report["damaged"].as_array().map(Vec::as_slice).unwrap_or_default();
    damaged.iter().any(|entry| {
        let (offset, length) = (entry["offset"].as_u64().unwrap_or(0), entry["length"].as_u64().unwrap_or(0));
        entry["file"].as_str().is_some_and(|file| file.ends_with(&name))
            && (offset..offset.saturating_add(length)).contains(&place.offset)
    })
}

fn report_of(ran: &Ran) -> Option<Value> {
    serde_json::from_str(&ran.stdout).ok()
}

/// Everything that is wrong with how the tool treats a damaged copy; empty when nothing is.
fn complaints(
    victim: &Victim,
    store: &Path,
    place: &Place,
    name_offset: bool,
    random: &mut Random,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let check = cdp!("check", store, "--deep", "--json");
    let report = report_of(&check);
    if place.live {
        if check.code != 3 {
            wrong.push(format!("UNREPORTED: check exits {}: {}", check.code, check.stderr.trim()));
        } else if report.as_ref().is_none_or(|report| report["damaged"].as_array().is_none_or(Vec::is_empty))
        {
            wrong.push(format!("NO REPORT: exit 3 but stdout is `{}`", check.stdout.trim()));
        } else if name_offset && !report.as_ref().is_some_and(|report| names(report, place)) {
            let damaged = report.map(|report| report["damaged"].to_string()).unwrap_or_default();
            wrong.push(format!("NOT NAMED: the report is {}", damaged.chars().take(300).collect::<String>()));
        }
    } else if check.code != 0 && check.code != 3 {
        wrong.push(format!("check exits {}: {}", check.code, check.stderr.trim()));
    }
    let mut chosen = vec![2];
    chosen.extend((0..2).map(|_| index(random.below(victim.points.len() as u64))));
    for number in chosen {
        let (point, volume, golden) = &victim.points[number];
        let target = store.with_extension("restored.img");
        let ran = cdp!("restore", store, "--at", point, "--to", target, "--volume", volume);
        match ran.code {
            0 => {
                if let Some(offset) = files::first_difference(golden, &target) {
                    wrong.push(format!("WRONG BYTES: {point} of {volume} at {offset}"));
                }
                fs::remove_file(&target).expect("remove the target");
            }
            1 | 3 => {
                if target.exists() {
                    wrong.push(format!("TARGET LEFT: {point} of {volume}"));
                    fs::remove_file(&target).expect("remove the target");
                }
                if ran.stderr.trim().is_empty() {
                    wrong.push(format!("NO MESSAGE: {point} of {volume} exits {}", ran.code));
                }
            }
            code => wrong.push(format!("EXIT {code}: {point} of {volume}: {}", ran.stderr.trim())),
        }
    }
    wrong
}

/// Runs `judge` for every item on two threads, each with a copy of the store; a panic of the tool is a complaint too.
fn judge_all<T: Sync>(
    victim: &Victim,
    items: &[T],
    random: &mut Random,
    judge: impl Fn(&T, &Path, &mut Random) -> Vec<String> + Sync,
) {
    const WORKERS: usize = 2;
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (failures, judge, mut random) = (&failures, &judge, Random::new(random.next()));
            scope.spawn(move || {
                let copy = victim.scene.path(&format!("copy-{worker}"));
                files::copy_directory(&victim.scene.store, &copy);
                for item in items.iter().skip(worker).step_by(WORKERS) {
                    let wrong = judge(item, &copy, &mut random);
                    failures.lock().expect("not poisoned").extend(wrong);
                }
            });
        }
    });
    let failures = failures.into_inner().expect("not poisoned");
    let mut message = String::new();
    for failure in failures.iter().take(60) {
        writeln!(message, "{failure}").expect("a string grows");
    }
    assert!(failures.is_empty(), "{} complaints about {} damages:\n{message}", failures.len(), items.len());
}

/// Catches the assertion of a run of the tool, so that one panic of it does not hide what other places show.
fn caught(judge: impl FnOnce() -> Vec<String>) -> Vec<String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(judge)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        vec![format!("PANIC OR SIGNAL: {text}")]
    })
}

/// Goal: one flipped bit is reported, and never gives wrong bytes. Method: random places of every file, flipped in
/// place and flipped back, with a deep check and three restores each.
#[test]
fn one_flipped_bit_is_reported_and_never_read() {
    let mut random = Random::for_test("one_flipped_bit_is_reported_and_never_read");
    let victim = victim(&mut random);
    let places = places(&victim.scene.store, scaled(80, 4000), &mut random);
    judge_all(&victim, &places, &mut random, |place, copy, random| {
        let mask = 1 << random.below(8);
        let path = copy.join(&place.file);
        let file = File::options().read(true).write(true).open(&path).expect("open the victim");
        let flip = || {
            let mut byte = [0];
            file.read_exact_at(&mut byte, place.offset).expect("read the byte");
            file.write_all_at(&[byte[0] ^ mask], place.offset).expect("write the byte");
        };
        flip();
        let wrong = caught(|| complaints(&victim, copy, place, true, random));
        flip();
        let live = if place.live { "" } else { ", after the live end" };
        let place = format!("{} at {} bit {mask:#04x}{live}", place.file.display(), place.offset);
        wrong.into_iter().map(|text| format!("{place}: {text}")).collect()
    });
}

/// What can happen to a whole file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Missing,
    Empty,
    Halved,
    CutByOneBlock,
    CutByOneByte,
    Rubbish,
    Zeroed,
    Foreign,
    OtherFileOfTheStore,
}

const HARMS: [Harm; 9] = [
    Harm::Missing,
    Harm::Empty,
    Harm::Halved,
    Harm::CutByOneBlock,
    Harm::CutByOneByte,
    Harm::Rubbish,
    Harm::Zeroed,
    Harm::Foreign,
    Harm::OtherFileOfTheStore,
];

/// Harms a file; says whether anything changed that a check must see.
fn inflict(harm: Harm, path: &Path, foreign: &Path, sibling: &Path) -> bool {
    let bytes = fs::metadata(path).expect("file facts").len();
    let live_end = live_end(path);
    let cut = |length: u64| {
        File::options().write(true).open(path).expect("open the victim").set_len(length).expect("cut");
        true
    };
    let rubbish = |seed| {
        let mut content = vec![0; index(bytes)];
        Random::new(seed).fill(&mut content);
        fs::write(path, content).expect("write rubbish");
        true
    };
    match harm {
        Harm::Missing => {
            fs::remove_file(path).expect("remove the victim");
            true
        }
        Harm::Empty => cut(0),
        Harm::Halved => cut(bytes / 2 / 4096 * 4096),
        Harm::CutByOneBlock => cut(bytes.saturating_sub(4096)),
        Harm::CutByOneByte => cut(bytes - 1),
        Harm::Rubbish => rubbish(bytes),
        Harm::Zeroed => {
            fs::write(path, vec![0; index(bytes)]).expect("write zeroes");
            live_end > 0
        }
        Harm::Foreign if !foreign.exists() => false,
        Harm::Foreign => fs::copy(foreign, path).is_ok(),
        Harm::OtherFileOfTheStore if sibling == path => false,
        Harm::OtherFileOfTheStore => fs::copy(sibling, path).is_ok(),
    }
}

/// Goal: a file that is cut, missing, empty, rubbish, or of another place or store is reported and never read.
/// Method: each harm to each file, with a deep check and three restores; the file is put back each time.
#[test]
fn harmed_files_are_reported_and_never_read() {
    let mut random = Random::for_test("harmed_files_are_reported_and_never_read");
    let victim = victim(&mut random);
    // A store with the same history has files of the same names and places, but another identity.
    let other = {
        let mut random = random.clone();
        self::victim(&mut random)
    };
    let all = files::regular_files(&victim.scene.store);
    println!("files: {all:?}");
    let cases: Vec<_> = all.iter().enumerate().flat_map(|file| HARMS.map(|harm| (file, harm))).collect();
    // Each file and each harm occurs in the short form too, not each pair.
    let (every, from) = (scaled(4, 1), index(random.below(4)));
    let cases: Vec<_> = cases.into_iter().skip(from * usize::from(every > 1)).step_by(every).collect();
    judge_all(&victim, &cases, &mut random, |((number, file), harm), copy, random| {
        let path = copy.join(file);
        let kept = copy.with_extension("kept");
        files::copy_directory(&path, &kept);
        let same_kind = |other: &&PathBuf| other.extension() == file.extension() && *other != *file;
        let sibling = all.iter().find(same_kind).unwrap_or(&all[(number + 1) % all.len()]);
        let live = inflict(*harm, &path, &other.scene.store.join(file), &copy.join(sibling));
        let place = Place { file: (*file).clone(), offset: 0, live };
        let wrong = caught(|| complaints(&victim, copy, &place, false, random));
        let _ = fs::remove_file(&path);
        fs::rename(&kept, &path).expect("put the file back");
        wrong.into_iter().map(|text| format!("{harm:?} {}: {text}", file.display())).collect()
    });
}

/// Goal: a file that is no part of the store does not disturb it. Method: strange names beside the store's own.
#[test]
fn a_stray_file_does_not_disturb_the_store() {
    let mut random = Random::for_test("a_stray_file_does_not_disturb_the_store");
    let mut scene = Scene::new(&[("disk", 1 << 20)]);
    scene.replay(&Shape::mixed(1 << 20, 50).generate(&mut random));
    fs::write(scene.store.join("letter.txt"), "not a part").unwrap();
    fs::write(scene.store.join("empty"), "").unwrap();
    fs::create_dir(scene.store.join("lost+found")).unwrap();
    let newest = scene.oracle.newest();
    scene.assert_restores("latest", "disk", newest);
    cdp!("check", scene.store, "--deep", "--json").exits_with_one_of(&[0, 3]);
    let mut shape = Shape::mixed(1 << 20, 50);
    (shape.start, shape.bookmark_percent) = (scene.oracle.time_of(newest), 0);
    scene.replay(&shape.generate(&mut random));
    scene.assert_restores("latest", "disk", scene.oracle.newest());
    assert_eq!(
        fs::read(scene.store.join("letter.txt")).unwrap(),
        b"not a part",
        "a file of someone else is gone"
    );
}
