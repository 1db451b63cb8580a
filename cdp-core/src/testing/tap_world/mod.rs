//! Taps on a simulated store: production disks, a host that writes to them and captures, and everything that can go wrong on either side.
//!
//! Without a runner the library is single-threaded, the clock stands until it is moved, the storage is simulated: one seed drives all. What
//! other threads of a host would do in between happens in the reads of the sources and in looks at the clock.
//!
//! - [`op`]: the steps; [`generate`]: a random history for a seed; [`directed`]: histories aimed at one thing.
//! - [`disk`]: one volume in the model; [`host`]: what the host does; `oracle`: what must be true.

mod begun;
mod config;
pub mod directed;
pub mod disk;
pub mod generate;
pub mod host;
mod lifecycle;
pub mod op;
mod oracle;
pub mod run;
mod source;

pub use config::{TapCoverage, TapWorldConfig};

use super::{mismatch::Mismatch, op::Place, stamp::VolumeTag};
use crate::{
    Budget, CreateOptions, OpenOptions, Store,
    io::simulated::{SimulatedConfig, SimulatedStorage},
    units::len_u64,
};
use disk::Disk;
use host::{Host, Record};
use op::{Handover, TapDown, TapOp, TapRecover};
use parking_lot::Mutex;
use std::sync::Arc;

/// Where the clock starts: some day in 2026.
const START_NS: u64 = 1_770_000_000_000_000_000;
/// Enough for an open frame to be committed by its age.
const FRAME_AGE_NS: i64 = 300_000_000;
/// What time passes with each look at the clock while a producer is late: it is given up after some of them.
const STALLED_LOOK_NS: u64 = 40_000_000;
/// Most sectors of a write whose producer is late: one frame of the pool.
const STALLED_SECTORS_MAX: usize = 64;
/// Steps within which everything must be well again once nothing fails any more.
const STEPS_TO_HEAL: u64 = 3000;

/// A store with taps, and what must be true of it.
pub struct TapWorld {
    host: Arc<Mutex<Host>>,
    armed: Option<(TapDown, TapRecover)>,
}

impl Host {
    pub(super) fn options(&self) -> OpenOptions {
        OpenOptions {
            clock: self.clock.clone(),
            page_cache_bytes: 1 << 20,
            segment_bytes: self.config.segment_bytes,
            run_fanout: 2,
            sabotage: self.config.sabotage,
        }
    }
}

