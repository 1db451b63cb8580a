//! Damage anywhere in a store: whatever happens to its bytes, a read gives the right ones or an error, and a check reports it.
//!
//! A random history makes a store; it is closed, or its machine goes down; then one thing at a time is damaged in a copy of
//! it ([`Rot`]), and the copy is opened by a reader and by an owner, checked and read ([`run_seed`]). Rules:
//! - *Right or refused*: every read returns what was written, or `Damaged`. Never wrong bytes, never a panic.
//! - *Reported*: where something differs from what it should be, the report of recovery or a deep check says so. After a clean
//!   close every byte that was ever written is covered, so every change is reported.
//! - *Never truncated*: damage costs what it hits. Only the last write may be taken for a torn tail.

use super::{
    check::{Checker, Thoroughness, compare_image, observe},
    directed::intervals_to_rot,
    generate::{History, generate},
    mismatch::Mismatch,
    model::Model,
    op::{Down, Fill, Op, Place, Recover, When},
    simulate::{Cause, Failure, guarded},
    thinned,
    world::{World, WorldConfig},
};
use crate::{
    Store,
    error::Error,
    format::{compacted::CompactedSegment, frame::FrameHeader, frame_table::ENTRIES_PER_PAGE},
    io::{
        AlignedBuf, IO_ALIGN, Storage,
        simulated::{SimRng, SimulatedStorage},
    },
    sabotage::Sabotage,
    units::{ExtentId, Seq, len_u64, to_len},
};
use std::{collections::BTreeMap, sync::Arc};

/// Places that are damaged in each store.
const PLACES: u64 = 16;
/// Attempts to find a byte that was ever written.
const ATTEMPTS_MAX: u64 = 64;
/// Largest volume, sectors: each is read at each seq for each place.
const VOLUME_SECTORS_MAX: u64 = 512;
/// Steps of a history at most.
const STEPS_MAX: usize = 24;
/// Steps at the end of a history with intervals that make up its last frame.
const LAST_STEPS: usize = 3;
const PAGE: u64 = len_u64(IO_ALIGN);

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// A bit flips.
    Flip {
        /// Where.
        extent: ExtentId,
        /// Where in it.
        offset: u64,
        /// Which.
        bit: u8,
    },
    /// A page becomes zeroes.
    Zero(ExtentId, u64),
    /// A page gets the content of another page of the store.
    Misdirected {
        /// The extent.
        extent: ExtentId,
        /// The page.
        offset: u64,
        /// Where its content comes from.
        source: (ExtentId, u64),
    },
    /// An extent is cut at a page.
    Cut(ExtentId, u64),
    /// An extent is gone.
    Gone(ExtentId),
    /// An extent is replaced by a copy of another.
    Swapped(ExtentId, ExtentId),
}

/// A store to be damaged.
pub(super) struct Specimen {
    pub world: World,
    pub disk: SimulatedStorage,
    closed: bool,
    /// The newest state must be at least this one, whatever is damaged, unless the store cannot be opened.
    at_least: Seq,
    /// Volumes and points that met damage.
    refused: u64,
}

/// What was damaged, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Places that were damaged.
    pub places: u64,
    /// Volumes at points whose reading was refused for it.
    pub refused: u64,
}

/// Damages the store of one seed in several places. Returns how many were damaged.
///
/// # Errors
/// The first place where a rule does not hold.
pub fn run_seed(seed: u64, sabotage: Sabotage) -> Result<u64, Box<Failure>> {
    let failed = |ops: &[Op], cause| {
        let repeat = format!("--rot {seed}..{}", seed + 1);
        Box::new(Failure { seed, step: ops.len(), ops: ops.to_vec(), cause, repeat })
    };
    let ops = ops_of(seed);
    let mut specimen = guarded(|| specimen(seed, &ops, sabotage)).map_err(|cause| failed(&ops, cause))?;
    let mut rng = SimRng::new(seed ^ 0x0ff1_c1a1);
    let mut done = 0;
    for _ in 0..PLACES {
        let disk = specimen.disk.fork();
        let Some(rot) = damage(&disk, &mut rng).map_err(|cause| failed(&ops, cause.into()))? else {
            continue;
        };
        done += 1;
        let closed = specimen.closed;
        specimen.closed &= specimen.is_covered(rot).map_err(|cause| failed(&ops, cause.into()))?;
        let outcome = guarded(|| specimen.examine(&disk));
        specimen.closed = closed;
        outcome.map_err(|cause| {
            let text = format!("{rot:?}, store closed: {}", specimen.closed);
            let cause = match cause {
                Cause::Mismatch(mismatch) => {
                    Cause::Mismatch(Mismatch::new(text, "right or refused", mismatch.to_string()))
                }
                Cause::Panic(panic) => Cause::Panic(format!("{text}: {panic}")),
            };
            failed(&ops, cause)
        })?;
    }
    Ok(done)
}

