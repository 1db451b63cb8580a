//! Speed of the frame pool of the tap: 4 KiB writes from 1, 2 and 8 producers beside a consumer that discards, against a
//! plain copy of the same bytes; then the latency of one call, as a table, also of a whole tap in front of the pool.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use cdp_core::{
    dirty_map::{DirtyMap, Granularity},
    limits::IN_FLIGHT_MAX,
    sabotage::Sabotage,
    testing::pool::{Captured, Content, InFlightTable, Item, Next, Pool, PoolOptions, Refused, TapState},
    units::{TimeNs, VolumeId},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use std::{
    hint::{black_box, spin_loop},
    io::IoSlice,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const WRITE_BYTES: usize = 4096;
/// Source buffers of a producer, used in turn.
const SOURCES: usize = 64;

/// What a producer writes into: called with the number of the write and its data.
trait Target: Sync {
    fn write(&self, number: usize, data: &[u8]) -> bool;
}

impl Target for Pool {
    fn write(&self, number: usize, data: &[u8]) -> bool {
        let offset = (number as u64) << 12;
        let content = Content::Copied(&[IoSlice::new(data)]);
        match self.put(Item { volume: 1, offset, time: TimeNs::new(number as u64), content }) {
            Ok(position) => black_box(position).order > 0,
            Err(Refused::Exhausted { .. }) => false,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// A tap in front of its pool: what a host calls, but for the look at the clock.
struct Tapped<'a> {
    pool: &'a Pool,
    state: TapState,
    wishes: AtomicUsize,
}

impl Target for Tapped<'_> {
    fn write(&self, number: usize, data: &[u8]) -> bool {
        let offset = (number as u64 % (1 << 20)) << 12;
        let content = Content::Copied(&[IoSlice::new(data)]);
        let item = Item { volume: 1, offset, time: TimeNs::new(number as u64), content };
        let captured = self.state.capture(self.pool, &self.wishes, WRITE_BYTES as u64, item, None);
        captured == Captured::Whole
    }
}

/// Memory of the size of the pool and nothing else: what the machine itself does to the latency of a copy.
struct Plain(Mutex<Vec<u8>>);

impl Target for Plain {
    fn write(&self, number: usize, data: &[u8]) -> bool {
        let mut memory = self.0.lock().unwrap();
        let at = number * WRITE_BYTES % memory.len();
        memory[at..at + WRITE_BYTES].copy_from_slice(data);
        true
    }
}

/// Producers with memory of their own to copy into, all of it together as large as `bytes`.
fn copy(iterations: u64, threads: usize, bytes: usize) -> Duration {
    produce(iterations, threads, |count| {
        let sources = sources();
        let mut memory = vec![1_u8; bytes / threads];
        let start = Instant::now();
        for number in 0..count {
            let at = number * WRITE_BYTES % memory.len();
            memory[at..at + WRITE_BYTES].copy_from_slice(&sources[number % SOURCES]);
            black_box(&mut memory);
        }
        start.elapsed()
    })
}

fn put(pool: &Pool, iterations: u64, threads: usize) -> Duration {
    produce(iterations, threads, |count| {
        let sources = sources();
        let start = Instant::now();
        for number in 0..count {
            while !pool.write(number, &sources[number % SOURCES]) {
                thread::yield_now();
            }
        }
        start.elapsed()
    })
}

fn sources() -> Vec<Vec<u8>> {
    (0..SOURCES).map(|source| vec![u8::try_from(source).unwrap(); WRITE_BYTES]).collect()
}

/// Runs `threads` producers that share the writes, and returns the longest time that one needed.
fn produce(iterations: u64, threads: usize, run: impl Fn(usize) -> Duration + Sync) -> Duration {
    let count = usize::try_from(iterations).unwrap().div_ceil(threads);
    thread::scope(|scope| {
        let producers: Vec<_> = (0..threads).map(|_| scope.spawn(|| run(count))).collect();
        producers.into_iter().map(|producer| producer.join().unwrap()).max().unwrap()
    })
}

/// Runs `work` beside a consumer that looks every 200 us, as a drain does that is not woken, and discards.
fn beside_consumer<T>(pool: &Pool, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut consumer = pool.consumer().unwrap();
            while !over.load(Ordering::Relaxed) {
                while let Next::Item(taken) = consumer.next() {
                    black_box(taken.write());
                }
                thread::sleep(Duration::from_micros(200));
            }
            while let Next::Item(_) = consumer.next() {}
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    })
}

