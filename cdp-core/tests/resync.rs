//! Resync of a source that nobody captures from, of a tap on request, and verify, through the public interface.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    BookmarkKind, CreateOptions, Error, OpenOptions, ResyncMode, ResyncOptions, ResyncReport, SourceReader,
    SourceStamp, SourceState, Store, Tap, TapOptions, VerifyOptions, VerifyReport,
    io::{MemoryStorage, Storage},
    units::{Seq, TimeNs},
};
use std::{
    cell::Cell,
    io,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const BLOCK: usize = 4096;

/// A disk in memory that counts what is read of it, and changes its stamp with each write.
struct Disk {
    bytes: RwLock<Vec<u8>>,
    writes: AtomicU64,
    read: AtomicU64,
    stamped: bool,
    sparse: bool,
}

impl Disk {
    fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: RwLock::new(vec![0; bytes]),
            writes: AtomicU64::new(0),
            read: AtomicU64::new(0),
            stamped: true,
            sparse: true,
        })
    }

    /// A device: it has no stamp, and says nothing of holes.
    fn device(bytes: usize) -> Arc<Self> {
        let disk = Arc::into_inner(Self::new(bytes)).unwrap();
        Arc::new(Self { stamped: false, sparse: false, ..disk })
    }

    fn write(&self, offset: usize, data: &[u8]) {
        self.bytes.write().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    fn image(&self) -> Vec<u8> {
        self.bytes.read().unwrap().clone()
    }

    fn resize(&self, bytes: usize) {
        self.bytes.write().unwrap().resize(bytes, 0);
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    fn take_read(&self) -> u64 {
        self.read.swap(0, Ordering::SeqCst)
    }
}

impl SourceReader for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        buf.copy_from_slice(&self.bytes.read().unwrap()[offset..offset + buf.len()]);
        self.read.fetch_add(buf.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        if !self.sparse {
            return Ok(Some(offset));
        }
        // Holes have pieces of 64 KiB, as those of file systems have some grain.
        let bytes = self.bytes.read().unwrap();
        let from = offset as usize;
        let first = from / (64 << 10) * (64 << 10);
        let mut pieces = bytes[first..].chunks(64 << 10).enumerate();
        let found = pieces.find(|(_, piece)| piece.iter().any(|byte| *byte != 0));
        Ok(found.map(|(index, _)| ((first + index * (64 << 10)).max(from)) as u64))
    }

    fn stamp(&self) -> io::Result<Option<SourceStamp>> {
        let changed_ns = self.writes.load(Ordering::SeqCst);
        let bytes = self.bytes.read().unwrap().len() as u64;
        Ok(self.stamped.then_some(SourceStamp { device: 1, inode: 2, bytes, modified_ns: 0, changed_ns }))
    }
}

fn open_options() -> OpenOptions {
    OpenOptions { segment_bytes: 16 << 20, run_fanout: 3, ..OpenOptions::default() }
}

