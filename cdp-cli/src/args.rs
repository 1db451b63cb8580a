//! The command line.
//!
//! Values are read by the library's strict readers, so that a malformed one is wrong usage (exit 2) before anything is
//! touched.

mod comparisons;

pub use comparisons::{ModeArgument, ResyncArguments, ScrubArguments, VerifyArguments};

use cdp_core::{
    BookmarkKind, Point,
    text::{parse_duration, parse_size, parse_time},
    trace::{Fill, TraceFormat},
    units::{BLOCK_BYTES, SECTOR_BYTES, TimeNs},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Protects disks continuously: every write is kept, and any past instant can be opened and restored.
#[derive(Debug, Parser)]
#[command(name = "cdp", version, arg_required_else_help = true, after_help = POINT_HELP)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const POINT_HELP: &str = "\
A POINT is latest, oldest, seq:N, time:T, bookmark:NAME, bookmark-latest[:KIND] or bookmark-before:T[:KIND].
Sizes: 512, 64K, 1G. Durations: 250ms, 4h, 28d. Times: 2026-01-02T03:04:05.123456789Z.
Exit: 0 success, 1 failed or refused, 2 wrong usage, 3 damage met, 4 point cannot be opened, 5 differences found.";

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new store with a first volume
    Create(CreateArguments),
    /// Add, resize and list volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Mount the live volumes and every point of them (FUSE); runs until unmounted or SIGTERM
    Mount(MountArguments),
    /// Name points
    #[command(subcommand)]
    Bookmark(BookmarkCommand),
    /// Show what can be recovered
    Points(StoreArguments),
    /// Write the state at a point as a sparse raw image
    Restore(RestoreArguments),
    /// List the ranges written between two points
    Diff(DiffArguments),
    /// Drive the engine with a block trace
    Replay(ReplayArguments),
    /// Make the newest state of a volume equal to a file or device
    Resync(ResyncArguments),
    /// Compare the newest state of a volume with a file or device, byte by byte
    Verify(VerifyArguments),
    /// Write a volume at a point as a portable set of files, or what was written since an older point
    Export(ExportArguments),
    /// Make a volume equal to the state that an exported set leads to
    Import(ImportArguments),
    /// Show and set how long history is kept
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// Say how large a history will be under a policy
    Size(SizeArguments),
    /// Keep several copies of a volume equal
    #[command(subcommand)]
    Mirror(crate::commands::mirror::MirrorCommand),
    /// Verify every structure of a store
    Check(CheckArguments),
    /// Verify every payload too, and write what rotted anew where a source still has it
    Scrub(ScrubArguments),
    /// Show sizes, write amplification and the state of each volume
    Stat(StoreArguments),
    /// Tell the whole story in one minute: protect, damage, rewind, prove
    Demo(DemoArguments),
}

/// `--json`.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArguments {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// A store and how to print.
#[derive(Debug, Args)]
pub struct StoreArguments {
    /// Directory of the store
    pub store: PathBuf,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Directory of the new store; it must not exist, or be empty
    pub store: PathBuf,
    /// Size of the volume; may be left out with --import
    #[arg(long, value_parser = volume_size, required_unless_present = "import")]
    pub size: Option<u64>,
    /// Name of the volume
    #[arg(long, default_value = "disk", value_parser = volume_name)]
    pub volume: String,
    /// Raw image or device to begin with; zeroes and holes are skipped
    #[arg(long, value_name = "IMAGE")]
    pub import: Option<PathBuf>,
    /// Time of the import
    #[arg(long, value_parser = parse_time, requires = "import")]
    pub time: Option<TimeNs>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `volume`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Add a volume to the group
    Add(VolumeAddArguments),
    /// List the volumes
    List(StoreArguments),
    /// Give a volume another size; points before keep the size that they had
    Resize(VolumeResizeArguments),
}

/// `volume resize`.
#[derive(Debug, Args)]
pub struct VolumeResizeArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// Name of the volume
    #[arg(value_parser = volume_name)]
    pub name: String,
    /// The new size; what a smaller one cuts off is gone from now on, and stays in the points before
    #[arg(value_parser = volume_size)]
    pub size: u64,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `volume add`.
#[derive(Debug, Args)]
pub struct VolumeAddArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// Name of the volume
    #[arg(value_parser = volume_name)]
    pub name: String,
    /// Size of the volume; may be left out with --import
    #[arg(long, value_parser = volume_size, required_unless_present = "import")]
    pub size: Option<u64>,
    /// Raw image or device to begin with; zeroes and holes are skipped
    #[arg(long, value_name = "IMAGE")]
    pub import: Option<PathBuf>,
    /// Time of the import
    #[arg(long, value_parser = parse_time, requires = "import")]
    pub time: Option<TimeNs>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `mount`.
#[derive(Debug, Args)]
pub struct MountArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// Directory to mount on
    pub directory: PathBuf,
}

/// `bookmark`.
#[derive(Debug, Subcommand)]
pub enum BookmarkCommand {
    /// Name a point; returns once durable
    Add(BookmarkAddArguments),
    /// List the bookmarks
    List(StoreArguments),
    /// Keep a bookmark until it is unlocked
    Lock(BookmarkNameArguments),
    /// Let a bookmark be deleted again
    Unlock(BookmarkNameArguments),
    /// Delete a bookmark
    Delete(BookmarkNameArguments),
}

