//! The map of what differs outlives its tap, and comes in from outside.

use crate::source::{BLOCK, Source, block, newest, options, store, store_with, wait_whole};
use cdp_core::{
    Captured, Error, GapReason, SourceState, Store, Tap, TapOptions,
    dirty_map::{ByteRange, wire},
    event::EventKind,
    format::Uuid,
    io::{AlignedBuf, MemoryStorage, Storage},
    units::ExtentId,
};
use std::sync::Arc;

const BLOCKS: usize = 2048;
const BYTES: usize = BLOCKS * BLOCK;

fn with(source: SourceState) -> TapOptions {
    TapOptions { source, pool_frames: 4, ..TapOptions::default() }
}

fn blocks(numbers: &[usize]) -> Vec<ByteRange> {
    numbers.iter().map(|number| ByteRange::new((number * BLOCK) as u64, BLOCK as u64)).collect()
}

/// Writes to the source and hands the write to the tap.
fn write(source: &Source, tap: &Tap, number: usize, version: u64) -> Captured {
    let data = block(number, version);
    source.write(number * BLOCK, &data);
    tap.capture((number * BLOCK) as u64, &data).unwrap()
}

fn heal(store: &Store, tap: &Tap) {
    while !tap.is_whole() {
        store.step(Default::default()).unwrap();
    }
}

/// Goal: a tap that ends while blocks differ leaves exactly these to the next one, by detach or by closing the store, and also when the
/// next one has another granularity; nothing else of the source is read. Method: a suspended tap, each way to end, then a resync that is counted.
#[test]
fn the_next_tap_begins_with_exactly_what_differed() {
    for close_only in [false, true] {
        for granularity in [None, Some(64 << 10)] {
            let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
            let store = store_with(storage.clone(), BYTES);
            let source = Source::new(BYTES);
            let tap = store.tap("disk", source.clone(), with(SourceState::Equal)).unwrap();
            assert_eq!(write(&source, &tap, 3, 1), Captured::Whole);
            tap.suspend();
            for number in [5, 6, 900, BLOCKS - 1] {
                assert_eq!(write(&source, &tap, number, 2), Captured::Marked);
            }
            let expected = tap.dirty_extents();
            assert_eq!(expected.iter().map(|range| range.bytes).sum::<u64>(), 4 * BLOCK as u64);
            if !close_only {
                tap.clone().detach().unwrap();
            }
            store.close().unwrap();
            assert!(tap.capture(0, &[1; 512]).is_err(), "the tap has ended");
            drop(tap);
            let store = Store::open(storage.clone(), options()).unwrap();
            let options = TapOptions { granularity, ..with(SourceState::AsRecorded) };
            let tap = store.tap("disk", source.clone(), options).unwrap();
            match granularity {
                None => assert_eq!(tap.dirty_extents(), expected),
                Some(bytes) => {
                    let touched = [0, 900 * BLOCK as u64 / bytes * bytes, BYTES as u64 - bytes];
                    assert_eq!(tap.dirty_extents(), touched.map(|offset| ByteRange::new(offset, bytes)));
                }
            }
            heal(&store, &tap);
            let read = tap.stats().resync.source_bytes_read;
            assert!(read <= 3 * granularity.unwrap_or(2 * BLOCK as u64), "{read} bytes were read");
            assert!(newest(&store, "disk") == source.image());
            // Healed, it leaves no map behind.
            tap.detach().unwrap();
            store.close().unwrap();
            let store = Store::open(storage, crate::source::options()).unwrap();
            let tap = store.tap("disk", source, with(SourceState::AsRecorded)).unwrap();
            assert!(tap.is_whole());
        }
    }
}

/// Goal: a map survives neither an unclean end nor a statement that contradicts it. Method: after a clean end with a difference, each of them.
#[test]
fn a_map_is_not_believed_against_the_record_or_the_host() {
    let everything = [ByteRange::new(0, BYTES as u64)];
    for case in 0..3 {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let store = store_with(storage.clone(), BYTES);
        let source = Source::new(BYTES);
        let tap = store.tap("disk", source.clone(), with(SourceState::Equal)).unwrap();
        tap.suspend();
        write(&source, &tap, 5, 1);
        tap.detach().unwrap();
        let said = match case {
            0 => SourceState::Equal,
            1 => SourceState::Unknown,
            _ => {
                // A tap without an activity log begins, and never ends.
                drop(store.tap("disk", source.clone(), with(SourceState::AsRecorded)).unwrap());
                SourceState::AsRecorded
            }
        };
        drop(store);
        let store = Store::open(storage, options()).unwrap();
        let tap = store.tap("disk", source.clone(), with(said)).unwrap();
        assert_eq!(tap.dirty_extents(), everything, "case {case}");
        heal(&store, &tap);
        assert!(newest(&store, "disk") == source.image());
    }
}

