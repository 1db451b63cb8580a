//! Capture beside a production disk: what happens in the write path of the host, and nothing that could make it wait.
//!
//! A `tap::TapState` decides by its `ladder` whether a write goes whole into the `pool` or only marks its blocks in the dirty map.
//! The drain of the group (`group/drain.rs`) takes writes out of the pool in their order and appends them to the journal; `resync`
//! copies marked blocks from the source.

pub mod coalesce;
pub mod figures;
pub(crate) mod in_flight;
pub mod ladder;
#[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "some of it is for models and benches"))]
pub(crate) mod pool;
pub(crate) mod tap;

pub use coalesce::Coalescing;
pub use figures::{WriteCounts, WriteFigures};
pub use ladder::Mode;
pub use tap::Captured;

use crate::{
    catalog::GapReason,
    units::{TimeNs, VolumeId},
};
use parking_lot::RwLock;
use pool::Pool;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tap::TapState;

/// The taps of a group: one pool, so that the order of writes is one row over all volumes.
pub(crate) struct Capture {
    /// Writes on their way to the journal.
    pub pool: Pool,
    /// Taps with a wish for a gap.
    pub wishes: AtomicUsize,
    taps: RwLock<Arc<Vec<Arc<TapState>>>>,
}

impl Capture {
    pub fn new(pool: Pool) -> Self {
        Self { pool, wishes: AtomicUsize::new(0), taps: RwLock::new(Arc::new(Vec::new())) }
    }

    /// The taps as they are now.
    pub fn taps(&self) -> Arc<Vec<Arc<TapState>>> {
        self.taps.read().clone()
    }

    /// The tap of a volume.
    pub fn tap(&self, volume: VolumeId) -> Option<Arc<TapState>> {
        self.taps.read().iter().find(|tap| tap.volume() == volume).cloned()
    }

    /// Adds a tap.
    pub fn add(&self, tap: Arc<TapState>) {
        let mut taps = self.taps.write();
        *taps = Arc::new(taps.iter().cloned().chain([tap]).collect());
    }

    /// Takes a tap off, with its wish for a gap. Called with the turn held.
    pub fn remove(&self, volume: VolumeId) {
        let mut taps = self.taps.write();
        taps.iter().filter(|tap| tap.volume() == volume).for_each(|tap| tap.drop_wish(&self.wishes));
        *taps = Arc::new(taps.iter().filter(|tap| tap.volume() != volume).cloned().collect());
    }

    /// The store cannot take writes: every tap goes to BITMAP. What is in the pool stays there.
    pub fn degrade_all(&self, time: TimeNs, reason: GapReason) {
        let boundary = self.pool.boundary();
        for tap in self.taps().iter().filter(|tap| tap.mode() != Mode::Bitmap) {
            tap.degrade(time, reason, &self.wishes, boundary);
        }
    }

    /// Whether a tap wishes for a gap.
    pub fn has_wishes(&self) -> bool {
        self.wishes.load(Ordering::Acquire) > 0
    }
}
