//! Resync of a volume with a source that nobody captures from, and of a tap on request: the newest state becomes equal to the source.
//!
//! The engine is that of the tap ([`crate::resync`]). For as long as it runs the volume takes no inline writes; its map is on an extent of the
//! store and says what is still to be compared, with a stamp of the source where it has one, so that a later run goes on there: after a
//! cancellation exactly, after a crash with what was done since the last checkpoint. Invariant *no unproved clean*: a run goes on with the
//! map of another only while the source has the stamp that it had then, or when the caller vouches for it.

use super::{
    SourceState, Store, Tap, TapOptions,
    source_state::Differences,
    tap::{Attach, Attached, Decided, Keeps},
};
use crate::{
    catalog::{ComparisonKind, GapReason, SourceStamp, StampRecord, TapRecord, VolumeInfo},
    dirty_map::{ByteRange, DirtyMap},
    error::{Error, Result},
    group::{How, Known},
    restore::Progress,
    resync::{ResyncCounts, SOURCE, SourceReader, Step},
    units::{Seq, TimeNs},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Usual time between two checkpoints of the map of a run.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Pause while nothing can be done.
const IDLE: Duration = Duration::from_millis(2);
/// Longest pause for the rate in one go, so that a cancellation is seen.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Times that a run is broken off and begun again before its error is returned.
const SETBACKS_MAX: u64 = 3;

/// Marks what may differ in a map, by what is known of a volume and of the source that it was last compared with.
pub(super) type Mark<'a> = &'a dyn Fn(&DirtyMap, Known, Option<StampRecord>) -> Result<()>;

/// What a resync looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResyncMode {
    /// Every byte of both sides.
    Full,
    /// The source, and the digests in the index of the store.
    #[default]
    Digest,
    /// What the recorded map of differences names.
    Map,
    /// Nothing, as long as source and volume are as they were when they were last known to be equal.
    Quick,
}

impl ResyncMode {
    /// The spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Digest => "digest",
            Self::Map => "map",
            Self::Quick => "quick",
        }
    }
}

/// How a resync goes.
#[derive(Clone, Copy, Debug)]
pub struct ResyncOptions {
    /// What it looks at.
    pub mode: ResyncMode,
    /// Threads that read the source ahead, started for the time of the call; 0: none is started.
    pub readers: usize,
    /// Bytes of the source that are compared in a second at most.
    pub bytes_per_second_max: Option<u64>,
    /// The caller vouches that the source was not changed since the last run: where it has no stamp, a run goes on nevertheless.
    pub source_is_unchanged: bool,
    /// When it happens, for a host that dates its writes by another clock than that of the store; `None`: now.
    pub time: Option<TimeNs>,
    /// Most work that a crash makes a later run repeat, where there is no tap: what is still to be compared is made durable each time. Default
    /// 1 s.
    pub checkpoint_every: Duration,
}

impl Default for ResyncOptions {
    fn default() -> Self {
        Self {
            mode: ResyncMode::default(),
            readers: 0,
            bytes_per_second_max: None,
            source_is_unchanged: false,
            time: None,
            checkpoint_every: CHECKPOINT_EVERY,
        }
    }
}

/// What a resync has done.
#[derive(Clone, Debug, PartialEq)]
pub struct ResyncReport {
    /// What it has looked at; another mode than asked for where that could not be.
    pub mode: ResyncMode,
    /// Why it is another one.
    pub fallback: Option<String>,
    /// It went on where another run had ended.
    pub resumed: bool,
    /// Bytes that are still to be compared: 0 unless it was cancelled.
    pub bytes_left: u64,
    /// Figures.
    pub counts: ResyncCounts,
    /// How long it took.
    pub seconds: f64,
}

/// Which comparison is carried out.
struct Plan {
    mode: ResyncMode,
    fallback: Option<String>,
    resumed: bool,
    state: SourceState,
}

impl Plan {
    fn how(&self) -> How {
        if self.mode == ResyncMode::Full { How::Bytes } else { How::Digests }
    }

