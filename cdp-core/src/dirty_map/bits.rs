//! Bits that any thread sets without a lock, with a summary in which the next set bit is found at once.
//!
//! The summary has a bit for each group of [`GROUP_WORDS`] words. It is small enough to stay in the nearest cache while the bits of a large
//! volume do not: a set costs one miss, not one more for each further level. A search looks through a group, and through the summary.
//! Invariant *summary*: whenever nobody clears, a group with a bit that is set has its bit in the summary; a bit of the summary may be
//! set with nothing below it.
//!
//! Sets are lock-free. Clears and searches are for one thread at a time, which the lock of the map sees to. So the moment in which a
//! clear has taken a bit of the summary away and has not yet looked again is never seen by a search.
//!
//! Why no set is lost: a set first writes the word, then looks at the summary and sets what is missing. A clear that finds a group
//! empty first takes its bit of the summary away, then looks at all words of the group again, and puts the bit back if one is not empty. All
//! of these are sequentially consistent, so of the two looks at least one sees the other's write: either the set finds the
//! bit gone and sets it, or the clear finds the word filled and puts it back. A set must not skip the summary when the bit it sets is
//! there: another set may have put it there and not have reached the summary yet.
//!
//! Why a set takes a read-modify-write even when the bit is set: it puts the set into the order of changes of the word. A clear that
//! comes after it synchronizes with it, so that what the clearing thread then reads from the source is no older than the write that was
//! announced by the set. A look alone would give no such order, and a look behind a fence is no faster where the bit is there and twice as
//! slow where it is not.

use super::sync::{AtomicU64, fence_for_loom, zeroed};
use crate::units::{len_u64, to_len};
use std::{ops::Range, sync::atomic::Ordering::SeqCst};

const WORD_BITS: u64 = 64;
/// Words of a group: a bit of the summary. 1 TiB in blocks of 4 KiB has a summary of 8 KiB.
#[cfg(not(loom))]
const GROUP_WORDS: u64 = 64;
#[cfg(loom)]
const GROUP_WORDS: u64 = 2;

/// Bits with a summary.
#[derive(Debug)]
pub(super) struct Bits {
    len: u64,
    words: Box<[AtomicU64]>,
    summary: Box<[AtomicU64]>,
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

/// The first set bit at or after `from`.
fn first_set(words: &[AtomicU64], from: u64) -> Option<u64> {
    let first = to_len(from / WORD_BITS);
    let mut mask = u64::MAX << (from % WORD_BITS);
    for (word, at) in words.get(first..)?.iter().zip(first..) {
        let found = word.load(SeqCst) & mask;
        if found != 0 {
            return Some(len_u64(at) * WORD_BITS + u64::from(found.trailing_zeros()));
        }
        mask = u64::MAX;
    }
    None
}

impl Bits {
    /// `len` bits, all clear. `None` when the memory cannot be reserved.
    pub(super) fn new(len: u64) -> Option<Self> {
        let words = len.max(1).div_ceil(WORD_BITS);
        let summary = words.div_ceil(GROUP_WORDS).div_ceil(WORD_BITS);
        let zeroes = |words: u64| zeroed(usize::try_from(words).ok()?);
        Some(Self { len, words: zeroes(words)?, summary: zeroes(summary)? })
    }

    /// Sets one bit. Returns whether a search finds it, which it nearly always does; if not, [`Bits::set`] is left to do. Any number of
    /// threads.
    ///
    /// Part of its caller, and in few instructions: between one miss of the cache and the next a processor looks ahead over so many, and the
    /// fewer of them are ours, the more sets wait for memory at the same time.
    #[inline(always)]
    pub(super) fn set_one(&self, bit: u64) -> bool {
        let Some(word) = self.words.get(to_len(bit / WORD_BITS)) else { return false };
        word.fetch_or(1 << (bit % WORD_BITS), SeqCst);
        fence_for_loom();
        let group = bit / WORD_BITS / GROUP_WORDS;
        let summary = self.summary.get(to_len(group / WORD_BITS));
        summary.is_some_and(|word| (word.load(SeqCst) >> (group % WORD_BITS)) & 1 != 0)
    }

