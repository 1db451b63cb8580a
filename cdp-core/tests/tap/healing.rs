//! What the store cannot keep up with: gaps, resync, and that nothing wrong is ever taken for exact.

use crate::source::{
    BLOCK, Random, Source, block, image_at, newest, options, store, store_with, version_of, wait_whole,
};
use cdp_core::{
    Captured, Error, GapReason, NewBookmark, Point, SourceState, Store, TapOptions,
    event::EventKind,
    io::{MemoryStorage, Storage, ThrottledStorage},
    units::Seq,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

fn small_pool(source: SourceState) -> TapOptions {
    TapOptions { source, pool_frames: 4, ..TapOptions::default() }
}

/// Every exact point of a volume that one thread wrote, block by block, with rising versions, is a prefix of its writes.
pub fn check_exact_points(store: &Store, writes: &[usize], blocks: usize) -> usize {
    let timeline = store.timeline().unwrap();
    let mut random = Random(5);
    let mut checked = 0;
    for range in &timeline.exact {
        let (from, to) = (range.from.seq.get(), range.to.seq.get());
        let mut seqs = vec![from, to];
        seqs.extend((0..12).map(|_| from + random.below(usize::try_from(to - from + 1).unwrap()) as u64));
        for seq in seqs {
            let image = image_at(store, "disk", Seq::new(seq));
            let versions: Vec<u64> = (0..blocks).map(|index| version_of(&image, index)).collect();
            let count = usize::try_from(*versions.iter().max().unwrap()).unwrap();
            let mut expected = vec![0; blocks];
            for (write, block) in writes[..count].iter().enumerate() {
                expected[*block] = write as u64 + 1;
            }
            assert!(versions == expected, "seq {seq} is not the state after {count} writes");
            checked += 1;
        }
    }
    for gap in &timeline.gaps {
        let volume = store.volume(None).unwrap();
        for seq in [gap.from.seq, gap.to.seq] {
            let refused = volume.snapshot(seq);
            assert!(matches!(refused, Err(Error::PointUnavailable(_))), "seq {seq} of {gap:?}");
        }
        let refused = store.resolve(&Point::Time(gap.from.time)).and_then(|point| volume.snapshot(point.seq));
        assert!(refused.is_err() || gap.from.time == gap.to.time, "time of {gap:?}");
    }
    checked
}

/// Goal: under twice the rate that the store takes nothing waits, a gap is declared, the tap heals while the source is still written, the
/// newest state is the source byte for byte, and every point outside of the gaps is exact. Method: a throttled store, one writer at full
/// speed and then at a tenth, all exact ranges sampled.
#[test]
fn an_overload_becomes_a_gap_that_heals() {
    let blocks = 4096;
    let storage: Arc<dyn Storage> =
        Arc::new(ThrottledStorage::new(Arc::new(MemoryStorage::new()), 20_000_000));
    let store = store_with(storage, blocks * BLOCK);
    let _runner = store.start_runner().unwrap();
    let source = Source::new(blocks * BLOCK);
    let tap = store.tap("disk", source.clone(), small_pool(SourceState::Equal)).unwrap();
    let mut writes = Vec::new();
    let mut random = Random(3);
    let write = |writes: &mut Vec<usize>, random: &mut Random| {
        let index = random.below(blocks);
        writes.push(index);
        let data = block(index, writes.len() as u64);
        source.write(index * BLOCK, &data);
        tap.capture((index * BLOCK) as u64, &data).unwrap()
    };
    for _ in 0..500 {
        assert_eq!(write(&mut writes, &mut random), Captured::Whole);
    }
    let mut marked = 0;
    while marked < 10_000 {
        marked += usize::from(write(&mut writes, &mut random) == Captured::Marked);
    }
    let started = Instant::now();
    while !tap.is_whole() {
        assert!(started.elapsed() < Duration::from_secs(120), "the tap does not heal: {:?}", tap.stats());
        write(&mut writes, &mut random);
        std::thread::sleep(Duration::from_millis(2));
    }
    for _ in 0..200 {
        write(&mut writes, &mut random);
        std::thread::sleep(Duration::from_micros(300));
    }
    wait_whole(&tap);
    store.flush().unwrap();
    assert!(newest(&store, "disk") == source.image());
    let timeline = store.timeline().unwrap();
    assert!(!timeline.gaps.is_empty() && timeline.gaps.iter().all(|gap| gap.reason == "overload"));
    assert!(timeline.exact.len() >= 2);
    assert!(check_exact_points(&store, &writes, blocks) > 20);
    assert!(store.bookmarks().iter().any(|bookmark| bookmark.name.starts_with("gap-end.disk.")));
    let (events, _) = store.take_events();
    assert!(events.iter().any(|event| matches!(event.kind, EventKind::GapOpened { .. })));
    assert!(events.iter().any(|event| matches!(event.kind, EventKind::GapClosed { .. })));
    tap.detach().unwrap();
    store.close().unwrap();
}

/// Goal: a source that the store does not know is copied while it is written, and its first exact point is the end of that copy. Method:
/// a source with content and a thread that goes on writing.
#[test]
fn a_source_with_content_is_copied_while_it_is_written() {
    let blocks = 2048;
    let store = store(blocks * BLOCK);
    let _runner = store.start_runner().unwrap();
    let source = Source::new(blocks * BLOCK);
    let mut version = 0;
    for index in (0..blocks).step_by(3) {
        version += 1;
        source.write(index * BLOCK, &block(index, version));
    }
    let tap = store.tap("disk", source.clone(), small_pool(SourceState::AsRecorded)).unwrap();
    assert!(!tap.is_whole());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(9);
            while !stop.load(Ordering::Relaxed) {
                version += 1;
                let index = random.below(blocks);
                let data = block(index, version);
                source.write(index * BLOCK, &data);
                tap.capture((index * BLOCK) as u64, &data).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        wait_whole(&tap);
        stop.store(true, Ordering::Relaxed);
    });
    wait_whole(&tap);
    store.flush().unwrap();
    assert!(newest(&store, "disk") == source.image());
    let gaps = store.timeline().unwrap().gaps;
    assert_eq!(gaps[0].reason, GapReason::Initial.to_string());
    assert_eq!(gaps[0].from.seq, Seq::new(1));
}

