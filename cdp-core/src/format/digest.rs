//! Checksums and digests.
//!
//! CRC-32 (IEEE, as in `crc32fast`) guards structures against damage. XXH3 with a key of the store gives the 64-bit digest of
//! payload: it verifies reads and decides, in resync, whether two blocks are equal. Source: XXH3 specification, xxHash 0.8.

use twox_hash::XxHash3_64;

/// CRC-32 of `bytes`.
pub fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// CRC-32 of a structure of which the four bytes at `hole` hold the checksum itself, which count as zero.
pub fn crc_around(bytes: &[u8], hole: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..hole]);
    hasher.update(&[0; 4]);
    hasher.update(&bytes[hole + 4..]);
    hasher.finalize()
}

/// The key of a store for its digests, drawn at random when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestKey(pub u64);

impl DigestKey {
    /// The digest of a run of sectors inside one block. Never 0, which stands for "all zeroes" in frames.
    pub fn digest(self, sectors: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(self.0, sectors).max(1)
    }
}
