//! Small structs that are shared by all parts and never change.

use cdp_core::{SeqTime, format::Uuid};
use std::ffi::c_void;

/// How the application takes back what its callbacks use: called exactly once, when they are not called any more. May be NULL.
pub type cdp_free_userdata = Option<unsafe extern "C" fn(userdata: *mut c_void)>;

/// A point of the timeline: the state after write `seq`, which was made at `time_ns`, nanoseconds since the Unix epoch, UTC.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct cdp_point {
    /// The seq.
    pub seq: u64,
    /// Its time.
    pub time_ns: u64,
}

/// A random identity.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct cdp_uuid {
    /// The bytes of it.
    pub bytes: [u8; 16],
}

/// One of several buffers that are one write; as struct iovec.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cdp_iovec {
    /// Where it begins.
    pub base: *const c_void,
    /// Its length, bytes.
    pub len: usize,
}

/// A range of bytes of a volume.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct cdp_extent {
    /// First byte.
    pub offset: u64,
    /// Length, bytes.
    pub len: u64,
}

impl From<SeqTime> for cdp_point {
    fn from(point: SeqTime) -> Self {
        Self { seq: point.seq.get(), time_ns: point.time.get() }
    }
}

impl From<Uuid> for cdp_uuid {
    fn from(uuid: Uuid) -> Self {
        Self { bytes: uuid.0 }
    }
}
