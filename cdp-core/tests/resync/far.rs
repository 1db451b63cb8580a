//! Sources across a link that answer digests at their own end.

use crate::support::{BLOCK, Disk, Random, create, fill_both, image_at, memory, newest, with};
use cdp_core::{
    Error, ResyncMode, ResyncOptions, SourceReader, SourceStamp, SourceState, Store, Tap, TapOptions,
    VerifyOptions, VerifyReport,
    dirty_map::ByteRange,
    format::digest::DigestKey,
    io::{MemoryStorage, Storage},
    limits::DIGEST_REQUEST_BYTES_MAX,
    resync::{DigestUnit, REGION_BYTES, SourceDigests, digests_of},
};
use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const REGION: usize = REGION_BYTES as usize;

/// A disk at the other end of a link, which counts what comes over and can be cut.
struct Far {
    disk: Arc<Disk>,
    bytes: u64,
    crossed: AtomicU64,
    exchanges: AtomicU64,
    /// Every exchange whose number is a multiple of it fails; 0: none.
    fails_every: u64,
    /// What is answered digests of instead.
    pretends: Option<Arc<Disk>>,
    /// Answers lack their last digest.
    short: AtomicBool,
}

impl Far {
    fn new(disk: &Arc<Disk>) -> Self {
        Self {
            disk: disk.clone(),
            bytes: disk.image().len() as u64,
            crossed: AtomicU64::new(0),
            exchanges: AtomicU64::new(0),
            fails_every: 0,
            pretends: None,
            short: AtomicBool::new(false),
        }
    }

    fn exchange(&self, bytes: usize) -> io::Result<()> {
        let number = self.exchanges.fetch_add(1, Ordering::SeqCst) + 1;
        if self.fails_every > 0 && number.is_multiple_of(self.fails_every) {
            return Err(io::Error::other("the link was cut, as the test wanted"));
        }
        self.crossed.fetch_add(bytes as u64, Ordering::SeqCst);
        Ok(())
    }

    fn take_crossed(&self) -> u64 {
        self.crossed.swap(0, Ordering::SeqCst)
    }
}

impl SourceReader for Far {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.exchange(buf.len())?;
        self.disk.read_at(offset, buf)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn digests(&self) -> Option<&dyn SourceDigests> {
        Some(self)
    }

    fn stamp(&self) -> io::Result<Option<SourceStamp>> {
        self.disk.stamp()
    }
}

impl SourceDigests for Far {
    fn digests(&self, key: DigestKey, unit: DigestUnit, ranges: &[ByteRange]) -> io::Result<Vec<u64>> {
        let disk = self.pretends.as_ref().unwrap_or(&self.disk);
        let mut digests = digests_of(&**disk, self.bytes, key, unit, ranges)?;
        if self.short.load(Ordering::SeqCst) {
            digests.pop();
        }
        self.exchange(digests.len() * 8)?;
        Ok(digests)
    }

    fn read_ranges(&self, ranges: &[ByteRange], buf: &mut [u8]) -> io::Result<()> {
        self.exchange(buf.len())?;
        let mut rest = buf;
        for range in ranges {
            let (part, behind) = rest.split_at_mut(range.bytes as usize);
            self.disk.read_at(range.offset, part)?;
            rest = behind;
        }
        assert!(rest.is_empty());
        Ok(())
    }
}

fn verify(store: &Store, far: &Arc<Far>, options: VerifyOptions) -> VerifyReport {
    let report = store.verify_from(None, far.clone(), &options, &mut |_| {}, &|| false).unwrap();
    assert!(report.complete);
    report
}

const BY_DIGESTS: VerifyOptions =
    VerifyOptions { repair: false, readers: 2, bytes_per_second_max: None, digests: true };

/// The blocks in which two images differ.
fn differing(one: &[u8], other: &[u8]) -> Vec<usize> {
    let pairs = one.chunks(BLOCK).zip(other.chunks(BLOCK)).enumerate();
    pairs.filter(|(_, (one, other))| one != other).map(|(index, _)| index).collect()
}

