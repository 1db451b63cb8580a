//! The map in memory.
//!
//! A block is clean, dirty or in resync; in resync counts as dirty in every claim. It becomes dirty by [`DirtyMap::set`], goes into
//! resync by [`DirtyMap::begin`], and is clean when the token that `begin` gave is told so and no set came in between.
//!
//! Invariants:
//! - *Justified clear*: there is no way to clear a bit but to begin a resync of it, and no way to end one as clean but by its token.
//! - *One reader*: a block is in at most one run in resync, so that an older read can never be recorded after a newer one.
//! - *Never neither*: a run is noted as in resync in the same critical section in which its bits are cleared.
//! - *Everything from `all_from` on is dirty*, whatever the bits say. That makes [`DirtyMap::set_all`] one store.
//!   The mark moves up only over blocks whose bits were set before.
//!
//! The lock is taken by searches, tokens and claims, never by a set.

use super::{
    bits::{Bits, words_of},
    shape::{ByteRange, Granularity, Shape},
    sync::{AtomicU64, Mutex},
};
use crate::{
    Error, Result,
    limits::RESYNC_RUNS_MAX,
    sabotage::{Sabotage, Switch},
    units::len_u64,
};
use std::{
    fmt, io,
    ops::Range,
    sync::{Arc, atomic::Ordering::SeqCst},
};

/// Most blocks that a search looks at under one lock.
const PIECE_BLOCKS_MAX: u64 = 1 << 20;
/// Fewest blocks by which the mark of "all dirty" moves up.
const MARK_STEP_BLOCKS: u64 = 1 << 16;

/// What else belongs to a map in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapOptions {
    /// Deliberate defects, for tests.
    pub sabotage: Sabotage,
}

/// Which blocks of a volume are not known to be in a consumer. Any number of threads.
#[derive(Debug)]
pub struct DirtyMap {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    shape: Shape,
    bits: Bits,
    all_from: AtomicU64,
    runs: Mutex<Runs>,
    sabotage: Sabotage,
}

/// The runs in resync, at most [`RESYNC_RUNS_MAX`], in no order. They never overlap.
#[derive(Debug)]
struct Runs(Vec<Range<u64>>);

impl Runs {
    /// The run that holds a block.
    fn of(&self, block: u64) -> Option<&Range<u64>> {
        self.0.iter().find(|run| run.contains(&block))
    }

    /// The first block at or after `from` that is in resync.
    fn next(&self, from: u64) -> Option<u64> {
        self.0.iter().filter(|run| run.end > from).map(|run| run.start.max(from)).min()
    }
}

impl Shared {
    fn marked(&self) -> u64 {
        self.all_from.load(SeqCst)
    }

    /// Moves the mark of "all dirty" up to at least `to`, having set the bits below it. With the lock held.
    ///
    /// A `set_all` in between puts the mark back to 0, which makes the exchange fail. One that comes when it is 0 already
    /// changes nothing, and needs not: the bits below `end` are set, and nobody clears them before the lock is free.
    fn move_mark(&self, to: u64) {
        let to = to.min(self.shape.blocks());
        loop {
            let mark = self.marked();
            if mark >= to {
                return;
            }
            let end = to.max(mark.saturating_add(MARK_STEP_BLOCKS)).min(self.shape.blocks());
            self.bits.set(mark..end);
            let _ = self.all_from.compare_exchange(mark, end, SeqCst, SeqCst);
        }
    }

    /// The first dirty block at or after `from`. With the lock held.
    fn next_dirty(&self, from: u64) -> Option<u64> {
        let mark = self.marked().max(from);
        let marked = (mark < self.shape.blocks()).then_some(mark);
        self.bits.find(from).into_iter().chain(marked).min()
    }

    /// The first block of the claim at or after `from`. With the lock held.
    fn next_claimed(&self, runs: &Runs, from: u64) -> Option<u64> {
        self.next_dirty(from).into_iter().chain(runs.next(from)).min()
    }

    /// The first run of the claim at or after `from`, cut where it would take long to look on. With the lock held.
    fn next_piece(&self, runs: &Runs, from: u64) -> Option<Range<u64>> {
        let start = self.next_claimed(runs, from)?;
        let (blocks, mark) = (self.shape.blocks(), self.marked());
        let limit = start.saturating_add(PIECE_BLOCKS_MAX).min(blocks);
        let mut end = start;
        while end < limit {
            if end >= mark {
                return Some(start..blocks);
            }
            let next = match runs.of(end) {
                Some(run) => run.end,
                None => self.bits.find_clear(end, limit.min(mark)),
            };
            if next == end {
                break;
            }
            end = next;
        }
        Some(start..end)
    }

