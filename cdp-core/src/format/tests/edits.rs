//! The manifest: header, records, edits.

use super::{
    assert_cuts_are_refused, assert_flips_are_refused,
    metadata::{bookmark, volume},
};
use crate::{
    error::{Damage, SeqTime},
    format::{
        Malformed, PAGE_BYTES, PAGE_LEN, Uuid,
        compacted::{
            CHUNKS_MAX, CompactedHeader, CompactedSegment, TABLE_AT_MAX, decode_table, encode_table,
        },
        digest::crc_around,
        manifest::{
            Counters, Edit, LineageCut, ManifestHeader, NamedSegment, Position, RECORD_BODY_MAX, RecordPlace,
            RunId, SealedSegment, decode_record, encode_record, record_len, record_number,
        },
        meta::MetaRecord,
        outline::OutlineFull,
    },
    index::{Cell, Key, LostRange, PieceMeta, RunMeta},
    limits::{
        COUNTER_END, EXTENT_BYTES_MAX, MANIFEST_RECORD_BYTES_MAX, OUTLINE_WHY_BYTES_MAX,
        OUTLINE_WINDOW_BYTES_MAX, SEGMENT_BYTES_MAX,
    },
    manifest::ManifestState,
    retention::{FullRange, OutlinePoint, Standing},
    units::{Block, ExtentId, FrameNo, Lineage, OwnerEpoch, Seq, TimeNs, VolumeId},
};

const PLACE: RecordPlace = RecordPlace { store: 3, extent: ExtentId::new(4), offset: 8192, number: 77 };
const EXTENT: ExtentId = ExtentId::new(5);

fn run(extent: u64) -> RunMeta {
    let key = |block| Key::new(VolumeId::new(1), Cell { block: Block::new(block), level: 0 }, Seq::new(9));
    let piece = |number: u64| PieceMeta {
        extent: ExtentId::new(extent + number),
        offset: 8192,
        pages: 4,
        root_page: 4,
        height: 2,
        first: key(number * 100),
        last: key(number * 100 + 50),
        entries: 200,
        seq_min: Seq::new(3),
        seq_max: Seq::new(90),
        levels: 1,
        sum: 0xABCD,
    };
    RunMeta::of(2, vec![piece(1), piece(2)])
}

fn named() -> NamedSegment {
    NamedSegment { extent: EXTENT, uuid: Uuid([6; 16]), group: 0, lineage: Lineage::new(2), bytes: 1 << 20 }
}

fn sealed() -> SealedSegment {
    SealedSegment {
        extent: EXTENT,
        frames_end: 40960,
        extent_bytes: 65536,
        first_frame: FrameNo::new(1),
        next_frame: FrameNo::new(4),
        base_seq: Seq::new(2),
        last_seq: Seq::new(9),
        first_time: TimeNs::new(5),
        last_time: TimeNs::new(8),
        covered_to: TimeNs::new(9),
        table_extent: EXTENT,
        table_offset: 40960,
        frames: 3,
        source_bytes: 7777,
    }
}

fn lost(from_seq: u64, to_seq: u64) -> LostRange {
    let (from_seq, to_seq) = (Seq::new(from_seq), Seq::new(to_seq));
    let damage = Damage {
        extent: EXTENT,
        file: "five".into(),
        offset: 4096,
        length: 512,
        from_seq,
        to_seq,
        what: "frames".into(),
    };
    LostRange { from_seq, to_seq, damage }
}

