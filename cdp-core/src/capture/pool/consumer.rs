//! The consumer's side: takes writes in order, seals, and sets late writes aside.

use super::{
    Kind, Pool, Position, Write,
    slots::{Descriptor, Seen},
    sync::Ordering,
    word::Word,
};
use crate::units::{SECTOR_BYTES, SECTOR_LEN, len_u64, to_len};
use bytes::Bytes;
use parking_lot::MutexGuard;

/// A frame of the chain that the consumer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    order: u64,
    frame: usize,
}

/// How far the consumer is. Invariants: `held` is at or before `at` in the chain; they differ only while a chain is lent.
pub(super) struct State {
    /// Oldest frame that was not left yet; a lent chain begins here.
    held: Place,
    /// Frame of the next write.
    at: Place,
    /// Slot of the next write.
    slot: u32,
    /// The word of frame `at`, as last read.
    known: Word,
    /// Payload handed over, while it is lent.
    owned: Option<Bytes>,
}

impl State {
    pub(super) fn new(first_order: u64) -> Self {
        let at = Place { order: first_order, frame: 0 };
        Self { held: at, at, slot: 0, known: Word::new(first_order, 0, 0), owned: None }
    }
}

/// The one consumer of a pool, until it is dropped.
pub struct Consumer<'p> {
    pool: &'p Pool,
    state: MutexGuard<'p, State>,
}

/// What comes next in the order of writes.
#[derive(Debug)]
pub enum Next<'c> {
    /// A complete write.
    Item(Taken<'c>),
    /// The next write was reserved and is not complete.
    Waiting(Stalled),
    /// Nothing was reserved beyond what was taken.
    Empty,
}

/// The write that the consumer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// Its place: as long as it is the same, the consumer waits for the same write.
    pub position: Position,
}

/// What [`Consumer::set_aside`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// Nothing: no write is waited for; the next one is complete, or there is none.
    Nothing,
    /// It gave up on this write; its payload is lost to the consumer.
    Described(Write),
    /// It gave up on a write of which not even the range is known. Its producer gets [`super::Refused::Abandoned`].
    Unknown,
}

impl<'p> Consumer<'p> {
    pub(super) fn new(pool: &'p Pool, state: MutexGuard<'p, State>) -> Self {
        Self { pool, state }
    }

    /// The next write in order, if it is complete. The one before is released.
    #[allow(clippy::should_implement_trait, reason = "an item borrows the consumer")]
    pub fn next(&mut self) -> Next<'_> {
        let mut cursor = self.cursor();
        cursor.release();
        if !cursor.reach() {
            return Next::Empty;
        }
        let (first, slot) = (cursor.state.at, cursor.state.slot);
        let position = Position { order: first.order, slot };
        let Seen::Ready(descriptor) = cursor.pool.slots.look(first.frame, slot) else {
            return Next::Waiting(Stalled { position });
        };
        cursor.state.owned = cursor.pool.slots.take(first.frame, slot, descriptor.frames == 0);
        cursor.pass(Some(descriptor));
        Next::Item(Taken { descriptor, position, first, cursor })
    }

    /// The next write in order, if one was reserved; `Some(None)` while its producer has not said what it is.
    pub fn peek(&mut self) -> Option<Option<Write>> {
        let mut cursor = self.cursor();
        cursor.release();
        if !cursor.reach() {
            return None;
        }
        Some(match cursor.pool.slots.look(cursor.state.at.frame, cursor.state.slot) {
            Seen::Reserved => None,
            Seen::Described(descriptor) | Seen::Ready(descriptor) => Some(descriptor.write),
        })
    }

    /// Seals the newest frame. Everything reserved before this call is in frames up to the order returned, everything
    /// reserved after it in later ones.
    pub fn seal(&mut self) -> u64 {
        self.pool.frames.seal_newest()
    }

    /// Whether everything that was reserved was taken or set aside.
    pub fn is_at_end(&mut self) -> bool {
        let mut cursor = self.cursor();
        cursor.release();
        !cursor.reach()
    }

    /// Order of the frame that the next write comes from: all writes of earlier frames were taken or set aside.
    pub fn order(&mut self) -> u64 {
        self.cursor().refresh();
        let State { at, slot, known, .. } = *self.state;
        at.order + u64::from(known.is_sealed() && slot == known.slots())
    }

    /// Gives up on the write that [`Consumer::next`] waits for. Its frames return to the pool only when its producer has
    /// ended; the other writes in them are taken as usual.
    pub fn set_aside(&mut self) -> SetAside {
        let mut cursor = self.cursor();
        cursor.release();
        if !cursor.reach() {
            return SetAside::Nothing;
        }
        let (pool, first, slot) = (cursor.pool, cursor.state.at, cursor.state.slot);
        loop {
            // The descriptor is copied before the exchange: after it, it is the producer's again.
            let seen = pool.slots.look(first.frame, slot);
            let (descriptor, done) = match seen {
                Seen::Reserved => (None, SetAside::Unknown),
                Seen::Described(descriptor) => (Some(descriptor), SetAside::Described(descriptor.write)),
                Seen::Ready(_) => return SetAside::Nothing,
            };
            let frames = descriptor.map_or(1, |descriptor| descriptor.frames);
            cursor.each_frame(first, frames, |frame| pool.frames.hold_for_late(frame));
            if pool.slots.abandon(first.frame, slot, seen) {
                cursor.pass(descriptor);
                cursor.release();
                return done;
            }
            cursor.each_frame(first, frames, |frame| pool.frames.drop_late(frame));
        }
    }

    fn cursor(&mut self) -> Cursor<'_> {
        Cursor { pool: self.pool, state: &mut self.state }
    }
}

