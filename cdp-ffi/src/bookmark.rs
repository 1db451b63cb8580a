//! Bookmarks: named points of all volumes of a store.

use crate::{
    arguments::{Caller, check_flags, check_reserved, sized, text_into},
    callback::{answer, without_ends},
    failure::{Failure, Outcome},
    guard::{guard, guard_status},
    handle::{get, kind, put},
    status::{CDP_END, CDP_OK, cdp_status},
    store::cdp_store,
    types::cdp_point,
};
use cdp_core::{Bookmark, BookmarkKind, Error, NewBookmark, Quiesce, units::TimeNs};
use parking_lot::Mutex;
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
    time::Duration,
};

/// A list of bookmarks.
pub struct cdp_bookmark_iter {
    _private: [u8; 0],
}
kind!(cdp_bookmark_iter, 7, "list of bookmarks", Mutex<std::vec::IntoIter<Bookmark>>);

/// A person or a program named the moment.
pub const CDP_BOOKMARK_USER: u32 = 0;
/// A file system was consistent.
pub const CDP_BOOKMARK_FS: u32 = 1;
/// An application was consistent.
pub const CDP_BOOKMARK_APP: u32 = 2;
/// The library set it itself, for instance where a gap ends.
pub const CDP_BOOKMARK_SYSTEM: u32 = 3;

/// The bookmark must be unlocked before it can go.
pub const CDP_BOOKMARK_LOCKED: u32 = 1 << 0;
/// To be set: refuse when a volume is not exact at this point. As information: every volume was exact.
pub const CDP_BOOKMARK_EXACT: u32 = 1 << 1;

/// A bookmark to be set. All zero but for the size is a user bookmark of the newest state.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_bookmark_options {
    /// sizeof(cdp_bookmark_options).
    pub struct_size: u32,
    /// CDP_BOOKMARK_LOCKED, CDP_BOOKMARK_EXACT.
    pub flags: u32,
    /// What it vouches for: CDP_BOOKMARK_USER, _FS or _APP.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// The application, free text such as "postgresql", at most 128 bytes. May be NULL.
    pub app: *const c_char,
    /// Free text, at most 4096 bytes. May be NULL.
    pub comment: *const c_char,
    /// When it may go by itself. 0: never.
    pub expires_ns: u64,
    /// Its time. 0: that of its point, else now.
    pub time_ns: u64,
    /// The point that it names, as cdp_resolve reads it. NULL: after everything written so far.
    pub at: *const c_char,
}
sized!(cdp_bookmark_options, 56);

/// Production that can be held still while a bookmark takes its place: a file system, a database, a virtual machine. Both functions are
/// called from the thread that asks for the bookmark and may call the library, but for closing the store.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_quiesce {
    /// sizeof(cdp_quiesce).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Passed to both functions; borrowed for the call.
    pub userdata: *mut c_void,
    /// Holds production in the state that the bookmark vouches for: when it returns 0, every write that was acknowledged was written to its
    /// volume or handed to its tap. A negative errno: no bookmark is set. Required.
    pub freeze: Option<unsafe extern "C" fn(userdata: *mut c_void) -> i32>,
    /// Lets production go on. Called once after each call of freeze, also when that failed. Required.
    pub thaw: Option<unsafe extern "C" fn(userdata: *mut c_void)>,
    /// How long production may be held from the return of freeze, nanoseconds. Required.
    pub timeout_ns: u64,
}
sized!(cdp_quiesce, 40);

/// A bookmark.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_bookmark_info {
    /// sizeof(cdp_bookmark_info).
    pub struct_size: u32,
    /// CDP_BOOKMARK_LOCKED, CDP_BOOKMARK_EXACT.
    pub flags: u32,
    /// What it vouches for: CDP_BOOKMARK_USER, _FS, _APP or _SYSTEM.
    pub kind: u32,
    /// Volumes that were not exact when it was set.
    pub inexact_volumes: u32,
    /// The state that it names, and its own time, which may be later than that of its state.
    pub point: cdp_point,
    /// When it may go by itself. 0: never.
    pub expires_ns: u64,
    /// Its name, NUL-terminated.
    pub name: [c_char; 136],
    /// The application, NUL-terminated; "" when there is none.
    pub app: [c_char; 136],
    /// Free text, NUL-terminated; "" when there is none.
    pub comment: [c_char; 4104],
}
sized!(cdp_bookmark_info, 4416);

