//! Real file systems and a real database on the live volume, recovered at bookmarks and at random instants.
//!
//! While a tree of files is unpacked with a sync now and then, a database commits without pause; the instants after
//! each sync and each commit are kept. Then files are deleted and overwritten. Every recovered image must pass the
//! file system's own check after its log was replayed, hold every file that was synced before the instant with the
//! right content, and a database that passes its own check with every transaction committed before the instant.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::command::program;
use crate::support::machine::{LoopDevice, Mount, MountedFileSystem};
use crate::support::times::{format_time, now};
use crate::support::{Random, Scene, cdp, files, index, scaled};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ext4,
    Xfs,
}

/// The files of the tree by number: their paths and contents follow from it, so that nothing has to be noted down.
struct Tree {
    count: u64,
}

/// What was known to be true, and since when.
#[derive(Default)]
struct Journal {
    /// (instant, files): this many files were synced at this instant.
    synced: Vec<(u64, u64)>,
    /// (begun, committed) of each transaction, from number 1.
    transactions: Vec<(u64, u64)>,
    /// Deleting and overwriting began here; it spares every file whose number is a multiple of three.
    destruction: u64,
}

/// A point to recover, and an instant that is not later than it.
struct Target {
    point: String,
    instant: u64,
}

impl Tree {
    fn path(&self, root: &Path, number: u64) -> PathBuf {
        root.join(format!("tree/part-{}/dir-{}/file-{number}.c", number / 2500, number / 50 % 50))
    }

    fn content(number: u64) -> Vec<u8> {
        let mut random = Random::new(number);
        let length = random.sectors_log_uniform(64 << 10) - random.below(512);
        let mut content = vec![0; index(length)];
        random.fill(&mut content);
        content
    }

    /// Unpacks all files, with a sync after every part.
    fn unpack(&self, root: &Path, journal: &mut Journal, from: u64, to: u64) {
        let step = (self.count / 20).max(1);
        for number in from..to {
            let path = self.path(root, number);
            fs::create_dir_all(path.parent().expect("a directory")).unwrap();
            fs::write(&path, Self::content(number)).unwrap();
            if (number + 1) % step == 0 || number + 1 == to {
                program!("sync", "--file-system", root).succeeds();
                journal.synced.push((now(), number + 1));
            }
        }
    }

    /// Deletes a third of the files and overwrites another, as ransomware would.
    fn destroy(&self, root: &Path) {
        for number in 0..self.count {
            let path = self.path(root, number);
            match number % 3 {
                1 => fs::remove_file(path).unwrap(),
                2 => fs::write(path, b"your files are encrypted".repeat(200)).unwrap(),
                _ => {}
            }
        }
        program!("sync", "--file-system", root).succeeds();
    }

    /// Every file that was synced at the instant and not yet at risk has its content.
    fn assert_present(&self, root: &Path, journal: &Journal, instant: u64, what: &str) -> u64 {
        let synced =
            journal.synced.iter().filter(|(time, _)| *time <= instant).map(|(_, count)| *count).max();
        let mut looked_at = 0;
        for number in 0..synced.unwrap_or(0) {
            if instant >= journal.destruction && number % 3 != 0 {
                continue;
            }
            let path = self.path(root, number);
            let found = fs::read(&path).unwrap_or_else(|error| panic!("{what}: {}: {error}", path.display()));
            assert!(found == Self::content(number), "{what}: {} has another content", path.display());
            looked_at += 1;
        }
        looked_at
    }
}

