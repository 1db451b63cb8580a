//! Random histories: one seed gives a world and the steps in it.
//!
//! Every seed has a character of its own: which steps occur at all and how often, how large writes and volumes are, whether
//! storage misbehaves. So that rare combinations occur in some seeds rather than hardly ever in all.

use super::{
    op::{Down, FaultKind, Fill, Op, Place, Recover, When},
    world::WorldConfig,
};
use crate::{
    capture::Coalescing,
    io::simulated::{AtomicUnit, CrashPolicy, SimRng},
    units::{SECTOR_BYTES, to_len},
};

const KIB: u64 = 1024 / SECTOR_BYTES;
const MIB: u64 = 1024 * KIB;
/// Enough for an open frame to be committed by its age.
const FRAME_AGE_NS: i64 = 300_000_000;

/// One in so many seeds coalesces; the histories of the others do not depend on it.
const COALESCED_EACH: u64 = 8;
/// Which one of them.
const COALESCED: u64 = 3;

/// One in so many seeds resizes volumes; the histories of the others do not depend on it either.
const RESIZED_EACH: u64 = 8;
/// Which one of them.
const RESIZED: u64 = 5;

/// A world and what happens in it.
#[derive(Clone, Debug)]
pub struct History {
    /// How the world is made.
    pub world: WorldConfig,
    /// What happens.
    pub ops: Vec<Op>,
    /// Arguments of the example `simulate` that run it again.
    pub repeat: String,
}

/// Kinds of steps, each with a weight of its own.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Write,
    Zeroes,
    Discard,
    Flush,
    Bookmark,
    BookmarkChange,
    Volume,
    Import,
    Step,
    Clock,
    Read,
    Hold,
    Refused,
    Check,
    ReadOnly,
    Reopen,
    Fault,
    Full,
    Heal,
    Down,
    DownAt,
}

/// Kind, usual weight, probability that a seed has it at all.
const KINDS: [(Kind, u64, f64); 21] = [
    (Kind::Write, 300, 0.98),
    (Kind::Zeroes, 30, 0.6),
    (Kind::Discard, 30, 0.6),
    (Kind::Flush, 50, 0.9),
    (Kind::Bookmark, 25, 0.7),
    (Kind::BookmarkChange, 15, 0.5),
    (Kind::Volume, 5, 0.4),
    (Kind::Import, 4, 0.3),
    (Kind::Step, 60, 0.8),
    (Kind::Clock, 25, 0.7),
    (Kind::Read, 30, 0.5),
    (Kind::Hold, 20, 0.4),
    (Kind::Refused, 6, 0.5),
    (Kind::Check, 8, 0.7),
    (Kind::ReadOnly, 6, 0.4),
    (Kind::Reopen, 10, 0.5),
    (Kind::Fault, 16, 0.4),
    (Kind::Full, 8, 0.2),
    (Kind::Heal, 16, 0.8),
    (Kind::Down, 12, 0.7),
    (Kind::DownAt, 16, 0.7),
];

struct Character {
    kinds: Vec<(Kind, u64)>,
    total: u64,
    /// Largest usual write, sectors.
    write_max: u64,
    /// Probability of a write of megabytes.
    large: f64,
    /// Probability of a place where something was written before.
    again: f64,
    whole_blocks: bool,
    given_times: f64,
    places: Vec<u64>,
}

/// The history of a seed.
pub fn generate(seed: u64) -> History {
    let mut rng = SimRng::new(seed ^ 0x5eed_c0de);
    let world = world(seed, &mut rng);
    let mut character = character(&mut rng, world.volume_sectors);
    let length = rng.pick(&[10, 30, 60, 60, 120]);
    let mut ops = Vec::new();
    for _ in 0..length {
        let op = op(&mut rng, &mut character);
        // So that frames pile up that are written and not synced.
        if op == Op::Step(1) && rng.chance(0.8) {
            ops.push(Op::Clock(FRAME_AGE_NS));
        }
        ops.push(op);
    }
    if seed % COALESCED_EACH == COALESCED {
        ops = coalesced(seed, ops);
    }
    if seed % RESIZED_EACH == RESIZED {
        ops = resized(seed, &world, ops);
    }
    History { world, ops, repeat: format!("--seed {seed} --shrink") }
}

