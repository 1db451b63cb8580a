//! The JSON documents of the tool. Times are RFC 3339 text, sizes and seqs are numbers.

use cdp_core::{
    Bookmark, SeqTime, Stats, Timeline, VolumeInfo,
    bookmark::Across,
    capture::WriteCounts,
    retention::{HistorySize, TierSize},
    store::{ExactRange, Gap, Granularity, RetainedPoint, RetentionReport},
    text::{format_duration, format_time},
};
use serde::{Deserialize, Serialize};

/// A volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumeDocument {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

impl From<&VolumeInfo> for VolumeDocument {
    fn from(volume: &VolumeInfo) -> Self {
        Self { name: volume.name.clone(), size: volume.bytes }
    }
}

/// What `volume list` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumesDocument {
    /// In the order of their creation.
    pub volumes: Vec<VolumeDocument>,
}

/// What `create` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreatedDocument {
    /// The store.
    pub store: String,
    /// Its first volume.
    pub volume: VolumeDocument,
    /// The newest state: the import, or seq 0.
    pub newest: SeqTimeDocument,
}

/// A state and its time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeqTimeDocument {
    /// The seq.
    pub seq: u64,
    /// The time.
    pub time: String,
}

impl From<SeqTime> for SeqTimeDocument {
    fn from(point: SeqTime) -> Self {
        Self { seq: point.seq.get(), time: format_time(point.time) }
    }
}

/// A bookmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BookmarkDocument {
    /// Its name.
    pub name: String,
    /// `app`, `fs` or `user`.
    pub kind: String,
    /// Type of the application.
    pub app: Option<String>,
    /// Free text.
    pub comment: Option<String>,
    /// The last seq before it.
    pub seq: u64,
    /// Its own time.
    pub time: String,
    /// Whether only an explicit deletion after `unlock` removes it.
    pub locked: bool,
    /// When it goes by itself.
    pub expires: Option<String>,
    /// Volumes that were not fully captured when it was taken.
    pub inexact_volumes: Vec<String>,
    /// The other stores in which it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub across: Option<Box<AcrossDocument>>,
}

/// That a bookmark was set in several stores as one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AcrossDocument {
    /// What the bookmarks have in common.
    pub id: String,
    /// `complete`, `partial` or `unconfirmed`.
    pub state: String,
    /// The stores that were to have it.
    pub stores: Vec<String>,
    /// Those of them that are known not to have it.
    pub missing: Vec<String>,
}

