//! Mirror sets: N copies of a volume that are kept equal (`docs/mirror.md`).

use crate::{
    arguments::{Caller, check_flags, sized, text_into},
    callback::{check_outside, without_ends},
    copy::cdp_copy,
    failure::{Failure, Outcome},
    guard::guard,
    handle::{self, get, kind, put, remove},
    log::{HostLog, cdp_log_sink},
    status::cdp_status,
    storage::{How, cdp_storage, directory},
};
use cdp_core::{
    dirty_map::{ByteRange, Granularity, MapFileOptions},
    io::Storage,
    mirror::{
        AckPolicy, CreateMirror, Decision, Direction, FileCopy, Handshake, MirrorCopy, MirrorOptions,
        MirrorSet, NewCopy, Writers, record::CopyRecord,
    },
};
use std::{
    ffi::{CString, c_char, c_void},
    io,
    mem::size_of,
    ptr,
    sync::Arc,
    time::Duration,
};

/// A mirror set that is open.
pub struct cdp_mirror {
    _private: [u8; 0],
}
kind!(cdp_mirror, 14, "mirror set", Arc<MirrorSet>);

/// How the copies of a set are found when it is opened.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_copy_opener {
    /// sizeof(cdp_copy_opener).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Passed to the function; borrowed for the call.
    pub userdata: *mut c_void,
    /// Stores a copy for the locator that the set was given, made by a cdp_copy_* function in this very callback; the library closes that handle.
    /// 0, or a negative errno for a copy that is missing. It is called from the thread of the call and may call cdp_copy_* alone. Required.
    pub open: Option<
        unsafe extern "C" fn(
            userdata: *mut c_void,
            number: u32,
            locator: *const c_char,
            copy_out: *mut *mut cdp_copy,
        ) -> i32,
    >,
}
sized!(cdp_copy_opener, 24);

/// There is no activity log: after a crash all copies are compared as a whole.
pub const CDP_MIRROR_WITHOUT_LOG: u32 = 1 << 0;
/// A thread for each copy writes to it, from its first change until the set is closed: a write takes as long as the copies that the policy asks for, and not as
/// long as all of them one after the other. Without CDP_ACK_ALL a write that was acknowledged and not flushed may be gone when the process is killed.
pub const CDP_MIRROR_THREADS: u32 = 1 << 1;

/// How a mirror set is used. All zero but for the size is the default of everything.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_mirror_options {
    /// sizeof(cdp_mirror_options).
    pub struct_size: u32,
    /// CDP_MIRROR_*.
    pub flags: u32,
    /// CDP_DIRECTORY_*, for a path.
    pub directory_flags: u32,
    /// Most regions of the activity log that are active at a time, from 4. 0: as many as there may be.
    pub regions_active_max: u32,
    /// Where the metadata lives instead of a path, which is NULL then. Borrowed for the call; the set goes on using what it stands for.
    pub storage: *mut cdp_storage,
    /// How copies are found. NULL: locators are paths of files and devices. Not for cdp_mirror_create.
    pub opener: *const cdp_copy_opener,
    /// Where lines for people go: what happens to the set and its copies. NULL: nowhere. The struct is copied. It is called with locks of the set held.
    pub log: *const cdp_log_sink,
    /// With CDP_MIRROR_THREADS: bytes of writes that wait for a slow copy at most; what it misses beyond is marked in its map. 0: 16 MiB.
    pub behind_bytes_max: u64,
    /// With CDP_MIRROR_THREADS: how long a flush waits for slow copies that the policy can do without, nanoseconds. 0: 250 ms.
    pub patience_ns: u64,
}
sized!(cdp_mirror_options, 32);

/// A write is acknowledged when one copy holds it.
pub const CDP_ACK_ONE: u32 = 0;
/// A write is acknowledged when more than half of all copies of the set hold it.
pub const CDP_ACK_QUORUM: u32 = 1;
/// A write is acknowledged when all copies of the set hold it.
pub const CDP_ACK_ALL: u32 = 2;

/// What a new mirror set begins with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_mirror_create_options {
    /// sizeof(cdp_mirror_create_options).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Size of the volume, bytes; a multiple of 512. Required.
    pub bytes: u64,
    /// When a write is acknowledged: CDP_ACK_*.
    pub ack: u32,
    /// Bytes that one bit of a map stands for, a power of two from 4096 to 1048576. 0: 4096.
    pub granularity_bytes: u32,
    /// Bytes of a region of the activity log, a power of two from the granularity on. 0: 4 MiB.
    pub region_bytes: u64,
    /// How it is used. NULL: the default of everything.
    pub open: *const cdp_mirror_options,
}
sized!(cdp_mirror_create_options, 40);

