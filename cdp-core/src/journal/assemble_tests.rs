use super::*;
use crate::{
    format::{
        frame::Frame,
        record::{Digests, Record},
    },
    units::{Lineage, OwnerEpoch, Sector, SectorRange, TimeNs, VolumeId},
};

/// What a frame of these tests holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Writes(u64),
    Nothing,
    FirstPart,
    MiddlePart,
    LastPart,
}

const SEGMENT: ExtentId = ExtentId::new(5);
const FRAME_BYTES: u64 = 4096;

/// Frame `number` of a row of one-page frames that begins with frame 10; frames below `durable` were durable before it.
fn frame(number: u64, base_seq: u64, durable: u64, holds: Holds) -> ScannedFrame {
    let range = SectorRange { start: Sector::ZERO, sectors: 1 };
    let record = |seq: u64, first, last| Record {
        kind: RecordKind::Zero,
        first,
        last,
        staged: false,
        continues: false,
        volume: VolumeId::ZERO,
        range,
        time: TimeNs::ZERO,
        seq: Seq::new(seq),
        payload_sector: 0,
        digests: Digests::new(),
    };
    let records: Vec<Record> = match holds {
        Holds::Writes(count) => (1..=count).map(|step| record(base_seq + step, true, true)).collect(),
        Holds::Nothing => Vec::new(),
        Holds::FirstPart => vec![record(base_seq + 1, true, false)],
        Holds::MiddlePart => vec![record(base_seq + 1, false, false)],
        Holds::LastPart => vec![record(base_seq + 1, false, true)],
    };
    let last_seq = records.iter().filter(|record| record.last).map(|record| record.seq).max();
    let header = FrameHeader {
        store: 1,
        segment: SEGMENT,
        segment_uuid: 2,
        offset: FRAME_BYTES * (number - 9),
        frame: FrameNo::new(number),
        base_seq: Seq::new(base_seq),
        last_seq: last_seq.unwrap_or(Seq::new(base_seq)),
        covered_to: TimeNs::ZERO,
        durable_frame: FrameNo::new(durable),
        lineage: Lineage::new(1),
        owner_epoch: OwnerEpoch::new(1),
        manifest_records: 0,
        previous_crc: 0,
        payload_pages: 0,
        tail_pages: 0,
        records: 1,
        stream_bytes: 32,
    };
    ScannedFrame { frame: Frame { header, crc: 0, records }, metas: Vec::new(), payload_damage: Vec::new() }
}

fn assembled(frames: Vec<ScannedFrame>) -> Assembly {
    let scan = SegmentScan { frames, garbage: Vec::new() };
    let input = AssemblyInput { segment: SEGMENT, scan, cut: None };
    assemble(vec![input], FrameNo::new(10), Seq::new(100), Sabotage::default())
}

fn kept(assembly: &Assembly) -> Vec<u64> {
    assembly.kept.iter().flat_map(|(_, frames)| frames).map(|f| f.frame.header.frame.get()).collect()
}

/// Goal: an unbroken row is kept whole. Method: writes, an empty frame and a write of three parts.
#[test]
fn an_unbroken_row_is_history() {
    let assembly = assembled(vec![
        frame(10, 100, 10, Holds::Writes(3)),
        frame(11, 103, 11, Holds::Nothing),
        frame(12, 103, 11, Holds::FirstPart),
        frame(13, 103, 11, Holds::MiddlePart),
        frame(14, 103, 12, Holds::LastPart),
    ]);
    assert_eq!(kept(&assembly), [10, 11, 12, 13, 14]);
    assert_eq!((assembly.last_seq, assembly.next_frame), (Seq::new(104), FrameNo::new(15)));
    assert_eq!((assembly.lost, assembly.tail_frames), (vec![], 0));
}

/// Goal: a write that lost its first part to rot and its last to the crash leaves nothing behind, and its seq is not given away again: its
/// entries would contradict those of the write that took it. Method: the middle part alone is found.
#[test]
fn a_write_without_its_first_and_last_part_is_cut_as_a_whole() {
    let assembly =
        assembled(vec![frame(10, 100, 10, Holds::Writes(3)), frame(12, 103, 12, Holds::MiddlePart)]);
    assert_eq!(kept(&assembly), [10]);
    assert_eq!(assembly.tail_frames, 1);
    let [lost] = &assembly.lost[..] else { panic!("one row of lost frames: {:?}", assembly.lost) };
    assert_eq!((lost.from_seq, lost.to_seq), (Seq::new(104), Seq::new(104)));
    assert_eq!(assembly.last_seq, Seq::new(104));
}

/// Goal: frames that completed no seq are damage and make no seq unreadable. Method: the frame of a bookmark is missing.
#[test]
fn lost_frames_without_seqs_lose_no_seq() {
    let assembly =
        assembled(vec![frame(10, 100, 10, Holds::Writes(3)), frame(12, 103, 12, Holds::Writes(1))]);
    assert_eq!(kept(&assembly), [10, 12]);
    let [lost] = &assembly.lost[..] else { panic!("one row of lost frames: {:?}", assembly.lost) };
    assert!(lost.to_seq < lost.from_seq);
    assert_eq!((lost.offset, lost.length), (2 * FRAME_BYTES, FRAME_BYTES));
    assert_eq!(assembly.last_seq, Seq::new(104));
}

/// Goal: the seqs of lost frames are known from the frames around them. Method: a missing frame of two writes.
#[test]
fn lost_frames_are_known_by_what_surrounds_them() {
    let assembly =
        assembled(vec![frame(10, 100, 10, Holds::Writes(3)), frame(12, 105, 12, Holds::Writes(1))]);
    assert_eq!(kept(&assembly), [10, 12]);
    let [lost] = &assembly.lost[..] else { panic!("one row of lost frames: {:?}", assembly.lost) };
    assert_eq!((lost.from_seq, lost.to_seq), (Seq::new(104), Seq::new(105)));
    assert_eq!(lost.next_frame, Some(FrameNo::new(12)));
}

/// Goal: frames that no owner writes end the row: seqs that begin again, and frames out of their places. Method: each of them.
#[test]
fn frames_that_do_not_follow_end_the_row() {
    let again = assembled(vec![frame(10, 100, 10, Holds::Writes(3)), frame(11, 102, 10, Holds::Writes(1))]);
    assert_eq!((kept(&again), again.last_seq), (vec![10], Seq::new(103)));
    let mut behind = frame(12, 104, 10, Holds::Writes(1));
    behind.frame.header.offset = FRAME_BYTES;
    let misplaced =
        assembled(vec![frame(10, 100, 10, Holds::Writes(3)), frame(11, 103, 10, Holds::Writes(1)), behind]);
    assert_eq!((kept(&misplaced), misplaced.last_seq), (vec![10, 11], Seq::new(104)));
}

/// Goal: a write that is not complete at the end takes with it what its frames hold besides. Method: a frame of a whole write and a first
/// part, which no owner makes.
#[test]
fn an_incomplete_write_does_not_leave_its_seqs_behind() {
    let mut mixed = frame(11, 103, 10, Holds::Writes(1));
    let first_part = frame(11, 104, 10, Holds::FirstPart).frame.records;
    mixed.frame.records.extend(first_part);
    let assembly = assembled(vec![frame(10, 100, 10, Holds::Writes(3)), mixed]);
    assert_eq!((kept(&assembly), assembly.last_seq), (vec![10], Seq::new(103)));
}
