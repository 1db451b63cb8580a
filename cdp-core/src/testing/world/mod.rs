//! A store on a simulated disk, its model, and the steps that act on both.
//!
//! Every step is judged: a call may fail only where the disk was made to fail, and only in a way that fits; what it leaves
//! behind then is what the model allows. [`World::step`] returns the first thing that is not right.

mod config;
mod lifecycle;
mod names;
mod reads;
mod retention;
mod volumes;
mod writes;

pub use config::{Coverage, WorldConfig};
use retention::Unfinished;

use super::{
    check::Thoroughness,
    content::{ContentSource, pieces_of},
    mismatch::Mismatch,
    model::{Model, Written},
    op::{Down, FaultKind, Fill, Op, Recover},
    policies::policy_of,
};
use crate::{
    CreateOptions, OpenOptions, Snapshot, Store,
    error::{Error, Result},
    io::{
        ManualClock,
        simulated::{Call, CrashPolicy, Fault, SimRng, SimulatedConfig, SimulatedStorage},
    },
    units::{SECTOR_BYTES, Seq, TimeNs},
};
use std::sync::Arc;

/// Where the clock starts: some day in 2026.
const START_NS: u64 = 1_770_000_000_000_000_000;
/// Points that are kept open at a time.
const HELD_MAX: usize = 4;
/// Volumes that a world has at most.
const VOLUMES_MAX: usize = 5;

/// How a call ended.
pub(super) enum Outcome<T> {
    /// It succeeded.
    Done(T),
    /// It failed as it may.
    Failed,
    /// The machine stopped in it.
    Cut,
}

/// A store and what it must say.
pub struct World {
    pub(super) config: WorldConfig,
    pub(super) rng: SimRng,
    clock: Arc<ManualClock>,
    now: u64,
    pub(super) storage: SimulatedStorage,
    pub(super) store: Option<Store>,
    pub(super) model: Model,
    held: Vec<(usize, Seq, Snapshot)>,
    /// Readers beside the owner, each with what they must see.
    readers: Vec<(Store, Model)>,
    unfinished: Option<Unfinished>,
    armed: Option<(Down, Recover)>,
    faults_seen: u64,
    limited: bool,
    /// Whether a fault struck in the life of the open store: a manifest that failed then is told by the next call that needs it.
    hurt: bool,
    poisoned: bool,
    names: u64,
    pub(super) coverage: Coverage,
}

impl World {
    /// Makes a store.
    ///
    /// # Errors
    /// When the store cannot be made.
    pub fn new(config: WorldConfig) -> Result<Self, Mismatch> {
        let disk = SimulatedConfig { seed: config.seed, unit: config.unit, capacity: None };
        let mut world = Self {
            rng: SimRng::new(config.seed ^ 0x0b5e_55ed),
            clock: Arc::new(ManualClock::new(TimeNs::new(START_NS))),
            now: START_NS,
            storage: SimulatedStorage::with_config(disk),
            store: None,
            model: Model::new("disk", config.volume_sectors * SECTOR_BYTES),
            held: Vec::new(),
            readers: Vec::new(),
            unfinished: None,
            armed: None,
            faults_seen: 0,
            limited: false,
            hurt: false,
            poisoned: false,
            names: 0,
            coverage: Coverage::default(),
            config,
        };
        world.store = Some(world.create()?);
        Ok(world)
    }

    fn create(&mut self) -> Result<Store, Mismatch> {
        let bytes = self.config.volume_sectors * SECTOR_BYTES;
        let create = CreateOptions { volume: "disk".into(), bytes };
        let storage = Arc::new(self.storage.clone());
        if !self.config.imported {
            return Store::create(storage, &create, self.options()).map_err(Mismatch::failed("create"));
        }
        let stamp = self.model.new_stamp();
        let pieces = pieces_of(0, self.config.volume_sectors, Fill::Mixed(self.config.seed), stamp);
        let tag = self.model.volumes()[0].tag;
        let mut source = ContentSource::new(tag, &pieces, self.config.volume_sectors, None);
        let time = Some(TimeNs::new(self.now));
        let store =
            Store::create_with_import(storage, &create, self.options(), &mut source, time, &mut |_| {})
                .map_err(Mismatch::failed("create with import"))?;
        self.model.begins_with(Written { volume: 0, pieces, time: TimeNs::new(self.now) });
        Ok(store)
    }

