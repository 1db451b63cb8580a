//! Walks over many runs as one row in the order of the index.
//!
//! A tournament of losers picks the next entry of all runs. Every run is read whole and proved against its record on the way, so who
//! scans to the end has verified what he scanned. The same version may stand in two runs; two contents for one version are damage.

use super::{Run, RunMeta, pack::unpack, stream::RunStream, walk::Walk};
use crate::{
    error::{Damage, Error, Result},
    format::packed::{PackedEntry, PackedKey},
};
use std::sync::Arc;

/// An entry met by a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// The entry.
    pub entry: PackedEntry,
    /// The run that holds it, by its place in the row of runs.
    pub run: usize,
    /// Whether the entry before was the same, from another run.
    pub repeats: bool,
}

/// A walk over all entries of some runs.
pub struct Scan {
    runs: Vec<Arc<Run>>,
    tournament: Tournament,
    last: Option<PackedEntry>,
    done: u64,
}

impl Scan {
    /// A scan of runs, all of the same store.
    ///
    /// # Errors
    /// `Damaged` and `Io` from their first pages; `InvalidArgument` without runs or with those of two stores.
    pub fn new(runs: Vec<Arc<Run>>) -> Result<Self> {
        let store = runs.first().map(|run| run.store());
        if store.is_none() || runs.iter().any(|run| Some(run.store()) != store) {
            return Err(Error::InvalidArgument("a scan needs index runs, all of one store".to_owned()));
        }
        let streams = runs.iter().map(|run| RunStream::whole(Arc::clone(run))).collect::<Result<Vec<_>>>()?;
        Ok(Self { runs, tournament: Tournament::new(streams), last: None, done: 0 })
    }

    /// The runs.
    pub fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// Entries met so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Entries that there are.
    pub fn total(&self) -> u64 {
        self.runs.iter().map(|run| run.meta().entries).sum()
    }

    /// The next entry; `None` at the end, when all runs are proved.
    ///
    /// # Errors
    /// `Damaged` when a run is not what its record says, or two runs contradict each other; `Io`.
    pub fn advance(&mut self) -> Result<Option<Met>> {
        let Some((entry, run)) = self.tournament.next()? else { return Ok(None) };
        self.done += 1;
        let same_key = self.last.replace(entry).filter(|last| last.key == entry.key);
        match same_key {
            Some(last) if last != entry => {
                Err(self.damaged(&format!("two contents for one version of a block: {:?}", unpack(&entry))))
            }
            same => Ok(Some(Met { entry, run, repeats: same.is_some() })),
        }
    }

    /// The error for something wrong that no single page can be blamed for.
    pub(super) fn damaged(&self, what: &str) -> Error {
        let metas = || self.runs.iter().map(|run| run.meta());
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

    /// The next entry of all, and the stream that it is from.
    fn next(&mut self) -> Result<Option<(PackedEntry, usize)>> {
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
        Ok(Some((self.streams[winner].entry(), winner)))
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
