//! Points of the timeline: resolving them, and listing what can be recovered.

use super::Store;
use crate::{
    bookmark::{Bookmark, BookmarkKind},
    capture::Coalescing,
    catalog::{GapSpan, Gaps, VolumeInfo},
    error::{Error, PointUnavailable, Result, SeqTime},
    index::LostRange,
    point::Point,
    retention::{Outline, TimePlace},
    text::format_time,
    units::{Seq, TimeNs},
};

/// How finely a range of the timeline was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Every write is a point.
    Write,
    /// The last state of each interval of this many nanoseconds is a point.
    IntervalNs(u64),
    /// The state at each flush and bookmark is a point.
    Barrier,
}

/// A range in which every seq can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactRange {
    /// The volume.
    pub volume: String,
    /// First point.
    pub from: SeqTime,
    /// Last point.
    pub to: SeqTime,
    /// How finely it was recorded.
    pub granularity: Granularity,
}

/// A range that is not exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The volume.
    pub volume: String,
    /// First point that is not exact.
    pub from: SeqTime,
    /// Last point that is not exact.
    pub to: SeqTime,
    /// Why.
    pub reason: String,
}

/// A single point that was kept where others were thinned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedPoint {
    /// The point.
    pub point: SeqTime,
    /// The window of the policy that keeps it.
    pub window: String,
    /// Why it is kept.
    pub why: String,
}

/// Everything that can be recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The volumes.
    pub volumes: Vec<VolumeInfo>,
    /// The oldest point.
    pub oldest: SeqTime,
    /// The newest point.
    pub newest: SeqTime,
    /// The newest point that is exact for all volumes.
    pub newest_exact: Option<SeqTime>,
    /// Up to here it is known that nothing else was written.
    pub covered_to: TimeNs,
    /// Ranges in which every seq can be opened.
    pub exact: Vec<ExactRange>,
    /// Ranges that are not exact.
    pub gaps: Vec<Gap>,
    /// Points kept outside of the exact ranges.
    pub retained: Vec<RetainedPoint>,
    /// Bookmarks, by seq, then time, then name.
    pub bookmarks: Vec<Bookmark>,
}

impl Store {
    /// The seq of a point, and its time. A bookmark's time is its own.
    ///
    /// # Errors
    /// `PointUnavailable`, `Damaged`, `Io`.
    pub fn resolve(&self, point: &Point) -> Result<SeqTime> {
        let resolved = self.resolve_named(point)?;
        let oldest = self.oldest_seq();
        let newest = self.newest();
        if resolved.seq > newest.seq {
            return Err(self.unavailable(point, resolved.seq, "it lies in the future".into()));
        }
        if resolved.seq < oldest {
            let reason = format!("the store begins with seq:{oldest}");
            return Err(self.unavailable(point, resolved.seq, reason));
        }
        self.check_kept(point, resolved)
    }

    /// As [`Store::resolve`], also for a point before any volume existed.
    pub(super) fn resolve_kept(&self, point: &Point) -> Result<SeqTime> {
        let resolved = self.resolve_named(point)?;
        self.check_kept(point, resolved)
    }

    fn check_kept(&self, point: &Point, resolved: SeqTime) -> Result<SeqTime> {
        if self.inner.group.outline().contains(resolved.seq) {
            return Ok(resolved);
        }
        Err(self.thinned(point, resolved.seq))
    }

    /// The answer to who asks for a state that retention has taken away.
    fn thinned(&self, point: &Point, near: Seq) -> Error {
        self.unavailable(point, near, "it was thinned away by the retention policy".into())
    }

