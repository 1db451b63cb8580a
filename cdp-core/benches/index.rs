//! Speed of the index: lookups, multi-block reads, merges, lists of changes, inserts. Everything is in memory and warm.

#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    format::packed::PackedEntry,
    index::{
        Cell, Classes, Content, Entry, Keep, KeepAll, Key, MemTable, Merge, MergeStep, Needed, PageCache,
        Run, RunContext, RunMeta, RunWriter, Scan, View, VisibleSums,
    },
    io::{MemoryStorage, Storage},
    units::{Block, ExtentId, Seq, VolumeId},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const VOLUME: VolumeId = VolumeId::new(1);
/// Blocks of the volume: 256 GiB.
const BLOCKS: u64 = 1 << 26;

struct Bench {
    context: RunContext,
    next: Arc<AtomicU64>,
    random: u64,
    seq: u64,
}

impl Bench {
    fn new(cache_bytes: u64) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        Self {
            context: RunContext { store: 1, storage, pages: Arc::new(PageCache::new(cache_bytes)) },
            next: Arc::new(AtomicU64::new(1)),
            random: 88_172_645_463_325_252,
            seq: 0,
        }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Writes to random blocks.
    fn entries(&mut self, count: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..count)
            .map(|index| {
                self.seq += 1;
                let cell = Cell { block: Block::new(self.random() % BLOCKS), level: 0 };
                let content = Content::Data {
                    segment: ExtentId::new(self.seq >> 14),
                    sector: (index as u32 & 0x3FFF) * 8,
                    digest: self.random() | 1,
                };
                Entry { key: Key::new(VOLUME, cell, Seq::new(self.seq)), mask: 0xFF, content }
            })
            .collect();
        entries.sort_by_key(|entry| entry.key);
        entries
    }

    fn writer(&self) -> RunWriter<'static> {
        let (storage, next) = (self.context.storage.clone(), self.next.clone());
        RunWriter::new(1, 0, Self::place(storage, next))
    }

    fn place(storage: Arc<dyn Storage>, next: Arc<AtomicU64>) -> cdp_core::index::NextPiece<'static> {
        Box::new(move || {
            let id = ExtentId::new(next.fetch_add(1, Ordering::Relaxed));
            Ok((id, storage.create(id, 4096).unwrap(), 0))
        })
    }

    fn meta(&mut self, count: usize) -> RunMeta {
        let mut writer = self.writer();
        for entry in self.entries(count) {
            writer.push(&entry).unwrap();
        }
        writer.finish().unwrap()
    }

    fn run(&mut self, count: usize) -> Arc<Run> {
        let meta = self.meta(count);
        Arc::new(Run::new(meta, self.context.clone()))
    }
}

fn lookup(criterion: &mut Criterion) {
    let mut bench = Bench::new(256 << 20);
    let run = bench.run(1 << 20);
    let seek = |block: u64| {
        let key = Key::new(VOLUME, Cell { block: Block::new(block), level: 0 }, Seq::MAX);
        run.cursor().seek(&key).unwrap()
    };
    (0..1 << 20).for_each(|_| {
        black_box(seek(bench.random() % BLOCKS));
    });
    criterion.bench_function("lookup_in_a_run_of_1M", |bencher| {
        bencher.iter(|| black_box(seek(bench.random() % BLOCKS)));
    });
}

/// Runs as a store has them after 24 segments: large old ones, small new ones.
fn view(bench: &mut Bench, sizes: &[usize]) -> View {
    let runs = sizes.iter().map(|count| bench.run(*count)).collect();
    View::new(Vec::new(), runs, Vec::new())
}

fn resolve(criterion: &mut Criterion) {
    let mut bench = Bench::new(512 << 20);
    let mut sizes = vec![1 << 20; 8];
    sizes.extend([1 << 17; 8]);
    let view16 = view(&mut bench, &sizes);
    sizes.extend([1 << 14; 8]);
    let view24 = view(&mut bench, &sizes);
    let mut pieces = Vec::new();
    for (name, view) in [("16", &view16), ("24", &view24)] {
        for blocks in [1u64, 8, 256] {
            let at = Seq::new(bench.seq);
            let mut ask = |random: u64| {
                pieces.clear();
                view.resolve(VOLUME, Block::new(random % (BLOCKS - 256)), blocks, at, &mut pieces).unwrap();
                black_box(pieces.len());
            };
            (0..400_000 / blocks).for_each(|_| ask(bench.random()));
            criterion.bench_function(&format!("resolve_{blocks}_blocks_in_{name}_runs"), |bencher| {
                bencher.iter(|| ask(bench.random()));
            });
        }
    }
    criterion.bench_function("next_data_in_24_runs", |bencher| {
        bencher.iter(|| {
            let from = Block::new(bench.random() % BLOCKS);
            black_box(view24.next_data(VOLUME, from, Block::new(BLOCKS), Seq::MAX).unwrap())
        });
    });
}

