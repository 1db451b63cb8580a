//! The order in which frames become durable, with writes and syncs that overtake each other.
//!
//! A simulated history runs in one thread, where a sync never completes before an earlier write of another segment. Threads can
//! do that; so the state machine ([`Commit`]) is driven here with answers in random order and compared with the slow,
//! obvious rule: durable is the longest unbroken row of frames whose write had completed before a sync of their segment
//! was issued that succeeded.

use super::{
    mismatch::Mismatch,
    simulate::{Cause, guarded},
};
use crate::{
    io::{AlignedBuf, simulated::SimRng},
    journal::{Commit, FrameContext, OpenFrame, PreparedWrite, SealedFrame, SyncTicket, WriteKind},
    limits::FRAME_BYTES_MAX,
    sabotage::Sabotage,
    units::{
        ExtentId, FrameNo, Lineage, OwnerEpoch, Sector, SectorRange, Seq, TimeNs, VolumeId, len_u64, to_len,
    },
};
use std::{collections::BTreeMap, sync::Arc};

/// Events in one run.
const EVENTS: usize = 200;
/// Frames that wait at most.
const FRAMES_MAX: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waiting,
    Written,
    Synced,
}

struct Row {
    rng: SimRng,
    commit: Commit,
    next: FrameNo,
    segment: ExtentId,
    /// What is known of each frame that was pushed and is not yet in the durable row.
    fates: BTreeMap<FrameNo, (ExtentId, Fate)>,
    writing: Vec<Arc<SealedFrame>>,
    /// Syncs under way, with the frames that were written when they were issued.
    syncing: Vec<(SyncTicket, Vec<FrameNo>)>,
}

/// Drives the state machine through one random order of answers.
///
/// # Errors
/// When it calls something durable that is not, or does not call durable what is.
pub fn run_seed(seed: u64, sabotage: Sabotage) -> Result<(), Cause> {
    guarded(|| {
        let mut row = Row {
            rng: SimRng::new(seed),
            commit: Commit::new(FrameNo::ZERO, Seq::ZERO, sabotage),
            next: FrameNo::ZERO,
            segment: ExtentId::new(1),
            fates: BTreeMap::new(),
            writing: Vec::new(),
            syncing: Vec::new(),
        };
        for _ in 0..EVENTS {
            row.event()?;
            row.check()?;
        }
        Ok(())
    })
}

impl Row {
    fn event(&mut self) -> Result<(), Mismatch> {
        match self.rng.below(20) {
            0..4 if self.commit.in_flight() < FRAMES_MAX => self.push()?,
            4 => self.segment = self.segment.next(),
            5..10 => self.writing.extend(self.commit.next_write()),
            10..13 => {
                if let Some(ticket) = self.commit.next_sync() {
                    let covered = |(no, (segment, fate)): (&FrameNo, &(ExtentId, Fate))| {
                        (*segment == ticket.segment && *fate == Fate::Written).then_some(*no)
                    };
                    let frames = self.fates.iter().filter_map(covered).collect();
                    self.syncing.push((ticket, frames));
                }
            }
            13..17 => self.answer_write(),
            17..19 => self.answer_sync(),
            _ => self.repair()?,
        }
        Ok(())
    }

    /// One of the answers that are due, if any.
    fn pick(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| to_len(self.rng.below(len_u64(count))))
    }

    fn push(&mut self) -> Result<(), Mismatch> {
        let frame = frame(self.next, self.segment)?;
        self.fates.insert(self.next, (self.segment, Fate::Waiting));
        self.next = self.next.next();
        self.commit.push(frame);
        Ok(())
    }

    fn answer_write(&mut self) {
        let Some(index) = self.pick(self.writing.len()) else { return };
        let no = self.writing.swap_remove(index).header.frame;
        if self.rng.chance(0.05) {
            self.commit.failed(no);
        } else {
            self.commit.written(no);
            self.set(no, Fate::Written);
        }
    }

    fn answer_sync(&mut self) {
        let Some(index) = self.pick(self.syncing.len()) else { return };
        let (ticket, frames) = self.syncing.swap_remove(index);
        if self.rng.chance(0.05) {
            self.commit.sync_failed(ticket);
            frames.into_iter().for_each(|no| self.set(no, Fate::Waiting));
        } else {
            self.commit.synced(ticket);
            frames.into_iter().for_each(|no| self.set(no, Fate::Synced));
        }
    }

    fn set(&mut self, no: FrameNo, fate: Fate) {
        if let Some(entry) = self.fates.get_mut(&no) {
            entry.1 = fate;
        }
    }

    /// After a failure all frames that are not durable go to another segment.
    fn repair(&mut self) -> Result<(), Mismatch> {
        if !self.commit.is_failed() || !self.commit.is_quiet() {
            return Ok(());
        }
        self.segment = self.segment.next();
        for old in self.commit.take_back() {
            let no = old.header.frame;
            self.fates.insert(no, (self.segment, Fate::Waiting));
            self.commit.push(frame(no, self.segment)?);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Mismatch> {
        while self.fates.first_key_value().is_some_and(|(_, (_, fate))| *fate == Fate::Synced) {
            self.fates.pop_first();
        }
        let expected = self.fates.first_key_value().map_or(self.next, |(no, _)| *no);
        let found = (self.commit.durable_frame(), self.commit.durable_seq());
        // Each frame holds one write, so seqs count like frames.
        if found == (expected, Seq::new(expected.get())) {
            return Ok(());
        }
        Err(Mismatch::new("durable frame and seq", format!("both {expected}"), format!("{found:?}")))
    }
}

/// A frame with one write of zeroes.
fn frame(frame: FrameNo, segment: ExtentId) -> Result<Arc<SealedFrame>, Mismatch> {
    let buffer = AlignedBuf::new(FRAME_BYTES_MAX)
        .map_err(|error| Mismatch::new("a buffer", "allocated", error.to_string()))?;
    let context = FrameContext {
        store: 1,
        segment,
        segment_uuid: 2,
        offset: 4096,
        frame,
        lineage: Lineage::ZERO,
        owner_epoch: OwnerEpoch::ZERO,
        previous_crc: 0,
    };
    let mut open = OpenFrame::new(context, Seq::new(frame.get()), buffer);
    let range = SectorRange { start: Sector::ZERO, sectors: 8 };
    let write = PreparedWrite::range(VolumeId::ZERO, range, WriteKind::Zero);
    for part in write.parts() {
        open.push(part, Seq::new(frame.get() + 1), TimeNs::ZERO);
    }
    Ok(Arc::new(open.seal(TimeNs::ZERO, FrameNo::ZERO, 0)))
}
