//! An image or a device that exists and is made equal to a state, writing only what differs.

use super::{CHUNK_BYTES, next_data, size_of};
use crate::{
    exit::{Failure, Outcome},
    interrupt::Interrupt,
};
use cdp_core::RestoreTarget;
use rustix::fs::FallocateFlags;
use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// Granularity at which content is compared, bytes.
const COMPARED_BYTES: usize = 4096;

/// An existing image; the target of a restore.
#[derive(Debug)]
pub struct ExistingImage {
    file: File,
    buf: Vec<u8>,
    bytes: u64,
    interrupt: Interrupt,
    written_bytes: u64,
}

impl ExistingImage {
    /// Opens an image or a device; a file is given the size of the state, a device must be large enough.
    ///
    /// # Errors
    /// `Failed` when it does not exist, cannot be written or is too small.
    pub fn open(path: &Path, bytes: u64, interrupt: Interrupt) -> Outcome<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|source| Failure::io("open for writing", path, &source))?;
        let found = size_of(&file, path)?;
        // A size that is right already is not set again: that would touch the file.
        if found != bytes && file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            file.set_len(bytes).map_err(|source| Failure::io("set the size of", path, &source))?;
        } else if found < bytes {
            return Err(Failure::new(format!(
                "{} has {found} bytes, but the state needs {bytes}",
                path.display()
            )));
        }
        Ok(Self { file, buf: vec![0; CHUNK_BYTES], bytes, interrupt, written_bytes: 0 })
    }

    /// Bytes that differed and were written.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Makes the image durable.
    ///
    /// # Errors
    /// `Failed` when the sync fails.
    pub fn finish(self, path: &Path) -> Outcome {
        self.file.sync_all().map_err(|source| Failure::io("sync", path, &source))
    }

    /// Writes the parts of `data` that differ from what is there.
    fn write_different(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let found = &mut self.buf[..data.len()];
        self.file.read_exact_at(found, offset)?;
        let mut at = 0;
        while at < data.len() {
            let equal = |at: usize| {
                let end = (at + COMPARED_BYTES).min(data.len());
                found[at..end] == data[at..end]
            };
            let start = at;
            while at < data.len() && !equal(at) {
                at += COMPARED_BYTES;
            }
            let different = &data[start..at.min(data.len())];
            if different.is_empty() {
                at += COMPARED_BYTES;
                continue;
            }
            self.file.write_all_at(different, offset + position(start)?)?;
            self.written_bytes += position(different.len())?;
        }
        Ok(())
    }

    /// Makes a range zero that holds something else; a hole where the file system can.
    fn clear(&mut self, offset: u64, length: usize) -> io::Result<()> {
        let found = &mut self.buf[..length];
        self.file.read_exact_at(found, offset)?;
        if found.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&self.file, hole, offset, position(length)?).is_err() {
            found.fill(0);
            self.file.write_all_at(found, offset)?;
        }
        self.written_bytes += position(length)?;
        Ok(())
    }
}

impl RestoreTarget for ExistingImage {
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.interrupt.check()?;
        let mut at = offset;
        for chunk in data.chunks(CHUNK_BYTES) {
            self.write_different(at, chunk)?;
            at += position(chunk.len())?;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let end = (offset + length).min(self.bytes);
        let mut at = offset;
        while let Some(data) = next_data(&self.file, at, end)? {
            at = data.start;
            while at < data.end {
                self.interrupt.check()?;
                let length = usize::try_from(data.end - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                self.clear(at, length)?;
                at += position(length)?;
            }
        }
        Ok(())
    }
}

fn position(length: usize) -> io::Result<u64> {
    u64::try_from(length).map_err(io::Error::other)
}
