//! What a mirror set says of itself, open or not: copies, handshakes, what each copy lacks.

use crate::{
    arguments::{sized, text_into},
    failure::Failure,
    guard::{guard, guard_status},
    handle::{get, kind, put},
    mirror::{
        CDP_ACK_ALL, CDP_ACK_ONE, CDP_ACK_QUORUM, cdp_handshake, cdp_mirror, cdp_mirror_options,
        handshake_of, opening,
    },
    snapshot::{ExtentRow, cdp_extent_iter},
    status::{CDP_END, CDP_ERR_NOT_FOUND, CDP_OK, cdp_status},
    storage::How,
};
use cdp_core::mirror::{AckPolicy, MirrorSet, MirrorStatus, Standing};
use std::{ffi::c_char, mem::size_of};

/// How a mirror set stood at one moment.
pub struct cdp_mirror_status {
    _private: [u8; 0],
}
kind!(cdp_mirror_status, 15, "status of a mirror set", MirrorStatus);

/// The set was closed in good order; never so while it is open.
pub const CDP_MIRROR_CLEAN: u32 = 1 << 0;
/// There is a copy that the others follow.
pub const CDP_MIRROR_HAS_SOURCE: u32 = 1 << 1;

/// A mirror set as a whole.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_mirror_info {
    /// sizeof(cdp_mirror_info).
    pub struct_size: u32,
    /// CDP_MIRROR_CLEAN, CDP_MIRROR_HAS_SOURCE.
    pub flags: u32,
    /// Size of the volume, bytes.
    pub bytes: u64,
    /// When a write is acknowledged: CDP_ACK_*.
    pub ack: u32,
    /// Number of the copy that the others follow, with CDP_MIRROR_HAS_SOURCE.
    pub source: u32,
    /// Copies.
    pub copies: u32,
    /// Pairs of copies with a handshake.
    pub pairs: u32,
}
sized!(cdp_mirror_info, 32);

/// It takes writes and lacks nothing.
pub const CDP_COPY_CLEAN: u32 = 1;
/// It takes writes; its map names blocks that it lacks or that must be compared.
pub const CDP_COPY_DIRTY: u32 = 2;
/// It takes no writes.
pub const CDP_COPY_OFFLINE: u32 = 3;
/// It cannot be found.
pub const CDP_COPY_MISSING: u32 = 4;
/// What it holds cannot be brought together with the others, until cdp_mirror_resolve says who is right.
pub const CDP_COPY_REFUSED: u32 = 5;

/// One copy.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_copy_info {
    /// sizeof(cdp_copy_info).
    pub struct_size: u32,
    /// Its number.
    pub number: u32,
    /// How it stands: CDP_COPY_*.
    pub standing: u32,
    /// 0.
    pub flags: u32,
    /// Bytes that its map names.
    pub dirty_bytes: u64,
    /// Its line of writes: the number of the generation.
    pub generation: u64,
    /// And its tag, which tells two of one number apart.
    pub generation_tag: u64,
    /// Why it is not online, where that is not the host's wish; else "".
    pub trouble: [c_char; 512],
    /// Where the host finds it.
    pub locator: [c_char; 4104],
    /// With CDP_MIRROR_THREADS: bytes of writes that wait for it.
    pub behind_bytes: u64,
}
sized!(cdp_copy_info, 4656);

/// Takes down how an open set stands. Close it with cdp_mirror_status_close. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_status_open(
    mirror: *const cdp_mirror,
    status_out: *mut *mut cdp_mirror_status,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("status_out", status_out)?;
        let held = get(mirror)?;
        out.put(put(held.status(), Some(held.family()))?);
        Ok(())
    })
}

/// What a set would say when it is opened, with the handshake of every pair of copies that are there: a dry run that changes nothing, also while
/// another process has the set open. Metadata and copies are only read, and nothing is logged. CDP_ERR_NOT_FOUND when there is no set.
/// [any thread; waits for the storage and the copies]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_examine(
    path: *const c_char,
    options: *const cdp_mirror_options,
    status_out: *mut *mut cdp_mirror_status,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("status_out", status_out);
        let opening = opening(caller, path, options)?;
        let out = out?;
        let storage = opening.storage(How::ReadOnly)?;
        let find = &mut |record: &_| opening.opener.find(record);
        out.put(put(MirrorSet::examine(&*storage, opening.options, find)?, None)?);
        Ok(())
    })
}

