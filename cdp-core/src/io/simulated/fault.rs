//! Faults that a test plans for a simulated disk: which call, how many such calls go well before, and what then happens.

use super::SimRng;
use crate::units::ExtentId;
use rustix::io::Errno;
use std::{fmt, io};

/// Kinds of calls on a storage and its extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `Storage::create`
    Create,
    /// `Storage::open`
    Open,
    /// `Storage::list`
    List,
    /// `Storage::remove`
    Remove,
    /// `Storage::sync_names`
    SyncNames,
    /// `Storage::lock_owner`, `lease` and `lock_out_readers`
    Lock,
    /// `Extent::read_at`
    Read,
    /// `Extent::write_at`
    Write,
    /// `Extent::sync`
    Sync,
    /// `Extent::size` and `allocated`
    Size,
    /// `Extent::set_size`
    SetSize,
}

impl Call {
    /// Whether a crash after this call can leave something else than a crash before it.
    pub fn is_change(self) -> bool {
        matches!(
            self,
            Self::Create | Self::Remove | Self::SyncNames | Self::Write | Self::Sync | Self::SetSize
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Error(Errno),
    Short,
    LostWrite,
    MisdirectedWrite { extent: ExtentId, offset: u64 },
    StaleRead,
    LyingSync,
}

/// One planned fault. It strikes the next matching call, once, unless said otherwise.
#[derive(Clone, Debug)]
pub struct Fault {
    call: Call,
    extent: Option<ExtentId>,
    calls_before: u64,
    forever: bool,
    action: Action,
}

impl Fault {
    fn new(call: Call, action: Action) -> Self {
        Self { call, extent: None, calls_before: 0, forever: false, action }
    }

    /// `call` fails with EIO. A write that fails may have been done in part. A sync that fails makes a random part of
    /// what it covers durable; the rest still reads as written and no later sync makes it durable.
    pub fn io_error(call: Call) -> Self {
        Self::new(call, Action::Error(Errno::IO))
    }

    /// `call` fails with ENOSPC; otherwise as [`Fault::io_error`].
    pub fn no_space(call: Call) -> Self {
        Self::new(call, Action::Error(Errno::NOSPC))
    }

    /// A read fails after a part of the buffer was filled.
    pub fn short_read() -> Self {
        Self::new(Call::Read, Action::Short)
    }

    /// A write fails after a part of it, cut at a sector, was done.
    pub fn short_write() -> Self {
        Self::new(Call::Write, Action::Short)
    }

    /// A write is reported as done and never happens.
    pub fn lost_write() -> Self {
        Self::new(Call::Write, Action::LostWrite)
    }

    /// A write is reported as done and goes to `offset` (rounded down to a block) of `extent` instead.
    pub fn misdirected_write(extent: ExtentId, offset: u64) -> Self {
        Self::new(Call::Write, Action::MisdirectedWrite { extent, offset })
    }

    /// A read returns what each of its blocks held before the last write to it.
    pub fn stale_read() -> Self {
        Self::new(Call::Read, Action::StaleRead)
    }

    /// A sync is reported as done and has no effect.
    pub fn lying_sync() -> Self {
        Self::new(Call::Sync, Action::LyingSync)
    }

    /// Lets `calls` matching calls go well before.
    pub fn after(mut self, calls: u64) -> Self {
        self.calls_before = calls;
        self
    }

    /// Strikes every matching call from then on.
    pub fn forever(mut self) -> Self {
        self.forever = true;
        self
    }

    /// Only calls on this extent match.
    pub fn on(mut self, extent: ExtentId) -> Self {
        self.extent = Some(extent);
        self
    }
}

/// The faults that are still to come.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultPlan {
    faults: Vec<Fault>,
    pub(super) fired: u64,
}

impl FaultPlan {
    pub(super) fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }

    /// Counts a call, and says what is to happen to it. Of several faults that are due the one planned first strikes;
    /// the others wait for the next matching call.
    pub(super) fn strike(&mut self, call: Call, extent: Option<ExtentId>) -> Option<Action> {
        let mut struck = None;
        for (index, fault) in self.faults.iter_mut().enumerate() {
            if fault.call != call || (fault.extent.is_some() && fault.extent != extent) {
                continue;
            }
            if fault.calls_before > 0 {
                fault.calls_before -= 1;
            } else if struck.is_none() {
                struck = Some(index);
            }
        }
        let index = struck?;
        self.fired += 1;
        let action = self.faults[index].action;
        if !self.faults[index].forever {
            self.faults.remove(index);
        }
        Some(action)
    }
}

/// Which part of a write or read of `sectors` sectors is done before it fails: at least none, never all.
pub(super) fn short_sectors(rng: &mut SimRng, sectors: u64) -> u64 {
    if sectors == 0 { 0 } else { rng.below(sectors) }
}

/// What every call returns once the simulated machine has stopped.
#[derive(Debug)]
struct SimulatedStop;

impl fmt::Display for SimulatedStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated machine has stopped")
    }
}

impl std::error::Error for SimulatedStop {}

pub(super) fn stop_error() -> io::Error {
    io::Error::other(SimulatedStop)
}

/// Whether an error says that the simulated machine has stopped, as `stop_at_call` and `stop_at_change` asked for.
pub fn is_simulated_stop(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<SimulatedStop>())
}
