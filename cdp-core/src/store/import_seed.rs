//! Taking a seed set over ([`crate::seed`]).
//!
//! A whole set is compared with its volume by digests, as any source of a resync; one that goes on from an older state only where it says something. What the volume
//! is equal to, or is on the way to, is the recorded stamp of its source: it goes with the first write to the volume. Where the size changes, the new size
//! and that the import has begun are one record.

use super::{ResyncJob, ResyncMode, ResyncOptions, Store, Volume, check_volume, resync_run::ResyncRun};
use crate::{
    catalog::{ComparisonKind, SourceStamp, StampRecord, TapRecord, VolumeInfo},
    dirty_map::DirtyMap,
    error::{Error, Result},
    group::Known,
    job::{self, Job, JobStep},
    restore::Progress,
    resync::{ResyncCounts, SourceReader},
    seed::{
        SeedAbout, SeedReader, SeedSet, SeedState,
        reader::{is_state, stamp_of},
    },
    text::format_time,
    units::TimeNs,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How a seed set is taken over.
#[derive(Clone, Copy, Debug)]
pub struct ImportSeedOptions {
    /// Bytes of the volume that are compared in a second at most.
    pub bytes_per_second_max: Option<u64>,
    /// When it happens, for a host that dates its writes by another clock than that of the store; `None`: now.
    pub time: Option<TimeNs>,
    /// Most work that a crash makes a later run repeat. Default 1 s.
    pub checkpoint_every: Duration,
}

impl Default for ImportSeedOptions {
    fn default() -> Self {
        let ResyncOptions { checkpoint_every, .. } = ResyncOptions::default();
        Self { bytes_per_second_max: None, time: None, checkpoint_every }
    }
}

/// What an import has done.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedSeed {
    /// The volume that is now in the state that the set leads to.
    pub volume: String,
    /// It went on where another run had ended, or the volume was in that state already.
    pub resumed: bool,
    /// Bytes that are still to be taken over: 0 unless it was cancelled.
    pub bytes_left: u64,
    /// Figures; the set is the source.
    pub counts: ResyncCounts,
    /// How long it took.
    pub seconds: f64,
}

/// How a volume stands to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It is in the state that the set leads to.
    There,
    /// An import of this set has begun: what is left is in the map.
    Begun,
    /// The same, and nothing has been compared yet.
    Resized,
    /// It is in the state that the set goes on from.
    At,
    /// None of these.
    Not,
}

fn fit(about: &SeedAbout, info: &VolumeInfo, known: Known, recorded: Option<StampRecord>) -> Fit {
    let Some((StampRecord { stamp: Some(found), unfinished }, (record, map))) = recorded.zip(known) else {
        return Fit::Not;
    };
    let kind = if about.since.is_some() { ComparisonKind::Map } else { ComparisonKind::Digests };
    let own = found == stamp_of(about) && info.bytes == about.at.bytes;
    let since = |state: SeedState| is_state(found, about, &state) && info.bytes == state.bytes;
    match (record, unfinished) {
        (TapRecord::Equal, None) if is_state(found, about, &about.at) => Fit::There,
        (TapRecord::Equal, None) if about.since.is_some_and(since) => Fit::At,
        (TapRecord::Differs, Some(found)) if own && found == kind && map.is_some() => Fit::Begun,
        (_, Some(ComparisonKind::Digests)) if own && about.since.is_some() => Fit::Resized,
        _ => Fit::Not,
    }
}

