//! `cdp verify`: compares the newest state of a volume with a file or device, byte by byte.
//!
//! Exit: 0 when they are equal, or `--repair` has mended everything; 5 when they differ; 3 when the store has damage that was not mended.

use super::absolute;
use crate::{
    args::VerifyArguments,
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output::{self, VerifyDocument},
    owner::{self, Reply, Request, VerifyRequest},
};
use std::fmt::Write;

/// Extents that are listed for people.
const EXTENTS_SHOWN: usize = 20;

/// Runs the command.
pub fn run(arguments: VerifyArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    let request = Request::Verify(VerifyRequest {
        source: absolute(&arguments.source)?,
        repair: arguments.repair,
        volume: arguments.volume,
        rate: arguments.rate,
        cursor: arguments.cursor.as_deref().map(absolute).transpose()?,
    });
    let found = match owner::change(&arguments.store, &request, "verify", &interrupt)? {
        Reply::Verify(document) => document,
        _ => return Err(Failure::new("the owner of the store gave an answer to something else")),
    };
    output::result(arguments.output.json, &found, human)?;
    if found.repaired || found.bytes_different == 0 {
        return Ok(());
    }
    let size = output::human_size(found.bytes_different);
    if found.bytes_damaged > 0 {
        return Err(Failure::damage(format!(
            "{size} differ, of which {} cannot be read from the store; run it with --repair to mend the store from the source",
            output::human_size(found.bytes_damaged)
        )));
    }
    Err(Failure::different(format!(
        "{size} differ; run it with --repair to make the store equal to the source"
    )))
}

fn human(found: &VerifyDocument) -> String {
    let mut text =
        format!("{} compared in {:.2} s: ", output::human_size(found.bytes_compared), found.seconds);
    if found.bytes_different == 0 {
        text.push_str("equal\n");
    } else {
        let mended = if found.repaired { ", all of it mended" } else { "" };
        let _ = writeln!(text, "{} differ{mended}", output::human_size(found.bytes_different));
        for extent in found.extents.iter().take(EXTENTS_SHOWN) {
            let _ = writeln!(text, "{:>20} {:>20}", extent.offset, extent.length);
        }
        let more = found.extents.len().saturating_sub(EXTENTS_SHOWN);
        if more > 0 || found.extents_left_out > 0 {
            let _ = writeln!(text, "and {} more", u64::try_from(more).unwrap_or(0) + found.extents_left_out);
        }
    }
    if found.bytes_unsettled > 0 {
        let size = output::human_size(found.bytes_unsettled);
        let _ = writeln!(text, "{size} changed all the time, and nothing is known of them");
    }
    text
}