    /// Sets bits. Any number of threads.
    pub(super) fn set(&self, bits: Range<u64>) {
        debug_assert!(bits.end <= self.len);
        if bits.is_empty() {
            return;
        }
        let (first, last) = (bits.start / WORD_BITS, (bits.end - 1) / WORD_BITS);
        if first == last {
            let unused = WORD_BITS - 1 - (bits.end - 1) % WORD_BITS;
            let mask = (u64::MAX << (bits.start % WORD_BITS)) & (u64::MAX >> unused);
            return self.set_in_word(first, mask);
        }
        for (word, mask) in words_of(bits) {
            self.words[word].fetch_or(mask, SeqCst);
        }
        fence_for_loom();
        for (at, mask) in words_of(first / GROUP_WORDS..last / GROUP_WORDS + 1) {
            self.raise(at, mask);
        }
    }

    /// No number of set bits is kept: nobody would have to be told what the word was.
    fn set_in_word(&self, word: u64, mask: u64) {
        self.words[to_len(word)].fetch_or(mask, SeqCst);
        fence_for_loom();
        let group = word / GROUP_WORDS;
        self.raise(to_len(group / WORD_BITS), 1 << (group % WORD_BITS));
    }

    /// Sets the bits of `words`, which begin at bit `first`, a multiple of 64. Bits past the end are left out.
    pub(super) fn set_words(&self, first: u64, words: &[u64]) {
        for (at, word) in (first..self.len).step_by(64).zip(words) {
            let mask = word & (u64::MAX >> (WORD_BITS - (self.len - at).min(WORD_BITS)));
            if mask != 0 {
                self.set_in_word(at / WORD_BITS, mask);
            }
        }
    }

    /// Sees to it that bits of a word of the summary are set.
    #[inline]
    fn raise(&self, at: usize, mask: u64) {
        if self.summary[at].load(SeqCst) & mask != mask {
            self.summary[at].fetch_or(mask, SeqCst);
        }
        fence_for_loom();
    }

    /// The words of a group.
    fn group(&self, group: u64) -> &[AtomicU64] {
        let first = to_len(group * GROUP_WORDS);
        &self.words[first..self.words.len().min(first + to_len(GROUP_WORDS))]
    }

    /// Takes the bit of a group out of the summary if the group is empty. One thread at a time.
    fn lower(&self, group: u64) {
        let is_empty = || self.group(group).iter().all(|word| word.load(SeqCst) == 0);
        if is_empty() {
            let (at, mask) = (to_len(group / WORD_BITS), 1 << (group % WORD_BITS));
            self.summary[at].fetch_and(!mask, SeqCst);
            fence_for_loom();
            if !is_empty() {
                self.raise(at, mask);
            }
        }
    }

    /// Clears bits. One thread at a time, beside sets.
    pub(super) fn clear(&self, bits: Range<u64>) {
        if bits.is_empty() {
            return;
        }
        let groups = bits.start / WORD_BITS / GROUP_WORDS..=(bits.end - 1) / WORD_BITS / GROUP_WORDS;
        for (word, mask) in words_of(bits) {
            self.words[word].fetch_and(!mask, SeqCst);
        }
        groups.for_each(|group| self.lower(group));
    }

    /// The first set bit at or after `from`. One thread at a time, beside sets; each bit whose set has returned is found.
    pub(super) fn find(&self, from: u64) -> Option<u64> {
        if from >= self.len {
            return None;
        }
        let mut group = from / WORD_BITS / GROUP_WORDS;
        let mut from = from - group * GROUP_WORDS * WORD_BITS;
        loop {
            if let Some(found) = first_set(self.group(group), from) {
                return Some(group * GROUP_WORDS * WORD_BITS + found);
            }
            if from == 0 {
                // A bit of the summary that a set has put back after its own was cleared.
                self.lower(group);
            }
            (group, from) = (first_set(&self.summary, group + 1)?, 0);
        }
    }

    /// The first clear bit at or after `from`, at most `limit`.
    pub(super) fn find_clear(&self, from: u64, limit: u64) -> u64 {
        let clear = words_of(from..limit).find_map(|(word, mask)| {
            let clear = !self.words[word].load(SeqCst) & mask;
            (clear != 0).then(|| len_u64(word) * WORD_BITS + u64::from(clear.trailing_zeros()))
        });
        clear.unwrap_or(limit)
    }

