//! Histories with taps aimed at one thing that random ones meet too seldom. A seed varies them.

use super::{
    FRAME_AGE_NS, TapWorldConfig,
    generate::{TapHistory, generate},
    op::{Claim, Handover, TapDown, TapOp, TapRecover},
};
use crate::{
    ActivityLog,
    io::simulated::{AtomicUnit, CrashPolicy, SimRng},
    sabotage::Sabotage,
    testing::op::Place,
    units::to_len,
};

/// Small gaps that are resynchronised while the same few blocks are written before and after the last read of the source; resync runs
/// alone, so that captured writes wait in the pool.
pub fn writes_around_reads(seed: u64, sabotage: Sabotage) -> TapHistory {
    let mut rng = SimRng::new(seed);
    let world = TapWorldConfig {
        seed,
        volumes: vec![(40, true), (24, true)],
        pool_frames: 4,
        granularity: 4096,
        log: None,
        begins: false,
        far: false,
        unit: AtomicUnit::Block,
        segment_bytes: 1 << 20,
        sabotage,
    };
    let write = |block: u64, by: Handover| {
        let place = Place { volume: 0, sector: 8 * block, sectors: 8 };
        TapOp::Write { place, by, late: 0 }
    };
    let writes = |rng: &mut SimRng| -> Vec<TapOp> {
        (0..rng.below(4)).map(|_| write(rng.below(5), Handover::Copied)).collect()
    };
    let mut ops = Vec::new();
    for _ in 0..8 {
        // A block behind the one that is read is marked meanwhile, so it is left when writes are captured whole again.
        let left = rng.below(4);
        ops.extend([write(4, Handover::Mark), TapOp::Flush]);
        ops.push(TapOp::Interleave(Vec::new(), vec![write(left, Handover::Copied)]));
        ops.push(TapOp::Resync(2));
        let (mut before, after) = (writes(&mut rng), writes(&mut rng));
        before.push(write(left, Handover::Copied));
        ops.push(TapOp::Interleave(before, after));
        ops.push(TapOp::Resync(1 + rng.below(4)));
        ops.extend([TapOp::Step(1 + rng.below(3)), TapOp::Clock(FRAME_AGE_NS), TapOp::Step(6)]);
    }
    ops.push(TapOp::Check);
    TapHistory { world, ops, repeat: format!("--tap-reads {seed}..{}", seed + 1) }
}

/// A random history whose sources lie across a link.
pub fn across_a_link(seed: u64, sabotage: Sabotage) -> TapHistory {
    let mut history = generate(seed);
    (history.world.far, history.world.sabotage) = (true, sabotage);
    TapHistory { repeat: format!("--tap-far {seed}..{}", seed + 1), ..history }
}

/// Taps that end while blocks differ, in every way, and begin again: with changes that the host tracked, inline writes in between, producers
/// that never come back, and maps that are damaged meanwhile.
pub fn ends_with_differences(seed: u64, sabotage: Sabotage) -> TapHistory {
    let mut rng = SimRng::new(seed);
    let world = TapWorldConfig {
        seed,
        volumes: vec![(130, true), (64, true)],
        pool_frames: 4,
        granularity: rng.pick(&[4096, 8192]),
        log: None,
        begins: false,
        far: false,
        unit: AtomicUnit::Block,
        segment_bytes: 1 << 20,
        sabotage,
    };
    let place =
        |rng: &mut SimRng| Place { volume: rng.below(2), sector: rng.below(130), sectors: 1 + rng.below(12) };
    let write = |rng: &mut SimRng| TapOp::Write { place: place(rng), by: Handover::Copied, late: 0 };
    let mut ops = Vec::new();
    for _ in 0..6 {
        let volume = rng.below(2);
        ops.extend([write(&mut rng), TapOp::Step(1 + rng.below(3))]);
        if rng.chance(0.7) {
            ops.extend([TapOp::Suspend(volume), write(&mut rng), write(&mut rng), TapOp::Step(2)]);
        }
        if rng.chance(0.3) {
            ops.extend([TapOp::Resume(volume), TapOp::Resync(1 + rng.below(3)), write(&mut rng)]);
        }
        if rng.chance(0.4) {
            let (described, steps) = (rng.chance(0.8), rng.below(3));
            ops.push(TapOp::Stall { place: place(&mut rng), described, steps, dies: true });
        } else if rng.chance(0.5) {
            ops.extend([TapOp::Detach(0), TapOp::Detach(1)]);
        } else {
            ops.push(TapOp::Reopen);
        }
        // Inline, where the volume equals its source.
        (0..rng.below(3)).for_each(|_| ops.push(write(&mut rng)));
        (0..rng.below(3)).for_each(|_| ops.push(TapOp::Unwatched(place(&mut rng))));
        if rng.chance(0.5) {
            let recover = TapRecover { crashes: Vec::new(), harm_maps: rng.chance(0.3) };
            ops.push(TapOp::Down(TapDown::Kill, recover));
        }
        let claim = rng.pick(&[Claim::AsRecorded, Claim::Tracked]);
        ops.extend([TapOp::Attach(0, claim), TapOp::Attach(1, claim), TapOp::Check]);
    }
    TapHistory { world, ops, repeat: format!("--tap-ends {seed}..{}", seed + 1) }
}

