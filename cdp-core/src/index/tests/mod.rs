//! Tests of the index as a whole, against a model that keeps every entry in one list.

mod ahead;
mod damage;
mod history;
mod model;
mod runs;
mod thinning;

use super::{Entry, MemTable, PageCache, Run, RunContext, RunMeta, RunWriter};
use crate::{
    io::{Extent, MemoryStorage, Storage},
    units::ExtentId,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Id of the store of all tests.
const STORE: u64 = 0x5EED_0001;

/// Numbers that look random and are the same for the same seed.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    fn pick(&mut self, count: usize) -> usize {
        usize::try_from(self.below(u64::try_from(count).unwrap())).unwrap()
    }
}

/// Runs a test once for each seed and names the seed that fails.
fn for_seeds(count: u64, test: impl Fn(&mut Random)) {
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with seed {}", self.0);
            }
        }
    }
    for seed in 0..count {
        let _name = Name(seed);
        test(&mut Random(seed.wrapping_mul(0x1234_5678_9ABC_DEF1)));
    }
}

/// A storage in memory, with runs.
struct Fixture {
    storage: MemoryStorage,
    pages: Arc<PageCache>,
    next: Arc<AtomicU64>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            storage: MemoryStorage::new(),
            pages: Arc::new(PageCache::new(4 << 20)),
            next: Arc::new(AtomicU64::new(100)),
        }
    }

    fn context(&self) -> RunContext {
        RunContext { store: STORE, storage: Arc::new(self.storage.clone()), pages: self.pages.clone() }
    }

    fn place(&self, offset: u64) -> super::NextPiece<'static> {
        let (storage, next) = (self.storage.clone(), self.next.clone());
        Box::new(move || {
            let id = ExtentId::new(next.fetch_add(1, Ordering::SeqCst));
            let extent: Arc<dyn Extent> = storage.create(id, 4096).unwrap();
            Ok((id, extent, offset))
        })
    }

    fn open(&self, meta: RunMeta) -> Arc<Run> {
        let mut bytes = Vec::new();
        meta.encode(&mut bytes);
        assert_eq!(
            RunMeta::decode(&mut bytes.as_slice()).as_ref(),
            Ok(&meta),
            "every record survives the manifest"
        );
        Arc::new(Run::new(meta, self.context()))
    }

    /// A run of these entries, in pieces of at most `piece_bytes`.
    fn run(&self, entries: &[Entry], piece_bytes: u64, offset: u64) -> Arc<Run> {
        let mut entries = entries.to_vec();
        entries.sort_by_key(|entry| entry.key);
        let mut writer = RunWriter::with_piece_bytes(STORE, 1, piece_bytes, self.place(offset));
        for entry in &entries {
            writer.push(entry).unwrap();
        }
        self.open(writer.finish().unwrap())
    }
}

fn table(entries: &[Entry]) -> Arc<MemTable> {
    let table = MemTable::new();
    table.insert(entries).unwrap();
    Arc::new(table)
}

/// All entries of a run through its cursor.
fn entries_of(run: &Run) -> crate::Result<Vec<Entry>> {
    let mut cursor = run.cursor();
    let mut entries = Vec::new();
    while let Some(entry) = cursor.next()? {
        entries.push(entry);
    }
    Ok(entries)
}