fn create(storage: &Arc<dyn Storage>, bytes: usize) -> Store {
    let create = CreateOptions { volume: "disk".into(), bytes: bytes as u64 };
    Store::create(storage.clone(), &create, open_options()).unwrap()
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

/// Small and fast; good enough to scatter writes.
struct Random(u64);

impl Random {
    /// A generator whose seed is printed, and taken from `CDP_TEST_SEED` where that is set.
    fn for_test(name: &str) -> Self {
        let given = std::env::var("CDP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed);
        #[allow(clippy::print_stdout, reason = "a failing test must say its seed")]
        {
            println!("{name}: CDP_TEST_SEED={seed}");
        }
        Self(seed)
    }

    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn block(&mut self) -> Vec<u8> {
        let word = (self.below(1 << 30) as u64 + 1).to_le_bytes();
        word.iter().copied().cycle().take(BLOCK).collect()
    }
}

/// Fills about half of the blocks of a disk and a volume with the same content.
fn fill_both(random: &mut Random, store: &Store, disk: &Disk, blocks: usize) {
    let volume = store.volume(None).unwrap();
    for index in 0..blocks {
        if random.below(2) == 0 && index % 64 < 48 {
            let data = random.block();
            disk.write(index * BLOCK, &data);
            volume.write((index * BLOCK) as u64, &data).unwrap();
        }
    }
    store.flush().unwrap();
}

fn newest(store: &Store) -> Vec<u8> {
    let volume = store.volume(None).unwrap();
    let mut image = vec![0; usize::try_from(volume.bytes()).unwrap()];
    volume.read(0, &mut image).unwrap();
    image
}

fn image_at(store: &Store, seq: Seq) -> Vec<u8> {
    let snapshot = store.volume(None).unwrap().snapshot(seq).unwrap();
    let mut image = vec![0; usize::try_from(snapshot.bytes()).unwrap()];
    snapshot.read(0, &mut image).unwrap();
    image
}

fn with(mode: ResyncMode) -> ResyncOptions {
    ResyncOptions { mode, readers: 2, ..ResyncOptions::default() }
}

#[track_caller]
fn resync(store: &Store, disk: &Arc<Disk>, mode: ResyncMode) -> ResyncReport {
    let report = store.resync_from(None, disk.clone(), &with(mode), &mut |_| {}, &|| false).unwrap();
    assert_eq!(report.bytes_left, 0);
    report
}

#[track_caller]
fn verify(store: &Store, disk: &Arc<Disk>, repair: bool) -> VerifyReport {
    let options = VerifyOptions { repair, readers: 2, ..VerifyOptions::default() };
    let report = store.verify_from(None, disk.clone(), &options, &mut |_| {}, &|| false).unwrap();
    assert!(report.complete);
    report
}

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

/// Goal: the size belongs to the point, what was cut off reads as zeroes when it is there again, and the source's map follows. Method: shrink and grow
/// between writes, each point, after a crash too; a resync by map after the volume has grown.
#[test]
fn a_size_belongs_to_the_point() {
    let mut random = Random::for_test("a_size_belongs_to_the_point");
    let storage = memory();
    let mut store = create(&storage, 64 * BLOCK);
    let disk = Disk::new(64 * BLOCK);
    fill_both(&mut random, &store, &disk, 64);
    resync(&store, &disk, ResyncMode::Digest);
    let volume = store.volume(None).unwrap();
    let data = random.block();
    disk.write(63 * BLOCK, &data);
    resync(&store, &disk, ResyncMode::Digest);
    let whole = (store.newest(), newest(&store));
    let cut = store.resize_volume("disk", 20 * BLOCK as u64 + 512).unwrap().unwrap();
    assert_eq!((cut.seq, cut.time), (whole.0.seq.next(), whole.0.time), "it takes one seq and no time");
    assert_eq!(store.resize_volume("disk", 20 * BLOCK as u64 + 512).unwrap(), None);
    assert_eq!(volume.bytes(), 20 * BLOCK as u64 + 512, "an older handle knows");
    let past = volume.write(63 * BLOCK as u64, &data);
    assert!(matches!(past, Err(Error::OutOfRange { .. })), "{past:?}");
    let shrunk = newest(&store);
    let grown = store.resize_volume("disk", 80 * BLOCK as u64).unwrap().unwrap();
    volume.write(79 * BLOCK as u64, &data).unwrap();
    let mut expected = shrunk.clone();
    expected.resize(79 * BLOCK, 0);
    expected.extend_from_slice(&data);
    drop(volume);
    store.flush().unwrap();
    for crash in [false, true] {
        if crash {
            drop(store);
            store = Store::open(storage.clone(), open_options()).unwrap();
        }
        assert!(newest(&store) == expected, "crash: {crash}");
        assert!(image_at(&store, whole.0.seq) == whole.1);
        assert!(image_at(&store, cut.seq) == shrunk);
        assert_eq!(image_at(&store, grown.seq).len(), 80 * BLOCK);
        assert_eq!(store.timeline().unwrap().volumes[0].bytes, 80 * BLOCK as u64);
        assert_eq!(store.volume(None).unwrap().bytes_at(cut.seq), 20 * BLOCK as u64 + 512);
    }
    // The map of the source follows: only what is new is compared.
    let store = create(&memory(), 64 * BLOCK);
    let disk = Disk::device(64 * BLOCK);
    fill_both(&mut random, &store, &disk, 64);
    resync(&store, &disk, ResyncMode::Digest);
    disk.resize(96 * BLOCK);
    disk.write(90 * BLOCK, &data);
    store.resize_volume("disk", 96 * BLOCK as u64).unwrap();
    disk.take_read();
    let report = resync(&store, &disk, ResyncMode::Map);
    assert_eq!(
        (report.mode, report.counts.bytes_compared),
        (ResyncMode::Map, 32 * BLOCK as u64),
        "{report:?}"
    );
    assert!(newest(&store) == disk.image());
    let tap = store
        .tap("disk", disk.clone(), TapOptions { source: SourceState::Equal, ..TapOptions::default() })
        .unwrap();
    assert!(matches!(store.resize_volume("disk", 512), Err(Error::InvalidArgument(_))), "a tap is at work");
    tap.detach().unwrap();
    store.resize_volume("disk", 512).unwrap();
    assert_eq!(newest(&store), disk.image()[..512]);
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
