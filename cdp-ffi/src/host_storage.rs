//! A storage that the host supplies, as the core sees it.
//!
//! A host that must not block in its functions takes requests by `submit` and ends them later: the thread of the library waits, while it lets the
//! host look for ends in `poll` where that is given.
//!
//! The row of locks within the process is the core's own; where the host has locks against other processes they come on top. Reads of the
//! library go into buffers that are aligned to 4096, as the core promises of every storage.

use crate::{
    callback::{Userdata, answer, without_calls},
    handle::{put, remove},
    storage::{
        CDP_IO_READ, CDP_IO_SYNC, CDP_IO_WRITE, CDP_LOCK_LEASE, CDP_LOCK_OWNER, CDP_LOCK_READERS_OUT,
        cdp_completion, cdp_io, cdp_storage_calls,
    },
};
use cdp_core::{
    io::{Extent, LockTable, Storage, StorageLock},
    units::ExtentId,
};
use parking_lot::{Condvar, Mutex};
use std::{ffi::c_void, io, mem::size_of, ptr, sync::Arc};

/// Extents that are listed in one call at first; more when the host has more.
const LISTED_FIRST: usize = 1024;
/// Times that a list is asked for again because it grew.
const LIST_TRIES_MAX: usize = 16;

/// What the host has supplied.
pub struct Host {
    calls: cdp_storage_calls,
    userdata: Userdata,
    locks: Arc<LockTable>,
}

// SAFETY: the header obliges the host: its functions may be called from any thread; userdata is kept apart.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

/// A storage of the host.
pub struct HostStorage(Arc<Host>);

/// One open extent of it.
struct HostExtent {
    host: Arc<Host>,
    handle: *mut c_void,
}

// SAFETY: the header obliges the host: handles of extents may be used from any thread, and are closed once.
unsafe impl Send for HostExtent {}
// SAFETY: as above.
unsafe impl Sync for HostExtent {}

/// A callback that was checked to be there when the storage was made.
macro_rules! call {
    ($host:expr, $name:ident ( $($argument:expr),* )) => {{
        let host: &Host = &$host;
        let function = host.calls.$name.ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: a function of the host with the arguments that the header promises it.
        answer(without_calls(|| unsafe { function(host.userdata.get(), $($argument),*) }))
    }};
}

impl HostStorage {
    /// `calls` has been checked: what is required is there.
    pub fn new(calls: cdp_storage_calls, userdata: Userdata) -> Self {
        Self(Arc::new(Host { calls, userdata, locks: Arc::default() }))
    }

    fn extent(&self, handle: *mut c_void) -> Arc<dyn Extent> {
        Arc::new(HostExtent { host: self.0.clone(), handle })
    }

    /// Takes the lock of the host, if it has any; the one within the process comes first.
    fn lock(&self, kind: u32, inner: Box<dyn StorageLock>) -> io::Result<Box<dyn StorageLock>> {
        if self.0.calls.lock.is_none() {
            return Ok(inner);
        }
        match call!(self.0, lock(kind)) {
            Ok(()) => Ok(Box::new(HostLock { host: self.0.clone(), kind, _inner: inner })),
            // EAGAIN and EWOULDBLOCK are one number; EBUSY means the same here.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// A lock of the host, and the one within the process.
struct HostLock {
    host: Arc<Host>,
    kind: u32,
    _inner: Box<dyn StorageLock>,
}

impl StorageLock for HostLock {}

impl Drop for HostLock {
    fn drop(&mut self) {
        if let Some(unlock) = self.host.calls.unlock {
            // SAFETY: a function of the host, for a lock that it has given.
            without_calls(|| unsafe { unlock(self.host.userdata.get(), self.kind) });
        }
    }
}

impl Storage for HostStorage {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        let mut handle = ptr::null_mut();
        call!(self.0, create(id.get(), bytes, &raw mut handle))?;
        Ok(self.extent(handle))
    }

    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        let mut handle = ptr::null_mut();
        call!(self.0, open(id.get(), &raw mut handle))?;
        Ok(self.extent(handle))
    }

    fn list(&self) -> io::Result<Vec<ExtentId>> {
        let mut listed = vec![0_u64; LISTED_FIRST];
        for _ in 0..LIST_TRIES_MAX {
            let mut count = 0_usize;
            call!(self.0, list(listed.as_mut_ptr(), listed.len(), &raw mut count))?;
            if count <= listed.len() {
                listed.truncate(count);
                listed.sort_unstable();
                listed.dedup();
                return Ok(listed.into_iter().map(ExtentId::new).collect());
            }
            listed.resize(count.checked_add(LISTED_FIRST).ok_or(io::ErrorKind::OutOfMemory)?, 0);
        }
        Err(io::Error::other("the list of extents grows all the time"))
    }

    fn remove(&self, id: ExtentId) -> io::Result<()> {
        call!(self.0, remove(id.get()))
    }

    fn sync_names(&self) -> io::Result<()> {
        if self.0.calls.sync_names.is_none() {
            return Ok(());
        }
        call!(self.0, sync_names())
    }

    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.lock(CDP_LOCK_OWNER, self.0.locks.owner()?)
    }

    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        self.lock(CDP_LOCK_LEASE, self.0.locks.lease())
    }

    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        let Some(inner) = self.0.locks.readers_out() else { return Ok(None) };
        match self.lock(CDP_LOCK_READERS_OUT, inner) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn describe(&self, id: ExtentId) -> String {
        format!("extent {id} of the host's storage")
    }
}

