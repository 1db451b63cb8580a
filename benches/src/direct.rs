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

/// A file with direct I/O.
#[derive(Debug)]
pub struct DirectFile(File);

impl DirectFile {
    /// Makes a file of `bytes` bytes with its space allocated and nothing written.
    ///
    /// # Errors
    /// `Usage` where there is no direct I/O; `Io`.
    pub fn create(path: &Path, bytes: u64) -> Result<Self> {
        let file = Self::open_new(path)?;
        match rustix::fs::fallocate(&file.0, FallocateFlags::empty(), 0, bytes) {
            // Without it the first write allocates; the engine does then write zeroes, which the probe does not imitate.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(on_path("allocate space for", path, error.into())),
        }
        file.sync()?;
        Ok(file)
    }

    fn open_new(path: &Path) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::DIRECT;
        match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Self(file.into())),
            Err(Errno::INVAL) => Err(Error::Usage(format!(
                "the file system of {} has no direct I/O, so its device cannot be measured: choose another directory",
                path.display()
            ))),
            Err(error) => Err(on_path("create", path, error.into())),
        }
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `Io`.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(buf, offset).when("read a probe file")
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.write_all_at(data, offset).when("write a probe file")
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fdatasync(&self.0).when("sync a probe file")
    }
}
