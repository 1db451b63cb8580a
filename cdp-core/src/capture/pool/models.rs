//! Models under loom: the interleavings (up to a bound of preemptions and of time) of a few calls on frames of one or two slots.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p cdp-core --lib --release loom_`, with a target directory of its own. Loom also reports
//! any descriptor, hand-over or payload sector that two threads touch without an order between them.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::print_stdout, reason = "tests")]

use super::*;
use crate::units::to_len;
use loom::{
    model::Builder,
    sync::{
        Arc,
        atomic::{AtomicU64 as Shared, Ordering::*},
    },
    thread::{self, JoinHandle},
};

type Put = Result<Position, Refused>;

/// Goes through all interleavings with so many preemptions, or as many as a minute allows; prints how many.
fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_duration = Some(std::time::Duration::from_secs(60));
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        run();
    });
    println!("{} executions", executions.load(Relaxed));
}

fn pool(frames: usize, frame_slots: u32) -> Arc<Pool> {
    let shape =
        Shape { frames, frame_slots, frame_sectors: frame_slots, owned_bytes_max: 1024, first_order: 1 };
    Arc::new(Pool::with(shape).unwrap())
}

fn content(tag: u64, bytes: usize) -> Vec<u8> {
    vec![tag as u8; bytes]
}

fn put(pool: &Pool, tag: u64, sectors: usize) -> Put {
    let data = content(tag, sectors * SECTOR_LEN);
    let buffers = [IoSlice::new(&data)];
    pool.put(Item { volume: 0, offset: 0, time: TimeNs::new(tag), content: Content::Copied(&buffers) })
}

fn spawn(pool: &Arc<Pool>, tags: Vec<u64>, sectors: usize) -> JoinHandle<Vec<(u64, Put)>> {
    let pool = Arc::clone(pool);
    thread::spawn(move || tags.into_iter().map(|tag| (tag, put(&pool, tag, sectors))).collect())
}

/// A consumer in a thread of its own: loom does not come back to what the main thread only reads.
fn consume(pool: &Arc<Pool>, looks: usize, impatient: bool) -> JoinHandle<Log> {
    let pool = Arc::clone(pool);
    thread::spawn(move || {
        let mut log = Log::default();
        let mut consumer = pool.consumer().unwrap();
        (0..looks).for_each(|_| {
            log.look(&mut consumer, impatient);
        });
        log
    })
}

/// What the consumer did: places and tags taken, and writes set aside.
#[derive(Default)]
struct Log {
    taken: Vec<(Position, u64)>,
    set_aside: usize,
}

impl Log {
    /// One look; sets a late write aside when told to. Whether there may be more.
    fn look(&mut self, consumer: &mut Consumer<'_>, impatient: bool) -> bool {
        match consumer.next() {
            Next::Item(item) => {
                let tag = item.write().time.get();
                let bytes: Vec<u8> = item.parts().flatten().copied().collect();
                assert_eq!(bytes, content(tag, to_len(item.write().length)));
                self.taken.push((item.position(), tag));
                true
            }
            Next::Waiting(_) if impatient => {
                self.set_aside += usize::from(consumer.set_aside() != SetAside::Nothing);
                true
            }
            Next::Waiting(_) | Next::Empty => false,
        }
    }

    /// Takes the rest after all producers have ended, and compares.
    fn close(mut self, pool: &Pool, puts: impl IntoIterator<Item = Vec<(u64, Put)>>) {
        let mut consumer = pool.consumer().unwrap();
        while self.look(&mut consumer, false) {}
        assert!(matches!(consumer.next(), Next::Empty));
        drop(consumer);
        let (mut accepted, mut abandoned) = (Vec::new(), 0);
        for (tag, put) in puts.into_iter().flatten() {
            match put {
                Ok(position) => accepted.push((position, tag)),
                Err(Refused::Abandoned) => abandoned += 1,
                Err(Refused::Exhausted { .. }) => {}
                Err(Refused::Invalid) => panic!("a valid write"),
            }
        }
        accepted.sort_unstable();
        assert_eq!(self.taken, accepted);
        assert_eq!(self.set_aside, abandoned);
        let statistics = pool.statistics();
        assert_eq!((statistics.frames_free, statistics.frames_set_aside), (statistics.frames - 1, 0));
    }
}

/// Goal: two producers reserve, commit and rotate beside a consumer; order, content, exactly once, no frame lost.
#[test]
fn loom_reserve_commit_rotate() {
    for (frames, slots, preemptions) in [(3, 2, 2), (4, 1, 2)] {
        model(preemptions, move || {
            let pool = pool(frames, slots);
            put(&pool, 9, 1).unwrap();
            let one = spawn(&pool, vec![1], 1);
            let two = spawn(&pool, vec![2], 1);
            let mut log = Log::default();
            let mut consumer = pool.consumer().unwrap();
            (0..2).for_each(|_| {
                log.look(&mut consumer, false);
            });
            drop(consumer);
            let first = put(&pool, 9, 1).unwrap();
            let puts = [vec![(9, Ok(Position { order: 1, slot: 0 })), (9, Ok(first))], one.join().unwrap()];
            log.close(&pool, puts.into_iter().chain([two.join().unwrap()]));
        });
    }
}

