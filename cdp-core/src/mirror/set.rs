//! The set at run time: its members, its locks, and what all operations share.
//!
//! Locks, in the order in which they are taken: `geometry` (shared by everything, alone for a resize and the close), `flushing`, a range, `members` (shared
//! by whatever reads or writes copies, alone for a change of membership), then `meta`, `unsynced` and `recent` for a moment each. A write that waits for a range holds
//! no members. Whoever holds the members alone has waited until no change is in flight or waits in a row ([`MirrorSet::alone`]), but for `demote`. I/O on copies runs under `members` shared; nothing that grows with the volume runs under it alone.

use super::{
    copy::MirrorCopy,
    event::{MirrorEvent, Sink},
    handshake::{CopyState, Fingerprint, Handshake},
    range_lock::RangeLock,
    record::{CopyRecord, SampleEntry, StateRecord},
    rows::{Rows, Writers},
    state_file::StateFile,
    unsynced::Unsynced,
};
use crate::{
    Error, Result,
    dirty_map::{ByteRange, MapFile, MapFileOptions, Shape},
    format::digest::DigestKey,
    io::{AlignedBuf, Storage, StorageLock},
    limits::SAMPLE_BLOCKS_MAX,
    sabotage::{Sabotage, Switch},
    units::{BLOCK_BYTES, BLOCK_LEN, len_u64, to_len},
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

/// Bytes of writes that wait for a slow copy, unless the host asks for another bound.
const BEHIND_BYTES: u64 = 16 << 20;
/// How long a flush waits for copies that it could do without.
const PATIENCE: Duration = Duration::from_millis(250);

/// How a set is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorOptions {
    /// How maps and the activity log are made and used. With `log` off, a crash means that everything is compared.
    pub map: MapFileOptions,
    /// Who writes to the copies. With [`Writers::Caller`], the default, a write takes as long as all copies together; else as long as those that the policy
    /// asks for.
    pub writers: Writers,
    /// Bytes of writes that wait for a slow copy at most; what it misses beyond is marked in its map. Default 16 MiB.
    pub behind_bytes_max: u64,
    /// How long a flush waits for slow copies that the policy can do without; after that its map names what they have not made durable. Default 250 ms.
    pub patience: Duration,
    /// Deliberate defects, for tests.
    pub sabotage: Sabotage,
}

impl Default for MirrorOptions {
    fn default() -> Self {
        Self {
            map: MapFileOptions::default(),
            writers: Writers::Caller,
            behind_bytes_max: BEHIND_BYTES,
            patience: PATIENCE,
            sabotage: Sabotage::default(),
        }
    }
}

impl MirrorOptions {
    /// Options of the activity log of the set.
    pub(super) fn log_options(&self) -> MapFileOptions {
        let mut options = self.map;
        options.map.sabotage = self.sabotage;
        options
    }

    /// Options of the maps of copies. Their logs are always on: what an absent copy misses must be known after a crash.
    pub(super) fn map_options(&self) -> MapFileOptions {
        MapFileOptions { log: true, ..self.log_options() }
    }
}

/// One copy at run time.
pub(super) struct Member {
    pub(super) number: u32,
    /// `None` while it is missing.
    pub(super) copy: Option<Arc<dyn MirrorCopy>>,
    pub(super) map: MapFile,
    /// It takes writes.
    pub(super) online: bool,
    /// Why it is not, where that is not the host's wish.
    pub(super) trouble: Option<String>,
    /// What the handshake said when it was refused.
    pub(super) refused: Option<Handshake>,
}

impl Member {
    /// Whether it takes writes and lacks nothing.
    pub(super) fn is_whole(&self) -> bool {
        self.online && self.map.map().is_empty()
    }

    /// The copy, if it takes writes.
    pub(super) fn taking(&self) -> Option<&Arc<dyn MirrorCopy>> {
        self.copy.as_ref().filter(|_| self.online)
    }

    /// Whether a range can be read from it.
    pub(super) fn has(&self, range: ByteRange) -> bool {
        self.online && !self.map.map().is_dirty(range)
    }
}

/// What a resize changes.
pub(super) struct Geometry {
    pub(super) shape: Shape,
    pub(super) log: MapFile,
    pub(super) closed: bool,
}

/// The blocks that were written last, the newest at the end, and those that a durable sample names.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pub(super) blocks: VecDeque<u64>,
    /// Writes since the sample was taken.
    pub(super) writes: u64,
    /// Times that entries were taken out of it since.
    pub(super) dropped: u64,
}

impl Recent {
    pub(super) fn note(&mut self, range: ByteRange) {
        self.writes += 1;
        let last = range.end().div_ceil(BLOCK_BYTES);
        let first = (range.offset / BLOCK_BYTES).max(last.saturating_sub(len_u64(SAMPLE_BLOCKS_MAX)));
        for block in first..last {
            self.blocks.retain(|other| *other != block);
            self.blocks.push_back(block);
            if self.blocks.len() > SAMPLE_BLOCKS_MAX {
                self.blocks.pop_front();
            }
        }
    }
}

