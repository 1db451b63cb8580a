//! Copies survivors into compacted segments: read in long strides, verified by their digests, written in order, read back.

use super::{
    Round,
    survivors::{Moved, Survivor},
};
use crate::{
    error::{Error, Result},
    format::{
        PAGE_BYTES, PAGE_LEN,
        compacted::{CHUNK_LEN, CompactedHeader, CompactedSegment, TABLE_AT_MAX, encode_table},
    },
    group::{Group, Manifest, TRANSFER_LEN, random_uuid},
    io::{AlignedBuf, Extent},
    sabotage::Switch,
    units::{ExtentId, SECTOR_BYTES, Seq, len_u64, to_len},
};
use std::{ops::Range, sync::Arc};

/// Sectors between two survivors that are read along rather than skipped.
const GAP_SECTORS: u64 = 128;

/// Survivors on their way.
pub(super) struct Copying {
    survivors: Vec<Survivor>,
    next: usize,
    places: Vec<((u64, u32), (u64, u32))>,
    made: Vec<CompactedSegment>,
    current: Option<Output>,
    buffer: Option<AlignedBuf>,
}

/// A compacted segment that is being written.
struct Output {
    segment: CompactedSegment,
    handle: Arc<dyn Extent>,
    buffer: AlignedBuf,
    /// Bytes written, and bytes in the buffer behind them.
    written: u64,
    filled: usize,
    /// Of each chunk that was written.
    checksums: Vec<u32>,
    /// Survivors that it takes.
    share: Range<usize>,
}

impl Copying {
    /// Nothing copied yet. `survivors` ascend by group and place.
    pub fn new(survivors: Vec<Survivor>) -> Self {
        Self { survivors, next: 0, places: Vec::new(), made: Vec::new(), current: None, buffer: None }
    }

    /// Copies about `bytes` bytes more; whether all is copied.
    ///
    /// # Errors
    /// `Damaged` when a survivor is not what was written; `Io`, `NoSpace`.
    pub fn step(&mut self, group: &Group, round: &Round, bytes: u64) -> Result<bool> {
        let mut left = to_len(bytes.clamp(len_u64(TRANSFER_LEN), 64 << 20));
        while left > 0 {
            if let Some(done) = self.current.take_if(|output| output.share.end == self.next) {
                self.made.push(done.finish(group)?);
            }
            if self.next == self.survivors.len() {
                return Ok(true);
            }
            if self.current.is_none() {
                let share = self.next_share();
                self.current = Some(Output::create(group, round, share, &self.survivors)?);
            }
            left = left.saturating_sub(self.copy_stride(group)?);
        }
        Ok(false)
    }

    /// The survivors of the next compacted segment: of one group, as many as fit.
    fn next_share(&self) -> Range<usize> {
        let rest = &self.survivors[self.next..];
        let mut bytes = PAGE_BYTES;
        let fits = rest.iter().take_while(|one| {
            bytes += u64::from(one.sectors) * SECTOR_BYTES;
            one.group == rest[0].group && bytes <= TABLE_AT_MAX
        });
        self.next..self.next + fits.count()
    }

    /// Reads one stride of the old segment and takes its survivors over. Returns the bytes read.
    fn copy_stride(&mut self, group: &Group) -> Result<usize> {
        let output = self.current.as_mut().expect("an output was made");
        let rest = &self.survivors[self.next..output.share.end];
        let segment = rest[0].segment;
        let page_sectors = PAGE_BYTES / SECTOR_BYTES;
        let start = u64::from(rest[0].sector) / page_sectors * page_sectors;
        let mut end = start;
        let count = rest
            .iter()
            .take_while(|one| {
                let to = u64::from(one.sector) + u64::from(one.sectors);
                let fits = one.segment == segment
                    && (u64::from(one.sector) <= end + GAP_SECTORS || end == start)
                    && to_len((to - start) * SECTOR_BYTES).next_multiple_of(PAGE_LEN) <= TRANSFER_LEN;
                if fits {
                    end = end.max(to);
                }
                fits
            })
            .count();
        let len = to_len((end - start) * SECTOR_BYTES).next_multiple_of(PAGE_LEN);
        let buffer = match &mut self.buffer {
            Some(buffer) => buffer,
            none => none.insert(group.take_transfer_buffer()?),
        };
        let extent = ExtentId::new(segment);
        group.shared.read_into(extent, start * SECTOR_BYTES, &mut buffer[..len])?;
        for one in &rest[..count] {
            let from = to_len((u64::from(one.sector) - start) * SECTOR_BYTES);
            let bytes = &buffer[from..from + to_len(u64::from(one.sectors) * SECTOR_BYTES)];
            if group.shared.key.digest(bytes) != one.digest {
                let seqs = (Seq::new(one.seq), Seq::new(one.seq));
                let (offset, length) = (u64::from(one.sector) * SECTOR_BYTES, len_u64(bytes.len()));
                return Err(group.shared.damage(
                    extent,
                    offset,
                    length,
                    seqs,
                    "payload that is still needed",
                ));
            }
            let sector =
                u32::try_from(output.position() / SECTOR_BYTES).expect("bounded by the size of a segment");
            self.places.push(((one.segment, one.sector), (output.segment.extent.get(), sector)));
            output.push(bytes)?;
        }
        self.next += count;
        Ok(len)
    }

