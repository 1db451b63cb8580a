//! A sparse image that does not exist yet, or replaces another when it is complete.

use crate::{
    exit::{Failure, Outcome},
    interrupt::Interrupt,
};
use cdp_core::SharedTarget;
use rustix::fs::{CWD, OFlags, RenameFlags};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Alignment of offset, length and address in direct I/O, bytes.
const DIRECT_ALIGN: usize = 4096;

/// A new image; the target of a restore.
#[derive(Debug)]
pub struct NewImage {
    file: tempfile::NamedTempFile,
    /// The same file for direct I/O, which is several times faster than by way of the page cache, where the file system has it.
    direct: Option<File>,
    /// Whether the file system took the flag and refuses its use.
    refused: AtomicBool,
    path: PathBuf,
    interrupt: Interrupt,
    written_bytes: AtomicU64,
}

impl NewImage {
    /// Begins an image of `bytes` zeroes beside `path`; `interrupt` makes its writes fail.
    ///
    /// # Errors
    /// `Failed` when the file cannot be made.
    pub fn begin(path: &Path, bytes: u64, interrupt: Interrupt) -> Outcome<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Some(name) = path.file_name() else {
            return Err(Failure::new(format!("{} does not name a file", path.display())));
        };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".restoring-");
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .tempfile_in(directory)
            .map_err(|source| Failure::io("make an image in", directory, &source))?;
        file.as_file().set_len(bytes).map_err(|source| Failure::io("make", path, &source))?;
        let direct = File::options()
            .write(true)
            .custom_flags(OFlags::DIRECT.bits().cast_signed())
            .open(file.path())
            .ok();
        Ok(Self {
            file,
            direct,
            refused: AtomicBool::new(false),
            path: path.to_owned(),
            interrupt,
            written_bytes: AtomicU64::new(0),
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let aligned = data.len().is_multiple_of(DIRECT_ALIGN)
            && data.as_ptr().addr().is_multiple_of(DIRECT_ALIGN)
            && offset.is_multiple_of(DIRECT_ALIGN as u64);
        if aligned
            && !self.refused.load(Ordering::Relaxed)
            && let Some(direct) = &self.direct
        {
            match direct.write_all_at(data, offset) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.refused.store(true, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        self.file.as_file().write_all_at(data, offset)
    }

    /// Bytes written so far; the rest are holes.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Makes the image durable and gives it its name; an existing file is refused, or replaced.
    ///
    /// # Errors
    /// `Failed`; no image is left behind.
    pub fn finish(self, replace: bool) -> Outcome {
        let path = self.path;
        let failed = |source: io::Error| Failure::io("finish", &path, &source);
        self.file.as_file().sync_all().map_err(failed)?;
        let temporary = self.file.into_temp_path();
        if replace {
            std::fs::rename(&temporary, &path).map_err(failed)?;
        } else {
            match rustix::fs::renameat_with(CWD, &*temporary, CWD, &path, RenameFlags::NOREPLACE) {
                Err(rustix::io::Errno::EXIST) => return Err(already_exists(&path)),
                // Not every file system can rename without replacing; a link fails when the name is taken.
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                    std::fs::hard_link(&temporary, &path).map_err(failed)?;
                }
                renamed => renamed.map_err(|error| failed(error.into()))?,
            }
        }
        // The name is gone when it was renamed, which is not a failure.
        drop(temporary);
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

/// The refusal to touch a file that exists.
pub(super) fn already_exists(path: &Path) -> Failure {
    Failure::new(format!(
        "{} exists already; --force replaces it, --onto writes only what differs",
        path.display()
    ))
}

impl NewImage {
    /// Refuses a path under which something exists, before any work is done.
    ///
    /// # Errors
    /// `Failed` when it exists.
    pub fn refuse_existing(path: &Path) -> Outcome {
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Failure::io("look at", path, &error)),
            Ok(_) => Err(already_exists(path)),
        }
    }
}

impl SharedTarget for NewImage {
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.interrupt.check()?;
        self.write_at(offset, data)?;
        let bytes = u64::try_from(data.len()).map_err(io::Error::other)?;
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn zero(&self, _offset: u64, _length: u64) -> io::Result<()> {
        self.interrupt.check()
    }
}