/// Bytes of blocks and of the digests that a pass over everything moves.
fn expected(old: &[u8], new: &[u8]) -> (u64, u64, [u64; 2]) {
    let (mut moved, mut digests, mut regions) = (0, 0, [0; 2]);
    for (old, new) in old.chunks(REGION).zip(new.chunks(REGION)) {
        digests += 8;
        regions[usize::from(old != new)] += 1;
        if old != new {
            let blocks = new.chunks(BLOCK).count();
            digests += if blocks > 1 { blocks as u64 * 8 } else { 0 };
            let sizes = new.chunks(BLOCK).map(<[u8]>::len).collect::<Vec<_>>();
            moved += differing(old, new).into_iter().map(|index| sizes[index] as u64).sum::<u64>();
        }
    }
    (moved, digests, regions)
}

/// Goal: only the bytes of blocks that differ cross the link, and the digests of the regions and of the blocks of those that differ; the store's payload is not read but for
/// blocks written in parts; the newest state is the source. Method: volumes around the edges of regions and requests, with zeroes, discarded and partly written blocks on
/// either side; what crosses is counted at the link and compared with what two images say.
#[test]
fn only_digests_and_what_differs_cross_the_link() {
    let mut random = Random::for_test("only_digests_and_what_differs_cross_the_link");
    let sizes = [
        512,
        BLOCK,
        100 * BLOCK + 1536,
        REGION,
        REGION + 512,
        REGION + BLOCK,
        8 * REGION,
        8 * REGION + BLOCK,
        17 * REGION + 5 * BLOCK + 2560,
    ];
    for (bytes, readers) in sizes.into_iter().flat_map(|bytes| [(bytes, 0), (bytes, 3)]) {
        let blocks = bytes / BLOCK;
        let store = create(&memory(), bytes);
        let disk = Disk::new(bytes);
        fill_both(&mut random, &store, &disk, blocks);
        let volume = store.volume(None).unwrap();
        let mut in_parts = 0;
        for _ in 0..1 + blocks / 40 {
            // Equal on both sides, and last written in parts.
            let at = random.below(bytes / 512) * 512;
            let data = [random.below(255) as u8 + 1; 512];
            disk.write(at, &data);
            volume.write(at as u64, &data).unwrap();
            in_parts += 1;
        }
        let before = (store.newest().seq, newest(&store));
        let changes = random.below(2 + blocks / 60);
        for _ in 0..changes {
            let at = random.below(bytes / 512) * 512;
            match random.below(4) {
                0 => disk.write(at, &[random.below(255) as u8 + 1; 512]),
                1 => disk.write(at, &vec![0; (bytes - at).min(40 * BLOCK)]),
                _ if blocks > 0 => disk.write(random.below(blocks) * BLOCK, &random.block()),
                _ => {}
            }
        }
        let far = Arc::new(Far::new(&disk));
        disk.take_read();
        let options = ResyncOptions { readers, ..with(ResyncMode::Digest) };
        let report = store.resync_from(None, far.clone(), &options, &mut |_| {}, &|| false).unwrap();
        assert_eq!(report.bytes_left, 0);
        assert!(newest(&store) == disk.image(), "{bytes} bytes");
        let (moved, digests, [equal, different]) = expected(&before.1, &disk.image());
        let counts = report.counts;
        assert_eq!(
            (counts.source_bytes_read, counts.digests.digest_bytes, counts.bytes_different),
            (moved, digests, moved),
            "{bytes} bytes: {counts:?}"
        );
        assert_eq!((counts.digests.regions_equal, counts.digests.regions_different), (equal, different));
        assert_eq!(far.take_crossed(), moved + digests, "{counts:?}");
        assert_eq!(counts.bytes_compared, bytes as u64);
        // What was written in parts, for the digests and once more where it differs; and the last block, where that is one in part.
        assert!(counts.store_bytes_read <= (in_parts + 1) * 2 * BLOCK as u64, "{counts:?}");
        assert!(image_at(&store, before.0) == before.1);
        // And then everything is equal: nothing but the digests of regions.
        let report = store.resync_from(None, far.clone(), &options, &mut |_| {}, &|| false).unwrap();
        assert_eq!(report.counts.digests.digest_bytes, bytes.div_ceil(REGION) as u64 * 8, "{report:?}");
        assert_eq!(
            (report.counts.bytes_different, far.take_crossed()),
            (0, report.counts.digests.digest_bytes)
        );
    }
}

