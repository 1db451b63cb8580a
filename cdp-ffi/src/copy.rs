//! Copies of a mirrored volume: raw files, devices, or what the host supplies.

use crate::{
    arguments::{check_flags, sized},
    callback::{Userdata, answer, without_calls},
    failure::{Failure, Outcome},
    guard::guard,
    handle::{kind, put},
    status::cdp_status,
    types::cdp_free_userdata,
};
use cdp_core::{
    dirty_map::ByteRange,
    mirror::{FileCopy, MirrorCopy},
};
use std::{
    ffi::{c_char, c_void},
    io,
    mem::size_of,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where one copy of a mirrored volume lives.
pub struct cdp_copy {
    _private: [u8; 0],
}
kind!(cdp_copy, 13, "copy", Arc<dyn MirrorCopy>);

/// A copy that the application supplies.
///
/// Every function returns 0 or a negative errno, may be called from any thread, several at once, and must not call the library or unwind. Two
/// changes that touch the same 4 KiB are never in flight at once. Offsets and lengths are multiples of 512 within the size; buffers may lie
/// anywhere.
///
/// Durability: a write or zeroes are durable once a sync that was begun after they returned has returned 0. After a failed sync nothing is
/// known of what it covered.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_copy_calls {
    /// sizeof(cdp_copy_calls).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Passed to every function.
    pub userdata: *mut c_void,
    /// Fills the buffer. Required.
    pub read:
        Option<unsafe extern "C" fn(userdata: *mut c_void, offset: u64, buf: *mut c_void, len: usize) -> i32>,
    /// Writes all of the buffer. Required.
    pub write: Option<
        unsafe extern "C" fn(userdata: *mut c_void, offset: u64, buf: *const c_void, len: usize) -> i32,
    >,
    /// Makes a range read as zeroes; discards are zeroes too. Required.
    pub write_zeroes: Option<unsafe extern "C" fn(userdata: *mut c_void, offset: u64, len: u64) -> i32>,
    /// Makes every change durable that returned before. Required.
    pub sync: Option<unsafe extern "C" fn(userdata: *mut c_void) -> i32>,
    /// Size in bytes. Required.
    pub size: Option<unsafe extern "C" fn(userdata: *mut c_void, bytes_out: *mut u64) -> i32>,
    /// Gives the copy another size, durably, and stores 1 when new bytes are known to read as zeroes, else 0. -ENOSPC when it cannot be so large;
    /// one that is large enough already may stay. NULL: its size does not change.
    pub set_size:
        Option<unsafe extern "C" fn(userdata: *mut c_void, bytes: u64, zeroes_out: *mut u32) -> i32>,
    /// Stores 1 when the whole copy is known to read as zeroes, without reading it, else 0. NULL: that is never known.
    pub is_zero: Option<unsafe extern "C" fn(userdata: *mut c_void, zero_out: *mut u32) -> i32>,
    /// Stores a number that is another one after the content was changed by anybody, such as the time of the last change. NULL: there is no such
    /// thing.
    pub change_stamp: Option<unsafe extern "C" fn(userdata: *mut c_void, stamp_out: *mut u64) -> i32>,
    /// Called exactly once, when nothing is called any more. May be NULL.
    pub free_userdata: cdp_free_userdata,
}
sized!(cdp_copy_calls, 88);

impl cdp_copy_calls {
    fn check(&self) -> Outcome {
        check_flags(self.flags, 0)?;
        let required = [
            ("read", self.read.is_some()),
            ("write", self.write.is_some()),
            ("write_zeroes", self.write_zeroes.is_some()),
            ("sync", self.sync.is_some()),
            ("size", self.size.is_some()),
        ];
        match required.iter().find(|(_, given)| !given) {
            Some((name, _)) => Err(Failure::argument(format!("cdp_copy_calls.{name} is NULL"))),
            None => Ok(()),
        }
    }
}

/// A copy of the host.
struct HostCopy {
    calls: cdp_copy_calls,
    userdata: Userdata,
    /// No other copy of this process has it, so that one is not taken twice.
    number: u64,
}

