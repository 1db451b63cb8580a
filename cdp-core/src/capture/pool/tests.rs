//! Tests of the pool with small frames, by one thread with producers stopped half way, and by many threads.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::print_stdout, reason = "tests")]

use super::{slots::Descriptor, word::TAG_PERIOD, *};
use crate::io::simulated::SimRng;
use std::{
    slice,
    sync::atomic::{AtomicBool, AtomicU64 as Counter, Ordering as Std},
    thread,
};

/// Frames of 8 slots and 8 sectors.
fn small(frames: usize) -> Shape {
    Shape { frames, frame_slots: 8, frame_sectors: 8, owned_bytes_max: 8192, first_order: 1 }
}

fn pool(frames: usize) -> Pool {
    Pool::with(small(frames)).unwrap()
}

/// Content that names its write.
fn payload(tag: u64, sectors: usize) -> Vec<u8> {
    (0..sectors * 64).flat_map(|word| (tag << 16 | word as u64).to_le_bytes()).collect()
}

fn item(tag: u64, content: Content<'_>) -> Item<'_> {
    Item { volume: 7, offset: tag * SECTOR_BYTES, time: TimeNs::new(tag), content }
}

fn put_data(pool: &Pool, tag: u64, sectors: usize) -> Result<Position, Refused> {
    let data = payload(tag, sectors);
    // In two uneven buffers, so that buffers and sectors do not fall together.
    let (head, tail) = data.split_at(data.len() / 3);
    pool.put(item(tag, Content::Copied(&[IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(tail)])))
}

fn write(tag: u64, sectors: u64) -> Write {
    let (offset, length) = (tag * SECTOR_BYTES, sectors * SECTOR_BYTES);
    Write { volume: 7, kind: Kind::Data, offset, length, time: TimeNs::new(tag) }
}

/// Checks a taken write against its tag, and returns the tag.
fn check(taken: &Taken<'_>) -> u64 {
    let tag = taken.write().time.get();
    assert_eq!(taken.write().offset, tag * SECTOR_BYTES);
    assert_eq!(taken.write().volume, 7);
    let bytes: Vec<u8> = taken.parts().flatten().copied().collect();
    match taken.write().kind {
        Kind::Data => {
            assert_eq!(len_u64(bytes.len()), taken.write().length);
            assert!(bytes == payload(tag, bytes.len() / SECTOR_LEN), "payload of write {tag}");
        }
        Kind::Zero | Kind::Discard => assert!(bytes.is_empty()),
    }
    tag
}

fn next_tag(consumer: &mut Consumer<'_>) -> Option<u64> {
    match consumer.next() {
        Next::Item(taken) => Some(check(&taken)),
        Next::Waiting(stalled) => panic!("nothing is under way, but {stalled:?}"),
        Next::Empty => None,
    }
}

fn drain(pool: &Pool) -> Vec<u64> {
    let mut consumer = pool.consumer().unwrap();
    std::iter::from_fn(|| next_tag(&mut consumer)).collect()
}

fn all_free_but_one(pool: &Pool) {
    let statistics = pool.statistics();
    assert_eq!(statistics.frames_free, statistics.frames - 1, "{statistics:?}");
    assert_eq!((statistics.frames_set_aside, statistics.bytes_waiting), (0, 0));
}

/// Goal: writes of every kind come out in order and intact. Method: one thread, more than one frame, then the counts.
#[test]
fn writes_of_every_kind_come_out_in_order() {
    let pool = pool(4);
    let mut last = None;
    let mut owned = Bytes::from(payload(2, 1));
    for (tag, content) in [
        (1, Content::Zero { length: 1 << 40 }),
        (2, Content::Owned(&mut owned)),
        (3, Content::Discard { length: 512 }),
    ] {
        let position = pool.put(item(tag, content)).unwrap();
        assert!(last < Some(position));
        last = Some(position);
    }
    assert!(owned.is_empty(), "handed over");
    for tag in 4..12 {
        let position = put_data(&pool, tag, 3).unwrap();
        assert!(last < Some(position));
        last = Some(position);
    }
    assert_eq!(pool.statistics().bytes_waiting, 512 + 8 * 3 * 512);
    assert_eq!(drain(&pool), (1..12).collect::<Vec<_>>());
    all_free_but_one(&pool);
}

/// Goal: the bounds of a pool and of a write. Method: at each bound and one past it.
#[test]
fn bounds_are_kept() {
    for frames in [0, POOL_FRAMES_MIN - 1, POOL_FRAMES_MAX + 1, usize::MAX] {
        assert_eq!(Pool::new(PoolOptions { frames }).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    let pool = Pool::new(PoolOptions { frames: 18 }).unwrap();
    let data = vec![5; (16 << 20) + 512];
    fn put_one(pool: &Pool, content: Content<'_>) -> Result<(), Refused> {
        pool.put(item(1, content)).map(|_| ())
    }
    assert_eq!(put_one(&pool, Content::Copied(&[IoSlice::new(&data)])), Err(Refused::Invalid));
    assert_eq!(put_one(&pool, Content::Copied(&[IoSlice::new(&data[..16 << 20])])), Ok(()));
    assert_eq!(put_one(&pool, Content::Copied(&[IoSlice::new(&data[..511])])), Err(Refused::Invalid));
    assert_eq!(put_one(&pool, Content::Copied(&[])), Err(Refused::Invalid));
    assert_eq!(put_one(&pool, Content::Owned(&mut Bytes::new())), Err(Refused::Invalid));
    assert_eq!(put_one(&pool, Content::Owned(&mut Bytes::from(data))), Err(Refused::Invalid));
    assert_eq!(put_one(&pool, Content::Zero { length: 0 }), Err(Refused::Invalid));
    assert_eq!(put_one(&pool, Content::Zero { length: 513 }), Err(Refused::Invalid));
    assert_eq!(
        put_one(&pool, Content::Discard { length: u64::MAX - 511 }),
        Err(Refused::Invalid),
        "past the end"
    );
    let odd = Item { volume: 0, offset: 1, time: TimeNs::ZERO, content: Content::Zero { length: 512 } };
    assert_eq!(pool.put(odd), Err(Refused::Invalid));
    let mut consumer = pool.consumer().unwrap();
    let Next::Item(taken) = consumer.next() else { panic!("one write was taken") };
    assert_eq!(taken.parts().map(<[u8]>::len).collect::<Vec<_>>(), vec![1 << 20; 16]);
    assert!(matches!(consumer.next(), Next::Empty));
    drop(consumer);
    all_free_but_one(&pool);
}

/// Goal: a frame takes as many writes as it has slots. Method: zeroes up to the bound and one past it.
#[test]
fn a_frame_without_slots_is_followed_by_another() {
    let pool = pool(2);
    for tag in 0..9 {
        let position = pool.put(item(tag, Content::Zero { length: 512 })).unwrap();
        assert_eq!((position.order, position.slot), (1 + tag / 8, (tag % 8) as u32));
    }
    assert_eq!(drain(&pool), (0..9).collect::<Vec<_>>());
    all_free_but_one(&pool);
}

/// Goal: one consumer at a time, and the next one goes on where the last one stopped.
#[test]
fn there_is_one_consumer_at_a_time() {
    let pool = pool(2);
    put_data(&pool, 1, 1).unwrap();
    put_data(&pool, 2, 1).unwrap();
    let mut consumer = pool.consumer().unwrap();
    assert!(pool.consumer().is_none());
    assert_eq!(next_tag(&mut consumer), Some(1));
    drop(consumer);
    assert_eq!(drain(&pool), [2]);
}

/// Goal: chains of every length keep their content, leave their last frame to others, and are all or nothing.
/// Method: all lengths from one sector past a frame to the largest, in pools that are exactly large enough or one frame short.
#[test]
fn chains_are_whole() {
    for sectors in 9..=16 * 8_usize {
        let frames = sectors.div_ceil(8);
        let enough = pool(frames + 1);
        let first = put_data(&enough, 1, 1).unwrap();
        let chain = put_data(&enough, 2, sectors).unwrap();
        assert_eq!(chain, Position { order: first.order + 1, slot: 0 });
        if !sectors.is_multiple_of(8) {
            let after = put_data(&enough, 3, 1).unwrap();
            assert_eq!(after, Position { order: first.order + frames as u64, slot: 1 });
        }
        let expected = if sectors.is_multiple_of(8) { 1..3 } else { 1..4 };
        assert_eq!(drain(&enough), expected.collect::<Vec<_>>());
        all_free_but_one(&enough);

        let short = pool(frames.max(2));
        put_data(&short, 1, 1).unwrap();
        assert_eq!(put_data(&short, 2, sectors), Err(Refused::Exhausted { sealed: 1 }));
        assert_eq!(short.statistics().frames_free, frames.max(2) - 1, "nothing is kept");
        assert_eq!(put_data(&short, 3, 1), Ok(Position { order: 2, slot: 0 }), "behind the gap");
        assert_eq!(drain(&short), [1, 3]);
    }
    assert_eq!(put_data(&pool(20), 1, 16 * 8 + 1), Err(Refused::Invalid));
}

/// Goal: a full pool refuses, says where the gap is, and works again. Method: fill, refuse twice, drain, fill.
#[test]
fn an_exhausted_pool_recovers() {
    let pool = pool(3);
    for round in 0..5 {
        let mut taken = 0;
        let sealed = loop {
            match put_data(&pool, taken, 8) {
                Ok(_) => taken += 1,
                Err(Refused::Exhausted { sealed }) => break sealed,
                Err(other) => panic!("{other:?}"),
            }
        };
        assert_eq!(taken, if round == 0 { 3 } else { 2 }, "the last frame stays in the chain");
        let refused_again = pool.put(item(0, Content::Zero { length: 512 }));
        assert_eq!(refused_again, Err(Refused::Exhausted { sealed }), "a sealed frame takes nothing more");
        let mut consumer = pool.consumer().unwrap();
        assert!(consumer.order() <= sealed);
        for tag in 0..taken {
            assert_eq!(next_tag(&mut consumer), Some(tag));
        }
        assert_eq!(next_tag(&mut consumer), None);
        assert_eq!(consumer.order(), sealed + 1, "everything before the gap was taken");
        drop(consumer);
        all_free_but_one(&pool);
    }
}

/// Goal: handed-over payload counts against a budget until it is released, and a refused one stays the caller's.
#[test]
fn payload_handed_over_has_a_budget() {
    let pool = pool(4);
    let mut first = Bytes::from(payload(1, 16));
    pool.put(item(1, Content::Owned(&mut first))).unwrap();
    let mut second = Bytes::from(payload(2, 1));
    let refused = pool.put(item(2, Content::Owned(&mut second)));
    assert_eq!(refused, Err(Refused::Exhausted { sealed: 1 }));
    assert_eq!(second.len(), 512, "still the caller's");
    {
        let mut consumer = pool.consumer().unwrap();
        let Next::Item(taken) = consumer.next() else { panic!("one write was taken") };
        assert_eq!(check(&taken), 1);
        assert_eq!(taken.handed_over().map(Bytes::len), Some(8192));
        assert_eq!(pool.statistics().bytes_waiting, 8192, "lent");
        assert_eq!(next_tag(&mut consumer), None);
        assert_eq!(pool.statistics().bytes_waiting, 0, "released");
    }
    assert_eq!(pool.put(item(2, Content::Owned(&mut second))), Ok(Position { order: 2, slot: 0 }));
    assert_eq!(drain(&pool), [2]);
}

/// Goal: the consumer's seal separates what was reserved before from what comes after. Method: one thread, also on an empty frame.
#[test]
fn a_seal_separates() {
    let pool = pool(4);
    let mut consumer = pool.consumer().unwrap();
    assert_eq!(consumer.seal(), 0, "nothing was reserved");
    let before = put_data(&pool, 1, 1).unwrap();
    let sealed = consumer.seal();
    assert_eq!((before.order, sealed, consumer.seal()), (1, 1, 1));
    assert_eq!(put_data(&pool, 2, 1).unwrap(), Position { order: 2, slot: 0 });
    assert_eq!(consumer.order(), 1);
    assert_eq!(next_tag(&mut consumer), Some(1));
    assert_eq!(consumer.order(), 2);
    assert_eq!(next_tag(&mut consumer), Some(2));
    assert_eq!(consumer.order(), 2);
    assert_eq!(next_tag(&mut consumer), None);
}

/// Goal: a write that is late blocks what follows only until it is set aside, and its frame comes back when it ends.
/// Method: a producer stopped before its description, and one stopped before its payload.
#[test]
fn a_late_write_is_set_aside_and_gives_its_frame_back() {
    for described in [false, true] {
        let pool = pool(2);
        put_data(&pool, 1, 1).unwrap();
        let claim = pool.reserve(2).unwrap();
        let descriptor = Descriptor { write: write(2, 2), first_sector: claim.first_sector, frames: 1 };
        if described {
            assert!(pool.slots.describe(&claim, descriptor));
        }
        put_data(&pool, 3, 1).unwrap();
        let mut consumer = pool.consumer().unwrap();
        assert_eq!(consumer.set_aside(), SetAside::Nothing, "the next one is complete");
        assert_eq!(next_tag(&mut consumer), Some(1));
        let position = Position { order: 1, slot: 1 };
        for _ in 0..2 {
            assert!(matches!(consumer.next(), Next::Waiting(stalled) if stalled.position == position));
        }
        let expected = if described { SetAside::Described(write(2, 2)) } else { SetAside::Unknown };
        assert_eq!(consumer.set_aside(), expected);
        assert_eq!(next_tag(&mut consumer), Some(3), "the rest of the frame");
        put_data(&pool, 4, 8).unwrap();
        assert_eq!(next_tag(&mut consumer), Some(4));
        assert_eq!(next_tag(&mut consumer), None);
        drop(consumer);
        let statistics = pool.statistics();
        assert_eq!((statistics.frames_free, statistics.frames_set_aside), (0, 1));
        assert_eq!(put_data(&pool, 5, 1), Err(Refused::Exhausted { sealed: 2 }));

        // The late producer goes on.
        let claims = slice::from_ref(&claim).iter();
        let data = payload(2, 2);
        let ended = if described {
            pool.fill(claims, &[IoSlice::new(&data)])
        } else {
            pool.end(claims, pool.slots.describe(&claim, descriptor))
        };
        assert_eq!(ended, Err(Refused::Abandoned));
        all_free_but_one(&pool);
        for round in 6..30 {
            put_data(&pool, round, 8).unwrap();
            assert_eq!(drain(&pool), [round], "its slots are clean");
        }
    }
}

/// Goal: a late chain keeps all of its frames out, and its last frame goes on taking writes.
#[test]
fn a_late_chain_is_set_aside_as_a_whole() {
    let pool = pool(5);
    let chain = pool.reserve_chain(write(1, 20)).unwrap();
    put_data(&pool, 2, 4).unwrap();
    put_data(&pool, 3, 1).unwrap();
    let mut consumer = pool.consumer().unwrap();
    assert!(matches!(consumer.next(), Next::Waiting(_)));
    assert_eq!(consumer.set_aside(), SetAside::Described(write(1, 20)));
    assert_eq!(next_tag(&mut consumer), Some(2));
    assert_eq!(next_tag(&mut consumer), Some(3));
    assert_eq!(next_tag(&mut consumer), None);
    drop(consumer);
    let statistics = pool.statistics();
    assert_eq!((statistics.frames_free, statistics.frames_set_aside), (1, 3), "{statistics:?}");
    let data = payload(1, 20);
    assert_eq!(pool.fill(chain.claims(), &[IoSlice::new(&data)]), Err(Refused::Abandoned));
    all_free_but_one(&pool);
}

/// Goal: payload handed over by a late producer goes back to it, and off the budget.
#[test]
fn an_abandoned_hand_over_goes_back() {
    let pool = pool(3);
    let claim = pool.reserve(0).unwrap();
    let mut consumer = pool.consumer().unwrap();
    assert_eq!(consumer.set_aside(), SetAside::Unknown);
    let mut bytes = Bytes::from(payload(1, 1));
    let descriptor = Descriptor { write: write(1, 1), first_sector: 0, frames: 0 };
    let completed = pool.slots.complete(&claim, descriptor, Some(&mut bytes));
    assert_eq!(pool.end(slice::from_ref(&claim).iter(), completed), Err(Refused::Abandoned));
    assert_eq!(bytes, payload(1, 1));
    drop(consumer);
    put_data(&pool, 2, 1).unwrap();
    assert_eq!(drain(&pool), [2]);
}

/// Goal: the tag in a frame word may wrap. Method: orders on both sides of the wrap, chains and seals among them.
#[test]
fn order_wraps_in_the_frame_word() {
    let first_order = TAG_PERIOD - 4;
    let pool = Pool::with(Shape { first_order, ..small(4) }).unwrap();
    let mut last = None;
    for tag in 0..40 {
        let position = put_data(&pool, tag, if tag % 5 == 4 { 17 } else { 5 }).unwrap();
        assert!(last < Some(position));
        last = Some(position);
        assert_eq!(drain(&pool), [tag]);
        let mut consumer = pool.consumer().unwrap();
        assert_eq!(consumer.seal(), position.order + if tag % 5 == 4 { 2 } else { 0 });
    }
    assert!(last.is_some_and(|last| last.order > TAG_PERIOD));
    all_free_but_one(&pool);
}

/// What many producers and a consumer do, and what must come out.
struct Storm {
    shape: Shape,
    producers: u64,
    writes: u64,
    /// One in so many waits of the consumer ends with the write set aside; 0 for never.
    impatience: u64,
}

impl Storm {
    /// Runs producers beside a consumer. Each write that was accepted must come out once, intact, in its producer's order
    /// and at its place; each that was not must not come out; afterwards all frames are free.
    fn run(&self, seed: u64) {
        println!("seed {seed}");
        let pool = Pool::with(self.shape).unwrap();
        let running = Counter::new(self.producers);
        let (accepted, taken, abandoned, set_aside) = thread::scope(|scope| {
            let producers: Vec<_> = (0..self.producers)
                .map(|producer| {
                    let (pool, running) = (&pool, &running);
                    scope.spawn(move || {
                        let result = self.produce(pool, producer, seed);
                        running.fetch_sub(1, Std::Release);
                        result
                    })
                })
                .collect();
            let (taken, set_aside) = self.consume(&pool, &running, seed);
            let mut accepted = Vec::new();
            let mut abandoned = 0;
            for producer in producers {
                let (its, late) = producer.join().unwrap();
                assert!(its.is_sorted(), "seed {seed}: a producer's writes are reserved in its order");
                accepted.extend(its);
                abandoned += late;
            }
            (accepted, taken, abandoned, set_aside)
        });
        let mut expected = accepted;
        expected.sort_unstable();
        assert_eq!(taken.len(), expected.len(), "seed {seed}");
        assert!(taken == expected, "seed {seed}: places and writes");
        assert_eq!(abandoned, set_aside, "seed {seed}");
        all_free_but_one(&pool);
    }

    /// The places and tags of the writes that were accepted, and how many were abandoned.
    fn produce(&self, pool: &Pool, producer: u64, seed: u64) -> (Vec<(Position, u64)>, u64) {
        let mut random = SimRng::new(seed ^ (producer + 1) << 32);
        let (mut accepted, mut abandoned) = (Vec::new(), 0);
        let sectors_max = u64::from(self.shape.frame_sectors) * 2;
        for write in 0..self.writes {
            let tag = producer << 24 | write;
            let mut bytes;
            let put = match random.below(16) {
                0 => pool.put(item(tag, Content::Zero { length: 512 })),
                1 => pool.put(item(tag, Content::Discard { length: 1 << 40 })),
                2 => {
                    bytes = Bytes::from(payload(tag, 1));
                    pool.put(item(tag, Content::Owned(&mut bytes)))
                }
                3 => put_data(pool, tag, 1 + random.below(sectors_max) as usize),
                _ => put_data(pool, tag, 1 + random.below(3) as usize),
            };
            match put {
                Ok(position) => accepted.push((position, tag)),
                Err(Refused::Exhausted { sealed }) => {
                    assert!(accepted.last().is_none_or(|(last, _)| last.order <= sealed), "seed {seed}");
                    thread::yield_now();
                }
                Err(Refused::Abandoned) => abandoned += 1,
                Err(Refused::Invalid) => panic!("seed {seed}: a valid write"),
            }
        }
        (accepted, abandoned)
    }

    fn consume(&self, pool: &Pool, running: &Counter, seed: u64) -> (Vec<(Position, u64)>, u64) {
        let mut random = SimRng::new(seed);
        let mut consumer = pool.consumer().unwrap();
        let (mut taken, mut set_aside) = (Vec::<(Position, u64)>::new(), 0);
        let mut sealed = 0;
        loop {
            let over = running.load(Std::Acquire) == 0;
            match consumer.next() {
                Next::Item(item) => {
                    let entry = (item.position(), check(&item));
                    assert!(taken.last().is_none_or(|last| last.0 < entry.0), "seed {seed}: in order");
                    taken.push(entry);
                }
                Next::Waiting(_) if self.impatience > 0 && random.below(self.impatience) == 0 => {
                    set_aside += u64::from(consumer.set_aside() != SetAside::Nothing);
                }
                Next::Waiting(_) => thread::yield_now(),
                Next::Empty if over => return (taken, set_aside),
                Next::Empty => {
                    if random.below(8) == 0 {
                        let now = consumer.seal();
                        assert!(now >= sealed, "seed {seed}: seals only grow");
                        sealed = now;
                    }
                    thread::yield_now();
                }
            }
        }
    }
}

fn seed() -> u64 {
    match std::env::var("CDP_TEST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => getrandom::u64().unwrap(),
    }
}

fn writes(usual: u64) -> u64 {
    if cfg!(miri) { usual / 200 } else { usual }
}

/// Goal: exactly once, in order, intact, with eight producers. Method: random writes of every kind in frames of the usual size.
#[test]
fn eight_producers_in_usual_frames() {
    let shape = Shape {
        frames: 20,
        frame_slots: POOL_FRAME_SLOTS,
        frame_sectors: if cfg!(miri) { 64 } else { FRAME_SECTORS / 8 },
        owned_bytes_max: 1 << 20,
        first_order: 1,
    };
    Storm { shape, producers: 8, writes: writes(4_000), impatience: 0 }.run(seed());
}

/// Goal: the same where frames change at every other write. Method: tiny frames, few of them, over the wrap of the tag.
#[test]
fn eight_producers_in_tiny_frames() {
    for frames in [2, 3, 4, 9] {
        let shape = Shape { first_order: TAG_PERIOD - 50, ..small(frames) };
        Storm { shape, producers: 8, writes: writes(5_000), impatience: 0 }.run(seed());
    }
}

/// Goal: writes that are set aside at any moment are either taken or refused, never both or neither, and all frames come
/// back. Method: an impatient consumer.
#[test]
fn an_impatient_consumer_loses_no_frame() {
    for frames in [2, 5, 9] {
        Storm { shape: small(frames), producers: 4, writes: writes(10_000), impatience: 2 }.run(seed());
    }
}

/// Goal: what happens before another write comes before it. Method: threads take turns through a shared counter; the order
/// of turns must be the order of places.
#[test]
fn what_happens_before_comes_before() {
    let pool = Pool::with(small(16)).unwrap();
    let (turn, over) = (Counter::new(0), AtomicBool::new(false));
    let (threads, turns) = (3, writes(6_000));
    thread::scope(|scope| {
        let producers: Vec<_> = (0..threads)
            .map(|thread| {
                let (pool, turn) = (&pool, &turn);
                scope.spawn(move || {
                    let mine = (0..turns).filter(|turn| turn % threads == thread);
                    let mut places = Vec::new();
                    for number in mine {
                        while turn.load(Std::Acquire) != number {
                            thread::yield_now();
                        }
                        loop {
                            match put_data(pool, number, 1 + number as usize % 10) {
                                Ok(position) => break places.push((number, position)),
                                Err(Refused::Exhausted { .. }) => thread::yield_now(),
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                        turn.store(number + 1, Std::Release);
                    }
                    places
                })
            })
            .collect();
        let consumer = scope.spawn(|| {
            let mut consumer = pool.consumer().unwrap();
            let mut tags = Vec::new();
            loop {
                let last = over.load(Std::Acquire);
                match consumer.next() {
                    Next::Item(taken) => tags.push(check(&taken)),
                    Next::Empty if last => return tags,
                    Next::Empty | Next::Waiting(_) => thread::yield_now(),
                }
            }
        });
        let mut places: Vec<_> =
            producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect();
        over.store(true, Std::Release);
        places.sort_unstable();
        assert!(places.is_sorted_by_key(|(_, position)| *position));
        assert_eq!(consumer.join().unwrap(), (0..turns).collect::<Vec<_>>());
    });
}

/// Goal: a seal taken while producers run separates: what was reserved before it is up to it, what is reserved later is behind it.
/// Method: producers note the newest seal that they had seen before each put, and the sealing thread the newest places that it had
/// seen before each seal.
#[test]
fn seals_separate_while_producers_run() {
    let pool = Pool::with(small(32)).unwrap();
    let (sealed, newest, running) = (Counter::new(0), Counter::new(0), Counter::new(3));
    thread::scope(|scope| {
        for producer in 0..3 {
            let (pool, sealed, newest, running) = (&pool, &sealed, &newest, &running);
            scope.spawn(move || {
                for write in 0..writes(20_000) {
                    let before = sealed.load(Std::Acquire);
                    if let Ok(position) = put_data(pool, producer << 24 | write, 1) {
                        assert!(position.order > before, "behind every seal that came before");
                        newest.fetch_max(position.order, Std::AcqRel);
                    }
                }
                running.fetch_sub(1, Std::Release);
            });
        }
        let mut consumer = pool.consumer().unwrap();
        while running.load(Std::Acquire) > 0 {
            let before = newest.load(Std::Acquire);
            let now = consumer.seal();
            assert!(now >= before, "up to the seal");
            sealed.store(now, Std::Release);
            for _ in 0..20 {
                if let Next::Item(taken) = consumer.next() {
                    check(&taken);
                }
            }
        }
    });
    drain(&pool);
    all_free_but_one(&pool);
}