/// Goal: frames are recycled under producers that hold old words, links and hints. Method: two frames of one slot.
#[test]
fn loom_recycle() {
    model(2, || {
        let pool = pool(2, 1);
        let one = spawn(&pool, vec![1, 2], 1);
        let two = spawn(&pool, vec![3], 1);
        let log = consume(&pool, 3, false);
        let log = log.join().unwrap();
        log.close(&pool, [one.join().unwrap(), two.join().unwrap()]);
    });
}

/// Goal: a seal separates. Method: a producer that notes the seal it saw before a put, a consumer that notes the place it saw
/// before its seal.
#[test]
fn loom_seal_against_reserve() {
    model(4, || {
        let pool = pool(4, 2);
        let (sealed, newest) = (Arc::new(Shared::new(0)), Arc::new(Shared::new(0)));
        let producer = {
            let (pool, sealed, newest) = (Arc::clone(&pool), Arc::clone(&sealed), Arc::clone(&newest));
            thread::spawn(move || {
                let write = |tag| {
                    let before = sealed.load(Acquire);
                    let result = put(&pool, tag, 1);
                    let order = result.unwrap().order;
                    assert!(order > before);
                    newest.store(order, Release);
                    (tag, result)
                };
                vec![write(1), write(2)]
            })
        };
        let mut consumer = pool.consumer().unwrap();
        for _ in 0..2 {
            let before = newest.load(Acquire);
            let now = consumer.seal();
            assert!(now >= before);
            sealed.store(now, Release);
        }
        drop(consumer);
        Log::default().close(&pool, [producer.join().unwrap()]);
    });
}

/// Goal: a refusal separates as well. Method: two producers on a pool that is full for one of them.
#[test]
fn loom_exhausted_against_reserve() {
    model(3, || {
        let pool = pool(2, 1);
        put(&pool, 9, 1).unwrap();
        let refused = Arc::new(Shared::new(0));
        let producers = [1, 2].map(|tag| {
            let (pool, refused) = (Arc::clone(&pool), Arc::clone(&refused));
            thread::spawn(move || {
                let before = refused.load(Acquire);
                let result = put(&pool, tag, 1);
                match result {
                    Ok(position) => assert!(position.order > before),
                    Err(Refused::Exhausted { sealed }) => refused.store(sealed, Release),
                    Err(other) => panic!("{other:?}"),
                }
                vec![(tag, result)]
            })
        });
        let puts = producers.map(|producer| producer.join().unwrap());
        let first = vec![(9, Ok(Position { order: 1, slot: 0 }))];
        Log::default().close(&pool, puts.into_iter().chain([first]));
    });
}

/// Goal: setting aside against describing and committing: the write is taken or its producer knows, and its frame comes back.
#[test]
fn loom_set_aside_against_commit() {
    model(4, || {
        let pool = pool(2, 1);
        let producer = spawn(&pool, vec![1, 2], 1);
        let log = consume(&pool, 3, true);
        let log = log.join().unwrap();
        log.close(&pool, [producer.join().unwrap()]);
    });
}

/// Goal: the same for payload that is handed over, which goes back to its producer.
#[test]
fn loom_set_aside_against_hand_over() {
    model(4, || {
        let pool = pool(2, 1);
        let producer = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || {
                let mut bytes = Bytes::from(content(1, 512));
                let (time, owned) = (TimeNs::new(1), Content::Owned(&mut bytes));
                let result = pool.put(Item { volume: 0, offset: 0, time, content: owned });
                assert_eq!(bytes.is_empty(), result.is_ok());
                vec![(1, result)]
            })
        };
        let log = consume(&pool, 2, true);
        let log = log.join().unwrap();
        log.close(&pool, [producer.join().unwrap()]);
        assert_eq!(pool.statistics().bytes_waiting, 0);
    });
}

/// Goal: a chain against another producer's write and an impatient consumer: whole or not at all, and all its frames come back.
#[test]
fn loom_chain() {
    for impatient in [false, true] {
        model(2, move || {
            let pool = pool(4, 2);
            let long = spawn(&pool, vec![1], 3);
            let short = spawn(&pool, vec![2], 1);
            let log = consume(&pool, 2, impatient);
            let log = log.join().unwrap();
            log.close(&pool, [long.join().unwrap(), short.join().unwrap()]);
        });
    }
}
