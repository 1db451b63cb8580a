//! What a simulated disk holds: the content that is seen, the content that a power loss leaves for certain, and between
//! the two the changes that may or may not survive.
//!
//! Changes are kept in the order of issue, split into units. At a crash every unit has its own fate, and the ones that
//! survive are applied in order; so of two writes to one place none, the older or the newer may be what is left.
//! Invariant *synced*: a change that was issued before a successful sync is part of the durable content.
//! No locks, no faults, no randomness: the callers choose.

use super::super::{
    IO_ALIGN,
    sparse::{SharedBlock, SparseBytes, shared_blocks},
};
use crate::units::{ExtentId, SECTOR_BYTES, SECTOR_LEN, len_u64};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::Arc,
};

const BLOCK: u64 = len_u64(IO_ALIGN);
/// Sectors of a block, and the mask with a bit for each.
const SECTORS: u32 = 8;
const ALL_SECTORS: u8 = u8::MAX;

/// What the disk writes atomically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtomicUnit {
    /// 512 bytes: each sector of a write has its own fate.
    Sector,
    /// 4 KiB: each block has its own fate, and may still be torn at a sector where the policy of a crash says so.
    #[default]
    Block,
}

/// What becomes of a unit at a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Kept,
    /// Only the sectors whose bit is set; for blocks alone.
    Torn(u8),
}

/// A change that no sync covers yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PendingUnit {
    /// The extent was created.
    Created(ExtentId),
    /// The extent was removed.
    Removed(ExtentId),
    /// The extent was given this size in bytes.
    Size(ExtentId, u64),
    /// This range was written.
    Write {
        /// The extent.
        extent: ExtentId,
        /// First byte.
        offset: u64,
        /// Length, bytes.
        bytes: u64,
    },
}

impl PendingUnit {
    /// Whether it can be torn.
    pub(super) fn is_block(self) -> bool {
        matches!(self, Self::Write { bytes: BLOCK, .. })
    }
}

impl fmt::Display for PendingUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(id) => write!(f, "creation of extent {id}"),
            Self::Removed(id) => write!(f, "removal of extent {id}"),
            Self::Size(id, bytes) => write!(f, "size {bytes} of extent {id}"),
            Self::Write { extent, offset, bytes } => {
                write!(f, "write of {bytes} at {offset} of extent {extent}")
            }
        }
    }
}

/// Decides about each unit, in order.
pub(super) type Choose<'a> = dyn FnMut(PendingUnit) -> Fate + 'a;

#[derive(Clone, Debug)]
enum Change {
    Size { bytes: u64, reserve: bool },
    Write { first_block: u64, blocks: Vec<SharedBlock> },
}

/// An extent whatever its names are.
#[derive(Clone, Debug)]
struct Node {
    id: ExtentId,
    content: SparseBytes,
    durable: SparseBytes,
    /// What blocks held before they were last overwritten.
    previous: BTreeMap<u64, SharedBlock>,
    pending: Vec<Change>,
    handles: u64,
}

/// Names a [`Node`]; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeNo(u64);

#[derive(Clone, Copy, Debug)]
enum NameChange {
    Created(ExtentId, NodeNo),
    Removed(ExtentId, NodeNo),
}

/// The state of a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    unit: AtomicUnit,
    pub(super) capacity: Option<u64>,
    nodes: BTreeMap<NodeNo, Node>,
    nodes_made: u64,
    names: BTreeMap<ExtentId, NodeNo>,
    durable_names: BTreeMap<ExtentId, NodeNo>,
    name_changes: Vec<NameChange>,
}

impl Disk {
    pub(super) fn new(unit: AtomicUnit, capacity: Option<u64>) -> Self {
        Self { unit, capacity, ..Self::default() }
    }

    pub(super) fn unit(&self) -> AtomicUnit {
        self.unit
    }

    // Names.

    pub(super) fn create(&mut self, id: ExtentId, bytes: u64) -> io::Result<NodeNo> {
        if self.names.contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.check_space(bytes.next_multiple_of(BLOCK))?;
        let no = NodeNo(self.nodes_made);
        self.nodes_made += 1;
        let mut content = SparseBytes::default();
        content.reserve(bytes);
        let pending = vec![Change::Size { bytes, reserve: true }];
        let (durable, previous) = (SparseBytes::default(), BTreeMap::new());
        self.nodes.insert(no, Node { id, content, durable, previous, pending, handles: 1 });
        self.names.insert(id, no);
        self.name_changes.push(NameChange::Created(id, no));
        Ok(no)
    }

    pub(super) fn open(&mut self, id: ExtentId) -> io::Result<NodeNo> {
        let no = self.find(id)?;
        self.node_mut(no).handles += 1;
        Ok(no)
    }