/// What a store does to each entry when it thins: decides, and notes what is visible for the proof.
struct Thin {
    needed: Needed,
    before: VisibleSums,
}

impl Thin {
    fn new(classes: &Arc<Classes>) -> Self {
        Self { needed: Needed::new(classes.clone()), before: VisibleSums::new(classes.clone()) }
    }
}

impl Keep for Thin {
    fn keep(&mut self, entry: &PackedEntry) -> cdp_core::Result<Option<PackedEntry>> {
        self.before.take(entry);
        Ok(self.needed.is_needed(entry).then_some(*entry))
    }
}

fn merge(criterion: &mut Criterion) {
    let mut bench = Bench::new(1 << 20);
    let runs: Vec<_> = (0..8).map(|_| bench.run(1 << 18)).collect();
    let entries = 8 << 18;
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(entries)).sample_size(10);
    group.bench_function("8_runs_of_256K", |bencher| {
        bencher.iter(|| {
            let place = Bench::place(Arc::new(MemoryStorage::new()), bench.next.clone());
            let mut merge = Merge::new(runs.clone(), 1, place, KeepAll).unwrap();
            loop {
                if let MergeStep::Finished(meta) = merge.step(1 << 16).unwrap() {
                    break black_box(meta);
                }
            }
        });
    });
    let newest = bench.seq;
    let classes = Arc::new(Classes::new((1..64).map(|point| newest * point / 64), newest));
    group.bench_function("thin_8_runs_of_256K", |bencher| {
        bencher.iter(|| {
            let place = Bench::place(Arc::new(MemoryStorage::new()), bench.next.clone());
            let mut merge = Merge::new(runs.clone(), 1, place, Thin::new(&classes)).unwrap();
            loop {
                if let MergeStep::Finished(meta) = merge.step(1 << 16).unwrap() {
                    break black_box(meta);
                }
            }
        });
    });
    group.bench_function("tally_8_runs_of_256K", |bencher| {
        bencher.iter(|| {
            let (mut scan, mut needed) = (Scan::new(runs.clone()).unwrap(), Needed::new(classes.clone()));
            let mut count = 0u64;
            while let Some(met) = scan.advance().unwrap() {
                count += u64::from(needed.is_needed(&met.entry));
            }
            black_box(count)
        });
    });
    group.bench_function("verify_a_run", |bencher| {
        bencher.iter(|| runs.iter().for_each(|run| run.verify().unwrap()));
    });
    group.bench_function("list_of_changes", |bencher| {
        let view = View::new(Vec::new(), runs.clone(), Vec::new());
        bencher.iter(|| {
            let changed = view.changed(VOLUME, Seq::ZERO, Seq::MAX, BLOCKS * 4096).unwrap();
            black_box(changed.map(|extent| extent.unwrap().length).sum::<u64>())
        });
    });
    group.finish();
}

fn insert(criterion: &mut Criterion) {
    let mut bench = Bench::new(1 << 20);
    let mut group = criterion.benchmark_group("memtable");
    let count = 1usize << 17;
    group.throughput(Throughput::Elements(count as u64)).sample_size(10);
    let mut entries = bench.entries(count);
    entries.sort_by_key(|entry| entry.key.seq());
    for batch in [1usize, 64] {
        group.bench_function(format!("insert_128K_by_{batch}"), |bencher| {
            bencher.iter_batched(
                MemTable::new,
                |table| {
                    entries.chunks(batch).for_each(|batch| table.insert(batch).unwrap());
                    table
                },
                BatchSize::PerIteration,
            );
        });
    }
    let table = MemTable::new();
    table.insert(&entries).unwrap();
    group.bench_function("seal_128K", |bencher| {
        bencher.iter(|| {
            let place = Bench::place(Arc::new(MemoryStorage::new()), bench.next.clone());
            let mut writer = RunWriter::new(1, 0, place);
            table.for_each(|entry| writer.push(entry)).unwrap();
            black_box(writer.finish().unwrap())
        });
    });
    group.finish();
}

criterion_group!(benches, lookup, resolve, merge, insert);
criterion_main!(benches);
