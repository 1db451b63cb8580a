//! Metadata records: volumes, bookmarks, the policy, gaps and taps, as they stand in frames and, folded, in the manifest.
//!
//! `0 kind (u16)   2 length of the body (u32)   6 body`. An unknown kind is an error: the store was written by a newer
//! version, and says so in its superblock.

use super::{Malformed, Uuid, put_text, take, take_counter, take_text, take_uuid};
use crate::{
    bookmark::{Across, AcrossState, Bookmark, BookmarkKind, is_name},
    capture::Coalescing,
    catalog::{ComparisonKind, GapReason, SourceStamp, StampRecord, TapMap, TapRecord, VolumeSize},
    dirty_map::Granularity,
    error::SeqTime,
    limits::{
        ACROSS_STORES_MAX, APP_TYPE_BYTES_MAX, COMMENT_BYTES_MAX, NAME_BYTES_MAX, POLICY_BYTES_MAX,
        VOLUME_BYTES_MAX, VOLUMES_MAX,
    },
    units::{ExtentId, SECTOR_BYTES, Seq, TimeNs, VolumeId, to_len},
};
use bytes::{Buf, BufMut};

/// A change of metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaRecord {
    /// A volume exists from a seq on.
    VolumeAdded {
        /// Its id.
        id: VolumeId,
        /// Its name.
        name: String,
        /// Its size, bytes.
        bytes: u64,
        /// The first seq at which it can be opened.
        exists_from: Seq,
    },
    /// Volume ids below this one are taken, whether or not their volumes came to be.
    VolumeIdsTaken(VolumeId),
    /// A bookmark was set.
    BookmarkAdded(Bookmark),
    /// A bookmark was removed.
    BookmarkRemoved(String),
    /// A bookmark was locked or unlocked.
    BookmarkLocked {
        /// Its name.
        name: String,
        /// Whether it is locked now.
        locked: bool,
    },
    /// A bookmark is one of several across stores. Without its bookmark it means nothing.
    BookmarkAcross {
        /// Its name.
        name: String,
        /// The others, and what is known of them.
        across: Across,
    },
    /// A policy is in force; canonical JSON text.
    PolicySet(String),
    /// A gap opens on the timeline of a volume.
    GapOpened {
        /// The volume.
        volume: VolumeId,
        /// The seq that it took, and its time.
        at: SeqTime,
        /// Why.
        reason: GapReason,
    },
    /// A gap closes.
    GapClosed {
        /// The volume.
        volume: VolumeId,
        /// The seq that opened it.
        opened: Seq,
        /// The seq that closing took, and its time.
        at: SeqTime,
    },
    /// A tap began or ended to capture a volume.
    TapSet {
        /// The volume.
        volume: VolumeId,
        /// What is known from now on.
        state: TapRecord,
        /// The map that says which blocks differ; `None`: any may, where the state leaves that open.
        map: Option<TapMap>,
    },
    /// A volume has another size from a seq on, which the change took.
    VolumeResized {
        /// Its id.
        id: VolumeId,
        /// The size, and the seq.
        size: VolumeSize,
    },
    /// The source of a volume when what is known of its tap was recorded; behind that record, in one frame with it.
    SourceStamped {
        /// The volume.
        volume: VolumeId,
        /// The stamp.
        record: StampRecord,
    },
    /// Writes are coalesced in another way.
    CoalescingSet {
        /// The last seq before it.
        behind: Seq,
        /// How.
        coalescing: Coalescing,
    },
}

const VOLUME_ADDED: u16 = 1;
const BOOKMARK_ADDED: u16 = 2;
const BOOKMARK_REMOVED: u16 = 3;
const BOOKMARK_LOCKED: u16 = 4;
const POLICY_SET: u16 = 5;
const VOLUME_IDS_TAKEN: u16 = 6;
const GAP_OPENED: u16 = 7;
const GAP_CLOSED: u16 = 8;
const TAP_SET: u16 = 9;
const COALESCING_SET: u16 = 10;
const TAP_SET_WITH_MAP: u16 = 11;
const BOOKMARK_ACROSS: u16 = 12;
const VOLUME_RESIZED: u16 = 13;
const SOURCE_STAMPED: u16 = 14;

const ACROSS_UNCONFIRMED: u8 = 1;
const ACROSS_CONFIRMED: u8 = 2;

