//! Checking a store: does every byte that a live structure covers hold what was written?
//!
//! Without `deep`: superblock, manifest, segment headers, frame tables, index runs, the heads and tails of all frames, and headers and tables
//! of compacted segments, dirty maps that were closed in good order. With it also every payload. Damage is collected, not fatal; what cannot be read at all is damage too.

mod pass;
mod scrub;

pub use pass::CheckJob;
pub use scrub::{ScrubJob, ScrubReport};

use crate::{
    dirty_map,
    error::{Damage, Error, Result},
    format::{
        PAGE_BYTES, PAGE_LEN, all_zero,
        compacted::{CHUNK_LEN, CompactedHeader, CompactedSegment, decode_table},
        frame::{Frame, FrameHeader, FramePlace},
        frame_table::{ENTRIES_PER_PAGE, FrameEntry},
        manifest::SealedSegment,
        page::{Page, PageIdentity},
        segment::SegmentHeader,
    },
    group::Shared,
    index::{Run, RunMeta},
    manifest::{SegmentState, read_superblock, scan_manifest},
    units::{ExtentId, SECTOR_BYTES, Seq, len_u64, to_len},
};
use std::{collections::BTreeSet, io, sync::Arc};

/// Bytes of the reserve that are read at a time.
const RESERVE_READ_LEN: usize = 1 << 20;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Everything that is damaged.
    pub damaged: Vec<Damage>,
    /// Frames of the tail that were cut off when the store was opened.
    pub tail_frames: u64,
    /// Bytes of the tail that were cut off when the store was opened.
    pub tail_bytes: u64,
}

/// The pages of a run: extent and number of the page in it.
fn pages_of(run: &RunMeta) -> impl Iterator<Item = (ExtentId, u64)> + '_ {
    run.pieces.iter().flat_map(|piece| {
        let first = piece.offset / PAGE_BYTES;
        (first..first + u64::from(piece.pages)).map(move |page| (piece.extent, page))
    })
}

struct Check<'a> {
    shared: &'a Shared,
    deep: bool,
    report: CheckReport,
}

