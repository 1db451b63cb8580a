//! A volume with a tap, whose source is written all the time.

use crate::support::{BLOCK, Disk, Random, create, memory, newest, with};
use cdp_core::{ResyncMode, SourceState, Tap, TapOptions};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Goal: a tapped volume is compared as a whole while a writer changes the source all the time; no write is lost, and what was changed behind
/// the tap's back is found. Method: a thread that writes and captures, a resync in each mode, then the image.
#[test]
fn a_tap_is_resynced_while_its_source_is_written() {
    let mut random = Random::for_test("a_tap_is_resynced_while_its_source_is_written");
    let blocks = 4096;
    let store = create(&memory(), blocks * BLOCK);
    let runner = store.start_runner().unwrap();
    let disk = Disk::new(blocks * BLOCK);
    let options = TapOptions { source: SourceState::Equal, ..TapOptions::default() };
    let tap = store.tap("disk", disk.clone(), options).unwrap();
    for mode in [ResyncMode::Digest, ResyncMode::Full] {
        let behind: Vec<usize> = (0..20).map(|_| random.below(blocks / 2)).collect();
        for index in &behind {
            disk.write(index * BLOCK, &random.block());
        }
        let stop = AtomicBool::new(false);
        let seed = random.0;
        std::thread::scope(|scope| {
            scope.spawn(|| write_and_capture(&mut Random(seed), &disk, &tap, blocks / 2..blocks, &stop));
            let report = tap.resync(&with(mode), &mut |_| {}, &|| false).unwrap();
            assert!(report.counts.bytes_different >= BLOCK as u64, "{mode:?}: {report:?}");
            stop.store(true, Ordering::SeqCst);
        });
        assert!(tap.is_whole());
        store.flush().unwrap();
        assert!(newest(&store) == disk.image(), "{mode:?}");
    }
    tap.detach().unwrap();
    drop(runner);
}

fn write_and_capture(
    random: &mut Random,
    disk: &Disk,
    tap: &Tap,
    among: std::ops::Range<usize>,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::SeqCst) {
        let index = among.start + random.below(among.len());
        let data = random.block();
        disk.write(index * BLOCK, &data);
        tap.capture((index * BLOCK) as u64, &data).unwrap();
        if random.below(64) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
