//! Memory that producers and the consumer share: cells and payload bytes. The only `unsafe` of the pool.
//!
//! Who may touch what follows from two invariants, which this module's parent keeps (see there):
//! - *claimed*: the slots and sectors of two [`Claim`]s never overlap within one life of a frame, and a life begins only
//!   after every claim of the one before has ended and the consumer has left the frame;
//! - *handed*: a claim's slot and sectors belong to its producer until it makes the slot READY, with release, and then to the
//!   consumer, which looks with acquire. An abandoned claim stays the producer's to its end.

use super::{slots::Claim, sync::UnsafeCell};
use crate::units::SECTOR_LEN;
use memmap2::MmapMut;
use std::{io, ptr::NonNull};

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

/// The payload bytes of all frames: one anonymous map.
pub(super) struct Payload {
    base: NonNull<u8>,
    frame_sectors: usize,
    map: MmapMut,
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
        let mut map = MmapMut::map_anon(bytes)?;
        // All of it is touched now and used again and again: huge pages, where they can be had, save entries of the TLB.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        map.iter_mut().step_by(4096).for_each(|byte| *byte = 0);
        let base = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            base,
            frame_sectors,
            map,
            #[cfg(all(test, loom))]
            watched: std::iter::repeat_with(|| UnsafeCell::new(())).take(sectors).collect(),
        })
    }

    /// Byte offset of `bytes` bytes from `skip` on in a row of sectors of a frame, checked against frame and map.
    fn place(&self, frame: usize, first_sector: u32, skip: usize, bytes: usize) -> usize {
        let within = first_sector as usize * SECTOR_LEN + skip;
        let frame_bytes = self.frame_sectors * SECTOR_LEN;
        let start = frame * frame_bytes + within;
        assert!(
            within + bytes <= frame_bytes && start + bytes <= self.map.len(),
            "payload outside its frame"
        );
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
            std::slice::from_raw_parts(self.base.add(start).as_ptr(), bytes)
        }
    }
}
