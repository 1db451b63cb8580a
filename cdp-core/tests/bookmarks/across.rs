//! Bookmarks across stores: one cut, no deadlock, and never more claimed than is there.

use crate::{
    production::Production,
    source::{BLOCK, Source, block, image_at, options, store, version_of},
};
use cdp_core::{
    CreateOptions, Error, NewBookmark, Point, SourceState, Store, Tap, TapOptions,
    bookmark::{Across, AcrossState},
    bookmark_across, confirm_across,
    io::{MemoryStorage, Storage},
    store::MemberOutcome,
    testing::hooked::HookedStorage,
    units::Seq,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const BYTES: usize = 64 * BLOCK;
const LONG: Duration = Duration::from_secs(600);

fn across_of(store: &Store, name: &str) -> Option<Across> {
    store.bookmark(name).ok().and_then(|bookmark| bookmark.across)
}

/// Goal: a bookmark is one cut through all stores, whichever way writes come. Method: threads that write a counter to one store after the
/// other, each only after the store before has it, so at any cut the counters never rise along the row; bookmarks all the time, from two
/// threads that name the stores in opposite order.
#[test]
fn a_bookmark_is_one_cut_through_all_stores() {
    for tapped in [[false; 4], [true; 4], [true, false, true, false]] {
        let stores: Vec<Store> = (0..4).map(|_| store(BYTES)).collect();
        let runners: Vec<_> = stores.iter().map(|store| store.start_runner().unwrap()).collect();
        let sources: Vec<_> = stores.iter().map(|_| Source::new(BYTES)).collect();
        let tap = |at: usize| {
            let options = TapOptions { source: SourceState::Equal, ..TapOptions::default() };
            tapped[at].then(|| stores[at].tap("disk", sources[at].clone(), options).unwrap())
        };
        let taps: Vec<Option<Tap>> = (0..4).map(tap).collect();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..3_usize {
                let (stores, sources, taps, stop) = (&stores, &sources, &taps, &stop);
                scope.spawn(move || {
                    let mut counter = 0;
                    while !stop.load(Ordering::Relaxed) {
                        counter += 1;
                        let place = writer * 16 + counter as usize % 16;
                        let data = block(place, counter);
                        for at in 0..stores.len() {
                            let offset = (place * BLOCK) as u64;
                            match &taps[at] {
                                Some(tap) => {
                                    sources[at].write(place * BLOCK, &data);
                                    tap.capture(offset, &data).unwrap();
                                }
                                None => {
                                    stores[at].volume(None).unwrap().write(offset, &data).unwrap();
                                }
                            }
                        }
                        if counter % 8 == 0 {
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                });
            }
            let setters: Vec<_> = (0..2)
                .map(|setter| {
                    let stores = &stores;
                    scope.spawn(move || {
                        let mut named: Vec<&Store> = stores.iter().collect();
                        if setter == 1 {
                            named.reverse();
                        }
                        let started = Instant::now();
                        let (mut round, mut exact) = (0, 0);
                        // On a busy machine taps are in gaps for long.
                        let lasts = |exact| Duration::from_millis(if exact < 5 { 20_000 } else { 600 });
                        while started.elapsed() < lasts(exact) {
                            let new = NewBookmark::named(format!("s{setter}.{round}"));
                            match bookmark_across(&named, &new, None) {
                                Ok(outcome) => {
                                    assert!(outcome.is_complete(), "{outcome:?}");
                                    let is_exact = |store: &&Store| {
                                        store.bookmark(&new.name).unwrap().inexact_volumes.is_empty()
                                    };
                                    exact += usize::from(named.iter().all(is_exact));
                                }
                                Err(error) => assert!(matches!(error, Error::NotPlaced(_)), "{error}"),
                            }
                            round += 1;
                            thread::sleep(Duration::from_millis(10));
                        }
                    })
                })
                .collect();
            setters.into_iter().for_each(|setter| setter.join().unwrap());
            stop.store(true, Ordering::Relaxed);
        });
        let mut compared = 0;
        for bookmark in stores[0].bookmarks() {
            // Besides them there are those that end gaps.
            let Some(across) = &bookmark.across else { continue };
            let set: Vec<_> = stores.iter().map(|store| store.bookmark(&bookmark.name).unwrap()).collect();
            assert!(set.iter().all(|other| other.across.as_ref() == Some(across)));
            assert!(set.iter().all(|other| other.time == bookmark.time));
            assert_eq!(across.state, AcrossState::Complete);
            if set.iter().any(|other| !other.inexact_volumes.is_empty()) {
                continue;
            }
            compared += 1;
            let images: Vec<Vec<u8>> =
                stores.iter().zip(&set).map(|(store, other)| image_at(store, "disk", other.seq)).collect();
            for place in 0..3 * 16 {
                let row: Vec<u64> = images.iter().map(|image| version_of(image, place)).collect();
                assert!(row.windows(2).all(|pair| pair[0] >= pair[1]), "{}: {row:?}", bookmark.name);
            }
        }
        assert!(compared >= 5, "{compared} bookmarks are exact, tapped: {tapped:?}");
        drop(runners);
    }
}

/// Goal: production is frozen over all stores at once and thawed whatever happens. Method: with time, without, and when nothing can work.
#[test]
fn production_is_frozen_over_all_stores() {
    let stores = [store(BYTES), store(BYTES), store(BYTES)];
    let named: Vec<&Store> = stores.iter().collect();
    let production = Production::default();
    let set = bookmark_across(&named, &NewBookmark::named("a"), Some((&production, LONG))).unwrap();
    assert!(set.is_complete());
    production.assert_thawed(1);
    let mut placed = 0;
    for round in 0..50 {
        let new = NewBookmark::named(format!("r{round}"));
        match bookmark_across(&named, &new, Some((&production, Duration::ZERO))) {
            Ok(outcome) => {
                assert!(outcome.is_complete());
                placed += 1;
            }
            Err(error) => {
                assert!(matches!(error, Error::NotPlaced(_)), "{error}");
                assert!(stores.iter().all(|store| store.bookmark(&new.name).is_err()));
            }
        }
    }
    production.assert_thawed(51);
    assert_eq!(stores[2].bookmarks().len(), 1 + placed);
    production.refuses.store(true, Ordering::SeqCst);
    assert!(bookmark_across(&named, &NewBookmark::named("b"), Some((&production, LONG))).is_err());
    production.assert_thawed(52);
    assert!(stores.iter().all(|store| store.bookmark("b").is_err()));
}

/// Goal: what cannot be asked for is refused, and nothing is recorded. Method: each of it.
#[test]
fn what_cannot_be_one_bookmark_is_refused() {
    let (a, b) = (store(BYTES), store(BYTES));
    let again = a.clone();
    let invalid = |stores: &[&Store], new: &NewBookmark| {
        let outcome = bookmark_across(stores, new, None);
        assert!(matches!(outcome, Err(Error::InvalidArgument(_))), "{outcome:?}");
    };
    let new = NewBookmark::named("n");
    invalid(&[], &new);
    invalid(&[&a, &b, &again], &new);
    invalid(&[&a, &b], &NewBookmark::named("a b"));
    invalid(&[&a, &b], &NewBookmark { at: Some(Point::Seq(Seq::ZERO)), ..new.clone() });
    b.add_bookmark(&NewBookmark::named("taken")).unwrap();
    let outcome = bookmark_across(&[&a, &b], &NewBookmark::named("taken"), None);
    assert!(matches!(outcome, Err(Error::Exists { .. })), "{outcome:?}");
    let tap = b.tap("disk", Source::new(BYTES), TapOptions::default()).unwrap();
    let strict = NewBookmark { require_exact: true, ..new.clone() };
    let outcome = bookmark_across(&[&a, &b], &strict, None);
    assert!(matches!(outcome, Err(Error::PointUnavailable(_))), "{outcome:?}");
    assert!(a.bookmarks().is_empty() && b.bookmarks().len() == 1);
    // At the limit of stores, and one past it.
    let many: Vec<Store> = (0..=cdp_core::limits::ACROSS_STORES_MAX).map(|_| store(512)).collect();
    let named: Vec<&Store> = many.iter().collect();
    invalid(&named, &new);
    assert!(bookmark_across(&named[1..], &new, None).unwrap().is_complete());
    let inexact = bookmark_across(&[&b, &a], &new, None).unwrap();
    let inexact = inexact.members[0].bookmark().unwrap().inexact_volumes.clone();
    assert_eq!(inexact, ["disk"]);
    tap.detach().unwrap();
}

/// Goal: one without the others is shown for what it is, and a name that is used again does not inherit anything. Method: delete one member
/// and set an ordinary bookmark in its place; both survive reopening.
#[test]
fn a_member_may_go_and_its_name_be_used_again() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (a, b) = (crate::source::store_with(storage.clone(), BYTES), store(BYTES));
    let set = bookmark_across(&[&a, &b], &NewBookmark::named("n"), None).unwrap();
    a.delete_bookmark("n").unwrap();
    a.add_bookmark(&NewBookmark::named("n")).unwrap();
    assert!(matches!(confirm_across(&[&a], "n", set.id), Err(Error::NotFound { .. })));
    assert_eq!(confirm_across(&[&a, &b], "n", set.id).unwrap(), AcrossState::Complete);
    drop(a);
    let a = Store::open(storage, options()).unwrap();
    assert_eq!(across_of(&a, "n"), None);
    assert_eq!(across_of(&b, "n").unwrap().id, set.id);
}

