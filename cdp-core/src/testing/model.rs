//! The oracle: what a store must say, kept in the simplest way that can be right.
//!
//! A list of the writes in the order of their seqs, and from it the content of every sector at every seq. It knows what was
//! acknowledged, and for everything whose call failed or was cut short by a crash it knows the outcomes that are allowed:
//! - *Prefix*: after a crash the store is at one of the seqs from the last acknowledged to the newest; what lies behind it
//!   is forgotten here too ([`Model::recovered`]).
//! - *All or nothing*: a write that was cut short is there as a whole or not at all ([`Model::wrote_perhaps`]).
//! - *Names*: a bookmark or volume is as its last successful call left it; where a later call failed, that call may have
//!   had its effect.
//!
//! Memory follows the number of writes, not the size of the volumes.

use super::{
    coalesced::Stretches,
    image::{Image, Piece},
    mismatch::Mismatch,
    remains::Remains,
    stamp::{Stamp, VolumeTag},
};
use crate::{
    bookmark::Bookmark,
    capture::Coalescing,
    catalog::VolumeInfo,
    error::SeqTime,
    retention::Policy,
    units::{SECTOR_BYTES, Seq, TimeNs, len_u64, to_len},
};
use std::collections::BTreeMap;

/// What one seq changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The volume, by its place in the row of volumes.
    pub volume: usize,
    /// The new content, by ascending sector; together the range that was written.
    pub pieces: Vec<Piece>,
    /// When.
    pub time: TimeNs,
}

impl Written {
    /// First sector, and first sector behind the range; both zero when nothing was written.
    pub fn range(&self) -> (u64, u64) {
        match (self.pieces.first(), self.pieces.last()) {
            (Some(first), Some(last)) => (first.start, last.end),
            _ => (0, 0),
        }
    }
}

/// A volume that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVolume {
    /// Its name.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// The first seq at which it can be opened.
    pub exists_from: Seq,
    /// Its name in its content.
    pub tag: VolumeTag,
    /// Its earlier sizes, bytes: each up to, and not including, the seq that changed it.
    pub before: Vec<(Seq, u64)>,
}

impl ModelVolume {
    /// Its size in sectors.
    pub fn sectors(&self) -> u64 {
        self.bytes / SECTOR_BYTES
    }

    /// The volume as it was at a seq.
    pub fn at(&self, seq: Seq) -> Self {
        let bytes =
            self.before.iter().find(|(until, _)| seq < *until).map_or(self.bytes, |(_, bytes)| *bytes);
        Self { bytes, ..self.clone() }
    }
}

/// A volume whose making was cut short.
#[derive(Clone, Debug)]
struct PerhapsVolume {
    volume: ModelVolume,
    /// For an import: what it holds.
    content: Option<Written>,
}

/// What a store shows of itself besides content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The newest state.
    pub newest: SeqTime,
    /// The volumes, in the order in which they were made.
    pub volumes: Vec<VolumeInfo>,
    /// The bookmarks.
    pub bookmarks: Vec<Bookmark>,
    /// How the next write is coalesced.
    pub coalescing: Coalescing,
    /// What retention has left.
    pub remains: Remains,
    /// The policy in force.
    pub policy: Policy,
}

/// The oracle.
#[derive(Clone, Debug, Default)]
pub struct Model {
    volumes: Vec<ModelVolume>,
    history: Vec<Written>,
    acknowledged: Seq,
    /// Every state that a bookmark may be in; one alone is certain. `None`: there is no such bookmark.
    bookmarks: BTreeMap<String, Vec<Option<Bookmark>>>,
    perhaps_written: Option<Written>,
    perhaps_volume: Option<PerhapsVolume>,
    /// A volume, by its place, and the size that it has if the write that may be there is.
    perhaps_resized: Option<(usize, u64)>,
    stretches: Stretches,
    remains: Remains,
    /// What may be left instead, where carrying out a plan failed or was cut short.
    perhaps_remains: Vec<Remains>,
    /// Every policy that may be in force; the last one is, unless it was cut short.
    policies: Vec<Policy>,
    last_stamp: Stamp,
    tags: u16,
}

