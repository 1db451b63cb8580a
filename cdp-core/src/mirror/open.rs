//! Making a set, and opening one: maps, samples, handshakes, and what a crash has left.
//!
//! Order, so that a crash anywhere leaves the claims whole: what the activity log claims goes into the maps of the copies and is durable there, then the state
//! is, then the log is emptied. Maps carry the session of the set as their generation: one of an older session is refused and everything claimed.

use super::{
    copy::MirrorCopy,
    event::{MirrorEvent, Sink},
    generation::Generations,
    handshake::{Decision, Direction, Handshake, handshake},
    range_lock::RangeLock,
    record::{AckPolicy, CopyRecord, StateRecord},
    rows::Rows,
    set::{Geometry, Member, MirrorOptions, MirrorSet, Recent, copy_state, trouble},
    state_file::{STATE_EXTENT, StateFile},
    unsynced::Unsynced,
    write::clear_all,
};
use crate::{
    Error, Result,
    dirty_map::{Base, DirtyMap, Granularity, MapFile, MapFileOptions, Shape},
    format::Uuid,
    io::{Extent, Storage},
    limits::{LOCATOR_BYTES_MAX, MIRROR_COPIES_MAX},
    sabotage::Switch,
    units::{ExtentId, len_u64},
};
use parking_lot::{Mutex, RwLock};
use std::{io, sync::Arc};

/// How a set is made.
#[derive(Clone, Copy, Debug)]
pub struct CreateMirror {
    /// Size of the volume, bytes: a multiple of 512.
    pub bytes: u64,
    /// Bytes that one bit of a map stands for.
    pub granularity: Granularity,
    /// When a write is acknowledged.
    pub ack: AckPolicy,
    /// How it is used.
    pub options: MirrorOptions,
}

impl CreateMirror {
    /// A set of this size, with everything else at its default.
    pub fn new(bytes: u64) -> Self {
        let (granularity, ack, options) = (Granularity::MIN, AckPolicy::default(), MirrorOptions::default());
        Self { bytes, granularity, ack, options }
    }
}

/// A copy that joins a set.
pub struct NewCopy {
    /// Where the host finds it: given back by [`Opener`]. At most [`LOCATOR_BYTES_MAX`] bytes.
    pub locator: String,
    /// The copy.
    pub copy: Arc<dyn MirrorCopy>,
}

/// Finds the copy that a record names. An error means that the copy is missing.
pub type Opener<'a> = dyn FnMut(&CopyRecord) -> io::Result<Arc<dyn MirrorCopy>> + 'a;

pub(super) fn random() -> Result<u64> {
    getrandom::u64()
        .map_err(|error| Error::io("get random numbers for", "a mirror set", io::Error::other(error)))
}

pub(super) fn random_uuid() -> Result<Uuid> {
    let mut uuid = [0; 16];
    uuid[..8].copy_from_slice(&random()?.to_le_bytes());
    uuid[8..].copy_from_slice(&random()?.to_le_bytes());
    Ok(Uuid(uuid))
}

pub(super) fn failed(operation: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::io(operation, "the metadata of the mirror set", source)
}

/// Makes an extent for a map.
pub(super) fn new_extent(storage: &dyn Storage, id: ExtentId) -> Result<Arc<dyn Extent>> {
    match storage.create(id, 0) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            storage.open(id).map_err(failed("open"))
        }
        other => other.map_err(failed("create")),
    }
}

/// A map file; everything is claimed where `all` is set.
pub(super) fn new_map(
    extent: Arc<dyn Extent>,
    base: Base,
    options: MapFileOptions,
    all: bool,
) -> Result<MapFile> {
    let map = DirtyMap::with_options(base.shape, options.map)?;
    if all {
        map.set_all();
    }
    MapFile::create(extent, base.device, base.generation, map, options)
}

/// Checks what a copy says of itself against the set.
pub(super) fn check_new(new: &NewCopy, others: &[Arc<dyn MirrorCopy>], bytes: u64) -> Result<()> {
    if new.locator.len() > LOCATOR_BYTES_MAX {
        let text = format!("a locator has at most {LOCATOR_BYTES_MAX} bytes, this one {}", new.locator.len());
        return Err(Error::InvalidArgument(text));
    }
    let own = new.copy.identity();
    if own.is_some() && others.iter().any(|other| other.identity() == own) {
        return Err(Error::Exists { what: "copy", name: new.locator.clone() });
    }
    let size = new.copy.size().map_err(|error| Error::io("find the size of", new.locator.clone(), error))?;
    if size < bytes {
        let text = format!("copy '{}' has {size} bytes, and the volume {bytes}", new.locator);
        return Err(Error::MirrorRefused(text));
    }
    Ok(())
}

