//! Histories aimed at one thing that random ones meet too seldom. A seed varies them.

use super::{
    generate::History,
    op::{Down, FaultKind, Fill, Op, Place, Recover, When},
    thinned,
    world::WorldConfig,
};
use crate::{
    capture::Coalescing,
    io::simulated::{AtomicUnit, CrashPolicy, SimRng},
    sabotage::Sabotage,
};

/// Enough for an open frame to be committed by its age.
const FRAME_AGE_NS: i64 = 300_000_000;

fn write(sector: u64, sectors: u64) -> Op {
    let place = Place { volume: 0, sector, sectors };
    Op::Write { place, fill: Fill::Stamped, when: When::Clock, parts: 0 }
}

fn crash(rng: &mut SimRng) -> Down {
    Down::Crash { policy: CrashPolicy::Random, seed: rng.next_u64() }
}

/// Makes the history of a seed.
pub type Directed = fn(u64, Sabotage) -> History;

/// All of them by name.
pub const DIRECTED: [(&str, Directed); 9] = [
    ("holes-in-the-row", holes_in_the_row),
    ("torn-large-writes", torn_large_writes),
    ("frames-that-move", frames_that_move),
    ("killed-after-a-failed-sync", killed_after_a_failed_sync),
    ("torn-intervals", torn_intervals),
    ("sizes-back-and-forth", sizes_back_and_forth),
    ("faults-in-a-run", thinned::faults_in_a_run),
    ("plans-in-doubt", thinned::plans_in_doubt),
    ("edge-at-a-large-write", thinned::edge_at_a_large_write),
];

fn history(name: &str, seed: u64, volume_sectors: u64, sabotage: Sabotage, ops: Vec<Op>) -> History {
    let world = WorldConfig {
        seed,
        volume_sectors,
        sabotage,
        unit: AtomicUnit::Block,
        segment_bytes: 8 << 20,
        ..WorldConfig::default()
    };
    History { world, ops, repeat: format!("--directed {name} {seed}..{}", seed + 1) }
}

/// A volume is cut and grows again over what was written, with crashes in between, at each call of a resize too: the size belongs to the point,
/// and what was cut off reads as zeroes.
pub fn sizes_back_and_forth(seed: u64, sabotage: Sabotage) -> History {
    let mut rng = SimRng::new(seed);
    let whole = rng.pick(&[64, 100, 512]);
    let mut ops = vec![write(0, whole), Op::Flush];
    for _ in 0..3 + rng.below(4) {
        let small = 1 + rng.below(whole);
        if rng.chance(0.4) {
            ops.push(Op::DownAt(1 + rng.below(6), crash(&mut rng), Recover::default()));
        }
        ops.push(Op::Resize { volume: 0, sectors: small });
        if rng.chance(0.5) {
            ops.push(write(rng.below(whole), 1 + rng.below(24)));
        }
        if rng.chance(0.3) {
            ops.push(Op::Step(1 + rng.below(4)));
        }
        ops.push(Op::Resize { volume: 0, sectors: whole + rng.below(9) });
        if rng.chance(0.3) {
            ops.push(Op::Down(crash(&mut rng), Recover::default()));
        }
        ops.push(Op::Check);
        if rng.chance(0.5) {
            ops.push(write(rng.below(whole), 1 + rng.below(64)));
        }
    }
    history("sizes-back-and-forth", seed, whole, sabotage, ops)
}

/// Frames are written one by one and none is synced, so that a crash leaves holes in the row; the storage is full when
/// recovery wants to seal what it found; another owner writes on, and there is another crash.
pub fn holes_in_the_row(seed: u64, sabotage: Sabotage) -> History {
    let mut rng = SimRng::new(seed);
    let mut ops = vec![write(0, 8), Op::Flush];
    for _ in 0..4 + rng.below(4) {
        ops.extend([write(rng.below(64), 1 + rng.below(24)), Op::Clock(FRAME_AGE_NS), Op::Step(1)]);
    }
    let fault = Some((FaultKind::NoSpaceCreate, 1));
    ops.push(Op::Down(crash(&mut rng), Recover { fault, ..Recover::default() }));
    for _ in 0..1 + rng.below(3) {
        ops.extend([write(rng.below(64), 1 + rng.below(24)), Op::Flush]);
    }
    ops.push(Op::Down(crash(&mut rng), Recover { look_first: true, ..Recover::default() }));
    ops.extend([write(1, 9), Op::Flush]);
    history("holes-in-the-row", seed, 128, sabotage, ops)
}

