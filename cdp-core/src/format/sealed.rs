//! A sealed segment as the manifest describes it.
//!
//! ```text
//! fourteen words of 8 bytes: extent, frames end, extent bytes, first frame, next frame, base seq, last seq, first time, last time,
//! covered to, table extent, table offset, frames, source bytes
//! ```

use super::{Malformed, PAGE_BYTES, manifest::take_pages, take_counter};
use crate::{
    limits::{EXTENT_BYTES_MAX, SEGMENT_BYTES_MAX},
    units::{ExtentId, FrameNo, Seq, TimeNs},
};
use bytes::{Buf, BufMut};

/// A segment whose frames are all durable and indexed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its extent.
    pub extent: ExtentId,
    /// End of its frames, bytes; what lies behind is footer or nothing.
    pub frames_end: u64,
    /// Length of the extent, bytes; 0 when the extent may be longer (it was given up after a failure or a crash).
    pub extent_bytes: u64,
    /// Number of its first frame.
    pub first_frame: FrameNo,
    /// Number after its last frame.
    pub next_frame: FrameNo,
    /// Last seq before it.
    pub base_seq: Seq,
    /// Last seq in it.
    pub last_seq: Seq,
    /// Time of its first record that takes a seq; 0 without one.
    pub first_time: TimeNs,
    /// Time of its last record that takes a seq; 0 without one.
    pub last_time: TimeNs,
    /// The clock of the group at its end.
    pub covered_to: TimeNs,
    /// Extent of its frame table: the segment itself or a sidecar.
    pub table_extent: ExtentId,
    /// Offset of the frame table, bytes.
    pub table_offset: u64,
    /// Number of frames, which is the number of entries of the table.
    pub frames: u32,
    /// Bytes that the source wrote.
    pub source_bytes: u64,
}

/// Appends it.
pub(super) fn encode_sealed(sealed: &SealedSegment, body: &mut Vec<u8>) {
    for word in [
        sealed.extent.get(),
        sealed.frames_end,
        sealed.extent_bytes,
        sealed.first_frame.get(),
        sealed.next_frame.get(),
        sealed.base_seq.get(),
        sealed.last_seq.get(),
        sealed.first_time.get(),
        sealed.last_time.get(),
        sealed.covered_to.get(),
        sealed.table_extent.get(),
        sealed.table_offset,
        u64::from(sealed.frames),
        sealed.source_bytes,
    ] {
        body.put_u64_le(word);
    }
}

/// Takes it off the front.
pub(super) fn decode_sealed(body: &mut &[u8]) -> Result<SealedSegment, Malformed> {
    let sealed = SealedSegment {
        extent: ExtentId::new(take_counter(body)?),
        frames_end: take_pages(body, PAGE_BYTES, SEGMENT_BYTES_MAX)?,
        extent_bytes: take_pages(body, 0, EXTENT_BYTES_MAX)?,
        first_frame: FrameNo::new(take_counter(body)?),
        next_frame: FrameNo::new(take_counter(body)?),
        base_seq: Seq::new(take_counter(body)?),
        last_seq: Seq::new(take_counter(body)?),
        first_time: TimeNs::new(body.try_get_u64_le()?),
        last_time: TimeNs::new(body.try_get_u64_le()?),
        covered_to: TimeNs::new(body.try_get_u64_le()?),
        table_extent: ExtentId::new(take_counter(body)?),
        table_offset: take_pages(body, 0, EXTENT_BYTES_MAX)?,
        frames: u32::try_from(body.try_get_u64_le()?)
            .map_err(|_| Malformed("manifest edit: too many frames"))?,
        source_bytes: body.try_get_u64_le()?,
    };
    // A frame takes at least a page, behind the header page of the segment.
    let frames = u64::from(sealed.frames);
    let possible = (1..sealed.frames_end / PAGE_BYTES).contains(&frames)
        && sealed.next_frame.get().checked_sub(sealed.first_frame.get()).is_some_and(|row| row >= frames)
        && sealed.base_seq <= sealed.last_seq
        && sealed.first_time <= sealed.last_time
        && (sealed.extent_bytes == 0 || sealed.extent_bytes >= sealed.frames_end);
    if possible { Ok(sealed) } else { Err(Malformed("manifest edit: an impossible segment")) }
}