/// A mirror set that is open for writing. Any number of threads.
pub struct MirrorSet {
    pub(super) geometry: RwLock<Geometry>,
    pub(super) flushing: Mutex<()>,
    pub(super) repairing: Mutex<()>,
    pub(super) ranges: RangeLock,
    /// What waits for each copy, where they are written beside each other.
    pub(super) rows: Option<Rows>,
    pub(super) members: RwLock<Vec<Member>>,
    pub(super) meta: Mutex<StateFile>,
    pub(super) unsynced: Mutex<Unsynced>,
    pub(super) recent: Mutex<Recent>,
    /// Why nothing is let through any more.
    pub(super) failed: Mutex<Option<String>>,
    /// What a deliberate defect marks too late.
    pub(super) late_marks: Mutex<Vec<ByteRange>>,
    pub(super) sink: Sink,
    pub(super) options: MirrorOptions,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) _owner: Box<dyn StorageLock>,
}

impl fmt::Debug for MirrorSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MirrorSet({} copies)", self.members.read().len())
    }
}

/// The error for a copy that the set does not have.
pub(super) fn no_copy(number: u32) -> Error {
    Error::NotFound { what: "copy", name: number.to_string() }
}

/// Finds a copy.
pub(super) fn member(members: &[Member], number: u32) -> Result<&Member> {
    members.iter().find(|member| member.number == number).ok_or_else(|| no_copy(number))
}

impl MirrorSet {
    pub(super) fn sabotaged(&self, switch: Switch) -> bool {
        self.options.sabotage.on(switch)
    }

    /// Size of the volume in bytes.
    pub fn bytes(&self) -> u64 {
        self.geometry.read().shape.bytes()
    }

    /// Holds the members alone, with no change in flight, and none that failed unnoticed.
    pub(super) fn alone(&self) -> Result<RwLockWriteGuard<'_, Vec<Member>>> {
        loop {
            let members = self.members.write();
            let Some(rows) = &self.rows else { return Ok(members) };
            rows.drain();
            if !rows.any_failed() {
                return Ok(members);
            }
            drop(members);
            self.reap()?;
            // Somebody who waits for a change that failed may be about to take care of it.
            std::thread::yield_now();
        }
    }

    /// Whether a copy has not done everything yet in a range.
    pub(super) fn is_pending(&self, number: u32, range: ByteRange) -> bool {
        self.rows.as_ref().is_some_and(|rows| rows.is_pending(number, range))
    }

    /// Waits until a copy has done everything in a range; false when it has failed.
    pub(super) fn wait_for_range(&self, number: u32, range: ByteRange) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.wait_for_range(number, range))
    }

    /// Lets nothing through any more.
    pub(super) fn stop(&self, error: Error) -> Error {
        let mut failed = self.failed.lock();
        if failed.is_none() {
            *failed = Some(error.to_string());
            drop(failed);
            self.sink.tell(|| MirrorEvent::Stopped { error: error.to_string() });
        }
        error
    }

    /// A failure of the metadata stops the set: what is durable is then not known.
    pub(super) fn or_stop<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.stop(error))
    }

    pub(super) fn check_alive(&self, geometry: &Geometry) -> Result<()> {
        if let Some(text) = &*self.failed.lock() {
            return Err(Error::Poisoned(text.clone()));
        }
        if geometry.closed { Err(Error::Poisoned("the mirror set was closed".into())) } else { Ok(()) }
    }

    /// Changes the state, durably.
    pub(super) fn update_state(&self, change: impl FnOnce(&mut StateRecord)) -> Result<()> {
        let result = self.meta.lock().update(change);
        self.or_stop(result)
    }

    /// Takes blocks that are about to change out of the durable sample. With members held.
    pub(super) fn forget_samples(&self, range: ByteRange) -> Result<()> {
        let blocks = range.offset / BLOCK_BYTES..range.end().div_ceil(BLOCK_BYTES);
        let mut meta = self.meta.lock();
        if !meta.current().sample.iter().any(|entry| blocks.contains(&entry.block)) {
            return Ok(());
        }
        let mut recent = self.recent.lock();
        recent.dropped += 1;
        // A few writes of the state at most between two samples.
        let all = recent.dropped > 8;
        drop(recent);
        let result = meta.update(|state| state.sample.retain(|entry| !all && !blocks.contains(&entry.block)));
        drop(meta);
        self.or_stop(result)
    }

    /// Digests of the blocks written last, as a whole copy holds them durably. With members held alone, after a sync.
    pub(super) fn sample(&self, members: &[Member], bytes: u64) -> Vec<SampleEntry> {
        let key = DigestKey(self.meta.lock().current().digest_key);
        let Some(source) = members.iter().find(|member| member.is_whole()).and_then(Member::taking) else {
            return Vec::new();
        };
        let unsynced = self.unsynced.lock().ranges();
        let blocks: Vec<u64> = self.recent.lock().blocks.iter().copied().collect();
        let settled = |block: &u64| {
            let own = block_range(*block, bytes);
            !unsynced.iter().any(|range| range.offset < own.end() && own.offset < range.end())
        };
        let entry = |block: u64| {
            let digest = digest_of(&**source, key, block, bytes)?;
            Some(SampleEntry { block, digest })
        };
        blocks.into_iter().filter(settled).filter_map(entry).collect()
    }

    /// Reads a range from the first copy that has it, other than `except`; also says which.
    pub(super) fn read_clean(
        &self,
        members: &RwLockReadGuard<'_, Vec<Member>>,
        offset: u64,
        buf: &mut [u8],
        except: Option<u32>,
    ) -> Result<(u32, Vec<u32>)> {
        let range = ByteRange::new(offset, len_u64(buf.len()));
        let (mut failing, mut last) = (Vec::new(), None);
        let any = self.sabotaged(Switch::ReadDirtyCopy);
        let mut candidates: Vec<&Member> =
            if any { members.iter().rev().collect() } else { members.iter().collect() };
        candidates.retain(|member| any || member.has(range));
        // Those that have everything come first; for the others it is worth to wait when there is nobody else.
        if !self.sabotaged(Switch::ReadBehind) {
            candidates.sort_by_key(|member| self.is_pending(member.number, range));
        }
        for member in candidates {
            let Some(copy) = member.taking().filter(|_| except != Some(member.number)) else { continue };
            if !self.sabotaged(Switch::ReadBehind) && !self.wait_for_range(member.number, range) {
                continue;
            }
            match copy.read_at(offset, buf) {
                Ok(()) => return Ok((member.number, failing)),
                Err(error) => {
                    failing.push(member.number);
                    last = Some(Error::io("read", format!("copy {}", member.number), error));
                }
            }
        }
        Err(last.unwrap_or_else(|| no_source(members)))
    }
}