impl From<&Across> for AcrossDocument {
    fn from(across: &Across) -> Self {
        Self {
            id: across.id.to_string(),
            state: across.state.as_str().to_owned(),
            stores: across.stores.iter().map(ToString::to_string).collect(),
            missing: across.missing().iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&Bookmark> for BookmarkDocument {
    fn from(bookmark: &Bookmark) -> Self {
        Self {
            name: bookmark.name.clone(),
            kind: bookmark.kind.to_string(),
            app: bookmark.app.clone(),
            comment: bookmark.comment.clone(),
            seq: bookmark.seq.get(),
            time: format_time(bookmark.time),
            locked: bookmark.locked,
            expires: bookmark.expires.map(format_time),
            inexact_volumes: bookmark.inexact_volumes.clone(),
            across: bookmark.across.as_ref().map(|across| Box::new(across.into())),
        }
    }
}

/// What `bookmark list` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BookmarksDocument {
    /// By seq, then time, then name.
    pub bookmarks: Vec<BookmarkDocument>,
}

/// A range in which every seq can be opened.
#[derive(Clone, Debug, Serialize)]
pub struct ExactDocument {
    /// The volume.
    pub volume: String,
    /// First seq.
    pub from_seq: u64,
    /// Last seq.
    pub to_seq: u64,
    /// Time of the first seq.
    pub from_time: String,
    /// Time of the last seq.
    pub to_time: String,
    /// `write`, or the interval at which states are points.
    pub granularity: String,
}

impl From<&ExactRange> for ExactDocument {
    fn from(range: &ExactRange) -> Self {
        Self {
            volume: range.volume.clone(),
            from_seq: range.from.seq.get(),
            to_seq: range.to.seq.get(),
            from_time: format_time(range.from.time),
            to_time: format_time(range.to.time),
            granularity: match range.granularity {
                Granularity::Write => "write".to_owned(),
                Granularity::IntervalNs(nanoseconds) => format_duration(nanoseconds),
                Granularity::Barrier => "barrier".to_owned(),
            },
        }
    }
}

/// A range in which nothing can be opened.
#[derive(Clone, Debug, Serialize)]
pub struct GapDocument {
    /// The volume.
    pub volume: String,
    /// First seq.
    pub from_seq: u64,
    /// Last seq.
    pub to_seq: u64,
    /// When it opened.
    pub from_time: String,
    /// When it closed.
    pub to_time: String,
    /// Why.
    pub reason: String,
}

impl From<&Gap> for GapDocument {
    fn from(gap: &Gap) -> Self {
        Self {
            volume: gap.volume.clone(),
            from_seq: gap.from.seq.get(),
            to_seq: gap.to.seq.get(),
            from_time: format_time(gap.from.time),
            to_time: format_time(gap.to.time),
            reason: gap.reason.clone(),
        }
    }
}

/// A point that thinning kept.
#[derive(Clone, Debug, Serialize)]
pub struct RetainedDocument {
    /// The seq.
    pub seq: u64,
    /// Its time.
    pub time: String,
    /// The window of the policy that keeps it.
    pub window: String,
    /// Why it stays.
    pub why: String,
}

impl From<&RetainedPoint> for RetainedDocument {
    fn from(point: &RetainedPoint) -> Self {
        Self {
            seq: point.point.seq.get(),
            time: format_time(point.point.time),
            window: point.window.clone(),
            why: point.why.clone(),
        }
    }
}

/// What `points` prints.
#[derive(Clone, Debug, Serialize)]
pub struct PointsDocument {
    /// In the order of their creation.
    pub volumes: Vec<VolumeDocument>,
    /// The oldest state that can be opened.
    pub oldest: SeqTimeDocument,
    /// The newest state.
    pub newest: SeqTimeDocument,
    /// The newest state that is exact for all volumes.
    pub newest_exact: Option<SeqTimeDocument>,
    /// The clock at the last commit; later times cannot be opened.
    pub covered_to: String,
    /// Ranges in which every seq can be opened.
    pub exact: Vec<ExactDocument>,
    /// Ranges in which nothing can be opened.
    pub gaps: Vec<GapDocument>,
    /// Points outside of the exact ranges.
    pub retained: Vec<RetainedDocument>,
    /// By seq, then time, then name.
    pub bookmarks: Vec<BookmarkDocument>,
}

impl From<&Timeline> for PointsDocument {
    fn from(timeline: &Timeline) -> Self {
        Self {
            volumes: timeline.volumes.iter().map(Into::into).collect(),
            oldest: timeline.oldest.into(),
            newest: timeline.newest.into(),
            newest_exact: timeline.newest_exact.map(Into::into),
            covered_to: format_time(timeline.covered_to),
            exact: timeline.exact.iter().map(Into::into).collect(),
            gaps: timeline.gaps.iter().map(Into::into).collect(),
            retained: timeline.retained.iter().map(Into::into).collect(),
            bookmarks: timeline.bookmarks.iter().map(Into::into).collect(),
        }
    }
}

/// What `restore` prints.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredDocument {
    /// The volume.
    pub volume: String,
    /// The state.
    pub seq: u64,
    /// Its time.
    pub time: String,
    /// Size of the image.
    pub bytes: u64,
    /// Bytes of it that were written; the rest are holes, or were right already.
    pub written_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// What `replay` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayDocument {
    /// Lines that took a seq.
    pub writes: u64,
    /// Bytes of their ranges.
    pub bytes: u64,
    /// Seq of the first.
    pub first_seq: Option<u64>,
    /// Seq of the last.
    pub last_seq: Option<u64>,
    /// From the first submit until everything was durable.
    pub seconds: f64,
    /// Rate.
    pub writes_per_s: f64,
    /// Rate.
    pub bytes_per_s: f64,
    /// Bytes that the store takes up afterwards.
    pub stored_bytes: u64,
    /// Gaps that were opened.
    pub gaps: u64,
}

/// What `retention preview` and `retention run` print.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RetentionDocument {
    /// Points that go.
    pub drop_points: u64,
    /// Points that stay.
    pub keep_points: u64,
    /// Names of the bookmarks that go, ascending.
    pub expiring_bookmarks: Vec<String>,
    /// Bytes that are freed.
    pub bytes_freed: u64,
    /// From here on every state stays.
    pub horizon: String,
}

impl From<&RetentionReport> for RetentionDocument {
    fn from(report: &RetentionReport) -> Self {
        Self {
            drop_points: report.drop_points,
            keep_points: report.keep_points,
            expiring_bookmarks: report.expiring_bookmarks.clone(),
            bytes_freed: report.bytes_freed,
            horizon: format_time(report.horizon.time),
        }
    }
}

/// State of a volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumeStatDocument {
    /// Its name.
    pub name: String,
    /// Mode of capture.
    pub mode: String,
    /// Bytes that are captured but not durable.
    pub lag_bytes: u64,
    /// Age of the oldest write that is not durable.
    pub lag_ns: u64,
    /// Bytes whose content the store does not have.
    pub dirty_bytes: u64,
    /// What its writes looked like since the owner opened the store; only where there is an owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<WritesDocument>,
}

/// What the writes of a volume look like.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WritesDocument {
    /// Writes.
    pub writes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Share of those that began where the one before had ended, 0 to 1.
    pub sequential: f64,
    /// By size: powers of two from 512 bytes to 16 MiB, those that occurred.
    pub sizes: Vec<SizeClassDocument>,
}

/// Writes of a class of sizes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SizeClassDocument {
    /// Largest size of the class, bytes.
    pub up_to_bytes: u64,
    /// Writes.
    pub writes: u64,
}

