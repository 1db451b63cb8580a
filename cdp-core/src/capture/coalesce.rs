//! Coalescing: the writes of an interval as one, of which only the last content of each sector is kept.
//!
//! Pure. What is overwritten within the interval is dropped, and writes that touch become one run.

use crate::units::{
    SECTOR_BYTES, SECTOR_LEN, SECTORS_PER_BLOCK, Sector, SectorRange, TimeNs, VolumeId, len_u64, to_len,
};
use std::collections::BTreeMap;

/// Which states of the timeline are points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coalescing {
    /// Every write.
    #[default]
    PerWrite,
    /// The last state of each interval of this many nanoseconds, aligned to the epoch.
    IntervalNs(u64),
    /// The state at each flush and bookmark.
    PerBarrier,
}

/// What a run of sectors holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunContent {
    /// Data.
    Data(Vec<u8>),
    /// Zeroes that were written.
    Zero,
    /// A discard.
    Discard,
}

/// A run of sectors of one volume, with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoalescedRun {
    /// The volume.
    pub volume: VolumeId,
    /// The sectors.
    pub range: SectorRange,
    /// The content.
    pub content: RunContent,
    /// How many later runs touch a block of this one. An index entry is named by block and seq, so such runs cannot share a seq: this
    /// one takes the seq so many places before the last.
    pub layer: u64,
}

/// The writes of an interval, as they add up.
#[derive(Debug, Default)]
pub struct Interval {
    runs: BTreeMap<(VolumeId, u64), (u64, RunContent)>,
    bytes: u64,
    writes: u64,
    first_time: TimeNs,
    last_time: TimeNs,
}

/// An interval that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Coalesced {
    /// Writes in it.
    pub writes: u64,
    /// Time of the first one.
    pub first_time: TimeNs,
    /// Time of the last one.
    pub last_time: TimeNs,
    /// What is left of them, by volume and place.
    pub runs: Vec<CoalescedRun>,
}

impl Interval {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.writes == 0
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Bytes of data held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Runs held.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Time of the last write.
    pub fn last_time(&self) -> Option<TimeNs> {
        (self.writes > 0).then_some(self.last_time)
    }

    /// Takes one write. Data has the length of its range.
    pub fn add(&mut self, volume: VolumeId, range: SectorRange, content: RunContent, time: TimeNs) {
        if self.writes == 0 {
            self.first_time = time;
        }
        self.last_time = time;
        self.writes += 1;
        let (start, end) = (range.start.get(), range.end().get());
        self.cut(volume, start, end);
        if let RunContent::Data(data) = &content {
            assert_eq!(len_u64(data.len()), range.bytes(), "data is as long as its range");
            self.bytes += range.bytes();
        }
        self.runs.insert((volume, start), (end, content));
    }

    /// Removes what is held of a range.
    fn cut(&mut self, volume: VolumeId, start: u64, end: u64) {
        let before = self.runs.range(..(volume, start)).next_back().map(|(key, _)| *key);
        let first = before.filter(|key| key.0 == volume && self.runs[key].0 > start);
        let within = self.runs.range((volume, start)..(volume, end)).map(|(key, _)| *key);
        let touched: Vec<_> = first.into_iter().chain(within).collect();
        for key in touched {
            let Some((run_end, content)) = self.runs.remove(&key) else { continue };
            if let RunContent::Data(data) = &content {
                self.bytes -= len_u64(data.len());
            }
            for (from, to) in [(key.1, start.min(run_end)), (end.max(key.1), run_end)] {
                if from < to {
                    let part = part_of(&content, key.1, from, to);
                    if let RunContent::Data(data) = &part {
                        self.bytes += len_u64(data.len());
                    }
                    self.runs.insert((volume, from), (to, part));
                }
            }
        }
    }