/// The set as a whole. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_status_info_get(
    status: *const cdp_mirror_status,
    info_out: *mut cdp_mirror_info,
) -> cdp_status {
    guard(|caller| {
        let status = get(status)?;
        let out = caller.sized_out(info_out)?;
        let clean = if status.clean { CDP_MIRROR_CLEAN } else { 0 };
        let has_source = if status.source.is_some() { CDP_MIRROR_HAS_SOURCE } else { 0 };
        out.put(&cdp_mirror_info {
            struct_size: 0,
            flags: clean | has_source,
            bytes: status.bytes,
            ack: match status.ack {
                AckPolicy::One => CDP_ACK_ONE,
                AckPolicy::Quorum => CDP_ACK_QUORUM,
                AckPolicy::All => CDP_ACK_ALL,
            },
            source: status.source.unwrap_or(0),
            copies: u32::try_from(status.copies.len()).unwrap_or(u32::MAX),
            pairs: u32::try_from(status.pairs.len()).unwrap_or(u32::MAX),
        });
        Ok(())
    })
}

/// The copy at a place in the set, counted from 0; CDP_END past the last. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_status_copy_at(
    status: *const cdp_mirror_status,
    index: usize,
    info_out: *mut cdp_copy_info,
) -> cdp_status {
    guard_status(|caller| {
        let status = get(status)?;
        let out = caller.sized_out(info_out)?;
        let Some(copy) = status.copies.get(index) else { return Ok(CDP_END) };
        out.put(&cdp_copy_info {
            struct_size: 0,
            number: copy.number,
            standing: match copy.standing {
                Standing::Clean => CDP_COPY_CLEAN,
                Standing::Dirty => CDP_COPY_DIRTY,
                Standing::Offline => CDP_COPY_OFFLINE,
                Standing::Missing => CDP_COPY_MISSING,
                Standing::Refused => CDP_COPY_REFUSED,
            },
            flags: 0,
            dirty_bytes: copy.dirty_bytes,
            generation: copy.generation.number,
            generation_tag: copy.generation.tag,
            trouble: text_into(copy.trouble.as_deref().unwrap_or_default()),
            locator: text_into(&copy.locator),
            behind_bytes: copy.behind_bytes,
        });
        Ok(CDP_OK)
    })
}

/// The handshake of the pair at a place, counted from 0; CDP_END past the last. There are pairs in what cdp_mirror_examine gives alone.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_status_pair_at(
    status: *const cdp_mirror_status,
    index: usize,
    handshake_out: *mut cdp_handshake,
) -> cdp_status {
    guard_status(|caller| {
        let status = get(status)?;
        let out = caller.sized_out(handshake_out)?;
        let Some(pair) = status.pairs.get(index) else { return Ok(CDP_END) };
        out.put(&handshake_of(pair.first, pair.second, pair.outcome));
        Ok(CDP_OK)
    })
}

/// Gives up the status and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_status_close(status: *mut *mut cdp_mirror_status) -> cdp_status {
    guard(|caller| caller.close(status).map(|_| ()))
}

/// The ranges that the map of a copy names, ascending: what it lacks, or what must be compared. CDP_ERR_NOT_FOUND. Close the list with
/// cdp_extent_iter_close. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_claim(
    mirror: *const cdp_mirror,
    number: u32,
    iter_out: *mut *mut cdp_extent_iter,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("iter_out", iter_out)?;
        let held = get(mirror)?;
        let missing = || Failure::new(CDP_ERR_NOT_FOUND, format!("the set has no copy {number}"));
        let claim = held.claim(number).ok_or_else(missing)?;
        out.put(ExtentRow::handle(&claim, held.family())?);
        Ok(())
    })
}
