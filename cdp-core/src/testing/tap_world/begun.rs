//! Writes that the host begins before it submits them, that overlap, or whose producer stops in the middle.

use super::{
    host::{Host, Outcome, bytes_of},
    op::Handover,
};
use crate::{
    InFlight, Written,
    dirty_map::ByteRange,
    event::EventKind,
    store::HalfCaptured,
    testing::{mismatch::Mismatch, op::Place},
    units::{TimeNs, to_len},
};
use std::{ops::Range, sync::atomic::Ordering};

impl Host {
    /// Begins a write, where that is done. `None`: the write must not be submitted.
    pub fn begin(
        &mut self,
        volume: usize,
        range: &Range<usize>,
    ) -> Result<Option<Option<InFlight>>, Mismatch> {
        let Some(tap) = self.watches[volume].tap.clone() else { return Ok(Some(None)) };
        let logged = self.watches[volume].logged;
        if !(logged || self.config.begins) {
            return Ok(Some(None));
        }
        if self.rng.chance(0.03) {
            self.coverage.bypassed += u64::from(logged);
            self.watches[volume].bypassed = true;
            self.watches[volume].touched = None;
            return Ok(Some(None));
        }
        let (offset, bytes) = bytes_of(range);
        if let Some((log, _)) = self.config.log
            && let Some(touched) = &mut self.watches[volume].touched
        {
            let start = offset / log.region_bytes * log.region_bytes;
            let end = (offset + bytes).next_multiple_of(log.region_bytes);
            touched.push(ByteRange::new(start, end - start));
            if bytes > log.region_bytes {
                // It may be too long for the log.
                self.watches[volume].touched = None;
            }
        }
        let result = tap.capture_begin(offset, bytes);
        self.carry_out_syncs();
        let Outcome::Done(token) = self.judge("capture_begin", result)? else { return Ok(None) };
        self.coverage.begun += 1;
        Ok(Some(Some(token)))
    }

    /// Two writes that overlap in flight.
    pub(super) fn pair(&mut self, place: Place, sectors: u64, swapped: bool) -> Result<(), Mismatch> {
        let (volume, first) = self.range(place);
        let within = first.start + first.len() / 2;
        let end = (within + to_len(sectors.max(1))).min(self.disks[volume].sectors());
        let second = within..end;
        if self.watches[volume].tap.is_none() || !(self.config.begins || self.watches[volume].logged) {
            return Ok(());
        }
        let mut tokens = Vec::new();
        for range in [&first, &second] {
            match self.begin(volume, range)? {
                Some(Some(token)) => tokens.push(token),
                // Not both: nothing is submitted.
                _ => {
                    tokens.into_iter().for_each(InFlight::cancel);
                    return Ok(());
                }
            }
        }
        // The content of the first is lost where the second covers it; it is handed over nevertheless.
        self.complete(volume, first.clone(), Handover::Copied)?;
        let (offset, bytes) = bytes_of(&first);
        let mut data = vec![0; to_len(bytes)];
        self.disks[volume].read_source(offset, &mut data);
        self.complete(volume, second.clone(), Handover::Copied)?;
        let now = self.now;
        self.disks[volume].acknowledged_at(2, now);
        let mut ends: Vec<(InFlight, Range<usize>, Option<Vec<u8>>)> = tokens
            .into_iter()
            .zip([(first, Some(data)), (second, None)])
            .map(|(t, (r, d))| (t, r, d))
            .collect();
        if swapped {
            ends.reverse();
        }
        self.coverage.overlapped += 1;
        for (token, range, data) in ends {
            match data {
                Some(data) => {
                    let captured = token.end(Written::Data(&data), None);
                    let captured = captured.map_err(Mismatch::failed("the end of a write"))?;
                    self.was_captured(volume, range, captured);
                }
                None => self.hand_over(volume, range, Handover::Copied, Some(token))?,
            }
        }
        Ok(())
    }

    /// A write that is complete on the source is begun to be handed over.
    pub fn stop_halfway(
        &mut self,
        volume: usize,
        range: &Range<usize>,
        described: bool,
    ) -> Result<Option<(HalfCaptured, Vec<u8>)>, Mismatch> {
        let Some(tap) = self.watches[volume].tap.clone() else { return Ok(None) };
        let (offset, bytes) = bytes_of(range);
        let mut data = vec![0; to_len(bytes)];
        self.disks[volume].read_source(offset, &mut data);
        let halfway = tap.capture_halfway(offset, bytes, described, TimeNs::new(self.now));
        let halfway = halfway.map_err(Mismatch::failed("the beginning of a capture"))?;
        // Until it goes on, what it has written is neither captured nor marked, and not acknowledged.
        self.disks[volume].whole[range.clone()].fill(true);
        Ok(Some((halfway, data)))
    }

    /// It is handed over after all.
    pub fn go_on(&mut self, volume: usize, range: Range<usize>, halfway: Option<(HalfCaptured, Vec<u8>)>) {
        if let Some((halfway, data)) = halfway {
            let captured = halfway.go_on(&data);
            self.was_captured(volume, range, captured);
        }
    }

    /// Syncs of sources that came in the middle of a call take effect.
    pub fn carry_out_syncs(&mut self) {
        for (watch, disk) in self.watches.iter().zip(&mut self.disks) {
            if watch.syncs.wanted.swap(false, Ordering::SeqCst) {
                disk.flush_source();
            }
        }
    }

    /// What the store has told.
    pub fn poll_events(&mut self) {
        let Some(store) = &self.store else { return };
        for event in store.take_events().0 {
            if let EventKind::LogBypassed { volume } = event.kind {
                let known = self.disks.iter().position(|disk| disk.name == volume);
                known.into_iter().for_each(|volume| self.watches[volume].bypassed = false);
            }
        }
    }
}