/// Damages the head of one frame after the other in a store with coalesced intervals of several frames. Returns how many there were.
///
/// # Errors
/// The first frame where a rule does not hold.
pub fn run_intervals(seed: u64, sabotage: Sabotage) -> Result<u64, Box<Failure>> {
    let history = intervals_to_rot(seed);
    let failed = |cause| {
        let (ops, repeat) = (history.ops.clone(), format!("--rot-intervals {seed}..{}", seed + 1));
        Box::new(Failure { seed, step: ops.len(), ops, cause, repeat })
    };
    let made = guarded(|| {
        let mut world = World::new(WorldConfig { sabotage, ..history.world.clone() })?;
        let (before, last) = history.ops.split_at(history.ops.len() - LAST_STEPS);
        before.iter().try_for_each(|op| world.step(op))?;
        let at_least = world.model.newest().seq;
        last.iter().try_for_each(|op| world.step(op))?;
        let closed = seed % 2 == 1;
        if closed {
            world.step(&Op::Reopen)?;
            let store = world.store()?;
            world.forget_store();
            store.close().map_err(Mismatch::failed("close"))?;
        }
        let disk = world.storage.kill();
        Ok(Specimen { world, disk, closed, at_least, refused: 0 })
    });
    let mut specimen = made.map_err(failed)?;
    let heads = frame_heads(&specimen.disk).map_err(|cause| failed(cause.into()))?;
    for (extent, offset) in &heads {
        let disk = specimen.disk.fork();
        let outcome = guarded(|| {
            disk.flip_bit(*extent, offset + 40, 1)
                .map_err(|error| Mismatch::new("damaging the disk", "done", error.to_string()))?;
            specimen.examine(&disk)
        });
        outcome.map_err(|cause| match cause {
            Cause::Mismatch(mismatch) => {
                let what = format!("frame at {offset} of {extent}, store closed: {}", specimen.closed);
                failed(Mismatch::new(what, "right or refused", mismatch.to_string()).into())
            }
            panic @ Cause::Panic(_) => failed(panic),
        })?;
    }
    Ok(len_u64(heads.len()))
}

/// Flips bits in the compacted segments of a store whose history was thinned: every read is right or refused, at every point.
///
/// # Errors
/// The first place where that does not hold.
pub fn run_compacted(seed: u64, sabotage: Sabotage) -> Result<Met, Box<Failure>> {
    let history = thinned::generate(seed);
    let failed = |cause| {
        let (ops, repeat) = (history.ops.clone(), format!("--rot-compacted {seed}..{}", seed + 1));
        Box::new(Failure { seed, step: ops.len(), ops, cause, repeat })
    };
    let made = guarded(|| thinned_specimen(&history, sabotage));
    let (mut specimen, compacted) = made.map_err(failed)?;
    let mut rng = SimRng::new(seed ^ 0x0c0_4aac);
    let mut met = Met::default();
    for (extent, segment) in compacted.into_iter().take(4) {
        for offset in [
            rng.below(PAGE),
            PAGE + rng.below(segment.table_at() - PAGE),
            segment.bytes - 1 - rng.below(PAGE),
        ] {
            let disk = specimen.disk.fork();
            met.places += 1;
            let outcome = guarded(|| {
                disk.flip_bit(extent, offset, 3)
                    .map_err(|error| Mismatch::new("damaging the disk", "done", error.to_string()))?;
                let storage = Arc::new(disk.fork());
                let store =
                    Store::open(storage, specimen.world.options()).map_err(Mismatch::failed("open"))?;
                specimen.refused += read_everything(&store, &specimen.world.model, &mut specimen.world.rng)?;
                specimen.write_behind(&store)
            });
            outcome.map_err(|cause| match cause {
                Cause::Mismatch(mismatch) => {
                    let what = format!("byte {offset} of compacted segment {extent}");
                    failed(Mismatch::new(what, "right or refused", mismatch.to_string()).into())
                }
                panic @ Cause::Panic(_) => failed(panic),
            })?;
        }
    }
    met.refused = specimen.refused;
    Ok(met)
}

