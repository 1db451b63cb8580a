//! Repair of a copy of a mirror set by its dirty map: it was away while blocks were written, and gets those.

use super::{Bench, Measured, OWN_FILE, OWN_STORE, Ready};
use crate::{
    error::{Context, Error, Result, on_path},
    probe::{Rate, SEQUENTIAL_BYTES},
    random::Content,
};
use cdp_core::{
    mirror::{CreateMirror, FileCopy, MirrorSet, NewCopy, RepairOptions},
    units::BLOCK_BYTES,
};
use std::{ops::ControlFlow, sync::Arc, time::Instant};

/// Of so many parts of the volume, one is written while the copy is away.
const PARTS: u64 = 4;

/// The figure is the rate at which the map's blocks are read from both copies and written to one.
pub fn by_map(bench: &mut Bench<'_>) -> Result<Ready> {
    let bytes = (bench.sizes.volume_bytes / 2).next_multiple_of(SEQUENTIAL_BYTES as u64);
    let directory = bench.path(OWN_FILE)?;
    std::fs::create_dir(&directory).map_err(|error| on_path("create", &directory, error))?;
    let copy = |name: &str| {
        let path = directory.join(name);
        let copy = FileCopy::create(&path, bytes).map_err(|error| on_path("create", &path, error))?;
        Ok(NewCopy { locator: name.to_owned(), copy: Arc::new(copy) })
    };
    let copies = vec![copy("first")?, copy("second")?];
    let storage = bench.new_storage(OWN_STORE)?;
    let set = MirrorSet::create(storage, CreateMirror::new(bytes), copies).when("make a mirror set")?;
    write(&set, bench.seed ^ bench.round, 1)?;
    set.flush().when("flush a mirror set")?;
    set.offline(1).when("take a copy offline")?;
    write(&set, !(bench.seed ^ bench.round), PARTS)?;
    set.flush().when("flush a mirror set")?;
    set.online(1, None).when("bring a copy online")?;
    let dirty = set.status().copies.iter().map(|copy| copy.dirty_bytes).max().unwrap_or_default();
    Ready::new(move || {
        let started = Instant::now();
        let mut go_on = |_| ControlFlow::Continue(());
        let repaired = set.repair(RepairOptions::default(), &mut go_on).when("repair a copy")?;
        let seconds = started.elapsed().as_secs_f64();
        if repaired.bytes_left != 0 || repaired.bytes_written == 0 {
            return Err(Error::Usage(format!("a repair left a copy different: {repaired:?}")));
        }
        set.close().when("close a mirror set")?;
        let written = repaired.bytes_written;
        Ok(Measured::new(Rate { operations: written / BLOCK_BYTES, bytes: written, seconds })
            .with("dirty_mib", dirty as f64 / f64::from(1 << 20))
            .with("compared_mib", repaired.bytes_compared as f64 / f64::from(1 << 20)))
    })
}

/// Writes the first of each `parts` mebibytes.
fn write(set: &MirrorSet, seed: u64, parts: u64) -> Result<()> {
    let mut content = Content::new(seed, 0, SEQUENTIAL_BYTES)?;
    let step = SEQUENTIAL_BYTES * usize::try_from(parts).unwrap_or(1);
    for offset in (0..set.bytes()).step_by(step) {
        set.write(offset, content.next()).when("write to a mirror set")?;
    }
    Ok(())
}
