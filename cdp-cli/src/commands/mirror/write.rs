//! `cdp mirror write`: drives a set with a block trace.
//!
//! A line that cannot be carried out ends the trace with its number; the lines before it are made durable and stay.

use super::{
    arguments::WriteArguments,
    close,
    documents::{SetDocument, WriteDocument},
    open_with, seconds_since,
};
use crate::{
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output::{self, to_float},
};
use cdp_core::{
    mirror::{MirrorOptions, MirrorSet, Writers},
    trace::{Fill, TraceLine, TraceOp, TraceReader},
};
use std::{fs::File, io::BufReader, time::Instant};

/// Bytes of the trace that are read at a time.
const READ_BYTES: usize = 256 << 10;

/// Lines and bytes carried out.
#[derive(Default)]
struct Counts {
    writes: u64,
    bytes: u64,
}

/// Runs the command.
pub fn run(arguments: &WriteArguments) -> Outcome {
    let path = &arguments.trace;
    let file = File::open(path).map_err(|source| Failure::io("open", path, &source))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::new(format!("{} is a directory, not a trace", path.display())));
    }
    let lines = TraceReader::new(BufReader::with_capacity(READ_BYTES, file), arguments.format);
    let writers = if arguments.parallel { Writers::Threads } else { Writers::Caller };
    let set = open_with(&arguments.set, MirrorOptions { writers, ..MirrorOptions::default() })?;
    let interrupt = Interrupt::register()?;
    let (started, mut counts) = (Instant::now(), Counts::default());
    let carried_out = carry_out(&set, lines, arguments.fill, &interrupt, &mut counts);
    let flushed = set.flush();
    let seconds = seconds_since(started);
    let closed = close(&set);
    carried_out.map_err(|failure| failure.context(path.display()))?;
    flushed?;
    let seconds_at_least = seconds.max(1e-9);
    let document = WriteDocument {
        set: closed?,
        writes: counts.writes,
        bytes: counts.bytes,
        seconds,
        writes_per_s: to_float(counts.writes) / seconds_at_least,
        bytes_per_s: to_float(counts.bytes) / seconds_at_least,
    };
    output::result(arguments.output.json, &document, human)
}

fn human(document: &WriteDocument) -> String {
    format!(
        "{} writes, {} in {:.2} s\n{}",
        document.writes,
        output::human_size(document.bytes),
        document.seconds,
        SetDocument::text(&document.set)
    )
}

fn carry_out(
    set: &MirrorSet,
    lines: impl Iterator<Item = cdp_core::Result<TraceLine>>,
    fill: Fill,
    interrupt: &Interrupt,
    counts: &mut Counts,
) -> Outcome {
    let mut buf = Vec::new();
    for line in lines {
        let line = line?;
        if interrupt.is_set() {
            return Err(Failure::new(format!("interrupted before line {}", line.line_number)));
        }
        one(set, &line, fill, &mut buf)
            .map_err(|error| Failure::from(error).context(format!("line {}", line.line_number)))?;
        if let Some((_, length)) = line.op.range() {
            counts.writes += 1;
            counts.bytes += length;
        }
    }
    Ok(())
}

fn one(set: &MirrorSet, line: &TraceLine, fill: Fill, buf: &mut Vec<u8>) -> cdp_core::Result<()> {
    match line.op {
        TraceOp::Write { offset, length } => {
            let too_long = || cdp_core::Error::OutOfRange { offset, length, volume_bytes: set.bytes() };
            buf.resize(usize::try_from(length).map_err(|_| too_long())?, 0);
            fill.fill(offset, line.counted, buf);
            set.write(offset, buf)
        }
        TraceOp::Zero { offset, length } => set.write_zeroes(offset, length),
        TraceOp::Discard { offset, length } => set.discard(offset, length),
        TraceOp::Flush => set.flush(),
        TraceOp::Bookmark(_) => Ok(()),
    }
}
