//! Points of the timeline: resolving them, and listing what can be recovered.

use super::Store;
use crate::{
    bookmark::{Bookmark, BookmarkKind},
    catalog::VolumeInfo,
    error::{Error, PointUnavailable, Result, SeqTime},
    index::LostRange,
    point::Point,
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
        Ok(resolved)
    }

    /// The same without the check that the store reaches back to it.
    pub(super) fn resolve_named(&self, point: &Point) -> Result<SeqTime> {
        let newest = self.newest();
        match point {
            Point::Latest => Ok(newest),
            Point::Oldest => self.with_time(self.oldest_seq()),
            Point::Seq(seq) if *seq > newest.seq => {
                Err(self.unavailable(point, *seq, "it lies in the future".into()))
            }
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

    fn with_time(&self, seq: Seq) -> Result<SeqTime> {
        Ok(SeqTime { seq, time: self.inner.group.time_of_seq(seq)? })
    }

    fn resolve_time(&self, point: &Point, time: TimeNs) -> Result<SeqTime> {
        let (seq, newest_time, covered_to) = self.inner.group.tip();
        if time > covered_to.max(newest_time) {
            let reason =
                format!("the timeline is covered up to {}", format_time(covered_to.max(newest_time)));
            return Err(self.unavailable(point, seq.next(), reason));
        }
        self.inner.group.seq_at(time)
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
    fn oldest_seq(&self) -> Seq {
        let catalog = self.inner.group.catalog.read();
        catalog.volumes().map(|volume| volume.exists_from).min().unwrap_or_default()
    }

    fn unavailable(&self, point: &Point, near: Seq, reason: String) -> Error {
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
        let newest = self.newest().seq;
        let point = |seq: Seq| self.with_time(seq).ok();
        if seq > newest {
            (point(newest), None)
        } else if seq < info.exists_from {
            (None, point(info.exists_from))
        } else {
            (point(seq), point(seq))
        }
    }

    /// Everything that can be recovered.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn timeline(&self) -> Result<Timeline> {
        let (seq, time, covered_to) = self.inner.group.tip();
        let newest = SeqTime { seq, time };
        let volumes = self.volumes();
        let lost = self.inner.group.view().lost.clone();
        let mut exact = Vec::new();
        let mut gaps = Vec::new();
        for volume in &volumes {
            let mut from = volume.exists_from;
            for range in lost.iter().filter(|range| range.to_seq >= volume.exists_from) {
                self.push_exact(&mut exact, volume, from, range.from_seq.get().checked_sub(1).map(Seq::new))?;
                gaps.push(self.gap(volume, range, newest)?);
                from = range.to_seq.next();
            }
            // Behind a lost frame any block may be unknown until it is written again; each read tells.
            if lost.is_empty() {
                self.push_exact(&mut exact, volume, from, Some(newest.seq))?;
            }
        }
        Ok(Timeline {
            oldest: self.with_time(self.oldest_seq())?,
            newest,
            covered_to: covered_to.max(time),
            exact,
            gaps,
            retained: Vec::new(),
            bookmarks: self.bookmarks(),
            volumes,
        })
    }

    fn push_exact(
        &self,
        exact: &mut Vec<ExactRange>,
        volume: &VolumeInfo,
        from: Seq,
        to: Option<Seq>,
    ) -> Result<()> {
        if let Some(to) = to.filter(|to| *to >= from) {
            let (from, to) = (self.with_time(from)?, self.with_time(to)?);
            exact.push(ExactRange { volume: volume.name.clone(), from, to, granularity: Granularity::Write });
        }
        Ok(())
    }

    fn gap(&self, volume: &VolumeInfo, lost: &LostRange, newest: SeqTime) -> Result<Gap> {
        let before = Seq::new(lost.from_seq.get().saturating_sub(1));
        let from = SeqTime { seq: lost.from_seq, time: self.with_time(before)?.time };
        Ok(Gap { volume: volume.name.clone(), from, to: newest, reason: "damage".into() })
    }
}
