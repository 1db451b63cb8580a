//! Merges runs into one run of a higher level, in steps of bounded work.
//!
//! A filter may drop entries, or give their content another place; it also sees the entries of *neighbours*, runs that stay as they are.
//! The merge proves itself: every input is read whole and proved against its record, and the wrapping sum of the hashes of what was
//! written equals that of what the inputs hold, but for what was dropped and what was moved. If it does not, the merge fails and its
//! output is void; the inputs stay as they are.
//!
//! Nothing is synced, and the output is not yet read back: the caller syncs the extents and calls [`Run::verify`] (or scans the
//! output) before anything names the new run.

use super::{NextPiece, Run, RunMeta, RunWriter, pack::unpack, scan::Scan};
use crate::{
    error::{Error, Result},
    format::packed::PackedEntry,
};
use std::sync::Arc;

/// Decides which entries live on. It meets each version once, in the order of the index: ranges come before the blocks inside them,
/// and the versions of a cell from the newest to the oldest, so that the successor of a version is known before the version.
pub trait Keep {
    /// What becomes of an entry of an input: dropped, or kept with its content where it says now.
    ///
    /// # Errors
    /// Whatever says that the merge must not go on.
    fn keep(&mut self, entry: &PackedEntry) -> Result<Option<PackedEntry>>;

    /// Sees an entry of a neighbour.
    fn pass(&mut self, _: &PackedEntry) {}
}

/// Keeps everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAll;

impl Keep for KeepAll {
    fn keep(&mut self, entry: &PackedEntry) -> Result<Option<PackedEntry>> {
        Ok(Some(*entry))
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
    /// All is written; the run is to be synced and verified. It has no pieces when nothing was kept.
    Finished(RunMeta),
}

/// What the sums of a merge are made of.
#[derive(Clone, Copy, Default)]
struct Sums {
    read: u64,
    dropped: u64,
    dropped_sum: u64,
    moved_from: u64,
    moved_to: u64,
}

/// A merge under way. Dropping it leaves void output behind and the inputs untouched.
pub struct Merge<'a, K> {
    scan: Scan,
    /// Runs of the scan from here on are neighbours.
    inputs: usize,
    writer: Option<RunWriter<'a>>,
    keep: K,
    sums: Sums,
}

impl<'a, K: Keep> Merge<'a, K> {
    /// A merge of `inputs`, all of the same store, into a run of `level` that goes where `next_piece` says.
    ///
    /// # Errors
    /// `Damaged` and `Io` from the first pages of the inputs; `InvalidArgument` without inputs or with those of two stores.
    pub fn new(inputs: Vec<Arc<Run>>, level: u8, next_piece: NextPiece<'a>, keep: K) -> Result<Self> {
        Self::beside(inputs, &[], level, next_piece, keep)
    }

    /// The same, with neighbours whose entries the filter sees too.
    ///
    /// # Errors
    /// As [`Merge::new`], also from the neighbours.
    pub fn beside(
        mut inputs: Vec<Arc<Run>>,
        neighbours: &[Arc<Run>],
        level: u8,
        next_piece: NextPiece<'a>,
        keep: K,
    ) -> Result<Self> {
        let count = inputs.len();
        if count == 0 {
            return Err(Error::InvalidArgument("a merge needs index runs".to_owned()));
        }
        inputs.extend(neighbours.iter().cloned());
        let scan = Scan::new(inputs)?;
        let writer = RunWriter::new(scan.runs()[0].store(), level, next_piece);
        Ok(Self { scan, inputs: count, writer: Some(writer), keep, sums: Sums::default() })
    }

    /// The filter, with what it has seen.
    pub fn into_filter(self) -> K {
        self.keep
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
            let Some(met) = self.scan.advance()? else {
                return self.finish(writer);
            };
            if met.run >= self.inputs {
                if !met.repeats {
                    self.keep.pass(&met.entry);
                }
                continue;
            }
            self.sums.read += 1;
            let kept = if met.repeats { None } else { self.keep.keep(&met.entry)? };
            let Some(kept) = kept else {
                self.sums.dropped += 1;
                self.sums.dropped_sum = self.sums.dropped_sum.wrapping_add(met.entry.hash());
                continue;
            };
            if kept != met.entry {
                self.note_moved(&met.entry, &kept)?;
            }
            writer.push_packed(&kept)?;
        }
        self.writer = Some(writer);
        Ok(MergeStep::More { done: self.scan.done(), total: self.scan.total() })
    }

    /// Content may move, but never become another.
    fn note_moved(&mut self, from: &PackedEntry, to: &PackedEntry) -> Result<()> {
        let same = from.key == to.key
            && from.content.is_data()
            && to.content.is_data()
            && from.content.digest == to.content.digest
            && from.content.mask() == to.content.mask();
        if !same {
            return Err(self
                .scan
                .damaged(&format!("a merge that changes a version of a block: {:?}", unpack(from))));
        }
        self.sums.moved_from = self.sums.moved_from.wrapping_add(from.hash());
        self.sums.moved_to = self.sums.moved_to.wrapping_add(to.hash());
        Ok(())
    }

    fn finish(&mut self, writer: RunWriter<'a>) -> Result<MergeStep> {
        let output = writer.finish()?;
        let inputs = self.scan.runs()[..self.inputs].iter().map(|run| run.meta());
        let (sum, entries) = inputs.fold((0u64, 0u64), |(sum, entries), meta| {
            (sum.wrapping_add(meta.sum), entries.wrapping_add(meta.entries))
        });
        let Sums { read, dropped, dropped_sum, moved_from, moved_to } = self.sums;
        let accounted = output.sum.wrapping_sub(moved_to).wrapping_add(moved_from).wrapping_add(dropped_sum);
        if accounted != sum || output.entries + dropped != entries || read != entries {
            return Err(self.scan.damaged("a merge of index runs whose output is not its input"));
        }
        Ok(MergeStep::Finished(output))
    }
}
