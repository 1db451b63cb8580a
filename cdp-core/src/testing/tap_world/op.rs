//! The steps of a history with taps, as plain data: every number is taken modulo what there is, so that a history stays valid when steps
//! are left out of it.

use crate::{
    io::simulated::CrashPolicy,
    testing::op::{FaultKind, Place},
};

/// Which call hands a write over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// [`Tap::capture`](crate::Tap::capture), or the same for a write that was begun, as with all others.
    Copied,
    /// [`Tap::capture_vectored`](crate::Tap::capture_vectored), cut into parts of that many sectors.
    Vectored(u64),
    /// [`Tap::capture_bytes`](crate::Tap::capture_bytes).
    Owned,
    /// [`Tap::write_zeroes`](crate::Tap::write_zeroes).
    Zeroes,
    /// [`Tap::discard`](crate::Tap::discard).
    Discard,
    /// The write is not handed over whole: [`Tap::mark`](crate::Tap::mark).
    Mark,
}

impl Handover {
    /// Whether the range holds zeroes afterwards.
    pub fn is_zero(self) -> bool {
        matches!(self, Self::Zeroes | Self::Discard)
    }
}

/// What the host says of the source when it attaches; told apart from what it may say truthfully.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// [`SourceState::AsRecorded`](crate::SourceState::AsRecorded) where that is right, else `Unknown`.
    AsRecorded,
    /// [`SourceState::Equal`](crate::SourceState::Equal) where that is right or must not be believed, else `Unknown`.
    Equal,
    /// [`SourceState::Differs`](crate::SourceState::Differs) with what was written while no tap watched, where that is known, else `Unknown`.
    Tracked,
    /// [`SourceState::Unknown`](crate::SourceState::Unknown).
    Unknown,
}

/// What happens to the sources when everything stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapDown {
    /// The process is killed: storage and sources keep all that was written.
    Kill,
    /// The power fails: the storage keeps what the policy says; a source keeps what it flushed, and any part of the rest.
    PowerCut {
        /// What the storage keeps.
        policy: CrashPolicy,
        /// Decides about chances.
        seed: u64,
        /// Whether the sources lose what they did not flush.
        sources: bool,
    },
}

/// How a store comes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapRecover {
    /// Crashes in changing call number so many of an open, one after the other.
    pub crashes: Vec<(u64, TapDown)>,
    /// Whether the maps that taps left behind are damaged meanwhile, beyond recognition.
    pub harm_maps: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapOp {
    /// A write to a volume: with a tap to its source, else inline.
    Write {
        /// Where.
        place: Place,
        /// How it is handed over.
        by: Handover,
        /// Steps of the store between the completion on the source and the capture.
        late: u64,
    },
    /// Two writes to a volume with a tap that overlap in flight: the second begins within the first, and takes effect after it; they end in
    /// this order or, `swapped`, in the other.
    Pair {
        /// The first.
        place: Place,
        /// Sectors of the second.
        sectors: u64,
        /// Whether the second ends first.
        swapped: bool,
    },
    /// A write to a volume with a tap whose producer stops in the middle of handing it over, while the store does so many steps and time
    /// passes. Then it goes on; or it never does, and the store is closed and opened.
    Stall {
        /// Where.
        place: Place,
        /// Whether it had said what it writes.
        described: bool,
        /// Steps of the store.
        steps: u64,
        /// Whether it never goes on.
        dies: bool,
    },
    /// A write to the source of a volume without a tap.
    Unwatched(Place),
    /// The source of a volume makes its writes durable.
    SourceFlush(u64),
    /// A tap is suspended.
    Suspend(u64),
    /// A tap is resumed.
    Resume(u64),
    /// A tap is suspended by another thread, in the middle of the next capture of its volume.
    SuspendWithin(u64),
    /// During the next read of a source, these happen before the buffer is filled and after.
    Interleave(Vec<TapOp>, Vec<TapOp>),
    /// The next reads of a source fail.
    SourceFault(u64, u64),
    /// A flush of the store.
    Flush,
    /// A heartbeat of the store.
    Heartbeat,
    /// A bookmark, perhaps one that must be exact.
    Bookmark(bool),
    /// So many steps of background work.
    Step(u64),
    /// So many steps of resync alone, as when the thread that drains is late.
    Resync(u64),
    /// The clock jumps, in nanoseconds.
    Clock(i64),
    /// A volume gets a tap.
    Attach(u64, Claim),
    /// A tap is taken off.
    Detach(u64),
    /// Comparisons that need a storage that works.
    Check,
    /// Comparisons that leave the store as it is.
    Look,
    /// A fault of the storage, after so many calls of its kind; for ever, or once.
    Fault(FaultKind, u64, bool),
    /// The storage has only so many bytes left.
    Full(u64),
    /// All faults are over and there is space again.
    Heal,
    /// A clean close and an open.
    Reopen,
    /// Everything stops now.
    Down(TapDown, TapRecover),
    /// Everything stops in changing call number so many from here.
    DownAt(u64, TapDown, TapRecover),
}
