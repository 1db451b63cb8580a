//! Restore: a job that the host steps at its own pace, into a file or into what the host supplies.

use crate::{
    arguments::{Caller, check_flags, sized},
    callback::{Userdata, answer, without_ends},
    failure::{Failure, Outcome},
    guard::{guard, guard_status},
    handle::{get, kind, put},
    snapshot::cdp_snapshot,
    status::{CDP_END, CDP_ERR_BUSY, CDP_OK, cdp_status},
    types::cdp_free_userdata,
};
use cdp_core::{RestoreState, RestoreTarget, Snapshot};
use parking_lot::Mutex;
use std::{
    ffi::{c_char, c_void},
    fs::File,
    io,
    mem::size_of,
    os::unix::fs::FileExt,
};

/// Most threads of a restore.
const READERS_MAX: u32 = 64;

/// A restore under way.
pub struct cdp_restore {
    _private: [u8; 0],
}
kind!(cdp_restore, 11, "restore", Mutex<Job>);

/// The functions of the target may be called from several threads at once, with offsets in any order, each byte once: cdp_snapshot_restore does so with threads. Steps call them from
/// the thread that steps and in order all the same.
pub const CDP_TARGET_SHARED: u32 = 1 << 0;

/// Where a restore writes to. Functions return 0 or a negative errno, are called from the thread that steps or made the call, with offsets that ascend, unless CDP_TARGET_SHARED
/// allows more, and must not use the same restore or unwind.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_target {
    /// sizeof(cdp_target).
    pub struct_size: u32,
    /// CDP_TARGET_SHARED.
    pub flags: u32,
    /// Passed to every function.
    pub userdata: *mut c_void,
    /// Writes the data. offset, len and address are multiples of 4096, but for len at the end of a volume whose size is not. Required.
    pub write: Option<
        unsafe extern "C" fn(userdata: *mut c_void, offset: u64, buf: *const c_void, len: usize) -> i32,
    >,
    /// Makes a range read as zeroes. A target that is known to be empty may do nothing. Required.
    pub zero: Option<unsafe extern "C" fn(userdata: *mut c_void, offset: u64, len: u64) -> i32>,
    /// Makes everything durable; called once, at the end. May be NULL.
    pub finish: Option<unsafe extern "C" fn(userdata: *mut c_void) -> i32>,
    /// Called exactly once, when nothing is called any more, also when the start fails. May be NULL.
    pub free_userdata: cdp_free_userdata,
}
sized!(cdp_target, 48);

/// How far a restore has come.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_restore_progress {
    /// sizeof(cdp_restore_progress).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Bytes of the volume that are restored.
    pub bytes_done: u64,
    /// Bytes of the volume.
    pub bytes_total: u64,
    /// Bytes of data among them.
    pub data_bytes: u64,
    /// Bytes of zeroes among them.
    pub zero_bytes: u64,
}
sized!(cdp_restore_progress, 40);

/// Where it goes.
pub(crate) trait Target: RestoreTarget + Send {
    /// Makes everything durable.
    fn finish(&mut self) -> io::Result<()>;
}

/// A target of the host.
pub(crate) struct HostTarget {
    calls: cdp_target,
    userdata: Userdata,
}

// SAFETY: the functions and userdata may be used from any thread, one at a time, as the header obliges the host.
unsafe impl Send for HostTarget {}

impl HostTarget {
    /// Whether its functions may be called from several threads at once.
    pub fn is_shared(&self) -> bool {
        self.calls.flags & CDP_TARGET_SHARED != 0
    }

    pub fn put(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let write = self.calls.write.ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: a function of the host with its own userdata and data of this length.
        answer(without_ends(|| unsafe {
            write(self.userdata.get(), offset, data.as_ptr().cast(), data.len())
        }))
    }

    pub fn clear(&self, offset: u64, length: u64) -> io::Result<()> {
        let zero = self.calls.zero.ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: a function of the host with its own userdata.
        answer(without_ends(|| unsafe { zero(self.userdata.get(), offset, length) }))
    }
}

impl RestoreTarget for HostTarget {
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.put(offset, data)
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.clear(offset, length)
    }
}

impl Target for HostTarget {
    fn finish(&mut self) -> io::Result<()> {
        // SAFETY: a function of the host with its own userdata.
        self.calls
            .finish
            .map_or(Ok(()), |finish| answer(without_ends(|| unsafe { finish(self.userdata.get()) })))
    }
}

/// A new file; the rest of it is holes.
pub(crate) struct NewFile(File);

impl NewFile {
    /// Makes it, as long as it will be.
    pub fn create(path: &str, bytes: u64) -> Outcome<Self> {
        let made = File::options().write(true).create_new(true).open(path);
        let file = made.map_err(|error| Failure::io(path, &error))?;
        file.set_len(bytes).map_err(|error| Failure::io(path, &error))?;
        Ok(Self(file))
    }

