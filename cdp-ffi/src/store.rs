//! Stores: made, opened, closed; what the host does with one as a whole.

use crate::{
    arguments::{Caller, check_flags, check_reserved, sized},
    callback::{Userdata, check_outside, without_calls},
    event::EventRow,
    failure::{Failure, Outcome},
    guard::{guard, guard_status},
    handle::{self, Held, get, kind, put},
    log::{CDP_LOG_ERROR, CDP_LOG_INFO, HostLog, cdp_log_sink},
    status::{CDP_END, CDP_OK, cdp_status},
    storage::{How, cdp_storage, directory},
    types::{cdp_free_userdata, cdp_point, cdp_uuid},
};
use cdp_core::{
    Budget, Coalescing, CreateOptions, OpenOptions, Runner, RunnerOptions, Stepped, Store,
    format::FORMAT_VERSION,
    io::{Clock, Storage},
    units::TimeNs,
};
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
    sync::Arc,
};

/// An open store: volumes that share one row of sequence numbers.
pub struct cdp_store {
    _private: [u8; 0],
}
kind!(cdp_store, 2, "store", StoreObject);

/// The threads of the bundled runner.
pub struct cdp_runner {
    _private: [u8; 0],
}
kind!(cdp_runner, 3, "runner", Runner);

/// An open store and what its calls need.
pub struct StoreObject {
    /// The store.
    pub store: Store,
    /// The clock that dates its writes.
    pub clock: Arc<dyn Clock>,
    /// Events on their way to the host.
    pub events: EventRow,
    /// The log of the host.
    log: Option<Arc<HostLog>>,
}

impl StoreObject {
    /// The time given, or that of the clock for 0.
    pub fn time_or_now(&self, time_ns: u64) -> TimeNs {
        if time_ns == 0 { self.clock.now() } else { TimeNs::new(time_ns) }
    }
}

/// A clock that the application supplies. Its functions may be called from any thread and must not call the library or unwind.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_clock {
    /// sizeof(cdp_clock).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Passed to every function.
    pub userdata: *mut c_void,
    /// Nanoseconds since the Unix epoch, UTC; may step back. Required.
    pub now_ns: Option<unsafe extern "C" fn(userdata: *mut c_void) -> u64>,
    /// Nanoseconds of a clock that nobody sets, from any beginning. NULL: there is none, and a jump of now_ns is believed.
    pub monotonic_ns: Option<unsafe extern "C" fn(userdata: *mut c_void) -> u64>,
    /// Called exactly once, when nothing is called any more. May be NULL.
    pub free_userdata: cdp_free_userdata,
}
sized!(cdp_clock, 40);

/// A clock of the host.
struct HostClock {
    now: unsafe extern "C" fn(*mut c_void) -> u64,
    monotonic: Option<unsafe extern "C" fn(*mut c_void) -> u64>,
    userdata: Userdata,
}

impl Clock for HostClock {
    fn now(&self) -> TimeNs {
        // SAFETY: a function of the host with its own userdata.
        TimeNs::new(without_calls(|| unsafe { (self.now)(self.userdata.get()) }))
    }

    fn monotonic_ns(&self) -> Option<u64> {
        // SAFETY: as above.
        self.monotonic.map(|monotonic| without_calls(|| unsafe { monotonic(self.userdata.get()) }))
    }
}

/// The store is opened for reading only, beside an owner if there is one, and seen as it is at that moment.
pub const CDP_OPEN_READ_ONLY: u32 = 1 << 0;

