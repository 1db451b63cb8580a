//! Random histories, spread over tables and runs in every way, against the model.

use super::{
    Fixture, Random, entries_of, for_seeds,
    model::{BLOCKS, Model},
    table,
};
use crate::{
    Error,
    error::Damage,
    index::{Content, Entry, KeepAll, LostRange, Merge, MergeStep, Piece, View},
    units::{Block, ExtentId, Seq, VolumeId},
};
use std::sync::Arc;

/// Spreads entries over tables and runs: by time as in a store at work, or at random, so that all overlap.
fn spread(random: &mut Random, fixture: &Fixture, entries: &[Entry]) -> View {
    let parts = 1 + random.pick(7);
    let mut shares: Vec<Vec<Entry>> = vec![Vec::new(); parts];
    let by_time = random.one_in(2);
    for (index, entry) in entries.iter().enumerate() {
        let part = if by_time { index * parts / entries.len() } else { random.pick(parts) };
        shares[part].push(*entry);
        if random.one_in(50) {
            // The same entry in two places, as after a table was sealed and before it is let go.
            shares[random.pick(parts)].push(*entry);
        }
    }
    let mut view = View::default();
    for share in &mut shares {
        share.sort_by_key(|entry| entry.key);
        share.dedup();
        if random.one_in(4) {
            view.memtables.push(table(share));
        } else {
            let offset = 4096 * random.below(3);
            let run = fixture.run(share, 64 << 10 << random.below(3), offset);
            view.runs.insert(random.pick(view.runs.len() + 1), run);
        }
    }
    view
}

fn check_image(pieces: &[Piece], image: &[Option<Entry>], first: u64, blocks: u64) {
    let stored = |entry: &Option<Entry>| entry.filter(|entry| matches!(entry.content, Content::Data { .. }));
    let mut seen = vec![false; usize::try_from(blocks * 8).unwrap()];
    let mut last = None;
    let mut zero_end = None;
    for piece in pieces {
        let (start, sectors): (u64, Vec<u64>) = match *piece {
            Piece::Zero { start, sectors } => {
                assert_ne!(zero_end, Some(start.get()), "neighbouring zeroes are one piece");
                zero_end = Some(start.get() + sectors);
                (start.get(), (start.get()..start.get() + sectors).collect())
            }
            Piece::Data { block, take, .. } => {
                let taken = (0..8).filter(|sector| take >> sector & 1 == 1);
                let sectors: Vec<u64> = taken.map(|sector| block.get() * 8 + sector).collect();
                (sectors[0], sectors)
            }
        };
        assert!(last < Some(start), "pieces ascend");
        last = Some(start);
        for sector in sectors {
            let place = usize::try_from(sector - first * 8).unwrap();
            assert!(!std::mem::replace(&mut seen[place], true), "sector {sector} twice");
            let expected = stored(&image[usize::try_from(sector).unwrap()]);
            match (*piece, expected) {
                (Piece::Zero { .. }, None) => {}
                (Piece::Data { mask, segment, sector, digest, seq, .. }, Some(entry)) => {
                    assert_eq!(Content::Data { segment, sector, digest }, entry.content);
                    assert_eq!((mask, seq), (entry.mask, entry.key.seq()));
                }
                (piece, expected) => panic!("sector {sector}: {piece:?} instead of {expected:?}"),
            }
        }
    }
    assert!(seen.iter().all(|seen| *seen), "every sector is answered");
}

/// Asks a view everything and compares with the model.
fn check_view(random: &mut Random, view: &View, model: &Model) {
    for _ in 0..6 {
        let volume = VolumeId::new(u16::try_from(1 + random.below(3)).unwrap());
        let at = model.random_seq(random);
        let image = model.image(volume, at);
        for _ in 0..8 {
            let first = random.below(BLOCKS);
            let longest = if random.one_in(2) { 4 } else { BLOCKS - first };
            let blocks = (1 + random.below(longest)).min(BLOCKS - first);
            let mut pieces = Vec::new();
            view.resolve(volume, Block::new(first), blocks, at, &mut pieces).unwrap();
            check_image(&pieces, &image, first, blocks);

            let found = view.next_data(volume, Block::new(first), Block::new(first + blocks), at).unwrap();
            let is_data = |block: &u64| {
                let sectors = usize::try_from(*block * 8).unwrap()..usize::try_from(*block * 8 + 8).unwrap();
                image[sectors].iter().flatten().any(|entry| matches!(entry.content, Content::Data { .. }))
            };
            assert_eq!(found.map(Block::get), (first..first + blocks).find(is_data));
        }
        let (from, to) = (model.random_seq(random), model.random_seq(random));
        let bytes = if random.one_in(3) { random.below(BLOCKS * 8) * 512 } else { BLOCKS * 4096 };
        let changed: Vec<_> = view.changed(volume, from, to, bytes).unwrap().map(Result::unwrap).collect();
        assert_eq!(
            changed,
            model.changed(volume, from, to, bytes),
            "volume {volume} ({from}, {to}] of {bytes}"
        );
    }
}

