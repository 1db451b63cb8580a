//! Steps that only look: reads, points that are kept open, comparisons, readers beside the owner.

use super::{HELD_MAX, Outcome, World};
use crate::{
    Store,
    capture::Coalescing,
    error::Error,
    limits::WRITE_BYTES_MAX,
    testing::{
        check::{Checker, Thoroughness, compare_image, compare_range, observe},
        mismatch::Mismatch,
        model::Observation,
        op::Place,
    },
    units::{SECTOR_BYTES, Seq, len_u64, to_len},
};
use std::sync::Arc;

impl World {
    pub(super) fn read(&mut self, place: Place) -> Result<(), Mismatch> {
        if !self.settle()? {
            return Ok(());
        }
        let (volume, start, end) = self.range(place, WRITE_BYTES_MAX / SECTOR_BYTES);
        let newest = self.model.newest().seq;
        let image = self.model.image(volume, newest);
        let handle = self.volume(volume)?;
        let mut read = |offset, buf: &mut [u8]| handle.read(offset, buf);
        compare_range(&self.model.volumes()[volume], newest, &image, (start, end), "read", &mut read)
    }

    pub(super) fn hold(&mut self, which: u64) -> Result<(), Mismatch> {
        let volume = to_len(which % len_u64(self.model.volumes().len()));
        let (from, newest) = (self.model.volumes()[volume].exists_from.get(), self.model.newest().seq.get());
        if from > newest {
            return Ok(());
        }
        let seq = Seq::new(from + (which >> 8) % (newest - from + 1));
        let result = self.volume(volume)?.snapshot(seq);
        if matches!(result, Err(Error::PointUnavailable(_)))
            && !self.model.is_surely_point(seq, Seq::new(newest))
        {
            return Ok(());
        }
        if result.is_ok() && !self.model.remains().contains(seq) {
            return Err(Mismatch::new(
                format!("snapshot({seq}), which was thinned away"),
                "refused",
                "opened",
            ));
        }
        if let Outcome::Done(snapshot) = self.judge("snapshot", result)? {
            self.model.acknowledge(seq);
            if self.held.len() >= HELD_MAX {
                self.held.remove(0);
            }
            self.held.push((volume, seq, snapshot));
        }
        Ok(())
    }

    pub(super) fn read_held(&mut self) -> Result<(), Mismatch> {
        for (volume, seq, snapshot) in &self.held {
            let image = self.model.image(*volume, *seq);
            let mut read = |offset, buf: &mut [u8]| snapshot.read(offset, buf);
            let volume = &self.model.volumes()[*volume].at(*seq);
            compare_image(volume, *seq, &image, "held snapshot read", &mut self.rng, &mut read)?;
        }
        Ok(())
    }

    /// Compares the store with the model, after ending all faults.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&mut self, thoroughness: Thoroughness) -> Result<(), Mismatch> {
        self.heal()?;
        if self.storage.is_stopped() || self.poisoned {
            return Ok(());
        }
        let store = self.store()?;
        if self.armed.is_some() {
            // Opening a point may write, and so may stop the machine: only what does not.
            if self.model.stretches().now() != Coalescing::PerWrite {
                return Ok(());
            }
            return Checker::new(&store, &self.model, &mut self.rng)?.newest_state();
        }
        self.settle()?;
        let checked = Checker::new(&store, &self.model, &mut self.rng)?.all(thoroughness);
        self.model.acknowledge(store.durable_seq());
        checked
    }

    /// Opens the store for reading only, compares it, and checks that nothing was written.
    pub(super) fn look(&mut self) -> Result<Observation, Mismatch> {
        let changes = self.storage.changes();
        let storage = Arc::new(self.storage.clone());
        let reader =
            Store::open_read_only(storage, self.options()).map_err(Mismatch::failed("open_read_only"))?;
        let seen = observe(&reader);
        let mut checker = Checker::new(&reader, &self.model, &mut self.rng)?;
        if self.model.newest().seq >= seen.newest.seq {
            checker.all(Thoroughness::Sample)?;
        }
        drop(reader);
        if self.storage.changes() != changes {
            return Err(Mismatch::new("changes made by a reader", "none", "some"));
        }
        Ok(seen)
    }
}
