//! Resync of a volume: dirty blocks are read from the source, compared with the newest state, and what differs is appended under a seq that
//! was taken *before* the read, so that any write captured since then wins. A comparison is by the digests of the index, or by bytes.
//!
//! While writes only mark (BITMAP), passes over the map go on until little is left; then writes are captured whole again (RESYNC) and the
//! rest follows. When the map is empty and everything is durable, the gap closes. An overload in the middle leads back to BITMAP with
//! what is still dirty, and the next attempt waits longer, up to a bound.
//!
//! One engine serves the tap, whose resync the runner or the host steps, and a source that nobody captures from
//! ([`Store::resync_from`](crate::Store::resync_from)), whose caller steps it and may let threads read ahead. The latter compares without a gap
//! until it meets the first difference.
//!
//! Invariants: *token* - a block turns clean only by the token of the read that made its record, after that record is durable;
//! *one version a seq* - a seq is used for many pieces while nothing else was written, and never in two passes.

mod ahead;
mod log;
mod schedule;

pub use schedule::{Hours, ResyncSchedule};
pub(crate) use schedule::{Throttle, Waiting};

pub(crate) use ahead::{Fetched, PIECE_BYTES, ReadAhead, Request};
pub(crate) use log::TapLog;

use crate::{
    capture::{Capture, Mode, tap::TapState},
    catalog::{GapReason, SourceStamp},
    dirty_map::{ByteRange, InResync},
    error::{Error, Result},
    format::all_zero,
    group::{Content, Group, How, Stamp},
    journal::{PreparedWrite, WriteKind},
    sabotage::Switch,
    units::{
        BLOCK_BYTES, BLOCK_LEN, FrameNo, SECTOR_BYTES, Sector, SectorRange, Seq, TimeNs, len_u64, to_len,
    },
};
use std::{collections::VecDeque, io, mem, sync::Arc, time::Duration};

/// How errors name the source.
pub(crate) const SOURCE: &str = "the source of the resync";
/// Bytes that may wait to become durable before they turn clean.
const IN_FLIGHT_BYTES_MAX: u64 = 16 << 20;
/// Pieces that may wait for that; fewer than the runs that a map has in resync.
const IN_FLIGHT_MAX: usize = 128;
/// Longest hole that is taken at once, bytes.
const HOLE_BYTES_MAX: u64 = 1 << 30;
/// Dirty bytes at which writes are captured whole again.
const NEARLY_DONE_BYTES: u64 = 8 << 20;
/// First wait after a setback.
const BACKOFF_NS_MIN: u64 = 10_000_000;
/// Longest wait after setbacks in a row.
const BACKOFF_NS_MAX: u64 = 5_000_000_000;

/// The production disk, as the host reads it.
pub trait SourceReader: Send + Sync {
    /// Fills `buf` from byte `offset`, with what a read by the application would give: at least everything whose write was completed
    /// when the call was made. Multiples of 512; never past the end of the volume. Address and length of `buf` allow direct I/O, but for the
    /// length at the end of a volume.
    ///
    /// # Errors
    /// Those of the disk. Resync tries again later.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Makes every write durable that was completed when the call was made. A tap with an activity log calls it, and a resync that
    /// is to go on after a crash: a write that a power cut takes back is a difference. A disk without a volatile cache has nothing to do.
    ///
    /// # Errors
    /// Those of the disk; it is tried again later. `Unsupported`, the default, when the host cannot: then there is no activity log.
    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The first byte at or after `offset` that may be other than zero, as of when the call was made; `None` when there is none. What lies
    /// before it is not read. Default: `offset`.
    ///
    /// # Errors
    /// Those of the disk; everything is then taken for data.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(Some(offset))
    }

    /// What changes when the source is changed by anybody; `None`, the default, where there is no such thing. A write after this call gives
    /// another stamp.
    ///
    /// # Errors
    /// Those of the disk.
    fn stamp(&self) -> io::Result<Option<SourceStamp>> {
        Ok(None)
    }
}