/// A copy that joins a set.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_new_copy {
    /// Where the host finds it, at most 4096 bytes: given back when the set is opened. Its path, for a file that is to be found without an opener.
    pub locator: *const c_char,
    /// The copy; borrowed for the call, the set goes on using what it stands for. NULL: the locator is the path of a file or device.
    pub copy: *mut cdp_copy,
}

/// The copies are equal.
pub const CDP_DECISION_NOTHING: u32 = 0;
/// Only the blocks that the map names differ.
pub const CDP_DECISION_BY_MAP: u32 = 1;
/// Anything may differ: all of it is compared.
pub const CDP_DECISION_BY_COMPARISON: u32 = 2;
/// Each holds something that the other does not: somebody must say which one is right.
pub const CDP_DECISION_SPLIT_BRAIN: u32 = 3;
/// They are not copies of the same volume, or cannot be.
pub const CDP_DECISION_UNRELATED: u32 = 4;

/// What the handshake says of two copies.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_handshake {
    /// sizeof(cdp_handshake).
    pub struct_size: u32,
    /// CDP_DECISION_*.
    pub decision: u32,
    /// Number of the first copy.
    pub first: u32,
    /// Number of the second copy.
    pub second: u32,
    /// Number of the copy that is read, for CDP_DECISION_BY_MAP and _BY_COMPARISON.
    pub from: u32,
    /// Number of the copy that is written, for those.
    pub to: u32,
    /// Short name of the rule, stable.
    pub rule: [c_char; 64],
    /// The rule in words.
    pub reason: [c_char; 256],
}
sized!(cdp_handshake, 344);

/// The handshake of two copies, for C.
pub(crate) fn handshake_of(first: u32, second: u32, outcome: Handshake) -> cdp_handshake {
    let (decision, direction) = match outcome.decision {
        Decision::Nothing => (CDP_DECISION_NOTHING, None),
        Decision::ByMap(direction) => (CDP_DECISION_BY_MAP, Some(direction)),
        Decision::ByComparison(direction) => (CDP_DECISION_BY_COMPARISON, Some(direction)),
        Decision::SplitBrain => (CDP_DECISION_SPLIT_BRAIN, None),
        Decision::Unrelated => (CDP_DECISION_UNRELATED, None),
    };
    let (from, to) = match direction {
        None => (0, 0),
        Some(Direction::FirstToSecond) => (first, second),
        Some(Direction::SecondToFirst) => (second, first),
    };
    let (rule, reason) = (text_into(outcome.rule), text_into(outcome.reason));
    cdp_handshake { struct_size: 0, decision, first, second, from, to, rule, reason }
}

/// What the options say, in the words of the core.
pub(crate) struct Opening<'a> {
    pub options: MirrorOptions,
    pub opener: Opener,
    storage: Option<Arc<dyn Storage>>,
    directory_flags: u32,
    path: Option<&'a str>,
    log: Option<Arc<HostLog>>,
}

/// How copies are found.
pub(crate) enum Opener {
    /// Locators are paths.
    Files,
    /// The host does.
    Host(cdp_copy_opener),
}

impl Opener {
    pub fn find(&self, record: &CopyRecord) -> io::Result<Arc<dyn MirrorCopy>> {
        let Self::Host(calls) = self else { return Ok(Arc::new(FileCopy::open(&record.locator)?)) };
        let open = calls.open.ok_or(io::ErrorKind::Unsupported)?;
        let locator = CString::new(record.locator.as_str())?;
        let mut copy = ptr::null_mut();
        // SAFETY: a function of the host with its own userdata, which is lent for the call.
        let answered =
            without_ends(|| unsafe { open(calls.userdata, record.number, locator.as_ptr(), &raw mut copy) });
        crate::callback::answer(answered)?;
        let held = remove(copy.cast_const()).map_err(|failure| io::Error::other(failure.message))?;
        Ok(Arc::clone(&*held))
    }
}

