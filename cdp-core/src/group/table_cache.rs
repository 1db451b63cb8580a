//! Frame tables of sealed segments that were read lately. A sealed table never changes, and no extent number is given out twice.

use crate::{format::frame_table::FrameEntry, units::ExtentId};
use quick_cache::{Weighter, sync::Cache};
use std::sync::Arc;

/// Tables that are expected: those of segments of the usual size with frames of the usual size.
const TABLES_USUAL: usize = 256;
/// Most entries of all tables together, about a megabyte. A table that has more alone is not kept.
const ENTRIES_MAX: u64 = 16 << 10;

/// Where a table begins: the extent that holds it, and the offset in it.
type TablePlace = (ExtentId, u64);

/// The tables by their places, weighed by their entries.
pub(super) type TableCache = Cache<TablePlace, Arc<[FrameEntry]>, Entries>;

/// An empty cache.
pub(super) fn table_cache() -> TableCache {
    Cache::with_weighter(TABLES_USUAL, ENTRIES_MAX, Entries)
}

#[derive(Clone)]
pub(super) struct Entries;

impl Weighter<TablePlace, Arc<[FrameEntry]>> for Entries {
    fn weight(&self, _place: &TablePlace, table: &Arc<[FrameEntry]>) -> u64 {
        crate::units::len_u64(table.len())
    }
}
