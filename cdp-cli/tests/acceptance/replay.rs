//! The meaning of traces: numbering, times, refusals, bad lines, the MSR format, fills.

use std::fs;

use crate::support::times::{START, format_time, time_in};
use crate::support::{Op, Random, Scene, Shape, Trace, cdp};

/// Goal: the n-th counted line has seq `first_seq + n - 1`, whatever stands between. Method: flushes and bookmarks
/// among the lines, in three replays; the bookmarks name the last seq before them.
#[test]
fn only_counted_lines_take_a_seq() {
    let mut random = Random::for_test("only_counted_lines_take_a_seq");
    let mut scene = Scene::new(&[("disk", 1 << 20)]);
    let mut start = START;
    for round in 0..3 {
        let mut shape = Shape::mixed(1 << 20, 100);
        (shape.flush_percent, shape.bookmark_percent, shape.start) = (20, 10, start);
        let mut trace = shape.generate(&mut random);
        for line in &mut trace.lines {
            if let Op::Bookmark(name) = &mut line.op {
                *name = format!("{round}-{name}");
            }
        }
        start = trace.lines.last().unwrap().time;
        let report = scene.replay(&trace);
        assert!(report["bytes"].as_u64().unwrap() >= trace.written_bytes(), "{report}");
    }
    let points = scene.points();
    let bookmarks = points["bookmarks"].as_array().unwrap();
    assert_eq!(bookmarks.len(), scene.oracle.bookmarks.len());
    for (name, time, seq) in &scene.oracle.bookmarks {
        let found = bookmarks.iter().find(|bookmark| bookmark["name"] == **name).unwrap();
        assert_eq!(found["seq"], *seq, "{found}");
        assert_eq!(time_in(&found["time"]), *time, "{found}");
        scene.assert_restores(&format!("bookmark:{name}"), "disk", *seq);
    }
}

/// Goal: a trace that starts before the newest write is refused whole; one that starts at it is not.
/// Method: exit 1 and an unchanged store; then an equal time.
#[test]
fn a_trace_that_starts_before_the_newest_write_is_refused() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    let mut trace = Trace::default();
    trace.write(START + 10, "disk", 0, 512);
    scene.replay(&trace);
    let mut late = Trace::default();
    late.write(START + 9, "disk", 512, 512);
    late.write(START + 11, "disk", 1024, 512);
    let file = scene.path("late.csv");
    late.save(&file);
    cdp!("replay", scene.store, file, "--fill", "stamp").exits(1);
    assert_eq!(scene.newest(), 1, "a refused trace wrote something");
    scene.assert_restores("latest", "disk", 1);
    let mut equal = Trace::default();
    equal.write(START + 10, "disk", 512, 512);
    scene.replay(&equal);
    scene.assert_restores("time:2026-01-01T00:00:00.00000001Z", "disk", 2);
}

