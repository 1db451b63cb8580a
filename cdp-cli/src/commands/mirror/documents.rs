//! What `cdp mirror` prints.

use crate::output::{Table, human_size};
use cdp_core::mirror::{AckPolicy, Decision, Direction, MirrorStatus, PairStatus};
use serde::Serialize;

/// A copy.
#[derive(Clone, Debug, Serialize)]
pub struct CopyDocument {
    /// Its number.
    pub n: u32,
    /// Its file or device.
    pub path: String,
    /// `clean`, `dirty`, `offline`, `missing` or `refused`.
    pub state: &'static str,
    /// Bytes that its map names.
    pub dirty_bytes: u64,
    /// Its line of writes.
    pub generation: String,
    /// Why it is not online, where nobody asked for that.
    pub trouble: Option<String>,
}

/// A set; every command prints one, with fields of its own beside.
#[derive(Clone, Debug, Serialize)]
pub struct SetDocument {
    /// Size of the volume, bytes.
    pub size: u64,
    /// `one`, `quorum` or `all`.
    pub ack: &'static str,
    /// The copy that the others follow.
    pub source: Option<u32>,
    /// The copies, by number.
    pub copies: Vec<CopyDocument>,
}

impl From<&MirrorStatus> for SetDocument {
    fn from(status: &MirrorStatus) -> Self {
        let copies = status.copies.iter().map(|copy| CopyDocument {
            n: copy.number,
            path: copy.locator.clone(),
            state: copy.standing.name(),
            dirty_bytes: copy.dirty_bytes,
            generation: copy.generation.to_string(),
            trouble: copy.trouble.clone(),
        });
        let ack = match status.ack {
            AckPolicy::One => "one",
            AckPolicy::Quorum => "quorum",
            AckPolicy::All => "all",
        };
        Self { size: status.bytes, ack, source: status.source, copies: copies.collect() }
    }
}

impl SetDocument {
    /// The copies as a table.
    pub fn text(&self) -> String {
        let mut table = Table::new(["n", "state", "dirty", "generation", "path"]);
        for copy in &self.copies {
            let path = match &copy.trouble {
                Some(trouble) => format!("{} ({trouble})", copy.path),
                None => copy.path.clone(),
            };
            let dirty = human_size(copy.dirty_bytes);
            table.row([copy.n.to_string(), copy.state.to_owned(), dirty, copy.generation.clone(), path]);
        }
        table.text()
    }
}

/// What `write` prints.
#[derive(Clone, Debug, Serialize)]
pub struct WriteDocument {
    #[serde(flatten)]
    pub set: SetDocument,
    /// Lines that were writes, zeroes or discards.
    pub writes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the first submit to the last durable.
    pub seconds: f64,
    /// Writes a second.
    pub writes_per_s: f64,
    /// Bytes a second.
    pub bytes_per_s: f64,
}

/// A pair of copies.
#[derive(Clone, Debug, Serialize)]
pub struct PairDocument {
    /// The copy with the lower number.
    pub first: u32,
    /// The other one.
    pub second: u32,
    /// `nothing`, `map`, `comparison`, `split-brain` or `unrelated`.
    pub decision: &'static str,
    /// The copy that is read.
    pub from: Option<u32>,
    /// The copy that is written.
    pub to: Option<u32>,
    /// Short name of the rule.
    pub rule: &'static str,
    /// The rule in words.
    pub reason: &'static str,
}

impl From<&PairStatus> for PairDocument {
    fn from(pair: &PairStatus) -> Self {
        let (decision, direction) = match pair.outcome.decision {
            Decision::Nothing => ("nothing", None),
            Decision::ByMap(direction) => ("map", Some(direction)),
            Decision::ByComparison(direction) => ("comparison", Some(direction)),
            Decision::SplitBrain => ("split-brain", None),
            Decision::Unrelated => ("unrelated", None),
        };
        let ends = direction.map(|direction| match direction {
            Direction::FirstToSecond => (pair.first, pair.second),
            Direction::SecondToFirst => (pair.second, pair.first),
        });
        Self {
            first: pair.first,
            second: pair.second,
            decision,
            from: ends.map(|ends| ends.0),
            to: ends.map(|ends| ends.1),
            rule: pair.outcome.rule,
            reason: pair.outcome.reason,
        }
    }
}

/// What `handshake` prints.
#[derive(Clone, Debug, Serialize)]
pub struct HandshakeDocument {
    #[serde(flatten)]
    pub set: SetDocument,
    /// All pairs of copies that are there.
    pub pairs: Vec<PairDocument>,
}

impl HandshakeDocument {
    /// A line for each pair.
    pub fn text(&self) -> String {
        let line = |pair: &PairDocument| {
            let what = match (pair.from, pair.to) {
                (Some(from), Some(to)) => format!("copy {from} to {to} by {}", pair.decision),
                _ => pair.decision.to_owned(),
            };
            format!("{} and {}: ({what}, {}, {})\n", pair.first, pair.second, pair.rule, pair.reason)
        };
        self.pairs.iter().map(line).collect()
    }
}

/// What `repair` prints.
#[derive(Clone, Debug, Serialize)]
pub struct RepairDocument {
    #[serde(flatten)]
    pub set: SetDocument,
    /// Bytes that the maps named.
    pub bytes_compared: u64,
    /// Bytes that differed and were written.
    pub bytes_transferred: u64,
    /// Bytes that maps of copies that are online still name.
    pub bytes_left: u64,
    /// Copies that lack nothing any more.
    pub repaired: Vec<u32>,
    /// How long it took.
    pub seconds: f64,
}

/// A range in which copies differ.
#[derive(Clone, Debug, Serialize)]
pub struct ExtentDocument {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// A copy out of a majority that agrees: a proposal for `--repair-from`.
    pub majority: Option<u32>,
}

/// What `verify` prints.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyDocument {
    #[serde(flatten)]
    pub set: SetDocument,
    /// Bytes of which at least two copies were compared.
    pub bytes_compared: u64,
    /// Bytes in which copies differ.
    pub bytes_different: u64,
    /// Bytes that some copy could not give.
    pub bytes_unreadable: u64,
    /// Where copies differ.
    pub extents: Vec<ExtentDocument>,
    /// Bytes that were written to make them equal.
    pub repaired: u64,
}

/// What `online` prints.
#[derive(Clone, Debug, Serialize)]
pub struct OnlineDocument {
    #[serde(flatten)]
    pub set: SetDocument,
    /// What is to be done for the copy.
    pub decision: String,
    /// Short name of the rule.
    pub rule: &'static str,
    /// The rule in words.
    pub reason: &'static str,
}
