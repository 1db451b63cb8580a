//! Long work in steps: a job does what the call of its name does, may be dropped at any step, and lets everything else go on between its steps.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    CreateOptions, Job, JobStep, OpenOptions, ResyncMode, ResyncOptions, SourceReader, Store, VerifyOptions,
    io::{MemoryStorage, Storage},
    retention::Policy,
    units::TimeNs,
};
use parking_lot::RwLock;
use std::{io, sync::Arc};

const DISK: usize = 8 << 20;
const BLOCK: usize = 4096;

struct Disk(RwLock<Vec<u8>>);

impl Disk {
    fn new() -> Arc<Self> {
        Arc::new(Self(RwLock::new(vec![0; DISK])))
    }

    fn write(&self, block: usize, byte: u8) {
        self.0.write()[block * BLOCK..(block + 1) * BLOCK].fill(byte);
    }
}

impl SourceReader for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        buf.copy_from_slice(&self.0.read()[offset..offset + buf.len()]);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn create() -> Store {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let create = CreateOptions { volume: "disk".into(), bytes: DISK as u64 };
    let options = OpenOptions { segment_bytes: 1 << 20, run_fanout: 3, ..OpenOptions::default() };
    Store::create(storage, &create, options).unwrap()
}

fn newest(store: &Store) -> Vec<u8> {
    let mut image = vec![0; DISK];
    store.volume(None).unwrap().read(0, &mut image).unwrap();
    image
}

/// Steps a job to its end; returns the number of steps.
fn finish(job: &mut dyn Job) -> usize {
    for steps in 1..100_000 {
        let progress = job.progress();
        assert!(progress.total == 0 || progress.done <= progress.total);
        match job.step().unwrap() {
            JobStep::More => {}
            JobStep::Wait(time) => std::thread::sleep(time),
            JobStep::Done => {
                assert_eq!(job.step().unwrap(), JobStep::Done, "it says so again");
                return steps;
            }
        }
    }
    panic!("a job ends");
}

fn options() -> ResyncOptions {
    ResyncOptions { mode: ResyncMode::Digest, source_is_unchanged: true, ..ResyncOptions::default() }
}

/// Goal: a resync that is dropped at any step lets the next one go on, and in the end the volume is the source; it never takes the volume with it.
/// Method: for each number of steps, drop a job behind it, write to another volume, and finish with a new one.
#[test]
fn a_resync_may_be_dropped_at_any_step() {
    for steps in 0..12 {
        let (store, disk) = (create(), Disk::new());
        (0..DISK / BLOCK).step_by(7).for_each(|block| disk.write(block, block as u8 | 1));
        let mut job = store.resync_job(None, disk.clone(), &options()).unwrap();
        assert!(store.volume(None).unwrap().write(0, &[1; BLOCK]).is_err(), "the volume is spoken for");
        let done = (0..steps).any(|_| job.step().unwrap() == JobStep::Done);
        // Ended, or dropped: both record what is left.
        let left = if steps % 2 == 0 { DISK as u64 } else { job.end().unwrap().bytes_left };
        drop(job);
        store.add_volume("other", 1 << 20).unwrap().write(0, &[1; BLOCK]).unwrap();
        let mut job = store.resync_job(None, disk.clone(), &options()).unwrap();
        assert!(done || job.report().bytes_left <= left, "it goes on there");
        finish(&mut job);
        let report = job.end().unwrap();
        assert_eq!((report.bytes_left, report.resumed), (0, !done), "{steps}");
        store.volume(None).unwrap().write(0, &disk.0.read()[..BLOCK]).unwrap();
        assert!(newest(&store) == *disk.0.read(), "{steps}");
    }
}

/// Goal: a step never sleeps: where a bound on the speed holds it back it says for how long. Method: a bound that takes hours.
#[test]
fn a_job_that_is_held_back_says_so() {
    let (store, disk) = (create(), Disk::new());
    let slow = ResyncOptions { bytes_per_second_max: Some(1 << 10), ..options() };
    let mut job = store.resync_job(None, disk.clone(), &slow).unwrap();
    assert_eq!(job.step().unwrap(), JobStep::More);
    assert!(matches!(job.step().unwrap(), JobStep::Wait(time) if !time.is_zero()));
    assert_eq!(job.end().unwrap().bytes_left, DISK as u64 - (1 << 20));
    let slow = VerifyOptions { bytes_per_second_max: Some(1 << 10), ..VerifyOptions::default() };
    let mut job = store.verify_job(None, disk, &slow).unwrap();
    assert_eq!(job.step().unwrap(), JobStep::More);
    assert!(matches!(job.step().unwrap(), JobStep::Wait(time) if !time.is_zero()));
    assert!(!job.end().unwrap().complete);
}

