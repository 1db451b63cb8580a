//! What writes and imports contain: stamped sectors, zeroes, or both in turn.

use super::{
    image::{Image, Piece},
    op::Fill,
    stamp::{Stamp, VolumeTag, fill},
};
use crate::{
    ImportSource,
    io::simulated::SimRng,
    units::{BLOCK_BYTES, SECTOR_BYTES, SECTORS_PER_BLOCK, len_u64, to_len},
};
use std::io;

/// Stretches of content in one range at most, so that a large range has large stretches.
const STRETCHES_MAX: u64 = 64;

/// Cuts a range into pieces as a fill says.
pub fn pieces_of(start: u64, end: u64, fill: Fill, stamp: Stamp) -> Vec<Piece> {
    match fill {
        Fill::Stamped => vec![Piece { start, end, stamp }],
        Fill::Zeroes => vec![Piece { start, end, stamp: Stamp::ZERO }],
        Fill::Mixed(seed) => {
            let mut rng = SimRng::new(seed);
            let longest = ((end - start) / STRETCHES_MAX).max(20);
            let mut pieces = Vec::new();
            let mut at = start;
            let mut zero = rng.chance(0.5);
            while at < end {
                let stop = (at + 1 + rng.below(longest)).min(end);
                pieces.push(Piece { start: at, end: stop, stamp: if zero { Stamp::ZERO } else { stamp } });
                at = stop;
                zero = !zero;
            }
            pieces
        }
    }
}

/// The bytes of pieces that follow each other.
pub fn filled(tag: VolumeTag, pieces: &[Piece]) -> Vec<u8> {
    let mut data = Vec::new();
    for piece in pieces {
        let from = data.len();
        data.resize(from + to_len((piece.end - piece.start) * SECTOR_BYTES), 0);
        fill(tag, piece.start * SECTOR_BYTES, piece.stamp, &mut data[from..]);
    }
    data
}

/// A source to import from. Of the stretches that are zeroes some are holes, and some are given as zeroes.
#[derive(Debug)]
pub struct ContentSource {
    tag: VolumeTag,
    image: Image,
    sectors: u64,
    next: u64,
    rng: SimRng,
    fail_after: Option<u64>,
    failed: bool,
}

impl ContentSource {
    /// A source of a volume of so many sectors that fails after `fail_after` of its answers.
    pub fn new(tag: VolumeTag, pieces: &[Piece], sectors: u64, fail_after: Option<u64>) -> Self {
        let mut image = Image::default();
        pieces.iter().for_each(|piece| image.put(*piece));
        Self { tag, image, sectors, next: 0, rng: SimRng::new(sectors), fail_after, failed: false }
    }

    /// Whether it has failed.
    pub fn has_failed(&self) -> bool {
        self.failed
    }
}

impl ImportSource for ContentSource {
    fn next(&mut self, buf: &mut [u8]) -> io::Result<Option<(u64, usize)>> {
        if let Some(left) = &mut self.fail_after {
            if *left == 0 {
                self.failed = true;
                return Err(io::Error::other("the source of the import failed, as the test wanted"));
            }
            *left -= 1;
        }
        let room = len_u64(buf.len()) / BLOCK_BYTES;
        while self.next < self.sectors {
            let most = self.rng.pick(&[1, 8, room]);
            let blocks = 1 + self.rng.below(most);
            let (start, end) = (self.next, (self.next + blocks * SECTORS_PER_BLOCK).min(self.sectors));
            self.next = end;
            let pieces = self.image.pieces(start, end);
            if pieces.iter().all(|piece| piece.stamp == Stamp::ZERO) && self.rng.chance(0.5) {
                continue;
            }
            let data = filled(self.tag, &pieces);
            buf[..data.len()].copy_from_slice(&data);
            return Ok(Some((start * SECTOR_BYTES, data.len())));
        }
        Ok(None)
    }
}
