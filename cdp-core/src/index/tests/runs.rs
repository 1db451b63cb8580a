//! Runs by themselves: what is written is read, wherever pages and pieces are cut.

use super::{Fixture, Random, STORE, entries_of, for_seeds, table};
use crate::{
    Error,
    format::{
        packed::{PackedEntry, PackedKey},
        page::LEAF_ENTRIES_MAX,
    },
    index::{Cell, Content, Entry, KeepAll, Key, MemTable, Merge, Run, RunWriter},
    limits::RUN_PIECE_BYTES_MAX,
    units::{Block, ExtentId, Seq, VolumeId},
};
use std::collections::HashSet;

pub(super) fn entry(volume: u16, block: u64, seq: u64, segment: u64) -> Entry {
    Entry {
        key: Key::new(VolumeId::new(volume), Cell { block: Block::new(block), level: 0 }, Seq::new(seq)),
        mask: 0xFF,
        content: Content::Data { segment: ExtentId::new(segment), sector: 1, digest: block + 1 },
    }
}

/// Goal: a walk meets every entry, a search finds the first at or after any key, from anywhere before it. Method: runs of
/// one page, of exactly full pages and of trees of three levels in several pieces, searched forward at random steps against
/// a search of the list.
#[test]
fn searches_in_runs_of_every_shape_find_what_a_search_of_the_list_finds() {
    for (shape, count) in [1, 2, LEAF_ENTRIES_MAX - 1, LEAF_ENTRIES_MAX, LEAF_ENTRIES_MAX + 1, 2000, 60_000]
        .into_iter()
        .enumerate()
    {
        for piece_bytes in [0, 256 << 10, RUN_PIECE_BYTES_MAX] {
            let fixture = Fixture::new();
            let mut random = Random(u64::try_from(shape).unwrap());
            let mut keys = HashSet::new();
            let mut entries = Vec::new();
            while entries.len() < count {
                let volume = u16::try_from(1 + random.below(3)).unwrap();
                let skewed = random.below(64);
                let entry = entry(volume, random.below(1 << (skewed % 40)), random.below(1 << 20), 5);
                if keys.insert(entry.key) {
                    entries.push(entry);
                }
            }
            entries.sort_by_key(|entry| entry.key);
            let run = fixture.run(&entries, piece_bytes, 4096);
            assert_eq!(entries_of(&run).unwrap(), entries);
            run.verify().unwrap();
            if count == 60_000 && piece_bytes == RUN_PIECE_BYTES_MAX {
                assert_eq!(run.meta().pieces[0].height, 3);
            }
            for longest_step in [2, 200, 5000, 100_000] {
                let mut cursor = run.cursor();
                let mut at = 0;
                loop {
                    let end = Key::new(VolumeId::MAX, Cell { block: Block::MAX, level: 0 }, Seq::ZERO);
                    let mut key = entries.get(at + random.pick(longest_step)).map_or(end, |entry| entry.key);
                    if random.one_in(2) && key != end {
                        key.seq.0 = Seq::new(key.seq().get() ^ random.below(1 << 20));
                    }
                    at = at.max(entries.partition_point(|entry| entry.key < key));
                    assert_eq!(cursor.seek(&key).unwrap().as_ref(), entries.get(at), "{key:?}");
                    if random.one_in(3) && at < entries.len() {
                        at += 1;
                        assert_eq!(cursor.next().unwrap().as_ref(), entries.get(at));
                    }
                    if at >= entries.len() {
                        break;
                    }
                }
            }
        }
    }
}

/// Goal: a page is cut before a relative value overflows. Method: neighbours that are as far apart as a page can hold, and
/// one further, in each of the three relative values.
#[test]
fn entries_far_apart_are_kept_exactly() {
    let (blocks, seqs, segments) = (1u64 << 32, 1u64 << 40, 1u64 << 24);
    for off in [0, 1, 2] {
        let lists = [
            vec![entry(1, 7, 9, 3), entry(1, 7 + blocks - 2 + off, 9, 3)],
            vec![entry(1, 7, 9, 3), entry(1, 8, 9 + seqs - 2 + off, 3)],
            vec![entry(1, 7, 9 + seqs - 2 + off, 3), entry(1, 8, 9, 3)],
            vec![entry(1, 7, 9, 3), entry(1, 8, 9, 3 + segments - 2 + off)],
            vec![entry(1, 7, 9, 3 + segments - 2 + off), entry(1, 8, 9, 3)],
            vec![entry(1, 7, (1 << 63) - 1, (1 << 63) - 1), entry(u16::MAX, (1 << 44) - 1, 0, 0)],
        ];
        for (case, list) in lists.into_iter().enumerate() {
            let fixture = Fixture::new();
            let run = fixture.run(&list, 0, 0);
            assert_eq!(entries_of(&run).unwrap(), list);
            run.verify().unwrap();
            // Two leaves, a root and a trailer, or one leaf and a trailer.
            let cut = off == 2 || case == 5;
            assert_eq!(run.meta().pieces[0].pages, if cut { 4 } else { 2 }, "case {case} off {off}");
        }
    }
}

