//! A volume with a tap, whose source is written all the time.

use crate::support::{BLOCK, Disk, Random, create, memory, newest, with};
use cdp_core::{ResyncMode, SourceState, Tap, TapOptions};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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

/// Goal: a source that was changed while no tap watched it is compared, though the host says that it was not. Method: taps that begin as recorded, on a
/// disk that nobody changed, on one that was changed meanwhile, on one of which only the time was, and on a device, which has no stamp to tell.
#[test]
fn a_source_that_was_changed_without_a_tap_is_compared() {
    let blocks = 64;
    let store = create(&memory(), blocks * BLOCK);
    let (disk, device) = (Disk::new(blocks * BLOCK), Disk::device(blocks * BLOCK));
    let mut random = Random::for_test("a_source_that_was_changed_without_a_tap_is_compared");
    let begin = |disk: &Arc<Disk>, source: SourceState| {
        store.tap("disk", disk.clone(), TapOptions { source, ..TapOptions::default() }).unwrap()
    };
    let end = |tap: Tap, disk: &Disk| {
        while !tap.is_whole() {
            store.step(Default::default()).unwrap();
        }
        tap.detach().unwrap();
        assert!(newest(&store) == disk.image());
    };
    end(begin(&disk, SourceState::Unknown), &disk);
    let tap = begin(&disk, SourceState::AsRecorded);
    assert!(tap.is_whole(), "nobody changed it");
    let data = random.block();
    disk.write(5 * BLOCK, &data);
    tap.capture(5 * BLOCK as u64, &data).unwrap();
    end(tap, &disk);

    disk.write(7 * BLOCK, &random.block());
    let tap = begin(&disk, SourceState::AsRecorded);
    assert!(!tap.is_whole(), "it was changed");
    end(tap, &disk);
    let before = store.timeline().unwrap().gaps.len();
    disk.write(0, &[]);
    end(begin(&disk, SourceState::AsRecorded), &disk);
    assert_eq!(store.timeline().unwrap().gaps.len(), before + 1, "it has another stamp");
    disk.take_read();

    let tap = begin(&device, SourceState::AsRecorded);
    assert!(!tap.is_whole(), "it is not the disk that was stamped");
    end(tap, &device);
    assert!(begin(&device, SourceState::AsRecorded).is_whole(), "it has no stamp that was recorded");
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
