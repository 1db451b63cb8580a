//! Giving copies what they lack, while writes go on.
//!
//! Only the blocks that the map of a copy names are looked at, and only those that differ are written; but on a copy that failed before, all are: after a failed
//! sync it reads back what it has not kept. A run goes into resync by a token, is read from the source and from the copy, and written where they
//! differ, all under the lock of its range, so that no write comes in between. The token ends as clean only after a sync of the copy: a write that failed there
//! meanwhile has set the bits again, and they stay. The map is the cursor: a repair that stops, or crashes, goes on where the bits are.

use super::{
    copy::MirrorCopy,
    event::MirrorEvent,
    set::{Member, MirrorSet, member, no_copy},
};
use crate::{
    Error, Result,
    dirty_map::{ByteRange, InResync},
    io::{AlignedBuf, IO_ALIGN},
    restore::Progress,
    sabotage::Switch,
    units::{len_u64, to_len},
};
use std::{
    io,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes of a run at most: how long a write may have to wait for a range.
const RUN_BYTES: u64 = 1 << 20;
/// Runs that are made clean by one sync of the copy.
const RUNS_MAX: usize = 64;
/// Parts into which the work of a second is cut where a rate is kept.
const PARTS_A_SECOND: u64 = 4;

/// How a repair goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// Only this copy.
    pub only: Option<u32>,
    /// Bytes of the volume looked at in a second, at most.
    pub bytes_per_second: Option<u64>,
    /// Ends after about this many bytes.
    pub bytes_max: Option<u64>,
}

/// What a repair has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Bytes that the maps named and that were compared.
    pub bytes_compared: u64,
    /// Bytes that differed and were written.
    pub bytes_written: u64,
    /// Copies that lack nothing any more and did before.
    pub whole: Vec<u32>,
    /// Bytes that maps of copies that are online still name.
    pub bytes_left: u64,
}

/// Buffers of a repair.
struct Buffers {
    source: AlignedBuf,
    target: AlignedBuf,
}

/// Holds a repair to a rate.
struct Pace {
    started: Instant,
    bytes_per_second: Option<u64>,
}

impl Pace {
    fn wait(&self, done: u64) {
        if let Some(rate) = self.bytes_per_second {
            let due = Duration::from_nanos(done.saturating_mul(1_000_000_000) / rate.max(1));
            std::thread::sleep(due.saturating_sub(self.started.elapsed()));
        }
    }
}

