//! What is alive: how much of each segment is still needed, and what is worth rewriting for it.

use super::{Damaged, DeadLimits};
use crate::{
    error::Result,
    format::{PAGE_BYTES, manifest::RunId},
    group::Group,
    index::{Classes, Needed, Run, Scan},
    limits::RESERVE_BYTES_MIN,
    sabotage::{Sabotage, Switch},
    units::{SECTOR_BYTES, Seq},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Most bytes of survivors that one round moves: their places are kept in memory.
const SURVIVOR_BYTES_MAX: u64 = 1 << 30;
/// Most entries of survivors that one round moves, at 48 bytes each.
const SURVIVORS_MAX: u64 = 512 << 10;
/// Most segments that one round lets go: the manifest edit is one record.
const VICTIMS_MAX: usize = 8192;
/// Bytes of an entry of the index.
const ENTRY_BYTES: u64 = 22;
/// Of the entries of a run, one in so many must be dead before it is rewritten along with others.
const DEAD_ENTRIES_ONE_IN: u64 = 4;
/// Bytes that a round frees for each byte of the index that it rewrites, unless too much is dead.
const WORTH_TIMES: u64 = 4;

/// A segment that may go: nothing in it belongs to the full range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Bytes that it takes up.
    pub bytes: u64,
    /// Whether moving its survivors would gain nothing but what is dead: it holds no more than payload, a header and a table.
    pub compacted: bool,
    /// Extent of its frame table, which may hold pages of the index as the segment itself may.
    pub table: u64,
    /// Seqs of its entries, but for a write that goes on behind it; for a compacted segment all that there are.
    pub seqs: (Seq, Seq),
}

/// All segments, and what they take up.
pub(crate) struct Segments {
    /// Bytes that cannot go in any case.
    pub fixed_bytes: u64,
    /// The last seq and size of each that may go when nothing in it is needed.
    pub sealed: BTreeMap<u64, Candidate>,
}

impl Candidate {
    /// Bytes that would not be needed any more, were its survivors moved.
    fn dead(&self, alive: &Alive) -> u64 {
        let stays = (alive.sectors * SECTOR_BYTES).next_multiple_of(PAGE_BYTES);
        let frame = if self.compacted && alive.sectors > 0 { 2 * PAGE_BYTES } else { 0 };
        self.bytes.saturating_sub(stays + frame)
    }
}

impl Segments {
    /// Those of a group, without what is damaged.
    pub fn of(group: &Group, damaged: &Damaged) -> Self {
        let manifest = group.manifest.lock();
        let state = manifest.state();
        let mut found = Self { fixed_bytes: 0, sealed: BTreeMap::new() };
        for (extent, segment) in &state.segments {
            // One that is being filled has hardly anything yet, and more room than a small store has in all.
            let Some(sealed) = &segment.sealed else { continue };
            let bytes = sealed.extent_bytes.max(sealed.frames_end);
            if damaged.segments.contains(extent) {
                found.fixed_bytes += bytes;
                continue;
            }
            let seqs = (Seq::ZERO, sealed.last_seq);
            found.sealed.insert(
                extent.get(),
                Candidate { bytes, compacted: false, table: sealed.table_extent.get(), seqs },
            );
        }
        for (extent, segment) in &state.compacted {
            if damaged.segments.contains(extent) {
                found.fixed_bytes += segment.bytes;
            } else {
                let seqs = (Seq::ZERO, Seq::ZERO);
                found.sealed.insert(
                    extent.get(),
                    Candidate { bytes: segment.bytes, compacted: true, table: extent.get(), seqs },
                );
            }
        }
        found
    }
}

/// What the scan knows of one segment.
#[derive(Clone, Debug, Default)]
struct Alive {
    sectors: u64,
    entries: u64,
    /// Runs with entries that point into it, by their place in the scan.
    runs: Vec<u16>,
}

/// A scan that counts what is needed.
pub(crate) struct Tally {
    scan: Scan,
    needed: Needed,
    full_from: Seq,
    /// Runs that reach below the full range and cannot be read: what only they know of is not known to be dead.
    unread: Vec<(Seq, Seq)>,
    alive: Vec<Alive>,
    /// Place of a segment in `alive`.
    places: std::collections::HashMap<u64, u32>,
    last: (u64, u32),
    dropped: Vec<u64>,
}

/// How much one round may take on.
#[derive(Clone, Copy)]
pub(crate) struct RoundLimits {
    bytes: u64,
    entries: u64,
    victims: usize,
    /// Whether as little as can be is written, though a little more would free much more.
    tight: bool,
}

