//! The table of a flat device: which extent is in which slots. Encoding and decoding alone.
//!
//! Layout of the device, little-endian, everything aligned to 4096:
//! - *header* (offset 0, 4096 bytes): magic `CDPFLAT1`, version u32, CRC u32 of the 4096 bytes around itself, format id u64, slot bytes u64, slots u32,
//!   reserved u32; the rest zero. Written once.
//! - *two tables*, of [`Shape::table_bytes`] each, which hold the same but for the moment between two writes;
//! - *slots*, all of one size.
//!
//! A table: magic `CDPFLATT`, version u32, CRC u32 of `length` bytes around itself, format id u64, sequence u64, length u64, extents u32, reserved u32;
//! then for each extent, by ascending number: number u64, size u64, slots u32, reserved u32, and the numbers of its slots in order, u32 each.
//!
//! Invariants, checked when a table is read: no extent twice; no slot twice and none that there is not; as many slots as the size needs.

use super::super::IO_ALIGN;
use crate::{
    format::digest::crc_around,
    units::{len_u64, to_len},
};
use std::{collections::BTreeMap, io};

const HEADER_MAGIC: &[u8; 8] = b"CDPFLAT1";
const TABLE_MAGIC: &[u8; 8] = b"CDPFLATT";
const VERSION: u32 = 1;
const CRC_AT: usize = 12;
const TABLE_HEAD: usize = 48;
const EXTENT_HEAD: usize = 24;
/// Extents there may be beyond one for each slot: those of no bytes.
const EXTENTS_EXTRA: u64 = 16;
/// Most slots of a device; more do not make sense with a table that is written as a whole.
pub(super) const SLOTS_MAX: u64 = 1 << 16;
/// Sizes of slots, bytes.
pub(super) const SLOT_BYTES: std::ops::RangeInclusive<u64> = len_u64(IO_ALIGN)..=1 << 36;

/// How a device is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Tells this formatting from an earlier one.
    pub id: u64,
    pub slot_bytes: u64,
    pub slots: u32,
}

/// One extent: its size, and where its bytes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub bytes: u64,
    pub slots: Vec<u32>,
}

/// What is on the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub sequence: u64,
    pub extents: BTreeMap<u64, Record>,
}

impl Shape {
    /// Bytes of one table.
    pub fn table_bytes(&self) -> u64 {
        let slots = u64::from(self.slots);
        let bytes = len_u64(TABLE_HEAD) + (slots + EXTENTS_EXTRA) * len_u64(EXTENT_HEAD) + slots * 4;
        bytes.next_multiple_of(len_u64(IO_ALIGN))
    }

    /// Most extents.
    pub fn extents_max(&self) -> usize {
        to_len(u64::from(self.slots) + EXTENTS_EXTRA)
    }

    /// Where a table begins.
    pub fn table_at(&self, which: u32) -> u64 {
        len_u64(IO_ALIGN) + u64::from(which) * self.table_bytes()
    }

    /// Where a slot begins.
    pub fn slot_at(&self, slot: u32) -> u64 {
        self.table_at(2) + u64::from(slot) * self.slot_bytes
    }

    /// Slots that a size needs.
    pub fn slots_for(&self, bytes: u64) -> usize {
        to_len(bytes.div_ceil(self.slot_bytes))
    }

