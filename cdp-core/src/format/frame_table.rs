//! The frame table: pages in the footer of a segment that list its frames with their seqs and times.
//!
//! It is the time table of the segment: a time is found by a binary search here and then, exactly, among the records of one
//! frame. It also accounts for every byte between header and footer.
//!
//! ```text
//! page:   0 magic "CDPFTABL"   8 crc   12 entries   16 store   24 extent   32 offset in the extent   40 zero   64 entries
//! entry:  0 first page of the frame   4 pages   8 frame number   16 base seq   24 last seq   32 first time   40 last time
//!        48 crc of the frame   52 records that take a seq
//! ```

use super::{Malformed, PAGE_BYTES, PAGE_LEN, all_zero, digest::crc_around, take, take_counter};
use crate::{
    limits::{FRAME_BYTES_MAX, SEGMENT_BYTES_MAX},
    units::{ExtentId, FrameNo, Seq, TimeNs, len_u64},
};
use bytes::{Buf, BufMut};

const MAGIC: &[u8; 8] = b"CDPFTABL";
const CRC_AT: usize = 8;
const HEADER_LEN: usize = 64;
const ENTRY_LEN: usize = 56;
/// Entries of a page.
pub const ENTRIES_PER_PAGE: usize = (PAGE_LEN - HEADER_LEN) / ENTRY_LEN;
const _: () = assert!(ENTRIES_PER_PAGE == 72);

/// One frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Offset in the segment, bytes.
    pub offset: u64,
    /// Length, bytes.
    pub bytes: u64,
    /// Its number.
    pub frame: FrameNo,
    /// Last seq before it.
    pub base_seq: Seq,
    /// Last seq that it completes.
    pub last_seq: Seq,
    /// Time of its first record that takes a seq; 0 without one.
    pub first_time: TimeNs,
    /// Time of its last record that takes a seq; 0 without one.
    pub last_time: TimeNs,
    /// Its checksum.
    pub crc: u32,
    /// Number of records that take a seq.
    pub timed_records: u32,
}

impl FrameEntry {
    fn is_possible(&self) -> bool {
        let end = self.offset + self.bytes;
        self.offset >= PAGE_BYTES
            && (PAGE_BYTES..=len_u64(FRAME_BYTES_MAX)).contains(&self.bytes)
            && end <= SEGMENT_BYTES_MAX
            && self.base_seq <= self.last_seq
            && self.first_time <= self.last_time
    }

    /// Whether a frame can lie before another one in a segment. Frames that were lost to damage leave holes between.
    pub(crate) fn precedes(&self, next: &Self) -> bool {
        self.offset + self.bytes <= next.offset && self.frame < next.frame && self.last_seq <= next.base_seq
    }
}

/// The place of a page.
#[derive(Clone, Copy, Debug)]
pub struct TablePlace {
    /// Short identity of the store.
    pub store: u64,
    /// The segment.
    pub extent: ExtentId,
    /// Offset of the page, bytes.
    pub offset: u64,
}

/// One page with up to [`ENTRIES_PER_PAGE`] entries.
pub fn encode_page(entries: &[FrameEntry], place: TablePlace) -> Vec<u8> {
    assert!(!entries.is_empty() && entries.len() <= ENTRIES_PER_PAGE);
    let mut page = Vec::with_capacity(PAGE_LEN);
    page.put_slice(MAGIC);
    page.put_u32_le(0);
    page.put_u32_le(u32::try_from(entries.len()).expect("bounded"));
    page.put_u64_le(place.store);
    page.put_u64_le(place.extent.get());
    page.put_u64_le(place.offset);
    page.resize(HEADER_LEN, 0);
    for entry in entries {
        page.put_u32_le(u32::try_from(entry.offset / PAGE_BYTES).expect("segments are small"));
        page.put_u32_le(u32::try_from(entry.bytes / PAGE_BYTES).expect("frames are small"));
        page.put_u64_le(entry.frame.get());
        page.put_u64_le(entry.base_seq.get());
        page.put_u64_le(entry.last_seq.get());
        page.put_u64_le(entry.first_time.get());
        page.put_u64_le(entry.last_time.get());
        page.put_u32_le(entry.crc);
        page.put_u32_le(entry.timed_records);
    }
    page.resize(PAGE_LEN, 0);
    let crc = crc_around(&page, CRC_AT);
    page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    page
}

/// Reads a page and checks its identity.
///
/// # Errors
/// What is wrong with it.
pub fn decode_page(page: &[u8], place: TablePlace) -> Result<Vec<FrameEntry>, Malformed> {
    let mut input = page;
    if page.len() != PAGE_LEN || take(&mut input, 8)? != MAGIC {
        return Err(Malformed("frame table: no magic"));
    }
    if input.try_get_u32_le()? != crc_around(page, CRC_AT) {
        return Err(Malformed("frame table: checksum"));
    }
    let count = usize::try_from(input.try_get_u32_le()?).unwrap_or(usize::MAX);
    let found = (input.try_get_u64_le()?, input.try_get_u64_le()?, input.try_get_u64_le()?);
    if found != (place.store, place.extent.get(), place.offset) {
        return Err(Malformed("frame table: of another store or place"));
    }
    if count == 0 || count > ENTRIES_PER_PAGE || !all_zero(&page[40..HEADER_LEN]) {
        return Err(Malformed("frame table: impossible fields"));
    }
    let end = HEADER_LEN + count * ENTRY_LEN;
    let mut input = &page[HEADER_LEN..end];
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(FrameEntry {
            offset: u64::from(input.try_get_u32_le()?) * PAGE_BYTES,
            bytes: u64::from(input.try_get_u32_le()?) * PAGE_BYTES,
            frame: FrameNo::new(take_counter(&mut input)?),
            base_seq: Seq::new(take_counter(&mut input)?),
            last_seq: Seq::new(take_counter(&mut input)?),
            first_time: TimeNs::new(input.try_get_u64_le()?),
            last_time: TimeNs::new(input.try_get_u64_le()?),
            crc: input.try_get_u32_le()?,
            timed_records: input.try_get_u32_le()?,
        });
    }
    if !all_zero(&page[end..]) {
        return Err(Malformed("frame table: bytes behind the entries"));
    }
    if !entries.iter().all(FrameEntry::is_possible)
        || !entries.is_sorted_by(|left, right| left.precedes(right))
    {
        return Err(Malformed("frame table: impossible entries"));
    }
    Ok(entries)
}
