//! `cdp replay`: drives the engine with a block trace.

use super::absolute;
use crate::{
    args::{ReplayArguments, Speed},
    exit::{Failure, Outcome},
    interrupt::Interrupt,
    output::{self, ReplayDocument, to_float},
    owner::{self, FillText, FormatText, ReplayRequest, Reply, Request, TapText},
};
use cdp_core::trace::{Fill, TraceFormat};

/// Runs the command.
pub fn run(arguments: ReplayArguments) -> Outcome {
    let tap = match arguments.source.as_deref().filter(|_| arguments.tap) {
        None => None,
        Some(source) => Some(TapText {
            source: absolute(source)?,
            throttle: arguments.throttle,
            wait: !arguments.no_wait,
            resync_rate: arguments.resync_rate,
            resync_delay_ns: arguments.resync_delay,
            resync_latency_ns: arguments.resync_latency,
        }),
    };
    let interrupt = Interrupt::register()?;
    let request = Request::Replay(ReplayRequest {
        trace: absolute(&arguments.trace)?,
        volume: arguments.volume,
        fill: match arguments.fill {
            Fill::Stamp => FillText::Stamp,
            Fill::Random => FillText::Random,
            Fill::Zero => FillText::Zero,
        },
        real_time: arguments.speed == Speed::Real,
        format: match arguments.format {
            TraceFormat::Csv => FormatText::Csv,
            TraceFormat::Msr => FormatText::Msr,
        },
        tap,
        interval_ns: arguments.granularity,
    });
    let document = match owner::change(&arguments.store, &request, "replay", &interrupt)? {
        Reply::Replay(document) => document,
        _ => return Err(Failure::new("the owner of the store gave an answer to something else")),
    };
    output::result(arguments.output.json, &document, human)
}

fn human(replay: &ReplayDocument) -> String {
    let seqs = match (replay.first_seq, replay.last_seq) {
        (Some(first), Some(last)) => format!(", seq {first} to {last}"),
        _ => String::new(),
    };
    format!(
        "{} writes, {} in {:.2} s{seqs}\n{:.0} writes/s, {:.1} MiB/s; the store takes up {}\n",
        replay.writes,
        output::human_size(replay.bytes),
        replay.seconds,
        replay.writes_per_s,
        replay.bytes_per_s / to_float(1 << 20),
        output::human_size(replay.stored_bytes)
    )
}
