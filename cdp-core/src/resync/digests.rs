//! Digests taken at the source's own end of a link, so that what is equal never crosses it.
//!
//! A digest of a *block* is the keyed 64-bit digest that the index has of it: of 4 KiB, or of what of the last block lies on the disk; 0 stands for
//! zeroes. A digest of a *region* of 1 MiB, aligned on the disk, is the same digest over the digests of its blocks in their order, 8 bytes each, little
//! endian; 0 when all of them are 0. So whoever has the digests of the blocks, as a store has in its index, needs no payload for that of the region.
//!
//! A range that is compared takes up to three exchanges: the digests of its regions; those of the blocks of the regions that differ; the bytes of the blocks
//! that differ. [`digests_of`] is what answers the first two at the source's end. How requests and answers travel is the host's.
//!
//! Invariant *counted*: an answer has as many digests as were asked for, or it is an error. Invariant *bounded*: a request covers at most
//! [`DIGEST_REQUEST_BYTES_MAX`] bytes of the disk, so an answer has at most 2048 digests, or as many bytes as the request covers.

use super::SourceReader;
use crate::{
    dirty_map::ByteRange,
    format::{all_zero, digest::DigestKey},
    io::AlignedBuf,
    limits::DIGEST_REQUEST_BYTES_MAX,
    units::{BLOCK_BYTES, BLOCK_LEN, SECTOR_BYTES, len_u64, to_len},
};
use std::{io, mem};

/// Bytes of a region.
pub const REGION_BYTES: u64 = 1 << 20;
const REGION_LEN: usize = 1 << 20;
/// Blocks of a region.
const REGION_BLOCKS: usize = REGION_LEN / BLOCK_LEN;

/// What one digest stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestUnit {
    /// 1 MiB, aligned on the disk; less at the ends of a range and of the disk.
    Region,
    /// 4 KiB; less at the end of the disk.
    Block,
}

impl DigestUnit {
    /// Bytes of one.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Region => REGION_BYTES,
            Self::Block => BLOCK_BYTES,
        }
    }

    /// How many digests a range has: one for each unit that it touches.
    pub const fn count(self, range: ByteRange) -> u64 {
        if range.bytes == 0 {
            return 0;
        }
        range.end().div_ceil(self.bytes()) - range.offset / self.bytes()
    }
}

/// A source that lies across a link and can be asked for digests there: see [`SourceReader::digests`].
///
/// Ranges begin at multiples of 4096 and end at such or at the end of the volume; they are ascending, do not overlap, are not empty, and cover at most
/// [`DIGEST_REQUEST_BYTES_MAX`] bytes together.
pub trait SourceDigests: Send + Sync {
    /// The digests of the ranges, range by range, `unit.count(range)` of each, of what a read would give: at least everything whose write was completed when the call was
    /// made. So nothing may be answered from a memory of earlier digests. At the other end [`digests_of`] makes the answer.
    ///
    /// `key` is that of the store, and has to be handed to the other end. Who knows it can prepare blocks that differ and have the same digest: give it only
    /// to an end that may write the disk anyway, over a link that nobody else reads.
    ///
    /// # Errors
    /// Those of the link and of the disk. Resync tries again later.
    fn digests(&self, key: DigestKey, unit: DigestUnit, ranges: &[ByteRange]) -> io::Result<Vec<u64>>;

    /// Reads the ranges, one behind the other, into `buf`, which is as long as they are together: as [`SourceReader::read_at`] for each, in one exchange.
    ///
    /// # Errors
    /// As [`SourceDigests::digests`].
    fn read_ranges(&self, ranges: &[ByteRange], buf: &mut [u8]) -> io::Result<()>;
}

/// What was asked for across a link and what it said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestCounts {
    /// Bytes of digests that were received, 8 each.
    pub digest_bytes: u64,
    /// Regions, and parts of regions, whose digests were equal.
    pub regions_equal: u64,
    /// Those whose digests differed.
    pub regions_different: u64,
}