impl MetaRecord {
    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let kind = match self {
            Self::VolumeAdded { id, name, bytes, exists_from } => {
                body.put_u16_le(id.get());
                body.put_u64_le(*bytes);
                body.put_u64_le(exists_from.get());
                put_text(&mut body, name);
                VOLUME_ADDED
            }
            Self::VolumeIdsTaken(next) => {
                body.put_u16_le(next.get());
                VOLUME_IDS_TAKEN
            }
            Self::BookmarkAdded(bookmark) => {
                encode_bookmark(bookmark, &mut body);
                BOOKMARK_ADDED
            }
            Self::BookmarkRemoved(name) => {
                put_text(&mut body, name);
                BOOKMARK_REMOVED
            }
            Self::BookmarkLocked { name, locked } => {
                body.put_u8(u8::from(*locked));
                put_text(&mut body, name);
                BOOKMARK_LOCKED
            }
            Self::BookmarkAcross { name, across } => {
                encode_across(across, &mut body);
                put_text(&mut body, name);
                BOOKMARK_ACROSS
            }
            Self::PolicySet(text) => {
                body.put_u32_le(u32::try_from(text.len()).expect("policies are bounded"));
                body.put_slice(text.as_bytes());
                POLICY_SET
            }
            Self::GapOpened { volume, at, reason } => {
                body.put_u16_le(volume.get());
                put_seq_time(*at, &mut body);
                body.put_u8(reason.code());
                GAP_OPENED
            }
            Self::GapClosed { volume, opened, at } => {
                body.put_u16_le(volume.get());
                body.put_u64_le(opened.get());
                put_seq_time(*at, &mut body);
                GAP_CLOSED
            }
            Self::TapSet { volume, state, map } => {
                body.put_u16_le(volume.get());
                body.put_u8(state.code());
                match map {
                    None => TAP_SET,
                    Some(map) => {
                        body.put_u64_le(map.extent.get());
                        body.put_u64_le(map.generation);
                        body.put_u32_le(u32::try_from(map.granularity.bytes()).expect("at most 1 MiB"));
                        TAP_SET_WITH_MAP
                    }
                }
            }
            Self::VolumeResized { id, size } => {
                body.put_u16_le(id.get());
                body.put_u64_le(size.bytes);
                body.put_u64_le(size.from.get());
                VOLUME_RESIZED
            }
            Self::SourceStamped { volume, record } => {
                body.put_u16_le(volume.get());
                body.put_u8(record.unfinished.map_or(0, ComparisonKind::code));
                body.put_u8(u8::from(record.stamp.is_some()));
                if let Some(stamp) = record.stamp {
                    let SourceStamp { device, inode, bytes, modified_ns, changed_ns } = stamp;
                    let words = [device, inode, bytes, modified_ns, changed_ns];
                    words.iter().for_each(|word| body.put_u64_le(*word));
                }
                SOURCE_STAMPED
            }
            Self::CoalescingSet { behind, coalescing } => {
                body.put_u64_le(behind.get());
                let (kind, interval) = match coalescing {
                    Coalescing::PerWrite => (0, 0),
                    Coalescing::IntervalNs(interval) => (1, *interval),
                    Coalescing::PerBarrier => (2, 0),
                };
                body.put_u8(kind);
                body.put_u64_le(interval);
                COALESCING_SET
            }
        };
        out.put_u16_le(kind);
        out.put_u32_le(u32::try_from(body.len()).expect("bodies are bounded"));
        out.put_slice(&body);
    }

    /// Takes one record off the front.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(input: &mut &[u8]) -> Result<Self, Malformed> {
        let kind = input.try_get_u16_le()?;
        let len = to_len(u64::from(input.try_get_u32_le()?));
        let mut body = take(input, len)?;
        let record = match kind {
            VOLUME_ADDED => Self::VolumeAdded {
                id: take_volume_id(&mut body, VOLUMES_MAX - 1)?,
                bytes: take_volume_bytes(&mut body)?,
                exists_from: Seq::new(take_counter(&mut body)?),
                name: take_name(&mut body)?,
            },
            VOLUME_IDS_TAKEN => Self::VolumeIdsTaken(take_volume_id(&mut body, VOLUMES_MAX)?),
            BOOKMARK_ADDED => Self::BookmarkAdded(decode_bookmark(&mut body)?),
            BOOKMARK_REMOVED => Self::BookmarkRemoved(take_name(&mut body)?),
            BOOKMARK_LOCKED => {
                Self::BookmarkLocked { locked: take_bool(&mut body)?, name: take_name(&mut body)? }
            }
            POLICY_SET => {
                let len = to_len(u64::from(body.try_get_u32_le()?));
                if len > POLICY_BYTES_MAX {
                    return Err(Malformed("metadata: policy longer than its limit"));
                }
                let text = std::str::from_utf8(take(&mut body, len)?);
                Self::PolicySet(text.map_err(|_| Malformed("metadata: policy is not UTF-8"))?.to_owned())
            }
            GAP_OPENED => Self::GapOpened {
                volume: take_volume_id(&mut body, VOLUMES_MAX - 1)?,
                at: take_seq_time(&mut body)?,
                reason: GapReason::from_code(body.try_get_u8()?)
                    .ok_or(Malformed("metadata: reason of a gap"))?,
            },
            GAP_CLOSED => Self::GapClosed {
                volume: take_volume_id(&mut body, VOLUMES_MAX - 1)?,
                opened: Seq::new(take_counter(&mut body)?),
                at: take_seq_time(&mut body)?,
            },
            TAP_SET | TAP_SET_WITH_MAP => Self::TapSet {
                volume: take_volume_id(&mut body, VOLUMES_MAX - 1)?,
                state: TapRecord::from_code(body.try_get_u8()?).ok_or(Malformed("metadata: tap"))?,
                map: if kind == TAP_SET { None } else { Some(take_map(&mut body)?) },
            },
            COALESCING_SET => Self::CoalescingSet {
                behind: Seq::new(take_counter(&mut body)?),
                coalescing: match (body.try_get_u8()?, body.try_get_u64_le()?) {
                    (0, 0) => Coalescing::PerWrite,
                    (1, interval) if interval > 0 => Coalescing::IntervalNs(interval),
                    (2, 0) => Coalescing::PerBarrier,
                    _ => return Err(Malformed("metadata: coalescing")),
                },
            },
            VOLUME_RESIZED => Self::VolumeResized {
                id: take_volume_id(&mut body, VOLUMES_MAX - 1)?,
                size: VolumeSize {
                    bytes: take_volume_bytes(&mut body)?,
                    from: Seq::new(take_counter(&mut body)?),
                },
            },
            SOURCE_STAMPED => Self::SourceStamped {
                volume: take_volume_id(&mut body, VOLUMES_MAX - 1)?,
                record: take_stamp(&mut body)?,
            },
            BOOKMARK_ACROSS => {
                let across = decode_across(&mut body)?;
                Self::BookmarkAcross { name: take_name(&mut body)?, across }
            }
            _ => return Err(Malformed("metadata: unknown kind")),
        };
        if body.is_empty() { Ok(record) } else { Err(Malformed("metadata: bytes behind the record")) }
    }
}