fn all_edits() -> Vec<Edit> {
    let removed = vec![RunId { extent: ExtentId::new(11), offset: 8192 }];
    vec![
        Edit::NextExtent(ExtentId::new(COUNTER_END - 1)),
        Edit::Counters(Counters { source_bytes: u64::MAX, written_bytes: 1 }),
        Edit::SegmentNamed(named()),
        Edit::SegmentCut { extent: EXTENT, frames_end: 8192 },
        Edit::SegmentSealed(Box::new(sealed()), Some(Box::new(run(10)))),
        Edit::RunsReplaced { removed, added: Box::new(run(20)) },
        Edit::RunKept(Box::new(run(30))),
        Edit::LineageCut(LineageCut { lineage: Lineage::new(1), last_seq: Seq::new(9) }),
        Edit::Lost(lost(3, 4)),
        Edit::Catalog(volume(0, "disk", 4096, 0)),
        Edit::Catalog(MetaRecord::VolumeIdsTaken(VolumeId::new(5))),
        Edit::Catalog(MetaRecord::BookmarkAdded(bookmark("one"))),
        Edit::Catalog(MetaRecord::PolicySet("{}".into())),
        Edit::Position(Position {
            lineage: Lineage::new(1),
            last_seq: Seq::new(9),
            next_frame: FrameNo::new(4),
            newest_time: TimeNs::new(8),
            covered_to: TimeNs::MAX,
        }),
        Edit::SegmentNamed(NamedSegment { extent: ExtentId::new(6), ..named() }),
        Edit::SegmentDropped(ExtentId::new(6)),
        Edit::RunsRemoved(vec![RunId::of(&run(30)).unwrap()]),
        Edit::CompactedAdded(compacted(60)),
        Edit::CompactedAdded(compacted(61)),
        Edit::CompactedDropped(ExtentId::new(60)),
        Edit::Reserve(Some((ExtentId::new(70), 1 << 20))),
        Edit::OutlineKept(vec![kept(2, Standing::State), kept(3, Standing::Guest), kept(4, Standing::State)]),
        Edit::OutlineDropped(vec![Seq::new(3)]),
        Edit::OutlineFull(OutlineFull {
            full: FullRange { from: at(7), standing: Standing::Guest },
            planned: Some((TimeNs::new(99), u64::MAX)),
        }),
    ]
}

fn at(seq: u64) -> SeqTime {
    SeqTime { seq: Seq::new(seq), time: TimeNs::new(10 * seq) }
}

fn kept(seq: u64, standing: Standing) -> OutlinePoint {
    let until = TimeNs::new(10 * seq + 5);
    OutlinePoint { point: at(seq), until, standing, window: "24h-48h".into(), why: "bookmark a".into() }
}

fn compacted(extent: u64) -> CompactedSegment {
    CompactedSegment { extent: ExtentId::new(extent), bytes: 5 * PAGE_BYTES, uuid: Uuid([9; 16]) }
}

/// Goal: impossible compacted segments, outlines and reserves are refused. Method: one field wrong at a time, also at each bound.
#[test]
fn edits_of_retention_have_bounds() {
    let whole = |edit: &Edit| decode(edit).is_ok();
    let long = CompactedSegment { bytes: TABLE_AT_MAX + PAGE_BYTES, ..compacted(1) };
    assert!(whole(&Edit::CompactedAdded(long)));
    for bytes in [TABLE_AT_MAX + 2 * PAGE_BYTES, 2 * PAGE_BYTES, 3 * PAGE_BYTES + 1] {
        assert!(!whole(&Edit::CompactedAdded(CompactedSegment { bytes, ..compacted(1) })), "{bytes}");
    }
    let backwards = OutlinePoint { until: TimeNs::ZERO, ..kept(2, Standing::State) };
    assert!(!whole(&Edit::OutlineKept(vec![backwards])));
    let name = |len: usize| OutlinePoint { window: "w".repeat(len), ..kept(2, Standing::State) };
    assert!(whole(&Edit::OutlineKept(vec![name(OUTLINE_WINDOW_BYTES_MAX)])));
    assert!(!whole(&Edit::OutlineKept(vec![name(OUTLINE_WINDOW_BYTES_MAX + 1)])));
    let why = |len: usize| OutlinePoint { why: "w".repeat(len), ..kept(2, Standing::State) };
    assert!(whole(&Edit::OutlineKept(vec![why(OUTLINE_WHY_BYTES_MAX)])));
    assert!(!whole(&Edit::OutlineKept(vec![why(OUTLINE_WHY_BYTES_MAX + 1)])));
    assert!(whole(&Edit::Reserve(None)) && !whole(&Edit::Reserve(Some((ExtentId::new(1), 100)))));
    // Counts that promise more than there is.
    for kind in [16u16, 17] {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(u32::MAX.to_le_bytes());
        assert!(Edit::decode(&mut bytes.as_slice()).is_err());
    }
}

