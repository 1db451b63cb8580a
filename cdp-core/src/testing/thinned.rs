//! Random histories with retention: small policies of seconds, plans at any time, thinning in pieces and in one go, snapshots and
//! readers that hold on to what goes, bookmarks at older points, crashes and faults in all of it.
//!
//! Segments are small, so that a short history has many of them and thinning has something to let go.

use super::{
    exhaustive::Letter,
    generate::History,
    op::{Down, FaultKind, Fill, Op, Place, Recover, When},
    policies::{TICK_NS, policy_of},
    simulate::{Failure, run},
    world::{Coverage, WorldConfig},
};
use crate::{
    capture::Coalescing,
    io::simulated::{AtomicUnit, CrashPolicy, SimRng},
    retention::{BookmarkFilter, Keep, Policy, Window},
    sabotage::Sabotage,
    units::to_len,
};

const FRAME_AGE_NS: i64 = 300_000_000;
const TICK: i64 = TICK_NS.cast_signed();

/// Kinds of steps.
#[derive(Clone, Copy)]
enum Kind {
    Write,
    Large,
    Zeroes,
    Discard,
    Flush,
    Clock,
    Policy,
    Retain,
    Thin,
    Bookmark,
    BookmarkChange,
    Volume,
    Import,
    Step,
    Hold,
    ReadHeld,
    Reader,
    ReadReaders,
    Check,
    Look,
    Reopen,
    Fault,
    Full,
    Heal,
    Down,
    DownAt,
    DownInRetain,
}

/// Kind, usual weight, probability that a seed has it at all.
const KINDS: [(Kind, u64, f64); 27] = [
    (Kind::Write, 200, 1.0),
    (Kind::Large, 8, 0.2),
    (Kind::Zeroes, 20, 0.5),
    (Kind::Discard, 20, 0.5),
    (Kind::Flush, 40, 0.9),
    (Kind::Clock, 60, 0.95),
    (Kind::Policy, 6, 0.8),
    (Kind::Retain, 30, 0.95),
    (Kind::Thin, 20, 0.7),
    (Kind::Bookmark, 30, 0.7),
    (Kind::BookmarkChange, 10, 0.5),
    (Kind::Volume, 3, 0.2),
    (Kind::Import, 3, 0.2),
    (Kind::Step, 30, 0.7),
    (Kind::Hold, 12, 0.5),
    (Kind::ReadHeld, 12, 0.8),
    (Kind::Reader, 6, 0.4),
    (Kind::ReadReaders, 8, 0.8),
    (Kind::Check, 6, 0.6),
    (Kind::Look, 4, 0.4),
    (Kind::Reopen, 10, 0.6),
    (Kind::Fault, 10, 0.3),
    (Kind::Full, 6, 0.2),
    (Kind::Heal, 12, 0.8),
    (Kind::Down, 8, 0.5),
    (Kind::DownAt, 8, 0.4),
    (Kind::DownInRetain, 14, 0.6),
];

struct Character {
    kinds: Vec<(Kind, u64)>,
    total: u64,
    volume_sectors: u64,
    write_max: u64,
    /// Probability of a place among the first sectors.
    again: f64,
    ticks: &'static [i64],
    coalesced: bool,
}

/// The history of a seed.
pub fn generate(seed: u64) -> History {
    let mut rng = SimRng::new(seed ^ 0x7417_7e00);
    let volume_sectors = rng.pick(&[64, 128, 128, 512, 2048, 6144]);
    let world = WorldConfig {
        seed,
        volume_sectors,
        imported: rng.chance(0.1),
        unit: rng.pick(&[AtomicUnit::Block, AtomicUnit::Block, AtomicUnit::Sector]),
        segment_bytes: rng.pick(&[64 << 10, 64 << 10, 256 << 10, 3 << 20]),
        run_fanout: to_len(2 + rng.below(4)),
        page_cache_bytes: rng.pick(&[4096, 64 << 10, 1 << 20]),
        ..WorldConfig::default()
    };
    let mut kinds = Vec::new();
    for (kind, weight, probability) in KINDS {
        if rng.chance(probability) {
            kinds.push((kind, weight * (1 + rng.below(3))));
        }
    }
    let character = Character {
        total: kinds.iter().map(|(_, weight)| weight).sum(),
        kinds,
        volume_sectors,
        write_max: rng.pick(&[1, 8, 32, 32, 128]),
        again: rng.pick(&[0.0, 0.5, 0.9]),
        ticks: rng.pick(&[&[TICK], &[TICK / 4, TICK], &[TICK / 10, TICK, 5 * TICK, 20 * TICK]]),
        coalesced: rng.chance(0.1),
    };
    let mut ops = vec![Op::SetPolicy(rng.next_u64())];
    if character.coalesced {
        let ways = [Coalescing::PerBarrier, Coalescing::IntervalNs(TICK_NS / 4)];
        ops.push(Op::Coalesce(rng.pick(&ways)));
    }
    let length = rng.pick(&[20, 40, 60, 90]);
    for _ in 0..length {
        character.steps(&mut rng, &mut ops);
    }
    History { world, ops, repeat: format!("--thinned {seed}..{} --shrink", seed + 1) }
}

