//! The host of the simulation: production disks, their taps, and what it does to both. It also reads the sources for resync, and that is
//! where other threads of a host would come in between: a read can carry out further steps.

use super::{
    config::{TapCoverage, TapWorldConfig},
    disk::{Disk, state_of},
    op::{Handover, TapOp},
};
use crate::{
    Captured, GapReason, InFlight, NewBookmark, Store, Tap, Written,
    bookmark::Bookmark,
    dirty_map::ByteRange,
    error::{Error, Result},
    io::{
        Clock,
        simulated::{SimRng, SimulatedStorage},
    },
    limits::WRITE_BYTES_MAX,
    testing::{
        mismatch::Mismatch,
        op::Place,
        stamp::{Stamp, fill},
    },
    units::{SECTOR_BYTES, SECTOR_LEN, TimeNs, len_u64, to_len},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    io::{self, IoSlice},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Something that another thread does.
type Intrusion = Box<dyn FnOnce() + Send>;

/// A clock that stands still until it is moved. The next look at it can be used by another thread.
#[derive(Default)]
pub struct TapClock {
    now: AtomicU64,
    /// By how much each look moves it: time passes while somebody waits.
    creep: AtomicU64,
    intrusion: Mutex<Option<Intrusion>>,
}

impl TapClock {
    /// Sets the time, nanoseconds.
    pub fn set(&self, now: u64) {
        self.now.store(now, Ordering::SeqCst);
    }

    /// Lets each look move the clock, or not. Returns the time, nanoseconds.
    pub fn creep(&self, by: u64) -> u64 {
        self.creep.store(by, Ordering::SeqCst);
        self.now.load(Ordering::SeqCst)
    }

    fn intrude(&self, intrusion: Option<Intrusion>) {
        *self.intrusion.lock() = intrusion;
    }
}

impl Clock for TapClock {
    fn now(&self) -> TimeNs {
        let intrusion = self.intrusion.lock().take();
        if let Some(intrusion) = intrusion {
            intrusion();
        }
        let creep = self.creep.load(Ordering::SeqCst);
        TimeNs::new(self.now.fetch_add(creep, Ordering::SeqCst) + creep)
    }
}

/// What the store has recorded about the tap of a volume, as far as the host can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// It never had one.
    None,
    /// It has one, or ended without a clean close.
    Attached,
    /// The last one ended, and the volume equals its source.
    Equal,
    /// The last one ended in a gap.
    Differs,
    /// A call failed that changes the record.
    Perhaps,
}

/// The tap of a volume.
pub struct Watch {
    /// The tap, while it is attached.
    pub tap: Option<Tap>,
    /// What is recorded.
    pub record: Record,
    /// Where the source was written while no tap watched it, since the last one ended.
    pub unwatched: Vec<Range<usize>>,
    /// What the last tap left as dirty, in bytes, when nothing kept it from recording just that.
    pub left: Option<Vec<ByteRange>>,
    /// Whether the tap has an activity log.
    pub logged: bool,
    /// What an unclean end may make dirty, as long as nothing disturbs the activity log.
    pub touched: Option<Vec<ByteRange>>,
    /// Whether a write was captured that the activity log may not know of.
    pub bypassed: bool,
    /// What the source is asked for from outside of the host.
    pub syncs: Arc<SourceSyncs>,
    /// Whether the volume was written inline since.
    pub inline: bool,
    /// Whether the host suspended it.
    pub suspended: bool,
    /// Whether another thread suspends it within the next capture.
    pub suspend_within: bool,
    /// Reads of the source that will fail.
    pub failing_reads: u64,
}

/// Syncs of a source. They may come while the host is in the middle of a call, and then take effect when that returns.
#[derive(Default)]
pub struct SourceSyncs {
    pub(super) wanted: AtomicBool,
    pub(super) failing: AtomicU64,
}

/// A bookmark that was set.
pub struct Remembered {
    /// As the store gave it back.
    pub bookmark: Bookmark,
    /// Writes of the common order that were completed when it was set.
    pub order: u64,
}

