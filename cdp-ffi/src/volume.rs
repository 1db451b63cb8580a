//! Volumes: made, listed, and written inline, where the store is the disk.

use crate::{
    arguments::{Caller, check_flags, sized, text_into},
    failure::Outcome,
    guard::{guard, guard_status},
    handle::{Held, get, kind, put},
    status::{CDP_END, CDP_OK, cdp_status},
    store::cdp_store,
    types::{cdp_iovec, cdp_point},
};
use cdp_core::{
    Volume, VolumeInfo,
    units::{Seq, TimeNs},
};
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
};

/// A volume of an open store.
pub struct cdp_volume {
    _private: [u8; 0],
}
kind!(cdp_volume, 4, "volume", Volume);

/// What is known of a volume.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_volume_info {
    /// sizeof(cdp_volume_info).
    pub struct_size: u32,
    /// Its id within the store; never reused.
    pub id: u32,
    /// Its size now, bytes.
    pub bytes: u64,
    /// The first seq at which it can be opened.
    pub exists_from: u64,
    /// Its name, NUL-terminated.
    pub name: [c_char; 136],
}
sized!(cdp_volume_info, 160);

impl From<&VolumeInfo> for cdp_volume_info {
    fn from(info: &VolumeInfo) -> Self {
        Self {
            struct_size: 0,
            id: u32::from(info.id.get()),
            bytes: info.bytes,
            exists_from: info.exists_from.get(),
            name: text_into(&info.name),
        }
    }
}

/// Adds an empty volume of this many bytes, a multiple of 512, and opens it. It exists from the newest seq on; durable when this returns.
/// On failure there is no such volume. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_create(
    store: *mut cdp_store,
    name: *const c_char,
    bytes: u64,
    volume_out: *mut *mut cdp_volume,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("volume_out", volume_out)?;
        let held = get(store)?;
        let volume = held.store.add_volume(caller.text("name", name)?, bytes)?;
        out.put(put(volume, Some(held.family()))?);
        Ok(())
    })
}

/// Opens a volume by name; NULL: the first one. Close it with cdp_volume_close. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_open(
    store: *const cdp_store,
    name: *const c_char,
    volume_out: *mut *mut cdp_volume,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("volume_out", volume_out)?;
        let held = get(store)?;
        let volume = held.store.volume(caller.text_optional("name", name)?)?;
        out.put(put(volume, Some(held.family()))?);
        Ok(())
    })
}

/// Gives up the handle and sets the variable to NULL, which it may be already. What was written stays, durable or not.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_close(volume: *mut *mut cdp_volume) -> cdp_status {
    guard(|caller| caller.close(volume).map(|_| ()))
}

/// The volume at a place in the list of the store, counted from 0 in the order in which they were made. CDP_END past the last.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_at(
    store: *const cdp_store,
    index: usize,
    info_out: *mut cdp_volume_info,
) -> cdp_status {
    guard_status(|caller| {
        let held = get(store)?;
        let out = caller.sized_out(info_out)?;
        let volumes = held.store.volumes();
        let Some(info) = volumes.get(index) else { return Ok(CDP_END) };
        out.put(&info.into());
        Ok(CDP_OK)
    })
}

/// What is known of the volume. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_info_get(
    volume: *const cdp_volume,
    info_out: *mut cdp_volume_info,
) -> cdp_status {
    guard(|caller| {
        let volume = get(volume)?;
        let out = caller.sized_out(info_out)?;
        out.put(&(&info_of(&volume)?).into());
        Ok(())
    })
}

pub(crate) fn info_of(volume: &Volume) -> Outcome<VolumeInfo> {
    let found = volume.store().volumes().into_iter().find(|info| info.id == volume.id());
    let missing = || cdp_core::Error::NotFound { what: "volume", name: volume.name().to_owned() };
    Ok(found.ok_or_else(missing)?)
}

/// Gives the volume another size, a multiple of 512. Points before the change keep the old size and all of their content. point_out, which may
/// be NULL, is the point of the change, or the newest one when the volume had that size already. Refused while a tap captures the volume.
/// On failure the volume has either size. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_resize(
    volume: *mut cdp_volume,
    bytes: u64,
    point_out: *mut cdp_point,
) -> cdp_status {
    guard(|caller| {
        let volume = get(volume)?;
        let out = caller.out_optional("point_out", point_out)?;
        let changed = volume.store().resize_volume(volume.name(), bytes)?;
        out.put(changed.unwrap_or_else(|| volume.store().newest()).into());
        Ok(())
    })
}

/// The write is durable when the call returns.
pub const CDP_WRITE_FUA: u32 = 1 << 0;

/// Makes a write durable where that was asked for.
pub(crate) fn finish(volume: &Volume, seq: Seq, flags: u32) -> Outcome {
    if flags & CDP_WRITE_FUA != 0 && volume.store().durable_seq() < seq {
        volume.flush()?;
    }
    Ok(())
}

