//! What every image must contain, computed from the traces alone.
//!
//! Under `--fill stamp` each 16 bytes of a written range hold two little-endian u64: their own byte offset on the
//! volume, and the 1-based number of the line among the counted lines of its replay. So an image is known by its
//! extents (start, end, line), and is compared in one pass, in memory that grows with the number of writes and not
//! with the size of the image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Op, Trace};

const CHUNK: u64 = 1 << 20;

/// One counted line, and the seq it took.
struct Counted {
    seq: u64,
    time: u64,
    volume: usize,
    offset: u64,
    length: u64,
    /// The number in the stamp; none for zeroes and discards.
    line: Option<u64>,
}

/// The history of a store, as its traces tell it.
#[derive(Default)]
pub struct Oracle {
    volumes: Vec<(String, u64)>,
    counted: Vec<Counted>,
    /// Name, time and seq of each bookmark line.
    pub bookmarks: Vec<(String, u64, u64)>,
    newest: u64,
}

/// The content of one volume at one seq: stamped extents by their start; what is between them is zero.
pub struct Image {
    bytes: u64,
    extents: BTreeMap<u64, (u64, u64)>,
}

impl Oracle {
    pub fn new(volumes: &[(&str, u64)]) -> Self {
        let volumes = volumes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        Self { volumes, ..Self::default() }
    }

    pub fn add_volume(&mut self, name: &str, bytes: u64) {
        self.volumes.push((name.to_owned(), bytes));
    }

    /// Takes in a trace whose first counted line had the next seq; `only` sends all lines to one volume.
    pub fn replay(&mut self, trace: &Trace, only: Option<&str>) {
        let mut stamp = 0;
        for line in &trace.lines {
            let volume = self.volume_index(only.unwrap_or(&line.volume));
            let (offset, length, stamped) = match &line.op {
                Op::Write { offset, length } => (*offset, *length, true),
                Op::Zero { offset, length } | Op::Discard { offset, length } => (*offset, *length, false),
                Op::Flush => continue,
                Op::Bookmark(name) => {
                    self.bookmarks.push((name.clone(), line.time, self.newest));
                    continue;
                }
            };
            stamp += 1;
            self.newest += 1;
            let counted = Counted {
                seq: self.newest,
                time: line.time,
                volume,
                offset,
                length,
                line: stamped.then_some(stamp),
            };
            self.counted.push(counted);
        }
    }

    /// Something else took the next seq (an import).
    pub fn skip_seq(&mut self) {
        self.newest += 1;
    }

    pub fn newest(&self) -> u64 {
        self.newest
    }

    pub fn time_of(&self, seq: u64) -> u64 {
        self.counted.iter().find(|counted| counted.seq == seq).expect("a counted line").time
    }

    /// The largest seq with a time at or before `time`; 0 when every write is later.
    pub fn seq_at(&self, time: u64) -> u64 {
        self.counted
            .iter()
            .filter(|counted| counted.time <= time)
            .map(|counted| counted.seq)
            .max()
            .unwrap_or(0)
    }

    pub fn volume_names(&self) -> Vec<String> {
        self.volumes.iter().map(|(name, _)| name.clone()).collect()
    }

    /// How many bytes the write with this seq carried.
    pub fn bytes_of(&self, seq: u64) -> u64 {
        let found = self.counted.binary_search_by_key(&seq, |counted| counted.seq);
        found.map_or(0, |index| self.counted[index].length)
    }

    /// The first seq that wrote to a volume.
    pub fn first_seq_of(&self, volume: &str) -> u64 {
        let index = self.volume_index(volume);
        self.counted.iter().find(|counted| counted.volume == index).map_or(u64::MAX, |counted| counted.seq)
    }

