//! Compacted segments: payload that outlived the segments it was written to.
//!
//! A header page, the payload of versions one after the other, and a table page with a checksum of each chunk in front of it. Index
//! entries point into it as into any segment; the digest in the entry verifies what is read, and the table lets a check find damage
//! anywhere in it.
//!
//! ```text
//! header   0 magic "CDPCOMPT"   8 crc   12 zero   16 store uuid (16)   32 segment uuid (16)   48 extent   56 owner epoch
//!         64 zero to the end of the page
//! payload  4096 up to the table, zero behind the last version
//! table    0 magic "CDPCTABL"   8 crc   12 chunks u32   16 segment uuid (16)   32 offset of this page   40 zero
//!         64 a CRC-32 for each chunk of 64 KiB of header and payload; zero to the end of the page
//! edit     extent, bytes (2 x u64)   segment uuid (16)
//! ```

use super::{
    Malformed, PAGE_BYTES, PAGE_LEN, Uuid, all_zero, digest::crc_around, manifest::take_pages, take,
    take_counter, take_uuid,
};
use crate::{
    limits::SEGMENT_BYTES_MAX,
    units::{ExtentId, OwnerEpoch, len_u64, to_len},
};
use bytes::{Buf, BufMut};

const HEADER_MAGIC: &[u8; 8] = b"CDPCOMPT";
const TABLE_MAGIC: &[u8; 8] = b"CDPCTABL";
const CRC_AT: usize = 8;
const TABLE_HEAD_LEN: usize = 64;
/// Bytes of a chunk that has a checksum of its own.
pub const CHUNK_LEN: usize = 64 << 10;
/// Most chunks of a compacted segment.
pub const CHUNKS_MAX: usize = (PAGE_LEN - TABLE_HEAD_LEN) / 4;
/// Largest offset of the table page, bytes.
pub const TABLE_AT_MAX: u64 = (CHUNKS_MAX * CHUNK_LEN) as u64;

const _: () = assert!(TABLE_AT_MAX + PAGE_BYTES <= SEGMENT_BYTES_MAX);

/// A compacted segment, as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactedSegment {
    /// Its extent.
    pub extent: ExtentId,
    /// Length of the extent, bytes; its last page is the table.
    pub bytes: u64,
    /// Its own random identity.
    pub uuid: Uuid,
}

impl CompactedSegment {
    /// Appends the edit.
    pub fn encode(&self, body: &mut Vec<u8>) {
        body.put_u64_le(self.extent.get());
        body.put_u64_le(self.bytes);
        body.put_slice(&self.uuid.0);
    }

    /// Takes it off the front.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(body: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(Self {
            extent: ExtentId::new(take_counter(body)?),
            bytes: take_pages(body, 3 * PAGE_BYTES, TABLE_AT_MAX + PAGE_BYTES)?,
            uuid: take_uuid(body)?,
        })
    }

    /// Offset of the table page, bytes.
    pub const fn table_at(&self) -> u64 {
        self.bytes - PAGE_BYTES
    }
}

/// What a compacted segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactedHeader {
    /// The store.
    pub store: Uuid,
    /// Its own random identity.
    pub segment: Uuid,
    /// Its extent.
    pub extent: ExtentId,
    /// The owner that made it.
    pub owner_epoch: OwnerEpoch,
}

impl CompactedHeader {
    /// The page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_LEN);
        page.put_slice(HEADER_MAGIC);
        page.put_u64_le(0);
        page.put_slice(&self.store.0);
        page.put_slice(&self.segment.0);
        page.put_u64_le(self.extent.get());
        page.put_u64_le(self.owner_epoch.get());
        seal(page)
    }

    /// Reads a header and checks that it belongs to this store and extent.
    ///
    /// # Errors
    /// What is wrong with the page.
    pub fn decode(page: &[u8], store: Uuid, extent: ExtentId) -> Result<Self, Malformed> {
        let mut input = open(page, HEADER_MAGIC)?;
        if input.try_get_u32_le()? != 0 {
            return Err(Malformed("compacted segment: reserved bytes"));
        }
        let header = Self {
            store: take_uuid(&mut input)?,
            segment: take_uuid(&mut input)?,
            extent: ExtentId::new(take_counter(&mut input)?),
            owner_epoch: OwnerEpoch::new(take_counter(&mut input)?),
        };
        if header.store != store || header.extent != extent || !all_zero(input) {
            return Err(Malformed("compacted segment: of another store or place"));
        }
        Ok(header)
    }
}

/// The checksums of the chunks before `table_at`, in order: the table page.
///
/// # Panics
/// When there are more than [`CHUNKS_MAX`].
pub fn encode_table(checksums: &[u32], segment: Uuid, table_at: u64) -> Vec<u8> {
    assert!(checksums.len() <= CHUNKS_MAX, "a compacted segment is bounded");
    let mut page = Vec::with_capacity(PAGE_LEN);
    page.put_slice(TABLE_MAGIC);
    page.put_u32_le(0);
    page.put_u32_le(u32::try_from(checksums.len()).expect("checked above"));
    page.put_slice(&segment.0);
    page.put_u64_le(table_at);
    page.resize(TABLE_HEAD_LEN, 0);
    checksums.iter().for_each(|checksum| page.put_u32_le(*checksum));
    seal(page)
}

/// Reads the table page of this segment at this place.
///
/// # Errors
/// What is wrong with the page.
pub fn decode_table(page: &[u8], segment: Uuid, table_at: u64) -> Result<Vec<u32>, Malformed> {
    let mut input = open(page, TABLE_MAGIC)?;
    let chunks = to_len(u64::from(input.try_get_u32_le()?));
    let of_this = take_uuid(&mut input)? == segment && input.try_get_u64_le()? == table_at;
    let fits = len_u64(chunks) == table_at.div_ceil(CHUNK_LEN as u64) && chunks <= CHUNKS_MAX;
    if !of_this || !fits || !all_zero(take(&mut input, TABLE_HEAD_LEN - 40)?) {
        return Err(Malformed("compacted segment: table of another place"));
    }
    let checksums = (0..chunks).map(|_| input.try_get_u32_le()).collect::<Result<_, _>>()?;
    if all_zero(input) { Ok(checksums) } else { Err(Malformed("compacted segment: bytes behind the table")) }
}

fn seal(mut page: Vec<u8>) -> Vec<u8> {
    page.resize(PAGE_LEN, 0);
    let crc = crc_around(&page, CRC_AT);
    page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    page
}

/// What follows magic and checksum.
fn open<'a>(page: &'a [u8], magic: &[u8; 8]) -> Result<&'a [u8], Malformed> {
    let mut input = page;
    if page.len() != PAGE_LEN || take(&mut input, 8)? != magic {
        return Err(Malformed("compacted segment: no magic"));
    }
    if input.try_get_u32_le()? != crc_around(page, CRC_AT) {
        return Err(Malformed("compacted segment: checksum"));
    }
    Ok(input)
}