    fn kind(&self) -> ComparisonKind {
        match self.mode {
            ResyncMode::Full => ComparisonKind::Bytes,
            ResyncMode::Digest => ComparisonKind::Digests,
            ResyncMode::Map | ResyncMode::Quick => ComparisonKind::Map,
        }
    }
}

/// What is known of a volume, and what its source says.
struct Evidence {
    record: Option<TapRecord>,
    has_map: bool,
    gap_is_open: bool,
    stamped: Option<StampRecord>,
    now: Option<SourceStamp>,
    vouched: bool,
}

impl Evidence {
    /// Whether the source is as it was when what is known of the volume was recorded.
    fn is_unchanged(&self) -> bool {
        self.vouched || (self.now.is_some() && self.recorded_stamp() == self.now)
    }

    /// Whether it must be taken for changed.
    fn is_changed(&self) -> bool {
        !self.vouched && self.recorded_stamp().is_some() && self.recorded_stamp() != self.now
    }

    fn recorded_stamp(&self) -> Option<SourceStamp> {
        self.stamped.and_then(|recorded| recorded.stamp)
    }

    /// Whether a run of this kind was broken off and can go on.
    fn goes_on(&self, kind: ComparisonKind) -> bool {
        let unfinished = self.stamped.and_then(|recorded| recorded.unfinished);
        // What was compared by bytes was compared by digests as well.
        let serves = unfinished == Some(kind)
            || (kind == ComparisonKind::Digests && unfinished == Some(ComparisonKind::Bytes));
        self.has_map && self.record == Some(TapRecord::Differs) && serves && self.is_unchanged()
    }

    fn plan(&self, asked: ResyncMode) -> Plan {
        let whole = |mode: ResyncMode, fallback: Option<String>| {
            let kind = if mode == ResyncMode::Full { ComparisonKind::Bytes } else { ComparisonKind::Digests };
            let resumed = self.goes_on(kind);
            let state = if resumed { SourceState::AsRecorded } else { SourceState::Unknown };
            Plan { mode, fallback, resumed, state }
        };
        let instead = |why: &str| whole(ResyncMode::Digest, Some(why.to_owned()));
        let recorded = |mode| Plan {
            mode,
            fallback: None,
            resumed: self.stamped.is_some_and(|recorded| recorded.unfinished.is_some()),
            state: SourceState::AsRecorded,
        };
        match asked {
            ResyncMode::Full | ResyncMode::Digest => whole(asked, None),
            ResyncMode::Map if self.is_changed() => {
                instead("the source was changed since the map of differences was recorded")
            }
            ResyncMode::Map => match self.record {
                Some(TapRecord::Equal) if !self.gap_is_open => recorded(ResyncMode::Map),
                Some(_) if self.has_map => recorded(ResyncMode::Map),
                _ => instead("there is no map of differences"),
            },
            ResyncMode::Quick if self.record != Some(TapRecord::Equal) || self.gap_is_open => {
                instead("the volume is not known to have been equal to the source")
            }
            ResyncMode::Quick if self.now.is_none() || self.recorded_stamp().is_none() => {
                instead("the source has no stamp that was recorded")
            }
            ResyncMode::Quick if self.is_changed() => instead("the source was changed since"),
            ResyncMode::Quick => recorded(ResyncMode::Quick),
        }
    }
}

