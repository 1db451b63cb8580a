//! How much of everything a profile does.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// How thorough a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Under five minutes on two cores; 10 GiB of space.
    Quick,
    /// Under thirty minutes on two cores; 10 GiB of space.
    Standard,
    /// All scenarios, also those that take long, with 100 M versions; 20 GiB of space.
    Full,
    /// Everything once and as small as it can be: shows that the harness works. The figures say nothing.
    #[value(hide = true)]
    Smoke,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Full => "full",
            Self::Smoke => "smoke",
        })
    }
}

/// Sizes and times of a profile. Every phase ends at its time or its size, whichever comes first, so that slow devices do not
/// take for ever; a run whose time is used up repeats nothing any more, and at the end of it skips what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Longest raw probe.
    pub probe_time: Duration,
    /// Longest measurement.
    pub measure_time: Duration,
    /// Longest preparation: filling a probe file, building a history.
    pub build_time: Duration,
    /// Bytes of a sequential write probe, and of an ingest.
    pub sequential_bytes: u64,
    /// Bytes of the file that probes read.
    pub file_bytes: u64,
    /// Bytes of the volume with a history: filled in order, then overwritten at random.
    pub volume_bytes: u64,
    /// Random 4 KiB overwrites in its history.
    pub overwrites: u64,
    /// Times that a window is tried until its probes agree.
    pub attempts: usize,
    /// Fresh opens of a store where cold reads are measured.
    pub cold_opens: usize,
    /// Bytes that a process has written when it is killed at the earliest.
    pub kill_bytes: u64,
    /// Processes that are killed where reopening is measured.
    pub kills: usize,
    /// Time after which no window is repeated.
    pub repeat_until: Duration,
    /// Time after which no scenario begins.
    pub end: Duration,
    /// Free space that is asked for, bytes.
    pub disk_bytes: u64,
}

impl Profile {
    /// Its sizes.
    pub fn sizes(self) -> Sizes {
        match self {
            Self::Quick => Sizes {
                probe_time: Duration::from_millis(1200),
                measure_time: Duration::from_secs(3),
                build_time: Duration::from_secs(20),
                sequential_bytes: 3 << 29,
                file_bytes: 1 << 30,
                volume_bytes: 1 << 30,
                overwrites: 768 << 10,
                attempts: 3,
                cold_opens: 6,
                kill_bytes: 256 << 20,
                kills: 3,
                repeat_until: Duration::from_secs(200),
                end: Duration::from_secs(265),
                disk_bytes: 10 << 30,
            },
            Self::Standard => Sizes {
                probe_time: Duration::from_secs(4),
                measure_time: Duration::from_secs(10),
                build_time: Duration::from_secs(120),
                sequential_bytes: 5 << 29,
                file_bytes: 1 << 30,
                volume_bytes: 1 << 30,
                overwrites: 1 << 20,
                attempts: 6,
                cold_opens: 30,
                kill_bytes: 256 << 20,
                kills: 10,
                repeat_until: Duration::from_secs(1000),
                end: Duration::from_secs(1650),
                disk_bytes: 10 << 30,
            },
            Self::Full => Sizes {
                probe_time: Duration::from_secs(4),
                measure_time: Duration::from_secs(20),
                build_time: Duration::from_secs(600),
                sequential_bytes: 5 << 29,
                file_bytes: 1 << 30,
                volume_bytes: 1 << 30,
                overwrites: 1 << 20,
                attempts: 8,
                cold_opens: 30,
                kill_bytes: 256 << 20,
                kills: 10,
                repeat_until: Duration::from_secs(3 * 3600),
                end: Duration::from_secs(4 * 3600),
                disk_bytes: 20 << 30,
            },
            Self::Smoke => Sizes {
                probe_time: Duration::from_millis(20),
                measure_time: Duration::from_secs(1),
                build_time: Duration::from_secs(60),
                sequential_bytes: 16 << 20,
                file_bytes: 16 << 20,
                volume_bytes: 16 << 20,
                overwrites: 4 << 10,
                attempts: 1,
                cold_opens: 1,
                kill_bytes: 16 << 20,
                kills: 1,
                repeat_until: Duration::from_secs(60),
                end: Duration::from_secs(600),
                disk_bytes: 1 << 30,
            },
        }
    }
}
