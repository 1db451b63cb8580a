//! Thinning against the model: what stays visible, what goes, and the law that proves it.

use super::{Fixture, Random, entries_of, for_seeds, model::Model};
use crate::{
    format::packed::PackedEntry,
    index::{
        Classes, Entry, Keep, Merge, MergeStep, Needed, Run, Scan, VisibleSums,
        pack::{pack, unpack},
    },
    units::{Seq, VolumeId},
};
use std::{collections::BTreeSet, sync::Arc};

/// What is needed, and the sums of what was visible before.
struct Thin {
    needed: Needed,
    before: VisibleSums,
    /// Drops the entry of this number although it is needed, or keeps all.
    spoil: Option<u64>,
    met: u64,
}

impl Thin {
    fn new(classes: &Arc<Classes>) -> Self {
        Self {
            needed: Needed::new(classes.clone()),
            before: VisibleSums::new(classes.clone()),
            spoil: None,
            met: 0,
        }
    }
}

impl Keep for Thin {
    fn keep(&mut self, entry: &PackedEntry) -> crate::Result<Option<PackedEntry>> {
        self.before.take(entry);
        let needed = self.needed.is_needed(entry);
        self.met += u64::from(needed);
        Ok((needed && self.spoil != Some(self.met)).then_some(*entry))
    }

    fn pass(&mut self, entry: &PackedEntry) {
        self.before.take(entry);
        self.needed.is_needed(entry);
    }
}

/// A history in runs, some of which are thinned beside the others, at random kept points.
struct Scene {
    fixture: Fixture,
    model: Model,
    kept: BTreeSet<u64>,
    full_from: u64,
    inputs: Vec<Arc<Run>>,
    neighbours: Vec<Arc<Run>>,
}

impl Scene {
    fn new(random: &mut Random) -> Self {
        let fixture = Fixture::new();
        let writes = 1 + random.below(500);
        let model = match random.below(3) {
            0 => Model::narrow(random, writes),
            _ => Model::random(random, writes, 2),
        };
        let full_from = random.below(model.newest + 2);
        let kept = (0..random.below(12)).map(|_| random.below(full_from + 1)).collect();
        let count = 1 + random.pick(5);
        let mut shares = vec![Vec::new(); count];
        let by_time = random.one_in(2);
        for entry in &model.entries {
            let slice = usize::try_from(entry.key.seq().get() * count as u64 / (model.newest + 1)).unwrap();
            let at = if by_time { slice } else { random.pick(count) };
            shares[at].push(*entry);
            if random.one_in(20) {
                // The same version may stand in two runs.
                shares[random.pick(count)].push(*entry);
            }
        }
        for share in &mut shares {
            share.sort_by_key(|entry| entry.key);
            share.dedup();
        }
        shares.retain(|share| !share.is_empty());
        let mut inputs: Vec<_> = shares.iter().map(|share| fixture.run(share, 64 << 10, 0)).collect();
        let neighbours = inputs.split_off(1 + random.pick(inputs.len()));
        Self { fixture, model, kept, full_from, inputs, neighbours }
    }

    fn classes(&self) -> Arc<Classes> {
        Arc::new(Classes::new(self.kept.iter().copied(), self.full_from))
    }

    fn thin(&self, thin: Thin) -> (Option<Arc<Run>>, Thin) {
        let mut merge =
            Merge::beside(self.inputs.clone(), &self.neighbours, 2, self.fixture.place(0), thin).unwrap();
        loop {
            if let MergeStep::Finished(meta) = merge.step(97).unwrap() {
                let run = (!meta.pieces.is_empty()).then(|| self.fixture.open(meta));
                return (run, merge.into_filter());
            }
        }
    }

    fn after(&self, output: Option<Arc<Run>>) -> Vec<Arc<Run>> {
        self.neighbours.iter().cloned().chain(output).collect()
    }

    fn sums(&self, runs: Vec<Arc<Run>>) -> VisibleSums {
        let mut sums = VisibleSums::new(self.classes());
        if runs.is_empty() {
            return sums;
        }
        let mut scan = Scan::new(runs).unwrap();
        while let Some(met) = scan.advance().unwrap() {
            if !met.repeats {
                sums.take(&met.entry);
            }
        }
        sums
    }

    /// The kept points, and all behind them.
    fn points(&self) -> impl Iterator<Item = u64> {
        self.kept.iter().copied().chain(self.full_from..=self.model.newest.max(self.full_from))
    }

    /// Every entry that some kept point, or a point behind them, shows in some sector.
    fn visible(&self) -> BTreeSet<crate::index::Key> {
        let points = self.points();
        let mut visible = BTreeSet::new();
        for point in points {
            for volume in 1..=2 {
                let image = self.model.image(VolumeId::new(volume), Seq::new(point));
                visible.extend(image.into_iter().flatten().map(|entry| entry.key));
            }
        }
        visible
    }
}

fn model_of(runs: &[Arc<Run>], newest: u64) -> Model {
    let mut entries: Vec<Entry> = runs.iter().flat_map(|run| entries_of(run).unwrap()).collect();
    entries.sort_by_key(|entry| entry.key);
    entries.dedup();
    Model { entries, newest }
}

