//! The map in memory against a set of blocks, and its edges.

use super::*;
use crate::{Error, io::simulated::SimRng, limits::RESYNC_RUNS_MAX};
use std::collections::BTreeSet;

fn map(bytes: u64) -> DirtyMap {
    DirtyMap::new(bytes, Granularity::MIN).expect("memory for a small map")
}

fn blocks(map: &DirtyMap) -> BTreeSet<u64> {
    map.extents().flat_map(|range| map.shape().outward(range)).collect()
}

/// Goal: what is taken for one block is that block, and whatever lies in one block of the volume is. Method: every range around the borders of
/// blocks and of the volume, against the blocks that a range touches; ranges that wrap around.
#[test]
fn a_range_in_one_block_is_that_block() {
    for granularity in [4096, 16384] {
        let shape = Shape::new(5 * 4096 + 512, Granularity::new(granularity).unwrap()).unwrap();
        let borders = (0..7).flat_map(|block| [block * 4096_u64, block * 4096 + 1, block * 4096 + 4095]);
        let borders: Vec<u64> = borders.chain([shape.bytes(), u64::MAX - 1, u64::MAX]).collect();
        for (offset, end) in borders.iter().flat_map(|offset| borders.iter().map(move |end| (*offset, *end)))
        {
            let range = ByteRange::new(offset, end.wrapping_sub(offset));
            let touched = shape.outward(range);
            match shape.single(range) {
                Some(block) => assert_eq!(touched, block..block + 1, "{range:?}"),
                None => assert!(touched.end - touched.start != 1 || range.end() > shape.bytes(), "{range:?}"),
            }
        }
    }
}

/// Goal: bits at every edge are set, found, counted and cleaned alone. Method: one block each, at the edges of words, summaries, pages
/// and of 2^31 and 2^32, in a map that is sparse enough to be reserved.
#[test]
fn single_blocks_at_every_edge() {
    let size = (1u64 << 32) + 66;
    let map = map(size * 4096 - 512);
    let edges = [0, 31, 32, 63, 64, 4095, 4096, 32_255, 32_256, 262_143, 262_144].into_iter().chain([
        (1 << 31) - 1,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        size - 1,
    ]);
    for block in edges {
        map.set(ByteRange::new(block * 4096 + 1, 1));
        let bytes = if block == size - 1 { 4096 - 512 } else { 4096 };
        let range = ByteRange::new(block * 4096, bytes);
        assert_eq!(map.extents().collect::<Vec<_>>(), [range]);
        assert_eq!((map.weight(), map.next_dirty(0)), (1, Some(block)));
        assert_eq!((map.next_dirty(block), map.next_dirty(block + 1)), (Some(block), None));
        assert!(map.is_dirty(range) && !map.is_dirty(ByteRange::new(range.end(), 4096)));
        assert!(block == 0 || !map.is_dirty(ByteRange::new(0, range.offset)));
        let token = map.begin(0, u64::MAX).unwrap();
        assert_eq!(token.range(), range);
        assert!(map.is_dirty(range) && map.next_dirty(0).is_none() && map.weight() == 1);
        token.clean();
        assert!(map.is_empty() && map.weight() == 0);
    }
}