impl Character {
    fn steps(&self, rng: &mut SimRng, ops: &mut Vec<Op>) {
        let mut left = rng.below(self.total);
        let found = self.kinds.iter().find(|(_, weight)| match left.checked_sub(*weight) {
            Some(less) => {
                left = less;
                false
            }
            None => true,
        });
        let kind = found.map_or(Kind::Write, |(kind, _)| *kind);
        match kind {
            Kind::Write => {
                ops.push(self.write(rng));
                // Each flush ends a frame, and so a segment where there is room for one only.
                if rng.chance(0.5) {
                    ops.push(Op::Flush);
                }
                if rng.chance(0.3) {
                    ops.push(Op::Clock(rng.pick(self.ticks)));
                }
            }
            Kind::Large => {
                let place = Place { volume: 0, sector: rng.below(64), sectors: 1 + rng.below(5000) };
                ops.push(Op::Write { place, fill: Fill::Stamped, when: When::Clock, parts: 0 });
            }
            Kind::Zeroes => ops.push(Op::WriteZeroes(self.place(rng, 300), When::Clock)),
            Kind::Discard => ops.push(Op::Discard(self.place(rng, 2000), When::Clock)),
            Kind::Flush => ops.push(Op::Flush),
            Kind::Clock => ops.push(Op::Clock(rng.pick(self.ticks))),
            Kind::Policy => ops.push(Op::SetPolicy(rng.next_u64())),
            Kind::Retain => ops.push(self.retain(rng)),
            Kind::Thin => {
                ops.push(Op::Retain { later: self.later(rng), whole: false });
                for _ in 0..1 + rng.below(3) {
                    ops.push(Op::Thin(1 + rng.below(12), rng.pick(&[1, 5, 40, 1 << 16])));
                    if rng.chance(0.6) {
                        ops.extend([self.write(rng), Op::Flush]);
                    }
                }
            }
            Kind::Bookmark => {
                let at = rng.chance(0.3).then(|| rng.next_u64());
                ops.push(Op::AddBookmark { variant: rng.next_u64(), at });
            }
            Kind::BookmarkChange if rng.chance(0.4) => ops.push(Op::DeleteBookmark(rng.next_u64())),
            Kind::BookmarkChange => ops.push(Op::LockBookmark(rng.next_u64(), rng.chance(0.5))),
            Kind::Volume => ops.push(Op::AddVolume(rng.pick(&[8, 100]))),
            Kind::Import => {
                let fail_after = rng.chance(0.2).then(|| rng.below(4));
                ops.push(Op::Import {
                    sectors: rng.pick(&[8, 100, 512, 5000]),
                    seed: rng.next_u64(),
                    fail_after,
                });
            }
            Kind::Step => ops.extend([Op::Clock(FRAME_AGE_NS), Op::Step(1 + rng.below(6))]),
            Kind::Hold => ops.push(Op::Hold(rng.next_u64())),
            Kind::ReadHeld => ops.push(Op::ReadHeld),
            Kind::Reader => ops.push(Op::OpenReader),
            Kind::ReadReaders => {
                if rng.chance(0.5) {
                    ops.extend([Op::OpenReader, self.write(rng), Op::Flush, self.retain(rng)]);
                }
                ops.push(Op::ReadReaders);
                if rng.chance(0.5) {
                    ops.push(Op::CloseReaders);
                }
            }
            Kind::Check => ops.push(Op::Check),
            Kind::Look => ops.push(Op::ReadOnly),
            Kind::Reopen => ops.extend([Op::CloseReaders, Op::Reopen]),
            Kind::Fault => {
                ops.push(Op::Fault(fault(rng), rng.below(12)));
                if rng.chance(0.6) {
                    ops.push(self.retain(rng));
                }
            }
            Kind::Full => {
                ops.extend([Op::Full(rng.pick(&[0, 16 << 10, 128 << 10, 2 << 20])), self.retain(rng)])
            }
            Kind::Heal => ops.push(Op::Heal),
            Kind::Down => ops.push(Op::Down(down(rng), recover(rng))),
            Kind::DownAt => ops.push(Op::DownAt(1 + rng.below(20), down(rng), recover(rng))),
            Kind::DownInRetain => {
                let most = rng.pick(&[4, 16, 40]);
                ops.extend([Op::DownAt(1 + rng.below(most), down(rng), recover(rng)), self.retain(rng)]);
            }
        }
    }