/// Writes of several frames, with a crash between any two of their frames; afterwards writes go on.
pub fn torn_large_writes(seed: u64, sabotage: Sabotage) -> History {
    let mut rng = SimRng::new(seed);
    let mut ops = vec![write(0, 64), Op::Flush];
    for _ in 0..3 {
        let recover = Recover { look_first: true, ..Recover::default() };
        ops.push(Op::DownAt(1 + rng.below(12), crash(&mut rng), recover));
        ops.extend([
            write(rng.below(900), 2100 + rng.below(5000)),
            Op::Flush,
            write(rng.below(2000), 8),
            Op::Flush,
        ]);
        ops.extend([write(rng.below(2000), 3), Op::Flush]);
    }
    history("torn-large-writes", seed, 8192, sabotage, ops)
}

/// Several frames wait for their sync when a write or a sync fails; they move to another segment, and the power fails
/// soon after.
pub fn frames_that_move(seed: u64, sabotage: Sabotage) -> History {
    let mut rng = SimRng::new(seed);
    let mut ops = Vec::new();
    for _ in 0..1 + rng.below(5) {
        ops.push(write(rng.below(64), 1 + rng.below(24)));
        if rng.chance(0.7) {
            ops.extend([Op::Clock(FRAME_AGE_NS), Op::Step(1)]);
        }
    }
    let kinds =
        [FaultKind::Write, FaultKind::ShortWrite, FaultKind::Sync, FaultKind::SyncNames, FaultKind::Create];
    ops.push(Op::Fault(rng.pick(&kinds), rng.below(4)));
    let more =
        [write(rng.below(64), 30), Op::Flush, write(rng.below(64), 3), Op::Step(1), Op::Flush, Op::Heal];
    ops.extend(more.into_iter().take(1 + usize::from(rng.chance(0.5)) * 5));
    if rng.chance(0.5) {
        ops.push(Op::Fault(rng.pick(&kinds), rng.below(4)));
    }
    let recover = Recover { look_first: true, ..Recover::default() };
    ops.push(Op::DownAt(1 + rng.below(16), crash(&mut rng), recover));
    ops.extend([
        Op::Flush,
        write(rng.below(64), 5),
        Op::Step(3),
        Op::Flush,
        Op::Read(Place { volume: 0, sector: 0, sectors: 128 }),
    ]);
    history("frames-that-move", seed, 128, sabotage, ops)
}

/// A sync fails, and the process is killed before the frames were moved: what it covered reads as written, and no later sync
/// makes it durable. Then the power fails.
pub fn killed_after_a_failed_sync(seed: u64, sabotage: Sabotage) -> History {
    let mut rng = SimRng::new(seed);
    let mut ops = vec![write(0, 8), Op::Flush];
    for _ in 0..1 + rng.below(4) {
        ops.extend([write(rng.below(64), 1 + rng.below(24)), Op::Clock(FRAME_AGE_NS), Op::Step(1)]);
    }
    ops.push(Op::Fault(FaultKind::Sync, 0));
    ops.push(Op::DownAt(2 + rng.below(8), Down::Kill, Recover::default()));
    ops.extend([Op::Flush, Op::Flush, write(3, 3), Op::Flush]);
    ops.push(Op::Down(crash(&mut rng), Recover::default()));
    history("killed-after-a-failed-sync", seed, 128, sabotage, ops)
}

