//! A store as a file system.
//!
//! ```text
//! NAME/disk                 the live volume, read and written
//! NAME/points/seq:N/disk    the volume as it was at seq N, read only
//! NAME/points/POINT         any other spelling of a point: a link to its seq:N
//! ```
//!
//! Invariants:
//! - *stateless*: a node number says all there is to know about a node ([`node::Node`]), so there is no table of nodes that could
//!   grow, and nothing to forget;
//! - *resolved on access*: a point is resolved at each lookup and opened at each open; the kernel keeps no names;
//! - *bounded*: requests are served by [`THREADS`] threads, the kernel queues at most [`BACKGROUND_MAX`] others behind them, and
//!   there are at most [`handles::HANDLES_MAX`] open files.
//!
//! Fails towards the kernel with an errno, see [`errno`].

mod disk;
mod errno;
mod filesystem;
mod handles;
mod lookup;
mod node;
mod range_lock;

pub use filesystem::StoreFilesystem;

/// Threads that serve requests: enough that slow reads leave some free, and few enough for their buffers.
pub const THREADS: usize = 8;
/// Requests of the background kind (read-ahead, asynchronous direct I/O) that the kernel sends at a time.
const BACKGROUND_MAX: u16 = 64;
/// Largest write that the kernel sends at once, bytes.
const WRITE_BYTES_MAX: u32 = 1 << 20;