/// Why nothing can be read or written.
pub(super) fn no_source(members: &[Member]) -> Error {
    let why = members.iter().find_map(|member| member.refused).map_or_else(
        || "no copy that lacks nothing is online".to_owned(),
        |outcome| format!("{} ({})", outcome.decision, outcome.reason),
    );
    Error::MirrorRefused(format!(
        "the mirror set cannot be used: {why}; bring a copy online, or repair from the one that is right"
    ))
}

/// The bytes of a block of 4 KiB, which ends with the volume.
pub(super) fn block_range(block: u64, bytes: u64) -> ByteRange {
    let offset = block.saturating_mul(BLOCK_BYTES).min(bytes);
    ByteRange::new(offset, BLOCK_BYTES.min(bytes - offset))
}

fn digest_of(copy: &dyn MirrorCopy, key: DigestKey, block: u64, bytes: u64) -> Option<u64> {
    let range = block_range(block, bytes);
    let mut buf = AlignedBuf::new(BLOCK_LEN).ok()?;
    let buf = &mut buf[..to_len(range.bytes)];
    copy.read_at(range.offset, buf).ok()?;
    (range.bytes > 0).then(|| key.digest(buf))
}

/// Compares what a copy holds with a sample; blocks that its map names are left out when `map` is given.
pub(super) fn fingerprint(
    copy: &dyn MirrorCopy,
    state: &StateRecord,
    sample: &[SampleEntry],
    map: Option<&MapFile>,
) -> Fingerprint {
    let (bytes, key) = (state.shape.bytes(), DigestKey(state.digest_key));
    let (mut read, mut unknown) = (0, 0);
    for entry in sample {
        if map.is_some_and(|map| map.map().is_dirty(block_range(entry.block, bytes))) {
            continue;
        }
        match digest_of(copy, key, entry.block, bytes) {
            Some(digest) if digest == entry.digest => read += 1,
            Some(_) => return Fingerprint::Contradicts,
            None => unknown += 1,
        }
    }
    if read > 0 && unknown == 0 { Fingerprint::Matches } else { Fingerprint::Unknown }
}

/// What the handshake needs to know of a copy that is there.
pub(super) fn copy_state(
    member: &Member,
    copy: &dyn MirrorCopy,
    record: &CopyRecord,
    state: &StateRecord,
    sabotage: Sabotage,
) -> CopyState {
    let fits = copy.size().is_ok_and(|bytes| bytes >= state.shape.bytes());
    let fingerprint = match (fits, record.online) {
        (false, _) => Fingerprint::Unknown,
        (true, true) => fingerprint(copy, state, &state.sample, Some(&member.map)),
        (true, false) => fingerprint(copy, state, &record.sample, None),
    };
    let now = copy.change_stamp().ok().flatten();
    CopyState {
        number: record.number,
        generations: record.generations.clone(),
        lacks: !sabotage.on(Switch::EqualIdsClean) && !member.map.map().is_empty(),
        clean: state.clean || !record.online,
        fingerprint,
        need_compare: record.stamp.is_some() && now != record.stamp,
        fits,
    }
}

/// What the host wants to hear of a failure of a copy.
pub(super) fn trouble(operation: &str, error: &std::io::Error) -> String {
    format!("{operation} failed: {error}")
}
