//! What is done with the documents of runs: two are compared, one becomes a page.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn cdp_bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cdp-bench")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A run of one scenario, twice as fast as another where `factor` is 2.
fn write_run(directory: &Path, name: &str, factor: f64) -> PathBuf {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.join(name);
    let (dir, json) = (work.path().to_str().unwrap(), path.to_str().unwrap());
    let only = "ingest-64k-sequential";
    let run = cdp_bench(&["run", "--profile", "smoke", "--dir", dir, "--only", only, "--json", json]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let mut report: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    // What a disk does in some milliseconds is chance: the figures are set.
    let row = &mut report["rows"][0];
    for (figure, value) in
        [("value", 50.0 * factor), ("before", 100.0), ("after", 100.0), ("ratio", factor / 2.0)]
    {
        row[figure] = value.into();
    }
    row["spread"] = 0.0.into();
    row["stable"] = true.into();
    row["others"] = 0.0.into();
    row["attempts"] = serde_json::json!([]);
    fs::write(&path, report.to_string()).unwrap();
    path
}

/// Goal: a comparison says what got better and what got worse, as text and as JSON; the status stays 0 unless a loss is to fail; a
/// run becomes a page with plots.
/// Method: a run, and the same with twice the figure, in both orders.
#[test]
fn runs_are_compared_and_shown() {
    let results = tempfile::tempdir().unwrap();
    let slow = write_run(results.path(), "slow.json", 1.0);
    let fast = write_run(results.path(), "fast.json", 2.0);
    let (slow, fast) = (slow.to_str().unwrap(), fast.to_str().unwrap());
    let gain = cdp_bench(&["compare", slow, fast, "--fail-on-worse"]);
    assert!(
        gain.status.success() && text(&gain.stdout).contains("0 worse, 1 better"),
        "{}",
        text(&gain.stdout)
    );
    let loss = cdp_bench(&["compare", fast, slow]);
    assert!(loss.status.success() && text(&loss.stdout).contains("WORSE"));
    let failed = cdp_bench(&["compare", fast, slow, "--fail-on-worse", "--json"]);
    assert_eq!(failed.status.code(), Some(5));
    let found: serde_json::Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(
        (&found["schema"], &found["rows"][0]["change"]),
        (&"cdp-bench-compare".into(), &"worse".into())
    );

    let html = results.path().join("run.html");
    let made = cdp_bench(&["report", fast, "--html", html.to_str().unwrap()]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let page = fs::read_to_string(html).unwrap();
    assert!(page.matches("<svg ").count() >= 2 && page.ends_with("</html>\n"));
}

/// Goal: what is no run is refused in one line that names the file.
/// Method: rubbish, a file that is not there, and a directory that a page cannot be written to.
#[test]
fn what_is_no_run_is_refused() {
    let results = tempfile::tempdir().unwrap();
    let rubbish = results.path().join("rubbish.json");
    fs::write(&rubbish, "{}").unwrap();
    let rubbish = rubbish.to_str().unwrap();
    for arguments in [
        &["compare", rubbish, rubbish][..],
        &["compare", "/absent/rubbish.json", rubbish],
        &["report", rubbish, "--html", "/absent/out.html"],
    ] {
        let said = cdp_bench(arguments);
        let error = text(&said.stderr);
        assert_eq!(said.status.code(), Some(1));
        assert!(error.contains("rubbish.json") && error.lines().count() == 1, "{error}");
    }
}
