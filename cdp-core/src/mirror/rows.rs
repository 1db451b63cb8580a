//! Copies that are written beside each other: a row of changes for each copy, carried out in order by one who works for that copy.
//!
//! A change enters the row of every copy that takes it, and its caller waits for as many as it needs. What a slow copy has not done yet waits in its row: the row
//! is bounded in bytes, and the caller marks in the map of the copy what finds no place there. Invariants:
//! - *in order*: the changes of a row are carried out in the order in which they entered it, a sync behind the writes that it covers;
//! - *pending*: from the moment when it enters a row until it is done, a range is pending for that copy: nobody reads it there, repairs it there, or calls it equal;
//! - *fail-stop*: a row stops at its first failure, and what is behind it stays pending until the copy has left, with everything marked;
//! - *bounded*: at most `behind_bytes_max` bytes wait for a copy, but for one change that nobody else could take.

use super::copy::MirrorCopy;
use crate::{
    dirty_map::ByteRange,
    io::AlignedBuf,
    units::{BLOCK_BYTES, len_u64},
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How seldom a copy has its turn that is slow by decision of the generator: one time in so many.
const SLOW: usize = 16;

/// Who carries out the changes of the copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writers {
    /// The caller, on one copy after the other, before it returns.
    #[default]
    Caller,
    /// A thread for each copy, from its first change until the set is dropped.
    Threads,
    /// No thread. A caller carries out what it needs, on the copies that a generator of random numbers names, one of which is slow; the rest waits for
    /// [`MirrorSet::step_writers`](super::MirrorSet::step_writers) and for the next that needs it.
    Stepped {
        /// Where the generator begins: the same calls carry out the same changes again.
        seed: u64,
    },
}

/// What is done to a copy.
pub(super) enum Task {
    Write(u64, AlignedBuf, usize),
    Zero(ByteRange),
    Sync,
}

impl Task {
    fn range(&self) -> Option<ByteRange> {
        match self {
            Self::Write(offset, _, len) => Some(ByteRange::new(*offset, len_u64(*len))),
            Self::Zero(range) => Some(*range),
            Self::Sync => None,
        }
    }

    /// What it counts for in a row.
    fn cost(&self) -> u64 {
        match self {
            Self::Write(_, _, len) => len_u64(*len).max(BLOCK_BYTES),
            _ => BLOCK_BYTES,
        }
    }

    fn carry_out(&self, copy: &dyn MirrorCopy) -> io::Result<()> {
        match self {
            Self::Write(offset, data, len) => copy.write_at(*offset, &data[..*len]),
            Self::Zero(range) => copy.write_zeroes(*range),
            Self::Sync => copy.sync(),
        }
    }
}

/// An error that is told to several.
#[derive(Clone, Debug)]
struct Told {
    errno: Option<i32>,
    kind: io::ErrorKind,
    text: String,
}

impl Told {
    fn of(error: &io::Error) -> Self {
        Self { errno: error.raw_os_error(), kind: error.kind(), text: error.to_string() }
    }

    fn error(&self) -> io::Error {
        self.errno.map_or_else(|| io::Error::new(self.kind, self.text.clone()), io::Error::from_raw_os_error)
    }
}

/// What came of a submission so far.
#[derive(Default)]
pub(super) struct Outcome {
    /// Copies that have done it.
    pub(super) done: Vec<u32>,
    failed: Vec<(u32, Told)>,
    waiting: usize,
}

impl Outcome {
    /// The copies that failed.
    pub(super) fn failures(&self) -> Vec<(u32, io::Error)> {
        self.failed.iter().map(|(number, told)| (*number, told.error())).collect()
    }
}

/// A task that was given to several copies.
pub(super) struct Submission {
    task: Task,
    outcome: Mutex<Outcome>,
    changed: Condvar,
    /// Whoever submitted it still waits, and takes care of failures.
    attended: AtomicBool,
}

impl Submission {
    pub(super) fn new(task: Task) -> Arc<Self> {
        let (outcome, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { task, outcome, changed, attended: AtomicBool::new(true) })
    }

