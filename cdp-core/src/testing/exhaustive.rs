//! All short histories over a small alphabet, each with a crash in every changing call and with every subset of what no sync
//! covers, as far as these are few.
//!
//! A crash before the last letter is the crash of a shorter history, so only the calls of the last letter are stopped. What
//! the storage does in them does not depend on chance; so the n-th changing call of two runs is the same call.

use super::{
    check::Thoroughness,
    mismatch::Mismatch,
    op::{Down, Fill, Op, Place, Recover, When},
    simulate::{Cause, guarded},
    world::{World, WorldConfig},
};
use crate::{
    capture::Coalescing,
    io::simulated::{CrashPolicy, SimulatedStorage},
    sabotage::Sabotage,
};
use std::fmt;

/// Changing calls that one letter makes at most; more would be an endless loop.
const CHANGES_MAX: u64 = 400;

/// Length of an interval of coalesced writes.
const INTERVAL_NS: i64 = 5_000_000;

/// A letter: what it is called and what it does.
pub type Letter = (&'static str, Vec<Op>);

fn write(sector: u64, sectors: u64) -> Op {
    let place = Place { volume: 0, sector, sectors };
    Op::Write { place, fill: Fill::Stamped, when: When::Clock, parts: 0 }
}

/// The letters of histories on one small volume.
pub fn small_alphabet() -> Vec<Letter> {
    let all = Place { volume: 0, sector: 0, sectors: u64::MAX / 2 };
    let zeroes = Place { volume: 0, sector: 2, sectors: 20 };
    vec![
        ("write", vec![write(3, 1)]),
        ("overwrite", vec![write(4, 27)]),
        ("zero", vec![Op::WriteZeroes(zeroes, When::Clock)]),
        ("discard", vec![Op::Discard(all, When::After(0))]),
        ("flush", vec![Op::Flush]),
        ("bookmark", vec![Op::AddBookmark { variant: 0, at: None }]),
        ("step", vec![Op::Clock(300_000_000), Op::Step(8)]),
        ("piece", vec![Op::Clock(300_000_000), Op::Step(1)]),
        ("reopen", vec![Op::Reopen]),
    ]
}

/// Letters that cost more, for shorter histories.
pub fn large_alphabet() -> Vec<Letter> {
    let import = Op::Import { sectors: 40, seed: 1, fail_after: None };
    let half_import = Op::Import { sectors: 40, seed: 2, fail_after: Some(1) };
    let bookmark = Op::AddBookmark { variant: 1, at: Some(0) };
    vec![
        ("write", vec![write(3, 1)]),
        ("large write", vec![write(5, 2500)]),
        ("flush", vec![Op::Flush]),
        ("volume", vec![Op::AddVolume(9)]),
        ("import", vec![import]),
        ("half an import", vec![half_import]),
        ("lock", vec![bookmark.clone(), Op::LockBookmark(0, true)]),
        ("delete", vec![bookmark, Op::LockBookmark(0, false), Op::DeleteBookmark(0)]),
        ("fill", (0..6).map(|index| write(index * 300, 200)).collect()),
        ("steps", vec![Op::Clock(300_000_000), Op::Step(40)]),
        ("reopen", vec![Op::Reopen]),
    ]
}

/// Letters of histories that coalesce from the beginning.
pub fn coalesced_alphabet() -> Vec<Letter> {
    let zeroes = Place { volume: 0, sector: 6, sectors: 3 };
    vec![
        ("writes", vec![write(3, 1), write(4, 27), Op::WriteZeroes(zeroes, When::Clock), write(7, 1)]),
        ("large write", vec![write(5, 2500)]),
        ("flush", vec![Op::Flush]),
        ("bookmark", vec![Op::AddBookmark { variant: 0, at: None }]),
        ("interval", vec![Op::Clock(INTERVAL_NS)]),
        ("steps", vec![Op::Clock(300_000_000), Op::Step(8)]),
        ("by barrier", vec![Op::Coalesce(Coalescing::PerBarrier)]),
        ("per write", vec![Op::Coalesce(Coalescing::PerWrite)]),
    ]
}

/// Writes are coalesced by intervals: the steps before all letters of [`coalesced_alphabet`].
pub fn coalesced_from_the_beginning() -> Vec<Op> {
    vec![write(0, 8), Op::Coalesce(Coalescing::IntervalNs(INTERVAL_NS.unsigned_abs())), write(3, 9)]
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Exhaustive {
    /// Steps before every history.
    pub before: Vec<Op>,
    /// The letters.
    pub alphabet: Vec<Letter>,
    /// Longest history.
    pub length_max: usize,
    /// Up to this length every recovery is also crashed in each of its changing calls.
    pub recovery_length_max: usize,
    /// Up to so many pending units every subset of them is tried; beyond it a few.
    pub subset_units_max: usize,
    /// Random crashes where there are more.
    pub random_crashes: u64,
    /// Size of the volume.
    pub volume_sectors: u64,
    /// Space of a segment, bytes. Little of it makes each write begin a new one.
    pub segment_bytes: u64,
    /// How much is compared after each recovery.
    pub thoroughness: Thoroughness,
    /// Deliberate defects.
    pub sabotage: Sabotage,
}

/// A history that failed.
#[derive(Debug)]
pub struct ExhaustiveFailure {
    /// Its letters.
    pub letters: Vec<&'static str>,
    /// Where it crashed.
    pub crash: String,
    /// What went wrong.
    pub cause: Cause,
}

impl fmt::Display for ExhaustiveFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}], {}: {}", self.letters.join(", "), self.crash, self.cause)
    }
}

impl std::error::Error for ExhaustiveFailure {}

/// How much was run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Histories.
    pub histories: u64,
    /// Disks that a crash left and that were recovered.
    pub disks: u64,
    /// Of these, of a crash during recovery.
    pub recovery_crashes: u64,
}

