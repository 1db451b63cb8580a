//! Recovery: what the storage holds, and what of it is history.
//!
//! Reads only; the owner makes its outcome durable afterwards ([`super::open`]), a reader keeps it in memory.
//! Frames of segments that were not sealed are scanned and put in a row. What lies beyond the last frame that is whole is a torn
//! tail and is left out; what is missing below a frame that was vouched for is damage and is recorded as such.

use crate::{
    capture::Coalescing,
    catalog::{Catalog, Gaps},
    error::{Damage, Error, Result},
    format::{
        PAGE_BYTES, PAGE_LEN,
        frame::FrameHeader,
        frame_table::FrameEntry,
        meta::MetaRecord,
        record::RecordKind,
        segment::SegmentHeader,
        superblock::{COPIES, SUPERBLOCK_EXTENT, Superblock},
    },
    group::{Frozen, entries_of},
    index::{LostRange, MemTable},
    io::{AlignedBuf, Storage},
    journal::{Assembly, AssemblyInput, LostFrames, ScannedFrame, assemble, scan_segment},
    limits::{COUNTER_END, SEGMENT_BYTES_MAX, SEGMENT_ENTRIES_RECOVERED_MAX},
    manifest::{ManifestScan, ManifestState, read_superblock, scan_manifest},
    sabotage::Sabotage,
    units::{ExtentId, FrameNo, Seq, TimeNs, to_len},
};
use std::{collections::BTreeSet, sync::Arc};

/// How a store was found when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Whether the last owner closed it in good order.
    pub clean: bool,
    /// Frames of the tail that were cut off.
    pub tail_frames: u64,
    /// Bytes of the tail that were cut off.
    pub tail_bytes: u64,
    /// Damage that was met.
    pub damage: Vec<Damage>,
}

/// Everything that recovery found out.
pub(super) struct Recovered {
    pub superblock: Superblock,
    pub state: ManifestState,
    pub next_record: u64,
    pub report: Recovery,
    pub frozen: Vec<Frozen>,
    /// Segments that were named and hold no frames.
    pub empty: Vec<ExtentId>,
    pub lost: Vec<LostRange>,
    pub last_seq: Seq,
    pub next_frame: FrameNo,
    pub newest_time: TimeNs,
    pub covered_to: TimeNs,
    /// All extents of the storage.
    pub extents: Vec<ExtentId>,
}

/// Reads what the storage holds. `sync_first`: make it durable before it is trusted (after a kill, unsynced pages look durable and
/// are not).
pub(super) fn recover(storage: &dyn Storage, sync_first: bool, sabotage: Sabotage) -> Result<Recovered> {
    let sync = |extent: ExtentId| -> Result<()> {
        if !sync_first {
            return Ok(());
        }
        let handle = storage.open(extent).and_then(|handle| handle.sync());
        handle.map_err(|error| Error::io("sync", storage.describe(extent), error))
    };
    let (superblock, damage) = read_superblock(storage)?;
    sync(SUPERBLOCK_EXTENT)?;
    if superblock.manifest == SUPERBLOCK_EXTENT {
        // Segments come after the superblock that completes a store: with one, newer copies of the superblock are lost.
        let extents = storage.list().map_err(|error| Error::io("list", "the store", error))?;
        if extents.len() > 2 {
            return Err(Error::Damaged(Box::new(Damage {
                extent: SUPERBLOCK_EXTENT,
                file: storage.describe(SUPERBLOCK_EXTENT),
                offset: 0,
                length: COPIES as u64 * PAGE_BYTES,
                from_seq: Seq::ZERO,
                to_seq: Seq::MAX,
                what: "the newest copies of the superblock".into(),
            })));
        }
        return Err(Error::InvalidArgument(
            "the store was never completed: its creation was interrupted; remove it and create it again"
                .into(),
        ));
    }
    let scan = scan_manifest(storage, superblock.store, superblock.manifest, superblock.manifest_bytes)?;
    if scan.state.segments.values().any(|segment| segment.sealed.is_none()) || scan.torn {
        sync(superblock.manifest)?;
        storage_names(storage, sync_first)?;
    }
    let mut extents = storage.list().map_err(|error| Error::io("list", "the store", error))?;
    // No store has come so far: somebody else's, to be left alone.
    extents.retain(|extent| extent.get() < COUNTER_END);
    let mut recovered = Recovered {
        report: Recovery { clean: superblock.clean, damage, ..Recovery::default() },
        next_record: scan.next_record,
        frozen: Vec::new(),
        empty: Vec::new(),
        lost: Vec::new(),
        last_seq: scan.state.position.last_seq,
        next_frame: scan.state.position.next_frame,
        newest_time: scan.state.position.newest_time,
        covered_to: scan.state.position.covered_to,
        extents,
        state: ManifestState::default(),
        superblock,
    };
    recovered.check_orphans(storage, &scan)?;
    let inputs = recovered.scan_segments(storage, &scan, &sync)?;
    recovered.state = scan.state;
    let assembly = assemble(inputs, recovered.next_frame, recovered.last_seq, sabotage);
    if sync_first {
        write_doubtful_again(storage, &assembly)?;
    }
    recovered.take(storage, assembly, sabotage);
    Ok(recovered)
}