/// Goal: a store that fails is left out, the others have the bookmark and say who lacks it, also after reopening; the failing store never
/// claims that it is complete. Method: one of three stores cannot write any more.
#[test]
fn a_store_that_fails_is_named_by_the_others() {
    let failing = Arc::new(AtomicBool::new(false));
    let storages: Vec<Arc<dyn Storage>> = (0..3)
        .map(|at| {
            let failing = failing.clone();
            HookedStorage::over(Arc::new(MemoryStorage::new()), move |held| {
                let fails = at == 1 && held && failing.load(Ordering::SeqCst);
                if fails { Err(io::Error::other("no more")) } else { Ok(()) }
            })
        })
        .collect();
    let stores: Vec<Store> =
        storages.iter().map(|storage| crate::source::store_with(storage.clone(), BYTES)).collect();
    for store in &stores {
        store.volume(None).unwrap().write(0, &block(0, 1)).unwrap();
    }
    failing.store(true, Ordering::SeqCst);
    let named: Vec<&Store> = stores.iter().collect();
    let production = Production::default();
    let set = bookmark_across(&named, &NewBookmark::named("n"), Some((&production, LONG))).unwrap();
    production.assert_thawed(1);
    assert!(!set.is_complete());
    assert!(matches!(set.members[1], MemberOutcome::Failed(_)), "{set:?}");
    let partial = AcrossState::Partial { missing: vec![stores[1].id()] };
    for at in [0, 2] {
        assert!(matches!(&set.members[at], MemberOutcome::Confirmed(_)), "{set:?}");
        assert_eq!(across_of(&stores[at], "n").unwrap().state, partial);
    }
    drop(stores);
    failing.store(false, Ordering::SeqCst);
    let stores: Vec<Store> =
        storages.iter().map(|storage| Store::open(storage.clone(), options()).unwrap()).collect();
    assert_eq!(across_of(&stores[0], "n").unwrap().state, partial);
    assert_eq!(across_of(&stores[2], "n").unwrap().state, partial);
    assert_ne!(across_of(&stores[1], "n").map(|across| across.state), Some(AcrossState::Complete));
    // All of them failing is an error.
    failing.store(true, Ordering::SeqCst);
    let outcome = bookmark_across(&[&stores[1]], &NewBookmark::named("m"), None);
    assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
}

