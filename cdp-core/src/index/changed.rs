//! Which bytes of a volume were written between two points.
//!
//! A window of the volume is a map of bits, one a block. Each table and run in turn sets the bits of its entries in the
//! window; nothing has to be sorted. The window then gives its extents and moves on to the first block that any source has
//! next. A range that reaches past the window is remembered by its end, and what lies below is skipped.
//!
//! Memory is bounded: the window, one buffer a run, one chunk a table. Blocks are the grain; two writes of the same content
//! are a change. Fails as the reading of runs does, after which the iterator ends.

use super::{View, memtable::MemSnapshot, stream::RunStream, walk::Walk};
use crate::{
    error::{Error, Result},
    format::packed::{BLOCK_END, PackedKey},
    units::{BLOCK_BYTES, Seq, VolumeId, to_len},
};
use std::{collections::VecDeque, iter::FusedIterator, ops::Range, sync::Arc};

/// Blocks of a window.
const WINDOW_BLOCKS: u64 = 1 << 20;
/// Extents that are taken out of a window at a time.
const EXTENTS_AT_ONCE: usize = 1024;

/// A range of bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteExtent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

enum Source {
    Run(RunStream),
    Table(MemSnapshot),
}

impl Source {
    fn walk(&mut self) -> &mut dyn Walk {
        match self {
            Self::Run(stream) => stream,
            Self::Table(table) => table,
        }
    }
}

/// The changed extents of a volume: ascending, merged, apart from each other. See [`View::changed`].
pub struct ChangedExtents {
    volume: u16,
    /// Seqs that count, the first excluded and the last included.
    after: u64,
    to: u64,
    bytes: u64,
    sources: Vec<Source>,
    window: Window,
    /// First block that no source has been asked for.
    next: u64,
    /// Blocks whose extent may still grow.
    open: Option<Range<u64>>,
    ready: VecDeque<ByteExtent>,
    ended: bool,
}

/// Bits for the blocks from `start` on.
struct Window {
    start: u64,
    words: Vec<u64>,
    /// Where the search for set bits goes on, relative; the end when the window is used up.
    scanned: u64,
    /// First block after every range that was met; past the window when a range reaches past it.
    reach: u64,
}

impl Window {
    fn end(&self) -> u64 {
        self.start + WINDOW_BLOCKS
    }

    fn set(&mut self, from: u64, to: u64) {
        self.reach = self.reach.max(to);
        let (from, to) = (from.max(self.start) - self.start, to.min(self.end()) - self.start);
        if to == from + 1 {
            self.words[to_len(from / 64)] |= 1 << (from % 64);
            return;
        }
        let mut bit = from;
        while bit < to {
            let count = (64 - bit % 64).min(to - bit);
            self.words[to_len(bit / 64)] |= (u64::MAX >> (64 - count)) << (bit % 64);
            bit += count;
        }
    }

    /// First bit at or after `from` that is `set`, or the end.
    fn find(&self, from: u64, set: bool) -> u64 {
        let mut bit = from;
        while bit < WINDOW_BLOCKS {
            let word = self.words[to_len(bit / 64)] ^ if set { 0 } else { u64::MAX };
            let rest = word >> (bit % 64);
            if rest != 0 {
                return bit + u64::from(rest.trailing_zeros());
            }
            bit = (bit / 64 + 1) * 64;
        }
        WINDOW_BLOCKS
    }
}

impl View {
    /// The extents of a volume of `bytes` bytes that were written, zeroed or discarded after `from`, up to and including `to`.
    ///
    /// # Errors
    /// `Damaged` when a lost frame may have changed something in between; `Io` when there is no memory for buffers.
    pub fn changed(&self, volume: VolumeId, from: Seq, to: Seq, bytes: u64) -> Result<ChangedExtents> {
        if let Some(lost) = self.lost.iter().find(|lost| lost.from_seq <= to && lost.to_seq > from) {
            return Err(Error::Damaged(Box::new(lost.damage.clone())));
        }
        let mut sources = Vec::new();
        for table in &self.memtables {
            if table.seqs().is_some_and(|(oldest, newest)| oldest <= to && newest > from) {
                sources.push(Source::Table(MemSnapshot::new(Arc::clone(table))));
            }
        }
        for run in self.runs.iter().filter(|run| run.meta().seq_min <= to && run.meta().seq_max > from) {
            sources.push(Source::Run(RunStream::ranged(Arc::clone(run))?));
        }
        let words = if sources.is_empty() { Vec::new() } else { vec![0; to_len(WINDOW_BLOCKS / 64)] };
        Ok(ChangedExtents {
            volume: volume.get(),
            after: from.get(),
            to: to.get(),
            bytes,
            ended: sources.is_empty(),
            sources,
            window: Window { start: 0, words, scanned: WINDOW_BLOCKS, reach: 0 },
            next: 0,
            open: None,
            ready: VecDeque::new(),
        })
    }
}

