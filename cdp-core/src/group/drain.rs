//! The drain: takes captured writes out of the pool in their order, appends them, and opens and closes gaps in between.
//!
//! It works under the turn, so inline writes, bookmarks and captured writes make one row: whoever takes the turn first drains what was
//! reserved before, and comes behind it.

use super::{
    Group,
    append::{SeqRule, Stamp, Turn},
};
use crate::{
    bookmark::{Bookmark, BookmarkKind},
    capture::{
        Capture, Mode,
        pool::{Kind, Next, SetAside, Taken, Write},
        tap::{TapState, Wish},
    },
    catalog::GapReason,
    dirty_map::ByteRange,
    error::{Error, Result, SeqTime},
    event::EventKind,
    format::meta::MetaRecord,
    journal::{PreparedWrite, WriteKind},
    sabotage::Switch,
    units::{SECTOR_BYTES, Sector, SectorRange, TimeNs, VolumeId, len_u64},
};
use std::sync::Arc;

/// How long the drain waits for a producer that reserved room and did not come back, nanoseconds.
pub(crate) const STALL_NS_MAX: u64 = 1_000_000_000;

/// A captured write that has left the pool and could not be appended yet.
#[derive(Debug)]
struct Held {
    write: Write,
    order: u64,
    data: Vec<u8>,
}

impl Held {
    fn of(taken: &Taken<'_>) -> Self {
        Self {
            write: taken.write(),
            order: taken.position().order,
            data: taken.parts().collect::<Vec<_>>().concat(),
        }
    }
}

/// How far a drain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// All that is complete now, without waiting.
    Complete,
    /// All frames up to this one, waiting for producers that are at it.
    Behind(u64),
}

/// What the drain has found out so far.
#[derive(Debug, Default)]
pub(crate) struct DrainState {
    /// When a producer was first seen to be late, by the clock of the host.
    waiting_since: Option<TimeNs>,
    /// Whether the last drain failed.
    failing: bool,
    /// What the last drain could not append.
    held: Option<Held>,
}

impl Group {
    /// Takes over everything that was captured before this call. Nothing happens in a group without taps.
    ///
    /// # Errors
    /// Those of appending. What was not taken over stays in the pool, and every tap marks from then on.
    pub(super) fn drain_captured(&self, turn: &Turn<'_>) -> Result<()> {
        self.open_gaps_left_behind(turn)?;
        let Some(capture) = self.capture() else { return Ok(()) };
        let behind = capture.pool.boundary();
        self.drain(turn, &capture, Reach::Behind(behind))
    }

    /// Takes over everything up to a boundary of the pool, and nothing behind it.
    ///
    /// # Errors
    /// As [`Group::drain_captured`].
    pub(super) fn drain_behind(&self, turn: &Turn<'_>, capture: &Capture, boundary: u64) -> Result<()> {
        self.drain(turn, capture, Reach::Behind(boundary))
    }

    /// Opens the gaps of volumes whose tap ended without a clean end, before anything else takes its place on the timeline: their
    /// sources may be ahead of the store.
    fn open_gaps_left_behind(&self, turn: &Turn<'_>) -> Result<()> {
        loop {
            let first = self.left_behind.lock().first().copied();
            let Some(volume) = first else { return Ok(()) };
            let time = self.append.lock().newest_time;
            self.open_gap(turn, volume, time, GapReason::Unclean, &[])?;
            self.left_behind.lock().retain(|other| *other != volume);
        }
    }

    /// Takes over what is complete, without waiting for anybody. Returns whether there was anything.
    ///
    /// # Errors
    /// As [`Group::drain_captured`].
    pub fn drain_complete(&self) -> Result<bool> {
        let Some(capture) = self.capture() else { return Ok(false) };
        if capture.pool.is_idle() && !capture.has_wishes() && !self.drain_state.lock().failing {
            return Ok(false);
        }
        let turn = self.take_turn();
        self.drain(&turn, &capture, Reach::Complete)?;
        Ok(true)
    }

