//! A storage whose calls a test can hold up or refuse.

use crate::{
    io::{Extent, MemoryStorage, Storage, StorageLock},
    units::ExtentId,
};
use parking_lot::{Condvar, Mutex};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Holds up writes and syncs while it is shut.
#[derive(Default)]
pub struct Valve {
    shut: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Valve {
    /// Shuts or opens it.
    pub fn set(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.changed.notify_all();
    }

    /// Calls that are held up.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Returns once it is open.
    pub fn pass(&self) {
        let mut shut = self.shut.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while *shut {
            self.changed.wait(&mut shut);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Asked before each call; `true` for writes and syncs.
type Hook = Arc<dyn Fn(bool) -> io::Result<()> + Send + Sync>;

/// A storage that asks a hook before each call.
pub struct HookedStorage {
    inner: Arc<dyn Storage>,
    hook: Hook,
}

impl HookedStorage {
    /// Over another one. The hook is told whether the call is a write or a sync; an error of it is the answer.
    pub fn over(
        inner: Arc<dyn Storage>,
        hook: impl Fn(bool) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<dyn Storage> {
        Arc::new(Self { inner, hook: Arc::new(hook) })
    }

    /// Memory behind a valve.
    pub fn with_valve() -> (Arc<dyn Storage>, Arc<Valve>) {
        let valve = Arc::new(Valve::default());
        let hooked = valve.clone();
        let hook = move |held: bool| {
            if held {
                hooked.pass();
            }
            Ok(())
        };
        (Self::over(Arc::new(MemoryStorage::new()), hook), valve)
    }

    fn wrap(&self, inner: Arc<dyn Extent>) -> Arc<dyn Extent> {
        Arc::new(HookedExtent { inner, hook: self.hook.clone() })
    }
}

impl Storage for HookedStorage {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        (self.hook)(false)?;
        self.inner.create(id, bytes).map(|extent| self.wrap(extent))
    }
    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        (self.hook)(false)?;
        self.inner.open(id).map(|extent| self.wrap(extent))
    }
    fn list(&self) -> io::Result<Vec<ExtentId>> {
        (self.hook)(false)?;
        self.inner.list()
    }
    fn remove(&self, id: ExtentId) -> io::Result<()> {
        (self.hook)(false)?;
        self.inner.remove(id)
    }
    fn sync_names(&self) -> io::Result<()> {
        (self.hook)(false)?;
        self.inner.sync_names()
    }
    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        (self.hook)(false)?;
        self.inner.lock_owner()
    }
    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        (self.hook)(false)?;
        self.inner.lease()
    }
    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        (self.hook)(false)?;
        self.inner.lock_out_readers()
    }
}

struct HookedExtent {
    inner: Arc<dyn Extent>,
    hook: Hook,
}

impl Extent for HookedExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (self.hook)(false)?;
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        (self.hook)(true)?;
        self.inner.write_at(offset, data)
    }
    fn sync(&self) -> io::Result<()> {
        (self.hook)(true)?;
        self.inner.sync()
    }
    fn size(&self) -> io::Result<u64> {
        (self.hook)(false)?;
        self.inner.size()
    }
    fn set_size(&self, bytes: u64) -> io::Result<()> {
        (self.hook)(false)?;
        self.inner.set_size(bytes)
    }
}