pub(crate) fn opening<'a>(
    caller: Caller,
    path: *const c_char,
    options: *const cdp_mirror_options,
) -> Outcome<Opening<'a>> {
    let given = caller.options_or_default(options)?;
    // First of all, so that what the log uses is handed back whatever else is wrong.
    let log = HostLog::of(caller, given.log)?;
    check_flags(given.flags, CDP_MIRROR_WITHOUT_LOG | CDP_MIRROR_THREADS)?;
    let threads = given.flags & CDP_MIRROR_THREADS != 0;
    if !threads && (given.behind_bytes_max != 0 || given.patience_ns != 0) {
        return Err(Failure::argument("behind_bytes_max and patience_ns are for CDP_MIRROR_THREADS"));
    }
    let mut map =
        MapFileOptions { log: given.flags & CDP_MIRROR_WITHOUT_LOG == 0, ..MapFileOptions::default() };
    if given.regions_active_max != 0 {
        map.regions_active_max = given.regions_active_max as usize;
    }
    let storage = match given.storage.is_null() {
        true => None,
        false => Some(Arc::clone(&*get(given.storage)?)),
    };
    let opener = match given.opener.is_null() {
        true => Opener::Files,
        false => Opener::Host(opener_of(caller, given.opener)?),
    };
    let mut options = MirrorOptions { map, ..MirrorOptions::default() };
    if threads {
        options.writers = Writers::Threads;
    }
    if given.behind_bytes_max != 0 {
        options.behind_bytes_max = given.behind_bytes_max;
    }
    if given.patience_ns != 0 {
        options.patience = Duration::from_nanos(given.patience_ns);
    }
    let path = caller.text_optional("path", path)?;
    Ok(Opening { options, opener, storage, directory_flags: given.directory_flags, path, log })
}

fn opener_of(caller: Caller, opener: *const cdp_copy_opener) -> Outcome<cdp_copy_opener> {
    let given = caller.options(opener)?;
    check_flags(given.flags, 0)?;
    match given.open {
        Some(_) => Ok(given),
        None => Err(Failure::argument("cdp_copy_opener.open is NULL")),
    }
}

impl Opening<'_> {
    /// Where the metadata lives.
    pub fn storage(&self, how: How) -> Outcome<Arc<dyn Storage>> {
        match (self.path, &self.storage) {
            (Some(path), None) => directory(path, how, self.directory_flags),
            (None, Some(storage)) => {
                check_flags(self.directory_flags, 0)?;
                Ok(Arc::clone(storage))
            }
            _ => Err(Failure::argument("either a path or options.storage is given")),
        }
    }

    /// The handle of a set that was opened, with its log.
    fn put(self, set: MirrorSet) -> Outcome<*mut cdp_mirror> {
        if let Some(log) = self.log {
            log.mirror_opened(&set);
        }
        put(Arc::new(set), None)
    }
}

/// A copy that joins, opened if it is named by a path alone.
fn new_copy(caller: Caller, new: cdp_new_copy) -> Outcome<NewCopy> {
    let locator = caller.text("locator", new.locator)?.to_owned();
    let copy: Arc<dyn MirrorCopy> = match new.copy.is_null() {
        true => Arc::new(FileCopy::open(&locator).map_err(|error| Failure::io(&locator, &error))?),
        false => Arc::clone(&*get(new.copy)?),
    };
    Ok(NewCopy { locator, copy })
}

fn ack_of(code: u32) -> Outcome<AckPolicy> {
    match code {
        CDP_ACK_ONE => Ok(AckPolicy::One),
        CDP_ACK_QUORUM => Ok(AckPolicy::Quorum),
        CDP_ACK_ALL => Ok(AckPolicy::All),
        other => Err(Failure::argument(format!("{other} is not a way to acknowledge writes"))),
    }
}

/// Makes a mirror set of 1 to 8 copies and opens it. Its metadata go into a new or empty directory, or into options.open.storage, and must be kept
/// with it; the copies hold nothing but the volume. The first copy is the source and the others are dirty, unless all are known to be
/// zeroes: cdp_mirror_repair_start makes them equal. CDP_ERR_EXISTS when there is a set already or a copy is given twice, CDP_ERR_MIRROR_REFUSED for a
/// copy that is too small. [any thread; waits for the storage and the copies]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_create(
    path: *const c_char,
    options: *const cdp_mirror_create_options,
    copies: *const cdp_new_copy,
    copies_count: usize,
    mirror_out: *mut *mut cdp_mirror,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("mirror_out", mirror_out);
        let given = caller.options(options)?;
        let opening = opening(caller, path, given.open);
        let out = out?;
        check_flags(given.flags, 0)?;
        let mut opening = opening?;
        if matches!(opening.opener, Opener::Host(_)) {
            return Err(Failure::argument("the copies of a new set are given and not looked for: no opener"));
        }
        if given.region_bytes != 0 {
            opening.options.map.region_bytes = given.region_bytes;
        }
        let granularity = match given.granularity_bytes {
            0 => Granularity::MIN,
            bytes => Granularity::new(bytes.into())?,
        };
        let create = CreateMirror {
            bytes: given.bytes,
            granularity,
            ack: ack_of(given.ack)?,
            options: opening.options,
        };
        let copies = caller.items("copies", copies, copies_count)?.iter();
        let copies = copies.map(|new| new_copy(caller, *new)).collect::<Outcome<Vec<_>>>()?;
        let set = MirrorSet::create(opening.storage(How::Create)?, create, copies)?;
        out.put(opening.put(set)?);
        Ok(())
    })
}

