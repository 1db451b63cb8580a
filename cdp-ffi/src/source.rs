//! The production disk beside which a tap captures, or that a resync compares with, as the host reads it.

use crate::{
    arguments::{Caller, check_flags, sized},
    callback::{Userdata, answer, without_calls},
    failure::{Failure, Outcome},
    status::CDP_END,
    types::cdp_free_userdata,
};
use cdp_core::{SourceReader, SourceStamp};
use std::{ffi::c_void, io, mem::size_of, sync::Arc};

/// What changes when a source is changed by anybody. A host that has a generation number of its own may put it into any of the fields.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cdp_source_stamp {
    /// The file system, or the device.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// When its content was last modified, nanoseconds.
    pub modified_ns: u64,
    /// When anything of it was last changed, nanoseconds.
    pub changed_ns: u64,
}

/// How the library reads a production disk. Functions return 0 or a negative errno, may be called from any thread, and must not call the
/// library or unwind.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_source {
    /// sizeof(cdp_source).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Passed to every function.
    pub userdata: *mut c_void,
    /// Fills the buffer with what a read by the application would give: at least every write that was completed when the call was made.
    /// Multiples of 512, never past the end of the volume. Required.
    pub read:
        Option<unsafe extern "C" fn(userdata: *mut c_void, offset: u64, buf: *mut c_void, len: usize) -> i32>,
    /// Makes every write durable that was completed when the call was made. NULL: it cannot, and then there is no activity log.
    pub sync: Option<unsafe extern "C" fn(userdata: *mut c_void) -> i32>,
    /// The first byte at or after offset that may be other than zero; CDP_END when there is none. NULL: everything is read.
    pub next_data:
        Option<unsafe extern "C" fn(userdata: *mut c_void, offset: u64, next_out: *mut u64) -> i32>,
    /// What changes when the source is changed; CDP_END when there is no such thing now. NULL: there is none.
    pub stamp: Option<unsafe extern "C" fn(userdata: *mut c_void, stamp_out: *mut cdp_source_stamp) -> i32>,
    /// Called exactly once, when nothing is called any more, also when the call that took the struct fails. May be NULL.
    pub free_userdata: cdp_free_userdata,
}
sized!(cdp_source, 56);

type Read = unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize) -> i32;

/// A source of the host, as the core sees it.
pub struct HostSource {
    read: Read,
    calls: cdp_source,
    userdata: Userdata,
}

// SAFETY: the functions of the struct may be called from any thread, as the header obliges the host; userdata is kept apart.
unsafe impl Send for HostSource {}
// SAFETY: as above.
unsafe impl Sync for HostSource {}

/// Takes over the source of a caller.
pub fn host_source(caller: Caller, source: *const cdp_source) -> Outcome<Arc<HostSource>> {
    let calls = caller.options(source)?;
    let userdata = Userdata::new(calls.userdata, calls.free_userdata);
    check_flags(calls.flags, 0)?;
    let read = calls.read.ok_or_else(|| Failure::argument("cdp_source.read is NULL"))?;
    Ok(Arc::new(HostSource { read, calls, userdata }))
}

impl SourceReader for HostSource {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (to, len) = (buf.as_mut_ptr().cast(), buf.len());
        // SAFETY: a function of the host with its own userdata and a buffer of this length.
        answer(without_calls(|| unsafe { (self.read)(self.userdata.get(), offset, to, len) }))
    }

    fn sync(&self) -> io::Result<()> {
        let sync = self.calls.sync.ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: a function of the host with its own userdata.
        answer(without_calls(|| unsafe { sync(self.userdata.get()) }))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let Some(next_data) = self.calls.next_data else { return Ok(Some(offset)) };
        let mut next = offset;
        // SAFETY: a function of the host with its own userdata and a place for the answer.
        match without_calls(|| unsafe { next_data(self.userdata.get(), offset, &raw mut next) }) {
            CDP_END => Ok(None),
            // What the host says of places that were not asked for is nothing to go by.
            answered => answer(answered).map(|()| Some(next.max(offset))),
        }
    }

    fn stamp(&self) -> io::Result<Option<SourceStamp>> {
        let Some(stamp) = self.calls.stamp else { return Ok(None) };
        let mut given = cdp_source_stamp::default();
        // SAFETY: a function of the host with its own userdata and a place for the answer.
        match without_calls(|| unsafe { stamp(self.userdata.get(), &raw mut given) }) {
            CDP_END => Ok(None),
            answered => answer(answered).map(|()| {
                let cdp_source_stamp { device, inode, bytes, modified_ns, changed_ns } = given;
                Some(SourceStamp { device, inode, bytes, modified_ns, changed_ns })
            }),
        }
    }
}
