//! The cache of verified leaves of all runs of one store, bounded in bytes.
//!
//! A leaf is kept in a slot of the inner page that names it (see `tree`), so that finding it is an access to an array and
//! takes no lock that others want; a general cache with a table of hashes spent more time on finding a leaf than the search in
//! it took. This file decides what stays: slots that were filled stand in a row; when there are too many, the first of the row
//! is emptied, or sent to the end when it was used since it came to the front (second chance). A slot that is being read is
//! never emptied.
//!
//! A leaf is read once however many ask for it at the same time, and enters only after it was verified: damage is never
//! cached. Fails as the load that it was asked for fails.

use super::tree::Node;
use crate::{
    error::{Error, Result},
    format::page::{PAGE_BYTES, PAGE_LEN, PageBytes},
    io::{AlignedBuf, Extent},
    units::len_u64,
};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{
    collections::VecDeque,
    fmt, io,
    ops::Deref,
    sync::{
        Weak,
        atomic::{AtomicBool, Ordering},
    },
};

/// Buffers for reads of one page that are kept for the next.
const BUFFERS_MAX: usize = 64;
/// What a leaf costs in memory: its bytes, its slot and its place in the row.
const LEAF_WEIGHT: u64 = PAGE_BYTES + 64;
/// Fewest leaves: enough for a walk over the runs of a small store.
const LEAVES_MIN: u64 = 16;

/// A page in memory, whose entries lie as they do in lines of the processor's cache.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct HeldPage(PageBytes);

impl HeldPage {
    pub fn new(bytes: PageBytes) -> Self {
        Self(bytes)
    }
}

impl Deref for HeldPage {
    type Target = PageBytes;
    fn deref(&self) -> &PageBytes {
        &self.0
    }
}

/// Where a leaf is kept, together with its first cell: a search for the leaf ends on the line that it needs next.
pub(super) struct Slot {
    /// Cell of the first key of the leaf.
    pub cell: u64,
    leaf: RwLock<Option<Box<HeldPage>>>,
    used: AtomicBool,
}

/// A leaf that is being read. It stays in memory for as long.
pub(super) type LeafGuard<'a> = MappedRwLockReadGuard<'a, PageBytes>;

impl Slot {
    pub fn new(cell: u64) -> Self {
        Self { cell, leaf: RwLock::new(None), used: AtomicBool::new(false) }
    }

    /// Whether the leaf is here, or about to be.
    pub fn is_filled(&self) -> bool {
        self.leaf.try_read_recursive().is_none_or(|leaf| leaf.is_some())
    }

    /// The leaf, if it is here. Readers do not wait for those who wait to write: one thread may hold many leaves.
    fn get(&self) -> Option<LeafGuard<'_>> {
        RwLockReadGuard::try_map(self.leaf.read_recursive(), |leaf| leaf.as_ref().map(|page| &page.0)).ok()
    }
}

/// A filled slot: which one of which inner page.
type Place = (Weak<Node>, usize);

/// The cache of leaves of one store.
pub struct PageCache {
    leaves_max: usize,
    row: Mutex<VecDeque<Place>>,
    buffers: Mutex<Vec<AlignedBuf>>,
}

impl fmt::Debug for PageCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageCache({} of at most {} leaves)", self.row.lock().len(), self.leaves_max)
    }
}

impl PageCache {
    /// A cache that holds leaves up to `bytes` bytes, and a few in any case. Inner pages come on top: about 1 part in 80 of
    /// the runs that are in use.
    pub fn new(bytes: u64) -> Self {
        let leaves = (bytes / LEAF_WEIGHT).max(LEAVES_MIN);
        Self {
            leaves_max: usize::try_from(leaves).unwrap_or(usize::MAX),
            row: Mutex::new(VecDeque::new()),
            buffers: Mutex::new(Vec::new()),
        }
    }

