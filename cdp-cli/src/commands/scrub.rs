//! `cdp scrub`: verifies every structure and payload, and writes what rotted anew where a source still has it.
//!
//! Exit: 0 when nothing is damaged, or all of it was repaired; 3 when damage is left.

use super::absolute;
use crate::{
    args::ScrubArguments,
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output::{self, ScrubDocument, Table},
    owner::{self, Reply, Request, ScrubRequest},
};
use std::fmt::Write;

/// Runs the command.
pub fn run(arguments: ScrubArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    let has_source = arguments.source.is_some();
    let request = Request::Scrub(ScrubRequest {
        source: arguments.source.as_deref().map(absolute).transpose()?,
        volume: arguments.volume,
        rate: arguments.rate,
    });
    let scrubbed = match owner::change(&arguments.store, &request, "scrub", &interrupt)? {
        Reply::Scrub(document) => document,
        _ => return Err(Failure::new("the owner of the store gave an answer to something else")),
    };
    output::result(arguments.output.json, &scrubbed, human)?;
    match (scrubbed.damaged.len(), has_source) {
        (0, _) => Ok(()),
        (count, true) => Err(Failure::damage(format!("{count} damaged ranges are left"))),
        (count, false) => Err(Failure::damage(format!(
            "{count} damaged ranges; give what the volume protects with --source to repair what it still has"
        ))),
    }
}

fn human(scrubbed: &ScrubDocument) -> String {
    if scrubbed.found.is_empty() {
        return "no damage\n".to_owned();
    }
    let mut text = format!(
        "{} damaged ranges; {} versions of blocks written anew ({}), {} lost\n",
        scrubbed.found.len(),
        scrubbed.versions_repaired,
        output::human_size(scrubbed.bytes_repaired),
        scrubbed.versions_lost
    );
    if !scrubbed.damaged.is_empty() {
        let mut table = Table::new(["still damaged", "offset", "length", "what"]);
        for damage in &scrubbed.damaged {
            table.row([
                damage.file.clone(),
                damage.offset.to_string(),
                damage.length.to_string(),
                damage.what.clone(),
            ]);
        }
        text.push_str(&table.text());
    }
    if scrubbed.left_out > 0 {
        let _ = writeln!(text, "and {} ranges that are not listed", scrubbed.left_out);
    }
    text
}
