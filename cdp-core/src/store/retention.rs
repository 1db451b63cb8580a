//! Retention: planning, showing and carrying out what the policy of a store says.
//!
//! Carrying out takes two steps. The *outline* of the timeline changes first, in one durable step: from then on what was dropped is
//! refused. Thinning then takes the bytes away, in rounds that may stop and go on at any time.

use super::{
    Store,
    history::{StoreHistory, policy_digest},
};
use crate::{
    bookmark::Bookmark,
    error::{Error, Result, SeqTime},
    format::meta::MetaRecord,
    group::{Effort, ThinGoal},
    index::Classes,
    limits::RETENTION_REPLANS_MAX,
    retention::{OnShortage, Outline, Pin, Plan, Policy, plan},
    sabotage::Switch,
    units::{Seq, TimeNs},
};
use std::sync::Arc;

/// Bookmarks that are removed in one go.
const RECORDS_AT_ONCE: usize = 128;

/// Entries of one step of a run.
pub(super) const RUN_ENTRIES: u64 = 1 << 16;
/// Groups of survivors by the time that they have left, each four times as long as the one before; the first is an hour.
const GROUPS: u8 = 7;
const FIRST_GROUP_NS: u64 = 3_600_000_000_000;

/// What a run of retention would do, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionReport {
    /// Points that go: seqs of the full range and kept points that are there now and will not be.
    pub drop_points: u64,
    /// Points that stay.
    pub keep_points: u64,
    /// Bookmarks that go, ascending by name.
    pub expiring_bookmarks: Vec<String>,
    /// Bytes that are freed, beyond what is written for it: by a preview as far as the index tells, by a run as the storage says, the reserve
    /// included.
    pub bytes_freed: u64,
    /// From here on every state stays.
    pub horizon: SeqTime,
}

impl Store {
    /// What the recorded policy keeps and drops at `now`. Changes nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for a policy of a newer version; `Damaged`, `Io`.
    pub fn plan_retention(&self, now: TimeNs) -> Result<Plan> {
        self.plan_with(&self.policy()?, now, TimeNs::ZERO)
    }

    /// As [`Store::plan_retention`], for another policy than the recorded one.
    ///
    /// # Errors
    /// As [`Store::plan_retention`]; `InvalidArgument` for a policy that is not valid.
    pub fn plan_retention_for(&self, policy: &Policy, now: TimeNs) -> Result<Plan> {
        self.plan_with(policy, now, TimeNs::ZERO)
    }

    fn plan_with(&self, policy: &Policy, now: TimeNs, horizon: TimeNs) -> Result<Plan> {
        let _one = self.inner.background.planning.lock();
        self.plan_alone(policy, now, horizon)
    }

    /// Plans while nobody else changes the outline.
    fn plan_alone(&self, policy: &Policy, now: TimeNs, horizon: TimeNs) -> Result<Plan> {
        self.inner.group.settle_for_reading()?;
        let outline = self.inner.group.outline();
        let history = StoreHistory::new(self, policy, &outline)?;
        plan(&history, policy, now, &self.pins()?, horizon)
    }

    fn pins(&self) -> Result<Vec<Pin>> {
        if self.inner.group.shared.sabotage.on(Switch::IgnorePins) {
            return Ok(Vec::new());
        }
        let newest = self.newest().seq;
        let pinned = self.inner.group.pinned().into_iter().filter(|seq| *seq <= newest);
        pinned.map(|seq| Ok(Pin { point: self.with_time(seq)?, holder: "open snapshot".into() })).collect()
    }

    /// What [`Store::run_retention`] would do at `now`, for the recorded policy or another one. Changes nothing.
    ///
    /// # Errors
    /// As [`Store::plan_retention`].
    pub fn preview_retention(&self, now: TimeNs, policy: Option<&Policy>) -> Result<RetentionReport> {
        let policy = policy.map_or_else(|| self.policy(), |policy| Ok(policy.clone()))?;
        let plan = self.plan_with(&policy, now, TimeNs::ZERO)?;
        let outline = self.outline_after(&plan, &policy);
        let mut report = self.report(&plan, &outline);
        report.bytes_freed =
            self.inner.group.reclaimable(&self.thin_goal(&outline, &policy, now, Effort::Run))?;
        Ok(report)
    }

