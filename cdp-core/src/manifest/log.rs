//! The manifest's append log: appending durable records, rolling over to a new one.
//!
//! Invariant *one at a time*: a record is synced before the next is issued and before its edits take effect. Invariant
//! *fresh file*: a manifest is written by one owner only; each open for writing starts a new one, so nothing is ever appended
//! behind a torn tail. A failed write or sync is not retried on the same extent: the log rolls over to a new one, and when that
//! fails too the next edits try again. Only a superblock in doubt ends the log.

use super::{ManifestState, SuperblockSlot};
use crate::{
    error::{Error, Result},
    format::{
        PAGE_BYTES, PAGE_LEN, Uuid,
        manifest::{Edit, ManifestHeader, RECORD_BODY_MAX, RecordPlace, encode_record},
        superblock::Superblock,
    },
    io::{AlignedBuf, Extent, Storage},
    limits::{MANIFEST_BYTES_ROLL, MANIFEST_RECORD_BYTES_MAX},
    sabotage::{Sabotage, Switch},
    units::{ExtentId, OwnerEpoch, len_u64},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Space taken ahead when a manifest is made, beyond its first snapshot, bytes.
const HEADROOM_BYTES: u64 = 256 << 10;

/// The manifest of an owner.
pub struct ManifestLog {
    storage: Arc<dyn Storage>,
    superblock: SuperblockSlot,
    state: ManifestState,
    file: ManifestFile,
    extents: Arc<AtomicU64>,
    /// The end of the file is in doubt: whatever comes next goes to a new one.
    over: bool,
    failed: Option<String>,
}

struct ManifestFile {
    extent: ExtentId,
    handle: Arc<dyn Extent>,
    end: u64,
    number: u64,
    roll_at: u64,
    sabotage: Sabotage,
}

impl ManifestLog {
    /// Starts a new manifest that begins with `state`, and makes the superblock name it. `change` may change the superblock
    /// in the same update.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Fenced`; the old manifest then stays in force.
    pub fn start(
        storage: Arc<dyn Storage>,
        mut superblock: SuperblockSlot,
        mut state: ManifestState,
        first_record: u64,
        change: impl FnOnce(&mut Superblock),
        sabotage: Sabotage,
    ) -> Result<Self> {
        let mut next = superblock.current().clone();
        change(&mut next);
        let extents = Arc::new(AtomicU64::new(state.next_extent.get()));
        let extent = next_extent(&extents);
        let file = write_manifest(
            &*storage,
            extent,
            next.store,
            next.owner_epoch,
            first_record,
            &mut state,
            sabotage,
        )?;
        superblock.update(|current| {
            *current = Superblock {
                generation: current.generation,
                manifest: file.extent,
                manifest_bytes: file.end,
                ..next
            };
        })?;
        Ok(Self { storage, superblock, state, file, extents, over: false, failed: None })
    }

    /// The fold of all durable edits.
    pub fn state(&self) -> &ManifestState {
        &self.state
    }

    /// The extent of the manifest in force.
    pub fn extent(&self) -> ExtentId {
        self.file.extent
    }

    /// Number of durable records in the life of the store.
    pub fn durable_records(&self) -> u64 {
        self.file.number
    }

    /// The superblock in force.
    pub fn superblock(&self) -> &Superblock {
        self.superblock.current()
    }

    /// A fresh extent number.
    pub fn allocate_extent(&self) -> ExtentId {
        next_extent(&self.extents)
    }

    /// Where fresh extent numbers come from.
    pub fn extents(&self) -> Arc<AtomicU64> {
        self.extents.clone()
    }

    /// Writes the superblock once more, which replaces copies that are damaged.
    ///
    /// # Errors
    /// As for any update of it.
    pub fn refresh_superblock(&mut self) -> Result<()> {
        self.superblock.update(|_| {})
    }

    /// Makes a set of edits durable, all or none, and applies it. A set beyond the size of a record is cut at edits, in
    /// order; only [`Edit::Catalog`] edits, which may be repeated, come in such numbers.
    ///
    /// # Errors
    /// `NoSpace`, `Io`, `Poisoned`; nothing has taken effect then.
    ///
    /// # Panics
    /// When an edit does not fit the state, which is a defect.
    pub fn append(&mut self, edits: &[Edit]) -> Result<()> {
        if let Some(reason) = &self.failed {
            return Err(Error::Poisoned(reason.clone()));
        }
        for (body, edits) in cut_into_bodies(edits) {
            let appended = match self.over {
                true => Err(None),
                false => self.file.append(self.superblock.current().store, &body).map_err(Some),
            };
            if let Err(error) = appended {
                // What was written may or may not be durable: this file is over. A new one holds the old state and
                // these edits, and takes effect by the superblock or not at all.
                let mut state = self.state.clone();
                edits.iter().for_each(|edit| state.apply(edit).expect("edits fit the state"));
                self.roll(state).map_err(|second| {
                    let full = matches!((&error, &second), (Some(Error::NoSpace), Error::NoSpace));
                    self.over |= !full;
                    error.unwrap_or(second)
                })?;
                continue;
            }
            edits.iter().for_each(|edit| self.state.apply(edit).expect("edits fit the state"));
        }
        if self.file.end > self.file.roll_at {
            self.roll(self.state.clone())?;
        }
        Ok(())
    }

    /// Marks the store as closed: the last act of an owner.
    ///
    /// # Errors
    /// As [`ManifestLog::append`].
    pub fn close(&mut self) -> Result<()> {
        if let Some(reason) = &self.failed {
            return Err(Error::Poisoned(reason.clone()));
        }
        if self.over {
            self.roll(self.state.clone())?;
        }
        let end = self.file.end;
        self.file.handle.set_size(end).map_err(|error| Error::io("cut", "the manifest", error))?;
        self.file.handle.sync().map_err(|error| Error::io("sync", "the manifest", error))?;
        self.superblock.update(|superblock| {
            superblock.manifest_bytes = end;
            superblock.clean = true;
        })
    }

    fn roll(&mut self, mut state: ManifestState) -> Result<()> {
        let superblock = self.superblock.current();
        let extent = next_extent(&self.extents);
        let file = write_manifest(
            &*self.storage,
            extent,
            superblock.store,
            superblock.owner_epoch,
            self.file.number,
            &mut state,
            self.file.sabotage,
        )
        .inspect_err(|_| {
            // Nobody names it, so that nobody looks for it; what cannot be removed is an orphan.
            let _ = self.storage.remove(extent);
        })?;
        let named = self.superblock.update(|superblock| {
            superblock.manifest = file.extent;
            superblock.manifest_bytes = file.end;
        });
        if let Err(error) = named {
            // The superblock may name either manifest now: whatever is appended to one of them could be lost.
            self.failed = Some(format!("superblock: {error}"));
            return Err(error);
        }
        let old = std::mem::replace(&mut self.file, file);
        self.over = false;
        self.state = state;
        // The old manifest is garbage now; readers that still read it hold its handle or retry. Failing to remove it
        // leaves an orphan that the next open removes.
        if let Ok(Some(_guard)) = self.storage.lock_out_readers() {
            let _ = self.storage.remove(old.extent);
        }
        Ok(())
    }
}

impl ManifestFile {
    fn append(&mut self, store: Uuid, body: &[u8]) -> Result<()> {
        let place =
            RecordPlace { store: store.short(), extent: self.extent, offset: self.end, number: self.number };
        let record = encode_record(body, place);
        let mut buffer = AlignedBuf::new(record.len()).map_err(|e| Error::io("allocate", "a record", e))?;
        buffer[..record.len()].copy_from_slice(&record);
        let failed = |error| Error::io("write", "the manifest", error);
        self.handle.write_at(self.end, &buffer[..record.len()]).map_err(failed)?;
        if !self.sabotage.on(Switch::SkipManifestSync) {
            self.handle.sync().map_err(failed)?;
        }
        self.end += len_u64(record.len());
        self.number += 1;
        Ok(())
    }
}

/// Cuts edits into encoded bodies of at most a record.
fn cut_into_bodies(edits: &[Edit]) -> Vec<(Vec<u8>, &[Edit])> {
    let mut bodies = Vec::new();
    let mut body = Vec::new();
    let mut from = 0;
    for (at, edit) in edits.iter().enumerate() {
        let mut encoded = Vec::new();
        edit.encode(&mut encoded);
        if body.len() + encoded.len() > RECORD_BODY_MAX && at > from {
            bodies.push((std::mem::take(&mut body), &edits[from..at]));
            from = at;
        }
        body.extend_from_slice(&encoded);
    }
    bodies.push((body, &edits[from..]));
    bodies
}

/// Takes the next extent number.
pub(crate) fn next_extent(extents: &AtomicU64) -> ExtentId {
    ExtentId::new(extents.fetch_add(1, Ordering::Relaxed))
}

fn write_manifest(
    storage: &dyn Storage,
    extent: ExtentId,
    store: Uuid,
    owner_epoch: OwnerEpoch,
    first_record: u64,
    state: &mut ManifestState,
    sabotage: Sabotage,
) -> Result<ManifestFile> {
    state.next_extent = state.next_extent.max(extent.next());
    let name = storage.describe(extent);
    let edits = state.snapshot();
    let bodies = cut_into_bodies(&edits);
    let bytes: u64 = bodies.iter().map(|(body, _)| len_u64(body.len()) + 2 * PAGE_BYTES).sum();
    let handle = storage
        .create(extent, (PAGE_BYTES + bytes + HEADROOM_BYTES).next_multiple_of(PAGE_BYTES))
        .map_err(|error| Error::io("create", &*name, error))?;
    let header = ManifestHeader { store, extent, owner_epoch, first_record };
    let mut page = AlignedBuf::new(PAGE_LEN).map_err(|error| Error::io("allocate", "a page", error))?;
    page.copy_from_slice(&header.encode());
    handle.write_at(0, &page).map_err(|error| Error::io("write", &*name, error))?;
    let mut file =
        ManifestFile { extent, handle, end: PAGE_BYTES, number: first_record, roll_at: 0, sabotage };
    for (body, _) in &bodies {
        file.append(store, body)?;
    }
    file.roll_at = MANIFEST_BYTES_ROLL.max(2 * file.end);
    file.handle.sync().map_err(|error| Error::io("sync", &*name, error))?;
    storage.sync_names().map_err(|error| Error::io("sync names of", &*name, error))?;
    Ok(file)
}

const _: () = assert!(MANIFEST_RECORD_BYTES_MAX.is_multiple_of(PAGE_LEN));
