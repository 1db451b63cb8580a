//! Reads and writes at once: seven random reads of the newest state to three random writes, against the same mix on a raw file.

use super::{Bench, Measured, Ready, history::STORE};
use crate::{
    drive::{Limits, drive},
    error::{Context, Result, on_path},
    pages::Pages,
    probe::{MIXED_READS_IN_TEN, RANDOM_DEPTH, Rate},
    random::{Content, Random, block_offset},
};
use cdp_core::{
    OpenOptions, Store,
    io::{DirectoryOptions, DirectoryStorage},
    units::{BLOCK_BYTES, BLOCK_LEN},
};
use std::sync::Arc;

/// Most operations: what is written becomes part of the history that later scenarios use.
const OPERATIONS_MAX: u64 = 200_000;

pub fn random_70_30(bench: &mut Bench<'_>) -> Result<Ready> {
    bench.history()?;
    let path = bench.path(STORE)?;
    let storage = DirectoryStorage::open(&path, DirectoryOptions::default());
    let storage = storage.map_err(|error| on_path("open", &path, error))?;
    let store = Store::open(Arc::new(storage), OpenOptions::default()).when("open the store")?;
    let limits = Limits { time: bench.sizes.probe_time, operations: OPERATIONS_MAX };
    let seed = bench.seed ^ bench.round;
    Ready::new(move || {
        let runner = store.start_runner().when("start its threads")?;
        let volume = store.volume(None).when("find its volume")?;
        let driven = drive(RANDOM_DEPTH, limits, |stream| {
            let mut content = Content::new(seed, stream, BLOCK_LEN)?;
            let mut random = Random::new(seed, stream);
            let mut buffer = Pages::ordinary(BLOCK_LEN)?;
            let volume = volume.clone();
            Ok(move |_| {
                let offset = block_offset(&mut random, volume.bytes());
                if random.below(10) < MIXED_READS_IN_TEN {
                    volume.read(offset, &mut buffer).when("read the newest state")
                } else {
                    volume.write(offset, content.next()).when("write").map(drop)
                }
            })
        })?;
        volume.flush().when("flush")?;
        let seconds = driven.started.elapsed().as_secs_f64();
        drop((volume, runner));
        store.close().when("close")?;
        let bytes = driven.operations * BLOCK_BYTES;
        let rate = Rate { operations: driven.operations, bytes, seconds };
        Ok(Measured::new(rate).with_latencies(&driven.latencies))
    })
}
