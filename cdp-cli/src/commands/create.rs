//! `cdp create`: a new store, empty or from an image.
//!
//! Invariant *all or nothing*: when it fails, what it made is removed again.

use crate::{
    args::CreateArguments,
    exit::{Failure, Outcome},
    image::ImageSource,
    interrupt::Interrupt,
    output::{self, CreatedDocument, VolumeDocument},
    owner::check_fits,
    progress::Bar,
};
use cdp_core::{
    CreateOptions, OpenOptions, Progress, Store,
    io::{DirectoryOptions, DirectoryStorage},
    text::format_size,
};
use std::{fs, path::Path, sync::Arc};

/// Runs the command.
pub fn run(arguments: &CreateArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    let image =
        arguments.import.as_deref().map(|path| ImageSource::open(path, interrupt.clone())).transpose()?;
    let bytes = match (arguments.size, &image) {
        (Some(bytes), Some(image)) => check_fits(image, bytes).map(|()| bytes)?,
        (Some(bytes), None) => bytes,
        (None, image) => image.as_ref().map_or(0, ImageSource::sector_bytes),
    };
    if bytes == 0 {
        return Err(Failure::new("the image is empty; give the size of the volume with --size"));
    }
    let existed = arguments.store.exists();
    let storage = DirectoryStorage::create(&arguments.store, DirectoryOptions::default())
        .map_err(|source| Failure::io("make store", &arguments.store, &source))?;
    let made = make(arguments, bytes, storage, image);
    if made.is_err() {
        // The first failure is the one to report.
        let _ = remove(&arguments.store, existed);
    }
    output::result(arguments.output.json, &made?, |created| {
        format!(
            "{}: store with volume {} of {}\n",
            created.store,
            created.volume.name,
            format_size(created.volume.size)
        )
    })
}

fn make(
    arguments: &CreateArguments,
    bytes: u64,
    storage: DirectoryStorage,
    image: Option<ImageSource>,
) -> Outcome<CreatedDocument> {
    let create = CreateOptions { volume: arguments.volume.clone(), bytes };
    let (storage, open) = (Arc::new(storage), OpenOptions::default());
    let store = match image {
        None => Store::create(storage, &create, open)?,
        Some(mut image) => {
            let bar = Bar::new("import");
            Store::create_with_import(
                storage,
                &create,
                open,
                &mut image,
                arguments.time,
                &mut |progress: Progress| {
                    bar.show(progress.done, progress.total);
                },
            )?
        }
    };
    let newest = store.newest();
    store.close()?;
    Ok(CreatedDocument {
        store: arguments.store.display().to_string(),
        volume: VolumeDocument { name: arguments.volume.clone(), size: bytes },
        newest: newest.into(),
    })
}

/// Removes what a failed creation left in a directory that was empty or not there.
fn remove(store: &Path, existed: bool) -> std::io::Result<()> {
    if !existed {
        return fs::remove_dir_all(store);
    }
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
