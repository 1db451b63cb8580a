//! What the tool prints: one JSON document, or tables for people, on stdout; diagnostics on stderr.
//!
//! The structures here are the JSON documents of the tool, field by field.

mod comparisons;
mod documents;
mod seeding;
mod tables;

pub use comparisons::*;
pub use documents::*;
pub use seeding::*;
pub use tables::Table;

use crate::exit::{Failure, Outcome};
use serde::Serialize;
use std::io::{self, Write};

/// A size for people: three digits and a binary unit.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (to_float(bytes), 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Writes a line to stderr; a stderr that is gone is no reason to fail.
pub fn diagnostic(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes text to stdout as it stands. A reader that went away ends the output, not the command.
///
/// # Errors
/// `Failed` when stdout cannot be written for another reason.
pub fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a result: as JSON when that was asked for, else as the text that `human` makes of it.
///
/// # Errors
/// As [`print()`].
pub fn result<T: Serialize>(json: bool, document: &T, human: impl FnOnce(&T) -> String) -> Outcome {
    if json {
        let mut text = serde_json::to_string(document)
            .map_err(|source| Failure::new(format!("write the result as JSON: {source}")))?;
        text.push('\n');
        print(&text)
    } else {
        print(&human(document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: sizes stay short over the whole range. Method: a table with both sides of a change of unit.
    #[test]
    fn sizes_for_people_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (128 << 20, "128 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
