//! Creating and opening stores.
//!
//! Order at open for writing: lock, recover, then one step that makes the outcome durable: a new manifest that says where each unsealed
//! segment ends, in a new owner epoch and, after an unclean end, a new lineage. Only then frames may follow.

use super::{
    CreateOptions, Inner, OpenOptions, Store, check_volume,
    recover::{Recovered, recover},
};
use crate::{
    error::{Damage, Error, Result},
    format::{
        digest::DigestKey,
        manifest::{Edit, LineageCut},
        meta::MetaRecord,
        superblock::{SUPERBLOCK_EXTENT, Superblock},
    },
    group::{Group, GroupStart, Manifest, SegmentLine, Shared, random_uuid},
    index::{PageCache, View},
    io::{Storage, StorageLock},
    manifest::{ManifestLog, ManifestState, SuperblockSlot, missing},
    units::{ExtentId, OwnerEpoch, Seq, VolumeId},
};
use parking_lot::Mutex;
use std::{collections::BTreeSet, io, sync::Arc};

/// Times that a reader starts over when the owner changes the store under it: each time it may have sealed a segment that was looked at.
const READ_ATTEMPTS: usize = 64;

impl Store {
    /// Makes a new store with one empty volume on a storage that holds none.
    ///
    /// # Errors
    /// `Exists`, `InvalidArgument` for a bad name or size, `Owned`, `NoSpace`, `Io`.
    pub fn create(storage: Arc<dyn Storage>, create: &CreateOptions, open: OpenOptions) -> Result<Self> {
        check_volume(&create.volume, create.bytes)?;
        let store = Self::create_empty(storage, open)?;
        let record = MetaRecord::VolumeAdded {
            id: VolumeId::ZERO,
            name: create.volume.clone(),
            bytes: create.bytes,
            exists_from: Seq::ZERO,
        };
        store.inner.group.append_meta(|_, _| Ok(vec![record]), None)?;
        Ok(store)
    }

    /// Makes a new store without volumes.
    pub(super) fn create_empty(storage: Arc<dyn Storage>, options: OpenOptions) -> Result<Self> {
        let lock = lock_owner(&*storage)?;
        let present = storage.list().map_err(|error| Error::io("list", "the store", error))?;
        if !present.is_empty() {
            return Err(Error::Exists { what: "store", name: storage.describe(SUPERBLOCK_EXTENT) });
        }
        let key = random_uuid()?.short();
        let first = Superblock {
            compat: 0,
            read_only_compat: 0,
            incompat: 0,
            store: random_uuid()?,
            digest_key: DigestKey(key),
            generation: 1,
            owner_epoch: OwnerEpoch::ZERO,
            manifest: SUPERBLOCK_EXTENT,
            manifest_bytes: 0,
            clean: false,
        };
        let slot = SuperblockSlot::create(&*storage, first)?;
        let state = ManifestState { next_extent: ExtentId::new(1), ..ManifestState::default() };
        let log = ManifestLog::start(
            storage.clone(),
            slot,
            state,
            0,
            |superblock| superblock.owner_epoch = OwnerEpoch::new(1),
            options.sabotage,
        )?;
        let shared = Arc::new(shared(storage, options, log.superblock().clone()));
        let start = GroupStart {
            lineage: log.state().position.lineage,
            last_seq: Seq::ZERO,
            next_frame: crate::units::FrameNo::ZERO,
            newest_time: crate::units::TimeNs::ZERO,
            covered_to: crate::units::TimeNs::ZERO,
            view: View::default(),
            frozen: Vec::new(),
            lines: Vec::new(),
            catalog: log.state().catalog.clone(),
            manifest: Manifest::Owner(Box::new(log)),
        };
        let group = Group::new(shared, start);
        let recovery = super::Recovery { clean: true, ..super::Recovery::default() };
        Ok(Self {
            inner: Arc::new(Inner {
                group,
                recovery,
                read_only: false,
                resyncs: Mutex::default(),
                resyncing: Mutex::default(),
                background: super::room::Background::default(),
                scheduled: Mutex::default(),
                _lock: lock,
            }),
        })
    }

