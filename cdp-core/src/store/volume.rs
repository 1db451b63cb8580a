//! A volume: writes, reads of the newest state, snapshots, changed extents.

use super::Store;
use crate::{
    capture::WriteFigures,
    catalog::VolumeInfo,
    error::{Error, PointUnavailable, Result},
    group::Stamp,
    journal::{PreparedWrite, WriteKind},
    limits::{READ_BYTES_MAX, WRITE_BYTES_MAX},
    snapshot::Snapshot,
    units::{SECTOR_BYTES, Sector, SectorRange, Seq, TimeNs, VolumeId, len_u64},
};
use std::{io::IoSlice, sync::Arc};

pub use crate::index::{ByteExtent, ChangedExtents};

/// A volume of an open store. Cheap to clone; any threads at once.
#[derive(Clone)]
pub struct Volume {
    store: Store,
    info: VolumeInfo,
    writes: Arc<WriteFigures>,
}

impl Volume {
    pub(super) fn new(store: Store, info: VolumeInfo) -> Self {
        let writes = store.inner.group.figures(info.id);
        Self { store, info, writes }
    }

    /// What the catalog says of it now.
    pub(crate) fn info(&self) -> VolumeInfo {
        self.store.inner.group.catalog.read().volume(self.info.id).unwrap_or(&self.info).clone()
    }

    /// Its id.
    pub fn id(&self) -> VolumeId {
        self.info.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Its size now, bytes.
    pub fn bytes(&self) -> u64 {
        self.store.inner.group.catalog.read().volume(self.info.id).map_or(self.info.bytes, |info| info.bytes)
    }

    /// Its size at a seq, bytes: that of the volume's first seq before it, that of now in the future.
    pub fn bytes_at(&self, seq: Seq) -> u64 {
        self.info().bytes_at(seq)
    }

    /// The store it belongs to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Appends one write, dated now, and returns its seq. Reads see it at once; it is durable when a flush has returned this seq or a
    /// later one. `data` has 512 bytes to 16 MiB, a multiple of 512, as has `offset`.
    ///
    /// # Errors
    /// `Unaligned`, `OutOfRange`, `InvalidArgument` for a length; `ReadOnly`; `NoSpace` and `Io` when there is no room for it;
    /// `Poisoned` after an earlier failure. In each case nothing was captured.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<Seq> {
        self.append_data(offset, data, Stamp::Now)
    }

    /// As [`Volume::write`], dated by the caller.
    ///
    /// # Errors
    /// Also `TimeBackwards` for a time before the newest write of the store.
    pub fn write_at_time(&self, offset: u64, data: &[u8], time: TimeNs) -> Result<Seq> {
        self.append_data(offset, data, Stamp::At(time))
    }

    /// As [`Volume::write`], from several buffers, which together are one write.
    ///
    /// # Errors
    /// As [`Volume::write`].
    pub fn writev(&self, offset: u64, parts: &[IoSlice<'_>]) -> Result<Seq> {
        if let [only] = parts {
            return self.write(offset, only);
        }
        let total: u64 = parts.iter().map(|part| len_u64(part.len())).sum();
        self.range_of(offset, total, WRITE_BYTES_MAX)?;
        self.write(offset, &parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>())
    }

    /// Writes zeroes over a range of any length; one seq. `time`: `None` is now.
    ///
    /// # Errors
    /// As [`Volume::write_at_time`].
    pub fn write_zeroes(&self, offset: u64, length: u64, time: Option<TimeNs>) -> Result<Seq> {
        self.append_range(offset, length, WriteKind::Zero, time)
    }

    /// Discards a range of any length; one seq. It reads as zeroes afterwards.
    ///
    /// # Errors
    /// As [`Volume::write_at_time`].
    pub fn discard(&self, offset: u64, length: u64, time: Option<TimeNs>) -> Result<Seq> {
        self.append_range(offset, length, WriteKind::Discard, time)
    }

    /// Makes everything written so far durable; returns the seq up to which.
    ///
    /// # Errors
    /// As [`Store::flush`].
    pub fn flush(&self) -> Result<Seq> {
        self.store.flush()
    }

    /// Fills `buf` from byte `offset` of the newest state. Multiples of 512.
    ///
    /// # Errors
    /// `Unaligned`, `OutOfRange`; `Damaged` when the bytes on the storage are not what was written; `Io`.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let range = self.range_of(offset, len_u64(buf.len()), READ_BYTES_MAX)?;
        let group = &self.store.inner.group;
        group.settle_for_reading()?;
        group.read_range(self.info.id, range, group.visible_seq(), buf)
    }

    /// The volume as it was at `seq`, read-only.
    ///
    /// # Errors
    /// `PointUnavailable` when the seq is not on the timeline or the volume did not exist; `NoSpace`, `Io` when a seq that is not
    /// durable yet cannot be made so.
    pub fn snapshot(&self, seq: Seq) -> Result<Snapshot> {
        self.snapshot_as(seq, false)
    }