/// How a store is opened. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_open_options {
    /// sizeof(cdp_open_options).
    pub struct_size: u32,
    /// CDP_OPEN_*.
    pub flags: u32,
    /// CDP_DIRECTORY_*, for a path.
    pub directory_flags: u32,
    /// 0.
    pub reserved: u32,
    /// Where the store lives instead of a path, which is NULL then. Borrowed for the call; the store goes on using what it stands for.
    pub storage: *mut cdp_storage,
    /// The clock that dates writes. NULL: that of the system. The struct is copied.
    pub clock: *const cdp_clock,
    /// Budget of the cache of index pages, bytes. 0: 32 MiB.
    pub page_cache_bytes: u64,
    /// Space of a new segment, bytes. 0: 64 MiB, which is also the most.
    pub segment_bytes: u64,
    /// Where lines for people go. NULL: nowhere. The struct is copied.
    pub log: *const cdp_log_sink,
}
sized!(cdp_open_options, 48);

/// What a new store begins with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_create_options {
    /// sizeof(cdp_create_options).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Name of the first volume, of A-Z a-z 0-9 . _ -, 1 to 128 bytes. NULL: "disk".
    pub volume: *const c_char,
    /// Its size, bytes; a multiple of 512. Required.
    pub bytes: u64,
    /// How it is opened. NULL: the default of everything. CDP_OPEN_READ_ONLY is refused.
    pub open: *const cdp_open_options,
}
sized!(cdp_create_options, 32);

/// What is known of a store.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_store_info {
    /// sizeof(cdp_store_info).
    pub struct_size: u32,
    /// CDP_STORE_*.
    pub flags: u32,
    /// Its identity; a copy of its files has the same.
    pub uuid: cdp_uuid,
    /// Version of the format that this library writes.
    pub format_version: u32,
    /// Volumes.
    pub volumes: u32,
    /// The newest state.
    pub newest: cdp_point,
    /// Everything up to this seq survives a power cut.
    pub durable_seq: u64,
    /// Frames of the tail that were cut off when the store was opened after an unclean end.
    pub tail_frames: u64,
    /// Bytes of the tail that were cut off.
    pub tail_bytes: u64,
    /// Places of damage that were met when the store was opened.
    pub damage_count: u64,
}
sized!(cdp_store_info, 80);

/// The last owner closed the store in good order.
pub const CDP_STORE_CLEAN: u32 = 1 << 0;
/// The store was opened for reading only.
pub const CDP_STORE_READ_ONLY: u32 = 1 << 1;

/// What the options say, in the words of the core.
struct Opening {
    options: OpenOptions,
    flags: u32,
    directory_flags: u32,
    storage: Option<Arc<dyn Storage>>,
    log: Option<Arc<HostLog>>,
}

fn opening(caller: Caller, options: *const cdp_open_options) -> Outcome<Opening> {
    let given = caller.options_or_default(options)?;
    let mut options = OpenOptions::default();
    // First of all, so that what clock and log use is handed back whatever else is wrong.
    let (clock, log) = (host_clock(caller, given.clock), HostLog::of(caller, given.log));
    if let Some(clock) = clock? {
        options.clock = clock;
    }
    let log = log?;
    check_flags(given.flags, CDP_OPEN_READ_ONLY)?;
    check_reserved(given.reserved)?;
    if given.page_cache_bytes != 0 {
        options.page_cache_bytes = given.page_cache_bytes;
    }
    if given.segment_bytes != 0 {
        options.segment_bytes = given.segment_bytes;
    }
    let storage = match given.storage.is_null() {
        true => None,
        false => Some(Arc::clone(&*get(given.storage)?)),
    };
    let (flags, directory_flags) = (given.flags, given.directory_flags);
    Ok(Opening { options, flags, directory_flags, storage, log })
}

fn host_clock(caller: Caller, clock: *const cdp_clock) -> Outcome<Option<Arc<dyn Clock>>> {
    if clock.is_null() {
        return Ok(None);
    }
    let given = caller.options(clock)?;
    let userdata = Userdata::new(given.userdata, given.free_userdata);
    check_flags(given.flags, 0)?;
    let now = given.now_ns.ok_or_else(|| Failure::argument("cdp_clock.now_ns is NULL"))?;
    Ok(Some(Arc::new(HostClock { now, monotonic: given.monotonic_ns, userdata })))
}