    fn answer(&self, number: u32, answer: Result<(), Told>) {
        let mut outcome = self.outcome.lock();
        outcome.waiting -= 1;
        match answer {
            Ok(()) => outcome.done.push(number),
            Err(told) => outcome.failed.push((number, told)),
        }
        drop(outcome);
        self.changed.notify_all();
    }

    /// What came of it up to now.
    pub(super) fn outcome(&self) -> Outcome {
        let outcome = self.outcome.lock();
        Outcome { done: outcome.done.clone(), failed: outcome.failed.clone(), waiting: outcome.waiting }
    }

    /// Nobody waits any more: the next who uses the set takes care of failures.
    pub(super) fn leave(&self) {
        self.attended.store(false, SeqCst);
    }
}

struct Job {
    copy: Arc<dyn MirrorCopy>,
    submission: Arc<Submission>,
}

#[derive(Default)]
struct RowState {
    queue: VecDeque<Job>,
    running: bool,
    pending: Vec<ByteRange>,
    bytes: u64,
    /// Syncs that were submitted and are not done.
    syncs: usize,
    failed: Option<(Told, Arc<Submission>)>,
    ended: bool,
}

impl RowState {
    fn settle(&mut self, task: &Task) {
        self.bytes = self.bytes.saturating_sub(task.cost());
        match task.range() {
            Some(range) => {
                if let Some(at) = self.pending.iter().position(|other| *other == range) {
                    self.pending.remove(at);
                }
            }
            None => self.syncs = self.syncs.saturating_sub(1),
        }
    }

    fn is_pending(&self, range: ByteRange) -> bool {
        self.pending.iter().any(|other| other.offset < range.end() && range.offset < other.end())
    }

    fn is_idle(&self) -> bool {
        !self.running && (self.queue.is_empty() || self.failed.is_some())
    }
}

/// The row of one copy.
#[derive(Default)]
struct Row {
    state: Mutex<RowState>,
    changed: Condvar,
}

impl Row {
    /// Carries out the next change. False when there is none, or somebody is at it.
    fn step(&self, number: u32) -> bool {
        let job = {
            let mut state = self.state.lock();
            if state.running || state.failed.is_some() {
                return false;
            }
            let Some(job) = state.queue.pop_front() else { return false };
            state.running = true;
            job
        };
        let done = job.submission.task.carry_out(&*job.copy).map_err(|error| Told::of(&error));
        let mut state = self.state.lock();
        state.running = false;
        match &done {
            Ok(()) => state.settle(&job.submission.task),
            Err(told) => state.failed = Some((told.clone(), Arc::clone(&job.submission))),
        }
        drop(state);
        self.changed.notify_all();
        job.submission.answer(number, done);
        true
    }

    fn work(&self, number: u32) {
        loop {
            {
                let mut state = self.state.lock();
                while !state.ended && (state.queue.is_empty() || state.failed.is_some()) {
                    self.changed.wait(&mut state);
                }
                if state.ended {
                    return;
                }
            }
            self.step(number);
        }
    }
}

/// What became of a task that was given to a copy.
pub(super) enum Given {
    Taken,
    /// The row is full.
    Full,
    /// The row has stopped.
    Failed(io::Error),
}

/// The rows of all copies.
pub(super) struct Rows {
    writers: Writers,
    behind_bytes_max: u64,
    patience: Duration,
    rows: Mutex<BTreeMap<u32, Arc<Row>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    random: Mutex<u64>,
    /// The copy that is slow where a generator decides.
    slow: Option<u32>,
    /// Held from the look for a copy that lacks nothing until another one is marked because there is one.
    pub(super) marking: Mutex<()>,
}

impl Rows {
    /// Rows, unless the caller is to do everything.
    pub(super) fn new(writers: Writers, behind_bytes_max: u64, patience: Duration) -> Option<Self> {
        let (random, slow) = match writers {
            Writers::Caller => return None,
            Writers::Threads => (1, None),
            Writers::Stepped { seed } => (seed, u32::try_from(seed % 4).ok()),
        };
        Some(Self {
            writers,
            behind_bytes_max,
            patience,
            rows: Mutex::default(),
            threads: Mutex::default(),
            random: Mutex::new(random | 1),
            slow,
            marking: Mutex::new(()),
        })
    }

