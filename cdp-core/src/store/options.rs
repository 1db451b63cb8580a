//! How a store is made and opened.

use crate::{
    group::Tuning,
    io::{Clock, SystemClock},
    limits::{PAGE_CACHE_BYTES, RUN_FANOUT, SEGMENT_BYTES, SEGMENT_BYTES_MAX},
    sabotage::Sabotage,
};
use std::sync::Arc;

/// What a new store begins with.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Name of the first volume.
    pub volume: String,
    /// Its size, bytes; a multiple of 512.
    pub bytes: u64,
}

/// How a store is opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// The clock that dates writes; default: that of the system.
    pub clock: Arc<dyn Clock>,
    /// Budget of the cache of index pages, bytes; default 32 MiB.
    pub page_cache_bytes: u64,
    /// Space of a new segment, bytes; default 64 MiB, which is also the most. Segments of other sizes stay readable. One of less than 4 MiB holds
    /// little more than a frame.
    pub segment_bytes: u64,
    /// Index runs of a level that are merged into one of the next; default 8, at least 2.
    pub run_fanout: usize,
    /// Deliberate defects, for tests of the tests.
    pub sabotage: Sabotage,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            page_cache_bytes: PAGE_CACHE_BYTES,
            segment_bytes: SEGMENT_BYTES,
            run_fanout: RUN_FANOUT,
            sabotage: Sabotage::default(),
        }
    }
}

impl OpenOptions {
    pub(crate) fn tuning(&self) -> Tuning {
        Tuning {
            segment_bytes: self.segment_bytes.clamp(64 << 10, SEGMENT_BYTES_MAX).next_multiple_of(4096),
            run_fanout: self.run_fanout.clamp(2, 64),
        }
    }
}
