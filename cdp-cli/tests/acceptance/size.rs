//! `cdp size`: the expected size of a history, with its assumptions.

use crate::support::{Scene, cdp};
use std::fs;

const POLICY: &str = r#"
max_age = "28d"

[[window]]
to = "24h"
keep = "all"

[[window]]
to = "48h"
keep = { every = "4h" }
bookmarks = "all"

[[window]]
to = "28d"
keep = "none"
"#;

const HOUR: u64 = 3_600_000_000_000;

/// Goal: a trace is counted exactly, by tier. Method: one block written every hour for three days, counted by hand.
#[test]
fn a_trace_is_counted_exactly() {
    let scene = Scene::without_store(&[]);
    let (policy, trace) = (scene.path("policy"), scene.path("trace"));
    fs::write(&policy, POLICY).unwrap();
    // Hours 0 to 72 from a day's begin; the last line is the present.
    let start = 19_000 * 24 * HOUR;
    let line = |hour: u64| format!("{},disk,0,4096\n", start + hour * HOUR);
    fs::write(&trace, (0..=72).map(line).collect::<String>()).unwrap();
    let size = cdp!("size", "--policy", policy, "--trace", trace, "--json").succeeds().json();
    let tiers = size["tiers"].as_array().unwrap();
    let of = |name: &str| {
        tiers.iter().find(|tier| tier["window"] == name).unwrap_or_else(|| panic!("{name}: {size}"))
    };
    // Hours 48 to 72 are the full range; all but the newest were overwritten in it.
    assert_eq!((of("newest")["versions"].as_u64(), of("all")["versions"].as_u64()), (Some(1), Some(24)));
    assert_eq!(of("all")["points"].as_u64(), Some(25));
    // Hours 27, 31, ... 47 end the six slots of the second day.
    assert_eq!(of("24h-48h")["points"].as_u64(), Some(6));
    assert_eq!(of("24h-48h")["versions"].as_u64(), Some(6));
    assert_eq!(of("48h-28d")["points"].as_u64(), Some(0));
    assert_eq!(size["bytes"].as_u64(), Some(31 * (4096 + 24)));
    assert!(!size["assumptions"].as_array().unwrap().is_empty());
    let text = cdp!("size", "--policy", policy, "--trace", trace).succeeds().stdout;
    assert!(text.contains("expected in all") && text.contains("exact for this trace"), "{text}");
}

/// Goal: a rate gives an expectation that says where a sparse tier saves little. Method: a large and a small working set.
#[test]
fn a_rate_gives_an_expectation_with_its_assumptions() {
    let scene = Scene::without_store(&[]);
    let policy = scene.path("policy");
    fs::write(&policy, POLICY).unwrap();
    let text = |rate: &str, set: &str| {
        cdp!("size", "--policy", policy, "--rate", rate, "--working-set", set).succeeds().stdout
    };
    assert!(text("10G/day", "1T").contains("saves little"));
    assert!(!text("10G/day", "16M").contains("saves little"));
    let size = cdp!("size", "--policy", policy, "--rate", "10G/day", "--working-set", "1G", "--json")
        .succeeds()
        .json();
    assert_eq!(size["tiers"][0]["data_bytes"].as_u64(), Some(1 << 30), "the newest state is the working set");
    // A day and, until a slot is decided, two hours on average.
    let day = (10_u64 << 30) / 24 * 26;
    assert!(size["tiers"][1]["data_bytes"].as_u64().unwrap().abs_diff(day) < 1 << 20, "{size}");
}

/// Goal: wrong usage exits 2, a policy or trace that cannot be used exits 1 and says why. Method: each once.
#[test]
fn what_cannot_be_sized_is_refused() {
    let scene = Scene::without_store(&[]);
    let (policy, trace, all) = (scene.path("policy"), scene.path("trace"), scene.path("all"));
    fs::write(&policy, POLICY).unwrap();
    fs::write(&all, "").unwrap();
    fs::write(&trace, "5,disk,0,4096\n4,disk,0,4096\n").unwrap();
    cdp!("size").exits(2);
    cdp!("size", "--policy", policy).exits(2);
    cdp!("size", "--policy", policy, "--rate", "1G/day").exits(2);
    cdp!("size", "--policy", policy, "--rate", "1G", "--working-set", "1G").exits(2);
    cdp!("size", "--policy", policy, "--working-set", "1G").exits(2);
    cdp!("size", "--policy", policy, "--trace", trace, "--rate", "1G/day", "--working-set", "1G").exits(2);
    cdp!("size", "--policy", policy, "--trace", trace).exits(1).says("line 2");
    cdp!("size", "--policy", policy, "--trace", scene.path("absent")).exits(1);
    cdp!("size", "--policy", all, "--rate", "1G/day", "--working-set", "1G").exits(1).says("max_age");
    fs::write(&policy, "[[window]]\nto = \"2h\"\nkeep = \"all\"\n[[window]]\nto = \"1h\"\nkeep = \"all\"\n")
        .unwrap();
    cdp!("size", "--policy", policy, "--rate", "1G/day", "--working-set", "1G").exits(1).says("window 2");
}
