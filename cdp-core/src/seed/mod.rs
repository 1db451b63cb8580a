//! Offline seeding: a volume at a point as a portable set of files, and such a set taken over elsewhere.
//!
//! - [`Volume::export`](crate::Volume::export) writes a set to a [`Storage`] of its own, such as a directory on a removable disk: the
//!   whole volume, or what was written since an older point. It can be cut off at any moment and goes on behind the last data file that is whole.
//! - [`SeedSet`] opens one: what it holds ([`SeedAbout`]), and a verification of every byte.
//! - [`Store::import_seed`](crate::Store::import_seed) makes a volume equal to the state that a set leads to. A whole set becomes a new volume, or an empty one;
//!   one that goes on from an older state is taken only by a volume that is in that very state.
//!
//! An import is a resync ([`crate::resync`]) whose source is the set: a gap is open on the timeline until everything is there and durable, so that no point
//! shows half of it; a map on the store is its cursor; and what the volume is equal to then is recorded with it, and forgotten with the first write to the
//! volume. That record is how the next set finds out whether it fits.
//!
//! Invariants: *all or error* - a batch is used only when its digest is right, so wrong bytes are an error, never content; *nothing overwritten* - plan,
//! data files and manifest are each written once, and the manifest, without which there is no set, only when everything else is durable; *named states* -
//! a state is known by store, volume, lineage and seq, so that one that a crash took away is not mistaken for the one that has its seq now.

mod export;
mod export_job;
pub mod layout;
pub(crate) mod reader;
mod set;

pub use export::{ExportOptions, Exported};
pub use export_job::ExportJob;
pub use layout::{SeedAbout, SeedState};
pub(crate) use reader::SeedReader;
pub use set::SeedSet;

use crate::{
    error::{Damage, Error},
    io::Storage,
    units::{ExtentId, Seq},
};

/// The extent of the plan.
const PLAN: ExtentId = ExtentId::ZERO;
/// The extent of the manifest.
const MANIFEST: ExtentId = ExtentId::new(1);

/// The extent of a data file.
fn file_extent(number: usize) -> ExtentId {
    ExtentId::new(2 + crate::units::len_u64(number))
}

/// The error for bytes of a set that are not what was written.
fn damaged(
    storage: &dyn Storage,
    extent: ExtentId,
    offset: u64,
    length: u64,
    what: impl Into<String>,
) -> Error {
    Error::Damaged(Box::new(Damage {
        extent,
        file: format!("{} of the seed set", storage.describe(extent)),
        offset,
        length,
        from_seq: Seq::ZERO,
        to_seq: Seq::ZERO,
        what: what.into(),
    }))
}

fn failed<'a>(
    storage: &'a dyn Storage,
    operation: &'static str,
    extent: ExtentId,
) -> impl Fn(std::io::Error) -> Error + use<'a> {
    move |source| Error::io(operation, format!("{} of the seed set", storage.describe(extent)), source)
}
