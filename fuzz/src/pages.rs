//! Structures of one page.

use cdp_core::{
    format::{
        PAGE_LEN, Uuid,
        compacted::{CompactedHeader, decode_table, encode_table},
        digest::{DigestKey, crc_around},
        frame_table::{FrameEntry, TablePlace, decode_page, encode_page},
        leaf::{Leaf, LeafBuilder},
        packed::{PackedContent, PackedEntry, PackedKey},
        page::{InnerBuilder, Page, PageBytes, PageIdentity, PageKind},
        segment::SegmentHeader,
        superblock::Superblock,
        trailer::Trailer,
    },
    units::{ExtentId, FrameNo, Lineage, OwnerEpoch, Seq, TimeNs},
};

/// A whole page with these bytes at its beginning.
pub fn page_of(data: &[u8]) -> Vec<u8> {
    let mut page = data[..data.len().min(PAGE_LEN)].to_vec();
    page.resize(PAGE_LEN, 0);
    page
}

/// Puts the right checksum on a structure.
pub fn seal(bytes: &mut [u8], at: usize) {
    let crc = crc_around(bytes, at);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

/// Without the zeroes at the end, so that mutations hit what matters.
pub fn trimmed(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].to_vec()
}

pub fn superblock(data: &[u8]) {
    let mut page = page_of(data);
    let _ = (Superblock::version_of(data), Superblock::decode(data, 0), Superblock::version_of(&page));
    page[..8].copy_from_slice(b"CDPSTORE");
    seal(&mut page, 8);
    for copy in 0..4 {
        if let Ok(superblock) = Superblock::decode(&page, copy) {
            assert_eq!(superblock.encode(copy), page);
            assert!(superblock.copies().contains(&copy));
        }
    }
}

pub fn superblock_seeds() -> Vec<Vec<u8>> {
    let superblock = Superblock {
        compat: 0,
        read_only_compat: 0,
        incompat: 0,
        store: Uuid(*b"0123456789abcdef"),
        digest_key: DigestKey(77),
        generation: 6,
        owner_epoch: OwnerEpoch::new(3),
        manifest: ExtentId::new(9),
        manifest_bytes: 12 << 10,
        clean: true,
    };
    let odd = Superblock { generation: 7, clean: false, incompat: 5, ..superblock.clone() };
    vec![trimmed(&superblock.encode(1)), trimmed(&odd.encode(2))]
}

pub fn segment_header(data: &[u8]) {
    let mut page = page_of(data);
    let _ = SegmentHeader::decode(data, Uuid::default(), ExtentId::ZERO);
    page[..8].copy_from_slice(b"CDPSEGMT");
    seal(&mut page, 8);
    let identity = (uuid_at(&page, 16), ExtentId::new(u64_at(&page, 48)));
    if let Ok(header) = SegmentHeader::decode(&page, identity.0, identity.1) {
        assert_eq!(header.encode(), page);
        assert!(SegmentHeader::decode(&page, identity.0, identity.1.next()).is_err());
    }
}

pub fn segment_header_seeds() -> Vec<Vec<u8>> {
    let header = SegmentHeader {
        group: 0,
        store: Uuid(*b"0123456789abcdef"),
        segment: Uuid(*b"fedcba9876543210"),
        extent: ExtentId::new(12),
        lineage: Lineage::new(2),
        owner_epoch: OwnerEpoch::new(3),
        manifest_records: 44,
    };
    vec![trimmed(&header.encode())]
}

/// The header of a compacted segment, or its table when the first byte is odd.
pub fn compacted(data: &[u8]) {
    let mut page = page_of(data);
    let is_table = page[0] & 1 == 1;
    page[..8].copy_from_slice(if is_table { b"CDPCTABL" } else { b"CDPCOMPT" });
    seal(&mut page, 8);
    let _ = CompactedHeader::decode(data, Uuid::default(), ExtentId::ZERO);
    if is_table {
        let (segment, table_at) = (uuid_at(&page, 16), u64_at(&page, 32));
        if let Ok(checksums) = decode_table(&page, segment, table_at) {
            assert_eq!(encode_table(&checksums, segment, table_at), page);
        }
        return;
    }
    let identity = (uuid_at(&page, 16), ExtentId::new(u64_at(&page, 48)));
    if let Ok(header) = CompactedHeader::decode(&page, identity.0, identity.1) {
        assert_eq!(header.encode(), page);
    }
}

pub fn compacted_seeds() -> Vec<Vec<u8>> {
    let segment = Uuid(*b"fedcba9876543210");
    let header = CompactedHeader {
        store: Uuid(*b"0123456789abcdef"),
        segment,
        extent: ExtentId::new(12),
        owner_epoch: OwnerEpoch::new(3),
    };
    let (mut header, mut table) = (header.encode(), encode_table(&[7, 8], segment, 24 * 4096));
    (header[0], table[0]) = (0, 1);
    vec![trimmed(&header), trimmed(&table)]
}

pub fn frame_table(data: &[u8]) {
    let mut page = page_of(data);
    let unknown = TablePlace { store: 0, extent: ExtentId::ZERO, offset: 0 };
    let _ = decode_page(data, unknown);
    page[..8].copy_from_slice(b"CDPFTABL");
    seal(&mut page, 8);
    let place = TablePlace {
        store: u64_at(&page, 16),
        extent: ExtentId::new(u64_at(&page, 24)),
        offset: u64_at(&page, 32),
    };
    if let Ok(entries) = decode_page(&page, place) {
        assert_eq!(encode_page(&entries, place), page);
        for pair in entries.windows(2) {
            assert!(pair[0].offset + pair[0].bytes <= pair[1].offset && pair[0].last_seq <= pair[1].base_seq);
        }
    }
}

