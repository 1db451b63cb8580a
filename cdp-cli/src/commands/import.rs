//! `cdp import`: makes a volume equal to the state that an exported set leads to.
//!
//! A store that does not exist is made, with the volume of a whole set as its first one; an import that fails leaves it there, for the next run to go on.

use super::absolute;
use crate::{
    args::ImportArguments,
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output::{self, ImportDocument},
    owner::{self, ImportRequest, Reply, Request},
};
use cdp_core::{
    CreateOptions, OpenOptions, Store,
    io::{DirectoryOptions, DirectoryStorage},
};
use std::sync::Arc;

/// Runs the command.
pub fn run(arguments: &ImportArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    // A set that is none is found before anything is made.
    let set = owner::open_set(&arguments.set)?;
    if !arguments.store.exists() {
        let about = set.about();
        if about.since.is_some() {
            return Err(Failure::new(format!(
                "{} does not exist, and the set goes on from an older state; import a whole set first",
                arguments.store.display()
            )));
        }
        let volume = arguments.volume.clone().unwrap_or_else(|| about.name.clone());
        let storage = DirectoryStorage::create(&arguments.store, DirectoryOptions::default())
            .map_err(|source| Failure::io("make store", &arguments.store, &source))?;
        let create = CreateOptions { volume, bytes: about.at.bytes };
        Store::create(Arc::new(storage), &create, OpenOptions::default())?.close()?;
    }
    let request = Request::Import(ImportRequest {
        set: absolute(&arguments.set)?,
        volume: arguments.volume.clone(),
        verify: arguments.verify,
        rate: arguments.rate,
        time_ns: arguments.time.map(|time| time.get()),
    });
    let document = match owner::change(&arguments.store, &request, "import", &interrupt)? {
        Reply::Import(document) => document,
        _ => return Err(Failure::new("the owner of the store gave an answer to something else")),
    };
    output::result(arguments.output.json, &document, human)
}

fn human(import: &ImportDocument) -> String {
    format!(
        "volume {} is in the state of seq:{} of the original, which is seq:{} here: {} compared, {} differed, {} taken over, in {:.2} s\n",
        import.volume,
        import.origin_seq,
        import.seq,
        output::human_size(import.bytes_compared),
        output::human_size(import.bytes_different),
        output::human_size(import.bytes_transferred),
        import.seconds,
    )
}
