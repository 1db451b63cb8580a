//! Tests of the trace reader: meaning, bounds and one past them, and hostile input.

use super::*;
use proptest::prelude::*;
use std::io::Cursor;

fn read(text: impl AsRef<[u8]>, format: TraceFormat) -> Vec<Result<TraceLine>> {
    TraceReader::new(Cursor::new(text.as_ref().to_vec()), format).collect()
}

fn refused(text: impl AsRef<[u8]>, format: TraceFormat) -> String {
    let lines = read(text, format);
    lines.last().expect("a line").as_ref().expect_err("a refusal").to_string()
}

/// Goal: every op and the default are read, counted and numbered as the contract says. Method: a small trace.
#[test]
fn csv_lines_are_read_counted_and_numbered() {
    let text = "5,disk,0,512\n5,disk,1024,4096,write\r\n6,log,,,flush\n6,log,x,y,bookmark:b-1\n7,disk,0,1073741824,zero\n8,log,512,512,discard";
    let lines: Vec<TraceLine> = read(text, TraceFormat::Csv).into_iter().map(Result::unwrap).collect();
    let expected = [
        (1, 1, 5, "disk", TraceOp::Write { offset: 0, length: 512 }),
        (2, 2, 5, "disk", TraceOp::Write { offset: 1024, length: 4096 }),
        (3, 2, 6, "log", TraceOp::Flush),
        (4, 2, 6, "log", TraceOp::Bookmark("b-1".to_owned())),
        (5, 3, 7, "disk", TraceOp::Zero { offset: 0, length: 1 << 30 }),
        (6, 4, 8, "log", TraceOp::Discard { offset: 512, length: 512 }),
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, (line_number, counted, time, volume, op)) in lines.iter().zip(expected) {
        assert_eq!((line.line_number, line.counted, line.time.get()), (line_number, counted, time));
        assert_eq!((&*line.volume, &line.op), (volume, &op));
    }
}

/// Goal: the reader stops at the first bad line, names it, and still yields the lines before it. Method: a bad third line
/// for each rule.
#[test]
fn a_bad_line_is_named_and_ends_the_trace() {
    for (bad, reason) in [
        ("", "too few fields"),
        ("9,disk,0", "too few fields"),
        ("time_ns,volume,offset,length", "time_ns"),
        ("9,disk,0,512,write,", "too many fields"),
        ("9,disk,0,512,", "op"),
        ("9,disk,0,512,Write", "op"),
        ("9,disk,0,512,bookmark", "op"),
        ("9,disk,0,512,bookmark:", "bookmark"),
        ("+9,disk,0,512", "time_ns"),
        (" 9,disk,0,512", "time_ns"),
        ("-9,disk,0,512", "time_ns"),
        ("18446744073709551616,disk,0,512", "time_ns"),
        ("9,disk,x,512", "offset"),
        ("9,disk,0,0x200", "length"),
        ("9,disk,0,0", "length"),
        ("9,disk,0,0,zero", "length"),
        ("9,disk,1,512", "multiples"),
        ("9,disk,0,511,discard", "multiples"),
        ("9,disk,18446744073709551104,1024,zero", "64 bits"),
        ("4,disk,0,512", "decrease"),
    ] {
        let lines = read(format!("5,disk,0,512\n5,disk,0,512\n{bad}\n9,disk,0,512\n"), TraceFormat::Csv);
        assert_eq!(lines.len(), 3, "{bad}");
        let message = lines[2].as_ref().expect_err(bad).to_string();
        assert!(message.starts_with("line 3: ") && message.contains(reason), "{bad}: {message}");
    }
    assert!(refused(b"5,\xff,0,512\n", TraceFormat::Csv).starts_with("line 1: "));
}

/// Goal: the largest write, the longest line and the longest bookmark name are accepted, one past each is refused.
/// Method: both sides of each bound.
#[test]
fn bounds_hold_on_both_sides() {
    assert!(read(format!("1,d,0,{WRITE_BYTES_MAX}"), TraceFormat::Csv)[0].is_ok());
    assert!(
        refused(format!("1,d,0,{}", WRITE_BYTES_MAX + 512), TraceFormat::Csv).contains("more than a write")
    );

    let line = |bytes: usize| format!("1,{},0,512\n", "v".repeat(bytes - "1,,0,512\n".len()));
    assert!(read(line(TRACE_LINE_BYTES_MAX), TraceFormat::Csv)[0].is_ok());
    assert!(refused(line(TRACE_LINE_BYTES_MAX + 1), TraceFormat::Csv).contains("longer than"));
    assert!(refused(vec![b'1'; 1 << 20], TraceFormat::Csv).contains("line 1: is longer than"));

    let name = |bytes: usize| format!("1,d,,,bookmark:{}", "n".repeat(bytes));
    assert!(read(name(NAME_BYTES_MAX), TraceFormat::Csv)[0].is_ok());
    assert!(refused(name(NAME_BYTES_MAX + 1), TraceFormat::Csv).contains("bookmark"));
}