/// The consumer's state with its pool: what [`Consumer`] and [`Taken`] work with.
struct Cursor<'c> {
    pool: &'c Pool,
    state: &'c mut State,
}

impl Cursor<'_> {
    /// Goes to the next reserved slot. `false` when there is none.
    fn reach(&mut self) -> bool {
        loop {
            if self.state.slot < self.state.known.slots() {
                return true;
            }
            self.refresh();
            if self.state.slot < self.state.known.slots() {
                return true;
            }
            if !self.state.known.is_sealed() || !self.step() {
                return false;
            }
        }
    }

    fn refresh(&mut self) {
        if self.state.slot == self.state.known.slots() && !self.state.known.is_sealed() {
            self.state.known = self.pool.frames.word(self.state.at.frame);
            debug_assert!(self.state.known.is_of(self.state.at.order), "a held frame keeps its life");
        }
    }

    /// Goes to the frame that follows, and leaves this one unless a chain is lent. `false` when there is none.
    fn step(&mut self) -> bool {
        let Place { order, frame } = self.state.at;
        let Some(next) = self.pool.frames.following(order, frame) else { return false };
        let leave = self.state.held == self.state.at;
        self.state.at = Place { order: order + 1, frame: next };
        self.state.slot = 0;
        self.state.known = Word::new(order + 1, 0, 0);
        if leave {
            self.leave_held();
        }
        true
    }

    fn leave_held(&mut self) {
        let Place { order, frame } = self.state.held;
        let Some(next) = self.pool.frames.following(order, frame) else {
            unreachable!("a frame follows each one before the consumer's");
        };
        self.pool.frames.leave(order, frame, next);
        self.state.held = Place { order: order + 1, frame: next };
    }

    /// Goes past the write in the present slot, and for a chain to the slot after it in its last frame.
    fn pass(&mut self, descriptor: Option<Descriptor>) {
        self.state.slot += 1;
        let Some(Descriptor { write, first_sector, frames }) = descriptor else { return };
        if write.kind != Kind::Data || frames == 0 {
            return;
        }
        let mut sectors = u64::from(first_sector) + write.length / SECTOR_BYTES;
        for _ in 1..frames {
            self.pool.frames.note_taken(self.state.at.frame, self.pool.shape.frame_sectors);
            sectors -= u64::from(self.pool.shape.frame_sectors);
            let Place { order, frame } = self.state.at;
            let Some(next) = self.pool.frames.following(order, frame) else {
                unreachable!("the frames of a chain are linked in one step");
            };
            self.state.at = Place { order: order + 1, frame: next };
            self.state.slot = 1;
            self.state.known = Word::new(order + 1, 1, 0);
        }
        #[expect(clippy::cast_possible_truncation, reason = "what is left is within one frame")]
        self.pool.frames.note_taken(self.state.at.frame, sectors as u32);
    }

    /// Ends the loan of the last write, and leaves every frame that is done.
    fn release(&mut self) {
        if let Some(bytes) = self.state.owned.take() {
            self.pool.owned_bytes.fetch_sub(len_u64(bytes.len()), Ordering::Relaxed);
        }
        while self.state.held != self.state.at {
            self.leave_held();
        }
        self.refresh();
        if self.state.known.is_sealed() && self.state.slot == self.state.known.slots() {
            self.step();
        }
    }

    fn each_frame(&self, first: Place, frames: u32, mut act: impl FnMut(usize)) {
        let mut at = Some(first);
        for _ in 0..frames.max(1) {
            let Some(Place { order, frame }) = at else { break };
            // The next one first: `act` may let go of this frame.
            at = self.pool.frames.following(order, frame).map(|frame| Place { order: order + 1, frame });
            act(frame);
        }
    }
}

impl Drop for Consumer<'_> {
    fn drop(&mut self) {
        self.cursor().release();
    }
}

impl std::fmt::Debug for Consumer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("at", &self.state.at).field("slot", &self.state.slot).finish()
    }
}

/// A write taken from the pool. Its payload is lent until the next call of [`Consumer::next`] or [`Consumer::set_aside`], or
/// the end of the consumer. (Not until this is dropped: a destructor would lend out the consumer for a whole `match`.)
pub struct Taken<'c> {
    descriptor: Descriptor,
    position: Position,
    first: Place,
    cursor: Cursor<'c>,
}

impl Taken<'_> {
    /// The write, without its payload.
    pub fn write(&self) -> Write {
        self.descriptor.write
    }

    /// Its place in the order of writes.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The payload, if it was handed over and not copied. A clone of it outlives the loan.
    pub fn handed_over(&self) -> Option<&Bytes> {
        self.cursor.state.owned.as_ref()
    }

    /// The payload in order, in one or more parts; none for [`Kind::Zero`] and [`Kind::Discard`].
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let pool = self.cursor.pool;
        let Descriptor { write, first_sector, frames } = self.descriptor;
        let copied = write.kind == Kind::Data && frames > 0;
        let mut rest = if copied { to_len(write.length) } else { 0 };
        let mut place = self.first;
        let mut first_sector = first_sector;
        let lent = std::iter::from_fn(move || {
            let bytes = rest.min((pool.shape.frame_sectors - first_sector) as usize * SECTOR_LEN);
            if bytes == 0 {
                return None;
            }
            let part = pool.payload.lend(place.frame, first_sector, bytes);
            rest -= bytes;
            if rest > 0 {
                let frame = pool.frames.following(place.order, place.frame)?;
                place = Place { order: place.order + 1, frame };
                first_sector = 0;
            }
            Some(part)
        });
        lent.chain(self.cursor.state.owned.iter().map(|bytes| &bytes[..]))
    }
}

impl std::fmt::Debug for Taken<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taken").field("write", &self.write()).field("position", &self.position).finish()
    }
}
