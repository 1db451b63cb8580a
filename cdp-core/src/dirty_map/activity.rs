//! Which regions are active: a pure state machine. The file that carries it out is in `file.rs`.
//!
//! A region is *waiting* for a record that names it, being *written*, or *active*: named by a durable record. One that is evicted leaves the set
//! at once; the next batch first makes its map pages durable and then writes the record without it.
//!
//! Invariants: *bound* - at most `capacity` regions in the set, so that it fits a record; *all or nothing* - regions are admitted together, so
//! that two writes never wait for each other's; *superset* - a record names every region that is active when it takes effect.

use std::{collections::BTreeMap, ops::RangeInclusive};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Waiting,
    Writing,
    Active,
}

/// What became of a wish to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// All regions are active.
    Active,
    /// They will be with the next batch, or the one that is being written.
    Waits,
    /// There is no room, because too many regions are pinned.
    Full,
}

/// What is to be done for the regions that wait: make the map pages of `flush` durable, then a record of `record`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub flush: Vec<u32>,
    pub record: Vec<u32>,
}

/// The set of active regions.
#[derive(Debug)]
pub(super) struct Activity {
    capacity: usize,
    members: BTreeMap<u32, Member>,
    evicted: Vec<u32>,
    /// Where the search for a region to evict goes on.
    hand: u32,
}

impl Activity {
    /// The set that a durable record names.
    pub(super) fn new(capacity: usize, active: &[u32]) -> Self {
        let members = active.iter().map(|region| (*region, Member::Active)).collect();
        Self { capacity, members, evicted: Vec::new(), hand: 0 }
    }

    /// Asks for `regions` to be active. `evict` says whether a region could be evicted, and if so has made sure that nobody pins it; its second
    /// argument is true when regions that were used lately are not to be spared any more.
    pub(super) fn admit(
        &mut self,
        regions: RangeInclusive<u32>,
        mut evict: impl FnMut(u32, bool) -> bool,
    ) -> Admission {
        let own = |region: &u32| regions.contains(region);
        let missing: Vec<u32> = regions.clone().filter(|region| !self.members.contains_key(region)).collect();
        if self.members.len() + missing.len() > self.capacity {
            // A few more than needed, so that not each write pays for an eviction.
            let spare = self.capacity / 8;
            let wanted = self.capacity.saturating_sub(missing.len() + spare);
            for unsparing in [false, true] {
                let candidates: Vec<u32> = self.candidates().filter(|region| !own(region)).collect();
                for region in candidates {
                    let enough =
                        if unsparing { self.capacity - missing.len().min(self.capacity) } else { wanted };
                    if self.members.len() <= enough {
                        break;
                    }
                    if evict(region, unsparing) {
                        self.members.remove(&region);
                        self.evicted.push(region);
                    }
                    self.hand = region.wrapping_add(1);
                }
            }
            if self.members.len() + missing.len() > self.capacity {
                return Admission::Full;
            }
        }
        for region in missing {
            self.members.insert(region, Member::Waiting);
        }
        if self.is_active(regions) { Admission::Active } else { Admission::Waits }
    }

    /// Active regions, beginning where the last search ended.
    fn candidates(&self) -> impl Iterator<Item = u32> {
        let ahead = self.members.range(self.hand..).chain(self.members.range(..self.hand));
        ahead.filter(|(_, member)| **member == Member::Active).map(|(region, _)| *region)
    }

    /// Whether all of `regions` are active.
    pub(super) fn is_active(&self, mut regions: RangeInclusive<u32>) -> bool {
        regions.all(|region| self.members.get(&region) == Some(&Member::Active))
    }

    /// Whether a batch has something to do.
    pub(super) fn has_waiting(&self) -> bool {
        self.members.values().any(|member| *member == Member::Waiting)
    }

    /// Begins a batch. One at a time.
    pub(super) fn begin_batch(&mut self) -> Batch {
        for member in self.members.values_mut().filter(|member| **member == Member::Waiting) {
            *member = Member::Writing;
        }
        Batch { flush: std::mem::take(&mut self.evicted), record: self.members.keys().copied().collect() }
    }

    /// The batch is durable: the regions that have become active by it.
    pub(super) fn end_batch(&mut self) -> Vec<u32> {
        let mut activated = Vec::new();
        for (region, member) in &mut self.members {
            if *member == Member::Writing {
                *member = Member::Active;
                activated.push(*region);
            }
        }
        activated
    }

    /// The regions that are active.
    pub(super) fn active(&self) -> impl Iterator<Item = u32> {
        self.candidates()
    }

    /// All regions of the set.
    pub(super) fn members(&self) -> impl Iterator<Item = u32> {
        self.members.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the set is bounded to the region, and evicts before it refuses. Method: fill to the bound, one past it with everything pinned, then
    /// with one free.
    #[test]
    fn at_the_bound_a_region_is_evicted_or_the_write_waits() {
        let mut activity = Activity::new(4, &[10, 11]);
        assert_eq!(activity.admit(10..=11, |_, _| false), Admission::Active);
        assert_eq!(activity.admit(0..=1, |_, _| panic!("there is room")), Admission::Waits);
        assert_eq!(activity.begin_batch(), Batch { flush: vec![], record: vec![0, 1, 10, 11] });
        assert_eq!(activity.admit(2..=2, |_, _| false), Admission::Full);
        assert_eq!(activity.admit(2..=2, |region, _| region == 1), Admission::Full, "1 is being written");
        assert_eq!(activity.end_batch(), [0, 1]);
        assert_eq!(activity.admit(2..=2, |region, unsparing| region == 11 && unsparing), Admission::Waits);
        assert_eq!(activity.admit(0..=4, |_, _| true), Admission::Full, "more than the set can hold");
        let batch = activity.begin_batch();
        assert!(batch.flush.contains(&11) && batch.record.contains(&2) && !batch.record.contains(&11));
    }

    /// Goal: a region that comes back while it is evicted is named again before it counts. Method: evict, ask again, look at the batch.
    #[test]
    fn an_evicted_region_waits_for_a_new_record() {
        let mut activity = Activity::new(2, &[1, 2]);
        assert_eq!(activity.admit(3..=3, |region, _| region == 1), Admission::Waits);
        assert_eq!(activity.admit(1..=1, |region, _| region == 2), Admission::Waits);
        assert!(!activity.is_active(1..=1));
        assert_eq!(activity.begin_batch(), Batch { flush: vec![1, 2], record: vec![1, 3] });
    }
}
