//! Bits that any thread sets without a lock, with summaries in which the next set bit is found at once.
//!
//! Level 0 has a bit for each block. Each further level has a bit for each word of the level below, up to a single word.
//! Invariant *summary*: whenever nobody clears, a word that is not zero has its bit set on the level above; a summary may be
//! set with nothing below it.
//!
//! Sets are lock-free. Clears and searches are for one thread at a time, which the lock of the map sees to. So the moment in which a
//! clear has taken a summary away and has not yet looked again is never seen by a search.
//!
//! Why no set is lost: a set first writes the word, then looks at *every* level above it and sets what is missing. A clear
//! that finds a word empty first takes its summary away, then looks at the word again, and puts the summary back if it is not empty. All of
//! these are sequentially consistent, so of the two looks at least one sees the other's write: either the set finds the
//! summary gone and sets it, or the clear finds the word filled and puts it back. The same holds one level up, with the
//! summary as the word. A set must not stop at a summary that is there: another set may have put it there and not have
//! reached the level above yet.
//!
//! Why level 0 takes a read-modify-write even when the bit is set: it puts the set into the order of changes of the word. A clear that
//! comes after it synchronizes with it, so that what the clearing thread then reads from the source is no older than the write that was
//! announced by the set. A look alone would give no such order.

use super::sync::{AtomicU64, fence_for_loom, zeroed};
use crate::units::to_len;
use std::{ops::Range, sync::atomic::Ordering::SeqCst};

const WORD_BITS: u64 = 64;

/// Bits with summaries.
#[derive(Debug)]
pub(super) struct Bits {
    len: u64,
    levels: Vec<Box<[AtomicU64]>>,
    /// Set bits, exact at rest. A clear may be counted before the set that it undoes.
    count: AtomicU64,
}

/// The words that a range of bits touches, with the mask of each.
pub(super) fn words_of(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    let (start, end) = (bits.start, bits.end.max(bits.start));
    let last_word = if start == end { start / WORD_BITS } else { (end - 1) / WORD_BITS + 1 };
    (start / WORD_BITS..last_word).map(move |word| {
        let first = start.max(word * WORD_BITS) - word * WORD_BITS;
        let unused = (word + 1) * WORD_BITS - end.min((word + 1) * WORD_BITS);
        (to_len(word), (u64::MAX << first) & (u64::MAX >> unused))
    })
}

impl Bits {
    /// `len` bits, all clear. `None` when the memory cannot be reserved.
    pub(super) fn new(len: u64) -> Option<Self> {
        let mut levels = Vec::new();
        let mut words = len.max(1);
        loop {
            words = words.div_ceil(WORD_BITS);
            levels.push(zeroed(usize::try_from(words).ok()?)?);
            if words == 1 {
                return Some(Self { len, levels, count: AtomicU64::new(0) });
            }
        }
    }

    /// Number of set bits, exact at rest.
    pub(super) fn count(&self) -> u64 {
        let count = self.count.load(SeqCst);
        if count > self.len { 0 } else { count }
    }

    /// Sets bits. Any number of threads.
    pub(super) fn set(&self, bits: Range<u64>) {
        debug_assert!(bits.end <= self.len);
        if bits.is_empty() {
            return;
        }
        let (first, last) = (bits.start / WORD_BITS, (bits.end - 1) / WORD_BITS);
        if first == last {
            return self.set_in_word(first, bits);
        }
        let mut added = 0;
        for (word, mask) in words_of(bits) {
            let old = self.levels[0][word].fetch_or(mask, SeqCst);
            added += u64::from((mask & !old).count_ones());
        }
        if added != 0 {
            self.count.fetch_add(added, SeqCst);
        }
        self.raise(1, first, last);
    }

    /// As `set`, for bits of one word: what nearly every write does.
    #[inline]
    fn set_in_word(&self, word: u64, bits: Range<u64>) {
        let unused = WORD_BITS - 1 - (bits.end - 1) % WORD_BITS;
        let mask = (u64::MAX << (bits.start % WORD_BITS)) & (u64::MAX >> unused);
        let old = self.levels[0][to_len(word)].fetch_or(mask, SeqCst);
        if old & mask != mask {
            self.count.fetch_add(u64::from((mask & !old).count_ones()), SeqCst);
        }
        fence_for_loom();
        let mut below = word;
        for words in &self.levels[1..] {
            let (summary, bit) = (&words[to_len(below / WORD_BITS)], 1 << (below % WORD_BITS));
            if summary.load(SeqCst) & bit == 0 {
                summary.fetch_or(bit, SeqCst);
            }
            fence_for_loom();
            below /= WORD_BITS;
        }
    }

    /// Sets the bits of `words`, which begin at bit `first`, a multiple of 64. Bits past the end are left out.
    pub(super) fn set_words(&self, first: u64, words: &[u64]) {
        for (at, word) in (first..self.len).step_by(64).zip(words) {
            let mask = word & (u64::MAX >> (WORD_BITS - (self.len - at).min(WORD_BITS)));
            if mask != 0 {
                let old = self.levels[0][to_len(at / WORD_BITS)].fetch_or(mask, SeqCst);
                self.count.fetch_add(u64::from((mask & !old).count_ones()), SeqCst);
                self.raise(1, at / WORD_BITS, at / WORD_BITS);
            }
        }
    }

    /// Sees to it that the summaries of words `first..=last` of the level below `level` are set, on all levels.
    fn raise(&self, level: usize, mut first: u64, mut last: u64) {
        fence_for_loom();
        for words in &self.levels[level..] {
            for (word, mask) in words_of(first..last + 1) {
                if words[word].load(SeqCst) & mask != mask {
                    words[word].fetch_or(mask, SeqCst);
                }
                fence_for_loom();
            }
            (first, last) = (first / WORD_BITS, last / WORD_BITS);
        }
    }

