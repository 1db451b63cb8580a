//! The JSON documents: fields and types are a contract.

use serde_json::{Value, json};

use crate::support::times::{START, parse_time, time_in};
use crate::support::{Op, Scene, Trace, cdp};

/// Type of a field, by the word the contract uses for it.
#[derive(Clone, Copy)]
enum Kind {
    Count,
    Number,
    Text,
    TextOrNull,
    Time,
    TimeOrNull,
    Flag,
    List,
    Object,
}

#[track_caller]
fn assert_fields(value: &Value, fields: &[(&str, Kind)]) {
    let object = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
    for (name, kind) in fields {
        let field = object.get(*name).unwrap_or_else(|| panic!("no field `{name}` in {value}"));
        let time = |field: &Value| {
            field.as_str().is_some_and(|text| parse_time(text) > 0 || text.starts_with("1970"))
        };
        let right = match kind {
            Kind::Count => field.is_u64(),
            Kind::Number => field.is_number(),
            Kind::Text => field.is_string(),
            Kind::TextOrNull => field.is_string() || field.is_null(),
            Kind::Time => time(field),
            Kind::TimeOrNull => field.is_null() || time(field),
            Kind::Flag => field.is_boolean(),
            Kind::List => field.is_array(),
            Kind::Object => field.is_object(),
        };
        assert!(right, "field `{name}` has the wrong type in {value}");
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("`{name}` is no list in {value}"))
}

/// Two volumes, a few lines of every kind, two bookmarks.
fn small_scene() -> Scene {
    let mut scene = Scene::new(&[("disk", 1 << 20), ("logs", 512 << 10)]);
    let mut trace = Trace::default();
    trace.write(START, "disk", 0, 8192);
    trace.write(START + 1_000, "logs", 4096, 512);
    trace.push(START + 2_000, "disk", Op::Bookmark("middle".to_owned()));
    trace.push(START + 3_000, "disk", Op::Zero { offset: 4096, length: 4096 });
    trace.push(START + 3_000, "logs", Op::Discard { offset: 0, length: 512 << 10 });
    trace.push(START + 4_000, "logs", Op::Flush);
    scene.replay(&trace);
    let app = ["--kind", "app", "--app", "postgresql", "--comment", "before the upgrade", "--lock"];
    let [k, kind, a, app, c, comment, lock] = app;
    let expires = "2099-01-01T00:00:00Z";
    cdp!("bookmark", "add", scene.store, "upgrade", k, kind, a, app, c, comment, lock, "--expires", expires)
        .succeeds();
    scene
}

/// Goal: `points` has every field of the contract, with the right types and values. Method: a small known history.
#[test]
fn points_reports_what_can_be_recovered() {
    let scene = small_scene();
    let points = scene.points();
    assert_eq!(
        points["volumes"],
        json!([{"name": "disk", "size": 1 << 20}, {"name": "logs", "size": 512 << 10}])
    );
    assert_fields(
        &points,
        &[
            ("oldest", Kind::Object),
            ("newest", Kind::Object),
            ("newest_exact", Kind::Object),
            ("covered_to", Kind::Time),
            ("exact", Kind::List),
            ("gaps", Kind::List),
            ("retained", Kind::List),
            ("bookmarks", Kind::List),
        ],
    );
    assert_fields(&points["oldest"], &[("seq", Kind::Count), ("time", Kind::TimeOrNull)]);
    assert_eq!(points["oldest"]["seq"], 0);
    assert_eq!(points["newest"]["seq"], 4);
    assert_eq!(time_in(&points["newest"]["time"]), START + 3_000);
    assert_eq!(points["gaps"], json!([]));
    let exact = list(&points, "exact");
    let named: Vec<_> = exact.iter().map(|range| range["volume"].as_str().unwrap()).collect();
    assert_eq!(named, ["disk", "logs"], "one exact range for each volume");
    for range in exact {
        assert_fields(
            range,
            &[
                ("from_seq", Kind::Count),
                ("to_seq", Kind::Count),
                ("from_time", Kind::TimeOrNull),
                ("to_time", Kind::TimeOrNull),
                ("granularity", Kind::Text),
            ],
        );
        assert_eq!((&range["from_seq"], &range["to_seq"]), (&json!(0), &json!(4)), "{range}");
        assert_eq!(range["granularity"], "write");
    }
}

