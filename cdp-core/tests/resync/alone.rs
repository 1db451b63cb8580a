//! Sources that nobody captures from.

use crate::support::{
    BLOCK, Disk, Random, create, fill_both, image_at, memory, newest, open_options, resync, with,
};
use cdp_core::{
    BookmarkKind, Error, ResyncMode, ResyncOptions, Store,
    units::{Seq, TimeNs},
};
use std::{cell::Cell, sync::Arc};

/// Goal: the newest state becomes the source in every mode that compares all of it, the source is read once and without its holes, only what
/// differs is taken over, no payload is read by digests, the states in between are refused and those before stay. Method: a random disk, a
/// few blocks and one hole changed behind the store's back.
#[test]
fn the_newest_state_becomes_the_source() {
    let mut random = Random::for_test("the_newest_state_becomes_the_source");
    for (mode, readers) in [(ResyncMode::Digest, 0), (ResyncMode::Digest, 3), (ResyncMode::Full, 2)] {
        let blocks = 4096;
        let storage = memory();
        let store = create(&storage, blocks * BLOCK);
        let disk = Disk::new(blocks * BLOCK);
        fill_both(&mut random, &store, &disk, blocks);
        let before = store.newest().seq;
        let old = newest(&store);
        let mut changed: Vec<usize> = (0..40).map(|_| random.below(blocks)).collect();
        changed.sort_unstable();
        changed.dedup();
        for index in &changed {
            disk.write(index * BLOCK, &random.block());
        }
        disk.write(1 << 20, &vec![0; 1 << 20]);
        let options = ResyncOptions { readers, ..with(mode) };
        let report = store.resync_from(None, disk.clone(), &options, &mut |_| {}, &|| false).unwrap();
        assert!(newest(&store) == disk.image());
        assert_eq!((report.mode, report.fallback.clone(), report.resumed), (mode, None, false));
        assert_eq!(report.counts.bytes_compared, (blocks * BLOCK) as u64);
        let read = disk.take_read();
        assert!(
            read <= (blocks * BLOCK) as u64 && read == report.counts.source_bytes_read,
            "{read}, {report:?}"
        );
        let differs =
            disk.image().chunks(BLOCK).zip(old.chunks(BLOCK)).filter(|(one, other)| one != other).count();
        assert_eq!(report.counts.bytes_different, (differs * BLOCK) as u64);
        assert!(report.counts.bytes_transferred <= (changed.len() * BLOCK) as u64);
        assert_eq!(report.counts.store_bytes_read == 0, mode == ResyncMode::Digest, "{report:?}");
        assert!(image_at(&store, before) == old, "the last point before it");
        let timeline = store.timeline().unwrap();
        assert_eq!(timeline.gaps.len(), 1, "{timeline:?}");
        let gap = &timeline.gaps[0];
        assert_eq!(gap.from.seq, before.next());
        for seq in gap.from.seq.get()..=gap.to.seq.get() {
            let refused = store.volume(None).unwrap().snapshot(Seq::new(seq));
            assert!(matches!(refused, Err(Error::PointUnavailable(_))), "seq {seq} in {gap:?}");
        }
        let end = timeline.bookmarks.iter().find(|bookmark| bookmark.kind == BookmarkKind::System).unwrap();
        assert_eq!(end.seq, store.newest().seq);
        assert!(image_at(&store, end.seq) == disk.image());
        // A crash afterwards takes nothing back.
        drop(store);
        let store = Store::open(storage, open_options()).unwrap();
        assert!(newest(&store) == disk.image());
        assert!(store.check(true, &mut |_| {}).unwrap().damaged.is_empty());
    }
}

