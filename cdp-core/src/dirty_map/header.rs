//! The header of a map file: two pages, written in turn, each the same sector eight times over.
//!
//! A sector is written whole or not at all. So a page that a crash cut holds old and new sectors, all of them intact, and either is true;
//! a sector that is not intact is damage. Invariant *newest wins*: the intact sector of the highest sequence is the header. A page
//! without any intact sector may have been the newest one: the map is then all dirty.
//!
//! ```text
//!   0 magic "CDPMAPHD"   8 crc   12 version (1)   16 map uuid (16)   32 device (16)   48 volume bytes   56 granularity (u32)
//!  60 flags (u32)   64 base generation   72 sequence   80 ring id   88 region bytes   96 ring records (u32)
//! 100 page (u16: 0, 1)   102 sector (u16: 0..8)   104 zero to 512
//! ```

use super::shape::{Granularity, Shape};
use crate::{
    format::{Malformed, PAGE_BYTES, Uuid, all_zero, digest::crc_around, take, take_counter, take_uuid},
    units::{SECTOR_LEN, len_u64},
};
use bytes::{Buf, BufMut};

const MAGIC: &[u8; 8] = b"CDPMAPHD";
const VERSION: u32 = 1;
const CRC_AT: usize = 8;

/// What a map is a map of. It means nothing to anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// The source and the consumer that the map stands between.
    pub device: Uuid,
    /// Raised whenever maps of the time before stop being true; below [`COUNTER_END`](crate::limits::COUNTER_END).
    pub generation: u64,
    /// Size and granularity.
    pub shape: Shape,
}

/// What is known about the map besides its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// The pages are the whole claim.
    pub clean: bool,
    /// Everything is claimed.
    pub all_dirty: bool,
    /// Writes were let through without the activity log since the map was last whole.
    pub log_off: bool,
}

/// The header of a map file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub map: Uuid,
    pub base: Base,
    pub flags: Flags,
    pub sequence: u64,
    pub ring: u64,
    pub region_bytes: u64,
    pub ring_records: u32,
}

impl Header {
    /// Which of the two pages it belongs to.
    pub(super) fn page(&self) -> u16 {
        u16::from(!self.sequence.is_multiple_of(2))
    }

    /// Fills a page.
    pub(super) fn encode(&self, page: &mut [u8]) {
        for (sector, mut out) in (0u16..).zip(page.chunks_exact_mut(SECTOR_LEN)) {
            let whole = &mut out;
            whole.fill(0);
            let mut bytes = Vec::with_capacity(SECTOR_LEN);
            bytes.put_slice(MAGIC);
            bytes.put_u32_le(0);
            bytes.put_u32_le(VERSION);
            bytes.put_slice(&self.map.0);
            bytes.put_slice(&self.base.device.0);
            bytes.put_u64_le(self.base.shape.bytes());
            bytes.put_u32_le(u32::try_from(self.base.shape.granularity().bytes()).expect("at most 1 MiB"));
            let flags = &self.flags;
            // A map that is not clean needs replay: a bit of its own, so that no bit at all is no state.
            let bits = [flags.clean, flags.all_dirty, flags.log_off, !flags.clean];
            bytes.put_u32_le(bits.iter().zip(0..).map(|(bit, at)| u32::from(*bit) << at).sum());
            bytes.put_u64_le(self.base.generation);
            bytes.put_u64_le(self.sequence);
            bytes.put_u64_le(self.ring);
            bytes.put_u64_le(self.region_bytes);
            bytes.put_u32_le(self.ring_records);
            bytes.put_u16_le(self.page());
            bytes.put_u16_le(sector);
            whole[..bytes.len()].copy_from_slice(&bytes);
            let crc = crc_around(whole, CRC_AT);
            whole[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }

    fn decode_sector(bytes: &[u8], page: u16, sector: u16) -> Result<Self, Malformed> {
        let mut input = bytes;
        if bytes.len() != SECTOR_LEN || take(&mut input, 8)? != MAGIC {
            return Err(Malformed("map header: no magic"));
        }
        if input.try_get_u32_le()? != crc_around(bytes, CRC_AT) {
            return Err(Malformed("map header: checksum"));
        }
        if input.try_get_u32_le()? != VERSION {
            return Err(Malformed("map header: unknown version"));
        }
        let (map, device) = (take_uuid(&mut input)?, take_uuid(&mut input)?);
        let volume_bytes = input.try_get_u64_le()?;
        let granularity = Granularity::new(input.try_get_u32_le()?.into());
        let shape = granularity.and_then(|granularity| Shape::new(volume_bytes, granularity));
        let shape = shape.map_err(|_| Malformed("map header: impossible size or granularity"))?;
        let bits = input.try_get_u32_le()?;
        let bit = |at: u32| bits & 1 << at != 0;
        if bits >= 1 << 4 || bit(0) == bit(3) {
            return Err(Malformed("map header: flags"));
        }
        let header = Self {
            map,
            flags: Flags { clean: bit(0), all_dirty: bit(1), log_off: bit(2) },
            base: Base { device, generation: take_counter(&mut input)?, shape },
            sequence: take_counter(&mut input)?,
            ring: input.try_get_u64_le()?,
            region_bytes: input.try_get_u64_le()?,
            ring_records: input.try_get_u32_le()?,
        };
        if (input.try_get_u16_le()?, input.try_get_u16_le()?) != (page, sector) || header.page() != page {
            return Err(Malformed("map header: at the wrong place"));
        }
        if !all_zero(input) {
            return Err(Malformed("map header: reserved bytes"));
        }
        Ok(header)
    }

    /// The sectors of both pages that are not intact: offset and length, bytes.
    pub(super) fn bad_sectors(pages: &[u8]) -> impl Iterator<Item = (u64, u64)> + '_ {
        let sectors = (0u64..).zip(pages.chunks(SECTOR_LEN));
        sectors.filter_map(|(number, bytes)| {
            let in_page = PAGE_BYTES / len_u64(SECTOR_LEN);
            let (page, sector) =
                (u16::try_from(number / in_page).ok()?, u16::try_from(number % in_page).ok()?);
            let length = len_u64(SECTOR_LEN);
            Self::decode_sector(bytes, page, sector).is_err().then_some((number * length, length))
        })
    }

    /// The header that two pages hold, and whether a newer one may be lost.
    ///
    /// # Errors
    /// When no sector is intact, or they are of different maps.
    pub(super) fn judge(pages: [&[u8]; 2]) -> Result<(Self, bool), Malformed> {
        let mut newest: Option<Self> = None;
        let (mut damaged, mut reason) = (false, Malformed("map header: no magic"));
        for (number, page) in (0u16..).zip(pages) {
            let mut intact = 0;
            for (sector, bytes) in (0u16..).zip(page.chunks(SECTOR_LEN)) {
                match Self::decode_sector(bytes, number, sector) {
                    Ok(header) if newest.is_some_and(|newest| newest.map != header.map) => {
                        return Err(Malformed("map header: of two maps"));
                    }
                    Ok(header) => {
                        intact += 1;
                        newest = newest.filter(|newest| newest.sequence >= header.sequence).or(Some(header));
                    }
                    Err(error) => reason = error,
                }
            }
            damaged |= intact == 0;
        }
        newest.map(|header| (header, damaged)).ok_or(reason)
    }
}
