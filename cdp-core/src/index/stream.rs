//! Reads a run from its storage in large sequential reads that leave the cache alone: for merges, checks and lists of changes.
//!
//! Two ways to go. A *whole* stream meets every page and proves every piece: order, the tree above the leaves, counts and
//! sums, all against the run's record and the trailer. A *ranged* stream begins where it is told and may skip. What is wrong
//! becomes `Damaged`, as in `reader`.

use super::{reader::Run, walk::Walk};
use crate::{
    error::{Error, Result},
    format::{
        packed::{PackedEntry, PackedKey},
        page::{Inner, PAGE_BYTES, PAGE_LEN, Page, PageBytes, PageKind},
        trailer::Trailer,
    },
    io::AlignedBuf,
    units::len_u64,
};
use std::{ops::Range, sync::Arc};

/// Bytes of a read of a whole stream.
const WHOLE_LEN: usize = 1 << 20;
/// Bytes of a read of a ranged stream, of which many are open at a time.
const RANGED_LEN: usize = 256 << 10;

/// A walk over a run in sequential reads.
pub(super) struct RunStream {
    run: Arc<Run>,
    buffer: AlignedBuf,
    /// Pages of the current piece that the buffer holds.
    buffered: Range<u32>,
    piece: usize,
    /// The page that comes next in the current piece.
    page: u32,
    entries: Vec<PackedEntry>,
    at: usize,
    last: Option<PackedKey>,
    started: bool,
    proof: Option<Proof>,
}

/// What a whole stream has seen of the current piece.
#[derive(Default)]
struct Proof {
    entries: u64,
    sum: u64,
    levels: u8,
    seqs: Option<(u64, u64)>,
    first: Option<PackedKey>,
    /// Per height, pages that no inner page has named yet.
    unnamed: Vec<Vec<(PackedKey, u32)>>,
}

impl Proof {
    fn take_leaf(&mut self, entries: &[PackedEntry], page: u32) {
        self.entries += len_u64(entries.len());
        for entry in entries {
            let seq = entry.key.seq();
            self.sum = self.sum.wrapping_add(entry.hash());
            self.levels |= 1 << entry.key.level();
            self.seqs = Some(self.seqs.map_or((seq, seq), |(low, high)| (low.min(seq), high.max(seq))));
        }
        self.first = self.first.or(entries.first().map(|entry| entry.key));
        self.add(0, entries[0].key, page);
    }

    fn add(&mut self, height: usize, first: PackedKey, page: u32) {
        if self.unnamed.len() <= height {
            self.unnamed.resize_with(height + 1, Vec::new);
        }
        self.unnamed[height].push((first, page));
    }

    /// Whether the children are the oldest pages below that were not named yet.
    fn take_inner(&mut self, inner: Inner<'_>, height: u8, page: u32) -> bool {
        let Some(below) = self.unnamed.get_mut(usize::from(height) - 1) else { return false };
        let children = (0..inner.len()).map(|index| (inner.key(index), inner.child(index)));
        if below.len() < inner.len() || !children.eq(below[..inner.len()].iter().copied()) {
            return false;
        }
        below.drain(..inner.len());
        self.add(usize::from(height), inner.key(0), page);
        true
    }

    /// Whether all that was seen is what the trailer says.
    fn agrees(&self, trailer: &Trailer, last: Option<PackedKey>) -> bool {
        let mut left = self
            .unnamed
            .iter()
            .enumerate()
            .flat_map(|(height, pages)| pages.iter().map(move |page| (height, page)));
        let root = left.next().map(|(height, (_, page))| (height + 1, *page));
        left.next().is_none()
            && root == Some((usize::from(trailer.height), trailer.root_page))
            && self.entries == trailer.entries
            && self.sum == trailer.sum
            && self.levels == trailer.levels
            && self.seqs == Some((trailer.seq_min, trailer.seq_max))
            && self.first == Some(trailer.first)
            && last == Some(trailer.last)
    }
}

impl RunStream {
    /// A stream over all of a run, which proves it. It stands at the first entry.
    pub fn whole(run: Arc<Run>) -> Result<Self> {
        let mut stream = Self::new(run, WHOLE_LEN, Some(Proof::default()))?;
        stream.started = true;
        stream.enter_piece(0);
        stream.next_leaf()?;
        Ok(stream)
    }

    /// A stream that begins with the first `seek`.
    pub fn ranged(run: Arc<Run>) -> Result<Self> {
        Self::new(run, RANGED_LEN, None)
    }

    fn new(run: Arc<Run>, buffer_len: usize, proof: Option<Proof>) -> Result<Self> {
        let buffer = AlignedBuf::new(buffer_len)
            .map_err(|source| Error::io("allocate", "the buffer of an index run", source))?;
        Ok(Self {
            run,
            buffer,
            buffered: 0..0,
            piece: 0,
            page: 0,
            entries: Vec::new(),
            at: 0,
            last: None,
            started: false,
            proof,
        })
    }

    /// The rest of the entries that are at hand, from the current one on; empty at the end.
    pub fn at_hand(&self) -> &[PackedEntry] {
        &self.entries[self.at..]
    }

    fn enter_piece(&mut self, piece: usize) {
        self.piece = piece;
        self.buffered = 0..0;
        if let Some(first) =
            self.run.meta().pieces.get(piece).and_then(|meta| u32::try_from(meta.offset / PAGE_BYTES).ok())
        {
            self.page = first;
        }
    }

