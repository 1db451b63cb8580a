//! The index of what is not sealed yet: a sorted map in memory.
//!
//! One thread inserts, any number look up. The lock is held for one batch, one lookup or one chunk of a walk, never across
//! I/O. A B-tree of packed keys was measured against the typed key (1.4 times slower), a concurrent skip list (3 times
//! slower) and a hash of blocks (1.3 times faster to fill, but without order, which ranges and changed blocks need).
//!
//! Invariant *one version, one entry*: a key is never given two contents. Fails when it would be, and leaves the table as it
//! was before the batch.

use super::{
    Entry, Key,
    pack::{pack, unpack, unpack_key},
    walk::Walk,
};
use crate::{
    error::{Error, Result},
    format::packed::{PackedContent, PackedEntry, PackedKey},
    units::Seq,
};
use parking_lot::{RwLock, RwLockReadGuard};
use std::{
    collections::{BTreeMap, HashSet, btree_map},
    ops::Bound,
    sync::Arc,
};

/// Entries that a walk copies at a time while it holds the lock.
const SNAPSHOT_ENTRIES: usize = 256;

#[derive(Debug, Default)]
struct Table {
    map: BTreeMap<PackedKey, PackedContent>,
    seqs: Option<(u64, u64)>,
    levels: u8,
}

impl Table {
    fn note(&mut self, key: PackedKey) {
        let seq = key.seq();
        self.seqs = Some(self.seqs.map_or((seq, seq), |(low, high)| (low.min(seq), high.max(seq))));
        self.levels |= 1 << key.level();
    }
}

/// Entries in memory, in order.
#[derive(Debug, Default)]
pub struct MemTable(RwLock<Table>);

impl MemTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a batch of entries, in any order, all or nothing. An entry that is there already is taken once.
    ///
    /// # Errors
    /// `InvalidArgument` when an entry breaks a rule of [`Entry`], or gives a version that is there another content. The
    /// table is then as it was.
    pub fn insert(&self, entries: &[Entry]) -> Result<()> {
        // Most writes are one block, and need no memory for lists of one.
        if let [entry] = entries {
            return self.insert_one(entry);
        }
        let packed = entries.iter().map(pack).collect::<Result<Vec<_>>>()?;
        let mut table = self.0.write();
        let mut known = Vec::new();
        for (index, entry) in packed.iter().enumerate() {
            match table.map.entry(entry.key) {
                btree_map::Entry::Vacant(place) => {
                    place.insert(entry.content);
                }
                btree_map::Entry::Occupied(place) if *place.get() == entry.content => known.push(index),
                btree_map::Entry::Occupied(_) => {
                    for (taken, entry) in packed[..index].iter().enumerate() {
                        if known.binary_search(&taken).is_err() {
                            table.map.remove(&entry.key);
                        }
                    }
                    return Err(second_content(entry));
                }
            }
        }
        for entry in &packed {
            table.note(entry.key);
        }
        Ok(())
    }

    fn insert_one(&self, entry: &Entry) -> Result<()> {
        let packed = pack(entry)?;
        let mut table = self.0.write();
        match table.map.entry(packed.key) {
            btree_map::Entry::Vacant(place) => {
                place.insert(packed.content);
            }
            btree_map::Entry::Occupied(place) if *place.get() == packed.content => {}
            btree_map::Entry::Occupied(_) => return Err(second_content(&packed)),
        }
        table.note(packed.key);
        Ok(())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.read().map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Smallest and largest seq, if there are entries.
    pub fn seqs(&self) -> Option<(Seq, Seq)> {
        self.0.read().seqs.map(|(low, high)| (Seq::new(low), Seq::new(high)))
    }

    /// Levels of cells that occur, a bit each.
    pub fn levels(&self) -> u8 {
        self.0.read().levels
    }

    /// Shows all entries in order, while inserts wait: for a table that takes no more.
    ///
    /// # Errors
    /// The first that `visitor` answers, which ends the walk.
    pub fn for_each(&self, mut visitor: impl FnMut(&Entry) -> Result<()>) -> Result<()> {
        let table = self.0.read();
        table
            .map
            .iter()
            .try_for_each(|(key, content)| visitor(&unpack(&PackedEntry { key: *key, content: *content })))
    }

    /// A table of all entries but those of `gone`. This one stays as it is, for readers that hold it.
    pub fn without(&self, gone: &HashSet<Key>) -> Self {
        let table = self.0.read();
        let mut left = Table::default();
        for (key, content) in &table.map {
            if !gone.contains(&unpack_key(*key)) {
                left.map.insert(*key, *content);
                left.note(*key);
            }
        }
        Self(RwLock::new(left))
    }

    /// The table under its lock, for one lookup.
    pub(super) fn read(&self) -> MemGuard<'_> {
        MemGuard(self.0.read())
    }
}