    /// Brings the timeline to what the recorded policy says at `now`, and frees the space. What is dropped is refused from the moment at which
    /// the plan is durable, which comes first; snapshots that are open keep their points.
    ///
    /// # Errors
    /// `Damaged` when times of the history cannot be read or the proof of a thinning fails; `NoSpace`, `Io`, `ReadOnly`, `Poisoned`. What
    /// was not done is done by a later run.
    pub fn run_retention(&self, now: TimeNs) -> Result<RetentionReport> {
        let group = self.owner()?;
        let policy = self.policy()?;
        self.confirm_clock();
        let before = group.totals.freed_and_taken();
        let mut report = self.retain(&policy, now, TimeNs::ZERO, Effort::Run)?;
        if let Some(bound) = policy.max_bytes.filter(|_| policy.on_shortage == OnShortage::Prune) {
            let outline = self.inner.group.outline();
            self.prune_to(&policy, bound - group.margin())?;
            self.after_pruning(&mut report, (&outline, &policy, now))?;
        }
        group.keep_reserve()?;
        let after = group.totals.freed_and_taken();
        report.bytes_freed = (after.0 - before.0).saturating_sub(after.1 - before.1);
        Ok(report)
    }

    /// Plans, makes the plan durable, and thins; background work leaves the thinning to steps to come. On a full storage the reserve makes room for it.
    pub(super) fn retain(
        &self,
        policy: &Policy,
        now: TimeNs,
        horizon: TimeNs,
        effort: Effort,
    ) -> Result<RetentionReport> {
        let group = self.owner()?;
        if group.shared.sabotage.on(Switch::ThinBeforePlan) {
            let outline = self.outline_after(&self.plan_with(policy, now, horizon)?, policy);
            let goal = self.thin_goal(&outline, policy, now, Effort::Run);
            self.thin_now(goal, outline.full.from.seq, false)?;
        }
        let (report, outline) = self.put_in_force(policy, now, horizon)?;
        let goal = self.thin_goal(&outline, policy, now, effort);
        if effort == Effort::Background {
            group.set_thin_goal(Some(goal));
            return Ok(report);
        }
        self.thin_now(goal, outline.full.from.seq, effort == Effort::Run)?;
        Ok(report)
    }

    /// Plans, and makes the plan durable.
    fn put_in_force(
        &self,
        policy: &Policy,
        now: TimeNs,
        horizon: TimeNs,
    ) -> Result<(RetentionReport, Outline)> {
        let group = self.owner()?;
        let mut begun = None;
        match self.commit_plan(policy, now, horizon, &mut begun) {
            Err(Error::NoSpace) if group.give_up_reserve()? => {
                // What the first attempt took away is gone for the second.
                let (report, outline) = self.commit_plan(policy, now, horizon, &mut None)?;
                Ok((begun.unwrap_or(report), outline))
            }
            outcome => outcome,
        }
    }

    /// The same, with what is left to do for it: the goal of the thinning, for which everything before its horizon is sealed.
    pub(super) fn plan_in_force(
        &self,
        policy: &Policy,
        now: TimeNs,
        horizon: TimeNs,
        effort: Effort,
    ) -> Result<(RetentionReport, ThinGoal)> {
        let (report, outline) = self.put_in_force(policy, now, horizon)?;
        let goal = self.thin_goal(&outline, policy, now, effort);
        self.seal_for(outline.full.from.seq)?;
        Ok((report, goal))
    }

    /// What pruning has changed of the report of a run.
    pub(super) fn after_pruning(
        &self,
        report: &mut RetentionReport,
        (before, policy, now): (&Arc<Outline>, &Policy, TimeNs),
    ) -> Result<()> {
        let after = self.inner.group.outline();
        if *before != after {
            let plan = self.plan_with(policy, now.max(self.newest().time), TimeNs::ZERO)?;
            let pruned = self.report(&plan, &after);
            report.drop_points += report.keep_points - pruned.keep_points.min(report.keep_points);
            (report.keep_points, report.horizon) = (pruned.keep_points, after.full.from);
        }
        Ok(())
    }

