//! Resync and verify at the owner of a store.

use super::{
    cursor_file::CursorFile,
    execute::Events,
    protocol::{ModeText, ResyncRequest, ScrubRequest, VerifyRequest},
};
use crate::{
    commands::mirror,
    exit::{Failure, Outcome},
    image::ComparedSource,
    output::{ResyncDocument, ScrubDocument, VerifyDocument, human_size},
};
use cdp_core::{
    Progress, ResyncMode, ResyncOptions, SourceReader, Store, VerifyCursor, VerifyOptions, VerifyResume, job,
    units::TimeNs,
};
use std::{path::Path, sync::Arc};

/// Threads that read the source ahead: as many requests in flight as a disk needs to be read at its speed.
const READERS: usize = 4;

/// The source of a volume: a file, a device or a mirror set.
fn open(store: &Store, volume: Option<&str>, source: &Path) -> Outcome<Arc<dyn SourceReader>> {
    let volume = store.volume(volume)?;
    if source.is_dir() {
        let set = mirror::open(source)?;
        if set.bytes() != volume.bytes() {
            return Err(Failure::new(format!(
                "mirror set {} has {} bytes and volume {} has {}; name another volume with --volume",
                source.display(),
                set.bytes(),
                volume.name(),
                volume.bytes()
            )));
        }
        return Ok(Arc::new(set));
    }
    Ok(Arc::new(ComparedSource::open(source, volume.name(), volume.bytes())?))
}

/// Makes a volume equal to a source.
///
/// # Errors
/// Those of the store and the source; `Failed` when it was interrupted.
pub fn resync(store: &Store, request: &ResyncRequest, events: &mut dyn Events) -> Outcome<ResyncDocument> {
    let source = open(store, request.volume.as_deref(), &request.source)?;
    let options = ResyncOptions {
        mode: match request.mode {
            ModeText::Full => ResyncMode::Full,
            ModeText::Digest => ResyncMode::Digest,
            ModeText::Map => ResyncMode::Map,
            ModeText::Quick => ResyncMode::Quick,
        },
        readers: READERS,
        bytes_per_second_max: request.rate,
        source_is_unchanged: request.source_unchanged,
        time: request.time_ns.map(TimeNs::new),
        ..ResyncOptions::default()
    };
    let interrupt = events.interrupt();
    let report = store.resync_from(
        request.volume.as_deref(),
        source,
        &options,
        &mut |progress: Progress| events.progress(progress.done, progress.total),
        &|| interrupt.is_set(),
    )?;
    if report.bytes_left > 0 {
        return Err(Failure::new(format!(
            "interrupted; {} are still to be compared, and the next run goes on there if the source is not changed",
            human_size(report.bytes_left)
        )));
    }
    if let Some(why) = &report.fallback {
        events.note(&format!("cdp: {why}; the whole source was compared by digests"));
    } else if report.resumed {
        events.note("cdp: went on where an earlier run had ended");
    }
    Ok((&report).into())
}

/// Compares a volume with a source.
///
/// # Errors
/// Those of the store and the source; `Failed` when it was interrupted. Differences are in the document.
pub fn verify(store: &Store, request: &VerifyRequest, events: &mut dyn Events) -> Outcome<VerifyDocument> {
    let source = open(store, request.volume.as_deref(), &request.source)?;
    let options = VerifyOptions {
        repair: request.repair,
        readers: READERS,
        bytes_per_second_max: request.rate,
        ..VerifyOptions::default()
    };
    let file = request.cursor.as_deref().map(CursorFile);
    let from = file.as_ref().map_or(Ok(None), CursorFile::load)?;
    if let Some(from) = &from {
        events.note(&format!("cdp: {} were compared by an earlier run", human_size(from.compared())));
    }
    let mut keep = |cursor: &VerifyCursor| file.as_ref().map_or(Ok(()), |file| file.keep(cursor));
    let interrupt = events.interrupt();
    let report = store.verify_resumable(
        request.volume.as_deref(),
        source,
        &options,
        VerifyResume { from, keep: &mut keep },
        &mut |progress: Progress| events.progress(progress.done, progress.total),
        &|| interrupt.is_set(),
    )?;
    if !report.complete {
        let next = match file {
            Some(_) => "; the next run with the same --cursor goes on there",
            None => "; with --cursor FILE a run can be taken up again",
        };
        return Err(Failure::new(format!(
            "interrupted before everything was compared; nothing was changed{next}"
        )));
    }
    if let Some(file) = file {
        file.remove()?;
    }
    Ok((&report).into())
}

/// Checks everything, and repairs payload from a source where there is one.
///
/// # Errors
/// Those of the store and the source; `Failed` when it was interrupted. Damage is in the document.
pub fn scrub(store: &Store, request: &ScrubRequest, events: &mut dyn Events) -> Outcome<ScrubDocument> {
    let volume = store.volume(request.volume.as_deref())?;
    let source =
        request.source.as_ref().map(|path| open(store, request.volume.as_deref(), path)).transpose()?;
    let sources: Vec<(&str, Arc<dyn SourceReader>)> =
        source.into_iter().map(|source| (volume.name(), source)).collect();
    let interrupt = events.interrupt();
    let mut scrub = store.scrub_job(&sources)?;
    scrub.limit_rate(request.rate);
    let mut progress = |progress: Progress| events.progress(progress.done, progress.total);
    match job::run(&mut scrub, &mut progress, &|| interrupt.is_set())? {
        true => Ok(scrub.report().into()),
        false if scrub.is_checked() => Err(Failure::new(
            "interrupted before all damage was looked at; what was written anew stays, and another run goes on",
        )),
        false => Err(Failure::new("interrupted before everything was checked; nothing was changed")),
    }
}
