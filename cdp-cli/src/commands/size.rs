//! `cdp size`: how large a history will be under a policy.

use super::retention::read_policy;
use crate::{
    args::SizeArguments,
    exit::{Failure, Outcome},
    output::{self, SizeDocument, Table},
};
use cdp_core::{
    retention::{SizeRate, size_of_rate, size_of_trace},
    trace::{TraceFormat, TraceReader},
};
use std::{fs::File, io::BufReader, path::Path};

/// Runs the command.
pub fn run(arguments: &SizeArguments) -> Outcome {
    let policy = read_policy(&arguments.policy)?;
    let size = match (&arguments.trace, arguments.rate, arguments.working_set) {
        (Some(path), _, _) => {
            let (first, second) = (open(path, arguments.format)?, open(path, arguments.format)?);
            size_of_trace(&policy, first, second)
                .map_err(|error| Failure::from(error).context(path.display()))?
        }
        (None, Some(bytes_per_day), Some(working_set_bytes)) => {
            size_of_rate(&policy, SizeRate { bytes_per_day, working_set_bytes })?
        }
        // The parser of arguments lets nothing else through.
        _ => return Err(Failure::new("give --trace, or --rate with --working-set")),
    };
    output::result(arguments.output.json, &SizeDocument::new(&size), human)
}

fn open(path: &Path, format: TraceFormat) -> Outcome<TraceReader<BufReader<File>>> {
    let file = File::open(path).map_err(|source| Failure::io("open", path, &source))?;
    if file.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Failure::new(format!("{} is not a regular file; a trace is read twice", path.display())));
    }
    Ok(TraceReader::new(BufReader::new(file), format))
}

fn human(size: &SizeDocument) -> String {
    let mut table = Table::new(["tier", "points", "versions", "data", "index", "written there"]);
    for tier in &size.tiers {
        table.row([
            tier.window.clone(),
            tier.points.to_string(),
            tier.versions.to_string(),
            output::human_size(tier.data_bytes),
            output::human_size(tier.index_bytes),
            output::human_size(tier.written_bytes),
        ]);
    }
    let mut text = format!("{}\nexpected in all: {}\n", table.text(), output::human_size(size.bytes));
    for assumption in &size.assumptions {
        text.push_str(&format!("- {assumption}\n"));
    }
    text
}
