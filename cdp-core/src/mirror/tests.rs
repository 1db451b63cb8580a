//! Tests of mirror sets on plain storages; crashes are in `tests/mirror_simulation.rs`.

use super::*;
use crate::{
    Error,
    dirty_map::ByteRange,
    io::{MemoryStorage, Storage, simulated::SimRng},
    units::{ExtentId, to_len},
};
use std::{
    io,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// A copy in memory that fails on demand.
struct Failing {
    inner: ExtentCopy,
    reads: AtomicBool,
    writes: AtomicBool,
}

fn eio(fails: &AtomicBool) -> io::Result<()> {
    if fails.load(SeqCst) { Err(io::Error::other("a planned failure")) } else { Ok(()) }
}

impl MirrorCopy for Failing {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        eio(&self.reads)?;
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        eio(&self.writes)?;
        // A write mends what could not be read.
        self.reads.store(false, SeqCst);
        self.inner.write_at(offset, data)
    }

    fn write_zeroes(&self, range: ByteRange) -> io::Result<()> {
        eio(&self.writes)?;
        self.inner.write_zeroes(range)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }

    fn set_size(&self, bytes: u64) -> io::Result<bool> {
        self.inner.set_size(bytes)
    }

    fn is_zero(&self) -> io::Result<bool> {
        Ok(true)
    }
}

fn copies(count: u64, bytes: u64) -> Vec<Arc<Failing>> {
    let storage = MemoryStorage::default();
    let copy = |id| {
        let inner = ExtentCopy::new(storage.create(ExtentId::new(id), bytes).unwrap());
        Arc::new(Failing { inner, reads: AtomicBool::new(false), writes: AtomicBool::new(false) })
    };
    (0..count).map(copy).collect()
}

fn set_of(copies: &[Arc<Failing>], bytes: u64, ack: AckPolicy) -> MirrorSet {
    let new = |copy: &Arc<Failing>| {
        let copy: Arc<dyn MirrorCopy> = Arc::clone(copy) as _;
        NewCopy { locator: String::new(), copy }
    };
    let create = CreateMirror { ack, ..CreateMirror::new(bytes) };
    MirrorSet::create(Arc::new(MemoryStorage::default()), create, copies.iter().map(new).collect()).unwrap()
}

fn content(copy: &Failing, bytes: u64) -> Vec<u8> {
    let mut data = vec![0; to_len(bytes)];
    copy.inner.read_at(0, &mut data).unwrap();
    data
}

