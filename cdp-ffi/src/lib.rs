//! The C interface of `cdp-core`. `include/cdp.h` is generated from this crate and checked for drift; it is also the reference: what is
//! written above an exported function here is written above it there.
//!
//! How it is made:
//! - *handles* (`handle.rs`): what C holds is a number of a table in the shape of a pointer, never an address. NULL, a handle of another kind
//!   and one that was closed are errors and not accidents.
//! - *guard* (`guard.rs`): every exported function runs inside of it. It turns failures into a status with a message per thread, and a panic
//!   into `CDP_ERR_PANIC`, after which everything of the same store answers `CDP_ERR_POISONED`.
//! - *arguments* (`arguments.rs`): every pointer that C passes is looked at there and nowhere else.
//!
//! Status codes are never renumbered; structs that begin with `struct_size` grow at the end only.

// Exporting functions under their own names and taking pointers from C is what this crate is for. What a caller has to keep to is said in
// the text of each function and at the top of the header, for C.
#![allow(unsafe_code, clippy::missing_safety_doc, non_camel_case_types)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("handles are 64-bit numbers in the shape of pointers");

mod arguments;
mod callback;
mod failure;
mod guard;
mod handle;
mod host_storage;

pub mod bookmark;
pub mod bookmark_more;
pub mod copy;
pub mod digests;
pub mod dirty_map;
pub mod event;
pub mod flat;
pub mod import;
pub mod in_flight;
pub mod job;
pub mod job_start;
pub mod log;
pub mod map_file;
pub mod mirror;
pub mod mirror_job;
pub mod mirror_source;
pub mod mirror_status;
pub mod point;
pub mod queue;
pub mod restore;
pub mod restore_all;
pub mod resync;
pub mod resync_schedule;
pub mod retention;
pub mod retention_plan;
pub mod scrub;
pub mod seed;
pub mod size;
pub mod snapshot;
pub mod source;
pub mod statistics;
pub mod status;
pub mod storage;
pub mod store;
pub mod tap;
pub mod timeline;
pub mod types;
pub mod verify;
pub mod version;
pub mod volume;

pub use status::*;
pub use version::*;
