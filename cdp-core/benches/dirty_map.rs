//! Speed of the dirty map: sets, the next set bit of an empty map of 1 TiB, scans, pins.

#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    dirty_map::{ByteRange, DirtyMap, Granularity, MapFile, MapFileOptions},
    format::Uuid,
    io::{MemoryStorage, Storage},
    units::ExtentId,
};
use criterion::{Criterion, criterion_group, criterion_main};
use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

const TIB: u64 = 1 << 40;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// One bit, by a call as a set is one.
#[inline(never)]
fn mark(words: &[AtomicU64], block: u64) -> u64 {
    words[(block / 64) as usize].fetch_or(1 << (block % 64), Ordering::SeqCst)
}

fn map() -> DirtyMap {
    DirtyMap::new(TIB, Granularity::MIN).unwrap()
}

fn set(criterion: &mut Criterion) {
    let (warm, mut random) = (map(), Random(88_172_645_463_325_252));
    let mut group = criterion.benchmark_group("dirty_map set");
    group.bench_function("4 KiB, within 1 GiB", |bencher| {
        bencher.iter(|| warm.set(ByteRange::new((random.next() % (1 << 30)) & !4095, 4096)));
    });
    let wide = map();
    wide.set(ByteRange::new(0, TIB - 4096));
    group.bench_function("4 KiB, within 1 TiB", |bencher| {
        bencher.iter(|| wide.set(ByteRange::new((random.next() % TIB) & !4095, 4096)));
    });
    let clean = map();
    group.bench_function("4 KiB, within 1 TiB that is clean at first", |bencher| {
        bencher.iter(|| clean.set(ByteRange::new((random.next() % TIB) & !4095, 4096)));
    });
    // What memory allows: one bit in as many bytes as the map of 1 TiB has, without any map around it.
    let raw: Vec<AtomicU64> = (0..TIB / 4096 / 64).map(|_| AtomicU64::new(0)).collect();
    group.bench_function("yardstick: one bit of 32 MiB", |bencher| {
        bencher.iter(|| mark(&raw, random.next() % (TIB / 4096)));
    });
    // The same where each waits for the one before, as writes of a host do that come one by one: the time of a cache miss.
    let mut before = 0;
    group.bench_function("yardstick: one bit of 32 MiB, each after the one before", |bencher| {
        bencher.iter(|| {
            let block = (random.next() ^ black_box(before)) % (TIB / 4096);
            before = mark(&raw, block) & 1;
        });
    });
    let (in_order, mut next) = (map(), 0);
    group.bench_function("4 KiB, one after the other through 1 TiB", |bencher| {
        bencher.iter(|| {
            in_order.set(ByteRange::new(next, 4096));
            next = (next + 4096) % TIB;
        });
    });
    group.bench_function("1 GiB", |bencher| {
        bencher.iter(|| warm.set(ByteRange::new(random.next() % 64 * (1 << 30), 1 << 30)));
    });
    group.finish();
}

fn search(criterion: &mut Criterion) {
    let empty = map();
    let mut group = criterion.benchmark_group("dirty_map search of 1 TiB");
    group.bench_function("next in an empty map", |bencher| bencher.iter(|| black_box(empty.next_dirty(0))));
    let last = map();
    last.set(ByteRange::new(TIB - 4096, 4096));
    group.bench_function("next is the last block", |bencher| bencher.iter(|| black_box(last.next_dirty(0))));
    let mut random = Random(1);
    let sparse = map();
    (0..10_000).for_each(|_| sparse.set(ByteRange::new((random.next() % TIB) & !4095, 4096)));
    group.bench_function("claim of 10,000 random blocks", |bencher| {
        bencher.iter(|| black_box(sparse.extents().count()));
    });
    let block = ByteRange::new(TIB / 2, 4096);
    group.bench_function("set, begin, clean", |bencher| {
        bencher.iter(|| {
            empty.set(block);
            empty.begin(0, 1).unwrap().clean();
        });
    });
    group.finish();
}

fn pin(criterion: &mut Criterion) {
    let storage = MemoryStorage::new();
    let extent = storage.create(ExtentId::new(1), 0).unwrap();
    let map = DirtyMap::new(1 << 30, Granularity::MIN).unwrap();
    let file = MapFile::create(extent, Uuid::default(), 1, map, MapFileOptions::default()).unwrap();
    let range = ByteRange::new(8 << 20, 4096);
    criterion.bench_function("dirty_map write to an active region", |bencher| {
        bencher.iter(|| file.begin_write(range).unwrap().done(true));
    });
}

criterion_group!(benches, set, search, pin);
criterion_main!(benches);
