//! The JSON documents of what compares, checks and repairs.

use cdp_core::{Damage, ResyncReport, ScrubReport, VerifyReport};
use serde::{Deserialize, Serialize};

/// What `resync` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResyncDocument {
    /// What was looked at: full, digest, map or quick.
    pub mode: String,
    /// Bytes compared, those in holes of the source included.
    pub bytes_compared: u64,
    /// Bytes that differed, in whole blocks.
    pub bytes_different: u64,
    /// Bytes of data that the store took over; blocks of zeroes take none.
    pub bytes_transferred: u64,
    /// Bytes read from the source.
    pub source_bytes_read: u64,
    /// Bytes of payload read from the store.
    pub store_bytes_read: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether it went on where an earlier run had ended.
    pub resumed: bool,
}

impl From<&ResyncReport> for ResyncDocument {
    fn from(report: &ResyncReport) -> Self {
        Self {
            mode: report.mode.as_str().to_owned(),
            bytes_compared: report.counts.bytes_compared,
            bytes_different: report.counts.bytes_different,
            bytes_transferred: report.counts.bytes_transferred,
            source_bytes_read: report.counts.source_bytes_read,
            store_bytes_read: report.counts.store_bytes_read,
            seconds: report.seconds,
            resumed: report.resumed,
        }
    }
}

/// A range of bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentDocument {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// What `verify` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyDocument {
    /// Bytes compared, those in holes of the source included.
    pub bytes_compared: u64,
    /// Bytes that differed, in whole blocks; those that the store cannot read among them.
    pub bytes_different: u64,
    /// Where, ascending.
    pub extents: Vec<ExtentDocument>,
    /// Whether there were differences and all of them were mended.
    pub repaired: bool,
    /// Bytes that the store could not read.
    pub bytes_damaged: u64,
    /// Bytes that changed too often to be compared.
    pub bytes_unsettled: u64,
    /// Extents that are not listed, because the list would not have passed through the store's owner.
    pub extents_left_out: u64,
    /// Bytes read from the source.
    pub source_bytes_read: u64,
    /// How long it took.
    pub seconds: f64,
}

impl From<&VerifyReport> for VerifyDocument {
    fn from(report: &VerifyReport) -> Self {
        let extents = report.extents.iter();
        Self {
            bytes_compared: report.bytes_compared,
            bytes_different: report.bytes_different,
            extents: extents.map(|e| ExtentDocument { offset: e.offset, length: e.bytes }).collect(),
            repaired: report.repaired,
            bytes_damaged: report.bytes_damaged,
            bytes_unsettled: report.bytes_unsettled,
            extents_left_out: 0,
            source_bytes_read: report.source_bytes_read,
            seconds: report.seconds,
        }
    }
}

/// A damaged range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageDocument {
    /// The file.
    pub file: String,
    /// First damaged byte.
    pub offset: u64,
    /// Length.
    pub length: u64,
    /// First seq that it can touch.
    pub from_seq: u64,
    /// Last seq that it can touch.
    pub to_seq: u64,
    /// What the bytes should be.
    pub what: String,
}

impl From<&Damage> for DamageDocument {
    fn from(damage: &Damage) -> Self {
        Self {
            file: damage.file.clone(),
            offset: damage.offset,
            length: damage.length,
            from_seq: damage.from_seq.get(),
            to_seq: damage.to_seq.get(),
            what: damage.what.clone(),
        }
    }
}

/// A torn tail that was cut when the store was opened.
#[derive(Clone, Debug, Serialize)]
pub struct TailDocument {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What `check` prints.
#[derive(Clone, Debug, Serialize)]
pub struct CheckDocument {
    /// What is damaged.
    pub damaged: Vec<DamageDocument>,
    /// What was cut.
    pub tail_cut: TailDocument,
}

/// What `scrub` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubDocument {
    /// What was damaged when it began.
    pub found: Vec<DamageDocument>,
    /// What is damaged now.
    pub damaged: Vec<DamageDocument>,
    /// Versions of blocks that were written anew.
    pub versions_repaired: u64,
    /// Bytes of them.
    pub bytes_repaired: u64,
    /// Versions of blocks that are damaged and that the source does not have.
    pub versions_lost: u64,
    /// Damaged ranges that are not listed, because the list would not have passed through the store's owner.
    pub left_out: u64,
}

impl From<&ScrubReport> for ScrubDocument {
    fn from(report: &ScrubReport) -> Self {
        Self {
            found: report.found.iter().map(Into::into).collect(),
            damaged: report.left.iter().map(Into::into).collect(),
            versions_repaired: report.versions_repaired,
            bytes_repaired: report.bytes_repaired,
            versions_lost: report.versions_lost,
            left_out: 0,
        }
    }
}