    /// The same without the check that the store reaches back to it.
    pub(super) fn resolve_named(&self, point: &Point) -> Result<SeqTime> {
        // A write that waits for the end of its interval has its seq already.
        self.inner.group.settle_for_reading()?;
        let newest = self.newest();
        match point {
            Point::Latest => Ok(newest),
            Point::Oldest => self.with_time(self.oldest_seq()),
            Point::Seq(seq) if *seq > newest.seq => {
                Err(self.unavailable(point, *seq, "it lies in the future".into()))
            }
            Point::Seq(seq) if !self.inner.group.outline().contains(*seq) => Err(self.thinned(point, *seq)),
            Point::Seq(seq) if !self.inner.group.is_point(*seq)? => Err(self.not_kept(point, *seq)),
            Point::Seq(seq) => self.with_time(*seq),
            Point::Time(time) => self.resolve_time(point, *time),
            Point::Bookmark(name) => match self.bookmark(name) {
                Ok(bookmark) => Ok(SeqTime { seq: bookmark.seq, time: bookmark.time }),
                Err(_) => Err(self.unavailable(point, newest.seq, "there is no such bookmark".into())),
            },
            Point::BookmarkLatest(kind) => self.pick_bookmark(point, *kind, TimeNs::MAX),
            Point::BookmarkBefore(time, kind) => self.pick_bookmark(point, *kind, *time),
        }
    }

    pub(crate) fn with_time(&self, seq: Seq) -> Result<SeqTime> {
        Ok(SeqTime { seq, time: self.inner.group.time_of_seq(seq)? })
    }

    fn resolve_time(&self, point: &Point, time: TimeNs) -> Result<SeqTime> {
        let (seq, newest_time, covered_to) = self.inner.group.tip();
        if time > covered_to.max(newest_time) {
            let reason =
                format!("the timeline is covered up to {}", format_time(covered_to.max(newest_time)));
            return Err(self.unavailable(point, seq.next(), reason));
        }
        match self.inner.group.outline().place_of(time) {
            TimePlace::Full => {}
            TimePlace::Kept(kept) => return Ok(kept),
            TimePlace::Gone(near) => return Err(self.thinned(point, near)),
        }
        let found = self.inner.group.seq_at(time)?;
        // Where writes were coalesced, the state at this time may be one that was not kept.
        if self.inner.group.catalog.read().coalescing_at(found.seq.next()) != Coalescing::PerWrite
            && found.seq < seq
            && self.inner.group.next_begun(found.seq)?.is_some_and(|begun| begun <= time)
        {
            return Err(self.not_kept(point, found.seq.next()));
        }
        if !self.inner.group.is_point(found.seq)? {
            return Err(self.not_kept(point, found.seq));
        }
        Ok(found)
    }

    /// The answer to who asks for a state that coalescing did not keep.
    fn not_kept(&self, point: &Point, seq: Seq) -> Error {
        self.unavailable(point, seq, "only the last state of each interval was kept there".into())
    }

    fn pick_bookmark(&self, point: &Point, kind: Option<BookmarkKind>, before: TimeNs) -> Result<SeqTime> {
        let bookmarks = self.bookmarks();
        let of_kind = bookmarks.iter().filter(|bookmark| kind.is_none_or(|kind| bookmark.kind == kind));
        let found = if before == TimeNs::MAX {
            of_kind.max_by_key(|bookmark| (bookmark.seq, bookmark.time))
        } else {
            of_kind.filter(|bookmark| bookmark.time < before).max_by_key(|b| (b.time, b.seq))
        };
        let none = || self.unavailable(point, self.newest().seq, "there is no such bookmark".into());
        found.map(|bookmark| SeqTime { seq: bookmark.seq, time: bookmark.time }).ok_or_else(none)
    }

    /// The first seq at which any volume can be opened.
    pub(super) fn oldest_seq(&self) -> Seq {
        let catalog = self.inner.group.catalog.read();
        let first = catalog.volumes().map(|volume| volume.exists_from).min().unwrap_or_default();
        first.max(self.inner.group.outline().oldest().seq)
    }

    /// The volumes that cannot be opened at a seq because a gap is there.
    pub(super) fn inexact_at(&self, seq: Seq) -> Vec<String> {
        let catalog = self.inner.group.catalog.read();
        let in_gap = catalog.volumes().filter(|info| catalog.gap_at(info.id, seq).is_some());
        in_gap.map(|info| info.name.clone()).collect()
    }

    pub(super) fn unavailable(&self, point: &Point, near: Seq, reason: String) -> Error {
        let first = self.inner.group.catalog.read().volumes().next().cloned();
        let (before, after) = first.map_or((None, None), |info| self.nearest(&info, near));
        Error::PointUnavailable(Box::new(PointUnavailable {
            requested: point.to_string(),
            reason,
            before,
            after,
        }))
    }