    /// Dirty blocks in a range. With the lock held.
    fn dirty_in(&self, blocks: Range<u64>) -> u64 {
        let mark = self.marked().clamp(blocks.start, blocks.end);
        self.bits.count_in(blocks.start..mark) + (blocks.end - mark)
    }

    /// Ends a run: `clean` are its blocks that are now in the consumer, the rest is dirty again.
    fn end(&self, run: &Range<u64>, clean: Range<u64>) {
        let mut runs = self.runs.lock();
        let clean = clean.start.clamp(run.start, run.end)..clean.end.clamp(run.start, run.end);
        if clean.is_empty() {
            self.bits.set(run.clone());
        } else {
            self.bits.set(run.start..clean.start);
            self.bits.set(clean.end..run.end);
            if self.sabotage.on(Switch::CleanOlderVersion) {
                self.bits.clear(clean);
            }
        }
        runs.0.retain(|other| other.start != run.start);
    }
}

impl DirtyMap {
    /// An empty map of a volume of `bytes` bytes. Memory for all of it is reserved; pages take none until something is set in them.
    ///
    /// # Errors
    /// `InvalidArgument` when `bytes` is zero, no multiple of 512 or more than
    /// [`VOLUME_BYTES_MAX`](crate::limits::VOLUME_BYTES_MAX); `Io` when the memory cannot be reserved.
    pub fn new(bytes: u64, granularity: Granularity) -> Result<Self> {
        Self::with_options(Shape::new(bytes, granularity)?, MapOptions::default())
    }

    /// As [`DirtyMap::new`].
    ///
    /// # Errors
    /// `Io` when the memory cannot be reserved.
    pub fn with_options(shape: Shape, options: MapOptions) -> Result<Self> {
        let no_memory = || Error::io("reserve memory for", "a dirty map", io::ErrorKind::OutOfMemory.into());
        let bits = Bits::new(shape.blocks()).ok_or_else(no_memory)?;
        let mut runs = Vec::new();
        runs.try_reserve_exact(RESYNC_RUNS_MAX).map_err(|_| no_memory())?;
        let all_from = AtomicU64::new(shape.blocks());
        let runs = Mutex::new(Runs(runs));
        Ok(Self { shared: Arc::new(Shared { shape, bits, all_from, runs, sabotage: options.sabotage }) })
    }

    /// Size and granularity.
    pub fn shape(&self) -> Shape {
        self.shared.shape
    }

    /// Another handle of the same map.
    pub(crate) fn share(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }

    /// The options that it was made with.
    pub(crate) fn options(&self) -> MapOptions {
        MapOptions { sabotage: self.shared.sabotage }
    }

    /// Makes every block that `range` touches dirty. What lies past the end of the volume is ignored.
    ///
    /// Lock-free, allocates nothing and does no I/O. A run that is being resynced is dirty again whatever becomes of its token.
    pub fn set(&self, range: ByteRange) {
        let shared = &self.shared;
        // What nearly every write is: one block.
        if !shared.shape.single(range).is_some_and(|block| shared.bits.set_one(block)) {
            self.put(range);
        }
    }

    #[inline(never)]
    fn put(&self, range: ByteRange) {
        let blocks = self.shared.shape.outward(range);
        if blocks == (0..self.shared.shape.blocks()) {
            self.set_all();
        } else {
            self.shared.bits.set(blocks);
        }
    }

    /// Makes every block dirty, at the cost of one store.
    pub fn set_all(&self) {
        self.shared.all_from.swap(0, SeqCst);
    }

