//! Bookmarks of every kind at once, beside threads that write to many volumes: each is one cut.

use crate::{
    production::Production,
    source::{BLOCK, Random, Source, block, image_at, store, version_of},
};
use cdp_core::{
    Bookmark, BookmarkSchedule, Error, NewBookmark, SourceState, Store, Tap, TapOptions, bookmark_across,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const VOLUMES: usize = 8;
const THREADS: usize = 4;
/// Blocks of a thread in each volume.
const PLACES: usize = 8;
const BYTES: usize = THREADS * PLACES * BLOCK;

/// Eight volumes of a store, tapped and inline mixed.
struct Disks {
    store: Store,
    names: Vec<String>,
    sources: Vec<Arc<Source>>,
    taps: Vec<Option<Tap>>,
}

impl Disks {
    fn new(seed: u64) -> Self {
        let store = store(BYTES);
        let mut random = Random(seed);
        let names: Vec<String> = (0..VOLUMES).map(|index| format!("v{index}")).collect();
        let sources: Vec<_> = names.iter().map(|_| Source::new(BYTES)).collect();
        let mut taps = Vec::new();
        for (name, source) in names.iter().zip(&sources) {
            store.add_volume(name, BYTES as u64).unwrap();
            let options = TapOptions { source: SourceState::Equal, ..TapOptions::default() };
            let tapped = random.below(2) == 0;
            taps.push(tapped.then(|| store.tap(name, source.clone(), options).unwrap()));
        }
        Self { store, names, sources, taps }
    }

    fn write(&self, volume: usize, place: usize, data: &[u8]) {
        match &self.taps[volume] {
            Some(tap) => {
                self.sources[volume].write(place * BLOCK, data);
                tap.capture((place * BLOCK) as u64, data).unwrap();
            }
            None => {
                let inline = self.store.volume(Some(&self.names[volume])).unwrap();
                inline.write((place * BLOCK) as u64, data).unwrap();
            }
        }
    }

    /// The versions that each volume shows of a place, at a bookmark that is exact.
    fn rows(&self, bookmark: &Bookmark) -> Vec<Vec<u64>> {
        let images: Vec<Vec<u8>> =
            self.names.iter().map(|name| image_at(&self.store, name, bookmark.seq)).collect();
        (0..THREADS * PLACES)
            .map(|place| images.iter().map(|image| version_of(image, place)).collect())
            .collect()
    }
}

/// Goal: whoever sets a bookmark (the schedule, the host, with production frozen, across stores), all volumes at it are one cut. Method: threads
/// that write a counter to the volumes of two stores in a random order that is the thread's own, each write only after the one before was
/// acknowledged, so at any cut the counters never rise along that order; the last store too, where the bookmark is in both.
#[test]
fn every_bookmark_is_one_cut_through_all_volumes() {
    for seed in [1, 2] {
        println!("seed {seed}");
        let disks = [Disks::new(seed), Disks::new(seed + 100)];
        let runners: Vec<_> = disks.iter().map(|disks| disks.store.start_runner().unwrap()).collect();
        let schedule = BookmarkSchedule::every(10_000_000, "schedule-");
        disks[0].store.set_bookmark_schedule(Some(schedule)).unwrap();
        // Of each thread: the volumes of both stores in its order.
        let mut random = Random(seed);
        let orders: Vec<Vec<usize>> = (0..THREADS)
            .map(|_| {
                let mut order: Vec<usize> = (0..2 * VOLUMES).collect();
                (1..order.len()).for_each(|at| order.swap(at, random.below(at + 1)));
                order
            })
            .collect();
        let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
        let production = Production::default();
        thread::scope(|scope| {
            for (thread, order) in orders.iter().enumerate() {
                let (disks, stop, written, production) = (&disks, &stop, &written, &production);
                scope.spawn(move || {
                    let mut version = 0;
                    while !stop.load(Ordering::Relaxed) {
                        version += 1;
                        let place = thread * PLACES + version as usize % PLACES;
                        let data = block(place, version);
                        for at in order {
                            disks[at / VOLUMES].write(at % VOLUMES, place, &data);
                        }
                        written.fetch_add(1, Ordering::Relaxed);
                        let pause = production.frozen.load(Ordering::SeqCst) || version % 16 == 0;
                        if pause {
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                });
            }
            let started = Instant::now();
            for round in 0.. {
                if started.elapsed() > Duration::from_millis(1000) {
                    break;
                }
                let new = NewBookmark::named(format!("b{round}"));
                let timeout = Duration::from_secs(60);
                let stores = [&disks[0].store, &disks[1].store];
                let outcome = match round % 4 {
                    0 => disks[0].store.add_bookmark(&new).map(drop),
                    1 => disks[0].store.add_bookmark_quiesced(&new, &production, timeout).map(drop),
                    2 => bookmark_across(&stores, &new, None).map(drop),
                    _ => bookmark_across(&stores, &new, Some((&production, timeout))).map(drop),
                };
                assert!(matches!(outcome, Ok(()) | Err(Error::NotPlaced(_))), "{outcome:?}");
                thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
        });
        production.assert_thawed(production.freezes.load(Ordering::SeqCst));
        let (mut alone, mut across, mut scheduled) = (0, 0, 0);
        for bookmark in disks[0].store.bookmarks() {
            let other = match &bookmark.across {
                Some(_) => Some(disks[1].store.bookmark(&bookmark.name).unwrap()),
                None => None,
            };
            let both = [Some(&bookmark), other.as_ref()];
            if both.iter().flatten().any(|bookmark| !bookmark.inexact_volumes.is_empty()) {
                continue;
            }
            scheduled += u64::from(bookmark.name.starts_with("schedule-"));
            *if other.is_some() { &mut across } else { &mut alone } += 1;
            let rows: Vec<Option<Vec<Vec<u64>>>> =
                both.iter().zip(&disks).map(|(set, disks)| set.map(|set| disks.rows(set))).collect();
            for place in 0..THREADS * PLACES {
                let order = orders[place / PLACES].iter();
                let shown: Vec<u64> = order
                    .filter_map(|at| rows[at / VOLUMES].as_ref().map(|rows| rows[place][at % VOLUMES]))
                    .collect();
                assert!(
                    shown.windows(2).all(|pair| pair[0] >= pair[1]),
                    "{}, place {place}: {shown:?}",
                    bookmark.name
                );
            }
        }
        assert!(written.load(Ordering::Relaxed) > 0);
        assert!(alone > 4 && scheduled > 2, "{alone} of one store, {scheduled} of them by schedule");
        assert!(across > 2, "{across} across stores");
        drop(runners);
    }
}
