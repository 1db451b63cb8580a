//! Who repairs whom: a pure function over what is known of two copies.
//!
//! It is total, and swapping the arguments mirrors the decision. Rules that it holds (each is enumerated in the test below):
//! - *no unproved clean*: "nothing to do" needs equal ids, no bits on either side, a clean end and nothing that contradicts it;
//! - *split brain is refused*, never resolved: when both generations went on from a common one, when both copies lack blocks, or when what a
//!   copy holds contradicts its id while the other side has gone on, or contradicts it on both sides;
//! - *outside change*: a copy whose content contradicts its id, or that was changed behind the set's back, is compared as a whole;
//! - a copy that lacks blocks is never the one that others are repaired from.

use super::generation::{Generations, Relation};
use std::fmt;

/// What the sample of digests kept for a copy says about what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fingerprint {
    /// Every block of the sample is as it was left.
    Matches,
    /// There is no sample, or it cannot be read.
    Unknown,
    /// A block is not as it was left: an older snapshot, another disk, or a disk that was written elsewhere.
    Contradicts,
}

/// What is known of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// Number of the copy in its set; decides between two that are as good.
    pub number: u32,
    /// Its line of writes.
    pub generations: Generations,
    /// Its map names blocks that it lacks.
    pub lacks: bool,
    /// It was left in good order: no write was in flight.
    pub clean: bool,
    /// What its content says.
    pub fingerprint: Fingerprint,
    /// It may have been changed outside of the set, or its map cannot be used.
    pub need_compare: bool,
    /// It holds as many bytes as the volume.
    pub fits: bool,
}

/// Which copy is read and which is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first copy to the second.
    FirstToSecond,
    /// From the second copy to the first.
    SecondToFirst,
}

impl Direction {
    const fn mirrored(self) -> Self {
        match self {
            Self::FirstToSecond => Self::SecondToFirst,
            Self::SecondToFirst => Self::FirstToSecond,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The copies are equal.
    Nothing,
    /// Only the blocks that the map names differ.
    ByMap(Direction),
    /// Anything may differ: all of it is compared.
    ByComparison(Direction),
    /// Each holds something that the other does not: somebody must say which one is right.
    SplitBrain,
    /// They are not copies of the same volume, or cannot be.
    Unrelated,
}

impl Decision {
    /// The decision when the copies are given the other way round.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        match self {
            Self::ByMap(direction) => Self::ByMap(direction.mirrored()),
            Self::ByComparison(direction) => Self::ByComparison(direction.mirrored()),
            same => same,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing to do",
            Self::ByMap(Direction::FirstToSecond) => "copy first to second by map",
            Self::ByMap(Direction::SecondToFirst) => "copy second to first by map",
            Self::ByComparison(Direction::FirstToSecond) => "copy first to second by comparison",
            Self::ByComparison(Direction::SecondToFirst) => "copy second to first by comparison",
            Self::SplitBrain => "split brain",
            Self::Unrelated => "unrelated",
        })
    }
}

/// A decision, the rule that made it and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What is to be done.
    pub decision: Decision,
    /// Short name of the rule, stable.
    pub rule: &'static str,
    /// The rule in words.
    pub reason: &'static str,
}

const fn decided(decision: Decision, rule: &'static str, reason: &'static str) -> Handshake {
    Handshake { decision, rule, reason }
}

/// Decides about two copies.
pub fn handshake(first: &CopyState, second: &CopyState) -> Handshake {
    use Decision::{SplitBrain, Unrelated};
    if !first.fits || !second.fits {
        return decided(Unrelated, "size", "a copy does not have the size of the volume");
    }
    let relation = first.generations.relation(&second.generations);
    match relation {
        Relation::Unrelated => {
            return decided(Unrelated, "no-common-generation", "the copies have no generation in common");
        }
        Relation::Diverged => {
            let reason = "both copies went on from a common generation";
            return decided(SplitBrain, "both-moved-on", reason);
        }
        Relation::Equal | Relation::Ahead | Relation::Behind => {}
    }
    if first.lacks && second.lacks {
        return decided(SplitBrain, "both-lack-blocks", "each copy lacks blocks that the other may have");
    }
    if let Some(outcome) = contradicted(relation, first, second) {
        return outcome;
    }
    match relation {
        Relation::Ahead => went_on(Direction::FirstToSecond, first, second),
        Relation::Behind => went_on(Direction::SecondToFirst, second, first),
        _ => same_generation(first, second),
    }
}

