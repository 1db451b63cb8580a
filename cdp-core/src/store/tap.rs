//! Taps: capture beside a production disk.
//!
//! The host writes to its disk and, when a write is complete, hands it to [`Tap::capture`], before it acknowledges it. That costs a copy
//! into a pool of memory: it never waits, allocates, or calls the storage, and it cannot fail production. What the store cannot keep up
//! with is marked in a dirty map and copied from the source later; the timeline says which part is missing.

use super::{
    PoolUse, Store,
    source_state::{SourceState, check_ranges},
};
use crate::{
    capture::{
        Capture, Captured, Mode, WriteCounts,
        in_flight::InFlightTable,
        pool::{Content, Item, Pool, PoolOptions},
        tap::TapState,
    },
    catalog::{GapReason, StampRecord, VolumeInfo},
    dirty_map::{Base, ByteRange, DirtyMap, Granularity, MapFileOptions, MapOptions, Shape, wire},
    error::{Error, Result},
    event::{Event, EventSink},
    format::Uuid,
    group::{AttachRecord, How, Known, Lag},
    limits::{IN_FLIGHT_MAX, POOL_FRAMES, WRITE_BYTES_MAX},
    resync::{Alone, ReadAhead, Resync, ResyncCounts, SOURCE, SourceReader, TapLog},
    units::{Seq, TimeNs, len_u64},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    io::IoSlice,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// The activity log of a tap: see [`TapOptions::activity_log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivityLog {
    /// Most regions that are active at a time, 4 to 944, the default. After an unclean end these are compared.
    pub regions_active_max: usize,
    /// Bytes of a region: a power of two from the granularity to 1 TiB; default 4 MiB.
    pub region_bytes: u64,
}

impl Default for ActivityLog {
    fn default() -> Self {
        let MapFileOptions { regions_active_max, region_bytes, .. } = MapFileOptions::default();
        Self { regions_active_max, region_bytes }
    }
}

/// How a tap is set up.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// What is known of the source.
    pub source: SourceState,
    /// Frames of 1 MiB of the pool, which all taps of a store share; the first tap decides. Default 64.
    pub pool_frames: usize,
    /// Bytes that a bit of the dirty map stands for, a power of two from 4 KiB to 1 MiB; `None`: by the size of the volume.
    pub granularity: Option<u64>,
    /// Whether an unclean end costs a comparison of what was being written and not of the whole source. Every write is then begun
    /// ([`Tap::capture_begin`]), which may wait for the storage, and the source can make its writes durable
    /// ([`SourceReader::sync`]). Default: none.
    pub activity_log: Option<ActivityLog>,
    /// When the tap begins, for a host that dates its writes by another clock than that of the store; `None`: now.
    pub time: Option<TimeNs>,
}

impl Default for TapOptions {
    fn default() -> Self {
        Self {
            source: SourceState::AsRecorded,
            pool_frames: POOL_FRAMES,
            granularity: None,
            activity_log: None,
            time: None,
        }
    }
}

/// Figures of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapStats {
    /// How writes are taken now.
    pub mode: Mode,
    /// Bytes that are known to differ from the source.
    pub dirty_bytes: u64,
    /// Writes captured whole.
    pub whole: u64,
    /// Writes that only marked.
    pub marked: u64,
    /// Gaps opened.
    pub gaps: u64,
    /// Captured bytes that wait in the pool, of all taps of the store.
    pub pool_bytes: u64,
    /// How full the pool is, of all taps of the store.
    pub pool: PoolUse,
    /// How far what is durable lies behind, of all volumes of the store: they share one journal.
    pub lag: Lag,
    /// What the writes of the volume look like.
    pub writes: WriteCounts,
    /// The resync.
    pub resync: ResyncCounts,
    /// How long a resync that is under way takes at the speed that it had so far; `None`: none is, or nothing is known yet.
    pub resync_left: Option<Duration>,
}

/// What a tap keeps durable of its map while it is at work.
#[derive(Clone, Copy)]
pub(super) enum Keeps {
    /// Nothing.
    Nothing,
    /// An activity log.
    Log(ActivityLog),
    /// What is still to be compared, from time to time, where the source can make its writes durable.
    Cursor,
}

