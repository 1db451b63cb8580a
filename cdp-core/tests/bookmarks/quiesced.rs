//! Bookmarks while production is frozen: thawed whatever happens, and placed inside the freeze or not at all.

use crate::{
    production::Production,
    source::{BLOCK, Source, block, image_at, options, store, store_with, version_of},
};
use cdp_core::{
    Bookmark, BookmarkKind, CreateOptions, Error, NewBookmark, Point, Quiesce, Result, SourceState, Store,
    TapOptions, io::Storage, testing::hooked::HookedStorage, units::Seq,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

const BYTES: usize = 64 * BLOCK;
const LONG: Duration = Duration::from_secs(600);

/// Does something when it is frozen.
struct Hooked<'a, F: Fn()>(&'a Production, F);

impl<F: Fn()> Quiesce for Hooked<'_, F> {
    fn freeze(&self) -> Result<()> {
        self.1();
        self.0.freeze()
    }
    fn thaw(&self) {
        self.0.thaw();
    }
}

fn app(name: &str) -> NewBookmark {
    NewBookmark {
        kind: BookmarkKind::Application,
        app: Some("postgresql".into()),
        ..NewBookmark::named(name)
    }
}

/// Goal: what production wrote until it was frozen is in the bookmark and what it wrote afterwards is not. Method: a writer that stops while
/// it is frozen and knows how far it was; tapped and inline, many times.
#[test]
fn the_bookmark_names_the_state_that_production_was_frozen_in() {
    struct Writer {
        allowed: AtomicBool,
        resting: AtomicBool,
        written: AtomicU64,
        frozen_at: AtomicU64,
    }
    impl Quiesce for &Writer {
        fn freeze(&self) -> Result<()> {
            self.allowed.store(false, Ordering::SeqCst);
            while !self.resting.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            self.frozen_at.store(self.written.load(Ordering::SeqCst), Ordering::SeqCst);
            Ok(())
        }
        fn thaw(&self) {
            self.allowed.store(true, Ordering::SeqCst);
        }
    }
    for tapped in [false, true] {
        let store = store(BYTES);
        let volume = store.volume(None).unwrap();
        let source = Source::new(BYTES);
        let tap = TapOptions { source: SourceState::Equal, pool_frames: 16, ..TapOptions::default() };
        let tap = tapped.then(|| store.tap("disk", source.clone(), tap).unwrap());
        let _runner = store.start_runner().unwrap();
        let writer = Writer {
            allowed: AtomicBool::new(true),
            resting: AtomicBool::new(false),
            written: AtomicU64::new(0),
            frozen_at: AtomicU64::new(0),
        };
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    if !writer.allowed.load(Ordering::SeqCst) {
                        writer.resting.store(true, Ordering::SeqCst);
                        thread::yield_now();
                        continue;
                    }
                    writer.resting.store(false, Ordering::SeqCst);
                    let version = writer.written.load(Ordering::SeqCst) + 1;
                    let data = block(0, version);
                    match &tap {
                        Some(tap) => {
                            source.write(0, &data);
                            tap.capture(0, &data).unwrap();
                        }
                        None => assert!(volume.write(0, &data).is_ok()),
                    }
                    writer.written.store(version, Ordering::SeqCst);
                }
            });
            for round in 0..40 {
                let name = format!("round{round}");
                let set = store.add_bookmark_quiesced(&app(&name), &&writer, LONG).unwrap();
                assert!(store.durable_seq() >= set.seq);
                let frozen_at = writer.frozen_at.load(Ordering::SeqCst);
                if set.inexact_volumes.is_empty() {
                    let image = image_at(&store, "disk", set.seq);
                    assert_eq!(version_of(&image, 0), frozen_at, "{name}, tapped: {tapped}");
                } else {
                    assert!(tapped, "inline volumes are always exact");
                }
            }
            over.store(true, Ordering::SeqCst);
        });
    }
}

/// Goal: a store that does not answer cannot hold production, and a bookmark that came too late is not there, also not later. Method: the
/// storage is shut when the journal needs it for its next frame; production asks to be let go at once.
#[test]
fn a_store_that_hangs_does_not_hold_production() {
    let (storage, valve) = HookedStorage::with_valve();
    let store = store_with(storage.clone(), 4096 * BLOCK);
    let volume = store.volume(None).unwrap();
    let production = Production::default();
    let before = store.bookmarks();
    let (shut, stuck) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !shut.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            // Somebody is in the middle of an append, with the turn, and waits for the storage.
            let data = vec![7; 8 << 20];
            (0..16).for_each(|_| assert!(volume.write(0, &data).is_ok()));
        });
        let call = scope.spawn(|| {
            let hook = || {
                valve.set(true);
                shut.store(true, Ordering::SeqCst);
                while valve.waiting() == 0 {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(20));
                stuck.store(true, Ordering::SeqCst);
            };
            let quiesce = Hooked(&production, hook);
            store.add_bookmark_quiesced(&app("late"), &quiesce, Duration::from_millis(50))
        });
        while production.thaws.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        // Production goes on while the storage still hangs.
        assert!(stuck.load(Ordering::SeqCst) && valve.waiting() > 0);
        valve.set(false);
        let outcome = call.join().unwrap();
        assert!(matches!(outcome, Err(Error::NotPlaced(_))), "{outcome:?}");
    });
    production.assert_thawed(1);
    assert_eq!(store.bookmarks(), before);
    drop((volume, store));
    let store = Store::open(storage, options()).unwrap();
    assert_eq!(store.bookmarks(), before);
}