/// A database client that commits without pause.
struct Database {
    shell: Child,
    input: ChildStdin,
    output: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Database {
    fn open(root: &Path) -> Self {
        let mut command = Command::new("sqlite3");
        command
            .args(["-batch", "-bail"])
            .arg(root.join("commits.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut shell = command.spawn().expect("sqlite3 is installed");
        let input = shell.stdin.take().expect("piped");
        let output = BufReader::new(shell.stdout.take().expect("piped")).lines();
        let mut database = Self { shell, input, output };
        let setup = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; \
                     CREATE TABLE commits(number INTEGER PRIMARY KEY, filler BLOB); SELECT 'ready';";
        database.ask(setup, "ready");
        database
    }

    fn ask(&mut self, statements: &str, answer: &str) {
        writeln!(self.input, "{statements}").expect("the shell reads");
        for line in self.output.by_ref() {
            if line.expect("the shell answers") == answer {
                return;
            }
        }
        panic!("the database shell ended before it said `{answer}`");
    }

    fn commit(&mut self, number: usize) {
        let statements = format!(
            "INSERT INTO commits VALUES({number}, randomblob({})); SELECT 'committed {number}';",
            100 + number % 3000
        );
        self.ask(&statements, &format!("committed {number}"));
    }

    fn close(mut self) {
        drop(self.input);
        assert!(self.shell.wait().expect("the shell ends").success());
    }
}

/// Tells the database client to stop, also when the test fails, for the client is waited for.
struct StopWhenDropped<'flag>(&'flag AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Commits until told to stop; returns the instants around each transaction.
fn commit_until(stop: &AtomicBool, root: &Path, at_least: Duration) -> Vec<(u64, u64)> {
    let mut database = Database::open(root);
    let mut transactions = Vec::new();
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) || started.elapsed() < at_least {
        let begun = now();
        database.commit(transactions.len() + 1);
        transactions.push((begun, now()));
    }
    database.close();
    transactions
}

fn assert_database(root: &Path, journal: &Journal, instant: u64, what: &str) -> usize {
    let path = root.join("commits.db");
    let committed = journal.transactions.iter().filter(|(_, committed)| *committed <= instant).count();
    if committed == 0 {
        return 0;
    }
    let query = "PRAGMA integrity_check; SELECT count(*), ifnull(max(number), 0) FROM commits;";
    let answer = program!("sqlite3", "-batch", path, query).succeeds().stdout;
    let mut lines = answer.lines();
    assert_eq!(lines.next(), Some("ok"), "{what}: integrity_check says\n{answer}");
    let counts = lines.next().and_then(|line| line.split_once('|')).expect("two numbers");
    let (count, last) = (counts.0.parse::<usize>().unwrap(), counts.1.parse::<usize>().unwrap());
    assert_eq!(count, last, "{what}: a transaction in the middle is missing");
    assert!(last >= committed, "{what}: {committed} were committed, {last} are there");
    last
}

/// Mounts a restored image once, which replays its log, looks at its files, and runs the file system's check.
fn assert_recovered(
    kind: Kind,
    image: &Path,
    scene: &Scene,
    tree: &Tree,
    journal: &Journal,
    target: &Target,
) {
    let what = &target.point;
    let device = LoopDevice::attach(image, &[]);
    let options = if kind == Kind::Xfs { "nouuid" } else { "defaults" };
    let mounted = MountedFileSystem::mount(&device.device, &scene.path("recovered"), options);
    let looked_at = tree.assert_present(&mounted.directory, journal, target.instant, what);
    let transactions = assert_database(&mounted.directory, journal, target.instant, what);
    mounted.unmount();
    match kind {
        Kind::Ext4 => program!("e2fsck", "-fn", device.device).succeeds(),
        Kind::Xfs => program!("xfs_repair", "-n", device.device).succeeds(),
    };
    println!("{what}: {looked_at} files, {transactions} transactions, file system clean");
}

fn add_bookmark(scene: &Scene, name: &str) -> Target {
    let instant = now();
    cdp!("bookmark", "add", scene.store, name, "--kind", "fs").succeeds();
    Target { point: format!("bookmark:{name}"), instant }
}

/// The whole story on one file system; see the head of this module.
fn protect_and_recover(kind: Kind, name: &str) {
    let mut random = Random::for_test(name);
    let tree = Tree { count: scaled(1500, 20_000) as u64 };
    let bytes: u64 = if scaled(0, 1) == 0 { 512 << 20 } else { 1 << 30 };
    let scene = Scene::new(&[("disk", bytes)]);
    let mount = Mount::start(&scene.store, &scene.path("mount"));
    let device = LoopDevice::attach(&mount.disk("disk"), &["--direct-io=on"]);
    match kind {
        Kind::Ext4 => program!("mkfs.ext4", "-q", device.device).succeeds(),
        Kind::Xfs => program!("mkfs.xfs", "-q", device.device).succeeds(),
    };
    let live = MountedFileSystem::mount(&device.device, &scene.path("live"), "defaults");
    let mut journal = Journal::default();
    let mut targets = Vec::new();
    let begun = now();
    let unpacked = AtomicBool::new(false);
    let least = Duration::from_secs(scaled(5, 60) as u64);
    let root = &live.directory;
    thread::scope(|scope| {
        let stop = StopWhenDropped(&unpacked);
        let commits = scope.spawn(|| commit_until(&unpacked, root, least));
        for part in 0..3 {
            tree.unpack(root, &mut journal, tree.count * part / 3, tree.count * (part + 1) / 3);
            targets.push(add_bookmark(&scene, &format!("part-{part}")));
        }
        drop(stop);
        journal.transactions = commits.join().expect("the database client");
    });
    targets.push(add_bookmark(&scene, "whole"));
    journal.destruction = now();
    tree.destroy(&live.directory);
    targets.push(add_bookmark(&scene, "destroyed"));
    let ended = targets.last().expect("a bookmark").instant;
    println!("{} files, {} transactions", tree.count, journal.transactions.len());
    for _ in 0..scaled(4, 20) {
        let instant = random.between(begun, ended);
        targets.push(Target { point: format!("time:{}", format_time(instant)), instant });
    }
    for target in &targets {
        let image = scene.path("restored.img");
        cdp!("restore", scene.store, "--at", target.point, "--to", image).succeeds();
        let difference = files::first_difference(&mount.point("disk", &target.point), &image);
        assert_eq!(difference, None, "{}: points/ and restore", target.point);
        assert_recovered(kind, &image, &scene, &tree, &journal, target);
        fs::remove_file(&image).unwrap();
    }
    let peak = mount.peak_resident_kib();
    println!("the mount took at most {peak} KiB");
    assert!(peak < 256 << 10, "the mount took {peak} KiB");
    live.unmount();
    drop(device);
    mount.terminate();
    scene.assert_sound();
    // The instants name the same states when no owner is there.
    let target = &targets[targets.len() - 1];
    let image = scene.path("restored.img");
    cdp!("restore", scene.store, "--at", target.point, "--to", image).succeeds();
    assert_recovered(kind, &image, &scene, &tree, &journal, target);
    drop(File::open(&image).unwrap());
}

/// Goal: an ext4 with files and a database comes back at any instant. Method: see the head of this module.
#[test]
#[ignore = "needs root, FUSE and loop devices"]
fn ext4_and_a_database_come_back_at_any_instant() {
    protect_and_recover(Kind::Ext4, "ext4_and_a_database_come_back_at_any_instant");
}

/// Goal: an XFS with files and a database comes back at any instant. Method: see the head of this module.
#[test]
#[ignore = "needs root, FUSE and loop devices"]
fn xfs_and_a_database_come_back_at_any_instant() {
    protect_and_recover(Kind::Xfs, "xfs_and_a_database_come_back_at_any_instant");
}
