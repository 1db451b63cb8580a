//! A source disk in memory, a store, and what a point of it must hold.

use cdp_core::{
    CreateOptions, OpenOptions, SourceReader, Store, Tap,
    io::{MemoryStorage, Storage},
    units::{Seq, TimeNs},
};
use parking_lot::RwLock;
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

pub const BLOCK: usize = 4096;

/// The production disk.
pub struct Source {
    bytes: RwLock<Vec<u8>>,
}

impl Source {
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { bytes: RwLock::new(vec![0; bytes]) })
    }

    pub fn write(&self, offset: usize, data: &[u8]) {
        self.bytes.write()[offset..offset + data.len()].copy_from_slice(data);
    }

    pub fn image(&self) -> Vec<u8> {
        self.bytes.read().clone()
    }
}

impl SourceReader for Source {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        buf.copy_from_slice(&self.bytes.read()[offset..offset + buf.len()]);
        Ok(())
    }

    /// A disk without a volatile cache.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

pub fn options() -> OpenOptions {
    OpenOptions { segment_bytes: 16 << 20, run_fanout: 3, ..OpenOptions::default() }
}

pub fn store_with(storage: Arc<dyn Storage>, bytes: usize) -> Store {
    let create = CreateOptions { volume: "disk".into(), bytes: bytes as u64 };
    Store::create(storage, &create, options()).unwrap()
}

pub fn store(bytes: usize) -> Store {
    store_with(Arc::new(MemoryStorage::new()), bytes)
}

/// A block that names its place and the write it came from.
pub fn block(index: usize, version: u64) -> Vec<u8> {
    let words = [(index * BLOCK) as u64, version];
    words.iter().flat_map(|word| word.to_le_bytes()).cycle().take(BLOCK).collect()
}

/// The version that a block of an image names; 0 when it was never written. A torn or foreign block fails the test.
#[track_caller]
pub fn version_of(image: &[u8], index: usize) -> u64 {
    let found = &image[index * BLOCK..][..BLOCK];
    if found.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let version = u64::from_le_bytes(found[8..16].try_into().unwrap());
    assert!(found == block(index, version), "block {index} is torn or foreign");
    version
}

pub fn image_at(store: &Store, volume: &str, seq: Seq) -> Vec<u8> {
    let volume = store.volume(Some(volume)).unwrap();
    let mut image = vec![0; usize::try_from(volume.bytes()).unwrap()];
    volume.snapshot(seq).unwrap().read(0, &mut image).unwrap();
    image
}

pub fn newest(store: &Store, volume: &str) -> Vec<u8> {
    let volume = store.volume(Some(volume)).unwrap();
    let mut image = vec![0; usize::try_from(volume.bytes()).unwrap()];
    volume.read(0, &mut image).unwrap();
    image
}

/// Waits until a tap captures whole again; fails after a time that no healthy machine needs.
#[track_caller]
pub fn wait_whole(tap: &Tap) {
    let started = Instant::now();
    while !tap.is_whole() {
        assert!(started.elapsed() < Duration::from_secs(120), "the tap does not heal: {:?}", tap.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn now() -> TimeNs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    TimeNs::new(u64::try_from(since.as_nanos()).unwrap())
}

/// Small and fast; good enough to scatter writes.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}