    /// Takes away the summaries of a word that was found empty. One thread at a time.
    fn lower(&self, level: usize, word: u64) {
        let mut word = word;
        for level in level + 1..self.levels.len() {
            let (parent, bit) = (to_len(word / WORD_BITS), 1 << (word % WORD_BITS));
            let old = self.levels[level][parent].fetch_and(!bit, SeqCst);
            fence_for_loom();
            if self.levels[level - 1][to_len(word)].load(SeqCst) != 0 {
                return self.raise(level, word, word);
            }
            if old & !bit != 0 {
                return;
            }
            word /= WORD_BITS;
        }
    }

    /// Clears bits. One thread at a time, beside sets.
    pub(super) fn clear(&self, bits: Range<u64>) {
        let mut removed = 0;
        for (word, mask) in words_of(bits) {
            let old = self.levels[0][word].fetch_and(!mask, SeqCst);
            removed += u64::from((old & mask).count_ones());
            if old & !mask == 0 {
                self.lower(0, crate::units::len_u64(word));
            }
        }
        self.count.fetch_sub(removed, SeqCst);
    }

    /// The first set bit at or after `from`. One thread at a time, beside sets; each bit whose set has returned is found.
    pub(super) fn find(&self, from: u64) -> Option<u64> {
        let (mut level, mut at) = (0, from);
        loop {
            let words = self.levels.get(level)?;
            // Past the end of the level, so of every level above it.
            let word = words.get(usize::try_from(at / WORD_BITS).ok()?)?.load(SeqCst);
            let found = word & (u64::MAX << (at % WORD_BITS));
            if found == 0 {
                (level, at) = (level + 1, at / WORD_BITS + 1);
                continue;
            }
            at = at / WORD_BITS * WORD_BITS + u64::from(found.trailing_zeros());
            if level == 0 {
                return Some(at);
            }
            level -= 1;
            if self.levels[level][to_len(at)].load(SeqCst) == 0 {
                // A summary that a set has put back after its bit was cleared.
                self.lower(level, at);
            }
            at *= WORD_BITS;
        }
    }

    /// The first clear bit at or after `from`, at most `limit`.
    pub(super) fn find_clear(&self, from: u64, limit: u64) -> u64 {
        let clear = words_of(from..limit).find_map(|(word, mask)| {
            let clear = !self.levels[0][word].load(SeqCst) & mask;
            (clear != 0).then(|| crate::units::len_u64(word) * WORD_BITS + u64::from(clear.trailing_zeros()))
        });
        clear.unwrap_or(limit)
    }

    /// Number of set bits in a range.
    pub(super) fn count_in(&self, bits: Range<u64>) -> u64 {
        words_of(bits)
            .map(|(word, mask)| u64::from((self.levels[0][word].load(SeqCst) & mask).count_ones()))
            .sum()
    }

    /// The word that begins at bit `first`, a multiple of 64.
    pub(super) fn word(&self, first: u64) -> u64 {
        self.levels[0][to_len(first / WORD_BITS)].load(SeqCst)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{model::Builder, sync::Arc, thread};

    fn check(body: impl Fn() + Sync + Send + 'static) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(body);
    }

    /// Goal: a set beside a clear of the same word is never lost, on any level. Method: every interleaving of one set with a clear of
    /// another bit; three levels, so that the clear goes all the way up.
    #[test]
    fn loom_a_set_beside_a_clear_is_found() {
        check(|| {
            let bits = Arc::new(Bits::new(64 * 64 + 1).unwrap());
            bits.set(3..4);
            let other = Arc::clone(&bits);
            let setter = thread::spawn(move || other.set(7..8));
            bits.clear(3..4);
            setter.join().unwrap();
            assert_eq!(bits.find(0), Some(7));
            assert_eq!(bits.count(), 1);
        });
    }

    /// Goal: a set that has returned is found although another set of the word's neighbour is half done. Method: two setters under one
    /// summary beside a clear; after the first is joined its bit must be found.
    #[test]
    fn loom_a_set_that_returned_is_found_beside_others() {
        check(|| {
            let bits = Arc::new(Bits::new(64 * 64 + 1).unwrap());
            let (one, two) = (Arc::clone(&bits), Arc::clone(&bits));
            let first = thread::spawn(move || one.set(5..6));
            let second = thread::spawn(move || two.set(70..71));
            first.join().unwrap();
            assert_eq!(bits.find(0), Some(5));
            bits.clear(5..6);
            second.join().unwrap();
            assert_eq!(bits.find(0), Some(70));
        });
    }

    /// Goal: what was written before a set is seen after the clear that takes the bit away. Method: a flag stands for the source's
    /// content; a clear that meets the bit must see the flag.
    #[test]
    fn loom_a_clear_sees_what_was_written_before_the_set() {
        check(|| {
            let bits = Arc::new(Bits::new(65).unwrap());
            let content = Arc::new(AtomicU64::new(0));
            bits.set(1..2);
            let (other, written) = (Arc::clone(&bits), Arc::clone(&content));
            let setter = thread::spawn(move || {
                written.store(1, std::sync::atomic::Ordering::Relaxed);
                other.set(1..2);
            });
            bits.clear(1..2);
            let read = content.load(std::sync::atomic::Ordering::Relaxed);
            setter.join().unwrap();
            assert!(read == 1 || bits.find(0) == Some(1), "neither read nor dirty");
        });
    }
}
