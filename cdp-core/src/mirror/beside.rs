//! Writes and syncs of copies beside each other ([`super::rows`]).
//!
//! A write is acknowledged when as many copies have done it as the policy asks for, among them one that lacks nothing. What the others have not done waits in their rows. It
//! is not durable, as no write is before a flush: after a crash the region is compared, and the copy that is then the source may be one that had not done it.
//! So a flush leaves no copy with an empty claim behind: one that does not answer in time has everything that was not durable marked in its map, durably, before the flush
//! returns. Invariant *somebody has all*: a copy that lacks nothing is only marked while another one that lacks nothing, and is known to be of the newest generation, has done, or
//! was given, the change.

use super::{
    rows::{Given, Rows, Submission, Task},
    set::{Geometry, Member, MirrorSet, no_source},
    write::{Admission, Change},
};
use crate::{
    Error, Result,
    dirty_map::{ByteRange, Pin},
    io::AlignedBuf,
    sabotage::Switch,
};
use std::{io, sync::Arc};

type Failures = Vec<(u32, io::Error)>;

fn task_of(range: ByteRange, change: Change<'_>) -> Result<Task> {
    Ok(match change {
        Change::Zero => Task::Zero(range),
        Change::Write(data) => {
            // The caller may go on while a slow copy still needs it.
            let mut own = AlignedBuf::new(data.len())
                .map_err(|error| Error::io("reserve memory for", "a write to a mirror set", error))?;
            own[..data.len()].copy_from_slice(data);
            Task::Write(range.offset, own, data.len())
        }
    })
}

impl MirrorSet {
    /// Carries out one change that waits for a copy, where neither the caller of a write nor a thread does ([`Writers::Stepped`](super::Writers::Stepped)). False when none does.
    pub fn step_writers(&self) -> bool {
        self.rows.as_ref().is_some_and(Rows::step_any)
    }

    /// Takes copies offline that failed after the write was acknowledged.
    pub(super) fn reap(&self) -> Result<()> {
        let Some(rows) = &self.rows else { return Ok(()) };
        let failures = rows.unattended();
        if failures.is_empty() {
            return Ok(());
        }
        let kept = self.demote("write", &failures, None)?;
        let last = failures.into_iter().find(|(number, _)| kept == Some(*number));
        match last {
            // What was acknowledged is on no copy that lacks nothing.
            Some((number, error)) => {
                let target = format!("copy {number}, the last one that lacks nothing");
                Err(self.stop(Error::io("write", target, error)))
            }
            None => Ok(()),
        }
    }

    /// As `change`, for copies that are written beside each other.
    pub(super) fn change_in_rows(
        &self,
        geometry: &Geometry,
        rows: &Rows,
        range: ByteRange,
        change: Change<'_>,
    ) -> Result<()> {
        let pin = self.pin(geometry, range)?;
        self.reap()?;
        let held = self.ranges.lock(range);
        let members = self.members.read();
        let Admission { needed, .. } = self.admit(&members)?;
        let submission = Submission::new(task_of(range, change)?);
        self.forget_samples(range)?;
        let mut marks = self.begin_marks(&members, range)?;
        let (whole, mut failures) = self.give_to_all(rows, &members, &submission, range, &mut marks)?;
        let has = |done: &[u32]| done.len() >= needed && done.iter().any(|number| whole.contains(number));
        rows.wait(&submission, |outcome| has(&outcome.done));
        let outcome = submission.outcome();
        failures.extend(outcome.failures());
        self.unsynced.lock().push(range, Some(pin));
        self.recent.lock().note(range);
        marks.into_iter().for_each(|mark| mark.done(false));
        drop(members);
        let settled = self.settle(range, outcome.done.len(), needed, failures);
        submission.leave();
        drop(held);
        if !has(&outcome.done) && settled.is_ok() {
            // Copies have left meanwhile.
            return Err(Error::TooFewCopies { needed, have: outcome.done.len() });
        }
        settled
    }

