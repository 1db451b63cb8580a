//! The commands, a file each.

pub mod bookmark;
pub mod check;
pub mod create;
pub mod demo;
pub mod diff;
pub mod export;
pub mod import;
pub mod mirror;
pub mod mount;
pub mod points;
pub mod replay;
pub mod restore;
pub mod resync;
pub mod retention;
pub mod scrub;
pub mod size;
pub mod stat;
pub mod verify;
pub mod volume;

use crate::exit::{Failure, Outcome};
use std::path::{Path, PathBuf};

/// A path that means the same to the owner of the store, who may run elsewhere.
fn absolute(path: &Path) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(|source| Failure::io("find", path, &source))
}