/// Goal: sizes are exact. Method: one sector, powers of two and a sector or block to either side, up to 2^50; what cannot be reserved must be
/// an error. The whole volume, then the last byte.
#[test]
fn volumes_of_every_size() {
    for shift in [9, 12, 20, 31, 32, 43, 44, 50] {
        for difference in [-4096i64, -512, 0, 512, 4096] {
            let Some(bytes) = (1u64 << shift).checked_add_signed(difference).filter(|bytes| *bytes > 0)
            else {
                continue;
            };
            let map = match DirtyMap::new(bytes, Granularity::for_size(bytes)) {
                Ok(map) => map,
                Err(Error::Io { .. }) if shift > 44 => continue,
                Err(error) => panic!("{bytes}: {error}"),
            };
            map.set(ByteRange::new(0, u64::MAX));
            assert_eq!(map.weight(), map.shape().blocks());
            assert_eq!(map.extents().collect::<Vec<_>>(), [ByteRange::new(0, bytes)]);
            let map = DirtyMap::new(bytes, Granularity::for_size(bytes)).unwrap();
            map.set(ByteRange::new(bytes - 1, u64::MAX));
            assert_eq!((map.weight(), map.next_dirty(0)), (1, Some(map.shape().blocks() - 1)));
            map.set(ByteRange::new(bytes, 1));
            map.set(ByteRange::new(0, 0));
            assert_eq!(map.weight(), 1, "past the end and nothing are nothing");
        }
    }
    for bytes in [0, 1, 513, (1 << 56) + 512, u64::MAX] {
        assert!(matches!(DirtyMap::new(bytes, Granularity::MAX), Err(Error::InvalidArgument(_))), "{bytes}");
    }
    // 2^44 bits cannot be had; either way it is no panic.
    drop(DirtyMap::new(1 << 56, Granularity::MIN));
}

/// Goal: granularities are chosen and refused as documented. Method: the bounds and one past them.
#[test]
fn granularities() {
    for bytes in [0, 1, 2048, 4097, 12_288, 1 << 21, u64::MAX] {
        assert!(matches!(Granularity::new(bytes), Err(Error::InvalidArgument(_))), "{bytes}");
    }
    assert_eq!(Granularity::new(4096).unwrap(), Granularity::MIN);
    assert_eq!(Granularity::new(1 << 20).unwrap(), Granularity::MAX);
    assert_eq!(Granularity::for_size(1 << 40), Granularity::MIN);
    assert_eq!(Granularity::for_size((1 << 40) + 512).bytes(), 8192);
    assert_eq!(Granularity::for_size(1 << 56), Granularity::MAX);
}

/// Goal: a set during resync is never lost. Method: set before, inside and after the run of a token, then end it in each way.
#[test]
fn a_set_in_resync_is_dirty_whatever_becomes_of_the_token() {
    for way in 0..4 {
        let map = map(100 * 4096);
        map.set(ByteRange::new(10 * 4096, 10 * 4096));
        let token = map.begin(0, 100).unwrap();
        map.set(ByteRange::new(15 * 4096, 1));
        assert_eq!(map.weight(), 10, "a block that is both counts once");
        assert!(map.begin(0, 100).is_none(), "one reader a block");
        match way {
            0 => token.clean(),
            1 => token.abandon(),
            2 => drop(token),
            _ => token.clean_only(ByteRange::new(0, 13 * 4096 + 4095)),
        }
        let expected: BTreeSet<u64> = match way {
            0 => [15].into(),
            3 => (13..20).collect(),
            _ => (10..20).collect(),
        };
        assert_eq!(blocks(&map), expected);
        assert_eq!(map.weight(), u64::try_from(expected.len()).unwrap());
    }
}

/// Goal: the all-dirty flag costs one store and holds until every block went through a token. Method: set it at rest, in resync and
/// when half cleaned; count the blocks that tokens give.
#[test]
fn all_dirty_holds_until_every_block_was_cleaned() {
    let size = 300_001;
    let map = map(size * 4096 - 3 * 512);
    map.set_all();
    assert_eq!(map.weight(), size);
    let token = map.begin(200_000, 1000).unwrap();
    assert_eq!((token.first_block(), token.blocks()), (200_000, 1000));
    token.clean();
    assert_eq!(map.weight(), size - 1000);
    let token = map.begin(0, 7).unwrap();
    map.set_all();
    token.clean();
    assert_eq!(map.weight(), size, "set again while in resync");
    let mut cleaned = 0;
    while let Some(token) = map.begin(0, 4096) {
        cleaned += token.blocks();
        token.clean();
    }
    assert_eq!((cleaned, map.weight(), map.is_empty()), (size, 0, true));
}

