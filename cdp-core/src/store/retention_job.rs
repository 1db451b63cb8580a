//! A run of retention in steps: the plan is made durable, then it is thinned for, then history goes until the store keeps to its bound.
//!
//! Between two steps writes and background work go on, and other runs may be carried out: nothing is held.

use super::{RetentionReport, Store, retention::RUN_ENTRIES, room::STEPS_MAX};
use crate::{
    error::Result,
    group::{Effort, ThinGoal},
    job::{Job, JobStep},
    restore::Progress,
    retention::{OnShortage, Outline, Policy},
    units::TimeNs,
};
use std::sync::Arc;

/// A thinning under way.
struct Thinning {
    goal: ThinGoal,
    mark: Option<u64>,
}

impl Thinning {
    fn new(goal: ThinGoal) -> Self {
        Self { goal, mark: None }
    }

    /// Returns whether there is more to do.
    fn step(&mut self, store: &Store) -> Result<bool> {
        store.owner()?.thin_step(&self.goal, &mut self.mark, RUN_ENTRIES)
    }
}

/// Dropping history until the store keeps to its bound.
struct Pruning {
    /// Bytes that it may take up.
    target: u64,
    /// The outline when it began.
    before: Arc<Outline>,
    now: TimeNs,
    horizon: TimeNs,
    rounds: u32,
    thinning: Option<Thinning>,
}

enum Phase {
    Planning,
    Thinning(Thinning),
    Pruning(Box<Pruning>),
    Ended,
}

/// A run of retention under way: see [`Store::run_retention`]. Dropped, it leaves the rest to a later run; what the plan drops is refused from its
/// first step on.
pub struct RetentionJob {
    store: Store,
    policy: Policy,
    now: TimeNs,
    /// Bytes freed and taken when it began.
    before: (u64, u64),
    report: Option<RetentionReport>,
    phase: Phase,
}

impl Store {
    /// As [`Store::run_retention`], in steps: the first makes the plan durable.
    ///
    /// # Errors
    /// `ReadOnly`; `InvalidArgument` for a policy of a newer version.
    pub fn retention_job(&self, now: TimeNs) -> Result<RetentionJob> {
        let group = self.owner()?;
        let policy = self.policy()?;
        let before = group.totals.freed_and_taken();
        Ok(RetentionJob { store: self.clone(), policy, now, before, report: None, phase: Phase::Planning })
    }
}

impl RetentionJob {
    /// What it has done so far; `None` before the plan is durable.
    pub fn report(&self) -> Option<RetentionReport> {
        self.report.clone().map(|report| RetentionReport { bytes_freed: self.bytes_freed(), ..report })
    }

    fn bytes_freed(&self) -> u64 {
        let after = self.store.inner.group.totals.freed_and_taken();
        (after.0 - self.before.0).saturating_sub(after.1 - self.before.1)
    }

    /// What comes behind the thinning for the plan.
    fn after_thinning(&mut self) -> Result<JobStep> {
        let group = self.store.owner()?;
        let Some(bound) = self.policy.max_bytes.filter(|_| self.policy.on_shortage == OnShortage::Prune)
        else {
            return self.finish();
        };
        self.phase = Phase::Pruning(Box::new(Pruning {
            target: bound - group.margin(),
            before: group.outline(),
            now: self.store.time_of_pruning(),
            horizon: TimeNs::ZERO,
            rounds: 0,
            thinning: None,
        }));
        Ok(JobStep::More)
    }

    fn finish(&mut self) -> Result<JobStep> {
        self.store.owner()?.keep_reserve()?;
        self.phase = Phase::Ended;
        Ok(JobStep::Done)
    }

    fn try_step(&mut self) -> Result<JobStep> {
        match &mut self.phase {
            Phase::Planning => {
                self.store.confirm_clock();
                let (store, policy) = (&self.store, &self.policy);
                let (report, goal) = store.plan_in_force(policy, self.now, TimeNs::ZERO, Effort::Run)?;
                self.report = Some(report);
                self.phase = Phase::Thinning(Thinning::new(goal));
                Ok(JobStep::More)
            }
            Phase::Thinning(thinning) => match thinning.step(&self.store)? {
                true => Ok(JobStep::More),
                false => self.after_thinning(),
            },
            Phase::Pruning(pruning) => {
                if pruning.step(&self.store, &self.policy)? {
                    return Ok(JobStep::More);
                }
                let of = (&pruning.before, &self.policy, self.now);
                if let Some(report) = &mut self.report {
                    self.store.after_pruning(report, of)?;
                }
                self.finish()
            }
            Phase::Ended => Ok(JobStep::Done),
        }
    }
}

impl Pruning {
    /// Returns whether there is more to do.
    fn step(&mut self, store: &Store, policy: &Policy) -> Result<bool> {
        if let Some(thinning) = &mut self.thinning {
            if thinning.step(store)? {
                return Ok(true);
            }
            self.thinning = None;
            let used = store.owner()?.used_bytes();
            if used <= self.target {
                return Ok(false);
            }
            let next = store.next_horizon(self.horizon, used - self.target, self.rounds)?;
            self.rounds += 1;
            let Some(next) = next.filter(|_| self.rounds < STEPS_MAX) else { return Ok(false) };
            self.horizon = next;
        }
        let (_, goal) = store.plan_in_force(policy, self.now, self.horizon, Effort::Short)?;
        self.thinning = Some(Thinning::new(goal));
        Ok(true)
    }
}

impl Job for RetentionJob {
    fn step(&mut self) -> Result<JobStep> {
        let outcome = self.try_step();
        if outcome.is_err() {
            self.phase = Phase::Ended;
        }
        outcome
    }

    /// Bytes that were freed; how many there will be is not known.
    fn progress(&self) -> Progress {
        Progress { done: self.bytes_freed(), total: 0 }
    }
}