/// Goal: reads, searches for data and lists of changes give what the versions say, however they are spread.
/// Method: random histories with partial blocks, ranges of all widths and two volumes, in tables and runs that follow each
/// other in time or overlap wildly, against the model.
#[test]
fn a_view_answers_as_the_list_of_all_versions_does() {
    for_seeds(150, |random| {
        let fixture = Fixture::new();
        let writes = 1 + random.below(400);
        let model = Model::random(random, writes, 2);
        let view = spread(random, &fixture, &model.entries);
        check_view(random, &view, &model);
        let sorted = View::new(view.memtables.clone(), view.runs.clone(), Vec::new());
        check_view(random, &sorted, &model);
    });
}

/// Goal: every version of a block that is written all the time is told apart from its neighbours. Method: short histories of
/// three blocks and their parts, at every seq.
#[test]
fn blocks_that_are_written_all_the_time_are_right_at_every_seq() {
    for_seeds(200, |random| {
        let fixture = Fixture::new();
        let writes = 1 + random.below(60);
        let model = Model::narrow(random, writes);
        let view = spread(random, &fixture, &model.entries);
        for at in 0..=model.newest + 1 {
            let at = Seq::new(at);
            let image = model.image(VolumeId::new(1), at);
            let mut pieces = Vec::new();
            view.resolve(VolumeId::new(1), Block::ZERO, 4, at, &mut pieces).unwrap();
            check_image(&pieces, &image, 0, 4);
            let found = view.next_data(VolumeId::new(1), Block::ZERO, Block::new(4), at).unwrap();
            let is_data = |entry: &&Entry| matches!(entry.content, Content::Data { .. });
            let first = image.iter().flatten().find(is_data).map(|entry| entry.key.block);
            assert_eq!(found, first, "at {at}");
        }
    });
}

/// Goal: a merge holds exactly what its inputs hold, and answers the same. Method: random runs, merged in steps of random
/// size, against the sorted list without repetitions, and the view of the merged run against the model.
#[test]
fn a_merged_run_is_the_union_of_its_inputs() {
    for_seeds(80, |random| {
        let fixture = Fixture::new();
        let writes = 1 + random.below(600);
        let model = Model::random(random, writes, 2);
        let mut view = spread(random, &fixture, &model.entries);
        for table in view.memtables.drain(..) {
            let mut entries = Vec::new();
            table
                .for_each(|entry| {
                    entries.push(*entry);
                    Ok(())
                })
                .unwrap();
            view.runs.push(fixture.run(&entries, 64 << 10, 0));
        }
        let mut merge = Merge::new(view.runs.clone(), 2, fixture.place(8192), KeepAll).unwrap();
        let merged = loop {
            match merge.step(1 + random.below(500)).unwrap() {
                MergeStep::More { done, total } => assert!(done <= total),
                MergeStep::Finished(meta) => break fixture.open(meta),
            }
        };
        assert!(merge.step(1).is_err(), "a merge ends once");
        merged.verify().unwrap();
        let mut expected = model.entries.clone();
        expected.sort_by_key(|entry| entry.key);
        assert_eq!(entries_of(&merged).unwrap(), expected);
        check_view(random, &View::new(Vec::new(), vec![merged], Vec::new()), &model);
    });
}

/// Goal: what a lost frame may have written is refused and nothing else is. Method: every point of a short history around
/// a lost range of seqs; a sector is known when it was written at or after the last lost seq that the point sees.
#[test]
fn sectors_that_a_lost_frame_may_have_written_are_refused() {
    for_seeds(60, |random| {
        let fixture = Fixture::new();
        let is_narrow = random.one_in(2);
        let model = if is_narrow { Model::narrow(random, 60) } else { Model::random(random, 300, 1) };
        let mut view = spread(random, &fixture, &model.entries);
        let from_seq = Seq::new(1 + random.below(model.newest));
        let to_seq = Seq::new(from_seq.get() + random.below(5));
        let damage = Damage {
            extent: ExtentId::new(7),
            file: "seven".to_owned(),
            offset: 4096,
            length: 4096,
            from_seq,
            to_seq,
            what: "frame".to_owned(),
        };
        view.lost.push(LostRange { from_seq, to_seq, damage: damage.clone() });
        let volume = VolumeId::new(1);
        for _ in 0..100 {
            let at = Seq::new(random.below(model.newest + 3));
            let image = model.image(volume, at);
            let block = random.below(if is_narrow { 3 } else { BLOCKS });
            let sectors = usize::try_from(block * 8).unwrap()..usize::try_from(block * 8 + 8).unwrap();
            let known = at < from_seq
                || image[sectors]
                    .iter()
                    .all(|entry| entry.is_some_and(|entry| entry.key.seq() >= to_seq.min(at)));
            let mut pieces = Vec::new();
            match view.resolve(volume, Block::new(block), 1, at, &mut pieces) {
                Ok(()) => {
                    assert!(known);
                    check_image(&pieces, &image, block, 1);
                }
                Err(Error::Damaged(found)) => {
                    assert!(!known);
                    assert_eq!(*found, damage);
                }
                Err(error) => panic!("{error}"),
            }
            let next = view.next_data(volume, Block::new(block), Block::new(BLOCKS), at).unwrap();
            assert!(
                at < from_seq || next == Some(Block::new(block)),
                "a restore must look where damage may hide data"
            );
            let changed = view.changed(volume, at, Seq::new(model.newest), BLOCKS * 4096);
            assert_eq!(changed.is_err(), at < to_seq && from_seq.get() <= model.newest);
        }
    });
}

