//! The leaves of the index: entries, wide or narrow, searched in place. The bytes are described with those of all [pages](super::page).

use super::{
    packed::{BLOCK_END, KIND_DATA, LEVEL_MAX, NUMBER_END, PackedContent, PackedEntry, PackedKey},
    page::{
        ENTRY_LEN, FORM_NARROW, HEADER_LEN, KIND_LEAF, LEAF_ENTRIES_MAX, NARROW_LEN, PAGE_ENTRIES, Page,
        PageBytes, PageIdentity, empty_page, proportion, put, seal,
    },
};

/// A verified leaf.
#[derive(Clone, Copy, Debug)]
pub struct Leaf<'a> {
    page: Page<'a>,
    entry_len: usize,
}

/// What the relative values of a leaf are relative to.
#[derive(Clone, Copy)]
struct Bases {
    volume: u16,
    block: u64,
    seq: u64,
    segment: u64,
}

/// An entry of a leaf as it is stored, whatever the form.
#[derive(Clone, Copy)]
struct Stored {
    /// Block, level, mask, sector, kind.
    place: u64,
    /// Relative seq.
    seq: u64,
    /// Relative extent of the segment.
    segment: u64,
    digest: u64,
}

impl Stored {
    fn from_wide(bytes: &[u8; ENTRY_LEN]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let version = u64::from_le_bytes(words[1]);
        let (place, digest) = (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[2]));
        Self { place, seq: version >> 24, segment: version & 0xFF_FFFF, digest }
    }

    fn from_narrow(bytes: &[u8; NARROW_LEN]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let (place, digest) = (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]));
        let version = u64::from_le_bytes([rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], 0, 0]);
        Self { place, seq: version >> 16, segment: version & 0xFFFF, digest }
    }

    fn put_wide(&self, bytes: &mut [u8; ENTRY_LEN]) {
        let words = [self.place, self.seq << 24 | self.segment, self.digest];
        words.iter().zip(bytes.as_chunks_mut::<8>().0).for_each(|(word, out)| *out = word.to_le_bytes());
    }

    fn put_narrow(&self, bytes: &mut [u8; NARROW_LEN]) {
        bytes[..8].copy_from_slice(&self.place.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.digest.to_le_bytes());
        bytes[16..].copy_from_slice(&(self.seq << 16 | self.segment).to_le_bytes()[..6]);
    }
}

impl<'a> Leaf<'a> {
    pub(super) fn of(page: Page<'a>) -> Self {
        Self { page, entry_len: if page.0[34] == FORM_NARROW { NARROW_LEN } else { ENTRY_LEN } }
    }

