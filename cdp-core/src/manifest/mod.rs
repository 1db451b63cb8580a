//! The manifest at run time: its state (the fold of its edits) and the log that makes edits durable.

mod log;
mod scan;
mod state;
mod superblock_slot;

pub use log::ManifestLog;
pub(crate) use log::next_extent;
pub use scan::{ManifestScan, scan_manifest};
pub use state::{ManifestState, SegmentState, keep_edits};
pub(crate) use superblock_slot::missing;
pub use superblock_slot::{SuperblockSlot, read_superblock};
