//! One cut through several groups.
//!
//! The turns of all groups are held at once, so no inline write passes; captured writes never wait, so a moment is looked for at which
//! none came between the first boundary and the last. Invariants:
//! - *cut*: a write that was acknowledged before another one was begun, in whatever groups, is in the cut if that one is;
//! - *order*: turns are taken in ascending order of the stores' ids, so that two cuts never wait for each other. Nobody else takes
//!   more than one;
//! - a group that fails drops out and does not touch the cut through the others.

use super::{Group, append::Turn};
use crate::{
    capture::Capture,
    error::{Error, Result},
    format::meta::MetaRecord,
    limits::FRAME_BYTES_MAX,
    units::{FrameNo, Seq, TimeNs, len_u64},
};
use std::sync::Arc;

/// Moments that are tried before production is called too busy.
const ATTEMPTS: usize = 256;

/// For each group that has taps and stands: its pool, and the order behind which nothing belongs to the moment.
type Boundaries = Vec<Option<(Arc<Capture>, u64)>>;

/// Groups that stand still at one moment.
pub(crate) struct Cut<'a> {
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    group: &'a Group,
    turn: Turn<'a>,
    failed: Option<Error>,
}

impl Member<'_> {
    /// Does something unless the member has failed already.
    fn attempt(&mut self, act: impl FnOnce(&Group, &Turn<'_>) -> Result<()>) {
        if self.failed.is_none() {
            self.failed = act(self.group, &self.turn).err();
        }
    }
}

impl<'a> Cut<'a> {
    /// Takes the turns of groups, which ascend by the ids of their stores, and brings them to one moment.
    ///
    /// # Errors
    /// `NotPlaced` when writes are captured so fast that no moment was found; taps are at work in several of the groups then.
    ///
    /// # Panics
    /// When the groups do not ascend: two cuts could wait for each other.
    pub fn through(groups: &[&'a Group]) -> Result<Self> {
        assert!(groups.is_sorted_by(|a, b| a.shared.store.0 < b.shared.store.0), "turns have one order");
        let member = |group: &&'a Group| Member { group, turn: group.take_turn(), failed: None };
        let mut cut = Self { members: groups.iter().map(member).collect() };
        for _ in 0..ATTEMPTS {
            // What has piled up goes first, so that little is left for the moment itself.
            for member in &mut cut.members {
                member
                    .attempt(|group, turn| group.check_writable().and_then(|()| group.drain_captured(turn)));
            }
            if let Some(boundaries) = cut.moment(|_| {}) {
                cut.settle(boundaries);
                return Ok(cut);
            }
        }
        Err(Error::NotPlaced("writes come too fast to find one moment in all stores; freeze them".into()))
    }

    /// A boundary in each pool such that nothing was reserved behind the first ones before the last was drawn.
    /// `drawn` hears of each one.
    fn moment(&self, mut drawn: impl FnMut(usize)) -> Option<Boundaries> {
        let boundaries: Boundaries = self
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| {
                let capture = member.group.capture().filter(|_| member.failed.is_none())?;
                let boundary = capture.pool.boundary();
                drawn(index);
                Some((capture, boundary))
            })
            .collect();
        let mut pools = boundaries.iter().flatten();
        // What comes behind the last one comes behind all of them.
        let _ = pools.next_back();
        pools.all(|(capture, boundary)| capture.pool.is_empty_behind(*boundary)).then_some(boundaries)
    }

    /// Takes over what lies before the boundaries, and makes room for a record.
    fn settle(&mut self, boundaries: Boundaries) {
        for (member, boundary) in self.members.iter_mut().zip(boundaries) {
            member.attempt(|group, turn| {
                if let Some((capture, boundary)) = boundary {
                    group.drain_behind(turn, &capture, boundary)?;
                }
                group.settle(turn, true)?;
                group.reserve_room(super::space::Purpose::Metadata, 2, 2 * len_u64(FRAME_BYTES_MAX), 0)
            });
        }
    }

