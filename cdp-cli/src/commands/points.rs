//! `cdp points`: what can be recovered.

use super::bookmark;
use crate::{
    args::StoreArguments,
    exit::Outcome,
    output::{self, PointsDocument, Table},
    owner,
};
use std::fmt::Write;

/// Runs the command.
pub fn run(arguments: &StoreArguments) -> Outcome {
    let reader = owner::open_reader(&arguments.store)?;
    let document = PointsDocument::from(&reader.store.timeline()?);
    output::result(arguments.output.json, &document, human)?;
    reader.finish()
}

/// The tables for people.
pub(super) fn human(points: &PointsDocument) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "oldest      seq {} ({})", points.oldest.seq, points.oldest.time);
    let _ = writeln!(text, "newest      seq {} ({})", points.newest.seq, points.newest.time);
    if let Some(exact) = points.newest_exact.as_ref().filter(|exact| exact.seq != points.newest.seq) {
        let _ = writeln!(text, "exact up to seq {} ({}) in all volumes", exact.seq, exact.time);
    }
    let _ = writeln!(text, "covered to  {}\n", points.covered_to);
    let mut exact = Table::new(["every point of", "from seq", "to seq", "from", "to", "granularity"]);
    for range in &points.exact {
        exact.row([
            range.volume.clone(),
            range.from_seq.to_string(),
            range.to_seq.to_string(),
            range.from_time.clone(),
            range.to_time.clone(),
            range.granularity.clone(),
        ]);
    }
    text.push_str(&exact.text());
    if !points.gaps.is_empty() {
        let mut gaps = Table::new(["gap in", "from seq", "to seq", "from", "to", "reason"]);
        for gap in &points.gaps {
            gaps.row([
                gap.volume.clone(),
                gap.from_seq.to_string(),
                gap.to_seq.to_string(),
                gap.from_time.clone(),
                gap.to_time.clone(),
                gap.reason.clone(),
            ]);
        }
        text.push('\n');
        text.push_str(&gaps.text());
    }
    if !points.retained.is_empty() {
        let mut retained = Table::new(["retained seq", "time", "window", "why"]);
        for point in &points.retained {
            retained.row([
                point.seq.to_string(),
                point.time.clone(),
                point.window.clone(),
                point.why.clone(),
            ]);
        }
        text.push('\n');
        text.push_str(&retained.text());
    }
    if !points.bookmarks.is_empty() {
        text.push('\n');
        text.push_str(&bookmark::table(&points.bookmarks).text());
    }
    text
}
