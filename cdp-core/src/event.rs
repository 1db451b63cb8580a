//! Events: what the host should know without asking, in a bounded row that it polls, and to an [`EventSink`] at once if it has given one.
//!
//! When the host does not poll, the oldest events are dropped and counted; nothing waits for it.

use crate::{catalog::GapReason, error::SeqTime, limits::EVENTS_MAX, units::TimeNs};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, OnceLock},
};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A gap opened on the timeline of a volume: it is captured by dirty blocks only.
    GapOpened {
        /// The volume.
        volume: String,
        /// The first state that cannot be opened.
        at: SeqTime,
        /// Why.
        reason: GapReason,
    },
    /// A gap closed: the volume is captured whole again.
    GapClosed {
        /// The volume.
        volume: String,
        /// The first state that can be opened again.
        at: SeqTime,
    },
    /// Captured writes could not be taken over into the journal. They are kept, and taken over when the store can write again.
    StoreFailed(String),
    /// The journal takes writes again.
    StoreRecovered,
    /// The source of a resync could not be read; it is tried again.
    SourceFailed {
        /// The volume.
        volume: String,
        /// What it said.
        error: String,
    },
    /// The bookmark of a slot of the schedule could not be set; the text says why.
    BookmarkMissed(String),
    /// A producer reserved room and did not come back; what it writes is marked.
    ProducerStalled,
    /// Background work met bytes that are not what was written; it leaves them alone, and `check` tells more.
    DamageMet(String),
    /// History was thinned as the policy asks for.
    Thinned {
        /// Versions that nobody needed any more.
        entries_dropped: u64,
        /// Segments that went.
        segments_dropped: u64,
    },
    /// Retention did not go on; what it left undone is done later.
    RetentionFailed(String),
    /// The clock of the host departed from the monotonic one by more than an hour: no history is dropped by age until that is confirmed.
    ClockDeparted,
    /// The activity log of a tap cannot be written, and an unclean end means from now on that the whole source is compared.
    LogLost {
        /// The volume.
        volume: String,
        /// Why.
        error: String,
    },
    /// A tap with an activity log was given a write that it had not been told of before. From this event on, until that write is durable, an
    /// unclean end means that the whole source is compared; before it, the host has to say so itself.
    LogBypassed {
        /// The volume.
        volume: String,
    },
    /// The map of what differs could not be kept or used: the whole source is compared.
    MapNotUsed {
        /// The volume.
        volume: String,
        /// Why.
        error: String,
    },
    /// A defect of the library ended a thread of the runner: what it did is not done any more until the runner is started anew.
    RunnerFailed {
        /// The thread.
        thread: &'static str,
        /// What the defect said.
        error: String,
    },
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is broken, and somebody has to look.
    Error,
    /// Protection is less than was asked for; the library goes on and mends it where it can.
    Warning,
    /// As it should be.
    Info,
}

impl EventKind {
    /// How much it matters.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::StoreFailed(_)
            | Self::DamageMet(_)
            | Self::RetentionFailed(_)
            | Self::LogLost { .. }
            | Self::RunnerFailed { .. } => Severity::Error,
            Self::GapOpened { .. }
            | Self::SourceFailed { .. }
            | Self::BookmarkMissed(_)
            | Self::ProducerStalled
            | Self::ClockDeparted
            | Self::LogBypassed { .. }
            | Self::MapNotUsed { .. } => Severity::Warning,
            Self::GapClosed { .. } | Self::StoreRecovered | Self::Thinned { .. } => Severity::Info,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GapOpened { volume, at, reason } => {
                write!(f, "a gap opened on volume {volume} at seq:{} ({reason})", at.seq)
            }
            Self::GapClosed { volume, at } => {
                write!(f, "volume {volume} is captured whole again from seq:{}", at.seq)
            }
            Self::StoreFailed(error) => write!(f, "captured writes wait for the store: {error}"),
            Self::StoreRecovered => f.write_str("the store takes captured writes again"),
            Self::SourceFailed { volume, error } => write!(f, "the source of volume {volume}: {error}"),
            Self::BookmarkMissed(error) => write!(f, "a bookmark of the schedule is missing: {error}"),
            Self::MapNotUsed { volume, error } => {
                write!(f, "the source of volume {volume} is compared as a whole: {error}")
            }
            Self::LogLost { volume, error } => {
                write!(f, "volume {volume} has no activity log any more: {error}")
            }
            Self::LogBypassed { volume } => {
                write!(f, "a write to the source of volume {volume} was captured that was not begun")
            }
            Self::ProducerStalled => f.write_str("a producer stalled; its range is copied later"),
            Self::DamageMet(error) => write!(f, "damage: {error}"),
            Self::Thinned { entries_dropped, segments_dropped } => {
                write!(f, "thinned history: {entries_dropped} versions and {segments_dropped} segments went")
            }
            Self::ClockDeparted => f.write_str(
                "the clock departed by more than an hour; history is not dropped by age until that is confirmed",
            ),
            Self::RetentionFailed(error) => write!(f, "retention did not go on: {error}"),
            Self::RunnerFailed { thread, error } => {
                write!(f, "a defect of the library ended the thread '{thread}' of the runner: {error}")
            }
        }
    }
}

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, by the clock of the host.
    pub time: TimeNs,
    /// What.
    pub kind: EventKind,
}