pub(super) fn go_on<T>(_: T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Goal: threads that write the same blocks at once leave the same on all copies, while a copy goes and comes, is repaired and verified beside
/// them. Method: four writers over a small volume, one thread that changes the membership, then everything is compared.
#[test]
fn copies_are_equal_after_threads_wrote_beside_a_repair() {
    let bytes = 1 << 20;
    let copies = copies(3, bytes);
    let set = set_of(&copies, bytes, AckPolicy::One);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                let set = &set;
                scope.spawn(move || {
                    let mut rng = SimRng::new(writer);
                    for round in 0..1500u64 {
                        let sectors = 1 + rng.below(24);
                        let at = rng.below(bytes / 512 - sectors);
                        let byte = u8::try_from(writer * 60 + round % 60).unwrap();
                        set.write(at * 512, &vec![byte; to_len(sectors * 512)]).unwrap();
                        if round % 100 == 0 {
                            set.flush().unwrap();
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(SeqCst) {
                number = (number + 1) % 3;
                // The last whole copy stays.
                let left = set.offline(number);
                assert!(left.is_ok() || matches!(left, Err(Error::MirrorRefused(_))), "{left:?}");
                std::thread::yield_now();
                set.online(number, None).unwrap();
                set.repair(RepairOptions::default(), &mut go_on).unwrap();
                let found = set.verify(VerifyOptions::default(), &mut go_on).unwrap();
                assert_eq!(found.bytes_different, 0, "a false alarm: {found:?}");
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, SeqCst);
    });
    set.repair(RepairOptions::default(), &mut go_on).unwrap();
    let first = content(&copies[0], bytes);
    assert!(copies.iter().all(|copy| content(copy, bytes) == first));
    assert!(set.status().copies.iter().all(|copy| copy.standing == Standing::Clean));
    set.close().unwrap();
}

/// Goal: only what a copy missed moves. Method: random blocks with a copy away, then a repair, counted.
#[test]
fn a_repair_moves_what_was_missed_and_no_more() {
    let bytes = 64 << 20;
    let copies = copies(2, bytes);
    let set = set_of(&copies, bytes, AckPolicy::One);
    set.offline(1).unwrap();
    let mut rng = SimRng::new(3);
    for _ in 0..1000 {
        set.write(rng.below(bytes / 4096) * 4096, &[7; 4096]).unwrap();
    }
    let dirty = set.status().copies[1].dirty_bytes;
    set.online(1, None).unwrap();
    let options = RepairOptions { bytes_max: Some(dirty / 2), ..RepairOptions::default() };
    let half = set.repair(options, &mut go_on).unwrap();
    assert!(half.bytes_left > 0 && half.whole.is_empty(), "{half:?}");
    let rest = set.repair(RepairOptions::default(), &mut go_on).unwrap();
    assert_eq!((rest.bytes_left, &rest.whole[..]), (0, &[1][..]));
    assert_eq!(half.bytes_written + rest.bytes_written, dirty);
    assert_eq!(content(&copies[0], bytes), content(&copies[1], bytes));
}

/// Goal: a policy that is not met is an error, and what reached some copies is made equal. Method: all must hold a write, and one fails.
#[test]
fn a_write_that_too_few_copies_hold_is_not_acknowledged() {
    let bytes = 1 << 20;
    let copies = copies(2, bytes);
    let set = set_of(&copies, bytes, AckPolicy::All);
    set.write(0, &[1; 4096]).unwrap();
    copies[1].writes.store(true, SeqCst);
    let failed = set.write(0, &[2; 4096]);
    assert!(matches!(failed, Err(Error::TooFewCopies { needed: 2, have: 1 })), "{failed:?}");
    assert_eq!(set.status().copies[1].standing, Standing::Offline);
    assert!(matches!(set.write(0, &[3; 4096]), Err(Error::TooFewCopies { .. })));
    copies[1].writes.store(false, SeqCst);
    set.online(1, None).unwrap();
    set.repair(RepairOptions::default(), &mut go_on).unwrap();
    assert_eq!(content(&copies[0], bytes), content(&copies[1], bytes));
    set.write(0, &[4; 512]).unwrap();
}

/// Goal: a read goes on with another copy, and the one that failed gets the block back. Method: a copy that fails until it is written.
#[test]
fn a_block_that_cannot_be_read_is_written_back() {
    let bytes = 1 << 20;
    let copies = copies(2, bytes);
    let set = set_of(&copies, bytes, AckPolicy::One);
    set.write(4096, &[5; 4096]).unwrap();
    copies[0].reads.store(true, SeqCst);
    let mut buf = [0; 4096];
    set.read(4096, &mut buf).unwrap();
    assert_eq!(buf, [5; 4096]);
    assert!(!copies[0].reads.load(SeqCst), "the block was written back");
    assert!(set.status().copies.iter().all(|copy| copy.standing == Standing::Clean));
}

/// Goal: the last copy that lacks nothing never leaves, and its failures are errors. Method: take the other away, then fail.
#[test]
fn the_last_whole_copy_stays() {
    let bytes = 1 << 20;
    let copies = copies(2, bytes);
    let set = set_of(&copies, bytes, AckPolicy::One);
    set.offline(1).unwrap();
    assert!(matches!(set.offline(0), Err(Error::MirrorRefused(_))));
    assert!(matches!(set.remove(0), Err(Error::MirrorRefused(_))));
    copies[0].writes.store(true, SeqCst);
    assert!(matches!(set.write(0, &[1; 512]), Err(Error::Io { .. })));
    copies[0].writes.store(false, SeqCst);
    set.write(0, &[1; 512]).unwrap();
    assert!(matches!(set.write(1, &[1; 512]), Err(Error::Unaligned { .. })));
    assert!(matches!(set.write(bytes, &[1; 512]), Err(Error::OutOfRange { .. })));
}

/// Goal: three copies propose which one is wrong, and only the caller decides. Method: harm one past the set.
#[test]
fn a_majority_of_three_is_proposed_and_nothing_repaired_unasked() {
    let bytes = 1 << 20;
    let copies = copies(3, bytes);
    let set = set_of(&copies, bytes, AckPolicy::One);
    set.write(0, &[9; 64 << 10]).unwrap();
    copies[0].inner.write_at(8192, &[1; 8192]).unwrap();
    let found = set.verify(VerifyOptions::default(), &mut go_on).unwrap();
    let expected = [Difference { range: ByteRange::new(8192, 8192), majority: Some(1) }];
    assert_eq!((&found.differences[..], found.bytes_repaired), (&expected[..], 0));
    let right = VerifyOptions { right: Some(1), ..VerifyOptions::default() };
    assert_eq!(set.verify(right, &mut go_on).unwrap().bytes_repaired, 8192);
    assert_eq!(content(&copies[0], bytes), content(&copies[1], bytes));
    assert_eq!(set.verify(VerifyOptions::default(), &mut go_on).unwrap().bytes_different, 0);
}

/// Keeps what it is told.
#[derive(Default)]
struct Told(parking_lot::Mutex<Vec<String>>);

impl MirrorSink for Told {
    fn event(&self, event: &MirrorEvent) {
        self.0.lock().push(event.to_string());
    }
}

/// Goal: a sink is told of what happens to a set, once each and in order. Method: a copy that leaves, fails, comes back, is mended and repaired; the set that
/// is decided, resized and closed; a second sink is refused.
#[test]
fn a_sink_is_told_of_what_happens_to_a_set() {
    let (bytes, data) = (1 << 20, vec![7; 8192]);
    let copies = copies(2, bytes);
    let set = set_of(&copies, bytes, AckPolicy::One);
    let told = Arc::new(Told::default());
    assert!(set.set_event_sink(told.clone()));
    assert!(!set.set_event_sink(Arc::new(Told::default())));
    let expect = |texts: &[&str]| {
        let found = std::mem::take(&mut *told.0.lock());
        assert_eq!(found.len(), texts.len(), "{found:?}");
        for (found, text) in found.iter().zip(texts) {
            assert!(found.contains(text), "'{found}' and not '{text}'");
        }
    };
    set.offline(1).unwrap();
    set.offline(1).unwrap();
    set.write(0, &data).unwrap();
    set.online(1, None).unwrap();
    set.repair(RepairOptions::default(), &mut go_on).unwrap();
    expect(&["copy 1 was taken out", "copy 1 takes writes again", "copy 1 lacks nothing"]);
    copies[1].writes.store(true, SeqCst);
    set.write(8192, &data).unwrap();
    copies[1].writes.store(false, SeqCst);
    set.online(1, None).unwrap();
    set.repair(RepairOptions::default(), &mut go_on).unwrap();
    expect(&["copy 1 failed", "copy 1 takes writes again", "copy 1 lacks nothing"]);
    copies[0].reads.store(true, SeqCst);
    set.read(0, &mut vec![0; 8192]).unwrap();
    set.repair_range(1, ByteRange::new(4096, 4096)).unwrap();
    expect(&["copy 0: 8192 bytes at 0 were rewritten", "copy 1: 4096 bytes at 4096 were rewritten"]);
    set.remove(1).unwrap();
    set.resize(2 * bytes).unwrap();
    set.resolve(0).unwrap();
    set.close().unwrap();
    expect(&["copy 1 left", "2097152 bytes now", "copy 0 is right", "was closed"]);
}
