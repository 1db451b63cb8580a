//! The manifest: an append log of edits that says which extents make up the store.
//!
//! A header page, then records. A record is one atomic set of edits, padded to whole pages; each is synced before the next is
//! issued, so a damaged record with a valid one behind it is damage, never a torn tail.
//!
//! ```text
//! header:  0 magic "CDPMANIF"   8 crc   12 zero   16 store uuid (16)   32 extent   40 owner epoch   48 number of its first record
//!         56 zero to the end
//! record:  0 magic "MREC"   4 crc   8 store   16 extent   24 offset   32 number   40 body length   44 pages   48 zero
//!         64 edits   then zero to the end of the last page
//! edit:    0 kind (u16)   2 length (u32)   6 body
//! ```

pub use super::sealed::SealedSegment;
use super::{
    Malformed, PAGE_BYTES, PAGE_LEN, Uuid, all_zero,
    compacted::CompactedSegment,
    digest::crc_around,
    meta::MetaRecord,
    outline::{self, OutlineFull},
    sealed::{decode_sealed, encode_sealed},
    take, take_counter, take_text, take_uuid,
};
use crate::{
    error::Damage,
    index::{LostRange, RunMeta},
    limits::{EXTENT_BYTES_MAX, MANIFEST_RECORD_BYTES_MAX, SEGMENT_BYTES_MAX},
    retention::OutlinePoint,
    units::{ExtentId, FrameNo, Lineage, OwnerEpoch, Seq, TimeNs, to_len},
};
use bytes::{Buf, BufMut};

const HEADER_MAGIC: &[u8; 8] = b"CDPMANIF";
const HEADER_CRC_AT: usize = 8;
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"MREC");
const RECORD_CRC_AT: usize = 4;
const RECORD_HEADER_LEN: usize = 64;
/// Most bytes of edits in one record.
pub const RECORD_BODY_MAX: usize = MANIFEST_RECORD_BYTES_MAX - RECORD_HEADER_LEN;

/// Identity of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestHeader {
    /// The store.
    pub store: Uuid,
    /// Its extent.
    pub extent: ExtentId,
    /// The owner that writes it.
    pub owner_epoch: OwnerEpoch,
    /// Number of its first record; numbers go on from one manifest to the next.
    pub first_record: u64,
}

impl ManifestHeader {
    /// The page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_LEN);
        page.put_slice(HEADER_MAGIC);
        page.put_u64_le(0);
        page.put_slice(&self.store.0);
        page.put_u64_le(self.extent.get());
        page.put_u64_le(self.owner_epoch.get());
        page.put_u64_le(self.first_record);
        page.resize(PAGE_LEN, 0);
        let crc = crc_around(&page, HEADER_CRC_AT);
        page[HEADER_CRC_AT..HEADER_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads the page and checks its identity.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(page: &[u8], store: Uuid, extent: ExtentId) -> Result<Self, Malformed> {
        let mut input = page;
        if page.len() != PAGE_LEN || take(&mut input, 8)? != HEADER_MAGIC {
            return Err(Malformed("manifest header: no magic"));
        }
        if input.try_get_u32_le()? != crc_around(page, HEADER_CRC_AT) || input.try_get_u32_le()? != 0 {
            return Err(Malformed("manifest header: checksum"));
        }
        let header = Self {
            store: take_uuid(&mut input)?,
            extent: ExtentId::new(take_counter(&mut input)?),
            owner_epoch: OwnerEpoch::new(take_counter(&mut input)?),
            first_record: take_counter(&mut input)?,
        };
        if header.store != store || header.extent != extent || !all_zero(input) {
            return Err(Malformed("manifest header: of another store or place"));
        }
        Ok(header)
    }
}

/// The place and number of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// Short identity of the store.
    pub store: u64,
    /// The manifest's extent.
    pub extent: ExtentId,
    /// Offset of the record, bytes.
    pub offset: u64,
    /// Number of the record in the life of the store.
    pub number: u64,
}