/// Goal: a check and a scrub are held to their rate, which may change while they run, and find the same. Method: a bound that takes hours, and then none.
#[test]
fn a_check_is_held_to_its_rate() {
    fn held<J: Job>(mut job: J, limit: impl Fn(&mut J, Option<u64>)) -> J {
        limit(&mut job, Some(1 << 10));
        let waits = |job: &mut J| matches!(job.step().unwrap(), JobStep::Wait(time) if !time.is_zero());
        assert!((0..20).any(|_| waits(&mut job)), "nothing holds it");
        let before = job.progress();
        assert!(before.done > 0 && before.done < before.total, "{before:?}");
        assert!(waits(&mut job), "it is not due yet");
        assert_eq!(job.progress(), before);
        limit(&mut job, None);
        while job.step().unwrap() != JobStep::Done {
            assert_ne!(job.progress(), before, "it was let go");
        }
        job
    }
    let store = create();
    let volume = store.volume(None).unwrap();
    (0..40_u64).for_each(|round| {
        volume.write(round % 8 * (512 << 10), &vec![round as u8 | 1; 512 << 10]).unwrap();
    });
    store.flush().unwrap();
    let check = held(store.check_job(true).unwrap(), |job, rate| job.limit_rate(rate));
    assert_eq!(check.report().damaged, []);
    let scrub = held(store.scrub_job(&[]).unwrap(), |job, rate| job.limit_rate(rate));
    assert!(scrub.is_checked() && scrub.report().found.is_empty());
}

/// Goal: what retention takes away while a check looks at the store is no damage. Method: a deep check in steps, with a run of retention behind each of
/// its first steps in turn.
#[test]
fn what_goes_while_it_is_checked_is_no_damage() {
    for behind in 0..24 {
        let store = create();
        let volume = store.volume(None).unwrap();
        for round in 0..200_u64 {
            let data = vec![round as u8 | 1; 128 << 10];
            volume.write_at_time(round % 16 * (128 << 10), &data, TimeNs::new(round + 1)).unwrap();
            store.flush().unwrap();
        }
        while store.step(Default::default()).unwrap() == cdp_core::Stepped::More {}
        let mut job = store.check_job(true).unwrap();
        for _ in 0..behind {
            job.step().unwrap();
        }
        store.set_policy(&Policy { max_age: Some(1), ..Policy::default() }).unwrap();
        let report = store.run_retention(TimeNs::new(1_000_000)).unwrap();
        assert!(report.bytes_freed > 0);
        while store.step(Default::default()).unwrap() == cdp_core::Stepped::More {}
        finish(&mut job);
        assert_eq!(job.report().damaged, [], "behind step {behind}");
    }
}

/// Goal: a run of retention in steps drops and keeps what a run at once does, also when background work, writes and another run come between its steps.
/// Method: two stores with the same history, one of them stepped.
#[test]
fn retention_in_steps_does_what_a_run_does() {
    let fill = |store: &Store| {
        let volume = store.volume(None).unwrap();
        for round in 0..300_u64 {
            let data = vec![round as u8 | 1; 64 << 10];
            volume.write_at_time(round % 32 * (64 << 10), &data, TimeNs::new((round + 1) * 1000)).unwrap();
            store.flush().unwrap();
        }
        store.set_policy(&Policy { max_age: Some(100_000), ..Policy::default() }).unwrap();
    };
    let (once, stepped) = (create(), create());
    fill(&once);
    fill(&stepped);
    let now = TimeNs::new(301_000);
    let whole = once.run_retention(now).unwrap();
    let mut job = stepped.retention_job(now).unwrap();
    assert_eq!(job.report(), None);
    assert_eq!(job.step().unwrap(), JobStep::More);
    stepped.step(Default::default()).unwrap();
    stepped.run_retention(TimeNs::new(302_000)).unwrap();
    finish(&mut job);
    let report = job.report().unwrap();
    assert_eq!((report.drop_points, report.horizon), (whole.drop_points, whole.horizon));
    assert!(report.bytes_freed > 0);
    assert!(newest(&once) == newest(&stepped));
    assert_eq!(stepped.check(true, &mut |_| {}).unwrap().damaged, []);
}
