//! Frame tables of sealed segments that were read lately. A sealed table never changes, and no extent number is given out twice.

use crate::{error::Result, format::frame_table::FrameEntry, units::ExtentId};
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};

/// Most entries of all tables together, about a megabyte. A table that has more alone is not kept.
const ENTRIES_MAX: usize = 16 << 10;

/// Where a table begins: the extent that holds it, and the offset in it.
pub(super) type TablePlace = (ExtentId, u64);

/// The tables, the one that was asked for last in front.
#[derive(Default)]
pub(super) struct TableCache(Mutex<VecDeque<(TablePlace, Arc<[FrameEntry]>)>>);

impl TableCache {
    /// The table at a place; `read` where it is not at hand.
    ///
    /// # Errors
    /// Those of `read`, after which nothing is kept.
    pub fn get(
        &self,
        place: TablePlace,
        read: impl FnOnce() -> Result<Vec<FrameEntry>>,
    ) -> Result<Arc<[FrameEntry]>> {
        if let Some(table) = self.find(place) {
            return Ok(table);
        }
        let table: Arc<[FrameEntry]> = read()?.into();
        if table.len() <= ENTRIES_MAX {
            self.keep(place, table.clone());
        }
        Ok(table)
    }

    fn find(&self, place: TablePlace) -> Option<Arc<[FrameEntry]>> {
        let mut tables = self.0.lock();
        let at = tables.iter().position(|(other, _)| *other == place)?;
        let found = tables.remove(at)?;
        let table = found.1.clone();
        tables.push_front(found);
        Some(table)
    }

    fn keep(&self, place: TablePlace, table: Arc<[FrameEntry]>) {
        let mut tables = self.0.lock();
        // Another thread may have read it too.
        tables.retain(|(other, _)| *other != place);
        tables.push_front((place, table));
        let mut entries = 0;
        let fitting = tables.iter().take_while(|(_, table)| {
            entries += table.len();
            entries <= ENTRIES_MAX
        });
        let kept = fitting.count();
        tables.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Error,
        units::{FrameNo, Seq, TimeNs},
    };

    fn table(entries: usize) -> Vec<FrameEntry> {
        let entry = FrameEntry {
            offset: 4096,
            bytes: 4096,
            frame: FrameNo::new(1),
            base_seq: Seq::ZERO,
            last_seq: Seq::new(1),
            first_time: TimeNs::ZERO,
            last_time: TimeNs::ZERO,
            crc: 0,
            timed_records: 1,
        };
        vec![entry; entries]
    }

    /// Goal: a table is read once while it is asked for, those that were not for longest go first, and memory is bounded. Method: tables of half the bound,
    /// one that is larger, and a read that fails.
    #[test]
    fn tables_are_read_once_and_those_of_long_ago_go() {
        let cache = TableCache::default();
        let place = |number| (ExtentId::new(number), 4096);
        let get = |number, entries| {
            let mut was_read = false;
            let found = cache.get(place(number), || {
                was_read = true;
                Ok(table(entries))
            });
            assert_eq!(found.unwrap().len(), entries);
            was_read
        };
        assert!(get(1, ENTRIES_MAX / 2) && get(2, ENTRIES_MAX / 2));
        assert!(!get(1, ENTRIES_MAX / 2) && !get(2, ENTRIES_MAX / 2));
        assert!(!get(1, ENTRIES_MAX / 2), "now 2 is the one of long ago");
        assert!(get(3, 1));
        assert!(!get(1, ENTRIES_MAX / 2) && get(2, ENTRIES_MAX / 2));
        assert!(get(4, ENTRIES_MAX + 1) && get(4, ENTRIES_MAX + 1), "too large to be kept");
        let failed = cache.get(place(5), || Err(Error::NoSpace));
        assert!(failed.is_err() && get(5, 1));
        assert!(cache.0.lock().iter().map(|(_, table)| table.len()).sum::<usize>() <= ENTRIES_MAX);
    }
}
