//! The program as its users see it: every scenario once, what it prints, what it leaves, and what it says to bad input.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn cdp_bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cdp-bench")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A directory on the file system that the project is built on: unlike others it is sure to be one of a device.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn names() -> Vec<String> {
    let listed = text(&cdp_bench(&["list"]).stdout);
    let named = listed.lines().filter(|line| !line.starts_with(' '));
    named.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// Goal: every scenario runs, or says why it cannot here, has a row with positive figures in the document, and nothing is left in the
/// directory; the document becomes a page.
/// Method: the smallest profile over all scenarios and a trace; the document and the directory are looked at. Only what other programs
/// do may be left out.
#[test]
fn every_scenario_is_measured_and_leaves_nothing_behind() {
    let (work, results) = (directory(), directory());
    let json = results.path().join("run.json");
    let trace = results.path().join("trace.csv");
    fs::write(&trace, "1,disk,0,4096\n2,disk,8192,65536\n3,disk,0,4096,zero\n4,disk,0,0,flush\n").unwrap();
    let paths = [work.path(), &json, &trace].map(|path: &Path| path.to_str().unwrap().to_owned());
    let run = cdp_bench(&[
        "run",
        "--profile",
        "smoke",
        "--dir",
        &paths[0],
        "--json",
        &paths[1],
        "--trace",
        &paths[2],
    ]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(
        (report["schema"].as_str(), report["schema_version"].as_u64()),
        (Some("cdp-bench-run"), Some(2))
    );
    let rows = report["rows"].as_array().unwrap();
    let measured: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let skipped = report["skipped"].as_array().unwrap();
    let skipped: Vec<_> = skipped.iter().map(|skipped| skipped["name"].as_str().unwrap()).collect();
    assert!(skipped.iter().all(|name| name.starts_with("yardstick-")), "{skipped:?}");
    let names = names();
    let expected: Vec<_> = names.iter().filter(|name| !skipped.contains(&name.as_str())).collect();
    assert_eq!(measured.iter().collect::<Vec<_>>(), expected);
    let shown = text(&run.stdout);
    for row in rows {
        let name = row["name"].as_str().unwrap();
        for figure in ["value", "before", "after"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure} of {row}");
        }
        assert!(shown.lines().any(|line| line.starts_with(name)), "{name} is shown");
    }
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
    let html = results.path().join("run.html");
    assert!(cdp_bench(&["report", &paths[1], "--html", html.to_str().unwrap()]).status.success());
    assert!(fs::read_to_string(html).unwrap().matches("<svg ").count() > 50);
}

/// Goal: `--only` runs what it names and nothing else.
/// Method: two scenarios, in the other order.
#[test]
fn only_the_named_scenarios_run() {
    let (work, results) = (directory(), directory());
    let json = results.path().join("run.json");
    let only = "changed-blocks,ingest-64k-sequential";
    let paths = [work.path(), &json].map(|path: &Path| path.to_str().unwrap().to_owned());
    let run =
        cdp_bench(&["run", "--profile", "smoke", "--dir", &paths[0], "--only", only, "--json", &paths[1]]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let names: Vec<_> =
        report["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ingest-64k-sequential", "changed-blocks"]);
}

/// Goal: bad input is refused in one line that says what to do, and nothing is made.
/// Method: an unknown scenario, a missing directory, a document that cannot be written.
#[test]
fn bad_input_is_refused() {
    let work = directory();
    let path = work.path().to_str().unwrap();
    let absent = work.path().join("absent");
    let absent = absent.to_str().unwrap();
    let beyond = format!("{absent}/run.json");
    for (arguments, part) in [
        (&["run", "--dir", path, "--only", "nonsense"][..], "cdp-bench list"),
        (&["run", "--profile", "smoke", "--dir", absent][..], "is no directory"),
        (&["run", "--profile", "smoke", "--dir", path, "--json", &beyond][..], "run.json"),
    ] {
        let run = cdp_bench(arguments);
        let said = text(&run.stderr);
        assert!(!run.status.success() && said.contains(part) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
}

/// Goal: a raw device is measured with probes and stores on it, what needs files is left out with the reason, and a device that holds something is
/// refused. Method: a file that stands for a device, twice: the second time it holds the first run.
#[test]
fn a_raw_device_is_measured_in_place_of_a_directory() {
    let work = directory();
    let (device, json) = (work.path().join("device"), work.path().join("run.json"));
    fs::File::create(&device).unwrap().set_len(2 << 30).unwrap();
    let run = |more: &[&str]| {
        let paths = [work.path(), &device, &json].map(|path: &Path| path.to_str().unwrap().to_owned());
        let only = "ingest-4k-random,ingest-4k-random-cow,bookmark-idle,restore-ordered";
        let arguments = [
            "run",
            "--profile",
            "smoke",
            "--dir",
            &paths[0],
            "--device",
            &paths[1],
            "--json",
            &paths[2],
            "--only",
            only,
        ];
        cdp_bench(&[&arguments[..], more].concat())
    };
    let first = run(&[]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let named = |list: &str| -> Vec<String> {
        report[list].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(named("rows"), ["ingest-4k-random", "ingest-4k-random-cow", "bookmark-idle"]);
    assert_eq!(named("skipped"), ["restore-ordered"]);
    assert!(report["options"]["device"].as_str().unwrap().contains("2048 MiB"));
    let second = run(&[]);
    assert!(!second.status.success() && text(&second.stderr).contains("--overwrite"));
    assert!(run(&["--overwrite"]).status.success());
}
