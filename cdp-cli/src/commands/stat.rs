//! `cdp stat`: sizes, write amplification, memory, and the state of each volume.

use crate::{
    args::StoreArguments,
    exit::Outcome,
    output::{self, StatDocument, Table},
    owner,
};
use cdp_core::text::format_duration;
use std::fmt::Write;

/// Runs the command.
pub fn run(arguments: &StoreArguments) -> Outcome {
    let reader = owner::open_reader(&arguments.store)?;
    let rss_bytes = reader.owner.as_ref().map_or_else(owner::resident_bytes, |owner| owner.rss_bytes);
    let mut document = StatDocument::new(&reader.store.stats()?, rss_bytes);
    if let Some(owner) = &reader.owner {
        // Only the owner knows what is under way.
        document.volumes.clone_from(&owner.volumes);
        document.live.clone_from(&owner.live);
    }
    output::result(arguments.output.json, &document, human)?;
    reader.finish()
}

fn human(stat: &StatDocument) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "stored               {}", output::human_size(stat.stored_bytes));
    let _ = writeln!(text, "written by sources   {}", output::human_size(stat.source_bytes));
    let _ = writeln!(text, "write amplification  {:.2}", stat.write_amplification);
    let _ = writeln!(text, "segments             {}", stat.segments);
    let _ = writeln!(text, "index runs           {}", stat.runs);
    let _ = writeln!(text, "versions             {}", stat.versions);
    let _ = writeln!(text, "points               {}", stat.points);
    let _ = writeln!(text, "every state from     {}", stat.horizon);
    let _ = writeln!(text, "memory               {}", output::human_size(stat.rss_bytes));
    if let Some(live) = &stat.live {
        let (bytes, age) = (output::human_size(live.lag_bytes), format_duration(live.lag_ns));
        let _ = writeln!(text, "not durable yet      {bytes}, {age}");
        let _ = writeln!(text, "coalescing           {:.2}", live.coalescing_ratio);
        if let Some(pool) = &live.pool {
            let used = pool.frames.saturating_sub(pool.frames_free);
            let _ = writeln!(text, "pool                 {used} of {} MiB", pool.frames);
        }
    }
    text.push('\n');
    let mut table = Table::new(["volume", "mode", "behind", "behind by", "dirty"]);
    for volume in &stat.volumes {
        table.row([
            volume.name.clone(),
            volume.mode.clone(),
            output::human_size(volume.lag_bytes),
            format_duration(volume.lag_ns),
            output::human_size(volume.dirty_bytes),
        ]);
    }
    text.push_str(&table.text());
    text
}
