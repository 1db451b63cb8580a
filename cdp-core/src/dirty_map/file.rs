//! A map on one extent, kept true across a crash by the activity log.
//!
//! After a crash the claim is the bits of the map pages, the blocks of the regions that the newest record of the log names, and everything when
//! a flag says so. Rules, each of which the simulator tries to break:
//! - *write-ahead*: [`MapFile::begin_write`] returns when a synced record names the regions of the write;
//! - *evict order*: the map pages of a region are synced before the record that drops it is written;
//! - *pin*: a region with a write in flight is not evicted, and a write that is not known to be durable everywhere sets its bits before it lets go;
//! - *log off*: the header says so durably before the first write without the log; only a checkpoint, with no such write in flight, takes it back;
//! - *need replay*: the header says so durably before the first write, and *clean* only when nothing is in flight and every page is durable;
//! - *fail-stop*: after any failure of the extent no write is let through. The map in memory stays true: write it to another extent
//!   with [`MapFile::create`].
//!
//! Locks: `io` before `state`; `io` is held across I/O, `state` never, and a write to an active region takes neither.

mod admission;

use super::{
    activity::{Activity, Admission},
    header::{Base, Flags, Header},
    map::{DirtyMap, MapOptions},
    pin::{Pin, Pins},
    ring::{RECORD_REGIONS_MAX, RING_RECORDS, Verdict},
    shape::{ByteRange, Shape},
    store_pages::{StorePages, read_headers},
};
use crate::{
    Error, Result,
    format::{PAGE_LEN, Uuid},
    io::Extent,
    sabotage::Switch,
};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    fmt, io,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

/// How a map file is made and used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFileOptions {
    /// Bytes of a region of the activity log: a power of two from the granularity to 1 TiB. Used by `create` alone.
    pub region_bytes: u64,
    /// Records of the ring: a power of two in [`RING_RECORDS`]. Used by `create` alone.
    pub ring_records: u32,
    /// Most regions that are active at a time, 4 to [`RECORD_REGIONS_MAX`].
    pub regions_active_max: usize,
    /// Whether writes go through the activity log. Without it, a crash makes everything dirty.
    pub log: bool,
    /// Options of the map in memory. Used by `open` alone.
    pub map: MapOptions,
}

impl Default for MapFileOptions {
    fn default() -> Self {
        Self {
            region_bytes: 4 << 20,
            ring_records: 8,
            regions_active_max: RECORD_REGIONS_MAX,
            log: true,
            map: MapOptions::default(),
        }
    }
}

impl MapFileOptions {
    fn check(&self, shape: Shape) -> Result<()> {
        let region = self.region_bytes;
        let wrong = if !region.is_power_of_two()
            || !(shape.granularity().bytes()..=1 << 40).contains(&region)
            || shape.bytes().div_ceil(region) > 1 << 32
        {
            format!(
                "region size {region} must be a power of two from the granularity to 1 TiB, with at most 2^32 regions"
            )
        } else if !self.ring_records.is_power_of_two() || !RING_RECORDS.contains(&self.ring_records) {
            format!("ring records {} must be a power of two from 2 to 1024", self.ring_records)
        } else if !(4..=RECORD_REGIONS_MAX).contains(&self.regions_active_max) {
            format!("active regions {} must be 4 to {RECORD_REGIONS_MAX}", self.regions_active_max)
        } else {
            return Ok(());
        };
        Err(Error::InvalidArgument(wrong))
    }
}

/// What was found at open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The map was closed by [`MapFile::save_clean`]: it is exact.
    pub clean: bool,
    /// Regions that the activity log made dirty.
    pub regions_replayed: u64,
    /// Map pages that were not intact and made all of their blocks dirty.
    pub pages_damaged: u64,
    /// Why everything is dirty, where it is.
    pub all_dirty: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Logged,
    Unlogged,
    Closed,
}

struct State {
    mode: Mode,
    failed: Option<String>,
    activity: Activity,
    /// Whether a thread is writing a batch.
    leading: bool,
    /// Writes in flight that the log does not know.
    unlogged: u64,
    /// Writes that wait for room, in order.
    queue: VecDeque<u64>,
    next_ticket: u64,
}

impl State {
    fn check(&self) -> Result<()> {
        match &self.failed {
            Some(text) => Err(Error::Poisoned(text.clone())),
            None if self.mode == Mode::Closed => Err(Error::Poisoned("the dirty map was closed".into())),
            None => Ok(()),
        }
    }
}

