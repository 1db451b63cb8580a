//! Dirty maps by themselves: which blocks of a volume are not known to be in a consumer, for hosts that keep copies or peers of their own.

use crate::{
    arguments::{Caller, sized},
    failure::Outcome,
    guard::{guard, guard_status},
    handle::{Family, get, kind, put, remove_family},
    snapshot::{ExtentRow, cdp_extent_iter},
    status::{CDP_END, CDP_OK, cdp_status},
    types::{cdp_extent, cdp_uuid},
};
use cdp_core::{
    dirty_map::{Base, ByteRange, DirtyMap, Granularity, InResync, MapFile, Shape, wire},
    format::Uuid,
};
use parking_lot::Mutex;
use std::{ffi::c_void, mem::size_of, ops::Deref, sync::Arc};

/// A dirty map.
pub struct cdp_dirty_map {
    _private: [u8; 0],
}
kind!(cdp_dirty_map, 24, "dirty map", MapObject);

/// A run of blocks that is being copied.
pub struct cdp_dirty_run {
    _private: [u8; 0],
}
kind!(cdp_dirty_run, 25, "run of a dirty map", Mutex<Option<InResync>>);

/// A map in memory alone, or that of a file.
pub enum MapObject {
    /// In memory.
    Own(DirtyMap),
    /// Kept true by an activity log.
    OfFile(Arc<MapFile>),
}

impl Deref for MapObject {
    type Target = DirtyMap;

    fn deref(&self) -> &DirtyMap {
        match self {
            Self::Own(map) => map,
            Self::OfFile(file) => file.map(),
        }
    }
}

/// A dirty map as it is now.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_dirty_map_info {
    /// sizeof(cdp_dirty_map_info).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Size of the volume, bytes.
    pub bytes: u64,
    /// Bytes that one bit stands for.
    pub granularity_bytes: u64,
    /// Bytes of the claim: of the blocks that are dirty or in a run, at most those of the volume.
    pub dirty_bytes: u64,
}
sized!(cdp_dirty_map_info, 32);

pub(crate) fn granularity_of(granularity_bytes: u64, bytes: u64) -> Outcome<Granularity> {
    match granularity_bytes {
        0 => Ok(Granularity::for_size(bytes)),
        given => Ok(Granularity::new(given)?),
    }
}

pub(crate) fn map_handle(map: MapObject, family: Option<&Arc<Family>>) -> Outcome<*mut cdp_dirty_map> {
    put(map, family)
}

/// Makes a map of a volume of this many bytes, a multiple of 512, with nothing dirty in it. One bit stands for granularity_bytes, a power of two from 4096 to
/// 1048576; 0: by the size of the volume. Memory is taken as bits are set. Close it with cdp_dirty_map_close. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_create(
    bytes: u64,
    granularity_bytes: u64,
    map_out: *mut *mut cdp_dirty_map,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("map_out", map_out)?;
        let map = DirtyMap::new(bytes, granularity_of(granularity_bytes, bytes)?)?;
        out.put(map_handle(MapObject::Own(map), None)?);
        Ok(())
    })
}

/// Makes the map that the bytes of cdp_dirty_map_encode or cdp_tap_dirty_map_get hold, for a volume of this many bytes, under this device and generation.
/// CDP_ERR_MAP_REFUSED when they are no map, or one of another device, generation or size: take everything for dirty. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_decode(
    buf: *const c_void,
    len: usize,
    bytes: u64,
    device: cdp_uuid,
    generation: u64,
    map_out: *mut *mut cdp_dirty_map,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("map_out", map_out)?;
        let encoded = caller.bytes("buf", buf, len)?;
        let refused = |error: cdp_core::format::Malformed| cdp_core::Error::MapRefused(error.to_string());
        let named = wire::base_of(encoded).map_err(refused)?;
        let shape = Shape::new(bytes, named.shape.granularity())?;
        let map = wire::decode(encoded, Base { device: Uuid(device.bytes), generation, shape })?;
        out.put(map_handle(MapObject::Own(map), None)?);
        Ok(())
    })
}

