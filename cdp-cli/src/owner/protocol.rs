//! What a command and the owner of a store say to each other: JSON documents, one a line.
//!
//! A connection carries one request and then messages until the reply. Invariant *bounded*: no line is longer than
//! [`LINE_BYTES_MAX`].

use super::Role;
use crate::{
    exit::Failure,
    output::{
        BookmarkDocument, ImportDocument, LiveDocument, ReplayDocument, ResyncDocument, RetentionDocument,
        ScrubDocument, VerifyDocument, VolumeDocument, VolumeStatDocument,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, BufRead, Read, Write},
    path::PathBuf,
};

/// Longest line in either direction, bytes. A policy is the largest thing that is sent.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// What is asked of an owner. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Make everything durable and say how things stand.
    Status,
    /// Add a volume, from an image when there is one.
    AddVolume {
        /// Its name.
        name: String,
        /// Its size.
        bytes: u64,
        /// The image.
        import: Option<PathBuf>,
        /// Time of the import, nanoseconds.
        time_ns: Option<u64>,
    },
    /// Add a bookmark.
    AddBookmark(NewBookmarkRequest),
    /// Lock or unlock a bookmark.
    LockBookmark {
        /// Its name.
        name: String,
        /// Which of the two.
        locked: bool,
    },
    /// Delete a bookmark.
    DeleteBookmark {
        /// Its name.
        name: String,
    },
    /// Replay a trace.
    Replay(ReplayRequest),
    /// Give a volume another size.
    ResizeVolume {
        /// Its name.
        name: String,
        /// The new size.
        bytes: u64,
    },
    /// Make a volume equal to a source.
    Resync(ResyncRequest),
    /// Compare a volume with a source.
    Verify(VerifyRequest),
    /// Check everything, and repair it from a source.
    Scrub(ScrubRequest),
    /// Take over a seed set.
    Import(ImportRequest),
    /// Record a retention policy.
    SetPolicy {
        /// The policy as JSON.
        policy: String,
    },
    /// Carry out the retention policy.
    RunRetention {
        /// The time from which ages count, nanoseconds; now when it is left out.
        now_ns: Option<u64>,
    },
}

impl Request {
    /// The rate to which the storage is held while it is carried out, bytes a second.
    pub fn throttle(&self) -> Option<u64> {
        match self {
            Self::Replay(ReplayRequest { tap: Some(tap), .. }) => tap.throttle,
            _ => None,
        }
    }

    /// What a process that carries it out itself owns the store for.
    pub fn role(&self) -> Role {
        match self {
            Self::AddVolume { import: Some(_), .. }
            | Self::Replay(_)
            | Self::Resync(_)
            | Self::Verify(_)
            | Self::Scrub(_)
            | Self::Import(_) => Role::Load,
            _ => Role::Change,
        }
    }
}

/// A resync; values in the spelling of the command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResyncRequest {
    /// The source.
    pub source: PathBuf,
    /// What is compared.
    pub mode: ModeText,
    /// The volume, instead of the first one.
    pub volume: Option<String>,
    /// Bytes of the source a second.
    pub rate: Option<u64>,
    /// Whether the user vouches for the source.
    pub source_unchanged: bool,
    /// When it happens, nanoseconds.
    pub time_ns: Option<u64>,
}

/// What a resync looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModeText {
    /// Every byte of both sides.
    Full,
    /// The digests of the store.
    Digest,
    /// What a map names.
    Map,
    /// The stamp of the source.
    Quick,
}

/// A verification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// The source.
    pub source: PathBuf,
    /// Whether the store is mended.
    pub repair: bool,
    /// The volume, instead of the first one.
    pub volume: Option<String>,
    /// Bytes of the source a second.
    pub rate: Option<u64>,
    /// File that holds how far it is.
    pub cursor: Option<PathBuf>,
}

/// A scrub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubRequest {
    /// The source, where there is one.
    pub source: Option<PathBuf>,
    /// The volume that it is the source of, instead of the first one.
    pub volume: Option<String>,
    /// Bytes of the store that are read in a second at most.
    pub rate: Option<u64>,
}

/// The import of a seed set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// The directory of the set.
    pub set: PathBuf,
    /// The volume, instead of the one of its name.
    pub volume: Option<String>,
    /// Whether the whole set is verified first.
    pub verify: bool,
    /// Bytes of the volume a second.
    pub rate: Option<u64>,
    /// When it happens, nanoseconds.
    pub time_ns: Option<u64>,
}

/// A bookmark to add; values in the spelling of the command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBookmarkRequest {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Type of the application.
    pub app: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// Whether it is locked from the beginning.
    pub locked: bool,
    /// When it goes, nanoseconds.
    pub expires_ns: Option<u64>,
    /// The point it names.
    pub at: Option<String>,
    /// Refuse when a volume is not fully captured.
    pub require_exact: bool,
}

/// A trace to replay; values in the spelling of the command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// The trace.
    pub trace: PathBuf,
    /// Where all lines go.
    pub volume: Option<String>,
    /// Content of the writes.
    pub fill: FillText,
    /// Whether to keep the pace of the trace.
    pub real_time: bool,
    /// Format of the trace.
    pub format: FormatText,
    /// Through a tap.
    pub tap: Option<TapText>,
    /// Only the last state of each interval of this many nanoseconds is kept.
    pub interval_ns: Option<u64>,
}