/// Goal: by bytes everything is read, whatever the source can answer. Method: a run in mode full.
#[test]
fn a_full_resync_reads_bytes_across_the_link() {
    let mut random = Random::for_test("a_full_resync_reads_bytes_across_the_link");
    let store = create(&memory(), 600 * BLOCK);
    let disk = Disk::new(600 * BLOCK);
    fill_both(&mut random, &store, &disk, 600);
    let far = Arc::new(Far::new(&disk));
    let report =
        store.resync_from(None, far.clone(), &with(ResyncMode::Full), &mut |_| {}, &|| false).unwrap();
    assert_eq!(report.counts.digests.digest_bytes, 0);
    assert_eq!(
        (report.counts.source_bytes_read, far.take_crossed()),
        ((600 * BLOCK) as u64, (600 * BLOCK) as u64)
    );
}

/// Goal: a link that is cut all the time loses nothing and leaves the volume claimed until everything was compared. Method: every so many-th exchange fails, in runs until
/// one comes to its end.
#[test]
fn a_link_that_is_cut_only_costs_another_run() {
    let mut random = Random::for_test("a_link_that_is_cut_only_costs_another_run");
    // A piece takes three exchanges in a row.
    for fails_every in [4, 5, 7] {
        let blocks = 20 * 256 + 3;
        let store = create(&memory(), blocks * BLOCK);
        let disk = Disk::new(blocks * BLOCK);
        fill_both(&mut random, &store, &disk, blocks);
        for _ in 0..200 {
            disk.write(random.below(blocks) * BLOCK, &random.block());
        }
        let far = Arc::new(Far { fails_every, ..Far::new(&disk) });
        let mut failures = 0;
        loop {
            let options = ResyncOptions { readers: random.below(3), ..with(ResyncMode::Digest) };
            match store.resync_from(None, far.clone(), &options, &mut |_| {}, &|| false) {
                Ok(_) => break,
                Err(Error::Io { .. }) => failures += 1,
                Err(error) => panic!("{error}"),
            }
            let timeline = store.timeline().unwrap();
            let is_open = timeline.gaps.iter().any(|gap| gap.to.seq == timeline.newest.seq);
            assert!(is_open || differing(&newest(&store), &disk.image()).len() > 100, "{timeline:?}");
            assert!(failures < 1000, "every exchange out of {fails_every} fails");
        }
        assert!(newest(&store) == disk.image());
        assert!(far.exchanges.load(Ordering::SeqCst) > fails_every, "none has failed");
    }
}

/// Goal: an answer with another number of digests than were asked for is an error and no comparison. Method: answers that lack one.
#[test]
fn an_answer_of_another_length_is_refused() {
    let mut random = Random::for_test("an_answer_of_another_length_is_refused");
    let store = create(&memory(), 300 * BLOCK);
    let disk = Disk::new(300 * BLOCK);
    fill_both(&mut random, &store, &disk, 300);
    let old = newest(&store);
    disk.write(299 * BLOCK, &random.block());
    let far = Arc::new(Far::new(&disk));
    far.short.store(true, Ordering::SeqCst);
    let run = |mode| store.resync_from(None, far.clone(), &with(mode), &mut |_| {}, &|| false);
    let refused = run(ResyncMode::Digest).unwrap_err();
    assert!(refused.to_string().contains("digests were asked for"), "{refused}");
    assert!(newest(&store) == old);
    let refused = store.verify_from(None, far.clone(), &BY_DIGESTS, &mut |_| {}, &|| false).unwrap_err();
    assert!(refused.to_string().contains("digests were asked for"), "{refused}");
    far.short.store(false, Ordering::SeqCst);
    assert_eq!(run(ResyncMode::Map).unwrap().counts.bytes_different, BLOCK as u64);
    assert!(newest(&store) == disk.image());
}

