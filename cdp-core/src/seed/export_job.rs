//! An export of a volume, at once or in steps.

use super::{
    export::{Begun, ExportOptions, Exported, Place, Writer, export_piece},
    layout::{SeedAbout, SeedState},
};
use crate::{
    Volume,
    dirty_map::ByteRange,
    error::{Error, Result},
    io::{AlignedBuf, Storage, StorageLock},
    job::{Job, JobStep},
    limits::{SEED_BATCH_BYTES_MAX, SEED_FILE_BYTES_MAX, SEED_FILE_BYTES_MIN},
    restore::Progress,
    snapshot::Snapshot,
    units::Seq,
};
use std::{io, ops::ControlFlow, sync::Arc};

impl Volume {
    /// Writes the volume as it was at `at` to `to`, as a seed set ([`crate::seed`]): its data without zeroes, or with [`ExportOptions::since`] what was written
    /// since then. `to` is empty, or holds what an earlier run for the same states has written, which then goes on. The set is whole and durable when this
    /// returns with `complete`. The store may be open for reading only. `progress` counts bytes of the volume, and can stop the export.
    ///
    /// # Errors
    /// As [`Volume::snapshot`] for either state; `InvalidArgument` when `since` is after `at`, or for a size of files out of bounds; `Exists` when `to` holds
    /// something else; `Owned` while another export writes there; `Damaged` for the store; `NoSpace` and `Io` for both. What was written stays.
    pub fn export(
        &self,
        at: Seq,
        to: &dyn Storage,
        options: &ExportOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Exported> {
        let mut job = ExportJob::begin(self, at, Place::Borrowed(to), options)?;
        while job.step()? != JobStep::Done {
            if job.done > 0 && progress(job.progress()).is_break() {
                break;
            }
        }
        Ok(job.exported())
    }

    /// As [`Volume::export`], in steps.
    ///
    /// # Errors
    /// As [`Volume::export`].
    pub fn export_job(
        &self,
        at: Seq,
        to: Arc<dyn Storage>,
        options: &ExportOptions,
    ) -> Result<ExportJob<'static>> {
        ExportJob::begin(self, at, Place::Shared(to), options)
    }

    fn about_seed(&self, snapshot: &Snapshot, options: &ExportOptions) -> Result<SeedAbout> {
        let state = |seq: Seq, bytes: u64| -> Result<SeedState> {
            let point = self.store().with_time(seq)?;
            Ok(SeedState { lineage: self.store().inner.group.lineage_of(seq), seq, time: point.time, bytes })
        };
        Ok(SeedAbout {
            set: crate::group::random_uuid()?,
            store: self.store().inner.group.shared.store,
            volume: self.id(),
            name: self.name().to_owned(),
            at: state(snapshot.seq(), snapshot.bytes())?,
            since: options.since.map(|since| state(since, self.bytes_at(since))).transpose()?,
            file_bytes_max: options.file_bytes_max,
        })
    }
}

/// What is left to write.
struct Left<'a> {
    writer: Box<Writer<'a>>,
    ranges: Box<dyn Iterator<Item = Result<ByteRange>> + Send>,
    /// The range that is being written.
    range: ByteRange,
    /// Everything before was there from an earlier run.
    from: u64,
    buf: AlignedBuf,
}

/// An export under way: see [`Volume::export`]. Dropped, it leaves the data files that are whole, behind which a later run goes on.
pub struct ExportJob<'a> {
    snapshot: Snapshot,
    zeroes: bool,
    left: Option<Left<'a>>,
    exported: Option<Exported>,
    done: u64,
    _owner: Box<dyn StorageLock>,
}

impl<'a> ExportJob<'a> {
    fn begin(volume: &Volume, at: Seq, to: Place<'a>, options: &ExportOptions) -> Result<Self> {
        if !(SEED_FILE_BYTES_MIN..=SEED_FILE_BYTES_MAX).contains(&options.file_bytes_max) {
            return Err(Error::InvalidArgument(format!(
                "data files of {} bytes cannot be made; {SEED_FILE_BYTES_MIN} to {SEED_FILE_BYTES_MAX} are possible",
                options.file_bytes_max
            )));
        }
        let snapshot = volume.snapshot(at)?;
        let changed = options.since.map(|since| volume.changed(since, at)).transpose()?;
        let about = volume.about_seed(&snapshot, options)?;
        let owner = to.lock_owner().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::Owned,
            _ => Error::io("lock", "the seed set", error),
        })?;
        let zeroes = options.since.is_some();
        let mut job = Self { snapshot, zeroes, left: None, exported: None, done: 0, _owner: owner };
        match Writer::begin(to, about, options.compress)? {
            Begun::Whole(exported) => job.exported = Some(exported),
            Begun::Parts(writer) => {
                let ranges: Box<dyn Iterator<Item = Result<ByteRange>> + Send> = match changed {
                    Some(changed) => Box::new(
                        changed
                            .map(|extent| extent.map(|extent| ByteRange::new(extent.offset, extent.length))),
                    ),
                    None => Box::new(std::iter::once(Ok(ByteRange::new(0, job.snapshot.bytes())))),
                };
                let buf = AlignedBuf::new(SEED_BATCH_BYTES_MAX);
                let buf = buf.map_err(|error| Error::io("reserve memory for", "an export", error))?;
                let from = writer.reached();
                let range = ByteRange::new(0, 0);
                job.left = Some(Left { writer, ranges, range, from, buf });
            }
        }
        Ok(job)
    }

    /// What was written so far, earlier runs included; of the data files those that are whole.
    ///
    /// # Panics
    /// Never: it is known from the beginning.
    pub fn exported(&self) -> Exported {
        match (&self.exported, &self.left) {
            (Some(exported), _) => exported.clone(),
            (None, Some(left)) => left.writer.exported(false),
            (None, None) => unreachable!("an export that has ended left what it has written"),
        }
    }

    fn try_step(&mut self) -> Result<JobStep> {
        let Some(left) = &mut self.left else { return Ok(JobStep::Done) };
        while left.range.bytes == 0 {
            let Some(range) = left.ranges.next().transpose()? else {
                self.exported = Some(left.writer.finish()?);
                self.left = None;
                return Ok(JobStep::Done);
            };
            let at = range.offset.max(left.from);
            left.range = ByteRange::new(at, range.end().saturating_sub(at));
        }
        let range = left.range;
        let end = export_piece(&self.snapshot, range, self.zeroes, &mut left.buf, &mut left.writer)?;
        left.range = ByteRange::new(end, range.end() - end);
        self.done = end;
        Ok(JobStep::More)
    }
}

impl Job for ExportJob<'_> {
    fn step(&mut self) -> Result<JobStep> {
        let outcome = self.try_step();
        if outcome.is_err()
            && let Some(left) = self.left.take()
        {
            self.exported = Some(left.writer.exported(false));
        }
        outcome
    }

    fn progress(&self) -> Progress {
        let total = self.snapshot.bytes();
        let done = if self.left.is_none() { total } else { self.done };
        Progress { done, total }
    }
}
