//! Random histories with taps: one seed gives a world and the steps in it. Every seed has a character of its own: which steps occur at all
//! and how often, how large volumes and writes are, whether storage and sources misbehave.

use super::{
    FRAME_AGE_NS, TapWorldConfig,
    op::{Claim, Handover, TapDown, TapOp, TapRecover},
};
use crate::{
    ActivityLog,
    io::simulated::{AtomicUnit, CrashPolicy, SimRng},
    sabotage::Sabotage,
    testing::op::{FaultKind, Place},
    units::{len_u64, to_len},
};

/// A world and what happens in it.
#[derive(Clone, Debug)]
pub struct TapHistory {
    /// How the world is made.
    pub world: TapWorldConfig,
    /// What happens.
    pub ops: Vec<TapOp>,
    /// Arguments of the example `simulate` that run it again.
    pub repeat: String,
}

/// Kinds of steps.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Write,
    Pair,
    Stall,
    Unwatched,
    SourceFlush,
    Suspend,
    Resume,
    SuspendWithin,
    Interleave,
    SourceFault,
    Flush,
    Heartbeat,
    Bookmark,
    Step,
    Resync,
    Clock,
    Attach,
    Detach,
    Check,
    Look,
    Fault,
    Full,
    Heal,
    Reopen,
    Down,
    DownAt,
}

/// Kind, usual weight, probability that a seed has it at all.
const KINDS: [(Kind, u64, f64); 26] = [
    (Kind::Write, 300, 1.0),
    (Kind::Pair, 20, 0.5),
    (Kind::Stall, 12, 0.4),
    (Kind::Unwatched, 10, 0.5),
    (Kind::SourceFlush, 20, 0.8),
    (Kind::Suspend, 12, 0.6),
    (Kind::Resume, 40, 0.9),
    (Kind::SuspendWithin, 10, 0.3),
    (Kind::Interleave, 60, 0.7),
    (Kind::SourceFault, 8, 0.4),
    (Kind::Flush, 20, 0.8),
    (Kind::Heartbeat, 8, 0.4),
    (Kind::Bookmark, 25, 0.8),
    (Kind::Step, 150, 0.97),
    (Kind::Resync, 60, 0.5),
    (Kind::Clock, 60, 0.9),
    (Kind::Attach, 25, 0.9),
    (Kind::Detach, 8, 0.5),
    (Kind::Check, 8, 0.7),
    (Kind::Look, 12, 0.7),
    (Kind::Fault, 12, 0.4),
    (Kind::Full, 5, 0.25),
    (Kind::Heal, 12, 0.7),
    (Kind::Reopen, 6, 0.4),
    (Kind::Down, 8, 0.5),
    (Kind::DownAt, 10, 0.5),
];

const FAULTS: [FaultKind; 9] = [
    FaultKind::Write,
    FaultKind::ShortWrite,
    FaultKind::Sync,
    FaultKind::SyncNames,
    FaultKind::Create,
    FaultKind::SetSize,
    FaultKind::NoSpaceWrite,
    FaultKind::NoSpaceSync,
    FaultKind::NoSpaceCreate,
];

/// What a seed is like.
struct Character {
    weights: Vec<(Kind, u64)>,
    volumes: u64,
    sectors_max: u64,
    late: f64,
    back: bool,
    lose_sources: f64,
}

/// The history of a seed.
pub fn generate(seed: u64) -> TapHistory {
    let mut rng = SimRng::new(seed);
    let sizes: &[usize] = if rng.chance(0.7) { &[7, 40, 64, 130, 257] } else { &[257, 600, 2048, 4101] };
    let volumes: Vec<(usize, bool)> =
        (0..1 + rng.below(4)).map(|_| (rng.pick(sizes), rng.chance(0.7))).collect();
    let largest = volumes.iter().map(|(sectors, _)| *sectors).max().unwrap_or(8);
    let granularity = rng.pick(&[4096, 4096, 8192, 65_536, 1 << 20]);
    let log = ActivityLog {
        regions_active_max: to_len(rng.pick(&[4, 4, 6, 40])),
        region_bytes: rng.pick(&[4096, 16_384, 65_536, 4 << 20]).max(granularity),
    };
    let log = rng.chance(0.5).then(|| (log, rng.pick(&[0.5, 1.0])));
    let world = TapWorldConfig {
        seed,
        log,
        begins: rng.chance(0.6),
        far: false,
        pool_frames: to_len(rng.pick(&[2, 2, 3, 4])),
        granularity,
        unit: rng.pick(&[AtomicUnit::Block, AtomicUnit::Block, AtomicUnit::Sector]),
        segment_bytes: rng.pick(&[256 << 10, 1 << 20, 8 << 20]),
        sabotage: Sabotage::default(),
        volumes,
    };
    let scale = |rng: &mut SimRng, weight: u64| weight * rng.pick(&[1, 2, 4]) / 2;
    let weights = KINDS
        .into_iter()
        .filter_map(|(kind, weight, chance)| {
            // Drawn for each kind, so that leaving one out moves no other.
            if rng.chance(chance) { Some((kind, scale(&mut rng, weight).max(1))) } else { None }
        })
        .collect();
    let character = Character {
        weights,
        volumes: len_u64(world.volumes.len()),
        sectors_max: rng.pick(&[8, 24, 64, len_u64(largest), len_u64(largest)]),
        late: rng.pick(&[0.0, 0.1, 0.3]),
        back: rng.chance(0.2),
        lose_sources: rng.pick(&[0.0, 0.5, 1.0]),
    };
    let count = 20 + rng.below(140);
    let ops = (0..count).map(|_| character.op(&mut rng)).collect();
    TapHistory { world, ops, repeat: format!("--tap {seed}..{}", seed + 1) }
}

