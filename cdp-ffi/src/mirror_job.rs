//! Long work on mirror sets, which the host steps at its own pace: repair and verification.

use crate::{
    arguments::{check_flags, sized},
    failure::{Failure, Outcome},
    guard::{guard, guard_status},
    handle::{get, kind, put},
    mirror::cdp_mirror,
    status::{CDP_END, CDP_ERR_BUSY, CDP_OK, cdp_status},
};
use cdp_core::mirror::{Difference, MirrorSet, RepairOptions, VerifyOptions};
use parking_lot::Mutex;
use std::{mem::size_of, ops::ControlFlow, sync::Arc};

/// Most differences that a verification keeps.
const DIFFERENCES_MAX: usize = cdp_core::limits::VERIFY_EXTENTS_MAX;

/// A repair under way.
pub struct cdp_mirror_repair {
    _private: [u8; 0],
}
kind!(cdp_mirror_repair, 16, "repair", Mutex<RepairJob>);

/// A verification under way.
pub struct cdp_mirror_verify {
    _private: [u8; 0],
}
kind!(cdp_mirror_verify, 17, "verification", Mutex<VerifyJob>);

/// Only the copy of options.copy.
pub const CDP_REPAIR_ONE_COPY: u32 = 1 << 0;

/// How a repair goes about it. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_mirror_repair_options {
    /// sizeof(cdp_mirror_repair_options).
    pub struct_size: u32,
    /// CDP_REPAIR_ONE_COPY.
    pub flags: u32,
    /// Number of the copy, with CDP_REPAIR_ONE_COPY; else 0.
    pub copy: u32,
    /// 0.
    pub reserved: u32,
    /// Bytes of the volume that a step looks at in a second, at most: it waits. 0: no bound.
    pub bytes_per_second_max: u64,
}
sized!(cdp_mirror_repair_options, 24);

/// What a repair has done so far.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_mirror_repair_progress {
    /// sizeof(cdp_mirror_repair_progress).
    pub struct_size: u32,
    /// Copies that lack nothing any more and did before.
    pub copies_whole: u32,
    /// Bytes that the maps named and that were compared.
    pub bytes_compared: u64,
    /// Bytes that differed and were written.
    pub bytes_written: u64,
    /// Bytes that maps of copies that are online still name; writes go on and it may grow.
    pub bytes_left: u64,
}
sized!(cdp_mirror_repair_progress, 32);

/// A repair, and what it has done.
pub struct RepairJob {
    set: Arc<MirrorSet>,
    options: RepairOptions,
    done: cdp_mirror_repair_progress,
}

impl RepairJob {
    fn step(&mut self, budget_bytes: u64) -> Outcome<cdp_status> {
        let options = RepairOptions { bytes_max: Some(budget_bytes), ..self.options };
        let step = self.set.repair(options, &mut |_| ControlFlow::Continue(()))?;
        self.done.bytes_compared += step.bytes_compared;
        self.done.bytes_written += step.bytes_written;
        self.done.bytes_left = step.bytes_left;
        self.done.copies_whole += u32::try_from(step.whole.len()).unwrap_or(u32::MAX);
        Ok(if step.bytes_left == 0 { CDP_END } else { CDP_OK })
    }
}

/// Begins to give every copy that is online what it lacks; options may be NULL. Nothing is done yet. Close it with cdp_mirror_repair_close.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_repair_start(
    mirror: *mut cdp_mirror,
    options: *const cdp_mirror_repair_options,
    repair_out: *mut *mut cdp_mirror_repair,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("repair_out", repair_out)?;
        let given = caller.options_or_default(options)?;
        check_flags(given.flags, CDP_REPAIR_ONE_COPY)?;
        crate::arguments::check_reserved(given.reserved)?;
        let one = given.flags & CDP_REPAIR_ONE_COPY != 0;
        if !one && given.copy != 0 {
            return Err(Failure::argument("a copy is given without CDP_REPAIR_ONE_COPY"));
        }
        let options = RepairOptions {
            only: one.then_some(given.copy),
            bytes_per_second: Some(given.bytes_per_second_max).filter(|rate| *rate != 0),
            bytes_max: None,
        };
        let held = get(mirror)?;
        let done = cdp_mirror_repair_progress {
            struct_size: 0,
            copies_whole: 0,
            bytes_compared: 0,
            bytes_written: 0,
            bytes_left: 0,
        };
        let job = RepairJob { set: Arc::clone(&*held), options, done };
        out.put(put(Mutex::new(job), Some(held.family()))?);
        Ok(())
    })
}

