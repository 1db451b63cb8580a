//! Typed entries <-> packed words. The typed form is for the edges of the index; inside, everything is packed.
//!
//! Fails only for values that no store can hold: a block past the largest volume, a seq or extent number past 2^63.

use super::{Cell, Content, Entry, Key};
use crate::{
    error::{Error, Result},
    format::packed::{
        BLOCK_END, KIND_DISCARDED, KIND_ZERO, LEVEL_MAX, NUMBER_END, PackedContent, PackedEntry, PackedKey,
        SECTOR_BITS,
    },
    units::{Block, ExtentId, Seq, VolumeId},
};

/// The packed form of an entry.
///
/// # Errors
/// `InvalidArgument` when the entry breaks a rule of [`Entry`].
pub(super) fn pack(entry: &Entry) -> Result<PackedEntry> {
    let (cell, seq) = (entry.key.cell(), entry.key.seq().get());
    let packed = (cell.block.get() < BLOCK_END && cell.level <= LEVEL_MAX && seq < NUMBER_END)
        .then(|| PackedKey::new(entry.key.volume.get(), cell.block.get(), cell.level, seq))
        .and_then(|key| Some(PackedEntry { key, content: pack_content(entry)? }))
        .filter(|packed| packed.check().is_ok());
    packed.ok_or_else(|| Error::InvalidArgument(format!("not an index entry: {entry:?}")))
}

fn pack_content(entry: &Entry) -> Option<PackedContent> {
    match entry.content {
        Content::Data { segment, sector, digest } => (sector >> SECTOR_BITS == 0)
            .then(|| PackedContent::data(segment.get(), sector, entry.mask, digest)),
        Content::Zero => Some(PackedContent::empty(KIND_ZERO, entry.mask)),
        Content::Discarded => Some(PackedContent::empty(KIND_DISCARDED, entry.mask)),
    }
}

/// The entry of checked words.
pub(crate) fn unpack(packed: &PackedEntry) -> Entry {
    let content = match packed.content.kind() {
        KIND_ZERO => Content::Zero,
        KIND_DISCARDED => Content::Discarded,
        _ => Content::Data {
            segment: ExtentId::new(packed.content.segment),
            sector: packed.content.sector(),
            digest: packed.content.digest,
        },
    };
    Entry { key: unpack_key(packed.key), mask: packed.content.mask(), content }
}

/// The key of checked words.
pub(super) fn unpack_key(packed: PackedKey) -> Key {
    let cell = Cell { block: Block::new(packed.block()), level: packed.level() };
    Key::new(VolumeId::new(packed.volume()), cell, Seq::new(packed.seq()))
}

/// The packed form of any key, those that no entry has included: they keep their place in the order.
pub(super) fn pack_key(key: &Key) -> PackedKey {
    let (block, level) = (key.block.get(), key.level.0.min(LEVEL_MAX));
    if block >= BLOCK_END {
        let after = PackedKey::new(key.volume.get(), BLOCK_END - 1, 0, 0);
        return PackedKey { cell: after.cell, age: u64::MAX };
    }
    PackedKey::new(key.volume.get(), block, level, key.seq().get())
}
