//! Bookmarks across stores and by schedule.

use crate::{
    arguments::{check_flags, check_reserved, sized, text_into},
    bookmark::{HostProduction, cdp_bookmark_options, cdp_quiesce, code_of, kind_of, wanted},
    callback::{Userdata, answer, without_ends},
    failure::{Failure, Outcome, note},
    guard::{guard, guard_status},
    handle::get,
    status::{CDP_END, CDP_ERR_NOT_FOUND, CDP_OK, cdp_status},
    store::cdp_store,
    types::{cdp_free_userdata, cdp_point, cdp_uuid},
};
use cdp_core::{
    BookmarkSchedule, Error, Quiesce, Store, bookmark::AcrossState, bookmark_across, confirm_across,
    format::Uuid, limits::ACROSS_STORES_MAX, newest_common_point, store::MemberOutcome,
};
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
    sync::Arc,
    time::Duration,
};

fn stores_of(
    caller: crate::arguments::Caller,
    stores: *const *mut cdp_store,
    count: usize,
) -> Outcome<Vec<Store>> {
    if count == 0 || count > ACROSS_STORES_MAX {
        return Err(Failure::argument(format!("1 to {ACROSS_STORES_MAX} stores, not {count}")));
    }
    let handles = caller.items("stores", stores, count)?;
    handles.iter().map(|handle| Ok(get(*handle)?.store.clone())).collect()
}

/// Sets one bookmark in several stores: one cut through all their volumes. Success when it has its place in one store at least; statuses_out, one
/// for each store, says where it is durable (CDP_OK) and why not elsewhere. id_out and points_out, one for each store, may be NULL; a store
/// without the bookmark has seq UINT64_MAX. The thread's last error is then that of the last store that failed. On failure nothing is recorded anywhere, unless every store failed.
/// [any thread; waits for the storages; with quiesce it uses one thread meanwhile]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_create_across(
    stores: *const *mut cdp_store,
    count: usize,
    name: *const c_char,
    options: *const cdp_bookmark_options,
    quiesce: *const cdp_quiesce,
    statuses_out: *mut cdp_status,
    points_out: *mut cdp_point,
    id_out: *mut cdp_uuid,
) -> cdp_status {
    guard(|caller| {
        let stores = stores_of(caller, stores, count)?;
        let statuses = caller.items_out("statuses_out", statuses_out, count)?;
        let points = match points_out.is_null() {
            true => None,
            false => Some(caller.items_out("points_out", points_out, count)?),
        };
        let id_to = caller.out_optional("id_out", id_out)?;
        let new = wanted(caller, name, options)?;
        let production = HostProduction::of(caller, quiesce)?;
        let quiesce = production.as_ref().map(|held| (held as &dyn Quiesce, held.timeout));
        let outcome = bookmark_across(&stores.iter().collect::<Vec<_>>(), &new, quiesce)?;
        for (index, member) in outcome.members.into_iter().enumerate() {
            let point = member
                .bookmark()
                .map(|bookmark| cdp_point { seq: bookmark.seq.get(), time_ns: bookmark.time.get() });
            if let Some(points) = points {
                points.put(index, point.unwrap_or(cdp_point { seq: u64::MAX, time_ns: 0 }));
            }
            statuses.put(
                index,
                match member {
                    MemberOutcome::Confirmed(_) | MemberOutcome::Unconfirmed(..) => CDP_OK,
                    MemberOutcome::Failed(error) => note(error.into()),
                },
            );
        }
        id_to.put(outcome.id.into());
        Ok(())
    })
}

/// The newest bookmark that all these stores have from cdp_bookmark_create_across and that is exact for every volume of them: where to go back to as one.
/// points_out has count points, in the order of the stores. id_out may be NULL. CDP_ERR_NOT_FOUND when there is none.
/// [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_resolve_newest_common(
    stores: *const *mut cdp_store,
    count: usize,
    points_out: *mut cdp_point,
    id_out: *mut cdp_uuid,
) -> cdp_status {
    guard(|caller| {
        let stores = stores_of(caller, stores, count)?;
        let out = caller.items_out("points_out", points_out, count)?;
        let id = caller.out_optional("id_out", id_out)?;
        let missing = || Failure::new(CDP_ERR_NOT_FOUND, "no bookmark is exact in all of these stores");
        let found = newest_common_point(&stores.iter().collect::<Vec<_>>())?.ok_or_else(missing)?;
        for (index, seq) in found.seqs.iter().enumerate() {
            out.put(index, cdp_point { seq: seq.get(), time_ns: found.time.get() });
        }
        id.put(found.id.into());
        Ok(())
    })
}

/// Nothing is known of the other stores.
pub const CDP_ACROSS_UNCONFIRMED: u32 = 0;
/// Every store has the bookmark, durably.
pub const CDP_ACROSS_COMPLETE: u32 = 1;
/// Some stores have it, and some do not.
pub const CDP_ACROSS_PARTIAL: u32 = 2;

/// Confirms a bookmark across stores that a crash left unconfirmed, as far as these stores can tell; state_out is CDP_ACROSS_*.
/// [any thread; waits for the storages]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_confirm_across(
    stores: *const *mut cdp_store,
    count: usize,
    name: *const c_char,
    id: cdp_uuid,
    state_out: *mut u32,
) -> cdp_status {
    guard(|caller| {
        let stores = stores_of(caller, stores, count)?;
        let out = caller.out("state_out", state_out)?;
        let name = caller.text("name", name)?;
        let state = confirm_across(&stores.iter().collect::<Vec<_>>(), name, Uuid(id.bytes))?;
        out.put(match state {
            AcrossState::Unconfirmed => CDP_ACROSS_UNCONFIRMED,
            AcrossState::Complete => CDP_ACROSS_COMPLETE,
            AcrossState::Partial { .. } => CDP_ACROSS_PARTIAL,
        });
        Ok(())
    })
}

