//! `cdp mirror` as a black box: copies are compared byte by byte with what the trace alone says they must hold.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::command::cdp_command;
use crate::support::files::first_difference;
use crate::support::{Op, Oracle, Random, Trace, cdp, scaled};

/// Time of the first line of a trace.
const START: u64 = 1_767_225_600_000_000_000;

/// A set in a directory of its own.
struct Mirror {
    directory: tempfile::TempDir,
    set: PathBuf,
    oracle: Oracle,
    bytes: u64,
}

impl Mirror {
    fn new(bytes: u64, copies: usize, ack: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let set = directory.path().join("set");
        let mut command = cdp_command();
        command.args(["mirror", "create", "--json"]).arg(&set).args([
            "--ack",
            ack,
            "--size",
            &bytes.to_string(),
        ]);
        for copy in 0..copies {
            command.arg(directory.path().join(format!("copy{copy}")));
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { directory, set, oracle: Oracle::new(&[("disk", bytes)]), bytes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn copy(&self, number: usize) -> PathBuf {
        self.path(&format!("copy{number}"))
    }

    /// Runs a trace, and remembers what it says.
    fn write(&mut self, trace: &Trace) -> Value {
        let file = self.path("trace.csv");
        trace.save(&file);
        self.oracle = Oracle::new(&[("disk", self.bytes)]);
        self.oracle.replay(trace, None);
        cdp!("mirror", "write", self.set, file, "--fill", "stamp", "--json").succeeds().json()
    }

    fn status(&self) -> Value {
        cdp!("mirror", "status", self.set, "--json").succeeds().json()
    }

    fn state(&self, number: usize) -> String {
        self.status()["copies"][number]["state"].as_str().unwrap().to_owned()
    }

    fn assert_holds(&self, number: usize) {
        let newest = self.oracle.newest();
        self.oracle.image("disk", newest).assert_equals_file(&self.copy(number), &format!("copy {number}"));
    }
}

/// Random writes of 4 KiB.
fn scattered(random: &mut Random, bytes: u64, lines: usize) -> Trace {
    let mut trace = Trace::default();
    for line in 0..lines {
        trace.write(START + line as u64, "disk", random.below(bytes / 4096) * 4096, 4096);
    }
    trace
}

/// Goal: after random writes with one copy away, a repair moves what was missed and the copies are equal. Method: 10,000 writes of 4 KiB over a sparse volume;
/// the bytes that the repair says it moved, against those that the status named.
#[test]
fn a_copy_that_was_away_gets_only_what_it_missed() {
    let mut random = Random::for_test("a_copy_that_was_away_gets_only_what_it_missed");
    let bytes = if scaled(0, 1) == 1 { 64 << 30 } else { 256 << 20 };
    let mut mirror = Mirror::new(bytes, 2, "one");
    cdp!("mirror", "offline", mirror.set, "1").succeeds();
    let trace = scattered(&mut random, bytes, 10_000);
    let report = mirror.write(&trace);
    assert_eq!((&report["writes"], &report["bytes"]), (&10_000.into(), &40_960_000.into()));
    println!("write: {report}");
    let dirty = mirror.status()["copies"][1]["dirty_bytes"].as_u64().unwrap();
    let touched: std::collections::BTreeSet<u64> = trace
        .lines
        .iter()
        .filter_map(|line| if let Op::Write { offset, .. } = line.op { Some(offset) } else { None })
        .collect();
    assert_eq!(dirty, touched.len() as u64 * 4096, "exactly what was written is dirty");
    cdp!("mirror", "online", mirror.set, "1").succeeds();
    assert_eq!(mirror.state(1), "dirty");
    let repair = cdp!("mirror", "repair", mirror.set, "--json").succeeds().json();
    println!("repair: {repair}");
    let moved = repair["bytes_transferred"].as_u64().unwrap();
    assert!(moved > 0 && moved * 100 <= dirty * 105, "{moved} bytes moved for {dirty} dirty ones");
    assert_eq!(mirror.state(1), "clean");
    assert_eq!(first_difference(&mirror.copy(0), &mirror.copy(1)), None);
    if bytes < 1 << 30 {
        mirror.assert_holds(1);
        cdp!("mirror", "verify", mirror.set).succeeds();
    }
}

/// Goal: a write process that is killed at any moment leaves copies that a repair makes equal, at a prefix of the trace. Method: kill -9 at random, copies written in turn and beside each other;
/// repair; the newest line that copy 0 holds names the prefix.
#[test]
fn a_killed_writer_leaves_a_prefix_and_a_repair_makes_copies_equal() {
    let mut random = Random::for_test("a_killed_writer_leaves_a_prefix_and_a_repair_makes_copies_equal");
    let bytes = 16 << 20;
    let mut kills = 0;
    for round in 0..scaled(10, 100) {
        let mut mirror = Mirror::new(bytes, 3, "quorum");
        if round % 2 == 1 {
            cdp!("mirror", "offline", mirror.set, "2").succeeds();
        }
        let mut trace = scattered(&mut random, bytes, 40_000);
        for line in (0..trace.lines.len()).step_by(97) {
            trace.lines[line].op = Op::Flush;
        }
        let file = mirror.path("trace.csv");
        trace.save(&file);
        mirror.oracle.replay(&trace, None);
        let mut command = cdp_command();
        let mut child = command
            .args(["mirror", "write"])
            .args((round % 4 > 1).then_some("--parallel"))
            .arg(&mirror.set)
            .arg(&file)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(random.between(20, 400)));
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
        let looked = cdp!("mirror", "handshake", mirror.set, "--json").succeeds().json();
        assert!(looked["pairs"].as_array().unwrap().len() == 3, "{looked}");
        if round % 2 == 1 {
            cdp!("mirror", "online", mirror.set, "2").succeeds();
        }
        let repair = cdp!("mirror", "repair", mirror.set, "--json").succeeds().json();
        println!("{repair}");
        let newest = newest_line(&mirror.copy(0));
        mirror.oracle.image("disk", newest).assert_equals_file(&mirror.copy(0), &format!("{newest} lines"));
        for other in 1..3 {
            assert_eq!(first_difference(&mirror.copy(0), &mirror.copy(other)), None, "copy {other}");
        }
        cdp!("mirror", "verify", mirror.set).succeeds();
    }
    println!("{kills} kills");
    assert!(kills > 0, "no writer was killed in its middle");
}

/// The newest line of a trace of whole blocks that an image holds.
fn newest_line(image: &std::path::Path) -> u64 {
    let bytes = fs::read(image).unwrap();
    let line = |block: &[u8]| u64::from_le_bytes(block[8..16].try_into().unwrap());
    bytes.chunks(4096).map(line).max().unwrap()
}

/// Goal: a difference is found, named, and repaired only when told from where. Method: bytes changed past the set in one of three copies.
#[test]
fn a_difference_exits_5_and_is_repaired_when_asked() {
    let mut mirror = Mirror::new(4 << 20, 3, "one");
    let mut trace = Trace::default();
    trace.write(START, "disk", 0, 1 << 20);
    trace.push(START + 1, "disk", Op::Zero { offset: 64 << 10, length: 4096 });
    trace.push(START + 2, "disk", Op::Discard { offset: 128 << 10, length: 8192 });
    mirror.write(&trace);
    (0..3).for_each(|number| mirror.assert_holds(number));
    cdp!("mirror", "verify", mirror.set, "--json").succeeds();
    // The time of the last change stays, as when a disk rots: nobody but a comparison can know.
    let copy = fs::File::options().write(true).open(mirror.copy(1)).unwrap();
    let modified = copy.metadata().unwrap().modified().unwrap();
    copy.write_all_at(&[0xAA; 100], 300_000).unwrap();
    copy.set_modified(modified).unwrap();
    drop(copy);
    let found = cdp!("mirror", "verify", mirror.set, "--json").exits(5).json();
    assert_eq!(found["bytes_different"], 4096);
    assert_eq!(found["extents"], serde_json::json!([{"offset": 299_008, "length": 4096, "majority": 0}]));
    cdp!("mirror", "verify", mirror.set, "--json").exits(5);
    let repaired = cdp!("mirror", "verify", mirror.set, "--repair-from", "0", "--json").exits(5).json();
    assert_eq!(repaired["repaired"], 4096);
    cdp!("mirror", "verify", mirror.set).succeeds();
    (0..3).for_each(|number| mirror.assert_holds(number));
}

/// Goal: a copy that is set back to an older state is noticed: while it was online it is compared as a whole, while it was away it is a split brain.
/// Method: keep the file of a copy, write on, put it back.
#[test]
fn a_copy_that_was_set_back_is_noticed() {
    let mut mirror = Mirror::new(4 << 20, 2, "one");
    let mut trace = Trace::default();
    trace.write(START, "disk", 0, 64 << 10);
    mirror.write(&trace);
    fs::copy(mirror.copy(0), mirror.path("old")).unwrap();
    trace.write(START + 1, "disk", 8192, 64 << 10);
    mirror.write(&trace);
    let put_back = |number: usize| fs::copy(mirror.path("old"), mirror.copy(number)).unwrap();
    put_back(0);
    let looked = cdp!("mirror", "handshake", mirror.set, "--json").succeeds().json();
    assert_eq!(
        (&looked["pairs"][0]["decision"], &looked["pairs"][0]["from"]),
        (&"comparison".into(), &1.into()),
        "{looked}"
    );
    assert_eq!(mirror.status()["source"], 1);
    cdp!("mirror", "repair", mirror.set).succeeds();
    mirror.assert_holds(0);
    mirror.assert_holds(1);

    cdp!("mirror", "offline", mirror.set, "1").succeeds();
    let put_back = || fs::copy(mirror.path("old"), mirror.copy(1)).unwrap();
    put_back();
    let looked = cdp!("mirror", "handshake", mirror.set, "--json").succeeds().json();
    assert_eq!(looked["pairs"][0]["decision"], "split-brain", "{looked}");
    cdp!("mirror", "online", mirror.set, "1").exits(1).says("split brain");
    cdp!("mirror", "repair", mirror.set, "--from", "0").succeeds();
    mirror.assert_holds(0);
    mirror.assert_holds(1);
}

/// Goal: missing, cut and added copies, removal and another size. Method: one after the other on one set.
#[test]
fn copies_come_and_go_and_the_size_changes() {
    let mut mirror = Mirror::new(2 << 20, 2, "one");
    let mut trace = Trace::default();
    trace.write(START, "disk", 0, 1 << 20);
    mirror.write(&trace);
    let added = cdp!("mirror", "add", mirror.set, mirror.copy(2), "--json").succeeds().json();
    assert_eq!(
        (&added["copies"][2]["state"], &added["copies"][2]["dirty_bytes"]),
        (&"dirty".into(), &(2 << 20).into())
    );
    cdp!("mirror", "add", mirror.set, mirror.copy(2)).exits(1).says("exists");
    cdp!("mirror", "repair", mirror.set).succeeds();
    mirror.assert_holds(2);
    cdp!("mirror", "remove", mirror.set, "0").succeeds();
    cdp!("mirror", "remove", mirror.set, "0").exits(1).says("does not exist");
    cdp!("mirror", "resize", mirror.set, "3M").succeeds();
    assert_eq!(fs::metadata(mirror.copy(1)).unwrap().len(), 3 << 20);
    cdp!("mirror", "verify", mirror.set).succeeds();
    cdp!("mirror", "resize", mirror.set, "1M").succeeds();
    assert_eq!(fs::metadata(mirror.copy(2)).unwrap().len(), 1 << 20);
    assert_eq!(first_difference(&mirror.copy(1), &mirror.copy(2)), None);
    // A copy that is cut, and one that is not there.
    fs::File::options().write(true).open(mirror.copy(2)).unwrap().set_len(4096).unwrap();
    assert_eq!(mirror.status()["copies"][1]["state"], "refused");
    fs::remove_file(mirror.copy(2)).unwrap();
    assert_eq!(mirror.status()["copies"][1]["state"], "missing");
    cdp!("mirror", "resize", mirror.set, "2M").exits(1).says("missing");
    let mut more = Trace::default();
    more.write(START, "disk", 4096, 4096);
    let file = mirror.path("more.csv");
    more.save(&file);
    cdp!("mirror", "write", mirror.set, file).succeeds();
    cdp!("mirror", "online", mirror.set, "2").exits(1).says("missing");
}

/// Goal: bad lines are named, the lines before them stay, and wrong usage is told from refusal. Method: a bad line behind good ones; commands without a set.
#[test]
fn a_bad_line_is_named_and_refusals_exit_1() {
    let mut mirror = Mirror::new(1 << 20, 2, "all");
    let mut trace = Trace::default();
    trace.write(START, "anything", 0, 4096);
    trace.push(START, "else", Op::Bookmark("ignored".to_owned()));
    let file = mirror.path("bad.csv");
    for bad in
        ["disk,0", "1,disk,0,512", &format!("{START},disk,1048576,512"), &format!("{START},disk,100,512")]
    {
        fs::write(&file, format!("{}{bad}\n", trace.csv())).unwrap();
        cdp!("mirror", "write", mirror.set, file).exits(1).says("line 3");
    }
    mirror.oracle.replay(&trace, Some("disk"));
    mirror.assert_holds(0);
    mirror.assert_holds(1);
    cdp!("mirror", "offline", mirror.set, "1").succeeds();
    fs::write(&file, trace.csv()).unwrap();
    cdp!("mirror", "write", mirror.set, file).exits(1).says("needs 2 copies");
    cdp!("mirror", "offline", mirror.set, "0").exits(1).says("last one");
    cdp!("mirror", "offline", mirror.set, "7").exits(1).says("does not exist");
    cdp!("mirror", "status", mirror.path("nothing")).exits(1);
    cdp!("mirror", "create", mirror.path("other"), "--size", "1M", mirror.path("single")).exits(2);
    let same = mirror.path("same");
    cdp!("mirror", "create", mirror.path("other"), "--size", "1M", same, same)
        .exits(1)
        .says("exists already");
    assert!(!same.exists(), "what a refused command made is gone");
}
