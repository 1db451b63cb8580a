//! Steps that end the store and bring it back: close, crash, kill, recovery, crashes during it.

use super::{Coverage, Outcome, World, fault};
use crate::{
    Store,
    io::simulated::{CrashPolicy, SimulatedStorage},
    testing::{
        check::{Checker, Thoroughness, observe},
        mismatch::Mismatch,
        model::Observation,
        op::{Down, Recover},
    },
};
use std::sync::Arc;

impl World {
    /// Closes the store in good order and opens it again.
    pub(super) fn reopen(&mut self) -> Result<(), Mismatch> {
        let store = self.store()?;
        self.held.clear();
        self.store = None;
        let result = store.close();
        match self.judge("close", result)? {
            Outcome::Done(()) => self.model.acknowledge(self.model.newest().seq),
            Outcome::Cut => return Ok(()),
            Outcome::Failed => return self.reopen_after_failure(),
        }
        let certain = self.model.is_certain();
        let faults = self.coverage.faults;
        let reopened = self.open()?;
        // An open that failed may have begun a life of its own, which nobody closed.
        let was_closed = self.coverage.faults == faults;
        let Some(reopened) = reopened else { return Ok(()) };
        let (recovery, seen) = (reopened.recovery().clone(), observe(&reopened));
        self.store = Some(reopened);
        if was_closed && !recovery.clean || recovery.tail_frames > 0 || recovery.tail_bytes > 0 {
            return Err(Mismatch::new(
                "recovery after a close",
                "clean, nothing cut",
                format!("{recovery:?}"),
            ));
        }
        let newest = self.model.newest();
        self.model.recovered(&seen)?;
        self.unfinished = None;
        if certain && seen.newest.seq != newest.seq {
            let found = format!("{:?}", seen.newest);
            return Err(Mismatch::new("newest state after a close", format!("{newest:?}"), found));
        }
        self.check_extents()
    }

    /// Opens the store. A planned fault may make that fail; without it, it must succeed. `None`: the machine stopped.
    fn open(&mut self) -> Result<Option<Store>, Mismatch> {
        let first = Store::open(Arc::new(self.storage.clone()), self.options());
        match self.judge("open", first)? {
            Outcome::Done(store) => Ok(Some(store)),
            Outcome::Cut => Ok(None),
            Outcome::Failed => {
                self.clear_trouble();
                let second = Store::open(Arc::new(self.storage.clone()), self.options());
                match self.judge("open after a failed open", second)? {
                    Outcome::Done(store) => Ok(Some(store)),
                    _ => Ok(None),
                }
            }
        }
    }

    /// A store that stopped after a failure is opened again, after a power cut: after a failed sync nobody knows what is
    /// durable before one.
    pub(super) fn reopen_after_failure(&mut self) -> Result<(), Mismatch> {
        self.coverage.poisoned += 1;
        let seed = self.rng.next_u64();
        let recover = Recover { look_first: seed.is_multiple_of(2), ..Recover::default() };
        self.go_down(Down::Crash { policy: CrashPolicy::Random, seed }, &recover)
    }

    /// The machine goes down and comes back.
    pub(super) fn go_down(&mut self, down: Down, recover: &Recover) -> Result<(), Mismatch> {
        self.coverage.downs += 1;
        let after = went_down(&self.storage, down);
        self.forget_store();
        self.set_storage(after);
        self.come_back(recover)
    }

    /// The same world after a crash that left `disk`; this one stays as it is.
    pub(in crate::testing) fn aftermath(&self, disk: SimulatedStorage) -> Self {
        Self {
            config: self.config.clone(),
            rng: self.rng.clone(),
            clock: self.clock.clone(),
            now: self.now,
            storage: disk,
            store: None,
            model: self.model.clone(),
            held: Vec::new(),
            readers: Vec::new(),
            unfinished: self.unfinished.clone(),
            armed: None,
            faults_seen: 0,
            limited: false,
            hurt: false,
            poisoned: false,
            names: self.names,
            coverage: Coverage::default(),
        }
    }

    /// Recovers what a crash left, and compares it.
    pub(in crate::testing) fn come_back(&mut self, recover: &Recover) -> Result<(), Mismatch> {
        let mut expected = None;
        for (changes, down) in &recover.crashes {
            self.look_at_disk(recover.look_first, &mut expected)?;
            self.storage.stop_at_change(self.storage.changes() + changes);
            match Store::open(Arc::new(self.storage.clone()), self.options()) {
                Ok(store) => self.take_over(store, &expected)?,
                Err(_) if self.storage.is_stopped() => {}
                Err(error) => return Err(Mismatch::failed("open after a crash")(error)),
            }
            self.coverage.downs_in_recovery += 1;
            let after = went_down(&self.storage, *down);
            self.forget_store();
            self.set_storage(after);
        }
        self.look_at_disk(recover.look_first, &mut expected)?;
        if let Some((kind, after)) = recover.fault {
            self.storage.inject(fault(kind).after(after));
        }
        let store = self.open()?.ok_or_else(|| Mismatch::new("machine", "running", "stopped"))?;
        let newest = self.model.newest().seq;
        self.take_over(store, &expected)?;
        self.coverage.rewinds += u64::from(self.model.newest().seq < newest);
        self.check_recovered()?;
        self.finish_retention()
    }

