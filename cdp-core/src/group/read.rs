//! Reading a volume at a seq: from the open frame, from frames on their way, from segments.
//!
//! Every byte that comes from the storage is verified by its digest before it is handed out. A mismatch is looked up once more with
//! the index as it is now (the version may have moved meanwhile) before it is reported as damage.

use super::{Group, TRANSFER_LEN};
use crate::{
    error::{Error, Result},
    format::PAGE_LEN,
    index::{MASK_FULL, Piece},
    io::{BatchRead, Extent, IO_ALIGN},
    sabotage::Switch,
    units::{
        BLOCK_LEN, Block, ExtentId, SECTOR_BYTES, SECTOR_LEN, SECTORS_PER_BLOCK, Sector, SectorRange, Seq,
        VolumeId, len_u64, to_len,
    },
};
use std::{io, sync::Arc};

/// Gap between two pieces that is read along rather than skipped, sectors.
const READ_GAP_SECTORS: u64 = 64;
/// Blocks in a row that are read by themselves, to where they belong, rather than with others across a gap.
const RUN_BLOCKS_MIN: usize = 8;
/// Versions that are looked for in memory each for itself; for more of them it is first asked which could be there at all.
const ASKED_ONE_BY_ONE_MAX: usize = 4;
/// Times that a read is resolved anew after a mismatch.
const ATTEMPTS: usize = 3;

/// A stored version that a read needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    segment: ExtentId,
    sector: u64,
    block: Block,
    take: u8,
    mask: u8,
    digest: u64,
    seq: Seq,
}

impl Wanted {
    fn sectors(&self) -> u64 {
        u64::from(self.mask.count_ones())
    }

    /// Whether it is all of its block.
    fn is_whole(&self) -> bool {
        self.take == MASK_FULL && self.mask == MASK_FULL
    }
}

/// The segments whose ends are still in memory, with the first sector of each that is.
#[derive(Default)]
struct Tails(Vec<(ExtentId, u64)>);

impl Tails {
    fn add(&mut self, segment: ExtentId, sector: u64) {
        match self.0.iter_mut().find(|(other, _)| *other == segment) {
            Some((_, first)) => *first = sector.min(*first),
            None => self.0.push((segment, sector)),
        }
    }

    /// Whether a version could be in memory: if not, it is on the storage.
    fn may_hold(&self, wanted: &Wanted) -> bool {
        self.0.iter().any(|&(segment, first)| segment == wanted.segment && wanted.sector >= first)
    }
}

/// How many versions from the first on are whole blocks that follow each other on the volume as they do in the segment.
fn following(wanted: &[Wanted]) -> usize {
    let first = wanted[0];
    let follows = |(index, version): &(u64, &Wanted)| {
        version.is_whole()
            && version.segment == first.segment
            && version.block.get() == first.block.get() + index
            && version.sector == first.sector + index * SECTORS_PER_BLOCK
    };
    (0..).zip(wanted).take_while(follows).count()
}

/// The part of the memory that each span is read to: its place in `out`, or the next part of `aside`.
fn places<'a>(spans: &[Span], mut out: &'a mut [u8], mut aside: &'a mut [u8]) -> Vec<&'a mut [u8]> {
    let mut placed: Vec<(usize, usize)> =
        spans.iter().enumerate().filter_map(|(index, span)| Some((span.place?, index))).collect();
    placed.sort_unstable();
    let (mut taken, mut parts) = (0, Vec::new());
    parts.resize_with(spans.len(), || None);
    for (place, index) in placed {
        let (buf, rest) = out.split_at_mut(place - taken).1.split_at_mut(spans[index].len);
        (out, taken) = (rest, place + spans[index].len);
        parts[index] = Some(buf);
    }
    let place_of = |(span, part): (&Span, Option<&'a mut [u8]>)| {
        part.unwrap_or_else(|| {
            let (buf, rest) = std::mem::take(&mut aside).split_at_mut(span.len);
            aside = rest;
            buf
        })
    };
    spans.iter().zip(parts).map(place_of).collect()
}

/// A part of a segment that is read in one go, whole pages, with the versions in it.
struct Span {
    segment: ExtentId,
    /// First byte.
    start: u64,
    /// Length, bytes.
    len: usize,
    /// How many of the wanted versions lie in it.
    versions: usize,
    /// Where in the caller's buffer its bytes belong, when they do so one by one and can be read there at once.
    place: Option<usize>,
}