    fn has_threads(&self) -> bool {
        self.writers == Writers::Threads
    }

    fn row(&self, number: u32) -> io::Result<Arc<Row>> {
        let mut rows = self.rows.lock();
        if let Some(row) = rows.get(&number) {
            return Ok(Arc::clone(row));
        }
        let row = Arc::new(Row::default());
        if self.has_threads() {
            let own = Arc::clone(&row);
            let thread = std::thread::Builder::new().name("cdp-mirror".into());
            self.threads.lock().push(thread.spawn(move || own.work(number))?);
        }
        rows.insert(number, Arc::clone(&row));
        Ok(row)
    }

    fn all(&self) -> Vec<(u32, Arc<Row>)> {
        self.rows.lock().iter().map(|(number, row)| (*number, Arc::clone(row))).collect()
    }

    fn existing(&self, number: u32) -> Option<Arc<Row>> {
        self.rows.lock().get(&number).cloned()
    }

    /// Gives a task to a copy; `bounded`: only if there is room for it.
    pub(super) fn give(
        &self,
        number: u32,
        copy: &Arc<dyn MirrorCopy>,
        submission: &Arc<Submission>,
        bounded: bool,
    ) -> Given {
        let row = match self.row(number) {
            Ok(row) => row,
            Err(error) => return Given::Failed(error),
        };
        let mut state = row.state.lock();
        if let Some((told, _)) = &state.failed {
            return Given::Failed(told.error());
        }
        let cost = submission.task.cost();
        if bounded && state.bytes > 0 && state.bytes + cost > self.behind_bytes_max {
            return Given::Full;
        }
        submission.outcome.lock().waiting += 1;
        state.bytes += cost;
        state.pending.extend(submission.task.range());
        state.syncs += usize::from(submission.task.range().is_none());
        state.queue.push_back(Job { copy: Arc::clone(copy), submission: Arc::clone(submission) });
        drop(state);
        row.changed.notify_all();
        Given::Taken
    }

    /// A number below `bound`.
    fn below(&self, bound: usize) -> usize {
        let mut random = self.random.lock();
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        usize::try_from(*random >> 33).unwrap_or(0) % bound.max(1)
    }

    /// Carries out one change of a random row that has one. False where there is none, or threads do it.
    pub(super) fn step_any(&self) -> bool {
        if self.has_threads() {
            return false;
        }
        let (mut rows, mut last) = (self.all(), None);
        while !rows.is_empty() {
            let (number, row) = rows.swap_remove(self.below(rows.len()));
            // One copy is slow: it has its turn when nobody else does, and seldom otherwise.
            if self.slow == Some(number) && self.below(SLOW) > 0 {
                last = Some((number, row));
            } else if row.step(number) {
                return true;
            }
        }
        last.is_some_and(|(number, row)| row.step(number))
    }

    /// Waits until `enough` is so, or every copy has answered.
    pub(super) fn wait(&self, submission: &Submission, enough: impl Fn(&Outcome) -> bool) {
        loop {
            let mut outcome = submission.outcome.lock();
            if outcome.waiting == 0 || enough(&outcome) {
                return;
            }
            if self.has_threads() {
                submission.changed.wait(&mut outcome);
            } else {
                drop(outcome);
                if !self.step_any() {
                    return;
                }
            }
        }
    }

    /// Gives slow copies some time to answer.
    pub(super) fn wait_patiently(&self, submission: &Submission) {
        let until = Instant::now() + self.patience;
        loop {
            let mut outcome = submission.outcome.lock();
            if outcome.waiting == 0 {
                return;
            }
            if self.has_threads() {
                if submission.changed.wait_until(&mut outcome, until).timed_out() {
                    return;
                }
            } else {
                drop(outcome);
                if self.below(8) == 0 || !self.step_any() {
                    return;
                }
            }
        }
    }

