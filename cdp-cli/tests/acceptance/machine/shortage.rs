//! A full disk under the store, in the middle of a workload.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::command::program;
use crate::support::machine::{LoopDevice, Mount, MountedFileSystem};
use crate::support::{Random, Scene, Shape, cdp, index};

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 4096;
const DISK_BYTES: u64 = BLOCK * BLOCKS;

/// What a block may hold: the number of the last write that was made durable, or of any later one.
#[derive(Default, Clone)]
struct Allowed {
    durable: u64,
    later: Vec<u64>,
}

#[derive(Default)]
struct Model {
    blocks: BTreeMap<u64, Allowed>,
    /// The last write.
    number: u64,
    /// Since this write nothing has failed: an fsync settles what these writes touched, and no more.
    certain_from: u64,
}

impl Model {
    /// Writes a few blocks with the next number; remembers it as possible whatever the outcome.
    fn write(&mut self, disk: &File, random: &mut Random) -> std::io::Result<()> {
        let count = random.between(1, 16);
        let first = random.below(BLOCKS - count + 1);
        self.number += 1;
        let mut data = Vec::new();
        for block in first..first + count {
            data.extend([block.to_le_bytes(), self.number.to_le_bytes()].concat().repeat(index(BLOCK) / 16));
            self.blocks.entry(block).or_default().later.push(self.number);
        }
        disk.write_all_at(&data, first * BLOCK).inspect_err(|_| self.certain_from = self.number + 1)
    }

    /// Fsyncs. After a failure a block that was not written again may still hold any of what was tried.
    fn sync(&mut self, disk: &File) -> std::io::Result<()> {
        disk.sync_all().inspect_err(|_| self.certain_from = self.number + 1)?;
        for allowed in self.blocks.values_mut() {
            if let Some(last) = allowed.later.last().copied().filter(|last| *last >= self.certain_from) {
                *allowed = Allowed { durable: last, later: Vec::new() };
            }
        }
        Ok(())
    }

    #[track_caller]
    fn assert_allows(&self, path: &Path, what: &str) {
        let image = fs::read(path).unwrap();
        assert_eq!(image.len() as u64, DISK_BYTES, "{what}: length");
        for block in 0..BLOCKS {
            let bytes = &image[index(block * BLOCK)..index((block + 1) * BLOCK)];
            let number = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
            let place = if number == 0 { 0 } else { block };
            let whole = [place.to_le_bytes(), number.to_le_bytes()].concat().repeat(index(BLOCK) / 16);
            assert!(bytes == whole, "{what}: block {block} is not one write");
            let none = Allowed::default();
            let allowed = self.blocks.get(&block).unwrap_or(&none);
            let fine = number == allowed.durable || allowed.later.contains(&number);
            assert!(fine, "{what}: block {block} holds write {number}, durable is {}", allowed.durable);
        }
    }
}

/// Goal: when the disk is full the client gets a clear error, nothing acknowledged is lost, and the store goes on
/// when there is space again. Method: a store on a small ext4; a client writes until it fails; readers work on the
/// full disk; a ballast file is removed; the same mount goes on; at the end every state is compared.
#[test]
#[ignore = "needs root, FUSE and loop devices"]
fn a_full_disk_is_an_error_and_not_a_loss() {
    let mut random = Random::for_test("a_full_disk_is_an_error_and_not_a_loss");
    let directory = tempfile::tempdir().unwrap();
    let (_device, small) = small_disk(directory.path(), 900);
    let ballast = small.directory.join("ballast");
    program!("fallocate", "--length", "250M", ballast).succeeds();
    let store = small.directory.join("store");
    cdp!("create", store, "--size", DISK_BYTES.to_string()).succeeds();
    let mount = Mount::start(&store, &directory.path().join("mount"));
    let disk = File::options().read(true).write(true).open(mount.disk("disk")).unwrap();
    let mut model = Model::default();
    for _ in 0..300 {
        model.write(&disk, &mut random).unwrap();
    }
    model.sync(&disk).unwrap();
    cdp!("bookmark", "add", store, "before", "--kind", "fs").succeeds();
    let before = model.blocks.clone();

    let failure = fill(&disk, &mut model, &mut random);
    println!("after {} writes the client got: {failure}", model.number);
    let code = failure.raw_os_error();
    assert!(matches!(code, Some(28 | 5 | 30)), "not a clear error: {failure}");
    cdp!("points", store, "--json").succeeds();
    let image = directory.path().join("image");
    cdp!("restore", store, "--at", "bookmark:before", "--to", image, "--force").succeeds();
    Model { blocks: before.clone(), ..Model::default() }.assert_allows(&image, "a restore on the full disk");
    model.assert_allows(&mount.disk("disk"), "the live volume on the full disk");

    fs::remove_file(&ballast).unwrap();
    go_on(&disk, &mut model, &mut random);
    for _ in 0..300 {
        model.write(&disk, &mut random).unwrap();
    }
    model.sync(&disk).unwrap();
    model.assert_allows(&mount.disk("disk"), "the live volume when it goes on");
    drop(disk);
    mount.terminate();
    cdp!("check", store, "--deep").succeeds();
    cdp!("restore", store, "--at", "latest", "--to", image, "--force").succeeds();
    model.assert_allows(&image, "the newest state");
    cdp!("restore", store, "--at", "bookmark:before", "--to", image, "--force").succeeds();
    Model { blocks: before, ..Model::default() }.assert_allows(&image, "the bookmark from before");
    small.unmount();
}

