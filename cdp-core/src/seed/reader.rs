//! A seed set as the source of a resync.
//!
//! Reads come in ascending order, so the set is read forward, a batch at a time; a read further back begins again at the data file that has it. What a set says
//! nothing of reads as zeroes, or for one that goes on from an older state as the volume has it.

use super::{
    layout::{Batch, SeedAbout, SeedState},
    set::{Batches, SeedSet},
};
use crate::{
    Volume,
    catalog::SourceStamp,
    dirty_map::ByteRange,
    error::{Error, Result},
    resync::SourceReader,
    units::{len_u64, to_len},
};
use parking_lot::Mutex;
use std::{io, sync::Arc};
use twox_hash::XxHash3_64;

/// Where a reader stands.
#[derive(Default)]
struct Cursor {
    /// The data file that is being read.
    file: usize,
    batches: Option<Batches>,
    /// The batch that was read last, and its end on the volume.
    current: Option<(Batch, u64)>,
    /// Everything that ends here or before lies in front of it.
    floor: u64,
}

/// A seed set, read like a disk in the state that the set leads to.
pub(crate) struct SeedReader {
    set: Arc<SeedSet>,
    /// The volume in the state that the set goes on from.
    below: Option<Volume>,
    cursor: Mutex<Cursor>,
    failure: Mutex<Option<Error>>,
}

/// The stamp of a volume in a state; `base`: a number of what it came from.
fn stamp(about: &SeedAbout, state: &SeedState, base: u64) -> SourceStamp {
    let mut from = about.store.0.to_vec();
    from.extend(about.volume.get().to_le_bytes());
    SourceStamp {
        device: XxHash3_64::oneshot(&from),
        inode: base,
        bytes: state.bytes,
        modified_ns: state.seq.get(),
        changed_ns: hash_of(state),
    }
}

fn hash_of(state: &SeedState) -> u64 {
    let words = [state.lineage.get(), state.seq.get(), state.time.get(), state.bytes];
    XxHash3_64::oneshot(words.map(u64::to_le_bytes).as_flattened())
}

/// What a volume that took a set over is recorded to be equal to.
pub(crate) fn stamp_of(about: &SeedAbout) -> SourceStamp {
    stamp(about, &about.at, about.since.map_or(0, |since| hash_of(&since).max(1)))
}

/// Whether a stamp is that of the state that a set goes on from, or with `None` of the one that it leads to, however it came about.
pub(crate) fn is_state(found: SourceStamp, about: &SeedAbout, state: &SeedState) -> bool {
    stamp(about, state, found.inode) == found
}

impl SeedReader {
    /// Reads `set`; `below` is the volume for a set that goes on from an older state.
    pub fn new(set: Arc<SeedSet>, below: Option<Volume>) -> Self {
        Self { set, below, cursor: Mutex::default(), failure: Mutex::default() }
    }

    /// The failure that ended a read, if one did.
    pub fn take_failure(&self) -> Option<Error> {
        self.failure.lock().take()
    }

    /// Calls `found` with every range that the set says something of, in ascending order.
    pub fn ranges(set: &SeedSet, found: &mut dyn FnMut(ByteRange)) -> Result<()> {
        for number in 0..set.files().len() {
            let mut batches = set.batches(number)?;
            while batches.at().is_some() {
                let head = batches.head()?;
                batches.take(&head)?.extents.iter().for_each(|extent| found(extent.range));
            }
        }
        Ok(())
    }

    /// Stands at the first batch that ends behind `offset`; `None` past the last.
    fn seek<'a>(&self, cursor: &'a mut Cursor, offset: u64) -> Result<Option<&'a Batch>> {
        if offset < cursor.floor {
            *cursor = Cursor::default();
        }
        while cursor.current.as_ref().is_none_or(|(_, end)| *end <= offset) {
            let files = self.set.files();
            let wanted = files.partition_point(|file| file.end <= offset);
            if wanted >= files.len() {
                return Ok(None);
            }
            if cursor.batches.is_none() || cursor.file != wanted {
                let floor = wanted.checked_sub(1).map_or(0, |before| files[before].end);
                *cursor =
                    Cursor { file: wanted, batches: Some(self.set.batches(wanted)?), current: None, floor };
            }
            let Some(batches) = cursor.batches.as_mut().filter(|batches| batches.at().is_some()) else {
                // Its file ends further on than its batches, which their heads do not allow.
                return Ok(None);
            };
            if let Some((_, end)) = &cursor.current {
                cursor.floor = *end;
            }
            let head = batches.head()?;
            if head.end <= offset {
                batches.pass(&head);
                (cursor.current, cursor.floor) = (None, head.end);
            } else {
                cursor.current = Some((batches.take(&head)?, head.end));
            }
        }
        Ok(cursor.current.as_ref().map(|(batch, _)| batch))
    }

    fn fill(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut cursor = self.cursor.lock();
        let (mut at, end) = (offset, offset + len_u64(buf.len()));
        while at < end {
            let part = |to: u64| to_len(at - offset)..to_len(to - offset);
            let batch = self.seek(&mut cursor, at)?;
            let next = batch.and_then(|batch| {
                let place = batch.extents.partition_point(|extent| extent.range.end() <= at);
                batch.extents.get(place).map(|extent| (batch, extent))
            });
            let known_from = next.map_or(end, |(_, extent)| extent.range.offset.min(end));
            if known_from > at {
                let unknown = &mut buf[part(known_from)];
                match &self.below {
                    Some(volume) => volume.read(at, unknown)?,
                    None => unknown.fill(0),
                }
                at = known_from;
                continue;
            }
            let Some((batch, extent)) = next else { break };
            let to = extent.range.end().min(end);
            match batch.data(extent) {
                Some(data) => {
                    let from = to_len(at - extent.range.offset);
                    buf[part(to)].copy_from_slice(&data[from..from + to_len(to - at)]);
                }
                None => buf[part(to)].fill(0),
            }
            at = to;
        }
        Ok(())
    }

    fn data_from(&self, offset: u64) -> Result<Option<u64>> {
        let mut cursor = self.cursor.lock();
        let Some(batch) = self.seek(&mut cursor, offset)? else {
            return Ok(self.below.as_ref().map(|_| offset));
        };
        let place = batch.extents.partition_point(|extent| extent.range.end() <= offset);
        let Some(extent) = batch.extents.get(place) else { return Ok(Some(offset)) };
        Ok(Some(match (&self.below, extent.range.offset <= offset, extent.data_at) {
            (_, true, None) => extent.range.end(),
            (None, false, _) => extent.range.offset,
            _ => offset,
        }))
    }

    /// The first failure is kept whole; the resync hears of it as a failed read.
    fn kept<T>(&self, result: Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let text = error.to_string();
            self.failure.lock().get_or_insert(error);
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }
}

impl SourceReader for SeedReader {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.kept(self.fill(offset, buf))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.kept(self.data_from(offset))
    }

    fn stamp(&self) -> io::Result<Option<SourceStamp>> {
        Ok(Some(stamp_of(self.set.about())))
    }
}
