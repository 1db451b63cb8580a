//! The activity log of a tap: after an unclean end only what was being written is compared, not the whole source.
//!
//! A write is begun before it is submitted: when that returns, the log names its regions durably. They stay pinned after the write has ended,
//! until the journal is durable behind it *and* the source has made it durable: a power cut may take a write back from either. For that,
//! the pins of all writes that have ended are taken together, the journal is flushed, then the source, and the pins are let go. At most one pin
//! is kept for a region, so their number is bounded by that of the active regions.
//!
//! Invariants: *pin* - a region with a write that either side may lose is named by the log; *never untracked* - while the log cannot
//! be written no write is let through, unless it is durable first that there is no log. Ranges that are too long for the log, and writes that
//! were never begun, turn it off, durably, until they are durable.

use super::SourceReader;
use crate::{
    catalog::{TapMap, VolumeInfo},
    dirty_map::{ByteRange, MapFile, Pin},
    error::{Error, Result},
    event::EventKind,
    group::Group,
    sabotage::Switch,
    units::SECTOR_BYTES,
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

/// Longest wait for writes in flight to end before it is looked again whether there is room.
const WAIT: Duration = Duration::from_millis(10);

/// Pins of writes that have ended.
#[derive(Default)]
struct Retained {
    regions: BTreeSet<u32>,
    pins: Vec<Pin>,
    /// One of them is of a write that the log does not know.
    unlogged: bool,
}

impl Retained {
    /// Keeps a pin, unless its regions are kept already.
    fn add(&mut self, pin: Pin) {
        let known = match pin.regions() {
            None => mem::replace(&mut self.unlogged, true),
            Some(regions) => {
                let before = self.regions.len();
                self.regions.extend(regions.clone());
                self.regions.len() == before
            }
        };
        if known {
            pin.done(true);
        } else {
            self.pins.push(pin);
        }
    }
}

/// The activity log of a tap.
pub(crate) struct TapLog {
    file: MapFile,
    info: Arc<VolumeInfo>,
    source: Arc<dyn SourceReader>,
    /// How the record of the tap names its file.
    pub named: TapMap,
    retained: Mutex<Retained>,
    ended: Condvar,
    /// Held while the log is turned off or on, and while pins are let go.
    tending: Mutex<()>,
    bypassed: AtomicBool,
    /// It is durable that there is no log.
    gone: AtomicBool,
}

impl TapLog {
    pub fn new(file: MapFile, named: TapMap, info: Arc<VolumeInfo>, source: Arc<dyn SourceReader>) -> Self {
        Self {
            file,
            info,
            source,
            named,
            retained: Mutex::default(),
            ended: Condvar::new(),
            tending: Mutex::new(()),
            bypassed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// Returns when an unclean end from now on claims `range`. `None` when an unclean end claims everything anyhow.
    ///
    /// # Errors
    /// Those of the log, when it cannot be made durable either that there is none. Those of the store and the source while too much waits to
    /// become durable.
    pub fn begin(&self, group: &Group, range: ByteRange) -> Result<Option<Pin>> {
        loop {
            if self.gone.load(SeqCst) {
                return Ok(None);
            }
            let begun = match range.bytes > self.file.write_bytes_max() {
                true => self.begin_unlogged(range).map(Some),
                false => self.file.try_begin_write(range),
            };
            match begun {
                Ok(Some(pin)) => return Ok(Some(pin)),
                Ok(None) if self.tend(group)? => {}
                Ok(None) => {
                    // All regions are pinned by writes in flight.
                    let mut retained = self.retained.lock();
                    if retained.pins.is_empty() {
                        self.ended.wait_for(&mut retained, WAIT);
                    }
                }
                Err(error) => self.give_up(group, error)?,
            }
        }
    }

    /// Lets a write through that is too long for the log.
    fn begin_unlogged(&self, range: ByteRange) -> Result<Pin> {
        let _one = self.tending.lock();
        self.file.set_log(false)?;
        let pin = self.file.begin_write(ByteRange::new(range.offset, SECTOR_BYTES))?;
        self.file.set_log(true)?;
        Ok(pin)
    }

    /// A write has ended, and is in the pool or marked.
    pub fn ended(&self, pin: Pin) {
        self.retained.lock().add(pin);
        self.ended.notify_all();
    }

    /// Something was captured or marked that was not begun.
    pub fn bypass(&self) {
        if !self.bypassed.load(SeqCst) {
            self.bypassed.store(true, SeqCst);
        }
    }

    /// Whether [`TapLog::tend`] should be called.
    pub fn needs_tending(&self) -> bool {
        if self.gone.load(SeqCst) {
            return false;
        }
        let retained = self.retained.lock();
        let many = retained.regions.len() > self.file.regions_active_max() / 2;
        many || retained.unlogged || self.bypassed.load(SeqCst)
    }

    /// Makes durable what the pins of ended writes stand for, on both sides, and lets go of them. Returns whether there were any.
    ///
    /// # Errors
    /// Those of the store and the source; the pins stay.
    pub fn tend(&self, group: &Group) -> Result<bool> {
        match self.try_tend(group) {
            Err((true, error)) => self.give_up(group, error).map(|()| true),
            outcome => outcome.map_err(|(_, error)| error),
        }
    }

    /// An error comes with whether it is one of the log.
    fn try_tend(&self, group: &Group) -> Result<bool, (bool, Error)> {
        let _one = self.tending.lock();
        if self.gone.load(SeqCst) {
            return Ok(false);
        }
        let of_log = |error| (true, error);
        let bypassed = self.bypassed.swap(false, SeqCst);
        if bypassed {
            self.file.set_log(false).map_err(of_log)?;
            let volume = self.info.name.clone();
            group.events.push(group.shared.clock.now(), EventKind::LogBypassed { volume });
        }
        let closing = mem::take(&mut *self.retained.lock());
        if closing.pins.is_empty() && !bypassed {
            return Ok(false);
        }
        let sabotage = group.shared.sabotage;
        let synced = match sabotage.on(Switch::LetGoBeforeDurable) {
            true => Ok(()),
            false => group.flush().map(|_| ()),
        };
        let synced = synced.and_then(|()| match sabotage.on(Switch::LetGoBeforeSource) {
            true => Ok(()),
            false => self.sync_source(),
        });
        if let Err(error) = synced {
            let mut retained = self.retained.lock();
            closing.pins.into_iter().for_each(|pin| retained.add(pin));
            self.bypassed.fetch_or(bypassed, SeqCst);
            return Err((false, error));
        }
        let unlogged = closing.unlogged || bypassed;
        closing.pins.into_iter().for_each(|pin| pin.done(true));
        if unlogged {
            self.file.set_log(true).map_err(of_log)?;
            self.file.checkpoint().map_err(of_log)?;
        }
        Ok(true)
    }

    fn sync_source(&self) -> Result<()> {
        self.source.sync().map_err(|error| Error::io("sync", super::SOURCE, error))
    }

    /// Makes durable what was set in the map directly.
    ///
    /// # Errors
    /// As [`TapLog::begin`].
    pub fn checkpoint(&self, group: &Group) -> Result<()> {
        if self.gone.load(SeqCst) {
            return Ok(());
        }
        self.file.checkpoint().or_else(|error| self.give_up(group, error))
    }

    /// Goes on without the log, if it can be made durable that there is none.
    fn give_up(&self, group: &Group, error: Error) -> Result<()> {
        if group.forget_map(self.info.id, self.named).is_err() {
            return Err(error);
        }
        if !self.gone.swap(true, SeqCst) {
            let kind = EventKind::LogLost { volume: self.info.name.clone(), error: error.to_string() };
            group.events.push(group.shared.clock.now(), kind);
        }
        Ok(())
    }

    /// The tap has ended, and so has every write: the file is exactly the map. What fails costs only exactness.
    pub fn close(&self) {
        let _ = self.file.save_clean();
    }

    /// The name of the file, while there is a log.
    pub fn in_force(&self) -> Option<TapMap> {
        (!self.gone.load(SeqCst)).then_some(self.named)
    }
}
