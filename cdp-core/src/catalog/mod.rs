//! The catalog: volumes, bookmarks, the policy, gaps and taps, as the fold of all metadata records so far.
//!
//! Records carry whole values and name what they change, so applying a row of them twice ends in the same catalog:
//! recovery may replay what the manifest already holds.

mod gaps;

pub use gaps::{GapReason, GapSpan, Gaps};

use crate::{
    bookmark::Bookmark,
    capture::Coalescing,
    dirty_map::Granularity,
    format::{Malformed, meta::MetaRecord},
    units::{ExtentId, Seq, VolumeId},
};
use std::collections::BTreeMap;

/// A volume of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size now, bytes.
    pub bytes: u64,
    /// The first seq at which it can be opened.
    pub exists_from: Seq,
    /// Its sizes in the order of their seqs: the one that it was made with, and one for each time that it was resized.
    pub sizes: Vec<VolumeSize>,
}

impl VolumeInfo {
    /// Its size at a seq, bytes.
    pub fn bytes_at(&self, seq: Seq) -> u64 {
        let after = self.sizes.partition_point(|size| size.from <= seq);
        self.sizes.get(after.saturating_sub(1)).map_or(self.bytes, |size| size.bytes)
    }
}

/// A size of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSize {
    /// The first seq at which it has it.
    pub from: Seq,
    /// The size, bytes.
    pub bytes: u64,
}

/// What changes when a source is changed by anybody. A host that has a generation number of its own may put it into any of the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceStamp {
    /// The file system, or the device.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// When its content was last modified, nanoseconds.
    pub modified_ns: u64,
    /// When anything of it was last changed, nanoseconds.
    pub changed_ns: u64,
}

/// A source as it was when what is known of its volume was recorded, and which comparison has made its map, if one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampRecord {
    /// The source, where it has a stamp.
    pub stamp: Option<SourceStamp>,
    /// Which comparison goes on where the map says; `None`: the record is the end of one, or of a tap.
    pub unfinished: Option<ComparisonKind>,
}

/// What a comparison of a volume with its source looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonKind {
    /// Everything, byte by byte.
    Bytes,
    /// Everything, by digests.
    Digests,
    /// What a map of differences named.
    Map,
}

impl ComparisonKind {
    /// Its number on disk.
    pub const fn code(self) -> u8 {
        match self {
            Self::Bytes => 1,
            Self::Digests => 2,
            Self::Map => 3,
        }
    }

    /// The kind of a number.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Bytes, Self::Digests, Self::Map].into_iter().find(|kind| kind.code() == code)
    }
}

/// What is known of the tap of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapRecord {
    /// A tap captures: after an unclean end any block may differ from the source.
    Attached,
    /// The tap ended with every block equal to the source.
    Equal,
    /// The tap ended while blocks differed.
    Differs,
}

impl TapRecord {
    /// Its number on disk.
    pub const fn code(self) -> u8 {
        match self {
            Self::Attached => 1,
            Self::Equal => 2,
            Self::Differs => 3,
        }
    }

    /// The state of a number.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Attached, Self::Equal, Self::Differs].into_iter().find(|state| state.code() == code)
    }
}

/// A dirty map on an extent of the store: which blocks of a volume may differ from its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapMap {
    /// The extent of the map file.
    pub extent: ExtentId,
    /// Its base generation: the owner epoch in which it was made.
    pub generation: u64,
    /// Bytes of a block of it.
    pub granularity: Granularity,
}

/// Volumes, bookmarks, policy, gaps and taps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    volumes: BTreeMap<VolumeId, VolumeInfo>,
    bookmarks: BTreeMap<String, Bookmark>,
    policy: Option<String>,
    next_volume: VolumeId,
    gaps: BTreeMap<VolumeId, Gaps>,
    taps: BTreeMap<VolumeId, (TapRecord, Option<TapMap>)>,
    /// The sources of these, as far as they have stamps.
    stamps: BTreeMap<VolumeId, StampRecord>,
    /// By the last seq before each change; without an entry every write is a point.
    coalescing: BTreeMap<Seq, Coalescing>,
}

