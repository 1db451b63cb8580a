//! Leaves of the index, wide and narrow.

use crate::{
    format::{
        digest::crc_around,
        leaf::{Leaf, LeafBuilder},
        packed::{KIND_ZERO, PackedContent, PackedEntry, PackedKey},
        page::{LEAF_ENTRIES_MAX, PAGE_ENTRIES, Page, PageBytes, PageIdentity, PageKind},
    },
    units::ExtentId,
};
use proptest::prelude::*;

const IDENTITY: PageIdentity = PageIdentity { store: 5, extent: ExtentId::new(6), page: 7 };
/// Where the form of a leaf stands.
const FORM: usize = 34;

/// One version of the n-th block, data or zeroes.
fn entry(block: u64, seq: u64, segment: u64, is_data: bool) -> PackedEntry {
    let content = if is_data {
        PackedContent::data(segment, 8, 0xFF, !block)
    } else {
        PackedContent::empty(KIND_ZERO, 0xFF)
    };
    PackedEntry { key: PackedKey::new(3, block, 0, seq), content }
}

/// A leaf of as many of the entries as it takes, and their number.
fn leaf_of(entries: &[PackedEntry]) -> (PageBytes, usize) {
    let mut builder = LeafBuilder::default();
    let taken = entries.iter().take_while(|entry| builder.push(entry)).count();
    let (first, page) = builder.finish(&IDENTITY);
    assert_eq!(first, entries[0].key);
    (page, taken)
}

fn with_form(mut page: PageBytes, form: u8) -> PageBytes {
    page[FORM] = form;
    let crc = crc_around(&page, 4);
    page[4..8].copy_from_slice(&crc.to_le_bytes());
    page
}

fn is_narrow(page: &PageBytes) -> bool {
    page[FORM] == 1
}

fn check(leaf: Leaf<'_>, entries: &[PackedEntry]) {
    let mut decoded = Vec::new();
    leaf.decode_into(&mut decoded);
    assert_eq!(decoded, entries);
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!((leaf.entry(index), leaf.key(index)), (*entry, entry.key));
        for age in [entry.key.age - 1, entry.key.age, entry.key.age + 1] {
            let key = PackedKey { age, ..entry.key };
            let found = entries.partition_point(|entry| entry.key < key);
            assert_eq!(leaf.lower_bound(key), found);
            assert_eq!(leaf.lower_bound_from(index.saturating_sub(3), key), found);
        }
    }
}

proptest! {
    /// Goal: a leaf gives back what was put in, in either form, finds each entry, is narrow whenever its values allow it, and never ends before it
    /// is full or a value does not fit. Method: runs of entries whose seqs and extents are spread over less and more than either form holds.
    #[test]
    fn leaves_hold_what_was_put_in(
        seq_bits in prop_oneof![Just(8u32), 30..35u32, 38..43u32],
        segment_bits in prop_oneof![Just(1u32), 14..19u32, 22..27u32],
        values in prop::collection::vec((1..40u64, any::<u64>(), any::<u64>(), prop::bool::weighted(0.8)), 1..250),
    ) {
        let mut block = 0;
        let entries: Vec<PackedEntry> = values.iter().map(|&(step, seq, segment, is_data)| {
            block += step;
            entry(block, 1 + (seq >> (64 - seq_bits)), 1 + (segment >> (64 - segment_bits)), is_data)
        }).collect();
        let (page, taken) = leaf_of(&entries);
        prop_assert_eq!(Page(&page).verify(&IDENTITY), Ok(PageKind::Leaf));
        check(Page(&page).leaf().unwrap(), &entries[..taken]);

        let spread = |of: &dyn Fn(&PackedEntry) -> Option<u64>, count: usize| {
            let values = || entries[..count].iter().filter_map(of);
            values().max().unwrap_or(0) - values().min().unwrap_or(0)
        };
        let seq_of = |entry: &PackedEntry| Some(entry.key.seq());
        let segment_of = |entry: &PackedEntry| entry.content.is_data().then_some(entry.content.segment);
        let narrow = |count| spread(&seq_of, count) < 1 << 32 && spread(&segment_of, count) < 1 << 16;
        let wide = |count| spread(&seq_of, count) < 1 << 40 && spread(&segment_of, count) < 1 << 24;
        prop_assert_eq!(is_narrow(&page), narrow(taken));
        if taken < entries.len() {
            let next_fits = if narrow(taken + 1) { taken < LEAF_ENTRIES_MAX } else { wide(taken + 1) && taken < PAGE_ENTRIES };
            prop_assert!(!next_fits, "ended at {}", taken);
        }
    }
}

/// Goal: a leaf that narrow entries have filled beyond what wide ones would is finished before a value that only wide ones hold. Method: such a value
/// before and after the last entry of a wide leaf.
#[test]
fn a_leaf_that_is_too_long_to_become_wide_ends() {
    for (before, taken) in
        [(PAGE_ENTRIES - 1, PAGE_ENTRIES), (PAGE_ENTRIES, PAGE_ENTRIES), (PAGE_ENTRIES + 9, PAGE_ENTRIES + 9)]
    {
        let mut entries: Vec<_> = (0..before as u64).map(|block| entry(block, 9, 4, true)).collect();
        entries.push(entry(9999, 9 + (1 << 32), 4, true));
        let (page, count) = leaf_of(&entries);
        assert_eq!((count, is_narrow(&page)), (taken, taken == before));
        assert_eq!(Page(&page).verify(&IDENTITY), Ok(PageKind::Leaf));
        check(Page(&page).leaf().unwrap(), &entries[..count]);
    }
}

/// Goal: the form of a page is one that it can have. Method: each other form with the checksum put right, on leaves of both forms and on an inner page.
#[test]
fn other_forms_are_refused() {
    let narrow: Vec<_> = (0..200).map(|block| entry(block, 1 + block, 4, true)).collect();
    let wide: Vec<_> = (0..200).map(|block| entry(block, 1 + (block << 30), 4, true)).collect();
    let mut inner = crate::format::page::InnerBuilder::default();
    inner.push(narrow[0].key, 1);
    for (page, own) in [(leaf_of(&narrow).0, 1), (leaf_of(&wide).0, 0), (inner.finish(1, &IDENTITY).1, 0)] {
        for form in 0..=255 {
            assert_eq!(Page(&with_form(page, form)).verify(&IDENTITY).is_ok(), form == own, "{form}");
        }
    }
}
