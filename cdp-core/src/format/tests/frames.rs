//! Frames and records.

use super::{assert_cuts_are_refused, assert_flips_are_refused};
use crate::{
    format::{
        Malformed, PAGE_BYTES, PAGE_LEN,
        digest::{DigestKey, crc_around},
        frame::{Frame, FrameHeader, FramePlace, place_stream, tail_pages},
        record::{Digests, Record, RecordKind, block_parts},
    },
    journal::scan_segment,
    limits::{COUNTER_END, FRAME_BYTES_MAX},
    units::{
        ExtentId, FrameNo, Lineage, OwnerEpoch, SECTOR_LEN, Sector, SectorRange, Seq, TimeNs, VolumeId,
        to_len,
    },
};
use proptest::prelude::*;

const KEY: DigestKey = DigestKey(0x1234);
const PLACE: FramePlace =
    FramePlace { store: 11, segment: ExtentId::new(12), segment_uuid: 13, offset: PAGE_BYTES };

/// A frame in the making.
#[derive(Clone, Debug)]
struct Sample {
    header: FrameHeader,
    records: Vec<Record>,
    payload: Vec<u8>,
}

impl Sample {
    fn new(base_seq: u64) -> Self {
        let header = FrameHeader {
            store: PLACE.store,
            segment: PLACE.segment,
            segment_uuid: PLACE.segment_uuid,
            offset: PLACE.offset,
            frame: FrameNo::new(20),
            base_seq: Seq::new(base_seq),
            last_seq: Seq::new(base_seq),
            covered_to: TimeNs::new(999),
            durable_frame: FrameNo::new(18),
            lineage: Lineage::new(2),
            owner_epoch: OwnerEpoch::new(3),
            manifest_records: 4,
            previous_crc: 0xABCD,
            payload_pages: 0,
            tail_pages: 0,
            records: 0,
            stream_bytes: 0,
        };
        Self { header, records: Vec::new(), payload: Vec::new() }
    }

    fn is_between_writes(&self) -> bool {
        self.records.iter().rev().find(|record| record.takes_seq()).is_none_or(|record| record.last)
    }

    /// Appends a record. Every third block of data is zero, and so not stored.
    fn push(&mut self, kind: RecordKind, start: u64, sectors: u64, last: bool) {
        let next = self.header.last_seq.next();
        let first = kind == RecordKind::Meta || self.is_between_writes();
        let range = SectorRange { start: Sector::new(start), sectors };
        let mut record = Record {
            kind,
            first,
            last,
            staged: false,
            continues: false,
            volume: VolumeId::new(if kind == RecordKind::Meta { 0 } else { 3 }),
            range,
            time: TimeNs::new(500 + next.get()),
            seq: next,
            payload_sector: u32::try_from(self.payload.len() / SECTOR_LEN).unwrap(),
            digests: Digests::new(),
        };
        match kind {
            RecordKind::Data => {
                for (index, part) in block_parts(range).enumerate() {
                    let stored = index % 3 != 2;
                    let bytes = vec![u8::try_from(1 + index % 200).unwrap(); to_len(part.bytes())];
                    record.digests.push(if stored { KEY.digest(&bytes) } else { 0 });
                    self.payload.extend(bytes.iter().filter(|_| stored));
                }
            }
            RecordKind::Meta => {
                let bytes = vec![7; to_len(range.bytes())];
                record.seq = self.header.last_seq;
                record.digests.push(KEY.digest(&bytes));
                self.payload.extend(bytes);
            }
            _ => {}
        }
        if record.takes_seq() && last {
            self.header.last_seq = next;
        }
        self.records.push(record);
    }

    /// The bytes: whatever is in `records` and `header` now, lengths and counts made to fit.
    fn bytes(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        self.records.iter().for_each(|record| record.encode(self.header.base_seq, &mut stream));
        let payload_pages = self.payload.len().div_ceil(PAGE_LEN);
        let header = FrameHeader {
            payload_pages: u32::try_from(payload_pages).unwrap(),
            tail_pages: u32::try_from(tail_pages(stream.len())).unwrap(),
            records: u32::try_from(self.records.len()).unwrap(),
            stream_bytes: u32::try_from(stream.len()).unwrap(),
            ..self.header.clone()
        };
        let mut frame = vec![0; to_len(header.bytes())];
        frame[PAGE_LEN..PAGE_LEN + self.payload.len()].copy_from_slice(&self.payload);
        place_stream(&stream, &mut frame, PAGE_LEN * (1 + payload_pages));
        header.encode_into(&mut frame);
        frame
    }
}