    /// The exact points of a volume nearest to a seq that is none, on both sides.
    pub(super) fn nearest(&self, info: &VolumeInfo, seq: Seq) -> (Option<SeqTime>, Option<SeqTime>) {
        let exact = self.exact_spans(info);
        let group = &self.inner.group;
        let outline = group.outline();
        if seq < outline.full.from.seq {
            return self.nearest_kept(info, &outline, seq, &exact);
        }
        let point = |seq: Seq| self.with_time(seq).ok();
        let is_point = |seq: Seq| group.is_point(seq).unwrap_or(true);
        // A span may have no point at all.
        let before = exact.iter().rev().filter(|span| span.0 <= seq).find_map(|span| {
            let last = span.1.min(seq);
            let found = if is_point(last) { Some(last) } else { group.points_around(last).ok()?.0 };
            found.filter(|found| span.0 <= *found)
        });
        let after = exact.iter().filter(|span| span.1 >= seq).find_map(|span| {
            let first = span.0.max(seq);
            let found = if is_point(first) { Some(first) } else { group.points_around(first).ok()?.1 };
            found.filter(|found| *found <= span.1)
        });
        let before = before.and_then(point).or_else(|| self.nearest_kept(info, &outline, seq, &exact).0);
        (before, after.and_then(point))
    }

    /// The same for a seq before the full range: among the points that are kept there, or the first exact one.
    fn nearest_kept(
        &self,
        info: &VolumeInfo,
        outline: &Outline,
        seq: Seq,
        exact: &[(Seq, Seq)],
    ) -> (Option<SeqTime>, Option<SeqTime>) {
        let catalog = self.inner.group.catalog.read();
        let opens = |at: Seq| at >= info.exists_from && catalog.gap_at(info.id, at).is_none();
        let kept = || outline.kept().map(|kept| kept.point).filter(|point| opens(point.seq));
        let before = kept().rfind(|point| point.seq < seq);
        let after = kept().find(|point| point.seq > seq);
        drop(catalog);
        let first = || exact.iter().find(|span| span.0 > seq).and_then(|span| self.with_time(span.0).ok());
        (before, after.or_else(first))
    }

    /// The ranges of seqs, both ends included, in which every state of a volume can be opened.
    pub(super) fn exact_spans(&self, info: &VolumeInfo) -> Vec<(Seq, Seq)> {
        let newest = self.newest().seq;
        // Behind a lost frame any block may be unknown until it is written again; each read tells.
        let first_lost = self.inner.group.view().lost.iter().map(|lost| lost.from_seq).min();
        let end = first_lost.map_or(newest, |lost| newest.min(Seq::new(lost.get().saturating_sub(1))));
        let mut spans = Vec::new();
        let mut from = Some(info.exists_from);
        let full_from = self.inner.group.outline().full.from.seq;
        let mut push = |from: Seq, to: Seq| {
            let (from, to) = (from.max(full_from), to.min(end));
            if from <= to {
                spans.push((from, to));
            }
        };
        let catalog = self.inner.group.catalog.read();
        for gap in catalog.gaps(info.id).into_iter().flat_map(Gaps::iter) {
            if let (Some(from), Some(before)) = (from, gap.opened.seq.get().checked_sub(1)) {
                push(from, Seq::new(before));
            }
            from = gap.closed.map(|closed| closed.seq);
        }
        if let Some(from) = from {
            push(from, newest);
        }
        spans
    }

