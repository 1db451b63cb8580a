//! Finding the frames of a segment that was not sealed.
//!
//! Frames follow each other; after a bad one the scan goes on page by page until it finds one that belongs to this segment
//! and place, so that damage in the middle does not hide what lies behind it. Whether a bad frame is rot or a torn tail is
//! decided later, over all segments ([`super::assemble`]).

use crate::{
    format::{
        Malformed, PAGE_LEN, all_zero,
        digest::DigestKey,
        frame::{Frame, FrameHeader, FramePlace},
        meta::MetaRecord,
        record::RecordKind,
    },
    units::{ExtentId, SECTOR_BYTES, len_u64, to_len},
};

/// A frame that was found, and whether its payload is intact.
#[derive(Clone, Debug)]
pub struct ScannedFrame {
    /// The frame.
    pub frame: Frame,
    /// Its metadata records.
    pub metas: Vec<MetaRecord>,
    /// Damaged payload, in sectors of the segment: `(first, sectors)`.
    pub payload_damage: Vec<(u64, u64)>,
}

/// What was found in a segment.
#[derive(Clone, Debug, Default)]
pub struct SegmentScan {
    /// The frames, by ascending offset.
    pub frames: Vec<ScannedFrame>,
    /// Bytes behind the last frame, or between frames, that are neither zero nor a frame: `(offset, length)`.
    pub garbage: Vec<(u64, u64)>,
}

/// Scans the content of a segment from `start` to `end` of `bytes` (offsets within the segment).
pub fn scan_segment(
    bytes: &[u8],
    start: u64,
    store: u64,
    segment: ExtentId,
    segment_uuid: u64,
    key: DigestKey,
) -> SegmentScan {
    let mut scan = SegmentScan::default();
    let mut at = to_len(start);
    let mut garbage_from = None;
    while at + PAGE_LEN <= bytes.len() {
        let place = FramePlace { store, segment, segment_uuid, offset: len_u64(at) };
        match frame_at(bytes, at, place, key) {
            Some((frame, len)) => {
                close_garbage(&mut scan, bytes, &mut garbage_from, at);
                scan.frames.push(frame);
                at += len;
            }
            None => {
                garbage_from.get_or_insert(at);
                at += PAGE_LEN;
            }
        }
    }
    close_garbage(&mut scan, bytes, &mut garbage_from, bytes.len());
    scan
}

fn close_garbage(scan: &mut SegmentScan, bytes: &[u8], from: &mut Option<usize>, to: usize) {
    if let Some(from) = from.take()
        && let Some(first) = bytes[from..to].iter().position(|byte| *byte != 0)
    {
        let last = bytes[from..to].iter().rposition(|byte| *byte != 0).unwrap_or(first);
        scan.garbage.push((len_u64(from + first), len_u64(last - first + 1)));
    }
}

/// One metadata record, filled up with zeroes to whole sectors.
fn decode_meta(mut body: &[u8]) -> Result<MetaRecord, Malformed> {
    let meta = MetaRecord::decode(&mut body)?;
    if all_zero(body) { Ok(meta) } else { Err(Malformed("metadata: bytes behind the record")) }
}

fn frame_at(bytes: &[u8], at: usize, place: FramePlace, key: DigestKey) -> Option<(ScannedFrame, usize)> {
    let head = &bytes[at..at + PAGE_LEN];
    let header = FrameHeader::peek(head).ok()?;
    let len = to_len(header.bytes());
    let whole = bytes.get(at..at + len)?;
    let (payload, tail) = whole[PAGE_LEN..].split_at(to_len(header.tail_offset()) - PAGE_LEN);
    let frame = Frame::parse(head, tail, place).ok()?;
    let payload_at = frame.header.payload_at();
    let mut damage = frame.payload_damage(payload, key);
    let mut metas = Vec::new();
    for record in frame.records.iter().filter(|record| record.kind == RecordKind::Meta) {
        let (first, sectors) = (u64::from(record.payload_sector), record.range.sectors);
        let from = to_len(first * SECTOR_BYTES);
        let body = payload.get(from..from + to_len(record.range.bytes())).unwrap_or_default();
        match decode_meta(body) {
            Ok(meta) => metas.push(meta),
            Err(_) if damage.contains(&(first, sectors)) => {}
            Err(_) => damage.push((first, sectors)),
        }
    }
    let payload_damage = damage.into_iter().map(|(first, sectors)| (payload_at + first, sectors)).collect();
    Some((ScannedFrame { frame, metas, payload_damage }, len))
}
