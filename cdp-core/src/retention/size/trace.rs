//! The exact count for a trace: what its last line leaves of it.
//!
//! The trace is read twice: once for the times of its writes, from which the planner says which points stay, and once for the
//! versions that those points need.

use super::{HistorySize, TierSize, common_assumptions};
use crate::{
    Bookmark, BookmarkKind, Error, Result, SeqTime,
    retention::{FullRange, History, Kept, Plan, Policy, Standing, plan},
    trace::{TraceLine, TraceOp},
    units::{BLOCK_BYTES, Seq, TimeNs},
};
use std::{collections::BTreeMap, sync::Arc};

/// The size of the history that a trace leaves, as of its last line, from two readings of the same trace.
///
/// # Errors
/// Those of the lines; `InvalidArgument` for a policy that is not valid, and when the two readings differ.
pub fn size_of_trace(
    policy: &Policy,
    first: impl Iterator<Item = Result<TraceLine>>,
    second: impl Iterator<Item = Result<TraceLine>>,
) -> Result<HistorySize> {
    let (written, now) = Written::read(first)?;
    let plan = plan(&written, policy, now, &[], TimeNs::ZERO)?;
    let mut counter = Counter::new(policy, &plan);
    for line in second {
        let line = line?;
        if counter.seq.get() == written.newest().seq.get() && line.op.is_counted() {
            return Err(changed());
        }
        counter.count(&line);
    }
    if counter.seq != written.newest().seq {
        return Err(changed());
    }
    Ok(counter.finish(policy, &plan))
}

fn changed() -> Error {
    Error::InvalidArgument("the trace changed while it was read; try again".to_owned())
}

/// A history of which everything is there: the time of each seq.
struct Written {
    times: Vec<TimeNs>,
    bookmarks: Vec<Bookmark>,
}

impl Written {
    /// The history of a trace, and the time of its last line.
    fn read(lines: impl Iterator<Item = Result<TraceLine>>) -> Result<(Self, TimeNs)> {
        let mut written = Self { times: vec![TimeNs::ZERO], bookmarks: Vec::new() };
        let mut now = TimeNs::ZERO;
        for line in lines {
            let line = line?;
            now = line.time;
            written.observe(&line);
        }
        Ok((written, now))
    }

    fn observe(&mut self, line: &TraceLine) {
        if line.op.is_counted() {
            self.times.push(line.time);
        } else if let TraceOp::Bookmark(name) = &line.op {
            self.bookmarks.push(Bookmark {
                name: name.clone(),
                kind: BookmarkKind::User,
                app: None,
                comment: None,
                seq: self.newest().seq,
                time: line.time,
                locked: false,
                expires: None,
                inexact_volumes: Vec::new(),
                across: None,
            });
        }
    }

    fn point(&self, at: usize) -> Option<SeqTime> {
        let time = *self.times.get(at)?;
        Some(SeqTime { seq: Seq::new(u64::try_from(at).ok()?), time })
    }

    fn behind(seq: Seq) -> usize {
        usize::try_from(seq.get()).map_or(usize::MAX, |at| at.saturating_add(1))
    }
}

impl History for Written {
    fn newest(&self) -> SeqTime {
        self.times
            .len()
            .checked_sub(1)
            .and_then(|last| self.point(last))
            .unwrap_or(SeqTime { seq: Seq::ZERO, time: TimeNs::ZERO })
    }

    fn full_range(&self) -> FullRange {
        let from = SeqTime { seq: Seq::ZERO, time: TimeNs::ZERO };
        FullRange { from, standing: Standing::State }
    }

    fn kept(&self) -> &[Kept] {
        &[]
    }

    fn bookmarks(&self) -> &[Bookmark] {
        &self.bookmarks
    }

    fn planned_at(&self) -> Option<TimeNs> {
        None
    }

    fn last_at_or_before(&self, time: TimeNs) -> Result<Option<SeqTime>> {
        let behind = self.times.partition_point(|one| *one <= time);
        Ok(behind.checked_sub(1).and_then(|at| self.point(at)))
    }

    fn next_after(&self, seq: Seq) -> Result<Option<SeqTime>> {
        Ok(self.point(Self::behind(seq)))
    }

    fn time_of(&self, seq: Seq) -> Result<Option<TimeNs>> {
        Ok(Self::behind(seq).checked_sub(1).and_then(|at| self.point(at)).map(|point| point.time))
    }

    fn until(&self, seq: Seq) -> Result<Option<TimeNs>> {
        Ok(self.next_after(seq)?.map(|next| next.time))
    }
}

/// Counts the versions that a plan needs, write by write.
struct Counter {
    /// The newest state, the full range, then each window.
    tiers: Vec<TierSize>,
    /// Ages at which the windows end.
    ends: Vec<u64>,
    now: TimeNs,
    full_from: Seq,
    /// The points before the full range, ascending, each with its tier.
    retained: Vec<(Seq, usize)>,
    volumes: BTreeMap<Arc<str>, u32>,
    /// The newest version of each block.
    newest: BTreeMap<(u32, u64), Seq>,
    seq: Seq,
}

