//! A store under a policy, with all that was ever written to it, so that what is left can be judged.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use cdp_core::io::{DirectoryOptions, DirectoryStorage};
use cdp_core::units::Seq;
use cdp_core::{OpenOptions, Store};
use serde_json::Value;

use super::command::run_cdp;
use super::policy::{Kept, Mark, Policy, State};
use super::times::{format_time, time_in};
use super::{Random, Scene, Trace, cdp, files};

/// A [`Scene`] whose history is thinned.
pub struct Lab {
    pub scene: Scene,
    pub policy: Policy,
    /// Every bookmark that was made and not deleted.
    pub marks: Vec<Mark>,
    /// How many lines of bookmarks are in `marks` already.
    lines_taken: usize,
}

impl Deref for Lab {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl DerefMut for Lab {
    fn deref_mut(&mut self) -> &mut Scene {
        &mut self.scene
    }
}

impl Lab {
    /// Makes a store and records the policy.
    #[track_caller]
    pub fn new(volumes: &[(&str, u64)], policy: Policy) -> Self {
        Self::over(Scene::new(volumes), policy)
    }

    /// Records the policy in the store of a scene.
    #[track_caller]
    pub fn over(scene: Scene, policy: Policy) -> Self {
        let mut lab = Self { scene, policy: Policy::default(), marks: Vec::new(), lines_taken: 0 };
        lab.set(policy);
        lab
    }

    #[track_caller]
    pub fn set(&mut self, policy: Policy) {
        let file = self.path("policy.toml");
        std::fs::write(&file, policy.toml()).expect("save the policy");
        cdp!("retention", "set", self.store, "--policy", file).succeeds();
        self.policy = policy;
    }

    /// Replays a trace with stamps and takes in its bookmarks.
    #[track_caller]
    pub fn replay(&mut self, trace: &Trace) -> Value {
        let report = self.scene.replay(trace);
        self.take_marks();
        report
    }

    /// Takes in the bookmarks of traces that the oracle has got since the last call.
    pub fn take_marks(&mut self) {
        for (name, time, seq) in &self.scene.oracle.bookmarks[self.lines_taken..] {
            self.marks.push(Mark {
                name: name.clone(),
                kind: "user",
                app: None,
                seq: *seq,
                time: *time,
                locked: false,
                expires: None,
            });
        }
        self.lines_taken = self.scene.oracle.bookmarks.len();
    }

    /// Adds a bookmark at an earlier seq, whose time it takes.
    #[track_caller]
    pub fn bookmark(&mut self, mark: Mark) {
        let mut words: Vec<OsString> = ["bookmark", "add"].map(Into::into).into();
        words.push(self.store.clone().into());
        words.extend([&mark.name, "--kind", mark.kind, "--at", &format!("seq:{}", mark.seq)].map(Into::into));
        if let Some(app) = mark.app {
            words.extend(["--app", app].map(Into::into));
        }
        if let Some(expires) = mark.expires {
            words.extend(["--expires", &format_time(expires)].map(Into::into));
        }
        if mark.locked {
            words.push("--lock".into());
        }
        run_cdp(&words).succeeds();
        self.marks.push(mark);
    }

    /// A plain bookmark at a seq, to be changed as needed.
    pub fn mark(&self, name: &str, kind: &'static str, seq: u64) -> Mark {
        let time = self.oracle.time_of(seq);
        Mark { name: name.to_owned(), kind, app: None, seq, time, locked: false, expires: None }
    }

    /// `retention run` at a time.
    #[track_caller]
    pub fn run(&self, now: u64) -> Value {
        let time = format_time(now);
        cdp!("retention", "run", self.store, "--now", time, "--json").succeeds().json()
    }

    #[track_caller]
    pub fn preview(&self, now: u64) -> Value {
        let time = format_time(now);
        cdp!("retention", "preview", self.store, "--now", time, "--json").succeeds().json()
    }

    /// What the planner says must be left.
    pub fn kept(&self, now: u64) -> Kept {
        let states: Vec<State> = self.oracle.seqs().map(|(seq, time)| State { seq, time }).collect();
        self.policy.keeps(&states, &self.marks, now)
    }

