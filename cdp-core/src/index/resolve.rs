//! Which version each sector of a range had at a point.
//!
//! The range is taken in chunks. For each chunk the tables and then the runs, newest first, are walked once, forward, over
//! the blocks that could still learn something from them: a block is done with when its oldest sector so far is at least as
//! new as anything that the run holds. What a walk meets is the entries of those blocks and the ranges that begin among them;
//! ranges that begin before are looked up, a search for each level that the run has at all.
//!
//! A hole is passed over by `next_data`, so that its cost follows what is written in it, not its size.

use super::{View, walk::Walk};
use crate::{
    error::{Error, Result},
    format::packed::{LEVEL_MAX, PackedContent, PackedEntry, PackedKey},
    units::{Block, ExtentId, SECTORS_PER_BLOCK, Sector, Seq, VolumeId, len_u64, to_len},
};
use std::{hint::black_box, ops::Range};

/// Blocks that are resolved at a time.
const CHUNK_BLOCKS: u64 = 256;

/// Runs whose leaves are fetched side by side.
const GROUP_RUNS: usize = 8;

/// A part of the answer: sectors that read as zeroes, or sectors of one block that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Written as zeroes, discarded or never written.
    Zero {
        /// First sector.
        start: Sector,
        /// Number of sectors.
        sectors: u64,
    },
    /// Stored.
    Data {
        /// The block.
        block: Block,
        /// The sectors to take from here, a bit each; a part of `mask`, not always unbroken.
        take: u8,
        /// The sectors that are stored, one after the other.
        mask: u8,
        /// Segment that holds them.
        segment: ExtentId,
        /// Where they begin in it, in units of 512 bytes.
        sector: u32,
        /// Digest of all stored sectors.
        digest: u64,
        /// The version.
        seq: Seq,
    },
}

const NONE: u32 = u32::MAX;

/// What is known of one block so far. Seqs are kept as `seq + 1`, so that 0 is "never written".
#[derive(Clone, Copy)]
struct Slot {
    /// Smallest of `best`.
    floor: u64,
    best: [u64; 8],
    /// Index of the version of each sector, or [`NONE`].
    version: [u32; 8],
}

const EMPTY: Slot = Slot { floor: 0, best: [0; 8], version: [NONE; 8] };

/// The blocks that are being resolved.
struct Chunk {
    volume: u16,
    at: u64,
    first: u64,
    slots: Vec<Slot>,
    versions: Vec<(PackedContent, u64)>,
}

impl Chunk {
    fn new(volume: VolumeId, at: Seq, blocks: &Range<u64>) -> Self {
        let count = to_len(blocks.end - blocks.start);
        Self {
            volume: volume.get(),
            at: at.get(),
            first: blocks.start,
            slots: vec![EMPTY; count],
            versions: Vec::new(),
        }
    }

    fn end(&self) -> u64 {
        self.first + len_u64(self.slots.len())
    }

    /// First block at or after `from` that a version of seq `newest` could still change.
    fn wanting(&self, from: u64, newest: u64) -> Option<u64> {
        let slots = self.slots.get(to_len(from - self.first)..)?;
        slots.iter().position(|slot| slot.floor <= newest).map(|skip| from + len_u64(skip))
    }

    fn slot(&self, block: u64) -> &Slot {
        &self.slots[to_len(block - self.first)]
    }

    /// Lets a version compete for the sectors that it covers.
    fn offer(&mut self, entry: &PackedEntry) {
        let from = entry.key.block().max(self.first);
        let to = entry.key.block_end().min(self.end());
        if from >= to {
            return;
        }
        let (rank, mask) = (entry.key.seq() + 1, entry.content.mask());
        let version = u32::try_from(self.versions.len()).unwrap_or(NONE);
        let mut won = false;
        for slot in &mut self.slots[to_len(from - self.first)..to_len(to - self.first)] {
            if mask == 0xFF && slot.best == [0; 8] {
                *slot = Slot { floor: rank, best: [rank; 8], version: [version; 8] };
                won = true;
                continue;
            }
            for sector in 0..8 {
                if mask >> sector & 1 == 1 && slot.best[sector] < rank {
                    (slot.best[sector], slot.version[sector]) = (rank, version);
                    won = true;
                }
            }
            slot.floor = slot.best.iter().copied().fold(u64::MAX, u64::min);
        }
        if won {
            self.versions.push((entry.content, entry.key.seq()));
        }
    }

