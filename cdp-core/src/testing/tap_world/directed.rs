//! Histories with taps aimed at one thing that random ones meet too seldom. A seed varies them.

use super::{
    FRAME_AGE_NS, TapWorldConfig,
    generate::TapHistory,
    op::{Handover, TapOp},
};
use crate::{
    io::simulated::{AtomicUnit, SimRng},
    sabotage::Sabotage,
    testing::op::Place,
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
