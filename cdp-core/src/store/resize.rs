//! Giving a volume another size.

use super::{Store, check_volume};
use crate::error::{Result, SeqTime};

impl Store {
    /// Gives a volume another size. The change takes one seq, which is returned; `None`: the volume has that size. Points from there on have
    /// the new size, points before it the old one and all of its content. What a smaller size cuts off is gone from there on: it reads as zeroes
    /// when the volume grows again. It does not move the clock of the store. Durable when this returns.
    ///
    /// What is recorded of the volume's source stays, for a source that is given the same size: what is new of it counts as different.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a size that a volume cannot have, while a tap captures the volume, and beyond
    /// [`VOLUME_RESIZES_MAX`](crate::limits::VOLUME_RESIZES_MAX) times; `ReadOnly`, `NoSpace`, `Io`, `Poisoned`: the volume then has either size.
    pub fn resize_volume(&self, name: &str, bytes: u64) -> Result<Option<SeqTime>> {
        let group = self.owner()?;
        let volume = self.volume(Some(name))?;
        check_volume(name, bytes)?;
        self.with_room(|| group.resize_volume(volume.id(), bytes, None))
    }
}
