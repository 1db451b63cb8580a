//! Thinning: taking versions that nobody needs any more out of the index, and their bytes off the storage.
//!
//! A round goes through stages, each in steps of bounded work:
//! 1. *tally*: a scan over all runs that reach below the full range finds which versions are needed, and so how much of each segment
//!    is still alive;
//! 2. *choose*: dead segments, those whose survivors are worth moving, and the runs to be rewritten for it ([`tally`]);
//! 3. *collect* and *copy*: survivors are read, verified and written to compacted segments, those that die together side by side
//!    ([`survivors`], [`compact`]);
//! 4. *merge*: the chosen runs become one without the dead entries, the moved ones at their new place;
//! 5. *prove*: the output is read back together with the runs beside it, and what is visible at each kept point is compared with what was;
//! 6. one manifest edit puts the output in place of everything it replaces; then the inputs go, after their last reader.
//!
//! Rounds follow until there is nothing worth doing. Whatever fails leaves the inputs as they were.
//!
//! Invariant *one owner*: all entries that point into a segment that goes, and all runs with pages in its footer, are among the inputs of the
//! merge that lets it go.

mod compact;
mod survivors;
mod tally;
mod threshold;

pub(super) use tally::{RoundLimits, Segments, Tally};
pub(crate) use threshold::{DeadLimits, Effort};

use super::{Group, Manifest, SegmentLine, merge::WorkFailed};
use crate::{
    error::{Error, Result},
    event::EventKind,
    format::{
        compacted::CompactedSegment,
        manifest::{Counters, Edit, RunId},
        packed::{PackedContent, PackedEntry},
    },
    index::{Classes, Keep, Merge, MergeStep, Needed, Run, RunMeta, Scan, View, VisibleSums},
    manifest::next_extent,
    sabotage::{Sabotage, Switch},
    units::ExtentId,
};
use compact::Copying;
use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};
use survivors::{Moved, Survivors};
use tally::Choice;

/// What thinning works towards.
#[derive(Clone, Debug)]
pub(crate) struct ThinGoal {
    /// The points that stay.
    pub classes: Arc<Classes>,
    /// For each kept point, to which group of survivors the versions belong that die with it; 0 is for those that are not known to die.
    pub groups: Arc<Vec<u8>>,
    /// How much it is worth.
    pub effort: Effort,
    /// The storage is full: the first round is as small as can be, and what each frees, bytes, is room for the next.
    pub tight: Option<u64>,
}

/// A round of thinning under way.
pub(crate) struct Thinning {
    goal: ThinGoal,
    /// The extents that were made for the output so far.
    created: Arc<Mutex<Vec<ExtentId>>>,
    stage: Stage,
}

enum Stage {
    Tally(Box<Tally>),
    Collect(Box<Round>, Box<Survivors>),
    Copy(Box<Round>, Box<Copying>),
    Merge(Box<Round>, Box<Merge<'static, Filter>>),
    Prove(Box<Round>, Box<Proving>),
}

/// What a round is about.
struct Round {
    /// Runs that are rewritten.
    inputs: Vec<Arc<Run>>,
    /// Runs whose entries matter and stay as they are.
    neighbours: Vec<Arc<Run>>,
    victims: Arc<BTreeSet<u64>>,
    moved: Arc<Moved>,
    compacted: Vec<CompactedSegment>,
    created: Arc<Mutex<Vec<ExtentId>>>,
}

impl Round {
    fn new(choice: Choice, created: Arc<Mutex<Vec<ExtentId>>>) -> Self {
        Self {
            inputs: choice.inputs,
            neighbours: choice.neighbours,
            victims: Arc::new(choice.victims),
            moved: Arc::default(),
            compacted: Vec::new(),
            created,
        }
    }
}

struct Proving {
    output: RunMeta,
    /// The output, opened; `None` when it has no entries.
    run: Option<Arc<Run>>,
    scan: Option<Scan>,
    before: VisibleSums,
    after: VisibleSums,
}

/// Drops what is not needed, gives the survivors their new place, and notes what was visible.
struct Filter {
    needed: Needed,
    before: VisibleSums,
    victims: Arc<BTreeSet<u64>>,
    moved: Arc<Moved>,
    sabotage: Sabotage,
}

impl Keep for Filter {
    fn keep(&mut self, entry: &PackedEntry) -> Result<Option<PackedEntry>> {
        self.before.take(entry);
        if !self.needed.is_needed(entry) {
            return Ok(None);
        }
        if self.sabotage.on(Switch::ThinNeeded) && entry.key.seq().is_multiple_of(3) {
            return Ok(None);
        }
        if !entry.content.is_data() || !self.victims.contains(&entry.content.segment) {
            return Ok(Some(*entry));
        }
        let place = self.moved.place(entry)?;
        Ok(Some(if self.sabotage.on(Switch::MoveBeside) { beside(&place) } else { place }))
    }

