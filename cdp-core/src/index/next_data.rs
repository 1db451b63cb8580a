//! Where the next stored block of a volume is at a point: what lets a restore pass over holes.
//!
//! All tables and runs are walked side by side in the order of the index, from the given block on. A range that reads as
//! zeroes hides what is older; a run that has nothing newer jumps over all of it.

use super::{View, memtable::MemSnapshot, walk::Walk};
use crate::{
    error::Result,
    format::packed::{LEVEL_MAX, PackedEntry, PackedKey},
    units::{Block, Seq, VolumeId},
};
use std::sync::Arc;

/// One table or run.
struct Source<'v> {
    walk: Box<dyn Walk + 'v>,
    levels: u8,
    newest: u64,
}

/// The range of a level that was met last.
#[derive(Clone, Copy, Default)]
struct Cover {
    /// First block after it.
    end: u64,
    /// Its newest seq + 1.
    rank: u64,
}

struct Search<'v> {
    volume: u16,
    at: u64,
    sources: Vec<Source<'v>>,
    covers: [Cover; LEVEL_MAX as usize + 1],
    /// The block that is being looked at, and its sectors that read as zeroes.
    block: u64,
    hidden: u8,
}

impl View {
    /// The first block in `from..to` that has stored content at the point `at`. Where damage may hide content the answer is
    /// the first block that it may hide, so that reading there says so.
    ///
    /// # Errors
    /// As [`View::resolve`].
    pub fn next_data(&self, volume: VolumeId, from: Block, to: Block, at: Seq) -> Result<Option<Block>> {
        let range = Self::range(from, Some(to))?;
        if range.is_empty() || self.lost_below(at).is_some() {
            return Ok((!range.is_empty()).then_some(from));
        }
        let mut sources = Vec::new();
        for table in &self.memtables {
            let summary = table.read().summary();
            if let Some((levels, oldest, newest)) = summary
                && oldest <= at.get()
            {
                let walk = Box::new(MemSnapshot::new(Arc::clone(table)));
                sources.push(Source { walk, levels, newest: newest.min(at.get()) });
            }
        }
        for run in self.runs.iter().filter(|run| run.meta().seq_min <= at) {
            let newest = run.meta().seq_max.min(at).get();
            sources.push(Source { walk: Box::new(run.cursor()), levels: run.meta().levels_mask, newest });
        }
        let mut search = Search {
            volume: volume.get(),
            at: at.get(),
            sources,
            covers: [Cover::default(); LEVEL_MAX as usize + 1],
            block: from.get(),
            hidden: 0,
        };
        search.start(from.get())?;
        search.find(range.end).map(|found| found.map(Block::new))
    }
}

impl Search<'_> {
    /// Looks up the ranges that reach over `from`, and stands there.
    fn start(&mut self, from: u64) -> Result<()> {
        let (volume, at) = (self.volume, self.at);
        for index in 0..self.sources.len() {
            for level in (1..=LEVEL_MAX).rev() {
                let source = &mut self.sources[index];
                let start = from >> (4 * u32::from(level)) << (4 * u32::from(level));
                if source.levels >> level & 1 == 0 || start == from {
                    continue;
                }
                let key = PackedKey::new(volume, start, level, at);
                source.walk.seek(key)?;
                if source.walk.key().cell == key.cell {
                    let entry = source.walk.entry();
                    self.cover(&entry);
                }
            }
            self.sources[index].walk.seek(PackedKey::new(volume, from, LEVEL_MAX, at))?;
        }
        Ok(())
    }

    /// Notes a range.
    fn cover(&mut self, entry: &PackedEntry) {
        let cover = &mut self.covers[usize::from(entry.key.level())];
        let (end, rank) = (entry.key.block_end(), entry.key.seq() + 1);
        *cover = Cover { end, rank: if cover.end == end { cover.rank.max(rank) } else { rank } };
    }

    fn find(&mut self, to: u64) -> Result<Option<u64>> {
        loop {
            let nearest = self.sources.iter_mut().min_by_key(|source| source.walk.key());
            let Some(source) = nearest else { return Ok(None) };
            let key = source.walk.key();
            let block = key.block();
            if key == PackedKey::END || key.volume() != self.volume || block >= to {
                return Ok(None);
            }
            let covers = self.covers.iter().filter(|cover| cover.end > block);
            let after =
                covers.clone().filter(|cover| cover.rank > source.newest).map(|cover| cover.end).max();
            if let Some(end) = after {
                source.walk.seek(PackedKey::before(self.volume, end))?;
                continue;
            }
            if key.seq() > self.at {
                source.walk.seek(PackedKey { cell: key.cell, age: !self.at })?;
                continue;
            }
            let entry = source.walk.entry();
            if key.level() > 0 {
                source.walk.seek(PackedKey::new(self.volume, block, key.level() - 1, self.at))?;
                self.cover(&entry);
                continue;
            }
            if block != self.block {
                (self.block, self.hidden) = (block, 0);
            }
            let covered = covers.map(|cover| cover.rank).max().unwrap_or(0);
            if key.seq() < covered || self.hidden == 0xFF {
                source.walk.seek(PackedKey::before(self.volume, block + 1))?;
                continue;
            }
            if entry.content.is_data() {
                if entry.content.mask() & !self.hidden != 0 {
                    return Ok(Some(block));
                }
            } else {
                self.hidden |= entry.content.mask();
            }
            source.walk.advance()?;
        }
    }
}
