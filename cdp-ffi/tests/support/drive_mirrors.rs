//! The calls of the random driver that have to do with mirror sets. Copies forget what is written, and fail now and then.

use super::{CDP_OK, Call, DISK, Driver, LENT, Room, cdp_status, come_back, zeroed};
use cdp::{
    CDP_ERR_IO, CDP_ERR_POISONED, cdp_last_error_message, copy::*, mirror::*, mirror_job::*,
    mirror_status::*, snapshot::cdp_extent_iter, storage::*,
};
use std::{
    ffi::{CStr, c_char, c_void},
    ptr,
    sync::atomic::{AtomicI64, Ordering},
};

/// Most sets of one row.
const SETS_MAX: usize = 4;

fn now_and_then(counter: &AtomicI64, every: i64) -> i32 {
    if counter.fetch_add(1, Ordering::SeqCst) % every == every - 1 { -5 } else { 0 }
}

unsafe extern "C" fn read(_: *mut c_void, offset: u64, buf: *mut c_void, len: usize) -> i32 {
    static READS: AtomicI64 = AtomicI64::new(0);
    // SAFETY: the library gives a buffer of this length.
    unsafe { ptr::write_bytes(buf.cast::<u8>(), u8::try_from(offset >> 12 & 0xff).unwrap_or(1), len) };
    now_and_then(&READS, 13)
}

unsafe extern "C" fn write(_: *mut c_void, _: u64, _: *const c_void, _: usize) -> i32 {
    static WRITES: AtomicI64 = AtomicI64::new(0);
    now_and_then(&WRITES, 17)
}

unsafe extern "C" fn write_zeroes(_: *mut c_void, _: u64, _: u64) -> i32 {
    0
}

unsafe extern "C" fn sync(_: *mut c_void) -> i32 {
    static SYNCS: AtomicI64 = AtomicI64::new(0);
    now_and_then(&SYNCS, 23)
}

unsafe extern "C" fn size(_: *mut c_void, bytes_out: *mut u64) -> i32 {
    // SAFETY: an output of the library.
    unsafe { bytes_out.write(2 * DISK) };
    0
}

unsafe extern "C" fn find(
    _: *mut c_void,
    number: u32,
    _: *const c_char,
    copy_out: *mut *mut cdp_copy,
) -> i32 {
    match number % 4 {
        // A host that says that it has found one and has not.
        3 => 0,
        2 => -19,
        _ => {
            LENT.fetch_add(1, Ordering::SeqCst);
            // SAFETY: pointers to what lives here, and an output of the library.
            unsafe { cdp_copy_open_custom(&raw const *calls().get::<cdp_copy_calls>(), copy_out) }
        }
    }
}

fn calls() -> Room {
    let mut calls: cdp_copy_calls = zeroed();
    calls.read = Some(read);
    calls.write = Some(write);
    calls.write_zeroes = Some(write_zeroes);
    calls.sync = Some(sync);
    calls.size = Some(size);
    calls.free_userdata = Some(come_back);
    Room::of(calls, u32::try_from(size_of::<cdp_copy_calls>()).expect("small"), 0xee)
}

/// A set stops for good when the last copy that is whole cannot be synced, which these copies bring about: no defect of the library.
pub(super) fn stopped(status: cdp_status) -> cdp_status {
    // SAFETY: the text stays until the next failure of this thread.
    let said = unsafe { CStr::from_ptr(cdp_last_error_message()) }.to_str().unwrap_or("");
    if status == CDP_ERR_POISONED && !said.starts_with("a defect") { CDP_ERR_IO } else { status }
}