/// `bookmark add`.
#[derive(Debug, Args)]
pub struct BookmarkAddArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// Name of the bookmark, unique in the store
    pub name: String,
    /// What it vouches for: app, fs or user
    #[arg(long, default_value = "user")]
    pub kind: BookmarkKind,
    /// Type of the application, such as postgresql
    #[arg(long, value_name = "TYPE")]
    pub app: Option<String>,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Keep it until it is unlocked
    #[arg(long)]
    pub lock: bool,
    /// When it goes by itself
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub expires: Option<TimeNs>,
    /// The point it names instead of the newest state
    #[arg(long, value_name = "POINT")]
    pub at: Option<Point>,
    /// Refuse when a volume is not fully captured
    #[arg(long)]
    pub require_exact: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// A bookmark of a store.
#[derive(Debug, Args)]
pub struct BookmarkNameArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// Name of the bookmark
    pub name: String,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// The point to restore
    #[arg(long, value_name = "POINT")]
    pub at: Point,
    /// The image to write
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// The volume, instead of the first one
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Replace FILE when it exists
    #[arg(long, conflicts_with = "onto")]
    pub force: bool,
    /// Write only what differs into FILE, which may be a device
    #[arg(long)]
    pub onto: bool,
    /// Also inside of a gap of the timeline: what there is, not what there was
    #[arg(long)]
    pub fuzzy: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `diff`.
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// The older point
    #[arg(long, value_name = "POINT")]
    pub from: Point,
    /// The newer point
    #[arg(long, value_name = "POINT")]
    pub to: Point,
    /// The volume, instead of the first one
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// How fast a trace is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Speed {
    /// As fast as the engine takes it
    Max,
    /// At the pace of its times
    Real,
}

/// `replay`.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// The trace
    pub trace: PathBuf,
    /// Send all lines to this volume
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Content of the writes: stamp, random or zero
    #[arg(long, default_value = "stamp")]
    pub fill: Fill,
    /// As fast as possible, or at the pace of the trace
    #[arg(long, value_enum, default_value = "max")]
    pub speed: Speed,
    /// Keep only the last state of each interval as a point
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub granularity: Option<u64>,
    /// Format of the trace: csv or msr
    #[arg(long, default_value = "csv")]
    pub format: TraceFormat,
    /// Replay through a tap beside a source; without --throttle the replay waits for the store, so that nothing is lost
    #[arg(long, requires = "source")]
    pub tap: bool,
    /// The source of the tap: a raw image or device of the size of the volume, made sparse when absent
    #[arg(long, value_name = "FILE", requires = "tap")]
    pub source: Option<PathBuf>,
    /// Slow the store down
    #[arg(long, value_name = "BYTES_PER_S", value_parser = parse_size, requires = "tap")]
    pub throttle: Option<u64>,
    /// Do not wait until the volume is whole again
    #[arg(long, requires = "tap")]
    pub no_wait: bool,
    /// Compare at most so many bytes of the source in a second while the volume is made whole
    #[arg(long, value_name = "BYTES_PER_S", value_parser = parse_size, requires = "tap")]
    pub resync_rate: Option<u64>,
    /// Begin to make the volume whole when it has differed for so long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "tap")]
    pub resync_delay: Option<u64>,
    /// Make the volume whole more slowly while writes to the source take longer than this
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "tap")]
    pub resync_latency: Option<u64>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `export`.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// The point to export
    #[arg(long, value_name = "POINT")]
    pub at: Point,
    /// Directory of the set: new, empty, or holding what an interrupted export of the same points has written
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// The volume, instead of the first one
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Only what was written after this point, for a volume that has taken over the sets up to it
    #[arg(long, value_name = "POINT")]
    pub since: Option<Point>,
    /// Most bytes of one file, 4M to 512G; what an interruption makes the next run repeat
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256M")]
    pub file_size: u64,
    /// Do not pack data
    #[arg(long)]
    pub no_compress: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `import`.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Directory of the store; one that does not exist is made for a whole set
    pub store: PathBuf,
    /// Directory of the set
    pub set: PathBuf,
    /// The volume, instead of the one of the name that it has in the set; for a whole set it is new or empty
    #[arg(long, value_name = "NAME", value_parser = volume_name)]
    pub volume: Option<String>,
    /// Read and verify the whole set before anything is taken over
    #[arg(long)]
    pub verify: bool,
    /// Compare so many bytes of the volume in a second at most
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rate: Option<u64>,
    /// Time of the import; default: now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub time: Option<TimeNs>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `retention`.
#[derive(Debug, Subcommand)]
pub enum RetentionCommand {
    /// Show the policy
    Show(StoreArguments),
    /// Record a policy; drops nothing
    Set(RetentionSetArguments),
    /// Show what `run` would drop and free
    Preview(RetentionNowArguments),
    /// Drop what the policy does not keep, and free its space
    Run(RetentionNowArguments),
}

