//! A mirror set on simulated disks: copies that fail, are set back or cloned, a machine that stops at any call, and what must be true.
//!
//! - [`op`]: the steps, and a random history for a seed; [`run`]: runs them, and makes a failing history short.
//! - [`machine`]: the disks, and a stop that reaches all of them; [`model`]: what each sector may hold.
//!
//! After each step what a copy holds is compared with the volume: every block that differs must be in its claim. Reads give what was acknowledged. After a crash
//! every sector holds a version that the crash may have left, and the generations of copies that missed a write have been rotated.

pub mod machine;
pub mod model;
pub mod op;
mod oracle;
pub mod run;
mod steps;

use super::mismatch::Mismatch;
use crate::{
    Error,
    dirty_map::{Granularity, MapFileOptions},
    io::{
        IO_ALIGN, Storage,
        simulated::{AtomicUnit, CrashPolicy, SimRng, SimulatedConfig, SimulatedStorage},
    },
    mirror::{AckPolicy, CreateMirror, ExtentCopy, MirrorCopy, MirrorOptions, MirrorSet, NewCopy, Writers},
    sabotage::Sabotage,
    units::{BLOCK_BYTES, len_u64, to_len},
};
use machine::{COPY_EXTENT, Machine, MachineStorage, SimulatedCopy};
use model::Model;
use op::{Down, MirrorOp};
use std::{
    collections::BTreeSet,
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// Sectors of a block.
const BLOCK_SECTORS: usize = 8;

/// How a mirrored world is made.
#[derive(Clone, Copy, Debug)]
pub struct WorldConfig {
    /// Decides about what the steps leave to chance.
    pub seed: u64,
    /// Copies in the beginning.
    pub copies: usize,
    /// Size of the volume, blocks of 4 KiB.
    pub blocks: u64,
    /// Region of the activity logs, bytes.
    pub region_bytes: u64,
    /// Most regions that are active at a time.
    pub regions_active_max: usize,
    /// Records of the rings.
    pub ring_records: u32,
    /// Whether there is an activity log.
    pub log: bool,
    /// When writes are acknowledged.
    pub ack: AckPolicy,
    /// What the disks write atomically.
    pub unit: AtomicUnit,
    /// Whether copies know when they were changed.
    pub stamps: bool,
    /// Who writes to the copies.
    pub writers: Writers,
    /// Bytes that wait for a slow copy at most.
    pub behind_bytes_max: u64,
    /// Deliberate defects.
    pub sabotage: Sabotage,
}

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was met, to see that a set of histories goes everywhere.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct MirrorCoverage {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl AddAssign for MirrorCoverage {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

coverage! {
    /// Steps taken.
    steps,
    /// Writes acknowledged.
    acknowledged,
    /// Writes refused or failed.
    unacknowledged,
    /// Blocks that differed from the volume and were claimed.
    claimed,
    /// Crashes and kills.
    downs,
    /// Of these, in the middle of a call.
    downs_in_calls,
    /// Of these, while the set was opened.
    downs_in_recovery,
    /// Copies that went offline by the host's wish.
    offline,
    /// Copies that failed and left.
    failed,
    /// Copies that came back.
    online,
    /// Copies that became whole again.
    repaired,
    /// Copies set back or cloned.
    set_back,
    /// Split brains that were reported.
    split_brains,
    /// Sets that were opened without a source.
    refused,
    /// Sets whose metadata rotted.
    harmed,
    /// Bits that rotted on a copy and were found.
    rotten,
    /// Blocks that a copy could not read, and that were written back.
    mended,
    /// Steps that began while something waited for a copy.
    behind,
    /// Changes of the size.
    resized,
    /// Copies added and removed.
    joined,
    /// Sets that stopped after a failure.
    poisoned,
}

/// The disk of one copy.
struct CopyDisk {
    number: u32,
    place: u64,
    disk: SimulatedStorage,
    stamp: Option<Arc<AtomicU64>>,
    snapshot: Option<SimulatedStorage>,
    /// Somebody else changed it: it need not hold what the set believes, until it is looked at.
    tampered: bool,
    /// The set holds on to what the disk was before.
    replaced: bool,
}

/// A mirror set, its disks, and what must be true of them.
pub struct MirrorWorld {
    config: WorldConfig,
    machine: Machine,
    meta: SimulatedStorage,
    disks: Vec<CopyDisk>,
    set: Option<MirrorSet>,
    model: Model,
    rng: SimRng,
    clock: Arc<AtomicU64>,
    /// Copies that missed a write that was acknowledged.
    missed: BTreeSet<u32>,
    /// Of these, those that the call under way may make equal to the others.
    becoming_whole: BTreeSet<u32>,
    armed: Down,
    /// Blocks that the volume had before, and those it is to have.
    resizing: Option<u64>,
    resolving: bool,
    /// Failures are planned: calls may fail.
    faulty: bool,
    sync_faults: bool,
    poisoned: bool,
    harm: Option<u64>,
    /// Bits have rotted since a set was opened.
    harmed: bool,
    coverage: MirrorCoverage,
}

fn new_disk(config: &WorldConfig, rng: &mut SimRng, bytes: u64) -> Result<SimulatedStorage, Mismatch> {
    let disk = SimulatedConfig { seed: rng.next_u64(), unit: config.unit, capacity: None };
    let disk = SimulatedStorage::with_config(disk);
    let made = disk.create(COPY_EXTENT, bytes).and_then(|extent| {
        disk.sync_names()?;
        extent.sync()
    });
    made.map_err(|error| Mismatch::new("a disk", "is made", error.to_string()))?;
    Ok(disk)
}

impl WorldConfig {
    fn options(&self) -> MirrorOptions {
        let map = MapFileOptions {
            region_bytes: self.region_bytes,
            ring_records: self.ring_records,
            regions_active_max: self.regions_active_max,
            log: self.log,
            ..MapFileOptions::default()
        };
        let (writers, sabotage) = (self.writers, self.sabotage);
        let behind_bytes_max = self.behind_bytes_max;
        MirrorOptions { map, writers, behind_bytes_max, sabotage, ..MirrorOptions::default() }
    }
}

impl MirrorWorld {
    /// Makes a set of zeroes.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(config: WorldConfig) -> Result<Self, Mismatch> {
        let mut rng = SimRng::new(config.seed ^ 0x6d69_7272);
        let meta = SimulatedConfig { seed: rng.next_u64(), unit: config.unit, capacity: None };
        let mut world = Self {
            machine: Machine::new(rng.next_u64()),
            meta: SimulatedStorage::with_config(meta),
            disks: Vec::new(),
            set: None,
            model: Model::new(to_len(config.blocks) * BLOCK_SECTORS),
            clock: Arc::new(AtomicU64::new(0)),
            missed: BTreeSet::new(),
            becoming_whole: BTreeSet::new(),
            armed: Down::Kill,
            resizing: None,
            resolving: false,
            faulty: false,
            sync_faults: false,
            poisoned: false,
            harm: None,
            harmed: false,
            coverage: MirrorCoverage::default(),
            rng,
            config,
        };
        for number in 0..config.copies {
            world.new_copy_disk(u32::try_from(number).unwrap_or(0))?;
        }
        let copies = (0..world.disks.len()).map(|at| world.new_copy(at)).collect::<Result<_, _>>()?;
        let create = CreateMirror {
            bytes: world.model.bytes(),
            granularity: Granularity::MIN,
            ack: config.ack,
            options: config.options(),
        };
        let storage = Arc::new(MachineStorage::new(world.machine.clone(), world.meta.clone()));
        let set = MirrorSet::create(storage, create, copies).map_err(Mismatch::failed("create"))?;
        world.set = Some(set);
        // The disks are zeroes, which the set does not know.
        world.repair_all()?;
        Ok(world)
    }

    /// What was met so far.
    pub fn coverage(&self) -> MirrorCoverage {
        self.coverage
    }

    fn new_copy_disk(&mut self, number: u32) -> Result<(), Mismatch> {
        let disk = new_disk(&self.config, &mut self.rng, self.model.bytes())?;
        let stamp = self.config.stamps.then(|| Arc::new(AtomicU64::new(0)));
        let place = self.rng.next_u64();
        self.disks.retain(|own| own.number != number);
        self.disks.push(CopyDisk {
            number,
            place,
            disk,
            stamp,
            snapshot: None,
            tampered: false,
            replaced: false,
        });
        Ok(())
    }

    fn copy_at(&self, at: usize) -> std::io::Result<Arc<dyn MirrorCopy>> {
        let own = &self.disks[at];
        let clock = Arc::clone(&self.clock);
        let copy = SimulatedCopy::open(&self.machine, &own.disk, own.place, own.stamp.clone(), clock)?;
        Ok(Arc::new(copy))
    }

    fn new_copy(&self, at: usize) -> Result<NewCopy, Mismatch> {
        let copy = self.copy_at(at).map_err(|error| Mismatch::new("a copy", "opens", error.to_string()))?;
        Ok(NewCopy { locator: format!("disk {at}"), copy })
    }

    fn set(&self) -> &MirrorSet {
        self.set.as_ref().expect("the set is open between steps")
    }

    /// Takes one step.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn step(&mut self, op: &MirrorOp) -> Result<(), Mismatch> {
        self.coverage.steps += 1;
        if self.config.writers != Writers::Caller {
            let copies = self.set().status().copies;
            self.coverage.behind += u64::from(copies.iter().any(|copy| copy.behind_bytes > 0));
            let steps = if self.rng.chance(0.3) { self.rng.below(5) } else { 0 };
            for _ in 0..steps {
                self.set().step_writers();
            }
        }
        self.act(op)?;
        self.settle()?;
        self.forget_cut_off();
        if self.rng.chance(0.3) { self.check_claims() } else { Ok(()) }
    }

    /// Ends a history: a crash, a repair of everything, and all disks are equal.
    ///
    /// # Errors
    /// As [`MirrorWorld::step`].
    pub fn finish(&mut self) -> Result<(), Mismatch> {
        self.clear_faults();
        self.machine.disarm();
        let down = if self.rng.chance(0.5) { Down::Kill } else { Down::Power };
        self.go_down(down)?;
        self.machine.disarm();
        for at in 0..self.disks.len() {
            self.bring_online(at)?;
        }
        self.repair_all()?;
        self.settle()?;
        self.check_claims()
    }

    /// What a call answered: `None` when it failed as it may.
    fn outcome<T>(&mut self, call: &str, result: Result<T, Error>) -> Result<Option<T>, Mismatch> {
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        if self.machine.is_stopped() {
            return Ok(None);
        }
        match error {
            Error::Poisoned(_) => self.poisoned = true,
            Error::TooFewCopies { .. } | Error::MirrorRefused(_) => {}
            _ if self.faulty => {
                self.poisoned |= self.set().flush().is_err_and(|error| matches!(error, Error::Poisoned(_)))
            }
            error => return Err(Mismatch::failed(call)(error)),
        }
        Ok(None)
    }

    /// What follows from a step: the machine has stopped, or the set has.
    fn settle(&mut self) -> Result<(), Mismatch> {
        if self.machine.is_stopped() {
            self.coverage.downs_in_calls += 1;
            return self.go_down(self.armed);
        }
        if self.poisoned {
            self.coverage.poisoned += 1;
            // What a failed sync has lost, no later one brings back.
            let down = if self.sync_faults { Down::Power } else { Down::Kill };
            self.clear_faults();
            return self.go_down(down);
        }
        Ok(())
    }

    fn clear_faults(&mut self) {
        self.disks.iter().for_each(|own| own.disk.clear_faults());
        self.meta.clear_faults();
        (self.faulty, self.sync_faults) = (false, false);
    }

    /// The machine goes down, and comes up again.
    fn go_down(&mut self, down: Down) -> Result<(), Mismatch> {
        self.coverage.downs += 1;
        self.set = None;
        self.poisoned = false;
        // What a failed sync has lost reads back until the power fails. A process that is killed before it has recorded the failure would compare with that,
        // which is said to be a limit.
        let down = if self.sync_faults { Down::Power } else { down };
        (self.faulty, self.sync_faults) = (false, false);
        let cut = |disk: &SimulatedStorage, rng: &mut SimRng| match down {
            Down::Kill => disk.kill(),
            Down::Power => disk.crash(rng.next_u64(), CrashPolicy::Random),
        };
        self.meta = cut(&self.meta, &mut self.rng);
        for own in &mut self.disks {
            own.disk = cut(&own.disk, &mut self.rng);
        }
        // What waits for a copy that the set takes for its source is lost with the process, as what a disk keeps in its cache is with the power.
        if down == Down::Power || self.config.writers != Writers::Caller {
            self.model.power_cut();
        }
        self.check_rotated()?;
        // What became whole misses nothing; what did not has not been looked at again.
        self.forget_whole();
        self.harmed |= self.harm_metadata();
        self.come_up()
    }

    /// Opens the set; the machine may stop on the way.
    fn come_up(&mut self) -> Result<(), Mismatch> {
        self.machine = Machine::new(self.rng.next_u64());
        if self.rng.chance(0.15) {
            self.machine.stop_after(self.rng.below(25));
            self.armed = if self.rng.chance(0.5) { Down::Kill } else { Down::Power };
        }
        let storage = Arc::new(MachineStorage::new(self.machine.clone(), self.meta.clone()));
        let mut opener = |record: &crate::mirror::record::CopyRecord| {
            let at = self.disks.iter().position(|own| own.number == record.number);
            at.map_or_else(|| Err(std::io::ErrorKind::NotFound.into()), |at| self.copy_at(at))
        };
        let opened = MirrorSet::open(storage, self.config.options(), &mut opener);
        if self.machine.is_stopped() {
            self.coverage.downs_in_recovery += 1;
            drop(opened);
            self.harm = None;
            return self.go_down(self.armed);
        }
        self.machine.disarm();
        self.set = Some(opened.map_err(Mismatch::failed("open"))?);
        self.disks.iter_mut().for_each(|own| own.replaced = false);
        self.after_open()
    }

    fn after_open(&mut self) -> Result<(), Mismatch> {
        let tampered = self.disks.iter().any(|own| own.tampered);
        let numbers: Vec<u32> = self.set().status().copies.iter().map(|copy| copy.number).collect();
        // One that was being added may not have become a copy, one that was being removed may be none any more.
        self.disks.retain(|own| numbers.contains(&own.number));
        if self.set().status().source.is_none() {
            self.coverage.refused += 1;
            if !self.harmed && !tampered && !self.resolving {
                let status = format!("{:?}", self.set().status());
                return Err(Mismatch::new("a set after a crash", "has a source", status));
            }
            self.resolve()?;
        }
        self.harmed &= self.machine.is_stopped();
        self.take_size()?;
        self.read_all("the volume after it was opened")?;
        for own in &mut self.disks {
            // What was online was looked at; what is offline will be.
            let online = self.set.as_ref().is_some_and(|set| {
                set.status()
                    .copies
                    .iter()
                    .any(|copy| copy.number == own.number && copy.standing.takes_writes())
            });
            own.tampered &= !online;
        }
        self.check_claims()
    }

    /// The volume has its old size or the one it was to get.
    fn take_size(&mut self) -> Result<(), Mismatch> {
        let (bytes, old) = (self.set().bytes(), self.model.bytes());
        let wanted = self.resizing.take().map(|blocks| blocks * BLOCK_BYTES);
        if bytes != old && Some(bytes) != wanted {
            return Err(Mismatch::new(
                "size of the volume",
                format!("{old} or {wanted:?}"),
                bytes.to_string(),
            ));
        }
        if bytes != old {
            self.coverage.resized += 1;
            let mut data = vec![0; to_len(bytes)];
            // Nothing can be told of the new size while nothing can be read.
            self.clear_faults();
            let read = self.set().read(0, &mut data);
            if self.outcome("read", read)?.is_none() {
                self.resizing = wanted.map(|bytes| bytes / BLOCK_BYTES);
                return Ok(());
            }
            let found = self.model.decode("the volume at its new size", 0, &data)?;
            self.model.resize(to_len(bytes) / 512, &found);
        }
        Ok(())
    }

    /// Reads the whole volume, and settles what was in doubt.
    fn read_all(&mut self, what: &str) -> Result<(), Mismatch> {
        let mut data = vec![0; to_len(self.model.bytes())];
        let read = self.set().read(0, &mut data);
        if self.outcome("read", read)?.is_some() { self.model.take(what, 0, &data) } else { Ok(()) }
    }

    /// What the disk of a copy holds, past the set and the machine.
    fn raw(&self, at: usize) -> Option<Vec<u8>> {
        let disk = self.disks[at].disk.fork();
        let extent = disk.open(COPY_EXTENT).ok()?;
        let bytes = extent.size().ok()?.min(self.model.bytes().next_multiple_of(len_u64(IO_ALIGN)));
        disk.clear_faults();
        let mut data = vec![0; to_len(bytes)];
        ExtentCopy::new(extent).read_at(0, &mut data).ok()?;
        data.truncate(to_len(self.model.bytes()));
        Some(data)
    }

    /// Somebody else changes a copy.
    fn touch(&self, at: usize) {
        if let Some(stamp) = &self.disks[at].stamp {
            stamp.store(self.clock.fetch_add(1, SeqCst) + 1, SeqCst);
        }
    }
}