    /// The next dirty run at or after block `from_block`, at most `blocks_max` blocks, goes into resync.
    ///
    /// `None` when nothing there is dirty that is not in resync already, when [`RESYNC_RUNS_MAX`] runs are in resync, or when
    /// `blocks_max` is 0. A block that became dirty again in resync is given out when its token is done.
    pub fn begin(&self, from_block: u64, blocks_max: u64) -> Option<InResync> {
        let shared = &self.shared;
        let mut runs = shared.runs.lock();
        if blocks_max == 0 || runs.0.len() >= RESYNC_RUNS_MAX {
            return None;
        }
        let mut from = from_block;
        loop {
            let start = shared.next_dirty(from)?;
            if let Some(run) = runs.of(start) {
                from = run.end;
                continue;
            }
            let limit = start.saturating_add(blocks_max).min(shared.shape.blocks());
            let limit = limit.min(runs.next(start).unwrap_or(limit));
            shared.move_mark(limit);
            let run = start..shared.bits.find_clear(start, limit);
            runs.0.push(run.clone());
            shared.bits.clear(run.clone());
            return Some(InResync { map: Arc::clone(shared), run, ended: false });
        }
    }

    /// Whether nothing is dirty and nothing is in resync.
    pub fn is_empty(&self) -> bool {
        self.shared.next_claimed(&self.shared.runs.lock(), 0).is_none()
    }

    /// Blocks that are dirty or in resync. Exact when nobody sets bits meanwhile. They are counted: up to some milliseconds for 1 TiB in blocks
    /// of 4 KiB.
    pub fn weight(&self) -> u64 {
        let runs = self.shared.runs.lock();
        let blocks = self.shared.shape.blocks();
        let dirty = self.shared.dirty_in(0..blocks);
        let len = |run: &Range<u64>| run.end - run.start;
        let clean: u64 = runs.0.iter().map(|run| len(run) - self.shared.dirty_in(run.clone())).sum();
        dirty + clean
    }

    /// Whether any block that `range` touches is dirty or in resync.
    pub fn is_dirty(&self, range: ByteRange) -> bool {
        let blocks = self.shared.shape.outward(range);
        let claimed = self.shared.next_claimed(&self.shared.runs.lock(), blocks.start);
        claimed.is_some_and(|block| block < blocks.end)
    }

    /// The first dirty block at or after block `from_block`; blocks that are only in resync do not count.
    pub fn next_dirty(&self, from_block: u64) -> Option<u64> {
        let _runs = self.shared.runs.lock();
        self.shared.next_dirty(from_block)
    }

    /// The claim: ranges of bytes that are dirty or in resync, ascending, merged, the last one clipped to the end of the volume.
    ///
    /// A block that is claimed all the time while this runs is among them, also when it goes from dirty to in resync and back.
    pub fn extents(&self) -> Extents<'_> {
        Extents { map: self, next_block: 0, piece: None }
    }

    /// Makes everything dirty that `other` claims. A coarser block of `other` makes all blocks in it dirty.
    ///
    /// # Errors
    /// `InvalidArgument` when the maps are of volumes of different sizes; nothing was merged.
    pub fn merge(&self, other: &Self) -> Result<()> {
        let (own, theirs) = (self.shape().bytes(), other.shape().bytes());
        if own != theirs {
            let text = format!("a dirty map of {theirs} bytes cannot be merged into one of {own} bytes");
            return Err(Error::InvalidArgument(text));
        }
        if self.shared.sabotage.on(Switch::MergeOverwrites) {
            let _runs = self.shared.runs.lock();
            self.shared.move_mark(u64::MAX);
            self.shared.bits.clear(0..self.shape().blocks());
        }
        other.extents().for_each(|range| self.set(range));
        Ok(())
    }

    /// Makes every block dirty that one of `ranges` touches.
    ///
    /// # Errors
    /// `OutOfRange` for the first range that reaches past the end of the volume; those before it are dirty.
    pub fn import(&self, ranges: impl IntoIterator<Item = ByteRange>) -> Result<()> {
        for range in ranges {
            self.shape().check(range)?;
            self.set(range);
        }
        Ok(())
    }

    /// The map of the volume after it was given another size: what is claimed stays dirty, and all that is new is dirty.
    ///
    /// Sets that come while this runs may be missing in the new map: hold writes back, or set in both. Runs that are in resync are
    /// dirty in the new map; their tokens belong to the old one.
    ///
    /// # Errors
    /// As [`DirtyMap::new`].
    pub fn resized(&self, new_bytes: u64) -> Result<Self> {
        let map = Self::with_options(Shape::new(new_bytes, self.shape().granularity())?, self.options())?;
        self.extents().for_each(|range| map.set(range));
        let old_bytes = self.shape().bytes();
        map.set(ByteRange::new(old_bytes, new_bytes.saturating_sub(old_bytes)));
        Ok(map)
    }

    /// The first block at or after `from_block` that is dirty or in resync.
    pub(crate) fn next_claimed(&self, from_block: u64) -> Option<u64> {
        self.shared.next_claimed(&self.shared.runs.lock(), from_block)
    }

    /// Copies the claim of the blocks from `first_block`, a multiple of 64, on; bits past the end are clear.
    pub(crate) fn claim_words(&self, first_block: u64, out: &mut [u64]) {
        let shared = &self.shared;
        let blocks = first_block..shared.shape.blocks().min(first_block + len_u64(out.len()) * 64);
        let runs = shared.runs.lock();
        let starts = (first_block..).step_by(64);
        for (at, word) in starts.zip(out.iter_mut()) {
            *word = if at < blocks.end { shared.bits.word(at) } else { 0 };
        }
        let marked = shared.marked()..blocks.end;
        for run in runs.0.iter().chain(std::iter::once(&marked)) {
            let part = run.start.max(blocks.start)..run.end.min(blocks.end).max(blocks.start);
            if !part.is_empty() {
                for (word, mask) in words_of(part.start - first_block..part.end - first_block) {
                    out[word] |= mask;
                }
            }
        }
    }

    /// Makes blocks dirty; those past the end are ignored.
    pub(crate) fn set_blocks(&self, blocks: Range<u64>) {
        self.shared.bits.set(blocks.start..blocks.end.min(self.shared.shape.blocks()).max(blocks.start));
    }

    /// Makes the blocks dirty that `words` names, from `first_block`, a multiple of 64, on; bits past the end are ignored.
    pub(crate) fn set_words(&self, first_block: u64, words: &[u64]) {
        self.shared.bits.set_words(first_block, words);
    }
}

