//! Bookmarks: names, locks, the spellings that select one.

use crate::support::times::{START, format_time};
use crate::support::{Op, Random, Scene, Shape, Trace, cdp};

const SECOND: u64 = 1_000_000_000;

fn names(scene: &Scene) -> Vec<String> {
    let points = scene.points();
    let bookmarks = points["bookmarks"].as_array().expect("a list").iter();
    bookmarks.map(|bookmark| bookmark["name"].as_str().expect("a name").to_owned()).collect()
}

/// Goal: names are unique in a store, also against those of a trace. Method: a second one with each command.
#[test]
fn a_duplicate_name_exits_with_1() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    cdp!("bookmark", "add", scene.store, "once").succeeds();
    cdp!("bookmark", "add", scene.store, "once").exits(1).says("once");
    let mut trace = Trace::default();
    trace.write(START, "disk", 0, 512);
    trace.push(START, "disk", Op::Bookmark("traced".to_owned()));
    scene.replay(&trace);
    cdp!("bookmark", "add", scene.store, "traced", "--kind", "app").exits(1);
    let mut again = Trace::default();
    again.write(START + 1, "disk", 512, 512);
    again.push(START + 1, "disk", Op::Bookmark("once".to_owned()));
    let file = scene.path("again.csv");
    again.save(&file);
    cdp!("replay", scene.store, file, "--fill", "stamp").exits(1).says("2");
    assert_eq!(scene.newest(), 2, "the line before the refused bookmark stays");
    assert_eq!(names(&scene).len(), 2);
}

/// Goal: a locked bookmark outlives `delete` until it is unlocked; a deleted one is gone and its name free again.
/// Method: every order of lock, unlock and delete.
#[test]
fn a_locked_bookmark_is_deleted_only_after_unlock() {
    let scene = Scene::new(&[("disk", 64 << 10)]);
    let store = &scene.store;
    cdp!("bookmark", "add", store, "born-locked", "--lock").succeeds();
    cdp!("bookmark", "delete", store, "born-locked").exits(1);
    cdp!("bookmark", "add", store, "later").succeeds();
    cdp!("bookmark", "lock", store, "later").succeeds();
    cdp!("bookmark", "delete", store, "later").exits(1);
    assert_eq!(names(&scene).len(), 2);
    cdp!("bookmark", "unlock", store, "later").succeeds();
    cdp!("bookmark", "delete", store, "later").succeeds();
    cdp!("bookmark", "delete", store, "later").exits_with_one_of(&[1, 4]);
    cdp!("bookmark", "lock", store, "later").exits_with_one_of(&[1, 4]);
    cdp!("bookmark", "add", store, "later").succeeds();
    assert_eq!(names(&scene).len(), 2);
    scene.assert_unavailable("bookmark:gone", "disk");
}

/// Goal: a bookmark names the last seq before it, and `--at` any earlier one. Method: bookmarks between two traces.
#[test]
fn a_bookmark_names_the_last_seq_before_it() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    cdp!("bookmark", "add", scene.store, "zero").succeeds();
    let mut trace = Trace::default();
    for number in 0..8 {
        trace.write(START + number * SECOND, "disk", number * 1024, 1024);
    }
    scene.replay(&trace);
    let store = &scene.store;
    cdp!("bookmark", "add", store, "end").succeeds();
    cdp!("bookmark", "add", store, "past", "--at", "seq:3").succeeds();
    cdp!("bookmark", "add", store, "then", "--at", "time:2026-01-01T00:00:04.999Z", "--require-exact")
        .succeeds();
    cdp!("bookmark", "add", store, "never", "--at", "seq:9").exits(4);
    assert_eq!(scene.newest(), 8, "a bookmark took a seq");
    for (name, seq) in [("zero", 0), ("end", 8), ("past", 3), ("then", 5)] {
        scene.assert_restores(&format!("bookmark:{name}"), "disk", seq);
    }
    assert!(!names(&scene).contains(&"never".to_owned()));
}

