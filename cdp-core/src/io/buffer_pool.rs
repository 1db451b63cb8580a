//! Buffers of one length that are used again: to map new memory and to fault it in costs more than to fill it.
//!
//! A buffer returns when it is dropped, wherever that is, also when what it was taken for fails. Invariant *bounded*: what comes back is kept up to
//! a number; beyond it its memory is given up.

use super::{
    AlignedBuf,
    aligned::rounded,
    area::{HUGE_PAGE_BYTES, Part, parts},
};
use parking_lot::Mutex;
use std::{
    io,
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// Memory from which buffers are cut, bytes, where so much is kept at all. It is taken in steps of a huge page as the buffers are used.
const AREA_BYTES_MAX: usize = 16 << 20;

/// A pool of buffers. Those that are out when it is dropped stay good.
pub(crate) struct BufferPool(Arc<Shared>);

struct Shared {
    bytes: usize,
    area: usize,
    keep: usize,
    free: Mutex<Vec<Part>>,
}

impl BufferPool {
    /// A pool of buffers of `bytes` bytes, which is not zero, of which `keep` are kept for their next use.
    pub fn new(bytes: usize, keep: usize) -> Self {
        let area = bytes.saturating_mul(keep).min(AREA_BYTES_MAX);
        // What an area holds beyond it is kept too: its memory is not free without the others.
        let keep = keep.max(area.next_multiple_of(HUGE_PAGE_BYTES) / bytes);
        Self(Arc::new(Shared { bytes, area, keep, free: Mutex::default() }))
    }

    /// A buffer with whatever its last use left in it.
    ///
    /// # Errors
    /// Those of [`AlignedBuf::new`].
    pub fn take(&self) -> io::Result<AlignedBuf> {
        let mut free = self.0.free.lock();
        if free.is_empty() {
            *free = self.0.new_area()?;
        }
        let part = free.pop();
        Ok(AlignedBuf::pooled(Pooled { part, home: self.0.clone() }))
    }
}

impl Shared {
    /// As many buffers as fit into an area, at least one, side by side in huge pages, so that several share one. Their memory is taken as they are
    /// used, and is free when the last of them is dropped.
    fn new_area(&self) -> io::Result<Vec<Part>> {
        let len = rounded(self.bytes)?;
        let area = self.area.max(len).checked_next_multiple_of(HUGE_PAGE_BYTES);
        let mut made = parts(area.ok_or(io::ErrorKind::OutOfMemory)?, len)?;
        // The first is taken first, so that memory is used from the front on.
        made.reverse();
        Ok(made)
    }
}

/// A buffer that is out. It has its part until it is dropped.
pub(super) struct Pooled {
    part: Option<Part>,
    home: Arc<Shared>,
}

impl Deref for Pooled {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.part.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.part.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut free = self.home.free.lock();
        if free.len() < self.home.keep {
            free.extend(self.part.take());
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
            drop(taken);
            let kept = pool.0.free.lock().len();
            assert!((3.min(count)..=pool.0.keep).contains(&kept), "{kept} of {count}, each {bytes} bytes");
            let again: Vec<AlignedBuf> = (0..kept).map(|_| pool.take().expect("memory")).collect();
            assert!(again.iter().any(|buffer| addresses.contains(&buffer.as_ptr().addr())), "{bytes}");
        }
    }

    /// Goal: a buffer is good without its pool, and what a failure drops is not lost. Method: one outlives the pool; one is dropped by an error.
    #[test]
    fn a_buffer_returns_however_it_is_dropped() {
        let pool = BufferPool::new(1 << 20, 2);
        let fails = || -> io::Result<()> {
            let _buffer = pool.take()?;
            Err(io::ErrorKind::Other.into())
        };
        assert!(fails().is_err());
        let left = pool.0.free.lock().len();
        let mut buffer = pool.take().expect("memory");
        assert_eq!(pool.0.free.lock().len(), left - 1, "another area would have made more of them");
        drop(pool);
        buffer.fill(7);
        assert!(buffer.iter().all(|byte| *byte == 7));
    }

    /// Bytes of the pages around `memory` that are huge ones, if the system says so.
    #[cfg(target_os = "linux")]
    fn huge_bytes(memory: &[u8]) -> Option<usize> {
        let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let address = memory.as_ptr().addr();
        let mut within = false;
        for line in maps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                within = (from..to).contains(&address);
            } else if let (true, Some(rest)) = (within, line.strip_prefix("AnonHugePages:")) {
                return rest.trim().strip_suffix(" kB")?.parse::<usize>().ok().map(|kib| kib << 10);
            }
        }
        None
    }

    /// Goal: buffers lie in huge pages where the system gives them. Method: what the system says of them, and of a map of this test that asks for
    /// the same; where that gets none, there are none to be had.
    #[test]
    #[cfg(target_os = "linux")]
    fn buffers_lie_in_huge_pages() {
        let asked = || {
            let mut map = memmap2::MmapMut::map_anon(3 * HUGE_PAGE_BYTES).ok()?;
            map.advise(memmap2::Advice::HugePage).ok()?;
            map.fill(1);
            huge_bytes(&map).filter(|bytes| *bytes > 0)
        };
        for bytes in [1 << 20, (4 << 20) + 4096] {
            let pool = BufferPool::new(bytes, 4);
            let buffers: Vec<AlignedBuf> = (0..4)
                .map(|_| {
                    let mut buffer = pool.take().expect("memory");
                    buffer.fill(1);
                    buffer
                })
                .collect();
            let huge = huge_bytes(&buffers[0]);
            if huge.is_none_or(|huge| huge < HUGE_PAGE_BYTES) && asked().is_none() {
                println!("skipped: this system gives no huge pages on request");
                return;
            }
            assert!(huge.is_some_and(|huge| huge >= HUGE_PAGE_BYTES), "{huge:?} of 4 times {bytes}");
        }
    }

    /// Goal: a length that no memory can have is an error.
    #[test]
    fn too_much_is_refused() {
        assert!(BufferPool::new(usize::MAX, 1).take().is_err());
        assert!(BufferPool::new(usize::MAX - (4 << 20), 1).take().is_err());
    }
}