/// The claim of the map as bytes for a peer, under a device and a generation that the caller names. len_out is the size that is needed, also with
/// CDP_ERR_BUFFER_TOO_SMALL, when the buffer is untouched; buf may be NULL with len 0. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_encode(
    map: *const cdp_dirty_map,
    device: cdp_uuid,
    generation: u64,
    buf: *mut c_void,
    len: usize,
    len_out: *mut usize,
) -> cdp_status {
    guard(|caller| {
        let map = get(map)?;
        let base = Base { device: Uuid(device.bytes), generation, shape: map.shape() };
        caller.fill(&wire::encode(&map, base), buf, len, len_out)
    })
}

/// Makes every block dirty that the range touches; what lies past the end of the volume is ignored. Lock-free. A run that is being copied is dirty again whatever
/// becomes of it. [any thread, several at once; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_set(map: *mut cdp_dirty_map, offset: u64, len: u64) -> cdp_status {
    guard(|_| {
        get(map)?.set(ByteRange::new(offset, len));
        Ok(())
    })
}

/// Makes every block dirty. [any thread, several at once; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_set_all(map: *mut cdp_dirty_map) -> cdp_status {
    guard(|_| {
        get(map)?.set_all();
        Ok(())
    })
}

/// As cdp_dirty_map_set for many ranges: what the host's own tracking of changed blocks says. CDP_ERR_OUT_OF_RANGE for the first range that reaches past the end of
/// the volume; those before it are dirty. [any thread, several at once; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_set_extents(
    map: *mut cdp_dirty_map,
    extents: *const cdp_extent,
    count: usize,
) -> cdp_status {
    guard(|caller| {
        let extents = caller.items("extents", extents, count)?.iter();
        Ok(get(map)?.import(extents.map(|extent| ByteRange::new(extent.offset, extent.len)))?)
    })
}

/// Makes everything dirty that the other map claims, which stays as it is. CDP_ERR_INVALID_ARGUMENT when they are of volumes of different sizes.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_merge(
    map: *mut cdp_dirty_map,
    other: *const cdp_dirty_map,
) -> cdp_status {
    guard(|_| {
        let (map, other) = (get(map)?, get(other)?);
        Ok(map.merge(&other)?)
    })
}

/// Makes the map of the volume after it was given another size: what is claimed stays dirty, and all that is new is. Sets that come meanwhile may be missing in it:
/// hold them back, or set in both. The old map stays as it is. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_resized(
    map: *const cdp_dirty_map,
    bytes: u64,
    map_out: *mut *mut cdp_dirty_map,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("map_out", map_out)?;
        let resized = get(map)?.resized(bytes)?;
        out.put(map_handle(MapObject::Own(resized), None)?);
        Ok(())
    })
}

/// Size, granularity and claim. The claim is counted: up to some milliseconds for 1 TiB in blocks of 4 KiB. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_info_get(
    map: *const cdp_dirty_map,
    info_out: *mut cdp_dirty_map_info,
) -> cdp_status {
    guard(|caller| {
        let map = get(map)?;
        let out = caller.sized_out(info_out)?;
        let (bytes, granularity_bytes) = (map.shape().bytes(), map.shape().granularity().bytes());
        let dirty_bytes = map.weight().saturating_mul(granularity_bytes).min(bytes);
        out.put(&cdp_dirty_map_info { struct_size: 0, flags: 0, bytes, granularity_bytes, dirty_bytes });
        Ok(())
    })
}

/// Stores 1 when any block that the range touches is dirty or in a run, else 0. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_is_dirty(
    map: *const cdp_dirty_map,
    offset: u64,
    len: u64,
    dirty_out: *mut u32,
) -> cdp_status {
    guard(|caller| {
        let map = get(map)?;
        let out = caller.out("dirty_out", dirty_out)?;
        out.put(u32::from(map.is_dirty(ByteRange::new(offset, len))));
        Ok(())
    })
}

