//! Raw images and devices: read for an import, compared with a volume, written for a restore.
//!
//! Invariants:
//! - *all or nothing*: a [`NewImage`] appears under its name only in [`NewImage::finish`], synced; until then it is a hidden
//!   file beside it, which goes away with the value;
//! - *only what differs*: an [`ExistingImage`] is written only where its content is different.

mod compared;
mod existing;
mod new;
mod source;

pub use compared::{ComparedSource, stamp_of};
pub use existing::ExistingImage;
pub use new::NewImage;
pub use source::ImageSource;

use crate::exit::{Failure, Outcome};
use rustix::fs::{self, SeekFrom};
use std::{
    fs::File,
    io::{self, Seek},
    ops::Range,
    path::Path,
};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Size of a file or a device.
fn size_of(mut file: &File, path: &Path) -> Outcome<u64> {
    file.seek(io::SeekFrom::End(0)).map_err(|source| Failure::io("find the size of", path, &source))
}

/// The next range at or after `from` that may hold data; `None` when only a hole is left.
///
/// Where the file system or the device cannot tell, everything is data.
fn next_data(file: &File, from: u64, end: u64) -> io::Result<Option<Range<u64>>> {
    if from >= end {
        return Ok(None);
    }
    let start = match fs::seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => return Ok(Some(from..end)),
        Err(error) => return Err(error.into()),
    };
    if start >= end {
        return Ok(None);
    }
    let stop = fs::seek(file, SeekFrom::Hole(start))?;
    Ok(Some(start..stop.min(end)))
}

#[cfg(test)]
mod tests;
