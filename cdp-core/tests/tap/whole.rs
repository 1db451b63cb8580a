//! Capturing whole: every write is a point, across volumes, threads and bookmarks.

use crate::source::{BLOCK, Random, Source, block, image_at, newest, now, store, version_of};
use bytes::Bytes;
use cdp_core::{Captured, Error, NewBookmark, SourceState, TapOptions, units::Seq};
use std::{
    io::IoSlice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

fn equal() -> TapOptions {
    TapOptions { source: SourceState::Equal, pool_frames: 16, ..TapOptions::default() }
}

/// Goal: every captured write is a point of its own, whichever call took it. Method: all kinds of calls and sizes up to the largest, each
/// point compared with the image after that write.
#[test]
fn every_captured_write_is_a_point() {
    let bytes = 24 << 20;
    let (store, source) = (store(bytes), Source::new(bytes));
    let tap = store.tap("disk", source.clone(), TapOptions { pool_frames: 40, ..equal() }).unwrap();
    let mut random = Random(11);
    let mut images = vec![source.image()];
    for step in 0..40u64 {
        let sectors = [1, 3, 8, 17, 256, 2048, 2049, 5000, 32768][random.below(9)];
        let len = sectors * 512;
        let offset = random.below((bytes - len) / 512) * 512;
        let data: Vec<u8> = (0..len).map(|at| (at as u64 * 31 + step * 7 + 1) as u8).collect();
        let mut image = images.last().unwrap().clone();
        let captured = match step % 5 {
            0 => {
                image[offset..offset + len].fill(0);
                tap.discard(offset as u64, len as u64, now())
            }
            1 => {
                image[offset..offset + len].fill(0);
                tap.write_zeroes(offset as u64, len as u64, now())
            }
            2 => {
                image[offset..offset + len].copy_from_slice(&data);
                tap.capture_bytes(offset as u64, Bytes::from(data), now())
            }
            3 => {
                image[offset..offset + len].copy_from_slice(&data);
                let (a, b) = data.split_at(len / 3);
                tap.capture_vectored(offset as u64, &[IoSlice::new(a), IoSlice::new(b)], now())
            }
            _ => {
                image[offset..offset + len].copy_from_slice(&data);
                tap.capture(offset as u64, &data)
            }
        };
        assert_eq!(captured.unwrap(), Captured::Whole);
        images.push(image);
        store.flush().unwrap();
    }
    assert_eq!(store.newest().seq, Seq::new(40));
    for (seq, image) in images.iter().enumerate() {
        assert!(image_at(&store, "disk", Seq::new(seq as u64)) == *image, "seq {seq}");
    }
    assert!(store.timeline().unwrap().gaps.is_empty());
    tap.detach().unwrap();
    store.close().unwrap();
}

/// Goal: a drain that took everything leaves the newest frame to the writes to come, so that none of them pays for a fresh one; a flush, which
/// needs a boundary, does not. Method: a write behind each, and the free frames of the pool.
#[test]
fn a_drain_leaves_the_newest_frame_open() {
    let (store, source) = (store(1 << 20), Source::new(1 << 20));
    let tap = store.tap("disk", source, equal()).unwrap();
    let free = |store: &cdp_core::Store| {
        tap.capture(0, &[7; BLOCK]).unwrap();
        let free = tap.stats().pool.frames_free;
        store.step(Default::default()).unwrap();
        free
    };
    let first = free(&store);
    for _ in 0..20 {
        assert_eq!(free(&store), first);
    }
    store.flush().unwrap();
    assert_eq!(free(&store), first - 1, "the one before is still the consumer's");
    tap.detach().unwrap();
    store.close().unwrap();
}

/// Goal: the caller's mistakes are errors that capture and mark nothing. Method: each of them.
#[test]
fn mistakes_are_refused_and_leave_nothing() {
    let (store, source) = (store(1 << 20), Source::new(1 << 20));
    let tap = store.tap("disk", source.clone(), equal()).unwrap();
    let data = vec![1; 4096];
    assert!(matches!(tap.capture(1, &data), Err(Error::Unaligned { .. })));
    assert!(matches!(tap.capture(0, &data[..100]), Err(Error::Unaligned { .. })));
    assert!(matches!(tap.capture(1 << 20, &data), Err(Error::OutOfRange { .. })));
    assert!(matches!(tap.capture(u64::MAX - 511, &data), Err(Error::OutOfRange { .. })));
    assert!(matches!(tap.capture(0, &[]), Err(Error::InvalidArgument(_))));
    assert!(matches!(tap.discard(0, 0, now()), Err(Error::InvalidArgument(_))));
    assert!(matches!(store.tap("disk", source.clone(), equal()), Err(Error::Exists { .. })));
    assert!(matches!(store.tap("other", source, equal()), Err(Error::NotFound { .. })));
    let inline = store.volume(None).unwrap();
    assert!(matches!(inline.write(0, &data), Err(Error::InvalidArgument(_))));
    store.flush().unwrap();
    assert_eq!((store.newest().seq, tap.stats().dirty_bytes), (Seq::ZERO, 0));
    let again = tap.clone();
    tap.detach().unwrap();
    assert!(matches!(again.capture(0, &data), Err(Error::InvalidArgument(_))));
    inline.write(0, &data).unwrap();
}

/// Goal: at every bookmark all volumes show one cut of the order of writes. Method: threads that write a counter to one volume after the
/// other, each only after the volume before it has it (so at any cut the counters never rise along the row), some volumes inline, with
/// bookmarks all the time.
#[test]
fn a_bookmark_is_one_cut_through_all_volumes() {
    const VOLUMES: usize = 8;
    let bytes = 64 * BLOCK;
    let store = store(bytes);
    let _runner = store.start_runner().unwrap();
    let names: Vec<String> = (0..VOLUMES).map(|i| format!("v{i}")).collect();
    let sources: Vec<_> = names.iter().map(|_| Source::new(bytes)).collect();
    let mut taps = Vec::new();
    for (index, name) in names.iter().enumerate() {
        store.add_volume(name, bytes as u64).unwrap();
        // Every fourth volume is written inline.
        let options = TapOptions { pool_frames: 64, ..equal() };
        taps.push((index % 4 != 3).then(|| store.tap(name, sources[index].clone(), options).unwrap()));
    }
    let stop = AtomicBool::new(false);
    let threads = 4;
    let mut bookmarks = 0;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (store, names, taps, sources, stop) = (&store, &names, &taps, &sources, &stop);
            scope.spawn(move || {
                let mut counter = 0;
                while !stop.load(Ordering::Relaxed) {
                    counter += 1;
                    // Each thread has blocks of its own in every volume.
                    let place = thread * 16 + (counter as usize) % 16;
                    for (index, name) in names.iter().enumerate() {
                        let data = block(place, counter);
                        match &taps[index] {
                            Some(tap) => {
                                sources[index].write(place * BLOCK, &data);
                                tap.capture((place * BLOCK) as u64, &data).unwrap();
                            }
                            None => {
                                let volume = store.volume(Some(name)).unwrap();
                                volume.write((place * BLOCK) as u64, &data).unwrap();
                            }
                        }
                    }
                    if counter % 64 == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(1500) {
            store.add_bookmark(&NewBookmark::named(format!("b{bookmarks}"))).unwrap();
            bookmarks += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let exact: Vec<_> =
        store.bookmarks().into_iter().filter(|bookmark| bookmark.inexact_volumes.is_empty()).collect();
    // How many depends on the machine: where threads outrun the drain, bookmarks lie in gaps.
    assert!(exact.len() >= 5, "{} of {bookmarks} bookmarks are exact", exact.len());
    for bookmark in exact {
        let images: Vec<Vec<u8>> = names.iter().map(|name| image_at(&store, name, bookmark.seq)).collect();
        for place in 0..threads * 16 {
            let row: Vec<u64> = images.iter().map(|image| version_of(image, place)).collect();
            assert!(
                row.windows(2).all(|pair| pair[0] >= pair[1]),
                "bookmark {}, place {place}: {row:?}",
                bookmark.name
            );
        }
    }
    for (index, name) in names.iter().enumerate().filter(|(index, _)| taps[*index].is_some()) {
        crate::source::wait_whole(taps[index].as_ref().unwrap());
        assert!(newest(&store, name) == sources[index].image(), "{name}");
    }
}

/// Goal: threads that write, flush and set bookmarks at once never meet a frame that another has just sealed. Method: many of each.
#[test]
fn flushes_and_bookmarks_race_without_harm() {
    let store = store(1 << 20);
    let _runner = store.start_runner().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let (store, stop) = (&store, stop.clone());
            scope.spawn(move || {
                let volume = store.volume(None).unwrap();
                for round in 0..400 {
                    match thread % 3 {
                        0 => drop(volume.write((round % 100) * 512, &[thread as u8 + 1; 512]).unwrap()),
                        1 => drop(store.flush().unwrap()),
                        _ => {
                            let name = format!("b.{thread}.{round}");
                            store.add_bookmark(&NewBookmark::named(name)).unwrap();
                        }
                    }
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(store.bookmarks().len(), 800);
    assert_eq!(store.newest().seq, Seq::new(800));
    store.close().unwrap();
}