/// One change of a volume: what every function has that makes one.
fn change(
    volume: *mut cdp_volume,
    flags: u32,
    seq_out: *mut u64,
    make: impl FnOnce(Caller, &Volume) -> Outcome<Seq>,
) -> cdp_status {
    guard(|caller| {
        let volume = checked(volume, flags)?;
        let out = caller.out_optional("seq_out", seq_out)?;
        let seq = make(caller, &volume)?;
        finish(&volume, seq, flags)?;
        out.put(seq.get());
        Ok(())
    })
}

fn checked(volume: *mut cdp_volume, flags: u32) -> Outcome<Held<Volume>> {
    check_flags(flags, CDP_WRITE_FUA)?;
    get(volume)
}

/// Appends one write of 512 bytes to 16 MiB, dated now. offset and len are multiples of 512. Reads see it at once; it is durable when a flush
/// has returned seq_out or a later seq, or at once with CDP_WRITE_FUA in flags. seq_out may be NULL. The buffer is borrowed for the call.
/// On failure nothing was written, except that with CDP_WRITE_FUA the failure may be that of making it durable.
/// [any thread, several at once; waits for the storage only when too much is not written yet, or with CDP_WRITE_FUA]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_write(
    volume: *mut cdp_volume,
    offset: u64,
    buf: *const c_void,
    len: usize,
    flags: u32,
    seq_out: *mut u64,
) -> cdp_status {
    change(volume, flags, seq_out, |caller, volume| Ok(volume.write(offset, caller.bytes("buf", buf, len)?)?))
}

/// As cdp_volume_write, dated by the host, for hosts whose writes have times of their own. CDP_ERR_TIME_BACKWARDS for a time before the newest write of the
/// store.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_write_at_time(
    volume: *mut cdp_volume,
    offset: u64,
    buf: *const c_void,
    len: usize,
    flags: u32,
    time_ns: u64,
    seq_out: *mut u64,
) -> cdp_status {
    change(volume, flags, seq_out, |caller, volume| {
        Ok(volume.write_at_time(offset, caller.bytes("buf", buf, len)?, TimeNs::new(time_ns))?)
    })
}

/// As cdp_volume_write, from at most 1024 buffers of any lengths, which together are one write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_writev(
    volume: *mut cdp_volume,
    offset: u64,
    iov: *const cdp_iovec,
    iov_count: usize,
    flags: u32,
    seq_out: *mut u64,
) -> cdp_status {
    change(
        volume,
        flags,
        seq_out,
        |caller, volume| Ok(volume.writev(offset, &caller.parts(iov, iov_count)?)?),
    )
}

/// As cdp_volume_write, zeroes over a range of any length. One seq.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_write_zeroes(
    volume: *mut cdp_volume,
    offset: u64,
    len: u64,
    flags: u32,
    seq_out: *mut u64,
) -> cdp_status {
    change(volume, flags, seq_out, |_, volume| Ok(volume.write_zeroes(offset, len, None)?))
}

/// As cdp_volume_write_zeroes, dated by the host as by cdp_volume_write_at_time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_write_zeroes_at_time(
    volume: *mut cdp_volume,
    offset: u64,
    len: u64,
    flags: u32,
    time_ns: u64,
    seq_out: *mut u64,
) -> cdp_status {
    change(volume, flags, seq_out, |_, volume| {
        Ok(volume.write_zeroes(offset, len, Some(TimeNs::new(time_ns)))?)
    })
}

/// As cdp_volume_write_zeroes, for a range that the owner of the disk has no use for any more. It reads as zeroes afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_discard(
    volume: *mut cdp_volume,
    offset: u64,
    len: u64,
    flags: u32,
    seq_out: *mut u64,
) -> cdp_status {
    change(volume, flags, seq_out, |_, volume| Ok(volume.discard(offset, len, None)?))
}

/// As cdp_volume_discard, dated by the host as by cdp_volume_write_at_time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_discard_at_time(
    volume: *mut cdp_volume,
    offset: u64,
    len: u64,
    flags: u32,
    time_ns: u64,
    seq_out: *mut u64,
) -> cdp_status {
    change(volume, flags, seq_out, |_, volume| Ok(volume.discard(offset, len, Some(TimeNs::new(time_ns)))?))
}

/// As cdp_store_flush: one journal serves all volumes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_flush(volume: *mut cdp_volume, durable_seq_out: *mut u64) -> cdp_status {
    guard(|caller| {
        let volume = get(volume)?;
        let out = caller.out_optional("durable_seq_out", durable_seq_out)?;
        out.put(volume.flush()?.get());
        Ok(())
    })
}

/// Fills the buffer from byte offset of the newest state. Multiples of 512, at most 1 GiB. CDP_ERR_CORRUPT when the bytes on the storage
/// are not what was written; the content of the buffer is undefined after any failure. [any thread, several at once; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_read(
    volume: *const cdp_volume,
    offset: u64,
    buf: *mut c_void,
    len: usize,
) -> cdp_status {
    guard(|caller| Ok(get(volume)?.read(offset, caller.bytes_mut("buf", buf, len)?)?))
}