/// How a tap is put to work.
pub(super) struct Attach<'a> {
    pub options: &'a TapOptions,
    pub keeps: Keeps,
    /// Threads that read the source ahead.
    pub readers: usize,
    /// When it begins.
    pub time: TimeNs,
}

/// What was decided by what is known of a volume.
pub(super) struct Decided {
    /// Why anything may differ.
    pub reason: Option<GapReason>,
    /// The newest seq for which that holds; `None`: whatever it is.
    pub newest: Option<Seq>,
    /// Nobody captures from the source: how it is compared, and what it is now.
    pub alone: Option<(How, Option<StampRecord>)>,
}

/// A tap that was put to work.
pub(super) struct Attached {
    pub capture: Arc<Capture>,
    pub state: Arc<TapState>,
    pub log: Option<Arc<TapLog>>,
    pub resync: Resync,
}

/// A tap on a volume. Cheap to clone; any threads at once.
#[derive(Clone)]
pub struct Tap {
    pub(super) store: Store,
    pub(super) info: Arc<VolumeInfo>,
    pub(super) capture: Arc<Capture>,
    pub(super) state: Arc<TapState>,
    pub(super) log: Option<Arc<TapLog>>,
    pub(super) resync: Arc<Mutex<Resync>>,
}

impl Store {
    /// Begins to capture a volume beside its source. Durable when this returns: from now on, and until [`Tap::detach`], an unclean end is
    /// known to have left the store behind the source. While the two differ, a gap is open on the timeline and resync closes it.
    ///
    /// # Errors
    /// `NotFound`; `Exists` when the volume has a tap; `InvalidArgument` for the options; `Io` when memory cannot be reserved; those of
    /// appending. With an activity log also those of the source, and `InvalidArgument` when that cannot make its writes durable.
    pub fn tap(&self, volume: &str, source: Arc<dyn SourceReader>, options: TapOptions) -> Result<Tap> {
        let info = Arc::new(self.volume(Some(volume))?.info());
        let decide = |map: &DirtyMap, known| {
            let contradicted = options.source == SourceState::AsRecorded && self.was_changed(&info, &*source);
            let state = if contradicted { &SourceState::Unknown } else { &options.source };
            let found = self.mark_differences(&info, known, state, map)?;
            Ok(Decided { reason: found.reason, newest: None, alone: None })
        };
        let keeps = options.activity_log.map_or(Keeps::Nothing, Keeps::Log);
        let time = options.time.unwrap_or_else(|| self.inner.group.shared.clock.now());
        let attach = Attach { options: &options, keeps, readers: 0, time };
        let attached = self.attach(&info, &source, &attach, decide)?;
        let Attached { capture, state, log, resync } = attached;
        let resync = Arc::new(Mutex::new(resync));
        self.inner.resyncs.lock().push(resync.clone());
        Ok(Tap { store: self.clone(), info, capture, state, log, resync })
    }