fn put_seq_time(at: SeqTime, out: &mut Vec<u8>) {
    out.put_u64_le(at.seq.get());
    out.put_u64_le(at.time.get());
}

fn take_seq_time(input: &mut &[u8]) -> Result<SeqTime, Malformed> {
    Ok(SeqTime { seq: Seq::new(take_counter(input)?), time: TimeNs::new(input.try_get_u64_le()?) })
}

fn take_stamp(input: &mut &[u8]) -> Result<StampRecord, Malformed> {
    let unfinished = match input.try_get_u8()? {
        0 => None,
        code => Some(ComparisonKind::from_code(code).ok_or(Malformed("metadata: kind of a comparison"))?),
    };
    let stamp = match take_bool(input)? {
        false => None,
        true => Some(SourceStamp {
            device: input.try_get_u64_le()?,
            inode: input.try_get_u64_le()?,
            bytes: input.try_get_u64_le()?,
            modified_ns: input.try_get_u64_le()?,
            changed_ns: input.try_get_u64_le()?,
        }),
    };
    Ok(StampRecord { stamp, unfinished })
}

fn take_map(input: &mut &[u8]) -> Result<TapMap, Malformed> {
    Ok(TapMap {
        extent: ExtentId::new(take_counter(input)?),
        generation: take_counter(input)?,
        granularity: Granularity::new(input.try_get_u32_le()?.into())
            .map_err(|_| Malformed("metadata: granularity of a map"))?,
    })
}

fn take_volume_id(input: &mut &[u8], max: usize) -> Result<VolumeId, Malformed> {
    let id = input.try_get_u16_le()?;
    if usize::from(id) <= max { Ok(VolumeId::new(id)) } else { Err(Malformed("metadata: volume id")) }
}

fn take_volume_bytes(input: &mut &[u8]) -> Result<u64, Malformed> {
    let bytes = input.try_get_u64_le()?;
    let possible = (SECTOR_BYTES..=VOLUME_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(SECTOR_BYTES);
    if possible { Ok(bytes) } else { Err(Malformed("metadata: size of a volume")) }
}

/// Names become parts of paths where a store is mounted, so what is read is as strict as what is written.
fn take_name(input: &mut &[u8]) -> Result<String, Malformed> {
    let name = take_text(input, NAME_BYTES_MAX)?;
    if is_name(&name) { Ok(name) } else { Err(Malformed("metadata: name")) }
}

fn take_bool(input: &mut &[u8]) -> Result<bool, Malformed> {
    match input.try_get_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("metadata: flag is neither 0 nor 1")),
    }
}