/// A store whose history was thinned, closed in good order, and its compacted segments.
pub(super) fn thinned_specimen(
    history: &History,
    sabotage: Sabotage,
) -> Result<(Specimen, BTreeMap<ExtentId, CompactedSegment>), Mismatch> {
    let quiet = |op: &&Op| {
        let troubles =
            matches!(op, Op::Fault(..) | Op::Full(_) | Op::DownAt(..) | Op::Down(..) | Op::Hold(_));
        let readers = matches!(op, Op::OpenReader | Op::ReadReaders | Op::CloseReaders | Op::ReadOnly);
        !troubles && !readers
    };
    let mut world = World::new(WorldConfig { sabotage, ..history.world.clone() })?;
    history.ops.iter().filter(quiet).try_for_each(|op| world.step(op))?;
    let store = world.store()?;
    let compacted = store.inner.group.manifest.lock().state().compacted.clone();
    let at_least = world.model.newest().seq;
    world.forget_store();
    store.close().map_err(Mismatch::failed("close"))?;
    let disk = world.storage.kill();
    Ok((Specimen { world, disk, closed: false, at_least, refused: 0 }, compacted))
}

/// Where frames begin.
fn frame_heads(disk: &SimulatedStorage) -> Result<Vec<(ExtentId, u64)>, Mismatch> {
    let broken = |error: std::io::Error| Mismatch::new("reading the disk", "done", error.to_string());
    let mut heads = Vec::new();
    for extent in disk.list().map_err(broken)? {
        let size = disk.open(extent).and_then(|handle| handle.size()).map_err(broken)?;
        for offset in (0..size / PAGE).map(|page| page * PAGE) {
            if FrameHeader::peek(&page_of(disk, extent, offset).map_err(broken)?).is_ok() {
                heads.push((extent, offset));
            }
        }
    }
    Ok(heads)
}

/// The steps of a seed: those of its history that leave nothing to chance afterwards.
pub(super) fn ops_of(seed: u64) -> Vec<Op> {
    let quiet = |op: &Op| {
        !matches!(
            op,
            Op::Fault(..)
                | Op::Full(_)
                | Op::DownAt(..)
                | Op::ReadOnly
                | Op::Check
                | Op::Refused(_)
                // A size that rot takes away is gone with its frame.
                | Op::Resize { .. }
        )
    };
    generate(seed).ops.into_iter().filter(quiet).take(STEPS_MAX).collect()
}

pub(super) fn specimen(seed: u64, ops: &[Op], sabotage: Sabotage) -> Result<Specimen, Mismatch> {
    let mut config = generate(seed).world;
    config.sabotage = sabotage;
    config.volume_sectors = config.volume_sectors.min(VOLUME_SECTORS_MAX);
    config.thoroughness = Thoroughness::Sample;
    let mut world = World::new(config)?;
    for op in ops {
        let small = match op {
            Op::Import { seed, fail_after, .. } => {
                &Op::Import { sectors: VOLUME_SECTORS_MAX, seed: *seed, fail_after: *fail_after }
            }
            op => op,
        };
        world.step(small)?;
    }
    let mut rng = SimRng::new(seed);
    let place = Place { volume: 0, sector: rng.next_u64(), sectors: 1 + rng.below(40) };
    let last = Op::Write { place, fill: Fill::Stamped, when: When::Clock, parts: 0 };
    world.step(&Op::Flush)?;
    let at_least = world.model.newest().seq;
    world.step(&last)?;
    world.step(&Op::Flush)?;
    let closed = rng.chance(0.5);
    if closed {
        // The second open closes what the first has left, so that both ends of a life are there.
        world.step(&Op::Reopen)?;
        let store = world.store()?;
        world.forget_store();
        store.close().map_err(Mismatch::failed("close"))?;
    } else if rng.chance(0.5) {
        world.step(&Op::Down(Down::Kill, Recover::default()))?;
    }
    let disk = world.storage.kill();
    let at_least = if closed { at_least.next() } else { at_least };
    Ok(Specimen { world, disk, closed, at_least, refused: 0 })
}

