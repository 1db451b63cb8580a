//! Coalescing at work: writes of an interval wait here, under the turn, and enter the journal as one.
//!
//! A write that waits has its seq already; the seq that is published at the end of the interval is that of its last write. Reads of the
//! newest state, flushes and bookmarks settle what waits first, so nobody sees a part of it missing.
//! Invariant *bounded*: what waits is at most [`BYTES_MAX`] bytes in [`RUNS_MAX`] runs; beyond it the interval enters the journal in two
//! steps, of which only the last is a point.

use super::{
    Group,
    append::{SeqRule, Stamp, Turn, time_of},
    lag::Arrival,
    space::Purpose,
};
use crate::{
    capture::{
        Coalescing,
        coalesce::{Coalesced, CoalescedRun, Interval, RunContent},
    },
    error::Result,
    format::meta::MetaRecord,
    journal::{PreparedWrite, WriteKind, interval_part},
    limits::{FRAME_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX},
    units::{Seq, TimeNs, len_u64},
};
use std::sync::atomic::Ordering;

/// Bytes of data that wait at most.
const BYTES_MAX: u64 = 8 << 20;
/// Runs that wait at most.
const RUNS_MAX: usize = 4096;
/// Records that fit the tail of a frame, at least.
const FRAME_RECORDS: usize = 512;

/// What waits for the end of its interval.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    coalescing: Coalescing,
    interval: Interval,
    source_bytes: u64,
    /// Bytes of data, with what was overwritten since.
    data_bytes: u64,
    since: Option<Arrival>,
}

impl Waiting {
    /// Nothing waits yet.
    pub fn new(coalescing: Coalescing) -> Self {
        Self { coalescing, ..Self::default() }
    }

    /// Bytes of data that wait.
    pub fn bytes(&self) -> u64 {
        self.interval.bytes()
    }

    /// When the first write that waits arrived.
    pub(super) fn since(&self) -> Option<Arrival> {
        self.since
    }
}

impl Group {
    /// How writes are coalesced.
    pub fn coalescing(&self) -> Coalescing {
        self.waiting.lock().coalescing
    }

    /// Coalesces from the next write on. Durable when this returns.
    pub fn set_coalescing(&self, coalescing: Coalescing) -> Result<()> {
        let frame = {
            let turn = self.take_turn();
            self.drain_captured(&turn)?;
            self.settle(&turn, true)?;
            let behind = self.append.lock().last_seq;
            let frame =
                self.append_records(&turn, vec![MetaRecord::CoalescingSet { behind, coalescing }], None)?;
            // In the same turn, and whatever becomes of the sync: no write may wait in another way than the catalog says.
            self.waiting.lock().coalescing = coalescing;
            self.coalesces.store(coalescing != Coalescing::PerWrite, Ordering::Release);
            frame
        };
        self.seal_below(frame.next());
        self.wait_durable(frame.next())
    }

    /// Lets a write wait for the end of its interval, when writes are coalesced. `None`: it is to be appended now.
    pub(super) fn coalesce(
        &self,
        turn: &Turn<'_>,
        write: &PreparedWrite<'_>,
        stamp: Stamp,
        rule: SeqRule,
    ) -> Result<Option<Seq>> {
        if !self.coalesces.load(Ordering::Acquire) {
            return Ok(None);
        }
        let coalescing = self.waiting.lock().coalescing;
        let (volume, range, kind, data) = write.content();
        if coalescing == Coalescing::PerWrite || rule != SeqRule::Next || kind == WriteKind::Stage {
            if rule == SeqRule::Next {
                self.settle(turn, true)?;
            }
            return Ok(None);
        }
        let waiting_since = self.waiting.lock().interval.last_time();
        let time = {
            let append = self.append.lock();
            time_of(
                append.newest_time.max(waiting_since.unwrap_or_default()),
                stamp,
                rule,
                &*self.shared.clock,
            )?
        };
        if let (Coalescing::IntervalNs(length), Some(last)) = (coalescing, waiting_since)
            && last.get() / length.max(1) != time.get() / length.max(1)
        {
            self.settle(turn, true)?;
        }
        {
            let waiting = self.waiting.lock();
            let full = waiting.interval.bytes() + write.stored_bytes_max() > BYTES_MAX
                || waiting.interval.runs() + 2 > RUNS_MAX;
            drop(waiting);
            if full {
                self.settle(turn, false)?;
            }
        }
        if write.stored_bytes_max() > BYTES_MAX {
            // It is an interval's worth by itself.
            return Ok(None);
        }
        let content = match kind {
            WriteKind::Data => RunContent::Data(data.to_vec()),
            WriteKind::Zero => RunContent::Zero,
            _ => RunContent::Discard,
        };
        let last_seq = self.append.lock().last_seq;
        let mut waiting = self.waiting.lock();
        waiting.interval.add(volume, range, content, time);
        waiting.source_bytes += write.source_bytes();
        waiting.data_bytes += len_u64(data.len());
        waiting.since.get_or_insert_with(|| self.arrivals.of(time));
        Ok(Some(Seq::new(last_seq.get() + waiting.interval.writes())))
    }