/// Goal: header and table of a compacted segment come back, and no flipped bit passes. Method: every bit of both pages; another store,
/// place and number of chunks.
#[test]
fn pages_of_a_compacted_segment_are_read_back_and_every_flip_is_refused() {
    let (store, segment, extent) = (Uuid([3; 16]), Uuid([4; 16]), ExtentId::new(8));
    let header = CompactedHeader { store, segment, extent, owner_epoch: OwnerEpoch::new(5) };
    let page = header.encode();
    assert_eq!(CompactedHeader::decode(&page, store, extent), Ok(header));
    assert!(CompactedHeader::decode(&page, segment, extent).is_err());
    assert!(CompactedHeader::decode(&page, store, extent.next()).is_err());
    let table_at = 3 * 65536 - PAGE_BYTES;
    let table = encode_table(&[1, 2, 3], segment, table_at);
    assert_eq!(decode_table(&table, segment, table_at), Ok(vec![1, 2, 3]));
    assert!(decode_table(&table, store, table_at).is_err());
    assert!(decode_table(&table, segment, table_at + PAGE_BYTES).is_err());
    let full: Vec<u32> = (0..).take(CHUNKS_MAX).collect();
    assert_eq!(decode_table(&encode_table(&full, segment, TABLE_AT_MAX), segment, TABLE_AT_MAX), Ok(full));
    for bit in 0..page.len() * 8 {
        let flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        assert!(CompactedHeader::decode(&flip(&page), store, extent).is_err(), "bit {bit}");
        assert!(decode_table(&flip(&table), segment, table_at).is_err(), "bit {bit}");
    }
}

fn encoded(edits: &[Edit]) -> Vec<u8> {
    let mut body = Vec::new();
    edits.iter().for_each(|edit| edit.encode(&mut body));
    body
}

fn decode(edit: &Edit) -> Result<Edit, Malformed> {
    Edit::decode(&mut encoded(std::slice::from_ref(edit)).as_slice())
}

/// Goal: every kind of edit comes back as it went in, and the state that they make is the same after a snapshot. Method: one of each kind in
/// one record; the fold of the record against the fold of the snapshot of the fold.
#[test]
fn every_edit_is_read_back_and_a_snapshot_is_the_whole_state() {
    let edits = all_edits();
    let record = encode_record(&encoded(&edits), PLACE);
    assert_eq!(record_len(&record), Ok(record.len()));
    assert_eq!(record_number(&record, PLACE), Some(77));
    assert_eq!(decode_record(&record, PLACE).as_ref(), Ok(&edits));
    let mut state = ManifestState::default();
    edits.iter().for_each(|edit| state.apply(edit).unwrap());
    let snapshot = state.snapshot();
    let read = decode_record(&encode_record(&encoded(&snapshot), PLACE), PLACE).unwrap();
    let mut copy = ManifestState::default();
    read.iter().for_each(|edit| copy.apply(edit).unwrap());
    assert_eq!(copy, state);
}