impl Specimen {
    /// Whether the damage is to something that anybody may still read. A footer of its own that is cut behind its frame table has lost an
    /// index which a merge has replaced: nothing says how long it was.
    fn is_covered(&self, rot: Rot) -> Result<bool, Mismatch> {
        let (extent, offset) = match rot {
            Rot::Cut(extent, offset) => (extent, offset),
            Rot::Gone(extent) => (extent, 0),
            _ => return Ok(true),
        };
        let store = Store::open_read_only(Arc::new(self.disk.fork()), self.world.options());
        let store = store.map_err(Mismatch::failed("open of a store before it is damaged"))?;
        let manifest = store.inner.group.manifest.lock();
        let state = manifest.state();
        if state.reserve.is_some_and(|(reserve, _)| reserve == extent) {
            // It may be gone: it holds nothing.
            return Ok(matches!(rot, Rot::Cut(..)));
        }
        let sealed = state.segments.values().filter_map(|segment| segment.sealed.as_ref());
        let own_footer = sealed.filter(|sealed| sealed.table_extent == extent && sealed.extent != extent);
        let table_end = own_footer
            .map(|sealed| {
                sealed.table_offset + u64::from(sealed.frames).div_ceil(len_u64(ENTRIES_PER_PAGE)) * PAGE
            })
            .max();
        let pieces = state.runs.values().flat_map(|run| &run.pieces).filter(|piece| piece.extent == extent);
        let index_end = pieces.map(|piece| piece.offset + piece.bytes()).max().unwrap_or(0);
        Ok(table_end.is_none_or(|end| offset < end.max(index_end)))
    }

    fn examine(&mut self, disk: &SimulatedStorage) -> Result<(), Mismatch> {
        for owner in [false, true] {
            let storage = Arc::new(disk.fork());
            let options = self.world.options();
            let opened =
                if owner { Store::open(storage, options) } else { Store::open_read_only(storage, options) };
            match opened {
                Ok(store) => self.examine_store(&store)?,
                Err(Error::Damaged(_) | Error::UnsupportedFormat(_)) => {}
                Err(error) => {
                    return Err(Mismatch::failed(format!("open of a damaged store, owner: {owner}"))(error));
                }
            }
        }
        Ok(())
    }

    fn examine_store(&mut self, store: &Store) -> Result<(), Mismatch> {
        let seen = observe(store);
        let report = store.check(true, &mut |_| {}).map_err(Mismatch::failed("check"))?;
        let reported = !report.damaged.is_empty() || report.tail_frames > 0 || report.tail_bytes > 0;
        let model = &self.world.model;
        if seen.newest.seq < self.at_least || seen.newest.seq > model.newest().seq {
            let allowed = format!("seq {} to {}", self.at_least, model.newest().seq);
            return Err(Mismatch::new("newest state", allowed, seen.newest.seq.to_string()));
        }
        if reported {
            self.refused += read_everything(store, model, &mut self.world.rng)?;
            return self.write_behind(store);
        }
        if self.closed {
            return Err(Mismatch::new("check", "damage", "none"));
        }
        Checker::new(store, model, &mut self.world.rng)?.all(Thoroughness::EverySeq)
    }

    /// A damaged store takes writes like any other, or refuses them.
    fn write_behind(&mut self, store: &Store) -> Result<(), Mismatch> {
        if store.is_read_only() {
            return Ok(());
        }
        let Ok(volume) = store.volume(Some("disk")) else { return Ok(()) };
        if volume.bytes() < PAGE {
            // The rest of the only block may be damaged.
            return Ok(());
        }
        let data = vec![0x77; IO_ALIGN];
        match volume.write(0, &data).and_then(|_| store.flush()) {
            Ok(_) => {
                let mut found = vec![0; data.len()];
                volume.read(0, &mut found).map_err(Mismatch::failed("read of a write behind damage"))?;
                if found == data {
                    return Ok(());
                }
                Err(Mismatch::new("read of a write behind damage", "what was written", "something else"))
            }
            Err(Error::Damaged(_) | Error::Poisoned(_)) => Ok(()),
            Err(error) => Err(Mismatch::failed("write behind damage")(error)),
        }
    }
}

/// Reads every volume at every seq. Damage is allowed, wrong bytes are not. Returns how often there was damage.
pub(super) fn read_everything(store: &Store, model: &Model, rng: &mut SimRng) -> Result<u64, Mismatch> {
    let mut damaged = 0;
    let newest = store.newest().seq;
    for (index, expected) in model.volumes().iter().enumerate() {
        let Ok(volume) = store.volume(Some(&expected.name)) else { continue };
        if volume.bytes() != expected.bytes {
            return Err(Mismatch::new(
                "size of a volume",
                expected.bytes.to_string(),
                volume.bytes().to_string(),
            ));
        }
        for seq in expected.exists_from.get()..=newest.get() {
            let seq = Seq::new(seq);
            let snapshot = match volume.snapshot(seq) {
                Ok(snapshot) => snapshot,
                Err(Error::Damaged(_) | Error::PointUnavailable(_)) => continue,
                Err(error) => return Err(Mismatch::failed(format!("snapshot({seq})"))(error)),
            };
            let image = model.image(index, seq);
            let mut read = |offset, buf: &mut [u8]| tolerant(snapshot.read(offset, buf));
            match compare_image(expected, seq, &image, "snapshot read", rng, &mut read) {
                Err(Mismatch::Failed { error, .. }) if is_skip(&error) => damaged += 1,
                other => other?,
            }
        }
    }
    Ok(damaged)
}