/// Changing calls of the storage in which [`torn_intervals`] crashes, seed by seed.
pub const TORN_INTERVALS_CALLS: u64 = 16;
/// Sectors of its volume.
const INTERVAL_VOLUME: u64 = 6144;
const INTERVAL_NS: i64 = 5_000_000;

/// Writes of an interval of several frames: a large one, and what overlaps it with parts of blocks, so that blocks hold the remains of
/// several writes.
fn interval(rng: &mut SimRng) -> Vec<Op> {
    let place = |rng: &mut SimRng, most: u64| {
        let sector = rng.below(400);
        Place { volume: 0, sector, sectors: 1 + rng.below(most) }
    };
    let mut ops = vec![write(rng.below(300), 2200 + rng.below(3000))];
    for _ in 0..4 + rng.below(8) {
        ops.push(match rng.below(6) {
            0 => Op::WriteZeroes(place(rng, 20), When::Clock),
            1 => Op::Discard(place(rng, 20), When::Clock),
            2 => write(rng.below(3000), 1 + rng.below(60)),
            _ => Op::Write { place: place(rng, 7), fill: Fill::Stamped, when: When::Clock, parts: 0 },
        });
    }
    ops
}

/// Coalesced intervals of several frames, with a crash in one storage call after the other: in those that write an interval that ended
/// by a flush, by its time, or by a bookmark. Afterwards writes go on, in the same way and in another.
pub fn torn_intervals(seed: u64, sabotage: Sabotage) -> History {
    let call = 1 + seed % TORN_INTERVALS_CALLS;
    let variant = seed / TORN_INTERVALS_CALLS;
    let mut rng = SimRng::new(seed);
    let ways = [Coalescing::PerBarrier, Coalescing::IntervalNs(INTERVAL_NS.unsigned_abs())];
    let way = ways[usize::from(variant % 2 == 1)];
    let mut ops = vec![write(0, 64), Op::Coalesce(way)];
    ops.extend(interval(&mut rng));
    let recover = Recover { look_first: true, ..Recover::default() };
    // Frames of a megabyte hardly ever survive chance.
    let whole = Down::Crash { policy: CrashPolicy::KeepUnsynced, seed: rng.next_u64() };
    let down = [Down::Kill, whole, whole, crash(&mut rng)];
    ops.extend([Op::Flush, Op::DownAt(call, rng.pick(&down), recover.clone())]);
    ops.extend(interval(&mut rng));
    ops.push(match rng.below(3) {
        0 => Op::Flush,
        1 => Op::AddBookmark { variant: 0, at: None },
        _ => Op::Clock(INTERVAL_NS),
    });
    ops.extend([write(5, 9), Op::Clock(FRAME_AGE_NS), Op::Step(2), Op::Flush]);
    ops.extend(interval(&mut rng));
    if rng.chance(0.7) {
        ops.push(Op::Flush);
    }
    ops.push(Op::Down(crash(&mut rng), recover));
    ops.extend([write(rng.below(2000), 3), Op::Coalesce(Coalescing::PerWrite), write(1, 3), Op::Flush]);
    history("torn-intervals", seed, INTERVAL_VOLUME, sabotage, ops)
}

/// Coalesced intervals of several frames, all of them durable: for what becomes of them when a frame is lost to rot.
pub fn intervals_to_rot(seed: u64) -> History {
    let mut rng = SimRng::new(seed);
    let ways = [Coalescing::PerBarrier, Coalescing::IntervalNs(INTERVAL_NS.unsigned_abs())];
    let mut ops = vec![write(0, 6000), Op::Coalesce(rng.pick(&ways))];
    for _ in 0..2 {
        ops.extend(interval(&mut rng));
        ops.extend([Op::Flush, Op::Clock(INTERVAL_NS)]);
    }
    ops.extend([Op::Coalesce(Coalescing::PerWrite), write(1, 3), write(9, 30), Op::Flush]);
    history("intervals-to-rot", seed, INTERVAL_VOLUME, Sabotage::default(), ops)
}
