//! Where the bytes of a store live: a directory of files, memory, or what the host supplies.

use crate::{
    arguments::{check_flags, sized},
    callback::Userdata,
    failure::{Failure, Outcome, note},
    guard::{caught, guard},
    handle::{get, kind, put, remove},
    host_storage::{HostStorage, Pending},
    status::{CDP_ERR_BUSY, CDP_OK, cdp_status},
    types::cdp_free_userdata,
};
use cdp_core::io::{DirectoryOptions, DirectoryStorage, MemoryStorage, Storage, ThrottledStorage};
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
    path::Path,
    sync::Arc,
};

/// Where the bytes of a store live.
pub struct cdp_storage {
    _private: [u8; 0],
}
kind!(cdp_storage, 1, "storage", Arc<dyn Storage>);

/// The right to write, which one owner has at a time.
pub const CDP_LOCK_OWNER: u32 = 1;
/// The lease of a reader; any number at a time. It waits only for a removal of extents that is under way.
pub const CDP_LOCK_LEASE: u32 = 2;
/// Keeps readers out for the moment of a removal; refused with -EAGAIN while there is a lease.
pub const CDP_LOCK_READERS_OUT: u32 = 3;

/// Fill buf.
pub const CDP_IO_READ: u32 = 1;
/// Write buf, growing the extent when needed.
pub const CDP_IO_WRITE: u32 = 2;
/// Make every write and size of the extent durable that ended before this was submitted.
pub const CDP_IO_SYNC: u32 = 3;

/// What a host says with when a submitted request has ended.
pub struct cdp_completion {
    _private: [u8; 0],
}
kind!(cdp_completion, 18, "completion of a request to the storage", Pending);

/// A request to a storage of the application that need not wait.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_io {
    /// Bytes of this struct that the library has filled.
    pub struct_size: u32,
    /// CDP_IO_*.
    pub op: u32,
    /// What create or open gave for the extent.
    pub handle: *mut c_void,
    /// First byte within the extent; 0 for CDP_IO_SYNC.
    pub offset: u64,
    /// Where the data goes or comes from, the application's until the request is completed; not to be written for CDP_IO_WRITE; NULL for CDP_IO_SYNC.
    pub buf: *mut c_void,
    /// Its length, bytes; 0 for CDP_IO_SYNC.
    pub len: usize,
    /// For cdp_io_complete, once.
    pub completion: *mut cdp_completion,
}
sized!(cdp_io, 48);

