//! The producer's side: reserve, describe, copy, commit.
//!
//! Each loop goes round again only because another thread has moved the pool on meanwhile (sealed, linked, reserved).

use super::{
    CHAIN_FRAMES_MAX, Content, Item, Kind, Pool, Position, Refused, Write,
    slots::{Claim, Descriptor},
    sync::Ordering,
    word::Word,
};
use crate::{
    limits::WRITE_BYTES_MAX,
    units::{SECTOR_BYTES, SECTOR_LEN, len_u64},
};
use bytes::Bytes;
use std::{io::IoSlice, slice};

/// The claims of a write of several frames, in order; the first carries the slot that is described.
pub(super) struct Chain {
    claims: [Option<Claim>; CHAIN_FRAMES_MAX],
}

/// For tests: a put that stopped in the middle.
#[cfg(feature = "testing")]
pub struct Halfway {
    claim: Claim,
    descriptor: Descriptor,
    described: bool,
}

impl Chain {
    pub(super) fn claims(&self) -> impl Iterator<Item = &Claim> + Clone {
        self.claims.iter().flatten()
    }
}

impl Pool {
    /// Takes one write and returns its place in the order of writes. Never waits; see the module.
    ///
    /// # Errors
    /// [`Refused`]: the write was not taken.
    pub fn put(&self, item: Item<'_>) -> Result<Position, Refused> {
        let (kind, length) = match &item.content {
            Content::Copied(buffers) => (Kind::Data, total(buffers)),
            Content::Owned(bytes) => (Kind::Data, Some(len_u64(bytes.len()))),
            Content::Zero { length } => (Kind::Zero, Some(*length)),
            Content::Discard { length } => (Kind::Discard, Some(*length)),
        };
        let length = length.ok_or(Refused::Invalid)?;
        let write = Write { volume: item.volume, kind, offset: item.offset, length, time: item.time };
        if !is_valid(&write, self.write_bytes_max()) {
            return Err(Refused::Invalid);
        }
        match item.content {
            Content::Copied(buffers) => self.put_copied(write, buffers),
            Content::Owned(bytes) => self.put_owned(write, bytes),
            Content::Zero { .. } | Content::Discard { .. } => {
                let claim = self.reserve(0)?;
                let descriptor = Descriptor { write, first_sector: 0, frames: 1 };
                self.end(slice::from_ref(&claim).iter(), self.slots.complete(&claim, descriptor, None))
            }
        }
    }

    /// For tests: the first half of a put of data of at most a frame.
    ///
    /// # Errors
    /// As [`Pool::put`].
    #[cfg(feature = "testing")]
    pub fn put_halfway(&self, write: Write, described: bool) -> Result<Halfway, Refused> {
        if !is_valid(&write, self.frame_bytes()) {
            return Err(Refused::Invalid);
        }
        let claim = self.reserve(sectors(write.length))?;
        let descriptor = Descriptor { write, first_sector: claim.first_sector, frames: 1 };
        let described = described && self.slots.describe(&claim, descriptor);
        Ok(Halfway { claim, descriptor, described })
    }

    /// For tests: the second half.
    ///
    /// # Errors
    /// As [`Pool::put`].
    #[cfg(feature = "testing")]
    pub fn put_rest(&self, halfway: &Halfway, data: &[u8]) -> Result<Position, Refused> {
        let claims = slice::from_ref(&halfway.claim).iter();
        if !halfway.described && !self.slots.describe(&halfway.claim, halfway.descriptor) {
            return self.end(claims, false);
        }
        self.fill(claims, &[IoSlice::new(data)])
    }

    /// Largest write that can be taken, bytes.
    fn write_bytes_max(&self) -> u64 {
        WRITE_BYTES_MAX.min(self.frame_bytes() * len_u64(CHAIN_FRAMES_MAX))
    }

    pub(super) fn frame_bytes(&self) -> u64 {
        u64::from(self.shape.frame_sectors) * SECTOR_BYTES
    }

    #[inline]
    fn put_copied(&self, write: Write, buffers: &[IoSlice<'_>]) -> Result<Position, Refused> {
        if write.length > self.frame_bytes() {
            let chain = self.reserve_chain(write)?;
            return self.fill(chain.claims(), buffers);
        }
        let claim = self.reserve(sectors(write.length))?;
        let descriptor = Descriptor { write, first_sector: claim.first_sector, frames: 1 };
        let claims = slice::from_ref(&claim).iter();
        if !self.slots.describe(&claim, descriptor) {
            return self.end(claims, false);
        }
        self.fill(claims, buffers)
    }

    fn put_owned(&self, write: Write, bytes: &mut Bytes) -> Result<Position, Refused> {
        let budget =
            |used: u64| used.checked_add(write.length).filter(|sum| *sum <= self.shape.owned_bytes_max);
        if self.owned_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, budget).is_err() {
            return Err(Refused::Exhausted { sealed: self.frames.seal_newest() });
        }
        let put = self.reserve(0).and_then(|claim| {
            let descriptor = Descriptor { write, first_sector: 0, frames: 0 };
            self.end(slice::from_ref(&claim).iter(), self.slots.complete(&claim, descriptor, Some(bytes)))
        });
        if put.is_err() {
            self.owned_bytes.fetch_sub(write.length, Ordering::Relaxed);
        }
        put
    }

    /// Reserves a slot and `sectors` sectors, at most a frame of them, in the newest frame or in a fresh one.
    #[inline]
    pub(super) fn reserve(&self, sectors: u32) -> Result<Claim, Refused> {
        let newest = self.frames.newest();
        match newest.word.is_sealed() {
            false => self.frames.reserve(newest, sectors),
            true => None,
        }
        .map_or_else(|| self.reserve_slowly(sectors), Ok)
    }

