//! `cdp resync`: makes the newest state of a volume equal to a file or device.

use super::absolute;
use crate::{
    args::{ModeArgument, ResyncArguments},
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output::{self, ResyncDocument},
    owner::{self, ModeText, Reply, Request, ResyncRequest},
};

/// Runs the command.
pub fn run(arguments: ResyncArguments) -> Outcome {
    let interrupt = Interrupt::register()?;
    let request = Request::Resync(ResyncRequest {
        source: absolute(&arguments.source)?,
        mode: match arguments.mode {
            ModeArgument::Full => ModeText::Full,
            ModeArgument::Digest => ModeText::Digest,
            ModeArgument::Map => ModeText::Map,
            ModeArgument::Quick => ModeText::Quick,
        },
        volume: arguments.volume,
        rate: arguments.rate,
        source_unchanged: arguments.source_unchanged,
        time_ns: arguments.time.map(|time| time.get()),
    });
    let document = match owner::change(&arguments.store, &request, "resync", &interrupt)? {
        Reply::Resync(document) => document,
        _ => return Err(Failure::new("the owner of the store gave an answer to something else")),
    };
    output::result(arguments.output.json, &document, human)
}

fn human(resync: &ResyncDocument) -> String {
    if resync.mode == "quick" {
        return "nothing was compared: volume and source are as they were when they were last equal, by the size, \
                times and inode of the source\n"
            .to_owned();
    }
    format!(
        "{} compared by {}, {} differed, {} taken over, in {:.2} s\n{} of the source were read, {} of the store\n",
        output::human_size(resync.bytes_compared),
        resync.mode,
        output::human_size(resync.bytes_different),
        output::human_size(resync.bytes_transferred),
        resync.seconds,
        output::human_size(resync.source_bytes_read),
        output::human_size(resync.store_bytes_read),
    )
}
