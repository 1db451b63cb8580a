//! One machine with several disks: it can stop at any call to any of them, and then nothing reaches a disk any more.

use crate::{
    dirty_map::ByteRange,
    io::{
        Extent, Storage, StorageLock,
        simulated::{SimRng, SimulatedStorage},
    },
    mirror::{ExtentCopy, MirrorCopy},
    units::ExtentId,
};
use parking_lot::Mutex;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// The extent of a copy on its disk.
pub const COPY_EXTENT: ExtentId = ExtentId::new(1);

#[derive(Debug)]
struct State {
    changes: u64,
    stop_at: Option<u64>,
    stopped: bool,
    rng: SimRng,
}

/// What all disks of a machine share. Clones are handles.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Mutex<State>>);

fn stopped() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

impl Machine {
    /// A machine that runs.
    pub fn new(seed: u64) -> Self {
        let rng = SimRng::new(seed);
        Self(Arc::new(Mutex::new(State { changes: 0, stop_at: None, stopped: false, rng })))
    }

    /// Lets it stop in the middle of a call that changes something, `calls` such calls from now.
    pub fn stop_after(&self, calls: u64) {
        let mut state = self.0.lock();
        state.stop_at = Some(state.changes + calls + 1);
    }

    /// Whether it has stopped.
    pub fn is_stopped(&self) -> bool {
        self.0.lock().stopped
    }

    /// Calls that change something so far.
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// It does not stop any more.
    pub fn disarm(&self) {
        self.0.lock().stop_at = None;
    }

    /// A call that changes nothing.
    fn look<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.is_stopped() { Err(stopped()) } else { call() }
    }

    /// A call that changes something; the one in which the machine stops may or may not reach the disk.
    fn change<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock();
        if state.stopped {
            return Err(stopped());
        }
        state.changes += 1;
        if state.stop_at != Some(state.changes) {
            drop(state);
            return call();
        }
        state.stopped = true;
        let reaches = state.rng.chance(0.5);
        drop(state);
        if reaches {
            let _ = call();
        }
        Err(stopped())
    }
}

/// The disk of the metadata, as the machine sees it.
pub struct MachineStorage {
    machine: Machine,
    disk: SimulatedStorage,
}

struct MachineExtent {
    machine: Machine,
    extent: Arc<dyn Extent>,
}

impl MachineStorage {
    /// A disk of this machine.
    pub fn new(machine: Machine, disk: SimulatedStorage) -> Self {
        Self { machine, disk }
    }

    fn wrap(&self, extent: Arc<dyn Extent>) -> Arc<dyn Extent> {
        Arc::new(MachineExtent { machine: self.machine.clone(), extent })
    }
}

impl Storage for MachineStorage {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        self.machine.change(|| self.disk.create(id, bytes)).map(|extent| self.wrap(extent))
    }

    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        self.machine.look(|| self.disk.open(id)).map(|extent| self.wrap(extent))
    }

    fn list(&self) -> io::Result<Vec<ExtentId>> {
        self.machine.look(|| self.disk.list())
    }

    fn remove(&self, id: ExtentId) -> io::Result<()> {
        self.machine.change(|| self.disk.remove(id))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.machine.change(|| self.disk.sync_names())
    }

    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.disk.lock_owner()
    }

    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        self.disk.lease()
    }

    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.disk.lock_out_readers()
    }
}

impl Extent for MachineExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.machine.look(|| self.extent.read_at(offset, buf))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.machine.change(|| self.extent.write_at(offset, data))
    }

    fn sync(&self) -> io::Result<()> {
        self.machine.change(|| self.extent.sync())
    }

    fn size(&self) -> io::Result<u64> {
        self.machine.look(|| self.extent.size())
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.machine.change(|| self.extent.set_size(bytes))
    }
}

/// A copy on a disk of its own.
pub struct SimulatedCopy {
    inner: ExtentCopy,
    stamp: Option<Arc<AtomicU64>>,
    clock: Arc<AtomicU64>,
    number: u64,
}

impl SimulatedCopy {
    /// The copy on `disk`. `stamp`: when it was changed last, where the copy knows that, in ticks of `clock`.
    ///
    /// # Errors
    /// When the disk has no copy.
    pub fn open(
        machine: &Machine,
        disk: &SimulatedStorage,
        number: u64,
        stamp: Option<Arc<AtomicU64>>,
        clock: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let extent = MachineExtent { machine: machine.clone(), extent: disk.open(COPY_EXTENT)? };
        Ok(Self { inner: ExtentCopy::new(Arc::new(extent)), stamp, clock, number })
    }

    fn touched(&self) {
        if let Some(stamp) = &self.stamp {
            stamp.store(self.clock.fetch_add(1, SeqCst) + 1, SeqCst);
        }
    }
}

impl MirrorCopy for SimulatedCopy {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.touched();
        self.inner.write_at(offset, data)
    }

    fn write_zeroes(&self, range: ByteRange) -> io::Result<()> {
        self.touched();
        self.inner.write_zeroes(range)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn set_size(&self, bytes: u64) -> io::Result<bool> {
        self.touched();
        // What a disk that was cut and grown again holds is zeroes here, but not everywhere.
        self.inner.set_size(bytes).map(|_| false)
    }

    fn change_stamp(&self) -> io::Result<Option<u64>> {
        Ok(self.stamp.as_ref().map(|stamp| stamp.load(SeqCst)))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        Some((0, self.number))
    }
}