/// Goal: a volume that was written inline after its tap ended has left its source: everything is compared. Method: after an equal end and
/// after one with a map; crash and clean close.
#[test]
fn an_inline_write_ends_what_was_known_of_the_source() {
    for (differs, crash) in [(false, false), (true, false), (true, true)] {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let store = store_with(storage.clone(), BYTES);
        let source = Source::new(BYTES);
        let tap = store.tap("disk", source.clone(), with(SourceState::Equal)).unwrap();
        if differs {
            tap.suspend();
            write(&source, &tap, 5, 1);
        }
        assert!(store.volume(None).unwrap().write(0, &[9; 512]).is_err(), "a tap captures it");
        tap.detach().unwrap();
        store.volume(None).unwrap().write(77 * BLOCK as u64, &[9; 512]).unwrap();
        store.flush().unwrap();
        if crash {
            drop(store);
        } else {
            store.close().unwrap();
        }
        let store = Store::open(storage, options()).unwrap();
        let tap = store.tap("disk", source.clone(), with(SourceState::AsRecorded)).unwrap();
        assert_eq!(tap.dirty_extents(), [ByteRange::new(0, BYTES as u64)]);
        heal(&store, &tap);
        assert!(newest(&store, "disk") == source.image());
    }
}

/// The extent that holds a map file.
fn map_extent(storage: &dyn Storage) -> ExtentId {
    let is_map = |id: &ExtentId| {
        let mut page = AlignedBuf::new(4096).unwrap();
        let extent = storage.open(*id).unwrap();
        extent.read_at(0, &mut page[..4096]).is_ok() && page.starts_with(b"CDPMAPHD")
    };
    let found: Vec<ExtentId> = storage.list().unwrap().into_iter().filter(is_map).collect();
    assert_eq!(found.len(), 1, "one map: {found:?}");
    found[0]
}

/// Goal: a map that is missing, damaged or of another base is not believed, and the host is told. Method: each of them done to the extent;
/// the foreign map is that of another store.
#[test]
fn a_map_that_is_not_the_one_recorded_means_everything() {
    let ended = || {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let store = store_with(storage.clone(), BYTES);
        let source = Source::new(BYTES);
        let tap = store.tap("disk", source.clone(), with(SourceState::Equal)).unwrap();
        tap.suspend();
        write(&source, &tap, 5, 1);
        tap.detach().unwrap();
        store.close().unwrap();
        (storage, source)
    };
    for case in 0..3 {
        let (storage, source) = ended();
        let id = map_extent(&*storage);
        let extent = storage.open(id).unwrap();
        match case {
            0 => storage.remove(id).unwrap(),
            1 => {
                let zeroes = AlignedBuf::new(8192).unwrap();
                extent.write_at(0, &zeroes[..8192]).unwrap();
            }
            _ => {
                let (other, _) = ended();
                let foreign = other.open(map_extent(&*other)).unwrap();
                let bytes = usize::try_from(foreign.size().unwrap()).unwrap();
                let mut buffer = AlignedBuf::new(bytes).unwrap();
                foreign.read_at(0, &mut buffer[..bytes]).unwrap();
                extent.write_at(0, &buffer[..bytes]).unwrap();
            }
        }
        let store = Store::open(storage, options()).unwrap();
        let tap = store.tap("disk", source.clone(), with(SourceState::AsRecorded)).unwrap();
        assert_eq!(tap.dirty_extents(), [ByteRange::new(0, BYTES as u64)], "case {case}");
        let told =
            store.take_events().0.into_iter().any(|event| matches!(event.kind, EventKind::MapNotUsed { .. }));
        assert!(told, "case {case}");
        heal(&store, &tap);
        assert!(newest(&store, "disk") == source.image());
    }
}

/// Goal: the host's own tracking of changed blocks bounds what is compared, after a clean end and for a volume that never had a tap.
/// Method: changes while no tap watches, told as ranges; reads of the source are counted.
#[test]
fn changes_that_the_host_tracked_are_all_that_is_compared() {
    let store = store(BYTES);
    let source = Source::new(BYTES);
    source.write(8 * BLOCK, &block(8, 1));
    let first = SourceState::Differs(vec![ByteRange::new(8 * BLOCK as u64 + 100, 7)]);
    let tap = store.tap("disk", source.clone(), with(first)).unwrap();
    assert_eq!(tap.dirty_extents(), blocks(&[8]), "ranges round outward");
    heal(&store, &tap);
    assert_eq!(store.timeline().unwrap().gaps[0].reason, "initial");
    tap.suspend();
    write(&source, &tap, 20, 2);
    tap.detach().unwrap();
    source.write(300 * BLOCK, &block(300, 3));
    let changed = SourceState::Differs(blocks(&[300]));
    let tap = store.tap("disk", source.clone(), with(changed)).unwrap();
    assert_eq!(tap.dirty_extents(), blocks(&[20, 300]), "they come on top of what was recorded");
    heal(&store, &tap);
    assert_eq!(tap.stats().resync.source_bytes_read, 2 * BLOCK as u64);
    assert!(newest(&store, "disk") == source.image());
    tap.detach().unwrap();
    let tap = store.tap("disk", source.clone(), with(SourceState::Differs(Vec::new()))).unwrap();
    assert!(tap.is_whole(), "nothing was changed");
    tap.detach().unwrap();
    let outside = SourceState::Differs(vec![ByteRange::new(BYTES as u64 - 1, 2)]);
    assert!(matches!(store.tap("disk", source, with(outside)), Err(Error::OutOfRange { .. })));
}