/// A replay through a tap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapText {
    /// The file that stands for the production disk.
    pub source: PathBuf,
    /// Bytes a second that the store takes; only where the replay owns the store itself.
    pub throttle: Option<u64>,
    /// Whether to wait until the volume is whole.
    pub wait: bool,
    /// Bytes of the source that its resync compares in a second at most.
    #[serde(default)]
    pub resync_rate: Option<u64>,
    /// How long the volume differs before its resync begins, nanoseconds.
    #[serde(default)]
    pub resync_delay_ns: Option<u64>,
    /// Latency of writes to the source beyond which its resync becomes slower, nanoseconds.
    #[serde(default)]
    pub resync_latency_ns: Option<u64>,
}

/// Content of the writes of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FillText {
    /// They name themselves.
    Stamp,
    /// Noise.
    Random,
    /// Zeroes.
    Zero,
}

/// Format of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormatText {
    /// Comma-separated values.
    Csv,
    /// MSR Cambridge.
    Msr,
}

/// What came of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// How things stand.
    Status(StatusReply),
    /// The volume that was added.
    Volume(VolumeDocument),
    /// The bookmark that was added or changed.
    Bookmark(BookmarkDocument),
    /// What was replayed.
    Replay(ReplayDocument),
    /// What a resync did.
    Resync(ResyncDocument),
    /// What a verification found.
    Verify(VerifyDocument),
    /// What a scrub found and did.
    Scrub(ScrubDocument),
    /// What an import did.
    Import(ImportDocument),
    /// What retention dropped.
    Retention(RetentionDocument),
    /// It is done.
    Done,
}

/// How things stand with an owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReply {
    /// Its process.
    pub pid: u32,
    /// Resident memory of it.
    pub rss_bytes: u64,
    /// Everything up to this seq is durable.
    pub durable_seq: u64,
    /// State of each volume.
    pub volumes: Vec<VolumeStatDocument>,
    /// What is under way; an owner of an older version does not say.
    #[serde(default)]
    pub live: Option<Box<LiveDocument>>,
}

/// What an owner sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// How far it is.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Something for the user to know.
    Note(String),
    /// It is done; the last message.
    Reply(Reply),
    /// It failed; the last message.
    Failure(Failure),
    /// The owner is about to close the store and did nothing; the last message.
    Closing,
}

/// Sends one document.
///
/// # Errors
/// Those of the connection; `InvalidInput` when it is too long.
pub fn send<T: Serialize>(connection: &mut impl Write, document: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(document)?;
    line.push(b'\n');
    if line.len() > LINE_BYTES_MAX {
        let length = line.len();
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a message of {length} bytes is too long; at most {LINE_BYTES_MAX} are sent"),
        ));
    }
    connection.write_all(&line)
}

/// Receives one document.
///
/// # Errors
/// `UnexpectedEof` when the other side has gone, `InvalidData` for anything that is not a document of at most
/// [`LINE_BYTES_MAX`] bytes.
pub fn receive<T: DeserializeOwned>(connection: &mut impl BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    let most = u64::try_from(LINE_BYTES_MAX).map_err(io::Error::other)?;
    connection.take(most).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side has gone"));
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is not complete, or too long"));
    }
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Goal: a request survives the way there. Method: one of each shape.
    #[test]
    fn requests_are_received_as_they_were_sent() {
        let bookmark = NewBookmarkRequest {
            name: "a\n\"b".to_owned(),
            kind: "app".to_owned(),
            app: None,
            comment: Some("\u{2603}".to_owned()),
            locked: true,
            expires_ns: Some(u64::MAX),
            at: Some("seq:3".to_owned()),
            require_exact: false,
        };
        let replay = ReplayRequest {
            trace: PathBuf::from("/t"),
            volume: None,
            fill: FillText::Random,
            real_time: true,
            format: FormatText::Msr,
            tap: Some(TapText {
                source: PathBuf::from("/s"),
                throttle: Some(5),
                wait: true,
                resync_rate: Some(6),
                resync_delay_ns: None,
                resync_latency_ns: Some(8),
            }),
            interval_ns: Some(7),
        };
        for request in [
            Request::Status,
            Request::AddBookmark(bookmark),
            Request::Replay(replay),
            Request::AddVolume { name: "v".to_owned(), bytes: 512, import: None, time_ns: None },
        ] {
            let mut sent = Vec::new();
            send(&mut sent, &request).unwrap();
            assert_eq!(sent.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(receive::<Request>(&mut Cursor::new(sent)).unwrap(), request);
        }
    }

    /// Goal: the longest line passes and one past it does not, in both directions. Method: a policy of that length.
    #[test]
    fn lines_are_bounded() {
        let request = |bytes: usize| Request::SetPolicy { policy: "x".repeat(bytes) };
        let frame = serde_json::to_vec(&request(0)).unwrap().len() + 1;
        let mut sent = Vec::new();
        send(&mut sent, &request(LINE_BYTES_MAX - frame)).unwrap();
        assert!(receive::<Request>(&mut Cursor::new(sent)).is_ok());
        assert!(send(&mut Vec::new(), &request(LINE_BYTES_MAX - frame + 1)).is_err());
        assert!(receive::<Request>(&mut Cursor::new(vec![b'x'; LINE_BYTES_MAX + 1])).is_err());
        assert!(receive::<Request>(&mut Cursor::new(b"{\"request\":\"dance\"}\n".to_vec())).is_err());
        assert!(receive::<Request>(&mut Cursor::new(Vec::new())).is_err());
    }
}
