//! What is known of a run without reading it: the record that the manifest keeps.
//!
//! ```text
//! version u8 = 1, level u8, levels u8, 0 u8, pieces u32, seq min u64, seq max u64, entries u64, sum u64
//! then for each piece, 104 bytes:
//!   extent u64, offset u64, first cell u64, first age u64, last cell u64, last age u64, entries u64, seq min u64,
//!   seq max u64, sum u64, pages u32, root page u32, height u8, levels u8, 0 x 14
//! ```
//! Invariants. *totals*: the totals of a run are those of its pieces. *order*: pieces ascend and do not overlap. Both are
//! checked when a record is decoded, which answers what is wrong and allocates no more than the record is long.

use super::{
    Key,
    pack::{pack_key, unpack_key},
};
use crate::{
    format::{packed::PackedKey, page::PAGE_BYTES, trailer::Trailer},
    limits::{COUNTER_END, EXTENT_BYTES_MAX},
    units::{ExtentId, Seq},
};

const VERSION: u8 = 1;
const HEAD_LEN: usize = 40;
const PIECE_LEN: usize = 104;

/// One unbroken row of pages of a run, in one extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceMeta {
    /// Extent that holds the pages.
    pub extent: ExtentId,
    /// First byte; a multiple of 4096.
    pub offset: u64,
    /// Number of pages, the trailer included.
    pub pages: u32,
    /// Number of the root page, counted from the start of the extent.
    pub root_page: u32,
    /// Levels of pages; 1 when the root is a leaf.
    pub height: u8,
    /// First key.
    pub first: Key,
    /// Last key.
    pub last: Key,
    /// Number of entries.
    pub entries: u64,
    /// Smallest seq.
    pub seq_min: Seq,
    /// Largest seq.
    pub seq_max: Seq,
    /// Levels of cells that occur, a bit each.
    pub levels: u8,
    /// Wrapping sum of the hashes of the entries.
    pub sum: u64,
}

impl PieceMeta {
    /// The piece that a trailer describes.
    pub(super) fn of(trailer: &Trailer, extent: ExtentId, offset: u64) -> Self {
        Self {
            extent,
            offset,
            pages: trailer.pages,
            root_page: trailer.root_page,
            height: trailer.height,
            first: unpack_key(trailer.first),
            last: unpack_key(trailer.last),
            entries: trailer.entries,
            seq_min: Seq::new(trailer.seq_min),
            seq_max: Seq::new(trailer.seq_max),
            levels: trailer.levels,
            sum: trailer.sum,
        }
    }

    /// What the trailer of this piece has to say.
    pub(super) fn trailer(&self) -> Trailer {
        Trailer {
            first: pack_key(&self.first),
            last: pack_key(&self.last),
            entries: self.entries,
            seq_min: self.seq_min.get(),
            seq_max: self.seq_max.get(),
            sum: self.sum,
            pages: self.pages,
            root_page: self.root_page,
            height: self.height,
            levels: self.levels,
        }
    }

    /// Bytes that the pages take.
    pub fn bytes(&self) -> u64 {
        u64::from(self.pages) * PAGE_BYTES
    }

    /// Number of the trailer page, counted from the start of the extent, if there can be such a page.
    pub(super) fn trailer_page(&self) -> Option<u32> {
        let first = u32::try_from(self.offset / PAGE_BYTES).ok()?;
        first.checked_add(self.pages.checked_sub(1)?)
    }
}

/// An immutable sorted index over a slice of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMeta {
    /// How many merges its entries have been through.
    pub level: u8,
    /// Smallest seq; 0 when there are no entries.
    pub seq_min: Seq,
    /// Largest seq; 0 when there are no entries.
    pub seq_max: Seq,
    /// Number of entries.
    pub entries: u64,
    /// Levels of cells that occur, a bit each.
    pub levels_mask: u8,
    /// Wrapping sum of the hashes of the entries.
    pub sum: u64,
    /// The pieces in order of key.
    pub pieces: Vec<PieceMeta>,
}

impl RunMeta {
    /// The run that consists of `pieces`, which are in order.
    pub fn of(level: u8, pieces: Vec<PieceMeta>) -> Self {
        let entries = pieces.iter().fold(0u64, |sum, piece| sum.wrapping_add(piece.entries));
        Self {
            level,
            seq_min: pieces.iter().map(|piece| piece.seq_min).min().unwrap_or(Seq::ZERO),
            seq_max: pieces.iter().map(|piece| piece.seq_max).max().unwrap_or(Seq::ZERO),
            entries,
            levels_mask: pieces.iter().fold(0, |mask, piece| mask | piece.levels),
            sum: pieces.iter().fold(0, |sum, piece| sum.wrapping_add(piece.sum)),
            pieces,
        }
    }