impl From<&WriteCounts> for WritesDocument {
    fn from(counts: &WriteCounts) -> Self {
        Self {
            writes: counts.writes,
            bytes: counts.bytes,
            sequential: ratio(counts.sequential, counts.writes),
            sizes: counts
                .classes()
                .map(|(up_to_bytes, writes)| SizeClassDocument { up_to_bytes, writes })
                .collect(),
        }
    }
}

/// What only an owner knows of a store as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveDocument {
    /// Bytes that were captured and are not durable.
    pub lag_bytes: u64,
    /// Age of the oldest write that was captured and is not durable: what a crash would lose.
    pub lag_ns: u64,
    /// Bytes that coalescing took in for each that it let through; 1 without coalescing.
    pub coalescing_ratio: f64,
    /// The pool of the taps, when there was one.
    pub pool: Option<PoolDocument>,
}

/// How full the pool of the taps is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolDocument {
    /// Bytes that wait in it.
    pub bytes: u64,
    /// Frames of 1 MiB.
    pub frames: u64,
    /// Frames that are free.
    pub frames_free: u64,
}

impl From<&Stats> for LiveDocument {
    fn from(stats: &Stats) -> Self {
        let pool = stats.pool.map(|pool| PoolDocument {
            bytes: pool.bytes,
            frames: pool.frames,
            frames_free: pool.frames_free,
        });
        Self {
            lag_bytes: stats.lag.bytes,
            lag_ns: stats.lag.age_ns,
            coalescing_ratio: stats.coalescing_ratio(),
            pool,
        }
    }
}

/// What `stat` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatDocument {
    /// Bytes that the store takes up.
    pub stored_bytes: u64,
    /// Bytes that the sources wrote.
    pub source_bytes: u64,
    /// Bytes written to the storage for each byte of the sources.
    pub write_amplification: f64,
    /// Segments.
    pub segments: u64,
    /// Index runs.
    pub runs: u64,
    /// Versions in the index.
    pub versions: u64,
    /// Points that can be opened.
    pub points: u64,
    /// From here on every state can be opened, gaps aside.
    pub horizon: String,
    /// Resident memory of the owner, or of this command when there is none.
    pub rss_bytes: u64,
    /// What an owner is at; absent where there is none.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub live: Option<Box<LiveDocument>>,
    /// Each volume.
    pub volumes: Vec<VolumeStatDocument>,
}

impl StatDocument {
    /// The document for these statistics.
    pub fn new(stats: &Stats, rss_bytes: u64) -> Self {
        Self {
            stored_bytes: stats.stored_bytes,
            source_bytes: stats.source_bytes,
            write_amplification: ratio(stats.written_bytes, stats.source_bytes),
            segments: stats.segments,
            runs: stats.runs,
            versions: stats.versions,
            points: stats.points,
            horizon: format_time(stats.horizon.time),
            rss_bytes,
            live: None,
            volumes: stats
                .volumes
                .iter()
                .map(|volume| VolumeStatDocument {
                    name: volume.name.clone(),
                    mode: volume.mode.as_str().to_owned(),
                    lag_bytes: volume.lag_bytes,
                    lag_ns: volume.lag_ns,
                    dirty_bytes: volume.dirty_bytes,
                    writes: None,
                })
                .collect(),
        }
    }
}

/// One number by another; 0 when there is nothing to divide by.
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { to_float(part) / to_float(whole) }
}

/// A count as a float, for rates and ratios only.
#[expect(clippy::cast_precision_loss, reason = "rates and ratios are read with three digits")]
pub fn to_float(value: u64) -> f64 {
    value as f64
}

/// What `size` prints.
#[derive(Clone, Debug, Serialize)]
pub struct SizeDocument {
    /// All tiers, data and index.
    pub bytes: u64,
    /// The newest state, the full range, then each window behind it.
    pub tiers: Vec<TierDocument>,
    /// What the figures rest on.
    pub assumptions: Vec<String>,
}

/// The share of a tier in the size of a history.
#[derive(Clone, Debug, Serialize)]
pub struct TierDocument {
    /// `newest`, `all`, or the ages of the window.
    pub window: String,
    /// Points in it.
    pub points: u64,
    /// Blocks that are needed for it and for no younger tier.
    pub versions: u64,
    /// Bytes of these blocks.
    pub data_bytes: u64,
    /// Bytes of their index.
    pub index_bytes: u64,
    /// Bytes that were written in its span.
    pub written_bytes: u64,
}

impl SizeDocument {
    /// The document of a size.
    pub fn new(size: &HistorySize) -> Self {
        let tier = |tier: &TierSize| TierDocument {
            window: tier.name.clone(),
            points: tier.points,
            versions: tier.versions,
            data_bytes: tier.data_bytes(),
            index_bytes: tier.index_bytes(),
            written_bytes: tier.written_bytes,
        };
        Self {
            bytes: size.bytes(),
            tiers: size.tiers.iter().map(tier).collect(),
            assumptions: size.assumptions.clone(),
        }
    }
}
