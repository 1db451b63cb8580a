//! What a set says of itself, open or not.

use super::{
    generation::GenerationId,
    handshake::{CopyState, Handshake, handshake},
    open::{Opener, Verdicts, failed, judge, open_map},
    record::{AckPolicy, StateRecord},
    set::{Member, MirrorOptions, MirrorSet, copy_state, trouble},
    state_file::{STATE_EXTENT, StateFile},
};
use crate::{
    Error, Result,
    dirty_map::ByteRange,
    io::{AlignedBuf, MemoryStorage, Storage},
    units::{BLOCK_BYTES, ExtentId, to_len},
};
use std::io;

/// How a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes writes and lacks nothing.
    Clean,
    /// It takes writes; its map names blocks that it lacks or that must be compared.
    Dirty,
    /// It takes no writes.
    Offline,
    /// It cannot be found.
    Missing,
    /// What it holds cannot be brought together with the others, until somebody says who is right.
    Refused,
}

impl Standing {
    /// Whether a copy that stands so takes writes.
    pub const fn takes_writes(self) -> bool {
        matches!(self, Self::Clean | Self::Dirty)
    }

    /// Its name, stable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Dirty => "dirty",
            Self::Offline => "offline",
            Self::Missing => "missing",
            Self::Refused => "refused",
        }
    }
}

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// Its number.
    pub number: u32,
    /// Where the host finds it.
    pub locator: String,
    /// How it stands.
    pub standing: Standing,
    /// Bytes that its map names.
    pub dirty_bytes: u64,
    /// Bytes of writes that wait for it, where copies are written beside each other.
    pub behind_bytes: u64,
    /// Its line of writes.
    pub generation: GenerationId,
    /// Why it is not online, where that is not the host's wish.
    pub trouble: Option<String>,
}

/// What the handshake says of two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairStatus {
    /// The first copy.
    pub first: u32,
    /// The second copy.
    pub second: u32,
    /// The decision, and why.
    pub outcome: Handshake,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorStatus {
    /// Size of the volume, bytes.
    pub bytes: u64,
    /// When a write is acknowledged.
    pub ack: AckPolicy,
    /// It was closed in good order; false while it is open.
    pub clean: bool,
    /// The copy that the others follow; `None` when there is none.
    pub source: Option<u32>,
    /// The copies, by number.
    pub copies: Vec<CopyStatus>,
    /// All pairs of copies that are there; only of a set that is not open here.
    pub pairs: Vec<PairStatus>,
}

fn copy_status(member: &Member, record: &StateRecord) -> Option<CopyStatus> {
    let own = record.copies.iter().find(|copy| copy.number == member.number)?;
    let map = member.map.map();
    let standing = match (&member.copy, member.refused, member.online) {
        (None, ..) => Standing::Missing,
        (_, Some(_), _) => Standing::Refused,
        (.., false) => Standing::Offline,
        (.., true) if map.is_empty() => Standing::Clean,
        (.., true) => Standing::Dirty,
    };
    Some(CopyStatus {
        number: member.number,
        locator: own.locator.clone(),
        standing,
        behind_bytes: 0,
        dirty_bytes: (map.weight() * map.shape().granularity().bytes()).min(map.shape().bytes()),
        generation: own.generations.current(),
        trouble: member.trouble.clone().or_else(|| member.refused.map(|outcome| outcome.reason.to_owned())),
    })
}

impl MirrorSet {
    /// The copies and how they stand.
    pub fn status(&self) -> MirrorStatus {
        let members = self.members.read();
        let record = self.meta.lock().current().clone();
        let behind = |status: CopyStatus| {
            let behind_bytes = self.rows.as_ref().map_or(0, |rows| rows.behind_bytes(status.number));
            CopyStatus { behind_bytes, ..status }
        };
        MirrorStatus {
            bytes: record.shape.bytes(),
            ack: record.ack,
            clean: record.clean,
            source: members.iter().find(|member| member.is_whole()).map(|member| member.number),
            copies: members.iter().filter_map(|member| copy_status(member, &record)).map(behind).collect(),
            pairs: Vec::new(),
        }
    }

