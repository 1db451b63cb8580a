//! Structures of any length.

use crate::pages::{seal, trimmed, u64_at};
use cdp_core::{
    Bookmark, BookmarkKind, Coalescing, SeqTime,
    bookmark::{Across, AcrossState},
    catalog::{Catalog, ComparisonKind, SourceStamp, StampRecord, VolumeSize},
    format::{
        Malformed, PAGE_LEN, Uuid,
        compacted::CompactedSegment,
        digest::DigestKey,
        frame::{Frame, FrameHeader, FramePlace, place_stream, tail_pages},
        manifest::{
            Counters, Edit, LineageCut, ManifestHeader, NamedSegment, Position, RECORD_BODY_MAX, RecordPlace,
            RunId, SealedSegment, decode_record, encode_record, record_len,
        },
        meta::MetaRecord,
        outline::OutlineFull,
        record::{Record, RecordKind, block_parts},
    },
    index::{Cell, Key, LostRange, MemTable, PieceMeta, RunMeta, cells_of},
    journal::scan_segment,
    manifest::ManifestState,
    retention::{FullRange, OutlinePoint, Standing},
    units::{Block, ExtentId, FrameNo, Lineage, OwnerEpoch, Sector, SectorRange, Seq, TimeNs, VolumeId},
};

const KEY: DigestKey = DigestKey(42);
/// Where frames lie in the segments of these tests.
const FRAME_AT: u64 = 4096;

/// The first page is the head, the rest the tail; the payload is all zeroes.
pub fn frame(data: &[u8]) {
    let _ = FrameHeader::peek(data);
    let mut bytes = data.to_vec();
    bytes.resize(data.len().next_multiple_of(PAGE_LEN).max(PAGE_LEN), 0);
    bytes[..4].copy_from_slice(b"CDPF");
    bytes[32..40].copy_from_slice(&FRAME_AT.to_le_bytes());
    let tail_pages = u32::try_from(bytes.len() / PAGE_LEN - 1).expect("inputs are small");
    bytes[112..116].copy_from_slice(&tail_pages.to_le_bytes());
    seal(&mut bytes, 4);
    let (head, tail) = bytes.split_at(PAGE_LEN);
    let place = FramePlace {
        store: u64_at(head, 8),
        segment: ExtentId::new(u64_at(head, 16)),
        segment_uuid: u64_at(head, 24),
        offset: FRAME_AT,
    };
    let Ok(frame) = Frame::parse(head, tail, place) else { return };
    let mut stream = Vec::new();
    frame.records.iter().for_each(|record| record.encode(frame.header.base_seq, &mut stream));
    let payload_len = usize::try_from(frame.header.payload_pages).expect("bounded") * PAGE_LEN;
    let mut whole = vec![0; PAGE_LEN + payload_len + tail.len()];
    place_stream(&stream, &mut whole, PAGE_LEN + payload_len);
    assert_eq!(frame.header.encode_into(&mut whole), frame.crc);
    assert_eq!((&whole[..PAGE_LEN], &whole[PAGE_LEN + payload_len..]), (head, tail), "one form");
    take(&frame, &whole, place);
}

/// What recovery does with a frame.
fn take(frame: &Frame, whole: &[u8], place: FramePlace) {
    let table = MemTable::new();
    for record in &frame.records {
        let entries: Vec<_> = match record.kind {
            RecordKind::Data => record.data_entries(place.segment, frame.header.payload_at()).collect(),
            _ => Vec::new(),
        };
        let _ = table.insert(&entries);
        assert!(matches!(record.kind, RecordKind::Data) || cells_of(record.range).count() <= 1 << 16);
        let stored: u64 = record.stored_parts().map(|part| part.sectors).sum();
        assert!(record.kind != RecordKind::Data || stored == record.stored_sectors());
    }
    let mut segment = vec![0; PAGE_LEN];
    segment.extend_from_slice(whole);
    let scan = scan_segment(&segment, FRAME_AT, place.store, place.segment, place.segment_uuid, KEY);
    assert_eq!(scan.frames.len(), 1, "a frame is found where it lies");
}

