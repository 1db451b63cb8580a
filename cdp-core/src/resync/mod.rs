//! Resync of a tapped volume: dirty blocks are read from the source, compared by digest with the newest state, and what differs is
//! appended under a seq that was taken *before* the read, so that any write captured since then wins.
//!
//! While writes only mark (BITMAP), passes over the map go on until little is left; then writes are captured whole again (RESYNC) and the
//! rest follows. When the map is empty and everything is durable, the gap closes. An overload in the middle leads back to BITMAP with
//! what is still dirty, and the next attempt waits longer, up to a bound.
//!
//! Invariant *token*: a block turns clean only by the token of the read that made its record, after that record is durable.

mod log;

pub(crate) use log::TapLog;

use crate::{
    capture::{Capture, Mode, tap::TapState},
    dirty_map::InResync,
    error::{Error, Result},
    group::{Group, Stamp},
    io::AlignedBuf,
    journal::PreparedWrite,
    sabotage::Switch,
    units::{BLOCK_BYTES, FrameNo, SECTOR_BYTES, Sector, SectorRange, TimeNs, len_u64, to_len},
};
use std::{io, sync::Arc};

/// Bytes read from the source at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// Bytes that may wait to become durable before they turn clean.
const IN_FLIGHT_BYTES_MAX: u64 = 16 << 20;
/// Dirty bytes at which writes are captured whole again.
const NEARLY_DONE_BYTES: u64 = 8 << 20;
/// First wait after a setback.
const BACKOFF_NS_MIN: u64 = 10_000_000;
/// Longest wait after setbacks in a row.
const BACKOFF_NS_MAX: u64 = 5_000_000_000;

/// The production disk, as the host reads it.
pub trait SourceReader: Send + Sync {
    /// Fills `buf` from byte `offset`, with what a read by the application would give: at least everything whose write was completed
    /// when the call was made. Multiples of 512; never past the end of the volume.
    ///
    /// # Errors
    /// Those of the disk. Resync tries again later.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Makes every write durable that was completed when the call was made. Only a tap with an activity log calls it: a write that a power
    /// cut takes back is a difference. A disk without a volatile cache has nothing to do.
    ///
    /// # Errors
    /// Those of the disk; it is tried again later. `Unsupported`, the default, when the host cannot: then there is no activity log.
    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What a step of resync did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do at once.
    More,
    /// Nothing can be done now.
    Idle,
    /// The gap has closed.
    Closed,
}

/// Figures of a resync, since the tap began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResyncCounts {
    /// Bytes read from the source.
    pub source_bytes_read: u64,
    /// Bytes that differed and were taken over.
    pub bytes_different: u64,
    /// Attempts that were broken off.
    pub setbacks: u64,
}

/// A piece that was read, and is clean once the journal is durable up to a frame.
struct InFlight {
    token: InResync,
    bytes: u64,
    durable_below: FrameNo,
}

/// Resync of one tap.
pub(crate) struct Resync {
    tap: Arc<TapState>,
    source: Arc<dyn SourceReader>,
    log: Option<Arc<TapLog>>,
    volume_bytes: u64,
    buffer: AlignedBuf,
    cursor: u64,
    in_flight: Vec<InFlight>,
    not_before: TimeNs,
    backoff_ns: u64,
    seen: Mode,
    /// Figures.
    pub counts: ResyncCounts,
}

impl Resync {
    pub fn new(
        tap: Arc<TapState>,
        source: Arc<dyn SourceReader>,
        log: Option<Arc<TapLog>>,
        volume_bytes: u64,
    ) -> io::Result<Self> {
        let seen = tap.mode();
        Ok(Self {
            tap,
            source,
            log,
            volume_bytes,
            buffer: AlignedBuf::new(to_len(PIECE_BYTES))?,
            cursor: 0,
            in_flight: Vec::new(),
            not_before: TimeNs::ZERO,
            backoff_ns: BACKOFF_NS_MIN,
            seen,
            counts: ResyncCounts::default(),
        })
    }