/// A part of the caller's buffer: the range that it stands for.
struct Target<'a> {
    range: SectorRange,
    out: &'a mut [u8],
    /// Whether it is read into, and not only copied to. The caller's memory may change under the look at it (that of a guest of a hypervisor does if
    /// the guest wants it), so damage is told only of what was read elsewhere.
    read_into: bool,
}

impl Target<'_> {
    /// Where in the buffer the bytes of a span belong, if they are whole blocks that follow each other there as they do in the segment, and
    /// the address suits direct I/O.
    fn place(&self, wanted: &[Wanted], start: u64, len: usize) -> Option<usize> {
        let (first, start_sector) = (wanted[0], start / SECTOR_BYTES);
        let at = first.block.first_sector().get().checked_sub(self.range.start.get())?;
        let at = to_len(at * SECTOR_BYTES);
        let fits = at + len <= self.out.len() && len == wanted.len() * BLOCK_LEN;
        let aligned = (self.out.as_ptr().addr() + at).is_multiple_of(IO_ALIGN);
        let begins = self.read_into && first.is_whole() && first.sector == start_sector;
        (fits && aligned && begins && following(wanted) == wanted.len()).then_some(at)
    }

    fn zero(&mut self, start: Sector, sectors: u64) {
        let from = start.get().max(self.range.start.get());
        let to = (start.get() + sectors).min(self.range.end().get());
        if from < to {
            let first = self.range.start.get();
            self.out[to_len((from - first) * SECTOR_BYTES)..to_len((to - first) * SECTOR_BYTES)].fill(0);
        }
    }

    /// Copies the sectors of `take` out of the stored sectors of a version.
    fn copy(&mut self, wanted: &Wanted, stored: &[u8]) {
        let block = wanted.block.first_sector().get();
        let (start, end) = (self.range.start.get(), self.range.end().get());
        if wanted.take == MASK_FULL && block >= start && block + SECTORS_PER_BLOCK <= end {
            let to = to_len((block - start) * SECTOR_BYTES);
            self.out[to..to + BLOCK_LEN].copy_from_slice(stored);
            return;
        }
        let first_stored = u64::from(wanted.mask.trailing_zeros());
        for bit in 0..SECTORS_PER_BLOCK {
            let sector = block + bit;
            let wanted_here = wanted.take & (1 << bit) != 0;
            if !wanted_here || sector < start || sector >= end {
                continue;
            }
            let from = to_len((bit - first_stored) * SECTOR_BYTES);
            let to = to_len((sector - start) * SECTOR_BYTES);
            self.out[to..to + SECTOR_LEN].copy_from_slice(&stored[from..from + SECTOR_LEN]);
        }
    }
}

impl Group {
    /// Fills `out` with the content of `range` at `seq`. Ranges are checked by the caller.
    pub fn read_range(&self, volume: VolumeId, range: SectorRange, seq: Seq, out: &mut [u8]) -> Result<()> {
        assert_eq!(len_u64(out.len()), range.bytes(), "the buffer is as long as the range");
        let seq = if self.shared.sabotage.on(Switch::VisibilityOffByOne) { seq.next() } else { seq };
        let mut target = Target { range, out, read_into: true };
        let mut before = self.resolve(volume, range, seq, &mut target)?;
        for _ in 1..ATTEMPTS {
            match self.fetch(&before, &mut target) {
                Err(Error::Damaged(damage)) => {
                    let now = self.resolve(volume, range, seq, &mut target)?;
                    if now == before && !target.read_into {
                        return Err(Error::Damaged(damage));
                    }
                    (before, target.read_into) = (now, false);
                }
                outcome => return outcome,
            }
        }
        self.fetch(&before, &mut target)
    }