    /// Puts a tap to work on a volume. `decide` marks in the map what may differ by what is known of the volume; it is asked again when that
    /// has changed meanwhile.
    pub(super) fn attach(
        &self,
        info: &Arc<VolumeInfo>,
        source: &Arc<dyn SourceReader>,
        attach: &Attach<'_>,
        decide: impl Fn(&DirtyMap, Known) -> Result<Decided>,
    ) -> Result<Attached> {
        let group = self.owner()?;
        let granularity = match attach.options.granularity {
            Some(bytes) => Granularity::new(bytes)?,
            None => Granularity::for_size(info.bytes),
        };
        let shape = Shape::new(info.bytes, granularity)?;
        let reserve = |error| Error::io("reserve", "the memory of a tap", error);
        let capture = group.capture_or_insert(|| {
            let pool = Pool::new(PoolOptions { frames: attach.options.pool_frames }).map_err(|error| {
                if error.kind() == std::io::ErrorKind::InvalidInput {
                    Error::InvalidArgument(error.to_string())
                } else {
                    reserve(error)
                }
            })?;
            Ok(Capture::new(pool))
        })?;
        let _one = group.tapping.lock();
        loop {
            if capture.tap(info.id).is_some() {
                return Err(Error::Exists { what: "tap of volume", name: info.name.clone() });
            }
            // Sizes change under the same lock.
            if group.catalog.read().volume(info.id).is_none_or(|now| now.bytes != info.bytes) {
                return Err(Error::InvalidArgument(format!(
                    "volume {} was resized meanwhile; open it again",
                    info.name
                )));
            }
            let sabotage = group.shared.sabotage;
            let map = DirtyMap::with_options(shape, MapOptions { sabotage })?;
            let known = group.known_of_tap(info.id);
            let decided = decide(&map, known)?;
            let log = match attach.keeps {
                Keeps::Nothing => None,
                Keeps::Log(log) => Some(Arc::new(self.start_log(info, &map, source.clone(), log)?)),
                Keeps::Cursor => self.start_cursor(info, &map, source)?,
            };
            let own = log.as_ref().map(|log| log.named);
            let begin = || -> Result<Option<Attached>> {
                let in_flight = InFlightTable::new(IN_FLIGHT_MAX);
                let in_flight = in_flight.ok_or_else(|| reserve(std::io::ErrorKind::OutOfMemory.into()))?;
                let alone = decided.alone;
                let open = group.catalog.read().gaps(info.id).is_some_and(|gaps| gaps.open().is_some());
                // Without a tap of the host, a gap is opened by the first difference.
                let gap = if alone.is_some() { None } else { decided.reason };
                let in_gap = open || gap.is_some();
                let state = TapState::new(info.id, map, in_flight, in_gap, sabotage);
                let state = Arc::new(state.counting_in(group.figures(info.id)));
                // What the source was before this moment nobody knows: the gap does not end before it.
                state.unknown_before(attach.time);
                let ahead = ReadAhead::start(source.clone(), attach.readers).map_err(reserve)?;
                let mut resync = Resync::new(state.clone(), ahead, log.clone(), info.bytes);
                if let Some((how, stamp)) = alone {
                    let stamp_now = stamp.and_then(|record| record.stamp);
                    let gap = decided.reason.unwrap_or(GapReason::Host);
                    resync = resync.alone(how, Alone { gap, time: attach.time, stamp: stamp_now });
                }
                let (known, newest) = (known, decided.newest);
                let alone = alone.map(|(_, stamp)| stamp);
                let record = AttachRecord { known, newest, gap, map: own, alone };
                let attached = group.attach_tap(&capture, &state, &record)?;
                Ok(attached.then(|| Attached { capture: capture.clone(), state, log, resync }))
            };
            match begin() {
                Ok(Some(attached)) => return Ok(attached),
                // The volume was written inline meanwhile.
                Ok(None) => group.remove_map(info.id, own),
                Err(error) => {
                    group.remove_map(info.id, own);
                    return Err(error);
                }
            }
        }
    }

    /// Makes the file of the map that a resync goes on with after a crash; none for a source that cannot make its writes durable.
    fn start_cursor(
        &self,
        info: &Arc<VolumeInfo>,
        map: &DirtyMap,
        source: &Arc<dyn SourceReader>,
    ) -> Result<Option<Arc<TapLog>>> {
        match source.sync() {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(None),
            Err(error) => return Err(Error::io("sync", SOURCE, error)),
        }
        let (named, file) = self.owner()?.create_map(info, map, MapFileOptions::default())?;
        Ok(Some(Arc::new(TapLog::new(file, named, info.clone(), source.clone()))))
    }

    /// Makes the file of an activity log, which begins with what `map` claims.
    fn start_log(
        &self,
        info: &Arc<VolumeInfo>,
        map: &DirtyMap,
        source: Arc<dyn SourceReader>,
        log: ActivityLog,
    ) -> Result<TapLog> {
        // What the source holds now must not be taken back by a power cut: nothing would claim it.
        source.sync().map_err(|error| match error.kind() {
            std::io::ErrorKind::Unsupported => Error::InvalidArgument(
                "an activity log needs a source that can make its writes durable: SourceReader::sync".into(),
            ),
            _ => Error::io("sync", SOURCE, error),
        })?;
        let options = MapFileOptions {
            region_bytes: log.region_bytes,
            regions_active_max: log.regions_active_max,
            ..MapFileOptions::default()
        };
        let (named, file) = self.owner()?.create_map(info, map, options)?;
        Ok(TapLog::new(file, named, info.clone(), source))
    }

