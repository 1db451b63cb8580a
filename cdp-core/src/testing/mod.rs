//! Tests of a store against an oracle, on a disk that crashes and fails (feature `testing`).
//!
//! - [`model`]: what must be true, kept in the simplest way; [`stamp`]: content that names itself.
//! - [`check`]: compares a store with the model; [`coalesced`]: what both know of coalesced writes.
//! - [`world`]: a store on a simulated disk, its model, and the steps ([`op`]) that act on both.
//! - [`generate`]: a random history for a seed; [`simulate`]: runs seeds, and makes a failing history short.
//! - [`thinned`]: histories with retention, under [`policies`] of seconds; [`remains`]: what the model knows of it.
//! - [`directed`]: histories aimed at one thing; [`commit_order`]: the order of syncs, which one thread cannot show.
//! - [`exhaustive`]: all short histories with a crash at each changing call.
//! - [`interleaved`]: a reader beside an owner at work.
//! - [`rot`]: one flipped bit anywhere.
//! - [`hooked`]: a storage whose calls a test holds up or refuses.
//! - [`pool`]: the frame pool of the tap on its own; [`tap_world`]: taps with their sources, on the same disk.
//! - [`mirror_world`]: a mirror set, each copy on a disk of its own.
//!
//! A host can drive its own storage, workload or policy the same way: make a [`model::Model`], tell it what happened,
//! and let [`check::Checker`] compare.

pub mod check;
pub mod coalesced;
pub mod commit_order;
pub mod content;
pub mod directed;
pub mod exhaustive;
pub mod generate;
pub mod hooked;
pub mod image;
pub mod interleaved;
pub mod mirror_world;
pub mod mismatch;
pub mod model;
pub mod op;
pub mod policies;
pub mod pool;
pub mod remains;
pub mod rot;
pub mod scrubbed;
pub mod simulate;
pub mod stamp;
pub mod tap_world;
pub mod thinned;
pub mod world;

/// How much a test does: the first in an ordinary run, the second with `CDP_TEST_SCALE=full`.
pub fn scaled<T>(short: T, full: T) -> T {
    if std::env::var("CDP_TEST_SCALE").is_ok_and(|scale| scale == "full") { full } else { short }
}