/// Goal: a piece keeps to its bound and begins where it is told. Method: the smallest bound and many pages.
#[test]
fn pieces_end_before_their_bound() {
    let fixture = Fixture::new();
    let entries: Vec<Entry> = (0..40_000).map(|block| entry(1, block, 1, 1)).collect();
    let run = fixture.run(&entries, 64 << 10, 12288);
    assert!(run.meta().pieces.len() > 15);
    for piece in &run.meta().pieces {
        assert!(piece.bytes() <= 64 << 10);
        assert_eq!(piece.offset, 12288);
        let extent = crate::io::Storage::open(&fixture.storage, piece.extent).unwrap();
        let last = u32::try_from(piece.offset / 4096).unwrap() + piece.pages - 1;
        assert_eq!(&Run::read_trailer(STORE, piece.extent, extent.as_ref(), last).unwrap(), piece);
        assert!(Run::read_trailer(STORE, piece.extent, extent.as_ref(), last - 1).is_err(), "not a trailer");
        assert!(Run::read_trailer(STORE + 1, piece.extent, extent.as_ref(), last).is_err(), "another store");
    }
    assert_eq!(entries_of(&run).unwrap(), entries);
}

/// Goal: entries that no run can hold are refused. Method: one of each kind, at the writer and at the table.
#[test]
fn impossible_entries_and_wrong_order_are_refused() {
    let fixture = Fixture::new();
    let good = entry(1, 5, 5, 5);
    let bad = [
        entry(1, 1 << 44, 5, 5),
        entry(1, 5, 1 << 63, 5),
        entry(1, 5, 5, 1 << 63),
        Entry { mask: 0, ..good },
        Entry { mask: 0b101, ..good },
        Entry { content: Content::Data { segment: ExtentId::new(1), sector: 1 << 17, digest: 1 }, ..good },
        Entry { content: Content::Data { segment: ExtentId::new(1), sector: 0, digest: 0 }, ..good },
        Entry { key: Key { level: std::cmp::Reverse(1), block: Block::new(16), ..good.key }, ..good },
        Entry {
            key: Key { level: std::cmp::Reverse(1), block: Block::new(15), ..good.key },
            content: Content::Zero,
            ..good
        },
        Entry {
            key: Key { level: std::cmp::Reverse(8), block: Block::ZERO, ..good.key },
            content: Content::Zero,
            ..good
        },
    ];
    for bad in bad {
        let mut writer = RunWriter::new(STORE, 0, fixture.place(0));
        assert!(matches!(writer.push(&bad), Err(Error::InvalidArgument(_))), "{bad:?}");
        assert!(matches!(table(&[good]).insert(&[bad]), Err(Error::InvalidArgument(_))), "{bad:?}");
    }
    for second in [good, entry(1, 4, 9, 9), entry(1, 5, 6, 9)] {
        let mut writer = RunWriter::new(STORE, 0, fixture.place(0));
        writer.push(&good).unwrap();
        assert!(matches!(writer.push(&second), Err(Error::InvalidArgument(_))), "{second:?}");
    }
    let empty = RunWriter::new(STORE, 0, fixture.place(0)).finish().unwrap();
    assert!(empty.pieces.is_empty() && empty.entries == 0);
    assert!(entries_of(&fixture.open(empty)).unwrap().is_empty());
}

