//! A disk that can lose power at any call: for tests of this crate and of its users (feature `testing`).
//!
//! It keeps the contract of [`Storage`] and not a bit more. Writes, sizes and names stay in a volatile
//! cache until the sync that the contract asks for; [`SimulatedStorage::crash`] then gives the disk that a power loss
//! could have left. Everything follows from the seed as long as one thread drives it; it may be used from many.
//!
//! - **Crash.** A write is split into units ([`AtomicUnit`]). Each unit that is not synced is lost, kept or torn on its
//!   own, as are sizes and names: an unsynced file may be gone, or there with any size and any part of its content.
//! - **Stop.** [`SimulatedStorage::stop_at_call`] lets the n-th call and all later ones fail, so that a test can crash at
//!   each of them. The n-th call is under way: a write, size or name reaches the cache, a sync has no effect. Together
//!   with the fates of the units this covers a crash before, during and after the call.
//! - **Faults.** See [`Fault`].

mod disk;
mod fault;
mod random;
#[cfg(test)]
mod tests;

pub use disk::{AtomicUnit, PendingUnit};
pub use fault::{Call, Fault, is_simulated_stop};
pub use random::SimRng;

use super::{AlignedBuf, Extent, IO_ALIGN, Storage, StorageLock, aligned, lock_table::LockTable};
use crate::units::{ExtentId, SECTOR_LEN, len_u64, to_len};
use disk::{Disk, Fate, NodeNo};
use fault::{Action, FaultPlan, short_sectors, stop_error};
use parking_lot::Mutex;
use std::{io, sync::Arc};

/// How a simulated disk behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimulatedConfig {
    /// Decides about everything that faults leave to chance.
    pub seed: u64,
    /// What is written atomically.
    pub unit: AtomicUnit,
    /// Bytes there are, without a limit where `None`.
    pub capacity: Option<u64>,
}

/// What a power loss leaves of the changes that no sync covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// Nothing.
    LoseUnsynced,
    /// Everything, and durably so.
    KeepUnsynced,
    /// Each unit has a fate of its own; how many survive, and whether any are torn, differs from seed to seed.
    Random,
}

/// A simulated disk. Clones are handles of the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedStorage {
    state: Arc<Mutex<State>>,
    locks: Arc<LockTable>,
}

#[derive(Clone, Debug)]
struct State {
    disk: Disk,
    plan: FaultPlan,
    rng: SimRng,
    calls: u64,
    changes: u64,
    stop_at_call: Option<u64>,
    stop_at_change: Option<u64>,
    stopped: bool,
}

/// What is to happen to a call.
enum Step {
    Normal,
    /// The machine stops in the middle of it.
    Last,
    Faulty(Action),
}

impl State {
    fn new(disk: Disk, rng: SimRng) -> Self {
        let (plan, calls, changes, stopped) = (FaultPlan::default(), 0, 0, false);
        Self { disk, plan, rng, calls, changes, stop_at_call: None, stop_at_change: None, stopped }
    }

    /// Counts a call and decides about it.
    fn begin(&mut self, call: Call, extent: Option<ExtentId>) -> io::Result<Step> {
        if self.stopped {
            return Err(stop_error());
        }
        self.calls += 1;
        self.changes += u64::from(call.is_change());
        let at_call = self.stop_at_call.is_some_and(|stop| self.calls >= stop);
        let at_change = call.is_change() && self.stop_at_change.is_some_and(|stop| self.changes >= stop);
        if at_call || at_change {
            self.stopped = true;
            return Ok(Step::Last);
        }
        Ok(self.plan.strike(call, extent).map_or(Step::Normal, Step::Faulty))
    }

    /// As `begin`, for calls that leave nothing behind when they fail.
    fn begin_plain(&mut self, call: Call, extent: Option<ExtentId>) -> io::Result<()> {
        match self.begin(call, extent)? {
            Step::Faulty(Action::Error(errno)) => Err(errno.into()),
            Step::Last => Err(stop_error()),
            Step::Normal | Step::Faulty(_) => Ok(()),
        }
    }

    /// As `begin`, for calls that reach the cache when the machine stops in the middle of them.
    fn begin_cached(&mut self, call: Call, extent: Option<ExtentId>) -> io::Result<()> {
        match self.begin(call, extent)? {
            Step::Faulty(Action::Error(errno)) => Err(errno.into()),
            Step::Normal | Step::Last | Step::Faulty(_) => Ok(()),
        }
    }

    /// The result of a call that has reached the cache.
    fn finish<T>(&self, result: T) -> io::Result<T> {
        if self.stopped { Err(stop_error()) } else { Ok(result) }
    }

