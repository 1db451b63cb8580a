//! Background maintenance: merging index runs, and removing what nobody needs any more.
//!
//! Runs of a level are merged when there are a fan-out of them, the oldest first, so a lookup meets a number of runs that grows with
//! the logarithm of the history. Outputs are synced and verified, then one manifest edit replaces the inputs, then their extents are
//! removed after the last reader has let go. An input that lives in the footer of a segment stays where it is.

use super::{
    Group, Manifest,
    thin::{Damaged, RoundLimits, Segments, Tally, ThinGoal, Thinned, Thinning},
};
use crate::{
    error::{Error, Result},
    event::EventKind,
    format::{
        manifest::{Counters, Edit, RunId},
        packed::PackedEntry,
    },
    index::{Keep, KeepAll, Merge, MergeStep, Run, RunMeta, View},
    manifest::next_extent,
    sabotage::{Sabotage, Switch},
    units::ExtentId,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

/// Sealed segments that are cut to their length at an open.
const TRIMMED_MAX: usize = 16;

/// Longest time for which a run gives way at once.
const GIVE_WAY_MAX: Duration = Duration::from_millis(100);

/// Maintenance under way.
#[derive(Default)]
pub(super) struct Maintenance {
    work: Option<Work>,
    /// What thinning works towards, until there is nothing left to do for it.
    goal: Option<ThinGoal>,
    /// How often the goal was changed from outside.
    goals: u64,
    /// Whether [`Group::thin_now`] does the work.
    driven: bool,
    /// Runs that were replaced, with the extents that go when no reader holds them any more.
    replaced: Vec<(Arc<Run>, Vec<ExtentId>)>,
    /// Extents that can go when readers allow it.
    garbage: Vec<ExtentId>,
    /// What the extents of both take up, bytes.
    doomed: BTreeMap<ExtentId, u64>,
    /// What met damage: it stays as it is until the store is opened again.
    damaged: Damaged,
}

enum Work {
    Merge(Box<Job>),
    Thin(Box<Thinning>),
}

impl Work {
    /// The extents that were made for its output so far.
    fn created(&self) -> Arc<Mutex<Vec<ExtentId>>> {
        match self {
            Self::Merge(job) => job.created.clone(),
            Self::Thin(thinning) => thinning.created(),
        }
    }

    fn runs(&self) -> Vec<Arc<Run>> {
        match self {
            Self::Merge(job) => job.inputs.clone(),
            Self::Thin(thinning) => thinning.runs(),
        }
    }
}

/// Why a piece of work came to nothing.
pub(super) struct WorkFailed {
    pub error: Error,
    /// The edit that names its output may be there all the same: the output stays, and the next open knows what it is.
    pub may_be_named: bool,
}

impl From<Error> for WorkFailed {
    fn from(error: Error) -> Self {
        Self { error, may_be_named: false }
    }
}

struct Job {
    inputs: Vec<Arc<Run>>,
    merge: Merge<'static, Filter>,
    created: Arc<Mutex<Vec<ExtentId>>>,
}

/// Keeps all, unless sabotaged.
struct Filter {
    lose_one: bool,
}

impl Keep for Filter {
    fn keep(&mut self, entry: &PackedEntry) -> Result<Option<PackedEntry>> {
        if std::mem::take(&mut self.lose_one) { Ok(None) } else { KeepAll.keep(entry) }
    }
}

impl Group {
    /// Does up to `entries` entries' worth of merging and thinning, unless [`Group::thin_now`] is about it. Returns whether there is more to
    /// do at once.
    pub fn maintain(&self, entries: u64) -> Result<bool> {
        let mut maintenance = self.maintenance.lock();
        if maintenance.driven { Ok(false) } else { self.step_work(entries, &mut maintenance) }
    }

    /// Thins until there is nothing left to do for a goal, in steps of up to `entries` entries. Meanwhile nobody else does, and so nobody
    /// else meets what goes wrong. `gives_way`: while others write it takes a quarter of the time, unless room is short.
    ///
    /// # Errors
    /// Those of thinning; rounds that were carried out stay so.
    pub fn thin_now(&self, goal: ThinGoal, entries: u64, gives_way: bool) -> Result<()> {
        let _one = self.thinning_now.lock();
        {
            let mut maintenance = self.maintenance.lock();
            maintenance.driven = true;
            self.change_goal(&mut maintenance, Some(goal));
        }
        let outcome = loop {
            let (began, newest) = (Instant::now(), self.visible_seq.load(Ordering::Acquire));
            let mut maintenance = self.maintenance.lock();
            let Some(goal) = &maintenance.goal else { break Ok(()) };
            let may_wait = gives_way && goal.tight.is_none();
            if let Err(error) = self.step_work(entries, &mut maintenance) {
                break Err(error);
            }
            drop(maintenance);
            if may_wait && self.visible_seq.load(Ordering::Acquire) != newest {
                thread::sleep((began.elapsed() * 3).min(GIVE_WAY_MAX));
            }
        };
        self.maintenance.lock().driven = false;
        outcome
    }

    /// Thins for a goal by up to `entries` entries; returns whether there is more to do. `mark` belongs to the goal and begins as `None`. Between
    /// two steps background work goes on towards the goal, and somebody else may set another one: then this step sets its own again.
    ///
    /// # Errors
    /// Those of thinning; rounds that were carried out stay so.
    pub fn thin_step(&self, goal: &ThinGoal, mark: &mut Option<u64>, entries: u64) -> Result<bool> {
        let _one = self.thinning_now.lock();
        let mut maintenance = self.maintenance.lock();
        if *mark != Some(maintenance.goals) {
            self.change_goal(&mut maintenance, Some(goal.clone()));
            *mark = Some(maintenance.goals);
        }
        if maintenance.goal.is_none() {
            return Ok(false);
        }
        self.step_work(entries, &mut maintenance)?;
        Ok(maintenance.goal.is_some())
    }

    fn step_work(&self, entries: u64, maintenance: &mut Maintenance) -> Result<bool> {
        self.collect_garbage(maintenance);
        if maintenance.work.is_none() {
            maintenance.work = self.next_work(maintenance)?;
        }
        let Some(work) = maintenance.work.take() else { return Ok(false) };
        let (runs, created) = (work.runs(), work.created());
        let outcome = match work {
            Work::Merge(job) => self.step_merge(job, entries, maintenance),
            Work::Thin(thinning) => self.step_thinning(*thinning, entries, maintenance),
        };
        let Err(WorkFailed { error, may_be_named }) = outcome else { return Ok(true) };
        if !may_be_named {
            self.discard(maintenance, &created.lock());
        }
        if error.is_damage() {
            self.events.push(self.shared.clock.now(), EventKind::DamageMet(error.to_string()));
            Self::blame(&runs, &error, maintenance);
            return Err(error);
        }
        let goal = maintenance.goal.take();
        if let (Error::NoSpace, Some(goal)) = (&error, goal)
            && goal.tight.is_none()
        {
            self.collect_garbage(maintenance);
            self.give_up_reserve()?;
            maintenance.goal = Some(ThinGoal { tight: Some(0), ..goal });
            return Ok(true);
        }
        Err(error)
    }

    fn next_work(&self, maintenance: &mut Maintenance) -> Result<Option<Work>> {
        if let Some(goal) = maintenance.goal.take() {
            let thinning = Thinning::new(self, goal.clone(), &maintenance.damaged);
            if let Some(thinning) = thinning? {
                maintenance.goal = Some(goal);
                return Ok(Some(Work::Thin(Box::new(thinning))));
            }
        }
        Ok(self.next_job(&maintenance.damaged.runs)?.map(|job| Work::Merge(Box::new(job))))
    }

    fn step_merge(
        &self,
        mut job: Box<Job>,
        entries: u64,
        maintenance: &mut Maintenance,
    ) -> Result<(), WorkFailed> {
        match job.merge.step(entries)? {
            MergeStep::More { .. } => maintenance.work = Some(Work::Merge(job)),
            MergeStep::Finished(output) => {
                let run = self.check_output(&output)?;
                let replaced = self.install(&job.inputs, run, output);
                let named = |error| WorkFailed { error, may_be_named: true };
                self.doom(maintenance, replaced.map_err(named)?);
            }
        }
        Ok(())
    }

    fn step_thinning(
        &self,
        thinning: Thinning,
        entries: u64,
        maintenance: &mut Maintenance,
    ) -> Result<(), WorkFailed> {
        let (thinning, thinned) = self.thin(thinning, entries, &mut maintenance.damaged)?;
        maintenance.work = thinning.map(|thinning| Work::Thin(Box::new(thinning)));
        match thinned {
            Thinned::More => {}
            Thinned::Replaced { replaced, written } => {
                let doomed = self.doom(maintenance, replaced);
                self.totals.freed_bytes.fetch_add(doomed, Ordering::Relaxed);
                self.totals.taken_bytes.fetch_add(written, Ordering::Relaxed);
                let freed = doomed.saturating_sub(written);
                if let Some(ThinGoal { tight: Some(room), .. }) = &mut maintenance.goal {
                    *room = room.saturating_add(freed);
                }
                self.collect_garbage(maintenance);
            }
            Thinned::Done => maintenance.goal = None,
        }
        Ok(())
    }

    /// Lets replaced runs go, with the extents that go with each, when no reader holds them any more.
    /// Returns their bytes.
    fn doom(&self, maintenance: &mut Maintenance, replaced: Vec<(Arc<Run>, Vec<ExtentId>)>) -> u64 {
        let mut bytes = 0;
        for extent in replaced.iter().flat_map(|(_, extents)| extents) {
            let size =
                self.shared.handle(*extent).and_then(|handle| handle.size().map_err(|_| Error::NoSpace));
            let size = size.unwrap_or(0);
            // A segment that goes may be named by itself and by the run in its footer.
            if maintenance.doomed.insert(*extent, size).is_none() {
                bytes += size;
            }
        }
        self.space.doomed.store(maintenance.doomed.values().sum(), Ordering::Release);
        maintenance.replaced.extend(replaced);
        bytes
    }

    /// Takes up work again on what met damage and was mended.
    pub fn forgive(&self, extents: &BTreeSet<ExtentId>) {
        let mut maintenance = self.maintenance.lock();
        maintenance.damaged.segments.retain(|extent| !extents.contains(extent));
    }

    /// Leaves what met damage alone from now on: the segment that the error names, else the runs that were read.
    fn blame(runs: &[Arc<Run>], error: &Error, maintenance: &mut Maintenance) {
        let Error::Damaged(damage) = error else { return };
        if maintenance.damaged.segments.contains(&damage.extent) {
            return;
        }
        let is_named = |run: &&Arc<Run>| run.meta().pieces.iter().any(|piece| piece.extent == damage.extent);
        let named = runs.iter().find(is_named).and_then(|run| RunId::of(run.meta()));
        match named {
            Some(run) => drop(maintenance.damaged.runs.insert(run)),
            None => maintenance.damaged.runs.extend(runs.iter().filter_map(|run| RunId::of(run.meta()))),
        }
    }

    /// Sets what thinning works towards, from the next step on; `None` ends it. What is under way is given up, but for
    /// [`Group::thin_now`], which goes further than background work would.
    pub fn set_thin_goal(&self, goal: Option<ThinGoal>) {
        let mut maintenance = self.maintenance.lock();
        if !maintenance.driven {
            self.change_goal(&mut maintenance, goal);
        }
    }

    fn change_goal(&self, maintenance: &mut Maintenance, goal: Option<ThinGoal>) {
        if let Some(work) = maintenance.work.take_if(|work| matches!(work, Work::Thin(_))) {
            self.discard(maintenance, &work.created().lock());
        }
        maintenance.goal = goal;
        maintenance.goals += 1;
    }

    /// Bytes that thinning for a goal would free, about: a scan over the index below the full range.
    pub fn reclaimable(&self, goal: &ThinGoal) -> Result<u64> {
        let damaged = Damaged::default();
        let Some(mut tally) = Tally::new(self, goal.classes.clone(), &damaged)? else { return Ok(0) };
        while !tally.step(u64::MAX)? {}
        let segments = Segments::of(self, &damaged);
        let choice = tally.choose(
            &segments,
            goal.effort.dead_limits(self.fill()),
            RoundLimits::NONE,
            Sabotage::default(),
        );
        Ok(choice.map_or(0, |choice| choice.freed_bytes))
    }

    fn next_job(&self, damaged: &BTreeSet<RunId>) -> Result<Option<Job>> {
        let view = self.view();
        let mut levels: BTreeMap<u8, Vec<Arc<Run>>> = BTreeMap::new();
        for run in
            view.runs.iter().filter(|run| RunId::of(run.meta()).is_some_and(|id| !damaged.contains(&id)))
        {
            levels.entry(run.meta().level).or_default().push(run.clone());
        }
        let fanout = self.shared.tuning.run_fanout;
        let Some((level, mut runs)) = levels.into_iter().find(|(_, runs)| runs.len() >= fanout) else {
            return Ok(None);
        };
        runs.sort_by_key(|run| (run.meta().seq_min, run.meta().seq_max));
        runs.truncate(fanout);
        let extents = match &*self.manifest.lock() {
            Manifest::Owner(log) => log.extents(),
            Manifest::Reader(_) => return Err(Error::ReadOnly),
        };
        let created = Arc::new(Mutex::new(Vec::new()));
        let (shared, noted) = (self.shared.clone(), created.clone());
        let next_piece = Box::new(move || {
            let id = next_extent(&extents);
            let storage = &shared.storage;
            let extent =
                storage.create(id, 0).map_err(|error| Error::io("create", storage.describe(id), error))?;
            noted.lock().push(id);
            Ok((id, extent, 0))
        });
        let filter = Filter { lose_one: self.shared.sabotage.on(Switch::MergeDropsEntry) };
        let merge = Merge::new(runs.clone(), level.saturating_add(1), next_piece, filter)?;
        Ok(Some(Job { inputs: runs, merge, created }))
    }

    /// Makes the output of a merge durable and verifies it.
    fn check_output(&self, output: &RunMeta) -> Result<Arc<Run>> {
        let storage = &self.shared.storage;
        for piece in &output.pieces {
            let handle = self.shared.handle(piece.extent)?;
            handle.sync().map_err(|error| Error::io("sync", storage.describe(piece.extent), error))?;
        }
        storage.sync_names().map_err(|error| Error::io("sync names of", "the store", error))?;
        let run = Arc::new(self.shared.open_run(output.clone()));
        run.verify()?;
        Ok(run)
    }

    /// Puts the output of a merge in the place of its inputs.
    fn install(
        &self,
        inputs: &[Arc<Run>],
        run: Arc<Run>,
        output: RunMeta,
    ) -> Result<Vec<(Arc<Run>, Vec<ExtentId>)>> {
        let mut manifest = self.manifest.lock();
        let manifest = manifest.log()?;
        let removed: Vec<RunId> = inputs.iter().filter_map(|run| RunId::of(run.meta())).collect();
        let counters = manifest.state().counters;
        let written_bytes = counters.written_bytes.saturating_add(output.bytes());
        let replaced = Edit::RunsReplaced { removed, added: Box::new(output) };
        self.append_edits(manifest, &[replaced, Edit::Counters(Counters { written_bytes, ..counters })])?;
        self.publish(|view| {
            let gone = |run: &Arc<Run>| inputs.iter().any(|input| Arc::ptr_eq(input, run));
            let runs = view.runs.iter().filter(|run| !gone(run)).cloned().chain([run.clone()]);
            *view = View::new(view.memtables.clone(), runs.collect(), view.lost.clone());
        });
        let kept: BTreeSet<ExtentId> = manifest.state().extents().collect();
        let extents_of = |run: &Run| -> Vec<ExtentId> {
            run.meta()
                .pieces
                .iter()
                .map(|piece| piece.extent)
                .filter(|extent| !kept.contains(extent))
                .collect()
        };
        Ok(inputs.iter().map(|run| (run.clone(), extents_of(run))).collect())
    }

    /// The output of a merge that came to nothing.
    fn discard(&self, maintenance: &mut Maintenance, created: &[ExtentId]) {
        maintenance.garbage.extend_from_slice(created);
    }

    /// Notes extents that can be removed later.
    pub(super) fn maintenance_later(&self, extents: &[ExtentId]) {
        // A removal within maintenance itself finds the lock taken; the orphan is removed at the next open then.
        if let Some(mut maintenance) = self.maintenance.try_lock() {
            maintenance.garbage.extend_from_slice(extents);
        }
    }

    /// Removes extents that are not part of the store.
    pub fn remove_orphans(&self, extents: &[ExtentId]) {
        let mut maintenance = self.maintenance.lock();
        maintenance.garbage.extend_from_slice(extents);
        self.collect_garbage(&mut maintenance);
    }

    fn collect_garbage(&self, maintenance: &mut Maintenance) {
        let Maintenance { replaced, garbage, doomed, .. } = maintenance;
        replaced.retain(|(run, extents)| {
            let held = Arc::strong_count(run) > 1;
            if !held {
                garbage.extend_from_slice(extents);
            }
            held
        });
        if garbage.is_empty() {
            return;
        }
        let storage = &self.shared.storage;
        if let Ok(Some(_guard)) = storage.lock_out_readers() {
            for extent in garbage.drain(..) {
                self.shared.handles.remove(&extent);
                // One that cannot be removed is an orphan, which the next open removes.
                let _ = storage.remove(extent);
                doomed.remove(&extent);
            }
            self.space.doomed.store(doomed.values().sum(), Ordering::Release);
        }
    }

    /// Gives up a merge under way and removes what can be removed.
    pub(super) fn finish_maintenance(&self) {
        let mut maintenance = self.maintenance.lock();
        if let Some(work) = maintenance.work.take() {
            self.discard(&mut maintenance, &work.created().lock());
        }
        self.collect_garbage(&mut maintenance);
    }

    /// Cuts the last sealed segments to their length: a crash may have undone that, and what recovery found has the space of a whole one. What
    /// lies behind the end of the frames of a segment with a footer elsewhere is nobody's.
    pub fn trim_sealed(&self) {
        let sealed: Vec<(ExtentId, u64)> = {
            let manifest = self.manifest.lock();
            let segments = manifest.state().segments.values().rev().filter_map(|s| s.sealed.as_ref());
            segments.map(|s| (s.extent, s.extent_bytes.max(s.frames_end))).take(TRIMMED_MAX).collect()
        };
        for (extent, bytes) in sealed {
            if let Ok(handle) = self.shared.handle(extent)
                && handle.size().is_ok_and(|size| size > bytes)
            {
                let _ = handle.set_size(bytes);
            }
        }
    }
}