/// A record padded to whole pages. `body` holds encoded edits, at most [`RECORD_BODY_MAX`] bytes.
pub fn encode_record(body: &[u8], place: RecordPlace) -> Vec<u8> {
    assert!(body.len() <= RECORD_BODY_MAX, "records are cut to their limit");
    let len = (RECORD_HEADER_LEN + body.len()).next_multiple_of(PAGE_LEN);
    let mut record = Vec::with_capacity(len);
    record.put_u32_le(RECORD_MAGIC);
    record.put_u32_le(0);
    record.put_u64_le(place.store);
    record.put_u64_le(place.extent.get());
    record.put_u64_le(place.offset);
    record.put_u64_le(place.number);
    record.put_u32_le(u32::try_from(body.len()).expect("bounded"));
    record.put_u32_le(u32::try_from(len / PAGE_LEN).expect("bounded"));
    record.resize(RECORD_HEADER_LEN, 0);
    record.put_slice(body);
    record.resize(len, 0);
    let crc = crc_around(&record, RECORD_CRC_AT);
    record[RECORD_CRC_AT..RECORD_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    record
}

/// Length of the record that starts with this page, by its unverified header.
///
/// # Errors
/// When the page does not start a record or the length is beyond the limit.
pub fn record_len(page: &[u8]) -> Result<usize, Malformed> {
    let mut input = page;
    if page.len() < PAGE_LEN || input.try_get_u32_le()? != RECORD_MAGIC {
        return Err(Malformed("manifest record: no magic"));
    }
    let len =
        to_len(u64::from(u32::from_le_bytes(page[44..48].try_into().expect("four bytes"))) * PAGE_BYTES);
    if len == 0 || len > MANIFEST_RECORD_BYTES_MAX {
        return Err(Malformed("manifest record: longer than the limit"));
    }
    Ok(len)
}

/// The number of the record that starts with this page at this place, by its unverified header; `None` when it does not say so.
pub fn record_number(page: &[u8], place: RecordPlace) -> Option<u64> {
    let mut input = page;
    let magic = input.try_get_u32_le().ok()?;
    input.try_get_u32_le().ok()?;
    let found = (input.try_get_u64_le().ok()?, input.try_get_u64_le().ok()?, input.try_get_u64_le().ok()?);
    let number = input.try_get_u64_le().ok()?;
    (magic == RECORD_MAGIC && found == (place.store, place.extent.get(), place.offset)).then_some(number)
}

/// Verifies one whole record at its place: the bytes of its edits.
///
/// # Errors
/// What is wrong with it.
pub fn record_body(record: &[u8], place: RecordPlace) -> Result<&[u8], Malformed> {
    if record_len(record)? != record.len() {
        return Err(Malformed("manifest record: another length"));
    }
    let mut input = &record[4..];
    if input.try_get_u32_le()? != crc_around(record, RECORD_CRC_AT) {
        return Err(Malformed("manifest record: checksum"));
    }
    let found = RecordPlace {
        store: input.try_get_u64_le()?,
        extent: ExtentId::new(input.try_get_u64_le()?),
        offset: input.try_get_u64_le()?,
        number: input.try_get_u64_le()?,
    };
    if found != place {
        return Err(Malformed("manifest record: of another store or place"));
    }
    let body_len = to_len(u64::from(input.try_get_u32_le()?));
    if body_len > record.len() - RECORD_HEADER_LEN {
        return Err(Malformed("manifest record: body longer than the record"));
    }
    let (body, rest) = record[RECORD_HEADER_LEN..].split_at(body_len);
    if !all_zero(&record[48..RECORD_HEADER_LEN]) || !all_zero(rest) {
        return Err(Malformed("manifest record: bytes behind the edits"));
    }
    Ok(body)
}

/// Reads the edits of a record.
///
/// # Errors
/// What is wrong with them. The record was written so: it is damage or of a newer version, never a torn tail.
pub fn decode_edits(mut body: &[u8]) -> Result<Vec<Edit>, Malformed> {
    let mut edits = Vec::new();
    while !body.is_empty() {
        edits.push(Edit::decode(&mut body)?);
    }
    Ok(edits)
}

/// Reads one whole record at its place.
///
/// # Errors
/// What is wrong with it.
pub fn decode_record(record: &[u8], place: RecordPlace) -> Result<Vec<Edit>, Malformed> {
    decode_edits(record_body(record, place)?)
}

/// A segment that takes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedSegment {
    /// Its extent.
    pub extent: ExtentId,
    /// Its identity.
    pub uuid: Uuid,
    /// Its group.
    pub group: u32,
    /// Its lineage.
    pub lineage: Lineage,
    /// Space that it was made with, bytes.
    pub bytes: u64,
}

/// The state of the group at the end of what the manifest knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Lineage.
    pub lineage: Lineage,
    /// Last seq.
    pub last_seq: Seq,
    /// Number of the next frame.
    pub next_frame: FrameNo,
    /// Time of the newest write.
    pub newest_time: TimeNs,
    /// The clock of the group.
    pub covered_to: TimeNs,
}

