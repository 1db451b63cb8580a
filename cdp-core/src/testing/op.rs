//! The steps of a history, as plain data: whatever numbers they hold, they fit any state, so that a history stays valid when
//! steps are left out of it. That is what makes a failing one short ([`shrink`](super::simulate::shrink)).

use crate::{capture::Coalescing, io::simulated::CrashPolicy};

/// Where on which volume; every number is taken modulo what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The volume.
    pub volume: u64,
    /// First sector.
    pub sector: u64,
    /// Sectors, cut at the end of the volume.
    pub sectors: u64,
}

/// How a write says when it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// By the clock of the store.
    Clock,
    /// At the time of the newest write plus so many nanoseconds.
    After(u64),
}

/// What the payload of a write looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Stamped throughout.
    Stamped,
    /// Zeroes throughout.
    Zeroes,
    /// Stamped and zero sectors in turn, in stretches that follow from the seed.
    Mixed(u64),
}

/// A fault that strikes once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// EIO of a write.
    Write,
    /// A write that is done in part and fails.
    ShortWrite,
    /// EIO of a sync.
    Sync,
    /// EIO of a sync of names.
    SyncNames,
    /// EIO of the creation of an extent.
    Create,
    /// EIO of a change of size.
    SetSize,
    /// ENOSPC of a write.
    NoSpaceWrite,
    /// ENOSPC of a sync.
    NoSpaceSync,
    /// ENOSPC of the creation of an extent.
    NoSpaceCreate,
}

/// How the machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// The power fails.
    Crash {
        /// What it leaves.
        policy: CrashPolicy,
        /// Decides about chances.
        seed: u64,
    },
    /// The process is killed.
    Kill,
}

/// How a store comes back: crashes during recovery first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recover {
    /// Crashes in changing call number so many of an open, one after the other.
    pub crashes: Vec<(u64, Down)>,
    /// Whether to look at it read-only before each open.
    pub look_first: bool,
    /// A fault during the last open, after so many calls of its kind.
    pub fault: Option<(FaultKind, u64)>,
}

/// One step of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A write.
    Write {
        /// Where.
        place: Place,
        /// What.
        fill: Fill,
        /// When.
        when: When,
        /// Cut into parts of that many sectors at most for `writev`; 0: `write`.
        parts: u64,
    },
    /// A write of zeroes.
    WriteZeroes(Place, When),
    /// A discard.
    Discard(Place, When),
    /// A flush of the store.
    Flush,
    /// A flush of a volume.
    FlushVolume(u64),
    /// A bookmark.
    AddBookmark {
        /// Its kind, and what of its text is there.
        variant: u64,
        /// The seq it is set at, modulo what there is; `None`: the newest.
        at: Option<u64>,
    },
    /// A bookmark is deleted.
    DeleteBookmark(u64),
    /// A bookmark is locked or unlocked.
    LockBookmark(u64, bool),
    /// A volume of so many sectors.
    AddVolume(u64),
    /// A volume of so many sectors is imported; its content follows from the seed.
    Import {
        /// Its size.
        sectors: u64,
        /// Its content.
        seed: u64,
        /// The source fails after so many pieces.
        fail_after: Option<u64>,
    },
    /// A volume gets another size.
    Resize {
        /// The volume, modulo what there is.
        volume: u64,
        /// Its new size.
        sectors: u64,
    },
    /// Writes are coalesced in this way from here on.
    Coalesce(Coalescing),
    /// So many steps of background work.
    Step(u64),
    /// The clock jumps, in nanoseconds.
    Clock(i64),
    /// Reads a range of the newest state.
    Read(Place),
    /// Opens a point and keeps it for a while.
    Hold(u64),
    /// Reads all points that are kept.
    ReadHeld,
    /// A call that must be refused.
    Refused(u64),
    /// A comparison with the model.
    Check,
    /// An open for reading only beside the owner.
    ReadOnly,
    /// A clean close and an open.
    Reopen,
    /// A fault, after so many calls of its kind.
    Fault(FaultKind, u64),
    /// The storage has only so many bytes left.
    Full(u64),
    /// All faults are over and there is space again.
    Heal,
    /// The policy of this seed is recorded.
    SetPolicy(u64),
    /// Retention runs at a time so many nanoseconds from now by the clock.
    Retain {
        /// From now, nanoseconds.
        later: i64,
        /// To the end; else the plan is made durable, and the rest is left to [`Op::Thin`].
        whole: bool,
    },
    /// So many steps of background work, each of so many entries.
    Thin(u64, u64),
    /// Opens the store for reading only, and keeps it open beside the owner.
    OpenReader,
    /// Compares what the readers that are kept open see with what it was when they were opened.
    ReadReaders,
    /// Closes the readers that are kept open.
    CloseReaders,
    /// The machine goes down now.
    Down(Down, Recover),
    /// The machine goes down in changing call number so many from here.
    DownAt(u64, Down, Recover),
}