/// Goal: no flipped bit and no cut of a manifest goes unnoticed, padding included. Method: all of a header and of a record of one page.
#[test]
fn flipped_bits_and_cuts_of_a_manifest_are_refused() {
    let header = ManifestHeader {
        store: Uuid([1; 16]),
        extent: EXTENT,
        owner_epoch: OwnerEpoch::new(2),
        first_record: 3,
    };
    let decode_header = |page: &[u8]| ManifestHeader::decode(page, header.store, header.extent);
    assert_eq!(decode_header(&header.encode()), Ok(header));
    assert_flips_are_refused(&header.encode(), decode_header);
    assert_cuts_are_refused(&header.encode(), decode_header);
    assert!(ManifestHeader::decode(&header.encode(), Uuid([2; 16]), EXTENT).is_err());
    assert!(ManifestHeader::decode(&header.encode(), header.store, ExtentId::new(6)).is_err());
    let record = encode_record(&encoded(&all_edits()), PLACE);
    assert_eq!(record.len(), PAGE_LEN);
    assert_flips_are_refused(&record, |record| decode_record(record, PLACE));
    assert_cuts_are_refused(&record, |record| decode_record(record, PLACE));
    for elsewhere in [
        RecordPlace { store: 2, ..PLACE },
        RecordPlace { extent: EXTENT, ..PLACE },
        RecordPlace { offset: 4096, ..PLACE },
        RecordPlace { number: 78, ..PLACE },
    ] {
        assert!(decode_record(&record, elsewhere).is_err());
    }
}

