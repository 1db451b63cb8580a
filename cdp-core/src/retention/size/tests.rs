//! Both ways of counting against slow ones.

use super::*;
use crate::{
    Result,
    trace::{TraceFormat, TraceLine, TraceReader},
};
use std::collections::{BTreeMap, BTreeSet};

const HOUR: u64 = 3_600_000_000_000;

fn policy(text: &str) -> Policy {
    Policy::from_toml(text).unwrap()
}

fn lines(text: &str) -> impl Iterator<Item = Result<TraceLine>> {
    TraceReader::new(text.as_bytes(), TraceFormat::Csv)
}

fn sized(policy: &Policy, trace: &str) -> HistorySize {
    size_of_trace(policy, lines(trace), lines(trace)).unwrap()
}

fn tier<'a>(size: &'a HistorySize, name: &str) -> &'a TierSize {
    size.tiers.iter().find(|tier| tier.name == name).unwrap_or_else(|| panic!("no {name} in {size:?}"))
}

/// Goal: each version is counted in the tier that needs it. Method: one block, written in each tier; the count is done by hand.
#[test]
fn versions_are_counted_by_tier() {
    let policy = policy(
        "[[window]]\nto = \"10ns\"\nkeep = \"all\"\n[[window]]\nto = \"1us\"\nkeep = { every = \"10ns\" }\n",
    );
    // Slots of ten: 100 and 105 in one, 117 in the next; 128 and 130 in the full range, which begins with 117.
    let trace = "100,d,0,4096\n105,d,0,4096\n117,d,0,4096\n128,d,0,4096\n130,d,0,4096\n";
    let size = sized(&policy, trace);
    assert_eq!((tier(&size, "newest").versions, tier(&size, "newest").points), (1, 1));
    assert_eq!(
        (tier(&size, "all").versions, tier(&size, "all").points),
        (2, 3),
        "117 and 128 were overwritten in it"
    );
    assert_eq!((tier(&size, "10ns-1us").versions, tier(&size, "10ns-1us").points), (1, 1), "105");
    assert_eq!(size.bytes(), 4 * (4096 + 24));
    assert_eq!(tier(&size, "all").written_bytes + tier(&size, "10ns-1us").written_bytes, 5 * 4096);
    assert!(size_of_trace(&policy, lines(trace), lines("100,d,0,4096\n")).is_err(), "a trace that changed");
    assert!(size_of_trace(&policy, lines("100,d,0,4096\n"), lines(trace)).is_err());
    assert_eq!(sized(&policy, "").bytes(), 0);
}

/// Goal: the count over a trace is the rule of what is needed. Method: random traces of writes, zeroes and discards over a few blocks; the
/// set of versions that any point of the plan shows, from images of every state.
#[test]
fn the_count_is_what_the_points_show() {
    let policy = policy(
        "[[window]]\nto = \"20ns\"\nkeep = \"all\"\n[[window]]\nto = \"60ns\"\nkeep = { every = \"8ns\" }\n\
         [[window]]\nto = \"300ns\"\nkeep = { every = \"50ns\", prefer = [\"user\"] }\nbookmarks = \"all\"\n",
    );
    for seed in 0..300_u64 {
        let mut state = seed;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let (mut time, mut text, mut images) = (1000, String::new(), vec![BTreeMap::new()]);
        for line in 0..random(80) {
            time += random(12);
            let (volume, from) = (random(2), random(8));
            let blocks = 1 + random(8 - from);
            let op = ["write", "write", "write", "zero", "discard"][usize::try_from(random(5)).unwrap()];
            if random(8) == 0 {
                text += &format!("{time},v0,0,0,bookmark:b{line}\n");
                continue;
            }
            text += &format!("{time},v{volume},{},{},{op}\n", from * 4096, blocks * 4096);
            let mut image = images.last().unwrap().clone();
            for block in from..from + blocks {
                image.remove(&(volume, block));
                if op == "write" {
                    image.insert((volume, block), images.len());
                }
            }
            images.push(image);
        }
        // Every image that stays, by the plan of the same history.
        let stays = trace::seqs_that_stay(&policy, lines(&text)).unwrap();
        let shown = stays.iter().flat_map(|seq| images[usize::try_from(*seq).unwrap()].iter());
        let needed: BTreeSet<_> = shown.collect();
        let size = sized(&policy, &text);
        let counted: u64 = size.tiers.iter().map(|tier| tier.versions).sum();
        assert_eq!(counted, u64::try_from(needed.len()).unwrap(), "seed {seed} {size:?}\n{text}");
        let newest = u64::try_from(images.last().unwrap().len()).unwrap();
        assert_eq!(tier(&size, "newest").versions, newest, "seed {seed}");
        let points: u64 = size.tiers.iter().skip(1).map(|tier| tier.points).sum();
        assert_eq!(points, u64::try_from(stays.len()).unwrap(), "seed {seed}");
    }
}