/// Goal: bookmarks are reported whole. Method: one from a trace, one with everything that `bookmark add` takes.
#[test]
fn bookmarks_are_reported_whole() {
    let scene = small_scene();
    let points = scene.points();
    let bookmarks = list(&points, "bookmarks");
    assert_eq!(bookmarks.len(), 2, "{points}");
    for bookmark in bookmarks {
        assert_fields(
            bookmark,
            &[
                ("name", Kind::Text),
                ("kind", Kind::Text),
                ("app", Kind::TextOrNull),
                ("seq", Kind::Count),
                ("time", Kind::Time),
                ("locked", Kind::Flag),
                ("expires", Kind::TimeOrNull),
                ("inexact_volumes", Kind::List),
            ],
        );
        assert_eq!(bookmark["inexact_volumes"], json!([]));
    }
    let named = |name: &str| bookmarks.iter().find(|bookmark| bookmark["name"] == name).unwrap();
    let (middle, upgrade) = (named("middle"), named("upgrade"));
    assert_eq!(
        (&middle["seq"], &middle["locked"], &middle["expires"]),
        (&json!(2), &json!(false), &Value::Null)
    );
    assert_eq!(time_in(&middle["time"]), START + 2_000, "the time of the line");
    assert_eq!(
        (&upgrade["kind"], &upgrade["app"], &upgrade["seq"]),
        (&json!("app"), &json!("postgresql"), &json!(4))
    );
    assert_eq!((&upgrade["locked"], time_in(&upgrade["expires"])), (&json!(true), 4_070_908_800_000_000_000));
    let text = cdp!("bookmark", "list", scene.store).succeeds().stdout;
    assert!(text.contains("middle") && text.contains("upgrade"), "the list is: {text}");
    let listed = cdp!("bookmark", "list", scene.store, "--json").succeeds().json();
    let listed = listed.as_array().or_else(|| listed["bookmarks"].as_array()).expect("a list of bookmarks");
    assert_eq!(listed.len(), 2);
}

/// Goal: `diff` has every field. Method: a known pair of points.
#[test]
fn diff_reports_its_points_and_extents() {
    let scene = small_scene();
    let diff =
        cdp!("diff", scene.store, "--from", "seq:0", "--to", "bookmark:middle", "--json").succeeds().json();
    assert_eq!(
        diff,
        json!({"from_seq": 0, "to_seq": 2, "bytes": 8192, "extents": [{"offset": 0, "length": 8192}]})
    );
}

/// Goal: `replay` reports counts and rates that agree with the trace. Method: a known trace.
#[test]
fn replay_reports_what_it_did() {
    let mut scene = Scene::new(&[("disk", 1 << 20)]);
    let mut trace = Trace::default();
    for number in 0..100 {
        trace.write(START + number, "disk", number * 4096, 4096);
    }
    trace.push(START + 100, "disk", Op::Zero { offset: 0, length: 1 << 20 });
    let report = scene.replay(&trace);
    assert_fields(
        &report,
        &[
            ("writes", Kind::Count),
            ("bytes", Kind::Count),
            ("first_seq", Kind::Count),
            ("last_seq", Kind::Count),
            ("seconds", Kind::Number),
            ("writes_per_s", Kind::Number),
            ("bytes_per_s", Kind::Number),
            ("stored_bytes", Kind::Count),
            ("gaps", Kind::Count),
        ],
    );
    assert_eq!(report["gaps"], 0);
    assert!(
        report["stored_bytes"].as_u64().unwrap() >= trace.written_bytes(),
        "stamps cannot be stored in less: {report}"
    );
    assert!(report["seconds"].as_f64().unwrap() > 0.0, "{report}");
}

/// Goal: `check` of a sound store reports no damage, with and without `--deep`. Method: fields and exit 0.
#[test]
fn check_of_a_sound_store_is_empty() {
    let scene = small_scene();
    for report in [
        cdp!("check", scene.store, "--json").succeeds().json(),
        cdp!("check", scene.store, "--deep", "--json").succeeds().json(),
    ] {
        assert_eq!(report["damaged"], json!([]));
        assert_fields(&report["tail_cut"], &[("frames", Kind::Count), ("bytes", Kind::Count)]);
        assert_eq!(
            report["tail_cut"],
            json!({"frames": 0, "bytes": 0}),
            "after a clean close nothing was cut"
        );
    }
    cdp!("check", scene.store, "--deep").succeeds();
}

/// Goal: `stat` has every field. Method: types, and the values that are known from the trace.
#[test]
fn stat_reports_sizes_and_volumes() {
    let scene = small_scene();
    let stat = cdp!("stat", scene.store, "--json").succeeds().json();
    assert_fields(
        &stat,
        &[
            ("stored_bytes", Kind::Count),
            ("source_bytes", Kind::Count),
            ("write_amplification", Kind::Number),
            ("segments", Kind::Count),
            ("runs", Kind::Count),
            ("versions", Kind::Count),
            ("points", Kind::Count),
            ("rss_bytes", Kind::Count),
            ("volumes", Kind::List),
        ],
    );
    let names: Vec<_> =
        list(&stat, "volumes").iter().map(|volume| volume["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["disk", "logs"]);
    for volume in list(&stat, "volumes") {
        assert_fields(
            volume,
            &[
                ("mode", Kind::Text),
                ("lag_bytes", Kind::Count),
                ("lag_ns", Kind::Count),
                ("dirty_bytes", Kind::Count),
            ],
        );
    }
    cdp!("stat", scene.store).succeeds();
}

/// Goal: a restore tells what it did as one document. Method: `--json` is valid JSON and an object.
#[test]
fn restore_reports_one_document() {
    let scene = small_scene();
    let target = scene.path("image");
    let report = cdp!("restore", scene.store, "--at", "latest", "--to", target, "--json").succeeds().json();
    assert!(report.is_object(), "{report}");
}