    /// Number of set bits in a range, exact at rest.
    pub(super) fn count_in(&self, bits: Range<u64>) -> u64 {
        const GROUP_BITS: u64 = GROUP_WORDS * WORD_BITS;
        let (mut at, mut count) = (bits.start, 0);
        while at < bits.end {
            let group = at / GROUP_BITS;
            let end = bits.end.min((group + 1) * GROUP_BITS);
            let summary = self.summary[to_len(group / WORD_BITS)].load(SeqCst);
            if summary & (1 << (group % WORD_BITS)) != 0 {
                let ones = |(word, mask): (usize, u64)| (self.words[word].load(SeqCst) & mask).count_ones();
                count += words_of(at..end).map(|word| u64::from(ones(word))).sum::<u64>();
            }
            at = end;
        }
        count
    }

    /// The word that begins at bit `first`, a multiple of 64.
    pub(super) fn word(&self, first: u64) -> u64 {
        self.words[to_len(first / WORD_BITS)].load(SeqCst)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{model::Builder, sync::Arc, thread};

    /// As the map does.
    fn set(bits: &Bits, bit: u64) {
        if !bits.set_one(bit) {
            bits.set(bit..bit + 1);
        }
    }

    // All bits lie in the second group: a search from 0 finds them through the summary alone.
    fn check(body: impl Fn() + Sync + Send + 'static) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(body);
    }

    /// Goal: a set beside a clear of the same word is never lost. Method: every interleaving of one set with a clear of
    /// another bit of the word, which is the only one of its group, so that the clear takes the summary away.
    #[test]
    fn loom_a_set_beside_a_clear_is_found() {
        check(|| {
            let bits = Arc::new(Bits::new(64 * 4 + 1).unwrap());
            set(&bits, 131);
            let other = Arc::clone(&bits);
            let setter = thread::spawn(move || set(&other, 135));
            bits.clear(131..132);
            setter.join().unwrap();
            assert_eq!(bits.find(0), Some(135));
            assert_eq!(bits.count_in(0..257), 1);
        });
    }

    /// Goal: a set that has returned is found although a set in the word beside it is half done. Method: two setters under one
    /// bit of the summary beside a clear; after the first is joined its bit must be found.
    #[test]
    fn loom_a_set_that_returned_is_found_beside_others() {
        check(|| {
            let bits = Arc::new(Bits::new(64 * 4 + 1).unwrap());
            let (one, two) = (Arc::clone(&bits), Arc::clone(&bits));
            let first = thread::spawn(move || set(&one, 133));
            let second = thread::spawn(move || set(&two, 198));
            first.join().unwrap();
            assert_eq!(bits.find(0), Some(133));
            bits.clear(133..134);
            second.join().unwrap();
            assert_eq!(bits.find(0), Some(198));
        });
    }

    /// Goal: a set that has met the bit of another is found although that one is half done, and beside a clear. Method: two setters of one
    /// bit beside a clear of another one, which was the only one of its group; after the first is joined the bit must be found.
    #[test]
    fn loom_a_set_that_met_its_bit_is_found() {
        check(|| {
            let bits = Arc::new(Bits::new(64 * 4 + 1).unwrap());
            set(&bits, 131);
            let (one, two) = (Arc::clone(&bits), Arc::clone(&bits));
            let first = thread::spawn(move || set(&one, 198));
            let second = thread::spawn(move || set(&two, 198));
            bits.clear(131..132);
            first.join().unwrap();
            assert_eq!(bits.find(0), Some(198));
            second.join().unwrap();
        });
    }

    /// Goal: what was written before a set is seen after the clear that takes the bit away. Method: a flag stands for the source's
    /// content; a clear that meets the bit must see the flag.
    #[test]
    fn loom_a_clear_sees_what_was_written_before_the_set() {
        check(|| {
            let bits = Arc::new(Bits::new(65).unwrap());
            let content = Arc::new(AtomicU64::new(0));
            set(&bits, 1);
            let (other, written) = (Arc::clone(&bits), Arc::clone(&content));
            let setter = thread::spawn(move || {
                written.store(1, std::sync::atomic::Ordering::Relaxed);
                set(&other, 1);
            });
            bits.clear(1..2);
            let read = content.load(std::sync::atomic::Ordering::Relaxed);
            setter.join().unwrap();
            assert!(read == 1 || bits.find(0) == Some(1), "neither read nor dirty");
        });
    }
}