impl MirrorSet {
    /// Makes a set on an empty storage. The first copy is the source; the others are all dirty, unless all of them are known to be zeroes.
    ///
    /// # Errors
    /// `InvalidArgument` for a size, locator or number of copies out of bounds; `Exists` when the storage is not empty or a copy is given twice;
    /// `MirrorRefused` for a copy that is too small; `Owned`, `Io`, `NoSpace`.
    pub fn create(storage: Arc<dyn Storage>, new: CreateMirror, copies: Vec<NewCopy>) -> Result<Self> {
        let shape = Shape::new(new.bytes, new.granularity)?;
        if copies.is_empty() || copies.len() > MIRROR_COPIES_MAX {
            let text = format!("a mirror set has 1 to {MIRROR_COPIES_MAX} copies, not {}", copies.len());
            return Err(Error::InvalidArgument(text));
        }
        let mut taken = Vec::new();
        for copy in &copies {
            check_new(copy, &taken, new.bytes)?;
            taken.push(Arc::clone(&copy.copy));
        }
        let owner = owner_of(&*storage)?;
        if !storage.list().map_err(failed("list"))?.is_empty() {
            return Err(Error::Exists { what: "mirror set", name: storage.describe(STATE_EXTENT) });
        }
        let zero = |copy: &NewCopy| copy.copy.is_zero().unwrap_or(false);
        let equal = copies.iter().all(zero);
        let (set, generations, options) =
            (random_uuid()?, Generations::first(random()?), new.options.map_options());
        let log_base = Base { device: set, generation: 1, shape };
        let log_extent = new_extent(&*storage, ExtentId::new(1))?;
        let log = new_map(log_extent, log_base, new.options.log_options(), false)?;
        let (mut members, mut records) = (Vec::new(), Vec::new());
        for ((number, new), extent) in (0u32..).zip(copies).zip(2u64..) {
            let (id, map) = (random_uuid()?, ExtentId::new(extent));
            let base = Base { device: id, generation: 1, shape };
            let own = new_map(new_extent(&*storage, map)?, base, options, number > 0 && !equal)?;
            members.push(Member {
                number,
                copy: Some(new.copy),
                map: own,
                online: true,
                trouble: None,
                refused: None,
            });
            records.push(CopyRecord {
                number,
                id,
                online: true,
                rewrite: false,
                generations: generations.clone(),
                map,
                stamp: None,
                sample: Vec::new(),
                locator: new.locator,
            });
        }
        let record = StateRecord {
            set,
            sequence: 1,
            shape,
            ack: new.ack,
            clean: false,
            session: 1,
            next_extent: len_u64(records.len()) + 2,
            next_number: u32::try_from(records.len()).expect("copies are bounded"),
            log: ExtentId::new(1),
            digest_key: random()?,
            sample: Vec::new(),
            copies: records,
        };
        let state = StateFile::create(&*storage, record)?;
        storage.sync_names().map_err(failed("sync the names of"))?;
        Ok(Self::assemble(
            storage,
            owner,
            state,
            Geometry { shape, log, closed: false },
            members,
            new.options,
        ))
    }

    /// Opens a set: finds the copies, decides who is the source, and takes up what a crash has left.
    ///
    /// A copy that cannot be opened, or is too small, goes offline. When no copy can be the source the set opens all the same, refuses reads and writes, and says why in
    /// [`MirrorSet::status`]; [`MirrorSet::resolve`] decides.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` when the state is lost, `Owned`, `Io`, `NoSpace`.
    pub fn open(storage: Arc<dyn Storage>, options: MirrorOptions, opener: &mut Opener<'_>) -> Result<Self> {
        let owner = owner_of(&*storage)?;
        let state = StateFile::open(&*storage)?;
        let record = state.current().clone();
        remove_orphans(&*storage, &record)?;
        let log = open_map(&*storage, record.log, record.set, &record, options.log_options())?;
        let mut members = Vec::new();
        for copy in &record.copies {
            let map = open_map(&*storage, copy.map, copy.id, &record, options.map_options())?;
            let (found, trouble) = match opener(copy) {
                Ok(found) => (Some(found), None),
                Err(error) => (None, Some(trouble("open", &error))),
            };
            if options.sabotage.on(Switch::EqualIdsClean) && copy.online {
                // A deliberate defect: the ids are equal, so the bits are not looked at.
                let member = Member {
                    number: copy.number,
                    copy: None,
                    map,
                    online: false,
                    trouble: None,
                    refused: None,
                };
                clear_all(&member);
                members.push(Member { copy: found, trouble, ..member });
                continue;
            }
            members.push(Member {
                number: copy.number,
                copy: found,
                map,
                online: false,
                trouble,
                refused: None,
            });
        }
        let geometry = Geometry { shape: record.shape, log, closed: false };
        let set = Self::assemble(storage, owner, state, geometry, members, options);
        set.take_up(&record)?;
        Ok(set)
    }