/// Goal: the expectation is that of uniform random writes. Method: such writes in a trace, counted exactly; the two within 3 percent.
#[test]
fn the_expectation_meets_the_count_of_a_random_trace() {
    let text =
        "[[window]]\nto = \"24h\"\nkeep = \"all\"\n[[window]]\nto = \"96h\"\nkeep = { every = \"4h\" }\n";
    let policy = policy(text);
    // A write every 15 seconds over 2000 blocks: 960 in a slot of four hours.
    let (step, blocks, mut state, mut trace) = (HOUR / 240, 2000, 7_u64, String::new());
    // Long enough that the whole working set was written before the oldest point.
    let end = 200 * HOUR / step;
    for write in 0..=end {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        trace += &format!("{},d,{},4096\n", 400_000 * HOUR + write * step, (state >> 33) % blocks * 4096);
    }
    let exact = sized(&policy, &trace);
    let rate = SizeRate { bytes_per_day: 24 * HOUR / step * 4096, working_set_bytes: blocks * 4096 };
    let expected = size_of_rate(&policy, rate).unwrap();
    let near = |name: &str, per_mille: u64| {
        let (exact, expected) = (tier(&exact, name).versions, tier(&expected, name).versions);
        assert!(exact.abs_diff(expected) * 1000 <= exact * per_mille, "{name}: {exact} and {expected}");
    };
    near("newest", 10);
    near("24h-4d", 30);
    assert!(tier(&expected, "24h-4d").written_bytes > tier(&expected, "24h-4d").data_bytes());
    assert_eq!(tier(&expected, "24h-4d").points, 18);
}

/// Goal: a sparse tier that saves little is named as such, and one that saves is not. Method: a large and a small working set.
#[test]
fn a_tier_that_saves_little_is_named() {
    let text =
        "[[window]]\nto = \"24h\"\nkeep = \"all\"\n[[window]]\nto = \"48h\"\nkeep = { every = \"4h\" }\n";
    let size = |working_set_bytes: u64| {
        size_of_rate(&policy(text), SizeRate { bytes_per_day: 10 << 30, working_set_bytes }).unwrap()
    };
    let says = |size: &HistorySize| size.assumptions.iter().any(|one| one.contains("saves little"));
    assert!(says(&size(1 << 40)) && !says(&size(64 << 20)));
    let tiny = size(4096);
    assert_eq!(tier(&tiny, "24h-48h").versions, 6, "one block a point");
}

/// Goal: input that makes no sense is refused, and extremes saturate. Method: each.
#[test]
fn extremes_are_refused_or_saturate() {
    let bounded = policy("max_age = \"28d\"");
    let of = |policy: &Policy, bytes_per_day: u64, working_set_bytes: u64| {
        size_of_rate(policy, SizeRate { bytes_per_day, working_set_bytes })
    };
    assert!(of(&bounded, 1, 4095).is_err());
    assert!(of(&Policy::default(), 1, 4096).unwrap_err().to_string().contains("max_age"));
    assert_eq!(of(&bounded, 0, 4096).unwrap().bytes(), 4096 + INDEX_BYTES);
    assert!(of(&bounded, u64::MAX, u64::MAX).unwrap().bytes() > 1 << 60);
    let small = policy("max_age = \"28d\"\nmax_bytes = \"1G\"");
    let size = of(&small, 1 << 30, 1 << 30).unwrap();
    assert!(size.assumptions.iter().any(|one| one.contains("max_bytes")));
}
