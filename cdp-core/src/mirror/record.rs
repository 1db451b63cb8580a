//! The state record of a mirror set: which copies there are and what is known of each.
//!
//! A record lies in a slot of [`SLOT_BYTES`]; there are two, and an update writes both, one after the other, each synced. So at every crash one of
//! them is whole, and one that rots does not take the newest state along. Invariant *newest wins*: the intact slot of the highest sequence.
//!
//! ```text
//!   0 magic "CDPMIRST"   8 crc   12 version (1)   16 set uuid (16)   32 sequence   40 length of the record in bytes (u32)   44 slot (u32)
//!  48 volume bytes   56 granularity (u32)   60 ack (u8: 1 one, 2 quorum, 3 all)   61 clean (u8)   62 copies (u16)
//!  64 session   72 next extent   80 next copy number (u32)   84 entries of the sample (u32)   88 extent of the activity log   96 digest key
//! 104 sample, then the copies
//! sample entry: block of 4 KiB (u64), digest (u64)
//! copy: number (u32), state (u8: 1 online, 2 offline), flags (u8: 1 rewrite), length of the locator (u16), id (16), extent of its map (u64),
//!       stamp (u8: 0, 1; then u64), generations, entries of its own sample (u16), entries, locator (UTF-8)
//! ```
//!
//! The decoder checks every length and count, and takes no more than the bounds of `limits.rs` say.

use super::generation::Generations;
use crate::{
    dirty_map::{Granularity, Shape},
    format::{Malformed, Uuid, digest::crc_around, take, take_counter, take_uuid},
    limits::{LOCATOR_BYTES_MAX, MIRROR_COPIES_MAX, SAMPLE_BLOCKS_MAX},
    units::{ExtentId, len_u64},
};
use bytes::{Buf, BufMut};

/// Bytes of a slot.
pub const SLOT_BYTES: usize = 64 << 10;
const MAGIC: &[u8; 8] = b"CDPMIRST";
const VERSION: u32 = 1;
const CRC_AT: usize = 8;
const LENGTH_AT: usize = 40;
const HEAD_LEN: usize = 104;
const REWRITE: u8 = 1;

/// How many copies must hold a write before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckPolicy {
    /// One.
    #[default]
    One,
    /// More than half of all copies of the set.
    Quorum,
    /// All copies of the set.
    All,
}

impl AckPolicy {
    /// Copies that must hold a write, of `copies` in the set.
    pub const fn needed(self, copies: usize) -> usize {
        match self {
            Self::One => 1,
            Self::Quorum => copies / 2 + 1,
            Self::All => copies,
        }
    }
}

/// One block whose content is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleEntry {
    /// Block of 4 KiB.
    pub block: u64,
    /// Digest of its content.
    pub digest: u64,
}

/// What is recorded of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRecord {
    /// Its number, never used again.
    pub number: u32,
    /// Its identity, which its map carries.
    pub id: Uuid,
    /// It takes writes.
    pub online: bool,
    /// It failed: what it reads back need not be durable, so what its map names is written without being compared.
    pub rewrite: bool,
    /// Its line of writes.
    pub generations: Generations,
    /// The extent of its map.
    pub map: ExtentId,
    /// Stamp of the last change, where the copy was left in good order and has one.
    pub stamp: Option<u64>,
    /// For a copy that is offline, blocks as it was left with; else the sample of the set holds.
    pub sample: Vec<SampleEntry>,
    /// Where the host finds it, at most [`LOCATOR_BYTES_MAX`] bytes.
    pub locator: String,
}