impl ChangedExtents {
    /// Finds at least one extent, or the end.
    fn find_more(&mut self) -> Result<()> {
        while self.ready.is_empty() && !self.ended {
            if self.window.scanned < WINDOW_BLOCKS {
                self.scan();
            } else if !self.fill()? {
                self.ended = true;
                self.close();
            }
        }
        Ok(())
    }

    /// Moves the window to the next block that a source has, and fills it. Answers false when there is none.
    fn fill(&mut self) -> Result<bool> {
        let end = self.bytes.div_ceil(BLOCK_BYTES).min(BLOCK_END);
        let key = PackedKey::before(self.volume, self.next.min(BLOCK_END));
        let mut nearest = BLOCK_END;
        for source in &mut self.sources {
            let walk = source.walk();
            walk.seek(key)?;
            if walk.key().volume() == self.volume && walk.key() != PackedKey::END {
                nearest = nearest.min(walk.key().block());
            }
        }
        if nearest >= end {
            return Ok(false);
        }
        let window = &mut self.window;
        window.words.fill(0);
        (window.start, window.scanned, window.reach) = (nearest / 64 * 64, 0, 0);
        for source in &mut self.sources {
            match source {
                Source::Run(stream) => window.take(stream, self.volume, self.after, self.to)?,
                Source::Table(table) => window.take(table, self.volume, self.after, self.to)?,
            }
        }
        self.next = window.end().max(window.reach);
        Ok(true)
    }

    /// Turns set bits of the window into extents, some at a time.
    fn scan(&mut self) {
        while self.ready.len() < EXTENTS_AT_ONCE && self.window.scanned < WINDOW_BLOCKS {
            let from = self.window.find(self.window.scanned, true);
            let to = self.window.find(from, false);
            self.window.scanned = to;
            if from < to {
                // A range that reaches past the window goes on behind it.
                let end = self.window.start + to;
                let end = if to == WINDOW_BLOCKS { end.max(self.window.reach) } else { end };
                self.extend(self.window.start + from, end);
            }
        }
    }

    fn extend(&mut self, from: u64, to: u64) {
        if let Some(open) = &mut self.open
            && open.end == from
        {
            open.end = to;
            return;
        }
        self.close();
        self.open = Some(from..to);
    }

    /// Gives out the open extent, cut to the size of the volume.
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let (offset, end) = (open.start * BLOCK_BYTES, (open.end * BLOCK_BYTES).min(self.bytes));
            if offset < end {
                self.ready.push_back(ByteExtent { offset, length: end - offset });
            }
        }
    }
}

impl Window {
    /// Sets the bits of what a source has in the window.
    fn take(&mut self, walk: &mut impl Walk, volume: u16, after: u64, to: u64) -> Result<()> {
        loop {
            let key = walk.key();
            if key.volume() != volume || key.block() >= self.end() || key == PackedKey::END {
                return Ok(());
            }
            if key.seq() <= after || key.seq() > to {
                walk.advance()?;
            } else if key.level() == 0 {
                self.set(key.block(), key.block() + 1);
                walk.advance()?;
            } else {
                self.set(key.block(), key.block_end());
                walk.seek(PackedKey::before(volume, key.block_end()))?;
            }
        }
    }
}

impl Iterator for ChangedExtents {
    type Item = Result<ByteExtent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty()
            && let Err(error) = self.find_more()
        {
            self.ended = true;
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}

impl FusedIterator for ChangedExtents {}
