//! The flat storage against a model, with power cuts at every call on the device, with syncs that fail, and with bytes that rot.

use super::*;
use crate::{
    io::simulated::{AtomicUnit, CrashPolicy, SimRng, SimulatedConfig, SimulatedStorage, is_simulated_stop},
    mirror::ExtentCopy,
};
use std::collections::BTreeSet as Set;

const BLOCK: u64 = len_u64(IO_ALIGN);
const SLOT: u64 = 2 * BLOCK;
const DEVICE: u64 = 120 * BLOCK;
const PLACE: ExtentId = ExtentId::new(9);
/// So many that their table takes two sectors, and can be torn.
const NUMBERS: u64 = 16;

/// What an extent may be after a crash: for each block the bytes that it may be filled with, and the sizes.
#[derive(Clone, Debug, Default)]
struct Expected {
    blocks: Vec<Set<u8>>,
    sizes: Set<u64>,
    /// The last of each.
    now: Vec<u8>,
    bytes: u64,
}

impl Expected {
    fn reach(&mut self, blocks: usize) {
        // What was never given to the extent is zero when it is.
        while self.blocks.len() < blocks {
            self.blocks.push(Set::from([0]));
            self.now.push(0);
        }
    }

    fn set(&mut self, block: usize, byte: u8) {
        self.reach(block + 1);
        self.blocks[block].insert(byte);
        self.now[block] = byte;
    }

    fn resize(&mut self, bytes: u64) {
        let (from, to) = (to_len(bytes.min(self.bytes) / BLOCK), to_len(bytes.max(self.bytes) / BLOCK));
        (from..to).for_each(|block| self.set(block, 0));
        self.bytes = bytes;
        self.sizes.insert(bytes);
    }

    fn became_durable(&mut self) {
        for (allowed, now) in self.blocks.iter_mut().zip(&self.now) {
            *allowed = Set::from([*now]);
        }
        self.sizes = Set::from([self.bytes]);
    }
}

/// One name: what it stood for, the newest last, and whether it may be missing. A name that was removed durably stands for nothing before that.
#[derive(Clone, Debug, Default)]
struct Name {
    may_be: Vec<Expected>,
    may_be_missing: bool,
    there: bool,
}

struct Run {
    storage: FlatStorage,
    names: Vec<Name>,
    rng: SimRng,
    byte: u8,
}

fn opened(disk: &SimulatedStorage) -> io::Result<FlatStorage> {
    FlatStorage::open(Arc::new(ExtentCopy::new(disk.open(PLACE)?)))
}

fn formatted(unit: AtomicUnit) -> SimulatedStorage {
    let disk = SimulatedStorage::with_config(SimulatedConfig { unit, ..SimulatedConfig::default() });
    let device = ExtentCopy::new(disk.create(PLACE, DEVICE).unwrap());
    FlatStorage::format(&device, FlatOptions { slot_bytes: SLOT }).unwrap();
    disk.sync_names().unwrap();
    disk
}

impl Run {
    fn new(storage: FlatStorage, seed: u64) -> Self {
        let name = Name { may_be_missing: true, ..Name::default() };
        let names = vec![name; to_len(NUMBERS)];
        Self { storage, names, rng: SimRng::new(seed), byte: 0 }
    }

