//! Times, durations and sizes as people write them.
//!
//! - time: RFC 3339 in UTC, `2026-01-02T03:04:05.123456789Z`, up to nine decimals;
//! - duration: a whole number and a unit, `250ms`, `4h`, `28d` (`ns us ms s m h d w`);
//! - size: bytes, or a whole number and a binary unit, `512`, `64K`, `1G`, `1GiB` (`K M G T P`).
//!
//! Invariant *exact*: every value of `u64` that a form can express is read and written without rounding, and what
//! `format_*` writes `parse_*` reads back as the same value. Anything else is refused: the error names the text, says what
//! is wrong with it and shows a form that is accepted.

use crate::{Error, Result, units::TimeNs};
use std::time::{Duration, UNIX_EPOCH};

const TIME_EXAMPLE: &str = "2026-01-02T03:04:05.123456789Z";
const DURATION_EXAMPLE: &str = "250ms, 4h or 28d";
const SIZE_EXAMPLE: &str = "512, 64K or 1G";
/// Length of a time without decimals: `2026-01-02T03:04:05Z`.
const TIME_LEN_MIN: usize = 20;
/// Where the decimals of a time begin, their point included.
const FRACTION_AT: usize = 19;
const FRACTION_DIGITS_MAX: usize = 9;
/// How much of a wrong text an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// Units of a duration, largest first: suffix and nanoseconds.
const DURATION_UNITS: [(&str, u64); 8] = [
    ("w", 7 * 24 * 3600 * 1_000_000_000),
    ("d", 24 * 3600 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of a size, largest first: letter and power of two.
const SIZE_UNITS: [(&str, u32); 5] = [("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];

/// Reads a time such as `2026-01-02T03:04:05.123456789Z`.
///
/// # Errors
/// `InvalidArgument` for any other form, and for times before 1970 or after what 64 bits of nanoseconds hold (the
/// year 2554). Leap seconds are refused, because they have no place of their own in the count of nanoseconds.
pub fn parse_time(text: &str) -> Result<TimeNs> {
    let bad = |reason: &str| refuse("time", text, reason, TIME_EXAMPLE);
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < TIME_LEN_MIN {
        return Err(bad("is not of the form YYYY-MM-DDTHH:MM:SS[.decimals]Z"));
    }
    if bytes.last() != Some(&b'Z') {
        return Err(bad("must end in Z (UTC)"));
    }
    let fraction = &bytes[FRACTION_AT..bytes.len() - 1];
    match fraction {
        [] => {}
        [b'.'] => return Err(bad("has a decimal point without decimals")),
        [b'.', digits @ ..] if digits.len() > FRACTION_DIGITS_MAX => {
            return Err(bad("has more than nine decimals"));
        }
        [b'.', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {}
        _ => return Err(bad("has something other than decimals after the seconds")),
    }
    if &bytes[17..FRACTION_AT] == b"60" {
        return Err(bad("names a leap second; name the second before or after it"));
    }
    let time = humantime::parse_rfc3339(text).map_err(|source| bad(&format!("is not a time: {source}")))?;
    let since_epoch = time.duration_since(UNIX_EPOCH).map_err(|_| bad("lies before 1970"))?;
    let nanoseconds = u64::try_from(since_epoch.as_nanos()).map_err(|_| bad("lies after the year 2554"))?;
    Ok(TimeNs::new(nanoseconds))
}

/// Writes a time in the form that [`parse_time`] reads, with as many decimals as it needs.
pub fn format_time(time: TimeNs) -> String {
    let mut text = humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(time.get())).to_string();
    text.truncate(text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.').len());
    text.push('Z');
    text
}

/// Reads a duration such as `250ms`, `4h` or `28d`, as nanoseconds.
///
/// # Errors
/// `InvalidArgument` for any other form and for more than 64 bits of nanoseconds (584 years).
pub fn parse_duration(text: &str) -> Result<u64> {
    let bad = |reason: &str| refuse("duration", text, reason, DURATION_EXAMPLE);
    let (digits, unit) = split_number(text);
    let number = parse_number(digits).map_err(bad)?;
    if unit.is_empty() {
        return Err(bad("has no unit (ns, us, ms, s, m, h, d or w)"));
    }
    let (_, factor) = DURATION_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| bad("has an unknown unit (known: ns, us, ms, s, m, h, d, w)"))?;
    number.checked_mul(*factor).ok_or_else(|| bad("is longer than 584 years"))
}

/// Writes a duration given in nanoseconds, in the largest unit up to days that expresses it exactly.
pub fn format_duration(nanoseconds: u64) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let fits = |(_, factor): &&(&str, u64)| nanoseconds.is_multiple_of(*factor);
    // Weeks are read but not written: "28d" says more to most people than "4w".
    let (unit, factor) = DURATION_UNITS[1..].iter().find(fits).expect("every number is a multiple of one");
    format!("{}{unit}", nanoseconds / factor)
}

/// Reads a size such as `512`, `64K`, `1G` or `1GiB`, as bytes. Units are powers of 1024.
///
/// # Errors
/// `InvalidArgument` for any other form and for more than 64 bits of bytes.
pub fn parse_size(text: &str) -> Result<u64> {
    let bad = |reason: &str| refuse("size", text, reason, SIZE_EXAMPLE);
    let (digits, unit) = split_number(text);
    let number = parse_number(digits).map_err(bad)?;
    let shift = match unit {
        "" => 0,
        _ => {
            let letter = unit.strip_suffix("iB").unwrap_or(unit);
            let known = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(letter));
            known.ok_or_else(|| bad("has an unknown unit (known: K, M, G, T, P, powers of 1024)"))?.1
        }
    };
    number.checked_mul(1 << shift).ok_or_else(|| bad("is more than 64 bits of bytes"))
}

/// Writes a size in bytes, in the largest unit that expresses it exactly.
pub fn format_size(bytes: u64) -> String {
    let exact = |(_, shift): &&(&str, u32)| bytes != 0 && bytes.trailing_zeros() >= *shift;
    match SIZE_UNITS.iter().find(exact) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// Splits after the leading digits.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn parse_number(digits: &str) -> Result<u64, &'static str> {
    if digits.is_empty() {
        return Err("does not begin with a whole number");
    }
    digits.parse().map_err(|_| "is a number of more than 64 bits")
}

fn refuse(kind: &str, text: &str, reason: &str, example: &str) -> Error {
    let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    Error::InvalidArgument(format!("{kind} {shown:?} {reason}; write it like {example}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NANOSECONDS_A_SECOND: u64 = 1_000_000_000;

    /// Goal: known instants are read and written exactly. Method: a table with the ends of the range and leap days.
    #[test]
    fn times_are_exact_at_both_ends_of_the_range() {
        for (text, nanoseconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000000001Z", 1),
            ("1970-01-01T00:00:00.1Z", NANOSECONDS_A_SECOND / 10),
            ("2000-02-29T00:00:00Z", 951_782_400 * NANOSECONDS_A_SECOND),
            ("2026-01-02T03:04:05.123456789Z", 1_767_323_045_123_456_789),
            ("2400-02-29T23:59:59.999999999Z", 13_574_649_599_999_999_999),
            ("2554-07-21T23:34:33.709551615Z", u64::MAX),
        ] {
            assert_eq!(parse_time(text).unwrap().get(), nanoseconds, "{text}");
            assert_eq!(format_time(TimeNs::new(nanoseconds)), text);
        }
        assert_eq!(
            parse_time("2026-01-02T03:04:05.500000000Z").unwrap(),
            parse_time("2026-01-02T03:04:05.5Z").unwrap()
        );
    }

    /// Goal: every other spelling is refused with an example. Method: one text for each rule, among them one past
    /// each bound.
    #[test]
    fn times_of_any_other_form_are_refused() {
        for text in [
            "",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05+00:00",
            "2026-01-02T03:04:05z",
            "2026-01-02 03:04:05Z",
            "2026-01-02t03:04:05Z",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05.1234567890Z",
            "2026-01-02T03:04:05.12+4Z",
            "2026-01-02T03:04:05,5Z",
            "2026-01-02T03:04:60Z",
            "2026-01-02T03:60:05Z",
            "2026-01-02T24:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "1969-12-31T23:59:59.999999999Z",
            "2554-07-21T23:34:33.709551616Z",
            "9999-12-31T23:59:59Z",
            "2026-01-02T03:04:05Z ",
            " 2026-01-02T03:04:05Z",
            "2026-01-02T03:04:0\u{661}Z",
            "+026-01-02T03:04:05Z",
        ] {
            let message = parse_time(text).expect_err(text).to_string();
            assert!(message.contains(TIME_EXAMPLE), "{message}");
        }
    }

    /// Goal: durations are read exactly up to the bound, and refused one past it. Method: a table.
    #[test]
    fn durations_take_a_whole_number_and_a_unit() {
        for (text, nanoseconds) in [
            ("0s", 0),
            ("1ns", 1),
            ("7us", 7_000),
            ("250ms", 250_000_000),
            ("30s", 30 * NANOSECONDS_A_SECOND),
            ("5m", 300 * NANOSECONDS_A_SECOND),
            ("4h", 14_400 * NANOSECONDS_A_SECOND),
            ("28d", 28 * 86_400 * NANOSECONDS_A_SECOND),
            ("2w", 14 * 86_400 * NANOSECONDS_A_SECOND),
            ("18446744073709551615ns", u64::MAX),
        ] {
            assert_eq!(parse_duration(text).unwrap(), nanoseconds, "{text}");
        }
        for text in [
            "",
            "s",
            "4",
            "4 h",
            "4H",
            "1.5h",
            "-1s",
            "+1s",
            "1h30m",
            "4x",
            "18446744073709551616ns",
            "30501w",
            "1\u{b5}s",
        ] {
            let message = parse_duration(text).expect_err(text).to_string();
            assert!(message.contains(DURATION_EXAMPLE), "{message}");
        }
        assert_eq!(format_duration(28 * 86_400 * NANOSECONDS_A_SECOND), "28d");
        assert_eq!(format_duration(90 * NANOSECONDS_A_SECOND), "90s");
    }

    /// Goal: sizes are read exactly up to the bound, and refused one past it. Method: a table.
    #[test]
    fn sizes_take_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("64K", 65_536),
            ("64KiB", 65_536),
            ("64k", 65_536),
            ("3M", 3 << 20),
            ("1G", 1 << 30),
            ("2T", 2 << 40),
            ("16383P", 16_383 << 50),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in [
            "",
            "K",
            "1.5G",
            "-1",
            "+1",
            "1 G",
            "1KB",
            "1B",
            "1iB",
            "16384P",
            "18446744073709551616",
            "1E",
            "0x10",
        ] {
            let message = parse_size(text).expect_err(text).to_string();
            assert!(message.contains(SIZE_EXAMPLE), "{message}");
        }
        assert_eq!(format_size(1 << 30), "1G");
        assert_eq!(format_size(1536), "1536");
        assert_eq!(format_size(0), "0");
    }

    /// Goal: an error never repeats an unbounded text. Method: a text of a megabyte.
    #[test]
    fn errors_repeat_only_the_beginning_of_a_long_text() {
        let message = parse_size(&"x".repeat(1 << 20)).expect_err("not a size").to_string();
        assert!(message.len() < 300, "{}", message.len());
    }

    proptest! {
        /// Goal: every value survives a round trip. Method: random values over the whole range.
        #[test]
        fn every_value_reads_back_as_it_was_written(value in any::<u64>(), shift in 0_u32..64) {
            let value = value >> shift;
            prop_assert_eq!(parse_time(&format_time(TimeNs::new(value))).unwrap().get(), value);
            prop_assert_eq!(parse_duration(&format_duration(value)).unwrap(), value);
            prop_assert_eq!(parse_size(&format_size(value)).unwrap(), value);
        }

        /// Goal: no text makes a reader panic. Method: random texts, and random changes of a valid one.
        #[test]
        fn no_text_panics(text in ".{0,40}", at in 0_usize..30, with in any::<char>()) {
            let mut changed: Vec<char> = TIME_EXAMPLE.chars().collect();
            changed[at] = with;
            for text in [text, changed.into_iter().collect()] {
                let _ = (parse_time(&text), parse_duration(&text), parse_size(&text));
            }
        }
    }
}
