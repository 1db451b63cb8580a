//! Background work: committing by age, making segments ready, sealing, merging. In steps that the host calls, or in threads that it asks for.

use super::Store;
use crate::{
    error::{Error, Result},
    event::EventKind,
    limits::FRAME_AGE_NS_MAX,
    units::TimeNs,
};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Written frames that are synced together at the latest, so that buffers come back.
const SYNC_FRAMES: usize = 12;
/// Entries merged between two looks at other work.
const MERGE_ENTRIES: u64 = 64 << 10;
/// Pause of the maintenance thread when there is nothing to do.
const IDLE: Duration = Duration::from_millis(20);
/// Pause of the maintenance thread while a segment waits for its last frames.
const SOON: Duration = Duration::from_millis(2);
/// Pause after a failure.
const BACKOFF: Duration = Duration::from_millis(250);
/// Time without writes after which the clock of the group is moved on.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Pause of the drain while writes come in: far less than the pool takes to fill.
const DRAIN_BUSY: Duration = Duration::from_micros(500);
/// Pause of the drain when nothing comes in.
const DRAIN_IDLE: Duration = Duration::from_millis(4);
/// Longest wait of a thread before it looks for work by itself.
const POLL: Duration = Duration::from_millis(50);

/// How much work one step may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Index entries that may be merged.
    pub entries: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { entries: MERGE_ENTRIES }
    }
}

/// What the bundled runner does besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerOptions {
    /// Whether a second without writes moves the clock of the group on: all writes go through this process and are dated by the clock.
    /// Default true. A host that dates writes itself (a replay) says [`Store::cover`] when it knows.
    pub heartbeat: bool,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        Self { heartbeat: true }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// There is more to do at once.
    More,
    /// Nothing is due.
    Idle,
}

impl Store {
    /// Does one slice of background work: commits what is older than 200 ms, makes the next segment ready, seals, merges; sets the bookmark
    /// that is due by the schedule.
    ///
    /// # Errors
    /// Those of the work; what failed is tried again by a later step.
    pub fn step(&self, budget: Budget) -> Result<Stepped> {
        let group = self.owner()?;
        group.seal_aged(FRAME_AGE_NS_MAX);
        if group.needs_relocation() {
            group.try_relocate()?;
        }
        let taps = self.step_taps();
        group.settle_aged()?;
        let scheduled = self.step_schedule();
        if group.commit_piece(true) || taps? {
            scheduled?;
            return Ok(Stepped::More);
        }
        if scheduled? {
            return Ok(Stepped::More);
        }
        self.step_maintenance(budget)
    }

    fn step_maintenance(&self, budget: Budget) -> Result<Stepped> {
        let group = self.owner()?;
        // Where segments end faster than they are sealed, the next one comes first: writers wait for that, and for no footer.
        let soon = || group.room_in_segment().is_some_and(|(room, of)| room < of / 2);
        let prepare = || match !group.has_ready_segment() && (group.has_frozen_segment() || soon()) {
            true => group.prepare_next_segment().map(|()| true),
            false => group.seal_oldest_frozen(),
        };
        match prepare() {
            Ok(true) => Ok(Stepped::More),
            Ok(false) => Ok(if group.maintain(budget.entries)? { Stepped::More } else { Stepped::Idle }),
            // On a full storage thinning is what makes room.
            Err(Error::NoSpace) if group.seal_oldest_frozen()? || group.maintain(budget.entries)? => {
                Ok(Stepped::More)
            }
            Err(error) => Err(error),
        }
    }

    /// Maintenance with retention, for runners of hosts that date writes by the clock of the store.
    fn step_background(&self, budget: Budget) -> Result<Stepped> {
        match self.step_maintenance(budget) {
            Ok(Stepped::Idle) | Err(Error::NoSpace) if self.step_retention()? => Ok(Stepped::More),
            stepped => stepped,
        }
    }

    /// Starts the bundled runner: threads that do the background work until it is dropped.
    ///
    /// # Errors
    /// `ReadOnly`; `Io` when a thread cannot be started.
    pub fn start_runner(&self) -> Result<Runner> {
        self.start_runner_with(RunnerOptions::default())
    }

    /// As [`Store::start_runner`], with options.
    ///
    /// # Errors
    /// As [`Store::start_runner`].
    pub fn start_runner_with(&self, options: RunnerOptions) -> Result<Runner> {
        self.owner()?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut runner = Runner { stop: stop.clone(), threads: Vec::new(), store: None };
        type Work = fn(&Store, RunnerOptions, &AtomicBool);
        let works: [(&str, Work); 6] = [
            ("maintain", maintain),
            ("sync", sync),
            ("write-1", write),
            ("write-2", write),
            ("drain", drain),
            ("resync", resync),
        ];
        for (name, work) in works {
            let (store, stop) = (self.clone(), stop.clone());
            let thread = std::thread::Builder::new().name(format!("cdp-{name}"));
            let thread = thread.spawn(move || {
                // A defect ends this thread alone; the host is told, since nobody looks at the threads.
                let ended = catch_unwind(AssertUnwindSafe(|| work(&store, options, &stop)));
                if let Err(panic) = ended {
                    let error = text_of(&*panic).to_owned();
                    let failed = EventKind::RunnerFailed { thread: name, error };
                    store.inner.group.events.push(store.newest().time, failed);
                }
            });
            runner.threads.push(thread.map_err(|error| Error::io("start", "a thread", error))?);
        }
        self.inner.group.runners.fetch_add(1, Ordering::SeqCst);
        runner.store = Some(self.clone());
        Ok(runner)
    }
}

