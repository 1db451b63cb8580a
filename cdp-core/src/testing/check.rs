//! Compares a store with the model: content of the volumes and of points, changed extents, resolution of points, timeline.
//!
//! A [`Checker`] holds what to compare and how much of it. Reads are cut into pieces of random length, and begin and end at
//! random sectors, so that the ways in which a read can be put together are all taken.

use super::{
    image::Image,
    mismatch::Mismatch,
    model::{Model, ModelVolume, Observation},
    remains::Remains,
    stamp::first_difference,
};
use crate::{
    Snapshot, Store, Volume,
    capture::Coalescing,
    error::{Error, Result, SeqTime},
    io::{AlignedBuf, simulated::SimRng},
    point::Point,
    store::{ExactRange, Granularity},
    units::{SECTOR_BYTES, SECTORS_PER_BLOCK, Seq, TimeNs, len_u64, to_len},
};

/// Volumes up to this size are read as a whole, larger ones around the places that were written, bytes.
const WHOLE_BYTES_MAX: u64 = 8 << 20;
/// Longest single read, bytes.
const READ_BYTES_MAX: u64 = 1 << 20;
/// How much around a place that was written is read along, sectors.
const MARGIN_SECTORS: u64 = 9;
/// Largest part of one write that is read when its seq is looked at, sectors.
const PART_SECTORS_MAX: u64 = 64;

/// How much is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thoroughness {
    /// Every volume at every seq as a whole, every pair of neighbouring points.
    Everything,
    /// Every seq at the places that it wrote and a few as a whole.
    EverySeq,
    /// The newest state and a few points.
    Sample,
}

/// Reads everything that a store shows of itself besides content.
pub fn observe(store: &Store) -> Observation {
    Observation {
        newest: store.newest(),
        volumes: store.volumes(),
        bookmarks: store.bookmarks(),
        coalescing: store.coalescing(),
        remains: Remains::of(&store.inner.group.outline()),
        policy: store.policy().unwrap_or_default(),
    }
}

/// Compares a store with the model.
pub struct Checker<'a> {
    store: &'a Store,
    model: &'a Model,
    /// The newest state of the store, which may be older than that of the model when it is open for reading only.
    newest: Seq,
    /// What retention has left, as the store shows it.
    remains: Remains,
    volumes: Vec<(ModelVolume, Volume)>,
    rng: &'a mut SimRng,
}

impl<'a> Checker<'a> {
    /// Compares what the store shows of itself, and makes ready to compare content.
    ///
    /// # Errors
    /// The first difference.
    pub fn new(store: &'a Store, model: &'a Model, rng: &'a mut SimRng) -> Result<Self, Mismatch> {
        let seen = observe(store);
        model.admits(&seen)?;
        let mut volumes = Vec::new();
        for (index, volume) in model.volumes().iter().enumerate() {
            let call = format!("volume({})", volume.name);
            let opened = store.volume(Some(&volume.name)).map_err(Mismatch::failed(call))?;
            // The model may be ahead of a store that is open for reading only.
            let bytes = model.size_shown(index, volume, seen.newest.seq);
            if opened.bytes() != bytes {
                let what = format!("size of volume '{}'", volume.name);
                return Err(Mismatch::new(what, bytes.to_string(), opened.bytes().to_string()));
            }
            volumes.push((volume.clone(), opened));
        }
        Ok(Self { store, model, newest: seen.newest.seq, remains: seen.remains, volumes, rng })
    }

    /// Compares everything, as thoroughly as asked.
    ///
    /// # Errors
    /// The first difference.
    pub fn all(&mut self, thoroughness: Thoroughness) -> Result<(), Mismatch> {
        self.newest_state()?;
        self.points(thoroughness)?;
        self.changed_extents(thoroughness)?;
        self.resolution(thoroughness)?;
        self.timeline()
    }

    /// Compares the newest state of every volume.
    ///
    /// # Errors
    /// The first difference.
    pub fn newest_state(&mut self) -> Result<(), Mismatch> {
        for index in 0..self.volumes.len() {
            let (model, volume) = self.volumes[index].clone();
            if model.exists_from > self.newest {
                continue;
            }
            let image = self.model.image(index, self.newest);
            let (newest, rng) = (self.newest, &mut *self.rng);
            let mut read = |offset, buf: &mut [u8]| volume.read(offset, buf);
            compare_image(&model.at(newest), newest, &image, "read", rng, &mut read)?;
        }
        Ok(())
    }

