//! Forward walks over sorted entries: what memory, pages and merges have in common.

use crate::{
    error::Result,
    format::packed::{PackedEntry, PackedKey},
};

/// A place in a sorted row of entries, which only moves forward.
pub(super) trait Walk {
    /// Goes to the first entry at or after `key`. A walk that stands at or past `key` stays where it is.
    fn seek(&mut self, key: PackedKey) -> Result<()>;

    /// Goes to the next entry. A walk that has ended stays so.
    fn advance(&mut self) -> Result<()>;

    /// Key of the entry it stands at; [`PackedKey::END`] before the first `seek` and after the last entry.
    fn key(&self) -> PackedKey;

    /// The entry it stands at; only where `key` is not the end.
    fn entry(&self) -> PackedEntry;
}
