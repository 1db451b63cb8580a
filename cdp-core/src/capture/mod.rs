//! Capture beside a production device: what stands between the host's write path and the journal.
//!
//! - [`pool`]: the fixed memory that takes writes without ever waiting.

#[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "the tap is not built on it yet"))]
pub(crate) mod pool;