impl Model {
    /// A new store with one volume of zeroes.
    pub fn new(volume: &str, bytes: u64) -> Self {
        let mut model = Self { policies: vec![Policy::default()], ..Self::default() };
        let tag = model.new_tag();
        model.volumes.push(ModelVolume {
            name: volume.to_owned(),
            bytes,
            exists_from: Seq::ZERO,
            tag,
            before: Vec::new(),
        });
        model
    }

    /// The first volume was imported: its content is seq 1, and it exists from there on.
    pub fn begins_with(&mut self, content: Written) {
        self.volumes[0].exists_from = Seq::ZERO.next();
        self.history.push(content);
        self.acknowledged = Seq::ZERO.next();
    }

    // Content to be written.

    /// A stamp for the next write.
    pub fn new_stamp(&mut self) -> Stamp {
        self.last_stamp = self.last_stamp.next();
        self.last_stamp
    }

    /// A tag for the next volume.
    pub fn new_tag(&mut self) -> VolumeTag {
        self.tags += 1;
        VolumeTag::new(self.tags)
    }

    // What has happened.

    /// A write succeeded and took the next seq, which is returned.
    pub fn wrote(&mut self, written: Written) -> Seq {
        self.history.push(written);
        self.newest().seq
    }

    /// A write was cut short by a crash: the next seq may be it.
    pub fn wrote_perhaps(&mut self, written: Written) {
        self.perhaps_written = Some(written);
    }

    /// Everything up to `seq` is durable.
    pub fn acknowledge(&mut self, seq: Seq) {
        self.acknowledged = self.acknowledged.max(seq);
    }

    /// Whoever looks may see a state as old as this one, though newer ones were acknowledged meanwhile.
    pub fn may_be_back_at(&mut self, seq: Seq) {
        self.acknowledged = seq;
    }

    /// A volume was resized, which took the next seq: what is cut off reads as zeroes from there on.
    pub fn resized(&mut self, volume: usize, bytes: u64) -> Seq {
        let written = self.resize_of(volume, bytes);
        let seq = self.wrote(written);
        self.set_size(volume, bytes, seq);
        seq
    }

    /// The resize of a volume was cut short by a crash: the next seq may be it.
    pub fn resized_perhaps(&mut self, volume: usize, bytes: u64) {
        self.perhaps_written = Some(self.resize_of(volume, bytes));
        self.perhaps_resized = Some((volume, bytes));
    }

    /// What a resize changes of the content. It does not move the clock.
    fn resize_of(&self, volume: usize, bytes: u64) -> Written {
        let (start, end) = (bytes / SECTOR_BYTES, self.volumes[volume].sectors());
        let cut = (start < end).then_some(Piece { start, end, stamp: Stamp::ZERO });
        Written { volume, pieces: cut.into_iter().collect(), time: self.newest().time }
    }

    fn set_size(&mut self, volume: usize, bytes: u64, from: Seq) {
        let volume = &mut self.volumes[volume];
        volume.before.push((from, volume.bytes));
        volume.bytes = bytes;
    }

    /// A volume was made. Its content, if it was imported, has been entered as a write before or is entered after.
    pub fn added_volume(&mut self, volume: ModelVolume) -> usize {
        self.volumes.push(volume);
        self.volumes.len() - 1
    }

    /// The making of a volume failed or was cut short: it may be there, with `content` as the next seq if it was imported.
    pub fn added_volume_perhaps(&mut self, volume: ModelVolume, content: Option<Written>) {
        self.perhaps_volume = Some(PerhapsVolume { volume, content });
    }

    /// A bookmark is in this state, or gone.
    pub fn set_bookmark(&mut self, name: &str, state: Option<Bookmark>) {
        self.bookmarks.insert(name.to_owned(), vec![state]);
    }