/// Goal: holes cost nothing for their size. Method: an empty volume and a wholly discarded one of the largest size, in one
/// call each, with a lone block of data at the end.
#[test]
fn holes_of_the_largest_volume_are_answered_at_once() {
    let fixture = Fixture::new();
    let blocks = crate::limits::VOLUME_BYTES_MAX / 4096;
    let volume = VolumeId::new(4);
    let data = |block: u64, seq| Entry {
        key: crate::index::Key::new(
            volume,
            crate::index::Cell { block: Block::new(block), level: 0 },
            Seq::new(seq),
        ),
        mask: 0xFF,
        content: Content::Data { segment: ExtentId::new(3), sector: 9, digest: 5 },
    };
    let old: Vec<Entry> = (0..3000).map(|index| data(index * 1_000_003, 1)).collect();
    let range = crate::units::SectorRange { start: crate::units::Sector::ZERO, sectors: blocks * 8 };
    let discards: Vec<Entry> = crate::index::cells_of(range)
        .map(|(cell, mask)| Entry {
            key: crate::index::Key::new(volume, cell, Seq::new(2)),
            mask,
            content: Content::Discarded,
        })
        .collect();
    let runs = vec![
        fixture.run(&old, 1 << 20, 0),
        fixture.run(&discards, 1 << 20, 0),
        fixture.run(&[data(blocks - 1, 3)], 1 << 20, 0),
    ];
    let view = View::new(Vec::new(), runs, Vec::new());
    let resolve = |volume, at| {
        let mut pieces = Vec::new();
        view.resolve(volume, Block::ZERO, blocks, Seq::new(at), &mut pieces).unwrap();
        pieces
    };
    assert_eq!(resolve(VolumeId::new(9), 3).len(), 1, "never written");
    assert_eq!(resolve(volume, 2).len(), 1, "discarded");
    let pieces = resolve(volume, 3);
    assert!(matches!(pieces[..], [Piece::Zero { .. }, Piece::Data { .. }]), "{pieces:?}");
    assert_eq!(resolve(volume, 1).iter().filter(|piece| matches!(piece, Piece::Data { .. })).count(), 3000);
    let end = Block::new(blocks);
    assert!(view.resolve(volume, end, 0, Seq::new(3), &mut Vec::new()).is_ok(), "nothing at the end");
    assert!(view.resolve(volume, end, 1, Seq::new(3), &mut Vec::new()).is_err(), "one block past the end");
    let changed: Vec<_> =
        view.changed(volume, Seq::new(1), Seq::new(3), blocks * 4096).unwrap().map(Result::unwrap).collect();
    assert_eq!(changed, [crate::index::ByteExtent { offset: 0, length: blocks * 4096 }]);
}

/// Goal: a table can be read while it grows. Method: one thread inserts batches that belong together, others resolve points
/// that are complete and must see all of them.
#[test]
fn a_table_is_read_while_another_thread_inserts() {
    let growing = Arc::new(crate::index::MemTable::new());
    let view = View::new(vec![growing.clone()], Vec::new(), Vec::new());
    let done = std::sync::atomic::AtomicU64::new(0);
    let entry = |block: u64, seq: u64| Entry {
        key: crate::index::Key::new(
            VolumeId::new(1),
            crate::index::Cell { block: Block::new(block), level: 0 },
            Seq::new(seq),
        ),
        mask: 0xFF,
        content: Content::Data { segment: ExtentId::new(1), sector: 1, digest: seq },
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = done.load(std::sync::atomic::Ordering::Acquire);
                    let mut pieces = Vec::new();
                    view.resolve(VolumeId::new(1), Block::ZERO, 20, Seq::new(at), &mut pieces).unwrap();
                    let right = pieces.iter().all(|piece| match piece {
                        Piece::Data { seq, .. } => seq.get() == at,
                        Piece::Zero { .. } => at == 0,
                    });
                    assert!(right, "at {at}: {pieces:?}");
                    let found = view.next_data(VolumeId::new(1), Block::ZERO, Block::new(20), Seq::new(at));
                    assert_eq!(found.unwrap().is_some(), at > 0);
                    if at == 2000 {
                        break;
                    }
                }
            });
        }
        for seq in 1..=2000 {
            let batch: Vec<Entry> = (0..20).map(|block| entry(block, seq)).collect();
            growing.insert(&batch).unwrap();
            done.store(seq, std::sync::atomic::Ordering::Release);
        }
    });
}
