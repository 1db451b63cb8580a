//! Mirror sets: N copies of a volume that are kept equal; one that was away gets only the blocks its map names.
//!
//! - [`MirrorSet`]: the copies ([`MirrorCopy`]; [`FileCopy`] for raw files and devices), their metadata in a [`Storage`](crate::io::Storage) (the *set
//!   directory*): a state record ([`record`]), one activity log for the set, and one dirty map for each copy.
//! - [`generation`], [`handshake()`]: who is ahead of whom and who repairs whom, as pure functions.
//!
//! **Theorem: at every possible crash state the claim of a copy contains every block in which it may differ from what the set gives out.** The claim of a copy is
//! its map and, after a crash, the regions of the activity log. Rules, each of which the simulator tries to break (`docs/mirror.md`):
//! - *write-ahead*: a region is in the activity log, durably, before data is submitted to any copy;
//! - *pin*: it stays there until the data is durable on every copy that took it, and marked for every other;
//! - *mark or mirror*: which copies take a write and which are marked comes from one look at the members, which cannot change meanwhile;
//! - *rotate first*: a copy goes offline by a durable rotation of the generation, before a write that it misses is acknowledged;
//! - *clean reads*: a block is read only from a copy whose map does not name it;
//! - *never without a source*: the last copy that lacks nothing does not go offline.
//!
//! The library starts no thread here, unless the host asks for it ([`Writers`]): a write goes to one copy after the other, in the caller's thread.

mod beside;
mod copy;
mod event;
mod file_copy;
pub mod generation;
mod handshake;
mod members;
mod open;
mod range_lock;
pub mod record;
mod repair;
mod resize;
mod rows;
mod set;
mod source;
mod state_file;
mod status;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_beside;
mod unsynced;
mod verify;
mod write;

pub use copy::{ExtentCopy, MirrorCopy};
pub use event::{MirrorEvent, MirrorSink};
pub use file_copy::FileCopy;
pub use handshake::{CopyState, Decision, Direction, Fingerprint, Handshake, handshake};
pub use open::{CreateMirror, NewCopy, Opener};
pub use record::AckPolicy;
pub use repair::{RepairOptions, Repaired};
pub use rows::Writers;
pub use set::{MirrorOptions, MirrorSet};
pub use status::{CopyStatus, MirrorStatus, PairStatus, Standing};
pub use verify::{Difference, Verified, VerifyOptions};