/// Goal: a bad line stops the replay with its line number, and the lines before it stay.
/// Method: one valid beginning with uncounted lines in it, then each kind of bad line.
#[test]
fn a_bad_line_is_named_and_the_lines_before_it_stay() {
    let now = START + 100;
    let bad = [
        ("no columns", "hello".to_owned()),
        ("three columns", format!("{now},disk,0")),
        ("six columns", format!("{now},disk,0,512,write,more")),
        ("time is no number", "soon,disk,0,512".to_owned()),
        ("negative time", "-5,disk,0,512".to_owned()),
        ("negative offset", format!("{now},disk,-512,512")),
        ("unknown op", format!("{now},disk,0,512,erase")),
        ("unknown volume", format!("{now},tape,0,512")),
        ("offset not of 512", format!("{now},disk,100,512")),
        ("length not of 512", format!("{now},disk,0,100")),
        ("length of zero", format!("{now},disk,0,0")),
        ("longer than 16 MiB", format!("{now},big,0,{}", (16 << 20) + 512)),
        ("past the end", format!("{now},disk,65024,1024")),
        ("far past the end", format!("{now},disk,18446744073709551104,512")),
        ("sum overflows", format!("{now},disk,512,18446744073709551104,zero")),
        ("number too large", format!("{now},disk,99999999999999999999999,512")),
        ("zero past the end", format!("{now},disk,0,66048,zero")),
        ("discard not of 512", format!("{now},disk,0,1000,discard")),
        ("time steps back", format!("{},disk,0,512", START - 1)),
        ("bookmark without a name", format!("{now},disk,0,0,bookmark:")),
    ];
    for (what, line) in bad {
        let mut scene = Scene::new(&[("disk", 64 << 10), ("big", 64 << 20)]);
        let mut trace = Trace::default();
        for number in 0..4 {
            trace.write(START + number, "disk", number * 512, 1024);
        }
        trace.push(START + 4, "disk", Op::Bookmark("kept".to_owned()));
        trace.push(START + 4, "disk", Op::Flush);
        trace.push(START + 5, "disk", Op::Discard { offset: 0, length: 512 });
        let file = scene.path("bad.csv");
        fs::write(&file, format!("{}{line}\n{now},disk,0,512\n", trace.csv())).unwrap();
        println!("{what}: {line}");
        let ran = cdp!("replay", scene.store, file, "--fill", "stamp", "--json").exits(1);
        assert!(ran.stderr.contains('8'), "{what}: line 8 is not named:\n{}", ran.described());
        scene.oracle.replay(&trace, None);
        assert_eq!(scene.newest(), 5, "{what}: the lines before the bad one");
        scene.assert_restores("latest", "disk", 5);
        scene.assert_restores("bookmark:kept", "disk", 4);
    }
}

/// Goal: hostile trace files end in a clear refusal. Method: binary rubbish, an endless line, a missing file.
#[test]
fn rubbish_for_a_trace_is_refused() {
    let scene = Scene::new(&[("disk", 64 << 10)]);
    let file = scene.path("rubbish.csv");
    let mut bytes = vec![0; 1 << 20];
    Random::new(7).fill(&mut bytes);
    fs::write(&file, &bytes).unwrap();
    cdp!("replay", scene.store, file).exits(1);
    fs::write(&file, vec![b'1'; 64 << 20]).unwrap();
    let ran = cdp!("replay", scene.store, file).exits(1);
    assert!(ran.peak_resident_kib < 256 << 10, "an endless line took {} KiB", ran.peak_resident_kib);
    assert!(ran.stderr.len() < 64 << 10, "the message repeats the whole line");
    cdp!("replay", scene.store, scene.path("missing.csv")).exits(1);
    assert_eq!(scene.newest(), 0);
}

/// Goal: the smallest and the largest write, at the edges of the volume. Method: 512 B and 16 MiB, whole-volume zero.
#[test]
fn writes_from_512_bytes_to_16_mib_are_one_seq_each() {
    let bytes = (40 << 20) + 512;
    let mut scene = Scene::new(&[("disk", bytes)]);
    let mut trace = Trace::default();
    trace.write(START, "disk", bytes - 512, 512);
    trace.write(START + 1, "disk", 512, 16 << 20);
    trace.write(START + 2, "disk", bytes - (16 << 20), 16 << 20);
    trace.push(START + 3, "disk", Op::Zero { offset: 4096, length: 30 << 20 });
    trace.write(START + 4, "disk", 0, 16 << 20);
    trace.push(START + 5, "disk", Op::Discard { offset: 0, length: bytes });
    trace.write(START + 6, "disk", bytes - 1024, 1024);
    scene.replay(&trace);
    for seq in 0..=7 {
        scene.assert_restores(&format!("seq:{seq}"), "disk", seq);
    }
    scene.assert_sound();
}

/// Goal: `--volume` sends all lines to one volume. Method: lines that name volumes the store does not have.
#[test]
fn all_lines_can_be_sent_to_one_volume() {
    let mut scene = Scene::new(&[("disk", 64 << 10), ("other", 128 << 10)]);
    let mut trace = Trace::default();
    trace.write(START, "sda", 0, 4096);
    trace.write(START, "sdb", 100 << 10, 4096);
    let file = scene.path("trace.csv");
    trace.save(&file);
    cdp!("replay", scene.store, file, "--fill", "stamp").exits(1).says("sda");
    cdp!("replay", scene.store, file, "--fill", "stamp", "--volume", "other").succeeds();
    scene.oracle.replay(&trace, Some("other"));
    scene.assert_restores("latest", "other", 2);
    scene.assert_restores("latest", "disk", 2);
}

