//! The simulated disk's own promises: what a crash must leave, what it may leave, and that each of these occurs.

use super::*;
use std::{
    collections::BTreeSet,
    io::ErrorKind,
    sync::atomic::{AtomicU64, Ordering},
};

const BLOCK: u64 = len_u64(IO_ALIGN);
const SEEDS: u64 = 200;
const ZERO: ExtentId = ExtentId::ZERO;
const ONE: ExtentId = ExtentId::new(1);

fn filled(blocks: usize, byte: u8) -> AlignedBuf {
    let mut buf = AlignedBuf::new(blocks * IO_ALIGN).unwrap();
    buf.fill(byte);
    buf
}

fn block(extent: &dyn Extent, index: u64) -> Vec<u8> {
    let mut buf = AlignedBuf::new(IO_ALIGN).unwrap();
    extent.read_at(index * BLOCK, &mut buf).unwrap();
    buf.to_vec()
}

fn first_byte(storage: &SimulatedStorage, index: u64) -> u8 {
    block(&*storage.open(ONE).unwrap(), index)[0]
}

/// A disk with extent 1 of 8 blocks, all of them `1` and durable.
fn durable_disk(unit: AtomicUnit) -> (SimulatedStorage, Arc<dyn Extent>) {
    let storage = SimulatedStorage::with_config(SimulatedConfig { seed: 5, unit, capacity: None });
    let extent = storage.create(ONE, 8 * BLOCK).unwrap();
    extent.write_at(0, &filled(8, 1)).unwrap();
    extent.sync().unwrap();
    storage.sync_names().unwrap();
    assert_eq!(storage.pending_units(), 0);
    (storage, extent)
}

/// Goal: what was synced survives every crash. Method: every policy, and many seeds with later writes elsewhere.
#[test]
fn a_synced_write_survives_every_crash() {
    let (storage, extent) = durable_disk(AtomicUnit::Block);
    extent.write_at(0, &filled(4, 2)).unwrap();
    extent.sync().unwrap();
    extent.write_at(4 * BLOCK, &filled(4, 3)).unwrap();
    for seed in 0..SEEDS {
        for policy in [CrashPolicy::LoseUnsynced, CrashPolicy::KeepUnsynced, CrashPolicy::Random] {
            let crashed = storage.crash(seed, policy);
            assert!((0..4).all(|index| first_byte(&crashed, index) == 2), "seed {seed}, {policy:?}");
            assert_eq!(crashed.pending_units(), 0);
        }
    }
    assert!((4..8).all(|index| first_byte(&storage.crash(0, CrashPolicy::LoseUnsynced), index) == 1));
    assert!((4..8).all(|index| first_byte(&storage.crash(0, CrashPolicy::KeepUnsynced), index) == 3));
}

/// Goal: of two unsynced writes to a place none, the older, the newer, and torn mixtures may be left, each block on its
/// own; nothing else. Method: collect what occurs over the seeds.
#[test]
fn an_unsynced_write_may_be_lost_kept_torn_or_stale() {
    let (storage, extent) = durable_disk(AtomicUnit::Block);
    extent.write_at(0, &filled(2, 2)).unwrap();
    extent.write_at(0, &filled(2, 3)).unwrap();
    let (mut outcomes, mut torn) = (BTreeSet::new(), 0);
    for seed in 0..SEEDS {
        let crashed = storage.crash(seed, CrashPolicy::Random).open(ONE).unwrap();
        let blocks = [block(&*crashed, 0), block(&*crashed, 1)];
        for sector in blocks.iter().flat_map(|block| block.chunks(SECTOR_LEN)) {
            assert!([1, 2, 3].contains(&sector[0]), "seed {seed}");
            assert!(sector.iter().all(|&byte| byte == sector[0]), "seed {seed}: torn inside a sector");
        }
        let whole = |block: &Vec<u8>| block.iter().all(|&byte| byte == block[0]);
        if blocks.iter().all(whole) {
            outcomes.insert((blocks[0][0], blocks[1][0]));
        } else {
            torn += 1;
        }
    }
    let all = [1, 2, 3].into_iter().flat_map(|first| [1, 2, 3].map(|second| (first, second)));
    assert_eq!(outcomes, all.collect());
    assert!(torn > 0);
}