    /// Number of entries, at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.page.len()
    }

    /// Volume of all entries.
    pub fn volume(&self) -> u16 {
        self.page.u16(32)
    }

    fn bases(&self) -> Bases {
        Bases {
            volume: self.volume(),
            block: self.page.u64(40),
            seq: self.page.u64(48),
            segment: self.page.u64(56),
        }
    }

    fn at(&self, index: usize) -> usize {
        HEADER_LEN + index * self.entry_len
    }

    /// Block, level and more of an entry, as it is stored.
    fn place(&self, index: usize) -> u64 {
        self.page.u64(self.at(index))
    }

    /// Relative seq of an entry.
    fn seq(&self, index: usize) -> u64 {
        // The last eight bytes of a narrow entry; those of the digest fall out.
        if self.entry_len == NARROW_LEN {
            self.page.u64(self.at(index) + 14) >> 32
        } else {
            self.page.u64(self.at(index) + 8) >> 24
        }
    }

    fn stored(&self, index: usize) -> Stored {
        let at = self.at(index);
        if self.entry_len == NARROW_LEN {
            Stored::from_narrow(&self.page.array(at))
        } else {
            Stored::from_wide(&self.page.array(at))
        }
    }

    /// The key of an entry.
    pub fn key(&self, index: usize) -> PackedKey {
        let bases = self.bases();
        let cell = cell_of(bases.volume, bases.block, self.place(index));
        PackedKey { cell, age: !(bases.seq + self.seq(index)) }
    }

    /// An entry.
    pub fn entry(&self, index: usize) -> PackedEntry {
        decode(&self.bases(), &self.stored(index))
    }

    /// Appends all entries to `out`.
    pub fn decode_into(&self, out: &mut Vec<PackedEntry>) {
        let bases = self.bases();
        let bytes = &self.page.0[HEADER_LEN..self.at(self.len())];
        if self.entry_len == NARROW_LEN {
            let entries = bytes.as_chunks::<NARROW_LEN>().0;
            out.extend(entries.iter().map(|bytes| decode(&bases, &Stored::from_narrow(bytes))));
        } else {
            let entries = bytes.as_chunks::<ENTRY_LEN>().0;
            out.extend(entries.iter().map(|bytes| decode(&bases, &Stored::from_wide(bytes))));
        }
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
        near.step_by(2).fold(0, |all, index| all ^ self.place(index))
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
        proportion(target.prefix >> 3, u64::from(self.page.u32(36)), self.len())
    }

    /// The answer for a key outside the blocks of this leaf.
    fn edge(&self, key: PackedKey) -> usize {
        if (key.volume(), key.block()) < (self.volume(), self.page.u64(40)) { 0 } else { self.len() }
    }

    /// `key` in relative terms, if it lies within the blocks of this leaf.
    fn target(&self, key: PackedKey) -> Option<Target> {
        let relative =
            key.block().checked_sub(self.page.u64(40)).filter(|_| key.volume() == self.volume())?;
        if relative > u64::from(self.page.u32(36)) {
            return None;
        }
        let prefix = relative << 3 | key.cell & 7;
        Some(match key.seq().checked_sub(self.page.u64(48)) {
            Some(seq) => Target { prefix, seq },
            // All versions of this cell are newer than the key: the first entry of what comes after the cell.
            None => Target { prefix: prefix + 1, seq: u64::MAX },
        })
    }

    fn precedes(&self, index: usize, target: &Target) -> bool {
        let prefix = self.place(index) >> 29;
        prefix < target.prefix || (prefix == target.prefix && self.seq(index) > target.seq)
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

    pub(super) fn verify(&self) -> Result<(), &'static str> {
        let (len, bases) = (self.len(), self.bases());
        if len == 0 || bases.block >= BLOCK_END || bases.seq >= NUMBER_END || bases.segment >= NUMBER_END {
            return Err("index leaf with an impossible header");
        }
        if !self.page.rest_is_zero(self.entry_len) {
            return Err("index leaf with bytes behind its entries");
        }
        let mut previous = (0u64, 0u64);
        for index in 0..len {
            let stored = self.stored(index);
            let entry = decode(&bases, &stored);
            entry.check()?;
            if stored.place & 3 != 0 || !entry.content.is_data() && stored.segment != 0 {
                return Err("index leaf with reserved bits set");
            }
            if bases.block + (stored.place >> 32) >= BLOCK_END {
                return Err("index leaf with a block past the end of any volume");
            }
            let place = (stored.place >> 29, !stored.seq);
            if index > 0 && place <= previous {
                return Err("index leaf that is out of order");
            }
            previous = place;
        }
        if self.place(0) >> 32 != 0 || self.place(len - 1) >> 32 != u64::from(self.page.u32(36)) {
            return Err("index leaf with a wrong span");
        }
        Ok(())
    }
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

fn decode(bases: &Bases, stored: &Stored) -> PackedEntry {
    let place = stored.place;
    let key = PackedKey { cell: cell_of(bases.volume, bases.block, place), age: !(bases.seq + stored.seq) };
    let [kind, ..] = (place >> 2 & 3).to_le_bytes();
    let [mask, ..] = (place >> 21).to_le_bytes();
    let [a, b, c, ..] = (place >> 4 & 0x1_FFFF).to_le_bytes();
    let sector = u32::from_le_bytes([a, b, c, 0]);
    let content = if kind == KIND_DATA {
        PackedContent::data(bases.segment + stored.segment, sector, mask, stored.digest)
    } else {
        // The sector and the digest stay as they are, so that the check of the page sees them.
        let mut content = PackedContent::empty(kind, mask);
        content.place |= sector << 10;
        content.digest = stored.digest;
        content
    };
    PackedEntry { key, content }
}

/// Whether a leaf with these smallest and largest seqs and extents has narrow entries.
fn is_narrow(seqs: (u64, u64), segments: Option<(u64, u64)>) -> bool {
    seqs.1 - seqs.0 < 1 << 32 && segments.is_none_or(|(low, high)| high - low < 1 << 16)
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
        let room = if is_narrow(seqs, segments) { LEAF_ENTRIES_MAX } else { PAGE_ENTRIES };
        let fits = self.entries.len() < room
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
        let stored = self.entries.iter().map(|entry| {
            let content = entry.content;
            let place = (entry.key.block() - base_block) << 32
                | u64::from(LEVEL_MAX - entry.key.level()) << 29
                | u64::from(content.mask()) << 21
                | u64::from(content.sector()) << 4
                | u64::from(content.kind()) << 2;
            let segment = if content.is_data() { content.segment - base_segment } else { 0 };
            Stored { place, seq: entry.key.seq() - base_seq, segment, digest: content.digest }
        });
        if is_narrow(self.seq, self.segment) {
            put(&mut page, 34, &[FORM_NARROW]);
            let places = page[HEADER_LEN..].as_chunks_mut::<NARROW_LEN>().0;
            stored.zip(places).for_each(|(entry, bytes)| entry.put_narrow(bytes));
        } else {
            let places = page[HEADER_LEN..].as_chunks_mut::<ENTRY_LEN>().0;
            stored.zip(places).for_each(|(entry, bytes)| entry.put_wide(bytes));
        }
        seal(&mut page);
        self.entries.clear();
        (first, page)
    }
}
