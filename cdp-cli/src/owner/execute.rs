//! Makes a change to a store that this process owns.

use super::{
    import,
    protocol::{NewBookmarkRequest, Reply, Request, StatusReply},
    replay, resident_bytes, resync,
};
use crate::{
    exit::{Failure, Outcome},
    image::ImageSource,
    interrupt::Interrupt,
    output::{LiveDocument, StatDocument, VolumeDocument},
};
use cdp_core::{
    NewBookmark, Progress, Store,
    io::{Clock, SystemClock},
    retention::Policy,
    units::TimeNs,
};

/// Whoever wants to hear how a request goes.
pub trait Events {
    /// `done` of `total` bytes are done.
    fn progress(&mut self, done: u64, total: u64);

    /// Something for the user to know; an empty text is a mere sign of life.
    fn note(&mut self, text: &str);

    /// Set when the work is to end early.
    fn interrupt(&self) -> Interrupt;
}

/// Carries out a request.
///
/// # Errors
/// Those of the store, as the failure that the command ends with.
pub fn execute(store: &Store, request: &Request, events: &mut dyn Events) -> Outcome<Reply> {
    match request {
        Request::Status => status(store),
        Request::AddVolume { name, bytes, import, time_ns } => {
            let volume = match import {
                None => store.add_volume(name, *bytes)?,
                Some(path) => {
                    let mut source = ImageSource::open(path, events.interrupt())?;
                    check_fits(&source, *bytes)?;
                    store.import_volume(
                        name,
                        *bytes,
                        &mut source,
                        time_ns.map(TimeNs::new),
                        &mut |progress: Progress| {
                            events.progress(progress.done, progress.total);
                        },
                    )?
                }
            };
            Ok(Reply::Volume(VolumeDocument { name: volume.name().to_owned(), size: volume.bytes() }))
        }
        Request::AddBookmark(new) => {
            let bookmark = store.add_bookmark(&new_bookmark(new)?)?;
            Ok(Reply::Bookmark((&bookmark).into()))
        }
        Request::LockBookmark { name, locked } => {
            store.lock_bookmark(name, *locked)?;
            let bookmarks = store.bookmarks();
            let changed = bookmarks.iter().find(|bookmark| bookmark.name == *name);
            Ok(changed.map_or(Reply::Done, |bookmark| Reply::Bookmark(bookmark.into())))
        }
        Request::DeleteBookmark { name } => {
            store.delete_bookmark(name)?;
            Ok(Reply::Done)
        }
        Request::Replay(request) => replay::replay(store, request, events).map(Reply::Replay),
        Request::ResizeVolume { name, bytes } => {
            store.resize_volume(name, *bytes)?;
            Ok(Reply::Volume(VolumeDocument { name: name.clone(), size: store.volume(Some(name))?.bytes() }))
        }
        Request::Resync(request) => resync::resync(store, request, events).map(Reply::Resync),
        Request::Verify(request) => resync::verify(store, request, events).map(Reply::Verify),
        Request::Scrub(request) => resync::scrub(store, request, events).map(Reply::Scrub),
        Request::Import(request) => import::import(store, request, events).map(Reply::Import),
        Request::SetPolicy { policy } => {
            store.set_policy(&Policy::from_json(policy)?)?;
            Ok(Reply::Done)
        }
        Request::RunRetention { now_ns } => {
            let now = now_ns.map_or_else(|| SystemClock.now(), TimeNs::new);
            Ok(Reply::Retention((&store.run_retention(now)?).into()))
        }
    }
}

fn status(store: &Store) -> Outcome<Reply> {
    // Before the flush, which ends what they tell of.
    let live = Box::new(LiveDocument::from(&store.stats()?));
    let durable = store.flush()?;
    let rss_bytes = resident_bytes();
    let stats = store.stats()?;
    let mut statistics = StatDocument::new(&stats, rss_bytes);
    for (document, volume) in statistics.volumes.iter_mut().zip(&stats.volumes) {
        document.writes = Some((&volume.writes).into());
    }
    Ok(Reply::Status(StatusReply {
        pid: std::process::id(),
        rss_bytes,
        durable_seq: durable.get(),
        volumes: statistics.volumes,
        live: Some(live),
    }))
}

fn new_bookmark(new: &NewBookmarkRequest) -> Outcome<NewBookmark> {
    Ok(NewBookmark {
        name: new.name.clone(),
        kind: new.kind.parse()?,
        app: new.app.clone(),
        comment: new.comment.clone(),
        locked: new.locked,
        expires: new.expires_ns.map(TimeNs::new),
        at: new.at.as_deref().map(str::parse).transpose()?,
        time: None,
        require_exact: new.require_exact,
    })
}

/// Refuses an image that does not fit on its volume.
pub fn check_fits(source: &ImageSource, bytes: u64) -> Outcome {
    let image_bytes = source.sector_bytes();
    if image_bytes > bytes {
        return Err(Failure::new(format!(
            "the image has {image_bytes} bytes and does not fit on a volume of {bytes}; give a larger --size"
        )));
    }
    Ok(())
}