    /// A bookmark may be in this state, or gone: the call that should have made it so failed or was cut short.
    pub fn set_bookmark_perhaps(&mut self, name: &str, state: Option<Bookmark>) {
        let states = self.bookmarks.entry(name.to_owned()).or_insert_with(|| vec![None]);
        states.push(state);
    }

    /// Writes are coalesced in this way from the next one on; `certain`: also after a crash.
    pub fn coalesces(&mut self, coalescing: Coalescing, certain: bool) {
        let behind = self.newest().seq;
        self.stretches.set(behind, coalescing, certain);
    }

    /// A policy is in force from now on; `certain`: also after a crash.
    pub fn set_policy(&mut self, policy: Policy, certain: bool) {
        if certain {
            self.policies.clear();
        }
        self.policies.push(policy);
    }

    /// A plan was carried out: this is what is left.
    pub fn thinned(&mut self, remains: Remains) {
        self.remains = remains;
        self.perhaps_remains.clear();
    }

    /// A plan is in force and may not be so after a crash: its record could not be made durable for certain.
    pub fn thinned_in_doubt(&mut self, remains: Remains) {
        let before = std::mem::replace(&mut self.remains, remains);
        self.perhaps_remains.push(before);
    }

    /// A plan failed or was cut short: this may be what is left.
    pub fn thinned_perhaps(&mut self, remains: Remains) {
        self.perhaps_remains.push(remains);
    }

    /// A flush succeeded: where writes are coalesced by barrier, the newest state is a point.
    pub fn barrier(&mut self) {
        let newest = self.newest().seq;
        self.stretches.barrier(newest);
    }

    /// Takes over what a store shows after a crash or a reopen.
    ///
    /// # Errors
    /// When the model does not allow it.
    pub fn recovered(&mut self, seen: &Observation) -> Result<(), Mismatch> {
        self.admits(seen)?;
        if seen.newest.seq > self.newest().seq {
            let last = self.cut_import().or(self.perhaps_written.clone());
            self.history.extend(last);
            if let Some((volume, bytes)) = self.perhaps_resized {
                self.set_size(volume, bytes, seen.newest.seq);
            }
        }
        for volume in &mut self.volumes {
            *volume = volume.at(seen.newest.seq);
            volume.before.retain(|(from, _)| *from <= seen.newest.seq);
        }
        self.history.truncate(to_len(seen.newest.seq.get()));
        if seen.volumes.len() > self.volumes.len()
            && let Some(perhaps) = self.perhaps_volume.take()
        {
            self.volumes.push(perhaps.volume);
        }
        // What a volume holds that does not exist will never be seen.
        for written in self.history.iter_mut().filter(|written| written.volume >= self.volumes.len()) {
            *written = Written { volume: 0, pieces: Vec::new(), time: written.time };
        }
        for (name, states) in &mut self.bookmarks {
            *states = vec![seen.bookmarks.iter().find(|bookmark| bookmark.name == *name).cloned()];
        }
        self.perhaps_volume = None;
        self.perhaps_written = None;
        self.perhaps_resized = None;
        self.acknowledged = seen.newest.seq;
        self.stretches.recovered(seen.newest.seq, seen.coalescing);
        self.thinned(seen.remains.clone());
        self.set_policy(seen.policy.clone(), true);
        Ok(())
    }

    /// The content of the import that was cut short, whose volume may turn out not to exist.
    fn cut_import(&self) -> Option<Written> {
        self.perhaps_volume.as_ref()?.content.clone()
    }

    // What must be.

    /// The volumes in the order in which they were made.
    pub fn volumes(&self) -> &[ModelVolume] {
        &self.volumes
    }

    /// The writes; the one at index `i` has seq `i + 1`.
    pub fn history(&self) -> &[Written] {
        &self.history
    }

    /// Everything up to here is durable.
    pub fn acknowledged(&self) -> Seq {
        self.acknowledged
    }

    /// The newest state and its time.
    pub fn newest(&self) -> SeqTime {
        let seq = Seq::new(len_u64(self.history.len()));
        SeqTime { seq, time: self.time_of(seq) }
    }

