//! The MSR Cambridge format of traces: `Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime`.
//!
//! Timestamps are Windows filetimes, units of 100 ns since 1601; offsets and sizes are bytes of any alignment, and are
//! rounded outward to whole sectors. Source: "Write Off-Loading", FAST'08, and the README of its traces.

use super::{RawLine, TraceOp, check_range, number, shown};
use crate::{
    limits::WRITE_BYTES_MAX,
    units::{SECTOR_BYTES, TimeNs},
};

const FIELDS: usize = 7;
/// The Unix epoch as a filetime.
const UNIX_EPOCH_FILETIME: u64 = 116_444_736_000_000_000;
const NANOSECONDS_A_TICK: u64 = 100;

/// Reads one line, without its end; `None` for a read.
pub(super) fn parse(line: &str) -> Result<Option<RawLine<'static>>, String> {
    let fields: Vec<&str> = line.split(',').take(FIELDS + 1).collect();
    let [timestamp, _host, _disk, kind, offset, size, _response] = fields[..] else {
        return Err(format!(
            "has {} {FIELDS} fields; write Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime",
            if fields.len() > FIELDS { "more than" } else { "fewer than" }
        ));
    };
    if kind.eq_ignore_ascii_case("read") {
        return Ok(None);
    }
    if !kind.eq_ignore_ascii_case("write") {
        return Err(format!("type {} is unknown; write Read or Write", shown(kind)));
    }
    let time = unix_time(number(timestamp, "Timestamp")?)?;
    let (offset, size) = (number(offset, "Offset")?, number(size, "Size")?);
    if size == 0 {
        return Err("size must not be 0".to_owned());
    }
    let end = offset.checked_add(size).and_then(|end| end.checked_next_multiple_of(SECTOR_BYTES));
    let end = end.ok_or_else(|| format!("range {offset}+{size} ends past 64 bits"))?;
    let offset = offset - offset % SECTOR_BYTES;
    let length = end - offset;
    check_range(offset, length, WRITE_BYTES_MAX)?;
    Ok(Some(RawLine { time, volume: "", op: TraceOp::Write { offset, length } }))
}

fn unix_time(filetime: u64) -> Result<TimeNs, String> {
    let ticks = filetime.checked_sub(UNIX_EPOCH_FILETIME);
    let ticks = ticks.ok_or_else(|| format!("timestamp {filetime} lies before 1970"))?;
    let nanoseconds = ticks.checked_mul(NANOSECONDS_A_TICK);
    nanoseconds.map(TimeNs::new).ok_or_else(|| format!("timestamp {filetime} lies after the year 2554"))
}
