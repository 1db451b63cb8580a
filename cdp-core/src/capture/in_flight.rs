//! Writes between their submission to the source and their end, and which of them overlap.
//!
//! Writes of one range that overlap in flight take effect in an order that nobody outside of the disk knows. So each says where it writes
//! before it is submitted, in a fixed table; the one that finds another there flags both. What is flagged is marked at its end and not taken
//! whole, and no gap closes while a flagged write is in flight. Without a lock, in a bounded number of steps, and nothing is allocated.
//!
//! Why no pair is missed: a write first publishes its range and then looks at all others, in one order that all threads agree on. So of two
//! that overlap at least one sees the other. One that is not flagged when its end begins is taken whole at once; whoever finds it there until
//! it has left the table flags it nevertheless, is itself flagged and not submitted yet, and so the range is marked after both.
//! A write that finds no room is in the *crowd*: it flags all that it overlaps, and while there is a crowd every write is flagged.

#[cfg(loom)]
use loom::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Release, SeqCst},
};
#[cfg(not(loom))]
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Release, SeqCst},
};

use std::ops::Range;

/// Loom takes sequentially consistent accesses for acquire and release ones and knows their order only from fences.
fn fence_for_loom() {
    #[cfg(loom)]
    loom::sync::atomic::fence(SeqCst);
}

/// States of a slot, in the low bits of its word; above them the number of its life, one more with each write.
const STATE: u64 = 3;
const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const ACTIVE: u64 = 2;
const FLAG: u64 = 1;
const FLAGGED: u64 = ACTIVE | FLAG;
const LIFE: u64 = 4;

/// On a line of its own: writes that come and go beside it are no business of this one.
#[repr(align(64))]
struct Slot {
    word: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
}

/// The writes in flight of one tap.
pub struct InFlightTable {
    slots: Box<[Slot]>,
    /// Slots from here on were never used.
    used: AtomicUsize,
    crowd: AtomicUsize,
}

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(Option<usize>);

impl InFlightTable {
    /// Room for `slots` writes. `None` when the memory cannot be reserved.
    pub fn new(slots: usize) -> Option<Self> {
        let mut table = Vec::new();
        table.try_reserve_exact(slots).ok()?;
        let slot = || Slot { word: AtomicU64::new(FREE), start: AtomicU64::new(0), end: AtomicU64::new(0) };
        table.resize_with(slots, slot);
        Some(Self { slots: table.into(), used: AtomicUsize::new(0), crowd: AtomicUsize::new(0) })
    }

    /// A write to these bytes is about to be submitted.
    pub fn begin(&self, bytes: Range<u64>) -> Ticket {
        for (at, slot) in self.slots.iter().enumerate() {
            let word = slot.word.load(SeqCst);
            if word & STATE != FREE
                || slot.word.compare_exchange(word, word | CLAIMED, SeqCst, SeqCst).is_err()
            {
                continue;
            }
            // Who reads one of these sees the claim, and with it that the life before has ended.
            slot.start.store(bytes.start, Release);
            slot.end.store(bytes.end, Release);
            // It never falls, so that who finds it high enough need not raise it.
            if self.used.load(SeqCst) <= at {
                self.used.fetch_max(at + 1, SeqCst);
            }
            slot.word.store(word | ACTIVE, SeqCst);
            fence_for_loom();
            if self.flag_others(Some(at), &bytes) || self.crowd.load(SeqCst) > 0 {
                slot.word.fetch_or(FLAG, SeqCst);
            }
            return Ticket(Some(at));
        }
        self.crowd.fetch_add(1, SeqCst);
        fence_for_loom();
        self.flag_others(None, &bytes);
        Ticket(None)
    }

    /// Flags all others that overlap. Says whether there is one.
    fn flag_others(&self, own: Option<usize>, bytes: &Range<u64>) -> bool {
        let mut found = false;
        for (at, slot) in self.slots[..self.used.load(SeqCst)].iter().enumerate() {
            let mut word = slot.word.load(SeqCst);
            while Some(at) != own && word & ACTIVE != 0 {
                let (start, end) = (slot.start.load(Acquire), slot.end.load(Acquire));
                let overlaps = start < bytes.end && bytes.start < end;
                let now = match overlaps && word & FLAG == 0 {
                    true => slot
                        .word
                        .compare_exchange(word, word | FLAG, SeqCst, SeqCst)
                        .unwrap_or_else(|now| now),
                    false => slot.word.load(SeqCst),
                };
                if now == word {
                    // The same life still: start and end are of it.
                    found |= overlaps;
                    break;
                }
                // Flagged by another, or another life.
                word = now;
            }
        }
        found
    }

    /// Whether the write has overlapped so far.
    pub fn is_flagged(&self, ticket: Ticket) -> bool {
        match ticket.0 {
            Some(at) => self.slots[at].word.load(SeqCst) & STATE == FLAGGED,
            None => true,
        }
    }

    /// The write has ended and was taken whole. False, and it stays in the table, when it is flagged: then it is marked too, before
    /// [`InFlightTable::end`].
    pub fn end_unless_flagged(&self, ticket: Ticket) -> bool {
        let Some(at) = ticket.0 else { return false };
        let word = &self.slots[at].word;
        let life = word.load(SeqCst) & !STATE;
        word.compare_exchange(life | ACTIVE, life.wrapping_add(LIFE) | FREE, SeqCst, SeqCst).is_ok()
    }

