//! Dirty maps that survive a crash: on an extent of a storage, kept true by an activity log.

use crate::{
    arguments::{Caller, check_flags, sized, text_into},
    dirty_map::{MapObject, cdp_dirty_map, granularity_of, map_handle},
    failure::{Failure, Outcome},
    guard::{guard, guard_status},
    handle::{get, kind, put, remove_family},
    status::{CDP_END, CDP_OK, cdp_status},
    storage::cdp_storage,
    types::cdp_uuid,
};
use cdp_core::{
    dirty_map::{Base, ByteRange, DirtyMap, MapFile, MapFileOptions, Pin, Shape},
    format::Uuid,
    units::ExtentId,
};
use parking_lot::Mutex;
use std::{ffi::c_char, mem::size_of, sync::Arc};

/// A dirty map on an extent.
pub struct cdp_map_file {
    _private: [u8; 0],
}
kind!(cdp_map_file, 26, "file of a dirty map", Arc<MapFile>);

/// A write that a map knows of.
pub struct cdp_map_write {
    _private: [u8; 0],
}
kind!(cdp_map_write, 27, "write that a dirty map knows of", Mutex<Option<Pin>>);

/// Writes do not go through the activity log: after a crash everything is dirty.
pub const CDP_MAP_WITHOUT_LOG: u32 = 1 << 0;
/// A new map begins with everything dirty. For cdp_map_file_create alone.
pub const CDP_MAP_ALL_DIRTY: u32 = 1 << 1;

/// What a map is a map of, and how it is used.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_map_file_options {
    /// sizeof(cdp_map_file_options).
    pub struct_size: u32,
    /// CDP_MAP_WITHOUT_LOG, CDP_MAP_ALL_DIRTY.
    pub flags: u32,
    /// Size of the volume, bytes; a multiple of 512. Required.
    pub bytes: u64,
    /// Bytes that one bit stands for, a power of two from 4096 to 1048576. 0: by the size of the volume.
    pub granularity_bytes: u64,
    /// What the host calls the volume.
    pub device: cdp_uuid,
    /// And its line of writes: a map of another generation is refused.
    pub generation: u64,
    /// Bytes of a region of the activity log, a power of two from the granularity on. 0: 4 MiB. For cdp_map_file_create alone.
    pub region_bytes: u64,
    /// Most regions that are active at a time, from 4. 0: as many as there may be.
    pub regions_active_max: u32,
    /// Records of the activity log, a power of two from 2 to 1024. 0: 8. For cdp_map_file_create alone.
    pub ring_records: u32,
}
sized!(cdp_map_file_options, 64);

/// It was closed in good order, and is exact.
pub const CDP_MAP_WAS_CLEAN: u32 = 1 << 0;
/// Everything is dirty; the text says why.
pub const CDP_MAP_WAS_LOST: u32 = 1 << 1;

/// What an open has found.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_map_file_opened {
    /// sizeof(cdp_map_file_opened).
    pub struct_size: u32,
    /// CDP_MAP_WAS_CLEAN, CDP_MAP_WAS_LOST.
    pub flags: u32,
    /// Regions that the activity log made dirty.
    pub regions_replayed: u64,
    /// Pages that were not whole and made all of their blocks dirty.
    pub pages_damaged: u64,
    /// Why everything is dirty, for people, NUL-terminated; "" where it is not.
    pub text: [c_char; 256],
}
sized!(cdp_map_file_opened, 280);

/// What is known of a map on an extent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_map_file_info {
    /// sizeof(cdp_map_file_info).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// What the host calls the volume.
    pub device: cdp_uuid,
    /// Its generation now.
    pub generation: u64,
    /// Most bytes of one write of cdp_map_file_begin: cut longer ones.
    pub write_bytes_max: u64,
}
sized!(cdp_map_file_info, 40);

fn base_and_options(
    caller: Caller,
    options: *const cdp_map_file_options,
    flags: u32,
) -> Outcome<(Base, MapFileOptions, bool)> {
    let given = caller.options(options)?;
    check_flags(given.flags, flags)?;
    let shape = Shape::new(given.bytes, granularity_of(given.granularity_bytes, given.bytes)?)?;
    let mut options =
        MapFileOptions { log: given.flags & CDP_MAP_WITHOUT_LOG == 0, ..MapFileOptions::default() };
    if given.region_bytes != 0 {
        options.region_bytes = given.region_bytes;
    }
    if given.regions_active_max != 0 {
        options.regions_active_max = given.regions_active_max as usize;
    }
    if given.ring_records != 0 {
        options.ring_records = given.ring_records;
    }
    let is_new = flags & CDP_MAP_ALL_DIRTY != 0;
    if !is_new && (given.region_bytes != 0 || given.ring_records != 0) {
        return Err(Failure::argument("region_bytes and ring_records are for a new map"));
    }
    let base = Base { device: Uuid(given.device.bytes), generation: given.generation, shape };
    Ok((base, options, given.flags & CDP_MAP_ALL_DIRTY != 0))
}