/// How a call ended.
pub enum Outcome<T> {
    /// It succeeded.
    Done(T),
    /// It failed as it may.
    Failed,
}

/// Everything but the storage's own state.
pub struct Host {
    /// How the world was made.
    pub config: TapWorldConfig,
    /// Chances.
    pub rng: SimRng,
    /// The clock of the store.
    pub clock: Arc<TapClock>,
    /// Nanoseconds.
    pub now: u64,
    /// The disk of the store.
    pub storage: SimulatedStorage,
    /// The store, while it is open.
    pub store: Option<Store>,
    /// The volumes.
    pub disks: Vec<Disk>,
    /// Their taps.
    pub watches: Vec<Watch>,
    /// Writes and other changes of volumes so far.
    pub order: u64,
    /// Bookmarks that were acknowledged.
    pub bookmarks: Vec<Remembered>,
    /// For each volume the order up to which everything was acknowledged as durable while it was captured whole.
    pub acknowledged: Vec<u64>,
    /// What was met.
    pub coverage: TapCoverage,
    /// The first thing that went wrong in a read of a source.
    pub failure: Option<Mismatch>,
    /// The storage failed in a way that ended the store.
    pub poisoned: bool,
    /// Whether the storage may be full.
    pub limited: bool,
    /// Faults that are accounted for.
    pub faults_seen: u64,
    /// A write is complete on the source and not captured yet.
    pub in_flight: bool,
    /// Whether reads of sources failed since faults were last cleared.
    pub reads_failed: bool,
    interleaved: Option<(Vec<TapOp>, Vec<TapOp>)>,
    stamp: Stamp,
    names: u64,
}

impl SourceSyncs {
    /// The next syncs fail.
    pub fn fail(&self, count: u64) {
        self.failing.store(count, Ordering::SeqCst);
    }
}

impl Host {
    /// A host of volumes without taps, and without a store yet.
    pub fn new(config: TapWorldConfig, storage: SimulatedStorage, disks: Vec<Disk>, now: u64) -> Self {
        let watches = disks
            .iter()
            .map(|_| Watch {
                tap: None,
                record: Record::None,
                unwatched: Vec::new(),
                left: None,
                logged: false,
                touched: None,
                bypassed: false,
                syncs: Arc::default(),
                inline: false,
                suspended: false,
                suspend_within: false,
                failing_reads: 0,
            })
            .collect();
        let clock = Arc::new(TapClock::default());
        clock.set(now);
        Self {
            rng: SimRng::new(config.seed ^ 0x7a9_7a9),
            clock,
            now,
            storage,
            store: None,
            acknowledged: vec![0; disks.len()],
            disks,
            watches,
            order: 0,
            bookmarks: Vec::new(),
            coverage: TapCoverage::default(),
            failure: None,
            poisoned: false,
            limited: false,
            faults_seen: 0,
            in_flight: false,
            reads_failed: false,
            interleaved: None,
            stamp: Stamp::ZERO,
            names: 0,
            config,
        }
    }

    /// The volume of a number.
    pub fn index(&self, volume: u64) -> usize {
        to_len(volume % len_u64(self.disks.len()))
    }

    pub(super) fn range(&self, place: Place) -> (usize, Range<usize>) {
        let volume = self.index(place.volume);
        let sectors = len_u64(self.disks[volume].sectors());
        let start = place.sector % sectors;
        let count = place.sectors.clamp(1, (sectors - start).min(WRITE_BYTES_MAX / SECTOR_BYTES));
        (volume, to_len(start)..to_len(start + count))
    }

    /// Moves the clock. When it goes back, times no longer lead to states.
    pub fn move_clock(&mut self, by: i64) {
        if by < 0 {
            self.disks.iter_mut().for_each(|disk| disk.timeless = true);
        }
        self.now = self.now.saturating_add_signed(by);
        self.clock.set(self.now);
    }

