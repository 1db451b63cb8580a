//! Generation ids: which line of writes a copy holds, with a bounded history.
//!
//! All copies that are equal share a generation. Before the first write that an absent copy misses, the others go over to a new one, durably; the
//! absent copy stays behind at the old one, which the others keep as their *base* and in their history. So two ids tell which copy is
//! ahead, and two copies that both went on from a common id tell of a split brain.
//!
//! An id is a number, which rises by one with each rotation, and a random tag, so that two that went on from the same base never agree.
//! Invariant *bounded*: at most [`GENERATIONS_MAX`] older ids are kept, the newest first; those at which other copies stand go last, so that one
//! that was away for long is still known. Concept: DRBD user's guide, generation identifiers.

use crate::{
    Error, Result,
    format::{Malformed, take_counter},
    limits::{COUNTER_END, GENERATIONS_MAX},
};
use bytes::{Buf, BufMut};
use std::fmt;

/// Names a line of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId {
    /// Rises with each rotation.
    pub number: u64,
    /// Drawn at random with each rotation.
    pub tag: u64,
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.tag)
    }
}

/// The generations of one copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Generations {
    current: GenerationId,
    base: Option<GenerationId>,
    older: Vec<GenerationId>,
}

/// How the generations of two copies stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same current id.
    Equal,
    /// The first went on from where the second is.
    Ahead,
    /// The second went on from where the first is.
    Behind,
    /// Both went on from a common id.
    Diverged,
    /// They have nothing in common.
    Unrelated,
}

impl Relation {
    /// The relation seen from the other side.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        match self {
            Self::Ahead => Self::Behind,
            Self::Behind => Self::Ahead,
            same => same,
        }
    }
}

impl Generations {
    /// The first generation of a set.
    pub fn first(tag: u64) -> Self {
        Self { current: GenerationId { number: 1, tag }, base: None, older: Vec::new() }
    }

    /// Generations from their parts; what is beyond [`GENERATIONS_MAX`] older ids is left out.
    pub fn new(current: GenerationId, base: Option<GenerationId>, older: &[GenerationId]) -> Self {
        Self { current, base, older: older.iter().take(GENERATIONS_MAX).copied().collect() }
    }

    /// The line of writes that the copy holds.
    pub fn current(&self) -> GenerationId {
        self.current
    }

    /// Where the copy that left last was equal to this one.
    pub fn base(&self) -> Option<GenerationId> {
        self.base
    }

    /// Older ids, the newest first.
    pub fn older(&self) -> &[GenerationId] {
        &self.older
    }

    /// Whether the copy holds, or went on from, this id.
    pub fn knows(&self, id: GenerationId) -> bool {
        self.current == id || self.base == Some(id) || self.older.contains(&id)
    }

    /// Goes over to a new id: what the copy holds from now on, others miss. `others`: where the other copies of the set stand.
    ///
    /// # Errors
    /// `InvalidArgument` at the end of the numbers, which no set reaches.
    pub fn rotate(&mut self, tag: u64, others: &[GenerationId]) -> Result<()> {
        let number = self.current.number + 1;
        if number >= COUNTER_END {
            return Err(Error::InvalidArgument("the generations of this mirror set are used up".into()));
        }
        self.base = Some(self.current);
        self.older.insert(0, self.current);
        while self.older.len() > GENERATIONS_MAX {
            let last = self.older.len() - 1;
            self.older.remove(self.older.iter().rposition(|id| !others.contains(id)).unwrap_or(last));
        }
        self.current = GenerationId { number, tag };
        Ok(())
    }

    /// How these stand to `other`: total, and mirrored when the two are swapped.
    pub fn relation(&self, other: &Self) -> Relation {
        if self.current == other.current {
            return Relation::Equal;
        }
        match (self.knows(other.current), other.knows(self.current)) {
            (true, false) => Relation::Ahead,
            (false, true) => Relation::Behind,
            // Each claims to have gone on from the other: no history gives that.
            (true, true) => Relation::Diverged,
            (false, false) => {
                let mut ids = self.base.iter().chain(&self.older);
                if ids.any(|id| other.knows(*id)) { Relation::Diverged } else { Relation::Unrelated }
            }
        }
    }

