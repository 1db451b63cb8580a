//! A consistency group at run time: volumes that share one row of sequence numbers and the same frames.
//!
//! The life of a write: [`append`] takes it into the open frame and the memtable, where reads see it; [`commit`] writes and syncs
//! frames; [`segments`] makes new segments ready and seals full ones with their index; [`merge`] keeps the number of index runs
//! small; [`relocate`] saves what is in memory when a segment fails; [`drain`] takes over what taps have captured;
//! [`tapping`] begins and ends taps; [`interval`] lets writes wait that are coalesced; [`cut`] brings several groups to one moment.
//!
//! Locks, in the order in which they may be taken: `bookmarks_at_points` > `tapping` (one tap begins or ends at a time) > `turn` (one appender at a time, may wait for I/O) > `manifest` (serialises
//! manifest edits, may wait for I/O) > `pins` (held across the manifest edit that takes points away) > `append` (the open frame; a memory copy at most) > `commit`, `flight`, `view`, `catalog`,
//! `waiting`, `pool` (short, none held while another of them is taken).
//! Nothing but `tapping`, `turn`, `manifest` and `maintenance` is ever held across I/O, and readers take none of these.

mod append;
mod commit;
mod compare;
mod cut;
mod digests;
mod drain;
mod interval;
mod lag;
mod lines;
mod merge;
mod outline;
mod read;
mod relocate;
mod resize;
mod segments;
mod space;
mod standing;
mod table_cache;
mod tapping;
mod thin;

pub(crate) use append::{Stamp, entries_of};
pub(crate) use compare::{Content, How, push_merged};
pub(crate) use cut::Cut;
pub use lag::Lag;
pub(crate) use lines::SegmentLine;
pub(crate) use segments::{Frozen, random_uuid};
pub(crate) use tapping::{AttachRecord, Known};
pub(crate) use thin::{Effort, ThinGoal};

use crate::{
    capture::{Capture, Coalescing, WriteFigures},
    catalog::Catalog,
    error::{Error, Result},
    event::Events,
    format::{Uuid, digest::DigestKey, frame_table::FrameEntry, meta::MetaRecord},
    index::{MemTable, PageCache, Run, RunContext, RunMeta, View},
    io::{AlignedBuf, BatchReader, BufferPool, Clock, Extent, Storage},
    journal::{Commit, OpenFrame, SealedFrame},
    limits::{FRAME_BYTES_MAX, FRAMES_IN_FLIGHT_MAX, TRANSFER_BUFFERS_KEPT},
    manifest::{ManifestLog, ManifestState},
    retention::Outline,
    sabotage::Sabotage,
    units::{ExtentId, FrameNo, Lineage, OwnerEpoch, Seq, TimeNs, VolumeId},
};
use parking_lot::{Condvar, Mutex, RwLock};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use table_cache::{TableCache, table_cache};

/// Open handles of segments kept for reading.
const HANDLES_MAX: usize = 256;

/// Most that is read from the storage at once, or copied within it, bytes.
pub(crate) const TRANSFER_LEN: usize = 1 << 20;

/// What every part of a store shares.
pub(crate) struct Shared {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub pages: Arc<PageCache>,
    pub store: Uuid,
    pub key: DigestKey,
    pub owner_epoch: OwnerEpoch,
    pub sabotage: Sabotage,
    pub tuning: Tuning,
    pub handles: quick_cache::sync::Cache<ExtentId, Arc<dyn Extent>>,
}

impl Shared {
    pub fn handle_cache() -> quick_cache::sync::Cache<ExtentId, Arc<dyn Extent>> {
        quick_cache::sync::Cache::new(HANDLES_MAX)
    }

    /// Opens an index run.
    pub fn open_run(&self, run: RunMeta) -> Run {
        let context = RunContext {
            store: self.store.short(),
            storage: self.storage.clone(),
            pages: self.pages.clone(),
        };
        Run::new(run, context)
    }