    pub(super) fn drain(&self, turn: &Turn<'_>, capture: &Capture, reach: Reach) -> Result<()> {
        let outcome = self.drain_until(turn, capture, reach);
        if let Err(error) = &outcome {
            if matches!(error, Error::OverBound { .. }) && !self.is_stopped() {
                // Room can be made; who drains sees to it, and the pool holds what comes meanwhile.
                return outcome;
            }
            let time = self.append.lock().newest_time;
            capture.degrade_all(time, GapReason::StoreFailure);
            if !std::mem::replace(&mut self.drain_state.lock().failing, true) {
                self.events.push(self.shared.clock.now(), EventKind::StoreFailed(error.to_string()));
            }
        } else if std::mem::take(&mut self.drain_state.lock().failing) {
            self.events.push(self.shared.clock.now(), EventKind::StoreRecovered);
        }
        outcome
    }

    fn drain_until(&self, turn: &Turn<'_>, capture: &Capture, reach: Reach) -> Result<()> {
        let late = self.shared.sabotage.on(Switch::GapAtNewest);
        self.append_held(turn, capture)?;
        let mut consumer = loop {
            // With the turn held, only a short look at whether the pool is idle can be in the way.
            match capture.pool.consumer() {
                Some(consumer) => break consumer,
                None => std::thread::yield_now(),
            }
        };
        loop {
            let order = consumer.order();
            self.open_gaps(turn, capture, |wish| wish.behind < order && !late)?;
            if matches!(reach, Reach::Behind(behind) if order > behind) {
                self.open_gaps(turn, capture, |_| late)?;
                return Ok(());
            }
            match consumer.next() {
                Next::Item(taken) => {
                    let outcome = self.take_over(turn, capture, &taken);
                    if let Err(error) = outcome {
                        // It has left the pool: it is kept until the store takes it.
                        self.drain_state.lock().held = Some(Held::of(&taken));
                        return Err(error);
                    }
                    self.drain_state.lock().waiting_since = None;
                    continue;
                }
                Next::Waiting(_) => {}
                // A boundary seals the newest frame, and the next producer pays for a new one: not without need.
                Next::Empty if !capture.has_wishes() => return Ok(()),
                Next::Empty => {
                    // Whatever was wished for until now lies behind everything that was there.
                    let behind = capture.pool.boundary();
                    return self.open_gaps(turn, capture, |wish| wish.behind <= behind && order > behind);
                }
            }
            if self.is_stalled() {
                self.drain_state.lock().waiting_since = None;
                self.give_up(capture, consumer.set_aside());
            } else if reach == Reach::Complete {
                return Ok(());
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Appends a write that was taken from the pool, behind the gaps that belong before it.
    fn take_over(&self, turn: &Turn<'_>, capture: &Capture, taken: &Taken<'_>) -> Result<()> {
        // A wish that was placed before this write was begun is seen here, since the write is seen.
        let order = taken.position().order;
        let late = self.shared.sabotage.on(Switch::GapAtNewest);
        self.open_gaps(turn, capture, |wish| wish.behind < order && !late)?;
        let joined;
        let mut parts = taken.parts();
        let first = parts.next().unwrap_or(&[]);
        let data = match parts.next() {
            None => first,
            Some(second) => {
                joined = [first, second].into_iter().chain(parts).collect::<Vec<_>>().concat();
                &joined
            }
        };
        self.append_or_mark(turn, capture, order, taken.write(), data)
    }

    /// Appends a captured write; where the bound by space forbids it, its tap marks it, and the gap opens in its place.
    fn append_or_mark(
        &self,
        turn: &Turn<'_>,
        capture: &Capture,
        order: u64,
        write: Write,
        data: &[u8],
    ) -> Result<()> {
        let outcome = self.append_captured(turn, write, data);
        let is_forbidden = matches!(outcome, Err(Error::OverBound { .. })) && self.is_stopped();
        if !is_forbidden {
            return outcome;
        }
        let taps = capture.taps();
        let tap = taps.iter().find(|tap| u32::from(tap.volume().get()) == write.volume);
        let Some(tap) = tap else { return outcome };
        let (range, reason) = (ByteRange::new(write.offset, write.length), GapReason::Shortage);
        tap.mark(range, write.time, reason, &capture.wishes, || order.saturating_sub(1));
        if tap.gap_is_open() {
            return Ok(());
        }
        let time = self.append.lock().newest_time;
        self.open_gap(turn, tap.volume(), time, reason, &[])?;
        tap.gap_opened(&capture.wishes);
        Ok(())
    }

    /// Bytes, and time as it was given, of the captured write that could not be appended yet.
    pub(super) fn held_back(&self) -> Option<(TimeNs, u64)> {
        let state = self.drain_state.lock();
        state.held.as_ref().map(|held| (held.write.time, len_u64(held.data.len())))
    }

    /// Appends the write that an earlier drain could not.
    fn append_held(&self, turn: &Turn<'_>, capture: &Capture) -> Result<()> {
        let Some(held) = self.drain_state.lock().held.take() else { return Ok(()) };
        let outcome = self
            .open_gaps(turn, capture, |wish| wish.behind < held.order)
            .and_then(|()| self.append_or_mark(turn, capture, held.order, held.write, &held.data));
        if outcome.is_err() {
            self.drain_state.lock().held = Some(held);
        }
        outcome
    }

    fn is_stalled(&self) -> bool {
        let now = self.shared.clock.now();
        let mut state = self.drain_state.lock();
        let since = *state.waiting_since.get_or_insert(now);
        now.get().abs_diff(since.get()) >= STALL_NS_MAX
    }

    /// Goes on without a producer that is late: what it may have written is marked.
    fn give_up(&self, capture: &Capture, late: SetAside) {
        let newest = self.append.lock().newest_time;
        let taps = capture.taps();
        let boundary = || capture.pool.boundary();
        match late {
            SetAside::Nothing => return,
            SetAside::Described(write) => {
                let range = ByteRange::new(write.offset, write.length);
                for tap in taps.iter().filter(|tap| u32::from(tap.volume().get()) == write.volume) {
                    tap.mark(range, newest, GapReason::Stalled, &capture.wishes, boundary);
                }
            }
            // It had not even said what it writes: it may be anything.
            SetAside::Unknown => {
                for tap in taps.iter() {
                    tap.degrade(newest, GapReason::Stalled, &capture.wishes, capture.pool.boundary());
                    tap.map().set_all();
                }
            }
        }
        self.events.push(self.shared.clock.now(), EventKind::ProducerStalled);
    }

    fn append_captured(&self, turn: &Turn<'_>, write: Write, data: &[u8]) -> Result<()> {
        let volume = VolumeId::new(u16::try_from(write.volume).expect("taps number volumes by their ids"));
        let range = SectorRange {
            start: Sector::new(write.offset / SECTOR_BYTES),
            sectors: write.length / SECTOR_BYTES,
        };
        let prepared = match write.kind {
            Kind::Data => PreparedWrite::data(volume, range, data, self.shared.key),
            Kind::Zero => PreparedWrite::range(volume, range, WriteKind::Zero),
            Kind::Discard => PreparedWrite::range(volume, range, WriteKind::Discard),
        };
        self.arrivals.take(self.arrivals.of(write.time));
        let appended = self.append_in_turn(turn, &prepared, Stamp::Captured(write.time), SeqRule::Next);
        self.arrivals.taken();
        appended.map(|_| ())
    }

    /// Opens the gaps that taps wish for.
    fn open_gaps(&self, turn: &Turn<'_>, capture: &Capture, due: impl Fn(&Wish) -> bool) -> Result<()> {
        if !capture.has_wishes() {
            return Ok(());
        }
        let taps = capture.taps();
        let mut wishes: Vec<(Wish, &Arc<TapState>)> =
            taps.iter().filter_map(|tap| Some((tap.wished().filter(&due)?, tap))).collect();
        // The earliest first: times never fall along the timeline, so a gap behind a later one would begin at the time of that.
        wishes.sort_by_key(|(wish, _)| wish.time);
        for (wish, tap) in wishes {
            if tap.gap_is_open() {
                tap.drop_wish(&capture.wishes);
            } else {
                self.open_gap(turn, tap.volume(), wish.time, wish.reason, &[])?;
                tap.gap_opened(&capture.wishes);
            }
        }
        Ok(())
    }

    /// Opens a gap on the timeline of a volume, with further records in the same step. Not yet durable.
    pub(super) fn open_gap(
        &self,
        turn: &Turn<'_>,
        volume: VolumeId,
        time: TimeNs,
        reason: GapReason,
        more: &[MetaRecord],
    ) -> Result<SeqTime> {
        let (at, _) = self.append_marked(turn, volume, time, |at| {
            std::iter::once(MetaRecord::GapOpened { volume, at, reason })
                .chain(more.iter().cloned())
                .collect()
        })?;
        let volume = self.name_of(volume);
        self.events.push(self.shared.clock.now(), EventKind::GapOpened { volume, at, reason });
        Ok(at)
    }

    pub(super) fn name_of(&self, volume: VolumeId) -> String {
        self.catalog.read().volume(volume).map_or_else(|| volume.to_string(), |info| info.name.clone())
    }

    /// Ends the gap of a tap if nothing is dirty any more: a seq of its own that is exact again, and a system bookmark that names it,
    /// durable when this returns true.
    ///
    /// # Errors
    /// Those of appending; the gap stays open.
    pub fn close_gap(&self, tap: &Arc<TapState>) -> Result<bool> {
        let Some(capture) = self.capture() else { return Ok(false) };
        let frame = {
            let turn = self.take_turn();
            if !self.shared.sabotage.on(Switch::CloseGapUndrained) {
                self.drain(&turn, &capture, Reach::Behind(capture.pool.boundary()))?;
            }
            let volume = tap.volume();
            let opened =
                self.catalog.read().gaps(volume).and_then(|gaps| gaps.open()).map(|gap| gap.opened.seq);
            if !tap.finish() {
                return Ok(false);
            }
            let Some(opened) = opened else { return Ok(true) };
            let name = self.name_of(volume);
            let time = tap.newest_marked();
            let closed = self.append_marked(&turn, volume, time, |at| {
                vec![
                    MetaRecord::GapClosed { volume, opened, at },
                    MetaRecord::BookmarkAdded(end_of_gap(&name, at)),
                ]
            });
            match closed {
                Ok((at, frame)) => {
                    self.events.push(self.shared.clock.now(), EventKind::GapClosed { volume: name, at });
                    frame
                }
                Err(error) => {
                    tap.reopen();
                    return Err(error);
                }
            }
        };
        self.seal_below(frame.next());
        self.wait_durable(frame.next())?;
        Ok(true)
    }

    /// The volumes of the group whose newest state is not exact. Called with the turn held.
    pub fn inexact_volumes(&self) -> Vec<String> {
        let catalog = self.catalog.read();
        let taps = self.capture().map(|capture| capture.taps()).unwrap_or_default();
        let in_gap = |volume: VolumeId| {
            let tap = taps.iter().find(|tap| tap.volume() == volume);
            catalog.gaps(volume).is_some_and(|gaps| gaps.open().is_some())
                || tap.is_some_and(|tap| tap.mode() != Mode::Data)
        };
        catalog.volumes().filter(|info| in_gap(info.id)).map(|info| info.name.clone()).collect()
    }
}

/// The bookmark at the end of a gap.
fn end_of_gap(volume: &str, at: SeqTime) -> Bookmark {
    // Names are bounded, and so the beginning of a volume's name will do; the seq makes it unique.
    let volume = &volume[..volume.len().min(64)];
    Bookmark {
        name: format!("gap-end.{volume}.{:020}", at.seq.get()),
        kind: BookmarkKind::System,
        app: None,
        comment: Some("captured whole again from here on".into()),
        seq: at.seq,
        time: at.time,
        locked: false,
        expires: None,
        inexact_volumes: Vec::new(),
        across: None,
    }
}
