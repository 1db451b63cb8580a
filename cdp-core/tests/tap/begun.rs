//! Writes that are begun before they are submitted: overlaps in flight, and the activity log.

use crate::source::{BLOCK, Random, Source, block, image_at, newest, options, store, store_with, wait_whole};
use cdp_core::{
    ActivityLog, Captured, Error, GapReason, SourceReader, SourceState, Store, TapOptions, Written,
    dirty_map::ByteRange,
    event::EventKind,
    io::{MemoryStorage, Storage},
    units::Seq,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

fn equal() -> TapOptions {
    TapOptions { source: SourceState::Equal, pool_frames: 8, ..TapOptions::default() }
}

fn with_log(source: SourceState, regions_active_max: usize) -> TapOptions {
    let log = ActivityLog { regions_active_max, region_bytes: 64 << 10 };
    TapOptions { source, pool_frames: 8, activity_log: Some(log), ..TapOptions::default() }
}

/// Goal: writes that overlap in flight become a gap and are read from the source; those that do not stay points. Method: pairs that touch,
/// overlap and follow each other, ended in both orders; the order on the source is not that of the ends.
#[test]
fn what_overlaps_in_flight_is_read_again() {
    let bytes = 64 * BLOCK;
    let (store, source) = (store(bytes), Source::new(bytes));
    let tap = store.tap("disk", source.clone(), equal()).unwrap();
    let (a, b) = (tap.capture_begin(0, 4096).unwrap(), tap.capture_begin(4096, 4096).unwrap());
    source.write(0, &[1; 8192]);
    assert_eq!(tap.capture_end(b, &[1; 4096]).unwrap(), Captured::Whole);
    assert_eq!(tap.capture_end(a, &[1; 4096]).unwrap(), Captured::Whole);
    store.flush().unwrap();
    assert!(tap.is_whole(), "neighbours do not overlap");
    for swapped in [false, true] {
        let (a, b) = (tap.capture_begin(0, 8192).unwrap(), tap.capture_begin(4096, 8192).unwrap());
        source.write(0, &[2; 8192]);
        source.write(4096, &[3; 8192]);
        let ends = [(a, 2), (b, 3)];
        let ends: Vec<_> =
            if swapped { ends.into_iter().rev().collect() } else { ends.into_iter().collect() };
        for (token, fill) in ends {
            assert!(!tap.is_whole() || token.range().bytes == 8192);
            assert_eq!(tap.capture_end(token, &[fill; 8192]).unwrap(), Captured::Marked);
        }
        while !tap.is_whole() {
            store.step(Default::default()).unwrap();
        }
        assert!(newest(&store, "disk") == source.image(), "swapped: {swapped}");
    }
    let gaps = store.timeline().unwrap().gaps;
    assert!(gaps.len() == 2 && gaps.iter().all(|gap| gap.reason == GapReason::Overlap.as_str()), "{gaps:?}");
    assert_eq!(image_at(&store, "disk", Seq::new(2))[..8192], [1; 8192]);
    tap.detach().unwrap();
}

/// Goal: a gap does not close while a write that has overlapped is in flight. Method: one of two stays in flight while everything else is done.
#[test]
fn no_gap_closes_while_an_overlapped_write_is_in_flight() {
    let (store, source) = (store(16 * BLOCK), Source::new(16 * BLOCK));
    let tap = store.tap("disk", source.clone(), equal()).unwrap();
    let (a, b) = (tap.capture_begin(0, 4096).unwrap(), tap.capture_begin(0, 4096).unwrap());
    source.write(0, &[7; 4096]);
    tap.capture_end(a, &[7; 4096]).unwrap();
    for _ in 0..200 {
        store.step(Default::default()).unwrap();
        assert!(!tap.is_whole());
    }
    assert!(tap.clone().detach().is_err(), "a write is in flight");
    source.write(0, &[8; 4096]);
    tap.capture_end(b, &[8; 4096]).unwrap();
    while !tap.is_whole() {
        store.step(Default::default()).unwrap();
    }
    assert!(newest(&store, "disk") == source.image());
    tap.detach().unwrap();
}

/// Goal: every way to end a write, and mistakes, leave nothing behind that is not claimed. Method: each of them, then the newest state.
#[test]
fn a_write_that_was_begun_ends_in_one_of_these_ways() {
    let bytes = 64 * BLOCK;
    let (store, source) = (store(bytes), Source::new(bytes));
    let tap = store.tap("disk", source.clone(), equal()).unwrap();
    assert!(matches!(tap.capture_begin(1, 512), Err(Error::Unaligned { .. })));
    assert!(matches!(tap.capture_begin(bytes as u64, 512), Err(Error::OutOfRange { .. })));
    tap.capture_begin(0, 4096).unwrap().cancel();
    tap.capture_within(0, 4096).unwrap().cancel();
    assert!(matches!(tap.capture_within(1, 512), Err(Error::Unaligned { .. })));
    source.write(0, &[1; 4096]);
    let parts = [io::IoSlice::new(&[1; 512]), io::IoSlice::new(&[1; 3584])];
    let begin = || tap.capture_begin(0, 4096).unwrap();
    assert_eq!(begin().end(Written::Parts(&parts), None).unwrap(), Captured::Whole);
    assert_eq!(begin().end(Written::Bytes(vec![1; 4096].into()), None).unwrap(), Captured::Whole);
    source.write(0, &[0; 4096]);
    assert_eq!(begin().end(Written::Zeroes, None).unwrap(), Captured::Whole);
    assert_eq!(begin().end(Written::Discard, None).unwrap(), Captured::Whole);
    source.write(0, &[7; 4096]);
    let within = tap.capture_within(0, 4096).unwrap().end(Written::Data(&[7; 4096]), None);
    assert_eq!(within.unwrap(), Captured::Whole);
    store.flush().unwrap();
    assert_eq!((store.newest().seq, tap.is_whole()), (Seq::new(5), true));
    source.write(4096, &[2; 4096]);
    assert!(matches!(begin().end(Written::Data(&[2; 512]), None), Err(Error::InvalidArgument(_))));
    assert_eq!(tap.capture_begin(4096, 4096).unwrap().end(Written::Failed, None).unwrap(), Captured::Marked);
    source.write(9 * BLOCK, &[3; 4096]);
    drop(tap.capture_within(9 * BLOCK as u64, 4096).unwrap());
    let block = BLOCK as u64;
    assert_eq!(tap.dirty_extents(), [ByteRange::new(0, 2 * block), ByteRange::new(9 * block, block)]);
    while !tap.is_whole() {
        store.step(Default::default()).unwrap();
    }
    assert!(newest(&store, "disk") == source.image());
}

/// Goal: threads whose writes overlap all the time never leave the store with anything but what the source holds, with and without an
/// activity log. Method: few blocks, many threads, ends in any order; everything is compared after it has healed.
#[test]
fn threads_that_overlap_leave_the_store_equal() {
    for options in [equal(), with_log(SourceState::Equal, 4)] {
        let bytes = 512 * BLOCK;
        let (store, source) = (store(bytes), Source::new(bytes));
        let _runner = store.start_runner().unwrap();
        let tap = store.tap("disk", source.clone(), options).unwrap();
        let marked = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (tap, source, marked) = (&tap, &source, &marked);
                scope.spawn(move || {
                    let mut random = Random(thread + 1);
                    for version in 0..600 {
                        let sectors = 1 + random.below(16);
                        // Mostly the same few blocks, sometimes anywhere.
                        let within = if random.below(4) == 0 { bytes / 512 } else { 40 };
                        let offset = random.below(within - sectors) * 512;
                        let data = vec![(thread * 60 + version % 60 + 1) as u8; sectors * 512];
                        let token = tap.capture_begin(offset as u64, data.len() as u64).unwrap();
                        source.write(offset, &data);
                        if random.below(8) == 0 {
                            std::thread::sleep(Duration::from_micros(200));
                        }
                        let captured = tap.capture_end(token, &data).unwrap();
                        marked.fetch_add(u64::from(captured == Captured::Marked), Ordering::Relaxed);
                    }
                });
            }
        });
        wait_whole(&tap);
        store.flush().unwrap();
        assert!(newest(&store, "disk") == source.image());
        assert!(marked.load(Ordering::Relaxed) > 0, "they overlapped");
        tap.detach().unwrap();
        store.close().unwrap();
    }
}

