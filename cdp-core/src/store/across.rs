//! Bookmarks across stores: one cut through several stores of this process.
//!
//! In two steps, as no crash can be kept from hitting some stores and not others: first each store records the bookmark with the ids of
//! all, *unconfirmed*, and makes it durable; then each that has it records which ones have. Invariants:
//! - *never too much*: a store says *complete* only when the bookmark is durable in every member;
//! - *one cut*: places are taken while no member takes writes (see `group/cut.rs`), so whatever members have it are one cut.

use super::Store;
use crate::{
    bookmark::{Across, AcrossState, Bookmark, Gate, NewBookmark, Quiesce, while_frozen},
    error::{Error, Result},
    format::{Uuid, meta::MetaRecord},
    group::{Cut, Group, random_uuid},
    limits::ACROSS_STORES_MAX,
    units::{FrameNo, TimeNs},
};
use std::{collections::BTreeSet, time::Duration};

/// What became of a bookmark in one of its stores.
#[derive(Debug)]
pub enum MemberOutcome {
    /// It is durable, and so is what the store says of the others.
    Confirmed(Bookmark),
    /// It is durable, but what became of the others could not be recorded.
    Unconfirmed(Bookmark, Error),
    /// The store failed, and the bookmark may be missing: it is not durable, or was not recorded at all.
    Failed(Error),
}

impl MemberOutcome {
    /// The bookmark, where it is durable.
    pub fn bookmark(&self) -> Option<&Bookmark> {
        match self {
            Self::Confirmed(bookmark) | Self::Unconfirmed(bookmark, _) => Some(bookmark),
            Self::Failed(_) => None,
        }
    }
}

/// What became of a bookmark across stores.
#[derive(Debug)]
pub struct AcrossOutcome {
    /// What the bookmarks have in common.
    pub id: Uuid,
    /// Their time.
    pub time: TimeNs,
    /// One for each store, in the order of the call.
    pub members: Vec<MemberOutcome>,
}

impl AcrossOutcome {
    /// Whether every store has it, durably.
    pub fn is_complete(&self) -> bool {
        self.members.iter().all(|member| member.bookmark().is_some())
    }
}

/// Sets one bookmark in several stores: one cut through all their volumes. With `quiesce` production is frozen meanwhile, for the time
/// given at most, as by [`Store::add_bookmark_quiesced`].
///
/// Every write that was acknowledged before another was begun is in the cut if the other is, whichever stores they went to. The
/// bookmark has one time, and in each store says what is known of the others ([`Bookmark::across`]). A store that fails is left out, and
/// the others say so. Calls for the same stores in any order never wait for each other for ever.
///
/// # Errors
/// Nothing is recorded anywhere: `InvalidArgument` for the bookmark, for no stores, for more than [`ACROSS_STORES_MAX`], for one store
/// given twice; `Exists` and `PointUnavailable` (a volume must be exact and is not) when one store refuses; `ReadOnly`; `NotPlaced` for
/// production that was thawed too early or writes too fast; the error of `freeze`. When every store fails, the error of the first;
/// what is left then is unconfirmed.
///
/// # Panics
/// When a callback does; the panic goes on after the thaw.
pub fn bookmark_across(
    stores: &[&Store],
    new: &NewBookmark,
    quiesce: Option<(&dyn Quiesce, Duration)>,
) -> Result<AcrossOutcome> {
    new.validate()?;
    new.validate_newest()?;
    let call = Call::new(stores, new)?;
    // Each on its own first: later, what one waits for keeps all of them waiting. A store that fails here fails again when its place is
    // taken, and is left out then.
    let ready: Vec<Result<()>> = call.members.iter().map(|member| member.group.make_way()).collect();
    if ready.iter().all(Result::is_err) {
        ready.into_iter().collect::<Result<Vec<()>>>()?;
    }
    match quiesce {
        None => call.finish(call.place(&Gate::default())?),
        Some((quiesce, timeout)) => {
            while_frozen(quiesce, timeout, |gate| call.place(gate), |placed| call.finish(placed))
        }
    }
}

