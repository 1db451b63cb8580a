//! Seed sets: manifests, heads of data files, batches.

use crate::pages::{page_of, seal};
use cdp_core::{
    dirty_map::ByteRange,
    format::{PAGE_LEN, Uuid},
    seed::layout::{
        BATCH_HEAD_LEN, BATCH_LEN_MAX, BatchHead, SeedAbout, SeedFile, SeedManifest, SeedState,
        decode_file_head, digest, encode_batch, encode_file_head,
    },
    units::{Lineage, Seq, TimeNs, VolumeId},
};

const SET: Uuid = Uuid([6; 16]);
const VOLUME_BYTES: u64 = 1 << 30;

/// The input is a plan or manifest: as it stands, and padded, with a right length and checksum.
pub fn manifest(data: &[u8]) {
    let _ = SeedManifest::decode(data);
    let mut bytes = data.to_vec();
    if bytes.len() < 24 {
        return;
    }
    let len = u32::try_from(bytes.len()).expect("inputs are small");
    bytes[16..20].copy_from_slice(&len.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(PAGE_LEN), 0);
    seal(&mut bytes, 8);
    let Ok(manifest) = SeedManifest::decode(&bytes) else { return };
    assert_eq!(manifest.encode(), bytes, "one form");
}

/// The input is the head of a data file: of any set, and with a right checksum.
pub fn file_head(data: &[u8]) {
    let _ = decode_file_head(data, SET, 0, VOLUME_BYTES);
    let mut page = page_of(data);
    page[16..32].copy_from_slice(&SET.0);
    seal(&mut page, 8);
    let number = u32::from_le_bytes(page[32..36].try_into().expect("four bytes"));
    let Ok(file) = decode_file_head(&page, SET, number, VOLUME_BYTES) else { return };
    assert_eq!(encode_file_head(SET, number, &file), page, "one form");
}

/// The input is a batch: as it stands, and with right digests.
pub fn batch(data: &[u8]) {
    let _ = BatchHead::decode(data).and_then(|head| head.unpack(data));
    if data.len() < BATCH_HEAD_LEN {
        return;
    }
    let mut bytes = data[..data.len().min(BATCH_LEN_MAX)].to_vec();
    bytes.resize(bytes.len().next_multiple_of(PAGE_LEN), 0);
    let body = digest(&bytes[BATCH_HEAD_LEN..]);
    bytes[64..80].copy_from_slice(&body.to_le_bytes());
    seal(&mut bytes[..BATCH_HEAD_LEN], 4);
    let Ok(head) = BatchHead::decode(&bytes) else { return };
    let Ok(batch) = head.unpack(&bytes) else { return };
    let mut next = head.first;
    for extent in &batch.extents {
        assert!(extent.range.offset >= next && extent.range.end() <= head.end, "in order");
        let data = batch.data(extent);
        assert!(data.is_none_or(|data| data.len() as u64 == extent.range.bytes));
        next = extent.range.end();
    }
}

fn about(since: bool) -> SeedAbout {
    let state = |seq| SeedState {
        lineage: Lineage::new(1),
        seq: Seq::new(seq),
        time: TimeNs::new(seq),
        bytes: VOLUME_BYTES,
    };
    let (store, volume, at, since) = (Uuid([3; 16]), VolumeId::ZERO, state(9), since.then(|| state(4)));
    SeedAbout { set: SET, store, volume, name: "disk".into(), at, since, file_bytes_max: 256 << 20 }
}

fn file() -> SeedFile {
    SeedFile { nonce: 7, bytes: 8192, first: 4096, end: 12_288, batches: 1, digest: 5 }
}

pub fn manifest_seeds() -> Vec<Vec<u8>> {
    let of = |since, files| {
        let bytes = SeedManifest { about: about(since), files }.encode();
        let len = u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes"));
        bytes[..usize::try_from(len).expect("small")].to_vec()
    };
    vec![of(false, None), of(true, None), of(false, Some(vec![])), of(true, Some(vec![file()]))]
}

pub fn file_head_seeds() -> Vec<Vec<u8>> {
    vec![crate::pages::trimmed(&encode_file_head(SET, 0, &file()))]
}

pub fn batch_seeds() -> Vec<Vec<u8>> {
    let zeroes = [(ByteRange::new(0, 512), true), (ByteRange::new(8192, 1 << 20), true)];
    let mixed = [
        (ByteRange::new(4096, 4096), false),
        (ByteRange::new(8192, 512), true),
        (ByteRange::new(9216, 512), false),
    ];
    vec![
        encode_batch(1, 0, &zeroes, &[], true),
        encode_batch(1, 1, &mixed, &[5; 4608], true),
        encode_batch(1, 2, &mixed, &(0..4608u32).map(|at| (at * at >> 3) as u8).collect::<Vec<_>>(), false),
    ]
}