    fn write_faulty(&mut self, no: NodeNo, offset: u64, data: &[u8], action: Action) -> io::Result<()> {
        let sectors = len_u64(data.len() / SECTOR_LEN);
        match action {
            Action::Error(errno) => {
                // Any part of the range may have been written.
                for (block, at) in data.chunks(IO_ALIGN).zip((offset..).step_by(IO_ALIGN)) {
                    if self.rng.chance(0.5) {
                        self.disk.write(no, at, block)?;
                    }
                }
                Err(errno.into())
            }
            Action::Short => {
                let done = short_sectors(&mut self.rng, sectors);
                self.write_part(no, offset, data, to_len(done) * SECTOR_LEN)?;
                let text = format!("simulated short write: {done} of {sectors} sectors");
                Err(io::Error::new(io::ErrorKind::WriteZero, text))
            }
            Action::LostWrite => {
                self.disk.grow(no, offset + len_u64(data.len()));
                Ok(())
            }
            Action::MisdirectedWrite { extent, offset: elsewhere } => {
                self.disk.grow(no, offset + len_u64(data.len()));
                match self.disk.find(extent) {
                    Ok(other) => self.disk.write(other, elsewhere - elsewhere % len_u64(IO_ALIGN), data),
                    Err(_) => Ok(()),
                }
            }
            Action::StaleRead | Action::LyingSync => self.disk.write(no, offset, data),
        }
    }

    /// Writes the first `len` bytes of `data`, and leaves the rest of the last block as it is.
    fn write_part(&mut self, no: NodeNo, offset: u64, data: &[u8], len: usize) -> io::Result<()> {
        let mut part = AlignedBuf::new(data.len())?;
        let end = len.next_multiple_of(IO_ALIGN);
        let old_len = to_len(self.disk.size(no).saturating_sub(offset).min(len_u64(end)));
        let old_len = old_len - old_len % IO_ALIGN;
        self.disk.read(no, offset, &mut part[..old_len])?;
        part[..len].copy_from_slice(&data[..len]);
        self.disk.write(no, offset, &part[..end])
    }

    fn sync_faulty(&mut self, no: NodeNo, action: Action) -> io::Result<()> {
        match action {
            Action::LyingSync => Ok(()),
            Action::Error(errno) => {
                let mut fates = RandomFates::new(&mut self.rng);
                self.disk.sync_failing(no, &mut |unit| fates.next(unit));
                Err(errno.into())
            }
            _ => {
                self.disk.sync(no);
                Ok(())
            }
        }
    }
}

/// Fates by chance.
///
/// What is common to many units is drawn once for each extent, and once for the names: so it occurs that one file has
/// everything and another nothing, which fates drawn unit by unit would hardly ever give for more than a few.
struct RandomFates<'a> {
    rng: &'a mut SimRng,
    names_kept: f64,
    extent: Option<ExtentId>,
    sizes_kept: f64,
    /// Probability that a unit shares the fate of the unit before it.
    same: f64,
    kept: f64,
    last: Fate,
    torn: f64,
}

impl<'a> RandomFates<'a> {
    fn new(rng: &'a mut SimRng) -> Self {
        let names_kept = rng.pick(&[0.0, 0.5, 0.5, 1.0]);
        Self {
            rng,
            names_kept,
            extent: None,
            sizes_kept: 0.0,
            same: 0.0,
            kept: 0.0,
            last: Fate::Lost,
            torn: 0.0,
        }
    }

    fn enter(&mut self, extent: ExtentId) {
        if self.extent == Some(extent) {
            return;
        }
        self.extent = Some(extent);
        self.sizes_kept = self.rng.pick(&[0.0, 0.5, 1.0]);
        self.same = self.rng.pick(&[0.0, 0.0, 0.9]);
        self.kept = self.rng.pick(&[0.0, 0.1, 0.5, 0.9, 1.0]);
        self.torn = self.rng.pick(&[0.0, 0.0, 0.2]);
        self.last = self.by_chance(0.5);
    }

    fn by_chance(&mut self, kept: f64) -> Fate {
        if self.rng.chance(kept) { Fate::Kept } else { Fate::Lost }
    }

    fn next(&mut self, unit: PendingUnit) -> Fate {
        match unit {
            PendingUnit::Created(_) | PendingUnit::Removed(_) => self.by_chance(self.names_kept),
            PendingUnit::Size(extent, _) => {
                self.enter(extent);
                self.by_chance(self.sizes_kept)
            }
            PendingUnit::Write { extent, .. } => {
                self.enter(extent);
                if unit.is_block() && self.rng.chance(self.torn) {
                    // Neither no sector nor all of them.
                    return Fate::Torn(u8::try_from(1 + self.rng.below(254)).unwrap_or(1));
                }
                if !self.rng.chance(self.same) {
                    self.last = self.by_chance(self.kept);
                }
                self.last
            }
        }
    }
}