/// Taps with small activity logs, and power cuts that take back what neither side had made durable.
pub fn crashes_with_log(seed: u64, sabotage: Sabotage) -> TapHistory {
    let mut rng = SimRng::new(seed);
    let log = ActivityLog { regions_active_max: to_len(rng.pick(&[4, 5, 8])), region_bytes: 16 << 10 };
    let world = TapWorldConfig {
        seed,
        volumes: vec![(2048, true), (600, true)],
        pool_frames: 4,
        granularity: 4096,
        log: Some((log, 1.0)),
        begins: true,
        far: false,
        unit: rng.pick(&[AtomicUnit::Block, AtomicUnit::Sector]),
        segment_bytes: 1 << 20,
        sabotage,
    };
    let write = |rng: &mut SimRng| {
        let most = rng.pick(&[8, 8, 30, 60]);
        let sectors = 1 + rng.below(most);
        let place = Place { volume: rng.below(2), sector: rng.below(2048), sectors };
        TapOp::Write {
            place,
            by: rng.pick(&[Handover::Copied, Handover::Copied, Handover::Discard]),
            late: 0,
        }
    };
    let mut ops = Vec::new();
    for _ in 0..5 {
        let suspended = rng.chance(0.6);
        if suspended {
            ops.push(TapOp::Suspend(rng.below(2)));
        }
        for _ in 0..6 + rng.below(16) {
            ops.push(write(&mut rng));
            match rng.below(8) {
                0 => ops.push(TapOp::Step(1)),
                1 => ops.push(TapOp::SourceFlush(rng.below(2))),
                2 => ops.push(TapOp::Flush),
                _ => {}
            }
        }
        if suspended {
            ops.extend([TapOp::Resume(0), TapOp::Resume(1), TapOp::Step(rng.below(5))]);
        }
        let policy = rng.pick(&[CrashPolicy::LoseUnsynced, CrashPolicy::Random, CrashPolicy::KeepUnsynced]);
        let down = TapDown::PowerCut { policy, seed: rng.next_u64(), sources: rng.chance(0.7) };
        if rng.chance(0.5) {
            ops.push(TapOp::DownAt(1 + rng.below(6), down, TapRecover::default()));
            (0..6).for_each(|_| ops.push(write(&mut rng)));
            ops.push(TapOp::Step(2));
        }
        ops.push(TapOp::Down(down, TapRecover::default()));
        ops.extend([TapOp::Attach(0, Claim::AsRecorded), TapOp::Attach(1, Claim::AsRecorded)]);
        ops.extend([TapOp::Step(2 + rng.below(40)), TapOp::Clock(FRAME_AGE_NS), TapOp::Check]);
    }
    TapHistory { world, ops, repeat: format!("--tap-log {seed}..{}", seed + 1) }
}
