//! The model: a list of entries, and the slow obvious answer to each question.

use super::Random;
use crate::{
    index::{ByteExtent, CELL_LEVELS, Cell, Content, Entry, Key, MASK_FULL, cells_of, mask_of},
    units::{Block, ExtentId, Sector, SectorRange, Seq, VolumeId},
};

/// Blocks of the volumes of the model.
pub const BLOCKS: u64 = 1100;

#[derive(Default)]
pub struct Model {
    pub entries: Vec<Entry>,
    pub newest: u64,
}

impl Model {
    /// A history of `writes` writes to `volumes` volumes: blocks and parts of blocks, zeroes and discards of any width.
    pub fn random(random: &mut Random, writes: u64, volumes: u16) -> Self {
        let mut model = Self::default();
        let hot = random.below(BLOCKS);
        for _ in 0..writes {
            model.newest += 1 + random.below(3);
            let volume = VolumeId::new(u16::try_from(1 + random.below(u64::from(volumes))).unwrap());
            if random.one_in(6) {
                let start = random.below(BLOCKS * 8);
                let longest = BLOCKS * 8 - start;
                let sectors = 1 + random.below(longest) / (1 << random.below(12)).min(longest);
                let range = SectorRange { start: Sector::new(start), sectors: sectors.min(longest) };
                let content = if random.one_in(2) { Content::Zero } else { Content::Discarded };
                model.add_cells(volume, cells_of(range), content);
                continue;
            }
            let first = if random.one_in(4) { hot } else { random.below(BLOCKS) };
            for block in first..(first + 1 + random.below(4) * random.below(4)).min(BLOCKS) {
                let from = random.below(8);
                let to = from + 1 + random.below(8 - from);
                let mask = if random.one_in(2) { MASK_FULL } else { mask_of(from, to) };
                let content = Content::Data {
                    segment: ExtentId::new(1 + random.below(40)),
                    sector: u32::try_from(random.below(1 << 17)).unwrap(),
                    digest: random.word() | 1,
                };
                model.add_cells(volume, [(Cell { block: Block::new(block), level: 0 }, mask)], content);
            }
        }
        model
    }

    /// A history of `writes` writes to parts of three blocks, one for each seq.
    pub fn narrow(random: &mut Random, writes: u64) -> Self {
        let mut model = Self::default();
        for _ in 0..writes {
            model.newest += 1;
            let from = random.below(8);
            let to = from + 1 + random.below(8 - from);
            let content = match random.below(4) {
                0 => Content::Zero,
                1 => Content::Discarded,
                _ => Content::Data { segment: ExtentId::new(1), sector: 0, digest: 1 },
            };
            let mask = if random.one_in(2) { MASK_FULL } else { mask_of(from, to) };
            let cell = Cell { block: Block::new(random.below(3)), level: 0 };
            model.add_cells(VolumeId::new(1), [(cell, mask)], content);
        }
        model
    }

    fn add_cells(&mut self, volume: VolumeId, cells: impl IntoIterator<Item = (Cell, u8)>, content: Content) {
        for (cell, mask) in cells {
            let mut content = content;
            if let Content::Data { digest, .. } = &mut content {
                // Apart from all others, so that an answer names one entry.
                *digest = u64::try_from(self.entries.len()).unwrap() + 1;
            }
            self.entries.push(Entry { key: Key::new(volume, cell, Seq::new(self.newest)), mask, content });
        }
    }

    pub fn random_seq(&self, random: &mut Random) -> Seq {
        Seq::new(random.below(self.newest + 3))
    }

    /// For each sector of a volume the entry that it comes from at a point.
    pub fn image(&self, volume: VolumeId, at: Seq) -> Vec<Option<Entry>> {
        let mut image: Vec<Option<Entry>> = vec![None; usize::try_from(BLOCKS * 8).unwrap()];
        for entry in self.entries.iter().filter(|entry| entry.key.volume == volume && entry.key.seq() <= at) {
            for sector in sectors_of(entry) {
                if image[sector].is_none_or(|other| other.key.seq() < entry.key.seq()) {
                    image[sector] = Some(*entry);
                }
            }
        }
        image
    }

    /// The extents written in `(from, to]`.
    pub fn changed(&self, volume: VolumeId, from: Seq, to: Seq, bytes: u64) -> Vec<ByteExtent> {
        let mut blocks = vec![false; usize::try_from(BLOCKS + 1).unwrap()];
        for entry in self.entries.iter().filter(|entry| entry.key.volume == volume) {
            if entry.key.seq() > from && entry.key.seq() <= to {
                for sector in sectors_of(entry) {
                    blocks[sector / 8] = true;
                }
            }
        }
        let mut extents: Vec<ByteExtent> = Vec::new();
        for (block, _) in blocks.iter().enumerate().filter(|(_, changed)| **changed) {
            let offset = u64::try_from(block).unwrap() * 4096;
            let length = 4096.min(bytes.saturating_sub(offset));
            match extents.last_mut() {
                _ if length == 0 => {}
                Some(last) if last.offset + last.length == offset => last.length += length,
                _ => extents.push(ByteExtent { offset, length }),
            }
        }
        extents
    }
}

fn sectors_of(entry: &Entry) -> impl Iterator<Item = usize> {
    assert!(entry.key.level.0 < CELL_LEVELS);
    let first = usize::try_from(entry.key.block.get() * 8).unwrap();
    let blocks = usize::try_from(Cell::blocks_at(entry.key.level.0)).unwrap();
    let mask = entry.mask;
    (0..blocks * 8).filter(move |sector| mask >> (sector % 8) & 1 == 1).map(move |sector| first + sector)
}