    fn pass(&mut self, entry: &PackedEntry) {
        self.before.take(entry);
        self.needed.is_needed(entry);
    }
}

/// The same entry with its content one sector further on.
fn beside(entry: &PackedEntry) -> PackedEntry {
    let was = entry.content;
    let content = PackedContent::data(was.segment, was.sector() + 1, was.mask(), was.digest);
    PackedEntry { key: entry.key, content }
}

/// How far thinning is.
pub(crate) enum Thinned {
    /// There is more to do.
    More,
    /// A round was carried out.
    Replaced {
        /// Runs that were replaced, with the extents that go with each.
        replaced: Vec<(Arc<Run>, Vec<ExtentId>)>,
        /// Bytes that took their place.
        written: u64,
    },
    /// There is nothing worth doing.
    Done,
}

impl Thinning {
    /// A first round.
    pub fn new(group: &Group, goal: ThinGoal, damaged: &Damaged) -> Result<Option<Self>> {
        let tally = Tally::new(group, goal.classes.clone(), damaged)?;
        Ok(tally.map(|tally| Self { goal, created: Arc::default(), stage: Stage::Tally(Box::new(tally)) }))
    }

    /// The extents that were made for the output so far.
    pub fn created(&self) -> Arc<Mutex<Vec<ExtentId>>> {
        self.created.clone()
    }

    /// Runs that an error may be about.
    pub fn runs(&self) -> Vec<Arc<Run>> {
        match &self.stage {
            Stage::Tally(tally) => tally.runs().to_vec(),
            Stage::Collect(round, _)
            | Stage::Copy(round, _)
            | Stage::Merge(round, _)
            | Stage::Prove(round, _) => round.inputs.clone(),
        }
    }
}

/// What met damage, and is left as it is until the store is opened again.
#[derive(Default)]
pub(crate) struct Damaged {
    pub runs: BTreeSet<RunId>,
    pub segments: BTreeSet<ExtentId>,
}

impl Group {
    /// One step of up to `entries` entries of work.
    ///
    /// # Errors
    /// `Damaged`, `Io`, `NoSpace`; the round is over then and its inputs are as they were.
    pub(super) fn thin(
        &self,
        thinning: Thinning,
        entries: u64,
        damaged: &mut Damaged,
    ) -> Result<(Option<Thinning>, Thinned), WorkFailed> {
        let Thinning { goal, created, stage } = thinning;
        let go_on = |stage| {
            let (goal, created) = (goal.clone(), created.clone());
            Ok((Some(Thinning { goal, created, stage }), Thinned::More))
        };
        match stage {
            Stage::Tally(mut tally) => {
                if !tally.step(entries)? {
                    return go_on(Stage::Tally(tally));
                }
                let segments = Segments::of(self, damaged);
                let limits = self.round_limits(goal.tight);
                let dead = goal.effort.dead_limits(self.fill());
                let Some(choice) = tally.choose(&segments, dead, limits, self.shared.sabotage) else {
                    return Ok((None, Thinned::Done));
                };
                let round = Box::new(Round::new(choice, created.clone()));
                let survivors = Survivors::new(&round, &goal)?;
                go_on(Stage::Collect(round, Box::new(survivors)))
            }
            Stage::Collect(round, mut survivors) => {
                if !survivors.step(entries)? {
                    return go_on(Stage::Collect(round, survivors));
                }
                let copying = Copying::new(survivors.into_groups());
                go_on(Stage::Copy(round, Box::new(copying)))
            }
            Stage::Copy(mut round, mut copying) => {
                match copying.step(self, &round, entries.saturating_mul(64)) {
                    Ok(false) => return go_on(Stage::Copy(round, copying)),
                    Ok(true) => {}
                    Err(error) => {
                        if let Error::Damaged(damage) = &error {
                            damaged.segments.insert(damage.extent);
                        }
                        return Err(error.into());
                    }
                }
                let (moved, compacted) = copying.finish();
                (round.moved, round.compacted) = (Arc::new(moved), compacted);
                let merge = self.begin_merge(&round, &goal)?;
                go_on(Stage::Merge(round, Box::new(merge)))
            }
            Stage::Merge(round, mut merge) => match merge.step(entries)? {
                MergeStep::More { .. } => go_on(Stage::Merge(round, merge)),
                MergeStep::Finished(output) => {
                    let before = merge.into_filter().before;
                    let proving = self.begin_proof(&round, &goal, output, before)?;
                    go_on(Stage::Prove(round, Box::new(proving)))
                }
            },
            Stage::Prove(round, mut proving) => {
                if !proving.step(entries)? {
                    return go_on(Stage::Prove(round, proving));
                }
                if !proving.before.agrees(&proving.after)
                    && !self.shared.sabotage.on(Switch::SkipConservation)
                {
                    let first =
                        round.inputs.first().and_then(|run| run.meta().pieces.first().map(|p| p.extent));
                    let what = "what is visible at a kept point is not what it was before thinning; nothing was replaced";
                    let seqs = (Default::default(), crate::units::Seq::new(goal.classes.full_from()));
                    return Err(self.shared.damage(first.unwrap_or_default(), 0, 0, seqs, what).into());
                }
                let compacted = round.compacted.iter().map(|one| one.bytes).sum::<u64>();
                let written = proving.output.bytes() + compacted;
                let replaced = self.install_thinned(&round, *proving);
                let replaced = replaced.map_err(|error| WorkFailed { error, may_be_named: true })?;
                Ok((None, Thinned::Replaced { replaced, written }))
            }
        }
    }