/// Goal: masks enumerate every state exactly, and mean what `pending` lists. Method: three units, eight masks.
#[test]
fn subsets_enumerate_every_crash() {
    let (storage, extent) = durable_disk(AtomicUnit::Block);
    extent.write_at(0, &filled(2, 2)).unwrap();
    extent.write_at(BLOCK, &filled(1, 3)).unwrap();
    let write = |index: u64| PendingUnit::Write { extent: ONE, offset: index * BLOCK, bytes: BLOCK };
    assert_eq!(storage.pending(), [write(0), write(1), write(1)]);
    let states: Vec<_> = (0..8)
        .map(|mask| {
            let crashed = storage.crash_subset(mask);
            (first_byte(&crashed, 0), first_byte(&crashed, 1))
        })
        .collect();
    assert_eq!(states, [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3), (1, 3), (2, 3)]);

    let (storage, extent) = durable_disk(AtomicUnit::Sector);
    extent.write_at(0, &filled(1, 2)).unwrap();
    assert_eq!(storage.pending_units(), 8);
    let crashed = block(&*storage.crash_subset(0b1000_0001).open(ONE).unwrap(), 0);
    let sectors: Vec<_> = crashed.chunks(SECTOR_LEN).map(|sector| sector[0]).collect();
    assert_eq!(sectors, [2, 1, 1, 1, 1, 1, 1, 2]);
}

/// Goal: a name whose directory was not synced may be gone or there, with any size and content; a removed one may be
/// back with what was durable. A synced name stays. Method: collect what occurs over the seeds.
#[test]
fn names_sizes_and_content_are_lost_each_on_their_own() {
    let (storage, _extent) = durable_disk(AtomicUnit::Block);
    let two = ExtentId::new(2);
    storage.create(two, 2 * BLOCK).unwrap().write_at(0, &filled(1, 7)).unwrap();
    storage.remove(ONE).unwrap();
    let mut outcomes = BTreeSet::new();
    for seed in 0..SEEDS {
        let crashed = storage.crash(seed, CrashPolicy::Random);
        let removed = crashed.open(ONE).map(|extent| block(&*extent, 0)[0]).ok();
        assert!([None, Some(1)].contains(&removed), "seed {seed}");
        let created = crashed.open(two).ok().map(|extent| match extent.size().unwrap() {
            0 => (0, 0),
            size => (size, block(&*extent, 0).into_iter().max().unwrap()),
        });
        outcomes.insert((removed.is_some(), created));
    }
    let created = [None, Some((0, 0)), Some((2 * BLOCK, 0)), Some((2 * BLOCK, 7))];
    assert_eq!(
        outcomes,
        [false, true].into_iter().flat_map(|back| created.map(|state| (back, state))).collect()
    );

    storage.sync_names().unwrap();
    for seed in 0..SEEDS {
        assert_eq!(storage.crash(seed, CrashPolicy::Random).list().unwrap(), [two], "seed {seed}");
    }
}

/// Goal: a synced extent whose name is not synced may vanish; syncing one extent does not cover another.
#[test]
fn a_sync_covers_one_extent_and_no_name() {
    let storage = SimulatedStorage::new(1);
    let extent = storage.create(ONE, BLOCK).unwrap();
    storage.create(ZERO, BLOCK).unwrap();
    extent.sync().unwrap();
    assert_eq!(
        storage.pending(),
        [PendingUnit::Created(ONE), PendingUnit::Created(ZERO), PendingUnit::Size(ZERO, BLOCK)]
    );
    assert_eq!(storage.crash(0, CrashPolicy::LoseUnsynced).list().unwrap(), []);
}

/// Goal: killing the user loses nothing, and what was not synced still can be lost later. Method: kill, then crash.
#[test]
fn a_kill_keeps_the_cache_but_makes_nothing_durable() {
    let (storage, extent) = durable_disk(AtomicUnit::Block);
    extent.write_at(0, &filled(1, 2)).unwrap();
    let _owner = storage.lock_owner().unwrap();
    let killed = storage.kill();
    killed.lock_owner().expect("the lock has died with its owner");
    assert_eq!(first_byte(&killed, 0), 2);
    assert_eq!(first_byte(&killed.crash(0, CrashPolicy::LoseUnsynced), 0), 1);
    killed.open(ONE).unwrap().sync().unwrap();
    assert_eq!(first_byte(&killed.crash(0, CrashPolicy::LoseUnsynced), 0), 2);
}

