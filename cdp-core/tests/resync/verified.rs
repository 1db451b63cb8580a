//! Verify, with and without a tap.

use crate::support::{BLOCK, Disk, Random, create, fill_both, image_at, memory, newest, resync, verify};
use cdp_core::{ResyncMode, SourceState, TapOptions};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Goal: verify gives no false alarm while blocks change, finds what differs for certain, and repairs it through the tap. Method: a thread that
/// writes, waits and captures; then the same with differences behind the tap's back.
#[test]
fn verify_beside_a_writer_gives_no_false_alarm() {
    let mut random = Random::for_test("verify_beside_a_writer_gives_no_false_alarm");
    let blocks = 1024;
    let store = create(&memory(), blocks * BLOCK);
    let runner = store.start_runner().unwrap();
    let disk = Disk::device(blocks * BLOCK);
    let options = TapOptions { source: SourceState::Equal, ..TapOptions::default() };
    let tap = store.tap("disk", disk.clone(), options).unwrap();
    let stop = AtomicBool::new(false);
    let seed = random.0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(seed);
            while !stop.load(Ordering::SeqCst) {
                let index = blocks / 2 + random.below(blocks / 2);
                let data = random.block();
                disk.write(index * BLOCK, &data);
                // The application has no answer yet.
                if random.below(8) == 0 {
                    std::thread::sleep(Duration::from_millis(3));
                }
                tap.capture((index * BLOCK) as u64, &data).unwrap();
            }
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(600) {
            let report = verify(&store, &disk, false);
            assert_eq!(report.extents, [], "false alarm: {report:?}");
        }
        disk.write(11 * BLOCK, &random.block());
        disk.write(12 * BLOCK, &random.block());
        let report = verify(&store, &disk, false);
        assert_eq!((report.extents.len(), report.bytes_different), (1, 2 * BLOCK as u64), "{report:?}");
        assert!(!report.repaired);
        assert!(verify(&store, &disk, true).repaired);
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(verify(&store, &disk, false).extents, []);
    assert!(newest(&store) == disk.image());
    tap.detach().unwrap();
    drop(runner);
}

/// Goal: without a tap verify says exactly where both sides differ, changes nothing, and with repair mends the store and not the source; a
/// resync afterwards finds nothing. Method: random differences, also in holes, in parts of blocks, and at the end of an odd size.
#[test]
fn verify_finds_and_mends_exactly_what_differs() {
    let mut random = Random::for_test("verify_finds_and_mends_exactly_what_differs");
    let bytes = 700 * BLOCK + 1536;
    let store = create(&memory(), bytes);
    let disk = Disk::new(bytes);
    fill_both(&mut random, &store, &disk, 700);
    assert_eq!(verify(&store, &disk, true).extents, []);
    let seq = store.newest().seq;
    let volume = store.volume(None).unwrap();
    let mut expected = vec![false; 701];
    for _ in 0..30 {
        let index = random.below(700);
        volume
            .write((index * BLOCK + 512 * random.below(8)) as u64, &[random.below(255) as u8 + 1; 512])
            .unwrap();
    }
    disk.write(700 * BLOCK + 1024, &[9; 512]);
    let (old, image) = (newest(&store), disk.image());
    for (index, (one, other)) in image.chunks(BLOCK).zip(old.chunks(BLOCK)).enumerate() {
        expected[index] = one != other;
    }
    let wrote = store.newest().seq;
    let report = verify(&store, &disk, false);
    assert_eq!(store.newest().seq, wrote, "nothing was changed");
    let mut found = vec![false; 701];
    for extent in &report.extents {
        let blocks = extent.offset as usize / BLOCK..(extent.end() as usize).div_ceil(BLOCK);
        blocks.for_each(|index| found[index] = true);
    }
    assert_eq!(found, expected);
    let mended = verify(&store, &disk, true);
    assert!(mended.repaired && mended.extents == report.extents, "{mended:?}");
    assert!(newest(&store) == image && disk.image() == image);
    assert!(image_at(&store, wrote) == old && image_at(&store, seq).len() == bytes);
    assert_eq!(verify(&store, &disk, false).extents, []);
    assert_eq!(
        resync(&store, &disk, ResyncMode::Quick).fallback,
        None,
        "what was mended is known to be equal"
    );
}
