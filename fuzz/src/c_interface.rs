//! The C interface: calls in an order that the input chooses, with wrong handles, lengths, flags and sizes of structs.

#[path = "../../cdp-ffi/tests/support/drive.rs"]
mod drive;

/// Calls as the input says.
pub fn calls(data: &[u8]) {
    drive::drive(data);
}

/// A few rows of bytes that are far apart.
pub fn seeds() -> Vec<Vec<u8>> {
    let row = |seed: u8| {
        (0..1024_u16).map(|at| at.to_le_bytes()[0].wrapping_mul(seed).wrapping_add(seed)).collect()
    };
    [3, 29, 61, 101, 157, 211].map(row).into()
}
