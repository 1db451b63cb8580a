//! A storage on one flat device or region, for hosts without a file system: extents in slots of one size, found by a table that is written twice.
//!
//! Layout: `table.rs`. An extent has as many slots as its size needs, from anywhere on the device; requests are cut at slots. Invariants:
//! - *names and sizes last*: changes of the table wait in memory. To make them durable: sync the device (what the table will name is then on it),
//!   write the first copy of the table, sync, write the second copy, which the next sync covers. So one whole copy is on the device at every moment,
//!   and a copy that is torn or rotten is told by its checksum;
//! - *no early reuse*: a slot that was given back is used again only when a table that does not name it is durable; an extent that was cut grows
//!   again only when the cut is durable. So the state before a crash is whole, whatever was written since;
//! - *zeroes first*: new bytes of an extent are zeroed before a table gives them to it;
//! - *failed syncs are told*: a sync of the device covers all extents, so after one that failed the next sync of every extent that had changed
//!   since its last one fails too.
//!
//! Fails with `StorageFull` when there are no slots left, `InvalidData` when the device is damaged, and as the device does. One process uses a device
//! at a time; locks are those of this process, and [`FlatStorage::open_file`] keeps others away.

mod table;
#[cfg(test)]
mod tests;

use super::{AlignedBuf, Extent, IO_ALIGN, LockTable, Storage, StorageLock, aligned};
use crate::{
    dirty_map::ByteRange,
    mirror::{FileCopy, MirrorCopy},
    units::{ExtentId, len_u64, to_len},
};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use table::{Record, SLOT_BYTES, Shape, Table};

/// Where an extent lies, as long as it has a name or is open.
struct Node {
    place: RwLock<Record>,
    /// Held by whoever changes the size.
    resizing: Mutex<()>,
    /// Changes that were begun, and those that the last good sync covers.
    begun: AtomicU64,
    synced: AtomicU64,
    /// A sync that failed for another extent may have lost changes of this one.
    lost: AtomicBool,
    /// Version of the table that first had it without a name or with less bytes; 0: none.
    shrunk_at: AtomicU64,
    device: Weak<Device>,
}

impl Drop for Node {
    fn drop(&mut self) {
        let Some(device) = self.device.upgrade() else { return };
        let version = self.shrunk_at.load(Ordering::SeqCst);
        let slots = std::mem::take(&mut self.place.get_mut().slots);
        device.state.lock().give_back(version, &slots);
    }
}

/// What changes.
struct State {
    names: BTreeMap<u64, Arc<Node>>,
    /// Weak ones too: nodes that lost their names are open somewhere.
    nodes: Vec<Weak<Node>>,
    free: BTreeSet<u32>,
    /// Slots that were given back, with the version of the table that first did not name them.
    given_back: Vec<(u64, u32)>,
    /// Goes up with every change of the table.
    version: u64,
    /// The version that is on the device.
    durable_version: u64,
    /// A sync that failed for an extent may have lost what the next table names.
    names_lost: bool,
}

impl State {
    fn give_back(&mut self, version: u64, slots: &[u32]) {
        match version <= self.durable_version {
            true => self.free.extend(slots),
            false => self.given_back.extend(slots.iter().map(|slot| (version, *slot))),
        }
    }

    /// A table of this version is durable.
    fn became_durable(&mut self, version: u64) {
        self.durable_version = self.durable_version.max(version);
        let durable = self.durable_version;
        for (_, slot) in self.given_back.extract_if(.., |(version, _)| *version <= durable) {
            self.free.insert(slot);
        }
    }
}

/// How far the second copy of the table is. The first one is written only when it is durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Second {
    Durable,
    /// The next sync covers it.
    Written,
    /// It is not as new as the first copy, or nothing is known of it.
    Behind,
}

/// The table as it is on the device.
struct OnDevice {
    sequence: u64,
    /// Its bytes.
    table: Vec<u8>,
    second: Second,
}

struct Device {
    device: Arc<dyn MirrorCopy>,
    shape: Shape,
    state: Mutex<State>,
    on_device: Mutex<OnDevice>,
    locks: Arc<LockTable>,
    /// Keeps other processes away.
    _lock: Option<File>,
}

