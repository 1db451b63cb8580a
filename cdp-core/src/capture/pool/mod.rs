//! The frame pool of the tap: takes writes in the host's write path, without waiting for anybody.
//!
//! Frames of 1 MiB from one anonymous map, reserved and touched when the pool is made. A producer reserves a slot and room in the
//! newest frame by one exchange of the frame word, copies its payload and commits. Many producers, one consumer at a time.
//! Invariants:
//! - *order*: the order of reservations, by frame and by slot within it, is the order of writes. What is reserved after
//!   another reservation returned comes later;
//! - *lock-free*: [`Pool::put`] does no I/O, makes no system call, allocates nothing and waits for no other thread, wherever that
//!   was descheduled. With no room it refuses;
//! - *once*: each write that was accepted is taken exactly once, or its producer learns that it was set aside;
//! - *whole*: a write of several frames is reserved in one step, or not at all.
//!
//! A frame in the hands of a producer that is about to link it counts as used, so that with nearly no frame free a write may be
//! refused although another producer gives a frame back at once. A producer that never returns keeps the frames of its
//! write out of the pool, once the consumer has set the write aside.
//!
//! Layers: [`word`] (packing), [`memory`] (the only `unsafe`), [`slots`] (one write), [`frames`] (the chain), `put`, `consumer`.

mod consumer;
mod frames;
mod memory;
mod put;
mod slots;
mod sync;
mod word;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(feature = "testing")]
pub use consumer::Stalled;
#[cfg_attr(
    not(any(test, feature = "testing")),
    allow(unused_imports, reason = "the tap is not built on it yet")
)]
pub use consumer::{Consumer, Next, SetAside, Taken};
#[cfg(feature = "testing")]
pub use put::Halfway;

use crate::{
    limits::{
        FRAME_PAYLOAD_BYTES_MAX, POOL_FRAME_SLOTS, POOL_FRAMES, POOL_FRAMES_MAX, POOL_FRAMES_MIN,
        WRITE_BYTES_MAX,
    },
    units::{SECTOR_BYTES, SECTOR_LEN, TimeNs, len_u64},
};
use bytes::Bytes;
use frames::Frames;
use memory::Payload;
use parking_lot::Mutex;
use slots::Slots;
use std::io::{self, IoSlice};
use sync::{AtomicU64, Ordering};

/// Most frames of one write: one of the largest size in frames of the usual size.
const CHAIN_FRAMES_MAX: usize = 16;
const _: () = assert!(len_u64(CHAIN_FRAMES_MAX * FRAME_PAYLOAD_BYTES_MAX) == WRITE_BYTES_MAX);
#[expect(clippy::cast_possible_truncation, reason = "2048")]
const FRAME_SECTORS: u32 = (FRAME_PAYLOAD_BYTES_MAX / SECTOR_LEN) as u32;
const _: () = assert!(FRAME_SECTORS <= word::SECTORS_MAX && POOL_FRAME_SLOTS <= word::SLOTS_MAX);

/// How large a pool is.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Frames of 1 MiB, [`POOL_FRAMES_MIN`] to [`POOL_FRAMES_MAX`]. Besides the newest frame, which stays in the chain, the
    /// largest write takes 16 of them. Payload that is handed over may come to as many bytes again.
    pub frames: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { frames: POOL_FRAMES }
    }
}

/// What a write does to its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fills it with the payload.
    Data,
    /// Fills it with zeroes.
    Zero,
    /// Discards it.
    Discard,
}

/// A write without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The volume, as the caller numbers them.
    pub volume: u32,
    /// What it does.
    pub kind: Kind,
    /// First byte on the volume, a multiple of 512.
    pub offset: u64,
    /// Bytes, a multiple of 512.
    pub length: u64,
    /// When it was made, as the caller says.
    pub time: TimeNs,
}

/// One write for [`Pool::put`].
#[derive(Debug)]
pub struct Item<'a> {
    /// The volume, as the caller numbers them.
    pub volume: u32,
    /// First byte on the volume, a multiple of 512.
    pub offset: u64,
    /// When it was made.
    pub time: TimeNs,
    /// What is written.
    pub content: Content<'a>,
}

/// What a write puts into its range. Lengths are multiples of 512 bytes, and not zero.
#[derive(Debug)]
pub enum Content<'a> {
    /// Data that is copied, one buffer after the other; at most 16 MiB in all.
    Copied(&'a [IoSlice<'a>]),
    /// Data that is handed over without a copy, at most 16 MiB. Left empty when the write was accepted, else as it was.
    Owned(&'a mut Bytes),
    /// Zeroes.
    Zero {
        /// Bytes.
        length: u64,
    },
    /// Nothing: the range is discarded.
    Discard {
        /// Bytes.
        length: u64,
    },
}

