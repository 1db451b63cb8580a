//! Taps begin and end, and the maps that outlive them.
//!
//! What is known of a tap is one record: whether it is at work, ended equal to its source, or ended while blocks differed; in the last case
//! a map on an extent of its own says which. The record names the map, so that both change in one step, and the map is durable before the
//! record is appended. An extent that no record names is an orphan, which the next open removes.
//! Invariant *named base*: a map is believed only under the store, volume, size and extent that it was made for, and the owner epoch in
//! which that was.

use super::{
    Group,
    append::{SeqRule, Stamp, Turn},
    drain::Reach,
};
use crate::{
    capture::{Capture, Mode, tap::TapState},
    catalog::{GapReason, StampRecord, TapMap, TapRecord, VolumeInfo},
    dirty_map::{Base, DirtyMap, MapFile, MapFileOptions, MapOptions, Opened, Shape},
    error::{Error, Result},
    event::EventKind,
    format::{Uuid, meta::MetaRecord},
    journal::PreparedWrite,
    sabotage::Switch,
    units::{SECTOR_BYTES, Seq, VolumeId},
};
use std::sync::Arc;

/// What was known of a tap: its record and its map.
pub(crate) type Known = Option<(TapRecord, Option<TapMap>)>;

/// What is recorded of a tap that is put to work.
pub(crate) struct AttachRecord {
    /// What was known of the volume when it was decided what may differ.
    pub known: Known,
    /// The newest seq then, where that matters.
    pub newest: Option<Seq>,
    /// Why a gap opens; `None`: one is open, or none is needed yet.
    pub gap: Option<GapReason>,
    /// The map file that keeps its claim across a crash.
    pub map: Option<TapMap>,
    /// Nobody captures from the source: after an unclean end the map is what may differ, and the source is as the stamp says.
    pub alone: Option<Option<StampRecord>>,
}

/// The records that say what is known of a tap, to be appended together.
fn tap_records(
    volume: VolumeId,
    state: TapRecord,
    map: Option<TapMap>,
    stamp: Option<StampRecord>,
) -> Vec<MetaRecord> {
    let set = MetaRecord::TapSet { volume, state, map };
    let stamped = stamp.map(|record| MetaRecord::SourceStamped { volume, record });
    std::iter::once(set).chain(stamped).collect()
}

impl Group {
    /// What is known of the tap of a volume.
    pub fn known_of_tap(&self, volume: VolumeId) -> Known {
        self.catalog.read().tap_with_map(volume)
    }

    /// Puts a tap to work. Returns false, and has done nothing, when what is known of the volume has changed. Called with `tapping` held.
    ///
    /// # Errors
    /// Those of appending.
    pub fn attach_tap(&self, capture: &Capture, tap: &Arc<TapState>, record: &AttachRecord) -> Result<bool> {
        let volume = tap.volume();
        let records = match record.alone {
            Some(stamp) => tap_records(volume, TapRecord::Differs, record.map, stamp),
            None => tap_records(volume, TapRecord::Attached, record.map, None),
        };
        let frame = {
            let turn = self.take_turn();
            self.drain_captured(&turn)?;
            self.settle(&turn, true)?;
            let newest = self.append.lock().last_seq;
            if self.known_of_tap(volume) != record.known || record.newest.is_some_and(|seq| seq != newest) {
                return Ok(false);
            }
            let open = self.catalog.read().gaps(volume).is_some_and(|gaps| gaps.open().is_some());
            let frame = match record.gap.filter(|_| !open) {
                Some(reason) => {
                    let time = self.append.lock().newest_time;
                    self.open_gap(&turn, volume, time, reason, &records)?;
                    self.appended_below()
                }
                None => self.append_records(&turn, records, None)?.next(),
            };
            capture.add(tap.clone());
            frame
        };
        self.make_durable_below(frame).inspect_err(|_| {
            let _turn = self.take_turn();
            capture.remove(volume);
            // It is recorded as attached, and nobody watches its source.
            let open = self.catalog.read().gaps(volume).is_some_and(|gaps| gaps.open().is_some());
            if record.alone.is_none() && !open {
                self.left_behind.lock().push(volume);
            }
        })?;
        self.remove_map(volume, record.known.and_then(|(_, map)| map));
        Ok(true)
    }

