//! Merges runs into one run of a higher level, in steps of bounded work.
//!
//! A tournament of losers picks the next entry of all inputs; a filter may drop it. The merge proves itself: every input is
//! read whole and proved against its record, and the wrapping sum of the hashes of what was written and of what was dropped
//! equals that of what the inputs hold. If it does not, the merge fails and its output is void; the inputs stay as they are.
//!
//! Nothing is synced, and the output is not yet read back: the caller syncs the extents and calls [`Run::verify`] before
//! anything names the new run.

use super::{Entry, NextPiece, Run, RunMeta, RunWriter, pack::unpack, stream::RunStream, walk::Walk};
use crate::{
    error::{Damage, Error, Result},
    format::packed::{PackedEntry, PackedKey},
};
use std::sync::Arc;

/// Decides which entries live on. It is asked once for each, in the order of the index: ranges come before the blocks
/// inside them, and the versions of a cell from the newest to the oldest, so that the successor of a version is known
/// before the version.
pub trait Keep {
    /// Whether the entry is kept.
    fn keep(&mut self, entry: &Entry) -> bool;

    /// Called after the last entry: the place for the filter's own proof.
    ///
    /// # Errors
    /// Whatever says that the output must not be used.
    fn prove(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Keeps everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAll;

impl Keep for KeepAll {
    fn keep(&mut self, _: &Entry) -> bool {
        true
    }
}

/// How far a merge has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeStep {
    /// There is more to do.
    More {
        /// Entries that have been read.
        done: u64,
        /// Entries that there are.
        total: u64,
    },
    /// All is written; the run is to be synced and verified.
    Finished(RunMeta),
}

/// A merge under way. Dropping it leaves void output behind and the inputs untouched.
pub struct Merge<'a, K> {
    inputs: Vec<Arc<Run>>,
    tournament: Tournament,
    writer: Option<RunWriter<'a>>,
    keep: K,
    last: Option<PackedEntry>,
    done: u64,
    dropped: u64,
    dropped_sum: u64,
}

impl<'a, K: Keep> Merge<'a, K> {
    /// A merge of `inputs`, all of the same store, into a run of `level` that goes where `next_piece` says.
    ///
    /// # Errors
    /// `Damaged` and `Io` from the first pages of the inputs; `InvalidArgument` without inputs or with those of two stores.
    pub fn new(inputs: Vec<Arc<Run>>, level: u8, next_piece: NextPiece<'a>, keep: K) -> Result<Self> {
        let store = inputs.first().map(|run| run.store());
        let Some(store) = store.filter(|store| inputs.iter().all(|run| run.store() == *store)) else {
            return Err(Error::InvalidArgument("a merge needs runs, all of one store".to_owned()));
        };
        let streams =
            inputs.iter().map(|run| RunStream::whole(Arc::clone(run))).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            inputs,
            tournament: Tournament::new(streams),
            writer: Some(RunWriter::new(store, level, next_piece)),
            keep,
            last: None,
            done: 0,
            dropped: 0,
            dropped_sum: 0,
        })
    }

    /// Reads up to `entries_max` entries more.
    ///
    /// # Errors
    /// `Damaged` when an input is not what it should be or the proof fails; `Io`, `NoSpace`; what `next_piece` and the filter
    /// answer. After an error, and after the end, the merge is used up and answers `Poisoned`.
    pub fn step(&mut self, entries_max: u64) -> Result<MergeStep> {
        let Some(mut writer) = self.writer.take() else {
            return Err(Error::Poisoned("a merge of index runs has ended".to_owned()));
        };
        for _ in 0..entries_max {
            let Some(entry) = self.tournament.next()? else {
                return self.finish(writer);
            };
            self.done += 1;
            if self.is_kept(&entry)? {
                writer.push_packed(&entry)?;
            } else {
                self.dropped += 1;
                self.dropped_sum = self.dropped_sum.wrapping_add(entry.hash());
            }
        }
        self.writer = Some(writer);
        Ok(MergeStep::More { done: self.done, total: self.inputs.iter().map(|run| run.meta().entries).sum() })
    }

    fn is_kept(&mut self, entry: &PackedEntry) -> Result<bool> {
        // An input may repeat what another has; then one is enough. It may not contradict it.
        if let Some(last) = self.last.replace(*entry).filter(|last| last.key == entry.key) {
            if last == *entry {
                return Ok(false);
            }
            return Err(
                self.damaged(&format!("two contents for one version of a block: {:?}", unpack(entry)))
            );
        }
        Ok(self.keep.keep(&unpack(entry)))
    }

    fn finish(&mut self, writer: RunWriter<'a>) -> Result<MergeStep> {
        let output = writer.finish()?;
        let inputs = self.inputs.iter().map(|run| run.meta());
        let (sum, entries) = inputs.fold((0u64, 0u64), |(sum, entries), meta| {
            (sum.wrapping_add(meta.sum), entries.wrapping_add(meta.entries))
        });
        let same_sum = output.sum.wrapping_add(self.dropped_sum) == sum;
        if !same_sum || output.entries + self.dropped != entries || self.done != entries {
            return Err(self.damaged("a merge of index runs whose output is not its input"));
        }
        self.keep.prove()?;
        Ok(MergeStep::Finished(output))
    }

    /// The error for something wrong that no single page can be blamed for.
    fn damaged(&self, what: &str) -> Error {
        let metas = || self.inputs.iter().map(|run| run.meta());
        let piece = metas().flat_map(|meta| meta.pieces.first()).next();
        Error::Damaged(Box::new(Damage {
            extent: piece.map(|piece| piece.extent).unwrap_or_default(),
            file: "index runs that are being merged".to_owned(),
            offset: piece.map_or(0, |piece| piece.offset),
            length: metas().map(RunMeta::bytes).sum(),
            from_seq: metas().map(|meta| meta.seq_min).min().unwrap_or_default(),
            to_seq: metas().map(|meta| meta.seq_max).max().unwrap_or_default(),
            what: what.to_owned(),
        }))
    }
}

