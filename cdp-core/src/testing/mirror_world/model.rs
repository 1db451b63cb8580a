//! What the volume must hold: for each sector what a read gives now, and what it may give after a power cut.

use crate::{
    testing::{
        mismatch::Mismatch,
        stamp::{Found, Stamp, VolumeTag, fill, inspect},
    },
    units::{SECTOR_BYTES, SECTOR_LEN, len_u64},
};
use std::ops::Range;

/// The one volume of a mirrored world.
pub const TAG: VolumeTag = VolumeTag::new(1);

/// The versions that may be in each sector.
#[derive(Clone, Debug)]
pub struct Model {
    /// What a read may give now: one stamp, or several while it is in doubt whether a write was done.
    now: Vec<Vec<Stamp>>,
    /// What a read may give after a power cut.
    after_cut: Vec<Vec<Stamp>>,
    newest: Stamp,
}

fn add(stamps: &mut Vec<Stamp>, stamp: Stamp) {
    if !stamps.contains(&stamp) {
        stamps.push(stamp);
    }
}

impl Model {
    /// A volume of zeroes.
    pub fn new(sectors: usize) -> Self {
        let zeroes = vec![vec![Stamp::ZERO]; sectors];
        Self { now: zeroes.clone(), after_cut: zeroes, newest: Stamp::ZERO }
    }

    /// Its size in sectors.
    pub fn sectors(&self) -> usize {
        self.now.len()
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        len_u64(self.sectors()) * SECTOR_BYTES
    }

    /// A stamp that was never given before.
    pub fn next_stamp(&mut self) -> Stamp {
        self.newest = self.newest.next();
        self.newest
    }

    /// The content of a write.
    pub fn content(&self, sectors: Range<usize>, stamp: Stamp) -> Vec<u8> {
        let mut data = vec![0; sectors.len() * SECTOR_LEN];
        fill(TAG, len_u64(sectors.start) * SECTOR_BYTES, stamp, &mut data);
        data
    }

    /// A write was submitted: from now on it may be there.
    pub fn submitted(&mut self, sectors: Range<usize>, stamp: Stamp) {
        for sector in sectors {
            add(&mut self.now[sector], stamp);
            add(&mut self.after_cut[sector], stamp);
        }
    }

    /// It was acknowledged: reads give nothing else.
    pub fn acknowledged(&mut self, sectors: Range<usize>, stamp: Stamp) {
        self.now[sectors].iter_mut().for_each(|stamps| *stamps = vec![stamp]);
    }

    /// A flush was acknowledged.
    pub fn flushed(&mut self) {
        self.after_cut.clone_from(&self.now);
    }

    /// The machine lost its power.
    pub fn power_cut(&mut self) {
        self.now.clone_from(&self.after_cut);
    }

    /// Takes what was read: it must be allowed, and is what reads give from now on.
    ///
    /// # Errors
    /// For a sector that holds something else.
    pub fn take(&mut self, what: &str, first: usize, data: &[u8]) -> Result<(), Mismatch> {
        for (sector, stamp) in (first..).zip(self.decode(what, first, data)?) {
            if !self.now[sector].contains(&stamp) {
                let should =
                    self.now[sector].iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
                return Err(Mismatch::new(format!("{what}, sector {sector}"), should, stamp.to_string()));
            }
            self.now[sector] = vec![stamp];
            add(&mut self.after_cut[sector], stamp);
        }
        Ok(())
    }

    /// The stamps of what was read.
    ///
    /// # Errors
    /// For a sector that holds nothing that was ever written there.
    pub fn decode(&self, what: &str, first: usize, data: &[u8]) -> Result<Vec<Stamp>, Mismatch> {
        let mut stamps = Vec::with_capacity(data.len() / SECTOR_LEN);
        for (sector, bytes) in (first..).zip(data.chunks_exact(SECTOR_LEN)) {
            match inspect(TAG, len_u64(sector) * SECTOR_BYTES, bytes) {
                Found::Stamp(stamp) => stamps.push(stamp),
                found => {
                    let what = format!("{what}, sector {sector}");
                    return Err(Mismatch::new(what, "the content of one write", found.to_string()));
                }
            }
        }
        Ok(stamps)
    }

    /// What a read of a sector gives, when that is not in doubt.
    pub fn certain(&self, sector: usize) -> Option<Stamp> {
        match self.now[sector][..] {
            [stamp] => Some(stamp),
            _ => None,
        }
    }

    /// Whether a content could be read now.
    pub fn allows(&self, stamps: &[Stamp]) -> bool {
        stamps.len() >= self.sectors() && self.now.iter().zip(stamps).all(|(now, stamp)| now.contains(stamp))
    }

    /// The volume has another size; what is new holds what `found` says.
    pub fn resize(&mut self, sectors: usize, found: &[Stamp]) {
        self.now.truncate(sectors);
        self.after_cut.truncate(sectors);
        for stamp in found.iter().skip(self.now.len()).take(sectors.saturating_sub(self.now.len())) {
            self.now.push(vec![*stamp]);
            self.after_cut.push(vec![*stamp]);
        }
    }
}