impl Driver<'_> {
    fn new_copies(&mut self) -> [cdp_new_copy; 3] {
        const LOCATORS: [&CStr; 4] = [c"a", c"/nowhere/at/all", c"", c"b"];
        [(); 3].map(|()| {
            let locator = LOCATORS[usize::from(self.choices.byte()) % 4].as_ptr();
            cdp_new_copy { locator, copy: self.handle() }
        })
    }

    fn mirror_options(&mut self, storage: *mut cdp_storage) -> Room {
        let mut opener: cdp_copy_opener = zeroed();
        opener.open = Some(find);
        let mut options: cdp_mirror_options = zeroed();
        (options.flags, options.storage) = (self.choices.flags() & 1, storage);
        options.regions_active_max = self.choices.flags();
        let mut opener = self.choices.room(opener);
        options.opener = opener.get();
        self.openers.push(opener);
        self.choices.room(options)
    }

    /// A set on a storage of its own, which is opened again later.
    fn create_mirror(&mut self) -> cdp_status {
        if self.sets == SETS_MAX {
            return CDP_OK;
        }
        let (mut storage, mut set) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: pointers to what lives in this function; handles may be anything.
        unsafe {
            Self::check(cdp_storage_open_memory(0, &raw mut storage));
            let mut open: cdp_mirror_options = zeroed();
            open.storage = storage;
            let mut open = self.choices.room(open);
            let mut create: cdp_mirror_create_options = zeroed();
            create.bytes = if self.choices.byte() < 240 { DISK } else { self.choices.number() % (8 * DISK) };
            create.ack = self.choices.flags();
            create.granularity_bytes = self.choices.flags() << 12;
            create.open = open.get();
            let (mut create, copies) = (self.choices.room(create), self.new_copies());
            let count = usize::from(self.choices.byte() % 3) + 1;
            let status = cdp_mirror_create(ptr::null(), create.get(), copies.as_ptr(), count, &raw mut set);
            self.sets += usize::from(status == CDP_OK);
            self.keep(storage);
            self.keep(set);
            status
        }
    }

    /// A call that has to do with mirror sets.
    pub(super) fn mirrors(&mut self, op: u8, call: Call) -> cdp_status {
        stopped(self.mirror(op, call))
    }

    fn mirror(&mut self, op: u8, Call { offset, len, flags, buf }: Call) -> cdp_status {
        let number = u32::from(self.choices.byte() % 5);
        // SAFETY: buffers are as long as is said, structs have room for any size, outputs live in this driver; handles may be anything.
        unsafe {
            match op {
                0 => {
                    let (mut given, mut copy) = (calls(), ptr::null_mut());
                    LENT.fetch_add(1, Ordering::SeqCst);
                    let status = cdp_copy_open_custom(given.get(), &raw mut copy);
                    self.keep(copy);
                    status
                }
                1 => self.create_mirror(),
                2 => {
                    let storage = self.handle();
                    let (mut options, mut set) = (self.mirror_options(storage), ptr::null_mut());
                    let status = cdp_mirror_open(ptr::null(), options.get(), &raw mut set);
                    self.keep(set);
                    status
                }
                3 => {
                    let storage = self.handle();
                    let (mut options, mut status) = (self.mirror_options(storage), ptr::null_mut());
                    let outcome = cdp_mirror_examine(ptr::null(), options.get(), &raw mut status);
                    self.keep(status);
                    outcome
                }
                4 | 5 => cdp_mirror_write(self.handle(), offset, buf, len),
                6 => cdp_mirror_read(self.handle(), offset, buf, len),
                7 => cdp_mirror_write_zeroes(self.handle(), offset, self.choices.number()),
                8 => cdp_mirror_flush(self.handle()),
                9 => cdp_mirror_offline(self.handle(), number),
                10 => {
                    let mut room = self.choices.room(zeroed::<cdp_handshake>());
                    let copy = if flags == 1 { self.handle() } else { ptr::null_mut() };
                    cdp_mirror_online(self.handle(), number, copy, room.get())
                }
                11 => {
                    let copies = self.new_copies();
                    cdp_mirror_add(self.handle(), copies.as_ptr(), ptr::null_mut())
                }
                12 => cdp_mirror_remove(self.handle(), number),
                13 => cdp_mirror_resize(self.handle(), offset % (3 * DISK)),
                14 => cdp_mirror_resolve(self.handle(), number),
                15 => {
                    let mut options: cdp_mirror_repair_options = zeroed();
                    (options.flags, options.copy) = (flags, number);
                    let (mut options, mut job) = (self.choices.room(options), ptr::null_mut());
                    let status = cdp_mirror_repair_start(self.handle(), options.get(), &raw mut job);
                    self.keep(job);
                    status
                }
                16 => {
                    let mut room = self.choices.room(zeroed::<cdp_mirror_repair_progress>());
                    cdp_mirror_repair_step(self.handle(), offset, room.get())
                }
                17 => {
                    let mut options: cdp_mirror_verify_options = zeroed();
                    (options.flags, options.right, options.from_offset) = (flags, number, offset);
                    let (mut options, mut job) = (self.choices.room(options), ptr::null_mut());
                    let status = cdp_mirror_verify_start(self.handle(), options.get(), &raw mut job);
                    self.keep(job);
                    status
                }
                18 => {
                    let mut room = self.choices.room(zeroed::<cdp_mirror_verify_progress>());
                    cdp_mirror_verify_step(self.handle(), offset, room.get())
                }
                19 => {
                    let mut room = self.choices.room(zeroed::<cdp_copy_info>());
                    cdp_mirror_status_copy_at(self.handle(), len, room.get())
                }
                20 => {
                    let mut iter = ptr::null_mut::<cdp_extent_iter>();
                    let status = cdp_mirror_claim(self.handle(), number, &raw mut iter);
                    self.keep(iter);
                    status
                }
                21 => {
                    let mut copy = self.handle();
                    cdp_copy_close(&raw mut copy)
                }
                22 => {
                    let mut job = self.handle();
                    cdp_mirror_verify_close(&raw mut job)
                }
                _ => {
                    let mut set = self.handle();
                    cdp_mirror_close(&raw mut set)
                }
            }
        }
    }

    /// Closes what a handle stands for, if it is of a mirror set.
    pub(super) fn close_mirror(address: usize) {
        let mut set: *mut cdp_mirror = ptr::without_provenance_mut(address);
        let mut copy: *mut cdp_copy = ptr::without_provenance_mut(address);
        let mut status: *mut cdp_mirror_status = ptr::without_provenance_mut(address);
        // SAFETY: variables of this function; handles may be anything.
        unsafe {
            // Of these at most one is right. What copies of sets that failed say at the end may be any error.
            Self::check(stopped(cdp_mirror_close(&raw mut set)));
            Self::check(cdp_copy_close(&raw mut copy));
            Self::check(cdp_mirror_status_close(&raw mut status));
        }
    }
}
