//! A reader beside an owner at work: between any two calls that the reader makes on the storage, the owner may write, seal,
//! merge and remove.
//!
//! One thread and one seed: `Interleaved` is the reader's view of the disk, and takes steps of the owner's world before it
//! passes a call on. Whatever the owner does, the reader sees a state that was acknowledged when it began, or a newer one, and all
//! points up to it.

use super::{
    check::{Checker, Thoroughness, observe},
    generate::generate,
    mismatch::Mismatch,
    op::Op,
    remains::Remains,
    simulate::{Failure, guarded},
    thinned,
    world::{World, WorldConfig},
};
use crate::{
    Store,
    io::{
        Extent, Storage, StorageLock,
        simulated::{SimRng, SimulatedStorage},
    },
    retention::Policy,
    sabotage::Sabotage,
    units::ExtentId,
};
use parking_lot::Mutex;
use std::{collections::VecDeque, io, sync::Arc};

/// Largest volume, sectors.
const VOLUME_SECTORS_MAX: u64 = 2048;

/// What the owner still has to do.
struct Owner {
    world: World,
    ops: VecDeque<Op>,
    rng: SimRng,
    /// Probability of steps before a call of the reader.
    busy: f64,
    failed: Option<Mismatch>,
    /// What retention had left, and under which policy, after each step.
    seen: Vec<(Remains, Policy)>,
}

impl Owner {
    fn work(&mut self) {
        while self.failed.is_none() && self.rng.chance(self.busy) {
            let Some(op) = self.ops.pop_front() else { return };
            self.failed = self.world.step(&op).err();
            self.seen.push((self.world.model.remains().clone(), self.world.model.policy()));
        }
    }
}

/// The reader's view of the disk.
#[derive(Clone)]
struct Interleaved {
    disk: SimulatedStorage,
    owner: Arc<Mutex<Owner>>,
}

impl Interleaved {
    fn wrap(&self, extent: Arc<dyn Extent>) -> Arc<dyn Extent> {
        Arc::new(InterleavedExtent { extent, owner: self.owner.clone() })
    }
}

impl Storage for Interleaved {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        Ok(self.wrap(self.disk.create(id, bytes)?))
    }

    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        self.owner.lock().work();
        Ok(self.wrap(self.disk.open(id)?))
    }

    fn list(&self) -> io::Result<Vec<ExtentId>> {
        self.owner.lock().work();
        self.disk.list()
    }

    fn remove(&self, id: ExtentId) -> io::Result<()> {
        self.disk.remove(id)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }

    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.disk.lock_owner()
    }

    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        self.owner.lock().work();
        self.disk.lease()
    }

    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.disk.lock_out_readers()
    }
}

struct InterleavedExtent {
    extent: Arc<dyn Extent>,
    owner: Arc<Mutex<Owner>>,
}

impl Extent for InterleavedExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.owner.lock().work();
        self.extent.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.extent.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.extent.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.owner.lock().work();
        self.extent.size()
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.extent.set_size(bytes)
    }
}

/// Runs a reader beside the owner of one seed.
///
/// # Errors
/// When the reader sees what the model does not allow, or fails.
pub fn run_seed(seed: u64, sabotage: Sabotage) -> Result<(), Box<Failure>> {
    let ops = ops_of(seed);
    let generated = generate(seed).world;
    let world = WorldConfig {
        volume_sectors: generated.volume_sectors.min(VOLUME_SECTORS_MAX),
        sabotage,
        ..generated
    };
    guarded(|| run(seed, world, &ops)).map_err(|cause| {
        let repeat = format!("--reader {seed}..{}", seed + 1);
        Box::new(Failure { seed, step: ops.len(), ops, cause, repeat })
    })
}

/// The same with an owner that thins its history.
///
/// # Errors
/// As [`run_seed`].
pub fn run_thinned(seed: u64, sabotage: Sabotage) -> Result<(), Box<Failure>> {
    let mut history = thinned::generate(seed);
    history.world.sabotage = sabotage;
    let works = |op: &Op| {
        matches!(
            op,
            Op::Write { .. }
                | Op::WriteZeroes(..)
                | Op::Discard(..)
                | Op::Flush
                | Op::Step(_)
                | Op::Clock(_)
                | Op::SetPolicy(_)
                | Op::Retain { .. }
                | Op::Thin(..)
        )
    };
    let more = thinned::generate(seed ^ 0x0a11_5eed).ops;
    let ops: Vec<Op> = history.ops.into_iter().chain(more).filter(works).collect();
    guarded(|| run(seed, history.world, &ops)).map_err(|cause| {
        let repeat = format!("--thinned-reader {seed}..{}", seed + 1);
        Box::new(Failure { seed, step: ops.len(), ops, cause, repeat })
    })
}

/// The steps of a seed that an owner without troubles takes.
fn ops_of(seed: u64) -> Vec<Op> {
    let works = |op: &Op| {
        matches!(
            op,
            Op::Write { .. }
                | Op::WriteZeroes(..)
                | Op::Discard(..)
                | Op::Flush
                | Op::Step(_)
                | Op::Clock(_)
                | Op::Read(_)
        )
    };
    let of = |seed| generate(seed).ops.into_iter().filter(works);
    // Histories are short; two of them give the reader something to look at and the owner something to do.
    of(seed).chain(of(seed ^ 0x0a11_5eed)).collect()
}

fn run(seed: u64, world: WorldConfig, ops: &[Op]) -> Result<(), Mismatch> {
    let mut rng = SimRng::new(seed);
    let mut world = World::new(world)?;
    let (first, rest) = ops.split_at(ops.len() / 3);
    for op in first {
        world.step(op)?;
    }
    let acknowledged = world.model.acknowledged();
    let (disk, options) = (world.storage.clone(), world.options());
    // A reader starts over a few times when the owner changes the store under it, but not for ever.
    let busy = rng.pick(&[0.005, 0.02, 0.08]);
    let seen = vec![(world.model.remains().clone(), world.model.policy())];
    let owner = Owner { world, ops: rest.to_vec().into(), rng: rng.split(), busy, failed: None, seen };
    let owner = Arc::new(Mutex::new(owner));
    let view = Interleaved { disk, owner: owner.clone() };
    let reader =
        Store::open_read_only(Arc::new(view), options).map_err(Mismatch::failed("open_read_only"))?;
    let mut model = owner.lock().world.model.clone();
    model.may_be_back_at(acknowledged);
    for (remains, policy) in &owner.lock().seen {
        model.thinned_perhaps(remains.clone());
        model.set_policy(policy.clone(), false);
    }
    let seen = observe(&reader);
    model.admits(&seen)?;
    let damage = &reader.recovery().damage;
    if !damage.is_empty() {
        return Err(Mismatch::new("damage that a reader finds", "none", format!("{damage:?}")));
    }
    Checker::new(&reader, &model, &mut rng)?.all(Thoroughness::EverySeq)?;
    let report = reader.check(true, &mut |_| {}).map_err(Mismatch::failed("check by a reader"))?;
    if !report.damaged.is_empty() {
        return Err(Mismatch::new("check by a reader", "no damage", format!("{:?}", report.damaged)));
    }
    drop(reader);
    let mut owner = owner.lock();
    match owner.failed.take() {
        Some(mismatch) => Err(mismatch),
        None => owner.world.finish(),
    }
}
