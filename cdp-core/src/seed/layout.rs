//! The bytes of a seed set: plan, manifest, data files and their batches. Pure.
//!
//! ```text
//! plan (extent 0) and manifest (extent 1), padded with zeroes to 4 KiB:
//!   0 magic "CDPSEEDM"   8 crc of everything, padding included   12 version (1)   16 length (u32)   20 kind (u32: 1 plan, 2 manifest)
//!  24 set uuid (16)   40 store uuid (16)   56 most bytes of a data file   64 volume id (u16), flags (u16: 1 since)   68 data files (u32)
//!  72 the state; with flag 1 the state that it goes on from; the volume's name; then the data files
//! state: lineage, seq, time, volume bytes (u64 each)
//! data file: number drawn for it (u64), bytes, first and end byte on the volume, batches (u32), 0 (u32), digest of what follows its head (u128)
//!
//! data file n (extent 2 + n): a head of 4 KiB, then batches
//!   0 magic "CDPSEEDD"   8 crc of the head   12 version (1)   16 set uuid   32 n (u32)   36 0 (u32)   40 the data file as in the manifest   then zeroes
//!
//! batch, padded with zeroes to 4 KiB:
//!   0 magic "CDPB"   4 crc of the 80 bytes   8 number drawn for the file   16 n of the batch (u32)   20 flags (u32: 1 lz4)   24 stored length (u32)
//!  28 unpacked length (u32)   32 extents (u32)   36 0 (u32)   40 first and end byte on the volume (u64 each)   56 0 (u64)
//!  64 digest (u128) of what follows, padding included
//!  80 stored bytes, which unpack to: extents (offset u64, length u64 with the highest bit set for zeroes), then the data of the others
//! ```
//!
//! Every byte is covered by a checksum that is looked at before it is believed. Extents ascend without overlap within a batch, batches within a file,
//! files within a set. The decoders allocate nothing by a length that is not checked against the bounds of `limits.rs`.

use crate::{
    dirty_map::ByteRange,
    format::{
        Malformed, PAGE_LEN, Uuid, all_zero, digest::crc_around, put_text, take, take_counter, take_text,
        take_uuid,
    },
    limits::{
        NAME_BYTES_MAX, SEED_BATCH_BYTES_MAX, SEED_BATCH_EXTENTS_MAX, SEED_FILE_BYTES_MAX,
        SEED_FILE_BYTES_MIN, SEED_FILES_MAX, VOLUME_BYTES_MAX,
    },
    units::{Lineage, SECTOR_BYTES, Seq, TimeNs, VolumeId, len_u64, to_len},
};
use bytes::{Buf, BufMut};
use twox_hash::XxHash3_128;

const SET_MAGIC: &[u8; 8] = b"CDPSEEDM";
const FILE_MAGIC: &[u8; 8] = b"CDPSEEDD";
const BATCH_MAGIC: &[u8; 4] = b"CDPB";
const VERSION: u32 = 1;
const SET_CRC_AT: usize = 8;
const LENGTH_AT: usize = 16;
const SINCE: u16 = 1;
const LZ4: u32 = 1;
const ZEROES: u64 = 1 << 63;
const ENTRY_LEN: usize = 16;
/// Bytes of the head of a batch.
pub const BATCH_HEAD_LEN: usize = 80;
/// Most bytes of an unpacked batch: its extents and their data.
const UNPACKED_LEN_MAX: usize = SEED_BATCH_BYTES_MAX + SEED_BATCH_EXTENTS_MAX * ENTRY_LEN;
/// Most bytes of a batch in its file.
pub const BATCH_LEN_MAX: usize = (BATCH_HEAD_LEN + UNPACKED_LEN_MAX).next_multiple_of(PAGE_LEN);
/// Bytes of the entry of a data file.
const FILE_ENTRY_LEN: usize = 56;
/// Most bytes of a manifest.
pub const MANIFEST_LEN_MAX: usize = (512 + SEED_FILES_MAX * FILE_ENTRY_LEN).next_multiple_of(PAGE_LEN);

