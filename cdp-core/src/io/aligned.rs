//! Buffers aligned for direct I/O, taken from anonymous maps.
//!
//! Invariant *aligned*: address and capacity are multiples of [`IO_ALIGN`]. Fails only when memory cannot be mapped. The
//! checks of requests that every implementation of a storage makes are here too.

use crate::units::len_u64;
use memmap2::MmapMut;
use std::{
    fmt, io,
    ops::{Deref, DerefMut},
};

/// Alignment of offsets, lengths and addresses of every storage request, bytes.
pub const IO_ALIGN: usize = 4096;

/// A zero-filled, page-aligned buffer of fixed length.
pub struct AlignedBuf(MmapMut);

impl AlignedBuf {
    /// A buffer of at least `bytes` bytes, rounded up to [`IO_ALIGN`] (at least one unit), filled with zeroes.
    ///
    /// # Errors
    /// `OutOfMemory` and whatever else the mapping answers.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let len = bytes.max(1).checked_next_multiple_of(IO_ALIGN).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self(MmapMut::map_anon(len)?))
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.0.len())
    }
}

/// Largest offset or size, bytes: that of a file.
const OFFSET_MAX: u64 = i64::MAX.unsigned_abs();

/// Checks that a request keeps to the alignment and stays within the range of offsets.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn check(offset: u64, buf: &[u8]) -> io::Result<()> {
    let align = len_u64(IO_ALIGN);
    let (len, address) = (len_u64(buf.len()), len_u64(buf.as_ptr().addr()));
    if [offset, len, if len == 0 { 0 } else { address }].iter().any(|value| !value.is_multiple_of(align)) {
        let text =
            format!("offset {offset}, length {len} and address {address:#x} must be multiples of {IO_ALIGN}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    check_size(offset.saturating_add(len)).map(|_| ())
}

/// Checks that a size lies within the range of offsets, and returns it.
///
/// # Errors
/// `InvalidInput`.
pub(super) fn check_size(bytes: u64) -> io::Result<u64> {
    if bytes > OFFSET_MAX - len_u64(IO_ALIGN) {
        let text = format!("{bytes} bytes are more than an extent can have");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(bytes)
}
