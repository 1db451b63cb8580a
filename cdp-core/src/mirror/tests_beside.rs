//! Copies that threads write beside each other.

use super::{tests::go_on, *};
use crate::{
    Error,
    dirty_map::ByteRange,
    io::{MemoryStorage, Storage, simulated::SimRng},
    units::{ExtentId, to_len},
};
use parking_lot::{Condvar, Mutex};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// A copy in memory whose changes wait while its gate is shut, and that fails on demand.
struct Gated {
    inner: ExtentCopy,
    shut: Mutex<bool>,
    opened: Condvar,
    fails: AtomicBool,
    /// Changes that were carried out.
    changes: AtomicU64,
}

impl Gated {
    fn pass(&self) -> io::Result<()> {
        let mut shut = self.shut.lock();
        while *shut {
            self.opened.wait(&mut shut);
        }
        self.changes.fetch_add(1, SeqCst);
        if self.fails.load(SeqCst) { Err(io::Error::other("a planned failure")) } else { Ok(()) }
    }

    fn set_shut(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.opened.notify_all();
    }
}

impl MirrorCopy for Gated {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pass()?;
        self.inner.write_at(offset, data)
    }

    fn write_zeroes(&self, range: ByteRange) -> io::Result<()> {
        self.pass()?;
        self.inner.write_zeroes(range)
    }

    fn sync(&self) -> io::Result<()> {
        self.pass()
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

const BYTES: u64 = 4 << 20;
const BEHIND_BYTES: u64 = 256 << 10;

fn gated(count: u64) -> Vec<Arc<Gated>> {
    let storage = MemoryStorage::default();
    let copy = |id| {
        Arc::new(Gated {
            inner: ExtentCopy::new(storage.create(ExtentId::new(id), BYTES).unwrap()),
            shut: Mutex::new(false),
            opened: Condvar::new(),
            fails: AtomicBool::new(false),
            changes: AtomicU64::new(0),
        })
    };
    (0..count).map(copy).collect()
}

fn set_of(copies: &[Arc<Gated>], ack: AckPolicy) -> MirrorSet {
    let new = |copy: &Arc<Gated>| NewCopy { locator: String::new(), copy: Arc::clone(copy) as _ };
    let options = MirrorOptions {
        writers: Writers::Threads,
        behind_bytes_max: BEHIND_BYTES,
        patience: Duration::from_millis(5),
        ..MirrorOptions::default()
    };
    let create = CreateMirror { ack, options, ..CreateMirror::new(BYTES) };
    MirrorSet::create(Arc::new(MemoryStorage::default()), create, copies.iter().map(new).collect()).unwrap()
}

fn held(copy: &Gated) -> Vec<u8> {
    let mut data = vec![0; to_len(BYTES)];
    copy.inner.read_at(0, &mut data).unwrap();
    data
}

/// Goal: a copy that hangs holds up neither writes, flushes nor reads of a policy that can do without it, takes no more memory than its bound, and is given what it missed when it
/// goes on. Method: a copy whose gate is shut beside two others, many times its bound of writes; then the gate opens.
#[test]
fn a_copy_that_hangs_holds_nobody_up_and_is_tracked_in_its_map() {
    for (ack, slow) in [(AckPolicy::One, 0), (AckPolicy::One, 2), (AckPolicy::Quorum, 1)] {
        let copies = gated(3);
        let set = set_of(&copies, ack);
        set.write(0, &[1; 4096]).unwrap();
        set.flush().unwrap();
        copies[slow].set_shut(true);
        let (mut rng, mut model) = (SimRng::new(7), vec![0; to_len(BYTES)]);
        model[..4096].fill(1);
        for round in 0..1000u64 {
            let (at, byte) = (rng.below(BYTES / 4096) * 4096, u8::try_from(round % 250).unwrap());
            set.write(at, &[byte; 4096]).unwrap();
            model[to_len(at)..to_len(at) + 4096].fill(byte);
            if round % 200 == 199 {
                set.flush().unwrap();
            }
        }
        let status = set.status().copies[slow].clone();
        assert!(status.behind_bytes <= BEHIND_BYTES + 8192, "{status:?}");
        assert_eq!(
            status.standing,
            Standing::Dirty,
            "what found no place, and what was flushed, is in its map"
        );
        let mut read = vec![0; to_len(BYTES)];
        set.read(0, &mut read).unwrap();
        assert!(read == model, "reads go to the others");
        copies[slow].set_shut(false);
        set.repair(RepairOptions::default(), &mut go_on).unwrap();
        assert_eq!(set.verify(VerifyOptions::default(), &mut go_on).unwrap().bytes_different, 0);
        set.close().unwrap();
        copies.iter().for_each(|copy| assert!(held(copy) == model, "{ack:?}, slow copy {slow}"));
    }
}

/// Goal: a policy waits for as many copies as it names and no more. Method: shut gates; whether a write comes back.
#[test]
fn a_write_waits_for_the_copies_that_its_policy_names() {
    for (ack, shut, comes) in [
        (AckPolicy::One, 2, true),
        (AckPolicy::Quorum, 1, true),
        (AckPolicy::Quorum, 2, false),
        (AckPolicy::All, 1, false),
        (AckPolicy::One, 3, false),
    ] {
        let copies = gated(3);
        let set = set_of(&copies, ack);
        copies[..shut].iter().for_each(|copy| copy.set_shut(true));
        let came = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                set.write(8192, &[5; 4096]).unwrap();
                came.store(true, SeqCst);
            });
            let until =
                Instant::now() + Duration::from_secs(if comes { 60 } else { 0 }) + Duration::from_millis(150);
            while Instant::now() < until && !came.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(came.load(SeqCst), comes, "{ack:?} with {shut} of 3 shut");
            copies.iter().for_each(|copy| copy.set_shut(false));
        });
        set.flush().unwrap();
        set.close().unwrap();
        copies.iter().for_each(|copy| assert_eq!(held(copy)[8192..12_288], [5; 4096]));
    }
}

