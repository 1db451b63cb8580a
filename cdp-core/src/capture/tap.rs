//! One tapped volume: mark or capture.
//!
//! A write either goes into the pool whole or marks its blocks in the dirty map; never neither. Nothing here waits, allocates, or calls
//! the storage.
//!
//! A mark that finds no gap open on the timeline leaves a *wish* for one. The wish names the last frame of the pool that may hold writes
//! from before the mark: the drain opens the gap behind that frame, and before anything that was reserved later. So everything that was
//! captured whole before the mark stays exact, and nothing that came after it is taken for exact.

use super::{
    figures::WriteFigures,
    in_flight::InFlightTable,
    ladder::{Ladder, Mode, Quiet},
    pool::{Content, Item, Pool, Refused},
};
use crate::{
    catalog::GapReason,
    dirty_map::{ByteRange, DirtyMap},
    sabotage::{Sabotage, Switch},
    units::{TimeNs, VolumeId},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

/// No wish.
const NONE: u64 = u64::MAX;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Captured {
    /// It was captured whole and becomes a write of the timeline.
    Whole,
    /// Its blocks were marked; they are copied from the source later.
    Marked,
}

/// A gap to be opened by the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Order of the last frame of the pool that may hold writes from before the gap.
    pub behind: u64,
    /// Time of the first write that was not captured.
    pub time: TimeNs,
    /// Why.
    pub reason: GapReason,
}

/// Counts since the tap began.
#[derive(Debug, Default)]
pub struct TapCounts {
    /// Writes captured whole.
    pub whole: AtomicU64,
    /// Writes that only marked.
    pub marked: AtomicU64,
    /// Gaps opened.
    pub gaps: AtomicU64,
}

/// One tapped volume.
pub struct TapState {
    volume: VolumeId,
    sabotage: Sabotage,
    ladder: Ladder,
    map: DirtyMap,
    gap_is_open: AtomicBool,
    wish_behind: AtomicU64,
    wish_time: AtomicU64,
    wish_reason: AtomicU8,
    newest_marked: AtomicU64,
    /// Writes between their submission and their end, as far as the host says so.
    pub in_flight: InFlightTable,
    ended: AtomicBool,
    suspended: AtomicBool,
    writes: Arc<WriteFigures>,
    /// Figures.
    pub counts: TapCounts,
}

impl TapState {
    /// A tap with its map. `gap_is_open`: the timeline has an open gap, so the tap begins in BITMAP.
    pub fn new(
        volume: VolumeId,
        map: DirtyMap,
        in_flight: InFlightTable,
        gap_is_open: bool,
        sabotage: Sabotage,
    ) -> Self {
        Self {
            volume,
            in_flight,
            sabotage,
            ladder: Ladder::new(if gap_is_open { Mode::Bitmap } else { Mode::Data }),
            map,
            gap_is_open: AtomicBool::new(gap_is_open),
            wish_behind: AtomicU64::new(NONE),
            wish_time: AtomicU64::new(u64::MAX),
            wish_reason: AtomicU8::new(0),
            newest_marked: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            writes: Arc::default(),
            counts: TapCounts::default(),
        }
    }

    /// Counts writes where those of its volume are counted.
    #[must_use]
    pub fn counting_in(self, writes: Arc<WriteFigures>) -> Self {
        Self { writes, ..self }
    }

    /// What its writes look like.
    pub fn writes(&self) -> &WriteFigures {
        &self.writes
    }

    /// Whether a deliberate defect is thrown.
    pub fn sabotaged(&self, switch: Switch) -> bool {
        self.sabotage.on(switch)
    }

    /// The volume.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// How writes are taken now.
    pub fn mode(&self) -> Mode {
        self.ladder.mode()
    }

    /// What is known to differ from the source.
    pub fn map(&self) -> &DirtyMap {
        &self.map
    }

    /// For a sabotaged tap, its first look at the mode.
    pub fn first_look(&self) -> Option<Mode> {
        self.sabotage.on(Switch::DecideFromTwoLooks).then(|| self.mode())
    }

    /// Takes one write that was completed on the source. `wishes` counts the taps of the group with a wish.
    /// `length` is that of the item, which the caller has checked; `first` see [`TapState::first_look`].
    pub fn capture(
        &self,
        pool: &Pool,
        wishes: &AtomicUsize,
        length: u64,
        item: Item<'_>,
        first: Option<Mode>,
    ) -> Captured {
        let (range, time) = (ByteRange::new(item.offset, length), item.time);
        if !matches!(item.content, Content::Discard { .. }) {
            self.writes.note(item.offset, length);
        }
        let mode = self.ladder.mode();
        if first.is_some_and(|first| first != Mode::Bitmap && mode == Mode::Bitmap) {
            return Captured::Whole;
        }
        if mode == Mode::Bitmap {
            self.mark(range, time, GapReason::Overload, wishes, || pool.boundary());
            return Captured::Marked;
        }
        match pool.put(item) {
            Ok(_) => {
                self.counts.whole.fetch_add(1, Ordering::Relaxed);
                Captured::Whole
            }
            Err(Refused::Exhausted { sealed }) => {
                self.mark(range, time, GapReason::Overload, wishes, || sealed);
                Captured::Marked
            }
            Err(Refused::Abandoned | Refused::Invalid) => {
                self.mark(range, time, GapReason::Stalled, wishes, || pool.boundary());
                Captured::Marked
            }
        }
    }