    /// How writes are coalesced.
    pub fn stretches(&self) -> &Stretches {
        &self.stretches
    }

    /// What retention has left.
    pub fn remains(&self) -> &Remains {
        &self.remains
    }

    /// The policy in force, as far as is known.
    pub fn policy(&self) -> Policy {
        self.policies.last().cloned().unwrap_or_default()
    }

    /// Whether a state must be a point, when `newest` is the newest one. Others may be points, and then they are exact, unless
    /// retention has taken them away.
    pub fn is_surely_point(&self, seq: Seq, newest: Seq) -> bool {
        self.is_surely_point_of(&self.remains, seq, newest)
    }

    /// The same where this is left.
    pub fn is_surely_point_of(&self, remains: &Remains, seq: Seq, newest: Seq) -> bool {
        if !remains.contains(seq) {
            return false;
        }
        if remains.is_chosen(seq) {
            return true;
        }
        if seq == Seq::ZERO || seq == newest || self.certain_bookmarks().any(|bookmark| bookmark.seq == seq) {
            return true;
        }
        match self.stretches.at(seq) {
            Coalescing::PerWrite => true,
            Coalescing::PerBarrier => self.stretches.is_barrier(seq),
            Coalescing::IntervalNs(length) => {
                self.time_of(seq).get() / length != self.time_of(seq.next()).get() / length
            }
        }
    }

    /// The time of a state; that of seq 0 is 0.
    pub fn time_of(&self, seq: Seq) -> TimeNs {
        let index = seq.get().checked_sub(1).map(to_len);
        index.and_then(|index| self.history.get(index)).map_or(TimeNs::ZERO, |written| written.time)
    }

    /// The last seq whose time is at or before `time`; 0 when there is none.
    pub fn seq_at(&self, time: TimeNs) -> Seq {
        Seq::new(len_u64(self.history.partition_point(|written| written.time <= time)))
    }

    /// The content of a volume at a seq.
    pub fn image(&self, volume: usize, seq: Seq) -> Image {
        let mut image = Image::default();
        for written in self.history.iter().take(to_len(seq.get())).filter(|w| w.volume == volume) {
            written.pieces.iter().for_each(|piece| image.put(*piece));
        }
        image
    }

    /// The versions of one sector: `(seq, content)` by ascending seq.
    pub fn versions(&self, volume: usize, sector: u64) -> Vec<(Seq, Stamp)> {
        let of = |written: &Written| {
            let mut pieces = written.pieces.iter();
            let here =
                pieces.find(|piece| written.volume == volume && (piece.start..piece.end).contains(&sector));
            here.map(|piece| piece.stamp)
        };
        let seqs = (1..).map(Seq::new);
        seqs.zip(&self.history).filter_map(|(seq, written)| Some((seq, of(written)?))).collect()
    }

    /// Bookmarks that are there for certain.
    pub fn certain_bookmarks(&self) -> impl Iterator<Item = &Bookmark> {
        let certain = self.bookmarks.values().filter(|states| states.len() == 1);
        certain.filter_map(|states| states[0].as_ref())
    }

    /// Whether everything about bookmarks and volumes is certain.
    pub fn is_certain(&self) -> bool {
        self.perhaps_volume.is_none() && self.bookmarks.values().all(|states| states.len() == 1)
    }

    /// Checks that a store may show this: a prefix of history with everything that was acknowledged.
    ///
    /// # Errors
    /// What it may not show.
    pub fn admits(&self, seen: &Observation) -> Result<(), Mismatch> {
        self.admits_newest(seen)?;
        self.stretches.admits(seen.newest.seq, seen.coalescing)?;
        self.admits_volumes(seen)?;
        self.admits_retention(seen)?;
        for bookmark in &seen.bookmarks {
            let known = self.bookmarks.get(&bookmark.name);
            if !known.is_some_and(|states| states.contains(&Some(bookmark.clone()))) {
                return Err(Mismatch::new("bookmark", format!("one of {known:?}"), format!("{bookmark:?}")));
            }
            if bookmark.seq > seen.newest.seq {
                let newest = format!("at most seq {}", seen.newest.seq);
                return Err(Mismatch::new("the seq of a bookmark", newest, format!("{bookmark:?}")));
            }
        }
        for (name, states) in &self.bookmarks {
            let present = seen.bookmarks.iter().any(|bookmark| bookmark.name == *name);
            if !present && !states.contains(&None) {
                return Err(Mismatch::new("bookmark", format!("one of {states:?}"), "none"));
            }
        }
        Ok(())
    }