/// What the contents say, where they contradict the ids.
fn contradicted(relation: Relation, first: &CopyState, second: &CopyState) -> Option<Handshake> {
    let wrong = |state: &CopyState| state.fingerprint == Fingerprint::Contradicts;
    let (direction, right) = match (wrong(first), wrong(second)) {
        (false, false) => return None,
        (true, true) => {
            let reason = "neither copy holds what its generation says";
            return Some(decided(Decision::SplitBrain, "both-contradict", reason));
        }
        (false, true) => (Direction::FirstToSecond, first),
        (true, false) => (Direction::SecondToFirst, second),
    };
    if relation != Relation::Equal {
        let reason = "one copy went on, and one does not hold what its generation says: it was changed elsewhere, swapped or set back";
        return Some(decided(Decision::SplitBrain, "moved-on-and-contradicts", reason));
    }
    if right.lacks {
        let reason = "one copy lacks blocks, and the other does not hold what its generation says";
        return Some(decided(Decision::SplitBrain, "lacks-and-contradicts", reason));
    }
    let reason = "a copy does not hold what its generation says: it was set back, swapped or changed outside of the set";
    Some(decided(Decision::ByComparison(direction), "contradicts", reason))
}

/// `ahead` went on from where `behind` is.
fn went_on(direction: Direction, ahead: &CopyState, behind: &CopyState) -> Handshake {
    if ahead.lacks {
        let reason = "the copy with the newer generation lacks blocks";
        return decided(Decision::SplitBrain, "newer-lacks-blocks", reason);
    }
    if behind.need_compare || ahead.need_compare {
        let reason = "one copy went on, and what else may have changed is not known";
        return decided(Decision::ByComparison(direction), "moved-on-uncertain", reason);
    }
    decided(Decision::ByMap(direction), "moved-on", "one copy went on while the other was away")
}