    /// A handle of an extent, from the cache where possible.
    pub fn handle(&self, extent: ExtentId) -> Result<Arc<dyn Extent>> {
        self.handles.get_or_insert_with(&extent, || {
            self.storage.open(extent).map_err(|error| Error::io("open", self.storage.describe(extent), error))
        })
    }
}

/// Sizes that a host may choose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Space of a new segment, bytes.
    pub segment_bytes: u64,
    /// Index runs of a level that are merged into one of the next.
    pub run_fanout: usize,
}

/// The manifest: written by the owner, only read by a reader.
pub(crate) enum Manifest {
    Owner(Box<ManifestLog>),
    Reader(Box<ManifestState>),
}

impl Manifest {
    /// The log, to append edits.
    pub fn log(&mut self) -> Result<&mut ManifestLog> {
        match self {
            Self::Owner(log) => Ok(log),
            Self::Reader(_) => Err(Error::ReadOnly),
        }
    }

    pub fn state(&self) -> &ManifestState {
        match self {
            Self::Owner(log) => log.state(),
            Self::Reader(state) => state,
        }
    }
}

/// The segment that takes frames.
pub(crate) struct CurrentSegment {
    pub extent: ExtentId,
    /// Space that it was made with, bytes.
    pub bytes: u64,
    /// Bytes from which on it may end before there is no room.
    pub cut_bytes: u64,
    /// Time of its first write; 0 without one.
    pub first_time: TimeNs,
    pub uuid: Uuid,
    pub base_seq: Seq,
    pub first_frame: FrameNo,
    /// Offset of the next frame, bytes.
    pub offset: u64,
    pub previous_crc: u32,
    pub memtable: Arc<MemTable>,
    pub frames: Vec<FrameEntry>,
    /// Metadata records with the frame that carries them.
    pub metas: Vec<(FrameNo, MetaRecord)>,
    pub source_bytes: u64,
    pub covered_to: TimeNs,
}

/// The tip of the journal.
pub(crate) struct Append {
    pub last_seq: Seq,
    pub newest_time: TimeNs,
    pub covered_to: TimeNs,
    pub next_frame: FrameNo,
    pub current: Option<CurrentSegment>,
    pub open: Option<OpenFrame>,
    /// When the open frame took its first record, by the clock of the host.
    pub opened_at: TimeNs,
    /// When the oldest write in the open frame arrived, by the clock of the host.
    pub oldest_at: TimeNs,
}

/// Totals since the store was opened.
#[derive(Default)]
pub(crate) struct Totals {
    pub source_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub frame_bytes: AtomicU64,
    /// Bytes of extents that thinning, and a smaller reserve, have let go.
    pub freed_bytes: AtomicU64,
    /// Bytes of extents that thinning, and a larger reserve, have made.
    pub taken_bytes: AtomicU64,
    /// Bytes of data that waited for the end of an interval.
    pub coalesced_bytes: AtomicU64,
    /// Bytes of data that were left of them.
    pub coalesced_stored_bytes: AtomicU64,
}

impl Totals {
    /// Bytes that were let go and made since the store was opened.
    pub fn freed_and_taken(&self) -> (u64, u64) {
        (self.freed_bytes.load(Ordering::Relaxed), self.taken_bytes.load(Ordering::Relaxed))
    }
}