/// Repairs about budget_bytes more bytes of the volume (0: one piece), pieces of 1 MiB being whole. CDP_OK: there is more; CDP_END: nothing that is
/// online lacks anything. Reads and writes of the set go on meanwhile. progress_out may be NULL. CDP_ERR_MIRROR_REFUSED when no copy lacks
/// nothing; a step that failed may be tried again. [one thread at a time, CDP_ERR_BUSY for others; waits for the copies]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_repair_step(
    repair: *mut cdp_mirror_repair,
    budget_bytes: u64,
    progress_out: *mut cdp_mirror_repair_progress,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(repair)?;
        let out = caller.sized_out_optional(progress_out)?;
        let mut job = held.try_lock().ok_or_else(busy)?;
        let status = job.step(budget_bytes.max(1))?;
        if let Some(out) = out {
            out.put(&job.done);
        }
        Ok(status)
    })
}

fn busy() -> Failure {
    Failure::new(CDP_ERR_BUSY, "another call steps this job")
}

/// Gives up the repair and sets the variable to NULL, which it may be already. What was repaired stays so, and the next repair goes on there.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_repair_close(repair: *mut *mut cdp_mirror_repair) -> cdp_status {
    guard(|caller| caller.close(repair).map(|_| ()))
}

/// Make blocks that differ, on all other copies, equal to the copy of options.right.
pub const CDP_MIRROR_VERIFY_REPAIR: u32 = 1 << 0;

/// How a verification goes about it. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_mirror_verify_options {
    /// sizeof(cdp_mirror_verify_options).
    pub struct_size: u32,
    /// CDP_MIRROR_VERIFY_REPAIR.
    pub flags: u32,
    /// Number of the copy that is right, with CDP_MIRROR_VERIFY_REPAIR; else 0.
    pub right: u32,
    /// 0.
    pub reserved: u32,
    /// Where to begin, bytes: next_offset of one that was closed early.
    pub from_offset: u64,
}
sized!(cdp_mirror_verify_options, 24);

/// There are more differences than are listed.
pub const CDP_MIRROR_VERIFY_TRUNCATED: u32 = 1 << 0;

/// What a verification has found so far.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_mirror_verify_progress {
    /// sizeof(cdp_mirror_verify_progress).
    pub struct_size: u32,
    /// CDP_MIRROR_VERIFY_TRUNCATED.
    pub flags: u32,
    /// Where it goes on, bytes.
    pub next_offset: u64,
    /// Size of the volume, bytes.
    pub bytes_total: u64,
    /// Bytes of the volume of which at least two copies were compared.
    pub bytes_compared: u64,
    /// Bytes in which copies differ.
    pub bytes_different: u64,
    /// Bytes that were written to make copies equal.
    pub bytes_repaired: u64,
    /// Bytes that some copy could not give.
    pub bytes_unreadable: u64,
    /// Ranges of differences that are listed, at most 65536.
    pub differences: u64,
}
sized!(cdp_mirror_verify_progress, 64);

/// There is a majority.
pub const CDP_DIFFERENCE_MAJORITY: u32 = 1 << 0;

/// A range in which copies differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_difference {
    /// sizeof(cdp_difference).
    pub struct_size: u32,
    /// CDP_DIFFERENCE_MAJORITY.
    pub flags: u32,
    /// First byte.
    pub offset: u64,
    /// Length, bytes: whole blocks of 4096, but for the end of the volume.
    pub len: u64,
    /// Lowest number among more than half of at least three copies that agree, with CDP_DIFFERENCE_MAJORITY: a proposal, no proof.
    pub majority: u32,
    /// 0.
    pub reserved: u32,
}
sized!(cdp_difference, 32);

/// A verification, and what it has found.
pub struct VerifyJob {
    set: Arc<MirrorSet>,
    options: VerifyOptions,
    found: cdp_mirror_verify_progress,
    differences: Vec<Difference>,
}