/// Goal: copies are written at the same time, not one after the other. Method: each change of two copies waits for the other one's.
#[test]
fn copies_are_written_at_the_same_time() {
    let copies = gated(2);
    let set = set_of(&copies, AckPolicy::All);
    copies.iter().for_each(|copy| copy.set_shut(true));
    std::thread::scope(|scope| {
        scope.spawn(|| set.write(0, &[3; 4096]).unwrap());
        // The second gate opens first: written in turn, its change would not have been given to it.
        copies[1].set_shut(false);
        while copies[1].changes.load(SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(copies[0].changes.load(SeqCst), 0);
        copies[0].set_shut(false);
    });
    set.close().unwrap();
}

/// Goal: a copy that fails after the write was acknowledged leaves with everything marked, before the next write is acknowledged; the last one that lacks nothing stops the set
/// instead. Method: a shut gate, a failure behind it, the gate opens.
#[test]
fn a_copy_that_fails_after_the_acknowledgement_leaves_marked() {
    let copies = gated(2);
    let set = set_of(&copies, AckPolicy::One);
    copies[1].set_shut(true);
    copies[1].fails.store(true, SeqCst);
    set.write(0, &[1; 4096]).unwrap();
    set.write(8192, &[2; 4096]).unwrap();
    copies[1].set_shut(false);
    while copies[1].changes.load(SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // It may take a moment until the failure is told.
    let until = Instant::now() + Duration::from_secs(60);
    while set.status().copies[1].standing != Standing::Offline && Instant::now() < until {
        set.write(16_384, &[3; 4096]).unwrap();
    }
    let status = set.status().copies[1].clone();
    assert_eq!(status.standing, Standing::Offline);
    assert!(status.dirty_bytes >= 3 * 4096 && status.trouble.is_some(), "{status:?}");
    copies[1].fails.store(false, SeqCst);
    set.online(1, None).unwrap();
    set.repair(RepairOptions::default(), &mut go_on).unwrap();
    assert!(held(&copies[0]) == held(&copies[1]));
    // Now the other one is the last that lacks nothing.
    set.offline(1).unwrap();
    copies[0].fails.store(true, SeqCst);
    assert!(matches!(set.write(0, &[4; 4096]), Err(Error::Io { .. })), "its failure is the caller's");
    copies[0].fails.store(false, SeqCst);
    set.write(0, &[5; 4096]).unwrap();
    set.close().unwrap();
}

/// Goal: threads that write the same blocks leave the same on all copies, whichever is slow, while copies go and come, are repaired and compared. Method: writers over a small volume;
/// gates that shut and open at random; everything is compared in the end.
#[test]
fn copies_are_equal_after_threads_wrote_while_copies_were_slow() {
    let copies = gated(3);
    let set = set_of(&copies, AckPolicy::One);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let set = &set;
                scope.spawn(move || {
                    let mut rng = SimRng::new(writer);
                    for round in 0..800u64 {
                        let sectors = 1 + rng.below(24);
                        let at = rng.below(256 - sectors);
                        let byte = u8::try_from(writer * 80 + round % 80).unwrap();
                        set.write(at * 512, &vec![byte; to_len(sectors * 512)]).unwrap();
                        if round % 50 == 0 {
                            set.flush().unwrap();
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut rng = SimRng::new(99);
            while !done.load(SeqCst) {
                let copy = &copies[to_len(rng.below(3))];
                copy.set_shut(true);
                std::thread::sleep(Duration::from_micros(rng.below(2000)));
                copy.set_shut(false);
            }
        });
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(SeqCst) {
                number = (number + 1) % 3;
                let left = set.offline(number);
                assert!(left.is_ok() || matches!(left, Err(Error::MirrorRefused(_))), "{left:?}");
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
    set.close().unwrap();
    let first = held(&copies[0]);
    assert!(copies.iter().all(|copy| held(copy) == first));
}
