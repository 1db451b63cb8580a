//! A storage whose writes are held to a rate: what a journal that shares its disk with others may use.
//!
//! All extents share the rate. A write waits until what was written before it is paid for; a burst of a tenth of a second is let
//! through. Reads and syncs pass.

use super::{Extent, Storage, StorageLock};
use crate::units::{ExtentId, len_u64};
use parking_lot::Mutex;
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// Length of the burst that is let through.
const BURST: Duration = Duration::from_millis(100);

/// The time up to which everything written so far is paid for.
struct Meter {
    bytes_per_second: u64,
    paid_until: Mutex<Instant>,
}

impl Meter {
    /// Takes the bytes into account, and waits for their time.
    fn pay(&self, bytes: u64) {
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.bytes_per_second.max(1));
        let until = {
            let mut paid_until = self.paid_until.lock();
            let earliest = Instant::now().checked_sub(BURST).unwrap_or_else(Instant::now);
            *paid_until = (*paid_until).max(earliest) + cost;
            *paid_until
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

/// A storage behind a limit on the rate of its writes.
pub struct ThrottledStorage {
    inner: Arc<dyn Storage>,
    meter: Arc<Meter>,
}

impl ThrottledStorage {
    /// Holds the writes of `inner` to `bytes_per_second`, at least 1.
    pub fn new(inner: Arc<dyn Storage>, bytes_per_second: u64) -> Self {
        let paid_until = Mutex::new(Instant::now());
        Self { inner, meter: Arc::new(Meter { bytes_per_second, paid_until }) }
    }

    fn wrap(&self, inner: Arc<dyn Extent>) -> Arc<dyn Extent> {
        Arc::new(ThrottledExtent { inner, meter: self.meter.clone() })
    }
}

impl Storage for ThrottledStorage {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        self.inner.create(id, bytes).map(|extent| self.wrap(extent))
    }

    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        self.inner.open(id).map(|extent| self.wrap(extent))
    }

    fn list(&self) -> io::Result<Vec<ExtentId>> {
        self.inner.list()
    }

    fn remove(&self, id: ExtentId) -> io::Result<()> {
        self.inner.remove(id)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.inner.sync_names()
    }

    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.inner.lock_owner()
    }

    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        self.inner.lease()
    }

    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.inner.lock_out_readers()
    }

    fn describe(&self, id: ExtentId) -> String {
        self.inner.describe(id)
    }
}

struct ThrottledExtent {
    inner: Arc<dyn Extent>,
    meter: Arc<Meter>,
}

impl Extent for ThrottledExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.meter.pay(len_u64(data.len()));
        self.inner.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_size(bytes)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.inner.allocated()
    }
}
