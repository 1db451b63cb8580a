//! Metadata records.

use super::assert_cuts_are_refused;
use crate::{
    bookmark::{Across, AcrossState, Bookmark, BookmarkKind},
    capture::Coalescing,
    catalog::{ComparisonKind, GapReason, SourceStamp, StampRecord, TapMap, TapRecord, VolumeSize},
    dirty_map::Granularity,
    error::SeqTime,
    format::{Malformed, Uuid, meta::MetaRecord},
    limits::{
        ACROSS_STORES_MAX, APP_TYPE_BYTES_MAX, COMMENT_BYTES_MAX, COUNTER_END, NAME_BYTES_MAX,
        POLICY_BYTES_MAX, VOLUME_BYTES_MAX, VOLUMES_MAX,
    },
    units::{ExtentId, Seq, TimeNs, VolumeId},
};
use proptest::prelude::*;

pub(super) fn bookmark(name: &str) -> Bookmark {
    Bookmark {
        name: name.into(),
        kind: BookmarkKind::FileSystem,
        app: None,
        comment: Some("c".into()),
        seq: Seq::new(4),
        time: TimeNs::new(5),
        locked: false,
        expires: None,
        inexact_volumes: vec!["disk".into()],
        across: None,
    }
}

pub(super) fn volume(id: u16, name: &str, bytes: u64, exists_from: u64) -> MetaRecord {
    MetaRecord::VolumeAdded {
        id: VolumeId::new(id),
        name: name.into(),
        bytes,
        exists_from: Seq::new(exists_from),
    }
}

/// A record of a bookmark across `count` stores of which those with a bit in `missing` lack it.
fn across(name: &str, count: usize, confirmed: bool, missing: u64) -> MetaRecord {
    let store = |index: usize| Uuid((u128::try_from(index).unwrap() * 3 + 1).to_be_bytes());
    let stores: Vec<Uuid> = (0..count).map(store).collect();
    let missing: Vec<Uuid> = (0..count.min(64)).filter(|at| missing >> at & 1 == 1).map(store).collect();
    let state = match (confirmed, missing.is_empty()) {
        (false, _) => AcrossState::Unconfirmed,
        (true, true) => AcrossState::Complete,
        (true, false) => AcrossState::Partial { missing },
    };
    MetaRecord::BookmarkAcross { name: name.into(), across: Across { id: Uuid([7; 16]), stores, state } }
}

fn volumes_max() -> u16 {
    u16::try_from(VOLUMES_MAX).unwrap()
}

fn encoded(record: &MetaRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Result<MetaRecord, Malformed> {
    let mut input = bytes;
    let record = MetaRecord::decode(&mut input)?;
    if input.is_empty() { Ok(record) } else { Err(Malformed("bytes are left")) }
}

fn names() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,128}"
}

