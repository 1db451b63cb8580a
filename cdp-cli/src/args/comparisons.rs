//! Arguments of the commands that compare a volume with a source.

use super::OutputArguments;
use cdp_core::{
    text::{parse_size, parse_time},
    units::TimeNs,
};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What a resync looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArgument {
    /// Every byte of both sides
    Full,
    /// The source, and the digests of the store
    Digest,
    /// What the recorded map of differences names
    Map,
    /// Nothing, as long as the source is unchanged by its size, times and inode
    Quick,
}

/// `resync`.
#[derive(Debug, Args)]
pub struct ResyncArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// The file or device that the newest state becomes equal to; of the size of the volume
    #[arg(long, value_name = "FILE")]
    pub source: PathBuf,
    /// What is compared
    #[arg(long, value_enum, default_value = "digest")]
    pub mode: ModeArgument,
    /// The volume, instead of the first one
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Compare so many bytes of the source in a second at most
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rate: Option<u64>,
    /// Go on where the last run ended although the source cannot tell that it was not changed since, as a device cannot
    #[arg(long)]
    pub source_unchanged: bool,
    /// Time of the resync; default: now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub time: Option<TimeNs>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// The file or device that the newest state is compared with; it is never written
    #[arg(long, value_name = "FILE")]
    pub source: PathBuf,
    /// Make the store equal to the source where it differs or is damaged
    #[arg(long)]
    pub repair: bool,
    /// The volume, instead of the first one
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Compare so many bytes of the source in a second at most
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rate: Option<u64>,
    /// Keep in this file how far it is, and go on where an interrupted run has kept it; it goes when everything was compared
    #[arg(long, value_name = "FILE")]
    pub cursor: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArguments,
}

/// `scrub`.
#[derive(Debug, Args)]
pub struct ScrubArguments {
    /// Directory of the store
    pub store: PathBuf,
    /// The file, device or mirror set that the volume protects; it is only read. Without it nothing is repaired
    #[arg(long, value_name = "FILE")]
    pub source: Option<PathBuf>,
    /// The volume, instead of the first one
    #[arg(long, value_name = "NAME")]
    pub volume: Option<String>,
    /// Read so many bytes of the store in a second at most
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rate: Option<u64>,
    #[command(flatten)]
    pub output: OutputArguments,
}
