//! A history in memory: everything that was ever written, and how much of it is still there.

use cdp_core::{
    Bookmark, BookmarkKind, Result, SeqTime,
    retention::{FullRange, History, Kept, Pin, Plan, Policy, Standing, plan},
    units::{Seq, TimeNs},
};
use std::collections::BTreeSet;

/// One write: its time, and whether the state after it is a point.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub time: u64,
    pub is_point: bool,
}

#[derive(Clone, Debug)]
pub struct Memory {
    /// Index 0 is the state before everything.
    pub written: Vec<Written>,
    pub bookmarks: Vec<Bookmark>,
    full: FullRange,
    kept: Vec<Kept>,
    planned_at: Option<TimeNs>,
}

pub fn at(seq: u64, time: u64) -> SeqTime {
    SeqTime { seq: Seq::new(seq), time: TimeNs::new(time) }
}

pub fn bookmark(name: &str, kind: BookmarkKind, seq: u64, time: u64) -> Bookmark {
    Bookmark {
        name: name.to_owned(),
        kind,
        app: None,
        comment: None,
        seq: Seq::new(seq),
        time: TimeNs::new(time),
        locked: false,
        expires: None,
        inexact_volumes: vec![],
        across: None,
    }
}

impl Memory {
    pub fn new() -> Self {
        Self {
            written: vec![Written { time: 0, is_point: true }],
            bookmarks: vec![],
            full: FullRange { from: at(0, 0), standing: Standing::State },
            kept: vec![],
            planned_at: None,
        }
    }

    /// A history of writes at these times.
    pub fn of(times: &[u64]) -> Self {
        let mut memory = Self::new();
        for time in times {
            memory.write(*time);
        }
        memory
    }

    pub fn with(mut self, bookmark: Bookmark) -> Self {
        self.bookmarks.push(bookmark);
        self
    }

    pub fn write(&mut self, time: u64) -> u64 {
        self.written.push(Written { time, is_point: true });
        self.newest_seq()
    }

    pub fn newest_seq(&self) -> u64 {
        self.written.len() as u64 - 1
    }

    pub fn point(&self, seq: u64) -> SeqTime {
        at(seq, self.written[usize::try_from(seq).unwrap()].time)
    }

    pub fn is_point(&self, seq: u64) -> bool {
        // The newest state is a point as long as nothing follows.
        seq == self.newest_seq() || self.written[usize::try_from(seq).unwrap()].is_point
    }

    /// The seqs of all points that are there.
    pub fn there(&self) -> BTreeSet<u64> {
        let full = (self.full.from.seq.get()..=self.newest_seq()).filter(|seq| self.is_point(*seq));
        self.kept.iter().map(|kept| kept.point.seq.get()).chain(full).collect()
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.bookmarks.iter().map(|bookmark| bookmark.name.clone()).collect()
    }

    pub fn carry_out(&mut self, plan: &Plan) {
        let gone = |name: &str| plan.dropped_bookmarks.iter().any(|dropped| dropped.name == name);
        self.bookmarks.retain(|bookmark| !gone(&bookmark.name));
        self.kept = plan.kept();
        self.full = plan.full;
        self.planned_at = self.planned_at.max(Some(plan.now));
    }

    pub fn forget_plans(&mut self) {
        self.planned_at = None;
    }

    pub fn plan(&self, policy: &Policy, now: u64) -> Plan {
        self.plan_with(policy, now, &[], 0)
    }

    pub fn plan_with(&self, policy: &Policy, now: u64, pins: &[Pin], horizon: u64) -> Plan {
        plan(self, policy, TimeNs::new(now), pins, TimeNs::new(horizon)).unwrap()
    }

    /// Carries out a plan, and says what is there then.
    pub fn run(&mut self, policy: &Policy, now: u64) -> BTreeSet<u64> {
        let plan = self.plan(policy, now);
        self.carry_out(&plan);
        self.there()
    }

    fn in_full(&self, seq: Seq) -> u64 {
        assert!(seq >= self.full.from.seq, "seq {seq} asked for, the full range begins at {:?}", self.full);
        seq.get()
    }
}

impl History for Memory {
    fn newest(&self) -> SeqTime {
        self.point(self.newest_seq())
    }

    fn full_range(&self) -> FullRange {
        self.full
    }

    fn kept(&self) -> &[Kept] {
        &self.kept
    }

    fn bookmarks(&self) -> &[Bookmark] {
        &self.bookmarks
    }

    fn planned_at(&self) -> Option<TimeNs> {
        self.planned_at
    }

    fn last_at_or_before(&self, time: TimeNs) -> Result<Option<SeqTime>> {
        let points = (self.full.from.seq.get()..=self.newest_seq()).rev().filter(|seq| self.is_point(*seq));
        Ok(points.map(|seq| self.point(seq)).find(|point| point.time <= time))
    }

    fn next_after(&self, seq: Seq) -> Result<Option<SeqTime>> {
        let after = self.in_full(seq) + 1;
        Ok((after..=self.newest_seq()).find(|seq| self.is_point(*seq)).map(|seq| self.point(seq)))
    }

    fn time_of(&self, seq: Seq) -> Result<Option<TimeNs>> {
        let seq = self.in_full(seq);
        Ok((seq <= self.newest_seq() && self.is_point(seq)).then(|| self.point(seq).time))
    }

    fn until(&self, seq: Seq) -> Result<Option<TimeNs>> {
        let next = self.in_full(seq) + 1;
        Ok((next <= self.newest_seq()).then(|| self.point(next).time))
    }
}