    /// What a round may take on: within a bound, what it writes has to fit beside what it replaces.
    fn round_limits(&self, tight: Option<u64>) -> RoundLimits {
        if let Some(freed) = tight {
            return RoundLimits::tight(freed / 2);
        }
        let room = self.bound().map_or(u64::MAX, |bound| bound.saturating_sub(self.used_bytes()));
        RoundLimits::within(room / 2)
    }

    fn begin_merge(&self, round: &Round, goal: &ThinGoal) -> Result<Merge<'static, Filter>> {
        let extents = match &*self.manifest.lock() {
            Manifest::Owner(log) => log.extents(),
            Manifest::Reader(_) => return Err(Error::ReadOnly),
        };
        let (shared, created) = (self.shared.clone(), round.created.clone());
        let next_piece = Box::new(move || {
            let id = next_extent(&extents);
            let extent = shared
                .storage
                .create(id, 0)
                .map_err(|error| Error::io("create", shared.storage.describe(id), error))?;
            created.lock().push(id);
            Ok((id, extent, 0))
        });
        let filter = Filter {
            needed: Needed::new(goal.classes.clone()),
            before: VisibleSums::new(goal.classes.clone()),
            victims: round.victims.clone(),
            moved: round.moved.clone(),
            sabotage: self.shared.sabotage,
        };
        let level = self.level_for(round.inputs.iter().map(|run| run.meta().entries).sum());
        Merge::beside(round.inputs.clone(), &round.neighbours, level, next_piece, filter)
    }

    /// The level of a run of so many entries: that of a run which so many segments would have made.
    fn level_for(&self, entries: u64) -> u8 {
        let of_segment = (self.shared.tuning.segment_bytes / 4096).max(1);
        let fanout = crate::units::len_u64(self.shared.tuning.run_fanout.max(2));
        let mut level = 1;
        let mut holds = of_segment.saturating_mul(fanout);
        while entries > holds && level < u8::MAX {
            holds = holds.saturating_mul(fanout);
            level += 1;
        }
        level
    }

