//! Damage to a store, chosen by the input: a row of ten-byte operations.

use crate::pages::seal;
use cdp_core::{
    format::PAGE_LEN,
    io::{AlignedBuf, Storage},
    limits::{FRAME_BYTES_MAX, MANIFEST_RECORD_BYTES_MAX},
    units::ExtentId,
};

/// Bytes of one operation: kind, extent, place (4), value (4).
const OPERATION_LEN: usize = 10;
/// Operations of one input.
const OPERATIONS_MAX: usize = 16;

/// The files of a store.
pub type Files = Vec<(ExtentId, Vec<u8>)>;

/// Damages the files as the input says. Returns whether a checksum was put right afterwards: then other content than
/// what was written is no surprise.
pub fn mutate(files: &mut Files, data: &[u8]) -> bool {
    let mut forged = false;
    for operation in data.chunks_exact(OPERATION_LEN).take(OPERATIONS_MAX) {
        if files.is_empty() {
            break;
        }
        let file = usize::from(operation[1]) % files.len();
        let number = |at: usize| u32::from_le_bytes(operation[at..at + 4].try_into().expect("four bytes"));
        let (place, value) = (number(2), number(6));
        let source = files[usize::from(operation[6]) % files.len()].1.clone();
        forged |= damage(&mut files[file].1, operation[0] % 12, place, value, &source);
        if operation[0] % 12 == 11 {
            files.remove(file);
        }
    }
    forged
}

fn damage(bytes: &mut Vec<u8>, kind: u8, place: u32, value: u32, source: &[u8]) -> bool {
    let place = usize::try_from(place).expect("small");
    let at = place % bytes.len().max(1);
    let pages = bytes.len() / PAGE_LEN;
    match kind {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << (value % 8),
        1 if !bytes.is_empty() => {
            let end = bytes.len().min(at + usize::try_from(value % 5000).expect("small"));
            bytes[at..end].fill(value.to_le_bytes()[3]);
        }
        2 => bytes.truncate(at),
        3 => bytes.truncate(at / 512 * 512),
        4 if bytes.len() < 1 << 20 => bytes.resize(bytes.len() + at % 100_000, value.to_le_bytes()[0]),
        // A page from elsewhere: misdirected or stale.
        5 if pages > 0 && source.len() >= PAGE_LEN => {
            let from = usize::try_from(value >> 8).expect("small") % (source.len() / PAGE_LEN) * PAGE_LEN;
            let to = place % pages * PAGE_LEN;
            bytes[to..to + PAGE_LEN].copy_from_slice(&source[from..from + PAGE_LEN]);
        }
        6 if pages > 0 => {
            let to = place % pages * PAGE_LEN;
            bytes[to..to + PAGE_LEN].fill(0);
        }
        // A field of a structure, with a right checksum.
        7..=10 if pages > 0 => {
            let page = place % pages * PAGE_LEN;
            let field = page + place / pages % 512 * 8;
            let old = u64::from_le_bytes(bytes[field..field + 8].try_into().expect("eight bytes"));
            let new = match kind {
                7 => old ^ 1 << (value % 64),
                8 => old.wrapping_add(u64::from(value % 16)).wrapping_sub(8),
                9 => [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 62, (1 << 62) - 1, 1 << 32, 0, 4096]
                    [usize::try_from(value % 8).expect("small")],
                _ => u64::from(value) << (value % 33),
            };
            bytes[field..field + 8].copy_from_slice(&new.to_le_bytes());
            return seal_structure(bytes, page);
        }
        _ => {}
    }
    false
}

/// Puts the right checksum on the structure that holds this page, if it is one.
fn seal_structure(bytes: &mut [u8], page: usize) -> bool {
    for start in (0..=page).rev().step_by(PAGE_LEN) {
        let found = &bytes[start..];
        let long = start < page;
        if !long
            && [b"CDPSTORE", b"CDPSEGMT", b"CDPMANIF", b"CDPFTABL"]
                .iter()
                .any(|magic| found.starts_with(*magic))
        {
            seal(&mut bytes[start..start + PAGE_LEN], 8);
            return true;
        }
        if !long && found.starts_with(b"CIX1") {
            seal(&mut bytes[start..start + PAGE_LEN], 4);
            return true;
        }
        let word = |at: usize| {
            let word =
                found.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes);
            usize::try_from(word).expect("small").saturating_mul(PAGE_LEN)
        };
        if found.starts_with(b"MREC") {
            let len = word(44);
            if len == 0 || len > found.len().min(MANIFEST_RECORD_BYTES_MAX) {
                return false;
            }
            seal(&mut bytes[start..start + len], 4);
            return true;
        }
        if found.starts_with(b"CDPF") && !found.starts_with(b"CDPFTABL") {
            let tail_at = PAGE_LEN.saturating_add(word(108));
            let end = tail_at.saturating_add(word(112));
            if end > found.len().min(FRAME_BYTES_MAX) {
                return false;
            }
            let mut covered = [&found[..PAGE_LEN], &found[tail_at..end]].concat();
            seal(&mut covered, 4);
            bytes[start..start + PAGE_LEN].copy_from_slice(&covered[..PAGE_LEN]);
            return true;
        }
    }
    false
}

/// Writes the files to a storage.
pub fn load(storage: &dyn Storage, files: &Files) {
    for (extent, bytes) in files {
        let handle = storage.create(*extent, 0).expect("an empty storage takes extents");
        let mut buffer = AlignedBuf::new(bytes.len()).expect("memory");
        buffer[..bytes.len()].copy_from_slice(bytes);
        let whole = bytes.len().next_multiple_of(PAGE_LEN);
        handle.write_at(0, &buffer[..whole]).expect("memory takes writes");
        handle.set_size(bytes.len() as u64).expect("memory takes sizes");
    }
}