/// Running totals for statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that the source wrote.
    pub source_bytes: u64,
    /// Bytes written to the storage on its behalf.
    pub written_bytes: u64,
}

/// The end of a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineageCut {
    /// The lineage that ended.
    pub lineage: Lineage,
    /// Its last seq.
    pub last_seq: Seq,
}

/// One change of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A segment may take frames.
    SegmentNamed(NamedSegment),
    /// A segment was given up: its frames end here.
    SegmentCut {
        /// The segment.
        extent: ExtentId,
        /// End of its frames, bytes.
        frames_end: u64,
    },
    /// A segment is complete, with its index run unless it has no entries.
    SegmentSealed(Box<SealedSegment>, Option<Box<RunMeta>>),
    /// A segment is gone.
    SegmentDropped(ExtentId),
    /// Runs were merged; each is named by the extent and offset of its first piece.
    RunsReplaced {
        /// The runs that go.
        removed: Vec<RunId>,
        /// The run that takes their place.
        added: Box<RunMeta>,
    },
    /// A run of an earlier life of the manifest (snapshots only).
    RunKept(Box<RunMeta>),
    /// Metadata changed.
    Catalog(MetaRecord),
    /// A lineage ended.
    LineageCut(LineageCut),
    /// A frame was lost to damage.
    Lost(LostRange),
    /// Totals.
    Counters(Counters),
    /// Extents from here on were never used.
    NextExtent(ExtentId),
    /// Where the group stands.
    Position(Position),
    /// Runs whose entries nobody needs any more are gone.
    RunsRemoved(Vec<RunId>),
    /// A segment of payload that outlived the segments it was written to.
    CompactedAdded(CompactedSegment),
    /// A compacted segment is gone.
    CompactedDropped(ExtentId),
    /// Points that are kept singly; one that is there is replaced.
    OutlineKept(Vec<OutlinePoint>),
    /// Points that are kept singly no more.
    OutlineDropped(Vec<Seq>),
    /// Where the full range begins, and the plan that says so.
    OutlineFull(OutlineFull),
    /// The extent without content that is given up when the storage is full, and its size in bytes.
    Reserve(Option<(ExtentId, u64)>),
}

/// Names a run: extent and offset of its first piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId {
    /// Extent of the first piece.
    pub extent: ExtentId,
    /// Offset of the first piece, bytes.
    pub offset: u64,
}

impl RunId {
    /// The name of a run; `None` when it has no pieces.
    pub fn of(run: &RunMeta) -> Option<Self> {
        run.pieces.first().map(|piece| Self { extent: piece.extent, offset: piece.offset })
    }
}

const SEGMENT_NAMED: u16 = 1;
const SEGMENT_CUT: u16 = 2;
const SEGMENT_SEALED: u16 = 3;
const SEGMENT_DROPPED: u16 = 4;
const RUNS_REPLACED: u16 = 5;
const RUN_KEPT: u16 = 6;
const CATALOG: u16 = 7;
const LINEAGE_CUT: u16 = 8;
const LOST: u16 = 9;
const COUNTERS: u16 = 10;
const NEXT_EXTENT: u16 = 11;
const POSITION: u16 = 12;
const RUNS_REMOVED: u16 = 13;
const COMPACTED_ADDED: u16 = 14;
const COMPACTED_DROPPED: u16 = 15;
const OUTLINE_KEPT: u16 = 16;
const OUTLINE_DROPPED: u16 = 17;
const OUTLINE_FULL: u16 = 18;
const RESERVE: u16 = 19;

