//! `cdp export`: a volume at a point as a portable set of files.

use crate::{
    args::ExportArguments,
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output::{self, ExportDocument},
    owner,
    progress::Bar,
};
use cdp_core::{
    ExportOptions, Progress,
    io::{DirectoryOptions, DirectoryStorage, Storage},
    text::format_time,
};
use std::{io, ops::ControlFlow, time::Instant};

/// Runs the command.
pub fn run(arguments: &ExportArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    let started = Instant::now();
    let reader = owner::open_reader(&arguments.store)?;
    let volume = reader.store.volume(arguments.volume.as_deref())?;
    let at = reader.store.resolve(&arguments.at)?;
    let since = arguments.since.as_ref().map(|since| reader.store.resolve(since)).transpose()?;
    let options = ExportOptions {
        since: since.map(|since| since.seq),
        file_bytes_max: arguments.file_size,
        compress: !arguments.no_compress,
    };
    let mut begun = false;
    let storage = match DirectoryStorage::create(&arguments.to, DirectoryOptions::default()) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            begun = true;
            DirectoryStorage::open(&arguments.to, DirectoryOptions::default())
        }
        other => other,
    };
    let storage = storage.map_err(|source| Failure::io("make the set in", &arguments.to, &source))?;
    if begun && storage.list().map_err(|source| Failure::io("list", &arguments.to, &source))?.is_empty() {
        let to = arguments.to.display();
        return Err(Failure::new(format!(
            "{to} is not empty, and holds no set; choose a new or an empty directory"
        )));
    }
    let bar = Bar::new("export");
    let done = volume.export(at.seq, &storage, &options, &mut |progress: Progress| {
        bar.show(progress.done, progress.total);
        if interrupt.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(bar);
    if !done.complete {
        return Err(Failure::new("interrupted; the same command goes on behind the last whole file"));
    }
    let document = ExportDocument {
        set: done.about.set.to_string(),
        volume: done.about.name.clone(),
        seq: at.seq.get(),
        time: format_time(at.time),
        since_seq: since.map(|since| since.seq.get()),
        bytes: done.about.at.bytes,
        data_bytes: done.data_bytes,
        stored_bytes: done.stored_bytes,
        files: u64::try_from(done.files).unwrap_or(u64::MAX),
        resumed: done.resumed,
        seconds: started.elapsed().as_secs_f64(),
    };
    output::result(arguments.output.json, &document, |export| {
        let from = export.since_seq.map_or_else(String::new, |seq| format!(" since seq:{seq}"));
        format!(
            "{}: volume {} at seq:{}{from}, {} of data as {} in {} files, in {:.2} s\n",
            arguments.to.display(),
            export.volume,
            export.seq,
            output::human_size(export.data_bytes),
            output::human_size(export.stored_bytes),
            export.files,
            export.seconds
        )
    })
}
