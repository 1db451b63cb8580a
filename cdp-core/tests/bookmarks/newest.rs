//! The newest exact point of several volumes, and of several stores.

use crate::source::{BLOCK, Random, Source, store};
use cdp_core::{
    Budget, Coalescing, Error, NewBookmark, SourceState, Store, Tap, TapOptions, bookmark_across,
    newest_common_point,
    units::{Seq, TimeNs},
};

const BYTES: usize = 16 * BLOCK;
const NAMES: [&str; 3] = ["disk", "b", "c"];

fn heal(store: &Store, tap: &Tap) {
    tap.resume();
    for _ in 0..100_000 {
        if tap.is_whole() {
            return;
        }
        store.step(Budget::default()).unwrap();
    }
    panic!("the tap does not heal: {:?}", tap.stats());
}

/// The newest state that opens for all of these volumes, found by trying each.
fn newest_that_opens(store: &Store, names: &[&str]) -> Option<Seq> {
    let newest = store.newest().seq.get();
    (0..=newest).rev().map(Seq::new).find(|seq| {
        names.iter().all(|name| match store.volume(Some(name)).unwrap().snapshot(*seq) {
            Ok(_) => true,
            Err(Error::PointUnavailable(_)) => false,
            Err(error) => panic!("seq {seq} of {name}: {error}"),
        })
    })
}

/// Goal: for any volumes it is the newest state that opens for all of them. Method: random histories of writes, gaps, coalescing in every way,
/// bookmarks and late volumes, against trying every seq.
#[test]
fn the_newest_exact_point_is_the_newest_that_opens() {
    let mut behind = 0;
    for seed in 1..=24 {
        println!("seed {seed}");
        let mut random = Random(seed);
        let store = store(BYTES);
        store.add_volume("b", BYTES as u64).unwrap();
        let source = Source::new(BYTES);
        let tapped = TapOptions { source: SourceState::Equal, pool_frames: 4, ..TapOptions::default() };
        let tap = store.tap("b", source.clone(), tapped).unwrap();
        let mut time = 1_000_000;
        for step in 0..60_u8 {
            time += random.below(300) as u64;
            let at = TimeNs::new(time);
            let offset = random.below(16) * BLOCK;
            let data = vec![step + 1; BLOCK];
            match random.below(14) {
                0 => tap.suspend(),
                1 => heal(&store, &tap),
                2 => {
                    let modes = [Coalescing::PerWrite, Coalescing::IntervalNs(1000), Coalescing::PerBarrier];
                    store.set_coalescing(modes[random.below(3)]).unwrap();
                }
                3 => drop(store.add_bookmark(&NewBookmark::named(format!("b{step}"))).unwrap()),
                4 if step > 30 && store.volumes().len() == 2 => {
                    store.add_volume("c", BYTES as u64).unwrap();
                }
                5 => assert!(store.flush().is_ok()),
                6 | 7 => assert!(store.step(Budget::default()).is_ok()),
                8..=10 => {
                    source.write(offset, &data);
                    tap.capture_at(offset as u64, &data, at).unwrap();
                }
                _ => {
                    let time = at.max(store.newest().time);
                    let _ = store.volume(None).unwrap().write_at_time(offset as u64, &data, time);
                }
            }
            if step % 4 == 0 {
                store.flush().unwrap();
                let there = store.volumes().len();
                for names in [&NAMES[..1], &NAMES[1..2], &NAMES[..2], &NAMES[..there]] {
                    let found = store.newest_exact_point(names).unwrap();
                    let opens = newest_that_opens(&store, names);
                    assert_eq!(found.map(|point| point.seq), opens, "step {step}, {names:?}");
                    behind += u64::from(opens != Some(store.newest().seq));
                }
                let all = store.newest_exact_point(&[]).unwrap();
                assert_eq!(store.timeline().unwrap().newest_exact, all);
            }
        }
        assert!(matches!(store.newest_exact_point(&["no"]), Err(Error::NotFound { .. })));
        tap.detach().unwrap();
    }
    assert!(behind > 20, "the newest state opened nearly always: {behind}");
}

/// Goal: of several stores it is the newest bookmark that all have and that is exact in all. Method: bookmarks across all, across some, with
/// a gap in one store, and deleted in one.
#[test]
fn the_newest_common_point_is_in_all_stores_and_exact() {
    let stores = [store(BYTES), store(BYTES), store(BYTES)];
    let [a, b, c] = &stores;
    let all = [a, b, c];
    let write = || {
        for store in [a, c] {
            store.volume(None).unwrap().write(0, &[1; 512]).unwrap();
        }
    };
    let options = TapOptions { source: SourceState::Equal, pool_frames: 4, ..TapOptions::default() };
    let tap = b.tap("disk", Source::new(BYTES), options).unwrap();
    let name = |stores: &[&Store]| newest_common_point(stores).unwrap().map(|point| point.name);
    let set =
        |stores: &[&Store], name: &str| bookmark_across(stores, &NewBookmark::named(name), None).unwrap();
    assert!(matches!(newest_common_point(&[]), Err(Error::InvalidArgument(_))));
    a.add_bookmark(&NewBookmark::named("ordinary")).unwrap();
    assert_eq!(name(&all), None);
    write();
    let first = set(&all, "first");
    write();
    let second = set(&[c, a], "second");
    assert_eq!(name(&all).as_deref(), Some("first"));
    assert_eq!(name(&[a, c]).as_deref(), Some("second"));
    let common = newest_common_point(&[c, b]).unwrap().unwrap();
    assert_eq!((common.id, common.time), (first.id, first.time));
    let seq = |at: usize| first.members[at].bookmark().unwrap().seq;
    assert_eq!(common.seqs, [seq(2), seq(1)]);
    tap.suspend();
    set(&all, "in-a-gap");
    assert_eq!(name(&all).as_deref(), Some("first"));
    assert_eq!(name(&[a, c]).as_deref(), Some("in-a-gap"));
    heal(b, &tap);
    set(&all, "healed");
    assert_eq!(name(&all).as_deref(), Some("healed"));
    // The same name again is not the same bookmark.
    c.delete_bookmark("healed").unwrap();
    c.add_bookmark(&NewBookmark::named("healed")).unwrap();
    assert_eq!(name(&all).as_deref(), Some("first"));
    assert_eq!(name(&[a]).as_deref(), Some("healed"));
    assert!(second.is_complete());
    tap.detach().unwrap();
}
