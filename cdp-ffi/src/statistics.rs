//! Figures of a store and of its volumes.

use crate::{
    arguments::sized,
    failure::Failure,
    guard::guard,
    handle::get,
    status::{CDP_ERR_NOT_FOUND, cdp_status},
    store::cdp_store,
    types::cdp_point,
    volume::cdp_volume,
};
use cdp_core::store::CaptureMode;
use std::mem::size_of;

/// Figures of a store.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_store_stats {
    /// sizeof(cdp_store_stats).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Bytes that the store takes up on its storage.
    pub stored_bytes: u64,
    /// Bytes that were written to its volumes over its life.
    pub source_bytes: u64,
    /// Bytes written to the storage on their behalf.
    pub written_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Index runs.
    pub runs: u64,
    /// Versions of blocks in the index.
    pub versions: u64,
    /// Points that can be opened.
    pub points: u64,
    /// From here on every state can be opened, gaps aside.
    pub horizon: cdp_point,
    /// Bytes written and not durable yet: the recovery point objective at this moment.
    pub lag_bytes: u64,
    /// Age of the oldest such write, nanoseconds.
    pub lag_ns: u64,
    /// Bytes that wait in the pool of the taps; there is none before the first tap.
    pub pool_bytes: u64,
    /// Frames of 1 MiB of the pool.
    pub pool_frames: u64,
    /// How many of them are free.
    pub pool_frames_free: u64,
    /// Bytes that waited for the end of an interval since the store was opened.
    pub coalesced_bytes: u64,
    /// How many were left of them.
    pub coalesced_stored_bytes: u64,
    /// Bytes of the frames written since the store was opened: what the writes themselves cost, before index and sealing.
    pub frame_bytes: u64,
    /// Bytes of the index runs.
    pub index_bytes: u64,
}
sized!(cdp_store_stats, 136);

/// The store is the disk: reads and writes go through it.
pub const CDP_CAPTURE_INLINE: u32 = 0;
/// A tap captures writes whole.
pub const CDP_CAPTURE_DATA: u32 = 1;
/// A tap marks dirty blocks, and resync copies them.
pub const CDP_CAPTURE_BITMAP: u32 = 2;
/// A tap captures writes whole while the last dirty blocks are copied.
pub const CDP_CAPTURE_RESYNC: u32 = 3;

/// Figures of a volume since the store was opened.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_volume_stats {
    /// sizeof(cdp_volume_stats).
    pub struct_size: u32,
    /// How it is captured, CDP_CAPTURE_*.
    pub mode: u32,
    /// Writes. Discards are not counted, zeroes are.
    pub writes: u64,
    /// Bytes of them.
    pub write_bytes: u64,
    /// Writes that began where the one before had ended.
    pub sequential: u64,
    /// Bytes that are known to differ from the source.
    pub dirty_bytes: u64,
    /// Writes by size: of 512 bytes and less, 1 KiB and less, and so on by powers of two; the last holds all that is longer.
    pub sizes: [u64; 16],
    /// Bytes captured that are not durable yet.
    pub lag_bytes: u64,
    /// Age of the oldest of them, nanoseconds.
    pub lag_ns: u64,
}
sized!(cdp_volume_stats, 168);

/// Figures of the store. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_stats_get(
    store: *const cdp_store,
    stats_out: *mut cdp_store_stats,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.sized_out(stats_out)?;
        let stats = held.store.stats()?;
        let pool = stats.pool.unwrap_or_default();
        out.put(&cdp_store_stats {
            struct_size: 0,
            flags: 0,
            stored_bytes: stats.stored_bytes,
            source_bytes: stats.source_bytes,
            written_bytes: stats.written_bytes,
            segments: stats.segments,
            runs: stats.runs,
            versions: stats.versions,
            points: stats.points,
            horizon: stats.horizon.into(),
            lag_bytes: stats.lag.bytes,
            lag_ns: stats.lag.age_ns,
            pool_bytes: pool.bytes,
            pool_frames: pool.frames,
            pool_frames_free: pool.frames_free,
            coalesced_bytes: stats.coalesced_bytes,
            coalesced_stored_bytes: stats.coalesced_stored_bytes,
            frame_bytes: stats.frame_bytes,
            index_bytes: stats.index_bytes,
        });
        Ok(())
    })
}

/// Figures of the volume. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_stats_get(
    volume: *const cdp_volume,
    stats_out: *mut cdp_volume_stats,
) -> cdp_status {
    guard(|caller| {
        let volume = get(volume)?;
        let out = caller.sized_out(stats_out)?;
        let stats = volume.store().stats()?;
        let own = stats.volumes.iter().find(|stats| stats.name == volume.name());
        let own = own.ok_or_else(|| Failure::new(CDP_ERR_NOT_FOUND, "the volume is not there any more"))?;
        out.put(&cdp_volume_stats {
            struct_size: 0,
            mode: match own.mode {
                CaptureMode::Inline => CDP_CAPTURE_INLINE,
                CaptureMode::Data => CDP_CAPTURE_DATA,
                CaptureMode::Bitmap => CDP_CAPTURE_BITMAP,
                CaptureMode::Resync => CDP_CAPTURE_RESYNC,
            },
            writes: own.writes.writes,
            write_bytes: own.writes.bytes,
            sequential: own.writes.sequential,
            dirty_bytes: own.dirty_bytes,
            sizes: own.writes.sizes,
            lag_bytes: own.lag_bytes,
            lag_ns: own.lag_ns,
        });
        Ok(())
    })
}