/// Goal: a run that was cancelled goes on where it was, and what was compared is not asked for again. Method: cancelled after each piece, and then to the end.
#[test]
fn a_run_across_a_link_goes_on() {
    let mut random = Random::for_test("a_run_across_a_link_goes_on");
    let blocks = 40 * 256;
    let store = create(&memory(), blocks * BLOCK);
    let disk = Disk::new(blocks * BLOCK);
    fill_both(&mut random, &store, &disk, blocks);
    for _ in 0..100 {
        disk.write(random.below(blocks) * BLOCK, &random.block());
    }
    let (moved, digests, _) = expected(&newest(&store), &disk.image());
    let far = Arc::new(Far::new(&disk));
    let options = ResyncOptions { readers: 0, ..with(ResyncMode::Digest) };
    let mut runs = 0;
    loop {
        let steps = std::cell::Cell::new(0);
        let mut progress = |_: cdp_core::Progress| steps.set(steps.get() + 1);
        let cancelled = || steps.get() >= 2;
        let report = store.resync_from(None, far.clone(), &options, &mut progress, &cancelled).unwrap();
        assert_eq!(report.resumed, runs > 0);
        runs += 1;
        if report.bytes_left == 0 {
            break;
        }
    }
    assert!(runs > 2 && newest(&store) == disk.image(), "{runs} runs");
    // The piece in which the gap opens is asked for twice.
    let again = DIGEST_REQUEST_BYTES_MAX + DIGEST_REQUEST_BYTES_MAX / BLOCK as u64 * 8;
    assert!(far.take_crossed() <= moved + digests + again);
}

/// Goal: what two contents with equal digests hide from a comparison by digests is found by one of bytes. Method: an end that answers the digests of older content.
#[test]
fn a_collision_is_found_by_bytes() {
    let mut random = Random::for_test("a_collision_is_found_by_bytes");
    let store = create(&memory(), 300 * BLOCK);
    let (disk, pretended) = (Disk::device(300 * BLOCK), Disk::device(300 * BLOCK));
    fill_both(&mut random, &store, &disk, 300);
    pretended.write(0, &disk.image());
    disk.write(17 * BLOCK, &random.block());
    let far = Arc::new(Far { pretends: Some(pretended), ..Far::new(&disk) });
    let report =
        store.resync_from(None, far.clone(), &with(ResyncMode::Digest), &mut |_| {}, &|| false).unwrap();
    assert_eq!(report.counts.bytes_different, 0);
    assert_eq!(verify(&store, &far, BY_DIGESTS).extents, []);
    let found = verify(&store, &far, VerifyOptions { digests: false, ..BY_DIGESTS });
    assert_eq!(found.extents, [ByteRange::new(17 * BLOCK as u64, BLOCK as u64)]);
}

/// Writes and captures until it is stopped; now and then the application has no answer yet for so long.
fn write_and_capture(
    seed: u64,
    disk: &Disk,
    tap: &Tap,
    among: Range<usize>,
    late: Duration,
    stop: &AtomicBool,
) {
    let mut random = Random(seed);
    while !stop.load(Ordering::SeqCst) {
        let index = among.start + random.below(among.len());
        let data = random.block();
        disk.write(index * BLOCK, &data);
        if random.below(8) == 0 {
            std::thread::sleep(late);
        }
        tap.capture((index * BLOCK) as u64, &data).unwrap();
    }
}