/// A run of blocks in resync: a token without which they cannot become clean.
///
/// Read the run from the source after this was given, record what was read, and call [`InResync::clean`] when the record is durable at the
/// consumer. Dropped, the run is dirty again.
#[must_use = "dropped, the run is dirty again"]
pub struct InResync {
    map: Arc<Shared>,
    run: Range<u64>,
    ended: bool,
}

impl InResync {
    /// The bytes of the run, clipped to the end of the volume.
    pub fn range(&self) -> ByteRange {
        self.map.shape.bytes_of(self.run.clone())
    }

    /// First block of the run.
    pub fn first_block(&self) -> u64 {
        self.run.start
    }

    /// Number of blocks of the run.
    pub fn blocks(&self) -> u64 {
        self.run.end - self.run.start
    }

    /// What was read of the run is durable at the consumer: its blocks are clean, but for those that were set meanwhile.
    pub fn clean(mut self) {
        self.ended = true;
        self.map.end(&self.run, self.run.clone());
    }

    /// Only `read` of the run was read and is durable: the blocks that it covers whole are clean, the others are dirty again.
    pub fn clean_only(mut self, read: ByteRange) {
        self.ended = true;
        let covered = if self.map.sabotage.on(Switch::CleanPartialBlock) {
            self.map.shape.outward(read)
        } else {
            self.map.shape.inward(read)
        };
        self.map.end(&self.run, covered);
    }

    /// The run is dirty again.
    pub fn abandon(self) {}
}

impl Drop for InResync {
    fn drop(&mut self) {
        if !self.ended {
            self.map.end(&self.run, 0..0);
        }
    }
}

impl fmt::Debug for InResync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InResync({:?})", self.run)
    }
}

/// The claim of a map, in bytes; see [`DirtyMap::extents`].
#[derive(Debug)]
pub struct Extents<'a> {
    map: &'a DirtyMap,
    next_block: u64,
    /// A piece that was found and not yet given.
    piece: Option<Range<u64>>,
}

impl Extents<'_> {
    fn next_piece(&mut self) -> Option<Range<u64>> {
        let shared = &self.map.shared;
        let piece = shared.next_piece(&shared.runs.lock(), self.next_block)?;
        self.next_block = piece.end;
        Some(piece)
    }
}

impl Iterator for Extents<'_> {
    type Item = ByteRange;

    fn next(&mut self) -> Option<ByteRange> {
        let mut merged = match self.piece.take() {
            Some(piece) => piece,
            None => self.next_piece()?,
        };
        while let Some(piece) = self.next_piece() {
            if piece.start != merged.end {
                self.piece = Some(piece);
                break;
            }
            merged.end = piece.end;
        }
        Some(self.map.shape().bytes_of(merged))
    }
}