/// Goal: thinning changes no image at a kept point, keeps every state behind them, and drops every block version that no such point
/// shows. Method: random histories in random runs, some merged beside the others, against the slow model, image by image; the
/// output of a merge in which all runs take part is compared with exactly what is visible.
#[test]
fn thinning_keeps_every_image_and_nothing_else() {
    let mut dropped = 0;
    for_seeds_with(120, &mut dropped, |random, dropped| {
        let scene = Scene::new(random);
        let before: usize = scene.inputs.iter().map(|run| entries_of(run).unwrap().len()).sum();
        let (output, thin) = scene.thin(Thin::new(&scene.classes()));
        let left = output.as_ref().map_or(0, |run| entries_of(run).unwrap().len());
        *dropped += before - left;
        let after = scene.after(output.clone());
        assert!(thin.before.agrees(&scene.sums(after.clone())), "the law holds");
        let thinned = model_of(&after, scene.model.newest);
        for point in scene.points() {
            for volume in [VolumeId::new(1), VolumeId::new(2)] {
                let at = Seq::new(point);
                assert_eq!(thinned.image(volume, at), scene.model.image(volume, at), "point {point}");
            }
        }
        if scene.neighbours.is_empty() {
            let visible = scene.visible();
            let blocks = thinned.entries.iter().filter(|entry| entry.key.cell().level == 0);
            for entry in blocks.filter(|entry| entry.key.seq().get() <= scene.full_from) {
                assert!(visible.contains(&entry.key), "{entry:?} is not needed");
            }
        }
    });
    assert!(dropped > 1000, "there was something to thin: {dropped}");
}

fn for_seeds_with<T>(count: u64, state: &mut T, test: impl Fn(&mut Random, &mut T)) {
    let cell = std::cell::RefCell::new(state);
    for_seeds(count, |random| test(random, &mut cell.borrow_mut()));
}

/// Goal: the law notices every entry that a thinning should not have dropped, and every one that became another. Method: merges that
/// lose one needed entry; images then differ somewhere, or the entry repeats one of a neighbour.
#[test]
fn the_law_notices_a_lost_entry() {
    for_seeds(150, |random| {
        let scene = Scene::new(random);
        let (_, whole) = scene.thin(Thin::new(&scene.classes()));
        if whole.met == 0 {
            return;
        }
        let spoiled = Thin { spoil: Some(1 + random.below(whole.met)), ..Thin::new(&scene.classes()) };
        let (output, thin) = scene.thin(spoiled);
        let after = scene.after(output);
        let thinned = model_of(&after, scene.model.newest);
        let same = scene.points().all(|point| {
            (1..=2).all(|volume| {
                let (volume, at) = (VolumeId::new(volume), Seq::new(point));
                thinned.image(volume, at) == scene.model.image(volume, at)
            })
        });
        let agrees = thin.before.agrees(&scene.sums(after));
        assert!(same || !agrees, "an image changed and the law did not notice");
    });
}

/// Goal: the law notices content that changed. Method: another digest, seq or mask in one visible entry.
#[test]
fn the_law_notices_changed_content() {
    for_seeds(60, |random| {
        let scene = Scene::new(random);
        let visible = scene.visible();
        let shown: Vec<_> = scene.model.entries.iter().filter(|entry| visible.contains(&entry.key)).collect();
        if shown.is_empty() {
            return;
        }
        let spoiled = *shown[random.pick(shown.len())];
        let sums_of = |change: bool| {
            let mut entries: Vec<PackedEntry> =
                scene.model.entries.iter().map(|entry| pack(entry).unwrap()).collect();
            entries.sort_by_key(|entry| entry.key);
            let mut sums = VisibleSums::new(scene.classes());
            for mut entry in entries {
                if change && unpack(&entry).key == spoiled.key && unpack(&entry) == spoiled {
                    match entry.content.is_data() {
                        true => entry.content.digest ^= 1 << random_bit(&spoiled),
                        false => entry.content.place ^= 3,
                    }
                }
                sums.take(&entry);
            }
            sums
        };
        assert!(!sums_of(false).agrees(&sums_of(true)));
        assert!(sums_of(false).agrees(&sums_of(false)));
    });
}

fn random_bit(entry: &Entry) -> u64 {
    entry.key.seq().get() % 64
}

/// Goal: seqs fall into the class of the first kept point at or after them. Method: a list by hand.
#[test]
fn classes_end_at_kept_points() {
    let classes = Classes::new([7, 3, 3, 12], 10);
    assert_eq!((classes.points(), classes.full_from()), (3, 10));
    let number = |seq| classes.point_of(classes.class_of(seq));
    assert_eq!([0, 3, 4, 7, 8, 10].map(number), [3, 3, 7, 7, 10, 10].map(Some));
    assert_eq!([11, u64::MAX].map(number), [None, None]);
}

/// Goal: the class of a seq does not depend on how the points are spread. Method: points far apart, close together and both, up to the
/// largest seq; at and around each, and at random, compared with a plain search.
#[test]
fn classes_are_found_however_the_points_lie() {
    let close = (0..5000).map(|number| (1 << 40) + number);
    let spreads: [Vec<u64>; 5] = [
        vec![],
        vec![0],
        close.clone().collect(),
        (0..60).map(|bit| 1 << bit).collect(),
        (0..1000).map(|number| number << 50).chain(close).collect(),
    ];
    for (singles, full_from) in
        spreads.iter().flat_map(|singles| [0, 1, 1 << 41, u64::MAX].map(|to| (singles, to)))
    {
        let classes = Classes::new(singles.iter().copied(), full_from);
        let mut kept: Vec<u64> =
            singles.iter().copied().filter(|seq| *seq < full_from).chain([full_from]).collect();
        kept.sort_unstable();
        kept.dedup();
        let around = kept.iter().flat_map(|seq| [seq.saturating_sub(1), *seq, seq.saturating_add(1)]);
        for seq in around.chain((0..64).map(|bit| u64::MAX >> bit)) {
            let expected = kept.get(kept.partition_point(|point| *point < seq)).copied();
            assert_eq!(
                classes.point_of(classes.class_of(seq)),
                expected,
                "{seq} among {} points",
                kept.len()
            );
        }
    }
}