fn record(kind: RecordKind, seq: u64, start: u64, sectors: u64) -> Record {
    let range = SectorRange { start: Sector::new(start), sectors };
    let zeroes = vec![0; 4096];
    let digests = match kind {
        RecordKind::Data => block_parts(range)
            .map(|part| KEY.digest(&zeroes[..usize::try_from(part.sectors).expect("small") * 512]))
            .collect(),
        RecordKind::Meta => vec![KEY.digest(&zeroes[..512])],
        _ => Vec::new(),
    };
    Record {
        kind,
        first: true,
        last: true,
        staged: false,
        continues: false,
        volume: VolumeId::new(u16::from(kind != RecordKind::Meta)),
        range,
        time: TimeNs::new(1_000 + seq),
        seq: Seq::new(seq),
        payload_sector: 0,
        digests: digests.into(),
    }
}

fn frame_bytes(mut records: Vec<Record>, base_seq: u64) -> Vec<u8> {
    let mut payload = 0;
    for record in &mut records {
        record.payload_sector = u32::try_from(payload).expect("small");
        payload += record.stored_sectors();
    }
    let mut stream = Vec::new();
    records.iter().for_each(|record| record.encode(Seq::new(base_seq), &mut stream));
    let payload_pages = payload.div_ceil(8);
    let last =
        records.iter().filter(|record| record.takes_seq() && record.last).map(|record| record.seq).max();
    let header = FrameHeader {
        store: 1,
        segment: ExtentId::new(2),
        segment_uuid: 3,
        offset: FRAME_AT,
        frame: FrameNo::new(4),
        base_seq: Seq::new(base_seq),
        last_seq: last.unwrap_or(Seq::new(base_seq)),
        covered_to: TimeNs::new(9_999),
        durable_frame: FrameNo::new(3),
        lineage: Lineage::new(1),
        owner_epoch: OwnerEpoch::new(1),
        manifest_records: 7,
        previous_crc: 0,
        payload_pages: u32::try_from(payload_pages).expect("small"),
        tail_pages: u32::try_from(tail_pages(stream.len())).expect("small"),
        records: u32::try_from(records.len()).expect("few"),
        stream_bytes: u32::try_from(stream.len()).expect("small"),
    };
    let tail_at = PAGE_LEN * (1 + usize::try_from(payload_pages).expect("small"));
    let mut whole = vec![0; usize::try_from(header.bytes()).expect("small")];
    place_stream(&stream, &mut whole, tail_at);
    header.encode_into(&mut whole);
    // The target makes the payload itself.
    [&whole[..PAGE_LEN], &whole[tail_at..]].concat()
}

pub fn frame_seeds() -> Vec<Vec<u8>> {
    let staged = Record { staged: true, ..record(RecordKind::Data, 8, 800, 8) };
    let part = Record { last: false, ..record(RecordKind::Data, 14, 4096, 16) };
    let mixed = vec![
        record(RecordKind::Data, 11, 3, 20),
        record(RecordKind::Meta, 11, 0, 1),
        record(RecordKind::Zero, 12, 5, 1_000_003),
        record(RecordKind::Discard, 13, 0, 1 << 31),
        staged,
        part,
    ];
    let interval = vec![
        Record { last: false, volume: VolumeId::ZERO, ..record(RecordKind::Interval, 19, 0, 0) },
        Record { first: false, last: false, ..record(RecordKind::Data, 18, 4, 2) },
        Record { first: false, continues: true, ..record(RecordKind::Data, 19, 6, 20) },
        record(RecordKind::Zero, 20, 0, 8),
    ];
    let rest_of_interval = vec![Record { first: false, ..record(RecordKind::Discard, 30, 4, 70) }];
    let many = (0..200).map(|number| record(RecordKind::Zero, 21 + number, number, 1)).collect();
    vec![
        trimmed(&frame_bytes(mixed, 10)),
        trimmed(&frame_bytes(vec![record(RecordKind::Stage, 1, 0, 0)], 0)),
        trimmed(&frame_bytes(many, 20)),
        trimmed(&frame_bytes(Vec::new(), 5)),
        trimmed(&frame_bytes(interval, 10)),
        trimmed(&frame_bytes(rest_of_interval, 10)),
    ]
}

