//! What must be true of a store with taps.
//!
//! - *Exact*: a point that the timeline calls exact shows the volume after some number of completed writes; that number never falls along
//!   the timeline, and one number fits all volumes that are exact at the point. Everything else is refused, with the nearest exact points.
//! - *Claim*: what differs between source and store is claimed by the dirty map, or was captured whole and is on its way. Against what
//!   a power cut would leave, only the latter may be missing.
//! - *Kept*: acknowledged points and bookmarks are there.

use super::host::{Host, Remembered};
use crate::{
    Store, Timeline,
    error::{Error, PointUnavailable},
    io::simulated::CrashPolicy,
    point::Point,
    testing::mismatch::Mismatch,
    units::{SECTOR_BYTES, Seq, TimeNs, len_u64, to_len},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Points compared in one look, besides the ends of the exact ranges.
const POINTS: u64 = 12;

/// The exact seqs of each volume.
type Spans = Vec<Vec<(Seq, Seq)>>;

fn is_exact(spans: &[(Seq, Seq)], seq: Seq) -> bool {
    spans.iter().any(|(from, to)| (*from..=*to).contains(&seq))
}

impl Host {
    /// Compares points, bookmarks and times with the order of writes. The storage works.
    pub fn check_points(&mut self) -> Result<(), Mismatch> {
        let store = self.store()?;
        let timeline = store.timeline().map_err(Mismatch::failed("timeline"))?;
        let spans = self.spans(&timeline)?;
        let newest = timeline.newest.seq;
        let mut seqs: BTreeSet<Seq> = [newest].into();
        for (from, to) in spans.iter().flatten() {
            let around = [from.get().saturating_sub(1), from.get(), to.get(), to.get() + 1];
            seqs.extend(around.map(Seq::new));
        }
        for _ in 0..POINTS {
            seqs.insert(Seq::new(self.rng.below(newest.get() + 1)));
        }
        seqs.retain(|seq| *seq <= newest);
        let mut order = 0;
        let mut kept: Vec<bool> = self.acknowledged.iter().map(|order| *order == 0).collect();
        for seq in seqs {
            let states = self.states_at(&store, &spans, seq)?;
            order = self.first_order(&states, order, seq)?;
            for (volume, states) in &states {
                let since = self.acknowledged[*volume];
                let disk = &self.disks[*volume];
                let later = disk.line().iter().filter(|moment| moment.order >= since);
                kept[*volume] |= disk.was(states, since) || later.clone().any(|m| states.contains(&m.state));
            }
        }
        if let Some(volume) = kept.iter().position(|kept| !kept) {
            let (disk, order) = (&self.disks[volume], self.acknowledged[volume]);
            let what = format!("exact points of volume '{}'", disk.name);
            let expected = format!("one with the first {order} writes, which were acknowledged");
            return Err(Mismatch::new(what, expected, format!("{:?}", spans[volume])));
        }
        self.check_bookmarks(&store, &spans)?;
        self.check_times(&store, &timeline, &spans)
    }

    /// Exact ranges and gaps cover the timeline of each volume, once.
    fn spans(&self, timeline: &Timeline) -> Result<Spans, Mismatch> {
        let mut spans = Vec::new();
        for disk in &self.disks {
            let from = timeline.volumes.iter().find(|info| info.name == disk.name).map(|i| i.exists_from);
            let of = |volume: &str| volume == disk.name;
            let exact = timeline.exact.iter().filter(|range| of(&range.volume));
            let exact: Vec<(Seq, Seq)> = exact.map(|range| (range.from.seq, range.to.seq)).collect();
            let gaps = timeline.gaps.iter().filter(|gap| of(&gap.volume));
            let mut all: Vec<(Seq, Seq)> = gaps.map(|gap| (gap.from.seq, gap.to.seq)).collect();
            all.extend(&exact);
            all.sort_unstable();
            let mut next = from.ok_or_else(|| Mismatch::new("volume", &*disk.name, "none"))?;
            for (from, to) in &all {
                if *from != next || to < from {
                    break;
                }
                next = to.next();
            }
            if next != timeline.newest.seq.next() {
                let what = format!("exact ranges and gaps of volume '{}'", disk.name);
                let expected = format!("a row up to {}", timeline.newest.seq);
                return Err(Mismatch::new(what, expected, format!("{all:?}")));
            }
            spans.push(exact);
        }
        Ok(spans)
    }

    /// The states of the volumes that are exact at a seq; those that are not must be refused.
    fn states_at(
        &mut self,
        store: &Store,
        spans: &Spans,
        seq: Seq,
    ) -> Result<BTreeMap<usize, Vec<u64>>, Mismatch> {
        let mut states = BTreeMap::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let volume = store.volume(Some(&disk.name)).map_err(Mismatch::failed("volume"))?;
            let call = format!("snapshot({seq}) of volume '{}'", disk.name);
            match (volume.snapshot(seq), is_exact(&spans[index], seq)) {
                (Ok(snapshot), true) => {
                    let mut image = vec![0xa5; to_len(disk.bytes())];
                    snapshot.read(0, &mut image).map_err(Mismatch::failed(call.clone()))?;
                    states.insert(index, disk.readings(&disk.decode(&call, &image)?));
                    self.coverage.points += 1;
                }
                (Ok(_), false) => return Err(Mismatch::new(call, "refused: not exact", "opened")),
                (Err(Error::PointUnavailable(refusal)), false) => {
                    nearest_are_right(&call, &refusal, &spans[index], seq)?;
                }
                (Err(error), _) => return Err(Mismatch::failed(call)(error)),
            }
        }
        Ok(states)
    }

    /// The first number of writes, not below `from`, after which all volumes are in these states.
    fn first_order(&self, states: &BTreeMap<usize, Vec<u64>>, from: u64, seq: Seq) -> Result<u64, Mismatch> {
        let fits = |order: u64| states.iter().all(|(volume, state)| self.disks[*volume].was(state, order));
        let moments = states.keys().flat_map(|volume| self.disks[*volume].line());
        let mut orders: Vec<u64> = moments.map(|moment| moment.order).filter(|order| *order > from).collect();
        orders.sort_unstable();
        std::iter::once(from).chain(orders).find(|order| fits(*order)).ok_or_else(|| {
            let of = |(volume, states): (&usize, &Vec<u64>)| {
                let disk = &self.disks[*volume];
                let orders: Vec<u64> =
                    disk.line().iter().filter(|m| states.contains(&m.state)).map(|m| m.order).collect();
                format!("'{}' as after write {orders:?}", disk.name)
            };
            let found: Vec<String> = states.iter().map(of).collect();
            let what = format!("exact point {seq}");
            Mismatch::new(what, format!("one cut, not before write {from}"), found.join(", "))
        })
    }

    fn check_bookmarks(&self, store: &Store, spans: &Spans) -> Result<(), Mismatch> {
        for Remembered { bookmark, order } in &self.bookmarks {
            let found = store.bookmark(&bookmark.name).map_err(Mismatch::failed("bookmark"))?;
            if found != *bookmark {
                return Err(Mismatch::new("bookmark", format!("{bookmark:?}"), format!("{found:?}")));
            }
            for (disk, spans) in self.disks.iter().zip(spans) {
                let exact = is_exact(spans, bookmark.seq);
                if bookmark.inexact_volumes.contains(&disk.name) == exact {
                    let what = format!("volume '{}' at a bookmark", disk.name);
                    let expected = if exact { "listed as exact" } else { "listed as inexact" };
                    return Err(Mismatch::new(what, expected, format!("{bookmark:?}")));
                }
                if !exact {
                    continue;
                }
                let call = format!("bookmark '{}' of volume '{}'", bookmark.name, disk.name);
                let volume = store.volume(Some(&disk.name)).map_err(Mismatch::failed("volume"))?;
                let snapshot = volume.snapshot(bookmark.seq).map_err(Mismatch::failed(call.clone()))?;
                let mut image = vec![0xa5; to_len(disk.bytes())];
                snapshot.read(0, &mut image).map_err(Mismatch::failed(call.clone()))?;
                let states = disk.readings(&disk.decode(&call, &image)?);
                if !disk.was(&states, *order) {
                    let orders: Vec<u64> =
                        disk.line().iter().filter(|m| states.contains(&m.state)).map(|m| m.order).collect();
                    let found = format!("the state after write {orders:?}");
                    return Err(Mismatch::new(call, format!("the state after write {order}"), found));
                }
            }
        }
        Ok(())
    }

    /// A time that resolves to an exact point shows the state of that time.
    fn check_times(&mut self, store: &Store, timeline: &Timeline, spans: &Spans) -> Result<(), Mismatch> {
        for _ in 0..POINTS {
            let volume = to_len(self.rng.below(len_u64(self.disks.len())));
            let moments = len_u64(self.disks[volume].line().len());
            let near = self.disks[volume].line()[to_len(self.rng.below(moments))].time;
            let time = near.saturating_add(self.rng.pick(&[0, 500, 1_000_000, 300_000_000]));
            let disk = &self.disks[volume];
            let moments = disk.at_time(time);
            if moments.is_empty() {
                continue;
            }
            let point = Point::Time(TimeNs::new(time));
            let seq = match store.resolve(&point) {
                Ok(found) => found.seq,
                Err(Error::PointUnavailable(_)) => continue,
                Err(error) => return Err(Mismatch::failed("resolve of a time")(error)),
            };
            if seq > timeline.newest.seq || !is_exact(&spans[volume], seq) {
                continue;
            }
            let call = format!("time {time} (seq {seq}) of volume '{}'", disk.name);
            let handle = store.volume(Some(&disk.name)).map_err(Mismatch::failed("volume"))?;
            let snapshot = handle.snapshot(seq).map_err(Mismatch::failed(call.clone()))?;
            let mut image = vec![0xa5; to_len(disk.bytes())];
            snapshot.read(0, &mut image).map_err(Mismatch::failed(call.clone()))?;
            let states = disk.readings(&disk.decode(&call, &image)?);
            if !moments.iter().any(|moment| states.contains(&moment.state)) {
                let of_time = |m: &super::disk::Moment| (m.order, m.time);
                let orders: Vec<_> =
                    disk.line().iter().filter(|m| states.contains(&m.state)).map(of_time).collect();
                let expected = format!("the state of (write, time) {:?}", of_time(&moments[0]));
                let gaps = timeline.gaps.iter().filter(|gap| gap.volume == disk.name);
                let gaps: Vec<_> = gaps.map(|gap| (gap.from, gap.to)).collect();
                return Err(Mismatch::new(call, expected, format!("the state of {orders:?}; gaps {gaps:?}")));
            }
        }
        Ok(())
    }

    /// What differs between the sources and the store is claimed, or on its way. Changes nothing.
    pub fn check_claims(&self) -> Result<(), Mismatch> {
        let store = self.store()?;
        self.claims_cover(&store, "the newest state")
    }

    /// The same, after everything on its way has arrived.
    pub fn check_claims_arrived(&self) -> Result<(), Mismatch> {
        let store = self.store()?;
        self.claims_cover_but(&store, "the newest state, flushed", |_, _| false)
    }

    /// The same against what a power cut would leave.
    pub fn check_durable_claims(&self) -> Result<(), Mismatch> {
        let left = self.storage.fork().crash(self.config.seed, CrashPolicy::LoseUnsynced);
        left.set_capacity(None);
        let durable = Store::open_read_only(Arc::new(left), self.options())
            .map_err(Mismatch::failed("open_read_only of what a power cut would leave"))?;
        self.claims_cover(&durable, "what a power cut would leave")
    }

    fn claims_cover(&self, store: &Store, what: &str) -> Result<(), Mismatch> {
        self.claims_cover_but(store, what, |volume, sector| self.disks[volume].whole[sector])
    }

    fn claims_cover_but(
        &self,
        store: &Store,
        what: &str,
        under_way: impl Fn(usize, usize) -> bool,
    ) -> Result<(), Mismatch> {
        for (volume, disk) in self.disks.iter().enumerate() {
            let Some(tap) = &self.watches[volume].tap else { continue };
            let handle = store.volume(Some(&disk.name)).map_err(Mismatch::failed("volume"))?;
            let mut image = vec![0xa5; to_len(disk.bytes())];
            handle.read(0, &mut image).map_err(Mismatch::failed("read"))?;
            let content = disk.decode(what, &image)?;
            let claims = tap.dirty_extents();
            for (sector, (own, stored)) in disk.source.iter().zip(&content).enumerate() {
                let byte = len_u64(sector) * SECTOR_BYTES;
                let claimed = claims.iter().any(|range| (range.offset..range.end()).contains(&byte));
                if own != stored && !claimed && !under_way(volume, sector) {
                    let what = format!("the claim of volume '{}' against {what}", disk.name);
                    let expected = format!("to hold byte {byte}: {own} there, {stored} in the store");
                    return Err(Mismatch::new(what, expected, format!("{claims:?}")));
                }
            }
        }
        Ok(())
    }
}

/// A refusal names the nearest exact points.
fn nearest_are_right(
    call: &str,
    refusal: &PointUnavailable,
    spans: &[(Seq, Seq)],
    seq: Seq,
) -> Result<(), Mismatch> {
    let before = spans.iter().filter(|(from, _)| *from <= seq).map(|(_, to)| (*to).min(seq)).max();
    let after = spans.iter().filter(|(_, to)| *to >= seq).map(|(from, _)| (*from).max(seq)).min();
    let named = (refusal.before.map(|point| point.seq), refusal.after.map(|point| point.seq));
    if named == (before, after) {
        return Ok(());
    }
    let what = format!("the nearest points in the refusal of {call}");
    Err(Mismatch::new(what, format!("{:?}", (before, after)), format!("{named:?}")))
}