    /// Everything that can be recovered.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn timeline(&self) -> Result<Timeline> {
        self.inner.group.settle_for_reading()?;
        let (seq, time, covered_to) = self.inner.group.tip();
        let newest = SeqTime { seq, time };
        let volumes = self.volumes();
        let lost = self.inner.group.view().lost.clone();
        let outline = self.inner.group.outline();
        let retained = outline.kept().map(|kept| RetainedPoint {
            point: kept.point,
            window: kept.window.clone(),
            why: kept.why.clone(),
        });
        let mut exact = Vec::new();
        let mut gaps = Vec::new();
        for volume in &volumes {
            for (from, to) in self.exact_spans(volume).into_iter().filter(|(from, _)| *from <= seq) {
                for (from, to, coalescing) in self.by_coalescing(from, to.min(seq)) {
                    let granularity = match coalescing {
                        Coalescing::PerWrite => Granularity::Write,
                        Coalescing::IntervalNs(length) => Granularity::IntervalNs(length),
                        Coalescing::PerBarrier => Granularity::Barrier,
                    };
                    // The ends of a coalesced range are points.
                    let group = &self.inner.group;
                    let from = if group.is_point(from)? { Some(from) } else { group.points_around(from)?.1 };
                    let to = if group.is_point(to)? { Some(to) } else { group.points_around(to)?.0 };
                    let (Some(from), Some(to)) = (from, to) else { continue };
                    if from <= to {
                        let (from, to) = (self.with_time(from)?, self.with_time(to)?);
                        exact.push(ExactRange { volume: volume.name.clone(), from, to, granularity });
                    }
                }
            }
            let spans: Vec<GapSpan> = {
                let catalog = self.inner.group.catalog.read();
                catalog.gaps(volume.id).into_iter().flat_map(Gaps::iter).copied().collect()
            };
            let in_full = |gap: &&GapSpan| gap.closed.is_none_or(|closed| closed.seq > outline.full.from.seq);
            for gap in spans.iter().filter(|gap| gap.opened.seq <= seq).filter(in_full) {
                // Every time before that of the closing seq is in the gap, and that one is not.
                let before = |closed: SeqTime| SeqTime {
                    seq: Seq::new(closed.seq.get() - 1),
                    time: TimeNs::new(closed.time.get().saturating_sub(1)).max(gap.opened.time),
                };
                let to = gap.closed.filter(|closed| closed.seq <= seq).map_or(newest, before);
                let reason = gap.reason.to_string();
                gaps.push(Gap { volume: volume.name.clone(), from: gap.opened, to, reason });
            }
            for range in lost.iter().filter(|range| range.to_seq >= volume.exists_from) {
                gaps.push(self.lost_gap(volume, range, newest)?);
            }
            gaps.sort_by(|a, b| (&a.volume, a.from, a.to).cmp(&(&b.volume, b.from, b.to)));
        }
        let newest_exact = match self.newest_exact_point(&[]) {
            // The rest of the timeline is worth knowing all the more.
            Err(error) if error.is_damage() => None,
            found => found?,
        };
        Ok(Timeline {
            oldest: self.with_time(self.oldest_seq())?,
            newest,
            newest_exact,
            covered_to: covered_to.max(time),
            exact,
            gaps,
            retained: retained.collect(),
            bookmarks: self.bookmarks(),
            volumes,
        })
    }

    /// Cuts a range of seqs, both ends included, where writes were coalesced in another way.
    fn by_coalescing(&self, from: Seq, to: Seq) -> Vec<(Seq, Seq, Coalescing)> {
        let catalog = self.inner.group.catalog.read();
        let mut cuts = vec![(from, catalog.coalescing_at(from))];
        let within = catalog.coalescing().filter(|(behind, _)| behind.next() > from && *behind < to);
        cuts.extend(within.map(|(behind, coalescing)| (behind.next(), coalescing)));
        let ends = cuts.iter().skip(1).map(|(next, _)| Seq::new(next.get() - 1)).chain([to]);
        cuts.iter().zip(ends).map(|((from, coalescing), to)| (*from, to, *coalescing)).collect()
    }

    fn lost_gap(&self, volume: &VolumeInfo, lost: &LostRange, newest: SeqTime) -> Result<Gap> {
        let before = Seq::new(lost.from_seq.get().saturating_sub(1));
        let full_from = self.inner.group.outline().full.from;
        let time = if before < full_from.seq { full_from.time } else { self.with_time(before)?.time };
        let from = SeqTime { seq: lost.from_seq, time };
        Ok(Gap { volume: volume.name.clone(), from, to: newest, reason: "damage".into() })
    }
}