    /// The first half of [`Store::run_retention`]: makes the plan durable, and leaves the thinning to background work.
    ///
    /// # Errors
    /// As [`Store::run_retention`].
    #[cfg(feature = "testing")]
    pub(crate) fn begin_retention(&self, now: TimeNs) -> Result<RetentionReport> {
        let group = self.owner()?;
        let policy = self.policy()?;
        let report = self.retain(&policy, now, TimeNs::ZERO, Effort::Background)?;
        let outline = group.outline();
        group.seal_all_below(outline.full.from.seq)?;
        group.set_thin_goal(Some(self.thin_goal(&outline, &policy, now, Effort::Run)));
        Ok(report)
    }

    /// Thins until there is nothing left to do for a goal.
    fn thin_now(&self, goal: ThinGoal, full_from: Seq, gives_way: bool) -> Result<()> {
        self.seal_for(full_from)?;
        self.owner()?.thin_now(goal, RUN_ENTRIES, gives_way)
    }

    /// Seals what lies before the horizon of a thinning.
    fn seal_for(&self, full_from: Seq) -> Result<()> {
        let group = self.owner()?;
        match group.seal_all_below(full_from) {
            Err(Error::NoSpace) if group.give_up_reserve()? => group.seal_all_below(full_from),
            outcome => outcome,
        }
    }

    /// Makes a plan durable: the outline first, which takes the bookmarks of dropped points with it, then the other bookmarks that go. In the
    /// other order a crash in between would leave a history without the bookmarks that chose what stays.
    fn commit_plan(
        &self,
        policy: &Policy,
        now: TimeNs,
        horizon: TimeNs,
        begun: &mut Option<RetentionReport>,
    ) -> Result<(RetentionReport, Outline)> {
        let group = self.owner()?;
        for _ in 0..RETENTION_REPLANS_MAX {
            let _one = self.inner.background.planning.lock();
            let bookmarks = self.bookmarks();
            let plan = self.plan_alone(policy, now, horizon)?;
            let outline = self.outline_after(&plan, policy);
            let report = self.report(&plan, &outline);
            // An outline that names states which a crash takes back would be of no store.
            group.flush_appended()?;
            let _gate = group.bookmarks_at_points.write();
            if self.bookmarks() != bookmarks {
                continue;
            }
            *begun = Some(report.clone());
            if !group.set_outline(outline.clone())? {
                continue;
            }
            let mut names = report.expiring_bookmarks.clone();
            if group.shared.sabotage.on(Switch::ExpireLocked) {
                let expired = |b: &&Bookmark| b.locked && b.expires.is_some_and(|expires| expires <= now);
                names.extend(bookmarks.iter().filter(expired).map(|bookmark| bookmark.name.clone()));
            }
            for names in names.chunks(RECORDS_AT_ONCE) {
                let records = names.iter().cloned().map(MetaRecord::BookmarkRemoved).collect();
                group.append_meta(|_, _| Ok(records), None)?;
            }
            return Ok((report, outline));
        }
        Err(Error::InvalidArgument(
            "bookmarks and snapshots change faster than a plan can be made; try again".into(),
        ))
    }

    /// The outline that a plan leaves. A plan for an earlier time than the one before undoes no decision.
    fn outline_after(&self, plan: &Plan, policy: &Policy) -> Outline {
        let mut outline = Outline::after(plan, policy, policy_digest(policy));
        let before = self.inner.group.outline().planned;
        if let (Some((at, of)), Some(planned)) = (before, &mut outline.planned)
            && of == planned.1
        {
            planned.0 = planned.0.max(at);
        }
        outline
    }

    fn report(&self, plan: &Plan, outline: &Outline) -> RetentionReport {
        let now = self.inner.group.outline();
        let newest = self.newest().seq;
        let oldest = if now.is_whole() { self.oldest_seq() } else { now.full.from.seq };
        let count = |from: Seq| newest.get().saturating_sub(from.get()) + 1;
        let points = count(oldest) + crate::units::len_u64(now.kept().count());
        let keep_points = count(outline.full.from.seq) + crate::units::len_u64(outline.kept().count());
        RetentionReport {
            drop_points: points.saturating_sub(keep_points),
            keep_points,
            expiring_bookmarks: plan.dropped_bookmarks.iter().map(|dropped| dropped.name.clone()).collect(),
            bytes_freed: 0,
            horizon: plan.full.from,
        }
    }

