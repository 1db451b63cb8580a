//! The plots of a page: which rows and series become which lines. Pure.

use super::svg::{Axis, Bar, Drawing, Labels, bars, escape, legend, push};
use crate::{
    curve::{Plot, Series},
    histogram::{Histogram, upper_end},
    metric::{Bound, Unit, Verdict, short},
    probe::Probe,
    report::{Report, Row},
};
use cdp_core::units::BLOCK_BYTES;

/// The label of an axis of time.
const SECONDS: &str = "s";
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;

/// A point of a line.
struct Mark {
    x: f64,
    y: f64,
    low: f64,
    high: f64,
    hollow: bool,
    said: String,
}

/// A line of a plot.
struct Line {
    name: String,
    marks: Vec<Mark>,
}

/// A plot, with what stands above it.
pub struct Figure {
    drawing: Drawing,
    /// The names of its lines, where they are told apart.
    names: Vec<String>,
    /// More than its title.
    caption: String,
}

impl Figure {
    fn new(drawing: Drawing) -> Self {
        Self { drawing, names: Vec::new(), caption: String::new() }
    }

    /// What it shows.
    pub fn title(&self) -> &str {
        self.drawing.title()
    }

    /// The drawing alone, for a page that says what it is.
    pub fn element(&self) -> String {
        self.drawing.element()
    }

    /// A part of a page.
    pub fn html(&self) -> String {
        let mut text = String::from("<figure>");
        push(
            &mut text,
            format_args!(
                "<figcaption><b>{}</b>{}</figcaption>\n",
                escape(self.title()),
                escape(&self.caption)
            ),
        );
        if !self.names.is_empty() {
            text.push_str(&legend(self.names.iter().map(String::as_str)));
        }
        text.push_str(&self.drawing.element());
        text.push_str("</figure>\n");
        text
    }

    /// A picture of its own.
    pub fn picture(&self, style: &str) -> String {
        self.drawing.picture(&self.names, style)
    }
}

/// Class of the colour of a row.
pub fn class_of(row: &Row) -> &'static str {
    match row.verdict {
        _ if !row.stable => "unstable",
        Verdict::Met => "met",
        Verdict::Floor => "floor",
        Verdict::Missed => "missed",
        Verdict::NoAim => "plain",
    }
}

/// Bars of the ratios to the probes, with their aims.
pub fn ratio_bars(report: &Report) -> Option<Figure> {
    let bar = |row: &Row| {
        let ratio = row.ratio.filter(|ratio| ratio.is_finite())?;
        let aim = match row.aim {
            Some(Bound::RatioAtLeast(aim)) => Some(aim),
            _ => None,
        };
        let said =
            format!("{}: {} {} / {} = {ratio:.3}", row.title, short(row.value), row.unit, short(row.raw()));
        let text = format!("{ratio:.2}");
        Some(Bar { name: row.name.clone(), value: ratio, text, aim, class: class_of(row), said })
    };
    // Other programs have a plot of their own: they would make these bars too small to be told apart.
    let is_own = |row: &&Row| !row.curves.iter().any(|curve| curve.plot == Plot::Yardsticks && curve.x > 0.0);
    let rows = report.rows.iter().filter(|row| row.more_is_better).filter(is_own);
    let found: Vec<Bar> = rows.filter_map(bar).collect();
    (!found.is_empty()).then(|| {
        Figure::new(bars("Ratios to the raw probes", "ratio to the probe; the mark is the aim", &found))
    })
}

/// Bars of how far figures that have no ratio reach their aim: 1 is reached.
pub fn bound_bars(report: &Report) -> Option<Figure> {
    let bar = |row: &Row| {
        let bound = match row.aim? {
            Bound::AtLeast(bound) => bound,
            Bound::AtMost(bound) => bound,
            Bound::AtMostWithScan { milliseconds, mebibytes } => milliseconds + 1e3 * mebibytes / row.raw(),
            Bound::RatioAtLeast(_) => return None,
        };
        let value = if row.more_is_better { row.value / bound } else { bound / row.value };
        let text = format!("{} {}", short(row.value), row.unit);
        let said = format!("{}: {text}, aim {}", row.title, short(bound));
        let (name, aim, class) = (row.name.clone(), Some(1.0), class_of(row));
        value.is_finite().then_some(Bar { name, value, text, aim, class, said })
    };
    let found: Vec<Bar> = report.rows.iter().filter_map(bar).collect();
    (!found.is_empty()).then(|| {
        Figure::new(bars("Times and rates against their aims", "how many times better than the aim", &found))
    })
}

