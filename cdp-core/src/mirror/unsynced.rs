//! What was written to the copies since they were last synced.
//!
//! A power cut may take such a write back from some copies and not from others. So its region stays in the activity log until a sync of all copies has
//! returned (rule R4), and a copy that leaves before that gets its blocks marked. One pin a region is enough, so that many writes to
//! a few regions take a few pins. Invariant *bounded*: beyond [`RANGES_MAX`] ranges the regions stand for them.

use crate::dirty_map::{ByteRange, Pin};
use std::collections::BTreeSet;

/// Ranges that are told apart.
const RANGES_MAX: usize = 1 << 16;

/// Writes that are not known to be durable on all copies.
#[derive(Debug, Default)]
struct Batch {
    ranges: Vec<ByteRange>,
    pins: Vec<Pin>,
    regions: BTreeSet<u32>,
    /// Whether `ranges` stopped being told apart, and `regions` stand for them.
    coarse: bool,
    /// Whether one of the pins is of a write without the log; one is enough.
    unlogged: bool,
    /// Whether a range has no pin: a block that was mended.
    unpinned: bool,
}

/// The writes since the last sync, and those that a sync is under way for.
#[derive(Debug)]
pub(super) struct Unsynced {
    region_bytes: u64,
    current: Batch,
    syncing: Batch,
}

impl Batch {
    fn push(&mut self, range: ByteRange, pin: Option<Pin>) {
        let full = self.ranges.len() >= RANGES_MAX;
        match self.ranges.last_mut() {
            _ if self.coarse => {}
            Some(last) if last.end() == range.offset => last.bytes += range.bytes,
            _ if full => (self.coarse, self.ranges) = (true, Vec::new()),
            _ => self.ranges.push(range),
        }
        let Some(pin) = pin else {
            self.unpinned = true;
            return;
        };
        let known = match pin.regions() {
            Some(regions) => {
                let known = regions.clone().all(|region| self.regions.contains(&region));
                self.regions.extend(regions.clone());
                known
            }
            None => std::mem::replace(&mut self.unlogged, true),
        };
        // The region is held by another pin of this batch.
        if known { pin.done(true) } else { self.pins.push(pin) }
    }

    fn ranges(&self, region_bytes: u64) -> Vec<ByteRange> {
        let of = |region: &u32| ByteRange::new(u64::from(*region) * region_bytes, region_bytes);
        match (self.coarse, self.unlogged || self.unpinned) {
            (false, _) => self.ranges.clone(),
            (true, false) => self.regions.iter().map(of).collect(),
            (true, true) => vec![ByteRange::new(0, u64::MAX)],
        }
    }
}

impl Unsynced {
    pub(super) fn new(region_bytes: u64) -> Self {
        Self { region_bytes, current: Batch::default(), syncing: Batch::default() }
    }

    /// A write has been submitted to all copies, well or not; or, without a pin, a block was mended on one.
    pub(super) fn push(&mut self, range: ByteRange, pin: Option<Pin>) {
        self.current.push(range, pin);
    }

    /// A sync begins: it covers what was written up to now.
    pub(super) fn begin_sync(&mut self) {
        let begun = std::mem::take(&mut self.current);
        self.syncing.coarse |= begun.coarse;
        self.syncing.unlogged |= begun.unlogged;
        self.syncing.unpinned |= begun.unpinned;
        self.syncing.ranges.extend(begun.ranges);
        self.syncing.regions.extend(begun.regions);
        self.syncing.pins.extend(begun.pins);
    }

    /// The sync has returned for every copy that is still online: their regions may leave the activity log.
    pub(super) fn end_sync(&mut self) -> Vec<Pin> {
        std::mem::take(&mut self.syncing).pins
    }

    /// Everything that is not known to be durable.
    pub(super) fn ranges(&self) -> Vec<ByteRange> {
        let mut ranges = self.syncing.ranges(self.region_bytes);
        ranges.extend(self.current.ranges(self.region_bytes));
        ranges
    }
}
