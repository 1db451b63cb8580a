//! A slow planner, written from the sentences of the contract: it lists every state and lives through every instant at which
//! anything could happen, and does then what the sentences say. It knows no edges and looks at nothing before its time.

use super::memory::Memory;
use cdp_core::{
    Bookmark,
    retention::{Keep, Policy, Slots, Window},
};
use std::collections::{BTreeMap, BTreeSet};

/// A state or bookmark on its way: how many windows have kept it.
#[derive(Clone)]
struct Thing {
    time: i128,
    seq: u64,
    windows: usize,
    bookmark: Option<Bookmark>,
    gone: bool,
}

/// What stays: seqs and names.
#[derive(Debug, PartialEq, Eq)]
pub struct Stays {
    pub points: BTreeSet<u64>,
    pub bookmarks: BTreeSet<String>,
}

struct World<'a> {
    policy: &'a Policy,
    things: Vec<Thing>,
    /// Times of the states, by seq, for those that bookmarks name.
    times: Vec<i128>,
}

/// What is left at `now` of a history that was never thinned before.
pub fn stays(memory: &Memory, policy: &Policy, now: u64, pins: &[u64], horizon: u64) -> Stays {
    let times: Vec<i128> = memory.written.iter().map(|written| i128::from(written.time)).collect();
    // Seq 0 was never written.
    let states = (1..=memory.newest_seq()).filter(|seq| memory.is_point(*seq));
    let states = states.map(|seq| Thing {
        time: times[usize::try_from(seq).unwrap()],
        seq,
        windows: 0,
        bookmark: None,
        gone: false,
    });
    let bookmarks = memory.bookmarks.iter().map(|bookmark| Thing {
        time: i128::from(bookmark.time.get()),
        seq: bookmark.seq.get(),
        windows: 0,
        bookmark: Some(bookmark.clone()),
        gone: false,
    });
    let things = states.chain(bookmarks).collect();
    let mut world = World { policy, things, times };
    let (now, horizon) = (i128::from(now), i128::from(horizon));
    for instant in world.instants(now) {
        world.live(instant);
    }
    world.left(memory, now, pins, horizon)
}

