//! Random calls of the C interface, chosen by bytes: wrong handles, lengths, flags, sizes of structs, in any order.
//!
//! What C could not be kept from either is left out: pointers to memory that is not there. Invariants: every call returns a status that has a
//! name and is no defect of the library; what was lent to the library comes back.

#![allow(unsafe_code)]

#[path = "drive_jobs.rs"]
mod jobs;
#[path = "drive_mirrors.rs"]
mod mirrors;
#[path = "drive_more.rs"]
mod more;

use cdp::{
    bookmark::*, event::*, in_flight::*, job::cdp_job_close, point::*, queue::*, restore::*, resync::*,
    retention::*, seed::cdp_seed_close, snapshot::*, source::*, statistics::*, storage::*, store::*, tap::*,
    timeline::*, types::*, volume::*, *,
};
use std::{
    any::type_name,
    ffi::{CStr, c_char, c_void},
    ptr,
    sync::atomic::{AtomicI64, Ordering},
};

/// Size of the volumes, and of the source, bytes.
const DISK: u64 = 256 << 10;
/// Buffers of calls.
const BUFFER: usize = 64 << 10;
/// Room for a struct of the newest header, with what no header knows behind it.
const STRUCT: usize = 32 << 10;
const CALLS_MAX: usize = 400;
const STORES_MAX: usize = 4;

/// What was lent and did not come back.
static LENT: AtomicI64 = AtomicI64::new(0);

unsafe extern "C" fn source_read(_: *mut c_void, offset: u64, buf: *mut c_void, len: usize) -> i32 {
    static READS: AtomicI64 = AtomicI64::new(0);
    if READS.fetch_add(1, Ordering::SeqCst) % 5 == 4 {
        return -5;
    }
    // SAFETY: the library gives a buffer of this length.
    unsafe { ptr::write_bytes(buf.cast::<u8>(), u8::try_from(offset >> 12 & 0xff).unwrap_or(1), len) };
    0
}

unsafe extern "C" fn target_write(_: *mut c_void, _: u64, _: *const c_void, _: usize) -> i32 {
    0
}

unsafe extern "C" fn write_through(length: *mut c_void) -> i32 {
    [0, 0, CDP_END, -28, 77][length.addr() / 512 % 5]
}

unsafe extern "C" fn target_zero(_: *mut c_void, offset: u64, _: u64) -> i32 {
    if offset.is_multiple_of(3) { 0 } else { -28 }
}

unsafe extern "C" fn progress(_: *mut c_void, done: u64, _: u64) -> i32 {
    i32::from(done > DISK / 2)
}

unsafe extern "C" fn freeze(_: *mut c_void) -> i32 {
    0
}

unsafe extern "C" fn thaw(_: *mut c_void) {}

unsafe extern "C" fn come_back(_: *mut c_void) {
    LENT.fetch_sub(1, Ordering::SeqCst);
}

/// A struct of C in more room than it takes.
struct Room(Vec<u64>);

impl Room {
    fn of<T: Copy>(value: T, size: u32, tail: u8) -> Self {
        let mut room = vec![0_u64; STRUCT / 8];
        let bytes = room.as_mut_ptr().cast::<u8>();
        // SAFETY: the room is larger than any struct, and aligned for all of them.
        unsafe {
            ptr::write_bytes(bytes, tail, STRUCT);
            bytes.cast::<T>().write(value);
            bytes.cast::<u32>().write(size);
        }
        Self(room)
    }

    fn get<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }
}

/// The bytes that decide.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Mostly what makes sense on a small volume.
    fn number(&mut self) -> u64 {
        let (kind, value) = (self.byte(), u64::from(self.byte()));
        match kind % 8 {
            0..=3 => value * 4096 % DISK,
            4 => value * 512,
            5 => value,
            6 => u64::MAX - value,
            _ => value << (kind & 63),
        }
    }

    fn len(&mut self) -> usize {
        usize::try_from(self.number()).unwrap_or(0) % BUFFER
    }

    fn flags(&mut self) -> u32 {
        match self.byte() {
            high @ 240.. => 1 << (high & 31),
            low @ 160.. => u32::from(low & 3),
            _ => 0,
        }
    }

    /// A struct with the size of this header mostly, or one of another.
    fn room<T: Copy>(&mut self, value: T) -> Room {
        let own = u32::try_from(size_of::<T>()).expect("structs are small");
        match self.byte() % 16 {
            0 => Room::of(value, own + 8, 0),
            1 => Room::of(value, own + 8, 0xff),
            2 => Room::of(value, u32::from(self.byte()), 0),
            3 => Room::of(value, u32::MAX, 0),
            4 => Room::of(value, own - 4, 0),
            _ => Room::of(value, own, 0xee),
        }
    }

    fn text(&mut self) -> *const c_char {
        const TEXTS: [&CStr; 14] = [
            c"disk",
            c"a",
            c"b",
            c"c",
            c"",
            c"latest",
            c"oldest",
            c"seq:1",
            c"bookmark:a",
            c"time:2026-01-01T00:00:00Z",
            c"with space",
            c"\xff",
            c"[[window]]\nto = \"1h\"\nkeep = \"all\"\n",
            c"{}",
        ];
        match usize::from(self.byte()) % (TEXTS.len() + 1) {
            0 => ptr::null(),
            at => TEXTS[at - 1].as_ptr(),
        }
    }
}

