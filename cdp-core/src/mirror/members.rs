//! Changes of membership: offline, online, add, remove, and deciding by hand who is right. Each holds the members alone, so that no write is in flight.

use super::{
    copy::MirrorCopy,
    event::MirrorEvent,
    generation::Generations,
    handshake::{CopyState, Decision, Handshake, handshake},
    open::{NewCopy, check_new, new_extent, new_map, random, random_uuid},
    record::{CopyRecord, SampleEntry},
    set::{Member, MirrorSet, block_range, copy_state, member, no_copy, no_source},
    write::clear_all,
};
use crate::{Error, Result, dirty_map::Base, limits::MIRROR_COPIES_MAX, sabotage::Switch, units::ExtentId};
use std::sync::Arc;

impl MirrorSet {
    /// Takes copies out of service in the state, durably: the others go over to a new generation. `samples`: what is known to be on those that left in good order.
    pub(super) fn rotate(
        &self,
        members: &[Member],
        leaving: &[u32],
        samples: &[(u32, Vec<SampleEntry>)],
    ) -> Result<()> {
        if leaving.is_empty() {
            return Ok(());
        }
        let tag = random()?;
        let bytes = self.meta.lock().current().shape.bytes();
        let mut rotated = Ok(());
        let change = |state: &mut super::record::StateRecord| {
            // A copy that has just become whole may not have been given the newest generation yet.
            let online = state.copies.iter().filter(|copy| copy.online);
            let newest = online.max_by_key(|copy| copy.generations.current().number);
            let newest = newest.map(|copy| copy.generations.clone());
            let whole =
                |number: u32| members.iter().any(|member| member.number == number && member.is_whole());
            let shared = state.sample.clone();
            let stand: Vec<_> = state.copies.iter().map(|copy| copy.generations.current()).collect();
            for copy in &mut state.copies {
                if leaving.contains(&copy.number) {
                    let own = samples.iter().find(|(number, _)| *number == copy.number);
                    let map = members.iter().find(|member| member.number == copy.number);
                    // What a failed copy holds is known for blocks that it did not lose.
                    let held = |entry: &SampleEntry| {
                        map.is_some_and(|member| !member.map.map().is_dirty(block_range(entry.block, bytes)))
                    };
                    copy.sample = match own {
                        Some((_, sample)) => sample.clone(),
                        None => shared.iter().copied().filter(held).collect(),
                    };
                    copy.online = false;
                    copy.rewrite |= own.is_none();
                    copy.stamp = map
                        .filter(|_| own.is_some())
                        .and_then(|member| member.copy.as_ref())
                        .and_then(|found| found.change_stamp().ok().flatten());
                } else if copy.online && whole(copy.number) {
                    copy.generations = newest.clone().unwrap_or_else(|| copy.generations.clone());
                    rotated = copy.generations.rotate(tag, &stand);
                }
            }
        };
        if self.sabotaged(Switch::RotateLate) {
            self.meta.lock().change_only(change);
            return rotated;
        }
        self.update_state(change)?;
        rotated
    }

    /// Takes a copy out of service: from now on it misses writes, and its map says which.
    ///
    /// # Errors
    /// `NotFound`; `MirrorRefused` for the last copy that lacks nothing; `Io`, `Poisoned`.
    pub fn offline(&self, number: u32) -> Result<()> {
        let geometry = self.geometry.read();
        self.check_alive(&geometry)?;
        self.flush_patiently(&geometry)?;
        let mut members = self.alone()?;
        let at = members.iter().position(|member| member.number == number).ok_or_else(|| no_copy(number))?;
        if !members[at].online {
            return Ok(());
        }
        if !members.iter().any(|member| member.number != number && member.is_whole()) {
            let text = format!("copy {number} is the last one that lacks nothing; repair another one first");
            return Err(Error::MirrorRefused(text));
        }
        // Writes that came after the flush.
        let synced = members[at].taking().is_some_and(|copy| copy.sync().is_ok());
        let lost = if synced { Vec::new() } else { self.unsynced.lock().ranges() };
        lost.iter().for_each(|range| members[at].map.map().set(*range));
        self.or_stop(members[at].map.checkpoint())?;
        let mut samples = Vec::new();
        if synced {
            let bytes = geometry.shape.bytes();
            let mut sample = self.sample(&members, bytes);
            sample.retain(|entry| !members[at].map.map().is_dirty(block_range(entry.block, bytes)));
            samples.push((number, sample));
        }
        members[at].online = false;
        self.rotate(&members, &[number], &samples)?;
        self.sink.tell(|| MirrorEvent::CopyOffline { number });
        Ok(())
    }