impl Catalog {
    /// Whether a record fits: no two volumes have the same name, and every later size of a volume is from a seq behind its first.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, record: &MetaRecord) -> Result<(), Malformed> {
        const EARLY: Malformed = Malformed("catalog: a volume was resized before it existed");
        match record {
            MetaRecord::VolumeAdded { id, name, .. }
                if self.volume_named(name).is_some_and(|other| other.id != *id) =>
            {
                Err(Malformed("catalog: two volumes of one name"))
            }
            MetaRecord::VolumeAdded { id, exists_from, .. } => {
                let resized = self.volumes.get(id).and_then(|info| info.sizes.get(1));
                if resized.is_some_and(|size| size.from <= *exists_from) { Err(EARLY) } else { Ok(()) }
            }
            MetaRecord::VolumeResized { id, size } => {
                let early = self.volumes.get(id).is_some_and(|info| size.from <= info.exists_from);
                if early { Err(EARLY) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// Applies one record, which fits.
    pub fn apply(&mut self, record: &MetaRecord) {
        match record {
            MetaRecord::VolumeAdded { id, name, bytes, exists_from } => {
                let first = VolumeSize { from: *exists_from, bytes: *bytes };
                let mut sizes = vec![first];
                // Told again behind its resizes, it changes nothing.
                let known = self.volumes.get(id).map(|info| &info.sizes[..]).unwrap_or_default();
                sizes.extend(known.iter().skip(1));
                let bytes = sizes.last().map_or(first.bytes, |size| size.bytes);
                let info =
                    VolumeInfo { id: *id, name: name.clone(), bytes, exists_from: *exists_from, sizes };
                self.volumes.insert(*id, info);
                self.next_volume = self.next_volume.max(id.checked_add(1).unwrap_or(*id));
            }
            MetaRecord::VolumeIdsTaken(next) => self.next_volume = self.next_volume.max(*next),
            MetaRecord::BookmarkAdded(bookmark) => {
                self.bookmarks.insert(bookmark.name.clone(), bookmark.clone());
            }
            MetaRecord::BookmarkRemoved(name) => {
                self.bookmarks.remove(name);
            }
            MetaRecord::BookmarkLocked { name, locked } => {
                if let Some(bookmark) = self.bookmarks.get_mut(name) {
                    bookmark.locked = *locked;
                }
            }
            MetaRecord::BookmarkAcross { name, across } => {
                if let Some(bookmark) = self.bookmarks.get_mut(name) {
                    bookmark.across = Some(across.clone());
                }
            }
            MetaRecord::PolicySet(text) => self.policy = Some(text.clone()),
            MetaRecord::GapOpened { volume, at, reason } => {
                self.gaps.entry(*volume).or_default().opened(*at, *reason);
            }
            MetaRecord::GapClosed { volume, opened, at } => {
                if let Some(gaps) = self.gaps.get_mut(volume) {
                    gaps.closed(*opened, *at);
                }
            }
            MetaRecord::TapSet { volume, state, map } => {
                self.taps.insert(*volume, (*state, *map));
                self.stamps.remove(volume);
            }
            MetaRecord::SourceStamped { volume, record } => {
                self.stamps.insert(*volume, *record);
            }
            MetaRecord::VolumeResized { id, size } => {
                if let Some(info) = self.volumes.get_mut(id) {
                    info.sizes.retain(|other| other.from < size.from);
                    info.sizes.push(*size);
                    info.bytes = size.bytes;
                }
            }
            MetaRecord::CoalescingSet { behind, coalescing } => self.set_coalescing(*behind, *coalescing),
        }
    }

    /// Forgets all bookmarks but these.
    pub fn keep_bookmarks(&mut self, keep: impl Fn(&Bookmark) -> bool) {
        self.bookmarks.retain(|_, bookmark| keep(bookmark));
    }

    /// Records that make this catalog from an empty one.
    pub fn records(&self) -> impl Iterator<Item = MetaRecord> + '_ {
        let volumes = self.volumes.values().flat_map(volume_records);
        let bookmarks = self.bookmarks.values().flat_map(bookmark_records);
        std::iter::once(MetaRecord::VolumeIdsTaken(self.next_volume))
            .chain(volumes)
            .chain(bookmarks)
            .chain(self.policy.iter().cloned().map(MetaRecord::PolicySet))
            .chain(self.gaps.iter().flat_map(|(volume, gaps)| gap_records(*volume, gaps)))
            .chain(self.taps.iter().map(|(volume, (state, map))| MetaRecord::TapSet {
                volume: *volume,
                state: *state,
                map: *map,
            }))
            .chain(
                self.stamps
                    .iter()
                    .map(|(volume, record)| MetaRecord::SourceStamped { volume: *volume, record: *record }),
            )
            .chain(
                self.coalescing()
                    .map(|(behind, coalescing)| MetaRecord::CoalescingSet { behind, coalescing }),
            )
    }

    fn set_coalescing(&mut self, behind: Seq, coalescing: Coalescing) {
        self.coalescing.insert(behind, coalescing);
        // What changes nothing is left out, so that the row is as short as it can be.
        let mut before = Coalescing::PerWrite;
        self.coalescing.retain(|_, next| std::mem::replace(&mut before, *next) != *next);
    }

    /// The ranges of the timeline by how writes were coalesced: each begins behind a seq and ends with that of the next.
    pub fn coalescing(&self) -> impl Iterator<Item = (Seq, Coalescing)> + '_ {
        self.coalescing.iter().map(|(behind, coalescing)| (*behind, *coalescing))
    }

    /// How the next write is coalesced.
    pub fn coalescing_now(&self) -> Coalescing {
        self.coalescing.values().next_back().copied().unwrap_or_default()
    }

    /// How the write of a seq was coalesced.
    pub fn coalescing_at(&self, seq: Seq) -> Coalescing {
        self.coalescing.range(..seq).next_back().map_or(Coalescing::PerWrite, |(_, coalescing)| *coalescing)
    }

    /// The gaps of a volume.
    pub fn gaps(&self, volume: VolumeId) -> Option<&Gaps> {
        self.gaps.get(&volume)
    }

    /// The gap of a volume in which a state lies.
    pub fn gap_at(&self, volume: VolumeId, seq: Seq) -> Option<&GapSpan> {
        self.gaps.get(&volume)?.containing(seq)
    }

    /// What is known of the tap of a volume; `None`: it never had one.
    pub fn tap(&self, volume: VolumeId) -> Option<TapRecord> {
        self.taps.get(&volume).map(|(record, _)| *record)
    }

    /// The same, with the map of its differences where there is one.
    pub fn tap_with_map(&self, volume: VolumeId) -> Option<(TapRecord, Option<TapMap>)> {
        self.taps.get(&volume).copied()
    }

    /// The source of a volume when what is known of its tap was recorded.
    pub fn source_stamp(&self, volume: VolumeId) -> Option<StampRecord> {
        self.stamps.get(&volume).copied()
    }

    /// The extents of all maps.
    pub fn map_extents(&self) -> impl Iterator<Item = ExtentId> + '_ {
        self.taps.values().filter_map(|(_, map)| map.map(|map| map.extent))
    }