impl Exhaustive {
    /// Runs every history that begins with the letters whose index is `part` modulo `parts`, so that tests can share the work.
    ///
    /// # Errors
    /// The first failure.
    pub fn run(&self, part: usize, parts: usize) -> Result<Counts, Box<ExhaustiveFailure>> {
        let mut counts = Counts::default();
        for first in (0..self.alphabet.len()).filter(|index| index % parts == part) {
            self.run_from(&mut vec![first], &mut counts)?;
        }
        Ok(counts)
    }

    fn run_from(&self, letters: &mut Vec<usize>, counts: &mut Counts) -> Result<(), Box<ExhaustiveFailure>> {
        self.crash_everywhere(letters, counts)?;
        counts.histories += 1;
        if letters.len() < self.length_max {
            for next in 0..self.alphabet.len() {
                letters.push(next);
                self.run_from(letters, counts)?;
                letters.pop();
            }
        }
        Ok(())
    }

    fn failure(&self, letters: &[usize], crash: &str, cause: Cause) -> Box<ExhaustiveFailure> {
        let letters = letters.iter().map(|letter| self.alphabet[*letter].0).collect();
        Box::new(ExhaustiveFailure { letters, crash: crash.to_owned(), cause })
    }

    /// Crashes in every changing call of the last letter, and after it.
    fn crash_everywhere(&self, letters: &[usize], counts: &mut Counts) -> Result<(), Box<ExhaustiveFailure>> {
        for change in 1..CHANGES_MAX {
            let at = format!("crash in changing call {change} of the last letter");
            let world = guarded(|| self.world_stopped_at(letters, change));
            let world = world.map_err(|cause| self.failure(letters, &at, cause))?;
            let stopped = world.storage.is_stopped();
            let at = if stopped { at } else { "crash after the last letter".into() };
            self.recover_all(&world, letters, &at, counts)?;
            if !stopped {
                return Ok(());
            }
        }
        let endless = Mismatch::new("changing calls of a letter", format!("below {CHANGES_MAX}"), "more");
        Err(self.failure(letters, "no crash", Cause::Mismatch(endless)))
    }

    fn world_stopped_at(&self, letters: &[usize], change: u64) -> Result<World, Mismatch> {
        let config = WorldConfig {
            volume_sectors: self.volume_sectors,
            thoroughness: self.thoroughness,
            segment_bytes: self.segment_bytes,
            sabotage: self.sabotage,
            ..WorldConfig::default()
        };
        let mut world = World::new(config)?;
        self.before.iter().try_for_each(|op| world.step(op))?;
        let (last, before) = letters.split_last().unwrap_or((&0, &[]));
        for op in before.iter().flat_map(|letter| &self.alphabet[*letter].1) {
            world.step(op)?;
        }
        world.storage.stop_at_change(world.storage.changes() + change);
        for op in &self.alphabet[*last].1 {
            world.act(op)?;
            if world.storage.is_stopped() {
                break;
            }
        }
        Ok(world)
    }

    /// Recovers from every disk that the crash can have left.
    fn recover_all(
        &self,
        world: &World,
        letters: &[usize],
        at: &str,
        counts: &mut Counts,
    ) -> Result<(), Box<ExhaustiveFailure>> {
        for (survivors, disk) in self.disks_after(&world.storage) {
            let at = format!("{at}, {survivors}");
            counts.disks += 1;
            let look = Recover { look_first: true, ..Recover::default() };
            let recovered = guarded(|| world.aftermath(disk.fork()).come_back(&look));
            recovered.map_err(|cause| self.failure(letters, &at, cause))?;
            if letters.len() <= self.recovery_length_max {
                self.crash_recovery(world, &disk, letters, &at, counts)?;
            }
        }
        Ok(())
    }

    /// Crashes in every changing call of an open.
    fn crash_recovery(
        &self,
        world: &World,
        disk: &SimulatedStorage,
        letters: &[usize],
        at: &str,
        counts: &mut Counts,
    ) -> Result<(), Box<ExhaustiveFailure>> {
        let probe = disk.fork();
        let before = probe.changes();
        let opened = guarded(|| world.aftermath(probe.clone()).come_back_quietly());
        opened.map_err(|cause| self.failure(letters, at, cause))?;
        for change in 1..=probe.changes() - before {
            for policy in [CrashPolicy::LoseUnsynced, CrashPolicy::KeepUnsynced, CrashPolicy::Random] {
                let down = Down::Crash { policy, seed: change };
                let recover = Recover { crashes: vec![(change, down)], ..Recover::default() };
                counts.recovery_crashes += 1;
                let recovered = guarded(|| world.aftermath(disk.fork()).come_back(&recover));
                let at = format!("{at}, then {policy:?} in changing call {change} of recovery");
                recovered.map_err(|cause| self.failure(letters, &at, cause))?;
            }
        }
        Ok(())
    }

    /// The disks that a crash can leave: every subset of the pending units where they are few, else a choice.
    fn disks_after(&self, storage: &SimulatedStorage) -> Vec<(String, SimulatedStorage)> {
        let units = storage.pending_units();
        if units <= self.subset_units_max {
            let subset = |mask| (format!("survivors {mask:#b} of {units} units"), storage.crash_subset(mask));
            return (0..1 << units).map(subset).collect();
        }
        let fixed = [CrashPolicy::LoseUnsynced, CrashPolicy::KeepUnsynced]
            .map(|policy| (format!("{policy:?}"), storage.crash(0, policy)));
        let random = (0..self.random_crashes)
            .map(|seed| (format!("random survivors, seed {seed}"), storage.crash(seed, CrashPolicy::Random)));
        fixed.into_iter().chain(random).collect()
    }
}
