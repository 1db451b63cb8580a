//! RFC 3339 UTC with nanoseconds, written from the calendar's definition, so that the tool's own reading and
//! writing of times is checked against something else.

const NANOSECONDS: u64 = 1_000_000_000;

/// 2026-01-01T00:00:00Z, where the traces of these tests begin.
pub const START: u64 = 1_767_225_600 * NANOSECONDS;

/// The time as `2026-01-02T03:04:05.000000006Z`.
pub fn format_time(nanoseconds: u64) -> String {
    let (seconds, fraction) = (nanoseconds / NANOSECONDS, nanoseconds % NANOSECONDS);
    let mut days = seconds / 86_400;
    let mut year = 1970;
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_in_month(year, month) {
        days -= days_in_month(year, month);
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z", days + 1)
}

/// The inverse of [`format_time`], for any number of decimals up to nine.
pub fn parse_time(text: &str) -> u64 {
    let body = text.strip_suffix('Z').unwrap_or_else(|| panic!("`{text}` is not a UTC time"));
    let (date, clock) = body.split_once('T').unwrap_or_else(|| panic!("`{text}` has no `T`"));
    let numbers =
        |part: &str, by: char| part.split(by).map(|n| n.parse::<u64>().expect("digits")).collect::<Vec<_>>();
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let (date, clock) = (numbers(date, '-'), numbers(clock, ':'));
    assert!(date.len() == 3 && clock.len() == 3 && fraction.len() <= 9, "`{text}` is not RFC 3339");
    let days = (1970..date[0]).map(days_in_year).sum::<u64>()
        + (1..date[1]).map(|month| days_in_month(date[0], month)).sum::<u64>()
        + date[2]
        - 1;
    let seconds = days * 86_400 + clock[0] * 3600 + clock[1] * 60 + clock[2];
    seconds * NANOSECONDS + format!("{fraction:0<9}").parse::<u64>().expect("digits")
}

/// The time in a field of a JSON document.
#[track_caller]
pub fn time_in(field: &serde_json::Value) -> u64 {
    parse_time(field.as_str().unwrap_or_else(|| panic!("{field} is not a time")))
}

/// The machine's clock.
pub fn now() -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock after 1970");
    clock.as_secs() * NANOSECONDS + u64::from(clock.subsec_nanos())
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_year(year: u64) -> u64 {
    if leap(year) { 366 } else { 365 }
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Goal: the tests' own clock arithmetic is right. Method: known instants, and there and back at many others.
#[test]
fn times_are_written_and_read_as_rfc_3339() {
    assert_eq!(format_time(0), "1970-01-01T00:00:00.000000000Z");
    assert_eq!(format_time(START), "2026-01-01T00:00:00.000000000Z");
    assert_eq!(format_time(951_782_400 * NANOSECONDS + 7), "2000-02-29T00:00:00.000000007Z");
    assert_eq!(parse_time("2026-01-01T00:00:01.5Z"), START + 1_500_000_000);
    for step in 0..5000 {
        let time = step * 86_399_123_456_789 + step;
        assert_eq!(parse_time(&format_time(time)), time);
    }
}