    /// Brings a copy back that was away, if the handshake with the source allows it. It takes writes from now on, and is read from where its map is empty;
    /// [`MirrorSet::repair`] gives it what it lacks. `copy`: where it is now, `None` for where it was. Returns what the handshake said, the source being the first copy.
    ///
    /// # Errors
    /// `NotFound`; `MirrorRefused` when it is missing, too small, unrelated or a split brain; `Exists` when it is a copy of the set already; `Io`, `Poisoned`.
    pub fn online(&self, number: u32, copy: Option<Arc<dyn MirrorCopy>>) -> Result<Handshake> {
        let geometry = self.geometry.read();
        self.check_alive(&geometry)?;
        let mut members = self.alone()?;
        let at = members.iter().position(|member| member.number == number).ok_or_else(|| no_copy(number))?;
        if let Some(copy) = copy {
            let own = copy.identity();
            let taken = members
                .iter()
                .filter(|member| member.number != number)
                .filter_map(|member| member.copy.as_ref());
            if own.is_some() && taken.into_iter().any(|other| other.identity() == own) {
                return Err(Error::Exists { what: "copy", name: number.to_string() });
            }
            if members[at].online {
                return Err(Error::InvalidArgument(format!(
                    "copy {number} is online; take it offline first"
                )));
            }
            members[at].copy = Some(copy);
        }
        let source = members.iter().find(|member| member.is_whole()).ok_or_else(|| no_source(&members))?;
        let outcome = self.shake_hands(source, &members[at])?;
        match outcome.decision {
            _ if members[at].online => return Ok(outcome),
            Decision::Nothing | Decision::ByMap(super::handshake::Direction::FirstToSecond) => {}
            Decision::ByComparison(super::handshake::Direction::FirstToSecond) => {
                self.or_stop(members[at].map.mark_all_dirty())?;
            }
            _ => {
                members[at].refused = Some(outcome);
                self.sink.tell(|| MirrorEvent::CopyRefused { number, reason: outcome.reason });
                let text = format!(
                    "copy {number} cannot come online: {} ({}); repair from the copy that is right",
                    outcome.decision, outcome.reason
                );
                return Err(Error::MirrorRefused(text));
            }
        }
        self.or_stop(members[at].map.checkpoint())?;
        self.update_state(|state| {
            for copy in state.copies.iter_mut().filter(|copy| copy.number == number) {
                (copy.online, copy.stamp) = (true, None);
                copy.sample.clear();
            }
        })?;
        let member = &mut members[at];
        (member.online, member.refused, member.trouble) = (true, None, None);
        self.adopt(&mut members, number)?;
        self.sink.tell(|| MirrorEvent::CopyOnline { number, reason: outcome.reason });
        Ok(outcome)
    }

    /// What the handshake says of a copy, beside the source.
    pub(super) fn shake_hands(&self, source: &Member, other: &Member) -> Result<Handshake> {
        let state = self.meta.lock().current().clone();
        let known = |member: &Member| -> Result<CopyState> {
            let record = state.copies.iter().find(|copy| copy.number == member.number);
            let record = record.ok_or_else(|| no_copy(member.number))?;
            let Some(copy) = &member.copy else {
                let why = member.trouble.clone().unwrap_or_else(|| "it is not there".into());
                return Err(Error::MirrorRefused(format!("copy {} is missing: {why}", member.number)));
            };
            // The set is in use: what is in flight is known, and no crash lies in between.
            Ok(CopyState {
                clean: true,
                ..copy_state(member, &**copy, record, &state, self.options.sabotage)
            })
        };
        // One that was behind when another left, and lacks nothing since, has not been given the generation that it belongs to.
        let online = state.copies.iter().filter(|copy| copy.online);
        let newest = online.max_by_key(|copy| copy.generations.current().number);
        let own = known(source)?;
        let source = match newest.filter(|_| source.is_whole()) {
            Some(newest) => CopyState { generations: newest.generations.clone(), ..own },
            None => own,
        };
        Ok(handshake(&source, &known(other)?))
    }

