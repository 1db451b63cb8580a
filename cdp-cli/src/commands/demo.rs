//! `cdp demo`: the main job in one command.
//!
//! It protects a disk with a file system in a temporary directory, works on it, damages everything as ransomware would, rewinds to
//! the last write before the damage, and proves that everything is back. The file system is the kernel's own on the mounted
//! live disk where FUSE, loop devices and root allow it ([`mounted`]); else an image made by `mke2fs -d`, or a generated one,
//! written through the library ([`imaged`]).
//!
//! Invariant *tidy*: mounts, loop devices and the temporary directory are gone when it ends, also after a failure or Ctrl-C.

mod files;
mod imaged;
mod machine;
mod mounted;

use self::machine::find;
use super::{points, restore};
use crate::{
    args::{DemoArguments, DemoMode},
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output::{self, PointsDocument, Table},
    owner::{self, Owner, Role},
};
use cdp_core::{
    CreateOptions, NewBookmark, OpenOptions, Store,
    io::{DirectoryOptions, DirectoryStorage},
    text::format_time,
    units::Seq,
};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Size of the protected disk.
const DISK_BYTES: u64 = 512 << 20;
const VOLUME: &str = "disk";

/// Runs the command.
pub fn run(arguments: &DemoArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    let scratch = tempfile::Builder::new()
        .prefix("cdp-demo-")
        .tempdir()
        .map_err(|source| Failure::new(format!("make a temporary directory: {source}")))?;
    let stage = Stage { scratch: scratch.path().to_owned(), interrupt, json: arguments.output.json };
    let told = match (arguments.mode, machine::lacks()) {
        (DemoMode::Auto | DemoMode::Mounted, None) => mounted::tell(&stage),
        (DemoMode::Mounted, Some(lacks)) => {
            Err(Failure::new(format!("the disk cannot be mounted here: {lacks}")))
        }
        (DemoMode::Auto, Some(lacks)) => {
            imaged::tell(&stage, &format!("no mount: {lacks}"), find("mke2fs").is_some())
        }
        (mode, _) => imaged::tell(&stage, "as asked for", mode == DemoMode::Mke2fs),
    };
    // Everything in it is closed and unmounted by now.
    let removed = scratch.close();
    let document = told?;
    removed.map_err(|source| Failure::new(format!("remove the temporary directory: {source}")))?;
    output::result(arguments.output.json, &document, DemoDocument::human)?;
    if document.is_proved() {
        Ok(())
    } else {
        Err(Failure::new("not everything came back; this is a defect"))
    }
}

/// What `demo` prints at its end.
#[derive(Debug, Serialize)]
struct DemoDocument {
    /// How the file system was made: `mounted`, `mke2fs` or `generated`.
    mode: &'static str,
    /// Writes that were captured.
    writes: u64,
    /// Bytes that were written to the disk.
    source_bytes: u64,
    /// Bytes that the store takes up.
    stored_bytes: u64,
    /// The state that was rewound to.
    rewound_to_seq: u64,
    /// Files, or pieces of a generated image, that were there before the damage.
    files: u64,
    /// Those that the damage left.
    files_after_damage: u64,
    /// Those that have the right checksum after the rewind.
    files_after_rewind: u64,
    /// Whether the file system was found clean; `null` when there was nothing to check it with.
    file_system_clean: Option<bool>,
    /// Time to open the point and read its first block.
    open_seconds: f64,
    /// Time to restore the whole image.
    restore_seconds: f64,
    /// Time for all of it.
    seconds: f64,
}

impl DemoDocument {
    fn is_proved(&self) -> bool {
        self.files > 0 && self.files_after_rewind == self.files && self.file_system_clean != Some(false)
    }

    fn human(&self) -> String {
        let mut table = Table::new(["what it took", ""]);
        let mut row = |what: &str, value: String| table.row([what.to_owned(), value]);
        row("writes captured", self.writes.to_string());
        row("written to the disk", output::human_size(self.source_bytes));
        row("stored", output::human_size(self.stored_bytes));
        row("opening the point", milliseconds(self.open_seconds));
        row("restoring the disk", milliseconds(self.restore_seconds));
        row("files left by the damage", format!("{} of {}", self.files_after_damage, self.files));
        row("files back after the rewind", format!("{} of {}", self.files_after_rewind, self.files));
        row(
            "file system",
            match self.file_system_clean {
                Some(true) => "clean (e2fsck -fn)".to_owned(),
                Some(false) => "NOT clean (e2fsck -fn)".to_owned(),
                None => "none, or no e2fsck to check it".to_owned(),
            },
        );
        row("all in all", format!("{:.1} s", self.seconds));
        format!("\n{}", table.text())
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1000.0)
}