/// A request that the host has taken and not ended yet, as the thread that waits for it and the one that ends it see it.
#[derive(Clone, Debug, Default)]
pub struct Pending(Arc<(Mutex<Option<i32>>, Condvar)>);

impl Pending {
    /// The host says that it has ended.
    pub fn complete(&self, result: i32) {
        let (ended, changed) = &*self.0;
        *ended.lock() = Some(result);
        changed.notify_all();
    }

    /// Waits for the end, without a bound: until then the buffer is the host's.
    fn wait(&self, host: &Host) -> io::Result<()> {
        let (ended, changed) = &*self.0;
        loop {
            let mut result = ended.lock();
            if let Some(result) = *result {
                return answer(result);
            }
            match host.calls.poll {
                None => changed.wait(&mut result),
                Some(poll) => {
                    drop(result);
                    // SAFETY: a function of the host with its own userdata.
                    without_calls(|| unsafe { poll(host.userdata.get()) });
                    std::thread::yield_now();
                }
            }
        }
    }
}

impl HostExtent {
    /// Hands a request to the host and waits for its end.
    fn submit(&self, op: u32, offset: u64, buf: *mut c_void, len: usize) -> io::Result<()> {
        if len == 0 && op != CDP_IO_SYNC {
            return Ok(());
        }
        let pending = Pending::default();
        let made = put::<cdp_completion>(pending.clone(), None);
        let completion =
            made.map_err(|failure| io::Error::new(io::ErrorKind::OutOfMemory, failure.message))?;
        let struct_size = u32::try_from(size_of::<cdp_io>()).expect("structs are small");
        let io = cdp_io { struct_size, op, handle: self.handle, offset, buf, len, completion };
        match call!(self.host, submit(&raw const io)) {
            Ok(()) => pending.wait(&self.host),
            Err(error) => {
                // It was not taken, so nobody completes it. One that was completed all the same is gone already.
                let _ = remove(completion.cast_const());
                Err(error)
            }
        }
    }
}

impl Extent for HostExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.host.calls.submit.is_some() {
            return self.submit(CDP_IO_READ, offset, buf.as_mut_ptr().cast(), buf.len());
        }
        call!(self.host, read(self.handle, offset, buf.as_mut_ptr().cast(), buf.len()))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.host.calls.submit.is_some() {
            return self.submit(CDP_IO_WRITE, offset, data.as_ptr().cast_mut().cast(), data.len());
        }
        call!(self.host, write(self.handle, offset, data.as_ptr().cast(), data.len()))
    }

    fn sync(&self) -> io::Result<()> {
        if self.host.calls.submit.is_some() {
            return self.submit(CDP_IO_SYNC, 0, ptr::null_mut(), 0);
        }
        call!(self.host, sync(self.handle))
    }

    fn size(&self) -> io::Result<u64> {
        let mut bytes = 0;
        call!(self.host, size(self.handle, &raw mut bytes)).map(|()| bytes)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        call!(self.host, set_size(self.handle, bytes))
    }

    fn allocated(&self) -> io::Result<u64> {
        if self.host.calls.allocated.is_none() {
            return self.size();
        }
        let mut bytes = 0;
        call!(self.host, allocated(self.handle, &raw mut bytes)).map(|()| bytes)
    }
}

impl Drop for HostExtent {
    fn drop(&mut self) {
        if let Some(close) = self.host.calls.close {
            // SAFETY: a function of the host, for a handle that it has given, once.
            without_calls(|| unsafe { close(self.host.userdata.get(), self.handle) });
        }
    }
}
