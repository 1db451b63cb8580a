//! Copies of a mirror set on a host's own storage: no file, no extent, nothing but the trait.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use cdp_core::{
    dirty_map::ByteRange,
    io::{MemoryStorage, simulated::SimRng},
    mirror::{
        AckPolicy, CreateMirror, Decision, Direction, FileCopy, MirrorCopy, MirrorOptions, MirrorSet,
        NewCopy, RepairOptions, Standing, VerifyOptions,
    },
};
use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

const SECTOR: u64 = 512;

/// An object store with an object for each sector that is not zeroes. It cannot be cut, and counts its changes.
#[derive(Default)]
struct Objects {
    state: Mutex<State>,
    number: u64,
}

#[derive(Clone, Default)]
struct State {
    sectors: BTreeMap<u64, [u8; SECTOR as usize]>,
    bytes: u64,
    changes: u64,
    /// Sectors whose object was lost.
    lost: Vec<u64>,
}

impl Objects {
    fn new(number: u64, bytes: u64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { bytes, ..State::default() }), number })
    }

    fn content(&self) -> Vec<u8> {
        let mut data = vec![0; self.state.lock().unwrap().bytes as usize];
        self.read_at(0, &mut data).unwrap();
        data
    }
}

impl MirrorCopy for Objects {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        for (sector, part) in (offset / SECTOR..).zip(buf.chunks_mut(SECTOR as usize)) {
            if state.lost.contains(&sector) {
                return Err(io::Error::other("an object is lost"));
            }
            part.copy_from_slice(state.sectors.get(&sector).unwrap_or(&[0; SECTOR as usize]));
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.changes += 1;
        for (sector, part) in (offset / SECTOR..).zip(data.chunks(SECTOR as usize)) {
            state.lost.retain(|lost| *lost != sector);
            state.sectors.insert(sector, part.try_into().unwrap());
        }
        Ok(())
    }

    fn write_zeroes(&self, range: ByteRange) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.changes += 1;
        let gone = range.offset / SECTOR..range.end() / SECTOR;
        state.lost.retain(|lost| !gone.contains(lost));
        state.sectors.retain(|sector, _| !gone.contains(sector));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().bytes)
    }

    fn set_size(&self, bytes: u64) -> io::Result<bool> {
        let mut state = self.state.lock().unwrap();
        state.bytes = bytes;
        state.sectors.retain(|sector, _| *sector < bytes / SECTOR);
        Ok(true)
    }

    fn is_zero(&self) -> io::Result<bool> {
        Ok(self.state.lock().unwrap().sectors.is_empty())
    }

    fn change_stamp(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.state.lock().unwrap().changes))
    }

    fn identity(&self) -> Option<(u64, u64)> {
        Some((77, self.number))
    }
}

fn go_on<T>(_: T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn new_copy(copy: &Arc<impl MirrorCopy + 'static>, locator: &str) -> NewCopy {
    NewCopy { locator: locator.to_owned(), copy: Arc::clone(copy) as _ }
}

fn all_clean(set: &MirrorSet) -> bool {
    set.status().copies.iter().all(|copy| copy.standing == Standing::Clean)
}

/// Goal: a host's own storage is as good a copy as a file: it is written, goes away, comes back, is repaired, mended, compared, grows and is recognised when it was changed
/// behind the set's back. Method: an object store of sectors beside a file and another of its kind, against a model.
#[test]
fn a_copy_on_a_hosts_own_storage_is_a_copy() {
    let bytes: u64 = 300 * SECTOR;
    let directory = tempfile::tempdir().unwrap();
    let (first, third) = (Objects::new(0, bytes), Objects::new(2, bytes));
    let path = directory.path().join("file");
    let file = Arc::new(FileCopy::create(&path, bytes).unwrap());
    let create = CreateMirror { ack: AckPolicy::Quorum, ..CreateMirror::new(bytes) };
    let (meta, again) = (Arc::new(MemoryStorage::default()), MemoryStorage::default());
    let twice = vec![new_copy(&first, "a"), new_copy(&first, "b")];
    assert!(MirrorSet::create(Arc::new(again), create, twice).is_err(), "the same place is not taken twice");
    let copies = vec![new_copy(&first, "objects/0"), new_copy(&file, "file"), new_copy(&third, "objects/2")];
    let set = MirrorSet::create(meta.clone(), create, copies).unwrap();
    assert!(all_clean(&set), "all of them are known to be zeroes");
    let (mut rng, mut model) = (SimRng::new(4), vec![0; bytes as usize]);
    let mut write = |set: &MirrorSet, model: &mut Vec<u8>| {
        let sectors = model.len() as u64 / SECTOR;
        let start = rng.below(sectors);
        let count = (1 + rng.below(20)).min(sectors - start);
        let place = (start * SECTOR) as usize..((start + count) * SECTOR) as usize;
        let byte = rng.below(256) as u8;
        if rng.chance(0.2) {
            set.write_zeroes(start * SECTOR, count * SECTOR).unwrap();
            model[place].fill(0);
        } else {
            set.write(start * SECTOR, &vec![byte; place.len()]).unwrap();
            model[place].fill(byte);
        }
    };
    (0..50).for_each(|_| write(&set, &mut model));
    set.offline(2).unwrap();
    (0..20).for_each(|_| write(&set, &mut model));
    assert_ne!(third.content(), model);
    let back = set.online(2, None).unwrap();
    assert_eq!(back.decision, Decision::ByMap(Direction::FirstToSecond));
    set.repair(RepairOptions::default(), &mut go_on).unwrap();
    // An object that is lost is an error of a read, and is written anew from another copy.
    set.write(SECTOR, &[9; 512]).unwrap();
    model[512..1024].fill(9);
    first.state.lock().unwrap().lost.push(1);
    let mut read = vec![0; model.len()];
    set.read(0, &mut read).unwrap();
    assert_eq!(read, model);
    assert!(first.state.lock().unwrap().lost.is_empty() && all_clean(&set));
    set.resize(bytes + 40 * SECTOR).unwrap();
    model.resize(model.len() + 40 * 512, 0);
    (0..20).for_each(|_| write(&set, &mut model));
    set.repair(RepairOptions::default(), &mut go_on).unwrap();
    assert_eq!(set.verify(VerifyOptions::default(), &mut go_on).unwrap().bytes_different, 0);
    set.close().unwrap();
    drop(set);
    for content in [first.content(), third.content(), std::fs::read(&path).unwrap()] {
        assert!(content == model);
    }
    // The stamp tells what somebody else has done, and the content is compared.
    third.write_at(0, &[1; 512]).unwrap();
    let mut opener = |record: &cdp_core::mirror::record::CopyRecord| -> io::Result<Arc<dyn MirrorCopy>> {
        match record.locator.as_str() {
            "objects/0" => Ok(Arc::clone(&first) as _),
            "objects/2" => Ok(Arc::clone(&third) as _),
            _ => Ok(Arc::clone(&file) as _),
        }
    };
    let set = MirrorSet::open(meta, MirrorOptions::default(), &mut opener).unwrap();
    assert_eq!(set.status().copies[2].standing, Standing::Dirty);
    set.repair(RepairOptions::default(), &mut go_on).unwrap();
    assert!(third.content() == model && all_clean(&set));
    set.close().unwrap();
}