    /// One call; an error is that of the device, or that there are no slots left.
    fn step(&mut self) -> io::Result<()> {
        let number = self.rng.below(NUMBERS);
        let at = to_len(number);
        let (choice, id) = (self.rng.below(10), ExtentId::new(number));
        if choice == 9 {
            self.storage.sync_names()?;
            for name in &mut self.names {
                name.may_be_missing = !name.there;
                name.may_be.drain(..name.may_be.len() - usize::from(name.there));
            }
            return Ok(());
        }
        if !self.names[at].there {
            let bytes = self.rng.below(7) * BLOCK;
            // Also one that fails may have been made as far as the device is concerned; but its name is in no table.
            self.storage.create(id, bytes)?;
            let name = &mut self.names[at];
            let mut new = Expected::default();
            new.resize(bytes);
            new.sizes.insert(bytes);
            name.may_be.push(new);
            name.there = true;
            return Ok(());
        }
        let extent = self.storage.open(id)?;
        let name = &mut self.names[at];
        let now = name.may_be.last_mut().unwrap();
        match choice {
            0 | 1 => {
                name.may_be_missing = true;
                name.there = false;
                self.storage.remove(id)?;
            }
            2 => {
                let bytes = self.rng.below(7) * BLOCK;
                now.resize(bytes);
                extent.set_size(bytes)?;
            }
            3..=5 => {
                let (first, count) = (self.rng.below(6), 1 + self.rng.below(4));
                self.byte = self.byte % 250 + 1;
                if (first + count) * BLOCK > now.bytes {
                    now.resize((first + count) * BLOCK);
                }
                (first..first + count).for_each(|block| now.set(to_len(block), self.byte));
                let mut data = AlignedBuf::new(to_len(count * BLOCK))?;
                data.fill(self.byte);
                extent.write_at(first * BLOCK, &data)?;
            }
            _ => {
                extent.sync()?;
                now.became_durable();
            }
        }
        Ok(())
    }

    /// Whether what is there now is what was written.
    fn check_now(&self) {
        for (number, name) in (0..).zip(&self.names) {
            let Ok(extent) = self.storage.open(ExtentId::new(number)) else {
                assert!(!name.there, "extent {number} is gone");
                continue;
            };
            assert!(name.there, "extent {number} is there");
            let now = name.may_be.last().unwrap();
            assert_eq!(extent.size().unwrap(), now.bytes, "extent {number}");
            let content = read_all(&*extent);
            for (block, bytes) in content.chunks(IO_ALIGN).enumerate() {
                assert!(bytes.iter().all(|byte| *byte == now.now[block]), "block {block} of extent {number}");
            }
        }
    }

    /// Whether what a crash has left is among what may be.
    fn check_crashed(&self, storage: &FlatStorage) -> Result<(), String> {
        for (number, name) in (0..).zip(&self.names) {
            let Ok(extent) = storage.open(ExtentId::new(number)) else {
                if !name.may_be_missing {
                    return Err(format!("extent {number} is gone"));
                }
                continue;
            };
            let (bytes, content) = (extent.size().unwrap(), read_all(&*extent));
            let fits = |expected: &Expected| {
                let sectors = content.chunks(512).enumerate();
                expected.sizes.contains(&bytes)
                    && sectors.into_iter().all(|(sector, data)| {
                        let allowed = expected.blocks.get(sector / 8);
                        data.iter().all(|byte| *byte == data[0])
                            && allowed.is_some_and(|set| set.contains(&data[0]))
                    })
            };
            if !name.may_be.iter().any(fits) {
                let seen: Vec<u8> = content.chunks(512).map(|sector| sector[0]).collect();
                return Err(format!("extent {number}: {bytes} bytes, {seen:?}; may be {:?}", name.may_be));
            }
        }
        Ok(())
    }
}

fn read_all(extent: &dyn Extent) -> Vec<u8> {
    let bytes = to_len(extent.size().unwrap());
    let mut content = AlignedBuf::new(bytes).unwrap();
    extent.read_at(0, &mut content[..bytes]).unwrap();
    content[..bytes].to_vec()
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull
}

/// Runs calls until the machine stops or there are `steps` of them.
fn go(run: &mut Run, steps: usize) {
    for _ in 0..steps {
        match run.step() {
            Err(error) if is_simulated_stop(&error) => return,
            Err(error) => assert!(is_full(&error), "{error}"),
            Ok(()) => {}
        }
    }
}

