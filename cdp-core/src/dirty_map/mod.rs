//! Dirty maps: which blocks of a source are not known to be in a consumer (the store, a copy, a peer).
//!
//! - [`DirtyMap`]: the map in memory. Sets are lock-free; a block becomes clean through a token ([`InResync`]) alone.
//!
//! - [`wire`]: a map with its base as bytes.
//! - [`MapFile`]: a map on one extent, which survives a crash with the help of an activity log; [`ring`] is how that is stored.
//!
//! The claim of a map is everything that is dirty or in resync. **Theorem: at every possible crash state the claim contains every block whose
//! content at the source is not known to be durable at the consumer.** A claim may be too large, never too small.

mod activity;
mod bits;
mod file;
mod header;
mod inspect;
mod map;
mod pages;
mod pin;
pub mod ring;
mod shape;
mod store_pages;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
pub mod wire;

pub use file::{MapFile, MapFileOptions, Opened};
pub use header::Base;
pub(crate) use inspect::inspect;
pub use map::{DirtyMap, Extents, InResync, MapOptions};
pub use pin::Pin;
pub use shape::{ByteRange, Granularity, Shape};