    /// Appends the bytes: current, whether there is a base and the base, number of older ids and the ids.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>, id: GenerationId| {
            out.put_u64_le(id.number);
            out.put_u64_le(id.tag);
        };
        put(out, self.current);
        out.put_u8(u8::from(self.base.is_some()));
        self.base.iter().for_each(|id| put(out, *id));
        out.put_u8(u8::try_from(self.older.len()).expect("at most GENERATIONS_MAX"));
        self.older.iter().for_each(|id| put(out, *id));
    }

    /// Takes the bytes off the front.
    pub(super) fn decode(input: &mut &[u8]) -> Result<Self, Malformed> {
        fn id(input: &mut &[u8]) -> Result<GenerationId, Malformed> {
            Ok(GenerationId { number: take_counter(input)?, tag: input.try_get_u64_le()? })
        }
        let current = id(input)?;
        let base = match input.try_get_u8()? {
            0 => None,
            1 => Some(id(input)?),
            _ => return Err(Malformed("mirror state: base of a generation")),
        };
        let count = usize::from(input.try_get_u8()?);
        if count > GENERATIONS_MAX {
            return Err(Malformed("mirror state: too many generations"));
        }
        let older = (0..count).map(|_| id(input)).collect::<Result<_, _>>()?;
        Ok(Self { current, base, older })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the copy that went on is ahead, and two that went on have diverged. Method: rotate one, then the other.
    #[test]
    fn whoever_goes_on_is_ahead_and_two_who_do_diverge() {
        let first = Generations::first(7);
        let (mut one, mut other) = (first.clone(), first.clone());
        assert_eq!(one.relation(&other), Relation::Equal);
        one.rotate(8, &[]).unwrap();
        assert_eq!((one.relation(&first), first.relation(&one)), (Relation::Ahead, Relation::Behind));
        other.rotate(9, &[]).unwrap();
        assert_eq!(one.relation(&other), Relation::Diverged);
        assert_eq!(one.relation(&Generations::first(1)), Relation::Unrelated);
    }

    /// Goal: the history is bounded, and what has fallen out of it is not known. Method: one rotation more than is kept.
    #[test]
    fn the_history_is_bounded() {
        let first = Generations::first(0);
        let mut ahead = first.clone();
        (0..GENERATIONS_MAX as u64).for_each(|tag| ahead.rotate(tag + 1, &[]).unwrap());
        assert_eq!(ahead.relation(&first), Relation::Ahead);
        ahead.rotate(99, &[]).unwrap();
        assert_eq!((ahead.older().len(), ahead.relation(&first)), (GENERATIONS_MAX, Relation::Unrelated));
        let mut bytes = Vec::new();
        ahead.encode(&mut bytes);
        let mut input = &bytes[..];
        assert_eq!(Generations::decode(&mut input), Ok(ahead));
        assert!(input.is_empty());
        (0..bytes.len()).for_each(|end| assert!(Generations::decode(&mut &bytes[..end]).is_err(), "{end}"));
    }

    /// Goal: a copy that was away through more rotations than are kept is still known. Method: rotate far beyond the bound.
    #[test]
    fn where_another_copy_stands_is_never_forgotten() {
        let away = Generations::first(1);
        let mut ahead = away.clone();
        (0..5 * GENERATIONS_MAX as u64).for_each(|tag| ahead.rotate(tag, &[away.current()]).unwrap());
        assert_eq!(ahead.older().len(), GENERATIONS_MAX);
        assert_eq!(ahead.relation(&away), Relation::Ahead);
        assert_eq!(away.relation(&ahead), Relation::Behind);
    }
}
