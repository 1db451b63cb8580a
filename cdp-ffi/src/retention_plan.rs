//! What retention would keep and drop, one by one and with its reasons.

use crate::{
    arguments::{sized, text_into},
    guard::{guard, guard_status},
    handle::{get, kind, put},
    status::{CDP_END, CDP_OK, cdp_status},
    store::cdp_store,
    types::cdp_point,
};
use cdp_core::retention::{DropReason, Plan, Policy, Standing, Why};
use std::{ffi::c_char, mem::size_of};

/// What retention would keep and drop, as it was planned at one moment.
pub struct cdp_retention_plan {
    _private: [u8; 0],
}
kind!(cdp_retention_plan, 22, "plan of retention", PlanObject);

/// A plan, and the policy that it is of.
pub struct PlanObject {
    plan: Plan,
    policy: Policy,
}

/// The first point of the full range stays because something holds on to it, and not by a window.
pub const CDP_PLAN_FULL_IS_GUEST: u32 = 1 << 0;

/// A plan as a whole.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_retention_plan_info {
    /// sizeof(cdp_retention_plan_info).
    pub struct_size: u32,
    /// CDP_PLAN_FULL_IS_GUEST.
    pub flags: u32,
    /// The time that it is made for.
    pub now_ns: u64,
    /// From here on every point stays; before it, those of cdp_retention_plan_point_at, and no other.
    pub full_from: cdp_point,
    /// When to plan again if nothing is written and nothing is changed: before, the same is kept and dropped. UINT64_MAX: never.
    pub next_due_ns: u64,
    /// Points before the full range that stay.
    pub points: u64,
    /// Bookmarks that stay.
    pub bookmarks_kept: u64,
    /// Bookmarks that go.
    pub bookmarks_dropped: u64,
}
sized!(cdp_retention_plan_info, 64);

/// It is the last state that was written in its slot.
pub const CDP_KEPT_SLOT_LAST: u32 = 1;
/// All states stay there.
pub const CDP_KEPT_ALL: u32 = 2;
/// A bookmark names it that stays by the filter of its window, or where all stay.
pub const CDP_KEPT_BOOKMARK: u32 = 3;
/// A bookmark names it that its slot prefers.
pub const CDP_KEPT_SLOT_BOOKMARK: u32 = 4;
/// A locked bookmark names it.
pub const CDP_KEPT_LOCKED_BOOKMARK: u32 = 5;
/// Something reads it.
pub const CDP_KEPT_PIN: u32 = 6;

/// A point before the full range that stays.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_retention_point {
    /// sizeof(cdp_retention_point).
    pub struct_size: u32,
    /// Why it stays: CDP_KEPT_*.
    pub why: u32,
    /// The point.
    pub point: cdp_point,
    /// The time of the write that followed it: the point stands for all times before that.
    pub until_ns: u64,
    /// The window by whose rule it stays, counted from 0; UINT32_MAX: it is older than the last one, or there are none.
    pub window: u32,
    /// 0.
    pub reserved: u32,
    /// The ages of that window, such as "24h-48h", NUL-terminated.
    pub window_name: [c_char; 64],
    /// The bookmark, or what reads it, NUL-terminated; "" for the others.
    pub name: [c_char; 136],
}
sized!(cdp_retention_point, 240);

/// Its own time to expire has come.
pub const CDP_DROP_EXPIRED: u32 = 1;
/// It is older than the policy allows.
pub const CDP_DROP_AGE: u32 = 2;
/// The window neither prefers it in its slot nor lets it pass.
pub const CDP_DROP_WINDOW: u32 = 3;
/// It lies before what the space allows.
pub const CDP_DROP_SPACE: u32 = 4;

/// A bookmark that goes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_retention_drop {
    /// sizeof(cdp_retention_drop).
    pub struct_size: u32,
    /// Why it goes: CDP_DROP_*.
    pub why: u32,
    /// For CDP_DROP_WINDOW: the window, counted from 0; else UINT32_MAX.
    pub window: u32,
    /// 0.
    pub reserved: u32,
    /// Its name, NUL-terminated.
    pub name: [c_char; 136],
}
sized!(cdp_retention_drop, 152);

fn window_of(index: Option<usize>) -> u32 {
    index.and_then(|index| u32::try_from(index).ok()).unwrap_or(u32::MAX)
}