    pub(super) fn find(&self, id: ExtentId) -> io::Result<NodeNo> {
        self.names.get(&id).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn close(&mut self, no: NodeNo) {
        self.node_mut(no).handles -= 1;
        if self.node(no).handles == 0 && !self.names.contains_key(&self.node(no).id) {
            self.drop_unreachable();
        }
    }

    pub(super) fn remove(&mut self, id: ExtentId) -> io::Result<()> {
        let no = self.names.remove(&id).ok_or(io::ErrorKind::NotFound)?;
        self.name_changes.push(NameChange::Removed(id, no));
        Ok(())
    }

    pub(super) fn list(&self) -> Vec<ExtentId> {
        self.names.keys().copied().collect()
    }

    /// Decides about every change of a name and forgets them.
    pub(super) fn settle_names(&mut self, choose: &mut Choose<'_>) {
        for change in std::mem::take(&mut self.name_changes) {
            match change {
                NameChange::Created(id, no) => {
                    if choose(PendingUnit::Created(id)) == Fate::Kept {
                        self.durable_names.insert(id, no);
                    }
                }
                NameChange::Removed(id, no) => {
                    if choose(PendingUnit::Removed(id)) == Fate::Kept
                        && self.durable_names.get(&id) == Some(&no)
                    {
                        self.durable_names.remove(&id);
                    }
                }
            }
        }
        self.drop_unreachable();
    }

    /// Extents that a crash can still bring back.
    fn survivors_possible(&self) -> BTreeSet<NodeNo> {
        let created = self.name_changes.iter().filter_map(|change| match change {
            NameChange::Created(_, no) => Some(*no),
            NameChange::Removed(..) => None,
        });
        self.durable_names.values().copied().chain(created).collect()
    }

    fn drop_unreachable(&mut self) {
        let mut reachable = self.survivors_possible();
        reachable.extend(self.names.values());
        self.nodes.retain(|no, node| node.handles > 0 || reachable.contains(no));
    }

    // Content.

    fn node(&self, no: NodeNo) -> &Node {
        self.nodes.get(&no).expect("a handle keeps its node")
    }

    fn node_mut(&mut self, no: NodeNo) -> &mut Node {
        self.nodes.get_mut(&no).expect("a handle keeps its node")
    }

    fn check_space(&self, bytes: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        if bytes > 0 && self.used().saturating_add(bytes) > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Bytes taken up by extents that have a name or a handle.
    pub(super) fn used(&self) -> u64 {
        let in_use = |(no, node): &(&NodeNo, &Node)| node.handles > 0 || self.names.get(&node.id) == Some(no);
        self.nodes.iter().filter(in_use).map(|(_, node)| node.content.allocated()).sum()
    }

    pub(super) fn size(&self, no: NodeNo) -> u64 {
        self.node(no).content.size()
    }

    pub(super) fn allocated(&self, no: NodeNo) -> u64 {
        self.node(no).content.allocated()
    }

    pub(super) fn read(&self, no: NodeNo, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.node(no).content.read(offset, buf)
    }

    /// Reads what each block held before it was last written.
    pub(super) fn read_stale(&self, no: NodeNo, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read(no, offset, buf)?;
        let previous = &self.node(no).previous;
        for (index, part) in (offset / BLOCK..).zip(buf.chunks_mut(IO_ALIGN)) {
            match previous.get(&index) {
                Some(block) => part.copy_from_slice(&block[..]),
                None => part.fill(0),
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, no: NodeNo, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.check_space(self.node(no).content.cost_of_write(offset, data.len()))?;
        self.grow(no, offset + len_u64(data.len()));
        let (first_block, blocks) = (offset / BLOCK, shared_blocks(data));
        let node = self.node_mut(no);
        for (index, block) in (first_block..).zip(&blocks) {
            match node.content.put(index, Arc::clone(block)) {
                Some(old) => node.previous.insert(index, old),
                None => node.previous.remove(&index),
            };
        }
        node.pending.push(Change::Write { first_block, blocks });
        Ok(())
    }

    /// Makes the extent at least `bytes` long, as a write up to there does.
    pub(super) fn grow(&mut self, no: NodeNo, bytes: u64) {
        if bytes > self.size(no) {
            self.set_size(no, bytes);
        }
    }

    pub(super) fn set_size(&mut self, no: NodeNo, bytes: u64) {
        let node = self.node_mut(no);
        node.content.set_size(bytes);
        node.previous.split_off(&bytes.div_ceil(BLOCK));
        node.pending.push(Change::Size { bytes, reserve: false });
    }

    /// A sync that does what it says.
    pub(super) fn sync(&mut self, no: NodeNo) {
        let unit = self.unit;
        let node = self.node_mut(no);
        let pending = std::mem::take(&mut node.pending);
        apply(node.id, &pending, unit, &mut node.durable, &mut |_| Fate::Kept);
        // A size that an earlier failed sync has lost is written again with the next one.
        node.durable.set_size(node.content.size());
        node.durable.trim();
    }

    /// A sync that fails: some units become durable and no later sync covers the others.
    pub(super) fn sync_failing(&mut self, no: NodeNo, choose: &mut Choose<'_>) {
        let unit = self.unit;
        let node = self.node_mut(no);
        let pending = std::mem::take(&mut node.pending);
        apply(node.id, &pending, unit, &mut node.durable, choose);
        node.durable.trim();
    }

    /// Flips one bit wherever the byte is kept. False when nothing was ever written there.
    pub(super) fn flip_bit(&mut self, no: NodeNo, offset: u64, bit: u8) -> bool {
        let (index, mask) = (offset / BLOCK, 1u8 << (bit % 8));
        let at = crate::units::to_len(offset % BLOCK);
        let node = self.node_mut(no);
        let mut found = false;
        for content in [&mut node.content, &mut node.durable] {
            if let Some(block) = content.block_mut(index) {
                block[at] ^= mask;
                found = true;
            }
        }
        for change in &mut node.pending {
            let Change::Write { first_block, blocks } = change else { continue };
            let position =
                index.checked_sub(*first_block).and_then(|position| usize::try_from(position).ok());
            if let Some(block) = position.and_then(|position| blocks.get_mut(position)) {
                Arc::make_mut(block)[at] ^= mask;
            }
        }
        found
    }

    // Crashes.

    /// All changes that no sync covers, in the order in which [`Disk::crash`] asks about them.
    pub(super) fn pending(&self) -> Vec<PendingUnit> {
        let mut units = Vec::new();
        self.clone().crash(&mut |unit| {
            units.push(unit);
            Fate::Lost
        });
        units
    }

    /// The disk after a power loss: first the names, then the extents in the order of their creation, each in the order
    /// of issue.
    pub(super) fn crash(mut self, choose: &mut Choose<'_>) -> Self {
        let possible = self.survivors_possible();
        self.names.clear();
        for node in self.nodes.values_mut() {
            node.handles = 0;
        }
        // Extents whose name is lost are asked about as well, so that the units do not depend on earlier answers.
        let mut nodes = std::mem::take(&mut self.nodes);
        nodes.retain(|no, _| possible.contains(no));
        self.settle_names(choose);
        for node in nodes.values_mut() {
            let pending = std::mem::take(&mut node.pending);
            apply(node.id, &pending, self.unit, &mut node.durable, choose);
            node.durable.trim();
            node.content = node.durable.clone();
            node.previous.clear();
        }
        self.nodes = nodes;
        self.names = self.durable_names.clone();
        self.drop_unreachable();
        self
    }

    /// The disk after its user was killed: everything is seen as before, and what was not synced still is not.
    pub(super) fn kill(mut self) -> Self {
        for node in self.nodes.values_mut() {
            node.handles = 0;
        }
        self.drop_unreachable();
        self
    }
}

/// Applies the units that survive to `durable`, in order. The caller trims: data whose size did not survive cannot be
/// seen.
fn apply(
    id: ExtentId,
    pending: &[Change],
    unit: AtomicUnit,
    durable: &mut SparseBytes,
    choose: &mut Choose<'_>,
) {
    for change in pending {
        match change {
            Change::Size { bytes, reserve } => {
                if choose(PendingUnit::Size(id, *bytes)) == Fate::Lost {
                    continue;
                }
                if *reserve { durable.reserve(*bytes) } else { durable.set_size(*bytes) }
            }
            Change::Write { first_block, blocks } => {
                for (index, block) in (*first_block..).zip(blocks) {
                    let kept = sectors_kept(id, index * BLOCK, unit, choose);
                    if kept != 0 {
                        durable.put(index, merged(durable.block(index), block, kept));
                    }
                }
            }
        }
    }
}

/// Asks about a block, whole or by sector, and returns a bit for each sector that survives.
fn sectors_kept(extent: ExtentId, offset: u64, unit: AtomicUnit, choose: &mut Choose<'_>) -> u8 {
    if unit == AtomicUnit::Block {
        return match choose(PendingUnit::Write { extent, offset, bytes: BLOCK }) {
            Fate::Lost => 0,
            Fate::Kept => ALL_SECTORS,
            Fate::Torn(kept) => kept,
        };
    }
    let mut kept = 0;
    for sector in 0..SECTORS {
        let offset = offset + u64::from(sector) * SECTOR_BYTES;
        if choose(PendingUnit::Write { extent, offset, bytes: SECTOR_BYTES }) != Fate::Lost {
            kept |= 1 << sector;
        }
    }
    kept
}

/// `new` where a sector survives, else `old`.
fn merged(old: Option<&SharedBlock>, new: &SharedBlock, kept: u8) -> SharedBlock {
    if kept == ALL_SECTORS {
        return Arc::clone(new);
    }
    let mut block = old.map_or([0; IO_ALIGN], |old| **old);
    let sectors = block.chunks_exact_mut(SECTOR_LEN).zip(new.chunks_exact(SECTOR_LEN));
    for (sector, (target, source)) in sectors.enumerate() {
        if kept & (1 << sector) != 0 {
            target.copy_from_slice(source);
        }
    }
    Arc::new(block)
}
