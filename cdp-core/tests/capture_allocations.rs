//! The frame pool allocates nothing and frees nothing while it takes writes, whatever they are and however it answers.
//!
//! A process of its own, because it counts what the allocator is asked for.

// The allocator's trait is unsafe to implement.
#![allow(unsafe_code, clippy::unwrap_used)]

use bytes::Bytes;
use cdp_core::{
    testing::pool::{Content, Item, Next, Pool, PoolOptions, Refused},
    units::TimeNs,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::IoSlice,
    thread,
};

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // Past the end of a thread's life there is nothing to count.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: hands every request to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Calls of the allocator by this thread during `work`.
fn calls<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = CALLS.get();
    let result = work();
    (CALLS.get() - before, result)
}

fn put(pool: &Pool, content: Content<'_>) -> Result<(), Refused> {
    pool.put(Item { volume: 1, offset: 512, time: TimeNs::new(1), content }).map(|_| ())
}

/// How many of `rounds` rounds of writes of each kind and size were accepted.
fn rounds(pool: &Pool, data: &[u8], owned: &mut [Bytes]) -> usize {
    let mut accepted = 0;
    for bytes in owned {
        for length in [512, 4096, 1 << 20, (1 << 20) + 512, 3 << 20] {
            let (head, tail) = data[..length].split_at(length / 3);
            let buffers = [IoSlice::new(head), IoSlice::new(tail)];
            accepted += usize::from(put(pool, Content::Copied(&buffers)).is_ok());
        }
        accepted += usize::from(put(pool, Content::Zero { length: 512 }).is_ok());
        accepted += usize::from(put(pool, Content::Discard { length: 512 }).is_ok());
        accepted += usize::from(put(pool, Content::Owned(bytes)).is_ok());
        assert_eq!(put(pool, Content::Copied(&[])), Err(Refused::Invalid));
    }
    accepted
}

/// Goal: no call of the allocator in `put`. Method: a counting allocator; all kinds of writes, changes of frame, chains, a pool that
/// becomes full and is drained, alone and beside another producer; and the counter is shown to count.
#[test]
fn put_never_calls_the_allocator() {
    let (counted, _) = calls(|| vec![1_u8; 100]);
    assert_eq!(counted, 1, "the counter counts");

    let data = vec![3; 3 << 20];
    let handed_over = || (0..64).map(|_| Bytes::from(vec![4; 4096])).collect::<Vec<_>>();
    let pool = Pool::new(PoolOptions { frames: 24 }).unwrap();
    for _ in 0..3 {
        let mut owned = handed_over();
        let (counted, accepted) = calls(|| rounds(&pool, &data, &mut owned));
        assert_eq!(counted, 0);
        assert!((20..64 * 8).contains(&accepted), "some were refused, and some not: {accepted}");
        let mut consumer = pool.consumer().unwrap();
        while let Next::Item(_) = consumer.next() {}
    }
    thread::scope(|scope| {
        let producers: Vec<_> = (0..2)
            .map(|_| {
                // Until some were accepted: the other one may fill the pool before the consumer is let run.
                scope.spawn(|| {
                    loop {
                        let mut owned = handed_over();
                        let (counted, accepted) = calls(|| rounds(&pool, &data, &mut owned));
                        if counted > 0 || accepted > 0 {
                            break counted;
                        }
                    }
                })
            })
            .collect();
        let mut consumer = pool.consumer().unwrap();
        while producers.iter().any(|producer| !producer.is_finished()) {
            while let Next::Item(_) = consumer.next() {}
        }
        for producer in producers {
            assert_eq!(producer.join().unwrap(), 0);
        }
    });
}
