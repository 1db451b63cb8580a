//! Reading a manifest at open: the fold of its records, and what its end is.
//!
//! Reads forward through a buffer of bounded size. Invariant *one at a time*: a record is synced before the next is issued, so a bad
//! record with an intact one behind it was durable: it is damage. So is a bad one below what the superblock knows to have been
//! durable, and one that is intact but holds edits that cannot be read. Any other bad record is a torn tail. Work is bounded by the length of the file whatever it holds.

use super::ManifestState;
use crate::{
    error::{Damage, Error, Result},
    format::{
        Malformed, PAGE_BYTES, PAGE_LEN, Uuid, all_zero,
        manifest::{ManifestHeader, RecordPlace, decode_edits, record_body, record_len, record_number},
    },
    io::{AlignedBuf, Extent, Storage},
    limits::{MANIFEST_RECORD_BYTES_MAX, MANIFEST_TAIL_BYTES_MAX},
    units::{ExtentId, Seq, len_u64, to_len},
};
use std::{io, sync::Arc};

/// Bytes of a read.
const BUFFER_LEN: usize = 4 * MANIFEST_RECORD_BYTES_MAX;

/// What was found in a manifest.
pub struct ManifestScan {
    /// The fold of its edits.
    pub state: ManifestState,
    /// End of the valid records, bytes.
    pub end: u64,
    /// Number of the next record.
    pub next_record: u64,
    /// Whether a record at the end was cut off by a crash.
    pub torn: bool,
}

/// Reads manifest `extent`. Everything below `known_bytes` is known to have been durable.
///
/// # Errors
/// `Damaged` when a record that was durable is not intact; `Io`.
pub fn scan_manifest(
    storage: &dyn Storage,
    store: Uuid,
    extent: ExtentId,
    known_bytes: u64,
) -> Result<ManifestScan> {
    let name = storage.describe(extent);
    let damaged = |offset: u64, length: u64, what: String| {
        Error::Damaged(Box::new(Damage {
            extent,
            file: name.clone(),
            offset,
            length,
            from_seq: Seq::ZERO,
            to_seq: Seq::MAX,
            what,
        }))
    };
    let failed = |error| Error::io("read", &*name, error);
    let handle = match storage.open(extent) {
        Ok(handle) => handle,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(0, known_bytes, "the manifest is missing".into()));
        }
        Err(error) => return Err(Error::io("open", &*name, error)),
    };
    let mut bytes = Forward::new(handle).map_err(failed)?;
    if bytes.size < known_bytes {
        let missing = known_bytes - bytes.size;
        return Err(damaged(bytes.size, missing, "the manifest is shorter than it was".into()));
    }
    let page = bytes.at(0, PAGE_LEN).map_err(failed)?;
    let header = ManifestHeader::decode(page.get(..PAGE_LEN).unwrap_or_default(), store, extent);
    let header = header.map_err(|error| damaged(0, PAGE_BYTES, error.to_string()))?;
    let mut state = ManifestState::default();
    let mut place =
        RecordPlace { store: store.short(), extent, offset: PAGE_BYTES, number: header.first_record };
    let mut torn = false;
    while place.offset < bytes.size {
        let rest = bytes.at(place.offset, MANIFEST_RECORD_BYTES_MAX).map_err(failed)?;
        let bytes_left = len_u64(rest.len());
        let decoded = record_len(rest)
            .and_then(|len| rest.get(..len).ok_or(Malformed("manifest record: cut off")))
            .and_then(|record| record_body(record, place).map(|body| (len_u64(record.len()), body)));
        match decoded {
            Ok((len, body)) => {
                let edits =
                    decode_edits(body).map_err(|error| damaged(place.offset, len, error.to_string()))?;
                for edit in &edits {
                    state.apply(edit).map_err(|error| damaged(place.offset, len, error.to_string()))?;
                }
                place.offset += len;
                place.number += 1;
            }
            Err(error) => {
                // As far as it says that it reaches.
                let claimed = record_len(rest).map_or(PAGE_BYTES, len_u64).min(bytes_left);
                let tail = if place.offset < known_bytes {
                    Tail::Damaged
                } else {
                    tail_behind(&mut bytes, place).map_err(failed)?
                };
                if tail == Tail::Damaged {
                    return Err(damaged(place.offset, claimed, error.to_string()));
                }
                torn = tail == Tail::Torn;
                break;
            }
        }
    }
    Ok(ManifestScan { state, end: place.offset, next_record: place.number, torn })
}

/// What a bad record and everything behind it is.
#[derive(PartialEq, Eq)]
enum Tail {
    /// Space that was never written.
    Empty,
    /// A record that a crash has cut off.
    Torn,
    /// A record that was durable.
    Damaged,
}

/// Looks for an intact record behind a bad one.
fn tail_behind(bytes: &mut Forward, bad: RecordPlace) -> io::Result<Tail> {
    let mut tail = Tail::Empty;
    let end = bytes.size.min(bad.offset + MANIFEST_TAIL_BYTES_MAX);
    // Pages that look like a record are rare unless they are records; who meets more than this has no torn tail before him.
    let mut budget = MANIFEST_TAIL_BYTES_MAX;
    let mut offset = bad.offset;
    while offset < end {
        let page = bytes.at(offset, PAGE_LEN)?;
        if !all_zero(&page[..PAGE_LEN]) {
            tail = Tail::Torn;
        }
        let candidate =
            record_number(page, RecordPlace { offset, ..bad }).filter(|number| *number > bad.number);
        if let (Some(number), Ok(len)) = (candidate, record_len(page)) {
            let Some(left) = budget.checked_sub(len_u64(len)) else { return Ok(Tail::Damaged) };
            budget = left;
            let record = bytes.at(offset, len)?.get(..len);
            if record.is_some_and(|record| record_body(record, RecordPlace { offset, number, ..bad }).is_ok())
            {
                return Ok(Tail::Damaged);
            }
        }
        offset += PAGE_BYTES;
    }
    Ok(tail)
}

/// The whole pages of an extent, read forward through a buffer.
struct Forward {
    handle: Arc<dyn Extent>,
    size: u64,
    buffer: AlignedBuf,
    from: u64,
    filled: usize,
}

impl Forward {
    fn new(handle: Arc<dyn Extent>) -> io::Result<Self> {
        let size = handle.size()? / PAGE_BYTES * PAGE_BYTES;
        let len = to_len(size.min(len_u64(BUFFER_LEN)));
        Ok(Self { handle, size, buffer: AlignedBuf::new(len)?, from: 0, filled: 0 })
    }

    /// The bytes from `offset` on: at least `len` of them, unless the extent ends before.
    fn at(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let wanted = self.size.saturating_sub(offset).min(len_u64(len));
        let behind = self.from + len_u64(self.filled);
        if offset < self.from || offset + wanted > behind {
            let count = to_len(self.size.saturating_sub(offset).min(len_u64(self.buffer.len())));
            self.filled = 0;
            self.handle.read_at(offset, &mut self.buffer[..count])?;
            (self.from, self.filled) = (offset, count);
        }
        let start = to_len(offset - self.from).min(self.filled);
        Ok(&self.buffer[start..self.filled])
    }
}