impl Opening {
    /// The storage that the path or the options name: one of the two.
    fn storage(&self, path: Option<&str>, how: How) -> Outcome<Arc<dyn Storage>> {
        match (path, &self.storage) {
            (Some(path), None) => directory(path, how, self.directory_flags),
            (None, Some(storage)) if self.directory_flags == 0 => Ok(storage.clone()),
            (None, Some(_)) => Err(Failure::argument("directory_flags are for a path, not for a storage")),
            _ => Err(Failure::argument("give a path or options.storage, and not both")),
        }
    }
}

fn put_store(store: Store, clock: Arc<dyn Clock>, log: Option<Arc<HostLog>>) -> Outcome<*mut cdp_store> {
    if let Some(log) = &log {
        log.opened(&store);
    }
    put(StoreObject { store, clock, events: EventRow::default(), log }, None)
}

/// Makes a new store with one empty volume, in a directory that does not exist yet or is empty, or on options.open.storage with path NULL, and
/// opens it as its owner. Close it with cdp_store_close.
/// On failure nothing is open; what was begun in the directory or storage is no store and may be removed. CDP_ERR_EXISTS where there is one.
/// [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_create(
    path: *const c_char,
    options: *const cdp_create_options,
    store_out: *mut *mut cdp_store,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("store_out", store_out);
        let new = new_store(caller, path, options)?;
        let out = out?;
        out.put(new.make(Store::create)?);
        Ok(())
    })
}

/// What a store is made of.
pub(crate) struct NewStore {
    storage: Arc<dyn Storage>,
    create: CreateOptions,
    open: OpenOptions,
    log: Option<Arc<HostLog>>,
}

pub(crate) fn new_store(
    caller: Caller,
    path: *const c_char,
    options: *const cdp_create_options,
) -> Outcome<NewStore> {
    let given = caller.options(options)?;
    let opening = opening(caller, given.open)?;
    check_flags(given.flags, 0)?;
    if opening.flags & CDP_OPEN_READ_ONLY != 0 {
        return Err(Failure::argument("a new store is not opened read-only"));
    }
    let volume = caller.text_optional("volume", given.volume)?.unwrap_or("disk").to_owned();
    let storage = opening.storage(caller.text_optional("path", path)?, How::Create)?;
    let create = CreateOptions { volume, bytes: given.bytes };
    Ok(NewStore { storage, create, open: opening.options, log: opening.log })
}

impl NewStore {
    pub fn create(&self) -> &CreateOptions {
        &self.create
    }

    /// Makes the store and gives it a handle.
    pub fn make(
        self,
        make: impl FnOnce(Arc<dyn Storage>, &CreateOptions, OpenOptions) -> cdp_core::Result<Store>,
    ) -> Outcome<*mut cdp_store> {
        let clock = self.open.clock.clone();
        let store = make(self.storage, &self.create, self.open)?;
        put_store(store, clock, self.log)
    }
}

/// Opens a store as its owner, and recovers it if need be, or for reading only. Either path or options.storage is given. options may be NULL.
/// CDP_ERR_BUSY while another owner has it; CDP_ERR_CORRUPT when what is damaged makes it unsafe to go on. On failure nothing is open and
/// the store is as it was. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_open(
    path: *const c_char,
    options: *const cdp_open_options,
    store_out: *mut *mut cdp_store,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("store_out", store_out);
        let opening = opening(caller, options)?;
        let out = out?;
        let read_only = opening.flags & CDP_OPEN_READ_ONLY != 0;
        let how = if read_only { How::ReadOnly } else { How::Open };
        let storage = opening.storage(caller.text_optional("path", path)?, how)?;
        let clock = opening.options.clock.clone();
        let store = match read_only {
            true => Store::open_read_only(storage, opening.options)?,
            false => Store::open(storage, opening.options)?,
        };
        out.put(put_store(store, clock, opening.log)?);
        Ok(())
    })
}

