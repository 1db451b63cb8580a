//! kill -9 in the middle of long work, again and again: the next run goes on where the last one was, and repeats no more than a few seconds of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::command::cdp_command;
use crate::support::files::first_difference;
use crate::support::{Random, Trace, cdp, scaled};

/// What a run may do before its first checkpoint, and lose after its last one.
const SLACK: Duration = Duration::from_millis(2500);

fn random_file(path: &Path, bytes: u64, random: &mut Random) {
    let file = File::create(path).unwrap();
    let mut chunk = vec![0; 1 << 20];
    for offset in (0..bytes).step_by(chunk.len()) {
        chunk.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&(random.next() | 1).to_le_bytes()));
        file.write_all_at(&chunk, offset).unwrap();
    }
}

/// Starts the tool, and kills it after a while. Returns whether it had not ended by itself.
fn killed(arguments: &[&str], paths: &[&Path], after: Duration) -> bool {
    let mut command = cdp_command();
    command.args(arguments).args(paths).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

#[track_caller]
fn number(document: &Value, key: &str) -> u64 {
    document[key].as_u64().unwrap_or_else(|| panic!("{key} of {document}"))
}

/// Goal: a resync that is killed a hundred times (ten in the short form) gets on with each run, and the last one does only what is left. Method: an empty volume and a
/// source that is held to a rate, so that what each run must have done is known from how long it lived.
#[test]
fn a_resync_killed_again_and_again_does_not_begin_again() {
    let mut random = Random::for_test("a_resync_killed_again_and_again_does_not_begin_again");
    let (kills, bytes, rate) = (scaled(10, 100), (scaled(256, 1536) as u64) << 20, 6_000_000);
    let directory = tempfile::tempdir().unwrap();
    let (store, source) = (directory.path().join("store"), directory.path().join("source"));
    random_file(&source, bytes, &mut random);
    cdp!("create", store, "--size", bytes.to_string()).succeeds();
    let mut done_at_least = 0;
    for kill in 0..kills {
        let after = Duration::from_millis(random.between(1500, 4500));
        let options = ["resync", "--rate", "6000000", "--source"];
        assert!(killed(&options, &[&source, &store], after), "kill {kill} came too late");
        let worked = u64::try_from(after.saturating_sub(SLACK).as_millis()).unwrap();
        done_at_least += worked * rate / 1000;
        // The point before it, and no other, is there all the time.
        cdp!("restore", store, "--at", "seq:0", "--to", directory.path().join("none"), "--force").succeeds();
    }
    let last = cdp!("resync", store, "--source", source, "--json").succeeds().json();
    println!("{kills} kills, at least {done_at_least} bytes of {bytes} done before: {last}");
    assert_eq!(last["resumed"], true, "{last}");
    assert!(done_at_least > 0 && number(&last, "bytes_compared") <= bytes - done_at_least, "{last}");
    let again = cdp!("verify", store, "--source", source, "--json").succeeds().json();
    assert_eq!(number(&again, "bytes_different"), 0);
}

/// Goal: mirror writes and repairs that are killed a hundred times (ten in the short form) lose no progress: what a repair has made equal is not done again, and at the end all
/// copies are equal. Method: kill -9 of a writer, then of the repairs of what it left; what the status says is still dirty, from kill to kill.
#[test]
fn mirror_writes_and_repairs_killed_again_and_again_end_with_equal_copies() {
    let mut random = Random::for_test("mirror_writes_and_repairs_killed_again_and_again");
    let bytes: u64 = 256 << 20;
    let directory = tempfile::tempdir().unwrap();
    let set = directory.path().join("set");
    let copies: Vec<_> = (0..3).map(|copy| directory.path().join(format!("copy{copy}"))).collect();
    cdp!("mirror", "create", set, "--size", bytes.to_string(), copies[0], copies[1], copies[2]).succeeds();
    let file = directory.path().join("trace.csv");
    let dirty = || -> u64 {
        let status = cdp!("mirror", "status", set, "--json").succeeds().json();
        status["copies"].as_array().unwrap().iter().map(|copy| number(copy, "dirty_bytes")).sum()
    };
    let (mut writers, mut repairs, mut cut) = (0, 0, 0);
    for round in 0..scaled(5, 50) {
        let away = (round % 3).to_string();
        // Neither a line that the clock of the set would refuse nor one that ends before the kill.
        let mut trace = Trace::default();
        for line in 0..60_000 {
            trace.write(1_767_225_600_000_000_000 + line, "disk", random.below(bytes / 4096) * 4096, 4096);
        }
        trace.save(&file);
        cdp!("mirror", "offline", set, away).succeeds();
        let after = Duration::from_millis(random.between(300, 900));
        let write: &[&str] =
            if round % 2 == 0 { &["mirror", "write"] } else { &["mirror", "write", "--parallel"] };
        writers += u64::from(killed(write, &[&set, &file], after));
        cdp!("mirror", "online", set, away).succeeds();
        let before = dirty();
        let after = Duration::from_millis(random.between(200, 1500));
        let interrupted = killed(&["mirror", "repair", "--limit", "20M"], &[&set], after);
        repairs += u64::from(interrupted);
        let left = dirty();
        assert!(left <= before, "round {round}: {before} bytes were dirty, and after a repair {left}");
        cut += u64::from(interrupted && left > 0 && left < before);
        let rest = cdp!("mirror", "repair", set, "--json").succeeds().json();
        assert!(number(&rest, "bytes_compared") <= left, "round {round}: {left} bytes were left, and {rest}");
        assert_eq!(number(&rest, "bytes_left"), 0);
        for other in &copies[1..] {
            assert_eq!(first_difference(&copies[0], other), None, "round {round}: {}", other.display());
        }
    }
    println!(
        "{writers} writers and {repairs} repairs were killed, {cut} of these in the middle of their work"
    );
    assert!(writers > 0 && cut > 0, "{writers} {repairs} {cut}");
    cdp!("mirror", "verify", set).succeeds();
}

/// Goal: a verification that is killed again and again gets on with each run, and forgets no difference that an earlier run has found. Method: two
/// blocks that differ, near the beginning and near the end; a rate, so that what each run must have done is known from how long it lived.
#[test]
fn a_verification_killed_again_and_again_does_not_begin_again() {
    let mut random = Random::for_test("a_verification_killed_again_and_again_does_not_begin_again");
    let (kills, bytes, rate) = (scaled(3, 20), (scaled(384, 2048) as u64) << 20, 16_000_000);
    let directory = tempfile::tempdir().unwrap();
    let (store, source) = (directory.path().join("store"), directory.path().join("source"));
    let cursor = directory.path().join("cursor");
    random_file(&source, bytes, &mut random);
    cdp!("create", store, "--size", bytes.to_string()).succeeds();
    cdp!("resync", store, "--source", source).succeeds();
    let file = File::options().write(true).open(&source).unwrap();
    for offset in [4096, bytes - 8192] {
        file.write_all_at(&[0; 4096], offset).unwrap();
    }
    let mut done_at_least = 0;
    for kill in 0..kills {
        let after = Duration::from_millis(random.between(4000, 6000));
        let options = ["verify", "--rate", "16000000", "--cursor"];
        let paths: &[&Path] = &[&cursor, Path::new("--source"), &source, &store];
        assert!(killed(&options, paths, after), "kill {kill} came too late");
        let worked = u64::try_from(after.saturating_sub(SLACK).as_millis()).unwrap();
        done_at_least += worked * rate / 1000;
    }
    let last = cdp!("verify", store, "--source", source, "--cursor", cursor, "--json").exits(5).json();
    println!("{kills} kills, at least {done_at_least} bytes of {bytes} done before: {last}");
    assert!(number(&last, "bytes_compared") <= bytes - done_at_least, "{last}");
    assert_eq!(number(&last, "bytes_different"), 8192, "{last}");
    let offsets: Vec<u64> =
        last["extents"].as_array().unwrap().iter().map(|extent| number(extent, "offset")).collect();
    assert_eq!(offsets, [4096, bytes - 8192]);
    assert!(!cursor.exists(), "it was compared to the end");
    std::fs::write(&cursor, "{}").unwrap();
    cdp!("verify", store, "--source", source, "--cursor", cursor).exits(1).says("no cursor");
}