/// Goal: a tapped volume whose source lies across a link that is cut now and then becomes equal while the source is written all the time; no write is lost, and what was
/// changed behind the tap's back is found. Method: a thread that writes and captures, exchanges that fail, resyncs, then the image.
#[test]
fn a_far_source_is_resynced_while_it_is_written() {
    let mut random = Random::for_test("a_far_source_is_resynced_while_it_is_written");
    let blocks = 4096;
    let store = create(&memory(), blocks * BLOCK);
    let runner = store.start_runner().unwrap();
    let disk = Disk::device(blocks * BLOCK);
    let far = Arc::new(Far { fails_every: 11, ..Far::new(&disk) });
    let options = TapOptions { source: SourceState::Equal, ..TapOptions::default() };
    let tap = store.tap("disk", far.clone(), options).unwrap();
    for round in 0..4 {
        for _ in 0..20 {
            disk.write(random.below(blocks / 2) * BLOCK, &random.block());
        }
        let (stop, seed) = (AtomicBool::new(false), random.0 + round);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                write_and_capture(seed, &disk, &tap, blocks / 2..blocks, Duration::from_micros(300), &stop)
            });
            let report = loop {
                match tap.resync(&with(ResyncMode::Digest), &mut |_| {}, &|| false) {
                    Ok(report) => break report,
                    // It goes on by itself; everything is compared again here.
                    Err(Error::Io { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            let counts = report.counts;
            stop.store(true, Ordering::SeqCst);
            assert!(counts.digests.digest_bytes > 0, "{counts:?}");
            assert!(counts.source_bytes_read < (blocks * BLOCK) as u64, "{counts:?}");
        });
        assert!(tap.is_whole());
        store.flush().unwrap();
        assert!(newest(&store) == disk.image(), "round {round}");
    }
    tap.detach().unwrap();
    drop(runner);
}

/// Goal: a verification by digests gives no false alarm while blocks change, finds what differs to the block, moves none of it, and mends it. Method: a thread that writes, waits
/// and captures; then the same with differences behind the tap's back, at the end of a volume of an odd size too.
#[test]
fn verify_by_digests_beside_a_writer() {
    let mut random = Random::for_test("verify_by_digests_beside_a_writer");
    let (blocks, bytes) = (1024, 1024 * BLOCK + 1024);
    let store = create(&memory(), bytes);
    let runner = store.start_runner().unwrap();
    let disk = Disk::device(bytes);
    let far = Arc::new(Far::new(&disk));
    let options = TapOptions { source: SourceState::Equal, ..TapOptions::default() };
    let tap = store.tap("disk", far.clone(), options).unwrap();
    let (stop, seed) = (AtomicBool::new(false), random.0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            write_and_capture(seed, &disk, &tap, blocks / 2..blocks, Duration::from_millis(3), &stop)
        });
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(600) {
            let report = verify(&store, &far, BY_DIGESTS);
            assert_eq!((report.extents.len(), report.source_bytes_read), (0, 0), "false alarm: {report:?}");
            assert!(report.digests.digest_bytes >= 5 * 8, "{report:?}");
        }
        disk.write(11 * BLOCK, &random.block());
        disk.write(12 * BLOCK, &random.block());
        disk.write(blocks * BLOCK + 512, &[7; 512]);
        let report = verify(&store, &far, BY_DIGESTS);
        let found = [
            ByteRange::new(11 * BLOCK as u64, 2 * BLOCK as u64),
            ByteRange::new((blocks * BLOCK) as u64, 1024),
        ];
        assert_eq!((&report.extents[..], report.source_bytes_read), (&found[..], 0), "{report:?}");
        assert!(verify(&store, &far, VerifyOptions { repair: true, ..BY_DIGESTS }).repaired);
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(verify(&store, &far, BY_DIGESTS).extents, []);
    assert!(newest(&store) == disk.image());
    tap.detach().unwrap();
    drop(runner);
}