impl DigestCounts {
    pub(crate) fn add(&mut self, other: Self) {
        self.digest_bytes += other.digest_bytes;
        self.regions_equal += other.regions_equal;
        self.regions_different += other.regions_different;
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            digest_bytes: self.digest_bytes - before.digest_bytes,
            regions_equal: self.regions_equal - before.regions_equal,
            regions_different: self.regions_different - before.regions_different,
        }
    }
}

/// Answers a request for digests at the source's end of a link: reads the ranges of a disk of `source_bytes` bytes, 1 MiB at a time and without its holes, and
/// returns their digests as [`SourceDigests::digests`] gives them out.
///
/// # Errors
/// `InvalidInput` for ranges that [`SourceDigests`] does not allow, so that what came over a link can be handed in as it is; nothing was read then. Those of reading; `OutOfMemory`.
pub fn digests_of(
    source: &dyn SourceReader,
    source_bytes: u64,
    key: DigestKey,
    unit: DigestUnit,
    ranges: &[ByteRange],
) -> io::Result<Vec<u64>> {
    check_request(source_bytes, ranges)?;
    let mut buffer = AlignedBuf::new(REGION_LEN)?;
    let count: u64 = ranges.iter().map(|range| unit.count(*range)).sum();
    let mut digests = Vec::with_capacity(to_len(count));
    let mut blocks = Vec::with_capacity(REGION_BLOCKS);
    for part in ranges.iter().copied().flat_map(regions_of) {
        blocks.clear();
        read_digests(source, key, part, &mut buffer, &mut blocks)?;
        match unit {
            DigestUnit::Block => digests.extend_from_slice(&blocks),
            DigestUnit::Region => digests.push(fold(key, &blocks)),
        }
    }
    Ok(digests)
}

/// Holds the ranges of a request against what [`SourceDigests`] allows.
///
/// # Errors
/// `InvalidInput` with the reason.
pub fn check_request(source_bytes: u64, ranges: &[ByteRange]) -> io::Result<()> {
    let invalid = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let (mut end, mut total) = (0, 0_u64);
    for range in ranges {
        let Some(range_end) = range.offset.checked_add(range.bytes).filter(|end| *end <= source_bytes) else {
            return invalid("a range of a request reaches past the end of the disk");
        };
        if range.bytes == 0 || range.offset < end {
            return invalid("the ranges of a request are empty, overlap or do not ascend");
        }
        let is_whole = range_end.is_multiple_of(BLOCK_BYTES)
            || (range_end == source_bytes && range_end.is_multiple_of(SECTOR_BYTES));
        if !range.offset.is_multiple_of(BLOCK_BYTES) || !is_whole {
            return invalid("a range of a request is not of whole blocks");
        }
        end = range_end;
        // Ranges that do not overlap: the sum is at most the size of the disk.
        total += range.bytes;
    }
    if total > DIGEST_REQUEST_BYTES_MAX {
        return invalid("a request covers too much of the disk");
    }
    Ok(())
}

/// The digest of a block, as the index has it.
pub(crate) fn digest_of_block(key: DigestKey, block: &[u8]) -> u64 {
    if all_zero(block) { 0 } else { key.digest(block) }
}

/// The digest of a region whose blocks have these digests.
pub(crate) fn fold(key: DigestKey, blocks: &[u64]) -> u64 {
    if blocks.iter().all(|digest| *digest == 0) {
        return 0;
    }
    let bytes: Vec<u8> = blocks.iter().flat_map(|digest| digest.to_le_bytes()).collect();
    key.digest(&bytes)
}

/// The same for blocks of which some may not be known: `None` then, and whatever the other end has differs.
pub(crate) fn fold_known(key: DigestKey, blocks: &[Option<u64>]) -> Option<u64> {
    let known: Option<Vec<u64>> = blocks.iter().copied().collect();
    known.map(|known| fold(key, &known))
}

/// A range cut where regions of the disk begin.
pub(crate) fn regions_of(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let mut at = range.offset;
    std::iter::from_fn(move || {
        let end = ((at / REGION_BYTES + 1) * REGION_BYTES).min(range.end());
        let start = mem::replace(&mut at, end);
        (start < end).then(|| ByteRange::new(start, end - start))
    })
}

