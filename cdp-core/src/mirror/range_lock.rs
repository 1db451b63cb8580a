//! Ranges that are being changed: whoever overlaps with one waits, so that all copies end up with the same order of writes.
//!
//! Ranges are rounded outward to [`BLOCK_BYTES`], because a copy may have to read a block, change a part of it and write it back.

use crate::{dirty_map::ByteRange, units::BLOCK_BYTES};
use parking_lot::{Condvar, Mutex};

/// The ranges that are held, in no order.
#[derive(Debug, Default)]
pub(super) struct RangeLock {
    held: Mutex<Vec<(u64, u64)>>,
    freed: Condvar,
}

/// A range that is held until this is dropped.
pub(super) struct HeldRange<'a> {
    lock: &'a RangeLock,
    range: (u64, u64),
}

impl RangeLock {
    /// Waits until nobody holds a block of `range`, and holds it.
    pub(super) fn lock(&self, range: ByteRange) -> HeldRange<'_> {
        let start = range.offset / BLOCK_BYTES;
        let range = (start, range.end().div_ceil(BLOCK_BYTES).max(start + 1));
        let mut held = self.held.lock();
        while held.iter().any(|other| other.0 < range.1 && range.0 < other.1) {
            self.freed.wait(&mut held);
        }
        held.push(range);
        HeldRange { lock: self, range }
    }
}

impl Drop for HeldRange<'_> {
    fn drop(&mut self) {
        let mut held = self.lock.held.lock();
        if let Some(at) = held.iter().position(|range| *range == self.range) {
            held.swap_remove(at);
        }
        self.lock.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Goal: overlapping ranges exclude each other, to the block; others do not. Method: threads that change a number without any other lock.
    #[test]
    fn overlapping_ranges_wait_for_each_other() {
        let (lock, inside) = (RangeLock::default(), AtomicU64::new(0));
        let _other = lock.lock(ByteRange::new(8192, 4096));
        std::thread::scope(|scope| {
            for offset in [0, 512, 4095] {
                let (lock, inside) = (&lock, &inside);
                scope.spawn(move || {
                    for _ in 0..500 {
                        let _held = lock.lock(ByteRange::new(offset, 1));
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(lock.held.lock().len(), 1);
    }
}