// SAFETY: the header obliges the host: its functions may be called from any thread; userdata is kept apart.
unsafe impl Send for HostCopy {}
// SAFETY: as above.
unsafe impl Sync for HostCopy {}

/// A callback that was checked to be there when the copy was made.
macro_rules! call {
    ($copy:expr, $name:ident ( $($argument:expr),* )) => {{
        let copy: &HostCopy = $copy;
        let function = copy.calls.$name.ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: a function of the host with the arguments that the header promises it.
        answer(without_calls(|| unsafe { function(copy.userdata.get(), $($argument),*) }))
    }};
}

impl MirrorCopy for HostCopy {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        call!(self, read(offset, buf.as_mut_ptr().cast(), buf.len()))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        call!(self, write(offset, data.as_ptr().cast(), data.len()))
    }

    fn write_zeroes(&self, range: ByteRange) -> io::Result<()> {
        call!(self, write_zeroes(range.offset, range.bytes))
    }

    fn sync(&self) -> io::Result<()> {
        call!(self, sync())
    }

    fn size(&self) -> io::Result<u64> {
        let mut bytes = 0;
        call!(self, size(&raw mut bytes)).map(|()| bytes)
    }

    fn set_size(&self, bytes: u64) -> io::Result<bool> {
        if self.calls.set_size.is_none() {
            // A device: it is as large as it is.
            return if self.size()? >= bytes { Ok(false) } else { Err(io::ErrorKind::StorageFull.into()) };
        }
        let mut zeroes = 0;
        call!(self, set_size(bytes, &raw mut zeroes)).map(|()| zeroes == 1)
    }

    fn is_zero(&self) -> io::Result<bool> {
        if self.calls.is_zero.is_none() {
            return Ok(false);
        }
        let mut zero = 0;
        call!(self, is_zero(&raw mut zero)).map(|()| zero == 1)
    }

    fn change_stamp(&self) -> io::Result<Option<u64>> {
        if self.calls.change_stamp.is_none() {
            return Ok(None);
        }
        let mut stamp = 0;
        call!(self, change_stamp(&raw mut stamp)).map(|()| Some(stamp))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        // No file system has a device of this number, and block devices are told by the one above.
        Some((u64::MAX - 1, self.number))
    }
}

/// Opens a raw file or block device that exists as a copy. Close it with cdp_copy_close. [any thread; waits for the file system]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_copy_open_file(path: *const c_char, copy_out: *mut *mut cdp_copy) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("copy_out", copy_out)?;
        let path = caller.text("path", path)?;
        let copy = FileCopy::open(path).map_err(|error| Failure::io(path, &error))?;
        out.put(put::<cdp_copy>(Arc::new(copy), None)?);
        Ok(())
    })
}

/// Makes a sparse file of bytes zeroes, durably, and opens it as a copy. CDP_ERR_EXISTS when there is something of that name.
/// [any thread; waits for the file system]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_copy_create_file(
    path: *const c_char,
    bytes: u64,
    copy_out: *mut *mut cdp_copy,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("copy_out", copy_out)?;
        let path = caller.text("path", path)?;
        let copy = FileCopy::create(path, bytes).map_err(|error| Failure::io(path, &error))?;
        out.put(put::<cdp_copy>(Arc::new(copy), None)?);
        Ok(())
    })
}

/// Takes a copy that the application supplies. The struct is copied; userdata must live until free_userdata is called, also when this call
/// fails, which is then at once. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_copy_open_custom(
    calls: *const cdp_copy_calls,
    copy_out: *mut *mut cdp_copy,
) -> cdp_status {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    guard(|caller| {
        let out = caller.out_handle("copy_out", copy_out);
        let calls = caller.options(calls)?;
        // From here on it is handed back whatever happens.
        let userdata = Userdata::new(calls.userdata, calls.free_userdata);
        let out = out?;
        calls.check()?;
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        out.put(put::<cdp_copy>(Arc::new(HostCopy { calls, userdata, number }), None)?);
        Ok(())
    })
}

/// Gives up a copy and sets the variable to NULL, which it may be already. Mirror sets that have taken it go on with it.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_copy_close(copy: *mut *mut cdp_copy) -> cdp_status {
    guard(|caller| caller.close(copy).map(|_| ()))
}