    /// Takes a tap off: what it captured is durable then, and whether the volume equals its source is recorded, with a map of what differs.
    /// `settle` turns clean what resync has copied and is durable, and lets go of all that an activity log keeps; it gives the map file of that.
    /// `stamp` is the source as it is now.
    ///
    /// # Errors
    /// Those of appending. Once the record is in the journal the tap is off, even if that could not be made durable yet: a tap that went on
    /// behind a record which calls the volume equal would be believed after a crash.
    pub fn detach_tap(
        &self,
        capture: &Capture,
        tap: &Arc<TapState>,
        settle: impl FnOnce() -> Result<Option<TapMap>>,
        stamp: Option<StampRecord>,
    ) -> Result<()> {
        let _one = self.tapping.lock();
        let volume = tap.volume();
        let info = self.catalog.read().volume(volume).cloned();
        let info = info.expect("a tap is on a volume that exists");
        if tap.in_flight.has_any() {
            let name = info.name;
            return Err(Error::InvalidArgument(format!(
                "writes to the source of volume {name} are in flight; end them before the tap"
            )));
        }
        if !tap.map().is_empty() {
            self.flush()?;
        }
        let own = settle()?;
        let early =
            self.shared.sabotage.on(Switch::StoreMapBeforeDrain).then(|| self.keep_map(&info, tap.map()));
        let known = self.known_of_tap(volume);
        let frame = {
            let turn = self.take_turn();
            self.drain(&turn, capture, Reach::Behind(capture.pool.boundary()))?;
            let equal = tap.mode() == Mode::Data && tap.wished().is_none() && tap.map().is_empty();
            let (state, map) = match equal {
                true => (TapRecord::Equal, None),
                false => (
                    TapRecord::Differs,
                    early.unwrap_or_else(|| own.or_else(|| self.keep_map(&info, tap.map()))),
                ),
            };
            let stamp = stamp.map(|record| match equal {
                true => StampRecord { unfinished: None, ..record },
                false => record,
            });
            let frame = self.append_records(&turn, tap_records(volume, state, map, stamp), None)?;
            capture.remove(volume);
            frame.next()
        };
        self.make_durable_below(frame)?;
        self.remove_map(volume, known.and_then(|(_, map)| map));
        Ok(())
    }

    /// Takes a tap off without a record: what was recorded when it was put to work must hold whatever becomes of its source.
    pub fn abandon_tap(&self, capture: &Capture, tap: &Arc<TapState>) {
        let _turn = self.take_turn();
        if capture.tap(tap.volume()).is_some_and(|other| Arc::ptr_eq(&other, tap)) {
            capture.remove(tap.volume());
        }
    }

    /// Appends one write to a volume that is its own disk.
    ///
    /// # Errors
    /// `InvalidArgument` when a tap captures the volume: its source is the disk then, and a write here would make the two differ. Those of
    /// appending.
    pub fn append_inline(&self, write: &PreparedWrite<'_>, stamp: Stamp) -> Result<Seq> {
        let turn = self.take_turn();
        self.drain_captured(&turn)?;
        self.leave_source(&turn, write.volume())?;
        let (volume, range, ..) = write.content();
        let volume_bytes = self.catalog.read().volume(volume).map_or(u64::MAX, |info| info.bytes);
        if range.end().get() > volume_bytes / SECTOR_BYTES {
            // It was cut since the range was checked.
            let offset = range.start.get() * SECTOR_BYTES;
            return Err(Error::OutOfRange { offset, length: range.bytes(), volume_bytes });
        }
        self.append_in_turn(&turn, write, stamp, SeqRule::Next)
    }

    /// A volume is about to be written inline: whatever was known of its source is no longer. The record lies before the write in the
    /// journal, so that no crash leaves the write without it. Its map is an orphan from then on.
    fn leave_source(&self, turn: &Turn<'_>, volume: VolumeId) -> Result<()> {
        if self.has_tap(volume) {
            let name = self.name_of(volume);
            return Err(Error::InvalidArgument(format!(
                "volume {name} is captured by a tap; write to its source"
            )));
        }
        let state = match self.known_of_tap(volume) {
            Some((TapRecord::Equal, _) | (TapRecord::Differs, Some(_))) => TapRecord::Differs,
            Some((TapRecord::Attached, Some(_))) => TapRecord::Attached,
            _ => return Ok(()),
        };
        if self.shared.sabotage.on(Switch::KeepMapOfWritten) {
            return Ok(());
        }
        self.append_records(turn, vec![MetaRecord::TapSet { volume, state, map: None }], None)?;
        Ok(())
    }

