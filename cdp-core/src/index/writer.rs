//! Writes a run: sorted entries in, a static B+tree of pages out, bottom up and strictly sequential.
//!
//! A leaf is written when it is full, an inner page as soon as its children are; so the pages of a piece lie in the order in
//! which a walk needs them, the root comes last but for the trailer, and at most one page a level is held. A piece ends
//! before it would exceed its bound; the next goes to the extent that the caller names then.
//!
//! Nothing is synced: the caller does that before anything names the run. The sums are taken from the encoded pages, so that
//! they vouch for what was written and not for what was meant. After an error the run is void.

use super::{
    Entry, PieceMeta, RunMeta,
    pack::{pack, unpack},
};
use crate::{
    error::{Error, Result},
    format::{
        leaf::LeafBuilder,
        packed::{PackedEntry, PackedKey},
        page::{InnerBuilder, PAGE_BYTES, PAGE_LEN, Page, PageBytes, PageIdentity},
        trailer::{HEIGHT_MAX, Trailer},
    },
    io::{AlignedBuf, Extent},
    limits::RUN_PIECE_BYTES_MAX,
    units::{ExtentId, len_u64},
};
use std::sync::Arc;

/// Bytes of one write.
const BUFFER_LEN: usize = 1 << 20;
/// Smallest bound of a piece: a leaf, an inner page a level and the trailer, twice over.
const PIECE_PAGES_MIN: u64 = 16;

/// A place for a piece: number of the extent, the extent, first byte (a multiple of 4096).
pub type PiecePlace = (ExtentId, Arc<dyn Extent>, u64);

/// Names the place of the next piece.
pub type NextPiece<'a> = Box<dyn FnMut() -> Result<PiecePlace> + Send + 'a>;

/// Takes entries in order and writes a run of them.
pub struct RunWriter<'a> {
    store: u64,
    level: u8,
    next_piece: NextPiece<'a>,
    piece_pages_max: u64,
    /// Taken with the first page.
    buffer: Option<AlignedBuf>,
    filled: usize,
    last: Option<PackedKey>,
    leaf: LeafBuilder,
    inner: Vec<InnerBuilder>,
    piece: Option<Piece>,
    pieces: Vec<PieceMeta>,
    decoded: Vec<PackedEntry>,
}

/// The piece that is being written.
struct Piece {
    id: ExtentId,
    extent: Arc<dyn Extent>,
    offset: u64,
    first_page: u32,
    pages: u32,
    written: u64,
    summary: Trailer,
}

impl<'a> RunWriter<'a> {
    /// A writer of a run of `level` for the store with id `store`. `next_piece` is called before the first page of each piece.
    pub fn new(store: u64, level: u8, next_piece: NextPiece<'a>) -> Self {
        Self::with_piece_bytes(store, level, RUN_PIECE_BYTES_MAX, next_piece)
    }

    /// The same with another bound for a piece (at least 64 KiB, at most [`RUN_PIECE_BYTES_MAX`]).
    pub fn with_piece_bytes(store: u64, level: u8, piece_bytes_max: u64, next_piece: NextPiece<'a>) -> Self {
        Self {
            store,
            level,
            next_piece,
            piece_pages_max: piece_bytes_max
                .min(RUN_PIECE_BYTES_MAX)
                .div_euclid(PAGE_BYTES)
                .max(PIECE_PAGES_MIN),
            buffer: None,
            filled: 0,
            last: None,
            leaf: LeafBuilder::default(),
            inner: Vec::new(),
            piece: None,
            pieces: Vec::new(),
            decoded: Vec::new(),
        }
    }

    /// Takes the next entry, whose key comes after the one before.
    ///
    /// # Errors
    /// `InvalidArgument` when it breaks the order or a rule of [`Entry`]; `Io` and `NoSpace` from the storage; whatever the
    /// source of pieces answers.
    pub fn push(&mut self, entry: &Entry) -> Result<()> {
        self.push_packed(&pack(entry)?)
    }

    /// The same in packed form, which has been checked.
    pub(super) fn push_packed(&mut self, entry: &PackedEntry) -> Result<()> {
        if self.last.is_some_and(|last| last >= entry.key) {
            let text = format!("entries of an index run must ascend: {:?}", unpack(entry));
            return Err(Error::InvalidArgument(text));
        }
        self.last = Some(entry.key);
        if !self.leaf.push(entry) {
            self.finish_leaf()?;
            let taken = self.leaf.push(entry);
            assert!(taken, "one entry fits an empty leaf");
        }
        Ok(())
    }

    /// Ends the run. All of it has been written and nothing has been synced.
    ///
    /// # Errors
    /// As [`RunWriter::push`].
    pub fn finish(mut self) -> Result<RunMeta> {
        if !self.leaf.is_empty() {
            self.finish_leaf()?;
        }
        self.finish_piece()?;
        Ok(RunMeta::of(self.level, self.pieces))
    }

    fn finish_leaf(&mut self) -> Result<()> {
        if self
            .piece
            .as_ref()
            .is_some_and(|piece| u64::from(piece.pages) + self.pages_to_end() > self.piece_pages_max)
        {
            self.finish_piece()?;
        }
        let identity = self.next_identity()?;
        let (first, page) = self.leaf.finish(&identity);
        self.count(&page);
        self.write(&page)?;
        self.add_child(0, first, identity.page)
    }