/// The group.
pub(crate) struct Group {
    pub shared: Arc<Shared>,
    pub manifest: Mutex<Manifest>,
    pub lineage: Lineage,
    /// Held while a tap begins or ends.
    pub tapping: Mutex<()>,
    turn: Mutex<()>,
    append: Mutex<Append>,
    visible_seq: AtomicU64,
    durable_seq: AtomicU64,
    durable_frame: AtomicU64,
    manifest_records: AtomicU64,
    commit: Mutex<Commit>,
    commit_changed: Condvar,
    /// Threads of the bundled runner that commit.
    pub runners: AtomicUsize,
    flight: RwLock<BTreeMap<(ExtentId, u64), Arc<SealedFrame>>>,
    frame_buffers: BufferPool,
    /// Of [`TRANSFER_LEN`] bytes.
    transfer_buffers: BufferPool,
    batches: BatchReader,
    tables: TableCache,
    view: RwLock<Arc<View>>,
    frozen: Mutex<VecDeque<Frozen>>,
    /// Goes with `frozen`.
    segment_ended: Condvar,
    /// Held by who seals: one segment after the other, the oldest first. Taken before the manifest.
    sealing: Mutex<()>,
    lines: RwLock<Arc<Vec<SegmentLine>>>,
    maintenance: Mutex<merge::Maintenance>,
    /// Held by the one who thins at once.
    thinning_now: Mutex<()>,
    ready: Mutex<Option<segments::PreparedSegment>>,
    pub catalog: RwLock<Catalog>,
    poisoned: RwLock<Option<String>>,
    capture: RwLock<Option<Arc<Capture>>>,
    drain_state: Mutex<drain::DrainState>,
    waiting: Mutex<interval::Waiting>,
    arrivals: lag::Arrivals,
    figures: RwLock<BTreeMap<VolumeId, Arc<WriteFigures>>>,
    /// Whether writes are coalesced; while they are not, nothing waits.
    coalesces: AtomicBool,
    /// Volumes whose tap ended without a clean end and whose gap is not on the timeline yet.
    left_behind: Mutex<Vec<VolumeId>>,
    outline: RwLock<Arc<Outline>>,
    pins: Mutex<outline::Pins>,
    /// Held for reading while a bookmark is set at an older point, for writing while points are taken away.
    pub bookmarks_at_points: RwLock<()>,
    space: space::Space,
    pub events: Events,
    pub totals: Totals,
}

/// What a group starts with: the outcome of recovery.
pub(crate) struct GroupStart {
    pub manifest: Manifest,
    pub lineage: Lineage,
    pub last_seq: Seq,
    pub next_frame: FrameNo,
    pub newest_time: TimeNs,
    pub covered_to: TimeNs,
    pub view: View,
    pub frozen: Vec<Frozen>,
    pub lines: Vec<SegmentLine>,
    pub catalog: Catalog,
}

impl Group {
    /// The unbroken line of history that a seq belongs to.
    pub fn lineage_of(&self, seq: Seq) -> Lineage {
        let manifest = self.manifest.lock();
        let state = manifest.state();
        let cut = state.lineages.iter().filter(|cut| seq <= cut.last_seq).map(|cut| cut.lineage).min();
        cut.unwrap_or(state.position.lineage)
    }

    pub fn new(shared: Arc<Shared>, start: GroupStart) -> Self {
        let durable = (start.last_seq, start.next_frame);
        let manifest_records = match &start.manifest {
            Manifest::Owner(log) => log.durable_records(),
            Manifest::Reader(_) => 0,
        };
        let append = Append {
            last_seq: start.last_seq,
            newest_time: start.newest_time,
            covered_to: start.covered_to,
            next_frame: start.next_frame,
            current: None,
            open: None,
            opened_at: TimeNs::ZERO,
            oldest_at: TimeNs::ZERO,
        };
        let outline = start.manifest.state().outline.clone();
        let left_behind = start.catalog.left_behind().collect();
        let coalescing = start.catalog.coalescing_now();
        Self {
            manifest: Mutex::new(start.manifest),
            lineage: start.lineage,
            tapping: Mutex::new(()),
            turn: Mutex::new(()),
            append: Mutex::new(append),
            visible_seq: AtomicU64::new(durable.0.get()),
            durable_seq: AtomicU64::new(durable.0.get()),
            durable_frame: AtomicU64::new(durable.1.get()),
            manifest_records: AtomicU64::new(manifest_records),
            commit: Mutex::new(Commit::new(durable.1, durable.0, shared.sabotage)),
            commit_changed: Condvar::new(),
            runners: AtomicUsize::new(0),
            flight: RwLock::new(BTreeMap::new()),
            frame_buffers: BufferPool::new(FRAME_BYTES_MAX, FRAMES_IN_FLIGHT_MAX),
            transfer_buffers: BufferPool::new(TRANSFER_LEN, TRANSFER_BUFFERS_KEPT),
            batches: BatchReader::default(),
            tables: table_cache(),
            view: RwLock::new(Arc::new(start.view)),
            frozen: Mutex::new(start.frozen.into()),
            segment_ended: Condvar::new(),
            sealing: Mutex::default(),
            lines: RwLock::new(Arc::new(start.lines)),
            maintenance: Mutex::new(merge::Maintenance::default()),
            thinning_now: Mutex::new(()),
            ready: Mutex::new(None),
            catalog: RwLock::new(start.catalog),
            poisoned: RwLock::new(None),
            capture: RwLock::new(None),
            drain_state: Mutex::new(drain::DrainState::default()),
            waiting: Mutex::new(interval::Waiting::new(coalescing)),
            arrivals: lag::Arrivals::default(),
            figures: RwLock::default(),
            coalesces: AtomicBool::new(coalescing != Coalescing::PerWrite),
            left_behind: Mutex::new(left_behind),
            outline: RwLock::new(Arc::new(outline)),
            pins: Mutex::new(outline::Pins::new()),
            bookmarks_at_points: RwLock::new(()),
            space: space::Space::default(),
            events: Events::default(),
            totals: Totals::default(),
            shared,
        }
    }