    /// Opens a store as its owner, and recovers it if need be.
    ///
    /// # Errors
    /// `NotFound`, `Owned`, `UnsupportedFormat`, `Damaged` when what is damaged makes it unsafe to go on, `Fenced`, `NoSpace`, `Io`.
    pub fn open(storage: Arc<dyn Storage>, options: OpenOptions) -> Result<Self> {
        let lock = lock_owner(&*storage)?;
        let mut recovered = recover(&*storage, true, options.sabotage)?;
        let (slot, _) = SuperblockSlot::open(&*storage)?;
        let mut state = state_after(&mut recovered);
        let repair = !recovered.report.damage.is_empty();
        let start = |slot, state| {
            let begin = |superblock: &mut Superblock| {
                superblock.owner_epoch = superblock.owner_epoch.next();
                superblock.clean = false;
            };
            ManifestLog::start(storage.clone(), slot, state, recovered.next_record, begin, options.sabotage)
        };
        let log = match start(slot, state.clone()) {
            Err(Error::NoSpace) if give_up_reserve(&*storage, &mut state)? => {
                start(SuperblockSlot::open(&*storage)?.0, state)?
            }
            outcome => outcome?,
        };
        let superblock = log.superblock().clone();
        let shared = Arc::new(shared(storage, options, superblock));
        let group = start_group(shared, &recovered, Manifest::Owner(Box::new(log)));
        let store = Self {
            inner: Arc::new(Inner {
                group,
                recovery: recovered.report.clone(),
                read_only: false,
                resyncs: Mutex::default(),
                resyncing: Mutex::default(),
                background: super::room::Background::default(),
                scheduled: Mutex::default(),
                _lock: lock,
            }),
        };
        store.tidy(&recovered, repair)?;
        // A policy of a newer version bounds nothing here, and every use of it says so.
        let _ = store.apply_bound();
        Ok(store)
    }

    /// Removes orphans, repairs superblock copies, and seals what recovery found.
    fn tidy(&self, recovered: &Recovered, repair: bool) -> Result<()> {
        let group = &self.inner.group;
        let orphans: Vec<ExtentId> = {
            let mut manifest = group.manifest.lock();
            let log = manifest.log()?;
            if repair {
                log.refresh_superblock()?;
            }
            let mut named: BTreeSet<ExtentId> = log.state().extents().collect();
            named.extend([SUPERBLOCK_EXTENT, log.extent()]);
            // Segments that are not sealed may name maps of taps that the manifest does not know yet.
            named.extend(group.catalog.read().map_extents());
            recovered.extents.iter().copied().filter(|extent| !named.contains(extent)).collect()
        };
        group.remove_orphans(&orphans);
        loop {
            match group.seal_oldest_frozen() {
                Ok(true) => {}
                // On a full storage the frames stay as they are, indexed in memory.
                Ok(false) | Err(Error::NoSpace) => break,
                Err(error) => return Err(error),
            }
        }
        group.trim_sealed();
        Ok(())
    }

    /// Opens a store for reading only, beside an owner if there is one. Nothing is written; what recovery is needed is done in memory.
    /// The store is seen as it was when it was opened.
    ///
    /// # Errors
    /// `NotFound`, `UnsupportedFormat`, `Damaged`, `Io`.
    pub fn open_read_only(storage: Arc<dyn Storage>, options: OpenOptions) -> Result<Self> {
        let lease = storage.lease().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(&*storage, storage.describe(SUPERBLOCK_EXTENT)),
            _ => Error::io("lease", "the store", error),
        })?;
        let mut recovered = recover(&*storage, false, options.sabotage);
        for _ in 1..READ_ATTEMPTS {
            // An owner at work may have sealed, cut or replaced what the manifest named a moment ago, and frames that are read later
            // vouch for ones that were read before they were whole. Damage that is real is found again.
            let before = damage_of(&recovered);
            if before.is_empty() && !matches!(recovered, Err(Error::Io { .. })) {
                break;
            }
            recovered = recover(&*storage, false, options.sabotage);
            if !before.is_empty() && damage_of(&recovered) == before {
                break;
            }
        }
        let recovered = recovered?;
        let state = recovered.state.clone();
        let superblock = recovered.superblock.clone();
        let shared = Arc::new(shared(storage, options, superblock));
        let report = recovered.report.clone();
        let group = start_group(shared, &recovered, Manifest::Reader(Box::new(state)));
        Ok(Self {
            inner: Arc::new(Inner {
                group,
                recovery: report,
                read_only: true,
                resyncs: Mutex::default(),
                resyncing: Mutex::default(),
                background: super::room::Background::default(),
                scheduled: Mutex::default(),
                _lock: lease,
            }),
        })
    }
}