    pub(super) fn options(&self) -> OpenOptions {
        OpenOptions {
            clock: self.clock.clone(),
            page_cache_bytes: self.config.page_cache_bytes,
            segment_bytes: self.config.segment_bytes,
            run_fanout: self.config.run_fanout,
            sabotage: self.config.sabotage,
        }
    }

    /// What must be true.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The disk.
    pub fn storage(&self) -> &SimulatedStorage {
        &self.storage
    }

    /// What was met so far.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    pub(super) fn store(&self) -> Result<Store, Mismatch> {
        self.store.clone().ok_or_else(|| Mismatch::new("store", "open", "closed"))
    }

    /// Takes one step.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn step(&mut self, op: &Op) -> Result<(), Mismatch> {
        self.coverage.steps += 1;
        self.act(op)?;
        if self.storage.is_stopped() {
            self.coverage.downs_in_calls += 1;
            let (down, recover) = self.armed.take().unwrap_or((
                Down::Crash { policy: CrashPolicy::Random, seed: self.config.seed },
                Recover::default(),
            ));
            return self.go_down(down, &recover);
        }
        if self.poisoned {
            return self.reopen_after_failure();
        }
        Ok(())
    }

    /// Takes one step, and leaves a machine that stopped in it as it is.
    pub(super) fn act(&mut self, op: &Op) -> Result<(), Mismatch> {
        self.apply(op)?;
        // What a store calls durable counts as acknowledged.
        let Some(store) = &self.store else { return Ok(()) };
        let (durable, newest) = (store.durable_seq(), self.model.newest().seq);
        if durable > newest && !self.storage.is_stopped() {
            return Err(Mismatch::new("durable seq", format!("at most {newest}"), durable.to_string()));
        }
        self.model.acknowledge(durable.min(newest));
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Result<(), Mismatch> {
        match op {
            Op::Write { place, fill, when, parts } => self.write(*place, *fill, *when, *parts),
            Op::WriteZeroes(place, when) => self.write_range(*place, *when, false),
            Op::Discard(place, when) => self.write_range(*place, *when, true),
            Op::Flush => self.flush(None),
            Op::FlushVolume(volume) => self.flush(Some(*volume)),
            Op::AddBookmark { variant, at } => self.add_bookmark(*variant, *at),
            Op::DeleteBookmark(which) => self.delete_bookmark(*which),
            Op::LockBookmark(which, locked) => self.lock_bookmark(*which, *locked),
            Op::AddVolume(sectors) => self.add_volume(*sectors),
            Op::Import { sectors, seed, fail_after } => self.import(*sectors, *seed, *fail_after),
            Op::Resize { volume, sectors } => self.resize(*volume, *sectors),
            Op::Coalesce(coalescing) => self.coalesce(*coalescing),
            Op::Step(count) => self.background(*count),
            Op::Clock(jump) => {
                self.now = self.now.saturating_add_signed(*jump);
                self.clock.set(TimeNs::new(self.now));
                Ok(())
            }
            Op::Read(place) => self.read(*place),
            Op::Hold(which) => self.hold(*which),
            Op::ReadHeld => self.read_held(),
            Op::Refused(variant) => self.refused(*variant),
            Op::Check => self.check(Thoroughness::Sample),
            Op::ReadOnly => self.look().map(|_| ()),
            Op::Reopen => self.reopen(),
            Op::Fault(kind, after) => {
                self.storage.inject(fault(*kind).after(*after));
                Ok(())
            }
            Op::Full(slack) => {
                self.storage.set_capacity(Some(self.storage.used() + slack));
                self.limited = true;
                Ok(())
            }
            Op::Heal => self.heal(),
            Op::SetPolicy(seed) => self.set_policy(policy_of(*seed)),
            Op::Retain { later, whole } => {
                self.retain(TimeNs::new(self.now.saturating_add_signed(*later)), *whole)
            }
            Op::Thin(steps, entries) => self.thin(*steps, *entries),
            Op::OpenReader => self.open_reader(),
            Op::ReadReaders => self.read_readers(),
            Op::CloseReaders => {
                self.readers.clear();
                Ok(())
            }
            Op::Down(down, recover) => self.go_down(*down, recover),
            Op::DownAt(changes, down, recover) => {
                if self.armed.is_none() {
                    self.storage.stop_at_change(self.storage.changes() + changes);
                    self.armed = Some((*down, recover.clone()));
                }
                Ok(())
            }
        }
    }

    /// Says whether the outcome of a changing call is one that may be.
    pub(super) fn judge<T>(&mut self, call: &str, result: Result<T>) -> Result<Outcome<T>, Mismatch> {
        let error = match result {
            Ok(value) => return Ok(Outcome::Done(value)),
            Err(error) => error,
        };
        if self.storage.is_stopped() {
            return Ok(Outcome::Cut);
        }
        let struck = self.storage.faults_struck() > self.faults_seen;
        let may = match &error {
            Error::NoSpace => self.limited || struck,
            Error::Io { .. } => struck,
            Error::Poisoned(_) => struck || self.hurt,
            _ => false,
        };
        if !may {
            return Err(Mismatch::failed(call)(error));
        }
        self.coverage.no_space += u64::from(matches!(error, Error::NoSpace));
        self.poisoned |= matches!(error, Error::Poisoned(_));
        Ok(Outcome::Failed)
    }

    /// Ends all faults. What failed before must work again.
    pub(super) fn heal(&mut self) -> Result<(), Mismatch> {
        let troubled = self.clear_trouble();
        let Some(store) = self.store.clone().filter(|_| troubled && !self.poisoned) else { return Ok(()) };
        match store.flush() {
            Ok(seq) => self.flushed(seq),
            Err(_) if self.storage.is_stopped() => Ok(()),
            Err(Error::Poisoned(_)) => {
                self.poisoned = true;
                Ok(())
            }
            Err(error) => Err(Mismatch::failed("flush after the storage works again")(error)),
        }
    }

    pub(super) fn clear_trouble(&mut self) -> bool {
        let struck = self.storage.faults_struck() - self.faults_seen;
        let troubled = self.limited || struck > 0;
        self.coverage.faults += struck;
        self.hurt |= struck > 0;
        self.storage.clear_faults();
        self.storage.set_capacity(None);
        self.faults_seen = self.storage.faults_struck();
        self.limited = false;
        troubled
    }

    /// Forgets what belongs to an open store.
    pub(super) fn forget_store(&mut self) {
        self.held.clear();
        self.readers.clear();
        self.store = None;
        self.armed = None;
        self.poisoned = false;
        self.hurt = false;
        self.limited = false;
    }

    /// The disk was replaced by another one.
    pub(super) fn set_storage(&mut self, storage: SimulatedStorage) {
        self.coverage.faults += self.storage.faults_struck() - self.faults_seen;
        self.faults_seen = 0;
        // An owner needs space to open a store; whether it gets it is not what a crash is about.
        storage.set_capacity(None);
        self.storage = storage;
    }
}

pub(super) fn fault(kind: FaultKind) -> Fault {
    match kind {
        FaultKind::Write => Fault::io_error(Call::Write),
        FaultKind::ShortWrite => Fault::short_write(),
        FaultKind::Sync => Fault::io_error(Call::Sync),
        FaultKind::SyncNames => Fault::io_error(Call::SyncNames),
        FaultKind::Create => Fault::io_error(Call::Create),
        FaultKind::SetSize => Fault::io_error(Call::SetSize),
        FaultKind::NoSpaceWrite => Fault::no_space(Call::Write),
        FaultKind::NoSpaceSync => Fault::no_space(Call::Sync),
        FaultKind::NoSpaceCreate => Fault::no_space(Call::Create),
    }
}
