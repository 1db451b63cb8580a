//! Runs whose bytes are not what was written.

use super::{Fixture, Random, STORE, entries_of, for_seeds};
use crate::{
    Error,
    format::{
        digest::crc_around,
        packed::{PackedEntry, PackedKey},
        page::{Page, PageBytes, PageIdentity},
        trailer::Trailer,
    },
    index::{Entry, KeepAll, Merge, PageCache, Run, tests::model::Model},
    io::{AlignedBuf, Storage},
    units::ExtentId,
};
use std::sync::Arc;

fn read(fixture: &Fixture, id: ExtentId, page: u32) -> PageBytes {
    let mut buffer = AlignedBuf::new(4096).unwrap();
    fixture.storage.open(id).unwrap().read_at(u64::from(page) * 4096, &mut buffer[..4096]).unwrap();
    *buffer.first_chunk().unwrap()
}

fn write(fixture: &Fixture, id: ExtentId, page: u32, bytes: &PageBytes) {
    let mut buffer = AlignedBuf::new(4096).unwrap();
    buffer[..4096].copy_from_slice(bytes);
    fixture.storage.open(id).unwrap().write_at(u64::from(page) * 4096, &buffer[..4096]).unwrap();
}

/// The same run with nothing in memory.
fn reopen(fixture: &Fixture, run: &Run) -> Arc<Run> {
    let mut context = fixture.context();
    context.pages = Arc::new(PageCache::new(0));
    Arc::new(Run::new(run.meta().clone(), context))
}

fn is_damage_of<T>(result: Result<T, Error>, run: &Run, page: u32) -> bool {
    match result {
        Err(Error::Damaged(damage)) => {
            let piece = &run.meta().pieces[0];
            assert_eq!(
                (damage.extent, damage.from_seq, damage.to_seq),
                (piece.extent, piece.seq_min, piece.seq_max)
            );
            damage.offset <= u64::from(page) * 4096 && u64::from(page) * 4096 < damage.offset + damage.length
        }
        _ => false,
    }
}

fn small_run(fixture: &Fixture, writes: u64) -> (Arc<Run>, Vec<Entry>) {
    let mut model = Model::random(&mut Random(writes), writes, 2);
    model.entries.sort_by_key(|entry| entry.key);
    (fixture.run(&model.entries, 0, 4096), model.entries)
}

/// Goal: no single flipped bit of a run goes unnoticed, and none gives a wrong entry. Method: every bit of every page of a
/// small run; a check must name the page, a walk must fail there or, for the trailer, which it does not need, be right.
#[test]
fn every_flipped_bit_of_a_run_is_noticed() {
    let fixture = Fixture::new();
    let (run, entries) = small_run(&fixture, 55);
    let piece = run.meta().pieces[0].clone();
    assert_eq!(piece.pages, 4, "two leaves, the root and the trailer: {} entries", entries.len());
    for page in 1..5 {
        let good = read(&fixture, piece.extent, page);
        for bit in 0..4096 * 8 {
            let mut flipped = good;
            flipped[bit / 8] ^= 1 << (bit % 8);
            write(&fixture, piece.extent, page, &flipped);
            let again = reopen(&fixture, &run);
            match entries_of(&again) {
                Ok(read) => assert!(page == 4 && read == entries, "page {page} bit {bit}"),
                error => assert!(is_damage_of(error, &run, page), "page {page} bit {bit}"),
            }
            // The whole check reads as the walk does; every seventh bit keeps the test short.
            if bit % 7 == 0 || page == 4 {
                assert!(is_damage_of(again.verify(), &run, page), "page {page} bit {bit}");
            }
        }
        write(&fixture, piece.extent, page, &good);
    }
    assert_eq!(entries_of(&reopen(&fixture, &run)).unwrap(), entries);
}

/// Goal: damage is not remembered once it is repaired, and a failed walk says so. Method: break a page, read, mend, read.
#[test]
fn damage_is_never_cached() {
    let fixture = Fixture::new();
    let (run, entries) = small_run(&fixture, 55);
    let piece = run.meta().pieces[0].clone();
    let good = read(&fixture, piece.extent, 2);
    write(&fixture, piece.extent, 2, &[0; 4096]);
    let again = reopen(&fixture, &run);
    let mut cursor = again.cursor();
    while let Ok(found) = cursor.next() {
        assert!(found.is_some(), "the walk must not end early");
    }
    assert!(matches!(cursor.next(), Err(Error::Poisoned(_))), "a broken walk stays broken");
    write(&fixture, piece.extent, 2, &good);
    assert_eq!(entries_of(&again).unwrap(), entries);
}

/// Goal: pages of another place, extent or store, and files that are short or missing, are damage. Method: move good pages
/// about, cut the extent at each page, remove it.
#[test]
fn misplaced_missing_and_short_runs_are_damage() {
    let fixture = Fixture::new();
    let (run, _) = small_run(&fixture, 55);
    let (other, _) = small_run(&fixture, 55);
    let piece = run.meta().pieces[0].clone();
    let good: Vec<PageBytes> = (0..5).map(|page| read(&fixture, piece.extent, page)).collect();
    for page in 1..5u32 {
        let index = usize::try_from(page).unwrap();
        for stranger in [good[index % 4 + 1], read(&fixture, other.meta().pieces[0].extent, page)] {
            write(&fixture, piece.extent, page, &stranger);
            assert!(is_damage_of(reopen(&fixture, &run).verify(), &run, page), "page {page}");
        }
        write(&fixture, piece.extent, page, &good[index]);
    }
    let mut context = fixture.context();
    (context.store, context.pages) = (STORE + 1, Arc::new(PageCache::new(0)));
    assert!(
        is_damage_of(entries_of(&Run::new(run.meta().clone(), context)), &run, 1) || piece.root_page != 1
    );
    for page in (1..5u32).rev() {
        fixture.storage.open(piece.extent).unwrap().set_size(u64::from(page) * 4096).unwrap();
        assert!(is_damage_of(reopen(&fixture, &run).verify(), &run, page), "cut at page {page}");
    }
    fixture.storage.remove(piece.extent).unwrap();
    assert!(matches!(entries_of(&reopen(&fixture, &run)), Err(Error::Damaged(_))));
    assert!(matches!(reopen(&fixture, &run).verify(), Err(Error::Damaged(_))));
}

