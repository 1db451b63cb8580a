//! Buffers of one length that are used again: to map new memory and to fault it in costs more than to fill it.
//!
//! Invariant *bounded*: what comes back is kept up to a number; beyond it its memory is given up.

use super::{AlignedBuf, area::HUGE_PAGE_BYTES};
use parking_lot::Mutex;
use std::io;

/// Memory from which buffers are cut, bytes, where so much is kept at all. It is taken in steps of a huge page as the buffers are used.
const AREA_BYTES_MAX: usize = 16 << 20;

/// A pool of buffers.
pub(crate) struct BufferPool {
    bytes: usize,
    area: usize,
    keep: usize,
    free: Mutex<Vec<AlignedBuf>>,
}

impl BufferPool {
    /// A pool of buffers of `bytes` bytes, which is not zero, of which `keep` are kept for their next use.
    pub fn new(bytes: usize, keep: usize) -> Self {
        let area = bytes.saturating_mul(keep).min(AREA_BYTES_MAX);
        // What an area holds beyond it is kept too: its memory is not free without the others.
        let keep = keep.max(area.next_multiple_of(HUGE_PAGE_BYTES) / bytes);
        Self { bytes, area, keep, free: Mutex::default() }
    }

    /// A buffer with whatever its last use left in it.
    ///
    /// # Errors
    /// Those of [`AlignedBuf::new`].
    pub fn take(&self) -> io::Result<AlignedBuf> {
        let mut free = self.free.lock();
        if free.is_empty() {
            *free = AlignedBuf::side_by_side(self.bytes, self.area)?;
            // The first is taken first, so that memory is used from the front on.
            free.reverse();
        }
        Ok(free.pop().expect("at least one was made"))
    }

    /// Gives a buffer back.
    pub fn put(&self, buffer: AlignedBuf) {
        let mut free = self.free.lock();
        if free.len() < self.keep {
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: buffers of a pool are apart, aligned, zero at first and used again; more than are kept can be taken and given back. Method: twice
    /// as many as an area holds, each filled with a byte of its own.
    #[test]
    fn buffers_are_apart_and_used_again() {
        for bytes in [64 << 10, (1 << 20) + (64 << 10), 1 << 20, 20 << 20] {
            let pool = BufferPool::new(bytes, 3);
            let count = 2 * (AREA_BYTES_MAX / bytes).clamp(1, 20);
            let mut taken: Vec<AlignedBuf> = (0..count).map(|_| pool.take().expect("memory")).collect();
            for (buffer, number) in taken.iter_mut().zip(1..) {
                assert_eq!(buffer.len(), bytes);
                assert!(buffer.as_ptr().addr().is_multiple_of(crate::io::IO_ALIGN));
                assert!(buffer.iter().all(|byte| *byte == 0));
                buffer.fill(number);
            }
            for (buffer, number) in taken.iter().zip(1..) {
                assert!(buffer.iter().all(|byte| *byte == number), "{number} of {count}, each {bytes} bytes");
            }
            let addresses: Vec<usize> = taken.iter().map(|buffer| buffer.as_ptr().addr()).collect();
            taken.into_iter().for_each(|buffer| pool.put(buffer));
            let kept = pool.free.lock().len();
            assert!((3.min(count)..=pool.keep).contains(&kept), "{kept} of {count}, each {bytes} bytes");
            let again: Vec<AlignedBuf> = (0..kept).map(|_| pool.take().expect("memory")).collect();
            assert!(again.iter().any(|buffer| addresses.contains(&buffer.as_ptr().addr())), "{bytes}");
        }
    }

    /// Goal: a length that no memory can have is an error.
    #[test]
    fn too_much_is_refused() {
        assert!(BufferPool::new(usize::MAX, 1).take().is_err());
        assert!(BufferPool::new(usize::MAX - (4 << 20), 1).take().is_err());
    }
}