/// Goal: a first copy stores what there is and nothing else. Method: a source with every third block, which nobody writes meanwhile.
#[test]
fn zeroes_of_a_source_are_not_stored() {
    let blocks = 1000;
    let store = store(blocks * BLOCK);
    let source = Source::new(blocks * BLOCK);
    let written: Vec<usize> = (0..blocks).step_by(3).collect();
    written.iter().for_each(|index| source.write(index * BLOCK, &block(*index, 7)));
    let tap = store.tap("disk", source.clone(), small_pool(SourceState::Unknown)).unwrap();
    while !tap.is_whole() {
        store.step(Default::default()).unwrap();
    }
    assert!(newest(&store, "disk") == source.image());
    let counts = tap.stats().resync;
    assert_eq!(counts.bytes_different, (written.len() * BLOCK) as u64);
    assert_eq!(counts.source_bytes_read, (blocks * BLOCK) as u64);
    assert_eq!(store.stats().unwrap().versions, written.len() as u64);
}

/// Goal: bookmarks say which volumes are not exact, and one that must be exact is refused. Method: one tap suspended beside one that works.
#[test]
fn a_bookmark_names_the_volumes_in_a_gap() {
    let store = store(1 << 20);
    store.add_volume("b", 1 << 20).unwrap();
    let (a, b) = (Source::new(1 << 20), Source::new(1 << 20));
    let tap_a = store.tap("disk", a.clone(), small_pool(SourceState::Equal)).unwrap();
    let tap_b = store.tap("b", b.clone(), small_pool(SourceState::Equal)).unwrap();
    tap_a.capture(0, &[1; 4096]).unwrap();
    b.write(0, &[2; 4096]);
    tap_b.suspend();
    assert_eq!(tap_b.capture(0, &[2; 4096]).unwrap(), Captured::Marked);
    let bookmark = store.add_bookmark(&NewBookmark::named("partly")).unwrap();
    assert_eq!(bookmark.inexact_volumes, ["b"]);
    let strict = NewBookmark { require_exact: true, ..NewBookmark::named("strict") };
    assert!(matches!(store.add_bookmark(&strict), Err(Error::PointUnavailable(_))));
    assert_eq!(image_at(&store, "disk", bookmark.seq)[..4096], [1; 4096]);
    let volume = store.volume(Some("b")).unwrap();
    let Err(Error::PointUnavailable(refused)) = volume.snapshot(bookmark.seq) else { panic!("exact") };
    assert!(refused.reason.contains("host"), "{refused}");
    assert_eq!((refused.before.unwrap().seq, refused.after), (Seq::new(1), None));
    volume.snapshot_fuzzy(bookmark.seq).unwrap();
    tap_b.resume();
    while !tap_b.is_whole() {
        store.step(Default::default()).unwrap();
    }
    assert!(newest(&store, "b") == b.image());
    assert!(store.add_bookmark(&strict).unwrap().inexact_volumes.is_empty());
}

/// Goal: after an unclean end the volume is known to be uncertain, and the gap closes when it was compared. Method: drop the store with
/// captured writes that never became durable, open it again, with a source that says it is equal.
#[test]
fn after_a_crash_the_source_is_compared() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let source = Source::new(1 << 20);
    {
        let store = store_with(storage.clone(), 1 << 20);
        let tap = store.tap("disk", source.clone(), small_pool(SourceState::Equal)).unwrap();
        for version in 1..=20 {
            source.write(7 * BLOCK, &block(7, version));
            tap.capture((7 * BLOCK) as u64, &block(7, version)).unwrap();
            if version == 10 {
                store.flush().unwrap();
            }
        }
    }
    let store = Store::open(storage.clone(), options()).unwrap();
    assert_eq!(store.newest().seq, Seq::new(10));
    let tap = store.tap("disk", source.clone(), small_pool(SourceState::Equal)).unwrap();
    assert!(!tap.is_whole());
    while !tap.is_whole() {
        store.step(Default::default()).unwrap();
    }
    assert!(newest(&store, "disk") == source.image());
    assert_eq!(store.timeline().unwrap().gaps[0].reason, "unclean");
    assert_eq!(version_of(&image_at(&store, "disk", Seq::new(10)), 7), 10);
    assert_eq!(tap.stats().resync.bytes_different, BLOCK as u64, "only what differs is taken over");
    tap.detach().unwrap();
    store.close().unwrap();
    // A clean end is believed.
    let store = Store::open(storage, options()).unwrap();
    let tap = store.tap("disk", source, small_pool(SourceState::AsRecorded)).unwrap();
    assert!(tap.is_whole());
}
