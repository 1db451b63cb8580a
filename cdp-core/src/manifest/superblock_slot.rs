//! Reading and updating the superblock.
//!
//! Invariant *never both*: an update writes only the two copies of the other generation, and syncs them, so that the copies
//! in force stay untouched. Invariant *fencing*: an owner that finds a higher epoch than its own writes nothing.

use crate::{
    error::{Damage, Error, Result},
    format::{
        FORMAT_VERSION, PAGE_BYTES, PAGE_LEN,
        superblock::{COPIES, INCOMPAT_KNOWN, READ_ONLY_COMPAT_KNOWN, SUPERBLOCK_EXTENT, Superblock},
    },
    io::{AlignedBuf, Extent, Storage},
    units::{Seq, to_len},
};
use std::{io, sync::Arc};

/// The superblock in force, and the way to change it.
pub struct SuperblockSlot {
    extent: Arc<dyn Extent>,
    current: Superblock,
}

/// Reads the superblock. Also returns the copies that are damaged.
///
/// # Errors
/// `UnsupportedFormat`, `Damaged` when no copy is intact, `NotFound` when there is no store, `Io`.
pub fn read_superblock(storage: &dyn Storage) -> Result<(Superblock, Vec<Damage>)> {
    let name = storage.describe(SUPERBLOCK_EXTENT);
    let extent = match storage.open(SUPERBLOCK_EXTENT) {
        Ok(extent) => extent,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(storage, name)),
        Err(error) => return Err(Error::io("open", name, error)),
    };
    let mut found: Option<Superblock> = None;
    let mut damaged = Vec::new();
    let mut other_version = None;
    let mut page = AlignedBuf::new(PAGE_LEN).map_err(|error| Error::io("allocate", "a page", error))?;
    for copy in 0..COPIES {
        let offset = copy as u64 * PAGE_BYTES;
        let decoded = match extent.read_at(offset, &mut page) {
            Ok(()) => Some(Superblock::decode(&page, copy)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(Error::io("read", name, error)),
        };
        match decoded {
            Some(Ok(superblock)) => {
                if found.as_ref().is_none_or(|best| best.generation < superblock.generation) {
                    found = Some(superblock);
                }
            }
            unreadable => {
                other_version = other_version.or(unreadable.and_then(|_| Superblock::version_of(&page)));
                damaged.push(Damage {
                    extent: SUPERBLOCK_EXTENT,
                    file: name.clone(),
                    offset,
                    length: PAGE_BYTES,
                    from_seq: Seq::ZERO,
                    to_seq: Seq::MAX,
                    what: format!("superblock copy {copy}"),
                });
            }
        }
    }
    let Some(superblock) = found else {
        if let Some(version) = other_version.filter(|version| *version != FORMAT_VERSION) {
            return Err(Error::UnsupportedFormat(format!(
                "the store has format version {version}; this version of the library reads {FORMAT_VERSION}"
            )));
        }
        let mut damage = damaged.swap_remove(0);
        damage.length = COPIES as u64 * PAGE_BYTES;
        damage.what = "no copy of the superblock is intact".into();
        return Err(Error::Damaged(Box::new(damage)));
    };
    if superblock.incompat & !INCOMPAT_KNOWN != 0 {
        return Err(Error::UnsupportedFormat(format!(
            "the store uses features that this version of the library does not know ({:#x})",
            superblock.incompat & !INCOMPAT_KNOWN
        )));
    }
    Ok((superblock, damaged))
}

/// No superblock: there is no store, or what is left of one.
pub(crate) fn missing(storage: &dyn Storage, name: String) -> Error {
    match storage.list() {
        Ok(extents) if !extents.is_empty() => Error::Damaged(Box::new(Damage {
            extent: SUPERBLOCK_EXTENT,
            file: name,
            offset: 0,
            length: COPIES as u64 * PAGE_BYTES,
            from_seq: Seq::ZERO,
            to_seq: Seq::MAX,
            what: "the superblock is missing".into(),
        })),
        _ => Error::NotFound { what: "store", name },
    }
}

impl SuperblockSlot {
    /// Makes the first superblock of a store: all four copies, in two generations.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn create(storage: &dyn Storage, first: Superblock) -> Result<Self> {
        let name = || storage.describe(SUPERBLOCK_EXTENT);
        let extent = storage
            .create(SUPERBLOCK_EXTENT, COPIES as u64 * PAGE_BYTES)
            .map_err(|error| Error::io("create", name(), error))?;
        let mut slot = Self { extent, current: first };
        slot.write()?;
        slot.update(|_| {})?;
        storage.sync_names().map_err(|error| Error::io("sync", name(), error))?;
        Ok(slot)
    }

    /// Takes up the superblock of an existing store for writing.
    ///
    /// # Errors
    /// As [`read_superblock`]; `UnsupportedFormat` when this version may only read the store.
    pub fn open(storage: &dyn Storage) -> Result<(Self, Vec<Damage>)> {
        let (current, damaged) = read_superblock(storage)?;
        if current.read_only_compat & !READ_ONLY_COMPAT_KNOWN != 0 {
            return Err(Error::UnsupportedFormat(
                "the store uses features that this version of the library can only read; open it read-only"
                    .into(),
            ));
        }
        let extent = storage
            .open(SUPERBLOCK_EXTENT)
            .map_err(|error| Error::io("open", storage.describe(SUPERBLOCK_EXTENT), error))?;
        let slot = Self { extent, current };
        // A sync that failed before may have left these copies clean in a cache and absent from the disk; then the next update would
        // overwrite the only ones that are there. The same bytes at the same place harm nothing.
        slot.write()?;
        Ok((slot, damaged))
    }

    /// The superblock in force.
    pub fn current(&self) -> &Superblock {
        &self.current
    }

    /// Changes the superblock: durable when it returns.
    ///
    /// # Errors
    /// `Fenced` when another owner has taken over, `Io`; the superblock in force then stays.
    pub fn update(&mut self, change: impl FnOnce(&mut Superblock)) -> Result<()> {
        self.check_fence()?;
        let before = self.current.clone();
        change(&mut self.current);
        self.current.generation += 1;
        self.write().inspect_err(|_| self.current = before)
    }

    fn check_fence(&self) -> Result<()> {
        let mut page = AlignedBuf::new(PAGE_LEN).map_err(|error| Error::io("allocate", "a page", error))?;
        for copy in 0..COPIES {
            match self.extent.read_at(copy as u64 * PAGE_BYTES, &mut page) {
                Ok(()) => {}
                // A copy that was cut off says nothing; the next updates write it anew.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(Error::io("read", "the superblock", error)),
            }
            let other = Superblock::decode(&page, copy);
            if other.is_ok_and(|other| other.owner_epoch > self.current.owner_epoch) {
                return Err(Error::Fenced);
            }
        }
        Ok(())
    }

    fn write(&self) -> Result<()> {
        let failed = |error| Error::io("write", "the superblock", error);
        let copies = self.current.copies();
        let mut pages = AlignedBuf::new(copies.len() * PAGE_LEN).map_err(failed)?;
        for (page, copy) in pages.chunks_exact_mut(PAGE_LEN).zip(copies) {
            page.copy_from_slice(&self.current.encode(copy));
        }
        let len = to_len(copies.len() as u64 * PAGE_BYTES);
        self.extent.write_at(copies[0] as u64 * PAGE_BYTES, &pages[..len]).map_err(failed)?;
        self.extent.sync().map_err(failed)
    }
}