/// Opens a mirror set: finds its copies, decides which is the source, and takes up what a crash has left. A copy that cannot be found is offline.
/// When no copy can be the source the set opens all the same and refuses reads and writes: cdp_mirror_status_open says why,
/// cdp_mirror_resolve decides. CDP_ERR_BUSY while another has it open. options may be NULL. [any thread; waits for the storage and the copies]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_open(
    path: *const c_char,
    options: *const cdp_mirror_options,
    mirror_out: *mut *mut cdp_mirror,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("mirror_out", mirror_out);
        let opening = opening(caller, path, options)?;
        let out = out?;
        let storage = opening.storage(How::Open)?;
        let set = MirrorSet::open(storage, opening.options, &mut |record| opening.opener.find(record))?;
        out.put(opening.put(set)?);
        Ok(())
    })
}

/// Ends the use of a set in good order and sets the variable to NULL, which it may be already: everything is durable, and the next open compares
/// nothing. Repairs and verifications of it are closed with it. The set is closed whatever the status; after an error the next open takes it
/// for a crash. [any thread; CDP_ERR_BUSY from a callback, and nothing is closed; waits for the copies and for calls that are under way]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_close(mirror: *mut *mut cdp_mirror) -> cdp_status {
    guard(|caller| {
        check_outside()?;
        let Some(held) = caller.close(mirror)? else { return Ok(()) };
        drop(handle::remove_family(held.family()));
        Ok(held.close()?)
    })
}

/// Size of the volume. [any thread; waits for a resize that is under way]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_size(mirror: *const cdp_mirror, bytes_out: *mut u64) -> cdp_status {
    guard(|caller| {
        let held = get(mirror)?;
        let out = caller.out("bytes_out", bytes_out)?;
        out.put(held.bytes());
        Ok(())
    })
}

/// Fills the buffer from byte offset, from a copy that holds the range. Multiples of 512. A copy that cannot be read is mended from another one;
/// the content of the buffer is undefined after a failure. [any thread, several at once; waits for the copies]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_read(
    mirror: *const cdp_mirror,
    offset: u64,
    buf: *mut c_void,
    len: usize,
) -> cdp_status {
    guard(|caller| Ok(get(mirror)?.read(offset, caller.bytes_mut("buf", buf, len)?)?))
}

/// Writes to all copies that are online, one after the other, and marks what the others miss. Multiples of 512. CDP_OK: as many copies hold it as
/// the policy asks for; durable with cdp_mirror_flush. CDP_ERR_TOO_FEW_COPIES: before, nothing was written; after copies failed, the
/// range may hold the data or what was there. CDP_ERR_IO when the last copy that lacks nothing failed.
/// [any thread, several at once; waits for the copies and for writes that overlap]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_write(
    mirror: *mut cdp_mirror,
    offset: u64,
    buf: *const c_void,
    len: usize,
) -> cdp_status {
    guard(|caller| Ok(get(mirror)?.write(offset, caller.bytes("buf", buf, len)?)?))
}

/// As cdp_mirror_write, zeroes over a range of any length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_write_zeroes(
    mirror: *mut cdp_mirror,
    offset: u64,
    len: u64,
) -> cdp_status {
    guard(|_| Ok(get(mirror)?.write_zeroes(offset, len)?))
}

/// As cdp_mirror_write_zeroes, for a range that the owner of the disk has no use for any more. It reads as zeroes afterwards, from every copy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_discard(mirror: *mut cdp_mirror, offset: u64, len: u64) -> cdp_status {
    guard(|_| Ok(get(mirror)?.discard(offset, len)?))
}

/// Makes everything durable that was acknowledged before, on all copies that are online. [any thread, several at once; waits for the copies]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_flush(mirror: *mut cdp_mirror) -> cdp_status {
    guard(|_| Ok(get(mirror)?.flush()?))
}

