//! Carrying out the steps.

use super::{
    BLOCK_SECTORS, COPY_EXTENT, MirrorWorld,
    op::{Down, MirrorOp},
};
use crate::{
    Error,
    io::{
        Storage,
        simulated::{Call, CrashPolicy, Fault},
    },
    mirror::{ExtentCopy, MirrorCopy, RepairOptions, Standing, VerifyOptions},
    testing::{mismatch::Mismatch, stamp::Stamp},
    units::{BLOCK_BYTES, SECTOR_BYTES, len_u64, to_len},
};
use std::ops::{ControlFlow, Range};

/// Most copies of a world.
const COPIES_MAX: usize = 4;

fn go_on<T>(_: T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

impl MirrorWorld {
    pub(super) fn act(&mut self, op: &MirrorOp) -> Result<(), Mismatch> {
        match *op {
            MirrorOp::Write(place, length) => {
                let (sectors, stamp) = (self.sectors(place, length), self.model.next_stamp());
                self.write(sectors, stamp)
            }
            MirrorOp::Zero(place, length) => self.write(self.sectors(place, length), Stamp::ZERO),
            MirrorOp::Flush => {
                let flushed = self.set().flush();
                if self.outcome("flush", flushed)?.is_some() {
                    self.model.flushed();
                }
                self.note_failed()
            }
            MirrorOp::Read(place, length) => self.read(self.sectors(place, length)),
            MirrorOp::Offline(copy) => self.offline(copy),
            MirrorOp::Online(copy) => {
                let away = self.away();
                if away.is_empty() { Ok(()) } else { self.bring_online(away[to_len(copy) % away.len()]) }
            }
            MirrorOp::Repair(bytes) => {
                let options = RepairOptions { bytes_max: Some(bytes), ..RepairOptions::default() };
                self.repair(options).map(|_| ())
            }
            MirrorOp::RepairAll => self.repair_all(),
            MirrorOp::Verify => self.verify(),
            MirrorOp::Resize(blocks) => self.resize(blocks),
            MirrorOp::Reopen => self.reopen(),
            MirrorOp::Arm(calls, down) => {
                self.machine.stop_after(calls);
                self.armed = down;
                Ok(())
            }
            MirrorOp::Crash(down) => self.go_down(down),
            MirrorOp::CopyFails(copy, kind, forever) => self.copy_fails(copy, kind, forever),
            MirrorOp::MetaFails(sync) => {
                self.meta.inject(Fault::io_error(if sync { Call::Sync } else { Call::Write }));
                self.faulty = true;
                Ok(())
            }
            MirrorOp::PowerCycle(copy) => {
                let away = self.away();
                if let Some(at) = away.get(to_len(copy) % away.len().max(1)) {
                    let seed = self.rng.next_u64();
                    self.disks[*at].disk = self.disks[*at].disk.crash(seed, CrashPolicy::Random);
                    self.disks[*at].replaced = true;
                }
                Ok(())
            }
            MirrorOp::Snapshot(copy) => {
                let at = to_len(copy) % self.disks.len();
                self.disks[at].snapshot = Some(self.disks[at].disk.fork());
                Ok(())
            }
            MirrorOp::SetBack(copy) => self.set_back(to_len(copy) % self.disks.len()),
            MirrorOp::SplitBrain(copy) => self.split_brain(copy),
            MirrorOp::Clone(copy) => self.clone_source(copy),
            MirrorOp::Harm(seed) => {
                self.harm = Some(seed);
                self.go_down(if seed % 2 == 0 { Down::Kill } else { Down::Power })
            }
            MirrorOp::Rot(seed) => self.rot(seed),
            MirrorOp::Unreadable(seed) => self.unreadable(seed),
            MirrorOp::Add => self.add(),
            MirrorOp::Remove(copy) => self.remove(copy),
        }
    }

    /// Lets every copy do what waits for it.
    fn drain_writers(&self) {
        while self.set().step_writers() {}
    }

    fn sectors(&self, place: u64, length: u64) -> Range<usize> {
        let start = to_len(place % len_u64(self.model.sectors()));
        start..(start + to_len(length)).min(self.model.sectors())
    }

    /// Copies that are there and take no writes.
    fn away(&self) -> Vec<usize> {
        self.standing_so(|standing| {
            matches!(standing, Standing::Offline | Standing::Refused | Standing::Missing)
        })
    }

    fn write(&mut self, sectors: Range<usize>, stamp: Stamp) -> Result<(), Mismatch> {
        let offset = len_u64(sectors.start) * SECTOR_BYTES;
        self.model.submitted(sectors.clone(), stamp);
        let written = if stamp == Stamp::ZERO {
            self.set().write_zeroes(offset, len_u64(sectors.len()) * SECTOR_BYTES)
        } else {
            let data = self.model.content(sectors.clone(), stamp);
            self.set().write(offset, &data)
        };
        if self.outcome("write", written)?.is_some() {
            self.coverage.acknowledged += 1;
            self.model.acknowledged(sectors, stamp);
            let away: Vec<u32> = self.away().into_iter().map(|at| self.disks[at].number).collect();
            self.missed.extend(away);
        } else {
            self.coverage.unacknowledged += 1;
            if !self.machine.is_stopped() && !self.poisoned {
                // Whatever it is, it stays so.
                self.read(sectors)?;
            }
        }
        self.note_failed()
    }

    fn read(&mut self, sectors: Range<usize>) -> Result<(), Mismatch> {
        let mut data = vec![0; sectors.len() * 512];
        let read = self.set().read(len_u64(sectors.start) * SECTOR_BYTES, &mut data);
        if self.outcome("read", read)?.is_some() {
            self.model.take("a read", sectors.start, &data)?;
        }
        Ok(())
    }

    /// Counts copies that left by themselves.
    fn note_failed(&mut self) -> Result<(), Mismatch> {
        if self.faulty {
            let status = self.set().status();
            let failed = status.copies.iter().filter(|copy| copy.trouble.is_some()).count();
            self.coverage.failed += len_u64(failed);
        }
        Ok(())
    }

    fn offline(&mut self, copy: u64) -> Result<(), Mismatch> {
        let there = self.standing_so(Standing::takes_writes);
        let Some(at) = there.get(to_len(copy) % there.len().max(1)) else { return Ok(()) };
        let number = self.disks[*at].number;
        let left = self.set().offline(number);
        if self.outcome("offline", left)?.is_some() {
            self.coverage.offline += 1;
        }
        Ok(())
    }

    pub(super) fn bring_online(&mut self, at: usize) -> Result<(), Mismatch> {
        if self.standing(at).is_none_or(Standing::takes_writes) || self.machine.is_stopped() {
            return Ok(());
        }
        self.disks[at].disk.clear_faults();
        let Ok(copy) = self.copy_at(at) else { return Ok(()) };
        let number = self.disks[at].number;
        let source = self.set().status().source.is_some();
        self.becoming_whole.insert(number);
        let came = self.set().online(number, Some(copy));
        if !self.machine.is_stopped() {
            self.becoming_whole.clear();
        }
        let refused = matches!(came, Err(Error::MirrorRefused(_)));
        let text = format!("{came:?}");
        if self.outcome("online", came)?.is_some() {
            self.coverage.online += 1;
            (self.disks[at].tampered, self.disks[at].replaced) = (false, false);
            return self.check_claims();
        }
        if refused && source {
            if !self.disks[at].tampered {
                return Err(Mismatch::new(format!("copy {number} that was away"), "comes back", text));
            }
            self.coverage.split_brains += 1;
            self.disks[at].replaced = false;
            // A decision brings all copies online, also those that the set would reach through what they were before.
            if !self.disks.iter().any(|own| own.replaced) {
                self.resolve()?;
            }
        }
        Ok(())
    }

    fn note_becoming_whole(&mut self) {
        let there = self.standing_so(Standing::takes_writes);
        self.becoming_whole = there.into_iter().map(|at| self.disks[at].number).collect();
    }

    fn repair(&mut self, options: RepairOptions) -> Result<Option<u64>, Mismatch> {
        self.note_becoming_whole();
        let repaired = self.set().repair(options, &mut go_on);
        if !self.machine.is_stopped() {
            self.becoming_whole.clear();
        }
        let Some(done) = self.outcome("repair", repaired)? else { return Ok(None) };
        self.coverage.repaired += len_u64(done.whole.len());
        for number in done.whole {
            self.missed.remove(&number);
        }
        Ok(Some(done.bytes_left))
    }

    pub(super) fn repair_all(&mut self) -> Result<(), Mismatch> {
        let left = self.repair(RepairOptions::default())?;
        if left.is_some_and(|left| left > 0) && !self.faulty {
            let status = format!("{:?}", self.set().status());
            return Err(Mismatch::new("what is left after a repair", "nothing", status));
        }
        self.check_claims()
    }

    fn verify(&mut self) -> Result<(), Mismatch> {
        let verified = self.set().verify(VerifyOptions::default(), &mut go_on);
        match self.outcome("verify", verified)? {
            Some(found) if found.bytes_different > 0 => {
                Err(Mismatch::new("a comparison of clean copies", "no difference", format!("{found:?}")))
            }
            _ => Ok(()),
        }
    }

    fn resize(&mut self, blocks: u64) -> Result<(), Mismatch> {
        if self.disks.iter().any(|own| own.replaced) {
            return Ok(());
        }
        self.resizing = Some(blocks);
        self.note_becoming_whole();
        let resized = self.set().resize(blocks * BLOCK_BYTES);
        let done = self.outcome("resize", resized)?;
        if self.machine.is_stopped() || self.poisoned {
            return Ok(());
        }
        self.becoming_whole.clear();
        // What a copy lacked may have lain past the new end.
        for at in self.standing_so(|standing| standing == Standing::Clean) {
            self.missed.remove(&self.disks[at].number);
        }
        if done.is_none() {
            self.resizing = None;
            return Ok(());
        }
        // An old disk has another size.
        self.disks.iter_mut().for_each(|own| own.snapshot = None);
        self.take_size()?;
        self.check_claims()
    }

    fn reopen(&mut self) -> Result<(), Mismatch> {
        let closed = self.set().close();
        if self.outcome("close", closed)?.is_some() {
            self.model.flushed();
            self.set = None;
            return self.come_up();
        }
        self.poisoned = !self.machine.is_stopped();
        Ok(())
    }

    fn copy_fails(&mut self, copy: u64, kind: u8, forever: bool) -> Result<(), Mismatch> {
        let at = to_len(copy) % self.disks.len();
        let call = [Call::Read, Call::Write, Call::Sync][usize::from(kind) % 3];
        let fault = Fault::io_error(call);
        self.disks[at].disk.inject(if forever { fault.forever() } else { fault });
        self.faulty = true;
        self.sync_faults |= call == Call::Sync;
        Ok(())
    }

    /// A copy goes back to what its disk held some time ago, where the set must notice.
    fn set_back(&mut self, at: usize) -> Result<(), Mismatch> {
        let Some(snapshot) = self.disks[at].snapshot.clone() else { return Ok(()) };
        let old = snapshot.crash(0, CrashPolicy::KeepUnsynced);
        if self.faulty || self.machine.is_stopped() {
            return Ok(());
        }
        self.machine.disarm();
        match self.standing(at) {
            Some(Standing::Offline) => {
                if self.would_notice(at, &old) {
                    self.replace(at, old);
                }
                Ok(())
            }
            Some(Standing::Clean) if self.standing_so(|standing| standing == Standing::Clean).len() > 1 => {
                let closed = self.set().close();
                if self.outcome("close", closed)?.is_none() {
                    self.poisoned = true;
                    return Ok(());
                }
                self.model.flushed();
                self.set = None;
                if self.would_notice(at, &old) {
                    self.replace(at, old);
                }
                self.come_up()
            }
            _ => Ok(()),
        }
    }

    fn would_notice(&self, at: usize, old: &crate::io::simulated::SimulatedStorage) -> bool {
        let Ok(extent) = old.open(COPY_EXTENT) else { return false };
        let bytes = extent.size().unwrap_or(0);
        let mut data = vec![0; to_len(bytes)];
        let read = ExtentCopy::new(extent).read_at(0, &mut data);
        read.is_ok() && self.must_notice(at, &data)
    }

    fn replace(&mut self, at: usize, disk: crate::io::simulated::SimulatedStorage) {
        self.coverage.set_back += 1;
        self.disks[at].disk = disk;
        self.disks[at].tampered = true;
        self.disks[at].replaced = true;
        self.touch(at);
    }

    /// Somebody else writes to a copy that is away while the set has gone on.
    fn split_brain(&mut self, copy: u64) -> Result<(), Mismatch> {
        let away = self.standing_so(|standing| standing == Standing::Offline);
        let Some(at) = away.get(to_len(copy) % away.len().max(1)).copied() else { return Ok(()) };
        if self.faulty || self.set().status().source.is_none() {
            return Ok(());
        }
        let number = self.disks[at].number;
        let record = self.record();
        let sample = record.and_then(|record| record.copies.into_iter().find(|copy| copy.number == number));
        let Some(block) = sample.and_then(|copy| copy.sample.first().map(|entry| entry.block)) else {
            return Ok(());
        };
        self.machine.disarm();
        let (first, stamp) = (to_len(block) * BLOCK_SECTORS, self.model.next_stamp());
        let data = self.model.content(first..(first + BLOCK_SECTORS).min(self.model.sectors()), stamp);
        let written = self.disks[at].disk.open(COPY_EXTENT).and_then(|extent| {
            ExtentCopy::new(extent.clone()).write_at(block * BLOCK_BYTES, &data)?;
            extent.sync()
        });
        written.map_err(|error| Mismatch::new("a foreign write", "is done", error.to_string()))?;
        self.disks[at].tampered = true;
        self.touch(at);
        let before = self.coverage.split_brains;
        self.bring_online(at)?;
        if self.coverage.split_brains == before && !self.poisoned {
            return Err(Mismatch::new("a split brain", "is reported", "the copy came back"));
        }
        Ok(())
    }

    fn clone_source(&mut self, copy: u64) -> Result<(), Mismatch> {
        let away = self.standing_so(|standing| standing == Standing::Offline);
        let clean = self.standing_so(|standing| standing == Standing::Clean);
        let (Some(at), Some(source)) = (away.get(to_len(copy) % away.len().max(1)), clean.first()) else {
            return Ok(());
        };
        let clone = self.disks[*source].disk.crash(0, CrashPolicy::KeepUnsynced);
        if !self.faulty && self.would_notice(*at, &clone) {
            self.replace(*at, clone);
        }
        Ok(())
    }

    /// One bit of a whole copy rots: a comparison finds the block, and gives it back from the copy that is right.
    fn rot(&mut self, seed: u64) -> Result<(), Mismatch> {
        self.drain_writers();
        let clean = self.standing_so(|standing| standing == Standing::Clean);
        if clean.len() < 2 || self.faulty || self.machine.is_stopped() {
            return Ok(());
        }
        self.machine.disarm();
        let at = clean[to_len(seed) % clean.len()];
        let right = clean[(to_len(seed) + 1) % clean.len()];
        let offset = (seed >> 8) % self.model.bytes();
        if !self.disks[at].disk.flip_bit(COPY_EXTENT, offset, 3).unwrap_or(false) {
            return Ok(());
        }
        let numbers = (self.disks[at].number, self.disks[right].number);
        let options = VerifyOptions { right: Some(numbers.1), ..VerifyOptions::default() };
        let found = self.set().verify(options, &mut go_on);
        let Some(found) = self.outcome("verify", found)? else { return Ok(()) };
        let named = found.differences.len() == 1
            && found.differences[0].range.offset <= offset
            && offset < found.differences[0].range.end()
            && found.bytes_different <= BLOCK_BYTES
            && found.differences[0].majority.is_none_or(|copy| copy != numbers.0);
        if !named {
            return Err(Mismatch::new(
                format!("rot of copy {} at {offset}", numbers.0),
                "is found",
                format!("{found:?}"),
            ));
        }
        self.coverage.rotten += 1;
        self.verify()?;
        self.check_claims()
    }

    /// A block of the copy that reads go to rots, and the next read of it fails: the caller gets what another copy holds, and the copy its block.
    fn unreadable(&mut self, seed: u64) -> Result<(), Mismatch> {
        self.drain_writers();
        let mut clean = self.standing_so(|standing| standing == Standing::Clean);
        if clean.len() < 2 || self.faulty || self.machine.is_stopped() {
            return Ok(());
        }
        self.machine.disarm();
        let offset = seed % self.model.bytes();
        // Copies that lack something else are read as well.
        let lacks = |at: &usize| {
            let claim = self.set().claim(self.disks[*at].number).unwrap_or_default();
            claim.iter().any(|range| range.offset <= offset && offset < range.end())
        };
        clean.extend(self.standing_so(|standing| standing == Standing::Dirty));
        clean.retain(|at| !lacks(at));
        clean.sort_by_key(|at| self.disks[*at].number);
        let (at, before) = (clean[0], self.standing(clean[0]));
        let number = self.disks[at].number;
        if !self.disks[at].disk.flip_bit(COPY_EXTENT, offset, 5).unwrap_or(false) {
            return Ok(());
        }
        self.disks[at].disk.inject(Fault::io_error(Call::Read));
        let sector = to_len(offset / SECTOR_BYTES);
        let mut data = vec![0; 512];
        let read = self.set().read(len_u64(sector) * SECTOR_BYTES, &mut data);
        read.map_err(Mismatch::failed("read of a block that another copy holds"))?;
        self.model.take("a read of a block that one copy cannot read", sector, &data)?;
        if self.disks[at].disk.faults_struck() == 0 {
            return Err(Mismatch::new(
                format!("copy {number}, the first that is clean"),
                "is read",
                "it was not",
            ));
        }
        if self.standing(at) != before {
            let status = format!("{:?}", self.set().status());
            return Err(Mismatch::new(
                format!("copy {number}, whose block was written back"),
                format!("stands as before, {before:?}"),
                status,
            ));
        }
        self.coverage.mended += 1;
        // A power cut would take the block back that was written, and show the bit again, which a real disk would not give out.
        let flushed = self.set().flush();
        if self.outcome("flush", flushed)?.is_some() {
            self.model.flushed();
        }
        // The bit that rotted is whole again, or this finds a difference that nobody claims.
        self.check_claims()
    }

    fn add(&mut self) -> Result<(), Mismatch> {
        let Some(record) = self.record() else { return Ok(()) };
        if record.copies.len() >= COPIES_MAX {
            return Ok(());
        }
        self.new_copy_disk(record.next_number)?;
        let at = self.disks.len() - 1;
        let Ok(copy) = self.new_copy(at) else {
            self.disks.pop();
            return Ok(());
        };
        let added = self.set().add(copy);
        match self.outcome("add", added)? {
            Some(_) => self.coverage.joined += 1,
            None if self.machine.is_stopped() || self.poisoned => {}
            None => drop(self.disks.pop()),
        }
        Ok(())
    }

    fn remove(&mut self, copy: u64) -> Result<(), Mismatch> {
        if self.disks.len() <= 2 {
            return Ok(());
        }
        let at = to_len(copy) % self.disks.len();
        let number = self.disks[at].number;
        let removed = self.set().remove(number);
        if self.outcome("remove", removed)?.is_some() {
            self.disks.remove(at);
            self.missed.remove(&number);
        }
        Ok(())
    }
}