    fn later(&self, rng: &mut SimRng) -> i64 {
        rng.pick(&[0, 0, TICK / 3, TICK, 3 * TICK, 10 * TICK, 100 * TICK, -TICK])
    }

    fn retain(&self, rng: &mut SimRng) -> Op {
        Op::Retain { later: self.later(rng), whole: rng.chance(0.8) }
    }

    fn place(&self, rng: &mut SimRng, sectors_max: u64) -> Place {
        let volume = if rng.chance(0.8) { 0 } else { rng.next_u64() };
        let sector = if rng.chance(self.again) { rng.below(24) } else { rng.below(self.volume_sectors) };
        Place { volume, sector, sectors: 1 + rng.below(sectors_max) }
    }

    fn write(&self, rng: &mut SimRng) -> Op {
        let fill = match rng.below(12) {
            0 => Fill::Zeroes,
            1 => Fill::Mixed(rng.next_u64()),
            _ => Fill::Stamped,
        };
        let when = if rng.chance(0.1) { When::After(rng.pick(&[0, 1, TICK_NS])) } else { When::Clock };
        Op::Write { place: self.place(rng, self.write_max), fill, when, parts: 0 }
    }
}

fn fault(rng: &mut SimRng) -> FaultKind {
    rng.pick(&[
        FaultKind::Write,
        FaultKind::ShortWrite,
        FaultKind::Sync,
        FaultKind::SyncNames,
        FaultKind::Create,
        FaultKind::SetSize,
        FaultKind::NoSpaceWrite,
        FaultKind::NoSpaceSync,
        FaultKind::NoSpaceCreate,
    ])
}

fn down(rng: &mut SimRng) -> Down {
    let policy = rng.pick(&[
        CrashPolicy::Random,
        CrashPolicy::Random,
        CrashPolicy::LoseUnsynced,
        CrashPolicy::KeepUnsynced,
    ]);
    if rng.chance(0.2) { Down::Kill } else { Down::Crash { policy, seed: rng.next_u64() } }
}

fn recover(rng: &mut SimRng) -> Recover {
    let count = rng.pick(&[0, 0, 0, 1, 2]);
    let crashes = (0..count).map(|_| (1 + rng.below(12), down(rng))).collect();
    Recover { crashes, look_first: rng.chance(0.4), fault: None }
}

/// Runs the history of a seed.
///
/// # Errors
/// As [`run`].
pub fn run_seed(seed: u64, sabotage: Sabotage) -> Result<Coverage, Box<Failure>> {
    let mut history = generate(seed);
    history.world.sabotage = sabotage;
    run(&history)
}

/// The first policy that is as wanted.
fn policy_like(wanted: impl Fn(&Policy) -> bool) -> Op {
    Op::SetPolicy((0..).find(|seed| wanted(&policy_of(*seed))).unwrap_or(0))
}

/// States of a few slots, and bookmarks by kind.
fn slots_policy() -> Op {
    policy_like(|policy| {
        let slots = |window: &Window| match &window.keep {
            Keep::Every(slots) => slots.interval == TICK_NS && slots.per_slot == 1,
            _ => false,
        };
        policy.windows.len() == 2
            && policy.windows.iter().all(slots)
            && policy.windows[0].bookmarks == BookmarkFilter::All
            && policy.windows[1].bookmarks != BookmarkFilter::All
            && policy.max_age.is_none()
    })
}

/// A few writes in each of some slots, over each other and beside each other, each in a segment of its own; some bookmarks.
fn slots_of_writes(slots: u64) -> Vec<Op> {
    let mut ops = vec![slots_policy()];
    for slot in 0..slots {
        for (sector, sectors) in [(0, 9), (slot * 4, 12), (3, 3)] {
            let place = Place { volume: 0, sector, sectors };
            ops.push(Op::Write { place, fill: Fill::Stamped, when: When::Clock, parts: 0 });
            ops.extend([Op::Flush, Op::Clock(TICK / 4)]);
        }
        ops.push(Op::AddBookmark { variant: slot | (slot & 1) << 12, at: None });
        let zeroes = Place { volume: 0, sector: 2, sectors: 17 };
        ops.extend([Op::WriteZeroes(zeroes, When::Clock), Op::Flush, Op::Clock(TICK / 4)]);
    }
    ops
}

/// Steps before all letters of [`alphabet`].
pub fn before_letters() -> Vec<Op> {
    let mut ops = slots_of_writes(2);
    ops.extend([Op::Clock(TICK), Op::Reopen]);
    ops
}