const NEWEST: usize = 0;
const FULL: usize = 1;

impl Counter {
    fn new(policy: &Policy, plan: &Plan) -> Self {
        let names = ["newest", "all"].map(str::to_owned).into_iter();
        let windows = (0..policy.windows.len()).map(|index| policy.window_name(Some(index)));
        let tier = |name: String| TierSize { name, points: 0, versions: 0, written_bytes: 0 };
        // Nothing is older than the last window: a trace locks no bookmark.
        let tier_of = |window: Option<usize>| window.map_or(FULL, |window| FULL + 1 + window);
        Self {
            tiers: names.chain(windows).map(tier).collect(),
            ends: policy.windows.iter().map(|window| window.to).collect(),
            now: plan.now,
            full_from: plan.full.from.seq,
            retained: plan.retained.iter().map(|one| (one.point.seq, tier_of(one.window))).collect(),
            volumes: BTreeMap::new(),
            newest: BTreeMap::new(),
            seq: Seq::ZERO,
        }
    }

    fn count(&mut self, line: &TraceLine) {
        let Some((offset, length)) = line.op.range() else { return };
        self.seq = self.seq.next();
        let next = u32::try_from(self.volumes.len()).unwrap_or(u32::MAX);
        let volume = *self.volumes.entry(Arc::clone(&line.volume)).or_insert(next);
        let end = offset.saturating_add(length);
        if let TraceOp::Write { .. } = line.op {
            for block in offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
                if let Some(older) = self.newest.insert((volume, block), self.seq) {
                    self.overwritten(older);
                }
                let tier = self.span_of(line.time);
                if let Some(tier) = self.tiers.get_mut(tier) {
                    tier.written_bytes = tier.written_bytes.saturating_add(BLOCK_BYTES);
                }
            }
        } else {
            // A range without data is one entry of the index. It takes the place of the blocks that it covers whole.
            let covered = (volume, offset.div_ceil(BLOCK_BYTES))..(volume, end / BLOCK_BYTES);
            if covered.start < covered.end {
                let gone: Vec<_> =
                    self.newest.range(covered).map(|(block, older)| (*block, *older)).collect();
                for (block, older) in gone {
                    self.newest.remove(&block);
                    self.overwritten(older);
                }
            }
        }
    }

    /// A version got its successor, the write that is being counted.
    fn overwritten(&mut self, version: Seq) {
        let tier = if self.seq > self.full_from {
            Some(FULL)
        } else {
            let before = self.retained.partition_point(|(point, _)| *point < self.seq);
            let last = before.checked_sub(1).and_then(|at| self.retained.get(at));
            last.filter(|(point, _)| *point >= version).map(|(_, tier)| *tier)
        };
        if let Some(tier) = tier.and_then(|tier| self.tiers.get_mut(tier)) {
            tier.versions += 1;
        }
    }

    /// The tier in whose span the write that is being counted lies.
    fn span_of(&self, time: TimeNs) -> usize {
        if self.seq > self.full_from {
            return FULL;
        }
        let age = self.now.get().saturating_sub(time.get());
        FULL + 1 + self.ends.partition_point(|end| *end <= age)
    }

    fn finish(mut self, policy: &Policy, plan: &Plan) -> HistorySize {
        let newest = u64::try_from(self.newest.len()).unwrap_or(u64::MAX);
        let full_points = self.seq.get().saturating_sub(self.full_from.get()).saturating_add(1);
        for (index, tier) in self.tiers.iter_mut().enumerate() {
            let here =
                plan.retained.iter().filter(|one| one.window.map(|window| FULL + 1 + window) == Some(index));
            tier.points = match index {
                NEWEST => 1,
                FULL => full_points,
                _ => u64::try_from(here.count()).unwrap_or(u64::MAX),
            };
        }
        if let Some(tier) = self.tiers.get_mut(NEWEST) {
            tier.versions = newest;
        }
        // A window whose states are all in the full range has nothing of its own.
        let mut index = 0;
        self.tiers.retain(|tier| {
            index += 1;
            index <= FULL + 1 || tier.points > 0 || tier.written_bytes > 0
        });
        let mut assumptions = vec![
            "exact for this trace, as of its last line; a range without data takes no version".to_owned(),
        ];
        assumptions.extend(common_assumptions());
        let mut size = HistorySize { tiers: self.tiers, assumptions };
        size.remark(policy);
        size
    }
}

/// The seqs that stay of a trace.
#[cfg(test)]
pub(super) fn seqs_that_stay(
    policy: &Policy,
    lines: impl Iterator<Item = Result<TraceLine>>,
) -> Result<Vec<u64>> {
    let (written, now) = Written::read(lines)?;
    let plan = plan(&written, policy, now, &[], TimeNs::ZERO)?;
    let full = plan.full.from.seq.get()..=written.newest().seq.get();
    Ok(plan.retained.iter().map(|one| one.point.seq.get()).chain(full).collect())
}