/// Both are of one generation, and neither contradicts it.
fn same_generation(first: &CopyState, second: &CopyState) -> Handshake {
    let uncertain = first.need_compare || second.need_compare;
    let to_second = if first.lacks != second.lacks {
        second.lacks
    } else if first.need_compare != second.need_compare {
        second.need_compare
    } else if first.clean != second.clean {
        first.clean
    } else {
        first.number <= second.number
    };
    let direction = if to_second { Direction::FirstToSecond } else { Direction::SecondToFirst };
    if uncertain {
        let reason = "a copy may have been changed outside of the set";
        return decided(Decision::ByComparison(direction), "outside-change", reason);
    }
    if first.lacks || second.lacks {
        let reason = "the generations are equal, and the map names blocks that a copy lacks";
        return decided(Decision::ByMap(direction), "equal-with-bits", reason);
    }
    if !first.clean || !second.clean {
        let reason = "writes were in flight: the regions that the activity log names are compared";
        return decided(Decision::ByMap(direction), "unclean", reason);
    }
    decided(
        Decision::Nothing,
        "equal",
        "the generations are equal, nothing was in flight, no block is missing",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::generation::GenerationId, *};

    const ID: fn(u64) -> GenerationId = |number| GenerationId { number, tag: number };

    /// Every state there is: the current id, a base and one older id out of three, and all flags.
    fn all_states(number: u32) -> Vec<CopyState> {
        let mut states = Vec::new();
        let maybe = |at: u64| (at > 0).then(|| ID(at));
        for code in 0..3 * 4 * 4 {
            let older: Vec<GenerationId> = maybe(code / 12).into_iter().collect();
            let generations = Generations::new(ID(code % 3 + 1), maybe(code / 3 % 4), &older);
            for flags in 0..16u8 {
                for fingerprint in [Fingerprint::Matches, Fingerprint::Unknown, Fingerprint::Contradicts] {
                    states.push(CopyState {
                        number,
                        generations: generations.clone(),
                        lacks: flags & 1 != 0,
                        clean: flags & 2 != 0,
                        fingerprint,
                        need_compare: flags & 4 != 0,
                        fits: flags & 8 != 0,
                    });
                }
            }
        }
        states
    }

    /// What no decision may do, whatever the states.
    fn check(first: &CopyState, second: &CopyState, decision: Decision) {
        let relation = first.generations.relation(&second.generations);
        let states = [first, second];
        let any = |test: fn(&CopyState) -> bool| states.iter().any(|state| test(state));
        let contradicts = |state: &CopyState| state.fingerprint == Fingerprint::Contradicts;
        let from_to = |direction| match direction {
            Direction::FirstToSecond => (first, second),
            Direction::SecondToFirst => (second, first),
        };
        match decision {
            Decision::Nothing => {
                assert_eq!(relation, Relation::Equal);
                assert!(!any(|state| state.lacks || state.need_compare || !state.clean || !state.fits));
                assert!(!any(contradicts));
            }
            Decision::ByMap(direction) | Decision::ByComparison(direction) => {
                let (from, to) = from_to(direction);
                assert!(!from.lacks && !contradicts(from), "never from a copy that is not right");
                assert!(
                    from.fits && to.fits && to.generations.relation(&from.generations) != Relation::Ahead
                );
                if let Decision::ByMap(_) = decision {
                    assert!(!any(contradicts) && !any(|state| state.need_compare), "a map is not enough");
                }
            }
            Decision::SplitBrain | Decision::Unrelated => {}
        }
        if first.fits && second.fits {
            let related = relation != Relation::Unrelated;
            let split = related
                && (relation == Relation::Diverged
                    || first.lacks && second.lacks
                    || contradicts(first) && contradicts(second));
            assert!(!split || decision == Decision::SplitBrain, "a split brain is reported");
        }
    }

    /// What is decided, without its direction.
    #[derive(Debug, PartialEq, Eq)]
    enum Kind {
        Nothing,
        ByMap,
        ByComparison,
        SplitBrain,
        Unrelated,
    }

    fn kind_of(decision: Decision) -> Kind {
        match decision {
            Decision::Nothing => Kind::Nothing,
            Decision::ByMap(_) => Kind::ByMap,
            Decision::ByComparison(_) => Kind::ByComparison,
            Decision::SplitBrain => Kind::SplitBrain,
            Decision::Unrelated => Kind::Unrelated,
        }
    }

    /// The specification, written from the rules and not from the code: each decision exactly where its condition holds, the first one that does.
    fn specified(first: &CopyState, second: &CopyState) -> Kind {
        let relation = first.generations.relation(&second.generations);
        let states = [first, second];
        let lacking = states.iter().filter(|state| state.lacks).count();
        let wrong: Vec<bool> =
            states.iter().map(|state| state.fingerprint == Fingerprint::Contradicts).collect();
        let wrong_count = wrong.iter().filter(|wrong| **wrong).count();
        let newer_lacks = match relation {
            Relation::Ahead => first.lacks,
            Relation::Behind => second.lacks,
            _ => false,
        };
        let right_lacks =
            wrong_count == 1 && states.iter().zip(&wrong).any(|(state, wrong)| !wrong && state.lacks);
        let split = relation == Relation::Diverged
            || lacking == 2
            || wrong_count == 2
            || wrong_count == 1 && relation != Relation::Equal
            || right_lacks
            || newer_lacks;
        if states.iter().any(|state| !state.fits) || relation == Relation::Unrelated {
            Kind::Unrelated
        } else if split {
            Kind::SplitBrain
        } else if wrong_count == 1 || states.iter().any(|state| state.need_compare) {
            Kind::ByComparison
        } else if relation != Relation::Equal || lacking > 0 || states.iter().any(|state| !state.clean) {
            Kind::ByMap
        } else {
            Kind::Nothing
        }
    }

    /// Goal: the handshake is total and symmetric, keeps its rules, and decides exactly as specified. Method: all pairs of all states, both ways round.
    #[test]
    fn every_pair_of_states_is_decided_symmetrically() {
        let (firsts, seconds) = (all_states(0), all_states(1));
        let mut met = std::collections::BTreeMap::new();
        for first in &firsts {
            for second in &seconds {
                let outcome = handshake(first, second);
                let swapped = handshake(second, first);
                assert_eq!(outcome.decision.mirrored(), swapped.decision, "{first:?} {second:?}");
                assert_eq!(outcome.rule, swapped.rule, "{first:?} {second:?}");
                check(first, second, outcome.decision);
                assert_eq!(kind_of(outcome.decision), specified(first, second), "{first:?} {second:?}");
                *met.entry(outcome.rule).or_insert(0u64) += 1;
            }
        }
        assert_eq!(met.len(), 15, "every rule is reached: {met:?}");
    }

    /// Goal: the three ways to tell a split brain, and the plain cases. Method: a table.
    #[test]
    fn the_cases_that_matter_are_named() {
        let state = |number, current: u64, older: &[u64]| CopyState {
            number,
            generations: Generations::new(
                ID(current),
                older.first().map(|id| ID(*id)),
                &older.iter().map(|id| ID(*id)).collect::<Vec<_>>(),
            ),
            lacks: false,
            clean: true,
            fingerprint: Fingerprint::Matches,
            need_compare: false,
            fits: true,
        };
        let (ahead, behind) = (state(0, 2, &[1]), state(1, 1, &[]));
        assert_eq!(handshake(&ahead, &behind).decision, Decision::ByMap(Direction::FirstToSecond));
        let other = state(1, 3, &[1]);
        assert_eq!(handshake(&ahead, &other).rule, "both-moved-on");
        let lacking = |copy: &CopyState| CopyState { lacks: true, ..copy.clone() };
        assert_eq!(handshake(&lacking(&ahead), &lacking(&behind)).rule, "both-lack-blocks");
        let set_back = CopyState { fingerprint: Fingerprint::Contradicts, ..behind.clone() };
        assert_eq!(handshake(&ahead, &set_back).rule, "moved-on-and-contradicts");
        let same = state(1, 2, &[1]);
        assert_eq!(handshake(&ahead, &same).decision, Decision::Nothing);
        assert_eq!(handshake(&ahead, &lacking(&same)).rule, "equal-with-bits");
    }
}
