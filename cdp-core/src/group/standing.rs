//! Which seqs of a coalesced stretch of the timeline are points.
//!
//! Every write takes a seq, but where writes were coalesced only the last state of each interval is kept. A state is a point when it is
//! the newest, when a bookmark names it, or when its interval ends with it: by time, the write behind it lies in another interval; by
//! barrier, its record does not say that the interval goes on; or the way in which writes are coalesced changes there.

use super::{Group, lines::completed};
use crate::{
    capture::Coalescing,
    error::{Error, Result},
    format::record::Record,
    sabotage::Switch,
    units::{Seq, TimeNs},
};

/// Seqs that are looked at on either side for the nearest point.
const NEAREST_STEPS: usize = 256;

impl Group {
    /// Whether a state of the timeline can be opened, as far as coalescing goes.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn is_point(&self, seq: Seq) -> Result<bool> {
        let coalescing = self.catalog.read().coalescing_at(seq);
        if self.shared.sabotage.on(Switch::PointWithinInterval) {
            return Ok(true);
        }
        if seq == Seq::ZERO || coalescing == Coalescing::PerWrite || seq == self.tip().0 {
            return Ok(true);
        }
        if self.outline().time_of(seq).is_some() {
            return Ok(true);
        }
        if self.catalog.read().bookmarks().any(|bookmark| bookmark.seq == seq) {
            return Ok(true);
        }
        let Some(record) = self.completing(seq)?.filter(|record| record.seq == seq) else {
            let view = self.view();
            return match view.lost.iter().find(|lost| lost.from_seq <= seq && seq <= lost.to_seq) {
                Some(lost) => Err(Error::Damaged(Box::new(lost.damage.clone()))),
                None => Ok(false),
            };
        };
        if self.catalog.read().coalescing().any(|(behind, _)| behind == seq) {
            // A change of how writes are coalesced ends the interval before it.
            return Ok(true);
        }
        Ok(match coalescing {
            Coalescing::PerWrite => true,
            Coalescing::PerBarrier => !record.continues,
            Coalescing::IntervalNs(length) => {
                let slot = |time: TimeNs| time.get() / length.max(1);
                self.next_begun(seq)?.is_none_or(|time| slot(time) != slot(record.time))
            }
        })
    }

    /// The nearest points before and after a state that is none.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn points_around(&self, seq: Seq) -> Result<(Option<Seq>, Option<Seq>)> {
        let mut before = None;
        let mut at = seq;
        let from = self.outline().full.from.seq;
        for _ in 0..NEAREST_STEPS {
            if at <= from {
                break;
            }
            let Some(previous) = self.completed_before(at)?.map(|previous| previous.max(from)) else { break };
            if self.is_point(previous)? {
                before = Some(previous);
                break;
            }
            at = previous;
        }
        let mut after = None;
        let mut at = seq;
        for _ in 0..NEAREST_STEPS {
            let Some(record) = self.completing(at.next())? else { break };
            if self.is_point(record.seq)? {
                after = Some(record.seq);
                break;
            }
            at = record.seq;
        }
        Ok((before, after))
    }

    /// The newest point in a range of seqs, both ends included.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn newest_point_within(&self, from: Seq, to: Seq) -> Result<Option<Seq>> {
        let mut at = to;
        loop {
            if self.is_point(at)? {
                return Ok(Some(at));
            }
            // States that no record completes are none, unless a bookmark names them, and then it is a point above.
            let completed = self.completed_before(at)?;
            let named = self.newest_bookmark_before(at);
            match completed.max(named).filter(|before| *before >= from) {
                Some(before) => at = before,
                None => return Ok(None),
            }
        }
    }

    fn newest_bookmark_before(&self, seq: Seq) -> Option<Seq> {
        let catalog = self.catalog.read();
        catalog.bookmarks().map(|bookmark| bookmark.seq).filter(|named| *named < seq).max()
    }

    /// The record that completes the first seq at or after this one.
    fn completing(&self, seq: Seq) -> Result<Option<Record>> {
        let lines = self.lines_of_seqs();
        let Some(line) = lines.iter().find(|line| line.last_seq >= seq) else { return Ok(None) };
        let entries = self.frame_entries(line)?;
        let Some(entry) =
            entries.iter().find(|entry| entry.last_seq >= seq && entry.last_seq > entry.base_seq)
        else {
            return Ok(None);
        };
        let frame = self.load_frame(line, entry)?;
        Ok(completed(&frame).find(|record| record.seq >= seq).cloned())
    }

    /// The last seq before this one that a record completes; seq 0 is the state before everything.
    fn completed_before(&self, seq: Seq) -> Result<Option<Seq>> {
        if seq == Seq::ZERO {
            return Ok(None);
        }
        let lines = self.lines_of_seqs();
        let Some(line) = lines.iter().rfind(|line| line.base_seq < seq) else { return Ok(Some(Seq::ZERO)) };
        let entries = self.frame_entries(line)?;
        for entry in entries.iter().rev().filter(|e| e.base_seq < seq && e.last_seq > e.base_seq) {
            let frame = self.load_frame(line, entry)?;
            if let Some(record) = completed(&frame).filter(|record| record.seq < seq).last() {
                return Ok(Some(record.seq));
            }
        }
        Ok(Some(line.base_seq.min(Seq::new(seq.get() - 1))))
    }

    /// The time at which the first write behind a state was made.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn next_begun(&self, seq: Seq) -> Result<Option<TimeNs>> {
        let lines = self.lines_of_seqs();
        let Some(line) = lines.iter().find(|line| line.last_seq > seq) else { return Ok(None) };
        // What begins a write of several parts, and so an interval, begins a frame.
        for entry in self.frame_entries(line)?.iter().filter(|entry| entry.timed_records > 0) {
            if entry.base_seq >= seq {
                return Ok(Some(entry.first_time));
            }
            if entry.last_seq > seq {
                let frame = self.load_frame(line, entry)?;
                let begun = frame.records.iter().find(|r| r.takes_seq() && r.first && r.seq > seq);
                if let Some(record) = begun {
                    return Ok(Some(record.time));
                }
            }
        }
        Err(Error::InvalidArgument(format!("there is no seq behind {seq}")))
    }
}