    /// A copy that lacks nothing any more belongs to the newest generation, and gets a fresh map: the log of the old one names regions that it lacked.
    pub(super) fn adopt(&self, members: &mut [Member], number: u32) -> Result<()> {
        let Some(member) = members.iter_mut().find(|member| member.number == number && member.is_whole())
        else {
            return Ok(());
        };
        let state = self.meta.lock().current().clone();
        // The newest of all that are online, which may be its own.
        let newest = state.copies.iter().filter(|copy| copy.online);
        let newest = newest.max_by_key(|copy| copy.generations.current().number);
        let own = state.copies.iter().find(|copy| copy.number == number);
        let (Some(own), Some(newest)) = (own, newest) else { return Ok(()) };
        let generations = newest.generations.clone();
        if own.generations == generations && !own.rewrite && !member.map.was_used() {
            return Ok(());
        }
        self.fresh_map(member, own.map, own.id, generations)
    }

    /// Gives a copy an empty map on an extent of its own, and its generations, in one change of the state.
    fn fresh_map(
        &self,
        member: &mut Member,
        old: ExtentId,
        id: crate::format::Uuid,
        generations: Generations,
    ) -> Result<()> {
        let (session, shape, next) = {
            let meta = self.meta.lock();
            let state = meta.current();
            (state.session, state.shape, ExtentId::new(state.next_extent))
        };
        let base = Base { device: id, generation: session, shape };
        let made = new_extent(&*self.storage, next)
            .and_then(|extent| new_map(extent, base, self.options.map_options(), false))
            .and_then(|map| {
                self.storage.sync_names().map_err(super::open::failed("sync the names of"))?;
                Ok(map)
            });
        let map = self.or_stop(made)?;
        self.update_state(|state| {
            state.next_extent += 1;
            for copy in state.copies.iter_mut().filter(|copy| copy.number == member.number) {
                (copy.map, copy.generations, copy.rewrite) = (next, generations.clone(), false);
            }
        })?;
        member.map = map;
        // What stays is an orphan for the next open.
        let _ = self.storage.remove(old);
        Ok(())
    }

    /// Adds a copy. Everything is dirty on it until it is repaired, unless it and the source are known to be zeroes. Returns its number.
    ///
    /// # Errors
    /// `InvalidArgument`, `Exists`, `MirrorRefused` as for [`MirrorSet::create`]; `Io`, `Poisoned`.
    pub fn add(&self, new: NewCopy) -> Result<u32> {
        let geometry = self.geometry.read();
        self.check_alive(&geometry)?;
        let mut members = self.alone()?;
        if members.len() >= MIRROR_COPIES_MAX {
            let text = format!("a mirror set has at most {MIRROR_COPIES_MAX} copies");
            return Err(Error::InvalidArgument(text));
        }
        let taken: Vec<_> = members.iter().filter_map(|member| member.copy.clone()).collect();
        check_new(&new, &taken, geometry.shape.bytes())?;
        let source = members.iter().find(|member| member.is_whole()).ok_or_else(|| no_source(&members))?;
        let zero = |copy: &Arc<dyn MirrorCopy>| copy.is_zero().unwrap_or(false);
        let equal = source.taking().is_some_and(zero) && zero(&new.copy);
        let (state, source) = (self.meta.lock().current().clone(), source.number);
        let generations = state.copies.iter().find(|copy| copy.number == source);
        let generations = generations.ok_or_else(|| no_copy(source))?.generations.clone();
        let (number, extent, id) = (state.next_number, ExtentId::new(state.next_extent), random_uuid()?);
        let base = Base { device: id, generation: state.session, shape: state.shape };
        let made = new_extent(&*self.storage, extent)
            .and_then(|extent| new_map(extent, base, self.options.map_options(), !equal))
            .and_then(|map| {
                self.storage.sync_names().map_err(super::open::failed("sync the names of"))?;
                Ok(map)
            });
        let map = self.or_stop(made)?;
        let record = CopyRecord {
            number,
            id,
            online: true,
            rewrite: false,
            generations,
            map: extent,
            stamp: None,
            sample: Vec::new(),
            locator: new.locator,
        };
        self.update_state(|state| {
            state.next_extent += 1;
            state.next_number += 1;
            state.copies.push(record);
        })?;
        members.push(Member {
            number,
            copy: Some(new.copy),
            map,
            online: true,
            trouble: None,
            refused: None,
        });
        self.sink.tell(|| MirrorEvent::CopyAdded { number });
        Ok(number)
    }