    fn assemble(
        storage: Arc<dyn Storage>,
        owner: Box<dyn crate::io::StorageLock>,
        state: StateFile,
        geometry: Geometry,
        members: Vec<Member>,
        options: MirrorOptions,
    ) -> Self {
        let blocks = state.current().sample.iter().map(|entry| entry.block).collect();
        Self {
            geometry: RwLock::new(geometry),
            flushing: Mutex::new(()),
            repairing: Mutex::new(()),
            ranges: RangeLock::default(),
            rows: Rows::new(options.writers, options.behind_bytes_max, options.patience),
            members: RwLock::new(members),
            meta: Mutex::new(state),
            unsynced: Mutex::new(Unsynced::new(options.map.region_bytes)),
            recent: Mutex::new(Recent { blocks, ..Recent::default() }),
            failed: Mutex::new(None),
            late_marks: Mutex::new(Vec::new()),
            sink: Sink::default(),
            options,
            storage,
            _owner: owner,
        }
    }

    /// Ends the use of the set in good order: everything is durable, the maps are exact, and the next open compares nothing.
    ///
    /// # Errors
    /// As [`MirrorSet::flush`], and those of the metadata; the next open then takes it for a crash.
    pub fn close(&self) -> Result<()> {
        let mut geometry = self.geometry.write();
        self.check_alive(&geometry)?;
        self.close_alone(&mut geometry)?;
        self.sink.tell(|| MirrorEvent::Closed);
        Ok(())
    }

    fn close_alone(&self, geometry: &mut Geometry) -> Result<()> {
        let any = self.members.read().iter().any(|member| member.online);
        if any {
            self.flush_patiently(geometry)?;
        }
        let members = self.alone()?;
        geometry.closed = true;
        for member in members.iter() {
            member.map.save_clean()?;
        }
        if !any {
            return Ok(());
        }
        geometry.log.save_clean()?;
        let sample = self.sample(&members, geometry.shape.bytes());
        self.update_state(|state| {
            (state.clean, state.sample) = (true, sample);
            for copy in state.copies.iter_mut().filter(|copy| copy.online) {
                let found = members.iter().find(|member| member.number == copy.number);
                let found = found.and_then(|member| member.copy.as_ref());
                copy.stamp = found.and_then(|found| found.change_stamp().ok().flatten());
            }
        })
    }

    /// Decides what becomes of each copy, and makes it durable.
    fn take_up(&self, record: &StateRecord) -> Result<()> {
        let geometry = self.geometry.read();
        let mut members = self.members.write();
        let verdicts = judge(&members, record, self.options.sabotage);
        let session = record.session + 1;
        let Some(source) = verdicts.source else {
            for member in members.iter_mut() {
                member.refused = verdicts.of(member.number);
            }
            return self.update_state(|state| (state.session, state.clean) = (session, false));
        };
        let mut leaving = Vec::new();
        for (member, copy) in members.iter_mut().zip(&record.copies) {
            if !copy.online {
                continue;
            }
            let verdict = verdicts.of(member.number);
            if member.number != source {
                member.map.map().merge(geometry.log.map())?;
            }
            // What a killed process has written must not be trusted before it is durable.
            member.online = match member.copy.as_ref().map(|found| found.sync()) {
                Some(Ok(())) => true,
                Some(Err(error)) if member.number == source => {
                    return Err(Error::io("sync", format!("copy {source}"), error));
                }
                Some(Err(error)) => {
                    member.trouble = Some(trouble("sync", &error));
                    false
                }
                None => false,
            };
            match verdict.map(|outcome| outcome.decision) {
                Some(Decision::ByComparison(_)) => self.or_stop(member.map.mark_all_dirty())?,
                Some(Decision::Unrelated | Decision::SplitBrain) => {
                    (member.online, member.refused) = (false, verdict);
                    self.or_stop(member.map.mark_all_dirty())?;
                }
                _ => {}
            }
            self.or_stop(member.map.checkpoint())?;
            if !member.online {
                leaving.push(member.number);
            }
        }
        self.rotate(&members, &leaving, &[])?;
        self.update_state(|state| {
            (state.session, state.clean) = (session, false);
            for copy in state.copies.iter_mut().filter(|copy| copy.online) {
                copy.stamp = None;
            }
        })?;
        // The maps have what the log claims.
        while let Some(token) = geometry.log.map().begin(0, u64::MAX) {
            token.clean();
        }
        self.or_stop(geometry.log.checkpoint())
    }
}

