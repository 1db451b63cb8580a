//! Deciding what of the scanned frames is history: the unbroken row of frames, what was lost to rot, and the torn tail.
//!
//! Pure. A frame that is missing or bad below the highest *durable frame* that any intact frame vouches for is **rot**: its seqs
//! are recorded as lost, and history goes on behind it. Beyond that it is a **torn tail**: the row is cut there, at a frame
//! that does not leave a write with its last part missing.

use super::{ScannedFrame, SegmentScan};
use crate::{
    format::{frame::FrameHeader, record::RecordKind},
    sabotage::{Sabotage, Switch},
    units::{ExtentId, FrameNo, Seq, len_u64},
};

/// The scan of one segment that was not sealed, in the order of use.
pub struct AssemblyInput {
    /// The segment.
    pub segment: ExtentId,
    /// Its frames.
    pub scan: SegmentScan,
    /// Where its frames end, when the manifest says so: all of them were durable then.
    pub cut: Option<u64>,
}

impl AssemblyInput {
    /// Whether frames are missing that the manifest vouches for.
    fn is_short(&self) -> bool {
        let mut end = crate::format::PAGE_BYTES;
        for scanned in &self.scan.frames {
            if scanned.frame.header.offset != end {
                return self.cut.is_some();
            }
            end += scanned.frame.header.bytes();
        }
        self.cut.is_some_and(|cut| end < cut)
    }
}

/// A row of lost frames: everything from `from_seq` to `to_seq` is unknown. When they completed no seq, `to_seq` lies before
/// `from_seq`; they may still have held metadata, or staged records of earlier seqs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostFrames {
    /// The segment in which they are missing.
    pub segment: ExtentId,
    /// First byte that is missing.
    pub offset: u64,
    /// Length, bytes.
    pub length: u64,
    /// First seq.
    pub from_seq: Seq,
    /// Last seq.
    pub to_seq: Seq,
    /// The first frame behind them, if any.
    pub next_frame: Option<FrameNo>,
}

/// The history that was found behind the sealed segments.
#[derive(Debug, Default)]
pub struct Assembly {
    /// Frames by segment, in order; a segment without frames is left out.
    pub kept: Vec<(ExtentId, Vec<ScannedFrame>)>,
    /// Frames lost to rot.
    pub lost: Vec<LostFrames>,
    /// Frames that were cut off.
    pub tail_frames: u64,
    /// Bytes that were cut off: frames, and what looks like the beginning of one.
    pub tail_bytes: u64,
    /// Frames below this number were known to be durable before the store was opened.
    pub vouched_below: FrameNo,
    /// Number of the next frame.
    pub next_frame: FrameNo,
    /// The last seq.
    pub last_seq: Seq,
}

