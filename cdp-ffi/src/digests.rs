//! The far end of a link: what answers there when a source is asked for digests, so that what is equal never crosses the link.
//!
//! A request comes over the link and is hostile: it is held against the rules before anything is read or any room is taken.

use crate::{
    arguments::Caller,
    failure::{Failure, Outcome},
    guard::guard,
    source::{cdp_source, host_source},
    status::{CDP_ERR_BUFFER_TOO_SMALL, cdp_status},
    types::cdp_extent,
};
use cdp_core::{
    dirty_map::ByteRange,
    format::digest::DigestKey,
    limits,
    resync::{DigestUnit, REGION_BYTES, check_request, digests_of},
};

/// A digest for each region of CDP_DIGEST_REGION_BYTES, aligned on the disk, that a range touches; less at the ends of a range and of the disk.
pub const CDP_DIGEST_REGION: u32 = 0;
/// A digest for each block of 4096 bytes; less at the end of the disk.
pub const CDP_DIGEST_BLOCK: u32 = 1;

/// Bytes of a region.
pub const CDP_DIGEST_REGION_BYTES: u64 = 1 << 20;
/// Most bytes of the disk that one request covers.
pub const CDP_DIGEST_REQUEST_BYTES_MAX: u64 = 8 << 20;
/// Most digests of one answer, and most ranges of a request.
pub const CDP_DIGESTS_MAX: usize = 2048;

const _: () = assert!(CDP_DIGEST_REGION_BYTES == REGION_BYTES);
const _: () = assert!(CDP_DIGEST_REQUEST_BYTES_MAX == limits::DIGEST_REQUEST_BYTES_MAX);
const _: () = assert!(CDP_DIGESTS_MAX as u64 * DigestUnit::Block.bytes() == CDP_DIGEST_REQUEST_BYTES_MAX);

/// How C says what a digest stands for.
pub(crate) const fn code_of(unit: DigestUnit) -> u32 {
    match unit {
        DigestUnit::Region => CDP_DIGEST_REGION,
        DigestUnit::Block => CDP_DIGEST_BLOCK,
    }
}

fn unit_of(code: u32) -> Outcome<DigestUnit> {
    match code {
        CDP_DIGEST_REGION => Ok(DigestUnit::Region),
        CDP_DIGEST_BLOCK => Ok(DigestUnit::Block),
        other => Err(Failure::argument(format!("{other} is no unit of digests"))),
    }
}

/// A request that keeps the rules.
struct Request {
    unit: DigestUnit,
    ranges: Vec<ByteRange>,
    /// Digests of its answer.
    count: usize,
}

fn request_of(
    caller: Caller,
    source_bytes: u64,
    unit: u32,
    ranges: *const cdp_extent,
    ranges_count: usize,
) -> Outcome<Request> {
    let unit = unit_of(unit)?;
    if ranges_count > CDP_DIGESTS_MAX {
        return Err(Failure::argument(format!(
            "{ranges_count} ranges in a request: at most {CDP_DIGESTS_MAX}"
        )));
    }
    let given = caller.items("ranges", ranges, ranges_count)?;
    let ranges: Vec<ByteRange> = given.iter().map(|range| ByteRange::new(range.offset, range.len)).collect();
    check_request(source_bytes, &ranges).map_err(|error| Failure::argument(error.to_string()))?;
    // A range touches a region more than its length has, at most, and a request has few ranges and bytes: no sum of them overflows.
    let count: u64 = ranges.iter().map(|range| unit.count(*range)).sum();
    let count =
        usize::try_from(count).map_err(|_| Failure::argument("a request covers too much of the disk"))?;
    Ok(Request { unit, ranges, count })
}

/// Holds what came over a link against what a request may be, for a disk of source_bytes bytes, before anything is read for it: also that for cdp_source.read_ranges, whose
/// ranges keep the same rules. digests_count_out, which may be NULL, is how many digests the answer has, at most CDP_DIGESTS_MAX. CDP_ERR_INVALID_ARGUMENT, with the reason in
/// the message, for ranges or a unit that no request has. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_digests_check(
    source_bytes: u64,
    unit: u32,
    ranges: *const cdp_extent,
    ranges_count: usize,
    digests_count_out: *mut usize,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_optional("digests_count_out", digests_count_out)?;
        out.put(request_of(caller, source_bytes, unit, ranges, ranges_count)?.count);
        Ok(())
    })
}

/// Answers cdp_source.digests at the far end of a link, where the disk is: reads the ranges, 1 MiB at a time and without the holes that next_data tells of, and stores their digests.
/// source is the disk there, of source_bytes bytes, and is good for this call; a struct without free_userdata is good for any number of calls. digests_out has room for
/// digests_room of them. What came over the link may be handed in as it is: CDP_ERR_INVALID_ARGUMENT as of cdp_digests_check, and CDP_ERR_BUFFER_TOO_SMALL, when
/// digests_count_out says how many are needed; nothing was read then. CDP_ERR_IO with the errno of reading, when digests_out is untouched too. No store is needed at this end.
/// [any thread; waits for the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_digests_of(
    source: *const cdp_source,
    source_bytes: u64,
    key: u64,
    unit: u32,
    ranges: *const cdp_extent,
    ranges_count: usize,
    digests_out: *mut u64,
    digests_room: usize,
    digests_count_out: *mut usize,
) -> cdp_status {
    guard(|caller| {
        let source = host_source(caller, source)?;
        let count_out = caller.out("digests_count_out", digests_count_out)?;
        let to = caller.items_out("digests_out", digests_out, digests_room)?;
        let Request { unit, ranges, count } = request_of(caller, source_bytes, unit, ranges, ranges_count)?;
        count_out.put(count);
        if count > to.len() {
            let text = format!("{count} digests are needed, and there is room for {}", to.len());
            return Err(Failure::new(CDP_ERR_BUFFER_TOO_SMALL, text));
        }
        let digests = digests_of(&*source, source_bytes, DigestKey(key), unit, &ranges)
            .map_err(|error| Failure::io("the source", &error))?;
        digests.into_iter().enumerate().for_each(|(index, digest)| to.put(index, digest));
        Ok(())
    })
}