/// Bookmarks at regular times.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_bookmark_schedule {
    /// sizeof(cdp_bookmark_schedule).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// What they vouch for: CDP_BOOKMARK_USER, _FS or _APP.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// Length of a slot, nanoseconds, at least a millisecond: one bookmark in each, unless nothing was written. Required.
    pub every_ns: u64,
    /// How long after they are set they may go by themselves, nanoseconds. 0: they stay.
    pub keep_for_ns: u64,
    /// What their names begin with; the start of the slot follows. Required.
    pub prefix: *const c_char,
    /// The application. May be NULL.
    pub app: *const c_char,
    /// What is frozen while one takes its place, from the thread that steps or one of the runner. The struct is copied; userdata must live
    /// until free_userdata is called. NULL: nothing.
    pub quiesce: *const cdp_quiesce,
    /// Called exactly once with the userdata of quiesce when that is not used any more. May be NULL.
    pub free_userdata: cdp_free_userdata,
}
sized!(cdp_bookmark_schedule, 64);

/// Production of the host that outlives the call.
struct Lasting {
    freeze: unsafe extern "C" fn(*mut c_void) -> i32,
    thaw: unsafe extern "C" fn(*mut c_void),
    userdata: Userdata,
}

impl Quiesce for Lasting {
    fn freeze(&self) -> cdp_core::Result<()> {
        // SAFETY: a function of the host with its own userdata.
        let answered = without_ends(|| unsafe { (self.freeze)(self.userdata.get()) });
        answer(answered).map_err(|error| Error::io("freeze", "production", error))
    }

    fn thaw(&self) {
        // SAFETY: as above.
        without_ends(|| unsafe { (self.thaw)(self.userdata.get()) });
    }
}

/// Sets bookmarks at regular times from now on; NULL: no more. The runner and cdp_store_step set them; the schedule ends with this open store.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_schedule_set(
    store: *mut cdp_store,
    schedule: *const cdp_bookmark_schedule,
) -> cdp_status {
    guard(|caller| {
        if schedule.is_null() {
            return Ok(get(store)?.store.set_bookmark_schedule(None)?);
        }
        let given = caller.options(schedule)?;
        let mut quiesce: Option<(Arc<dyn Quiesce + Send + Sync>, Duration)> = None;
        if !given.quiesce.is_null() {
            let calls = caller.options(given.quiesce)?;
            let userdata = Userdata::new(calls.userdata, given.free_userdata);
            check_flags(calls.flags, 0)?;
            let (Some(freeze), Some(thaw)) = (calls.freeze, calls.thaw) else {
                return Err(Failure::argument("cdp_quiesce.freeze or thaw is NULL"));
            };
            let timeout = Duration::from_nanos(calls.timeout_ns);
            quiesce = Some((Arc::new(Lasting { freeze, thaw, userdata }), timeout));
        }
        check_flags(given.flags, 0)?;
        check_reserved(given.reserved)?;
        let schedule = BookmarkSchedule {
            kind: kind_of(given.kind)?,
            app: caller.text_optional("app", given.app)?.map(str::to_owned),
            keep_for_ns: Some(given.keep_for_ns).filter(|keep| *keep != 0),
            quiesce,
            ..BookmarkSchedule::every(given.every_ns, caller.text("prefix", given.prefix)?)
        };
        Ok(get(store)?.store.set_bookmark_schedule(Some(schedule))?)
    })
}

/// Something is frozen while a bookmark takes its place.
pub const CDP_SCHEDULE_QUIESCES: u32 = 1 << 0;

/// The schedule of a store, as it was set.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_bookmark_schedule_info {
    /// sizeof(cdp_bookmark_schedule_info).
    pub struct_size: u32,
    /// CDP_SCHEDULE_QUIESCES.
    pub flags: u32,
    /// What the bookmarks vouch for: CDP_BOOKMARK_USER, _FS or _APP.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// Length of a slot, nanoseconds.
    pub every_ns: u64,
    /// How long after they are set they may go by themselves, nanoseconds. 0: they stay.
    pub keep_for_ns: u64,
    /// With CDP_SCHEDULE_QUIESCES: how long it is frozen at most, nanoseconds.
    pub timeout_ns: u64,
    /// What their names begin with, NUL-terminated.
    pub prefix: [c_char; 136],
    /// The application, NUL-terminated; "" where none was given.
    pub app: [c_char; 136],
}
sized!(cdp_bookmark_schedule_info, 312);

/// The schedule by which bookmarks are set; CDP_END, and info_out untouched, when there is none. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_schedule_get(
    store: *const cdp_store,
    info_out: *mut cdp_bookmark_schedule_info,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(store)?;
        let out = caller.sized_out(info_out)?;
        let Some(schedule) = held.store.bookmark_schedule() else { return Ok(CDP_END) };
        let timeout = schedule.quiesce.as_ref().map(|(_, timeout)| *timeout);
        out.put(&cdp_bookmark_schedule_info {
            struct_size: 0,
            flags: if timeout.is_some() { CDP_SCHEDULE_QUIESCES } else { 0 },
            kind: code_of(schedule.kind),
            reserved: 0,
            every_ns: schedule.every_ns,
            keep_for_ns: schedule.keep_for_ns.unwrap_or(0),
            timeout_ns: timeout.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            prefix: text_into(&schedule.prefix),
            app: text_into(schedule.app.as_deref().unwrap_or_default()),
        });
        Ok(CDP_OK)
    })
}