    /// Newest seq and its time of each member.
    pub fn tips(&self) -> Vec<(Seq, TimeNs)> {
        let tip = |member: &Member<'_>| {
            let append = member.group.append.lock();
            (append.last_seq, append.newest_time)
        };
        self.members.iter().map(tip).collect()
    }

    /// Whether any member stands.
    pub fn stands(&self) -> bool {
        self.members.iter().any(|member| member.failed.is_none())
    }

    /// Appends records to one frame of each member that stands, and lets the groups go on. Not yet durable.
    pub fn append(
        self,
        covered: Option<TimeNs>,
        mut records: impl FnMut(usize) -> Vec<MetaRecord>,
    ) -> Vec<Result<FrameNo>> {
        let append = |(index, member): (usize, &mut Member<'_>)| match member.failed.take() {
            Some(error) => Err(error),
            None => member.group.append_together(&member.turn, &records(index), covered, || Ok(())),
        };
        // The turns are held until the last one has its record.
        let mut members = self.members;
        members.iter_mut().enumerate().map(append).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::MemoryStorage,
        resync::SourceReader,
        store::{CreateOptions, OpenOptions, SourceState, Store, Tap, TapOptions},
    };

    struct Zeroes;

    impl SourceReader for Zeroes {
        fn read_at(&self, _: u64, buf: &mut [u8]) -> std::io::Result<()> {
            buf.fill(0);
            Ok(())
        }
    }

    fn tapped() -> (Store, Tap) {
        let create = CreateOptions { volume: "disk".into(), bytes: 1 << 20 };
        let store = Store::create(Arc::new(MemoryStorage::new()), &create, OpenOptions::default()).unwrap();
        let options = TapOptions { source: SourceState::Equal, pool_frames: 4, ..TapOptions::default() };
        let tap = store.tap("disk", Arc::new(Zeroes), options).unwrap();
        (store, tap)
    }

    /// Goal: a moment is one cut: with a write it holds every write that was acknowledged before. Method: three tapped stores; writes to each
    /// pair of them, one after the other, at each pair of steps while the boundaries are drawn; whenever a moment is found, what lies
    /// before its boundaries must not hold the later write without the earlier one.
    #[test]
    fn no_moment_holds_a_write_without_one_before_it() {
        let (mut found, mut refused) = (0, 0);
        for case in 0..3 * 3 * 4 * 4_usize {
            let (first, second) = (case % 3, case / 3 % 3);
            let (first_step, second_step) = (case / 9 % 4, case / 36);
            if first_step > second_step {
                continue;
            }
            let mut members: Vec<(Store, Tap)> = (0..3).map(|_| tapped()).collect();
            members.sort_by_key(|(store, _)| store.id().0);
            let groups: Vec<&Group> = members.iter().map(|(store, _)| &store.inner.group).collect();
            let cut = Cut {
                members: groups
                    .iter()
                    .map(|group| Member { group, turn: group.take_turn(), failed: None })
                    .collect(),
            };
            // Step 0 is before the first boundary, step n behind that of the n-th store.
            let write = |step: usize| {
                for (store, _) in [(first, first_step), (second, second_step)].iter().filter(|w| w.1 == step)
                {
                    members[*store].1.capture(0, &[1; 512]).unwrap();
                }
            };
            write(0);
            let Some(boundaries) = cut.moment(|index| write(index + 1)) else {
                assert!(second_step > 0, "case {case}: there was nothing between the boundaries");
                refused += 1;
                continue;
            };
            found += 1;
            let has = |store: usize, step: usize| step <= store;
            assert!(!has(second, second_step) || has(first, first_step), "case {case}");
            for (at, boundary) in boundaries.into_iter().enumerate() {
                let (capture, boundary) = boundary.unwrap();
                let member = &cut.members[at];
                member.group.drain_behind(&member.turn, &capture, boundary).unwrap();
                let expected = [(first, first_step), (second, second_step)];
                let expected =
                    expected.iter().filter(|(store, step)| *store == at && has(*store, *step)).count();
                assert_eq!(cut.tips()[at].0, Seq::new(len_u64(expected)), "case {case}");
            }
        }
        assert!(found > 10 && refused > 10, "{found} found, {refused} refused");
    }
}