    pub fn put(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

impl RestoreTarget for NewFile {
    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.put(offset, data)
    }

    fn zero(&mut self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Target for NewFile {
    fn finish(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// A restore, and how far it is.
pub struct Job {
    snapshot: Snapshot,
    target: Box<dyn Target>,
    /// Threads that read ahead during a step.
    readers: usize,
    state: RestoreState,
    finished: bool,
}

impl Job {
    fn new(snapshot: Snapshot, target: Box<dyn Target>) -> Mutex<Self> {
        Mutex::new(Self { snapshot, target, readers: 0, state: RestoreState::default(), finished: false })
    }

    pub(crate) fn step(&mut self, budget_bytes: u64) -> Outcome<cdp_status> {
        self.snapshot.restore_part(self.readers, budget_bytes, &mut self.state, &mut *self.target)?;
        if self.state.next < self.snapshot.bytes() {
            return Ok(CDP_OK);
        }
        if !self.finished {
            let failed =
                |source| cdp_core::Error::Io { operation: "sync", target: "the target".to_owned(), source };
            self.target.finish().map_err(failed)?;
            self.finished = true;
        }
        Ok(CDP_END)
    }

    pub(crate) fn progress(&self) -> cdp_restore_progress {
        cdp_restore_progress {
            struct_size: 0,
            flags: 0,
            bytes_done: self.state.next,
            bytes_total: self.snapshot.bytes(),
            data_bytes: self.state.restored.data_bytes,
            zero_bytes: self.state.restored.zero_bytes,
        }
    }
}

pub(crate) fn host_target(caller: Caller, target: *const cdp_target) -> Outcome<HostTarget> {
    let calls = caller.options(target)?;
    let userdata = Userdata::new(calls.userdata, calls.free_userdata);
    check_flags(calls.flags, CDP_TARGET_SHARED)?;
    if calls.write.is_none() || calls.zero.is_none() {
        return Err(Failure::argument("cdp_target.write or zero is NULL"));
    }
    Ok(HostTarget { calls, userdata })
}

/// Begins to restore a snapshot into what the host supplies; the struct is copied. Nothing is written yet. Close it with cdp_restore_close.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_restore_start(
    snapshot: *const cdp_snapshot,
    target: *const cdp_target,
    restore_out: *mut *mut cdp_restore,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("restore_out", restore_out);
        let target = Box::new(host_target(caller, target)?);
        let out = out?;
        let held = get(snapshot)?;
        let job = Job::new((*held).clone(), target);
        out.put(put(job, Some(held.family()))?);
        Ok(())
    })
}

/// Begins to restore a snapshot into a new sparse file of its size. CDP_ERR_EXISTS when there is something of that name. The file is
/// complete when cdp_restore_step has returned CDP_END, and durable then; before, it is partial and the caller's to remove.
/// [any thread; waits for the file system]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_restore_start_file(
    snapshot: *const cdp_snapshot,
    path: *const c_char,
    restore_out: *mut *mut cdp_restore,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("restore_out", restore_out)?;
        let held = get(snapshot)?;
        let file = NewFile::create(caller.text("path", path)?, held.bytes())?;
        let job = Job::new((*held).clone(), Box::new(file));
        out.put(put(job, Some(held.family()))?);
        Ok(())
    })
}

/// Has so many threads read ahead in each further step, at most 64; 0, which is how a restore begins: none. They are started by a step and end with it, so that
/// steps with a budget of many MiB go well with them; memory: two pieces of 1 MiB each. The target is called from the thread that steps all the same, whatever its flags;
/// threads that write too are those of cdp_snapshot_restore, which has no steps.
/// [one thread at a time, CDP_ERR_BUSY for others; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_restore_set_readers(restore: *mut cdp_restore, readers: u32) -> cdp_status {
    guard(|_| {
        let held = get(restore)?;
        let readers = check_readers(readers)?;
        held.try_lock().ok_or_else(busy)?.readers = readers;
        Ok(())
    })
}

/// Bounds the threads of a restore.
pub(crate) fn check_readers(readers: u32) -> Outcome<usize> {
    match readers {
        0..=READERS_MAX => Ok(readers as usize),
        _ => Err(Failure::argument(format!("{readers} threads of a restore: at most {READERS_MAX}"))),
    }
}

fn busy() -> Failure {
    Failure::new(CDP_ERR_BUSY, "another call steps this restore")
}

/// Restores at most about budget_bytes more bytes of the volume (0: one piece), pieces of 1 MiB and holes of any length being whole. CDP_OK:
/// there is more; CDP_END: everything is restored and durable. progress_out may be NULL. A step that failed may be tried again, and goes
/// on where it failed. [one thread at a time, CDP_ERR_BUSY for others; waits for the storage and the target]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_restore_step(
    restore: *mut cdp_restore,
    budget_bytes: u64,
    progress_out: *mut cdp_restore_progress,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(restore)?;
        let out = caller.sized_out_optional(progress_out)?;
        let mut job = held.try_lock().ok_or_else(busy)?;
        let status = job.step(budget_bytes.max(1))?;
        if let Some(out) = out {
            out.put(&job.progress());
        }
        Ok(status)
    })
}

/// Gives up the restore and sets the variable to NULL, which it may be already. Before CDP_END it cancels it: what was written to the target
/// stays as it is, and the store is untouched. [any thread, not from the target's functions; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_restore_close(restore: *mut *mut cdp_restore) -> cdp_status {
    guard(|caller| caller.close(restore).map(|_| ()))
}