    /// Bytes that are held now, those of runs that were let go included until their turn comes.
    pub fn bytes(&self) -> u64 {
        len_u64(self.row.lock().len()) * LEAF_WEIGHT
    }

    /// Forgets every leaf that is not being read.
    pub fn clear(&self) {
        Self::trim(&mut self.row.lock(), 0);
    }

    /// The leaf of a slot, from memory or by `load`; `place` says where the slot is.
    pub(super) fn leaf<'a>(
        &self,
        slot: &'a Slot,
        place: impl FnOnce() -> Place,
        load: impl FnOnce() -> Result<Box<HeldPage>>,
    ) -> Result<LeafGuard<'a>> {
        let mut filled = loop {
            if let Some(leaf) = slot.get() {
                // Only the first use writes, so that readers do not fight for the line.
                if !slot.used.load(Ordering::Relaxed) {
                    slot.used.store(true, Ordering::Relaxed);
                }
                return Ok(leaf);
            }
            // Not a wait: two threads that each hold a leaf could come to wait for the leaf of the other. Whoever is in the
            // way fills the slot, for which `get` waits, or is about to find it empty.
            match slot.leaf.try_write() {
                Some(filling) if filling.is_none() => break filling,
                _ => std::thread::yield_now(),
            }
        };
        *filled = Some(load()?);
        let filled = RwLockWriteGuard::downgrade(filled);
        let mut row = self.row.lock();
        row.push_back(place());
        Self::trim(&mut row, self.leaves_max);
        drop(row);
        RwLockReadGuard::try_map(filled, |leaf| leaf.as_ref().map(|page| &page.0))
            .map_err(|_| Error::Poisoned("a leaf vanished from its slot".to_owned()))
    }

    /// Most leaves that are held.
    pub(super) fn leaves_max(&self) -> usize {
        self.leaves_max
    }

    /// Keeps a verified leaf that nobody has asked for yet, unless its slot is taken.
    pub(super) fn keep(&self, slot: &Slot, place: Place, leaf: Box<HeldPage>) {
        match slot.leaf.try_write() {
            Some(mut empty) if empty.is_none() => *empty = Some(leaf),
            _ => return,
        }
        let mut row = self.row.lock();
        row.push_back(place);
        Self::trim(&mut row, self.leaves_max);
    }

    /// Empties slots until `leaves_max` are left, or all that are left were used or are being read.
    fn trim(row: &mut VecDeque<Place>, leaves_max: usize) {
        // Twice round: once to take the marks of use away, once to empty.
        let mut steps = 2 * row.len();
        while row.len() > leaves_max && steps > 0 {
            steps -= 1;
            let Some((node, index)) = row.pop_front() else { return };
            let Some(alive) = node.upgrade() else { continue };
            let slot = alive.slot(index);
            let emptied = !slot.used.swap(false, Ordering::Relaxed)
                && slot.leaf.try_write().map(|mut leaf| *leaf = None).is_some();
            if !emptied {
                row.push_back((node, index));
            }
        }
    }

    /// Reads the bytes of a page, which nobody has verified.
    pub(super) fn read(&self, extent: &dyn Extent, page: u32) -> io::Result<Box<HeldPage>> {
        let pooled = self.buffers.lock().pop();
        let mut buffer = match pooled {
            Some(buffer) => buffer,
            None => AlignedBuf::new(PAGE_LEN)?,
        };
        let read = extent.read_at(u64::from(page) * PAGE_BYTES, &mut buffer[..PAGE_LEN]);
        let page = read.map(|()| Box::new(HeldPage(*buffer.first_chunk().expect("the buffer is one page"))));
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_MAX {
            buffers.push(buffer);
        }
        page
    }
}

/// Whether an error of a read says that what was there is gone, which is damage and no failure of the storage.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound)
}

/// The error for a storage that failed while it read an index page.
pub(super) fn read_failed(target: String, source: io::Error) -> Error {
    Error::io("read", target, source)
}
