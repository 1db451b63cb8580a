//! The facade: a store, its volumes, its points.
//!
//! [`Store`] and [`Volume`] are cheap handles of the same store. Without a [`Runner`] the library does all work in the threads that
//! call it, and the host calls [`Store::step`] for what is due in the background.

mod across;
mod bookmarks;
#[cfg(feature = "testing")]
mod halfway;
mod history;
mod import;
mod import_seed;
mod in_flight;
mod newest;
mod open;
mod options;
mod points;
mod recover;
mod resize;
mod resync;
mod resync_run;
mod resync_schedule;
mod resync_tap;
mod retention;
mod retention_job;
mod room;
mod runner;
mod schedule;
mod source_state;
mod stats;
mod tap;
mod verify_cursor;
mod verify_look;
mod verify_source;
mod volume;

pub use crate::group::Lag;
pub use across::{AcrossOutcome, MemberOutcome, bookmark_across, confirm_across};
#[cfg(feature = "testing")]
pub(crate) use halfway::HalfCaptured;
pub use import::ImportSource;
pub use import_seed::{ImportSeedJob, ImportSeedOptions, ImportedSeed};
pub use in_flight::{InFlight, Written};
pub use newest::{CommonPoint, newest_common_point};
pub use options::{CreateOptions, OpenOptions};
pub use points::{ExactRange, Gap, Granularity, RetainedPoint, Timeline};
pub use recover::Recovery;
pub use resync::{ResyncJob, ResyncMode, ResyncOptions, ResyncReport};
pub(crate) use resync_run::Pace;
pub use resync_tap::TapResyncJob;
pub use retention::RetentionReport;
pub use retention_job::RetentionJob;
pub use runner::{Budget, Runner, RunnerOptions, Stepped};
pub use source_state::SourceState;
pub use stats::{CaptureMode, PoolUse, Stats, VolumeStats};
pub use tap::{ActivityLog, Tap, TapOptions, TapStats};
pub use verify_cursor::{VerifyCursor, VerifyResume};
pub use verify_source::{VerifyJob, VerifyOptions, VerifyReport};
pub(crate) use volume::check_range;
pub use volume::{ByteExtent, ChangedExtents, Volume};

use crate::{
    capture::Coalescing,
    catalog::VolumeInfo,
    error::{Error, Result, SeqTime},
    format::meta::MetaRecord,
    group::Group,
    io::StorageLock,
    limits::{VOLUME_BYTES_MAX, VOLUMES_MAX},
    resync::Resync,
    retention::Policy,
    units::{SECTOR_BYTES, Seq, TimeNs},
};
use parking_lot::Mutex;
use std::sync::Arc;

/// A store that is open: every write of its volumes, and the way back to any of them.
///
/// Handles may be cloned and used from any threads at once. Dropping the last one without [`Store::close`] is like a crash: the next
/// open recovers, and nothing that was flushed is lost.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub group: Group,
    pub recovery: Recovery,
    pub read_only: bool,
    /// The resync of each tap.
    pub resyncs: Mutex<Vec<Arc<Mutex<Resync>>>>,
    /// When and how fast they go on by themselves.
    pub resyncing: Mutex<resync_schedule::Resyncing>,
    pub background: room::Background,
    /// Bookmarks that are set by themselves.
    pub scheduled: Mutex<schedule::Scheduled>,
    _lock: Box<dyn StorageLock>,
}

