//! Packing: a volume exported as a seed set with lz4, against the codec alone in one thread on the same bytes. Nothing else of the engine packs.

use super::{Bench, Measured, OWN_FILE, OWN_STORE, Ready};
use crate::{
    error::{Context, Error, Result, on_path},
    probe::{Rate, SEQUENTIAL_BYTES},
    random::Content,
};
use cdp_core::{
    CreateOptions, ExportOptions, OpenOptions, Store,
    io::{DirectoryOptions, DirectoryStorage},
};
use std::{hint::black_box, ops::ControlFlow, time::Instant};

/// Of so many bytes that follow each other, the second half is zeroes: what packs to a little more than half.
const GRAIN: usize = 128;

/// The figure is how many bytes of the volume are read, packed and written a second.
pub fn lz4(bench: &mut Bench<'_>) -> Result<Ready> {
    let bytes = (bench.sizes.volume_bytes / 4).next_multiple_of(SEQUENTIAL_BYTES as u64);
    let create = CreateOptions { volume: "disk".into(), bytes };
    let store = Store::create(bench.new_storage(OWN_STORE)?, &create, OpenOptions::default());
    let store = store.when("create a store")?;
    let seed = bench.seed ^ bench.round;
    let volume = store.volume(None).when("find its volume")?;
    let mut content = Content::new(seed, 0, SEQUENTIAL_BYTES)?;
    for offset in (0..bytes).step_by(SEQUENTIAL_BYTES) {
        volume.write(offset, &half(content.next())).when("write")?;
    }
    let at = volume.flush().when("flush")?;
    let path = bench.path(OWN_FILE)?;
    let target = DirectoryStorage::create(&path, DirectoryOptions::default());
    let target = target.map_err(|error| on_path("create a seed set in", &path, error))?;
    let how = "lz4 of the same bytes in memory, 1 MiB at a time, one thread";
    Ready::between(
        how,
        move || pack(bytes, seed),
        move || {
            let started = Instant::now();
            let mut go_on = |_| ControlFlow::Continue(());
            let exported =
                volume.export(at, &target, &ExportOptions::default(), &mut go_on).when("export")?;
            let seconds = started.elapsed().as_secs_f64();
            if !exported.complete || exported.data_bytes != bytes {
                return Err(Error::Usage(format!("an export left something out: {exported:?}")));
            }
            drop(volume);
            store.close().when("close")?;
            let rate = Rate { operations: bytes / SEQUENTIAL_BYTES as u64, bytes, seconds };
            Ok(Measured::new(rate).with("packed_share", exported.stored_bytes as f64 / bytes as f64))
        },
    )
}

/// `data` with zeroes in it.
fn half(data: &[u8]) -> Vec<u8> {
    let mut half = data.to_vec();
    half.chunks_exact_mut(GRAIN).for_each(|grain| grain[GRAIN / 2..].fill(0));
    half
}

fn pack(bytes: u64, seed: u64) -> Result<Measured> {
    let mut content = Content::new(seed, 0, SEQUENTIAL_BYTES)?;
    let mut spent = std::time::Duration::ZERO;
    for _ in (0..bytes).step_by(SEQUENTIAL_BYTES) {
        let data = half(content.next());
        let started = Instant::now();
        black_box(lz4_flex::block::compress(black_box(&data)));
        spent += started.elapsed();
    }
    let operations = bytes / SEQUENTIAL_BYTES as u64;
    Ok(Measured::new(Rate { operations, bytes, seconds: spent.as_secs_f64().max(1e-9) }))
}
