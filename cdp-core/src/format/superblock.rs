//! The superblock: where everything starts. Extent 0, four copies of one page.
//!
//! Generations alternate between copies 0 and 1 (even) and copies 2 and 3 (odd), so that the update of one never
//! touches the other. Each copy carries its own position. Invariant *newest wins*: the valid copy of the highest generation
//! is the superblock.
//!
//! ```text
//!   0 magic "CDPSTORE"   8 crc   12 format version   16 compat   24 read-only compat   32 incompat features
//!  40 store uuid (16)   56 digest key   64 generation   72 owner epoch   80 manifest extent   88 manifest bytes
//!  96 copy (0..4)   100 flags (1: closed cleanly)   104 zero to the end of the page
//! ```

use super::{
    FORMAT_VERSION, Malformed, PAGE_LEN, Uuid, all_zero, digest::DigestKey, digest::crc_around, take,
    take_counter, take_uuid,
};
use crate::units::{ExtentId, OwnerEpoch};
use bytes::{Buf, BufMut};

/// The extent of the superblock.
pub const SUPERBLOCK_EXTENT: ExtentId = ExtentId::new(0);
/// Number of copies.
pub const COPIES: usize = 4;
const MAGIC: &[u8; 8] = b"CDPSTORE";
const CRC_AT: usize = 8;
const FIELDS_LEN: usize = 104;
const FLAG_CLEAN: u32 = 1;
/// Incompatible features that this version knows: none yet.
pub const INCOMPAT_KNOWN: u64 = 0;
/// Features that forbid writing and that this version knows: none yet.
pub const READ_ONLY_COMPAT_KNOWN: u64 = 0;

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Features that an older version may ignore.
    pub compat: u64,
    /// Features that an older version may ignore when it only reads.
    pub read_only_compat: u64,
    /// Features that an older version must not ignore.
    pub incompat: u64,
    /// Identity of the store.
    pub store: Uuid,
    /// Key of its digests.
    pub digest_key: DigestKey,
    /// Raised with each update.
    pub generation: u64,
    /// Raised at each open for writing.
    pub owner_epoch: OwnerEpoch,
    /// The manifest in force.
    pub manifest: ExtentId,
    /// Bytes of the manifest that were durable when this was written: what lies below is never a torn tail.
    pub manifest_bytes: u64,
    /// Whether the last owner closed the store; nothing needs recovery then.
    pub clean: bool,
}

impl Superblock {
    /// The two copies in which this generation lives.
    pub fn copies(&self) -> [usize; 2] {
        if self.generation.is_multiple_of(2) { [0, 1] } else { [2, 3] }
    }

    /// The page for copy `copy`.
    pub fn encode(&self, copy: usize) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_LEN);
        page.put_slice(MAGIC);
        page.put_u32_le(0);
        page.put_u32_le(FORMAT_VERSION);
        page.put_u64_le(self.compat);
        page.put_u64_le(self.read_only_compat);
        page.put_u64_le(self.incompat);
        page.put_slice(&self.store.0);
        page.put_u64_le(self.digest_key.0);
        page.put_u64_le(self.generation);
        page.put_u64_le(self.owner_epoch.get());
        page.put_u64_le(self.manifest.get());
        page.put_u64_le(self.manifest_bytes);
        page.put_u32_le(u32::try_from(copy).expect("four copies"));
        page.put_u32_le(if self.clean { FLAG_CLEAN } else { 0 });
        assert_eq!(page.len(), FIELDS_LEN);
        page.resize(PAGE_LEN, 0);
        let crc = crc_around(&page, CRC_AT);
        page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads copy `copy`.
    ///
    /// # Errors
    /// What is wrong with the page. An unknown format version is an error of its own, told by [`Superblock::version_of`].
    pub fn decode(page: &[u8], copy: usize) -> Result<Self, Malformed> {
        let mut input = page;
        if page.len() != PAGE_LEN || take(&mut input, 8)? != MAGIC {
            return Err(Malformed("superblock: no magic"));
        }
        if input.try_get_u32_le()? != crc_around(page, CRC_AT) {
            return Err(Malformed("superblock: checksum"));
        }
        if input.try_get_u32_le()? != FORMAT_VERSION {
            return Err(Malformed("superblock: format version"));
        }
        let superblock = Self {
            compat: input.try_get_u64_le()?,
            read_only_compat: input.try_get_u64_le()?,
            incompat: input.try_get_u64_le()?,
            store: take_uuid(&mut input)?,
            digest_key: DigestKey(input.try_get_u64_le()?),
            generation: take_counter(&mut input)?,
            owner_epoch: OwnerEpoch::new(take_counter(&mut input)?),
            manifest: ExtentId::new(take_counter(&mut input)?),
            manifest_bytes: input.try_get_u64_le()?,
            clean: false,
        };
        if usize::try_from(input.try_get_u32_le()?) != Ok(copy) {
            return Err(Malformed("superblock: copy at the wrong place"));
        }
        let flags = input.try_get_u32_le()?;
        if flags & !FLAG_CLEAN != 0 || !all_zero(input) {
            return Err(Malformed("superblock: reserved bytes"));
        }
        if !superblock.copies().contains(&copy) {
            return Err(Malformed("superblock: generation at the wrong place"));
        }
        Ok(Self { clean: flags & FLAG_CLEAN != 0, ..superblock })
    }

    /// The format version of an intact superblock page of any version, `None` when it is none.
    pub fn version_of(page: &[u8]) -> Option<u32> {
        let intact = page.len() == PAGE_LEN
            && page.starts_with(MAGIC)
            && page[CRC_AT..CRC_AT + 4] == crc_around(page, CRC_AT).to_le_bytes();
        intact.then(|| u32::from_le_bytes(page[12..16].try_into().expect("four bytes")))
    }
}
