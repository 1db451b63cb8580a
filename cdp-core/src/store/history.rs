//! The history of a store as the planner of retention asks for it.

use super::Store;
use crate::{
    bookmark::Bookmark,
    error::{Result, SeqTime},
    format::digest::DigestKey,
    retention::{FullRange, History, Kept, Outline, Policy},
    units::{Seq, TimeNs},
};
use std::sync::Arc;

/// A history, as it stands at one moment below its newest state.
pub(super) struct StoreHistory<'a> {
    store: &'a Store,
    newest: SeqTime,
    full: FullRange,
    kept: Vec<Kept>,
    bookmarks: Vec<Bookmark>,
    planned_at: Option<TimeNs>,
}

/// The digest by which a policy is known to an outline.
pub(super) fn policy_digest(policy: &Policy) -> u64 {
    DigestKey(0).digest(policy.to_json().as_bytes())
}

impl<'a> StoreHistory<'a> {
    /// The history of a store under a policy.
    pub fn new(store: &'a Store, policy: &Policy, outline: &Arc<Outline>) -> Result<Self> {
        let mut full = outline.full;
        if outline.is_whole() {
            // Never thinned: the store begins with its first volume.
            full.from = store.with_time(store.oldest_seq())?;
        }
        let digest = policy_digest(policy);
        Ok(Self {
            store,
            newest: store.newest(),
            full,
            kept: outline.kept_for_plan(),
            bookmarks: store.bookmarks(),
            planned_at: outline.planned.filter(|(_, of)| *of == digest).map(|(at, _)| at),
        })
    }

    /// The nearest point at or before a state of the full range: not within a coalesced interval, and not where all volumes are in a gap.
    fn point_at_or_before(&self, mut seq: Seq) -> Result<Option<SeqTime>> {
        let group = &self.store.inner.group;
        while seq >= self.full.from.seq {
            if let Some(before) = self.before_gaps(seq) {
                seq = before;
                continue;
            }
            if group.is_point(seq)? {
                return self.store.with_time(seq).map(Some);
            }
            match group.points_around(seq)?.0 {
                Some(point) if point < seq => seq = point,
                _ => break,
            }
        }
        Ok(None)
    }

    /// The last state before the gaps that all volumes are in; `None` when some volume is not in one.
    fn before_gaps(&self, seq: Seq) -> Option<Seq> {
        let catalog = self.store.inner.group.catalog.read();
        let mut opened = None;
        for info in catalog.volumes().filter(|info| info.exists_from <= seq) {
            let gap = catalog.gap_at(info.id, seq)?;
            opened = opened.max(Some(gap.opened.seq));
        }
        opened.and_then(|opened| opened.get().checked_sub(1)).map(Seq::new)
    }

    /// The first state behind a seq that a frame may tell of.
    fn behind_lost(&self, mut seq: Seq) -> Seq {
        let view = self.store.inner.group.view();
        while let Some(lost) = view.lost.iter().find(|lost| lost.from_seq <= seq && seq <= lost.to_seq) {
            seq = lost.to_seq.next();
        }
        seq
    }
}

impl History for StoreHistory<'_> {
    fn newest(&self) -> SeqTime {
        self.newest
    }

    fn full_range(&self) -> FullRange {
        self.full
    }

    fn kept(&self) -> &[Kept] {
        &self.kept
    }

    fn bookmarks(&self) -> &[Bookmark] {
        &self.bookmarks
    }

    fn planned_at(&self) -> Option<TimeNs> {
        self.planned_at
    }

    fn last_at_or_before(&self, time: TimeNs) -> Result<Option<SeqTime>> {
        if time < self.full.from.time {
            return Ok(None);
        }
        if time >= self.newest.time {
            return Ok(Some(self.newest));
        }
        let found = self.store.inner.group.seq_at(time)?.seq.min(self.newest.seq);
        self.point_at_or_before(found)
    }

    fn next_after(&self, seq: Seq) -> Result<Option<SeqTime>> {
        let group = &self.store.inner.group;
        let mut next = self.behind_lost(seq.next().max(self.full.from.seq));
        while next < self.newest.seq {
            let in_gaps = self.before_gaps(next).is_some();
            if !in_gaps && group.is_point(next)? {
                return self.store.with_time(next).map(Some);
            }
            next = match group.points_around(next)?.1 {
                Some(point) if !in_gaps => self.behind_lost(point),
                _ => self.behind_lost(next.next()),
            };
        }
        Ok((seq < self.newest.seq).then_some(self.newest))
    }

    fn time_of(&self, seq: Seq) -> Result<Option<TimeNs>> {
        if seq < self.full.from.seq || seq > self.newest.seq {
            return Ok(None);
        }
        let group = &self.store.inner.group;
        // What is being read was a point when it was the newest state, even if its interval went on.
        let is_read = || group.pinned().binary_search(&seq).is_ok();
        if group.is_point(seq)? || is_read() { group.time_of_seq(seq).map(Some) } else { Ok(None) }
    }

    fn until(&self, seq: Seq) -> Result<Option<TimeNs>> {
        if seq >= self.newest.seq { Ok(None) } else { self.store.inner.group.next_begun(seq) }
    }
}