    /// Marks a range that the store does not have. `boundary` gives the order of a frame of the pool such that whatever is reserved
    /// later lies in a later one; it is asked only when no gap is open.
    pub fn mark(
        &self,
        range: ByteRange,
        time: TimeNs,
        reason: GapReason,
        wishes: &AtomicUsize,
        boundary: impl FnOnce() -> u64,
    ) {
        if self.sabotage.on(Switch::MarkWithoutLadder) {
            self.map.set(range);
            return;
        }
        self.ladder.begin_mark();
        self.newest_marked.fetch_max(time.get(), Ordering::AcqRel);
        if !self.gap_is_open.load(Ordering::Acquire) {
            self.wish(boundary(), time, reason, wishes);
        }
        self.map.set(range);
        self.counts.marked.fetch_add(1, Ordering::Relaxed);
        self.ladder.end_mark();
    }

    /// Goes to BITMAP without a block of its own: the store cannot take writes, or the host asks for it.
    pub fn degrade(&self, time: TimeNs, reason: GapReason, wishes: &AtomicUsize, boundary: u64) {
        self.ladder.begin_mark();
        if !self.gap_is_open.load(Ordering::Acquire) {
            self.wish(boundary, time, reason, wishes);
        }
        self.ladder.end_mark();
    }

    fn wish(&self, behind: u64, time: TimeNs, reason: GapReason, wishes: &AtomicUsize) {
        self.wish_time.fetch_min(time.get(), Ordering::AcqRel);
        let _ = self.wish_reason.compare_exchange(0, reason.code(), Ordering::AcqRel, Ordering::Acquire);
        // Last: who sees the boundary sees the rest.
        if self.wish_behind.fetch_min(behind, Ordering::AcqRel) == NONE {
            wishes.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The gap that a mark wished for.
    pub fn wished(&self) -> Option<Wish> {
        let behind = self.wish_behind.load(Ordering::Acquire);
        (behind != NONE).then(|| Wish {
            behind,
            time: TimeNs::new(self.wish_time.load(Ordering::Acquire)),
            reason: GapReason::from_code(self.wish_reason.load(Ordering::Acquire))
                .unwrap_or(GapReason::Overload),
        })
    }

    /// The gap is on the timeline. Called by the drain, with the turn held.
    pub fn gap_opened(&self, wishes: &AtomicUsize) {
        // First: marks from here on need no wish; one that is placed nevertheless finds the gap open and is dropped.
        self.gap_is_open.store(true, Ordering::Release);
        self.counts.gaps.fetch_add(1, Ordering::Relaxed);
        self.drop_wish(wishes);
    }

    /// A wish that was placed while the gap was being opened is fulfilled already.
    pub fn drop_wish(&self, wishes: &AtomicUsize) {
        if self.wish_behind.swap(NONE, Ordering::AcqRel) != NONE {
            wishes.fetch_sub(1, Ordering::AcqRel);
        }
        self.wish_time.store(u64::MAX, Ordering::Release);
        self.wish_reason.store(0, Ordering::Release);
    }

    /// Whether the timeline has an open gap of this volume.
    pub fn gap_is_open(&self) -> bool {
        self.gap_is_open.load(Ordering::Acquire)
    }

    /// The state of the ladder when no mark is under way.
    pub fn quiet(&self) -> Option<Quiet> {
        self.ladder.quiet()
    }

    /// Goes from BITMAP to RESYNC: writes are captured whole again. `false` when a mark came in between.
    pub fn begin_resync(&self, from: Quiet) -> bool {
        from.mode() == Mode::Bitmap && self.ladder.advance(from, Mode::Resync)
    }

    /// Goes from RESYNC to DATA when nothing is dirty. Called with the turn held and the pool drained; the caller then closes the gap on
    /// the timeline, or calls [`TapState::reopen`].
    pub fn finish(&self) -> bool {
        let Some(quiet) = self.ladder.quiet() else { return false };
        // What has overlapped is about to be marked.
        if quiet.mode() != Mode::Resync || !self.map.is_empty() || self.in_flight.has_flagged() {
            return false;
        }
        // A mark that comes after the step to DATA must leave a wish; one that came before makes the step fail.
        self.gap_is_open.store(false, Ordering::Release);
        let done = self.ladder.advance(quiet, Mode::Data);
        if !done {
            self.gap_is_open.store(true, Ordering::Release);
        }
        done
    }

    /// The end of the gap could not be written: it stays open.
    pub fn reopen(&self) {
        self.gap_is_open.store(true, Ordering::Release);
        self.ladder.begin_mark();
        self.ladder.end_mark();
    }

    /// The source is watched from this time on only.
    pub fn unknown_before(&self, time: TimeNs) {
        self.newest_marked.fetch_max(time.get(), Ordering::AcqRel);
    }

    /// Time of the newest write that only marked, or of the beginning.
    pub fn newest_marked(&self) -> TimeNs {
        TimeNs::new(self.newest_marked.load(Ordering::Acquire))
    }

    /// Whether the host keeps the tap in BITMAP.
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }

    /// Keeps the tap in BITMAP, or lets it go on.
    pub fn suspend(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Release);
    }

    /// Whether the tap was taken off.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Takes the tap off: no write is expected any more.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Taking it off failed: it goes on.
    pub fn end_failed(&self) {
        self.ended.store(false, Ordering::Release);
    }
}