/// Writes the frames that nobody vouches for once more, in place, and syncs them. A sync that failed before the store was opened may have
/// left them clean in a cache and absent from the disk, and a sync that succeeds afterwards proves nothing; what is written again is.
fn write_doubtful_again(storage: &dyn Storage, assembly: &Assembly) -> Result<()> {
    for (extent, frames) in &assembly.kept {
        let failed = |error| Error::io("write again", storage.describe(*extent), error);
        let doubtful =
            || frames.iter().map(|f| &f.frame.header).filter(|h| h.frame >= assembly.vouched_below);
        let Some(longest) = doubtful().map(FrameHeader::bytes).max() else { continue };
        let handle = storage.open(*extent).map_err(failed)?;
        let mut buffer = AlignedBuf::new(to_len(longest)).map_err(failed)?;
        for header in doubtful() {
            let bytes = &mut buffer[..to_len(header.bytes())];
            handle.read_at(header.offset, bytes).map_err(failed)?;
            handle.write_at(header.offset, bytes).map_err(failed)?;
        }
        handle.sync().map_err(failed)?;
    }
    Ok(())
}

fn storage_names(storage: &dyn Storage, sync_first: bool) -> Result<()> {
    if sync_first {
        storage.sync_names().map_err(|e| Error::io("sync names of", "the store", e))
    } else {
        Ok(())
    }
}

impl Recovered {
    /// An extent that the manifest does not name is an orphan, unless it vouches for more of the manifest than was found: then the end
    /// of the manifest is damaged, and what it named must not be removed.
    fn check_orphans(&self, storage: &dyn Storage, scan: &ManifestScan) -> Result<()> {
        let named: BTreeSet<ExtentId> = scan.state.extents().collect();
        for extent in &self.extents {
            if named.contains(extent) || *extent == SUPERBLOCK_EXTENT || *extent == self.superblock.manifest {
                continue;
            }
            let Ok(handle) = storage.open(*extent) else { continue };
            let mut pages = AlignedBuf::new(2 * PAGE_LEN).map_err(|e| Error::io("allocate", "pages", e))?;
            if handle.read_at(0, &mut pages).is_err() {
                continue;
            }
            let (first, second) = pages.split_at(PAGE_LEN);
            let Ok(header) = SegmentHeader::decode(first, self.superblock.store, *extent) else { continue };
            if header.owner_epoch > self.superblock.owner_epoch {
                return Err(self.stale_superblock(storage, *extent));
            }
            let of_frame = FrameHeader::peek(second)
                .ok()
                .filter(|frame| frame.segment == *extent && frame.segment_uuid == header.segment.short())
                .map_or(0, |frame| frame.manifest_records);
            if !self.superblock.clean && header.owner_epoch == self.superblock.owner_epoch {
                self.check_manifest_claim(storage, scan, header.manifest_records.max(of_frame))?;
            }
        }
        Ok(())
    }

