//! The calls of the random driver that have to do with dirty maps, plans and sizes of histories, mirror sets as sources, cursors and dates.

use super::{CDP_OK, Call, DISK, Driver, LENT, Room, cdp_status, come_back, mirrors::stopped, zeroed};
use cdp::{
    bookmark_more::*, digests::*, dirty_map::*, job::*, map_file::*, mirror::*, mirror_source::*, restore::*,
    restore_all::*, retention_plan::*, size::*, snapshot::cdp_extent_iter, source::cdp_source, storage::*,
    store::*, types::*, verify::*, volume::*,
};
use std::{
    ffi::{c_char, c_void},
    ptr,
    sync::atomic::Ordering,
};

/// Most files of maps that are made.
const EXTENTS: u64 = 4;

/// Digests that are right for zeroes alone, and now and then none.
unsafe extern "C" fn link_digests(
    _: *mut c_void,
    key: u64,
    _: u32,
    _: *const cdp_extent,
    ranges_count: usize,
    digests_out: *mut u64,
    digests_count: usize,
) -> i32 {
    // SAFETY: the library gives room for as many.
    unsafe { ptr::write_bytes(digests_out, 0, digests_count - digests_count / 3) };
    if key.wrapping_add(ranges_count as u64).is_multiple_of(5) { -32 } else { 0 }
}

unsafe extern "C" fn link_ranges(
    _: *mut c_void,
    _: *const cdp_extent,
    _: usize,
    buf: *mut c_void,
    len: usize,
) -> i32 {
    // SAFETY: the library gives a buffer of this length.
    unsafe { ptr::write_bytes(buf.cast::<u8>(), 3, len) };
    0
}

unsafe extern "C" fn shared_write(_: *mut c_void, offset: u64, _: *const c_void, len: usize) -> i32 {
    if len > 0 && !offset.is_multiple_of(5) { 0 } else { -28 }
}

unsafe extern "C" fn shared_zero(_: *mut c_void, offset: u64, _: u64) -> i32 {
    if offset.is_multiple_of(3) { -28 } else { 0 }
}