/// How a flat storage is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatOptions {
    /// Bytes of a slot: a multiple of 4096 up to 64 GiB. The device has at most 65,536 of them. Small ones waste less at the ends of extents.
    pub slot_bytes: u64,
}

impl Default for FlatOptions {
    fn default() -> Self {
        Self { slot_bytes: 1 << 20 }
    }
}

/// What there is on a flat storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatSpace {
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Slots.
    pub slots: u64,
    /// Slots that can be used now; more may become so when the table is written.
    pub slots_free: u64,
}

/// A storage on one flat device. Clones are handles of the same one.
#[derive(Clone)]
pub struct FlatStorage(Arc<Device>);

fn full(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, text)
}

impl FlatStorage {
    /// Divides a device into slots, all of which are free, durably. What was on it is lost.
    ///
    /// # Errors
    /// `InvalidInput` for a size of slots that is not allowed; `StorageFull` when there is no room for a slot; those of the device, which then holds
    /// no flat storage.
    pub fn format(device: &dyn MirrorCopy, options: FlatOptions) -> io::Result<()> {
        let slot_bytes = options.slot_bytes;
        if !SLOT_BYTES.contains(&slot_bytes) || !slot_bytes.is_multiple_of(len_u64(IO_ALIGN)) {
            let text = format!("slots of {slot_bytes} bytes: a multiple of 4096 up to {}", SLOT_BYTES.end());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let id = getrandom::u64().map_err(io::Error::other)?;
        let slots = Shape::slots_on(slot_bytes, device.size()?);
        if slots == 0 {
            return Err(full(format!("the device has no room for a slot of {slot_bytes} bytes")));
        }
        let shape = Shape { id, slot_bytes, slots };
        // First there is no storage, and then it is whole at once.
        device.write_zeroes(ByteRange::new(0, len_u64(IO_ALIGN)))?;
        let table = Table { sequence: 1, extents: BTreeMap::new() }.encode(&shape);
        for which in [0, 1] {
            write_aligned(device, shape.table_at(which), &table)?;
        }
        device.sync()?;
        write_aligned(device, 0, &shape.encode())?;
        device.sync()
    }

    /// Opens what [`FlatStorage::format`] has made. The device must be used by nobody else.
    ///
    /// # Errors
    /// `NotFound` when the device holds no flat storage; `InvalidData` when its header or both tables are damaged; those of the device.
    pub fn open(device: Arc<dyn MirrorCopy>) -> io::Result<Self> {
        Self::open_with(device, None)
    }

    /// As [`FlatStorage::open`], on a file or block device, which is locked against other processes meanwhile.
    ///
    /// # Errors
    /// As [`FlatStorage::open`]; `WouldBlock` while another process has it.
    pub fn open_file(path: &Path) -> io::Result<Self> {
        Self::open_with(Arc::new(FileCopy::open(path)?), Some(locked(path)?))
    }

    /// As [`FlatStorage::format`], on a file or block device of its size now.
    ///
    /// # Errors
    /// As [`FlatStorage::format`]; `WouldBlock` while another process has it.
    pub fn format_file(path: &Path, options: FlatOptions) -> io::Result<()> {
        let _lock = locked(path)?;
        Self::format(&FileCopy::open(path)?, options)
    }

    fn open_with(device: Arc<dyn MirrorCopy>, lock: Option<File>) -> io::Result<Self> {
        let mut block = AlignedBuf::new(IO_ALIGN)?;
        device.read_at(0, &mut block)?;
        let shape = Shape::decode(&block, device.size()?)?;
        // What a process that was killed has written need not be durable.
        device.sync()?;
        let [first, second] = [0, 1].map(|which| read_table(&*device, &shape, which));
        let (first, second) = (first?, second?);
        let newest = match (&first, &second) {
            (Some(first), Some(second)) => {
                if second.sequence > first.sequence {
                    second
                } else {
                    first
                }
            }
            (Some(table), None) | (None, Some(table)) => table,
            (None, None) => {
                let text = "both tables of the flat storage are damaged";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        };
        let (newest, is_second_behind) = (newest.clone(), second.as_ref() != Some(newest));
        let on_device = OnDevice {
            sequence: newest.sequence,
            table: newest.encode(&shape),
            second: if is_second_behind { Second::Behind } else { Second::Durable },
        };
        let mut free: BTreeSet<u32> = (0..shape.slots).collect();
        for slot in newest.extents.values().flat_map(|record| &record.slots) {
            free.remove(slot);
        }
        let storage = Arc::new_cyclic(|own| {
            let named = |(number, record)| (number, node(own.clone(), record));
            let names: BTreeMap<u64, Arc<Node>> = newest.extents.into_iter().map(named).collect();
            let nodes = names.values().map(Arc::downgrade).collect();
            let state = State {
                names,
                nodes,
                free,
                given_back: Vec::new(),
                version: 1,
                durable_version: 1,
                names_lost: false,
            };
            Device {
                device,
                shape,
                state: Mutex::new(state),
                on_device: Mutex::new(on_device),
                locks: Arc::default(),
                _lock: lock,
            }
        });
        Ok(Self(storage))
    }

    /// What there is.
    pub fn space(&self) -> FlatSpace {
        let shape = self.0.shape;
        let slots_free = len_u64(self.0.state.lock().free.len());
        FlatSpace { slot_bytes: shape.slot_bytes, slots: shape.slots.into(), slots_free }
    }

    fn extent(&self, node: &Arc<Node>) -> Arc<dyn Extent> {
        Arc::new(FlatExtent { device: Arc::clone(&self.0), node: Arc::clone(node) })
    }
}

fn locked(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

fn node(device: Weak<Device>, record: Record) -> Arc<Node> {
    Arc::new(Node {
        place: RwLock::new(record),
        resizing: Mutex::new(()),
        begun: AtomicU64::new(0),
        synced: AtomicU64::new(0),
        lost: AtomicBool::new(false),
        shrunk_at: AtomicU64::new(0),
        device,
    })
}

fn write_aligned(device: &dyn MirrorCopy, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut buf = AlignedBuf::new(bytes.len())?;
    buf[..bytes.len()].copy_from_slice(bytes);
    device.write_at(offset, &buf[..bytes.len()])
}

/// `None`: it is damaged.
fn read_table(device: &dyn MirrorCopy, shape: &Shape, which: u32) -> io::Result<Option<Table>> {
    let mut bytes = AlignedBuf::new(to_len(shape.table_bytes()))?;
    device.read_at(shape.table_at(which), &mut bytes)?;
    Ok(Table::decode(&bytes, shape))
}

impl Device {
    /// Syncs the device, and tells those who may have lost something if that fails.
    fn sync_all(&self, on_device: &mut OnDevice) -> io::Result<()> {
        let synced = self.device.sync();
        if on_device.second == Second::Written {
            on_device.second = if synced.is_ok() { Second::Durable } else { Second::Behind };
        }
        synced.inspect_err(|_| {
            let nodes: Vec<Arc<Node>> = {
                let mut state = self.state.lock();
                state.names_lost |= state.version > state.durable_version;
                state.nodes.retain(|node| node.strong_count() > 0);
                state.nodes.iter().filter_map(Weak::upgrade).collect()
            };
            // With the lock released: a node that was closed meanwhile goes here, and takes it.
            for node in nodes {
                if node.begun.load(Ordering::SeqCst) > node.synced.load(Ordering::SeqCst) {
                    node.lost.store(true, Ordering::SeqCst);
                }
            }
        })
    }

    fn write_second(&self, on_device: &mut OnDevice) -> io::Result<()> {
        write_aligned(&*self.device, self.shape.table_at(1), &on_device.table)?;
        on_device.second = Second::Written;
        Ok(())
    }

    /// Makes everything durable that returned before: the bytes, and then the table if it has changed.
    fn flush(&self) -> io::Result<()> {
        let mut on_device = self.on_device.lock();
        if on_device.second == Second::Behind {
            self.write_second(&mut on_device)?;
        }
        let (version, table) = {
            let state = self.state.lock();
            let changed = state.version > state.durable_version;
            (state.version, changed.then(|| state.table(on_device.sequence + 1)))
        };
        self.sync_all(&mut on_device)?;
        let Some(table) = table else { return Ok(()) };
        assert!(on_device.second == Second::Durable, "one whole copy is on the device at every moment");
        let bytes = table.encode(&self.shape);
        write_aligned(&*self.device, self.shape.table_at(0), &bytes)?;
        self.sync_all(&mut on_device)?;
        *on_device = OnDevice { sequence: table.sequence, table: bytes, second: Second::Behind };
        self.state.lock().became_durable(version);
        // The next flush writes it again if this fails.
        let _ = self.write_second(&mut on_device);
        Ok(())
    }

    /// Takes slots that no durable table names.
    fn allocate(&self, count: usize) -> io::Result<Vec<u32>> {
        for is_last in [false, true] {
            let mut state = self.state.lock();
            if state.free.len() >= count {
                return Ok((0..count).filter_map(|_| state.free.pop_first()).collect());
            }
            let (free, waiting) = (state.free.len(), state.given_back.len());
            drop(state);
            if is_last || free + waiting < count {
                let shape = &self.shape;
                return Err(full(format!(
                    "the flat storage has {free} free slots of {} bytes, {} in all; {count} are needed",
                    shape.slot_bytes, shape.slots
                )));
            }
            self.flush()?;
        }
        unreachable!("the last turn returns");
    }

    /// Calls `each` for the pieces of a range of an extent: where on the device, and which of the bytes.
    fn pieces(
        &self,
        record: &Record,
        range: ByteRange,
        mut each: impl FnMut(u64, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let slot_bytes = self.shape.slot_bytes;
        let mut at = range.offset;
        while at < range.end() {
            let end = range.end().min((at / slot_bytes + 1) * slot_bytes);
            let slot = *record.slots.get(to_len(at / slot_bytes)).ok_or(io::ErrorKind::UnexpectedEof)?;
            each(
                self.shape.slot_at(slot) + at % slot_bytes,
                to_len(at - range.offset)..to_len(end - range.offset),
            )?;
            at = end;
        }
        Ok(())
    }

    /// Zeroes a range of an extent that begins anywhere and ends anywhere.
    fn zero(&self, record: &Record, from: u64, to: u64) -> io::Result<()> {
        let align = len_u64(IO_ALIGN);
        let start = from.next_multiple_of(align);
        if start != from {
            let first = from / align * align;
            let mut block = AlignedBuf::new(IO_ALIGN)?;
            self.pieces(record, ByteRange::new(first, align), |place, _| {
                self.device.read_at(place, &mut block)?;
                block[to_len(from - first)..].fill(0);
                self.device.write_at(place, &block)
            })?;
        }
        let end = to.next_multiple_of(align);
        if start >= end {
            return Ok(());
        }
        self.pieces(record, ByteRange::new(start, end - start), |place, part| {
            self.device.write_zeroes(ByteRange::new(place, len_u64(part.len())))
        })
    }

    /// Gives an extent more bytes, which read as zeroes. With `resizing` held.
    fn grow(&self, node: &Node, bytes: u64) -> io::Result<()> {
        let shrunk = node.shrunk_at.load(Ordering::SeqCst);
        if shrunk > self.state.lock().durable_version {
            // What was cut off is still there if the device goes back to its table.
            self.flush()?;
        }
        let old = node.place.read().clone();
        let missing = self.shape.slots_for(bytes).saturating_sub(old.slots.len());
        let added = self.allocate(missing)?;
        let mut new = old.clone();
        new.slots.extend_from_slice(&added);
        new.bytes = bytes;
        node.begun.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = self.zero(&new, old.bytes, bytes) {
            self.state.lock().free.extend(added);
            return Err(error);
        }
        let mut state = self.state.lock();
        *node.place.write() = new;
        state.version += 1;
        Ok(())
    }

    /// Takes bytes from an extent. With `resizing` held.
    fn shrink(&self, node: &Node, bytes: u64) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let mut place = node.place.write();
        let cut = place.slots.split_off(self.shape.slots_for(bytes));
        place.bytes = bytes;
        node.shrunk_at.store(version, Ordering::SeqCst);
        state.give_back(version, &cut);
    }
}

impl State {
    /// The table as it is now.
    fn table(&self, sequence: u64) -> Table {
        let record = |(number, node): (&u64, &Arc<Node>)| (*number, node.place.read().clone());
        Table { sequence, extents: self.names.iter().map(record).collect() }
    }
}

impl Storage for FlatStorage {
    fn create(&self, id: ExtentId, bytes: u64) -> io::Result<Arc<dyn Extent>> {
        aligned::check_size(bytes)?;
        if self.0.state.lock().names.contains_key(&id.get()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let new = node(Arc::downgrade(&self.0), Record::default());
        self.0.state.lock().nodes.push(Arc::downgrade(&new));
        if bytes > 0 {
            self.0.grow(&new, bytes)?;
        }
        let mut state = self.0.state.lock();
        if state.names.len() >= self.0.shape.extents_max() {
            drop(state);
            return Err(full(format!("the flat storage has {} extents", self.0.shape.extents_max())));
        }
        if state.names.contains_key(&id.get()) {
            drop(state);
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.names.insert(id.get(), Arc::clone(&new));
        state.version += 1;
        drop(state);
        Ok(self.extent(&new))
    }

    fn open(&self, id: ExtentId) -> io::Result<Arc<dyn Extent>> {
        let found = self.0.state.lock().names.get(&id.get()).cloned();
        found.map(|node| self.extent(&node)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<ExtentId>> {
        Ok(self.0.state.lock().names.keys().copied().map(ExtentId::new).collect())
    }

    fn remove(&self, id: ExtentId) -> io::Result<()> {
        let mut state = self.0.state.lock();
        let node = state.names.remove(&id.get()).ok_or(io::ErrorKind::NotFound)?;
        state.version += 1;
        node.shrunk_at.store(state.version, Ordering::SeqCst);
        drop(state);
        // With the lock released: the last handle gives the slots back.
        drop(node);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let flushed = self.0.flush();
        let lost = std::mem::take(&mut self.0.state.lock().names_lost);
        flushed?;
        if lost { Err(io::Error::other("an earlier sync of the device failed")) } else { Ok(()) }
    }

    fn lock_owner(&self) -> io::Result<Box<dyn StorageLock>> {
        self.0.locks.owner()
    }

    fn lease(&self) -> io::Result<Box<dyn StorageLock>> {
        Ok(self.0.locks.lease())
    }

    fn lock_out_readers(&self) -> io::Result<Option<Box<dyn StorageLock>>> {
        Ok(self.0.locks.readers_out())
    }

    fn describe(&self, id: ExtentId) -> String {
        format!("extent {id} of the flat storage")
    }
}

/// One open extent.
struct FlatExtent {
    device: Arc<Device>,
    node: Arc<Node>,
}

impl Extent for FlatExtent {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        aligned::check(offset, buf)?;
        let place = self.node.place.read();
        if offset.saturating_add(len_u64(buf.len())) > place.bytes && !buf.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.device.pieces(&place, ByteRange::new(offset, len_u64(buf.len())), |at, part| {
            self.device.device.read_at(at, &mut buf[part])
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        aligned::check(offset, data)?;
        let range = ByteRange::new(offset, len_u64(data.len()));
        if data.is_empty() {
            return Ok(());
        }
        if range.end() > self.node.place.read().bytes {
            let _alone = self.node.resizing.lock();
            if range.end() > self.node.place.read().bytes {
                self.device.grow(&self.node, range.end())?;
            }
        }
        self.node.begun.fetch_add(1, Ordering::SeqCst);
        // Shared: a cut waits for writes that are under way, so that none hits a slot that was given back.
        let place = self.node.place.read();
        self.device.pieces(&place, range, |at, part| self.device.device.write_at(at, &data[part]))
    }

    fn sync(&self) -> io::Result<()> {
        let begun = self.node.begun.load(Ordering::SeqCst);
        let flushed = self.device.flush();
        let lost = self.node.lost.swap(false, Ordering::SeqCst);
        flushed?;
        if lost {
            return Err(io::Error::other("an earlier sync of the device failed"));
        }
        self.node.synced.fetch_max(begun, Ordering::SeqCst);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.node.place.read().bytes)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        aligned::check_size(bytes)?;
        let _alone = self.node.resizing.lock();
        let old = self.node.place.read().bytes;
        if bytes > old {
            self.device.grow(&self.node, bytes)?;
        } else if bytes < old {
            self.device.shrink(&self.node, bytes);
        }
        Ok(())
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(len_u64(self.node.place.read().slots.len()) * self.device.shape.slot_bytes)
    }
}
