//! Every structure: round trips, each flipped bit, the bounds and one past them.

mod edits;
mod frames;
mod leaves;
mod metadata;
mod pages;

use super::Malformed;

/// Whether a decoder refuses every single flipped bit of bytes that it takes.
fn assert_flips_are_refused<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, Malformed>) {
    assert!(decode(bytes).is_ok(), "the bytes themselves are taken");
    let mut flipped = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&flipped).is_err(), "flipped bit {} of byte {}", bit % 8, bit / 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Whether a decoder refuses every cut of bytes that it takes.
fn assert_cuts_are_refused<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, Malformed>) {
    for cut in 0..bytes.len() {
        assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
}