/// What calls are given.
#[derive(Clone, Copy)]
struct Call {
    offset: u64,
    len: usize,
    flags: u32,
    buf: *mut c_void,
}

/// Handles of all kinds, closed ones among them.
struct Driver<'a> {
    choices: Choices<'a>,
    handles: Vec<(usize, &'static str)>,
    stores: usize,
    /// Mirror sets that were made.
    sets: usize,
    /// Where maps live: on a storage that nothing else uses.
    maps: *mut cdp_storage,
    /// What options point to.
    openers: Vec<Room>,
    buffer: Vec<u8>,
    one: u64,
    point: cdp_point,
}

fn zeroed<T: Copy>() -> T {
    // SAFETY: only asked for structs of C, of which any bytes are a value.
    unsafe { std::mem::zeroed() }
}

impl Driver<'_> {
    /// A handle, of the right kind mostly.
    fn handle<T>(&mut self) -> *mut T {
        let choice = usize::from(self.choices.byte());
        let right = |of: &str| choice >= 232 || of == type_name::<T>();
        let fit: Vec<usize> =
            self.handles.iter().filter(|(_, of)| right(of)).map(|(address, _)| *address).collect();
        let address = fit.get(choice.checked_rem(fit.len()).unwrap_or(0)).copied().unwrap_or(0);
        // Now and then one that nobody gave out.
        ptr::without_provenance_mut(if choice == 255 { address ^ 2 } else { address })
    }

    fn keep<T>(&mut self, handle: *mut T) {
        if !handle.is_null() {
            self.handles.push((handle.addr(), type_name::<T>()));
        }
    }

    fn check(status: cdp_status) -> cdp_status {
        // SAFETY: names live as long as the program.
        let name = unsafe { CStr::from_ptr(cdp_status_name(status)) };
        assert!(
            name != c"CDP_ERR_UNKNOWN" && status != CDP_ERR_PANIC && status != CDP_ERR_POISONED,
            "{status}"
        );
        status
    }

    fn source(&mut self) -> Room {
        LENT.fetch_add(1, Ordering::SeqCst);
        let mut source: cdp_source = zeroed();
        source.read = Some(source_read);
        source.free_userdata = Some(come_back);
        self.across_a_link(&mut source);
        // The size is right: with another one nothing is taken over.
        Room::of(source, u32::try_from(size_of::<cdp_source>()).expect("small"), 0xee)
    }

    fn create_store(&mut self) -> cdp_status {
        if self.stores == STORES_MAX {
            return CDP_OK;
        }
        let (mut storage, mut store) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: pointers to what lives in this function.
        unsafe {
            Self::check(cdp_storage_open_memory(64 << 20, &raw mut storage));
            let mut open: cdp_open_options = zeroed();
            open.storage = storage;
            open.segment_bytes = 1 << 20;
            let mut open = self.choices.room(open);
            let mut create: cdp_create_options = zeroed();
            create.bytes = if self.choices.byte() < 240 { DISK } else { self.choices.number() };
            create.open = open.get();
            let mut create = self.choices.room(create);
            let status = cdp_store_create(ptr::null(), create.get(), &raw mut store);
            self.stores += usize::from(status == CDP_OK);
            self.keep(storage);
            self.keep(store);
            status
        }
    }

    /// One call.
    fn call(&mut self) -> cdp_status {
        let call = Call {
            offset: self.choices.number(),
            len: self.choices.len(),
            flags: self.choices.flags(),
            buf: self.buffer.as_mut_ptr().cast(),
        };
        match self.choices.byte() % 113 {
            op @ ..=14 => self.volumes(op, call),
            op @ ..=27 => self.points(op, call),
            op @ (..=37 | 112) => self.restores_and_taps(op, call),
            op @ ..=46 => self.others(op, call),
            op @ 48..=71 => self.mirrors(op - 48, call),
            op @ 72..=87 => self.jobs(op - 72, call),
            op @ 88.. => self.more(op - 88, call),
            _ => self.close(),
        }
    }

    /// A call that makes stores and volumes, reads and writes.
    fn volumes(&mut self, op: u8, Call { offset, len, flags, buf }: Call) -> cdp_status {
        // SAFETY: buffers are as long as is said, structs have room for any size, outputs live in this driver; handles may be anything.
        unsafe {
            match op {
                0 => self.create_store(),
                1 | 2 => {
                    let mut volume = ptr::null_mut();
                    let status = cdp_volume_open(self.handle(), ptr::null(), &raw mut volume);
                    self.keep(volume);
                    status
                }
                3 => {
                    let mut volume = ptr::null_mut();
                    let name = self.choices.text();
                    let status = cdp_volume_create(self.handle(), name, offset % DISK, &raw mut volume);
                    self.keep(volume);
                    status
                }
                4..=8 => cdp_volume_write(self.handle(), offset, buf, len, flags, &raw mut self.one),
                9 => cdp_volume_read(self.handle(), offset, buf, len),
                10 => cdp_volume_write_zeroes(
                    self.handle(),
                    offset,
                    self.choices.number(),
                    flags,
                    ptr::null_mut(),
                ),
                11 => {
                    cdp_volume_discard(self.handle(), offset, self.choices.number(), flags, ptr::null_mut())
                }
                12 => {
                    let iov =
                        [cdp_iovec { base: buf, len }, cdp_iovec { base: buf, len: self.choices.len() }];
                    cdp_volume_writev(
                        self.handle(),
                        offset,
                        iov.as_ptr(),
                        usize::from(flags > 0) + 1,
                        0,
                        ptr::null_mut(),
                    )
                }
                13 => cdp_volume_flush(self.handle(), &raw mut self.one),
                _ => cdp_volume_resize(self.handle(), offset % (2 * DISK), &raw mut self.point),
            }
        }
    }

    /// A call that has to do with bookmarks, points and what is opened at them.
    fn points(&mut self, op: u8, Call { offset, len, flags, buf }: Call) -> cdp_status {
        // SAFETY: buffers are as long as is said, structs have room for any size, outputs live in this driver; handles may be anything.
        unsafe {
            match op {
                15 | 16 => {
                    let mut options: cdp_bookmark_options = zeroed();
                    (options.kind, options.flags) = (flags, self.choices.flags());
                    let (mut options, name) = (self.choices.room(options), self.choices.text());
                    let mut info = self.choices.room(zeroed::<cdp_bookmark_info>());
                    let mut quiesce: cdp_quiesce = zeroed();
                    quiesce.freeze = Some(freeze);
                    quiesce.thaw = Some(thaw);
                    quiesce.timeout_ns = 1_000_000_000;
                    let mut quiesce = self.choices.room(quiesce);
                    let frozen = if flags == 2 { quiesce.get() } else { ptr::null_mut() };
                    cdp_bookmark_create(self.handle(), name, options.get(), frozen, info.get())
                }
                17 => {
                    let name = self.choices.text();
                    cdp_bookmark_delete(self.handle(), name)
                }
                18 => {
                    let name = self.choices.text();
                    cdp_bookmark_set_locked(self.handle(), name, flags)
                }
                19 | 20 => {
                    let text = self.choices.text();
                    cdp_resolve(self.handle(), text, &raw mut self.point)
                }
                21 => cdp_resolve_time(self.handle(), offset, &raw mut self.point),
                22 | 23 => {
                    let mut snapshot = ptr::null_mut();
                    let seq = if flags == 0 { self.point.seq } else { self.one };
                    let status =
                        cdp_snapshot_open(self.handle(), seq, self.choices.flags() & 1, &raw mut snapshot);
                    self.keep(snapshot);
                    status
                }
                24 => cdp_snapshot_read(self.handle(), offset, buf, len),
                25 => cdp_snapshot_next_data(self.handle(), offset, &raw mut self.one),
                26 => {
                    let mut iter = ptr::null_mut();
                    let status = cdp_volume_changed(self.handle(), u64::from(flags), self.one, &raw mut iter);
                    self.keep(iter);
                    status
                }
                _ => {
                    let mut extent = cdp_extent::default();
                    cdp_extent_iter_next(self.handle(), &raw mut extent)
                }
            }
        }
    }

    /// A call that has to do with restores and taps.
    fn restores_and_taps(&mut self, op: u8, Call { offset, len, flags, buf }: Call) -> cdp_status {
        // SAFETY: buffers are as long as is said, structs have room for any size, outputs live in this driver; handles may be anything.
        unsafe {
            match op {
                28 => {
                    let mut target: cdp_target = zeroed();
                    target.write = Some(target_write);
                    target.zero = Some(target_zero);
                    target.free_userdata = Some(come_back);
                    LENT.fetch_add(1, Ordering::SeqCst);
                    let mut job = ptr::null_mut();
                    let status = cdp_restore_start(
                        self.handle(),
                        Room::of(target, u32::try_from(size_of::<cdp_target>()).expect("small"), 0).get(),
                        &raw mut job,
                    );
                    self.keep(job);
                    status
                }
                29 => {
                    let mut room = self.choices.room(zeroed::<cdp_restore_progress>());
                    cdp_restore_step(self.handle(), offset, room.get())
                }
                30 => {
                    let mut options: cdp_tap_options = zeroed();
                    (options.source_state, options.flags, options.pool_frames) =
                        (flags, self.choices.flags() & 2, 4);
                    let (mut options, mut tap) = (self.choices.room(options), ptr::null_mut());
                    let mut source = self.source();
                    let status =
                        cdp_tap_open(self.handle(), ptr::null(), source.get(), options.get(), &raw mut tap);
                    self.keep(tap);
                    status
                }
                31 | 32 => {
                    cdp_tap_capture(self.handle(), offset, buf, len, u64::from(flags), ptr::null_mut())
                }
                33 => cdp_tap_mark(self.handle(), offset, self.choices.number(), flags + 4),
                34 => {
                    let mut in_flight = ptr::null_mut();
                    let status =
                        cdp_tap_begin(self.handle(), offset, self.choices.number(), &raw mut in_flight);
                    self.keep(in_flight);
                    status
                }
                35 => {
                    let mut in_flight = self.handle();
                    cdp_in_flight_end(&raw mut in_flight, flags + 1, buf, len, 0, ptr::null_mut())
                }
                112 => {
                    let data: *const c_void = if flags == 0 { buf } else { ptr::null() };
                    let write: Option<unsafe extern "C" fn(_) -> _> =
                        if offset.is_multiple_of(7) { None } else { Some(write_through) };
                    let (mut answer, none) = (0, ptr::null_mut());
                    let (tap, bytes, userdata) =
                        (self.handle(), len as u64, ptr::without_provenance_mut(len));
                    cdp_tap_write_through(
                        tap,
                        offset,
                        bytes,
                        flags + 1,
                        data,
                        write,
                        userdata,
                        &raw mut answer,
                        none,
                    )
                }
                36 => {
                    let mut needed = 0;
                    cdp_tap_dirty_map_get(self.handle(), cdp_uuid::default(), 1, buf, len, &raw mut needed)
                }
                _ => cdp_tap_mark_map(self.handle(), buf, len, cdp_uuid::default(), 1, CDP_GAP_HOST),
            }
        }
    }

    /// A call that has to do with resync, retention, events, figures, queues.
    fn others(&mut self, op: u8, Call { offset, flags, .. }: Call) -> cdp_status {
        // SAFETY: buffers are as long as is said, structs have room for any size, outputs live in this driver; handles may be anything.
        unsafe {
            match op {
                38 => {
                    let mut options: cdp_resync_options = zeroed();
                    options.mode = flags;
                    let mut watch: cdp_watch = zeroed();
                    watch.progress = Some(progress);
                    let (mut options, mut watch) = (self.choices.room(options), self.choices.room(watch));
                    let mut source = self.source();
                    cdp_resync(
                        self.handle(),
                        ptr::null(),
                        source.get(),
                        options.get(),
                        watch.get(),
                        ptr::null_mut(),
                    )
                }
                39 => {
                    let text = self.choices.text();
                    cdp_retention_set(self.handle(), text)
                }
                40 => {
                    let mut report = self.choices.room(zeroed::<cdp_retention_report>());
                    cdp_retention_run(self.handle(), 0, report.get())
                }
                41 => {
                    let mut event = self.choices.room(zeroed::<cdp_event>());
                    cdp_event_next(self.handle(), event.get(), ptr::null_mut())
                }
                42 => {
                    let mut stats = self.choices.room(zeroed::<cdp_store_stats>());
                    cdp_store_stats_get(self.handle(), stats.get())
                }
                43 => {
                    let mut queue = ptr::null_mut();
                    let mut options: cdp_queue_options = zeroed();
                    (options.depth, options.threads) = (4, flags & 1);
                    let mut options = self.choices.room(options);
                    let status = cdp_queue_open(self.handle(), options.get(), &raw mut queue);
                    self.keep(queue);
                    status
                }
                44 => {
                    let mut request: cdp_request = zeroed();
                    (request.op, request.flags, request.offset, request.len) =
                        (u32::from(self.choices.byte() % 7), flags, offset, 0);
                    // Without a buffer: one that belongs to a thread of the queue would have to outlive this driver.
                    request.len = if matches!(request.op, 3 | 4) { self.choices.number() } else { 0 };
                    let mut request = self.choices.room(request);
                    cdp_queue_submit(self.handle(), request.get())
                }
                45 => cdp_queue_run(self.handle(), 3),
                _ => cdp_store_step(self.handle(), 0),
            }
        }
    }

    /// Closes any handle as whatever kind.
    fn close(&mut self) -> cdp_status {
        /// Closes a handle as one of a kind.
        ///
        /// # Safety
        /// `close` is a function of the library.
        unsafe fn close_as<K>(
            handle: *mut c_void,
            close: unsafe extern "C" fn(*mut *mut K) -> cdp_status,
        ) -> cdp_status {
            let mut variable = handle.cast::<K>();
            // SAFETY: a variable of this function; the handle may be anything.
            unsafe { close(&raw mut variable) }
        }
        let handle: *mut c_void = self.handle();
        // SAFETY: functions of the library.
        unsafe {
            match self.choices.byte() % 26 {
                0 => {
                    let status = close_as(handle, cdp_store_close);
                    self.stores -= usize::from(status == CDP_OK && self.stores > 0 && !handle.is_null());
                    status
                }
                1..=4 => close_as(handle, cdp_volume_close),
                5..=7 => close_as(handle, cdp_snapshot_close),
                8..=9 => close_as(handle, cdp_tap_close),
                10 => close_as(handle, cdp_in_flight_cancel),
                11 => close_as(handle, cdp_queue_close),
                12 => close_as(handle, cdp_restore_close),
                13 => close_as(handle, cdp_extent_iter_close),
                14 => close_as(handle, cdp_timeline_close),
                15..=17 => close_as(handle, cdp_job_close),
                18 => close_as(handle, cdp_seed_close),
                at @ 20.. => Self::close_more(handle, at - 20),
                _ => close_as(handle, cdp_storage_close),
            }
        }
    }

    fn close_all(mut self) {
        for (address, _) in std::mem::take(&mut self.handles) {
            let mut store: *mut cdp_store = ptr::without_provenance_mut(address);
            let mut storage: *mut cdp_storage = ptr::without_provenance_mut(address);
            // SAFETY: variables of this function; handles may be anything.
            unsafe {
                // Of the two at most one is right.
                Self::check(cdp_store_close(&raw mut store));
                Self::check(cdp_storage_close(&raw mut storage));
            }
            Self::close_mirror(address);
            Self::close_job(address);
            for kind in 0..6 {
                Self::check(Self::close_more(ptr::without_provenance_mut(address), kind));
            }
        }
        // SAFETY: a variable of this driver.
        unsafe { Self::check(cdp_storage_close(&raw mut self.maps)) };
    }
}

/// Drives the interface by these bytes.
///
/// # Panics
/// When a call ends in a way in which none may.
pub fn drive(bytes: &[u8]) {
    let mut driver = Driver {
        choices: Choices(bytes),
        handles: vec![(0, "")],
        stores: 0,
        sets: 0,
        maps: ptr::null_mut(),
        openers: Vec::new(),
        buffer: vec![0x5a; BUFFER],
        one: 1,
        point: cdp_point::default(),
    };
    Driver::check(driver.create_store());
    // Two copies and a set of them, mostly.
    for op in [0, 0, 1] {
        Driver::check(driver.mirrors(op, Call { offset: 0, len: 0, flags: 0, buf: ptr::null_mut() }));
    }
    for _ in 0..CALLS_MAX {
        if driver.choices.0.is_empty() {
            break;
        }
        Driver::check(driver.call());
    }
    driver.close_all();
    assert_eq!(LENT.load(Ordering::SeqCst), 0, "what was lent did not come back");
}
