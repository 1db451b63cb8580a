//! How a world is made, and what was met in it.

use crate::{io::simulated::AtomicUnit, sabotage::Sabotage, testing::check::Thoroughness};
use std::ops::AddAssign;

/// How a world is made.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// Decides about what the steps leave to chance.
    pub seed: u64,
    /// Size of the first volume.
    pub volume_sectors: u64,
    /// Whether the first volume starts with imported content.
    pub imported: bool,
    /// What the disk writes atomically.
    pub unit: AtomicUnit,
    /// See [`crate::OpenOptions`].
    pub segment_bytes: u64,
    /// See [`crate::OpenOptions`].
    pub run_fanout: usize,
    /// See [`crate::OpenOptions`].
    pub page_cache_bytes: u64,
    /// Deliberate defects.
    pub sabotage: Sabotage,
    /// How much is compared after each recovery.
    pub thoroughness: Thoroughness,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            volume_sectors: 128,
            imported: false,
            unit: AtomicUnit::Block,
            segment_bytes: 256 << 10,
            run_fanout: 2,
            page_cache_bytes: 1 << 20,
            sabotage: Sabotage::default(),
            thoroughness: Thoroughness::EverySeq,
        }
    }
}

/// What was met, to see that a set of histories goes everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Steps taken.
    pub steps: u64,
    /// Writes, zeroes, discards and imports that took a seq.
    pub seqs: u64,
    /// Crashes and kills.
    pub downs: u64,
    /// Of these, during a call.
    pub downs_in_calls: u64,
    /// Of these, during recovery.
    pub downs_in_recovery: u64,
    /// Recoveries that cut a torn tail.
    pub tails_cut: u64,
    /// Recoveries that lost writes, none of them acknowledged.
    pub rewinds: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Changes of coalescing.
    pub coalescings: u64,
    /// Calls that failed for lack of space.
    pub no_space: u64,
    /// Stores that stopped after a fault.
    pub poisoned: u64,
    /// Segments and index runs at the end, over all.
    pub segments: u64,
    /// Index runs of a level above the first at the end, over all.
    pub runs: u64,
    /// Plans of retention that were made durable.
    pub plans: u64,
    /// States that they took away.
    pub points_dropped: u64,
    /// Bookmarks that they took away.
    pub bookmarks_dropped: u64,
    /// Rounds of thinning.
    pub rounds: u64,
    /// Versions that they took away.
    pub versions_dropped: u64,
    /// Segments that they took away.
    pub segments_dropped: u64,
    /// Compacted segments that were there when a plan was made.
    pub compacted: u64,
    /// Runs of retention that were cut short or failed.
    pub retentions_cut: u64,
    /// Of these, plans that were made again and were the same.
    pub plans_again: u64,
    /// Comparisons of what a reader sees after the owner had thinned.
    pub readers_behind: u64,
}

impl AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.seqs += other.seqs;
        self.downs += other.downs;
        self.downs_in_calls += other.downs_in_calls;
        self.downs_in_recovery += other.downs_in_recovery;
        self.tails_cut += other.tails_cut;
        self.rewinds += other.rewinds;
        self.faults += other.faults;
        self.coalescings += other.coalescings;
        self.no_space += other.no_space;
        self.poisoned += other.poisoned;
        self.segments += other.segments;
        self.runs += other.runs;
        self.plans += other.plans;
        self.points_dropped += other.points_dropped;
        self.bookmarks_dropped += other.bookmarks_dropped;
        self.rounds += other.rounds;
        self.versions_dropped += other.versions_dropped;
        self.segments_dropped += other.segments_dropped;
        self.compacted += other.compacted;
        self.retentions_cut += other.retentions_cut;
        self.plans_again += other.plans_again;
        self.readers_behind += other.readers_behind;
    }
}
