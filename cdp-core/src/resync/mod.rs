//! Resync of a volume: dirty blocks are read from the source, compared with the newest state, and what differs is appended under a seq that
//! was taken *before* the read, so that any write captured since then wins. A comparison is by the digests of the index, or by bytes.
//!
//! While writes only mark (BITMAP), passes over the map go on until little is left; then writes are captured whole again (RESYNC) and the
//! rest follows. When the map is empty and everything is durable, the gap closes. An overload in the middle leads back to BITMAP with
//! what is still dirty, and the next attempt waits longer, up to a bound.
//!
//! A source across a link may answer digests at its own end ([`SourceReader::digests`]): a piece is then compared there, regions first and then blocks, and only what
//! differs is moved ([`digests_of`]). For everything else a piece is what it is without a link: its blocks are in resync and its seq is taken before the first exchange begins.
//!
//! One engine serves the tap, whose resync the runner or the host steps, and a source that nobody captures from
//! ([`Store::resync_from`](crate::Store::resync_from)), whose caller steps it and may let threads read ahead. The latter compares without a gap
//! until it meets the first difference.
//!
//! Invariants: *token* - a block turns clean only by the token of the read that made its record, after that record is durable;
//! *one version a seq* - a seq is used for many pieces while nothing else was written, and never in two passes.

mod ahead;
mod digests;
mod log;
mod schedule;
mod take_over;

pub use digests::{DigestCounts, DigestUnit, REGION_BYTES, SourceDigests, check_request, digests_of};
pub(crate) use digests::{digest_of_block, fold, fold_known, regions_of};
pub use schedule::{Hours, ResyncSchedule};
pub(crate) use schedule::{Throttle, Waiting};

pub(crate) use ahead::{Fetched, PIECE_BYTES, ReadAhead, Request};
pub(crate) use log::TapLog;

use crate::{
    capture::{Capture, Mode, tap::TapState},
    catalog::{GapReason, SourceStamp},
    dirty_map::{ByteRange, DirtyMap, InResync},
    error::{Error, Result},
    group::{Group, How, Stamp},
    limits::DIGEST_REQUEST_BYTES_MAX,
    sabotage::Switch,
    units::{BLOCK_BYTES, FrameNo, Seq, TimeNs},
};
use std::{collections::VecDeque, io, mem, sync::Arc, time::Duration};

