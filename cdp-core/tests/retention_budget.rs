//! What background work copies depends on how much space there is.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use cdp_core::{
    CreateOptions, OpenOptions, Stats, Stepped, Store,
    io::{ManualClock, MemoryStorage},
    retention::Policy,
    units::{Seq, TimeNs},
};
use std::sync::Arc;

/// Bytes of a write.
const BLOCK: u64 = 16 << 10;
const BLOCKS: u64 = 1024;
/// Enough for the smallest bound.
const WRITES: u64 = 8500;
const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_767_225_600 * SECOND;

fn policy(max_bytes: u64) -> Policy {
    let text =
        "[[window]]\nto = \"300s\"\nkeep = \"all\"\n\n[[window]]\nto = \"2h\"\nkeep = { every = \"2m\" }\n";
    Policy { max_bytes: Some(max_bytes), ..Policy::from_toml(text).unwrap() }
}

/// The block that a write goes to: three of four to a hot spot, the others anywhere.
fn block_of(seq: u64) -> u64 {
    let random =
        seq.wrapping_mul(6_364_136_223_846_793_005).rotate_left(29).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    if seq.is_multiple_of(4) { random % BLOCKS } else { random % 64 }
}

fn content(seq: u64) -> Vec<u8> {
    seq.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes().repeat(2048)
}

/// A store with a history, a write a second.
fn store(clock: &Arc<ManualClock>) -> Store {
    let options = OpenOptions { clock: clock.clone(), segment_bytes: 3 << 19, ..OpenOptions::default() };
    let create = CreateOptions { volume: "disk".into(), bytes: BLOCKS * BLOCK };
    let store = Store::create(Arc::new(MemoryStorage::new()), &create, options).unwrap();
    let volume = store.volume(None).unwrap();
    for seq in 1..=WRITES {
        clock.set(TimeNs::new(START + seq * SECOND));
        volume.write(block_of(seq) * BLOCK, &content(seq)).unwrap();
    }
    store.flush().unwrap();
    store
}

/// Figures before and after all that background work does under a bound of which the history fills so many thousandths.
fn thinned(fill: u64) -> (Stats, Stats) {
    let clock = Arc::new(ManualClock::new(TimeNs::new(START)));
    let store = store(&clock);
    let before = store.stats().unwrap();
    // An eighth of a bound is left alone by writes.
    let bound = before.stored_bytes * 1000 / fill * 8 / 7;
    store.set_policy(&policy(bound)).unwrap();
    assert!(store.step_retention().unwrap(), "a plan is due");
    while store.step(Default::default()).unwrap() == Stepped::More {}
    let after = store.stats().unwrap();
    assert_contents(&store, &after);
    (before, after)
}

/// The newest state and every state of the full range are what was written.
fn assert_contents(store: &Store, stats: &Stats) {
    let volume = store.volume(None).unwrap();
    for seq in [stats.horizon.seq.get(), WRITES - 100, WRITES] {
        let snapshot = volume.snapshot(Seq::new(seq)).unwrap();
        let mut expected = vec![0; usize::try_from(BLOCKS * BLOCK).unwrap()];
        for written in 1..=seq {
            let at = usize::try_from(block_of(written) * BLOCK).unwrap();
            expected[at..at + 16_384].copy_from_slice(&content(written));
        }
        let mut image = vec![0; expected.len()];
        snapshot.read(0, &mut image).unwrap();
        assert!(image == expected, "seq {seq}");
    }
}

/// Goal: background work copies nothing while there is plenty of space, and more the nearer the bound is. Method: the same history under
/// bounds of which it fills a third, six, eight and nine tenths; what was written for it and what the store takes up, and what is read.
#[test]
fn what_is_copied_follows_the_space_budget() {
    let ran: Vec<(u64, u64)> = [330, 600, 800, 920]
        .into_iter()
        .map(|fill| {
            let (before, after) = thinned(fill);
            let written = after.written_bytes - before.written_bytes;
            println!("fill {fill}: {written} written, {} -> {}", before.stored_bytes, after.stored_bytes);
            (written, after.stored_bytes)
        })
        .collect();
    let written: Vec<u64> = ran.iter().map(|ran| ran.0).collect();
    let stored: Vec<u64> = ran.iter().map(|ran| ran.1).collect();
    assert!(written.is_sorted() && stored.is_sorted_by(|a, b| a >= b), "{ran:?}");
    // The index, four entries a write, is sealed and merged, and nothing else is written.
    assert!(written[0] <= WRITES * 4 * 64, "copied while there was plenty: {ran:?}");
    assert!(
        written[3] > 4 << 20 && stored[3] + (8 << 20) < stored[0],
        "nothing copied near the bound: {ran:?}"
    );
}