    /// What the store says can be opened, without seq 0: the exact ranges of its first volume, what is retained,
    /// and what bookmarks name. Every statement in it that can be checked against the traces is.
    #[track_caller]
    pub fn openable(&self) -> BTreeSet<u64> {
        let points = self.points();
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is not a number"));
        let list = |key: &str| points[key].as_array().unwrap_or_else(|| panic!("no {key}: {points}"));
        let all: BTreeSet<u64> = self.oracle.seqs().map(|(seq, _)| seq).collect();
        let first = &points["volumes"][0]["name"];
        let mut found = BTreeSet::new();
        for range in list("exact").iter().filter(|range| range["volume"] == *first) {
            found.extend(all.range(number(&range["from_seq"])..=number(&range["to_seq"])));
        }
        for point in list("retained") {
            let seq = number(&point["seq"]);
            assert!(seq == 0 || time_in(&point["time"]) == self.oracle.time_of(seq), "{point}");
            assert!(point["window"].is_string() && point["why"].is_string(), "{point}");
            found.insert(seq);
        }
        for bookmark in list("bookmarks") {
            let name = bookmark["name"].as_str().expect("a name");
            let mark = self.marks.iter().find(|mark| mark.name == name);
            let mark = mark.unwrap_or_else(|| panic!("a bookmark that no one made: {bookmark}"));
            assert_eq!(bookmark["seq"], mark.seq, "{bookmark}");
            assert_eq!(time_in(&bookmark["time"]), mark.time, "{bookmark}");
            assert_eq!(bookmark["locked"], mark.locked, "{bookmark}");
            found.insert(mark.seq);
        }
        found.remove(&0);
        assert_eq!(points["newest"]["seq"], self.oracle.newest());
        found
    }

    /// The names of the bookmarks that the store has.
    #[track_caller]
    pub fn bookmark_names(&self) -> BTreeSet<String> {
        let list = cdp!("bookmark", "list", self.store, "--json").succeeds().json();
        let list = list["bookmarks"].as_array().expect("a list").iter();
        list.map(|bookmark| bookmark["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Asserts that what is left is exactly what the planner says, and returns it.
    #[track_caller]
    pub fn assert_planned(&self, now: u64) -> Kept {
        let mut kept = self.kept(now);
        kept.seqs.remove(&0);
        let found = self.openable();
        let missing: Vec<_> = kept.seqs.difference(&found).collect();
        let extra: Vec<_> = found.difference(&kept.seqs).collect();
        let marks = self.marks.iter().map(|mark| {
            let (kind, app) = (mark.kind, mark.app.unwrap_or("-"));
            format!("{} {kind} {app} seq {} at {}\n", mark.name, mark.seq, format_time(mark.time))
        });
        let marks = marks.collect::<String>();
        let context = || format!("at {} under\n{}\n{marks}", format_time(now), self.policy.toml());
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{}missing {missing:?}, too many {extra:?}",
            context()
        );
        assert_eq!(self.bookmark_names(), kept.bookmarks, "bookmarks {}", context());
        if let Some(first) = kept.full_from {
            let points = self.points();
            let covered = points["exact"].as_array().expect("a list").iter().any(|range| {
                range["from_seq"].as_u64() <= Some(first)
                    && range["to_seq"].as_u64() == Some(self.oracle.newest())
            });
            assert!(covered, "the full window from {first} is not one exact range: {}", points["exact"]);
        }
        kept
    }

    /// Asserts that every volume restores at these seqs.
    #[track_caller]
    pub fn assert_open<'a>(&self, seqs: impl IntoIterator<Item = &'a u64>) {
        for seq in seqs {
            for volume in self.volume_names() {
                self.assert_restores(&format!("seq:{seq}"), &volume, *seq);
            }
        }
    }

    /// Asserts that these seqs are refused, and that the neighbours among `open` are named.
    #[track_caller]
    pub fn assert_refused<'a>(&self, seqs: impl IntoIterator<Item = &'a u64>, open: &BTreeSet<u64>) {
        let volume = self.volume_names().remove(0);
        for seq in seqs {
            let ran = self.assert_unavailable(&format!("seq:{seq}"), &volume);
            let (below, above) = (open.range(..seq).next_back(), open.range(seq + 1..).next());
            let named: BTreeSet<u64> =
                named_seqs(&ran.stderr).into_iter().filter(|named| named != seq).collect();
            let expected: BTreeSet<u64> = below.into_iter().chain(above).copied().collect();
            assert!(expected.is_subset(&named), "{expected:?} are the nearest:\n{}", ran.described());
            let strange: Vec<_> = named.difference(open).filter(|named| **named > 0).collect();
            assert!(strange.is_empty(), "{strange:?} do not open:\n{}", ran.described());
        }
    }