    /// Waits for a row until `ready`, or it has stopped.
    fn wait_row(&self, number: u32, row: &Row, ready: impl Fn(&RowState) -> bool) {
        loop {
            let mut state = row.state.lock();
            if state.failed.is_some() || ready(&state) {
                return;
            }
            if self.has_threads() {
                row.changed.wait(&mut state);
            } else {
                drop(state);
                row.step(number);
            }
        }
    }

    /// Whether a copy has not done everything yet in a range.
    pub(super) fn is_pending(&self, number: u32, range: ByteRange) -> bool {
        self.existing(number).is_some_and(|row| row.state.lock().is_pending(range))
    }

    /// Waits until a copy has done everything in a range. False when its row has stopped.
    pub(super) fn wait_for_range(&self, number: u32, range: ByteRange) -> bool {
        let Some(row) = self.existing(number) else { return true };
        self.wait_row(number, &row, |state| !state.is_pending(range));
        row.state.lock().failed.is_none()
    }

    /// Waits until a copy has room.
    pub(super) fn wait_for_room(&self, number: u32) {
        if let Some(row) = self.existing(number) {
            self.wait_row(number, &row, |state| state.bytes <= self.behind_bytes_max / 2);
        }
    }

    /// Waits until every row is done, or has stopped.
    pub(super) fn drain(&self) {
        for (number, row) in self.all() {
            self.wait_row(number, &row, RowState::is_idle);
        }
    }

    /// Whether a copy has not done an earlier sync yet.
    pub(super) fn is_behind(&self, number: u32) -> bool {
        self.existing(number).is_some_and(|row| row.state.lock().syncs > 0)
    }

    /// Whether anything waits.
    pub(super) fn is_busy(&self) -> bool {
        self.all().iter().any(|(_, row)| !row.state.lock().is_idle())
    }

    /// Whether any row has stopped.
    pub(super) fn any_failed(&self) -> bool {
        self.all().iter().any(|(_, row)| row.state.lock().failed.is_some())
    }

    /// Failures that nobody waits for.
    pub(super) fn unattended(&self) -> Vec<(u32, io::Error)> {
        let failed = |row: &Row| {
            let state = row.state.lock();
            let (told, submission) = state.failed.as_ref()?;
            (!submission.attended.load(SeqCst)).then(|| told.error())
        };
        self.all().iter().filter_map(|(number, row)| Some((*number, failed(row)?))).collect()
    }

    /// Empties the row of a copy that has left: whoever waits hears that it failed.
    pub(super) fn forget(&self, number: u32) {
        let Some(row) = self.existing(number) else { return };
        let mut state = row.state.lock();
        let why = state.failed.as_ref().map(|(told, _)| told.clone());
        let why = why.unwrap_or_else(|| Told::of(&io::Error::other("the copy has left the set")));
        let gone = std::mem::take(&mut state.queue);
        while state.running {
            row.changed.wait(&mut state);
        }
        // What entered meanwhile cannot be: the members are held.
        *state = RowState { ended: state.ended, ..RowState::default() };
        drop(state);
        gone.into_iter().for_each(|job| job.submission.answer(number, Err(why.clone())));
    }

    /// Lets the row of a copy that has to stay go on behind the change that failed.
    pub(super) fn revive(&self, number: u32) {
        let Some(row) = self.existing(number) else { return };
        let mut state = row.state.lock();
        if let Some((_, submission)) = state.failed.take() {
            state.settle(&submission.task);
        }
        drop(state);
        row.changed.notify_all();
    }

    /// What a copy has not done yet.
    pub(super) fn pending(&self, number: u32) -> Vec<ByteRange> {
        self.existing(number).map_or_else(Vec::new, |row| row.state.lock().pending.clone())
    }

    /// Bytes that wait for a copy.
    pub(super) fn behind_bytes(&self, number: u32) -> u64 {
        self.existing(number).map_or(0, |row| row.state.lock().bytes)
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        for (_, row) in self.all() {
            row.state.lock().ended = true;
            row.changed.notify_all();
        }
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}
