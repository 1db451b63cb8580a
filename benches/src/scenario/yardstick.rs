//! Other programs in the same run, where they are installed: what a user may have now.
//!
//! They are called as an administrator would call them, and the commands stand in the report. One that is not installed, or not
//! permitted, is left out with the reason. Each changes only what lies in the directory of the run.

use super::{Bench, Measured, OWN_FILE, Ready};
use crate::{
    direct::DirectFile,
    drive::{Driven, Limits, drive},
    error::{Context, Error, Result, on_path},
    pages::Pages,
    probe::{RANDOM_DEPTH, Rate, SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH},
    random::{Content, Random, block_offset},
};
use cdp_core::units::{BLOCK_BYTES, BLOCK_LEN};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

/// Random writes that tell how fast the others will be.
const TRIAL_WRITES: u64 = 512;
/// Fewest and most random writes.
const WRITES: std::ops::RangeInclusive<u64> = 1024..=400_000;
/// One of so many blocks is changed before a file is synchronised.
const CHANGED_IN: u64 = 64;

/// Commands that are called one after the other in one directory.
struct Shell {
    directory: PathBuf,
    called: Vec<String>,
}

impl Shell {
    /// Makes the directory.
    fn new(bench: &Bench<'_>) -> Result<Self> {
        let directory = bench.path(OWN_FILE)?;
        fs::create_dir(&directory).map_err(|error| on_path("create", &directory, error))?;
        Ok(Self { directory, called: Vec::new() })
    }

    /// Calls a program with these words; `input` is a file in the directory.
    fn call(&mut self, line: &str, input: Option<&str>) -> Result<Output> {
        let shown = input.map_or_else(|| line.to_owned(), |input| format!("{line} < {input}"));
        if !self.called.contains(&shown) {
            self.called.push(shown);
        }
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(program);
        command.args(words).current_dir(&self.directory);
        command.stdin(match input {
            Some(name) => File::open(self.directory.join(name)).when("open a list of commands")?.into(),
            None => Stdio::null(),
        });
        match command.output() {
            Ok(output) if output.status.success() => Ok(output),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.lines().next().unwrap_or_default();
                Err(Error::Skip(format!("`{line}` failed, {}: {said}", output.status)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::Skip(format!("{program} is not installed")))
            }
            Err(error) => Err(Error::Skip(format!("{program} cannot be started: {error}"))),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, text).map_err(|error| on_path("write", &path, error))
    }
}

/// The sequential probe of writes from huge pages, as the engine has them.
pub fn write_huge_pages(bench: &mut Bench<'_>) -> Result<Ready> {
    let bytes = bench.sizes.sequential_bytes;
    let file = DirectFile::create(&bench.path(OWN_FILE)?, bytes)?;
    let limits = Limits { time: bench.sizes.measure_time, operations: bytes / SEQUENTIAL_BYTES as u64 };
    let seed = bench.seed ^ bench.round;
    Ready::new(move || {
        let driven = drive(SEQUENTIAL_DEPTH, limits, |stream| {
            let mut content = Content::within(Pages::huge, seed, stream, SEQUENTIAL_BYTES)?;
            let file = &file;
            Ok(move |chunk| file.write(chunk * SEQUENTIAL_BYTES as u64, content.next()))
        })?;
        file.sync()?;
        Ok(Measured::new(sequential(&driven)))
    })
}

/// The sequential probe of reads into huge pages, as the engine has them.
pub fn read_huge_pages(bench: &mut Bench<'_>) -> Result<Ready> {
    let bytes = bench.sizes.sequential_bytes;
    let file = DirectFile::create(&bench.path(OWN_FILE)?, bytes)?;
    let mut content = Content::new(bench.seed ^ bench.round, 0, SEQUENTIAL_BYTES)?;
    for offset in (0..bytes).step_by(SEQUENTIAL_BYTES) {
        file.write(offset, content.next())?;
    }
    file.sync()?;
    let limits = Limits { time: bench.sizes.measure_time, operations: bytes / SEQUENTIAL_BYTES as u64 };
    Ready::new(move || {
        let driven = drive(SEQUENTIAL_DEPTH, limits, |_| {
            let mut buffer = Pages::huge(SEQUENTIAL_BYTES)?;
            let file = &file;
            Ok(move |chunk| file.read(chunk * SEQUENTIAL_BYTES as u64, &mut buffer))
        })?;
        Ok(Measured::new(sequential(&driven)))
    })
}

fn sequential(driven: &Driven) -> Rate {
    let seconds = driven.started.elapsed().as_secs_f64();
    Rate { operations: driven.operations, bytes: driven.operations * SEQUENTIAL_BYTES as u64, seconds }
}