impl SimulatedStorage {
    /// An empty disk with everything at its default.
    pub fn new(seed: u64) -> Self {
        Self::with_config(SimulatedConfig { seed, ..SimulatedConfig::default() })
    }

    /// An empty disk.
    pub fn with_config(config: SimulatedConfig) -> Self {
        Self::from_state(State::new(Disk::new(config.unit, config.capacity), SimRng::new(config.seed)))
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)), locks: Arc::default() }
    }

    /// A copy that goes on independently, with the same cache, faults and counters, and no locks held. Content is shared
    /// until one of them changes it.
    pub fn fork(&self) -> Self {
        let mut state = self.state.lock().clone();
        // The open handles belong to this disk alone.
        state.disk = state.disk.kill();
        Self::from_state(state)
    }

    fn disk_and_rng(&self) -> (Disk, SimRng) {
        let state = self.state.lock();
        (state.disk.clone(), state.rng.clone())
    }

    // Crashes.

    /// The disk after a power loss. Locks, faults, counters and the stop are gone; this disk stays as it is.
    pub fn crash(&self, seed: u64, policy: CrashPolicy) -> Self {
        let mut rng = SimRng::new(seed);
        let disk = self.disk_and_rng().0;
        let disk = match policy {
            CrashPolicy::LoseUnsynced => disk.crash(&mut |_| Fate::Lost),
            CrashPolicy::KeepUnsynced => disk.crash(&mut |_| Fate::Kept),
            CrashPolicy::Random => {
                let mut fates = RandomFates::new(&mut rng);
                disk.crash(&mut |unit| fates.next(unit))
            }
        };
        Self::from_state(State::new(disk, rng))
    }

    /// The disk after a power loss that exactly the pending units survive whose bit is set in `survivors`, in the order
    /// of [`SimulatedStorage::pending`]. Over all masks this gives every state that a crash can leave, but for blocks
    /// torn at a sector, for which there is [`AtomicUnit::Sector`].
    ///
    /// # Panics
    /// When more than 64 units are pending.
    pub fn crash_subset(&self, survivors: u64) -> Self {
        let (disk, rng) = self.disk_and_rng();
        let mut index = 0;
        let disk = disk.crash(&mut |_| {
            assert!(index < u64::BITS, "too many pending units to choose by a mask of 64 bits");
            let kept = survivors & (1 << index) != 0;
            index += 1;
            if kept { Fate::Kept } else { Fate::Lost }
        });
        Self::from_state(State::new(disk, rng))
    }

    /// The disk after its user was killed (kill -9): everything reads as written, and what was not synced is still not
    /// durable and can be lost by a later crash. Locks, faults, counters and the stop are gone.
    pub fn kill(&self) -> Self {
        let (disk, rng) = self.disk_and_rng();
        Self::from_state(State::new(disk.kill(), rng))
    }

    /// The changes that no sync covers, in the order in which a crash decides about them: names, then each extent.
    pub fn pending(&self) -> Vec<PendingUnit> {
        self.disk_and_rng().0.pending()
    }

    /// How many changes no sync covers.
    pub fn pending_units(&self) -> usize {
        self.pending().len()
    }

    /// What is written atomically.
    pub fn unit(&self) -> AtomicUnit {
        self.state.lock().disk.unit()
    }

    // Stops and faults.

    /// Calls so far, of every kind; not those that failed because the machine had stopped.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Calls so far after which a crash can leave something new: see [`Call::is_change`].
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// Stops the machine in call number `call`, counted from 1 as [`SimulatedStorage::calls`] does. That call and all
    /// later ones fail with an error that [`is_simulated_stop`] knows.
    pub fn stop_at_call(&self, call: u64) {
        self.state.lock().stop_at_call = Some(call);
    }

    /// As [`SimulatedStorage::stop_at_call`], counted as [`SimulatedStorage::changes`] does.
    pub fn stop_at_change(&self, change: u64) {
        self.state.lock().stop_at_change = Some(change);
    }

    /// Whether the machine has stopped.
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Plans a fault.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().plan.add(fault);
    }

    /// Drops all faults that are still planned.
    pub fn clear_faults(&self) {
        self.state.lock().plan.clear();
    }

    /// How often a fault has struck.
    pub fn faults_struck(&self) -> u64 {
        self.state.lock().plan.fired
    }

    /// Changes the capacity, `None` for no limit. Below what is used it only stops further growth.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().disk.capacity = bytes;
    }

    /// Bytes taken up by all extents that have a name or are open.
    pub fn used(&self) -> u64 {
        self.state.lock().disk.used()
    }

    /// Bit rot: flips bit `bit` (0 to 7) of a byte, for good. Returns false when nothing was ever written there.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn flip_bit(&self, extent: ExtentId, offset: u64, bit: u8) -> io::Result<bool> {
        let disk = &mut self.state.lock().disk;
        let no = disk.find(extent)?;
        Ok(disk.flip_bit(no, offset, bit))
    }

    fn handle(&self, id: ExtentId, no: NodeNo) -> SimulatedExtent {
        SimulatedExtent { state: Arc::clone(&self.state), id, no }
    }
}

