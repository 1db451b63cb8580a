//! What becomes of a piece that the source has answered: what differs of it is appended under the seq that was taken before it was asked for.

use super::{Alone, Fetched, InFlight, Reading, Resync, Step};
use crate::{
    capture::Capture,
    dirty_map::{ByteRange, InResync},
    error::Result,
    group::{Content, Group},
    journal::{PreparedWrite, WriteKind},
    sabotage::Switch,
    units::{BLOCK_BYTES, SECTOR_BYTES, Sector, SectorRange, Seq, len_u64, to_len},
};
use std::mem;

impl Resync {
    /// Takes over what differs of a piece.
    pub(super) fn compare(&mut self, group: &Group, capture: &Capture, reading: Reading) -> Result<Step> {
        let Reading { tokens, mut seq, ranges, request } = reading;
        let fetched = request.answer()?;
        let bytes = ranges.iter().map(|range| range.bytes).sum::<u64>();
        let parts: Vec<(ByteRange, Content<'_>)> = match &fetched {
            Fetched::TooLong => {
                // There is data where a hole was: it is dirty again, and is taken in shorter pieces.
                self.distrusts_holes = true;
                self.begin_again_at(&tokens);
                return Ok(Step::More);
            }
            Fetched::Hole => ranges.iter().map(|range| (*range, Content::Zeroes(range.bytes))).collect(),
            Fetched::Data(taken) => {
                self.counts.source_bytes_read += bytes;
                let content = |range: &ByteRange| {
                    let data = &taken.buffer[..to_len(range.bytes)];
                    if taken.digests.is_empty() {
                        Content::Data(data)
                    } else {
                        Content::Digested(data, &taken.digests)
                    }
                };
                ranges.iter().map(|range| (*range, content(range))).collect()
            }
            Fetched::Differing(moved) => {
                self.counts.source_bytes_read += len_u64(moved.bytes.len());
                self.counts.digests.add(moved.counts);
                moved.parts().map(|(range, bytes)| (range, Content::Data(bytes))).collect()
            }
            Fetched::Digests(..) => unreachable!("a resync asks for what differs"),
        };
        if seq.is_some() && group.shared.sabotage.on(Switch::SeqAfterRead) {
            self.stage = None;
            seq = Some(self.take_stage(group)?);
        }
        let mut appended = 0;
        for (range, content) in parts {
            match self.take_over(group, capture, range, content, &mut seq)? {
                Some(bytes) => appended += bytes,
                None => {
                    self.begin_again_at(&tokens);
                    return Ok(Step::More);
                }
            }
        }
        self.counts.bytes_compared += bytes;
        // Equal to a state that may not be durable itself: also then the piece is clean only when the journal is.
        let durable_below = group.appended_below();
        for token in tokens {
            self.in_flight.push(InFlight { token, bytes: mem::take(&mut appended), durable_below });
        }
        Ok(Step::More)
    }

    /// What is under way is dirty again, and is the next to be asked for.
    fn begin_again_at(&mut self, tokens: &[InResync]) {
        self.cursor = tokens.first().map_or(0, InResync::first_block);
        self.reading.clear();
    }

    /// Takes over what differs of a range. Returns the bytes of data that were appended; `None` when that cannot be yet, because the gap is not open.
    fn take_over(
        &mut self,
        group: &Group,
        capture: &Capture,
        range: ByteRange,
        content: Content<'_>,
        seq: &mut Option<Seq>,
    ) -> Result<Option<u64>> {
        let volume = self.tap.volume();
        let found = group.compare(volume, range.offset / BLOCK_BYTES, content, self.how)?;
        self.counts.store_bytes_read += found.store_bytes_read;
        if found.different.is_empty() {
            return Ok(Some(0));
        }
        if seq.is_none() {
            *seq = self.begin_to_take_over(group, capture)?;
        }
        let Some(seq) = *seq else { return Ok(None) };
        self.counts.bytes_damaged += found.damaged.iter().map(|part| part.end - part.start).sum::<u64>();
        let mut appended = 0;
        for run in found.different {
            let bytes = run.end - run.start;
            let start = Sector::new((range.offset + run.start) / SECTOR_BYTES);
            let sectors = SectorRange { start, sectors: bytes / SECTOR_BYTES };
            let write = match content.data() {
                None => PreparedWrite::range(volume, sectors, WriteKind::Zero),
                Some(data) => {
                    let data = &data[to_len(run.start)..to_len(run.end)];
                    let write = match content.digests(&run) {
                        Some(digests) => PreparedWrite::digested(volume, sectors, data, digests.into()),
                        None => PreparedWrite::data(volume, sectors, data, group.shared.key),
                    };
                    self.counts.bytes_transferred += write.stored_bytes();
                    appended += bytes;
                    write
                }
            };
            group.append_staged(&write, seq)?;
            self.counts.bytes_different += bytes;
        }
        Ok(Some(appended))
    }

    /// A difference of a source that nobody captures from: with the first one a gap opens, since states from here on are not states of the
    /// source until all is taken over. Returns the seq for what was read. It is taken behind the read, which is as good here: no write of
    /// the source is ever captured that it could hide. `None` when the gap could not be opened yet.
    fn begin_to_take_over(&mut self, group: &Group, capture: &Capture) -> Result<Option<Seq>> {
        if let Some(alone) = self.alone.as_ref().filter(|_| !self.takes_over) {
            let Alone { gap, time, .. } = *alone;
            self.tap.degrade(time, gap, &capture.wishes, capture.pool.boundary());
        }
        self.takes_over = true;
        group.drain_complete()?;
        if self.tap.gap_is_open() { self.take_stage(group).map(Some) } else { Ok(None) }
    }
}
