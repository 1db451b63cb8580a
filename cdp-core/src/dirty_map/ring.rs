//! The ring of the activity log: each record is one page that carries the whole set of active regions.
//!
//! Record *s* lies in slot *s* mod *N* and is synced before the next is issued. A map is made with a full ring of records, so that from
//! then on every sector of it is intact and of this ring, at every crash. That tells apart:
//! - *torn*: the newest record is made up of its own sectors and those of the record *N* before it. It was never synced, so no write
//!   relied on it, and the record before it holds;
//! - *rot*: anything else that is not the row of the last *N* records. What the log said is lost: everything is dirty.
//!
//! ```text
//! sector:  0 magic "CDAL"   4 crc   8 ring id   16 sequence   24 slot (u32)   28 sector (u16)   30 regions of the record (u16)
//!         32 write (u64)   40 its share of the regions, ascending: 118 u32
//! ```
//!
//! *write* is drawn at random for each owner. Only sectors of the same write make a record: the owner that finds a torn record writes the same number
//! again, and a crash may mix the sectors of both attempts.

use crate::{
    format::{PAGE_LEN, digest::crc_around},
    units::SECTOR_LEN,
};

const MAGIC: &[u8; 4] = b"CDAL";
const CRC_AT: usize = 4;
const HEAD_LEN: usize = 40;
const SECTOR_REGIONS: usize = (SECTOR_LEN - HEAD_LEN) / 4;
const SECTORS: usize = PAGE_LEN / SECTOR_LEN;
/// Most regions of a record.
pub const RECORD_REGIONS_MAX: usize = SECTORS * SECTOR_REGIONS;
/// Numbers of records that a ring can have: powers of two, so that slots stay in step when the sequence wraps.
pub const RING_RECORDS: std::ops::RangeInclusive<u32> = 2..=1024;

/// A ring: its identity and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Drawn at random for each life of a ring.
    pub id: u64,
    /// Records that it holds: a power of two in [`RING_RECORDS`].
    pub records: u32,
}

/// Number of a record, and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    sequence: u64,
    write: u64,
}

/// A record: the regions that are active, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number; the next one is one more, and 0 follows the largest.
    pub sequence: u64,
    /// Drawn at random by the owner that writes it.
    pub write: u64,
    /// The regions, ascending, at most [`RECORD_REGIONS_MAX`].
    pub regions: Vec<u32>,
}

/// What a ring says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The newest record that was finished. The next one to write is the one after it.
    Record(Record),
    /// The newest record is lost: everything must be taken for dirty.
    Lost(&'static str),
}

/// A sector of a record.
struct Part<'a> {
    name: Name,
    count: usize,
    regions: &'a [[u8; 4]],
}

impl Ring {
    /// The slot of a record.
    pub fn slot(self, sequence: u64) -> u32 {
        let slot = sequence & u64::from(self.records - 1);
        u32::try_from(slot).unwrap_or(0)
    }

    /// Fills the page of a record.
    ///
    /// # Panics
    /// When there are more regions than fit, which the activity log does not let happen.
    pub fn encode(self, record: &Record, page: &mut [u8]) {
        assert!(record.regions.len() <= RECORD_REGIONS_MAX, "the set of active regions is bounded");
        let count = u16::try_from(record.regions.len()).expect("at most 960");
        let mut shares = record.regions.chunks(SECTOR_REGIONS);
        for (sector, out) in (0u16..).zip(page.chunks_exact_mut(SECTOR_LEN)) {
            out.fill(0);
            out[..4].copy_from_slice(MAGIC);
            out[8..16].copy_from_slice(&self.id.to_le_bytes());
            out[16..24].copy_from_slice(&record.sequence.to_le_bytes());
            out[24..28].copy_from_slice(&self.slot(record.sequence).to_le_bytes());
            out[28..30].copy_from_slice(&sector.to_le_bytes());
            out[30..32].copy_from_slice(&count.to_le_bytes());
            out[32..40].copy_from_slice(&record.write.to_le_bytes());
            let share = shares.next().unwrap_or_default();
            for (out, region) in out[HEAD_LEN..].chunks_exact_mut(4).zip(share) {
                out.copy_from_slice(&region.to_le_bytes());
            }
            let crc = crc_around(out, CRC_AT);
            out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }

    fn part(self, bytes: &[u8], slot: u32, sector: u16) -> Option<Part<'_>> {
        let (fields, rest) = bytes.split_at_checked(HEAD_LEN)?;
        let whole = bytes.len() == SECTOR_LEN
            && fields.starts_with(MAGIC)
            && fields[4..8] == crc_around(bytes, CRC_AT).to_le_bytes()
            && fields[8..16] == self.id.to_le_bytes()
            && fields[24..28] == slot.to_le_bytes()
            && fields[28..30] == sector.to_le_bytes();
        let sequence = u64::from_le_bytes(fields[16..24].try_into().ok()?);
        let write = u64::from_le_bytes(fields[32..40].try_into().ok()?);
        let count = usize::from(u16::from_le_bytes(fields[30..32].try_into().ok()?));
        if !whole || self.slot(sequence) != slot || count > RECORD_REGIONS_MAX {
            return None;
        }
        let share = count.saturating_sub(usize::from(sector) * SECTOR_REGIONS).min(SECTOR_REGIONS);
        let (regions, _) = rest.as_chunks::<4>();
        let (regions, unused) = regions.split_at_checked(share)?;
        unused.iter().all(|unused| *unused == [0; 4]).then_some(Part {
            name: Name { sequence, write },
            count,
            regions,
        })
    }