impl Driver<'_> {
    /// Makes some sources such that answer digests, and few such that do half of it.
    pub fn across_a_link(&mut self, source: &mut cdp_source) {
        let how = self.choices.byte();
        source.digests = (how >= 192).then_some(link_digests);
        source.read_ranges = (192..250).contains(&how).then_some(link_ranges);
    }

    /// A request for digests as it may come over a link.
    fn request(&mut self) -> cdp_status {
        let (flags, len) = (self.choices.flags(), usize::from(self.choices.byte()));
        let mut extents = [cdp_extent::default(); 3];
        for extent in &mut extents {
            *extent = cdp_extent { offset: self.choices.number(), len: self.choices.number() };
        }
        let (bytes, mut digests, mut needed) = (self.choices.number(), [0_u64; 64], 0);
        let (ranges, count) = (extents.as_ptr(), len % 4);
        let mut source = self.source();
        // SAFETY: arrays are as long as is said, and the source is whole.
        unsafe {
            Self::check(cdp_digests_check(bytes, flags, ranges, count, &raw mut needed));
            let (to, room) = (digests.as_mut_ptr(), len % 65);
            cdp_digests_of(source.get(), bytes, 7, flags, ranges, count, to, room, &raw mut needed)
        }
    }

    /// A restore at once, on a few threads or on none.
    fn restore_at_once(&mut self) -> cdp_status {
        let mut target: cdp_target = zeroed();
        target.write = Some(shared_write);
        target.zero = Some(shared_zero);
        target.free_userdata = Some(come_back);
        target.flags = self.choices.flags();
        let mut target = Room::of(target, u32::try_from(size_of::<cdp_target>()).expect("small"), 0);
        LENT.fetch_add(1, Ordering::SeqCst);
        let mut options: cdp_restore_options = zeroed();
        options.threads = self.choices.flags() & 0x43;
        let (mut options, mut room) =
            (self.choices.room(options), self.choices.room(zeroed::<cdp_restore_progress>()));
        let watch = ptr::null();
        // SAFETY: structs have room for any size; handles may be anything.
        unsafe {
            // A place that nothing can be made at.
            let path = c"/none/of/that/name".as_ptr();
            Self::check(cdp_snapshot_restore_file(self.handle(), path, options.get(), watch, room.get()));
            cdp_snapshot_restore(self.handle(), target.get(), options.get(), watch, room.get())
        }
    }

    /// Any of them.
    pub fn more(&mut self, op: u8, call: Call) -> cdp_status {
        match op {
            0..=8 => self.dirty_map(op, call),
            9..=14 => self.map_file(op, call),
            15..=18 => self.plan_or_size(op, call),
            _ => stopped(self.dated_and_lent(op, call)),
        }
    }

    /// A call on a map, however it was made.
    fn dirty_map(&mut self, op: u8, Call { offset, len, flags, buf }: Call) -> cdp_status {
        let (mut map, device) = (ptr::null_mut::<cdp_dirty_map>(), cdp_uuid::default());
        // SAFETY: buffers are as long as is said, structs have room for any size, outputs live in this driver; handles may be anything.
        let status = unsafe {
            match op {
                0 => {
                    let bytes = if flags == 3 { self.choices.number() % (8 * DISK) } else { DISK };
                    cdp_dirty_map_create(bytes, u64::from(self.choices.flags()) << 12, &raw mut map)
                }
                1 => match flags {
                    0 => cdp_dirty_map_set(self.handle(), offset, self.choices.number()),
                    1 => cdp_dirty_map_set_all(self.handle()),
                    _ => {
                        let extents = [cdp_extent { offset, len: self.choices.number() }];
                        cdp_dirty_map_set_extents(self.handle(), extents.as_ptr(), len & 1)
                    }
                },
                2 | 3 => {
                    let (mut run, mut extent) = (ptr::null_mut::<cdp_dirty_run>(), cdp_extent::default());
                    let most = self.choices.number();
                    let status =
                        cdp_dirty_map_begin(self.handle(), offset, most, &raw mut run, &raw mut extent);
                    self.keep(run);
                    status
                }
                4 => {
                    let mut run = self.handle();
                    let read = cdp_extent { offset, len: self.choices.number() };
                    let all = if flags == 0 { ptr::null() } else { &raw const read };
                    cdp_dirty_run_clean(&raw mut run, all)
                }
                5 => {
                    let mut needed = 0;
                    let encoded = cdp_dirty_map_encode(self.handle(), device, 1, buf, len, &raw mut needed);
                    match encoded {
                        // Read again, whole, unless the map is of another size.
                        CDP_OK => cdp_dirty_map_decode(buf, needed, DISK, device, 1, &raw mut map),
                        failed => failed,
                    }
                }
                6 => cdp_dirty_map_decode(buf, len, DISK, device, 1, &raw mut map),
                7 => match flags {
                    0 => cdp_dirty_map_merge(self.handle(), self.handle()),
                    _ => cdp_dirty_map_resized(self.handle(), offset % (4 * DISK), &raw mut map),
                },
                _ => {
                    let (mut iter, mut dirty) = (ptr::null_mut::<cdp_extent_iter>(), 0);
                    let mut info = self.choices.room(zeroed::<cdp_dirty_map_info>());
                    Self::check(cdp_dirty_map_info_get(self.handle(), info.get()));
                    Self::check(cdp_dirty_map_next(self.handle(), offset, &raw mut self.one));
                    Self::check(cdp_dirty_map_is_dirty(
                        self.handle(),
                        offset,
                        self.choices.number(),
                        &raw mut dirty,
                    ));
                    let status = cdp_dirty_map_extents(self.handle(), &raw mut iter);
                    self.keep(iter);
                    status
                }
            }
        };
        self.keep(map);
        status
    }

    fn map_options(&mut self, flags: u32) -> Room {
        let mut options: cdp_map_file_options = zeroed();
        (options.flags, options.bytes) = (flags, DISK);
        (options.regions_active_max, options.generation) =
            (self.choices.flags().wrapping_mul(4), u64::from(self.choices.flags()));
        options.region_bytes = u64::from(self.choices.flags()) << 14;
        self.choices.room(options)
    }

    /// A call on a map that survives crashes.
    fn map_file(&mut self, op: u8, Call { offset, flags, .. }: Call) -> cdp_status {
        let mut file = ptr::null_mut::<cdp_map_file>();
        // SAFETY: as above.
        let status = unsafe {
            if self.maps.is_null() {
                Self::check(cdp_storage_open_memory(0, &raw mut self.maps));
            }
            match op {
                9 => {
                    let mut options = self.map_options(flags);
                    cdp_map_file_create(self.maps, offset % EXTENTS, options.get(), &raw mut file)
                }
                10 => {
                    let (mut options, mut opened) =
                        (self.map_options(flags), self.choices.room(zeroed::<cdp_map_file_opened>()));
                    cdp_map_file_open(self.maps, offset % EXTENTS, options.get(), opened.get(), &raw mut file)
                }
                11 => {
                    // Without the flag it may wait for a write that nobody ends.
                    let mut write = ptr::null_mut::<cdp_map_write>();
                    let (len, flags) = (self.choices.number(), flags | CDP_MAP_NO_WAIT);
                    let status = cdp_map_file_begin(self.handle(), offset, len, flags, &raw mut write);
                    self.keep(write);
                    status
                }
                12 => {
                    let mut write = self.handle();
                    cdp_map_write_end(&raw mut write, flags)
                }
                13 => {
                    let mut map = ptr::null_mut::<cdp_dirty_map>();
                    let status = cdp_map_file_map(self.handle(), &raw mut map);
                    self.keep(map);
                    status
                }
                _ => match flags {
                    0 => cdp_map_file_checkpoint(self.handle()),
                    1 => cdp_map_file_mark_all(self.handle()),
                    2 => cdp_map_file_rotate(self.handle(), offset % 4),
                    3 => cdp_map_file_set_log(self.handle(), self.choices.flags()),
                    _ => {
                        let mut info = self.choices.room(zeroed::<cdp_map_file_info>());
                        cdp_map_file_info_get(self.handle(), info.get())
                    }
                },
            }
        };
        self.keep(file);
        status
    }

    fn plan_or_size(&mut self, op: u8, Call { len, flags, buf, .. }: Call) -> cdp_status {
        // SAFETY: as above.
        unsafe {
            match op {
                15 => {
                    let mut plan = ptr::null_mut::<cdp_retention_plan>();
                    let (now, text) = (self.choices.number(), self.choices.text());
                    let status = cdp_retention_plan_open(self.handle(), now, text, &raw mut plan);
                    self.keep(plan);
                    status
                }
                16 => {
                    let mut info = self.choices.room(zeroed::<cdp_retention_plan_info>());
                    let mut point = self.choices.room(zeroed::<cdp_retention_point>());
                    let mut drop = self.choices.room(zeroed::<cdp_retention_drop>());
                    Self::check(cdp_retention_plan_info_get(self.handle(), info.get()));
                    Self::check(cdp_retention_plan_point_at(self.handle(), len % 3, point.get()));
                    cdp_retention_plan_drop_at(self.handle(), len % 3, drop.get())
                }
                17 => {
                    let mut size = ptr::null_mut::<cdp_history_size>();
                    let (policy, rate) = (self.choices.text(), self.choices.number());
                    let status = match flags {
                        0 => cdp_size_of_rate(policy, rate, self.choices.number(), &raw mut size),
                        _ => cdp_size_of_trace(policy, self.choices.text(), flags, &raw mut size),
                    };
                    self.keep(size);
                    status
                }
                _ => {
                    let (mut tier, mut needed) = (self.choices.room(zeroed::<cdp_tier_size>()), 0);
                    Self::check(cdp_history_size_bytes(self.handle(), &raw mut self.one));
                    Self::check(cdp_history_size_tier_at(self.handle(), len % 4, tier.get()));
                    let to = buf.cast::<c_char>();
                    cdp_history_size_assumption_at(self.handle(), len % 4, to, len, &raw mut needed)
                }
            }
        }
    }

    fn dated_and_lent(&mut self, op: u8, Call { offset, len, flags, buf }: Call) -> cdp_status {
        // SAFETY: as above.
        unsafe {
            match op {
                19 => {
                    let (len, time) = (self.choices.number(), self.choices.number());
                    let out = ptr::null_mut();
                    match flags {
                        0 => cdp_volume_write_zeroes_at_time(self.handle(), offset, len, 0, time, out),
                        _ => cdp_volume_discard_at_time(self.handle(), offset, len, flags, time, out),
                    }
                }
                20 => {
                    let (mut mode, mut info) = (0, self.choices.room(zeroed::<cdp_bookmark_schedule_info>()));
                    Self::check(cdp_store_coalescing_get(self.handle(), &raw mut mode, ptr::null_mut()));
                    cdp_bookmark_schedule_get(self.handle(), info.get())
                }
                21 => match flags {
                    0 => match len % 4 {
                        0 => cdp_restore_set_readers(self.handle(), u32::from(self.choices.byte() % 70)),
                        1 => cdp_job_limit_rate(self.handle(), offset),
                        2 => self.request(),
                        _ => self.restore_at_once(),
                    },
                    _ => cdp_mirror_repair_range(self.handle(), flags, offset, self.choices.number()),
                },
                22 => {
                    // A set as the source of a verification, once or twice.
                    let mut source: cdp_source = zeroed();
                    source.struct_size = u32::try_from(size_of::<cdp_source>()).expect("small");
                    let status = cdp_mirror_source(self.handle(), &raw mut source);
                    for _ in 0..if status == CDP_OK { 1 + (flags & 1) } else { 0 } {
                        let mut job = ptr::null_mut::<cdp_job>();
                        let from = &raw const source;
                        let status =
                            cdp_verify_start(self.handle(), ptr::null(), from, ptr::null(), &raw mut job);
                        Self::check(status);
                        self.keep(job);
                    }
                    status
                }
                _ => {
                    let mut needed = 0;
                    let status = cdp_job_verify_cursor(self.handle(), buf, len, &raw mut needed);
                    let mut options: cdp_verify_options = zeroed();
                    (options.cursor, options.cursor_len) =
                        (buf.cast_const(), if status == CDP_OK { needed } else { len });
                    let (mut options, mut source) = (self.choices.room(options), self.source());
                    let mut job = ptr::null_mut::<cdp_job>();
                    let outcome = cdp_verify_start(
                        self.handle(),
                        ptr::null(),
                        source.get(),
                        options.get(),
                        &raw mut job,
                    );
                    self.keep(job);
                    Self::check(status);
                    outcome
                }
            }
        }
    }

    /// Closes a handle as one of these kinds.
    pub fn close_more(handle: *mut c_void, kind: u8) -> cdp_status {
        let (mut map, mut run, mut file) =
            (handle.cast::<cdp_dirty_map>(), handle.cast::<cdp_dirty_run>(), handle.cast::<cdp_map_file>());
        let (mut write, mut plan, mut size) = (
            handle.cast::<cdp_map_write>(),
            handle.cast::<cdp_retention_plan>(),
            handle.cast::<cdp_history_size>(),
        );
        // SAFETY: variables of this function; the handle may be anything.
        unsafe {
            match kind {
                0 => cdp_dirty_map_close(&raw mut map),
                1 => cdp_dirty_run_abandon(&raw mut run),
                2 => cdp_map_file_close(&raw mut file),
                3 => cdp_map_write_end(&raw mut write, 0),
                4 => cdp_retention_plan_close(&raw mut plan),
                _ => cdp_history_size_close(&raw mut size),
            }
        }
    }
}