/// Ends the store in good order and sets the variable to NULL, which it may be already: taps are ended, the runner is stopped, everything is
/// made durable. Every handle that came from the store is closed with it and answers CDP_ERR_CLOSED from then on; calls that are under
/// way on other threads end first or fail with CDP_ERR_POISONED. The store is closed whatever the status: on CDP_ERR_JOURNAL_FULL and
/// CDP_ERR_IO something could not be made durable, and the next open recovers as after a crash. Call cdp_store_flush before where that matters.
/// [any thread; CDP_ERR_BUSY from a callback, and nothing is closed; waits for the storage and the runner]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_close(store: *mut *mut cdp_store) -> cdp_status {
    guard(|caller| {
        check_outside()?;
        let Some(held) = caller.close(store)? else { return Ok(()) };
        close(&held)
    })
}

fn close(held: &Held<StoreObject>) -> Outcome {
    // The runner, queues and everything else that works on it first.
    drop(handle::remove_family(held.family()));
    let closed = held.store.clone().close();
    if let Some(log) = &held.log {
        match &closed {
            Ok(()) => log.line(CDP_LOG_INFO, "the store was closed"),
            Err(error) => {
                log.line(CDP_LOG_ERROR, &format!("the store was not closed in good order: {error}"))
            }
        }
    }
    Ok(closed?)
}

/// What is known of the store. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_info_get(
    store: *const cdp_store,
    info_out: *mut cdp_store_info,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.sized_out(info_out)?;
        let (store, recovery) = (&held.store, held.store.recovery());
        let mut flags = if recovery.clean { CDP_STORE_CLEAN } else { 0 };
        if store.is_read_only() {
            flags |= CDP_STORE_READ_ONLY;
        }
        out.put(&cdp_store_info {
            struct_size: 0,
            flags,
            uuid: store.id().into(),
            format_version: FORMAT_VERSION,
            volumes: u32::try_from(store.volumes().len()).unwrap_or(u32::MAX),
            newest: store.newest().into(),
            durable_seq: store.durable_seq().get(),
            tail_frames: recovery.tail_frames,
            tail_bytes: recovery.tail_bytes,
            damage_count: recovery.damage.len() as u64,
        });
        Ok(())
    })
}

/// Makes everything written so far durable, of all volumes; durable_seq_out, which may be NULL, is the seq up to which. On CDP_ERR_JOURNAL_FULL
/// and CDP_ERR_IO it stays in memory and the next call tries again. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_flush(store: *mut cdp_store, durable_seq_out: *mut u64) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.out_optional("durable_seq_out", durable_seq_out)?;
        out.put(held.store.flush()?.get());
        Ok(())
    })
}

/// Says that nothing else was written up to time_ns, so that points up to there can be opened, for a host that dates writes itself.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_cover(store: *mut cdp_store, time_ns: u64) -> cdp_status {
    guard(|_| {
        get(store)?.store.cover(TimeNs::new(time_ns));
        Ok(())
    })
}

/// Moves the clock of the store to now and makes it durable with everything written so far, so that any time up to now can be opened.
/// The runner does this by itself once a second. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_heartbeat(store: *mut cdp_store) -> cdp_status {
    guard(|_| Ok(get(store)?.store.heartbeat()?))
}

/// Says that the clock of the host is right although it jumped by more than an hour: history is dropped by age again.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_confirm_clock(store: *mut cdp_store) -> cdp_status {
    guard(|_| {
        get(store)?.store.confirm_clock();
        Ok(())
    })
}

/// Every write is a point.
pub const CDP_COALESCE_NONE: u32 = 0;
/// The last state of each interval of time is a point.
pub const CDP_COALESCE_INTERVAL: u32 = 1;
/// The state at each flush and bookmark is a point.
pub const CDP_COALESCE_BARRIER: u32 = 2;

