//! Where the lines of an inline replay go: the volumes of the store.

use super::Sink;
use crate::{
    exit::{Failure, Outcome},
    interrupt::Interrupt,
};
use cdp_core::{Error, Store, Volume, trace::TraceLine, units::Seq};
use std::{collections::HashMap, sync::Arc};

/// The volumes that lines name.
pub struct Inline<'a> {
    store: &'a Store,
    /// Where all lines go, when that was asked for.
    target: Option<Volume>,
    volumes: HashMap<Arc<str>, Volume>,
}

impl<'a> Inline<'a> {
    pub fn new(store: &'a Store, target: Option<Volume>) -> Self {
        Self { store, target, volumes: HashMap::new() }
    }

    fn volume(&mut self, line: &TraceLine) -> Outcome<&Volume> {
        if let Some(target) = &self.target {
            return Ok(target);
        }
        if !self.volumes.contains_key(&line.volume) {
            let volume = self.store.volume(Some(&line.volume)).map_err(|error| match error {
                Error::NotFound { .. } => Failure::new(format!(
                    "the store has no volume {:?}; --volume NAME sends all lines to one volume",
                    &*line.volume
                )),
                error => error.into(),
            })?;
            self.volumes.insert(Arc::clone(&line.volume), volume);
        }
        Ok(&self.volumes[&line.volume])
    }
}

impl Sink for Inline<'_> {
    fn write(&mut self, line: &TraceLine, offset: u64, data: &[u8]) -> Outcome<Option<Seq>> {
        Ok(Some(self.volume(line)?.write_at_time(offset, data, line.time)?))
    }

    fn zero(&mut self, line: &TraceLine, offset: u64, length: u64) -> Outcome<Option<Seq>> {
        Ok(Some(self.volume(line)?.write_zeroes(offset, length, Some(line.time))?))
    }

    fn discard(&mut self, line: &TraceLine, offset: u64, length: u64) -> Outcome<Option<Seq>> {
        Ok(Some(self.volume(line)?.discard(offset, length, Some(line.time))?))
    }

    fn flush(&mut self, line: &TraceLine) -> Outcome {
        self.volume(line)?.flush()?;
        Ok(())
    }

    fn check(&mut self, line: &TraceLine) -> Outcome {
        self.volume(line).map(|_| ())
    }

    fn end(self: Box<Self>, _interrupt: &Interrupt) -> Outcome {
        Ok(())
    }
}