    /// A segment of a later owner than the superblock knows: the newest copies of the superblock are lost, and what an older one
    /// says must not be acted on.
    fn stale_superblock(&self, storage: &dyn Storage, segment: ExtentId) -> Error {
        Error::Damaged(Box::new(Damage {
            extent: SUPERBLOCK_EXTENT,
            file: storage.describe(SUPERBLOCK_EXTENT),
            offset: 0,
            length: COPIES as u64 * PAGE_BYTES,
            from_seq: self.last_seq.next(),
            to_seq: Seq::MAX,
            what: format!("a superblock as new as {}", storage.describe(segment)),
        }))
    }

    fn check_manifest_claim(&self, storage: &dyn Storage, scan: &ManifestScan, records: u64) -> Result<()> {
        if records <= scan.next_record {
            return Ok(());
        }
        Err(Error::Damaged(Box::new(Damage {
            extent: self.superblock.manifest,
            file: storage.describe(self.superblock.manifest),
            offset: scan.end,
            length: PAGE_BYTES,
            from_seq: scan.state.position.last_seq.next(),
            to_seq: Seq::MAX,
            what: "the last records of the manifest".into(),
        })))
    }

    fn scan_segments(
        &mut self,
        storage: &dyn Storage,
        scan: &ManifestScan,
        sync: &dyn Fn(ExtentId) -> Result<()>,
    ) -> Result<Vec<AssemblyInput>> {
        let mut inputs = Vec::new();
        for (extent, segment) in scan.state.segments.iter().filter(|(_, segment)| segment.sealed.is_none()) {
            let name = storage.describe(*extent);
            let damaged = |offset, length, what: &str| Damage {
                extent: *extent,
                file: name.clone(),
                offset,
                length,
                from_seq: scan.state.position.last_seq.next(),
                to_seq: Seq::MAX,
                what: what.to_owned(),
            };
            if !self.extents.contains(extent) {
                let damage = damaged(0, segment.named.bytes, "the segment is missing");
                return Err(Error::Damaged(Box::new(damage)));
            }
            sync(*extent)?;
            let handle = storage.open(*extent).map_err(|error| Error::io("open", &*name, error))?;
            let size = handle.size().map_err(|error| Error::io("size of", &*name, error))?;
            let needed = segment.cut.unwrap_or(segment.named.bytes);
            if size < needed {
                let damage = damaged(size, needed - size, "the segment is shorter than it was");
                return Err(Error::Damaged(Box::new(damage)));
            }
            // What lies behind the largest end of frames is none of ours.
            let end = segment.cut.unwrap_or(size / PAGE_BYTES * PAGE_BYTES).min(SEGMENT_BYTES_MAX);
            let mut bytes =
                AlignedBuf::new(to_len(end)).map_err(|e| Error::io("allocate", "a segment", e))?;
            handle.read_at(0, &mut bytes[..to_len(end)]).map_err(|error| Error::io("read", &*name, error))?;
            match SegmentHeader::decode(&bytes[..PAGE_LEN], self.superblock.store, *extent) {
                Ok(header) if header.segment == segment.named.uuid => {
                    self.check_manifest_claim(storage, scan, header.manifest_records)?;
                }
                _ => self.report.damage.push(damaged(0, PAGE_BYTES, "segment header")),
            }
            let found = scan_segment(
                &bytes[..to_len(end)],
                PAGE_BYTES,
                self.superblock.store.short(),
                *extent,
                segment.named.uuid.short(),
                self.superblock.digest_key,
            );
            let claimed = found.frames.iter().map(|f| f.frame.header.manifest_records).max().unwrap_or(0);
            self.check_manifest_claim(storage, scan, claimed)?;
            self.empty.push(*extent);
            inputs.push(AssemblyInput { segment: *extent, scan: found, cut: segment.cut });
        }
        Ok(inputs)
    }

