//! The extent of a map file: where header, ring and pages lie, and all reads and writes of them.
//!
//! Layout: two header pages, the ring, the map pages. Invariant *known*: the digest of a page is kept only after a sync that covers its write
//! has returned, so that a page is left out of a flush only if the same bits are durable. After an unclean end nothing is known.

use super::{
    header::Header,
    map::DirtyMap,
    pages::{self, PAGE_BLOCKS, PAGE_WORDS},
    ring::{Record, Ring},
};
use crate::{
    Error, Result,
    format::{PAGE_BYTES, PAGE_LEN, digest::DigestKey},
    io::{AlignedBuf, Extent},
    units::{len_u64, to_len},
};
use std::{collections::BTreeSet, io, sync::Arc};

const RING_AT: u64 = 2 * PAGE_BYTES;
/// Pages that are read at once.
const READ_PAGES: usize = 64;
/// Digests say only whether the same page was written before, by the same owner.
const KEY: DigestKey = DigestKey(0);

/// The extent with what is known to be on it.
pub(super) struct StorePages {
    extent: Arc<dyn Extent>,
    buf: AlignedBuf,
    /// Digest of what is durable, 0 where that is not known.
    known: Box<[u64]>,
    written: Vec<(u64, u64)>,
    pub(super) header: Header,
    pub(super) next_sequence: u64,
    /// This owner's mark in records.
    pub(super) write: u64,
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::io(operation, "the dirty map", source)
}

/// Reads the two header pages.
pub(super) fn read_headers(extent: &dyn Extent) -> Result<AlignedBuf> {
    let mut pages = AlignedBuf::new(2 * PAGE_LEN).map_err(failed("reserve memory for"))?;
    if extent.size().map_err(failed("get the size of"))? < RING_AT {
        return Err(Error::MapRefused("there is no dirty map: the extent is too short".into()));
    }
    extent.read_at(0, &mut pages[..2 * PAGE_LEN]).map_err(failed("read"))?;
    Ok(pages)
}

impl StorePages {
    pub(super) fn new(extent: Arc<dyn Extent>, header: Header, write: u64) -> Result<Self> {
        let count = header.base.shape.blocks().div_ceil(PAGE_BLOCKS);
        let no_memory = || failed("reserve memory for")(io::ErrorKind::OutOfMemory.into());
        let known = usize::try_from(count).ok().and_then(|count| bytemuck::try_zeroed_slice_box(count).ok());
        let known = known.ok_or_else(no_memory)?;
        let buf = AlignedBuf::new(READ_PAGES * PAGE_LEN).map_err(failed("reserve memory for"))?;
        Ok(Self { extent, buf, known, written: Vec::new(), header, next_sequence: 0, write })
    }

    pub(super) fn ring(&self) -> Ring {
        Ring { id: self.header.ring, records: self.header.ring_records }
    }

    fn page_count(&self) -> u64 {
        len_u64(self.known.len())
    }

    fn page_offset(&self, page: u64) -> u64 {
        RING_AT + (u64::from(self.header.ring_records) + page) * PAGE_BYTES
    }

    /// Bytes that the extent must have.
    pub(super) fn extent_bytes(&self) -> u64 {
        self.page_offset(self.page_count())
    }

    pub(super) fn size(&self) -> Result<u64> {
        self.extent.size().map_err(failed("get the size of"))
    }

    pub(super) fn set_size(&self, bytes: u64) -> Result<()> {
        self.extent.set_size(bytes).map_err(failed("set the size of"))
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        self.extent.sync().map_err(failed("sync"))?;
        for (page, digest) in self.written.drain(..) {
            self.known[to_len(page)] = digest;
        }
        Ok(())
    }

    /// Writes the header with the next sequence into the older page, and syncs.
    pub(super) fn write_header(&mut self) -> Result<()> {
        self.header.sequence += 1;
        self.header.encode(&mut self.buf[..PAGE_LEN]);
        let offset = u64::from(self.header.page()) * PAGE_BYTES;
        self.extent.write_at(offset, &self.buf[..PAGE_LEN]).map_err(failed("write"))?;
        self.sync()
    }

