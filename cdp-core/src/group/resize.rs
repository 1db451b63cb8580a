//! Giving a volume another size.
//!
//! The change takes a seq, so that the size belongs to the points from there on and the old size to those before it. What a smaller size cuts off is
//! discarded under that seq: it reads as zeroes when the volume grows again. The discard, the size and what is then known of the
//! source are in one frame: after a crash there is all of it or nothing. A map of what differs from the source is made anew for the new
//! size, on an extent of its own, before the record names it; what is new of the volume is dirty in it, since nobody has compared it.

use super::{Group, tapping::Known};
use crate::{
    catalog::{StampRecord, TapMap, TapRecord, VolumeInfo, VolumeSize},
    dirty_map::{ByteRange, DirtyMap, Granularity, MapFileOptions, MapOptions, Shape},
    error::{Error, Result, SeqTime},
    format::meta::MetaRecord,
    journal::{PreparedWrite, WriteKind},
    limits::VOLUME_RESIZES_MAX,
    sabotage::Switch,
    units::{SECTOR_BYTES, Sector, SectorRange, Seq, TimeNs, VolumeId},
};

impl Group {
    /// Gives a volume another size; durable when this returns. `None`: it has it already. `import`: this begins the import of a seed set, which is recorded
    /// with it, for a volume of which this is known.
    ///
    /// # Errors
    /// `InvalidArgument` while a tap captures the volume, when it was resized too often, or when something else is known of it; those of appending: then it
    /// has either size, and after a reopen too.
    pub fn resize_volume(
        &self,
        volume: VolumeId,
        new_bytes: u64,
        import: Option<(Known, StampRecord)>,
    ) -> Result<Option<SeqTime>> {
        let _one = self.tapping.lock();
        loop {
            let info = self.catalog.read().volume(volume).cloned();
            let info = info.expect("volumes are not removed");
            if info.bytes == new_bytes {
                return Ok(None);
            }
            self.check_resize(&info)?;
            let known = self.known_of_tap(volume);
            if import.is_some_and(|(expected, _)| expected != known) {
                return Err(Error::InvalidArgument(format!(
                    "volume {} was changed meanwhile; try again",
                    info.name
                )));
            }
            let stamp = import.map(|(_, stamp)| stamp);
            let (state, map) = self.known_resized(&info, new_bytes, known)?.unzip();
            let next = (state.map(|state| (state, map.flatten())), stamp);
            let placed = self.place_resize(&info, new_bytes, known, next);
            let abandon = || self.remove_map(volume, map.flatten());
            match placed {
                Ok(Some((at, frame))) => {
                    self.make_durable_below(frame)?;
                    self.remove_map(volume, known.and_then(|(_, map)| map));
                    return Ok(Some(at));
                }
                // It was written inline meanwhile, and what was known of its source is gone.
                Ok(None) => abandon(),
                Err(error) => {
                    abandon();
                    return Err(error);
                }
            }
        }
    }

    fn check_resize(&self, info: &VolumeInfo) -> Result<()> {
        if self.has_tap(info.id) {
            return Err(Error::InvalidArgument(format!(
                "volume {} is captured by a tap, or a resync of it is under way; end that, give its source the new size, and begin again",
                info.name
            )));
        }
        if info.sizes.len() > VOLUME_RESIZES_MAX {
            return Err(Error::InvalidArgument(format!(
                "volume {} was resized {VOLUME_RESIZES_MAX} times, and that is the limit",
                info.name
            )));
        }
        Ok(())
    }

    /// Appends the change. `None`, and nothing was done: what is known of the source is no longer `known`.
    fn place_resize(
        &self,
        info: &VolumeInfo,
        new_bytes: u64,
        known: Known,
        (next, stamp): (Known, Option<StampRecord>),
    ) -> Result<Option<(SeqTime, crate::units::FrameNo)>> {
        let volume = info.id;
        let turn = self.take_turn();
        self.drain_captured(&turn)?;
        if self.known_of_tap(volume) != known {
            return Ok(None);
        }
        let cut = SectorRange {
            start: Sector::new(new_bytes / SECTOR_BYTES),
            sectors: info.bytes.saturating_sub(new_bytes) / SECTOR_BYTES,
        };
        let write = match cut.sectors > 0 && !self.shared.sabotage.on(Switch::KeepWhatWasCut) {
            true => PreparedWrite::range(volume, cut, WriteKind::Discard),
            // What is new was never written, or was discarded when it was cut off.
            false => PreparedWrite::stage(volume),
        };
        let resized =
            |from: Seq| MetaRecord::VolumeResized { id: volume, size: VolumeSize { from, bytes: new_bytes } };
        // The clock of the group does not move: no application has written.
        let (at, frame) = self.append_with(&turn, &write, TimeNs::ZERO, |at| {
            let set = next.map(|(state, map)| MetaRecord::TapSet { volume, state, map });
            let stamped = stamp.map(|record| MetaRecord::SourceStamped { volume, record });
            std::iter::once(resized(at.seq)).chain(set).chain(stamped).collect()
        })?;
        Ok(Some((at, frame.next())))
    }

    /// What is known of the source of a volume that has another size, when its source has it too.
    fn known_resized(
        &self,
        info: &VolumeInfo,
        new_bytes: u64,
        known: Known,
    ) -> Result<Option<(TapRecord, Option<TapMap>)>> {
        let Some((record, map)) = known else { return Ok(None) };
        let everything =
            Some((if record == TapRecord::Attached { record } else { TapRecord::Differs }, None));
        let granularity = match (record, map) {
            (TapRecord::Equal, _) if new_bytes < info.bytes => return Ok(Some((TapRecord::Equal, None))),
            (TapRecord::Equal, _) => Granularity::for_size(new_bytes),
            (_, Some(map)) => map.granularity,
            (_, None) => return Ok(everything),
        };
        let options = MapOptions { sabotage: self.shared.sabotage };
        let old = DirtyMap::with_options(Shape::new(info.bytes, granularity)?, options)?;
        if let Some(map) = map
            && let Err(error) = self.merge_stored_map(info, map, &old)
        {
            self.map_not_used(info, &error);
            return Ok(everything);
        }
        let new = old.resized(new_bytes)?;
        if new_bytes < info.bytes {
            // A block that the end now cuts may be another one.
            new.set(ByteRange::new(new_bytes - 1, 1));
        }
        let mut resized = info.clone();
        resized.bytes = new_bytes;
        let kept = if record == TapRecord::Attached { record } else { TapRecord::Differs };
        let (named, _) = self.create_map(&resized, &new, MapFileOptions::default())?;
        Ok(Some((kept, Some(named))))
    }
}