/// Goal: a merge does not carry on damage. Method: a leaf of one input that is valid but is not what the record sums up, and
/// a record with another sum.
#[test]
fn a_merge_of_an_input_that_is_not_its_record_fails() {
    let fixture = Fixture::new();
    let (run, entries) = small_run(&fixture, 55);
    let mut meta = run.meta().clone();
    meta.pieces[0].sum ^= 1;
    meta.sum ^= 1;
    let mut merge = Merge::new(vec![fixture.open(meta)], 1, fixture.place(0), KeepAll).unwrap();
    assert!(matches!(merge.step(u64::MAX), Err(Error::Damaged(_))));

    let mut changed = entries;
    let last = changed.len() - 1;
    changed[last].mask = if changed[last].mask == 1 { 2 } else { 1 };
    let twin = fixture.run(&changed, 0, 4096);
    let (from, to) = (&twin.meta().pieces[0], &run.meta().pieces[0]);
    let mut forged = read(&fixture, from.extent, 2);
    forged[16..24].copy_from_slice(&to.extent.get().to_le_bytes());
    reseal(&mut forged);
    write(&fixture, to.extent, 2, &forged);
    assert!(entries_of(&reopen(&fixture, &run)).is_ok(), "the page is valid in itself");
    assert!(is_damage_of(reopen(&fixture, &run).verify(), &run, 4), "the trailer sums up something else");
    let mut merge = Merge::new(vec![reopen(&fixture, &run)], 1, fixture.place(0), KeepAll).unwrap();
    assert!(matches!(merge.step(u64::MAX), Err(Error::Damaged(_))));
}

fn reseal(page: &mut PageBytes) {
    let crc = crc_around(page, 4);
    page[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// What every page that was accepted must do without failing.
fn use_page(random: &mut Random, page: &PageBytes, identity: &PageIdentity) -> bool {
    if Page(page).verify(identity).is_err() {
        return false;
    }
    if let Some(leaf) = Page(page).leaf() {
        let mut entries = Vec::new();
        leaf.decode_into(&mut entries);
        assert_eq!(entries.len(), leaf.len());
        assert!(entries.is_sorted_by(|left, right| left.key < right.key));
        assert!(entries.iter().all(|entry| entry.check().is_ok()));
        let each: Vec<PackedEntry> = (0..leaf.len()).map(|index| leaf.entry(index)).collect();
        assert_eq!(each, entries);
        for _ in 0..20 {
            let near = entries[random.pick(entries.len())].key;
            let key = match random.below(4) {
                0 => near,
                1 => PackedKey { age: near.age ^ random.below(4), ..near },
                2 => PackedKey::new(near.volume(), near.block() ^ random.below(64), 0, random.word() >> 1),
                _ => PackedKey { cell: random.word(), age: random.word() },
            };
            let expected = entries.partition_point(|entry| entry.key < key);
            assert_eq!(leaf.lower_bound(key), expected, "{key:?}");
            for from in [0, expected / 2, expected] {
                assert_eq!(leaf.lower_bound_from(from, key), expected, "{key:?} from {from}");
            }
        }
    }
    if let Some(inner) = Page(page).inner(page[29]) {
        for _ in 0..20 {
            let key = PackedKey { cell: random.word(), age: random.word() };
            let before = (0..inner.len()).filter(|index| inner.key(*index) <= key).count();
            assert_eq!(inner.child_for(key), before.saturating_sub(1));
        }
    }
    true
}

/// Goal: whatever the bytes of a page are, reading them gives an error or something that can be used. Method: pages of
/// random bytes and good pages with some bits changed, each with a right checksum, so that the checks behind it are met.
#[test]
fn pages_with_a_right_checksum_and_any_content_are_refused_or_usable() {
    let fixture = Fixture::new();
    let (run, _) = small_run(&fixture, 100);
    let piece = run.meta().pieces[0].clone();
    let good: Vec<PageBytes> = (1..=piece.pages).map(|page| read(&fixture, piece.extent, page)).collect();
    let accepted = std::cell::Cell::new(0);
    for_seeds(20_000, |random| {
        let index = random.pick(good.len());
        let mut page = good[index];
        let number = u32::try_from(index + 1).unwrap();
        let identity = PageIdentity { store: STORE, extent: piece.extent, page: number };
        match random.below(4) {
            0 => page[28..].iter_mut().for_each(|byte| *byte = random.word().to_le_bytes()[0]),
            1 => page[64..].iter_mut().for_each(|byte| *byte = random.word().to_le_bytes()[0]),
            _ => {
                for _ in 0..1 + random.below(3) {
                    let within = if random.one_in(2) { 64 } else { 4096 };
                    let bit = random.pick(within * 8);
                    page[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
        reseal(&mut page);
        if use_page(random, &page, &identity) {
            accepted.set(accepted.get() + 1);
        }
        if let Ok(trailer) = Trailer::parse(&page, &identity) {
            assert_eq!(trailer.page(&identity), page, "an accepted trailer is canonical");
        }
        assert!(use_page(random, &good[index], &identity));
    });
    assert!(
        accepted.get() > 500,
        "some changes leave a valid page, or nothing was tried: {}",
        accepted.get()
    );
}
