//! A storage in memory, for tests, short-lived stores and tools. Nothing of it survives the process.
//!
//! Extents are sparse: space that was created and never written costs nothing but counts against the capacity. Clones
//! are further handles of the same storage. Fails with `StorageFull` at the capacity, `InvalidInput` for requests that
//! are not aligned.

use super::{Extent, Storage, StorageLock, aligned, lock_table::LockTable, sparse::SparseBytes};
use crate::units::ExtentId;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Extents in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    extents: Arc<Mutex<BTreeMap<ExtentId, Arc<MemoryExtent>>>>,
    space: Arc<Space>,
    locks: Arc<LockTable>,
}

/// Bytes taken of bytes there are, over all extents including removed ones that are still open.
#[derive(Debug)]
struct Space {
    used: AtomicU64,
    capacity: AtomicU64,
}

impl Default for Space {
    fn default() -> Self {
        Self { used: AtomicU64::new(0), capacity: AtomicU64::new(u64::MAX) }
    }
}

impl Space {
    fn take(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let capacity = self.capacity.load(Ordering::SeqCst);
        let taken = |used: u64| used.checked_add(bytes).filter(|&total| total <= capacity);
        match self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, taken) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
    }
}

impl MemoryStorage {
    /// An empty storage without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty storage of at most `bytes` bytes.
    pub fn with_capacity(bytes: u64) -> Self {
        let storage = Self::new();
        storage.set_capacity(bytes);
        storage
    }

    /// Changes the capacity; below what is used it only stops further growth.
    pub fn set_capacity(&self, bytes: u64) {
        self.space.capacity.store(bytes, Ordering::SeqCst);
    }

    /// Bytes that all extents take up.
    pub fn used(&self) -> u64 {
        self.space.used.load(Ordering::SeqCst)
    }
}

impl Storage for MemoryStorage {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        let mut extents = self.extents.lock();
        if extents.contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut content = SparseBytes::default();
        content.reserve(aligned::check_size(bytes)?);
        self.space.take(content.allocated())?;
        let extent = Arc::new(MemoryExtent { content: RwLock::new(content), space: Arc::clone(&self.space) });
        extents.insert(id, Arc::clone(&extent));
        Ok(extent)
    }

    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        match self.extents.lock().get(&id) {
            Some(extent) => Ok(Arc::clone(extent) as Arc<dyn Extent>),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self) -> io::Result<Vec<ExtentId>> {
        Ok(self.extents.lock().keys().copied().collect())
    }

    fn remove(&self, id: ExtentId) -> io::Result<()> {
        match self.extents.lock().remove(&id) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.locks.owner()
    }

    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        Ok(self.locks.lease())
    }

    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        Ok(self.locks.readers_out())
    }
}

#[derive(Debug)]
struct MemoryExtent {
    content: RwLock<SparseBytes>,
    space: Arc<Space>,
}

impl Drop for MemoryExtent {
    fn drop(&mut self) {
        self.space.give_back(self.content.get_mut().allocated());
    }
}

impl Extent for MemoryExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        aligned::check(offset, buf)?;
        self.content.read().read(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        aligned::check(offset, data)?;
        if data.is_empty() {
            return Ok(());
        }
        let mut content = self.content.write();
        self.space.take(content.cost_of_write(offset, data.len()))?;
        content.write(offset, data);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.content.read().size())
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        let mut content = self.content.write();
        let before = content.allocated();
        content.set_size(aligned::check_size(bytes)?);
        self.space.give_back(before - content.allocated());
        Ok(())
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.content.read().allocated())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::IO_ALIGN;

    const BLOCK: u64 = IO_ALIGN as u64;

    /// Goal: the capacity holds to the block, and freed space can be used again, also that of a removed extent once its
    /// last handle is gone. Method: fill to the bound, go one past it, free in each way.
    #[test]
    fn the_capacity_bounds_what_all_extents_take_up() {
        let storage = MemoryStorage::with_capacity(4 * BLOCK);
        let first = storage.create(ExtentId::new(1), 3 * BLOCK).unwrap();
        let full = |result: io::Result<Arc<dyn Extent>>| result.err().map(|error| error.kind());
        assert_eq!(full(storage.create(ExtentId::new(2), 2 * BLOCK)), Some(io::ErrorKind::StorageFull));
        assert_eq!(storage.list().unwrap(), [ExtentId::new(1)], "a failed creation leaves nothing behind");
        let second = storage.create(ExtentId::new(2), BLOCK).unwrap();
        let data = crate::io::AlignedBuf::new(IO_ALIGN).unwrap();
        assert_eq!(second.write_at(BLOCK, &data).unwrap_err().kind(), io::ErrorKind::StorageFull);
        first.set_size(2 * BLOCK).unwrap();
        second.write_at(BLOCK, &data).unwrap();
        assert_eq!(storage.used(), 4 * BLOCK);
        storage.remove(ExtentId::new(1)).unwrap();
        assert_eq!(storage.used(), 4 * BLOCK, "an open handle keeps the space");
        drop(first);
        assert_eq!(storage.used(), 2 * BLOCK);
    }

    /// Goal: empty segments cost nothing. Method: reserve more than any memory.
    #[test]
    fn space_that_was_never_written_takes_no_memory() {
        let storage = MemoryStorage::new();
        let extent = storage.create(ExtentId::new(1), 1 << 50).unwrap();
        assert_eq!((extent.size().unwrap(), extent.allocated().unwrap()), (1 << 50, 1 << 50));
    }
}
