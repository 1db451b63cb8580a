//! The state record on its extent: extent 0 of the set's storage, two slots.

use super::record::{SLOT_BYTES, StateRecord};
use crate::{
    Error, Result,
    error::Damage,
    io::{AlignedBuf, Extent, Storage},
    units::{ExtentId, Seq, len_u64},
};
use std::{io, sync::Arc};

/// The extent of the state record.
pub(super) const STATE_EXTENT: ExtentId = ExtentId::ZERO;
const SLOTS: u32 = 2;

/// The state in force, and the way to change it.
pub(super) struct StateFile {
    extent: Arc<dyn Extent>,
    current: StateRecord,
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::io(operation, "the state of the mirror set", source)
}

impl StateFile {
    /// Makes the record of a new set. The name is not yet durable.
    pub(super) fn create(storage: &dyn Storage, first: StateRecord) -> Result<Self> {
        let extent = storage.create(STATE_EXTENT, u64::from(SLOTS) * len_u64(SLOT_BYTES));
        let file = Self { extent: extent.map_err(failed("create"))?, current: first };
        file.write(&file.current)?;
        Ok(file)
    }

    /// Reads the newest intact record.
    ///
    /// # Errors
    /// `NotFound` when there is no set, `Damaged` when no slot is intact, `Io`.
    pub(super) fn open(storage: &dyn Storage) -> Result<Self> {
        let extent = match storage.open(STATE_EXTENT) {
            Ok(extent) => extent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = storage.describe(STATE_EXTENT);
                return Err(Error::NotFound { what: "mirror set", name });
            }
            Err(error) => return Err(failed("open")(error)),
        };
        // What a killed process has written must not be trusted before it is durable.
        extent.sync().map_err(failed("sync"))?;
        let mut found = Vec::new();
        let mut reason = "is cut short".to_owned();
        let mut buf = AlignedBuf::new(SLOT_BYTES).map_err(failed("reserve memory for"))?;
        for slot in 0..SLOTS {
            match extent.read_at(u64::from(slot) * len_u64(SLOT_BYTES), &mut buf[..SLOT_BYTES]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(failed("read")(error)),
            }
            match StateRecord::decode(&buf[..SLOT_BYTES], slot) {
                Ok(record) => found.push((slot, record)),
                Err(error) => reason = error.to_string(),
            }
        }
        let newest = found.iter().map(|(_, record)| record).max_by_key(|record| record.sequence).cloned();
        let Some(current) = newest else {
            return Err(Error::Damaged(Box::new(Damage {
                extent: STATE_EXTENT,
                file: storage.describe(STATE_EXTENT),
                offset: 0,
                length: u64::from(SLOTS) * len_u64(SLOT_BYTES),
                from_seq: Seq::ZERO,
                to_seq: Seq::ZERO,
                what: format!("the state of the mirror set: {reason}"),
            })));
        };
        let file = Self { extent, current };
        // An update begins with slot 0: the state that is in force must be in both before, or it could be lost with the first.
        for slot in 0..SLOTS {
            if !found.iter().any(|(other, record)| *other == slot && *record == file.current) {
                file.write_slot(&file.current, slot)?;
            }
        }
        Ok(file)
    }

    /// The state in force.
    pub(super) fn current(&self) -> &StateRecord {
        &self.current
    }

    /// Changes the state: durable, in both slots, when it returns.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; which of the two states is durable is then not known.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut StateRecord)) -> Result<()> {
        self.change_only(change);
        self.current.sequence += 1;
        self.write(&self.current)
    }

    /// Changes the state in memory: a defect wherever something relies on it.
    pub(super) fn change_only(&mut self, change: impl FnOnce(&mut StateRecord)) {
        change(&mut self.current);
    }

    fn write(&self, record: &StateRecord) -> Result<()> {
        (0..SLOTS).try_for_each(|slot| self.write_slot(record, slot))
    }

    fn write_slot(&self, record: &StateRecord, slot: u32) -> Result<()> {
        let bytes = record.encode(slot);
        let mut buf = AlignedBuf::new(bytes.len()).map_err(failed("reserve memory for"))?;
        buf[..bytes.len()].copy_from_slice(&bytes);
        let offset = u64::from(slot) * len_u64(SLOT_BYTES);
        self.extent.write_at(offset, &buf[..bytes.len()]).map_err(failed("write"))?;
        self.extent.sync().map_err(failed("sync"))
    }
}