    /// Every seq with its time, ascending.
    pub fn seqs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counted.iter().map(|counted| (counted.seq, counted.time))
    }

    /// Bytes of the versions that some of these points can see: a version is one 4 KiB block of one write, and is
    /// seen by the points from its seq up to the seq of the next write, zero or discard of that block.
    pub fn seen_bytes(&self, points: &BTreeSet<u64>) -> u64 {
        const BLOCK: u64 = 4096;
        let mut next: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        let mut blocks = 0;
        for counted in self.counted.iter().rev() {
            for block in counted.offset / BLOCK..(counted.offset + counted.length).div_ceil(BLOCK) {
                let successor = next.insert((counted.volume, block), counted.seq).unwrap_or(u64::MAX);
                let seen = points.range(counted.seq..successor).next().is_some();
                blocks += u64::from(seen && counted.line.is_some());
            }
        }
        blocks * BLOCK
    }

    pub fn image(&self, volume: &str, seq: u64) -> Image {
        let index = self.volume_index(volume);
        let mut image = Image { bytes: self.volumes[index].1, extents: BTreeMap::new() };
        for counted in self.counted.iter().filter(|counted| counted.volume == index && counted.seq <= seq) {
            image.paint(counted.offset, counted.length, counted.line);
        }
        image
    }

    /// The ranges that lines of `(from, to]` touched on a volume, rounded outward to `granularity` and merged.
    pub fn touched(&self, volume: &str, from: u64, to: u64, granularity: u64) -> Vec<(u64, u64)> {
        let index = self.volume_index(volume);
        let bytes = self.volumes[index].1;
        let inside = |counted: &&Counted| counted.volume == index && counted.seq > from && counted.seq <= to;
        let ranges = self.counted.iter().filter(inside).map(|counted| {
            let start = counted.offset / granularity * granularity;
            let end = (counted.offset + counted.length).next_multiple_of(granularity);
            (start, end.min(bytes))
        });
        merged(ranges.collect())
    }

    fn volume_index(&self, name: &str) -> usize {
        let found = self.volumes.iter().position(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("the oracle knows no volume `{name}`"))
    }
}

/// Sorts ranges and joins those that touch.
pub fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        match joined.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined
}

impl Image {
    fn paint(&mut self, offset: u64, length: u64, line: Option<u64>) {
        let end = offset + length;
        if let Some((&start, &(old_end, old_line))) = self.extents.range(..offset).next_back()
            && old_end > offset
        {
            self.extents.insert(start, (offset, old_line));
            if old_end > end {
                self.extents.insert(end, (old_end, old_line));
            }
        }
        while let Some((&start, &(old_end, old_line))) = self.extents.range(offset..end).next() {
            self.extents.remove(&start);
            if old_end > end {
                self.extents.insert(end, (old_end, old_line));
            }
        }
        if let Some(line) = line {
            self.extents.insert(offset, (end, line));
        }
    }

    /// Writes the content of `[offset, offset + buffer.len())`, 16-byte aligned, into `buffer`.
    pub fn content(&self, offset: u64, buffer: &mut [u8]) {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        let first = self.extents.range(..=offset).next_back().map_or(offset, |(&start, _)| start);
        for (&start, &(stop, line)) in self.extents.range(first..end) {
            let (low, high) = (start.max(offset), stop.min(end));
            if low >= high {
                continue;
            }
            let part = &mut buffer[super::index(low - offset)..super::index(high - offset)];
            for (position, chunk) in (low..).step_by(16).zip(part.chunks_exact_mut(16)) {
                chunk[..8].copy_from_slice(&position.to_le_bytes());
                chunk[8..].copy_from_slice(&line.to_le_bytes());
            }
        }
    }

    /// Compares a file with this image, byte for byte and in length.
    #[track_caller]
    pub fn assert_equals_file(&self, path: &Path, what: &str) {
        let file = File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
        let length = file.metadata().expect("length of the image").len();
        assert_eq!(length, self.bytes, "{what}: length of {}", path.display());
        if let Err(difference) = self.compare(file) {
            panic!("{what}: {} differs from what the trace says: {difference}", path.display());
        }
    }

