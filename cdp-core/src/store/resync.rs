//! Resync of a volume with a source that nobody captures from, and of a tap on request: the newest state becomes equal to the source.
//!
//! The engine is that of the tap ([`crate::resync`]). For as long as it runs the volume takes no inline writes; its map is on an extent of the
//! store and says what is still to be compared, with a stamp of the source where it has one, so that a later run goes on there: after a
//! cancellation exactly, after a crash with what was done since the last checkpoint. Invariant *no unproved clean*: a run goes on with the
//! map of another only while the source has the stamp that it had then, or when the caller vouches for it.

use super::{SourceState, Store, resync_run::ResyncRun, source_state::Differences, tap::Decided};
use crate::{
    catalog::{ComparisonKind, GapReason, SourceStamp, StampRecord, TapRecord, VolumeInfo},
    dirty_map::{ByteRange, DirtyMap},
    error::{Error, Result},
    group::{How, Known},
    job::{self, Job, JobStep},
    restore::Progress,
    resync::{ResyncCounts, SOURCE, SourceReader},
    units::{Seq, TimeNs},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Usual time between two checkpoints of the map of a run.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

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
    /// For a volume with a tap, see [`Tap::resync`](super::Tap::resync).
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
        let mut job = self.resync_job(volume, source, options)?;
        job::run(&mut job, progress, cancelled)?;
        job.end()
    }

    /// As [`Store::resync_from`], in steps. From this call until its end the volume takes no inline writes and no tap.
    ///
    /// # Errors
    /// `NotFound`; `Exists` when the volume has a tap; those of the source as `Io`; those of appending.
    pub fn resync_job(
        &self,
        volume: Option<&str>,
        source: Arc<dyn SourceReader>,
        options: &ResyncOptions,
    ) -> Result<ResyncJob> {
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
            return Ok(ResyncJob { plan, run: None, started });
        }
        let found = std::cell::Cell::new(Differences { reason: None, everything: false });
        let stamp = Some(StampRecord { stamp: now, unfinished: Some(plan.kind()) });
        let decide = |map: &DirtyMap, known: Known| {
            found.set(self.mark_differences(&info, known, &plan.state, map)?);
            let alone = Some((plan.how(), stamp));
            Ok(Decided { reason: found.get().reason, newest: None, alone })
        };
        let run = ResyncRun::begin(self, &info, &source, options, decide, stamp)?;
        if found.get().everything && plan.state == SourceState::AsRecorded {
            plan.resumed = false;
            if plan.mode == ResyncMode::Map {
                plan.mode = ResyncMode::Digest;
                plan.fallback = Some("the map of differences could not be read".into());
            }
        }
        Ok(ResyncJob { plan, run: Some(run), started })
    }

    /// Begins to take over from `source` what a comparison has just found to differ, and nothing else. `newest`: the newest seq when that
    /// comparison ended; when there is a newer one now, everything is compared again.
    pub(super) fn resync_found(
        &self,
        info: &Arc<VolumeInfo>,
        source: &Arc<dyn SourceReader>,
        (ranges, newest, stamp): (&[ByteRange], Seq, Option<SourceStamp>),
    ) -> Result<ResyncRun> {
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
        ResyncRun::begin(self, info, source, &ResyncOptions::default(), decide, stamp)
    }

    /// Begins to take over from `source` what `mark` sets in a map and differs. `mark` is told what is known of the volume and of the source that it was last
    /// compared with; its error ends the run before anything was changed.
    pub(super) fn resync_marked(
        &self,
        info: &Arc<VolumeInfo>,
        source: &Arc<dyn SourceReader>,
        mark: Mark<'_>,
        options: &ResyncOptions,
    ) -> Result<ResyncRun> {
        let group = self.owner()?;
        let now = source.stamp().map_err(|error| Error::io("look at", SOURCE, error))?;
        let stamp = Some(StampRecord { stamp: now, unfinished: Some(ComparisonKind::Map) });
        let decide = |map: &DirtyMap, known: Known| {
            let recorded = group.catalog.read().source_stamp(info.id);
            mark(map, known, recorded)?;
            Ok(Decided { reason: Some(GapReason::Host), newest: None, alone: Some((How::Digests, stamp)) })
        };
        ResyncRun::begin(self, info, source, options, decide, stamp)
    }
}

/// A resync with a source that nobody captures from, under way. Dropped, it ends where it stands, and a later one goes on there.
pub struct ResyncJob {
    plan: Plan,
    /// `None`: there is nothing to do.
    run: Option<ResyncRun>,
    started: Instant,
}

impl ResyncJob {
    /// What it has done so far.
    pub fn report(&self) -> ResyncReport {
        let (counts, left) = self.run.as_ref().map_or_else(Default::default, ResyncRun::outcome);
        self.plan.report(counts, left, self.started)
    }

    /// Ends it where it stands, durably, unless it has ended, and says what it has done.
    ///
    /// # Errors
    /// Those of appending; a later run then goes on where the last checkpoint was.
    pub fn end(&mut self) -> Result<ResyncReport> {
        self.run.as_mut().map_or(Ok(()), ResyncRun::end)?;
        Ok(self.report())
    }
}

impl Job for ResyncJob {
    fn step(&mut self) -> Result<JobStep> {
        self.run.as_mut().map_or(Ok(JobStep::Done), ResyncRun::step)
    }

    fn progress(&self) -> Progress {
        self.run.as_ref().map_or(Progress { done: 0, total: 0 }, ResyncRun::progress)
    }
}

impl Plan {
    fn report(&self, counts: ResyncCounts, bytes_left: u64, started: Instant) -> ResyncReport {
        ResyncReport {
            mode: self.mode,
            fallback: self.fallback.clone(),
            resumed: self.resumed,
            bytes_left,
            counts,
            seconds: started.elapsed().as_secs_f64(),
        }
    }
}