/// What was found out about the copies at open.
pub(super) struct Verdicts {
    /// The copy that the others follow.
    pub(super) source: Option<u32>,
    /// What the handshake with the source says of each other copy; without a source, the worst that it says.
    outcomes: Vec<(u32, Handshake)>,
}

impl Verdicts {
    pub(super) fn of(&self, number: u32) -> Option<Handshake> {
        self.outcomes.iter().find(|(other, _)| *other == number).map(|(_, outcome)| *outcome)
    }
}

/// Shakes hands between all pairs, and finds the copy that no other is ahead of and that has nothing against it.
pub(super) fn judge(
    members: &[Member],
    record: &StateRecord,
    sabotage: crate::sabotage::Sabotage,
) -> Verdicts {
    let states: Vec<_> = members
        .iter()
        .zip(&record.copies)
        .filter(|(_, copy)| copy.online)
        .filter_map(|(member, copy)| {
            let found = member.copy.as_ref()?;
            Some(copy_state(member, &**found, copy, record, sabotage))
        })
        .collect();
    let mut worst = Vec::new();
    for state in &states {
        let others: Vec<(u32, Handshake)> = states
            .iter()
            .filter(|other| other.number != state.number)
            .map(|other| (other.number, handshake(state, other)))
            .collect();
        let follows = |outcome: &Handshake| match outcome.decision {
            Decision::Nothing => true,
            Decision::ByMap(direction) | Decision::ByComparison(direction) => {
                direction == Direction::FirstToSecond
            }
            // One that is too small leaves the set.
            Decision::Unrelated => outcome.rule == "size",
            Decision::SplitBrain => false,
        };
        let sound =
            state.fits && !state.lacks && state.fingerprint != super::handshake::Fingerprint::Contradicts;
        if sound && others.iter().all(|(_, outcome)| follows(outcome)) {
            return Verdicts { source: Some(state.number), outcomes: others };
        }
        worst.extend(
            others
                .into_iter()
                .find(|(_, outcome)| !follows(outcome))
                .map(|(_, outcome)| (state.number, outcome)),
        );
    }
    Verdicts { source: None, outcomes: worst }
}

fn owner_of(storage: &dyn Storage) -> Result<Box<dyn crate::io::StorageLock>> {
    storage.lock_owner().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Owned,
        _ => failed("lock")(error),
    })
}

/// Removes what a crash has left of maps that no state names.
fn remove_orphans(storage: &dyn Storage, record: &StateRecord) -> Result<()> {
    let named = |id: ExtentId| {
        id == STATE_EXTENT || id == record.log || record.copies.iter().any(|copy| copy.map == id)
    };
    let orphans: Vec<ExtentId> =
        storage.list().map_err(failed("list"))?.into_iter().filter(|id| !named(*id)).collect();
    for id in &orphans {
        storage.remove(*id).map_err(failed("remove an orphan of"))?;
    }
    if orphans.is_empty() { Ok(()) } else { storage.sync_names().map_err(failed("sync the names of")) }
}

/// Opens a map under the generation of the session to come. One that cannot be believed is made anew and claims everything.
pub(super) fn open_map(
    storage: &dyn Storage,
    id: ExtentId,
    device: Uuid,
    record: &StateRecord,
    options: MapFileOptions,
) -> Result<MapFile> {
    let base = |generation| Base { device, generation, shape: record.shape };
    let (now, next) = (base(record.session), base(record.session + 1));
    let extent = match storage.open(id) {
        Ok(extent) => extent,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let extent = new_extent(storage, id)?;
            storage.sync_names().map_err(failed("sync the names of"))?;
            return new_map(extent, next, options, true);
        }
        Err(error) => return Err(failed("open")(error)),
    };
    // An open that was cut short has moved some of the maps on already.
    for base in [now, next] {
        match MapFile::open(Arc::clone(&extent), base, options) {
            Ok((map, _)) => {
                if base == now {
                    map.rotate(next.generation)?;
                }
                return Ok(map);
            }
            Err(Error::MapRefused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    new_map(extent, next, options, true)
}
