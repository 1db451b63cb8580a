//! Beginnings and ends: taps that are put to work and taken off, stores that are closed, killed and recovered.

use super::{
    TapWorld,
    disk::state_of,
    host::{Host, Outcome, Reader, Record},
    op::{Claim, TapDown, TapRecover},
};
use crate::{
    SourceState, Store, TapOptions, io::simulated::SimRng, testing::mismatch::Mismatch, units::to_len,
};
use std::sync::Arc;

/// Attempts to take a tap off or to open a store while something fails.
const ATTEMPTS: usize = 2;

impl TapWorld {
    /// Puts a tap to work, unless there is one.
    pub(super) fn attach(&mut self, volume: usize, claim: Claim) -> Result<(), Mismatch> {
        let reader = Arc::new(Reader { host: Arc::downgrade(&self.host), volume });
        let mut host = self.host.lock();
        if host.watches[volume].tap.is_some() {
            return Ok(());
        }
        let options = TapOptions {
            source: host.truthful(volume, claim),
            pool_frames: host.config.pool_frames,
            granularity: Some(host.config.granularity),
            time: None,
        };
        host.move_clock(1000);
        let name = host.disks[volume].name.clone();
        let result = host.store()?.tap(&name, reader, options);
        let tap = match host.judge("tap", result)? {
            Outcome::Done(tap) => tap,
            Outcome::Failed => {
                if host.watches[volume].record != Record::Attached {
                    host.watches[volume].record = Record::Perhaps;
                }
                return Ok(());
            }
        };
        host.coverage.attached += 1;
        host.coverage.attached_equal += u64::from(tap.is_whole());
        let watch = &mut host.watches[volume];
        watch.tap = Some(tap);
        watch.record = Record::Attached;
        (watch.unwatched, watch.inline, watch.suspended) = (false, false, false);
        host.disks[volume].whole.fill(false);
        host.takes_over_source(volume);
        host.check_claims()
    }

    /// Takes a tap off. The host has flushed the source, as it must when it stops writing.
    pub(super) fn detach(&mut self, volume: usize) -> Result<(), Mismatch> {
        let mut host = self.host.lock();
        for _ in 0..ATTEMPTS {
            let Some(tap) = host.watches[volume].tap.clone() else { return Ok(()) };
            host.disks[volume].flush_source();
            let whole = tap.is_whole();
            let result = tap.clone().detach();
            let done = matches!(host.judge("detach", result)?, Outcome::Done(()));
            let watch = &mut host.watches[volume];
            if done {
                watch.record = if whole { Record::Equal } else { Record::Differs };
                host.coverage.detached += 1;
            } else if !tap.is_attached() {
                watch.record = Record::Perhaps;
            } else {
                continue;
            }
            let watch = &mut host.watches[volume];
            watch.tap = None;
            watch.suspend_within = false;
            if whole {
                let disk = &mut host.disks[volume];
                disk.content.clone_from(&disk.source);
            }
            return Ok(());
        }
        Ok(())
    }

    /// Closes the store in good order and opens it again. Taps that are attached end with it.
    pub(super) fn reopen(&mut self) -> Result<(), Mismatch> {
        let store = {
            let mut host = self.host.lock();
            host.drop_taps();
            host.store.take()
        };
        let Some(store) = store else { return Ok(()) };
        let result = store.close();
        let closed = self.host.lock().judge("close", result)?;
        if self.host.lock().storage.is_stopped() {
            return Ok(());
        }
        if matches!(closed, Outcome::Failed) {
            self.clear_trouble();
            return self.go_down(TapDown::Kill, &TapRecover::default());
        }
        self.open_again()
    }

    /// Everything stops, and comes back.
    pub(super) fn go_down(&mut self, down: TapDown, recover: &TapRecover) -> Result<(), Mismatch> {
        self.armed = None;
        {
            let mut host = self.host.lock();
            host.coverage.downs += 1;
            host.drop_taps();
            host.store = None;
            host.stop(down);
        }
        for (change, down) in &recover.crashes {
            let mut host = self.host.lock();
            host.storage.stop_at_change(host.storage.changes() + change);
            let opened = Store::open(Arc::new(host.storage.clone()), host.options());
            if !host.storage.is_stopped() {
                opened.map_err(Mismatch::failed("open"))?;
                break;
            }
            drop(opened);
            host.coverage.downs_in_recovery += 1;
            host.stop(*down);
        }
        self.open_again()
    }

