//! Slots: the state of each write between its reservation and its release.
//!
//! RESERVED -> DESCRIBED (descriptor written) -> READY (payload in place) -> RESERVED (taken by the consumer), or from RESERVED
//! and DESCRIBED to ABANDONED by the consumer, and to RESERVED by the late producer. Invariants:
//! - *clean*: every slot of a free frame is RESERVED, so that an earlier life can never be taken for this one and a
//!   reservation need not touch the slot;
//! - *fixed*: from DESCRIBED on a descriptor does not change until the consumer has left the frame;
//! - a producer moves its slot by exchange only, so that it always learns that it was abandoned.

use super::{
    Write,
    memory::{Shared, Slab},
    sync::{AtomicU32, Ordering},
};
use bytes::Bytes;
use std::io;

/// Free, or claimed by a producer that has not described its write yet.
const RESERVED: u32 = 0;
/// The descriptor is there, the payload is on its way.
const DESCRIBED: u32 = 1;
/// Complete.
const READY: u32 = 2;
/// The consumer went on without it.
const ABANDONED: u32 = 3;

/// The right of one producer to one slot and its sectors, until its write is committed or its abandonment noticed.
#[derive(Debug)]
pub(super) struct Claim {
    /// Index of the frame.
    pub(super) frame: usize,
    /// Order of the frame.
    pub(super) order: u64,
    /// Slot within the frame.
    pub(super) slot: u32,
    /// First sector within the frame.
    pub(super) first_sector: u32,
    /// Sectors claimed.
    pub(super) sectors: u32,
}

/// What a slot says about its write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    /// The write.
    pub(super) write: Write,
    /// First sector of the payload within its frame.
    pub(super) first_sector: u32,
    /// Frames that the write reaches over: more than one in a chain; none when its payload was handed over.
    pub(super) frames: u32,
}

/// What the consumer finds in a slot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen {
    Reserved,
    Described(Descriptor),
    Ready(Descriptor),
}

/// A slot fills a cache line of its own, so that producers side by side do not take it from each other.
#[repr(align(64))]
struct Slot {
    state: AtomicU32,
    descriptor: Shared<Option<Descriptor>>,
}

#[cfg(not(all(test, loom)))]
const _: () = assert!(size_of::<Slot>() == 64);

/// The slots of all frames.
pub(super) struct Slots {
    slots: Slab<Slot>,
    /// Payload handed over, kept away from the descriptors because it is rare.
    owned: Vec<Shared<Option<Bytes>>>,
    per_frame: usize,
}

impl Slots {
    /// Slots for `frames` frames, all free. Memory is reserved and touched here.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(frames: usize, per_frame: u32) -> io::Result<Self> {
        let per_frame = per_frame as usize;
        let count = frames.checked_mul(per_frame).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut owned = Vec::new();
        owned.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let slot = || Slot { state: AtomicU32::new(RESERVED), descriptor: Shared::new(None) };
        let slots = Slab::new(count, slot)?;
        owned.extend(std::iter::repeat_with(|| Shared::new(None)).take(count));
        Ok(Self { slots, owned, per_frame })
    }

    fn index(&self, frame: usize, slot: u32) -> usize {
        assert!((slot as usize) < self.per_frame, "slot outside its frame");
        frame * self.per_frame + slot as usize
    }

    fn of(&self, claim: &Claim) -> &Slot {
        &self.slots[self.index(claim.frame, claim.slot)]
    }

    /// Producer: says what the write is, before its payload is copied. `false` when it was abandoned.
    #[inline]
    pub(super) fn describe(&self, claim: &Claim, descriptor: Descriptor) -> bool {
        let slot = self.of(claim);
        slot.descriptor.replace(Some(descriptor));
        exchange(&slot.state, RESERVED, DESCRIBED)
    }

    /// Producer: the payload is in place. `false` when the write was abandoned.
    #[inline]
    pub(super) fn commit(&self, claim: &Claim) -> bool {
        exchange(&self.of(claim).state, DESCRIBED, READY)
    }

    /// Producer: describes and commits a write without payload in the frame; `owned` is taken on success and left in
    /// place when the write was abandoned (`false`).
    pub(super) fn complete(&self, claim: &Claim, descriptor: Descriptor, owned: Option<&mut Bytes>) -> bool {
        let slot = self.of(claim);
        slot.descriptor.replace(Some(descriptor));
        let Some(bytes) = owned else { return exchange(&slot.state, RESERVED, READY) };
        let cell = &self.owned[self.index(claim.frame, claim.slot)];
        cell.replace(Some(std::mem::take(bytes)));
        let completed = exchange(&slot.state, RESERVED, READY);
        if !completed {
            // It never was READY, so that the cell is still the producer's.
            *bytes = cell.replace(None).unwrap_or_default();
        }
        completed
    }

    /// Producer: cleans its slot after it learned that its write was abandoned.
    pub(super) fn reset_abandoned(&self, claim: &Claim) {
        let state = &self.of(claim).state;
        debug_assert_eq!(state.load(Ordering::Relaxed), ABANDONED);
        state.store(RESERVED, Ordering::Release);
    }

    /// Consumer: what a reserved slot holds.
    pub(super) fn look(&self, frame: usize, slot: u32) -> Seen {
        let slot = &self.slots[self.index(frame, slot)];
        match slot.state.load(Ordering::Acquire) {
            DESCRIBED => slot.descriptor.get().map_or(Seen::Reserved, Seen::Described),
            READY => slot.descriptor.get().map_or(Seen::Reserved, Seen::Ready),
            _ => Seen::Reserved,
        }
    }

    /// Consumer: takes a slot that was seen READY, and with it the payload handed over. The slot is clean for its
    /// next life; the sectors stay the consumer's until it leaves the frame.
    pub(super) fn take(&self, frame: usize, slot: u32, handed_over: bool) -> Option<Bytes> {
        let index = self.index(frame, slot);
        let state = &self.slots[index].state;
        assert_eq!(state.load(Ordering::Acquire), READY, "only a complete write is taken");
        let owned = if handed_over { self.owned[index].replace(None) } else { None };
        state.store(RESERVED, Ordering::Release);
        owned
    }

    /// Consumer: gives up on a slot that was seen as `seen`. `false` when the producer has moved on since.
    pub(super) fn abandon(&self, frame: usize, slot: u32, seen: Seen) -> bool {
        let expected = match seen {
            Seen::Reserved => RESERVED,
            Seen::Described(_) => DESCRIBED,
            Seen::Ready(_) => return false,
        };
        exchange(&self.slots[self.index(frame, slot)].state, expected, ABANDONED)
    }
}

#[inline]
fn exchange(state: &AtomicU32, from: u32, to: u32) -> bool {
    state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
}