/// Goal: after a failed sync the content reads as written, some of it is durable, and no later sync covers the rest; new
/// writes are covered. Method: fail once, sync again, crash without losing anything further.
#[test]
fn a_failed_sync_loses_units_that_no_later_sync_saves() {
    let mut kept = BTreeSet::new();
    for seed in 0..SEEDS {
        let storage = SimulatedStorage::new(seed);
        let extent = storage.create(ONE, 4 * BLOCK).unwrap();
        storage.sync_names().unwrap();
        extent.sync().unwrap();
        extent.write_at(0, &filled(2, 9)).unwrap();
        storage.inject(Fault::io_error(Call::Sync));
        assert_eq!(extent.sync().unwrap_err().raw_os_error(), Some(5));
        assert_eq!(storage.faults_struck(), 1);
        extent.write_at(3 * BLOCK, &filled(1, 4)).unwrap();
        extent.sync().unwrap();
        assert_eq!((first_byte(&storage, 0), first_byte(&storage, 1)), (9, 9), "seed {seed}");
        let crashed = storage.crash(seed, CrashPolicy::KeepUnsynced);
        assert_eq!(first_byte(&crashed, 3), 4, "seed {seed}: a later write is covered by a later sync");
        let crashed = crashed.open(ONE).unwrap();
        kept.insert([0, 1].map(|index| block(&*crashed, index).contains(&9)));
    }
    assert_eq!(kept.len(), 4, "{kept:?}");
}

/// Goal: a size that a failed sync has lost does not hide data that a later sync covers. Method: grow, fail, write, sync.
#[test]
fn a_later_sync_covers_the_size_as_well() {
    for seed in 0..SEEDS {
        let storage = SimulatedStorage::new(seed);
        let extent = storage.create(ONE, 0).unwrap();
        storage.sync_names().unwrap();
        extent.set_size(2 * BLOCK).unwrap();
        storage.inject(Fault::io_error(Call::Sync));
        extent.sync().unwrap_err();
        extent.write_at(BLOCK, &filled(1, 4)).unwrap();
        extent.sync().unwrap();
        assert_eq!(first_byte(&storage.crash(seed, CrashPolicy::LoseUnsynced), 1), 4, "seed {seed}");
    }
}

/// Goal: the stop strikes exactly the n-th call and all later ones, and the call under way may have happened or not.
/// Method: count a sequence, stop at each of its calls, look at what crashes leave.
#[test]
fn a_stop_at_every_call_cuts_the_sequence_there() {
    let run = |storage: &SimulatedStorage| -> io::Result<()> {
        let extent = storage.create(ONE, BLOCK)?;
        extent.size()?;
        storage.sync_names()?;
        extent.write_at(0, &filled(1, 6))?;
        extent.sync()?;
        extent.read_at(0, &mut filled(1, 0))?;
        storage.remove(ONE)
    };
    let whole = SimulatedStorage::new(1);
    run(&whole).unwrap();
    assert_eq!((whole.calls(), whole.changes()), (7, 5));
    for call in 1..=7 {
        let storage = SimulatedStorage::new(1);
        storage.stop_at_call(call);
        let error = run(&storage).unwrap_err();
        assert!(is_simulated_stop(&error) && storage.is_stopped());
        assert!(is_simulated_stop(&storage.list().unwrap_err()), "every later call fails");
        assert_eq!(storage.calls(), call);
        let lost = storage.crash(0, CrashPolicy::LoseUnsynced);
        let kept = storage.crash(0, CrashPolicy::KeepUnsynced);
        let content = |storage: &SimulatedStorage| {
            storage.open(ONE).and_then(|extent| {
                let mut buf = filled(1, 0);
                extent.read_at(0, &mut buf).map(|()| buf[0])
            })
        };
        let (lost, kept) = (content(&lost), content(&kept));
        let expected = match call {
            1..=3 => (None, Some(0)),
            4 | 5 => (None, Some(6)),
            6 => (Some(6), Some(6)),
            _ => (Some(6), None),
        };
        assert_eq!((lost.ok(), kept.ok()), expected, "stopped at call {call}");
    }
    let storage = SimulatedStorage::new(1);
    storage.stop_at_change(3);
    run(&storage).unwrap_err();
    assert_eq!(storage.pending().len(), 2, "the write was under way");
    assert!(!is_simulated_stop(&io::Error::other("else")));
}

