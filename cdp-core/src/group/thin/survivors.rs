//! Survivors: versions that are still needed in segments that go, and where they go.
//!
//! They are grouped by when the policy lets them die, so that a compacted segment empties at once, and within a group they lie in the
//! order in which they lay before, so that they are read in long strides.

use super::{Round, ThinGoal};
use crate::{
    error::{Error, Result},
    format::packed::{PackedContent, PackedEntry},
    index::{Class, Needed, Scan},
    units::{ExtentId, Seq},
};
use std::{collections::BTreeSet, sync::Arc};

/// One version that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Survivor {
    /// What it dies with.
    pub group: u8,
    /// Where it is.
    pub segment: u64,
    /// First sector within the segment.
    pub sector: u32,
    /// Sectors.
    pub sectors: u8,
    /// Digest of its content.
    pub digest: u64,
    /// Its version.
    pub seq: u64,
}

/// A scan that collects survivors.
pub(super) struct Survivors {
    /// `None` when nothing can survive or all was read.
    scan: Option<Scan>,
    needed: Needed,
    groups: Arc<Vec<u8>>,
    victims: Arc<BTreeSet<u64>>,
    found: Vec<Survivor>,
    /// The newer needed version of the same block, and its class.
    newer: Option<(u64, Class)>,
}

impl Survivors {
    /// For the victims of a round.
    pub fn new(round: &Round, goal: &ThinGoal) -> Result<Self> {
        let runs: Vec<_> = round.inputs.iter().chain(&round.neighbours).cloned().collect();
        let scan = if round.victims.is_empty() { None } else { Some(Scan::new(runs)?) };
        Ok(Self {
            scan,
            needed: Needed::new(goal.classes.clone()),
            groups: goal.groups.clone(),
            victims: round.victims.clone(),
            found: Vec::new(),
            newer: None,
        })
    }

    /// Reads on; whether all was read.
    pub fn step(&mut self, entries: u64) -> Result<bool> {
        for _ in 0..entries {
            let Some(met) = self.scan.as_mut().map_or(Ok(None), Scan::advance)? else {
                self.scan = None;
                return Ok(true);
            };
            if met.repeats || !self.needed.is_needed(&met.entry) {
                continue;
            }
            let (entry, class) = (met.entry, self.needed.class());
            let newer = self.newer.filter(|(cell, _)| *cell == entry.key.cell).map(|(_, class)| class);
            self.newer = Some((entry.key.cell, class));
            if entry.content.is_data() && self.victims.contains(&entry.content.segment) {
                self.found.push(self.survivor(&entry, newer));
            }
        }
        Ok(false)
    }

    fn survivor(&self, entry: &PackedEntry, newer: Option<Class>) -> Survivor {
        // It is visible up to the point before the class of the next version, and dies with that.
        let last =
            newer.filter(|class| *class != Class::BEYOND).and_then(|class| class.index().checked_sub(1));
        Survivor {
            group: last.and_then(|last| self.groups.get(last)).copied().unwrap_or(0),
            segment: entry.content.segment,
            sector: entry.content.sector(),
            sectors: mask_len(entry.content),
            digest: entry.content.digest,
            seq: entry.key.seq(),
        }
    }

    /// What was found, ascending by group and place.
    pub fn into_groups(mut self) -> Vec<Survivor> {
        self.found.sort_unstable();
        self.found
    }
}

fn mask_len(content: PackedContent) -> u8 {
    u8::try_from(content.mask().count_ones()).unwrap_or(8)
}

/// Where each survivor is now.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Old segment and sector, new segment and sector; ascending.
    places: Vec<((u64, u32), (u64, u32))>,
}

impl Moved {
    /// From a list in any order.
    pub fn new(mut places: Vec<((u64, u32), (u64, u32))>) -> Self {
        places.sort_unstable();
        Self { places }
    }

    /// The entry with its content at its new place.
    ///
    /// # Errors
    /// `Damaged` when it was not moved: it must not be let go.
    pub fn place(&self, entry: &PackedEntry) -> Result<PackedEntry> {
        let old = (entry.content.segment, entry.content.sector());
        let found = self.places.binary_search_by_key(&old, |(from, _)| *from);
        let Ok(at) = found else {
            return Err(Error::Damaged(Box::new(crate::error::Damage {
                extent: ExtentId::new(entry.content.segment),
                file: format!("extent {}", entry.content.segment),
                offset: u64::from(entry.content.sector()) * crate::units::SECTOR_BYTES,
                length: u64::from(entry.content.mask().count_ones()) * crate::units::SECTOR_BYTES,
                from_seq: Seq::new(entry.key.seq()),
                to_seq: Seq::new(entry.key.seq()),
                what: "a version that is still needed was not moved out of a segment that goes".into(),
            })));
        };
        let (segment, sector) = self.places[at].1;
        let content = PackedContent::data(segment, sector, entry.content.mask(), entry.content.digest);
        Ok(PackedEntry { key: entry.key, content })
    }
}
