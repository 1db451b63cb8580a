//! How large a history will be under a policy, by tier: from a trace, exactly, or from a rate of writes over a working set.
//!
//! Counted are versions: a block of [`BLOCK_BYTES`] that a write touched, with the seq of that write. A version is needed while
//! it is the newest of its block, or its successor lies inside the full range, or a retained point p has seq <= p < successor. It
//! is counted in the youngest tier that needs it, so that the tiers add up. Each takes its block and [`INDEX_BYTES`] of index.
//!
//! What the figures leave out: the headers of frames, the space that collection has not given back yet, compression.
//!
//! Memory for a trace: 8 bytes a write, and a map entry for each block that was written.

mod rate;
mod trace;

pub use rate::{SizeRate, size_of_rate};
pub use trace::size_of_trace;

use super::Policy;
use crate::{text::format_size, units::BLOCK_BYTES};

/// Bytes of index that a version takes, as a bound.
pub const INDEX_BYTES: u64 = 24;

/// The expected size of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistorySize {
    /// The newest state first, then the full range, then window by window.
    pub tiers: Vec<TierSize>,
    /// What the figures rest on, and what they say that is not obvious; sentences for people.
    pub assumptions: Vec<String>,
}

/// The share of a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierSize {
    /// `newest`, `all` for the full range, or the name of a window behind it ([`Policy::window_name`]).
    pub name: String,
    /// Points in it; each write of the full range is one.
    pub points: u64,
    /// Versions that are needed for it and for no younger tier.
    pub versions: u64,
    /// Bytes that were written in the span of the tier, whole blocks; 0 for the newest state.
    pub written_bytes: u64,
}

impl TierSize {
    /// Bytes of its blocks.
    pub fn data_bytes(&self) -> u64 {
        self.versions.saturating_mul(BLOCK_BYTES)
    }

    /// Bytes of its index entries.
    pub fn index_bytes(&self) -> u64 {
        self.versions.saturating_mul(INDEX_BYTES)
    }
}

impl HistorySize {
    /// All of it, bytes.
    pub fn bytes(&self) -> u64 {
        let one = |tier: &TierSize| tier.data_bytes().saturating_add(tier.index_bytes());
        self.tiers.iter().map(one).fold(0, u64::saturating_add)
    }

    /// Adds the sentences that follow from the figures.
    fn remark(&mut self, policy: &Policy) {
        // Tiers 0 and 1 are the newest state and the full range; those behind it are there to save.
        for tier in self.tiers.iter().skip(2).filter(|tier| tier.points > 0 && tier.written_bytes > 0) {
            let percent = u128::from(tier.data_bytes()) * 100 / u128::from(tier.written_bytes);
            if percent >= 50 {
                self.assumptions.push(format!(
                    "window {} saves little: {percent} % of what is written in its span stays, because few blocks are \
                     overwritten between its points",
                    tier.name
                ));
            }
        }
        let bytes = self.bytes();
        if let Some(bound) = policy.max_bytes.filter(|bound| bytes > *bound) {
            self.assumptions.push(format!(
                "max_bytes ({}) is less than this: the oldest history goes earlier than the windows say, or writes stop",
                format_size(bound)
            ));
        }
    }
}

fn common_assumptions() -> Vec<String> {
    vec![
        format!(
            "a version is a block of {BLOCK_BYTES} bytes, however little of it a write touched, and {INDEX_BYTES} bytes of index"
        ),
        "without compression, and without what is waiting to be collected".to_owned(),
        "a version is counted once, in the youngest tier that needs it".to_owned(),
    ]
}

/// The age at which everything goes, if anything makes it go.
fn age_max(policy: &Policy) -> Option<u64> {
    policy.windows.last().map(|window| window.to).into_iter().chain(policy.max_age).min()
}

#[cfg(test)]
mod tests;