/// Goal: the MSR Cambridge format is read as the contract says. Method: reads skipped, ranges rounded outward,
/// Windows filetime turned into Unix time; compared with the equal CSV trace in the oracle.
#[test]
fn msr_traces_are_read() {
    let mut scene = Scene::new(&[("disk", 1 << 20)]);
    let file = scene.path("msr.csv");
    let lines = "128166372003061629,usr,0,Read,7014609920,24576,41286\n\
                 128166372003061630,usr,0,Write,4096,4096,1331\n\
                 128166372003061630,usr,1,Write,10000,100,1331\n\
                 128166372016382155,usr,0,Read,0,512,41286\n\
                 128166372026382245,usr,0,Write,1023,2,57\n";
    fs::write(&file, lines).unwrap();
    let report =
        cdp!("replay", scene.store, file, "--format", "msr", "--volume", "disk", "--fill", "stamp", "--json");
    let report = report.succeeds().json();
    assert_eq!(
        (&report["first_seq"], &report["last_seq"], &report["writes"]),
        (&1.into(), &3.into(), &3.into())
    );
    let unix = |filetime: u64| (filetime - 116_444_736_000_000_000) * 100;
    let mut same = Trace::default();
    same.write(unix(128_166_372_003_061_630), "disk", 4096, 4096);
    same.write(unix(128_166_372_003_061_630), "disk", 9728, 512);
    same.write(unix(128_166_372_026_382_245), "disk", 512, 1024);
    scene.oracle.replay(&same, None);
    for seq in 0..=3 {
        scene.assert_restores(&format!("seq:{seq}"), "disk", seq);
    }
    assert_eq!(time_in(&scene.points()["newest"]["time"]), unix(128_166_372_026_382_245));
    let between = format!("time:{}", format_time(unix(128_166_372_003_061_630)));
    scene.assert_restores(&between, "disk", 2);
    fs::write(&file, "128166372036382245,usr,0,Scribble,0,512,1\n").unwrap();
    cdp!("replay", scene.store, file, "--format", "msr", "--volume", "disk").exits(1).says("1");
}

/// Goal: `--fill zero` writes zeroes and `--fill random` does not. Method: over a stamped range.
#[test]
fn other_fills_write_what_they_say() {
    for (fill, zeroes) in [("zero", true), ("random", false)] {
        let mut scene = Scene::new(&[("disk", 64 << 10)]);
        let mut trace = Trace::default();
        trace.write(START, "disk", 0, 32 << 10);
        scene.replay(&trace);
        let mut over = Trace::default();
        over.write(START + 1, "disk", 0, 16 << 10);
        let (file, target) = (scene.path("over.csv"), scene.path("image"));
        over.save(&file);
        cdp!("replay", scene.store, file, "--fill", fill).succeeds();
        cdp!("restore", scene.store, "--at", "seq:2", "--to", target).succeeds();
        let image = fs::read(&target).unwrap();
        assert_eq!(image[..16 << 10].iter().all(|byte| *byte == 0), zeroes, "--fill {fill}");
        let mut expected = vec![0; 16 << 10];
        scene.oracle.image("disk", 1).content(16 << 10, &mut expected);
        assert_eq!(image[16 << 10..32 << 10], expected, "what the second write did not touch");
        scene.assert_restores("seq:1", "disk", 1);
    }
}

/// Goal: an empty trace is no error and writes nothing. Method: an empty file, and one with flushes only.
#[test]
fn an_empty_trace_writes_nothing() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    scene.replay(&Trace::default());
    let mut flushes = Trace::default();
    flushes.push(START, "disk", Op::Flush);
    scene.replay(&flushes);
    assert_eq!(scene.newest(), 0);
}
