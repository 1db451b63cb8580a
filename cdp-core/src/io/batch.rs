//! Several reads at once, asked for and waited for by the calling thread alone.
//!
//! Scattered reads one after another leave a device waiting for most of the time. Those of one batch are in flight together, through
//! `io_uring`. Where there is none (another system, an old kernel, a container that forbids it), and for extents without a file of their own,
//! they are read one after another. Either way the outcome is that of [`Extent::read_at`], which also does again whatever did not succeed
//! at once: what a short read, an interruption or a refusal mean is decided there alone.

use super::Extent;
#[cfg(target_os = "linux")]
use super::ring::Ring;
use std::io;
#[cfg(target_os = "linux")]
use {
    parking_lot::Mutex,
    std::sync::atomic::{AtomicBool, Ordering},
};

/// Rings that are kept for later batches: as many as usually read at the same time.
#[cfg(target_os = "linux")]
const IDLE_RINGS_MAX: usize = 8;

/// One read of a batch.
pub(crate) struct BatchRead<'a> {
    /// Where from.
    pub extent: &'a dyn Extent,
    /// First byte.
    pub offset: u64,
    /// Filled whole, or its content is undefined.
    pub buf: &'a mut [u8],
}

/// Reads batches. Any threads at once.
#[derive(Default)]
pub(crate) struct BatchReader {
    #[cfg(target_os = "linux")]
    idle: Mutex<Vec<Ring>>,
    /// Whether the system has refused to make a ring.
    #[cfg(target_os = "linux")]
    refused: AtomicBool,
}

impl BatchReader {
    /// Reads all of them; the outcomes come in their order.
    pub fn read(&self, batch: &mut [BatchRead<'_>]) -> Vec<io::Result<()>> {
        let filled = if batch.len() > 1 { self.read_together(batch) } else { Vec::new() };
        let filled = filled.into_iter().chain(std::iter::repeat(false));
        batch
            .iter_mut()
            .zip(filled)
            .map(|(read, filled)| if filled { Ok(()) } else { read.extent.read_at(read.offset, read.buf) })
            .collect()
    }

    /// Which reads are done. The others are left to do.
    #[cfg(target_os = "linux")]
    fn read_together(&self, batch: &mut [BatchRead<'_>]) -> Vec<bool> {
        if self.refused.load(Ordering::Relaxed) || batch.iter().all(|read| read.extent.file().is_none()) {
            return Vec::new();
        }
        let idle = self.idle.lock().pop();
        let Ok(mut ring) = idle.map_or_else(Ring::new, Ok) else {
            self.refused.store(true, Ordering::Relaxed);
            return Vec::new();
        };
        let mut filled = vec![false; batch.len()];
        if ring.read(batch, &mut filled).is_ok() {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_RINGS_MAX {
                idle.push(ring);
            }
        }
        filled
    }

    #[cfg(not(target_os = "linux"))]
    fn read_together(&self, _: &mut [BatchRead<'_>]) -> Vec<bool> {
        Vec::new()
    }
}
