//! Verify: the newest state of a volume compared with its source, byte by byte, while both may change; and the store mended where asked.
//!
//! A block that differs at first sight is looked at again later, until what was captured meanwhile has been taken over. It counts as
//! different only when it stays so on both sides for a while; one that never comes to rest is said to be unsettled. Without a tap nothing
//! is on its way, and the second look decides. What the store cannot read counts as different, and as damaged.
//! Invariant *one direction*: the source is only read.

use super::{
    ResyncOptions, Store,
    resync::Pace,
    verify_cursor::{VerifyCursor, VerifyResume},
};
use crate::{
    capture::tap::TapState,
    catalog::{GapReason, SourceStamp, VolumeInfo},
    dirty_map::ByteRange,
    error::{Error, Result},
    group::{Content, How, push_merged},
    limits::RESYNC_RUNS_MAX,
    restore::Progress,
    resync::{Fetched, PIECE_BYTES, ReadAhead, Request, ResyncCounts, SOURCE, SourceReader},
    units::{BLOCK_BYTES, Seq, to_len},
};
use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest hole that is compared at once, bytes.
const HOLE_BYTES_MAX: u64 = 1 << 30;
/// How often the host is told how far it is.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// How long a difference must stay as it is beside a tap: longer than a host takes from the end of a write to its capture.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// Pause between two looks at what differs.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long blocks are looked at that do not come to rest.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// How a verification goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Whether the store takes over what differs.
    pub repair: bool,
    /// Threads that read the source ahead, started for the time of the call; 0: none is started.
    pub readers: usize,
    /// Bytes of the source that are compared in a second at most.
    pub bytes_per_second_max: Option<u64>,
}