/// The first dirty byte at or after offset; blocks that are only in a run do not count. CDP_END, and next_out untouched, when there is none.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_next(
    map: *const cdp_dirty_map,
    offset: u64,
    next_out: *mut u64,
) -> cdp_status {
    guard_status(|caller| {
        let map = get(map)?;
        let out = caller.out("next_out", next_out)?;
        let block_bytes = map.shape().granularity().bytes();
        let found = (offset < map.shape().bytes()).then(|| map.next_dirty(offset / block_bytes)).flatten();
        let Some(block) = found else { return Ok(CDP_END) };
        out.put((block * block_bytes).max(offset));
        Ok(CDP_OK)
    })
}

/// Lists the claim: what is dirty or in a run, ascending, merged, cut at the end of the volume. Close the list with cdp_extent_iter_close.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_extents(
    map: *const cdp_dirty_map,
    iter_out: *mut *mut cdp_extent_iter,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("iter_out", iter_out)?;
        let held = get(map)?;
        let claim: Vec<ByteRange> = held.extents().collect();
        out.put(ExtentRow::handle(&claim, held.family())?);
        Ok(())
    })
}

/// Takes the next dirty run at or after the block of offset to copy it, at most bytes_max bytes and at least a block: extent_out is what to copy. Read it from the
/// volume after this has returned, make it durable where it goes, and call cdp_dirty_run_clean: that is the only way for a block to become clean, and one that was set
/// meanwhile stays dirty. Until then it is claimed as before, and nobody else is given it. CDP_END, and extent_out untouched, when nothing there is dirty that is not
/// in a run already, or when there are 256 runs. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_begin(
    map: *mut cdp_dirty_map,
    offset: u64,
    bytes_max: u64,
    run_out: *mut *mut cdp_dirty_run,
    extent_out: *mut cdp_extent,
) -> cdp_status {
    guard_status(|caller| {
        let out = caller.out_handle("run_out", run_out)?;
        let held = get(map)?;
        let extent = caller.out("extent_out", extent_out)?;
        let block_bytes = held.shape().granularity().bytes();
        let blocks_max = (bytes_max / block_bytes).max(1);
        let Some(run) = held.begin(offset / block_bytes, blocks_max) else { return Ok(CDP_END) };
        let range = run.range();
        out.put(put(Mutex::new(Some(run)), Some(held.family()))?);
        extent.put(cdp_extent { offset: range.offset, len: range.bytes });
        Ok(CDP_OK)
    })
}

fn end(caller: Caller, run: *mut *mut cdp_dirty_run) -> Outcome<Option<InResync>> {
    Ok(caller.close(run)?.and_then(|held| held.lock().take()))
}

/// Says that a run is durable where it goes: its blocks are clean, but for those that were set meanwhile. read, which may be NULL, is what of it was copied where that
/// was not all: blocks that it covers whole are clean, and the others are dirty again. Sets the variable to NULL, which it may be already.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_run_clean(
    run: *mut *mut cdp_dirty_run,
    read: *const cdp_extent,
) -> cdp_status {
    guard(|caller| {
        let read = match read.is_null() {
            true => None,
            false => caller.items("read", read, 1)?.first(),
        };
        match (end(caller, run)?, read) {
            (Some(run), None) => run.clean(),
            (Some(run), Some(read)) => run.clean_only(ByteRange::new(read.offset, read.len)),
            (None, _) => {}
        }
        Ok(())
    })
}

/// Gives up a run, which is dirty again, and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_run_abandon(run: *mut *mut cdp_dirty_run) -> cdp_status {
    guard(|caller| end(caller, run).map(drop))
}

/// Gives up the map with its runs and lists, and sets the variable to NULL, which it may be already. One of a file stays as it is with the file, and its runs are
/// those of the file. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_dirty_map_close(map: *mut *mut cdp_dirty_map) -> cdp_status {
    guard(|caller| {
        let Some(held) = caller.close(map)? else { return Ok(()) };
        if matches!(*held, MapObject::Own(_)) {
            drop(remove_family(held.family()));
        }
        Ok(())
    })
}