/// Writes and fsyncs until one of them fails.
fn fill(disk: &File, model: &mut Model, random: &mut Random) -> std::io::Error {
    loop {
        for _ in 0..20 {
            if let Err(error) = model.write(disk, random) {
                return error;
            }
        }
        if let Err(error) = model.sync(disk) {
            return error;
        }
        assert!(model.number < 200_000, "the small disk is never full");
    }
}

/// Writes until it works again; the store must not need a new mount for it.
fn go_on(disk: &File, model: &mut Model, random: &mut Random) {
    let started = Instant::now();
    loop {
        match model.write(disk, random).and_then(|()| model.sync(disk)) {
            Ok(()) => return,
            Err(error) => {
                let waited = started.elapsed();
                assert!(
                    waited < Duration::from_secs(30),
                    "there is space, but after {waited:?} still: {error}"
                );
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// A small file system on a loop device.
fn small_disk(directory: &Path, megabytes: u64) -> (LoopDevice, MountedFileSystem) {
    let backing = directory.join("backing.img");
    File::create(&backing).unwrap().set_len(megabytes << 20).unwrap();
    program!("mkfs.ext4", "-q", "-F", "-m", "0", backing).succeeds();
    let device = LoopDevice::attach(&backing, &[]);
    let mounted = MountedFileSystem::mount(&device.device, &directory.join("small"), "defaults");
    (device, mounted)
}

/// Goal: a replay that fills the disk fails clearly, and what is there is an exact prefix that can be continued.
/// Method: a trace that is larger than the disk, in three rounds with less and less ballast; compared each time.
#[test]
#[ignore = "needs root and loop devices"]
fn a_replay_that_fills_the_disk_leaves_an_exact_prefix() {
    let mut random = Random::for_test("a_replay_that_fills_the_disk_leaves_an_exact_prefix");
    let mut scene = Scene::without_store(&[("disk", DISK_BYTES)]);
    let (_device, small) = small_disk(scene.root(), 1200);
    for part in 0..2 {
        program!("fallocate", "--length", "300M", small.directory.join(format!("ballast-{part}"))).succeeds();
    }
    scene.store = small.directory.join("store");
    cdp!("create", scene.store, "--size", DISK_BYTES.to_string()).succeeds();
    let mut shape = Shape::mixed(DISK_BYTES, 150_000);
    shape.bookmark_percent = 0;
    let mut rest = shape.generate(&mut random);
    for part in 0..3 {
        let file = scene.path("rest.csv");
        rest.save(&file);
        let ran = cdp!("replay", scene.store, file, "--fill", "stamp").exits(1);
        assert!(!ran.stderr.trim().is_empty(), "a full disk without a word");
        println!("full: {}", ran.stderr.trim());
        let (before, newest) = (scene.oracle.newest(), scene.newest());
        assert!(newest > before || part > 0, "nothing was captured before the disk was full");
        let (done, left) = rest.split_after_counted(newest - before);
        scene.oracle.replay(&done, None);
        rest = left;
        for seq in [newest, random.between(0, newest), random.between(0, newest)] {
            scene.assert_restores(&format!("seq:{seq}"), "disk", seq);
        }
        scene.assert_sound();
        if part < 2 {
            fs::remove_file(small.directory.join(format!("ballast-{part}"))).unwrap();
        }
    }
    small.unmount();
}

/// Goal: commands that need space fail clearly on a full disk and leave nothing half made. Method: `create` and
/// `restore` onto a full file system.
#[test]
#[ignore = "needs root and loop devices"]
fn commands_on_a_full_disk_leave_nothing_half_made() {
    let mut random = Random::for_test("commands_on_a_full_disk_leave_nothing_half_made");
    let mut scene = Scene::new(&[("disk", DISK_BYTES)]);
    let mut shape = Shape::mixed(DISK_BYTES, 2000);
    (shape.bookmark_percent, shape.zero_percent, shape.discard_percent) = (0, 0, 0);
    scene.replay(&shape.generate(&mut random));
    let (_device, small) = small_disk(scene.root(), 64);
    let free = program!("df", "--output=avail", "-B1", small.directory).succeeds().stdout;
    let free: u64 = free.lines().last().unwrap().trim().parse().unwrap();
    program!("fallocate", "--length", (free - (256 << 10)).to_string(), small.directory.join("ballast"))
        .succeeds();
    let store = small.directory.join("store");
    cdp!("create", store, "--size", "1G").exits(1);
    assert!(!store.exists(), "a failed create left something behind");
    let target = small.directory.join("image");
    let ran = cdp!("restore", scene.store, "--at", "latest", "--to", target).exits(1);
    assert!(!target.exists(), "a failed restore left a target behind:\n{}", ran.described());
    small.unmount();
}