fn second_content(entry: &PackedEntry) -> Error {
    Error::InvalidArgument(format!("a second content for one version of a block: {:?}", unpack(entry)))
}

/// A table that does not change while this is held. Not to be held across I/O.
pub(super) struct MemGuard<'a>(RwLockReadGuard<'a, Table>);

impl MemGuard<'_> {
    /// Levels and seqs, unless it is empty.
    pub fn summary(&self) -> Option<(u8, u64, u64)> {
        self.0.seqs.map(|(low, high)| (self.0.levels, low, high))
    }

    /// A walk over the table.
    pub fn walk(&self) -> MemWalk<'_> {
        MemWalk { map: &self.0.map, rest: None, current: None }
    }
}

/// A walk over a table under its lock.
pub(super) struct MemWalk<'a> {
    map: &'a BTreeMap<PackedKey, PackedContent>,
    rest: Option<btree_map::Range<'a, PackedKey, PackedContent>>,
    current: Option<PackedEntry>,
}

impl MemWalk<'_> {
    fn step(&mut self) {
        let next = self.rest.as_mut().and_then(Iterator::next);
        self.current = next.map(|(key, content)| PackedEntry { key: *key, content: *content });
    }
}

impl Walk for MemWalk<'_> {
    fn seek(&mut self, key: PackedKey) -> Result<()> {
        // The next few entries are nearer than a descent.
        for _ in 0..4 {
            match &self.current {
                Some(entry) if entry.key >= key => return Ok(()),
                Some(_) => self.step(),
                None if self.rest.is_some() => return Ok(()),
                None => break,
            }
        }
        self.rest = Some(self.map.range((Bound::Included(key), Bound::Unbounded)));
        self.step();
        Ok(())
    }

    fn advance(&mut self) -> Result<()> {
        self.step();
        Ok(())
    }

    fn key(&self) -> PackedKey {
        self.current.map_or(PackedKey::END, |entry| entry.key)
    }

    fn entry(&self) -> PackedEntry {
        self.current.unwrap_or_default()
    }
}

/// A walk over a table that may grow meanwhile: copies a chunk at a time and holds the lock for that long. Entries that come
/// in between are met or not; a reader does not look at seqs that are so new.
pub(super) struct MemSnapshot {
    table: Arc<MemTable>,
    chunk: Vec<PackedEntry>,
    at: usize,
    ended: bool,
}

impl MemSnapshot {
    pub fn new(table: Arc<MemTable>) -> Self {
        Self { table, chunk: Vec::new(), at: 0, ended: false }
    }

    fn fill(&mut self, from: Bound<PackedKey>) {
        let table = self.table.0.read();
        let rest = table.map.range((from, Bound::Unbounded));
        self.chunk.clear();
        self.at = 0;
        self.chunk.extend(
            rest.take(SNAPSHOT_ENTRIES).map(|(key, content)| PackedEntry { key: *key, content: *content }),
        );
        self.ended = self.chunk.is_empty();
    }
}

impl Walk for MemSnapshot {
    fn seek(&mut self, key: PackedKey) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.at += self.chunk[self.at..].partition_point(|entry| entry.key < key);
        if self.at == self.chunk.len() {
            self.fill(Bound::Included(key));
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<()> {
        if let Some(last) = self.chunk.get(self.at).map(|entry| entry.key) {
            self.at += 1;
            if self.at == self.chunk.len() {
                self.fill(Bound::Excluded(last));
            }
        }
        Ok(())
    }

    fn key(&self) -> PackedKey {
        self.chunk.get(self.at).map_or(PackedKey::END, |entry| entry.key)
    }

    fn entry(&self) -> PackedEntry {
        self.chunk.get(self.at).copied().unwrap_or_default()
    }
}