    /// Whether others may be marked because of this copy: it lacks nothing, and the state says that it is of the newest generation. One that has just become whole need not
    /// be, and a crash would leave nobody to be the source.
    fn is_sound(&self, member: &Member) -> bool {
        let state = self.meta.lock();
        let numbers = |number: Option<u32>| {
            let online = state.current().copies.iter().filter(|copy| copy.online);
            let own = online.filter(|copy| number.is_none_or(|number| number == copy.number));
            own.map(|copy| copy.generations.current().number).max()
        };
        member.is_whole() && numbers(Some(member.number)) == numbers(None)
    }

    /// Gives a change to every copy that is online, and begins a mark for each that has no room. Returns those that lack nothing and were given it, and those that failed.
    fn give_to_all(
        &self,
        rows: &Rows,
        members: &[Member],
        submission: &Arc<Submission>,
        range: ByteRange,
        marks: &mut Vec<Pin>,
    ) -> Result<(Vec<u32>, Failures)> {
        let _one = rows.marking.lock();
        let (mut whole, mut failures, mut full) = (Vec::new(), Vec::new(), Vec::new());
        let mut order: Vec<&Member> = members.iter().filter(|member| member.online).collect();
        order.sort_by_key(|member| !self.is_sound(member));
        for member in order {
            let Some(copy) = member.taking() else { continue };
            match rows.give(member.number, copy, submission, true) {
                Given::Taken if self.is_sound(member) => whole.push(member.number),
                Given::Taken => {}
                Given::Full => full.push(member),
                Given::Failed(error) => failures.push((member.number, error)),
            }
        }
        if whole.is_empty()
            && let Some(at) = full.iter().position(|member| self.is_sound(member))
        {
            let member = full.remove(at);
            rows.wait_for_room(member.number);
            let copy = member.taking().ok_or_else(|| no_source(members))?;
            match rows.give(member.number, copy, submission, false) {
                Given::Failed(error) => failures.push((member.number, error)),
                _ => whole.push(member.number),
            }
        }
        for member in full {
            // Its map says what it misses, as if it were away.
            marks.push(self.or_stop(member.map.begin_write(range))?);
        }
        Ok((whole, failures))
    }

    /// Syncs the copies behind everything that waits for them; `patiently`: waits for all of them. Returns those that failed, and how many have done it; of all others everything that is not durable is marked, durably.
    pub(super) fn sync_in_rows(&self, rows: &Rows, patiently: bool) -> Result<(Failures, usize)> {
        let members = self.members.read();
        let needed = self.needed(members.len());
        let submission = Submission::new(Task::Sync);
        let mut failures = Vec::new();
        let whole: Vec<u32> =
            members.iter().filter(|member| self.is_sound(member)).map(|member| member.number).collect();
        for member in members.iter() {
            let Some(copy) = member.taking() else { continue };
            // One that has not done the last one yet is not waited for again.
            if !patiently && rows.is_behind(member.number) && !member.is_whole() {
                continue;
            }
            if let Given::Failed(error) = rows.give(member.number, copy, &submission, false) {
                failures.push((member.number, error));
            }
        }
        rows.wait(&submission, |outcome| {
            !patiently
                && outcome.done.len() >= needed
                && outcome.done.iter().any(|number| whole.contains(number))
        });
        rows.wait_patiently(&submission);
        let outcome = {
            let _one = rows.marking.lock();
            let still = |done: &[u32]| {
                members.iter().any(|member| done.contains(&member.number) && self.is_sound(member))
            };
            // Another one may have been marked meanwhile because there was this one.
            rows.wait(&submission, |outcome| still(&outcome.done));
            let outcome = submission.outcome();
            let failed: Vec<u32> = failures
                .iter()
                .map(|(number, _)| *number)
                .chain(outcome.failures().iter().map(|failed| failed.0))
                .collect();
            let lost = self.unsynced.lock().ranges();
            for member in members.iter().filter(|member| member.online) {
                if outcome.done.contains(&member.number) || failed.contains(&member.number) {
                    continue;
                }
                // One that lacks something anyway may always be marked.
                let may = still(&outcome.done) || !member.is_whole();
                if may && !self.sabotaged(Switch::FlushWithoutMarks) {
                    lost.iter().for_each(|range| member.map.map().set(*range));
                    self.or_stop(member.map.checkpoint())?;
                }
            }
            outcome
        };
        submission.leave();
        failures.extend(outcome.failures());
        Ok((failures, outcome.done.len()))
    }
}