/// A state of a volume, by which it is recognised wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedState {
    /// The unbroken line of history that the seq belongs to: a seq that a crash took away and that was given again is of another one.
    pub lineage: Lineage,
    /// The state.
    pub seq: Seq,
    /// Its time.
    pub time: TimeNs,
    /// Size of the volume, bytes.
    pub bytes: u64,
}

/// What a seed set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedAbout {
    /// Identity of the set, drawn when its export began.
    pub set: Uuid,
    /// Identity of the store that it comes from.
    pub store: Uuid,
    /// The volume there.
    pub volume: VolumeId,
    /// Its name there.
    pub name: String,
    /// The state that the set leads to.
    pub at: SeedState,
    /// The state that it goes on from; `None`: a volume of zeroes.
    pub since: Option<SeedState>,
    /// Most bytes of a data file.
    pub file_bytes_max: u64,
}

/// A data file of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedFile {
    /// Drawn when the file was begun; its batches carry it.
    pub nonce: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// First byte on the volume that it has something for.
    pub first: u64,
    /// End of the last.
    pub end: u64,
    /// Batches in it.
    pub batches: u32,
    /// Digest of everything behind its head.
    pub digest: u128,
}

/// A plan, or with its data files the manifest of a whole set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedManifest {
    /// What the set holds.
    pub about: SeedAbout,
    /// Its data files in order; `None` while the export is under way.
    pub files: Option<Vec<SeedFile>>,
}

/// An extent of a batch: a range of the volume, and where its data begins in the batch; `None`: zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedExtent {
    /// The range.
    pub range: ByteRange,
    /// Where its data begins in the unpacked bytes.
    pub data_at: Option<usize>,
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The number drawn for the file that it is in.
    pub nonce: u64,
    /// Its place in the file, from 0.
    pub number: u32,
    /// First byte on the volume.
    pub first: u64,
    /// End of its last extent.
    pub end: u64,
    compressed: bool,
    stored: usize,
    unpacked: usize,
    extents: usize,
    digest: u128,
}

/// A batch, unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its extents, ascending.
    pub extents: Vec<SeedExtent>,
    unpacked: Vec<u8>,
}

/// An extent to be encoded: a range, and whether it is zeroes.
pub type NewExtent = (ByteRange, bool);

fn seal(bytes: &mut [u8], crc_at: usize) {
    let crc = crc_around(bytes, crc_at);
    bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Digest of stored bytes, for damage; it is no proof against somebody who changes them on purpose.
pub fn digest(bytes: &[u8]) -> u128 {
    XxHash3_128::oneshot(bytes)
}

fn take_zero(input: &mut &[u8], len: usize) -> Result<(), Malformed> {
    if all_zero(take(input, len)?) { Ok(()) } else { Err(Malformed("seed set: reserved bytes")) }
}

impl SeedState {
    fn encode(self, out: &mut Vec<u8>) {
        out.put_u64_le(self.lineage.get());
        out.put_u64_le(self.seq.get());
        out.put_u64_le(self.time.get());
        out.put_u64_le(self.bytes);
    }

    fn decode(input: &mut &[u8]) -> Result<Self, Malformed> {
        let state = Self {
            lineage: Lineage::new(take_counter(input)?),
            seq: Seq::new(take_counter(input)?),
            time: TimeNs::new(input.try_get_u64_le()?),
            bytes: input.try_get_u64_le()?,
        };
        let good = (1..=VOLUME_BYTES_MAX).contains(&state.bytes) && state.bytes.is_multiple_of(SECTOR_BYTES);
        if good { Ok(state) } else { Err(Malformed("seed set: impossible size of the volume")) }
    }
}

impl SeedFile {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.nonce);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.first);
        out.put_u64_le(self.end);
        out.put_u32_le(self.batches);
        out.put_u32_le(0);
        out.put_u128_le(self.digest);
    }

    fn decode(input: &mut &[u8], volume_bytes: u64) -> Result<Self, Malformed> {
        let mut take_u64 = || -> Result<u64, Malformed> { Ok(input.try_get_u64_le()?) };
        let (nonce, bytes, first, end) = (take_u64()?, take_u64()?, take_u64()?, take_u64()?);
        let batches = input.try_get_u32_le()?;
        take_zero(input, 4)?;
        let file = Self { nonce, bytes, first, end, batches, digest: input.try_get_u128_le()? };
        let pages = len_u64(PAGE_LEN);
        let room = (2 * pages..=SEED_FILE_BYTES_MAX + len_u64(BATCH_LEN_MAX)).contains(&bytes);
        let whole = room && bytes.is_multiple_of(pages) && u64::from(batches) < bytes / pages && batches > 0;
        if whole && first < end && end <= volume_bytes {
            Ok(file)
        } else {
            Err(Malformed("seed set: impossible data file"))
        }
    }
}