    /// Compares what a reader gives with this image; says where the first difference is, and what is there.
    pub fn compare(&self, mut source: impl Read) -> Result<(), String> {
        let mut expected = vec![0; super::index(CHUNK)];
        let mut found = vec![0; super::index(CHUNK)];
        let mut offset = 0;
        while offset < self.bytes {
            let length = super::index((self.bytes - offset).min(CHUNK));
            source.read_exact(&mut found[..length]).map_err(|error| format!("read at {offset}: {error}"))?;
            self.content(offset, &mut expected[..length]);
            if expected[..length] != found[..length] {
                return Err(difference(offset, &expected[..length], &found[..length]));
            }
            offset += length as u64;
        }
        Ok(())
    }

    /// The ranges in which two images of the same volume differ.
    pub fn differing(&self, other: &Image) -> Vec<(u64, u64)> {
        let boundaries =
            |image: &Image| image.extents.iter().flat_map(|(&start, &(end, _))| [start, end]).collect();
        let mut cuts: Vec<u64> = boundaries(self);
        let others: Vec<u64> = boundaries(other);
        cuts.extend(others);
        cuts.sort_unstable();
        cuts.dedup();
        let pairs = cuts.windows(2).map(|pair| (pair[0], pair[1]));
        merged(pairs.filter(|&(start, _)| self.line_at(start) != other.line_at(start)).collect())
    }

    fn line_at(&self, offset: u64) -> Option<u64> {
        let (_, &(end, line)) = self.extents.range(..=offset).next_back()?;
        (offset < end).then_some(line)
    }
}

fn difference(base: u64, expected: &[u8], found: &[u8]) -> String {
    let position = expected.iter().zip(found).position(|(a, b)| a != b).expect("they differ") / 16 * 16;
    let words = |bytes: &[u8]| {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        format!("(offset {}, line {})", word(position), word(position + 8))
    };
    format!("at byte {}: expected {}, found {}", base + position as u64, words(expected), words(found))
}

/// Goal: the oracle is right. Method: random lines on a small volume against one number per sector, at every seq.
#[test]
fn oracle_agrees_with_one_number_per_sector() {
    const SECTORS: u64 = 96;
    let mut random = super::Random::for_test("oracle_agrees_with_one_number_per_sector");
    for _ in 0..20 {
        let mut shape = super::Shape::mixed(SECTORS * 512, 80);
        shape.write_most = 8 << 10;
        let trace = shape.generate(&mut random);
        let mut oracle = Oracle::new(&[("disk", SECTORS * 512)]);
        oracle.replay(&trace, None);
        let mut sectors = vec![0_u64; super::index(SECTORS)];
        let mut seq = 0;
        for line in &trace.lines {
            let (offset, length, write) = match line.op {
                Op::Write { offset, length } => (offset, length, true),
                Op::Zero { offset, length } | Op::Discard { offset, length } => (offset, length, false),
                _ => continue,
            };
            seq += 1;
            let range = super::index(offset / 512)..super::index((offset + length) / 512);
            sectors[range].fill(if write { seq } else { 0 });
            let image = oracle.image("disk", seq);
            let bytes: Vec<u8> = (0..SECTORS * 512 / 16)
                .flat_map(|word| {
                    let line = sectors[super::index(word / 32)];
                    let place = if line == 0 { 0 } else { word * 16 };
                    [place.to_le_bytes(), line.to_le_bytes()].concat()
                })
                .collect();
            assert_eq!(image.compare(bytes.as_slice()), Ok(()), "seq {seq}");
            let mut wrong = bytes.clone();
            let flipped = super::index(random.below(wrong.len() as u64));
            wrong[flipped] ^= 1;
            assert!(image.compare(wrong.as_slice()).is_err(), "a wrong byte at {flipped} goes unseen");
        }
    }
}