    /// Whether each sector of a page is intact and of this ring at this slot.
    pub(super) fn is_intact(self, page: &[u8], slot: u64) -> bool {
        let Ok(slot) = u32::try_from(slot) else { return false };
        let mut sectors = (0u16..).zip(page.chunks(SECTOR_LEN));
        sectors.all(|(at, bytes)| self.part(bytes, slot, at).is_some())
    }

    /// Whether `a` was issued after `b`.
    fn after(a: u64, b: u64) -> bool {
        a != b && a.wrapping_sub(b) < 1 << 63
    }

    /// Judges the pages of a ring, in the order of their slots. `regions` is the number of regions that there are.
    pub fn judge(self, pages: &[u8], regions: u64) -> Verdict {
        let mut slots = Vec::new();
        for (slot, page) in (0u32..self.records).zip(pages.chunks(PAGE_LEN)) {
            let parts: Option<Vec<Part<'_>>> =
                (0u16..).zip(page.chunks(SECTOR_LEN)).map(|(at, bytes)| self.part(bytes, slot, at)).collect();
            match parts {
                Some(parts) if parts.len() == SECTORS => slots.push(parts),
                _ => return Verdict::Lost("a sector is not intact or not of this ring"),
            }
        }
        let all = slots.iter().flatten().map(|part| part.name.sequence);
        let Some(newest) = all.reduce(|a, b| if Self::after(b, a) { b } else { a }) else {
            return Verdict::Lost("it is empty");
        };
        let length = u64::from(self.records);
        let mut newest_whole = true;
        for back in 0..length {
            let expected = newest.wrapping_sub(back);
            let Some(parts) = slots.get(usize::try_from(self.slot(expected)).unwrap_or(usize::MAX)) else {
                return Verdict::Lost("it is too short");
            };
            let write = parts.first().map(|part| part.name.write);
            let whole =
                parts.iter().all(|part| part.name.sequence == expected && Some(part.name.write) == write);
            let torn =
                |part: &Part<'_>| [expected, expected.wrapping_sub(length)].contains(&part.name.sequence);
            match back {
                0 if !whole && parts.iter().all(torn) => newest_whole = false,
                _ if !whole => return Verdict::Lost("a record is missing in its row"),
                _ => {}
            }
        }
        let sequence = if newest_whole { newest } else { newest.wrapping_sub(1) };
        let found = slots.get(usize::try_from(self.slot(sequence)).unwrap_or(usize::MAX));
        match found.and_then(|parts| assemble(parts, regions)) {
            Some((write, regions)) => Verdict::Record(Record { sequence, write, regions }),
            None => Verdict::Lost("a record names impossible regions"),
        }
    }
}

fn assemble(parts: &[Part<'_>], regions: u64) -> Option<(u64, Vec<u32>)> {
    let (write, count) = parts.first().map(|part| (part.name.write, part.count))?;
    let named: Vec<u32> =
        parts.iter().flat_map(|part| part.regions).map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let possible = parts.iter().all(|part| part.count == count)
        && named.len() == count
        && named.is_sorted_by(|a, b| a < b)
        && named.last().is_none_or(|last| u64::from(*last) < regions);
    possible.then_some((write, named))
}
