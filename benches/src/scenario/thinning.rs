//! Thinning and garbage collection of a whole history at once: one run of retention, with nothing beside it.

use super::{Bench, Measured, OWN_STORE, Ready};
use crate::{
    drive::{Limits, drive},
    environment::device_bytes_written,
    error::{Context, Result},
    probe::Rate,
    random::{Content, Random, block_offset},
};
use cdp_core::{
    CreateOptions, OpenOptions, Store,
    io::{Clock, SystemClock},
    retention::{BookmarkFilter, Keep, Policy, Window},
    units::BLOCK_LEN,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// What stays in full.
const KEPT: Duration = Duration::from_millis(1);
/// Part of the volume that is written again and again, bytes.
const HOT_BYTES: u64 = 256 << 20;

/// The figure is how many versions a second a run of retention looks at and keeps or drops, with the space freed when it ends.
pub fn whole_history(bench: &mut Bench<'_>) -> Result<Ready> {
    let create = CreateOptions { volume: "disk".into(), bytes: HOT_BYTES };
    let store = Store::create(bench.new_storage(OWN_STORE)?, &create, OpenOptions::default());
    let store = store.when("create a store")?;
    let runner = store.start_runner().when("start its threads")?;
    let volume = store.volume(None).when("find its volume")?;
    let hot = HOT_BYTES.min(bench.sizes.volume_bytes / 4);
    let limits = Limits { time: bench.sizes.build_time, operations: bench.sizes.overwrites / 4 };
    drive(1, limits, |stream| {
        let mut content = Content::new(bench.seed ^ bench.round, stream, BLOCK_LEN)?;
        let mut random = Random::new(bench.seed ^ bench.round, stream);
        let volume = volume.clone();
        Ok(move |_| volume.write(block_offset(&mut random, hot), content.next()).when("write").map(drop))
    })?;
    volume.flush().when("flush")?;
    // In the background it would begin as soon as there is a policy.
    drop((volume, runner));
    let to = u64::try_from(KEPT.as_nanos()).unwrap_or(u64::MAX);
    let window = Window { to, keep: Keep::All, bookmarks: BookmarkFilter::None };
    store.set_policy(&Policy { windows: vec![window], ..Policy::default() }).when("set a policy")?;
    thread::sleep(KEPT * 50);
    Ready::new(move || {
        let before = store.stats().when("count")?;
        let written = device_bytes_written();
        let started = Instant::now();
        let report = store.run_retention(SystemClock.now()).when("carry out a policy")?;
        let seconds = started.elapsed().as_secs_f64();
        let after = store.stats().when("count")?;
        let written = device_bytes_written().zip(written).map(|(now, then)| now.saturating_sub(then));
        store.close().when("close")?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Ok(Measured::new(Rate { operations: before.versions, bytes: before.stored_bytes, seconds })
            .with("stored_mib_before", mib(before.stored_bytes))
            .with("stored_mib_after", mib(after.stored_bytes))
            .with("freed_mib", mib(report.bytes_freed))
            .with("written_mib", mib(written.unwrap_or_default()))
            .with("versions_after", after.versions as f64)
            .with("points_dropped", report.drop_points as f64))
    })
}