/// Rewrites a range of a copy that is known to be damaged there from another copy that holds it, whatever the copy reads; offset and len are multiples of 512, and
/// whole blocks of 4096 are rewritten. What the map of the copy names anyway is left to a repair. CDP_ERR_NOT_FOUND; CDP_ERR_MIRROR_REFUSED when no other copy holds
/// it, or the copy could not be written and is offline. [any thread, several at once; waits for the copies and for writes that overlap]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_repair_range(
    mirror: *mut cdp_mirror,
    number: u32,
    offset: u64,
    len: u64,
) -> cdp_status {
    guard(|_| Ok(get(mirror)?.repair_range(number, ByteRange { offset, bytes: len })?))
}

/// Takes a copy out of service: from now on it misses writes, and its map says which. CDP_ERR_NOT_FOUND; CDP_ERR_MIRROR_REFUSED for the last copy
/// that lacks nothing. [any thread; waits for the copies and the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_offline(mirror: *mut cdp_mirror, number: u32) -> cdp_status {
    guard(|_| Ok(get(mirror)?.offline(number)?))
}

/// Brings a copy back that was away, if the handshake with the source allows it. It takes writes from now on, and a repair gives it what it
/// lacks. copy is where it is now, borrowed for the call; NULL: where it was. handshake_out, which may be NULL, is what the handshake said, with the
/// source as first. CDP_ERR_MIRROR_REFUSED when it is missing, too small, unrelated or a split brain; CDP_ERR_EXISTS when it is a copy of the
/// set already. [any thread; waits for the copies and the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_online(
    mirror: *mut cdp_mirror,
    number: u32,
    copy: *mut cdp_copy,
    handshake_out: *mut cdp_handshake,
) -> cdp_status {
    guard(|caller| {
        let held = get(mirror)?;
        let out = caller.sized_out_optional(handshake_out)?;
        let copy = match copy.is_null() {
            true => None,
            false => Some(Arc::clone(&*get(copy)?)),
        };
        let source = held.status().source.unwrap_or(number);
        let outcome = held.online(number, copy)?;
        if let Some(out) = out {
            out.put(&handshake_of(source, number, outcome));
        }
        Ok(())
    })
}

/// Adds a copy; number_out, which may be NULL, is its number. Everything is dirty on it until it is repaired, unless it and the source are known to
/// be zeroes. CDP_ERR_EXISTS for a copy that the set has, CDP_ERR_MIRROR_REFUSED for one that is too small. [any thread; waits for the copies
/// and the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_add(
    mirror: *mut cdp_mirror,
    copy: *const cdp_new_copy,
    number_out: *mut u32,
) -> cdp_status {
    guard(|caller| {
        let held = get(mirror)?;
        let out = caller.out_optional("number_out", number_out)?;
        let new = caller.items("copy", copy, 1)?;
        out.put(held.add(new_copy(caller, new[0])?)?);
        Ok(())
    })
}

/// Takes a copy out of the set for good. Its content stays as it is, its number is not used again. CDP_ERR_NOT_FOUND; CDP_ERR_MIRROR_REFUSED for the
/// last copy that lacks nothing. [any thread; waits for the copies and the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_remove(mirror: *mut cdp_mirror, number: u32) -> cdp_status {
    guard(|_| Ok(get(mirror)?.remove(number)?))
}

/// Gives the volume, and every copy, another size. When it fails while copies grow, the set goes on at the old size. CDP_ERR_MIRROR_REFUSED while a
/// copy is missing. [any thread; waits for calls that are under way, the copies and the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_resize(mirror: *mut cdp_mirror, bytes: u64) -> cdp_status {
    guard(|_| Ok(get(mirror)?.resize(bytes)?))
}

/// Decides that a copy is right: every other one is behind it and all dirty. The only way out of a split brain; a repair then makes the others equal.
/// [any thread; waits for the copies and the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_mirror_resolve(mirror: *mut cdp_mirror, winner: u32) -> cdp_status {
    guard(|_| Ok(get(mirror)?.resolve(winner)?))
}

#[cfg(test)]
mod tests {
    /// Goal: no rule of the handshake is cut where C reads it. Method: the texts of the source of the core are shorter than the members.
    #[test]
    fn every_rule_of_the_handshake_fits() {
        let source = include_str!("../../cdp-core/src/mirror/handshake.rs");
        let longest = source.split('"').skip(1).step_by(2).map(str::len).max();
        assert!(longest.is_some_and(|longest| (40..256).contains(&longest)), "{longest:?}");
    }
}