impl SeedManifest {
    /// The bytes, padded to 4 KiB.
    pub fn encode(&self) -> Vec<u8> {
        let (about, files) = (&self.about, self.files.as_deref());
        let mut out = Vec::new();
        out.put_slice(SET_MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(VERSION);
        out.put_u32_le(0);
        out.put_u32_le(if files.is_some() { 2 } else { 1 });
        out.put_slice(&about.set.0);
        out.put_slice(&about.store.0);
        out.put_u64_le(about.file_bytes_max);
        out.put_u16_le(about.volume.get());
        out.put_u16_le(if about.since.is_some() { SINCE } else { 0 });
        out.put_u32_le(u32::try_from(files.map_or(0, <[SeedFile]>::len)).expect("files are bounded"));
        about.at.encode(&mut out);
        about.since.iter().for_each(|state| state.encode(&mut out));
        put_text(&mut out, &about.name);
        files.into_iter().flatten().for_each(|file| file.encode(&mut out));
        let len = u32::try_from(out.len()).expect("a manifest is bounded");
        out[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&len.to_le_bytes());
        out.resize(out.len().next_multiple_of(PAGE_LEN), 0);
        seal(&mut out, SET_CRC_AT);
        out
    }

    /// Reads a plan or manifest: `bytes` is all of it, padding included.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let head = bytes.get(..LENGTH_AT + 4).ok_or(Malformed("seed set: too short"))?;
        if head[..8] != SET_MAGIC[..] {
            return Err(Malformed("seed set: no magic"));
        }
        let mut rest = &head[8..];
        if bytes.len() > MANIFEST_LEN_MAX || rest.try_get_u32_le()? != crc_around(bytes, SET_CRC_AT) {
            return Err(Malformed("seed set: checksum"));
        }
        if rest.try_get_u32_le()? != VERSION {
            return Err(Malformed("seed set: of a version that this program does not know"));
        }
        let len = usize::try_from(rest.try_get_u32_le()?).map_err(|_| Malformed("seed set: length"))?;
        if len.next_multiple_of(PAGE_LEN) != bytes.len() || !all_zero(&bytes[len..]) {
            return Err(Malformed("seed set: length"));
        }
        let mut input = bytes.get(LENGTH_AT + 4..len).ok_or(Malformed("seed set: length"))?;
        let kind = input.try_get_u32_le()?;
        let (set, store) = (take_uuid(&mut input)?, take_uuid(&mut input)?);
        let file_bytes_max = input.try_get_u64_le()?;
        let volume = VolumeId::new(input.try_get_u16_le()?);
        let flags = input.try_get_u16_le()?;
        let count =
            usize::try_from(input.try_get_u32_le()?).map_err(|_| Malformed("seed set: data files"))?;
        if !(1..=2).contains(&kind)
            || flags & !SINCE != 0
            || count > SEED_FILES_MAX
            || (kind == 1 && count > 0)
        {
            return Err(Malformed("seed set: kind, flags or number of data files"));
        }
        if !(SEED_FILE_BYTES_MIN..=SEED_FILE_BYTES_MAX).contains(&file_bytes_max) {
            return Err(Malformed("seed set: size of the data files"));
        }
        let at = SeedState::decode(&mut input)?;
        let since = if flags & SINCE != 0 { Some(SeedState::decode(&mut input)?) } else { None };
        if since.is_some_and(|since| since.seq > at.seq || since.time > at.time) {
            return Err(Malformed("seed set: it goes on from a later state"));
        }
        let name = take_text(&mut input, NAME_BYTES_MAX)?;
        if input.len() != count * FILE_ENTRY_LEN {
            return Err(Malformed("seed set: length"));
        }
        let mut files: Vec<SeedFile> = Vec::with_capacity(count);
        for _ in 0..count {
            let file = SeedFile::decode(&mut input, at.bytes)?;
            if files.last().is_some_and(|last| last.end > file.first) {
                return Err(Malformed("seed set: data files out of order"));
            }
            files.push(file);
        }
        let about = SeedAbout { set, store, volume, name, at, since, file_bytes_max };
        Ok(Self { about, files: (kind == 2).then_some(files) })
    }
}

