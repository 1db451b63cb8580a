//! What may differ between a volume and its source when a tap begins: what the store recorded, and what the host says.
//!
//! The record comes first. What the host says can add to it, and can replace what is not recorded; it can never take away what the record
//! claims. A map that is missing, damaged or of something else claims everything.

use super::Store;
use crate::{
    catalog::{GapReason, TapRecord, VolumeInfo},
    dirty_map::{ByteRange, DirtyMap},
    error::{Error, Result},
    group::Known,
    resync::SourceReader,
    sabotage::Switch,
};

/// What the host knows of the source when a tap begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// Nothing beyond what the store recorded: the source was not changed since the last tap ended, or since the store went down. Without a
    /// record everything may differ, and also when the source has another [stamp](crate::SourceReader::stamp) than when that tap ended: it was changed
    /// nevertheless.
    AsRecorded,
    /// The source and the newest state of the volume are equal, for instance both are new. Not believed after an unclean end, nor after a
    /// tap that ended while blocks differed: everything is compared then.
    Equal,
    /// Besides what the store recorded, these ranges may differ and nothing else: the host's own tracking of changed blocks, of the whole
    /// time in which no tap watched the source. Without a record they are all that may differ. At most
    /// [`RANGES_MAX`](crate::limits::RANGES_MAX), in any order.
    Differs(Vec<ByteRange>),
    /// Anything may differ: the source was changed while no tap watched it.
    Unknown,
}

/// What may differ, beside the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Differences {
    /// Why anything may; `None` when all is equal.
    pub reason: Option<GapReason>,
    /// Nothing says what may differ: the map claims everything.
    pub everything: bool,
}

impl Store {
    /// Whether the stamp of the source is another one than when it was last known what differs. Without a record of it nothing can be said.
    pub(super) fn was_changed(&self, info: &VolumeInfo, source: &dyn SourceReader) -> bool {
        let recorded = self.inner.group.catalog.read().source_stamp(info.id).and_then(|record| record.stamp);
        // A stamp that cannot be had is none.
        recorded.is_some_and(|recorded| source.stamp().ok().flatten() != Some(recorded))
    }

    /// Marks in `map` what may differ from the source.
    pub(super) fn mark_differences(
        &self,
        info: &VolumeInfo,
        known: Known,
        source: &SourceState,
        map: &DirtyMap,
    ) -> Result<Differences> {
        let group = &self.inner.group;
        let open = group.catalog.read().gaps(info.id).and_then(|gaps| gaps.open()).map(|gap| gap.reason);
        let mut ranges: &[ByteRange] = &[];
        if let SourceState::Differs(given) = source {
            check_ranges(info, given)?;
            ranges = given;
        }
        let (record, stored) = known.unzip();
        let record = match record {
            Some(TapRecord::Attached) if group.shared.sabotage.on(Switch::BelieveUncleanEnd) => {
                Some(TapRecord::Equal)
            }
            record => record,
        };
        let (reason, bounded) = match (record, source) {
            (Some(TapRecord::Attached), _) => (GapReason::Unclean, false),
            (Some(TapRecord::Differs), _) => (open.unwrap_or(GapReason::Host), false),
            (None, SourceState::Differs(_)) if open.is_none() => (GapReason::Initial, true),
            (_, SourceState::Differs(_)) if open.is_none() => (GapReason::Host, true),
            _ if open.is_some() => (open.unwrap_or(GapReason::Host), false),
            (_, SourceState::Equal) | (Some(TapRecord::Equal), SourceState::AsRecorded) => {
                return Ok(Differences { reason: None, everything: false });
            }
            (Some(TapRecord::Equal), _) => (GapReason::Host, false),
            (None, _) => (GapReason::Initial, false),
        };
        let recorded = bounded
            || match (stored.flatten(), source) {
                (Some(stored), SourceState::AsRecorded | SourceState::Differs(_)) => {
                    let merged = group.merge_stored_map(info, stored, map);
                    merged.inspect_err(|error| group.map_not_used(info, error)).is_ok()
                }
                _ => false,
            };
        if !recorded {
            map.set_all();
        }
        ranges.iter().for_each(|range| map.set(*range));
        let reason = Some(reason).filter(|_| !bounded || !map.is_empty());
        Ok(Differences { reason, everything: !recorded })
    }
}

/// Checks ranges that a host gives.
pub(super) fn check_ranges(info: &VolumeInfo, ranges: &[ByteRange]) -> Result<()> {
    if ranges.len() > crate::limits::RANGES_MAX {
        return Err(Error::InvalidArgument(format!(
            "{} ranges in one call: at most {}; merge them",
            ranges.len(),
            crate::limits::RANGES_MAX
        )));
    }
    let outside =
        ranges.iter().find(|range| range.offset.checked_add(range.bytes).is_none_or(|end| end > info.bytes));
    match outside {
        Some(range) => {
            Err(Error::OutOfRange { offset: range.offset, length: range.bytes, volume_bytes: info.bytes })
        }
        None => Ok(()),
    }
}
