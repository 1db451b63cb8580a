//! The ladder of a tap: DATA -> BITMAP -> RESYNC -> DATA, as one atomic word.
//!
//! - **DATA**: writes are captured whole.
//! - **BITMAP**: writes only mark their blocks dirty, and dirty blocks are copied from the source meanwhile.
//! - **RESYNC**: few blocks are left; writes are captured whole again while the rest is copied.
//!
//! The word holds the mode and the number of marks that were begun; a second one the number that were ended.
//! Invariant *mark or capture*: whoever captures decides from one load of the word. A mark is begun in the same step that sees the mode
//! (and takes DATA and RESYNC to BITMAP), so DATA is reached again only in a step that proves that no mark was begun since the map was
//! seen empty.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// How a tap takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whole.
    Data,
    /// As dirty blocks.
    Bitmap,
    /// Whole, while the last dirty blocks are copied.
    Resync,
}

const MODE_BITS: u32 = 2;
const MARK: u64 = 1 << MODE_BITS;

impl Mode {
    const fn code(self) -> u64 {
        match self {
            Self::Data => 0,
            Self::Bitmap => 1,
            Self::Resync => 2,
        }
    }

    fn of(word: u64) -> Self {
        match word & (MARK - 1) {
            0 => Self::Data,
            1 => Self::Bitmap,
            _ => Self::Resync,
        }
    }
}

/// The state of the ladder at a moment when no mark was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet(u64);

impl Quiet {
    /// The mode at that moment.
    pub fn mode(self) -> Mode {
        Mode::of(self.0)
    }
}

/// The ladder of one tap.
#[derive(Debug)]
pub struct Ladder {
    word: AtomicU64,
    ended: AtomicU64,
}

impl Ladder {
    /// A ladder that begins in a mode.
    pub fn new(mode: Mode) -> Self {
        Self { word: AtomicU64::new(mode.code()), ended: AtomicU64::new(0) }
    }

    /// The mode as it is now.
    pub fn mode(&self) -> Mode {
        Mode::of(self.word.load(Ordering::Acquire))
    }

    /// Begins a mark, which takes the ladder to BITMAP; returns the mode before. The caller sets its bits and then calls
    /// [`Ladder::end_mark`].
    pub fn begin_mark(&self) -> Mode {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let next = ((word & !(MARK - 1)) + MARK) | Mode::Bitmap.code();
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Mode::of(word),
                Err(now) => word = now,
            }
        }
    }

    /// Ends a mark: its bits are set.
    pub fn end_mark(&self) {
        self.ended.fetch_add(MARK, Ordering::AcqRel);
    }

    /// The state, when no mark is under way. What is found out about the map after this holds for a later [`Ladder::advance`] from it.
    pub fn quiet(&self) -> Option<Quiet> {
        // In this order: marks that end later than the first load were begun before the second or are counted in it.
        let ended = self.ended.load(Ordering::Acquire);
        let word = self.word.load(Ordering::Acquire);
        (word & !(MARK - 1) == ended).then_some(Quiet(word))
    }

    /// Goes to another mode, unless a mark was begun or the mode changed since `from`.
    pub fn advance(&self, from: Quiet, to: Mode) -> bool {
        let next = (from.0 & !(MARK - 1)) | to.code();
        self.word.compare_exchange(from.0, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Goal: each step of the ladder, and only from a quiet state. Method: all of them in turn, with a mark in between.
    #[test]
    fn the_ladder_is_climbed_only_while_nobody_marks() {
        let ladder = Ladder::new(Mode::Data);
        let before = ladder.quiet().unwrap();
        assert_eq!(ladder.begin_mark(), Mode::Data);
        assert_eq!((ladder.mode(), ladder.quiet()), (Mode::Bitmap, None));
        assert!(!ladder.advance(before, Mode::Data), "a mark was begun since");
        ladder.end_mark();
        let quiet = ladder.quiet().unwrap();
        assert!(ladder.advance(quiet, Mode::Resync));
        assert!(!ladder.advance(quiet, Mode::Data), "the mode has changed since");
        let quiet = ladder.quiet().unwrap();
        assert_eq!(ladder.begin_mark(), Mode::Resync);
        ladder.end_mark();
        assert!(!ladder.advance(quiet, Mode::Data), "overload came back");
        let quiet = ladder.quiet().unwrap();
        assert_eq!(quiet.mode(), Mode::Bitmap);
        assert!(ladder.advance(quiet, Mode::Resync));
        assert!(ladder.advance(ladder.quiet().unwrap(), Mode::Data));
        assert_eq!(ladder.mode(), Mode::Data);
    }
}

/// Models for the concurrency checker: `RUSTFLAGS="--cfg loom" cargo test -p cdp-core --lib --release loom_`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{sync::Arc, thread};

    /// Goal: once the ladder is back in DATA, no mark is left behind in the map. Method: two markers against one who looks at the map and
    /// climbs; the map is a counter of bits that only the climber takes away.
    #[test]
    fn loom_no_mark_is_left_behind_when_data_is_reached() {
        loom::model(|| {
            let ladder = Arc::new(Ladder::new(Mode::Resync));
            let bits = Arc::new(AtomicU64::new(0));
            let markers: Vec<_> = (0..2)
                .map(|_| {
                    let (ladder, bits) = (ladder.clone(), bits.clone());
                    thread::spawn(move || {
                        ladder.begin_mark();
                        bits.fetch_add(1, Ordering::AcqRel);
                        ladder.end_mark();
                    })
                })
                .collect();
            if let Some(quiet) = ladder.quiet()
                && bits.load(Ordering::Acquire) == 0
            {
                ladder.advance(quiet, Mode::Data);
            }
            for marker in markers {
                marker.join().unwrap();
            }
            // Bits are set, so the ladder stands in BITMAP, whatever the climber did and when.
            assert_eq!(bits.load(Ordering::Acquire), 2);
            assert_eq!(ladder.mode(), Mode::Bitmap);
        });
    }
}
