//! A disk in memory, stores of its size, and what the tests do to both.

use cdp_core::{
    CreateOptions, OpenOptions, ResyncMode, ResyncOptions, ResyncReport, SourceReader, SourceStamp, Store,
    VerifyOptions, VerifyReport,
    io::{MemoryStorage, Storage},
    units::Seq,
};
use std::{
    io,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

pub const BLOCK: usize = 4096;

/// A disk in memory that counts what is read of it, and changes its stamp with each write.
pub struct Disk {
    bytes: RwLock<Vec<u8>>,
    writes: AtomicU64,
    read: AtomicU64,
    stamped: bool,
    sparse: bool,
}

impl Disk {
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: RwLock::new(vec![0; bytes]),
            writes: AtomicU64::new(0),
            read: AtomicU64::new(0),
            stamped: true,
            sparse: true,
        })
    }

    /// A device: it has no stamp, and says nothing of holes.
    pub fn device(bytes: usize) -> Arc<Self> {
        let disk = Arc::into_inner(Self::new(bytes)).unwrap();
        Arc::new(Self { stamped: false, sparse: false, ..disk })
    }

    pub fn write(&self, offset: usize, data: &[u8]) {
        self.bytes.write().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    pub fn image(&self) -> Vec<u8> {
        self.bytes.read().unwrap().clone()
    }

    pub fn resize(&self, bytes: usize) {
        self.bytes.write().unwrap().resize(bytes, 0);
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    pub fn take_read(&self) -> u64 {
        self.read.swap(0, Ordering::SeqCst)
    }
}

impl SourceReader for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        buf.copy_from_slice(&self.bytes.read().unwrap()[offset..offset + buf.len()]);
        self.read.fetch_add(buf.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        if !self.sparse {
            return Ok(Some(offset));
        }
        // Holes have pieces of 64 KiB, as those of file systems have some grain.
        let bytes = self.bytes.read().unwrap();
        let from = offset as usize;
        let first = from / (64 << 10) * (64 << 10);
        let mut pieces = bytes[first..].chunks(64 << 10).enumerate();
        let found = pieces.find(|(_, piece)| piece.iter().any(|byte| *byte != 0));
        Ok(found.map(|(index, _)| ((first + index * (64 << 10)).max(from)) as u64))
    }

    fn stamp(&self) -> io::Result<Option<SourceStamp>> {
        let changed_ns = self.writes.load(Ordering::SeqCst);
        let bytes = self.bytes.read().unwrap().len() as u64;
        Ok(self.stamped.then_some(SourceStamp { device: 1, inode: 2, bytes, modified_ns: 0, changed_ns }))
    }
}

pub fn open_options() -> OpenOptions {
    OpenOptions { segment_bytes: 16 << 20, run_fanout: 3, ..OpenOptions::default() }
}

pub fn create(storage: &Arc<dyn Storage>, bytes: usize) -> Store {
    let create = CreateOptions { volume: "disk".into(), bytes: bytes as u64 };
    Store::create(storage.clone(), &create, open_options()).unwrap()
}

pub fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new())
}

/// Small and fast; good enough to scatter writes.
pub struct Random(pub u64);

impl Random {
    /// A generator whose seed is printed, and taken from `CDP_TEST_SEED` where that is set.
    pub fn for_test(name: &str) -> Self {
        let given = std::env::var("CDP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed);
        #[allow(clippy::print_stdout, reason = "a failing test must say its seed")]
        {
            println!("{name}: CDP_TEST_SEED={seed}");
        }
        Self(seed)
    }

    pub fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    pub fn block(&mut self) -> Vec<u8> {
        let word = (self.below(1 << 30) as u64 + 1).to_le_bytes();
        word.iter().copied().cycle().take(BLOCK).collect()
    }
}

/// Fills about half of the blocks of a disk and a volume with the same content.
pub fn fill_both(random: &mut Random, store: &Store, disk: &Disk, blocks: usize) {
    let volume = store.volume(None).unwrap();
    for index in 0..blocks {
        if random.below(2) == 0 && index % 64 < 48 {
            let data = random.block();
            disk.write(index * BLOCK, &data);
            volume.write((index * BLOCK) as u64, &data).unwrap();
        }
    }
    store.flush().unwrap();
}

pub fn newest(store: &Store) -> Vec<u8> {
    let volume = store.volume(None).unwrap();
    let mut image = vec![0; usize::try_from(volume.bytes()).unwrap()];
    volume.read(0, &mut image).unwrap();
    image
}

pub fn image_at(store: &Store, seq: Seq) -> Vec<u8> {
    let snapshot = store.volume(None).unwrap().snapshot(seq).unwrap();
    let mut image = vec![0; usize::try_from(snapshot.bytes()).unwrap()];
    snapshot.read(0, &mut image).unwrap();
    image
}

pub fn with(mode: ResyncMode) -> ResyncOptions {
    ResyncOptions { mode, readers: 2, ..ResyncOptions::default() }
}

#[track_caller]
pub fn resync(store: &Store, disk: &Arc<Disk>, mode: ResyncMode) -> ResyncReport {
    let report = store.resync_from(None, disk.clone(), &with(mode), &mut |_| {}, &|| false).unwrap();
    assert_eq!(report.bytes_left, 0);
    report
}

#[track_caller]
pub fn verify(store: &Store, disk: &Arc<Disk>, repair: bool) -> VerifyReport {
    let options = VerifyOptions { repair, readers: 2, ..VerifyOptions::default() };
    let report = store.verify_from(None, disk.clone(), &options, &mut |_| {}, &|| false).unwrap();
    assert!(report.complete);
    report
}
