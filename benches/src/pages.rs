//! Memory for requests: ordinary pages, as any program has them, or huge ones.
//!
//! What the harness brings, as a host or as a probe, is ordinary, so that a raw figure is what `dd` or `fio` would find. What huge pages would
//! change of it is a yardstick of its own.

use crate::error::{Context, Result};
use cdp_core::io::AlignedBuf;
use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};

/// Memory, aligned for direct I/O and zero at first.
pub enum Pages {
    /// As the system gives them to who asks for nothing.
    Ordinary(MmapMut),
    /// Huge, where the system has them, as the engine's own buffers are.
    Huge(AlignedBuf),
}

impl Pages {
    /// `bytes` bytes of ordinary pages.
    ///
    /// # Errors
    /// When memory cannot be had.
    pub fn ordinary(bytes: usize) -> Result<Self> {
        MmapMut::map_anon(bytes).map(Self::Ordinary).when("allocate")
    }

    /// `bytes` bytes of huge pages.
    ///
    /// # Errors
    /// When memory cannot be had.
    pub fn huge(bytes: usize) -> Result<Self> {
        AlignedBuf::in_huge_pages(bytes).map(Self::Huge).when("allocate")
    }
}

impl Deref for Pages {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Ordinary(map) => map,
            Self::Huge(buffer) => buffer,
        }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Ordinary(map) => map,
            Self::Huge(buffer) => buffer,
        }
    }
}
