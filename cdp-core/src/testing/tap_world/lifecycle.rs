//! Beginnings and ends: taps that are put to work and taken off, stores that are closed, killed and recovered.

use super::{
    TapWorld,
    disk::{Disk, state_of},
    host::{Host, Outcome, Record, bytes_of},
    op::{Claim, TapDown, TapRecover},
    source::Reader,
};
use crate::{
    Error, Result, SourceState, Store, Tap, TapOptions,
    dirty_map::{ByteRange, Granularity, Shape},
    format::PAGE_LEN,
    io::{AlignedBuf, Storage, simulated::SimRng},
    testing::mismatch::Mismatch,
    units::to_len,
};
use std::{ops::Range, sync::Arc};

/// Attempts to take a tap off or to open a store while something fails.
const ATTEMPTS: usize = 2;

impl TapWorld {
    /// Puts a tap to work, unless there is one.
    pub(super) fn attach(&mut self, volume: usize, claim: Claim) -> Result<(), Mismatch> {
        let mut host = self.host.lock();
        let (syncs, far) = (host.watches[volume].syncs.clone(), host.config.far);
        let reader = Arc::new(Reader { host: Arc::downgrade(&self.host), volume, syncs, far });
        if host.watches[volume].tap.is_some() {
            return Ok(());
        }
        let source = host.truthful(volume, claim);
        let options = TapOptions {
            source: source.clone(),
            pool_frames: host.config.pool_frames,
            granularity: Some(host.config.granularity),
            activity_log: host.config.log.filter(|(_, often)| host.rng.chance(*often)).map(|(log, _)| log),
            time: None,
        };
        let logged = options.activity_log.is_some();
        host.move_clock(1000);
        let name = host.disks[volume].name.clone();
        let result = host.store()?.tap(&name, reader, options);
        host.carry_out_syncs();
        let tap = match host.judge("tap", result)? {
            Outcome::Done(tap) => tap,
            Outcome::Failed => {
                host.watches[volume].left = None;
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
        let record = std::mem::replace(&mut watch.record, Record::Attached);
        (watch.inline, watch.suspended) = (false, false);
        let (left, unwatched) = (watch.left.take(), std::mem::take(&mut watch.unwatched));
        // A fault while a tap begins may cost it what the last one left: then everything is claimed.
        if matches!(source, SourceState::AsRecorded | SourceState::Differs(_))
            && let Some(left) = left.filter(|_| !host.trouble())
        {
            host.claims_no_more_than(volume, &left, &unwatched)?;
            *(match record {
                Record::Attached => &mut host.coverage.attached_with_log,
                _ => &mut host.coverage.attached_with_map,
            }) += 1;
        }
        let trouble = host.trouble();
        let watch = &mut host.watches[volume];
        let claim = watch.tap.iter().flat_map(Tap::dirty_extents).collect();
        watch.touched = (logged && !trouble).then_some(claim);
        (watch.logged, watch.bypassed) = (logged, false);
        host.disks[volume].whole.fill(false);
        host.takes_over_source(volume);
        if host.storage.is_stopped() { Ok(()) } else { host.check_claims() }
    }

    /// Takes a tap off. The host has flushed the source, as it must when it stops writing.
    pub(super) fn detach(&mut self, volume: usize) -> Result<(), Mismatch> {
        let mut host = self.host.lock();
        for _ in 0..ATTEMPTS {
            let Some(tap) = host.watches[volume].tap.clone() else { return Ok(()) };
            host.disks[volume].flush_source();
            let result = tap.clone().detach();
            host.carry_out_syncs();
            let done = matches!(host.judge("detach", result)?, Outcome::Done(()));
            if !done && tap.is_attached() {
                continue;
            }
            host.coverage.detached += u64::from(done);
            host.has_ended(volume, &tap, done);
            return Ok(());
        }
        Ok(())
    }

    /// Closes the store in good order and opens it again. Taps that are attached end with it; the host has stopped
    /// writing.
    pub(super) fn reopen(&mut self) -> Result<(), Mismatch> {
        let (store, taps) = {
            let mut host = self.host.lock();
            host.disks.iter_mut().for_each(Disk::flush_source);
            let taps: Vec<Option<Tap>> = host.watches.iter().map(|watch| watch.tap.clone()).collect();
            host.drop_taps();
            (host.store.take(), taps)
        };
        let Some(store) = store else { return Ok(()) };
        let result = store.close();
        let mut host = self.host.lock();
        host.carry_out_syncs();
        let closed = host.judge("close", result)?;
        for (volume, tap) in taps.iter().enumerate() {
            if let Some(tap) = tap {
                host.has_ended(volume, tap, matches!(closed, Outcome::Done(())));
            }
        }
        // Each holds the store, and with it the right to own it.
        drop((host, taps));
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
            host.poll_events();
            host.carry_out_syncs();
            let trouble = host.trouble();
            for watch in host.watches.iter_mut().filter(|watch| watch.tap.is_some()) {
                watch.left = watch.touched.take().filter(|_| !trouble);
            }
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
        if recover.harm_maps {
            self.host.lock().harm_maps()?;
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

fn byte_range(sectors: &Range<usize>) -> ByteRange {
    let (offset, bytes) = bytes_of(sectors);
    ByteRange::new(offset, bytes)
}

impl Host {
    /// What the host may say of a source.
    fn truthful(&self, volume: usize, claim: Claim) -> SourceState {
        let (watch, disk) = (&self.watches[volume], &self.disks[volume]);
        let unclean = matches!(watch.record, Record::Attached | Record::Differs);
        let equal = disk.source == disk.content;
        let untouched = watch.unwatched.is_empty();
        match claim {
            // Must not be believed after an unclean end, nor where blocks differed.
            Claim::Equal if unclean || (equal && untouched && !watch.inline) => SourceState::Equal,
            // A write that the activity log was not told of is for the host to tell.
            _ if watch.bypassed => SourceState::Unknown,
            Claim::AsRecorded if untouched => SourceState::AsRecorded,
            Claim::Tracked if watch.record == Record::None => {
                let differs = |sector: &usize| disk.source[*sector] != disk.content[*sector];
                let sectors = (0..disk.sectors()).filter(differs);
                SourceState::Differs(sectors.map(|sector| byte_range(&(sector..sector + 1))).collect())
            }
            Claim::Tracked if watch.record != Record::Perhaps => {
                SourceState::Differs(watch.unwatched.iter().map(byte_range).collect())
            }
            _ => SourceState::Unknown,
        }
    }

    /// Whether something went wrong that may cost exactness.
    fn trouble(&self) -> bool {
        self.storage.faults_struck() > 0 || self.limited
    }

    /// A tap has ended, or, unless `done`, perhaps.
    fn has_ended(&mut self, volume: usize, tap: &Tap, done: bool) {
        let whole = tap.is_whole();
        let trouble = self.trouble();
        let watch = &mut self.watches[volume];
        watch.record = match (done, whole) {
            (true, true) => Record::Equal,
            (true, false) => Record::Differs,
            _ => Record::Perhaps,
        };
        watch.left = (done && !whole && !trouble).then(|| tap.dirty_extents());
        watch.tap = None;
        watch.suspend_within = false;
        (watch.logged, watch.bypassed) = (false, false);
        if whole {
            let disk = &mut self.disks[volume];
            disk.content.clone_from(&disk.source);
        }
    }

    /// A tap that was told everything claims nothing but what the last one left, and what was written since.
    fn claims_no_more_than(
        &self,
        volume: usize,
        left: &[ByteRange],
        unwatched: &[Range<usize>],
    ) -> Result<(), Mismatch> {
        let Some(tap) = &self.watches[volume].tap else { return Ok(()) };
        let granularity = Granularity::new(self.config.granularity);
        let shape = granularity.and_then(|granularity| Shape::new(self.disks[volume].bytes(), granularity));
        let shape = shape.map_err(Mismatch::failed("the shape of a map"))?;
        let may: Vec<ByteRange> = left.iter().copied().chain(unwatched.iter().map(byte_range)).collect();
        let may: Vec<Range<u64>> = may.into_iter().map(|range| shape.outward(range)).collect();
        for claimed in tap.dirty_extents() {
            let mut blocks = shape.outward(claimed);
            if let Some(block) = blocks.find(|block| !may.iter().any(|range| range.contains(block))) {
                let what = format!("the claim of volume '{}' after a clean end", self.disks[volume].name);
                return Err(Mismatch::new(what, format!("{may:?}"), format!("block {block} too")));
            }
        }
        Ok(())
    }

    /// Damages every map that taps left behind.
    fn harm_maps(&mut self) -> Result<(), Mismatch> {
        let failed = Mismatch::failed("a look at the extents");
        let harm = || -> Result<bool> {
            let mut harmed = false;
            for id in self.storage.list().map_err(|error| Error::io("list", "the store", error))? {
                let failed = |error| Error::io("harm", "a map", error);
                let extent = self.storage.open(id).map_err(failed)?;
                let mut pages = AlignedBuf::new(2 * PAGE_LEN).map_err(failed)?;
                let whole = extent.read_at(0, &mut pages[..2 * PAGE_LEN]).is_ok();
                if whole && pages.starts_with(b"CDPMAPHD") {
                    pages[..2 * PAGE_LEN].fill(0x77);
                    extent.write_at(0, &pages[..2 * PAGE_LEN]).map_err(failed)?;
                    extent.sync().map_err(failed)?;
                    harmed = true;
                }
            }
            Ok(harmed)
        };
        if harm().map_err(failed)? {
            self.coverage.maps_harmed += 1;
        }
        self.watches.iter_mut().for_each(|watch| watch.left = None);
        Ok(())
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