    #[cold]
    fn reserve_slowly(&self, sectors: u32) -> Result<Claim, Refused> {
        let mut fresh = None;
        let reserved = loop {
            let newest = self.frames.newest();
            if !newest.word.is_sealed() {
                if self.frames.has_room(newest.word, sectors) {
                    if let Some(claim) = self.frames.reserve(newest, sectors) {
                        break Ok(claim);
                    }
                    continue;
                }
                if !self.frames.seal(newest) {
                    continue;
                }
            }
            fresh = fresh.or_else(|| self.frames.pop());
            let Some(frame) = fresh else {
                if self.frames.following(newest.order, newest.index).is_some() {
                    continue;
                }
                break Err(Refused::Exhausted { sealed: newest.order });
            };
            let order = newest.order + 1;
            self.frames.prepare(frame, order, Word::new(order, 1, sectors));
            if self.frames.link(newest, frame, (order, frame)) {
                fresh = None;
                break Ok(Claim { frame, order, slot: 0, first_sector: 0, sectors });
            }
        };
        if let Some(frame) = fresh {
            self.frames.give_back(frame);
        }
        reserved
    }

    /// Reserves fresh frames for a write of more than one. They are described before anybody can see them, so that the
    /// consumer always knows how far such a write reaches; the last one stays open for further writes.
    #[cold]
    pub(super) fn reserve_chain(&self, write: Write) -> Result<Chain, Refused> {
        let mut chain = Chain { claims: [const { None }; CHAIN_FRAMES_MAX] };
        let mut rest = write.length;
        let mut frames = 0;
        for claim in &mut chain.claims {
            if rest == 0 {
                break;
            }
            let Some(frame) = self.frames.pop() else {
                chain.claims().for_each(|claim| self.frames.give_back(claim.frame));
                return Err(Refused::Exhausted { sealed: self.frames.seal_newest() });
            };
            let bytes = rest.min(self.frame_bytes());
            *claim = Some(Claim { frame, order: 0, slot: 0, first_sector: 0, sectors: sectors(bytes) });
            rest -= bytes;
            frames += 1;
        }
        if let [Some(first), ..] = &chain.claims {
            let described = self.slots.describe(first, Descriptor { write, first_sector: 0, frames });
            assert!(described, "nobody else has seen the frame");
        }
        while !self.link_chain(&mut chain) {}
        Ok(chain)
    }

    /// One attempt to link a chain behind the newest frame.
    fn link_chain(&self, chain: &mut Chain) -> bool {
        let newest = self.frames.newest();
        if !newest.word.is_sealed() && !self.frames.seal(newest) {
            return false;
        }
        let mut before: Option<(u64, usize)> = None;
        let frames = chain.claims().count();
        for (at, claim) in chain.claims.iter_mut().flatten().enumerate() {
            let order = newest.order + 1 + len_u64(at);
            claim.order = order;
            let word = Word::new(order, 1, claim.sectors);
            self.frames.prepare(claim.frame, order, if at + 1 < frames { word.sealed() } else { word });
            if let Some((order, frame)) = before {
                self.frames.tie(order, frame, claim.frame);
            }
            before = Some((order, claim.frame));
        }
        match (&chain.claims[0], before) {
            (Some(first), Some(last)) => self.frames.link(newest, first.frame, last),
            _ => unreachable!("a chain has frames"),
        }
    }

    /// Copies the payload of a described write into its sectors and commits it.
    pub(super) fn fill<'a>(
        &self,
        claims: impl Iterator<Item = &'a Claim> + Clone,
        buffers: &[IoSlice<'_>],
    ) -> Result<Position, Refused> {
        let mut targets = claims.clone();
        let mut target = targets.next();
        let mut used = 0;
        for buffer in buffers {
            let mut rest: &[u8] = buffer;
            while let (Some(claim), false) = (target, rest.is_empty()) {
                let (now, later) = rest.split_at(rest.len().min(claim.sectors as usize * SECTOR_LEN - used));
                self.payload.copy(claim, used, now);
                used += now.len();
                rest = later;
                if used == claim.sectors as usize * SECTOR_LEN {
                    target = targets.next();
                    used = 0;
                }
            }
        }
        let committed = claims.clone().next().is_some_and(|first| self.slots.commit(first));
        self.end(claims, committed)
    }

    /// The end of a write: an abandoned one cleans its slot and lets go of its frames.
    pub(super) fn end<'a>(
        &self,
        claims: impl Iterator<Item = &'a Claim> + Clone,
        committed: bool,
    ) -> Result<Position, Refused> {
        let Some(first) = claims.clone().next() else { return Err(Refused::Invalid) };
        if committed {
            return Ok(Position { order: first.order, slot: first.slot });
        }
        self.slots.reset_abandoned(first);
        claims.for_each(|claim| self.frames.drop_late(claim.frame));
        Err(Refused::Abandoned)
    }
}

/// Bytes in all buffers.
fn total(buffers: &[IoSlice<'_>]) -> Option<u64> {
    buffers.iter().try_fold(0_u64, |sum, buffer| sum.checked_add(len_u64(buffer.len())))
}

/// Sectors of a length that was checked against the largest write.
#[expect(clippy::cast_possible_truncation, reason = "at most 32,768")]
const fn sectors(bytes: u64) -> u32 {
    (bytes / SECTOR_BYTES) as u32
}

fn is_valid(write: &Write, data_bytes_max: u64) -> bool {
    let whole = write.offset.is_multiple_of(SECTOR_BYTES) && write.length.is_multiple_of(SECTOR_BYTES);
    let bound = if write.kind == Kind::Data { data_bytes_max } else { u64::MAX };
    whole && (1..=bound).contains(&write.length) && write.offset.checked_add(write.length).is_some()
}
