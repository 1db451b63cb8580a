//! Resync by digests of a volume that is equal to its source: how fast a source is compared without its writes having been seen. And by
//! map: how fast what the host knows to differ is taken over.

use super::{Bench, Measured, OWN_FILE, OWN_STORE, Ready};
use crate::{
    direct::DirectFile,
    error::{Context, Error, Result},
    probe::{Rate, SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH},
    random::Content,
};
use cdp_core::{
    CreateOptions, OpenOptions, ResyncMode, ResyncOptions, SourceReader, SourceState, Store, TapOptions,
    dirty_map::ByteRange,
};
use std::{io, sync::Arc, time::Instant};

/// Of so many parts of the source, one differs where it is resynced by map.
const PARTS: u64 = 4;

/// The source: a file that is read past the page cache.
struct Source(DirectFile);

impl SourceReader for Source {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, buf).map_err(io::Error::other)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync().map_err(io::Error::other)
    }
}

/// A store and a source of its size that are equal.
fn pair(bench: &mut Bench<'_>) -> Result<(Store, DirectFile)> {
    let bytes = bench.sizes.volume_bytes;
    let storage = bench.new_storage(OWN_STORE)?;
    let create = CreateOptions { volume: "disk".into(), bytes };
    let store = Store::create(storage, &create, OpenOptions::default()).when("make a store")?;
    let file = DirectFile::create(&bench.path(OWN_FILE)?, bytes)?;
    let volume = store.volume(None).when("find its volume")?;
    let mut content = Content::new(bench.seed ^ bench.round, 0, SEQUENTIAL_BYTES)?;
    for offset in (0..bytes).step_by(SEQUENTIAL_BYTES) {
        let data = content.next();
        file.write(offset, data)?;
        volume.write(offset, data).when("write")?;
    }
    file.sync()?;
    store.flush().when("flush")?;
    Ok((store, file))
}

/// The figure is the rate at which what a map names is read from the source, compared and taken over.
pub fn by_map(bench: &mut Bench<'_>) -> Result<Ready> {
    let (store, file) = pair(bench)?;
    let mut content = Content::new(!(bench.seed ^ bench.round), 1, SEQUENTIAL_BYTES)?;
    let step = SEQUENTIAL_BYTES * usize::try_from(PARTS).unwrap_or(1);
    let mut ranges = Vec::new();
    for offset in (0..bench.sizes.volume_bytes).step_by(step) {
        file.write(offset, content.next())?;
        ranges.push(ByteRange::new(offset, SEQUENTIAL_BYTES as u64));
    }
    file.sync()?;
    let source = Arc::new(Source(file));
    let changed = ranges.len() as u64 * SEQUENTIAL_BYTES as u64;
    Ready::new(move || {
        let runner = store.start_runner().when("start its threads")?;
        let started = Instant::now();
        let options = TapOptions { source: SourceState::Differs(ranges), ..TapOptions::default() };
        let tap = store.tap("disk", source, options).when("tap a volume")?;
        let options =
            ResyncOptions { mode: ResyncMode::Map, readers: SEQUENTIAL_DEPTH, ..ResyncOptions::default() };
        let report = tap.resync(&options, &mut |_| (), &|| false).when("resync")?;
        store.flush().when("flush")?;
        let seconds = started.elapsed().as_secs_f64();
        let counts = report.counts;
        if counts.bytes_different != changed || report.bytes_left != 0 {
            let text = format!("{changed} bytes differ, and a resync by map found {counts:?}");
            return Err(Error::Usage(text));
        }
        tap.detach().when("end a tap")?;
        drop(runner);
        store.close().when("close")?;
        let rate = Rate { operations: changed / SEQUENTIAL_BYTES as u64, bytes: changed, seconds };
        Ok(Measured::new(rate).with("store_bytes_read", counts.store_bytes_read as f64))
    })
}

pub fn equal(bench: &mut Bench<'_>) -> Result<Ready> {
    let (store, file) = pair(bench)?;
    let source = Arc::new(Source(file));
    Ready::new(move || {
        let options = ResyncOptions { readers: SEQUENTIAL_DEPTH, ..ResyncOptions::default() };
        let report = store.resync_from(None, source, &options, &mut |_| (), &|| false).when("resync")?;
        let counts = report.counts;
        if (counts.bytes_different, counts.store_bytes_read) != (0, 0) {
            return Err(Error::Usage(format!("equal volumes were found to differ: {counts:?}")));
        }
        let operations = counts.bytes_compared / SEQUENTIAL_BYTES as u64;
        let rate = Rate { operations, bytes: counts.source_bytes_read, seconds: report.seconds };
        store.close().when("close")?;
        Ok(Measured::new(rate))
    })
}
