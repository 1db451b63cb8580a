//! The path of reads, writes and flushes.

use super::{
    event::MirrorEvent,
    set::{Geometry, Member, MirrorSet, no_source, trouble},
};
use crate::{
    Error, Result,
    dirty_map::{ByteRange, Pin},
    limits::WRITE_BYTES_MAX,
    sabotage::Switch,
    units::{SECTOR_BYTES, len_u64, to_len},
};
use std::io;

/// Writes between two samples of what the copies hold.
const SAMPLE_WRITES: u64 = 256;

/// What a change does to a copy.
#[derive(Clone, Copy)]
pub(super) enum Change<'a> {
    Write(&'a [u8]),
    Zero,
}

/// Copies of a set when a change begins.
#[derive(Clone, Copy)]
pub(super) struct Admission {
    /// That the policy asks for.
    pub needed: usize,
    /// That are online.
    pub have: usize,
}

impl MirrorSet {
    /// Reads from a copy that holds the range, and from another one when it fails. A range that a copy could not read is then written back to it.
    ///
    /// # Errors
    /// `Unaligned`, `OutOfRange`; `Io` when no copy could be read; `MirrorRefused` when none holds the range; `Poisoned`.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let geometry = self.geometry.read();
        self.check(&geometry, offset, len_u64(buf.len()))?;
        self.reap()?;
        let (_, failing) = {
            let members = self.members.read();
            self.read_clean(&members, offset, buf, None)?
        };
        let range = ByteRange::new(offset, len_u64(buf.len()));
        for number in failing {
            if self.sabotaged(Switch::LeaveUnreadable) {
                continue;
            }
            // The caller has its data; a copy that cannot be mended goes offline there.
            let _ = self.mend(number, range);
        }
        Ok(())
    }

    /// Writes to all copies that are online, and returns when as many hold it as the policy asks for and every other one is marked. Durable after [`MirrorSet::flush`].
    ///
    /// # Errors
    /// `Unaligned`, `OutOfRange`, `InvalidArgument` for more than [`WRITE_BYTES_MAX`]; `TooFewCopies` when the policy was not met: the write is not
    /// acknowledged, and what reached some copies is marked; `MirrorRefused` when no copy is whole; `Io` when the last whole copy failed; `Poisoned`.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        if len_u64(data.len()) > WRITE_BYTES_MAX {
            let text = format!("a write of {} bytes is too long; at most {WRITE_BYTES_MAX}", data.len());
            return Err(Error::InvalidArgument(text));
        }
        let geometry = self.geometry.read();
        self.check(&geometry, offset, len_u64(data.len()))?;
        let piece = to_len(geometry.log.write_bytes_max().min(WRITE_BYTES_MAX));
        for (at, part) in (0u64..).step_by(piece).zip(data.chunks(piece)) {
            let range = ByteRange::new(offset + at, len_u64(part.len()));
            self.change(&geometry, range, Change::Write(part))?;
        }
        Ok(())
    }

    /// Writes zeroes, of any length.
    ///
    /// # Errors
    /// As [`MirrorSet::write`].
    pub fn write_zeroes(&self, offset: u64, bytes: u64) -> Result<()> {
        let geometry = self.geometry.read();
        self.check(&geometry, offset, bytes)?;
        let piece = geometry.log.write_bytes_max();
        let mut done = 0;
        while done < bytes {
            let part = piece.min(bytes - done);
            self.change(&geometry, ByteRange::new(offset + done, part), Change::Zero)?;
            done += part;
        }
        Ok(())
    }

    /// Discards a range: it reads as zeroes, on every copy.
    ///
    /// # Errors
    /// As [`MirrorSet::write`].
    pub fn discard(&self, offset: u64, bytes: u64) -> Result<()> {
        self.write_zeroes(offset, bytes)
    }

    /// Makes every write that was acknowledged before durable on all copies that are online.
    ///
    /// # Errors
    /// `TooFewCopies`; `Io` when the last whole copy failed, after which the set stops; `Poisoned`.
    pub fn flush(&self) -> Result<()> {
        let geometry = self.geometry.read();
        self.check_alive(&geometry)?;
        let have = self.flush_with(&geometry)?;
        let needed = self.needed(self.members.read().len());
        if have < needed {
            return Err(Error::TooFewCopies { needed, have });
        }
        self.refresh_sample(&geometry)
    }

    fn check(&self, geometry: &Geometry, offset: u64, length: u64) -> Result<()> {
        if !offset.is_multiple_of(SECTOR_BYTES) || !length.is_multiple_of(SECTOR_BYTES) {
            return Err(Error::Unaligned { offset, length });
        }
        geometry.shape.check(ByteRange::new(offset, length))?;
        self.check_alive(geometry)?;
        self.set_late_marks();
        Ok(())
    }

    /// Sets what a deliberate defect has left for later.
    fn set_late_marks(&self) {
        if self.sabotaged(Switch::MarkAfterAcknowledge) {
            let marks = std::mem::take(&mut *self.late_marks.lock());
            for member in self.members.read().iter().filter(|member| !member.online) {
                marks.iter().for_each(|range| member.map.map().set(*range));
            }
        }
    }

    /// Gets the regions of a write into the activity log. Holds no other lock, so that a sync can make room.
    pub(super) fn pin(&self, geometry: &Geometry, range: ByteRange) -> Result<Pin> {
        loop {
            let pin = geometry.log.try_begin_write(range);
            match self.or_stop(pin)? {
                Some(pin) => return Ok(pin),
                // Too many regions wait for a sync, or for writes in flight.
                None => {
                    self.flush_with(geometry)?;
                    std::thread::yield_now();
                }
            }
        }
    }

    fn change(&self, geometry: &Geometry, range: ByteRange, change: Change<'_>) -> Result<()> {
        if range.bytes == 0 {
            return Ok(());
        }
        if let Some(rows) = &self.rows {
            return self.change_in_rows(geometry, rows, range, change);
        }
        let late = self.sabotaged(Switch::LogAfterData);
        let mut pin = if late { None } else { Some(self.pin(geometry, range)?) };
        let held = self.ranges.lock(range);
        let members = self.members.read();
        let Admission { needed, have } = self.admit(&members)?;
        self.forget_samples(range)?;
        let marks = self.begin_marks(&members, range)?;
        let mut failures = Vec::new();
        for member in members.iter() {
            let Some(copy) = member.taking() else { continue };
            let done = match change {
                Change::Write(data) => copy.write_at(range.offset, data),
                Change::Zero => copy.write_zeroes(range),
            };
            if let Err(error) = done {
                failures.push((member.number, error));
            }
        }
        if late {
            pin = self.or_stop(geometry.log.try_begin_write(range))?;
        }
        self.unsynced.lock().push(range, pin);
        self.recent.lock().note(range);
        // An absent copy misses the write: its bits are set here, and its region is durable in the log of its map already.
        marks.into_iter().for_each(|mark| mark.done(false));
        drop(members);
        let outcome = self.settle(range, have - failures.len(), needed, failures);
        drop(held);
        outcome
    }

    /// Whether a change may begin: somebody lacks nothing, and enough copies are there for the policy.
    pub(super) fn admit(&self, members: &[Member]) -> Result<Admission> {
        let needed = self.needed(members.len());
        let have = members.iter().filter(|member| member.online).count();
        if !members.iter().any(Member::is_whole) {
            return Err(no_source(members));
        }
        if have < needed { Err(Error::TooFewCopies { needed, have }) } else { Ok(Admission { needed, have }) }
    }

    /// For each absent copy, a write of its own map that will end by marking.
    pub(super) fn begin_marks(&self, members: &[Member], range: ByteRange) -> Result<Vec<Pin>> {
        if self.sabotaged(Switch::MarkAfterAcknowledge) {
            self.late_marks.lock().push(range);
            return Ok(Vec::new());
        }
        let absent = members.iter().filter(|member| !member.online);
        let marks = absent.map(|member| member.map.begin_write(range)).collect();
        self.or_stop(marks)
    }

    /// Ends a write that failed on some copies: they leave, durably marked, before it is acknowledged.
    pub(super) fn settle(
        &self,
        range: ByteRange,
        reached: usize,
        needed: usize,
        failures: Vec<(u32, io::Error)>,
    ) -> Result<()> {
        if failures.is_empty() {
            return Ok(());
        }
        let kept = self.demote("write", &failures, Some(range))?;
        let failed = failures.into_iter().find(|(number, _)| kept == Some(*number));
        if let Some((number, error)) = failed {
            return Err(Error::io("write", format!("copy {number}, the last one that lacks nothing"), error));
        }
        if reached < needed { Err(Error::TooFewCopies { needed, have: reached }) } else { Ok(()) }
    }

    pub(super) fn needed(&self, copies: usize) -> usize {
        self.meta.lock().current().ack.needed(copies)
    }

    /// Syncs all copies that are online, and says how many have answered well. Regions leave the activity log when all have answered.
    pub(super) fn flush_with(&self, geometry: &Geometry) -> Result<usize> {
        self.sync_all(geometry, false)
    }

    /// The same before the members change, which waits for every copy anyway: no copy is marked because it is slow.
    pub(super) fn flush_patiently(&self, geometry: &Geometry) -> Result<usize> {
        self.sync_all(geometry, true)
    }

    fn sync_all(&self, geometry: &Geometry, patiently: bool) -> Result<usize> {
        let _one = self.flushing.lock();
        self.check_alive(geometry)?;
        self.reap()?;
        self.unsynced.lock().begin_sync();
        let (failures, synced) = match &self.rows {
            Some(rows) => self.sync_in_rows(rows, patiently)?,
            None => self.sync_in_turn(),
        };
        if !failures.is_empty() {
            let kept = self.demote("sync", &failures, None)?;
            let last = failures.into_iter().find(|(number, _)| kept == Some(*number));
            if let Some((number, error)) = last {
                // No later sync makes up for it.
                let target = format!("copy {number}, the last one that lacks nothing");
                return Err(self.stop(Error::io("sync", target, error)));
            }
        }
        let pins = self.unsynced.lock().end_sync();
        pins.into_iter().for_each(|pin| pin.done(true));
        Ok(synced)
    }

    /// Syncs one copy after the other; returns those that failed, and how many did not.
    fn sync_in_turn(&self) -> (Vec<(u32, io::Error)>, usize) {
        let (mut failures, mut synced) = (Vec::new(), 0);
        let members = self.members.read();
        for member in members.iter() {
            let Some(copy) = member.taking() else { continue };
            match copy.sync() {
                Ok(()) => synced += 1,
                Err(error) => failures.push((member.number, error)),
            }
        }
        (failures, synced)
    }

    /// Takes a new sample when enough was written since the last one.
    fn refresh_sample(&self, geometry: &Geometry) -> Result<()> {
        // A slow copy holds nobody up for that.
        let busy = self.rows.as_ref().is_some_and(|rows| rows.is_busy());
        if busy || self.recent.lock().writes < SAMPLE_WRITES {
            return Ok(());
        }
        let members = self.alone()?;
        let sample = self.sample(&members, geometry.shape.bytes());
        self.update_state(|state| state.sample = sample)?;
        let mut recent = self.recent.lock();
        (recent.writes, recent.dropped) = (0, 0);
        Ok(())
    }

    /// Takes copies offline that failed, with everything marked that they may lack. Returns the one that had to stay because no other is whole.
    pub(super) fn demote(
        &self,
        operation: &str,
        failures: &[(u32, io::Error)],
        range: Option<ByteRange>,
    ) -> Result<Option<u32>> {
        let mut members = self.members.write();
        let has_failed = |number: u32| failures.iter().any(|(other, _)| *other == number);
        let kept = if members.iter().any(|member| member.is_whole() && !has_failed(member.number)) {
            None
        } else {
            members.iter().find(|member| member.is_whole()).map(|member| member.number)
        };
        let mut lost = self.unsynced.lock().ranges();
        lost.extend(range);
        let mut leaving = Vec::new();
        for member in members.iter_mut() {
            if kept == Some(member.number) {
                continue;
            }
            if !has_failed(member.number) {
                if let (Some(_), Some(range)) = (kept, range) {
                    // What the source holds in this range is not known: the others follow it.
                    member.map.map().set(range);
                    self.or_stop(member.map.checkpoint())?;
                }
                continue;
            }
            if !member.online {
                continue;
            }
            lost.iter().for_each(|range| member.map.map().set(*range));
            self.or_stop(member.map.checkpoint())?;
            let error = failures.iter().find(|(number, _)| *number == member.number);
            member.trouble = error.map(|(_, error)| trouble(operation, error));
            member.online = false;
            leaving.push(member.number);
        }
        self.rotate(&members, &leaving, &[])?;
        for member in members.iter().filter(|member| leaving.contains(&member.number)) {
            let trouble = || member.trouble.clone().unwrap_or_default();
            self.sink.tell(|| MirrorEvent::CopyFailed { number: member.number, trouble: trouble() });
        }
        if let Some(rows) = &self.rows {
            // Those that have left before are gone through again: what they did not do is marked.
            failures
                .iter()
                .filter(|(number, _)| kept != Some(*number))
                .for_each(|(number, _)| rows.forget(*number));
            kept.iter().for_each(|number| rows.revive(*number));
        }
        Ok(kept)
    }
}

/// Empties the claim of the copy that is the source by decision.
pub(super) fn clear_all(member: &Member) {
    while let Some(token) = member.map.map().begin(0, u64::MAX) {
        token.clean();
    }
}