    /// Puts what waits into the journal. `ends`: the interval ends here, and the state is a point.
    ///
    /// # Errors
    /// Those of appending; what waits goes on waiting.
    pub(super) fn settle(&self, turn: &Turn<'_>, ends: bool) -> Result<()> {
        if self.waiting.lock().interval.is_empty() {
            return Ok(());
        }
        self.check_writable()?;
        // Room first, so that nothing is taken out that cannot be put in.
        let (bytes, runs) = {
            let waiting = self.waiting.lock();
            (waiting.interval.bytes(), waiting.interval.runs())
        };
        // Pieces at block boundaries, and a block of zeroes beside data as data: at most three records and a block more a run.
        let records = 3 * runs + 1;
        let frames = usize::try_from(bytes).unwrap_or(usize::MAX) / FRAME_PAYLOAD_BYTES_MAX
            + records / FRAME_RECORDS
            + 2;
        let room = bytes + len_u64(frames * (FRAME_BYTES_MAX - FRAME_PAYLOAD_BYTES_MAX) + runs * 8192);
        let entries = usize::try_from(bytes / 512).unwrap_or(usize::MAX) + 64 * records;
        self.reserve_room(Purpose::Data, frames, room, entries)?;
        let (coalesced, source_bytes, data_bytes, since) = {
            let mut waiting = self.waiting.lock();
            let source_bytes = std::mem::take(&mut waiting.source_bytes);
            let data_bytes = std::mem::take(&mut waiting.data_bytes);
            (waiting.interval.take(), source_bytes, data_bytes, waiting.since.take())
        };
        self.totals.coalesced_bytes.fetch_add(data_bytes, Ordering::Relaxed);
        let stored = coalesced.runs.iter().map(|run| match &run.content {
            RunContent::Data(data) => len_u64(data.len()),
            RunContent::Zero | RunContent::Discard => 0,
        });
        self.totals.coalesced_stored_bytes.fetch_add(stored.sum(), Ordering::Relaxed);
        if let Some(since) = since {
            self.arrivals.take(since);
        }
        self.append_coalesced(turn, coalesced, ends);
        self.arrivals.taken();
        self.totals.source_bytes.fetch_add(source_bytes, Ordering::Relaxed);
        Ok(())
    }

    fn append_coalesced(&self, _turn: &Turn<'_>, coalesced: Coalesced, ends: bool) {
        let last_seq = Seq::new(self.append.lock().last_seq.get() + coalesced.writes);
        let mut runs = coalesced.runs;
        // The part that comes last carries the last seq.
        runs.sort_by_key(|run| std::cmp::Reverse(run.layer));
        let last_run = runs.len() - 1;
        let time = coalesced.last_time;
        self.push_coalesced(interval_part(), last_seq, coalesced.first_time, true);
        for (index, run) in runs.iter().enumerate() {
            let seq = Seq::new(last_seq.get() - run.layer);
            let write = self.prepared(run);
            let parts = write.parts().count();
            for (part_index, mut part) in write.parts().enumerate() {
                let last = index == last_run && part_index + 1 == parts;
                part.record.first = false;
                part.record.last = last;
                part.record.continues = last && !ends;
                self.push_coalesced(part, seq, time, false);
                if last {
                    self.publish_seq(&mut self.append.lock(), last_seq, time, SeqRule::Next);
                }
            }
        }
    }

    fn push_coalesced(&self, part: crate::journal::Part<'_>, seq: Seq, time: TimeNs, fresh: bool) {
        let open = self.open_frame(|open| (open.is_empty() || !fresh) && open.fits(&part));
        match open {
            Ok(mut append) => self.push_part(&mut append, part, seq, time, SeqRule::Next),
            // Nothing but memory for a frame can be missing: the interval is cut short, and nothing may follow it.
            Err(error) => self.poison(&format!("an interval was cut short: {error}")),
        }
    }

    fn prepared<'a>(&self, run: &'a CoalescedRun) -> PreparedWrite<'a> {
        match &run.content {
            RunContent::Data(data) => PreparedWrite::data(run.volume, run.range, data, self.shared.key),
            RunContent::Zero => PreparedWrite::range(run.volume, run.range, WriteKind::Zero),
            RunContent::Discard => PreparedWrite::range(run.volume, run.range, WriteKind::Discard),
        }
    }

    /// Ends an interval whose time is over by the clock of the host, so that what is quiet does not wait for ever.
    ///
    /// # Errors
    /// As [`Group::settle`].
    pub fn settle_aged(&self) -> Result<()> {
        if !self.coalesces.load(Ordering::Acquire) {
            return Ok(());
        }
        let (coalescing, last) = {
            let waiting = self.waiting.lock();
            (waiting.coalescing, waiting.interval.last_time())
        };
        let (Coalescing::IntervalNs(length), Some(last)) = (coalescing, last) else { return Ok(()) };
        let slot = |time: TimeNs| time.get() / length.max(1);
        if slot(self.shared.clock.now()) == slot(last) {
            return Ok(());
        }
        let turn = self.take_turn();
        self.settle(&turn, true)
    }

    /// Puts what waits into the journal so that reads of the newest state see it.
    ///
    /// # Errors
    /// As [`Group::settle`].
    pub fn settle_for_reading(&self) -> Result<()> {
        if !self.coalesces.load(Ordering::Acquire) || self.waiting.lock().interval.is_empty() {
            return Ok(());
        }
        // What a read has seen may as well be a point: a barrier that follows finds nothing left to end.
        let turn = self.take_turn();
        self.settle(&turn, true)
    }
}