/// Goal: after an unclean end with an activity log the regions that were being written are compared and nothing else; with the log off at the
/// next tap everything is again. Method: a crash with writes that are not durable, begun and ended, begun and not ended; bytes read are counted.
#[test]
fn with_an_activity_log_a_crash_costs_its_regions() {
    let bytes = 64 << 20;
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let source = Source::new(bytes);
    let write = |tap: &cdp_core::Tap, index: usize, version: u64| {
        let data = block(index, version);
        let token = tap.capture_begin((index * BLOCK) as u64, BLOCK as u64).unwrap();
        source.write(index * BLOCK, &data);
        tap.capture_end(token, &data).unwrap()
    };
    {
        let store = store_with(storage.clone(), bytes);
        let tap = store.tap("disk", source.clone(), with_log(SourceState::Equal, 8)).unwrap();
        // More regions than the log holds, and so it has to let go of some.
        for index in 0..40 {
            write(&tap, index * 100, 1);
        }
        let submitted = tap.capture_begin(7000 * BLOCK as u64, BLOCK as u64).unwrap();
        source.write(7000 * BLOCK, &block(7000, 2));
        std::mem::forget(submitted);
        std::mem::forget(tap);
        // The process is gone: nothing of it writes any more.
        std::mem::forget(store);
    }
    let storage = copy_of(&*storage);
    let store = Store::open(storage.clone(), options()).unwrap();
    let tap = store.tap("disk", source.clone(), with_log(SourceState::AsRecorded, 8)).unwrap();
    let claimed: u64 = tap.dirty_extents().iter().map(|range| range.bytes).sum();
    assert!(claimed > 0 && claimed <= 8 * (64 << 10), "{claimed} bytes are claimed");
    assert!(
        tap.dirty_extents().iter().any(|range| (range.offset..range.end()).contains(&(7000 * BLOCK as u64)))
    );
    while !tap.is_whole() {
        store.step(Default::default()).unwrap();
    }
    assert_eq!(tap.stats().resync.source_bytes_read, claimed);
    assert!(newest(&store, "disk") == source.image());
    assert_eq!(store.timeline().unwrap().gaps[0].reason, GapReason::Unclean.as_str());
    tap.detach().unwrap();
    let tap = store.tap("disk", source.clone(), equal()).unwrap();
    drop((tap, store));
    let store = Store::open(storage, options()).unwrap();
    let tap = store.tap("disk", source, with_log(SourceState::AsRecorded, 8)).unwrap();
    assert_eq!(tap.dirty_extents(), [ByteRange::new(0, bytes as u64)], "the log was off");
}