pub(super) struct Inner {
    map: DirtyMap,
    region_bytes: u64,
    pins: Pins,
    state: Mutex<State>,
    changed: Condvar,
    /// Threads in the slow path, which a write that ends must wake.
    waiting: AtomicU32,
    io: Mutex<StorePages>,
    options: MapFileOptions,
}

/// A dirty map on one extent. Any number of threads.
pub struct MapFile {
    inner: Arc<Inner>,
}

impl fmt::Debug for MapFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapFile({:?})", self.inner.map)
    }
}

fn random() -> Result<u64> {
    getrandom::u64()
        .map_err(|error| Error::io("get random numbers for", "a dirty map", io::Error::other(error)))
}

impl MapFile {
    /// Writes `map`, whatever it claims, as a new map file over all of `extent`, and opens it. Durable when this returns.
    ///
    /// Nothing else may change the map meanwhile. What the extent held is overwritten; a crash before the end leaves no map or one that claims
    /// everything.
    ///
    /// # Errors
    /// `InvalidArgument` for options out of their bounds; `Io` and `NoSpace` from the extent, which then holds no usable map.
    pub fn create(
        extent: Arc<dyn Extent>,
        device: Uuid,
        generation: u64,
        map: DirtyMap,
        options: MapFileOptions,
    ) -> Result<Self> {
        options.check(map.shape())?;
        if generation >= crate::limits::COUNTER_END {
            return Err(Error::InvalidArgument(format!("generation {generation} is too large")));
        }
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&random()?.to_le_bytes());
        uuid[8..].copy_from_slice(&random()?.to_le_bytes());
        let header = Header {
            map: Uuid(uuid),
            base: Base { device, generation, shape: map.shape() },
            flags: Flags { clean: false, all_dirty: false, log_off: !options.log },
            sequence: 0,
            ring: random()?,
            region_bytes: options.region_bytes,
            ring_records: options.ring_records,
        };
        let mut pages = StorePages::new(extent, header, random()?)?;
        pages.set_size(pages.extent_bytes())?;
        pages.fill_ring()?;
        pages.write_pages(&map, pages.all_pages())?;
        pages.sync()?;
        pages.write_header()?;
        pages.write_header()?;
        Self::assemble(map, pages, options, &[])
    }

    /// Opens the map file of `base`. When this returns, it is durable that the map needs replay.
    ///
    /// # Errors
    /// `MapRefused` when there is no map, or not that of this device, generation, size and granularity: everything must be taken for dirty.
    /// `Io` from the extent, or when memory cannot be reserved.
    pub fn open(extent: Arc<dyn Extent>, base: Base, options: MapFileOptions) -> Result<(Self, Opened)> {
        // What a killed process has written must not be trusted before it is durable.
        extent.sync().map_err(|error| Error::io("sync", "the dirty map", error))?;
        let headers = read_headers(&*extent)?;
        let judged = Header::judge([&headers[..PAGE_LEN], &headers[PAGE_LEN..2 * PAGE_LEN]]);
        let (header, header_damaged) = judged.map_err(|error| {
            Error::MapRefused(format!("{error}; take everything for dirty and make a new map"))
        })?;
        if header.base != base {
            let text =
                format!("the dirty map is of {:?}, not of {base:?}; take everything for dirty", header.base);
            return Err(Error::MapRefused(text));
        }
        let stored = MapFileOptions {
            region_bytes: header.region_bytes,
            ring_records: header.ring_records,
            ..options
        };
        stored.check(base.shape)?;
        let map = DirtyMap::with_options(base.shape, options.map)?;
        let mut pages = StorePages::new(extent, header, random()?)?;
        if pages.size()? < pages.extent_bytes() {
            return Err(Error::MapRefused(
                "the extent of the dirty map was cut; take everything for dirty".into(),
            ));
        }
        let clean = header.flags.clean && !header_damaged;
        let regions = base.shape.bytes().div_ceil(header.region_bytes);
        let ring = pages.read_ring()?;
        let verdict = judge_ring(&pages, &ring, regions, options.map);
        let mut opened = Opened { clean, ..Opened::default() };
        if header_damaged {
            opened.all_dirty = Some("a page of the header is lost".into());
        } else if header.flags.all_dirty {
            opened.all_dirty = Some("it was marked so".into());
        } else if !clean && header.flags.log_off {
            opened.all_dirty = Some("the activity log was off".into());
        } else if let (false, Verdict::Lost(reason)) = (clean, &verdict) {
            opened.all_dirty = Some(format!("the activity log is damaged: {reason}"));
        }
        opened.pages_damaged = pages.load(&map, clean)?;
        let mut active = Vec::new();
        match verdict {
            Verdict::Record(record) => {
                pages.next_sequence = record.sequence.wrapping_add(1);
                if !clean {
                    active = record.regions;
                }
                for region in &active {
                    map.set(ByteRange::new(u64::from(*region) * header.region_bytes, header.region_bytes));
                }
                opened.regions_replayed = active.len() as u64;
                pages.write_record(active.clone())?;
            }
            Verdict::Lost(_) => {
                pages.header.ring = random()?;
                pages.fill_ring()?;
            }
        }
        if opened.all_dirty.is_some() {
            map.set_all();
        }
        pages.sync()?;
        pages.header.flags =
            Flags { clean: false, all_dirty: opened.all_dirty.is_some(), log_off: !options.log };
        pages.write_header()?;
        if header_damaged {
            pages.write_header()?;
        }
        Ok((Self::assemble(map, pages, stored, &active)?, opened))
    }

    fn assemble(map: DirtyMap, pages: StorePages, options: MapFileOptions, active: &[u32]) -> Result<Self> {
        let no_memory =
            || Error::io("reserve memory for", "the activity log", io::ErrorKind::OutOfMemory.into());
        let pins = Pins::new(map.shape().bytes().div_ceil(options.region_bytes)).ok_or_else(no_memory)?;
        active.iter().for_each(|region| pins.activate(*region));
        let state = State {
            mode: if options.log { Mode::Logged } else { Mode::Unlogged },
            failed: None,
            activity: Activity::new(options.regions_active_max, active),
            leading: false,
            unlogged: 0,
            queue: VecDeque::new(),
            next_ticket: 0,
        };
        let inner = Inner {
            map,
            region_bytes: options.region_bytes,
            pins,
            state: Mutex::new(state),
            changed: Condvar::new(),
            waiting: AtomicU32::new(0),
            io: Mutex::new(pages),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The map in memory. What is set there directly is not known to the log: it is durable after the next checkpoint.
    pub fn map(&self) -> &DirtyMap {
        &self.inner.map
    }

    /// What the map is a map of.
    pub fn base(&self) -> Base {
        self.inner.io.lock().header.base
    }

    /// Whether the activity log names regions: after a crash they would be claimed.
    pub(crate) fn was_used(&self) -> bool {
        self.inner.state.lock().activity.members().next().is_some()
    }

    /// Most regions that are active at a time.
    pub(crate) fn regions_active_max(&self) -> usize {
        self.inner.options.regions_active_max
    }

    /// Largest range that one write may name, bytes: a quarter of what can be active. Cut longer ones.
    pub fn write_bytes_max(&self) -> u64 {
        (self.inner.options.regions_active_max as u64 / 4 - 1).max(1) * self.inner.region_bytes
    }

    /// To be called before a write is submitted to the source: returns when a crash from now on claims `range`.
    ///
    /// Costs one atomic for each region that is active already. Else it waits for one write of the log, which all that wait share, and for
    /// other writes to end while too many regions are pinned.
    ///
    /// # Errors
    /// `OutOfRange`; `InvalidArgument` for more than [`MapFile::write_bytes_max`]; `Io`, `NoSpace` or `Poisoned` when the extent has failed.
    /// The write must then not be submitted.
    pub fn begin_write(&self, range: ByteRange) -> Result<Pin> {
        match Inner::begin(&self.inner, range, true)? {
            Some(pin) => Ok(pin),
            None => unreachable!("a write that may wait gets its turn"),
        }
    }

    /// As [`MapFile::begin_write`], but gives `None` when too many regions are pinned.
    ///
    /// # Errors
    /// As [`MapFile::begin_write`].
    pub fn try_begin_write(&self, range: ByteRange) -> Result<Option<Pin>> {
        Inner::begin(&self.inner, range, false)
    }

    /// Makes the map as it is durable. Takes back what was said about times without the log, unless it is off or writes without it are in flight.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Poisoned`.
    pub fn checkpoint(&self) -> Result<()> {
        let mut io = self.inner.io.lock();
        let state = self.inner.state.lock();
        state.check()?;
        let whole = state.mode == Mode::Logged && state.unlogged == 0;
        drop(state);
        self.inner.or_stop(write_checkpoint(&mut io, &self.inner.map, whole))
    }

    /// Makes everything dirty, durably.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Poisoned`; the map in memory is all dirty nevertheless.
    pub fn mark_all_dirty(&self) -> Result<()> {
        self.inner.map.set_all();
        self.change_header(|header| header.flags.all_dirty = true)
    }

    /// Another generation of the base, durable when this returns.
    ///
    /// # Errors
    /// `InvalidArgument` for one that is not higher; `Io`, `NoSpace`, `Poisoned`.
    pub fn rotate(&self, generation: u64) -> Result<()> {
        if generation <= self.base().generation || generation >= crate::limits::COUNTER_END {
            return Err(Error::InvalidArgument(format!("generation {generation} is not a higher one")));
        }
        self.change_header(|header| header.base.generation = generation)
    }

    fn change_header(&self, change: impl FnOnce(&mut Header)) -> Result<()> {
        let mut io = self.inner.io.lock();
        self.inner.state.lock().check()?;
        change(&mut io.header);
        self.inner.or_stop(io.write_header())
    }

    /// Turns the activity log on or off. After a crash everything is dirty, from the time when it was off to the next checkpoint with the log on.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Poisoned`.
    pub fn set_log(&self, on: bool) -> Result<()> {
        let mut io = self.inner.io.lock();
        self.inner.state.lock().check()?;
        if !on && !self.inner.sabotaged(Switch::LogOffNotRecorded) {
            io.header.flags.log_off = true;
            self.inner.or_stop(io.write_header())?;
        }
        // Regions that are active stay so: the newest record goes on naming them.
        self.inner.state.lock().mode = if on { Mode::Logged } else { Mode::Unlogged };
        self.inner.changed.notify_all();
        Ok(())
    }

    /// Closes the map exactly as it is. Runs in resync are dirty in it. No write is let through any more.
    ///
    /// # Errors
    /// `InvalidArgument` while a write is in flight; `Io`, `NoSpace`, `Poisoned`, after which the map needs replay.
    pub fn save_clean(&self) -> Result<()> {
        let mut io = self.inner.io.lock();
        self.inner.close()?;
        self.inner.or_stop(write_clean(&mut io, &self.inner.map))
    }

    /// Writes the map of the volume at its new size as a new map file over all of `extent`; what is new is dirty. This file is closed, and stays as
    /// it is for an open after a crash: the caller switches from one to the other in a way of its own.
    ///
    /// # Errors
    /// `InvalidArgument` while a write is in flight; those of [`MapFile::create`]. This file is then still in use.
    pub fn resize_into(&self, extent: Arc<dyn Extent>, new_bytes: u64) -> Result<Self> {
        let base = self.base();
        let _io = self.inner.io.lock();
        let mode = self.inner.close()?;
        let options = MapFileOptions { log: mode == Mode::Logged, ..self.inner.options };
        let create = |map| Self::create(extent, base.device, base.generation, map, options);
        let old = &self.inner.map;
        let made = if self.inner.sabotaged(Switch::ResizeWritesBeforeRead) {
            let granularity = base.shape.granularity();
            let empty = Shape::new(new_bytes, granularity)
                .and_then(|shape| DirtyMap::with_options(shape, old.options()));
            empty.and_then(create).inspect(|new| old.extents().for_each(|range| new.map().set(range)))
        } else {
            old.resized(new_bytes).and_then(create)
        };
        if made.is_err() {
            self.inner.reopen(mode);
        }
        made
    }
}

fn judge_ring(pages: &StorePages, ring: &[u8], regions: u64, options: MapOptions) -> Verdict {
    let verdict = pages.ring().judge(ring, regions);
    if options.sabotage.on(Switch::ReplaySkipsGap) && matches!(verdict, Verdict::Lost(_)) {
        let record = super::ring::Record { sequence: 0, write: 0, regions: Vec::new() };
        return Verdict::Record(record);
    }
    verdict
}

fn write_checkpoint(io: &mut StorePages, map: &DirtyMap, whole: bool) -> Result<()> {
    io.write_pages(map, io.all_pages())?;
    io.sync()?;
    if whole && (io.header.flags.all_dirty || io.header.flags.log_off) {
        io.header.flags = Flags::default();
        io.write_header()?;
    }
    Ok(())
}

fn write_clean(io: &mut StorePages, map: &DirtyMap) -> Result<()> {
    io.header.flags = Flags { clean: true, ..Flags::default() };
    if map.options().sabotage.on(Switch::NeedReplayClearedEarly) {
        io.write_header()?;
    }
    io.write_pages(map, io.all_pages())?;
    io.sync()?;
    io.write_header()
}
