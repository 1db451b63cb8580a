//! The wire form of a dirty map, and a map file.

use crate::pages::seal;
use cdp_core::{
    dirty_map::{Base, ByteRange, DirtyMap, Granularity, MapFile, MapFileOptions, Shape, wire},
    format::{PAGE_LEN, Uuid},
    io::{AlignedBuf, MemoryStorage, Storage},
    units::ExtentId,
};

const DEVICE: Uuid = Uuid([5; 16]);
const EXTENT: ExtentId = ExtentId::new(1);
/// Two chunks and a partial one; more than four map pages.
const VOLUME_BYTES: u64 = 140_000 * 4096 - 512;
/// Header, ring and the first map page.
const HEAD_PAGES: usize = 5;

fn base() -> Base {
    Base {
        device: DEVICE,
        generation: 1,
        shape: Shape::new(VOLUME_BYTES, Granularity::MIN).expect("a good shape"),
    }
}

fn map(ranges: &[(u64, u64)]) -> DirtyMap {
    let map = DirtyMap::new(VOLUME_BYTES, Granularity::MIN).expect("memory");
    ranges.iter().for_each(|(offset, bytes)| map.set(ByteRange::new(*offset, *bytes)));
    map
}

/// The input is a map: as it stands, and with a right length and checksum.
pub fn wire(data: &[u8]) {
    let _ = wire::decode(data, base());
    let Ok(found) = wire::base_of(data) else { return };
    if data.len() < 64 || found.shape.blocks() > 1 << 24 {
        return;
    }
    let mut bytes = data.to_vec();
    let len = u64::try_from(bytes.len() - 64).expect("inputs are small");
    bytes[56..64].copy_from_slice(&len.to_le_bytes());
    seal(&mut bytes, 8);
    let Ok(map) = wire::decode(&bytes, found) else { return };
    assert_eq!(wire::encode(&map, found), bytes, "one form");
}

pub fn wire_seeds() -> Vec<Vec<u8>> {
    let scattered: Vec<(u64, u64)> = (0..500).map(|at| (at * at * 4096, 4096 * (1 + at % 3))).collect();
    [&[][..], &[(0, VOLUME_BYTES)], &[(0, 65_536 * 4096), (VOLUME_BYTES - 1, 1)], &scattered]
        .iter()
        .map(|ranges| wire::encode(&map(ranges), base()))
        .collect()
}

/// The input lies over the first pages of a map file; each sector of header and ring gets a right checksum.
pub fn file(data: &[u8]) {
    let storage = MemoryStorage::new();
    let options = MapFileOptions { ring_records: 2, ..MapFileOptions::default() };
    let extent = storage.create(EXTENT, 0).expect("memory");
    let set = ByteRange::new(1 << 20, 4096);
    MapFile::create(extent.clone(), DEVICE, 1, map(&[(set.offset, set.bytes)]), options).expect("a map file");
    let mut head = AlignedBuf::new(HEAD_PAGES * PAGE_LEN).expect("memory");
    extent.read_at(0, &mut head).expect("memory does not fail");
    let len = data.len().min(head.len());
    head[..len].copy_from_slice(&data[..len]);
    for (sector, bytes) in head[..4 * PAGE_LEN].chunks_mut(512).enumerate() {
        let at = if sector < 16 { 8 } else { 4 };
        let mut sealed = bytes.to_vec();
        seal(&mut sealed, at);
        bytes.copy_from_slice(&sealed);
    }
    extent.write_at(0, &head).expect("memory does not fail");
    let Ok((file, _)) = MapFile::open(extent.clone(), base(), options) else { return };
    let pin = file.begin_write(ByteRange::new(0, 512)).expect("memory does not fail");
    pin.done(false);
    file.save_clean().expect("nothing is in flight");
    let claim: Vec<ByteRange> = file.map().extents().collect();
    let (again, opened) = MapFile::open(extent, base(), options).expect("it was closed");
    assert!(opened.clean && again.map().extents().eq(claim), "exact across a clean close");
}

pub fn file_seeds() -> Vec<Vec<u8>> {
    let storage = MemoryStorage::new();
    let options = MapFileOptions { ring_records: 2, ..MapFileOptions::default() };
    let extent = storage.create(EXTENT, 0).expect("memory");
    let file = MapFile::create(extent.clone(), DEVICE, 1, map(&[]), options).expect("a map file");
    file.begin_write(ByteRange::new(9 << 20, 512)).expect("memory does not fail").done(false);
    let mut head = AlignedBuf::new(HEAD_PAGES * PAGE_LEN).expect("memory");
    extent.read_at(0, &mut head).expect("memory does not fail");
    vec![head.to_vec(), head[..2 * PAGE_LEN].to_vec()]
}
