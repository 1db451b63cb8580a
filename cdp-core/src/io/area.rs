//! Memory in huge pages, whole or in parts that are owned one by one.
//!
//! Invariants: *apart*: the parts of an area do not overlap; *alive*: the area is unmapped when its last part is dropped, and nothing but the parts
//! reaches it before. The only `unsafe` of buffers.

use memmap2::MmapMut;
use std::{
    io,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::Arc,
};

/// Bytes of a huge page, as nearly all machines have them.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// How far it is to the first address that is a multiple of `align`.
pub(super) fn to_aligned(bytes: &[u8], align: usize) -> usize {
    let address = bytes.as_ptr().addr();
    address.next_multiple_of(align) - address
}

/// A map with `len` bytes of zeroes that begin at a huge page, and where they begin. That the pages are huge is a wish: the system may give ordinary ones.
///
/// # Errors
/// `OutOfMemory`, and what the mapping answers.
pub(crate) fn map_huge(len: usize) -> io::Result<(MmapMut, usize)> {
    let whole = len.checked_next_multiple_of(HUGE_PAGE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
    let map = MmapMut::map_anon(whole.checked_add(HUGE_PAGE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?)?;
    let start = to_aligned(&map, HUGE_PAGE_BYTES);
    #[cfg(target_os = "linux")]
    let _ = map.advise_range(memmap2::Advice::HugePage, start, whole);
    Ok((map, start))
}

/// As many parts of `len` bytes, one behind the other, as fit into an area of `bytes`. `len` is not zero.
///
/// # Errors
/// Those of [`map_huge`].
pub(super) fn parts(bytes: usize, len: usize) -> io::Result<Vec<Part>> {
    let (mut map, start) = map_huge(bytes)?;
    let bases: Vec<NonNull<u8>> =
        map[start..start + bytes].chunks_exact_mut(len).map(|part| NonNull::from(part).cast()).collect();
    let area = Arc::new(map);
    Ok(bases.into_iter().map(|base| Part { base, len, _area: area.clone() }).collect())
}

/// A part of an area.
pub(super) struct Part {
    base: NonNull<u8>,
    len: usize,
    _area: Arc<MmapMut>,
}

// SAFETY: a part is the only way to its bytes (*apart*, *alive*), as a box is to what it holds.
#[allow(unsafe_code)]
unsafe impl Send for Part {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Part {}

impl Deref for Part {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are mapped (*alive*) and written through this part alone (*apart*), which is borrowed.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.base.as_ptr(), self.len)
        }
    }
}

impl DerefMut for Part {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this part is borrowed by nobody else.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len)
        }
    }
}