    fn begin_proof(
        &self,
        round: &Round,
        goal: &ThinGoal,
        output: RunMeta,
        before: VisibleSums,
    ) -> Result<Proving> {
        let storage = &self.shared.storage;
        for piece in &output.pieces {
            let handle = self.shared.handle(piece.extent)?;
            handle.sync().map_err(|error| Error::io("sync", storage.describe(piece.extent), error))?;
        }
        storage.sync_names().map_err(|error| Error::io("sync names of", "the store", error))?;
        let run = (!output.pieces.is_empty()).then(|| Arc::new(self.shared.open_run(output.clone())));
        let runs: Vec<_> = run.iter().chain(&round.neighbours).cloned().collect();
        let scan = if runs.is_empty() { None } else { Some(Scan::new(runs)?) };
        let after = VisibleSums::new(goal.classes.clone());
        Ok(Proving { output, run, scan, before, after })
    }

    /// Puts the output of a round in the place of what it replaces.
    fn install_thinned(&self, round: &Round, proving: Proving) -> Result<Vec<(Arc<Run>, Vec<ExtentId>)>> {
        let mut manifest = self.manifest.lock();
        let manifest = manifest.log()?;
        let removed: Vec<RunId> = round.inputs.iter().filter_map(|run| RunId::of(run.meta())).collect();
        let mut edits: Vec<Edit> = round.compacted.iter().copied().map(Edit::CompactedAdded).collect();
        edits.push(match &proving.run {
            Some(_) => Edit::RunsReplaced { removed, added: Box::new(proving.output.clone()) },
            None => Edit::RunsRemoved(removed),
        });
        let mut freed = Vec::new();
        for victim in round.victims.iter().map(|victim| ExtentId::new(*victim)) {
            freed.push(victim);
            if let Some(segment) = manifest.state().segments.get(&victim) {
                freed.extend(
                    segment.sealed.as_ref().map(|sealed| sealed.table_extent).filter(|t| *t != victim),
                );
                edits.push(Edit::SegmentDropped(victim));
            } else {
                edits.push(Edit::CompactedDropped(victim));
            }
        }
        let counters = manifest.state().counters;
        let written: u64 = proving.output.bytes() + round.compacted.iter().map(|one| one.bytes).sum::<u64>();
        edits.push(Edit::Counters(Counters {
            written_bytes: counters.written_bytes.saturating_add(written),
            ..counters
        }));
        if self.shared.sabotage.on(Switch::UnlinkBeforeEdit) {
            self.remove_extents(&freed);
        }
        self.append_edits(manifest, &edits)?;
        self.publish(|view| {
            let gone = |run: &Arc<Run>| round.inputs.iter().any(|input| Arc::ptr_eq(input, run));
            let runs = view.runs.iter().filter(|run| !gone(run)).cloned().chain(proving.run.clone());
            *view = View::new(view.memtables.clone(), runs.collect(), view.lost.clone());
        });
        self.remove_lines(|line: &SegmentLine| round.victims.contains(&line.extent.get()));
        let kept: BTreeSet<ExtentId> = manifest.state().extents().collect();
        freed.retain(|extent| !kept.contains(extent));
        let mut replaced: Vec<(Arc<Run>, Vec<ExtentId>)> = round
            .inputs
            .iter()
            .map(|run| {
                let extents = run.meta().pieces.iter().map(|piece| piece.extent);
                (run.clone(), extents.filter(|extent| !kept.contains(extent)).collect())
            })
            .collect();
        // Readers of an input may be on their way to a segment that goes.
        if let Some((_, extents)) = replaced.first_mut() {
            extents.extend(freed);
        }
        for (_, extents) in &mut replaced {
            extents.sort_unstable();
            extents.dedup();
        }
        self.events.push(
            self.shared.clock.now(),
            EventKind::Thinned {
                entries_dropped: round.inputs.iter().map(|run| run.meta().entries).sum::<u64>()
                    - proving.output.entries,
                segments_dropped: crate::units::len_u64(round.victims.len()),
            },
        );
        Ok(replaced)
    }
}

impl Proving {
    /// Reads on; whether all was read.
    fn step(&mut self, entries: u64) -> Result<bool> {
        let Some(scan) = &mut self.scan else { return Ok(true) };
        for _ in 0..entries {
            let Some(met) = scan.advance()? else {
                self.scan = None;
                return Ok(true);
            };
            if !met.repeats {
                self.after.take(&met.entry);
            }
        }
        Ok(false)
    }
}