/// The input is the edits of a record.
pub fn manifest(data: &[u8]) {
    let place = RecordPlace { store: 1, extent: ExtentId::new(2), offset: 4096, number: 3 };
    let _ = (
        record_len(data),
        decode_record(data, place),
        ManifestHeader::decode(data, Uuid::default(), ExtentId::ZERO),
    );
    let body = &data[..data.len().min(RECORD_BODY_MAX)];
    let record = encode_record(body, place);
    let Ok(edits) = decode_record(&record, place) else { return };
    let mut again = Vec::new();
    edits.iter().for_each(|edit| edit.encode(&mut again));
    assert_eq!(again, body, "one form");
    let mut state = ManifestState::default();
    if edits.iter().try_for_each(|edit| state.apply(edit)).is_ok() {
        let mut copy = ManifestState::default();
        state
            .snapshot()
            .iter()
            .try_for_each(|edit| copy.apply(edit))
            .expect("a snapshot fits an empty state");
        assert_eq!(copy, state, "a snapshot is the whole state");
    }
}

fn bookmark() -> Bookmark {
    Bookmark {
        name: "nightly-7".into(),
        kind: BookmarkKind::Application,
        app: Some("postgresql".into()),
        comment: Some("before".into()),
        seq: Seq::new(4),
        time: TimeNs::new(1_700_000_000_000_000_000),
        locked: true,
        expires: Some(TimeNs::new(1_800_000_000_000_000_000)),
        inexact_volumes: vec!["disk".into()],
        across: None,
    }
}

fn metas() -> Vec<MetaRecord> {
    let volume = |id, name: &str| MetaRecord::VolumeAdded {
        id: VolumeId::new(id),
        name: name.into(),
        bytes: 1 << 20,
        exists_from: Seq::new(3),
    };
    vec![
        volume(0, "disk"),
        volume(1, "log"),
        MetaRecord::VolumeIdsTaken(VolumeId::new(3)),
        MetaRecord::BookmarkAdded(bookmark()),
        MetaRecord::BookmarkLocked { name: "nightly-7".into(), locked: false },
        MetaRecord::BookmarkAcross {
            name: "nightly-7".into(),
            across: Across {
                id: Uuid([1; 16]),
                stores: vec![Uuid([2; 16]), Uuid([3; 16]), Uuid([4; 16])],
                state: AcrossState::Partial { missing: vec![Uuid([3; 16])] },
            },
        },
        MetaRecord::VolumeResized {
            id: VolumeId::new(1),
            size: VolumeSize { from: Seq::new(5), bytes: 2 << 20 },
        },
        MetaRecord::SourceStamped {
            volume: VolumeId::new(1),
            record: StampRecord {
                stamp: Some(SourceStamp { device: 1, inode: 2, bytes: 3, modified_ns: 4, changed_ns: 5 }),
                unfinished: Some(ComparisonKind::Digests),
            },
        },
        MetaRecord::BookmarkRemoved("nightly-7".into()),
        MetaRecord::PolicySet("{}".into()),
        MetaRecord::CoalescingSet { behind: Seq::new(4), coalescing: Coalescing::IntervalNs(1_000_000_000) },
        MetaRecord::CoalescingSet { behind: Seq::new(9), coalescing: Coalescing::PerBarrier },
    ]
}

fn run() -> RunMeta {
    let key =
        |block, seq| Key::new(VolumeId::new(1), Cell { block: Block::new(block), level: 0 }, Seq::new(seq));
    let piece = |number: u64| PieceMeta {
        extent: ExtentId::new(number),
        offset: 8192,
        pages: 4,
        root_page: 4,
        height: 2,
        first: key(number * 100, 9),
        last: key(number * 100 + 50, 3),
        entries: 200 + number,
        seq_min: Seq::new(3),
        seq_max: Seq::new(90 + number),
        levels: 1,
        sum: 0xABCD << number,
    };
    RunMeta::of(2, vec![piece(1), piece(2)])
}

fn compacted() -> CompactedSegment {
    CompactedSegment { extent: ExtentId::new(8), bytes: 5 * 4096, uuid: Uuid([8; 16]) }
}

fn kept() -> OutlinePoint {
    OutlinePoint {
        point: SeqTime { seq: Seq::new(2), time: TimeNs::new(5) },
        until: TimeNs::new(6),
        standing: Standing::State,
        window: "24h-48h".into(),
        why: "last state of its slot".into(),
    }
}