/// Goal: everything that was durable is there after a power cut, whatever was under way, and nothing of one extent turns up in another. Method:
/// random calls on 16 extents in 57 slots; a power cut at every call on the device, with nothing, all, or any part of what was not synced
/// left; each block that is read must be one that was written there. Then calls go on, and all slots are accounted for.
#[test]
fn what_was_durable_survives_a_power_cut_at_every_call() {
    let full_scale = std::env::var("CDP_TEST_SCALE").as_deref() == Ok("full");
    let (seeds, steps) = if full_scale { (40, 300) } else { (6, 150) };
    for seed in 0..seeds {
        let unit = if seed % 2 == 0 { AtomicUnit::Block } else { AtomicUnit::Sector };
        let base = formatted(unit);
        let whole = base.fork();
        let mut run = Run::new(opened(&whole).unwrap(), seed);
        go(&mut run, steps);
        let calls = whole.calls();
        run.check_now();
        for call in base.calls() + 1..=calls {
            let disk = base.fork();
            disk.stop_at_call(call);
            // The first calls are those of the opening.
            let Ok(storage) = opened(&disk) else { continue };
            let mut run = Run::new(storage, seed);
            go(&mut run, steps);
            assert!(disk.is_stopped(), "seed {seed}: no call {call}");
            for (policy, fate) in [
                (CrashPolicy::LoseUnsynced, 0),
                (CrashPolicy::KeepUnsynced, 0),
                (CrashPolicy::Random, call),
                (CrashPolicy::Random, call + 1_000_000),
            ] {
                let after = disk.crash(fate, policy);
                let storage = opened(&after)
                    .unwrap_or_else(|error| panic!("seed {seed}, call {call}, {policy:?} {fate}: {error}"));
                if let Err(error) = run.check_crashed(&storage) {
                    panic!("seed {seed}, call {call}, {policy:?} {fate}: {error}");
                }
                let named = storage.list().unwrap();
                let taken: u64 =
                    named.iter().map(|id| storage.open(*id).unwrap().allocated().unwrap() / SLOT).sum();
                let space = storage.space();
                assert_eq!(taken + space.slots_free, space.slots, "seed {seed}, call {call}");
                named.iter().for_each(|id| storage.remove(*id).unwrap());
                let mut next = Run::new(storage, seed ^ call);
                go(&mut next, 12);
                next.check_now();
            }
        }
    }
}

