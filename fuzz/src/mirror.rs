//! The state record of a mirror set with its generations, and a whole set whose state is harmed.

use crate::pages::{seal, trimmed};
use cdp_core::{
    dirty_map::Granularity,
    format::PAGE_LEN,
    io::{AlignedBuf, MemoryStorage, Storage},
    mirror::{
        CreateMirror, ExtentCopy, MirrorCopy, MirrorOptions, MirrorSet, NewCopy, RepairOptions,
        record::{CopyRecord, SLOT_BYTES, StateRecord},
    },
    units::ExtentId,
};
use std::{io, ops::ControlFlow, sync::Arc};

const STATE: ExtentId = ExtentId::ZERO;
const VOLUME_BYTES: u64 = 1 << 20;
const CRC_AT: usize = 8;
const LENGTH_AT: usize = 40;
const SLOT_AT: usize = 44;

/// The input as the record of a slot: its length, its place and its checksum are right.
fn sealed(data: &[u8], slot: u32) -> Option<Vec<u8>> {
    let mut bytes = data[..data.len().min(SLOT_BYTES)].to_vec();
    if bytes.len() < SLOT_AT + 4 {
        return None;
    }
    let len = u32::try_from(bytes.len()).expect("at most a slot");
    bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&len.to_le_bytes());
    bytes[SLOT_AT..SLOT_AT + 4].copy_from_slice(&slot.to_le_bytes());
    seal(&mut bytes, CRC_AT);
    Some(bytes)
}

/// The input is a state record: as it stands, and with a right length and checksum.
pub fn state(data: &[u8]) {
    let _ = StateRecord::decode(data, 0);
    let Some(bytes) = sealed(data, 1) else { return };
    let Ok(record) = StateRecord::decode(&bytes, 1) else { return };
    let again = record.encode(1);
    assert_eq!(trimmed(&again), trimmed(&bytes), "one form");
}

fn copies() -> Vec<Arc<ExtentCopy>> {
    let storage = MemoryStorage::new();
    let extent = |id| storage.create(ExtentId::new(id), VOLUME_BYTES).expect("memory");
    (0..3).map(|id| Arc::new(ExtentCopy::new(extent(id)))).collect()
}

fn opener(
    copies: &[Arc<ExtentCopy>],
) -> impl FnMut(&CopyRecord) -> io::Result<Arc<dyn MirrorCopy>> + use<'_> {
    |record| {
        let at = usize::try_from(record.number).ok().and_then(|number| copies.get(number));
        at.map(|copy| Arc::clone(copy) as _).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A set of three copies, one of which was away.
fn made(copies: &[Arc<ExtentCopy>]) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new());
    let new = |copy: &Arc<ExtentCopy>| NewCopy { locator: "a".into(), copy: Arc::clone(copy) as _ };
    let create = CreateMirror { granularity: Granularity::MIN, ..CreateMirror::new(VOLUME_BYTES) };
    let set = MirrorSet::create(storage.clone(), create, copies.iter().map(new).collect()).expect("memory");
    set.repair(RepairOptions::default(), &mut |_| ControlFlow::Continue(())).expect("memory");
    set.write(4096, &[1; 4096]).expect("memory");
    set.offline(2).expect("two others are whole");
    set.write(8192, &[2; 4096]).expect("memory");
    set.close().expect("memory");
    storage
}

/// The input is the state of a set in both slots; its copies and maps are intact.
pub fn set(data: &[u8]) {
    let copies = copies();
    let storage = made(&copies);
    let extent = storage.open(STATE).expect("it was made");
    for slot in 0..2 {
        let Some(bytes) = sealed(data, slot) else { return };
        if StateRecord::decode(&bytes, slot).is_ok_and(|record| record.shape.bytes() > 1 << 34) {
            return;
        }
        let mut page = AlignedBuf::new(SLOT_BYTES).expect("memory");
        page[..bytes.len()].copy_from_slice(&bytes);
        extent.write_at(u64::from(slot) * SLOT_BYTES as u64, &page[..SLOT_BYTES]).expect("memory");
    }
    let options = MirrorOptions::default();
    let _ = MirrorSet::examine(&*storage, options, &mut opener(&copies));
    let Ok(set) = MirrorSet::open(storage.clone(), options, &mut opener(&copies)) else { return };
    let _ = (set.write(0, &[3; 512]), set.flush(), set.online(2, None));
    let repaired = set.repair(RepairOptions::default(), &mut |_| ControlFlow::Continue(()));
    let usable = set.status().source.is_some() && repaired.is_ok();
    let closed = set.close();
    drop(set);
    if usable && closed.is_ok() {
        MirrorSet::open(storage, options, &mut opener(&copies)).expect("it was closed");
    }
}

pub fn state_seeds() -> Vec<Vec<u8>> {
    let storage = made(&copies());
    let extent = storage.open(STATE).expect("it was made");
    let mut slot = AlignedBuf::new(SLOT_BYTES).expect("memory");
    extent.read_at(0, &mut slot[..SLOT_BYTES]).expect("memory does not fail");
    let len = u32::from_le_bytes(slot[LENGTH_AT..LENGTH_AT + 4].try_into().expect("four bytes"));
    let len = usize::try_from(len).expect("at most a slot");
    assert!(len < PAGE_LEN, "a small set");
    vec![slot[..len].to_vec()]
}