/// The state of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecord {
    /// Identity of the set.
    pub set: Uuid,
    /// Raised with each update.
    pub sequence: u64,
    /// Size of the volume and granularity of the maps.
    pub shape: Shape,
    /// When a write is acknowledged.
    pub ack: AckPolicy,
    /// The set was closed: nothing was in flight.
    pub clean: bool,
    /// Raised at each open for writing; the maps carry it as their generation.
    pub session: u64,
    /// The next extent to make.
    pub next_extent: u64,
    /// The next number of a copy.
    pub next_number: u32,
    /// The extent of the activity log.
    pub log: ExtentId,
    /// Key of the digests of samples.
    pub digest_key: u64,
    /// Blocks that all online copies held when they were last written, and that were not written since.
    pub sample: Vec<SampleEntry>,
    /// The copies, by number.
    pub copies: Vec<CopyRecord>,
}

fn put_sample(out: &mut Vec<u8>, sample: &[SampleEntry]) {
    for entry in sample {
        out.put_u64_le(entry.block);
        out.put_u64_le(entry.digest);
    }
}

fn take_sample(input: &mut &[u8], count: usize, blocks: u64) -> Result<Vec<SampleEntry>, Malformed> {
    if count > SAMPLE_BLOCKS_MAX {
        return Err(Malformed("mirror state: too many samples"));
    }
    let entry = |_| {
        let entry = SampleEntry { block: input.try_get_u64_le()?, digest: input.try_get_u64_le()? };
        if entry.block < blocks { Ok(entry) } else { Err(Malformed("mirror state: a sample past the end")) }
    };
    (0..count).map(entry).collect()
}

fn take_flag(input: &mut &[u8]) -> Result<bool, Malformed> {
    match input.try_get_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("mirror state: a flag")),
    }
}

impl CopyRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.number);
        out.put_u8(if self.online { 1 } else { 2 });
        out.put_u8(if self.rewrite { REWRITE } else { 0 });
        out.put_u16_le(u16::try_from(self.locator.len()).expect("locators are bounded"));
        out.put_slice(&self.id.0);
        out.put_u64_le(self.map.get());
        out.put_u8(u8::from(self.stamp.is_some()));
        self.stamp.iter().for_each(|stamp| out.put_u64_le(*stamp));
        self.generations.encode(out);
        out.put_u16_le(u16::try_from(self.sample.len()).expect("samples are bounded"));
        put_sample(out, &self.sample);
        out.put_slice(self.locator.as_bytes());
    }

    fn decode(input: &mut &[u8], blocks: u64) -> Result<Self, Malformed> {
        let number = input.try_get_u32_le()?;
        let online = match input.try_get_u8()? {
            1 => true,
            2 => false,
            _ => return Err(Malformed("mirror state: state of a copy")),
        };
        let flags = input.try_get_u8()?;
        let locator_len = usize::from(input.try_get_u16_le()?);
        if flags & !REWRITE != 0 || locator_len > LOCATOR_BYTES_MAX {
            return Err(Malformed("mirror state: flags or locator of a copy"));
        }
        let id = take_uuid(input)?;
        let map = ExtentId::new(take_counter(input)?);
        let stamp = if take_flag(input)? { Some(input.try_get_u64_le()?) } else { None };
        let generations = Generations::decode(input)?;
        let count = usize::from(input.try_get_u16_le()?);
        let sample = take_sample(input, count, blocks)?;
        let locator = std::str::from_utf8(take(input, locator_len)?);
        let locator = locator.map_err(|_| Malformed("mirror state: locator is not UTF-8"))?.to_owned();
        let rewrite = flags & REWRITE != 0;
        Ok(Self { number, id, online, rewrite, generations, map, stamp, sample, locator })
    }
}