    /// Writes a map to an extent of its own, durably, and says how a record names it. Without one everything is compared.
    fn keep_map(&self, info: &VolumeInfo, map: &DirtyMap) -> Option<TapMap> {
        match self.create_map(info, map, MapFileOptions::default()) {
            Ok((named, file)) => {
                // It is durable as it is; this says that nothing is under way, so that a check may judge all of it.
                let _ = file.save_clean();
                Some(named)
            }
            Err(error) => {
                self.map_not_used(info, &error);
                None
            }
        }
    }

    /// Makes a map file of a map, durably. No record names it yet.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; nothing is left behind then, or an orphan.
    pub fn create_map(
        &self,
        info: &VolumeInfo,
        map: &DirtyMap,
        options: MapFileOptions,
    ) -> Result<(TapMap, MapFile)> {
        let extent = self.manifest.lock().log()?.allocate_extent();
        let storage = &self.shared.storage;
        let named = TapMap {
            extent,
            generation: self.shared.owner_epoch.get(),
            granularity: map.shape().granularity(),
        };
        let base = self.base_of(info, named)?;
        let handle = storage
            .create(extent, 0)
            .map_err(|error| Error::io("create", storage.describe(extent), error))?;
        let made = MapFile::create(handle, base.device, base.generation, map.share(), options);
        let named_durably = made.and_then(|file| {
            storage
                .sync_names()
                .map_err(|error| Error::io("sync names of", storage.describe(extent), error))?;
            Ok((named, file))
        });
        named_durably.inspect_err(|_| self.remove_extents(&[extent]))
    }

    /// Adds what a stored map claims to `map`.
    ///
    /// # Errors
    /// When it cannot be read, or is not the map that the record names: everything must be taken for dirty.
    pub fn merge_stored_map(&self, info: &VolumeInfo, named: TapMap, map: &DirtyMap) -> Result<Opened> {
        let handle = self.shared.storage.open(named.extent);
        let handle =
            handle.map_err(|error| Error::io("open", self.shared.storage.describe(named.extent), error))?;
        let options = MapFileOptions {
            map: MapOptions { sabotage: self.shared.sabotage },
            ..MapFileOptions::default()
        };
        let opened = MapFile::open(handle, self.base_of(info, named)?, options);
        if opened.is_err() && self.shared.sabotage.on(Switch::BelieveAnyMap) {
            return Ok(Opened::default());
        }
        let (file, opened) = opened?;
        map.merge(file.map())?;
        Ok(opened)
    }

    /// Notes that a map could not be kept or read, so that everything is compared.
    pub fn map_not_used(&self, info: &VolumeInfo, error: &Error) {
        let kind = EventKind::MapNotUsed { volume: info.name.clone(), error: error.to_string() };
        self.events.push(self.shared.clock.now(), kind);
    }

    /// It is durable when this returns that no map says what differs: after an unclean end everything is compared.
    ///
    /// # Errors
    /// Those of appending.
    pub fn forget_map(&self, volume: VolumeId, map: TapMap) -> Result<()> {
        let frame = {
            let turn = self.take_turn();
            match self.known_of_tap(volume) {
                Some((state, Some(known))) if known == map => self
                    .append_records(&turn, vec![MetaRecord::TapSet { volume, state, map: None }], None)?
                    .next(),
                _ => self.appended_below(),
            }
        };
        self.make_durable_below(frame)
    }

    /// Removes a map that no record names any more, durably so, or that none came to name.
    pub fn remove_map(&self, volume: VolumeId, map: Option<TapMap>) {
        let named = self.known_of_tap(volume).and_then(|(_, map)| map).map(|map| map.extent);
        if let Some(map) = map.filter(|map| named != Some(map.extent)) {
            self.remove_extents(&[map.extent]);
        }
    }

    /// What a stored map must say that it is a map of.
    pub(super) fn base_of(&self, info: &VolumeInfo, named: TapMap) -> Result<Base> {
        let mut device = self.shared.store.0;
        let own = named.extent.get().to_le_bytes().into_iter().chain(info.id.get().to_le_bytes());
        device.iter_mut().zip(own).for_each(|(byte, own)| *byte ^= own);
        let shape = Shape::new(info.bytes, named.granularity)?;
        Ok(Base { device: Uuid(device), generation: named.generation, shape })
    }
}
