//! `cdp diff`: the ranges written between two points.
//!
//! The ranges are read twice, once for their sum and once to print them: a list of any length takes no memory, and a
//! failure is known before the first byte is printed.

use crate::{
    args::DiffArguments,
    exit::{Failure, Outcome},
    output::{diagnostic, human_size},
    owner,
};
use cdp_core::{Volume, units::Seq};
use std::io::{self, BufWriter, Write};

/// Runs the command.
pub fn run(arguments: &DiffArguments) -> Outcome {
    let reader = owner::open_reader(&arguments.store)?;
    let volume = reader.store.volume(arguments.volume.as_deref())?;
    let (from, to) = (reader.store.resolve(&arguments.from)?.seq, reader.store.resolve(&arguments.to)?.seq);
    if from > to {
        return Err(Failure::new(format!(
            "--from {} (seq {from}) is newer than --to {} (seq {to}); exchange them",
            arguments.from, arguments.to
        )));
    }
    // Both ends must be states that can be opened on this volume, or the difference would mean nothing.
    volume.snapshot(from)?;
    volume.snapshot(to)?;
    let (mut ranges, mut bytes) = (0_u64, 0_u64);
    for extent in volume.changed(from, to)? {
        ranges += 1;
        bytes += extent?.length;
    }
    match print(&volume, from, to, bytes, arguments.output.json) {
        Ok(()) => {}
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(Stopped::Output(error)) => return Err(Failure::new(format!("write to stdout: {error}"))),
        Err(Stopped::Store(error)) => return Err(error.into()),
    }
    if !arguments.output.json {
        diagnostic(&format!("{ranges} ranges, {} written in (seq {from}, seq {to}]", human_size(bytes)));
    }
    reader.finish()
}

/// Why printing stopped.
enum Stopped {
    Output(io::Error),
    Store(cdp_core::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn print(volume: &Volume, from: Seq, to: Seq, bytes: u64, json: bool) -> Result<(), Stopped> {
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        write!(out, "{{\"from_seq\":{from},\"to_seq\":{to},\"bytes\":{bytes},\"extents\":[")?;
    } else {
        writeln!(out, "{:>20} {:>20}", "offset", "length")?;
    }
    for (index, extent) in volume.changed(from, to).map_err(Stopped::Store)?.enumerate() {
        let extent = extent.map_err(Stopped::Store)?;
        if json {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{{\"offset\":{},\"length\":{}}}", extent.offset, extent.length)?;
        } else {
            writeln!(out, "{:>20} {:>20}", extent.offset, extent.length)?;
        }
    }
    if json {
        writeln!(out, "]}}")?;
    }
    out.flush()?;
    Ok(())
}