/// The head of a data file.
pub fn encode_file_head(set: Uuid, number: u32, file: &SeedFile) -> Vec<u8> {
    let mut out = Vec::with_capacity(PAGE_LEN);
    out.put_slice(FILE_MAGIC);
    out.put_u32_le(0);
    out.put_u32_le(VERSION);
    out.put_slice(&set.0);
    out.put_u32_le(number);
    out.put_u32_le(0);
    file.encode(&mut out);
    out.resize(PAGE_LEN, 0);
    seal(&mut out, SET_CRC_AT);
    out
}

/// Reads the head of data file `number` of a set, for a volume of so many bytes.
///
/// # Errors
/// What is wrong with it.
pub fn decode_file_head(
    bytes: &[u8],
    set: Uuid,
    number: u32,
    volume_bytes: u64,
) -> Result<SeedFile, Malformed> {
    let bytes = bytes.get(..PAGE_LEN).ok_or(Malformed("seed file: too short"))?;
    let mut input = bytes;
    if take(&mut input, 8)? != FILE_MAGIC {
        return Err(Malformed("seed file: no magic"));
    }
    if input.try_get_u32_le()? != crc_around(bytes, SET_CRC_AT) {
        return Err(Malformed("seed file: checksum of the head"));
    }
    if input.try_get_u32_le()? != VERSION {
        return Err(Malformed("seed file: of a version that this program does not know"));
    }
    if take_uuid(&mut input)? != set || input.try_get_u32_le()? != number {
        return Err(Malformed("seed file: of another set, or another one of the same"));
    }
    take_zero(&mut input, 4)?;
    let file = SeedFile::decode(&mut input, volume_bytes)?;
    let rest = input.len();
    take_zero(&mut input, rest)?;
    Ok(file)
}