    fn resolve(
        &self,
        volume: VolumeId,
        range: SectorRange,
        seq: Seq,
        target: &mut Target<'_>,
    ) -> Result<Vec<Wanted>> {
        let first = range.start.block();
        let last = Sector::new(range.end().get() - 1).block();
        let mut pieces = Vec::new();
        self.view().resolve(volume, first, last.get() - first.get() + 1, seq, &mut pieces)?;
        let mut wanted = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece {
                Piece::Zero { start, sectors } => target.zero(start, sectors),
                Piece::Data { block, take, mask, segment, sector, digest, seq } => {
                    wanted.push(Wanted {
                        segment,
                        sector: u64::from(sector),
                        block,
                        take,
                        mask,
                        digest,
                        seq,
                    });
                }
            }
        }
        wanted.sort_unstable_by_key(|w| (w.segment, w.sector));
        Ok(wanted)
    }

    fn fetch(&self, wanted: &[Wanted], target: &mut Target<'_>) -> Result<()> {
        // What is still in memory is not on the storage yet: it must never lie within a range that is read from there.
        let mut on_storage = Vec::with_capacity(wanted.len());
        let mut scratch = [0u8; PAGE_LEN];
        let in_memory = if wanted.len() > ASKED_ONE_BY_ONE_MAX { Some(self.in_memory()) } else { None };
        for version in wanted {
            let stored = &mut scratch[..to_len(version.sectors() * SECTOR_BYTES)];
            let may_be = in_memory.as_ref().is_none_or(|tails| tails.may_hold(version));
            if may_be && self.read_from_memory(version.segment, version.sector, stored) {
                self.deliver(version, stored, target)?;
            } else {
                on_storage.push(*version);
            }
        }
        let mut rest = &on_storage[..];
        while !rest.is_empty() {
            let spans = self.spans(rest, target);
            let versions = spans.iter().map(|span| span.versions).sum();
            let (now, later) = rest.split_at(versions);
            self.read_spans(now, &spans, target)?;
            rest = later;
        }
        Ok(())
    }

    /// The parts of segments that are read together to get the first of the wanted versions: at least one, and not more than a buffer holds.
    fn spans(&self, wanted: &[Wanted], target: &Target<'_>) -> Vec<Span> {
        let (mut spans, mut rest, mut bytes) = (Vec::new(), wanted, 0);
        while !rest.is_empty() {
            let (group, others) = rest.split_at(self.contiguous(rest));
            let start = group[0].sector * SECTOR_BYTES / len_u64(PAGE_LEN) * len_u64(PAGE_LEN);
            let end = group.iter().map(|w| (w.sector + w.sectors()) * SECTOR_BYTES).max().unwrap_or(start);
            let len = to_len(end - start).next_multiple_of(PAGE_LEN);
            bytes += len;
            if bytes > TRANSFER_LEN && !spans.is_empty() {
                break;
            }
            let place = target.place(group, start, len);
            spans.push(Span { segment: group[0].segment, start, len, versions: group.len(), place });
            rest = others;
        }
        spans
    }

    /// How many of the wanted versions are read in one go.
    fn contiguous(&self, wanted: &[Wanted]) -> usize {
        let first = wanted[0];
        let whole = following(wanted).min(TRANSFER_LEN / BLOCK_LEN);
        if whole >= RUN_BLOCKS_MIN {
            return whole;
        }
        let start = first.sector / SECTORS_PER_BLOCK * SECTORS_PER_BLOCK;
        let mut end = first.sector + first.sectors();
        let mut count = 1;
        for next in &wanted[1..] {
            let next_end = end.max(next.sector + next.sectors());
            let length = to_len((next_end - start) * SECTOR_BYTES).next_multiple_of(PAGE_LEN);
            if next.segment != first.segment || next.sector > end + READ_GAP_SECTORS || length > TRANSFER_LEN
            {
                break;
            }
            end = next_end;
            count += 1;
        }
        count
    }

    /// Reads the spans that hold `wanted`, all at once, and delivers the versions in them.
    fn read_spans(&self, wanted: &[Wanted], spans: &[Span], target: &mut Target<'_>) -> Result<()> {
        // What nearly every random read is: one span, for which no lists are made.
        if let [span] = spans
            && let Some(place) = span.place
        {
            let handle = self.shared.handle(span.segment);
            let part = &mut target.out[place..place + span.len];
            handle
                .and_then(|handle| {
                    let read = handle.read_at(span.start, part);
                    read.map_err(|error| Error::io("read", self.shared.storage.describe(span.segment), error))
                })
                .map_err(|error| self.failed_span(span, wanted[0].seq, error))?;
            return wanted
                .iter()
                .zip(part.chunks(BLOCK_LEN))
                .try_for_each(|(w, block)| self.verify(w, block));
        }
        let mut handles: Vec<Arc<dyn Extent>> = Vec::with_capacity(spans.len());
        for span in spans {
            let handle = self.shared.handle(span.segment);
            handles.push(handle.map_err(|error| self.failed_span(span, wanted[0].seq, error))?);
        }
        let aside_len: usize = spans.iter().filter(|span| span.place.is_none()).map(|span| span.len).sum();
        let mut aside = if aside_len > 0 { Some(self.take_transfer_buffer()?) } else { None };
        let outcomes = {
            let places = places(spans, target.out, aside.as_deref_mut().unwrap_or_default());
            let reads = spans.iter().zip(&handles).zip(places);
            let reads =
                reads.map(|((span, extent), buf)| BatchRead { extent: &**extent, offset: span.start, buf });
            self.batches.read(&mut reads.collect::<Vec<_>>())
        };
        let (mut rest, mut from) = (wanted, 0);
        spans.iter().zip(outcomes).try_for_each(|(span, outcome)| {
            let (versions, others) = rest.split_at(span.versions);
            rest = others;
            outcome.map_err(|error| {
                let error = Error::io("read", self.shared.storage.describe(span.segment), error);
                self.failed_span(span, versions[0].seq, error)
            })?;
            if let Some(place) = span.place {
                let blocks = target.out[place..place + span.len].chunks(BLOCK_LEN);
                return versions.iter().zip(blocks).try_for_each(|(w, block)| self.verify(w, block));
            }
            let stored = &aside.as_deref().unwrap_or_default()[from..from + span.len];
            from += span.len;
            versions.iter().try_for_each(|w| {
                let at = to_len(w.sector * SECTOR_BYTES - span.start);
                self.deliver(w, &stored[at..at + to_len(w.sectors() * SECTOR_BYTES)], target)
            })
        })
    }

    /// What a read that failed says of the store: a segment that is gone or too short is damage.
    fn failed_span(&self, span: &Span, seq: Seq, error: Error) -> Error {
        let Error::Io { source, .. } = &error else { return error };
        let what = match source.kind() {
            io::ErrorKind::UnexpectedEof => "the segment ends before its payload",
            io::ErrorKind::NotFound => "the segment is missing",
            _ => return error,
        };
        self.shared.damage(span.segment, span.start, len_u64(span.len), (seq, seq), what)
    }

    fn deliver(&self, wanted: &Wanted, stored: &[u8], target: &mut Target<'_>) -> Result<()> {
        self.verify(wanted, stored)?;
        target.copy(wanted, stored);
        Ok(())
    }

    /// Compares what was read with its digest.
    fn verify(&self, wanted: &Wanted, stored: &[u8]) -> Result<()> {
        let trusted = self.shared.sabotage.on(Switch::SkipDigestCheck);
        if !trusted && self.shared.key.digest(stored) != wanted.digest {
            let (offset, length) = (wanted.sector * SECTOR_BYTES, len_u64(stored.len()));
            let what = format!("payload of block {}", wanted.block);
            return Err(self.shared.damage(wanted.segment, offset, length, (wanted.seq, wanted.seq), &what));
        }
        Ok(())
    }

    /// What could be in memory of versions that the index has named before this is asked: a frame goes from being open to being on its
    /// way to the storage, and never back, so that one look at each in this order, and a last one at what was sealed in between, misses none.
    fn in_memory(&self) -> Tails {
        let mut tails = Tails::default();
        let add_flight = |tails: &mut Tails| {
            self.flight.read().keys().for_each(|&(segment, sector)| tails.add(segment, sector));
        };
        add_flight(&mut tails);
        if let Some(open) = &self.append.lock().open {
            tails.add(open.segment(), open.payload_at());
        }
        add_flight(&mut tails);
        tails
    }

    /// Copies payload that is still in memory: in the open frame or in a frame on its way.
    fn read_from_memory(&self, segment: ExtentId, sector: u64, out: &mut [u8]) -> bool {
        {
            let flight = self.flight.read();
            let near = flight.range(..=(segment, sector)).next_back().map(|(_, frame)| frame.clone());
            drop(flight);
            if near.is_some_and(|frame| frame.header.segment == segment && frame.read(sector, out)) {
                return true;
            }
        }
        let append = self.append.lock();
        if append.open.as_ref().is_some_and(|open| open.read(segment, sector, out)) {
            return true;
        }
        // It may have been sealed between the two looks.
        let flight = self.flight.read();
        let near = flight.range(..=(segment, sector)).next_back().map(|(_, frame)| frame.clone());
        near.is_some_and(|frame| frame.header.segment == segment && frame.read(sector, out))
    }
}
