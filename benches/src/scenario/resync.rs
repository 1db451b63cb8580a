//! Resync by digests of a volume that is equal to its source: how fast a source is compared without its writes having been seen.

use super::{Bench, Measured, OWN_FILE, OWN_STORE, Ready};
use crate::{
    direct::DirectFile,
    error::{Context, Error, Result},
    probe::{Rate, SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH},
    random::Content,
};
use cdp_core::{CreateOptions, OpenOptions, ResyncOptions, SourceReader, Store};
use std::{io, sync::Arc};

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

pub fn equal(bench: &mut Bench<'_>) -> Result<Ready> {
    let bytes = bench.sizes.volume_bytes;
    let storage = bench.new_storage(OWN_STORE)?;
    let create = CreateOptions { volume: "disk".into(), bytes };
    let store = Store::create(storage, &create, OpenOptions::default()).when("make a store")?;
    let file = DirectFile::create(&bench.scratch.join(OWN_FILE), bytes)?;
    let volume = store.volume(None).when("find its volume")?;
    let mut content = Content::new(bench.seed ^ bench.round, 0, SEQUENTIAL_BYTES)?;
    for offset in (0..bytes).step_by(SEQUENTIAL_BYTES) {
        let data = content.next();
        file.write(offset, data)?;
        volume.write(offset, data).when("write")?;
    }
    file.sync()?;
    store.flush().when("flush")?;
    let source = Arc::new(Source(file));
    Ok(Box::new(move || {
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
    }))
}