/// The bytes of a batch, padded to 4 KiB. `data` is that of the extents that are not zeroes, one after the other; `compress`: pack it where that saves a
/// page.
///
/// # Panics
/// When there is nothing in it, or more than the bounds allow.
pub fn encode_batch(nonce: u64, number: u32, extents: &[NewExtent], data: &[u8], compress: bool) -> Vec<u8> {
    assert!(
        !extents.is_empty() && extents.len() <= SEED_BATCH_EXTENTS_MAX && data.len() <= SEED_BATCH_BYTES_MAX
    );
    let mut unpacked = Vec::with_capacity(extents.len() * ENTRY_LEN + data.len());
    for (range, zeroes) in extents {
        unpacked.put_u64_le(range.offset);
        unpacked.put_u64_le(range.bytes | if *zeroes { ZEROES } else { 0 });
    }
    unpacked.put_slice(data);
    let in_pages = |len: usize| (BATCH_HEAD_LEN + len).next_multiple_of(PAGE_LEN);
    let packed = compress.then(|| lz4_flex::block::compress(&unpacked));
    let packed = packed.filter(|packed| in_pages(packed.len()) < in_pages(unpacked.len()));
    let stored = packed.as_deref().unwrap_or(&unpacked);
    let len_u32 = |len: usize| u32::try_from(len).expect("batches are bounded");
    let mut out = Vec::with_capacity(in_pages(stored.len()));
    out.put_slice(BATCH_MAGIC);
    out.put_u32_le(0);
    out.put_u64_le(nonce);
    out.put_u32_le(number);
    out.put_u32_le(if packed.is_some() { LZ4 } else { 0 });
    out.put_u32_le(len_u32(stored.len()));
    out.put_u32_le(len_u32(unpacked.len()));
    out.put_u32_le(len_u32(extents.len()));
    out.put_u32_le(0);
    out.put_u64_le(extents[0].0.offset);
    out.put_u64_le(extents[extents.len() - 1].0.end());
    out.put_u64_le(0);
    out.put_u128_le(0);
    out.put_slice(stored);
    out.resize(out.len().next_multiple_of(PAGE_LEN), 0);
    let digest = digest(&out[BATCH_HEAD_LEN..]);
    out[64..80].copy_from_slice(&digest.to_le_bytes());
    seal(&mut out[..BATCH_HEAD_LEN], 4);
    out
}

impl BatchHead {
    /// Reads the head of a batch.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = bytes.get(..BATCH_HEAD_LEN).ok_or(Malformed("seed batch: too short"))?;
        let mut input = bytes;
        if take(&mut input, 4)? != BATCH_MAGIC {
            return Err(Malformed("seed batch: no magic"));
        }
        if input.try_get_u32_le()? != crc_around(bytes, 4) {
            return Err(Malformed("seed batch: checksum of the head"));
        }
        let (nonce, number, flags) =
            (input.try_get_u64_le()?, input.try_get_u32_le()?, input.try_get_u32_le()?);
        let mut length = || -> Result<usize, Malformed> {
            usize::try_from(input.try_get_u32_le()?).map_err(|_| Malformed("seed batch: length"))
        };
        let (stored, unpacked, extents) = (length()?, length()?, length()?);
        take_zero(&mut input, 4)?;
        let (first, end) = (input.try_get_u64_le()?, input.try_get_u64_le()?);
        take_zero(&mut input, 8)?;
        let digest = input.try_get_u128_le()?;
        let compressed = flags == LZ4;
        let lengths = (1..=UNPACKED_LEN_MAX).contains(&stored)
            && unpacked <= UNPACKED_LEN_MAX
            && (if compressed { stored < unpacked } else { stored == unpacked });
        let counts = (1..=SEED_BATCH_EXTENTS_MAX).contains(&extents) && extents * ENTRY_LEN <= unpacked;
        if flags & !LZ4 != 0 || !lengths || !counts || first >= end || end > VOLUME_BYTES_MAX {
            return Err(Malformed("seed batch: impossible lengths"));
        }
        Ok(Self { nonce, number, first, end, compressed, stored, unpacked, extents, digest })
    }

    /// Bytes of the batch in its file.
    pub fn stored_len(&self) -> usize {
        (BATCH_HEAD_LEN + self.stored).next_multiple_of(PAGE_LEN)
    }

    /// Reads the rest of the batch: `bytes` is all of it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn unpack(&self, bytes: &[u8]) -> Result<Batch, Malformed> {
        let body = bytes.get(BATCH_HEAD_LEN..self.stored_len()).ok_or(Malformed("seed batch: too short"))?;
        if digest(body) != self.digest {
            return Err(Malformed("seed batch: digest"));
        }
        let (stored, padding) = body.split_at(self.stored);
        if !all_zero(padding) {
            return Err(Malformed("seed batch: padding"));
        }
        let unpacked = if self.compressed {
            let unpacked = lz4_flex::block::decompress(stored, self.unpacked);
            unpacked
                .ok()
                .filter(|bytes| bytes.len() == self.unpacked)
                .ok_or(Malformed("seed batch: packed bytes"))?
        } else {
            stored.to_vec()
        };
        let extents = self.take_extents(&unpacked)?;
        Ok(Batch { extents, unpacked })
    }

    fn take_extents(&self, unpacked: &[u8]) -> Result<Vec<SeedExtent>, Malformed> {
        let (mut input, mut extents) = (unpacked, Vec::with_capacity(self.extents));
        let (mut data_at, mut next) = (self.extents * ENTRY_LEN, self.first);
        for _ in 0..self.extents {
            let (offset, length) = (input.try_get_u64_le()?, input.try_get_u64_le()?);
            let (bytes, zeroes) = (length & !ZEROES, length & ZEROES != 0);
            let end = offset.checked_add(bytes).filter(|end| *end <= self.end);
            let aligned = offset.is_multiple_of(SECTOR_BYTES) && bytes.is_multiple_of(SECTOR_BYTES);
            let Some(end) = end.filter(|_| offset >= next && bytes > 0 && aligned) else {
                return Err(Malformed("seed batch: extents"));
            };
            let range = ByteRange::new(offset, bytes);
            if zeroes {
                extents.push(SeedExtent { range, data_at: None });
            } else {
                if bytes > len_u64(unpacked.len() - data_at) {
                    return Err(Malformed("seed batch: less data than its extents say"));
                }
                extents.push(SeedExtent { range, data_at: Some(data_at) });
                data_at += to_len(bytes);
            }
            next = end;
        }
        let starts = extents.first().is_some_and(|extent| extent.range.offset == self.first);
        if data_at == unpacked.len() && next == self.end && starts {
            Ok(extents)
        } else {
            Err(Malformed("seed batch: more data than its extents say"))
        }
    }
}