    /// The claim of a copy: ranges that its map names, and those that wait for it, ascending. `None` when there is no such copy.
    pub fn claim(&self, number: u32) -> Option<Vec<ByteRange>> {
        let members = self.members.read();
        let found = members.iter().find(|member| member.number == number)?;
        let mut claim: Vec<ByteRange> = found.map.map().extents().collect();
        let Some(rows) = &self.rows else { return Some(claim) };
        // What waits for it is claimed as well, in whole blocks.
        let outward = |range: ByteRange| {
            let start = range.offset / BLOCK_BYTES * BLOCK_BYTES;
            ByteRange::new(start, range.end().next_multiple_of(BLOCK_BYTES) - start)
        };
        claim.extend(rows.pending(number).into_iter().map(outward));
        claim.sort_by_key(|range| range.offset);
        let mut merged: Vec<ByteRange> = Vec::with_capacity(claim.len());
        for range in claim {
            match merged.last_mut() {
                Some(last) if last.end() >= range.offset => {
                    last.bytes = last.end().max(range.end()) - last.offset;
                }
                _ => merged.push(range),
            }
        }
        Some(merged)
    }

    /// What a set would say when it is opened, without changing anything: the metadata is opened in memory, copies are only read.
    ///
    /// # Errors
    /// `NotFound`, `Damaged` when the state is lost, `Io`.
    pub fn examine(
        storage: &dyn Storage,
        options: MirrorOptions,
        opener: &mut Opener<'_>,
    ) -> Result<MirrorStatus> {
        let memory = in_memory(storage)?;
        let state = StateFile::open(&memory)?;
        let record = state.current();
        let map_options = options.map_options();
        let log = open_map(&memory, record.log, record.set, record, options.log_options())?;
        let mut members = Vec::new();
        for copy in &record.copies {
            let map = open_map(&memory, copy.map, copy.id, record, map_options)?;
            let (found, trouble) = match opener(copy) {
                Ok(found) => (Some(found), None),
                Err(error) => (None, Some(trouble("open", &error))),
            };
            let online = copy.online && found.is_some();
            members.push(Member { number: copy.number, copy: found, map, online, trouble, refused: None });
        }
        let pairs = pairs(&members, record, options);
        let verdicts = judge(&members, record, options.sabotage);
        for member in &mut members {
            if member.online && verdicts.source.is_some() && verdicts.source != Some(member.number) {
                member.map.map().merge(log.map())?;
            }
            refuse(member, &verdicts);
        }
        Ok(MirrorStatus {
            bytes: record.shape.bytes(),
            ack: record.ack,
            clean: record.clean,
            source: verdicts.source,
            copies: members.iter().filter_map(|member| copy_status(member, record)).collect(),
            pairs,
        })
    }
}

/// Applies what an open would do to a copy.
fn refuse(member: &mut Member, verdicts: &Verdicts) {
    use super::handshake::Decision::{ByComparison, SplitBrain, Unrelated};
    if !member.online || verdicts.source == Some(member.number) {
        return;
    }
    let outcome = verdicts.of(member.number);
    match outcome.map(|outcome| outcome.decision) {
        Some(ByComparison(_)) if verdicts.source.is_some() => member.map.map().set_all(),
        Some(SplitBrain | Unrelated) => member.refused = outcome,
        _ if verdicts.source.is_none() => member.refused = outcome,
        _ => {}
    }
}

fn pairs(members: &[Member], record: &StateRecord, options: MirrorOptions) -> Vec<PairStatus> {
    let states: Vec<CopyState> = members
        .iter()
        .zip(&record.copies)
        .filter_map(|(member, copy)| {
            let found = member.copy.as_ref()?;
            Some(copy_state(member, &**found, copy, record, options.sabotage))
        })
        .collect();
    let mut pairs = Vec::new();
    for (at, first) in states.iter().enumerate() {
        for second in &states[at + 1..] {
            let outcome = handshake(first, second);
            pairs.push(PairStatus { first: first.number, second: second.number, outcome });
        }
    }
    pairs
}

/// A copy of the metadata in memory. Bounded by its size on the storage.
fn in_memory(storage: &dyn Storage) -> Result<MemoryStorage> {
    let memory = MemoryStorage::default();
    for id in storage.list().map_err(failed("list"))? {
        copy_extent(storage, &memory, id).map_err(failed("read"))?;
    }
    if memory.open(STATE_EXTENT).is_err() {
        return Err(Error::NotFound { what: "mirror set", name: storage.describe(STATE_EXTENT) });
    }
    Ok(memory)
}

fn copy_extent(from: &dyn Storage, to: &MemoryStorage, id: ExtentId) -> io::Result<()> {
    let (source, mut at) = (from.open(id)?, 0);
    let bytes = source.size()?;
    let target = to.create(id, bytes)?;
    let mut buf = AlignedBuf::new(1 << 20)?;
    while at < bytes {
        let len = to_len((bytes - at).min(1 << 20)).next_multiple_of(crate::io::IO_ALIGN);
        source.read_at(at, &mut buf[..len])?;
        target.write_at(at, &buf[..len])?;
        at += 1 << 20;
    }
    Ok(())
}