    /// Bytes that all pages take.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(PieceMeta::bytes).sum()
    }

    /// Appends the record to `out`.
    ///
    /// # Panics
    /// With more than `u32::MAX` pieces, which no store holds.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let count = u32::try_from(self.pieces.len()).expect("a run has fewer than 2^32 pieces");
        out.reserve(HEAD_LEN + self.pieces.len() * PIECE_LEN);
        out.extend([VERSION, self.level, self.levels_mask, 0]);
        out.extend(count.to_le_bytes());
        put(out, &[self.seq_min.get(), self.seq_max.get(), self.entries, self.sum]);
        for piece in &self.pieces {
            let (first, last) = (pack_key(&piece.first), pack_key(&piece.last));
            put(
                out,
                &[
                    piece.extent.get(),
                    piece.offset,
                    first.cell,
                    first.age,
                    last.cell,
                    last.age,
                    piece.entries,
                ],
            );
            put(out, &[piece.seq_min.get(), piece.seq_max.get(), piece.sum]);
            out.extend(piece.pages.to_le_bytes());
            out.extend(piece.root_page.to_le_bytes());
            out.extend([piece.height, piece.levels]);
            out.extend([0; PIECE_LEN - 90]);
        }
    }

    /// Takes a record from the front of `bytes`.
    ///
    /// # Errors
    /// What is wrong with the bytes; how many of them were taken is then undefined.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, &'static str> {
        let head = bytes.split_off(..HEAD_LEN).ok_or("run record that ends early")?;
        let [VERSION, level, _, 0] = head[..4] else { return Err("run record of an unknown form") };
        let count = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let stored = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(PIECE_LEN))
            .and_then(|length| bytes.split_off(..length))
            .ok_or("run record that ends early")?;
        let (pieces, _) = stored.as_chunks::<PIECE_LEN>();
        let run = Self::of(level, pieces.iter().map(decode_piece).collect::<Result<_, _>>()?);
        if !run.pieces.is_sorted_by(|left, right| left.last < right.first) {
            return Err("run record with pieces out of order");
        }
        let mut again = Vec::with_capacity(HEAD_LEN);
        Self { pieces: Vec::new(), ..run.clone() }.encode(&mut again);
        again[4..8].copy_from_slice(&head[4..8]);
        if again != head {
            return Err("run record whose totals are not those of its pieces");
        }
        Ok(run)
    }
}

fn put(out: &mut Vec<u8>, words: &[u64]) {
    for word in words {
        out.extend(word.to_le_bytes());
    }
}

fn decode_piece(bytes: &[u8; PIECE_LEN]) -> Result<PieceMeta, &'static str> {
    let words = bytes.as_chunks::<8>().0;
    let word = |index: usize| u64::from_le_bytes(words[index]);
    let half = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let trailer = Trailer {
        first: PackedKey { cell: word(2), age: word(3) },
        last: PackedKey { cell: word(4), age: word(5) },
        entries: word(6),
        seq_min: word(7),
        seq_max: word(8),
        sum: word(9),
        pages: half(80),
        root_page: half(84),
        height: bytes[88],
        levels: bytes[89],
    };
    let piece = PieceMeta::of(&trailer, ExtentId::new(word(0)), word(1));
    if !piece.offset.is_multiple_of(PAGE_BYTES)
        || piece.offset > EXTENT_BYTES_MAX
        || piece.extent.get() >= COUNTER_END
        || bytes[90..].iter().any(|byte| *byte != 0)
    {
        return Err("run record with an impossible piece");
    }
    trailer.check(piece.trailer_page().ok_or("run record with an impossible piece")?)?;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        index::Cell,
        units::{Block, VolumeId},
    };

    fn sample() -> RunMeta {
        let key = |block, seq| {
            Key::new(VolumeId::new(1), Cell { block: Block::new(block), level: 0 }, Seq::new(seq))
        };
        let piece = |number: u64| PieceMeta {
            extent: ExtentId::new(number),
            offset: 8192,
            pages: 4,
            root_page: 4,
            height: 2,
            first: key(number * 100, 9),
            last: key(number * 100 + 50, 3),
            entries: 200 + number,
            seq_min: Seq::new(3),
            seq_max: Seq::new(90 + number),
            levels: 1,
            sum: 0xABCD << number,
        };
        RunMeta::of(2, vec![piece(1), piece(2), piece(3)])
    }

    /// Goal: a record comes back as it went in, and only its own bytes are taken. Method: two records and a rest.
    #[test]
    fn a_run_record_is_read_back_as_it_was_written() {
        let (run, empty) = (sample(), RunMeta::of(0, Vec::new()));
        let mut bytes = Vec::new();
        run.encode(&mut bytes);
        empty.encode(&mut bytes);
        bytes.extend(b"rest");
        let mut rest = bytes.as_slice();
        assert_eq!(RunMeta::decode(&mut rest), Ok(run));
        assert_eq!(RunMeta::decode(&mut rest), Ok(empty));
        assert_eq!(rest, b"rest");
    }

    /// Goal: no bytes make the decoder panic or allocate wildly, and what it accepts is a canonical record.
    /// Method: every bit flip and every cut of a record; a flip may pass only if encoding it again gives the same bytes.
    #[test]
    fn a_damaged_run_record_is_refused_or_still_canonical() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert!(RunMeta::decode(&mut &bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut refused = 0;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match RunMeta::decode(&mut flipped.as_slice()) {
                Ok(run) => {
                    let mut again = Vec::new();
                    run.encode(&mut again);
                    assert_eq!(again, flipped[..again.len()], "bit {bit}");
                }
                Err(_) => refused += 1,
            }
        }
        assert!(refused > bytes.len(), "the totals and reserved bytes refuse many flips, not {refused}");
    }
}
