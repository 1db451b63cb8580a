//! Stores with bytes that no owner wrote: an open answers with what is damaged, or goes on without it; it never crashes, hangs, or
//! removes what it does not understand.

#![allow(clippy::unwrap_used)]

use cdp_core::{
    CreateOptions, Damage, Error, ImportSource, NewBookmark, OpenOptions, Store,
    format::{
        manifest::{Edit, NamedSegment, Position, RecordPlace, encode_record},
        meta::MetaRecord,
        superblock::{SUPERBLOCK_EXTENT, Superblock},
    },
    index::LostRange,
    io::{AlignedBuf, MemoryStorage, Storage},
    manifest::{read_superblock, scan_manifest},
    units::{ExtentId, FrameNo, Lineage, Seq, VolumeId},
};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

const PAGE: usize = 4096;

fn options() -> OpenOptions {
    OpenOptions { segment_bytes: 4 << 20, run_fanout: 2, ..OpenOptions::default() }
}

fn create(storage: &Arc<MemoryStorage>) -> Store {
    let create = CreateOptions { volume: "disk".into(), bytes: 1 << 20 };
    Store::create(storage.clone(), &create, options()).unwrap()
}

fn open(storage: &Arc<MemoryStorage>) -> Result<Store, Error> {
    Store::open(storage.clone(), options())
}

fn read(storage: &MemoryStorage, extent: ExtentId) -> Vec<u8> {
    let handle = storage.open(extent).unwrap();
    let len = usize::try_from(handle.size().unwrap()).unwrap();
    let mut buffer = AlignedBuf::new(len).unwrap();
    handle.read_at(0, &mut buffer[..len / PAGE * PAGE]).unwrap();
    buffer[..len].to_vec()
}

fn write(storage: &MemoryStorage, extent: ExtentId, offset: u64, bytes: &[u8]) {
    let mut buffer = AlignedBuf::new(bytes.len()).unwrap();
    buffer[..bytes.len()].copy_from_slice(bytes);
    let len = bytes.len().next_multiple_of(PAGE);
    storage.open(extent).unwrap().write_at(offset, &buffer[..len]).unwrap();
}

/// Extents of segments, oldest first.
fn segments(storage: &MemoryStorage) -> Vec<ExtentId> {
    let all = storage.list().unwrap().into_iter();
    all.filter(|extent| read(storage, *extent).starts_with(b"CDPSEGMT")).collect()
}

/// Appends a record to the manifest as an owner would.
fn append(storage: &MemoryStorage, edits: &[Edit]) {
    let (superblock, _) = read_superblock(storage).unwrap();
    let scan = scan_manifest(storage, superblock.store, superblock.manifest, 0).unwrap();
    let place = RecordPlace {
        store: superblock.store.short(),
        extent: superblock.manifest,
        offset: scan.end,
        number: scan.next_record,
    };
    let mut body = Vec::new();
    edits.iter().for_each(|edit| edit.encode(&mut body));
    write(storage, superblock.manifest, scan.end, &encode_record(&body, place));
}

fn damage_of<T>(outcome: Result<T, Error>) -> Damage {
    match outcome {
        Err(Error::Damaged(damage)) => *damage,
        Err(other) => panic!("not damage: {other:?}"),
        Ok(_) => panic!("it was taken"),
    }
}

