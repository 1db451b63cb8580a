//! Steps that change content: writes, zeroes, discards, flushes, background work.

use super::{Outcome, START_NS, World};
use crate::{
    capture::Coalescing,
    error::Result,
    limits::WRITE_BYTES_MAX,
    store::Budget,
    testing::{
        content::{filled, pieces_of},
        image::Piece,
        mismatch::Mismatch,
        model::Written,
        op::{Fill, Place, When},
        stamp::Stamp,
    },
    units::{SECTOR_BYTES, Seq, TimeNs, len_u64, to_len},
};
use std::io::IoSlice;

impl World {
    /// The range of a place: volume, first sector, first sector behind it.
    pub(super) fn range(&self, place: Place, sectors_max: u64) -> (usize, u64, u64) {
        let volumes = self.model.volumes();
        let volume = to_len(place.volume % len_u64(volumes.len()));
        let sectors = volumes[volume].sectors();
        let start = place.sector % sectors;
        let length = place.sectors.min(sectors_max).min(sectors - start).max(1);
        (volume, start, start + length)
    }

    /// The time that a write gets: as given to the call, and as it must turn out.
    pub(super) fn time_of(&self, when: When) -> (Option<TimeNs>, TimeNs) {
        let newest = self.model.newest().time.get();
        match when {
            When::Clock => (None, TimeNs::new(self.now.max(newest))),
            When::After(later) => {
                let time = TimeNs::new(newest.max(START_NS) + later);
                (Some(time), time)
            }
        }
    }

    pub(super) fn write(&mut self, place: Place, fill: Fill, when: When, parts: u64) -> Result<(), Mismatch> {
        let (volume, start, end) = self.range(place, WRITE_BYTES_MAX / SECTOR_BYTES);
        let stamp = self.model.new_stamp();
        let pieces = pieces_of(start, end, fill, stamp);
        let tag = self.model.volumes()[volume].tag;
        let data = filled(tag, &pieces);
        let (given, time) = self.time_of(when);
        let handle = self.volume(volume)?;
        let offset = start * SECTOR_BYTES;
        let result = match given {
            Some(time) => handle.write_at_time(offset, &data, time),
            None if parts == 0 => handle.write(offset, &data),
            None => {
                let slices: Vec<IoSlice<'_>> =
                    data.chunks(to_len(parts * SECTOR_BYTES)).map(IoSlice::new).collect();
                handle.writev(offset, &slices)
            }
        };
        let call = format!("write of sectors {start}..{end} of volume {volume}");
        self.wrote(&call, result, Written { volume, pieces, time })
    }

    pub(super) fn write_range(&mut self, place: Place, when: When, discard: bool) -> Result<(), Mismatch> {
        let (volume, start, end) = self.range(place, u64::MAX);
        let (given, time) = self.time_of(when);
        let handle = self.volume(volume)?;
        let (offset, length) = (start * SECTOR_BYTES, (end - start) * SECTOR_BYTES);
        let result = if discard {
            handle.discard(offset, length, given)
        } else {
            handle.write_zeroes(offset, length, given)
        };
        let call = format!("zeroes (discard: {discard}) at sectors {start}..{end} of volume {volume}");
        let pieces = vec![Piece { start, end, stamp: Stamp::ZERO }];
        self.wrote(&call, result, Written { volume, pieces, time })
    }

    fn wrote(&mut self, call: &str, result: Result<Seq>, written: Written) -> Result<(), Mismatch> {
        match self.judge(call, result)? {
            Outcome::Done(seq) => {
                let expected = self.model.wrote(written);
                self.coverage.seqs += 1;
                if seq != expected {
                    return Err(Mismatch::new(call, format!("seq {expected}"), format!("seq {seq}")));
                }
                Ok(())
            }
            Outcome::Cut => {
                self.model.wrote_perhaps(written);
                Ok(())
            }
            Outcome::Failed => self.nothing_captured(call),
        }
    }

    /// After a write that failed the newest state is the one before it.
    pub(super) fn nothing_captured(&self, call: &str) -> Result<(), Mismatch> {
        let (newest, shown) = (self.model.newest().seq, self.store()?.newest().seq);
        // What waits for the end of its interval does not show yet.
        let waits = self.model.stretches().now() != Coalescing::PerWrite && shown < newest;
        if newest == shown || waits {
            return Ok(());
        }
        Err(Mismatch::new(
            format!("newest state after a failed {call}"),
            newest.to_string(),
            shown.to_string(),
        ))
    }

    pub(super) fn flush(&mut self, volume: Option<u64>) -> Result<(), Mismatch> {
        let result = match volume {
            Some(volume) => self.volume(to_len(volume % len_u64(self.model.volumes().len())))?.flush(),
            None => self.store()?.flush(),
        };
        match self.judge("flush", result)? {
            Outcome::Done(seq) => self.flushed(seq),
            _ => Ok(()),
        }
    }

    pub(super) fn flushed(&mut self, seq: Seq) -> Result<(), Mismatch> {
        let (newest, durable) = (self.model.newest().seq, self.store()?.durable_seq());
        self.model.acknowledge(seq);
        if seq != newest || durable != newest {
            let found = format!("seq {seq} flushed, {durable} durable");
            return Err(Mismatch::new("flush", format!("everything up to seq {newest}"), found));
        }
        self.model.barrier();
        Ok(())
    }

    pub(super) fn coalesce(&mut self, coalescing: Coalescing) -> Result<(), Mismatch> {
        let (before, store) = (self.model.stretches().now(), self.store()?);
        let result = store.set_coalescing(coalescing);
        match self.judge("set_coalescing", result)? {
            Outcome::Done(()) if before == coalescing => {}
            Outcome::Done(()) => {
                self.model.coalesces(coalescing, true);
                self.model.acknowledge(self.model.newest().seq);
                self.coverage.coalescings += 1;
            }
            Outcome::Cut => self.model.coalesces(coalescing, false),
            // When only its sync has failed, it holds for the writes to come.
            Outcome::Failed if store.coalescing() != before => self.model.coalesces(coalescing, false),
            Outcome::Failed => {}
        }
        Ok(())
    }

    /// Ends the interval that waits, as a read does, so that what follows needs no storage for it. False when that fails as it may.
    pub(super) fn settle(&mut self) -> Result<bool, Mismatch> {
        if self.model.stretches().now() == Coalescing::PerWrite {
            return Ok(true);
        }
        let mut sector = vec![0; to_len(SECTOR_BYTES)];
        let result = self.volume(0)?.read(0, &mut sector);
        Ok(matches!(self.judge("read of the first sector", result)?, Outcome::Done(())))
    }

    pub(super) fn volume(&self, index: usize) -> Result<crate::Volume, Mismatch> {
        let name = &self.model.volumes()[index].name;
        self.store()?.volume(Some(name)).map_err(Mismatch::failed(format!("volume({name})")))
    }

    pub(super) fn background(&mut self, count: u64) -> Result<(), Mismatch> {
        let store = self.store()?;
        for _ in 0..count {
            let result = store.step(Budget::default());
            if !matches!(self.judge("step", result)?, Outcome::Done(_)) {
                break;
            }
        }
        Ok(())
    }
}