impl MirrorSet {
    /// Gives every copy that is online what it lacks. Reads, writes and flushes go on meanwhile; one repair runs at a time.
    ///
    /// # Errors
    /// `MirrorRefused` when no copy lacks nothing; `Io` when the source cannot be read; `Poisoned`. What was repaired stays so.
    pub fn repair(
        &self,
        options: RepairOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Repaired> {
        let geometry = self.geometry.read();
        self.check_alive(&geometry)?;
        let _one = self.repairing.lock();
        let numbers: Vec<u32> = {
            let members = self.members.read();
            let lacking = members.iter().filter(|member| member.online && !member.is_whole());
            let lacking = lacking.map(|member| member.number);
            lacking.filter(|number| options.only.is_none_or(|only| only == *number)).collect()
        };
        let mut done = Repaired::default();
        // A rate is kept, and a cancellation seen, several times a second; what a crash repeats is less than that.
        let batch = options.bytes_per_second.map(|rate| (rate / PARTS_A_SECOND).max(RUN_BYTES));
        let pace = Pace { started: Instant::now(), bytes_per_second: options.bytes_per_second };
        let reserve =
            || AlignedBuf::in_huge_pages(to_len(RUN_BYTES.max(geometry.shape.granularity().bytes())));
        let no_memory = |error| Error::io("reserve memory for", "a repair", error);
        let mut buffers =
            Buffers { source: reserve().map_err(no_memory)?, target: reserve().map_err(no_memory)? };
        for number in numbers {
            loop {
                let left = options.bytes_max.map(|max| max.saturating_sub(done.bytes_compared));
                self.reap()?;
                let most = left.into_iter().chain(batch).min();
                if left == Some(0) || !self.repair_batch(number, most, &mut buffers, &mut done)? {
                    break;
                }
                pace.wait(done.bytes_compared);
                let total = done.bytes_compared + self.left(options.only);
                if progress(Progress { done: done.bytes_compared, total }).is_break() {
                    done.bytes_left = self.left(options.only);
                    return Ok(done);
                }
            }
            let mut members = self.alone()?;
            if member(&members, number).is_ok_and(Member::is_whole) {
                done.whole.push(number);
                self.adopt(&mut members, number)?;
                self.sink.tell(|| MirrorEvent::CopyWhole { number });
            }
        }
        done.bytes_left = self.left(options.only);
        Ok(done)
    }

    /// Bytes that the copies that are online lack.
    fn left(&self, only: Option<u32>) -> u64 {
        let members = self.members.read();
        let own =
            members.iter().filter(|member| member.online && only.is_none_or(|only| only == member.number));
        own.map(|member| member.map.map().weight() * member.map.map().shape().granularity().bytes()).sum()
    }

    /// Repairs up to [`RUNS_MAX`] runs of a copy, with one sync. False when nothing is left to do.
    fn repair_batch(
        &self,
        number: u32,
        bytes_max: Option<u64>,
        buffers: &mut Buffers,
        done: &mut Repaired,
    ) -> Result<bool> {
        let (mut tokens, mut from, before): (Vec<InResync>, u64, u64) = (Vec::new(), 0, done.bytes_compared);
        while tokens.len() < RUNS_MAX && bytes_max.is_none_or(|max| done.bytes_compared - before < max) {
            let Some((token, next)) = self.repair_run(number, from, buffers, done)? else { break };
            from = next;
            tokens.extend(token);
        }
        if tokens.is_empty() && from == 0 {
            return Ok(false);
        }
        let synced = {
            let members = self.members.read();
            let Some(copy) = members.iter().find(|member| member.number == number).and_then(Member::taking)
            else {
                return Ok(false);
            };
            if self.sabotaged(Switch::CleanBeforeCopyDurable) { Ok(()) } else { copy.sync() }
        };
        match synced {
            Ok(()) => {
                tokens.into_iter().for_each(InResync::clean);
                let members = self.members.read();
                if let Ok(member) = member(&members, number) {
                    self.or_stop(member.map.checkpoint())?;
                }
                Ok(true)
            }
            Err(error) => {
                drop(tokens);
                self.demote("sync", &[(number, error)], None)?;
                Ok(false)
            }
        }
    }

    /// Repairs the next run of a copy at or after a block. Gives its token, if all went well, and where to go on.
    fn repair_run(
        &self,
        number: u32,
        from: u64,
        buffers: &mut Buffers,
        done: &mut Repaired,
    ) -> Result<Option<(Option<InResync>, u64)>> {
        let (shape, next) = {
            let members = self.members.read();
            let found = member(&members, number)?;
            let map = found.map.map();
            match map.next_dirty(from).filter(|_| found.online) {
                Some(next) => (map.shape(), next),
                None => return Ok(None),
            }
        };
        let blocks = (RUN_BYTES / shape.granularity().bytes()).max(1);
        let wanted = shape.bytes_of(next..(next + blocks).min(shape.blocks()));
        let held = self.ranges.lock(wanted);
        let members = self.members.read();
        let found = member(&members, number)?;
        let Some(copy) = found.taking() else { return Ok(None) };
        // What it was given before comes first; nothing more enters while the range is held.
        if !self.sabotaged(Switch::RepairBehind) && !self.wait_for_range(number, wanted) {
            return Ok(None);
        }
        let Some(token) = found.map.map().begin(next, blocks) else { return Ok(None) };
        let range = token.range();
        if range.offset < wanted.offset || range.end() > wanted.end() {
            // Somebody else cleared what was found first.
            return Ok(Some((None, next)));
        }
        let source = &mut buffers.source[..to_len(range.bytes)];
        let (_, failing) = self.read_clean(&members, range.offset, source, Some(number))?;
        let rewrite =
            self.meta.lock().current().copies.iter().any(|copy| copy.number == number && copy.rewrite);
        let target = (!rewrite).then_some(&mut buffers.target);
        let written = make_equal(&**copy, range, source, target);
        let after = token.first_block() + token.blocks();
        drop(members);
        drop(held);
        for number in failing {
            self.mend(number, range)?;
        }
        match written {
            Ok(bytes) => {
                done.bytes_compared += range.bytes;
                done.bytes_written += bytes;
                Ok(Some((Some(token), after)))
            }
            Err(error) => {
                drop(token);
                self.demote("repair", &[(number, error)], Some(range))?;
                Ok(None)
            }
        }
    }

    /// Rewrites a range of a copy, which could not be read there or is known to be damaged, from another copy that holds it.
    ///
    /// # Errors
    /// `NotFound`, `OutOfRange`; `MirrorRefused` when no other copy holds it; `Io` when none could be read, or the copy could not be written and went offline.
    pub fn repair_range(&self, number: u32, range: ByteRange) -> Result<()> {
        let geometry = self.geometry.read();
        self.check_alive(&geometry)?;
        geometry.shape.check(range)?;
        self.mend(number, range)
    }

    /// As [`MirrorSet::repair_range`], for whole blocks.
    pub(super) fn mend(&self, number: u32, range: ByteRange) -> Result<()> {
        let align = len_u64(IO_ALIGN);
        let mut mended: Option<ByteRange> = None;
        let mut at = range.offset / align * align;
        while at < range.end() {
            let held = self.ranges.lock(ByteRange::new(at, RUN_BYTES));
            let members = self.members.read();
            let found =
                members.iter().find(|member| member.number == number).ok_or_else(|| no_copy(number))?;
            let bytes = found.map.map().shape().bytes();
            let end = (at + RUN_BYTES).min(range.end().next_multiple_of(align)).min(bytes);
            let part = ByteRange::new(at, end - at);
            at = end;
            // What the map names is not read there, and repaired in time.
            let Some(copy) = found.taking().filter(|_| found.has(part)) else { continue };
            if !self.wait_for_range(number, part) {
                continue;
            }
            let mut buf = AlignedBuf::new(to_len(part.bytes))
                .map_err(|error| Error::io("reserve memory for", "a repair", error))?;
            let buf = &mut buf[..to_len(part.bytes)];
            self.read_clean(&members, part.offset, buf, Some(number))?;
            let copy = Arc::clone(copy);
            drop(members);
            // It is lost again when the copy fails before it is synced.
            self.unsynced.lock().push(part, None);
            if let Err(error) = copy.write_at(part.offset, buf) {
                self.demote("repair", &[(number, error)], Some(part))?;
                drop(held);
                return Err(Error::MirrorRefused(format!(
                    "copy {number} could not be repaired and is offline"
                )));
            }
            let first = mended.map_or(part.offset, |before| before.offset);
            mended = Some(ByteRange::new(first, part.end() - first));
        }
        if let Some(range) = mended {
            self.sink.tell(|| MirrorEvent::CopyMended { number, range });
        }
        Ok(())
    }
}

/// Makes a range of a copy equal to `source`; returns how many bytes were written. With a buffer to read the copy into, only blocks that differ are; without
/// one all are, because what the copy reads back is not known to be durable.
pub(super) fn make_equal(
    copy: &dyn MirrorCopy,
    range: ByteRange,
    source: &[u8],
    buf: Option<&mut AlignedBuf>,
) -> io::Result<u64> {
    let target = buf.map(|buf| &mut buf[..source.len()]);
    let target = target.and_then(|target| copy.read_at(range.offset, target).is_ok().then_some(target));
    let differs = |at: usize| {
        let end = (at + IO_ALIGN).min(source.len());
        target.as_ref().is_none_or(|target| source[at..end] != target[at..end])
    };
    let (mut at, mut written) = (0, 0);
    while at < source.len() {
        let start = at;
        while at < source.len() && differs(at) {
            at += IO_ALIGN;
        }
        let part = &source[start..at.min(source.len())];
        if part.is_empty() {
            at += IO_ALIGN;
            continue;
        }
        let place = ByteRange::new(range.offset + len_u64(start), len_u64(part.len()));
        if crate::format::all_zero(part) {
            copy.write_zeroes(place)?;
        } else {
            copy.write_at(place.offset, part)?;
        }
        written += place.bytes;
    }
    Ok(written)
}
