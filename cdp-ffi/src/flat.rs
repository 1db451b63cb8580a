//! A storage on one flat device, for hosts without a file system.

use crate::{
    arguments::{check_flags, sized},
    copy::cdp_copy,
    failure::{Failure, Outcome},
    guard::guard,
    handle::{get, put},
    status::{CDP_ERR_BUSY, CDP_ERR_CORRUPT, CDP_ERR_EXISTS, cdp_status},
    storage::cdp_storage,
};
use cdp_core::{
    io::{FlatOptions, FlatStorage, Storage},
    mirror::MirrorCopy,
};
use std::{ffi::c_char, io, mem::size_of, path::Path, sync::Arc};

/// What is on the device is given up; without it a device that holds a flat storage is left alone.
pub const CDP_FLAT_OVERWRITE: u32 = 1 << 0;

/// How a flat storage is made.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_flat_options {
    /// sizeof(cdp_flat_options).
    pub struct_size: u32,
    /// CDP_FLAT_OVERWRITE.
    pub flags: u32,
    /// Bytes of a slot: a multiple of 4096 up to 64 GiB; the device has at most 65536 of them. 0: 1 MiB.
    pub slot_bytes: u64,
}
sized!(cdp_flat_options, 16);

fn failure(what: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidData => Failure::new(CDP_ERR_CORRUPT, format!("{what}: {error}")),
        io::ErrorKind::InvalidInput => Failure::argument(format!("{what}: {error}")),
        io::ErrorKind::WouldBlock => {
            Failure::new(CDP_ERR_BUSY, format!("{what}: another process, or an earlier opening, has it"))
        }
        _ => Failure::io(what, error),
    }
}

/// Whether there is a flat storage already that is not to be lost.
fn check_overwrite(flags: u32, opened: Result<FlatStorage, io::Error>) -> Outcome {
    check_flags(flags, CDP_FLAT_OVERWRITE)?;
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(failure("the device", &error)),
        _ if flags & CDP_FLAT_OVERWRITE != 0 => Ok(()),
        _ => Err(Failure::new(
            CDP_ERR_EXISTS,
            "the device holds a flat storage; CDP_FLAT_OVERWRITE gives it up",
        )),
    }
}

fn options_of(given: cdp_flat_options) -> FlatOptions {
    match given.slot_bytes {
        0 => FlatOptions::default(),
        slot_bytes => FlatOptions { slot_bytes },
    }
}

/// Divides a device into slots that are all free, durably. The device is given as a copy (cdp_copy_open_custom, cdp_copy_open_file), borrowed for the
/// call, and must be used by nobody else; options may be NULL. CDP_ERR_EXISTS when it holds a flat storage already. On other failures
/// it may hold none any more. [any thread; waits for the device]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_flat_format(
    device: *mut cdp_copy,
    options: *const cdp_flat_options,
) -> cdp_status {
    guard(|caller| {
        let given = caller.options_or_default(options)?;
        let device: Arc<dyn MirrorCopy> = Arc::clone(&*get(device)?);
        check_overwrite(given.flags, FlatStorage::open(Arc::clone(&device)))?;
        FlatStorage::format(&*device, options_of(given)).map_err(|error| failure("the device", &error))
    })
}

/// As cdp_flat_format, for a file that exists, of its size now, or a block device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_flat_format_file(
    path: *const c_char,
    options: *const cdp_flat_options,
) -> cdp_status {
    guard(|caller| {
        let given = caller.options_or_default(options)?;
        let path = caller.text("path", path)?;
        check_overwrite(given.flags, FlatStorage::open_file(Path::new(path)))?;
        let made = FlatStorage::format_file(Path::new(path), options_of(given));
        made.map_err(|error| failure(path, &error))
    })
}

/// Opens a flat storage, for any number of stores that are opened on it one after the other. The device goes on being used until the storage and its
/// stores are closed, and must be used by nobody else meanwhile. A store on it needs segments of at least 4 MiB
/// (cdp_open_options.segment_bytes) and, beside its history, room for two of them. CDP_ERR_NOT_FOUND when the device was not formatted, CDP_ERR_CORRUPT
/// when both of its tables are damaged. When slots run out calls of the store answer CDP_ERR_JOURNAL_FULL. Close it with cdp_storage_close.
/// [any thread; waits for the device]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_storage_open_flat(
    device: *mut cdp_copy,
    storage_out: *mut *mut cdp_storage,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("storage_out", storage_out)?;
        let device: Arc<dyn MirrorCopy> = Arc::clone(&*get(device)?);
        let opened = FlatStorage::open(device).map_err(|error| failure("the device", &error))?;
        let storage: Arc<dyn Storage> = Arc::new(opened);
        out.put(put(storage, None)?);
        Ok(())
    })
}

/// As cdp_storage_open_flat, on a file or block device, which is locked against other processes: CDP_ERR_BUSY when one has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_storage_open_flat_file(
    path: *const c_char,
    storage_out: *mut *mut cdp_storage,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("storage_out", storage_out)?;
        let path = caller.text("path", path)?;
        let opened = FlatStorage::open_file(Path::new(path)).map_err(|error| failure(path, &error))?;
        let storage: Arc<dyn Storage> = Arc::new(opened);
        out.put(put(storage, None)?);
        Ok(())
    })
}
