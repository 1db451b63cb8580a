//! Index pages: 4 KiB, little endian, entries of one length, searched in place.
//!
//! ```text
//!  0  magic u32          "CIX1"
//!  4  crc u32            CRC-32 of all 4096 bytes, these four as zero
//!  8  store u64          identity: a misdirected or stale page is noticed
//! 16  extent u64
//! 24  page u32           number of the page in its extent
//! 28  kind u8            1 leaf, 2 inner, 3 trailer
//! 29  height u8          leaf 0, inner 1 and up, trailer 0
//! 30  count u16          entries
//! 32  volume u16         of all entries of a leaf; else 0
//! 34  form u8            leaf: 0 wide entries, 1 narrow ones; else 0
//! 35  reserved u8        0
//! 36  span u32           leaf: distance of the last entry's block from base block; else 0
//! 40  base block u64     leaf: block of the first entry; else 0
//! 48  base seq u64       leaf: smallest seq; else 0
//! 56  base segment u64   leaf: smallest segment of data entries; else 0
//! 64  entries of 24 bytes, narrow ones of 22, then zeroes
//!
//! leaf   block - base:32 | 7 - level:3 | mask:8 | sector:17 | kind:2 | 0:2
//!  wide    seq - base:40 | segment - base:24
//!          digest:64
//!  narrow  digest:64
//!          seq - base:32 | segment - base:16
//! inner  first cell of the child:64, first age of the child:64 (see `packed`), child page:32 | 0:32
//! ```
//! Invariants. *one volume*: a leaf holds one volume. *order*: entries ascend strictly. *canonical*: each entry passes
//! [`PackedEntry::check`](super::packed::PackedEntry::check). *relative*: a leaf is cut before a relative value would overflow; one entry always fits.
//! A leaf whose relative values allow it has narrow entries, which nearly every leaf does: that takes 2^32 seqs between its newest version and its
//! oldest, or 2^16 extents.
//! All of them are checked by [`Page::verify`], which answers what is wrong; what it accepted is read without failing.

use crate::{
    format::{digest::crc_around, leaf::Leaf, packed::PackedKey},
    units::{ExtentId, len_u64, to_len},
};

/// Bytes of a page, as a length in memory.
pub const PAGE_LEN: usize = 4096;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Most entries of an inner page, and of a leaf with wide entries.
pub const PAGE_ENTRIES: usize = (PAGE_LEN - HEADER_LEN) / ENTRY_LEN;
/// Most entries of any page: those of a leaf with narrow ones.
pub const LEAF_ENTRIES_MAX: usize = (PAGE_LEN - HEADER_LEN) / NARROW_LEN;

const MAGIC: u32 = u32::from_le_bytes(*b"CIX1");
pub(super) const HEADER_LEN: usize = 64;
pub(super) const ENTRY_LEN: usize = 24;
pub(super) const NARROW_LEN: usize = 22;
const FORM_WIDE: u8 = 0;
pub(super) const FORM_NARROW: u8 = 1;
pub(super) const KIND_LEAF: u8 = 1;
const KIND_INNER: u8 = 2;
/// The kind of the page that closes a piece.
pub(super) const KIND_TRAILER: u8 = 3;

const _: () = assert!(HEADER_LEN + PAGE_ENTRIES * ENTRY_LEN == PAGE_LEN);

/// Where a page is: part of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageIdentity {
    /// Id of the store.
    pub store: u64,
    /// Extent that holds the page.
    pub extent: ExtentId,
    /// Number of the page in the extent.
    pub page: u32,
}

/// What a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Entries.
    Leaf,
    /// First keys and numbers of child pages, at this height above the leaves.
    Inner(u8),
    /// The end of a piece.
    Trailer,
}

/// The bytes of a page.
pub type PageBytes = [u8; PAGE_LEN];

/// An empty page of a kind.
pub(super) fn empty_page(kind: u8, height: u8, identity: &PageIdentity) -> PageBytes {
    let mut page = [0; PAGE_LEN];
    put(&mut page, 0, &MAGIC.to_le_bytes());
    put(&mut page, 8, &identity.store.to_le_bytes());
    put(&mut page, 16, &identity.extent.get().to_le_bytes());
    put(&mut page, 24, &identity.page.to_le_bytes());
    put(&mut page, 28, &[kind, height]);
    page
}

pub(super) fn put(page: &mut PageBytes, at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Puts the checksum on a page that is complete.
pub(super) fn seal(page: &mut PageBytes) {
    let crc = crc_around(page, 4);
    put(page, 4, &crc.to_le_bytes());
}

/// A page. One that comes from storage is read only after [`Page::verify`].
#[derive(Clone, Copy, Debug)]
pub struct Page<'a>(pub &'a PageBytes);