impl Store {
    /// Makes a volume equal to the state that `set` leads to. `volume` is its name here; `None`: the name that it has in the set. A whole set becomes a new
    /// volume, or one of the same size that holds nothing but zeroes. A set that goes on from an older state is taken by a volume that is in that state: one
    /// that an import has brought there, and that was not written since. Until everything is there a gap is open, which a system bookmark closes; durable when
    /// this returns. `cancelled` is asked all the time; what was done until then stays, and a later call for the same set goes on there, after a crash as well.
    ///
    /// Memory: one batch of the set and a bit for each block of the volume. Starts no thread.
    ///
    /// # Errors
    /// `SeedRefused` when the set does not fit the volume, with nothing changed; `Damaged` when bytes of the set are not what was written: what came before
    /// stays, the gap is open, and an import of an intact copy of the same set goes on; `Exists` when the volume has a tap; those of appending.
    pub fn import_seed(
        &self,
        set: &Arc<SeedSet>,
        volume: Option<&str>,
        options: &ImportSeedOptions,
        progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ImportedSeed> {
        let mut job = self.import_seed_job(set, volume, options)?;
        job::run(&mut job, progress, cancelled)?;
        job.end()
    }

    /// As [`Store::import_seed`], in steps.
    ///
    /// # Errors
    /// `SeedRefused` when the set does not fit the volume, with nothing changed; `Exists` when the volume has a tap; those of appending.
    pub fn import_seed_job(
        &self,
        set: &Arc<SeedSet>,
        volume: Option<&str>,
        options: &ImportSeedOptions,
    ) -> Result<ImportSeedJob> {
        let started = Instant::now();
        let about = set.about();
        let name = volume.unwrap_or(&about.name);
        self.owner()?.settle_for_reading()?;
        let resync = ResyncOptions {
            mode: ResyncMode::Digest,
            bytes_per_second_max: options.bytes_per_second_max,
            time: options.time,
            checkpoint_every: options.checkpoint_every,
            ..ResyncOptions::default()
        };
        let begin = ImportBegin { store: self, set, about, options: resync };
        let (resumed, run, reader) = match about.since {
            None => begin.whole(name)?,
            Some(since) => begin.onwards(name, since)?,
        };
        Ok(ImportSeedJob { volume: name.to_owned(), resumed, run, reader, started })
    }
}

/// What takes a set over.
enum Run {
    /// The volume is there already.
    There,
    Whole(ResyncJob),
    Onwards(ResyncRun),
}

/// An import of a seed set, under way. Dropped, it ends where it stands, and a later one for the same set goes on there.
pub struct ImportSeedJob {
    volume: String,
    resumed: bool,
    run: Run,
    reader: Arc<SeedReader>,
    started: Instant,
}

impl ImportSeedJob {
    /// What it has done so far.
    pub fn imported(&self) -> ImportedSeed {
        let (counts, bytes_left) = match &self.run {
            Run::There => (ResyncCounts::default(), 0),
            Run::Whole(job) => {
                let report = job.report();
                (report.counts, report.bytes_left)
            }
            Run::Onwards(run) => run.outcome(),
        };
        let seconds = self.started.elapsed().as_secs_f64();
        ImportedSeed { volume: self.volume.clone(), resumed: self.resumed, bytes_left, counts, seconds }
    }

    /// Ends it where it stands, durably, unless it has ended, and says what it has done.
    ///
    /// # Errors
    /// Those of appending; a later run then goes on where the last checkpoint was.
    pub fn end(&mut self) -> Result<ImportedSeed> {
        let ended = match &mut self.run {
            Run::There => Ok(()),
            Run::Whole(job) => job.end().map(|_| ()),
            Run::Onwards(run) => run.end(),
        };
        ended.map_err(|error| self.reader.take_failure().unwrap_or(error))?;
        Ok(self.imported())
    }
}

impl Job for ImportSeedJob {
    fn step(&mut self) -> Result<JobStep> {
        let stepped = match &mut self.run {
            Run::There => Ok(JobStep::Done),
            Run::Whole(job) => job.step(),
            Run::Onwards(run) => run.step(),
        };
        // Why the set could not be read says more than that it could not.
        stepped.map_err(|error| self.reader.take_failure().unwrap_or(error))
    }

    fn progress(&self) -> Progress {
        match &self.run {
            Run::There => Progress { done: 0, total: 0 },
            Run::Whole(job) => job.progress(),
            Run::Onwards(run) => run.progress(),
        }
    }
}

/// Whether it goes on, what takes the set over, and what reads it.
type Begun = (bool, Run, Arc<SeedReader>);

struct ImportBegin<'a> {
    store: &'a Store,
    set: &'a Arc<SeedSet>,
    about: &'a SeedAbout,
    options: ResyncOptions,
}

