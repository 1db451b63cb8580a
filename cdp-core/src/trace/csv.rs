//! The CSV format of traces: `time_ns,volume,offset,length[,op]`.
//!
//! A pure function from the text of one line to its meaning, or to the reason why it has none.

use super::{RawLine, TraceOp, bookmark_name, check_range, number, shown};
use crate::{limits::WRITE_BYTES_MAX, units::TimeNs};

const FIELDS: &str = "time_ns,volume,offset,length[,op]";

/// Reads one line, without its end.
pub(super) fn parse(line: &str) -> Result<RawLine<'_>, String> {
    let mut fields = line.split(',');
    let (Some(time), Some(volume), Some(offset), Some(length)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(format!("has too few fields; write {FIELDS}, without a header"));
    };
    let op = fields.next().unwrap_or("write");
    if fields.next().is_some() {
        return Err(format!("has too many fields; write {FIELDS}"));
    }
    let time = TimeNs::new(number(time, "time_ns")?);
    let range = |most: u64| -> Result<(u64, u64), String> {
        let (offset, length) = (number(offset, "offset")?, number(length, "length")?);
        check_range(offset, length, most)?;
        Ok((offset, length))
    };
    let op = match op {
        "write" => range(WRITE_BYTES_MAX).map(|(offset, length)| TraceOp::Write { offset, length })?,
        "zero" => range(u64::MAX).map(|(offset, length)| TraceOp::Zero { offset, length })?,
        "discard" => range(u64::MAX).map(|(offset, length)| TraceOp::Discard { offset, length })?,
        "flush" => TraceOp::Flush,
        _ => match op.strip_prefix("bookmark:") {
            Some(name) => TraceOp::Bookmark(bookmark_name(name)?),
            None => {
                return Err(format!(
                    "op {} is unknown; write write, zero, discard, flush or bookmark:NAME",
                    shown(op)
                ));
            }
        },
    };
    Ok(RawLine { time, volume, op })
}