    /// Takes a copy out of the set for good. Its content stays as it is, its number is not used again.
    ///
    /// # Errors
    /// `NotFound`; `MirrorRefused` for the last copy that lacks nothing; `Io`, `Poisoned`.
    pub fn remove(&self, number: u32) -> Result<()> {
        let geometry = self.geometry.read();
        self.check_alive(&geometry)?;
        self.flush_patiently(&geometry)?;
        let mut members = self.alone()?;
        let at = members.iter().position(|member| member.number == number).ok_or_else(|| no_copy(number))?;
        if !members.iter().any(|member| member.number != number && member.is_whole()) {
            let text =
                format!("without copy {number} no copy that lacks nothing is left; repair another one first");
            return Err(Error::MirrorRefused(text));
        }
        let mut map = None;
        self.update_state(|state| {
            map = state.copies.iter().find(|copy| copy.number == number).map(|copy| copy.map);
            state.copies.retain(|copy| copy.number != number);
        })?;
        members.remove(at);
        // What stays is an orphan for the next open.
        let _ = map.map(|map| self.storage.remove(map));
        self.sink.tell(|| MirrorEvent::CopyRemoved { number });
        Ok(())
    }

    /// Decides by hand that a copy is right: every other one is behind it and all dirty. The only way out of a split brain.
    ///
    /// # Errors
    /// `NotFound`; `MirrorRefused` when the copy is missing or too small; `Io`, `Poisoned`.
    pub fn resolve(&self, winner: u32) -> Result<()> {
        let geometry = self.geometry.read();
        self.check_alive(&geometry)?;
        if self.members.read().iter().any(|member| member.online) {
            self.flush_patiently(&geometry)?;
        }
        let mut members = self.alone()?;
        let bytes = geometry.shape.bytes();
        let fits = |member: &Member| {
            member.copy.as_ref().is_some_and(|copy| copy.size().is_ok_and(|size| size >= bytes))
        };
        let found = member(&members, winner)?;
        if !fits(found) {
            return Err(Error::MirrorRefused(format!(
                "copy {winner} is missing, or smaller than the volume"
            )));
        }
        let synced = found.copy.as_ref().map_or(Ok(()), |copy| copy.sync());
        synced.map_err(|error| Error::io("sync", format!("copy {winner}"), error))?;
        for member in members.iter_mut().filter(|member| member.number != winner) {
            self.or_stop(member.map.mark_all_dirty())?;
            self.or_stop(member.map.checkpoint())?;
        }
        let state = self.meta.lock().current().clone();
        let own = state.copies.iter().find(|copy| copy.number == winner).ok_or_else(|| no_copy(winner))?;
        let mut newest = own.generations.clone();
        newest.rotate(random()?, &[])?;
        let member =
            members.iter_mut().find(|member| member.number == winner).ok_or_else(|| no_copy(winner))?;
        clear_all(member);
        self.fresh_map(member, own.map, own.id, newest.clone())?;
        let fitting: Vec<u32> =
            members.iter().filter(|member| fits(member)).map(|member| member.number).collect();
        self.update_state(|state| {
            state.sample.clear();
            for copy in &mut state.copies {
                copy.online = fitting.contains(&copy.number);
                copy.stamp = None;
                copy.sample.clear();
                if copy.number != winner {
                    // Behind the winner, whatever they were before.
                    copy.generations = Generations::new(own.generations.current(), None, &[]);
                }
            }
        })?;
        for member in members.iter_mut() {
            member.online = fitting.contains(&member.number);
            (member.refused, member.trouble) = (None, None);
        }
        self.sink.tell(|| MirrorEvent::Resolved { winner });
        Ok(())
    }
}
