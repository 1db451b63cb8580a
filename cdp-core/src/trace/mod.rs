//! Block traces: the writes of a disk, line by line, with their absolute times.
//!
//! Two formats are read, see [`TraceFormat`]. A [`TraceReader`] yields one [`TraceLine`] after the other and stops at the
//! first bad one.
//!
//! Invariants:
//! - *ordered*: times never decrease from line to line;
//! - *sound ranges*: offsets and lengths are multiples of 512, lengths are not zero, writes are at most
//!   [`WRITE_BYTES_MAX`], and no range ends past 64 bits. Whether a range lies on its
//!   volume is for the replayer to check: only it knows the volume;
//! - *bounded*: a line is at most [`TRACE_LINE_BYTES_MAX`] bytes, and no more than one is held in memory.
//!
//! Fails with `InvalidArgument` that begins with the number of the line (the first is 1), or with the error of the reader
//! underneath.

mod csv;
mod fill;
mod msr;

pub use fill::{Fill, STAMP_BYTES};

use crate::{
    Error, Result,
    limits::{NAME_BYTES_MAX, TRACE_LINE_BYTES_MAX, WRITE_BYTES_MAX},
    units::{SECTOR_BYTES, TimeNs},
};
use std::{
    io::{BufRead, Read},
    str::FromStr,
    sync::Arc,
};

/// How the lines of a trace are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// `time_ns,volume,offset,length[,op]` without a header; `op` is `write` (default), `zero`, `discard`, `flush` or
    /// `bookmark:NAME`. `flush` and `bookmark` ignore offset and length.
    Csv,
    /// MSR Cambridge: `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime`, Windows filetime and bytes. Reads are
    /// skipped, ranges are rounded outward to 512 bytes, and the lines name no volume.
    Msr,
}

impl FromStr for TraceFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "csv" => Ok(Self::Csv),
            "msr" => Ok(Self::Msr),
            _ => Err(Error::InvalidArgument("trace format is unknown; write csv or msr".to_owned())),
        }
    }
}

/// What a line of a trace asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceOp {
    /// Write `length` bytes at byte `offset`.
    Write {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Write zeroes.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Discard.
    Discard {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Make everything before it durable.
    Flush,
    /// Add a bookmark of this name.
    Bookmark(String),
}

impl TraceOp {
    /// Whether the line takes a seq, and so counts for the stamp: writes, zeroes and discards do.
    pub const fn is_counted(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Zero { .. } | Self::Discard { .. })
    }

    /// Byte offset and length of a counted line.
    pub const fn range(&self) -> Option<(u64, u64)> {
        match *self {
            Self::Write { offset, length }
            | Self::Zero { offset, length }
            | Self::Discard { offset, length } => Some((offset, length)),
            Self::Flush | Self::Bookmark(_) => None,
        }
    }
}

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLine {
    /// Its number in the file; the first line is 1.
    pub line_number: u64,
    /// Counted lines up to and including this one; for a counted line its own number, which a stamp carries.
    pub counted: u64,
    /// When it happened.
    pub time: TimeNs,
    /// The volume it names; empty where the format names none.
    pub volume: Arc<str>,
    /// What it asks for.
    pub op: TraceOp,
}

/// A line before it got its numbers.
struct RawLine<'a> {
    time: TimeNs,
    volume: &'a str,
    op: TraceOp,
}

/// Reads a trace line by line; an iterator that ends after the first error.
#[derive(Debug)]
pub struct TraceReader<R> {
    reader: R,
    format: TraceFormat,
    line: Vec<u8>,
    line_number: u64,
    counted: u64,
    newest: TimeNs,
    volume: Arc<str>,
    finished: bool,
}

impl<R: BufRead> TraceReader<R> {
    /// A reader of the trace that begins where `reader` stands.
    pub fn new(reader: R, format: TraceFormat) -> Self {
        Self {
            reader,
            format,
            line: Vec::new(),
            line_number: 0,
            counted: 0,
            newest: TimeNs::ZERO,
            volume: Arc::from(""),
            finished: false,
        }
    }

    fn read_line(&mut self) -> Result<Option<TraceLine>> {
        loop {
            if !self.fill_line()? {
                return Ok(None);
            }
            let text = str::from_utf8(&self.line).map_err(|_| self.refuse("is not UTF-8 text"))?;
            let parsed = match self.format {
                TraceFormat::Csv => csv::parse(text).map(Some),
                TraceFormat::Msr => msr::parse(text),
            };
            // `None`: a line that is skipped.
            if let Some(raw) = parsed.map_err(|reason| self.refuse(&reason))? {
                if raw.time < self.newest {
                    return Err(self.refuse("is dated before the line above it; times must not decrease"));
                }
                if *raw.volume != *self.volume {
                    self.volume = Arc::from(raw.volume);
                }
                self.newest = raw.time;
                self.counted += u64::from(raw.op.is_counted());
                return Ok(Some(TraceLine {
                    line_number: self.line_number,
                    counted: self.counted,
                    time: raw.time,
                    volume: Arc::clone(&self.volume),
                    op: raw.op,
                }));
            }
        }
    }

    /// Reads the next line without its end into `self.line`; false at the end of the trace.
    fn fill_line(&mut self) -> Result<bool> {
        self.line.clear();
        let most = u64::try_from(TRACE_LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let read = (&mut self.reader).take(most).read_until(b'\n', &mut self.line).map_err(|source| {
            Error::io("read", format!("the trace after line {}", self.line_number), source)
        })?;
        if read == 0 {
            return Ok(false);
        }
        self.line_number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read == TRACE_LINE_BYTES_MAX {
            return Err(self.refuse(&format!("is longer than {TRACE_LINE_BYTES_MAX} bytes")));
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(true)
    }

    fn refuse(&self, reason: &str) -> Error {
        Error::InvalidArgument(format!("line {}: {reason}", self.line_number))
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<TraceLine>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let next = self.read_line().transpose();
        self.finished = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Reads a number of a field: digits and nothing else.
fn number(field: &str, name: &str) -> Result<u64, String> {
    let digits = !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    let value = digits.then(|| field.parse().ok()).flatten();
    value.ok_or_else(|| format!("{name} {} is not a whole number of at most 64 bits", shown(field)))
}

/// Holds a range against the rules that need no volume.
fn check_range(offset: u64, length: u64, most: u64) -> Result<(), String> {
    let aligned = |value: u64| value.is_multiple_of(SECTOR_BYTES);
    if !aligned(offset) || !aligned(length) {
        return Err(format!("offset {offset} and length {length} must be multiples of {SECTOR_BYTES}"));
    }
    if length == 0 {
        return Err("length must not be 0".to_owned());
    }
    if length > most {
        return Err(format!("length {length} is more than a write may have ({WRITE_BYTES_MAX} bytes)"));
    }
    if offset.checked_add(length).is_none() {
        return Err(format!("range {offset}+{length} ends past 64 bits"));
    }
    Ok(())
}

/// Holds the name of a bookmark against its bound; what else a name may hold, the store says.
fn bookmark_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "the name of a bookmark has 1 to {NAME_BYTES_MAX} bytes, this one has {}",
            name.len()
        ));
    }
    Ok(name.to_owned())
}

/// A field for an error message: quoted, and not longer than a line of a terminal.
fn shown(field: &str) -> String {
    format!("{:?}", field.chars().take(48).collect::<String>())
}

#[cfg(test)]
mod tests;
