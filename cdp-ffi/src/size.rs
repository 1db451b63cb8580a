//! How large a history will be under a policy, from a rate of writes or from a trace.

use crate::{
    arguments::{sized, text_into},
    failure::{Failure, Outcome},
    guard::{guard, guard_status},
    handle::{get, kind, put},
    status::{CDP_END, CDP_OK, cdp_status},
};
use cdp_core::{
    retention::{HistorySize, Policy, SizeRate, size_of_rate, size_of_trace},
    trace::{TraceFormat, TraceReader},
};
use std::{
    ffi::{c_char, c_void},
    fs::File,
    io::BufReader,
    mem::size_of,
};

/// The expected size of a history, by tier.
pub struct cdp_history_size {
    _private: [u8; 0],
}
kind!(cdp_history_size, 23, "size of a history", HistorySize);

/// The share of a tier.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_tier_size {
    /// sizeof(cdp_tier_size).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Points in it; each write of the full range is one.
    pub points: u64,
    /// Versions of blocks of 4096 bytes that are needed for it and for no younger tier.
    pub versions: u64,
    /// Bytes of these blocks.
    pub data_bytes: u64,
    /// Bytes of their entries in the index.
    pub index_bytes: u64,
    /// Bytes that were written in the span of the tier, whole blocks; 0 for the newest state.
    pub written_bytes: u64,
    /// "newest", "all" for the full range, or the ages of a window behind it, such as "24h-48h", NUL-terminated.
    pub name: [c_char; 64],
}
sized!(cdp_tier_size, 112);

/// `time_ns,volume,offset,length[,op]` without a header; op is write (where it is missing), zero, discard, flush or bookmark:NAME.
pub const CDP_TRACE_CSV: u32 = 0;
/// That of MSR Cambridge: Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime; reads are skipped.
pub const CDP_TRACE_MSR: u32 = 1;

/// Expects the size of a history under a policy (TOML or JSON, as for cdp_retention_set) once it has its full age, for bytes_per_day written at random over
/// working_set_bytes, at least 4096. CDP_ERR_INVALID_ARGUMENT for a policy that is not valid or has no bound by age. Needs no store. Close it with
/// cdp_history_size_close. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_size_of_rate(
    policy: *const c_char,
    bytes_per_day: u64,
    working_set_bytes: u64,
    size_out: *mut *mut cdp_history_size,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("size_out", size_out)?;
        let policy = Policy::from_text(caller.text("policy", policy)?)?;
        let size = size_of_rate(&policy, SizeRate { bytes_per_day, working_set_bytes })?;
        out.put(put(size, None)?);
        Ok(())
    })
}

/// The same exactly, for the history that a trace leaves as of its last line; format is CDP_TRACE_*. The file is read twice, and must be a regular one.
/// Memory: 8 bytes a write, and about 50 a block that was written. CDP_ERR_INVALID_ARGUMENT with the number of the line where it is no trace.
/// [any thread; waits for the file system]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_size_of_trace(
    policy: *const c_char,
    path: *const c_char,
    format: u32,
    size_out: *mut *mut cdp_history_size,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("size_out", size_out)?;
        let policy = Policy::from_text(caller.text("policy", policy)?)?;
        let path = caller.text("path", path)?;
        let format = match format {
            CDP_TRACE_CSV => TraceFormat::Csv,
            CDP_TRACE_MSR => TraceFormat::Msr,
            other => return Err(Failure::argument(format!("{other} is not a format of traces"))),
        };
        let (first, second) = (reader(path, format)?, reader(path, format)?);
        out.put(put(size_of_trace(&policy, first, second)?, None)?);
        Ok(())
    })
}

fn reader(path: &str, format: TraceFormat) -> Outcome<TraceReader<BufReader<File>>> {
    let failed = |error| Failure::io(path, &error);
    // Before it is opened: a pipe would be waited for.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Failure::argument(format!("{path} is not a regular file; a trace is read twice")));
    }
    Ok(TraceReader::new(BufReader::new(File::open(path).map_err(failed)?), format))
}

/// All of it, blocks and index, in bytes. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_history_size_bytes(
    size: *const cdp_history_size,
    bytes_out: *mut u64,
) -> cdp_status {
    guard(|caller| {
        let size = get(size)?;
        caller.out("bytes_out", bytes_out)?.put(size.bytes());
        Ok(())
    })
}

/// The tier at a place, counted from 0: the newest state, the full range, then window by window. CDP_END, and tier_out untouched, past the last.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_history_size_tier_at(
    size: *const cdp_history_size,
    index: usize,
    tier_out: *mut cdp_tier_size,
) -> cdp_status {
    guard_status(|caller| {
        let size = get(size)?;
        let out = caller.sized_out(tier_out)?;
        let Some(tier) = size.tiers.get(index) else { return Ok(CDP_END) };
        out.put(&cdp_tier_size {
            struct_size: 0,
            flags: 0,
            points: tier.points,
            versions: tier.versions,
            data_bytes: tier.data_bytes(),
            index_bytes: tier.index_bytes(),
            written_bytes: tier.written_bytes,
            name: text_into(&tier.name),
        });
        Ok(CDP_OK)
    })
}

/// What the figures rest on, and what they say that is not obvious: the sentence for people at a place, counted from 0, without a NUL. CDP_END, and everything
/// untouched, past the last. len_out is the size that is needed, also with CDP_ERR_BUFFER_TOO_SMALL, when the buffer is untouched; buf may be NULL with len 0.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_history_size_assumption_at(
    size: *const cdp_history_size,
    index: usize,
    buf: *mut c_char,
    len: usize,
    len_out: *mut usize,
) -> cdp_status {
    guard_status(|caller| {
        let size = get(size)?;
        caller.out("len_out", len_out)?;
        let Some(text) = size.assumptions.get(index) else { return Ok(CDP_END) };
        caller.fill(text.as_bytes(), buf.cast::<c_void>(), len, len_out)?;
        Ok(CDP_OK)
    })
}

/// Gives up the size and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_history_size_close(size: *mut *mut cdp_history_size) -> cdp_status {
    guard(|caller| caller.close(size).map(|_| ()))
}