    /// The tap it works for.
    pub fn tap(&self) -> &Arc<TapState> {
        &self.tap
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
        let outcome = self.try_step(group, capture);
        if outcome.is_err() {
            self.set_back(group);
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
        // The gap is put on the timeline first, so that nothing of the resync lies before it.
        if mode == Mode::Data || self.tap.is_suspended() || waiting || !self.tap.gap_is_open() {
            return Ok(Step::Idle);
        }
        if self.in_flight.iter().map(|piece| piece.bytes).sum::<u64>() >= IN_FLIGHT_BYTES_MAX {
            group.flush_appended()?;
            self.settle(group);
        }
        let blocks_max = PIECE_BYTES / self.tap.map().shape().granularity().bytes();
        if let Some(token) = self.tap.map().begin(self.cursor, blocks_max.max(1)) {
            return self.copy(group, token);
        }
        if self.cursor > 0 {
            self.cursor = 0;
            return self.end_of_pass(group, capture);
        }
        self.end_of_pass(group, capture)
    }

    /// A pass over the map is over, or there was nothing to do in it.
    fn end_of_pass(&mut self, group: &Group, capture: &Capture) -> Result<Step> {
        if !self.in_flight.is_empty() {
            group.flush_appended()?;
            self.settle(group);
        }
        let map = self.tap.map();
        let dirty_bytes = map.weight().saturating_mul(map.shape().granularity().bytes());
        match self.tap.mode() {
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
                if group.close_gap(&self.tap)? {
                    self.backoff_ns = BACKOFF_NS_MIN;
                    return Ok(Step::Closed);
                }
                Ok(Step::More)
            }
            Mode::Resync => Ok(Step::More),
        }
    }

    /// Copies what differs of one dirty run.
    fn copy(&mut self, group: &Group, token: InResync) -> Result<Step> {
        let range = token.range();
        let sabotage = group.shared.sabotage;
        let mut end = range.end().min(self.volume_bytes);
        if sabotage.on(Switch::SkipPartialBlock) {
            end -= end % BLOCK_BYTES;
        }
        self.cursor = token.first_block() + token.blocks();
        // The seq first, then the read: whatever is captured after this has a higher seq and wins.
        let take_seq = || group.take_stage(self.tap.volume(), Stamp::Captured(TimeNs::ZERO));
        let mut seq = take_seq()?;
        let mut at = range.offset;
        while at < end {
            let len = to_len((end - at).min(PIECE_BYTES));
            let buffer = &mut self.buffer[..len];
            let read = self.source.read_at(at, buffer);
            read.map_err(|error| Error::io("read", "the source of the resync", error))?;
            self.counts.source_bytes_read += len_u64(len);
            if sabotage.on(Switch::SeqAfterRead) {
                seq = take_seq()?;
            }
            let differing = group.differing(self.tap.volume(), at / BLOCK_BYTES, buffer)?;
            for run in differing {
                let data = &buffer[run.clone()];
                let start = Sector::new((at + len_u64(run.start)) / SECTOR_BYTES);
                let sectors = SectorRange { start, sectors: len_u64(data.len()) / SECTOR_BYTES };
                let write = PreparedWrite::data(self.tap.volume(), sectors, data, group.shared.key);
                group.append_staged(&write, seq)?;
                self.counts.bytes_different += len_u64(data.len());
            }
            at += len_u64(len);
        }
        let durable_below = group.appended_below();
        self.in_flight.push(InFlight { token, bytes: range.bytes, durable_below });
        Ok(Step::More)
    }

    /// Turns clean what has become durable.
    pub fn settle(&mut self, group: &Group) {
        let durable = group.durable_frame();
        let early = group.shared.sabotage.on(Switch::SettleBeforeDurable);
        let (done, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.in_flight)
            .into_iter()
            .partition(|piece| early || piece.durable_below <= durable);
        self.in_flight = waiting;
        done.into_iter().for_each(|piece| piece.token.clean());
    }

    /// Gives up what is under way, and waits longer than the last time.
    fn set_back(&mut self, group: &Group) {
        self.in_flight.clear();
        self.cursor = 0;
        self.counts.setbacks += 1;
        let now = group.shared.clock.now();
        self.not_before = TimeNs::new(now.get().saturating_add(self.backoff_ns));
        self.backoff_ns = (self.backoff_ns * 2).min(BACKOFF_NS_MAX);
    }
}