/// Goal: what is equal leaves no trace on the timeline, and inline writes go on afterwards. Method: resync of an equal disk, in each mode.
#[test]
fn equal_sides_take_no_seq() {
    let mut random = Random::for_test("equal_sides_take_no_seq");
    let store = create(&memory(), 512 * BLOCK);
    let disk = Disk::new(512 * BLOCK);
    fill_both(&mut random, &store, &disk, 512);
    let before = (store.newest(), store.timeline().unwrap().gaps);
    for mode in [ResyncMode::Digest, ResyncMode::Full, ResyncMode::Map, ResyncMode::Quick] {
        let report = resync(&store, &disk, mode);
        assert_eq!((report.mode, &report.fallback), (mode, &None));
        assert_eq!(report.counts.bytes_different, 0);
        assert_eq!((store.newest(), store.timeline().unwrap().gaps), before, "{mode:?}");
        let read = disk.take_read();
        assert_eq!(read > 0, matches!(mode, ResyncMode::Digest | ResyncMode::Full), "{mode:?}: {read} bytes");
    }
    assert!(store.bookmarks().is_empty());
    store.volume(None).unwrap().write(0, &[1; 512]).unwrap();
}

/// Goal: a mode that looks at less is refused its shortcut when it has no proof, says why, and compares everything. Method: each lack of proof.
#[test]
fn a_shortcut_without_proof_compares_everything() {
    let mut random = Random::for_test("a_shortcut_without_proof_compares_everything");
    let fresh = |random: &mut Random, disk: &Arc<Disk>| {
        let store = create(&memory(), 256 * BLOCK);
        fill_both(random, &store, disk, 256);
        store
    };
    for mode in [ResyncMode::Map, ResyncMode::Quick] {
        // Nothing was ever recorded.
        let disk = Disk::new(256 * BLOCK);
        let store = fresh(&mut random, &disk);
        let report = resync(&store, &disk, mode);
        assert!(report.fallback.is_some() && report.mode == ResyncMode::Digest, "{report:?}");
        // The source was written since.
        disk.write(7 * BLOCK, &random.block());
        let report = resync(&store, &disk, mode);
        assert!(report.fallback.is_some(), "{report:?}");
        assert_eq!(report.counts.bytes_different, BLOCK as u64);
        // The volume was written since.
        store.volume(None).unwrap().write(9 * BLOCK as u64, &random.block()).unwrap();
        let report = resync(&store, &disk, mode);
        assert!(report.fallback.is_some(), "{report:?}");
        assert_eq!(report.counts.bytes_different, BLOCK as u64);
        assert!(newest(&store) == disk.image());
        assert!(resync(&store, &disk, mode).fallback.is_none());
    }
    // A device has no stamp.
    let disk = Disk::device(256 * BLOCK);
    let store = fresh(&mut random, &disk);
    resync(&store, &disk, ResyncMode::Digest);
    assert!(resync(&store, &disk, ResyncMode::Quick).fallback.is_some());
}

