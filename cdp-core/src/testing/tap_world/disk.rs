//! One volume in the model: its source, its content in the store, and the row of its states.

use crate::{
    io::simulated::SimRng,
    testing::{
        mismatch::Mismatch,
        stamp::{Found, Stamp, VolumeTag, fill, inspect},
    },
    units::{SECTOR_BYTES, SECTOR_LEN, len_u64, to_len},
};
use std::ops::Range;

/// A state of a volume, from one moment of the common order of writes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Its place in the order of all writes of all volumes.
    pub order: u64,
    /// When, nanoseconds.
    pub time: u64,
    /// Names the content.
    pub state: u64,
    /// It was on the source for a while before it was captured.
    pub late: bool,
}

/// Which stamp each sector holds.
pub type Content = Vec<Stamp>;

/// A write that the source has not flushed.
#[derive(Clone, Debug)]
struct Unflushed {
    sectors: Range<usize>,
    stamp: Stamp,
}

/// A write that was on the source for a while before it was captured.
#[derive(Clone, Debug)]
struct Late {
    sectors: Range<usize>,
    stamp: Stamp,
    before: Content,
}

/// A volume and its source.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its name in the store.
    pub name: String,
    /// Its name in its content.
    pub tag: VolumeTag,
    /// What the production disk holds.
    pub source: Content,
    /// What the volume holds in the store while no tap captures it.
    pub content: Content,
    /// For each sector whether the last write to it was captured whole since the tap began.
    pub whole: Vec<bool>,
    /// Whether times do not lead to states, because the clock went back or states were lost.
    pub timeless: bool,
    line: Vec<Moment>,
    late: Vec<Late>,
    durable: Content,
    unflushed: Vec<Unflushed>,
}

impl Disk {
    /// A volume of zeroes.
    pub fn new(name: String, tag: VolumeTag, sectors: usize) -> Self {
        let zeroes = vec![Stamp::ZERO; sectors];
        Self {
            name,
            tag,
            source: zeroes.clone(),
            content: zeroes.clone(),
            whole: vec![false; sectors],
            timeless: false,
            line: vec![Moment { order: 0, time: 0, state: 0, late: false }],
            late: Vec::new(),
            durable: zeroes,
            unflushed: Vec::new(),
        }
    }

    /// Its size in sectors.
    pub fn sectors(&self) -> usize {
        self.source.len()
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        len_u64(self.sectors()) * SECTOR_BYTES
    }

    /// A write completes on the source.
    pub fn write_source(&mut self, sectors: Range<usize>, stamp: Stamp) {
        self.source[sectors.clone()].fill(stamp);
        self.unflushed.push(Unflushed { sectors, stamp });
    }

    /// What the source holds is durable.
    pub fn flush_source(&mut self) {
        self.durable.clone_from(&self.source);
        self.unflushed.clear();
    }

    /// The power fails: of each write that was not flushed any part is left.
    pub fn lose_unflushed(&mut self, rng: &mut SimRng) {
        let kept = rng.pick(&[0.0, 0.5, 0.9]);
        for write in std::mem::take(&mut self.unflushed) {
            for sector in write.sectors.filter(|_| rng.chance(kept)) {
                self.durable[sector] = write.stamp;
            }
        }
        self.source.clone_from(&self.durable);
    }

    /// The state of the volume is this from now on.
    pub fn becomes(&mut self, order: u64, time: u64, state: u64) {
        self.line.push(Moment { order, time, state, late: false });
    }

    /// The newest states are dated later: their writes were complete on the source before, and are acknowledged now.
    pub fn acknowledged_at(&mut self, count: usize, time: u64) {
        self.line.iter_mut().rev().take(count).for_each(|moment| moment.time = time);
    }

    /// The newest write, to these sectors, is captured some time after it was there. `before`: what they held before it.
    pub fn is_late(&mut self, sectors: Range<usize>, before: Content) {
        let stamp = self.source[sectors.start];
        self.late.push(Late { sectors, stamp, before });
        if let Some(last) = self.line.last_mut() {
            last.late = true;
        }
    }

    /// The states that a content may stand for. Of a write that was complete on the source and not captured yet, thus not acknowledged,
    /// a resync may have copied a part: that stands for the state before the write.
    pub fn readings(&self, content: &[Stamp]) -> Vec<u64> {
        let mut states = vec![state_of(content)];
        for Late { sectors, stamp, before } in &self.late {
            let mut without = content.to_vec();
            for (sector, before) in without[sectors.clone()].iter_mut().zip(before) {
                if sector == stamp {
                    *sector = *before;
                }
            }
            let torn = content[sectors.clone()].iter().any(|found| found != stamp);
            if torn && without != content {
                states.push(state_of(&without));
            }
        }
        states
    }

    /// Whether the volume was in one of these states after so many writes of the common order.
    pub fn was(&self, states: &[u64], order: u64) -> bool {
        states.contains(&self.at(order).state)
    }

    /// The state after so many writes of the common order.
    pub fn at(&self, order: u64) -> Moment {
        let after = self.line.partition_point(|moment| moment.order <= order);
        self.line[after - 1]
    }

    /// The last state at or before a time, and those after it that may have been seen before their time; none when the clock went back or
    /// states were lost.
    pub fn at_time(&self, time: u64) -> &[Moment] {
        if self.timeless {
            return &[];
        }
        let after = self.line.partition_point(|moment| moment.time <= time);
        let late = self.line[after..].iter().take_while(|moment| moment.late).count();
        &self.line[after - 1..after + late]
    }

    /// The states, oldest first.
    pub fn line(&self) -> &[Moment] {
        &self.line
    }

    /// Fills a buffer with what the source holds.
    pub fn read_source(&self, offset: u64, out: &mut [u8]) {
        let first = to_len(offset / SECTOR_BYTES);
        for (index, sector) in out.chunks_exact_mut(SECTOR_LEN).enumerate() {
            let at = offset + len_u64(index) * SECTOR_BYTES;
            fill(self.tag, at, self.source[first + index], sector);
        }
    }

    /// The stamps of an image of the whole volume.
    ///
    /// # Errors
    /// For the first sector that holds nothing that was ever written there.
    pub fn decode(&self, what: &str, image: &[u8]) -> Result<Content, Mismatch> {
        let mut content = Vec::with_capacity(self.sectors());
        for (index, sector) in image.chunks_exact(SECTOR_LEN).enumerate() {
            let offset = len_u64(index) * SECTOR_BYTES;
            match inspect(self.tag, offset, sector) {
                Found::Stamp(stamp) => content.push(stamp),
                found => {
                    let what = format!("{what} of volume '{}', byte {offset}", self.name);
                    return Err(Mismatch::new(what, "the content of one write", found.to_string()));
                }
            }
        }
        Ok(content)
    }
}

/// Names a content.
pub fn state_of(content: &[Stamp]) -> u64 {
    let mixed = |sector: usize, stamp: Stamp| {
        SimRng::new(stamp.get() ^ SimRng::new(len_u64(sector)).next_u64()).next_u64()
    };
    let written = content.iter().enumerate().filter(|(_, stamp)| **stamp != Stamp::ZERO);
    written.fold(0, |sum: u64, (sector, stamp)| sum.wrapping_add(mixed(sector, *stamp)))
}