/// Adds the digests of the blocks of a part of a region.
fn read_digests(
    source: &dyn SourceReader,
    key: DigestKey,
    part: ByteRange,
    buffer: &mut AlignedBuf,
    digests: &mut Vec<u64>,
) -> io::Result<()> {
    let data = source.next_data(part.offset).unwrap_or(Some(part.offset));
    if data.is_none_or(|data| data >= part.end()) {
        digests.resize(digests.len() + to_len(DigestUnit::Block.count(part)), 0);
        return Ok(());
    }
    let bytes = &mut buffer[..to_len(part.bytes)];
    source.read_at(part.offset, bytes)?;
    digests.extend(bytes.chunks(BLOCK_LEN).map(|block| digest_of_block(key, block)));
    Ok(())
}

/// What of a range differs from the digests that are known of its blocks.
#[derive(Debug, Default)]
pub(crate) struct Differing {
    /// Ascending, merged.
    pub ranges: Vec<ByteRange>,
    pub counts: DigestCounts,
}

impl Differing {
    fn push(&mut self, range: ByteRange) {
        match self.ranges.last_mut() {
            Some(last) if last.end() == range.offset => last.bytes += range.bytes,
            _ => self.ranges.push(range),
        }
    }
}

/// Asks the other end for digests, and makes sure that it answers what was asked.
pub(crate) fn ask(
    source: &dyn SourceDigests,
    key: DigestKey,
    unit: DigestUnit,
    ranges: &[ByteRange],
    counts: &mut DigestCounts,
) -> io::Result<Vec<u64>> {
    let digests = source.digests(key, unit, ranges)?;
    let count: u64 = ranges.iter().map(|range| unit.count(*range)).sum();
    if len_u64(digests.len()) != count {
        let text = format!("{} digests were asked for across the link, and {} came", count, digests.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    counts.digest_bytes += count * len_u64(size_of::<u64>());
    Ok(digests)
}

/// Finds what of some ranges differs: regions first, then the blocks of those that do. `known` has the digest of each block of them, as it was at some time
/// after the blocks went into resync; `None` differs from everything.
pub(crate) fn differing(
    source: &dyn SourceDigests,
    key: DigestKey,
    ranges: &[ByteRange],
    known: &[Option<u64>],
) -> io::Result<Differing> {
    let mut found = Differing::default();
    let answer = ask(source, key, DigestUnit::Region, ranges, &mut found.counts)?;
    let (mut rest, mut regions) = (known, Vec::new());
    for (region, digest) in ranges.iter().copied().flat_map(regions_of).zip(answer) {
        let (blocks, behind) = rest.split_at(to_len(DigestUnit::Block.count(region)));
        rest = behind;
        if fold_known(key, blocks) == Some(digest) {
            found.counts.regions_equal += 1;
        } else {
            found.counts.regions_different += 1;
            regions.push((region, blocks));
        }
    }
    // Of a region with a single block it is known which one differs.
    let asked: Vec<ByteRange> =
        regions.iter().filter(|(_, blocks)| blocks.len() > 1).map(|(region, _)| *region).collect();
    let mut answer = match asked.is_empty() {
        true => Vec::new(),
        false => ask(source, key, DigestUnit::Block, &asked, &mut found.counts)?,
    }
    .into_iter();
    for (region, blocks) in regions {
        for (index, known) in blocks.iter().enumerate() {
            let start = region.offset + len_u64(index) * BLOCK_BYTES;
            let block = ByteRange::new(start, BLOCK_BYTES.min(region.end() - start));
            if blocks.len() == 1 || *known != answer.next() || known.is_none() {
                found.push(block);
            }
        }
    }
    Ok(found)
}

const _: () = assert!(REGION_BYTES == REGION_LEN as u64 && REGION_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(DIGEST_REQUEST_BYTES_MAX.is_multiple_of(REGION_BYTES));