/// Ends the comparison of an image at the first damage without calling it a difference.
fn tolerant(result: crate::Result<()>) -> crate::Result<()> {
    result.map_err(|error| match error {
        Error::PointUnavailable(_) => Error::InvalidArgument(SKIP.into()),
        error if error.is_damage() => Error::InvalidArgument(SKIP.into()),
        error => error,
    })
}

const SKIP: &str = "damage";

fn is_skip(error: &Error) -> bool {
    matches!(error, Error::InvalidArgument(text) if text == SKIP)
}

/// Damages a disk. `None`: no place was found.
fn damage(disk: &SimulatedStorage, rng: &mut SimRng) -> Result<Option<Rot>, Mismatch> {
    let broken = |error: std::io::Error| Mismatch::new("damaging the disk", "done", error.to_string());
    let extents = disk.list().map_err(broken)?;
    for _ in 0..ATTEMPTS_MAX {
        let extent = rng.pick(&extents);
        let handle = disk.open(extent).map_err(broken)?;
        let pages = handle.size().map_err(broken)? / PAGE;
        if pages == 0 {
            continue;
        }
        let most = rng.pick(&[2, 16, u64::MAX]);
        let page = rng.below(pages.min(most)) * PAGE;
        // Only pages that were ever written can be damaged; flipping a bit twice tells.
        let (offset, bit) = (page + rng.below(PAGE), u8::try_from(rng.below(8)).unwrap_or(0));
        if !disk.flip_bit(extent, offset, bit).map_err(broken)? {
            continue;
        }
        let rot = match rng.below(20) {
            0 => Rot::Zero(extent, page),
            1 => {
                let from = rng.pick(&extents);
                let size = disk.open(from).and_then(|handle| handle.size()).map_err(broken)?;
                Rot::Misdirected {
                    extent,
                    offset: page,
                    source: (from, rng.below((size / PAGE).max(1)) * PAGE),
                }
            }
            2 => Rot::Cut(extent, page),
            3 => Rot::Gone(extent),
            4 => Rot::Swapped(extent, rng.pick(&extents)),
            _ => return Ok(Some(Rot::Flip { extent, offset, bit })),
        };
        disk.flip_bit(extent, offset, bit).map_err(broken)?;
        drop(handle);
        if apply(disk, rot).map_err(broken)? {
            return Ok(Some(rot));
        }
    }
    Ok(None)
}

/// Carries out damage other than a flipped bit. False when it changed nothing.
fn apply(disk: &SimulatedStorage, rot: Rot) -> std::io::Result<bool> {
    match rot {
        Rot::Flip { .. } => Ok(true),
        Rot::Zero(extent, offset) => put(disk, extent, offset, &AlignedBuf::new(IO_ALIGN)?),
        Rot::Misdirected { extent, offset, source } => {
            let page = page_of(disk, source.0, source.1)?;
            put(disk, extent, offset, &page)
        }
        Rot::Cut(extent, bytes) => disk.open(extent)?.set_size(bytes).map(|()| true),
        Rot::Gone(extent) => disk.remove(extent).map(|()| true),
        Rot::Swapped(extent, other) => {
            if extent == other {
                return Ok(false);
            }
            let size = disk.open(other)?.size()?;
            let mut content = AlignedBuf::new(to_len(size.max(1)))?;
            disk.open(other)?.read_at(0, &mut content[..to_len(size)])?;
            disk.remove(extent)?;
            disk.create(extent, size)?.write_at(0, &content[..to_len(size)])?;
            Ok(true)
        }
    }
}

fn page_of(disk: &SimulatedStorage, extent: ExtentId, offset: u64) -> std::io::Result<AlignedBuf> {
    let mut page = AlignedBuf::new(IO_ALIGN)?;
    disk.open(extent)?.read_at(offset, &mut page)?;
    Ok(page)
}

fn put(disk: &SimulatedStorage, extent: ExtentId, offset: u64, page: &AlignedBuf) -> std::io::Result<bool> {
    let before = page_of(disk, extent, offset)?;
    if before[..] == page[..] {
        return Ok(false);
    }
    disk.open(extent)?.write_at(offset, page)?;
    Ok(true)
}