    /// Records after which nothing is believed that taps have left behind.
    pub(crate) fn distrust_taps(&self) -> impl Iterator<Item = MetaRecord> + '_ {
        let known =
            self.taps.iter().filter(|(_, (record, map))| *record == TapRecord::Equal || map.is_some());
        known.map(|(volume, (record, _))| {
            let state = if *record == TapRecord::Attached { *record } else { TapRecord::Differs };
            MetaRecord::TapSet { volume: *volume, state, map: None }
        })
    }

    /// Volumes whose tap is recorded as attached and that have no open gap.
    pub(crate) fn left_behind(&self) -> impl Iterator<Item = VolumeId> + '_ {
        let attached = self.taps.iter().filter(|(_, (record, _))| *record == TapRecord::Attached);
        let open = |volume: &VolumeId| self.gaps(*volume).is_some_and(|gaps| gaps.open().is_some());
        attached.map(|(volume, _)| *volume).filter(move |volume| !open(volume))
    }

    /// The volumes in the order in which they were made.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeInfo> {
        self.volumes.values()
    }

    /// A volume by id.
    pub fn volume(&self, id: VolumeId) -> Option<&VolumeInfo> {
        self.volumes.get(&id)
    }

    /// A volume by name.
    pub fn volume_named(&self, name: &str) -> Option<&VolumeInfo> {
        self.volumes.values().find(|info| info.name == name)
    }

    /// The id for the next volume; ids are never reused.
    pub fn next_volume_id(&self) -> VolumeId {
        self.next_volume
    }

    /// The bookmarks, by name.
    pub fn bookmarks(&self) -> impl Iterator<Item = &Bookmark> {
        self.bookmarks.values()
    }

    /// A bookmark by name.
    pub fn bookmark(&self, name: &str) -> Option<&Bookmark> {
        self.bookmarks.get(name)
    }

    /// The policy in force: canonical JSON text.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }
}

