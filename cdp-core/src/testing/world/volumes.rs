//! Steps that add volumes, empty or imported.

use super::{Outcome, VOLUMES_MAX, World};
use crate::{
    Store,
    testing::{
        content::{ContentSource, pieces_of},
        mismatch::Mismatch,
        model::{ModelVolume, Written},
        op::{Fill, When},
    },
    units::{SECTOR_BYTES, len_u64, to_len},
};

impl World {
    /// A name that was never used.
    pub(super) fn new_name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    pub(super) fn add_volume(&mut self, sectors: u64) -> Result<(), Mismatch> {
        if self.model.volumes().len() >= VOLUMES_MAX || !self.model.is_certain() {
            return Ok(());
        }
        let volume = ModelVolume {
            name: self.new_name("volume"),
            bytes: sectors * SECTOR_BYTES,
            exists_from: self.model.newest().seq,
            tag: self.model.new_tag(),
            before: Vec::new(),
        };
        let result = self.store()?.add_volume(&volume.name, volume.bytes);
        match self.judge("add_volume", result)? {
            Outcome::Done(_) => {
                self.model.added_volume(volume);
                self.model.acknowledge(self.model.newest().seq);
            }
            Outcome::Failed | Outcome::Cut => self.model.added_volume_perhaps(volume, None),
        }
        Ok(())
    }

    pub(super) fn resize(&mut self, volume: u64, sectors: u64) -> Result<(), Mismatch> {
        let index = to_len(volume % len_u64(self.model.volumes().len()));
        // A write that may or may not be there must stay the only thing in doubt.
        if !self.model.is_certain() || !self.settle()? {
            return Ok(());
        }
        let (volume, bytes) = (self.model.volumes()[index].clone(), sectors * SECTOR_BYTES);
        let store = self.store()?;
        let result = store.resize_volume(&volume.name, bytes);
        match self.judge("resize_volume", result)? {
            Outcome::Done(None) if volume.bytes == bytes => {}
            Outcome::Done(Some(at)) if volume.bytes != bytes => {
                let expected = self.model.resized(index, bytes);
                self.coverage.seqs += 1;
                if at.seq != expected {
                    return Err(Mismatch::new("resize", format!("seq {expected}"), format!("{at:?}")));
                }
                self.model.acknowledge(expected);
            }
            Outcome::Done(found) => {
                let expected = format!("a change from {} to {bytes} bytes", volume.bytes);
                return Err(Mismatch::new("resize", expected, format!("{found:?}")));
            }
            Outcome::Cut => self.model.resized_perhaps(index, bytes),
            // When only its sync has failed, it holds.
            Outcome::Failed if store.newest().seq > self.model.newest().seq => {
                self.model.resized(index, bytes);
            }
            Outcome::Failed => self.nothing_captured("resize")?,
        }
        Ok(())
    }

    pub(super) fn import(
        &mut self,
        sectors: u64,
        seed: u64,
        fail_after: Option<u64>,
    ) -> Result<(), Mismatch> {
        if self.model.volumes().len() >= VOLUMES_MAX || !self.model.is_certain() {
            return Ok(());
        }
        let stamp = self.model.new_stamp();
        let volume = ModelVolume {
            name: self.new_name("import"),
            bytes: sectors * SECTOR_BYTES,
            exists_from: self.model.newest().seq.next(),
            tag: self.model.new_tag(),
            before: Vec::new(),
        };
        let pieces = pieces_of(0, sectors, Fill::Mixed(seed), stamp);
        let mut source = ContentSource::new(volume.tag, &pieces, sectors, fail_after);
        let time = self.time_of(When::Clock).1;
        let content = Written { volume: self.model.volumes().len(), pieces, time };
        let store = self.store()?;
        let result = store.import_volume(&volume.name, volume.bytes, &mut source, None, &mut |_| {});
        if result.is_err() && source.has_failed() && !self.storage.is_stopped() {
            return self.import_failed(&store, volume, content);
        }
        match self.judge("import_volume", result)? {
            Outcome::Done(_) => {
                self.coverage.seqs += 1;
                self.model.wrote(content);
                self.model.added_volume(volume);
                self.model.acknowledge(self.model.newest().seq);
                Ok(())
            }
            Outcome::Cut => {
                self.model.added_volume_perhaps(volume, Some(content));
                Ok(())
            }
            Outcome::Failed => self.import_failed(&store, volume, content),
        }
    }

    /// A failed import may have taken its seq; the volume shows itself only if the failure came at the very end.
    fn import_failed(
        &mut self,
        store: &Store,
        volume: ModelVolume,
        content: Written,
    ) -> Result<(), Mismatch> {
        let newest = self.model.newest().seq;
        let shown = store.newest();
        if shown.seq == newest.next() {
            self.model.wrote(Written { time: shown.time, ..content });
            self.model.added_volume_perhaps(volume, None);
            return Ok(());
        }
        self.nothing_captured("import")
    }
}
