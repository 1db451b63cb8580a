//! An image as the source of an import.

use super::{CHUNK_BYTES, next_data, size_of};
use crate::{
    exit::{Failure, Outcome},
    interrupt::Interrupt,
};
use cdp_core::{
    ImportSource,
    units::{BLOCK_BYTES, BLOCK_LEN, SECTOR_BYTES, SECTOR_LEN},
};
use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, path::Path};

/// Yields the data of an image in ascending order, without its holes: whole blocks, and whole sectors at the end.
#[derive(Debug)]
pub struct ImageSource {
    file: File,
    /// Size of the image, bytes.
    bytes: u64,
    /// What is left of the range of data that is being read.
    data: Range<u64>,
    interrupt: Interrupt,
}

impl ImageSource {
    /// Opens an image; `interrupt` ends the import with an error.
    ///
    /// # Errors
    /// `Failed` when it cannot be read.
    pub fn open(path: &Path, interrupt: Interrupt) -> Outcome<Self> {
        let file = File::open(path).map_err(|source| Failure::io("open", path, &source))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Failure::new(format!("{} is a directory, not an image", path.display())));
        }
        let bytes = size_of(&file, path)?;
        Ok(Self { file, bytes, data: 0..0, interrupt })
    }

    /// Size of the image in whole sectors, bytes.
    pub fn sector_bytes(&self) -> u64 {
        self.bytes.next_multiple_of(SECTOR_BYTES)
    }
}

impl ImportSource for ImageSource {
    fn next(&mut self, buf: &mut [u8]) -> io::Result<Option<(u64, usize)>> {
        self.interrupt.check()?;
        if self.data.is_empty() {
            match next_data(&self.file, self.data.end, self.bytes)? {
                // Blocks of a file system may be smaller than ours; a block is never begun twice.
                Some(data) => {
                    let start = (data.start - data.start % BLOCK_BYTES).max(self.data.end);
                    self.data = start..data.end.next_multiple_of(BLOCK_BYTES);
                }
                None => return Ok(None),
            }
        }
        let left = usize::try_from(self.data.end - self.data.start).unwrap_or(usize::MAX);
        let wanted = left.min(buf.len() / BLOCK_LEN * BLOCK_LEN).min(CHUNK_BYTES);
        let offset = self.data.start;
        let in_image = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let in_sectors = wanted.min(in_image.checked_next_multiple_of(SECTOR_LEN).unwrap_or(wanted));
        let (from_image, past_end) = buf[..in_sectors].split_at_mut(in_sectors.min(in_image));
        self.file.read_exact_at(from_image, offset)?;
        past_end.fill(0);
        self.data.start += u64::try_from(wanted).map_err(io::Error::other)?;
        Ok(Some((offset, in_sectors)))
    }
}