/// Makes a map on a new extent of a storage that no store and no mirror set uses, and opens it; durable when this returns. The storage is borrowed for the call, and
/// the map goes on using what it stands for. CDP_ERR_EXISTS when there is an extent of that number. Close it with cdp_map_file_close.
/// [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_create(
    storage: *mut cdp_storage,
    extent: u64,
    options: *const cdp_map_file_options,
    file_out: *mut *mut cdp_map_file,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("file_out", file_out)?;
        let storage = get(storage)?;
        let (base, options, is_dirty) =
            base_and_options(caller, options, CDP_MAP_WITHOUT_LOG | CDP_MAP_ALL_DIRTY)?;
        let map = DirtyMap::with_options(base.shape, options.map)?;
        if is_dirty {
            map.set_all();
        }
        let failed = |error| Failure::io("the extent of a dirty map", &error);
        let made = storage.create(ExtentId::new(extent), 0).map_err(failed)?;
        let file = MapFile::create(made, base.device, base.generation, map, options)
            .map_err(Failure::from)
            .and_then(|file| storage.sync_names().map(|()| file).map_err(failed));
        if file.is_err() {
            // What was begun is no map.
            let _ = storage.remove(ExtentId::new(extent));
        }
        out.put(put(Arc::new(file?), None)?);
        Ok(())
    })
}

/// Opens a map; from now on an end other than cdp_map_file_close is known to be a crash. opened_out, which may be NULL, is what was found. CDP_ERR_NOT_FOUND when there
/// is no such extent; CDP_ERR_MAP_REFUSED when it holds no map, or one of another device, generation, size or granularity: take everything for dirty, remove the
/// extent and make a new one. One map at a time is open on an extent: the host sees to that. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_open(
    storage: *mut cdp_storage,
    extent: u64,
    options: *const cdp_map_file_options,
    opened_out: *mut cdp_map_file_opened,
    file_out: *mut *mut cdp_map_file,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("file_out", file_out)?;
        let storage = get(storage)?;
        let found_out = caller.sized_out_optional(opened_out)?;
        let (base, options, _) = base_and_options(caller, options, CDP_MAP_WITHOUT_LOG)?;
        let found = storage.open(ExtentId::new(extent));
        let found = found.map_err(|error| Failure::io("the extent of a dirty map", &error))?;
        let (file, opened) = MapFile::open(found, base, options)?;
        out.put(put(Arc::new(file), None)?);
        if let Some(found_out) = found_out {
            let clean = if opened.clean { CDP_MAP_WAS_CLEAN } else { 0 };
            let lost = if opened.all_dirty.is_some() { CDP_MAP_WAS_LOST } else { 0 };
            found_out.put(&cdp_map_file_opened {
                struct_size: 0,
                flags: clean | lost,
                regions_replayed: opened.regions_replayed,
                pages_damaged: opened.pages_damaged,
                text: text_into(opened.all_dirty.as_deref().unwrap_or_default()),
            });
        }
        Ok(())
    })
}

/// Writes the map of the volume at its new size, a multiple of 512, as a new map on a new extent of a storage, and opens that: what is new is dirty; durable when this
/// returns. The old file is closed, with its maps and runs, and its variable is NULL; it stays on its extent as it was, for an open after a crash, until the host has switched
/// to the new one and removes it. CDP_ERR_INVALID_ARGUMENT while a write is in flight, CDP_ERR_EXISTS when there is an extent of that number; after any error the old file is
/// still in use. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_resize_into(
    file: *mut *mut cdp_map_file,
    storage: *mut cdp_storage,
    extent: u64,
    new_bytes: u64,
    file_out: *mut *mut cdp_map_file,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("file_out", file_out)?;
        let (old, storage) = (get(caller.variable(file)?.cast_const())?, get(storage)?);
        let failed = |error| Failure::io("the extent of a dirty map", &error);
        let made = storage.create(ExtentId::new(extent), 0).map_err(failed)?;
        let resized = old
            .resize_into(made, new_bytes)
            .map_err(Failure::from)
            .and_then(|resized| storage.sync_names().map(|()| resized).map_err(failed));
        if resized.is_err() {
            // What was begun is no map.
            let _ = storage.remove(ExtentId::new(extent));
        }
        out.put(put(Arc::new(resized?), None)?);
        if let Some(old) = caller.close(file)? {
            drop(remove_family(old.family()));
        }
        Ok(())
    })
}

