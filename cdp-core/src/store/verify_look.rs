//! The looks of a verification: everything once, and then what differed until it has come to rest. By bytes, or for a source across a link by digests: those of its
//! regions first, and at the second look those of the blocks. The store reads its own payload either way.

use super::{Store, verify_cursor::VerifyCursor};
use crate::{
    capture::tap::TapState,
    catalog::VolumeInfo,
    dirty_map::ByteRange,
    error::Result,
    group::{Content, How, push_merged},
    job::JobStep,
    limits::DIGEST_REQUEST_BYTES_MAX,
    resync::{
        DigestCounts, DigestUnit, Fetched, PIECE_BYTES, ReadAhead, Request, fold, fold_known, regions_of,
    },
    units::{BLOCK_BYTES, len_u64, to_len},
};
use std::{
    collections::VecDeque,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest hole that is compared at once, bytes.
const HOLE_BYTES_MAX: u64 = 1 << 30;
/// How long a difference must stay as it is beside a tap: longer than a host takes from the end of a write to its capture.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// Pause between two looks at what differs.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long blocks are looked at that do not come to rest.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Ranges of bytes: ascending, merged.
pub(super) type Ranges = Vec<Range<u64>>;

/// What was found so far; ranges are bytes of the volume.
#[derive(Default)]
pub(super) struct Found {
    pub bytes_compared: u64,
    pub source_bytes_read: u64,
    pub digests: DigestCounts,
    pub store_bytes_read: u64,
    pub different: Ranges,
    pub damaged: Ranges,
}

/// What differed when everything was compared, and is looked at again.
pub(super) struct Again {
    pub suspects: Vec<Suspect>,
    /// The one that is looked at next; 0: a round begins.
    next: usize,
    began: Instant,
}

/// A comparison under way.
pub(super) struct Verify {
    pub store: Store,
    pub info: Arc<VolumeInfo>,
    pub ahead: ReadAhead,
    /// Whether digests are compared, of a source that answers them.
    pub by_digests: bool,
    pub found: Found,
}

impl Verify {
    pub fn cursor(&self, compared: u64) -> Option<VerifyCursor> {
        let store = self.store.inner.group.shared.store;
        VerifyCursor::new(store, &self.info, compared, &self.found.different, &self.found.damaged)
    }

    /// Compares the next piece; returns where it ended, or `None` at the end of the volume.
    pub fn look_on(
        &mut self,
        asked: &mut u64,
        requests: &mut VecDeque<(ByteRange, Request)>,
    ) -> Result<Option<u64>> {
        let total = self.info.bytes;
        while *asked < total && requests.len() < self.ahead.depth() {
            let range = if self.by_digests {
                ByteRange::new(*asked, DIGEST_REQUEST_BYTES_MAX.min(total - *asked))
            } else {
                let hole = self.ahead.hole_at(*asked, total).min(HOLE_BYTES_MAX) / BLOCK_BYTES * BLOCK_BYTES;
                ByteRange::new(*asked, hole.max(PIECE_BYTES).min(total - *asked))
            };
            requests.push_back((range, self.request(range, DigestUnit::Region)));
            *asked = range.end();
        }
        let Some((range, request)) = requests.pop_front() else { return Ok(None) };
        match request.answer()? {
            Fetched::TooLong => {
                for range in pieces(range) {
                    let fetched = self.ahead.request(range, None).answer()?;
                    self.compare(range, fetched)?;
                }
            }
            fetched => self.compare(range, fetched)?,
        }
        Ok(Some(range.end()))
    }

    /// Asks for a range, or for its digests.
    fn request(&self, range: ByteRange, unit: DigestUnit) -> Request {
        match self.by_digests {
            true => self.ahead.request_digests(range, self.store.inner.group.shared.key, unit),
            false => self.ahead.request(range, None),
        }
    }

    fn compare(&mut self, range: ByteRange, fetched: Fetched) -> Result<()> {
        let (different, damaged) = self.differences(range, &fetched, DigestUnit::Region)?;
        different.into_iter().for_each(|part| push_merged(&mut self.found.different, part));
        damaged.into_iter().for_each(|part| push_merged(&mut self.found.damaged, part));
        self.found.bytes_compared += range.bytes;
        Ok(())
    }

    /// What differs in a range, and what of it is damaged: bytes of the volume. `unit`: of which digests were asked for.
    fn differences(
        &mut self,
        range: ByteRange,
        fetched: &Fetched,
        unit: DigestUnit,
    ) -> Result<(Ranges, Ranges)> {
        let content = match fetched {
            Fetched::Digests(digests, counts) => {
                self.found.digests.add(*counts);
                return self.differing_digests(range, digests, unit);
            }
            Fetched::Data(taken) => {
                self.found.source_bytes_read += range.bytes;
                Content::Data(&taken.buffer[..to_len(range.bytes)])
            }
            Fetched::Hole | Fetched::TooLong => Content::Zeroes(range.bytes),
            Fetched::Differing(_) => unreachable!("a verification asks for bytes or digests"),
        };
        let group = &self.store.inner.group;
        let found = group.compare(self.info.id, range.offset / BLOCK_BYTES, content, How::Bytes)?;
        self.found.store_bytes_read += found.store_bytes_read;
        let moved = |parts: Ranges| {
            parts.into_iter().map(|part| part.start + range.offset..part.end + range.offset).collect()
        };
        Ok((moved(found.different), moved(found.damaged)))
    }

    /// The same by digests: of a region that differs all blocks, until they are looked at one by one.
    fn differing_digests(
        &mut self,
        range: ByteRange,
        digests: &[u64],
        unit: DigestUnit,
    ) -> Result<(Ranges, Ranges)> {
        let group = &self.store.inner.group;
        let (mut different, mut damaged) = (Vec::new(), Vec::new());
        let mut theirs = digests.iter().copied();
        for region in regions_of(range) {
            let own = group.digests(self.info.id, region.offset..region.end(), How::Bytes)?;
            self.found.store_bytes_read += own.store_bytes_read;
            let block_at = |index: usize| {
                let start = region.offset + len_u64(index) * BLOCK_BYTES;
                start..(start + BLOCK_BYTES).min(region.end())
            };
            for (index, own) in own.blocks.iter().enumerate() {
                if own.is_none() {
                    push_merged(&mut damaged, block_at(index));
                }
                // What cannot be read differs from everything.
                if unit == DigestUnit::Block && *own != theirs.next() {
                    push_merged(&mut different, block_at(index));
                }
            }
            if unit == DigestUnit::Region {
                let is_equal = fold_known(group.shared.key, &own.blocks) == theirs.next();
                let counts = &mut self.found.digests;
                *(if is_equal { &mut counts.regions_equal } else { &mut counts.regions_different }) += 1;
                if !is_equal {
                    push_merged(&mut different, region.offset..region.end());
                }
            }
        }
        Ok((different, damaged))
    }

    /// What differed so far, in pieces.
    pub fn suspects(&self) -> Again {
        let pieces = self.found.different.iter().flat_map(|range| pieces(as_bytes(range)));
        let suspects =
            pieces.map(|range| Suspect { range, seen: None, since: Instant::now(), settled: None }).collect();
        Again { suspects, next: 0, began: Instant::now() }
    }

    /// Looks at the next of what differs, until all does no more or has come to rest, or is given up.
    pub fn look_again(&mut self, again: &mut Again) -> Result<JobStep> {
        let Again { suspects, next, began } = again;
        let tap = self.tap();
        let settled_after = if tap.is_some() { SETTLED_AFTER } else { Duration::ZERO };
        if *next == 0 {
            self.take_over(tap.is_some())?;
        }
        let open = suspects[*next..].iter().position(|suspect| suspect.settled.is_none());
        if let Some(skipped) = open {
            let at = *next + skipped;
            self.look_at(&mut suspects[at], tap.as_deref(), settled_after)?;
            *next = at + 1;
            return Ok(JobStep::More);
        }
        *next = 0;
        if suspects.iter().all(|suspect| suspect.settled.is_some()) || began.elapsed() >= LOOK_MAX {
            return Ok(JobStep::Done);
        }
        Ok(if tap.is_some() { JobStep::Wait(LOOK_EVERY) } else { JobStep::More })
    }

    /// What is different and damaged for certain; returns what never came to rest, which does not count as different.
    pub fn conclude(&mut self, suspects: Vec<Suspect>) -> Ranges {
        let (mut different, mut damaged, mut unsettled) = (Vec::new(), Vec::new(), Vec::new());
        for suspect in suspects {
            match suspect.settled {
                Some((parts, broken)) => {
                    parts.into_iter().for_each(|part| push_merged(&mut different, part));
                    broken.into_iter().for_each(|part| push_merged(&mut damaged, part));
                }
                None => push_merged(&mut unsettled, suspect.range.offset..suspect.range.end()),
            }
        }
        (self.found.different, self.found.damaged) = (different, damaged);
        unsettled
    }

    fn tap(&self) -> Option<Arc<TapState>> {
        self.store.inner.group.capture().and_then(|capture| capture.tap(self.info.id))
    }

    /// What was captured before this call is part of the newest state behind it.
    fn take_over(&self, tapped: bool) -> Result<()> {
        if tapped { self.store.drain_taps().map(|_| ()) } else { self.store.inner.group.settle_for_reading() }
    }

    /// One more look: the source first, then what was captured until then, and then the newest state.
    fn look_at(
        &mut self,
        suspect: &mut Suspect,
        tap: Option<&TapState>,
        settled_after: Duration,
    ) -> Result<()> {
        let range = suspect.range;
        // What is known to differ is for the tap's resync.
        let dirty = |tap: &TapState| tap.map().is_dirty(range) || tap.wished().is_some();
        let fetched = self.request(range, DigestUnit::Block).answer()?;
        self.take_over(tap.is_some())?;
        let (different, damaged) = self.differences(range, &fetched, DigestUnit::Block)?;
        if different.is_empty() {
            suspect.settled = Some((different, damaged));
        } else if tap.is_some_and(dirty) {
            suspect.seen = None;
        } else {
            let key = self.store.inner.group.shared.key;
            let source = match &fetched {
                Fetched::Data(taken) => key.digest(&taken.buffer[..to_len(range.bytes)]),
                Fetched::Digests(digests, _) => fold(key, digests),
                Fetched::Hole | Fetched::TooLong | Fetched::Differing(_) => 0,
            };
            let seen = Some((source, different.clone()));
            if suspect.seen != seen {
                (suspect.seen, suspect.since) = (seen, Instant::now());
            }
            if suspect.since.elapsed() >= settled_after {
                suspect.settled = Some((different, damaged));
            }
        }
        Ok(())
    }
}

/// A range that differed when it was looked at.
pub(super) struct Suspect {
    range: ByteRange,
    /// What was seen last: the digest of the source, and where it differed.
    seen: Option<(u64, Ranges)>,
    /// Since when.
    since: Instant,
    /// What differs for certain, and what of it is damaged.
    settled: Option<(Ranges, Ranges)>,
}

fn pieces(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let end = range.end();
    let count = range.bytes.div_ceil(PIECE_BYTES);
    (0..count).map(move |index| {
        let offset = range.offset + index * PIECE_BYTES;
        ByteRange::new(offset, (end - offset).min(PIECE_BYTES))
    })
}

pub(super) fn as_bytes(range: &Range<u64>) -> ByteRange {
    ByteRange::new(range.start, range.end - range.start)
}

pub(super) fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

const _: () = assert!(PIECE_BYTES.is_multiple_of(BLOCK_BYTES));
