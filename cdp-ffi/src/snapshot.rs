//! Snapshots: a volume as it was at one seq; and what was written between two.

use crate::{
    arguments::{check_flags, sized},
    failure::Outcome,
    guard::{guard, guard_status},
    handle::{Family, get, kind, put},
    status::{CDP_END, CDP_OK, cdp_status},
    types::cdp_extent,
    volume::cdp_volume,
};
use cdp_core::{Snapshot, dirty_map::ByteRange, store::ChangedExtents, units::Seq};
use parking_lot::Mutex;
use std::{ffi::c_void, mem::size_of, sync::Arc};

/// A read-only image of one volume at one seq.
pub struct cdp_snapshot {
    _private: [u8; 0],
}
kind!(cdp_snapshot, 9, "snapshot", Snapshot);

/// A list of extents.
pub struct cdp_extent_iter {
    _private: [u8; 0],
}
kind!(cdp_extent_iter, 10, "list of extents", ExtentRow);

/// Extents that are known, or are looked up one after the other.
pub enum ExtentRow {
    /// These.
    Listed(Mutex<std::vec::IntoIter<cdp_extent>>),
    /// What the index says, as it is asked.
    Changed(Mutex<Box<ChangedExtents>>),
}

impl ExtentRow {
    /// The handle of a list of ranges.
    pub fn handle(ranges: &[ByteRange], family: &Arc<Family>) -> Outcome<*mut cdp_extent_iter> {
        let extent = |range: &ByteRange| cdp_extent { offset: range.offset, len: range.bytes };
        let extents: Vec<cdp_extent> = ranges.iter().map(extent).collect();
        put(Self::Listed(Mutex::new(extents.into_iter())), Some(family))
    }

    fn next(&self) -> cdp_core::Result<Option<cdp_extent>> {
        match self {
            Self::Listed(row) => Ok(row.lock().next()),
            Self::Changed(row) => {
                let next = row.lock().next().transpose()?;
                Ok(next.map(|extent| cdp_extent { offset: extent.offset, len: extent.length }))
            }
        }
    }
}

/// Also inside of a gap: an image in which some writes are missing and some blocks may be of a later state. It is what there is, not what
/// there was.
pub const CDP_SNAPSHOT_FUZZY: u32 = 1 << 0;

/// What is known of a snapshot.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_snapshot_info {
    /// sizeof(cdp_snapshot_info).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// The seq that it shows.
    pub seq: u64,
    /// Size of the volume at that point, bytes.
    pub bytes: u64,
}
sized!(cdp_snapshot_info, 24);

/// Opens the volume as it was at a seq, in constant time. While it is open, retention leaves its point alone. flags: CDP_SNAPSHOT_*.
/// CDP_ERR_POINT_EXPIRED when the point cannot be opened. Close it with cdp_snapshot_close. [any thread; waits for the storage when the seq is
/// not durable yet]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_snapshot_open(
    volume: *const cdp_volume,
    seq: u64,
    flags: u32,
    snapshot_out: *mut *mut cdp_snapshot,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("snapshot_out", snapshot_out)?;
        check_flags(flags, CDP_SNAPSHOT_FUZZY)?;
        let volume = get(volume)?;
        let snapshot = match flags & CDP_SNAPSHOT_FUZZY {
            0 => volume.snapshot(Seq::new(seq))?,
            _ => volume.snapshot_fuzzy(Seq::new(seq))?,
        };
        out.put(put(snapshot, Some(volume.family()))?);
        Ok(())
    })
}

/// What is known of the snapshot. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_snapshot_info_get(
    snapshot: *const cdp_snapshot,
    info_out: *mut cdp_snapshot_info,
) -> cdp_status {
    guard(|caller| {
        let snapshot = get(snapshot)?;
        let out = caller.sized_out(info_out)?;
        let (seq, bytes) = (snapshot.seq().get(), snapshot.bytes());
        out.put(&cdp_snapshot_info { struct_size: 0, flags: 0, seq, bytes });
        Ok(())
    })
}

/// Fills the buffer from byte offset. Multiples of 512, at most 1 GiB. CDP_ERR_CORRUPT when the bytes on the storage are not what was written;
/// the content of the buffer is undefined after any failure. [any thread, several at once; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_snapshot_read(
    snapshot: *const cdp_snapshot,
    offset: u64,
    buf: *mut c_void,
    len: usize,
) -> cdp_status {
    guard(|caller| Ok(get(snapshot)?.read(offset, caller.bytes_mut("buf", buf, len)?)?))
}

/// The first byte at or after offset that may be other than zero; CDP_END, and next_out untouched, when there is none.
/// [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_snapshot_next_data(
    snapshot: *const cdp_snapshot,
    offset: u64,
    next_out: *mut u64,
) -> cdp_status {
    guard_status(|caller| {
        let snapshot = get(snapshot)?;
        let out = caller.out("next_out", next_out)?;
        // Past the end there is nothing, whatever the number.
        let next = if offset < snapshot.bytes() { snapshot.next_data(offset)? } else { None };
        Ok(match next {
            Some(next) => {
                out.put(next);
                CDP_OK
            }
            None => CDP_END,
        })
    })
}

/// Gives up the snapshot and sets the variable to NULL, which it may be already. A job on it goes on. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_snapshot_close(snapshot: *mut *mut cdp_snapshot) -> cdp_status {
    guard(|caller| caller.close(snapshot).map(|_| ()))
}

/// Lists the extents that were written, zeroed or discarded after seq_from, up to and including seq_to: ascending, merged, rounded out to
/// 4 KiB. Content that ended up equal may appear. Close it with cdp_extent_iter_close. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_changed(
    volume: *const cdp_volume,
    seq_from: u64,
    seq_to: u64,
    iter_out: *mut *mut cdp_extent_iter,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("iter_out", iter_out)?;
        let volume = get(volume)?;
        let changed = volume.changed(Seq::new(seq_from), Seq::new(seq_to))?;
        let row = ExtentRow::Changed(Mutex::new(Box::new(changed)));
        out.put(put(row, Some(volume.family()))?);
        Ok(())
    })
}

/// The next extent; CDP_END, and extent_out untouched, when there is none. [any thread; may wait for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_extent_iter_next(
    iter: *mut cdp_extent_iter,
    extent_out: *mut cdp_extent,
) -> cdp_status {
    guard_status(|caller| {
        let row = get(iter)?;
        let out = caller.out("extent_out", extent_out)?;
        let Some(extent) = row.next()? else { return Ok(CDP_END) };
        out.put(extent);
        Ok(CDP_OK)
    })
}

/// Gives up the list and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_extent_iter_close(iter: *mut *mut cdp_extent_iter) -> cdp_status {
    guard(|caller| caller.close(iter).map(|_| ()))
}