    /// As [`Volume::snapshot`], also inside of a gap: an image in which some writes before the seq are missing and some blocks may be of
    /// a later state. It is what there is, not what there was.
    ///
    /// # Errors
    /// As [`Volume::snapshot`], but for gaps.
    pub fn snapshot_fuzzy(&self, seq: Seq) -> Result<Snapshot> {
        self.snapshot_as(seq, true)
    }

    fn snapshot_as(&self, seq: Seq, fuzzy: bool) -> Result<Snapshot> {
        self.store.inner.group.settle_for_reading()?;
        let newest = self.store.newest();
        let info = self.info();
        let unavailable = |reason: String| {
            let (before, after) = self.store.nearest(&info, seq);
            let requested = format!("seq:{seq} of volume {}", self.info.name);
            Error::PointUnavailable(Box::new(PointUnavailable { requested, reason, before, after }))
        };
        if seq > newest.seq {
            return Err(unavailable("it lies in the future".into()));
        }
        if seq < self.info.exists_from {
            return Err(unavailable(format!("the volume exists from seq:{}", self.info.exists_from)));
        }
        let thinned = || unavailable("it was thinned away by the retention policy".into());
        if !self.store.inner.group.outline().contains(seq) {
            return Err(thinned());
        }
        let gap = self.store.inner.group.catalog.read().gap_at(self.info.id, seq).copied();
        if let Some(gap) = gap.filter(|_| !fuzzy) {
            return Err(unavailable(format!("it lies in a gap of the timeline ({})", gap.reason)));
        }
        if !fuzzy && !self.store.inner.group.is_point(seq)? {
            return Err(unavailable("only the last state of each interval was kept there".into()));
        }
        if seq > self.store.durable_seq() && !self.store.is_read_only() {
            self.store.flush()?;
        }
        Snapshot::new(self.store.clone(), info.clone(), seq).ok_or_else(thinned)
    }

    /// The extents that were written, zeroed or discarded after `from`, up to and including `to`: ascending, merged, rounded out to
    /// 4 KiB. Content that ended up equal may appear. Where the volume was resized, they are cut at its size at `to`; what was cut off and
    /// is there again counts as zeroed.
    ///
    /// # Errors
    /// `InvalidArgument` when `from` is after `to`; as [`Volume::snapshot`] for either; `Damaged`, `Io` also while it is read.
    pub fn changed(&self, from: Seq, to: Seq) -> Result<ChangedExtents> {
        if from > to {
            return Err(Error::InvalidArgument(format!(
                "seq:{from} is after seq:{to}; give the older point first"
            )));
        }
        self.snapshot(from)?;
        let bytes = self.snapshot(to)?.bytes();
        self.store.inner.group.view().changed(self.info.id, from, to, bytes)
    }

    fn append_data(&self, offset: u64, data: &[u8], stamp: Stamp) -> Result<Seq> {
        let range = self.range_of(offset, len_u64(data.len()), WRITE_BYTES_MAX)?;
        let group = self.store.owner()?;
        let write = PreparedWrite::data(self.info.id, range, data, group.shared.key);
        let seq = self.store.with_room(|| group.append_inline(&write, stamp))?;
        self.writes.note(offset, range.bytes());
        Ok(seq)
    }

    fn append_range(&self, offset: u64, length: u64, kind: WriteKind, time: Option<TimeNs>) -> Result<Seq> {
        let range = self.range_of(offset, length, u64::MAX)?;
        let stamp = time.map_or(Stamp::Now, Stamp::At);
        let group = self.store.owner()?;
        let write = PreparedWrite::range(self.info.id, range, kind);
        let seq = self.store.with_room(|| group.append_inline(&write, stamp))?;
        if kind == WriteKind::Zero {
            self.writes.note(offset, length);
        }
        Ok(seq)
    }

    fn range_of(&self, offset: u64, length: u64, length_max: u64) -> Result<SectorRange> {
        check_range(self.bytes(), offset, length, length_max)
    }
}

/// Checks a byte range of a volume and turns it into sectors.
pub(crate) fn check_range(
    volume_bytes: u64,
    offset: u64,
    length: u64,
    length_max: u64,
) -> Result<SectorRange> {
    if !offset.is_multiple_of(SECTOR_BYTES) || !length.is_multiple_of(SECTOR_BYTES) {
        return Err(Error::Unaligned { offset, length });
    }
    if length == 0 || length > length_max {
        return Err(Error::InvalidArgument(format!(
            "a length of {length} bytes is not allowed here: at least 512, at most {length_max}"
        )));
    }
    if offset.checked_add(length).is_none_or(|end| end > volume_bytes) {
        return Err(Error::OutOfRange { offset, length, volume_bytes });
    }
    Ok(SectorRange { start: Sector::new(offset / SECTOR_BYTES), sectors: length / SECTOR_BYTES })
}