impl StateRecord {
    /// The bytes for slot `slot`, padded to 4 KiB.
    ///
    /// # Panics
    /// When there is more than the bounds allow, which the set does not let happen.
    pub fn encode(&self, slot: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.put_slice(MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(VERSION);
        out.put_slice(&self.set.0);
        out.put_u64_le(self.sequence);
        out.put_u32_le(0);
        out.put_u32_le(slot);
        out.put_u64_le(self.shape.bytes());
        out.put_u32_le(u32::try_from(self.shape.granularity().bytes()).expect("at most 1 MiB"));
        out.put_u8(match self.ack {
            AckPolicy::One => 1,
            AckPolicy::Quorum => 2,
            AckPolicy::All => 3,
        });
        out.put_u8(u8::from(self.clean));
        out.put_u16_le(u16::try_from(self.copies.len()).expect("copies are bounded"));
        out.put_u64_le(self.session);
        out.put_u64_le(self.next_extent);
        out.put_u32_le(self.next_number);
        out.put_u32_le(u32::try_from(self.sample.len()).expect("samples are bounded"));
        out.put_u64_le(self.log.get());
        out.put_u64_le(self.digest_key);
        assert_eq!(out.len(), HEAD_LEN);
        put_sample(&mut out, &self.sample);
        self.copies.iter().for_each(|copy| copy.encode(&mut out));
        assert!(out.len() <= SLOT_BYTES, "the bounds of limits.rs fit a slot");
        let len = u32::try_from(out.len()).expect("at most a slot");
        out[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&len.to_le_bytes());
        let crc = crc_around(&out, CRC_AT);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        out.resize(out.len().next_multiple_of(crate::format::PAGE_LEN), 0);
        out
    }

    /// Reads slot `slot`. What lies behind the record is not looked at.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8], slot: u32) -> Result<Self, Malformed> {
        let head = bytes.get(..HEAD_LEN).ok_or(Malformed("mirror state: too short"))?;
        let len = u32::from_le_bytes(head[LENGTH_AT..LENGTH_AT + 4].try_into().expect("four bytes"));
        let whole = usize::try_from(len).ok().and_then(|len| bytes.get(..len.min(SLOT_BYTES + 1)));
        let whole = whole.filter(|whole| (HEAD_LEN..=SLOT_BYTES).contains(&whole.len()));
        let whole = whole.ok_or(Malformed("mirror state: length"))?;
        let mut input = whole;
        if take(&mut input, 8)? != MAGIC {
            return Err(Malformed("mirror state: no magic"));
        }
        if input.try_get_u32_le()? != crc_around(whole, CRC_AT) {
            return Err(Malformed("mirror state: checksum"));
        }
        if input.try_get_u32_le()? != VERSION {
            return Err(Malformed("mirror state: unknown version"));
        }
        let set = take_uuid(&mut input)?;
        let sequence = take_counter(&mut input)?;
        take(&mut input, 4)?;
        if input.try_get_u32_le()? != slot {
            return Err(Malformed("mirror state: slot at the wrong place"));
        }
        let (bytes, granularity) = (input.try_get_u64_le()?, input.try_get_u32_le()?);
        let shape =
            Granularity::new(granularity.into()).and_then(|granularity| Shape::new(bytes, granularity));
        let shape = shape.map_err(|_| Malformed("mirror state: impossible size or granularity"))?;
        let ack = match input.try_get_u8()? {
            1 => AckPolicy::One,
            2 => AckPolicy::Quorum,
            3 => AckPolicy::All,
            _ => return Err(Malformed("mirror state: acknowledgement")),
        };
        let clean = take_flag(&mut input)?;
        let count = usize::from(input.try_get_u16_le()?);
        if count == 0 || count > MIRROR_COPIES_MAX {
            return Err(Malformed("mirror state: number of copies"));
        }
        let session = take_counter(&mut input)?;
        let next_extent = take_counter(&mut input)?;
        let next_number = input.try_get_u32_le()?;
        let samples = usize::try_from(input.try_get_u32_le()?).unwrap_or(usize::MAX);
        let log = ExtentId::new(take_counter(&mut input)?);
        let digest_key = input.try_get_u64_le()?;
        let blocks = shape.bytes().div_ceil(crate::units::BLOCK_BYTES);
        let sample = take_sample(&mut input, samples, blocks)?;
        let copies: Vec<CopyRecord> =
            (0..count).map(|_| CopyRecord::decode(&mut input, blocks)).collect::<Result<_, _>>()?;
        let rising = copies.windows(2).all(|pair| pair[0].number < pair[1].number);
        let extents: std::collections::BTreeSet<ExtentId> =
            copies.iter().map(|copy| copy.map).chain([log]).collect();
        let own = |id: &ExtentId| (1..next_extent).contains(&id.get());
        if !input.is_empty()
            || !rising
            || copies.last().is_some_and(|last| last.number >= next_number)
            || len_u64(extents.len()) != len_u64(count) + 1
            || !extents.iter().all(own)
        {
            return Err(Malformed("mirror state: numbers of copies or extents"));
        }
        Ok(Self {
            set,
            sequence,
            shape,
            ack,
            clean,
            session,
            next_extent,
            next_number,
            log,
            digest_key,
            sample,
            copies,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(copies: u32, samples: usize, locator: usize) -> StateRecord {
        let sample = |from: u64| {
            (from..from + len_u64(samples))
                .map(|block| SampleEntry { block, digest: !block })
                .collect::<Vec<_>>()
        };
        let copy = |number: u32| {
            let mut generations = Generations::first(u64::from(number));
            (0..20).for_each(|tag| generations.rotate(tag, &[]).unwrap());
            CopyRecord {
                number,
                id: Uuid([u8::try_from(number).unwrap(); 16]),
                online: number != 1,
                rewrite: number == 2,
                generations,
                map: ExtentId::new(u64::from(number) + 2),
                stamp: (number == 0).then_some(u64::MAX),
                sample: if number == 1 { sample(3) } else { Vec::new() },
                locator: "x".repeat(locator),
            }
        };
        StateRecord {
            set: Uuid([7; 16]),
            sequence: 9,
            shape: Shape::new(1 << 30, Granularity::MIN).unwrap(),
            ack: AckPolicy::Quorum,
            clean: true,
            session: 3,
            next_extent: 100,
            next_number: copies,
            log: ExtentId::new(1),
            digest_key: 5,
            sample: sample(0),
            copies: (0..copies).map(copy).collect(),
        }
    }

    /// Goal: what is written is read, up to the bounds. Method: small and largest records, both slots.
    #[test]
    fn records_are_read_as_they_were_written() {
        let most = u32::try_from(MIRROR_COPIES_MAX).unwrap();
        for record in [record(1, 0, 0), record(3, 5, 20), record(most, SAMPLE_BLOCKS_MAX, LOCATOR_BYTES_MAX)]
        {
            for slot in 0..2 {
                let bytes = record.encode(slot);
                assert_eq!(StateRecord::decode(&bytes, slot), Ok(record.clone()));
                assert!(StateRecord::decode(&bytes, 1 - slot).is_err());
            }
        }
        let mut many = record(most, 0, 0).encode(0);
        many[62..64].copy_from_slice(&u16::MAX.to_le_bytes());
        let crc = crc_around(&many[..usize::from(u16::from_le_bytes([many[40], many[41]]))], CRC_AT);
        many[8..12].copy_from_slice(&crc.to_le_bytes());
        assert!(StateRecord::decode(&many, 0).is_err(), "one past the bound");
    }

    /// Goal: no bytes make the decoder panic or take what was not written. Method: every bit flipped, every cut, and every byte changed with the checksum
    /// made right again.
    #[test]
    fn damaged_records_are_refused() {
        let record = record(3, 2, 9);
        let bytes = record.encode(0);
        let len = usize::try_from(u32::from_le_bytes(bytes[40..44].try_into().unwrap())).unwrap();
        for end in 0..len {
            assert!(StateRecord::decode(&bytes[..end], 0).is_err());
        }
        for at in 0..len {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(StateRecord::decode(&flipped, 0).is_err(), "byte {at}");
                let crc = crc_around(&flipped[..len], CRC_AT);
                flipped[8..12].copy_from_slice(&crc.to_le_bytes());
                let _ = StateRecord::decode(&flipped, 0);
            }
        }
    }
}