    /// The write has ended, and what is to be done about it is done.
    pub fn end(&self, ticket: Ticket) {
        match ticket.0 {
            None => drop(self.crowd.fetch_sub(1, SeqCst)),
            Some(at) => {
                let word = &self.slots[at].word;
                // Only flags are set by others meanwhile.
                let life = word.load(SeqCst) & !STATE;
                word.store(life.wrapping_add(LIFE) | FREE, SeqCst);
            }
        }
    }

    fn any(&self, is: impl Fn(u64) -> bool) -> bool {
        self.crowd.load(SeqCst) > 0
            || self.slots[..self.used.load(SeqCst)].iter().any(|slot| is(slot.word.load(SeqCst) & STATE))
    }

    /// Whether a write is in flight that overlaps.
    pub fn has_flagged(&self) -> bool {
        self.any(|state| state == FLAGGED)
    }

    /// Whether a write is in flight.
    pub fn has_any(&self) -> bool {
        self.any(|state| state & ACTIVE != 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Goal: exactly those that share a byte in flight are flagged. Method: neighbours, parts, wholes, one after the other, slots used again.
    #[test]
    fn writes_that_share_a_byte_in_flight_are_flagged() {
        let table = InFlightTable::new(4).unwrap();
        let (a, b) = (table.begin(0..8), table.begin(8..16));
        assert!(!table.is_flagged(a) && !table.is_flagged(b) && !table.has_flagged() && table.has_any());
        let c = table.begin(15..20);
        assert!(!table.is_flagged(a) && table.is_flagged(b) && table.is_flagged(c) && table.has_flagged());
        assert!(!table.end_unless_flagged(b) && table.end_unless_flagged(a));
        table.end(b);
        let d = table.begin(8..15);
        assert!(!table.is_flagged(d), "the one that was there has ended");
        let whole = table.begin(0..u64::MAX);
        assert!(table.is_flagged(d) && table.is_flagged(whole) && !table.end_unless_flagged(c));
        [c, d, whole].into_iter().for_each(|ticket| table.end(ticket));
        assert!(!table.has_any());
    }

    /// Goal: the table is bounded, and a write beyond it costs exactness, never truth. Method: one more than fits, with and without overlap.
    #[test]
    fn beyond_the_bound_everything_is_flagged() {
        let table = InFlightTable::new(2).unwrap();
        let (a, b) = (table.begin(0..8), table.begin(8..16));
        let crowd = table.begin(4..6);
        assert!(table.is_flagged(crowd) && table.is_flagged(a) && !table.is_flagged(b));
        assert!(table.end_unless_flagged(b) && !table.end_unless_flagged(crowd));
        let late = table.begin(100..101);
        assert!(table.is_flagged(late), "the crowd may be anywhere");
        [crowd, late, a].into_iter().for_each(|ticket| table.end(ticket));
        let after = table.begin(100..101);
        assert!(!table.has_flagged() && table.end_unless_flagged(after) && !table.has_any());
    }
}

/// Models for the concurrency checker: `RUSTFLAGS="--cfg loom" cargo test -p cdp-core --lib --release loom_`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{
        sync::{Arc, atomic::AtomicBool},
        thread,
    };

    /// A disk and its journal, each the number of the last writer.
    struct World {
        table: InFlightTable,
        disk: AtomicU64,
        journal: AtomicU64,
        marked: AtomicBool,
    }

    impl World {
        fn write(&self, number: u64) {
            let ticket = self.table.begin(0..8);
            self.disk.store(number, SeqCst);
            if !self.table.is_flagged(ticket) {
                self.journal.store(number, SeqCst);
                if self.table.end_unless_flagged(ticket) {
                    return;
                }
            }
            self.marked.store(true, SeqCst);
            self.table.end(ticket);
        }
    }

    fn model(slots: usize) {
        loom::model(move || {
            let world = Arc::new(World {
                table: InFlightTable::new(slots).unwrap(),
                disk: AtomicU64::new(0),
                journal: AtomicU64::new(0),
                marked: AtomicBool::new(false),
            });
            let other = world.clone();
            let thread = thread::spawn(move || other.write(1));
            world.write(2);
            thread.join().unwrap();
            let same = world.disk.load(SeqCst) == world.journal.load(SeqCst);
            assert!(same || world.marked.load(SeqCst), "they differ and nobody knows");
            assert!(!world.table.has_any());
        });
    }

    /// Goal: what the journal calls the last write is the last on the disk, or is marked. Method: two writers of one range.
    #[test]
    fn loom_the_order_of_overlapping_writes_is_known_or_marked() {
        model(2);
    }

    /// As before, where only one of them finds room.
    #[test]
    fn loom_the_order_is_known_or_marked_in_a_crowd() {
        model(1);
    }

    /// Goal: a range is never taken for that of the write behind it in the same slot. Method: one writes elsewhere just before.
    #[test]
    fn loom_a_range_is_that_of_its_own_life() {
        loom::model(|| {
            let table = Arc::new(InFlightTable::new(2).unwrap());
            let other = table.clone();
            let thread = thread::spawn(move || {
                let first = other.begin(8..16);
                let elsewhere = other.is_flagged(first);
                other.end(first);
                let second = other.begin(0..8);
                (elsewhere, second)
            });
            let own = table.begin(0..8);
            let (elsewhere, second) = thread.join().unwrap();
            assert!(!elsewhere, "they share no byte");
            assert!(table.is_flagged(own) && table.is_flagged(second), "they share all");
        });
    }
}