/// Goal: ranges and maps of others can be marked at any time, and what a tap claims can be given to others. Method: a running tap, its map
/// as bytes into another tap of another granularity; refused input marks nothing.
#[test]
fn maps_go_out_and_come_in() {
    let store = store(BYTES);
    store.add_volume("b", BYTES as u64).unwrap();
    let _runner = store.start_runner().unwrap();
    let (source, other) = (Source::new(BYTES), Source::new(BYTES));
    let tap = store.tap("disk", source.clone(), with(SourceState::Equal)).unwrap();
    let coarse = TapOptions { granularity: Some(64 << 10), ..with(SourceState::Equal) };
    let second = store.tap("b", other.clone(), coarse).unwrap();
    second.suspend();
    tap.suspend();
    source.write(7 * BLOCK, &block(7, 1));
    tap.mark_extents(&blocks(&[7, 40]), GapReason::Host).unwrap();
    assert_eq!(tap.dirty_extents(), blocks(&[7, 40]));
    let (device, generation) = (Uuid([7; 16]), 12);
    let bytes = tap.dirty_map(device, generation);
    assert_eq!(wire::base_of(&bytes).unwrap().generation, generation);
    for (bytes, device, generation) in
        [(&bytes[..bytes.len() - 1], device, generation), (&bytes, device, 13), (&bytes, Uuid([8; 16]), 12)]
    {
        let refused = second.mark_map(bytes, device, generation, GapReason::Host);
        assert!(matches!(refused, Err(Error::MapRefused(_))));
    }
    let outside = tap.mark_extents(&[ByteRange::new(0, 1), ByteRange::new(u64::MAX, 2)], GapReason::Host);
    assert!(matches!(outside, Err(Error::OutOfRange { .. })));
    assert!(second.dirty_extents().is_empty() && tap.dirty_extents() == blocks(&[7, 40]));
    second.mark_map(&bytes, device, generation, GapReason::Host).unwrap();
    assert_eq!(second.dirty_extents(), [ByteRange::new(0, 64 << 10), ByteRange::new(128 << 10, 64 << 10)]);
    tap.resume();
    second.resume();
    wait_whole(&tap);
    wait_whole(&second);
    assert!(newest(&store, "disk") == source.image() && newest(&store, "b") == other.image());
    let gaps = store.timeline().unwrap().gaps;
    assert!(gaps.len() == 2 && gaps.iter().all(|gap| gap.reason == "host"), "{gaps:?}");
}

/// Goal: a check names whatever is wrong with a map that outlives its tap, and reports nothing that is not there. Method: each sector of the map in
/// turn is harmed, at a random place, on a store at rest; the map is cut; the map is removed.
#[test]
fn a_check_finds_harm_in_a_map() {
    let storage = Arc::new(MemoryStorage::new());
    let store = store_with(storage.clone(), BYTES);
    let source = Source::new(BYTES);
    let tap = store.tap("disk", source.clone(), with(SourceState::Equal)).unwrap();
    tap.suspend();
    write(&source, &tap, 900, 1);
    tap.detach().unwrap();
    store.close().unwrap();
    let read = |extent: ExtentId| {
        let handle = storage.open(extent).unwrap();
        let mut bytes = AlignedBuf::new(usize::try_from(handle.size().unwrap()).unwrap()).unwrap();
        handle.read_at(0, &mut bytes).unwrap();
        bytes
    };
    let extents = storage.list().unwrap();
    let map = *extents.iter().find(|extent| read(**extent).starts_with(b"CDPMAPHD")).expect("a map");
    let report = || {
        let store = Store::open_read_only(storage.clone(), options()).unwrap();
        store.check(false, &mut |_| {}).unwrap().damaged
    };
    assert_eq!(report(), []);
    let good = read(map);
    let handle = storage.open(map).unwrap();
    for (sector, at) in (0..good.len()).step_by(512).enumerate() {
        let at = at + sector * 37 % 512;
        let mut bad = read(map);
        bad[at] ^= 1 << (sector % 8);
        handle.write_at(0, &bad).unwrap();
        let found = report();
        handle.write_at(0, &good).unwrap();
        let covers = |damage: &cdp_core::Damage| {
            damage.extent == map && (damage.offset..damage.offset + damage.length).contains(&(at as u64))
        };
        assert!(found.len() == 1 && covers(&found[0]), "byte {at} of {}: {found:?}", good.len());
    }
    assert_eq!(report(), []);
    handle.set_size(good.len() as u64 - 4096).unwrap();
    assert_eq!(report().len(), 1);
    storage.remove(map).unwrap();
    assert_eq!(report().len(), 1);
}