impl Edit {
    /// Appends the edit.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let kind = self.encode_body(&mut body);
        out.put_u16_le(kind);
        out.put_u32_le(u32::try_from(body.len()).expect("edits are bounded"));
        out.put_slice(&body);
    }

    fn encode_body(&self, body: &mut Vec<u8>) -> u16 {
        match self {
            Self::SegmentNamed(named) => {
                body.put_u64_le(named.extent.get());
                body.put_slice(&named.uuid.0);
                body.put_u32_le(named.group);
                body.put_u64_le(named.lineage.get());
                body.put_u64_le(named.bytes);
                SEGMENT_NAMED
            }
            Self::SegmentCut { extent, frames_end } => {
                body.put_u64_le(extent.get());
                body.put_u64_le(*frames_end);
                SEGMENT_CUT
            }
            Self::SegmentSealed(sealed, run) => {
                encode_sealed(sealed, body);
                body.put_u8(u8::from(run.is_some()));
                if let Some(run) = run {
                    run.encode(body);
                }
                SEGMENT_SEALED
            }
            Self::SegmentDropped(extent) => {
                body.put_u64_le(extent.get());
                SEGMENT_DROPPED
            }
            Self::RunsReplaced { removed, added } => {
                encode_run_ids(removed, body);
                added.encode(body);
                RUNS_REPLACED
            }
            Self::RunKept(run) => {
                run.encode(body);
                RUN_KEPT
            }
            Self::Catalog(record) => {
                record.encode(body);
                CATALOG
            }
            Self::LineageCut(cut) => {
                body.put_u64_le(cut.lineage.get());
                body.put_u64_le(cut.last_seq.get());
                LINEAGE_CUT
            }
            Self::Lost(lost) => {
                encode_lost(lost, body);
                LOST
            }
            Self::Counters(counters) => {
                body.put_u64_le(counters.source_bytes);
                body.put_u64_le(counters.written_bytes);
                COUNTERS
            }
            Self::NextExtent(extent) => {
                body.put_u64_le(extent.get());
                NEXT_EXTENT
            }
            Self::Position(position) => {
                body.put_u64_le(position.lineage.get());
                body.put_u64_le(position.last_seq.get());
                body.put_u64_le(position.next_frame.get());
                body.put_u64_le(position.newest_time.get());
                body.put_u64_le(position.covered_to.get());
                POSITION
            }
            Self::RunsRemoved(removed) => {
                encode_run_ids(removed, body);
                RUNS_REMOVED
            }
            Self::CompactedAdded(segment) => {
                segment.encode(body);
                COMPACTED_ADDED
            }
            Self::CompactedDropped(extent) => {
                body.put_u64_le(extent.get());
                COMPACTED_DROPPED
            }
            Self::OutlineKept(points) => {
                outline::encode_points(points, body);
                OUTLINE_KEPT
            }
            Self::OutlineDropped(seqs) => {
                outline::encode_seqs(seqs, body);
                OUTLINE_DROPPED
            }
            Self::OutlineFull(full) => {
                full.encode(body);
                OUTLINE_FULL
            }
            Self::Reserve(reserve) => {
                if let Some((extent, bytes)) = reserve {
                    body.put_u64_le(extent.get());
                    body.put_u64_le(*bytes);
                }
                RESERVE
            }
        }
    }

    /// Takes one edit off the front.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(input: &mut &[u8]) -> Result<Self, Malformed> {
        let kind = input.try_get_u16_le()?;
        let len = to_len(u64::from(input.try_get_u32_le()?));
        let mut body = take(input, len)?;
        let edit = Self::decode_body(kind, &mut body)?;
        if body.is_empty() { Ok(edit) } else { Err(Malformed("manifest edit: bytes behind it")) }
    }

    fn decode_body(kind: u16, body: &mut &[u8]) -> Result<Self, Malformed> {
        let extent = |body: &mut &[u8]| Ok::<_, Malformed>(ExtentId::new(take_counter(body)?));
        Ok(match kind {
            SEGMENT_NAMED => Self::SegmentNamed(NamedSegment {
                extent: extent(body)?,
                uuid: take_uuid(body)?,
                group: match body.try_get_u32_le()? {
                    0 => 0,
                    _ => return Err(Malformed("manifest edit: a group that is not there")),
                },
                lineage: Lineage::new(take_counter(body)?),
                bytes: take_pages(body, PAGE_BYTES, SEGMENT_BYTES_MAX)?,
            }),
            SEGMENT_CUT => Self::SegmentCut {
                extent: extent(body)?,
                frames_end: take_pages(body, PAGE_BYTES, SEGMENT_BYTES_MAX)?,
            },
            SEGMENT_SEALED => {
                let sealed = Box::new(decode_sealed(body)?);
                let run = match body.try_get_u8()? {
                    0 => None,
                    1 => Some(Box::new(RunMeta::decode(body).map_err(Malformed)?)),
                    _ => return Err(Malformed("manifest edit: flag is neither 0 nor 1")),
                };
                Self::SegmentSealed(sealed, run)
            }
            SEGMENT_DROPPED => Self::SegmentDropped(extent(body)?),
            RUNS_REPLACED => Self::RunsReplaced {
                removed: decode_run_ids(body)?,
                added: Box::new(RunMeta::decode(body).map_err(Malformed)?),
            },
            RUN_KEPT => Self::RunKept(Box::new(RunMeta::decode(body).map_err(Malformed)?)),
            CATALOG => Self::Catalog(MetaRecord::decode(body)?),
            LINEAGE_CUT => Self::LineageCut(LineageCut {
                lineage: Lineage::new(take_counter(body)?),
                last_seq: Seq::new(take_counter(body)?),
            }),
            LOST => Self::Lost(decode_lost(body)?),
            COUNTERS => Self::Counters(Counters {
                source_bytes: body.try_get_u64_le()?,
                written_bytes: body.try_get_u64_le()?,
            }),
            NEXT_EXTENT => Self::NextExtent(extent(body)?),
            POSITION => Self::Position(Position {
                lineage: Lineage::new(take_counter(body)?),
                last_seq: Seq::new(take_counter(body)?),
                next_frame: FrameNo::new(take_counter(body)?),
                newest_time: TimeNs::new(body.try_get_u64_le()?),
                covered_to: TimeNs::new(body.try_get_u64_le()?),
            }),
            RUNS_REMOVED => Self::RunsRemoved(decode_run_ids(body)?),
            COMPACTED_ADDED => Self::CompactedAdded(CompactedSegment::decode(body)?),
            COMPACTED_DROPPED => Self::CompactedDropped(extent(body)?),
            OUTLINE_KEPT => Self::OutlineKept(outline::decode_points(body)?),
            OUTLINE_DROPPED => Self::OutlineDropped(outline::decode_seqs(body)?),
            OUTLINE_FULL => Self::OutlineFull(OutlineFull::decode(body)?),
            RESERVE if body.is_empty() => Self::Reserve(None),
            RESERVE => Self::Reserve(Some((extent(body)?, take_pages(body, PAGE_BYTES, EXTENT_BYTES_MAX)?))),
            _ => return Err(Malformed("manifest edit: unknown kind")),
        })
    }
}

