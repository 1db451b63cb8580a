//! A mirror set as a source, for everything that takes a `cdp_source`: the host's callbacks must not call the library, these need not.
//!
//! `userdata` is a handle of the table and not an address: a struct that is used twice, or whose set was closed, is answered and does no harm.

use crate::{
    arguments::Caller,
    failure::{Failure, Outcome},
    guard::{caught, guard},
    handle::{get, kind, put, remove},
    mirror::cdp_mirror,
    source::cdp_source,
    status::cdp_status,
};
use cdp_core::mirror::MirrorSet;
use std::{ffi::c_void, sync::Arc};

/// A set that was lent as a source.
struct Lent {
    _private: [u8; 0],
}
kind!(Lent, 21, "source of a mirror set", Arc<MirrorSet>);

/// A source that reads a mirror set, from whatever copy holds a range, for cdp_resync, cdp_verify, cdp_tap_open, their jobs and every other call that takes a
/// cdp_source of a volume that is no larger than the set. The struct is good for one such call, which takes over what it stands for; a further one needs another
/// struct. Reads and writes of the set go on meanwhile. When the set is closed, reads of the source fail. What is not used ends with the set.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_source(
    mirror: *const cdp_mirror,
    source_out: *mut cdp_source,
) -> cdp_status {
    guard(|caller| {
        let held = get(mirror)?;
        let out = caller.sized_out(source_out)?;
        let lent: *mut Lent = put(Arc::clone(&*held), Some(held.family()))?;
        out.put(&cdp_source {
            struct_size: 0,
            flags: 0,
            userdata: lent.cast(),
            read: Some(read),
            sync: Some(sync),
            next_data: None,
            stamp: None,
            free_userdata: Some(free),
            digests: None,
            read_ranges: None,
        });
        Ok(())
    })
}

/// What a function of a source answers.
fn answered(body: impl FnOnce() -> Outcome) -> i32 {
    const EIO: i32 = 5;
    match caught(body) {
        Ok(()) => 0,
        Err(Failure { errno: errno @ 1.., .. }) => -errno,
        Err(_) => -EIO,
    }
}

unsafe extern "C" fn read(userdata: *mut c_void, offset: u64, buf: *mut c_void, len: usize) -> i32 {
    answered(|| {
        let set = get::<Lent>(userdata.cast_const().cast())?;
        Ok(set.read(offset, Caller::of_exported().bytes_mut("buf", buf, len)?)?)
    })
}

unsafe extern "C" fn sync(userdata: *mut c_void) -> i32 {
    answered(|| Ok(get::<Lent>(userdata.cast_const().cast())?.flush()?))
}

unsafe extern "C" fn free(userdata: *mut c_void) {
    // It is gone already when the set was closed.
    let _ = caught(|| remove::<Lent>(userdata.cast_const().cast()).map(drop));
}
