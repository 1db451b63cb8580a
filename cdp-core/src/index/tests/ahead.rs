//! Reading ahead: how many reads a walk and a search take, and what damage beside a leaf does.

use super::{Random, STORE, entries_of, runs::entry};
use crate::{
    Error,
    index::{Entry, PageCache, Run, RunContext, RunMeta, RunWriter},
    io::{Storage, simulated::SimulatedStorage},
    units::ExtentId,
};
use std::sync::Arc;

const ENTRIES: u64 = 60_000;
const EXTENT: ExtentId = ExtentId::new(100);

fn run_of(storage: &SimulatedStorage) -> (RunMeta, Vec<Entry>) {
    let entries: Vec<Entry> = (0..ENTRIES).map(|block| entry(1, block, 1, 1)).collect();
    let place = storage.clone();
    let place = Box::new(move || Ok((EXTENT, place.create(EXTENT, 4096).unwrap(), 0)));
    let mut writer = RunWriter::with_piece_bytes(STORE, 1, 64 << 20, place);
    entries.iter().for_each(|entry| writer.push(entry).unwrap());
    (writer.finish().unwrap(), entries)
}

/// The run with nothing in memory, and a cache of so many bytes.
fn open(storage: &SimulatedStorage, meta: &RunMeta, cache: u64) -> Run {
    let pages = Arc::new(PageCache::new(cache));
    Run::new(meta.clone(), RunContext { store: STORE, storage: Arc::new(storage.clone()), pages })
}

/// Goal: a walk in order takes few reads, a search takes one, and both find what is there. Method: calls of the storage of a walk over
/// some 350 leaves, with a cache for all and one for few; then of searches far from each other.
#[test]
fn a_walk_reads_in_long_pieces_and_a_search_one_page() {
    let storage = SimulatedStorage::new(1);
    let (meta, entries) = run_of(&storage);
    let pages = u64::from(meta.pieces[0].pages);
    for (cache, calls_max) in [(32 << 20, pages / 10), (256 << 10, pages / 3)] {
        let before = storage.calls();
        let run = open(&storage, &meta, cache);
        assert_eq!(entries_of(&run).unwrap(), entries);
        let calls = storage.calls() - before;
        assert!(calls <= calls_max, "{calls} calls for {pages} pages with a cache of {cache} bytes");
    }
    let run = open(&storage, &meta, 32 << 20);
    let find = |block: u64| run.cursor().seek(&entry(1, block, 1, 1).key).unwrap();
    // The inner pages first.
    (0..ENTRIES).step_by(20_000).for_each(|block| assert!(find(block).is_some()));
    let before = storage.calls();
    for number in 1..20 {
        assert_eq!(find(number * 3_000 + 500), Some(entry(1, number * 3_000 + 500, 1, 1)));
    }
    assert!(storage.calls() - before <= 22, "{} calls for 19 searches", storage.calls() - before);
}

/// Goal: damage is met by who needs the damaged page and by nobody else, read ahead or not. Method: a flipped bit in each of some leaves in turn; walks from random
/// places on end where the page begins, and searches behind it succeed.
#[test]
fn damage_that_was_read_ahead_is_in_nobodys_way() {
    let storage = SimulatedStorage::new(2);
    let (meta, entries) = run_of(&storage);
    let mut random = Random(7);
    for _ in 0..40 {
        let page = 2 + random.below(u64::from(meta.pieces[0].pages) - 8);
        let damaged = storage.fork();
        assert!(damaged.flip_bit(EXTENT, page * 4096 + 2000, 3).unwrap());
        let run = open(&damaged, &meta, 32 << 20);
        let (mut met, mut damages) = (0_usize, 0);
        while met < entries.len() {
            let mut cursor = run.cursor();
            let found = cursor.seek(&entries[met].key);
            match found {
                Ok(found) => assert_eq!(found, Some(entries[met])),
                Err(Error::Damaged(damage)) => {
                    assert_eq!(damage.offset, page * 4096, "another page is said to be damaged");
                    damages += 1;
                    met += 1;
                    continue;
                }
                Err(other) => panic!("{other}"),
            }
            met += 1;
            while let Ok(Some(next)) = cursor.next() {
                assert_eq!(next, entries[met]);
                met += 1;
            }
        }
        assert!(damages > 100, "a leaf has more entries than that: {damages}");
    }
}