impl World<'_> {
    fn from(&self, window: usize) -> i128 {
        if window == 0 { 0 } else { i128::from(self.policy.windows[window - 1].to) }
    }

    /// Every instant up to now at which something may be decided.
    fn instants(&self, now: i128) -> BTreeSet<i128> {
        let mut instants = BTreeSet::from([now]);
        for thing in &self.things {
            let ages = self.policy.windows.iter().map(|window| window.to).chain(self.policy.max_age);
            instants.extend(ages.map(|age| thing.time + i128::from(age)));
            let expires = thing.bookmark.as_ref().and_then(|bookmark| bookmark.expires);
            instants.extend(expires.map(|expires| i128::from(expires.get())));
            instants.insert(thing.time);
            for chooser in 0..self.policy.windows.len() {
                // The slots around it, of this window and of those before: one may wait for the other.
                let mut ends = vec![thing.time + 1];
                for window in (0..=chooser).rev() {
                    if let Keep::Every(slots) = &self.policy.windows[window].keep {
                        let more: Vec<i128> = ends.iter().map(|end| slot(slots, end - 1).1).collect();
                        ends.extend(more);
                    }
                }
                for window in 0..=chooser {
                    instants.extend(ends.iter().map(|end| end + self.from(window)));
                    instants.extend(ends.iter().map(|end| end - 1 + self.from(window)));
                }
            }
        }
        instants.into_iter().filter(|instant| *instant <= now).collect()
    }

    fn live(&mut self, now: i128) {
        for index in 0..self.things.len() {
            let thing = &self.things[index];
            let locked = thing.bookmark.as_ref().is_some_and(|bookmark| bookmark.locked);
            let expires = thing.bookmark.as_ref().and_then(|bookmark| bookmark.expires);
            let expired =
                expires.is_some_and(|expires| i128::from(expires.get()) <= now && thing.time <= now);
            if (expired || self.too_old(thing.time, now)) && !locked {
                self.things[index].gone = true;
            }
        }
        for index in 0..self.policy.windows.len() {
            let window = &self.policy.windows[index].clone();
            match &window.keep {
                Keep::All => self.each(index, now, |_| true),
                Keep::None => self.each(index, now, |thing| passes(window, thing)),
                Keep::Every(slots) => self.slots(index, window, slots, now),
            }
        }
    }

    /// max_age drops at age >= it; what is older than the last window goes.
    fn too_old(&self, time: i128, now: i128) -> bool {
        let ages = self.policy.windows.last().map(|window| window.to).into_iter().chain(self.policy.max_age);
        ages.min().is_some_and(|age| now - time >= i128::from(age))
    }

    /// Whether a window has decided what happened at an instant.
    fn decided(&self, window: usize, time: i128, now: i128) -> bool {
        let last = match &self.policy.windows[window].keep {
            Keep::Every(slots) => slot(slots, time).1 - 1,
            _ => time,
        };
        let reached = match &self.policy.windows[window].keep {
            Keep::Every(_) => now - (last + 1) >= self.from(window),
            _ => now - last >= self.from(window),
        };
        reached && (window == 0 || self.decided(window - 1, last, now))
    }

    /// A window without slots decides each thing by itself.
    fn each(&mut self, window: usize, now: i128, keeps: impl Fn(&Thing) -> bool) {
        for index in 0..self.things.len() {
            let thing = &self.things[index];
            if !thing.gone && thing.windows == window && self.decided(window, thing.time, now) {
                let keeps = keeps(thing);
                self.things[index].windows += 1;
                self.things[index].gone = !keeps;
            }
        }
    }

    fn slots(&mut self, index: usize, window: &Window, slots: &Slots, now: i128) {
        let mut contents: BTreeMap<i128, Vec<usize>> = BTreeMap::new();
        for (at, thing) in self.things.iter().enumerate() {
            if !thing.gone && thing.windows == index && self.decided(index, thing.time, now) {
                contents.entry(slot(slots, thing.time).0).or_default().push(at);
            }
        }
        for (start, inside) in contents {
            let mut wanted: Vec<(usize, i128, u64, String, usize)> = Vec::new();
            for at in &inside {
                let thing = &self.things[*at];
                let Some(bookmark) = &thing.bookmark else { continue };
                let Some(rank) = slots.prefer.iter().position(|kind| *kind == bookmark.kind) else {
                    continue;
                };
                wanted.push((rank, -thing.time, u64::MAX - thing.seq, bookmark.name.clone(), *at));
            }
            wanted.sort();
            wanted.truncate(usize::try_from(slots.per_slot).unwrap());
            let chosen: BTreeSet<usize> = wanted.iter().map(|wanted| wanted.4).collect();

            // All that is kept and was written in this slot, as a state or under the name of a bookmark of this slot.
            let end = start + i128::from(slots.interval);
            let written = |seq: u64| self.times[usize::try_from(seq).unwrap()];
            let last = inside.iter().map(|at| self.things[*at].seq);
            let last = last.filter(|seq| *seq > 0 && (start..end).contains(&written(*seq)));
            let last = last.filter(|seq| !self.too_old(written(*seq), now)).max();
            let top_up = last.filter(|_| chosen.len() < usize::try_from(slots.per_slot).unwrap());

            let mut top_up_found = false;
            for at in inside {
                let thing = &mut self.things[at];
                thing.windows += 1;
                thing.gone = match &thing.bookmark {
                    None => Some(thing.seq) != top_up,
                    Some(_) => !chosen.contains(&at) && !passes(window, thing),
                };
                top_up_found |= thing.bookmark.is_none() && !thing.gone;
            }
            // The state that a bookmark brought here is kept for itself now.
            if let (Some(seq), false) = (top_up, top_up_found) {
                let time = written(seq);
                self.things.push(Thing { time, seq, windows: index + 1, bookmark: None, gone: false });
            }
        }
    }

    fn left(&self, memory: &Memory, now: i128, pins: &[u64], horizon: i128) -> Stays {
        let there = |thing: &&Thing| !thing.gone;
        let in_space = |thing: &&Thing| {
            thing.time >= horizon || thing.bookmark.as_ref().is_some_and(|bookmark| bookmark.locked)
        };
        let mut points: BTreeSet<u64> =
            self.things.iter().filter(there).filter(in_space).map(|thing| thing.seq).collect();
        // The state before everything goes with the first write.
        let first = (1..=memory.newest_seq()).find(|seq| memory.is_point(*seq));
        let first_time = first.map(|first| self.times[usize::try_from(first).unwrap()]);
        let choosing = self.policy.windows.iter().position(|window| window.keep != Keep::All);
        let first_stays = |time: i128| {
            time >= horizon
                && !self.too_old(time, now)
                && choosing.is_none_or(|window| !self.decided(window, time, now))
        };
        if first_time.is_none_or(first_stays) {
            points.insert(0);
        }
        // The first window's exact range starts at the last state at or before now - to.
        if let Some(window) = self.policy.windows.first().filter(|window| window.keep == Keep::All) {
            let edge = now - i128::from(window.to);
            let all = (0..=memory.newest_seq()).filter(|seq| memory.is_point(*seq));
            let start =
                all.filter(|seq| self.times[usize::try_from(*seq).unwrap()] <= edge).max().unwrap_or(0);
            let time =
                if start == 0 { first_time } else { Some(self.times[usize::try_from(start).unwrap()]) };
            if time.is_none_or(|time| time >= horizon) {
                points.insert(start);
            }
        }
        points.insert(memory.newest_seq());
        points.extend(pins);
        let bookmarks =
            self.things.iter().filter(there).filter(in_space).filter_map(|thing| thing.bookmark.as_ref());
        Stays { points, bookmarks: bookmarks.map(|bookmark| bookmark.name.clone()).collect() }
    }
}

/// The slot of an instant: start and end.
fn slot(slots: &Slots, time: i128) -> (i128, i128) {
    let every = i128::from(slots.interval);
    let start = time.div_euclid(every) * every;
    (start, start + every)
}

fn passes(window: &Window, thing: &Thing) -> bool {
    thing.bookmark.as_ref().is_some_and(|bookmark| {
        bookmark.locked || window.bookmarks.passes(bookmark.kind, bookmark.app.as_deref(), &bookmark.name)
    })
}
