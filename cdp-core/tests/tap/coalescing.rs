//! Coalesced writes: every write takes a seq, the last state of each interval is a point, and nothing else is.

use crate::source::{BLOCK, Random, Source, image_at, newest, options, store_with};
use cdp_core::{
    Coalescing, Error, NewBookmark, Point, SourceState, Store, TapOptions,
    io::{MemoryStorage, Storage},
    store::Granularity,
    units::{Seq, TimeNs},
};
use std::{collections::BTreeSet, sync::Arc};

const BYTES: usize = 64 * BLOCK;
const INTERVAL: u64 = 1000;
const NAMES: [&str; 2] = ["disk", "b"];

/// The states of two volumes by seq, and the time of each.
struct Model {
    images: Vec<[Vec<u8>; 2]>,
    times: Vec<u64>,
}

impl Model {
    fn new() -> Self {
        Self { images: vec![[vec![0; BYTES], vec![0; BYTES]]], times: vec![0] }
    }

    fn write(&mut self, volume: usize, offset: usize, data: &[u8], time: u64) {
        let mut next = self.images.last().unwrap().clone();
        next[volume][offset..offset + data.len()].copy_from_slice(data);
        self.images.push(next);
        self.times.push(time);
    }

    fn last(&self) -> usize {
        self.images.len() - 1
    }

    /// The states that must be points, and no others may be.
    fn points(&self, forced: &BTreeSet<usize>) -> BTreeSet<usize> {
        let ends =
            |seq: usize| seq == self.last() || self.times[seq] / INTERVAL != self.times[seq + 1] / INTERVAL;
        (0..=self.last()).filter(|seq| *seq == 0 || ends(*seq) || forced.contains(seq)).collect()
    }
}

fn random_write(model: &mut Model, random: &mut Random, time: &mut u64) -> (usize, usize, Vec<u8>) {
    *time += random.below(400) as u64;
    let volume = random.below(2);
    let sectors = [1, 2, 5, 8, 8, 8, 24][random.below(7)];
    let len = sectors * 512;
    let offset =
        if sectors == 8 { random.below(64) * BLOCK } else { random.below((BYTES - len) / 512) * 512 };
    let fill = if random.below(8) == 0 { 0 } else { (model.last() % 251 + 1) as u8 };
    let data = vec![fill; len];
    model.write(volume, offset, &data, *time);
    (volume, offset, data)
}

#[track_caller]
fn check(store: &Store, model: &Model, forced: &BTreeSet<usize>) {
    let points = model.points(forced);
    for seq in 0..=model.last() {
        let at = Seq::new(seq as u64);
        for (index, name) in NAMES.iter().enumerate() {
            let volume = store.volume(Some(name)).unwrap();
            if points.contains(&seq) {
                assert!(image_at(store, name, at) == model.images[seq][index], "seq {seq} of {name}");
                continue;
            }
            let Err(Error::PointUnavailable(refused)) = volume.snapshot(at) else {
                panic!("seq {seq} of {name} is a point");
            };
            let before = points.range(..seq).next_back().map(|seq| Seq::new(*seq as u64));
            let after = points.range(seq..).next().map(|seq| Seq::new(*seq as u64));
            assert_eq!(refused.before.map(|point| point.seq), before, "before seq {seq}");
            assert_eq!(refused.after.map(|point| point.seq), after, "after seq {seq}");
        }
    }
    for time in (model.times[1]..*model.times.last().unwrap()).step_by(37) {
        let seq = model.times.partition_point(|at| *at <= time) - 1;
        let resolved = store.resolve(&Point::Time(TimeNs::new(time)));
        let opened = resolved.and_then(|point| store.volume(None).unwrap().snapshot(point.seq));
        match opened {
            Ok(snapshot) => assert_eq!(snapshot.seq(), Seq::new(seq as u64), "time {time}"),
            Err(Error::PointUnavailable(_)) => assert!(!points.contains(&seq), "time {time}, seq {seq}"),
            Err(error) => panic!("time {time}: {error}"),
        }
    }
}

fn stored(store: &Store) -> u64 {
    store.stats().unwrap().versions
}

