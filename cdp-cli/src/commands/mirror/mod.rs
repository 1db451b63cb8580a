//! `cdp mirror`: sets of copies that are kept equal.
//!
//! Each command opens the set, does its work and closes it; `status` and `handshake` only look, also while another process has the set open.

mod arguments;
mod documents;
mod write;

pub use arguments::MirrorCommand;

use super::absolute;
use crate::{
    exit::{Failure, Outcome, Reason},
    interrupt::Interrupt,
    output,
    progress::Bar,
};
use arguments::{
    AddArguments, CopyArguments, CreateArguments, RepairArguments, ResizeArguments, SetArguments,
    VerifyArguments,
};
use cdp_core::{
    io::{DirectoryOptions, DirectoryStorage},
    mirror::{
        CreateMirror, FileCopy, MirrorCopy, MirrorOptions, MirrorSet, MirrorStatus, NewCopy, RepairOptions,
        VerifyOptions, record::CopyRecord,
    },
    restore::Progress,
};
use documents::{
    ExtentDocument, HandshakeDocument, OnlineDocument, RepairDocument, SetDocument, VerifyDocument,
};
use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// Runs a command.
pub fn run(command: &MirrorCommand) -> Outcome {
    match command {
        MirrorCommand::Create(arguments) => create(arguments),
        MirrorCommand::Write(arguments) => write::run(arguments),
        MirrorCommand::Offline(arguments) => change(arguments, |set, number| set.offline(number)),
        MirrorCommand::Online(arguments) => online(arguments),
        MirrorCommand::Status(arguments) => status(arguments),
        MirrorCommand::Handshake(arguments) => handshake(arguments),
        MirrorCommand::Repair(arguments) => repair(arguments),
        MirrorCommand::Verify(arguments) => verify(arguments),
        MirrorCommand::Add(arguments) => add(arguments),
        MirrorCommand::Remove(arguments) => change(arguments, |set, number| set.remove(number)),
        MirrorCommand::Resize(arguments) => resize(arguments),
    }
}

fn open_copy(record: &CopyRecord) -> io::Result<Arc<dyn MirrorCopy>> {
    Ok(Arc::new(FileCopy::open(&record.locator)?))
}

fn storage(path: &Path, read_only: bool) -> Outcome<DirectoryStorage> {
    let options = DirectoryOptions::default();
    let opened = if read_only {
        DirectoryStorage::open_read_only(path, options)
    } else {
        DirectoryStorage::open(path, options)
    };
    opened.map_err(|source| Failure::io("open the mirror set in", path, &source))
}

/// Opens a set.
///
/// # Errors
/// Those of the set and of its storage.
pub fn open(path: &Path) -> Outcome<MirrorSet> {
    open_with(path, MirrorOptions::default())
}

fn open_with(path: &Path, options: MirrorOptions) -> Outcome<MirrorSet> {
    Ok(MirrorSet::open(Arc::new(storage(path, false)?), options, &mut open_copy)?)
}

/// Looks at a set without changing it.
fn examine(path: &Path) -> Outcome<MirrorStatus> {
    Ok(MirrorSet::examine(&storage(path, true)?, MirrorOptions::default(), &mut open_copy)?)
}

/// Closes a set, and says how it stands.
fn close(set: &MirrorSet) -> Outcome<SetDocument> {
    let document = SetDocument::from(&set.status());
    set.close()?;
    Ok(document)
}

fn change(
    arguments: &CopyArguments,
    change: impl FnOnce(&MirrorSet, u32) -> cdp_core::Result<()>,
) -> Outcome {
    let set = open(&arguments.set)?;
    let changed = change(&set, arguments.number);
    let document = close(&set)?;
    changed?;
    output::result(arguments.output.json, &document, SetDocument::text)
}

/// A copy for a set of `bytes` bytes, and whether its file was made here.
fn new_copy(path: &Path, bytes: u64) -> Outcome<(NewCopy, bool)> {
    let path = absolute(path)?;
    let locator =
        path.to_str().ok_or_else(|| Failure::new(format!("{}: the path is not UTF-8", path.display())))?;
    let failed = |operation: &'static str| {
        let path = path.clone();
        move |source: io::Error| Failure::io(operation, &path, &source)
    };
    let (copy, made) = match FileCopy::create(&path, bytes) {
        Ok(copy) => (copy, true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            (FileCopy::open(&path).map_err(failed("open"))?, false)
        }
        Err(error) => return Err(failed("create")(error)),
    };
    Ok((NewCopy { locator: locator.to_owned(), copy: Arc::new(copy) }, made))
}

fn create(arguments: &CreateArguments) -> Outcome {
    let (mut copies, mut made) = (Vec::new(), Vec::<PathBuf>::new());
    let outcome = (|| {
        for path in &arguments.copies {
            let (copy, new) = new_copy(path, arguments.size)?;
            if new {
                made.push(path.clone());
            }
            copies.push(copy);
        }
        let zero = |copy: &NewCopy| copy.copy.is_zero().unwrap_or(false);
        if zero(&copies[0]) && !arguments.force && !copies.iter().all(zero) {
            return Err(Failure::new(
                "the first copy holds nothing and another one holds data, which it would lose; name the copy with the data first, or give --force",
            ));
        }
        let storage = DirectoryStorage::create(&arguments.set, DirectoryOptions::default())
            .map_err(|source| Failure::io("create", &arguments.set, &source))?;
        let new = CreateMirror { ack: arguments.ack.into(), ..CreateMirror::new(arguments.size) };
        Ok(MirrorSet::create(Arc::new(storage), new, std::mem::take(&mut copies))?)
    })();
    let set = outcome.inspect_err(|_| {
        for path in &made {
            // The first failure is the one to report.
            let _ = std::fs::remove_file(path);
        }
    })?;
    output::result(arguments.output.json, &close(&set)?, SetDocument::text)
}