/// Goal: a table takes a batch whole or not at all, and never two contents for one version. Method: a batch that repeats
/// one entry, and one that contradicts another after two good ones.
#[test]
fn a_table_takes_batches_whole() {
    let all = |table: &MemTable| {
        let mut entries = Vec::new();
        table
            .for_each(|entry| {
                entries.push(*entry);
                Ok(())
            })
            .unwrap();
        entries
    };
    let first = [entry(1, 1, 10, 1), entry(1, 2, 10, 1)];
    let table = table(&first);
    table.insert(&[first[1], entry(1, 3, 11, 1)]).unwrap();
    let before = all(&table);
    assert_eq!(before.len(), 3);
    let clash = [first[0], entry(1, 9, 30, 1), entry(1, 3, 11, 2)];
    assert!(matches!(table.insert(&clash), Err(Error::InvalidArgument(_))));
    assert_eq!(all(&table), before);
    assert_eq!(table.seqs(), Some((Seq::new(10), Seq::new(11))));

    let left = table.without(&HashSet::from([first[0].key, first[1].key]));
    assert_eq!((left.len(), left.seqs()), (1, Some((Seq::new(11), Seq::new(11)))));
    assert_eq!(table.len(), 3, "the old one stays for its readers");
}

/// Goal: a filter sees entries in order and what it drops is accounted for. Method: a filter that keeps every third.
#[test]
fn a_merge_with_a_filter_proves_what_it_dropped() {
    struct Third(u64, Option<PackedKey>);
    impl crate::index::Keep for Third {
        fn keep(&mut self, entry: &PackedEntry) -> crate::Result<Option<PackedEntry>> {
            assert!(self.1.is_none_or(|last| last < entry.key));
            self.1 = Some(entry.key);
            self.0 += 1;
            Ok((self.0 % 3 == 1).then_some(*entry))
        }
    }
    for_seeds(10, |random| {
        let fixture = Fixture::new();
        let mut shares = vec![Vec::new(); 5];
        let entries: Vec<Entry> = (0..2000).map(|block| entry(1, block, 1 + block % 7, 1)).collect();
        for entry in &entries {
            shares[random.pick(5)].push(*entry);
        }
        let runs = shares.iter().map(|share| fixture.run(share, 0, 0)).collect();
        let mut merge = Merge::new(runs, 3, fixture.place(0), Third(0, None)).unwrap();
        let crate::index::MergeStep::Finished(meta) = merge.step(u64::MAX).unwrap() else {
            panic!("one step")
        };
        let kept: Vec<Entry> = entries.iter().step_by(3).copied().collect();
        assert_eq!(entries_of(&fixture.open(meta)).unwrap(), kept);
    });
}

/// Goal: a merge refuses inputs that contradict each other. Method: one version with two places.
#[test]
fn a_merge_refuses_two_contents_for_one_version() {
    let fixture = Fixture::new();
    let runs = vec![fixture.run(&[entry(1, 5, 5, 1)], 0, 0), fixture.run(&[entry(1, 5, 5, 2)], 0, 0)];
    let mut merge = Merge::new(runs, 1, fixture.place(0), KeepAll).unwrap();
    assert!(matches!(merge.step(10), Err(Error::Damaged(_))));
}

/// Goal: the cache keeps to its bound however many read, forgets what it does not hold, and nobody waits for ever. Method:
/// four threads walk and search runs of many more leaves than the cache may hold, each with several cursors at a time; then a
/// run is let go and the rest still fits.
#[test]
fn a_small_cache_serves_many_readers_within_its_bound() {
    let mut fixture = Fixture::new();
    fixture.pages = std::sync::Arc::new(crate::index::PageCache::new(100_000));
    let entries: Vec<Entry> = (0..30_000).map(|block| entry(1, block, 1, 1)).collect();
    let runs: Vec<_> = (0..3).map(|_| fixture.run(&entries, 256 << 10, 0)).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let runs = &runs;
            scope.spawn(move || {
                let mut random = Random(thread);
                for _ in 0..300 {
                    let mut cursors: Vec<_> = runs.iter().map(|run| run.cursor()).collect();
                    let mut at = 0;
                    while at < 30_000 {
                        for cursor in &mut cursors {
                            let found = cursor.seek(&entry(1, at, 1, 1).key).unwrap();
                            assert_eq!(found, Some(entry(1, at, 1, 1)));
                        }
                        at += 1 + random.below(9_000);
                    }
                }
            });
        }
    });
    assert!(fixture.pages.bytes() > 50_000, "it is in use");
    assert!(fixture.pages.bytes() <= 100_000, "{:?}", fixture.pages);
    drop(runs);
    let run = fixture.run(&entries, 256 << 10, 0);
    assert_eq!(entries_of(&run).unwrap(), entries);
    assert!(fixture.pages.bytes() <= 100_000, "{:?}", fixture.pages);
    fixture.pages.clear();
    assert_eq!(fixture.pages.bytes(), 0);
}
