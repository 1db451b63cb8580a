//! What happens to a mirror set, told to the host when it happens, if it has given a [`MirrorSink`]. [`MirrorSet::status`] says how things stand.

use super::MirrorSet;
use crate::{dirty_map::ByteRange, event::Severity};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MirrorEvent {
    /// A copy failed and takes no writes any more; its map says what it misses.
    CopyFailed {
        /// Its number.
        number: u32,
        /// What failed.
        trouble: String,
    },
    /// A copy was taken out of service.
    CopyOffline {
        /// Its number.
        number: u32,
    },
    /// A copy takes writes again.
    CopyOnline {
        /// Its number.
        number: u32,
        /// What the handshake said.
        reason: &'static str,
    },
    /// A copy was not let in.
    CopyRefused {
        /// Its number.
        number: u32,
        /// What the handshake said.
        reason: &'static str,
    },
    /// A copy joined the set.
    CopyAdded {
        /// Its number.
        number: u32,
    },
    /// A copy left the set for good.
    CopyRemoved {
        /// Its number.
        number: u32,
    },
    /// A repair has ended for a copy: it lacks nothing any more.
    CopyWhole {
        /// Its number.
        number: u32,
    },
    /// A range of a copy that could not be read, or was said to be damaged, was rewritten from another one.
    CopyMended {
        /// Its number.
        number: u32,
        /// Where.
        range: ByteRange,
    },
    /// It was decided by hand that a copy is right.
    Resolved {
        /// Its number.
        winner: u32,
    },
    /// The volume has another size.
    Resized {
        /// Its size now, bytes.
        bytes: u64,
    },
    /// Nothing is let through any more until the set is opened again.
    Stopped {
        /// Why.
        error: String,
    },
    /// The set was closed in good order.
    Closed,
}

impl MirrorEvent {
    /// How much it matters.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Stopped { .. } => Severity::Error,
            Self::CopyFailed { .. } | Self::CopyRefused { .. } | Self::CopyMended { .. } => Severity::Warning,
            _ => Severity::Info,
        }
    }
}

impl fmt::Display for MirrorEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CopyFailed { number, trouble } => {
                write!(f, "copy {number} failed and takes no writes any more: {trouble}")
            }
            Self::CopyOffline { number } => write!(f, "copy {number} was taken out of service"),
            Self::CopyOnline { number, reason } => write!(f, "copy {number} takes writes again: {reason}"),
            Self::CopyRefused { number, reason } => write!(f, "copy {number} was not let in: {reason}"),
            Self::CopyAdded { number } => write!(f, "copy {number} joined the set"),
            Self::CopyRemoved { number } => write!(f, "copy {number} left the set for good"),
            Self::CopyWhole { number } => write!(f, "copy {number} lacks nothing any more"),
            Self::CopyMended { number, range } => {
                write!(f, "copy {number}: {} bytes at {} were rewritten", range.bytes, range.offset)
            }
            Self::Resolved { winner } => {
                write!(f, "copy {winner} is right by decision; the others follow it")
            }
            Self::Resized { bytes } => write!(f, "the volume has {bytes} bytes now"),
            Self::Stopped { error } => write!(f, "the mirror set lets nothing through any more: {error}"),
            Self::Closed => f.write_str("the mirror set was closed"),
        }
    }
}

/// Told of every event of a set when it happens, such as a log.
pub trait MirrorSink: Send + Sync {
    /// Called from whatever thread is inside of the set, several at once, with locks of the set held: it must not call the set, and what it waits for reads
    /// and writes wait for.
    fn event(&self, event: &MirrorEvent);
}

/// The sink of a set, if the host has given one.
#[derive(Default)]
pub(super) struct Sink(OnceLock<Arc<dyn MirrorSink>>);

impl Sink {
    pub(super) fn tell(&self, event: impl FnOnce() -> MirrorEvent) {
        if let Some(sink) = self.0.get() {
            sink.event(&event());
        }
    }
}

impl MirrorSet {
    /// Tells a sink of every event from now on. False, and nothing changes, when the set has one.
    pub fn set_event_sink(&self, sink: Arc<dyn MirrorSink>) -> bool {
        self.sink.0.set(sink).is_ok()
    }
}