/// Goal: a manifest whose records are intact and absurd is damage that names its bytes. Method: one record for each absurdity, behind a good
/// store; opened by a reader and by an owner.
#[test]
fn a_manifest_with_absurd_values_is_damage() {
    let named = NamedSegment {
        extent: ExtentId::new(900),
        uuid: Default::default(),
        group: 0,
        lineage: Lineage::new(1),
        bytes: 1 << 20,
    };
    let volume = |id, name: &str, bytes| {
        let name = name.into();
        Edit::Catalog(MetaRecord::VolumeAdded { id: VolumeId::new(id), name, bytes, exists_from: Seq::ZERO })
    };
    let damage = Damage {
        extent: ExtentId::new(3),
        file: "f".into(),
        offset: 0,
        length: 1,
        from_seq: Seq::new(1),
        to_seq: Seq::MAX,
        what: "w".into(),
    };
    for edit in [
        Edit::SegmentNamed(NamedSegment { bytes: 1 << 60, ..named }),
        Edit::SegmentNamed(NamedSegment { extent: ExtentId::MAX, ..named }),
        Edit::SegmentNamed(named),
        Edit::SegmentCut { extent: ExtentId::new(900), frames_end: 4096 },
        Edit::SegmentDropped(ExtentId::new(900)),
        Edit::NextExtent(ExtentId::MAX),
        Edit::Position(Position { last_seq: Seq::MAX, ..Position::default() }),
        Edit::Position(Position { next_frame: FrameNo::MAX, ..Position::default() }),
        Edit::Position(Position { lineage: Lineage::MAX, ..Position::default() }),
        Edit::Lost(LostRange { from_seq: Seq::new(1), to_seq: Seq::MAX, damage }),
        volume(1, "huge", u64::MAX - 511),
        volume(1, "disk", 4096),
        volume(1, "../../etc/passwd", 4096),
        volume(60_000, "far", 4096),
    ] {
        let storage = Arc::new(MemoryStorage::new());
        let store = create(&storage);
        store.volume(None).unwrap().write(0, &[7; 512]).unwrap();
        store.close().unwrap();
        append(&storage, std::slice::from_ref(&edit));
        let extents = storage.list().unwrap();
        let reader = Store::open_read_only(storage.clone(), options());
        assert!(reader.is_err(), "a reader takes: {edit:?}");
        let damage = damage_of(reader);
        assert!(
            damage.extent == read_superblock(&*storage).unwrap().0.manifest
                || edit == Edit::SegmentNamed(named)
        );
        let owner = open(&storage);
        assert!(owner.is_err(), "an owner takes: {edit:?}");
        damage_of(owner);
        assert_eq!(
            storage.list().unwrap(),
            extents,
            "nothing is removed from a store that is not understood"
        );
    }
}

/// Goal: bytes that claim to be endless cost neither memory nor time. Method: manifest and unsealed segment of a petabyte of holes.
#[test]
fn files_of_absurd_length_are_read_as_far_as_they_can_matter() {
    let storage = Arc::new(MemoryStorage::new());
    let store = create(&storage);
    store.volume(None).unwrap().write(0, &[7; 512]).unwrap();
    store.flush().unwrap();
    drop(store);
    for extent in storage.list().unwrap() {
        storage.open(extent).unwrap().set_size(1 << 50).unwrap();
    }
    let begun = Instant::now();
    let store = open(&storage).unwrap();
    let mut data = [0; 512];
    store.volume(None).unwrap().read(0, &mut data).unwrap();
    assert_eq!(data, [7; 512]);
    assert!(begun.elapsed() < Duration::from_secs(60), "it does not read all of it");
}

/// Goal: what looks like an extent with a number that no store reaches is left alone. Method: the largest number there is.
#[test]
fn a_foreign_extent_with_an_impossible_number_is_left_alone() {
    let storage = Arc::new(MemoryStorage::new());
    create(&storage).close().unwrap();
    storage.create(ExtentId::MAX, 8192).unwrap();
    let store = open(&storage).unwrap();
    store.volume(None).unwrap().write(0, &[7; 512]).unwrap();
    store.close().unwrap();
    assert_eq!(storage.list().unwrap().last(), Some(&ExtentId::MAX));
}

/// Goal: a superblock that was cut short is repaired by the next owner. Method: cut to each number of copies that leaves a valid one of the
/// newest generation.
#[test]
fn a_superblock_that_was_cut_short_is_written_anew() {
    let storage = Arc::new(MemoryStorage::new());
    create(&storage).close().unwrap();
    let newest = read_superblock(&*storage).unwrap().0;
    let copies = newest.copies();
    storage.open(SUPERBLOCK_EXTENT).unwrap().set_size((copies[0] as u64 + 1) * 4096).unwrap();
    let store = open(&storage).unwrap();
    assert!(!store.recovery().damage.is_empty());
    store.volume(None).unwrap().write(0, &[7; 512]).unwrap();
    store.close().unwrap();
    let (_, damaged) = read_superblock(&*storage).unwrap();
    assert_eq!(damaged, []);
}

/// Goal: an owner who finds only the superblock of an earlier one does not act on it: he would remove all that came later. Method: both copies of
/// the later generations are lost while the earlier manifest is still there.
#[test]
fn a_superblock_of_an_earlier_owner_is_not_acted_on() {
    let storage = Arc::new(MemoryStorage::new());
    create(&storage).close().unwrap();
    let old_superblock = read(&storage, SUPERBLOCK_EXTENT);
    let old = read_superblock(&*storage).unwrap().0;
    let old_manifest = read(&storage, old.manifest);
    let store = open(&storage).unwrap();
    store.volume(None).unwrap().write(0, &[7; 512]).unwrap();
    store.flush().unwrap();
    drop(store);
    write(&storage, SUPERBLOCK_EXTENT, 0, &old_superblock);
    if !storage.list().unwrap().contains(&old.manifest) {
        storage.create(old.manifest, 0).unwrap();
        write(&storage, old.manifest, 0, &old_manifest);
    }
    let extents = storage.list().unwrap();
    damage_of(Store::open_read_only(storage.clone(), options()));
    assert_eq!(damage_of(open(&storage)).extent, SUPERBLOCK_EXTENT);
    assert_eq!(storage.list().unwrap(), extents);
}