/// The threads of the bundled runner. Dropping it stops them; what they were at is finished first.
pub struct Runner {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Set when all threads run.
    store: Option<Store>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(store) = self.store.take() {
            store.inner.group.runners.fetch_sub(1, Ordering::SeqCst);
        }
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A panic in a runner's thread is an event; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it says nothing")
}

/// Writes frames as they are sealed.
fn write(store: &Store, _: RunnerOptions, stop: &AtomicBool) {
    let group = &store.inner.group;
    while !stop.load(Ordering::SeqCst) {
        if !group.write_piece() {
            group.wait_for_commit_work(POLL);
        }
    }
}

/// Syncs written frames before their number or age grows, seals by age, and repairs failures. Syncs go on beside writes, so that
/// buffers come back in a stream.
fn sync(store: &Store, _: RunnerOptions, stop: &AtomicBool) {
    let group = &store.inner.group;
    let mut last_sync = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        if group.settle_aged().is_err() {
            std::thread::sleep(BACKOFF);
        }
        group.seal_aged(FRAME_AGE_NS_MAX);
        let unsynced = group.unsynced_frames();
        let due = last_sync.elapsed() >= Duration::from_nanos(FRAME_AGE_NS_MAX);
        if unsynced >= SYNC_FRAMES || (due && unsynced > 0) {
            last_sync = Instant::now();
            group.sync_piece();
            continue;
        }
        if group.needs_relocation() && group.try_relocate().is_err() {
            std::thread::sleep(BACKOFF);
        }
        group.wait_for_commit_work(POLL);
    }
}

/// Takes over what taps capture. Producers wake nobody, so it looks at short intervals while there is something.
fn drain(store: &Store, _: RunnerOptions, stop: &AtomicBool) {
    let group = &store.inner.group;
    let mut pause = DRAIN_IDLE;
    while !stop.load(Ordering::SeqCst) {
        pause = match store.drain_taps() {
            Ok(true) => DRAIN_BUSY,
            Ok(false) if group.capture().is_none() => POLL,
            Ok(false) => (pause * 2).min(DRAIN_IDLE),
            Err(_) => BACKOFF,
        };
        std::thread::sleep(pause);
    }
}

/// Brings taps back to capturing whole.
fn resync(store: &Store, _: RunnerOptions, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        match store.step_resyncs() {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(IDLE),
            Err(_) => std::thread::sleep(BACKOFF),
        }
    }
}

fn maintain(store: &Store, options: RunnerOptions, stop: &AtomicBool) {
    let group = &store.inner.group;
    let mut last_write = (Instant::now(), store.newest().seq);
    let mut beaten_at = TimeNs::ZERO;
    while !stop.load(Ordering::SeqCst) {
        // A failure is an event.
        let _ = store.step_schedule();
        let step = if options.heartbeat { Store::step_background } else { Store::step_maintenance };
        let pause = match step(store, Budget::default()) {
            Ok(Stepped::More) => continue,
            // Its last frames are on their way.
            Ok(Stepped::Idle) if group.has_frozen_segment() => SOON,
            Ok(Stepped::Idle) => IDLE,
            Err(_) => BACKOFF,
        };
        let seq = store.newest().seq;
        if seq != last_write.1 {
            last_write = (Instant::now(), seq);
        }
        let now = group.shared.clock.now();
        if last_write.0.elapsed() >= HEARTBEAT && now.get().saturating_sub(beaten_at.get()) >= 1_000_000_000 {
            // Nothing was written since: nothing of it is in doubt, and the timeline covers the time up to now.
            if options.heartbeat {
                group.cover(now);
            }
            let _ = group.flush().and_then(|_| group.vouch(false));
            beaten_at = now;
        }
        group.wait_for_end_of_segment(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CreateOptions, OpenOptions,
        io::{Clock, MemoryStorage},
    };

    /// A clock that fails in one thread of the runner.
    struct Failing;

    impl Clock for Failing {
        fn now(&self) -> TimeNs {
            assert_ne!(std::thread::current().name(), Some("cdp-maintain"), "deliberate");
            TimeNs::new(1_000_000_000)
        }
    }

    /// Goal: a defect in a thread of the runner is an event and not a silence. Method: a clock that panics in that thread; wait for the event.
    #[test]
    fn a_defect_in_the_runner_is_an_event() {
        let options = OpenOptions { clock: Arc::new(Failing), ..OpenOptions::default() };
        let create = CreateOptions { volume: "disk".into(), bytes: 1 << 20 };
        let store = Store::create(Arc::new(MemoryStorage::new()), &create, options).unwrap();
        let runner = store.start_runner().unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let failed = loop {
            if let Some(event) = store.take_events().0.pop() {
                break event.kind;
            }
            assert!(Instant::now() < until, "no event");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(
            matches!(&failed, EventKind::RunnerFailed { thread: "maintain", error } if error.contains("deliberate")),
            "{failed}"
        );
        drop(runner);
        store.close().unwrap();
    }
}