impl Storage for SimulatedStorage {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        let mut state = self.state.lock();
        aligned::check_size(bytes)?;
        state.begin_cached(Call::Create, Some(id))?;
        let no = state.disk.create(id, bytes)?;
        if state.stopped {
            // Nobody gets the handle.
            state.disk.close(no);
        }
        state.finish(())?;
        drop(state);
        Ok(Arc::new(self.handle(id, no)))
    }

    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        let mut state = self.state.lock();
        state.begin_plain(Call::Open, Some(id))?;
        let no = state.disk.open(id)?;
        drop(state);
        Ok(Arc::new(self.handle(id, no)))
    }

    fn list(&self) -> io::Result<Vec<ExtentId>> {
        let mut state = self.state.lock();
        state.begin_plain(Call::List, None)?;
        Ok(state.disk.list())
    }

    fn remove(&self, id: ExtentId) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin_cached(Call::Remove, Some(id))?;
        state.disk.remove(id)?;
        state.finish(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.begin(Call::SyncNames, None)? {
            Step::Last => Err(stop_error()),
            Step::Faulty(Action::Error(errno)) => {
                let State { disk, rng, .. } = &mut *state;
                let mut fates = RandomFates::new(rng);
                disk.settle_names(&mut |unit| fates.next(unit));
                Err(errno.into())
            }
            Step::Normal | Step::Faulty(_) => {
                state.disk.settle_names(&mut |_| Fate::Kept);
                Ok(())
            }
        }
    }

    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.state.lock().begin_plain(Call::Lock, None)?;
        self.locks.owner()
    }

    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        self.state.lock().begin_plain(Call::Lock, None)?;
        Ok(self.locks.lease())
    }

    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.state.lock().begin_plain(Call::Lock, None)?;
        Ok(self.locks.readers_out())
    }
}

#[derive(Debug)]
struct SimulatedExtent {
    state: Arc<Mutex<State>>,
    id: ExtentId,
    no: NodeNo,
}

impl Drop for SimulatedExtent {
    fn drop(&mut self) {
        self.state.lock().disk.close(self.no);
    }
}

impl Extent for SimulatedExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        aligned::check(offset, buf)?;
        let mut state = self.state.lock();
        match state.begin(Call::Read, Some(self.id))? {
            Step::Last => Err(stop_error()),
            Step::Faulty(Action::Error(errno)) => Err(errno.into()),
            Step::Faulty(Action::StaleRead) => state.disk.read_stale(self.no, offset, buf),
            Step::Faulty(Action::Short) => {
                let sectors = len_u64(buf.len() / SECTOR_LEN);
                let done = short_sectors(&mut state.rng, sectors);
                state.disk.read(self.no, offset, buf)?;
                buf[to_len(done) * SECTOR_LEN..].fill(0);
                Err(io::Error::other(format!("simulated short read: {done} of {sectors} sectors")))
            }
            Step::Normal | Step::Faulty(_) => state.disk.read(self.no, offset, buf),
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        aligned::check(offset, data)?;
        let mut state = self.state.lock();
        match state.begin(Call::Write, Some(self.id))? {
            Step::Normal | Step::Last => state.disk.write(self.no, offset, data)?,
            Step::Faulty(action) => state.write_faulty(self.no, offset, data, action)?,
        }
        state.finish(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.begin(Call::Sync, Some(self.id))? {
            Step::Last => Err(stop_error()),
            Step::Normal => {
                state.disk.sync(self.no);
                Ok(())
            }
            Step::Faulty(action) => state.sync_faulty(self.no, action),
        }
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.begin_plain(Call::Size, Some(self.id))?;
        Ok(state.disk.size(self.no))
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        aligned::check_size(bytes)?;
        let mut state = self.state.lock();
        state.begin_cached(Call::SetSize, Some(self.id))?;
        state.disk.set_size(self.no, bytes);
        state.finish(())
    }

    fn allocated(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.begin_plain(Call::Size, Some(self.id))?;
        Ok(state.disk.allocated(self.no))
    }
}
