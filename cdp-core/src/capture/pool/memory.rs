//! Memory that producers and the consumer share: cells and payload bytes. The only `unsafe` of the pool.
//!
//! Who may touch what follows from two invariants, which this module's parent keeps (see there):
//! - *claimed*: the slots and sectors of two [`Claim`]s never overlap within one life of a frame, and a life begins only
//!   after every claim of the one before has ended and the consumer has left the frame;
//! - *handed*: a claim's slot and sectors belong to its producer until it makes the slot READY, with release, and then to the
//!   consumer, which looks with acquire. An abandoned claim stays the producer's to its end.

use super::{slots::Claim, sync::UnsafeCell};
use crate::{io::map_huge, units::SECTOR_LEN};
use memmap2::MmapMut;
use std::{io, ops::Deref, ptr::NonNull, slice};

/// A value in a slot, reached from several threads, one after the other.
pub(super) struct Shared<T>(UnsafeCell<T>);

// SAFETY: *claimed* and *handed* keep accesses of different threads apart and ordered.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// A cell that holds `value`.
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Puts `value` in and returns what was there. Only for whom the slot belongs to.
    #[inline]
    pub(super) fn replace(&self, value: T) -> T {
        // SAFETY: the slot is the caller's alone.
        #[allow(unsafe_code)]
        self.0.with_mut(|cell| unsafe { std::mem::replace(&mut *cell, value) })
    }

    /// A copy of the value. Only while nobody may replace it.
    #[inline]
    pub(super) fn get(&self) -> T
    where
        T: Copy,
    {
        // SAFETY: nobody writes the cell now.
        #[allow(unsafe_code)]
        self.0.with(|cell| unsafe { *cell })
    }
}

/// Values side by side, in huge pages where the system gives them: what all producers go through again and again would miss the TLB at every
/// page otherwise.
pub(super) struct Slab<T> {
    base: NonNull<T>,
    len: usize,
    _map: MmapMut,
}

// SAFETY: a slab owns its values as a boxed slice does.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Slab<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Sync> Sync for Slab<T> {}

impl<T> Slab<T> {
    /// `len` values; their memory is touched.
    ///
    /// # Errors
    /// `OutOfMemory`, and what the mapping answers.
    pub(super) fn new(len: usize, value: impl Fn() -> T) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let (mut map, start) = map_huge(bytes.max(1))?;
        let base = NonNull::from(&mut map[start..]).cast::<T>();
        for index in 0..len {
            // SAFETY: within the map, which begins at a huge page and so is aligned for any value, and not borrowed.
            #[allow(unsafe_code)]
            unsafe {
                base.add(index).write(value());
            }
        }
        Ok(Self { base, len, _map: map })
    }
}

impl<T> Deref for Slab<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: all values were made, and the map lives as long as this.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts(self.base.as_ptr(), self.len)
        }
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        // SAFETY: all values were made, and nobody reaches them any more; the map goes behind them.
        #[allow(unsafe_code)]
        unsafe {
            NonNull::slice_from_raw_parts(self.base, self.len).drop_in_place();
        }
    }
}

/// The payload bytes of all frames: one anonymous map, in huge pages where the system gives them.
pub(super) struct Payload {
    base: NonNull<u8>,
    bytes: usize,
    frame_sectors: usize,
    _map: MmapMut,
    /// Lets a model see each access to a sector.
    #[cfg(all(test, loom))]
    watched: Vec<UnsafeCell<()>>,
}

// SAFETY: the map is owned and never moves; *claimed* and *handed* keep accesses apart.
#[allow(unsafe_code)]
unsafe impl Send for Payload {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Payload {}

impl Payload {
    /// Memory for `frames` frames, every page touched.
    pub(super) fn new(frames: usize, frame_sectors: u32) -> io::Result<Self> {
        let frame_sectors = frame_sectors as usize;
        let sectors = frames.checked_mul(frame_sectors).ok_or(io::ErrorKind::OutOfMemory)?;
        let bytes = sectors.checked_mul(SECTOR_LEN).ok_or(io::ErrorKind::OutOfMemory)?;
        let (mut map, start) = map_huge(bytes.max(1))?;
        let memory = &mut map[start..start + bytes];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 0);
        let base = NonNull::from(memory).cast();
        Ok(Self {
            base,
            bytes,
            frame_sectors,
            _map: map,
            #[cfg(all(test, loom))]
            watched: std::iter::repeat_with(|| UnsafeCell::new(())).take(sectors).collect(),
        })
    }

    /// Byte offset of `bytes` bytes from `skip` on in a row of sectors of a frame, checked against frame and map.
    fn place(&self, frame: usize, first_sector: u32, skip: usize, bytes: usize) -> usize {
        let within = first_sector as usize * SECTOR_LEN + skip;
        let frame_bytes = self.frame_sectors * SECTOR_LEN;
        let start = frame * frame_bytes + within;
        assert!(within + bytes <= frame_bytes && start + bytes <= self.bytes, "payload outside its frame");
        start
    }

    /// Producer: copies `data` to byte `skip` of the claimed sectors.
    pub(super) fn copy(&self, claim: &Claim, skip: usize, data: &[u8]) {
        assert!(skip + data.len() <= claim.sectors as usize * SECTOR_LEN, "payload outside its claim");
        let start = self.place(claim.frame, claim.first_sector, skip, data.len());
        #[cfg(all(test, loom))]
        for sector in start / SECTOR_LEN..(start + data.len()).div_ceil(SECTOR_LEN) {
            self.watched[sector].with_mut(|_| ());
        }
        // SAFETY: within the map (`place`), and within sectors that are this producer's alone (*claimed*).
        #[allow(unsafe_code)]
        unsafe {
            self.base.add(start).copy_from_nonoverlapping(NonNull::from(data).cast(), data.len());
        }
    }

    /// Consumer: the payload of a write that it took, until it leaves the frame.
    pub(super) fn lend(&self, frame: usize, first_sector: u32, bytes: usize) -> &[u8] {
        let start = self.place(frame, first_sector, 0, bytes);
        #[cfg(all(test, loom))]
        for sector in start / SECTOR_LEN..(start + bytes).div_ceil(SECTOR_LEN) {
            self.watched[sector].with(|_| ());
        }
        // SAFETY: within the map (`place`); the write was READY, so that its producer is done, and nobody else
        // gets these sectors before the consumer leaves the frame (*claimed*).
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts(self.base.add(start).as_ptr(), bytes)
        }
    }
}