impl From<&Bookmark> for cdp_bookmark_info {
    fn from(bookmark: &Bookmark) -> Self {
        let exact = bookmark.inexact_volumes.is_empty();
        let flags = [(bookmark.locked, CDP_BOOKMARK_LOCKED), (exact, CDP_BOOKMARK_EXACT)];
        Self {
            struct_size: 0,
            flags: flags.iter().filter(|(on, _)| *on).map(|(_, flag)| flag).sum(),
            kind: code_of(bookmark.kind),
            inexact_volumes: u32::try_from(bookmark.inexact_volumes.len()).unwrap_or(u32::MAX),
            point: cdp_point { seq: bookmark.seq.get(), time_ns: bookmark.time.get() },
            expires_ns: bookmark.expires.map_or(0, TimeNs::get),
            name: text_into(&bookmark.name),
            app: text_into(bookmark.app.as_deref().unwrap_or_default()),
            comment: text_into(bookmark.comment.as_deref().unwrap_or_default()),
        }
    }
}

fn optional_time(time_ns: u64) -> Option<TimeNs> {
    Some(time_ns).filter(|time| *time != 0).map(TimeNs::new)
}

pub(crate) fn kind_of(code: u32) -> Outcome<BookmarkKind> {
    match code {
        CDP_BOOKMARK_USER => Ok(BookmarkKind::User),
        CDP_BOOKMARK_FS => Ok(BookmarkKind::FileSystem),
        CDP_BOOKMARK_APP => Ok(BookmarkKind::Application),
        other => Err(Failure::argument(format!("{other} is not a kind of bookmark that can be set"))),
    }
}

/// The other way round.
pub(crate) fn code_of(kind: BookmarkKind) -> u32 {
    match kind {
        BookmarkKind::User => CDP_BOOKMARK_USER,
        BookmarkKind::FileSystem => CDP_BOOKMARK_FS,
        BookmarkKind::Application => CDP_BOOKMARK_APP,
        BookmarkKind::System => CDP_BOOKMARK_SYSTEM,
    }
}

/// The bookmark that a caller wants.
pub(crate) fn wanted(
    caller: Caller,
    name: *const c_char,
    options: *const cdp_bookmark_options,
) -> Outcome<NewBookmark> {
    let given = caller.options_or_default(options)?;
    check_flags(given.flags, CDP_BOOKMARK_LOCKED | CDP_BOOKMARK_EXACT)?;
    check_reserved(given.reserved)?;
    let at = caller.text_optional("at", given.at)?.map(str::parse).transpose()?;
    Ok(NewBookmark {
        kind: kind_of(given.kind)?,
        app: caller.text_optional("app", given.app)?.map(str::to_owned),
        comment: caller.text_optional("comment", given.comment)?.map(str::to_owned),
        locked: given.flags & CDP_BOOKMARK_LOCKED != 0,
        expires: optional_time(given.expires_ns),
        at,
        time: optional_time(given.time_ns),
        require_exact: given.flags & CDP_BOOKMARK_EXACT != 0,
        ..NewBookmark::named(caller.text("name", name)?)
    })
}

/// Production of the host.
pub(crate) struct HostProduction {
    userdata: *mut c_void,
    freeze: unsafe extern "C" fn(*mut c_void) -> i32,
    thaw: unsafe extern "C" fn(*mut c_void),
    pub timeout: Duration,
}

impl HostProduction {
    /// That of a caller; `None` for NULL.
    pub fn of(caller: Caller, quiesce: *const cdp_quiesce) -> Outcome<Option<Self>> {
        if quiesce.is_null() {
            return Ok(None);
        }
        let given = caller.options(quiesce)?;
        check_flags(given.flags, 0)?;
        let (Some(freeze), Some(thaw)) = (given.freeze, given.thaw) else {
            return Err(Failure::argument("cdp_quiesce.freeze or thaw is NULL"));
        };
        if given.timeout_ns == 0 {
            return Err(Failure::argument("cdp_quiesce.timeout_ns is 0"));
        }
        let timeout = Duration::from_nanos(given.timeout_ns);
        Ok(Some(Self { userdata: given.userdata, freeze, thaw, timeout }))
    }
}