    fn take(&mut self, storage: &dyn Storage, assembly: Assembly, sabotage: Sabotage) {
        self.report.tail_frames = assembly.tail_frames;
        self.report.tail_bytes = assembly.tail_bytes;
        self.next_frame = assembly.next_frame;
        let holes: Vec<Seq> = assembly.lost.iter().map(|lost| lost.from_seq).collect();
        for lost in assembly.lost {
            let (from_seq, to_seq) = self.reach_of(&lost, &assembly.kept);
            let damage = Damage {
                extent: lost.segment,
                file: storage.describe(lost.segment),
                offset: lost.offset,
                length: lost.length,
                from_seq,
                to_seq: to_seq.max(from_seq),
                what: "frames of the journal".into(),
            };
            self.report.damage.push(damage.clone());
            if from_seq <= to_seq {
                self.lost.push(LostRange { from_seq, to_seq, damage });
            }
        }
        let mut base_seq = self.last_seq;
        let mut catalog = self.state.catalog.clone();
        for (extent, frames) in assembly.kept {
            self.empty.retain(|empty| *empty != extent);
            let frozen = self.frozen_of(storage, extent, &frames, base_seq, &mut catalog, sabotage);
            base_seq = frozen.last_seq();
            self.frozen.push(frozen);
        }
        self.last_seq = assembly.last_seq;
        self.distrust_behind(&holes, &mut catalog);
    }

    /// A lost frame may have held the record that writes are coalesced from there on, or that a tap has begun. So behind it only what a record completes, and no
    /// interval goes on behind, is a point: where every write was one it still is.
    fn distrust_behind(&mut self, holes: &[Seq], catalog: &mut Catalog) {
        let now = catalog.coalescing_now();
        let mut records = Vec::new();
        for first in holes.iter().filter(|first| **first <= self.last_seq) {
            if catalog.coalescing_at(*first) == Coalescing::PerWrite {
                let behind = Seq::new(first.get().saturating_sub(1));
                records.push(MetaRecord::CoalescingSet { behind, coalescing: Coalescing::PerBarrier });
                catalog.apply(&records[records.len() - 1]);
            }
        }
        if catalog.coalescing_now() != now {
            records.push(MetaRecord::CoalescingSet { behind: self.last_seq, coalescing: now });
        }
        if !holes.is_empty() {
            // Nor is it known whether a tap was at work behind what was last heard of it.
            records.extend(catalog.distrust_taps());
        }
        // They take effect, and are kept, with the last segment.
        if let Some(frozen) = self.frozen.last_mut() {
            let frame = frozen.frames.last().map_or(frozen.first_frame, |entry| entry.frame);
            frozen.metas.extend(records.into_iter().map(|record| (frame, record)));
        }
    }

    /// The seqs that lost frames may have touched. An import that was under way may have had staged records among them, all of
    /// the seq from which its volume exists, which is added behind them under an id that was taken before.
    fn reach_of(&self, lost: &LostFrames, kept: &[(ExtentId, Vec<ScannedFrame>)]) -> (Seq, Seq) {
        let (mut from_seq, mut to_seq) = (lost.from_seq, lost.to_seq);
        // While a gap was open, the lost frames may have held staged records of a resync, of any seq since the gap opened.
        if let Some(opened) = self.open_gaps_before(lost, kept) {
            (from_seq, to_seq) = (from_seq.min(opened), to_seq.max(opened));
        }
        let mut ids_taken = self.state.catalog.next_volume_id();
        for scanned in kept.iter().flat_map(|(_, frames)| frames) {
            let behind = lost.next_frame.is_some_and(|next| scanned.frame.header.frame >= next);
            for meta in &scanned.metas {
                match meta {
                    MetaRecord::VolumeIdsTaken(next) => ids_taken = ids_taken.max(*next),
                    MetaRecord::VolumeAdded { id, exists_from, .. }
                        if behind
                            && *id < ids_taken
                            && self.state.catalog.volume(*id).is_none()
                            && *exists_from < from_seq =>
                    {
                        (from_seq, to_seq) = (*exists_from, to_seq.max(*exists_from));
                    }
                    _ => {}
                }
            }
        }
        (from_seq, to_seq)
    }

