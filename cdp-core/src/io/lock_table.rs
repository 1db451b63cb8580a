//! The locks of a storage that lives in this process: one owner, readers' leases, and a lock that keeps readers out.
//!
//! For storages of this library and of the host alike: it answers [`super::Storage::lock_owner`], [`super::Storage::lease`] and
//! [`super::Storage::lock_out_readers`] for all handles of one storage in one process, and knows nothing of other processes.

use super::StorageLock;
use parking_lot::{Condvar, Mutex};
use std::{io, sync::Arc};

#[derive(Debug, Default)]
struct Held {
    owner: bool,
    readers_out: bool,
    leases: u64,
}

/// Locks shared by all handles of one storage; see [`super::Storage`].
#[derive(Debug, Default)]
pub struct LockTable {
    held: Mutex<Held>,
    changed: Condvar,
}

enum Kind {
    Owner,
    Lease,
    ReadersOut,
}

struct TableLock {
    table: Arc<LockTable>,
    kind: Kind,
}

impl StorageLock for TableLock {}

impl Drop for TableLock {
    fn drop(&mut self) {
        let mut held = self.table.held.lock();
        match self.kind {
            Kind::Owner => held.owner = false,
            Kind::Lease => held.leases -= 1,
            Kind::ReadersOut => held.readers_out = false,
        }
        self.table.changed.notify_all();
    }
}

impl LockTable {
    /// The owner's lock.
    ///
    /// # Errors
    /// `WouldBlock` while it is held.
    pub fn owner(self: &Arc<Self>) -> io::Result<Box<dyn StorageLock>> {
        let mut held = self.held.lock();
        if held.owner {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another owner holds the storage"));
        }
        held.owner = true;
        Ok(self.guard(Kind::Owner))
    }

    /// A lease; waits while readers are locked out.
    pub fn lease(self: &Arc<Self>) -> Box<dyn StorageLock> {
        let mut held = self.held.lock();
        while held.readers_out {
            self.changed.wait(&mut held);
        }
        held.leases += 1;
        self.guard(Kind::Lease)
    }

    /// Locks readers out, or `None` while a lease is held.
    pub fn readers_out(self: &Arc<Self>) -> Option<Box<dyn StorageLock>> {
        let mut held = self.held.lock();
        if held.leases > 0 || held.readers_out {
            return None;
        }
        held.readers_out = true;
        Some(self.guard(Kind::ReadersOut))
    }

    fn guard(self: &Arc<Self>, kind: Kind) -> Box<dyn StorageLock> {
        Box::new(TableLock { table: Arc::clone(self), kind })
    }
}
