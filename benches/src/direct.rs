//! Files read and written past the page cache, for probes and restores.
//!
//! Offsets, lengths and buffers are multiples of 4 KiB. Fails with `Usage` where the file system has no direct I/O: figures of the
//! page cache would say nothing.

use crate::error::{Context, Error, Result, on_path};
use rustix::{
    fs::{FallocateFlags, Mode, OFlags},
    io::Errno,
};
use std::{fs::File, os::unix::fs::FileExt, path::Path};

/// A file with direct I/O, or the part of a device from some place on.
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    base: u64,
}

impl DirectFile {
    /// Makes a file of `bytes` bytes with its space allocated and nothing written.
    ///
    /// # Errors
    /// `Usage` where there is no direct I/O; `Io`.
    pub fn create(path: &Path, bytes: u64) -> Result<Self> {
        let file = Self::open(path, OFlags::CREATE | OFlags::EXCL, 0)?;
        match rustix::fs::fallocate(&file.file, FallocateFlags::empty(), 0, bytes) {
            // Without it the first write allocates; the engine does then write zeroes, which the probe does not imitate.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(on_path("allocate space for", path, error.into())),
        }
        file.sync()?;
        Ok(file)
    }

    /// The part of a device, or of a file, that begins at byte `base`.
    ///
    /// # Errors
    /// As [`DirectFile::create`].
    pub fn open_part(path: &Path, base: u64) -> Result<Self> {
        Self::open(path, OFlags::empty(), base)
    }

    fn open(path: &Path, flags: OFlags, base: u64) -> Result<Self> {
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
        match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Self { file: file.into(), base }),
            Err(Errno::INVAL) => Err(Error::Usage(format!(
                "the file system of {} has no direct I/O, so its device cannot be measured: choose another directory",
                path.display()
            ))),
            Err(error) => Err(on_path("open", path, error.into())),
        }
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `Io`.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, self.base + offset).when("read a probe file")
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write_all_at(data, self.base + offset).when("write a probe file")
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fdatasync(&self.file).when("sync a probe file")
    }
}
