//! The header of a segment: one page that says whose segment it is.
//!
//! ```text
//!   0 magic "CDPSEGMT"   8 crc   12 group   16 store uuid (16)   32 segment uuid (16)   48 extent   56 lineage
//!  64 owner epoch   72 manifest records durable before   80 zero to the end of the page
//! ```

use super::{Malformed, PAGE_LEN, Uuid, all_zero, digest::crc_around, take, take_counter, take_uuid};
use crate::units::{ExtentId, Lineage, OwnerEpoch};
use bytes::{Buf, BufMut};

const MAGIC: &[u8; 8] = b"CDPSEGMT";
const CRC_AT: usize = 8;

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The group whose frames it holds.
    pub group: u32,
    /// The store.
    pub store: Uuid,
    /// Its own random identity.
    pub segment: Uuid,
    /// Its extent.
    pub extent: ExtentId,
    /// The lineage in which it was made.
    pub lineage: Lineage,
    /// The owner that made it.
    pub owner_epoch: OwnerEpoch,
    /// Number of manifest records that were durable before it was made.
    pub manifest_records: u64,
}

impl SegmentHeader {
    /// The page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_LEN);
        page.put_slice(MAGIC);
        page.put_u32_le(0);
        page.put_u32_le(self.group);
        page.put_slice(&self.store.0);
        page.put_slice(&self.segment.0);
        page.put_u64_le(self.extent.get());
        page.put_u64_le(self.lineage.get());
        page.put_u64_le(self.owner_epoch.get());
        page.put_u64_le(self.manifest_records);
        page.resize(PAGE_LEN, 0);
        let crc = crc_around(&page, CRC_AT);
        page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads a header and checks that it belongs to this store and extent.
    ///
    /// # Errors
    /// What is wrong with the page.
    pub fn decode(page: &[u8], store: Uuid, extent: ExtentId) -> Result<Self, Malformed> {
        let mut input = page;
        if page.len() != PAGE_LEN || take(&mut input, 8)? != MAGIC {
            return Err(Malformed("segment header: no magic"));
        }
        if input.try_get_u32_le()? != crc_around(page, CRC_AT) {
            return Err(Malformed("segment header: checksum"));
        }
        let header = Self {
            group: input.try_get_u32_le()?,
            store: take_uuid(&mut input)?,
            segment: take_uuid(&mut input)?,
            extent: ExtentId::new(take_counter(&mut input)?),
            lineage: Lineage::new(take_counter(&mut input)?),
            owner_epoch: OwnerEpoch::new(take_counter(&mut input)?),
            manifest_records: take_counter(&mut input)?,
        };
        if !all_zero(input) {
            return Err(Malformed("segment header: reserved bytes"));
        }
        if header.store != store || header.extent != extent {
            return Err(Malformed("segment header: of another store or place"));
        }
        Ok(header)
    }
}