fn online(arguments: &CopyArguments) -> Outcome {
    let set = open(&arguments.set)?;
    let came = set.online(arguments.number, None);
    let document = close(&set)?;
    let outcome = came?;
    let document = OnlineDocument {
        set: document,
        decision: outcome.decision.to_string(),
        rule: outcome.rule,
        reason: outcome.reason,
    };
    output::result(arguments.output.json, &document, |document| {
        format!("{}({}, {}, {})\n", document.set.text(), document.decision, document.rule, document.reason)
    })
}

fn status(arguments: &SetArguments) -> Outcome {
    let document = SetDocument::from(&examine(&arguments.set)?);
    output::result(arguments.output.json, &document, SetDocument::text)
}

fn handshake(arguments: &SetArguments) -> Outcome {
    let status = examine(&arguments.set)?;
    let pairs = status.pairs.iter().map(Into::into).collect();
    let document = HandshakeDocument { set: (&status).into(), pairs };
    output::result(arguments.output.json, &document, HandshakeDocument::text)
}

/// Shows progress, and ends when the user wants that.
fn watch(what: &'static str) -> Outcome<(impl FnMut(Progress) -> ControlFlow<()>, Interrupt)> {
    let (bar, interrupt) = (Bar::new(what), Interrupt::register()?);
    let flag = interrupt.clone();
    let progress = move |progress: Progress| {
        bar.show(progress.done, progress.total);
        if flag.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    Ok((progress, interrupt))
}

fn seconds_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64()
}

fn repair(arguments: &RepairArguments) -> Outcome {
    let set = open(&arguments.set)?;
    let (mut progress, interrupt) = watch("repair")?;
    let started = Instant::now();
    let resolved = arguments.from.map_or(Ok(()), |from| set.resolve(from));
    let options = RepairOptions { bytes_per_second: arguments.limit, ..RepairOptions::default() };
    let repaired = resolved.and_then(|()| set.repair(options, &mut progress));
    drop(progress);
    let document = close(&set)?;
    let done = repaired?;
    let document = RepairDocument {
        set: document,
        bytes_compared: done.bytes_compared,
        bytes_transferred: done.bytes_written,
        bytes_left: done.bytes_left,
        repaired: done.whole,
        seconds: seconds_since(started),
    };
    output::result(arguments.output.json, &document, |document| {
        let moved = output::human_size(document.bytes_transferred);
        format!("{moved} copied in {:.2} s\n{}", document.seconds, document.set.text())
    })?;
    if interrupt.is_set() {
        return Err(Failure::new(
            "interrupted; what was repaired stays so, and the next repair goes on from there",
        ));
    }
    let refused = document.set.copies.iter().find(|copy| copy.state == "refused");
    match refused {
        Some(copy) => Err(Failure::new(format!(
            "copy {} was not repaired: {}; give --from with the copy that is right",
            copy.n,
            copy.trouble.as_deref().unwrap_or("it was refused")
        ))),
        None => Ok(()),
    }
}

fn verify(arguments: &VerifyArguments) -> Outcome {
    let set = open(&arguments.set)?;
    let (mut progress, interrupt) = watch("verify")?;
    let options = VerifyOptions { right: arguments.repair_from, ..VerifyOptions::default() };
    let verified = set.verify(options, &mut progress);
    drop(progress);
    let document = close(&set)?;
    let found = verified?;
    let extents = found.differences.iter().map(|difference| ExtentDocument {
        offset: difference.range.offset,
        length: difference.range.bytes,
        majority: difference.majority,
    });
    let document = VerifyDocument {
        set: document,
        bytes_compared: found.bytes_compared,
        bytes_different: found.bytes_different,
        bytes_unreadable: found.bytes_unreadable,
        extents: extents.collect(),
        repaired: found.bytes_repaired,
    };
    output::result(arguments.output.json, &document, |document| {
        let compared = output::human_size(document.bytes_compared);
        let mut text = format!("{compared} compared, {} bytes differ\n", document.bytes_different);
        for extent in &document.extents {
            text.push_str(&format!("{}+{}\n", extent.offset, extent.length));
        }
        text
    })?;
    if interrupt.is_set() {
        return Err(Failure::new("interrupted before everything was compared"));
    }
    if document.bytes_different > 0 {
        let text = format!("the copies differ in {} bytes", document.bytes_different);
        return Err(Failure { reason: Reason::Different, message: text, damage: None });
    }
    if document.bytes_unreadable > 0 {
        let text = format!("{} bytes could not be read from every copy", document.bytes_unreadable);
        return Err(Failure::damage(text));
    }
    Ok(())
}

fn add(arguments: &AddArguments) -> Outcome {
    let set = open(&arguments.set)?;
    let added = new_copy(&arguments.copy, set.bytes()).and_then(|(copy, made)| {
        set.add(copy).map_err(|error| {
            if made {
                // The first failure is the one to report.
                let _ = std::fs::remove_file(&arguments.copy);
            }
            Failure::from(error)
        })
    });
    let document = close(&set)?;
    added?;
    output::result(arguments.output.json, &document, SetDocument::text)
}

fn resize(arguments: &ResizeArguments) -> Outcome {
    let set = open(&arguments.set)?;
    let resized = set.resize(arguments.size);
    let document = close(&set)?;
    resized?;
    output::result(arguments.output.json, &document, SetDocument::text)
}