/// Goal: generations and epochs leave room to go on. Method: a superblock with the largest ones and a right checksum.
#[test]
fn a_superblock_without_room_for_the_next_is_damage() {
    let storage = Arc::new(MemoryStorage::new());
    create(&storage).close().unwrap();
    let superblock = read_superblock(&*storage).unwrap().0;
    for copy in 0..4 {
        let last = Superblock { generation: u64::MAX - 3 + copy as u64, ..superblock.clone() };
        write(&storage, SUPERBLOCK_EXTENT, copy as u64 * 4096, &last.encode(copy));
    }
    damage_of(open(&storage));
}

struct Blocks(u64);

impl ImportSource for Blocks {
    fn next(&mut self, buf: &mut [u8]) -> io::Result<Option<(u64, usize)>> {
        let Some(left) = self.0.checked_sub(1) else { return Ok(None) };
        self.0 = left;
        let at = (14 - left) << 20;
        buf.fill(0x11);
        Ok(Some((at, 1 << 20)))
    }
}

/// Goal: an import that lost frames to rot is damaged where they were, and never reads as zeroes. Method: an import of many frames, durable and
/// for the most part not sealed; each frame in turn is destroyed.
#[test]
fn an_import_that_lost_a_frame_is_damaged_and_not_empty() {
    let storage = Arc::new(MemoryStorage::new());
    let bytes = 16 << 20;
    let options = OpenOptions { segment_bytes: 64 << 20, ..options() };
    let create = CreateOptions { volume: "disk".into(), bytes: 1 << 20 };
    let store = Store::create(storage.clone(), &create, options.clone()).unwrap();
    store.import_volume("seeded", bytes, &mut Blocks(15), None, &mut |_| {}).unwrap();
    store.add_bookmark(&NewBookmark::named("vouches")).unwrap();
    store.add_bookmark(&NewBookmark::named("vouches-again")).unwrap();
    drop(store);
    let mut frames: Vec<(ExtentId, usize)> = Vec::new();
    for segment in segments(&storage) {
        let bytes = read(&storage, segment);
        let pages = 1..bytes.len() / PAGE;
        frames.extend(
            pages.filter(|page| bytes[page * PAGE..].starts_with(b"CDPF")).map(|page| (segment, page)),
        );
    }
    assert!(frames.len() > 8, "{} frames", frames.len());
    let mut whole = vec![0; 16 << 20];
    let mut recovered = 0;
    for (segment, frame) in &frames[..frames.len() - 2] {
        let good = read(&storage, *segment);
        let mut bad = good.clone();
        bad[frame * PAGE + 40] ^= 1;
        write(&storage, *segment, 0, &bad);
        let store = Store::open_read_only(storage.clone(), options.clone()).unwrap();
        let met = !store.recovery().damage.is_empty();
        recovered += usize::from(met);
        let volume = store.volume(Some("seeded"));
        match volume.and_then(|volume| volume.read(0, &mut whole)) {
            Err(Error::Damaged(_)) => {}
            Err(Error::NotFound { .. }) if met => {}
            Err(other) => panic!("{other:?}"),
            // The header of a frame in a sealed segment is not on the way to its payload.
            Ok(()) => assert!(
                whole[..15 << 20].iter().all(|byte| *byte == 0x11),
                "segment {segment}, frame at page {frame}: other bytes"
            ),
        }
        write(&storage, *segment, 0, &good);
    }
    assert!(recovered > 4, "{recovered} of {} met by recovery", frames.len());
}

/// Goal: segments larger than an index entry can point into are not made. Method: ask for a gigabyte and write past 64 MiB of it.
#[test]
fn a_segment_ends_where_an_index_entry_can_point() {
    let storage = Arc::new(MemoryStorage::new());
    let create = CreateOptions { volume: "disk".into(), bytes: 16 << 20 };
    let options = OpenOptions { segment_bytes: 1 << 30, ..OpenOptions::default() };
    let store = Store::create(storage, &create, options).unwrap();
    let volume = store.volume(None).unwrap();
    let data = vec![0x33; 16 << 20];
    for _ in 0..6 {
        volume.write(0, &data).unwrap();
        store.flush().unwrap();
    }
    let mut found = vec![0; 16 << 20];
    volume.read(0, &mut found).unwrap();
    assert!(found == data);
    store.close().unwrap();
}