/// Removes the reserve of a store on a full storage; whether there was one.
fn give_up_reserve(storage: &dyn Storage, state: &mut ManifestState) -> Result<bool> {
    let Some((extent, _)) = state.reserve.take() else { return Ok(false) };
    if storage.remove(extent).is_err() {
        return Ok(false);
    }
    storage.sync_names().map_err(|error| Error::io("sync names of", "the store", error))?;
    Ok(true)
}

/// All damage that a recovery met, whether or not it went on.
fn damage_of(recovered: &Result<Recovered>) -> Vec<Damage> {
    match recovered {
        Ok(recovered) => recovered.report.damage.clone(),
        Err(Error::Damaged(damage)) => vec![(**damage).clone()],
        Err(_) => Vec::new(),
    }
}

fn lock_owner(storage: &dyn Storage) -> Result<Box<dyn StorageLock>> {
    storage.lock_owner().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Owned,
        io::ErrorKind::NotFound => {
            Error::NotFound { what: "store", name: storage.describe(SUPERBLOCK_EXTENT) }
        }
        _ => Error::io("lock", "the store", error),
    })
}

fn shared(storage: Arc<dyn Storage>, options: OpenOptions, superblock: Superblock) -> Shared {
    Shared {
        storage,
        tuning: options.tuning(),
        clock: options.clock,
        pages: Arc::new(PageCache::new(options.page_cache_bytes)),
        store: superblock.store,
        key: superblock.digest_key,
        owner_epoch: superblock.owner_epoch,
        sabotage: options.sabotage,
        handles: Shared::handle_cache(),
    }
}

/// The manifest state that makes the outcome of recovery durable.
fn state_after(recovered: &mut Recovered) -> ManifestState {
    let mut state = recovered.state.clone();
    let mut edits = Vec::new();
    for extent in &recovered.empty {
        edits.push(Edit::SegmentDropped(*extent));
    }
    for frozen in &recovered.frozen {
        edits.push(Edit::SegmentCut { extent: frozen.extent, frames_end: frozen.frames_end });
    }
    edits.extend(recovered.lost.iter().cloned().map(Edit::Lost));
    if !recovered.superblock.clean {
        let mut position = state.position;
        edits.push(Edit::LineageCut(LineageCut { lineage: position.lineage, last_seq: recovered.last_seq }));
        position.lineage = position.lineage.next();
        edits.push(Edit::Position(position));
    }
    if let Some(last) = recovered.extents.last() {
        edits.push(Edit::NextExtent(last.next()));
    }
    for edit in &edits {
        state.apply(edit).expect("edits of recovery fit the state they come from");
    }
    recovered.state = state.clone();
    state
}

fn start_group(shared: Arc<Shared>, recovered: &Recovered, manifest: Manifest) -> Group {
    let state = manifest.state();
    let mut catalog = state.catalog.clone();
    recovered.frozen.iter().flat_map(|frozen| &frozen.metas).for_each(|(_, meta)| catalog.apply(meta));
    // An outline takes away points together with their bookmarks, whose records may still be there.
    catalog.keep_bookmarks(|bookmark| state.outline.contains(bookmark.seq));
    let mut lost = state.lost.clone();
    if matches!(manifest, Manifest::Reader(_)) {
        lost.extend(recovered.lost.iter().cloned());
    }
    let mut lines: Vec<SegmentLine> = state
        .segments
        .values()
        .filter_map(|segment| segment.sealed.as_ref().map(|s| SegmentLine::sealed(s, segment.named.uuid)))
        .collect();
    lines.sort_by_key(|line| line.base_seq);
    let runs = state.runs.values().cloned();
    let view = View::new(
        recovered.frozen.iter().rev().map(|frozen| frozen.memtable.clone()).collect(),
        runs.map(|run| Arc::new(shared.open_run(run))).collect(),
        lost,
    );
    let start = GroupStart {
        lineage: state.position.lineage,
        last_seq: recovered.last_seq,
        next_frame: recovered.next_frame,
        newest_time: recovered.newest_time,
        covered_to: recovered.covered_to.max(recovered.newest_time),
        view,
        frozen: recovered.frozen.clone(),
        lines,
        catalog,
        manifest,
    };
    Group::new(shared, start)
}
