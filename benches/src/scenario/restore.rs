//! Restoring a point to a file, which is written past the page cache.

use super::{Bench, Measured, OWN_FILE, Ready};
use crate::{
    direct::DirectFile,
    error::{Context, Result},
    probe::{Rate, SEQUENTIAL_BYTES},
};
use cdp_core::{
    SharedTarget,
    units::{BLOCK_BYTES, Seq},
};
use std::{io, time::Instant};

/// Threads that restore, as in the tool.
const THREADS: usize = 4;

pub fn ordered(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.ordered;
    prepare(bench, seq, SEQUENTIAL_BYTES as u64)
}

pub fn scattered(bench: &mut Bench<'_>) -> Result<Ready> {
    let seq = bench.history()?.scattered;
    prepare(bench, seq, BLOCK_BYTES)
}

/// `counted_bytes`: how many bytes count as one operation.
fn prepare(bench: &mut Bench<'_>, seq: Seq, counted_bytes: u64) -> Result<Ready> {
    let snapshot = super::read::snapshot(&bench.open_history()?, seq)?;
    let target = FileTarget(DirectFile::create(&bench.path(OWN_FILE)?, snapshot.bytes())?);
    Ready::new(move || {
        let started = Instant::now();
        let restored = snapshot.restore_shared(THREADS, &target, &mut |_| ()).when("restore a point")?;
        target.0.sync()?;
        let (bytes, seconds) = (restored.data_bytes, started.elapsed().as_secs_f64());
        Ok(Measured::new(Rate { operations: bytes / counted_bytes, bytes, seconds })
            .with("zero_mib", restored.zero_bytes as f64 / f64::from(1 << 20)))
    })
}

/// A new file, past the page cache: what is not written reads as zeroes.
struct FileTarget(DirectFile);

impl SharedTarget for FileTarget {
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data).map_err(io::Error::other)
    }

    fn zero(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
}