    fn admits_retention(&self, seen: &Observation) -> Result<(), Mismatch> {
        if !self.policies.contains(&seen.policy) {
            let expected = format!("one of {:?}", self.policies);
            return Err(Mismatch::new("policy", expected, format!("{:?}", seen.policy)));
        }
        if seen.remains != self.remains && !self.perhaps_remains.contains(&seen.remains) {
            let expected = format!("{:?} or one of {:?}", self.remains, self.perhaps_remains);
            return Err(Mismatch::new("what retention left", expected, format!("{:?}", seen.remains)));
        }
        if seen.remains.full.from.seq > seen.newest.seq {
            let expected = format!("from {:?} or before", seen.newest);
            return Err(Mismatch::new("the full range", expected, format!("{:?}", seen.remains.full)));
        }
        let lost = seen.bookmarks.iter().find(|bookmark| !seen.remains.contains(bookmark.seq));
        match lost {
            Some(lost) => Err(Mismatch::new("the point of a bookmark", "there", format!("gone: {lost:?}"))),
            None => Ok(()),
        }
    }

    /// The size that a volume must show when `newest` is the newest seq: after a crash that may be the one of a resize that was cut short.
    pub fn size_shown(&self, index: usize, volume: &ModelVolume, newest: Seq) -> u64 {
        match self.perhaps_resized {
            Some((resized, bytes)) if resized == index && newest > self.newest().seq => bytes,
            _ => volume.at(newest).bytes,
        }
    }

    fn admits_newest(&self, seen: &Observation) -> Result<(), Mismatch> {
        let newest = self.newest().seq;
        let perhaps = self.perhaps_volume.as_ref().and_then(|perhaps| perhaps.content.as_ref());
        let next = self.perhaps_written.as_ref().or(perhaps);
        let last = if next.is_some() { newest.next() } else { newest };
        if seen.newest.seq < self.acknowledged || seen.newest.seq > last {
            let allowed = format!("seq {} (acknowledged) to {last}", self.acknowledged);
            return Err(Mismatch::new("newest state", allowed, seen.newest.seq.to_string()));
        }
        let time = match next {
            Some(written) if seen.newest.seq > newest => written.time,
            _ => self.time_of(seen.newest.seq),
        };
        if seen.newest.time != time && seen.newest.seq != Seq::ZERO {
            let what = format!("time of seq {}", seen.newest.seq);
            return Err(Mismatch::new(what, time.to_string(), seen.newest.time.to_string()));
        }
        Ok(())
    }

    fn admits_volumes(&self, seen: &Observation) -> Result<(), Mismatch> {
        let perhaps = self.perhaps_volume.as_ref().map(|perhaps| &perhaps.volume);
        let allowed: Vec<&ModelVolume> = self.volumes.iter().chain(perhaps).collect();
        if seen.volumes.len() < self.volumes.len() || seen.volumes.len() > allowed.len() {
            return Err(Mismatch::new("volumes", format!("{allowed:?}"), format!("{:?}", seen.volumes)));
        }
        for (index, (info, volume)) in seen.volumes.iter().zip(allowed).enumerate() {
            let bytes = self.size_shown(index, volume, seen.newest.seq);
            let same =
                info.name == volume.name && info.bytes == bytes && info.exists_from == volume.exists_from;
            if !same {
                return Err(Mismatch::new("volume", format!("{volume:?}"), format!("{info:?}")));
            }
        }
        Ok(())
    }
}