    /// Compares points, and the refusal of those that are none.
    fn points(&mut self, thoroughness: Thoroughness) -> Result<(), Mismatch> {
        let newest = self.newest.get();
        for seq in 1..=newest {
            let looked_at = match thoroughness {
                Thoroughness::Everything => continue,
                Thoroughness::EverySeq => true,
                Thoroughness::Sample => self.rng.below(newest) < 4,
            };
            if looked_at {
                self.places_of(Seq::new(seq))?;
            }
        }
        for index in 0..self.volumes.len() {
            let exists_from = self.volumes[index].0.exists_from.get();
            if exists_from > newest {
                continue;
            }
            let seqs: Vec<u64> = match thoroughness {
                Thoroughness::Everything => (exists_from..=newest).collect(),
                Thoroughness::EverySeq => {
                    let mut any = || exists_from + self.rng.below(newest - exists_from + 1);
                    vec![newest, any(), any()]
                }
                Thoroughness::Sample => vec![exists_from + self.rng.below(newest - exists_from + 1)],
            };
            for seq in seqs {
                self.whole(index, Seq::new(seq))?;
            }
            self.refusals(index)?;
        }
        Ok(())
    }

    /// Compares a volume at a point as a whole.
    fn whole(&mut self, index: usize, seq: Seq) -> Result<(), Mismatch> {
        let (model, _) = self.volumes[index].clone();
        let Some(snapshot) = self.open_point(index, seq)? else { return Ok(()) };
        let image = self.model.image(index, seq);
        let mut read = |offset, buf: &mut [u8]| snapshot.read(offset, buf);
        compare_image(&model.at(seq), seq, &image, "snapshot read", self.rng, &mut read)
    }

    /// Compares what a write wrote, at its own seq and at the one before.
    fn places_of(&mut self, seq: Seq) -> Result<(), Mismatch> {
        let written = &self.model.history()[to_len(seq.get() - 1)];
        // A failed import leaves a seq without a volume.
        let Some((model, _)) = self.volumes.get(written.volume).cloned() else { return Ok(()) };
        let (start, end) = written.range();
        let length = (end - start).min(PART_SECTORS_MAX);
        let start = start + self.rng.below(end - start - length + 1);
        let from = start.saturating_sub(self.rng.below(MARGIN_SECTORS));
        let behind = start + length + self.rng.below(MARGIN_SECTORS);
        for seq in [Seq::new(seq.get() - 1), seq] {
            let to = behind.min(model.at(seq).sectors());
            if seq < model.exists_from || from >= to {
                continue;
            }
            let Some(snapshot) = self.open_point(written.volume, seq)? else { continue };
            let image = self.model.image(written.volume, seq);
            let mut read = |offset, buf: &mut [u8]| snapshot.read(offset, buf);
            compare_range(&model.at(seq), seq, &image, (from, to), "snapshot read", &mut read)?;
        }
        Ok(())
    }

    /// Opens a point. `None`: it is refused where writes were coalesced, as it may be, and the points that are named instead can be
    /// opened.
    fn open_point(&self, index: usize, seq: Seq) -> Result<Option<Snapshot>, Mismatch> {
        let (model, volume) = &self.volumes[index];
        if !self.remains.contains(seq) {
            return self.is_gone(index, seq).map(|()| None);
        }
        if self.is_sure(seq) {
            return open_snapshot(model, volume, seq).map(Some);
        }
        let refused = match volume.snapshot(seq) {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(Error::PointUnavailable(refused)) => refused,
            Err(error) => return Err(Mismatch::failed(format!("snapshot({seq}) of {}", model.name))(error)),
        };
        let sure = |seq: &u64| self.is_sure(Seq::new(*seq));
        let last_before = (model.exists_from.get()..seq.get()).rev().find(sure).map(Seq::new);
        let first_after = (seq.get() + 1..=self.newest.get()).find(sure).map(Seq::new);
        let before = refused.before.map(|point| point.seq);
        let after = refused.after.map(|point| point.seq);
        let near = before >= last_before
            && before.is_none_or(|before| before < seq)
            && after.is_some_and(|after| after > seq && first_after.is_none_or(|first| after <= first));
        if !near {
            return Err(Mismatch::new(
                format!("points around seq {seq} of volume '{}'", model.name),
                format!("from {last_before:?} and up to {first_after:?}"),
                format!("{before:?} and {after:?}"),
            ));
        }
        for point in [refused.before, refused.after].into_iter().flatten() {
            open_snapshot(model, volume, point.seq)?;
            if point.time != self.model.time_of(point.seq) {
                let what = format!("time of seq {}", point.seq);
                let time = self.model.time_of(point.seq).to_string();
                return Err(Mismatch::new(what, time, point.time.to_string()));
            }
        }
        Ok(None)
    }

