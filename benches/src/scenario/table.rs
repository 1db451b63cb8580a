//! The table of the scenarios: names, probes, aims, plots and profiles.
//!
//! Aims are those of the design; floors are what the first slice of the engine has to reach at the least.

use super::{
    Bench, Ready, Scenario, TRACE, bookmark, capture, export, ingest, memory, mirror, mixed, overload,
    points, read, reopen, replay, restore, resync, staircase, thinning, versions, yardstick,
};
use crate::{
    curve::{At, Plot},
    error::Result,
    metric::{Bound, Unit},
    probe::Probe,
    profile::Profile,
    report::Meaning,
};

const MIBS: Unit = Unit::MebibytesPerSecond;
const RATE: Unit = Unit::PerSecond;
const US: Unit = Unit::Microseconds;
const MS: Unit = Unit::Milliseconds;
const WRITE: (Unit, Probe, Unit) = (MIBS, Probe::SequentialWrite, MIBS);
const NONE: (Option<Bound>, Option<Bound>) = (None, None);

const fn at_least(ratio: f64) -> Option<Bound> {
    Some(Bound::RatioAtLeast(ratio))
}

/// A scenario of every profile.
const fn scenario(
    name: &'static str,
    title: &'static str,
    (unit, probe, probe_unit): (Unit, Probe, Unit),
    (aim, floor): (Option<Bound>, Option<Bound>),
    prepare: fn(&mut Bench<'_>) -> Result<Ready>,
) -> Scenario {
    let meaning = Meaning { name, title, unit, probe, probe_unit, aim, floor, curves: &[] };
    Scenario { meaning, since: Profile::Quick, prepare }
}

impl Scenario {
    /// The same, as a point of curves.
    const fn on(mut self, curves: &'static [At]) -> Self {
        self.meaning.curves = curves;
        self
    }

    /// The same, in this profile and more thorough ones only.
    const fn since(mut self, profile: Profile) -> Self {
        self.since = profile;
        self
    }
}

const fn at(plot: Plot, line: &'static str, x: f64) -> At {
    At { plot, line, x }
}

/// All scenarios, in the order in which they run: those that need the most space first, those that change the shared history last. In the
/// quick profile are those whose aims matter most.
pub const SCENARIOS: &[Scenario] = &[
    // Ingest: needs the most space.
    scenario(
        "ingest-4k-random",
        "4 KiB random writes by one producer, flush at the end counted",
        WRITE,
        (at_least(0.80), at_least(0.50)),
        ingest::random_4k,
    ).on(&[at(Plot::IngestWriteSize, "1 producer", 4096.0), at(Plot::IngestDepth, "4 KiB", 1.0), at(Plot::Yardsticks, "this engine, every write kept", 0.0)]),
    scenario(
        "ingest-4k-random-cow",
        "the same against the copy-on-write reference",
        (RATE, Probe::CopyOnWrite, RATE),
        (at_least(10.0), at_least(6.0)),
        ingest::random_4k,
    ),
    scenario(
        "ingest-4k-random-rw",
        "the same against raw random writes in place",
        (RATE, Probe::RandomWrite, RATE),
        (at_least(4.0), None),
        ingest::random_4k,
    ),
    scenario(
        "ingest-4k-producers",
        "4 KiB random writes by four producers",
        WRITE,
        (None, None),
        ingest::random_4k_producers,
    ).on(&[at(Plot::IngestWriteSize, "4 producers", 4096.0), at(Plot::IngestDepth, "4 KiB", 4.0)]),
    scenario(
        "ingest-64k-sequential",
        "64 KiB sequential writes by one producer",
        WRITE,
        (at_least(0.90), None),
        ingest::sequential_64k,
    ),
    scenario(
        "ingest-1m-sequential",
        "1 MiB sequential writes by one producer",
        WRITE,
        (at_least(0.90), None),
        ingest::sequential_1m,
    ),
    scenario(
        "ingest-4k-flush-64",
        "4 KiB random writes, a flush after every 64, against 256 KiB writes each synced",
        (MIBS, Probe::SyncedWrite, MIBS),
        (None, None),
        ingest::random_4k_flushed,
    )
    .since(Profile::Standard),
    scenario(
        "ingest-4k-p2",
        "4 KiB writes at random by 2 producers",
        WRITE,
        NONE,
        ingest::matrix::<4, 2>,
    ).since(Profile::Standard).on(&[at(Plot::IngestDepth, "4 KiB", 2.0)]),
    scenario(
        "ingest-4k-p8",
        "4 KiB writes at random by 8 producers",
        WRITE,
        NONE,
        ingest::matrix::<4, 8>,
    ).since(Profile::Standard).on(&[at(Plot::IngestDepth, "4 KiB", 8.0)]),
    scenario(
        "ingest-4k-p16",
        "4 KiB writes at random by 16 producers",
        WRITE,
        NONE,
        ingest::matrix::<4, 16>,
    ).since(Profile::Standard).on(&[at(Plot::IngestDepth, "4 KiB", 16.0)]),
    scenario(
        "ingest-16k-p1",
        "16 KiB writes at random by 1 producer",
        WRITE,
        NONE,
        ingest::matrix::<16, 1>,
    ).since(Profile::Standard).on(&[at(Plot::IngestWriteSize, "1 producer", 16384.0)]),
    scenario(
        "ingest-16k-p4",
        "16 KiB writes at random by 4 producers",
        WRITE,
        NONE,
        ingest::matrix::<16, 4>,
    ).since(Profile::Standard).on(&[at(Plot::IngestWriteSize, "4 producers", 16384.0)]),
    scenario(
        "ingest-64k-p1",
        "64 KiB writes at random by 1 producer",
        WRITE,
        NONE,
        ingest::matrix::<64, 1>,
    ).since(Profile::Standard).on(&[at(Plot::IngestWriteSize, "1 producer", 65536.0), at(Plot::IngestDepth, "64 KiB", 1.0)]),
    scenario(
        "ingest-64k-p4",
        "64 KiB writes at random by 4 producers",
        WRITE,
        NONE,
        ingest::matrix::<64, 4>,
    ).since(Profile::Standard).on(&[at(Plot::IngestWriteSize, "4 producers", 65536.0), at(Plot::IngestDepth, "64 KiB", 4.0)]),
    scenario(
        "ingest-64k-p16",
        "64 KiB writes at random by 16 producers",
        WRITE,
        NONE,
        ingest::matrix::<64, 16>,
    ).since(Profile::Standard).on(&[at(Plot::IngestDepth, "64 KiB", 16.0)]),
    scenario(
        "ingest-256k-p1",
        "256 KiB writes at random by 1 producer",
        WRITE,
        NONE,
        ingest::matrix::<256, 1>,
    ).since(Profile::Standard).on(&[at(Plot::IngestWriteSize, "1 producer", 262144.0)]),
    scenario(
        "ingest-256k-p4",
        "256 KiB writes at random by 4 producers",
        WRITE,
        NONE,
        ingest::matrix::<256, 4>,
    ).since(Profile::Standard).on(&[at(Plot::IngestWriteSize, "4 producers", 262144.0)]),
    scenario(
        "ingest-1024k-p1",
        "1024 KiB writes at random by 1 producer",
        WRITE,
        NONE,
        ingest::matrix::<1024, 1>,
    ).since(Profile::Standard).on(&[at(Plot::IngestWriteSize, "1 producer", 1048576.0)]),
    scenario(
        "ingest-1024k-p4",
        "1024 KiB writes at random by 4 producers",
        WRITE,
        NONE,
        ingest::matrix::<1024, 4>,
    ).since(Profile::Standard).on(&[at(Plot::IngestWriteSize, "4 producers", 1048576.0)]),
    scenario(
        "ingest-4k-hot",
        "4 KiB random writes to 256 MiB, to be compared with the next",
        WRITE,
        (None, None),
        ingest::hot_4k,
    )
    .since(Profile::Standard),
    scenario(
        "ingest-4k-thinned",
        "4 KiB random writes to 256 MiB while what is older than half a second is thinned away, against the same without",
        (MIBS, Probe::Own, MIBS),
        (at_least(0.80), None),
        ingest::thinned_4k::<500>,
    ).on(&[at(Plot::ThinningCost, "4 KiB random", 500.0)]),
    scenario(
        "ingest-4k-thinned-200ms",
        "the same with 200 ms in full",
        (MIBS, Probe::Own, MIBS),
        (at_least(0.80), None),
        ingest::thinned_4k::<200>,
    ).since(Profile::Standard).on(&[at(Plot::ThinningCost, "4 KiB random", 200.0)]),
    scenario(
        "ingest-4k-thinned-1000ms",
        "the same with 1000 ms in full",
        (MIBS, Probe::Own, MIBS),
        (at_least(0.80), None),
        ingest::thinned_4k::<1000>,
    ).since(Profile::Standard).on(&[at(Plot::ThinningCost, "4 KiB random", 1000.0)]),
    scenario(
        "ingest-4k-thinned-3000ms",
        "the same with 3000 ms in full",
        (MIBS, Probe::Own, MIBS),
        (at_least(0.80), None),
        ingest::thinned_4k::<3000>,
    ).since(Profile::Standard).on(&[at(Plot::ThinningCost, "4 KiB random", 3000.0)]),
    scenario(
        "written-foreground",
        "bytes written for each byte of 4 KiB random writes, without index and sealing",
        (Unit::Times, Probe::Count, RATE),
        (Some(Bound::AtMost(1.02)), None),
        ingest::written_foreground,
    ),
    scenario(
        "written-thinned",
        "bytes that reached the device for each byte while history is thinned, all counted",
        (Unit::Times, Probe::Count, RATE),
        NONE,
        ingest::written_thinned,
    ).since(Profile::Standard),
    // Other programs.
    scenario(
        "yardstick-qcow2",
        "4 KiB random writes to a full qcow2 image with an internal snapshot, qemu-io",
        WRITE,
        NONE,
        yardstick::qcow2_snapshot,
    ).on(&[at(Plot::Yardsticks, "qcow2 after an internal snapshot", 1.0)]),
    scenario(
        "yardstick-huge-pages-write",
        "the raw sequential writes themselves, from huge pages, as the engine's buffers are",
        WRITE,
        NONE,
        yardstick::write_huge_pages,
    ),
    scenario(
        "yardstick-huge-pages-read",
        "the raw sequential reads themselves, into huge pages",
        (MIBS, Probe::SequentialRead, MIBS),
        NONE,
        yardstick::read_huge_pages,
    ),
    scenario(
        "yardstick-btrfs",
        "4 KiB random writes to a file after a snapshot of btrfs",
        WRITE,
        NONE,
        yardstick::btrfs_snapshot,
    ).on(&[at(Plot::Yardsticks, "btrfs after a snapshot", 1.0)]),
    scenario(
        "yardstick-rsync",
        "bring a file up to date of which one block in 64 changed, rsync; bytes of the file",
        (MIBS, Probe::SequentialRead, MIBS),
        NONE,
        yardstick::rsync,
    ).since(Profile::Standard),
    // Taps.
    scenario(
        "capture-4k-100k",
        "capture of 4 KiB, 100,000 a second by one producer; 99 of 100 are done within, at full processor speed",
        (US, Probe::Own, US),
        (Some(Bound::AtMost(2.0)), None),
        capture::paced::<1, 4096, 100000>,
    ).on(&[at(Plot::CaptureProducers, "", 1.0), at(Plot::CaptureRate, "", 100_000.0)]),
    scenario(
        "capture-4k-100k-p2",
        "the same by two producers",
        (US, Probe::Own, US),
        NONE,
        capture::paced::<2, 4096, 100000>,
    ).since(Profile::Standard).on(&[at(Plot::CaptureProducers, "", 2.0)]),
    scenario(
        "capture-4k-100k-p4",
        "the same by four producers",
        (US, Probe::Own, US),
        NONE,
        capture::paced::<4, 4096, 100000>,
    ).since(Profile::Standard).on(&[at(Plot::CaptureProducers, "", 4.0)]),
    scenario(
        "capture-4k-10k",
        "capture of 4 KiB, 10,000 a second by one producer; 99 of 100 are done within, at full processor speed",
        (US, Probe::Own, US),
        NONE,
        capture::paced::<1, 4096, 10000>,
    ).since(Profile::Standard).on(&[at(Plot::CaptureRate, "", 10_000.0)]),
    scenario(
        "capture-4k-25k",
        "the same, 25,000 a second",
        (US, Probe::Own, US),
        NONE,
        capture::paced::<1, 4096, 25000>,
    ).since(Profile::Standard).on(&[at(Plot::CaptureRate, "", 25_000.0), at(Plot::CaptureSize, "100 MB/s", 4096.0)]),
    scenario(
        "capture-4k-200k",
        "the same, 200,000 a second",
        (US, Probe::Own, US),
        NONE,
        capture::paced::<1, 4096, 200000>,
    ).since(Profile::Standard).on(&[at(Plot::CaptureRate, "", 200_000.0)]),
    scenario(
        "capture-16k",
        "capture of 16 KiB at 100 MB/s by one producer; 99 of 100 are done within, at full processor speed",
        (US, Probe::Own, US),
        NONE,
        capture::paced::<1, 16384, 6400>,
    ).since(Profile::Standard).on(&[at(Plot::CaptureSize, "100 MB/s", 16384.0)]),
    scenario(
        "capture-64k",
        "the same of 64 KiB",
        (US, Probe::Own, US),
        NONE,
        capture::paced::<1, 65536, 1600>,
    ).since(Profile::Standard).on(&[at(Plot::CaptureSize, "100 MB/s", 65536.0)]),
    scenario(
        "capture-256k",
        "the same of 256 KiB",
        (US, Probe::Own, US),
        NONE,
        capture::paced::<1, 262144, 400>,
    ).since(Profile::Standard).on(&[at(Plot::CaptureSize, "100 MB/s", 262144.0)]),
    scenario(
        "bookmark-idle",
        "set a bookmark on a store that is idle, durable; half of them are done within",
        (MS, Probe::SyncedWrite, MIBS),
        (Some(Bound::AtMost(1.5)), None),
        bookmark::idle,
    ),
    scenario(
        "bookmark-busy",
        "the same beside 4 KiB writes at 40 MB/s; 95 of 100 are done within",
        (MS, Probe::SyncedWrite, MIBS),
        (Some(Bound::AtMost(10.0)), None),
        bookmark::busy,
    ),
    scenario(
        "overload-capture",
        "capture of 4 KiB while the store gets half of what production writes; 999 of 1000 are done within, at full processor speed",
        (US, Probe::Computation, RATE),
        (Some(Bound::AtMost(10.0)), None),
        overload::capture,
    ).since(Profile::Standard),
    scenario(
        "overload-heal",
        "from the end of such an overload until nothing is missing and all is durable",
        (MS, Probe::Computation, RATE),
        NONE,
        overload::heal,
    ),
    scenario(
        "staircase",
        "bursts of 1 to 250 MB a second with idle between; largest lag of the highest",
        (MS, Probe::SequentialWrite, MIBS),
        NONE,
        staircase::run,
    ).since(Profile::Standard),
    scenario(
        "memory-1tib",
        "peak of a process that captures a volume of 1 TiB, then is overloaded",
        (Unit::Mebibytes, Probe::Count, RATE),
        (Some(Bound::AtMost(256.0)), None),
        memory::tebibyte,
    ),
    scenario(
        "index-per-version",
        "index on the device for each version of a block, 4 KiB random writes",
        (Unit::BytesEach, Probe::Count, RATE),
        (Some(Bound::AtMost(24.0)), None),
        points::index_per_version,
    ),
    // Resync, repair, thinning: stores of their own.
    scenario(
        "resync-digest-equal",
        "compare a source with an equal volume by digests, as ratio to reading it",
        (MIBS, Probe::SequentialRead, MIBS),
        (at_least(0.85), None),
        resync::equal,
    ),
    scenario(
        "resync-map",
        "take over a quarter of a source that the host knows to differ, as ratio to copying it",
        (MIBS, Probe::Copy, MIBS),
        NONE,
        resync::by_map,
    ),
    scenario(
        "mirror-repair-map",
        "give a copy of a mirror set a quarter of the volume that it missed, as ratio to copying it",
        (MIBS, Probe::Copy, MIBS),
        NONE,
        mirror::by_map,
    ),
    scenario(
        "thin-history",
        "thin and collect a whole history at once; versions a second",
        (RATE, Probe::Computation, RATE),
        NONE,
        thinning::whole_history,
    ).since(Profile::Standard),
    scenario(
        "export-lz4",
        "export a volume as a seed set packed by lz4, as ratio to the codec alone in one thread",
        (MIBS, Probe::Own, MIBS),
        NONE,
        export::lz4,
    )
    .since(Profile::Standard),
    // The store with a history.
    scenario(
        "read-4k-point-warm",
        "4 KiB random reads at a point amid the history, 32 in flight, index in memory",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.80), at_least(0.60)),
        read::random_at_point_warm,
    ),
    scenario(
        "read-4k-point-cold",
        "the first 4,000 of them after each of several opens",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.45), None),
        read::random_at_point_cold,
    ),
    scenario(
        "read-4k-newest-warm",
        "4 KiB random reads of the newest state, 32 in flight, index in memory",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.80), at_least(0.60)),
        read::random_newest_warm,
    ),
    scenario(
        "read-seq-ordered",
        "1 MiB sequential reads, 4 in flight, at a point that was written in order",
        (MIBS, Probe::SequentialRead, MIBS),
        (at_least(0.80), None),
        read::sequential_ordered,
    ),
    scenario(
        "read-seq-scattered",
        "the same amid random overwrites, in 4 KiB blocks against raw random reads",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.80), None),
        read::sequential_scattered,
    ),
    scenario(
        "read-seq-newest",
        "the same of the newest state",
        (RATE, Probe::RandomRead, RATE),
        (None, None),
        read::sequential_newest,
    )
    .since(Profile::Standard),
    scenario(
        "point-open-warm",
        "resolve a time, open the point, read its first 4 KiB; 99 of 100 are done within",
        (US, Probe::SingleRead, US),
        (Some(Bound::AtMost(1000.0)), Some(Bound::AtMost(10_000.0))),
        points::open_warm,
    ),
    scenario(
        "point-open-cold",
        "the same, the first after opening the store; the slowest",
        (US, Probe::SingleRead, US),
        (Some(Bound::AtMost(10_000.0)), None),
        points::open_cold,
    ),
    scenario(
        "changed-blocks",
        "list the blocks changed between two points; index entries between them a second",
        (RATE, Probe::Computation, RATE),
        (Some(Bound::AtLeast(8e6)), None),
        points::changed,
    ),
    scenario(
        "restore-ordered",
        "restore a point that was written in order to a file, sync counted",
        (MIBS, Probe::Copy, MIBS),
        (at_least(0.85), None),
        restore::ordered,
    ),
    scenario(
        "restore-scattered",
        "restore a point amid random overwrites, in 4 KiB blocks against raw random reads",
        (RATE, Probe::RandomRead, RATE),
        (at_least(0.80), None),
        restore::scattered,
    ),
    scenario(
        "reopen-small",
        "open a store of 256 MiB after kill -9 of its writer; the slowest",
        (MS, Probe::SequentialRead, MIBS),
        (Some(Bound::AtMostWithScan { milliseconds: 500.0, mebibytes: 128.0 }), None),
        reopen::small,
    ).on(&[at(Plot::ReopenHistory, "after kill -9", 256.0)]),
    // Those that change it.
    scenario(
        "mixed-4k-70-30",
        "4 KiB at random, 32 in flight: seven reads of the newest state to three writes",
        (RATE, Probe::Mixed, RATE),
        NONE,
        mixed::random_70_30,
    ).since(Profile::Standard),
    scenario(
        "reopen-large",
        "the same with the whole history in the store",
        (MS, Probe::SequentialRead, MIBS),
        (Some(Bound::AtMostWithScan { milliseconds: 500.0, mebibytes: 128.0 }), None),
        reopen::large,
    ).on(&[at(Plot::ReopenHistory, "after kill -9", 4096.0)]),
    // Histories of many versions.
    scenario(
        "point-open-1m",
        "open the point of any number, read a block, with 1 M versions; 99 of 100 are done within",
        (US, Probe::SingleRead, US),
        (Some(Bound::AtMost(1000.0)), None),
        versions::open::<1>,
    ).since(Profile::Standard).on(&[at(Plot::OpenHistory, "", 1000000.0)]),
    scenario(
        "lookup-1m",
        "find a random block at a point amid 1 M versions; 99 of 100 are done within",
        (US, Probe::SingleRead, US),
        NONE,
        versions::lookup::<1>,
    ).since(Profile::Standard).on(&[at(Plot::LookupHistory, "", 1000000.0)]),
    scenario(
        "point-open-10m",
        "open the point of any number, read a block, with 10 M versions; 99 of 100 are done within",
        (US, Probe::SingleRead, US),
        (Some(Bound::AtMost(1000.0)), None),
        versions::open::<10>,
    ).since(Profile::Standard).on(&[at(Plot::OpenHistory, "", 10000000.0)]),
    scenario(
        "lookup-10m",
        "find a random block at a point amid 10 M versions; 99 of 100 are done within",
        (US, Probe::SingleRead, US),
        NONE,
        versions::lookup::<10>,
    ).since(Profile::Standard).on(&[at(Plot::LookupHistory, "", 10000000.0)]),
    scenario(
        "point-open-100m",
        "open the point of any number, read a block, with 100 M versions; 99 of 100 are done within",
        (US, Probe::SingleRead, US),
        (Some(Bound::AtMost(1000.0)), None),
        versions::open::<100>,
    ).since(Profile::Full).on(&[at(Plot::OpenHistory, "", 100000000.0)]),
    scenario(
        "lookup-100m",
        "find a random block at a point amid 100 M versions; 99 of 100 are done within",
        (US, Probe::SingleRead, US),
        NONE,
        versions::lookup::<100>,
    ).since(Profile::Full).on(&[at(Plot::LookupHistory, "", 100000000.0)]),
    scenario(
        TRACE,
        "the writes of a block trace, one producer, as fast as they go",
        WRITE,
        NONE,
        replay::run,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Goal: scenarios can be told apart and named on a command line, and every aim can be computed from what is measured.
    /// Method: look at the table.
    #[test]
    fn the_table_of_scenarios_is_sound() {
        let names: HashSet<_> = SCENARIOS.iter().map(|scenario| scenario.meaning.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        for Scenario { meaning, .. } in SCENARIOS {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(meaning.name.chars().all(plain), "{}", meaning.name);
            for bound in [meaning.aim, meaning.floor].into_iter().flatten() {
                match bound {
                    Bound::RatioAtLeast(_) => assert!(meaning.has_ratio(), "{}", meaning.name),
                    Bound::AtLeast(_) => assert!(meaning.unit.more_is_better(), "{}", meaning.name),
                    Bound::AtMost(_) => assert!(!meaning.unit.more_is_better(), "{}", meaning.name),
                    Bound::AtMostWithScan { .. } => {
                        assert_eq!((meaning.unit, meaning.probe_unit), (Unit::Milliseconds, MIBS));
                    }
                }
            }
        }
    }
}
