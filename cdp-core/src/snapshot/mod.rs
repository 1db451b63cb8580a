//! Snapshots: a volume as it was at one seq.
//!
//! Opening one pins nothing but the seq: each read uses the index as it is now, in which every version that the point needs is present.

use crate::{
    catalog::VolumeInfo,
    error::Result,
    limits::READ_BYTES_MAX,
    restore::{Progress, RestoreTarget, Restored, restore},
    store::{Store, check_range},
    units::{BLOCK_BYTES, Block, Seq, len_u64},
};

/// A read-only image of one volume at one seq. Cheap to clone; any threads at once.
#[derive(Clone)]
pub struct Snapshot {
    store: Store,
    info: VolumeInfo,
    seq: Seq,
}

impl Snapshot {
    pub(crate) fn new(store: Store, info: VolumeInfo, seq: Seq) -> Self {
        Self { store, info, seq }
    }

    /// The seq it shows.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Size of the volume at that point, bytes.
    pub fn bytes(&self) -> u64 {
        self.info.bytes
    }

    /// Fills `buf` from byte `offset`. Multiples of 512.
    ///
    /// # Errors
    /// `Unaligned`, `OutOfRange`; `Damaged` when the bytes on the storage are not what was written; `Io`.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = check_range(&self.info, offset, len_u64(buf.len()), READ_BYTES_MAX)?;
        self.store.inner.group.read_range(self.info.id, range, self.seq, buf)
    }

    /// The first byte at or after `offset` that may be other than zero; `None` when there is none up to the end.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        let end = Block::new(self.info.bytes.div_ceil(BLOCK_BYTES));
        let from = Block::new(offset / BLOCK_BYTES);
        let view = self.store.inner.group.view();
        let found = view.next_data(self.info.id, from, end, self.seq)?;
        Ok(found.map(|block| (block.get() * BLOCK_BYTES).max(offset)))
    }

    /// Writes the image to `target`, in address order, holes left out. `readers` threads, started for the time of this call, read ahead;
    /// with 0 none is started. Memory: two chunks of 1 MiB a reader.
    ///
    /// # Errors
    /// `Damaged`, `Io`, those of the target as `Io`; what was written so far is then incomplete.
    pub fn restore(
        &self,
        readers: usize,
        target: &mut dyn RestoreTarget,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Restored> {
        restore(self, readers, target, progress)
    }
}
