//! Resync of volumes that are resized.

use crate::support::{
    BLOCK, Disk, Random, create, fill_both, image_at, memory, newest, open_options, resync,
};
use cdp_core::{Error, ResyncMode, SourceState, Store, TapOptions};

/// Goal: the size belongs to the point, what was cut off reads as zeroes when it is there again, and the source's map follows. Method: shrink and grow
/// between writes, each point, after a crash too; a resync by map after the volume has grown.
#[test]
fn a_size_belongs_to_the_point() {
    let mut random = Random::for_test("a_size_belongs_to_the_point");
    let storage = memory();
    let mut store = create(&storage, 64 * BLOCK);
    let disk = Disk::new(64 * BLOCK);
    fill_both(&mut random, &store, &disk, 64);
    resync(&store, &disk, ResyncMode::Digest);
    let volume = store.volume(None).unwrap();
    let data = random.block();
    disk.write(63 * BLOCK, &data);
    resync(&store, &disk, ResyncMode::Digest);
    let whole = (store.newest(), newest(&store));
    let cut = store.resize_volume("disk", 20 * BLOCK as u64 + 512).unwrap().unwrap();
    assert_eq!((cut.seq, cut.time), (whole.0.seq.next(), whole.0.time), "it takes one seq and no time");
    assert_eq!(store.resize_volume("disk", 20 * BLOCK as u64 + 512).unwrap(), None);
    assert_eq!(volume.bytes(), 20 * BLOCK as u64 + 512, "an older handle knows");
    let past = volume.write(63 * BLOCK as u64, &data);
    assert!(matches!(past, Err(Error::OutOfRange { .. })), "{past:?}");
    let shrunk = newest(&store);
    let grown = store.resize_volume("disk", 80 * BLOCK as u64).unwrap().unwrap();
    volume.write(79 * BLOCK as u64, &data).unwrap();
    let mut expected = shrunk.clone();
    expected.resize(79 * BLOCK, 0);
    expected.extend_from_slice(&data);
    drop(volume);
    store.flush().unwrap();
    for crash in [false, true] {
        if crash {
            drop(store);
            store = Store::open(storage.clone(), open_options()).unwrap();
        }
        assert!(newest(&store) == expected, "crash: {crash}");
        assert!(image_at(&store, whole.0.seq) == whole.1);
        assert!(image_at(&store, cut.seq) == shrunk);
        assert_eq!(image_at(&store, grown.seq).len(), 80 * BLOCK);
        assert_eq!(store.timeline().unwrap().volumes[0].bytes, 80 * BLOCK as u64);
        assert_eq!(store.volume(None).unwrap().bytes_at(cut.seq), 20 * BLOCK as u64 + 512);
    }
    // The map of the source follows: only what is new is compared.
    let store = create(&memory(), 64 * BLOCK);
    let disk = Disk::device(64 * BLOCK);
    fill_both(&mut random, &store, &disk, 64);
    resync(&store, &disk, ResyncMode::Digest);
    disk.resize(96 * BLOCK);
    disk.write(90 * BLOCK, &data);
    store.resize_volume("disk", 96 * BLOCK as u64).unwrap();
    disk.take_read();
    let report = resync(&store, &disk, ResyncMode::Map);
    assert_eq!(
        (report.mode, report.counts.bytes_compared),
        (ResyncMode::Map, 32 * BLOCK as u64),
        "{report:?}"
    );
    assert!(newest(&store) == disk.image());
    let tap = store
        .tap("disk", disk.clone(), TapOptions { source: SourceState::Equal, ..TapOptions::default() })
        .unwrap();
    assert!(matches!(store.resize_volume("disk", 512), Err(Error::InvalidArgument(_))), "a tap is at work");
    tap.detach().unwrap();
    store.resize_volume("disk", 512).unwrap();
    assert_eq!(newest(&store), disk.image()[..512]);
}
