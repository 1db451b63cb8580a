//! The table of pins: a word for each region, so that a write to an active region costs one atomic.
//!
//! A word counts the writes in flight and says whether the region is active, that is named by a durable record. A write counts itself first and
//! then looks: if the region is active the write may go on, since an eviction takes away *active* only from a word without pins, in one exchange.

use super::{file::Inner, shape::ByteRange};
use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

const ACTIVE: u32 = 1 << 31;
/// Set when a write ends, so that an eviction spares the region once.
const USED: u32 = 1 << 30;
const PINS: u32 = USED - 1;

/// The words of all regions.
pub(super) struct Pins(Box<[AtomicU32]>);

impl Pins {
    pub(super) fn new(regions: u64) -> Option<Self> {
        bytemuck::try_zeroed_slice_box(usize::try_from(regions).ok()?).ok().map(Self)
    }

    fn word(&self, region: u32) -> &AtomicU32 {
        &self.0[region as usize]
    }

    /// Pins regions if all of them are active.
    pub(super) fn pin_active(&self, regions: &RangeInclusive<u32>) -> bool {
        for region in regions.clone() {
            if self.word(region).fetch_add(1, SeqCst) & ACTIVE == 0 {
                for region in *regions.start()..=region {
                    self.word(region).fetch_sub(1, SeqCst);
                }
                return false;
            }
        }
        true
    }

    /// Pins regions that are about to become active.
    pub(super) fn pin(&self, regions: &RangeInclusive<u32>) {
        for region in regions.clone() {
            self.word(region).fetch_add(1, SeqCst);
        }
    }

    /// Takes pins off.
    pub(super) fn unpin(&self, regions: &RangeInclusive<u32>) {
        for region in regions.clone() {
            let _ = self.word(region).fetch_update(SeqCst, SeqCst, |word| Some((word - 1) | USED));
        }
    }

    pub(super) fn activate(&self, region: u32) {
        self.word(region).fetch_or(ACTIVE, SeqCst);
    }

    /// Sends every further write to a region through the slow path.
    pub(super) fn deactivate(&self, region: u32) {
        self.word(region).fetch_and(!ACTIVE, SeqCst);
    }

    pub(super) fn is_pinned(&self, region: u32) -> bool {
        self.word(region).load(SeqCst) & PINS != 0
    }

    /// Makes a region inactive if nobody pins it. Unless `unsparing`, one that was used since the last time is spared.
    pub(super) fn evict(&self, region: u32, unsparing: bool) -> bool {
        let word = self.word(region);
        let seen = word.load(SeqCst);
        if seen & USED != 0 && !unsparing {
            word.fetch_and(!USED, SeqCst);
            return false;
        }
        seen & PINS == 0 && word.compare_exchange(seen, 0, SeqCst, SeqCst).is_ok()
    }
}

/// A write in flight. Its regions stay in the activity log until it is done.
#[must_use = "dropped, the blocks of the write are dirty"]
pub struct Pin {
    pub(super) file: Arc<Inner>,
    pub(super) range: ByteRange,
    /// `None` for a write without the log.
    pub(super) regions: Option<RangeInclusive<u32>>,
    pub(super) ended: bool,
}

impl Pin {
    /// The bytes that are being written.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// The regions that it keeps active; `None` when it was let through without the log.
    pub(crate) fn regions(&self) -> Option<&RangeInclusive<u32>> {
        self.regions.as_ref()
    }

    /// The write has ended, well or not. `durable_everywhere` says that it succeeded and is durable at the consumer too; else its blocks become dirty.
    pub fn done(mut self, durable_everywhere: bool) {
        self.end(durable_everywhere);
    }

    fn end(&mut self, durable_everywhere: bool) {
        if !std::mem::replace(&mut self.ended, true) {
            self.file.end_write(self.range, self.regions.as_ref(), durable_everywhere);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({:?})", self.range)
    }
}
