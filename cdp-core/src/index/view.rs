//! What a read looks at: the tables in memory, the runs, and what is known to be lost.

use super::{MemTable, Run};
use crate::{
    error::{Damage, Error, Result},
    format::packed::BLOCK_END,
    units::{Block, Seq},
};
use std::{borrow::Cow, cmp::Reverse, ops::Range, sync::Arc};

/// A damaged frame whose contents are unknown: it may have written any sector at any of these seqs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// First seq of the frame.
    pub from_seq: Seq,
    /// Last seq of the frame.
    pub to_seq: Seq,
    /// The damage, for the error.
    pub damage: Damage,
}

/// Tables and runs that together are the index, at one moment. Cheap to clone.
///
/// Runs and tables may overlap in seqs and hold the same version twice; for each sector the highest seq at or below the
/// point wins, wherever it is. That most runs do not overlap only makes the search end early.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Tables in memory, in any order.
    pub memtables: Vec<Arc<MemTable>>,
    /// Runs in any order; reads are a little quicker after [`View::sort`].
    pub runs: Vec<Arc<Run>>,
    /// What is lost.
    pub lost: Vec<LostRange>,
}

impl View {
    /// A view of these, in any order.
    pub fn new(memtables: Vec<Arc<MemTable>>, runs: Vec<Arc<Run>>, lost: Vec<LostRange>) -> Self {
        let mut view = Self { memtables, runs, lost };
        view.sort();
        view
    }

    /// Puts the runs in the order in which reads look at them: largest seq first.
    pub fn sort(&mut self) {
        self.runs.sort_by_key(|run| newest_first(run));
    }

    /// The runs, largest seq first.
    pub(super) fn newest_first(&self) -> Cow<'_, [Arc<Run>]> {
        if self.runs.is_sorted_by_key(|run| newest_first(run)) {
            return Cow::Borrowed(&self.runs);
        }
        let mut runs = self.runs.clone();
        runs.sort_by_key(|run| newest_first(run));
        Cow::Owned(runs)
    }

    /// A sector whose newest known version at `at` is older than this may have a newer one that is lost.
    pub(super) fn lost_below(&self, at: Seq) -> Option<(Seq, &LostRange)> {
        let reached = self.lost.iter().filter(|lost| lost.from_seq <= at);
        reached.map(|lost| (lost.to_seq.min(at), lost)).max_by_key(|(seq, _)| *seq)
    }

    /// The block numbers of a range, which ends where volumes end at the latest.
    pub(super) fn range(first: Block, end: Option<Block>) -> Result<Range<u64>> {
        match end {
            Some(end) if end.get() <= BLOCK_END => Ok(first.get()..end.get().max(first.get())),
            _ => Err(Error::InvalidArgument(format!("blocks from {first} on reach past the largest volume"))),
        }
    }
}

fn newest_first(run: &Run) -> Reverse<(Seq, Seq)> {
    Reverse((run.meta().seq_max, run.meta().seq_min))
}
