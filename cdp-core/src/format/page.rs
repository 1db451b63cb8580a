//! Index pages: 4 KiB, little endian, fixed stride, searched in place.
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
//! 34  reserved u16       0
//! 36  span u32           leaf: distance of the last entry's block from base block; else 0
//! 40  base block u64     leaf: block of the first entry; else 0
//! 48  base seq u64       leaf: smallest seq; else 0
//! 56  base segment u64   leaf: smallest segment of data entries; else 0
//! 64  entries of 24 bytes, then zeroes
//!
//! leaf   block - base:32 | 7 - level:3 | mask:8 | sector:17 | kind:2 | 0:2
//!        seq - base:40 | segment - base:24
//!        digest:64
//! inner  first cell of the child:64, first age of the child:64 (see `packed`), child page:32 | 0:32
//! ```
//! Invariants. *one volume*: a leaf holds one volume. *order*: entries ascend strictly. *canonical*: each entry passes
//! [`PackedEntry::check`]. *relative*: a leaf is cut before a relative value would overflow; one entry always fits.
//! All of them are checked by [`Page::verify`], which answers what is wrong; what it accepted is read without failing.

use crate::{
    format::{
        digest::crc_around,
        packed::{BLOCK_END, KIND_DATA, LEVEL_MAX, NUMBER_END, PackedContent, PackedEntry, PackedKey},
    },
    units::{ExtentId, len_u64, to_len},
};

/// Bytes of a page, as a length in memory.
pub const PAGE_LEN: usize = 4096;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Most entries of a page.
pub const PAGE_ENTRIES: usize = (PAGE_LEN - HEADER_LEN) / ENTRY_LEN;

const MAGIC: u32 = u32::from_le_bytes(*b"CIX1");
const HEADER_LEN: usize = 64;
const ENTRY_LEN: usize = 24;
const KIND_LEAF: u8 = 1;
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

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
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
        if self.u16(34) != 0 || self.len() > PAGE_ENTRIES {
            return Err("index page with an impossible header");
        }
        match (self.0[28], self.0[29]) {
            (KIND_LEAF, 0) => Leaf(*self).verify().map(|()| PageKind::Leaf),
            (KIND_INNER, height @ 1..) => Inner(*self).verify().map(|()| PageKind::Inner(height)),
            (KIND_TRAILER, 0) if self.len() == 0 && self.0[32..HEADER_LEN].iter().all(|byte| *byte == 0) => {
                Ok(PageKind::Trailer)
            }
            _ => Err("index page of an unknown kind"),
        }
    }

    /// The page as a leaf, if it is one.
    pub fn leaf(&self) -> Option<Leaf<'a>> {
        (self.0[28] == KIND_LEAF).then_some(Leaf(*self))
    }

    /// The page as an inner page of this height, if it is one.
    pub fn inner(&self, height: u8) -> Option<Inner<'a>> {
        (self.0[28] == KIND_INNER && self.0[29] == height).then_some(Inner(*self))
    }

    fn len(&self) -> usize {
        usize::from(self.u16(30))
    }

    fn rest_is_zero(&self) -> bool {
        self.0[HEADER_LEN + self.len() * ENTRY_LEN..].iter().all(|byte| *byte == 0)
    }

    /// A word of an entry.
    fn word(&self, index: usize, word: usize) -> u64 {
        self.u64(HEADER_LEN + index * ENTRY_LEN + word * 8)
    }
}

/// A verified leaf.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a>(Page<'a>);