    /// Ends all taps in good order: see [`Tap::detach`].
    pub(super) fn end_taps(&self) -> Result<()> {
        let Some(capture) = self.owner()?.capture() else { return Ok(()) };
        capture.taps().iter().try_for_each(|tap| self.end_tap(&capture, tap))
    }

    fn end_tap(&self, capture: &Capture, tap: &Arc<TapState>) -> Result<()> {
        let is_own = |resync: &Arc<Mutex<Resync>>| Arc::ptr_eq(resync.lock().tap(), tap);
        let resync = self.inner.resyncs.lock().iter().find(|resync| is_own(resync)).cloned();
        let mut own = resync.as_ref().map(|resync| resync.lock());
        // A stamp that cannot be had is none.
        let stamp = own.as_ref().and_then(|resync| resync.source().stamp().ok().flatten());
        let stamp = stamp.map(|stamp| StampRecord { stamp: Some(stamp), unfinished: None });
        let outcome = self.end_tap_of(capture, tap, own.as_deref_mut(), stamp);
        drop(own);
        if capture.tap(tap.volume()).is_none_or(|other| !Arc::ptr_eq(&other, tap)) {
            self.inner
                .resyncs
                .lock()
                .retain(|other| resync.as_ref().is_none_or(|own| !Arc::ptr_eq(own, other)));
        }
        outcome
    }

    /// Takes a tap off whose resync is `resync`; `stamp` is recorded with what is known then.
    pub(super) fn end_tap_of(
        &self,
        capture: &Capture,
        tap: &Arc<TapState>,
        mut resync: Option<&mut Resync>,
        stamp: Option<StampRecord>,
    ) -> Result<()> {
        let group = self.owner()?;
        tap.end();
        let log = resync.as_ref().and_then(|resync| resync.log().cloned());
        let settle = || {
            if let Some(resync) = &mut resync {
                resync.settle(group);
            }
            match &log {
                Some(log) => log.tend(group).map(|_| log.in_force()),
                None => Ok(None),
            }
        };
        let outcome = group.detach_tap(capture, tap, settle, stamp);
        if capture.tap(tap.volume()).is_some_and(|other| Arc::ptr_eq(&other, tap)) {
            tap.end_failed();
        } else if outcome.is_ok() {
            log.iter().for_each(|log| log.close());
        }
        outcome
    }

    /// Takes the events since the last call, oldest first, and the number of those that were dropped because nobody took them.
    pub fn take_events(&self) -> (Vec<Event>, u64) {
        self.inner.group.events.take()
    }

    /// Sets what is told of every event when it happens, besides the row of [`Store::take_events`], and of those that are in the row already. Once
    /// for an open store: false, and nothing is done, when there is one.
    pub fn set_event_sink(&self, sink: Arc<dyn EventSink>) -> bool {
        self.inner.group.events.set_sink(sink)
    }
}

impl Tap {
    /// The name of its volume.
    pub fn volume(&self) -> &str {
        &self.info.name
    }

    /// Takes one write that has completed on the source, dated now. `offset` and the length are multiples of 512, the length at most
    /// 16 MiB. Call it before the write is acknowledged to the application; the order of calls is the order of writes. It never waits
    /// and never fails on the store's account.
    ///
    /// # Errors
    /// `Unaligned`, `OutOfRange`, `InvalidArgument` for a length: nothing was captured or marked. `Closed` after [`Tap::detach`].
    pub fn capture(&self, offset: u64, data: &[u8]) -> Result<Captured> {
        self.take(offset, len_u64(data.len()), WRITE_BYTES_MAX, None, Content::Copied(&[IoSlice::new(data)]))
    }

    /// As [`Tap::capture`], dated by the caller.
    ///
    /// # Errors
    /// As [`Tap::capture`].
    pub fn capture_at(&self, offset: u64, data: &[u8], time: TimeNs) -> Result<Captured> {
        self.take(
            offset,
            len_u64(data.len()),
            WRITE_BYTES_MAX,
            Some(time),
            Content::Copied(&[IoSlice::new(data)]),
        )
    }