fn records() -> impl Strategy<Value = MetaRecord> {
    let volumes = (0..volumes_max(), names(), 1..=VOLUME_BYTES_MAX / 512, 0..COUNTER_END)
        .prop_map(|(id, name, sectors, from)| volume(id, &name, sectors * 512, from));
    let texts = ("[ -~]{0,128}", "[ -~]{0,200}");
    let bookmarks = (names(), texts, 0..COUNTER_END, any::<[u64; 2]>(), any::<[bool; 2]>(), 0..4usize)
        .prop_map(|(name, (app, comment), seq, [time, expires], [locked, listed], kind)| {
            let non_empty = |text: String| (!text.is_empty()).then_some(text);
            MetaRecord::BookmarkAdded(Bookmark {
                kind: BookmarkKind::ALL[kind],
                app: non_empty(app),
                comment: non_empty(comment),
                seq: Seq::new(seq),
                time: TimeNs::new(time),
                locked,
                expires: (expires > 0).then_some(TimeNs::new(expires)),
                inexact_volumes: if listed { vec![name.clone(), "x".into()] } else { Vec::new() },
                ..bookmark(&name)
            })
        });
    prop_oneof![
        volumes,
        bookmarks,
        (0..=volumes_max()).prop_map(|next| MetaRecord::VolumeIdsTaken(VolumeId::new(next))),
        names().prop_map(MetaRecord::BookmarkRemoved),
        (names(), any::<bool>()).prop_map(|(name, locked)| MetaRecord::BookmarkLocked { name, locked }),
        "\\PC{0,300}".prop_map(MetaRecord::PolicySet),
        (0..volumes_max(), 0..COUNTER_END, any::<u64>(), 0..7_usize).prop_map(|(id, seq, time, reason)| {
            let (volume, at) = (VolumeId::new(id), SeqTime { seq: Seq::new(seq), time: TimeNs::new(time) });
            MetaRecord::GapOpened { volume, at, reason: GapReason::ALL[reason] }
        }),
        (0..volumes_max(), 0..COUNTER_END, 0..COUNTER_END, any::<u64>()).prop_map(
            |(id, opened, seq, time)| {
                let (volume, at) =
                    (VolumeId::new(id), SeqTime { seq: Seq::new(seq), time: TimeNs::new(time) });
                MetaRecord::GapClosed { volume, opened: Seq::new(opened), at }
            }
        ),
        (0..COUNTER_END, 0..3_u8, 1..=u64::MAX).prop_map(|(behind, kind, interval)| {
            let coalescing = match kind {
                0 => Coalescing::PerWrite,
                1 => Coalescing::IntervalNs(interval),
                _ => Coalescing::PerBarrier,
            };
            MetaRecord::CoalescingSet { behind: Seq::new(behind), coalescing }
        }),
        (0..volumes_max(), 1..=VOLUME_BYTES_MAX / 512, 0..COUNTER_END).prop_map(|(id, sectors, from)| {
            let size = VolumeSize { from: Seq::new(from), bytes: sectors * 512 };
            MetaRecord::VolumeResized { id: VolumeId::new(id), size }
        }),
        (0..volumes_max(), 0..4_u8, any::<Option<[u64; 5]>>()).prop_map(|(id, kind, words)| {
            let stamp = words.map(|[device, inode, bytes, modified_ns, changed_ns]| SourceStamp {
                device,
                inode,
                bytes,
                modified_ns,
                changed_ns,
            });
            let record = StampRecord { stamp, unfinished: ComparisonKind::from_code(kind) };
            MetaRecord::SourceStamped { volume: VolumeId::new(id), record }
        }),
        (names(), 1..=ACROSS_STORES_MAX, any::<bool>(), any::<u64>()).prop_map(
            |(name, count, confirmed, missing)| {
                // One store at least has it.
                across(&name, count, confirmed, missing & ((1_u64 << (count - 1)) - 1))
            }
        ),
        (0..volumes_max(), 1..4_u8, any::<bool>(), 0..COUNTER_END, 0..COUNTER_END, 12..=20_u32).prop_map(
            |(id, code, mapped, extent, generation, shift)| MetaRecord::TapSet {
                volume: VolumeId::new(id),
                state: TapRecord::from_code(code).unwrap(),
                map: mapped.then(|| TapMap {
                    extent: ExtentId::new(extent),
                    generation,
                    granularity: Granularity::new(1 << shift).unwrap(),
                }),
            },
        ),
        (0..COUNTER_END, any::<u64>(), 0..3_u8).prop_map(|(behind, length, kind)| {
            let coalescing = match kind {
                0 => Coalescing::PerWrite,
                1 => Coalescing::PerBarrier,
                _ => Coalescing::IntervalNs(length.max(1)),
            };
            MetaRecord::CoalescingSet { behind: Seq::new(behind), coalescing }
        }),
    ]
}