/// A storage that the application supplies: numbered extents.
///
/// Every function returns 0 or a negative errno (-ENOENT and -EEXIST where an extent is missing or there, -ENOSPC when there is no space),
/// may be called from any thread, several at once, and must not call the library or unwind. Writes that overlap in flight do not occur.
/// Offsets and lengths of read and write are multiples of 4096, and so are addresses of buffers.
///
/// Durability: a write and a size are durable once a sync that was begun after they returned has returned 0; a name once sync_names has.
/// After a failed sync nothing is known of what it covered.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct cdp_storage_calls {
    /// sizeof(cdp_storage_calls).
    pub struct_size: u32,
    /// 0.
    pub flags: u32,
    /// Passed to every function.
    pub userdata: *mut c_void,
    /// Makes an extent of this many bytes that read as zeroes, with its space allocated, and opens it. Required.
    pub create: Option<
        unsafe extern "C" fn(
            userdata: *mut c_void,
            extent: u64,
            bytes: u64,
            handle_out: *mut *mut c_void,
        ) -> i32,
    >,
    /// Opens an extent. Required.
    pub open:
        Option<unsafe extern "C" fn(userdata: *mut c_void, extent: u64, handle_out: *mut *mut c_void) -> i32>,
    /// Closes what create or open gave, once. May be NULL.
    pub close: Option<unsafe extern "C" fn(userdata: *mut c_void, handle: *mut c_void)>,
    /// Stores the numbers of all extents in any order, at most capacity of them, and how many there are in all. Required.
    pub list: Option<
        unsafe extern "C" fn(
            userdata: *mut c_void,
            extents_out: *mut u64,
            capacity: usize,
            count_out: *mut usize,
        ) -> i32,
    >,
    /// Removes the name of an extent; handles that are open go on working. Required.
    pub remove: Option<unsafe extern "C" fn(userdata: *mut c_void, extent: u64) -> i32>,
    /// Makes created and removed names durable. NULL: they are when create and remove return.
    pub sync_names: Option<unsafe extern "C" fn(userdata: *mut c_void) -> i32>,
    /// Fills the buffer. A range that reaches past the end is an error. Required without submit.
    pub read: Option<
        unsafe extern "C" fn(
            userdata: *mut c_void,
            handle: *mut c_void,
            offset: u64,
            buf: *mut c_void,
            len: usize,
        ) -> i32,
    >,
    /// Writes all of the buffer, growing the extent when needed. Required without submit.
    pub write: Option<
        unsafe extern "C" fn(
            userdata: *mut c_void,
            handle: *mut c_void,
            offset: u64,
            buf: *const c_void,
            len: usize,
        ) -> i32,
    >,
    /// Makes every write and size of the extent durable that returned before. Required without submit.
    pub sync: Option<unsafe extern "C" fn(userdata: *mut c_void, handle: *mut c_void) -> i32>,
    /// Size of the extent in bytes. Required.
    pub size:
        Option<unsafe extern "C" fn(userdata: *mut c_void, handle: *mut c_void, bytes_out: *mut u64) -> i32>,
    /// Cuts or extends the extent; new bytes read as zeroes. Required.
    pub set_size: Option<unsafe extern "C" fn(userdata: *mut c_void, handle: *mut c_void, bytes: u64) -> i32>,
    /// Bytes that the extent takes up. NULL: its size.
    pub allocated:
        Option<unsafe extern "C" fn(userdata: *mut c_void, handle: *mut c_void, bytes_out: *mut u64) -> i32>,
    /// Takes a lock (CDP_LOCK_*) against other processes; -EAGAIN when another holds it. NULL: no other process uses the storage.
    pub lock: Option<unsafe extern "C" fn(userdata: *mut c_void, kind: u32) -> i32>,
    /// Gives a lock back. Required where lock is given.
    pub unlock: Option<unsafe extern "C" fn(userdata: *mut c_void, kind: u32)>,
    /// Called exactly once, when nothing is called any more. May be NULL.
    pub free_userdata: cdp_free_userdata,
    /// Takes a request and returns, for an application that must not block in its functions: used instead of read, write and sync where it is
    /// given. The struct is borrowed for the call. 0: taken, and cdp_io_complete is called for it exactly once, from any thread, also from
    /// within submit or poll. A negative errno: not taken. The thread of the library that submitted waits for the end, however long that takes.
    pub submit: Option<unsafe extern "C" fn(userdata: *mut c_void, io: *const cdp_io) -> i32>,
    /// Called over and over by a thread that waits for a request that it submitted: looks for requests that have ended and completes them, those of
    /// other threads too; may wait for a moment. NULL: they are completed without that, from threads of the application. For submit alone.
    pub poll: Option<unsafe extern "C" fn(userdata: *mut c_void)>,
}
sized!(cdp_storage_calls, 136);

impl cdp_storage_calls {
    fn check(&self) -> Outcome {
        check_flags(self.flags, 0)?;
        let submits = self.submit.is_some();
        if self.poll.is_some() && !submits {
            return Err(Failure::argument("cdp_storage_calls.poll is for submit"));
        }
        let required = [
            ("create", self.create.is_some()),
            ("open", self.open.is_some()),
            ("list", self.list.is_some()),
            ("remove", self.remove.is_some()),
            ("read", submits || self.read.is_some()),
            ("write", submits || self.write.is_some()),
            ("sync", submits || self.sync.is_some()),
            ("size", self.size.is_some()),
            ("set_size", self.set_size.is_some()),
            ("unlock", self.unlock.is_some() || self.lock.is_none()),
        ];
        match required.iter().find(|(_, given)| !given) {
            Some((name, _)) => Err(Failure::argument(format!("cdp_storage_calls.{name} is NULL"))),
            None => Ok(()),
        }
    }
}

/// Go through the page cache even where the file system could do without.
pub const CDP_DIRECTORY_BUFFERED: u32 = 1 << 0;

/// How a directory is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Made, or taken when it is empty.
    Create,
    /// For reading and writing.
    Open,
    /// For reading.
    ReadOnly,
}

