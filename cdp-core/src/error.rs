//! One error type for the whole library: what was asked, what is true, what to do next.
//!
//! The caller's mistakes carry the values, the world's failures their source and errno, and damage the range it covers.
//! Our own mistakes are assertions, not errors.

use crate::{
    text::format_time,
    units::{ExtentId, Seq, TimeNs},
};
use std::{fmt, io};

/// Result of the library's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The range does not lie within the volume.
    #[error("range {offset}+{length} reaches past the end of the volume ({volume_bytes} bytes)")]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// Length asked for, bytes.
        length: u64,
        /// Size of the volume, bytes.
        volume_bytes: u64,
    },
    /// Offset or length is not a multiple of 512.
    #[error("offset {offset} and length {length} must be multiples of 512")]
    Unaligned {
        /// First byte asked for.
        offset: u64,
        /// Length asked for, bytes.
        length: u64,
    },
    /// An argument is outside what is allowed; the text says which, why, and what is allowed.
    #[error("{0}")]
    InvalidArgument(String),
    /// There is no such thing; the text names it.
    #[error("{what} '{name}' does not exist")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// There is such a thing already.
    #[error("{what} '{name}' exists already")]
    Exists {
        /// Kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The bookmark is locked.
    #[error("bookmark '{0}' is locked; unlock it first")]
    BookmarkLocked(String),
    /// A bookmark found no place under the conditions asked for; the text says why. Nothing was recorded, and it may be tried again.
    #[error("the bookmark was not set: {0}")]
    NotPlaced(String),
    /// The point is well formed but cannot be opened.
    #[error("{0}")]
    PointUnavailable(Box<PointUnavailable>),
    /// A write was dated before the newest write of the group.
    #[error("time {} lies before the newest write of the store ({})", format_time(*given), format_time(*newest))]
    TimeBackwards {
        /// The time given.
        given: TimeNs,
        /// Time of the newest write.
        newest: TimeNs,
    },
    /// Another process owns the store.
    #[error("the store is in use by another owner")]
    Owned,
    /// The store was opened for reading only.
    #[error("the store was opened read-only")]
    ReadOnly,
    /// The storage has no space left. Nothing that was acknowledged is lost; the store goes on when there is space again.
    #[error("no space left for the journal; free space on the storage and try again")]
    NoSpace,
    /// The retention policy bounds the space of the store, and nothing more may be dropped to keep to it. Nothing that was acknowledged is
    /// lost; the store takes writes again when the bound is raised or something that holds history is let go.
    #[error(
        "the store takes up {used} bytes and its policy allows {bound}; raise max_bytes, or let go of locked bookmarks and snapshots"
    )]
    OverBound {
        /// Bytes that the store takes up.
        used: u64,
        /// Bytes that the policy allows.
        bound: u64,
    },
    /// An earlier failure makes it unsafe to go on; reopen the store.
    #[error("the store stopped after an earlier failure ({0}); close it and open it again")]
    Poisoned(String),
    /// A newer owner has taken over the store.
    #[error("another owner has taken over this store")]
    Fenced,
    /// Bytes on the storage are not what was written.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// The store is of a format that this version does not know.
    #[error("{0}")]
    UnsupportedFormat(String),
    /// A dirty map is not the map of what it was opened for, or is none. Take everything for dirty and make a new one.
    #[error("{0}")]
    MapRefused(String),
    /// A mirror set has fewer copies than its policy of acknowledgement asks for. The write is not acknowledged; what reached some copies is marked, so that
    /// they become equal again.
    #[error(
        "a write needs {needed} copies of the mirror set and has {have}; bring copies online and write again"
    )]
    TooFewCopies {
        /// Copies that must hold a write.
        needed: usize,
        /// Copies that do, or could.
        have: usize,
    },
    /// A mirror set or one of its copies cannot be used as it is; the text says why and what to do.
    #[error("{0}")]
    MirrorRefused(String),
    /// A seed set does not fit the volume that was to take it over; the text says why and what to do. Nothing was changed.
    #[error("{0}")]
    SeedRefused(String),
    /// A source that nobody captures from was changed while it was compared. What was taken over stays, and the volume counts as different.
    #[error(
        "the source was changed while it was compared; stop what writes to it, or capture it by a tap, and run it again"
    )]
    SourceChanged,
    /// The storage failed.
    #[error("{operation} {target}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        target: String,
        /// The failure.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Wraps a failure of the storage; a full storage becomes [`Error::NoSpace`].
    pub fn io(operation: &'static str, target: impl Into<String>, source: io::Error) -> Self {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::NoSpace;
        }
        Self::Io { operation, target: target.into(), source }
    }

    /// Whether the error reports damage.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

/// A damaged range of an extent, and what of history it touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The extent.
    pub extent: ExtentId,
    /// Its name for people: a file name where there is one.
    pub file: String,
    /// First damaged byte.
    pub offset: u64,
    /// Length, bytes.
    pub length: u64,
    /// First seq that the damage can touch.
    pub from_seq: Seq,
    /// Last seq that the damage can touch.
    pub to_seq: Seq,
    /// What the bytes should be.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "damage in {} at bytes {}+{} ({}), seq {} to {}",
            self.file, self.offset, self.length, self.what, self.from_seq, self.to_seq
        )
    }
}

/// A point of the timeline, with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeqTime {
    /// The state.
    pub seq: Seq,
    /// Its time.
    pub time: TimeNs,
}

/// Why a point cannot be opened, and which exact points are nearest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointUnavailable {
    /// The point as it was asked for.
    pub requested: String,
    /// Why it cannot be opened.
    pub reason: String,
    /// Nearest exact point before it.
    pub before: Option<SeqTime>,
    /// Nearest exact point after it.
    pub after: Option<SeqTime>,
}

impl fmt::Display for PointUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "point {} cannot be opened: {}; nearest exact points: ", self.requested, self.reason)?;
        match self.before {
            Some(point) => write!(f, "seq:{} (time:{}) before", point.seq, format_time(point.time))?,
            None => write!(f, "none before")?,
        }
        match self.after {
            Some(point) => write!(f, ", seq:{} (time:{}) after", point.seq, format_time(point.time)),
            None => write!(f, ", none after"),
        }
    }
}
