//! Curves: figures that belong together because they differ in one number, and series that one measurement took over time.
//!
//! A scenario says on which plots its figure is a point ([`At`]); the page of a run draws each plot from the rows that it finds.

use serde::{Deserialize, Serialize};

/// A plot whose points are rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plot {
    /// Ingest against the size of a write.
    IngestWriteSize,
    /// Ingest against the number of writes in flight.
    IngestDepth,
    /// Latency of a capture against the number of producers.
    CaptureProducers,
    /// Latency of a capture against the size of a write.
    CaptureSize,
    /// Latency of a capture against the rate of writes.
    CaptureRate,
    /// Opening a point against the size of the history.
    OpenHistory,
    /// A random lookup at a point against the size of the history.
    LookupHistory,
    /// Ingest while history is thinned, against how much stays in full.
    ThinningCost,
    /// Opening a store after kill -9, against the size of its history.
    ReopenHistory,
    /// Yardsticks beside the engine.
    Yardsticks,
}

impl Plot {
    /// All plots, in the order of the page.
    pub const ALL: [Self; 10] = [
        Self::IngestWriteSize,
        Self::IngestDepth,
        Self::Yardsticks,
        Self::CaptureProducers,
        Self::CaptureSize,
        Self::CaptureRate,
        Self::OpenHistory,
        Self::LookupHistory,
        Self::ThinningCost,
        Self::ReopenHistory,
    ];

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::IngestWriteSize => "Ingest against the size of a write",
            Self::IngestDepth => "Ingest of 4 KiB against writes in flight",
            Self::CaptureProducers => "Capture of 4 KiB against producers",
            Self::CaptureSize => "Capture against the size of a write, one producer",
            Self::CaptureRate => "Capture of 4 KiB against the rate, one producer",
            Self::OpenHistory => "Opening a point against the size of the history",
            Self::LookupHistory => "Finding a block at a point against the size of the history",
            Self::ThinningCost => "Ingest while history is thinned",
            Self::ReopenHistory => "Opening a store after kill -9 against its history",
            Self::Yardsticks => "4 KiB random writes with history: this engine and others",
        }
    }

    /// What its horizontal axis shows, with the unit.
    pub const fn x_label(self) -> &'static str {
        match self {
            Self::IngestWriteSize | Self::CaptureSize => "bytes of a write",
            Self::IngestDepth => "writes in flight",
            Self::CaptureProducers => "producers",
            Self::CaptureRate => "writes a second",
            Self::OpenHistory | Self::LookupHistory => "versions in the history",
            Self::ThinningCost => "milliseconds that stay in full",
            Self::ReopenHistory => "MiB stored",
            Self::Yardsticks => "MiB/s",
        }
    }

    /// Details to draw instead of the figure, each as a line of its own; none: the ratio, or the value where there is none.
    pub const fn details(self) -> &'static [&'static str] {
        match self {
            Self::CaptureProducers | Self::CaptureSize | Self::CaptureRate => {
                &["p50_us", "p99_at_speed_us", "p999_us", "copy_p99_at_speed_us"]
            }
            Self::OpenHistory | Self::LookupHistory => &["p50_us", "p99_us"],
            _ => &[],
        }
    }

    /// A detail that says where on the horizontal axis a row lies, where only the measurement knows.
    pub const fn x_detail(self) -> Option<&'static str> {
        match self {
            Self::ReopenHistory => Some("stored_mib"),
            Self::OpenHistory | Self::LookupHistory => Some("versions"),
            _ => None,
        }
    }
}

/// Where a scenario's figure lies on a plot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At {
    /// The plot.
    pub plot: Plot,
    /// The line that it is a point of.
    pub line: &'static str,
    /// The place on the horizontal axis.
    pub x: f64,
}

/// [`At`], as it stands in the document of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The plot.
    pub plot: Plot,
    /// The line that it is a point of.
    pub line: String,
    /// The place on the horizontal axis.
    pub x: f64,
}

impl From<&At> for CurvePoint {
    fn from(at: &At) -> Self {
        Self { plot: at.plot, line: at.line.to_owned(), x: at.x }
    }
}

/// Figures that one measurement took one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// What the horizontal axis shows, with the unit.
    pub x_label: String,
    /// What the vertical axis shows, with the unit.
    pub y_label: String,
    /// Points, in order.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// A series; points that JSON cannot say are left out.
    pub fn new(name: &str, x_label: &str, y_label: &str, points: Vec<(f64, f64)>) -> Self {
        let points = points.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        Self { name: name.to_owned(), x_label: x_label.to_owned(), y_label: y_label.to_owned(), points }
    }
}