/// Goal: filetimes become Unix times, reads are skipped, ranges are rounded outward. Method: lines in the form of the
/// published traces.
#[test]
fn msr_lines_are_converted() {
    let text = "128166372003061629,src1,0,Read,383496192,32768,413\n\
                128166372016382155,src1,0,Write,2822144,4096,7\n\
                128166372016382156,src1,0,write,1000,100,7\r\n\
                128166372016382156,src1,1,Write,511,2,7\n";
    let lines: Vec<TraceLine> = read(text, TraceFormat::Msr).into_iter().map(Result::unwrap).collect();
    let time = (128_166_372_016_382_155 - 116_444_736_000_000_000) * 100;
    assert_eq!(lines.len(), 3);
    assert_eq!((lines[0].line_number, lines[0].counted, lines[0].time.get()), (2, 1, time));
    assert_eq!(lines[0].op, TraceOp::Write { offset: 2_822_144, length: 4096 });
    assert_eq!(lines[1].op, TraceOp::Write { offset: 512, length: 1024 });
    assert_eq!((lines[2].line_number, lines[2].counted, lines[2].time.get()), (4, 3, time + 100));
    assert_eq!(lines[2].op, TraceOp::Write { offset: 0, length: 1024 });
}

/// Goal: what an MSR line may not be is refused with its number. Method: one line for each rule, bounds included.
#[test]
fn msr_lines_that_make_no_sense_are_refused() {
    let last = u64::MAX / 100 + 116_444_736_000_000_000;
    assert!(read(format!("{last},h,0,Write,0,512,1"), TraceFormat::Msr)[0].is_ok());
    assert!(
        read(format!("116444736000000000,h,0,Write,1,{},1", WRITE_BYTES_MAX - 1), TraceFormat::Msr)[0]
            .is_ok()
    );
    for (bad, reason) in [
        (format!("{},h,0,Write,0,512,1", last + 1), "2554"),
        ("116444735999999999,h,0,Write,0,512,1".to_owned(), "1970"),
        ("128166372016382155,h,0,Trim,0,512,1".to_owned(), "type"),
        ("128166372016382155,h,0,Write,0,0,1".to_owned(), "size"),
        ("128166372016382155,h,0,Write,0,512".to_owned(), "fewer"),
        ("128166372016382155,h,0,Write,0,512,1,2".to_owned(), "more"),
        (format!("128166372016382155,h,0,Write,1,{WRITE_BYTES_MAX},1"), "more than a write"),
        (format!("128166372016382155,h,0,Write,{},512,1", u64::MAX), "64 bits"),
    ] {
        let message = refused(&bad, TraceFormat::Msr);
        assert!(message.starts_with("line 1: ") && message.contains(reason), "{bad}: {message}");
    }
}

/// Goal: a failing reader is reported as such and ends the trace. Method: a reader that fails after one line.
#[test]
fn an_error_of_the_reader_ends_the_trace() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("cable pulled"))
        }
    }
    let reader = std::io::BufReader::new(Cursor::new(b"1,d,0,512\n".to_vec()).chain(Failing));
    let lines: Vec<_> = TraceReader::new(reader, TraceFormat::Csv).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[1].as_ref().expect_err("failure").to_string().contains("cable pulled"));
}

prop_compose! {
    fn any_line()(time in any::<u64>(), volume in "[A-Za-z0-9._-]{1,20}", op in 0..5, at in 0_u64..1 << 40, sectors in 1_u64..=32768)
        -> (u64, String, TraceOp)
    {
        let (offset, length) = (at * 512, sectors * 512);
        let op = match op {
            0 => TraceOp::Write { offset, length },
            1 => TraceOp::Zero { offset, length: length * 1000 },
            2 => TraceOp::Discard { offset, length: length * 1000 },
            3 => TraceOp::Flush,
            _ => TraceOp::Bookmark(format!("b-{at}")),
        };
        (time, volume, op)
    }
}

proptest! {
    /// Goal: what is written as a trace reads back the same. Method: random lines in order of time.
    #[test]
    fn traces_read_back_as_they_were_written(mut lines in prop::collection::vec(any_line(), 0..40)) {
        lines.sort_by_key(|line| line.0);
        let mut text = String::new();
        for (time, volume, op) in &lines {
            let (offset, length) = op.range().unwrap_or_default();
            let name = match op {
                TraceOp::Write { .. } => "write".to_owned(),
                TraceOp::Zero { .. } => "zero".to_owned(),
                TraceOp::Discard { .. } => "discard".to_owned(),
                TraceOp::Flush => "flush".to_owned(),
                TraceOp::Bookmark(name) => format!("bookmark:{name}"),
            };
            text.push_str(&format!("{time},{volume},{offset},{length},{name}\n"));
        }
        let back = read(&text, TraceFormat::Csv);
        prop_assert_eq!(back.len(), lines.len());
        for (back, (time, volume, op)) in back.into_iter().zip(lines) {
            let back = back.unwrap();
            prop_assert_eq!((back.time.get(), &*back.volume, back.op), (time, volume.as_str(), op));
        }
    }

    /// Goal: no bytes make the reader panic or go on after an error. Method: random bytes rich in separators.
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(prop_oneof![Just(b','), Just(b'\n'), b'0'..=b'9', any::<u8>()], 0..400)) {
        for format in [TraceFormat::Csv, TraceFormat::Msr] {
            let lines = read(&bytes, format);
            prop_assert!(lines.iter().rev().skip(1).all(Result::is_ok));
        }
    }
}