/// Goal: a run that was cancelled, or whose process was killed, goes on where it was when the source is unchanged, and begins again when it is
/// not, for a stronger mode, or for a source without a stamp that nobody vouches for. Method: break runs off in the middle, in each way.
#[test]
fn a_run_goes_on_where_it_was_broken_off() {
    let mut random = Random::for_test("a_run_goes_on_where_it_was_broken_off");
    let blocks = 16 * 256;
    for (case, expects) in [
        ("cancelled", true),
        ("killed", true),
        ("source changed", false),
        ("volume changed", false),
        ("stronger", false),
        ("device", false),
        ("vouched", true),
    ] {
        let disk = match case {
            "device" | "vouched" => Disk::device(blocks * BLOCK),
            _ => Disk::new(blocks * BLOCK),
        };
        let storage = memory();
        let mut store = create(&storage, blocks * BLOCK);
        fill_both(&mut random, &store, &disk, blocks);
        for _ in 0..60 {
            disk.write(random.below(blocks) * BLOCK, &random.block());
        }
        if case == "killed" {
            break_off(&store, &disk);
            drop(store);
            store = Store::open(storage, open_options()).unwrap();
        } else {
            let done = Cell::new(0);
            let mut progress = |progress: cdp_core::Progress| done.set(progress.done);
            let cancelled = || done.get() >= 8 << 20;
            let options = with(ResyncMode::Digest);
            let report = store.resync_from(None, disk.clone(), &options, &mut progress, &cancelled).unwrap();
            assert!(report.bytes_left > 0 && report.bytes_left <= 9 << 20, "{case}: {report:?}");
        }
        disk.take_read();
        match case {
            "source changed" => disk.write(3 * BLOCK, &random.block()),
            "volume changed" => {
                store.volume(None).unwrap().write(0, &random.block()).unwrap();
            }
            _ => {}
        }
        let mode = if case == "stronger" { ResyncMode::Full } else { ResyncMode::Digest };
        let options = ResyncOptions { source_is_unchanged: case == "vouched", ..with(mode) };
        let report = store.resync_from(None, disk.clone(), &options, &mut |_| {}, &|| false).unwrap();
        assert_eq!(report.resumed, expects, "{case}: {report:?}");
        assert!(newest(&store) == disk.image(), "{case}");
        let read = disk.take_read();
        let half = (blocks * BLOCK) as u64 * 3 / 4;
        assert_eq!(read < half, expects, "{case}: {read} bytes were read again");
        assert!(store.timeline().unwrap().gaps.iter().all(|gap| gap.to.seq < store.newest().seq), "{case}");
    }
}

/// Begins a resync and leaves it in the middle as a kill does: nothing is recorded behind its last checkpoint.
fn break_off(store: &Store, disk: &Arc<Disk>) {
    // A checkpoint is due each second.
    let options =
        ResyncOptions { readers: 0, bytes_per_second_max: Some(4 << 20), ..with(ResyncMode::Digest) };
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut progress = |progress: cdp_core::Progress| assert!(progress.done < 9 << 20, "killed here");
        store.resync_from(None, disk.clone(), &options, &mut progress, &|| false)
    }));
    assert!(run.is_err());
}

/// Goal: a source that is written while it is compared is not taken for equal, and the next run compares everything. Method: write in the middle.
#[test]
fn a_source_that_changes_meanwhile_is_noticed() {
    let mut random = Random::for_test("a_source_that_changes_meanwhile_is_noticed");
    let blocks = 2048;
    let store = create(&memory(), blocks * BLOCK);
    let disk = Disk::new(blocks * BLOCK);
    fill_both(&mut random, &store, &disk, blocks);
    disk.write(5 * BLOCK, &random.block());
    let wrote = Cell::new(false);
    let mut progress = |progress: cdp_core::Progress| {
        if progress.done >= 4 << 20 && !wrote.replace(true) {
            disk.write(0, &[7; BLOCK]);
        }
    };
    let outcome = store.resync_from(None, disk.clone(), &with(ResyncMode::Digest), &mut progress, &|| false);
    assert!(matches!(outcome, Err(Error::SourceChanged)), "{outcome:?}");
    let timeline = store.timeline().unwrap();
    assert!(
        timeline.gaps.iter().any(|gap| gap.to.seq == timeline.newest.seq),
        "the gap is open: {timeline:?}"
    );
    let report = resync(&store, &disk, ResyncMode::Map);
    assert_eq!(report.counts.bytes_compared, (blocks * BLOCK) as u64, "{report:?}");
    assert!(newest(&store) == disk.image());
}

/// Goal: a resync is dated as the caller says. Method: a time far ahead.
#[test]
fn a_resync_is_dated() {
    let store = create(&memory(), 16 * BLOCK);
    let disk = Disk::new(16 * BLOCK);
    disk.write(0, &[1; BLOCK]);
    let time = TimeNs::new(4_000_000_000_000_000_000);
    let options = ResyncOptions { time: Some(time), ..ResyncOptions::default() };
    store.resync_from(None, disk, &options, &mut |_| {}, &|| false).unwrap();
    assert_eq!(store.newest().time, time);
}