    fn is_sure(&self, seq: Seq) -> bool {
        self.model.is_surely_point_of(&self.remains, seq, self.newest)
    }

    /// A state that retention has taken away is refused, and the nearest ones are named that can be opened.
    fn is_gone(&self, index: usize, seq: Seq) -> Result<(), Mismatch> {
        let (model, volume) = &self.volumes[index];
        let call = format!("snapshot({seq}) of volume '{}', which was thinned away", model.name);
        let refused = match volume.snapshot(seq) {
            Err(Error::PointUnavailable(refused)) => refused,
            Err(error) => return Err(Mismatch::failed(call)(error)),
            Ok(_) => return Err(Mismatch::new(call, "refused", "opened")),
        };
        self.is_refused(&Point::Seq(seq))?;
        let (before, after) = self.remains.around(seq, model.exists_from);
        let found = (refused.before.map(|point| point.seq), refused.after.map(|point| point.seq));
        // Where the volume begins inside a coalesced interval, its first point lies behind that.
        let after_is_right = after == found.1 || (after == Some(model.exists_from) && found.1 > after);
        if before != found.0 || !after_is_right {
            return Err(Mismatch::new(
                call,
                format!("between {before:?} and {after:?}"),
                format!("{found:?}"),
            ));
        }
        for point in [refused.before, refused.after].into_iter().flatten() {
            open_snapshot(model, volume, point.seq)?;
            if point.time != self.model.time_of(point.seq) {
                let time = self.model.time_of(point.seq).to_string();
                return Err(Mismatch::new(
                    format!("time of seq {}", point.seq),
                    time,
                    point.time.to_string(),
                ));
            }
        }
        Ok(())
    }

    /// Points before the volume existed and points in the future are refused.
    fn refusals(&mut self, index: usize) -> Result<(), Mismatch> {
        let (model, volume) = &self.volumes[index];
        let before = model.exists_from.get().checked_sub(1).map(Seq::new);
        for seq in before.into_iter().chain([self.newest.next(), Seq::MAX]) {
            match volume.snapshot(seq) {
                Err(Error::PointUnavailable(_)) => {}
                Err(error) => return Err(Mismatch::failed(format!("snapshot({seq})"))(error)),
                Ok(_) => {
                    let what = format!("snapshot({seq}) of volume '{}'", model.name);
                    return Err(Mismatch::new(what, "refused", "opened"));
                }
            }
        }
        Ok(())
    }

    fn changed_extents(&mut self, thoroughness: Thoroughness) -> Result<(), Mismatch> {
        for index in 0..self.volumes.len() {
            let exists_from = self.volumes[index].0.exists_from.get();
            let newest = self.newest.get();
            if exists_from > newest {
                continue;
            }
            let pairs: Vec<(u64, u64)> = if thoroughness == Thoroughness::Everything {
                (exists_from..=newest).flat_map(|from| (from..=newest).map(move |to| (from, to))).collect()
            } else {
                let span = newest - exists_from + 1;
                let mut pair = || {
                    let (one, other) = (self.rng.below(span), self.rng.below(span));
                    (exists_from + one.min(other), exists_from + one.max(other))
                };
                vec![(exists_from, newest), pair(), pair()]
            };
            let sure = |seq: &u64| self.is_sure(Seq::new(*seq));
            for (from, to) in pairs.into_iter().filter(|(from, to)| sure(from) && sure(to)) {
                self.changed_between(index, Seq::new(from), Seq::new(to))?;
            }
        }
        Ok(())
    }