/// Goal: at every crash, what a store claims of the others is true, what it has is one cut, and what was unconfirmed can be confirmed by
/// those who know. Method: two stores on simulated disks that stop at the same call, for each call of either disk in turn, and lose or keep
/// what was not synced.
#[test]
fn at_every_crash_nobody_claims_more_than_is_there() {
    use cdp_core::io::simulated::{CrashPolicy, SimulatedStorage};
    /// Writes and bookmarks on two disks that stop together at a call; returns the disks, the calls and the bookmarks that were
    /// reported complete.
    fn run(stop_at: u64) -> ([SimulatedStorage; 2], u64, Vec<String>) {
        let disks = [SimulatedStorage::new(stop_at), SimulatedStorage::new(!stop_at)];
        let calls = Arc::new(AtomicU64::new(0));
        let stores: Vec<_> = disks
            .iter()
            .map(|disk| {
                let (calls, inner) = (calls.clone(), disk.clone());
                HookedStorage::over(Arc::new(disk.clone()), move |_| {
                    match calls.fetch_add(1, Ordering::SeqCst) + 1 {
                        call if call < stop_at => {}
                        call if call == stop_at => inner.stop_at_call(inner.calls() + 1),
                        _ => return Err(io::Error::other("the machine has stopped")),
                    }
                    Ok(())
                })
            })
            .map(|storage| {
                let create = CreateOptions { volume: "disk".into(), bytes: BYTES as u64 };
                Store::create(storage, &create, options())
            })
            .collect();
        let mut complete = Vec::new();
        if let [Ok(a), Ok(b)] = &stores[..] {
            for version in 1..=3 {
                // Each write of b comes after that of a was acknowledged.
                let data = block(0, version);
                let wrote = |store: &Store| store.volume(None).unwrap().write(0, &data).is_ok();
                if !(wrote(a) && wrote(b)) {
                    break;
                }
                let name = format!("n{version}");
                if let Ok(set) = bookmark_across(&[b, a], &NewBookmark::named(&name), None)
                    && set.members.iter().all(|member| matches!(member, MemberOutcome::Confirmed(_)))
                    && set.is_complete()
                {
                    complete.push(name);
                }
            }
        }
        drop(stores);
        (disks, calls.load(Ordering::SeqCst), complete)
    }
    let (_, calls, complete) = run(u64::MAX);
    assert_eq!(complete.len(), 3);
    let (mut alone, mut unconfirmed, mut half) = (0, 0, 0);
    for stop_at in 1..=calls + 1 {
        let (disks, _, complete) = run(stop_at);
        for seed in 0..6 {
            let crashed: Vec<SimulatedStorage> = disks
                .iter()
                .zip([0, 1])
                .map(|(disk, which)| match (seed, which) {
                    (0, _) | (1, 0) | (2, 1) => disk.crash(seed, CrashPolicy::LoseUnsynced),
                    (1 | 2, _) => disk.crash(seed, CrashPolicy::KeepUnsynced),
                    _ => disk.crash(stop_at * 64 + seed * 2 + which, CrashPolicy::Random),
                })
                .collect();
            let open = |disk: &SimulatedStorage| Store::open(Arc::new(disk.clone()), options());
            let (Ok(a), Ok(b)) = (open(&crashed[0]), open(&crashed[1])) else {
                assert!(complete.is_empty(), "call {stop_at}, seed {seed}");
                continue;
            };
            for version in 1..=3_u64 {
                let name = format!("n{version}");
                let what = format!("{name}, call {stop_at}, seed {seed}");
                let shown = [across_of(&a, &name), across_of(&b, &name)];
                for (store, across) in [&a, &b].into_iter().zip(&shown) {
                    let Some(across) = across else {
                        assert!(store.bookmark(&name).is_err(), "{what}: never without its record");
                        continue;
                    };
                    let seq = store.bookmark(&name).unwrap().seq;
                    assert_eq!(version_of(&image_at(store, "disk", seq), 0), version, "{what}: the cut");
                    let complete = across.state == AcrossState::Complete;
                    assert!(!complete || shown.iter().all(Option::is_some), "{what}: {shown:?}");
                }
                let states = shown.iter().map(|across| across.as_ref().map(|across| across.state.clone()));
                let states: Vec<Option<AcrossState>> = states.collect();
                if complete.contains(&name) {
                    assert_eq!(states, [const { Some(AcrossState::Complete) }; 2], "{what}");
                }
                alone += u64::from(shown.iter().any(Option::is_none) && shown.iter().any(Option::is_some));
                unconfirmed += u64::from(states == [const { Some(AcrossState::Unconfirmed) }; 2]);
                half += u64::from(
                    states.contains(&Some(AcrossState::Complete))
                        && states.contains(&Some(AcrossState::Unconfirmed)),
                );
                let Some(id) = shown.iter().flatten().map(|across| across.id).next() else { continue };
                let all = shown.iter().all(Option::is_some);
                let confirmed = confirm_across(&[&a, &b], &name, id).unwrap();
                assert!((confirmed == AcrossState::Complete) == all, "{what}: {states:?}, {confirmed:?}");
                if all {
                    assert_eq!(across_of(&a, &name).unwrap().state, AcrossState::Complete, "{what}");
                    assert_eq!(across_of(&b, &name).unwrap().state, AcrossState::Complete, "{what}");
                }
            }
        }
    }
    assert!(
        alone > 0 && unconfirmed > 0 && half > 0,
        "{alone} alone, {unconfirmed} unconfirmed, {half} half"
    );
}