impl TapWorld {
    /// Makes a store with its volumes and taps.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub fn new(config: TapWorldConfig) -> Result<Self, Mismatch> {
        let disk = SimulatedConfig { seed: config.seed, unit: config.unit, capacity: None };
        let storage = SimulatedStorage::with_config(disk);
        let numbers = 1u16..;
        let disks: Vec<Disk> = config
            .volumes
            .iter()
            .zip(numbers)
            .map(|((sectors, _), number)| Disk::new(format!("v{number}"), VolumeTag::new(number), *sectors))
            .collect();
        let tapped: Vec<bool> = config.volumes.iter().map(|(_, tapped)| *tapped).collect();
        let host = Host::new(config, storage.clone(), disks, START_NS);
        let create = CreateOptions { volume: host.disks[0].name.clone(), bytes: host.disks[0].bytes() };
        let store = Store::create(Arc::new(storage), &create, host.options());
        let store = store.map_err(Mismatch::failed("create"))?;
        for disk in &host.disks[1..] {
            store.add_volume(&disk.name, disk.bytes()).map_err(Mismatch::failed("add_volume"))?;
        }
        let mut world = Self { host: Arc::new(Mutex::new(host)), armed: None };
        world.host.lock().store = Some(store);
        for (volume, _) in tapped.iter().enumerate().filter(|(_, tapped)| **tapped) {
            world.attach(volume, op::Claim::Equal)?;
        }
        Ok(world)
    }

    /// What was met so far.
    pub fn coverage(&self) -> TapCoverage {
        self.host.lock().coverage
    }

    /// Takes one step.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn step(&mut self, op: &TapOp) -> Result<(), Mismatch> {
        self.host.lock().coverage.steps += 1;
        self.act(op)?;
        let (failure, stopped, poisoned) = {
            let mut host = self.host.lock();
            (host.failure.take(), host.storage.is_stopped(), host.poisoned)
        };
        if let Some(failure) = failure {
            return Err(failure);
        }
        if stopped {
            self.host.lock().coverage.downs_in_calls += 1;
            let (down, recover) = self.armed.take().unwrap_or((TapDown::Kill, TapRecover::default()));
            return self.go_down(down, &recover);
        }
        if poisoned {
            self.host.lock().coverage.poisoned += 1;
            self.clear_trouble();
            return self.go_down(TapDown::Kill, &TapRecover::default());
        }
        Ok(())
    }

    fn act(&mut self, op: &TapOp) -> Result<(), Mismatch> {
        match op {
            // A part of zeroes could not be told apart.
            TapOp::Write { place, by, late } if *late > 0 && !by.is_zero() => {
                self.write_late(*place, *by, *late)
            }
            TapOp::Stall { place, described, steps, dies } => {
                self.write_stalled(*place, *described, *steps, *dies)
            }
            TapOp::Step(count) => self.background(*count),
            TapOp::Resync(count) => self.resync(*count),
            TapOp::Interleave(before, after) => {
                self.host.lock().interleave(before, after);
                Ok(())
            }
            TapOp::SourceFault(volume, reads) => {
                let mut host = self.host.lock();
                let volume = host.index(*volume);
                host.watches[volume].failing_reads = *reads;
                if *reads > 1 {
                    host.watches[volume].syncs.fail(1);
                    host.reads_failed = true;
                }
                Ok(())
            }
            TapOp::Attach(volume, claim) => {
                let volume = self.host.lock().index(*volume);
                self.attach(volume, *claim)
            }
            TapOp::Detach(volume) => {
                let volume = self.host.lock().index(*volume);
                self.detach(volume)
            }
            TapOp::Check => self.check(),
            TapOp::Look => self.look(),
            TapOp::Fault(kind, after, forever) => {
                let fault = super::world::fault(*kind).after(*after);
                let fault = if *forever { fault.forever() } else { fault };
                self.host.lock().storage.inject(fault);
                Ok(())
            }
            TapOp::Full(slack) => {
                let mut host = self.host.lock();
                host.storage.set_capacity(Some(host.storage.used() + slack));
                host.limited = true;
                Ok(())
            }
            TapOp::Heal => self.heal(),
            TapOp::Reopen => self.reopen(),
            TapOp::Down(down, recover) => self.go_down(*down, recover),
            TapOp::DownAt(changes, down, recover) => {
                if self.armed.is_none() {
                    let host = self.host.lock();
                    host.storage.stop_at_change(host.storage.changes() + changes);
                    self.armed = Some((*down, recover.clone()));
                }
                Ok(())
            }
            _ => self.host.lock().act(op),
        }
    }

    /// A write that is captured some time after it completed.
    fn write_late(&mut self, place: Place, by: Handover, late: u64) -> Result<(), Mismatch> {
        let (volume, range, token) = {
            let mut host = self.host.lock();
            let (volume, range) = host.range(place);
            if host.watches[volume].tap.is_none() {
                return Ok(());
            }
            let before = host.disks[volume].source[range.clone()].to_vec();
            let Some(token) = host.begin(volume, &range)? else { return Ok(()) };
            host.complete(volume, range.clone(), by)?;
            host.disks[volume].is_late(range.clone(), before);
            host.in_flight = true;
            (volume, range, token)
        };
        let worked = self.background(late);
        let mut host = self.host.lock();
        host.in_flight = false;
        worked?;
        host.hand_over(volume, range, by, token)
    }

    /// A write whose producer stops in the middle.
    fn write_stalled(
        &mut self,
        place: Place,
        described: bool,
        steps: u64,
        dies: bool,
    ) -> Result<(), Mismatch> {
        let (volume, range, halfway) = {
            let mut host = self.host.lock();
            let (volume, mut range) = host.range(place);
            range.end = range.end.min(range.start + STALLED_SECTORS_MAX);
            let watch = &host.watches[volume];
            if watch.tap.is_none() || watch.logged {
                return Ok(());
            }
            let before = host.disks[volume].source[range.clone()].to_vec();
            host.complete(volume, range.clone(), Handover::Copied)?;
            host.disks[volume].is_late(range.clone(), before);
            host.in_flight = true;
            host.coverage.stalled += 1;
            let halfway = host.stop_halfway(volume, &range, described)?;
            host.clock.creep(STALLED_LOOK_NS);
            (volume, range, halfway)
        };
        let worked = self.background(steps);
        let mut halfway = Some(halfway);
        let up = {
            let host = self.host.lock();
            worked.is_ok() && !host.storage.is_stopped() && !host.poisoned
        };
        let mut ended = Ok(());
        if dies && up {
            // It held the store.
            halfway = None;
            ended = self.reopen();
        }
        let mut host = self.host.lock();
        let now = host.clock.creep(0);
        host.in_flight = false;
        host.now = now;
        worked.and(ended)?;
        if let Some(halfway) = halfway {
            host.go_on(volume, range, halfway);
        }
        host.disks[volume].acknowledged_at(1, now);
        Ok(())
    }

    /// Steps of the store. Reads of the sources come back to the host, so it is not held meanwhile.
    fn background(&mut self, count: u64) -> Result<(), Mismatch> {
        for _ in 0..count {
            let store = self.host.lock().store()?;
            let result = store.step(Budget { entries: 50 });
            let mut host = self.host.lock();
            host.poll_events();
            host.judge("step", result)?;
            if host.storage.is_stopped() || host.poisoned {
                break;
            }
        }
        Ok(())
    }

    /// Steps of resync alone.
    fn resync(&mut self, count: u64) -> Result<(), Mismatch> {
        for _ in 0..count {
            let store = self.host.lock().store()?;
            let result = store.step_resyncs();
            self.host.lock().judge("resync", result)?;
        }
        Ok(())
    }

    /// Comparisons that change nothing.
    fn look(&mut self) -> Result<(), Mismatch> {
        let host = self.host.lock();
        if host.storage.is_stopped() || host.poisoned {
            return Ok(());
        }
        host.check_claims()?;
        host.check_durable_claims()
    }

    /// Ends all faults and compares everything.
    fn check(&mut self) -> Result<(), Mismatch> {
        self.look()?;
        self.heal()?;
        let mut host = self.host.lock();
        if host.storage.is_stopped() || host.poisoned || self.armed.is_some() {
            return Ok(());
        }
        host.flush()?;
        host.check_claims_arrived()?;
        host.check_points()
    }

    fn clear_trouble(&mut self) {
        let mut host = self.host.lock();
        host.storage.clear_faults();
        host.storage.set_capacity(None);
        host.faults_seen = host.storage.faults_struck();
        host.limited = false;
        host.reads_failed = false;
        for watch in &mut host.watches {
            watch.failing_reads = 0;
            watch.syncs.fail(0);
        }
    }

    /// Ends all faults. What failed before must work again.
    fn heal(&mut self) -> Result<(), Mismatch> {
        self.clear_trouble();
        let mut host = self.host.lock();
        if host.poisoned || host.storage.is_stopped() { Ok(()) } else { host.flush() }
    }

    /// Ends a history: everything is healed, every volume that ever had a tap gets one, and within a bounded number of steps all are
    /// captured whole, equal to their sources, and stay so; also through a clean end.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn finish(&mut self) -> Result<(), Mismatch> {
        if self.armed.take().is_some() {
            self.host.lock().storage.stop_at_change(u64::MAX);
        }
        self.heal()?;
        let poisoned = self.host.lock().poisoned;
        if poisoned {
            self.go_down(TapDown::Kill, &TapRecover::default())?;
        }
        self.host.lock().forget_interleaved();
        self.check()?;
        let volumes = self.host.lock().disks.len();
        for volume in 0..volumes {
            let known = self.host.lock().watches[volume].record == Record::None;
            if !known {
                self.attach(volume, op::Claim::AsRecorded)?;
            }
            self.host.lock().act(&TapOp::Resume(len_u64(volume)))?;
        }
        self.becomes_whole()?;
        self.check()?;
        self.stays_whole()?;
        self.ends_clean()?;
        let gaps = self.host.lock().store()?.timeline().map_err(Mismatch::failed("timeline"))?.gaps;
        self.host.lock().coverage.gaps += len_u64(gaps.len());
        Ok(())
    }

    fn becomes_whole(&mut self) -> Result<(), Mismatch> {
        for _ in 0..STEPS_TO_HEAL {
            self.background(1)?;
            let mut host = self.host.lock();
            host.move_clock(FRAME_AGE_NS);
            let store = host.store()?;
            let whole = host.watches.iter().filter_map(|watch| watch.tap.as_ref()).all(crate::Tap::is_whole);
            drop(host);
            if whole && store.step(Budget::default()).is_ok_and(|stepped| stepped == crate::Stepped::Idle) {
                return self.host.lock().are_equal();
            }
        }
        let host = self.host.lock();
        let state: Vec<String> = host
            .watches
            .iter()
            .filter_map(|watch| watch.tap.as_ref())
            .map(|tap| format!("'{}' whole: {}, {:?}", tap.volume(), tap.is_whole(), tap.stats()))
            .collect();
        Err(Mismatch::new("taps after the last fault", "whole, and nothing to do", state.join("; ")))
    }

    /// A few more writes: everything is exact, nothing is marked, no gap opens.
    fn stays_whole(&mut self) -> Result<(), Mismatch> {
        let gaps = |store: &Store| store.timeline().map(|timeline| timeline.gaps.len());
        let mut host = self.host.lock();
        let store = host.store()?;
        let before = gaps(&store).map_err(Mismatch::failed("timeline"))?;
        for number in 0..6 {
            let place = Place { volume: number, sector: number * 31, sectors: 1 + number * 5 };
            host.act(&TapOp::Write { place, by: Handover::Owned, late: 0 })?;
        }
        let all_exact = host.watches.iter().all(|watch| watch.tap.is_some() || watch.record == Record::None);
        host.act(&TapOp::Bookmark(all_exact))?;
        host.check_points()?;
        host.are_equal()?;
        let after = gaps(&store).map_err(Mismatch::failed("timeline"))?;
        if before != after {
            return Err(Mismatch::new("gaps after healing", before.to_string(), after.to_string()));
        }
        Ok(())
    }

    /// Taps that end in good order are believed to be equal later.
    fn ends_clean(&mut self) -> Result<(), Mismatch> {
        let volumes = self.host.lock().disks.len();
        for volume in 0..volumes {
            self.detach(volume)?;
        }
        self.reopen()?;
        for volume in 0..volumes {
            if self.host.lock().watches[volume].record != Record::Equal {
                continue;
            }
            self.attach(volume, op::Claim::AsRecorded)?;
            let host = self.host.lock();
            if !host.watches[volume].tap.as_ref().is_some_and(crate::Tap::is_whole) {
                let what = format!("volume '{}' after a clean end", host.disks[volume].name);
                return Err(Mismatch::new(what, "captured whole at once", "in a gap"));
            }
        }
        self.check()
    }
}