/// Told of every event when it happens, such as a log.
pub trait EventSink: Send + Sync {
    /// Called from whatever thread is inside of the library, several at once, with locks of the store held: it must not call the store, and what it
    /// waits for the store waits for.
    fn event(&self, event: &Event);
}

/// The row of events.
#[derive(Default)]
pub(crate) struct Events {
    row: Mutex<Row>,
    sink: OnceLock<Arc<dyn EventSink>>,
}

#[derive(Debug, Default)]
struct Row {
    events: VecDeque<Event>,
    dropped: u64,
}

impl Events {
    /// Adds an event.
    pub fn push(&self, time: TimeNs, kind: EventKind) {
        let event = Event { time, kind };
        let mut row = self.row.lock();
        if row.events.len() == EVENTS_MAX {
            row.events.pop_front();
            row.dropped += 1;
        }
        row.events.push_back(event.clone());
        // Under the lock of the row, the order of the row is that of the sink.
        if let Some(sink) = self.sink.get() {
            sink.event(&event);
        }
    }

    /// Sets the sink, and tells it what is in the row already. False when there is one.
    pub fn set_sink(&self, sink: Arc<dyn EventSink>) -> bool {
        let row = self.row.lock();
        if self.sink.set(Arc::clone(&sink)).is_err() {
            return false;
        }
        row.events.iter().for_each(|event| sink.event(event));
        true
    }

    /// Takes all events, oldest first, and the number of those that were dropped since the last call.
    pub fn take(&self) -> (Vec<Event>, u64) {
        let mut row = self.row.lock();
        (row.events.drain(..).collect(), std::mem::take(&mut row.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the row is bounded and says what it dropped. Method: at the bound, and one past it.
    #[test]
    fn the_oldest_events_go_first_and_are_counted() {
        let events = Events::default();
        for time in 0..=u64::try_from(EVENTS_MAX).unwrap() {
            events.push(TimeNs::new(time), EventKind::StoreRecovered);
        }
        let (taken, dropped) = events.take();
        assert_eq!((taken.len(), dropped, taken[0].time), (EVENTS_MAX, 1, TimeNs::new(1)));
        assert_eq!(events.take(), (Vec::new(), 0));
    }

    #[derive(Default)]
    struct Noted(Mutex<Vec<Event>>);

    impl EventSink for Noted {
        fn event(&self, event: &Event) {
            self.0.lock().push(event.clone());
        }
    }

    /// Goal: a sink hears of every event once and in order, also of those before it was set, and polling does not change that. Method: events
    /// before and after it is set, the row taken between them; a second sink is refused.
    #[test]
    fn a_sink_hears_of_every_event_once() {
        let (events, sink) = (Events::default(), Arc::new(Noted::default()));
        let push = |time| events.push(TimeNs::new(time), EventKind::StoreRecovered);
        (0..3).for_each(push);
        assert!(events.set_sink(sink.clone()));
        assert!(!events.set_sink(Arc::new(Noted::default())));
        push(3);
        assert_eq!(events.take().0.len(), 4);
        push(4);
        let heard: Vec<u64> = sink.0.lock().iter().map(|event| event.time.get()).collect();
        assert_eq!(heard, [0, 1, 2, 3, 4]);
    }
}