    fn open_again(&mut self) -> Result<(), Mismatch> {
        let mut host = self.host.lock();
        // Locks, faults and counters of the handle that was used before are gone.
        for attempt in 1..=ATTEMPTS {
            let opened = Store::open(Arc::new(host.storage.clone()), host.options());
            match host.judge("open", opened)? {
                Outcome::Done(store) => {
                    host.store = Some(store);
                    break;
                }
                Outcome::Failed if host.storage.is_stopped() => return Ok(()),
                Outcome::Failed if attempt == ATTEMPTS => {
                    return Err(Mismatch::new("open", "done", "failed twice"));
                }
                Outcome::Failed => {
                    drop(host);
                    self.clear_trouble();
                    host = self.host.lock();
                }
            }
        }
        host.poisoned = false;
        if host.storage.is_stopped() {
            return Ok(());
        }
        host.take_over_contents()?;
        if self.armed.is_none() && !host.limited {
            host.check_points()?;
        }
        Ok(())
    }
}

impl Host {
    /// What the host may say of a source.
    fn truthful(&self, volume: usize, claim: Claim) -> SourceState {
        let watch = &self.watches[volume];
        let unclean = matches!(watch.record, Record::Attached | Record::Differs);
        let equal = self.disks[volume].source == self.disks[volume].content;
        match claim {
            Claim::Equal if unclean || (equal && !watch.unwatched && !watch.inline) => SourceState::Equal,
            Claim::AsRecorded if unclean || !watch.unwatched => SourceState::AsRecorded,
            _ => SourceState::Unknown,
        }
    }

    /// The volume is what its source is, from now on.
    fn takes_over_source(&mut self, volume: usize) {
        let state = state_of(&self.disks[volume].source);
        if self.disks[volume].line().last().is_none_or(|moment| moment.state != state) {
            self.order += 1;
            let (order, now) = (self.order, self.now);
            self.disks[volume].becomes(order, now, state);
        }
    }

    fn drop_taps(&mut self) {
        self.forget_interleaved();
        self.in_flight = false;
        for watch in &mut self.watches {
            watch.tap = None;
            watch.suspend_within = false;
        }
    }

    /// What is left of storage and sources.
    fn stop(&mut self, down: TapDown) {
        self.move_clock(1000);
        self.storage = match down {
            TapDown::Kill => self.storage.kill(),
            TapDown::PowerCut { policy, seed, .. } => self.storage.crash(seed, policy),
        };
        self.storage.set_capacity(None);
        (self.faults_seen, self.limited, self.poisoned) = (0, false, false);
        let TapDown::PowerCut { seed, sources: true, .. } = down else { return };
        let mut rng = SimRng::new(seed ^ 0x50_0c_e5);
        for volume in 0..self.disks.len() {
            self.disks[volume].lose_unflushed(&mut rng);
            if self.watches[volume].record == Record::Attached {
                self.takes_over_source(volume);
            }
        }
    }

    /// Volumes that are written inline go on from what the store has kept.
    fn take_over_contents(&mut self) -> Result<(), Mismatch> {
        let store = self.store()?;
        for volume in 0..self.disks.len() {
            if matches!(self.watches[volume].record, Record::Attached | Record::Differs) {
                continue;
            }
            let disk = &mut self.disks[volume];
            let handle = store.volume(Some(&disk.name)).map_err(Mismatch::failed("volume"))?;
            let mut image = vec![0xa5; to_len(disk.bytes())];
            handle.read(0, &mut image).map_err(Mismatch::failed("read"))?;
            disk.content = disk.decode("read", &image)?;
            let state = state_of(&disk.content);
            if disk.line().last().is_none_or(|moment| moment.state != state) {
                self.order += 1;
                disk.becomes(self.order, self.now, state);
                disk.timeless = true;
            }
        }
        Ok(())
    }

    /// The newest state of every volume with a tap is its source, and nothing is claimed.
    pub(super) fn are_equal(&self) -> Result<(), Mismatch> {
        let store = self.store()?;
        for (disk, watch) in self.disks.iter().zip(&self.watches) {
            let Some(tap) = &watch.tap else { continue };
            let handle = store.volume(Some(&disk.name)).map_err(Mismatch::failed("volume"))?;
            let mut image = vec![0xa5; to_len(disk.bytes())];
            handle.read(0, &mut image).map_err(Mismatch::failed("read"))?;
            let content = disk.decode("read", &image)?;
            let claims = tap.dirty_extents();
            if content != disk.source || !claims.is_empty() {
                let what = format!("volume '{}', healed", disk.name);
                let differing = content.iter().zip(&disk.source).filter(|(one, other)| one != other).count();
                let found = format!("{differing} sectors differ, {claims:?}");
                return Err(Mismatch::new(what, "equal to its source, no claim", found));
            }
        }
        Ok(())
    }
}