/// The map itself, for the functions of cdp_dirty_map; closed with the file. What is set in it directly, and runs that become clean, are durable with the next
/// cdp_map_file_checkpoint. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_map(
    file: *const cdp_map_file,
    map_out: *mut *mut cdp_dirty_map,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("map_out", map_out)?;
        let held = get(file)?;
        out.put(map_handle(MapObject::OfFile(Arc::clone(&*held)), Some(held.family()))?);
        Ok(())
    })
}

/// What is known of the file. [any thread; waits for a change of the file that is under way]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_info_get(
    file: *const cdp_map_file,
    info_out: *mut cdp_map_file_info,
) -> cdp_status {
    guard(|caller| {
        let file = get(file)?;
        let out = caller.sized_out(info_out)?;
        let base = file.base();
        out.put(&cdp_map_file_info {
            struct_size: 0,
            flags: 0,
            device: base.device.into(),
            generation: base.generation,
            write_bytes_max: file.write_bytes_max(),
        });
        Ok(())
    })
}

/// Where too many regions are active it is not waited for others.
pub const CDP_MAP_NO_WAIT: u32 = 1 << 0;

/// To be called before a write of the range is submitted to the volume: when it returns, a crash from now on claims the range. Costs next to nothing where the
/// region is active; else one write to the storage, which all that wait share, and a wait for other writes to end where too many regions are active: with CDP_MAP_NO_WAIT in
/// flags it is CDP_END then, and write_out is NULL. End it with cdp_map_write_end. On failure the write must not be submitted.
/// CDP_ERR_INVALID_ARGUMENT for more than write_bytes_max. [any thread, several at once; waits for the storage and for writes under way]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_begin(
    file: *mut cdp_map_file,
    offset: u64,
    len: u64,
    flags: u32,
    write_out: *mut *mut cdp_map_write,
) -> cdp_status {
    guard_status(|caller| {
        let out = caller.out_handle("write_out", write_out)?;
        check_flags(flags, CDP_MAP_NO_WAIT)?;
        let held = get(file)?;
        let range = ByteRange::new(offset, len);
        let pin = match flags & CDP_MAP_NO_WAIT {
            0 => Some(held.begin_write(range)?),
            _ => held.try_begin_write(range)?,
        };
        let Some(pin) = pin else { return Ok(CDP_END) };
        out.put(put(Mutex::new(Some(pin)), Some(held.family()))?);
        Ok(CDP_OK)
    })
}

/// Says that a write has ended: durable_everywhere is 1 when it succeeded and is durable at the consumer too, and 0 when not, and its blocks become dirty then. Sets the
/// variable to NULL, which it may be already. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_write_end(
    write: *mut *mut cdp_map_write,
    durable_everywhere: u32,
) -> cdp_status {
    guard(|caller| {
        if durable_everywhere > 1 {
            return Err(Failure::argument(format!("{durable_everywhere} is neither 0 nor 1")));
        }
        if let Some(pin) = caller.close(write)?.and_then(|held| held.lock().take()) {
            pin.done(durable_everywhere == 1);
        }
        Ok(())
    })
}

/// Makes the map as it is durable. On failure no write is let through any more: close the file and make a new one. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_checkpoint(file: *mut cdp_map_file) -> cdp_status {
    guard(|_| Ok(get(file)?.checkpoint()?))
}

/// Makes everything dirty, durably; on failure it is so in memory. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_mark_all(file: *mut cdp_map_file) -> cdp_status {
    guard(|_| Ok(get(file)?.mark_all_dirty()?))
}

/// Gives the map another generation, which must be higher; durable when this returns. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_rotate(file: *mut cdp_map_file, generation: u64) -> cdp_status {
    guard(|_| Ok(get(file)?.rotate(generation)?))
}

/// Turns the activity log on (1) or off (0). After a crash everything is dirty, from the time when it was off to the next checkpoint with the log on.
/// [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_set_log(file: *mut cdp_map_file, on: u32) -> cdp_status {
    guard(|_| {
        let file = get(file)?;
        if on > 1 {
            return Err(Failure::argument(format!("{on} is neither 0 nor 1")));
        }
        Ok(file.set_log(on == 1)?)
    })
}

/// Closes the map exactly as it is, with its runs and writes under way, which are dirty in it, and sets the variable to NULL, which it may be already. The file is
/// closed whatever the status; after an error the next open takes it for a crash. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_map_file_close(file: *mut *mut cdp_map_file) -> cdp_status {
    guard(|caller| {
        let Some(held) = caller.close(file)? else { return Ok(()) };
        drop(remove_family(held.family()));
        Ok(held.save_clean()?)
    })
}
