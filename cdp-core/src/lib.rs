//! Block-level continuous data protection: a library that sees every write to a disk and gives back any past instant of it.
//!
//! Start at [`Store`]: it holds [`Volume`]s that share one row of sequence numbers. Every write takes a [`units::Seq`]; a
//! [`Point`] (a time, a bookmark, a seq) resolves to one, and a [`Snapshot`] opens the volume as it was then.

pub mod bookmark;
pub mod capture;
pub mod catalog;
pub mod dirty_map;
pub mod error;
pub mod event;
pub mod format;
mod group;
pub mod index;
pub mod io;
pub mod job;
pub mod journal;
pub mod limits;
pub mod manifest;
pub mod mirror;
pub mod point;
pub mod restore;
pub mod resync;
pub mod retention;
pub mod sabotage;
pub mod seed;
pub mod snapshot;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod text;
pub mod trace;
pub mod units;
pub mod verify;

pub use bookmark::{Bookmark, BookmarkKind, BookmarkSchedule, NewBookmark, Quiesce};
pub use capture::{Captured, Coalescing};
pub use catalog::{GapReason, SourceStamp, VolumeInfo, VolumeSize};
pub use error::{Damage, Error, PointUnavailable, Result, SeqTime};
pub use job::{Job, JobStep};
pub use point::Point;
pub use restore::{Progress, RestoreState, RestoreTarget, Restored, SharedTarget};
pub use resync::{Hours, ResyncSchedule, SourceReader};
pub use seed::{ExportJob, ExportOptions, Exported, SeedSet};
pub use snapshot::Snapshot;
pub use store::{
    ActivityLog, Budget, CreateOptions, ImportSeedJob, ImportSeedOptions, ImportSource, ImportedSeed,
    InFlight, OpenOptions, Recovery, ResyncJob, ResyncMode, ResyncOptions, ResyncReport, RetentionJob,
    Runner, RunnerOptions, SourceState, Stats, Stepped, Store, Tap, TapOptions, TapResyncJob, TapStats,
    Timeline, VerifyCursor, VerifyJob, VerifyOptions, VerifyReport, VerifyResume, Volume, Written,
    bookmark_across, confirm_across, newest_common_point,
};
pub use verify::{CheckJob, CheckReport, ScrubJob, ScrubReport};
