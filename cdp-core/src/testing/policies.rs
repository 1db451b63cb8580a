//! Small random policies on the scale of the simulated clock: windows of seconds.

use crate::{
    bookmark::BookmarkKind,
    io::simulated::SimRng,
    retention::{BookmarkFilter, BookmarkSelection, Keep, Policy, Slots, Window},
};

/// Nanoseconds of one step of the clock in histories with retention.
pub const TICK_NS: u64 = 1_000_000_000;

const KINDS: [BookmarkKind; 4] =
    [BookmarkKind::Application, BookmarkKind::FileSystem, BookmarkKind::User, BookmarkKind::System];

/// The policy of a seed; it is valid.
pub fn policy_of(seed: u64) -> Policy {
    let rng = &mut SimRng::new(seed ^ 0x9011_c1e5);
    let mut to = 0;
    let count = rng.pick(&[0, 1, 2, 2, 3, 3]);
    let mut windows = Vec::new();
    for index in 0..count {
        to += rng.pick(&[1, 2, 3, 5, 8, 20]) * TICK_NS;
        let keep = match rng.below(6) {
            0 | 1 if index == 0 => Keep::All,
            0 => Keep::None,
            _ => Keep::Every(slots(rng)),
        };
        windows.push(Window { to, keep, bookmarks: filter(rng) });
    }
    let max_age = rng.chance(0.3).then(|| to + rng.pick(&[0, 1, 4]) * TICK_NS).filter(|age| *age > 0);
    Policy { windows, max_age, ..Policy::default() }
}

fn slots(rng: &mut SimRng) -> Slots {
    let first = rng.below(4);
    let prefer = (0..rng.below(4)).map(|next| KINDS[usize::try_from((first + next) % 3).unwrap_or(0)]);
    Slots {
        interval: rng.pick(&[TICK_NS / 2, TICK_NS, 2 * TICK_NS, 4 * TICK_NS]),
        per_slot: rng.pick(&[1, 1, 2, 3]),
        prefer: prefer.collect(),
    }
}

fn filter(rng: &mut SimRng) -> BookmarkFilter {
    match rng.below(4) {
        0 => BookmarkFilter::None,
        1 => BookmarkFilter::All,
        _ => BookmarkFilter::Only(BookmarkSelection {
            kinds: Some(vec![rng.pick(&KINDS)]),
            types: rng.chance(0.2).then(|| vec!["postgresql".to_owned()]),
            names: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: histories are about policies that a store takes. Method: many seeds.
    #[test]
    fn random_policies_are_valid() {
        for seed in 0..2000 {
            policy_of(seed).validate().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
}