    /// The oldest seq that opened a gap which was still open where frames are lost.
    fn open_gaps_before(&self, lost: &LostFrames, kept: &[(ExtentId, Vec<ScannedFrame>)]) -> Option<Seq> {
        let mut catalog = self.state.catalog.clone();
        let metas = kept.iter().flat_map(|(_, frames)| frames).flat_map(|frame| &frame.metas);
        metas.filter(|meta| catalog.check(meta).is_ok()).cloned().collect::<Vec<_>>().iter().for_each(
            |meta| {
                catalog.apply(meta);
            },
        );
        let gaps = catalog.volumes().filter_map(|volume| catalog.gaps(volume.id));
        let open = gaps.flat_map(Gaps::iter).filter(|gap| {
            gap.opened.seq < lost.from_seq && gap.closed.is_none_or(|closed| closed.seq >= lost.from_seq)
        });
        open.map(|gap| gap.opened.seq).min()
    }

    fn frozen_of(
        &mut self,
        storage: &dyn Storage,
        extent: ExtentId,
        frames: &[ScannedFrame],
        base_seq: Seq,
        catalog: &mut Catalog,
        sabotage: Sabotage,
    ) -> Frozen {
        let memtable = MemTable::new();
        let mut entries = Vec::new();
        let mut metas = Vec::new();
        let mut source_bytes = 0;
        for scanned in frames {
            let header = &scanned.frame.header;
            for (sector, sectors) in &scanned.payload_damage {
                self.report.damage.push(Damage {
                    extent,
                    file: storage.describe(extent),
                    offset: sector * 512,
                    length: sectors * 512,
                    from_seq: header.base_seq.next(),
                    to_seq: header.last_seq,
                    what: "payload".into(),
                });
            }
            let impossible = |seq: Seq, what: String| Damage {
                extent,
                file: storage.describe(extent),
                offset: header.offset,
                length: header.bytes(),
                from_seq: seq,
                to_seq: seq,
                what,
            };
            for record in &scanned.frame.records {
                let taken = if memtable.len() < SEGMENT_ENTRIES_RECOVERED_MAX {
                    memtable.insert(&entries_of(record, extent, header.payload_at(), sabotage))
                } else {
                    Err(Error::InvalidArgument("more index entries than a segment may have".into()))
                };
                if let Err(error) = taken {
                    // The frame is what was written, so its writer is at fault; what the record did is unknown now.
                    let damage = impossible(record.seq, error.to_string());
                    self.report.damage.push(damage.clone());
                    self.lost.push(LostRange { from_seq: record.seq, to_seq: record.seq, damage });
                }
                if matches!(record.kind, RecordKind::Data | RecordKind::Zero) {
                    source_bytes += record.range.bytes();
                }
            }
            for meta in &scanned.metas {
                match catalog.check(meta) {
                    Ok(()) => {
                        catalog.apply(meta);
                        metas.push((header.frame, meta.clone()));
                    }
                    Err(error) => self.report.damage.push(impossible(header.last_seq, error.to_string())),
                }
            }
            self.covered_to = self.covered_to.max(header.covered_to);
            let entry = entry_of(scanned);
            self.newest_time = self.newest_time.max(entry.last_time);
            entries.push(entry);
        }
        let last = &frames.last().expect("kept segments have frames").frame.header;
        Frozen {
            extent,
            uuid: self.state.segments[&extent].named.uuid,
            base_seq,
            first_frame: frames[0].frame.header.frame,
            frames_end: last.offset + last.bytes(),
            memtable: Arc::new(memtable),
            frames: entries,
            metas,
            source_bytes,
            covered_to: last.covered_to,
            sidecar: true,
        }
    }
}

/// The line of a frame in the frame table.
pub(crate) fn entry_of(scanned: &ScannedFrame) -> FrameEntry {
    let frame = &scanned.frame;
    let mut timed = frame.records.iter().filter(|record| record.takes_seq()).map(|record| record.time);
    let first_time = timed.next();
    let count = timed.clone().count() + usize::from(first_time.is_some());
    FrameEntry {
        offset: frame.header.offset,
        bytes: frame.header.bytes(),
        frame: frame.header.frame,
        base_seq: frame.header.base_seq,
        last_seq: frame.header.last_seq,
        first_time: first_time.unwrap_or_default(),
        last_time: timed.next_back().or(first_time).unwrap_or_default(),
        crc: frame.crc,
        timed_records: u32::try_from(count).expect("a frame holds few records"),
    }
}