    /// Ends the interval.
    pub fn take(&mut self) -> Coalesced {
        let Self { runs, writes, first_time, last_time, .. } = std::mem::take(self);
        let mut out: Vec<CoalescedRun> = Vec::new();
        for ((volume, start), (end, content)) in runs {
            let range = SectorRange { start: Sector::new(start), sectors: end - start };
            match out.last_mut() {
                Some(last) if last.volume == volume && last.range.end() == range.start => {
                    match (&mut last.content, &content) {
                        (RunContent::Data(data), RunContent::Data(more)) => {
                            data.extend_from_slice(more);
                            last.range.sectors += range.sectors;
                        }
                        (RunContent::Zero, RunContent::Zero) | (RunContent::Discard, RunContent::Discard) => {
                            last.range.sectors += range.sectors;
                        }
                        _ => out.push(CoalescedRun { volume, range, content, layer: 0 }),
                    }
                }
                _ => out.push(CoalescedRun { volume, range, content, layer: 0 }),
            }
        }
        Coalesced { writes, first_time, last_time, runs: layered(out) }
    }
}

/// Gives runs that share a block different layers. A block that holds zeroes beside data is data as a whole, so that what is left apart
/// in it was written by different writes: there are never more layers than writes.
fn layered(runs: Vec<CoalescedRun>) -> Vec<CoalescedRun> {
    let mut out: Vec<CoalescedRun> = Vec::new();
    for run in runs {
        for piece in at_block_boundaries(run) {
            let block = piece.range.start.block();
            let partial = piece.range.sectors < SECTORS_PER_BLOCK
                && piece.range.end() <= Sector::new((block.get() + 1) * SECTORS_PER_BLOCK);
            match out.last_mut() {
                Some(last)
                    if partial
                        && last.volume == piece.volume
                        && last.range.end() == piece.range.start
                        && piece.range.start.within_block() != 0
                        && last.range.start.block() == block =>
                {
                    let mut data = bytes_of(last);
                    data.extend_from_slice(&bytes_of(&piece));
                    last.range.sectors += piece.range.sectors;
                    last.content = RunContent::Data(data);
                }
                _ => out.push(piece),
            }
        }
    }
    // Backwards: the last piece of a block keeps the last seq.
    let mut behind: Option<(VolumeId, u64, u64)> = None;
    for run in out.iter_mut().rev() {
        let last_block = Sector::new(run.range.end().get() - 1).block().get();
        run.layer = match behind {
            Some((volume, block, layer)) if volume == run.volume && block == last_block => layer + 1,
            _ => 0,
        };
        behind = Some((run.volume, run.range.start.block().get(), run.layer));
    }
    joined(out)
}

/// Cuts off the partial blocks at both ends of a run.
fn at_block_boundaries(run: CoalescedRun) -> Vec<CoalescedRun> {
    let (start, end) = (run.range.start.get(), run.range.end().get());
    let first = start.next_multiple_of(SECTORS_PER_BLOCK).min(end);
    let last = (end / SECTORS_PER_BLOCK * SECTORS_PER_BLOCK).max(first);
    let cuts = [(start, first), (first, last), (last, end)];
    cuts.into_iter()
        .filter(|(from, to)| from < to)
        .map(|(from, to)| CoalescedRun {
            volume: run.volume,
            range: SectorRange { start: Sector::new(from), sectors: to - from },
            content: part_of(&run.content, start, from, to),
            layer: 0,
        })
        .collect()
}

/// Joins neighbours of one kind in the last layer again.
fn joined(runs: Vec<CoalescedRun>) -> Vec<CoalescedRun> {
    let mut out: Vec<CoalescedRun> = Vec::new();
    for run in runs {
        match out.last_mut() {
            Some(last)
                if last.volume == run.volume
                    && last.range.end() == run.range.start
                    && last.layer == 0
                    && run.layer == 0
                    && std::mem::discriminant(&last.content) == std::mem::discriminant(&run.content) =>
            {
                if let (RunContent::Data(data), RunContent::Data(more)) = (&mut last.content, &run.content) {
                    data.extend_from_slice(more);
                }
                last.range.sectors += run.range.sectors;
            }
            _ => out.push(run),
        }
    }
    out
}

