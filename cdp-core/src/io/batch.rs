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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::{AlignedBuf, DirectoryOptions, DirectoryStorage, IO_ALIGN, MemoryStorage, Storage},
        units::ExtentId,
    };
    use std::sync::Arc;

    const PAGES: usize = 300;

    /// An extent whose page `n` is filled with `n` and a tag.
    fn filled(storage: &dyn Storage, id: u64, tag: u8) -> Arc<dyn Extent> {
        let extent = storage.create(ExtentId::new(id), 0).unwrap();
        let mut pages = AlignedBuf::new(PAGES * IO_ALIGN).unwrap();
        for (page, bytes) in pages.chunks_mut(IO_ALIGN).enumerate() {
            bytes.fill(tag ^ u8::try_from(page % 251).unwrap());
        }
        extent.write_at(0, &pages).unwrap();
        extent.sync().unwrap();
        extent
    }

    /// Goal: every read of a batch gets its own bytes, or the error that it would have got alone, from files and from other extents. Method:
    /// more reads than a ring takes, out of order, from two files and an extent in memory, two of them past the end, in four threads at
    /// once; then whether the ring was there at all.
    #[test]
    fn each_read_of_a_batch_gets_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let files = DirectoryStorage::create(directory.path(), DirectoryOptions::default()).unwrap();
        let extents = [filled(&files, 1, 0), filled(&MemoryStorage::new(), 1, 7), filled(&files, 2, 99)];
        let tags = [0u8, 7, 99];
        let reader = BatchReader::default();
        let read_all = |turn: usize| {
            let mut buffer = AlignedBuf::new(PAGES * IO_ALIGN).unwrap();
            // 7 and the number of pages have no common divisor: each place once, never two in a row. The last two are past the end.
            let page_of =
                |at: usize| if at + 2 < PAGES { (at * 7 + turn) % PAGES } else { PAGES - 1 + at % 2 + 1 };
            let mut batch: Vec<BatchRead<'_>> = buffer
                .chunks_mut(IO_ALIGN)
                .enumerate()
                .map(|(at, buf)| BatchRead {
                    extent: &*extents[at % 3],
                    offset: u64::try_from(page_of(at) * IO_ALIGN).unwrap(),
                    buf,
                })
                .collect();
            let outcomes = reader.read(&mut batch);
            drop(batch);
            for (at, (outcome, bytes)) in outcomes.iter().zip(buffer.chunks(IO_ALIGN)).enumerate() {
                if at + 2 < PAGES {
                    outcome.as_ref().unwrap();
                    let byte = tags[at % 3] ^ u8::try_from(page_of(at) % 251).unwrap();
                    assert!(bytes.iter().all(|found| *found == byte), "read {at} of turn {turn}");
                } else {
                    let error = outcome.as_ref().unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "read {at} of turn {turn}");
                }
            }
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || (0..8).for_each(|turn| read_all(thread * 8 + turn)));
            }
        });
        #[cfg(target_os = "linux")]
        if reader.refused.load(Ordering::Relaxed) {
            eprintln!(
                "skipped: this system has no io_uring or forbids it, so that the reads came one after another"
            );
        } else {
            assert!(!reader.idle.lock().is_empty(), "no ring was used");
        }
    }
}
