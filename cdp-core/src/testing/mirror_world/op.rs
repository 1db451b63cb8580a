//! The steps of a mirrored world, and random histories of them.

use super::WorldConfig;
use crate::{
    io::simulated::{AtomicUnit, SimRng},
    mirror::{AckPolicy, Writers},
    sabotage::Sabotage,
};

/// How the machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// The process is killed: everything that was written is seen.
    Kill,
    /// The power fails: of what was not synced, any part is left on each disk.
    Power,
}

/// One step. Copies are chosen among those that are fit for it; a step that is not possible is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorOp {
    /// Writes sectors.
    Write(u64, u64),
    /// Writes zeroes.
    Zero(u64, u64),
    /// Makes everything durable.
    Flush,
    /// Reads sectors.
    Read(u64, u64),
    /// Takes a copy out of service.
    Offline(u64),
    /// Brings a copy back.
    Online(u64),
    /// Repairs at most so many bytes.
    Repair(u64),
    /// Repairs everything, and compares the disks.
    RepairAll,
    /// Compares the copies.
    Verify,
    /// Gives the volume another size, in blocks.
    Resize(u64),
    /// Closes and opens the set.
    Reopen,
    /// The machine stops after so many changes.
    Arm(u64, Down),
    /// The machine goes down now.
    Crash(Down),
    /// Calls to a copy fail, once or for good: 0 read, 1 write, 2 sync.
    CopyFails(u64, u8, bool),
    /// A write or sync of the metadata fails.
    MetaFails(bool),
    /// A copy that is offline loses its power.
    PowerCycle(u64),
    /// Keeps what the disk of a copy holds.
    Snapshot(u64),
    /// A copy that is offline goes back to what was kept, or one that is online while the set is closed.
    SetBack(u64),
    /// Somebody else writes to a copy that is offline, where its sample sees it, and the set goes on: a split brain.
    SplitBrain(u64),
    /// A copy that is offline is replaced by a clone of the source.
    Clone(u64),
    /// Bits of the metadata rot while the machine is down.
    Harm(u64),
    /// A bit of a clean copy rots; verification must find it.
    Rot(u64),
    /// A block of the copy that is read first rots and cannot be read: the read is served all the same, and the block is written back.
    Unreadable(u64),
    /// Adds a copy.
    Add,
    /// Removes a copy.
    Remove(u64),
}

/// A history.
#[derive(Clone, Debug)]
pub struct MirrorHistory {
    /// How its world is made.
    pub world: WorldConfig,
    /// Its steps.
    pub ops: Vec<MirrorOp>,
}

/// Seeds with this bit write to copies beside each other, in an order of their own, and let some fall behind.
pub const BESIDE: u64 = 1 << 32;

/// The history of a seed.
pub fn generate(seed: u64) -> MirrorHistory {
    let mut rng = SimRng::new(seed);
    let world = WorldConfig {
        seed,
        copies: usize::try_from(2 + rng.below(2)).unwrap_or(2),
        blocks: 24 + rng.below(100),
        region_bytes: rng.pick(&[4096, 16 << 10, 64 << 10]),
        regions_active_max: rng.pick(&[4, 6, 16]),
        ring_records: rng.pick(&[2, 4]),
        log: !rng.chance(0.1),
        ack: rng.pick(&[AckPolicy::One, AckPolicy::One, AckPolicy::Quorum, AckPolicy::All]),
        unit: rng.pick(&[AtomicUnit::Sector, AtomicUnit::Block]),
        stamps: rng.chance(0.5),
        writers: if seed & BESIDE == 0 { Writers::Caller } else { Writers::Stepped { seed: seed ^ 0x5eed } },
        behind_bytes_max: [16 << 10, 64 << 10, 1 << 20][usize::try_from(seed % 3).unwrap_or(0)],
        sabotage: Sabotage::default(),
    };
    let trouble = rng.pick(&[0, 5, 15]);
    let ops = (0..40 + rng.below(120)).map(|_| step(&mut rng, &world, trouble)).collect();
    MirrorHistory { world, ops }
}

fn step(rng: &mut SimRng, world: &WorldConfig, trouble: u64) -> MirrorOp {
    let down = if rng.chance(0.4) { Down::Kill } else { Down::Power };
    let copy = rng.below(8);
    if rng.below(100) < trouble {
        return match rng.below(12) {
            0..=2 => MirrorOp::Arm(rng.below(40), down),
            3 => MirrorOp::Crash(down),
            4..=6 => MirrorOp::CopyFails(copy, u8::try_from(rng.below(3)).unwrap_or(0), rng.chance(0.5)),
            7 => MirrorOp::MetaFails(rng.chance(0.5)),
            8 => MirrorOp::Harm(rng.next_u64()),
            9 => match rng.next_u64() {
                seed if seed % 2 == 0 => MirrorOp::Rot(seed),
                seed => MirrorOp::Unreadable(seed),
            },
            10 => MirrorOp::SetBack(copy),
            _ => MirrorOp::SplitBrain(copy),
        };
    }
    let (place, most) = (rng.next_u64(), rng.pick(&[1, 8, 16, 200]));
    let length = 1 + rng.below(most);
    match rng.below(100) {
        0..=44 => MirrorOp::Write(place, length),
        45..=46 => MirrorOp::Zero(place, length),
        47..=54 => MirrorOp::Flush,
        55..=62 => MirrorOp::Read(place, length),
        63..=67 => MirrorOp::Offline(copy),
        68..=74 => MirrorOp::Online(copy),
        75..=78 => MirrorOp::Repair(4096 * (1 + rng.below(20))),
        79..=82 => MirrorOp::RepairAll,
        83..=84 => MirrorOp::Verify,
        85..=86 => MirrorOp::Resize(8 + rng.below(world.blocks * 2)),
        87..=89 => MirrorOp::Reopen,
        90..=91 => MirrorOp::Crash(down),
        92 => MirrorOp::Arm(rng.below(30), down),
        93 => MirrorOp::PowerCycle(copy),
        94..=95 => MirrorOp::Snapshot(copy),
        96 => MirrorOp::SetBack(copy),
        97 => MirrorOp::Clone(copy),
        98 => MirrorOp::Add,
        _ => MirrorOp::Remove(copy),
    }
}