proptest! {
    /// Goal: records come back as they went in, one after the other. Method: rows of random records of every kind.
    #[test]
    fn records_are_read_back_as_they_were_written(row in proptest::collection::vec(records(), 1..6)) {
        let bytes: Vec<u8> = row.iter().flat_map(encoded).collect();
        let mut input = bytes.as_slice();
        for record in &row {
            prop_assert_eq!(MetaRecord::decode(&mut input), Ok(record.clone()));
        }
        prop_assert!(input.is_empty());
    }

    /// Goal: what is read has one form only, so that nothing hides in a record. Method: a random byte of a random record changed; what is
    /// still taken is written as the very same bytes.
    #[test]
    fn a_changed_record_is_refused_or_another_record(record in records(), at: proptest::sample::Index, change in 1..=255u8) {
        let mut bytes = encoded(&record);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        if let Ok(other) = decode(&bytes) {
            prop_assert!(other != record);
            prop_assert_eq!(encoded(&other), bytes);
        }
    }
}

/// Goal: each bound is kept, and what lies on it is taken. Method: each bound and one past it.
#[test]
fn bounds_of_metadata_are_kept() {
    let taken = |record: &MetaRecord| decode(&encoded(record)).is_ok();
    let last = u16::try_from(VOLUMES_MAX - 1).unwrap();
    assert!(taken(&volume(last, "v", VOLUME_BYTES_MAX, COUNTER_END - 1)) && taken(&volume(0, "v", 512, 0)));
    let map = |extent: u64, generation: u64| MetaRecord::TapSet {
        volume: VolumeId::ZERO,
        state: TapRecord::Differs,
        map: Some(TapMap { extent: ExtentId::new(extent), generation, granularity: Granularity::MIN }),
    };
    assert!(taken(&map(COUNTER_END - 1, COUNTER_END - 1)));
    let mut fine = encoded(&map(1, 1));
    let at = fine.len() - 4;
    fine[at..].copy_from_slice(&2048u32.to_le_bytes());
    assert!(decode(&fine).is_err(), "granularity of a map");
    for (record, what) in [
        (volume(last + 1, "v", 512, 0), "volume id"),
        (volume(0, "v", VOLUME_BYTES_MAX + 512, 0), "too large"),
        (volume(0, "v", 0, 0), "empty"),
        (volume(0, "v", 513, 0), "half a sector"),
        (volume(0, "v", u64::MAX, 0), "all bytes there are"),
        (volume(0, "v", 512, COUNTER_END), "seq"),
        (volume(0, "", 512, 0), "no name"),
        (volume(0, "../etc", 512, 0), "a path for a name"),
        (volume(0, "a\0b", 512, 0), "a zero in a name"),
        (MetaRecord::VolumeIdsTaken(VolumeId::new(last + 2)), "ids taken"),
        (map(COUNTER_END, 0), "extent of a map"),
        (map(0, COUNTER_END), "generation of a map"),
        (MetaRecord::BookmarkRemoved("a/b".into()), "name"),
        (MetaRecord::BookmarkLocked { name: String::new(), locked: true }, "name"),
        (MetaRecord::BookmarkAdded(Bookmark { seq: Seq::new(COUNTER_END), ..bookmark("b") }), "seq"),
        (
            MetaRecord::BookmarkAdded(Bookmark { inexact_volumes: vec!["/".into()], ..bookmark("b") }),
            "volume",
        ),
    ] {
        assert!(!taken(&record), "{what}");
    }
    let text = |length: usize| "x".repeat(length);
    for (max, make) in [
        (NAME_BYTES_MAX, (|text| MetaRecord::BookmarkAdded(bookmark(&text))) as fn(String) -> MetaRecord),
        (NAME_BYTES_MAX, |text| volume(1, &text, 512, 0)),
        (APP_TYPE_BYTES_MAX, |text| MetaRecord::BookmarkAdded(Bookmark { app: Some(text), ..bookmark("b") })),
        (COMMENT_BYTES_MAX, |text| {
            MetaRecord::BookmarkAdded(Bookmark { comment: Some(text), ..bookmark("b") })
        }),
        (POLICY_BYTES_MAX, MetaRecord::PolicySet),
    ] {
        assert!(taken(&make(text(max))) && !taken(&make(text(max + 1))), "bound of {max}");
    }
}