    /// Decodes the next leaf; at the end there are no entries.
    fn next_leaf(&mut self) -> Result<()> {
        // Where an error leaves it: without entries, in front of the page that failed.
        self.entries.clear();
        self.at = 0;
        while self.piece < self.run.meta().pieces.len() {
            let Some(trailer_page) = self.run.meta().pieces[self.piece].trailer_page() else {
                return Err(self.run.damaged(
                    self.piece,
                    self.page,
                    "index piece with impossible page numbers",
                ));
            };
            if self.page >= trailer_page {
                self.end_piece(trailer_page)?;
                self.enter_piece(self.piece + 1);
                continue;
            }
            let slot = self.slot(trailer_page)?;
            let page = self.page;
            let bytes = Page(page_in(&self.buffer, slot));
            let kind = bytes
                .verify(&self.run.identity(self.piece, page))
                .map_err(|what| self.run.damaged(self.piece, page, what))?;
            let right = match kind {
                PageKind::Leaf => {
                    bytes.leaf().expect("verified as a leaf").decode_into(&mut self.entries);
                    let ascends = self.last.is_none_or(|last| last < self.entries[0].key);
                    if let Some(proof) = &mut self.proof {
                        proof.take_leaf(&self.entries, page);
                    }
                    ascends
                }
                PageKind::Inner(height) => match (&mut self.proof, bytes.inner(height)) {
                    (Some(proof), Some(inner)) => proof.take_inner(inner, height, page),
                    _ => true,
                },
                PageKind::Trailer => false,
            };
            if !right {
                self.entries.clear();
                return Err(self.run.damaged(self.piece, page, "index page out of place"));
            }
            self.page += 1;
            if let Some(entry) = self.entries.last() {
                self.last = Some(entry.key);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Compares what was seen of a piece with what is said of it.
    fn end_piece(&mut self, trailer_page: u32) -> Result<()> {
        let Some(proof) = self.proof.take() else { return Ok(()) };
        let slot = self.slot(trailer_page)?;
        let identity = self.run.identity(self.piece, trailer_page);
        let trailer = Trailer::parse(page_in(&self.buffer, slot), &identity)
            .map_err(|what| self.run.damaged(self.piece, trailer_page, what))?;
        if trailer != self.run.meta().pieces[self.piece].trailer() || !proof.agrees(&trailer, self.last) {
            return Err(self.run.damaged(
                self.piece,
                trailer_page,
                "index piece that is not what its trailer says",
            ));
        }
        self.proof = Some(Proof::default());
        Ok(())
    }

    /// Where the current page is in the buffer, reading on when it is not there.
    fn slot(&mut self, trailer_page: u32) -> Result<usize> {
        if !self.buffered.contains(&self.page) {
            let room = u32::try_from(self.buffer.len() / PAGE_LEN).unwrap_or(1);
            let mut count = room.min(trailer_page + 1 - self.page);
            let extent = self.run.extent(self.piece)?;
            let offset = u64::from(self.page) * PAGE_BYTES;
            let mut read = extent.read_at(offset, &mut self.buffer[..count as usize * PAGE_LEN]);
            if read.is_err() && count > 1 {
                // One bad page must not hide the good ones before it.
                count = 1;
                read = extent.read_at(offset, &mut self.buffer[..PAGE_LEN]);
            }
            self.buffered = 0..0;
            read.map_err(|source| self.run.failed(self.piece, self.page, source))?;
            self.buffered = self.page..self.page + count;
        }
        Ok((self.page - self.buffered.start) as usize)
    }

    /// Goes to the leaf in which a search for `key` begins.
    fn jump(&mut self, key: PackedKey) -> Result<()> {
        let Some(piece) = self.run.piece_for(key) else {
            self.enter_piece(self.run.meta().pieces.len());
            return self.next_leaf();
        };
        if piece != self.piece {
            self.enter_piece(piece);
        }
        self.page = self.run.leaf_for(piece, key)?;
        self.last = None;
        self.next_leaf()
    }
}

/// A page of a buffer.
fn page_in(buffer: &[u8], slot: usize) -> &PageBytes {
    buffer.as_chunks().0.get(slot).expect("the slot was filled")
}

impl Walk for RunStream {
    fn seek(&mut self, key: PackedKey) -> Result<()> {
        debug_assert!(self.proof.is_none(), "a whole stream does not skip");
        if self.started && (self.at == self.entries.len() || self.entries[self.at].key >= key) {
            return Ok(());
        }
        if !self.started {
            self.jump(key)?;
            self.started = true;
        } else if self.entries.last().is_some_and(|last| last.key < key) {
            self.next_leaf()?;
            if self.entries.last().is_some_and(|last| last.key < key) {
                self.jump(key)?;
            }
        }
        loop {
            self.at += self.entries[self.at..].partition_point(|entry| entry.key < key);
            if self.at < self.entries.len() || self.entries.is_empty() {
                return Ok(());
            }
            self.next_leaf()?;
        }
    }

    fn advance(&mut self) -> Result<()> {
        if self.at < self.entries.len() {
            self.at += 1;
            if self.at == self.entries.len() {
                self.next_leaf()?;
            }
        }
        Ok(())
    }

    fn key(&self) -> PackedKey {
        self.entries.get(self.at).map_or(PackedKey::END, |entry| entry.key)
    }

    fn entry(&self) -> PackedEntry {
        self.entries.get(self.at).copied().unwrap_or_default()
    }
}

impl Run {
    /// Reads all of the run and proves it: every page, the order, the tree, the counts and the sums.
    ///
    /// # Errors
    /// `Damaged` at the first thing that is wrong; `Io`.
    pub fn verify(self: &Arc<Self>) -> Result<()> {
        let mut stream = RunStream::whole(Arc::clone(self))?;
        while !stream.at_hand().is_empty() {
            stream.next_leaf()?;
        }
        Ok(())
    }
}
