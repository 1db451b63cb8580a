//! The forms of the commands, and the exit code of each kind of refusal.

use std::fs;

use crate::support::{Scene, cdp, files};

/// Goal: every spelling of a size gives a volume of that many bytes. Method: create, then ask `points`.
#[test]
fn sizes_are_understood_with_and_without_suffix() {
    for (text, bytes) in
        [("512", 512), ("64K", 64 << 10), ("3M", 3 << 20), ("1G", 1 << 30), ("2T", 2_u64 << 40)]
    {
        let scene = Scene::without_store(&[]);
        cdp!("create", scene.store, "--size", text).succeeds();
        let points = scene.points();
        assert_eq!(points["volumes"], serde_json::json!([{"name": "disk", "size": bytes}]), "--size {text}");
    }
}

/// Goal: what cannot be understood exits 2 and makes nothing. Method: each malformed form once.
#[test]
fn wrong_usage_exits_with_2() {
    let scene = Scene::new(&[("disk", 1 << 20)]);
    let (store, other) = (&scene.store, scene.path("other"));
    let target = scene.path("image");
    cdp!().exits(2);
    cdp!("no-such-command").exits(2);
    cdp!("create").exits(2);
    cdp!("create", other).exits(2);
    cdp!("create", other, "--size").exits(2);
    cdp!("points", store, "--no-such-option").exits(2);
    cdp!("points", store, "surplus").exits(2);
    cdp!("restore", store, "--to", target).exits(2);
    cdp!("restore", store, "--at", "latest").exits(2);
    cdp!("restore", store, "--at", "latest", "--to", target, "--force", "--onto").exits(2);
    cdp!("diff", store, "--from", "seq:0").exits(2);
    cdp!("volume", "add", store, "second").exits(2);
    cdp!("bookmark", "add", store).exits(2);
    cdp!("replay", store).exits(2);
    for size in ["", "abc", "-1", "1.5", "12Q", "99999999999999999999"] {
        cdp!("create", other, format!("--size={size}")).exits(2);
    }
    assert!(!other.exists(), "wrong usage made a store");
    assert!(!target.exists(), "wrong usage made a target");
}

/// Goal: a point that is not spelled as the contract says is wrong usage, not a point that is missing.
/// Method: many malformed spellings with `restore`, and some with `diff` and `bookmark add --at`.
#[test]
fn malformed_points_exit_with_2() {
    let scene = Scene::new(&[("disk", 1 << 20)]);
    let target = scene.path("image");
    let malformed = [
        "",
        "newest",
        "seq",
        "seq:",
        "seq:abc",
        "seq:-1",
        "seq:1.5",
        "seq:99999999999999999999",
        "time:",
        "time:yesterday",
        "time:2026-01-01",
        "time:2026-01-01T00:00:00",
        "time:2026-13-01T00:00:00Z",
        "time:2026-02-30T00:00:00Z",
        "time:2026-01-01T25:00:00Z",
        "time:2026-01-01T00:00:00.1234567891Z",
        "bookmark:",
        "bookmark-latest:nothing",
        "bookmark-before:",
        "bookmark-before:soon",
        "bookmark-before:2026-01-01T00:00:00Z:nothing",
    ];
    for point in malformed {
        cdp!("restore", scene.store, format!("--at={point}"), "--to", target).exits(2);
        assert!(!target.exists(), "`{point}` left a target");
    }
    cdp!("diff", scene.store, "--from", "seq:0", "--to", "seq:x").exits(2);
    cdp!("bookmark", "add", scene.store, "name", "--at", "seq:x").exits(2);
}

/// Goal: help and version are printed on request. Method: exit 0 and text on stdout.
#[test]
fn help_and_version_exit_with_0() {
    for arguments in
        [vec!["--help"], vec!["--version"], vec!["create", "--help"], vec!["bookmark", "add", "--help"]]
    {
        let words: Vec<_> = arguments.iter().map(Into::into).collect();
        let ran = crate::support::command::run_cdp(&words).succeeds();
        assert!(!ran.stdout.is_empty(), "{arguments:?} prints nothing");
    }
}

/// Goal: no command takes something that is not a store for one, or makes one. Method: every command on a missing
/// directory, an empty one, a file and a directory with foreign files.
#[test]
fn what_is_not_a_store_is_refused_with_1() {
    let scene = Scene::without_store(&[]);
    let (missing, empty, foreign) = (scene.path("missing"), scene.path("empty"), scene.path("foreign"));
    let file = scene.path("file");
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "not a store").unwrap();
    fs::write(&file, vec![7; 8192]).unwrap();
    let (trace, target) = (scene.path("trace.csv"), scene.path("image"));
    fs::write(&trace, "1767225600000000000,disk,0,512\n").unwrap();
    for place in [&missing, &empty, &foreign, &file] {
        cdp!("points", place, "--json").exits(1);
        cdp!("restore", place, "--at", "latest", "--to", target).exits(1);
        cdp!("diff", place, "--from", "oldest", "--to", "latest").exits(1);
        cdp!("replay", place, trace).exits(1);
        cdp!("bookmark", "add", place, "name").exits(1);
        cdp!("bookmark", "list", place).exits(1);
        cdp!("volume", "list", place).exits(1);
        cdp!("volume", "add", place, "second", "--size", "1M").exits(1);
        cdp!("stat", place).exits(1);
        cdp!("check", place).exits_with_one_of(&[1, 3]);
    }
    assert!(!missing.exists() && !target.exists(), "a refused command made something");
    assert_eq!(
        fs::read_dir(&empty).unwrap().count(),
        0,
        "a refused command put something into an empty directory"
    );
    assert_eq!(
        files::regular_files(&foreign).len(),
        1,
        "a refused command put something beside foreign files"
    );
}

/// Goal: `create` never touches what exists. Method: on a store, a file and a full directory; compare before and after.
#[test]
fn create_refuses_what_exists_with_1() {
    let mut scene = Scene::new(&[("disk", 1 << 20)]);
    let mut trace = crate::support::Trace::default();
    trace.write(crate::support::times::START, "disk", 0, 4096);
    scene.replay(&trace);
    let before = files::states(&scene.store);
    cdp!("create", scene.store, "--size", "1M").exits(1);
    assert_eq!(files::states(&scene.store), before, "a refused create changed the store");
    let (file, full) = (scene.path("file"), scene.path("full"));
    fs::write(&file, "text").unwrap();
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letter.txt"), "text").unwrap();
    cdp!("create", file, "--size", "1M").exits(1);
    cdp!("create", full, "--size", "1M").exits(1);
    assert_eq!(fs::read(&file).unwrap(), b"text");
    assert_eq!(files::regular_files(&full).len(), 1);
}

/// Goal: a size that no volume can have is refused and leaves nothing. Method: zero, and not a multiple of 512.
#[test]
fn impossible_sizes_are_refused() {
    let scene = Scene::without_store(&[]);
    for size in ["0", "511", "1000", "4097"] {
        cdp!("create", scene.store, "--size", size).exits_with_one_of(&[1, 2]);
        assert!(!scene.store.exists(), "--size {size} left something behind");
    }
}

/// Goal: without `--json` people get text, and diagnostics are never on stdout. Method: a failing command.
#[test]
fn diagnostics_go_to_stderr() {
    let scene = Scene::without_store(&[]);
    let ran = cdp!("points", scene.path("missing"), "--json").exits(1);
    assert!(ran.stdout.trim().is_empty(), "stdout of a failure:\n{}", ran.described());
    assert!(ran.stderr.contains("missing"), "the message does not name the path:\n{}", ran.described());
}