/// Goal: of a bookmark across stores nothing is taken that could not have been recorded. Method: each rule and a breach of it.
#[test]
fn impossible_members_of_a_bookmark_across_stores_are_refused() {
    let taken = |record: &MetaRecord| decode(&encoded(record)).is_ok();
    assert!(taken(&across("b", 1, true, 0)) && taken(&across("b", ACROSS_STORES_MAX, true, 1 << 63)));
    assert!(!taken(&across("b", ACROSS_STORES_MAX + 1, true, 0)), "more stores than the limit");
    assert!(!taken(&across("b", 0, false, 0)), "no store");
    assert!(!taken(&across("b", 3, true, 7)), "missing everywhere");
    assert!(!taken(&across("a/b", 1, true, 0)), "name");
    let bytes = encoded(&across("b", 3, true, 2));
    for (at, value, what) in [
        (6 + 16, 0, "state"),
        (6 + 16, 3, "state"),
        (6 + 16, 1, "missing, and not confirmed"),
        (6 + 18, 8, "a fourth of three is missing"),
        (6 + 26 + 16 + 15, 1, "one store twice"),
        (6 + 26 + 16 + 15, 0, "not ascending"),
    ] {
        let mut changed = bytes.clone();
        assert!(changed[at] != value, "{what}");
        changed[at] = value;
        assert!(decode(&changed).is_err(), "{what}");
    }
}

/// Goal: unknown kinds, cuts and bytes behind a record are refused. Method: each of them.
#[test]
fn records_that_are_not_whole_are_refused() {
    let bytes = encoded(&MetaRecord::BookmarkAdded(bookmark("b")));
    assert_cuts_are_refused(&bytes, decode);
    for kind in [0u16, 1000, u16::MAX] {
        let mut unknown = bytes.clone();
        unknown[..2].copy_from_slice(&kind.to_le_bytes());
        assert_eq!(decode(&unknown), Err(Malformed("metadata: unknown kind")));
    }
    let mut longer = bytes.clone();
    longer[2] += 1;
    longer.push(0);
    assert!(decode(&longer).is_err(), "a byte behind the fields");
    let mut endless = bytes;
    endless[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(decode(&endless).is_err(), "no allocation by a length that is not there");
}

/// Goal: the bytes of the records of sizes and sources stay as they are documented, and what they cannot say is refused. Method: both in full,
/// then each field out of its bounds.
#[test]
fn sizes_and_stamps_have_the_documented_bytes() {
    let resized = MetaRecord::VolumeResized {
        id: VolumeId::new(0x0102),
        size: VolumeSize { from: Seq::new(0x0506), bytes: 0x4000 },
    };
    let bytes = encoded(&resized);
    assert_eq!(bytes[..6], [13, 0, 18, 0, 0, 0]);
    assert_eq!(bytes[6..8], [2, 1]);
    assert_eq!(bytes[8..16], 0x4000_u64.to_le_bytes());
    assert_eq!(bytes[16..], 0x0506_u64.to_le_bytes());
    assert_eq!(decode(&bytes), Ok(resized));
    for (at, value) in [(9, 0x41), (15, 0xff), (23, 0xff), (7, 0xff)] {
        let mut wrong = bytes.clone();
        wrong[at] = value;
        if at == 9 {
            wrong[8] = 1;
        }
        assert!(decode(&wrong).is_err(), "byte {at}");
    }
    let stamp = SourceStamp { device: 1, inode: 2, bytes: 3, modified_ns: 4, changed_ns: 5 };
    let record = StampRecord { stamp: Some(stamp), unfinished: Some(ComparisonKind::Digests) };
    let stamped = MetaRecord::SourceStamped { volume: VolumeId::new(7), record };
    let bytes = encoded(&stamped);
    assert_eq!(bytes[..10], [14, 0, 44, 0, 0, 0, 7, 0, 2, 1]);
    let words: Vec<u8> = [1_u64, 2, 3, 4, 5].iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes[10..], words);
    assert_eq!(decode(&bytes), Ok(stamped));
    for (at, value) in [(8, 4), (9, 2), (9, 0)] {
        let mut wrong = bytes.clone();
        wrong[at] = value;
        assert!(decode(&wrong).is_err(), "byte {at} = {value}");
    }
    assert_cuts_are_refused(&bytes, decode);
}
