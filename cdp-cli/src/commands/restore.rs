//! `cdp restore`: the state at a point as a raw image.
//!
//! Invariants:
//! - *no partial target*: a new image appears when it is complete; whatever fails before leaves nothing;
//! - *tried before touched*: with `--onto` the whole state is read once before the target is written, so that damage is met
//!   while the target is still what it was.

use crate::{
    args::RestoreArguments,
    exit::{Failure, Outcome},
    image::{ExistingImage, NewImage},
    interrupt::Interrupt,
    output::{self, RestoredDocument},
    owner,
    progress::Bar,
};
use cdp_core::{Progress, RestoreTarget, Snapshot, text::format_time};
use std::{io, path::Path, time::Instant};

/// Threads that read and write a new image, or read ahead of the writing of another.
const THREADS: usize = 4;

/// Runs the command.
pub fn run(arguments: &RestoreArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    let path = &arguments.to;
    if arguments.force {
        refuse_irregular(path)?;
    } else if !arguments.onto {
        NewImage::refuse_existing(path)?;
    }
    let reader = owner::open_reader(&arguments.store)?;
    let volume = reader.store.volume(arguments.volume.as_deref())?;
    let point = reader.store.resolve(&arguments.at)?;
    let snapshot =
        if arguments.fuzzy { volume.snapshot_fuzzy(point.seq)? } else { volume.snapshot(point.seq)? };
    let started = Instant::now();
    let written_bytes = if arguments.onto {
        restore_onto(&snapshot, path, &interrupt)?
    } else {
        restore_new(&snapshot, path, arguments.force, &interrupt)?
    };
    let document = RestoredDocument {
        volume: volume.name().to_owned(),
        seq: point.seq.get(),
        time: format_time(point.time),
        bytes: snapshot.bytes(),
        written_bytes,
        seconds: started.elapsed().as_secs_f64(),
    };
    output::result(arguments.output.json, &document, |restored| {
        format!(
            "{}: volume {} at seq {} ({}), {} of {} written in {:.2} s\n",
            path.display(),
            restored.volume,
            restored.seq,
            restored.time,
            output::human_size(restored.written_bytes),
            output::human_size(restored.bytes),
            restored.seconds
        )
    })
}

/// Writes a snapshot as a new image, and returns how many bytes of it are not holes.
pub fn restore_new(snapshot: &Snapshot, path: &Path, replace: bool, interrupt: &Interrupt) -> Outcome<u64> {
    let image = NewImage::begin(path, snapshot.bytes(), interrupt.clone())?;
    let bar = Bar::new("restore");
    let mut show = |progress: Progress| bar.show(progress.done, progress.total);
    snapshot.restore_shared(THREADS, &image, &mut show)?;
    drop(bar);
    let written_bytes = image.written_bytes();
    image.finish(replace)?;
    Ok(written_bytes)
}

fn restore_onto(snapshot: &Snapshot, path: &Path, interrupt: &Interrupt) -> Outcome<u64> {
    // A target that cannot be written is found before the long reading.
    if !path.exists() {
        return Err(Failure::new(format!("{} does not exist; leave out --onto to make it", path.display())));
    }
    restore_to(snapshot, &mut Nowhere(interrupt.clone()), "read")?;
    let mut image = ExistingImage::open(path, snapshot.bytes(), interrupt.clone())?;
    restore_to(snapshot, &mut image, "restore").map_err(|failure| {
        failure.context(format!("{} is only partly restored, run the command again", path.display()))
    })?;
    let written_bytes = image.written_bytes();
    image.finish(path)?;
    Ok(written_bytes)
}

fn restore_to(snapshot: &Snapshot, target: &mut dyn RestoreTarget, what: &'static str) -> Outcome {
    let bar = Bar::new(what);
    snapshot.restore(THREADS, target, &mut |progress: Progress| bar.show(progress.done, progress.total))?;
    Ok(())
}

/// Only a regular file is replaced: renaming over anything else would not do what was meant.
fn refuse_irregular(path: &Path) -> Outcome {
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => Err(Failure::new(format!(
            "{} is not a regular file; --onto writes into a device",
            path.display()
        ))),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io("look at", path, &error)),
        _ => Ok(()),
    }
}

/// A target that takes everything and keeps nothing.
struct Nowhere(Interrupt);

impl RestoreTarget for Nowhere {
    fn write(&mut self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        self.0.check()
    }

    fn zero(&mut self, _offset: u64, _length: u64) -> io::Result<()> {
        self.0.check()
    }
}
