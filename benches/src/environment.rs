//! The machine and the file system that figures come from, and how much others used of it meanwhile.
//!
//! Everything is read from `/proc` and is only informative: what cannot be read is left out.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Operating system and its release.
    pub system: String,
    /// Load averages over 1, 5 and 15 minutes when the run began.
    pub load_at_start: String,
}

/// The file system below the directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileSystem {
    /// Its type.
    pub kind: String,
    /// Its device.
    pub device: String,
    /// Its options.
    pub options: String,
    /// Free space when the run began, bytes.
    pub free_bytes: u64,
}

fn line_of(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Kibibytes of a line of a file in `/proc`, as bytes.
fn bytes_of(path: &str, key: &str) -> Option<u64> {
    line_of(path, key)?.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

impl Machine {
    /// This machine.
    pub fn look() -> Self {
        let name = rustix::system::uname();
        let system = [name.sysname(), name.release(), name.machine()].map(|part| part.to_string_lossy());
        Self {
            processor: line_of("/proc/cpuinfo", "model name").unwrap_or_default(),
            processors: processors(),
            memory_bytes: bytes_of("/proc/meminfo", "MemTotal").unwrap_or_default(),
            system: system.join(" "),
            load_at_start: load(),
        }
    }
}

/// Load averages over 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

impl FileSystem {
    /// That of a path.
    pub fn of(path: &Path) -> Self {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let found = mount_of(&mounts, &path).unwrap_or_default();
        Self {
            device: found[0].to_owned(),
            kind: found[2].to_owned(),
            options: found[3].to_owned(),
            free_bytes: crate::scratch::free_bytes(&path).unwrap_or_default(),
        }
    }
}

/// The fields of the mount that a path lies on: the deepest one, and of several at one place the last.
fn mount_of<'a>(mounts: &'a str, path: &Path) -> Option<[&'a str; 4]> {
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        Some([fields.next()?, fields.next()?, fields.next()?, fields.next()?])
    });
    fields
        .filter(|fields| path.starts_with(fields[1].replace("\\040", " ")))
        .max_by_key(|fields| fields[1].len())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Measures who uses the processors.
pub struct Meter {
    started: Instant,
    own: Duration,
    busy: Option<Duration>,
}

/// What a [`Meter`] found.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// Processor time of this process and of those that it started.
    pub own: Duration,
    /// Share of the processors' time that others used, 0 to 1; interrupts and kernel threads count as others.
    pub others: f64,
}

impl Meter {
    /// Starts, and forgets the largest amount of memory that was in use before.
    pub fn start() -> Self {
        // Refused in some containers: the peak is then that of the whole run.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self { started: Instant::now(), own: own_time(), busy: busy_time() }
    }

    /// Since the start.
    pub fn stop(self) -> Use {
        let own = own_time().saturating_sub(self.own);
        let all = self.started.elapsed().as_secs_f64() * processors() as f64;
        let busy = busy_time().zip(self.busy).map_or(own, |(now, then)| now.saturating_sub(then));
        let others = busy.saturating_sub(own).as_secs_f64() / all.max(1e-9);
        Use { own, others: others.min(1.0) }
    }
}

/// The most memory that this process had in use since a [`Meter`] was started, bytes.
pub fn memory_peak() -> Option<u64> {
    bytes_of("/proc/self/status", "VmHWM")
}

/// The memory that this process has in use now, bytes.
pub fn memory_now() -> Option<u64> {
    bytes_of("/proc/self/status", "VmRSS")
}

/// Bytes that this process has sent to storage since it began.
pub fn device_bytes_written() -> Option<u64> {
    line_of("/proc/self/io", "write_bytes")?.parse().ok()
}

/// Processor time that this process has used since it began, with that of processes that it started and that ended.
pub fn own_time() -> Duration {
    let own = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    own + of_ticks(children_ticks(&text).unwrap_or_default())
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Ticks of user and system time of children that were waited for, in the line of a process.
fn children_ticks(stat: &str) -> Option<u64> {
    // The name of the program, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(13);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Time that the processors of the machine were busy, in all.
fn busy_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    busy_ticks(text.lines().next()?).map(of_ticks)
}

/// Ticks of the first line of `/proc/stat` other than idle and waiting for I/O; guests are part of user time there.
fn busy_ticks(line: &str) -> Option<u64> {
    let fields: Vec<u64> = line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>().ok()?;
    let total: u64 = fields.iter().take(8).sum();
    Some(total - fields.get(3)? - fields.get(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the deepest mount above a path is found, by whole names, and the later of two at one place.
    /// Method: a table with nested and shadowed mounts.
    #[test]
    fn the_deepest_mount_is_found() {
        let mounts =
            "a / ext4 rw 0 0\nb /data xfs rw 0 0\nc /data btrfs ro 0 0\nd /data/x\\040y ext4 rw 0 0\n";
        let device = |path: &str| mount_of(mounts, Path::new(path)).unwrap()[0];
        assert_eq!(
            [device("/home"), device("/data/1"), device("/database"), device("/data/x y/z")],
            ["a", "c", "a", "d"]
        );
        assert!(mount_of("", Path::new("/")).is_none());
    }

    /// Goal: what other programs use that this one started is found behind whatever their names are.
    /// Method: a line with a name that looks like fields; lines that are none.
    #[test]
    fn the_time_of_children_is_found() {
        let line = "7 (a) 1 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 30 5 20";
        assert_eq!(children_ticks(line), Some(35));
        assert_eq!((children_ticks("7 (a) S 1"), children_ticks("")), (None, None));
    }

    /// Goal: idle time and waiting for I/O are not work.
    /// Method: a line of known ticks; lines that are none.
    #[test]
    fn busy_ticks_leave_out_idle_time() {
        assert_eq!(busy_ticks("cpu  1 2 4 1000 2000 8 16 32 64 0"), Some(63));
        assert_eq!(busy_ticks("cpu 1 2"), None);
        assert_eq!(busy_ticks("cpu x"), None);
    }
}
