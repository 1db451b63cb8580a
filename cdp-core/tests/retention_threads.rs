//! Retention from several threads at once: runs, background work and a writer of one store.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use cdp_core::{
    CreateOptions, Error, OpenOptions, Stepped, Store,
    io::{ManualClock, MemoryStorage},
    retention::Policy,
    units::{Seq, TimeNs},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

const BLOCK: usize = 4096;
const BLOCKS: usize = 64;
const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_767_225_600 * SECOND;
const RUNS: usize = 40;
const WRITES_A_RUN: u64 = 50;
/// Far more than all of it takes on a slow machine.
const TOO_LONG: Duration = Duration::from_secs(240);

fn content(block: usize, seq: u64) -> Vec<u8> {
    [(block as u64).to_le_bytes(), seq.to_le_bytes()].concat().repeat(BLOCK / 16)
}

/// What a run in each of two threads, steps of background work and a writer make of a store; the seqs that were written.
fn carry_out(store: &Store, clock: &ManualClock) -> Vec<usize> {
    let stop = AtomicBool::new(false);
    let (ended, end) = mpsc::channel();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut blocks, mut state) = (Vec::new(), 5_u64);
            while !stop.load(Ordering::Relaxed) {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let block = usize::try_from(state >> 33).unwrap() % BLOCKS;
                let seq = blocks.len() as u64 + 1;
                clock.set(TimeNs::new(START + seq * SECOND));
                let data = content(block, seq);
                assert_eq!(
                    store.volume(None).unwrap().write((block * BLOCK) as u64, &data).unwrap().get(),
                    seq
                );
                blocks.push(block);
                if seq.is_multiple_of(16) {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            blocks
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if store.step(Default::default()).unwrap() != Stepped::More {
                    thread::yield_now();
                }
            }
        });
        for _ in 0..2 {
            let ended = ended.clone();
            scope.spawn(move || {
                for _ in 0..RUNS {
                    let newest = store.newest();
                    store.run_retention(newest.time).unwrap();
                    while store.newest().seq.get() < newest.seq.get() + WRITES_A_RUN {
                        thread::yield_now();
                    }
                }
                ended.send(()).unwrap();
            });
        }
        // Threads that never end cannot be joined: the process says so and ends.
        for _ in 0..2 {
            if end.recv_timeout(TOO_LONG).is_err() {
                println!("a run of retention does not come to its end beside background work");
                std::process::abort();
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    })
}

/// Goal: planners in several threads do not change each other's plans, each run ends, and what stays is right. Method: runs in two threads,
/// background work in a third and a writer; then every point is opened or refused, and each that opens is compared with the history.
#[test]
fn runs_beside_background_work_end_and_keep_what_is_right() {
    let clock = Arc::new(ManualClock::new(TimeNs::new(START)));
    let options = OpenOptions {
        clock: clock.clone(),
        segment_bytes: 512 << 10,
        run_fanout: 2,
        ..OpenOptions::default()
    };
    let create = CreateOptions { volume: "disk".into(), bytes: (BLOCKS * BLOCK) as u64 };
    let store = Store::create(Arc::new(MemoryStorage::new()), &create, options).unwrap();
    let policy =
        "[[window]]\nto = \"300s\"\nkeep = \"all\"\n\n[[window]]\nto = \"1h\"\nkeep = { every = \"2m\" }\n";
    store.set_policy(&Policy::from_toml(policy).unwrap()).unwrap();
    let written = carry_out(&store, &clock);
    store.run_retention(store.newest().time).unwrap();
    let mut image = vec![0; BLOCKS * BLOCK];
    let mut expected = image.clone();
    let mut open = Vec::new();
    for (seq, block) in (1..).zip(&written) {
        let at = block * BLOCK;
        expected[at..at + BLOCK].copy_from_slice(&content(*block, seq));
        match store.volume(None).unwrap().snapshot(Seq::new(seq)) {
            Ok(snapshot) => {
                snapshot.read(0, &mut image).unwrap();
                assert!(image == expected, "seq {seq} is not what was written");
                open.push(seq);
            }
            Err(error) => assert!(matches!(error, Error::PointUnavailable(_)), "seq {seq}: {error}"),
        }
    }
    let newest = written.len() as u64;
    println!("{} of {newest} points are left", open.len());
    assert!(newest > 1000, "only {newest} writes: nothing was dropped");
    // From the last state before the last 300 seconds on; before that, one in each two minutes that are over.
    let full = newest - 300;
    let slots = |seq: u64| (START / SECOND + seq) / 120;
    let decided = slots(full);
    let ends = |seq: &u64| *seq > full || slots(*seq) >= decided || slots(seq + 1) != slots(*seq);
    let expected: Vec<u64> =
        (newest.saturating_sub(3599)..=newest).filter(|seq| *seq > 0).filter(ends).collect();
    assert_eq!(open, expected);
    assert_eq!(store.check(true, &mut |_| {}).unwrap().damaged, []);
}