/// The steps of a history with changes of coalescing in between, and with times that lie closer to each other.
fn coalesced(seed: u64, ops: Vec<Op>) -> Vec<Op> {
    let mut rng = SimRng::new(seed ^ 0x00c0_a1e5);
    let length = rng.pick(&[1_000_000, 5_000_000, 5_000_000, 1_000_000_000]);
    let any = |rng: &mut SimRng| {
        rng.pick(&[
            Coalescing::IntervalNs(length),
            Coalescing::IntervalNs(length),
            Coalescing::PerBarrier,
            Coalescing::PerBarrier,
            Coalescing::PerWrite,
        ])
    };
    let begins = rng.below(8);
    let changes = rng.pick(&[0.0, 0.03, 0.1]);
    let ticks = rng.pick(&[0.0, 0.2, 0.5]);
    let mut out = Vec::new();
    for (index, op) in (0..).zip(ops) {
        if index == begins || rng.chance(changes) {
            out.push(Op::Coalesce(any(&mut rng)));
        }
        if rng.chance(ticks) {
            out.push(Op::Clock(rng.pick(&[200_000, 1_000_000, 3_000_000])));
        }
        out.push(op);
    }
    out
}

/// The steps of a history with changes of sizes in between: back and forth around the places that are written, and to the sector.
fn resized(seed: u64, world: &WorldConfig, ops: Vec<Op>) -> Vec<Op> {
    let mut rng = SimRng::new(seed ^ 0x0051_2e5d);
    let often = rng.pick(&[0.05, 0.1, 0.3]);
    let mut out = Vec::new();
    for op in ops {
        if rng.chance(often) {
            let whole = world.volume_sectors;
            let part = 1 + rng.below(whole);
            let sectors = rng.pick(&[whole, whole, part, part, (part / 8).max(1) * 8, whole + 9, 1]);
            let volume = if rng.chance(0.8) { 0 } else { rng.next_u64() };
            out.push(Op::Resize { volume, sectors });
        }
        out.push(op);
    }
    out
}

fn world(seed: u64, rng: &mut SimRng) -> WorldConfig {
    let volume_sectors = match rng.below(40) {
        0 => 40 * MIB,
        1 => 3 << 31,
        2..7 => 4 * MIB,
        _ => rng.pick(&[1, 9, 128, 128, 512, 512, 2048]),
    };
    WorldConfig {
        seed,
        volume_sectors,
        imported: rng.chance(0.15) && volume_sectors <= 4 * MIB,
        unit: rng.pick(&[AtomicUnit::Block, AtomicUnit::Block, AtomicUnit::Sector]),
        segment_bytes: rng.pick(&[64 << 10, 128 << 10, 256 << 10, 256 << 10, 1 << 20, 4 << 20]),
        run_fanout: to_len(2 + rng.below(3)),
        page_cache_bytes: rng.pick(&[4096, 64 << 10, 1 << 20]),
        ..WorldConfig::default()
    }
}

fn character(rng: &mut SimRng, volume_sectors: u64) -> Character {
    let mut kinds = Vec::new();
    for (kind, weight, probability) in KINDS {
        if rng.chance(probability) {
            kinds.push((kind, weight * (1 + rng.below(4))));
        }
    }
    if kinds.is_empty() {
        kinds.push((Kind::Write, 1));
    }
    let total = kinds.iter().map(|(_, weight)| weight).sum();
    let places = (0..4).map(|_| rng.below(volume_sectors)).collect();
    Character {
        kinds,
        total,
        write_max: rng.pick(&[1, 8, 32, 32, 128, 512]),
        // Only these volumes have room for a write of several frames.
        large: if volume_sectors >= 4 * MIB { 0.1 } else { 0.0 },
        again: rng.pick(&[0.0, 0.5, 0.9]),
        whole_blocks: rng.chance(0.3),
        given_times: rng.pick(&[0.0, 0.0, 0.3, 1.0]),
        places,
    }
}

fn op(rng: &mut SimRng, character: &mut Character) -> Op {
    let mut left = rng.below(character.total);
    let mut kinds = character.kinds.iter();
    let kind = loop {
        match kinds.next() {
            Some((_, weight)) if left >= *weight => left -= weight,
            Some((kind, _)) => break *kind,
            None => break Kind::Flush,
        }
    };
    match kind {
        Kind::Write => write(rng, character),
        Kind::Zeroes => Op::WriteZeroes(range(rng, character), when(rng, character)),
        Kind::Discard => Op::Discard(range(rng, character), when(rng, character)),
        Kind::Flush if rng.chance(0.3) => Op::FlushVolume(rng.next_u64()),
        Kind::Flush => Op::Flush,
        Kind::Bookmark => {
            let at = rng.chance(0.3).then(|| rng.next_u64());
            Op::AddBookmark { variant: rng.next_u64(), at }
        }
        Kind::BookmarkChange if rng.chance(0.5) => Op::DeleteBookmark(rng.next_u64()),
        Kind::BookmarkChange => Op::LockBookmark(rng.next_u64(), rng.chance(0.5)),
        Kind::Volume => Op::AddVolume(rng.pick(&[1, 8, 100, 512])),
        Kind::Import => Op::Import {
            sectors: rng.pick(&[1, 8, 100, 512, 512, 3 * MIB]),
            seed: rng.next_u64(),
            fail_after: rng.chance(0.2).then(|| rng.below(8)),
        },
        Kind::Step if rng.chance(0.4) => Op::Step(1),
        Kind::Step => Op::Step(1 + rng.below(6)),
        Kind::Clock => Op::Clock(rng.pick(&[
            1,
            1_000_000,
            300_000_000,
            3_600_000_000_000,
            -1,
            -500_000_000,
            -7_200_000_000_000,
        ])),
        Kind::Read => Op::Read(place(rng, character, 600)),
        Kind::Hold if rng.chance(0.5) => Op::ReadHeld,
        Kind::Hold => Op::Hold(rng.next_u64()),
        Kind::Refused => Op::Refused(rng.next_u64()),
        Kind::Check => Op::Check,
        Kind::ReadOnly => Op::ReadOnly,
        Kind::Reopen => Op::Reopen,
        Kind::Fault => Op::Fault(fault(rng), rng.pick(&[0, 0, 0, 1, 2, 3, 5, 8])),
        Kind::Full => Op::Full(rng.pick(&[0, 4096, 64 << 10, 256 << 10, 1 << 20])),
        Kind::Heal => Op::Heal,
        Kind::Down => Op::Down(down(rng), recover(rng)),
        Kind::DownAt => Op::DownAt(changes(rng), down(rng), recover(rng)),
    }
}