    /// Only opens what a crash left.
    pub(in crate::testing) fn come_back_quietly(&mut self) -> Result<(), Mismatch> {
        self.open().map(|_| ())
    }

    /// What recovery will find is fixed as soon as nothing on the disk can be lost any more.
    fn look_at_disk(&mut self, look: bool, expected: &mut Option<Observation>) -> Result<(), Mismatch> {
        if !look {
            return Ok(());
        }
        let settled = self.storage.pending_units() == 0;
        let seen = self.look()?;
        if let Some(expected) = expected.as_ref().filter(|expected| **expected != seen) {
            return Err(Mismatch::new("a second recovery", format!("{expected:?}"), format!("{seen:?}")));
        }
        if settled {
            *expected = Some(seen);
        }
        Ok(())
    }

    /// Takes over a store that recovered. What it shows is acknowledged by that.
    fn take_over(&mut self, store: Store, expected: &Option<Observation>) -> Result<(), Mismatch> {
        let seen = observe(&store);
        if let Some(expected) = expected.as_ref().filter(|expected| **expected != seen) {
            let what = "recovery by the owner";
            return Err(Mismatch::new(what, format!("as for a reader, {expected:?}"), format!("{seen:?}")));
        }
        self.model.recovered(&seen)?;
        let recovery = store.recovery();
        if !recovery.damage.is_empty() {
            return Err(Mismatch::new("damage after a crash", "none", format!("{:?}", recovery.damage)));
        }
        self.coverage.tails_cut += u64::from(recovery.tail_frames > 0 || recovery.tail_bytes > 0);
        self.store = Some(store);
        Ok(())
    }

    /// After recovery: everything reads back, nothing is damaged, and a crash now would change nothing.
    fn check_recovered(&mut self) -> Result<(), Mismatch> {
        self.heal()?;
        if self.poisoned {
            return self.reopen_after_failure();
        }
        let store = self.store()?;
        let thoroughness = self.config.thoroughness;
        Checker::new(&store, &self.model, &mut self.rng)?.all(thoroughness)?;
        self.check_undamaged()?;
        let again = self.storage.crash(0, CrashPolicy::LoseUnsynced);
        let reader = Store::open_read_only(Arc::new(again), self.options())
            .map_err(Mismatch::failed("open_read_only after a crash right after recovery"))?;
        let (seen, now) = (observe(&reader), observe(&store));
        if seen != now {
            return Err(Mismatch::new(
                "a crash right after recovery",
                format!("{now:?}"),
                format!("{seen:?}"),
            ));
        }
        if thoroughness == Thoroughness::Everything {
            Checker::new(&reader, &self.model, &mut self.rng)?.all(Thoroughness::Sample)?;
        }
        Ok(())
    }

    /// A check finds nothing.
    pub(super) fn check_undamaged(&mut self) -> Result<(), Mismatch> {
        let report = self.store()?.check(true, &mut |_| {}).map_err(Mismatch::failed("check"))?;
        if report.damaged.is_empty() {
            return Ok(());
        }
        Err(Mismatch::new("check of an intact store", "no damage", format!("{:?}", report.damaged)))
    }

    /// Ends a history: everything is healed and compared, the power fails, and at last the store is closed and opened.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn finish(&mut self) -> Result<(), Mismatch> {
        if self.armed.take().is_some() {
            self.storage.stop_at_change(u64::MAX);
        }
        self.heal()?;
        if self.poisoned {
            self.reopen_after_failure()?;
        }
        self.check(self.config.thoroughness)?;
        self.check_undamaged()?;
        let stats = self.store()?.stats().map_err(Mismatch::failed("stats"))?;
        self.coverage.segments += stats.segments;
        self.coverage.runs += stats.runs;
        let recover = Recover { look_first: true, ..Recover::default() };
        let seed = self.rng.next_u64();
        self.go_down(Down::Crash { policy: CrashPolicy::Random, seed }, &recover)?;
        self.reopen()?;
        self.check(Thoroughness::Sample)
    }
}

fn went_down(storage: &SimulatedStorage, down: Down) -> SimulatedStorage {
    match down {
        Down::Crash { policy, seed } => storage.crash(seed, policy),
        Down::Kill => storage.kill(),
    }
}
