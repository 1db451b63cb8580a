//! Content for the writes of a replayed trace.
//!
//! Layout of a stamp, [`STAMP_BYTES`] bytes, repeated over the whole range:
//!
//! | bytes | content |
//! |---|---|
//! | 0..8 | absolute byte offset on the volume of these 16 bytes, little endian |
//! | 8..16 | 1-based number of the line among the counted lines, little endian |
//!
//! So what a restored image must contain follows from the trace alone.

use crate::{Error, Result, units::len_u64};
use std::str::FromStr;

/// Length of one stamp, bytes.
pub const STAMP_BYTES: usize = 16;

/// What the writes of a replay contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Every 16 bytes name where they are and which line wrote them.
    Stamp,
    /// Noise that does not compress; the same for the same line and place.
    Random,
    /// Zeroes.
    Zero,
}

impl FromStr for Fill {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "stamp" => Ok(Self::Stamp),
            "random" => Ok(Self::Random),
            "zero" => Ok(Self::Zero),
            _ => Err(Error::InvalidArgument("fill is unknown; write stamp, random or zero".to_owned())),
        }
    }
}

impl Fill {
    /// Fills `buf` with what line number `counted` writes at byte `offset` of the volume.
    ///
    /// `offset` and the length of `buf` are multiples of [`STAMP_BYTES`].
    ///
    /// # Panics
    /// When `buf` is not a multiple of [`STAMP_BYTES`] long.
    pub fn fill(self, offset: u64, counted: u64, buf: &mut [u8]) {
        assert_eq!(buf.len() % STAMP_BYTES, 0, "writes are whole sectors, so stamps divide them");
        match self {
            Self::Stamp => stamp(offset, counted, buf),
            Self::Random => random(offset, counted, buf),
            Self::Zero => buf.fill(0),
        }
    }
}

fn stamp(offset: u64, counted: u64, buf: &mut [u8]) {
    let (stamps, _) = buf.as_chunks_mut::<STAMP_BYTES>();
    let counted = counted.to_le_bytes();
    let mut place = offset;
    for stamp in stamps {
        stamp[..8].copy_from_slice(&place.to_le_bytes());
        stamp[8..].copy_from_slice(&counted);
        place = place.wrapping_add(len_u64(STAMP_BYTES));
    }
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA'14), one step for each 8 bytes.
fn random(offset: u64, counted: u64, buf: &mut [u8]) {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64| {
        let state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ state >> 31
    };
    let mut state = mix(offset ^ mix(counted));
    let (words, _) = buf.as_chunks_mut::<8>();
    for word in words {
        state = state.wrapping_add(STEP);
        *word = mix(state).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a stamp is what the contract says, byte for byte. Method: a slow reader of the layout, with numbers that use
    /// all 64 bits.
    #[test]
    fn stamps_name_their_place_and_line() {
        let mut buf = vec![0xff; 4096];
        for (offset, counted) in [(0, 1), (512, 2), (u64::MAX - 4095, u64::MAX)] {
            Fill::Stamp.fill(offset, counted, &mut buf);
            for (index, stamp) in buf.chunks(STAMP_BYTES).enumerate() {
                let place = u64::from_le_bytes(stamp[..8].try_into().unwrap());
                assert_eq!(place, offset + 16 * index as u64);
                assert_eq!(u64::from_le_bytes(stamp[8..].try_into().unwrap()), counted);
            }
        }
    }

    /// Goal: noise depends on place and line, and is not repeated within a write. Method: compare neighbours.
    #[test]
    fn random_fill_differs_by_place_and_line() {
        let fill = |offset, counted| {
            let mut buf = vec![0; 8192];
            Fill::Random.fill(offset, counted, &mut buf);
            buf
        };
        assert_eq!(fill(512, 7), fill(512, 7));
        assert_ne!(fill(512, 7), fill(1024, 7));
        assert_ne!(fill(512, 7), fill(512, 8));
        let buf = fill(512, 7);
        assert_ne!(buf[..4096], buf[4096..]);
        let mut zeroes = vec![1; 512];
        Fill::Zero.fill(0, 1, &mut zeroes);
        assert!(zeroes.iter().all(|byte| *byte == 0));
    }
}
