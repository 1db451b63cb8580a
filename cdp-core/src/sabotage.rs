//! Sabotage switches: deliberate defects that the tests must catch.
//!
//! A store carries its own set, chosen at open; only the feature `testing` can throw one. Without it [`Sabotage::on`] is
//! constantly false and costs nothing.

/// A deliberate defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Switch {
    /// A manifest record takes effect without having been synced.
    SkipManifestSync,
    /// A flush returns before the frames were synced.
    AcknowledgeBeforeSync,
    /// Payload read from the storage is not compared with its digest.
    SkipDigestCheck,
    /// A point also shows the write after it.
    VisibilityOffByOne,
    /// Recovery cuts the journal at the first bad frame, whatever is known to have been durable.
    TruncateOnAnyBadFrame,
    /// Recovery keeps the parts of a write whose last part is missing.
    KeepIncompleteWrite,
    /// Durability is claimed up to the newest synced frame, with holes before it.
    DurableAcrossHoles,
    /// A new segment takes frames before the manifest names it durably.
    UseUnnamedSegment,
    /// Zero ranges are not entered into the index.
    DropZeroRanges,
    /// A merge loses an entry.
    MergeDropsEntry,
    /// The footer of a segment is named before it was synced.
    SkipFooterSync,
    /// Recovery takes frames of the tail without looking at their payload.
    TrustTailPayload,
    /// A resync that ends clears the bits of blocks that were written since it read them.
    CleanOlderVersion,
    /// A partial block at the end of what was read becomes clean.
    CleanPartialBlock,
    /// A merge of dirty maps drops what was set before.
    MergeOverwrites,
    /// A region leaves the activity log before the bits of its blocks are durable.
    EvictBeforeMapPage,
    /// A write is let through before the record that names its region was synced.
    SubmitBeforeLogSync,
    /// The activity log is turned off without a durable note of it.
    LogOffNotRecorded,
    /// A map of another size is written before the old one is read.
    ResizeWritesBeforeRead,
    /// Replay takes a damaged record of the activity log for one that was never finished.
    ReplaySkipsGap,
    /// A map is marked clean before its pages are durable.
    NeedReplayClearedEarly,
    /// Recovery keeps the parts of a coalesced interval whose last part is missing.
    KeepCutInterval,
    /// Every seq passes for a point, also in the middle of a coalesced interval.
    PointWithinInterval,
    /// A resync calls blocks clean before what it copied is durable.
    SettleBeforeDurable,
    /// A capture decides not to mark by one look at the mode, and not to take the write whole by another.
    DecideFromTwoLooks,
    /// A resync takes its seq after it has read the source.
    SeqAfterRead,
    /// A gap opens behind everything that the drain has taken over, wherever it belongs.
    GapAtNewest,
    /// A resync appends what it has read, and closes its gap, without the captured writes before.
    CloseGapUndrained,
    /// A mark sets its bits and leaves the ladder where it is.
    MarkWithoutLadder,
    /// A tap that ended without a clean end is taken for one that was equal to its source.
    BelieveUncleanEnd,
    /// A bookmark takes its place without the captured writes before it.
    BookmarkUndrained,
    /// A resync does not read the partial block at the end of a volume.
    SkipPartialBlock,
    /// Thinning drops versions that a kept point shows.
    ThinNeeded,
    /// Thinning does not compare what is visible before and after.
    SkipConservation,
    /// A compacted segment is named before it was synced.
    SkipCompactedSync,
    /// What thinning replaces is removed before the manifest names what replaces it.
    UnlinkBeforeEdit,
    /// Retention does not know of open snapshots.
    IgnorePins,
    /// Versions are taken away before the plan is durable that lets them go.
    ThinBeforePlan,
    /// A version that moves is entered one sector beside its new place.
    MoveBeside,
    /// A bookmark that has expired goes although it is locked.
    ExpireLocked,
    /// A segment goes although a run points into it that is not rewritten.
    ForgetNeighbour,
    /// A tap that ends stores its map before the captured writes before are taken over.
    StoreMapBeforeDrain,
    /// The map of a volume is kept while the volume is written inline.
    KeepMapOfWritten,
    /// A stored map that cannot be read, or is of another base, is taken for one that claims nothing.
    BelieveAnyMap,
    /// Writes that overlapped in flight are taken in the order in which they ended.
    CaptureOverlapped,
    /// A region leaves the activity log when the journal has its writes, whether or not the source has.
    LetGoBeforeSource,
    /// A region leaves the activity log when its writes have ended.
    LetGoBeforeDurable,
    /// A copy of a mirror set goes offline without a durable rotation of the generation.
    RotateLate,
    /// Equal generations are taken as clean, whatever the map says.
    EqualIdsClean,
    /// What an absent copy misses is marked after the write was acknowledged.
    MarkAfterAcknowledge,
    /// The record of the activity log is written after the data.
    LogAfterData,
    /// A repaired block becomes clean before the copy is durable.
    CleanBeforeCopyDurable,
    /// A copy is read from although its block is dirty.
    ReadDirtyCopy,
    /// What a smaller size cuts off a volume stays in the index.
    KeepWhatWasCut,
    /// A scrub writes what a source has at the place of a damaged version, whatever its digest.
    RepairUnchecked,
    /// A block that a copy could not read is not written back to it.
    LeaveUnreadable,
    /// A copy is read from although a write to the range waits for it.
    ReadBehind,
    /// A flush returns although a copy that lacks nothing, by its map, has not made durable what it should.
    FlushWithoutMarks,
    /// A repair writes to a range of a copy for which an older write waits.
    RepairBehind,
    /// A resync asks a source across a link for digests before the blocks are in resync.
    DigestsBeforeToken,
}