/// The distribution of a row's latencies, beside that of its own probe.
pub fn distribution(row: &Row) -> Option<Figure> {
    let own = row.findings.latencies.as_ref().filter(|histogram| histogram.count() > 1)?;
    let reference = row.findings.reference_latencies.as_ref();
    let curves: Vec<(&str, Vec<(f64, f64)>)> = [(row.name.as_str(), Some(own)), ("its probe", reference)]
        .into_iter()
        .filter_map(|(name, histogram)| Some((name, slower(histogram?))))
        .collect();
    let x = Axis::logarithmic(curves.iter().flat_map(|(_, points)| points.iter().map(|point| point.0)));
    let y = Axis::logarithmic([1.0, 1e-5].into_iter());
    let labels = Labels {
        width: 460.0,
        height: 240.0,
        title: &row.name,
        x: "microseconds",
        y: "share that is slower",
    };
    let mut drawing = Drawing::new(labels, x, y);
    for (colour, (_, points)) in curves.iter().enumerate() {
        drawing.path(colour, points);
    }
    let at = |per_mille| own.quantile_ns(per_mille).map_or(f64::NAN, |ns| ns as f64 / 1e3);
    let caption = format!(
        " {} operations; p50 {} us, p99 {} us, p99.9 {} us",
        own.count(),
        short(at(500)),
        short(at(990)),
        short(at(999)),
    );
    let names = curves.iter().filter(|_| curves.len() > 1).map(|(name, _)| (*name).to_owned()).collect();
    Some(Figure { drawing, names, caption })
}

/// For the end of each bucket, in microseconds, the share of samples beyond it.
fn slower(histogram: &Histogram) -> Vec<(f64, f64)> {
    let all = histogram.count().max(1) as f64;
    let mut left = histogram.count();
    let first = histogram.buckets_ns.first().map(|(low, _)| (*low as f64 / 1e3, 1.0));
    let rest = histogram.buckets_ns.iter().map(|(low, count)| {
        left = left.saturating_sub(*count);
        (upper_end(*low) as f64 / 1e3, left as f64 / all)
    });
    first.into_iter().chain(rest).collect()
}

/// A plot from the rows that lie on it.
pub fn curve(report: &Report, plot: Plot) -> Option<Figure> {
    let lines = lines_of(report, plot);
    if lines.is_empty() {
        return None;
    }
    let title = plot.title();
    if plot == Plot::Yardsticks {
        let bar = |line: &Line| {
            let mark = line.marks.first()?;
            let text = format!("{} MiB/s", short(mark.y));
            let class = if mark.hollow { "unstable" } else { "plain" };
            Some(Bar {
                name: line.name.clone(),
                value: mark.y,
                text,
                aim: None,
                class,
                said: mark.said.clone(),
            })
        };
        let found: Vec<Bar> = lines.iter().filter_map(bar).chain(raw_yardsticks(report)).collect();
        return Some(Figure::new(bars(title, plot.x_label(), &found)));
    }
    let y_label = y_label(report, plot);
    Some(draw(title, (plot.x_label(), &y_label), &lines))
}

/// The probes of the same writes: in place without history, and copy-on-write.
fn raw_yardsticks(report: &Report) -> impl Iterator<Item = Bar> + '_ {
    let probes = [
        (Probe::RandomWrite, "raw writes in place, no history"),
        (Probe::CopyOnWrite, "copy-on-write reference"),
    ];
    probes.into_iter().filter_map(|(probe, name)| {
        let row = report.rows.iter().find(|row| row.probe == probe && row.probe_unit == Unit::PerSecond)?;
        let value = row.raw() * BLOCK_BYTES as f64 / f64::from(1 << 20);
        let text = format!("{} MiB/s", short(value));
        let said = format!("the probe of {}: {}", row.name, probe.method());
        Some(Bar { name: name.to_owned(), value, text, aim: None, class: "floor", said })
    })
}

