//! Snapshots: a volume as it was at one seq.
//!
//! Opening one pins the seq and nothing else: each read uses the index as it is now, in which every version that a pinned point needs is
//! present, whatever retention takes away meanwhile.

use crate::{
    catalog::VolumeInfo,
    error::Result,
    io::BufferPool,
    limits::READ_BYTES_MAX,
    restore::{
        Progress, RestoreState, RestoreTarget, Restored, SharedTarget, restore, restore_part, restore_piece,
        restore_shared,
    },
    store::{Store, check_range},
    units::{BLOCK_BYTES, Block, Seq, len_u64},
};
use std::sync::Arc;

/// A read-only image of one volume at one seq. Cheap to clone; any threads at once.
#[derive(Clone)]
pub struct Snapshot {
    store: Store,
    info: VolumeInfo,
    seq: Seq,
    _pin: Arc<Pinned>,
}

/// Holds on to a point for as long as it lives.
struct Pinned {
    store: Store,
    seq: Seq,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.store.inner.group.unpin(self.seq);
    }
}

impl Snapshot {
    /// `None` when the point is not there any more.
    pub(crate) fn new(store: Store, mut info: VolumeInfo, seq: Seq) -> Option<Self> {
        // The size of a volume belongs to the point.
        info.bytes = info.bytes_at(seq);
        let pinned = store.inner.group.pin(seq).then(|| Arc::new(Pinned { store: store.clone(), seq }))?;
        Some(Self { store, info, seq, _pin: pinned })
    }

    /// The seq it shows.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Size of the volume at that point, bytes.
    pub fn bytes(&self) -> u64 {
        self.info.bytes
    }

    /// Buffers of the store for chunks of the image.
    pub(crate) fn buffers(&self) -> &BufferPool {
        self.store.inner.group.transfer_buffers()
    }

    /// Fills `buf` from byte `offset`. Multiples of 512.
    ///
    /// # Errors
    /// `Unaligned`, `OutOfRange`; `Damaged` when the bytes on the storage are not what was written; `Io`.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = check_range(self.info.bytes, offset, len_u64(buf.len()), READ_BYTES_MAX)?;
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

    /// Writes the image to a target that several threads may write at once, holes left out: the fastest way to a file or a device. `threads`
    /// threads, started for the time of this call, read and write; with 0 none is started. Memory: one chunk of 1 MiB a thread, and of what
    /// it is read from about as much.
    ///
    /// # Errors
    /// As [`Snapshot::restore`].
    pub fn restore_shared(
        &self,
        threads: usize,
        target: &dyn SharedTarget,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Restored> {
        restore_shared(self, threads, target, progress)
    }

    /// As [`Snapshot::restore`], from where `state` says on and for about `bytes` bytes of the image, pieces of 1 MiB and holes being whole: for a host that
    /// restores at its own pace and has threads read ahead, which end with the call. Everything is restored when `state.next` is the size of the image.
    ///
    /// # Errors
    /// As [`Snapshot::restore`], and `Io` when a thread cannot be started; `state` says how far it came, and the next call goes on there.
    pub fn restore_part(
        &self,
        readers: usize,
        bytes: u64,
        state: &mut RestoreState,
        target: &mut dyn RestoreTarget,
    ) -> Result<()> {
        restore_part(self, (readers, bytes), state, target, &mut |_| {})
    }

    /// One step of a restore: writes what begins at byte `offset`, at most 1 MiB or a hole of any length, and returns where it ended: the
    /// size of the image when that was all. For a host that restores at its own pace; begin at 0 and go on with what is returned. The same
    /// step again writes the same.
    ///
    /// # Errors
    /// As [`Snapshot::restore`].
    pub fn restore_step(&self, offset: u64, target: &mut dyn RestoreTarget) -> Result<(u64, Restored)> {
        restore_piece(self, offset, target)
    }
}