    /// Walks a table or run whose levels are `levels` and whose newest seq is `newest`.
    fn collect(&mut self, walk: &mut impl Walk, levels: u8, newest: u64) -> Result<()> {
        let newest = newest.min(self.at);
        let mut passed = 0;
        while let Some(block) = self.wanting(passed.max(self.first), newest) {
            self.offer_ranges_before(walk, levels, passed, block)?;
            passed = self.collect_from(walk, levels, newest, block)?;
        }
        Ok(())
    }

    /// Looks up the ranges that contain `block` and begin before it, but not before `passed`, the widest first.
    fn offer_ranges_before(
        &mut self,
        walk: &mut impl Walk,
        levels: u8,
        passed: u64,
        block: u64,
    ) -> Result<()> {
        for level in (1..=LEVEL_MAX).rev().filter(|level| levels >> level & 1 == 1) {
            let start = block >> (4 * u32::from(level)) << (4 * u32::from(level));
            if start >= passed && start < block {
                let key = PackedKey::new(self.volume, start, level, self.at);
                walk.seek(key)?;
                if walk.key().cell == key.cell {
                    self.offer(&walk.entry());
                }
            }
        }
        Ok(())
    }

    /// Takes what the walk meets from `block` on, until the next block wants nothing; answers the first block not looked at.
    fn collect_from(&mut self, walk: &mut impl Walk, levels: u8, newest: u64, block: u64) -> Result<u64> {
        walk.seek(self.first_key(levels, block))?;
        loop {
            let key = walk.key();
            if key.volume() != self.volume || key.block() >= self.end() || key == PackedKey::END {
                return Ok(self.end());
            }
            let block = key.block();
            if key.seq() > self.at {
                walk.seek(PackedKey { cell: key.cell, age: !self.at })?;
                continue;
            }
            let entry = walk.entry();
            if key.level() > 0 {
                self.offer(&entry);
                walk.seek(PackedKey::new(self.volume, block, key.level() - 1, self.at))?;
                continue;
            }
            if !self.collect_block(walk, entry)? {
                continue;
            }
            match self.wanting(block + 1, newest) {
                Some(next) if next == block + 1 => walk.seek(self.first_key(levels, next))?,
                _ => return Ok(block + 1),
            }
        }
    }

    /// Takes the versions of one block, from `entry` on, for as long as they can matter. Answers whether the walk may still
    /// stand inside the block.
    fn collect_block(&mut self, walk: &mut impl Walk, mut entry: PackedEntry) -> Result<bool> {
        let (cell, block) = (entry.key.cell, entry.key.block());
        let mut covered = 0;
        loop {
            if entry.key.seq() < self.slot(block).floor {
                return Ok(true);
            }
            self.offer(&entry);
            covered |= entry.content.mask();
            if covered == 0xFF {
                return Ok(true);
            }
            walk.advance()?;
            if walk.key().cell != cell {
                return Ok(false);
            }
            entry = walk.entry();
        }
    }

    /// The first key that can matter for `block` and what follows it: its newest version, or a range that begins with it.
    fn first_key(&self, levels: u8, block: u64) -> PackedKey {
        let aligned = |level: &u8| block.trailing_zeros() >= 4 * u32::from(*level);
        let level = (1..=LEVEL_MAX).rev().filter(|level| levels >> level & 1 == 1).find(aligned).unwrap_or(0);
        PackedKey::new(self.volume, block, level, self.at)
    }

    /// Writes out what was found; neighbouring zeroes become one piece.
    fn emit(&self, out: &mut Vec<Piece>) {
        for (index, slot) in self.slots.iter().enumerate() {
            let block = self.first + len_u64(index);
            if slot.version == [slot.version[0]; 8] {
                match self.stored(slot.version[0]) {
                    Some((content, seq)) => out.push(data(block, 0xFF, content, seq)),
                    None => push_zero(out, block * SECTORS_PER_BLOCK, SECTORS_PER_BLOCK),
                }
                continue;
            }
            let mut emitted = 0u8;
            for sector in 0..8 {
                if emitted >> sector & 1 == 1 {
                    continue;
                }
                let version = slot.version[sector];
                match self.stored(version) {
                    Some((content, seq)) => {
                        let take = (0..8).filter(|other| slot.version[*other] == version);
                        let take = take.fold(0u8, |mask, other| mask | 1 << other);
                        emitted |= take;
                        out.push(data(block, take, content, seq));
                    }
                    None => push_zero(out, block * SECTORS_PER_BLOCK + len_u64(sector), 1),
                }
            }
        }
    }