/// What the vertical axis shows: what the rows on the plot have in common.
fn y_label(report: &Report, plot: Plot) -> String {
    if !plot.details().is_empty() {
        return "microseconds".into();
    }
    let row = report.rows.iter().find(|row| row.curves.iter().any(|curve| curve.plot == plot));
    match row {
        Some(row) if row.ratio.is_some() => "ratio to the probe".into(),
        Some(row) => row.unit.to_string(),
        None => String::new(),
    }
}

fn lines_of(report: &Report, plot: Plot) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut add = |name: String, mark: Mark| match lines.iter_mut().find(|line| line.name == name) {
        Some(line) => line.marks.push(mark),
        None => lines.push(Line { name, marks: vec![mark] }),
    };
    for row in &report.rows {
        let details = &row.findings.details;
        for point in row.curves.iter().filter(|point| point.plot == plot) {
            let known = plot.x_detail().and_then(|name| details.get(name)).copied();
            let (x, hollow) = (known.unwrap_or(point.x), !row.stable);
            for name in plot.details() {
                let Some(y) = details.get(*name).copied() else { continue };
                let said = format!("{}: {name} {}", row.title, short(y));
                let line = format!("{} {}", point.line, name.trim_end_matches("_us").replace('_', " "));
                add(line.trim().to_owned(), Mark { x, y, low: y, high: y, hollow, said });
            }
            if plot.details().is_empty() {
                let y = if plot == Plot::Yardsticks { row.value } else { row.ratio.unwrap_or(row.value) };
                let half = row.spread.filter(|_| row.ratio.is_some()).unwrap_or(0.0).min(1.0) / 2.0;
                let said = format!("{}: {}", row.title, short(y));
                let (low, high) = (y * (1.0 - half), y * (1.0 + half));
                add(point.line.clone(), Mark { x, y, low, high, hollow, said });
            }
        }
    }
    for line in &mut lines {
        line.marks.sort_by(|one, other| one.x.total_cmp(&other.x));
    }
    lines
}

/// A plot from a series.
pub fn series(row: &Row, series: &Series) -> Figure {
    let mark = |(x, y): &(f64, f64)| {
        let said = format!("{}: {}", short(*x), short(*y));
        Mark { x: *x, y: *y, low: *y, high: *y, hollow: false, said }
    };
    let line = Line { name: row.name.clone(), marks: series.points.iter().map(mark).collect() };
    draw(&series.name, (&series.x_label, &series.y_label), &[line])
}

fn draw(title: &str, (x_label, y_label): (&str, &str), lines: &[Line]) -> Figure {
    let marks = || lines.iter().flat_map(|line| &line.marks);
    // Time runs evenly; sizes and numbers go by factors.
    let across = marks().map(|mark| mark.x);
    let x = if x_label == SECONDS { Axis::from_zero(across) } else { Axis::fitting(across, 10.0) };
    let y = Axis::fitting(marks().map(|mark| mark.y), 30.0);
    let labels = Labels { width: WIDTH, height: HEIGHT, title, x: x_label, y: y_label };
    let mut drawing = Drawing::new(labels, x, y);
    for (colour, line) in lines.iter().enumerate() {
        let points: Vec<_> = line.marks.iter().map(|mark| (mark.x, mark.y)).collect();
        drawing.path(colour, &points);
        // A long series is a line; whoever has few points wants to know each.
        if points.len() <= 40 {
            for mark in &line.marks {
                drawing.point(colour, (mark.x, mark.y), (mark.low, mark.high), mark.hollow, &mark.said);
            }
        }
    }
    let names = lines.iter().map(|line| line.name.clone()).collect();
    Figure { drawing, names, caption: String::new() }
}