fn place(rng: &mut SimRng, character: &mut Character, sectors_max: u64) -> Place {
    let volume = if rng.chance(0.6) { 0 } else { rng.next_u64() };
    let mut sectors = 1 + rng.below(sectors_max);
    let mut sector = if rng.chance(character.again) {
        let base = rng.pick(&character.places);
        (base + rng.below(24)).saturating_sub(12)
    } else {
        rng.next_u64()
    };
    if character.whole_blocks {
        sector &= !7;
        sectors = sectors.next_multiple_of(8);
    }
    let index = to_len(rng.below(4));
    if !rng.chance(character.again) {
        character.places[index] = sector;
    }
    Place { volume, sector, sectors }
}

fn write(rng: &mut SimRng, character: &mut Character) -> Op {
    let large = rng.chance(character.large);
    let most =
        if large { rng.pick(&[MIB + 1, 2 * MIB, 3 * MIB, 3 * MIB, 16 * MIB]) } else { character.write_max };
    let mut place = place(rng, character, most);
    if large && rng.chance(0.5) {
        place.sectors = most;
    }
    let fill = match rng.below(10) {
        0 => Fill::Zeroes,
        1 | 2 => Fill::Mixed(rng.next_u64()),
        _ => Fill::Stamped,
    };
    let parts = if rng.chance(0.2) { 1 + rng.below(16) } else { 0 };
    Op::Write { place, fill, when: when(rng, character), parts }
}

fn range(rng: &mut SimRng, character: &mut Character) -> Place {
    let most = rng.pick(&[8, 64, 1024, u64::MAX / 2]);
    let mut place = place(rng, character, most.min(1 << 40));
    if most > 1 << 40 {
        // The whole volume, or all of it behind a place.
        place.sectors = u64::MAX / 2;
        if rng.chance(0.7) {
            place.sector = 0;
        }
    }
    place
}

fn when(rng: &mut SimRng, character: &Character) -> When {
    if rng.chance(character.given_times) {
        When::After(rng.pick(&[0, 0, 1, 1_000, 1_000_000_000]))
    } else {
        When::Clock
    }
}

fn fault(rng: &mut SimRng) -> FaultKind {
    rng.pick(&[
        FaultKind::Write,
        FaultKind::Write,
        FaultKind::ShortWrite,
        FaultKind::Sync,
        FaultKind::Sync,
        FaultKind::SyncNames,
        FaultKind::Create,
        FaultKind::SetSize,
        FaultKind::NoSpaceWrite,
        FaultKind::NoSpaceSync,
        FaultKind::NoSpaceCreate,
    ])
}

fn changes(rng: &mut SimRng) -> u64 {
    let most = rng.pick(&[3, 10, 10, 30]);
    1 + rng.below(most)
}

fn down(rng: &mut SimRng) -> Down {
    if rng.chance(0.2) {
        return Down::Kill;
    }
    let policy = match rng.below(10) {
        0 => CrashPolicy::KeepUnsynced,
        1 | 2 => CrashPolicy::LoseUnsynced,
        _ => CrashPolicy::Random,
    };
    Down::Crash { policy, seed: rng.next_u64() }
}

fn recover(rng: &mut SimRng) -> Recover {
    let count = rng.pick(&[0, 0, 0, 1, 1, 3]);
    let crashes = (0..count).map(|_| (changes(rng), down(rng))).collect();
    let fault = rng.chance(0.2).then(|| (fault(rng), rng.below(6)));
    Recover { crashes, look_first: rng.chance(0.5), fault }
}