/// Goal: faults strike the call, extent and count that they were planned for, once or for ever.
#[test]
fn faults_strike_where_they_were_planned() {
    let (storage, extent) = durable_disk(AtomicUnit::Block);
    let mut buf = filled(1, 0);
    storage.inject(Fault::io_error(Call::Read).on(ZERO));
    storage.inject(Fault::io_error(Call::Read).on(ONE).after(2));
    let results: Vec<_> = (0..4).map(|_| extent.read_at(0, &mut buf).is_ok()).collect();
    assert_eq!(results, [true, true, false, true]);
    storage.inject(Fault::no_space(Call::Create).forever());
    for _ in 0..3 {
        assert_eq!(storage.create(ZERO, 0).err().unwrap().kind(), ErrorKind::StorageFull);
    }
    assert_eq!(storage.faults_struck(), 4);
    storage.clear_faults();
    storage.create(ZERO, 0).unwrap();
    for (call, fails) in [
        (Call::Remove, storage.remove(ZERO).is_err()),
        (Call::SetSize, extent.set_size(0).is_err()),
        (Call::Open, storage.open(ONE).is_err()),
    ] {
        assert!(!fails, "{call:?} after the faults were dropped");
    }
}

/// Goal: every other fault does what its name says. Method: one of each, and a look at content and durable content.
#[test]
fn lost_misdirected_stale_short_and_lying_calls_do_what_they_say() {
    let (storage, extent) = durable_disk(AtomicUnit::Block);
    let mut buf = filled(2, 0);

    storage.inject(Fault::lost_write());
    extent.write_at(0, &filled(1, 2)).unwrap();
    assert_eq!((first_byte(&storage, 0), storage.pending_units()), (1, 0));

    storage.inject(Fault::misdirected_write(ONE, 3 * BLOCK + 5));
    extent.write_at(0, &filled(1, 2)).unwrap();
    assert_eq!((first_byte(&storage, 0), first_byte(&storage, 3)), (1, 2));

    extent.write_at(0, &filled(1, 8)).unwrap();
    storage.inject(Fault::stale_read());
    extent.read_at(0, &mut buf[..IO_ALIGN]).unwrap();
    assert_eq!(buf[0], 1);
    assert_eq!(first_byte(&storage, 0), 8);

    storage.inject(Fault::lying_sync());
    extent.sync().unwrap();
    assert_eq!(first_byte(&storage.crash(0, CrashPolicy::LoseUnsynced), 0), 1);
    extent.sync().unwrap();
    assert_eq!(first_byte(&storage.crash(0, CrashPolicy::LoseUnsynced), 0), 8);

    storage.inject(Fault::short_write());
    assert_eq!(extent.write_at(4 * BLOCK, &filled(2, 5)).unwrap_err().kind(), ErrorKind::WriteZero);
    extent.read_at(4 * BLOCK, &mut buf).unwrap();
    let written = buf.iter().take_while(|&&byte| byte == 5).count();
    assert!(written < buf.len() && written.is_multiple_of(SECTOR_LEN));
    assert!(buf[written..].iter().all(|&byte| byte == 1));
    storage.inject(Fault::short_read());
    extent.read_at(0, &mut buf).unwrap_err();
}

