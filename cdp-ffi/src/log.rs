//! The log: what happens to a store or a mirror set as lines of text, for a host that keeps a log. The library writes none of its own.
//!
//! Lines are the events when they happen, and what an opening and an end have found. What a call met is said by its status and
//! cdp_last_error_message alone.

use crate::{
    arguments::{Caller, sized},
    callback::{Userdata, without_calls},
    failure::{Failure, Outcome},
    types::cdp_free_userdata,
};
use cdp_core::{
    Store,
    event::{Event, EventSink, Severity},
    mirror::{MirrorEvent, MirrorSet, MirrorSink, Standing},
};
use std::{
    ffi::{CString, c_char, c_void},
    mem::size_of,
    sync::Arc,
};

/// Something is broken, and somebody has to look.
pub const CDP_LOG_ERROR: u32 = 1;
/// Protection is less than was asked for; the library mends it where it can.
pub const CDP_LOG_WARNING: u32 = 2;
/// As it should be.
pub const CDP_LOG_INFO: u32 = 3;

/// Places of damage that an opening names one by one.
const DAMAGE_LINES_MAX: usize = 16;

/// Where the lines of a log go. A line is an event (cdp_event_next gives those of a store with their kinds), or what the opening or the end of the
/// store or mirror set has found.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_log_sink {
    /// sizeof(cdp_log_sink).
    pub struct_size: u32,
    /// Lines of this level and below: CDP_LOG_*. 0: all.
    pub level_max: u32,
    /// Passed to the function.
    pub userdata: *mut c_void,
    /// Takes one line of len bytes of UTF-8 with a NUL behind them, borrowed for the call. Called from whatever thread is inside of the library,
    /// those of the runner among them, one line at a time, while the store or the set waits; must not call the library or unwind. Required.
    pub log:
        Option<unsafe extern "C" fn(userdata: *mut c_void, level: u32, message: *const c_char, len: usize)>,
    /// Called exactly once, when nothing is called any more. May be NULL.
    pub free_userdata: cdp_free_userdata,
}
sized!(cdp_log_sink, 32);

/// A log of the host.
pub(crate) struct HostLog {
    log: unsafe extern "C" fn(*mut c_void, u32, *const c_char, usize),
    level_max: u32,
    userdata: Userdata,
    /// One line at a time.
    turn: parking_lot::Mutex<()>,
}

impl HostLog {
    pub fn of(caller: Caller, sink: *const cdp_log_sink) -> Outcome<Option<Arc<Self>>> {
        if sink.is_null() {
            return Ok(None);
        }
        let given = caller.options(sink)?;
        // From here on it is handed back whatever happens.
        let userdata = Userdata::new(given.userdata, given.free_userdata);
        if given.level_max > CDP_LOG_INFO {
            return Err(Failure::argument(format!("{} is not a level of the log", given.level_max)));
        }
        let log = given.log.ok_or_else(|| Failure::argument("cdp_log_sink.log is NULL"))?;
        let level_max = if given.level_max == 0 { CDP_LOG_INFO } else { given.level_max };
        Ok(Some(Arc::new(Self { log, level_max, userdata, turn: parking_lot::Mutex::new(()) })))
    }

    pub fn line(&self, level: u32, text: &str) {
        if level > self.level_max {
            return;
        }
        let text = CString::new(text.replace(['\0', '\n'], " ")).unwrap_or_default();
        let _turn = self.turn.lock();
        // SAFETY: a function of the host with its own userdata and a text of this length.
        without_calls(|| unsafe {
            (self.log)(self.userdata.get(), level, text.as_ptr(), text.as_bytes().len());
        });
    }

    /// What the opening of a store has found; from then on its events.
    pub fn opened(self: &Arc<Self>, store: &Store) {
        let (recovery, newest) = (store.recovery(), store.newest().seq);
        self.line(CDP_LOG_INFO, &format!("the store {} was opened at seq {newest}", store.id()));
        if !recovery.clean {
            let (frames, bytes) = (recovery.tail_frames, recovery.tail_bytes);
            let text = format!(
                "the last owner did not close it in good order; {frames} frames of the tail ({bytes} bytes) were not whole and were cut off"
            );
            self.line(CDP_LOG_WARNING, &text);
        }
        for damage in recovery.damage.iter().take(DAMAGE_LINES_MAX) {
            self.line(CDP_LOG_ERROR, &format!("damage: {damage}"));
        }
        // A store that was just opened has none.
        let _ = store.set_event_sink(self.clone());
    }
}

impl HostLog {
    /// What the opening of a mirror set has found; from then on its events.
    pub fn mirror_opened(self: &Arc<Self>, set: &MirrorSet) {
        // A set that was just opened has none.
        let _ = set.set_event_sink(self.clone());
        let status = set.status();
        let text =
            format!("the mirror set was opened: {} copies of {} bytes", status.copies.len(), status.bytes);
        self.line(CDP_LOG_INFO, &text);
        if status.source.is_none() {
            let text = "no copy of the mirror set can be the source: nothing is read or written until it is decided who is right";
            self.line(CDP_LOG_ERROR, text);
        }
        for copy in &status.copies {
            let why = copy.trouble.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            let how = match copy.standing {
                Standing::Clean => continue,
                Standing::Dirty => format!("lacks or must compare {} bytes", copy.dirty_bytes),
                Standing::Offline => "takes no writes".to_owned(),
                Standing::Missing => "is missing".to_owned(),
                Standing::Refused => "cannot be brought together with the others".to_owned(),
            };
            self.line(CDP_LOG_WARNING, &format!("copy {} {how}{why}", copy.number));
        }
    }
}

fn level_of(severity: Severity) -> u32 {
    match severity {
        Severity::Error => CDP_LOG_ERROR,
        Severity::Warning => CDP_LOG_WARNING,
        Severity::Info => CDP_LOG_INFO,
    }
}

impl EventSink for HostLog {
    fn event(&self, event: &Event) {
        self.line(level_of(event.kind.severity()), &event.kind.to_string());
    }
}

impl MirrorSink for HostLog {
    fn event(&self, event: &MirrorEvent) {
        self.line(level_of(event.severity()), &event.to_string());
    }
}