/// What a verification has found.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifyReport {
    /// Bytes compared, those in holes of the source included.
    pub bytes_compared: u64,
    /// Bytes that differ, in whole blocks but for the last.
    pub bytes_different: u64,
    /// What of them the store could not read.
    pub bytes_damaged: u64,
    /// Bytes that changed all the time, or that the tap knows to differ and resync did not come to: nothing is known of them.
    pub bytes_unsettled: u64,
    /// Where the differences are: ascending, merged.
    pub extents: Vec<ByteRange>,
    /// There were differences, and the store was made equal to the source everywhere.
    pub repaired: bool,
    /// It was compared to the end.
    pub complete: bool,
    /// Bytes read from the source.
    pub source_bytes_read: u64,
    /// Bytes of payload read from the store.
    pub store_bytes_read: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Store {
    /// Compares the newest state of a volume (`None`: the first one) with `source` byte by byte, in address order, while writes to both may go
    /// on through a tap. With `repair` the store takes over what differs or cannot be read: through the volume's tap where it has one
    /// (then `source` is that of the tap), else as [`Store::resync_from`] does, with a gap from the first to the last block. The source is never
    /// written. `cancelled` ends it early, and then nothing is repaired.
    ///
    /// # Errors
    /// `NotFound`; `Io` from either side; with `repair` those of [`Store::resync_from`]. Differences and damage are no errors: they are in the
    /// report.
    pub fn verify_from(
        &self,
        volume: Option<&str>,
        source: Arc<dyn SourceReader>,
        options: &VerifyOptions,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<VerifyReport> {
        let resume = VerifyResume { from: None, keep: &mut |_| Ok(()) };
        self.verify_resumable(volume, source, options, resume, progress, cancelled)
    }

    /// As [`Store::verify_from`], and goes on where an earlier one ended: what that has compared and found equal is not compared again. The
    /// report counts what this one compared; its differences are those of both.
    ///
    /// # Errors
    /// As [`Store::verify_from`]; `InvalidArgument` for a cursor of another store or volume; those of `resume.keep`.
    pub fn verify_resumable(
        &self,
        volume: Option<&str>,
        source: Arc<dyn SourceReader>,
        options: &VerifyOptions,
        resume: VerifyResume<'_>,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<VerifyReport> {
        let started = Instant::now();
        let info = Arc::new(self.volume(volume)?.info());
        let group = &self.inner.group;
        group.settle_for_reading()?;
        let stamp = source.stamp().map_err(|error| Error::io("look at", SOURCE, error))?;
        let newest = group.tip().0;
        let ahead = ReadAhead::start(source.clone(), options.readers)
            .map_err(|error| Error::io("start", "the threads of a verification", error))?;
        let VerifyResume { from, keep } = resume;
        let (from, different, damaged) =
            from.map_or(Ok((0, Vec::new(), Vec::new())), |from| from.of(group.shared.store, &info))?;
        let found = Found { different, damaged, ..Found::default() };
        let mut verify = Verify { store: self, info: info.clone(), ahead, found };
        let complete = verify.look_at_all(from, options, keep, progress, cancelled)?;
        // The second look changes what was found, and may not come to its end.
        let cursor = if complete { verify.cursor(info.bytes) } else { None };
        let unsettled = verify.look_again(cancelled)?;
        let Verify { found, .. } = verify;
        let mut report = VerifyReport {
            bytes_compared: found.bytes_compared,
            bytes_different: total(&found.different),
            bytes_damaged: total(&found.damaged),
            bytes_unsettled: total(&unsettled),
            extents: found.different.iter().map(as_bytes).collect(),
            repaired: false,
            complete: complete && !cancelled(),
            source_bytes_read: found.source_bytes_read,
            store_bytes_read: found.store_bytes_read,
            seconds: 0.0,
        };
        if !report.complete {
            cursor.map_or(Ok(()), |cursor| keep(&cursor))?;
        }
        if options.repair && report.complete && !report.extents.is_empty() {
            let (counts, left) =
                self.repair(&info, &source, &report.extents, (newest, stamp), progress, cancelled)?;
            report.source_bytes_read += counts.source_bytes_read;
            report.store_bytes_read += counts.store_bytes_read;
            report.repaired = left == 0;
        }
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    fn repair(
        &self,
        info: &Arc<VolumeInfo>,
        source: &Arc<dyn SourceReader>,
        extents: &[ByteRange],
        (newest, stamp): (Seq, Option<SourceStamp>),
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(ResyncCounts, u64)> {
        let group = self.owner()?;
        let Some((capture, tap)) =
            group.capture().and_then(|capture| Some((capture.clone(), capture.tap(info.id)?)))
        else {
            let options = ResyncOptions::default();
            return self.resync_found(info, source, (extents, newest, stamp), &options, progress, cancelled);
        };
        let resyncs = self.inner.resyncs.lock().clone();
        let own = resyncs.into_iter().find(|resync| Arc::ptr_eq(resync.lock().tap(), &tap));
        let Some(own) = own else {
            return Err(Error::Exists { what: "tap of volume", name: info.name.clone() });
        };
        {
            let mut own = own.lock();
            (own.how, own.is_asked_for) = (How::Bytes, true);
        }
        let now = group.shared.clock.now();
        for extent in extents {
            tap.mark(*extent, now, GapReason::Host, &capture.wishes, || capture.pool.boundary());
        }
        // The activity log does not know of what is set directly.
        let log = own.lock().log().cloned();
        log.map_or(Ok(()), |log| log.checkpoint(group))?;
        let is_whole = || !tap.gap_is_open() && tap.wished().is_none() && tap.map().is_empty();
        let mut outcome = Ok(());
        let mut failures = 0;
        while !is_whole() && !cancelled() && !tap.is_ended() {
            match self.step_taps() {
                Ok(true) => {}
                Ok(false) => std::thread::sleep(LOOK_EVERY / 10),
                Err(error) => {
                    failures += 1;
                    if failures > RESYNC_RUNS_MAX {
                        outcome = Err(error);
                        break;
                    }
                }
            }
        }
        let mut own = own.lock();
        (own.how, own.is_asked_for) = (How::Digests, false);
        outcome.map(|()| (ResyncCounts::default(), u64::from(!is_whole())))
    }
}

/// Ranges of bytes: ascending, merged.
type Ranges = Vec<Range<u64>>;

/// What was found so far; ranges are bytes of the volume.
#[derive(Default)]
struct Found {
    bytes_compared: u64,
    source_bytes_read: u64,
    store_bytes_read: u64,
    different: Ranges,
    damaged: Ranges,
}

/// A comparison under way.
struct Verify<'a> {
    store: &'a Store,
    info: Arc<VolumeInfo>,
    ahead: ReadAhead,
    found: Found,
}

impl Verify<'_> {
    /// Compares everything from an offset on once. Returns whether it came to the end.
    fn look_at_all(
        &mut self,
        from: u64,
        options: &VerifyOptions,
        keep: &mut dyn FnMut(&VerifyCursor) -> Result<()>,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let total = self.info.bytes;
        let mut pace = Pace::from(options.bytes_per_second_max, from);
        let (mut asked, mut done) = (from, from);
        let mut kept = Instant::now();
        let mut requests: VecDeque<(ByteRange, Request)> = VecDeque::new();
        loop {
            while asked < total && requests.len() < self.ahead.depth() {
                let hole = self.ahead.hole_at(asked, total).min(HOLE_BYTES_MAX) / BLOCK_BYTES * BLOCK_BYTES;
                let bytes = if hole > PIECE_BYTES { hole } else { PIECE_BYTES };
                let range = ByteRange::new(asked, bytes.min(total - asked));
                requests.push_back((range, self.ahead.request(range)));
                asked = range.end();
            }
            let Some((range, request)) = requests.pop_front() else { return Ok(true) };
            let is_cancelled = cancelled();
            if is_cancelled || kept.elapsed() >= KEEP_EVERY {
                self.cursor(done).map_or(Ok(()), |cursor| keep(&cursor))?;
                kept = Instant::now();
            }
            if is_cancelled {
                return Ok(false);
            }
            match request.answer()? {
                Fetched::TooLong => {
                    for range in pieces(range) {
                        let fetched = self.ahead.request(range).answer()?;
                        self.compare(range, fetched)?;
                    }
                }
                fetched => self.compare(range, fetched)?,
            }
            done = range.end();
            progress(Progress { done, total });
            pace.keep(done, cancelled);
        }
    }

    fn cursor(&self, done: u64) -> Option<VerifyCursor> {
        let store = self.store.inner.group.shared.store;
        VerifyCursor::new(store, &self.info, done, &self.found.different, &self.found.damaged)
    }

    fn compare(&mut self, range: ByteRange, fetched: Fetched) -> Result<()> {
        let (different, damaged) = self.differences(range, &fetched)?;
        different.into_iter().for_each(|part| push_merged(&mut self.found.different, part));
        damaged.into_iter().for_each(|part| push_merged(&mut self.found.damaged, part));
        self.found.bytes_compared += range.bytes;
        if let Fetched::Data(buffer) = fetched {
            self.ahead.give_back(buffer);
        }
        Ok(())
    }

    /// What differs in a range, and what of it is damaged: bytes of the volume.
    fn differences(&mut self, range: ByteRange, fetched: &Fetched) -> Result<(Ranges, Ranges)> {
        let content = match fetched {
            Fetched::Data(buffer) => {
                self.found.source_bytes_read += range.bytes;
                Content::Data(&buffer[..to_len(range.bytes)])
            }
            Fetched::Hole | Fetched::TooLong => Content::Zeroes(range.bytes),
        };
        let group = &self.store.inner.group;
        let found = group.compare(self.info.id, range.offset / BLOCK_BYTES, content, How::Bytes)?;
        self.found.store_bytes_read += found.store_bytes_read;
        let moved = |parts: Ranges| {
            parts.into_iter().map(|part| part.start + range.offset..part.end + range.offset).collect()
        };
        Ok((moved(found.different), moved(found.damaged)))
    }

    /// Looks at what differs until it does no more, or has come to rest. Returns what never did; that does not count as different.
    fn look_again(&mut self, cancelled: &dyn Fn() -> bool) -> Result<Ranges> {
        let mut suspects: Vec<Suspect> = self
            .found
            .different
            .iter()
            .flat_map(|range| pieces(as_bytes(range)))
            .map(|range| Suspect { range, seen: None, since: Instant::now(), settled: None })
            .collect();
        let began = Instant::now();
        while !suspects.is_empty() && !cancelled() {
            let tap = self.tap();
            let settled_after = if tap.is_some() { SETTLED_AFTER } else { Duration::ZERO };
            self.take_over(tap.is_some())?;
            for suspect in suspects.iter_mut().filter(|suspect| suspect.settled.is_none()) {
                self.look_at(suspect, tap.as_deref(), settled_after)?;
            }
            if suspects.iter().all(|suspect| suspect.settled.is_some()) || began.elapsed() >= LOOK_MAX {
                break;
            }
            if tap.is_some() {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        let (mut different, mut damaged, mut unsettled) = (Vec::new(), Vec::new(), Vec::new());
        for suspect in suspects {
            match suspect.settled {
                Some((parts, broken)) => {
                    parts.into_iter().for_each(|part| push_merged(&mut different, part));
                    broken.into_iter().for_each(|part| push_merged(&mut damaged, part));
                }
                None => push_merged(&mut unsettled, suspect.range.offset..suspect.range.end()),
            }
        }
        (self.found.different, self.found.damaged) = (different, damaged);
        Ok(unsettled)
    }

    fn tap(&self) -> Option<Arc<TapState>> {
        self.store.inner.group.capture().and_then(|capture| capture.tap(self.info.id))
    }

    /// What was captured before this call is part of the newest state behind it.
    fn take_over(&self, tapped: bool) -> Result<()> {
        if tapped { self.store.drain_taps().map(|_| ()) } else { self.store.inner.group.settle_for_reading() }
    }

    /// One more look: the source first, then what was captured until then, and then the newest state.
    fn look_at(
        &mut self,
        suspect: &mut Suspect,
        tap: Option<&TapState>,
        settled_after: Duration,
    ) -> Result<()> {
        let range = suspect.range;
        // What is known to differ is for the tap's resync.
        let dirty = |tap: &TapState| tap.map().is_dirty(range) || tap.wished().is_some();
        let fetched = self.ahead.request(range).answer()?;
        self.take_over(tap.is_some())?;
        let (different, damaged) = self.differences(range, &fetched)?;
        if different.is_empty() {
            suspect.settled = Some((different, damaged));
        } else if tap.is_some_and(dirty) {
            suspect.seen = None;
        } else {
            let source = match &fetched {
                Fetched::Data(buffer) => {
                    self.store.inner.group.shared.key.digest(&buffer[..to_len(range.bytes)])
                }
                Fetched::Hole | Fetched::TooLong => 0,
            };
            let seen = Some((source, different.clone()));
            if suspect.seen != seen {
                (suspect.seen, suspect.since) = (seen, Instant::now());
            }
            if suspect.since.elapsed() >= settled_after {
                suspect.settled = Some((different, damaged));
            }
        }
        if let Fetched::Data(buffer) = fetched {
            self.ahead.give_back(buffer);
        }
        Ok(())
    }
}

/// A range that differed when it was looked at.
struct Suspect {
    range: ByteRange,
    /// What was seen last: the digest of the source, and where it differed.
    seen: Option<(u64, Ranges)>,
    /// Since when.
    since: Instant,
    /// What differs for certain, and what of it is damaged.
    settled: Option<(Ranges, Ranges)>,
}

fn pieces(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let end = range.end();
    let count = range.bytes.div_ceil(PIECE_BYTES);
    (0..count).map(move |index| {
        let offset = range.offset + index * PIECE_BYTES;
        ByteRange::new(offset, (end - offset).min(PIECE_BYTES))
    })
}

fn as_bytes(range: &Range<u64>) -> ByteRange {
    ByteRange::new(range.start, range.end - range.start)
}

fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

const _: () = assert!(PIECE_BYTES.is_multiple_of(BLOCK_BYTES));