/// The switches of mirror sets; some are defects of the dirty maps below.
pub const MIRROR_SWITCHES: [Switch; 13] = [
    Switch::RotateLate,
    Switch::EqualIdsClean,
    Switch::MarkAfterAcknowledge,
    Switch::LogAfterData,
    Switch::CleanBeforeCopyDurable,
    Switch::ReadDirtyCopy,
    Switch::LeaveUnreadable,
    Switch::ReadBehind,
    Switch::FlushWithoutMarks,
    Switch::RepairBehind,
    Switch::MergeOverwrites,
    Switch::ResizeWritesBeforeRead,
    Switch::SubmitBeforeLogSync,
];

/// The switches of retention that a simulation finds one by one. The proof of thinning finds [`Switch::ThinNeeded`] by itself;
/// [`Switch::SkipConservation`] is a defect only beside another.
pub const RETENTION_SWITCHES: [Switch; 8] = [
    Switch::ThinNeeded,
    Switch::SkipCompactedSync,
    Switch::UnlinkBeforeEdit,
    Switch::IgnorePins,
    Switch::ThinBeforePlan,
    Switch::MoveBeside,
    Switch::ExpireLocked,
    Switch::ForgetNeighbour,
];

/// The switches of taps.
pub const TAP_SWITCHES: [Switch; 20] = [
    Switch::CleanOlderVersion,
    Switch::SettleBeforeDurable,
    Switch::DecideFromTwoLooks,
    Switch::SeqAfterRead,
    Switch::DigestsBeforeToken,
    Switch::GapAtNewest,
    Switch::CloseGapUndrained,
    Switch::MarkWithoutLadder,
    Switch::BelieveUncleanEnd,
    Switch::BookmarkUndrained,
    Switch::SkipPartialBlock,
    Switch::StoreMapBeforeDrain,
    Switch::KeepMapOfWritten,
    Switch::BelieveAnyMap,
    Switch::CaptureOverlapped,
    Switch::LetGoBeforeSource,
    Switch::LetGoBeforeDurable,
    Switch::EvictBeforeMapPage,
    Switch::SubmitBeforeLogSync,
    Switch::LogOffNotRecorded,
];

/// The switches of dirty maps.
pub const DIRTY_MAP_SWITCHES: [Switch; 9] = [
    Switch::CleanOlderVersion,
    Switch::CleanPartialBlock,
    Switch::MergeOverwrites,
    Switch::EvictBeforeMapPage,
    Switch::SubmitBeforeLogSync,
    Switch::LogOffNotRecorded,
    Switch::ResizeWritesBeforeRead,
    Switch::ReplaySkipsGap,
    Switch::NeedReplayClearedEarly,
];

/// The switches of stores.
pub const SWITCHES: [Switch; 16] = [
    Switch::SkipManifestSync,
    Switch::AcknowledgeBeforeSync,
    Switch::SkipDigestCheck,
    Switch::VisibilityOffByOne,
    Switch::TruncateOnAnyBadFrame,
    Switch::KeepIncompleteWrite,
    Switch::DurableAcrossHoles,
    Switch::UseUnnamedSegment,
    Switch::DropZeroRanges,
    Switch::MergeDropsEntry,
    Switch::SkipFooterSync,
    Switch::TrustTailPayload,
    Switch::KeepCutInterval,
    Switch::PointWithinInterval,
    Switch::KeepWhatWasCut,
    Switch::RepairUnchecked,
];

/// The switches that are thrown in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sabotage {
    #[cfg(feature = "testing")]
    thrown: u64,
}

impl Sabotage {
    /// Throws a switch.
    #[cfg(feature = "testing")]
    #[must_use]
    pub const fn with(self, switch: Switch) -> Self {
        Self { thrown: self.thrown | 1 << switch as u64 }
    }

    /// Whether a switch is thrown.
    #[cfg(feature = "testing")]
    pub const fn on(self, switch: Switch) -> bool {
        self.thrown & (1 << switch as u64) != 0
    }

    /// Whether a switch is thrown: never, in a build without the feature `testing`.
    #[cfg(not(feature = "testing"))]
    pub const fn on(self, _: Switch) -> bool {
        false
    }
}
