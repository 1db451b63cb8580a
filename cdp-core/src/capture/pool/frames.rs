//! The frames: the chain that is the order of writes, the free set, and who still holds a frame.
//!
//! A frame lives from its link into the chain until nobody holds it. Invariants:
//! - *chain*: `next` of a frame changes once in its life, from none to the frame with the following order, by exchange, and
//!   only after the frame was sealed. So an unsealed frame is the newest, and all later reservations are behind a sealed one;
//! - *hint*: `newest` names a frame of the chain, never one older than the consumer's. Anybody may advance it;
//! - *holds*: a frame is free when the consumer has left it and every producer whose write was abandoned in it has ended.
//!
//! The chain is that of Michael and Scott's queue (PODC '96), with frames for nodes; the orders in words and links are the
//! counters that keep an exchange from an earlier life of a frame from succeeding.

use super::{
    slots::Claim,
    sync::{AtomicU32, AtomicU64, Ordering},
    word::{Link, Word},
};
use std::io;

/// The consumer's part of `holds`; below it, abandoned writes whose producers have not ended.
const CONSUMER: u32 = 1 << 16;

#[repr(align(128))]
struct Frame {
    /// A [`Word`].
    word: AtomicU64,
    /// A [`Link`] under this frame's order.
    next: AtomicU64,
    holds: AtomicU32,
    /// Sectors that the consumer has taken; for statistics.
    taken: AtomicU32,
}

/// The newest frame as it was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    pub(super) order: u64,
    pub(super) index: usize,
    pub(super) word: Word,
}

#[repr(align(128))]
struct Hint(AtomicU64);

/// All frames of a pool.
pub(super) struct Frames {
    newest: Hint,
    frames: Vec<Frame>,
    /// A set bit is a free frame.
    free: Vec<AtomicU64>,
    slots: u32,
    sectors: u32,
}

/// Counts over all frames, each read on its own.
#[derive(Default)]
pub(super) struct Census {
    pub(super) free: usize,
    pub(super) set_aside: usize,
    pub(super) sectors_waiting: u64,
}