/// Goal: bit rot flips exactly one bit for good, whether the byte is synced or still pending. Method: flip, crash, compare.
#[test]
fn a_flipped_bit_stays_flipped() {
    let (storage, extent) = durable_disk(AtomicUnit::Block);
    extent.write_at(0, &filled(1, 2)).unwrap();
    assert!(storage.flip_bit(ONE, 10, 7).unwrap() && storage.flip_bit(ONE, BLOCK + 3, 0).unwrap());
    extent.sync().unwrap();
    for disk in [&storage, &storage.crash(0, CrashPolicy::LoseUnsynced)] {
        let extent = disk.open(ONE).unwrap();
        let (mut first, mut second) = (vec![2; IO_ALIGN], vec![1; IO_ALIGN]);
        first[10] = 0x82;
        second[3] = 0;
        assert!(block(&*extent, 0) == first && block(&*extent, 1) == second);
    }
    let empty = storage.create(ZERO, BLOCK).unwrap();
    assert!(!storage.flip_bit(ZERO, 0, 0).unwrap());
    drop(empty);
    assert_eq!(storage.flip_bit(ExtentId::new(9), 0, 0).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Goal: the capacity holds to the block, and removed or cut space comes back. Method: at the bound and one past it.
#[test]
fn the_capacity_bounds_the_disk() {
    let config = SimulatedConfig { capacity: Some(4 * BLOCK), ..SimulatedConfig::default() };
    let storage = SimulatedStorage::with_config(config);
    let extent = storage.create(ONE, 3 * BLOCK).unwrap();
    assert_eq!(storage.create(ZERO, BLOCK + 1).err().unwrap().kind(), ErrorKind::StorageFull);
    assert_eq!(storage.list().unwrap(), [ONE]);
    extent.write_at(3 * BLOCK, &filled(1, 1)).unwrap();
    assert_eq!(extent.write_at(3 * BLOCK, &filled(2, 1)).unwrap_err().kind(), ErrorKind::StorageFull);
    extent.set_size(2 * BLOCK).unwrap();
    storage.create(ZERO, 2 * BLOCK).unwrap();
    storage.remove(ONE).unwrap();
    assert_eq!(storage.used(), 4 * BLOCK, "an open handle keeps the space");
    drop(extent);
    assert_eq!(storage.used(), 2 * BLOCK);
    storage.set_capacity(None);
    storage.create(ONE, 100 * BLOCK).unwrap();
}

/// Goal: a fork goes on independently from the same state. Method: change the original and the fork in different ways.
#[test]
fn a_fork_is_independent() {
    let (storage, extent) = durable_disk(AtomicUnit::Block);
    extent.write_at(0, &filled(1, 2)).unwrap();
    storage.inject(Fault::io_error(Call::Sync));
    let fork = storage.fork();
    assert_eq!((fork.pending(), fork.calls()), (storage.pending(), storage.calls()));
    fork.open(ONE).unwrap().write_at(0, &filled(1, 3)).unwrap();
    extent.write_at(BLOCK, &filled(1, 4)).unwrap();
    assert_eq!((first_byte(&storage, 0), first_byte(&storage, 1)), (2, 4));
    assert_eq!((first_byte(&fork, 0), first_byte(&fork, 1)), (3, 1));
    extent.sync().unwrap_err();
    fork.open(ONE).unwrap().sync().expect_err("the fork has the fault too");
}

/// Goal: the same seed gives the same disk. Method: a random history with faults, twice, compared byte for byte.
#[test]
fn a_seed_decides_everything() {
    let run = |seed: u64| {
        let storage = SimulatedStorage::new(seed);
        let mut rng = SimRng::new(seed);
        let extent = storage.create(ONE, 16 * BLOCK).unwrap();
        storage.sync_names().unwrap();
        for _ in 0..40 {
            if rng.chance(0.3) {
                storage.inject(rng.pick(&[
                    Fault::short_write as fn() -> Fault,
                    Fault::lost_write,
                    Fault::stale_read,
                ])());
            }
            if rng.chance(0.1) {
                storage.inject(Fault::io_error(rng.pick(&[Call::Sync, Call::Write])));
            }
            let byte = u8::try_from(rng.below(256)).unwrap();
            let _ = extent.write_at(rng.below(14) * BLOCK, &filled(2, byte));
            if rng.chance(0.2) {
                let _ = extent.sync();
            }
        }
        let crashed = storage.crash(seed, CrashPolicy::Random).open(ONE).unwrap();
        let mut buf = filled(16, 0);
        let read = extent.read_at(0, &mut buf).map_err(|error| error.to_string());
        let size = crashed.size().unwrap();
        let content: Vec<_> = (0..size / BLOCK).map(|index| block(&*crashed, index)).collect();
        (read, buf.to_vec(), size, content, storage.calls(), storage.faults_struck())
    };
    let mut differing = 0;
    for seed in 0..20 {
        let first = run(seed);
        assert!(first == run(seed), "seed {seed}");
        differing += u64::from(first != run(seed + 1000));
    }
    assert_eq!(differing, 20);
}

/// Goal: threads may use it at once, and each one's synced writes survive. Method: four threads, a crash in the middle.
#[test]
fn threads_keep_the_promise_together() {
    let (storage, extent) = durable_disk(AtomicUnit::Sector);
    let synced: [AtomicU64; 4] = Default::default();
    storage.stop_at_call(storage.calls() + 300);
    std::thread::scope(|scope| {
        for (index, synced) in (0..4u64).zip(&synced) {
            let extent = &extent;
            scope.spawn(move || {
                for round in 2..=255u8 {
                    let write =
                        extent.write_at(index * BLOCK, &filled(1, round)).and_then(|()| extent.sync());
                    match write {
                        Ok(()) => synced.store(u64::from(round), Ordering::SeqCst),
                        Err(error) => {
                            assert!(is_simulated_stop(&error));
                            break;
                        }
                    }
                }
            });
        }
    });
    assert!(storage.is_stopped());
    let crashed = storage.crash(1, CrashPolicy::Random).open(ONE).unwrap();
    for (index, synced) in (0..4u64).zip(&synced) {
        let oldest = block(&*crashed, index).into_iter().min().unwrap();
        assert!(u64::from(oldest) >= synced.load(Ordering::SeqCst));
    }
}
