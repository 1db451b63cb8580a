//! Taking a seed set over, at the owner of a store.

use super::{execute::Events, protocol::ImportRequest};
use crate::{
    exit::{Failure, Outcome},
    output::{ImportDocument, human_size},
};
use cdp_core::{
    ImportSeedOptions, Progress, SeedSet, Store,
    io::{DirectoryOptions, DirectoryStorage},
    units::TimeNs,
};
use std::{ops::ControlFlow, path::Path, sync::Arc};

/// Opens the set in a directory.
///
/// # Errors
/// Those of the directory and the set.
pub fn open_set(path: &Path) -> Outcome<Arc<SeedSet>> {
    let storage = DirectoryStorage::open_read_only(path, DirectoryOptions::default());
    let storage = storage.map_err(|source| Failure::io("open the set in", path, &source))?;
    let set = SeedSet::open(Arc::new(storage));
    Ok(Arc::new(set.map_err(|error| Failure::from(error).context(path.display()))?))
}

/// Makes a volume equal to the state that a set leads to.
///
/// # Errors
/// Those of the store and the set; `Failed` when it was interrupted.
pub fn import(store: &Store, request: &ImportRequest, events: &mut dyn Events) -> Outcome<ImportDocument> {
    let set = open_set(&request.set)?;
    let interrupt = events.interrupt();
    if request.verify {
        let mut progress = |progress: Progress| {
            events.progress(progress.done, progress.total);
            if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        set.verify(&mut progress)?;
        if interrupt.is_set() {
            return Err(Failure::new("interrupted before the set was verified; nothing was changed"));
        }
    }
    let options = ImportSeedOptions {
        bytes_per_second_max: request.rate,
        time: request.time_ns.map(TimeNs::new),
        ..ImportSeedOptions::default()
    };
    let done = store.import_seed(
        &set,
        request.volume.as_deref(),
        &options,
        &mut |progress: Progress| events.progress(progress.done, progress.total),
        &|| interrupt.is_set(),
    )?;
    if done.bytes_left > 0 {
        return Err(Failure::new(format!(
            "interrupted; {} are still to be compared, and the next import of the set goes on there",
            human_size(done.bytes_left)
        )));
    }
    if done.resumed {
        events.note("cdp: went on where an earlier import of this set had ended");
    }
    Ok(ImportDocument {
        volume: done.volume,
        origin_seq: set.about().at.seq.get(),
        seq: store.newest().seq.get(),
        bytes_compared: done.counts.bytes_compared,
        bytes_different: done.counts.bytes_different,
        bytes_transferred: done.counts.bytes_transferred,
        seconds: done.seconds,
        resumed: done.resumed,
    })
}
