//! Carrying out the commit: whoever needs it (a flush, a full pool, a runner's thread, a step) does the next write or sync, or waits
//! for the thread that is at it.

use super::Group;
use crate::{
    error::{Error, Result},
    journal::{Commit, SyncTicket},
    sabotage::Switch,
    units::{FrameNo, len_u64},
};
use std::{sync::atomic::Ordering, time::Duration};

/// Longest wait before looking again; answers wake waiters, this only bounds the harm of a lost wake-up.
const WAIT: Duration = Duration::from_millis(100);

impl Group {
    /// Waits, working, until every frame below `frame` is durable.
    pub(super) fn wait_durable(&self, frame: FrameNo) -> Result<()> {
        loop {
            let may_sync = {
                let commit = self.commit.lock();
                if commit.durable_frame() >= frame {
                    return Ok(());
                }
                let written = commit.all_written_below(frame);
                if written && self.shared.sabotage.on(Switch::AcknowledgeBeforeSync) {
                    return Ok(());
                }
                written
            };
            self.drive_commit(may_sync)?;
        }
    }

    /// Does one piece of commit work, or waits for a piece that another thread does. The caller does not hold the turn.
    ///
    /// # Errors
    /// When frames could not be saved from a failed segment; they stay in memory and the next call tries again.
    fn drive_commit(&self, may_sync: bool) -> Result<()> {
        self.check_writable()?;
        if self.commit_piece(may_sync) {
            return Ok(());
        }
        let mut commit = self.commit.lock();
        if commit.is_failed() && commit.is_quiet() {
            drop(commit);
            return self.try_relocate();
        }
        if !commit.is_quiet() {
            self.commit_changed.wait_for(&mut commit, WAIT);
        }
        Ok(())
    }

    /// Works until `enough` holds of a commit that has not failed, or waits for those who work. The caller holds the turn, so everybody who
    /// writes waits meanwhile: whether there is something to wait for is seen under the lock under which it is waited for.
    ///
    /// # Errors
    /// When frames could not be saved from a failed segment; they stay in memory and the next call tries again.
    pub(super) fn commit_until(&self, enough: impl Fn(&Commit) -> bool) -> Result<()> {
        loop {
            let mut commit = self.commit.lock();
            if !commit.is_failed() && enough(&commit) {
                return Ok(());
            }
            self.check_writable()?;
            // An appender leaves the work to the runner's threads while they are at it.
            let has_runner = self.runners.load(Ordering::Relaxed) > 0;
            if has_runner
                && !commit.is_quiet()
                && !self.commit_changed.wait_for(&mut commit, WAIT).timed_out()
            {
                continue;
            }
            drop(commit);
            if self.commit_piece(true) {
                continue;
            }
            let mut commit = self.commit.lock();
            if commit.is_failed() && commit.is_quiet() {
                drop(commit);
                self.relocate()?;
            } else if !commit.is_quiet() {
                self.commit_changed.wait_for(&mut commit, WAIT);
            }
        }
    }

    /// Does one write or sync if there is one to do. Failures are noted, not returned.
    pub fn commit_piece(&self, may_sync: bool) -> bool {
        self.write_piece() || (may_sync && self.sync_piece())
    }

    /// Writes one frame if there is one to write.
    pub fn write_piece(&self) -> bool {
        let Some(frame) = self.commit.lock().next_write() else { return false };
        let outcome = self.shared.handle(frame.header.segment).and_then(|handle| {
            let written = handle.write_at(frame.header.offset, frame.bytes());
            written.map_err(|error| Error::io("write", "a frame", error))
        });
        let bytes = len_u64(frame.bytes().len());
        self.totals.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.totals.frame_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut commit = self.commit.lock();
        match outcome {
            Ok(()) => commit.written(frame.header.frame),
            Err(_) => commit.failed(frame.header.frame),
        }
        drop(commit);
        self.commit_changed.notify_all();
        true
    }

    /// Syncs what is written, if anything is and no other sync is under way.
    pub fn sync_piece(&self) -> bool {
        let Some(ticket) = self.commit.lock().next_sync() else { return false };
        self.carry_out(ticket);
        true
    }

    fn carry_out(&self, ticket: SyncTicket) {
        let outcome = self
            .shared
            .handle(ticket.segment)
            .and_then(|handle| handle.sync().map_err(|error| Error::io("sync", "a segment", error)));
        let mut commit = self.commit.lock();
        let released = match outcome {
            Ok(()) => commit.synced(ticket),
            Err(_) => {
                commit.sync_failed(ticket);
                Vec::new()
            }
        };
        self.durable_frame.store(commit.durable_frame().get(), Ordering::Release);
        self.durable_seq.store(commit.durable_seq().get(), Ordering::Release);
        drop(commit);
        self.commit_changed.notify_all();
        if !released.is_empty() {
            let mut flight = self.flight.write();
            for frame in &released {
                flight.remove(&(frame.header.segment, frame.first_sector()));
            }
        }
    }

    /// Every frame below this one is durable.
    pub fn durable_frame(&self) -> FrameNo {
        FrameNo::new(self.durable_frame.load(Ordering::Acquire))
    }

    /// Frames written that wait for a sync.
    pub fn unsynced_frames(&self) -> usize {
        self.commit.lock().unsynced()
    }

    /// Waits until there is commit work, for a runner's thread.
    pub fn wait_for_commit_work(&self, timeout: Duration) {
        let mut commit = self.commit.lock();
        self.commit_changed.wait_for(&mut commit, timeout);
    }

    /// Whether a failure waits to be repaired.
    pub fn needs_relocation(&self) -> bool {
        let commit = self.commit.lock();
        commit.is_failed() && commit.is_quiet()
    }

    /// Tries to save frames from a failed segment.
    pub fn try_relocate(&self) -> Result<()> {
        let _turn = self.turn.lock();
        self.relocate()
    }
}

/// Figures for statistics.
impl Group {
    /// Bytes that the source wrote to segments that are not sealed.
    pub fn unsealed_source_bytes(&self) -> u64 {
        let current = self.append.lock().current.as_ref().map_or(0, |current| current.source_bytes);
        current + self.frozen.lock().iter().map(|frozen| frozen.source_bytes).sum::<u64>()
    }
}