/// Goal: one copy of the table is enough, and none is noticed. Method: flip a bit of the first copy, of the second, of both, and of the header.
#[test]
fn a_table_that_rots_is_read_from_its_other_copy() {
    let disk = formatted(AtomicUnit::Block);
    {
        let storage = opened(&disk).unwrap();
        let extent = storage.create(ExtentId::new(1), 3 * BLOCK).unwrap();
        let mut data = AlignedBuf::new(IO_ALIGN).unwrap();
        data.fill(7);
        extent.write_at(2 * BLOCK, &data).unwrap();
        extent.sync().unwrap();
        // The second copy is durable with the next sync.
        extent.sync().unwrap();
    }
    let table_bytes = Shape::decode(&header(&disk), DEVICE).unwrap().table_bytes();
    let rotten = |places: &[u64]| {
        let disk = disk.fork();
        places.iter().for_each(|at| assert!(disk.flip_bit(PLACE, *at, 3).unwrap()));
        opened(&disk)
    };
    let (first, second) = (BLOCK + 50, BLOCK + table_bytes + 50);
    for place in [first, second] {
        let storage = rotten(&[place]).unwrap();
        let extent = storage.open(ExtentId::new(1)).unwrap();
        assert_eq!(read_all(&*extent)[2 * IO_ALIGN], 7);
        extent.set_size(9 * BLOCK).unwrap();
        extent.sync().unwrap();
    }
    for places in [&[first, second][..], &[20][..]] {
        let error = rotten(places).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
    assert_eq!(rotten(&[0]).err().unwrap().kind(), io::ErrorKind::NotFound);
}

fn header(disk: &SimulatedStorage) -> AlignedBuf {
    let mut block = AlignedBuf::new(IO_ALIGN).unwrap();
    disk.open(PLACE).unwrap().read_at(0, &mut block).unwrap();
    block
}

/// Goal: bytes that are not what was written are refused and never believed. Method: tables and headers with any one byte changed, and cut short.
#[test]
fn hostile_tables_are_refused() {
    let shape = Shape { id: 5, slot_bytes: SLOT, slots: 16 };
    let record = |bytes, slots: &[u32]| Record { bytes, slots: slots.to_vec() };
    let table = |extents: &[(u64, Record)]| Table { sequence: 3, extents: extents.iter().cloned().collect() };
    let good = table(&[(0, record(SLOT + 1, &[4, 2])), (u64::MAX, record(0, &[]))]);
    let bytes = good.encode(&shape);
    assert_eq!(Table::decode(&bytes, &shape), Some(good));
    for at in 0..96 {
        let mut changed = bytes.clone();
        changed[at] ^= 0x41;
        assert_eq!(Table::decode(&changed, &shape), None, "byte {at}");
        assert_eq!(Table::decode(&bytes[..at], &shape), None, "length {at}");
    }
    assert_eq!(Table::decode(&bytes, &Shape { id: 6, ..shape }), None);
    // With a right checksum, and against the rules.
    for wrong in [
        table(&[(0, record(SLOT, &[1])), (1, record(SLOT, &[1]))]),
        table(&[(0, record(SLOT, &[16]))]),
        table(&[(0, record(3 * SLOT, &[1, 2]))]),
        table(&[(0, record(u64::MAX, &[1]))]),
        table(&[(0, record(0, &[1]))]),
    ] {
        assert_eq!(Table::decode(&wrong.encode(&shape), &shape), None, "{wrong:?}");
    }
    let encoded = shape.encode();
    assert_eq!(Shape::decode(&encoded, DEVICE).unwrap(), shape);
    assert!(Shape::decode(&encoded, 20 * BLOCK).is_err());
    for at in 0..IO_ALIGN {
        let mut changed = encoded.clone();
        changed[at] ^= 0x41;
        assert!(Shape::decode(&changed, DEVICE).is_err(), "byte {at}");
    }
}

/// Goal: bytes that were cut off come to light again or are gone, and are never half replaced. Method: a cut and a growth over a part of it, without a
/// sync; a power cut with nothing and with everything left: where the old size is, the old bytes are.
#[test]
fn what_was_cut_off_is_not_half_replaced() {
    for policy in [CrashPolicy::LoseUnsynced, CrashPolicy::KeepUnsynced] {
        let disk = formatted(AtomicUnit::Block);
        let storage = opened(&disk).unwrap();
        let extent = storage.create(ExtentId::new(1), 4 * BLOCK).unwrap();
        let mut data = AlignedBuf::new(4 * IO_ALIGN).unwrap();
        data.fill(7);
        extent.write_at(0, &data).unwrap();
        extent.sync().unwrap();
        extent.set_size(BLOCK).unwrap();
        extent.set_size(2 * BLOCK).unwrap();
        let after = opened(&disk.crash(0, policy)).unwrap().open(ExtentId::new(1)).unwrap();
        let content = read_all(&*after);
        let zeroes_from = if content.len() == 4 * IO_ALIGN { content.len() } else { IO_ALIGN };
        let expected = |at: usize| if at < zeroes_from { 7 } else { 0 };
        assert!(
            (0..content.len()).all(|at| content[at] == expected(at)),
            "{policy:?}: {} bytes",
            content.len()
        );
    }
}

/// Goal: slots run out with a clear error that leaves nothing behind, and what is removed can be used again. Method: fill the device; remove; fill.
#[test]
fn slots_that_run_out_are_said_and_come_back() {
    let storage = opened(&formatted(AtomicUnit::Block)).unwrap();
    let slots = storage.space().slots;
    assert!(slots > 10);
    let first = storage.create(ExtentId::new(1), (slots - 1) * SLOT).unwrap();
    storage.sync_names().unwrap();
    let error = storage.create(ExtentId::new(2), SLOT + 1).err().unwrap();
    assert!(is_full(&error) && error.to_string().contains("1 free slots"), "{error}");
    assert_eq!(storage.list().unwrap(), [ExtentId::new(1)]);
    let second = storage.create(ExtentId::new(2), SLOT).unwrap();
    assert!(is_full(&second.set_size(SLOT + 1).unwrap_err()));
    let data = AlignedBuf::new(IO_ALIGN).unwrap();
    assert!(is_full(&second.write_at(SLOT, &data).unwrap_err()));
    assert_eq!(second.size().unwrap(), SLOT);
    storage.remove(ExtentId::new(1)).unwrap();
    assert!(is_full(&second.write_at(SLOT, &data).unwrap_err()), "an open handle keeps its slots");
    drop(first);
    second.write_at(SLOT, &data).unwrap();
    assert_eq!(second.allocated().unwrap(), 2 * SLOT);
    // Extents of no bytes have no slots, but there is a bound.
    let made = (10..1000).take_while(|number| storage.create(ExtentId::new(*number), 0).is_ok()).count();
    assert_eq!(len_u64(made) + 1, slots + 16);
}

/// Goal: a sync that fails is told to everybody whose changes it may have lost, once. Method: two extents with changes and one without; the sync of one
/// fails.
#[test]
fn a_failed_sync_is_told_to_all_who_may_have_lost_something() {
    struct Failing(ExtentCopy, AtomicBool);
    impl MirrorCopy for Failing {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buf)
        }
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, data)
        }
        fn write_zeroes(&self, range: ByteRange) -> io::Result<()> {
            self.0.write_zeroes(range)
        }
        fn sync(&self) -> io::Result<()> {
            if self.1.swap(false, Ordering::SeqCst) {
                Err(io::Error::other("deliberate"))
            } else {
                self.0.sync()
            }
        }
        fn size(&self) -> io::Result<u64> {
            self.0.size()
        }
        fn set_size(&self, _: u64) -> io::Result<bool> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
    let disk = formatted(AtomicUnit::Block);
    let device = Arc::new(Failing(ExtentCopy::new(disk.open(PLACE).unwrap()), AtomicBool::new(false)));
    let storage = FlatStorage::open(device.clone()).unwrap();
    let extents: Vec<_> = (0..3).map(|number| storage.create(ExtentId::new(number), SLOT).unwrap()).collect();
    extents.iter().for_each(|extent| extent.sync().unwrap());
    storage.sync_names().unwrap();
    let data = AlignedBuf::new(IO_ALIGN).unwrap();
    extents[0].write_at(0, &data).unwrap();
    extents[1].write_at(0, &data).unwrap();
    storage.create(ExtentId::new(7), 0).unwrap();
    device.1.store(true, Ordering::SeqCst);
    assert!(extents[0].sync().is_err());
    assert!(extents[1].sync().is_err(), "it may have lost its write");
    assert!(storage.sync_names().is_err(), "the new name may be lost");
    for extent in &extents {
        extent.sync().unwrap();
    }
    storage.sync_names().unwrap();
}

/// Goal: formatting refuses what it cannot do, and a device that holds something else is not opened.
#[test]
fn what_is_no_flat_storage_is_refused() {
    let disk = SimulatedStorage::new(1);
    let device = Arc::new(ExtentCopy::new(disk.create(PLACE, DEVICE).unwrap()));
    assert_eq!(FlatStorage::open(device.clone()).err().unwrap().kind(), io::ErrorKind::NotFound);
    for (slot_bytes, kind) in [
        (0, io::ErrorKind::InvalidInput),
        (5000, io::ErrorKind::InvalidInput),
        (1 << 40, io::ErrorKind::InvalidInput),
        (DEVICE, io::ErrorKind::StorageFull),
    ] {
        let refused = FlatStorage::format(&*device, FlatOptions { slot_bytes });
        assert_eq!(refused.unwrap_err().kind(), kind, "{slot_bytes}");
    }
}