/// Plans what cdp_retention_run would keep and drop at now_ns (0: the clock of the store), for the recorded policy or for another one in text, which may be NULL.
/// Changes nothing, and nothing that happens later changes the plan. Memory: about 100 bytes a point before the full range. cdp_retention_preview says how many bytes
/// that would free. Close it with cdp_retention_plan_close. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_plan_open(
    store: *const cdp_store,
    now_ns: u64,
    text: *const c_char,
    plan_out: *mut *mut cdp_retention_plan,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("plan_out", plan_out)?;
        let held = get(store)?;
        let policy = match caller.text_optional("text", text)? {
            Some(text) => Policy::from_text(text)?,
            None => held.store.policy()?,
        };
        let plan = held.store.plan_retention_for(&policy, held.time_or_now(now_ns))?;
        out.put(put(PlanObject { plan, policy }, Some(held.family()))?);
        Ok(())
    })
}

/// The plan as a whole. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_plan_info_get(
    plan: *const cdp_retention_plan,
    info_out: *mut cdp_retention_plan_info,
) -> cdp_status {
    guard(|caller| {
        let held = get(plan)?;
        let out = caller.sized_out(info_out)?;
        let plan = &held.plan;
        let guest = if plan.full.standing == Standing::Guest { CDP_PLAN_FULL_IS_GUEST } else { 0 };
        out.put(&cdp_retention_plan_info {
            struct_size: 0,
            flags: guest,
            now_ns: plan.now.get(),
            full_from: plan.full.from.into(),
            next_due_ns: plan.next_due.map_or(u64::MAX, |due| due.get()),
            points: plan.retained.len() as u64,
            bookmarks_kept: plan.kept_bookmarks.len() as u64,
            bookmarks_dropped: plan.dropped_bookmarks.len() as u64,
        });
        Ok(())
    })
}

/// The point before the full range that stays at a place, counted from 0 and ascending by seq; CDP_END, and point_out untouched, past the last.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_plan_point_at(
    plan: *const cdp_retention_plan,
    index: usize,
    point_out: *mut cdp_retention_point,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(plan)?;
        let out = caller.sized_out(point_out)?;
        let Some(kept) = held.plan.retained.get(index) else { return Ok(CDP_END) };
        let (why, name) = match &kept.why {
            Why::SlotLast => (CDP_KEPT_SLOT_LAST, ""),
            Why::All => (CDP_KEPT_ALL, ""),
            Why::Bookmark(name) => (CDP_KEPT_BOOKMARK, name.as_str()),
            Why::SlotBookmark(name) => (CDP_KEPT_SLOT_BOOKMARK, name.as_str()),
            Why::LockedBookmark(name) => (CDP_KEPT_LOCKED_BOOKMARK, name.as_str()),
            Why::Pin(holder) => (CDP_KEPT_PIN, holder.as_str()),
        };
        out.put(&cdp_retention_point {
            struct_size: 0,
            why,
            point: kept.point.into(),
            until_ns: kept.until.get(),
            window: window_of(kept.window),
            reserved: 0,
            window_name: text_into(&held.policy.window_name(kept.window)),
            name: text_into(name),
        });
        Ok(CDP_OK)
    })
}

/// The bookmark that goes at a place, counted from 0 and ascending by name; CDP_END, and drop_out untouched, past the last. Every other bookmark stays.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_plan_drop_at(
    plan: *const cdp_retention_plan,
    index: usize,
    drop_out: *mut cdp_retention_drop,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(plan)?;
        let out = caller.sized_out(drop_out)?;
        let Some(dropped) = held.plan.dropped_bookmarks.get(index) else { return Ok(CDP_END) };
        let (why, window) = match dropped.why {
            DropReason::Expired => (CDP_DROP_EXPIRED, None),
            DropReason::Age => (CDP_DROP_AGE, None),
            DropReason::Window(index) => (CDP_DROP_WINDOW, Some(index)),
            DropReason::Space => (CDP_DROP_SPACE, None),
        };
        out.put(&cdp_retention_drop {
            struct_size: 0,
            why,
            window: window_of(window),
            reserved: 0,
            name: text_into(&dropped.name),
        });
        Ok(CDP_OK)
    })
}

/// Gives up the plan and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_retention_plan_close(plan: *mut *mut cdp_retention_plan) -> cdp_status {
    guard(|caller| caller.close(plan).map(|_| ()))
}