/// Where a write stands in the order of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Order of its frame.
    pub order: u64,
    /// Slot within the frame.
    pub slot: u32,
}

/// Why a write was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No room. Everything reserved before the call is in frames up to the order `sealed`, and everything reserved after
    /// it has returned is in later ones.
    Exhausted {
        /// Order of the last sealed frame.
        sealed: u64,
    },
    /// The consumer gave up on this write before it was complete. It may not know the range: the caller marks it.
    Abandoned,
    /// Empty, too long, not a multiple of 512 bytes, or past the end of the address space. Nothing was reserved.
    Invalid,
}

/// How full a pool is; read without any lock, so that the numbers need not fit each other while writes come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatistics {
    /// Frames of the pool.
    pub frames: usize,
    /// Frames that are free.
    pub frames_free: usize,
    /// Frames that the consumer has left and that a late producer still holds.
    pub frames_set_aside: usize,
    /// Payload bytes that were reserved and not taken yet.
    pub bytes_waiting: u64,
}

/// The frame pool. See the module.
pub struct Pool {
    frames: Frames,
    slots: Slots,
    payload: Payload,
    /// Bytes handed over that were not released yet.
    owned_bytes: AtomicU64,
    shape: Shape,
    consumer: Mutex<consumer::State>,
}

/// Numbers that tests make small.
#[derive(Clone, Copy, Debug)]
struct Shape {
    frames: usize,
    frame_slots: u32,
    frame_sectors: u32,
    owned_bytes_max: u64,
    first_order: u64,
}

impl Pool {
    /// Reserves and touches all memory of a pool.
    ///
    /// # Errors
    /// `InvalidInput` for a number of frames out of range; `OutOfMemory` and whatever else the mapping answers.
    pub fn new(options: PoolOptions) -> io::Result<Self> {
        let PoolOptions { frames } = options;
        if !(POOL_FRAMES_MIN..=POOL_FRAMES_MAX).contains(&frames) {
            let text = format!("a pool has {POOL_FRAMES_MIN} to {POOL_FRAMES_MAX} frames, not {frames}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Self::with(Shape {
            frames,
            frame_slots: POOL_FRAME_SLOTS,
            frame_sectors: FRAME_SECTORS,
            owned_bytes_max: len_u64(frames) * u64::from(FRAME_SECTORS) * SECTOR_BYTES,
            first_order: 1,
        })
    }

    fn with(shape: Shape) -> io::Result<Self> {
        Ok(Self {
            frames: Frames::new(shape.frames, shape.frame_slots, shape.frame_sectors, shape.first_order)?,
            slots: Slots::new(shape.frames, shape.frame_slots)?,
            payload: Payload::new(shape.frames, shape.frame_sectors)?,
            owned_bytes: AtomicU64::new(0),
            shape,
            consumer: Mutex::new(consumer::State::new(shape.first_order)),
        })
    }

    /// The consumer, unless there is one. What one leaves the next goes on with.
    pub fn consumer(&self) -> Option<Consumer<'_>> {
        self.consumer.try_lock().map(|state| Consumer::new(self, state))
    }

    /// Everything reserved before this call is in frames up to the order returned, everything reserved after it has returned in later
    /// ones. Never waits.
    pub fn boundary(&self) -> u64 {
        self.frames.seal_newest()
    }

    /// Whether nothing was reserved behind a boundary, which [`Pool::boundary`] returned.
    pub fn is_empty_behind(&self, boundary: u64) -> bool {
        self.frames.is_empty_behind(boundary)
    }

    /// Whether nothing waits for a consumer. While one is at work the answer is no.
    pub fn is_idle(&self) -> bool {
        self.consumer().is_some_and(|mut consumer| consumer.is_at_end())
    }

    /// Whether half of the frames are free.
    pub fn has_room(&self) -> bool {
        let statistics = self.statistics();
        statistics.frames_free * 2 >= statistics.frames
    }

    /// How full the pool is. Looks at every frame; takes no lock.
    pub fn statistics(&self) -> PoolStatistics {
        let census = self.frames.census();
        PoolStatistics {
            frames: self.shape.frames,
            frames_free: census.free,
            frames_set_aside: census.set_aside,
            bytes_waiting: census.sectors_waiting * SECTOR_BYTES + self.owned_bytes.load(Ordering::Relaxed),
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}