    /// Writes the next record of the ring. Not synced.
    pub(super) fn write_record(&mut self, regions: Vec<u32>) -> Result<()> {
        let (ring, sequence) = (self.ring(), self.next_sequence);
        ring.encode(&Record { sequence, write: self.write, regions }, &mut self.buf[..PAGE_LEN]);
        let offset = RING_AT + u64::from(ring.slot(sequence)) * PAGE_BYTES;
        self.extent.write_at(offset, &self.buf[..PAGE_LEN]).map_err(failed("write"))?;
        self.next_sequence = sequence.wrapping_add(1);
        Ok(())
    }

    /// Fills the ring with empty records. Not synced.
    pub(super) fn fill_ring(&mut self) -> Result<()> {
        (0..self.header.ring_records).try_for_each(|_| self.write_record(Vec::new()))
    }

    pub(super) fn read_ring(&mut self) -> Result<AlignedBuf> {
        let len = to_len(u64::from(self.header.ring_records)) * PAGE_LEN;
        let mut pages = AlignedBuf::new(len).map_err(failed("reserve memory for"))?;
        self.extent.read_at(RING_AT, &mut pages[..len]).map_err(failed("read"))?;
        Ok(pages)
    }

    /// Writes those of `pages` that are not known to be durable as they are in the map. Not synced.
    pub(super) fn write_pages(&mut self, map: &DirtyMap, pages: impl IntoIterator<Item = u64>) -> Result<()> {
        for page in pages {
            let mut words = [0; PAGE_WORDS];
            map.claim_words(pages::blocks_of(page).start, &mut words);
            let buf = &mut self.buf[..PAGE_LEN];
            pages::encode(&words, self.header.map, page, buf);
            let digest = KEY.digest(buf);
            if self.known[to_len(page)] == digest {
                continue;
            }
            // Until the sync, either content may be there.
            self.known[to_len(page)] = 0;
            let offset = self.page_offset(page);
            self.extent.write_at(offset, &self.buf[..PAGE_LEN]).map_err(failed("write"))?;
            self.written.push((page, digest));
        }
        Ok(())
    }

    pub(super) fn all_pages(&self) -> std::ops::Range<u64> {
        0..self.page_count()
    }

    /// The pages that hold the blocks of regions.
    pub(super) fn pages_of(&self, regions: &[u32]) -> BTreeSet<u64> {
        let region_blocks = self.header.region_bytes / self.header.base.shape.granularity().bytes();
        let of = |region: &u32| {
            let first = u64::from(*region) * region_blocks;
            first / PAGE_BLOCKS..=(first + region_blocks - 1) / PAGE_BLOCKS
        };
        let last = self.page_count();
        regions.iter().flat_map(of).filter(|page| *page < last).collect()
    }

    /// Reads all pages into the map; those that are not intact make all of their blocks dirty. Returns how many these are.
    pub(super) fn load(&mut self, map: &DirtyMap, known: bool) -> Result<u64> {
        let (mut damaged, blocks) = (0, self.header.base.shape.blocks());
        for first in self.all_pages().step_by(READ_PAGES) {
            let count = to_len((self.page_count() - first).min(len_u64(READ_PAGES)));
            let offset = self.page_offset(first);
            self.extent.read_at(offset, &mut self.buf[..count * PAGE_LEN]).map_err(failed("read"))?;
            for (number, page) in (first..).zip(self.buf[..count * PAGE_LEN].chunks(PAGE_LEN)) {
                let own = pages::blocks_of(number);
                match pages::decode(page, self.header.map, number, blocks) {
                    Some(words) => {
                        map.set_words(own.start, &words);
                        self.known[to_len(number)] = if known { KEY.digest(page) } else { 0 };
                    }
                    None => {
                        damaged += 1;
                        map.set_blocks(own);
                    }
                }
            }
        }
        Ok(damaged)
    }
}