fn edits() -> Vec<Edit> {
    let extent = ExtentId::new(5);
    let damage = cdp_core::Damage {
        extent,
        file: "5".into(),
        offset: 4096,
        length: 512,
        from_seq: Seq::new(2),
        to_seq: Seq::new(3),
        what: "frames".into(),
    };
    let sealed = SealedSegment {
        extent,
        frames_end: 40960,
        extent_bytes: 65536,
        first_frame: FrameNo::new(1),
        next_frame: FrameNo::new(4),
        base_seq: Seq::new(2),
        last_seq: Seq::new(9),
        first_time: TimeNs::new(5),
        last_time: TimeNs::new(8),
        covered_to: TimeNs::new(9),
        table_extent: extent,
        table_offset: 40960,
        frames: 3,
        source_bytes: 7777,
    };
    let mut edits = vec![
        Edit::NextExtent(ExtentId::new(4)),
        Edit::Counters(Counters { source_bytes: 5, written_bytes: 6 }),
        Edit::SegmentNamed(NamedSegment {
            extent,
            uuid: Uuid([7; 16]),
            group: 0,
            lineage: Lineage::new(1),
            bytes: 1 << 20,
        }),
        Edit::SegmentCut { extent, frames_end: 40960 },
        Edit::SegmentSealed(Box::new(sealed), Some(Box::new(run()))),
        Edit::RunsReplaced {
            removed: vec![RunId { extent: ExtentId::new(1), offset: 8192 }],
            added: Box::new(run()),
        },
        Edit::LineageCut(LineageCut { lineage: Lineage::new(1), last_seq: Seq::new(9) }),
        Edit::Lost(LostRange { from_seq: Seq::new(2), to_seq: Seq::new(3), damage }),
        Edit::Position(Position::default()),
        Edit::SegmentDropped(extent),
        Edit::CompactedAdded(compacted()),
        Edit::CompactedDropped(compacted().extent),
        Edit::RunsRemoved(vec![RunId { extent, offset: 45056 }]),
        Edit::Reserve(Some((ExtentId::new(9), 1 << 20))),
        Edit::OutlineKept(vec![kept()]),
        Edit::OutlineDropped(vec![kept().point.seq]),
        Edit::OutlineFull(OutlineFull {
            full: FullRange { from: kept().point, standing: Standing::State },
            planned: Some((TimeNs::new(5), 6)),
        }),
    ];
    edits.extend(metas().into_iter().map(Edit::Catalog));
    edits
}

pub fn manifest_seeds() -> Vec<Vec<u8>> {
    let encoded = |edits: &[Edit]| {
        let mut body = Vec::new();
        edits.iter().for_each(|edit| edit.encode(&mut body));
        body
    };
    let all = edits();
    let mut seeds: Vec<_> = all.chunks(1).map(encoded).collect();
    seeds.push(encoded(&all));
    seeds.push(encoded(&[Edit::RunKept(Box::new(run()))]));
    seeds
}

pub fn metadata(data: &[u8]) {
    let mut input = data;
    let mut catalog = Catalog::default();
    while !input.is_empty() {
        let before = input;
        let Ok(record) = MetaRecord::decode(&mut input) else { return };
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(again, before[..before.len() - input.len()], "one form");
        if catalog.check(&record) == Ok(()) {
            catalog.apply(&record);
        }
    }
    let mut copy = Catalog::default();
    let records: Vec<MetaRecord> = catalog.records().collect();
    let made = records.iter().try_for_each(|record| {
        copy.check(record)?;
        copy.apply(record);
        Ok::<_, Malformed>(())
    });
    assert_eq!((made, &copy), (Ok(()), &catalog));
}

pub fn metadata_seeds() -> Vec<Vec<u8>> {
    let encoded = |records: &[MetaRecord]| {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        bytes
    };
    let all = metas();
    let mut seeds: Vec<_> = all.chunks(1).map(encoded).collect();
    seeds.push(encoded(&all));
    seeds
}

pub fn run_meta(data: &[u8]) {
    let mut input = data;
    while !input.is_empty() {
        let before = input;
        let Ok(run) = RunMeta::decode(&mut input) else { return };
        let mut again = Vec::new();
        run.encode(&mut again);
        assert_eq!(again, before[..before.len() - input.len()], "one form");
        let _ = run.bytes();
    }
}

pub fn run_meta_seeds() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    run().encode(&mut bytes);
    RunMeta::of(0, Vec::new()).encode(&mut bytes);
    vec![bytes]
}