impl Leaf<'_> {
    /// Number of entries, at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Volume of all entries.
    pub fn volume(&self) -> u16 {
        self.0.u16(32)
    }

    /// The key of an entry.
    pub fn key(&self, index: usize) -> PackedKey {
        let cell = cell_of(self.volume(), self.0.u64(40), self.0.word(index, 0));
        PackedKey { cell, age: !(self.0.u64(48) + (self.0.word(index, 1) >> 24)) }
    }

    /// An entry.
    pub fn entry(&self, index: usize) -> PackedEntry {
        decode(self.volume(), self.0.u64(40), self.0.u64(48), self.0.u64(56), self.words(index))
    }

    /// Appends all entries to `out`.
    pub fn decode_into(&self, out: &mut Vec<PackedEntry>) {
        let (volume, block, seq, segment) = (self.volume(), self.0.u64(40), self.0.u64(48), self.0.u64(56));
        let stored = &self.0.0[HEADER_LEN..HEADER_LEN + self.len() * ENTRY_LEN];
        out.extend(stored.as_chunks::<ENTRY_LEN>().0.iter().map(|bytes| {
            let (words, _) = bytes.as_chunks::<8>();
            decode(volume, block, seq, segment, [0, 1, 2].map(|word| u64::from_le_bytes(words[word])))
        }));
    }

    /// Index of the first entry at or after `key`; [`Leaf::len`] when all are before it.
    pub fn lower_bound(&self, key: PackedKey) -> usize {
        let Some(target) = self.target(key) else { return self.edge(key) };
        let guess = self.guess(&target);
        if self.precedes(guess, &target) {
            self.gallop_up(guess + 1, &target)
        } else {
            self.gallop_down(guess, &target)
        }
    }

    /// Reads the lines in which [`Leaf::lower_bound`] will begin to look, to no other end. Reads of many leaves that are not
    /// in the processor's cache overlap, where searches would wait for each in turn.
    pub fn touch(&self, key: PackedKey) -> u64 {
        let Some(target) = self.target(key) else { return 0 };
        let guess = self.guess(&target);
        let near = guess.saturating_sub(5)..(guess + 6).min(self.len());
        near.step_by(2).fold(0, |all, index| all ^ self.0.word(index, 0))
    }

    /// The same, when all entries before `from` are known to be before `key`: quick when the answer is near.
    pub fn lower_bound_from(&self, from: usize, key: PackedKey) -> usize {
        match self.target(key) {
            Some(target) => self.gallop_up(from, &target),
            None => self.edge(key).max(from),
        }
    }

    /// Where the target may be: writes are spread about evenly over the blocks of a page, so that a proportion is at most a
    /// few entries off.
    fn guess(&self, target: &Target) -> usize {
        proportion(target.prefix >> 3, u64::from(self.0.u32(36)), self.len())
    }

    fn words(&self, index: usize) -> [u64; 3] {
        [0, 1, 2].map(|word| self.0.word(index, word))
    }

    /// The answer for a key outside the blocks of this leaf.
    fn edge(&self, key: PackedKey) -> usize {
        if (key.volume(), key.block()) < (self.volume(), self.0.u64(40)) { 0 } else { self.len() }
    }

    /// `key` in relative terms, if it lies within the blocks of this leaf.
    fn target(&self, key: PackedKey) -> Option<Target> {
        let relative = key.block().checked_sub(self.0.u64(40)).filter(|_| key.volume() == self.volume())?;
        if relative > u64::from(self.0.u32(36)) {
            return None;
        }
        let prefix = relative << 3 | key.cell & 7;
        Some(match key.seq().checked_sub(self.0.u64(48)) {
            Some(seq) => Target { prefix, seq },
            // All versions of this cell are newer than the key: the first entry of what comes after the cell.
            None => Target { prefix: prefix + 1, seq: u64::MAX },
        })
    }

    fn precedes(&self, index: usize, target: &Target) -> bool {
        let prefix = self.0.word(index, 0) >> 29;
        prefix < target.prefix || (prefix == target.prefix && self.0.word(index, 1) >> 24 > target.seq)
    }

    fn gallop_up(&self, from: usize, target: &Target) -> usize {
        let (mut low, mut step) = (from, 1);
        while low + step <= self.len() && self.precedes(low + step - 1, target) {
            low += step;
            step *= 2;
        }
        self.bisect(low, (low + step - 1).min(self.len()), target)
    }

    fn gallop_down(&self, to: usize, target: &Target) -> usize {
        let (mut high, mut step) = (to, 1);
        while high >= step && !self.precedes(high - step, target) {
            high -= step;
            step *= 2;
        }
        self.bisect((high + 1).saturating_sub(step), high, target)
    }

    /// First index in `low..high` that does not precede the target, else `high`.
    fn bisect(&self, mut low: usize, mut high: usize, target: &Target) -> usize {
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.precedes(middle, target) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn verify(&self) -> Result<(), &'static str> {
        let (len, page) = (self.len(), self.0);
        let (block, seq, segment) = (page.u64(40), page.u64(48), page.u64(56));
        if len == 0 || block >= BLOCK_END || seq >= NUMBER_END || segment >= NUMBER_END {
            return Err("index leaf with an impossible header");
        }
        if !page.rest_is_zero() {
            return Err("index leaf with bytes behind its entries");
        }
        let mut previous = (0u64, 0u64);
        for index in 0..len {
            let words = self.words(index);
            let entry = decode(self.volume(), block, seq, segment, words);
            entry.check()?;
            if words[0] & 3 != 0 || !entry.content.is_data() && words[1] & 0xFF_FFFF != 0 {
                return Err("index leaf with reserved bits set");
            }
            if block + (words[0] >> 32) >= BLOCK_END {
                return Err("index leaf with a block past the end of any volume");
            }
            let place = (words[0] >> 29, !(words[1] >> 24));
            if index > 0 && place <= previous {
                return Err("index leaf that is out of order");
            }
            previous = place;
        }
        if page.word(0, 0) >> 32 != 0 || page.word(len - 1, 0) >> 32 != u64::from(page.u32(36)) {
            return Err("index leaf with a wrong span");
        }
        Ok(())
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

/// A key relative to the bases of a leaf.
struct Target {
    /// Relative block and inverted level.
    prefix: u64,
    /// Relative seq.
    seq: u64,
}

fn cell_of(volume: u16, base_block: u64, word: u64) -> u64 {
    u64::from(volume) << 48 | ((base_block + (word >> 32)) << 4) & 0xFFFF_FFFF_FFFF | word >> 29 & 7
}

fn decode(
    volume: u16,
    block: u64,
    seq: u64,
    segment: u64,
    [place, version, digest]: [u64; 3],
) -> PackedEntry {
    let key = PackedKey { cell: cell_of(volume, block, place), age: !(seq + (version >> 24)) };
    let [kind, ..] = (place >> 2 & 3).to_le_bytes();
    let [mask, ..] = (place >> 21).to_le_bytes();
    let [a, b, c, ..] = (place >> 4 & 0x1_FFFF).to_le_bytes();
    let content = if kind == KIND_DATA {
        PackedContent::data(segment + (version & 0xFF_FFFF), u32::from_le_bytes([a, b, c, 0]), mask, digest)
    } else {
        // The sector and the digest stay as they are, so that the check of the page sees them.
        let mut content = PackedContent::empty(kind, mask);
        content.place |= u32::from_le_bytes([a, b, c, 0]) << 10;
        content.digest = digest;
        content
    };
    PackedEntry { key, content }
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
        if self.len() == 0 || self.0.0[32..HEADER_LEN].iter().any(|byte| *byte != 0) || !self.0.rest_is_zero()
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

/// Collects the entries of one leaf.
#[derive(Debug, Default)]
pub struct LeafBuilder {
    entries: Vec<PackedEntry>,
    seq: (u64, u64),
    segment: Option<(u64, u64)>,
}

impl LeafBuilder {
    /// Takes an entry, which comes after the one before, or answers false: the page has to be finished first.
    pub fn push(&mut self, entry: &PackedEntry) -> bool {
        debug_assert!(entry.check().is_ok());
        let seq = entry.key.seq();
        let Some(first) = self.entries.first() else {
            self.seq = (seq, seq);
            self.segment = entry.content.is_data().then_some((entry.content.segment, entry.content.segment));
            self.entries.push(*entry);
            return true;
        };
        debug_assert!(self.entries.last().is_some_and(|last| last.key < entry.key));
        let seqs = (self.seq.0.min(seq), self.seq.1.max(seq));
        let mut segments = self.segment;
        if entry.content.is_data() {
            let segment = entry.content.segment;
            segments = Some(
                segments.map_or((segment, segment), |(low, high)| (low.min(segment), high.max(segment))),
            );
        }
        let fits = self.entries.len() < PAGE_ENTRIES
            && first.key.volume() == entry.key.volume()
            && entry.key.block() - first.key.block() <= u64::from(u32::MAX)
            && seqs.1 - seqs.0 < 1 << 40
            && segments.is_none_or(|(low, high)| high - low < 1 << 24);
        if fits {
            (self.seq, self.segment) = (seqs, segments);
            self.entries.push(*entry);
        }
        fits
    }

    /// Whether nothing was taken since the last page.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first key and the page of what was taken; the builder is then empty.
    ///
    /// # Panics
    /// When nothing was taken.
    pub fn finish(&mut self, identity: &PageIdentity) -> (PackedKey, PageBytes) {
        let first = self.entries.first().expect("a leaf holds at least one entry").key;
        let last = self.entries.last().expect("a leaf holds at least one entry").key;
        let (base_block, base_seq) = (first.block(), self.seq.0);
        let base_segment = self.segment.map_or(0, |(low, _)| low);
        let mut page = empty_page(KIND_LEAF, 0, identity);
        put(&mut page, 30, &self.entries.len().to_le_bytes()[..2]);
        put(&mut page, 32, &first.volume().to_le_bytes());
        put(&mut page, 36, &(last.block() - base_block).to_le_bytes()[..4]);
        put(&mut page, 40, &base_block.to_le_bytes());
        put(&mut page, 48, &base_seq.to_le_bytes());
        put(&mut page, 56, &base_segment.to_le_bytes());
        let stored = &mut page[HEADER_LEN..HEADER_LEN + self.entries.len() * ENTRY_LEN];
        for (entry, bytes) in self.entries.iter().zip(stored.as_chunks_mut::<ENTRY_LEN>().0) {
            let content = entry.content;
            let place = (entry.key.block() - base_block) << 32
                | u64::from(LEVEL_MAX - entry.key.level()) << 29
                | u64::from(content.mask()) << 21
                | u64::from(content.sector()) << 4
                | u64::from(content.kind()) << 2;
            let segment = if content.is_data() { content.segment - base_segment } else { 0 };
            let version = (entry.key.seq() - base_seq) << 24 | segment;
            for (word, out) in [place, version, content.digest].iter().zip(bytes.as_chunks_mut::<8>().0) {
                *out = word.to_le_bytes();
            }
        }
        seal(&mut page);
        self.entries.clear();
        (first, page)
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
