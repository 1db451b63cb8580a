//! Looking at a map on an extent without using it: is everything that a clean map says intact?
//!
//! A map that is in use, or was when its owner died, may be torn anywhere but in its header: that is what the activity log is for.

use super::{
    header::Header,
    pages::{self, PAGE_BLOCKS},
    ring::Ring,
    store_pages::read_headers,
};
use crate::{
    Result,
    error::Error,
    format::{PAGE_BYTES, PAGE_LEN},
    io::{AlignedBuf, Extent},
    units::{len_u64, to_len},
};

/// Bytes of a read.
const READ_LEN: usize = 256 << 10;

/// A part of a map that is not intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Where, bytes.
    pub offset: u64,
    /// How much, bytes.
    pub length: u64,
    /// What it should be.
    pub what: &'static str,
}

/// What of a map is not intact, ascending.
///
/// # Errors
/// `Io` from the extent, or when memory cannot be reserved.
pub(crate) fn inspect(extent: &dyn Extent) -> Result<Vec<Flaw>> {
    let header = |offset, length| Flaw { offset, length, what: "header of a dirty map" };
    let headers = match read_headers(extent) {
        Ok(headers) => headers,
        Err(Error::MapRefused(_)) => return Ok(vec![header(0, 2 * PAGE_BYTES)]),
        Err(error) => return Err(error),
    };
    let Ok((found, _)) = judge(&headers) else { return Ok(vec![header(0, 2 * PAGE_BYTES)]) };
    if !found.flags.clean {
        return Ok(Vec::new());
    }
    let mut flaws: Vec<Flaw> = Header::bad_sectors(&headers[..2 * PAGE_LEN])
        .map(|(offset, length)| header(offset, length))
        .collect();
    let failed = |operation: &'static str| move |error| Error::io(operation, "the dirty map", error);
    let ring = Ring { id: found.ring, records: found.ring_records };
    let records = u64::from(found.ring_records);
    let blocks = found.base.shape.blocks();
    let count = records + blocks.div_ceil(PAGE_BLOCKS);
    let size = extent.size().map_err(failed("get the size of"))?;
    let end = 2 * PAGE_BYTES + count * PAGE_BYTES;
    let mut buffer = AlignedBuf::new(READ_LEN).map_err(failed("reserve memory for"))?;
    let mut offset = 2 * PAGE_BYTES;
    while offset < end.min(size / PAGE_BYTES * PAGE_BYTES) {
        let len = to_len((end.min(size / PAGE_BYTES * PAGE_BYTES) - offset).min(len_u64(READ_LEN)));
        extent.read_at(offset, &mut buffer[..len]).map_err(failed("read"))?;
        for (at, page) in (offset..).step_by(PAGE_LEN).zip(buffer[..len].chunks(PAGE_LEN)) {
            let number = at / PAGE_BYTES - 2;
            let (intact, what) = match number.checked_sub(records) {
                None => (ring.is_intact(page, number), "record of the activity log of a dirty map"),
                Some(page_of_map) => {
                    (pages::decode(page, found.map, page_of_map, blocks).is_some(), "page of a dirty map")
                }
            };
            if !intact {
                flaws.push(Flaw { offset: at, length: PAGE_BYTES, what });
            }
        }
        offset += len_u64(len);
    }
    if size < end {
        flaws.push(Flaw { offset: size, length: end - size, what: "a dirty map that was cut" });
    }
    // Its owner may have begun to use it meanwhile.
    let again = read_headers(extent).ok().and_then(|headers| judge(&headers).ok());
    let unchanged = again.is_some_and(|(again, _)| again.sequence == found.sequence);
    Ok(if unchanged { flaws } else { Vec::new() })
}

fn judge(headers: &[u8]) -> std::result::Result<(Header, bool), crate::format::Malformed> {
    Header::judge([&headers[..PAGE_LEN], &headers[PAGE_LEN..2 * PAGE_LEN]])
}