pub fn frame_table_seeds() -> Vec<Vec<u8>> {
    let entry = |number: u64| FrameEntry {
        offset: 4096 + number * 8192,
        bytes: 8192,
        frame: FrameNo::new(40 + number),
        base_seq: Seq::new(100 + number * 3),
        last_seq: Seq::new(103 + number * 3),
        first_time: TimeNs::new(1_000 + number),
        last_time: TimeNs::new(1_001 + number),
        crc: 0xABCD,
        timed_records: 3,
    };
    let place = TablePlace { store: 9, extent: ExtentId::new(4), offset: 1 << 20 };
    [1, 2, 72].map(|count| trimmed(&encode_page(&(0..count).map(entry).collect::<Vec<_>>(), place))).to_vec()
}

fn identity_of(page: &PageBytes) -> PageIdentity {
    PageIdentity {
        store: u64_at(page, 8),
        extent: ExtentId::new(u64_at(page, 16)),
        page: u32::from_le_bytes(page[24..28].try_into().expect("four bytes")),
    }
}

fn index_bytes(data: &[u8]) -> PageBytes {
    let mut page = page_of(data);
    page[..4].copy_from_slice(b"CIX1");
    seal(&mut page, 4);
    page.try_into().expect("a page")
}

pub fn index_page(data: &[u8]) {
    let bytes = index_bytes(data);
    let page = Page(&bytes);
    match page.verify(&identity_of(&bytes)) {
        Ok(PageKind::Leaf) => check_leaf(page.leaf().expect("verified as a leaf"), u64_at(&bytes, 72)),
        Ok(PageKind::Inner(height)) => {
            let inner = page.inner(height).expect("verified as an inner page");
            for child in 0..inner.len() {
                assert_eq!(inner.child_for(inner.key(child)), child);
                let _ = inner.child(child);
            }
            assert_eq!(inner.child_for(PackedKey::default()), 0);
            assert_eq!(inner.child_for(PackedKey::END), inner.len() - 1);
        }
        Ok(PageKind::Trailer) | Err(_) => {}
    }
}

/// Entries are canonical and ascend, and searches agree with a look at every entry.
fn check_leaf(leaf: Leaf<'_>, noise: u64) {
    let mut entries = Vec::new();
    leaf.decode_into(&mut entries);
    assert_eq!(entries.len(), leaf.len());
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry.check(), Ok(()));
        assert_eq!((leaf.entry(index), leaf.key(index)), (*entry, entry.key));
        assert_eq!(leaf.lower_bound(entry.key), index);
        assert_eq!(leaf.lower_bound_from(0, entry.key), index);
        let key = entry.key;
        for other in [
            PackedKey { age: key.age.wrapping_add(1), ..key },
            PackedKey { age: key.age.wrapping_sub(1), ..key },
            PackedKey { age: noise, ..key },
            PackedKey::new(key.volume(), key.block(), 7, 0),
            PackedKey::new(key.volume(), noise >> 20, 0, noise >> 1),
            PackedKey::before(key.volume().wrapping_add(1), key.block()),
        ] {
            if other.seq() < 1 << 63 {
                let slow = entries.partition_point(|entry| entry.key < other);
                assert_eq!(leaf.lower_bound(other), slow, "{other:?}");
            }
        }
    }
    assert!(entries.is_sorted_by(|left, right| left.key < right.key));
}

pub fn index_page_seeds() -> Vec<Vec<u8>> {
    let identity = PageIdentity { store: 5, extent: ExtentId::new(6), page: 7 };
    let mut leaf = LeafBuilder::default();
    let mut inner = InnerBuilder::default();
    for number in 0..20u64 {
        let content = if number % 3 == 0 {
            PackedContent::empty(1, 0xFF)
        } else {
            PackedContent::data(20 + number % 4, 800, 0x3C, 99)
        };
        let key = PackedKey::new(2, 16 * number, u8::from(number % 3 == 0), 50 - number);
        leaf.push(&PackedEntry { key, content });
        inner.push(key, 70);
    }
    let narrow = leaf.finish(&identity).1;
    for number in 0..20u64 {
        let content = PackedContent::data(20 + (number << 17), 800, 0x3C, 99);
        leaf.push(&PackedEntry { key: PackedKey::new(2, number, 0, 50), content });
    }
    [narrow, leaf.finish(&identity).1, inner.finish(1, &identity).1]
        .iter()
        .map(|page| trimmed(page))
        .collect()
}

pub fn trailer(data: &[u8]) {
    let bytes = index_bytes(data);
    let identity = identity_of(&bytes);
    if let Ok(trailer) = Trailer::parse(&bytes, &identity) {
        assert_eq!(trailer.page(&identity), bytes);
    }
}

pub fn trailer_seeds() -> Vec<Vec<u8>> {
    let trailer = Trailer {
        first: PackedKey::new(1, 5, 0, 9),
        last: PackedKey::new(1, 900, 0, 4),
        entries: 300,
        seq_min: 2,
        seq_max: 12,
        sum: 0xFEED,
        pages: 4,
        root_page: 6,
        height: 2,
        levels: 3,
    };
    vec![trimmed(&trailer.page(&PageIdentity { store: 5, extent: ExtentId::new(6), page: 7 }))]
}
