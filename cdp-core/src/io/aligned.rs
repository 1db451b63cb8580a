//! Buffers aligned for direct I/O: long ones are anonymous maps, short ones come from the allocator, since to map and unmap a few pages costs
//! more than to fill them.
//!
//! Invariant *aligned*: address and capacity are multiples of [`IO_ALIGN`]. Fails only when there is no memory. The
//! checks of requests that every implementation of a storage makes are here too.

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
    Map(MmapMut),
    /// More than is needed; the buffer begins at the first aligned address.
    Heap {
        bytes: Box<[u8]>,
        start: usize,
        len: usize,
    },
}

impl AlignedBuf {
    /// A buffer of at least `bytes` bytes, rounded up to [`IO_ALIGN`] (at least one unit), filled with zeroes.
    ///
    /// # Errors
    /// `OutOfMemory` and whatever else the mapping answers.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let len = bytes.max(1).checked_next_multiple_of(IO_ALIGN).ok_or(io::ErrorKind::OutOfMemory)?;
        if len >= MAPPED_BYTES_MIN {
            return Ok(Self(Memory::Map(MmapMut::map_anon(len)?)));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len + IO_ALIGN - 1).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(len + IO_ALIGN - 1, 0);
        let bytes = bytes.into_boxed_slice();
        let address = bytes.as_ptr().addr();
        let start = address.next_multiple_of(IO_ALIGN) - address;
        Ok(Self(Memory::Heap { bytes, start, len }))
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Map(map) => map,
            Memory::Heap { bytes, start, len } => &bytes[*start..start + len],
        }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Map(map) => map,
            Memory::Heap { bytes, start, len } => &mut bytes[*start..*start + *len],
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
                let mut buf = AlignedBuf::new(length).expect("memory");
                assert_eq!(buf.len(), length.max(1).next_multiple_of(IO_ALIGN), "{length}");
                assert!(buf.as_ptr().addr().is_multiple_of(IO_ALIGN), "{length}");
                assert!(buf.iter().all(|byte| *byte == 0), "{length}");
                // The next one may get the same memory, and is zero all the same.
                buf.fill(0xFF);
            }
        }
        assert_eq!(
            AlignedBuf::new(usize::MAX).err().map(|error| error.kind()),
            Some(io::ErrorKind::OutOfMemory)
        );
    }
}
