//! Dirty maps: which blocks of a source are not known to be in a consumer (the store, a copy, a peer).
//!
//! - [`DirtyMap`]: the map in memory. Sets are lock-free; a block becomes clean through a token ([`InResync`]) alone.
//!
//! The claim of a map is everything that is dirty or in resync. **Theorem: at every possible crash state the claim contains every block whose
//! content at the source is not known to be durable at the consumer.** A claim may be too large, never too small.

mod bits;
mod map;
mod shape;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;

pub use map::{DirtyMap, Extents, InResync, MapOptions};
pub use shape::{ByteRange, Granularity, Shape};
