//! The packed words of a frame: pure, no atomics.
//!
//! [`Word`], the frame word, low bits first: sectors used (12), slots used (10), sealed (1), tag (41: the low bits of the
//! frame's order). [`Link`], low bits first: frame index (13, all ones for none), order (51). An order has 51 bits: at a
//! million frames a second they last 71 years. The tag wraps far earlier, after 2^41 frames, and only has to tell the
//! lives of one frame apart while a producer holds an old word.

const SECTORS_BITS: u32 = 12;
const SLOTS_BITS: u32 = 10;
const SLOTS_SHIFT: u32 = SECTORS_BITS;
const SEALED_SHIFT: u32 = SLOTS_SHIFT + SLOTS_BITS;
const TAG_SHIFT: u32 = SEALED_SHIFT + 1;
/// Largest number of sectors that a word can count.
pub(super) const SECTORS_MAX: u32 = (1 << SECTORS_BITS) - 1;
/// Largest number of slots that a word can count.
pub(super) const SLOTS_MAX: u32 = (1 << SLOTS_BITS) - 1;
/// Orders that differ by a multiple of this have the same tag.
pub(super) const TAG_PERIOD: u64 = 1 << (u64::BITS - TAG_SHIFT);

const INDEX_BITS: u32 = 13;
const INDEX_NONE: u64 = (1 << INDEX_BITS) - 1;

/// How much of a frame is reserved, and in which of the frame's lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// The word of a frame in which `slots` slots and `sectors` sectors are reserved.
    pub(super) fn new(order: u64, slots: u32, sectors: u32) -> Self {
        debug_assert!(slots <= SLOTS_MAX && sectors <= SECTORS_MAX);
        Self(order << TAG_SHIFT | u64::from(slots) << SLOTS_SHIFT | u64::from(sectors))
    }

    /// Sectors reserved.
    #[expect(clippy::cast_possible_truncation, reason = "masked to 12 bits")]
    pub(super) const fn sectors(self) -> u32 {
        self.0 as u32 & SECTORS_MAX
    }

    /// Slots reserved.
    #[expect(clippy::cast_possible_truncation, reason = "masked to 10 bits")]
    pub(super) const fn slots(self) -> u32 {
        (self.0 >> SLOTS_SHIFT) as u32 & SLOTS_MAX
    }

    /// Whether nothing more can be reserved.
    pub(super) const fn is_sealed(self) -> bool {
        self.0 >> SEALED_SHIFT & 1 == 1
    }

    /// The same reservations, and no more.
    pub(super) const fn sealed(self) -> Self {
        Self(self.0 | 1 << SEALED_SHIFT)
    }

    /// With one more slot and `sectors` more sectors, if the frame has them.
    pub(super) fn with(self, sectors: u32, slots_max: u32, sectors_max: u32) -> Option<Self> {
        let fits = self.slots() < slots_max && sectors <= sectors_max.saturating_sub(self.sectors());
        fits.then(|| Self(self.0 + (1 << SLOTS_SHIFT) + u64::from(sectors)))
    }

    /// Whether this word belongs to the life with this order.
    pub(super) const fn is_of(self, order: u64) -> bool {
        self.0 >> TAG_SHIFT == order % TAG_PERIOD
    }
}

/// An order and a frame: the newest frame (its own order), or what follows a frame (the order of that frame, so that an
/// exchange for an earlier life fails).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link(pub(super) u64);

impl Link {
    /// Frame `index` under `order`.
    pub(super) fn new(order: u64, index: usize) -> Self {
        debug_assert!((index as u64) < INDEX_NONE);
        Self(order << INDEX_BITS | index as u64)
    }

    /// No frame, under `order`.
    pub(super) const fn none(order: u64) -> Self {
        Self(order << INDEX_BITS | INDEX_NONE)
    }

    /// The order.
    pub(super) const fn order(self) -> u64 {
        self.0 >> INDEX_BITS
    }

    /// The frame, if there is one.
    pub(super) fn index(self) -> Option<usize> {
        let index = self.0 & INDEX_NONE;
        (index != INDEX_NONE).then_some(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the fields of a frame word do not touch each other. Method: fill each up to its bound.
    #[test]
    fn fields_of_a_word_keep_apart() {
        let word = Word::new(TAG_PERIOD + 5, 512, 2048);
        assert_eq!((word.slots(), word.sectors(), word.is_sealed()), (512, 2048, false));
        assert!(word.is_of(5) && word.is_of(TAG_PERIOD + 5) && !word.is_of(6));
        let sealed = word.sealed();
        assert_eq!((sealed.slots(), sealed.sectors(), sealed.is_sealed()), (512, 2048, true));
        assert!(sealed.is_of(5));
        let one = Word::new(7, 511, 2047).with(1, 512, 2048).unwrap();
        assert_eq!(one, Word::new(7, 512, 2048));
        assert_eq!(one.with(0, 512, 2048), None, "no slot");
        assert_eq!(Word::new(7, 1, 2047).with(2, 512, 2048), None, "no sectors");
    }

    /// Goal: a link keeps order and index apart. Method: the largest of both, and none.
    #[test]
    fn fields_of_a_link_keep_apart() {
        let link = Link::new((1 << 51) - 1, 4095);
        assert_eq!((link.order(), link.index()), ((1 << 51) - 1, Some(4095)));
        assert_eq!((Link::none(9).order(), Link::none(9).index()), (9, None));
    }
}
