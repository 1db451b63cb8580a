//! Structures of one page.

use super::{assert_cuts_are_refused, assert_flips_are_refused};
use crate::{
    format::{
        PAGE_LEN, Uuid,
        digest::{DigestKey, crc_around},
        frame_table::{ENTRIES_PER_PAGE, FrameEntry, TablePlace, decode_page, encode_page},
        segment::SegmentHeader,
        superblock::{COPIES, Superblock},
    },
    limits::{COUNTER_END, FRAME_BYTES_MAX, SEGMENT_BYTES_MAX},
    units::{ExtentId, FrameNo, Lineage, OwnerEpoch, Seq, TimeNs, len_u64},
};
use proptest::prelude::*;

fn reseal(page: &mut [u8]) {
    let crc = crc_around(page, 8);
    page[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn superblock(numbers: [u64; 4], features: [u64; 3], store: [u8; 16], clean: bool) -> Superblock {
    Superblock {
        compat: features[0],
        read_only_compat: features[1],
        incompat: features[2],
        store: Uuid(store),
        digest_key: DigestKey(features[0] ^ 99),
        generation: numbers[0],
        owner_epoch: OwnerEpoch::new(numbers[1]),
        manifest: ExtentId::new(numbers[2]),
        manifest_bytes: numbers[3],
        clean,
    }
}

fn header(numbers: [u64; 4], store: [u8; 16], segment: [u8; 16], group: u32) -> SegmentHeader {
    SegmentHeader {
        group,
        store: Uuid(store),
        segment: Uuid(segment),
        extent: ExtentId::new(numbers[0]),
        lineage: Lineage::new(numbers[1]),
        owner_epoch: OwnerEpoch::new(numbers[2]),
        manifest_records: numbers[3],
    }
}

const PLACE: TablePlace = TablePlace { store: 7, extent: ExtentId::new(8), offset: 1 << 20 };

/// The n-th of a row of frames, each of two pages and three seqs.
fn entry(number: u64) -> FrameEntry {
    FrameEntry {
        offset: 4096 + 8192 * number,
        bytes: 8192,
        frame: FrameNo::new(50 + number),
        base_seq: Seq::new(100 + 3 * number),
        last_seq: Seq::new(103 + 3 * number),
        first_time: TimeNs::new(1_000 + number),
        last_time: TimeNs::new(1_005 + number),
        crc: 0xDEAD_0000,
        timed_records: 3,
    }
}

fn counters() -> impl Strategy<Value = [u64; 4]> {
    proptest::array::uniform4(prop_oneof![0..COUNTER_END, Just(0), Just(COUNTER_END - 1)])
}

proptest! {
    /// Goal: superblocks, segment headers and frame tables come back as they went in, and only at their own place. Method: random
    /// values with the bounds among them, in every copy.
    #[test]
    fn pages_are_read_back_as_they_were_written(
        numbers in counters(), features: [u64; 3], store: [u8; 16], segment: [u8; 16], group: u32, clean: bool,
        frames in 1..=ENTRIES_PER_PAGE as u64,
    ) {
        let superblock = superblock(numbers, features, store, clean);
        for copy in 0..COPIES {
            let page = superblock.encode(copy);
            prop_assert_eq!(Superblock::decode(&page, copy).ok(), superblock.copies().contains(&copy).then_some(superblock.clone()));
            prop_assert!(Superblock::decode(&page, (copy + 1) % COPIES).is_err());
            prop_assert_eq!(Superblock::version_of(&page), Some(1));
        }
        let header = header(numbers, store, segment, group);
        let page = header.encode();
        prop_assert_eq!(SegmentHeader::decode(&page, header.store, header.extent), Ok(header.clone()));
        let foreign = Uuid(store.map(|byte| !byte));
        prop_assert!(SegmentHeader::decode(&page, foreign, header.extent).is_err());
        prop_assert!(SegmentHeader::decode(&page, header.store, ExtentId::new(numbers[0] ^ 1)).is_err());
        let entries: Vec<FrameEntry> = (0..frames).map(entry).collect();
        let page = encode_page(&entries, PLACE);
        prop_assert_eq!(decode_page(&page, PLACE), Ok(entries));
        for elsewhere in [
            TablePlace { store: 6, ..PLACE },
            TablePlace { extent: ExtentId::new(9), ..PLACE },
            TablePlace { offset: 4096, ..PLACE },
        ] {
            prop_assert!(decode_page(&page, elsewhere).is_err());
        }
    }
}

/// Goal: no flipped bit of a page goes unnoticed, padding included, and no cut. Method: all of them.
#[test]
fn flipped_bits_and_cuts_of_a_page_are_refused() {
    let superblock = superblock([5, 2, 3, 8192], [0; 3], *b"0123456789abcdef", true).encode(2);
    assert_flips_are_refused(&superblock, |page| Superblock::decode(page, 2));
    assert_cuts_are_refused(&superblock, |page| Superblock::decode(page, 2));
    let header = header([5, 2, 3, 4], *b"0123456789abcdef", [9; 16], 0);
    let decode = |page: &[u8]| SegmentHeader::decode(page, header.store, header.extent);
    assert_flips_are_refused(&header.encode(), decode);
    assert_cuts_are_refused(&header.encode(), decode);
    let table = encode_page(&[entry(0), entry(1)], PLACE);
    assert_flips_are_refused(&table, |page| decode_page(page, PLACE));
    assert_cuts_are_refused(&table, |page| decode_page(page, PLACE));
}

/// Goal: a number that leaves no room for the next one is damage, whatever the checksum says. Method: each counter of a superblock and a
/// segment header one past its bound; reserved bytes and flags that are set, with the checksum put right.
#[test]
fn pages_with_impossible_values_are_refused() {
    for at in 0..3 {
        let mut numbers = [4, 4, 4, 4096];
        numbers[at] = COUNTER_END;
        assert!(
            Superblock::decode(&superblock(numbers, [0; 3], [1; 16], false).encode(0), 0).is_err(),
            "{at}"
        );
    }
    for at in 0..4 {
        let mut numbers = [4; 4];
        numbers[at] = COUNTER_END;
        let header = header(numbers, [1; 16], [2; 16], 0);
        assert!(SegmentHeader::decode(&header.encode(), header.store, header.extent).is_err(), "{at}");
    }
    let good = superblock([4, 4, 4, 4096], [0; 3], [1; 16], false).encode(0);
    for at in [101, 103, 104, PAGE_LEN - 1] {
        let mut page = good.clone();
        page[at] = 2;
        reseal(&mut page);
        assert!(Superblock::decode(&page, 0).is_err(), "reserved byte {at}");
    }
    let mut newer = good;
    newer[12] = 2;
    reseal(&mut newer);
    assert!(Superblock::decode(&newer, 0).is_err());
    assert_eq!(Superblock::version_of(&newer), Some(2), "an intact page of another version says so");
}

/// Goal: a frame table that no segment can have is refused, and the extremes that one can have are taken. Method: each rule at its bound and
/// one past.
#[test]
fn impossible_frame_tables_are_refused() {
    let taken = |entries: &[FrameEntry]| decode_page(&encode_page(entries, PLACE), PLACE).is_ok();
    let (first, second) = (entry(0), entry(1));
    let largest = len_u64(FRAME_BYTES_MAX);
    let last = |bytes| FrameEntry { offset: SEGMENT_BYTES_MAX - 8192, bytes, ..first };
    assert!(taken(&[first, second]));
    assert!(taken(&[FrameEntry { bytes: largest, ..first }]) && taken(&[last(8192)]));
    assert!(taken(&[FrameEntry { last_seq: first.base_seq, ..first }]));
    for (entries, what) in [
        (vec![second, first], "out of order"),
        (vec![first, first], "twice"),
        (vec![FrameEntry { offset: 0, ..first }], "over the header"),
        (vec![FrameEntry { bytes: 0, ..first }], "empty"),
        (vec![FrameEntry { bytes: largest + 4096, ..first }], "too long"),
        (vec![last(12288)], "past the end of any segment"),
        (vec![FrameEntry { bytes: 12288, ..first }, second], "overlap"),
        (vec![first, FrameEntry { frame: first.frame, ..second }], "frame numbers"),
        (vec![first, FrameEntry { base_seq: Seq::new(102), ..second }], "seqs"),
        (vec![FrameEntry { base_seq: Seq::new(104), ..first }], "seqs backwards"),
        (vec![FrameEntry { first_time: TimeNs::new(2_000), ..first }], "times backwards"),
        (vec![FrameEntry { frame: FrameNo::new(COUNTER_END), ..first }], "frame number"),
        (vec![FrameEntry { last_seq: Seq::new(COUNTER_END), ..first }], "seq"),
    ] {
        assert!(!taken(&entries), "{what}");
    }
}
