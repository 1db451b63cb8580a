//! Random policies and histories, small enough that every edge is met often. Splitmix64; all follows from the seed.

use super::memory::{Memory, Written, bookmark};
use cdp_core::{
    Bookmark, BookmarkKind,
    retention::{BookmarkFilter, BookmarkSelection, Keep, NamePattern, Policy, Slots, Window},
    units::TimeNs,
};

pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }

    fn one_of(&mut self, seldom: u64, often: u64) -> u64 {
        if self.one_in(3) { seldom } else { often }
    }

    fn kind(&mut self) -> BookmarkKind {
        BookmarkKind::ALL[usize::try_from(self.below(4)).unwrap()]
    }

    fn kinds(&mut self) -> Vec<BookmarkKind> {
        let mut kinds = BookmarkKind::ALL.to_vec();
        for at in 0..kinds.len() {
            kinds.swap(at, usize::try_from(self.below(4)).unwrap());
        }
        kinds.truncate(usize::try_from(self.below(5)).unwrap());
        kinds
    }
}

/// A valid policy with windows of up to some 150 ns in all.
pub fn policy(random: &mut Random) -> Policy {
    loop {
        let mut windows = Vec::new();
        let mut to = 0;
        for index in 0..random.below(5) {
            let (longest, interval) = (random.one_of(6, 50), random.one_of(60, 12));
            to += 1 + random.below(longest);
            let keep = match random.below(10) {
                0 | 1 => Keep::None,
                2..=5 if index == 0 => Keep::All,
                2 => Keep::All,
                _ => Keep::Every(Slots {
                    interval: 1 + random.below(interval),
                    per_slot: 1 + u32::try_from(random.below(3)).unwrap(),
                    prefer: random.kinds(),
                }),
            };
            let bookmarks = match random.below(5) {
                0 | 1 => BookmarkFilter::None,
                2 => BookmarkFilter::All,
                3 => BookmarkFilter::Only(BookmarkSelection {
                    kinds: Some(vec![random.kind()]),
                    ..BookmarkSelection::default()
                }),
                _ => BookmarkFilter::Only(BookmarkSelection {
                    names: Some(NamePattern::new("*0").unwrap()),
                    ..BookmarkSelection::default()
                }),
            };
            windows.push(Window { to, keep, bookmarks });
        }
        let max_age = random.one_in(3).then(|| 1 + random.below(150));
        let policy = Policy { windows, max_age, ..Policy::default() };
        if policy.validate().is_ok() {
            return policy;
        }
    }
}

/// What happens to a history, in order of time.
#[derive(Clone, Debug)]
pub enum Event {
    Write(Written),
    Bookmark(Bookmark),
}

impl Event {
    pub fn time(&self) -> u64 {
        match self {
            Self::Write(written) => written.time,
            Self::Bookmark(bookmark) => bookmark.time.get(),
        }
    }
}

/// Where times begin: anywhere, and close to both ends of what there is.
pub fn first_time(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => random.below(4),
        1 => u64::MAX - 400 + random.below(60),
        2 => 1_700_000_000_000_000_000,
        _ => 1000 + random.below(500),
    }
}

/// Up to sixty writes and bookmarks over some 200 ns, each bookmark set at the newest state when it happens.
pub fn events(random: &mut Random) -> Vec<Event> {
    let mut time = first_time(random);
    let coalesced = random.one_in(3);
    let (mut seq, mut events) = (0, Vec::new());
    for index in 0..random.below(60) {
        time = time.saturating_add(match random.below(8) {
            0..=2 => 0,
            7 => random.below(40),
            _ => random.below(6),
        });
        // At the last instant there is nothing left to come.
        time = time.min(u64::MAX - 1);
        if random.one_in(3) {
            let mut mark = bookmark(&format!("b{index}"), random.kind(), seq, time);
            mark.locked = random.one_in(8);
            mark.expires = random.one_in(5).then(|| TimeNs::new(time.saturating_add(random.below(120))));
            events.push(Event::Bookmark(mark));
        } else {
            seq += 1;
            events.push(Event::Write(Written { time, is_point: true }));
        }
    }
    if coalesced {
        hide_points(random, &mut events);
    }
    events
}

/// Makes some writes coalesced ones, where no bookmark names their state.
fn hide_points(random: &mut Random, events: &mut [Event]) {
    for at in 0..events.len() {
        let named = matches!(events.get(at + 1), Some(Event::Bookmark(_)) | None);
        if let Event::Write(written) = &mut events[at]
            && !named
        {
            written.is_point = random.one_in(2);
        }
    }
}

/// A history in which all of `events` have happened.
pub fn history(events: &[Event]) -> Memory {
    let mut memory = Memory::new();
    for event in events {
        apply(&mut memory, event);
    }
    memory
}

pub fn apply(memory: &mut Memory, event: &Event) {
    match event {
        Event::Write(written) => memory.written.push(*written),
        Event::Bookmark(bookmark) => memory.bookmarks.push(bookmark.clone()),
    }
}

/// Bookmarks at older states, with the time of that state or any other.
pub fn set_old_bookmarks(random: &mut Random, memory: &mut Memory) {
    for index in 0..random.below(4) {
        let seq = random.below(memory.newest_seq() + 1);
        if !memory.is_point(seq) {
            continue;
        }
        let time = if random.one_in(2) {
            memory.point(seq).time.get()
        } else {
            memory.point(1.min(memory.newest_seq())).time.get().saturating_add(random.below(200))
        };
        let time = time.min(u64::MAX - 1);
        let mut mark = bookmark(&format!("old{index}"), random.kind(), seq, time);
        mark.locked = random.one_in(4);
        memory.bookmarks.push(mark);
    }
}