    /// Where the writes of a volume are counted.
    pub fn figures(&self, volume: VolumeId) -> Arc<WriteFigures> {
        if let Some(figures) = self.figures.read().get(&volume) {
            return figures.clone();
        }
        self.figures.write().entry(volume).or_default().clone()
    }

    /// The taps, when there are any.
    pub fn capture(&self) -> Option<Arc<Capture>> {
        self.capture.read().clone()
    }

    /// Whether a tap captures a volume.
    pub fn has_tap(&self, volume: VolumeId) -> bool {
        self.capture.read().as_ref().is_some_and(|capture| capture.tap(volume).is_some())
    }

    /// The taps, with a pool that is made when there is none yet.
    pub fn capture_or_insert(&self, make: impl FnOnce() -> Result<Capture>) -> Result<Arc<Capture>> {
        let mut capture = self.capture.write();
        if let Some(capture) = &*capture {
            return Ok(capture.clone());
        }
        let made = Arc::new(make()?);
        *capture = Some(made.clone());
        Ok(made)
    }

    /// The newest seq that reads see.
    pub fn visible_seq(&self) -> Seq {
        Seq::new(self.visible_seq.load(Ordering::Acquire))
    }

    /// Everything up to this seq is durable.
    pub fn durable_seq(&self) -> Seq {
        Seq::new(self.durable_seq.load(Ordering::Acquire))
    }

    /// Newest seq, its time, and the time that the group's clock has reached.
    pub fn tip(&self) -> (Seq, TimeNs, TimeNs) {
        let append = self.append.lock();
        (append.last_seq, append.newest_time, append.covered_to)
    }

    /// The index as it stands.
    pub fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    fn publish(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view.write();
        let mut next = View::clone(&view);
        change(&mut next);
        *view = Arc::new(next);
    }

    fn take_frame_buffer(&self) -> Result<AlignedBuf> {
        self.frame_buffers.take().map_err(|error| Error::io("reserve memory for", "a frame", error))
    }

    /// Buffers of [`TRANSFER_LEN`].
    pub fn transfer_buffers(&self) -> &BufferPool {
        &self.transfer_buffers
    }

    fn take_transfer_buffer(&self) -> Result<AlignedBuf> {
        self.transfer_buffers.take().map_err(|error| Error::io("reserve memory for", "a transfer", error))
    }

    /// Refuses when the group cannot take writes.
    fn check_writable(&self) -> Result<()> {
        if let Some(reason) = &*self.poisoned.read() {
            return Err(Error::Poisoned(reason.clone()));
        }
        Ok(())
    }

    /// Stops the group: memory and storage may no longer agree.
    fn poison(&self, reason: &str) {
        let mut poisoned = self.poisoned.write();
        if poisoned.is_none() {
            *poisoned = Some(reason.to_owned());
        }
    }
}