fn parse(frame: &[u8]) -> Result<Frame, Malformed> {
    let header = FrameHeader::peek(frame.get(..PAGE_LEN).unwrap_or(frame))?;
    let tail = frame.get(to_len(header.tail_offset())..).ok_or(Malformed("cut"))?;
    Frame::parse(&frame[..PAGE_LEN], tail, PLACE)
}

fn damage(frame: &[u8]) -> Vec<(u64, u64)> {
    let parsed = parse(frame).unwrap();
    parsed.payload_damage(&frame[PAGE_LEN..to_len(parsed.header.tail_offset())], KEY)
}

fn mixed() -> Sample {
    let mut sample = Sample::new(100);
    sample.push(RecordKind::Data, 5, 30, true);
    sample.push(RecordKind::Meta, 0, 2, true);
    sample.push(RecordKind::Zero, 7, 1 << 31, true);
    sample.push(RecordKind::Stage, 0, 0, true);
    sample.push(RecordKind::Discard, 0, 9, true);
    sample.push(RecordKind::Data, 800, 8, false);
    sample
}

proptest! {
    /// Goal: frames come back as they went in, whole and only at their own place. Method: random rows of records of every kind, also more
    /// than the head page holds; other places.
    #[test]
    fn frames_are_read_back_as_they_were_written(
        base_seq in 0..COUNTER_END - 1000,
        rows in proptest::collection::vec((0..5u8, 0..1u64 << 40, 1..40u64, any::<bool>()), 0..200),
    ) {
        let mut sample = Sample::new(base_seq);
        for (kind, start, sectors, last) in rows {
            match kind {
                0 => sample.push(RecordKind::Data, start, sectors, last),
                1 => sample.push(RecordKind::Zero, start, sectors, last),
                2 => sample.push(RecordKind::Discard, start, sectors, last),
                3 if sample.is_between_writes() => sample.push(RecordKind::Stage, 0, 0, true),
                _ => sample.push(RecordKind::Meta, 0, sectors, true),
            }
        }
        let bytes = sample.bytes();
        prop_assume!(bytes.len() <= FRAME_BYTES_MAX);
        let frame = parse(&bytes).unwrap();
        prop_assert_eq!(&frame.records, &sample.records);
        prop_assert_eq!(frame.header.last_seq, sample.header.last_seq);
        prop_assert_eq!(damage(&bytes), vec![]);
        let (head, tail) = (&bytes[..PAGE_LEN], &bytes[to_len(frame.header.tail_offset())..]);
        for elsewhere in [
            FramePlace { store: 1, ..PLACE },
            FramePlace { segment: ExtentId::new(1), ..PLACE },
            FramePlace { segment_uuid: 1, ..PLACE },
            FramePlace { offset: 8192, ..PLACE },
        ] {
            prop_assert!(Frame::parse(head, tail, elsewhere).is_err());
        }
    }
}

