//! A live volume as a file: any offset, any length.
//!
//! Invariants:
//! - *one write, one seq*: a write that does not begin and end at sectors is completed with what is there and written in one
//!   piece, while no other write of those sectors is under way;
//! - *fixed size*: nothing grows the disk; a write that reaches past the end is cut there, one that begins there is refused.

use super::{errno, range_lock::RangeLocks};
use cdp_core::{
    Result, Snapshot, Volume,
    units::{SECTOR_BYTES, SECTOR_LEN},
};
use fuser::Errno;
use std::cell::RefCell;

thread_local! {
    /// Where each serving thread completes its requests to whole sectors.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a range of a live disk is set to by a request without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blank {
    /// Written with zeroes.
    Zeroes,
    /// Discarded; reads as zeroes.
    Discarded,
}

/// A live volume, with the locks of its writes.
pub struct LiveDisk {
    volume: Volume,
    locks: RangeLocks,
}

/// A range of bytes and the sectors around it.
struct Span {
    start: u64,
    end: u64,
    /// Where the range begins within the sectors.
    lead: usize,
    sectors_len: usize,
}

impl Span {
    fn new(offset: u64, length: usize) -> Self {
        let start = offset - offset % SECTOR_BYTES;
        let lead = within_sector(offset);
        let sectors_len = (lead + length).next_multiple_of(SECTOR_LEN);
        Self { start, end: start + position(sectors_len), lead, sectors_len }
    }
}

impl LiveDisk {
    /// The file of a volume.
    pub fn new(volume: Volume) -> Self {
        Self { volume, locks: RangeLocks::default() }
    }

    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Reads up to `length` bytes, fewer at the end of the disk, and hands them to `use_data`.
    pub fn read<T>(&self, offset: u64, length: u32, use_data: impl FnOnce(&[u8]) -> T) -> Result<T, Errno> {
        read_any(self.volume.bytes(), offset, length, |start, buf| self.volume.read(start, buf), use_data)
    }

    /// Writes `data`, and returns how many bytes of it lie on the disk.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let left = self.volume.bytes().saturating_sub(offset);
        let data = &data[..data.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        if data.is_empty() {
            return Err(Errno::ENOSPC);
        }
        let span = Span::new(offset, data.len());
        let _guard = self.locks.lock(span.start..span.end);
        self.write_locked(&span, offset, data).map_err(|error| errno::of(&error))?;
        Ok(data.len())
    }

    /// Writes `data` while its sectors are locked.
    fn write_locked(&self, span: &Span, offset: u64, data: &[u8]) -> Result<()> {
        if span.lead == 0 && span.sectors_len == data.len() {
            self.volume.write(offset, data)?;
            return Ok(());
        }
        with_buffer(span.sectors_len, |buf| {
            // Only the first and the last sector can be partly written.
            self.volume.read(span.start, &mut buf[..SECTOR_LEN])?;
            if span.sectors_len > SECTOR_LEN {
                let last = span.sectors_len - SECTOR_LEN;
                self.volume.read(span.start + position(last), &mut buf[last..])?;
            }
            buf[span.lead..span.lead + data.len()].copy_from_slice(data);
            self.volume.write(span.start, buf)?;
            Ok(())
        })
    }

    /// Makes a range read as zeroes. Only whole sectors can be discarded; what is left at the ends is written.
    pub fn blank(&self, offset: u64, length: u64, how: Blank) -> Result<(), Errno> {
        let end = offset.saturating_add(length).min(self.volume.bytes());
        if offset >= end {
            return Ok(());
        }
        let outer_start = offset - offset % SECTOR_BYTES;
        let _guard = self.locks.lock(outer_start..end.next_multiple_of(SECTOR_BYTES));
        let blanked = || -> Result<()> {
            let inner_start = offset.next_multiple_of(SECTOR_BYTES);
            let inner_end = end - end % SECTOR_BYTES;
            if inner_start >= inner_end {
                // Within one sector, or the ends of two.
                let middle = inner_start.min(end);
                self.write_zeroes_within(offset, middle)?;
                return self.write_zeroes_within(middle, end);
            }
            self.write_zeroes_within(offset, inner_start)?;
            match how {
                Blank::Zeroes => self.volume.write_zeroes(inner_start, inner_end - inner_start, None)?,
                Blank::Discarded => self.volume.discard(inner_start, inner_end - inner_start, None)?,
            };
            self.write_zeroes_within(inner_end, end)
        };
        blanked().map_err(|error| errno::of(&error))
    }

    /// Writes zeroes over a part of one sector that is locked.
    fn write_zeroes_within(&self, start: u64, end: u64) -> Result<()> {
        if start == end {
            return Ok(());
        }
        let zeroes = [0; SECTOR_LEN];
        let data = &zeroes[..within_sector(end - start - 1) + 1];
        self.write_locked(&Span::new(start, data.len()), start, data)
    }

    /// Makes everything that was written so far durable.
    pub fn flush(&self) -> Result<(), Errno> {
        self.volume.flush().map(drop).map_err(|error| errno::of(&error))
    }
}

/// Reads up to `length` bytes of an image, fewer at its end.
pub fn read_snapshot<T>(
    snapshot: &Snapshot,
    offset: u64,
    length: u32,
    use_data: impl FnOnce(&[u8]) -> T,
) -> Result<T, Errno> {
    read_any(snapshot.bytes(), offset, length, |start, buf| snapshot.read(start, buf), use_data)
}

fn read_any<T>(
    bytes: u64,
    offset: u64,
    length: u32,
    read: impl FnOnce(u64, &mut [u8]) -> Result<()>,
    use_data: impl FnOnce(&[u8]) -> T,
) -> Result<T, Errno> {
    let left = bytes.saturating_sub(offset).min(u64::from(length));
    let length = usize::try_from(left).map_err(|_| Errno::EINVAL)?;
    if length == 0 {
        return Ok(use_data(&[]));
    }
    let span = Span::new(offset, length);
    with_buffer(span.sectors_len, |buf| {
        read(span.start, buf).map_err(|error| errno::of(&error))?;
        Ok(use_data(&buf[span.lead..span.lead + length]))
    })
}

/// Lends the thread's buffer.
fn with_buffer<T>(length: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        work(&mut buffer[..length])
    })
}

fn within_sector(offset: u64) -> usize {
    usize::try_from(offset % SECTOR_BYTES).expect("a sector fits in memory")
}

fn position(length: usize) -> u64 {
    u64::try_from(length).expect("buffers never exceed 64 bits")
}
