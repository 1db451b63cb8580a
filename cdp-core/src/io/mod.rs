//! Where bytes live and what time it is: the traits a host can implement, and the implementations that come along.
//!
//! A [`Storage`] is a set of numbered [`Extent`]s. A directory of files ([`DirectoryStorage`]), memory
//! ([`MemoryStorage`]), one flat device ([`FlatStorage`]) and, with the feature `testing`, a simulated disk stand behind it.
//!
//! Contract, for every implementation:
//! - **Alignment.** Offsets and lengths are multiples of [`IO_ALIGN`], and buffers are aligned to it. The library keeps to
//!   this in every call (see [`AlignedBuf`]); an implementation may refuse anything else with `InvalidInput`.
//! - **Durability.** A write is durable once a [`Extent::sync`] that was *issued after the write returned* has returned
//!   `Ok`. A size is durable under the same rule. A created or removed name is durable once [`Storage::sync_names`] has
//!   returned `Ok`. After a failed sync nothing is known about the writes, sizes or names that it covered, and no
//!   later sync makes up for them.
//! - **Concurrency.** All methods may be called from any threads at once. Writes that overlap in flight do not occur.
//! - **Errors** are `std::io::Error` with the errno of the operating system where there is one.

mod aligned;
mod area;
mod batch;
mod buffer_pool;
mod clock;
#[cfg(test)]
mod conformance;
mod directory;
mod flat;
mod lock_table;
mod memory;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
mod sparse;
mod throttle;

pub use aligned::{AlignedBuf, IO_ALIGN};
pub(crate) use area::map_huge;
pub(crate) use batch::{BatchRead, BatchReader};
pub(crate) use buffer_pool::BufferPool;
pub use clock::{Clock, ManualClock, SystemClock};
pub(crate) use directory::raw_extent;
pub use directory::{DirectoryOptions, DirectoryStorage};
pub use flat::{FlatOptions, FlatSpace, FlatStorage};
pub use lock_table::LockTable;
pub use memory::MemoryStorage;
pub use throttle::ThrottledStorage;

use crate::units::ExtentId;
use std::{io, os::fd::BorrowedFd, sync::Arc};

/// A guard for a lock on a storage; the lock ends when it is dropped.
pub trait StorageLock: Send + Sync {}

/// Numbered extents: what a store is kept in.
pub trait Storage: Send + Sync {
    /// Creates extent `id` with `bytes` bytes that read as zeroes, space allocated, and opens it.
    ///
    /// # Errors
    /// `AlreadyExists`; `StorageFull` when the space cannot be allocated, in which case nothing is left behind.
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>>;

    /// Opens extent `id` for reading and writing, or for reading only where the storage was opened so.
    ///
    /// # Errors
    /// `NotFound`.
    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>>;

    /// All extents, in ascending order of id. Anything that is not an extent is left out.
    ///
    /// # Errors
    /// Those of the host's storage.
    fn list(&self) -> io::Result<Vec<ExtentId>>;

    /// Removes the name of an extent. Handles that are open go on working.
    ///
    /// # Errors
    /// `NotFound`.
    fn remove(&self, id: ExtentId) -> io::Result<()>;

    /// Makes created and removed names durable.
    ///
    /// # Errors
    /// Those of the host's storage.
    fn sync_names(&self) -> io::Result<()>;

    /// Takes the right to write, for one owner at a time, also against other processes.
    ///
    /// # Errors
    /// `WouldBlock` while another owner holds it.
    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>>;

    /// Takes a reader's lease: while it is held, the owner defers removing extents. Waits only for a removal that is
    /// under way.
    ///
    /// # Errors
    /// Those of the host's storage.
    fn lease(&self) -> io::Result<Box<dyn StorageLock>>;

    /// Locks readers out for the moment of a removal; `None` while a lease is held.
    ///
    /// # Errors
    /// Those of the host's storage.
    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>>;

    /// Names an extent for people: a path where there is one.
    fn describe(&self, id: ExtentId) -> String {
        format!("extent {id}")
    }
}

/// One open extent.
pub trait Extent: Send + Sync {
    /// Fills `buf` from byte `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the range reaches past the end; the host's errors. The content of `buf` is then undefined.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at byte `offset`, growing the extent when needed. Durable only after a later [`Extent::sync`].
    ///
    /// # Errors
    /// The host's errors; any part of the range may have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes every write and size change that returned before this call durable.
    ///
    /// # Errors
    /// The host's errors; the extent must not be trusted with further writes.
    fn sync(&self) -> io::Result<()>;

    /// Size in bytes.
    ///
    /// # Errors
    /// The host's errors.
    fn size(&self) -> io::Result<u64>;

    /// Cuts or extends the extent; new bytes read as zeroes. Frees the space beyond the end.
    ///
    /// # Errors
    /// The host's errors.
    fn set_size(&self, bytes: u64) -> io::Result<()>;

    /// Bytes that the extent takes up on the host, where that is known, else its size.
    ///
    /// # Errors
    /// The host's errors.
    fn allocated(&self) -> io::Result<u64> {
        self.size()
    }

    /// The open file that holds the extent, byte for byte at the same offsets, where there is one; `None` by default. The library may then ask
    /// the operating system for several reads at once, past [`Extent::read_at`], which it falls back to.
    fn file(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
