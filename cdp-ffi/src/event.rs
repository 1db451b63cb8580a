//! Events: what the host should know without asking, in a row that it polls.

use crate::{
    arguments::{sized, text_into},
    guard::guard_status,
    handle::get,
    status::{CDP_END, CDP_OK, cdp_status},
    store::cdp_store,
};
use cdp_core::event::{Event, EventKind};
use parking_lot::Mutex;
use std::{collections::VecDeque, ffi::c_char, mem::size_of};

/// A gap opened on the timeline of a volume: it is captured by dirty blocks only.
pub const CDP_EVENT_GAP_OPENED: u32 = 1;
/// A gap closed: the volume is captured whole again.
pub const CDP_EVENT_GAP_CLOSED: u32 = 2;
/// Captured writes wait for the store, which cannot write.
pub const CDP_EVENT_STORE_FAILED: u32 = 3;
/// The store takes captured writes again.
pub const CDP_EVENT_STORE_RECOVERED: u32 = 4;
/// The source of a resync could not be read; it is tried again.
pub const CDP_EVENT_SOURCE_FAILED: u32 = 5;
/// The bookmark of a slot of the schedule could not be set.
pub const CDP_EVENT_BOOKMARK_MISSED: u32 = 6;
/// A producer reserved room and did not come back.
pub const CDP_EVENT_PRODUCER_STALLED: u32 = 7;
/// Background work met bytes that are not what was written.
pub const CDP_EVENT_DAMAGE_MET: u32 = 8;
/// History was thinned as the policy asks for.
pub const CDP_EVENT_THINNED: u32 = 9;
/// Retention did not go on; what it left undone is done later.
pub const CDP_EVENT_RETENTION_FAILED: u32 = 10;
/// The clock departed from the monotonic one: no history is dropped by age until cdp_store_confirm_clock.
pub const CDP_EVENT_CLOCK_DEPARTED: u32 = 11;
/// The activity log of a tap cannot be written.
pub const CDP_EVENT_LOG_LOST: u32 = 12;
/// A tap with an activity log was given a write that it had not been told of before.
pub const CDP_EVENT_LOG_BYPASSED: u32 = 13;
/// The map of what differs could not be kept or used: the whole source is compared.
pub const CDP_EVENT_MAP_NOT_USED: u32 = 14;
/// A defect of the library ended a thread of the runner: stop the runner and start it anew.
pub const CDP_EVENT_RUNNER_FAILED: u32 = 15;
/// Something that this version of the header has no name for; the text tells.
pub const CDP_EVENT_OTHER: u32 = 0;

/// An event.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_event {
    /// sizeof(cdp_event).
    pub struct_size: u32,
    /// CDP_EVENT_*.
    pub kind: u32,
    /// When, by the clock of the store.
    pub time_ns: u64,
    /// The volume, NUL-terminated; "" where it is of none.
    pub volume: [c_char; 136],
    /// The event for people, NUL-terminated.
    pub text: [c_char; 512],
}
sized!(cdp_event, 664);

/// Events that were taken from the core and not yet by the host.
#[derive(Debug, Default)]
pub struct EventRow(Mutex<(VecDeque<Event>, u64)>);

fn kind_and_volume(kind: &EventKind) -> (u32, &str) {
    match kind {
        EventKind::GapOpened { volume, .. } => (CDP_EVENT_GAP_OPENED, volume),
        EventKind::GapClosed { volume, .. } => (CDP_EVENT_GAP_CLOSED, volume),
        EventKind::StoreFailed(_) => (CDP_EVENT_STORE_FAILED, ""),
        EventKind::StoreRecovered => (CDP_EVENT_STORE_RECOVERED, ""),
        EventKind::SourceFailed { volume, .. } => (CDP_EVENT_SOURCE_FAILED, volume),
        EventKind::BookmarkMissed(_) => (CDP_EVENT_BOOKMARK_MISSED, ""),
        EventKind::ProducerStalled => (CDP_EVENT_PRODUCER_STALLED, ""),
        EventKind::DamageMet(_) => (CDP_EVENT_DAMAGE_MET, ""),
        EventKind::Thinned { .. } => (CDP_EVENT_THINNED, ""),
        EventKind::RetentionFailed(_) => (CDP_EVENT_RETENTION_FAILED, ""),
        EventKind::ClockDeparted => (CDP_EVENT_CLOCK_DEPARTED, ""),
        EventKind::LogLost { volume, .. } => (CDP_EVENT_LOG_LOST, volume),
        EventKind::LogBypassed { volume } => (CDP_EVENT_LOG_BYPASSED, volume),
        EventKind::MapNotUsed { volume, .. } => (CDP_EVENT_MAP_NOT_USED, volume),
        EventKind::RunnerFailed { .. } => (CDP_EVENT_RUNNER_FAILED, ""),
        _ => (CDP_EVENT_OTHER, ""),
    }
}

/// Takes the oldest event; CDP_END, and event_out untouched, when there is none. dropped_out, which may be NULL, is the number of events that were
/// lost since the last call because nobody took them: the row holds 1024. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_event_next(
    store: *mut cdp_store,
    event_out: *mut cdp_event,
    dropped_out: *mut u64,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(store)?;
        let out = caller.sized_out(event_out)?;
        let dropped = caller.out_optional("dropped_out", dropped_out)?;
        let mut row = held.events.0.lock();
        if row.0.is_empty() {
            let (events, lost) = held.store.take_events();
            row.0.extend(events);
            row.1 += lost;
        }
        dropped.put(std::mem::take(&mut row.1));
        let Some(event) = row.0.pop_front() else { return Ok(CDP_END) };
        let (kind, volume) = kind_and_volume(&event.kind);
        out.put(&cdp_event {
            struct_size: 0,
            kind,
            time_ns: event.time.get(),
            volume: text_into(volume),
            text: text_into(&event.kind.to_string()),
        });
        Ok(CDP_OK)
    })
}