    /// Changed extents cover what was written, are ascending, merged, and rounded out to 4 KiB at most.
    fn changed_between(&self, index: usize, from: Seq, to: Seq) -> Result<(), Mismatch> {
        const BLOCK: u64 = 8;
        let (model, volume) = &self.volumes[index];
        let call = format!("changed({from}, {to}) of volume '{}'", model.name);
        let extents = volume.changed(from, to).map_err(Mismatch::failed(call.clone()))?;
        let mut found = Vec::new();
        for extent in extents {
            let extent = extent.map_err(Mismatch::failed(call.clone()))?;
            let (start, end) = (extent.offset / SECTOR_BYTES, (extent.offset + extent.length) / SECTOR_BYTES);
            if found.last().is_some_and(|(_, before)| *before >= start) || start >= end {
                return Err(Mismatch::new(
                    call,
                    "ascending, merged extents",
                    format!("{found:?}, {start}..{end}"),
                ));
            }
            found.push((start, end));
        }
        let sectors = model.at(to).sectors();
        let mut exact = Image::default();
        let mut rounded = Image::default();
        let some = super::stamp::Stamp::ZERO.next();
        let span = to_len(from.get())..to_len(to.get());
        for written in self.model.history()[span].iter().filter(|written| written.volume == index) {
            let (start, end) = written.range();
            exact.put(super::image::Piece { start, end, stamp: some });
            let (start, end) = if start < end {
                (start / BLOCK * BLOCK, end.next_multiple_of(BLOCK).min(sectors))
            } else {
                (0, 0)
            };
            rounded.put(super::image::Piece { start, end, stamp: some });
        }
        let is = |image: &Image, (start, end): (u64, u64)| {
            image.pieces(start, end).iter().all(|p| p.stamp == some)
        };
        if let Some(extra) = found.iter().find(|extent| !is(&rounded, **extent)) {
            return Err(Mismatch::new(call, "only ranges that were written", format!("sectors {extra:?}")));
        }
        let mut shown = Image::default();
        for &(start, end) in &found {
            shown.put(super::image::Piece { start, end, stamp: some });
        }
        let written = exact.pieces(0, sectors);
        if let Some(missing) = written.iter().find(|p| p.stamp == some && !is(&shown, (p.start, p.end))) {
            let range = format!("sectors {}..{}", missing.start, missing.end);
            return Err(Mismatch::new(call, format!("to contain {range}"), format!("{found:?}")));
        }
        Ok(())
    }

    fn resolution(&mut self, thoroughness: Thoroughness) -> Result<(), Mismatch> {
        let newest = SeqTime { seq: self.newest, time: self.model.time_of(self.newest) };
        self.resolves_to(&Point::Latest, newest.seq)?;
        self.resolves_to(&Point::Seq(newest.seq), newest.seq)?;
        self.is_refused(&Point::Seq(newest.seq.next()))?;
        self.is_refused(&Point::Bookmark("never-set".into()))?;
        let oldest = self.model.volumes()[0].exists_from.max(self.remains.oldest());
        if oldest <= newest.seq {
            self.resolves_to(&Point::Oldest, oldest)?;
        }
        let count = len_u64(self.model.history().len()).min(newest.seq.get());
        for index in 0..count {
            if thoroughness == Thoroughness::Sample && self.rng.below(count) >= 4 {
                continue;
            }
            let time = self.model.history()[to_len(index)].time.get();
            for time in [time.saturating_sub(1), time, time + 1] {
                self.time_resolves(TimeNs::new(time), newest, oldest)?;
            }
        }
        for bookmark in self.store.bookmarks() {
            self.resolves_to(&Point::Bookmark(bookmark.name.clone()), bookmark.seq)?;
        }
        Ok(())
    }

    fn time_resolves(&self, time: TimeNs, newest: SeqTime, oldest: Seq) -> Result<(), Mismatch> {
        let expected = self.model.seq_at(time).min(newest.seq);
        let point = Point::Time(time);
        // Behind the newest write the answer depends on how far the clock of the group has come.
        match self.store.resolve(&point) {
            Err(Error::PointUnavailable(_)) if time > newest.time || expected < oldest => Ok(()),
            Err(Error::PointUnavailable(_)) if !self.is_sure(expected) => Ok(()),
            Err(error) => Err(Mismatch::failed(format!("resolve({point:?})"))(error)),
            Ok(found) if found.seq == expected && expected >= oldest && self.remains.contains(expected) => {
                Ok(())
            }
            Ok(found) => {
                let expected = format!("seq {expected} of {:?}, not before seq {oldest}", self.remains);
                Err(Mismatch::new(format!("resolve({point:?})"), expected, format!("{found:?}")))
            }
        }
    }

