//! Another size for the volume: at every crash the old size or the new one, never a mix.
//!
//! Copies grow first, then the maps of the new size are written to extents of their own, then one change of the state names the new size and the new maps, then
//! copies are cut. Each old map is read before its new one is written (rule R18). What is new is dirty on every copy but the source, unless both are
//! known to read as zeroes there.

use super::{
    event::MirrorEvent,
    open::{failed, new_extent, new_map},
    set::{Geometry, Member, MirrorSet, no_source},
    unsynced::Unsynced,
    write::clear_all,
};
use crate::{
    Error, Result,
    dirty_map::{Base, MapFile, Shape},
    units::{BLOCK_BYTES, ExtentId, len_u64},
};

/// What is ready to be switched to.
struct Prepared {
    log: MapFile,
    log_extent: ExtentId,
    maps: Vec<(u32, ExtentId, MapFile)>,
}

impl MirrorSet {
    /// Gives the volume, and every copy, another size. No write is in flight meanwhile. When it fails while copies grow, the set goes on at the old size.
    ///
    /// # Errors
    /// `InvalidArgument` for a size that no volume can have; `MirrorRefused` while a copy is missing, or no copy lacks nothing; `Io`, `NoSpace` when a copy cannot be so
    /// large, or from the metadata, after which the set stops and opens at the old size or the new one.
    pub fn resize(&self, new_bytes: u64) -> Result<()> {
        let mut geometry = self.geometry.write();
        self.check_alive(&geometry)?;
        let shape = Shape::new(new_bytes, geometry.shape.granularity())?;
        let old_bytes = geometry.shape.bytes();
        if new_bytes == old_bytes {
            return Ok(());
        }
        self.flush_patiently(&geometry)?;
        let mut members = self.alone()?;
        if let Some(missing) = members.iter().find(|member| member.copy.is_none()) {
            let text = format!("copy {} is missing; bring it back or remove it, then resize", missing.number);
            return Err(Error::MirrorRefused(text));
        }
        let source =
            members.iter().find(|member| member.is_whole()).ok_or_else(|| no_source(&members))?.number;
        let unchanged = self.unchanged_offline(&members);
        let zeroed = if new_bytes > old_bytes { grow(&members, old_bytes, new_bytes)? } else { Vec::new() };
        let prepared = self.prepare(&members, shape, source, &zeroed);
        let prepared = self.or_stop(prepared)?;
        let mut old = Vec::new();
        let kept = old_bytes.min(new_bytes) / BLOCK_BYTES;
        self.update_state(|state| {
            old.push(state.log);
            (state.shape, state.log) = (shape, prepared.log_extent);
            state.next_extent = prepared.log_extent.get() + 1;
            state.sample.retain(|entry| entry.block < kept);
            for copy in &mut state.copies {
                copy.sample.retain(|entry| entry.block < kept);
                if let Some((_, extent, _)) = prepared.maps.iter().find(|(number, ..)| *number == copy.number)
                {
                    old.push(std::mem::replace(&mut copy.map, *extent));
                }
                if unchanged.contains(&copy.number) {
                    let found = members.iter().find(|member| member.number == copy.number);
                    let found = found.and_then(|member| member.copy.as_ref());
                    copy.stamp = found.and_then(|found| found.change_stamp().ok().flatten());
                }
            }
        })?;
        for (number, _, map) in prepared.maps {
            if let Some(member) = members.iter_mut().find(|member| member.number == number) {
                member.map = map;
            }
        }
        *geometry = Geometry { shape, log: prepared.log, closed: false };
        *self.unsynced.lock() = Unsynced::new(self.options.map.region_bytes);
        self.recent.lock().blocks.retain(|block| *block < kept);
        // What a copy lacked may lie past the new end.
        let numbers: Vec<u32> = members.iter().map(|member| member.number).collect();
        numbers.into_iter().try_for_each(|number| self.adopt(&mut members, number))?;
        for member in members.iter().filter(|_| new_bytes < old_bytes) {
            // One that stays larger is as good.
            let _ = member.copy.as_ref().map(|copy| copy.set_size(new_bytes));
        }
        // What stays is an orphan for the next open.
        old.into_iter().for_each(|extent| drop(self.storage.remove(extent)));
        self.sink.tell(|| MirrorEvent::Resized { bytes: new_bytes });
        Ok(())
    }

    /// Copies that are offline and were not changed by anybody else.
    fn unchanged_offline(&self, members: &[Member]) -> Vec<u32> {
        let state = self.meta.lock().current().clone();
        let same = |record: &&super::record::CopyRecord| {
            let found = members.iter().find(|member| member.number == record.number);
            let now = found.and_then(|member| member.copy.as_ref()).and_then(|copy| copy.change_stamp().ok());
            !record.online && record.stamp.is_some() && now == Some(record.stamp)
        };
        state.copies.iter().filter(same).map(|record| record.number).collect()
    }

    /// Writes the maps of the new size, durably. Nobody names them yet.
    fn prepare(&self, members: &[Member], shape: Shape, source: u32, zeroed: &[u32]) -> Result<Prepared> {
        let (set, session, first) = {
            let meta = self.meta.lock();
            let state = meta.current();
            (state.set, state.session, state.next_extent)
        };
        let mut maps = Vec::new();
        for (member, extent) in members.iter().zip(first..) {
            let extent = ExtentId::new(extent);
            let whole = member.is_whole();
            let map = member.map.resize_into(new_extent(&*self.storage, extent)?, shape.bytes())?;
            let equal = zeroed.contains(&source) && zeroed.contains(&member.number);
            let new = Member {
                number: member.number,
                copy: None,
                map,
                online: false,
                trouble: None,
                refused: None,
            };
            if whole && (member.number == source || equal) {
                clear_all(&new);
                new.map.checkpoint()?;
            }
            maps.push((new.number, extent, new.map));
        }
        let log_extent = ExtentId::new(first + len_u64(members.len()));
        let base = Base { device: set, generation: session, shape };
        let log = new_map(new_extent(&*self.storage, log_extent)?, base, self.options.log_options(), false)?;
        self.storage.sync_names().map_err(failed("sync the names of"))?;
        Ok(Prepared { log, log_extent, maps })
    }
}

/// Makes all copies larger; returns those whose new bytes are known to be zeroes.
fn grow(members: &[Member], old_bytes: u64, new_bytes: u64) -> Result<Vec<u32>> {
    let mut zeroed = Vec::new();
    for member in members {
        let Some(copy) = &member.copy else { continue };
        let failed = |error| Error::io("set the size of", format!("copy {}", member.number), error);
        let size = copy.size().map_err(failed)?;
        // Also where it is that large already, or larger: after a failure its size need not be durable.
        if copy.set_size(new_bytes.max(size)).map_err(failed)? && size == old_bytes {
            zeroed.push(member.number);
        }
    }
    Ok(zeroed)
}