impl Check<'_> {
    /// Notes damage and goes on; other errors end the check.
    fn note<T>(&mut self, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(Error::Damaged(damage)) => {
                self.report.damaged.push(*damage);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn damage(&mut self, extent: ExtentId, offset: u64, length: u64, seqs: (Seq, Seq), what: &str) {
        if let Error::Damaged(damage) = self.shared.damage(extent, offset, length, seqs, what) {
            self.report.damaged.push(*damage);
        }
    }

    /// Superblock and manifest.
    fn top(&mut self) -> Result<()> {
        let storage = &*self.shared.storage;
        let Some((superblock, damaged)) = self.note(read_superblock(storage))? else { return Ok(()) };
        self.report.damaged.extend(damaged);
        let scanned =
            scan_manifest(storage, superblock.store, superblock.manifest, superblock.manifest_bytes);
        self.note(scanned).map(|_| ())
    }

    /// All of a segment but its frames, which are returned as its table has them.
    fn segment(&mut self, segment: &SegmentState) -> Result<Vec<FrameEntry>> {
        // One without a footer was scanned frame by frame when the store was opened, or is in memory.
        let Some(sealed) = &segment.sealed else { return Ok(Vec::new()) };
        let extent = sealed.extent;
        let seqs = (sealed.base_seq.next(), sealed.last_seq);
        let handle = match self.shared.storage.open(extent) {
            Ok(handle) => handle,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.damage(extent, 0, sealed.extent_bytes, seqs, "the segment is missing");
                return Ok(Vec::new());
            }
            Err(error) => return Err(Error::io("open", self.shared.storage.describe(extent), error)),
        };
        let size =
            handle.size().map_err(|e| Error::io("size of", self.shared.storage.describe(extent), e))?;
        let needed = sealed.extent_bytes.max(sealed.frames_end);
        if size < needed {
            self.damage(extent, size, needed - size, seqs, "the segment is shorter than it was");
        }
        let header = self.note(self.shared.read_extent(extent, 0, PAGE_LEN))?;
        let intact = header.is_some_and(|page| {
            SegmentHeader::decode(&page[..PAGE_LEN], self.shared.store, extent)
                .is_ok_and(|header| header.segment == segment.named.uuid)
        });
        if !intact {
            self.damage(extent, 0, PAGE_BYTES, seqs, "segment header");
        }
        let table =
            self.shared.read_frame_table(sealed.table_extent, sealed.table_offset, sealed.frames, seqs);
        match self.note(table)? {
            Some(entries) => Ok(entries),
            None => {
                self.table_pages(sealed)?;
                Ok(Vec::new())
            }
        }
    }

    /// The map of what differs between a volume and its source.
    fn map(&mut self, extent: ExtentId) -> Result<()> {
        let seqs = (Seq::ZERO, Seq::MAX);
        let handle = match self.shared.storage.open(extent) {
            Ok(handle) => handle,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.damage(extent, 0, PAGE_BYTES, seqs, "the dirty map is missing");
                return Ok(());
            }
            Err(error) => return Err(Error::io("open", self.shared.storage.describe(extent), error)),
        };
        for flaw in dirty_map::inspect(&*handle)? {
            self.damage(extent, flaw.offset, flaw.length, seqs, flaw.what);
        }
        Ok(())
    }

    /// All of a compacted segment but its payload, which may be of any seq. Returns the checksums of its chunks, where they are to be compared.
    fn compacted(&mut self, segment: &CompactedSegment) -> Result<Vec<u32>> {
        let (extent, table_at) = (segment.extent, segment.table_at());
        let seqs = (Seq::ZERO, Seq::MAX);
        let shared = self.shared;
        let size = match shared.storage.open(extent).and_then(|handle| handle.size()) {
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.damage(extent, 0, segment.bytes, seqs, "the compacted segment is missing");
                return Ok(Vec::new());
            }
            Err(error) => return Err(Error::io("open", shared.storage.describe(extent), error)),
        };
        if size < segment.bytes {
            let missing = segment.bytes - size;
            self.damage(extent, size, missing, seqs, "the compacted segment is shorter than it was");
        }
        let header = self.note(shared.read_extent(extent, 0, PAGE_LEN))?;
        if let Some(page) = header {
            let found = CompactedHeader::decode(&page[..PAGE_LEN], shared.store, extent);
            if found.map(|header| header.segment) != Ok(segment.uuid) {
                self.damage(extent, 0, PAGE_BYTES, seqs, "header of a compacted segment");
            }
        }
        let Some(page) = self.note(shared.read_extent(extent, table_at, PAGE_LEN))? else {
            return Ok(Vec::new());
        };
        let Ok(checksums) = decode_table(&page[..PAGE_LEN], segment.uuid, table_at) else {
            self.damage(extent, table_at, PAGE_BYTES, seqs, "table of a compacted segment");
            return Ok(Vec::new());
        };
        Ok(if self.deep { checksums } else { Vec::new() })
    }

    /// The payload of some chunks of a compacted segment, from a place on.
    fn chunks(&mut self, segment: &CompactedSegment, from: usize, checksums: &[u32]) -> Result<()> {
        let (extent, table_at) = (segment.extent, segment.table_at());
        let (shared, seqs) = (self.shared, (Seq::ZERO, Seq::MAX));
        for (at, checksum) in (0..table_at).step_by(CHUNK_LEN).skip(from).zip(checksums) {
            let len = to_len(len_u64(CHUNK_LEN).min(table_at - at));
            let Some(bytes) = self.note(shared.read_extent(extent, at, len))? else { continue };
            if crc32fast::hash(&bytes[..len]) != *checksum {
                self.damage(extent, at, len_u64(len), seqs, "payload of a compacted segment");
            }
        }
        Ok(())
    }

    /// The reserve holds nothing and may be gone; what is there is as long as it was made, and zero.
    fn reserve(&mut self, extent: ExtentId, bytes: u64) -> Result<()> {
        let seqs = (Seq::ZERO, Seq::ZERO);
        let shared = self.shared;
        let size = match shared.storage.open(extent).and_then(|handle| handle.size()) {
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("open", shared.storage.describe(extent), error)),
        };
        if size < bytes {
            self.damage(extent, size, bytes - size, seqs, "the reserve is shorter than it was");
        }
        if !self.deep {
            return Ok(());
        }
        for at in (0..size.min(bytes)).step_by(RESERVE_READ_LEN) {
            let len = to_len(len_u64(RESERVE_READ_LEN).min(size.min(bytes) - at));
            let Some(read) = self.note(shared.read_extent(extent, at, len))? else { continue };
            if !all_zero(&read[..len]) {
                self.damage(extent, at, len_u64(len), seqs, "the reserve is not empty");
            }
        }
        Ok(())
    }

    /// Names each damaged page of a frame table of which one is damaged.
    fn table_pages(&mut self, sealed: &SealedSegment) -> Result<()> {
        let mut left = to_len(u64::from(sealed.frames));
        let mut offset = sealed.table_offset;
        while left > 0 {
            let count = left.min(ENTRIES_PER_PAGE);
            let entries = u32::try_from(count).expect("a page holds few entries");
            let seqs = (sealed.base_seq.next(), sealed.last_seq);
            let page = self.shared.read_frame_table(sealed.table_extent, offset, entries, seqs);
            self.note(page)?;
            left -= count;
            offset += PAGE_BYTES;
        }
        Ok(())
    }

    /// A frame of a segment; `end` is where the one before it ended.
    fn frame_of(&mut self, sealed: &SealedSegment, uuid: u64, entry: &FrameEntry, end: u64) -> Result<()> {
        let seqs = (entry.base_seq.next(), entry.last_seq);
        if entry.offset != end {
            self.damage(sealed.extent, end, PAGE_BYTES, seqs, "the frame table leaves a hole");
        }
        let place = FramePlace {
            store: self.shared.store.short(),
            segment: sealed.extent,
            segment_uuid: uuid,
            offset: entry.offset,
        };
        self.frame(sealed.extent, entry, place)
    }

    fn frame(&mut self, extent: ExtentId, entry: &FrameEntry, place: FramePlace) -> Result<()> {
        let seqs = (entry.base_seq.next(), entry.last_seq);
        let read = self.shared.read_extent(extent, entry.offset, to_len(entry.bytes));
        let Some(bytes) = self.note(read)? else { return Ok(()) };
        let bytes = &bytes[..to_len(entry.bytes)];
        let parsed = FrameHeader::peek(&bytes[..PAGE_LEN]).and_then(|header| {
            let tail = to_len(header.tail_offset());
            let tail = bytes.get(tail..).filter(|_| header.bytes() == entry.bytes);
            Frame::parse(&bytes[..PAGE_LEN], tail.unwrap_or_default(), place)
        });
        let frame = match parsed {
            Ok(frame) if frame.crc == entry.crc => frame,
            _ => {
                self.damage(extent, entry.offset, entry.bytes, seqs, "frame");
                return Ok(());
            }
        };
        if self.deep {
            let payload = &bytes[PAGE_LEN..to_len(frame.header.tail_offset())];
            for (sector, sectors) in frame.payload_damage(payload, self.shared.key) {
                let offset = (frame.header.payload_at() + sector) * SECTOR_BYTES;
                self.damage(extent, offset, sectors * SECTOR_BYTES, seqs, "payload");
            }
        }
        Ok(())
    }

    /// Index pages behind a frame table that a merge has replaced: nobody reads them, but damage there tells of a failing storage.
    fn superseded(&mut self, segment: &SegmentState, live: &BTreeSet<(ExtentId, u64)>) -> Result<()> {
        let Some(sealed) = &segment.sealed else { return Ok(()) };
        let extent = sealed.table_extent;
        let Ok(handle) = self.shared.storage.open(extent) else { return Ok(()) };
        let size =
            handle.size().map_err(|e| Error::io("size of", self.shared.storage.describe(extent), e))?;
        let table_pages = to_len(u64::from(sealed.frames)).div_ceil(ENTRIES_PER_PAGE);
        let start = sealed.table_offset / PAGE_BYTES + len_u64(table_pages);
        let end = if extent == sealed.extent { sealed.extent_bytes } else { size } / PAGE_BYTES;
        for page in (start..end).filter(|page| !live.contains(&(extent, *page))) {
            let read = self.shared.read_extent(extent, page * PAGE_BYTES, PAGE_LEN);
            let Some(bytes) = self.note(read)? else { continue };
            let identity = PageIdentity {
                store: self.shared.store.short(),
                extent,
                page: u32::try_from(page).unwrap_or(u32::MAX),
            };
            let bytes = bytes.first_chunk().expect("a page was read");
            if let Err(what) = Page(bytes).verify(&identity) {
                let seqs = (sealed.base_seq.next(), sealed.last_seq);
                self.damage(extent, page * PAGE_BYTES, PAGE_BYTES, seqs, what);
            }
        }
        Ok(())
    }

    fn run(&mut self, run: &Arc<Run>) -> Result<()> {
        self.note(run.verify()).map(|_| ())
    }
}