impl ImportBegin<'_> {
    fn known(&self, info: &VolumeInfo) -> (Known, Option<StampRecord>) {
        let catalog = self.store.inner.group.catalog.read();
        (catalog.tap_with_map(info.id), catalog.source_stamp(info.id))
    }

    fn whole(&self, name: &str) -> Result<Begun> {
        let bytes = self.about.at.bytes;
        check_volume(name, bytes)?;
        let volume = match self.store.volume(Some(name)) {
            Ok(volume) => volume,
            Err(Error::NotFound { .. }) => self.store.add_volume(name, bytes)?,
            Err(error) => return Err(error),
        };
        let reader = Arc::new(SeedReader::new(Arc::clone(self.set), None));
        let info = volume.info();
        let (known, recorded) = self.known(&info);
        let resumed = match fit(self.about, &info, known, recorded) {
            Fit::There => return Ok((true, Run::There, reader)),
            Fit::Begun => true,
            _ if info.bytes != bytes => {
                return Err(refused(format!(
                    "volume {name} has {} bytes and the set is of one with {bytes}; give another name, under which a new volume is made",
                    info.bytes
                )));
            }
            _ if self.holds_data(&volume)? => {
                return Err(refused(format!(
                    "volume {name} holds data, and a whole set is only taken over by an empty volume; give another name, under which a new volume is made"
                )));
            }
            _ => false,
        };
        let source: Arc<dyn SourceReader> = Arc::clone(&reader) as _;
        let job = self.store.resync_job(Some(name), source, &self.options);
        let job = job.map_err(|error| reader.take_failure().unwrap_or(error))?;
        Ok((resumed, Run::Whole(job), reader))
    }

    fn holds_data(&self, volume: &Volume) -> Result<bool> {
        let newest = self.store.newest().seq;
        Ok(volume.snapshot_fuzzy(newest)?.next_data(0)?.is_some())
    }

    fn onwards(&self, name: &str, since: SeedState) -> Result<Begun> {
        let volume = self.store.volume(Some(name)).map_err(|error| match error {
            Error::NotFound { .. } => refused(format!(
                "the set goes on from {} and there is no volume {name} here; import a whole set first, or name the volume that it fits",
                spelled(&since)
            )),
            error => error,
        })?;
        let mut info = volume.info();
        let (known, recorded) = self.known(&info);
        let own = stamp_of(self.about);
        let found = fit(self.about, &info, known, recorded);
        let reader = Arc::new(SeedReader::new(Arc::clone(self.set), Some(volume.clone())));
        match found {
            Fit::There => return Ok((true, Run::There, reader)),
            Fit::Not => return Err(self.why_not(name, since, known, recorded)),
            Fit::At if info.bytes != self.about.at.bytes => {
                let begun = StampRecord { stamp: Some(own), unfinished: Some(ComparisonKind::Digests) };
                let (group, bytes) = (self.store.owner()?, self.about.at.bytes);
                self.store.with_room(|| group.resize_volume(info.id, bytes, Some((known, begun))))?;
                info = volume.info();
            }
            Fit::At | Fit::Begun | Fit::Resized => {}
        }
        let source: Arc<dyn SourceReader> = Arc::clone(&reader) as _;
        let info = Arc::new(info);
        let mark = |map: &DirtyMap, known: Known, recorded: Option<StampRecord>| {
            match (fit(self.about, &info, known, recorded), known) {
                (Fit::Begun, Some((_, Some(stored)))) => {
                    let merged = self.store.inner.group.merge_stored_map(&info, stored, map);
                    // Nobody else has changed the volume: without the map, all that the set says is compared again.
                    if merged.is_ok() { Ok(()) } else { self.mark_all(map) }
                }
                (Fit::At | Fit::Resized, _) => self.mark_all(map),
                _ => Err(self.why_not(name, since, known, recorded)),
            }
        };
        let resumed = found == Fit::Begun;
        match self.store.resync_marked(&info, &source, &mark, &self.options) {
            Ok(run) => Ok((resumed, Run::Onwards(run), reader)),
            Err(error @ Error::SeedRefused(_)) => Err(error),
            Err(error) => Err(reader.take_failure().unwrap_or(error)),
        }
    }

    fn mark_all(&self, map: &DirtyMap) -> Result<()> {
        SeedReader::ranges(self.set, &mut |range| map.set(range))
    }

    fn why_not(&self, name: &str, since: SeedState, known: Known, recorded: Option<StampRecord>) -> Error {
        let stamp: Option<SourceStamp> = recorded.and_then(|recorded| recorded.stamp);
        let device = stamp_of(self.about).device;
        let why = match (stamp, known) {
            (None, None) => "it was never imported".to_owned(),
            (None, Some(_)) => "it was written, or captured, since it was imported".to_owned(),
            (Some(stamp), _) if stamp.device != device => {
                "it was imported or compared from something else".to_owned()
            }
            (Some(stamp), Some((TapRecord::Equal, _))) => {
                format!("it is in the state of seq:{}", stamp.modified_ns)
            }
            (Some(stamp), _) => {
                format!("an import that leads to seq:{} was not finished; finish it first", stamp.modified_ns)
            }
        };
        refused(format!(
            "the set goes on from {}, and volume {name} is not in that state: {why}; import the sets in their order, or a whole one under another name",
            spelled(&since)
        ))
    }
}

fn spelled(state: &SeedState) -> String {
    format!("seq:{} (time:{})", state.seq, format_time(state.time))
}

fn refused(text: String) -> Error {
    Error::SeedRefused(text)
}