/// One call: its stores in the order in which their turns are taken.
struct Call<'a> {
    new: &'a NewBookmark,
    id: Uuid,
    members: Vec<CallMember<'a>>,
}

struct CallMember<'a> {
    /// Its place in the order of the call.
    index: usize,
    store: &'a Store,
    group: &'a Group,
}

/// What has its place, and is not durable yet.
struct Placed {
    time: TimeNs,
    members: Vec<Result<(Bookmark, FrameNo)>>,
}

impl<'a> Call<'a> {
    fn new(stores: &[&'a Store], new: &'a NewBookmark) -> Result<Self> {
        if stores.is_empty() || stores.len() > ACROSS_STORES_MAX {
            return Err(Error::InvalidArgument(format!(
                "a bookmark is set across 1 to {ACROSS_STORES_MAX} stores, not {}",
                stores.len()
            )));
        }
        let mut members = Vec::new();
        for (index, store) in stores.iter().enumerate() {
            members.push(CallMember { index, store, group: store.owner()? });
            store.check_new_name(&new.name)?;
        }
        members.sort_by_key(|member| member.store.id().0);
        if members.windows(2).any(|pair| pair[0].store.id() == pair[1].store.id()) {
            return Err(Error::InvalidArgument("one store, or a copy of it, is given twice".into()));
        }
        Ok(Self { new, id: random_uuid()?, members })
    }

    fn across(&self, state: AcrossState) -> Across {
        Across { id: self.id, stores: self.members.iter().map(|member| member.store.id()).collect(), state }
    }

    /// Takes the place of the bookmark in every store that can give it one.
    fn place(&self, gate: &Gate) -> Result<Placed> {
        let groups: Vec<&Group> = self.members.iter().map(|member| member.group).collect();
        let cut = Cut::through(&groups)?;
        let tips = cut.tips();
        let clocks = self.members.iter().map(|member| member.group.shared.clock.now());
        let time = clocks.chain(tips.iter().map(|(_, time)| *time)).max().unwrap_or_default();
        let time = self.new.time.unwrap_or(time);
        let mut bookmarks = Vec::new();
        for (member, (seq, _)) in self.members.iter().zip(tips) {
            let bookmark = member.store.new_bookmark(self.new, None, seq, || time)?;
            let across = Some(self.across(AcrossState::Unconfirmed));
            bookmarks.push(Bookmark { time, across, ..bookmark });
        }
        // Every place is fixed; if no store stands there is none.
        if cut.stands() {
            gate.pass()?;
        }
        let frames = cut.append(self.new.time, |index| {
            let bookmark = Bookmark { across: None, ..bookmarks[index].clone() };
            let (name, across) = (bookmark.name.clone(), self.across(AcrossState::Unconfirmed));
            vec![MetaRecord::BookmarkAdded(bookmark), MetaRecord::BookmarkAcross { name, across }]
        });
        let placed = frames.into_iter().zip(bookmarks).map(|(frame, bookmark)| Ok((bookmark, frame?)));
        Ok(Placed { time, members: placed.collect() })
    }

    /// Makes what has its place durable, and then lets every store that has it know which ones do.
    fn finish(&self, placed: Placed) -> Result<AcrossOutcome> {
        let durable: Vec<Result<Bookmark>> = self
            .members
            .iter()
            .zip(placed.members)
            .map(|(member, placed)| {
                let (bookmark, frame) = placed?;
                member.group.make_durable(frame).map(|()| bookmark)
            })
            .collect();
        if durable.iter().all(Result::is_err) {
            durable.into_iter().collect::<Result<Vec<Bookmark>>>()?;
            return Err(Error::NotPlaced("there is no store".into()));
        }
        let lacking = self.members.iter().zip(&durable).filter(|(_, durable)| durable.is_err());
        let missing: Vec<Uuid> = lacking.map(|(member, _)| member.store.id()).collect();
        let state = if missing.is_empty() { AcrossState::Complete } else { AcrossState::Partial { missing } };
        let across = self.across(state);
        // All of them first, so that the syncs that follow do not keep the next one waiting.
        let confirmations: Vec<Option<Result<FrameNo>>> = self
            .members
            .iter()
            .zip(&durable)
            .map(|(member, durable)| {
                durable.is_ok().then(|| member.store.place_across(&self.new.name, &across))
            })
            .collect();
        let mut outcomes = Vec::new();
        for ((member, durable), confirmation) in self.members.iter().zip(durable).zip(confirmations) {
            let confirmed =
                confirmation.map(|frame| frame.and_then(|frame| member.group.make_durable(frame)));
            let outcome = match (durable, confirmed) {
                (Ok(bookmark), Some(Err(error))) => MemberOutcome::Unconfirmed(bookmark, error),
                (Ok(bookmark), _) => {
                    MemberOutcome::Confirmed(Bookmark { across: Some(across.clone()), ..bookmark })
                }
                (Err(error), _) => MemberOutcome::Failed(error),
            };
            outcomes.push((member.index, outcome));
        }
        outcomes.sort_by_key(|(index, _)| *index);
        let members = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
        Ok(AcrossOutcome { id: self.id, time: placed.time, members })
    }
}

/// Confirms a bookmark that a crash left unconfirmed, as far as these stores can tell: one of them knows, or all members are among them
/// and have it. Returns the bookmark's state in the end; what is still unconfirmed stays so.
///
/// # Errors
/// `NotFound` when none of the stores has a bookmark of this name and id; those of appending.
pub fn confirm_across(stores: &[&Store], name: &str, id: Uuid) -> Result<AcrossState> {
    let mut having = Vec::new();
    for store in stores {
        let across = store.bookmark(name).ok().and_then(|bookmark| bookmark.across);
        if let Some(across) = across.filter(|across| across.id == id) {
            having.push((*store, across));
        }
    }
    let Some((_, first)) = having.first() else {
        return Err(Error::NotFound { what: "bookmark across stores", name: name.to_owned() });
    };
    let told =
        having.iter().map(|(_, across)| across).find(|across| across.state != AcrossState::Unconfirmed);
    let known = match told {
        Some(told) => told.clone(),
        None => {
            let present: BTreeSet<[u8; 16]> = having.iter().map(|(store, _)| store.id().0).collect();
            if !first.stores.iter().all(|store| present.contains(&store.0)) {
                return Ok(AcrossState::Unconfirmed);
            }
            // What a store shows need not be durable yet.
            having.iter().try_for_each(|(store, _)| store.flush().map(|_| ()))?;
            Across { state: AcrossState::Complete, ..first.clone() }
        }
    };
    for (store, across) in &having {
        // One that the others count as missing had it after all; it stays a point of its own.
        if across.state == AcrossState::Unconfirmed && !known.missing().contains(&store.id()) {
            let frame = store.place_across(name, &known)?;
            store.owner()?.make_durable(frame)?;
        }
    }
    Ok(known.state)
}

impl Store {
    /// The identity of the store; a copy of its files has the same.
    pub fn id(&self) -> Uuid {
        self.inner.group.shared.store
    }

    /// Appends what is known of the other members of a bookmark, if this store still has it. Not yet durable.
    fn place_across(&self, name: &str, across: &Across) -> Result<FrameNo> {
        self.owner()?.place_meta(
            |_, _| {
                let recorded = self.bookmark(name)?.across.map(|recorded| recorded.id);
                if recorded != Some(across.id) {
                    return Err(Error::NotFound { what: "bookmark across stores", name: name.to_owned() });
                }
                let (name, across) = (name.to_owned(), across.clone());
                Ok(vec![MetaRecord::BookmarkAcross { name, across }])
            },
            None,
            || Ok(()),
        )
    }
}