/// Goal: the number of tokens is bounded. Method: the bound, one past it, and one after one was given back.
#[test]
fn runs_in_resync_are_bounded() {
    let map = map(1 << 30);
    map.set_all();
    let mut tokens: Vec<_> = (0..RESYNC_RUNS_MAX).map(|_| map.begin(0, 2).unwrap()).collect();
    assert!(map.begin(0, 2).is_none() && map.begin(0, 0).is_none());
    tokens.swap_remove(3).clean();
    assert!(map.begin(0, 2).is_some());
}

/// Goal: merging and resizing never lose a block. Method: finer into coarser and back, other sizes; grow and shrink over partial
/// blocks, with a run in resync.
#[test]
fn merge_and_resize_round_outward() {
    let (fine, coarse) = (map(10 << 20), DirtyMap::new(10 << 20, Granularity::MAX).unwrap());
    fine.set(ByteRange::new((3 << 20) - 1, 2));
    coarse.set(ByteRange::new(7 << 20, 1));
    coarse.merge(&fine).unwrap();
    assert_eq!(blocks(&coarse), [2, 3, 7].into());
    fine.merge(&coarse).unwrap();
    assert_eq!(fine.weight(), 3 * 256);
    assert!(matches!(fine.merge(&map(11 << 20)), Err(Error::InvalidArgument(_))));
    assert!(matches!(fine.import([ByteRange::new(10 << 20, 1)]), Err(Error::OutOfRange { .. })));
    assert!(matches!(fine.import([ByteRange::new(u64::MAX, 2)]), Err(Error::OutOfRange { .. })));

    let old = map(10 * 4096 + 512);
    old.set(ByteRange::new(4096, 1));
    let token = old.begin(0, 1).unwrap();
    assert_eq!(blocks(&old.resized(10 * 4096 + 512).unwrap()), [1].into());
    assert_eq!(blocks(&old.resized(12 * 4096).unwrap()), [1, 10, 11].into());
    assert_eq!(blocks(&old.resized(512).unwrap()), [].into());
    old.set_all();
    assert_eq!(old.resized(3 * 4096).unwrap().weight(), 3);
    token.clean();
}

/// Goal: the map does what a set of blocks does. Method: random histories of every call against a `BTreeSet`, several tokens open.
#[test]
fn random_histories_agree_with_a_set_of_blocks() {
    for seed in 0..60 {
        println!("seed {seed}");
        let mut rng = SimRng::new(seed);
        let size = 1 + rng.below(20_000);
        let bytes = size * 4096 - 512 * rng.below(8);
        let map = map(bytes);
        let (mut dirty, mut open) = (BTreeSet::new(), Vec::<(InResync, BTreeSet<u64>)>::new());
        for _ in 0..300 {
            match rng.below(12) {
                0..5 => {
                    let offset = rng.below(bytes);
                    let longest = rng.pick(&[1, 4096, 300_000, bytes]);
                    let range = ByteRange::new(offset, 1 + rng.below(longest));
                    map.set(range);
                    dirty.extend(offset / 4096..range.end().min(bytes).div_ceil(4096));
                }
                5..8 => {
                    let (from, max) = (rng.below(size), 1 + rng.below(100));
                    let held: BTreeSet<u64> = open.iter().flat_map(|(_, blocks)| blocks.clone()).collect();
                    let first = dirty.range(from..).find(|block| !held.contains(block)).copied();
                    let token = map.begin(from, max);
                    assert_eq!(token.as_ref().map(InResync::first_block), first);
                    let Some(token) = token else { continue };
                    let run = (token.first_block()..).take(usize::try_from(token.blocks()).unwrap());
                    let run: BTreeSet<u64> = run.collect();
                    let next = token.first_block() + token.blocks();
                    assert!(run.is_subset(&dirty) && run.is_disjoint(&held) && token.blocks() <= max);
                    assert!(token.blocks() == max || !dirty.contains(&next) || held.contains(&next));
                    dirty.retain(|block| !run.contains(block));
                    open.push((token, run));
                }
                8..10 if !open.is_empty() => {
                    let at = usize::try_from(rng.below(open.len() as u64)).unwrap();
                    let (token, run) = open.swap_remove(at);
                    match rng.below(3) {
                        0 => token.clean(),
                        1 => {
                            token.abandon();
                            dirty.extend(run);
                        }
                        _ => {
                            let read = ByteRange::new(rng.below(bytes), rng.below(bytes));
                            let whole = read.offset.div_ceil(4096)..if read.end() >= bytes {
                                size
                            } else {
                                read.end() / 4096
                            };
                            token.clean_only(read);
                            dirty.extend(run.into_iter().filter(|block| !whole.contains(block)));
                        }
                    }
                }
                10 if rng.chance(0.1) => {
                    map.set_all();
                    dirty.extend(0..size);
                }
                _ => {}
            }
            let claim: BTreeSet<u64> =
                open.iter().flat_map(|(_, run)| run.iter()).chain(&dirty).copied().collect();
            assert_eq!(map.weight(), claim.len() as u64);
            assert_eq!(map.is_empty(), claim.is_empty());
            let at = rng.below(size);
            assert_eq!(map.next_dirty(at), dirty.range(at..).next().copied());
            if rng.chance(0.1) {
                assert_eq!(blocks(&map), claim);
                let mut words = vec![0; usize::try_from(size.div_ceil(64)).unwrap() + 1];
                map.claim_words(0, &mut words);
                let again = DirtyMap::new(bytes, Granularity::MIN).unwrap();
                again.set_words(0, &words);
                assert_eq!(blocks(&again), claim);
            }
        }
    }
}