    fn resolves_to(&self, point: &Point, seq: Seq) -> Result<(), Mismatch> {
        let found = self.store.resolve(point).map_err(Mismatch::failed(format!("resolve({point:?})")))?;
        let time = self.model.time_of(seq);
        if found.seq != seq
            || (found.time != time && seq != Seq::ZERO && matches!(point, Point::Seq(_) | Point::Latest))
        {
            let what = format!("resolve({point:?})");
            return Err(Mismatch::new(what, format!("seq {seq}, time {time}"), format!("{found:?}")));
        }
        Ok(())
    }

    fn is_refused(&self, point: &Point) -> Result<(), Mismatch> {
        match self.store.resolve(point) {
            Err(Error::PointUnavailable(_)) => Ok(()),
            Err(error) => Err(Mismatch::failed(format!("resolve({point:?})"))(error)),
            Ok(found) => Err(Mismatch::new(format!("resolve({point:?})"), "refused", format!("{found:?}"))),
        }
    }

    fn timeline(&self) -> Result<(), Mismatch> {
        let timeline = self.store.timeline().map_err(Mismatch::failed("timeline"))?;
        let newest = SeqTime { seq: self.newest, time: self.model.time_of(self.newest) };
        let wrong = |what: &str, expected: String, found: String| {
            Err(Mismatch::new(format!("timeline: {what}"), expected, found))
        };
        if timeline.newest.seq != newest.seq || timeline.covered_to < newest.time {
            let found = format!("{:?}, covered to {}", timeline.newest, timeline.covered_to);
            return wrong("newest", format!("{newest:?}, covered at least to it"), found);
        }
        if timeline.bookmarks != self.store.bookmarks() {
            return wrong("bookmarks", "those of the store".into(), format!("{:?}", timeline.bookmarks));
        }
        let retained: Vec<SeqTime> = timeline.retained.iter().map(|retained| retained.point).collect();
        if retained != self.remains.kept.iter().map(|kept| kept.point).collect::<Vec<_>>() {
            return wrong("retained", format!("{:?}", self.remains), format!("{retained:?}"));
        }
        if let Some(other) = retained.iter().find(|point| point.time != self.model.time_of(point.seq)) {
            return wrong("time", self.model.time_of(other.seq).to_string(), format!("{other:?}"));
        }
        if !timeline.gaps.is_empty() {
            return wrong("gaps", "none".into(), format!("{:?}", timeline.gaps));
        }
        for (model, _) in self.volumes.iter().filter(|(model, _)| model.exists_from <= self.newest) {
            let ranges = timeline.exact.iter().filter(|range| range.volume == model.name);
            if self.model.stretches().is_used() {
                self.exact_ranges(model, &ranges.collect::<Vec<_>>())?;
                continue;
            }
            let exact: Vec<(Seq, Seq)> = ranges.map(|range| (range.from.seq, range.to.seq)).collect();
            let expected = vec![(model.exists_from.max(self.remains.full.from.seq), self.newest)];
            if exact != expected {
                let what = format!("exact ranges of volume '{}'", model.name);
                return wrong(&what, format!("{expected:?}"), format!("{exact:?}"));
            }
        }
        Ok(())
    }

    /// Where writes were coalesced: the ranges ascend, begin and end with points, say how they were recorded, and leave out no state
    /// that must be a point.
    fn exact_ranges(&self, model: &ModelVolume, ranges: &[&ExactRange]) -> Result<(), Mismatch> {
        let granularity = |coalescing| match coalescing {
            Coalescing::PerWrite => Granularity::Write,
            Coalescing::IntervalNs(length) => Granularity::IntervalNs(length),
            Coalescing::PerBarrier => Granularity::Barrier,
        };
        let ascending = ranges.windows(2).all(|pair| pair[0].to.seq < pair[1].from.seq);
        let rightly = |range: &&ExactRange| {
            let coalescing = self.model.stretches().at(range.from.seq);
            range.from.seq >= model.exists_from
                && range.from.seq <= range.to.seq
                && self.model.stretches().at(range.to.seq) == coalescing
                && range.granularity == granularity(coalescing)
        };
        let shown = |seq: Seq| ranges.iter().any(|range| range.from.seq <= seq && seq <= range.to.seq);
        let first = model.exists_from.max(self.remains.full.from.seq);
        let sure = (first.get()..=self.newest.get()).map(Seq::new);
        let missing = sure.filter(|seq| self.is_sure(*seq)).find(|seq| !shown(*seq));
        if !ascending || !ranges.iter().all(rightly) || missing.is_some() {
            return Err(Mismatch::new(
                format!("timeline: exact ranges of volume '{}'", model.name),
                format!("those of {:?}, with {missing:?}", self.model.stretches()),
                format!("{ranges:?}"),
            ));
        }
        let (_, volume) = self.volumes.iter().find(|(other, _)| other.name == model.name).expect("it is one");
        for seq in ranges.iter().flat_map(|range| [range.from.seq, range.to.seq]) {
            open_snapshot(model, volume, seq)?;
        }
        Ok(())
    }
}