    /// What thinning works towards for an outline.
    fn thin_goal(&self, outline: &Outline, policy: &Policy, now: TimeNs, effort: Effort) -> ThinGoal {
        let mut points: Vec<(Seq, TimeNs)> =
            outline.kept().map(|kept| (kept.point.seq, kept.point.time)).collect();
        if !self.inner.group.shared.sabotage.on(Switch::IgnorePins) {
            points.extend(self.inner.group.pinned().into_iter().map(|seq| (seq, TimeNs::ZERO)));
        }
        let full_from = outline.full.from;
        points.retain(|(seq, _)| *seq < full_from.seq);
        points.push((full_from.seq, full_from.time));
        points.sort_unstable();
        points.dedup_by_key(|(seq, _)| *seq);
        let classes = Classes::new(points.iter().map(|(seq, _)| seq.get()), full_from.seq.get());
        let groups = points.iter().map(|(_, time)| group_of(policy, *time, now)).collect();
        ThinGoal { classes: Arc::new(classes), groups: Arc::new(groups), effort, tight: None }
    }

    /// Bytes that the store takes up on its storage.
    pub(super) fn stored_bytes(&self) -> Result<u64> {
        let storage = &self.inner.group.shared.storage;
        let extents = storage.list().map_err(|error| Error::io("list", "the store", error))?;
        // One that was removed between the two calls takes up nothing.
        Ok(extents
            .into_iter()
            .map(|extent| storage.open(extent).and_then(|e| e.allocated()).unwrap_or(0))
            .sum())
    }
}

/// The group of the versions that die with a point of this time: by how long the policy lets it live at most.
fn group_of(policy: &Policy, time: TimeNs, now: TimeNs) -> u8 {
    let age = now.get().saturating_sub(time.get());
    let window_end = policy.windows.iter().map(|window| window.to).find(|to| *to > age);
    let Some(end) = window_end.into_iter().chain(policy.max_age).min() else { return 0 };
    let left = end.saturating_sub(age);
    let mut group = 1;
    let mut holds = FIRST_GROUP_NS;
    while left > holds && group < GROUPS {
        holds = holds.saturating_mul(4);
        group += 1;
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CreateOptions, OpenOptions,
        io::MemoryStorage,
        retention::{BookmarkFilter, Keep, Slots, Window},
    };

    /// Goal: what was decided stays so, whatever the time of a later run. Method: a run for an earlier time than the one before, and one under
    /// another policy.
    #[test]
    fn a_run_for_an_earlier_time_undoes_no_decision() {
        let create = CreateOptions { volume: "disk".into(), bytes: 1 << 20 };
        let storage = Arc::new(MemoryStorage::new());
        let store = Store::create(storage, &create, OpenOptions::default()).unwrap();
        let keep = |interval| Keep::Every(Slots { interval, per_slot: 1, prefer: vec![] });
        let policy = |interval| Policy {
            windows: vec![Window { to: 1000, keep: keep(interval), bookmarks: BookmarkFilter::All }],
            ..Policy::default()
        };
        store.set_policy(&policy(10)).unwrap();
        let volume = store.volume(None).unwrap();
        for time in 1..50 {
            volume.write_at_time(0, &[1; 512], TimeNs::new(time)).unwrap();
        }
        let planned_at = || store.inner.group.outline().planned.map(|(at, _)| at.get());
        store.run_retention(TimeNs::new(40)).unwrap();
        assert_eq!(planned_at(), Some(40));
        store.run_retention(TimeNs::new(20)).unwrap();
        assert_eq!(planned_at(), Some(40));
        store.set_policy(&policy(5)).unwrap();
        store.run_retention(TimeNs::new(20)).unwrap();
        assert_eq!(planned_at(), Some(20));
    }
}