impl Batch {
    /// The data of an extent of it; `None`: zeroes.
    pub fn data(&self, extent: &SeedExtent) -> Option<&[u8]> {
        extent.data_at.map(|at| &self.unpacked[at..at + to_len(extent.range.bytes)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::simulated::SimRng;

    fn about(since: bool) -> SeedAbout {
        let state = |seq| SeedState {
            lineage: Lineage::new(2),
            seq: Seq::new(seq),
            time: TimeNs::new(seq * 10),
            bytes: 1 << 20,
        };
        SeedAbout {
            set: Uuid([1; 16]),
            store: Uuid([2; 16]),
            volume: VolumeId::new(3),
            name: "disk".into(),
            at: state(9),
            since: since.then(|| state(4)),
            file_bytes_max: SEED_FILE_BYTES_MIN,
        }
    }

    fn file(first: u64) -> SeedFile {
        SeedFile { nonce: 7, bytes: 8192, first, end: first + 4096, batches: 1, digest: 5 }
    }

    /// Goal: every bit of a plan, manifest and head of a file is covered by a checksum. Method: encode, decode, then each bit flipped and each cut.
    #[test]
    fn every_bit_of_a_manifest_and_of_a_file_head_counts() {
        for files in [None, Some(vec![]), Some(vec![file(0), file(4096)])] {
            let manifest = SeedManifest { about: about(files.is_some()), files };
            let bytes = manifest.encode();
            assert_eq!(SeedManifest::decode(&bytes), Ok(manifest));
            (0..bytes.len()).for_each(|end| assert!(SeedManifest::decode(&bytes[..end]).is_err(), "{end}"));
            for bit in 0..bytes.len() * 8 {
                let mut wrong = bytes.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(SeedManifest::decode(&wrong).is_err(), "bit {bit}");
            }
        }
        let (set, own) = (Uuid([1; 16]), file(0));
        let head = encode_file_head(set, 3, &own);
        assert_eq!(decode_file_head(&head, set, 3, 1 << 20), Ok(own));
        assert!(decode_file_head(&head, set, 2, 1 << 20).is_err(), "another place");
        assert!(decode_file_head(&head, Uuid([9; 16]), 3, 1 << 20).is_err(), "another set");
        assert!(decode_file_head(&head, set, 3, 2048).is_err(), "past the end of the volume");
        for bit in 0..head.len() * 8 {
            let mut wrong = head.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_file_head(&wrong, set, 3, 1 << 20).is_err(), "bit {bit}");
        }
    }

    /// Goal: a batch gives back its extents and data, packed or not, and every bit of it counts. Method: random extents, some of zeroes, some data that packs; each
    /// byte harmed.
    #[test]
    fn a_batch_is_what_was_put_into_it_or_an_error() {
        let mut rng = SimRng::new(11);
        for round in 0..20 {
            let (mut extents, mut data, mut at) = (Vec::new(), Vec::new(), rng.below(9) * 4096);
            for _ in 0..1 + rng.below(6) {
                let bytes = 512 * (1 + rng.below(12));
                let zeroes = rng.chance(0.3);
                extents.push((ByteRange::new(at, bytes), zeroes));
                if !zeroes {
                    let packs = rng.chance(0.5);
                    let byte = |rng: &mut SimRng| u8::try_from(rng.below(256)).unwrap();
                    let same = byte(&mut rng);
                    data.extend((0..bytes).map(|_| if packs { same } else { byte(&mut rng) }));
                }
                at += bytes + rng.below(3) * 4096;
            }
            let bytes = encode_batch(77, round, &extents, &data, rng.chance(0.7));
            let head = BatchHead::decode(&bytes).unwrap();
            assert_eq!((head.nonce, head.number, head.stored_len()), (77, round, bytes.len()));
            let batch = head.unpack(&bytes).unwrap();
            let mut next = 0;
            for (extent, (range, zeroes)) in batch.extents.iter().zip(&extents) {
                assert_eq!((extent.range, extent.data_at.is_none()), (*range, *zeroes));
                if let Some(found) = batch.data(extent) {
                    assert_eq!(found, &data[next..next + found.len()]);
                    next += found.len();
                }
            }
            assert_eq!((batch.extents.len(), next), (extents.len(), data.len()));
            for at in 0..bytes.len() {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1 << rng.below(8);
                let found = BatchHead::decode(&wrong).and_then(|head| head.unpack(&wrong));
                assert!(found.is_err(), "byte {at}");
            }
        }
    }

    /// Goal: the bounds are those of `limits.rs`. Method: a batch at each bound, and heads with right checksums one past it.
    #[test]
    fn a_batch_takes_its_bound_and_no_more() {
        let many: Vec<NewExtent> =
            (0..len_u64(SEED_BATCH_EXTENTS_MAX)).map(|at| (ByteRange::new(at * 1024, 512), true)).collect();
        let bytes = encode_batch(1, 0, &many, &[], false);
        let head = BatchHead::decode(&bytes).unwrap();
        assert_eq!(head.unpack(&bytes).unwrap().extents.len(), SEED_BATCH_EXTENTS_MAX);
        let full = vec![3; SEED_BATCH_BYTES_MAX];
        let bytes = encode_batch(1, 0, &[(ByteRange::new(0, len_u64(full.len())), false)], &full, false);
        assert!(BatchHead::decode(&bytes).unwrap().unpack(&bytes).is_ok() && bytes.len() <= BATCH_LEN_MAX);
        for (at, value) in [
            (24, UNPACKED_LEN_MAX + 1),
            (28, UNPACKED_LEN_MAX + 1),
            (32, SEED_BATCH_EXTENTS_MAX + 1),
            (32, 0),
        ] {
            let mut wrong = bytes.clone();
            wrong[at..at + 4].copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
            seal(&mut wrong[..BATCH_HEAD_LEN], 4);
            assert!(BatchHead::decode(&wrong).is_err(), "{at} {value}");
        }
    }
}