/// How writes are coalesced from the next one on (CDP_COALESCE_*): what is overwritten within an interval is not stored. interval_ns is for
/// CDP_COALESCE_INTERVAL and 0 otherwise. Durable when it returns. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_set_coalescing(
    store: *mut cdp_store,
    mode: u32,
    interval_ns: u64,
) -> cdp_status {
    guard(|_| {
        let coalescing = match (mode, interval_ns) {
            (CDP_COALESCE_NONE, 0) => Coalescing::PerWrite,
            (CDP_COALESCE_INTERVAL, length) => Coalescing::IntervalNs(length),
            (CDP_COALESCE_BARRIER, 0) => Coalescing::PerBarrier,
            _ => {
                return Err(Failure::argument(format!(
                    "coalescing {mode} with an interval of {interval_ns} ns"
                )));
            }
        };
        Ok(get(store)?.store.set_coalescing(coalescing)?)
    })
}

/// How writes are coalesced now: CDP_COALESCE_*, and the length of the interval, which is 0 but for CDP_COALESCE_INTERVAL. Either output may be NULL.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_coalescing_get(
    store: *const cdp_store,
    mode_out: *mut u32,
    interval_ns_out: *mut u64,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let mode = caller.out_optional("mode_out", mode_out)?;
        let interval = caller.out_optional("interval_ns_out", interval_ns_out)?;
        let (code, length) = match held.store.coalescing() {
            Coalescing::PerWrite => (CDP_COALESCE_NONE, 0),
            Coalescing::IntervalNs(length) => (CDP_COALESCE_INTERVAL, length),
            Coalescing::PerBarrier => (CDP_COALESCE_BARRIER, 0),
        };
        mode.put(code);
        interval.put(length);
        Ok(())
    })
}

/// Does one slice of background work, for a host without a runner: commits what is older than 200 ms, makes the next segment ready, seals,
/// merges at most entries_max index entries (0: 65536), takes over what taps captured, resyncs a piece, sets the bookmark that is due.
/// CDP_OK: there is more to do at once; CDP_END: nothing is due. What failed is tried again by a later call.
/// [any thread; waits for the storage and for sources of taps]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_step(store: *mut cdp_store, entries_max: u64) -> cdp_status {
    guard_status(|_| {
        let budget = if entries_max == 0 { Budget::default() } else { Budget { entries: entries_max } };
        Ok(match get(store)?.store.step(budget)? {
            Stepped::More => CDP_OK,
            Stepped::Idle => CDP_END,
        })
    })
}

/// What is due of retention by the clock of the store; the runner does this by itself, a host that steps calls it now and then.
/// CDP_OK: something was planned, which later steps carry out; CDP_END: nothing was due. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_step_retention(store: *mut cdp_store) -> cdp_status {
    guard_status(|_| Ok(if get(store)?.store.step_retention()? { CDP_OK } else { CDP_END }))
}

/// Time does not move on by itself while nothing is written: for a host that dates writes itself and calls cdp_store_cover.
pub const CDP_RUNNER_NO_HEARTBEAT: u32 = 1 << 0;

/// Starts the bundled runner: threads that do the background work until cdp_runner_stop or cdp_store_close. These are the only threads that
/// outlive a call. flags: CDP_RUNNER_*. A defect in one of them ends it and is an event.
/// [any thread; waits for the start of threads]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_runner_start(
    store: *mut cdp_store,
    flags: u32,
    runner_out: *mut *mut cdp_runner,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("runner_out", runner_out)?;
        check_flags(flags, CDP_RUNNER_NO_HEARTBEAT)?;
        let held = get(store)?;
        let options = RunnerOptions { heartbeat: flags & CDP_RUNNER_NO_HEARTBEAT == 0 };
        let runner = held.store.start_runner_with(options)?;
        out.put(put(runner, Some(held.family()))?);
        Ok(())
    })
}

/// Stops the runner, when what it is at is finished, and sets the variable to NULL, which it may be already.
/// [any thread; CDP_ERR_BUSY from a callback; waits for the threads]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_runner_stop(runner: *mut *mut cdp_runner) -> cdp_status {
    guard(|caller| {
        check_outside()?;
        caller.close(runner).map(|_| ())
    })
}