/// `retention preview` and `retention run`.
#[derive(Debug, Args)]
pub struct RetentionNowArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// Another policy than the recorded one, TOML or JSON; `run` records it
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The time from which ages count; default: now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub now: Option<TimeNs>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `retention set`.
#[derive(Debug, Args)]
pub struct RetentionSetArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// The policy, TOML or JSON
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `size`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("writes").required(true).args(["trace", "rate"]))]
pub struct SizeArguments {
    /// The policy, TOML or JSON
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// Count exactly what this trace leaves; it is read twice
    #[arg(long, value_name = "TRACE")]
    pub trace: Option<PathBuf>,
    /// Format of the trace
    #[arg(long, value_name = "FORMAT", default_value = "csv", requires = "trace", value_parser = |text: &str| text.parse::<TraceFormat>())]
    pub format: TraceFormat,
    /// Expect this much to be written, such as 50G/day
    #[arg(long, value_name = "SIZE/day", requires = "working_set", value_parser = bytes_per_day)]
    pub rate: Option<u64>,
    /// Size of the part of the disk that is written to, at random
    #[arg(long, value_name = "SIZE", conflicts_with = "trace", value_parser = working_set)]
    pub working_set: Option<u64>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// Verify every payload too
    #[arg(long)]
    pub deep: bool,
    /// Read so many bytes of the store in a second at most
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rate: Option<u64>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// How the demo makes its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoMode {
    /// The first of the others that this machine can do
    Auto,
    /// The kernel's ext4 on the mounted live disk: root, FUSE and loop devices
    Mounted,
    /// An ext4 image made by mke2fs, written through the library
    Mke2fs,
    /// A generated image without a file system
    Generated,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArguments {
    /// How the file system is made
    #[arg(long, value_enum, default_value = "auto")]
    pub mode: DemoMode,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// A size that a volume can have.
pub fn volume_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(format!("the size of a volume is a multiple of {SECTOR_BYTES} bytes, and not 0"));
    }
    if bytes > cdp_core::limits::VOLUME_BYTES_MAX {
        let most = cdp_core::text::format_size(cdp_core::limits::VOLUME_BYTES_MAX);
        return Err(format!("a volume has at most {most}"));
    }
    Ok(bytes)
}

/// Bytes a day: a size, a slash, and `day`, `h` or `s`.
fn bytes_per_day(text: &str) -> Result<u64, String> {
    let example = "write it like 50G/day";
    let (size, unit) = text.split_once('/').ok_or_else(|| format!("has no unit of time; {example}"))?;
    let times = match unit {
        "day" | "d" => 1,
        "h" | "hour" => 24,
        "s" => 86_400,
        _ => return Err(format!("has an unknown unit of time (known: day, h, s); {example}")),
    };
    let bytes = parse_size(size).map_err(|error| error.to_string())?;
    bytes.checked_mul(times).ok_or_else(|| "is more than 64 bits of bytes a day".to_owned())
}

/// A working set: a block at least.
fn working_set(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    if bytes < BLOCK_BYTES {
        return Err(format!("a working set has at least {BLOCK_BYTES} bytes"));
    }
    Ok(bytes)
}

/// A name that a volume can have.
fn volume_name(text: &str) -> Result<String, String> {
    let most = cdp_core::limits::NAME_BYTES_MAX;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text.len() > most || !text.bytes().all(allowed) {
        return Err(format!("the name of a volume has 1 to {most} characters out of A-Z a-z 0-9 . _ -"));
    }
    if matches!(text, "." | "..") {
        return Err("the name of a volume must not be . or ..".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Goal: the definition of the command line has no contradictions. Method: clap's own check.
    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    /// Goal: rates are read in each unit and refused when malformed. Method: a table.
    #[test]
    fn rates_are_bytes_a_day() {
        assert_eq!(bytes_per_day("50G/day"), Ok(50 << 30));
        assert_eq!(bytes_per_day("1K/h"), Ok(24 << 10));
        assert_eq!(bytes_per_day("1/s"), Ok(86_400));
        for rate in ["", "50G", "50G/", "/day", "50G/week", "-1/day", "16777215T/s", "1G/day/day"] {
            assert!(bytes_per_day(rate).is_err(), "{rate}");
        }
        assert!(working_set("4K").is_ok() && working_set("4095").is_err());
    }

    /// Goal: sizes and names of volumes are refused one past their bounds. Method: both sides.
    #[test]
    fn bounds_of_volume_arguments_hold_on_both_sides() {
        let most = cdp_core::limits::VOLUME_BYTES_MAX;
        assert_eq!(volume_size(&most.to_string()), Ok(most));
        assert_eq!(volume_size("512"), Ok(512));
        for size in [(most + 512).to_string(), "511".to_owned(), "0".to_owned()] {
            assert!(volume_size(&size).is_err(), "{size}");
        }
        assert!(volume_name(&"n".repeat(128)).is_ok() && volume_name("Az0._-").is_ok());
        for name in ["", ".", "..", "a/b", "a b", "\u{e4}", &"n".repeat(129)] {
            assert!(volume_name(name).is_err(), "{name}");
        }
    }
}