    /// Where everything is now.
    pub fn finish(self) -> (Moved, Vec<CompactedSegment>) {
        (Moved::new(self.places), self.made)
    }
}

impl Output {
    fn create(group: &Group, round: &Round, share: Range<usize>, survivors: &[Survivor]) -> Result<Self> {
        let payload: u64 =
            survivors[share.clone()].iter().map(|one| u64::from(one.sectors) * SECTOR_BYTES).sum();
        let bytes = 2 * PAGE_BYTES + payload.next_multiple_of(PAGE_BYTES);
        let extent = match &*group.manifest.lock() {
            Manifest::Owner(log) => log.allocate_extent(),
            Manifest::Reader(_) => return Err(Error::ReadOnly),
        };
        let failed = |operation, error| Error::io(operation, group.shared.storage.describe(extent), error);
        let mut buffer = group.take_transfer_buffer()?;
        let handle = group.shared.storage.create(extent, bytes).map_err(|error| failed("create", error))?;
        round.created.lock().push(extent);
        let header = CompactedHeader {
            store: group.shared.store,
            segment: random_uuid()?,
            extent,
            owner_epoch: group.shared.owner_epoch,
        };
        buffer[..PAGE_LEN].copy_from_slice(&header.encode());
        let segment = CompactedSegment { extent, bytes, uuid: header.segment };
        Ok(Self { segment, handle, buffer, written: 0, filled: PAGE_LEN, checksums: Vec::new(), share })
    }

    fn position(&self) -> u64 {
        self.written + len_u64(self.filled)
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(TRANSFER_LEN - self.filled));
            self.buffer[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == TRANSFER_LEN {
                self.write_out()?;
            }
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        let written = self.handle.write_at(self.written, &self.buffer[..self.filled]);
        written.map_err(|error| Error::io("write", format!("extent {}", self.segment.extent), error))?;
        self.checksums.extend(self.buffer[..self.filled].chunks(CHUNK_LEN).map(crc32fast::hash));
        self.written += len_u64(self.filled);
        self.filled = 0;
        Ok(())
    }

    /// Writes the rest and the table, reads all of it back, and makes it durable.
    fn finish(mut self, group: &Group) -> Result<CompactedSegment> {
        let extent = self.segment.extent;
        let failed = |operation, error| Error::io(operation, group.shared.storage.describe(extent), error);
        let padded = self.filled.next_multiple_of(PAGE_LEN);
        self.buffer[self.filled..padded].fill(0);
        self.filled = padded;
        if self.filled > 0 {
            self.write_out()?;
        }
        assert_eq!(self.written, self.segment.table_at(), "the payload is as long as it was said to be");
        for (at, checksum) in (0..self.written).step_by(CHUNK_LEN).zip(&self.checksums) {
            let len = to_len(len_u64(CHUNK_LEN).min(self.written - at));
            self.handle.read_at(at, &mut self.buffer[..len]).map_err(|error| failed("read back", error))?;
            if crc32fast::hash(&self.buffer[..len]) != *checksum {
                let what = "a compacted segment does not read back as it was written";
                return Err(group.shared.damage(extent, at, len_u64(len), (Seq::ZERO, Seq::ZERO), what));
            }
        }
        let table = encode_table(&self.checksums, self.segment.uuid, self.written);
        self.buffer[..PAGE_LEN].copy_from_slice(&table);
        self.handle
            .write_at(self.written, &self.buffer[..PAGE_LEN])
            .map_err(|error| failed("write", error))?;
        if !group.shared.sabotage.on(Switch::SkipCompactedSync) {
            self.handle.sync().map_err(|error| failed("sync", error))?;
            group.shared.storage.sync_names().map_err(|error| failed("sync names of", error))?;
        }
        group.shared.handles.insert(self.segment.extent, self.handle);
        Ok(self.segment)
    }
}
