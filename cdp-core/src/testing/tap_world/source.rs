//! The sources of the simulation as resync reads them, some across a link. Each read can carry out further steps of the host.

use super::host::{Host, SourceSyncs};
use crate::{
    SourceReader,
    dirty_map::ByteRange,
    format::digest::DigestKey,
    resync::{DigestUnit, SourceDigests, digests_of},
    units::to_len,
};
use parking_lot::Mutex;
use std::{
    io,
    sync::{Arc, Weak, atomic::Ordering},
};

/// The source of a volume as resync reads it.
pub struct Reader {
    /// The host.
    pub host: Weak<Mutex<Host>>,
    /// The volume.
    pub volume: usize,
    /// Its syncs.
    pub syncs: Arc<SourceSyncs>,
    /// Whether it lies across a link.
    pub far: bool,
}

impl SourceReader for Reader {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let host = self.host.upgrade().ok_or_else(|| io::Error::other("the host is gone"))?;
        host.lock().read_source(self.volume, offset, buf)
    }

    fn digests(&self) -> Option<&dyn SourceDigests> {
        self.far.then_some(self)
    }

    fn sync(&self) -> io::Result<()> {
        let failing = |left: u64| left.checked_sub(1);
        if self.syncs.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, failing).is_ok() {
            return Err(io::Error::other("the source could not be synced, as the test wanted"));
        }
        self.syncs.wanted.store(true, Ordering::SeqCst);
        let host = self.host.upgrade().ok_or_else(|| io::Error::other("the host is gone"))?;
        if let Some(mut host) = host.try_lock() {
            host.carry_out_syncs();
        }
        Ok(())
    }
}

impl SourceDigests for Reader {
    fn digests(&self, key: DigestKey, unit: DigestUnit, ranges: &[ByteRange]) -> io::Result<Vec<u64>> {
        let host = self.host.upgrade().ok_or_else(|| io::Error::other("the host is gone"))?;
        let bytes = host.lock().disks[self.volume].bytes();
        digests_of(self, bytes, key, unit, ranges)
    }

    fn read_ranges(&self, ranges: &[ByteRange], buf: &mut [u8]) -> io::Result<()> {
        let mut rest = buf;
        for range in ranges {
            let (part, behind) = rest.split_at_mut(to_len(range.bytes));
            self.read_at(range.offset, part)?;
            rest = behind;
        }
        Ok(())
    }
}