/// Where the demo plays.
struct Stage {
    scratch: PathBuf,
    interrupt: Interrupt,
    json: bool,
}

impl Stage {
    /// Tells the user what happens; on stderr when stdout is for the document.
    fn say(&self, text: &str) -> Outcome {
        self.interrupt.check().map_err(|_| Failure::new("interrupted"))?;
        if self.json {
            output::diagnostic(text);
            return Ok(());
        }
        output::print(&format!("{text}\n"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Makes the store and becomes its owner.
    fn make_store(&self) -> Outcome<Owner> {
        let path = self.path("store");
        let storage = DirectoryStorage::create(&path, DirectoryOptions::default())
            .map_err(|source| Failure::io("make store", &path, &source))?;
        let create = CreateOptions { volume: VOLUME.to_owned(), bytes: DISK_BYTES };
        let store = Store::create(Arc::new(storage), &create, OpenOptions::default())?;
        Ok(Owner::new(store, &path, Role::Mount)?)
    }

    /// Shows the timeline.
    fn show_timeline(&self, store: &Store) -> Outcome {
        self.say("\nThe timeline now:\n")?;
        self.say(points::human(&PointsDocument::from(&store.timeline()?)).trim_end())
    }

    /// Opens the state at `seq` and writes it as an image.
    fn rewind(&self, store: &Store, seq: Seq, image: &Path) -> Outcome<Rewound> {
        store.flush()?;
        let volume = store.volume(Some(VOLUME))?;
        let opening = Instant::now();
        let snapshot = volume.snapshot(seq)?;
        snapshot.read(0, &mut [0; 4096])?;
        let opened = opening.elapsed();
        let restoring = Instant::now();
        restore::restore_new(&snapshot, image, false, &self.interrupt)?;
        Ok(Rewound { seq, opened, restored: restoring.elapsed() })
    }
}

/// What a rewind took.
struct Rewound {
    seq: Seq,
    opened: Duration,
    restored: Duration,
}

/// What came of the files.
struct Counted {
    files: usize,
    after_damage: usize,
    after_rewind: usize,
    clean: Option<bool>,
}

/// Names the newest state, and says so.
fn bookmark(stage: &Stage, store: &Store, name: &str) -> Outcome {
    let bookmark = store.add_bookmark(&NewBookmark::named(name))?;
    stage.say(&format!("  bookmark '{name}' at seq {}", bookmark.seq))
}

/// Says which state is the last good one.
fn note_last_good(stage: &Stage, store: &Store) -> Outcome<Seq> {
    store.flush()?;
    let newest = store.newest();
    stage.say(&format!(
        "  the last write before the damage is seq {} ({})",
        newest.seq,
        format_time(newest.time)
    ))?;
    Ok(newest.seq)
}

/// Puts the closing document together, from what the closed store says of itself.
fn document(
    mode: &'static str,
    stage: &Stage,
    started: Instant,
    rewound: &Rewound,
    counted: &Counted,
) -> Outcome<DemoDocument> {
    let reader = owner::open_reader(&stage.path("store"))?;
    let (store, stats) = (&reader.store, reader.store.stats()?);
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Ok(DemoDocument {
        mode,
        writes: store.newest().seq.get(),
        source_bytes: stats.source_bytes,
        stored_bytes: stats.stored_bytes,
        rewound_to_seq: rewound.seq.get(),
        files: count(counted.files),
        files_after_damage: count(counted.after_damage),
        files_after_rewind: count(counted.after_rewind),
        file_system_clean: counted.clean,
        open_seconds: rewound.opened.as_secs_f64(),
        restore_seconds: rewound.restored.as_secs_f64(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The sentence with which both tellings begin.
fn begin(stage: &Stage, how: &str) -> Outcome {
    stage.say(&format!(
        "A protected disk of {} in {}",
        output::human_size(DISK_BYTES),
        stage.scratch.display()
    ))?;
    stage.say(&format!("  {how}"))
}
