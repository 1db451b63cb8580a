//! A raw block device in place of the directory: probes and stores lie on it without a file system between.
//!
//! Its front is for the probes, the rest is one region, in which each store is made anew. Everything that was on it is lost, so a device that is in use
//! is refused, and one that holds anything only taken with the user's word.

use crate::{
    direct::DirectFile,
    error::{Context, Error, Result, on_path},
    profile::Sizes,
};
use cdp_core::{
    dirty_map::ByteRange,
    io::{FlatOptions, FlatStorage, Storage},
    mirror::{FileCopy, MirrorCopy},
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How much at the beginning is looked at to see whether the device is empty, bytes.
const LOOKED_AT_BYTES: usize = 1 << 20;
/// Least space for a store beside what is written to it, bytes.
const STORE_SPARE_BYTES: u64 = 1 << 30;
/// Places on a device are multiples of this, bytes.
const PLACE_BYTES: u64 = 1 << 20;

/// A device that is measured.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    bytes: u64,
    /// Bytes for the file that probes read, and for those that they write.
    written_bytes: u64,
    fresh_bytes: u64,
    /// Keeps others from mounting it.
    _claim: OwnedFd,
}

impl Device {
    /// Opens a block device, or a file that stands for one.
    ///
    /// # Errors
    /// `Usage` when it is in use, too small, or holds anything and `overwrite` was not said; `Io`.
    pub fn open(path: &Path, overwrite: bool, sizes: Sizes) -> Result<Self> {
        let claim = rustix::fs::open(path, OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty());
        let claim = claim.map_err(|error| match error {
            Errno::BUSY => Error::Usage(format!("{} is in use: unmount what is on it", path.display())),
            error => on_path("open", path, error.into()),
        })?;
        let bytes = FileCopy::open(path).and_then(|copy| copy.size());
        let bytes = bytes.map_err(|error| on_path("open", path, error))? / PLACE_BYTES * PLACE_BYTES;
        let written_bytes = sizes.file_bytes.next_multiple_of(PLACE_BYTES);
        let fresh_bytes = sizes.sequential_bytes.max(sizes.file_bytes).next_multiple_of(PLACE_BYTES);
        let needed = written_bytes + fresh_bytes + 2 * sizes.sequential_bytes + STORE_SPARE_BYTES;
        if bytes < needed {
            let text = format!(
                "{} has {} MiB; this profile needs {} MiB",
                path.display(),
                bytes >> 20,
                needed.div_ceil(1 << 20)
            );
            return Err(Error::Usage(text));
        }
        if !overwrite && !is_blank(path).map_err(|error| on_path("read", path, error))? {
            let text = format!(
                "{} is not empty; --overwrite measures on it, and all it holds is lost",
                path.display()
            );
            return Err(Error::Usage(text));
        }
        Ok(Self { path: path.to_owned(), bytes, written_bytes, fresh_bytes, _claim: claim })
    }

    /// Its name and size.
    pub fn describe(&self) -> String {
        format!("{}, {} MiB", self.path.display(), self.bytes >> 20)
    }

    /// Where probes read and write in place.
    ///
    /// # Errors
    /// `Usage` where there is no direct I/O; `Io`.
    pub fn written(&self) -> Result<DirectFile> {
        DirectFile::open_part(&self.path, 0)
    }

    /// Where probes write in order: the same place each time.
    ///
    /// # Errors
    /// As [`Device::written`].
    pub fn fresh(&self) -> Result<DirectFile> {
        DirectFile::open_part(&self.path, self.written_bytes)
    }

    /// A new storage on the rest of it, in place of the one before.
    ///
    /// # Errors
    /// `Io`.
    pub fn new_storage(&self) -> Result<Arc<dyn Storage>> {
        let base = self.written_bytes + self.fresh_bytes;
        let copy = FileCopy::open(&self.path).map_err(|error| on_path("open", &self.path, error))?;
        let part = Part { copy, base, bytes: self.bytes - base };
        FlatStorage::format(&part, FlatOptions::default()).when("make a storage on the device")?;
        Ok(Arc::new(FlatStorage::open(Arc::new(part)).when("open the storage on the device")?))
    }
}

fn is_blank(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(LOOKED_AT_BYTES as u64).read_to_end(&mut head)?;
    Ok(head.iter().all(|byte| *byte == 0))
}

/// The end of a device.
struct Part {
    copy: FileCopy,
    base: u64,
    bytes: u64,
}

impl MirrorCopy for Part {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.copy.read_at(self.base + offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.copy.write_at(self.base + offset, data)
    }

    fn write_zeroes(&self, range: ByteRange) -> io::Result<()> {
        self.copy.write_zeroes(ByteRange::new(self.base + range.offset, range.bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.copy.sync()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn set_size(&self, bytes: u64) -> io::Result<bool> {
        if bytes > self.bytes { Err(io::ErrorKind::StorageFull.into()) } else { Ok(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    /// Goal: a device that is too small, that holds something or is in use is not written. Method: files that stand for one, before and after
    /// the word to overwrite.
    #[test]
    fn a_device_is_taken_only_with_the_users_word() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device");
        let sizes = Profile::Smoke.sizes();
        let file = File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        assert!(matches!(Device::open(&path, true, sizes), Err(Error::Usage(_))));
        file.set_len(2 << 30).unwrap();
        Device::open(&path, false, sizes).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"precious", 4096).unwrap();
        let refused = Device::open(&path, false, sizes).unwrap_err();
        assert!(refused.to_string().contains("--overwrite"), "{refused}");
        let device = Device::open(&path, true, sizes).unwrap();
        assert!(device.new_storage().unwrap().list().unwrap().is_empty());
        assert!(matches!(Device::open(&directory.path().join("absent"), true, sizes), Err(Error::Io { .. })));
    }
}
