//! The documents of seed sets.

use serde::{Deserialize, Serialize};

/// What `export` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportDocument {
    /// Identity of the set.
    pub set: String,
    /// The volume.
    pub volume: String,
    /// The state that the set leads to.
    pub seq: u64,
    /// Its time.
    pub time: String,
    /// The state that it goes on from; `None`: it is whole.
    pub since_seq: Option<u64>,
    /// Size of the volume, bytes.
    pub bytes: u64,
    /// Bytes of data read from the store by this run.
    pub data_bytes: u64,
    /// Bytes of the data files.
    pub stored_bytes: u64,
    /// Data files.
    pub files: u64,
    /// Whether it went on where an earlier run had ended.
    pub resumed: bool,
    /// How long it took.
    pub seconds: f64,
}

/// What `import` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportDocument {
    /// The volume that is now in the state of the set.
    pub volume: String,
    /// The seq of that state in the store that the set comes from.
    pub origin_seq: u64,
    /// The seq that shows it here.
    pub seq: u64,
    /// Bytes compared, those that the set skips included.
    pub bytes_compared: u64,
    /// Bytes that differed, in whole blocks.
    pub bytes_different: u64,
    /// Bytes of data that the store took over; blocks of zeroes take none.
    pub bytes_transferred: u64,
    /// How long it took.
    pub seconds: f64,
    /// Whether it went on where an earlier run had ended, or everything was there.
    pub resumed: bool,
}