    fn stored(&self, version: u32) -> Option<(PackedContent, u64)> {
        let found = (version != NONE).then(|| self.versions[version as usize]);
        found.filter(|(content, _)| content.is_data())
    }

    /// Whether everything reads as zeroes.
    fn is_hole(&self) -> bool {
        self.versions.iter().all(|(content, _)| !content.is_data())
    }
}

fn data(block: u64, take: u8, content: PackedContent, seq: u64) -> Piece {
    Piece::Data {
        block: Block::new(block),
        take,
        mask: content.mask(),
        segment: ExtentId::new(content.segment),
        sector: content.sector(),
        digest: content.digest,
        seq: Seq::new(seq),
    }
}

fn push_zero(out: &mut Vec<Piece>, first: u64, count: u64) {
    if let Some(Piece::Zero { start, sectors }) = out.last_mut()
        && start.get() + *sectors == first
    {
        *sectors += count;
        return;
    }
    out.push(Piece::Zero { start: Sector::new(first), sectors: count });
}

impl View {
    /// Appends to `out` where the sectors of `blocks` blocks from `first` have their content at the point `at`, in ascending
    /// order of their first sectors. The answer covers each sector once.
    ///
    /// # Errors
    /// `Damaged` when the index of the range is damaged, or a lost frame may hold a newer version of a sector; `Io`;
    /// `InvalidArgument` past the largest volume. What was appended is then undefined.
    pub fn resolve(
        &self,
        volume: VolumeId,
        first: Block,
        blocks: u64,
        at: Seq,
        out: &mut Vec<Piece>,
    ) -> Result<()> {
        let range = Self::range(first, first.checked_add(blocks))?;
        let mut next = range.start;
        while next < range.end {
            let part = next..(next + CHUNK_BLOCKS).min(range.end);
            let chunk = self.resolve_chunk(volume, at, &part)?;
            chunk.emit(out);
            next = part.end;
            if next < range.end && chunk.is_hole() {
                let data = self.next_data(volume, Block::new(next), Block::new(range.end), at)?;
                let data = data.map_or(range.end, Block::get);
                if data > next {
                    push_zero(out, next * SECTORS_PER_BLOCK, (data - next) * SECTORS_PER_BLOCK);
                }
                next = data;
            }
        }
        Ok(())
    }

    fn resolve_chunk(&self, volume: VolumeId, at: Seq, blocks: &Range<u64>) -> Result<Chunk> {
        let mut chunk = Chunk::new(volume, at, blocks);
        for table in &self.memtables {
            let guard = table.read();
            if let Some((levels, oldest, newest)) = guard.summary()
                && oldest <= at.get()
            {
                chunk.collect(&mut guard.walk(), levels, newest)?;
            }
        }
        let runs = self.newest_first();
        let reached = runs.iter().filter(|run| run.meta().seq_min <= at && run.meta().entries > 0);
        let mut rest = reached.peekable();
        let mut group = Vec::with_capacity(GROUP_RUNS.min(runs.len()));
        // The runs that follow one are older still.
        while let Some(run) = rest.peek()
            && let Some(block) = chunk.wanting(blocks.start, run.meta().seq_max.min(at).get())
        {
            group.extend(rest.by_ref().take(GROUP_RUNS).map(|run| (run.cursor(), run.meta())));
            for (cursor, meta) in &mut group {
                // With ranges the search begins elsewhere.
                if meta.levels_mask == 1 {
                    cursor.approach(chunk.first_key(1, block))?;
                }
            }
            // In rounds, because where to look next depends on what was read.
            black_box(group.iter().fold(0, |all, (cursor, _)| all ^ cursor.touch_slots()));
            group.iter_mut().try_for_each(|(cursor, _)| cursor.take_leaf())?;
            black_box(group.iter().fold(0, |all, (cursor, _)| all ^ cursor.touch_header()));
            black_box(group.iter().fold(0, |all, (cursor, _)| all ^ cursor.touch_entries()));
            for (cursor, meta) in &mut group {
                chunk.collect(cursor, meta.levels_mask, meta.seq_max.get())?;
            }
            group.clear();
        }
        if let Some((seq, lost)) = self.lost_below(at)
            && chunk.wanting(blocks.start, seq.get()).is_some()
        {
            return Err(Error::Damaged(Box::new(lost.damage.clone())));
        }
        Ok(chunk)
    }
}
