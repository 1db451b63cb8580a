//! How a world with taps is made, and what was met in it.

use crate::{ActivityLog, io::simulated::AtomicUnit, sabotage::Sabotage};
use std::ops::AddAssign;

/// How a world with taps is made.
#[derive(Clone, Debug)]
pub struct TapWorldConfig {
    /// Decides about what the steps leave to chance.
    pub seed: u64,
    /// For each volume its sectors, and whether it begins with a tap.
    pub volumes: Vec<(usize, bool)>,
    /// Frames of the pool.
    pub pool_frames: usize,
    /// Granularity of the dirty maps, bytes.
    pub granularity: u64,
    /// Activity logs: how they are made, and how often a tap has one.
    pub log: Option<(ActivityLog, f64)>,
    /// Whether writes are begun before they are submitted, also without an activity log.
    pub begins: bool,
    /// Whether the sources lie across a link and answer digests there.
    pub far: bool,
    /// What the storage writes atomically.
    pub unit: AtomicUnit,
    /// See [`crate::OpenOptions`].
    pub segment_bytes: u64,
    /// Deliberate defects.
    pub sabotage: Sabotage,
}

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What was met, to see that a set of histories goes everywhere.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct TapCoverage {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl AddAssign for TapCoverage {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

coverage! {
    /// Steps taken.
    steps,
    /// Writes captured whole.
    whole,
    /// Writes that only marked.
    marked,
    /// Gaps on the timeline at the end.
    gaps,
    /// Exact points compared.
    points,
    /// Bookmarks set.
    bookmarks,
    /// Steps carried out in the middle of a read.
    interleaved,
    /// Reads of sources that failed.
    failed_reads,
    /// Calls of the store that failed as they may.
    failed_calls,
    /// Crashes and kills.
    downs,
    /// Of these, during a call.
    downs_in_calls,
    /// Of these, during recovery.
    downs_in_recovery,
    /// Stores that stopped after a fault.
    poisoned,
    /// Taps attached.
    attached,
    /// Of these, without a comparison with the source.
    attached_equal,
    /// Of these, with just what the last one left and what was written since.
    attached_with_map,
    /// Taps attached after an unclean end whose activity log left most of the source out.
    attached_with_log,
    /// Writes that were begun.
    begun,
    /// Pairs of writes that overlapped in flight.
    overlapped,
    /// Writes whose producer stopped in the middle.
    stalled,
    /// Writes to a tap with an activity log that were not begun.
    bypassed,
    /// Maps left behind that were damaged.
    maps_harmed,
    /// Taps taken off.
    detached,
}