impl Store {
    /// Makes the newest state of a volume (`None`: the first one) equal to `source`, which nobody captures from and nobody changes meanwhile.
    /// Blocks that differ are appended; if there are any, the states between the first and the last of them are a gap, closed by a
    /// system bookmark, and all points before it stay. Durable when this returns. `cancelled` is asked all the time; what was done until then
    /// stays, and a later call goes on there. The source is read once, in ascending order.
    ///
    /// For a volume with a tap, see [`Tap::resync`].
    ///
    /// # Errors
    /// `NotFound`; `Exists` when the volume has a tap; `SourceChanged` when the stamp of the source changed meanwhile; those of the source as
    /// `Io`; those of appending. Nothing is claimed then that was not compared, and a later call goes on.
    pub fn resync_from(
        &self,
        volume: Option<&str>,
        source: Arc<dyn SourceReader>,
        options: &ResyncOptions,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ResyncReport> {
        let started = Instant::now();
        let info = Arc::new(self.volume(volume)?.info());
        let group = self.owner()?;
        group.settle_for_reading()?;
        let now = source.stamp().map_err(|error| Error::io("look at", SOURCE, error))?;
        let evidence = {
            let catalog = group.catalog.read();
            let (record, map) = catalog.tap_with_map(info.id).unzip();
            Evidence {
                record,
                has_map: map.flatten().is_some(),
                gap_is_open: catalog.gaps(info.id).is_some_and(|gaps| gaps.open().is_some()),
                stamped: catalog.source_stamp(info.id),
                now,
                vouched: options.source_is_unchanged,
            }
        };
        let mut plan = evidence.plan(options.mode);
        if plan.mode == ResyncMode::Quick {
            return Ok(plan.report(ResyncCounts::default(), 0, started));
        }
        let found = std::cell::Cell::new(Differences { reason: None, everything: false });
        let stamp = Some(StampRecord { stamp: now, unfinished: Some(plan.kind()) });
        let decide = |map: &DirtyMap, known: Known| {
            found.set(self.mark_differences(&info, known, &plan.state, map)?);
            let alone = Some((plan.how(), stamp));
            Ok(Decided { reason: found.get().reason, newest: None, alone })
        };
        let run = Run { store: self, info: &info, source: &source, options };
        let (counts, bytes_left) = run.carry_out(decide, stamp, progress, cancelled)?;
        if found.get().everything && plan.state == SourceState::AsRecorded {
            plan.resumed = false;
            if plan.mode == ResyncMode::Map {
                plan.mode = ResyncMode::Digest;
                plan.fallback = Some("the map of differences could not be read".into());
            }
        }
        Ok(plan.report(counts, bytes_left, started))
    }

    /// Takes over from `source` what a comparison has just found to differ, and nothing else. `newest`: the newest seq when that
    /// comparison ended; when there is a newer one now, everything is compared again.
    pub(super) fn resync_found(
        &self,
        info: &Arc<VolumeInfo>,
        source: &Arc<dyn SourceReader>,
        (ranges, newest, stamp): (&[ByteRange], Seq, Option<SourceStamp>),
        options: &ResyncOptions,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(ResyncCounts, u64)> {
        let group = self.owner()?;
        // What is left of it is no comparison of everything.
        let stamp = Some(StampRecord { stamp, unfinished: Some(ComparisonKind::Map) });
        let decide = |map: &DirtyMap, known: Known| {
            let is_newest = group.tip().0 == newest;
            match is_newest {
                true => ranges.iter().for_each(|range| map.set(*range)),
                false => map.set_all(),
            }
            let reason = if known.is_some() { GapReason::Host } else { GapReason::Initial };
            let newest = is_newest.then_some(newest);
            Ok(Decided { reason: Some(reason), newest, alone: Some((How::Bytes, stamp)) })
        };
        Run { store: self, info, source, options }.carry_out(decide, stamp, progress, cancelled)
    }
}

impl Store {
    /// Takes over from `source` what `mark` sets in a map and differs. `mark` is told what is known of the volume and of the source that it was last compared
    /// with; its error ends the run before anything was changed.
    pub(super) fn resync_marked(
        &self,
        info: &Arc<VolumeInfo>,
        source: &Arc<dyn SourceReader>,
        mark: Mark<'_>,
        options: &ResyncOptions,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(ResyncCounts, u64)> {
        let group = self.owner()?;
        let now = source.stamp().map_err(|error| Error::io("look at", SOURCE, error))?;
        let stamp = Some(StampRecord { stamp: now, unfinished: Some(ComparisonKind::Map) });
        let decide = |map: &DirtyMap, known: Known| {
            let recorded = group.catalog.read().source_stamp(info.id);
            mark(map, known, recorded)?;
            Ok(Decided { reason: Some(GapReason::Host), newest: None, alone: Some((How::Digests, stamp)) })
        };
        Run { store: self, info, source, options }.carry_out(decide, stamp, progress, cancelled)
    }
}

impl Plan {
    fn report(self, counts: ResyncCounts, bytes_left: u64, started: Instant) -> ResyncReport {
        ResyncReport {
            mode: self.mode,
            fallback: self.fallback,
            resumed: self.resumed,
            bytes_left,
            counts,
            seconds: started.elapsed().as_secs_f64(),
        }
    }
}

/// One run of a resync without a tap of the host.
struct Run<'a> {
    store: &'a Store,
    info: &'a Arc<VolumeInfo>,
    source: &'a Arc<dyn SourceReader>,
    options: &'a ResyncOptions,
}

impl Run<'_> {
    /// Runs to the end, or until it is cancelled; returns the figures, and the bytes that are left.
    fn carry_out(
        &self,
        decide: impl Fn(&DirtyMap, Known) -> Result<Decided>,
        stamp: Option<StampRecord>,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(ResyncCounts, u64)> {
        let group = self.store.owner()?;
        let time = self.options.time.unwrap_or_else(|| group.shared.clock.now());
        let options = TapOptions::default();
        let readers = self.options.readers;
        let attach = Attach { options: &options, keeps: Keeps::Cursor, readers, time };
        let mut attached = self.store.attach(self.info, self.source, &attach, decide)?;
        let outcome = self.drive(&mut attached, progress, cancelled);
        let Attached { capture, state, mut resync, .. } = attached;
        if matches!(outcome, Err(Error::SourceChanged)) {
            state.map().set_all();
        }
        let ended = self.store.end_tap_of(&capture, &state, Some(&mut resync), stamp);
        if ended.is_err() {
            // Nobody else can end it. What is recorded, "differs" with the map as of its last checkpoint, holds.
            group.abandon_tap(&capture, &state);
        }
        // The failure of the run says more than that of its end.
        let left = dirty_bytes(self.info, state.map());
        outcome.and(ended).map(|()| (resync.counts, left))
    }

    fn drive(
        &self,
        attached: &mut Attached,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        let group = self.store.owner()?;
        let Attached { capture, state, log, resync } = attached;
        let total = dirty_bytes(self.info, state.map());
        let mut pace = Pace::new(self.options.bytes_per_second_max);
        let mut checkpoint = Instant::now();
        loop {
            if cancelled() {
                return Ok(());
            }
            match self.store.with_room(|| resync.step(group, capture)) {
                Ok(Step::Closed) => {
                    progress(Progress { done: total, total });
                    return Ok(());
                }
                Ok(Step::More) => {}
                Ok(Step::Idle) => {
                    self.store.drain_taps()?;
                    std::thread::sleep(IDLE);
                }
                Err(error @ Error::SourceChanged) => return Err(error),
                Err(error) if resync.counts.setbacks >= SETBACKS_MAX => return Err(error),
                Err(_) => {}
            }
            if state.is_ended() {
                return Err(Error::Poisoned("the store was closed".into()));
            }
            if checkpoint.elapsed() >= self.options.checkpoint_every {
                if let Some(log) = log {
                    // Bits turn clean, and durably so, only behind what was taken over.
                    group.flush_appended()?;
                    resync.settle(group);
                    log.checkpoint(group)?;
                }
                checkpoint = Instant::now();
            }
            let done = resync.counts.bytes_compared;
            progress(Progress { done: done.min(total), total });
            pace.keep(done, cancelled);
        }
    }
}

impl Tap {
    /// Compares the volume with its source while writes go on, and takes over what differs: as [`Store::resync_from`], for a volume with a
    /// tap, whose own source is read. A gap is open until it is done. `Map` compares what the tap knows to differ; `Quick` does
    /// nothing. The runner's or the stepping host's work is done in this thread too.
    ///
    /// # Errors
    /// `InvalidArgument` after [`Tap::detach`]; those of the source as `Io`; those of appending. The tap goes on by itself then.
    pub fn resync(
        &self,
        options: &ResyncOptions,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ResyncReport> {
        let started = Instant::now();
        self.check_attached()?;
        let plan =
            Plan { mode: options.mode, fallback: None, resumed: false, state: SourceState::AsRecorded };
        let bytes = self.state.map().shape().bytes();
        if matches!(options.mode, ResyncMode::Full | ResyncMode::Digest) {
            self.resync.lock().how = plan.how();
            self.mark_extents(&[ByteRange::new(0, bytes)], GapReason::Host)?;
        }
        let before = self.resync.lock().counts;
        self.resync.lock().is_asked_for = true;
        let outcome = self.drive_resync(options, bytes, progress, cancelled);
        let mut resync = self.resync.lock();
        (resync.how, resync.is_asked_for) = (How::Digests, false);
        let left = dirty_bytes(&self.info, self.state.map());
        outcome.map(|()| plan.report(resync.counts.since(before), left, started))
    }

    fn drive_resync(
        &self,
        options: &ResyncOptions,
        total: u64,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        if options.mode == ResyncMode::Quick {
            return Ok(());
        }
        let mut pace = Pace::new(options.bytes_per_second_max);
        let before = self.resync.lock().counts;
        while !self.is_whole() && !cancelled() {
            self.check_attached()?;
            let busy = self.store.step_taps();
            let counts = self.resync.lock().counts.since(before);
            if !busy.or_else(|error| if counts.setbacks > SETBACKS_MAX { Err(error) } else { Ok(false) })? {
                std::thread::sleep(IDLE);
            }
            progress(Progress { done: counts.bytes_compared.min(total), total });
            pace.keep(counts.bytes_compared, cancelled);
        }
        Ok(())
    }
}

impl ResyncCounts {
    /// What came since.
    fn since(self, before: Self) -> Self {
        Self {
            bytes_compared: self.bytes_compared - before.bytes_compared,
            source_bytes_read: self.source_bytes_read - before.source_bytes_read,
            store_bytes_read: self.store_bytes_read - before.store_bytes_read,
            bytes_different: self.bytes_different - before.bytes_different,
            bytes_transferred: self.bytes_transferred - before.bytes_transferred,
            bytes_damaged: self.bytes_damaged - before.bytes_damaged,
            setbacks: self.setbacks - before.setbacks,
        }
    }
}

fn dirty_bytes(info: &VolumeInfo, map: &DirtyMap) -> u64 {
    map.weight().saturating_mul(map.shape().granularity().bytes()).min(info.bytes)
}

/// Holds work to a rate.
pub(super) struct Pace {
    bytes_per_second_max: Option<u64>,
    since: Instant,
    from: u64,
}

impl Pace {
    pub fn new(bytes_per_second_max: Option<u64>) -> Self {
        Self::from(bytes_per_second_max, 0)
    }

    /// Where `from` bytes are done already.
    pub fn from(bytes_per_second_max: Option<u64>, from: u64) -> Self {
        Self {
            bytes_per_second_max: bytes_per_second_max.map(|rate| rate.max(1)),
            since: Instant::now(),
            from,
        }
    }

    /// Waits until `done` bytes are due.
    pub fn keep(&mut self, done: u64, cancelled: &dyn Fn() -> bool) {
        let Some(rate) = self.bytes_per_second_max else { return };
        while !cancelled() {
            let micros = u128::from(done.saturating_sub(self.from)) * 1_000_000 / u128::from(rate);
            let due = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
            let left = due.saturating_sub(self.since.elapsed());
            if left.is_zero() {
                // What was not used up to now is not made up for later.
                if self.since.elapsed() > due + PAUSE_MAX {
                    (self.since, self.from) = (Instant::now(), done);
                }
                return;
            }
            std::thread::sleep(left.min(PAUSE_MAX));
        }
    }
}
