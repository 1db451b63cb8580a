//! Scrubbing: what rotted in the payload is written anew where a source has it, and stays refused where none has.
//!
//! A random history makes a store, thinned or not; bits flip in the content of some of its versions; an owner opens it and scrubs it with
//! images of some of its states as sources. Rules:
//! - *Right or refused*, before and after, at every seq.
//! - *Repaired where it can be*: a state of which a source is the image reads without damage afterwards, unless a version is said to be lost:
//!   one of which a sector rotted that no source shows.
//! - *Honest*: nothing is refused when no damage is said to be left, and damage is left only with a version that is said to be lost.
//! - *Nothing else*: a store that is opened again after a power cut in the middle of it is right or refused as well.

use super::{
    mismatch::Mismatch,
    rot::{Specimen, ops_of, read_everything, specimen, thinned_specimen},
    simulate::{Cause, Failure, guarded},
    thinned,
};
use crate::{
    Error, ScrubReport, SourceReader, Store,
    index::Scan,
    io::simulated::{CrashPolicy, SimRng, SimulatedStorage},
    sabotage::Sabotage,
    units::{ExtentId, SECTOR_BYTES, Seq, len_u64, to_len},
};
use std::{io, sync::Arc};

/// Most bits that flip in one store.
const FLIPS_MAX: u64 = 6;

/// The image of a volume in one state.
struct Image(Vec<u8>);