    /// As [`Tap::capture_at`], from several buffers, which together are one write.
    ///
    /// # Errors
    /// As [`Tap::capture`].
    pub fn capture_vectored(&self, offset: u64, parts: &[IoSlice<'_>], time: TimeNs) -> Result<Captured> {
        let length = parts.iter().map(|part| len_u64(part.len())).fold(0, u64::saturating_add);
        self.take(offset, length, WRITE_BYTES_MAX, Some(time), Content::Copied(parts))
    }

    /// As [`Tap::capture_at`], without a copy: the buffer is handed over until it is in the journal.
    ///
    /// # Errors
    /// As [`Tap::capture`].
    pub fn capture_bytes(&self, offset: u64, mut data: Bytes, time: TimeNs) -> Result<Captured> {
        self.take(offset, len_u64(data.len()), WRITE_BYTES_MAX, Some(time), Content::Owned(&mut data))
    }

    /// Takes zeroes that were written over a range of any length.
    ///
    /// # Errors
    /// As [`Tap::capture`].
    pub fn write_zeroes(&self, offset: u64, length: u64, time: TimeNs) -> Result<Captured> {
        self.take(offset, length, u64::MAX, Some(time), Content::Zero { length })
    }

    /// Takes a discard of a range of any length, which reads as zeroes from then on.
    ///
    /// # Errors
    /// As [`Tap::capture`].
    pub fn discard(&self, offset: u64, length: u64, time: TimeNs) -> Result<Captured> {
        self.take(offset, length, u64::MAX, Some(time), Content::Discard { length })
    }

    /// Says that a range of the source may have changed without being captured, for instance by a write that failed. It is copied from
    /// the source later, and the timeline has a gap until then.
    ///
    /// # Errors
    /// As [`Tap::capture`].
    pub fn mark(&self, offset: u64, length: u64, reason: GapReason) -> Result<()> {
        self.check(offset, length, u64::MAX)?;
        let range = ByteRange::new(offset, length);
        self.log.iter().for_each(|log| log.bypass());
        let (capture, time) = (&self.capture, self.now());
        self.state.mark(range, time, reason, &capture.wishes, || capture.pool.boundary());
        Ok(())
    }

    /// As [`Tap::mark`] for many ranges, of any alignment: what the host's own tracking of changed blocks, or a map of something else, says
    /// may differ. With an activity log it is durable when this returns.
    ///
    /// # Errors
    /// `OutOfRange`; `InvalidArgument` for more than [`RANGES_MAX`](crate::limits::RANGES_MAX) ranges or after [`Tap::detach`]; nothing was
    /// marked then. With an activity log those of the storage; all is marked, and may not be durable.
    pub fn mark_extents(&self, ranges: &[ByteRange], reason: GapReason) -> Result<()> {
        self.check_attached()?;
        check_ranges(&self.info, ranges)?;
        let (capture, time) = (&self.capture, self.now());
        for range in ranges.iter().filter(|range| range.bytes > 0) {
            self.state.mark(*range, time, reason, &capture.wishes, || capture.pool.boundary());
        }
        self.checkpoint()
    }

    fn checkpoint(&self) -> Result<()> {
        match &self.log {
            Some(log) => log.checkpoint(self.store.owner()?),
            None => Ok(()),
        }
    }

    /// Stops capturing whole: writes only mark until [`Tap::resume`].
    pub fn suspend(&self) {
        if self.state.is_ended() {
            return;
        }
        self.state.suspend(true);
        if self.state.mode() != Mode::Bitmap {
            let boundary = self.capture.pool.boundary();
            self.state.degrade(self.now(), GapReason::Host, &self.capture.wishes, boundary);
        }
    }

    /// Lets resync bring a suspended tap back.
    pub fn resume(&self) {
        self.state.suspend(false);
    }

    /// How writes are taken now.
    pub fn mode(&self) -> Mode {
        self.state.mode()
    }

    /// Whether it still captures: false after [`Tap::detach`].
    pub fn is_attached(&self) -> bool {
        self.capture.tap(self.info.id).is_some_and(|tap| Arc::ptr_eq(&tap, &self.state))
    }

    /// Whether the volume is captured whole and no gap is open or about to be.
    pub fn is_whole(&self) -> bool {
        self.state.mode() == Mode::Data && !self.state.gap_is_open() && self.state.wished().is_none()
    }

    /// What is known to differ from the source: ascending, merged. [`Tap::dirty_map`] gives the same as bytes.
    pub fn dirty_extents(&self) -> Vec<ByteRange> {
        self.state.map().extents().collect()
    }

    /// What is known to differ from the source as bytes that a peer can read with [`wire::decode`](crate::dirty_map::wire::decode), under a
    /// base that the caller names; size and granularity are those of the tap.
    pub fn dirty_map(&self, device: Uuid, generation: u64) -> Vec<u8> {
        let map = self.state.map();
        wire::encode(map, Base { device, generation, shape: map.shape() })
    }

    /// As [`Tap::mark_extents`] for a map in the form of [`Tap::dirty_map`], of any granularity.
    ///
    /// # Errors
    /// `MapRefused` when the bytes are no map, or one of another device, generation or size: take everything for dirty. `InvalidArgument`
    /// after [`Tap::detach`]; `Io` when memory cannot be reserved. Nothing was marked then.
    pub fn mark_map(&self, bytes: &[u8], device: Uuid, generation: u64, reason: GapReason) -> Result<()> {
        self.check_attached()?;
        let named = wire::base_of(bytes).map_err(|error| Error::MapRefused(error.to_string()))?;
        let shape = Shape::new(self.info.bytes, named.shape.granularity())?;
        let other = wire::decode(bytes, Base { device, generation, shape })?;
        let (capture, time) = (&self.capture, self.now());
        for range in other.extents() {
            self.state.mark(range, time, reason, &capture.wishes, || capture.pool.boundary());
        }
        self.checkpoint()
    }

    /// Figures.
    pub fn stats(&self) -> TapStats {
        let map = self.state.map();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let pool = PoolUse::of(&self.capture.pool);
        let dirty_bytes = map.weight().saturating_mul(map.shape().granularity().bytes()).min(self.info.bytes);
        let resync = self.resync.lock();
        TapStats {
            mode: self.state.mode(),
            dirty_bytes,
            whole: count(&self.state.counts.whole),
            marked: count(&self.state.counts.marked),
            gaps: count(&self.state.counts.gaps),
            pool_bytes: pool.bytes,
            pool,
            lag: self.store.inner.group.lag(),
            writes: self.state.writes().counts(),
            resync: resync.counts,
            resync_left: resync.time_left(self.now(), dirty_bytes),
        }
    }

    /// Ends the tap: everything captured becomes durable, and whether the source and the volume are equal now is recorded, with a map of what
    /// differs. The caller has stopped writing, and the source has made its writes durable.
    ///
    /// # Errors
    /// Those of appending. [`Tap::is_attached`] of another handle tells whether the tap stays, or is off and only its record is not durable
    /// yet; after a crash the volume is then compared with its source.
    pub fn detach(self) -> Result<()> {
        self.store.end_tap(&self.capture, &self.state)
    }

    pub(super) fn now(&self) -> TimeNs {
        self.store.inner.group.shared.clock.now()
    }

    pub(super) fn check_attached(&self) -> Result<()> {
        if self.state.is_ended() {
            let text = format!("the tap of volume {} was taken off", self.info.name);
            return Err(Error::InvalidArgument(text));
        }
        Ok(())
    }

    pub(super) fn check(&self, offset: u64, length: u64, length_max: u64) -> Result<()> {
        self.check_attached()?;
        super::check_range(self.info.bytes, offset, length, length_max).map(|_| ())
    }

    fn take(
        &self,
        offset: u64,
        length: u64,
        length_max: u64,
        time: Option<TimeNs>,
        content: Content<'_>,
    ) -> Result<Captured> {
        self.check(offset, length, length_max)?;
        self.log.iter().for_each(|log| log.bypass());
        Ok(self.take_checked(ByteRange::new(offset, length), time, content))
    }

    pub(super) fn take_checked(
        &self,
        range: ByteRange,
        time: Option<TimeNs>,
        content: Content<'_>,
    ) -> Captured {
        let first = self.state.first_look();
        let time = time.unwrap_or_else(|| self.now());
        let item = Item { volume: u32::from(self.info.id.get()), offset: range.offset, time, content };
        self.state.capture(&self.capture.pool, &self.capture.wishes, range.bytes, item, first)
    }
}