/// Goal: nothing is lost between threads. Method: writers raise the version of a block and set it; a resync reads versions and cleans.
/// In the end every block that is not claimed must be known at its last version.
#[test]
fn writers_beside_a_resync_lose_nothing() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    const SIZE: u64 = 5000;
    let map = map(SIZE * 4096);
    let versions: Vec<AtomicU64> = (0..SIZE).map(|_| AtomicU64::new(0)).collect();
    let mut known = vec![0; versions.len()];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|seed| {
                let (map, versions) = (&map, &versions);
                scope.spawn(move || {
                    let mut rng = SimRng::new(seed);
                    for _ in 0..100_000 {
                        let block = rng.below(SIZE);
                        versions[usize::try_from(block).unwrap()].fetch_add(1, Relaxed);
                        map.set(ByteRange::new(block * 4096, 4096));
                    }
                })
            })
            .collect();
        let resync = scope.spawn(|| {
            loop {
                let last = done.load(Relaxed);
                while let Some(token) = map.begin(0, 16) {
                    let run = (token.first_block()..).take(usize::try_from(token.blocks()).unwrap());
                    for block in run.map(|block| usize::try_from(block).unwrap()) {
                        known[block] = versions[block].load(Relaxed);
                    }
                    token.clean();
                }
                if last {
                    return;
                }
            }
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Relaxed);
        resync.join().unwrap();
    });
    assert!(map.is_empty() && map.weight() == 0);
    let versions: Vec<u64> = versions.into_iter().map(AtomicU64::into_inner).collect();
    assert_eq!(known, versions);
}

fn base(map: &DirtyMap) -> Base {
    Base { device: crate::format::Uuid([3; 16]), generation: 5, shape: map.shape() }
}