    /// Asserts the same of every one of these seqs, through the library that a reader of the store links: one process for each would
    /// take hours.
    #[track_caller]
    pub fn assert_every_refused(&self, seqs: &BTreeSet<u64>, open: &BTreeSet<u64>) {
        let storage = DirectoryStorage::open_read_only(&self.store, DirectoryOptions::default());
        let storage = Arc::new(storage.expect("the store"));
        let store = Store::open_read_only(storage, OpenOptions::default()).expect("the store");
        let volume = store.volume(None).expect("the first volume");
        for seq in seqs {
            let Err(cdp_core::Error::PointUnavailable(refused)) = volume.snapshot(Seq::new(*seq)) else {
                panic!("seq:{seq} was thinned away and is not refused");
            };
            let named = [refused.before, refused.after].map(|point| point.map(|point| point.seq.get()));
            let nearest =
                [open.range(..seq).next_back(), open.range(seq + 1..).next()].map(|seq| seq.copied());
            assert_eq!(named, nearest, "the nearest of seq:{seq}");
        }
    }

    /// Asserts that `diff` covers what differs between two points, and names only what was written between them.
    #[track_caller]
    pub fn assert_difference(&self, volume: &str, from: u64, to: u64) {
        let (first, last) = (format!("seq:{from}"), format!("seq:{to}"));
        let ran = cdp!("diff", self.store, "--from", first, "--to", last, "--volume", volume, "--json");
        let report = ran.succeeds().json();
        let extents: Vec<(u64, u64)> = report["extents"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|extent| {
                let number = |key: &str| extent[key].as_u64().expect("a number");
                (number("offset"), number("offset") + number("length"))
            })
            .collect();
        let covers = |outer: &[(u64, u64)], (start, end): (u64, u64)| {
            outer.iter().any(|range| range.0 <= start && end <= range.1)
        };
        assert!(extents.windows(2).all(|pair| pair[0].1 < pair[1].0), "not ascending and merged: {report}");
        for range in self.oracle.image(volume, from).differing(&self.oracle.image(volume, to)) {
            assert!(covers(&extents, range), "{range:?} differs and is not in {report}");
        }
        let written = self.oracle.touched(volume, from, to, 4096);
        for range in &extents {
            assert!(covers(&written, *range), "{range:?} of {report} was not written");
        }
    }

    pub fn volume_names(&self) -> Vec<String> {
        self.oracle.volume_names()
    }

    /// Asserts that the store is no larger than what its points need, with the overhead that is allowed.
    #[track_caller]
    pub fn assert_small(&self, kept: &Kept) {
        let (needed, allocated) = (self.oracle.seen_bytes(&kept.seqs), files::allocated_below(&self.store));
        println!("{allocated} bytes allocated for {needed}: {}%", allocated * 100 / needed);
        assert!(allocated * 10 <= needed * 13, "{allocated} bytes are allocated, {needed} are needed");
    }

    /// A few of these numbers, or all of them when there are no more.
    pub fn some(random: &mut Random, seqs: &BTreeSet<u64>, count: usize) -> BTreeSet<u64> {
        if seqs.len() <= count {
            return seqs.clone();
        }
        let all: Vec<u64> = seqs.iter().copied().collect();
        (0..count).map(|_| all[super::index(random.below(all.len() as u64))]).collect()
    }

    /// The seqs of the history that are not among these.
    pub fn others(&self, open: &BTreeSet<u64>) -> BTreeSet<u64> {
        self.oracle.seqs().map(|(seq, _)| seq).filter(|seq| !open.contains(seq)).collect()
    }
}

/// The numbers after `seq:` in a message.
fn named_seqs(text: &str) -> Vec<u64> {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
    text.split("seq:").skip(1).filter_map(|part| digits(part).parse().ok()).collect()
}
