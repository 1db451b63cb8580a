//! Importing an existing disk as one seq.
//!
//! The import takes its seq at the beginning and its volume appears at the end: until then nothing refers to it, and writes to other
//! volumes go on. Zeroes and holes are not stored.

use super::{CreateOptions, OpenOptions, Store, Volume, check_volume};
use crate::{
    error::{Error, Result},
    format::{all_zero, meta::MetaRecord},
    group::Stamp,
    io::Storage,
    journal::PreparedWrite,
    restore::Progress,
    units::{
        BLOCK_BYTES, BLOCK_LEN, SECTOR_BYTES, SECTOR_LEN, Sector, SectorRange, Seq, TimeNs, VolumeId, len_u64,
    },
};
use std::{io, sync::Arc};

/// Longest piece that is asked of a source in one call, bytes.
const PIECE_LEN: usize = 1 << 20;

/// Where an import reads from.
pub trait ImportSource {
    /// The next data: fills the front of `buf` and says at which byte offset it lies and how long it is; `None` at the end. Offsets
    /// ascend without overlap; what is left out reads as zeroes. Offsets are multiples of 4096, and so are lengths but for the last.
    ///
    /// # Errors
    /// Those of the source, which end the import.
    fn next(&mut self, buf: &mut [u8]) -> io::Result<Option<(u64, usize)>>;
}

impl Store {
    /// Makes a new store whose first volume begins with the content of `source`. The import is seq 1, dated `time` or now.
    ///
    /// # Errors
    /// As [`Store::create`], and those of the source. What was made so far is then not a complete store.
    pub fn create_with_import(
        storage: Arc<dyn Storage>,
        create: &CreateOptions,
        open: OpenOptions,
        source: &mut dyn ImportSource,
        time: Option<TimeNs>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        check_volume(&create.volume, create.bytes)?;
        let store = Self::create_empty(storage, open)?;
        store.import_volume(&create.volume, create.bytes, source, time, progress)?;
        Ok(store)
    }

    /// Adds a volume of `bytes` bytes that begins with the content of `source`, as one seq dated `time` or now. Durable when this
    /// returns; after a crash before that the volume does not exist.
    ///
    /// # Errors
    /// `Exists`, `InvalidArgument`, `TimeBackwards`, those of the source as `Io`, `ReadOnly`, `NoSpace`, `Io`, `Poisoned`.
    pub fn import_volume(
        &self,
        name: &str,
        bytes: u64,
        source: &mut dyn ImportSource,
        time: Option<TimeNs>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Volume> {
        check_volume(name, bytes)?;
        let group = self.owner()?;
        let mut id = VolumeId::ZERO;
        group.append_meta(
            |_, _| {
                id = self.new_volume_id(name)?;
                Ok(vec![MetaRecord::VolumeIdsTaken(id.next())])
            },
            None,
        )?;
        let seq = group.take_stage(id, time.map_or(Stamp::Now, Stamp::At))?;
        self.stage(id, seq, bytes, source, progress)?;
        let added = MetaRecord::VolumeAdded { id, name: name.to_owned(), bytes, exists_from: seq };
        group.append_meta(
            |_, _| {
                if group.catalog.read().volume_named(name).is_some() {
                    return Err(Error::Exists { what: "volume", name: name.to_owned() });
                }
                Ok(vec![added])
            },
            None,
        )?;
        self.volume(Some(name))
    }

    fn stage(
        &self,
        id: VolumeId,
        seq: Seq,
        bytes: u64,
        source: &mut dyn ImportSource,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let group = self.owner()?;
        let mut buffer = vec![0; PIECE_LEN];
        let mut next = 0;
        while let Some((offset, len)) =
            source.next(&mut buffer).map_err(|error| Error::io("read", "the source of the import", error))?
        {
            let end = offset.checked_add(len_u64(len)).filter(|end| *end <= bytes);
            let Some(end) =
                end.filter(|_| len <= PIECE_LEN && offset >= next && offset.is_multiple_of(BLOCK_BYTES))
            else {
                return Err(Error::InvalidArgument(format!(
                    "the source of the import gave bytes {offset}+{len}, out of order, unaligned or past the end ({bytes})"
                )));
            };
            next = end.next_multiple_of(BLOCK_BYTES);
            // A last part of a sector is filled up with zeroes.
            let padded = len.next_multiple_of(SECTOR_LEN);
            if padded > buffer.len() {
                buffer.resize(padded, 0);
            }
            buffer[len..padded].fill(0);
            for (from, run) in data_runs(&buffer[..padded]) {
                let start = Sector::new((offset + len_u64(from)) / SECTOR_BYTES);
                let range = SectorRange { start, sectors: len_u64(run.len()) / SECTOR_BYTES };
                group.append_staged(&PreparedWrite::data(id, range, run, group.shared.key), seq)?;
            }
            progress(Progress { done: end, total: bytes });
        }
        Ok(())
    }
}

/// The runs of blocks that are not all zeroes, with their offsets.
fn data_runs(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs = Vec::new();
    let mut from = None;
    for (index, block) in bytes.chunks(BLOCK_LEN).enumerate() {
        let at = index * BLOCK_LEN;
        match (all_zero(block), from) {
            (false, None) => from = Some(at),
            (true, Some(start)) => {
                runs.push((start, &bytes[start..at]));
                from = None;
            }
            _ => {}
        }
    }
    if let Some(start) = from {
        runs.push((start, &bytes[start..]));
    }
    runs
}

const _: () = assert!(PIECE_LEN.is_multiple_of(BLOCK_LEN));
