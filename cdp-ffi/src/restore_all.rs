//! Restore at once: a call that returns when everything is restored, on one thread or on several, which then write what they read.
//!
//! The work of several threads has no order, so that there is no place from which it could go on: it has no steps. Those are in `restore.rs`.

use crate::{
    arguments::{Caller, check_flags, check_reserved, sized},
    failure::{Failure, Outcome},
    guard::guard,
    handle::get,
    restore::{HostTarget, NewFile, Target, cdp_restore_progress, cdp_target, check_readers, host_target},
    resync::{Watch, cdp_watch},
    snapshot::cdp_snapshot,
    status::cdp_status,
};
use cdp_core::{Progress, RestoreTarget, Restored, SharedTarget, Snapshot};
use std::{
    ffi::c_char,
    io,
    mem::size_of,
    sync::atomic::{AtomicBool, Ordering},
};

/// ECANCELED of Linux.
const CANCELLED: i32 = 125;

/// How a restore at once goes. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_restore_options {
    /// sizeof(cdp_restore_options).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Threads that are started for the time of the call, at most 64. Each reads and writes, into a file and into a target with CDP_TARGET_SHARED; into another target they
    /// read ahead, and the calling thread writes. Memory: two pieces of 1 MiB each. 0: none, the calling thread does everything.
    pub threads: u32,
    /// 0.
    pub reserved: u32,
}
sized!(cdp_restore_options, 16);

fn threads_of(caller: Caller, options: *const cdp_restore_options) -> Outcome<usize> {
    let given = caller.options_or_default(options)?;
    check_flags(given.flags, 0)?;
    check_reserved(given.reserved)?;
    check_readers(given.threads)
}

/// A host's target whose functions may be called from several threads at once.
struct SharedHost(HostTarget);

// SAFETY: made only of a target with CDP_TARGET_SHARED, by which the host says so; userdata goes with it.
unsafe impl Sync for SharedHost {}

impl SharedTarget for SharedHost {
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.put(offset, data)
    }

    fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.clear(offset, length)
    }
}

impl SharedTarget for NewFile {
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.put(offset, data)
    }

    fn zero(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

/// What a call fails with that its watch has ended.
fn cancelled() -> io::Error {
    io::Error::from_raw_os_error(CANCELLED)
}

/// A target that fails once the watch has ended the call, which ends the restore at the next piece of each thread.
struct UntilEnded<T> {
    target: T,
    ended: AtomicBool,
}

impl<T> UntilEnded<T> {
    fn new(target: T) -> Self {
        Self { target, ended: AtomicBool::new(false) }
    }

    fn check(&self) -> io::Result<()> {
        match self.ended.load(Ordering::Relaxed) {
            true => Err(cancelled()),
            false => Ok(()),
        }
    }

    /// Tells the watch. What it ends when everything is done is done.
    fn note(&self, watch: &Watch, progress: Progress) {
        watch.tell(progress);
        if watch.is_ended() && progress.done < progress.total {
            self.ended.store(true, Ordering::Relaxed);
        }
    }
}

impl<T: SharedTarget> SharedTarget for UntilEnded<T> {
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.target.write(offset, data)
    }

    fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check()?;
        self.target.zero(offset, length)
    }
}

/// A host's target that only the calling thread calls, and the watch of the call.
struct Alone<'a> {
    target: HostTarget,
    watch: &'a Watch,
}

impl RestoreTarget for Alone<'_> {
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.target.put(offset, data)
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.check()?;
        self.target.clear(offset, length)
    }
}

impl Alone<'_> {
    fn check(&self) -> io::Result<()> {
        match self.watch.is_ended() {
            true => Err(cancelled()),
            false => Ok(()),
        }
    }
}

fn progress_of(snapshot: &Snapshot, restored: Restored) -> cdp_restore_progress {
    cdp_restore_progress {
        struct_size: 0,
        flags: 0,
        bytes_done: snapshot.bytes(),
        bytes_total: snapshot.bytes(),
        data_bytes: restored.data_bytes,
        zero_bytes: restored.zero_bytes,
    }
}

/// Restores with threads that write what they read.
fn restore_shared<T: SharedTarget>(
    snapshot: &Snapshot,
    threads: usize,
    target: T,
    watch: &Watch,
) -> Outcome<(Restored, T)> {
    let to = UntilEnded::new(target);
    let restored = snapshot.restore_shared(threads, &to, &mut |progress| to.note(watch, progress))?;
    // Other threads may have come to the end before they saw it: it was ended all the same.
    to.check().map_err(|error| Failure::io("restore", &error))?;
    Ok((restored, to.target))
}

fn finish(target: &mut dyn Target) -> Outcome {
    target.finish().map_err(|error| Failure::io("sync the target", &error))
}

/// Restores a snapshot into what the host supplies, and returns when everything is restored and durable: as cdp_restore_start with its steps. With options.threads and
/// CDP_TARGET_SHARED the threads write what they read, each byte once and in no order. options, watch and progress_out may be NULL. Ended early by the watch, which is called from
/// the calling thread alone, it fails with CDP_ERR_IO and the errno ECANCELED. After a failure the target is incomplete, and it cannot be said what of it is there: begin anew;
/// cdp_target.finish was not called. What the target lends is handed back by the end of the call. [any thread; waits for the storage and the target]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_snapshot_restore(
    snapshot: *const cdp_snapshot,
    target: *const cdp_target,
    options: *const cdp_restore_options,
    watch: *const cdp_watch,
    progress_out: *mut cdp_restore_progress,
) -> cdp_status {
    guard(|caller| {
        let target = host_target(caller, target)?;
        let held = get(snapshot)?;
        let out = caller.sized_out_optional(progress_out)?;
        let threads = threads_of(caller, options)?;
        let watch = Watch::of(caller, watch)?;
        let restored = if target.is_shared() {
            let (restored, mut target) = restore_shared(&held, threads, SharedHost(target), &watch)?;
            finish(&mut target.0)?;
            restored
        } else {
            let mut alone = Alone { target, watch: &watch };
            let restored = held.restore(threads, &mut alone, &mut |progress| watch.tell(progress))?;
            finish(&mut alone.target)?;
            restored
        };
        if let Some(out) = out {
            out.put(&progress_of(&held, restored));
        }
        Ok(())
    })
}

/// Restores a snapshot into a new sparse file of its size, which is complete and durable when this returns; options.threads write it beside each other. CDP_ERR_EXISTS when there is
/// something of that name. options, watch and progress_out may be NULL. Ended early by the watch it fails with CDP_ERR_IO and the errno ECANCELED. After a failure of the work the file is
/// partial and the caller's to remove. [any thread; waits for the storage and the file system]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_snapshot_restore_file(
    snapshot: *const cdp_snapshot,
    path: *const c_char,
    options: *const cdp_restore_options,
    watch: *const cdp_watch,
    progress_out: *mut cdp_restore_progress,
) -> cdp_status {
    guard(|caller| {
        let held = get(snapshot)?;
        let out = caller.sized_out_optional(progress_out)?;
        let threads = threads_of(caller, options)?;
        let watch = Watch::of(caller, watch)?;
        let file = NewFile::create(caller.text("path", path)?, held.bytes())?;
        let (restored, mut file) = restore_shared(&held, threads, file, &watch)?;
        finish(&mut file)?;
        if let Some(out) = out {
            out.put(&progress_of(&held, restored));
        }
        Ok(())
    })
}