    /// The store.
    ///
    /// # Errors
    /// When it is not open.
    pub fn store(&self) -> Result<Store, Mismatch> {
        self.store.clone().ok_or_else(|| Mismatch::new("store", "open", "closed"))
    }

    /// Says whether the outcome of a call is one that may be.
    pub fn judge<T>(&mut self, call: &str, result: Result<T>) -> Result<Outcome<T>, Mismatch> {
        let error = match result {
            Ok(value) => return Ok(Outcome::Done(value)),
            Err(error) => error,
        };
        let struck = self.storage.faults_struck() > self.faults_seen;
        let may = self.storage.is_stopped()
            || match &error {
                Error::NoSpace => self.limited || struck,
                Error::Io { target, .. } if target == "the source of the resync" => self.reads_failed,
                Error::Io { .. } => struck,
                // The fault may have struck long before, in a call that had another error to tell.
                Error::Poisoned(_) => self.storage.faults_struck() > 0,
                _ => false,
            };
        if !may {
            return Err(Mismatch::failed(call)(error));
        }
        self.coverage.failed_calls += 1;
        self.poisoned |= matches!(error, Error::Poisoned(_)) && !self.storage.is_stopped();
        Ok(Outcome::Failed)
    }

    /// Arms what happens within the next read of a source.
    pub fn interleave(&mut self, before: &[TapOp], after: &[TapOp]) {
        self.interleaved = Some((before.to_vec(), after.to_vec()));
    }

    /// Disarms it.
    pub fn forget_interleaved(&mut self) {
        self.interleaved = None;
        self.clock.intrude(None);
    }