    /// Pages that the piece takes at most after the leaf that comes next: inner pages that it may fill, those that close
    /// each level, and the trailer.
    fn pages_to_end(&self) -> u64 {
        2 * u64::from(HEIGHT_MAX) + 2
    }

    /// Adds what is in an encoded leaf to the summary of the piece.
    fn count(&mut self, page: &PageBytes) {
        self.decoded.clear();
        Page(page).leaf().expect("a leaf was just made").decode_into(&mut self.decoded);
        let piece = self.piece.as_mut().expect("a page was just numbered");
        let summary = &mut piece.summary;
        if summary.entries == 0 {
            summary.first = self.decoded[0].key;
        }
        for entry in &self.decoded {
            let seq = entry.key.seq();
            (summary.seq_min, summary.seq_max) = (summary.seq_min.min(seq), summary.seq_max.max(seq));
            summary.levels |= 1 << entry.key.level();
            summary.sum = summary.sum.wrapping_add(entry.hash());
            summary.last = entry.key;
        }
        summary.entries += len_u64(self.decoded.len());
    }

    /// Names a page to the inner page above it; writes that one first when it is full.
    fn add_child(&mut self, height: usize, first: PackedKey, page: u32) -> Result<()> {
        if self.inner.len() == height {
            self.inner.push(InnerBuilder::default());
        }
        if !self.inner[height].push(first, page) {
            self.finish_inner(height)?;
            let taken = self.inner[height].push(first, page);
            assert!(taken, "one child fits an empty inner page");
        }
        Ok(())
    }

    fn finish_inner(&mut self, height: usize) -> Result<()> {
        let identity = self.next_identity()?;
        let level = u8::try_from(height + 1).expect("a tree of pages has few levels");
        let (first, page) = self.inner[height].finish(level, &identity);
        self.write(&page)?;
        self.add_child(height + 1, first, identity.page)
    }

    /// Closes the levels from below until one page stands above all, and writes the trailer.
    fn finish_piece(&mut self) -> Result<()> {
        if self.piece.is_none() {
            return Ok(());
        }
        let mut height = 0;
        let root_page = loop {
            let is_top = self.inner.len() == height + 1;
            match self.inner[height].children() {
                [(_, only)] if is_top => break *only,
                _ => self.finish_inner(height)?,
            }
            height += 1;
        };
        self.inner.clear();
        let identity = self.next_identity()?;
        let piece = self.piece.as_mut().expect("the piece was there");
        piece.summary.pages = piece.pages;
        piece.summary.root_page = root_page;
        piece.summary.height = u8::try_from(height + 1).expect("a tree of pages has few levels");
        piece.summary.check(identity.page).expect("a piece that was just written makes sense");
        let meta = PieceMeta::of(&piece.summary, piece.id, piece.offset);
        let page = piece.summary.page(&identity);
        self.write(&page)?;
        self.write_out()?;
        self.piece = None;
        self.pieces.push(meta);
        Ok(())
    }

    /// Counts one more page and names it; begins a piece if there is none.
    fn next_identity(&mut self) -> Result<PageIdentity> {
        let piece = match &mut self.piece {
            Some(piece) => piece,
            none => none.insert(begin((self.next_piece)()?, self.piece_pages_max)?),
        };
        let identity =
            PageIdentity { store: self.store, extent: piece.id, page: piece.first_page + piece.pages };
        piece.pages += 1;
        Ok(identity)
    }

    /// Puts a page behind the one before.
    fn write(&mut self, page: &PageBytes) -> Result<()> {
        if self.filled == BUFFER_LEN {
            self.write_out()?;
        }
        let buffer = match &mut self.buffer {
            Some(buffer) => buffer,
            none => none.insert(
                AlignedBuf::new(BUFFER_LEN)
                    .map_err(|source| Error::io("allocate", "the buffer of an index run", source))?,
            ),
        };
        buffer[self.filled..self.filled + PAGE_LEN].copy_from_slice(page);
        self.filled += PAGE_LEN;
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        let piece = self.piece.as_mut().expect("pages belong to a piece");
        let buffer = self.buffer.as_ref().expect("pages were put into the buffer");
        piece
            .extent
            .write_at(piece.offset + piece.written, &buffer[..self.filled])
            .map_err(|source| Error::io("write", format!("index run in extent {}", piece.id), source))?;
        piece.written += len_u64(self.filled);
        self.filled = 0;
        Ok(())
    }
}

/// Starts a piece where the caller wants it.
fn begin((id, extent, offset): PiecePlace, pages_max: u64) -> Result<Piece> {
    let first_page = offset / PAGE_BYTES;
    if !offset.is_multiple_of(PAGE_BYTES) || first_page + pages_max > u64::from(u32::MAX) {
        let text = format!("an index run cannot begin at byte {offset} of an extent");
        return Err(Error::InvalidArgument(text));
    }
    let first_page = u32::try_from(first_page).expect("checked above");
    let summary = Trailer {
        first: PackedKey::END,
        last: PackedKey::END,
        entries: 0,
        seq_min: u64::MAX,
        seq_max: 0,
        sum: 0,
        pages: 0,
        root_page: 0,
        height: 0,
        levels: 0,
    };
    Ok(Piece { id, extent, offset, first_page, pages: 0, written: 0, summary })
}
