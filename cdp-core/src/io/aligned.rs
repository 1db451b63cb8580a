//! Buffers aligned for direct I/O: long ones are anonymous maps, short ones come from the allocator, since to map and unmap a few pages costs
//! more than to fill them.
//!
//! Those that are filled again and again can be of huge pages. A device is told of a request page by page where its pages lie apart, and takes only
//! so many at a time; of huge pages a request is one piece. The first touch of a huge page clears all of it, so that a buffer of which little is used,
//! or which is used once, had better be of ordinary ones.
//!
//! Invariant *aligned*: address and capacity are multiples of [`IO_ALIGN`]. Fails only when there is no memory. The
//! checks of requests that every implementation of a storage makes are here too.

use super::{
    area::{map_huge, to_aligned},
    buffer_pool::Pooled,
};
use crate::units::len_u64;
use memmap2::MmapMut;
use std::{
    fmt, io,
    ops::{Deref, DerefMut},
};

/// Alignment of offsets, lengths and addresses of every storage request, bytes.
pub const IO_ALIGN: usize = 4096;

/// Length from which on a buffer is a map, bytes.
const MAPPED_BYTES_MIN: usize = 128 << 10;

/// A zero-filled, page-aligned buffer of fixed length.
pub struct AlignedBuf(Memory);

enum Memory {
    /// The buffer begins at the first address that is aligned.
    Map { map: MmapMut, start: usize, len: usize },
    /// The same, of memory of the allocator.
    Heap { bytes: Box<[u8]>, start: usize, len: usize },
    /// One of a pool, to which it returns.
    Pooled(Pooled),
}

impl AlignedBuf {
    /// A buffer of at least `bytes` bytes, rounded up to [`IO_ALIGN`] (at least one unit), filled with zeroes.
    ///
    /// # Errors
    /// `OutOfMemory` and whatever else the mapping answers.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let len = rounded(bytes)?;
        if len >= MAPPED_BYTES_MIN {
            return Ok(Self(Memory::Map { map: MmapMut::map_anon(len)?, start: 0, len }));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len + IO_ALIGN - 1).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(len + IO_ALIGN - 1, 0);
        let bytes = bytes.into_boxed_slice();
        let start = to_aligned(&bytes, IO_ALIGN);
        Ok(Self(Memory::Heap { bytes, start, len }))
    }

    /// The same in huge pages of its own, where the system gives them on request: for a buffer of a megabyte or more that is used again and again.
    ///
    /// # Errors
    /// As [`AlignedBuf::new`].
    pub fn in_huge_pages(bytes: usize) -> io::Result<Self> {
        let len = rounded(bytes)?;
        let (map, start) = map_huge(len)?;
        Ok(Self(Memory::Map { map, start, len }))
    }

    /// One that returns to its pool when it is dropped.
    pub(super) fn pooled(pooled: Pooled) -> Self {
        Self(Memory::Pooled(pooled))
    }
}

/// The length of a buffer that holds `bytes` bytes.
pub(super) fn rounded(bytes: usize) -> io::Result<usize> {
    bytes.max(1).checked_next_multiple_of(IO_ALIGN).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Map { map, start, len } => &map[*start..*start + *len],
            Memory::Heap { bytes, start, len } => &bytes[*start..start + len],
            Memory::Pooled(pooled) => pooled,
        }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Map { map, start, len } => &mut map[*start..*start + *len],
            Memory::Heap { bytes, start, len } => &mut bytes[*start..*start + *len],
            Memory::Pooled(pooled) => pooled,
        }
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a buffer is aligned, long enough and zero whatever its length. Method: lengths around each unit and around the change to maps.
    #[test]
    fn buffers_are_aligned_and_zero() {
        let lengths =
            [0, 1, 4095, 4096, 4097, 8192, MAPPED_BYTES_MIN - 1, MAPPED_BYTES_MIN, MAPPED_BYTES_MIN + 1];
        for length in lengths {
            for _ in 0..8 {
                for made in [AlignedBuf::new, AlignedBuf::in_huge_pages] {
                    let mut buf = made(length).expect("memory");
                    assert_eq!(buf.len(), length.max(1).next_multiple_of(IO_ALIGN), "{length}");
                    assert!(buf.as_ptr().addr().is_multiple_of(IO_ALIGN), "{length}");
                    assert!(buf.iter().all(|byte| *byte == 0), "{length}");
                    // The next one may get the same memory, and is zero all the same.
                    buf.fill(0xFF);
                }
            }
        }
        for made in [AlignedBuf::new, AlignedBuf::in_huge_pages] {
            assert_eq!(made(usize::MAX).err().map(|error| error.kind()), Some(io::ErrorKind::OutOfMemory));
        }
    }
}