/// Goal: a bookmark that has its place while production is frozen is durable when the call returns, and production does not wait for that.
/// Method: the storage is shut from the freeze on; production is thawed while the sync of the bookmark hangs.
#[test]
fn production_does_not_wait_for_the_sync() {
    let (storage, valve) = HookedStorage::with_valve();
    let store = store_with(storage.clone(), BYTES);
    store.volume(None).unwrap().write(0, &block(0, 1)).unwrap();
    let production = Production::default();
    let set: Bookmark = thread::scope(|scope| {
        let call = scope.spawn(|| {
            let quiesce = Hooked(&production, || valve.set(true));
            store.add_bookmark_quiesced(&app("slow"), &quiesce, LONG).unwrap()
        });
        while production.thaws.load(Ordering::SeqCst) == 0 || valve.waiting() == 0 {
            thread::yield_now();
        }
        assert!(!call.is_finished(), "it is not durable yet");
        valve.set(false);
        call.join().unwrap()
    });
    production.assert_thawed(1);
    drop(store);
    let store = Store::open(storage, options()).unwrap();
    assert_eq!(store.bookmark("slow").unwrap(), set);
    assert_eq!(set.seq, Seq::new(1));
}

/// Goal: whatever is wrong, production is thawed, nothing is recorded, and it is told. Method: each of them.
#[test]
fn what_fails_leaves_nothing_behind_and_thaws() {
    let store = store(BYTES);
    store.volume(None).unwrap().write(0, &block(0, 1)).unwrap();
    store.add_bookmark(&app("there")).unwrap();
    let production = Production::default();
    let add = |new: &NewBookmark| store.add_bookmark_quiesced(new, &production, LONG);

    assert!(matches!(add(&app("there")), Err(Error::Exists { .. })));
    assert!(matches!(add(&app("a/b")), Err(Error::InvalidArgument(_))));
    let old = NewBookmark { at: Some(Point::Seq(Seq::ZERO)), ..app("old") };
    assert!(matches!(add(&old), Err(Error::InvalidArgument(_))));
    // Nothing of this was worth a freeze.
    production.assert_thawed(0);

    production.refuses.store(true, Ordering::SeqCst);
    let refused = add(&app("x"));
    assert!(matches!(&refused, Err(Error::InvalidArgument(text)) if text.contains("busy")), "{refused:?}");
    production.assert_thawed(1);
    production.panics.store(true, Ordering::SeqCst);
    assert!(catch_unwind(AssertUnwindSafe(|| add(&app("x")))).is_err());
    production.assert_thawed(2);
    production.panics.store(false, Ordering::SeqCst);
    production.refuses.store(false, Ordering::SeqCst);
    assert_eq!(store.bookmarks().len(), 1);
    add(&app("x")).unwrap();
    production.assert_thawed(3);
}

/// Goal: a freeze in which nothing fits into the time leaves no bookmark. Method: no time at all, many times; each one is there or refused.
#[test]
fn with_no_time_it_is_placed_or_refused() {
    let store = store(BYTES);
    let production = Production::default();
    let mut placed = 0;
    for round in 0..200 {
        store.volume(None).unwrap().write(0, &block(0, round + 1)).unwrap();
        let name = format!("n{round}");
        match store.add_bookmark_quiesced(&app(&name), &production, Duration::ZERO) {
            Ok(set) => {
                assert_eq!(store.bookmark(&name).unwrap(), set);
                placed += 1;
            }
            Err(Error::NotPlaced(_)) => assert!(store.bookmark(&name).is_err()),
            Err(error) => panic!("{error}"),
        }
    }
    production.assert_thawed(200);
    assert_eq!(store.bookmarks().len(), placed);
}

/// Goal: faults of the storage at any moment end with production thawed, and what was reported as set is there after a crash. Method: the
/// simulated disk fails or stops at each of its calls in turn.
#[test]
fn faults_at_every_call_thaw_production() {
    use cdp_core::io::simulated::{Call, CrashPolicy, Fault, SimulatedStorage};
    let run = |disk: &SimulatedStorage, production: &Production| -> Option<Bookmark> {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let create = CreateOptions { volume: "disk".into(), bytes: BYTES as u64 };
        let Ok(store) = Store::create(storage, &create, options()) else { return None };
        let volume = store.volume(None).unwrap();
        let mut set = None;
        for version in 1..4 {
            let _ = volume.write(0, &block(0, version));
            if let Ok(bookmark) = store.add_bookmark_quiesced(&app(&format!("b{version}")), production, LONG)
            {
                set = Some(bookmark);
            }
        }
        set
    };
    let whole = SimulatedStorage::new(1);
    let production = Production::default();
    assert!(run(&whole, &production).is_some());
    production.assert_thawed(3);
    let mut told = 0;
    for call in 1..=whole.calls() {
        for fault in [None, Some(Call::Sync), Some(Call::Write)] {
            let disk = SimulatedStorage::new(call);
            match fault {
                None => disk.stop_at_call(call),
                Some(kind) => disk.inject(Fault::io_error(kind).after(call).forever()),
            }
            let production = Production::default();
            let set = run(&disk, &production);
            production.assert_thawed(production.freezes.load(Ordering::SeqCst));
            let Some(set) = set else { continue };
            told += 1;
            let crashed = disk.crash(call, CrashPolicy::LoseUnsynced);
            crashed.clear_faults();
            let store = Store::open(Arc::new(crashed), options()).unwrap();
            assert_eq!(store.bookmark(&set.name).unwrap(), set, "call {call}");
        }
    }
    assert!(told > 0);
}
