//! The command line of `cdp mirror`.

use crate::args::{OutputArguments, volume_size};
use cdp_core::{
    mirror::AckPolicy,
    text::parse_size,
    trace::{Fill, TraceFormat},
};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `mirror`.
#[derive(Debug, Subcommand)]
pub enum MirrorCommand {
    /// Make a mirror set; the first copy is the source
    Create(CreateArguments),
    /// Drive the set with a block trace
    Write(WriteArguments),
    /// Take a copy out of service
    Offline(CopyArguments),
    /// Bring a copy back; `repair` gives it what it lacks
    Online(CopyArguments),
    /// Show the copies
    Status(SetArguments),
    /// Say who would repair whom, and why, without doing anything
    Handshake(SetArguments),
    /// Give copies what they lack
    Repair(RepairArguments),
    /// Compare the copies; exit 5 when they differ
    Verify(VerifyArguments),
    /// Add a copy
    Add(AddArguments),
    /// Take a copy out of the set for good; its file stays
    Remove(CopyArguments),
    /// Give the volume, and every copy, another size
    Resize(ResizeArguments),
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ack {
    /// One copy holds it
    One,
    /// More than half of the copies hold it
    Quorum,
    /// All copies hold it
    All,
}

impl From<Ack> for AckPolicy {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::One => Self::One,
            Ack::Quorum => Self::Quorum,
            Ack::All => Self::All,
        }
    }
}

/// `mirror create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Directory for the metadata; it must not exist, or be empty
    pub set: PathBuf,
    /// Size of the volume
    #[arg(long, value_parser = volume_size)]
    pub size: u64,
    /// Raw files or devices; files that do not exist are made, sparse
    #[arg(value_name = "COPY", num_args = 2.., required = true)]
    pub copies: Vec<PathBuf>,
    /// How many copies must hold a write
    #[arg(long, value_enum, default_value = "one")]
    pub ack: Ack,
    /// Overwrite copies that hold data although the first one holds none
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `mirror write`.
#[derive(Debug, Args)]
pub struct WriteArguments {
    /// Directory of the set
    pub set: PathBuf,
    /// The trace; its volumes and bookmarks are ignored
    pub trace: PathBuf,
    /// Content of the writes: stamp, random or zero
    #[arg(long, default_value = "stamp")]
    pub fill: Fill,
    /// Format of the trace: csv or msr
    #[arg(long, default_value = "csv")]
    pub format: TraceFormat,
    /// Write to the copies beside each other, each by a thread of its own: a slow one holds up only a policy that needs it
    #[arg(long)]
    pub parallel: bool,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// A set.
#[derive(Debug, Args)]
pub struct SetArguments {
    /// Directory of the set
    pub set: PathBuf,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// A copy of a set.
#[derive(Debug, Args)]
pub struct CopyArguments {
    /// Directory of the set
    pub set: PathBuf,
    /// Number of the copy
    #[arg(value_name = "N")]
    pub number: u32,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `mirror repair`.
#[derive(Debug, Args)]
pub struct RepairArguments {
    /// Directory of the set
    pub set: PathBuf,
    /// This copy is right, whatever the others hold: the way out of a split brain
    #[arg(long, value_name = "N")]
    pub from: Option<u32>,
    /// Look at this many bytes a second, at most
    #[arg(long, value_name = "BYTES_PER_S", value_parser = parse_size)]
    pub limit: Option<u64>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `mirror verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Directory of the set
    pub set: PathBuf,
    /// Make differing blocks equal to this copy
    #[arg(long, value_name = "N")]
    pub repair_from: Option<u32>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `mirror add`.
#[derive(Debug, Args)]
pub struct AddArguments {
    /// Directory of the set
    pub set: PathBuf,
    /// Raw file or device; a file that does not exist is made, sparse
    #[arg(value_name = "COPY")]
    pub copy: PathBuf,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `mirror resize`.
#[derive(Debug, Args)]
pub struct ResizeArguments {
    /// Directory of the set
    pub set: PathBuf,
    /// The new size
    #[arg(value_parser = volume_size)]
    pub size: u64,
    #[command(flatten)]
    pub output: OutputArguments,
}
