//! Which versions are still needed.
//!
//! The points that stay cut the row of seqs into classes: a class holds the seqs after one kept point up to and including the next. Of the
//! versions of a sector in one class, only the newest is visible at its point, and if it is not visible there it is visible nowhere: so a
//! version is needed exactly if some sector of it is the newest in its class. Behind the last of these points every state stays, and
//! every version with it.
//!
//! One pass in the order of the index decides: it meets ranges before the blocks inside them, and newer versions before older ones.

use crate::format::packed::{PackedEntry, PackedKey};
use std::sync::Arc;

/// The stretch between two kept points, by number from the oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(u32);

impl Class {
    /// None at all.
    pub const NONE: Self = Self(u32::MAX);
    /// After the newest kept point: every version stays.
    pub const BEYOND: Self = Self(u32::MAX - 1);

    /// Its number from the oldest.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The points that stay, as the index sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// Seqs that stay, ascending, each once. Behind the last one all stay.
    kept: Vec<u64>,
    /// For each stretch of `1 << shift` seqs, how many of `kept` lie before it: where a search begins.
    before: Vec<u32>,
    shift: u32,
}

/// Stretches in which searches for a class begin, for each point that stays, at least; and at most in all.
const STRETCHES: (usize, usize) = (8, 1 << 16);

impl Classes {
    /// `singles` stay, and `full_from` and everything behind it.
    pub fn new(singles: impl IntoIterator<Item = u64>, full_from: u64) -> Self {
        let mut kept: Vec<u64> =
            singles.into_iter().filter(|seq| *seq < full_from).chain([full_from]).collect();
        kept.sort_unstable();
        kept.dedup();
        let wanted = (kept.len() * STRETCHES.0).next_power_of_two().min(STRETCHES.1);
        let shift = (u64::BITS - full_from.leading_zeros()).saturating_sub(wanted.trailing_zeros());
        let stretches = 0..=full_from >> shift;
        let before = stretches.map(|stretch| kept.partition_point(|kept| *kept < stretch << shift));
        let before = before.map(|count| u32::try_from(count).unwrap_or(u32::MAX)).collect();
        Self { kept, before, shift }
    }

    /// Number of kept points that end a class.
    pub fn points(&self) -> usize {
        self.kept.len()
    }

    /// The class of a seq.
    pub fn class_of(&self, seq: u64) -> Class {
        if seq > self.full_from() {
            return Class::BEYOND;
        }
        let mut at = self.before[crate::units::to_len(seq >> self.shift)] as usize;
        let mut tries = 0;
        while self.kept[at] < seq {
            at += 1;
            tries += 1;
            if tries == 8 {
                // Points that lie close together.
                at += self.kept[at..].partition_point(|kept| *kept < seq);
            }
        }
        Class(u32::try_from(at).unwrap_or(u32::MAX - 2))
    }

    /// The first and the last seq of a class.
    pub fn span(&self, class: Class) -> (u64, u64) {
        let (before, end) = match class {
            Class::BEYOND => (Some(self.full_from()), u64::MAX),
            class => (class.index().checked_sub(1).map(|before| self.kept[before]), self.kept[class.index()]),
        };
        (before.map_or(0, |before| before.saturating_add(1)), end)
    }

    /// The point at which a class ends.
    pub fn point_of(&self, class: Class) -> Option<u64> {
        self.kept.get(class.index()).copied()
    }

    /// Everything behind this seq stays.
    pub fn full_from(&self) -> u64 {
        self.kept.last().copied().unwrap_or(0)
    }
}

/// A range cell around the place of the walk: the newest seq of its own in each class, by descending class.
struct Around {
    key: PackedKey,
    newest: Vec<(Class, u64)>,
}

/// Tells of each version, in the order of the index, whether it is needed.
pub struct Needed {
    classes: Arc<Classes>,
    /// The class of the last seq, with its first and last seq.
    class: Class,
    span: (u64, u64),
    around: Vec<Around>,
    cell: u64,
    /// Class of the sectors in `covered`.
    covering: Class,
    covered: u8,
}

impl Needed {
    /// Nothing seen yet.
    pub fn new(classes: Arc<Classes>) -> Self {
        Self {
            classes,
            class: Class::NONE,
            span: (0, 0),
            around: Vec::new(),
            cell: u64::MAX,
            covering: Class::NONE,
            covered: 0,
        }
    }

    /// The class of the version that was looked at last.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether the version is needed. Each version is shown once, in the order of the index.
    pub fn is_needed(&mut self, entry: &PackedEntry) -> bool {
        let key = entry.key;
        let class = self.classify(key.seq());
        if class == Class::BEYOND {
            return true;
        }
        if !self.around.is_empty() {
            self.leave_ranges(key);
        }
        let hidden = self.around.iter().any(|range| range.hides(class, key.seq()));
        if key.level() > 0 {
            if hidden {
                return false;
            }
            match self.around.last_mut() {
                Some(range) if range.key.cell == key.cell => range.newest.push((class, key.seq())),
                _ => self.around.push(Around { key, newest: vec![(class, key.seq())] }),
            }
            return true;
        }
        if self.cell != key.cell || self.covering != class {
            (self.cell, self.covering, self.covered) = (key.cell, class, 0);
        }
        let shown = entry.content.mask() & !self.covered;
        self.covered |= entry.content.mask();
        shown != 0 && !hidden
    }

    fn classify(&mut self, seq: u64) -> Class {
        if self.class == Class::NONE || !(self.span.0..=self.span.1).contains(&seq) {
            self.class = self.classes.class_of(seq);
            self.span = self.classes.span(self.class);
        }
        self.class
    }

    fn leave_ranges(&mut self, key: PackedKey) {
        let inside = |range: &Around| {
            range.key.volume() == key.volume()
                && key.block() < range.key.block_end()
                && range.key.level() >= key.level()
        };
        while self.around.last().is_some_and(|range| !inside(range)) {
            self.around.pop();
        }
    }
}

impl Around {
    /// Whether a version of this class and seq lies under a newer one of this range in the same class.
    fn hides(&self, class: Class, seq: u64) -> bool {
        let found = self.newest.binary_search_by(|(other, _)| class.cmp(other));
        found.is_ok_and(|at| self.newest[at].1 > seq)
    }
}
