//! Random calls of the C interface: see `support/drive.rs`. `CDP_TEST_SEED=N` runs one row of them; `CDP_TEST_SCALE=full` runs many.

#[path = "support/drive.rs"]
mod drive;

/// Rows of calls, by day and at night.
const ROWS: (u64, u64) = (300, 5_000);
/// Bytes that decide one row.
const BYTES: usize = 2048;

/// The bytes of a seed: a generator by Vigna (splitmix64), which needs no more than a counter.
fn bytes_of(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    (0..BYTES / 8).flat_map(|_| next().to_le_bytes()).collect()
}

/// Goal: no row of calls, however wrong, ends in a crash, a panic or a status without a name, and nothing that was lent is kept. Method: random
/// rows by seed; a failure names its own.
#[test]
fn no_row_of_calls_does_harm() {
    let one = std::env::var("CDP_TEST_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let full = std::env::var("CDP_TEST_SCALE").as_deref() == Ok("full");
    let rows = if full { ROWS.1 } else { ROWS.0 };
    let seeds = one.map_or(0..rows, |seed| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| drive::drive(&bytes_of(seed)));
        assert!(outcome.is_ok(), "CDP_TEST_SEED={seed}");
    }
}