fn encode_run_ids(runs: &[RunId], body: &mut Vec<u8>) {
    body.put_u32_le(u32::try_from(runs.len()).expect("a merge has few inputs"));
    for run in runs {
        body.put_u64_le(run.extent.get());
        body.put_u64_le(run.offset);
    }
}

fn decode_run_ids(body: &mut &[u8]) -> Result<Vec<RunId>, Malformed> {
    let count = to_len(u64::from(body.try_get_u32_le()?));
    if body.remaining() / 16 < count {
        return Err(Malformed("manifest edit: more runs than bytes"));
    }
    let one = |body: &mut &[u8]| {
        let extent = ExtentId::new(take_counter(body)?);
        Ok(RunId { extent, offset: take_pages(body, 0, EXTENT_BYTES_MAX)? })
    };
    (0..count).map(|_| one(body)).collect()
}

/// Takes a number of bytes off the front: whole pages, within bounds.
pub(super) fn take_pages(body: &mut &[u8], min: u64, max: u64) -> Result<u64, Malformed> {
    let bytes = body.try_get_u64_le()?;
    if bytes.is_multiple_of(PAGE_BYTES) && (min..=max).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(Malformed("manifest edit: an impossible offset or length"))
    }
}

fn encode_lost(lost: &LostRange, body: &mut Vec<u8>) {
    body.put_u64_le(lost.from_seq.get());
    body.put_u64_le(lost.to_seq.get());
    body.put_u64_le(lost.damage.extent.get());
    body.put_u64_le(lost.damage.offset);
    body.put_u64_le(lost.damage.length);
    super::put_text(body, &lost.damage.file);
    super::put_text(body, &lost.damage.what);
}

fn decode_lost(body: &mut &[u8]) -> Result<LostRange, Malformed> {
    let from_seq = Seq::new(take_counter(body)?);
    let to_seq = Seq::new(take_counter(body)?);
    if from_seq > to_seq {
        return Err(Malformed("manifest edit: a lost range that ends before it begins"));
    }
    let damage = Damage {
        extent: ExtentId::new(take_counter(body)?),
        offset: body.try_get_u64_le()?,
        length: body.try_get_u64_le()?,
        file: take_text(body, 4096)?,
        what: take_text(body, 4096)?,
        from_seq,
        to_seq,
    };
    Ok(LostRange { from_seq, to_seq, damage })
}