/// What a step of resync did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do at once.
    More,
    /// Nothing can be done now.
    Idle,
    /// The gap has closed, or none was needed.
    Closed,
}

/// Figures of a resync, since the tap began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResyncCounts {
    /// Bytes compared, those in holes of the source included.
    pub bytes_compared: u64,
    /// Bytes read from the source.
    pub source_bytes_read: u64,
    /// Bytes of payload read from the store.
    pub store_bytes_read: u64,
    /// Bytes that differed and were taken over, in whole blocks.
    pub bytes_different: u64,
    /// What of them was data and not zeroes.
    pub bytes_transferred: u64,
    /// What of them the store could not read.
    pub bytes_damaged: u64,
    /// Attempts that were broken off.
    pub setbacks: u64,
}

/// A piece that was asked for and not compared yet.
struct Reading {
    token: InResync,
    /// The seq of what differs of it; `None` while it is only compared.
    seq: Option<Seq>,
    range: ByteRange,
    request: Request,
}

/// A piece that was compared, and is clean once the journal is durable up to a frame.
struct InFlight {
    token: InResync,
    bytes: u64,
    durable_below: FrameNo,
}

/// How a resync of a source that nobody captures from differs from that of a tap.
pub(crate) struct Alone {
    /// The reason of the gap that the first difference opens when none is open.
    pub gap: GapReason,
    /// When that gap opens.
    pub time: TimeNs,
    /// The source as it was when the comparison began.
    pub stamp: Option<SourceStamp>,
}

/// Resync of one volume.
pub(crate) struct Resync {
    tap: Arc<TapState>,
    ahead: ReadAhead,
    log: Option<Arc<TapLog>>,
    volume_bytes: u64,
    /// How blocks are compared.
    pub how: How,
    alone: Option<Alone>,
    /// A difference was met, or there was a gap from the beginning.
    takes_over: bool,
    cursor: u64,
    /// The newest seq that was taken in this pass.
    stage: Option<Seq>,
    /// Whether the next piece is short whatever the source says of holes.
    distrusts_holes: bool,
    reading: VecDeque<Reading>,
    in_flight: Vec<InFlight>,
    not_before: TimeNs,
    backoff_ns: u64,
    seen: Mode,
    /// Since when the volume differs, and what was compared then; `None`: it does not.
    differs: Option<(TimeNs, u64)>,
    /// When it was first worked on since, and whether somebody asked for it and waits.
    begun: Option<TimeNs>,
    pub is_asked_for: bool,
    /// Figures.
    pub counts: ResyncCounts,
}

impl Resync {
    /// The resync of a tap.
    pub fn new(tap: Arc<TapState>, ahead: ReadAhead, log: Option<Arc<TapLog>>, volume_bytes: u64) -> Self {
        let seen = tap.mode();
        Self {
            tap,
            ahead,
            log,
            volume_bytes,
            how: How::Digests,
            alone: None,
            takes_over: true,
            cursor: 0,
            stage: None,
            distrusts_holes: false,
            reading: VecDeque::new(),
            in_flight: Vec::new(),
            not_before: TimeNs::ZERO,
            backoff_ns: BACKOFF_NS_MIN,
            seen,
            differs: None,
            begun: None,
            is_asked_for: false,
            counts: ResyncCounts::default(),
        }
    }

    /// Since when the volume differs from its source, and whether its resync has begun; `None` when there is nothing to do.
    pub fn waits(&mut self, now: TimeNs) -> Option<(TimeNs, bool)> {
        if self.tap.mode() == Mode::Data && !self.tap.gap_is_open() {
            (self.differs, self.begun) = (None, None);
            return None;
        }
        let (since, _) = *self.differs.get_or_insert((now, self.counts.bytes_compared));
        Some((since, self.begun.is_some()))
    }

