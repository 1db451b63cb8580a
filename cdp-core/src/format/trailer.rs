//! The trailer: the last page of a piece of an index run, from which the piece can be opened without the manifest.
//!
//! ```text
//!   0  header of an index page (see `page`), kind 3
//!  64  first key: cell u64, age u64      80  last key: cell u64, age u64
//!  96  entries u64                      104  smallest seq u64
//! 112  largest seq u64                  120  sum u64: wrapping sum of the hashes of all entries
//! 128  pages u32, this one included     132  root page u32
//! 136  height u8, 1 when the root is a leaf
//! 137  levels u8: bit n set when a cell of level n occurs
//! 138  zeroes
//! ```
//! Fails like a page: [`Trailer::parse`] answers what is wrong.

use crate::{
    format::{
        packed::{NUMBER_END, PackedKey},
        page::{
            KIND_TRAILER, LEAF_ENTRIES_MAX, PAGE_LEN, Page, PageBytes, PageIdentity, PageKind, empty_page,
            put, seal,
        },
    },
    units::len_u64,
};

const BODY_END: usize = 138;

/// Most levels of pages of a piece: four hold more pages than the largest piece has.
pub const HEIGHT_MAX: u8 = 4;

const _: () = assert!(BODY_END <= PAGE_LEN);

/// What a trailer says about its piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// First key.
    pub first: PackedKey,
    /// Last key.
    pub last: PackedKey,
    /// Number of entries, at least 1.
    pub entries: u64,
    /// Smallest seq.
    pub seq_min: u64,
    /// Largest seq.
    pub seq_max: u64,
    /// Wrapping sum of the hashes of the entries.
    pub sum: u64,
    /// Pages of the piece, the trailer included, which is the last.
    pub pages: u32,
    /// Number of the root page in the extent.
    pub root_page: u32,
    /// Levels of pages; 1 when the root is a leaf.
    pub height: u8,
    /// Levels of cells that occur, a bit each.
    pub levels: u8,
}

impl Trailer {
    /// The page of a trailer.
    pub fn page(&self, identity: &PageIdentity) -> PageBytes {
        let mut page = empty_page(KIND_TRAILER, 0, identity);
        let words = [
            self.first.cell,
            self.first.age,
            self.last.cell,
            self.last.age,
            self.entries,
            self.seq_min,
            self.seq_max,
            self.sum,
        ];
        for (index, word) in words.into_iter().enumerate() {
            put(&mut page, 64 + index * 8, &word.to_le_bytes());
        }
        put(&mut page, 128, &self.pages.to_le_bytes());
        put(&mut page, 132, &self.root_page.to_le_bytes());
        put(&mut page, 136, &[self.height, self.levels]);
        seal(&mut page);
        page
    }

    /// Reads a trailer.
    ///
    /// # Errors
    /// What is wrong with the page.
    pub fn parse(bytes: &PageBytes, identity: &PageIdentity) -> Result<Self, &'static str> {
        let page = Page(bytes);
        if page.verify(identity)? != PageKind::Trailer {
            return Err("index page that is not a trailer");
        }
        let trailer = Self {
            first: PackedKey { cell: page.u64(64), age: page.u64(72) },
            last: PackedKey { cell: page.u64(80), age: page.u64(88) },
            entries: page.u64(96),
            seq_min: page.u64(104),
            seq_max: page.u64(112),
            sum: page.u64(120),
            pages: page.u32(128),
            root_page: page.u32(132),
            height: bytes[136],
            levels: bytes[137],
        };
        if bytes[BODY_END..].iter().any(|byte| *byte != 0) {
            return Err("index trailer with bytes behind its end");
        }
        trailer.check(identity.page)?;
        Ok(trailer)
    }

    /// Whether the values agree with each other and with the trailer's own page number.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, own_page: u32) -> Result<(), &'static str> {
        if !self.first.is_valid() || !self.last.is_valid() || self.first > self.last {
            return Err("index piece with impossible keys");
        }
        let room = u64::from(self.pages) * len_u64(LEAF_ENTRIES_MAX);
        if self.entries == 0
            || self.entries > room
            || self.seq_min > self.seq_max
            || self.seq_max >= NUMBER_END
            || self.levels == 0
        {
            return Err("index piece with impossible counts");
        }
        // At least a leaf and the trailer; the pages end with the trailer.
        let first_page = own_page.checked_sub(self.pages.wrapping_sub(1)).filter(|_| self.pages >= 2);
        if !first_page.is_some_and(|first_page| (first_page..own_page).contains(&self.root_page)) {
            return Err("index piece with impossible page numbers");
        }
        if !(1..=HEIGHT_MAX).contains(&self.height) {
            return Err("index piece with an impossible height");
        }
        Ok(())
    }
}