impl SourceReader for Image {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let start = to_len(offset);
        let bytes = self.0.get(start..start + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// A state of a volume that can be opened, and its image.
struct State {
    volume: String,
    seq: Seq,
    image: Arc<Image>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Bits that were flipped.
    pub flips: u64,
    /// States that were refused before, and after, with no source.
    pub refused: u64,
    /// Versions that were written anew, with sources of all states.
    pub repaired: u64,
    /// Versions that were lost all the same.
    pub lost: u64,
}

/// Scrubs the store of one seed.
///
/// # Errors
/// The first rule that does not hold.
pub fn run_seed(seed: u64, sabotage: Sabotage) -> Result<Scrubbed, Box<Failure>> {
    let (ops, made) = if seed.is_multiple_of(2) {
        let history = thinned::generate(seed);
        let made = guarded(|| thinned_specimen(&history, sabotage).map(|(specimen, _)| specimen));
        (history.ops, made)
    } else {
        let ops = ops_of(seed);
        let made = guarded(|| specimen(seed, &ops, sabotage));
        (ops, made)
    };
    let failed = |cause: Cause| {
        let repeat = format!("--scrub {seed}..{}", seed + 1);
        Box::new(Failure { seed, step: ops.len(), ops: ops.clone(), cause, repeat })
    };
    let mut specimen = made.map_err(failed)?;
    guarded(|| specimen.scrub_all(seed)).map_err(failed)
}

impl Specimen {
    fn scrub_all(&mut self, seed: u64) -> Result<Scrubbed, Mismatch> {
        let mut rng = SimRng::new(seed ^ 0x5c2_0bb1);
        let states = self.states()?;
        let disk = self.disk.fork();
        let mut met = Scrubbed { flips: self.flip(&disk, &mut rng)?, ..Scrubbed::default() };
        if states.is_empty() || met.flips == 0 {
            return Ok(met);
        }
        let one = &states[to_len(rng.below(len_u64(states.len())))];
        let (_, refused) = self.scrub(&disk.fork(), &[], &mut rng)?;
        self.scrub(&disk.fork(), std::slice::from_ref(one), &mut rng)?;
        let (report, _) = self.scrub(&disk.fork(), &states, &mut rng)?;
        (met.refused, met.repaired, met.lost) = (refused, report.versions_repaired, report.versions_lost);
        Ok(met)
    }

    /// Every state that can be opened, before anything is damaged.
    fn states(&self) -> Result<Vec<State>, Mismatch> {
        let store = Store::open_read_only(Arc::new(self.disk.fork()), self.world.options());
        let store = store.map_err(Mismatch::failed("open of a store before it is damaged"))?;
        let mut states = Vec::new();
        for info in store.volumes() {
            let volume = store.volume(Some(&info.name)).map_err(Mismatch::failed("volume"))?;
            for seq in info.exists_from.get()..=store.newest().seq.get() {
                let Ok(snapshot) = volume.snapshot(Seq::new(seq)) else { continue };
                // One of another size is no image of the volume as it is now.
                if snapshot.bytes() != volume.bytes() {
                    continue;
                }
                let mut image = vec![0; to_len(volume.bytes())];
                snapshot.read(0, &mut image).map_err(Mismatch::failed("read before damage"))?;
                let image = Arc::new(Image(image));
                states.push(State { volume: info.name.clone(), seq: Seq::new(seq), image });
            }
        }
        Ok(states)
    }

    /// Flips bits in the content of versions. Returns how many.
    fn flip(&self, disk: &SimulatedStorage, rng: &mut SimRng) -> Result<u64, Mismatch> {
        let store = Store::open_read_only(Arc::new(self.disk.fork()), self.world.options());
        let store = store.map_err(Mismatch::failed("open of a store before it is damaged"))?;
        let view = store.inner.group.view();
        if view.runs.is_empty() {
            return Ok(0);
        }
        let mut scan = Scan::new(view.runs.clone()).map_err(Mismatch::failed("scan"))?;
        let mut places = Vec::new();
        while let Some(met) = scan.advance().map_err(Mismatch::failed("scan"))? {
            if met.entry.content.is_data() {
                let content = met.entry.content;
                let bytes = u64::from(content.mask().count_ones()) * SECTOR_BYTES;
                places.push((
                    ExtentId::new(content.segment),
                    u64::from(content.sector()) * SECTOR_BYTES,
                    bytes,
                ));
            }
        }
        if places.is_empty() {
            return Ok(0);
        }
        let flips = 1 + rng.below(FLIPS_MAX);
        for _ in 0..flips {
            let (extent, at, bytes) = places[to_len(rng.below(len_u64(places.len())))];
            let flipped = disk.flip_bit(extent, at + rng.below(bytes), 5);
            let flipped = flipped.map_err(|error| Mismatch::new("damaging", "done", error.to_string()))?;
            if !flipped {
                return Err(Mismatch::new(
                    "damaging",
                    "a bit of a version",
                    "a place that was never written",
                ));
            }
        }
        Ok(flips)
    }

    /// Scrubs a damaged disk with these sources. Returns what was said, and how often a state was refused afterwards.
    fn scrub(
        &mut self,
        disk: &SimulatedStorage,
        sources: &[State],
        rng: &mut SimRng,
    ) -> Result<(ScrubReport, u64), Mismatch> {
        let store = match Store::open(Arc::new(disk.clone()), self.world.options()) {
            Ok(store) => store,
            // What recovery itself has to read may be what was hit.
            Err(Error::Damaged(_)) => return Ok(Default::default()),
            Err(error) => return Err(Mismatch::failed("open of a damaged store")(error)),
        };
        let model = &self.world.model;
        let refused_before = read_everything(&store, model, rng)?;
        let cut = disk.fork();
        let named: Vec<(&str, Arc<dyn SourceReader>)> = sources
            .iter()
            .map(|state| (state.volume.as_str(), state.image.clone() as Arc<dyn SourceReader>))
            .collect();
        let report = store.scrub(&named, &mut |_| {}, &|| false);
        let report = report.map_err(Mismatch::failed("scrub"))?.unwrap_or_default();
        let refused = read_everything(&store, model, rng)?;
        if refused > refused_before {
            let allowed = format!("at most {refused_before} refused");
            return Err(Mismatch::new("states after a scrub", allowed, refused.to_string()));
        }
        let lost = report.versions_lost > 0;
        let what = format!("{report:?}, {refused} refused");
        if report.left.is_empty() && (refused > 0 || lost) {
            return Err(Mismatch::new("a scrub that leaves no damage", "nothing refused or lost", what));
        }
        if !sources.is_empty() && !report.left.is_empty() && !lost {
            return Err(Mismatch::new("a scrub that loses no version", "no damage left", what));
        }
        for state in sources {
            let volume = store.volume(Some(&state.volume)).map_err(Mismatch::failed("volume"))?;
            let mut image = vec![0; state.image.0.len()];
            match volume.snapshot(state.seq).and_then(|snapshot| snapshot.read(0, &mut image)) {
                Ok(()) if image == state.image.0 => {}
                Err(Error::Damaged(_)) if lost => {}
                Ok(()) => {
                    return Err(Mismatch::new("a state that a source has", "its image", "something else"));
                }
                Err(error) => return Err(Mismatch::failed("read of a state that a source has")(error)),
            }
        }
        drop(store);
        self.power_cut(&cut, &named, rng)?;
        Ok((report, refused))
    }

    /// The same with a power cut at some call.
    fn power_cut(
        &mut self,
        disk: &SimulatedStorage,
        sources: &[(&str, Arc<dyn SourceReader>)],
        rng: &mut SimRng,
    ) -> Result<(), Mismatch> {
        let Ok(store) = Store::open(Arc::new(disk.clone()), self.world.options()) else { return Ok(()) };
        disk.stop_at_change(disk.changes() + 1 + rng.below(FLIPS_MAX));
        // It may come to its end before the power goes.
        let _ = store.scrub(sources, &mut |_| {}, &|| false);
        drop(store);
        let after = disk.crash(rng.next_u64(), CrashPolicy::Random);
        match Store::open(Arc::new(after), self.world.options()) {
            Ok(store) => read_everything(&store, &self.world.model, rng).map(|_| ()),
            Err(Error::Damaged(_)) => Ok(()),
            Err(error) => Err(Mismatch::failed("open after a power cut in a scrub")(error)),
        }
    }
}