    /// How long what is left takes at the speed since it was begun; `None`: nothing is under way, or nothing is known yet.
    pub fn time_left(&self, now: TimeNs, dirty_bytes: u64) -> Option<Duration> {
        let ((_, before), begun) = (self.differs?, self.begun?);
        let compared = u128::from(self.counts.bytes_compared.checked_sub(before).filter(|bytes| *bytes > 0)?);
        let took = u128::from(now.get().saturating_sub(begun.get()));
        let left = u128::from(dirty_bytes).saturating_mul(took) / compared;
        Some(Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX)))
    }

    /// What has to be done also while it may not go on.
    ///
    /// # Errors
    /// Those of the store.
    pub fn rest(&mut self, group: &Group) -> Result<()> {
        self.settle(group);
        match self.log.as_ref().filter(|log| log.needs_tending()) {
            Some(log) => log.tend(group).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The same for a source that nobody captures from.
    #[must_use]
    pub fn alone(self, how: How, alone: Alone) -> Self {
        let takes_over = self.tap.gap_is_open();
        Self { how, alone: Some(alone), takes_over, ..self }
    }

    /// The tap it works for.
    pub fn tap(&self) -> &Arc<TapState> {
        &self.tap
    }

    /// The source.
    pub fn source(&self) -> &Arc<dyn SourceReader> {
        self.ahead.source()
    }

    /// Its activity log.
    pub fn log(&self) -> Option<&Arc<TapLog>> {
        self.log.as_ref()
    }

    /// Does one piece of work.
    ///
    /// # Errors
    /// Those of the source and of the store; what was under way is dirty again, and a later step goes on.
    pub fn step(&mut self, group: &Group, capture: &Capture) -> Result<Step> {
        if let Some(log) = self.log.as_ref().filter(|log| log.needs_tending()) {
            log.tend(group)?;
        }
        if self.differs.is_some() && self.begun.is_none() {
            self.begun = Some(group.shared.clock.now());
        }
        let outcome = self.try_step(group, capture);
        match outcome {
            Err(_) => self.set_back(group),
            // A volume that differs again before anybody looks begins anew, with the delay of the schedule.
            Ok(Step::Closed) => (self.differs, self.begun) = (None, None),
            Ok(Step::More | Step::Idle) => {}
        }
        outcome
    }

    fn try_step(&mut self, group: &Group, capture: &Capture) -> Result<Step> {
        self.settle(group);
        let mode = self.tap.mode();
        if self.seen == Mode::Resync && mode == Mode::Bitmap {
            // The overload came back: what is dirty stays so, and the next attempt waits.
            self.set_back(group);
        }
        self.seen = mode;
        let now = group.shared.clock.now();
        let waiting = now < self.not_before && self.not_before.get() - now.get() <= BACKOFF_NS_MAX;
        if self.tap.is_suspended() || waiting {
            return Ok(Step::Idle);
        }
        // The gap is put on the timeline first, so that nothing of the resync lies before it.
        if !self.only_compares() && (mode == Mode::Data || !self.tap.gap_is_open()) {
            return Ok(Step::Idle);
        }
        let in_flight: u64 = self.in_flight.iter().map(|piece| piece.bytes).sum();
        if in_flight >= IN_FLIGHT_BYTES_MAX || self.in_flight.len() >= IN_FLIGHT_MAX {
            group.flush_appended()?;
            self.settle(group);
        }
        while self.reading.len() < self.ahead.depth() {
            match self.begin_next(group)? {
                Some(reading) => self.reading.push_back(reading),
                None => break,
            }
        }
        match self.reading.pop_front() {
            Some(reading) => self.compare(group, capture, reading),
            None => self.end_of_pass(group, capture),
        }
    }

    /// Whether no difference was met yet that needs a gap.
    fn only_compares(&self) -> bool {
        !self.takes_over
    }

    /// The next dirty piece goes into resync, and is asked for.
    fn begin_next(&mut self, group: &Group) -> Result<Option<Reading>> {
        let map = self.tap.map();
        let granularity = map.shape().granularity().bytes();
        let Some(next) = map.next_dirty(self.cursor) else { return Ok(None) };
        let offset = next.saturating_mul(granularity);
        let hole = match mem::take(&mut self.distrusts_holes) {
            true => 0,
            false => self.ahead.hole_at(offset, self.volume_bytes).min(HOLE_BYTES_MAX),
        };
        let bytes = if hole > PIECE_BYTES { hole } else { PIECE_BYTES };
        let Some(token) = map.begin(self.cursor, (bytes / granularity).max(1)) else { return Ok(None) };
        self.cursor = token.first_block() + token.blocks();
        // The seq first, then the read: whatever is captured after this has a higher seq and wins.
        let seq = if self.only_compares() { None } else { Some(self.take_stage(group)?) };
        let mut range = token.range();
        if group.shared.sabotage.on(Switch::SkipPartialBlock) {
            range.bytes -= range.end() % BLOCK_BYTES;
        }
        let request = match range.bytes {
            0 => Request::Done(Ok(Fetched::Hole)),
            _ => self.ahead.request(range),
        };
        Ok(Some(Reading { token, seq, range, request }))
    }

    fn take_stage(&mut self, group: &Group) -> Result<Seq> {
        let seq = group.stage_again(self.tap.volume(), self.stage, Stamp::Captured(TimeNs::ZERO))?;
        self.stage = Some(seq);
        Ok(seq)
    }

    /// A pass over the map is over, or there was nothing to do in it.
    fn end_of_pass(&mut self, group: &Group, capture: &Capture) -> Result<Step> {
        self.cursor = 0;
        self.stage = None;
        if !self.in_flight.is_empty() {
            group.flush_appended()?;
            self.settle(group);
        }
        let map = self.tap.map();
        let dirty_bytes = map.weight().saturating_mul(map.shape().granularity().bytes());
        match self.tap.mode() {
            Mode::Data if self.only_compares() && map.is_empty() => {
                self.check_source()?;
                Ok(Step::Closed)
            }
            Mode::Data if self.only_compares() => Ok(Step::More),
            Mode::Data => Ok(Step::Idle),
            Mode::Bitmap => {
                if dirty_bytes <= NEARLY_DONE_BYTES
                    && capture.pool.has_room()
                    && let Some(quiet) = self.tap.quiet()
                    && self.tap.begin_resync(quiet)
                {
                    self.seen = Mode::Resync;
                }
                Ok(Step::More)
            }
            Mode::Resync if map.is_empty() => {
                self.check_source()?;
                if group.close_gap(&self.tap)? {
                    self.backoff_ns = BACKOFF_NS_MIN;
                    return Ok(Step::Closed);
                }
                Ok(Step::More)
            }
            Mode::Resync => Ok(Step::More),
        }
    }

    /// A source that nobody captures from must be as it was when the comparison began.
    fn check_source(&self) -> Result<()> {
        let Some(Alone { stamp: Some(before), .. }) = &self.alone else { return Ok(()) };
        let now = self.source().stamp().map_err(|error| Error::io("look at", SOURCE, error))?;
        if now == Some(*before) { Ok(()) } else { Err(Error::SourceChanged) }
    }

    /// Takes over what differs of a piece.
    fn compare(&mut self, group: &Group, capture: &Capture, reading: Reading) -> Result<Step> {
        let Reading { token, mut seq, range, request } = reading;
        let fetched = request.answer()?;
        let content = match &fetched {
            Fetched::TooLong => {
                // There is data where a hole was: it is dirty again, and is taken in shorter pieces.
                self.cursor = token.first_block();
                self.distrusts_holes = true;
                self.reading.clear();
                return Ok(Step::More);
            }
            Fetched::Hole => Content::Zeroes(range.bytes),
            Fetched::Data(buffer) => {
                self.counts.source_bytes_read += range.bytes;
                Content::Data(&buffer[..to_len(range.bytes)])
            }
        };
        if seq.is_some() && group.shared.sabotage.on(Switch::SeqAfterRead) {
            self.stage = None;
            seq = Some(self.take_stage(group)?);
        }
        let found = group.compare(self.tap.volume(), range.offset / BLOCK_BYTES, content, self.how)?;
        self.counts.store_bytes_read += found.store_bytes_read;
        let mut appended = 0;
        if !found.different.is_empty() {
            let Some(seq) = (match seq {
                Some(seq) => Some(seq),
                None => self.begin_to_take_over(group, capture)?,
            }) else {
                self.cursor = token.first_block();
                self.reading.clear();
                return Ok(Step::More);
            };
            self.counts.bytes_damaged += found.damaged.iter().map(|part| part.end - part.start).sum::<u64>();
            for run in found.different {
                let bytes = run.end - run.start;
                let start = Sector::new((range.offset + run.start) / SECTOR_BYTES);
                let sectors = SectorRange { start, sectors: bytes / SECTOR_BYTES };
                let (volume, key) = (self.tap.volume(), group.shared.key);
                let write = match content {
                    Content::Zeroes(_) => PreparedWrite::range(volume, sectors, WriteKind::Zero),
                    Content::Data(data) => {
                        let data = &data[to_len(run.start)..to_len(run.end)];
                        let blocks = data.chunks(BLOCK_LEN).filter(|block| !all_zero(block));
                        self.counts.bytes_transferred +=
                            blocks.map(|block| len_u64(block.len())).sum::<u64>();
                        appended += bytes;
                        PreparedWrite::data(volume, sectors, data, key)
                    }
                };
                group.append_staged(&write, seq)?;
                self.counts.bytes_different += bytes;
            }
        }
        self.counts.bytes_compared += range.bytes;
        if let Fetched::Data(buffer) = fetched {
            self.ahead.give_back(buffer);
        }
        // Equal to a state that may not be durable itself: also then the piece is clean only when the journal is.
        let durable_below = group.appended_below();
        self.in_flight.push(InFlight { token, bytes: appended, durable_below });
        Ok(Step::More)
    }

    /// A difference of a source that nobody captures from: with the first one a gap opens, since states from here on are not states of the
    /// source until all is taken over. Returns the seq for what was read. It is taken behind the read, which is as good here: no write of
    /// the source is ever captured that it could hide. `None` when the gap could not be opened yet.
    fn begin_to_take_over(&mut self, group: &Group, capture: &Capture) -> Result<Option<Seq>> {
        if let Some(alone) = self.alone.as_ref().filter(|_| !self.takes_over) {
            self.tap.degrade(alone.time, alone.gap, &capture.wishes, capture.pool.boundary());
        }
        self.takes_over = true;
        group.drain_complete()?;
        if self.tap.gap_is_open() { self.take_stage(group).map(Some) } else { Ok(None) }
    }

    /// Turns clean what has become durable.
    pub fn settle(&mut self, group: &Group) {
        let durable = group.durable_frame();
        let early = group.shared.sabotage.on(Switch::SettleBeforeDurable);
        let (done, waiting): (Vec<_>, Vec<_>) = mem::take(&mut self.in_flight)
            .into_iter()
            .partition(|piece| early || piece.durable_below <= durable);
        self.in_flight = waiting;
        done.into_iter().for_each(|piece| piece.token.clean());
    }

    /// Gives up what is under way, and waits longer than the last time.
    fn set_back(&mut self, group: &Group) {
        self.in_flight.clear();
        self.reading.clear();
        self.cursor = 0;
        self.stage = None;
        self.counts.setbacks += 1;
        let now = group.shared.clock.now();
        self.not_before = TimeNs::new(now.get().saturating_add(self.backoff_ns));
        self.backoff_ns = (self.backoff_ns * 2).min(BACKOFF_NS_MAX);
    }
}
