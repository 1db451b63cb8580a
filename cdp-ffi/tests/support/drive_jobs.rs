//! The calls of the random driver that have to do with jobs, scrub, seed sets and the schedule of resync.

use super::{Call, Driver, Room, cdp_status, progress, zeroed};
use cdp::{
    CDP_OK, job::*, job_start::*, restore::cdp_restore, resync::*, resync_schedule::*, retention::*,
    scrub::*, seed::*, snapshot::cdp_extent_iter, source::cdp_source, verify::*,
};
use std::{
    ffi::{c_char, c_void},
    ptr,
};

impl Driver<'_> {
    /// A job is begun, stepped, asked, cancelled; sets are written and read.
    pub fn jobs(&mut self, op: u8, Call { offset, len, flags, .. }: Call) -> cdp_status {
        // SAFETY: buffers are as long as is said, structs have room for any size, outputs live in this driver; handles may be anything.
        unsafe {
            match op {
                0..=2 => self.start(op + u8::try_from(flags & 1).unwrap_or(0) * 3),
                3 => self.start(6 + u8::try_from(flags & 3).unwrap_or(0)),
                4..=7 => {
                    let mut room = self.choices.room(zeroed::<cdp_job_progress>());
                    cdp_job_step(self.handle(), offset, room.get())
                }
                8 => {
                    let mut room = self.choices.room(zeroed::<cdp_job_progress>());
                    cdp_job_progress_get(self.handle(), room.get())
                }
                9 => cdp_job_cancel(self.handle()),
                10 => self.ask(flags, len),
                11 => self.scrub_now(),
                12 => self.schedule(),
                13 => self.export_now(flags),
                14 => {
                    let mut seed = ptr::null_mut();
                    let status = cdp_seed_open(ptr::null(), self.handle(), &raw mut seed);
                    self.keep(seed);
                    status
                }
                _ => {
                    let mut info = self.choices.room(zeroed::<cdp_seed_info>());
                    match flags {
                        0 => cdp_seed_import(
                            self.handle(),
                            self.handle(),
                            self.choices.text(),
                            ptr::null(),
                            ptr::null(),
                            ptr::null_mut(),
                        ),
                        1 => cdp_seed_verify(self.handle(), ptr::null()),
                        _ => cdp_seed_info_get(self.handle(), info.get()),
                    }
                }
            }
        }
    }

    fn start(&mut self, what: u8) -> cdp_status {
        let mut job = ptr::null_mut();
        let out = &raw mut job;
        // SAFETY: as above.
        let status = unsafe {
            match what {
                0 => {
                    let mut options: cdp_resync_options = zeroed();
                    (options.mode, options.bytes_per_second_max) =
                        (self.choices.flags(), self.choices.number());
                    let (mut options, mut source) = (self.choices.room(options), self.source());
                    cdp_resync_start(self.handle(), ptr::null(), source.get(), options.get(), out)
                }
                1 => {
                    let mut source = self.source();
                    let flags = self.choices.flags();
                    let mut options: cdp_verify_options = zeroed();
                    (options.flags, options.readers) = (flags, self.choices.flags() & 1);
                    let mut options = self.choices.room(options);
                    cdp_verify_start(self.handle(), ptr::null(), source.get(), options.get(), out)
                }
                2 => cdp_check_start(self.handle(), self.choices.flags(), out),
                3 => cdp_tap_resync_start(self.handle(), ptr::null(), out),
                4 => cdp_retention_start(self.handle(), self.choices.number(), out),
                5 => {
                    let mut source = self.source();
                    let sources = self.sources(&mut source);
                    cdp_scrub_start(self.handle(), sources.as_ptr(), 1, out)
                }
                6 => {
                    let mut restore: *mut cdp_restore = self.handle();
                    cdp_restore_into_job(&raw mut restore, out)
                }
                7 => {
                    let mut options = self.choices.room(zeroed::<cdp_import_options>());
                    let name = self.choices.text();
                    cdp_seed_import_start(self.handle(), self.handle(), name, options.get(), out)
                }
                _ => {
                    let mut options: cdp_export_options = zeroed();
                    (options.flags, options.since_seq) = (self.choices.flags(), self.one);
                    let mut options = self.choices.room(options);
                    let (volume, storage) = (self.handle(), self.handle());
                    cdp_export_start(volume, self.point.seq, ptr::null(), storage, options.get(), out)
                }
            }
        };
        self.keep(job);
        status
    }

    fn sources(&mut self, source: &mut Room) -> [cdp_scrub_source; 1] {
        let volume = self.choices.text();
        let mirror = if self.choices.byte() < 224 { ptr::null_mut() } else { self.handle() };
        [cdp_scrub_source { volume, source: source.get::<cdp_source>(), mirror }]
    }

    /// Any result of any job.
    fn ask(&mut self, flags: u32, len: usize) -> cdp_status {
        let buf = self.buffer.as_mut_ptr().cast::<c_char>();
        // SAFETY: as above.
        unsafe {
            match (flags, self.choices.byte() % 4) {
                (0, 0) => {
                    let mut room = self.choices.room(zeroed::<cdp_resync_report>());
                    cdp_job_resync_report(self.handle(), room.get())
                }
                (0, 1) => {
                    let mut room = self.choices.room(zeroed::<cdp_verify_report>());
                    cdp_job_verify_report(self.handle(), room.get())
                }
                (0, 2) => cdp_job_damage_at(self.handle(), len % 3, buf, len),
                (0, _) => {
                    let mut iter: *mut cdp_extent_iter = ptr::null_mut();
                    let status = cdp_job_verify_extents(self.handle(), &raw mut iter);
                    self.keep(iter);
                    status
                }
                (_, 0) => {
                    let mut room = self.choices.room(zeroed::<cdp_retention_report>());
                    cdp_job_retention_report(self.handle(), room.get())
                }
                (_, 1) => {
                    let mut room = self.choices.room(zeroed::<cdp_scrub_report>());
                    cdp_job_scrub_report(self.handle(), room.get())
                }
                (_, 2) => {
                    let mut room = self.choices.room(zeroed::<cdp_import_report>());
                    cdp_job_import_report(self.handle(), room.get())
                }
                _ => {
                    let mut room = self.choices.room(zeroed::<cdp_export_report>());
                    cdp_job_export_report(self.handle(), room.get())
                }
            }
        }
    }

    fn scrub_now(&mut self) -> cdp_status {
        let mut source = self.source();
        let sources = self.sources(&mut source);
        let mut watch: cdp_watch = zeroed();
        watch.progress = Some(progress);
        let (mut watch, mut room) =
            (self.choices.room(watch), self.choices.room(zeroed::<cdp_scrub_report>()));
        // SAFETY: as above.
        unsafe { cdp_store_scrub(self.handle(), sources.as_ptr(), 1, watch.get(), room.get()) }
    }

    fn export_now(&mut self, flags: u32) -> cdp_status {
        let mut options: cdp_export_options = zeroed();
        (options.flags, options.since_seq) = (flags, if flags & 1 == 0 { 0 } else { self.one });
        let (mut options, mut room) =
            (self.choices.room(options), self.choices.room(zeroed::<cdp_export_report>()));
        let (volume, storage, seq) = (self.handle(), self.handle(), self.point.seq);
        // SAFETY: as above.
        unsafe {
            cdp_volume_export(volume, seq, ptr::null(), storage, options.get(), ptr::null(), room.get())
        }
    }

    fn schedule(&mut self) -> cdp_status {
        let hours = [cdp_hours { from_ns: self.choices.number(), to_ns: self.choices.number() }];
        let first = [self.choices.text()];
        let mut schedule: cdp_resync_schedule = zeroed();
        schedule.delay_ns = self.choices.number();
        (schedule.hours, schedule.hours_count) = (hours.as_ptr(), usize::from(self.choices.byte() & 1));
        (schedule.first, schedule.first_count) = (first.as_ptr(), usize::from(self.choices.byte() & 1));
        (schedule.volumes_at_once, schedule.latency_max_ns) = (self.choices.flags(), self.choices.number());
        let mut schedule = self.choices.room(schedule);
        // SAFETY: as above.
        unsafe {
            Self::check(cdp_store_note_latency(self.handle(), self.choices.number()));
            cdp_store_set_resync_schedule(self.handle(), schedule.get())
        }
    }

    /// Closes what may be a seed set or a job, and is one of the two at most.
    pub fn close_job(address: usize) {
        let handle: *mut c_void = ptr::without_provenance_mut(address);
        let (mut seed, mut job) = (handle.cast::<cdp_seed>(), handle.cast::<cdp_job>());
        // SAFETY: variables of this function; the handle may be anything.
        unsafe {
            let statuses = [cdp_seed_close(&raw mut seed), cdp_job_close(&raw mut job)];
            assert!(address == 0 || !statuses.iter().all(|status| *status == CDP_OK));
            statuses.into_iter().for_each(|status| assert_eq!(Self::check(status), status));
        }
    }
}
