//! The directory that a run works in, and its removal.
//!
//! Everything lies in `cdp-bench-XXXXXXXX` below the directory that the user named, and goes when the run ends, in error too. A run
//! that was killed cannot clean up; the next one does: a directory of that name whose file `lock` nobody holds is nobody's.

use crate::error::{Context, Error, Result, on_path};
use rustix::fs::FlockOperation;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

const PREFIX: &str = "cdp-bench-";
const LOCK: &str = "lock";

/// A directory that is removed with all that is in it when this is dropped.
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Removes what killed runs left in `parent`, checks that it has `bytes` bytes of free space, and makes a directory in it.
    ///
    /// # Errors
    /// `Usage` when `parent` is no directory or has too little space; `Io`.
    pub fn new(parent: &Path, bytes: u64) -> Result<Self> {
        if !parent.is_dir() {
            let text = format!(
                "{} is no directory: name one on the file system that is to be measured",
                parent.display()
            );
            return Err(Error::Usage(text));
        }
        remove_abandoned(parent).map_err(|error| on_path("clean up", parent, error))?;
        let free = free_bytes(parent)?;
        if free < bytes {
            let text = format!(
                "{} has {} MiB of free space; this profile needs {} MiB",
                parent.display(),
                free >> 20,
                bytes >> 20
            );
            return Err(Error::Usage(text));
        }
        let mut name = [0; 4];
        getrandom::fill(&mut name).map_err(io::Error::other).when("get a random name")?;
        let path = parent.join(format!("{PREFIX}{:08x}", u32::from_le_bytes(name)));
        fs::create_dir(&path).map_err(|error| on_path("create", &path, error))?;
        let lock =
            File::create(path.join(LOCK)).map_err(|error| on_path("create a file in", &path, error))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).when("lock the work directory")?;
        Ok(Self { path, _lock: lock })
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes a file or directory in it, if it is there, and lets the file system settle, so that the work of freeing space does
    /// not fall into the next measurement.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Ok(()) => self.settle(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(on_path("remove", &path, error)),
        }
    }

    /// Waits until the file system has written what it has to write.
    ///
    /// # Errors
    /// `Io`.
    pub fn settle(&self) -> Result<()> {
        rustix::fs::syncfs(&self._lock).when("sync the file system")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nobody is left to be told; the next run tries again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Free space of the file system that a path lies on, bytes.
///
/// # Errors
/// `Io`.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path).map_err(|error| on_path("examine", path, error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn remove_abandoned(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || !entry.file_type()?.is_dir() {
            continue;
        }
        // Only what has our lock file is ours; what is locked is at work.
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a run leaves nothing behind, removes what a killed run left, and touches neither a run at work nor anything else.
    /// Method: a directory of each kind beside each other.
    #[test]
    fn only_abandoned_directories_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let at_work = Scratch::new(parent.path(), 0).unwrap();
        fs::write(at_work.join("data"), b"x").unwrap();
        let abandoned = parent.path().join("cdp-bench-0badcafe");
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join(LOCK), b"").unwrap();
        let foreign = parent.path().join("cdp-bench-results");
        fs::create_dir(&foreign).unwrap();
        let second = Scratch::new(parent.path(), 0).unwrap();
        assert!(!abandoned.exists() && foreign.exists() && at_work.join("data").exists());
        let path = second.path.clone();
        second.remove("absent").unwrap();
        drop(second);
        assert!(!path.exists());
    }

    /// Goal: too little space and a missing directory are refused before anything is made.
    /// Method: ask for more than any disk has; name a path that is not there.
    #[test]
    fn a_run_that_cannot_fit_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        assert!(matches!(Scratch::new(parent.path(), u64::MAX), Err(Error::Usage(_))));
        assert!(matches!(Scratch::new(&parent.path().join("absent"), 0), Err(Error::Usage(_))));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
