//! Steps of retention, readers beside it, and what the storage may hold afterwards.

use super::{Outcome, World};
use crate::{
    Store,
    event::EventKind,
    format::superblock::SUPERBLOCK_EXTENT,
    group::Manifest,
    index::Scan,
    io::Storage,
    retention::{Plan, Policy},
    store::{Budget, Stepped},
    testing::{
        check::{Checker, Thoroughness, observe},
        mismatch::Mismatch,
        remains::{Before, Remains, broken_promise},
    },
    units::{ExtentId, SECTOR_BYTES, Seq, TimeNs, len_u64},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Readers that are kept open at a time.
const READERS_MAX: usize = 2;
/// Steps after which background work that has nothing else to do has come to its end.
const STEPS_TO_TIDY: u64 = 1000;

/// A run of retention that did not come to its end.
#[derive(Clone, Debug)]
pub(super) struct Unfinished {
    now: TimeNs,
    policy: Policy,
    promised: Remains,
    newest: Seq,
}

impl World {
    pub(super) fn set_policy(&mut self, policy: Policy) -> Result<(), Mismatch> {
        let result = self.store()?.set_policy(&policy);
        match self.judge("set_policy", result)? {
            Outcome::Done(()) => {
                self.model.set_policy(policy, true);
                self.model.acknowledge(self.model.newest().seq);
            }
            Outcome::Failed if self.store()?.policy().is_ok_and(|shown| shown != policy) => {
                // It may come to light after a crash, and is not in force until then.
                let shown = self.model.policy();
                self.model.set_policy(policy, false);
                self.model.set_policy(shown, false);
            }
            Outcome::Failed | Outcome::Cut => self.model.set_policy(policy, false),
        }
        Ok(())
    }

    /// Makes a plan, holds it against what must hold of any, carries it out, and notes what is left.
    pub(super) fn retain(&mut self, now: TimeNs, whole: bool) -> Result<(), Mismatch> {
        let store = self.store()?;
        let plan = store.plan_retention(now);
        let Outcome::Done(plan) = self.judge("plan_retention", plan)? else { return Ok(()) };
        self.check_promises(&plan)?;
        let promised = Remains::promised(&plan);
        let newest = self.model.newest().seq;
        let result = if whole { store.run_retention(now) } else { store.begin_retention(now) };
        let dropped: Vec<&str> = plan.dropped_bookmarks.iter().map(|dropped| &*dropped.name).collect();
        let outcome = self.judge("run_retention", result)?;
        self.count_rounds(&store);
        let shown = Remains::of(&store.inner.group.outline());
        let Outcome::Done(report) = outcome else {
            self.coverage.retentions_cut += 1;
            dropped.iter().for_each(|name| self.model.set_bookmark_perhaps(name, None));
            let is_cut = matches!(outcome, Outcome::Cut);
            if shown == promised && !is_cut {
                self.model.thinned_in_doubt(promised.clone());
            } else {
                self.model.thinned_perhaps(promised.clone());
            }
            if self.held.is_empty() {
                let policy = self.model.policy();
                self.unfinished = Some(Unfinished { now, policy, promised, newest });
            }
            return Ok(());
        };
        if shown != promised || report.expiring_bookmarks != dropped {
            let found = format!("{shown:?}, {report:?}");
            return Err(Mismatch::new(
                "what retention left",
                format!("{promised:?}, without {dropped:?}"),
                found,
            ));
        }
        let states = |remains: &Remains| {
            newest.get().saturating_sub(remains.full.from.seq.get()) + len_u64(remains.kept.len())
        };
        self.coverage.plans += 1;
        self.coverage.points_dropped += states(self.model.remains()).saturating_sub(states(&promised));
        self.coverage.bookmarks_dropped += len_u64(dropped.len());
        dropped.iter().for_each(|name| self.model.set_bookmark(name, None));
        self.model.thinned(promised);
        self.unfinished = None;
        Ok(())
    }

    fn check_promises(&self, plan: &Plan) -> Result<(), Mismatch> {
        let times: Vec<TimeNs> = self.model.history().iter().map(|written| written.time).collect();
        let pinned: Vec<Seq> = self.held.iter().map(|(_, seq, _)| *seq).collect();
        let before = Before {
            remains: self.model.remains(),
            oldest: self.model.volumes()[0].exists_from,
            newest: self.model.newest(),
            bookmarks: &self.store()?.bookmarks(),
            pinned: &pinned,
            times: &times,
        };
        match broken_promise(plan, &self.model.policy(), &before) {
            None => Ok(()),
            Some(broken) => Err(Mismatch::new("plan of retention", broken, format!("{plan:?}"))),
        }
    }

    fn count_rounds(&mut self, store: &Store) {
        for event in store.take_events().0 {
            if let EventKind::Thinned { entries_dropped, segments_dropped } = event.kind {
                self.coverage.rounds += 1;
                self.coverage.versions_dropped += entries_dropped;
                self.coverage.segments_dropped += segments_dropped;
            }
        }
        self.coverage.compacted += len_u64(store.inner.group.manifest.lock().state().compacted.len());
    }

    pub(super) fn thin(&mut self, steps: u64, entries: u64) -> Result<(), Mismatch> {
        let store = self.store()?;
        for _ in 0..steps {
            let result = store.step(Budget { entries });
            if !matches!(self.judge("step", result)?, Outcome::Done(_)) {
                break;
            }
        }
        self.count_rounds(&store);
        Ok(())
    }

    /// After a crash the plan that was cut short is the plan still, and can be carried out.
    pub(super) fn finish_retention(&mut self) -> Result<(), Mismatch> {
        let Some(unfinished) = self.unfinished.take() else { return Ok(()) };
        if self.model.newest().seq != unfinished.newest || self.model.policy() != unfinished.policy {
            return Ok(());
        }
        let plan =
            self.store()?.plan_retention(unfinished.now).map_err(Mismatch::failed("plan_retention"))?;
        let promised = Remains::promised(&plan);
        if promised != unfinished.promised {
            let expected = format!("{:?}", unfinished.promised);
            return Err(Mismatch::new("the plan after a crash", expected, format!("{promised:?}")));
        }
        self.coverage.plans_again += 1;
        self.retain(unfinished.now, true)?;
        self.check(Thoroughness::Sample)
    }

    pub(super) fn open_reader(&mut self) -> Result<(), Mismatch> {
        if self.readers.len() >= READERS_MAX {
            return Ok(());
        }
        let reader = Store::open_read_only(Arc::new(self.storage.clone()), self.options())
            .map_err(Mismatch::failed("open_read_only"))?;
        let mut model = self.model.clone();
        model.recovered(&observe(&reader))?;
        self.readers.push((reader, model));
        Ok(())
    }

    pub(super) fn read_readers(&mut self) -> Result<(), Mismatch> {
        for (reader, model) in &self.readers {
            self.coverage.readers_behind += u64::from(model.remains() != self.model.remains());
            Checker::new(reader, model, &mut self.rng)?.all(self.config.thoroughness)?;
        }
        Ok(())
    }

    /// After a clean reopen and a step: the storage holds what the manifest names, each thing once, and every version lies in it.
    pub(super) fn check_extents(&mut self) -> Result<(), Mismatch> {
        if self.armed.is_some() || !self.readers.is_empty() {
            return Ok(());
        }
        let store = self.store()?;
        let mut idle = 0;
        for _ in 0..STEPS_TO_TIDY {
            let result = store.step(Budget::default());
            let Outcome::Done(stepped) = self.judge("step after a reopen", result)? else { return Ok(()) };
            idle += u64::from(stepped == Stepped::Idle);
            if idle == 2 {
                break;
            }
        }
        if self.storage.is_stopped() {
            return Ok(());
        }
        if idle < 2 {
            return Err(Mismatch::new("steps without anything to do", "idle", "always more"));
        }
        let listed = self.storage.list();
        let listed = listed.map_err(|error| Mismatch::new("list", "done", error.to_string()))?;
        let wrong = |what: &str, found: String| Err(Mismatch::new("the storage after a reopen", what, found));
        let group = &store.inner.group;
        let manifest = group.manifest.lock();
        let Manifest::Owner(log) = &*manifest else { return Ok(()) };
        let state = log.state();
        let named: BTreeSet<ExtentId> = state.extents().chain([SUPERBLOCK_EXTENT, log.extent()]).collect();
        if named != listed.iter().copied().collect() {
            return wrong("what the manifest names", format!("named {named:?}, there {listed:?}"));
        }
        if let Some(twice) = state.segments.keys().find(|extent| state.compacted.contains_key(extent)) {
            return wrong("no extent named twice", twice.to_string());
        }
        let mut pages = BTreeMap::new();
        for piece in state.runs.values().flat_map(|run| &run.pieces) {
            let end = piece.offset + u64::from(piece.pages) * crate::format::PAGE_BYTES;
            let twice = pages.insert((piece.extent, piece.offset), end).is_some();
            if twice || state.compacted.contains_key(&piece.extent) {
                return wrong("each piece of the index in a place of its own", format!("{piece:?}"));
            }
        }
        let apart =
            |((a, _), end): (&(ExtentId, u64), &u64), (b, from): &(ExtentId, u64)| a != b || end <= from;
        if let Some(pair) = pages.iter().zip(pages.keys().skip(1)).find(|(one, next)| !apart(*one, next)) {
            return wrong("pieces of the index beside each other", format!("{pair:?}"));
        }
        let is_in = |extent: ExtentId, sector: u64| match state.compacted.get(&extent) {
            Some(segment) => sector * SECTOR_BYTES < segment.table_at(),
            None => state.segments.contains_key(&extent),
        };
        let runs = group.view().runs.clone();
        if runs.is_empty() {
            return Ok(());
        }
        let mut scan = Scan::new(runs).map_err(Mismatch::failed("scan"))?;
        while let Some(met) = scan.advance().map_err(Mismatch::failed("scan"))? {
            let content = met.entry.content;
            let place = (ExtentId::new(content.segment), u64::from(content.sector()));
            if content.is_data() && !is_in(place.0, place.1) {
                return wrong(
                    "every version in a segment that is there",
                    format!("{:?} at {place:?}", met.entry),
                );
            }
        }
        Ok(())
    }
}
