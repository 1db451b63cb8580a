//! Bookmarks across stores: one cut through several stores of a process, as each of them records it.

use crate::format::Uuid;

/// That a bookmark is one of several that were set as one, each in a store of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Across {
    /// What they have in common: random, the same in every store.
    pub id: Uuid,
    /// The stores that were to have it, ascending.
    pub stores: Vec<Uuid>,
    /// Whether they do.
    pub state: AcrossState,
}

/// What a store knows of the other members of a bookmark across stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcrossState {
    /// Nothing: the process ended, or this store failed, before that was recorded. The state of this store is a cut nevertheless.
    Unconfirmed,
    /// Every member has the bookmark, durably.
    Complete,
    /// Some do, durably, and these do not, as far as was known when it was recorded.
    Partial {
        /// Stores without the bookmark, ascending; at least one, and not all.
        missing: Vec<Uuid>,
    },
}

impl AcrossState {
    /// The spelling: `unconfirmed`, `complete` or `partial`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Complete => "complete",
            Self::Partial { .. } => "partial",
        }
    }
}

impl Across {
    /// The stores that are known not to have it.
    pub fn missing(&self) -> &[Uuid] {
        match &self.state {
            AcrossState::Partial { missing } => missing,
            AcrossState::Unconfirmed | AcrossState::Complete => &[],
        }
    }
}