    /// The most slots for which there is room on a device.
    pub fn slots_on(slot_bytes: u64, device_bytes: u64) -> u32 {
        let fits = |slots: u32| Self { id: 0, slot_bytes, slots }.slot_at(slots) <= device_bytes;
        let most = u32::try_from((device_bytes / slot_bytes).min(SLOTS_MAX)).unwrap_or(u32::MAX);
        // The table takes a small part of the device, which a few steps find.
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if fits(middle) { low = middle } else { high = middle - 1 }
        }
        low
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; IO_ALIGN];
        bytes[..8].copy_from_slice(HEADER_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.slot_bytes.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.slots.to_le_bytes());
        let crc = crc_around(&bytes, CRC_AT);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// # Errors
    /// `NotFound` when this is no header; `InvalidData` when it is one that is damaged, of another version, or does not fit the device.
    pub fn decode(bytes: &[u8], device_bytes: u64) -> io::Result<Self> {
        if bytes.get(..8) != Some(HEADER_MAGIC) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the device was not made a flat storage"));
        }
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let mut input = Input { bytes, at: 8 };
        let (version, crc) = (input.u32(), input.u32());
        if crc != Some(crc_around(bytes, CRC_AT)) {
            return Err(invalid("the header of the flat storage is damaged"));
        }
        if version != Some(VERSION) {
            return Err(invalid("the flat storage has a format that this version does not know"));
        }
        let shape = (|| Some(Self { id: input.u64()?, slot_bytes: input.u64()?, slots: input.u32()? }))();
        let shape = shape.filter(|shape| {
            SLOT_BYTES.contains(&shape.slot_bytes)
                && shape.slot_bytes.is_multiple_of(len_u64(IO_ALIGN))
                && (1..=SLOTS_MAX).contains(&shape.slots.into())
        });
        match shape {
            Some(shape) if shape.slot_at(shape.slots) <= device_bytes => Ok(shape),
            Some(_) => Err(invalid("the device is smaller than when it was made a flat storage")),
            None => Err(invalid("the header of the flat storage makes no sense")),
        }
    }
}

/// Bytes that are read in order.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(N)?)?;
        self.at += N;
        taken.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

impl Table {
    /// The bytes up to the last that matters, in whole blocks.
    pub fn encode(&self, shape: &Shape) -> Vec<u8> {
        let mut body = Vec::new();
        for (number, extent) in &self.extents {
            body.extend_from_slice(&number.to_le_bytes());
            body.extend_from_slice(&extent.bytes.to_le_bytes());
            let slots = u32::try_from(extent.slots.len()).expect("there are fewer slots than that");
            body.extend_from_slice(&slots.to_le_bytes());
            body.extend_from_slice(&[0; 4]);
            extent.slots.iter().for_each(|slot| body.extend_from_slice(&slot.to_le_bytes()));
        }
        let length = TABLE_HEAD + body.len();
        assert!(len_u64(length) <= shape.table_bytes(), "extents and slots are bounded");
        let mut bytes = Vec::with_capacity(length.next_multiple_of(IO_ALIGN));
        bytes.extend_from_slice(TABLE_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&shape.id.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&len_u64(length).to_le_bytes());
        let extents = u32::try_from(self.extents.len()).expect("extents are bounded");
        bytes.extend_from_slice(&extents.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&body);
        let crc = crc_around(&bytes, CRC_AT);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes.resize(length.next_multiple_of(IO_ALIGN), 0);
        bytes
    }

    /// The table in these bytes; `None` for anything but a whole one of this formatting.
    pub fn decode(bytes: &[u8], shape: &Shape) -> Option<Self> {
        let mut input = Input { bytes, at: 0 };
        if &input.take::<8>()? != TABLE_MAGIC || input.u32()? != VERSION {
            return None;
        }
        let crc = input.u32()?;
        if input.u64()? != shape.id {
            return None;
        }
        let sequence = input.u64()?;
        let length = usize::try_from(input.u64()?).ok().filter(|length| *length >= TABLE_HEAD)?;
        let whole = bytes.get(..length)?;
        if crc != crc_around(whole, CRC_AT) {
            return None;
        }
        let count = input.u32()?;
        let reserved = input.u32()?;
        input.bytes = whole;
        let mut taken = vec![false; to_len(shape.slots.into())];
        let mut extents = BTreeMap::<u64, Record>::new();
        for _ in 0..count {
            let (number, size, slots) = (input.u64()?, input.u64()?, input.u32()?);
            let is_next = extents.last_key_value().is_none_or(|(last, _)| *last < number);
            let needed = size.div_ceil(shape.slot_bytes);
            if !is_next || input.u32()? != 0 || u64::from(slots) != needed || slots > shape.slots {
                return None;
            }
            let mut own = Vec::with_capacity(to_len(slots.into()));
            for _ in 0..slots {
                let slot = input.u32()?;
                if std::mem::replace(taken.get_mut(to_len(slot.into()))?, true) {
                    return None;
                }
                own.push(slot);
            }
            extents.insert(number, Record { bytes: size, slots: own });
        }
        (reserved == 0 && input.at == length && extents.len() <= shape.extents_max())
            .then_some(Self { sequence, extents })
    }
}
