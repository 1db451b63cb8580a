//! Open files and directories.
//!
//! Invariant *bounded*: at most [`HANDLES_MAX`] of them.

use super::{disk::LiveDisk, node::Node};
use cdp_core::Snapshot;
use fuser::{Errno, FileHandle, FileType};
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Most open files and directories at a time.
pub const HANDLES_MAX: usize = 65_536;

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub node: Node,
    /// What it is.
    pub kind: FileType,
}

/// Something that is open.
#[derive(Clone)]
pub enum Handle {
    /// A live disk, and whether it was opened for writing.
    Disk(Arc<LiveDisk>, bool),
    /// The image of a point, pinned while it is open.
    Point(Snapshot),
    /// A directory, as it was when it was opened.
    Directory(Arc<Vec<Entry>>),
}

/// All that is open.
#[derive(Default)]
pub struct Handles {
    open: RwLock<HashMap<u64, Handle>>,
    next: AtomicU64,
}

impl Handles {
    /// Keeps something open.
    ///
    /// # Errors
    /// `ENFILE` when too much is open.
    pub fn insert(&self, handle: Handle) -> Result<FileHandle, Errno> {
        let mut open = self.open.write();
        if open.len() >= HANDLES_MAX {
            return Err(Errno::ENFILE);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.insert(number, handle);
        Ok(FileHandle(number))
    }

    /// What a handle stands for.
    ///
    /// # Errors
    /// `EBADF` when it stands for nothing.
    pub fn get(&self, handle: FileHandle) -> Result<Handle, Errno> {
        self.open.read().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    /// Closes a handle.
    pub fn remove(&self, handle: FileHandle) {
        self.open.write().remove(&handle.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the bound holds on both sides, and a closed handle makes room. Method: fill the table.
    #[test]
    fn handles_are_bounded() {
        let handles = Handles::default();
        let directory = || Handle::Directory(Arc::new(Vec::new()));
        let first = handles.insert(directory()).unwrap();
        for _ in 1..HANDLES_MAX {
            handles.insert(directory()).unwrap();
        }
        assert_eq!(handles.insert(directory()).unwrap_err(), Errno::ENFILE);
        handles.remove(first);
        assert!(handles.get(first).is_err());
        handles.insert(directory()).unwrap();
    }
}