fn throughput(criterion: &mut Criterion) {
    let pool = Pool::new(PoolOptions::default()).unwrap();
    let mut group = criterion.benchmark_group("capture_4k");
    group.throughput(Throughput::Bytes(WRITE_BYTES as u64));
    for threads in [1, 2, 8] {
        group.bench_function(BenchmarkId::new("put", threads), |bench| {
            beside_consumer(&pool, || bench.iter_custom(|iterations| put(&pool, iterations, threads)));
        });
        for (name, bytes) in [("copy_to_2_mib", 2 << 20), ("copy_to_64_mib", 64 << 20)] {
            group.bench_function(BenchmarkId::new(name, threads), |bench| {
                bench.iter_custom(|iterations| copy(iterations, threads, bytes));
            });
        }
    }
    group.finish();
}

/// Latency of single calls by `threads` producers; `per_second` in all, or as fast as they can.
fn latencies(pool: &Pool, target: &impl Target, threads: usize, per_second: Option<u32>) -> (Vec<u64>, u64) {
    let count = 400_000 / threads;
    let interval = per_second.map(|rate| Duration::from_secs(1) * u32::try_from(threads).unwrap() / rate);
    beside_consumer(pool, || {
        thread::scope(|scope| {
            let producers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(move || {
                        let sources = sources();
                        let (mut times, mut refused) = (vec![0; count], 0);
                        let mut due = Instant::now();
                        for (number, time) in times.iter_mut().enumerate() {
                            if let Some(interval) = interval {
                                due += interval;
                                while Instant::now() < due {
                                    spin_loop();
                                }
                            }
                            let start = Instant::now();
                            let taken = target.write(number, &sources[number % SOURCES]);
                            *time = u64::try_from(start.elapsed().as_nanos()).unwrap();
                            refused += u64::from(!taken);
                        }
                        (times, refused)
                    })
                })
                .collect();
            let mut all = (Vec::new(), 0);
            for producer in producers {
                let (times, refused) = producer.join().unwrap();
                all.0.extend(times);
                all.1 += refused;
            }
            all
        })
    })
}

fn print_row(name: &str, threads: usize, per_second: Option<u32>, (mut times, refused): (Vec<u64>, u64)) {
    times.sort_unstable();
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below the length")]
        let index = (times.len() as f64 * share) as usize;
        times[index.min(times.len() - 1)]
    };
    let rate = per_second.map_or("all".into(), |rate| rate.to_string());
    let [p50, p99, p999, largest] = [0.5, 0.99, 0.999, 1.0].map(at);
    println!("{name:>4} {threads:>2} {rate:>7} {p50:>6} {p99:>6} {p999:>7} {largest:>9} {refused:>7}");
}

fn table() {
    let pool = Pool::new(PoolOptions::default()).unwrap();
    let plain = Plain(Mutex::new(vec![1; 64 << 20]));
    println!("4 KiB, ns: what, producers, writes/s asked for, p50, p99, p99.9, largest, refused");
    for per_second in [Some(100_000), None] {
        print_row("copy", 1, per_second, latencies(&pool, &plain, 1, per_second));
        for threads in [1, 2, 8] {
            print_row("put", threads, per_second, latencies(&pool, &pool, threads, per_second));
        }
        for threads in [1, 2, 8] {
            let map = DirtyMap::new(4 << 30, Granularity::for_size(4 << 30)).unwrap();
            let state = TapState::new(
                VolumeId::new(1),
                map,
                InFlightTable::new(IN_FLIGHT_MAX).unwrap(),
                false,
                Sabotage::default(),
            );
            let tap = Tapped { pool: &pool, state, wishes: AtomicUsize::new(0) };
            print_row("tap", threads, per_second, latencies(&pool, &tap, threads, per_second));
        }
    }
}

criterion_group!(benches, throughput);

fn main() {
    benches();
    // `cargo test --benches` only looks whether it runs.
    if std::env::args().any(|argument| argument == "--bench") {
        table();
    }
    Criterion::default().configure_from_args().final_summary();
}