impl VerifyJob {
    fn step(&mut self, budget_bytes: u64) -> Outcome<cdp_status> {
        let until = self.options.from_offset.saturating_add(budget_bytes);
        let mut enough = |progress: cdp_core::restore::Progress| match progress.done >= until {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let step = self.set.verify(self.options, &mut enough)?;
        let found = &mut self.found;
        found.bytes_compared += step.bytes_compared;
        found.bytes_different += step.bytes_different;
        found.bytes_repaired += step.bytes_repaired;
        found.bytes_unreadable += step.bytes_unreadable;
        if step.truncated {
            found.flags |= CDP_MIRROR_VERIFY_TRUNCATED;
        }
        for difference in step.differences {
            note(&mut self.differences, difference, &mut found.flags);
        }
        found.differences = self.differences.len() as u64;
        found.bytes_total = self.set.bytes();
        found.next_offset = step.next_offset;
        self.options.from_offset = step.next_offset;
        Ok(if step.next_offset >= found.bytes_total { CDP_END } else { CDP_OK })
    }
}

/// Adds a difference; one that goes on where the last one of an earlier step ended is one with it.
fn note(differences: &mut Vec<Difference>, new: Difference, flags: &mut u32) {
    let full = differences.len() >= DIFFERENCES_MAX;
    match differences.last_mut() {
        Some(last) if last.range.end() == new.range.offset && last.majority == new.majority => {
            last.range.bytes += new.range.bytes;
        }
        _ if full => *flags |= CDP_MIRROR_VERIFY_TRUNCATED,
        _ => differences.push(new),
    }
}

/// Begins to compare all copies that are online, block by block; options may be NULL. Nothing is done yet. Close it with cdp_mirror_verify_close.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_verify_start(
    mirror: *mut cdp_mirror,
    options: *const cdp_mirror_verify_options,
    verify_out: *mut *mut cdp_mirror_verify,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("verify_out", verify_out)?;
        let given = caller.options_or_default(options)?;
        check_flags(given.flags, CDP_MIRROR_VERIFY_REPAIR)?;
        crate::arguments::check_reserved(given.reserved)?;
        let repairs = given.flags & CDP_MIRROR_VERIFY_REPAIR != 0;
        if !repairs && given.right != 0 {
            return Err(Failure::argument("a copy is said to be right without CDP_MIRROR_VERIFY_REPAIR"));
        }
        let held = get(mirror)?;
        let from_offset = given.from_offset;
        let found = cdp_mirror_verify_progress {
            struct_size: 0,
            flags: 0,
            next_offset: from_offset,
            bytes_total: held.bytes(),
            bytes_compared: 0,
            bytes_different: 0,
            bytes_repaired: 0,
            bytes_unreadable: 0,
            differences: 0,
        };
        let options = VerifyOptions { from_offset, right: repairs.then_some(given.right) };
        let job = VerifyJob { set: Arc::clone(&*held), options, found, differences: Vec::new() };
        out.put(put(Mutex::new(job), Some(held.family()))?);
        Ok(())
    })
}

/// Compares at least budget_bytes more bytes of the volume (0: one piece), in pieces of 1 MiB. CDP_OK: there is more; CDP_END: everything was compared.
/// Differences are no failures. Reads and writes of the set go on meanwhile. progress_out may be NULL. CDP_ERR_NOT_FOUND and CDP_ERR_MIRROR_REFUSED
/// when the copy that is right is none or not online. [one thread at a time, CDP_ERR_BUSY for others; waits for the copies]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_verify_step(
    verify: *mut cdp_mirror_verify,
    budget_bytes: u64,
    progress_out: *mut cdp_mirror_verify_progress,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(verify)?;
        let out = caller.sized_out_optional(progress_out)?;
        let mut job = held.try_lock().ok_or_else(busy)?;
        let status = job.step(budget_bytes.max(1))?;
        if let Some(out) = out {
            out.put(&job.found);
        }
        Ok(status)
    })
}

/// The range of differences at a place, counted from 0 and ascending; CDP_END past the last that is known so far.
/// [one thread at a time, CDP_ERR_BUSY for others; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_verify_difference_at(
    verify: *const cdp_mirror_verify,
    index: usize,
    difference_out: *mut cdp_difference,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(verify)?;
        let out = caller.sized_out(difference_out)?;
        let job = held.try_lock().ok_or_else(busy)?;
        let Some(difference) = job.differences.get(index) else { return Ok(CDP_END) };
        out.put(&cdp_difference {
            struct_size: 0,
            flags: if difference.majority.is_some() { CDP_DIFFERENCE_MAJORITY } else { 0 },
            offset: difference.range.offset,
            len: difference.range.bytes,
            majority: difference.majority.unwrap_or(0),
            reserved: 0,
        });
        Ok(CDP_OK)
    })
}

/// Gives up the verification and sets the variable to NULL, which it may be already. What was repaired stays so. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_verify_close(verify: *mut *mut cdp_mirror_verify) -> cdp_status {
    guard(|caller| caller.close(verify).map(|_| ()))
}
