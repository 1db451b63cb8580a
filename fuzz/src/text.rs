//! Texts: traces, policies, points, times, durations, sizes.

use cdp_core::{
    BookmarkKind, Point,
    limits::{POLICY_WINDOWS_MAX, TRACE_LINE_BYTES_MAX, WRITE_BYTES_MAX},
    retention::{NamePattern, Policy},
    text::{format_duration, format_size, format_time, parse_duration, parse_size, parse_time},
    trace::{TraceFormat, TraceOp, TraceReader},
    units::TimeNs,
};

fn trace(data: &[u8], format: TraceFormat) {
    let mut last = TimeNs::ZERO;
    for line in TraceReader::new(data, format) {
        let Ok(line) = line else { return };
        assert!(line.time >= last, "times ascend");
        last = line.time;
        if let Some((offset, length)) = line.op.range() {
            assert!(
                offset % 512 == 0 && length % 512 == 0 && length > 0 && offset.checked_add(length).is_some()
            );
            assert!(!matches!(line.op, TraceOp::Write { .. }) || length <= WRITE_BYTES_MAX);
        }
        assert!(line.volume.len() <= TRACE_LINE_BYTES_MAX);
    }
}

pub fn trace_csv(data: &[u8]) {
    trace(data, TraceFormat::Csv);
}

pub fn trace_csv_seeds() -> Vec<Vec<u8>> {
    [
        "1767225600000000000,disk,0,4096\n1767225600000000001,disk,4096,512,write\n",
        "5,disk,0,1048576,zero\n5,disk,512,1024,discard\n6,disk,0,0,flush\n7,other,,,bookmark:before-1\n",
        "1,disk,0,16777216\r\n2,disk,18446744073709551104,512\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub fn trace_msr(data: &[u8]) {
    trace(data, TraceFormat::Msr);
}

pub fn trace_msr_seeds() -> Vec<Vec<u8>> {
    [
        "128166372003061629,hm,0,Write,383496192,32768,113736\n128166372003061700,hm,0,Read,1,2,3\n",
        "128166372016853991,prxy,1,Write,511,1,0\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn policy(policy: &Policy) {
    policy.validate().expect("a policy that was read is valid");
    assert!(policy.windows.len() <= POLICY_WINDOWS_MAX);
    assert_eq!(Policy::from_toml(&policy.to_toml()).as_ref().ok(), Some(policy));
    assert_eq!(Policy::from_json(&policy.to_json()).as_ref().ok(), Some(policy));
}

pub fn policy_toml(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Policy::from_text(text);
        if let Ok(read) = Policy::from_toml(text) {
            policy(&read);
        }
    }
}

const POLICY_TOML: &str = r#"on_shortage = "stop"
max_age = "28d"
max_bytes = "2T"

[[window]]
to = "24h"
keep = "all"

[[window]]
to = "48h"
keep = { every = "4h", per_slot = 2, prefer = ["app", "fs"] }
bookmarks = "all"

[[window]]
to = "28d"
keep = "none"
bookmarks = { kinds = ["app"], types = ["postgresql"], names = ["daily-*"] }
"#;

pub fn policy_toml_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![POLICY_TOML.as_bytes().to_vec(), Policy::default().to_toml().into_bytes()];
    seeds.extend(Policy::from_toml(POLICY_TOML).map(|policy| policy.to_toml().into_bytes()));
    seeds
}

pub fn policy_json(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(read) = Policy::from_json(text)
    {
        policy(&read);
    }
}

pub fn policy_json_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Policy::default().to_json().into_bytes()];
    seeds.extend(Policy::from_toml(POLICY_TOML).map(|policy| policy.to_json().into_bytes()));
    seeds
}

pub fn text(data: &[u8]) {
    if let Some(bytes) = data.first_chunk() {
        let number = u64::from_le_bytes(*bytes);
        assert_eq!(parse_time(&format_time(TimeNs::new(number))).ok(), Some(TimeNs::new(number)));
        assert_eq!(parse_duration(&format_duration(number)).ok(), Some(number));
        assert_eq!(parse_size(&format_size(number)).ok(), Some(number));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(time) = parse_time(text) {
        assert_eq!(parse_time(&format_time(time)).ok(), Some(time));
    }
    if let Ok(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&format_duration(duration)).ok(), Some(duration));
    }
    if let Ok(size) = parse_size(text) {
        assert_eq!(parse_size(&format_size(size)).ok(), Some(size));
    }
    if let Ok(point) = text.parse::<Point>() {
        assert_eq!(point.to_string().parse::<Point>().ok(), Some(point));
    }
    if let Ok(kind) = text.parse::<BookmarkKind>() {
        assert_eq!(kind.to_string(), text);
    }
    let (pattern, name) = text.split_at(text.floor_char_boundary(text.len() / 2));
    if let Ok(pattern) = NamePattern::new(pattern) {
        let _ = pattern.matches(name);
    }
}

pub fn text_seeds() -> Vec<Vec<u8>> {
    [
        "2026-01-02T03:04:05.123456789Z",
        "2262-04-11T23:47:16Z",
        "250ms",
        "4h",
        "28d",
        "512",
        "64K",
        "1G",
        "16E",
        "latest",
        "oldest",
        "seq:18446744073709551615",
        "time:1970-01-01T00:00:00Z",
        "bookmark:a.b-c_d",
        "bookmark-latest:app",
        "bookmark-before:2026-01-31T12:00:00.5Z:fs",
        "user",
        "daily-*daily-07",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