/// Goal: the length of a record is bounded before it is read. Method: the largest record and one page more; a body that claims more than
/// the record has.
#[test]
fn a_record_is_as_long_as_its_limit_at_most() {
    let largest = encode_record(&vec![0; RECORD_BODY_MAX], PLACE);
    assert_eq!(largest.len(), MANIFEST_RECORD_BYTES_MAX);
    assert_eq!(record_len(&largest), Ok(MANIFEST_RECORD_BYTES_MAX));
    for pages in [0, u32::try_from(MANIFEST_RECORD_BYTES_MAX / PAGE_LEN).unwrap() + 1, u32::MAX] {
        let mut page = largest[..PAGE_LEN].to_vec();
        page[44..48].copy_from_slice(&pages.to_le_bytes());
        assert!(record_len(&page).is_err(), "{pages} pages");
    }
    let mut record = encode_record(&encoded(&[Edit::SegmentDropped(EXTENT)]), PLACE);
    record[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = crc_around(&record, 4);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    assert!(decode_record(&record, PLACE).is_err(), "a body longer than the record");
}

/// Goal: values that no store can have are refused in spite of the checksum. Method: one edit for each rule, with the bound itself taken.
#[test]
fn edits_with_impossible_values_are_refused() {
    let counter = |extent: u64| ExtentId::new(extent);
    let cut = |frames_end| Edit::SegmentCut { extent: EXTENT, frames_end };
    let names = |bytes| Edit::SegmentNamed(NamedSegment { bytes, ..named() });
    let seals = |change: fn(&mut SealedSegment)| {
        let mut segment = sealed();
        change(&mut segment);
        Edit::SegmentSealed(Box::new(segment), None)
    };
    for good in [
        cut(4096),
        cut(SEGMENT_BYTES_MAX),
        names(SEGMENT_BYTES_MAX),
        seals(|s| s.frames = 9),
        seals(|s| s.extent_bytes = 0),
        seals(|s| s.table_offset = EXTENT_BYTES_MAX),
    ] {
        let good = match good {
            Edit::SegmentSealed(mut sealed, run) => {
                sealed.next_frame = FrameNo::new(100);
                Edit::SegmentSealed(sealed, run)
            }
            other => other,
        };
        assert_eq!(decode(&good).as_ref(), Ok(&good));
    }
    let position = Position::default();
    for bad in [
        cut(0),
        cut(4097),
        cut(SEGMENT_BYTES_MAX + 4096),
        cut(u64::MAX - 4095),
        names(0),
        names(1 << 60),
        names(SEGMENT_BYTES_MAX + 4096),
        Edit::SegmentNamed(NamedSegment { extent: counter(u64::MAX), ..named() }),
        Edit::SegmentNamed(NamedSegment { group: 1, ..named() }),
        Edit::SegmentNamed(NamedSegment { lineage: Lineage::new(COUNTER_END), ..named() }),
        seals(|s| s.frames = 0),
        seals(|s| (s.frames, s.next_frame) = (10, FrameNo::new(100))),
        seals(|s| (s.frames, s.next_frame) = (u32::MAX, FrameNo::new(1 << 40))),
        seals(|s| s.frames = 4),
        seals(|s| s.next_frame = FrameNo::ZERO),
        seals(|s| s.frames_end = 1 << 50),
        seals(|s| s.extent_bytes = 4096),
        seals(|s| s.table_offset = 100),
        seals(|s| s.table_offset = EXTENT_BYTES_MAX + 4096),
        seals(|s| s.table_offset = u64::MAX - 4095),
        seals(|s| s.last_seq = Seq::new(COUNTER_END)),
        seals(|s| s.base_seq = Seq::new(10)),
        seals(|s| s.first_time = TimeNs::MAX),
        seals(|s| s.table_extent = ExtentId::MAX),
        Edit::SegmentDropped(counter(COUNTER_END)),
        Edit::NextExtent(counter(COUNTER_END)),
        Edit::Lost(lost(4, 3)),
        Edit::Lost(lost(4, u64::MAX)),
        Edit::LineageCut(LineageCut { lineage: Lineage::MAX, last_seq: Seq::ZERO }),
        Edit::Position(Position { lineage: Lineage::MAX, ..position }),
        Edit::Position(Position { last_seq: Seq::MAX, ..position }),
        Edit::Position(Position { next_frame: FrameNo::MAX, ..position }),
        Edit::Catalog(volume(0, "disk", u64::MAX, 0)),
        Edit::RunsReplaced { removed: vec![RunId { extent: EXTENT, offset: 1 }], added: Box::new(run(1)) },
        Edit::RunKept(Box::new(run(COUNTER_END))),
    ] {
        assert!(decode(&bad).is_err(), "{bad:?}");
    }
}

/// Goal: no allocation by a count that is not there. Method: a list of replaced runs and a run record that claim the largest count.
#[test]
fn counts_are_held_against_the_bytes_that_are_there() {
    let replaced = encoded(&[Edit::RunsReplaced { removed: Vec::new(), added: Box::new(run(1)) }]);
    let kept = encoded(&[Edit::RunKept(Box::new(run(1)))]);
    for (mut bytes, count_at) in [(replaced, 6), (kept, 10)] {
        assert!(Edit::decode(&mut bytes.as_slice()).is_ok());
        bytes[count_at..count_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Edit::decode(&mut bytes.as_slice()).is_err());
    }
}

/// Goal: edits that do not fit the state are refused, so that a manifest which contradicts itself is damage. Method: each contradiction.
#[test]
fn edits_that_contradict_the_state_are_refused() {
    let with = |edits: &[Edit]| {
        let mut state = ManifestState::default();
        edits.iter().try_for_each(|edit| state.apply(edit))
    };
    assert!(with(&[Edit::SegmentNamed(named()), Edit::SegmentDropped(EXTENT)]).is_ok());
    for edits in [
        vec![Edit::SegmentNamed(named()), Edit::SegmentNamed(named())],
        vec![Edit::SegmentDropped(EXTENT)],
        vec![Edit::SegmentCut { extent: EXTENT, frames_end: 4096 }],
        vec![Edit::SegmentSealed(Box::new(sealed()), None)],
        vec![Edit::RunKept(Box::new(run(1))), Edit::RunKept(Box::new(run(1)))],
        vec![Edit::RunKept(Box::new(RunMeta::of(0, Vec::new())))],
        vec![Edit::Catalog(volume(0, "disk", 512, 0)), Edit::Catalog(volume(1, "disk", 512, 0))],
    ] {
        assert!(with(&edits).is_err(), "{edits:?}");
    }
    let again = [Edit::Catalog(volume(0, "disk", 512, 0)), Edit::Catalog(volume(0, "disk", 512, 0))];
    assert!(with(&again).is_ok(), "recovery may repeat what the manifest holds");
}
