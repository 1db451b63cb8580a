//! Locks on ranges of a disk, so that reading, changing and writing back a sector is not torn apart by another write.
//!
//! Invariants: *exclusive*: no two ranges that are held overlap; *bounded*: there are at most as many as threads that write.

use parking_lot::{Condvar, Mutex};
use std::ops::Range;

/// The ranges of one disk that are being written.
#[derive(Debug, Default)]
pub struct RangeLocks {
    held: Mutex<Vec<Range<u64>>>,
    released: Condvar,
}

/// A range that is held until this is dropped.
#[derive(Debug)]
pub struct RangeGuard<'a> {
    locks: &'a RangeLocks,
    range: Range<u64>,
}

impl RangeLocks {
    /// Waits until nobody holds any part of `range`, and holds it.
    pub fn lock(&self, range: Range<u64>) -> RangeGuard<'_> {
        let mut held = self.held.lock();
        while held.iter().any(|other| other.start < range.end && range.start < other.end) {
            self.released.wait(&mut held);
        }
        held.push(range.clone());
        RangeGuard { locks: self, range }
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut held = self.locks.held.lock();
        if let Some(index) = held.iter().position(|range| *range == self.range) {
            held.swap_remove(index);
        }
        drop(held);
        self.locks.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        thread,
    };

    /// Goal: overlapping ranges exclude each other, others do not. Method: threads that read, wait and write back counters,
    /// one for each unit of a range; a lost update shows.
    #[test]
    fn overlapping_ranges_exclude_each_other() {
        let locks = RangeLocks::default();
        let counters: Vec<AtomicU64> = (0..8).map(|_| AtomicU64::new(0)).collect();
        let neighbour = locks.lock(100..101);
        thread::scope(|scope| {
            for start in 0..4_usize {
                let (locks, counters) = (&locks, &counters);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let range = start..start + 4;
                        let _guard = locks.lock(start as u64..start as u64 + 4);
                        let read: Vec<u64> =
                            range.clone().map(|unit| counters[unit].load(Ordering::Relaxed)).collect();
                        thread::yield_now();
                        for (unit, value) in range.zip(read) {
                            counters[unit].store(value + 1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        drop(neighbour);
        let counts: Vec<u64> = counters.iter().map(|counter| counter.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [200, 400, 600, 800, 600, 400, 200, 0]);
        assert!(locks.held.lock().is_empty());
    }
}