impl Quiesce for HostProduction {
    fn freeze(&self) -> cdp_core::Result<()> {
        // SAFETY: a function of the host with its own userdata, which lives as long as the call.
        let answered = without_ends(|| unsafe { (self.freeze)(self.userdata) });
        answer(answered).map_err(|error| Error::io("freeze", "production", error))
    }

    fn thaw(&self) {
        // SAFETY: as above.
        without_ends(|| unsafe { (self.thaw)(self.userdata) });
    }
}

/// Sets a bookmark, durable when this returns with everything written before it. name is unique in the store: A-Z a-z 0-9 . _ -, 1 to
/// 128 bytes. options, quiesce and info_out may be NULL. With quiesce production is frozen while the bookmark takes its place, for the time
/// given at most, and is thawed whatever happens; CDP_ERR_NOT_PLACED when there was no place in time. On failure nothing is recorded.
/// [any thread; waits for the storage; with quiesce it uses one thread meanwhile]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_create(
    store: *mut cdp_store,
    name: *const c_char,
    options: *const cdp_bookmark_options,
    quiesce: *const cdp_quiesce,
    info_out: *mut cdp_bookmark_info,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.sized_out_optional(info_out)?;
        let new = wanted(caller, name, options)?;
        let bookmark = match HostProduction::of(caller, quiesce)? {
            None => held.store.add_bookmark(&new)?,
            Some(production) => held.store.add_bookmark_quiesced(&new, &production, production.timeout)?,
        };
        if let Some(out) = out {
            out.put(&(&bookmark).into());
        }
        Ok(())
    })
}

/// A bookmark by name. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_find(
    store: *const cdp_store,
    name: *const c_char,
    info_out: *mut cdp_bookmark_info,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        let out = caller.sized_out(info_out)?;
        out.put(&(&held.store.bookmark(caller.text("name", name)?)?).into());
        Ok(())
    })
}

/// Locks a bookmark (locked 1) or unlocks it (0); durable when this returns. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_set_locked(
    store: *mut cdp_store,
    name: *const c_char,
    locked: u32,
) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        if locked > 1 {
            return Err(Failure::argument(format!("locked is 0 or 1, not {locked}")));
        }
        Ok(held.store.lock_bookmark(caller.text("name", name)?, locked == 1)?)
    })
}

/// Removes a bookmark; durable when this returns. CDP_ERR_LOCKED when it must be unlocked before. [any thread; waits for the storage]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_delete(store: *mut cdp_store, name: *const c_char) -> cdp_status {
    guard(|caller| {
        let held = get(store)?;
        Ok(held.store.delete_bookmark(caller.text("name", name)?)?)
    })
}

/// Lists the bookmarks of this moment by seq, then time, then name. Close it with cdp_bookmark_iter_close. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_iter_open(
    store: *const cdp_store,
    iter_out: *mut *mut cdp_bookmark_iter,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("iter_out", iter_out)?;
        let held = get(store)?;
        let row = Mutex::new(held.store.bookmarks().into_iter());
        out.put(put(row, Some(held.family()))?);
        Ok(())
    })
}

/// The next bookmark; CDP_END when there is none. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_iter_next(
    iter: *mut cdp_bookmark_iter,
    info_out: *mut cdp_bookmark_info,
) -> cdp_status {
    guard_status(|caller| {
        let row = get(iter)?;
        let out = caller.sized_out(info_out)?;
        let Some(bookmark) = row.lock().next() else { return Ok(CDP_END) };
        out.put(&(&bookmark).into());
        Ok(CDP_OK)
    })
}

/// Gives up the list and sets the variable to NULL, which it may be already. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_bookmark_iter_close(iter: *mut *mut cdp_bookmark_iter) -> cdp_status {
    guard(|caller| caller.close(iter).map(|_| ()))
}