impl RoundLimits {
    /// Those of a round that may write so many bytes.
    pub const fn within(room: u64) -> Self {
        let bytes = if room < SURVIVOR_BYTES_MAX { room } else { SURVIVOR_BYTES_MAX };
        Self { bytes, entries: SURVIVORS_MAX, victims: VICTIMS_MAX, tight: false }
    }

    /// Those of a full storage, where so many bytes are known to be free.
    pub fn tight(room: u64) -> Self {
        Self { tight: true, ..Self::within(room.max(RESERVE_BYTES_MIN)) }
    }

    /// None, to see what all rounds together come to.
    pub const NONE: Self = Self { bytes: u64::MAX, entries: u64::MAX, victims: usize::MAX, tight: false };
}

/// What a round takes on.
pub(crate) struct Choice {
    /// Runs that are rewritten.
    pub inputs: Vec<Arc<Run>>,
    /// Runs that are looked at.
    pub neighbours: Vec<Arc<Run>>,
    /// Segments that go.
    pub victims: BTreeSet<u64>,
    /// Bytes that it frees, about.
    pub freed_bytes: u64,
}

impl Tally {
    /// A tally of a group; `None` when no run reaches below the full range.
    pub fn new(group: &Group, classes: Arc<Classes>, damaged: &Damaged) -> Result<Option<Self>> {
        let full_from = Seq::new(classes.full_from());
        let view = group.view();
        // A segment that ends at the full range may hold the first parts of the write behind it.
        let reach = view.runs.iter().filter(|run| run.meta().seq_min <= full_from.next());
        let bad = |run: &Arc<Run>| RunId::of(run.meta()).is_none_or(|id| damaged.runs.contains(&id));
        let (unread, read): (Vec<Arc<Run>>, Vec<Arc<Run>>) = reach.cloned().partition(bad);
        if read.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            dropped: vec![0; read.len()],
            scan: Scan::new(read)?,
            needed: Needed::new(classes),
            full_from,
            unread: unread.iter().map(|run| (run.meta().seq_min, run.meta().seq_max)).collect(),
            alive: Vec::new(),
            places: std::collections::HashMap::new(),
            last: (u64::MAX, 0),
        }))
    }

    /// The runs that it reads.
    pub fn runs(&self) -> &[Arc<Run>] {
        self.scan.runs()
    }

    /// Reads on; whether all was read.
    pub fn step(&mut self, entries: u64) -> Result<bool> {
        for _ in 0..entries {
            let Some(met) = self.scan.advance()? else { return Ok(true) };
            let needed = !met.repeats && self.needed.is_needed(&met.entry);
            if !needed {
                self.dropped[met.run] += 1;
            }
            if met.entry.content.is_data() {
                let alive = self.alive_mut(met.entry.content.segment);
                let run = u16::try_from(met.run).unwrap_or(u16::MAX);
                if !alive.runs.contains(&run) {
                    alive.runs.push(run);
                }
                if needed {
                    alive.entries += 1;
                    alive.sectors += u64::from(met.entry.content.mask().count_ones());
                }
            }
        }
        Ok(false)
    }

    fn alive_mut(&mut self, segment: u64) -> &mut Alive {
        if self.last.0 != segment {
            let next = u32::try_from(self.alive.len()).unwrap_or(u32::MAX);
            let place = *self.places.entry(segment).or_insert(next);
            if place == next {
                self.alive.push(Alive::default());
            }
            self.last = (segment, place);
        }
        &mut self.alive[self.last.1 as usize]
    }

    fn alive_of(&self, segment: u64) -> Alive {
        self.places.get(&segment).map_or_else(Alive::default, |place| self.alive[*place as usize].clone())
    }

    /// Segments of which everything that is needed is known, with what of them is alive.
    fn candidates(&self, segments: &Segments) -> Vec<(u64, Candidate, Alive)> {
        let one = |(extent, candidate): (&u64, &Candidate)| {
            let (from, to) = candidate.seqs;
            let known = self.unread.is_empty() && from <= to;
            (known && to <= self.full_from).then(|| (*extent, *candidate, self.alive_of(*extent)))
        };
        segments.sealed.iter().filter_map(one).collect()
    }

    /// What is worth doing; `None`: nothing.
    pub fn choose(
        &self,
        segments: &Segments,
        may_stay: DeadLimits,
        limits: RoundLimits,
        sabotage: Sabotage,
    ) -> Option<Choice> {
        let candidates = self.candidates(segments);
        let movable: BTreeSet<u64> = candidates.iter().map(|(extent, ..)| *extent).collect();
        let of_others = segments.sealed.iter().filter(|(extent, _)| !movable.contains(extent));
        let mut alive_bytes: u64 = segments.fixed_bytes + of_others.map(|(_, one)| one.bytes).sum::<u64>();
        let mut dead_bytes = 0;
        for (_, candidate, alive) in &candidates {
            let dead = candidate.dead(alive);
            alive_bytes += candidate.bytes - dead;
            dead_bytes += dead;
        }
        let is_within =
            |dead: u64, percent: u64| u128::from(dead) * 100 <= u128::from(alive_bytes) * u128::from(percent);
        let begin = if limits.tight { may_stay.end_percent } else { may_stay.begin_percent };
        let begins = !is_within(dead_bytes, begin);
        let mut victims = BTreeSet::new();
        let mut inputs = BTreeSet::new();
        let (mut moved_bytes, mut moved_entries, mut freed_bytes) = (0, 0, 0);
        // The ones with the least alive for each dead byte come first; where room is short, the ones with the least alive.
        let mut order: Vec<_> = candidates.iter().collect();
        order.sort_by_key(|(extent, candidate, alive)| {
            let stays = candidate.bytes - candidate.dead(alive);
            let for_each = if limits.tight { 1 } else { candidate.bytes.max(1) };
            (u128::from(stays) * 1_000_000 / u128::from(for_each), *extent)
        });
        for (extent, candidate, alive) in order {
            let bytes = alive.sectors * SECTOR_BYTES;
            let dead = candidate.dead(alive);
            let little = dead < candidate.bytes / 32;
            if little && limits.tight {
                continue;
            }
            let is_enough = !begins || little || is_within(dead_bytes, may_stay.end_percent);
            // At least one that has survivors goes in each round.
            let too_many = moved_bytes > 0
                && (moved_bytes + bytes > limits.bytes || moved_entries + alive.entries > limits.entries);
            if alive.sectors > 0 && (is_enough || too_many) || victims.len() >= limits.victims {
                break;
            }
            victims.insert(*extent);
            if inputs.is_empty() || !sabotage.on(Switch::ForgetNeighbour) {
                inputs.extend(alive.runs.iter().map(|run| usize::from(*run)));
            }
            // A run that holds zeroes only points into no segment, and may lie in the footer of this one all the same.
            inputs.extend(self.runs_within([*extent, candidate.table]));
            moved_bytes += bytes;
            moved_entries += alive.entries;
            dead_bytes = dead_bytes.saturating_sub(dead);
            freed_bytes += dead;
        }
        let indexes_wait = limits.tight && !victims.is_empty();
        for (run, dropped) in self.dropped.iter().enumerate().filter(|_| !indexes_wait) {
            let entries = self.runs()[run].meta().entries;
            if *dropped > 0 && *dropped >= entries / DEAD_ENTRIES_ONE_IN {
                inputs.insert(run);
            }
        }
        if victims.is_empty() && inputs.is_empty() {
            return None;
        }
        if inputs.is_empty() {
            // Segments without entries: any run will do to let them go with.
            inputs.insert(0);
        }
        let (inputs, neighbours): (Vec<_>, Vec<_>) =
            self.runs().iter().enumerate().partition(|(place, _)| inputs.contains(place));
        let runs = |list: Vec<(usize, &Arc<Run>)>| list.into_iter().map(|(_, run)| run.clone()).collect();
        let dead_entries: u64 = inputs.iter().map(|(place, _)| self.dropped[*place]).sum();
        freed_bytes += dead_entries * ENTRY_BYTES;
        // What is dead as a whole goes without being copied, and yet not for less than it costs to rewrite the index.
        let rewritten: u64 = inputs.iter().map(|(_, run)| run.meta().bytes()).sum();
        if !begins && freed_bytes < rewritten * WORTH_TIMES {
            return None;
        }
        Some(Choice { inputs: runs(inputs), neighbours: runs(neighbours), victims, freed_bytes })
    }

    /// Runs with pages in one of these extents.
    fn runs_within(&self, extents: [u64; 2]) -> impl Iterator<Item = usize> + '_ {
        let lies_within =
            move |run: &Arc<Run>| run.meta().pieces.iter().any(|piece| extents.contains(&piece.extent.get()));
        self.runs().iter().enumerate().filter(move |(_, run)| lies_within(run)).map(|(place, _)| place)
    }
}

const _: () = assert!(VICTIMS_MAX < 1 << 16);