/// Goal: `bookmark-latest[:KIND]` and `bookmark-before:T[:KIND]` select as they say.
/// Method: bookmarks of all kinds made by lines and by `bookmark add`, one per seq.
#[test]
fn bookmarks_are_selected_by_kind_and_time() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    for number in 0..6 {
        let mut trace = Trace::default();
        trace.write(START + number * 10 * SECOND, "disk", number * 512, 512);
        scene.replay(&trace);
        let kind = ["app", "fs", "user"][usize::try_from(number % 3).unwrap()];
        cdp!("bookmark", "add", scene.store, format!("{kind}-{number}"), "--kind", kind).succeeds();
    }
    scene.assert_restores("bookmark-latest", "disk", 6);
    scene.assert_restores("bookmark-latest:app", "disk", 4);
    scene.assert_restores("bookmark-latest:fs", "disk", 5);
    scene.assert_restores("bookmark-latest:user", "disk", 6);
    let points = scene.points();
    for bookmark in points["bookmarks"].as_array().unwrap() {
        let kind = bookmark["name"].as_str().unwrap().split('-').next().unwrap();
        assert_eq!(bookmark["kind"], kind);
    }
}

/// Goal: `bookmark-before:T` is the newest bookmark before T. Method: bookmarks of a trace, whose times are known.
#[test]
fn bookmarks_are_selected_before_a_time() {
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    let mut trace = Trace::default();
    for number in 0..6 {
        let time = START + number * 10 * SECOND;
        trace.write(time, "disk", number * 512, 512);
        trace.push(time + 5 * SECOND, "disk", Op::Bookmark(format!("traced-{number}")));
    }
    scene.replay(&trace);
    let kind = scene.points()["bookmarks"][0]["kind"].as_str().expect("a kind").to_owned();
    for number in 1..6 {
        // Between the line of one bookmark and that of the next.
        let time = format_time(START + number * 10 * SECOND + SECOND);
        scene.assert_restores(&format!("bookmark-before:{time}"), "disk", number);
        scene.assert_restores(&format!("bookmark-before:{time}:{kind}"), "disk", number);
    }
    scene.assert_unavailable(&format!("bookmark-before:{}", format_time(START)), "disk");
    scene.assert_restores("bookmark-before:2100-01-01T00:00:00Z", "disk", 6);
}

/// Goal: names that could be mistaken for something else are kept as they are, or refused clearly.
/// Method: odd names through `add`, `restore` and `delete`.
#[test]
fn odd_names_are_kept_or_refused() {
    let scene = Scene::new(&[("disk", 64 << 10)]);
    for name in
        ["nightly 2026-01-01", "ünïcode", "a/b", "seq:1", "latest", "..", "new\nline", "x'; --", "-dash"]
    {
        let added = cdp!("bookmark", "add", scene.store, "--", name).exits_with_one_of(&[0, 1, 2]);
        if added.code == 0 {
            assert!(names(&scene).contains(&name.to_owned()), "{name:?} was changed: {:?}", names(&scene));
            scene.assert_restores(&format!("bookmark:{name}"), "disk", 0);
            cdp!("bookmark", "delete", scene.store, "--", name).succeeds();
        }
    }
    cdp!("bookmark", "add", scene.store, "").exits_with_one_of(&[1, 2]);
    cdp!("bookmark", "add", scene.store, "n".repeat(100_000)).exits_with_one_of(&[1, 2]);
    assert_eq!(names(&scene), Vec::<String>::new());
}

/// Goal: many bookmarks are all kept. Method: hundreds in a trace, and after a copy of the store.
#[test]
fn many_bookmarks_are_all_kept() {
    let mut random = Random::for_test("many_bookmarks_are_all_kept");
    let mut scene = Scene::new(&[("disk", 64 << 10)]);
    let mut shape = Shape::mixed(64 << 10, 1500);
    (shape.bookmark_percent, shape.write_most) = (40, 4096);
    scene.replay(&shape.generate(&mut random));
    let mut expected: Vec<_> = scene.oracle.bookmarks.iter().map(|(name, _, _)| name.clone()).collect();
    let mut found = names(&scene);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    let (name, _, seq) = scene.oracle.bookmarks[expected.len() / 2].clone();
    scene.assert_restores(&format!("bookmark:{name}"), "disk", seq);
}