/// Goal: a verification by digests reads the store's payload: what rotted is found to the block, counts as damaged, and is mended. A resync by digests takes over what rotted of
/// blocks written in parts, whose digests need their payload. Method: bytes are flipped where they are stored.
#[test]
fn verify_by_digests_finds_what_rotted() {
    let mut random = Random::for_test("verify_by_digests_finds_what_rotted");
    let memory = Arc::new(MemoryStorage::new());
    let storage: Arc<dyn Storage> = memory.clone();
    let store = create(&storage, 300 * BLOCK);
    let disk = Disk::device(300 * BLOCK);
    let volume = store.volume(None).unwrap();
    let (whole, part) = ([0xa7_u8; BLOCK], [0x5c_u8; 512]);
    for index in 0..300 {
        let block = match index {
            9 => whole.to_vec(),
            _ => random.block(),
        };
        disk.write(index * BLOCK, &block);
        volume.write((index * BLOCK) as u64, &block).unwrap();
    }
    disk.write(20 * BLOCK + 512, &part);
    volume.write((20 * BLOCK + 512) as u64, &part).unwrap();
    store.flush().unwrap();
    let far = Arc::new(Far::new(&disk));
    assert_eq!(verify(&store, &far, BY_DIGESTS).extents, []);
    assert_eq!(flip(&*memory, &whole) + flip(&*memory, &part), 2);
    let block = |index: usize| ByteRange::new((index * BLOCK) as u64, BLOCK as u64);
    let report = verify(&store, &far, BY_DIGESTS);
    assert_eq!((&report.extents[..], report.bytes_damaged), (&[block(9), block(20)][..], 2 * BLOCK as u64));
    let options = with(ResyncMode::Digest);
    let taken = store.resync_from(None, far.clone(), &options, &mut |_| {}, &|| false).unwrap().counts;
    assert_eq!((taken.bytes_different, taken.bytes_damaged), (BLOCK as u64, BLOCK as u64), "{taken:?}");
    assert_eq!(verify(&store, &far, BY_DIGESTS).extents, [block(9)]);
    let mended = verify(&store, &far, VerifyOptions { repair: true, ..BY_DIGESTS });
    assert!(mended.repaired && mended.source_bytes_read == BLOCK as u64, "{mended:?}");
    assert!(newest(&store) == disk.image());
}

/// Flips a bit of each place of the storage that holds this content; returns how many there are.
fn flip(storage: &dyn Storage, content: &[u8]) -> usize {
    let mut flipped = 0;
    for id in storage.list().unwrap() {
        let extent = storage.open(id).unwrap();
        let bytes = extent.size().unwrap() as usize / BLOCK * BLOCK;
        let mut image = cdp_core::io::AlignedBuf::new(bytes.max(BLOCK)).unwrap();
        extent.read_at(0, &mut image[..bytes]).unwrap();
        let found: Vec<usize> = (0..bytes / 512)
            .map(|sector| sector * 512)
            .filter(|at| image[*at..bytes].starts_with(content) && (*at == 0 || image[at - 1] != content[0]))
            .collect();
        flipped += found.len();
        for at in &found {
            image[at + 100] ^= 4;
        }
        if !found.is_empty() {
            extent.write_at(0, &image[..bytes]).unwrap();
        }
    }
    flipped
}