/// Opens a point that must be there.
fn open_snapshot(model: &ModelVolume, volume: &Volume, seq: Seq) -> Result<Snapshot, Mismatch> {
    let snapshot =
        volume.snapshot(seq).map_err(Mismatch::failed(format!("snapshot({seq}) of {}", volume.name())))?;
    let bytes = model.at(seq).bytes;
    if snapshot.seq() != seq || snapshot.bytes() != bytes {
        let expected = format!("seq {seq}, {bytes} bytes");
        let found = format!("seq {}, {} bytes", snapshot.seq(), snapshot.bytes());
        return Err(Mismatch::new("snapshot", expected, found));
    }
    Ok(snapshot)
}

/// Reads at a byte offset.
pub type ReadAt<'a> = dyn FnMut(u64, &mut [u8]) -> Result<()> + 'a;

/// Compares an image with what `read` returns: all of it, or around the places that were written.
///
/// # Errors
/// The first difference.
pub fn compare_image(
    volume: &ModelVolume,
    point: Seq,
    image: &Image,
    reading: &'static str,
    rng: &mut SimRng,
    read: &mut ReadAt<'_>,
) -> Result<(), Mismatch> {
    let sectors = volume.sectors();
    if volume.bytes <= WHOLE_BYTES_MAX {
        let mut at = 0;
        while at < sectors {
            let most = rng.pick(&[8, 64, 64, READ_BYTES_MAX / SECTOR_BYTES, READ_BYTES_MAX / SECTOR_BYTES]);
            let end = (at + 1 + rng.below(most)).min(sectors);
            compare_range(volume, point, image, (at, end), reading, read)?;
            at = end;
        }
        return Ok(());
    }
    let edges = image.edges();
    let skip = edges.len().div_ceil(32).max(1);
    for edge in edges.into_iter().chain([0, sectors / 2, sectors - 1]).step_by(skip) {
        let from = edge.saturating_sub(rng.below(PART_SECTORS_MAX));
        let to = (edge + 1 + rng.below(PART_SECTORS_MAX)).min(sectors);
        if from < to {
            compare_range(volume, point, image, (from, to), reading, read)?;
        }
    }
    Ok(())
}

/// Compares the sectors from `range.0` to before `range.1`.
///
/// # Errors
/// The first difference.
pub fn compare_range(
    volume: &ModelVolume,
    point: Seq,
    image: &Image,
    range: (u64, u64),
    reading: &'static str,
    read: &mut ReadAt<'_>,
) -> Result<(), Mismatch> {
    let (start, end) = range;
    // Three of four buffers suit direct I/O, so that whole blocks may be read straight into them.
    let within = if end % 4 == 3 { 1 } else { start % SECTORS_PER_BLOCK };
    let (from, length) = (to_len(within * SECTOR_BYTES), to_len((end - start) * SECTOR_BYTES));
    let mut buffer = AlignedBuf::new(from + length).expect("memory for a read");
    let data = &mut buffer[from..from + length];
    // Whatever a read does not fill must not look right.
    data.fill(0xa5);
    let offset = start * SECTOR_BYTES;
    read(offset, data).map_err(|error| {
        let call = format!("{reading} of volume '{}' at {point}, {offset}+{}", volume.name, data.len());
        Mismatch::failed(call)(error)
    })?;
    for piece in image.pieces(start, end) {
        let bytes = to_len((piece.start - start) * SECTOR_BYTES)..to_len((piece.end - start) * SECTOR_BYTES);
        let at = piece.start * SECTOR_BYTES;
        if let Some((offset, found)) = first_difference(volume.tag, at, piece.stamp, &data[bytes]) {
            let volume = volume.name.clone();
            return Err(Mismatch::Content { reading, volume, point, offset, expected: piece.stamp, found });
        }
    }
    Ok(())
}