impl Frames {
    /// `count` frames with `slots` slots and `sectors` sectors; frame 0 is the chain, under `first_order`.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(count: usize, slots: u32, sectors: u32, first_order: u64) -> io::Result<Self> {
        let mut frames = Vec::new();
        frames.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        frames.extend((0..count).map(|_| Frame {
            word: AtomicU64::new(Word::new(0, 0, 0).sealed().0),
            next: AtomicU64::new(Link::none(0).0),
            holds: AtomicU32::new(0),
            taken: AtomicU32::new(0),
        }));
        let mut free = Vec::new();
        free.try_reserve_exact(count.div_ceil(64)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        free.extend((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)));
        let newest = Hint(AtomicU64::new(Link::new(first_order, 0).0));
        let frames = Self { newest, frames, free, slots, sectors };
        (1..count).for_each(|index| frames.give_back(index));
        frames.prepare(0, first_order, Word::new(first_order, 0, 0));
        Ok(frames)
    }

    // The free set.

    /// Takes a frame out of the free set: it is the caller's until it is linked or given back.
    pub(super) fn pop(&self) -> Option<usize> {
        for (at, bits) in self.free.iter().enumerate() {
            let mut seen = bits.load(Ordering::Relaxed);
            while seen != 0 {
                let lowest = seen & seen.wrapping_neg();
                match bits.compare_exchange_weak(seen, seen ^ lowest, Ordering::Acquire, Ordering::Relaxed) {
                    Ok(_) => return Some(at * 64 + lowest.trailing_zeros() as usize),
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    /// Gives back a frame that was not linked.
    pub(super) fn give_back(&self, index: usize) {
        self.frames[index].holds.store(0, Ordering::Relaxed);
        self.free[index / 64].fetch_or(1 << (index % 64), Ordering::Release);
    }

    /// Readies a frame that is the caller's for the chain.
    pub(super) fn prepare(&self, index: usize, order: u64, word: Word) {
        let frame = &self.frames[index];
        frame.holds.store(CONSUMER, Ordering::Relaxed);
        frame.taken.store(0, Ordering::Relaxed);
        frame.next.store(Link::none(order).0, Ordering::Release);
        frame.word.store(word.0, Ordering::Release);
    }

    // The chain.

    /// The newest frame: unsealed, or sealed with nothing linked behind it.
    #[inline]
    pub(super) fn newest(&self) -> Newest {
        loop {
            let hint = Link(self.newest.0.load(Ordering::Acquire));
            let Some(index) = hint.index() else { unreachable!("the hint always names a frame") };
            let order = hint.order();
            let word = Word(self.frames[index].word.load(Ordering::Acquire));
            // A word of another life: the hint was advanced before that life began.
            if !word.is_of(order) {
                continue;
            }
            if word.is_sealed() {
                match self.next(order, index) {
                    Some(Some(next)) => {
                        self.advance(order, index, order + 1, next);
                        continue;
                    }
                    Some(None) => {}
                    None => continue,
                }
            }
            return Newest { order, index, word };
        }
    }

    /// What follows frame `index`, if anything; `None` outside the life with this order.
    fn next(&self, order: u64, index: usize) -> Option<Option<usize>> {
        let next = Link(self.frames[index].next.load(Ordering::Acquire));
        (next.order() == order).then(|| next.index())
    }

    /// The frame that follows one that the caller holds.
    pub(super) fn following(&self, order: u64, index: usize) -> Option<usize> {
        self.next(order, index).flatten()
    }

    /// Moves the hint on, if nobody has.
    pub(super) fn advance(&self, order: u64, index: usize, to_order: u64, to: usize) {
        let (from, to) = (Link::new(order, index).0, Link::new(to_order, to).0);
        let _ = self.newest.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Reserves a slot and `sectors` sectors in the newest frame. `None`: there is no room, or somebody was faster.
    #[inline]
    pub(super) fn reserve(&self, newest: Newest, sectors: u32) -> Option<Claim> {
        let Newest { order, index, word } = newest;
        let with = word.with(sectors, self.slots, self.sectors)?;
        self.exchange_word(newest, with).then(|| Claim {
            frame: index,
            order,
            slot: word.slots(),
            first_sector: word.sectors(),
            sectors,
        })
    }

    /// Whether a frame has room for one more write.
    pub(super) fn has_room(&self, word: Word, sectors: u32) -> bool {
        word.with(sectors, self.slots, self.sectors).is_some()
    }

    /// Seals the newest frame as it was seen. `false` when somebody was faster.
    pub(super) fn seal(&self, newest: Newest) -> bool {
        self.exchange_word(newest, newest.word.sealed())
    }

    fn exchange_word(&self, newest: Newest, to: Word) -> bool {
        let word = &self.frames[newest.index].word;
        word.compare_exchange(newest.word.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Links prepared frames behind a sealed frame: all of them or, when somebody was faster, none.
    pub(super) fn link(&self, newest: Newest, first: usize, last: (u64, usize)) -> bool {
        let Newest { order, index, .. } = newest;
        let (from, to) = (Link::none(order).0, Link::new(order, first).0);
        let linked =
            self.frames[index].next.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if linked {
            self.advance(order, index, last.0, last.1);
        }
        linked
    }

    /// Ties two frames of a chain that nobody else has seen yet.
    pub(super) fn tie(&self, order: u64, index: usize, next: usize) {
        self.frames[index].next.store(Link::new(order, next).0, Ordering::Release);
    }

    /// Everything reserved before the call is in frames up to the order returned, everything later in later ones.
    pub(super) fn seal_newest(&self) -> u64 {
        loop {
            let newest = self.newest();
            if !newest.word.is_sealed() && newest.word.slots() == 0 {
                return newest.order - 1;
            }
            if newest.word.is_sealed() || self.seal(newest) {
                return newest.order;
            }
        }
    }

    /// Whether nothing was reserved in frames behind this order.
    pub(super) fn is_empty_behind(&self, order: u64) -> bool {
        let newest = self.newest();
        newest.order <= order || (newest.order == order + 1 && newest.word.slots() == 0)
    }

    // The consumer's side.

    /// The word of a frame that the consumer is in.
    pub(super) fn word(&self, index: usize) -> Word {
        Word(self.frames[index].word.load(Ordering::Acquire))
    }

    /// Notes how far the consumer is.
    pub(super) fn note_taken(&self, index: usize, sectors: u32) {
        self.frames[index].taken.store(sectors, Ordering::Relaxed);
    }

    /// The consumer leaves a frame that `next` follows.
    pub(super) fn leave(&self, order: u64, index: usize, next: usize) {
        self.advance(order, index, order + 1, next);
        self.drop_hold(index, CONSUMER);
    }

    /// Holds a frame, which the consumer is in, for an abandoned write.
    pub(super) fn hold_for_late(&self, index: usize) {
        self.frames[index].holds.fetch_add(1, Ordering::Relaxed);
    }

    /// The end of an abandoned write, or of the attempt to abandon one.
    pub(super) fn drop_late(&self, index: usize) {
        self.drop_hold(index, 1);
    }

    fn drop_hold(&self, index: usize, hold: u32) {
        let before = self.frames[index].holds.fetch_sub(hold, Ordering::AcqRel);
        debug_assert!(before >= hold);
        if before == hold {
            self.give_back(index);
        }
    }

    /// Counts frames and waiting sectors.
    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        let free = self.free.iter().map(|bits| bits.load(Ordering::Relaxed).count_ones() as usize);
        census.free = free.sum();
        for frame in &self.frames {
            let holds = frame.holds.load(Ordering::Relaxed);
            if holds >= CONSUMER {
                let reserved = Word(frame.word.load(Ordering::Relaxed)).sectors();
                let taken = frame.taken.load(Ordering::Relaxed);
                census.sectors_waiting += u64::from(reserved.saturating_sub(taken));
            } else if holds > 0 {
                census.set_aside += 1;
            }
        }
        census
    }
}