impl Character {
    fn kind(&self, rng: &mut SimRng) -> Kind {
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.below(total);
        for (kind, weight) in &self.weights {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        Kind::Write
    }

    fn place(&self, rng: &mut SimRng) -> Place {
        let most = rng.pick(&[1, 8, 17, self.sectors_max, self.sectors_max]);
        let mut sector = rng.next_u64() >> 16;
        if rng.chance(0.4) {
            sector -= sector % 8;
        }
        Place { volume: rng.below(self.volumes), sector, sectors: 1 + rng.below(most.max(1)) }
    }

    fn write(&self, rng: &mut SimRng, late: f64) -> TapOp {
        let by = match rng.below(12) {
            0..6 => Handover::Copied,
            6 | 7 => Handover::Vectored(1 + rng.below(9)),
            8 => Handover::Owned,
            9 => Handover::Zeroes,
            10 => Handover::Discard,
            _ if rng.chance(0.3) => Handover::Mark,
            _ => Handover::Copied,
        };
        let late = if rng.chance(late) { 1 + rng.below(6) } else { 0 };
        TapOp::Write { place: self.place(rng), by, late }
    }

    fn intrusion(&self, rng: &mut SimRng) -> Vec<TapOp> {
        let count = rng.below(4);
        let mut one = || match rng.below(16) {
            0 => TapOp::Suspend(rng.below(self.volumes)),
            1 => TapOp::Resume(rng.below(self.volumes)),
            2 => TapOp::Flush,
            3 => TapOp::Bookmark(false),
            4 => TapOp::SourceFlush(rng.below(self.volumes)),
            _ => self.write(rng, 0.0),
        };
        (0..count).map(|_| one()).collect()
    }

    fn down(&self, rng: &mut SimRng) -> TapDown {
        if rng.chance(0.4) {
            return TapDown::Kill;
        }
        let policies =
            [CrashPolicy::Random, CrashPolicy::Random, CrashPolicy::LoseUnsynced, CrashPolicy::KeepUnsynced];
        let policy = rng.pick(&policies);
        TapDown::PowerCut { policy, seed: rng.next_u64(), sources: rng.chance(self.lose_sources) }
    }

    fn recover(&self, rng: &mut SimRng) -> TapRecover {
        let count = if rng.chance(0.3) { 1 + rng.below(2) } else { 0 };
        let crashes = (0..count).map(|_| (1 + rng.below(12), self.down(rng))).collect();
        TapRecover { crashes, harm_maps: rng.chance(0.15) }
    }

    fn op(&self, rng: &mut SimRng) -> TapOp {
        let volume = rng.below(self.volumes);
        match self.kind(rng) {
            Kind::Write => self.write(rng, self.late),
            Kind::Pair => TapOp::Pair {
                place: self.place(rng),
                sectors: 1 + rng.below(self.sectors_max),
                swapped: rng.chance(0.6),
            },
            Kind::Stall => TapOp::Stall {
                place: self.place(rng),
                described: rng.chance(0.7),
                steps: rng.below(6),
                dies: rng.chance(0.3),
            },
            Kind::Unwatched => TapOp::Unwatched(self.place(rng)),
            Kind::SourceFlush => TapOp::SourceFlush(volume),
            Kind::Suspend => TapOp::Suspend(volume),
            Kind::Resume => TapOp::Resume(volume),
            Kind::SuspendWithin => TapOp::SuspendWithin(volume),
            Kind::Interleave => TapOp::Interleave(self.intrusion(rng), self.intrusion(rng)),
            Kind::SourceFault => TapOp::SourceFault(volume, 1 + rng.below(3)),
            Kind::Flush => TapOp::Flush,
            Kind::Heartbeat => TapOp::Heartbeat,
            Kind::Bookmark => TapOp::Bookmark(rng.chance(0.3)),
            Kind::Step => TapOp::Step(1 + rng.below(12)),
            Kind::Resync => TapOp::Resync(1 + rng.below(8)),
            Kind::Clock => {
                let choices = [1000, FRAME_AGE_NS, FRAME_AGE_NS, 2_000_000_000, 7_000_000_000];
                let by = rng.pick(&choices);
                TapOp::Clock(if self.back && rng.chance(0.3) { -by } else { by })
            }
            Kind::Attach => TapOp::Attach(
                volume,
                rng.pick(&[
                    Claim::AsRecorded,
                    Claim::AsRecorded,
                    Claim::Equal,
                    Claim::Tracked,
                    Claim::Unknown,
                ]),
            ),
            Kind::Detach => TapOp::Detach(volume),
            Kind::Check => TapOp::Check,
            Kind::Look => TapOp::Look,
            Kind::Fault => TapOp::Fault(rng.pick(&FAULTS), rng.below(8), rng.chance(0.3)),
            Kind::Full => TapOp::Full(rng.below(2 << 20)),
            Kind::Heal => TapOp::Heal,
            Kind::Reopen => TapOp::Reopen,
            Kind::Down => TapOp::Down(self.down(rng), self.recover(rng)),
            Kind::DownAt => TapOp::DownAt(1 + rng.below(20), self.down(rng), self.recover(rng)),
        }
    }
}