/// Opens a directory as a storage.
pub fn directory(path: &str, how: How, flags: u32) -> Outcome<Arc<dyn Storage>> {
    check_flags(flags, CDP_DIRECTORY_BUFFERED)?;
    let options = DirectoryOptions { buffered: flags & CDP_DIRECTORY_BUFFERED != 0 };
    let path = Path::new(path);
    let storage = match how {
        How::Create => DirectoryStorage::create(path, options),
        How::Open => DirectoryStorage::open(path, options),
        How::ReadOnly => DirectoryStorage::open_read_only(path, options),
    };
    let storage = storage.map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Failure::new(CDP_ERR_BUSY, error.to_string()),
        _ => Failure::io(&format!("the directory {}", path.display()), &error),
    })?;
    Ok(Arc::new(storage))
}

/// Takes a storage that the application supplies, for any number of stores that are opened on it one after the other, or as one owner with
/// readers beside it. The struct is copied; userdata must live until free_userdata is called, also when this call fails, which is then at
/// once. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_storage_open_custom(
    calls: *const cdp_storage_calls,
    storage_out: *mut *mut cdp_storage,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("storage_out", storage_out);
        let calls = caller.options(calls)?;
        // From here on it is handed back whatever happens.
        let userdata = Userdata::new(calls.userdata, calls.free_userdata);
        let out = out?;
        calls.check()?;
        let storage: Arc<dyn Storage> = Arc::new(HostStorage::new(calls, userdata));
        out.put(put(storage, None)?);
        Ok(())
    })
}

/// Says that a request that was submitted has ended: 0, or a negative errno. Its buffer is the library's again, and the completion is used up.
/// CDP_ERR_CLOSED when it was used up before. [any thread, also within submit and poll; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_io_complete(completion: *mut cdp_completion, result: i32) -> cdp_status {
    // Not in the guard for callers: this is the one call that callbacks of a storage may make.
    caught(|| remove(completion.cast_const()).map(|pending| pending.complete(result)))
        .map_or_else(note, |()| CDP_OK)
}

/// Makes a storage in memory of at most capacity_bytes bytes (0: no bound), for tests and tools. Nothing of it survives the process.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_storage_open_memory(
    capacity_bytes: u64,
    storage_out: *mut *mut cdp_storage,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("storage_out", storage_out)?;
        let storage: Arc<dyn Storage> = match capacity_bytes {
            0 => Arc::new(MemoryStorage::new()),
            bytes => Arc::new(MemoryStorage::with_capacity(bytes)),
        };
        out.put(put(storage, None)?);
        Ok(())
    })
}

/// Opens a directory as a storage that any number of stores are opened on one after the other; cdp_store_create and cdp_store_open do this
/// by themselves when they are given a path. The directory must be there. flags: CDP_DIRECTORY_*. [any thread; waits for the file system]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_storage_open_directory(
    path: *const c_char,
    flags: u32,
    storage_out: *mut *mut cdp_storage,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("storage_out", storage_out)?;
        out.put(put(directory(caller.text("path", path)?, How::Open, flags)?, None)?);
        Ok(())
    })
}

/// A storage whose writes are held to bytes_per_second, at least 1, on top of another one: what a journal that shares its disk with others may use. A burst of a
/// tenth of a second is let through; reads and syncs pass. inner is borrowed for the call and may be closed then. [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_storage_open_throttled(
    inner: *mut cdp_storage,
    bytes_per_second: u64,
    storage_out: *mut *mut cdp_storage,
) -> cdp_status {
    guard(|caller| {
        let out = caller.out_handle("storage_out", storage_out)?;
        let inner = Arc::clone(&*get(inner)?);
        if bytes_per_second == 0 {
            return Err(Failure::argument("a rate of 0 would never end"));
        }
        let storage: Arc<dyn Storage> = Arc::new(ThrottledStorage::new(inner, bytes_per_second));
        out.put(put(storage, None)?);
        Ok(())
    })
}

/// Gives up a storage and sets the variable to NULL, which it may be already. Stores that are open on it go on working.
/// [any thread; waits for nothing]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cdp_storage_close(storage: *mut *mut cdp_storage) -> cdp_status {
    guard(|caller| caller.close(storage).map(|_| ()))
}