/// How errors name the source.
pub(crate) const SOURCE: &str = "the source of the resync";
/// Bytes that may wait to become durable before they turn clean.
const IN_FLIGHT_BYTES_MAX: u64 = 16 << 20;
/// Pieces that may wait for that; fewer than the runs that a map has in resync.
const IN_FLIGHT_MAX: usize = 128;
/// Runs that one exchange with a source across a link asks for: a few of those that a map has in resync.
const RUNS_A_REQUEST: usize = 32;
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

    /// The source's own end of a link, where it lies across one that is slower than its disk and can take digests there. A resync by digests or by map, and a verification
    /// that may go by digests, then move the digests of all and the bytes of what differs. Default: none, and everything that is compared is read.
    fn digests(&self) -> Option<&dyn SourceDigests> {
        None
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
    /// Bytes read from the source; where that lies across a link and answers digests, what came over as bytes of blocks.
    pub source_bytes_read: u64,
    /// Digests of a source across a link.
    pub digests: DigestCounts,
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
    /// Of one run, or of several runs of a source across a link.
    tokens: Vec<InResync>,
    /// The seq of what differs of it; `None` while it is only compared.
    seq: Option<Seq>,
    /// What was asked for of the runs.
    ranges: Vec<ByteRange>,
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

    /// Reads the source with so many threads from now on; 0: in the thread that steps it.
    ///
    /// # Errors
    /// Those of starting a thread; everything stays as it was.
    pub fn set_readers(&mut self, readers: usize) -> io::Result<()> {
        // What the threads before were asked for they answer before they end.
        self.ahead = ReadAhead::start(self.source().clone(), readers)?;
        Ok(())
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
            Err(Error::Io { ref target, .. }) if target == SOURCE => {
                self.keep_what_came(group);
                self.set_back(group);
            }
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
        let tap = self.tap.clone();
        let map = tap.map();
        let is_far = self.how == How::Digests && self.ahead.has_digests();
        let mut tokens = if is_far { self.begin_far(map) } else { self.begin_near(map) };
        if tokens.is_empty() {
            return Ok(None);
        }
        let mut early = None;
        if is_far && group.shared.sabotage.on(Switch::DigestsBeforeToken) {
            let runs: Vec<_> = tokens.iter().map(|token| (token.first_block(), token.blocks())).collect();
            let ranges = tokens.drain(..).map(|token| token.range()).collect();
            early = Some(self.request_differing(group, ranges)?);
            tokens.extend(runs.into_iter().filter_map(|(first, blocks)| map.begin(first, blocks)));
        }
        // The seq first, then the read: whatever is captured after this has a higher seq and wins.
        let seq = if self.only_compares() { None } else { Some(self.take_stage(group)?) };
        let mut ranges: Vec<ByteRange> = tokens.iter().map(InResync::range).collect();
        if group.shared.sabotage.on(Switch::SkipPartialBlock) {
            ranges.iter_mut().for_each(|range| range.bytes -= range.end() % BLOCK_BYTES);
            ranges.retain(|range| range.bytes > 0);
        }
        let request = match (early, ranges.first()) {
            (_, None) => Request::Done(Ok(Fetched::Hole)),
            (Some(early), _) => early,
            (None, Some(_)) if is_far => self.request_differing(group, ranges.clone())?,
            (None, Some(range)) => {
                let by_digests = self.how == How::Digests;
                self.ahead.request(*range, by_digests.then_some(group.shared.key))
            }
        };
        Ok(Some(Reading { tokens, seq, ranges, request }))
    }

    /// The next run that is read at once.
    fn begin_near(&mut self, map: &DirtyMap) -> Vec<InResync> {
        let granularity = map.shape().granularity().bytes();
        let Some(next) = map.next_dirty(self.cursor) else { return Vec::new() };
        let bytes = self.piece_at(next.saturating_mul(granularity));
        self.begin_run(map, (bytes / granularity).max(1)).into_iter().collect()
    }

    /// The next runs of a source across a link that one exchange asks for: scattered ones together.
    fn begin_far(&mut self, map: &DirtyMap) -> Vec<InResync> {
        let granularity = map.shape().granularity().bytes();
        let mut blocks_left = DIGEST_REQUEST_BYTES_MAX / granularity;
        let mut tokens = Vec::new();
        while blocks_left > 0 && tokens.len() < RUNS_A_REQUEST {
            let Some(token) = self.begin_run(map, blocks_left) else { break };
            blocks_left -= token.blocks();
            tokens.push(token);
        }
        tokens
    }

    fn begin_run(&mut self, map: &DirtyMap, blocks_max: u64) -> Option<InResync> {
        let token = map.begin(self.cursor, blocks_max)?;
        self.cursor = token.first_block() + token.blocks();
        Some(token)
    }

    /// How much is read at once from a byte on: a hole of the source as a whole.
    fn piece_at(&mut self, offset: u64) -> u64 {
        let hole = match mem::take(&mut self.distrusts_holes) {
            true => 0,
            false => self.ahead.hole_at(offset, self.volume_bytes).min(HOLE_BYTES_MAX),
        };
        hole.max(PIECE_BYTES)
    }

    /// Asks a source across a link for what differs of some ranges, by the digests of the newest state. That state may be older than the answer: whatever is captured
    /// meanwhile has a higher seq than what is taken over.
    fn request_differing(&mut self, group: &Group, ranges: Vec<ByteRange>) -> Result<Request> {
        let mut blocks = Vec::new();
        for range in &ranges {
            let known = group.digests(self.tap.volume(), range.offset..range.end(), How::Digests)?;
            self.counts.store_bytes_read += known.store_bytes_read;
            blocks.extend(known.blocks);
        }
        Ok(self.ahead.request_differing(ranges, group.shared.key, blocks))
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

    /// What a source has answered before it failed is taken over all the same; as long as there is any, the source is tried again soon.
    fn keep_what_came(&mut self, group: &Group) {
        let waiting = self.in_flight.len();
        if waiting > 0 && group.flush_appended().is_ok() {
            self.settle(group);
            if self.in_flight.len() < waiting {
                self.backoff_ns = BACKOFF_NS_MIN;
            }
        }
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
