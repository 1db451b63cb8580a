//! Invariants over random policies and histories. `RETENTION_SEEDS` sets how many; a failure prints its seed, and
//! `RETENTION_SEED` repeats it.

use super::{
    generate::{self, Random},
    memory::{Memory, at},
    sentences::{Stays, stays},
};
use cdp_core::{
    retention::{Pin, Plan},
    units::Seq,
};

fn for_seeds(test: impl Fn(&mut Random)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("RETENTION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RETENTION_SEEDS").unwrap_or(3000),
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&mut Random(seed))));
        if let Err(panic) = result {
            eprintln!("failed with RETENTION_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn last_time(memory: &Memory) -> u64 {
    let bookmarks = memory.bookmarks.iter().map(|bookmark| bookmark.time.get());
    bookmarks.chain([memory.point(memory.newest_seq()).time.get()]).max().unwrap()
}

/// A time around and after the history.
fn some_now(random: &mut Random, memory: &Memory) -> u64 {
    let last = last_time(memory);
    match random.below(8) {
        0 => last.saturating_sub(random.below(100)),
        1 => last,
        2 => u64::MAX,
        _ => last.saturating_add(random.below(180)),
    }
}

fn some_pins(random: &mut Random, memory: &Memory) -> Vec<Pin> {
    let seqs: Vec<u64> = (0..random.below(3)).map(|_| random.below(memory.newest_seq() + 1)).collect();
    let there = memory.there();
    let points = seqs.into_iter().filter(|seq| there.contains(seq)).map(|seq| memory.point(seq));
    points.map(|point| Pin { point, holder: "snapshot s".to_owned() }).collect()
}

fn some_horizon(random: &mut Random, memory: &Memory) -> u64 {
    if random.one_in(3) { last_time(memory).saturating_sub(random.below(150)) } else { 0 }
}

fn after(memory: &Memory, plan: &Plan) -> Stays {
    let mut memory = memory.clone();
    memory.carry_out(plan);
    Stays { points: memory.there(), bookmarks: memory.names() }
}

/// Goal: the planner chooses exactly what the sentences of the contract say. Method: a slow planner that lives through every instant.
#[test]
fn the_planner_does_what_the_sentences_say() {
    for_seeds(|random| {
        let policy = generate::policy(random);
        let mut memory = generate::history(&generate::events(random));
        generate::set_old_bookmarks(random, &mut memory);
        let (now, pins) = (some_now(random, &memory), some_pins(random, &memory));
        let horizon = some_horizon(random, &memory);
        let plan = memory.plan_with(&policy, now, &pins, horizon);
        let pinned: Vec<u64> = pins.iter().map(|pin| pin.point.seq.get()).collect();
        let expected = stays(&memory, &policy, now, &pinned, horizon);
        assert_eq!(after(&memory, &plan), expected, "now {now} {policy:#?}\n{memory:#?}\n{plan:#?}");
    });
}

/// Goal: what a plan says fits together. Method: orders, times and names of the plan held against the history.
#[test]
fn a_plan_is_consistent() {
    for_seeds(|random| {
        let policy = generate::policy(random);
        let mut memory = generate::history(&generate::events(random));
        generate::set_old_bookmarks(random, &mut memory);
        let plan = memory.plan(&policy, some_now(random, &memory));
        assert!(plan.full.from.seq <= Seq::new(memory.newest_seq()));
        let mut before = None;
        for retained in &plan.retained {
            let seq = retained.point.seq.get();
            assert!(before < Some(seq) && retained.point.seq < plan.full.from.seq);
            before = Some(seq);
            assert_eq!(retained.point, memory.point(seq));
            assert_eq!(retained.until, memory.point(seq + 1).time);
            assert!(!retained.why.to_string().is_empty() && !policy.window_name(retained.window).is_empty());
        }
        let mut names: Vec<_> = plan.kept_bookmarks.clone();
        names.extend(plan.dropped_bookmarks.iter().map(|dropped| dropped.name.clone()));
        assert_eq!(names.len(), memory.bookmarks.len());
        assert_eq!(names.into_iter().collect::<std::collections::BTreeSet<_>>(), memory.names());
    });
}

/// Goal: *idempotent*. Method: plan again what a plan left.
#[test]
fn a_plan_of_what_a_plan_left_is_the_same() {
    for_seeds(|random| {
        let policy = generate::policy(random);
        let mut memory = generate::history(&generate::events(random));
        generate::set_old_bookmarks(random, &mut memory);
        let (now, pins) = (some_now(random, &memory), some_pins(random, &memory));
        let horizon = some_horizon(random, &memory);
        let mut first = memory.plan_with(&policy, now, &pins, horizon);
        memory.carry_out(&first);
        let again = memory.plan_with(&policy, now, &pins, horizon);
        first.dropped_bookmarks.clear();
        assert_eq!(again, first, "now {now} {policy:#?}\n{memory:#?}");
    });
}

/// Goal: *any time*. Method: the same events with runs at random times in between, from every event on to one at the end, against none but
/// the last; the slow planner agrees.
#[test]
fn the_outcome_does_not_depend_on_when_runs_happen() {
    for_seeds(|random| {
        let policy = generate::policy(random);
        let events = generate::events(random);
        let whole = generate::history(&events);
        let now = last_time(&whole).saturating_add(random.below(180));
        let chance = 1 + random.below(12);
        let mut memory = Memory::new();
        for (index, event) in events.iter().enumerate() {
            generate::apply(&mut memory, event);
            let next = events.get(index + 1).map_or(now, generate::Event::time);
            // Who runs in the middle of an interval ends it first.
            if memory.written.last().is_some_and(|newest| !newest.is_point) {
                continue;
            }
            let mut time = event.time();
            while random.one_in(chance) && time <= next {
                // What is pinned for a while is as gone as the rest when the pin is.
                let pins = some_pins(random, &memory);
                let plan = memory.plan_with(&policy, time, &pins, 0);
                memory.carry_out(&plan);
                let Some(later) = time.checked_add(1 + random.below(20)) else { break };
                time = later;
            }
        }
        memory.run(&policy, now);
        let left = Stays { points: memory.there(), bookmarks: memory.names() };
        assert_eq!(left, after(&whole, &whole.plan(&policy, now)), "now {now} {policy:#?}\n{whole:#?}");
        assert_eq!(
            left,
            stays(&whole, &policy, now, &[], 0),
            "now {now} {policy:#?}\n{events:#?}\n{memory:#?}"
        );
    });
}

/// Goal: what is gone stays gone. Method: with nothing written, a later plan keeps no more than an earlier one.
#[test]
fn later_plans_keep_no_more() {
    for_seeds(|random| {
        let policy = generate::policy(random);
        let mut memory = generate::history(&generate::events(random));
        generate::set_old_bookmarks(random, &mut memory);
        let now = some_now(random, &memory);
        let early = after(&memory, &memory.plan(&policy, now));
        let late = after(&memory, &memory.plan(&policy, now.saturating_add(random.below(60))));
        assert!(late.points.is_subset(&early.points) && late.bookmarks.is_subset(&early.bookmarks));
    });
}

/// Goal: nothing happens before `next_due`. Method: plans for times up to it, which may differ only in their own time.
#[test]
fn nothing_changes_before_it_is_due() {
    for_seeds(|random| {
        let policy = generate::policy(random);
        let mut memory = generate::history(&generate::events(random));
        generate::set_old_bookmarks(random, &mut memory);
        let (mut now, pins) = (some_now(random, &memory), some_pins(random, &memory));
        for _ in 0..40 {
            let plan = memory.plan_with(&policy, now, &pins, 0);
            let due = plan.next_due.map(cdp_core::units::TimeNs::get);
            assert!(due.is_none_or(|due| due > now));
            let quiet = due.map_or(u64::MAX, |due| due - 1);
            for time in [quiet, now + random.below((quiet - now).saturating_add(1).max(1))] {
                let mut later = memory.plan_with(&policy, time, &pins, 0);
                assert_eq!(later.next_due, plan.next_due, "from {now} to {time} {policy:#?}\n{memory:#?}");
                later.now = plan.now;
                // What is expired can become too old.
                for (later, now) in later.dropped_bookmarks.iter_mut().zip(&plan.dropped_bookmarks) {
                    later.why = now.why;
                }
                assert_eq!(later, plan, "from {now} to {time} {policy:#?}\n{memory:#?}");
            }
            match due {
                Some(due) => now = due,
                None => break,
            }
        }
    });
}

/// Goal: a change of the policy is as good as any. Method: run one, then another; every point that is left is one of before, and
/// planning again changes nothing.
#[test]
fn a_change_of_the_policy_starts_from_what_is_there() {
    for_seeds(|random| {
        let mut memory = generate::history(&generate::events(random));
        let now = some_now(random, &memory);
        let there = memory.run(&generate::policy(random), now);
        memory.forget_plans();
        let policy = generate::policy(random);
        let mut plan = memory.plan(&policy, now);
        memory.carry_out(&plan);
        assert!(memory.there().is_subset(&there));
        plan.dropped_bookmarks.clear();
        assert_eq!(memory.plan(&policy, now), plan, "{policy:#?}\n{memory:#?}");
        assert!(memory.there().contains(&at(memory.newest_seq(), 0).seq.get()));
    });
}