/// Letters for all short histories with retention.
pub fn alphabet() -> Vec<Letter> {
    let place = Place { volume: 0, sector: 5, sectors: 9 };
    let write = Op::Write { place, fill: Fill::Stamped, when: When::Clock, parts: 0 };
    vec![
        ("retain", vec![Op::Retain { later: 0, whole: true }]),
        ("all goes", vec![Op::Retain { later: 100 * TICK, whole: true }]),
        (
            "pieces",
            vec![
                Op::Retain { later: 4 * TICK, whole: false },
                Op::Thin(9, 3),
                write.clone(),
                Op::Thin(4, 40),
            ],
        ),
        ("bookmark", vec![Op::AddBookmark { variant: 3 << 10, at: Some(5) }]),
    ]
}

/// Kinds of faults that [`faults_in_a_run`] goes through.
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
/// Calls of each kind that fail in turn.
const FAULT_CALLS: u64 = 24;
/// Seeds of [`faults_in_a_run`].
pub const FAULT_SEEDS: u64 = FAULTS.len() as u64 * FAULT_CALLS;

/// A run of retention in which one call fails, of each kind and in turn. The store stays right, and a later run completes.
pub fn faults_in_a_run(seed: u64, sabotage: Sabotage) -> History {
    let (kind, call) = (FAULTS[to_len(seed / FAULT_CALLS) % FAULTS.len()], seed % FAULT_CALLS);
    let run = Op::Retain { later: 10 * TICK, whole: true };
    let mut ops = slots_of_writes(6);
    ops.extend([Op::Hold(9 << 8), Op::Fault(kind, call), run.clone(), Op::ReadHeld, Op::Heal, Op::Check]);
    ops.extend([run, Op::Check, Op::ReadHeld, Op::Reopen, Op::Check]);
    history("faults-in-a-run", seed, sabotage, ops)
}

/// The record of a plan fails, and so does the new manifest that should take its place: it may be there or not. What is done then must
/// fit both.
pub fn plans_in_doubt(seed: u64, sabotage: Sabotage) -> History {
    let mut rng = SimRng::new(seed);
    let mut ops = slots_of_writes(4);
    ops.extend([
        Op::Fault(rng.pick(&[FaultKind::Sync, FaultKind::Write, FaultKind::NoSpaceSync]), rng.below(3)),
        Op::Full(0),
        Op::Retain { later: 10 * TICK, whole: rng.chance(0.5) },
        Op::AddBookmark { variant: 0, at: Some(rng.next_u64()) },
        Op::AddBookmark { variant: 1, at: Some(rng.next_u64()) },
        Op::Hold(rng.next_u64()),
        Op::ReadHeld,
    ]);
    let policy = rng.pick(&[CrashPolicy::KeepUnsynced, CrashPolicy::Random]);
    ops.push(Op::Down(Down::Crash { policy, seed }, Recover { look_first: true, ..Recover::default() }));
    ops.extend([Op::Check, Op::Retain { later: 10 * TICK, whole: true }, Op::Check]);
    history("plans-in-doubt", seed, sabotage, ops)
}

/// Everything before a write that is larger than a segment goes, and parts of that write lie in segments that end with the state before.
pub fn edge_at_a_large_write(seed: u64, sabotage: Sabotage) -> History {
    let mut rng = SimRng::new(seed);
    let edge = policy_like(
        |policy| matches!(&policy.windows[..], [Window { keep: Keep::All, to, .. }] if *to == TICK_NS),
    );
    let write = |sector, sectors| {
        let place = Place { volume: 0, sector, sectors };
        Op::Write { place, fill: Fill::Stamped, when: When::Clock, parts: 0 }
    };
    let mut ops = vec![edge];
    for _ in 0..1 + rng.below(3) {
        ops.extend([write(rng.below(5000), 9), Op::Flush, Op::Clock(TICK)]);
    }
    // A failure between its frames makes the later ones move on to another segment.
    let kind = rng.pick(&[FaultKind::Write, FaultKind::Sync]);
    ops.extend([write(0, 5000 + rng.below(3000)), Op::Clock(FRAME_AGE_NS), Op::Step(1 + seed % 8)]);
    ops.extend([Op::Fault(kind, rng.below(3)), Op::Flush, Op::Heal, Op::Clock(TICK / 2)]);
    ops.extend([write(7000, 8), Op::Flush, Op::Retain { later: 0, whole: true }, Op::Check]);
    history("edge-at-a-large-write", seed, sabotage, ops)
}

fn history(name: &str, seed: u64, sabotage: Sabotage, ops: Vec<Op>) -> History {
    let world = WorldConfig {
        seed,
        volume_sectors: 8192,
        sabotage,
        segment_bytes: 64 << 10,
        run_fanout: 2 + to_len(seed % 3),
        ..WorldConfig::default()
    };
    History { world, ops, repeat: format!("--directed {name} {seed}..{}", seed + 1) }
}
