//! The production disk beside which a tap captures, or that a resync compares with, as the host reads it.

use crate::{
    arguments::{Caller, check_flags, sized},
    callback::{Userdata, answer, without_calls},
    digests::code_of,
    failure::{Failure, Outcome},
    status::CDP_END,
    types::{cdp_extent, cdp_free_userdata},
};
use cdp_core::{
    SourceReader, SourceStamp,
    dirty_map::ByteRange,
    format::digest::DigestKey,
    resync::{DigestUnit, SourceDigests},
};
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
    /// For a disk that lies across a link which is slower than the disk: the digests of the ranges, taken at the far end, in their order, exactly digests_count of them.
    /// unit is CDP_DIGEST_*; the far end answers with cdp_digests_of. They are those of what a read would give: at least every write that was completed when the call was made,
    /// so that none may be kept from an earlier answer. The ranges are of whole blocks but for the end of the volume, ascend, do not overlap, and cover at most
    /// CDP_DIGEST_REQUEST_BYTES_MAX bytes. What is not filled counts as different. Who knows the key can prepare blocks that differ and have one digest: give it only to
    /// an end that may write the disk anyway, over a link that nobody else reads. Resync by digests or by map, and a verification with CDP_VERIFY_DIGESTS, then move
    /// digests, and the bytes of what differs. NULL: what is compared is read. Given together with read_ranges, or neither.
    pub digests: Option<
        unsafe extern "C" fn(
            userdata: *mut c_void,
            key: u64,
            unit: u32,
            ranges: *const cdp_extent,
            ranges_count: usize,
            digests_out: *mut u64,
            digests_count: usize,
        ) -> i32,
    >,
    /// Reads such ranges, one behind the other, in one exchange, into a buffer that is as long as they are together: as read does for each. Given together with digests, or
    /// neither.
    pub read_ranges: Option<
        unsafe extern "C" fn(
            userdata: *mut c_void,
            ranges: *const cdp_extent,
            ranges_count: usize,
            buf: *mut c_void,
            len: usize,
        ) -> i32,
    >,
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
    if calls.digests.is_some() != calls.read_ranges.is_some() {
        return Err(Failure::argument("cdp_source.digests and read_ranges: give both or neither"));
    }
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

    fn digests(&self) -> Option<&dyn SourceDigests> {
        self.calls.digests.is_some().then_some(self as &dyn SourceDigests)
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

/// What a digest that the host did not fill in says: it differs from that of the store, so that its bytes are looked at.
const NOT_FILLED: u64 = u64::MAX;

impl SourceDigests for HostSource {
    fn digests(&self, key: DigestKey, unit: DigestUnit, ranges: &[ByteRange]) -> io::Result<Vec<u64>> {
        let digests = self.calls.digests.ok_or(io::ErrorKind::Unsupported)?;
        let count: u64 = ranges.iter().map(|range| unit.count(*range)).sum();
        let mut answered = vec![NOT_FILLED; usize::try_from(count).map_err(io::Error::other)?];
        let (asked, unit) = (extents_of(ranges), code_of(unit));
        let (to, room) = (answered.as_mut_ptr(), answered.len());
        // SAFETY: a function of the host with its own userdata, an array to read and one of this length to fill.
        answer(without_calls(|| unsafe {
            digests(self.userdata.get(), key.0, unit, asked.as_ptr(), asked.len(), to, room)
        }))?;
        Ok(answered)
    }

    fn read_ranges(&self, ranges: &[ByteRange], buf: &mut [u8]) -> io::Result<()> {
        let read_ranges = self.calls.read_ranges.ok_or(io::ErrorKind::Unsupported)?;
        let asked = extents_of(ranges);
        let (to, len) = (buf.as_mut_ptr().cast(), buf.len());
        // SAFETY: a function of the host with its own userdata, an array to read and a buffer of this length.
        answer(without_calls(|| unsafe {
            read_ranges(self.userdata.get(), asked.as_ptr(), asked.len(), to, len)
        }))
    }
}

fn extents_of(ranges: &[ByteRange]) -> Vec<cdp_extent> {
    ranges.iter().map(|range| cdp_extent { offset: range.offset, len: range.bytes }).collect()
}