/// Everything that a storage in memory holds.
fn copy_of(storage: &dyn Storage) -> Arc<dyn Storage> {
    let copy = MemoryStorage::new();
    for id in storage.list().unwrap() {
        let from = storage.open(id).unwrap();
        let size = from.size().unwrap();
        let to = copy.create(id, size).unwrap();
        let len = usize::try_from(size).unwrap();
        let mut buffer = cdp_core::io::AlignedBuf::new(len.max(4096)).unwrap();
        from.read_at(0, &mut buffer[..len]).unwrap();
        to.write_at(0, &buffer[..len]).unwrap();
    }
    Arc::new(copy)
}

/// Goal: ranges that are too long for the log, and captures that were not begun, cost a comparison of everything only until they are durable.
/// Method: a discard of the whole disk and a plain capture, a crash before and after the log was tended.
#[test]
fn what_the_log_cannot_name_turns_it_off_for_a_while() {
    let bytes = 16 << 20;
    let everything = [ByteRange::new(0, bytes as u64)];
    for plain in [false, true] {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let source = Source::new(bytes);
        let store = store_with(storage.clone(), bytes);
        let tap = store.tap("disk", source.clone(), with_log(SourceState::Equal, 8)).unwrap();
        let crashed = |what: &[ByteRange]| {
            let store = Store::open(copy_of(&*storage), options()).unwrap();
            let tap = store.tap("disk", source.clone(), with_log(SourceState::AsRecorded, 8)).unwrap();
            assert_eq!(tap.dirty_extents() == everything, what == everything, "plain: {plain}");
        };
        crashed(&[]);
        if plain {
            source.write(0, &[1; 512]);
            tap.capture(0, &[1; 512]).unwrap();
        } else {
            let token = tap.capture_begin(0, bytes as u64).unwrap();
            crashed(&everything);
            token.end(Written::Discard, None).unwrap();
            crashed(&everything);
        }
        for _ in 0..10 {
            store.step(Default::default()).unwrap();
        }
        crashed(&[]);
        let told = |event: cdp_core::event::Event| matches!(event.kind, EventKind::LogBypassed { .. });
        assert_eq!(store.take_events().0.into_iter().any(told), plain);
        assert!(tap.is_whole());
    }
}

/// A source that cannot say when its writes are durable, or fails to.
struct Forgetful(AtomicBool);

impl SourceReader for Forgetful {
    fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::Error::other("no")) } else { Ok(()) }
    }
}

struct ReadOnly;

impl SourceReader for ReadOnly {
    fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        Ok(())
    }
}

/// Goal: no activity log for a source that cannot make its writes durable, and no region is let go while it fails to. Method: a reader without
/// sync; one whose sync fails while more regions are written than the log holds.
#[test]
fn a_log_needs_a_source_that_syncs() {
    let store = store(16 << 20);
    let refused = store.tap("disk", Arc::new(ReadOnly), with_log(SourceState::Equal, 4));
    assert!(matches!(refused, Err(Error::InvalidArgument(_))));
    let mut wrong = with_log(SourceState::Equal, 4);
    wrong.activity_log = Some(ActivityLog { regions_active_max: 945, region_bytes: 64 << 10 });
    let source = Arc::new(Forgetful(AtomicBool::new(false)));
    assert!(matches!(store.tap("disk", source.clone(), wrong), Err(Error::InvalidArgument(_))));
    let tap = store.tap("disk", source.clone(), with_log(SourceState::Equal, 4)).unwrap();
    let write = |region: u64| -> Result<Captured, Error> {
        tap.capture_end(tap.capture_begin(region * (64 << 10), 512)?, &[0; 512])
    };
    source.0.store(true, Ordering::Relaxed);
    let begun = (0..10).take_while(|region| write(*region).is_ok()).count();
    assert_eq!(begun, 4, "the log is full");
    source.0.store(false, Ordering::Relaxed);
    assert!((0..10).all(|region| write(region).is_ok()));
    tap.detach().unwrap();
}