/// Goal: no flipped bit of a frame goes unnoticed: head, records, payload, and the padding of each. Method: all of them; what lies in head and
/// tail is refused, what lies in the payload is named.
#[test]
fn flipped_bits_and_cuts_of_a_frame_are_noticed() {
    let mut sample = mixed();
    (0..150).for_each(|number| sample.push(RecordKind::Zero, number, 1, number > 0));
    let bytes = sample.bytes();
    let tail_at = PAGE_LEN * (1 + sample.payload.len().div_ceil(PAGE_LEN));
    assert!(tail_at < bytes.len(), "the records reach into the tail");
    let covered = [&bytes[..PAGE_LEN], &bytes[tail_at..]].concat();
    assert_flips_are_refused(&covered, |covered| {
        let (head, tail) = covered.split_at(PAGE_LEN);
        Frame::parse(head, tail, PLACE)
    });
    assert_cuts_are_refused(&bytes, parse);
    let mut flipped = bytes;
    for bit in PAGE_LEN * 8..tail_at * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        let sector = (bit / 8 - PAGE_LEN) as u64 / 512;
        let found = damage(&flipped);
        assert!(
            found.iter().any(|(from, count)| (*from..from + count).contains(&sector)),
            "bit {bit}: {found:?}"
        );
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Goal: what no writer writes is refused in spite of its checksum. Method: one change to a good frame for each rule.
#[test]
fn frames_with_impossible_records_are_refused() {
    assert!(parse(&mixed().bytes()).is_ok());
    let change = |what: &str, change: fn(&mut Sample)| {
        let mut sample = mixed();
        change(&mut sample);
        let outcome = parse(&sample.bytes());
        assert!(outcome.is_err(), "{what}");
    };
    change("a seq left out", |s| s.records[2].seq = Seq::new(103));
    change("a seq twice", |s| s.records[2].seq = Seq::new(101));
    change("a part without its first", |s| s.records[2].first = false);
    change("two first parts", |s| s.records[0].last = false);
    change("metadata of a seq to come", |s| s.records[1].seq = Seq::new(102));
    change("staged under a seq to come", |s| (s.records[2].staged, s.records[2].seq) = (true, Seq::new(200)));
    change("staged metadata", |s| s.records[1].staged = true);
    change("metadata of a volume", |s| s.records[1].volume = VolumeId::new(1));
    change("metadata at a place", |s| s.records[1].range.start = Sector::new(1));
    change("a stage with a range", |s| s.records[3].range.sectors = 1);
    change("an empty range", |s| s.records[4].range.sectors = 0);
    change("a range past all sectors", |s| s.records[4].range.start = Sector::new(u64::MAX - 9));
    change("a range past any volume", |s| s.records[4].range.start = Sector::new((1 << 47) - 8));
    change("payload out of order", |s| s.records[5].payload_sector = 0);
    change("payload past the frame", |s| s.records[5].payload_sector = 1 << 20);
    change("payload past 32 bits", |s| s.records[5].payload_sector = u32::MAX);
    change("another last seq", |s| s.header.last_seq = Seq::new(105));
    change("a last seq before the base", |s| s.header.last_seq = Seq::new(99));
    change("no room for more seqs", |s| {
        (s.header.base_seq, s.header.last_seq) = (Seq::new(COUNTER_END - 4), Seq::new(COUNTER_END));
        s.records.iter_mut().for_each(|record| record.seq = Seq::new(record.seq.get() + (COUNTER_END - 104)));
    });
    change("no room for more frames", |s| s.header.frame = FrameNo::new(COUNTER_END));
    change("no room for more owners", |s| s.header.owner_epoch = OwnerEpoch::new(COUNTER_END));
}

/// A coalesced interval of eight writes behind seq 100, of which two layers are left, and a write behind it.
fn interval() -> Sample {
    let mut sample = Sample::new(100);
    sample.push(RecordKind::Interval, 0, 0, false);
    sample.push(RecordKind::Data, 5, 2, false);
    sample.push(RecordKind::Discard, 64, 9, false);
    sample.push(RecordKind::Data, 7, 30, true);
    let part = |record: &mut Record, seq| record.seq = Seq::new(seq);
    part(&mut sample.records[0], 108);
    sample.records[0].volume = VolumeId::ZERO;
    part(&mut sample.records[1], 107);
    part(&mut sample.records[2], 108);
    part(&mut sample.records[3], 108);
    sample.records[3].continues = true;
    sample.header.last_seq = Seq::new(108);
    sample.push(RecordKind::Zero, 0, 1, true);
    sample
}

/// Goal: an interval leaps over seqs and says whether it goes on; what no writer makes of it is refused. Method: one change for each rule.
#[test]
fn intervals_are_read_back_and_impossible_ones_refused() {
    assert_eq!(parse(&interval().bytes()).unwrap().records, interval().records);
    // Its beginning may lie in an earlier frame.
    let mut rest = interval();
    rest.records.remove(0);
    assert_eq!(parse(&rest.bytes()).unwrap().records, rest.records);
    let change = |what: &str, change: fn(&mut Sample)| {
        let mut sample = interval();
        change(&mut sample);
        assert!(parse(&sample.bytes()).is_err(), "{what}");
    };
    change("an interval that leaps over nothing", |s| s.records[0].seq = Seq::new(100));
    change("a part of a seq to come", |s| s.records[1].seq = Seq::new(109));
    change("a part of an earlier seq", |s| s.records[1].seq = Seq::new(100));
    change("a last part of another seq", |s| s.records[3].seq = Seq::new(107));
    change("a leap without an interval", |s| {
        (s.records[4].seq, s.header.last_seq) = (Seq::new(110), Seq::new(110))
    });
    change("an interval that is its last part", |s| s.records[0].last = true);
    change("an interval that is not its first part", |s| s.records[0].first = false);
    change("an interval with a range", |s| s.records[0].range.sectors = 1);
    change("an interval at a place", |s| s.records[0].range.start = Sector::new(8));
    change("an interval of a volume", |s| s.records[0].volume = VolumeId::new(1));
    change("a staged interval", |s| s.records[0].staged = true);
    change("an interval that goes on behind its first part", |s| s.records[0].continues = true);
    change("an interval that goes on behind a part in the middle", |s| s.records[2].continues = true);
    change("an interval within an interval", |s| s.records[2].first = true);
    change("a staged part that goes on", |s| (s.records[4].staged, s.records[4].continues) = (true, true));
}

/// Goal: unverified lengths are bounded before anything is read by them. Method: a head page that claims the largest frame and one page more,
/// and the largest numbers there are.
#[test]
fn a_frame_longer_than_the_limit_is_refused_by_its_head() {
    let mut head = mixed().bytes()[..PAGE_LEN].to_vec();
    let mut claim = |payload: u32, tail: u32, stream: u32| {
        head[108..112].copy_from_slice(&payload.to_le_bytes());
        head[112..116].copy_from_slice(&tail.to_le_bytes());
        head[120..124].copy_from_slice(&stream.to_le_bytes());
        FrameHeader::peek(&head).is_ok()
    };
    let most = u32::try_from(FRAME_BYTES_MAX / PAGE_LEN - 1).unwrap();
    assert!(claim(most, 0, 100) && claim(0, most, 100));
    assert!(!claim(most, 1, 100) && !claim(u32::MAX, 0, 100) && !claim(0, u32::MAX, 100));
    assert!(!claim(u32::MAX, u32::MAX, u32::MAX));
    assert!(claim(0, 1, 8192 - 128) && !claim(0, 1, 8192 - 127));
}

/// Goal: a scan finds frames behind damage, and says what is neither frame nor zero. Method: three frames, the second with a flipped bit in
/// its head; metadata that cannot be read is damage of the payload.
#[test]
fn a_scan_goes_on_behind_a_bad_frame() {
    let mut segment = vec![0; PAGE_LEN];
    let mut offsets = Vec::new();
    for number in 0..3u64 {
        let mut sample = Sample::new(100 + number);
        sample.push(RecordKind::Data, 0, 16, true);
        sample.header.offset = segment.len() as u64;
        offsets.push(sample.header.offset);
        segment.extend(sample.bytes());
    }
    let mut meta = Sample::new(103);
    meta.push(RecordKind::Meta, 0, 1, true);
    meta.header.offset = segment.len() as u64;
    segment.extend(meta.bytes());
    segment[to_len(offsets[1]) + 50] ^= 1;
    segment.extend(vec![0; 3 * PAGE_LEN]);
    let scan = scan_segment(&segment, PAGE_BYTES, PLACE.store, PLACE.segment, PLACE.segment_uuid, KEY);
    let found: Vec<u64> = scan.frames.iter().map(|scanned| scanned.frame.header.offset).collect();
    assert_eq!(found, [offsets[0], offsets[2], meta.header.offset]);
    let [(from, length)] = scan.garbage[..] else { panic!("one range of garbage: {:?}", scan.garbage) };
    assert!(from == offsets[1] && from + length <= offsets[2]);
    assert_eq!(scan.frames[0].payload_damage, []);
    assert_eq!(scan.frames[2].payload_damage.len(), 1, "its digest is right, but it is no metadata");
}

/// Goal: the checksum of a frame is that of its head and tail in a row. Method: compare with the checksum of the copy.
#[test]
fn the_checksum_of_a_frame_leaves_the_payload_out() {
    let sample = mixed();
    let bytes = sample.bytes();
    let tail_at = PAGE_LEN * (1 + sample.payload.len().div_ceil(PAGE_LEN));
    let covered = [&bytes[..PAGE_LEN], &bytes[tail_at..]].concat();
    assert_eq!(parse(&bytes).unwrap().crc, crc_around(&covered, 4));
}