    /// Carries out a step that may come in the middle of another.
    pub fn act(&mut self, op: &TapOp) -> Result<(), Mismatch> {
        match op {
            TapOp::Write { place, by, .. } => {
                let (volume, range) = self.range(*place);
                let Some(token) = self.begin(volume, &range)? else { return Ok(()) };
                self.complete(volume, range.clone(), *by)?;
                self.hand_over(volume, range, *by, token)
            }
            TapOp::Pair { place, sectors, swapped } => self.pair(*place, *sectors, *swapped),
            TapOp::Unwatched(place) => {
                let (volume, range) = self.range(*place);
                if self.watches[volume].tap.is_none() {
                    let stamp = self.new_stamp();
                    self.disks[volume].write_source(range.clone(), stamp);
                    self.watches[volume].unwatched.push(range);
                }
                Ok(())
            }
            TapOp::SourceFlush(volume) => {
                let volume = self.index(*volume);
                self.disks[volume].flush_source();
                Ok(())
            }
            TapOp::Suspend(volume) => {
                let volume = self.index(*volume);
                if let Some(tap) = &self.watches[volume].tap {
                    tap.suspend();
                    self.watches[volume].suspended = true;
                }
                Ok(())
            }
            TapOp::Resume(volume) => {
                let volume = self.index(*volume);
                if let Some(tap) = &self.watches[volume].tap {
                    tap.resume();
                    self.watches[volume].suspended = false;
                }
                Ok(())
            }
            TapOp::SuspendWithin(volume) => {
                let volume = self.index(*volume);
                self.watches[volume].suspend_within = true;
                Ok(())
            }
            TapOp::Flush => self.flush(),
            TapOp::Heartbeat => {
                let result = self.store()?.heartbeat();
                self.judge("heartbeat", result).map(|_| ())
            }
            TapOp::Bookmark(require_exact) => self.bookmark(*require_exact),
            TapOp::Clock(by) => {
                self.move_clock(*by);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn new_stamp(&mut self) -> Stamp {
        self.stamp = self.stamp.next();
        self.stamp
    }

    /// A write completes on the source; of a volume without a tap it is written inline.
    pub fn complete(&mut self, volume: usize, range: Range<usize>, by: Handover) -> Result<(), Mismatch> {
        let tick = 1 + self.rng.below(1_000_000);
        self.move_clock(i64::try_from(tick).unwrap_or(1));
        let stamp = if by.is_zero() { Stamp::ZERO } else { self.new_stamp() };
        if self.watches[volume].tap.is_none() {
            return self.write_inline(volume, range, stamp, by);
        }
        self.order += 1;
        let disk = &mut self.disks[volume];
        disk.write_source(range, stamp);
        disk.becomes(self.order, self.now, state_of(&disk.source));
        Ok(())
    }

    fn write_inline(
        &mut self,
        volume: usize,
        range: Range<usize>,
        stamp: Stamp,
        by: Handover,
    ) -> Result<(), Mismatch> {
        if !matches!(self.watches[volume].record, Record::None | Record::Equal) {
            return Ok(());
        }
        let name = self.disks[volume].name.clone();
        let handle = self.store()?.volume(Some(&name)).map_err(Mismatch::failed("volume"))?;
        let (offset, bytes) = bytes_of(&range);
        let result = match by {
            Handover::Zeroes => handle.write_zeroes(offset, bytes, None),
            Handover::Discard => handle.discard(offset, bytes, None),
            _ => {
                let mut data = vec![0; to_len(bytes)];
                fill(self.disks[volume].tag, offset, stamp, &mut data);
                handle.write(offset, &data)
            }
        };
        let cut = result.is_err();
        let outcome = self.judge("inline write", result)?;
        let perhaps = cut && (self.storage.is_stopped() || self.poisoned);
        if matches!(outcome, Outcome::Done(_)) || perhaps {
            self.order += 1;
            self.watches[volume].inline = true;
            let disk = &mut self.disks[volume];
            disk.content[range].fill(stamp);
            disk.becomes(self.order, self.now, state_of(&disk.content));
        }
        Ok(())
    }

    /// A completed write is captured.
    pub fn hand_over(
        &mut self,
        volume: usize,
        range: Range<usize>,
        by: Handover,
        token: Option<InFlight>,
    ) -> Result<(), Mismatch> {
        let Some(tap) = self.watches[volume].tap.clone() else { return Ok(()) };
        let (offset, bytes) = bytes_of(&range);
        let mut data = vec![0; to_len(bytes)];
        self.disks[volume].read_source(offset, &mut data);
        let now = TimeNs::new(self.now);
        let asks_the_time = matches!(by, Handover::Copied | Handover::Mark);
        if asks_the_time && std::mem::take(&mut self.watches[volume].suspend_within) {
            let other = tap.clone();
            self.watches[volume].suspended = true;
            self.clock.intrude(Some(Box::new(move || other.suspend())));
        }
        let part = match by {
            Handover::Vectored(sectors) => to_len(sectors.max(1)) * SECTOR_LEN,
            _ => data.len(),
        };
        let parts: Vec<IoSlice<'_>> = data.chunks(part).map(IoSlice::new).collect();
        let result = match (by, token) {
            (Handover::Copied, None) => tap.capture(offset, &data),
            (Handover::Copied, Some(token)) => tap.capture_end(token, &data),
            (Handover::Vectored(_), None) => tap.capture_vectored(offset, &parts, now),
            (Handover::Vectored(_), Some(token)) => token.end(Written::Parts(&parts), Some(now)),
            (Handover::Owned, None) => tap.capture_bytes(offset, Bytes::copy_from_slice(&data), now),
            (Handover::Owned, Some(token)) => {
                token.end(Written::Bytes(Bytes::copy_from_slice(&data)), Some(now))
            }
            (Handover::Zeroes, None) => tap.write_zeroes(offset, bytes, now),
            (Handover::Zeroes, Some(token)) => token.end(Written::Zeroes, Some(now)),
            (Handover::Discard, None) => tap.discard(offset, bytes, now),
            (Handover::Discard, Some(token)) => token.end(Written::Discard, Some(now)),
            (Handover::Mark, None) => tap.mark(offset, bytes, GapReason::Overlap).map(|()| Captured::Marked),
            (Handover::Mark, Some(token)) => token.end(Written::Failed, None),
        };
        let captured = result.map_err(Mismatch::failed(format!("capture by {by:?}")))?;
        self.was_captured(volume, range, captured);
        Ok(())
    }

    pub(super) fn was_captured(&mut self, volume: usize, range: Range<usize>, captured: Captured) {
        let whole = captured == Captured::Whole;
        self.disks[volume].whole[range].fill(whole);
        *(if whole { &mut self.coverage.whole } else { &mut self.coverage.marked }) += 1;
    }

    /// A flush of the store: what it acknowledges must survive.
    pub fn flush(&mut self) -> Result<(), Mismatch> {
        let result = self.store()?.flush();
        if let Outcome::Done(_) = self.judge("flush", result)? {
            self.acknowledge();
        }
        Ok(())
    }

    /// Everything that was completed is durable, of the volumes that are captured whole.
    fn acknowledge(&mut self) {
        for (watch, acknowledged) in self.watches.iter().zip(&mut self.acknowledged) {
            let whole = match &watch.tap {
                Some(tap) => tap.is_whole() && !self.in_flight,
                None => matches!(watch.record, Record::None | Record::Equal),
            };
            if whole {
                *acknowledged = self.order;
            }
        }
    }

    fn bookmark(&mut self, require_exact: bool) -> Result<(), Mismatch> {
        self.names += 1;
        let new = NewBookmark { require_exact, ..NewBookmark::named(format!("b{}", self.names)) };
        let store = self.store()?;
        let taps = self.watches.iter().zip(&self.disks).filter_map(|(watch, disk)| {
            let whole = watch.tap.as_ref()?.is_whole();
            Some((disk.name.clone(), whole))
        });
        let expected: Vec<(String, bool)> = taps.collect();
        let bookmark = match store.add_bookmark(&new) {
            Err(Error::PointUnavailable(_)) if require_exact => {
                let attached = expected.len() == self.disks.len();
                if attached && expected.iter().all(|(_, whole)| *whole) {
                    let text = "set: every volume is captured whole";
                    return Err(Mismatch::new("a bookmark that must be exact", text, "refused"));
                }
                return Ok(());
            }
            result => match self.judge("bookmark", result)? {
                Outcome::Done(bookmark) => bookmark,
                Outcome::Failed => return Ok(()),
            },
        };
        for (name, whole) in expected {
            if bookmark.inexact_volumes.contains(&name) == whole || (require_exact && !whole) {
                let should = format!("'{name}' {}", if whole { "exact" } else { "inexact" });
                return Err(Mismatch::new("a bookmark", should, format!("{bookmark:?}")));
            }
        }
        self.acknowledge();
        self.coverage.bookmarks += 1;
        self.bookmarks.push(Remembered { bookmark, order: self.order });
        Ok(())
    }

    pub(super) fn read_source(&mut self, volume: usize, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.watches[volume].failing_reads > 0 {
            self.watches[volume].failing_reads -= 1;
            self.reads_failed = true;
            self.coverage.failed_reads += 1;
            return Err(io::Error::other("the source could not be read, as the test wanted"));
        }
        // A resync across a link reads several times: others come in between any two.
        let later = self.config.far && self.rng.chance(0.4);
        let interleaved = if later { None } else { self.interleaved.take() };
        let (before, after) = match interleaved {
            Some(ops) if !self.in_flight => ops,
            _ => Default::default(),
        };
        self.intrude(&before);
        self.disks[volume].read_source(offset, buf);
        self.intrude(&after);
        Ok(())
    }

    fn intrude(&mut self, ops: &[TapOp]) {
        for op in ops {
            self.coverage.interleaved += 1;
            if let Err(mismatch) = self.act(op) {
                self.failure.get_or_insert(mismatch);
            }
        }
    }
}

pub(super) fn bytes_of(range: &Range<usize>) -> (u64, u64) {
    (len_u64(range.start) * SECTOR_BYTES, len_u64(range.len()) * SECTOR_BYTES)
}
