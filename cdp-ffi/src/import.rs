//! Import: a volume that begins with the content of a disk, as one seq.

use crate::{
    failure::Failure,
    guard::guard,
    handle::{get, put},
    resync::{Watch, cdp_watch},
    source::{HostSource, cdp_source, host_source},
    status::cdp_status,
    store::{cdp_create_options, cdp_store, new_store},
    volume::cdp_volume,
};
use cdp_core::{
    ImportSource, SourceReader, Store,
    units::{BLOCK_BYTES, TimeNs},
};
use std::{ffi::c_char, io, sync::Arc};

/// ECANCELED of Linux.
const CANCELLED: i32 = 125;

/// A source of the host, read once in ascending order.
struct Once<'a> {
    source: Arc<HostSource>,
    watch: &'a Watch,
    /// Size of the volume, bytes.
    bytes: u64,
    /// Where the next data is looked for; a multiple of a block until the end.
    next: u64,
}

impl ImportSource for Once<'_> {
    fn next(&mut self, buf: &mut [u8]) -> io::Result<Option<(u64, usize)>> {
        if self.watch.is_ended() {
            return Err(io::Error::from_raw_os_error(CANCELLED));
        }
        if self.next >= self.bytes {
            return Ok(None);
        }
        let Some(data) = self.source.next_data(self.next)? else { return Ok(None) };
        let from = data - data % BLOCK_BYTES;
        if from >= self.bytes {
            return Ok(None);
        }
        let left = usize::try_from(self.bytes - from).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        self.source.read_at(from, &mut buf[..len])?;
        self.next = from.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        Ok(Some((from, len)))
    }
}

/// Adds a volume of this many bytes that begins with the content of a source, and opens it. The import is one seq, dated time_ns (0: now); zeroes
/// and what the source says holds no data are not stored. Nobody changes the source meanwhile. Durable when this returns. watch may be NULL;
/// ended early by it, the call fails with CDP_ERR_IO and the errno ECANCELED. On failure there is no such volume.
/// [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_volume_import(
    store: *mut cdp_store,
    name: *const c_char,
    bytes: u64,
    source: *const cdp_source,
    time_ns: u64,
    watch: *const cdp_watch,
    volume_out: *mut *mut cdp_volume,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("volume_out", volume_out);
        let source = host_source(caller, source)?;
        let out = out?;
        let held = get(store)?;
        let name = caller.text("name", name)?;
        let watch = Watch::of(caller, watch)?;
        let time = Some(time_ns).filter(|time| *time != 0).map(TimeNs::new);
        let mut once = Once { source, watch: &watch, bytes, next: 0 };
        let mut tell = |progress| watch.tell(progress);
        let volume = held.store.import_volume(name, bytes, &mut once, time, &mut tell);
        let volume = volume.map_err(Failure::from)?;
        out.put(put(volume, Some(held.family()))?);
        Ok(())
    })
}

/// Makes a new store, as cdp_store_create does, whose first volume begins with the content of a source, as cdp_volume_import has it: durable when this returns. The
/// import is seq 1. Close it with cdp_store_close. On failure nothing is open; what was begun in the directory or storage is no store and may be removed.
/// [any thread; waits for the storage and the source]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_store_create_with_import(
    path: *const c_char,
    options: *const cdp_create_options,
    source: *const cdp_source,
    time_ns: u64,
    watch: *const cdp_watch,
    store_out: *mut *mut cdp_store,
) -> cdp_status {
    guard(|caller| {
        let (out, source) = (caller.out_handle("store_out", store_out), host_source(caller, source));
        let new = new_store(caller, path, options)?;
        let (out, source) = (out?, source?);
        let watch = Watch::of(caller, watch)?;
        let time = Some(time_ns).filter(|time| *time != 0).map(TimeNs::new);
        let mut once = Once { source, watch: &watch, bytes: new.create().bytes, next: 0 };
        let mut tell = |progress| watch.tell(progress);
        out.put(new.make(|storage, create, open| {
            Store::create_with_import(storage, create, open, &mut once, time, &mut tell)
        })?);
        Ok(())
    })
}
