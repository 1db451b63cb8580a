//! What the oracle knows of coalesced writes.
//!
//! A row of stretches, each behind a seq with its way of coalescing, and the states at barriers. Every state has its content in the
//! [`Model`](super::model::Model) whether it is a point or not: a store may show a state that need not be a point, but only as it was.

use super::mismatch::Mismatch;
use crate::{capture::Coalescing, units::Seq};
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug)]
struct Stretch {
    behind: Seq,
    coalescing: Coalescing,
    /// Whether a crash leaves it.
    certain: bool,
}

/// How writes were coalesced, by seq.
#[derive(Clone, Debug, Default)]
pub struct Stretches {
    row: Vec<Stretch>,
    barriers: BTreeSet<Seq>,
    /// What was recovered last: it may be the middle of an interval, which no later barrier ends.
    recovered: Seq,
}

impl Stretches {
    /// A stretch begins behind a seq; `certain`: also after a crash.
    pub(super) fn set(&mut self, behind: Seq, coalescing: Coalescing, certain: bool) {
        if certain {
            self.row.iter_mut().for_each(|stretch| stretch.certain = true);
        }
        self.row.push(Stretch { behind, coalescing, certain });
    }

    /// The state of a seq was flushed.
    pub(super) fn barrier(&mut self, seq: Seq) {
        if seq > self.recovered && self.at(seq) == Coalescing::PerBarrier {
            self.barriers.insert(seq);
        }
    }

    /// How the write of a seq was coalesced.
    pub fn at(&self, seq: Seq) -> Coalescing {
        let stretch = self.row.iter().rfind(|stretch| stretch.behind < seq);
        stretch.map_or(Coalescing::PerWrite, |stretch| stretch.coalescing)
    }

    /// How the next write is coalesced.
    pub fn now(&self) -> Coalescing {
        self.row.last().map_or(Coalescing::PerWrite, |stretch| stretch.coalescing)
    }

    /// Whether writes were ever coalesced.
    pub fn is_used(&self) -> bool {
        !self.row.is_empty()
    }

    /// Whether a flush succeeded at a seq whose write was coalesced by barrier.
    pub fn is_barrier(&self, seq: Seq) -> bool {
        self.barriers.contains(&seq)
    }

    /// The length of the row that explains what a store shows: the last stretches may be missing where that is not certain and no
    /// write behind them is there.
    fn explained(&self, newest: Seq, shown: Coalescing) -> Option<usize> {
        for length in (0..=self.row.len()).rev() {
            let coalescing = match length.checked_sub(1) {
                Some(last) => self.row[last].coalescing,
                None => Coalescing::PerWrite,
            };
            if coalescing == shown && self.row[..length].iter().all(|stretch| stretch.behind <= newest) {
                return Some(length);
            }
            let last = self.row.get(length.checked_sub(1)?)?;
            if last.certain || last.behind < newest {
                return None;
            }
        }
        None
    }

    pub(super) fn admits(&self, newest: Seq, shown: Coalescing) -> Result<(), Mismatch> {
        match self.explained(newest, shown) {
            Some(_) => Ok(()),
            None => Err(Mismatch::new("coalescing", format!("{:?}", self.row), format!("{shown:?}"))),
        }
    }

    pub(super) fn recovered(&mut self, newest: Seq, shown: Coalescing) {
        self.row.truncate(self.explained(newest, shown).unwrap_or(self.row.len()));
        self.row.iter_mut().for_each(|stretch| stretch.certain = true);
        self.barriers.retain(|barrier| *barrier <= newest);
        self.recovered = newest;
    }
}
