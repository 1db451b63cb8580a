//! What is left of the timeline, and who holds on to a point of it.
//!
//! Pins and changes of the outline share a lock: a point that is pinned is there, and stays there.

use super::Group;
use crate::{
    error::Result,
    format::{manifest::Edit, outline::OutlineFull},
    manifest::keep_edits,
    retention::Outline,
    sabotage::Switch,
    units::Seq,
};
use std::{collections::BTreeMap, sync::Arc};

/// Seqs that are dropped from the outline by one edit.
const DROPPED_AT_ONCE: usize = 16 << 10;

/// The points that something reads, each with the number of holders.
pub(crate) type Pins = BTreeMap<Seq, usize>;

impl Group {
    /// The outline as it stands.
    pub fn outline(&self) -> Arc<Outline> {
        self.outline.read().clone()
    }

    /// Holds on to a point; false when it is not there.
    pub fn pin(&self, seq: Seq) -> bool {
        let mut pins = self.pins.lock();
        let there = self.outline.read().contains(seq);
        if there {
            *pins.entry(seq).or_default() += 1;
        }
        there
    }

    /// Lets go of a point.
    pub fn unpin(&self, seq: Seq) {
        let mut pins = self.pins.lock();
        if let Some(holders) = pins.get_mut(&seq) {
            *holders -= 1;
            if *holders == 0 {
                pins.remove(&seq);
            }
        }
    }

    /// The points that are held.
    pub fn pinned(&self) -> Vec<Seq> {
        self.pins.lock().keys().copied().collect()
    }

    /// Makes an outline durable, unless it lacks a point that is held; then nothing happens and the answer is false. Bookmarks of points
    /// that it lacks are gone with them: a store that finds their records leaves them out.
    ///
    /// # Errors
    /// As for any edit. What the outline drops is refused all the same; the next open finds either outline, and the same plan leads on.
    pub fn set_outline(&self, to: Outline) -> Result<bool> {
        let mut manifest = self.manifest.lock();
        let manifest = manifest.log()?;
        let pins = self.pins.lock();
        let ignored = self.shared.sabotage.on(Switch::IgnorePins);
        if !ignored && !pins.keys().all(|seq| to.contains(*seq)) {
            return Ok(false);
        }
        let (kept, dropped) = manifest.state().outline.difference(&to);
        // In this order every prefix of the edits is an outline from which the same plan leads on.
        let mut edits: Vec<Edit> = keep_edits(kept).collect();
        edits.extend(dropped.chunks(DROPPED_AT_ONCE).map(|seqs| Edit::OutlineDropped(seqs.to_vec())));
        edits.push(Edit::OutlineFull(OutlineFull { full: to.full, planned: to.planned }));
        let appended = self.append_edits(manifest, &edits);
        // The record of an edit that failed may be there all the same. So what it drops is not promised to anybody any more, but not
        // thinned either.
        self.catalog.write().keep_bookmarks(|bookmark| to.contains(bookmark.seq));
        *self.outline.write() = Arc::new(to);
        drop(pins);
        appended.map(|()| true)
    }
}