fn volume_records(info: &VolumeInfo) -> impl Iterator<Item = MetaRecord> + '_ {
    let first = info.sizes.first().map_or(info.bytes, |size| size.bytes);
    let added = MetaRecord::VolumeAdded {
        id: info.id,
        name: info.name.clone(),
        bytes: first,
        exists_from: info.exists_from,
    };
    let resized = info.sizes.iter().skip(1);
    std::iter::once(added).chain(resized.map(|size| MetaRecord::VolumeResized { id: info.id, size: *size }))
}

fn bookmark_records(bookmark: &Bookmark) -> impl Iterator<Item = MetaRecord> {
    let name = bookmark.name.clone();
    let across = bookmark.across.clone();
    let added = MetaRecord::BookmarkAdded(Bookmark { across: None, ..bookmark.clone() });
    std::iter::once(added).chain(across.map(|across| MetaRecord::BookmarkAcross { name, across }))
}

fn gap_records(volume: VolumeId, gaps: &Gaps) -> impl Iterator<Item = MetaRecord> + '_ {
    gaps.iter().flat_map(move |gap| {
        let opened = MetaRecord::GapOpened { volume, at: gap.opened, reason: gap.reason };
        let closed = gap.closed.map(|at| MetaRecord::GapClosed { volume, opened: gap.opened.seq, at });
        std::iter::once(opened).chain(closed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bookmark::{Across, AcrossState},
        format::Uuid,
        units::TimeNs,
    };

    /// Goal: a checkpoint of the manifest leaves nothing out. Method: records that bring something into each part of a catalog.
    #[test]
    fn its_records_make_the_same_catalog() {
        let at = |seq: u64| crate::error::SeqTime { seq: Seq::new(seq), time: TimeNs::new(seq) };
        let volume = VolumeId::new(3);
        let stamp = SourceStamp { device: 1, inode: 2, bytes: 3, modified_ns: 4, changed_ns: 5 };
        let stamped = StampRecord { stamp: Some(stamp), unfinished: Some(ComparisonKind::Digests) };
        let mut catalog = Catalog::default();
        for record in [
            MetaRecord::VolumeAdded { id: volume, name: "a".into(), bytes: 512, exists_from: Seq::new(1) },
            MetaRecord::VolumeResized { id: volume, size: VolumeSize { from: Seq::new(3), bytes: 4096 } },
            MetaRecord::VolumeResized { id: volume, size: VolumeSize { from: Seq::new(6), bytes: 1024 } },
            MetaRecord::VolumeIdsTaken(VolumeId::new(9)),
            MetaRecord::BookmarkAdded(Bookmark {
                name: "b".into(),
                kind: crate::bookmark::BookmarkKind::User,
                app: None,
                comment: None,
                seq: Seq::new(4),
                time: TimeNs::new(4),
                locked: true,
                expires: None,
                inexact_volumes: vec!["a".into()],
                across: None,
            }),
            MetaRecord::BookmarkAcross {
                name: "b".into(),
                across: Across {
                    id: Uuid([1; 16]),
                    stores: vec![Uuid([2; 16]), Uuid([3; 16])],
                    state: AcrossState::Complete,
                },
            },
            MetaRecord::BookmarkAcross {
                name: "gone".into(),
                across: Across {
                    id: Uuid([1; 16]),
                    stores: vec![Uuid([2; 16])],
                    state: AcrossState::Complete,
                },
            },
            MetaRecord::PolicySet("{}".into()),
            MetaRecord::GapOpened { volume, at: at(5), reason: GapReason::Overload },
            MetaRecord::GapClosed { volume, opened: Seq::new(5), at: at(7) },
            MetaRecord::GapOpened { volume, at: at(8), reason: GapReason::Host },
            MetaRecord::TapSet {
                volume,
                state: TapRecord::Differs,
                map: Some(TapMap { extent: ExtentId::new(9), generation: 2, granularity: Granularity::MAX }),
            },
            MetaRecord::TapSet { volume: VolumeId::new(4), state: TapRecord::Equal, map: None },
            MetaRecord::SourceStamped { volume: VolumeId::new(4), record: stamped },
            MetaRecord::CoalescingSet { behind: Seq::new(2), coalescing: Coalescing::IntervalNs(7) },
            MetaRecord::CoalescingSet { behind: Seq::new(6), coalescing: Coalescing::PerWrite },
            MetaRecord::CoalescingSet { behind: Seq::new(9), coalescing: Coalescing::PerBarrier },
        ] {
            catalog.apply(&record);
        }
        let mut again = Catalog::default();
        catalog.records().for_each(|record| again.apply(&record));
        assert_eq!(again, catalog);
    }

    /// Goal: a row of sizes that no store writes is refused, so that what is kept of a volume always makes it again. Method: a later size at and before
    /// the seq from which the volume exists, in both orders of the records.
    #[test]
    fn a_size_from_before_its_volume_is_refused() {
        let id = VolumeId::new(1);
        let size =
            |from| MetaRecord::VolumeResized { id, size: VolumeSize { from: Seq::new(from), bytes: 4096 } };
        let added =
            |from| MetaRecord::VolumeAdded { id, name: "a".into(), bytes: 512, exists_from: Seq::new(from) };
        let early = Err(Malformed("catalog: a volume was resized before it existed"));
        let mut catalog = Catalog::default();
        catalog.apply(&added(5));
        assert_eq!([4, 5, 6].map(|from| catalog.check(&size(from))), [early, early, Ok(())]);
        catalog.apply(&size(6));
        assert_eq!([5, 6, 7].map(|from| catalog.check(&added(from))), [Ok(()), early, early]);
        // Of a volume that is not known nothing can be said, and nothing is kept.
        assert_eq!(Catalog::default().check(&size(1)), Ok(()));
    }

    /// Goal: a volume has at each seq the size that it had there, also when its records are told twice, as recovery does. Method: sizes
    /// around each change, after the whole row once, twice, and with its beginning alone told again.
    #[test]
    fn a_size_belongs_to_its_seqs() {
        let id = VolumeId::new(1);
        let size =
            |from, bytes| MetaRecord::VolumeResized { id, size: VolumeSize { from: Seq::new(from), bytes } };
        let added = MetaRecord::VolumeAdded { id, name: "a".into(), bytes: 512, exists_from: Seq::new(2) };
        let row = [added.clone(), size(5, 4096), size(9, 1024)];
        let mut catalog = Catalog::default();
        for times in 0..3 {
            let again = if times < 2 { &row[..] } else { &row[..1] };
            again.iter().for_each(|record| catalog.apply(record));
            let info = catalog.volume(id).unwrap();
            let sizes = [0, 2, 4, 5, 8, 9, 100].map(|seq| info.bytes_at(Seq::new(seq)));
            assert_eq!(sizes, [512, 512, 512, 4096, 4096, 1024, 1024]);
            assert_eq!(info.bytes, 1024);
        }
    }
}