/// 4 KiB random writes to a full qcow2 image that has just got an internal snapshot.
pub fn qcow2_snapshot(bench: &mut Bench<'_>) -> Result<Ready> {
    let mut shell = Shell::new(bench)?;
    let bytes = bench.sizes.volume_bytes;
    let (seed, time) = (bench.seed ^ bench.round, bench.sizes.measure_time);
    shell.call(&format!("qemu-img create -q -f qcow2 disk.qcow2 {bytes}"), None)?;
    let mut fill = String::new();
    for offset in (0..bytes).step_by(SEQUENTIAL_BYTES) {
        let _ = writeln!(fill, "write -q -P 1 {offset} {SEQUENTIAL_BYTES}");
    }
    shell.write("fill", &fill)?;
    shell.call("qemu-io -t none disk.qcow2", Some("fill"))?;
    shell.call("qemu-img snapshot -c first disk.qcow2", None)?;
    shell.write("trial", &random_writes(TRIAL_WRITES, bytes, !seed))?;
    let started = Instant::now();
    shell.call("qemu-io -t none disk.qcow2", Some("trial"))?;
    let trial = started.elapsed().as_secs_f64().max(1e-3);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
    let wanted = (time.as_secs_f64() / trial * TRIAL_WRITES as f64) as u64;
    let writes = wanted.clamp(*WRITES.start(), *WRITES.end());
    shell.write("writes", &random_writes(writes, bytes, seed))?;
    shell.call("qemu-img snapshot -c second disk.qcow2", None)?;
    Ready::new(move || {
        let started = Instant::now();
        shell.call("qemu-io -t none disk.qcow2", Some("writes"))?;
        let seconds = started.elapsed().as_secs_f64();
        let mut commands = shell.called;
        commands
            .push(format!("# the file writes begins: {}", random_writes(2, bytes, seed).replace('\n', "; ")));
        let rate = Rate { operations: writes, bytes: writes * BLOCK_BYTES, seconds };
        Ok(Measured::new(rate).with_commands(commands))
    })
}

/// Commands of `qemu-io`: as many writes in flight as the raw probe has, at the end a flush.
fn random_writes(count: u64, bytes: u64, seed: u64) -> String {
    let mut random = Random::new(seed, 5);
    let mut text = String::new();
    for number in 1..=count {
        // Writing to text cannot fail.
        let _ = writeln!(text, "aio_write -q -P 2 {} {BLOCK_LEN}", block_offset(&mut random, bytes));
        if number % RANDOM_DEPTH as u64 == 0 {
            text.push_str("aio_flush\n");
        }
    }
    text.push_str("aio_flush\nflush\n");
    text
}

/// 4 KiB random writes to a file of which a snapshot of btrfs has just been taken.
pub fn btrfs_snapshot(bench: &mut Bench<'_>) -> Result<Ready> {
    let mut shell = Shell::new(bench)?;
    let kind = crate::environment::FileSystem::of(&shell.directory).kind;
    if kind != "btrfs" {
        return Err(Error::Skip(format!(
            "the directory is on {kind}: name one on btrfs to measure its snapshots"
        )));
    }
    shell.call("btrfs subvolume create disk", None)?;
    let bytes = bench.sizes.volume_bytes;
    let file = DirectFile::create(&shell.directory.join("disk").join("image"), bytes)?;
    let mut content = Content::new(bench.seed ^ bench.round, 0, SEQUENTIAL_BYTES)?;
    for offset in (0..bytes).step_by(SEQUENTIAL_BYTES) {
        file.write(offset, content.next())?;
    }
    file.sync()?;
    shell.call("btrfs subvolume snapshot disk snapshot", None)?;
    let limits = Limits { time: bench.sizes.measure_time, operations: bytes / BLOCK_BYTES };
    let seed = bench.seed ^ bench.round;
    Ready::new(move || {
        let driven = drive(RANDOM_DEPTH, limits, |stream| {
            let mut content = Content::new(!seed, stream, BLOCK_LEN)?;
            let mut random = Random::new(seed, stream);
            let file = &file;
            Ok(move |_| file.write(block_offset(&mut random, bytes), content.next()))
        })?;
        file.sync()?;
        let seconds = driven.started.elapsed().as_secs_f64();
        let rate = Rate { operations: driven.operations, bytes: driven.operations * BLOCK_BYTES, seconds };
        shell.call("btrfs subvolume delete snapshot disk", None)?;
        Ok(Measured::new(rate).with_latencies(&driven.latencies).with_commands(shell.called))
    })
}

/// Bringing a file up to date of which one block in 64 has changed, as `rsync` finds out.
pub fn rsync(bench: &mut Bench<'_>) -> Result<Ready> {
    let mut shell = Shell::new(bench)?;
    shell.call("rsync --version", None)?;
    let bytes = bench.sizes.volume_bytes / 2;
    let files = ["source.img", "copy.img"].map(|name| shell.directory.join(name));
    let seed = bench.seed ^ bench.round;
    for path in &files {
        let file = DirectFile::create(path, bytes)?;
        let mut content = Content::new(seed, 0, SEQUENTIAL_BYTES)?;
        for offset in (0..bytes).step_by(SEQUENTIAL_BYTES) {
            file.write(offset, content.next())?;
        }
        file.sync()?;
    }
    let changed = change(&files[0], bytes, seed)?;
    Ready::new(move || {
        let started = Instant::now();
        shell.call("rsync --inplace --no-whole-file --ignore-times source.img copy.img", None)?;
        shell.call("sync copy.img", None)?;
        let seconds = started.elapsed().as_secs_f64();
        let rate = Rate { operations: bytes / SEQUENTIAL_BYTES as u64, bytes, seconds };
        let changed = changed as f64 / f64::from(1 << 20);
        Ok(Measured::new(rate).with("changed_mib", changed).with_commands(shell.called))
    })
}

/// Changes one block in [`CHANGED_IN`]; returns how many bytes that are.
fn change(path: &Path, bytes: u64, seed: u64) -> Result<u64> {
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(path).map_err(|error| on_path("open", path, error))?;
    let mut content = Content::new(!seed, 1, BLOCK_LEN)?;
    let mut random = Random::new(seed, 2);
    let count = bytes / BLOCK_BYTES / CHANGED_IN;
    for _ in 0..count {
        file.write_all_at(content.next(), block_offset(&mut random, bytes)).when("change a file")?;
    }
    file.sync_all().when("sync a file")?;
    Ok(count * BLOCK_BYTES)
}
