//! The order in which frames become durable: queued, being written, written, synced, released.
//!
//! Rules (design, "Order of writes"):
//! - A sync covers only frames whose write completed before it was issued.
//! - *Durable* is the longest unbroken prefix by frame number of which every frame is synced, across segments. Only then
//!   buffers are released and flushes acknowledged.
//! - After a failed write or sync nothing more is handed out for any segment until the frames that are not durable have been
//!   taken back ([`Commit::take_back`]) and pushed again for another segment.

use super::SealedFrame;
use crate::{
    sabotage::{Sabotage, Switch},
    units::{ExtentId, FrameNo, Seq, len_u64},
};
use std::{collections::VecDeque, sync::Arc};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameState {
    Queued,
    Writing,
    Written,
    Syncing,
    Synced,
}

struct InFlight {
    frame: Arc<SealedFrame>,
    state: FrameState,
}

/// A sync that was issued for a segment.
#[derive(Debug)]
#[must_use]
pub struct SyncTicket {
    /// The segment to sync.
    pub segment: ExtentId,
    frames: Vec<FrameNo>,
}

/// What waits to become durable, and how far it has come.
pub struct Commit {
    frames: VecDeque<InFlight>,
    durable_frame: FrameNo,
    durable_seq: Seq,
    failed: bool,
    busy: usize,
    syncing: bool,
    sabotage: Sabotage,
}

impl Commit {
    /// Nothing in flight; everything below `next_frame` is durable.
    pub fn new(next_frame: FrameNo, durable_seq: Seq, sabotage: Sabotage) -> Self {
        Self {
            frames: VecDeque::new(),
            durable_frame: next_frame,
            durable_seq,
            failed: false,
            busy: 0,
            syncing: false,
            sabotage,
        }
    }

    /// Takes a sealed frame. Frames come in the order of their numbers.
    pub fn push(&mut self, frame: Arc<SealedFrame>) {
        let expected = self.durable_frame.get() + len_u64(self.frames.len());
        assert_eq!(frame.header.frame.get(), expected, "frames come in order");
        self.frames.push_back(InFlight { frame, state: FrameState::Queued });
    }

    /// The next frame to write; the caller writes it and answers with [`Commit::written`] or [`Commit::failed`].
    pub fn next_write(&mut self) -> Option<Arc<SealedFrame>> {
        if self.failed {
            return None;
        }
        let next = self.frames.iter_mut().find(|frame| frame.state == FrameState::Queued)?;
        next.state = FrameState::Writing;
        self.busy += 1;
        Some(next.frame.clone())
    }

    /// A write has completed.
    pub fn written(&mut self, frame: FrameNo) {
        self.busy -= 1;
        let slot = self.slot(frame);
        assert_eq!(slot.state, FrameState::Writing);
        slot.state = FrameState::Written;
    }

    /// The next sync, of the first segment that has written frames; one at a time. The caller syncs and answers with
    /// [`Commit::synced`] or [`Commit::sync_failed`].
    pub fn next_sync(&mut self) -> Option<SyncTicket> {
        if self.failed || self.syncing {
            return None;
        }
        let segment = self.frames.iter().find(|f| f.state == FrameState::Written)?.frame.header.segment;
        let mut frames = Vec::new();
        for slot in &mut self.frames {
            if slot.state == FrameState::Written && slot.frame.header.segment == segment {
                slot.state = FrameState::Syncing;
                frames.push(slot.frame.header.frame);
            }
        }
        self.syncing = true;
        self.busy += 1;
        Some(SyncTicket { segment, frames })
    }

    /// A sync has completed. Returns the frames that are durable now, to be released.
    pub fn synced(&mut self, ticket: SyncTicket) -> Vec<Arc<SealedFrame>> {
        self.busy -= 1;
        self.syncing = false;
        for frame in ticket.frames {
            let slot = self.slot(frame);
            assert_eq!(slot.state, FrameState::Syncing);
            slot.state = FrameState::Synced;
        }
        let mut released = Vec::new();
        let holes_allowed = self.sabotage.on(Switch::DurableAcrossHoles)
            && self.frames.iter().any(|f| f.state == FrameState::Synced);
        while let Some(front) = self.frames.front()
            && (front.state == FrameState::Synced || (holes_allowed && self.any_synced()))
        {
            let slot = self.frames.pop_front().expect("there is a front");
            self.durable_frame = slot.frame.header.frame.next();
            self.durable_seq = slot.frame.header.last_seq;
            released.push(slot.frame);
        }
        released
    }

    fn any_synced(&self) -> bool {
        self.frames.iter().any(|f| f.state == FrameState::Synced)
    }

    /// A write has failed.
    pub fn failed(&mut self, frame: FrameNo) {
        self.busy -= 1;
        self.failed = true;
        self.slot(frame).state = FrameState::Queued;
    }

    /// A sync has failed: nothing is known about the frames it covered.
    pub fn sync_failed(&mut self, ticket: SyncTicket) {
        self.busy -= 1;
        self.syncing = false;
        self.failed = true;
        for frame in ticket.frames {
            self.slot(frame).state = FrameState::Queued;
        }
    }

    fn slot(&mut self, frame: FrameNo) -> &mut InFlight {
        let index = frame.get().checked_sub(self.durable_frame.get()).and_then(|i| usize::try_from(i).ok());
        index.and_then(|index| self.frames.get_mut(index)).expect("answers name frames in flight")
    }

    /// Whether a write or sync has failed since the last [`Commit::take_back`].
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// Whether no write or sync is being carried out.
    pub fn is_quiet(&self) -> bool {
        self.busy == 0
    }

    /// After a failure, once quiet: takes all frames that are not durable back, in order. They are pushed again after they
    /// have been put elsewhere.
    pub fn take_back(&mut self) -> Vec<Arc<SealedFrame>> {
        assert!(self.busy == 0, "frames are taken back when nothing is in flight");
        self.failed = false;
        self.frames.drain(..).map(|slot| slot.frame).collect()
    }

    /// The frames that are not durable yet, in order.
    pub fn frames(&self) -> impl Iterator<Item = &Arc<SealedFrame>> {
        self.frames.iter().map(|slot| &slot.frame)
    }

    /// Number of frames in flight.
    pub fn in_flight(&self) -> usize {
        self.frames.len()
    }

    /// Frames that are written, or synced behind a hole, and wait for a sync to be released.
    pub fn unsynced(&self) -> usize {
        self.frames.iter().filter(|slot| slot.state == FrameState::Written).count()
    }

    /// Whether every frame below `frame` has left the queue and its write is complete.
    pub fn all_written_below(&self, frame: FrameNo) -> bool {
        let mut below = self.frames.iter().take_while(|slot| slot.frame.header.frame < frame);
        below.all(|slot| !matches!(slot.state, FrameState::Queued | FrameState::Writing))
    }

    /// Every frame below this number is durable.
    pub fn durable_frame(&self) -> FrameNo {
        self.durable_frame
    }

    /// Everything up to this seq is durable.
    pub fn durable_seq(&self) -> Seq {
        self.durable_seq
    }
}