/// Goal: inline and through a tap, with bookmarks in between, exactly the last states of the intervals and the bookmarks are points, also
/// after a clean and an unclean end; and what is overwritten within an interval is not stored. Method: random writes of all alignments on
/// two volumes against a model of every state.
#[test]
fn the_last_state_of_each_interval_is_a_point() {
    for seed in 1..=6 {
        println!("seed {seed}");
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let store = store_with(storage.clone(), BYTES);
        store.add_volume("b", BYTES as u64).unwrap();
        store.set_coalescing(Coalescing::IntervalNs(INTERVAL)).unwrap();
        let source = Source::new(BYTES);
        let tapped = TapOptions { source: SourceState::Equal, pool_frames: 8, ..TapOptions::default() };
        let tap = (seed % 2 == 0).then(|| store.tap("b", source.clone(), tapped).unwrap());
        let mut model = Model::new();
        let mut random = Random(seed);
        let mut time = 1_000_000;
        let mut forced = BTreeSet::new();
        for step in 0..220 {
            let (volume, offset, data) = random_write(&mut model, &mut random, &mut time);
            match &tap {
                Some(tap) if volume == 1 => {
                    source.write(offset, &data);
                    tap.capture_at(offset as u64, &data, TimeNs::new(time)).unwrap();
                }
                _ => {
                    let inline = store.volume(Some(NAMES[volume])).unwrap();
                    let seq = inline.write_at_time(offset as u64, &data, TimeNs::new(time)).unwrap();
                    assert_eq!(seq, Seq::new(model.last() as u64));
                }
            }
            match random.below(30) {
                0 => {
                    store.add_bookmark(&NewBookmark::named(format!("b{step}"))).unwrap();
                    forced.insert(model.last());
                }
                1 => drop(store.flush().unwrap()),
                2 if tap.is_none() => assert!(newest(&store, "disk") == model.images.last().unwrap()[0]),
                _ => {}
            }
        }
        store.flush().unwrap();
        check(&store, &model, &forced);
        let ranges = store.timeline().unwrap().exact;
        assert!(ranges.iter().any(|range| range.granularity == Granularity::IntervalNs(INTERVAL)));
        if let Some(tap) = tap {
            tap.detach().unwrap();
        }
        if seed % 3 == 0 {
            store.close().unwrap();
        } else {
            drop(store);
        }
        let store = Store::open(storage, options()).unwrap();
        check(&store, &model, &forced);
        let report = store.check(true, &mut |_| {}).unwrap();
        assert!(report.damaged.is_empty(), "{:?}", report.damaged);
    }
}

/// Goal: coalescing saves what it promises. Method: one block overwritten many times in one interval, against the same without.
#[test]
fn what_is_overwritten_within_an_interval_is_not_stored() {
    let versions = |coalescing| {
        let store = store_with(Arc::new(MemoryStorage::new()), BYTES);
        store.set_coalescing(coalescing).unwrap();
        let volume = store.volume(None).unwrap();
        for step in 0..500_u64 {
            volume
                .write_at_time((step % 4) * 4096, &[(step % 250) as u8 + 1; 4096], TimeNs::new(5000 + step))
                .unwrap();
        }
        store.flush().unwrap();
        assert_eq!(store.newest().seq, Seq::new(500));
        stored(&store)
    };
    assert_eq!(versions(Coalescing::PerWrite), 500);
    assert_eq!(versions(Coalescing::PerBarrier), 4);
    assert_eq!(versions(Coalescing::IntervalNs(1_000_000)), 4);
    assert_eq!(versions(Coalescing::IntervalNs(100)), 20);
}

/// Goal: with coalescing by barrier the states at flushes and bookmarks are points and no others. Method: flushes at known seqs.
#[test]
fn by_barrier_flushes_and_bookmarks_are_points() {
    let store = store_with(Arc::new(MemoryStorage::new()), BYTES);
    store.set_coalescing(Coalescing::PerBarrier).unwrap();
    let volume = store.volume(None).unwrap();
    for step in 1..=30_u64 {
        volume.write((step % 5) * 4096, &[step as u8; 4096]).unwrap();
        match step {
            7 | 20 => drop(store.flush().unwrap()),
            13 => drop(store.add_bookmark(&NewBookmark::named("b")).unwrap()),
            _ => {}
        }
    }
    let open: Vec<u64> = (0..=30).filter(|seq| volume.snapshot(Seq::new(*seq)).is_ok()).collect();
    assert_eq!(open, [0, 7, 13, 20, 30]);
    store.set_coalescing(Coalescing::PerWrite).unwrap();
    volume.write(0, &[99; 4096]).unwrap();
    volume.write(0, &[100; 4096]).unwrap();
    assert!((30..=32).all(|seq| volume.snapshot(Seq::new(seq)).is_ok()));
    assert!(volume.snapshot(Seq::new(29)).is_err());
}