impl Store {
    /// How the store was found when it was opened: what was cut off, what is damaged.
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// Whether the store was opened for reading only.
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// The volumes in the order in which they were made.
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        self.inner.group.catalog.read().volumes().cloned().collect()
    }

    /// A volume by name; `None`: the first one made.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn volume(&self, name: Option<&str>) -> Result<Volume> {
        let catalog = self.inner.group.catalog.read();
        let info = match name {
            Some(name) => catalog.volume_named(name),
            None => catalog.volumes().next(),
        };
        let missing = || Error::NotFound { what: "volume", name: name.unwrap_or("(first)").to_owned() };
        Ok(Volume::new(self.clone(), info.ok_or_else(missing)?.clone()))
    }

    /// Adds an empty volume of `bytes` bytes. It exists from the newest seq on; durable when this returns.
    ///
    /// # Errors
    /// `Exists`, `InvalidArgument` for a bad name or size, `ReadOnly`, `NoSpace`, `Io`, `Poisoned`.
    pub fn add_volume(&self, name: &str, bytes: u64) -> Result<Volume> {
        check_volume(name, bytes)?;
        self.owner()?.append_meta(
            |seq, _| {
                let id = self.new_volume_id(name)?;
                Ok(vec![MetaRecord::VolumeAdded { id, name: name.to_owned(), bytes, exists_from: seq }])
            },
            None,
        )?;
        self.volume(Some(name))
    }

    /// The id for a new volume of this name.
    fn new_volume_id(&self, name: &str) -> Result<crate::units::VolumeId> {
        let catalog = self.inner.group.catalog.read();
        if catalog.volume_named(name).is_some() {
            return Err(Error::Exists { what: "volume", name: name.to_owned() });
        }
        let id = catalog.next_volume_id();
        if usize::from(id.get()) >= VOLUMES_MAX {
            return Err(Error::InvalidArgument(format!("a store holds at most {VOLUMES_MAX} volumes")));
        }
        Ok(id)
    }

    /// Makes everything written so far durable; returns the seq up to which.
    ///
    /// # Errors
    /// `NoSpace` and `Io` when it could not be made durable: it stays in memory and the next call tries again. `ReadOnly`, `Poisoned`.
    pub fn flush(&self) -> Result<Seq> {
        self.owner()?.flush()
    }

    /// How writes are coalesced.
    pub fn coalescing(&self) -> Coalescing {
        self.inner.group.coalescing()
    }

    /// Coalesces the writes of all volumes from the next one on: what is overwritten within an interval is not stored, and only the last
    /// state of an interval is a point. Durable when this returns. Every write takes a seq as before.
    ///
    /// # Errors
    /// `InvalidArgument` for an interval of no length; `ReadOnly`, `NoSpace`, `Io`, `Poisoned`.
    pub fn set_coalescing(&self, coalescing: Coalescing) -> Result<()> {
        if coalescing == Coalescing::IntervalNs(0) {
            return Err(Error::InvalidArgument("an interval of writes has a length".into()));
        }
        let group = self.owner()?;
        if group.coalescing() == coalescing { Ok(()) } else { group.set_coalescing(coalescing) }
    }

    /// Everything up to this seq survives a power cut.
    pub fn durable_seq(&self) -> Seq {
        self.inner.group.durable_seq()
    }

    /// The newest seq and its time.
    pub fn newest(&self) -> SeqTime {
        let (seq, time, _) = self.inner.group.tip();
        SeqTime { seq, time }
    }

    /// Says that the source wrote nothing else up to `time`, so that points up to there can be opened.
    pub fn cover(&self, time: TimeNs) {
        self.inner.group.cover(time);
    }

    /// Moves the clock of the group to now and makes it durable, with everything written so far: nothing else was written up to this
    /// moment, so any time up to now can be opened, also by a reader beside this owner.
    ///
    /// # Errors
    /// As [`Store::flush`].
    pub fn heartbeat(&self) -> Result<()> {
        let group = self.owner()?;
        group.cover(group.shared.clock.now());
        group.flush()?;
        group.vouch(true)
    }

    /// The retention policy in force; a new store keeps everything.
    ///
    /// # Errors
    /// `InvalidArgument` when the recorded policy was written by a newer version.
    pub fn policy(&self) -> Result<Policy> {
        match self.inner.group.catalog.read().policy() {
            Some(text) => Policy::from_json(text),
            None => Ok(Policy::default()),
        }
    }

    /// Records a retention policy; durable when this returns. Nothing is dropped by it.
    ///
    /// # Errors
    /// `InvalidArgument` for a policy that contradicts itself, `ReadOnly`, `NoSpace`, `Io`, `Poisoned`.
    pub fn set_policy(&self, policy: &Policy) -> Result<()> {
        policy.validate()?;
        self.owner()?.append_meta(|_, _| Ok(vec![MetaRecord::PolicySet(policy.to_json())]), None)?;
        self.apply_bound()?;
        self.inner.group.keep_reserve()
    }

    /// Ends the store in good order: everything durable and indexed, no recovery at the next open. Other handles of this store
    /// answer `Poisoned` afterwards. Taps end as by [`Tap::detach`]: the caller has stopped writing to their sources.
    ///
    /// # Errors
    /// `NoSpace` and `Io` when something could not be made durable; the store stays open then, and dropping it is like a crash.
    pub fn close(self) -> Result<()> {
        if self.inner.read_only {
            return Ok(());
        }
        self.end_taps()?;
        self.inner.group.finish()
    }

    /// The group, when this is its owner.
    pub(crate) fn owner(&self) -> Result<&Group> {
        if self.inner.read_only { Err(Error::ReadOnly) } else { Ok(&self.inner.group) }
    }
}

/// Checks name and size of a new volume.
fn check_volume(name: &str, bytes: u64) -> Result<()> {
    crate::bookmark::check_name("volume", name)?;
    if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) || bytes > VOLUME_BYTES_MAX {
        return Err(Error::InvalidArgument(format!(
            "the size of a volume is a multiple of 512 bytes, at least 512 and at most {VOLUME_BYTES_MAX}; {bytes} is not"
        )));
    }
    Ok(())
}
