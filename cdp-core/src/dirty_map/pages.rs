//! The pages of a map file: the bits of the blocks in order, 32,256 of them in each page. Written in place.
//!
//! Invariant *superset*: a page that is not intact, or not this page of this map, stands for all of its blocks dirty.
//!
//! ```text
//!   0 magic "CDPMAPPG"   8 crc   12 zero (u32)   16 map uuid (16)   32 page number   40 zero (24)   64 bits: 504 words
//! ```

use crate::{
    format::{PAGE_LEN, Uuid, all_zero, digest::crc_around},
    units::to_len,
};
use std::ops::Range;

const MAGIC: &[u8; 8] = b"CDPMAPPG";
const CRC_AT: usize = 8;
const HEAD_LEN: usize = 64;
/// Words of bits in a page.
pub(super) const PAGE_WORDS: usize = (PAGE_LEN - HEAD_LEN) / 8;
/// Blocks of a page.
pub(super) const PAGE_BLOCKS: u64 = 64 * PAGE_WORDS as u64;

/// The bits of a page.
pub(super) type Words = [u64; PAGE_WORDS];

/// The blocks of a page; the last page may reach past the end of the map.
pub(super) fn blocks_of(page: u64) -> Range<u64> {
    page * PAGE_BLOCKS..(page + 1) * PAGE_BLOCKS
}

/// Fills page `number`.
pub(super) fn encode(words: &Words, map: Uuid, number: u64, page: &mut [u8]) {
    page[..HEAD_LEN].fill(0);
    page[..8].copy_from_slice(MAGIC);
    page[16..32].copy_from_slice(&map.0);
    page[32..40].copy_from_slice(&number.to_le_bytes());
    for (out, word) in page[HEAD_LEN..].chunks_exact_mut(8).zip(words) {
        out.copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc_around(page, CRC_AT);
    page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// The bits of page `number` of a map of `blocks` blocks, `None` when it is anything else.
pub(super) fn decode(page: &[u8], map: Uuid, number: u64, blocks: u64) -> Option<Words> {
    let intact = page.len() == PAGE_LEN
        && page.starts_with(MAGIC)
        && page[CRC_AT..CRC_AT + 4] == crc_around(page, CRC_AT).to_le_bytes()
        && page[12..16] == [0; 4]
        && page[16..32] == map.0
        && page[32..40] == number.to_le_bytes()
        && all_zero(&page[40..HEAD_LEN]);
    if !intact {
        return None;
    }
    let mut words = [0; PAGE_WORDS];
    for (word, bytes) in words.iter_mut().zip(page[HEAD_LEN..].as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let used = to_len(blocks.saturating_sub(number * PAGE_BLOCKS).min(PAGE_BLOCKS));
    let beyond = words.iter().enumerate().any(|(at, word)| {
        let own = used.saturating_sub(at * 64).min(64);
        own < 64 && word >> own != 0
    });
    (!beyond).then_some(words)
}