fn bytes_of(run: &CoalescedRun) -> Vec<u8> {
    match &run.content {
        RunContent::Data(data) => data.clone(),
        _ => vec![0; to_len(run.range.bytes())],
    }
}

/// The sectors `from..to` of a run that starts at `start`.
fn part_of(content: &RunContent, start: u64, from: u64, to: u64) -> RunContent {
    match content {
        RunContent::Data(data) => {
            let at = to_len((from - start) * SECTOR_BYTES);
            RunContent::Data(data[at..at + to_len(to - from) * SECTOR_LEN].to_vec())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECTORS: usize = 64;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Told {
        Nothing,
        Data(u8),
        Zero,
        Discard,
    }

    proptest! {
        /// Goal: what is left of an interval is what a disk would hold, in runs that neither overlap nor touch with the same kind of content.
        /// Method: random writes on two small volumes against an array of sectors.
        #[test]
        fn an_interval_holds_the_last_content_of_each_sector(
            writes in prop::collection::vec((0..2_u16, 0..SECTORS, 1..20_usize, 0..4_u8), 1..40)
        ) {
            let mut interval = Interval::default();
            let mut model = [[Told::Nothing; SECTORS]; 2];
            for (step, (volume, start, sectors, kind)) in writes.iter().enumerate() {
                let sectors = (*sectors).min(SECTORS - start);
                let byte = u8::try_from(step + 1).unwrap();
                let (content, told) = match kind {
                    0 => (RunContent::Zero, Told::Zero),
                    1 => (RunContent::Discard, Told::Discard),
                    _ => (RunContent::Data(vec![byte; sectors * SECTOR_LEN]), Told::Data(byte)),
                };
                model[usize::from(*volume)][*start..start + sectors].fill(told);
                let range = SectorRange { start: Sector::new(*start as u64), sectors: sectors as u64 };
                interval.add(VolumeId::new(*volume), range, content, TimeNs::new(10 + step as u64));
            }
            let held = interval.bytes();
            let taken = interval.take();
            prop_assert_eq!(taken.writes, writes.len() as u64);
            prop_assert_eq!((taken.first_time.get(), taken.last_time.get()), (10, 9 + writes.len() as u64));
            let mut found = [[Told::Nothing; SECTORS]; 2];
            let mut last: Option<&CoalescedRun> = None;
            let mut seqs_of_block = std::collections::BTreeSet::new();
            for run in &taken.runs {
                if let Some(last) = last.filter(|last| last.volume == run.volume) {
                    prop_assert!(last.range.end() <= run.range.start);
                }
                prop_assert!(run.layer < taken.writes, "layer {} of {} writes", run.layer, taken.writes);
                let blocks = run.range.start.block().get()..=Sector::new(run.range.end().get() - 1).block().get();
                for block in blocks {
                    prop_assert!(seqs_of_block.insert((run.volume, block, run.layer)), "block {} twice", block);
                }
                for sector in 0..to_len(run.range.sectors) {
                    let at = to_len(run.range.start.get()) + sector;
                    let told = match &run.content {
                        RunContent::Data(data) if data[sector * SECTOR_LEN] == 0 => Told::Zero,
                        RunContent::Data(data) => Told::Data(data[sector * SECTOR_LEN]),
                        RunContent::Zero => Told::Zero,
                        RunContent::Discard => Told::Discard,
                    };
                    // Beside data in one block a discard becomes zeroes.
                    let expected = model[usize::from(run.volume.get())][at];
                    found[usize::from(run.volume.get())][at] =
                        if told == Told::Zero && expected == Told::Discard { Told::Discard } else { told };
                }
                last = Some(run);
            }
            prop_assert!(taken.runs.iter().any(|run| run.layer == 0));
            prop_assert_eq!(found, model);
            prop_assert!(held <= 2 * 64 * 512);
            prop_assert!(interval.is_empty() && interval.runs() == 0 && interval.bytes() == 0);
        }
    }
}