/// Goal: what is answered at the source's end is what the definition says, for blocks and regions, at any edge, with holes and without. Method: against the obvious computation
/// from an image.
#[test]
fn digests_are_those_of_the_definition() {
    let mut random = Random::for_test("digests_are_those_of_the_definition");
    let bytes = 3 * REGION + 7 * BLOCK + 1536;
    let key = DigestKey(random.below(1 << 30) as u64);
    for disk in [Disk::new(bytes), Disk::device(bytes)] {
        for _ in 0..300 {
            disk.write(random.below(bytes / BLOCK) * BLOCK, &random.block());
        }
        disk.write(REGION, &vec![0; REGION]);
        disk.write(bytes - 512, &[1; 512]);
        let image = disk.image();
        let of_block = |block: &[u8]| if block.iter().all(|byte| *byte == 0) { 0 } else { key.digest(block) };
        let of_region = |blocks: &[u64]| match blocks.iter().all(|digest| *digest == 0) {
            true => 0,
            false => key.digest(&blocks.iter().flat_map(|digest| digest.to_le_bytes()).collect::<Vec<_>>()),
        };
        for _ in 0..200 {
            let from = random.below(bytes / BLOCK);
            let end = (from + 1 + random.below(bytes / BLOCK)) * BLOCK;
            let range = from * BLOCK..end.min(bytes);
            let blocks: Vec<u64> = image[range.clone()].chunks(BLOCK).map(of_block).collect();
            let (mut regions, mut rest, mut at) = (Vec::new(), &blocks[..], from);
            while !rest.is_empty() {
                let (region, behind) = rest.split_at((256 - at % 256).min(rest.len()));
                regions.push(of_region(region));
                (rest, at) = (behind, at + region.len());
            }
            let asked = [ByteRange::new(range.start as u64, range.len() as u64)];
            let answer = |unit| digests_of(&*disk, bytes as u64, key, unit, &asked).unwrap();
            assert_eq!(answer(DigestUnit::Block), blocks, "{range:?}");
            assert_eq!(answer(DigestUnit::Region), regions, "{range:?}");
        }
        let whole = [ByteRange::new(0, bytes as u64)];
        assert_eq!(digests_of(&*disk, bytes as u64, key, DigestUnit::Region, &whole).unwrap()[1], 0);
        let two = [ByteRange::new(0, BLOCK as u64), ByteRange::new(2 * REGION_BYTES, 2 * BLOCK as u64)];
        let found = digests_of(&*disk, bytes as u64, key, DigestUnit::Block, &two).unwrap();
        let places = [0, 512, 513].map(|index| of_block(&image[index * BLOCK..(index + 1) * BLOCK]));
        assert_eq!(found, places);
    }
}

/// Goal: a request that came over a link is refused before anything is read when it is not what it may be. Method: one of each kind, and a request at its bound and one past it.
#[test]
fn requests_that_cannot_be_meant_are_refused() {
    let bytes = 2 * DIGEST_REQUEST_BYTES_MAX + 512;
    let disk = Disk::device(bytes as usize);
    let ask = |ranges: &[(u64, u64)]| {
        let ranges: Vec<ByteRange> = ranges.iter().map(|(at, bytes)| ByteRange::new(*at, *bytes)).collect();
        digests_of(&*disk, bytes, DigestKey(1), DigestUnit::Region, &ranges)
    };
    let block = BLOCK as u64;
    assert_eq!(ask(&[(0, DIGEST_REQUEST_BYTES_MAX)]).unwrap().len(), 8);
    assert_eq!(ask(&[(bytes - 512, 512)]).unwrap(), [0]);
    assert_eq!(ask(&[]).unwrap(), [0_u64; 0]);
    disk.take_read();
    for refused in [
        &[(0, DIGEST_REQUEST_BYTES_MAX + block)][..],
        &[(0, DIGEST_REQUEST_BYTES_MAX), (DIGEST_REQUEST_BYTES_MAX, block)],
        &[(0, 512)],
        &[(512, block)],
        &[(bytes - 512, block)],
        &[(u64::MAX - block + 1, block)],
        &[(0, u64::MAX)],
        &[(0, 0)],
        &[(0, 2 * block), (block, block)],
        &[(2 * block, block), (0, block)],
    ] {
        let error = ask(refused).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{refused:?}: {error}");
    }
    assert_eq!(disk.take_read(), 0);
}