/// Puts the frames of all unsealed segments in a row that begins with `next_frame`, behind `last_seq`.
pub fn assemble(
    inputs: Vec<AssemblyInput>,
    next_frame: FrameNo,
    last_seq: Seq,
    sabotage: Sabotage,
) -> Assembly {
    let mut assembly = Assembly::default();
    let garbage: u64 = inputs.iter().flat_map(|input| &input.scan.garbage).map(|(_, length)| length).sum();
    // Frames missing from a segment whose end the manifest knows were durable, up to the first frame found behind it.
    let vouched = inputs.iter().enumerate().filter(|(_, input)| input.is_short()).map(|(index, _)| {
        let behind = inputs[index + 1..].iter().flat_map(|input| &input.scan.frames);
        behind.map(|scanned| scanned.frame.header.frame).min().unwrap_or(FrameNo::MAX)
    });
    let vouched = vouched.max().unwrap_or_default();
    let last_short = inputs
        .iter()
        .rev()
        .find(|input| input.is_short())
        .map(|input| (input.segment, input.cut.unwrap_or(0)));
    let mut frames: Vec<(ExtentId, ScannedFrame)> = inputs
        .into_iter()
        .flat_map(|input| input.scan.frames.into_iter().map(move |frame| (input.segment, frame)))
        .collect();
    let known_durable = frames
        .iter()
        .map(|(_, scanned)| scanned.frame.header.durable_frame)
        .max()
        .unwrap_or(next_frame)
        .max(next_frame)
        .max(if vouched == FrameNo::MAX { FrameNo::ZERO } else { vouched });
    // Only the frames of the newest lineage that claims a number count; an older owner's frame is not history.
    frames.sort_by_key(|(_, f)| (f.frame.header.frame, std::cmp::Reverse(f.frame.header.lineage)));
    let mut expected = next_frame;
    let mut seq = last_seq;
    let mut row: Vec<(ExtentId, ScannedFrame)> = Vec::new();
    let mut cut = Vec::new();
    let mut torn = false;
    for (segment, scanned) in frames {
        let header = &scanned.frame.header;
        if header.frame < expected || torn {
            cut.push(scanned);
            continue;
        }
        let gap = header.frame > expected;
        let rot = gap && expected < known_durable && !sabotage.on(Switch::TruncateOnAnyBadFrame);
        if rot {
            let (offset, length) = hole_before(&row, segment, header.offset);
            let (from_seq, to_seq) = (seq.next(), last_seq_begun_before(&scanned));
            let next_frame = Some(header.frame);
            assembly.lost.push(LostFrames { segment, offset, length, from_seq, to_seq, next_frame });
            expected = header.frame;
        }
        let trusted = sabotage.on(Switch::TrustTailPayload) || scanned.payload_damage.is_empty();
        let in_tail = header.frame >= known_durable;
        // Behind a hole, frames count only if the hole ends where durability was vouched for.
        if (gap && (!rot || header.frame > known_durable))
            || (in_tail && !trusted)
            || !follows(&row, segment, header, seq)
        {
            torn = true;
            cut.push(scanned);
            continue;
        }
        expected = header.frame.next();
        seq = header.last_seq;
        row.push((segment, scanned));
    }
    if !sabotage.on(Switch::KeepIncompleteWrite)
        && let Some(index) = incomplete_write_from(&row)
        && !(sabotage.on(Switch::KeepCutInterval) && begins_interval(&row[index].1))
    {
        let removed = row.drain(index..);
        let first = &removed.as_slice()[0].1.frame.header;
        expected = expected.min(first.frame);
        seq = first.base_seq;
        cut.extend(removed.map(|(_, scanned)| scanned));
    }
    if vouched == FrameNo::MAX
        && let Some((segment, cut)) = last_short
    {
        // The last frames of all are gone: it is not known how many seqs they held, at least one.
        let (from_seq, to_seq) = (seq.next(), seq.next());
        let (offset, length) = hole_before(&row, segment, cut);
        assembly.lost.push(LostFrames { segment, offset, length, from_seq, to_seq, next_frame: None });
        seq = to_seq;
    }
    assembly.next_frame = expected;
    assembly.vouched_below = known_durable;
    // A lost seq is never given to another write.
    assembly.last_seq = assembly.lost.iter().map(|lost| lost.to_seq).fold(seq, Seq::max);
    assembly.tail_frames = len_u64(cut.len());
    assembly.tail_bytes = garbage + cut.iter().map(|f| f.frame.header.bytes()).sum::<u64>();
    for (segment, scanned) in row {
        match assembly.kept.last_mut() {
            Some((last, frames)) if *last == segment => frames.push(scanned),
            _ => assembly.kept.push((segment, vec![scanned])),
        }
    }
    assembly
}

/// Where frames are missing in front of a frame: behind the frame before it in the same segment, else from the header on.
fn hole_before(row: &[(ExtentId, ScannedFrame)], segment: ExtentId, offset: u64) -> (u64, u64) {
    let start = row
        .iter()
        .rev()
        .find(|(other, _)| *other == segment)
        .map_or(crate::format::PAGE_BYTES, |(_, f)| f.frame.header.offset + f.frame.header.bytes());
    (start, offset.saturating_sub(start))
}

/// The last seq of which a part lay in front of a frame.
fn last_seq_begun_before(scanned: &ScannedFrame) -> Seq {
    let first = scanned.frame.records.iter().find(|record| record.takes_seq());
    first.filter(|record| !record.first).map_or(scanned.frame.header.base_seq, |record| record.seq)
}

/// Whether a frame can be the next in the row: its seqs go on, and no frame behind it in its segment is in the row already.
/// What an owner writes always does.
fn follows(row: &[(ExtentId, ScannedFrame)], segment: ExtentId, header: &FrameHeader, last_seq: Seq) -> bool {
    let in_place = match row.last() {
        Some((last, scanned)) if *last == segment => {
            let last = &scanned.frame.header;
            last.offset + last.bytes() <= header.offset
        }
        _ => row.iter().all(|(other, _)| *other != segment),
    };
    in_place && header.base_seq >= last_seq
}

/// A write of several parts begins a frame of its own; when its last part is missing, the row ends before that frame.
fn incomplete_write_from(row: &[(ExtentId, ScannedFrame)]) -> Option<usize> {
    let mut incomplete_from: Option<usize> = None;
    for (index, (_, scanned)) in row.iter().enumerate() {
        let parts = scanned.frame.records.iter().filter(|r| r.kind != RecordKind::Meta && !r.staged);
        for record in parts {
            // A part whose first part was lost counts as the first.
            if record.first {
                incomplete_from = Some(index);
            }
            incomplete_from = if record.last { None } else { incomplete_from.or(Some(index)) };
        }
    }
    incomplete_from
}

/// Whether the last of the writes in a frame that begin there is a coalesced interval.
fn begins_interval(scanned: &ScannedFrame) -> bool {
    let first = scanned.frame.records.iter().rfind(|record| record.takes_seq() && record.first);
    first.is_some_and(|record| record.kind == RecordKind::Interval)
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