/// A tree of losers over the inputs: the winner's path is replayed when it moves on.
struct Tournament {
    streams: Vec<RunStream>,
    /// Key at which each stream stands; the end for those that pad the tree.
    keys: Vec<PackedKey>,
    /// For each match, from 1 on, who lost it; at 0 the winner of all.
    losers: Vec<usize>,
    started: bool,
}

impl Tournament {
    fn new(streams: Vec<RunStream>) -> Self {
        let leaves = streams.len().next_power_of_two();
        let mut keys: Vec<_> = streams.iter().map(Walk::key).collect();
        keys.resize(leaves, PackedKey::END);
        let mut winners: Vec<usize> = vec![0; leaves].into_iter().chain(0..leaves).collect();
        let mut losers = vec![0; leaves];
        for node in (1..leaves).rev() {
            let (left, right) = (winners[2 * node], winners[2 * node + 1]);
            let left_wins = keys[left] <= keys[right];
            (winners[node], losers[node]) = if left_wins { (left, right) } else { (right, left) };
        }
        losers[0] = winners[1];
        Self { streams, keys, losers, started: false }
    }

    /// The next entry of all.
    fn next(&mut self) -> Result<Option<PackedEntry>> {
        if self.started {
            let winner = self.losers[0];
            self.streams[winner].advance()?;
            self.keys[winner] = self.streams[winner].key();
            self.replay(winner);
        }
        self.started = true;
        let winner = self.losers[0];
        if self.keys[winner] == PackedKey::END {
            self.started = false;
            return Ok(None);
        }
        Ok(Some(self.streams[winner].entry()))
    }

    fn replay(&mut self, from: usize) {
        let (mut winner, mut key) = (from, self.keys[from]);
        let mut node = (from + self.losers.len()) / 2;
        while node > 0 {
            let other = self.losers[node];
            let other_key = self.keys[other];
            let other_wins = other_key < key;
            self.losers[node] = if other_wins { winner } else { other };
            winner = if other_wins { other } else { winner };
            key = if other_wins { other_key } else { key };
            node /= 2;
        }
        self.losers[0] = winner;
    }
}