/// Goal: every map comes back from its wire form, in one form, and not under another base. Method: empty, full, dense, sparse and random maps of
/// edge sizes; decode and encode again; each field of the base changed.
#[test]
fn wire_forms_come_back() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut rng = SimRng::new(seed);
        let size = rng.pick(&[1, 63, 64, 65_535, 65_536, 65_537, 131_072, 200_001]);
        let map = map(size * 4096 - 512);
        let length = rng.pick(&[1, 1, 30, 70_000]);
        for _ in 0..rng.pick(&[0, 1, 100, size]) {
            map.set(ByteRange::new(rng.below(size) * 4096, 4096 * (1 + rng.below(length))));
        }
        let token = map.begin(0, 10);
        let bytes = wire::encode(&map, base(&map));
        let again = wire::decode(&bytes, base(&map)).unwrap();
        assert_eq!(blocks(&again), blocks(&map));
        assert_eq!(wire::encode(&again, base(&map)), bytes);
        assert_eq!(wire::base_of(&bytes), Ok(base(&map)));
        drop(token);
        let other = self::map(size * 4096);
        let generation = Base { generation: 6, ..base(&map) };
        let device = Base { device: crate::format::Uuid([4; 16]), ..base(&map) };
        for wrong in [base(&other), generation, device] {
            assert!(matches!(wire::decode(&bytes, wrong), Err(Error::MapRefused(_))));
        }
        let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << rng.below(8);
        assert!(matches!(wire::decode(&flipped, base(&map)), Err(Error::MapRefused(_))), "byte {at}");
        assert!(wire::decode(&bytes[..at], base(&map)).is_err());
    }
}

/// Goal: a record is judged rightly at every cut, also where the sequence wraps. Method: write records around 2^64, cut the newest at every
/// subset of sectors, then rot each sector.
#[test]
fn torn_records_fall_back_and_rot_does_not() {
    use ring::{Record, Ring, Verdict};
    let ring = Ring { id: 9, records: 4 };
    let record = |sequence: u64| {
        let first = u32::try_from(sequence.wrapping_add(10) % 50).unwrap();
        Record { sequence, write: 1, regions: (first..first + 944).collect() }
    };
    let mut pages = vec![0; 4 * 4096];
    let place = |sequence: u64| {
        let at = ring.slot(sequence) as usize * 4096;
        at..at + 4096
    };
    assert!(matches!(ring.judge(&pages, 2000), Verdict::Lost(_)));
    for step in 0..8u64 {
        let sequence = step.wrapping_sub(5);
        let old = pages.clone();
        ring.encode(&record(sequence), &mut pages[place(sequence)]);
        if step < 4 {
            continue;
        }
        assert_eq!(ring.judge(&pages, 2000), Verdict::Record(record(sequence)));
        assert!(matches!(ring.judge(&pages, 900), Verdict::Lost(_)), "regions past the end");
        assert!(matches!(Ring { id: 8, ..ring }.judge(&pages, 2000), Verdict::Lost(_)), "an older life");
        for survivors in 0..255u32 {
            let mut torn = old.clone();
            for sector in (0..8).filter(|sector| survivors & 1 << sector != 0) {
                let range = place(sequence).start + sector * 512..place(sequence).start + (sector + 1) * 512;
                torn[range.clone()].copy_from_slice(&pages[range]);
            }
            assert_eq!(ring.judge(&torn, 2000), Verdict::Record(record(sequence.wrapping_sub(1))));
        }
        for sector in 0..32 {
            let mut rotten = pages.clone();
            rotten[sector * 512 + 100] ^= 4;
            assert!(matches!(ring.judge(&rotten, 2000), Verdict::Lost(_)));
        }
        // Sectors of two attempts at the same number are no record.
        let mut mixed = pages.clone();
        let other = Record { write: 2, regions: vec![], ..record(sequence) };
        let mut page = vec![0; 4096];
        ring.encode(&other, &mut page);
        mixed[place(sequence)][..2048].copy_from_slice(&page[..2048]);
        assert_eq!(ring.judge(&mixed, 2000), Verdict::Record(record(sequence.wrapping_sub(1))));
        // A record is missing in the middle.
        let mut gap = pages.clone();
        gap.copy_within(place(sequence.wrapping_sub(1)), place(sequence.wrapping_sub(2)).start);
        assert!(matches!(ring.judge(&gap, 2000), Verdict::Lost(_)));
    }
}