impl<'a> Page<'a> {
    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(super) fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
    }

    /// Checks everything that can be checked of one page: checksum, identity, reserved bytes, every entry and their order.
    ///
    /// # Errors
    /// What is wrong.
    pub fn verify(&self, identity: &PageIdentity) -> Result<PageKind, &'static str> {
        if self.u32(4) != crc_around(self.0, 4) {
            return Err("index page with a wrong checksum");
        }
        if self.u32(0) != MAGIC {
            return Err("not an index page");
        }
        let found =
            PageIdentity { store: self.u64(8), extent: ExtentId::new(self.u64(16)), page: self.u32(24) };
        if found != *identity {
            return Err("index page that belongs elsewhere");
        }
        let entries_max = match (self.0[28], self.0[34]) {
            (_, FORM_WIDE) => PAGE_ENTRIES,
            (KIND_LEAF, FORM_NARROW) => LEAF_ENTRIES_MAX,
            _ => return Err("index page of an unknown form"),
        };
        if self.0[35] != 0 || self.len() > entries_max {
            return Err("index page with an impossible header");
        }
        match (self.0[28], self.0[29]) {
            (KIND_LEAF, 0) => Leaf::of(*self).verify().map(|()| PageKind::Leaf),
            (KIND_INNER, height @ 1..) => Inner(*self).verify().map(|()| PageKind::Inner(height)),
            (KIND_TRAILER, 0) if self.len() == 0 && self.0[32..HEADER_LEN].iter().all(|byte| *byte == 0) => {
                Ok(PageKind::Trailer)
            }
            _ => Err("index page of an unknown kind"),
        }
    }

    /// The page as a leaf, if it is one.
    pub fn leaf(&self) -> Option<Leaf<'a>> {
        (self.0[28] == KIND_LEAF).then(|| Leaf::of(*self))
    }

    /// The page as an inner page of this height, if it is one.
    pub fn inner(&self, height: u8) -> Option<Inner<'a>> {
        (self.0[28] == KIND_INNER && self.0[29] == height).then_some(Inner(*self))
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.u16(30))
    }

    pub(super) fn rest_is_zero(&self, entry_len: usize) -> bool {
        self.0[HEADER_LEN + self.len() * entry_len..].iter().all(|byte| *byte == 0)
    }

    /// A word of an entry of an inner page.
    fn word(&self, index: usize, word: usize) -> u64 {
        self.u64(HEADER_LEN + index * ENTRY_LEN + word * 8)
    }
}

/// Index of the last of `len` ascending keys that is not after `key`, or 0 when all are.
pub(crate) fn last_at_or_before(len: usize, key: PackedKey, key_at: impl Fn(usize) -> PackedKey) -> usize {
    let (first, last) = (key_at(0).cell, key_at(len - 1).cell);
    let Some(value) = key.cell.checked_sub(first) else { return 0 };
    // Brackets the place from a guess by proportion, then halves.
    let guess = proportion(value.min(last - first), last - first, len);
    let (mut low, mut high, mut step) = (guess, guess, 1);
    while low > 0 && key_at(low) > key {
        (high, low) = (low, low.saturating_sub(step));
        step *= 2;
    }
    while high < len && key_at(high) <= key {
        (low, high) = (high, (high + step).min(len));
        step *= 2;
    }
    while low + 1 < high {
        let middle = usize::midpoint(low, high);
        if key_at(middle) <= key {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// The index among `len` things, spread over `0..=span`, that is about `value`.
pub(crate) fn proportion(value: u64, span: u64, len: usize) -> usize {
    // So that the product stays below 2^64; what is lost does not matter.
    let shift = (64 - span.leading_zeros()).saturating_sub(48);
    let index = (value >> shift) * len_u64(len) / ((span >> shift) + 1);
    to_len(index.min(len_u64(len) - 1))
}

/// A verified inner page.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'a>(Page<'a>);

impl Inner<'_> {
    /// Number of children, at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// First key of a child.
    pub fn key(&self, index: usize) -> PackedKey {
        PackedKey { cell: self.0.word(index, 0), age: self.0.word(index, 1) }
    }

    /// Page number of a child.
    pub fn child(&self, index: usize) -> u32 {
        self.0.u32(HEADER_LEN + index * ENTRY_LEN + 16)
    }

    /// Index of the only child that can hold `key`: the last one that begins at or before it, else the first.
    pub fn child_for(&self, key: PackedKey) -> usize {
        last_at_or_before(self.len(), key, |index| self.key(index))
    }

    fn verify(&self) -> Result<(), &'static str> {
        if self.len() == 0
            || self.0.0[32..HEADER_LEN].iter().any(|byte| *byte != 0)
            || !self.0.rest_is_zero(ENTRY_LEN)
        {
            return Err("inner index page with an impossible header");
        }
        for index in 0..self.len() {
            if !self.key(index).is_valid() || self.0.word(index, 2) >> 32 != 0 {
                return Err("inner index page with an impossible entry");
            }
            if index > 0 && self.key(index) <= self.key(index - 1) {
                return Err("inner index page that is out of order");
            }
        }
        Ok(())
    }
}

/// Collects the children of one inner page.
#[derive(Debug, Default)]
pub struct InnerBuilder {
    children: Vec<(PackedKey, u32)>,
}

impl InnerBuilder {
    /// Takes a child by its first key and page number, or answers false: the page has to be finished first.
    pub fn push(&mut self, first: PackedKey, page: u32) -> bool {
        debug_assert!(self.children.last().is_none_or(|(last, _)| *last < first));
        let fits = self.children.len() < PAGE_ENTRIES;
        if fits {
            self.children.push((first, page));
        }
        fits
    }

    /// Children taken since the last page.
    pub fn children(&self) -> &[(PackedKey, u32)] {
        &self.children
    }

    /// The first key and the page of what was taken; the builder is then empty.
    ///
    /// # Panics
    /// When nothing was taken.
    pub fn finish(&mut self, height: u8, identity: &PageIdentity) -> (PackedKey, PageBytes) {
        let (first, _) = *self.children.first().expect("an inner page has at least one child");
        let mut page = empty_page(KIND_INNER, height, identity);
        put(&mut page, 30, &self.children.len().to_le_bytes()[..2]);
        for (index, (key, child)) in self.children.drain(..).enumerate() {
            let at = HEADER_LEN + index * ENTRY_LEN;
            put(&mut page, at, &key.cell.to_le_bytes());
            put(&mut page, at + 8, &key.age.to_le_bytes());
            put(&mut page, at + 16, &child.to_le_bytes());
        }
        seal(&mut page);
        (first, page)
    }
}