const fn kind_code(kind: BookmarkKind) -> u8 {
    match kind {
        BookmarkKind::Application => 1,
        BookmarkKind::FileSystem => 2,
        BookmarkKind::User => 3,
        BookmarkKind::System => 4,
    }
}

fn kind_of_code(code: u8) -> Option<BookmarkKind> {
    BookmarkKind::ALL.into_iter().find(|kind| kind_code(*kind) == code)
}

fn encode_bookmark(bookmark: &Bookmark, out: &mut Vec<u8>) {
    out.put_u64_le(bookmark.seq.get());
    out.put_u64_le(bookmark.time.get());
    out.put_u64_le(bookmark.expires.map_or(0, TimeNs::get));
    out.put_u8(kind_code(bookmark.kind));
    out.put_u8(u8::from(bookmark.locked));
    put_text(out, &bookmark.name);
    put_text(out, bookmark.app.as_deref().unwrap_or(""));
    put_text(out, bookmark.comment.as_deref().unwrap_or(""));
    out.put_u16_le(u16::try_from(bookmark.inexact_volumes.len()).expect("volumes are bounded"));
    bookmark.inexact_volumes.iter().for_each(|name| put_text(out, name));
}

fn decode_bookmark(input: &mut &[u8]) -> Result<Bookmark, Malformed> {
    let non_empty = |text: String| (!text.is_empty()).then_some(text);
    let seq = Seq::new(take_counter(input)?);
    let time = TimeNs::new(input.try_get_u64_le()?);
    let expires = Some(TimeNs::new(input.try_get_u64_le()?)).filter(|time| time.get() != 0);
    let kind = kind_of_code(input.try_get_u8()?).ok_or(Malformed("metadata: bookmark kind"))?;
    let locked = take_bool(input)?;
    let name = take_name(input)?;
    let app = non_empty(take_text(input, APP_TYPE_BYTES_MAX)?);
    let comment = non_empty(take_text(input, COMMENT_BYTES_MAX)?);
    let count = usize::from(input.try_get_u16_le()?);
    if count > VOLUMES_MAX {
        return Err(Malformed("metadata: more volumes than the limit"));
    }
    let inexact_volumes = (0..count).map(|_| take_name(input)).collect::<Result<_, Malformed>>()?;
    Ok(Bookmark { name, kind, app, comment, seq, time, locked, expires, inexact_volumes, across: None })
}

fn encode_across(across: &Across, out: &mut Vec<u8>) {
    let bit =
        |missing: &Uuid| across.stores.iter().position(|store| store == missing).map_or(0, |at| 1 << at);
    out.put_slice(&across.id.0);
    out.put_u8(match across.state {
        AcrossState::Unconfirmed => ACROSS_UNCONFIRMED,
        AcrossState::Complete | AcrossState::Partial { .. } => ACROSS_CONFIRMED,
    });
    out.put_u8(u8::try_from(across.stores.len()).expect("stores are bounded"));
    out.put_u64_le(across.missing().iter().map(bit).fold(0_u64, |bits, bit| bits | bit));
    across.stores.iter().for_each(|store| out.put_slice(&store.0));
}

fn decode_across(input: &mut &[u8]) -> Result<Across, Malformed> {
    let id = take_uuid(input)?;
    let state = input.try_get_u8()?;
    let count = usize::from(input.try_get_u8()?);
    let bits = input.try_get_u64_le()?;
    if count == 0 || count > ACROSS_STORES_MAX {
        return Err(Malformed("metadata: number of stores"));
    }
    let all = u64::MAX >> (u64::BITS - u32::try_from(count).unwrap_or(u64::BITS));
    let stores = (0..count).map(|_| take_uuid(input)).collect::<Result<Vec<Uuid>, Malformed>>()?;
    if !stores.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(Malformed("metadata: stores that do not ascend"));
    }
    let state = match state {
        ACROSS_UNCONFIRMED if bits == 0 => AcrossState::Unconfirmed,
        ACROSS_CONFIRMED if bits == 0 => AcrossState::Complete,
        ACROSS_CONFIRMED if bits & !all == 0 && bits != all => {
            let missing = stores.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
            AcrossState::Partial { missing: missing.map(|(_, store)| *store).collect() }
        }
        _ => return Err(Malformed("metadata: state of a bookmark across stores")),
    };
    Ok(Across { id, stores, state })
}
