//! Bytes on the storage <-> typed values. Pure; hostile input in, value or [`Malformed`] out.
//!
//! `docs/format.md` describes every byte. Common to all structures: little endian, 4 KiB aligned, a CRC over the whole
//! structure padding included, and the structure's own identity (store, extent, position), so that a misdirected, stale or
//! foreign block is noticed.

pub mod compacted;
pub mod digest;
pub mod frame;
pub mod frame_table;
pub mod leaf;
pub mod manifest;
pub mod meta;
pub mod outline;
pub mod packed;
pub mod page;
pub mod record;
pub mod sealed;
pub mod segment;
pub mod superblock;
#[cfg(test)]
mod tests;
pub mod trailer;

use crate::limits::COUNTER_END;
use bytes::{Buf, TryGetError};

/// Size of a page, the unit in which structures are laid out, bytes.
pub const PAGE_LEN: usize = 4096;
/// [`PAGE_LEN`] as an offset.
pub const PAGE_BYTES: u64 = 4096;
/// Version of the format that this library writes.
pub const FORMAT_VERSION: u32 = 1;

/// The bytes are not what they should be; the text says in which respect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl From<TryGetError> for Malformed {
    fn from(_: TryGetError) -> Self {
        Self("ends before its last field")
    }
}

/// A 128-bit random identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The first eight bytes, as the short identity that structures carry.
    pub fn short(self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().expect("eight bytes"))
    }
}

impl std::fmt::Display for Uuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Takes `len` bytes off the front.
pub(crate) fn take<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    if input.len() < len {
        return Err(Malformed("ends before its last field"));
    }
    let (head, rest) = input.split_at(len);
    *input = rest;
    Ok(head)
}

/// Takes a number that only grows off the front: below [`COUNTER_END`], so that the steps to come cannot overflow.
pub(crate) fn take_counter(input: &mut &[u8]) -> Result<u64, Malformed> {
    let value = input.try_get_u64_le()?;
    if value < COUNTER_END { Ok(value) } else { Err(Malformed("a number beyond any that can be reached")) }
}

/// Takes a 16-byte identity off the front.
pub(crate) fn take_uuid(input: &mut &[u8]) -> Result<Uuid, Malformed> {
    Ok(Uuid(take(input, 16)?.try_into().map_err(|_| Malformed("identity"))?))
}

/// Takes a string of at most `max` bytes off the front: length as u16, then UTF-8.
pub(crate) fn take_text(input: &mut &[u8], max: usize) -> Result<String, Malformed> {
    let len = usize::from(input.try_get_u16_le()?);
    if len > max {
        return Err(Malformed("text longer than its limit"));
    }
    let text = std::str::from_utf8(take(input, len)?).map_err(|_| Malformed("text is not UTF-8"))?;
    Ok(text.to_owned())
}

/// Appends a string: length as u16, then UTF-8.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("texts are bounded by the limits");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Checks that reserved bytes are zero.
pub(crate) fn all_zero(bytes: &[u8]) -> bool {
    let (before, words, after) = bytes_as_words(bytes);
    before.iter().chain(after).all(|byte| *byte == 0) && words.iter().all(|word| *word == [0; 8])
}

fn bytes_as_words(bytes: &[u8]) -> (&[u8], &[[u8; 8]], &[u8]) {
    let (words, after) = bytes.as_chunks::<8>();
    (&[], words, after)
}
