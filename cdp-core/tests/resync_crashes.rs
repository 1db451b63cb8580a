//! Resync without a tap on the simulated disk: a crash in every call that changes something, also in the runs that go on afterwards.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    CreateOptions, OpenOptions, ResyncMode, ResyncOptions, SourceReader, SourceStamp, Store,
    dirty_map::ByteRange,
    format::digest::DigestKey,
    io::simulated::{CrashPolicy, SimRng, SimulatedStorage},
    resync::{DigestUnit, SourceDigests, digests_of},
    units::Seq,
};
use std::{io, sync::Arc, time::Duration};

const BLOCK: usize = 4096;
const BYTES: usize = 3 * (1 << 20) + 5 * 512;

/// A source that stays as it is; and whether it lies across a link.
struct Source(Vec<u8>, bool);

impl SourceReader for Source {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(&self.0[offset as usize..][..buf.len()]);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn digests(&self) -> Option<&dyn SourceDigests> {
        self.1.then_some(self)
    }

    fn stamp(&self) -> io::Result<Option<SourceStamp>> {
        let bytes = self.0.len() as u64;
        Ok(Some(SourceStamp { device: 1, inode: 1, bytes, modified_ns: 1, changed_ns: 1 }))
    }
}

impl SourceDigests for Source {
    fn digests(&self, key: DigestKey, unit: DigestUnit, ranges: &[ByteRange]) -> io::Result<Vec<u64>> {
        digests_of(self, self.0.len() as u64, key, unit, ranges)
    }

    fn read_ranges(&self, ranges: &[ByteRange], buf: &mut [u8]) -> io::Result<()> {
        let bytes = ranges.iter().flat_map(|range| &self.0[range.offset as usize..range.end() as usize]);
        buf.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

fn open_options() -> OpenOptions {
    OpenOptions { segment_bytes: 4 << 20, run_fanout: 2, ..OpenOptions::default() }
}

fn options(mode: ResyncMode) -> ResyncOptions {
    ResyncOptions { mode, checkpoint_every: Duration::ZERO, ..ResyncOptions::default() }
}

fn image_at(store: &Store, seq: Seq) -> Vec<u8> {
    let mut image = vec![0; BYTES];
    store.volume(None).unwrap().snapshot(seq).unwrap().read(0, &mut image).unwrap();
    image
}

fn crashed(storage: &SimulatedStorage, rng: &mut SimRng) -> SimulatedStorage {
    let policy = rng.pick(&[
        CrashPolicy::Random,
        CrashPolicy::Random,
        CrashPolicy::LoseUnsynced,
        CrashPolicy::KeepUnsynced,
    ]);
    if rng.chance(0.2) { storage.kill() } else { storage.crash(rng.next_u64(), policy) }
}

/// Runs one history, which the machine does not survive beyond changing call `stop` of its resync. Returns whether it got that far.
fn run(seed: u64, stop: u64) -> bool {
    let mut rng = SimRng::new(seed);
    let mut storage = SimulatedStorage::new(seed);
    let create = CreateOptions { volume: "disk".into(), bytes: BYTES as u64 };
    let store = Store::create(Arc::new(storage.clone()), &create, open_options()).unwrap();
    let volume = store.volume(None).unwrap();
    let mut image = vec![0; BYTES];
    for _ in 0..20 {
        let at = rng.below((BYTES / 512 - 16) as u64) as usize * 512;
        let data = vec![rng.below(255) as u8 + 1; 512 * (1 + rng.below(16) as usize)];
        volume.write(at as u64, &data).unwrap();
        image[at..at + data.len()].copy_from_slice(&data);
    }
    store.flush().unwrap();
    let before = (store.newest().seq, image.clone());
    for _ in 0..1 + rng.below(12) {
        let at = rng.below(BYTES.div_ceil(BLOCK) as u64) as usize * BLOCK;
        let value = rng.below(4) as u8 * 60;
        image[at..(at + BLOCK).min(BYTES)].fill(value);
    }
    let source = Arc::new(Source(image.clone(), seed % 2 == 1));
    let mode = rng.pick(&[ResyncMode::Digest, ResyncMode::Digest, ResyncMode::Full]);
    drop(volume);
    storage.stop_at_change(storage.changes() + stop);
    let outcome = store.resync_from(None, source.clone(), &options(mode), &mut |_| {}, &|| false);
    let stopped = storage.is_stopped();
    assert!(stopped || outcome.is_ok(), "{outcome:?}");
    drop(store);
    storage = crashed(&storage, &mut rng);
    // The runs that go on may be cut short too, and so may recovery.
    for _ in 0..rng.below(3) {
        storage.stop_at_change(storage.changes() + 1 + rng.below(40));
        if let Ok(store) = Store::open(Arc::new(storage.clone()), open_options()) {
            let _ = store.resync_from(None, source.clone(), &options(mode), &mut |_| {}, &|| false);
        }
        storage = crashed(&storage, &mut rng);
    }
    let store = Store::open(Arc::new(storage), open_options()).unwrap();
    assert!(image_at(&store, before.0) == before.1, "the last point before it");
    let newest = store.newest().seq;
    for seq in before.0.get() + 1..=newest.get() {
        // What opens is a state of one of the two.
        if let Ok(snapshot) = store.volume(None).unwrap().snapshot(Seq::new(seq)) {
            let mut found = vec![0; BYTES];
            snapshot.read(0, &mut found).unwrap();
            assert!(found == before.1 || found == image, "seq {seq} is a mixture");
        }
    }
    store.resync_from(None, source.clone(), &options(mode), &mut |_| {}, &|| false).unwrap();
    assert!(image_at(&store, store.newest().seq) == image, "the newest state is not the source");
    let timeline = store.timeline().unwrap();
    assert_eq!(timeline.newest_exact, Some(timeline.newest), "{timeline:?}");
    let quick = store.resync_from(None, source, &options(ResyncMode::Quick), &mut |_| {}, &|| false).unwrap();
    assert_eq!(quick.fallback, None);
    assert!(store.check(true, &mut |_| {}).unwrap().damaged.is_empty());
    stopped
}

/// Goal: at every crash state the map of an interrupted resync claims every difference, the points before are all there, and no mixture can be
/// opened. Method: for each seed a crash in each changing call of the run, up to three more in those that go on, then to the end.
#[test]
fn a_resync_survives_a_crash_in_every_call() {
    let seeds = std::env::var("CDP_TEST_SCALE").map_or(3, |scale| if scale == "full" { 200 } else { 3 });
    let (mut crashes, mut deepest) = (0, 0);
    for seed in 0..seeds {
        for stop in 1.. {
            let survived = std::panic::catch_unwind(|| run(seed, stop));
            let stopped = survived.unwrap_or_else(|_| panic!("seed {seed}, changing call {stop}"));
            if !stopped {
                break;
            }
            crashes += 1;
            deepest = deepest.max(stop);
        }
    }
    assert!(crashes > seeds * 10 && deepest > 20, "{crashes} crashes, the deepest in call {deepest}");
}
